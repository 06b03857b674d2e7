//! Who is written which bytes next: the last step of the way to many readers.
//!
//! A [`Delivery`] owns the outgoing side of some connections: one per core, or one per gateway. It
//! takes [`Directive`]s of the engine, says which connections have something to write, and gives
//! the bytes. Records are encoded once, by the engine; every reader writes slices of the same
//! chunks. A reader that lags is a cursor and costs no memory: what it lacks is fetched page by
//! page when it can take more.
//!
//! Like the engine it does no input or output of its own: it never blocks, and a host writes when
//! and how it likes.
//!
//! Invariants: frames are never interleaved; a reader's cursor moves without holes, or is told the
//! gap; only answers take memory, and they are bounded.

#[cfg(chat_mutants)]
mod mutant;

use core::ops::Bound;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::{Buf, Bytes};

use crate::chunk::{Chunk, forget_through};
use crate::codec::encode_to_bytes;
use crate::engine::{Directive, Need, Page};
use crate::id::{ConnId, Incarnation, Seq, Threshold};
use crate::limits::Limits;
use crate::text::RoomName;
use crate::time::{Moment, Span};
use crate::wire::{Answer, GateState, LimitFault, Refusal, ServerFrame};

/// The most slices that [`Delivery::gather`] gives at once, and the most bytes of records that are
/// taken for one connection at once: what a blocked reader holds on to.
const GATHER_SLICES: usize = 64;
const GATHER_BYTES: usize = 64 << 10;

/// Visible records of one room that a shard keeps for readers that lag a little; older ones are
/// fetched.
const ROOM_WINDOW_BYTES: usize = 1 << 20;

/// With many rooms, each keeps its share of this, but what a turn usually brings. As the shares
/// shrink while rooms fill, all of them together keep less than some times this.
const SHARD_WINDOW_BYTES: usize = 16 << 20;
const ROOM_WINDOW_BYTES_MIN: usize = 64 << 10;

/// The outgoing side of some connections.
#[derive(Debug)]
pub struct Delivery {
    unread_bytes_max: usize,
    stall_time: Span,
    connections: BTreeMap<ConnId, Outgoing>,
    rooms: BTreeMap<RoomName, RoomTail>,
    /// Connections with something to write that are not blocked; each once.
    ready: VecDeque<ConnId>,
    needs: VecDeque<Need>,
    condemned: VecDeque<(ConnId, Refusal)>,
    /// When a blocked connection has stalled for too long.
    stalls: BTreeSet<(Moment, ConnId)>,
    #[cfg(chat_mutants)]
    mutant: Option<crate::mutant::Mutant>,
}

/// What one connection is still to be written.
#[derive(Debug, Default)]
struct Outgoing {
    /// Whole frames in order, but for the first, of which a part may be written.
    queue: VecDeque<(Kind, Bytes)>,
    /// How much of `queue` is answers.
    answer_bytes: usize,
    follows: BTreeMap<RoomName, Reader>,
    /// The room that was read last: the next one is read first.
    turn: Option<RoomName>,
    /// The room that a page was asked for last: the next one is asked for first. Were it not kept
    /// apart from `turn`, a busy room would come between any two that lag, and always give the
    /// page to the same of them.
    asked: Option<RoomName>,
    /// Whether that page has not come yet: one at a time.
    awaits: bool,
    readiness: Readiness,
    stalls_at: Option<Moment>,
    stage: Stage,
}

/// How far a connection is from its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    /// It serves.
    #[default]
    Open,
    /// It reads too slowly, and the engine has yet to close it. It is written on until then, and told
    /// why.
    Condemned,
    /// It took no byte for too long, and takes none: nothing more is written to it. One that takes
    /// bytes again before it is closed is condemned all the same.
    Stalled,
    /// What is queued is its last.
    Closing,
}

/// What queued bytes cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Memory of its own: an answer, or a notice.
    Answer,
    /// A reference to a shared chunk.
    Records,
}

/// Whether a connection can be written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Readiness {
    /// Nothing to write.
    #[default]
    Idle,
    /// In the ready list.
    Ready,
    /// The transport takes no more for now.
    Blocked,
}

/// One connection's place in one room.
#[derive(Debug)]
struct Reader {
    incarnation: Incarnation,
    /// The last record that was taken for it.
    cursor: Seq,
    /// What it was last told of the gate.
    gate: GateState,
    /// How many notices of the room's gate it has taken into account.
    notices: u64,
}

/// The end of a room's log.
#[derive(Debug)]
struct RoomTail {
    incarnation: Incarnation,
    /// The threshold that the life began with.
    threshold: Threshold,
    visible: Seq,
    gate: GateState,
    /// How many notices there were of `gate`.
    notices: u64,
    /// The newest records, without holes up to `visible`.
    chunks: VecDeque<Chunk>,
    bytes: usize,
    readers: BTreeSet<ConnId>,
}

impl Delivery {
    /// An empty shard.
    pub fn new(limits: &Limits) -> Self {
        Self {
            unread_bytes_max: limits.unread_bytes_max,
            stall_time: limits.stall_time,
            connections: BTreeMap::new(),
            rooms: BTreeMap::new(),
            ready: VecDeque::new(),
            needs: VecDeque::new(),
            condemned: VecDeque::new(),
            stalls: BTreeSet::new(),
            #[cfg(chat_mutants)]
            mutant: None,
        }
    }

    /// Takes over the outgoing side of a connection.
    pub fn add(&mut self, conn: ConnId) {
        self.connections.insert(conn, Outgoing::default());
    }

    /// Forgets a connection that is gone.
    pub fn remove(&mut self, conn: ConnId) {
        let Some(outgoing) = self.connections.remove(&conn) else { return };
        if let Some(at) = outgoing.stalls_at {
            self.stalls.remove(&(at, conn));
        }
        for room in outgoing.follows.keys() {
            self.forget_reader(room, conn);
        }
    }

    /// Takes in a directive. One for a connection that is gone is harmless.
    pub fn handle(&mut self, directive: Directive) {
        match directive {
            Directive::Send { conn, frame } => self.answer(conn, &frame),
            Directive::Close { conn, refusal } => self.close(conn, refusal),
            Directive::Follow { conn, room, after, visible, gate } => {
                self.follow(conn, room, after, visible, gate);
            }
            Directive::Unfollow { conn, room } => self.unfollow(conn, &room),
            Directive::Page { conn, room, incarnation, page } => {
                self.take_page(conn, &room, incarnation, page);
            }
            #[cfg(chat_mutants)]
            Directive::Gate { room, gate }
                if mutated!(self, GateUsersUntold) && self.differs_by_users(&room, gate) => {}
            Directive::Gate { room, gate } => {
                self.with_readers(&room, |tail| tail.announce(gate));
            }
            Directive::Visible { room, incarnation, through, chunk } => {
                let window = room_window(self.rooms.len());
                let update = (incarnation, through, chunk);
                self.with_readers(&room, |tail| tail.extend(update, window));
            }
            #[cfg(chat_mutants)]
            Directive::Reset { room, incarnation, threshold }
                if mutated!(self, ResetKeepsRecords) =>
            {
                self.with_readers(&room, |tail| tail.reset_but_records(incarnation, threshold));
            }
            Directive::Reset { room, incarnation, threshold } => {
                self.with_readers(&room, |tail| tail.reset(incarnation, threshold));
            }
            Directive::Trim { room, incarnation, through } => {
                if let Some(tail) = self.rooms.get_mut(&room) {
                    tail.forget_through(incarnation, through);
                }
            }
        }
    }

    /// Takes the next connection with something to write; `None` when there is none.
    ///
    /// The host then writes what [`gather`](Self::gather) gives and reports
    /// [`wrote`](Self::wrote); when the transport takes no more it reports
    /// [`blocked`](Self::blocked), and later [`writable`](Self::writable).
    pub fn poll_ready(&mut self) -> Option<ConnId> {
        while let Some(conn) = self.ready.pop_front() {
            let Some(outgoing) = self.connections.get_mut(&conn) else { continue };
            if outgoing.readiness == Readiness::Ready {
                outgoing.readiness = Readiness::Idle;
                return Some(conn);
            }
        }
        None
    }

    /// Takes the next records that a reader is due and this shard does not have.
    pub fn poll_need(&mut self) -> Option<Need> {
        self.needs.pop_front()
    }

    /// Whether [`poll_need`](Self::poll_need) or [`poll_condemned`](Self::poll_condemned) has
    /// something.
    pub fn has_reports(&self) -> bool {
        !self.needs.is_empty() || !self.condemned.is_empty()
    }

    /// Takes the next connection that has to be condemned because it does not read.
    pub fn poll_condemned(&mut self) -> Option<(ConnId, Refusal)> {
        self.condemned.pop_front()
    }

    /// When to come back with [`expire`](Self::expire); `None` when nothing waits.
    pub fn next_timeout(&self) -> Option<Moment> {
        self.stalls.first().map(|(at, _)| *at)
    }

    /// Condemns connections that have taken no byte for too long.
    pub fn expire(&mut self, now: Moment) {
        while let Some((at, conn)) = self.stalls.first().copied() {
            if at > now {
                return;
            }
            self.stalls.pop_first();
            let Some(outgoing) = self.connections.get_mut(&conn) else { continue };
            outgoing.stalls_at = None;
            if outgoing.stage == Stage::Open {
                self.condemned.push_back((conn, Refusal::Limit(LimitFault::SlowReader)));
            }
            if outgoing.stage == Stage::Closing {
                self.abandon(conn);
            } else {
                outgoing.stage = Stage::Stalled;
            }
        }
    }

    /// Appends to `slices` what the connection is to be written next, in order; nothing when it is
    /// up to date. It gives up to 64 slices at once.
    pub fn gather(&mut self, conn: ConnId, slices: &mut Vec<Bytes>) {
        let Some(outgoing) = self.connections.get_mut(&conn) else { return };
        if outgoing.queue.is_empty() && outgoing.stage != Stage::Closing {
            #[cfg(chat_mutants)]
            if mutated!(self, LaggingLosesRecords) {
                outgoing.skip_what_is_not_here(&self.rooms);
            }
            if mutated!(self, FirstRoomsFirst) && !outgoing.awaits {
                outgoing.asked = None;
            }
            outgoing.fill(conn, &self.rooms, &mut self.needs);
        }
        slices.extend(outgoing.queue.iter().take(GATHER_SLICES).map(|(_, slice)| slice.clone()));
    }

    /// The transport took `count` bytes of what was gathered. The connection is ready again when
    /// there is more.
    pub fn wrote(&mut self, conn: ConnId, count: usize) {
        let Some(outgoing) = self.connections.get_mut(&conn) else { return };
        outgoing.advance(count);
        if count > 0 {
            self.end_stall(conn);
        }
        self.make_ready(conn);
    }

    /// The transport takes no more for now.
    pub fn blocked(&mut self, conn: ConnId, now: Moment) {
        let Some(outgoing) = self.connections.get_mut(&conn) else { return };
        outgoing.readiness = Readiness::Blocked;
        if outgoing.stalls_at.is_none() && !mutated!(self, StallWithoutLimit) {
            let at = now + self.stall_time;
            outgoing.stalls_at = Some(at);
            self.stalls.insert((at, conn));
        }
    }

    /// The transport takes bytes again.
    pub fn writable(&mut self, conn: ConnId) {
        let Some(outgoing) = self.connections.get_mut(&conn) else { return };
        if outgoing.readiness == Readiness::Blocked {
            outgoing.readiness = Readiness::Idle;
            if outgoing.stage == Stage::Stalled {
                outgoing.stage = Stage::Condemned;
            }
            self.end_stall(conn);
            self.make_ready(conn);
        }
    }

    /// Bytes of answers that wait for the connection. They pass `unread_bytes_max` by one answer, by
    /// notices of the rooms it follows, and by its last frame: who passes it is condemned.
    pub fn unread_bytes(&self, conn: ConnId) -> usize {
        self.connections.get(&conn).map_or(0, |outgoing| outgoing.answer_bytes)
    }

    /// Whether the connection was told to close and everything before that is written.
    pub fn is_finished(&self, conn: ConnId) -> bool {
        self.connections
            .get(&conn)
            .is_some_and(|outgoing| outgoing.stage == Stage::Closing && outgoing.queue.is_empty())
    }

    fn end_stall(&mut self, conn: ConnId) {
        let outgoing = self.connections.get_mut(&conn);
        if let Some(at) = outgoing.and_then(|outgoing| outgoing.stalls_at.take()) {
            self.stalls.remove(&(at, conn));
        }
    }

    fn answer(&mut self, conn: ConnId, frame: &ServerFrame) {
        let Some(outgoing) = self.connections.get_mut(&conn) else { return };
        // What a lost cause is not going to read takes no memory.
        if outgoing.stage != Stage::Open && !mutated!(self, AnswerAfterClose) {
            return;
        }
        if tells_of_an_open_gate(frame) {
            outgoing.take_notices(&self.rooms);
        }
        outgoing.push_answer(encode_to_bytes(frame));
        let too_much = outgoing.answer_bytes > self.unread_bytes_max;
        if too_much && !mutated!(self, UnreadWithoutLimit) {
            outgoing.stage = Stage::Condemned;
            self.condemned.push_back((conn, Refusal::Limit(LimitFault::SlowReader)));
        }
        self.make_ready(conn);
    }

    fn close(&mut self, conn: ConnId, refusal: Option<Refusal>) {
        let Some(outgoing) = self.connections.get_mut(&conn) else { return };
        if let Some(refusal) = refusal {
            outgoing.push_answer(encode_to_bytes(&ServerFrame::Close(refusal)));
        }
        let before = core::mem::replace(&mut outgoing.stage, Stage::Closing);
        for room in core::mem::take(&mut outgoing.follows).keys() {
            self.forget_reader(room, conn);
        }
        if before == Stage::Stalled {
            self.abandon(conn);
        }
        // The host has to come for a connection that has nothing left to write, too: to close it.
        self.make_ready(conn);
    }

    /// Gives up a closing connection that takes nothing: the host comes for it at once.
    fn abandon(&mut self, conn: ConnId) {
        let Some(outgoing) = self.connections.get_mut(&conn) else { return };
        outgoing.queue.clear();
        outgoing.readiness = Readiness::Idle;
        self.make_ready(conn);
    }

    fn follow(&mut self, conn: ConnId, room: RoomName, after: Seq, visible: Seq, gate: GateState) {
        let Some(outgoing) = self.connections.get_mut(&conn) else { return };
        if outgoing.stage != Stage::Open {
            return;
        }
        let tail = self.rooms.entry(room.clone()).or_insert_with(|| RoomTail::new(visible, gate));
        tail.readers.insert(conn);
        // Notices up to now are older than what the connection was just told.
        let (incarnation, notices) = (gate.incarnation, tail.notices);
        let reader = Reader { incarnation, cursor: after, gate, notices };
        outgoing.stop_waiting(&room);
        outgoing.follows.insert(room, reader);
        self.make_ready(conn);
    }

    fn unfollow(&mut self, conn: ConnId, room: &RoomName) {
        let Some(outgoing) = self.connections.get_mut(&conn) else { return };
        outgoing.follows.remove(room);
        outgoing.stop_waiting(room);
        self.forget_reader(room, conn);
    }

    fn forget_reader(&mut self, room: &RoomName, conn: ConnId) {
        let Some(tail) = self.rooms.get_mut(room) else { return };
        tail.readers.remove(&conn);
        if tail.readers.is_empty() {
            self.rooms.remove(room);
        }
    }

    fn take_page(&mut self, conn: ConnId, room: &RoomName, incarnation: Incarnation, page: Page) {
        let Some(outgoing) = self.connections.get_mut(&conn) else { return };
        let Some(reader) = outgoing.follows.get_mut(room) else { return };
        if reader.incarnation != incarnation && !mutated!(self, PageAcrossReset) {
            return;
        }
        match page {
            Page::Records(chunk) => {
                let Some(chunk) = chunk.after(reader.cursor, usize::MAX) else { return };
                reader.cursor = chunk.last();
                outgoing.queue.push_back((Kind::Records, chunk.bytes().clone()));
                #[cfg(chat_mutants)]
                if mutated!(self, PageRepeatsRecord) {
                    outgoing.repeat_last(&chunk);
                }
            }
            Page::Gone { to } => {
                let to = if mutated!(self, GapTooLong) { to.next() } else { to };
                let from = reader.cursor.next();
                if to < from {
                    return;
                }
                reader.cursor = to;
                let from = if mutated!(self, GapBeginsLate) { from.next() } else { from };
                let room = room.clone();
                let gap = ServerFrame::Gap { room, incarnation, from, to };
                if !mutated!(self, GapUntold) {
                    outgoing.push_answer(encode_to_bytes(&gap));
                }
            }
        }
        outgoing.stop_waiting(room);
        self.make_ready(conn);
    }

    /// Changes a room and wakes its readers; a room that nobody here reads is not kept.
    fn with_readers(&mut self, room: &RoomName, change: impl FnOnce(&mut RoomTail)) {
        let Some(tail) = self.rooms.get_mut(room) else { return };
        change(tail);
        for conn in &tail.readers {
            let Some(outgoing) = self.connections.get_mut(conn) else { continue };
            if outgoing.readiness == Readiness::Idle {
                outgoing.readiness = Readiness::Ready;
                self.ready.push_back(*conn);
            }
        }
    }

    /// Puts a connection into the ready list if it has something to write.
    fn make_ready(&mut self, conn: ConnId) {
        let Some(outgoing) = self.connections.get_mut(&conn) else { return };
        if outgoing.readiness == Readiness::Idle && outgoing.has_more(&self.rooms) {
            outgoing.readiness = Readiness::Ready;
            self.ready.push_back(conn);
        }
    }
}

impl Outgoing {
    fn push_answer(&mut self, frame: Bytes) {
        self.answer_bytes = self.answer_bytes.saturating_add(frame.len());
        self.queue.push_back((Kind::Answer, frame));
    }

    /// Drops what was written.
    fn advance(&mut self, mut count: usize) {
        while let Some((kind, first)) = self.queue.front_mut() {
            let taken = count.min(first.len());
            first.advance(taken);
            count = count.saturating_sub(taken);
            if *kind == Kind::Answer {
                self.answer_bytes = self.answer_bytes.saturating_sub(taken);
            }
            if !first.is_empty() {
                return;
            }
            self.queue.pop_front();
        }
    }

    fn awaits(&self, room: &RoomName) -> bool {
        self.awaits && self.asked.as_ref() == Some(room)
    }

    /// The room is waited for no more.
    fn stop_waiting(&mut self, room: &RoomName) {
        self.awaits &= !self.awaits(room);
    }

    /// Takes notices of all rooms, asks for what is not here, and takes records of one room after
    /// the other up to a bound. A busy room starves no other: each time the next one comes first.
    fn fill(
        &mut self,
        conn: ConnId,
        rooms: &BTreeMap<RoomName, RoomTail>,
        needs: &mut VecDeque<Need>,
    ) {
        self.take_notices(rooms);
        needs.extend(self.ask(conn, rooms));
        self.read(rooms);
    }

    /// Asks for a page of the next room that lags behind what is here.
    fn ask(&mut self, conn: ConnId, rooms: &BTreeMap<RoomName, RoomTail>) -> Option<Need> {
        if self.awaits {
            return None;
        }
        let lags = |room: &RoomName, reader: &Reader| {
            rooms.get(room).is_some_and(|tail| tail.lacks(reader))
        };
        let (room, reader) = in_turn(self.asked.as_ref())
            .flat_map(|range| self.follows.range::<RoomName, _>(range))
            .find(|(room, reader)| lags(room, reader))?;
        let (room, incarnation, after) = (room.clone(), reader.incarnation, reader.cursor);
        self.asked = Some(room.clone());
        self.awaits = true;
        Some(Need { conn, room, incarnation, after })
    }

    fn read(&mut self, rooms: &BTreeMap<RoomName, RoomTail>) {
        let mut bytes_left = GATHER_BYTES;
        let turn = self.turn.take();
        let awaited = self.asked.as_ref().filter(|_| self.awaits);
        for range in in_turn(turn.as_ref()) {
            for (room, reader) in self.follows.range_mut::<RoomName, _>(range) {
                let Some(tail) = rooms.get(room).filter(|_| Some(room) != awaited) else {
                    continue;
                };
                let Some(bytes) = tail.read(reader, bytes_left, &mut self.queue) else { continue };
                bytes_left = bytes_left.saturating_sub(bytes);
                self.turn = Some(room.clone());
                if bytes_left == 0 {
                    return;
                }
            }
        }
    }

    fn take_notices(&mut self, rooms: &BTreeMap<RoomName, RoomTail>) {
        for (room, reader) in &mut self.follows {
            let Some(tail) = rooms.get(room) else { continue };
            if reader.incarnation < tail.incarnation && self.asked.as_ref() == Some(room) {
                self.awaits = false;
            }
            for notice in reader.catch_up_notices(room, tail) {
                let frame = encode_to_bytes(&notice);
                self.answer_bytes = self.answer_bytes.saturating_add(frame.len());
                self.queue.push_back((Kind::Answer, frame));
            }
        }
    }

    fn has_more(&self, rooms: &BTreeMap<RoomName, RoomTail>) -> bool {
        if self.stage == Stage::Closing || !self.queue.is_empty() {
            return true;
        }
        self.follows.iter().any(|(room, reader)| {
            let Some(tail) = rooms.get(room) else { return false };
            let is_behind = reader.cursor < tail.visible && !self.awaits(room);
            reader.has_notice(tail) || (is_behind && (!self.awaits || !tail.lacks(reader)))
        })
    }
}

impl Reader {
    /// What the reader has to be told before it reads on: only the newest state, however many
    /// there were in between.
    fn catch_up_notices(
        &mut self,
        room: &RoomName,
        tail: &RoomTail,
    ) -> impl Iterator<Item = ServerFrame> + use<> {
        let reset = (self.incarnation < tail.incarnation).then(|| {
            let (incarnation, threshold) = (tail.incarnation, tail.threshold);
            self.incarnation = incarnation;
            self.cursor = Seq::ZERO;
            ServerFrame::Reset { room: room.clone(), incarnation, threshold }
        });
        let is_news = core::mem::replace(&mut self.notices, tail.notices) < tail.notices;
        // After a reset the gate is the old life's until the new one is announced.
        let is_of_this_life = tail.gate.incarnation == tail.incarnation;
        let gate = (is_news && is_of_this_life && self.gate != tail.gate).then(|| {
            self.gate = tail.gate;
            ServerFrame::Gate { room: room.clone(), gate: tail.gate }
        });
        reset.into_iter().chain(gate)
    }

    const fn has_notice(&self, tail: &RoomTail) -> bool {
        self.incarnation.get() < tail.incarnation.get() || self.notices < tail.notices
    }
}

/// Whether a frame says what only an open gate lets through. Whoever is told that has been told
/// before that the gate is open.
const fn tells_of_an_open_gate(frame: &ServerFrame) -> bool {
    match frame {
        ServerFrame::Accepted { seq, .. } => seq.is_some(),
        ServerFrame::Answer { answer, .. } => {
            matches!(answer, Answer::Users(_) | Answer::User(_) | Answer::History { .. })
        }
        ServerFrame::Hello(_)
        | ServerFrame::Welcome(_)
        | ServerFrame::Applied { .. }
        | ServerFrame::Refused { .. }
        | ServerFrame::Record(_)
        | ServerFrame::Gap { .. }
        | ServerFrame::Gate { .. }
        | ServerFrame::Reset { .. }
        | ServerFrame::Rejected(_)
        | ServerFrame::Notice(_)
        | ServerFrame::Close(_)
        | ServerFrame::Ping { .. }
        | ServerFrame::Pong { .. }
        | ServerFrame::Status(_)
        | ServerFrame::Proof { .. }
        | ServerFrame::Parked(_)
        | ServerFrame::Moved(_)
        | ServerFrame::Prepare { .. }
        | ServerFrame::Stay
        | ServerFrame::Generation { .. } => false,
    }
}

/// Ranges that hold every room once, the ones after `last` first.
fn in_turn(last: Option<&RoomName>) -> impl Iterator<Item = (Bound<&RoomName>, Bound<&RoomName>)> {
    let later = (last.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded);
    let earlier = last.map(|last| (Bound::Unbounded, Bound::Included(last)));
    [Some(later), earlier].into_iter().flatten()
}

/// How many bytes each of so many rooms of a shard may keep.
fn room_window(rooms: usize) -> usize {
    let share = SHARD_WINDOW_BYTES.checked_div(rooms).unwrap_or(SHARD_WINDOW_BYTES);
    share.clamp(ROOM_WINDOW_BYTES_MIN, ROOM_WINDOW_BYTES)
}

impl RoomTail {
    fn new(visible: Seq, gate: GateState) -> Self {
        let (chunks, readers) = (VecDeque::new(), BTreeSet::new());
        let (incarnation, threshold) = (gate.incarnation, gate.threshold);
        Self { incarnation, threshold, visible, gate, notices: 0, chunks, bytes: 0, readers }
    }

    fn announce(&mut self, gate: GateState) {
        self.gate = gate;
        self.notices = self.notices.saturating_add(1);
    }

    /// Records became visible: those of `chunk`, the last one being `through`.
    fn extend(
        &mut self,
        (incarnation, through, chunk): (Incarnation, Seq, Option<Chunk>),
        window_bytes: usize,
    ) {
        if incarnation != self.incarnation || through <= self.visible {
            return;
        }
        let joins = chunk.as_ref().is_some_and(|chunk| chunk.first() == self.visible.next());
        if !joins {
            self.chunks.clear();
            self.bytes = 0;
        }
        self.visible = through;
        if let Some(chunk) = chunk {
            self.bytes = self.bytes.saturating_add(chunk.cost_bytes());
            self.chunks.push_back(chunk);
        }
        // Not even the newest chunk stays when it is too long, as that of a gate that opens may be:
        // each room could otherwise keep as much as all together may hold.
        while self.bytes > window_bytes
            && let Some(oldest) = self.chunks.pop_front()
        {
            self.bytes = self.bytes.saturating_sub(oldest.cost_bytes());
        }
    }

    fn reset(&mut self, incarnation: Incarnation, threshold: Threshold) {
        if incarnation <= self.incarnation {
            return;
        }
        // The gate of the new life is announced next.
        self.incarnation = incarnation;
        self.threshold = threshold;
        self.visible = Seq::ZERO;
        self.chunks.clear();
        self.bytes = 0;
    }

    /// Records are gone for good: whoever is due them is told so by the engine.
    fn forget_through(&mut self, incarnation: Incarnation, through: Seq) {
        if incarnation != self.incarnation {
            return;
        }
        forget_through(&mut self.chunks, through);
        self.bytes = self.chunks.iter().map(Chunk::cost_bytes).sum();
    }

    /// Whether the next record that a reader is due is not here.
    fn lacks(&self, reader: &Reader) -> bool {
        let next = reader.cursor.next();
        next <= self.visible && self.chunks.front().is_none_or(|oldest| next < oldest.first())
    }

    /// Moves a reader on and says by how many bytes; `None` when the records it is due are not
    /// here.
    fn read(
        &self,
        reader: &mut Reader,
        bytes_max: usize,
        queue: &mut VecDeque<(Kind, Bytes)>,
    ) -> Option<usize> {
        let first = self.chunks.partition_point(|chunk| chunk.last() <= reader.cursor);
        let mut taken: usize = 0;
        for chunk in self.chunks.iter().skip(first).take(GATHER_SLICES) {
            let bytes_left = bytes_max.saturating_sub(taken);
            let Some(part) = chunk.after(reader.cursor, bytes_left) else { break };
            reader.cursor = part.last();
            taken = taken.saturating_add(part.bytes().len());
            queue.push_back((Kind::Records, part.bytes().clone()));
            if part.last() < chunk.last() || taken >= bytes_max {
                break;
            }
        }
        (taken > 0).then_some(taken)
    }
}
