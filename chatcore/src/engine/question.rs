//! Questions: joining, leaving, looking around.

use crate::chunk::{Chunk, ChunkBuilder};
use crate::codec::{PREFIX_BYTES, decode};
use crate::engine::command::presence_seq;
use crate::engine::commit::Pending;
use crate::engine::feed::{Found, RoomFeed};
use crate::engine::{Archive, Directive, Engine, Misuse, Need, Output, Page, ReadOrder, ReadToken};
use crate::id::{ConnId, Incarnation, RequestId, Seq};
use crate::log::Change;
use crate::text::{RoomName, Untrusted, UserName};
use crate::time::Now;
use crate::wire::{
    Answer, LIST_MAX, LimitFault, List, Question, Record, Refusal, RoomInfo, ServerFrame, Start,
    StateFault, TargetFault, UserList,
};

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
            Question::Part { room } => self.part(now, conn, room).map(Some),
            Question::Who { room } => self.who(conn, room).map(Some),
            Question::Rooms => Ok(Some(self.list_rooms())),
            Question::Whois { room, user } => self.whois(conn, room, user).map(Some),
            Question::History { room, before, limit } => {
                self.history(conn, request, room, *before, *limit)
            }
        };
        let answer = answer.unwrap_or_else(|refusal| Some(Answer::Refused(refusal)));
        // None: the answer follows from elsewhere.
        if let Some(answer) = answer {
            self.reply(conn, ServerFrame::Answer { request, answer });
        }
    }

    fn join(
        &mut self,
        now: Now,
        conn: ConnId,
        request: RequestId,
        room: &Untrusted<RoomName>,
        start: Start,
    ) -> Result<Option<Answer>, Refusal> {
        let room: RoomName = room.parse()?;
        let Some(online) = self.volatile.online(conn) else { return Ok(None) };
        let user = online.user.clone();
        for change in self.decide_join(&room, &user)? {
            self.append(now, change);
        }
        self.volatile.attend(conn, &room);
        self.open_gate_if_met(now, &room);
        let joined = Pending::Joined { conn, request, room, start };
        self.when_committed(self.head.index, joined);
        Ok(None)
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
        let incarnation = state.map_or(Incarnation::ZERO.next(), |state| state.incarnation());
        let seq = presence_seq(&self.durable, limits, room);
        changes.push(Change::Joined { room: room.clone(), incarnation, seq, user: user.clone() });
        Ok(changes)
    }

    fn part(
        &mut self,
        now: Now,
        conn: ConnId,
        room: &Untrusted<RoomName>,
    ) -> Result<Answer, Refusal> {
        let name = self.followed_room(conn, room)?;
        let Some(online) = self.volatile.online(conn) else {
            return Err(Refusal::State(StateFault::NotMember));
        };
        let user = online.user.clone();
        self.changed_gates.push(name.clone());
        if self.volatile.desert(conn, &name) {
            self.leave_room(now, &name, &user);
        }
        self.deliver(Directive::Unfollow { conn, room: name.clone() });
        Ok(Answer::Parted { room: name })
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

    /// A room that a connection follows and whose gate is open to its readers.
    fn open_room(
        &self,
        conn: ConnId,
        room: &Untrusted<RoomName>,
    ) -> Result<(RoomName, &RoomFeed), Refusal> {
        let name = self.followed_room(conn, room)?;
        match self.feed.room(&name) {
            Some(feed) if feed.open => Ok((name, feed)),
            feed => {
                let threshold = feed.map_or(self.durable.founding().threshold, |f| f.threshold);
                let have = self.volatile.attending(&name);
                Err(Refusal::Gate { have, need: threshold.get() })
            }
        }
    }

    fn who(&self, conn: ConnId, room: &Untrusted<RoomName>) -> Result<Answer, Refusal> {
        let (name, _) = self.open_room(conn, room)?;
        Ok(Answer::Users(self.user_list(&name)))
    }

    pub(super) fn user_list(&self, room: &RoomName) -> UserList {
        let state = self.durable.room(room);
        let members = state.iter().flat_map(|state| &state.members);
        UserList {
            room: room.clone(),
            count: state.map_or(0, |state| u32::try_from(state.members.len()).unwrap_or(u32::MAX)),
            names: List::first_of(members.cloned()),
            as_of: state.map_or(Seq::ZERO, |state| state.last()),
        }
    }

    fn list_rooms(&self) -> Answer {
        // Room names are up to 256 bytes each: the list stops where the frame would be too long.
        let mut bytes_left = self.config.limits.page_bytes;
        let rooms = self.durable.rooms().filter_map(|(room, _)| {
            let gate = self.gate_state(room)?;
            Some(RoomInfo { room: room.clone(), gate })
        });
        let rooms = rooms.take_while(|info| {
            let size = info.room.as_ref().len().saturating_add(32);
            bytes_left = bytes_left.saturating_sub(size);
            bytes_left > 0
        });
        let rooms = List::first_of(rooms);
        let count = u32::try_from(self.durable.rooms().len()).unwrap_or(u32::MAX);
        Answer::Rooms { rooms, count }
    }

    fn whois(
        &self,
        conn: ConnId,
        room: &Untrusted<RoomName>,
        user: &Untrusted<UserName>,
    ) -> Result<Answer, Refusal> {
        let (room, _) = self.open_room(conn, room)?;
        let missing = Refusal::Target(TargetFault::User);
        let user: UserName = user.parse().map_err(|_| missing)?;
        let shared = self.durable.user(&user).is_some_and(|user| user.rooms.contains(&room));
        let info = self.durable.describe(&user, self.volatile.is_connected(&user));
        info.filter(|_| shared).map(Answer::User).ok_or(missing)
    }

    fn history(
        &mut self,
        conn: ConnId,
        request: RequestId,
        room: &Untrusted<RoomName>,
        before: Option<Seq>,
        limit: u16,
    ) -> Result<Option<Answer>, Refusal> {
        let (name, feed) = self.open_room(conn, room)?;
        let incarnation = feed.incarnation;
        let last = before.map_or(feed.visible, |seq| seq.previous().min(feed.visible));
        let limit = usize::from(limit).clamp(1, LIST_MAX);
        let archived = self.config.archive == Archive::Store;
        if archived && last != Seq::ZERO && last < feed.oldest() {
            let from = last.next().saturating_sub(limit as u64).max(Seq::ZERO.next());
            let whose = Reader::History { conn, request, limit };
            self.read(ReadPurpose { room: name, incarnation, from, to: last, whose });
            return Ok(None);
        }
        let records = newest_records(feed, last, limit, self.config.limits.page_bytes);
        let records = List::first_of(records);
        Ok(Some(Answer::History { room: name, incarnation, records }))
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
                Reader::Shard(_) => ReadOrder::Forward,
                Reader::History { .. } => ReadOrder::Backward,
            },
        });
        self.reads.insert(token, purpose);
    }

    pub(super) fn handle_fetch(&mut self, need: Need) {
        let Need { conn, room, incarnation, after } = need;
        let Some(feed) = self.feed.room(&room) else { return };
        // A need of an earlier life crossed the reset: its reader starts over anyway.
        if feed.incarnation != incarnation {
            return;
        }
        let page = match feed.after(after, self.config.limits.page_bytes) {
            Found::None => return,
            Found::Here(chunk) => Page::Records(chunk),
            Found::Older { from, to } if self.config.archive == Archive::Store => {
                let whose = Reader::Shard(conn);
                return self.read(ReadPurpose { room, incarnation, from, to, whose });
            }
            Found::Older { to, .. } => Page::Gone { to },
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
        match whose {
            Reader::Shard(conn) => {
                let first = records.first().map_or(to.next(), |record| record.seq);
                if first > from {
                    let page = Page::Gone { to: first.previous() };
                    let room = room.clone();
                    self.deliver(Directive::Page { conn, room, incarnation, page });
                }
                if let Some(chunk) = ChunkBuilder::build(records) {
                    let page = Page::Records(chunk);
                    self.deliver(Directive::Page { conn, room, incarnation, page });
                }
            }
            Reader::History { conn, request, limit } => {
                let chunk = ChunkBuilder::build(records);
                let page_bytes = self.config.limits.page_bytes;
                let records = newest_of(chunk.iter(), to, limit, page_bytes);
                let records = List::first_of(records);
                let answer = Answer::History { room, incarnation, records };
                self.reply(conn, ServerFrame::Answer { request, answer });
            }
        }
        Ok(())
    }

    /// Where a follower starts: the last record it is not to be sent.
    pub(super) fn resolve_start(feed: &RoomFeed, start: Start) -> Seq {
        let wanted = match start {
            Start::After(cursor) if cursor.incarnation == feed.incarnation => cursor.seq,
            Start::After(_) => Seq::ZERO,
            Start::Last(count) => feed.visible.saturating_sub(count),
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

/// The newest records in memory up to `last`, oldest first.
fn newest_records(feed: &RoomFeed, last: Seq, limit: usize, bytes_max: usize) -> Vec<Record> {
    newest_of(feed.chunks(), last, limit, bytes_max)
}

fn newest_of<'a>(
    chunks: impl DoubleEndedIterator<Item = &'a Chunk>,
    last: Seq,
    limit: usize,
    bytes_max: usize,
) -> Vec<Record> {
    let mut bytes_left = bytes_max;
    let mut newest: Vec<Record> = chunks
        .rev()
        .filter(|chunk| chunk.first() <= last)
        .flat_map(|chunk| chunk.frames().rev())
        .filter_map(|frame| match decode(frame.get(PREFIX_BYTES..)?) {
            Ok(ServerFrame::Record(record)) => Some((record, frame.len())),
            Ok(_) | Err(_) => None,
        })
        .filter(|(record, _)| record.seq <= last)
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
