//! Outputs that are not what the engine put out, and the rule that each breaks.
