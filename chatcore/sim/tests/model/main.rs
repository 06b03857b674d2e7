//! The model against the engine: they agree on random runs, and the model names the rule when an
//! output is falsified.
#![expect(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test that panics is a test that fails"
)]

mod falsified;
mod random;
mod rig;
