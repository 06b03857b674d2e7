//! Commands: posts and resets, each once.

use chatcore::engine::Event;
use chatcore::id::{ConnId, Counter, Incarnation, RequestId, Seq, Threshold};
use chatcore::log::{Change, CommandId, Moderator, OperatorRule};
use chatcore::text::{Body, BodyError, RoomName, Untrusted, UserName};
use chatcore::time::Timestamp;
use chatcore::wire::{
    Command, ExpelFault, LimitFault, Measure, Notice, Refusal, ServerFrame, StateFault, TargetFault,
};

use super::Model;
use super::facts::{Outcome, Standing};
use super::login::BUSY;
use super::presence::{Store, Waiting};
use super::truth::{RoomTruth, to_u32, to_u64};

impl Model {
    pub(super) fn submit(&mut self, conn: ConnId, counter: Counter, command: &Command) {
        if self.is_crowded(conn) {
            return self.due.send(conn, ServerFrame::Refused { counter, refusal: BUSY });
        }
        let Some(online) = self.process.online(conn) else { return };
        let (user, session) = (online.user.clone(), online.session);
        let digest = self.hasher.digest("chatcore command v1", command);
        let state = self.facts.sessions.get(&session).expect("who is connected has a session");
        let fault = match state.standing(counter, &digest) {
            // Not even decided: a refusal for good would be an entry, too.
            Standing::New if self.process.store == Store::Full => {
                let refusal = Refusal::Store;
                return self.due.send(conn, ServerFrame::Refused { counter, refusal });
            }
            Standing::New => {
                let id = CommandId { session, counter, digest };
                return self.execute(conn, &user, id, command);
            }
            Standing::Repeated(answer) => {
                let (index, outcome) = (answer.index, answer.outcome.clone());
                return self.when_safe(index, answer_of(conn, counter, outcome));
            }
            Standing::Forgotten => return self.reply(conn, ServerFrame::Applied { counter }),
            Standing::Reused => StateFault::CounterReused,
            Standing::Ahead { expect } => StateFault::Counter { expect },
        };
        self.reply(conn, ServerFrame::Refused { counter, refusal: Refusal::State(fault) });
    }

    /// What is to be appended for a client, unless the store is full.
    pub(super) fn admit_changes(&self, changes: Vec<Change>) -> Result<Vec<Change>, Refusal> {
        let refused = self.process.store == Store::Full && !changes.is_empty();
        if refused { Err(Refusal::Store) } else { Ok(changes) }
    }

    /// Whether no more answers may wait, for this connection or for all.
    pub(super) fn is_crowded(&self, conn: ConnId) -> bool {
        let own = self.process.conns.get(&conn).map_or(0, |conn| conn.waiting);
        to_u32(self.process.waiting.len()) >= self.limits.waiting_max
            || own >= self.limits.waiting_per_connection_max
    }

    fn execute(&mut self, conn: ConnId, user: &UserName, id: CommandId, command: &Command) {
        let decided = match command {
            Command::Post { room, incarnation, body } => {
                self.decide_post(user, room, *incarnation, body, id)
            }
            Command::Reset { room, threshold } => self.decide_reset(user, room, *threshold, id),
            Command::Moderate { user: target, measure } => {
                self.decide_moderate(user, target, *measure, id)
            }
        };
        let change = decided.unwrap_or_else(|refusal| Change::Refused { command: id, refusal });
        let (outcome, reset) = match &change {
            Change::Posted { room, incarnation, seq, .. } => {
                let (incarnation, seq) = (*incarnation, *seq);
                (Outcome::Posted { room: room.clone(), incarnation, seq }, None)
            }
            Change::Reset { room, .. } => (Outcome::Applied, Some(room.clone())),
            Change::Moderated { .. } => (Outcome::Applied, None),
            Change::Refused { refusal, .. } => (Outcome::Refused(*refusal), None),
            Change::Founded(_)
            | Change::UserAdded { .. }
            | Change::OperatorGranted { .. }
            | Change::SessionOpened { .. }
            | Change::SessionExpired { .. }
            | Change::RoomCreated { .. }
            | Change::Joined { .. }
            | Change::Left { .. }
            | Change::GateOpened { .. }
            | Change::Trimmed { .. } => return,
        };
        self.append_decided(change);
        self.when_safe(self.last, answer_of(conn, id.counter, outcome));
        if let Some(room) = reset {
            self.open_if_met(&room);
        }
    }

    fn decide_post(
        &self,
        user: &UserName,
        room: &Untrusted<RoomName>,
        wanted: Option<Incarnation>,
        body: &Untrusted<Body>,
        command: CommandId,
    ) -> Result<Change, Refusal> {
        let text = body.parse().map_err(|error| match error {
            BodyError::Empty => Refusal::Command,
            BodyError::TooLong => Refusal::Limit(LimitFault::Body),
        })?;
        let (room, state) = self.target(room)?;
        if !state.members.contains(user) {
            return Err(Refusal::State(StateFault::NotMember));
        }
        if wanted.is_some_and(|wanted| wanted != state.incarnation) {
            return Err(Refusal::State(StateFault::OtherIncarnation));
        }
        if !self.can_hold(state, text.as_str().len()) {
            return Err(Refusal::Limit(LimitFault::Held));
        }
        let (incarnation, seq) = (state.incarnation, state.last().next());
        Ok(Change::Posted { room, incarnation, seq, command, from: user.clone(), text })
    }

    fn decide_reset(
        &mut self,
        user: &UserName,
        room: &Untrusted<RoomName>,
        threshold: Threshold,
        command: CommandId,
    ) -> Result<Change, Refusal> {
        if !self.is_operator(user) {
            return Err(Refusal::Perm);
        }
        let (room, state) = self.target(room)?;
        let incarnation = state.incarnation.next();
        let (interval, burst) = (self.limits.reset_interval, self.limits.reset_burst);
        let rate = self.process.resets.entry(user.clone()).or_default();
        // Too many resets are refused for good: a late one would clear what was said meanwhile.
        let taken = rate.take(self.now.moment, interval, burst);
        taken.map_err(|retry_ms| Refusal::Rate { retry_ms })?;
        self.due.events.push(Event::Reset { room: room.clone(), incarnation });
        Ok(Change::Reset { room, incarnation, threshold, command })
    }

    fn decide_moderate(
        &self,
        operator: &UserName,
        target: &Untrusted<UserName>,
        measure: Measure,
        command: CommandId,
    ) -> Result<Change, Refusal> {
        if !self.is_operator(operator) {
            return Err(Refusal::Perm);
        }
        let unknown = Refusal::Target(TargetFault::User);
        let user: UserName = target.parse().map_err(|_| unknown)?;
        let state = self.facts.users.get(&user).ok_or(unknown)?;
        if user == *operator {
            return Err(Refusal::Target(TargetFault::Oneself));
        }
        let is_named = self.founding.operators.iter().any(|rule| match rule {
            OperatorRule::Name(name) => *name == user,
            OperatorRule::Key(key) => *key == state.key,
        });
        if is_named && (state.operator || measure == Measure::Release) {
            return Err(Refusal::Target(TargetFault::Founder));
        }
        self.may_take(&user, measure)?;
        let by = Moderator::Operator { user: operator.clone(), command };
        Ok(Change::Moderated { user, measure, by })
    }

    /// What holds for whoever takes a measure.
    fn may_take(&self, user: &UserName, measure: Measure) -> Result<(), Refusal> {
        let state = self.facts.users.get(user).ok_or(Refusal::Target(TargetFault::User))?;
        let banned = self.facts.users.values().filter(|user| user.banned).count();
        let is_full = to_u32(banned) >= self.limits.bans_max;
        match measure {
            Measure::Ban if is_full && !state.banned => Err(Refusal::Limit(LimitFault::Bans)),
            Measure::Op | Measure::Release if state.banned => {
                Err(Refusal::Target(TargetFault::Banned))
            }
            Measure::Kick
            | Measure::Ban
            | Measure::Unban
            | Measure::Op
            | Measure::Deop
            | Measure::Release => Ok(()),
        }
    }

    /// Those who run the server take a measure.
    pub(super) fn moderate(&mut self, request: RequestId, user: &UserName, measure: Measure) {
        let is_crowded = to_u32(self.process.waiting.len()) >= self.limits.waiting_max;
        let refusal = match self.process.store {
            Store::Full => Some(Refusal::Store),
            Store::Free if is_crowded => Some(BUSY),
            Store::Free => None,
        };
        if refusal.is_some() {
            return self.due.moderated.push((request, refusal));
        }
        let refusal = self.may_take(user, measure).err();
        if refusal.is_none() {
            let (user, by) = (user.clone(), Moderator::Server);
            self.append_decided(Change::Moderated { user, measure, by });
        }
        self.when_safe(self.last, Waiting::Moderated { request, refusal });
    }

    /// Appends what was decided, and what comes with it.
    fn append_decided(&mut self, change: Change) {
        let Change::Moderated { user, measure, by } = &change else { return self.append(change) };
        let (user, measure) = (user.clone(), *measure);
        let by = match by {
            Moderator::Operator { user, .. } => Some(user.clone()),
            Moderator::Server => None,
        };
        let fault = match measure {
            Measure::Kick => Some(ExpelFault::Kicked),
            Measure::Ban => Some(ExpelFault::Banned),
            Measure::Release => Some(ExpelFault::Released),
            Measure::Unban | Measure::Op | Measure::Deop => None,
        };
        let conns = self.process.conns_of(&user);
        if fault.is_some() {
            conns.iter().for_each(|conn| self.turn_away(*conn));
            self.vanish(&user);
        }
        let before = self.is_operator(&user);
        if measure == Measure::Release {
            // A session that ended and one that begins after it bear other times.
            let later = Timestamp::new(self.last_at.get() + 1);
            self.last_at = later.unwrap_or(Timestamp::MAX);
            self.process.resets.remove(&user);
        }
        self.append(change);
        let now = self.is_operator(&user);
        for conn in conns {
            if let Some(fault) = fault {
                let refusal = Refusal::Expelled(fault);
                self.when_safe(self.last, Waiting::Close { conn, refusal });
            } else if before != now {
                let notice = if now { Notice::OperatorGranted } else { Notice::OperatorRevoked };
                self.reply(conn, ServerFrame::Notice(notice));
            }
        }
        self.due.events.push(Event::Moderated { user, measure, by });
    }

    /// The room that a peer means.
    pub(super) fn target(
        &self,
        room: &Untrusted<RoomName>,
    ) -> Result<(RoomName, &RoomTruth), Refusal> {
        let missing = Refusal::Target(TargetFault::Room);
        let room: RoomName = room.parse().map_err(|_| missing)?;
        let state = self.facts.rooms.get(&room).ok_or(missing)?;
        Ok((room, state))
    }

    /// Whether a room may take one more record: the bounds hold behind a closed gate alone.
    fn can_hold(&self, room: &RoomTruth, bytes: usize) -> bool {
        let (limits, bytes) = (&self.limits, to_u64(bytes));
        room.open
            || room.last().get() < u64::from(limits.held_records_max)
                && room.held_bytes + bytes <= limits.held_bytes_max
                && self.facts.held_bytes + bytes <= limits.held_bytes_total_max
    }

    /// The place of a join or leave record: none in a crowd, or when no more is held.
    ///
    /// The name's own bytes are not asked about, so a room may hold one name above its bound.
    pub(super) fn presence_seq(&self, room: &RoomTruth) -> Option<Seq> {
        let crowd = to_u32(room.members.len()) > self.limits.crowd_members;
        (!crowd && self.can_hold(room, 0)).then(|| room.last().next())
    }

    /// A user stops being a member, if one.
    pub(super) fn leave(&mut self, room: &RoomName, user: &UserName) {
        let Some(state) = self.facts.rooms.get(room) else { return };
        if !state.members.contains(user) {
            return;
        }
        let (incarnation, seq) = (state.incarnation, self.presence_seq(state));
        self.touched.push(room.clone());
        self.append(Change::Left { room: room.clone(), incarnation, seq, user: user.clone() });
    }

    /// The gate opens if enough distinct users follow the room at this instant. Says whether it
    /// did.
    pub(super) fn open_if_met(&mut self, room: &RoomName) -> bool {
        self.touched.push(room.clone());
        let Some(state) = self.facts.rooms.get(room) else { return false };
        let users = self.process.sides.get(room).map_or(0, |side| side.users.len());
        if state.open || users < usize::from(state.threshold.get()) {
            return false;
        }
        let incarnation = state.incarnation;
        self.append(Change::GateOpened { room: room.clone(), incarnation });
        self.due.events.push(Event::GateOpened { room: room.clone() });
        true
    }
}

/// The answer that belongs to an outcome.
fn answer_of(conn: ConnId, counter: Counter, outcome: Outcome) -> Waiting {
    let frame = match outcome {
        Outcome::Posted { room, incarnation, seq } => {
            return Waiting::Posted { conn, counter, room, incarnation, seq };
        }
        Outcome::Applied => ServerFrame::Applied { counter },
        Outcome::Refused(refusal) => ServerFrame::Refused { counter, refusal },
    };
    Waiting::Frame { conn, frame }
}
