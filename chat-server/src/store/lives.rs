//! The newest record of every room: where reading its history begins.
//!
//! This is all that is kept in memory of a history, however long it is.

use std::collections::BTreeMap;

use chatcore::id::{Incarnation, Index, Seq};
use chatcore::log::{Change, Entry};
use chatcore::text::RoomName;
use chatcore::wire::Record;

use crate::store::fault::Flaw;

/// Every so many records of a life one is an anchor: reading begins at an anchor, or at the newest
/// record, and walks back from there.
pub(crate) const ANCHOR_INTERVAL: u64 = 64;

/// The present life of a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Life {
    pub(crate) incarnation: Incarnation,
    /// The entry that it began with: its number, shorter than a name.
    pub(crate) began: Index,
    /// Its newest record; 0 before the first.
    pub(crate) last: Seq,
    /// The entry of its newest record; 0 before the first.
    pub(crate) newest: Index,
    /// The last record that was deleted since the start: what reads just now may have met the hole.
    pub(crate) deleted: Seq,
}

impl Life {
    /// Nothing yet.
    pub(crate) const NONE: Self = Self {
        incarnation: Incarnation::ZERO,
        began: Index::ZERO,
        last: Seq::ZERO,
        newest: Index::ZERO,
        deleted: Seq::ZERO,
    };
}

/// How an entry with a record is tied to the other records of its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    /// The life, by the entry that it began with.
    pub(crate) life: Index,
    pub(crate) seq: Seq,
    /// The entry of the record before; 0 for the first.
    pub(crate) previous: Index,
}

impl Link {
    /// Whether the record is one of those that reading begins at.
    pub(crate) const fn is_anchor(&self) -> bool {
        is_anchor(self.seq)
    }
}

/// Whether a record of this number is one of those that reading begins at.
pub(crate) const fn is_anchor(seq: Seq) -> bool {
    seq.get().is_multiple_of(ANCHOR_INTERVAL)
}

/// The present life of every room.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lives(BTreeMap<RoomName, Life>);

impl Lives {
    pub(crate) fn get(&self, room: &RoomName) -> Option<Life> {
        self.0.get(room).copied()
    }

    pub(crate) fn set(&mut self, room: RoomName, life: Life) {
        self.0.insert(room, life);
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&RoomName, &Life)> {
        self.0.iter()
    }

    /// Takes over what another set of lives says of some rooms.
    pub(crate) fn extend(&mut self, newer: Self) {
        self.0.extend(newer.0);
    }

    /// Follows one entry; how it is tied to others, when it makes a record.
    pub(crate) fn follow(&mut self, entry: &Entry) -> Result<Option<Link>, Flaw> {
        let Some(room) = entry.change.room() else { return Ok(None) };
        let Some((life, link)) = step(self.get(room), entry)? else { return Ok(None) };
        self.set(room.clone(), life);
        Ok(link)
    }
}

impl Lives {
    /// Goes on with a record where those before it are deleted, the one that it names among them;
    /// whether there are any. To be followed by the record.
    pub(crate) fn resume(&mut self, record: &Record, previous: Index) -> bool {
        let Some(life) = self.0.get_mut(&record.room) else { return false };
        let follows = record.seq <= life.last.next();
        if !follows {
            (life.last, life.newest) = (record.seq.previous(), previous);
        }
        !follows
    }

    /// Notes that records up to one are deleted.
    pub(crate) fn delete(&mut self, room: &RoomName, incarnation: Incarnation, through: Seq) {
        let life = self.0.get_mut(room).filter(|life| life.incarnation == incarnation);
        if let Some(life) = life {
            life.deleted = life.deleted.max(through);
        }
    }
}

/// Lives that a batch of entries changes, over those that are safe: what is tried and fails leaves
/// nothing behind.
#[derive(Debug)]
pub(crate) struct Draft<'a> {
    safe: &'a Lives,
    changed: Lives,
}

impl<'a> Draft<'a> {
    pub(crate) fn over(safe: &'a Lives) -> Self {
        Self { safe, changed: Lives::default() }
    }

    /// As [`Lives::follow`].
    pub(crate) fn follow(&mut self, entry: &Entry) -> Result<Option<Link>, Flaw> {
        let Some(room) = entry.change.room() else { return Ok(None) };
        let life = self.changed.get(room).or_else(|| self.safe.get(room));
        let Some((life, link)) = step(life, entry)? else { return Ok(None) };
        self.changed.set(room.clone(), life);
        Ok(link)
    }

    pub(crate) fn into_changed(self) -> Lives {
        self.changed
    }
}

/// The life of a room after an entry of it, if that changes it.
fn step(life: Option<Life>, entry: &Entry) -> Result<Option<(Life, Option<Link>)>, Flaw> {
    let began = entry.header.index;
    let new = |incarnation| Life { incarnation, began, ..Life::NONE };
    let (incarnation, seq) = match &entry.change {
        Change::RoomCreated { .. } => return Ok(Some((new(Incarnation::ZERO.next()), None))),
        Change::Reset { incarnation, .. } => return Ok(Some((new(*incarnation), None))),
        Change::Posted { incarnation, seq, .. }
        | Change::Joined { incarnation, seq: Some(seq), .. }
        | Change::Left { incarnation, seq: Some(seq), .. } => (*incarnation, *seq),
        Change::Joined { seq: None, .. }
        | Change::Left { seq: None, .. }
        | Change::GateOpened { .. }
        | Change::Founded(_)
        | Change::UserAdded { .. }
        | Change::OperatorGranted { .. }
        | Change::SessionOpened { .. }
        | Change::SessionExpired { .. }
        | Change::Refused { .. }
        | Change::Trimmed { .. }
        | Change::Moderated { .. } => return Ok(None),
    };
    let life = life.ok_or(Flaw::Record)?;
    if life.incarnation != incarnation || seq != life.last.next() {
        return Err(Flaw::Record);
    }
    let link = Link { life: life.began, seq, previous: life.newest };
    Ok(Some((Life { last: seq, newest: entry.header.index, ..life }, Some(link))))
}
