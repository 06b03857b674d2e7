//! The first follower of the journal: it turns committed entries into encoded records.
//!
//! It knows of each room what readers may know: the committed life, gate and visible end. Records
//! of a closed gate gather here until the gate opens; visible ones stay as long as the window has
//! room, and are read from the store after that.

use std::collections::{BTreeMap, VecDeque};

use crate::chunk::{Chunk, ChunkBuilder};
use crate::engine::room::Room;
use crate::id::{Incarnation, Seq, Threshold};
use crate::log::{Change, Entry};
use crate::text::RoomName;
use crate::wire::Record;

/// What readers may know of every room.
#[derive(Debug)]
pub(crate) struct Feed {
    rooms: BTreeMap<RoomName, RoomFeed>,
    /// Rooms with records that were committed and not yet given out.
    touched: Vec<RoomName>,
    /// The room and life of every chunk in the window, oldest first.
    window: VecDeque<(RoomName, Incarnation)>,
    window_bytes: u64,
    window_bytes_max: u64,
}

/// What readers may know of one room.
#[derive(Debug)]
pub(crate) struct RoomFeed {
    pub(crate) incarnation: Incarnation,
    pub(crate) threshold: Threshold,
    pub(crate) open: bool,
    /// The last record readers may see.
    pub(crate) visible: Seq,
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
            visible: Seq::ZERO,
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
        let place = self.chunks.partition_point(|chunk| chunk.last() <= cursor);
        let here = self.chunks.get(place).and_then(|chunk| chunk.after(cursor, bytes_max));
        match here {
            Some(chunk) => Found::Here(chunk),
            None => Found::Older { from: cursor.next(), to: self.oldest().previous() },
        }
    }

    /// The oldest visible record in memory; one beyond `visible` when there is none.
    pub(crate) fn oldest(&self) -> Seq {
        self.chunks.front().map_or(self.visible.next(), Chunk::first)
    }

    /// The records behind the closed gate.
    pub(crate) fn held(&self) -> Option<Chunk> {
        self.pending.peek()
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
        }
    }

    /// Takes over a room as it is; its records are in the store, or follow by [`Self::refill`].
    pub(crate) fn adopt(&mut self, name: &RoomName, room: &Room) {
        let mut feed = RoomFeed::new(room.incarnation(), room.gate().threshold());
        feed.open = room.gate().is_open();
        feed.committed = room.last();
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
        let first = last.saturating_add(1).saturating_sub(records.len() as u64);
        let run = (first.get()..).zip(&records).all(|(seq, record)| {
            record.seq.get() == seq && record.room == *name && record.incarnation == incarnation
        });
        if !run || first == Seq::ZERO || last != room.committed {
            return false;
        }
        records.into_iter().for_each(|record| room.pending.push(record));
        if room.open {
            let chunk = room.pending.take();
            self.window_bytes = self.window_bytes.saturating_add(chunk.iter().map(size).sum());
            room.chunks.extend(chunk);
            self.window.push_back((name.clone(), incarnation));
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
            Change::Reset { room, incarnation, threshold, .. } => {
                let new = RoomFeed::new(*incarnation, *threshold);
                let old = self.rooms.insert(room.clone(), new);
                let bytes = old.iter().flat_map(RoomFeed::chunks).map(size).sum();
                self.window_bytes = self.window_bytes.saturating_sub(bytes);
            }
            Change::Joined { .. } | Change::Left { .. } | Change::Posted { .. } => {
                if let Some(record) = entry.record() {
                    self.hold(record);
                }
            }
            Change::Founded(_)
            | Change::UserAdded { .. }
            | Change::OperatorGranted { .. }
            | Change::SessionOpened { .. }
            | Change::SessionExpired { .. }
            | Change::Refused { .. } => {}
        }
    }

    fn hold(&mut self, record: Record) {
        let name = record.room.clone();
        let room = self.room_mut(&name);
        assert_eq!(record.incarnation, room.incarnation, "a record must be of its room's life");
        assert_eq!(record.seq, room.committed.next(), "records must commit without holes");
        room.committed = record.seq;
        room.pending.push(record);
        if room.open && self.touched.last() != Some(&name) {
            self.touched.push(name);
        }
    }

    /// Makes everything visible that may be, and says so: once a room.
    pub(crate) fn flush(&mut self) -> Vec<Shown> {
        let mut shown = Vec::new();
        for name in core::mem::take(&mut self.touched) {
            let room = self.room_mut(&name);
            if !room.open || room.visible == room.committed {
                continue;
            }
            let chunk = room.pending.take();
            let ends = chunk.as_ref().is_none_or(|chunk| chunk.last() == room.committed);
            assert!(ends, "what is in memory must reach to the newest record");
            room.visible = room.committed;
            room.chunks.extend(chunk.clone());
            let (incarnation, through) = (room.incarnation, room.visible);
            if let Some(chunk) = &chunk {
                self.window_bytes = self.window_bytes.saturating_add(size(chunk));
                self.window.push_back((name.clone(), incarnation));
            }
            shown.push(Shown { room: name, incarnation, through, chunk });
        }
        self.trim();
        shown
    }

    /// Drops the oldest chunks until the window is within its bound.
    fn trim(&mut self) {
        while self.window_bytes > self.window_bytes_max {
            let Some((name, incarnation)) = self.window.pop_front() else { return };
            let room = self.room_mut(&name);
            // The chunks of a life that a reset ended went with it and were counted there.
            if room.incarnation == incarnation {
                let oldest = room.chunks.pop_front();
                let bytes = oldest.as_ref().map_or(0, size);
                self.window_bytes = self.window_bytes.saturating_sub(bytes);
            }
        }
    }

    pub(crate) fn room(&self, name: &RoomName) -> Option<&RoomFeed> {
        self.rooms.get(name)
    }

    fn room_mut(&mut self, name: &RoomName) -> &mut RoomFeed {
        self.rooms.get_mut(name).expect("a record must belong to a room that was made")
    }
}

fn size(chunk: &Chunk) -> u64 {
    u64::try_from(chunk.bytes().len()).unwrap_or(u64::MAX)
}
