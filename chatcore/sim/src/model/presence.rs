//! What ends with the process: connections, who attends which room, deadlines, rates, reads.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use chatcore::engine::{Need, ReadToken};
use chatcore::id::{Attach, ConnId, Digest, Incarnation, Index, Nonce, PublicKey, RequestId, Seq};
use chatcore::id::{Counter, SessionId};
use chatcore::text::{HostAddress, RoomName, UserName};
use chatcore::time::{Moment, Span};
use chatcore::wire::{GateState, Order, Refusal, ServerFrame, Start};

/// What ends with the process.
#[derive(Debug, Default)]
pub(super) struct Process {
    /// Every connection that the host has not reported gone.
    pub(super) conns: BTreeMap<ConnId, Conn>,
    /// How many of them are on their way to a log-in.
    pub(super) greeting: u32,
    /// How many of them speak for a user.
    pub(super) online: u32,
    /// The connection that speaks for a session.
    pub(super) speakers: BTreeMap<SessionId, ConnId>,
    /// By how many connections each user speaks.
    pub(super) presence: BTreeMap<UserName, u32>,
    pub(super) sides: BTreeMap<RoomName, Side>,
    pub(super) resets: BTreeMap<UserName, Bucket>,
    /// Log-ins of sessions that are new, and of others.
    pub(super) newcomers: Vessel,
    pub(super) returns: Vessel,
    /// When a connection may have to be looked at; at most one each.
    pub(super) deadlines: BTreeSet<(Moment, ConnId)>,
    /// Members that nothing of theirs connects to a room, by when they have to be back there.
    pub(super) graces: BTreeSet<(Moment, (UserName, RoomName))>,
    pub(super) notices: BTreeSet<(Moment, RoomName)>,
    /// When the store is asked again for what a connection lacks.
    pub(super) rests: BTreeSet<(Moment, ConnId)>,
    /// Answers that wait for an entry to be safe, in the order they leave.
    pub(super) waiting: VecDeque<(Index, Waiting)>,
    pub(super) reads: BTreeMap<ReadToken, Reading>,
    pub(super) stopping: bool,
    pub(super) store: Store,
    /// At least the bytes of everything that became visible in this process.
    pub(super) window_bytes: u64,
}

/// What the host says of its store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Store {
    #[default]
    Free,
    /// Nothing is appended that a client can ask for again later.
    Full,
}

/// A connection.
#[derive(Debug)]
pub(super) struct Conn {
    pub(super) phase: Phase,
    pub(super) nonce: Nonce,
    pub(super) channel: Option<Digest>,
    /// Whether it asked the server for its proof, and has not got it.
    pub(super) was_asked: bool,
    pub(super) owes_proof: bool,
    pub(super) address: Option<HostAddress>,
    /// When it was last heard, pinged, or logged in.
    pub(super) quiet_since: Moment,
    pub(super) pings: u32,
    pub(super) strikes: u32,
    pub(super) frames: Vessel,
    pub(super) bytes: Vessel,
    /// Frames that did not fit.
    pub(super) spilled: Vessel,
    pub(super) questions: Bucket,
    pub(super) waiting: u32,
    pub(super) reads_history: bool,
    pub(super) catch_up: CatchUp,
    deadline: Option<Moment>,
}

/// How far a connection has come.
#[derive(Debug)]
pub(super) enum Phase {
    Greeting,
    Greeted,
    Verifying(Proof),
    Reporting,
    Online(Online),
    /// It is closed once that is safe.
    TurnedAway,
    Closed,
}

/// What a connection has to prove.
#[derive(Clone, Debug)]
pub(super) enum Proof {
    User(Claim),
    /// That this key may give this order.
    Right(PublicKey, Order),
}

/// Who a connection says it is.
#[derive(Clone, Debug)]
pub(super) struct Claim {
    pub(super) user: UserName,
    pub(super) key: PublicKey,
    pub(super) session: SessionId,
    pub(super) attach: Attach,
}

/// Whom a connection speaks for.
#[derive(Debug)]
pub(super) struct Online {
    pub(super) user: UserName,
    pub(super) session: SessionId,
    pub(super) attach: Attach,
    /// The rooms it follows.
    pub(super) rooms: BTreeSet<RoomName>,
}

/// What is read for a connection that lags.
#[derive(Debug, Default)]
pub(super) enum CatchUp {
    #[default]
    Idle,
    Reading,
    /// And this is next.
    ReadingBefore(Need),
    /// The store could not read: this is asked for again at a deadline of `Process::rests`.
    Resting(Need),
}

/// What is known of a room beside its log.
#[derive(Debug, Default)]
pub(super) struct Side {
    /// The users that follow it. Each counts once, whatever the connections.
    pub(super) users: BTreeMap<UserName, Attendee>,
    /// How many of them others may know of: their join is safe.
    pub(super) known: u32,
    /// Whether anybody followed it in this process.
    pub(super) watched: bool,
    /// What was last said of its gate.
    pub(super) announced: Option<GateState>,
    /// What shards were told of it.
    pub(super) told: Option<GateState>,
    pub(super) quiet_until: Moment,
    pub(super) notice_waits: bool,
    /// The last record that shards were told of, in its present life.
    pub(super) shown: Seq,
    /// Records up to here were there before this process and may be in the store alone.
    pub(super) restored: Seq,
    /// Records up to here were told to be gone.
    pub(super) gone: Seq,
}

/// How a user follows a room.
#[derive(Debug, Default)]
pub(super) struct Attendee {
    pub(super) conns: BTreeSet<ConnId>,
    pub(super) known: bool,
}

/// An answer that waits for an entry to be safe.
#[derive(Debug)]
pub(super) enum Waiting {
    Frame {
        conn: ConnId,
        frame: ServerFrame,
    },
    Posted {
        conn: ConnId,
        counter: Counter,
        room: RoomName,
        incarnation: Incarnation,
        seq: Seq,
    },
    Question {
        conn: ConnId,
        request: RequestId,
        what: Asked,
    },
    /// The end of a connection that speaks for nobody any more.
    Close {
        conn: ConnId,
        refusal: Refusal,
    },
    /// What those who run the server are answered.
    Moderated {
        request: RequestId,
        refusal: Option<Refusal>,
    },
}

/// A question whose answer shows what is safe when it leaves.
#[derive(Debug)]
pub(super) enum Asked {
    Join { room: RoomName, start: Start, opens: bool },
    Part { room: RoomName },
    Who { room: RoomName },
    Rooms,
    Whois { room: RoomName, user: Option<UserName> },
    History { room: RoomName, before: Option<Seq>, limit: usize },
}

/// What the store was asked for.
#[derive(Clone, Debug)]
pub(super) struct Reading {
    pub(super) conn: ConnId,
    pub(super) room: RoomName,
    pub(super) incarnation: Incarnation,
    pub(super) from: Seq,
    pub(super) to: Seq,
    pub(super) whose: Reader,
}

/// Why the store was asked.
#[derive(Clone, Copy, Debug)]
pub(super) enum Reader {
    Lagging,
    History { request: RequestId, limit: usize },
}

/// So many events at once, and one more after each interval: a bucket that runs full again.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bucket {
    full_at: Moment,
}

impl Bucket {
    /// Takes one, or says how long to wait for it.
    pub(super) fn take(&mut self, now: Moment, interval: Span, burst: u32) -> Result<(), Span> {
        let interval = interval.as_millis();
        let missing = self.full_at.since(now).as_millis();
        let most = interval.saturating_mul(u64::from(burst.saturating_sub(1)));
        if missing > most {
            return Err(Span::from_millis(missing - most));
        }
        self.full_at = now + Span::from_millis(missing.saturating_add(interval));
        Ok(())
    }
}

/// So much at once and so much a second, of which each thing takes its share: a vessel with a hole. Its
/// level is in microseconds until it is empty.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Vessel {
    empty_at: u64,
}

/// A vessel's measures: what runs out of it a second, and how much of that it holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Measures {
    pub(super) a_second: u64,
    pub(super) holds: u64,
}

impl Measures {
    /// The microseconds that so much takes to run out; what does not fit counts as all that fits.
    fn time_of(self, amount: u64) -> u64 {
        let full = self.holds * 1_000_000 / self.a_second;
        full.min(amount * 1_000_000 / self.a_second)
    }

    fn full(self) -> u64 {
        self.time_of(self.holds)
    }
}

impl Vessel {
    fn level(self, now: Moment) -> u64 {
        self.empty_at.saturating_sub(now.as_millis() * 1_000)
    }

    pub(super) fn fits(self, now: Moment, of: Measures, amount: u64) -> bool {
        self.level(now) + of.time_of(amount) <= of.full()
    }

    pub(super) fn pour(&mut self, now: Moment, of: Measures, amount: u64) {
        self.empty_at = now.as_millis() * 1_000 + self.level(now) + of.time_of(amount);
    }

    /// How long until the amount and a quarter of all would fit, in whole milliseconds.
    pub(super) fn wait(self, now: Moment, of: Measures, amount: u64) -> Span {
        let wanted = of.time_of(amount).max(of.full() / 4);
        let over = self.level(now) + wanted - of.full();
        Span::from_millis(over.div_ceil(1_000))
    }
}

impl Conn {
    pub(super) const fn new(
        nonce: Nonce,
        channel: Option<Digest>,
        address: Option<HostAddress>,
        now: Moment,
    ) -> Self {
        Self {
            phase: Phase::Greeting,
            nonce,
            channel,
            was_asked: false,
            owes_proof: false,
            address,
            quiet_since: now,
            pings: 0,
            strikes: 0,
            frames: Vessel { empty_at: 0 },
            bytes: Vessel { empty_at: 0 },
            spilled: Vessel { empty_at: 0 },
            questions: Bucket { full_at: Moment::from_millis(0) },
            waiting: 0,
            reads_history: false,
            catch_up: CatchUp::Idle,
            deadline: None,
        }
    }

    pub(super) const fn online(&self) -> Option<&Online> {
        match &self.phase {
            Phase::Online(online) => Some(online),
            Phase::Greeting
            | Phase::Greeted
            | Phase::Verifying(_)
            | Phase::Reporting
            | Phase::TurnedAway
            | Phase::Closed => None,
        }
    }

    pub(super) const fn is_closed(&self) -> bool {
        matches!(self.phase, Phase::TurnedAway | Phase::Closed)
    }
}

impl Waiting {
    pub(super) const fn conn(&self) -> Option<ConnId> {
        match self {
            Self::Frame { conn, .. }
            | Self::Posted { conn, .. }
            | Self::Question { conn, .. }
            | Self::Close { conn, .. } => Some(*conn),
            Self::Moderated { .. } => None,
        }
    }
}

impl Process {
    pub(super) fn online(&self, conn: ConnId) -> Option<&Online> {
        self.conns.get(&conn)?.online()
    }

    /// Whether a connection that was turned away is to be closed now.
    pub(super) fn stop_waiting(&mut self, conn: ConnId) -> bool {
        let Some(state) = self.conns.get_mut(&conn) else { return false };
        let waits = matches!(state.phase, Phase::TurnedAway);
        if waits {
            state.phase = Phase::Closed;
            self.greeting -= 1;
        }
        waits
    }

    pub(super) fn conn_mut(&mut self, conn: Option<ConnId>) -> Option<&mut Conn> {
        self.conns.get_mut(&conn?)
    }

    /// The connections that speak for a user.
    pub(super) fn conns_of(&self, user: &UserName) -> Vec<ConnId> {
        let speaks = |state: &Conn| state.online().is_some_and(|online| online.user == *user);
        self.conns.iter().filter(|(_, state)| speaks(state)).map(|(conn, _)| *conn).collect()
    }

    pub(super) fn is_serving(&self, conn: ConnId) -> bool {
        self.conns.get(&conn).is_some_and(|conn| !conn.is_closed())
    }

    pub(super) fn is_connected(&self, user: &UserName) -> bool {
        self.presence.get(user).is_some_and(|conns| *conns > 0)
    }

    /// The earliest moment at which something happens by itself.
    pub(super) fn next_due(&self) -> Option<Moment> {
        let firsts = [
            self.deadlines.first().map(|(at, _)| *at),
            self.graces.first().map(|(at, _)| *at),
            self.notices.first().map(|(at, _)| *at),
            self.rests.first().map(|(at, _)| *at),
        ];
        firsts.into_iter().flatten().min()
    }

    pub(super) fn set_deadline(&mut self, conn: ConnId, at: Moment) {
        let Some(state) = self.conns.get_mut(&conn) else { return };
        if let Some(before) = state.deadline.replace(at) {
            self.deadlines.remove(&(before, conn));
        }
        self.deadlines.insert((at, conn));
    }

    pub(super) fn forget(&mut self, conn: ConnId) {
        if let Some(at) = self.conns.remove(&conn).and_then(|state| state.deadline) {
            self.deadlines.remove(&(at, conn));
        }
        self.rests.retain(|(_, resting)| *resting != conn);
    }

    /// A connection follows a room.
    pub(super) fn attend(&mut self, conn: ConnId, room: &RoomName) {
        let Some(Conn { phase: Phase::Online(online), .. }) = self.conns.get_mut(&conn) else {
            return;
        };
        online.rooms.insert(room.clone());
        if !self.sides.contains_key(room) {
            self.sides.insert(room.clone(), Side::default());
        }
        let side = self.sides.get_mut(room).expect("it was just made");
        side.watched = true;
        let place = (online.user.clone(), room.clone());
        self.graces.retain(|(_, absent)| *absent != place);
        if let Some(attendee) = side.users.get_mut(&online.user) {
            attendee.conns.insert(conn);
        } else {
            let attendee = Attendee { conns: BTreeSet::from([conn]), known: false };
            side.users.insert(online.user.clone(), attendee);
        }
    }

    /// A connection follows a room no more; true when its user now does so nowhere.
    pub(super) fn desert(&mut self, conn: ConnId, user: &UserName, room: &RoomName) -> bool {
        let Some(side) = self.sides.get_mut(room) else { return true };
        let Some(attendee) = side.users.get_mut(user) else { return true };
        attendee.conns.remove(&conn);
        if !attendee.conns.is_empty() {
            return false;
        }
        side.known -= u32::from(attendee.known);
        side.users.remove(user);
        true
    }

    /// The join of a user who follows a room is safe: others may know.
    pub(super) fn make_known(&mut self, conn: ConnId, room: &RoomName) {
        let Some(online) = self.conns.get(&conn).and_then(Conn::online) else { return };
        let Some(side) = self.sides.get_mut(room) else { return };
        let Some(attendee) = side.users.get_mut(&online.user) else { return };
        side.known += u32::from(!core::mem::replace(&mut attendee.known, true));
    }
}
