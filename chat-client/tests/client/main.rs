//! The program as its users meet it: real processes over real sockets.

mod contract;
mod identity;
mod input;
mod support;
mod terminal;
