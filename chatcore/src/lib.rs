//! A chat engine as a deterministic, transport-agnostic state machine.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]
#![cfg_attr(
    test,
    allow(
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::as_conversions,
        reason = "a test that panics is a test that fails"
    )
)]

pub mod address;
pub mod chunk;
pub mod client;
pub mod codec;
pub mod delivery;
pub mod engine;
pub mod id;
pub mod limits;
pub mod log;
pub mod text;
pub mod time;
pub mod wire;
