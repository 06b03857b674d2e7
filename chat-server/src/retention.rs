//! Retention: how much of a room is kept, and what is due to be forgotten.
//!
//! A [`Ledger`] follows the journal and knows of each room how old and how large what it keeps is.
//! It decides nothing alone: what is due becomes an entry of the engine, and only when that entry
//! comes by is anything gone.
//!
//! It counts in blocks of up to [`BLOCK_RECORDS`] records, so its memory is a small part of the
//! history: some 80 bytes a block. A block is forgotten as a whole, and blocks are as short as a
//! bound needs: 64 of them make up what it lets a room keep.

use std::collections::{BTreeMap, VecDeque};
use std::str::FromStr;

use chatcore::engine::Input;
use chatcore::id::{Incarnation, Index, Seq};
use chatcore::log::{Change, Entry};
use chatcore::text::RoomName;
use chatcore::time::{Span, Timestamp};

/// One bound of [`Keep`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// Records older than this are forgotten.
    Age(Span),
    /// A room keeps its newest records, so many.
    Records(u64),
    /// A room keeps its newest records, so many bytes of them as they take on the disk.
    Bytes(u64),
}

/// How much of each room is kept. Without a bound nothing is ever forgotten; of several, the one that
/// is reached first counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keep {
    age: Option<Span>,
    records: Option<u64>,
    bytes: Option<u64>,
}

/// Text that is no [`Bound`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BoundError {
    /// It has another form.
    #[error(
        "write an age such as 30d, 12h, 45m or 90s, a size such as 512KiB, 64MiB or 2GiB, or a \
         number of messages such as 100000"
    )]
    Form,
    /// It would keep nothing.
    #[error("a room keeps one second and one message at least")]
    Nothing,
    /// It is less than some messages take.
    #[error("a room keeps 64KiB at least")]
    Small,
    /// It is more than can be counted.
    #[error("nothing grows as large or as old as that: leave the option out to keep everything")]
    Large,
}

/// The least bytes of a room: more than the longest messages take, so that none is forgotten before
/// anybody could read it.
const BYTES_MIN: u64 = 64 << 10;

/// Far beyond any age and size, and far from where numbers end.
const MOST: u64 = 1 << 52;

const UNITS: [(&str, u64, fn(u64) -> Bound); 7] = [
    ("s", 1_000, |millis| Bound::Age(Span::from_millis(millis))),
    ("m", 60_000, |millis| Bound::Age(Span::from_millis(millis))),
    ("h", 3_600_000, |millis| Bound::Age(Span::from_millis(millis))),
    ("d", 86_400_000, |millis| Bound::Age(Span::from_millis(millis))),
    ("KiB", 1 << 10, Bound::Bytes),
    ("MiB", 1 << 20, Bound::Bytes),
    ("GiB", 1 << 30, Bound::Bytes),
];

impl FromStr for Bound {
    type Err = BoundError;

    fn from_str(text: &str) -> Result<Self, BoundError> {
        let end = text.find(|sign: char| !sign.is_ascii_digit()).unwrap_or(text.len());
        let (digits, unit) = text.split_at(end);
        let (each, bound) = if unit.is_empty() {
            (1, Self::Records as fn(u64) -> Self)
        } else {
            let found = UNITS.iter().find(|(name, ..)| *name == unit);
            found.map(|(_, each, bound)| (*each, *bound)).ok_or(BoundError::Form)?
        };
        if digits.is_empty() {
            return Err(BoundError::Form);
        }
        let number = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(each));
        match number.filter(|number| *number <= MOST).map(bound).ok_or(BoundError::Large)? {
            Self::Age(Span::ZERO) | Self::Records(0) | Self::Bytes(0) => Err(BoundError::Nothing),
            Self::Bytes(bytes) if bytes < BYTES_MIN => Err(BoundError::Small),
            bound => Ok(bound),
        }
    }
}

impl FromIterator<Bound> for Keep {
    fn from_iter<T: IntoIterator<Item = Bound>>(bounds: T) -> Self {
        let mut keep = Self::default();
        let least = |place: &mut Option<u64>, new: u64| {
            *place = Some(place.map_or(new, |old| old.min(new)));
        };
        for bound in bounds {
            match bound {
                Bound::Age(age) => keep.age = Some(keep.age.map_or(age, |old| old.min(age))),
                Bound::Records(records) => least(&mut keep.records, records),
                Bound::Bytes(bytes) => least(&mut keep.bytes, bytes),
            }
        }
        keep
    }
}

/// Blocks that make up what a bound lets a room keep: how exactly it is kept to.
const BLOCKS_A_BOUND: u64 = 64;

/// The most records of a block. They are deleted at once, in some milliseconds.
const BLOCK_RECORDS: u64 = 512;

impl Keep {
    /// Whether everything is kept.
    pub fn is_everything(&self) -> bool {
        *self == Self::default()
    }

    /// Whether so much is more than a room keeps.
    fn is_exceeded(&self, size: Size) -> bool {
        self.records.is_some_and(|most| size.records > most)
            || self.bytes.is_some_and(|most| size.bytes > most)
    }

    /// Whether a block is as long as it may be.
    fn is_full(&self, block: &Block) -> bool {
        let part = |most: u64| most / BLOCKS_A_BOUND;
        let size = block.size();
        let span = block.at.get().saturating_sub(block.began.get());
        size.records >= BLOCK_RECORDS
            || self.records.is_some_and(|most| size.records >= part(most))
            || self.bytes.is_some_and(|most| size.bytes >= part(most))
            || self.age.is_some_and(|most| span >= part(most.as_millis()))
    }

    fn is_too_old(&self, at: Timestamp, now: Timestamp) -> bool {
        self.age.is_some_and(|most| now.get().saturating_sub(at.get()) >= most.as_millis())
    }
}

/// How many records, and what they take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Size {
    records: u64,
    bytes: u64,
}

impl Size {
    const fn plus(self, other: Self) -> Self {
        let records = self.records.saturating_add(other.records);
        Self { records, bytes: self.bytes.saturating_add(other.bytes) }
    }

    const fn minus(self, other: Self) -> Self {
        let records = self.records.saturating_sub(other.records);
        Self { records, bytes: self.bytes.saturating_sub(other.bytes) }
    }
}

/// A run of records of one life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Block {
    first: Seq,
    last: Seq,
    /// The entry of the last.
    newest: Index,
    began: Timestamp,
    /// From when its age counts: the time of the last, or when the gate opened that held it.
    at: Timestamp,
    bytes: u64,
}

impl Block {
    const fn size(&self) -> Size {
        Size { records: self.last.get() + 1 - self.first.get(), bytes: self.bytes }
    }

    /// Takes in the block that follows.
    const fn join(&mut self, next: &Self) {
        (self.last, self.newest, self.at) = (next.last, next.newest, next.at);
        self.bytes = self.bytes.saturating_add(next.bytes);
    }

    /// Cuts off what is up to `through`, which is in it. What is left has its share of the bytes.
    fn cut(&mut self, through: Seq) {
        let before = self.size().records;
        self.first = through.next();
        self.bytes = self.bytes / before * self.size().records;
    }
}

/// What is kept of the present life of a room.
#[derive(Clone, Debug)]
struct Life {
    incarnation: Incarnation,
    /// The entry that it began with.
    began: Index,
    open: bool,
    /// What is not gone, oldest first.
    blocks: VecDeque<Block>,
    /// So many of the oldest are more than a room keeps: newer ones only make it more.
    overdue: usize,
    /// What the others come to.
    rest: Size,
}

/// Records that are gone for good, and may still be on the disk: those of a life from `first` to
/// `last`. Few enough to be deleted at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Gone {
    pub(crate) room: RoomName,
    pub(crate) incarnation: Incarnation,
    /// The entry that this life of the room began with.
    pub(crate) life: Index,
    pub(crate) first: Seq,
    pub(crate) last: Seq,
    /// Where walking back to them begins: a record of this life, the last of them or some later.
    pub(crate) from: (Index, Seq),
}

impl Life {
    const fn new(incarnation: Incarnation, began: Index) -> Self {
        let rest = Size { records: 0, bytes: 0 };
        Self { incarnation, began, open: false, blocks: VecDeque::new(), overdue: 0, rest }
    }

    fn push(&mut self, keep: &Keep, record: Block) {
        self.rest = self.rest.plus(record.size());
        let newest = if self.blocks.len() > self.overdue { self.blocks.back_mut() } else { None };
        match newest {
            Some(newest) if !keep.is_full(newest) => newest.join(&record),
            Some(_) | None => self.blocks.push_back(record),
        }
        self.find_overdue(keep);
    }

    /// Counts what is more than a room keeps. Such blocks are put together, so that their number does
    /// not grow with a history that is much longer than what is kept of it.
    fn find_overdue(&mut self, keep: &Keep) {
        while keep.is_exceeded(self.rest)
            && let Some(next) = self.blocks.get(self.overdue).copied()
        {
            self.rest = self.rest.minus(next.size());
            let before = self.overdue.checked_sub(1).and_then(|last| self.blocks.get_mut(last));
            match before {
                Some(last) if last.size().plus(next.size()).records <= BLOCK_RECORDS => {
                    last.join(&next);
                    self.blocks.remove(self.overdue);
                }
                Some(_) | None => self.overdue += 1,
            }
        }
    }

    /// What a gate held is as old as its opening: nobody could read it before.
    fn open(&mut self, at: Timestamp) {
        self.open = true;
        self.blocks.iter_mut().for_each(|block| block.at = at);
    }

    /// The last record that is due to be forgotten.
    fn due(&self, keep: &Keep, now: Timestamp) -> Option<Seq> {
        let newer = self.blocks.iter().skip(self.overdue);
        let old = newer.take_while(|block| keep.is_too_old(block.at, now)).count();
        let last = self.overdue.saturating_add(old).checked_sub(1)?;
        self.blocks.get(last).filter(|_| self.open).map(|block| block.last)
    }

    /// Takes out what is up to `through`.
    fn forget(&mut self, room: &RoomName, through: Seq) -> Vec<Gone> {
        let mut gone = Vec::new();
        while let Some(block) = self.blocks.front_mut().filter(|block| block.first <= through) {
            let (first, last) = (block.first, block.last.min(through));
            let from = (block.newest, block.last);
            let (incarnation, life) = (self.incarnation, self.began);
            gone.push(Gone { room: room.clone(), incarnation, life, first, last, from });
            let before = block.size();
            let is_whole = last == block.last;
            if !is_whole {
                block.cut(through);
            }
            let left = if is_whole { Size::default() } else { block.size() };
            if self.overdue == 0 {
                self.rest = self.rest.minus(before.minus(left));
            }
            if is_whole {
                self.blocks.pop_front();
                self.overdue = self.overdue.saturating_sub(1);
            }
        }
        gone
    }
}

/// What a record takes on the disk beside the text that somebody said, about.
const RECORD_BYTES: u64 = 128;

/// What each room keeps, as the journal has it.
#[derive(Clone, Debug)]
pub(crate) struct Ledger {
    keep: Keep,
    rooms: BTreeMap<RoomName, Life>,
}

impl Ledger {
    pub(crate) const fn new(keep: Keep) -> Self {
        Self { keep, rooms: BTreeMap::new() }
    }

    /// Follows an entry that is safe; what is gone by it. Entries of records that are gone may be
    /// left out.
    pub(crate) fn follow(&mut self, index: Index, at: Timestamp, change: &Change) -> Vec<Gone> {
        let Some(room) = change.room() else { return Vec::new() };
        let (seq, said) = match change {
            Change::RoomCreated { .. } => {
                self.rooms.insert(room.clone(), Life::new(Incarnation::ZERO.next(), index));
                return Vec::new();
            }
            Change::Reset { incarnation, .. } => return self.reset(room, *incarnation, index),
            Change::Posted { seq, text, .. } => (*seq, text.as_str().len()),
            Change::Joined { seq: Some(seq), .. } | Change::Left { seq: Some(seq), .. } => {
                (*seq, 0)
            }
            Change::GateOpened { .. } => {
                self.rooms.entry(room.clone()).and_modify(|life| life.open(at));
                return Vec::new();
            }
            Change::Trimmed { through, .. } => {
                let life = self.rooms.get_mut(room);
                return life.map_or_else(Vec::new, |life| life.forget(room, *through));
            }
            Change::Joined { .. }
            | Change::Left { .. }
            | Change::Founded(_)
            | Change::UserAdded { .. }
            | Change::OperatorGranted { .. }
            | Change::SessionOpened { .. }
            | Change::SessionExpired { .. }
            | Change::Refused { .. } => return Vec::new(),
        };
        let bytes = u64::try_from(said).unwrap_or(u64::MAX).saturating_add(RECORD_BYTES);
        let record = Block { first: seq, last: seq, newest: index, began: at, at, bytes };
        if let Some(life) = self.rooms.get_mut(room) {
            life.push(&self.keep, record);
        }
        Vec::new()
    }

    /// A life ended: nobody can read it any more. With a bound it is gone, without one nothing is.
    fn reset(&mut self, room: &RoomName, incarnation: Incarnation, index: Index) -> Vec<Gone> {
        let ended = self.rooms.insert(room.clone(), Life::new(incarnation, index));
        let ended = ended.filter(|_| !self.keep.is_everything());
        ended.map_or_else(Vec::new, |mut life| life.forget(room, Seq::MAX))
    }

    pub(crate) fn has_bound(&self) -> bool {
        !self.keep.is_everything()
    }

    /// Follows an entry where nothing is on a disk.
    pub(crate) fn follow_entry(&mut self, entry: &Entry) {
        // Who keeps everything has nothing to count.
        if !self.has_bound() {
            return;
        }
        self.follow(entry.header.index, entry.header.at, &entry.change);
    }

    /// What is due to be forgotten, of so many rooms at most: each a request to the engine. What it
    /// asks is asked again until it is done; that is harmless.
    pub(crate) fn due(&self, now: Timestamp, most: usize) -> Vec<Input> {
        let due = self.rooms.iter().filter_map(|(room, life)| {
            let through = life.due(&self.keep, now)?;
            Some(Input::Trim { room: room.clone(), incarnation: life.incarnation, through })
        });
        due.take(most).collect()
    }
}
