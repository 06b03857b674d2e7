//! What each connection is written, judged where the server writes it.
//!
//! Clients repair what they are told: they drop repeats and join again when something is missing. So
//! what they show says little about the last step of the way to them. A [`Tap`] stands beside each
//! delivery shard and reads the bytes before anything can happen to them. It knows the directives
//! that the shard was given, which the model has approved, and nothing of how a shard works; it
//! shares no code with delivery or with clients.
//!
//! It holds that every answer comes once and in order, that records come without holes, repeats and
//! records of a closed gate, that gaps, resets and notices are those that were told, that nothing
//! follows the last frame, that whoever takes nothing is condemned and nobody else, that no room
//! waits for ever, and, each time that a shard has done its work, that whoever takes bytes has been
//! written everything.

mod line;

use std::collections::BTreeMap;

use bytes::Bytes;
use chatcore::codec::encode_to_bytes;
use chatcore::engine::{Directive, Need, Page};
use chatcore::id::{ConnId, Incarnation, Seq, Threshold};
use chatcore::limits::Limits;
use chatcore::text::RoomName;
use chatcore::time::{Moment, Span};
use chatcore::wire::{Answer, GateState, LimitFault, Refusal, ServerFrame};

use crate::broken::{Broken, hold};
use crate::tap::line::{End, Gone, Line, Owed};
use crate::witness::Witness;

/// Beside one shard.
#[derive(Debug)]
pub(crate) struct Tap {
    unread_bytes_max: usize,
    stall_time: Span,
    rooms: BTreeMap<RoomName, Told>,
    lines: BTreeMap<ConnId, Line>,
}

/// What a shard was told of a room.
#[derive(Debug, Default)]
struct Told {
    life: Incarnation,
    visible: Seq,
    /// Every gate that was announced, in order.
    gates: Vec<GateState>,
    /// Lives that began.
    lives: BTreeMap<Incarnation, Threshold>,
}

/// Why a connection is condemned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// It took no byte for too long.
    Stall,
    /// It leaves too many answers unread.
    Unread,
}

impl Tap {
    pub(crate) const fn new(limits: &Limits) -> Self {
        Self {
            unread_bytes_max: limits.unread_bytes_max,
            stall_time: limits.stall_time,
            rooms: BTreeMap::new(),
            lines: BTreeMap::new(),
        }
    }

    pub(crate) fn add(&mut self, conn: ConnId) {
        self.lines.insert(conn, Line::default());
    }

    pub(crate) fn remove(&mut self, conn: ConnId) {
        self.lines.remove(&conn);
    }

    /// Before the shard is given a directive.
    pub(crate) fn told(&mut self, directive: &Directive) {
        match directive {
            Directive::Send { conn, frame } => self.owe(*conn, frame),
            Directive::Close { conn, refusal } => {
                if let Some(line) = self.lines.get_mut(conn) {
                    line.close(*refusal);
                }
            }
            Directive::Follow { conn, room, visible, gate, .. } => {
                let told = self.rooms.entry(room.clone()).or_default();
                (told.life, told.visible) = (gate.incarnation, *visible);
                self.stop_waiting(*conn, room);
            }
            Directive::Unfollow { conn, room } => self.stop_waiting(*conn, room),
            Directive::Page { conn, room, incarnation, page } => {
                self.paged(*conn, room, *incarnation, page);
            }
            Directive::Gate { room, gate } => {
                self.rooms.entry(room.clone()).or_default().gates.push(*gate);
                self.lines.values_mut().for_each(Line::expect_notice);
            }
            Directive::Visible { room, incarnation, through, .. } => {
                let told = self.rooms.entry(room.clone()).or_default();
                (told.life, told.visible) = (*incarnation, *through);
            }
            Directive::Reset { room, incarnation, threshold } => {
                let told = self.rooms.entry(room.clone()).or_default();
                (told.life, told.visible) = (*incarnation, Seq::ZERO);
                told.lives.insert(*incarnation, *threshold);
                for line in self.lines.values_mut() {
                    line.expect_notice();
                    line.stop_waiting(room);
                }
            }
            // Who is due what is gone has to ask, and is then told the gap.
            Directive::Trim { .. } => {}
        }
    }

    fn owe(&mut self, conn: ConnId, frame: &ServerFrame) {
        let Some(line) = self.lines.get_mut(&conn) else { return };
        if line.is_lost() {
            return;
        }
        // What was announced before a join is answered is older than the answer.
        let told = if let ServerFrame::Answer { answer: Answer::Joined(joined), .. } = frame {
            self.rooms.get(&joined.room)
        } else {
            None
        };
        let gates = told.map_or(0, |told| told.gates.len());
        let bytes = encode_to_bytes(frame).len();
        line.owe(Owed { frame: frame.clone(), bytes, gates }, self.unread_bytes_max);
    }

    fn stop_waiting(&mut self, conn: ConnId, room: &RoomName) {
        if let Some(line) = self.lines.get_mut(&conn) {
            line.stop_waiting(room);
        }
    }

    fn paged(&mut self, conn: ConnId, room: &RoomName, incarnation: Incarnation, page: &Page) {
        let Some(line) = self.lines.get_mut(&conn) else { return };
        let (first, last) = match page {
            Page::Records(chunk) => (chunk.first(), chunk.last()),
            Page::Gone { to } => {
                line.gone.push(Gone { room: room.clone(), life: incarnation, to: *to });
                line.expect_notice();
                (Seq::ZERO, *to)
            }
        };
        line.paged((room, incarnation), (first, last));
    }

    /// The shard asks for records.
    pub(crate) fn needs(&mut self, need: &Need) -> Result<(), Broken> {
        let Some(line) = self.lines.get_mut(&need.conn) else { return Ok(()) };
        line.needs(need, &self.rooms)
    }

    /// A connection is written so many bytes.
    pub(crate) fn wrote(
        &mut self,
        conn: ConnId,
        bytes: &Bytes,
        witness: &Witness,
    ) -> Result<(), Broken> {
        let Some(line) = self.lines.get_mut(&conn) else {
            return Err(Broken::new("only who is there is written", conn.to_string()));
        };
        line.wrote(bytes, &self.rooms, witness)
            .map_err(|broken| Broken::new(broken.rule, format!("{conn}: {}", broken.detail)))
    }

    /// The shard has nothing to write to a connection.
    pub(crate) fn gave_nothing(&mut self, conn: ConnId) {
        if let Some(line) = self.lines.get_mut(&conn) {
            line.notice_bytes = 0;
        }
    }

    /// The socket of a connection is full.
    pub(crate) fn blocked(&mut self, conn: ConnId, now: Moment) {
        if let Some(line) = self.lines.get_mut(&conn) {
            line.blocked_since.get_or_insert(now);
        }
    }

    /// The socket of a connection takes bytes again. Who had stalled, and is not dropped yet, has to
    /// be told why it is closed.
    pub(crate) fn writable(&mut self, conn: ConnId) {
        if let Some(line) = self.lines.get_mut(&conn) {
            line.blocked_since = None;
            line.stalled = false;
        }
    }

    /// The shard is told what time it is.
    pub(crate) fn time_is(&mut self, now: Moment) {
        for line in self.lines.values_mut() {
            line.stalled |= line.blocked_since.is_some_and(|since| since + self.stall_time <= now);
        }
    }

    /// The shard condemns a connection.
    pub(crate) fn condemned(&mut self, conn: ConnId, refusal: Refusal) -> Result<Cause, Broken> {
        let why = Refusal::Limit(LimitFault::SlowReader);
        hold!(refusal == why, "a shard condemns slow readers", "{conn}: {refusal}");
        let Some(line) = self.lines.get_mut(&conn) else {
            return Err(Broken::new("only who is there is condemned", conn.to_string()));
        };
        let once = !std::mem::replace(&mut line.condemned, true) && line.end == End::Open;
        hold!(once, "who is condemned is condemned once", "{conn}");
        if line.stalled {
            return Ok(Cause::Stall);
        }
        let unread = line.unread_most();
        let much = unread > self.unread_bytes_max;
        hold!(much, "only who reads too slowly is condemned", "{conn}: {unread} bytes at most");
        Ok(Cause::Unread)
    }

    /// A connection is dropped because it was written its last.
    pub(crate) fn finished(&self, conn: ConnId) -> Result<(), Broken> {
        let Some(line) = self.lines.get(&conn) else { return Ok(()) };
        line.check_finished()
            .map_err(|broken| Broken::new(broken.rule, format!("{conn}: {}", broken.detail)))
    }

    /// The shard has done what there was to do: whoever takes bytes has been written everything,
    /// and whoever does not is condemned in time. `timer` is when it wants to be asked again.
    pub(crate) fn check(&self, timer: Option<Moment>) -> Result<(), Broken> {
        for (conn, line) in &self.lines {
            line.check_condemned()
                .and_then(|()| line.check_level(&self.rooms))
                .map_err(|broken| Broken::new(broken.rule, format!("{conn}: {}", broken.detail)))?;
            let waits = line.blocked_since.filter(|_| !line.stalled);
            let due = waits.map(|since| since + self.stall_time);
            let asked = due.is_none_or(|due| timer.is_some_and(|timer| timer <= due));
            hold!(asked, "a stall has a timer", "{conn}: due {due:?}, asked for {timer:?}");
        }
        Ok(())
    }
}
