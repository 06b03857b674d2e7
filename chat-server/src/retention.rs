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
use std::time::Duration;

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

impl FromStr for Bound {
    type Err = BoundError;

    fn from_str(text: &str) -> Result<Self, BoundError> {
        let end = text.find(|sign: char| !sign.is_ascii_digit()).unwrap_or(text.len());
        let (digits, unit) = text.split_at(end);
        let age = |millis| Self::Age(Span::from_millis(millis));
        let (bound, each): (&dyn Fn(u64) -> Self, u64) = match unit {
            "" => (&Self::Records, 1),
            "s" => (&age, 1_000),
            "m" => (&age, 60_000),
            "h" => (&age, 3_600_000),
            "d" => (&age, 86_400_000),
            "KiB" => (&Self::Bytes, 1 << 10),
            "MiB" => (&Self::Bytes, 1 << 20),
            "GiB" => (&Self::Bytes, 1 << 30),
            _ => return Err(BoundError::Form),
        };
        if digits.is_empty() {
            return Err(BoundError::Form);
        }
        let number = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(each));
        let number = number.filter(|number| *number <= MOST).ok_or(BoundError::Large)?;
        let bound = bound(number);
        if number == 0 {
            return Err(BoundError::Nothing);
        }
        if matches!(bound, Self::Bytes(bytes) if bytes < BYTES_MIN) {
            return Err(BoundError::Small);
        }
        Ok(bound)
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

/// How often it is looked at what is due.
pub(crate) const ROUND: Duration = Duration::from_secs(1);

/// Rooms that the engine is asked to trim in one round: it takes a part of a millisecond for each.
const TRIMS_A_ROUND: usize = 64;

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
    /// About what they take on the disk.
    pub(crate) bytes: u64,
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
            let before = block.size();
            let is_whole = last == block.last;
            if !is_whole {
                block.cut(through);
            }
            let left = if is_whole { Size::default() } else { block.size() };
            let bytes = before.minus(left).bytes;
            let (incarnation, life) = (self.incarnation, self.began);
            gone.push(Gone { room: room.clone(), incarnation, life, first, last, bytes, from });
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
            | Change::Refused { .. }
            | Change::Moderated { .. } => return Vec::new(),
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

    /// What is due to be forgotten, of a round's number of rooms at most: each a request to the
    /// engine. What it asks is asked again until it is done; that is harmless.
    pub(crate) fn due(&self, now: Timestamp) -> Vec<Input> {
        let due = self.rooms.iter().filter_map(|(room, life)| {
            let through = life.due(&self.keep, now)?;
            Some(Input::Trim { room: room.clone(), incarnation: life.incarnation, through })
        });
        due.take(TRIMS_A_ROUND).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chatcore::id::{Counter, Digest, SessionId};
    use chatcore::log::CommandId;

    #[test]
    fn bound_is_an_age_a_size_or_a_number_of_messages() {
        let age = |secs| Ok(Bound::Age(Span::from_secs(secs)));
        for (text, bound) in [
            ("90s", age(90)),
            ("45m", age(2_700)),
            ("12h", age(43_200)),
            ("30d", age(2_592_000)),
            ("1", Ok(Bound::Records(1))),
            ("100000", Ok(Bound::Records(100_000))),
            ("64KiB", Ok(Bound::Bytes(64 << 10))),
            ("64MiB", Ok(Bound::Bytes(64 << 20))),
            ("2GiB", Ok(Bound::Bytes(2 << 30))),
        ] {
            assert_eq!(text.parse(), bound, "{text}");
        }
        for (wrong, error) in [
            ("", BoundError::Form),
            ("d", BoundError::Form),
            ("30 d", BoundError::Form),
            ("30D", BoundError::Form),
            ("-1", BoundError::Form),
            ("1.5h", BoundError::Form),
            ("64MB", BoundError::Form),
            ("64mib", BoundError::Form),
            ("forever", BoundError::Form),
            ("0", BoundError::Nothing),
            ("0d", BoundError::Nothing),
            ("0KiB", BoundError::Nothing),
            ("63KiB", BoundError::Small),
            ("99999999999999999999", BoundError::Large),
            ("9999999999999d", BoundError::Large),
        ] {
            assert_eq!(wrong.parse::<Bound>(), Err(error), "{wrong}");
        }
        assert!(BoundError::Form.to_string().contains("30d"), "it says what to write");
    }

    #[test]
    fn of_two_bounds_of_a_kind_the_lower_counts_and_of_several_each() {
        let keep = |texts: &[&str]| -> Keep {
            texts.iter().map(|text| text.parse::<Bound>().unwrap()).collect()
        };
        assert_eq!(keep(&["2d", "1d", "3d"]), keep(&["1d"]));
        assert_eq!(keep(&["64KiB", "7", "9"]), keep(&["7", "64KiB"]));
        assert!(keep(&[]).is_everything() && !keep(&["1"]).is_everything());
    }

    fn time(millis: u64) -> Timestamp {
        Timestamp::new(millis).unwrap()
    }

    /// A room as its entries tell of it, and a count of what is in it that knows no blocks.
    struct Room {
        ledger: Ledger,
        keep: Keep,
        now: u64,
        index: Index,
        last: u64,
        trimmed: u64,
        /// When each record may count as seen, and its bytes.
        records: Vec<(u64, u64)>,
        gone: Vec<Gone>,
    }

    impl Room {
        fn new(keep: &[Bound]) -> Self {
            let keep: Keep = keep.iter().copied().collect();
            let ledger = Ledger::new(keep);
            let (now, index, records, gone) = (1_000, Index::ZERO, Vec::new(), Vec::new());
            let mut room = Self { ledger, keep, now, index, last: 0, trimmed: 0, records, gone };
            let threshold = chatcore::id::Threshold::DEFAULT;
            room.follow(&Change::RoomCreated { room: "lobby".parse().unwrap(), threshold });
            room
        }

        fn follow(&mut self, change: &Change) {
            self.index = self.index.next();
            self.gone.extend(self.ledger.follow(self.index, time(self.now), change));
        }

        fn open(&mut self) {
            let (room, incarnation) = ("lobby".parse().unwrap(), Incarnation::ZERO.next());
            self.follow(&Change::GateOpened { room, incarnation });
            self.records.iter_mut().for_each(|(at, _)| *at = self.now);
        }

        fn post(&mut self, length: usize) {
            self.last += 1;
            self.follow(&Change::Posted {
                room: "lobby".parse().unwrap(),
                incarnation: Incarnation::ZERO.next(),
                seq: Seq::new(self.last).unwrap(),
                command: CommandId {
                    session: SessionId::new([0; 16]),
                    counter: Counter::ZERO,
                    digest: Digest::new([0; 32]),
                },
                from: "ana".parse().unwrap(),
                text: "x".repeat(length).parse().unwrap(),
            });
            self.records.push((self.now, RECORD_BYTES + u64::try_from(length).unwrap()));
        }

        fn due(&self) -> Option<u64> {
            let due = self.ledger.due(time(self.now));
            let [Input::Trim { through, .. }] = due.as_slice() else { return None };
            Some(through.get()).filter(|through| *through > self.trimmed)
        }

        fn trim(&mut self, through: u64) {
            let (room, incarnation) = ("lobby".parse().unwrap(), Incarnation::ZERO.next());
            let through = Seq::new(through).unwrap();
            self.follow(&Change::Trimmed { room, incarnation, through });
            self.trimmed = through.get();
        }

        /// What a room that is trimmed up to there keeps.
        fn left(&self, through: u64) -> &[(u64, u64)] {
            &self.records[usize::try_from(through).unwrap()..]
        }

        /// Whether what is left is within every bound, but for one 64th and what a record is more.
        fn is_within(&self, left: &[(u64, u64)], slack: u64) -> bool {
            let part = |most: u64| most - most / 64 * slack;
            let bytes: u64 = left.iter().map(|(_, bytes)| bytes).sum();
            let longest = left.iter().map(|(_, bytes)| *bytes).max().unwrap_or(0) * slack;
            let records = u64::try_from(left.len()).unwrap();
            let age = left.first().map_or(0, |(at, _)| self.now - at);
            self.keep.records.is_none_or(|most| records <= part(most))
                && self.keep.bytes.is_none_or(|most| bytes <= part(most).saturating_sub(longest))
                && self.keep.age.is_none_or(|most| age < most.as_millis())
        }
    }

    #[test]
    fn short_bounds_are_kept_to_exactly() {
        let mut room = Room::new(&[Bound::Records(3)]);
        room.open();
        for number in 1_u64..=10 {
            room.post(5);
            assert_eq!(room.due(), number.checked_sub(3).filter(|due| *due > room.trimmed));
            if let Some(due) = room.due() {
                room.trim(due);
            }
        }
    }

    #[test]
    fn nothing_is_due_while_a_gate_is_closed_and_its_age_counts_from_the_opening() {
        let mut room = Room::new(&[Bound::Age(Span::from_secs(10)), Bound::Records(2)]);
        room.post(1);
        room.post(1);
        room.now += 60_000;
        assert_eq!(room.due(), None);
        room.open();
        assert_eq!(room.due(), None, "nobody could read it before");
        room.now += 9_999;
        assert_eq!(room.due(), None);
        room.now += 1;
        assert_eq!(room.due(), Some(2));
    }

    #[test]
    fn room_keeps_what_its_bounds_let_it_and_what_is_gone_is_named_once() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..60 {
            let mut bounds = vec![
                Bound::Records(random.u64(1..3_000)),
                Bound::Bytes(random.u64(BYTES_MIN..1 << 20)),
                Bound::Age(Span::from_millis(random.u64(1_000..100_000))),
            ];
            random.shuffle(&mut bounds);
            bounds.truncate(random.usize(1..=3));
            let mut room = Room::new(&bounds);
            room.open();
            for _ in 0..random.u32(0..5_000) {
                room.now += random.u64(0..50);
                room.post(random.usize(1..200));
                if random.u32(0..200) == 0 {
                    check_due(&mut room, &mut random);
                }
            }
            check_gone(&room);
        }
    }

    fn check_due(room: &mut Room, random: &mut fastrand::Rng) {
        let Some(due) = room.due() else {
            // What is over a bound by age may be so by one 64th.
            room.keep.age =
                room.keep.age.map(|age| Span::from_millis(age.as_millis() * 66 / 64 + 50));
            assert!(room.is_within(room.left(room.trimmed), 0), "{} {:?}", room.trimmed, room.keep);
            room.keep = room.ledger.keep;
            return;
        };
        assert!(!room.is_within(room.left(due - 1), 2), "more than is due: {due} {:?}", room.keep);
        // The engine may know less of it, as when a gate was closed.
        let through = if random.bool() { due } else { random.u64(room.trimmed + 1..=due) };
        room.trim(through);
    }

    fn check_gone(room: &Room) {
        let mut next = 1;
        for gone in &room.gone {
            assert_eq!(gone.first.get(), next);
            assert!(gone.last >= gone.first && gone.from.1 >= gone.last);
            assert!(gone.from.1.get() - gone.first.get() < BLOCK_RECORDS);
            // In this room each record is one entry after the founding of it and the opening.
            assert!(gone.from.0.get() > gone.from.1.get());
            next = gone.last.get() + 1;
        }
        assert_eq!(next, room.trimmed + 1);
    }

    #[test]
    fn history_much_longer_than_what_is_kept_takes_no_memory() {
        let mut room = Room::new(&[Bound::Records(2)]);
        room.open();
        (0..100_000).for_each(|_| room.post(1));
        let blocks = room.ledger.rooms.values().map(|life| life.blocks.len()).sum::<usize>();
        assert!(blocks < 250, "{blocks}");
        assert_eq!(room.due(), Some(99_998));
    }

    #[test]
    fn life_that_a_reset_ended_is_gone_where_there_is_a_bound() {
        let threshold = chatcore::id::Threshold::DEFAULT;
        let incarnation = Incarnation::ZERO.next().next();
        let command = CommandId {
            session: SessionId::new([0; 16]),
            counter: Counter::ZERO,
            digest: Digest::new([0; 32]),
        };
        for (bounds, gone) in [(&[][..], 0), (&[Bound::Records(1_000)][..], 7)] {
            let mut room = Room::new(bounds);
            (0..7).for_each(|_| room.post(1));
            let lobby = "lobby".parse().unwrap();
            room.follow(&Change::Reset { room: lobby, incarnation, threshold, command });
            let count = |gone: &Gone| gone.last.get() + 1 - gone.first.get();
            assert_eq!(room.gone.iter().map(count).sum::<u64>(), gone);
        }
    }
}
