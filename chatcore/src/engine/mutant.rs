//! What the engine's mutants do where a condition does not say it.

use crate::chunk::Chunk;
use crate::engine::Engine;
use crate::engine::feed::RoomFeed;
use crate::engine::question::newest_of;
use crate::id::{ConnId, Seq, SessionId};
use crate::mutant::Mutant;
use crate::text::RoomName;
use crate::time::{Moment, Now, Span};
use crate::wire::{Answer, List, Start};

impl Engine {
    /// Switches a rule off. To be called when the engine is made: what a mutant does to a restore
    /// is done here.
    pub fn mutate(&mut self, mutant: Mutant) {
        self.mutant = Some(mutant);
        self.durable.mutant = Some(mutant);
        self.volatile.mutant = Some(mutant);
        self.feed.mutant = Some(mutant);
        if mutated!(self, RestoreForgetsGrace) {
            self.volatile.forget_graces_of(None);
        }
        if mutated!(self, RestoreForgetsAnswer) {
            self.durable.forget_newest_answers();
        }
    }

    /// A page of what a closed gate holds.
    pub(super) fn leak_held(&self, room: &RoomName, limit: usize) -> Option<Answer> {
        let is_leak = |feed: &&RoomFeed| mutated!(self, HistoryThroughGate) && !feed.open;
        let feed = self.feed.room(room).filter(is_leak)?;
        let (held, page_bytes) = (feed.held(), self.config.limits.page_bytes);
        let last = held.as_ref().map_or(Seq::ZERO, Chunk::last);
        let records = List::first_of(newest_of(held.iter(), last, limit, page_bytes));
        Some(Answer::History { room: room.clone(), incarnation: feed.incarnation, records })
    }

    pub(super) fn forget_cursor(&self, start: Start) -> Start {
        let forgets = mutated!(self, ResumeAtEnd) && matches!(start, Start::After(_));
        if forgets { Start::Last(0) } else { start }
    }

    /// The rooms that a connection leaves when it ends.
    pub(super) fn rooms_to_desert(
        &self,
        conn: ConnId,
        session: SessionId,
        rooms: Vec<RoomName>,
    ) -> Vec<RoomName> {
        let replaced = self.volatile.sessions.get(&session) != Some(&conn);
        if replaced && mutated!(self, ReplacedKeepsAttending) { Vec::new() } else { rooms }
    }

    /// The time by the clock that deadlines follow.
    pub(super) fn clock(&mut self, now: Now) -> Now {
        let began = *self.began.get_or_insert(now);
        if !mutated!(self, TimersOnWallClock) {
            return now;
        }
        let passed = Span::from_millis(now.wall.get().saturating_sub(began.wall.get()));
        let moment: Moment = began.moment + passed;
        Now { moment, ..now }
    }
}
