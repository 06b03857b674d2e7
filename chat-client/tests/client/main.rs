//! The program as its users meet it: real processes over real sockets.
#![expect(clippy::unwrap_used, reason = "a test that panics is a test that fails")]

mod contract;
mod full;
mod identity;
mod input;
mod operators;
mod support;
mod terminal;
mod tls;
