//! The first follower of the journal: it turns committed entries into encoded records.
//!
//! It knows of each room what readers may know: the committed life, gate, members and visible end.
//! What is appended and not committed is not in here. Records
//! of a closed gate gather here until the gate opens; visible ones stay as long as the window has
//! room, and are read from the store after that.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::chunk::{Chunk, ChunkBuilder, forget_through};
use crate::engine::durable::Durable;
use crate::engine::room::Room;
use crate::id::{Incarnation, Seq, Threshold};
use crate::log::{Change, Entry};
use crate::text::{RoomName, UserName};
use crate::wire::Record;

/// Size of the chunks that records of a snapshot are kept in.
const REFILL_CHUNK_BYTES: usize = 16 << 10;

/// What readers may know of every room.
#[derive(Debug)]
pub(crate) struct Feed {
    rooms: BTreeMap<RoomName, RoomFeed>,
    /// Rooms with records that were committed and not yet given out.
    touched: Vec<RoomName>,
    /// The room of every chunk in the window, oldest first.
    window: VecDeque<RoomName>,
    window_bytes: u64,
    window_bytes_max: u64,
    #[cfg(chat_mutants)]
    pub(crate) mutant: Option<crate::mutant::Mutant>,
}

/// What readers may know of one room.
#[derive(Debug)]
pub(crate) struct RoomFeed {
    pub(crate) incarnation: Incarnation,
    pub(crate) threshold: Threshold,
    pub(crate) open: bool,
    /// The committed members.
    pub(crate) members: BTreeSet<UserName>,
    /// The last record that was given to readers.
    pub(crate) visible: Seq,
    /// The last record that is gone for good.
    pub(crate) trimmed: Seq,
    /// The last committed record.
    committed: Seq,
    /// Committed records that are not visible, or not given out yet.
    pending: ChunkBuilder,
    /// Visible records in memory, without holes up to `visible`.
    chunks: VecDeque<Chunk>,
}

/// Records of a room that became visible.
#[derive(Debug)]
pub(crate) struct Shown {
    pub(crate) room: RoomName,
    pub(crate) incarnation: Incarnation,
    /// The last of them.
    pub(crate) through: Seq,
    /// The newest of them; what is before it is in the store only.
    pub(crate) chunk: Option<Chunk>,
}

/// Where the records after a cursor are.
#[derive(Debug)]
pub(crate) enum Found {
    /// Here.
    Here(Chunk),
    /// Not in memory any more: these may be in the store.
    Older { from: Seq, to: Seq },
    /// There are none yet.
    None,
}

impl RoomFeed {
    fn new(incarnation: Incarnation, threshold: Threshold) -> Self {
        Self {
            incarnation,
            threshold,
            open: false,
            members: BTreeSet::new(),
            visible: Seq::ZERO,
            trimmed: Seq::ZERO,
            committed: Seq::ZERO,
            pending: ChunkBuilder::new(),
            chunks: VecDeque::new(),
        }
    }

    /// The records after `cursor`, up to `bytes_max` bytes of them.
    pub(crate) fn after(&self, cursor: Seq, bytes_max: usize) -> Found {
        if cursor >= self.visible {
            return Found::None;
        }
        match Chunk::join(&self.page(cursor, bytes_max)) {
            Some(chunk) => Found::Here(chunk),
            None => Found::Older { from: cursor.next(), to: self.oldest().previous() },
        }
    }

    /// What is in memory after `cursor`, up to `bytes_max` bytes but at least one record: how
    /// records were grouped when they became visible makes no difference.
    fn page(&self, mut cursor: Seq, bytes_max: usize) -> Vec<Chunk> {
        let place = self.chunks.partition_point(|chunk| chunk.last() <= cursor);
        let (mut page, mut bytes_left) = (Vec::new(), bytes_max);
        for chunk in self.chunks.iter().skip(place) {
            let Some(part) = chunk.after(cursor, bytes_left) else { break };
            if part.bytes().len() > bytes_left && !page.is_empty() {
                break;
            }
            bytes_left = bytes_left.saturating_sub(part.bytes().len());
            // The chunk after one that was cut does not reach back to here, and ends the page.
            cursor = part.last();
            page.push(part);
        }
        page
    }

    /// Whether readers may see a record of this life.
    pub(crate) fn shows(&self, incarnation: Incarnation, seq: Seq) -> bool {
        self.open && self.incarnation == incarnation && seq <= self.committed
    }

    /// The oldest visible record in memory; one beyond `visible` when there is none.
    pub(crate) fn oldest(&self) -> Seq {
        self.chunks.front().map_or(self.visible.next(), Chunk::first)
    }

    /// The records behind the closed gate.
    pub(crate) fn held(&self) -> Option<Chunk> {
        self.pending.peek()
    }

    /// The visible records in memory up to `last`, and few beyond it: a question about old records
    /// does not walk over the newer ones.
    pub(crate) fn chunks_through(&self, last: Seq) -> impl DoubleEndedIterator<Item = &Chunk> {
        let count = self.chunks.partition_point(|chunk| chunk.first() <= last);
        self.chunks.range(..count)
    }

    /// Readers know all there is, once everything appended is committed.
    fn check_level(&self, room: &Room) {
        assert_eq!(self.incarnation, room.incarnation(), "readers know the same life");
        assert_eq!(self.committed, room.last(), "readers know the same length");
        assert_eq!(self.trimmed, room.trimmed(), "readers know of the same trimming");
        assert_eq!(self.open, room.gate().is_open(), "readers know the same gate");
        assert_eq!(self.members, room.members, "readers know the same members");
    }

    /// The visible records in memory, oldest chunk first.
    pub(crate) fn chunks(&self) -> impl DoubleEndedIterator<Item = &Chunk> {
        self.chunks.iter()
    }
}

impl Feed {
    pub(crate) const fn new(window_bytes_max: u64) -> Self {
        Self {
            rooms: BTreeMap::new(),
            touched: Vec::new(),
            window: VecDeque::new(),
            window_bytes: 0,
            window_bytes_max,
            #[cfg(chat_mutants)]
            mutant: None,
        }
    }

    /// Takes over a room as it is; its records are in the store, or follow by [`Self::refill`].
    pub(crate) fn adopt(&mut self, name: &RoomName, room: &Room) {
        let mut feed = RoomFeed::new(room.incarnation(), room.gate().threshold());
        feed.open = room.gate().is_open();
        (feed.committed, feed.trimmed) = (room.last(), room.trimmed());
        feed.members.clone_from(&room.members);
        if feed.open {
            feed.visible = room.last();
        }
        self.rooms.insert(name.clone(), feed);
    }

    /// Takes back the newest records of an adopted room, up to its last one; false when these are
    /// not that.
    pub(crate) fn refill(&mut self, name: &RoomName, records: Vec<Record>) -> bool {
        let Some(room) = self.rooms.get_mut(name) else { return false };
        let incarnation = room.incarnation;
        let Some(last) = records.last().map(|record| record.seq) else { return false };
        let count = u64::try_from(records.len()).unwrap_or(u64::MAX);
        let first = last.saturating_add(1).saturating_sub(count);
        let run = (first.get()..).zip(&records).all(|(seq, record)| {
            record.seq.get() == seq && record.room == *name && record.incarnation == incarnation
        });
        // A forged snapshot may come twice to one room.
        let filled = room.pending.len_bytes() > 0 || !room.chunks.is_empty();
        let kept = first > room.trimmed && last == room.committed;
        if filled || !run || !kept {
            return false;
        }
        let open = room.open;
        for record in records {
            let room = self.room_mut(name);
            room.pending.push(record);
            // Small chunks, so that the window is trimmed little by little.
            if open && room.pending.len_bytes() >= REFILL_CHUNK_BYTES {
                self.keep(name);
            }
        }
        if open {
            self.keep(name);
        }
        true
    }

    /// Follows one committed entry.
    pub(crate) fn advance(&mut self, entry: &Entry) {
        match &entry.change {
            Change::RoomCreated { room, threshold } => {
                let first = Incarnation::ZERO.next();
                self.rooms.insert(room.clone(), RoomFeed::new(first, *threshold));
            }
            Change::GateOpened { room, .. } => {
                self.room_mut(room).open = true;
                self.touched.push(room.clone());
            }
            Change::Reset { room: name, incarnation, threshold, .. } => {
                let room = self.room_mut(name);
                let mut new = RoomFeed::new(*incarnation, *threshold);
                new.members = core::mem::take(&mut room.members);
                let old = core::mem::replace(room, new);
                let bytes = old.chunks().map(size).sum();
                self.window_bytes = self.window_bytes.saturating_sub(bytes);
                self.window.retain(|room| room != name);
            }
            Change::Joined { room, user, .. } => {
                self.room_mut(room).members.insert(user.clone());
                self.hold(entry.record());
            }
            Change::Left { room, user, .. } => {
                self.room_mut(room).members.remove(user);
                self.hold(entry.record());
            }
            Change::Posted { .. } => self.hold(entry.record()),
            Change::Trimmed { room, through, .. } => self.forget_through(room, *through),
            Change::Founded(_)
            | Change::UserAdded { .. }
            | Change::OperatorGranted { .. }
            | Change::SessionOpened { .. }
            | Change::SessionExpired { .. }
            | Change::Refused { .. }
            | Change::Moderated { .. } => {}
        }
    }

    fn hold(&mut self, record: Option<Record>) {
        let Some(record) = record else { return };
        let name = record.room.clone();
        let through_gate = mutated!(self, DeliverThroughGate);
        let room = self.room_mut(&name);
        assert_eq!(record.incarnation, room.incarnation, "a record must be of its room's life");
        assert_eq!(record.seq, room.committed.next(), "records must commit without holes");
        room.committed = record.seq;
        room.pending.push(record);
        if (room.open || through_gate) && self.touched.last() != Some(&name) {
            self.touched.push(name);
        }
    }

    /// Makes everything visible that may be, and says so: once a room.
    pub(crate) fn flush(&mut self) -> Vec<Shown> {
        let mut shown = Vec::new();
        let through_gate = mutated!(self, DeliverThroughGate);
        for name in core::mem::take(&mut self.touched) {
            let room = self.room_mut(&name);
            if !(room.open || through_gate) || room.visible == room.committed {
                continue;
            }
            let incarnation = room.incarnation;
            let chunk = self.keep(&name);
            let room = self.room_mut(&name);
            let ends = chunk.as_ref().is_none_or(|chunk| chunk.last() == room.committed);
            assert!(ends, "what is in memory must reach to the newest record");
            room.visible = room.committed;
            let through = room.visible;
            shown.push(Shown { room: name, incarnation, through, chunk });
        }
        self.trim();
        shown
    }

    /// Moves what a room gathered into the window.
    fn keep(&mut self, name: &RoomName) -> Option<Chunk> {
        let room = self.room_mut(name);
        let chunk = room.pending.take()?;
        room.chunks.push_back(chunk.clone());
        self.window_bytes = self.window_bytes.saturating_add(size(&chunk));
        self.window.push_back(name.clone());
        Some(chunk)
    }

    /// Drops what is in memory of a room up to this record.
    fn forget_through(&mut self, name: &RoomName, through: Seq) {
        let room = self.room_mut(name);
        room.trimmed = through;
        if room.oldest() > through {
            // What is old enough is rarely in memory, and the window is long.
            return;
        }
        let before: u64 = room.chunks().map(size).sum();
        let mut left = forget_through(&mut room.chunks, through);
        let after: u64 = room.chunks().map(size).sum();
        self.window_bytes = self.window_bytes.saturating_sub(before.saturating_sub(after));
        self.window.retain(|room| {
            let drop = left > 0 && room == name;
            left = left.saturating_sub(usize::from(drop));
            !drop
        });
    }

    /// Drops the oldest chunks until the window is within its bound.
    fn trim(&mut self) {
        while self.window_bytes > self.window_bytes_max {
            let Some(name) = self.window.pop_front() else { return };
            let oldest = self.room_mut(&name).chunks.pop_front();
            let bytes = oldest.as_ref().map_or(0, size);
            self.window_bytes = self.window_bytes.saturating_sub(bytes);
        }
    }

    pub(crate) fn room(&self, name: &RoomName) -> Option<&RoomFeed> {
        self.rooms.get(name)
    }

    /// The whole-state check; `level` when everything appended is committed.
    ///
    /// # Panics
    /// When a rule is broken.
    pub(crate) fn check(&self, durable: &Durable, level: bool) {
        let chunks = || self.rooms.values().flat_map(RoomFeed::chunks);
        assert_eq!(self.window_bytes, chunks().map(size).sum::<u64>(), "window bytes must count");
        assert_eq!(self.window.len(), chunks().count(), "a window lists what is in it, no more");
        for (name, feed) in &self.rooms {
            let visible = if feed.open { feed.committed } else { Seq::ZERO };
            assert_eq!(feed.visible, visible, "a room shows all or nothing");
            let mut next = feed.oldest();
            for chunk in &feed.chunks {
                assert_eq!(chunk.first(), next, "a window must have no hole");
                next = chunk.last().next();
            }
            assert_eq!(next, visible.next(), "a window must end with the newest record");
            assert!(feed.oldest() > feed.trimmed, "what is gone must not be in memory");
            let room = durable.room(name).expect("a committed room must exist");
            if level {
                feed.check_level(room);
            }
        }
    }

    /// How many committed rooms have an open gate.
    pub(crate) fn open_rooms(&self) -> usize {
        self.rooms.values().filter(|room| room.open).count()
    }

    /// What records in memory take, visible or not.
    pub(crate) fn bytes(&self) -> u64 {
        let held = self.rooms.values().map(|room| room.pending.len_bytes());
        let held = held.fold(0, |sum: usize, bytes| sum.saturating_add(bytes));
        self.window_bytes.saturating_add(u64::try_from(held).unwrap_or(u64::MAX))
    }

    /// Every committed room, by name.
    pub(crate) fn rooms(&self) -> impl ExactSizeIterator<Item = &RoomName> {
        self.rooms.keys()
    }

    fn room_mut(&mut self, name: &RoomName) -> &mut RoomFeed {
        self.rooms.get_mut(name).expect("a record must belong to a room that was made")
    }
}

/// What a chunk costs: its bytes, and what it takes to know them. Without the latter the shortest
/// messages would cost several times their bytes.
fn size(chunk: &Chunk) -> u64 {
    u64::try_from(chunk.cost_bytes()).unwrap_or(u64::MAX)
}
