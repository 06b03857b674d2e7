//! Connections from accept to gone: hello, log-in, silence, presence.

use std::collections::BTreeSet;

use chatcore::engine::{Directive, Event, Output};
use chatcore::id::{ConnId, Index, RequestId, SessionId, Signature};
use chatcore::log::{Change, CommandId, Moderator, OperatorRule};
use chatcore::text::UserName;
use chatcore::time::{Moment, Span};
use chatcore::wire::{
    Answer, AuthFault, ClientFrame, ClientHello, Command, ExpelFault, LimitFault, Login, Measure,
    NameFault, Notice, Question, Refusal, ServerFrame, ServerHello, StateFault, VersionRange,
    Welcome,
};

use super::Model;
use super::due::What;
use super::presence::{Claim, Conn, Measures, Online, Phase, Proof, Store, Waiting};
use super::truth::{to_u32, to_u64};

/// The third frame out of order before log-in closes the connection.
const STRIKES_MAX: u32 = 3;

/// What a full server asks clients to wait.
pub(super) const BUSY: Refusal = Refusal::Busy { retry_ms: Span::from_secs(1) };

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// It broke, or was closed: its user has the grace to come back.
    Lost,
    /// Its user quit.
    Quit,
}

impl Model {
    pub(super) fn connected(&mut self, conn: ConnId, state: Conn, waited: Span) {
        let (limits, process) = (&self.limits, &mut self.process);
        let share = u64::from(limits.connections_max) * u64::from(limits.greeting_percent);
        let full = process.greeting + process.online >= limits.connections_max
            || u64::from(process.greeting) >= share.div_ceil(100);
        process.conns.insert(conn, state);
        process.greeting += 1;
        if process.stopping {
            self.close(conn, Refusal::Gone);
        } else if full {
            self.close(conn, BUSY);
        } else {
            let deadline = self.now.moment + limits.login_time.saturating_sub(waited);
            process.set_deadline(conn, deadline);
        }
    }

    pub(super) fn frame(&mut self, conn: ConnId, frame: &ClientFrame) {
        let Some(state) = self.process.conns.get_mut(&conn) else { return };
        state.quiet_since = self.now.moment;
        state.pings = 0;
        match (&state.phase, frame) {
            (Phase::TurnedAway | Phase::Closed, _) => {}
            (Phase::Online(_), frame) => self.online_frame(conn, frame),
            (Phase::Greeting, ClientFrame::Hello(hello)) => self.hello(conn, hello),
            (Phase::Greeted, ClientFrame::Login(login)) => self.login(conn, login),
            // PROTOCOL.md has pings in order after `welcome` only; whoever waits for a slow store
            // to be welcomed is answered all the same.
            (
                Phase::Greeted | Phase::Verifying(_) | Phase::Reporting,
                ClientFrame::Ping { token },
            ) => self.due.send(conn, ServerFrame::Pong { token: *token }),
            (Phase::Greeted, ClientFrame::Operate(operate)) => self.operate(conn, operate),
            (Phase::Greeted, ClientFrame::Prove { nonce }) if !state.was_asked => {
                state.was_asked = true;
                state.owes_proof = true;
                let bound = self.bound_to(conn);
                let message = [&b"chatcore server v1\0"[..], nonce.as_bytes(), &bound].concat();
                self.due.sign = Some(Output::Sign { conn, message });
            }
            (Phase::Greeting | Phase::Greeted | Phase::Verifying(_) | Phase::Reporting, frame) => {
                self.strike(conn, frame);
            }
        }
    }

    fn online_frame(&mut self, conn: ConnId, frame: &ClientFrame) {
        if *frame != ClientFrame::Leave && self.spills(conn, frame) {
            return;
        }
        match frame {
            ClientFrame::Hello(_)
            | ClientFrame::Login(_)
            | ClientFrame::Operate(_)
            | ClientFrame::Prove { .. } => {
                let refusal = Refusal::State(StateFault::AlreadyLoggedIn);
                self.due.send(conn, ServerFrame::Rejected(refusal));
            }
            ClientFrame::Submit { counter, command } => self.submit(conn, *counter, command),
            ClientFrame::Ask { request, question } => self.ask(conn, *request, question),
            ClientFrame::Ping { token } => {
                self.due.send(conn, ServerFrame::Pong { token: *token });
            }
            ClientFrame::Pong { .. } => {}
            ClientFrame::Leave => {
                self.detach(conn, Ending::Quit);
                self.tell_close(conn, None);
            }
        }
    }

    /// Whether a frame is more than the connection may send now, and what comes of that.
    fn spills(&mut self, conn: ConnId, frame: &ClientFrame) -> bool {
        let (now, limits) = (self.now.moment, &self.limits);
        let of_frames = measures(limits.frames_per_second, limits.frames_burst);
        let of_bytes = Measures { a_second: limits.bytes_per_second, holds: limits.bytes_burst };
        let bytes = 32 + texts_of(frame);
        let Some(state) = self.process.conns.get_mut(&conn) else { return false };
        let mut wait = Span::ZERO;
        if !state.frames.fits(now, of_frames, 1) {
            wait = state.frames.wait(now, of_frames, 1);
        }
        if !state.bytes.fits(now, of_bytes, bytes) {
            wait = wait.max(state.bytes.wait(now, of_bytes, bytes));
        }
        if wait == Span::ZERO {
            state.frames.pour(now, of_frames, 1);
            state.bytes.pour(now, of_bytes, bytes);
            return false;
        }
        if !state.spilled.fits(now, of_frames, 1) {
            self.close(conn, Refusal::Limit(LimitFault::Flood));
            return true;
        }
        state.spilled.pour(now, of_frames, 1);
        let late = Refusal::Rate { retry_ms: wait };
        match frame {
            ClientFrame::Submit { counter, command: Command::Reset { .. } } => {
                let refusal = Refusal::Busy { retry_ms: wait };
                self.due.send(conn, ServerFrame::Refused { counter: *counter, refusal });
            }
            ClientFrame::Submit { counter, .. } => {
                self.due.send(conn, ServerFrame::Refused { counter: *counter, refusal: late });
            }
            ClientFrame::Ask { request, .. } => {
                let answer = Answer::Refused(late);
                self.due.send(conn, ServerFrame::Answer { request: *request, answer });
            }
            ClientFrame::Hello(_)
            | ClientFrame::Login(_)
            | ClientFrame::Operate(_)
            | ClientFrame::Prove { .. }
            | ClientFrame::Ping { .. }
            | ClientFrame::Pong { .. }
            | ClientFrame::Leave => {}
        }
        true
    }

    /// What one of too many is told: between one and five seconds, as its nonce says.
    fn come_again(&self, conn: ConnId) -> Refusal {
        let nonce = self.process.conns.get(&conn).map(|state| state.nonce);
        let nonce = nonce.expect("who logs in has a connection");
        let drawn =
            nonce.as_bytes()[..8].iter().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
        Refusal::Busy { retry_ms: Span::from_millis(1_000 + drawn % 4_000) }
    }

    fn strike(&mut self, conn: ConnId, frame: &ClientFrame) {
        let refusal = Refusal::State(StateFault::LogInFirst);
        let Some(state) = self.process.conns.get_mut(&conn) else { return };
        state.strikes += 1;
        if state.strikes >= STRIKES_MAX {
            return self.close(conn, refusal);
        }
        let reply = match frame {
            ClientFrame::Submit { counter, .. } => {
                ServerFrame::Refused { counter: *counter, refusal }
            }
            ClientFrame::Ask { request, .. } => {
                ServerFrame::Answer { request: *request, answer: Answer::Refused(refusal) }
            }
            ClientFrame::Hello(_)
            | ClientFrame::Login(_)
            | ClientFrame::Ping { .. }
            | ClientFrame::Pong { .. }
            | ClientFrame::Leave
            | ClientFrame::Operate(_)
            | ClientFrame::Prove { .. } => ServerFrame::Rejected(refusal),
        };
        self.due.send(conn, reply);
    }

    fn hello(&mut self, conn: ConnId, hello: &ClientHello) {
        let ours = VersionRange::SUPPORTED;
        let version = ours.max.min(hello.versions.max);
        if version < ours.min.max(hello.versions.min) {
            return self.close(conn, Refusal::Version(ours));
        }
        let Some(state) = self.process.conns.get_mut(&conn) else { return };
        state.phase = Phase::Greeted;
        let reply = ServerHello {
            version,
            features: 0,
            server_key: self.founding.server_key,
            log_id: self.founding.log_id,
            generation: self.generation,
            nonce: state.nonce,
        };
        self.due.send(conn, ServerFrame::Hello(reply));
    }

    fn login(&mut self, conn: ConnId, login: &Login) {
        let user = match login.name.parse() {
            Ok(user) => user,
            Err(error) => return self.close(conn, Refusal::Name(NameFault::Bad(error))),
        };
        if !self.facts.sessions.contains_key(&login.session) {
            let (now, limits) = (self.now.moment, &self.limits);
            let of = measures(limits.logins_per_second, limits.logins_burst);
            if !self.process.newcomers.fits(now, of, 1) {
                return self.close(conn, self.come_again(conn));
            }
            self.process.newcomers.pour(now, of, 1);
        }
        let message = self.proof_of(conn, login);
        let (key, session, attach) = (login.key, login.session, login.attach);
        let Some(state) = self.process.conns.get_mut(&conn) else { return };
        state.phase = Phase::Verifying(Proof::User(Claim { user, key, session, attach }));
        let signature = login.signature;
        self.due.verify = Some(Output::Verify { conn, key, message, signature });
    }

    /// The bytes that a log-in signs: the table in section 5 of the protocol.
    fn proof_of(&self, conn: ConnId, login: &Login) -> Vec<u8> {
        let attach = login.attach.get().to_be_bytes();
        [
            &b"chatcore log-in v1\0"[..],
            &self.bound_to(conn),
            login.session.as_bytes(),
            &attach,
            login.name.as_str().as_bytes(),
        ]
        .concat()
    }

    /// What binds a proof to one connection to this server.
    pub(super) fn bound_to(&self, conn: ConnId) -> Vec<u8> {
        let Some(state) = self.process.conns.get(&conn) else { return Vec::new() };
        let channel = match &state.channel {
            None => vec![0],
            Some(exporter) => [&[1][..], exporter.as_bytes()].concat(),
        };
        [
            &state.nonce.as_bytes()[..],
            self.founding.server_key.as_bytes(),
            self.founding.log_id.as_bytes(),
            &self.generation.get().to_be_bytes(),
            &channel,
        ]
        .concat()
    }

    /// The server's key has signed.
    pub(super) fn signed(&mut self, conn: ConnId, signature: Signature) {
        let Some(state) = self.process.conns.get_mut(&conn) else { return };
        let is_closed = state.is_closed();
        if core::mem::take(&mut state.owes_proof) && !is_closed {
            self.due.send(conn, ServerFrame::Proof { signature });
        }
    }

    pub(super) fn verified(&mut self, conn: ConnId, valid: bool) {
        let Some(state) = self.process.conns.get_mut(&conn) else { return };
        let Phase::Verifying(proof) = &state.phase else { return };
        let proof = proof.clone();
        if !valid {
            return self.close(conn, Refusal::Auth(AuthFault::Signature));
        }
        let claim = match proof {
            Proof::User(claim) => claim,
            Proof::Right(key, order) => return self.obey(conn, key, order),
        };
        let each = to_u64(self.limits.unread_bytes_max) + (64 << 10);
        let taken = u64::from(self.process.greeting) * (8 << 10)
            + u64::from(self.process.online + 1) * each;
        if taken > self.limits.memory_max - self.limits.memory_max / 10 {
            return self.close(conn, self.come_again(conn));
        }
        if self.facts.sessions.contains_key(&claim.session) {
            let (now, limits) = (self.now.moment, &self.limits);
            let of = measures(limits.returns_per_second, limits.returns_burst);
            if !self.process.returns.fits(now, of, 1) {
                return self.close(conn, self.come_again(conn));
            }
            self.process.returns.pour(now, of, 1);
        }
        if self.is_crowded(conn) {
            return self.close(conn, BUSY);
        }
        match self.decide_login(&claim).and_then(|changes| self.admit_changes(changes)) {
            Ok(changes) => self.log_in(conn, claim, changes),
            Err(refusal @ (Refusal::Name(_) | Refusal::Expelled(_))) => {
                let index = self.basis_of_name(&claim);
                self.turn_away(conn);
                self.when_safe(index, Waiting::Close { conn, refusal });
            }
            Err(refusal) => self.close(conn, refusal),
        }
    }

    /// Where it is said whose the name and the key of a claim are.
    fn basis_of_name(&self, claim: &Claim) -> Index {
        let alike = |user: &UserName| user.skeleton() == claim.user.skeleton();
        let owned = self.facts.keys.get(&claim.key);
        self.basis(|change| {
            matches!(change, Change::UserAdded { user, key } if *key == claim.key || alike(user))
                || matches!(change, Change::Moderated { user, .. }
                    if Some(user) == owned || alike(user))
        })
    }

    /// A connection stands for nobody any more, and hears why later.
    pub(super) fn turn_away(&mut self, conn: ConnId) {
        self.detach(conn, Ending::Lost);
        if let Some(state) = self.process.conns.get_mut(&conn) {
            state.phase = Phase::TurnedAway;
            self.process.greeting += 1;
        }
    }

    /// What a proven log-in appends, or why it is refused, as section 5 of the protocol orders it.
    fn decide_login(&self, claim: &Claim) -> Result<Vec<Change>, Refusal> {
        let mut changes = Vec::new();
        if self.facts.users.values().any(|user| user.banned && user.key == claim.key) {
            return Err(Refusal::Expelled(ExpelFault::Banned));
        }
        match self.facts.users.get(&claim.user) {
            Some(user) if user.key != claim.key => return Err(Refusal::Name(NameFault::InUse)),
            Some(_) => {}
            None => self.decide_new_user(claim, &mut changes)?,
        }
        match self.facts.sessions.get(&claim.session) {
            Some(session) if session.user != claim.user => {
                return Err(Refusal::Auth(AuthFault::Session));
            }
            Some(_) => {
                let speaker = self.process.speakers.get(&claim.session);
                let speaker = speaker.and_then(|conn| self.process.online(*conn));
                if speaker.is_some_and(|speaker| speaker.attach > claim.attach) {
                    return Err(Refusal::Auth(AuthFault::Replaced));
                }
            }
            None => {
                if let Some(session) = self.decide_expiry(&claim.user)? {
                    changes.push(Change::SessionExpired { session });
                }
                let (session, user) = (claim.session, claim.user.clone());
                changes.push(Change::SessionOpened { session, user });
            }
        }
        Ok(changes)
    }

    fn decide_new_user(&self, claim: &Claim, changes: &mut Vec<Change>) -> Result<(), Refusal> {
        if self.facts.keys.contains_key(&claim.key) {
            return Err(Refusal::Name(NameFault::KeyHasName));
        }
        if self.facts.looks.contains(&claim.user.skeleton()) {
            return Err(Refusal::Name(NameFault::TooSimilar));
        }
        if to_u32(self.facts.users.len()) >= self.limits.users_max {
            return Err(Refusal::Limit(LimitFault::Users));
        }
        changes.push(Change::UserAdded { user: claim.user.clone(), key: claim.key });
        let rules = &self.founding.operators;
        let first = rules.is_empty() && self.facts.users.is_empty();
        let named = rules.iter().any(|rule| match rule {
            OperatorRule::Name(name) => *name == claim.user,
            OperatorRule::Key(key) => *key == claim.key,
        });
        if first || named {
            changes.push(Change::OperatorGranted { user: claim.user.clone() });
        }
        Ok(())
    }

    /// Which session ends so that one more has room.
    fn decide_expiry(&self, user: &UserName) -> Result<Option<SessionId>, Refusal> {
        let of_user = self.facts.users.get(user).map(|user| &user.sessions);
        let count = of_user.map_or(0, |sessions| to_u32(sessions.len()));
        if count >= self.limits.sessions_per_user_max {
            let oldest = self.expirable(of_user.into_iter().flatten());
            return oldest.map(Some).ok_or(Refusal::Limit(LimitFault::SessionsOfUser));
        }
        if to_u32(self.facts.sessions.len()) >= self.limits.sessions_max {
            return self.expirable(self.facts.sessions.keys()).map(Some).ok_or(BUSY);
        }
        Ok(None)
    }

    /// The least recently used of these that is old enough and not connected.
    fn expirable<'a>(&self, ids: impl Iterator<Item = &'a SessionId>) -> Option<SessionId> {
        let (at, age_min) = (self.entry_time().get(), self.limits.session_age_min.as_millis());
        let idle = ids.filter(|id| !self.process.speakers.contains_key(id));
        let by_use = idle.filter_map(|id| Some((self.facts.sessions.get(id)?.used, *id)));
        let oldest = by_use.min()?;
        (at.saturating_sub(oldest.0.get()) >= age_min).then_some(oldest.1)
    }

    fn log_in(&mut self, conn: ConnId, claim: Claim, changes: Vec<Change>) {
        let Claim { user, session, attach, .. } = claim;
        let granted = changes.iter().any(|change| matches!(change, Change::OperatorGranted { .. }));
        changes.into_iter().for_each(|change| self.append(change));
        let before = self.process.speakers.insert(session, conn);
        self.attach(conn, Online { user: user.clone(), session, attach, rooms: BTreeSet::new() });
        if let Some(before) = before {
            self.close(before, Refusal::Auth(AuthFault::Replaced));
        }
        self.welcome(conn, user.clone(), session);
        if granted && self.founding.operators.is_empty() {
            self.reply(conn, ServerFrame::Notice(Notice::FirstUserIsOperator));
        }
        self.due.events.push(Event::LoggedIn { conn, user });
    }

    fn welcome(&mut self, conn: ConnId, user: UserName, session: SessionId) {
        let state = self.facts.sessions.get(&session).expect("who logs in has a session");
        let (mut last_counter, opened) = (state.last, state.opened);
        if self.process.store == Store::Full {
            // Nobody is told yet of commands whose answer a full store keeps back.
            let commands = self.uncommitted.iter().filter_map(|entry| command_of(&entry.change));
            let kept_back = commands.filter(|command| command.session == session).count();
            last_counter = last_counter.saturating_sub(to_u64(kept_back));
        }
        let operator = self.is_operator(&user);
        let index = self.basis(|change| {
            matches!(change, Change::SessionOpened { session: opened, .. } if *opened == session)
                || matches!(change, Change::Moderated { user: who, measure, .. }
                    if *who == user && *measure != Measure::Kick)
        });
        let address = self.process.conns.get(&conn).and_then(|conn| conn.address.clone());
        let welcome = Welcome { user, session, last_counter, opened, operator, address };
        let frame = ServerFrame::Welcome(welcome);
        self.when_safe(index, Waiting::Frame { conn, frame });
    }

    fn attach(&mut self, conn: ConnId, online: Online) {
        let now = self.now.moment;
        let process = &mut self.process;
        let Some(state) = process.conns.get_mut(&conn) else { return };
        *process.presence.entry(online.user.clone()).or_default() += 1;
        state.phase = Phase::Online(online);
        state.quiet_since = now;
        process.greeting -= 1;
        process.online += 1;
        process.set_deadline(conn, now + self.limits.ping_interval);
    }

    pub(super) fn disconnected(&mut self, conn: ConnId) {
        self.detach(conn, Ending::Lost);
        self.process.forget(conn);
    }

    /// Closes a connection, unless that is done.
    pub(super) fn close(&mut self, conn: ConnId, refusal: Refusal) {
        if self.process.is_serving(conn) {
            self.detach(conn, Ending::Lost);
            self.tell_close(conn, Some(refusal));
        } else if self.process.stop_waiting(conn) {
            self.tell_close(conn, Some(refusal));
        }
    }

    pub(super) fn tell_close(&mut self, conn: ConnId, refusal: Option<Refusal>) {
        self.due.must(What::Exactly(Directive::Close { conn, refusal }));
        self.due.events.push(Event::Closed { conn, refusal });
    }

    /// Takes from a connection everything it stood for.
    pub(super) fn detach(&mut self, conn: ConnId, how: Ending) {
        let Some(state) = self.process.conns.get_mut(&conn) else { return };
        match core::mem::replace(&mut state.phase, Phase::Closed) {
            Phase::Closed => {}
            Phase::Greeting
            | Phase::Greeted
            | Phase::Verifying(_)
            | Phase::Reporting
            | Phase::TurnedAway => {
                self.process.greeting -= 1;
            }
            Phase::Online(online) => {
                self.process.online -= 1;
                self.depart(conn, online, how);
            }
        }
    }

    fn depart(&mut self, conn: ConnId, online: Online, how: Ending) {
        let Online { user, session, mut rooms, .. } = online;
        if self.process.speakers.get(&session) == Some(&conn) {
            self.process.speakers.remove(&session);
        }
        self.touched.extend(rooms.iter().cloned());
        rooms.retain(|room| self.process.desert(conn, &user, room));
        let Some(conns) = self.process.presence.get_mut(&user) else { return };
        *conns -= 1;
        let is_last = *conns == 0;
        match how {
            Ending::Lost => {
                let ends = self.now.moment + self.limits.grace;
                let absences = rooms.into_iter().map(|room| (ends, (user.clone(), room)));
                self.process.graces.extend(absences);
            }
            Ending::Quit if is_last => self.vanish(&user),
            Ending::Quit => rooms.iter().for_each(|room| self.leave(room, &user)),
        }
    }

    /// A user leaves every room, those that it was expected back in as well.
    pub(super) fn vanish(&mut self, user: &UserName) {
        self.process.graces.retain(|(_, (absent, _))| absent != user);
        let rooms = self.facts.users.get(user).map(|user| user.rooms.clone()).unwrap_or_default();
        rooms.iter().for_each(|room| self.leave(room, user));
    }

    pub(super) fn timeout(&mut self) {
        let now = self.now.moment;
        while let Some((_, conn)) = self.process.rests.pop_first_if(now) {
            self.read_on(conn);
        }
        while let Some((_, conn)) = self.process.deadlines.pop_first_if(now) {
            self.look_at(conn);
        }
        while let Some((_, (user, room))) = self.process.graces.pop_first_if(now) {
            self.leave(&room, &user);
        }
        while let Some((_, room)) = self.process.notices.pop_first_if(now) {
            if let Some(side) = self.process.sides.get_mut(&room) {
                side.notice_waits = false;
            }
            self.touched.push(room);
        }
    }

    /// The log-in of a connection is late, or it may have fallen silent.
    fn look_at(&mut self, conn: ConnId) {
        let now = self.now.moment;
        let Some(state) = self.process.conns.get_mut(&conn) else { return };
        match state.phase {
            Phase::Closed => {}
            // Whatever it waits to be told takes too long to be safe.
            Phase::TurnedAway => self.close(conn, BUSY),
            Phase::Greeting | Phase::Greeted | Phase::Verifying(_) | Phase::Reporting => {
                self.close(conn, Refusal::Limit(LimitFault::LoginTime));
            }
            Phase::Online(_) => {
                let silent_at = state.quiet_since + self.limits.ping_interval;
                if now < silent_at {
                    return self.process.set_deadline(conn, silent_at);
                }
                if state.pings >= self.limits.pings_unanswered_max {
                    // Which comes first when both are late, the close or the read, is all one.
                    self.due.need_not_read(conn);
                    return self.close(conn, Refusal::Limit(LimitFault::Silence));
                }
                state.pings += 1;
                state.quiet_since = now;
                self.process.set_deadline(conn, now + self.limits.ping_interval);
                self.due.send(conn, ServerFrame::Ping { token: RequestId::ZERO });
            }
        }
    }

    pub(super) fn stop(&mut self) {
        self.process.stopping = true;
        let conns: Vec<ConnId> = self.process.conns.keys().copied().collect();
        conns.into_iter().for_each(|conn| self.close(conn, Refusal::Gone));
    }
}

/// The command that an entry answers, if any.
const fn command_of(change: &Change) -> Option<&CommandId> {
    match change {
        Change::Posted { command, .. }
        | Change::Refused { command, .. }
        | Change::Reset { command, .. }
        | Change::Moderated { by: Moderator::Operator { command, .. }, .. } => Some(command),
        Change::Founded(_)
        | Change::UserAdded { .. }
        | Change::OperatorGranted { .. }
        | Change::SessionOpened { .. }
        | Change::SessionExpired { .. }
        | Change::RoomCreated { .. }
        | Change::Joined { .. }
        | Change::Left { .. }
        | Change::GateOpened { .. }
        | Change::Trimmed { .. }
        | Change::Moderated { by: Moderator::Server, .. } => None,
    }
}

/// Timers that are due.
trait PopDue<T> {
    /// Takes the first that is due.
    fn pop_first_if(&mut self, now: Moment) -> Option<(Moment, T)>;
}

impl<T: Ord> PopDue<T> for BTreeSet<(Moment, T)> {
    fn pop_first_if(&mut self, now: Moment) -> Option<(Moment, T)> {
        if self.first()?.0 > now {
            return None;
        }
        self.pop_first()
    }
}

fn measures(a_second: u32, holds: u32) -> Measures {
    Measures { a_second: a_second.into(), holds: holds.into() }
}

/// The bytes of all texts in a frame.
fn texts_of(frame: &ClientFrame) -> u64 {
    let texts: &[&str] = match frame {
        ClientFrame::Submit { command: Command::Post { room, body, .. }, .. } => {
            &[room.as_str(), body.as_str()]
        }
        ClientFrame::Submit { command: Command::Reset { room, .. }, .. }
        | ClientFrame::Ask {
            question:
                Question::Join { room, .. }
                | Question::Part { room }
                | Question::Who { room }
                | Question::History { room, .. },
            ..
        } => &[room.as_str()],
        ClientFrame::Ask { question: Question::Whois { room, user }, .. } => {
            &[room.as_str(), user.as_str()]
        }
        ClientFrame::Submit { command: Command::Moderate { user, .. }, .. } => &[user.as_str()],
        ClientFrame::Login(login) => &[login.name.as_str()],
        ClientFrame::Ask { question: Question::Rooms, .. }
        | ClientFrame::Hello(_)
        | ClientFrame::Operate(_)
        | ClientFrame::Prove { .. }
        | ClientFrame::Ping { .. }
        | ClientFrame::Pong { .. }
        | ClientFrame::Leave => &[],
    };
    texts.iter().map(|text| to_u64(text.len())).sum()
}
