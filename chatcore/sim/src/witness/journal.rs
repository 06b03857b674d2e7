//! What one journal says, as the store was told.

use std::collections::BTreeMap;
use std::sync::Arc;

use chatcore::id::{Incarnation, Index, Seq, Threshold};
use chatcore::log::{Change, Entry};
use chatcore::text::RoomName;
use chatcore::wire::{Record, RecordBody};

use crate::broken::{Broken, hold};
use crate::witness::{Post, origin_of};

/// One life of one room.
#[derive(Debug, Default)]
pub(crate) struct Life {
    /// The places of its records in the journal, by sequence number from 1.
    records: Vec<usize>,
    /// Bytes of the texts of posts.
    bytes: u64,
    /// Where in the journal its gate opened.
    opened: Option<u64>,
    /// Where in the journal it was trimmed, and through which record.
    trims: Vec<(u64, Seq)>,
    /// Where in the journal it began.
    began: u64,
    pub(crate) threshold: u16,
}

impl Life {
    /// Its last record, safe or not.
    pub(crate) fn last(&self) -> u64 {
        self.records.len() as u64
    }

    pub(crate) const fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) const fn is_open(&self) -> bool {
        self.opened.is_some()
    }
}

/// One journal.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    entries: Vec<Arc<Entry>>,
    /// How many of them were reported safe.
    safe: u64,
    lives: BTreeMap<RoomName, Vec<Life>>,
    /// Where each post is.
    posts: BTreeMap<Post, usize>,
    /// The posts of each client, in the order of the journal.
    order: BTreeMap<u8, Vec<u64>>,
}

impl Journal {
    /// The engine handed an entry to the store.
    pub(crate) fn append(&mut self, entry: &Arc<Entry>) -> Result<(), Broken> {
        let place = self.entries.len();
        let index = entry.header.index.get();
        hold!(index == place as u64 + 1, "entries are dense", "entry {index} after {place}");
        self.entries.push(Arc::clone(entry));
        match &entry.change {
            Change::RoomCreated { room, threshold } => self.begin(room, 1, *threshold, index)?,
            Change::Reset { room, incarnation, threshold, .. } => {
                self.begin(room, incarnation.get(), *threshold, index)?;
            }
            Change::GateOpened { room, incarnation } => {
                let life = self.present_mut(room, *incarnation)?;
                hold!(life.opened.is_none(), "a gate opens once", "{room} {incarnation}");
                life.opened = Some(index);
            }
            Change::Posted { text, .. } => self.count_post(text.as_str(), place)?,
            Change::Joined { .. }
            | Change::Left { .. }
            | Change::Founded(_)
            | Change::UserAdded { .. }
            | Change::OperatorGranted { .. }
            | Change::SessionOpened { .. }
            | Change::SessionExpired { .. }
            | Change::Refused { .. } => {}
            Change::Trimmed { room, incarnation, through } => {
                let life = self.present_mut(room, *incarnation)?;
                let kept = life.is_open() && through.get() <= life.last();
                hold!(kept, "what nobody may see is not trimmed", "{room} {through}");
                let further = life.trims.last().is_none_or(|(_, before)| through > before);
                hold!(further, "a room is trimmed further each time", "{room} {through}");
                life.trims.push((index, *through));
            }
        }
        self.number(entry, place)
    }

    fn begin(
        &mut self,
        room: &RoomName,
        number: u64,
        threshold: Threshold,
        began: u64,
    ) -> Result<(), Broken> {
        let lives = self.lives.entry(room.clone()).or_default();
        let next = lives.len() as u64 + 1;
        hold!(number == next, "a room's lives follow each other", "{room} {number} is not {next}");
        lives.push(Life { began, threshold: threshold.get(), ..Life::default() });
        Ok(())
    }

    /// Records of a life are numbered from 1 without holes.
    fn number(&mut self, entry: &Entry, place: usize) -> Result<(), Broken> {
        let (Change::Joined { room, incarnation, seq: Some(seq), .. }
        | Change::Left { room, incarnation, seq: Some(seq), .. }
        | Change::Posted { room, incarnation, seq, .. }) = &entry.change
        else {
            return Ok(());
        };
        let (incarnation, seq) = (*incarnation, *seq);
        let life = self.present_mut(room, incarnation)?;
        let next = life.last() + 1;
        hold!(seq.get() == next, "records are numbered without holes", "{room} {seq}, not {next}");
        life.records.push(place);
        life.bytes += text_bytes(entry);
        Ok(())
    }

    fn count_post(&mut self, text: &str, place: usize) -> Result<(), Broken> {
        let Some(post) = origin_of(text) else { return Ok(()) };
        let twice = self.posts.insert(post, place).is_some();
        hold!(!twice, "a post takes effect once", "{text:.20} again");
        let order = self.order.entry(post.client).or_default();
        let last = order.last().copied().unwrap_or(0);
        hold!(post.number > last, "posts keep their author's order", "{text:.20} after {last}");
        order.push(post.number);
        Ok(())
    }

    fn present_mut(&mut self, room: &RoomName, life: Incarnation) -> Result<&mut Life, Broken> {
        let lives = self.lives.get_mut(room);
        let present = lives.filter(|lives| lives.len() as u64 == life.get());
        let last = present.and_then(|lives| lives.last_mut());
        last.ok_or_else(|| {
            Broken::new("entries speak of the present life", format!("{room} {life}"))
        })
    }

    /// The store reported entries safe.
    pub(crate) const fn persisted(&mut self, through: Index) {
        self.safe = through.get();
    }

    /// The server died; of what was not reported safe, entries through `kept` are still there.
    pub(crate) fn crashed(&mut self, kept: Index) {
        assert!(kept.get() >= self.safe, "a store must keep what it reported safe");
        while self.entries.len() as u64 > kept.get() {
            let Some(entry) = self.entries.pop() else { return };
            self.take_back(&entry);
        }
        self.safe = kept.get();
    }

    fn take_back(&mut self, entry: &Entry) {
        if let Some(record) = entry.record()
            && let Some(life) = self.lives.get_mut(&record.room).and_then(|lives| lives.last_mut())
        {
            life.records.pop();
            life.bytes -= text_bytes(entry);
        }
        match &entry.change {
            Change::RoomCreated { room, .. } | Change::Reset { room, .. } => {
                self.lives.get_mut(room).and_then(Vec::pop);
            }
            Change::GateOpened { room, .. } => {
                if let Some(life) = self.lives.get_mut(room).and_then(|lives| lives.last_mut()) {
                    life.opened = None;
                }
            }
            Change::Posted { text, .. } => {
                if let Some(post) = origin_of(text.as_str()) {
                    self.posts.remove(&post);
                    self.order.get_mut(&post.client).and_then(Vec::pop);
                }
            }
            Change::Joined { .. }
            | Change::Left { .. }
            | Change::Founded(_)
            | Change::UserAdded { .. }
            | Change::OperatorGranted { .. }
            | Change::SessionOpened { .. }
            | Change::SessionExpired { .. }
            | Change::Refused { .. } => {}
            Change::Trimmed { room, .. } => {
                if let Some(life) = self.lives.get_mut(room).and_then(|lives| lives.last_mut()) {
                    life.trims.pop();
                }
            }
        }
    }

    /// Whether records of a life, up to this one, are gone for good, and safely so.
    pub(crate) fn is_trimmed(&self, life: &Life, through: Seq) -> bool {
        through <= self.trimmed(life)
    }

    /// The last record of a life that is gone for good, and safely so.
    pub(crate) fn trimmed(&self, life: &Life) -> Seq {
        let safe = life.trims.iter().rev().find(|(index, _)| *index <= self.safe);
        safe.map_or(Seq::ZERO, |(_, through)| *through)
    }

    /// A life of a room.
    pub(crate) fn life(&self, room: &RoomName, life: Incarnation) -> Option<&Life> {
        let place = usize::try_from(life.get()).ok()?.checked_sub(1)?;
        self.lives.get(room)?.get(place)
    }

    /// The present life of a room, and its number.
    pub(crate) fn present(&self, room: &RoomName) -> Option<(u64, &Life)> {
        let lives = self.lives.get(room)?;
        Some((lives.len() as u64, lives.last()?))
    }

    pub(crate) fn rooms(&self) -> impl Iterator<Item = &RoomName> {
        self.lives.keys()
    }

    /// Whether the gate of a life is open, and safely so.
    pub(crate) fn is_open(&self, life: &Life) -> bool {
        life.opened.is_some_and(|opened| opened <= self.safe)
    }

    /// Whether the gate of any life of a room was open, and safely so.
    pub(crate) fn was_open(&self, room: &RoomName) -> bool {
        self.lives.get(room).is_some_and(|lives| lives.iter().any(|life| self.is_open(life)))
    }

    /// Whether the beginning of a life is safe.
    pub(crate) const fn has_begun(&self, life: &Life) -> bool {
        life.began <= self.safe
    }

    /// A record that anybody sees is the journal's, safe, and of an open gate.
    pub(crate) fn check_shown(&self, record: &Record) -> Result<(), Broken> {
        let Record { room, incarnation, seq, .. } = record;
        let there =
            || Broken::new("a record is the journal's", format!("{room} {incarnation} {seq}"));
        let life = self.life(room, *incarnation).ok_or_else(there)?;
        hold!(self.is_open(life), "nothing is seen of a closed gate", "{room} {incarnation} {seq}");
        let entry = self.entry_at(life, *seq).ok_or_else(there)?;
        let safe = entry.header.index.get() <= self.safe;
        hold!(safe, "nothing is seen before it is safe", "{room} {incarnation} {seq}");
        hold!(is_record_of(entry, record), "a record says what the journal says", "{record:?}");
        Ok(())
    }

    fn entry_at(&self, life: &Life, seq: Seq) -> Option<&Entry> {
        let place = usize::try_from(seq.get()).ok()?.checked_sub(1)?;
        self.entries.get(*life.records.get(place)?).map(Arc::as_ref)
    }

    /// A post that is said to be at a place is there, and safe.
    pub(crate) fn check_place(
        &self,
        post: Post,
        (room, incarnation, seq): (&RoomName, Incarnation, Seq),
    ) -> Result<(), Broken> {
        let life = self.life(room, incarnation);
        let entry = life.and_then(|life| self.entry_at(life, seq));
        let safe = entry.filter(|entry| entry.header.index.get() <= self.safe);
        let there = safe.is_some_and(|entry| {
            matches!(&entry.change, Change::Posted { text, .. }
                if origin_of(text.as_str()) == Some(post))
        });
        hold!(there, "an acknowledged post is safe and at its place", "{post:?} {room} {seq}");
        Ok(())
    }

    /// Whether a post took effect.
    pub(crate) fn has(&self, post: Post) -> bool {
        self.posts.contains_key(&post)
    }

    /// Whether a post took effect, and safely so.
    pub(crate) fn has_safe(&self, post: Post) -> bool {
        self.posts.get(&post).is_some_and(|place| (*place as u64) < self.safe)
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

fn text_bytes(entry: &Entry) -> u64 {
    let Change::Posted { text, .. } = &entry.change else { return 0 };
    text.as_str().len() as u64
}

/// Whether an entry makes exactly this record.
fn is_record_of(entry: &Entry, record: &Record) -> bool {
    let body = match (&entry.change, &record.body) {
        (Change::Posted { from, text, .. }, RecordBody::Post { from: shown, text: said }) => {
            from == shown && text == said
        }
        (Change::Joined { user, .. }, RecordBody::Joined { user: shown })
        | (Change::Left { user, .. }, RecordBody::Left { user: shown }) => user == shown,
        _ => false,
    };
    body && entry.header.at == record.at
}
