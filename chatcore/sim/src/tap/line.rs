//! One connection, as what it was written says.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use chatcore::codec::{FrameBuffer, decode};
use chatcore::engine::Need;
use chatcore::id::{Incarnation, Seq, Threshold};
use chatcore::text::RoomName;
use chatcore::time::Moment;
use chatcore::wire::{Answer, GateState, JoinedRoom, Record, Refusal, ServerFrame};

use crate::broken::{Broken, hold};
use crate::tap::Told;
use crate::witness::Witness;

/// Bytes that a notice of a gate, a reset or a gap takes at most.
const NOTICE_BYTES: usize = 256;

/// What a room that is due may be passed over by at most, for each room that is followed: bytes of
/// other rooms that are not of a page, while no page is awaited, and pages of other rooms. How long
/// a page is, is for the engine and its store to say.
const PASSED_BYTES: usize = 160 << 10;
const PASSED_PAGES: usize = 2;

/// One connection.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// What was written and is no whole frame yet.
    buffer: FrameBuffer,
    /// Answers that were given to the shard and are not written whole, oldest first.
    owed: VecDeque<Owed>,
    /// Bytes of `owed`.
    owed_bytes: usize,
    /// Bytes of notices that may wait, at most.
    pub(super) notice_bytes: usize,
    /// Pages that said that records are gone, and were not told.
    pub(super) gone: Vec<Gone>,
    /// The rooms it follows, by what it was written.
    places: BTreeMap<RoomName, Place>,
    /// What its shard asked for and did not get.
    awaits: Option<Need>,
    pub(super) blocked_since: Option<Moment>,
    /// Whether it took no byte for too long.
    pub(super) stalled: bool,
    /// Whether it left so much unread that it has to be condemned.
    is_over: bool,
    pub(super) condemned: bool,
    pub(super) end: End,
}

/// How far a connection is from its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum End {
    /// It serves.
    #[default]
    Open,
    /// Its shard was told to close it, and what to tell it.
    Told(Option<Refusal>),
    /// It was written why it is closed.
    Written,
}

/// An answer that has to be written.
#[derive(Debug)]
pub(super) struct Owed {
    pub(super) frame: ServerFrame,
    pub(super) bytes: usize,
    /// For a join: how many notices of the gate are older than it.
    pub(super) gates: usize,
}

/// Records that are gone, up to one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Gone {
    pub(super) room: RoomName,
    pub(super) life: Incarnation,
    pub(super) to: Seq,
}

/// How far a connection was written a room.
#[derive(Debug)]
struct Place {
    life: Incarnation,
    last: Seq,
    /// The gate as it was last told; nothing right after a reset.
    gate: Option<GateState>,
    /// How many notices of the gate are not newer than that.
    gates: usize,
    /// The last record that came in a page.
    paged: Seq,
    /// What other rooms were written while this one was due.
    passed_bytes: usize,
    passed_pages: usize,
}

impl Place {
    fn is_due(&self, told: Option<&Told>) -> bool {
        told.is_some_and(|told| told.life == self.life && self.last < told.visible)
    }
}

impl Line {
    /// Whether nobody has to answer it any more.
    pub(super) fn is_lost(&self) -> bool {
        self.condemned || self.end != End::Open
    }

    /// Its shard is told to close it.
    pub(super) fn close(&mut self, refusal: Option<Refusal>) {
        if self.end == End::Open {
            self.end = End::Told(refusal);
        }
    }

    pub(super) fn owe(&mut self, owed: Owed, unread_bytes_max: usize) {
        self.owed_bytes += owed.bytes;
        self.owed.push_back(owed);
        // Of the oldest one most may be written.
        let oldest = self.owed.front().map_or(0, |owed| owed.bytes);
        self.is_over |= self.owed_bytes - oldest > unread_bytes_max;
    }

    /// How many bytes of answers and notices wait at most.
    pub(super) const fn unread_most(&self) -> usize {
        self.owed_bytes + self.notice_bytes
    }

    pub(super) const fn expect_notice(&mut self) {
        self.notice_bytes += NOTICE_BYTES;
    }

    pub(super) fn stop_waiting(&mut self, room: &RoomName) {
        self.awaits.take_if(|need| need.room == *room);
    }

    /// A page came that reaches from `first` to `last`. One that was asked for before the reader
    /// joined again may be of no use.
    pub(super) fn paged(
        &mut self,
        (room, life): (&RoomName, Incarnation),
        (first, last): (Seq, Seq),
    ) {
        let place = self.places.get_mut(room).filter(|place| place.life == life);
        if let Some(place) = place {
            place.paged = place.paged.max(last);
        }
        let asked = |need: &mut Need| need.room == *room && need.incarnation == life;
        self.awaits.take_if(|need| asked(need) && first <= need.after.next() && need.after < last);
    }

    /// The shard asks for what it lacks: one page at a time, and one room after the other.
    pub(super) fn needs(
        &mut self,
        need: &Need,
        rooms: &BTreeMap<RoomName, Told>,
    ) -> Result<(), Broken> {
        let before = self.awaits.replace(need.clone());
        hold!(before.is_none(), "one page is asked for at a time", "{need:?} after {before:?}");
        let place = self.places.get(&need.room).filter(|place| place.life == need.incarnation);
        let level = place.is_none_or(|place| place.last == need.after);
        hold!(level, "what is asked for is what comes next", "{need:?}, but {place:?}");
        let most = PASSED_PAGES * self.places.len();
        for (room, place) in self.places.iter_mut().filter(|(room, _)| **room != need.room) {
            if !place.is_due(rooms.get(room)) {
                place.passed_pages = 0;
                continue;
            }
            place.passed_pages += 1;
            let count = place.passed_pages;
            hold!(count <= most, "no room waits for ever", "{room} waited for {count} pages");
        }
        Ok(())
    }

    /// Takes what it is written.
    pub(super) fn wrote(
        &mut self,
        bytes: &Bytes,
        rooms: &BTreeMap<RoomName, Told>,
        witness: &Witness,
    ) -> Result<(), Broken> {
        self.blocked_since = None;
        hold!(!self.stalled, "who took nothing for too long is written nothing", "{self:?}");
        self.buffer.feed(bytes);
        while let Some((frame, len)) = next_frame(&mut self.buffer)? {
            hold!(self.end != End::Written, "nothing follows the last frame", "{frame:?}");
            if let ServerFrame::Record(record) = &frame {
                witness.delivered(record)?;
                self.record(record, rooms)?;
                self.pass_over(record, len, rooms)?;
            } else {
                self.frame(frame, rooms)?;
            }
        }
        Ok(())
    }

    fn frame(
        &mut self,
        frame: ServerFrame,
        rooms: &BTreeMap<RoomName, Told>,
    ) -> Result<(), Broken> {
        match frame {
            ServerFrame::Gap { room, incarnation, from, to } => {
                self.gap(room, incarnation, (from, to))
            }
            ServerFrame::Gate { room, gate } => self.gate(&room, gate, rooms.get(&room)),
            ServerFrame::Reset { room, incarnation, threshold } => {
                self.reset(&room, (incarnation, threshold), rooms.get(&room))
            }
            ServerFrame::Close(refusal) => {
                let told = self.end == End::Told(Some(refusal));
                hold!(told, "who is closed is told why", "{refusal}, not {:?}", self.end);
                self.end = End::Written;
                self.check_answered()
            }
            ServerFrame::Record(_)
            | ServerFrame::Hello(_)
            | ServerFrame::Welcome(_)
            | ServerFrame::Accepted { .. }
            | ServerFrame::Applied { .. }
            | ServerFrame::Refused { .. }
            | ServerFrame::Answer { .. }
            | ServerFrame::Rejected(_)
            | ServerFrame::Notice(_)
            | ServerFrame::Ping { .. }
            | ServerFrame::Pong { .. }
            | ServerFrame::Status(_)
            | ServerFrame::Proof { .. }
            | ServerFrame::Parked(_)
            | ServerFrame::Moved(_)
            | ServerFrame::Prepare { .. }
            | ServerFrame::Stay
            | ServerFrame::Generation { .. } => self.answer(&frame),
        }
    }

    fn answer(&mut self, frame: &ServerFrame) -> Result<(), Broken> {
        let Some(owed) = self.owed.pop_front().filter(|owed| owed.frame == *frame) else {
            return Err(Broken::new("answers come once and in order", format!("{frame:?}")));
        };
        self.owed_bytes -= owed.bytes;
        let ServerFrame::Answer { answer, .. } = owed.frame else { return Ok(()) };
        match answer {
            Answer::Joined(joined) => self.follow(joined, owed.gates),
            Answer::Parted { room } => drop(self.places.remove(&room)),
            Answer::Users(_)
            | Answer::Rooms { .. }
            | Answer::User(_)
            | Answer::History { .. }
            | Answer::Refused(_) => {}
        }
        Ok(())
    }

    fn follow(&mut self, joined: JoinedRoom, gates: usize) {
        let place = Place {
            life: joined.gate.incarnation,
            last: joined.after,
            gate: Some(joined.gate),
            gates,
            paged: Seq::ZERO,
            passed_bytes: 0,
            passed_pages: 0,
        };
        self.places.insert(joined.room, place);
    }

    fn place(&mut self, room: &RoomName) -> Result<&mut Place, Broken> {
        let place = self.places.get_mut(room);
        place.ok_or_else(|| Broken::new("news are of rooms that are followed", room.to_string()))
    }

    fn record(&mut self, record: &Record, rooms: &BTreeMap<RoomName, Told>) -> Result<(), Broken> {
        let Record { room, incarnation, seq, .. } = record;
        let told = rooms.get(room);
        let place = self.place(room)?;
        let next = (place.life, place.last.next()) == (*incarnation, *seq);
        hold!(next, "records are written once and in order", "{room} {seq}, but {place:?}");
        let shown = told.is_some_and(|told| told.life > *incarnation || *seq <= told.visible);
        hold!(shown, "records are written when they are visible", "{room} {seq}, but {told:?}");
        place.last = *seq;
        (place.passed_bytes, place.passed_pages) = (0, 0);
        Ok(())
    }

    /// A record of one room is written: others that are due wait, but not for ever.
    fn pass_over(
        &mut self,
        served: &Record,
        len: usize,
        rooms: &BTreeMap<RoomName, Told>,
    ) -> Result<(), Broken> {
        if self.places.get(&served.room).is_some_and(|place| served.seq <= place.paged) {
            return Ok(());
        }
        let most = PASSED_BYTES * self.places.len();
        for (room, place) in self.places.iter_mut().filter(|(room, _)| **room != served.room) {
            if self.awaits.is_some() || !place.is_due(rooms.get(room)) {
                place.passed_bytes = 0;
                continue;
            }
            place.passed_bytes += len;
            let bytes = place.passed_bytes;
            hold!(bytes <= most, "no room waits for ever", "{room} waited for {bytes} bytes");
        }
        Ok(())
    }

    fn gap(
        &mut self,
        room: RoomName,
        life: Incarnation,
        (from, to): (Seq, Seq),
    ) -> Result<(), Broken> {
        let place = self.place(&room)?;
        let next = (place.life, place.last.next()) == (life, from) && from <= to;
        hold!(next, "a gap is written where it is", "{room} {from} to {to}, but {place:?}");
        place.last = to;
        let gone = Gone { room, life, to };
        let told = self.gone.iter().position(|other| *other == gone);
        hold!(told.is_some(), "what is said to be gone is gone", "{gone:?}");
        // A reader that joined again may be told the same by a page that it had asked for before.
        told.map(|place| self.gone.remove(place));
        Ok(())
    }

    fn gate(
        &mut self,
        room: &RoomName,
        gate: GateState,
        told: Option<&Told>,
    ) -> Result<(), Broken> {
        let place = self.place(room)?;
        hold!(gate.incarnation == place.life, "a gate is of the life it is told in", "{gate:?}");
        hold!(place.gate != Some(gate), "a gate is not told twice", "{room} {gate:?}");
        let newer = told.and_then(|told| told.gates.get(place.gates..)).unwrap_or_default();
        let found = newer.iter().position(|announced| *announced == gate);
        let Some(found) = found else {
            return Err(Broken::new("a gate is told as it was announced", format!("{gate:?}")));
        };
        place.gates += found + 1;
        place.gate = Some(gate);
        Ok(())
    }

    fn reset(
        &mut self,
        room: &RoomName,
        (life, threshold): (Incarnation, Threshold),
        told: Option<&Told>,
    ) -> Result<(), Broken> {
        let begun = told.and_then(|told| told.lives.get(&life)) == Some(&threshold);
        hold!(begun, "a reset is told as it was", "{room} {life} {threshold}");
        let place = self.place(room)?;
        hold!(life > place.life, "a reset begins a later life", "{room} {life}, but {place:?}");
        (place.life, place.last, place.gate) = (life, Seq::ZERO, None);
        place.paged = Seq::ZERO;
        (place.passed_bytes, place.passed_pages) = (0, 0);
        Ok(())
    }

    fn check_answered(&self) -> Result<(), Broken> {
        let first = self.owed.front();
        hold!(first.is_none(), "every answer is written", "{} wait: {first:?}", self.owed.len());
        Ok(())
    }

    pub(super) fn check_finished(&self) -> Result<(), Broken> {
        hold!(self.end != End::Open, "only who is closed is dropped", "{self:?}");
        if self.stalled {
            return Ok(());
        }
        self.check_answered()?;
        hold!(!self.buffer.is_inside_frame(), "the last frame is written whole", "{:?}", self.end);
        let told = matches!(self.end, End::Written | End::Told(None));
        hold!(told, "who is closed is told why", "{:?}", self.end);
        Ok(())
    }

    pub(super) fn check_condemned(&self) -> Result<(), Broken> {
        if self.end != End::Open {
            hold!(!self.stalled, "who closes and takes nothing is dropped", "{self:?}");
            return Ok(());
        }
        let due = self.stalled || self.is_over;
        hold!(self.condemned || !due, "who reads too slowly is condemned", "{self:?}");
        Ok(())
    }

    /// Whoever takes bytes has been written everything.
    pub(super) fn check_level(&self, rooms: &BTreeMap<RoomName, Told>) -> Result<(), Broken> {
        if self.condemned || self.blocked_since.is_some() {
            return Ok(());
        }
        hold!(self.end == End::Open, "who closes is dropped", "{self:?}");
        self.check_answered()?;
        hold!(!self.buffer.is_inside_frame(), "frames are written whole", "{self:?}");
        for (room, place) in &self.places {
            let Some(told) = rooms.get(room) else { continue };
            hold!(place.life == told.life, "a reset is told", "{room} {place:?} {told:?}");
            let newest = told.gates.get(place.gates..).and_then(<[GateState]>::last);
            let level = newest.is_none_or(|newest| place.gate == Some(*newest));
            hold!(level, "the newest gate is told", "{room} {place:?} {newest:?}");
            let level = place.last == told.visible || self.awaits.is_some();
            hold!(level, "what is visible is written", "{room} {place:?}, not {}", told.visible);
        }
        Ok(())
    }
}

/// The next whole frame, and how long it is.
fn next_frame(buffer: &mut FrameBuffer) -> Result<Option<(ServerFrame, usize)>, Broken> {
    let broken = |fault: String| Broken::new("a server writes frames", fault);
    let frame = buffer.next_frame().map_err(|fault| broken(format!("{fault:?}")))?;
    let Some(bytes) = frame else { return Ok(None) };
    let frame = decode(&bytes).map_err(|fault| broken(format!("{fault:?}")))?;
    Ok(Some((frame, bytes.len())))
}
