//! Whole chat worlds from a seed: clients, a server, its store and the network between them.
//!
//! Because `chatcore` is deterministic, a world is a function of its seed, and so is every failure.
//!
//! ```text
//! cargo run -p chat-sim --release -- --seeds 20000    # many worlds on all cores
//! cargo run -p chat-sim --release -- --seed 17        # one again; a failure told as short as it can be
//! ```
//!
//! | module | what it is |
//! |---|---|
//! | [`plan`] | what a world is made of and what happens in it, drawn from a seed before it begins |
//! | [`world`] | the world: one queue of events moves engine, delivery, clients, store and network |
//! | [`model`] | a naive engine, written against the rules: predicts everything the engine puts out |
//! | `witness` | the end-to-end checker: what people see against what the journal says |
//! | `tap` | what delivery writes to each connection, byte for byte |
//! | [`marks`] | situations that a run must have reached |
//! | [`broken`] | a rule that was broken |
//! | [`runner`], [`shrink`], [`panics`] | many worlds at once; the smallest story of a failure |
//! | [`watchdog`] | a world that takes no step any more tells its seed |
//! | [`moving`] | every state of processes that hand a chat to each other |
//! | `telling` | what happens, in words |
//! | [`off`] | rules that a build for tests can switch off, to prove that the checkers notice |
//! | [`fuzz`] | the bodies of the fuzz targets |
//!
//! A world has two phases. First people do things and things go wrong: connections break, hang and
//! stall, clients die, the server crashes and loses what was not safe, the store is slow, full or
//! cannot read, clocks jump, strangers send anything. Then nothing goes wrong any more, and within
//! a bounded number of steps everybody has to be connected, every command answered and everything
//! seen. A step is one event. After each step the model has compared every output of the engine, the
//! tap everything that was written, and the witness everything that was shown. Every 64 steps, as
//! soon as nothing waits for the store,
//! the engine is made again from its snapshot and has to be the same; and the same visitor is told
//! the same by an engine of that snapshot and by one of the snapshot before and the entries since
//! then. At every crash the engine that lived and one made from its snapshot are visited likewise.
//! After every restart a second engine, made from a snapshot of the first, does the same as
//! the first for 300 inputs.
#![forbid(unsafe_code)]

pub mod broken;
pub mod fuzz;
pub mod marks;
pub mod model;
pub mod moving;
pub mod off;
pub mod panics;
pub mod plan;
pub mod runner;
pub mod shrink;
mod tap;
mod telling;
pub mod watchdog;
mod witness;
pub mod world;
