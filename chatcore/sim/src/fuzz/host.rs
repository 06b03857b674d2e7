//! An engine, two delivery shards and a store stand-in, with peers that check what they hear.
//!
//! Everything outside an engine can be late here: entries are made safe later, reads are answered
//! later, transports take few bytes or none. The journal in this file is what the peers' words are
//! compared with; it knows of the engine only the entries that it gave out.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use chatcore::codec::{FrameBuffer, decode};
use chatcore::delivery::Delivery;
use chatcore::engine::{Config, Directive, Engine, Input, Output, ReadOrder, ReadToken};
use chatcore::id::{ConnId, Counter, Incarnation, Nonce, RequestId, Seq, SessionId, Signature};
use chatcore::log::{Change, Entry, Founding, Moderator};
use chatcore::text::{RoomName, UserName};
use chatcore::time::{Moment, Now, Span, Timestamp};
use chatcore::wire::{
    ClientFrame, GREETING_FRAME_BYTES_MAX, HostStatus, Measure, Record, Refusal, ServerFrame,
    StorageStatus,
};

use super::ears::Ears;

/// Rounds after which a host that finds no rest has failed, and timers after which it has.
const ROUNDS_MAX: usize = 10_000;
/// The signature that is refused; any other is accepted.
pub(super) const WRONG_SIGNATURE: Signature = Signature::new([0; Signature::LEN]);

/// How slow the world around the engine is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// Whether entries become safe only when told.
    pub(super) late_entries: bool,
    /// Whether reads are answered only when told.
    pub(super) late_reads: bool,
    /// Most bytes that a transport takes at once.
    pub(super) piece: usize,
    /// Most records that the store gives at once.
    pub(super) read_max: usize,
}

pub(super) struct Host {
    pub(super) engine: Engine,
    founding: Founding,
    config: Config,
    shards: [Delivery; 2],
    pub(super) now: Now,
    pub(super) pace: Pace,
    pub(super) journal: Journal,
    pub(super) peers: BTreeMap<ConnId, Peer>,
    reads: VecDeque<(ReadToken, Vec<Record>)>,
    next_conn: u64,
    measures: u64,
    /// Measures that those who run the server were not answered yet.
    moderating: BTreeSet<RequestId>,
    /// Everything that left, for comparing runs.
    pub(super) transcript: blake3::Hasher,
}

/// One connection, both ends.
pub(super) struct Peer {
    /// The server's end.
    sent: FrameBuffer,
    /// The client's end.
    heard: FrameBuffer,
    pub(super) ears: Ears,
    pub(super) stalled: bool,
}

/// What the engine appended, and how much of it is safe.
#[derive(Default)]
pub(super) struct Journal {
    pub(super) entries: Vec<Arc<Entry>>,
    pub(super) safe: usize,
    /// Every safe record of every life.
    pub(super) records: BTreeMap<(RoomName, Incarnation, Seq), Record>,
    /// The last safe record of each life.
    pub(super) ends: BTreeMap<(RoomName, Incarnation), Seq>,
    /// Lives whose gate opened, as far as that is safe.
    pub(super) opened: BTreeSet<(RoomName, Incarnation)>,
    /// Whose each session is, as far as that is safe.
    sessions: BTreeMap<SessionId, UserName>,
    /// Commands that took effect, as far as that is safe.
    done: BTreeSet<(SessionId, Counter)>,
    /// Places that peers were told their posts have.
    pub(super) told: BTreeMap<(SessionId, Counter), (RoomName, Incarnation, Option<Seq>)>,
}

impl Journal {
    /// Takes note of an entry that is safe.
    fn commit(&mut self, entry: &Entry) {
        if let Some(record) = entry.record() {
            let (room, life, seq) = (record.room.clone(), record.incarnation, record.seq);
            let end = self.ends.insert((room.clone(), life), seq).unwrap_or_default();
            assert_eq!(seq, end.saturating_add(1), "records of a life must have no hole");
            self.records.insert((room, life, seq), record);
        }
        match &entry.change {
            Change::GateOpened { room, incarnation } => {
                let once = self.opened.insert((room.clone(), *incarnation));
                assert!(once, "a gate must open once in a life of its room");
            }
            Change::Posted { command, .. }
            | Change::Refused { command, .. }
            | Change::Reset { command, .. }
            | Change::Moderated { by: Moderator::Operator { command, .. }, .. } => {
                let once = self.done.insert((command.session, command.counter));
                assert!(once, "a command must take effect once");
            }
            Change::Trimmed { room, incarnation, through } => {
                let gone = |of: &RoomName, life, seq| {
                    of == room && life == *incarnation && seq <= *through
                };
                self.records.retain(|(of, life, seq), _| !gone(of, *life, *seq));
            }
            Change::Founded(_)
            | Change::UserAdded { .. }
            | Change::OperatorGranted { .. }
            | Change::SessionOpened { .. }
            | Change::SessionExpired { .. }
            | Change::RoomCreated { .. }
            | Change::Joined { .. }
            | Change::Left { .. }
            | Change::Moderated { by: Moderator::Server, .. } => {}
        }
        self.end_sessions(&entry.change);
    }

    /// A session that ended begins again at its first number.
    fn end_sessions(&mut self, change: &Change) {
        if let Change::SessionOpened { session, user } = change {
            self.sessions.insert(*session, user.clone());
        }
        if let Change::SessionExpired { session } = change {
            self.sessions.remove(session);
        } else if let Change::Moderated { user, measure: Measure::Release, .. } = change {
            self.sessions.retain(|_, of| of != user);
        } else {
            return;
        }
        let sessions = &self.sessions;
        self.done.retain(|(of, _)| sessions.contains_key(of));
        self.told.retain(|(of, _), _| sessions.contains_key(of));
    }

    fn read(
        &self,
        room: &RoomName,
        life: Incarnation,
        (from, to): (Seq, Seq),
        (order, most): (ReadOrder, usize),
    ) -> Vec<Record> {
        let range = (room.clone(), life, from)..=(room.clone(), life, to);
        let found = self.records.range(range).map(|(_, record)| record.clone());
        match order {
            ReadOrder::Forward => found.take(most).collect(),
            ReadOrder::Backward => {
                let mut newest: Vec<Record> = found.rev().take(most).collect();
                newest.reverse();
                newest
            }
        }
    }
}

impl Host {
    pub(super) fn found(founding: Founding, config: Config, pace: Pace) -> Self {
        let wall = Timestamp::new(1_700_000_000_000).expect("a time of our days is one");
        let now = Now { moment: Moment::from_millis(1_000_000), wall };
        let engine = Engine::found(founding.clone(), config.clone(), now);
        let engine = engine.expect("the limits must be fit");
        let shards = [Delivery::new(&config.limits), Delivery::new(&config.limits)];
        let (journal, peers, reads) = (Journal::default(), BTreeMap::new(), VecDeque::new());
        let transcript = blake3::Hasher::new();
        let next_conn = 0;
        let mut host = Self {
            engine,
            founding,
            config,
            shards,
            now,
            pace,
            journal,
            peers,
            reads,
            next_conn,
            measures: 0,
            moderating: BTreeSet::new(),
            transcript,
        };
        host.drive();
        host
    }

    fn shard(&mut self, conn: ConnId) -> &mut Delivery {
        let [even, odd] = &mut self.shards;
        if conn.get().is_multiple_of(2) { even } else { odd }
    }

    /// Tells the engine something that follows its rules.
    fn input(&mut self, input: Input) {
        self.engine.handle(self.now, input).expect("a host that keeps the rules is not refused");
    }

    pub(super) fn connect(&mut self) -> ConnId {
        self.next_conn = self.next_conn.saturating_add(1);
        let conn = ConnId::new(self.next_conn);
        let sent = FrameBuffer::new(GREETING_FRAME_BYTES_MAX);
        let (heard, ears) = (FrameBuffer::default(), Ears::default());
        self.peers.insert(conn, Peer { sent, heard, ears, stalled: false });
        self.shard(conn).add(conn);
        let nonce = Nonce::new([7; Nonce::LEN]);
        self.input(Input::Connected {
            conn,
            nonce,
            channel: None,
            address: None,
            waited: Span::ZERO,
        });
        self.drive();
        conn
    }

    /// A peer sends bytes.
    pub(super) fn receive(&mut self, conn: ConnId, bytes: &[u8]) {
        let Some(peer) = self.peers.get_mut(&conn) else { return };
        peer.sent.feed(bytes);
        // One frame at a time: it may end the connection.
        while let Some(peer) = self.peers.get_mut(&conn) {
            let next = peer.sent.next_frame().map_err(Refusal::Frame);
            let frame = match next {
                Ok(None) => break,
                Ok(Some(frame)) => decode::<ClientFrame>(&frame).map_err(Refusal::Decode),
                Err(refusal) => Err(refusal),
            };
            match frame {
                Ok(frame) => self.send(conn, frame),
                Err(refusal) => return self.condemn(conn, refusal),
            }
        }
    }

    /// A peer sends a frame.
    pub(super) fn send(&mut self, conn: ConnId, frame: ClientFrame) {
        let Some(peer) = self.peers.get_mut(&conn) else { return };
        peer.ears.expect(&frame);
        self.input(Input::Frame { conn, frame });
        self.drive();
    }

    pub(super) fn condemn(&mut self, conn: ConnId, refusal: Refusal) {
        if self.peers.contains_key(&conn) {
            self.input(Input::Condemned { conn, refusal });
            self.drive();
        }
    }

    /// A connection breaks.
    pub(super) fn cut(&mut self, conn: ConnId) {
        if self.peers.contains_key(&conn) {
            self.hang_up(conn);
            self.drive();
        }
    }

    fn hang_up(&mut self, conn: ConnId) {
        self.peers.remove(&conn);
        self.shard(conn).remove(conn);
        self.input(Input::Disconnected { conn });
    }

    pub(super) fn stop(&mut self) {
        self.input(Input::Stop);
        self.drive();
    }

    /// Retention takes records of a room.
    pub(super) fn trim(&mut self, room: RoomName, incarnation: Incarnation, through: Seq) {
        self.input(Input::Trim { room, incarnation, through });
        self.drive();
    }

    /// Those who run the server take a measure.
    pub(super) fn moderate(&mut self, user: UserName, measure: Measure) {
        self.measures = self.measures.saturating_add(1);
        let request = RequestId::ZERO.saturating_add(self.measures);
        self.moderating.insert(request);
        self.input(Input::Moderate { request, user, measure });
        self.drive();
    }

    /// A transport takes no more bytes, or takes them again.
    pub(super) fn stall(&mut self, conn: ConnId, stalled: bool) {
        let Some(peer) = self.peers.get_mut(&conn) else { return };
        peer.stalled = stalled;
        if !stalled {
            self.shard(conn).writable(conn);
        }
        self.drive();
    }

    /// Makes the next `count` entries safe; false when there is none.
    pub(super) fn persist(&mut self, count: usize) -> bool {
        let journal = &mut self.journal;
        let through = journal.safe.saturating_add(count).min(journal.entries.len());
        let fresh = journal.entries.get(journal.safe..through).unwrap_or_default().to_vec();
        let Some(last) = fresh.last().map(|entry| entry.header.index) else { return false };
        fresh.iter().for_each(|entry| journal.commit(entry));
        journal.safe = through;
        self.input(Input::Persisted { through: last });
        true
    }

    /// Answers the oldest read; with nothing when what it asks for is gone.
    pub(super) fn answer_read(&mut self, gone: bool) {
        let Some((token, mut records)) = self.reads.pop_front() else { return };
        if gone {
            records.clear();
        }
        self.input(Input::ReadDone { token, records });
    }

    /// Carries out everything there is to do, until there is no more.
    pub(super) fn drive(&mut self) {
        for _ in 0..ROUNDS_MAX {
            let mut busy = false;
            while let Some(output) = self.engine.poll_output() {
                self.carry_out(output);
                busy = true;
            }
            busy |= !self.pace.late_entries && self.persist(usize::MAX);
            while !self.pace.late_reads && !self.reads.is_empty() {
                self.answer_read(false);
                busy = true;
            }
            if !self.serve_shards() && !busy {
                return;
            }
        }
        panic!("a host must come to rest");
    }

    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Persist(entry) => {
                self.transcript.update(entry.header.digest.as_bytes());
                self.journal.entries.push(entry);
            }
            Output::Verify { conn, signature, .. } => {
                let valid = signature != WRONG_SIGNATURE;
                self.input(Input::Verified { conn, valid });
            }
            Output::Sign { conn, .. } => {
                self.input(Input::Signed { conn, signature: Signature::new([7; Signature::LEN]) });
            }
            Output::Report { conn } => {
                let (uptime_ms, storage) = (Span::ZERO, StorageStatus::Memory);
                self.input(Input::Reported { conn, host: HostStatus { uptime_ms, storage } });
            }
            Output::Read { token, room, incarnation, from, to, order } => {
                let most = self.pace.read_max;
                let records = self.journal.read(&room, incarnation, (from, to), (order, most));
                self.reads.push_back((token, records));
            }
            Output::Deliver(directive) => self.deliver(directive),
            Output::Event(event) => {
                self.transcript.update(format!("{event:?}").as_bytes());
            }
            Output::Moderated { request, refusal } => {
                assert!(self.moderating.remove(&request), "a measure is answered once");
                self.transcript.update(format!("{refusal:?}").as_bytes());
            }
        }
    }

    fn deliver(&mut self, directive: Directive) {
        if let Some(conn) = directive.conn() {
            return self.shard(conn).handle(directive);
        }
        let [even, odd] = &mut self.shards;
        even.handle(directive.clone());
        odd.handle(directive);
    }

    /// True when something was done.
    fn serve_shards(&mut self) -> bool {
        let mut busy = false;
        for place in [0, 1] {
            while let Some(conn) = self.shards.get_mut(place).and_then(Delivery::poll_ready) {
                self.write(conn);
                busy = true;
            }
            let Some(shard) = self.shards.get_mut(place) else { continue };
            let condemned: Vec<_> = core::iter::from_fn(|| shard.poll_condemned()).collect();
            let needs: Vec<_> = core::iter::from_fn(|| shard.poll_need()).collect();
            busy |= !condemned.is_empty() || !needs.is_empty();
            for (conn, refusal) in condemned {
                if self.peers.contains_key(&conn) {
                    self.input(Input::Condemned { conn, refusal });
                }
            }
            needs.into_iter().for_each(|need| self.input(Input::Fetch(need)));
        }
        busy
    }

    fn write(&mut self, conn: ConnId) {
        let (piece, moment) = (self.pace.piece, self.now.moment);
        let shard = self.shard(conn);
        let mut slices: Vec<Bytes> = Vec::new();
        shard.gather(conn, &mut slices);
        if shard.is_finished(conn) {
            return self.hang_up(conn);
        }
        let Some(peer) = self.peers.get_mut(&conn) else { return };
        if peer.stalled {
            return self.shard(conn).blocked(conn, moment);
        }
        let bytes: Vec<u8> = slices.concat().into_iter().take(piece).collect();
        peer.heard.feed(&bytes);
        self.transcript.update(&conn.get().to_be_bytes()).update(&bytes);
        self.shard(conn).wrote(conn, bytes.len());
        self.listen(conn);
        if self.shard(conn).is_finished(conn) {
            self.hang_up(conn);
        }
    }

    fn listen(&mut self, conn: ConnId) {
        let Some(peer) = self.peers.get_mut(&conn) else { return };
        while let Some(frame) = peer.heard.next_frame().expect("a server must keep the framing") {
            let frame: ServerFrame = decode(&frame).expect("a server must send messages");
            peer.ears.hear(frame, &mut self.journal);
        }
    }

    /// Lets time pass, with every timer at its moment.
    pub(super) fn pass(&mut self, span: Span) {
        let end = self.now.moment + span;
        for _ in 0..ROUNDS_MAX {
            let shards = self.shards.iter().filter_map(Delivery::next_timeout);
            let due = shards.chain(self.engine.next_timeout()).min();
            let Some(due) = due.filter(|due| *due <= end) else { break };
            self.advance_to(due.max(self.now.moment));
            let moment = self.now.moment;
            self.shards.iter_mut().for_each(|shard| shard.expire(moment));
            self.input(Input::Timeout);
            let next = self.engine.next_timeout();
            assert!(next.is_none_or(|next| next > moment), "a timer must not be due for ever");
            self.drive();
        }
        self.advance_to(end);
    }

    fn advance_to(&mut self, moment: Moment) {
        let span = moment.since(self.now.moment).as_millis();
        let wall = self.now.wall.get().saturating_add(span);
        self.now = Now { moment, wall: Timestamp::new(wall).unwrap_or(Timestamp::MAX) };
    }

    /// The server dies with what is not safe and begins again; nobody is connected.
    pub(super) fn crash(&mut self) {
        self.journal.entries.truncate(self.journal.safe);
        self.peers.clear();
        self.reads.clear();
        let config = self.config.clone();
        let engine = if self.journal.entries.is_empty() {
            Engine::found(self.founding.clone(), config, self.now).expect("the limits must be fit")
        } else {
            let entries = self.journal.entries.iter().map(|entry| Entry::clone(entry));
            Engine::replay(entries, config, self.now).expect("a journal must replay")
        };
        self.begin(engine);
    }

    /// The server goes on as another process that was given a snapshot.
    pub(super) fn restore(&mut self) {
        while self.persist(usize::MAX) {
            self.drive();
        }
        let bytes = self.engine.snapshot().expect("everything is safe");
        let restored = Engine::restore(&bytes, [], self.config.clone(), self.now);
        let restored = restored.expect("a snapshot must restore");
        assert_eq!(restored.state_hash(), self.engine.state_hash(), "a restored state is the same");
        assert_eq!(restored.head(), self.engine.head(), "a restored journal goes on");
        assert_eq!(restored.snapshot(), Some(bytes), "a snapshot must be that of its engine");
        self.peers.clear();
        self.reads.clear();
        self.begin(restored);
    }

    fn begin(&mut self, engine: Engine) {
        self.engine = engine;
        self.moderating.clear();
        self.shards = [Delivery::new(&self.config.limits), Delivery::new(&self.config.limits)];
        self.engine.check_invariants();
        self.drive();
    }

    /// Everything becomes safe, every read is answered and every transport takes bytes; then nobody
    /// is owed anything.
    pub(super) fn settle(&mut self) {
        self.pace.late_entries = false;
        self.pace.late_reads = false;
        self.drive();
        let stalled: Vec<ConnId> =
            self.peers.iter().filter(|(_, peer)| peer.stalled).map(|(conn, _)| *conn).collect();
        stalled.into_iter().for_each(|conn| self.stall(conn, false));
        self.peers.values().for_each(|peer| peer.ears.check_rest(&self.journal));
        self.engine.check_invariants();
        assert_eq!(self.engine.connection_count(), self.peers.len(), "a host counts the same");
    }
}
