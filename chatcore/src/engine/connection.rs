//! From accept to log-in to gone: connections, sessions, presence.

use crate::engine::commit::Pending;
use crate::engine::durable::User;
use crate::engine::rate::Allowance;
use crate::engine::volatile::{Claim, Connection, Online, Phase, Proof};
use crate::engine::{Directive, Duty, Engine, Event, Misuse, Output, TimerKind};
use crate::id::{ConnId, Counter, Index, Nonce, RequestId, SessionId, Signature};
use crate::limits::LONGEST_FRAME_BYTES;
use crate::log::Change;
use crate::text::{RoomName, UserName};
use crate::time::{Moment, Now, Span, Timestamp};
use crate::wire::{
    Answer, AuthFault, ClientFrame, ClientHello, ExpelFault, FRAME_BYTES_MAX, LimitFault, Login,
    LoginProof, Measure, NameFault, Notice, Refusal, ServerFrame, ServerHello, ServerProof,
    StateFault, VersionRange, Welcome,
};

/// Frames out of order that a connection may send before log-in; the third closes it.
const STRIKES_MAX: u32 = 3;

/// What a client is told to wait when the server is full.
const BUSY_RETRY: Span = Span::from_secs(1);

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Departure {
    /// It broke: its user has the grace to come back to the rooms that it followed.
    Lost,
    /// Its user quit.
    Quit,
}

const _: () =
    assert!(FRAME_BYTES_MAX == LONGEST_FRAME_BYTES, "memory is reserved for the longest frame");

/// The shortest wait of a client whose log-in is one of too many, and what is added at most.
const RETURN_MIN: Span = Span::from_secs(1);
const RETURN_SPREAD: Span = Span::from_secs(4);

/// A connection sent more than it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Excess {
    /// It has to wait.
    Slow(Span),
    /// It was told so, and goes on all the same.
    Flood,
}

impl Engine {
    pub(super) fn handle_connected(
        &mut self,
        now: Now,
        conn: ConnId,
        connection: Connection,
        waited: Span,
    ) -> Result<(), Misuse> {
        if self.volatile.connections.contains_key(&conn) {
            return Err(Misuse::ConnectionReused(conn));
        }
        // Those that are being closed take no slot: whoever is refused and lingers would otherwise
        // keep out those who have logged in before.
        let serving = self.volatile.greeting.saturating_add(self.volatile.online);
        let serving = serving.saturating_add(self.volatile.parking.len());
        let limits = &self.config.limits;
        let full =
            serving >= limits.connections_max || self.volatile.greeting >= limits.greeting_max();
        self.volatile.connections.insert(conn, connection);
        self.volatile.greeting = self.volatile.greeting.saturating_add(1);
        if self.stopping {
            self.close(now, conn, Some(Refusal::Gone));
        } else if let Duty::Retired { owner } = &self.duty {
            let moved = ServerFrame::Moved(owner.clone());
            self.send(conn, moved);
            self.close(now, conn, Some(Refusal::Gone));
        } else if full {
            self.close(now, conn, Some(Refusal::Busy { retry_ms: BUSY_RETRY }));
        } else {
            let left = self.config.limits.login_time.saturating_sub(waited);
            let deadline = now.moment + left;
            self.volatile.set_connection_timer(conn, deadline);
        }
        Ok(())
    }

    pub(super) fn handle_disconnected(&mut self, now: Now, conn: ConnId) -> Result<(), Misuse> {
        self.known(conn)?;
        self.lose(now, conn);
        self.volatile.forget(conn);
        Ok(())
    }

    pub(super) fn handle_frame(
        &mut self,
        now: Now,
        conn: ConnId,
        frame: ClientFrame,
    ) -> Result<(), Misuse> {
        let Some(connection) = self.volatile.connections.get_mut(&conn) else {
            return Err(Misuse::UnknownConnection(conn));
        };
        connection.heard = now.moment;
        connection.pings = 0;
        match (&connection.phase, frame) {
            (Phase::Moved, ClientFrame::Leave) => self.close(now, conn, None),
            (Phase::Moved, ClientFrame::Ping { token }) => {
                self.send(conn, ServerFrame::Pong { token });
            }
            // What was under way when the connection was told to close, or to go on elsewhere.
            (Phase::TurnedAway | Phase::Moved | Phase::Closing, _) => {}
            (Phase::Greeting, ClientFrame::Hello(hello)) => self.greet(now, conn, &hello),
            (Phase::Greeted, ClientFrame::Login(login)) => self.check_login(now, conn, login),
            (Phase::Greeted, ClientFrame::Operate(operate)) => self.check_right(conn, &operate),
            (
                Phase::Greeted | Phase::Verifying(_) | Phase::Reporting,
                ClientFrame::Ping { token },
            ) => self.send(conn, ServerFrame::Pong { token }),
            (Phase::Greeted, ClientFrame::Prove { nonce })
                if connection.proof == Proof::NotAsked =>
            {
                self.prove(conn, nonce);
            }
            (Phase::Greeting | Phase::Greeted | Phase::Verifying(_) | Phase::Reporting, frame) => {
                self.strike(now, conn, &frame);
            }
            (Phase::Parked, frame) => self.handle_parked_frame(now, conn, frame),
            (Phase::Online(_), frame) => self.handle_online_frame(now, conn, frame),
        }
        Ok(())
    }

    fn handle_online_frame(&mut self, now: Now, conn: ConnId, frame: ClientFrame) {
        if let Err(excess) = self.admit_frame(now.moment, conn, &frame) {
            return self.slow_down(now, conn, &frame, excess);
        }
        self.serve(now, conn, frame);
    }

    /// Does what a user wants.
    pub(super) fn serve(&mut self, now: Now, conn: ConnId, frame: ClientFrame) {
        match frame {
            ClientFrame::Hello(_)
            | ClientFrame::Login(_)
            | ClientFrame::Operate(_)
            | ClientFrame::Prove { .. } => {
                let refusal = Refusal::State(StateFault::AlreadyLoggedIn);
                self.send(conn, ServerFrame::Rejected(refusal));
            }
            ClientFrame::Submit { counter, command } => match self.admit(conn) {
                Ok(()) => self.handle_submit(now, conn, counter, &command),
                Err(refusal) => self.send(conn, ServerFrame::Refused { counter, refusal }),
            },
            ClientFrame::Ask { request, question } => match self.admit_question(now, conn) {
                Ok(()) => self.handle_ask(now, conn, request, &question),
                Err(refusal) => {
                    let answer = Answer::Refused(refusal);
                    self.send(conn, ServerFrame::Answer { request, answer });
                }
            },
            ClientFrame::Ping { token } => self.send(conn, ServerFrame::Pong { token }),
            ClientFrame::Pong { .. } => {}
            ClientFrame::Leave => {
                self.detach(now, conn, Departure::Quit);
                self.end(conn, None);
            }
        }
    }

    /// Whether a connection may send so much. Whoever leaves may always do so.
    pub(super) fn admit_frame(
        &mut self,
        now: Moment,
        conn: ConnId,
        frame: &ClientFrame,
    ) -> Result<(), Excess> {
        let Some(connection) = self.volatile.connections.get_mut(&conn) else { return Ok(()) };
        let limits = &self.config.limits;
        let frames =
            Allowance::per_second(limits.frames_per_second.into(), limits.frames_burst.into());
        let bytes = Allowance::per_second(limits.bytes_per_second, limits.bytes_burst);
        let size = frame.counted_bytes();
        let waits = [
            connection.frames.wait_in_bulk(now, frames, 1),
            connection.bytes.wait_in_bulk(now, bytes, size),
        ];
        if let Some(wait) = waits.into_iter().flatten().max()
            && !matches!(frame, ClientFrame::Leave)
            && !mutated!(self, NoFrameRate)
        {
            let patience = connection.refused.take(now, frames);
            return Err(patience.map_or(Excess::Flood, |()| Excess::Slow(wait)));
        }
        // Both have room for it; for who leaves that is no matter.
        let _ = connection.frames.take(now, frames);
        let _ = connection.bytes.take_many(now, bytes, size);
        Ok(())
    }

    /// A connection sent more than it may.
    pub(super) fn slow_down(
        &mut self,
        now: Now,
        conn: ConnId,
        frame: &ClientFrame,
        excess: Excess,
    ) {
        let retry_ms = match excess {
            Excess::Slow(wait) => wait,
            Excess::Flood => return self.close(now, conn, Some(Refusal::Limit(LimitFault::Flood))),
        };
        match frame {
            ClientFrame::Submit { counter, command } => {
                let (counter, rate) = (*counter, Refusal::Rate { retry_ms });
                // For a reset that would be the last word, and that takes an entry.
                let passes = rate.is_passing_for(command);
                let refusal = if passes { rate } else { Refusal::Busy { retry_ms } };
                self.send(conn, ServerFrame::Refused { counter, refusal });
            }
            ClientFrame::Ask { request, .. } => {
                let answer = Answer::Refused(Refusal::Rate { retry_ms });
                self.send(conn, ServerFrame::Answer { request: *request, answer });
            }
            ClientFrame::Hello(_)
            | ClientFrame::Login(_)
            | ClientFrame::Operate(_)
            | ClientFrame::Prove { .. }
            | ClientFrame::Ping { .. }
            | ClientFrame::Pong { .. }
            | ClientFrame::Leave => {}
        }
    }

    /// Whether a connection may ask now: a question of ten bytes may have an answer of 32 KiB.
    fn admit_question(&mut self, now: Now, conn: ConnId) -> Result<(), Refusal> {
        self.admit(conn)?;
        let limits = &self.config.limits;
        let allowance = Allowance::every(limits.question_interval, limits.question_burst);
        let Some(connection) = self.volatile.connections.get_mut(&conn) else { return Ok(()) };
        let taken = connection.questions.take(now.moment, allowance);
        taken.map_err(|retry_ms| Refusal::Rate { retry_ms })
    }

    /// Whether one more answer may wait for a commit: a store that is slow or stands still must not
    /// fill the memory.
    fn admit(&self, conn: ConnId) -> Result<(), Refusal> {
        let own = self.volatile.connections.get(&conn).map_or(0, |connection| connection.waiting);
        if own >= self.config.limits.waiting_per_connection_max {
            return Err(Refusal::Busy { retry_ms: BUSY_RETRY });
        }
        self.admit_waiting()
    }

    /// As [`Self::admit`], for who asks by no connection.
    pub(super) fn admit_waiting(&self) -> Result<(), Refusal> {
        let all = u32::try_from(self.pending.len()).unwrap_or(u32::MAX);
        if all >= self.config.limits.waiting_max {
            return Err(Refusal::Busy { retry_ms: BUSY_RETRY });
        }
        Ok(())
    }

    /// A frame that has no place before log-in.
    fn strike(&mut self, now: Now, conn: ConnId, frame: &ClientFrame) {
        let refusal = Refusal::State(StateFault::LogInFirst);
        let Some(connection) = self.volatile.connections.get_mut(&conn) else { return };
        connection.strikes = connection.strikes.saturating_add(1);
        if connection.strikes >= STRIKES_MAX {
            self.close(now, conn, Some(refusal));
            return;
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
        self.send(conn, reply);
    }

    fn greet(&mut self, now: Now, conn: ConnId, hello: &ClientHello) {
        let Some(version) = VersionRange::SUPPORTED.common(hello.versions) else {
            self.close(now, conn, Some(Refusal::Version(VersionRange::SUPPORTED)));
            return;
        };
        let founding = self.durable.founding();
        let (server_key, log_id) = (founding.server_key, founding.log_id);
        let generation = self.generation;
        let Some(connection) = self.volatile.connections.get_mut(&conn) else { return };
        connection.phase = Phase::Greeted;
        connection.generation = generation;
        let nonce = connection.nonce;
        let hello = ServerHello { version, features: 0, server_key, log_id, generation, nonce };
        self.send(conn, ServerFrame::Hello(hello));
    }

    /// Has the host sign that the server has its key.
    fn prove(&mut self, conn: ConnId, challenge: Nonce) {
        let founding = self.durable.founding();
        let Some(connection) = self.volatile.connections.get_mut(&conn) else { return };
        connection.proof = Proof::Asked;
        let message = ServerProof {
            challenge,
            nonce: connection.nonce,
            server_key: founding.server_key,
            log_id: founding.log_id,
            generation: connection.generation,
            channel: connection.channel,
        }
        .to_bytes();
        self.outputs.push_back(Output::Sign { conn, message });
    }

    pub(super) fn handle_signed(&mut self, conn: ConnId, signature: Signature) {
        let Some(connection) = self.volatile.connections.get_mut(&conn) else { return };
        if connection.proof != Proof::Asked || connection.is_over() {
            return;
        }
        connection.proof = Proof::Given;
        self.send(conn, ServerFrame::Proof { signature });
    }

    fn check_login(&mut self, now: Now, conn: ConnId, login: Login) {
        let name = match login.name.parse() {
            Ok(name) => name,
            Err(error) => return self.close(now, conn, Some(error.into())),
        };
        // Before its signature is checked, which is what a log-in costs.
        if self.durable.session(&login.session).is_none()
            && !mutated!(self, NoLoginRate)
            && let Err(refusal) = self.admit_newcomer(now.moment, conn)
        {
            return self.close(now, conn, Some(refusal));
        }
        let founding = self.durable.founding();
        let Some(connection) = self.volatile.connections.get_mut(&conn) else { return };
        let message = LoginProof {
            nonce: connection.nonce,
            server_key: founding.server_key,
            log_id: founding.log_id,
            generation: connection.generation,
            channel: connection.channel,
            session: login.session,
            attach: login.attach,
            name: login.name.as_str(),
        }
        .to_bytes();
        let (key, signature) = (login.key, login.signature);
        connection.phase = Phase::Verifying(Box::new(Claim::User(login, name)));
        self.outputs.push_back(Output::Verify { conn, key, message, signature });
    }

    pub(super) fn handle_verified(&mut self, now: Now, conn: ConnId, valid: bool) {
        let Some(connection) = self.volatile.connections.get_mut(&conn) else { return };
        // The log-in may have been given up while the signature was checked.
        let Phase::Verifying(_) = connection.phase else { return };
        let Phase::Verifying(claim) = core::mem::replace(&mut connection.phase, Phase::Greeted)
        else {
            return;
        };
        if !valid {
            self.close(now, conn, Some(Refusal::Auth(AuthFault::Signature)));
            return;
        }
        match *claim {
            Claim::User(login, name) if self.is_leading() => {
                let admitted = self.admit_memory(conn);
                let admitted = admitted.and_then(|()| self.admit_return(now.moment, conn, &login));
                self.admit_user(now, conn, name, &login, admitted);
            }
            Claim::User(login, name) => self.park(now, conn, name, login),
            Claim::Operator(key, order) => self.obey(now, conn, &key, order),
        }
    }

    /// Whether one more session may begin now.
    fn admit_newcomer(&mut self, now: Moment, conn: ConnId) -> Result<(), Refusal> {
        let limits = &self.config.limits;
        let allowance =
            Allowance::per_second(limits.logins_per_second.into(), limits.logins_burst.into());
        let taken = self.volatile.newcomers.take(now, allowance);
        taken.map_err(|_| self.come_again(conn))
    }

    /// Whether one more session may go on now, if it is one that goes on.
    fn admit_return(&mut self, now: Moment, conn: ConnId, login: &Login) -> Result<(), Refusal> {
        if self.durable.session(&login.session).is_none() {
            return Ok(());
        }
        let limits = &self.config.limits;
        let allowance =
            Allowance::per_second(limits.returns_per_second.into(), limits.returns_burst.into());
        let taken = self.volatile.returns.take(now, allowance);
        taken.map_err(|_| self.come_again(conn))
    }

    /// When a client that is one of too many may try again: spread over some seconds, so that all of
    /// them do not come at once again. The spread comes from the connection's nonce, as nothing here
    /// draws random numbers.
    pub(super) fn come_again(&self, conn: ConnId) -> Refusal {
        let nonce = self.volatile.connections.get(&conn).map(|connection| connection.nonce);
        let drawn = nonce.and_then(|nonce| nonce.as_bytes().first_chunk().copied());
        let drawn = drawn.map_or(0, u64::from_be_bytes).checked_rem(RETURN_SPREAD.as_millis());
        let millis = RETURN_MIN.as_millis().saturating_add(drawn.unwrap_or(0));
        Refusal::Busy { retry_ms: Span::from_millis(millis) }
    }

    /// Whether there is memory for one more who is logged in.
    pub(super) fn admit_memory(&self, conn: ConnId) -> Result<(), Refusal> {
        let (greeting, online) = (self.volatile.greeting, self.volatile.online.saturating_add(1));
        let fits = self.config.limits.has_memory_for(greeting, online);
        if fits { Ok(()) } else { Err(self.come_again(conn)) }
    }

    /// Decides about a proven log-in, unless it is one of too many.
    pub(super) fn admit_user(
        &mut self,
        now: Now,
        conn: ConnId,
        name: UserName,
        login: &Login,
        admitted: Result<(), Refusal>,
    ) {
        let changes = admitted
            .and_then(|()| self.admit(conn))
            .and_then(|()| self.decide_login(now, &name, login));
        match changes.and_then(|changes| self.admit_changes(changes)) {
            Ok(changes) => self.log_in(now, conn, name, login, changes),
            // Its client gives up for good, so it must not hear of what may yet be lost.
            Err(refusal @ (Refusal::Name(_) | Refusal::Expelled(_))) => {
                let index = self.basis_of_name(&name, login);
                self.turn_away(now, conn, index, refusal);
            }
            Err(refusal) => self.close(now, conn, Some(refusal)),
        }
    }

    /// The entry that a refusal waits for which says whose a name or a key is, and who may log in.
    fn basis_of_name(&self, name: &UserName, login: &Login) -> Index {
        let (skeleton, owned) = (name.skeleton(), self.durable.name_of_key(&login.key));
        self.basis(|change| match change {
            Change::UserAdded { user, key } => *key == login.key || user.skeleton() == skeleton,
            Change::Moderated { user, .. } => Some(user) == owned || user.skeleton() == skeleton,
            Change::Founded(_)
            | Change::OperatorGranted { .. }
            | Change::SessionOpened { .. }
            | Change::SessionExpired { .. }
            | Change::RoomCreated { .. }
            | Change::Joined { .. }
            | Change::Left { .. }
            | Change::Posted { .. }
            | Change::Refused { .. }
            | Change::GateOpened { .. }
            | Change::Reset { .. }
            | Change::Trimmed { .. } => false,
        })
    }

    /// Takes from a connection what it stands for, and closes it once an entry is safe.
    pub(super) fn turn_away(&mut self, now: Now, conn: ConnId, index: Index, refusal: Refusal) {
        self.lose(now, conn);
        if let Some(connection) = self.volatile.connections.get_mut(&conn) {
            connection.phase = Phase::TurnedAway;
            self.volatile.greeting = self.volatile.greeting.saturating_add(1);
            self.when_committed(index, Pending::Close { conn, refusal });
        }
    }

    /// What a proven log-in changes.
    fn decide_login(
        &self,
        now: Now,
        name: &UserName,
        login: &Login,
    ) -> Result<Vec<Change>, Refusal> {
        let mut changes = Vec::new();
        let owned = self.durable.name_of_key(&login.key).and_then(|name| self.durable.user(name));
        if owned.is_some_and(User::is_banned) {
            return Err(Refusal::Expelled(ExpelFault::Banned));
        }
        match self.durable.user(name) {
            Some(user) if user.key != login.key && !mutated!(self, NameOfAnotherKey) => {
                return Err(Refusal::Name(NameFault::InUse));
            }
            Some(_) => {}
            None => changes.extend(self.decide_new_user(name, login)?),
        }
        match self.durable.session(&login.session) {
            Some(session) if session.user() != name => {
                return Err(Refusal::Auth(AuthFault::Session));
            }
            Some(_) if self.is_superseded(login) => {
                return Err(Refusal::Auth(AuthFault::Replaced));
            }
            Some(_) => {}
            None => {
                changes.extend(self.decide_expiry(now, name)?);
                let (session, user) = (login.session, name.clone());
                changes.push(Change::SessionOpened { session, user });
            }
        }
        Ok(changes)
    }

    fn decide_new_user(&self, name: &UserName, login: &Login) -> Result<Vec<Change>, Refusal> {
        if self.durable.name_of_key(&login.key).is_some() {
            return Err(Refusal::Name(NameFault::KeyHasName));
        }
        if self.durable.name_that_looks_like(name).is_some() {
            return Err(Refusal::Name(NameFault::TooSimilar));
        }
        let users = u32::try_from(self.durable.users().len()).unwrap_or(u32::MAX);
        if users >= self.config.limits.users_max {
            return Err(Refusal::Limit(LimitFault::Users));
        }
        let mut changes = vec![Change::UserAdded { user: name.clone(), key: login.key }];
        if self.durable.makes_operator(name, &login.key) {
            changes.push(Change::OperatorGranted { user: name.clone() });
        }
        Ok(changes)
    }

    /// Whether the session already speaks through a connection with a higher attach number.
    fn is_superseded(&self, login: &Login) -> bool {
        let present = self.volatile.sessions.get(&login.session);
        let online = present.and_then(|conn| self.volatile.online(*conn));
        online.is_some_and(|online| online.attach > login.attach)
    }

    /// Which session has to end so that one more can begin.
    fn decide_expiry(&self, now: Now, name: &UserName) -> Result<Option<Change>, Refusal> {
        let limits = &self.config.limits;
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let of_user = self.durable.user(name).map(|user| &user.sessions);
        if of_user.is_some_and(|ids| count(ids.len()) >= limits.sessions_per_user_max) {
            let ids = of_user.into_iter().flatten();
            let mut by_use: Vec<_> =
                ids.filter_map(|id| Some((self.durable.session(id)?.used(), *id))).collect();
            by_use.sort_unstable();
            let oldest = self.expirable(now, by_use);
            return match oldest {
                Some(session) => Ok(Some(Change::SessionExpired { session })),
                None => Err(Refusal::Limit(LimitFault::SessionsOfUser)),
            };
        }
        if count(self.durable.sessions().len()) >= limits.sessions_max {
            let oldest = self.expirable(now, self.durable.sessions_by_use());
            return match oldest {
                Some(session) => Ok(Some(Change::SessionExpired { session })),
                None => Err(Refusal::Busy { retry_ms: BUSY_RETRY }),
            };
        }
        Ok(None)
    }

    /// The least recently used of these sessions that may expire. They come in the order of their
    /// use, so that the search ends at the first one that is too young.
    fn expirable(
        &self,
        now: Now,
        by_use: impl IntoIterator<Item = (Timestamp, SessionId)>,
    ) -> Option<SessionId> {
        let age_min = self.config.limits.session_age_min.as_millis();
        let at = self.head.at.max(now.wall).get();
        by_use
            .into_iter()
            .take_while(|(used, _)| at.saturating_sub(used.get()) >= age_min)
            .find(|(_, id)| !self.volatile.sessions.contains_key(id))
            .map(|(_, id)| id)
    }

    fn log_in(
        &mut self,
        now: Now,
        conn: ConnId,
        user: UserName,
        login: &Login,
        changes: Vec<Change>,
    ) {
        let first_user = self.durable.founding().operators.is_empty()
            && changes.iter().any(|change| matches!(change, Change::OperatorGranted { .. }));
        for change in changes {
            self.append(now, change);
        }
        let before = self.volatile.sessions.insert(login.session, conn);
        self.attach(now, conn, &user, login);
        if let Some(before) = before {
            self.close(now, before, Some(Refusal::Auth(AuthFault::Replaced)));
        }
        self.welcome(conn, user.clone(), login.session);
        if first_user {
            self.reply(conn, ServerFrame::Notice(Notice::FirstUserIsOperator));
        }
        self.outputs.push_back(Output::Event(Event::LoggedIn { conn, user }));
    }

    fn welcome(&mut self, conn: ConnId, user: UserName, session: SessionId) {
        let state = self.durable.session(&session).expect("who logs in has a session");
        let opened = state.opened();
        let operator = self.durable.is_operator(&user);
        let last_counter = self.last_safe_counter(&session);
        let index = self.basis(|change| {
            matches!(change, Change::SessionOpened { session: new, .. } if *new == session)
                || matches!(change, Change::Moderated { user: who, measure, .. }
                    if *who == user && *measure != Measure::Kick)
        });
        let connection = self.volatile.connections.get(&conn);
        let address = connection.and_then(|connection| connection.address.clone());
        let welcome = Welcome { user, session, last_counter, opened, operator, address };
        self.when_committed(index, Pending::Welcome { conn, welcome });
    }

    /// The last command of a session that is answered when its welcome leaves. A full store keeps
    /// back the answers of some; whoever sends those commands again hears of them when it is not.
    fn last_safe_counter(&self, id: &SessionId) -> Counter {
        let session = self.durable.session(id).expect("a session that logs in exists");
        if !self.store_full {
            return session.last();
        }
        let commands = self.uncommitted.iter().filter_map(|entry| entry.change.command());
        let waiting = commands.filter(|command| command.session == *id).count();
        session.last().saturating_sub(u64::try_from(waiting).unwrap_or(u64::MAX))
    }

    fn attach(&mut self, now: Now, conn: ConnId, user: &UserName, login: &Login) {
        let silence = now.moment + self.config.limits.ping_interval;
        let Some(connection) = self.volatile.connections.get_mut(&conn) else { return };
        connection.phase = Phase::Online(Online {
            user: user.clone(),
            session: login.session,
            attach: login.attach,
            rooms: std::collections::BTreeSet::new(),
            welcomed: false,
        });
        self.volatile.greeting = self.volatile.greeting.saturating_sub(1);
        self.volatile.online = self.volatile.online.saturating_add(1);
        self.volatile.presence.entry(user.clone()).or_default().insert(conn);
        #[cfg(chat_mutants)]
        if mutated!(self, ReturnEndsEveryGrace) {
            self.volatile.forget_graces_of(Some(user));
        }
        self.volatile.set_connection_timer(conn, silence);
    }

    /// Tells a connection why it closes and forgets what it stood for.
    pub(super) fn close(&mut self, now: Now, conn: ConnId, refusal: Option<Refusal>) {
        let closing = self.volatile.connections.get(&conn);
        if closing.is_none_or(|connection| matches!(connection.phase, Phase::Closing)) {
            return;
        }
        self.lose(now, conn);
        self.end(conn, refusal);
    }

    /// Closes a connection that was turned away, unless it is closed or gone by now.
    pub(super) fn close_turned_away(&mut self, conn: ConnId, refusal: Refusal) {
        let Some(connection) = self.volatile.connections.get_mut(&conn) else { return };
        if matches!(connection.phase, Phase::TurnedAway) {
            connection.phase = Phase::Closing;
            self.volatile.greeting = self.volatile.greeting.saturating_sub(1);
            self.end(conn, Some(refusal));
        }
    }

    pub(super) fn end(&mut self, conn: ConnId, refusal: Option<Refusal>) {
        self.deliver(Directive::Close { conn, refusal });
        self.outputs.push_back(Output::Event(Event::Closed { conn, refusal }));
    }

    /// Takes from a connection everything it stood for, as if it were lost.
    pub(super) fn lose(&mut self, now: Now, conn: ConnId) {
        self.detach(now, conn, Departure::Lost);
    }

    /// Takes from a connection everything it stood for. Doing it twice is harmless.
    fn detach(&mut self, now: Now, conn: ConnId, how: Departure) {
        let Some(connection) = self.volatile.connections.get(&conn) else { return };
        if connection.is_greeting() {
            self.volatile.greeting = self.volatile.greeting.saturating_sub(1);
        }
        self.volatile.parking.leave(conn);
        if let Some(online) = connection.online() {
            self.volatile.online = self.volatile.online.saturating_sub(1);
            let (user, session) = (online.user.clone(), online.session);
            let rooms: Vec<RoomName> = online.rooms.iter().cloned().collect();
            #[cfg(chat_mutants)]
            let rooms = self.rooms_to_desert(conn, session, rooms);
            if self.volatile.sessions.get(&session) == Some(&conn) {
                self.volatile.sessions.remove(&session);
            }
            let left: Vec<RoomName> = rooms
                .into_iter()
                .filter(|room| {
                    self.changed_gates.push(room.clone());
                    self.volatile.desert(conn, room)
                })
                .collect();
            self.depart(now, conn, &user, how, &left);
        }
        if let Some(connection) = self.volatile.connections.get_mut(&conn) {
            connection.phase = Phase::Closing;
        }
    }

    /// One connection less for a user, who by that follows some rooms no more.
    fn depart(
        &mut self,
        now: Now,
        conn: ConnId,
        user: &UserName,
        how: Departure,
        left: &[RoomName],
    ) {
        let Some(connections) = self.volatile.presence.get_mut(user) else { return };
        connections.remove(&conn);
        let last = connections.is_empty();
        if last {
            self.volatile.presence.remove(user);
            self.expect_nowhere(user);
        }
        match how {
            Departure::Lost => {
                let ends = now.moment + self.config.limits.grace;
                left.iter().for_each(|room| self.volatile.begin_grace(user, room, ends));
            }
            Departure::Quit if last => self.leave_every_room(now, user),
            Departure::Quit => left.iter().for_each(|room| self.leave_room(now, room, user)),
        }
    }

    /// A user is a member of no room any more.
    pub(super) fn leave_every_room(&mut self, now: Now, user: &UserName) {
        let rooms = self.durable.user(user).map(|user| user.rooms.clone()).unwrap_or_default();
        rooms.iter().for_each(|room| self.leave_room(now, room, user));
    }

    /// Gives every member a fresh grace to come back: after a restart or a move.
    pub(super) fn begin_grace(&mut self, now: Moment) {
        let ends = now + self.config.limits.grace;
        for (name, user) in self.durable.users() {
            user.rooms.iter().for_each(|room| self.volatile.begin_grace(name, room, ends));
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Now) {
        while let Some(kind) = self.volatile.take_timer(now.moment) {
            match kind {
                TimerKind::Connection(conn) => self.check_connection(now, conn),
                TimerKind::Grace(user, room) => self.end_grace(now, &user, &room),
                TimerKind::Notice(room) => self.end_quiet(room),
                TimerKind::CatchUp(conn) => self.go_on_catching_up(conn),
            }
        }
    }

    /// The deadline of a connection came: of its log-in, or of its silence.
    fn check_connection(&mut self, now: Now, conn: ConnId) {
        let Some(connection) = self.volatile.connections.get(&conn) else { return };
        let refusal = match connection.phase {
            // The store takes its time, and why it was turned away must not be told before.
            Phase::TurnedAway => Refusal::Busy { retry_ms: BUSY_RETRY },
            Phase::Greeting | Phase::Greeted | Phase::Verifying(_) | Phase::Reporting => {
                Refusal::Limit(LimitFault::LoginTime)
            }
            Phase::Parked => self.come_again(conn),
            Phase::Moved => Refusal::Gone,
            Phase::Online(_) => return self.probe_silence(now, conn),
            Phase::Closing => return,
        };
        self.close(now, conn, Some(refusal));
    }

    fn probe_silence(&mut self, now: Now, conn: ConnId) {
        let limits = &self.config.limits;
        let (interval, unanswered_max) = (limits.ping_interval, limits.pings_unanswered_max);
        let Some(connection) = self.volatile.connections.get_mut(&conn) else { return };
        let due = connection.heard + interval;
        if now.moment < due {
            self.volatile.set_connection_timer(conn, due);
            return;
        }
        if connection.pings >= unanswered_max {
            self.close(now, conn, Some(Refusal::Limit(LimitFault::Silence)));
            return;
        }
        connection.pings = connection.pings.saturating_add(1);
        self.volatile.set_connection_timer(conn, now.moment + interval);
        self.send(conn, ServerFrame::Ping { token: RequestId::ZERO });
    }

    /// A user followed a room by no connection for as long as that may be.
    fn end_grace(&mut self, now: Now, user: &UserName, room: &RoomName) {
        if mutated!(self, NoLeaveAfterGrace) {
            self.volatile.end_grace(user, room);
            return;
        }
        self.leave_room(now, room, user);
    }

    pub(super) fn handle_stop(&mut self, now: Now) {
        self.stopping = true;
        let open: Vec<ConnId> = self.volatile.connections.keys().copied().collect();
        open.into_iter().for_each(|conn| self.close(now, conn, Some(Refusal::Gone)));
    }
}
