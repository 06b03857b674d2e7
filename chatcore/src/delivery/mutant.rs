//! What the mutants of delivery do where a condition does not say it.

use std::collections::BTreeMap;

use super::{Delivery, Outgoing, RoomTail};
use crate::chunk::Chunk;
use crate::id::{Incarnation, Threshold};
use crate::mutant::Mutant;
use crate::text::RoomName;

impl Delivery {
    /// Switches a rule off.
    pub const fn mutate(&mut self, mutant: Mutant) {
        self.mutant = Some(mutant);
    }
}

impl Outgoing {
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
