//! A rig around one engine, its delivery shards and a store stand-in.
//!
//! It speaks for clients by name, cuts the bytes that they get back into frames, and checks after
//! every input what must always hold. Time stands still unless a test moves it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use chatcore::codec::{FrameBuffer, decode};
use chatcore::delivery::Delivery;
use chatcore::engine::{
    Archive, Config, Directive, Engine, Event, Input, Output, ReadOrder, ReadToken,
};
use chatcore::id::*;
use chatcore::limits::Limits;
use chatcore::log::{Change, Entry, Founding, OperatorRule};
use chatcore::text::{HostAddress, Untrusted};
use chatcore::time::{Moment, Now, Span, Timestamp};
use chatcore::wire::*;
use ed25519_dalek::VerifyingKey;

use crate::show::show;

/// What a rig is made of.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) threshold: u16,
    pub(crate) operators: Vec<OperatorRule>,
    pub(crate) limits: Limits,
    pub(crate) archive: Archive,
    pub(crate) shards: u64,
    /// Most bytes that a connection takes at once.
    pub(crate) piece: usize,
    /// Whether every connection reports "no more for now" after each piece.
    pub(crate) always_blocked: bool,
    /// Most records that the store gives at once.
    pub(crate) read_max: usize,
    /// Whether outputs are taken after every input, or only when the rig is driven.
    pub(crate) drains_early: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            threshold: 2,
            operators: Vec::new(),
            limits: Limits::default(),
            archive: Archive::None,
            shards: 1,
            piece: usize::MAX,
            always_blocked: false,
            read_max: 7,
            drains_early: true,
        }
    }
}

/// When entries are made safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Persisting {
    AtOnce,
    Held,
}

/// One client's side of one connection.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) conn: ConnId,
    pub(crate) session: SessionId,
    buffer: FrameBuffer,
    pub(crate) bytes: Vec<u8>,
    pub(crate) frames: Vec<ServerFrame>,
    /// Rendered and not yet expected by the test.
    lines: Vec<String>,
    /// Takes no byte while it is stalled.
    stalled: bool,
    pub(crate) closed: bool,
}

pub(crate) struct Rig {
    pub(crate) setup: Setup,
    pub(crate) engine: Engine,
    pub(crate) shards: Vec<Delivery>,
    pub(crate) peers: BTreeMap<String, Peer>,
    pub(crate) now: Now,
    pub(crate) persisting: Persisting,
    /// Everything the engine appended; the first `safe` of it is persisted.
    pub(crate) entries: Vec<Arc<Entry>>,
    pub(crate) safe: usize,
    pub(crate) outputs: Vec<Output>,
    pub(crate) events: Vec<Event>,
    /// What those who run the server were answered.
    pub(crate) moderated: Vec<(RequestId, Option<Refusal>)>,
    pub(crate) reads: usize,
    /// Whether the store cannot read.
    pub(crate) ill: bool,
    /// Reads that wait, when the store is slow.
    pub(crate) held_reads: Option<Vec<(ReadToken, Vec<Record>)>>,
    /// Who waits for what the host says of itself, when the host is slow.
    pub(crate) held_reports: Option<Vec<ConnId>>,
    /// What the next connection has to sign.
    pub(crate) nonce: Nonce,
    counters: BTreeMap<SessionId, u64>,
    pub(crate) next_conn: u64,
    next_request: u64,
    attach: u64,
    /// Lives of rooms whose gate opened, as committed.
    opened: BTreeSet<(String, u64)>,
}

/// What the host says of itself.
pub(crate) const HOST: HostStatus =
    HostStatus { uptime_ms: Span::from_secs(60), storage: StorageStatus::Memory };

/// Log-ins are signed by a stand-in, orders are signed.
fn is_signed(key: &PublicKey, message: &[u8], signature: &Signature) -> bool {
    let signature = ed25519_dalek::Signature::from_bytes(signature.as_bytes());
    VerifyingKey::from_bytes(key.as_bytes())
        .is_ok_and(|key| key.verify_strict(message, &signature).is_ok())
}

pub(crate) fn server_key() -> PublicKey {
    PublicKey::new([9; 32])
}

pub(crate) fn key_of(name: &str) -> PublicKey {
    PublicKey::new(Digest::new(padded(name)).as_bytes().map(|byte| byte ^ 0x5A))
}

fn padded(name: &str) -> [u8; 32] {
    let mut bytes = [0; 32];
    for (place, byte) in name.bytes().enumerate() {
        bytes[place % 32] ^= byte.rotate_left(u32::try_from(place / 32).unwrap());
    }
    bytes
}

pub(crate) fn session_of(name: &str) -> SessionId {
    let bytes = padded(name);
    SessionId::new(std::array::from_fn(|place| bytes[place] ^ bytes[place + 16].rotate_left(3)))
}

/// The address that a connection comes in by: each by its own.
pub(crate) fn address_of(label: &str) -> HostAddress {
    let host: String = label.chars().filter(char::is_ascii_alphanumeric).collect();
    format!("chat://{host}.example:5000").parse().unwrap()
}

pub(crate) fn seq(value: u64) -> Seq {
    Seq::new(value).unwrap()
}

pub(crate) fn hello() -> ClientFrame {
    let versions = VersionRange::SUPPORTED;
    ClientFrame::Hello(ClientHello { role: Role::Client, versions, features: 0 })
}

pub(crate) fn post(room: &str, text: &str) -> Command {
    Command::Post { room: Untrusted::new(room), incarnation: None, body: Untrusted::new(text) }
}

pub(crate) fn reset(room: &str, threshold: u16) -> Command {
    let threshold = Threshold::new(threshold).unwrap();
    Command::Reset { room: Untrusted::new(room), threshold }
}

pub(crate) fn moderate(user: &str, measure: Measure) -> Command {
    Command::Moderate { user: Untrusted::new(user), measure }
}

pub(crate) fn after(incarnation: u64, last: u64) -> Start {
    let incarnation = Incarnation::new(incarnation).unwrap();
    Start::After(Cursor { incarnation, seq: seq(last) })
}

impl Setup {
    pub(crate) fn config(&self) -> Config {
        let generation = Generation::ZERO.next();
        Config { limits: self.limits.clone(), archive: self.archive, generation }
    }

    pub(crate) fn limits(change: impl FnOnce(&mut Limits)) -> Self {
        let mut setup = Self::default();
        change(&mut setup.limits);
        setup
    }

    pub(crate) fn rig(self) -> Rig {
        let now = Now {
            moment: Moment::from_millis(1_000_000),
            wall: Timestamp::new(1_700_000_000_000).unwrap(),
        };
        let founding = Founding {
            log_id: LogId::new([1; 16]),
            server_key: server_key(),
            threshold: Threshold::new(self.threshold).unwrap(),
            operators: self.operators.clone(),
        };
        let engine = Engine::found(founding, self.config(), now).unwrap();
        let mut rig = Rig::around(self, engine, now);
        rig.drive();
        rig
    }
}

pub(crate) fn rig() -> Rig {
    Setup::default().rig()
}

impl Rig {
    pub(crate) fn around(setup: Setup, engine: Engine, now: Now) -> Self {
        Self {
            shards: (0..setup.shards).map(|_| as_told!(Delivery::new(&setup.limits))).collect(),
            setup,
            engine: as_told!(engine),
            peers: BTreeMap::new(),
            now,
            persisting: Persisting::AtOnce,
            entries: Vec::new(),
            safe: 0,
            outputs: Vec::new(),
            events: Vec::new(),
            moderated: Vec::new(),
            reads: 0,
            ill: false,
            held_reads: None,
            held_reports: None,
            nonce: Nonce::new([7; 32]),
            counters: BTreeMap::new(),
            next_conn: 0,
            next_request: 0,
            attach: 0,
            opened: BTreeSet::new(),
        }
    }

    /// Goes on with another engine, and nobody connected.
    pub(crate) fn replace_engine(&mut self, engine: Engine) {
        self.engine = as_told!(engine);
        self.peers.clear();
        self.shards =
            (0..self.setup.shards).map(|_| as_told!(Delivery::new(&self.setup.limits))).collect();
    }

    pub(crate) fn input(&mut self, input: Input) {
        self.engine.handle(self.now, input).unwrap();
        self.engine.check_invariants();
        if self.setup.drains_early {
            self.take_outputs();
        }
    }

    fn take_outputs(&mut self) {
        while let Some(output) = self.engine.poll_output() {
            self.outputs.push(output);
        }
    }

    /// Carries out everything there is to do, until there is no more.
    pub(crate) fn drive(&mut self) {
        loop {
            self.take_outputs();
            let outputs = std::mem::take(&mut self.outputs);
            let busy = !outputs.is_empty();
            outputs.into_iter().for_each(|output| self.carry_out(output));
            if self.persisting == Persisting::AtOnce {
                self.persist();
            }
            self.take_outputs();
            if !self.serve_shards() && self.outputs.is_empty() && !busy {
                return;
            }
        }
    }

    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Persist(entry) => self.entries.push(entry),
            Output::Verify { conn, key, signature, message } => {
                let is_order = message.starts_with(b"chatcore operate v1\0");
                assert!(is_order || message.starts_with(b"chatcore log-in v1\0"));
                let is_forged = signature == Signature::new([0; 64]);
                let valid = !is_forged && (!is_order || is_signed(&key, &message, &signature));
                self.input(Input::Verified { conn, valid });
            }
            Output::Sign { conn, message } => {
                assert!(message.starts_with(b"chatcore server v1\0"));
                self.input(Input::Signed { conn, signature: Signature::new([5; 64]) });
            }
            Output::Report { conn } => match &mut self.held_reports {
                Some(held) => held.push(conn),
                None => self.input(Input::Reported { conn, host: HOST }),
            },
            Output::Read { token, room, incarnation, from, to, order } => {
                self.reads += 1;
                if self.ill {
                    return self.input(Input::ReadFailed { token });
                }
                let records = self.stored(room.as_ref(), incarnation, (from, to), order);
                match &mut self.held_reads {
                    Some(held) => held.push((token, records)),
                    None => self.input(Input::ReadDone { token, records }),
                }
            }
            Output::Deliver(directive) => match directive.conn() {
                Some(conn) => self.shard(conn).handle(directive),
                None => {
                    for shard in &mut self.shards {
                        shard.handle(directive.clone());
                    }
                }
            },
            Output::Event(event) => self.events.push(event),
            Output::Moderated { request, refusal } => self.moderated.push((request, refusal)),
        }
    }

    fn stored(
        &self,
        room: &str,
        incarnation: Incarnation,
        (from, to): (Seq, Seq),
        order: ReadOrder,
    ) -> Vec<Record> {
        let records = self.entries[..self.safe].iter().filter_map(|entry| entry.record());
        let mut records: Vec<Record> = records
            .filter(|record| record.room.as_ref() == room && record.incarnation == incarnation)
            .filter(|record| (from..=to).contains(&record.seq))
            .collect();
        let surplus = records.len().saturating_sub(self.setup.read_max);
        match order {
            ReadOrder::Forward => records.truncate(self.setup.read_max),
            ReadOrder::Backward => drop(records.drain(..surplus)),
        }
        records
    }

    pub(crate) fn shard(&mut self, conn: ConnId) -> &mut Delivery {
        let place = conn.get() % self.setup.shards;
        &mut self.shards[usize::try_from(place).unwrap()]
    }

    /// Makes everything appended safe.
    pub(crate) fn persist(&mut self) {
        self.persist_some(usize::MAX);
    }

    /// Makes the next `count` entries safe.
    pub(crate) fn persist_some(&mut self, count: usize) {
        let through = self.safe.saturating_add(count).min(self.entries.len());
        if through == self.safe {
            return;
        }
        for entry in &self.entries[self.safe..through] {
            if let Change::GateOpened { room, incarnation } = &entry.change {
                self.opened.insert((room.to_string(), incarnation.get()));
            }
        }
        self.safe = through;
        let through = self.entries[through - 1].header.index;
        self.input(Input::Persisted { through });
    }

    /// True when something was done.
    fn serve_shards(&mut self) -> bool {
        let mut busy = false;
        for place in 0..self.shards.len() {
            while let Some((conn, refusal)) = self.shards[place].poll_condemned() {
                self.input(Input::Condemned { conn, refusal });
                busy = true;
            }
            while let Some(conn) = self.shards[place].poll_ready() {
                self.write(place, conn);
                busy = true;
            }
            while let Some(need) = self.shards[place].poll_need() {
                self.input(Input::Fetch(need));
                busy = true;
            }
        }
        busy
    }

    fn write(&mut self, place: usize, conn: ConnId) {
        let shard = &mut self.shards[place];
        let mut slices: Vec<Bytes> = Vec::new();
        shard.gather(conn, &mut slices);
        let name = self.peers.iter().find(|(_, peer)| peer.conn == conn && !peer.closed);
        let Some(name) = name.map(|(name, _)| name.clone()) else { return };
        if shard.is_finished(conn) {
            return self.hang_up(&name);
        }
        let peer = self.peers.get_mut(&name).unwrap();
        if peer.stalled {
            shard.blocked(conn, self.now.moment);
            return;
        }
        let bytes: Vec<u8> = slices.concat().into_iter().take(self.setup.piece).collect();
        if !bytes.is_empty() {
            shard.wrote(conn, bytes.len());
        }
        if self.setup.always_blocked {
            shard.blocked(conn, self.now.moment);
            shard.writable(conn);
        }
        peer.bytes.extend_from_slice(&bytes);
        peer.buffer.feed(&bytes);
        self.read_frames(&name);
        if self.shards[place].is_finished(conn) {
            self.hang_up(&name);
        }
    }

    fn read_frames(&mut self, name: &str) {
        let peer = self.peers.get_mut(name).unwrap();
        while let Some(frame) = peer.buffer.next_frame().unwrap() {
            let frame: ServerFrame = decode(&frame).unwrap();
            check_secrecy(&self.opened, &frame);
            peer.lines.push(show(&frame));
            peer.frames.push(frame);
        }
    }

    fn hang_up(&mut self, name: &str) {
        let peer = self.peers.get_mut(name).unwrap();
        peer.closed = true;
        peer.lines.push("closed".to_owned());
        let conn = peer.conn;
        self.shard(conn).remove(conn);
        self.input(Input::Disconnected { conn });
    }

    pub(crate) fn dial(&mut self, label: &str) {
        self.next_conn += 1;
        let conn = ConnId::new(self.next_conn);
        let peer = Peer {
            conn,
            session: session_of(label),
            buffer: FrameBuffer::default(),
            bytes: Vec::new(),
            frames: Vec::new(),
            lines: Vec::new(),
            stalled: false,
            closed: false,
        };
        self.peers.insert(label.to_owned(), peer);
        self.shard(conn).add(conn);
        let (nonce, address) = (self.nonce, Some(address_of(label)));
        let (channel, waited) = (None, Span::ZERO);
        self.input(Input::Connected { conn, nonce, channel, address, waited });
    }

    pub(crate) fn send(&mut self, label: &str, frame: ClientFrame) {
        let conn = self.peers[label].conn;
        self.input(Input::Frame { conn, frame });
    }

    pub(crate) fn login_frame(&mut self, name: &str, session: SessionId) -> ClientFrame {
        self.attach += 1;
        ClientFrame::Login(Login {
            name: Untrusted::new(name),
            key: key_of(name),
            session,
            attach: Attach::new(self.attach).unwrap(),
            signature: Signature::new([1; 64]),
        })
    }

    /// Connects as `name` by the connection `label`, in the session that the label stands for.
    pub(crate) fn login_as(&mut self, label: &str, name: &str) {
        self.dial(label);
        self.send(label, hello());
        let session = self.peers[label].session;
        let login = self.login_frame(name, session);
        self.send(label, login);
        self.drive();
    }

    pub(crate) fn login(&mut self, name: &str) {
        self.login_as(name, name);
    }

    pub(crate) fn ask(&mut self, label: &str, question: Question) {
        self.next_request += 1;
        let request = RequestId::new(self.next_request).unwrap();
        self.send(label, ClientFrame::Ask { request, question });
    }

    pub(crate) fn join_from(&mut self, label: &str, room: &str, start: Start) {
        self.ask(label, Question::Join { room: Untrusted::new(room), start });
        self.drive();
    }

    /// Logs in and joins a room from its first record.
    pub(crate) fn enter(&mut self, name: &str, room: &str) {
        self.login(name);
        self.join_from(name, room, Start::At(seq(1)));
    }

    pub(crate) fn join(&mut self, name: &str) {
        self.enter(name, "lobby");
    }

    pub(crate) fn part(&mut self, label: &str, room: &str) {
        self.ask(label, Question::Part { room: Untrusted::new(room) });
        self.drive();
    }

    pub(crate) fn who(&mut self, label: &str, room: &str) {
        self.ask(label, Question::Who { room: Untrusted::new(room) });
        self.drive();
    }

    pub(crate) fn whois(&mut self, label: &str, room: &str, user: &str) {
        let (room, user) = (Untrusted::new(room), Untrusted::new(user));
        self.ask(label, Question::Whois { room, user });
        self.drive();
    }

    pub(crate) fn history(&mut self, label: &str, room: &str, before: Option<u64>, limit: u16) {
        let (room, before) = (Untrusted::new(room), before.map(seq));
        self.ask(label, Question::History { room, before, limit });
        self.drive();
    }

    pub(crate) fn submit(&mut self, label: &str, counter: u64, command: Command) {
        let counter = Counter::new(counter).unwrap();
        self.send(label, ClientFrame::Submit { counter, command });
        self.drive();
    }

    /// Submits with the next counter of the label's session; returns the counter.
    pub(crate) fn command(&mut self, label: &str, command: Command) -> u64 {
        let session = self.peers[label].session;
        let counter = self.counters.entry(session).or_default();
        *counter += 1;
        let counter = *counter;
        self.submit(label, counter, command);
        counter
    }

    pub(crate) fn post(&mut self, label: &str, room: &str, text: &str) -> u64 {
        self.command(label, post(room, text))
    }

    pub(crate) fn say(&mut self, label: &str, text: &str) {
        self.post(label, "lobby", text);
    }

    pub(crate) fn leave(&mut self, label: &str) {
        self.send(label, ClientFrame::Leave);
        self.drive();
    }

    /// The connection breaks.
    pub(crate) fn lose(&mut self, label: &str) {
        let peer = self.peers.get_mut(label).unwrap();
        if std::mem::replace(&mut peer.closed, true) {
            return;
        }
        let conn = peer.conn;
        self.shard(conn).remove(conn);
        self.input(Input::Disconnected { conn });
        self.drive();
    }

    pub(crate) fn stall(&mut self, label: &str) {
        self.peers.get_mut(label).unwrap().stalled = true;
    }

    pub(crate) fn resume(&mut self, label: &str) {
        let peer = self.peers.get_mut(label).unwrap();
        peer.stalled = false;
        let conn = peer.conn;
        self.shard(conn).writable(conn);
        self.drive();
    }

    /// Lets time pass, with every timer at its moment.
    pub(crate) fn pass(&mut self, span: Span) {
        let end = self.now.moment + span;
        loop {
            let shards = self.shards.iter().filter_map(Delivery::next_timeout);
            let due = shards.chain(self.engine.next_timeout()).min();
            let Some(due) = due.filter(|due| *due <= end) else { break };
            self.advance_to(due.max(self.now.moment));
            for shard in &mut self.shards {
                shard.expire(due);
            }
            self.input(Input::Timeout);
            self.drive();
        }
        self.advance_to(end);
    }

    fn advance_to(&mut self, moment: Moment) {
        let span = moment.since(self.now.moment).as_millis();
        self.now.moment = moment;
        self.now.wall = Timestamp::new(self.now.wall.get() + span).unwrap();
    }

    pub(crate) fn pass_secs(&mut self, secs: u64) {
        self.pass(Span::from_secs(secs));
    }

    /// What this connection was sent and no test has looked at.
    pub(crate) fn heard(&mut self, label: &str) -> Vec<String> {
        self.drive();
        std::mem::take(&mut self.peers.get_mut(label).unwrap().lines)
    }

    /// Everything that everybody was sent since the last look, by name: no more, no less.
    #[track_caller]
    pub(crate) fn expect(&mut self, script: &[&str]) {
        self.drive();
        let mut heard = Vec::new();
        for (label, peer) in &mut self.peers {
            let lines = std::mem::take(&mut peer.lines);
            heard.extend(lines.into_iter().map(|line| format!("{label} < {line}")));
        }
        assert_eq!(heard, script, "the transcript is another:\n{heard:#?}");
    }

    /// Looks at nothing that was sent so far.
    pub(crate) fn forget(&mut self) {
        self.drive();
        self.peers.values_mut().for_each(|peer| peer.lines.clear());
    }

    /// The records that a connection was given, as (room, life, seq, what).
    pub(crate) fn records(&self, label: &str) -> Vec<&Record> {
        let records = self.peers[label].frames.iter().filter_map(|frame| match frame {
            ServerFrame::Record(record) => Some(record),
            _ => None,
        });
        records.collect()
    }

    pub(crate) fn directives(&self) -> impl Iterator<Item = &Directive> {
        self.outputs.iter().filter_map(|output| match output {
            Output::Deliver(directive) => Some(directive),
            _ => None,
        })
    }
}

/// Nothing of a life of a room leaves before the gate of that life opened.
fn check_secrecy(opened: &BTreeSet<(String, u64)>, frame: &ServerFrame) {
    let shown = match frame {
        ServerFrame::Record(record) => Some((&record.room, Some(record.incarnation))),
        ServerFrame::Accepted { seq: Some(_), room, incarnation, .. }
        | ServerFrame::Gap { room, incarnation, .. } => Some((room, Some(*incarnation))),
        ServerFrame::Answer { answer, .. } => match answer {
            Answer::Joined(joined) if joined.users.is_some() || joined.after != Seq::ZERO => {
                Some((&joined.room, Some(joined.gate.incarnation)))
            }
            Answer::Users(users) => Some((&users.room, None)),
            Answer::History { room, incarnation, .. } => Some((room, Some(*incarnation))),
            _ => None,
        },
        _ => None,
    };
    let Some((room, incarnation)) = shown else { return };
    let known = opened.iter().any(|(name, life)| {
        name == room.as_ref() && incarnation.is_none_or(|wanted| wanted.get() == *life)
    });
    assert!(known, "a closed gate let this out: {frame:?}");
}

impl Rig {
    /// Knows of the gates that another rig saw open.
    pub(crate) fn adopt_opened(&mut self, other: &Self) {
        self.opened.clone_from(&other.opened);
        self.counters.clone_from(&other.counters);
        self.attach = other.attach;
        self.next_request = other.next_request;
    }

    /// Takes in an entry that another rig's engine appended.
    pub(crate) fn follow(&mut self, entry: &Arc<Entry>) {
        self.entries.push(Arc::clone(entry));
        self.input(Input::Entry(Arc::clone(entry)));
    }

    /// The number of the last log-in at either rig.
    pub(crate) fn attach_at_least(&self, other: &Self) -> u64 {
        self.attach.max(other.attach)
    }

    pub(crate) fn set_attach(&mut self, attach: u64) {
        self.attach = attach;
    }

    /// Forgets a connection, which stays.
    pub(crate) fn put_away(&mut self, label: &str) -> Option<Peer> {
        self.peers.remove(label)
    }
}
