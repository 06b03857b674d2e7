//! What the mutants of delivery do where a condition does not say it.

use std::collections::BTreeMap;

use super::{Delivery, Kind, Outgoing, RoomTail};
use crate::chunk::Chunk;
use crate::id::{Incarnation, Threshold};
use crate::mutant::Mutant;
use crate::text::RoomName;
use crate::wire::GateState;

impl Delivery {
    /// Switches a rule off.
    pub const fn mutate(&mut self, mutant: Mutant) {
        self.mutant = Some(mutant);
    }

    /// Whether a gate differs from what was last said of it by its users only.
    pub(super) fn differs_by_users(&self, room: &RoomName, gate: GateState) -> bool {
        let told = self.rooms.get(room).map(|tail| tail.gate);
        told.is_some_and(|told| GateState { users: told.users, ..gate } == told)
    }
}

impl Outgoing {
    /// Gives the last record of a page again.
    pub(super) fn repeat_last(&mut self, page: &Chunk) {
        if let Some(last) = page.after(page.last().previous(), usize::MAX) {
            self.queue.push_back((Kind::Records, last.bytes().clone()));
        }
    }

    /// Moves every reader to the oldest record in memory.
    pub(super) fn skip_what_is_not_here(&mut self, rooms: &BTreeMap<RoomName, RoomTail>) {
        for (room, reader) in &mut self.follows {
            let Some(tail) = rooms.get(room) else { continue };
            let oldest = tail.chunks.front().map_or(tail.visible.next(), Chunk::first);
            if reader.incarnation == tail.incarnation {
                reader.cursor = reader.cursor.max(oldest.previous());
            }
        }
    }
}

impl RoomTail {
    pub(super) fn reset_but_records(&mut self, incarnation: Incarnation, threshold: Threshold) {
        let (chunks, bytes) = (self.chunks.clone(), self.bytes);
        self.reset(incarnation, threshold);
        (self.chunks, self.bytes) = (chunks, bytes);
    }
}
