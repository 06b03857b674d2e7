//! A naive model of the engine, written against the rules and not with its helpers.
//!
//! It is told every input before the engine handles it and every output after, predicts from the
//! rules alone what has to come out, and names the rule when something else does. It shares the
//! engine's public types and none of its logic.
//!
//! ```text
//! model.before(now, &input);
//! engine.handle(now, input);
//! while let Some(output) = engine.poll_output() { model.output(&output)?; … }
//! model.after()?;
//! ```
//!
//! What [`Engine::found`](chatcore::engine::Engine::found) puts out is given to `output` before the
//! first input. After a [`Broken`] the model means nothing any more.

mod truth;

use std::collections::BTreeMap;

use chatcore::engine::{Config, Input, Output};
use chatcore::id::{Counter, Index, SessionId};
use chatcore::log::Founding;
use chatcore::text::{RoomName, UserName};
use chatcore::time::Now;

pub use truth::RoomTruth;

/// A rule that was broken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("broken rule: {rule}: {detail}")]
pub struct Broken {
    /// The rule, in stable words.
    pub rule: &'static str,
    /// What happened instead.
    pub detail: String,
}

/// What one engine must do, whoever speaks to it.
#[derive(Debug)]
pub struct Model {
    rooms: BTreeMap<RoomName, RoomTruth>,
    committed: Index,
}

impl Model {
    /// The model of an engine that is founded like this.
    pub fn new(_config: &Config, _founding: &Founding, _now: Now) -> Self {
        Self { rooms: BTreeMap::new(), committed: Index::ZERO }
    }

    /// Before the engine is given an input.
    pub fn before(&mut self, _now: Now, input: &Input) {
        if let Input::Persisted { through } = input {
            self.committed = *through;
        }
    }

    /// Every output after that input, in order.
    ///
    /// # Errors
    /// When a rule is broken.
    pub fn output(&mut self, _output: &Output) -> Result<(), Broken> {
        Ok(())
    }

    /// All outputs of the input were taken.
    ///
    /// # Errors
    /// When something had to come and did not.
    pub fn after(&mut self) -> Result<(), Broken> {
        Ok(())
    }

    /// The process died, and a new engine was made of the journal up to `kept`, which is at least
    /// what was committed. Connections, reads, rates and answers that waited are gone, and every
    /// member has a fresh grace.
    pub fn restart(&mut self, kept: Index, _now: Now) {
        self.committed = kept;
    }

    /// The last entry that is safe.
    pub const fn committed(&self) -> Index {
        self.committed
    }

    /// What is committed of a room; `None` when its making is not.
    pub fn room(&self, room: &RoomName) -> Option<&RoomTruth> {
        self.rooms.get(room)
    }

    /// Every committed room, by name.
    pub fn rooms(&self) -> impl ExactSizeIterator<Item = (&RoomName, &RoomTruth)> {
        self.rooms.iter()
    }

    /// Whether a user is an operator, by what is appended.
    pub fn is_operator(&self, _user: &UserName) -> bool {
        false
    }

    /// The last command of a session, by what is appended; `None` when there is no such session.
    pub fn last_counter(&self, _session: &SessionId) -> Option<Counter> {
        None
    }
}
