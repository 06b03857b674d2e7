//! Whole chat worlds from a seed: clients, a server, its store and the network between them.
//!
//! Because `chatcore` is deterministic, a world is a function of its seed, and so is every failure.
#![forbid(unsafe_code)]

pub mod broken;
pub mod fuzz;
pub mod marks;
pub mod model;
pub mod off;
pub mod plan;
pub mod runner;
pub mod shrink;
mod witness;
pub mod world;
