//! Questions: joining, leaving, looking around, and what the store was asked for them.

use chatcore::engine::{Archive, Directive, Need, Page, ReadToken};
use chatcore::id::{ConnId, Incarnation, RequestId, Seq};
use chatcore::log::Change;
use chatcore::text::{RoomName, Untrusted, UserName};
use chatcore::wire::{
    Answer, LIST_MAX, LimitFault, NameFault, Question, Record, Refusal, ServerFrame, Start,
    StateFault, TargetFault,
};

use super::due::{CatchUpDue, Newest, Source, What};
use super::login::BUSY;
use super::presence::{Asked, CatchUp, Reader, Reading, Waiting};
use super::truth::to_u32;
use super::{Model, due::Duty};

impl Model {
    pub(super) fn ask(&mut self, conn: ConnId, request: RequestId, question: &Question) {
        if let Err(refusal) = self.admit_question(conn) {
            let answer = Answer::Refused(refusal);
            return self.due.send(conn, ServerFrame::Answer { request, answer });
        }
        let asked = match question {
            Question::Join { room, start } => self.join(conn, room, *start),
            Question::Part { room } => self.part(conn, room),
            Question::Who { room } => self.followed(conn, room).map(|room| Asked::Who { room }),
            Question::Rooms => Ok(Asked::Rooms),
            Question::Whois { room, user } => self.followed(conn, room).map(|room| {
                let user: Option<UserName> = user.parse().ok();
                Asked::Whois { room, user }
            }),
            Question::History { room, before, limit } => self.followed(conn, room).map(|room| {
                let limit = usize::from(*limit).clamp(1, LIST_MAX);
                Asked::History { room, before: *before, limit }
            }),
        };
        match asked {
            Ok(what) => self.when_safe(self.last, Waiting::Question { conn, request, what }),
            Err(refusal) => {
                let answer = Answer::Refused(refusal);
                self.reply(conn, ServerFrame::Answer { request, answer });
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
    ) -> Result<Asked, Refusal> {
        let room: RoomName = room.parse().map_err(|error| Refusal::Name(NameFault::Bad(error)))?;
        let online = self.process.online(conn).expect("only who is logged in joins");
        let user = online.user.clone();
        self.become_member(&room, &user)?;
        self.process.attend(conn, &room);
        self.open_if_met(&room);
        Ok(Asked::Join { room, start })
    }

    fn become_member(&mut self, room: &RoomName, user: &UserName) -> Result<(), Refusal> {
        let joined = &self.facts.users.get(user).expect("who is connected is a user").rooms;
        if joined.contains(room) {
            return Ok(());
        }
        if to_u32(joined.len()) >= self.limits.rooms_per_user_max {
            return Err(Refusal::Limit(LimitFault::RoomsOfUser));
        }
        if !self.facts.rooms.contains_key(room) {
            if to_u32(self.facts.rooms.len()) >= self.limits.rooms_max {
                return Err(Refusal::Limit(LimitFault::Rooms));
            }
            let threshold = self.founding.threshold;
            self.append(Change::RoomCreated { room: room.clone(), threshold });
            // The first record of a room is always made.
            let (incarnation, seq) = (Incarnation::ZERO.next(), Some(Seq::ZERO.next()));
            self.append(Change::Joined {
                room: room.clone(),
                incarnation,
                seq,
                user: user.clone(),
            });
            return Ok(());
        }
        let state = self.facts.rooms.get(room).expect("it was just found");
        let (incarnation, seq) = (state.incarnation, self.presence_seq(state));
        self.append(Change::Joined { room: room.clone(), incarnation, seq, user: user.clone() });
        Ok(())
    }

    fn part(&mut self, conn: ConnId, room: &Untrusted<RoomName>) -> Result<Asked, Refusal> {
        let room = self.followed(conn, room)?;
        let state = self.process.conns.get_mut(&conn);
        let Some(super::presence::Phase::Online(online)) = state.map(|conn| &mut conn.phase) else {
            return Err(Refusal::Target(TargetFault::Room));
        };
        online.rooms.remove(&room);
        let user = online.user.clone();
        self.touched.push(room.clone());
        if self.process.desert(conn, &user, &room) {
            self.leave(&room, &user);
        }
        Ok(Asked::Part { room })
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
        let entries = truth.entries(first.max(Seq::ZERO.next()), last).to_vec();
        let (incarnation, source) = (truth.incarnation, Source::Memory);
        let newest = Newest { conn, request, room, incarnation, last, limit, entries, source };
        let duty = self.duty_to(conn);
        self.due.directives.push_back(super::due::Expected { what: What::Newest(newest), duty });
    }

    pub(super) fn fetch(&mut self, need: Need) {
        let Some(state) = self.process.conns.get_mut(&need.conn) else { return };
        if state.online().is_none() {
            return;
        }
        // One page at a time; what was asked first is of no use any more.
        if !matches!(state.catch_up, CatchUp::Idle) {
            state.catch_up = CatchUp::ReadingBefore(need);
            return;
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
        let given = (records.first().map(|record| record.seq), records.last().map(|r| r.seq));
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
                self.due.directives.push_back(super::due::Expected { what, duty });
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
            self.due.directives.push_back(super::due::Expected { what, duty });
        }
        if let Some(last) = given.1 {
            let what = What::Given { conn, room: room.clone(), incarnation, first, last };
            self.due.directives.push_back(super::due::Expected { what, duty });
        }
    }

    /// What a reader asked for meanwhile is next.
    fn read_on(&mut self, conn: ConnId) {
        let Some(state) = self.process.conns.get_mut(&conn) else { return };
        if let CatchUp::ReadingBefore(need) = core::mem::take(&mut state.catch_up) {
            self.fetch(need);
        }
    }

    /// Whether the store keeps what memory does not.
    pub(super) fn has_store(&self) -> bool {
        self.archive == Archive::Store
    }
}
