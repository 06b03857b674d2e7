//! What is true of a room, for checkers that read what clients got.

use std::collections::BTreeSet;
use std::sync::Arc;

use chatcore::id::{Incarnation, Seq, Threshold};
use chatcore::log::{Change, Entry};
use chatcore::text::UserName;
use chatcore::wire::{Record, RecordBody};

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
    /// How many records its life has.
    last: Seq,
    /// The last record that is gone for good.
    pub(super) trimmed: Seq,
    /// Bytes of text behind the closed gate.
    pub(super) held_bytes: u64,
    /// The entries that made its records: the one at place `n` made record `n + 1`. Kept of what is
    /// committed alone.
    entries: Vec<Arc<Entry>>,
}

impl RoomTruth {
    pub(super) fn new(threshold: Threshold) -> Self {
        Self {
            incarnation: Incarnation::ZERO.next(),
            threshold,
            open: false,
            members: BTreeSet::new(),
            last: Seq::ZERO,
            trimmed: Seq::ZERO,
            held_bytes: 0,
            entries: Vec::new(),
        }
    }

    /// One record more.
    pub(super) fn count_record(&mut self, text_bytes: usize) {
        self.last = self.last.next();
        if !self.open {
            self.held_bytes += to_u64(text_bytes);
        }
    }

    pub(super) fn open(&mut self) {
        self.open = true;
        self.held_bytes = 0;
    }

    /// Members stay, all else goes.
    pub(super) fn reset(&mut self, incarnation: Incarnation, threshold: Threshold) {
        let members = core::mem::take(&mut self.members);
        *self = Self { incarnation, members, ..Self::new(threshold) };
    }

    pub(super) fn keep(&mut self, entry: Arc<Entry>) {
        self.entries.push(entry);
    }

    /// A copy that knows how many records there are and not what they say.
    pub(super) fn without_entries(&self) -> Self {
        let members = self.members.clone();
        Self { members, entries: Vec::new(), ..*self }
    }

    /// Its records, from the first that is not gone.
    pub fn records(&self) -> impl DoubleEndedIterator<Item = Record> {
        let gone = usize::try_from(self.trimmed.get()).unwrap_or(usize::MAX);
        self.entries.iter().skip(gone).filter_map(|entry| record_of(entry))
    }

    /// The entry that made a record.
    pub fn entry(&self, seq: Seq) -> Option<&Arc<Entry>> {
        self.entries.get(place_of(seq)?)
    }

    /// The entries that made these records, both ends included.
    pub(super) fn entries(&self, first: Seq, last: Seq) -> &[Arc<Entry>] {
        let (first, last) = (place_of(first), place_of(last));
        let range = first.zip(last).and_then(|(first, last)| self.entries.get(first..=last));
        range.unwrap_or_default()
    }

    /// The last record that is committed; 0 when there is none.
    pub const fn last(&self) -> Seq {
        self.last
    }

    /// The first record that is not gone for good.
    pub(super) fn oldest(&self) -> Seq {
        self.trimmed.next()
    }

    /// The last record that readers may see.
    pub const fn visible(&self) -> Seq {
        if self.open { self.last } else { Seq::ZERO }
    }
}

/// The record that an entry makes, if any.
pub(super) fn record_of(entry: &Entry) -> Option<Record> {
    let (room, incarnation, seq, body) = match &entry.change {
        Change::Joined { room, incarnation, seq: Some(seq), user } => {
            (room, incarnation, seq, RecordBody::Joined { user: user.clone() })
        }
        Change::Left { room, incarnation, seq: Some(seq), user } => {
            (room, incarnation, seq, RecordBody::Left { user: user.clone() })
        }
        Change::Posted { room, incarnation, seq, from, text, .. } => {
            let body = RecordBody::Post { from: from.clone(), text: text.clone() };
            (room, incarnation, seq, body)
        }
        Change::Joined { seq: None, .. }
        | Change::Left { seq: None, .. }
        | Change::Founded(_)
        | Change::UserAdded { .. }
        | Change::OperatorGranted { .. }
        | Change::SessionOpened { .. }
        | Change::SessionExpired { .. }
        | Change::RoomCreated { .. }
        | Change::Refused { .. }
        | Change::GateOpened { .. }
        | Change::Reset { .. }
        | Change::Trimmed { .. }
        | Change::Moderated { .. } => return None,
    };
    let at = entry.header.at;
    Some(Record { room: room.clone(), incarnation: *incarnation, seq: *seq, at, body })
}

fn place_of(seq: Seq) -> Option<usize> {
    usize::try_from(seq.get()).ok()?.checked_sub(1)
}

pub(super) fn to_u64(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

pub(super) fn to_u32(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
