//! Clients and an engine in memory: every output is carried out at once, and connections break
//! where a test says so.

use std::collections::VecDeque;

use bytes::Bytes;
use chatcore::client::{Ask, Client, ClientConfig, Event, Input, Output, Save, Saved, Stop};
use chatcore::codec::{FrameBuffer, decode};
use chatcore::delivery::Delivery;
use chatcore::engine::{self, Config, Engine};
use chatcore::id::{ConnId, LogId, Nonce, PublicKey, SessionId, Signature, Threshold};
use chatcore::log::Founding;
use chatcore::text::RoomName;
use chatcore::time::{Moment, Now, Span, Timestamp};
use chatcore::wire::{RecordBody, ServerFrame, Start};

/// Rounds of waiting after which a test has failed.
const ROUNDS_MAX: usize = 300;

pub(crate) fn lobby() -> RoomName {
    "lobby".parse().unwrap()
}

pub(crate) fn join(room: RoomName) -> Input {
    Input::Join { room, id: "join".into() }
}

pub(crate) fn part(room: RoomName) -> Input {
    Input::Part { room, id: "part".into() }
}

pub(crate) fn ask(ask: Ask) -> Input {
    Input::Ask { ask, id: "ask".into() }
}

/// Where the first client's connection, or the client itself, ends; once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// Instead of transferring this frame, counted from 0 in both directions.
    CutAtFrame(usize),
    /// The process dies instead of carrying out this output, counted from 0.
    DieAtOutput(usize),
}

pub(crate) struct Host {
    pub(crate) client: Client,
    config: ClientConfig,
    pub(crate) saved: Saved,
    pub(crate) key: PublicKey,
    conn: Option<ConnId>,
    stream: FrameBuffer,
    inbox: VecDeque<ServerFrame>,
    /// The server closed after what is in the inbox.
    closed: bool,
    pub(crate) fault: Fault,
    frames: usize,
    outputs: usize,
    pub(crate) events: Vec<Event>,
    pub(crate) stopped: Option<Stop>,
    /// Everything the client was told and said, for comparing runs.
    pub(crate) inputs: Vec<(Moment, Input)>,
    pub(crate) said: Vec<Output>,
    /// Lines to be typed: taken out when the client has saved them.
    pub(crate) lines: Vec<String>,
}

pub(crate) struct World {
    engine: Engine,
    delivery: Delivery,
    pub(crate) hosts: Vec<Host>,
    next_conn: u64,
    pub(crate) now: u64,
    /// Whether dials succeed.
    pub(crate) reachable: bool,
}

fn founding(log: u8, threshold: u16) -> Founding {
    Founding {
        log_id: LogId::new([log; 16]),
        server_key: PublicKey::new([9; 32]),
        threshold: Threshold::new(threshold).unwrap(),
        operators: Vec::new(),
    }
}

pub(crate) fn config(name: &str) -> ClientConfig {
    ClientConfig {
        name: name.parse().unwrap(),
        rooms: vec![lobby()],
        start: Start::Last(1_000),
        reconnect: true,
        jitter_seed: 1,
        proof_seed: None,
    }
}

impl Host {
    fn new(name: &str, number: u8) -> Self {
        let config = config(name);
        Self {
            client: as_told!(Client::new(config.clone())),
            config,
            saved: Saved::new(SessionId::new([number; 16])),
            key: PublicKey::new([number; 32]),
            conn: None,
            stream: FrameBuffer::default(),
            inbox: VecDeque::new(),
            closed: false,
            fault: Fault::None,
            frames: 0,
            outputs: 0,
            events: Vec::new(),
            stopped: None,
            inputs: Vec::new(),
            said: Vec::new(),
            lines: Vec::new(),
        }
    }

    /// The texts of posts that were shown, in order.
    pub(crate) fn shown(&self) -> Vec<String> {
        let posts = self.events.iter().filter_map(|event| match event {
            Event::Record(record) => match &record.body {
                RecordBody::Post { text, .. } => Some(text.as_str().to_owned()),
                RecordBody::Joined { .. } | RecordBody::Left { .. } => None,
            },
            _ => None,
        });
        posts.collect()
    }

    pub(crate) fn resumed(&self) -> Vec<bool> {
        let connected = self.events.iter().filter_map(|event| match event {
            Event::Connected { resumed, .. } => Some(*resumed),
            _ => None,
        });
        connected.collect()
    }

    pub(crate) fn sent(&self) -> Vec<&str> {
        let sent = self.events.iter().filter_map(|event| match event {
            Event::Sent { id, .. } => Some(id.as_str()),
            _ => None,
        });
        sent.collect()
    }

    /// How often the user was told that the server's store is full.
    pub(crate) fn told_full(&self) -> usize {
        self.events.iter().filter(|event| **event == Event::StoreFull).count()
    }

    /// Whether every line was saved and answered.
    pub(crate) fn is_drained(&self) -> bool {
        self.lines.is_empty() && self.saved.outbox.is_empty()
    }
}

impl World {
    pub(crate) fn new(threshold: u16, names: &[&str]) -> Self {
        let config = Config::default();
        let delivery = as_told!(Delivery::new(&config.limits));
        let engine =
            as_told!(Engine::found(founding(1, threshold), config, Now::default()).unwrap());
        let hosts = names.iter().zip(1..).map(|(name, n)| Host::new(name, n)).collect();
        let mut world = Self { engine, delivery, hosts, next_conn: 0, now: 0, reachable: true };
        for host in 0..world.hosts.len() {
            world.tell(host, Input::Start);
        }
        world
    }

    /// The server dies; another begins with the journal `log`.
    pub(crate) fn replace_server(&mut self, log: u8, threshold: u16) {
        let config = Config::default();
        self.delivery = as_told!(Delivery::new(&config.limits));
        self.engine =
            as_told!(Engine::found(founding(log, threshold), config, self.now()).unwrap());
        for host in 0..self.hosts.len() {
            if self.hosts[host].conn.take().is_some() {
                self.hosts[host].inbox.clear();
                self.tell(host, Input::Lost { reason: "reset by peer".into() });
            }
        }
    }

    fn now(&self) -> Now {
        let wall = Timestamp::new(self.now).unwrap();
        Now { moment: Moment::from_millis(self.now), wall }
    }

    pub(crate) fn tell(&mut self, host: usize, input: Input) {
        let now = Moment::from_millis(self.now);
        let host = &mut self.hosts[host];
        host.inputs.push((now, input.clone()));
        host.client.handle(now, input);
    }

    /// Types lines, their text being their label too.
    pub(crate) fn type_lines(&mut self, host: usize, lines: &[&str]) {
        for line in lines {
            self.hosts[host].lines.push((*line).to_owned());
            self.type_line(host, line);
        }
    }

    fn type_line(&mut self, host: usize, line: &str) {
        let (room, body, id) = (lobby(), line.parse().unwrap(), line.to_owned());
        self.tell(host, Input::Post { room, body, id });
    }

    /// The store of the server is full, or is not any more.
    pub(crate) fn fill_store(&mut self, full: bool) {
        let input = if full { engine::Input::StoreFull } else { engine::Input::StoreFree };
        self.engine.handle(self.now(), input).unwrap();
    }

    /// Breaks a connection.
    pub(crate) fn cut(&mut self, host: usize) {
        self.drop_connection(host);
        self.tell(host, Input::Lost { reason: "cut".into() });
    }

    fn drop_connection(&mut self, host: usize) {
        let host = &mut self.hosts[host];
        host.inbox.clear();
        host.closed = false;
        host.stream = FrameBuffer::default();
        if let Some(conn) = host.conn.take() {
            self.delivery.remove(conn);
            self.engine.handle(self.now(), engine::Input::Disconnected { conn }).unwrap();
        }
    }

    /// Goes on, letting time pass, until `done`.
    pub(crate) fn run_until(&mut self, done: impl Fn(&Self) -> bool) {
        for _ in 0..ROUNDS_MAX {
            while self.step() {}
            self.engine.check_invariants();
            if done(self) {
                return;
            }
            self.wait();
        }
        let tails: Vec<_> = self.hosts.iter().map(|h| h.said.iter().rev().take(5)).collect();
        panic!("nothing more happens after {} ms: {tails:?}", self.now);
    }

    fn wait(&mut self) {
        let clients = self.hosts.iter().filter_map(|host| host.client.next_timeout());
        let next = clients.chain(self.engine.next_timeout()).min();
        self.now = self.now.max(next.map_or(0, Moment::as_millis));
        self.engine.handle(self.now(), engine::Input::Timeout).unwrap();
        for host in 0..self.hosts.len() {
            self.tell(host, Input::Timeout);
        }
    }

    fn step(&mut self) -> bool {
        let mut busy = self.step_engine();
        busy |= self.step_delivery();
        for host in 0..self.hosts.len() {
            busy |= self.step_host(host);
        }
        busy
    }

    fn step_engine(&mut self) -> bool {
        let Some(output) = self.engine.poll_output() else { return false };
        let now = self.now();
        match output {
            engine::Output::Persist(entry) => {
                let through = entry.header.index;
                self.engine.handle(now, engine::Input::Persisted { through }).unwrap();
            }
            engine::Output::Verify { conn, .. } => {
                self.engine.handle(now, engine::Input::Verified { conn, valid: true }).unwrap();
            }
            engine::Output::Sign { conn, .. } => {
                let signature = Signature::new([5; 64]);
                self.engine.handle(now, engine::Input::Signed { conn, signature }).unwrap();
            }
            engine::Output::Report { .. } => panic!("no client asks for it"),
            engine::Output::Deliver(directive) => self.delivery.handle(directive),
            engine::Output::Read { .. } => panic!("there is no store"),
            engine::Output::Event(_) | engine::Output::Moderated { .. } => {}
        }
        true
    }

    fn step_delivery(&mut self) -> bool {
        let mut busy = false;
        while let Some(need) = self.delivery.poll_need() {
            self.engine.handle(self.now(), engine::Input::Fetch(need)).unwrap();
            busy = true;
        }
        while let Some(conn) = self.delivery.poll_ready() {
            let mut slices: Vec<Bytes> = Vec::new();
            self.delivery.gather(conn, &mut slices);
            self.delivery.wrote(conn, slices.iter().map(Bytes::len).sum());
            let closed = self.delivery.is_finished(conn);
            if closed {
                // A finished connection stays ready until its host lets go of it.
                self.delivery.remove(conn);
            }
            let Some(host) = self.hosts.iter_mut().find(|host| host.conn == Some(conn)) else {
                continue;
            };
            for slice in slices {
                host.stream.feed(&slice);
            }
            while let Some(frame) = host.stream.next_frame().unwrap() {
                host.inbox.push_back(decode(&frame).unwrap());
            }
            host.closed |= closed;
            busy = true;
        }
        busy
    }

    fn step_host(&mut self, host: usize) -> bool {
        if let Some(output) = self.hosts[host].client.poll_output() {
            self.carry_out(host, output);
            return true;
        }
        if let Some(frame) = self.hosts[host].inbox.pop_front() {
            if self.survives_transfer(host) {
                self.tell(host, Input::Frame(frame));
            }
            return true;
        }
        let closed = self.hosts[host].closed;
        if closed {
            self.cut(host);
        }
        closed
    }

    /// Counts a frame of the connection; false when it breaks instead.
    fn survives_transfer(&mut self, host: usize) -> bool {
        let state = &mut self.hosts[host];
        let frame = state.frames;
        state.frames += 1;
        if state.fault == Fault::CutAtFrame(frame) {
            state.fault = Fault::None;
            self.cut(host);
            return false;
        }
        true
    }

    fn carry_out(&mut self, host: usize, output: Output) {
        let state = &mut self.hosts[host];
        let number = state.outputs;
        state.outputs += 1;
        if state.fault == Fault::DieAtOutput(number) {
            return self.restart(host);
        }
        state.said.push(output.clone());
        match output {
            Output::Dial => self.dial(host),
            Output::Hangup => self.drop_connection(host),
            Output::Send(frame) => {
                let Some(conn) = state.conn else { return };
                if self.survives_transfer(host) {
                    let now = self.now();
                    self.engine.handle(now, engine::Input::Frame { conn, frame }).unwrap();
                }
            }
            Output::Identify { .. } => {
                let (key, saved) = (state.key, state.saved.clone());
                self.tell(host, Input::Identified { key, saved });
            }
            Output::Sign(_) => self.tell(host, Input::Signed(Signature::new([0; 64]))),
            Output::Verify { .. } => self.tell(host, Input::Verified { valid: true }),
            Output::Save(save) => {
                if let Save::Queued(unsent) = &save {
                    state.lines.retain(|line| *line != unsent.id);
                }
                state.saved.apply(save);
            }
            Output::Event(event) => state.events.push(event),
            Output::Stopped(stop) => state.stopped = Some(stop),
        }
    }

    fn dial(&mut self, host: usize) {
        self.drop_connection(host);
        if !self.reachable {
            return self.tell(host, Input::Lost { reason: "refused".into() });
        }
        let conn = ConnId::new(self.next_conn);
        self.next_conn += 1;
        self.hosts[host].conn = Some(conn);
        self.delivery.add(conn);
        let nonce = Nonce::new([u8::try_from(self.next_conn % 256).unwrap(); 32]);
        let connected = engine::Input::Connected {
            conn,
            nonce,
            channel: None,
            address: None,
            waited: Span::ZERO,
        };
        self.engine.handle(self.now(), connected).unwrap();
        self.tell(host, Input::Dialled { channel: None });
    }

    /// The client's process dies and is started again with what it saved. Its user types again
    /// what the dead one had not taken.
    pub(crate) fn restart(&mut self, host: usize) {
        self.drop_connection(host);
        let state = &mut self.hosts[host];
        state.fault = Fault::None;
        state.client = as_told!(Client::new(state.config.clone()));
        state.inputs.clear();
        state.said.clear();
        self.tell(host, Input::Start);
        for line in self.hosts[host].lines.clone() {
            self.type_line(host, &line);
        }
    }
}
