//! Questions: joining, leaving, looking around, and what the store was asked for them.

use chatcore::engine::{Archive, Directive, Need, Page, ReadToken};
use chatcore::id::{ConnId, Incarnation, Index, RequestId, Seq};
use chatcore::log::Change;
use chatcore::text::{RoomName, Untrusted, UserName};
use chatcore::time::Span;
use chatcore::wire::{
    Answer, LIST_MAX, LimitFault, NameFault, Question, Record, Refusal, ServerFrame, Start,
    StateFault, TargetFault,
};

use super::due::{CatchUpDue, Newest, Source, What};
use super::login::BUSY;
use super::presence::{Asked, CatchUp, Phase, Reader, Reading, Store, Waiting};
use super::truth::to_u32;
use super::{Model, due::Duty};

/// How long a store that could not read is left alone.
const STORE_RETRY: Span = Span::from_secs(1);

impl Model {
    pub(super) fn ask(&mut self, conn: ConnId, request: RequestId, question: &Question) {
        if let Err(refusal) = self.admit_question(conn) {
            let answer = Answer::Refused(refusal);
            return self.due.send(conn, ServerFrame::Answer { request, answer });
        }
        let asked = match question {
            Question::Join { room, start } => self.join(conn, room, *start),
            Question::Part { room } => self.part(conn, room),
            Question::Who { .. }
            | Question::Rooms
            | Question::Whois { .. }
            | Question::History { .. } => return self.look_around(conn, request, question),
        };
        match asked {
            Ok((index, what)) => {
                self.when_safe(index, Waiting::Question { conn, request, what });
            }
            // It passes by itself, whatever the journal says.
            Err(Refusal::Store) => {
                let answer = Answer::Refused(Refusal::Store);
                self.due.send(conn, ServerFrame::Answer { request, answer });
            }
            Err(refusal) => {
                let answer = Answer::Refused(refusal);
                self.reply(conn, ServerFrame::Answer { request, answer });
            }
        }
    }

    /// A question that changes nothing waits for what was appended before it, but not for a store
    /// that is full.
    fn look_around(&mut self, conn: ConnId, request: RequestId, question: &Question) {
        let waiting = match self.look(conn, question) {
            Ok(what) => Waiting::Question { conn, request, what },
            Err(refusal) => {
                let frame = ServerFrame::Answer { request, answer: Answer::Refused(refusal) };
                Waiting::Frame { conn, frame }
            }
        };
        match self.process.store {
            Store::Free => self.when_safe(self.last, waiting),
            Store::Full => self.release(waiting),
        }
    }

    /// Questions that change nothing wait no longer for a store that is full.
    pub(super) fn store_full(&mut self) {
        self.process.store = Store::Full;
        for (after, waiting) in core::mem::take(&mut self.process.waiting) {
            let Waiting::Question { conn, request, what } = waiting else {
                self.process.waiting.push_back((after, waiting));
                continue;
            };
            match what {
                Asked::Join { .. } | Asked::Part { .. } => {
                    let waiting = Waiting::Question { conn, request, what };
                    self.process.waiting.push_back((after, waiting));
                }
                Asked::Who { .. } | Asked::Rooms | Asked::Whois { .. } | Asked::History { .. } => {
                    if let Some(state) = self.process.conns.get_mut(&conn) {
                        state.waiting -= 1;
                    }
                    self.release(Waiting::Question { conn, request, what });
                }
            }
        }
    }

    fn look(&self, conn: ConnId, question: &Question) -> Result<Asked, Refusal> {
        match question {
            Question::Rooms | Question::Join { .. } | Question::Part { .. } => Ok(Asked::Rooms),
            Question::Who { room } => self.followed(conn, room).map(|room| Asked::Who { room }),
            Question::Whois { room, user } => {
                let room = self.followed(conn, room)?;
                Ok(Asked::Whois { room, user: user.parse().ok() })
            }
            Question::History { room, before, limit } => {
                let room = self.followed(conn, room)?;
                let limit = usize::from(*limit).clamp(1, LIST_MAX);
                Ok(Asked::History { room, before: *before, limit })
            }
        }
    }

    fn admit_question(&mut self, conn: ConnId) -> Result<(), Refusal> {
        if self.is_crowded(conn) {
            return Err(BUSY);
        }
        let (interval, burst) = (self.limits.question_interval, self.limits.question_burst);
        let Some(state) = self.process.conns.get_mut(&conn) else { return Ok(()) };
        let taken = state.questions.take(self.now.moment, interval, burst);
        taken.map_err(|retry_ms| Refusal::Rate { retry_ms })
    }

    /// The room that a connection means and follows.
    fn followed(&self, conn: ConnId, room: &Untrusted<RoomName>) -> Result<RoomName, Refusal> {
        let (room, _) = self.target(room)?;
        let follows = self.process.online(conn).is_some_and(|online| online.rooms.contains(&room));
        if follows { Ok(room) } else { Err(Refusal::State(StateFault::NotMember)) }
    }

    fn join(
        &mut self,
        conn: ConnId,
        room: &Untrusted<RoomName>,
        start: Start,
    ) -> Result<(Index, Asked), Refusal> {
        let room: RoomName = room.parse().map_err(|error| Refusal::Name(NameFault::Bad(error)))?;
        let online = self.process.online(conn).expect("only who is logged in joins");
        let user = online.user.clone();
        let changes = self.decide_join(&room, &user)?;
        self.admit_changes(changes)?.into_iter().for_each(|change| self.append(change));
        self.process.attend(conn, &room);
        let opens = self.open_if_met(&room);
        Ok((self.basis_of_presence(&room, &user), Asked::Join { room, start, opens }))
    }

    /// An answer that says that a user is in a room or not tells of that, and of the gate.
    fn basis_of_presence(&self, room: &RoomName, user: &UserName) -> Index {
        self.basis(|change| match change {
            Change::Joined { room: of, user: who, .. }
            | Change::Left { room: of, user: who, .. } => (of, who) == (room, user),
            Change::GateOpened { room: of, .. } => of == room,
            Change::Founded(_)
            | Change::UserAdded { .. }
            | Change::OperatorGranted { .. }
            | Change::SessionOpened { .. }
            | Change::SessionExpired { .. }
            | Change::RoomCreated { .. }
            | Change::Posted { .. }
            | Change::Refused { .. }
            | Change::Reset { .. }
            | Change::Trimmed { .. }
            | Change::Moderated { .. } => false,
        })
    }

    /// What a join appends; nothing for a member.
    fn decide_join(&self, room: &RoomName, user: &UserName) -> Result<Vec<Change>, Refusal> {
        let joined = &self.facts.users.get(user).expect("who is connected is a user").rooms;
        if joined.contains(room) {
            return Ok(Vec::new());
        }
        if to_u32(joined.len()) >= self.limits.rooms_per_user_max {
            return Err(Refusal::Limit(LimitFault::RoomsOfUser));
        }
        let join = |incarnation, seq| Change::Joined {
            room: room.clone(),
            incarnation,
            seq,
            user: user.clone(),
        };
        if let Some(state) = self.facts.rooms.get(room) {
            return Ok(vec![join(state.incarnation, self.presence_seq(state))]);
        }
        if to_u32(self.facts.rooms.len()) >= self.limits.rooms_max {
            return Err(Refusal::Limit(LimitFault::Rooms));
        }
        let created =
            Change::RoomCreated { room: room.clone(), threshold: self.founding.threshold };
        // The first record of a room is always made.
        Ok(vec![created, join(Incarnation::ZERO.next(), Some(Seq::ZERO.next()))])
    }

    fn part(
        &mut self,
        conn: ConnId,
        room: &Untrusted<RoomName>,
    ) -> Result<(Index, Asked), Refusal> {
        let room = self.followed(conn, room)?;
        let state = self.process.conns.get_mut(&conn);
        let Some(Phase::Online(online)) = state.map(|conn| &mut conn.phase) else {
            return Err(Refusal::Target(TargetFault::Room));
        };
        online.rooms.remove(&room);
        let user = online.user.clone();
        self.touched.push(room.clone());
        if self.process.desert(conn, &user, &room) {
            self.leave(&room, &user);
        }
        Ok((self.basis_of_presence(&room, &user), Asked::Part { room }))
    }

    /// A page of history, as it is to be seen now.
    pub(super) fn history(
        &mut self,
        (conn, request): (ConnId, RequestId),
        room: RoomName,
        before: Option<Seq>,
        limit: usize,
    ) {
        let truth = self.safe.rooms.get(&room).expect("a room that is asked about is made");
        let visible = truth.visible();
        let last = before.map_or(visible, |before| before.previous().min(visible));
        let first = last.next().saturating_sub(limit.try_into().unwrap_or(u64::MAX));
        let entries = truth.entries(first.max(truth.oldest()), last).to_vec();
        let (incarnation, source) = (truth.incarnation, Source::Memory);
        let newest = Newest { conn, request, room, incarnation, last, limit, entries, source };
        let duty = self.duty_to(conn);
        self.due.add(What::Newest(newest), duty);
    }

    pub(super) fn fetch(&mut self, need: Need) {
        let Some(state) = self.process.conns.get_mut(&need.conn) else { return };
        if state.online().is_none() {
            return;
        }
        // One page at a time; what was asked first is of no use any more.
        match &mut state.catch_up {
            CatchUp::Idle => {}
            CatchUp::Resting(next) => {
                *next = need;
                return;
            }
            reading @ (CatchUp::Reading | CatchUp::ReadingBefore(_)) => {
                *reading = CatchUp::ReadingBefore(need);
                return;
            }
        }
        let Need { conn, room, incarnation, after } = need;
        let Some(truth) = self.safe.rooms.get(&room) else { return };
        if truth.incarnation == incarnation && after < truth.visible() {
            self.due.must(What::CatchUp(CatchUpDue { conn, room, incarnation, after }));
        }
    }

    pub(super) fn read_done(&mut self, token: ReadToken, records: &[Record]) {
        let Some(reading) = self.process.reads.remove(&token) else { return };
        let Reading { conn, room, incarnation, from, to, whose } = reading;
        let is_present =
            self.safe.rooms.get(&room).is_some_and(|truth| truth.incarnation == incarnation);
        // What was read before it was trimmed is not shown after.
        let trimmed = self.safe.rooms.get(&room).map_or(Seq::ZERO, |truth| truth.trimmed);
        let left = || records.iter().map(|record| record.seq).filter(|seq| *seq > trimmed);
        let given = (left().next(), left().next_back());
        let to = if given.0.is_none() && !records.is_empty() { to.min(trimmed) } else { to };
        let duty = self.duty_to(conn);
        match whose {
            Reader::Lagging => {
                if is_present {
                    self.give((conn, duty), &room, incarnation, (from, to), given);
                }
                self.read_on(conn);
            }
            Reader::History { request, limit } => {
                if let Some(state) = self.process.conns.get_mut(&conn) {
                    state.reads_history = false;
                }
                // A reset ended the life that was asked about: nothing of it is shown.
                let what = if is_present {
                    let truth = self.safe.rooms.get(&room).expect("it is there");
                    let last = given.1.unwrap_or(Seq::ZERO);
                    let longest = last.next().saturating_sub(u64::try_from(limit).unwrap_or(256));
                    let first = given.0.unwrap_or(last).max(longest);
                    let entries = truth.entries(first, last).to_vec();
                    let source = Source::Store;
                    let last = to;
                    What::Newest(Newest {
                        conn,
                        request,
                        room,
                        incarnation,
                        last,
                        limit,
                        entries,
                        source,
                    })
                } else {
                    let answer = Answer::Refused(Refusal::State(StateFault::OtherIncarnation));
                    let frame = ServerFrame::Answer { request, answer };
                    What::Exactly(Directive::Send { conn, frame })
                };
                self.due.add(what, duty);
            }
        }
    }

    /// A lagging reader gets what the store gave, and is told what it no longer has.
    fn give(
        &mut self,
        (conn, duty): (ConnId, Duty),
        room: &RoomName,
        incarnation: Incarnation,
        (from, to): (Seq, Seq),
        given: (Option<Seq>, Option<Seq>),
    ) {
        let first = given.0.unwrap_or(to.next());
        if first > from {
            let (room, page) = (room.clone(), Page::Gone { to: first.previous() });
            let what = What::Exactly(Directive::Page { conn, room, incarnation, page });
            self.due.add(what, duty);
        }
        if let Some(last) = given.1 {
            let what = What::Given { conn, room: room.clone(), incarnation, first, last };
            self.due.add(what, duty);
        }
    }

    /// What a reader asked for meanwhile is next, or what could not be read.
    pub(super) fn read_on(&mut self, conn: ConnId) {
        let Some(state) = self.process.conns.get_mut(&conn) else { return };
        match core::mem::take(&mut state.catch_up) {
            CatchUp::ReadingBefore(need) | CatchUp::Resting(need) => self.fetch(need),
            CatchUp::Idle | CatchUp::Reading => {}
        }
    }

    /// The store could not read: a question is told so, a lagging reader is served later.
    pub(super) fn read_failed(&mut self, token: ReadToken) {
        let Some(reading) = self.process.reads.remove(&token) else { return };
        let Reading { conn, room, incarnation, from, whose, .. } = reading;
        let duty = self.duty_to(conn);
        let state = self.process.conns.get_mut(&conn);
        match whose {
            Reader::History { request, .. } => {
                if let Some(state) = state {
                    state.reads_history = false;
                }
                let answer = Answer::Refused(Refusal::Store);
                let frame = ServerFrame::Answer { request, answer };
                self.due.add(What::Exactly(Directive::Send { conn, frame }), duty);
            }
            Reader::Lagging => {
                let Some(state) = state else { return };
                let failed = Need { conn, room, incarnation, after: from.previous() };
                let need = match core::mem::take(&mut state.catch_up) {
                    CatchUp::ReadingBefore(newer) => newer,
                    CatchUp::Idle | CatchUp::Reading | CatchUp::Resting(_) => failed,
                };
                state.catch_up = CatchUp::Resting(need);
                self.process.rests.insert((self.now.moment + STORE_RETRY, conn));
            }
        }
    }

    /// Whether the store keeps what memory does not.
    pub(super) fn has_store(&self) -> bool {
        self.archive == Archive::Store
    }
}
