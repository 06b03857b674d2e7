//! The engine, its delivery and a store stand-in, through the public interface alone.
#![expect(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test that panics is a test that fails"
)]

#[macro_use]
#[path = "../mutated/mod.rs"]
mod mutated;

mod cases;
mod commit;
mod delivery;
mod duty;
mod golden;
mod limits;
mod moderate;
mod operate;
mod proof;
mod random;
mod retention;
mod rig;
mod show;
mod store;
