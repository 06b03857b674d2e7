//! The client's side of a conversation as one state machine.
//!
//! Like the engine it does no input or output of its own. The host dials, reads and writes frames,
//! signs, keeps a few numbers in a file and shows events; the client decides what to say next, when
//! to dial again, what to send again, and what has been seen before.
//!
//! Invariants: a command leaves the outbox only when it is answered, or the user is told that it
//! is given up; records of a room are shown once each and without holes, or the gap is shown;
//! everything that must survive the process leaves as [`Output::Save`] *before* the frame that
//! depends on it; nothing a server sends makes [`Client::handle`] panic or grow without bound.
//!
//! What the user does goes out in the order in which it was done, on every connection anew: a
//! question after the commands before it; a part once they are answered, since it would have them
//! refused; and what is about a room once the join of that room is answered.

mod api;
mod backoff;
mod line;
mod machine;
#[cfg(chat_mutants)]
mod mutant;
mod online;
mod outbox;
mod questions;
mod rooms;
mod roster;
mod silence;

pub use api::{Ask, ClientConfig, Drain, Event, Input, Origin, Output, Save, Saved, Stop, Unsent};
pub use line::{COMMANDS, CommandHelp, Line, LineError, parse_line};
pub use machine::Client;

use std::collections::VecDeque;

use crate::wire::ClientFrame;

/// The place of a command or a question among all of this run; what earlier runs left comes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Place(u64);

impl Place {
    const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// What the host has still to do, in order.
#[derive(Debug, Default)]
struct Outputs(VecDeque<Output>);

impl Outputs {
    fn push(&mut self, output: Output) {
        self.0.push_back(output);
    }

    fn send(&mut self, frame: ClientFrame) {
        self.push(Output::Send(frame));
    }

    fn save(&mut self, save: Save) {
        self.push(Output::Save(save));
    }

    fn event(&mut self, event: Event) {
        self.push(Output::Event(event));
    }

    fn pop(&mut self) -> Option<Output> {
        self.0.pop_front()
    }
}
