//! What frames mean: answers, records, notices.

use crate::client::machine::{Phase, RETRY_TIME, is_sign_of_life};
use crate::client::questions::{Line, Pages, Progress, Purpose, Step};
use crate::client::rooms::{Wanted, Wish};
use crate::client::roster::Again;
use crate::client::{Ask, Client, Event, Place, Save, Unsent};
use crate::id::{Counter, Incarnation, RequestId, Seq};
use crate::text::RoomName;
use crate::time::{Moment, Span};
use crate::wire::{
    Answer, ClientFrame, Command, Cursor, LimitFault, Question, Refusal, ServerFrame, StateFault,
    TargetFault,
};

const UNEXPECTED: &str = "the server sent something unexpected";

impl Client {
    pub(super) fn handle_frame(&mut self, now: Moment, frame: ServerFrame) {
        match (&mut self.phase, frame) {
            (Phase::Idle | Phase::Dialling { .. } | Phase::Waiting { .. } | Phase::Stopped, _)
            // Who waits may yet be let in, and waits no longer than for any answer.
            | (Phase::LoggingIn { .. }, ServerFrame::Parked(_)) => {}
            (_, ServerFrame::Close(refusal)) => self.take_leave(now, refusal),
            (_, ServerFrame::Moved(location)) => {
                self.heed(Some(location.log_id), location.generation);
                self.take_leave(now, Refusal::Gone);
            }
            (_, ServerFrame::Ping { token }) => {
                self.out.send(ClientFrame::Pong { token });
                self.hear(now);
            }
            (Phase::Online { .. }, frame) => {
                self.hear(now);
                self.handle_online_frame(now, frame);
            }
            (Phase::Greeting { .. }, ServerFrame::Hello(hello)) => self.meet(now, hello),
            (Phase::LoggingIn { .. }, ServerFrame::Welcome(welcome)) => self.enter(now, welcome),
            (
                Phase::Identifying(_) | Phase::Signing(_) | Phase::LoggingIn { .. },
                ServerFrame::Proof { signature },
            ) => self.take_proof(now, signature),
            (_, frame) if is_sign_of_life(&frame) => {}
            (
                Phase::Greeting { .. }
                | Phase::Identifying(_)
                | Phase::Signing(_)
                | Phase::LoggingIn { .. },
                _,
            ) => self.hang_up(now, UNEXPECTED),
        }
    }

    fn hear(&mut self, now: Moment) {
        if let Phase::Online { silence, .. } = &mut self.phase {
            silence.hear(now);
        }
    }

    fn handle_online_frame(&mut self, now: Moment, frame: ServerFrame) {
        match frame {
            ServerFrame::Accepted { counter, room, incarnation, seq } => {
                self.accept(counter, room, incarnation, seq);
            }
            ServerFrame::Applied { counter } => self.apply(counter),
            ServerFrame::Refused { counter, refusal } => self.reject(now, counter, refusal),
            ServerFrame::Answer { request, answer } => self.take_answer(now, request, answer),
            ServerFrame::Record(record) => {
                self.rooms.record(record, &mut self.out);
                #[cfg(chat_mutants)]
                if mutated!(self, ClientSavesBeforeShowing) {
                    self.out.save_first();
                }
            }
            ServerFrame::Gap { room, incarnation, from, to } => {
                self.rooms.gap(&room, Cursor { incarnation, seq: from }, to, &mut self.out);
            }
            ServerFrame::Gate { room, gate } => self.rooms.gate(&room, gate, &mut self.out),
            ServerFrame::Reset { room, incarnation, threshold } => {
                self.rooms.reset(&room, incarnation, threshold, &mut self.out);
            }
            ServerFrame::Rejected(refusal) => self.refuse(None, refusal),
            ServerFrame::Notice(notice) => self.out.event(Event::Notice(notice)),
            ServerFrame::Generation { generation } => self.heed(None, generation),
            ServerFrame::Pong { .. }
            | ServerFrame::Ping { .. }
            | ServerFrame::Close(_)
            | ServerFrame::Moved(_)
            | ServerFrame::Prepare { .. }
            | ServerFrame::Stay => {}
            ServerFrame::Hello(_)
            | ServerFrame::Welcome(_)
            | ServerFrame::Proof { .. }
            | ServerFrame::Parked(_)
            | ServerFrame::Status(_) => {
                self.hang_up(now, UNEXPECTED);
            }
        }
    }

    fn accept(
        &mut self,
        counter: Counter,
        room: RoomName,
        incarnation: Incarnation,
        seq: Option<Seq>,
    ) {
        let Some(Unsent { id, .. }) = self.outbox.settle(counter) else { return };
        self.note_kept();
        if let Some(seq) = seq {
            self.rooms.note_own_post(&room, Cursor { incarnation, seq });
        }
        // The event first: who dies in between hears it again, not never.
        self.out.event(Event::Sent { id, room, incarnation, seq });
        if !mutated!(self, ClientKeepsAnswered) {
            self.out.save(Save::Settled(counter));
        }
    }

    fn apply(&mut self, counter: Counter) {
        let Some(Unsent { id, command, .. }) = self.outbox.settle(counter) else { return };
        self.note_kept();
        let event = match self.effect(&id, &command) {
            Ok(event) => event,
            Err(refusal) => Event::Refused { id: Some(id), refusal },
        };
        self.out.event(event);
        self.out.save(Save::Settled(counter));
    }

    /// What there is to show of a command that took effect. Only a damaged file holds one for a room
    /// or a user that cannot be.
    fn effect(&mut self, id: &str, command: &Command) -> Result<Event, Refusal> {
        let no_room = Refusal::Target(TargetFault::Room);
        let (room, incarnation) = match command {
            Command::Post { room, .. } => {
                let room = room.parse().map_err(|_| no_room)?;
                let incarnation = self.rooms.incarnation(&room).unwrap_or_default();
                (room, incarnation)
            }
            Command::Reset { room, .. } => {
                let room: RoomName = room.parse().map_err(|_| no_room)?;
                let incarnation = self.rooms.end_reset(room.as_ref());
                (room, incarnation)
            }
            Command::Moderate { user, measure } => {
                let user = user.parse().map_err(|_| Refusal::Target(TargetFault::User))?;
                return Ok(Event::Moderated { id: id.to_owned(), user, measure: *measure });
            }
        };
        Ok(Event::Sent { id: id.to_owned(), room, incarnation, seq: None })
    }

    fn reject(&mut self, now: Moment, counter: Counter, refusal: Refusal) {
        let command = self.outbox.command(counter);
        if command.is_some_and(|command| refusal.is_passing_for(command)) {
            self.note_delay(refusal);
            if mutated!(self, ClientDropsRefused) {
                self.outbox.settle(counter);
            } else if self.outbox.land(counter) {
                let hurries = mutated!(self, ClientIgnoresRetry);
                let wait = if hurries { Span::ZERO } else { retry_after(refusal) };
                self.outbox.go_back(counter, now, wait);
            }
            return;
        }
        if let Refusal::State(StateFault::Counter { expect }) = refusal {
            if self.outbox.land(counter) && !self.outbox.go_back(expect, now, RETRY_TIME) {
                self.break_session(now);
            }
            return;
        }
        let Some(Unsent { id, command, .. }) = self.outbox.settle(counter) else { return };
        self.give_up(&command);
        self.refuse(Some(id), refusal);
        self.out.save(Save::Settled(counter));
    }

    fn take_answer(&mut self, now: Moment, request: RequestId, answer: Answer) {
        let Some(purpose) = self.questions.take(request) else { return };
        match (purpose, answer) {
            (Purpose::Join(room), Answer::Joined(joined)) if joined.room == room => {
                // What was not typed now comes after a reconnect, and tells nothing of the store.
                if self.rooms.take_label(&room).is_some() {
                    self.note_kept();
                }
                self.rooms.join(joined, &mut self.out);
            }
            // The room was left before the join was answered.
            (Purpose::Join(_), Answer::Parted { .. }) => {}
            (Purpose::Join(room), Answer::Refused(refusal)) => {
                self.refuse_join(now, &room, refusal);
            }
            (Purpose::Part(_, room), Answer::Parted { .. }) => {
                self.rooms.part(&room);
                self.out.event(Event::Parted { room });
            }
            (Purpose::Part(line, room), Answer::Refused(refusal)) => {
                self.refuse_step(now, line, Step::Part(room), refusal);
            }
            (Purpose::List(room), Answer::Users(list)) if list.room == room => {
                self.rooms.users(list, Wanted::ByClient, &mut self.out);
            }
            (Purpose::List(room), Answer::Refused(refusal)) => {
                self.refuse_list(now, &room, refusal);
            }
            (Purpose::User(line, ask), Answer::Refused(refusal)) => {
                self.refuse_step(now, line, Step::Ask(ask), refusal);
            }
            (Purpose::History(line, pages), Answer::Refused(refusal)) => {
                self.refuse_step(now, line, Step::Page(pages), refusal);
            }
            (Purpose::User(_, Ask::Who(room)), Answer::Users(list)) if list.room == room => {
                self.rooms.users(list, Wanted::ByUser, &mut self.out);
            }
            (Purpose::User(_, Ask::Rooms), Answer::Rooms { rooms, count }) => {
                self.out.event(Event::Rooms { rooms: rooms.into_vec(), count });
            }
            (Purpose::User(_, Ask::Whois(_, user)), Answer::User(info)) if info.user == user => {
                self.out.event(Event::User(info));
            }
            (Purpose::History(line, mut pages), Answer::History { room, incarnation, records })
                if room == *pages.room() =>
            {
                let progress = pages.add(incarnation, records.into_vec());
                let ends = mutated!(self, ClientEndsHistoryEarly);
                let progress = if ends { Progress::Done } else { progress };
                self.continue_history(line, pages, progress);
            }
            _ => self.hang_up(now, UNEXPECTED),
        }
    }

    fn refuse_join(&mut self, now: Moment, room: &RoomName, refusal: Refusal) {
        if !self.rooms.is_wanted(room) {
            return;
        }
        if refusal.is_passing() {
            self.note_delay(refusal);
            return self.rooms.retry(room, now + retry_after(refusal));
        }
        let id = self.rooms.take_label(room);
        self.rooms.part(room);
        self.refuse(id, refusal);
    }

    /// What the client wanted to know for itself was refused.
    fn refuse_list(&mut self, now: Moment, room: &RoomName, refusal: Refusal) {
        let is_passing = matches!(refusal, Refusal::Rate { .. } | Refusal::Busy { .. })
            && !mutated!(self, ClientForgetsList);
        if is_passing {
            self.questions.hold(now + retry_after(refusal));
        }
        self.rooms.refuse_list(room, if is_passing { Again::Now } else { Again::WithGate });
    }

    /// A question of the user was refused. That the server is too busy is no answer yet.
    fn refuse_step(&mut self, now: Moment, line: Line, step: Step, refusal: Refusal) {
        if matches!(refusal, Refusal::Rate { .. } | Refusal::Busy { .. }) {
            self.questions.retry(line, step, now + retry_after(refusal));
        } else if !mutated!(self, ClientSwallowsRefusal) {
            self.refuse(Some(line.id), refusal);
        }
    }

    fn send_question(&mut self, purpose: Purpose, question: Question) {
        let request = self.questions.label(purpose);
        self.out.send(ClientFrame::Ask { request, question });
    }

    /// Sends what waits for a connection, for its turn or for its time.
    pub(super) fn send_what_is_due(&mut self, now: Moment) {
        if self.is_stopped() {
            return;
        }
        if !self.is_online() {
            // A room that is left now is not joined again; all else waits for the connection.
            while self.part_offline(now) {}
            return;
        }
        loop {
            self.send_wishes(now);
            if !self.take_step(now) && !self.send_command(now) {
                break;
            }
        }
        let due = self.outbox.awaits_answers() || self.questions.awaits_answers();
        if let Phase::Online { silence, .. } = &mut self.phase {
            silence.expect(now, due);
        }
    }

    fn send_wishes(&mut self, now: Moment) {
        let may_be_asked = !self.questions.is_held(now);
        while let Some(wish) = self.rooms.poll_wish(now, may_be_asked) {
            let question = wish.question(self.config.start);
            let purpose = match wish {
                Wish::Join(room, _) => Purpose::Join(room),
                Wish::Who(room) => Purpose::List(room),
            };
            self.send_question(purpose, question);
        }
    }

    /// Sends the next command, if it is its turn.
    fn send_command(&mut self, now: Moment) -> bool {
        let (barrier, rooms) = (self.questions.barrier(), &self.rooms);
        let may_go = |place: Place, command: &Command| {
            let waits_for_join = match command {
                Command::Post { room, .. } | Command::Reset { room, .. } => {
                    rooms.is_joining(room.as_str())
                }
                Command::Moderate { .. } => false,
            };
            barrier.is_none_or(|barrier| place < barrier) && !waits_for_join
        };
        let Some((counter, command)) = self.outbox.poll_send(now, may_go) else { return false };
        self.out.send(ClientFrame::Submit { counter, command });
        true
    }

    /// Does the next thing that is no command, if it is its turn.
    fn take_step(&mut self, now: Moment) -> bool {
        let Some((place, step)) = self.questions.next(now) else { return false };
        let follows = match step {
            // Whoever has left a room has posts to it refused.
            Step::Part(_) => self.outbox.is_answered_before(place),
            Step::Join(_) | Step::Ask(_) | Step::Page(_) => self.outbox.is_sent_before(place),
        };
        if !follows || step.room().is_some_and(|room| self.rooms.is_joining(room.as_str())) {
            return false;
        }
        let Some((line, step)) = self.questions.take_next() else { return false };
        match step {
            Step::Join(room) if self.rooms.want(&room) => self.rooms.label(&room, line.id),
            Step::Join(_) => {
                self.refuse(Some(line.id), Refusal::Limit(LimitFault::RoomsOfUser));
            }
            Step::Part(room) => {
                let question = Question::Part { room: (&room).into() };
                self.send_question(Purpose::Part(line, room), question);
            }
            Step::Ask(ask) => self.send_ask(line, ask),
            Step::Page(pages) => self.continue_history(line, pages, Progress::More),
        }
        true
    }

    /// Leaves a room without a connection, if nothing is to be said in it before.
    fn part_offline(&mut self, now: Moment) -> bool {
        let Some((place, Step::Part(_))) = self.questions.next(now) else { return false };
        if !self.outbox.is_answered_before(place) {
            return false;
        }
        let Some((line, Step::Part(room))) = self.questions.take_next() else { return false };
        self.part(line, room);
        true
    }

    /// Leaves a room that no connection is in.
    pub(super) fn part(&mut self, line: Line, room: RoomName) {
        if self.rooms.is_wanted(&room) {
            self.rooms.part(&room);
            self.out.event(Event::Parted { room });
        } else {
            self.refuse(Some(line.id), Refusal::State(StateFault::NotMember));
        }
    }

    fn send_ask(&mut self, line: Line, ask: Ask) {
        let question = match &ask {
            Ask::Who(room) => Question::Who { room: room.into() },
            Ask::Rooms => Question::Rooms,
            Ask::Whois(room, user) => Question::Whois { room: room.into(), user: user.into() },
            Ask::History(room, count) => {
                let pages = Pages::new(room.clone(), *count);
                let progress = if *count == 0 { Progress::Done } else { Progress::More };
                return self.continue_history(line, pages, progress);
            }
        };
        self.send_question(Purpose::User(line, ask), question);
    }

    fn continue_history(&mut self, line: Line, pages: Pages, progress: Progress) {
        match progress {
            Progress::More => {
                let question = pages.question();
                self.send_question(Purpose::History(line, pages), question);
            }
            Progress::Done => {
                let room = pages.room().clone();
                self.out.event(Event::History { room, records: pages.into_records() });
            }
        }
    }
}

/// How long to wait after a passing refusal.
const fn retry_after(refusal: Refusal) -> Span {
    if let Refusal::Rate { retry_ms } | Refusal::Busy { retry_ms } = refusal {
        return retry_ms;
    }
    RETRY_TIME
}
