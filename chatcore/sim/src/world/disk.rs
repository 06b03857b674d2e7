//! The store at its seam: entries that are written, made safe later, and lost in a crash if not.

use std::collections::BTreeMap;
use std::sync::Arc;

use chatcore::engine::ReadOrder;
use chatcore::id::{Incarnation, Index, Seq};
use chatcore::log::Entry;
use chatcore::text::RoomName;
use chatcore::wire::Record;

use crate::world::store::Wanted;

/// What is on the disk.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    /// Every entry that was written.
    entries: Vec<Arc<Entry>>,
    /// The places of the records of each life of each room.
    records: BTreeMap<(RoomName, Incarnation), Vec<usize>>,
    /// Entries that a sync has made safe.
    pub(crate) synced: Index,
    /// Entries that the engine was told are safe.
    pub(crate) told: Index,
    /// Whether a sync is under way.
    pub(crate) syncing: bool,
    /// The newest checkpoint, and the one before.
    checkpoints: Vec<(Index, Vec<u8>)>,
}

impl Disk {
    pub(crate) fn write(&mut self, entry: Arc<Entry>) {
        if let Some(record) = entry.record() {
            let life = self.records.entry((record.room, record.incarnation)).or_default();
            life.push(self.entries.len());
        }
        self.entries.push(entry);
    }

    pub(crate) fn written(&self) -> Index {
        self.entries.last().map_or(Index::ZERO, |entry| entry.header.index)
    }

    /// The process died: the first `kept` of 256 parts of what was not synced is still there.
    pub(crate) fn crash(&mut self, kept: u8) -> Index {
        let written = self.entries.len();
        let synced = usize::try_from(self.synced.get()).unwrap_or(usize::MAX);
        let more = (written - synced) * usize::from(kept) / 255;
        self.entries.truncate(synced + more);
        let left = self.entries.len();
        self.records.values_mut().for_each(|places| places.retain(|place| *place < left));
        self.synced = self.written();
        self.told = self.synced;
        self.syncing = false;
        self.checkpoints.retain(|(index, _)| *index <= self.synced);
        self.synced
    }

    pub(crate) fn checkpoint(&mut self, index: Index, bytes: Vec<u8>) {
        self.checkpoints.push((index, bytes));
        if self.checkpoints.len() > 2 {
            self.checkpoints.remove(0);
        }
    }

    /// A checkpoint, the newest or the one before it, and how far it goes.
    pub(crate) fn checkpoint_at(&self, back: usize) -> Option<&(Index, Vec<u8>)> {
        self.checkpoints.iter().rev().nth(back)
    }

    /// Every entry after this one.
    pub(crate) fn after(&self, index: Index) -> &[Arc<Entry>] {
        let from = usize::try_from(index.get()).unwrap_or(usize::MAX);
        self.entries.get(from..).unwrap_or_default()
    }

    /// Records of a life, so many of the range.
    pub(crate) fn read(&self, wanted: &Wanted, most: usize) -> Vec<Record> {
        let number = |seq: Seq| usize::try_from(seq.get()).unwrap_or(usize::MAX);
        let key = (wanted.room.clone(), wanted.incarnation);
        let places = self.records.get(&key).map(Vec::as_slice).unwrap_or_default();
        let to = number(wanted.to).min(places.len());
        let from = number(wanted.from).saturating_sub(1).min(to);
        let range = match wanted.order {
            ReadOrder::Forward => from..to.min(from.saturating_add(most)),
            ReadOrder::Backward => from.max(to.saturating_sub(most))..to,
        };
        let places = places.get(range).unwrap_or_default();
        places.iter().filter_map(|place| self.entries.get(*place)?.record()).collect()
    }
}
