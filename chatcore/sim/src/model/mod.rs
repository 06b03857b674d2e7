//! A naive model of the engine, written against the rules and not with its helpers.
