//! Questions: joining, leaving, looking around.

use crate::chunk::{Chunk, ChunkBuilder};
use crate::codec::{PREFIX_BYTES, decode};
use crate::engine::command::presence_seq;
use crate::engine::commit::Pending;
use crate::engine::feed::{Found, RoomFeed};
use crate::engine::room::Room;
use crate::engine::volatile::CatchUp;
use crate::engine::{
    Archive, Directive, Engine, Misuse, Need, Output, Page, ReadOrder, ReadToken, TimerKind,
};
use crate::id::{ConnId, Incarnation, Index, RequestId, Seq};
use crate::log::Change;
use crate::text::{RoomName, Untrusted, UserName};
use crate::time::{Moment, Now, Span};
use crate::wire::{
    Answer, LIST_MAX, LimitFault, List, Question, Record, Refusal, RoomInfo, ServerFrame, Start,
    StateFault, TargetFault, UserList,
};

/// What a client is told to wait when a page of history is still being read for it.
const READ_RETRY: Span = Span::from_millis(100);

/// How long the engine waits before it asks a store again that could not read.
const STORE_RETRY: Span = Span::from_secs(1);

/// Why something is being read from the store.
#[derive(Clone, Debug)]
pub(crate) struct ReadPurpose {
    incarnation: Incarnation,
    room: RoomName,
    from: Seq,
    to: Seq,
    whose: Reader,
}

/// Who waits for records from the store.
#[derive(Clone, Debug)]
enum Reader {
    /// A shard, for a reader that lags.
    Shard(ConnId),
    /// A question for a page of history.
    History { conn: ConnId, request: RequestId, limit: usize },
    /// Nobody any more.
    Nobody,
}

impl ReadPurpose {
    /// Whoever waits is not to be given it.
    pub(super) const fn forget_reader(&mut self) {
        self.whose = Reader::Nobody;
    }
}

/// A question that changes nothing.
#[derive(Clone, Debug)]
pub(crate) enum View {
    /// Who is in a room.
    Users { room: RoomName },
    /// Which rooms there are.
    Rooms,
    /// Who a user is; `None` for a text that is no name.
    User { room: RoomName, user: Option<UserName> },
    /// A page of records.
    History { room: RoomName, before: Option<Seq>, limit: usize },
}

impl Engine {
    pub(super) fn handle_ask(
        &mut self,
        now: Now,
        conn: ConnId,
        request: RequestId,
        question: &Question,
    ) {
        let answer = match question {
            Question::Join { room, start } => self.join(now, conn, request, room, *start),
            Question::Part { room } => self.part(now, conn, request, room),
            Question::Who { .. }
            | Question::Rooms
            | Question::Whois { .. }
            | Question::History { .. } => return self.look_around(conn, request, question),
        };
        match answer {
            Ok((index, pending)) => self.when_committed(index, pending),
            Err(refusal) => {
                let frame = ServerFrame::Answer { request, answer: Answer::Refused(refusal) };
                // What passes by itself has nothing to do with what the journal says.
                if refusal.is_passing() { self.send(conn, frame) } else { self.reply(conn, frame) }
            }
        }
    }

    /// Answers a question that changes nothing. Usually it waits for what was appended before it,
    /// so that whoever posts and then asks finds the post; but not for a store that is full.
    fn look_around(&mut self, conn: ConnId, request: RequestId, question: &Question) {
        let pending = match self.look(conn, question) {
            Ok(view) => Pending::View { conn, request, view },
            Err(refusal) => {
                let frame = ServerFrame::Answer { request, answer: Answer::Refused(refusal) };
                Pending::Frame { conn, frame }
            }
        };
        if self.store_full {
            self.release(pending);
        } else {
            self.when_committed(self.head.index, pending);
        }
    }

    /// What a connection may look at.
    fn look(&self, conn: ConnId, question: &Question) -> Result<View, Refusal> {
        match question {
            Question::Who { room } => Ok(View::Users { room: self.followed_room(conn, room)? }),
            Question::Whois { room, user } => {
                Ok(View::User { room: self.followed_room(conn, room)?, user: user.parse().ok() })
            }
            Question::History { room, before, limit } => {
                let limit = usize::from(*limit).clamp(1, LIST_MAX);
                let (room, before) = (self.followed_room(conn, room)?, *before);
                Ok(View::History { room, before, limit })
            }
            Question::Rooms | Question::Join { .. } | Question::Part { .. } => Ok(View::Rooms),
        }
    }

    fn join(
        &mut self,
        now: Now,
        conn: ConnId,
        request: RequestId,
        room: &Untrusted<RoomName>,
        start: Start,
    ) -> Result<(Index, Pending), Refusal> {
        let room: RoomName = room.parse()?;
        let online = self.volatile.online(conn).expect("who asks must be logged in");
        let user = online.user.clone();
        for change in self.admit_changes(self.decide_join(&room, &user)?)? {
            self.append(now, change);
        }
        self.volatile.attend(conn, &room);
        let opened = self.open_gate_if_met(now, &room);
        let index = self.basis_of_presence(&room, &user);
        Ok((index, Pending::Joined { conn, request, room, start, opened }))
    }

    /// The entry that an answer waits for which says that a user is or is not in a room, and
    /// whether the gate is open.
    fn basis_of_presence(&self, room: &RoomName, user: &UserName) -> Index {
        let concerns = |change: &Change| {
            let own = matches!(change, Change::Joined { user: who, .. }
                | Change::Left { user: who, .. } if who == user);
            own || matches!(change, Change::GateOpened { .. })
        };
        self.basis(|change| change.room() == Some(room) && concerns(change))
    }

    /// What a join changes; nothing for a member.
    fn decide_join(&self, room: &RoomName, user: &UserName) -> Result<Vec<Change>, Refusal> {
        let limits = &self.config.limits;
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let joined = self.durable.user(user).map(|user| &user.rooms);
        if joined.is_some_and(|rooms| rooms.contains(room)) {
            return Ok(Vec::new());
        }
        if joined.is_some_and(|rooms| count(rooms.len()) >= limits.rooms_per_user_max) {
            return Err(Refusal::Limit(LimitFault::RoomsOfUser));
        }
        let mut changes = Vec::new();
        let state = self.durable.room(room);
        if state.is_none() {
            if count(self.durable.rooms().len()) >= limits.rooms_max {
                return Err(Refusal::Limit(LimitFault::Rooms));
            }
            let threshold = self.durable.founding().threshold;
            changes.push(Change::RoomCreated { room: room.clone(), threshold });
        }
        let incarnation = state.map_or(Incarnation::ZERO.next(), Room::incarnation);
        let seq = presence_seq(&self.durable, limits, room);
        changes.push(Change::Joined { room: room.clone(), incarnation, seq, user: user.clone() });
        Ok(changes)
    }

    fn part(
        &mut self,
        now: Now,
        conn: ConnId,
        request: RequestId,
        room: &Untrusted<RoomName>,
    ) -> Result<(Index, Pending), Refusal> {
        let room = self.followed_room(conn, room)?;
        let online = self.volatile.online(conn).expect("who asks must be logged in");
        let user = online.user.clone();
        self.changed_gates.push(room.clone());
        if self.volatile.desert(conn, &room) {
            self.leave_room(now, &room, &user);
        }
        let index = self.basis_of_presence(&room, &user);
        Ok((index, Pending::Parted { conn, request, room }))
    }

    /// A room that a connection follows.
    fn followed_room(&self, conn: ConnId, room: &Untrusted<RoomName>) -> Result<RoomName, Refusal> {
        let name: RoomName = room.parse().map_err(|_| Refusal::Target(TargetFault::Room))?;
        if self.durable.room(&name).is_none() {
            return Err(Refusal::Target(TargetFault::Room));
        }
        let follows = self.volatile.online(conn).is_some_and(|online| online.rooms.contains(&name));
        if follows { Ok(name) } else { Err(Refusal::State(StateFault::NotMember)) }
    }

    /// The room's records and members, if its gate is open to its readers.
    fn open_room(&self, room: &RoomName) -> Result<&RoomFeed, Refusal> {
        let feed = self.feed.room(room).ok_or(Refusal::Target(TargetFault::Room))?;
        if feed.open {
            return Ok(feed);
        }
        let have = self.volatile.shown_attending(room, feed.threshold);
        Err(Refusal::Gate { have, need: feed.threshold.get() })
    }

    /// Answers a question that changes nothing.
    pub(super) fn release_view(&mut self, conn: ConnId, request: RequestId, view: View) {
        let answer = match view {
            View::Users { room } => {
                self.open_room(&room).map(|feed| Answer::Users(Self::user_list(&room, feed)))
            }
            View::Rooms => Ok(self.list_rooms()),
            View::User { room, user } => self.whois(&room, user.as_ref()),
            View::History { room, before, limit } => {
                match self.history(conn, request, room, before, limit) {
                    Ok(Some(answer)) => Ok(answer),
                    // It is being read from the store.
                    Ok(None) => return,
                    Err(refusal) => Err(refusal),
                }
            }
        };
        let answer = answer.unwrap_or_else(Answer::Refused);
        self.send(conn, ServerFrame::Answer { request, answer });
    }

    pub(super) fn user_list(room: &RoomName, feed: &RoomFeed) -> UserList {
        UserList {
            room: room.clone(),
            count: u32::try_from(feed.members.len()).unwrap_or(u32::MAX),
            names: List::first_of(feed.members.iter().cloned()),
            as_of: feed.visible,
        }
    }

    fn list_rooms(&self) -> Answer {
        // Room names are up to 256 bytes each: the list stops where the frame would be too long.
        let mut bytes_left = self.config.limits.page_bytes;
        let names = self.feed.rooms();
        let count = u32::try_from(names.len()).unwrap_or(u32::MAX);
        let rooms = names.filter_map(|room| {
            let gate = self.gate_of(room, self.feed.room(room)?);
            Some(RoomInfo { room: room.clone(), gate })
        });
        let rooms = rooms.take_while(|info| {
            let size = info.room.as_ref().len().saturating_add(32);
            bytes_left = bytes_left.saturating_sub(size);
            bytes_left > 0
        });
        Answer::Rooms { rooms: List::first_of(rooms), count }
    }

    fn whois(&self, room: &RoomName, user: Option<&UserName>) -> Result<Answer, Refusal> {
        let feed = self.open_room(room)?;
        let shared = user.filter(|user| feed.members.contains(*user));
        let info = shared.and_then(|user| self.describe(user));
        info.map(Answer::User).ok_or(Refusal::Target(TargetFault::User))
    }

    fn history(
        &mut self,
        conn: ConnId,
        request: RequestId,
        room: RoomName,
        before: Option<Seq>,
        limit: usize,
    ) -> Result<Option<Answer>, Refusal> {
        #[cfg(chat_mutants)]
        if let Some(answer) = self.leak_held(&room, limit) {
            return Ok(Some(answer));
        }
        let feed = self.open_room(&room)?;
        let (incarnation, first) = (feed.incarnation, feed.trimmed.next());
        let last = before.map_or(feed.visible, |seq| seq.previous().min(feed.visible));
        let archived = self.config.archive == Archive::Store;
        if archived && last >= first && last < feed.oldest() {
            let Some(connection) = self.volatile.connections.get_mut(&conn) else {
                return Ok(None);
            };
            if core::mem::replace(&mut connection.reads_history, true) {
                return Err(Refusal::Busy { retry_ms: READ_RETRY });
            }
            let count = u64::try_from(limit).unwrap_or(u64::MAX);
            let from = last.next().saturating_sub(count).max(first);
            let whose = Reader::History { conn, request, limit };
            self.read(ReadPurpose { incarnation, room, from, to: last, whose });
            return Ok(None);
        }
        let records =
            newest_of(feed.chunks_through(last), last, limit, self.config.limits.page_bytes);
        let records = List::first_of(records);
        Ok(Some(Answer::History { room, incarnation, records }))
    }

    fn read(&mut self, purpose: ReadPurpose) {
        self.next_read = self.next_read.saturating_add(1);
        let token = ReadToken(self.next_read);
        self.outputs.push_back(Output::Read {
            token,
            room: purpose.room.clone(),
            incarnation: purpose.incarnation,
            from: purpose.from,
            to: purpose.to,
            order: match purpose.whose {
                Reader::Shard(_) | Reader::Nobody => ReadOrder::Forward,
                Reader::History { .. } => ReadOrder::Backward,
            },
        });
        self.reads.insert(token, purpose);
    }

    pub(super) fn handle_fetch(&mut self, need: Need) {
        let Some(connection) = self.volatile.connections.get_mut(&need.conn) else { return };
        if connection.online().is_none() {
            return;
        }
        // The shard waits for one page at a time: what it asked before is of no use any more.
        match &mut connection.catch_up {
            CatchUp::Idle => {}
            CatchUp::Resting { need: next, .. } => {
                *next = need;
                return;
            }
            reading @ (CatchUp::Reading | CatchUp::ReadingBefore(_)) => {
                *reading = CatchUp::ReadingBefore(need);
                return;
            }
        }
        let Need { conn, room, incarnation, after } = need;
        let archived = self.config.archive == Archive::Store;
        let Some(feed) = self.feed.room(&room) else { return };
        // A need of an earlier life crossed the reset: its reader starts over anyway.
        if feed.incarnation != incarnation {
            return;
        }
        let page = match feed.after(after, self.config.limits.page_bytes) {
            Found::None => return,
            Found::Here(chunk) => Page::Records(chunk),
            Found::Older { from, to } if archived && from > feed.trimmed => {
                connection.catch_up = CatchUp::Reading;
                let whose = Reader::Shard(conn);
                return self.read(ReadPurpose { incarnation, room, from, to, whose });
            }
            // Without a store all that is not in memory is gone.
            Found::Older { to, .. } => Page::Gone { to: if archived { feed.trimmed } else { to } },
        };
        self.deliver(Directive::Page { conn, room, incarnation, page });
    }

    pub(super) fn handle_read_done(
        &mut self,
        token: ReadToken,
        records: Vec<Record>,
    ) -> Result<(), Misuse> {
        let Some(purpose) = self.reads.get(&token) else { return Err(Misuse::UnknownRead) };
        if !is_run_of(purpose, &records) {
            return Err(Misuse::WrongRecords);
        }
        let Some(ReadPurpose { room, incarnation, from, to, whose }) = self.reads.remove(&token)
        else {
            return Ok(());
        };
        // A reset in the meantime ended the life that was asked about: nothing of it is shown.
        let current = self.feed.room(&room).is_some_and(|feed| feed.incarnation == incarnation)
            || mutated!(self, PageAcrossReset);
        let (to, records) = self.without_trimmed(&room, to, records);
        match whose {
            Reader::Shard(conn) => {
                if current {
                    self.give_page(conn, &room, incarnation, (from, to), records);
                }
                self.go_on_catching_up(conn);
            }
            Reader::History { conn, request, limit } => {
                self.end_reading_history(conn);
                let answer = if current {
                    let chunk = ChunkBuilder::build(records);
                    let page_bytes = self.config.limits.page_bytes;
                    let records = List::first_of(newest_of(chunk.iter(), to, limit, page_bytes));
                    Answer::History { room, incarnation, records }
                } else {
                    Answer::Refused(Refusal::State(StateFault::OtherIncarnation))
                };
                self.send(conn, ServerFrame::Answer { request, answer });
            }
            Reader::Nobody => {}
        }
        Ok(())
    }

    /// The store could not read. The shard still waits for its page, so the engine asks again.
    pub(super) fn handle_read_failed(
        &mut self,
        now: Moment,
        token: ReadToken,
    ) -> Result<(), Misuse> {
        let purpose = self.reads.remove(&token).ok_or(Misuse::UnknownRead)?;
        let ReadPurpose { room, incarnation, from, whose, .. } = purpose;
        match whose {
            Reader::Shard(conn) => {
                self.rest(now, Need { conn, room, incarnation, after: from.previous() });
            }
            Reader::History { conn, request, .. } => {
                self.end_reading_history(conn);
                let answer = Answer::Refused(Refusal::Store);
                self.send(conn, ServerFrame::Answer { request, answer });
            }
            Reader::Nobody => {}
        }
        Ok(())
    }

    /// Asks again for what a reader lacks, but not at once.
    fn rest(&mut self, now: Moment, failed: Need) {
        let conn = failed.conn;
        let Some(connection) = self.volatile.connections.get_mut(&conn) else { return };
        let need = match core::mem::take(&mut connection.catch_up) {
            CatchUp::ReadingBefore(newer) => newer,
            CatchUp::Idle | CatchUp::Reading | CatchUp::Resting { .. } => failed,
        };
        if mutated!(self, GiveUpFailedRead) {
            return;
        }
        let until = now + STORE_RETRY;
        connection.catch_up = CatchUp::Resting { until, need };
        self.volatile.set_timer(until, TimerKind::CatchUp(conn));
    }

    /// What was read before it was trimmed is not shown after: the records that are left, and up to
    /// where they are all that there is.
    fn without_trimmed(
        &self,
        room: &RoomName,
        to: Seq,
        mut records: Vec<Record>,
    ) -> (Seq, Vec<Record>) {
        let trimmed = self.feed.room(room).map_or(Seq::ZERO, |feed| feed.trimmed);
        let any = !records.is_empty();
        records.retain(|record| record.seq > trimmed || mutated!(self, ShowTrimmed));
        // Nothing is known of what comes after those that were read.
        let to = if any && records.is_empty() { to.min(trimmed) } else { to };
        (to, records)
    }

    fn end_reading_history(&mut self, conn: ConnId) {
        if let Some(connection) = self.volatile.connections.get_mut(&conn) {
            connection.reads_history = false;
        }
    }

    /// Gives a shard what was read of a range.
    fn give_page(
        &mut self,
        conn: ConnId,
        room: &RoomName,
        incarnation: Incarnation,
        (from, to): (Seq, Seq),
        records: Vec<Record>,
    ) {
        let first = records.first().map_or(to.next(), |record| record.seq);
        let gone = (first > from).then(|| Page::Gone { to: first.previous() });
        let records = ChunkBuilder::build(records).map(Page::Records);
        for page in [gone, records].into_iter().flatten() {
            self.deliver(Directive::Page { conn, room: room.clone(), incarnation, page });
        }
    }

    /// A page was read for a shard, or may be asked for again: what the shard waits for is next.
    pub(super) fn go_on_catching_up(&mut self, conn: ConnId) {
        let Some(connection) = self.volatile.connections.get_mut(&conn) else { return };
        match core::mem::take(&mut connection.catch_up) {
            CatchUp::ReadingBefore(need) | CatchUp::Resting { need, .. } => self.handle_fetch(need),
            CatchUp::Idle | CatchUp::Reading => {}
        }
    }

    /// Where a follower starts: the last record it is not to be sent.
    pub(super) fn resolve_start(feed: &RoomFeed, start: Start) -> Seq {
        let wanted = match start {
            Start::After(cursor) if cursor.incarnation == feed.incarnation => cursor.seq,
            Start::After(_) => Seq::ZERO,
            // What is gone was not asked for: no gap is told.
            Start::Last(count) => feed.visible.saturating_sub(count).max(feed.trimmed),
            Start::At(seq) => seq.previous(),
        };
        wanted.min(feed.visible)
    }
}

/// Whether these are records that were asked for, oldest first and without holes.
fn is_run_of(purpose: &ReadPurpose, records: &[Record]) -> bool {
    let Some(first) = records.first() else { return true };
    let in_range =
        first.seq >= purpose.from && records.last().is_some_and(|record| record.seq <= purpose.to);
    let run = (first.seq.get()..).zip(records).all(|(seq, record)| {
        record.seq.get() == seq
            && record.room == purpose.room
            && record.incarnation == purpose.incarnation
    });
    in_range && run
}

/// The newest of these records up to `last`, oldest first.
pub(super) fn newest_of<'a>(
    chunks: impl DoubleEndedIterator<Item = &'a Chunk>,
    last: Seq,
    limit: usize,
    bytes_max: usize,
) -> Vec<Record> {
    let mut bytes_left = bytes_max;
    let mut newest: Vec<Record> = chunks
        .rev()
        .flat_map(|chunk| chunk.frames_through(last).rev())
        .filter_map(|frame| match decode(frame.get(PREFIX_BYTES..)?) {
            Ok(ServerFrame::Record(record)) => Some((record, frame.len())),
            Ok(_) | Err(_) => None,
        })
        .take(limit)
        .take_while(|(_, size)| {
            let fits = *size <= bytes_left;
            bytes_left = bytes_left.saturating_sub(*size);
            fits
        })
        .map(|(record, _)| record)
        .collect();
    newest.reverse();
    newest
}
