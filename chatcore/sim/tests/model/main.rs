//! The model against the engine: they agree on random runs, and the model names the rule when an
//! output is falsified.

mod falsified;
mod random;
mod rig;
