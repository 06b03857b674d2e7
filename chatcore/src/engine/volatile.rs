//! What never leaves the process: connections, who is attached, deadlines, rates.

use std::collections::{BTreeMap, BTreeSet};

use crate::engine::parking::Parking;
use crate::engine::rate::Rate;
use crate::engine::{Need, TimerKind};
use crate::id::{Attach, ConnId, Digest, Generation, Nonce, PublicKey, SessionId, Threshold};
use crate::text::{HostAddress, RoomName, UserName};
use crate::time::Moment;
use crate::wire::{GateState, Login, Order};

/// What never leaves the process.
#[derive(Debug, Default)]
pub(crate) struct Volatile {
    pub(crate) connections: BTreeMap<ConnId, Connection>,
    /// How many of `connections` have not logged in.
    pub(crate) greeting: u32,
    /// How many of `connections` speak for a user.
    pub(crate) online: u32,
    /// Those of `connections` whose log-in waits for this engine to lead.
    pub(crate) parking: Parking,
    /// Which connection speaks for a session.
    pub(crate) sessions: BTreeMap<SessionId, ConnId>,
    /// By which connections each user speaks that speaks at all.
    pub(crate) presence: BTreeMap<UserName, BTreeSet<ConnId>>,
    /// Members that follow their room by no connection, and when each has to be back: a room for
    /// itself, as one who comes back may come back to some only.
    graces: BTreeMap<(UserName, RoomName), Moment>,
    pub(crate) attendance: BTreeMap<RoomName, Attendance>,
    pub(crate) reset_rates: BTreeMap<UserName, Rate>,
    /// Log-ins of sessions that were not known, and of those that were.
    pub(crate) newcomers: Rate,
    pub(crate) returns: Rate,
    timers: BTreeSet<(Moment, TimerKind)>,
    #[cfg(chat_mutants)]
    pub(crate) mutant: Option<crate::mutant::Mutant>,
}

/// One transport connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) phase: Phase,
    pub(crate) nonce: Nonce,
    pub(crate) channel: Option<Digest>,
    pub(crate) proof: Proof,
    /// The generation that it was told last; by its hello, what it signs is bound to that.
    pub(crate) generation: Generation,
    /// The host's address that it came in by.
    pub(crate) address: Option<HostAddress>,
    /// When it was last heard.
    pub(crate) heard: Moment,
    /// Pings sent since.
    pub(crate) pings: u32,
    /// Frames out of order before log-in.
    pub(crate) strikes: u32,
    /// What it has sent.
    pub(crate) frames: Rate,
    pub(crate) bytes: Rate,
    /// Frames that were too many.
    pub(crate) refused: Rate,
    /// What it has asked.
    pub(crate) questions: Rate,
    /// Answers that wait for a commit.
    pub(crate) waiting: u32,
    /// Whether a page of history is being read for it.
    pub(crate) reads_history: bool,
    pub(crate) catch_up: CatchUp,
    /// When its one timer fires.
    timer: Option<Moment>,
}

/// What its shard is having read for a connection that lags: one page at a time, however often the
/// shard asks.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) enum CatchUp {
    /// Nothing.
    #[default]
    Idle,
    /// A page.
    Reading,
    /// A page, and the newest need that came meanwhile is next.
    ReadingBefore(Need),
    /// Nothing until then, as the store could not read: this need, or a newer one, is next.
    Resting { until: Moment, need: Need },
}

/// How far a connection has come.
#[derive(Debug)]
pub(crate) enum Phase {
    /// It has to say hello.
    Greeting,
    /// It has to log in, or to give an order.
    Greeted,
    /// Its proof is being checked.
    Verifying(Box<Claim>),
    /// It may be told what the server is doing; the host has yet to say its part.
    Reporting,
    /// Its log-in is proven, and waits for this engine to lead.
    Parked,
    /// It speaks for a user.
    Online(Online),
    /// It spoke for a user when the chat moved, was told where to, and has some time to leave.
    Moved,
    /// It stands for nobody any more, and is told why once that is safe.
    TurnedAway,
    /// It was told why it closes; the host has yet to report that it is gone.
    Closing,
}

/// Whether the server proved its key to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Proof {
    NotAsked,
    /// The host has to sign it.
    Asked,
    Given,
}

/// What a connection has to prove.
#[derive(Debug)]
pub(crate) enum Claim {
    /// To be a user.
    User(Login, UserName),
    /// To be somebody who may give this order.
    Operator(PublicKey, Order),
}

/// A connection that speaks for a user.
#[derive(Debug)]
pub(crate) struct Online {
    pub(crate) user: UserName,
    pub(crate) session: SessionId,
    pub(crate) attach: Attach,
    /// The rooms it follows.
    pub(crate) rooms: BTreeSet<RoomName>,
    /// Whether it was told that it is logged in: whatever else it is told comes after that.
    pub(crate) welcomed: bool,
}

/// Who of a room is connected.
#[derive(Debug, Default)]
pub(crate) struct Attendance {
    /// The users that follow the room. Each counts once, whatever its connections.
    pub(crate) users: BTreeMap<UserName, Attendee>,
    /// How many of `users` others may know of.
    known: u32,
    /// Members who were waiting when this engine began to lead, and have yet to follow the room again.
    /// Others are shown a gate that counts them, as it did before the chat moved.
    returning: BTreeSet<UserName>,
    /// What was last said of the gate.
    pub(crate) announced: Option<GateState>,
    /// In a crowd: when the next notice may be sent.
    pub(crate) quiet_until: Moment,
    /// Whether a timer for the next notice runs.
    pub(crate) notice_waits: bool,
}

/// How a user follows a room.
#[derive(Debug, Default)]
pub(crate) struct Attendee {
    connections: BTreeSet<ConnId>,
    /// Whether the join is committed: others are not told before.
    known: bool,
}

impl Connection {
    pub(crate) const fn new(
        nonce: Nonce,
        channel: Option<Digest>,
        address: Option<HostAddress>,
        now: Moment,
    ) -> Self {
        Self {
            phase: Phase::Greeting,
            nonce,
            channel,
            proof: Proof::NotAsked,
            generation: Generation::ZERO,
            address,
            heard: now,
            pings: 0,
            strikes: 0,
            frames: Rate::fresh(),
            bytes: Rate::fresh(),
            refused: Rate::fresh(),
            questions: Rate::fresh(),
            waiting: 0,
            reads_history: false,
            catch_up: CatchUp::Idle,
            timer: None,
        }
    }

    pub(crate) const fn online(&self) -> Option<&Online> {
        match &self.phase {
            Phase::Online(online) => Some(online),
            Phase::Greeting
            | Phase::Greeted
            | Phase::Verifying(_)
            | Phase::Reporting
            | Phase::Parked
            | Phase::Moved
            | Phase::TurnedAway
            | Phase::Closing => None,
        }
    }

    const fn is_resting(&self) -> bool {
        matches!(self.catch_up, CatchUp::Resting { .. })
    }

    /// Whether nothing that it sends counts any more.
    pub(crate) const fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Moved | Phase::TurnedAway | Phase::Closing)
    }

    /// Whether it counts as one that has not logged in: also who was turned away, until it is closed.
    pub(crate) const fn is_greeting(&self) -> bool {
        matches!(
            self.phase,
            Phase::Greeting
                | Phase::Greeted
                | Phase::Verifying(_)
                | Phase::Reporting
                | Phase::TurnedAway
        )
    }
}

impl Volatile {
    pub(crate) fn online(&self, conn: ConnId) -> Option<&Online> {
        self.connections.get(&conn)?.online()
    }

    /// How many distinct users of a room are connected.
    pub(crate) fn attending(&self, room: &RoomName) -> u32 {
        let users = self.attendance.get(room).map_or(0, |attendance| attendance.users.len());
        #[cfg(chat_mutants)]
        let users = if mutated!(self, CountConnections) {
            let users = self.attendance.get(room).into_iter().flat_map(|room| room.users.values());
            users.map(|attendee| attendee.connections.len()).sum()
        } else {
            users
        };
        u32::try_from(users).unwrap_or(u32::MAX)
    }

    /// As [`Self::attending`], but what others may know: without those whose join is not committed, and
    /// with those who are about to be back after a move. These never make it look as if enough were
    /// there for the gate to open.
    pub(crate) fn shown_attending(&self, room: &RoomName, threshold: Threshold) -> u32 {
        let Some(Attendance { known, returning, .. }) = self.attendance.get(room) else { return 0 };
        let returning = u32::try_from(returning.len()).unwrap_or(u32::MAX);
        let short = u32::from(threshold.get()).saturating_sub(1);
        known.saturating_add(returning).min(short).max(*known)
    }

    /// A member who is connected is about to follow a room again.
    pub(crate) fn expect(&mut self, user: &UserName, room: &RoomName) {
        let attendance = self.attendance.entry(room.clone()).or_default();
        attendance.returning.insert(user.clone());
    }

    /// A member is not about to follow a room again; whether that is news.
    pub(crate) fn expect_no_more(&mut self, user: &UserName, room: &RoomName) -> bool {
        self.attendance.get_mut(room).is_some_and(|attendance| attendance.returning.remove(user))
    }

    /// How many users are connected, each once.
    pub(crate) fn users_online(&self) -> usize {
        self.presence.len()
    }

    pub(crate) fn is_connected(&self, user: &UserName) -> bool {
        self.presence.contains_key(user)
    }

    /// Makes a connection follow a room.
    pub(crate) fn attend(&mut self, conn: ConnId, room: &RoomName) {
        let Some(Connection { phase: Phase::Online(online), .. }) = self.connections.get_mut(&conn)
        else {
            return;
        };
        online.rooms.insert(room.clone());
        let user = online.user.clone();
        self.end_grace(&user, room);
        let attendance = self.attendance.entry(room.clone()).or_default();
        attendance.users.entry(user).or_default().connections.insert(conn);
    }

    /// The join of a connection that follows a room is committed.
    pub(crate) fn make_known(&mut self, conn: ConnId, room: &RoomName) {
        let Some(user) = self.online(conn).map(|online| online.user.clone()) else { return };
        let Some(attendance) = self.attendance.get_mut(room) else { return };
        let Some(attendee) = attendance.users.get_mut(&user) else { return };
        if !core::mem::replace(&mut attendee.known, true) {
            attendance.known = attendance.known.saturating_add(1);
        }
        attendance.returning.remove(&user);
    }

    /// Makes a connection follow a room no more; true when its user now follows it nowhere.
    pub(crate) fn desert(&mut self, conn: ConnId, room: &RoomName) -> bool {
        let Some(Connection { phase: Phase::Online(online), .. }) = self.connections.get_mut(&conn)
        else {
            return false;
        };
        online.rooms.remove(room);
        let user = online.user.clone();
        let Some(attendance) = self.attendance.get_mut(room) else { return true };
        let Some(attendee) = attendance.users.get_mut(&user) else { return true };
        attendee.connections.remove(&conn);
        if !attendee.connections.is_empty() {
            return false;
        }
        attendance.known = attendance.known.saturating_sub(u32::from(attendee.known));
        attendance.users.remove(&user);
        true
    }

    /// A member follows a room by no connection, and is expected back by then.
    pub(crate) fn begin_grace(&mut self, user: &UserName, room: &RoomName, ends: Moment) {
        self.end_grace(user, room);
        self.graces.insert((user.clone(), room.clone()), ends);
        self.set_timer(ends, TimerKind::Grace(user.clone(), room.clone()));
    }

    /// A user is back in a room, or expected there no more. Harmless when it was not expected.
    pub(crate) fn end_grace(&mut self, user: &UserName, room: &RoomName) {
        let place = (user.clone(), room.clone());
        if let Some(ends) = self.graces.remove(&place) {
            self.timers.remove(&(ends, TimerKind::Grace(place.0, place.1)));
        }
    }

    /// Expects one user back no more, or nobody.
    #[cfg(chat_mutants)]
    pub(crate) fn forget_graces_of(&mut self, user: Option<&UserName>) {
        let concerns = |who: &UserName| user.is_none_or(|user| user == who);
        self.graces.retain(|(who, _), _| !concerns(who));
        self.timers.retain(|(_, kind)| !matches!(kind, TimerKind::Grace(who, _) if concerns(who)));
    }

    pub(crate) fn set_timer(&mut self, at: Moment, kind: TimerKind) {
        self.timers.insert((at, kind));
    }

    /// Sets the one timer of a connection.
    pub(crate) fn set_connection_timer(&mut self, conn: ConnId, at: Moment) {
        let Some(connection) = self.connections.get_mut(&conn) else { return };
        if let Some(before) = connection.timer.replace(at) {
            self.timers.remove(&(before, TimerKind::Connection(conn)));
        }
        self.timers.insert((at, TimerKind::Connection(conn)));
    }

    /// Takes from all connections what they stand for, and gives back what each was. Those that spoke
    /// for a user have until then to leave; all others are closing now.
    pub(crate) fn retire(&mut self, leave_by: Moment) -> Vec<(ConnId, Phase)> {
        #[cfg(chat_mutants)]
        let mutant = self.mutant;
        let before = core::mem::take(self);
        #[cfg(chat_mutants)]
        {
            self.mutant = mutant;
        }
        let mut phases = Vec::with_capacity(before.connections.len());
        for (conn, mut connection) in before.connections {
            let ends = match &connection.phase {
                Phase::Online(_) => Some(leave_by),
                Phase::Moved => connection.timer,
                Phase::Greeting
                | Phase::Greeted
                | Phase::Verifying(_)
                | Phase::Reporting
                | Phase::Parked
                | Phase::TurnedAway
                | Phase::Closing => None,
            };
            let next = if ends.is_some() { Phase::Moved } else { Phase::Closing };
            phases.push((conn, core::mem::replace(&mut connection.phase, next)));
            (connection.timer, connection.waiting, connection.reads_history) = (None, 0, false);
            connection.catch_up = CatchUp::Idle;
            self.connections.insert(conn, connection);
            ends.into_iter().for_each(|at| self.set_connection_timer(conn, at));
        }
        phases
    }

    /// Has a connection's log-in wait. Gives back who waited for the same session, and closes now.
    pub(crate) fn park(&mut self, conn: ConnId, name: UserName, login: Login) -> Option<ConnId> {
        let connection = self.connections.get_mut(&conn)?;
        if connection.is_greeting() {
            self.greeting = self.greeting.saturating_sub(1);
        }
        connection.phase = Phase::Parked;
        let before = self.parking.enter(conn, name, login)?;
        if let Some(connection) = self.connections.get_mut(&before) {
            connection.phase = Phase::Closing;
        }
        Some(before)
    }

    /// A connection was told that it is logged in; whether it still is.
    pub(crate) fn set_welcomed(&mut self, conn: ConnId) -> bool {
        let Some(Connection { phase: Phase::Online(online), .. }) = self.connections.get_mut(&conn)
        else {
            return false;
        };
        online.welcomed = true;
        true
    }

    /// The connections that were told that they are logged in.
    pub(crate) fn welcomed(&self) -> Vec<ConnId> {
        let is_welcome =
            |connection: &Connection| connection.online().is_some_and(|online| online.welcomed);
        let all = self.connections.iter().filter(|(_, connection)| is_welcome(connection));
        all.map(|(conn, _)| *conn).collect()
    }

    /// Expects nobody back.
    pub(crate) fn forget_graces(&mut self) {
        self.graces.clear();
        self.timers.retain(|(_, kind)| !matches!(kind, TimerKind::Grace(..)));
    }

    /// Forgets a connection that is gone.
    pub(crate) fn forget(&mut self, conn: ConnId) {
        let Some(connection) = self.connections.remove(&conn) else { return };
        if let Some(at) = connection.timer {
            self.timers.remove(&(at, TimerKind::Connection(conn)));
        }
        if let CatchUp::Resting { until, .. } = connection.catch_up {
            self.timers.remove(&(until, TimerKind::CatchUp(conn)));
        }
    }

    pub(crate) fn next_timer(&self) -> Option<Moment> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Takes a timer that is due.
    pub(crate) fn take_timer(&mut self, now: Moment) -> Option<TimerKind> {
        let (at, _) = self.timers.first()?;
        if *at > now {
            return None;
        }
        self.timers.pop_first().map(|(_, kind)| kind)
    }

    /// The whole-state check.
    ///
    /// # Panics
    /// When a rule is broken.
    pub(crate) fn check(&self) {
        self.check_counts();
        self.check_attendance();
        self.parking.check();
        for (session, conn) in &self.sessions {
            let online = self.online(*conn).expect("a session's connection must be online");
            assert_eq!(online.session, *session, "a session must speak through one connection");
        }
        for (user, connections) in &self.presence {
            assert!(!connections.is_empty(), "a user is present by a connection");
            for conn in connections {
                let online = self.online(*conn).expect("a present connection must be online");
                assert_eq!(online.user, *user, "a connection must speak for its user");
            }
        }
        for ((user, room), ends) in &self.graces {
            let timer = (*ends, TimerKind::Grace(user.clone(), room.clone()));
            assert!(self.timers.contains(&timer), "a grace must end");
        }
    }

    /// Whether nobody speaks for a user, follows a room or is expected back: so it is before and after an
    /// engine leads.
    pub(crate) fn is_idle(&self) -> bool {
        let (nobody, nowhere) = (self.presence.is_empty(), self.attendance.is_empty());
        self.online == 0 && self.sessions.is_empty() && nobody && nowhere && self.graces.is_empty()
    }

    /// Whether a member follows the room or is expected back: one of both.
    pub(crate) fn accounts_for(&self, user: &UserName, room: &RoomName) -> bool {
        let attends = self.attendance.get(room).is_some_and(|room| room.users.contains_key(user));
        attends != self.graces.contains_key(&(user.clone(), room.clone()))
    }

    fn check_counts(&self) {
        let greeting = self.connections.values().filter(|conn| conn.is_greeting()).count();
        assert_eq!(Ok(self.greeting), u32::try_from(greeting), "greeting connections must count");
        let online = self.connections.values().filter(|conn| conn.online().is_some()).count();
        assert_eq!(Ok(self.online), u32::try_from(online), "connections of users must count");
        let parked = |conn: &&Connection| matches!(conn.phase, Phase::Parked);
        let parked = self.connections.values().filter(parked).count();
        assert_eq!(Ok(self.parking.len()), u32::try_from(parked), "who waits must count");
        let resting = self.connections.values().filter(|conn| conn.is_resting()).count();
        let owners = [self.connections.len(), self.graces.len(), self.attendance.len(), resting];
        let timers_max = owners.into_iter().sum();
        assert!(self.timers.len() <= timers_max, "timers must be at most one each");
    }

    fn check_attendance(&self) {
        for (room, attendance) in &self.attendance {
            let known = attendance.users.values().filter(|attendee| attendee.known).count();
            assert_eq!(Ok(attendance.known), u32::try_from(known), "known users must count");
            for user in &attendance.returning {
                let known = attendance.users.get(user).is_some_and(|attendee| attendee.known);
                assert!(!known, "who is back is not about to be");
                assert!(self.accounts_for(user, room), "who is about to be back is a member");
                assert!(self.is_connected(user), "who is about to be back is connected");
            }
            for (user, attendee) in &attendance.users {
                assert!(!attendee.connections.is_empty(), "a user attends by a connection");
                for conn in &attendee.connections {
                    let online = self.online(*conn).expect("an attending one must be online");
                    let both = online.user == *user && online.rooms.contains(room);
                    assert!(both, "attendance must agree both ways");
                }
            }
        }
    }
}
