//! What is true of a room, for checkers that read what clients got.

use std::collections::BTreeSet;
use std::sync::Arc;

use chatcore::id::{Incarnation, Seq, Threshold};
use chatcore::log::Entry;
use chatcore::text::UserName;
use chatcore::wire::Record;

/// What is committed of a room's present life.
#[derive(Clone, Debug)]
pub struct RoomTruth {
    /// Its life.
    pub incarnation: Incarnation,
    /// The threshold of its gate.
    pub threshold: Threshold,
    /// Whether its gate is open: then every record is visible, else none.
    pub open: bool,
    /// Its members, by name.
    pub members: BTreeSet<UserName>,
    /// The entries that made its records: the one at place `n` made record `n + 1`.
    entries: Vec<Arc<Entry>>,
}

impl RoomTruth {
    /// Its records, from the first.
    pub fn records(&self) -> impl DoubleEndedIterator<Item = Record> {
        self.entries.iter().filter_map(|entry| entry.record())
    }

    /// The entry that made a record.
    pub fn entry(&self, seq: Seq) -> Option<&Arc<Entry>> {
        let place = usize::try_from(seq.get()).ok()?.checked_sub(1)?;
        self.entries.get(place)
    }

    /// The last record that is committed; 0 when there is none.
    pub fn last(&self) -> Seq {
        Seq::ZERO.saturating_add(u64::try_from(self.entries.len()).unwrap_or(u64::MAX))
    }

    /// The last record that readers may see.
    pub fn visible(&self) -> Seq {
        if self.open { self.last() } else { Seq::ZERO }
    }
}
