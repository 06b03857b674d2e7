//! Commands: changes that happen exactly once, however often they are sent.

use crate::engine::commit::Pending;
use crate::engine::durable::Durable;
use crate::engine::rate::Allowance;
use crate::engine::session::Place;
use crate::engine::{Engine, Event, Output};
use crate::id::{ConnId, Counter, Incarnation, Seq, Threshold};
use crate::limits::Limits;
use crate::log::{Change, CommandId, Moderator, digest_of};
use crate::text::{Body, RoomName, Untrusted, UserName};
use crate::time::Now;
use crate::wire::{Command, LimitFault, Measure, Refusal, ServerFrame, StateFault, TargetFault};

/// Who gets the answer to a command, and the number it bears there.
#[derive(Clone, Copy, Debug)]
struct Asker {
    conn: ConnId,
    counter: Counter,
}

impl Engine {
    pub(super) fn handle_submit(
        &mut self,
        now: Now,
        conn: ConnId,
        counter: Counter,
        command: &Command,
    ) {
        let Some(online) = self.volatile.online(conn) else { return };
        let (user, session) = (online.user.clone(), online.session);
        let digest = digest_of("chatcore command v1", command);
        let state = self.durable.session(&session).expect("an attached session must exist");
        let asker = Asker { conn, counter };
        if mutated!(self, NoDedupe) {
            let id = CommandId { session, counter: state.last().saturating_add(1), digest };
            return self.execute(now, asker, &user, id, command);
        }
        let fault = match state.place(counter, digest) {
            // Not even decided: to be refused for good would take an entry, too.
            Place::Next if self.store_full => {
                let refusal = Refusal::Store;
                return self.send(conn, ServerFrame::Refused { counter, refusal });
            }
            Place::Next => {
                let id = CommandId { session, counter, digest };
                return self.execute(now, asker, &user, id, command);
            }
            Place::Answered(answer) => {
                let pending = Pending::outcome(conn, counter, answer.outcome);
                return self.when_committed(answer.index, pending);
            }
            Place::Forgotten => {
                return self.reply(conn, ServerFrame::Applied { counter });
            }
            Place::Reused if mutated!(self, AckReusedCounter) => {
                return self.reply(conn, ServerFrame::Applied { counter });
            }
            Place::Ahead { expect } if mutated!(self, AcceptCounterGap) => {
                let id = CommandId { session, counter: expect, digest };
                return self.execute(now, asker, &user, id, command);
            }
            Place::Reused => StateFault::CounterReused,
            Place::Ahead { expect } => StateFault::Counter { expect },
        };
        let refusal = Refusal::State(fault);
        self.reply(conn, ServerFrame::Refused { counter, refusal });
    }

    /// Decides a command that was never seen before.
    fn execute(
        &mut self,
        now: Now,
        asker: Asker,
        user: &UserName,
        id: CommandId,
        command: &Command,
    ) {
        let decided = match command {
            Command::Post { room, incarnation, body } => {
                self.decide_post(user, room, *incarnation, body, id)
            }
            Command::Reset { room, threshold } => {
                self.decide_reset(now, user, room, *threshold, id)
            }
            Command::Moderate { user: target, measure } => {
                self.decide_moderate(user, target, *measure, id)
            }
        };
        let change = decided.unwrap_or_else(|refusal| {
            let for_good = !refusal.is_passing_for(command);
            assert!(for_good, "a command that is refused for now must not get an entry");
            Change::Refused { command: id, refusal }
        });
        let is_reset = matches!(change, Change::Reset { .. });
        let reset = change.room().filter(|_| is_reset).cloned();
        if let Change::Moderated { user, measure, by } = change {
            self.carry_out(now, user, measure, by);
        } else {
            self.append(now, change);
        }
        let answer =
            self.durable.session(&id.session).map(|state| state.place(id.counter, id.digest));
        if let Some(Place::Answered(answer)) = answer {
            let pending = Pending::outcome(asker.conn, asker.counter, answer.outcome);
            self.when_committed(answer.index, pending);
        }
        if let Some(room) = reset {
            self.open_gate_if_met(now, &room);
        }
    }

    fn decide_post(
        &self,
        user: &UserName,
        room: &Untrusted<RoomName>,
        incarnation: Option<Incarnation>,
        body: &Untrusted<Body>,
        command: CommandId,
    ) -> Result<Change, Refusal> {
        let text: Body = body.parse()?;
        let (name, state) = find_room(&self.durable, room)?;
        if !state.members.contains(user) {
            return Err(Refusal::State(StateFault::NotMember));
        }
        let other_life = incarnation.is_some_and(|wanted| wanted != state.incarnation());
        if other_life && !mutated!(self, PostIntoNewLife) {
            return Err(Refusal::State(StateFault::OtherIncarnation));
        }
        let fits = has_room_to_hold(&self.durable, &self.config.limits, &name, text.as_ref().len());
        if !fits && !mutated!(self, HoldWithoutLimit) {
            return Err(Refusal::Limit(LimitFault::Held));
        }
        #[cfg(chat_mutants)]
        let user = state.members.first().filter(|_| mutated!(self, WrongAuthor)).unwrap_or(user);
        let (incarnation, seq) = (state.incarnation(), state.last().next());
        Ok(Change::Posted { room: name, incarnation, seq, command, from: user.clone(), text })
    }

    fn decide_reset(
        &mut self,
        now: Now,
        user: &UserName,
        room: &Untrusted<RoomName>,
        threshold: Threshold,
        command: CommandId,
    ) -> Result<Change, Refusal> {
        if !self.durable.is_operator(user) && !mutated!(self, AnyoneResets) {
            return Err(Refusal::Perm);
        }
        let (name, state) = find_room(&self.durable, room)?;
        let incarnation = state.incarnation().next();
        let limits = &self.config.limits;
        let allowance = Allowance::every(limits.reset_interval, limits.reset_burst);
        let rate = self.volatile.reset_rates.entry(user.clone()).or_default();
        rate.take(now.moment, allowance).map_err(|retry_ms| Refusal::Rate { retry_ms })?;
        let event = Event::Reset { room: name.clone(), incarnation };
        self.outputs.push_back(Output::Event(event));
        Ok(Change::Reset { room: name, incarnation, threshold, command })
    }

    fn decide_moderate(
        &self,
        user: &UserName,
        target: &Untrusted<UserName>,
        measure: Measure,
        command: CommandId,
    ) -> Result<Change, Refusal> {
        if !self.durable.is_operator(user) && !mutated!(self, AnyoneModerates) {
            return Err(Refusal::Perm);
        }
        let target: UserName = target.parse().map_err(|_| Refusal::Target(TargetFault::User))?;
        let by = Moderator::Operator { user: user.clone(), command };
        self.decide_measure(&by, &target, measure)?;
        Ok(Change::Moderated { user: target, measure, by })
    }

    /// Opens a gate once enough distinct users are connected at this instant; whether that is now.
    pub(super) fn open_gate_if_met(&mut self, now: Now, room: &RoomName) -> bool {
        self.changed_gates.push(room.clone());
        let Some(state) = self.durable.room(room) else { return false };
        let gate = state.gate();
        let missing =
            u32::from(gate.threshold().get()).saturating_sub(self.volatile.attending(room));
        if gate.is_open() || missing > u32::from(mutated!(self, OpenGateEarly)) {
            return false;
        }
        let incarnation = state.incarnation();
        self.append(now, Change::GateOpened { room: room.clone(), incarnation });
        self.outputs.push_back(Output::Event(Event::GateOpened { room: room.clone() }));
        true
    }

    /// A user stops being a member of a room.
    pub(super) fn leave_room(&mut self, now: Now, room: &RoomName, user: &UserName) {
        self.volatile.end_grace(user, room);
        self.volatile.expect_no_more(user, room);
        let Some(state) = self.durable.room(room) else { return };
        if !state.members.contains(user) {
            return;
        }
        let incarnation = state.incarnation();
        let seq = presence_seq(&self.durable, &self.config.limits, room);
        let (room, user) = (room.clone(), user.clone());
        self.changed_gates.push(room.clone());
        self.append(now, Change::Left { room, incarnation, seq, user });
    }
}

/// A room by the name a peer gave.
pub(super) fn find_room<'a>(
    durable: &'a Durable,
    room: &Untrusted<RoomName>,
) -> Result<(RoomName, &'a crate::engine::room::Room), Refusal> {
    let missing = Refusal::Target(TargetFault::Room);
    let name: RoomName = room.parse().map_err(|_| missing)?;
    let state = durable.room(&name).ok_or(missing)?;
    Ok((name, state))
}

/// Whether a room may take one more record of so many bytes: always, once its gate is open.
fn has_room_to_hold(durable: &Durable, limits: &Limits, room: &RoomName, bytes: usize) -> bool {
    let Some(state) = durable.room(room) else { return false };
    if state.gate().is_open() {
        return true;
    }
    let more = |held: u64| held.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
    state.held_records() < u64::from(limits.held_records_max)
        && more(state.held_bytes()) <= limits.held_bytes_max
        && more(durable.held_bytes()) <= limits.held_bytes_total_max
}

/// The place of a join or leave record; none in a crowd, or when the gate holds all it may.
pub(super) fn presence_seq(durable: &Durable, limits: &Limits, room: &RoomName) -> Option<Seq> {
    let Some(state) = durable.room(room) else { return Some(Seq::ZERO.next()) };
    let members = u32::try_from(state.members.len()).unwrap_or(u32::MAX);
    let told = members <= limits.crowd_members && has_room_to_hold(durable, limits, room, 0);
    told.then(|| state.last().next())
}
