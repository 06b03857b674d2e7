//! Who owns a chat: moving it from one process to another, and taking it over when its owner dies.
//!
//! A chat has one *owner*, which decides and commits, and at most one *standby*, which has everything
//! that is committed. Who they are stands in one [`Record`] of a register that all can reach, and
//! every change of it is one compare-and-swap. So a move is a swap of roles between two who have the
//! same, a take-over is the same swap without a word from the owner, and no lease and no clock has a
//! part in why it is safe.
//!
//! | module | what it is |
//! |---|---|
//! | `register` | the record of owner and standby, and which changes of it are right |
//! | `node` | one process: what it may commit, and what it does about the record |
//! | [`directory`] | the registers of many services in one place, and what nodes say to it |
//!
//! Source of the idea: viewstamped replication (Oki and Liskov, 1988) with a configuration of two,
//! and the register outside of them as in vertical Paxos (Lamport, Malkhi and Zhou, 2009).

pub mod directory;
mod node;
mod register;

pub use node::{Input, Message, Node, Output, Standing};
pub use register::{NodeId, Proposal, Record};
