//! An engine with its shard and a store stand-in, watched by the model.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use chat_sim::model::{Broken, Model};
use chatcore::delivery::Delivery;
use chatcore::engine::{
    Archive, Config, Directive, Engine, Input, Output, Page, ReadOrder, ReadToken,
};
use chatcore::id::*;
use chatcore::limits::Limits;
use chatcore::log::{Entry, Founding, OperatorRule};
use chatcore::text::{RoomName, Untrusted};
use chatcore::time::{Moment, Now, Span, Timestamp};
use chatcore::wire::*;

/// What the rig is made of.
#[derive(Clone, Debug, Default)]
pub(crate) struct Setup {
    pub(crate) limits: Limits,
    pub(crate) archive: Archive,
    pub(crate) operators: Vec<OperatorRule>,
    pub(crate) threshold: u16,
}

/// Changes what the model is told of the outputs of an input.
pub(crate) type Falsify<'a> = &'a mut dyn FnMut(Vec<Output>) -> Vec<Output>;

/// What the store was asked.
pub(crate) type Asked = (ReadToken, RoomName, Incarnation, (Seq, Seq), ReadOrder);

pub(crate) struct Rig {
    pub(crate) config: Config,
    pub(crate) engine: Engine,
    pub(crate) model: Model,
    pub(crate) shard: Delivery,
    pub(crate) now: Now,
    pub(crate) entries: Vec<Arc<Entry>>,
    /// How many of them are safe.
    pub(crate) safe: usize,
    /// What the journal says up to so many entries, as bytes.
    snapshot: Option<(usize, Vec<u8>)>,
    /// Connections that the host has.
    pub(crate) open: BTreeSet<ConnId>,
    pub(crate) verifies: VecDeque<(ConnId, bool)>,
    pub(crate) reads: VecDeque<Asked>,
    /// Who waits for what the host says of itself.
    pub(crate) signs: VecDeque<ConnId>,
    pub(crate) reports: VecDeque<ConnId>,
    pub(crate) inputs: u64,
    /// How often the engine put out what, by kind.
    pub(crate) tally: BTreeMap<String, u64>,
    next_conn: u64,
    next_request: u64,
}

impl Rig {
    pub(crate) fn new(setup: Setup) -> Self {
        let now = Now {
            moment: Moment::from_millis(1_000_000),
            wall: Timestamp::new(1_700_000_000_000).unwrap(),
        };
        let founding = Founding {
            log_id: LogId::new([1; 16]),
            server_key: server_key(),
            threshold: Threshold::new(setup.threshold.max(1)).unwrap(),
            operators: setup.operators,
        };
        let generation = Generation::ZERO.next();
        let config = Config { limits: setup.limits, archive: setup.archive, generation };
        let model = Model::new(&config, &founding, now);
        let engine = Engine::found(founding, config.clone(), now).unwrap();
        let shard = Delivery::new(&config.limits);
        let mut rig = Self {
            config,
            engine,
            model,
            shard,
            now,
            entries: Vec::new(),
            safe: 0,
            snapshot: None,
            open: BTreeSet::new(),
            verifies: VecDeque::new(),
            reads: VecDeque::new(),
            signs: VecDeque::new(),
            reports: VecDeque::new(),
            inputs: 0,
            tally: BTreeMap::new(),
            next_conn: 0,
            next_request: 0,
        };
        rig.outputs(&mut |outputs| outputs).unwrap();
        rig
    }

    pub(crate) fn input(&mut self, input: Input) -> Result<(), Broken> {
        self.falsified(input, &mut |outputs| outputs)
    }

    /// Gives an input, and the model another story of what came of it.
    pub(crate) fn falsified(&mut self, input: Input, falsify: Falsify<'_>) -> Result<(), Broken> {
        self.inputs += 1;
        self.model.before(self.now, &input);
        self.engine.handle(self.now, input).unwrap();
        self.outputs(falsify)
    }

    fn outputs(&mut self, falsify: Falsify<'_>) -> Result<(), Broken> {
        let outputs: Vec<Output> = std::iter::from_fn(|| self.engine.poll_output()).collect();
        for output in falsify(outputs.clone()) {
            self.model.output(&output)?;
        }
        self.model.after()?;
        outputs.iter().for_each(|output| *self.tally.entry(kind_of(output)).or_default() += 1);
        outputs.into_iter().for_each(|output| self.carry_out(output));
        Ok(())
    }

    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Persist(entry) => self.entries.push(entry),
            Output::Verify { conn, signature, .. } => {
                self.verifies.push_back((conn, signature != Signature::new([0; 64])));
            }
            Output::Sign { conn, .. } => self.signs.push_back(conn),
            Output::Report { conn } => self.reports.push_back(conn),
            Output::Read { token, room, incarnation, from, to, order } => {
                self.reads.push_back((token, room, incarnation, (from, to), order));
            }
            Output::Deliver(directive) => self.shard.handle(directive),
            Output::Event(_) | Output::Moderated { .. } => {}
        }
    }

    /// What the store has of a range: `lost` of its beginning are gone, it gives `most` at once.
    pub(crate) fn stored(
        &self,
        (room, incarnation): (&RoomName, Incarnation),
        (from, to): (Seq, Seq),
        order: ReadOrder,
        (lost, most): (u64, usize),
    ) -> Vec<Record> {
        let kept = from.saturating_add(lost);
        let records = self.entries[..self.safe].iter().filter_map(|entry| entry.record());
        let mut records: Vec<Record> = records
            .filter(|record| record.room == *room && record.incarnation == incarnation)
            .filter(|record| (kept..=to).contains(&record.seq))
            .collect();
        let surplus = records.len().saturating_sub(most);
        match order {
            ReadOrder::Forward => records.truncate(most),
            ReadOrder::Backward => drop(records.drain(..surplus)),
        }
        records
    }

    fn sign_all(&mut self) -> Result<(), Broken> {
        while let Some(conn) = self.signs.pop_front() {
            self.input(Input::Signed { conn, signature: Signature::new([5; 64]) })?;
        }
        Ok(())
    }

    pub(crate) fn verify_all(&mut self) -> Result<(), Broken> {
        self.sign_all()?;
        while let Some((conn, valid)) = self.verifies.pop_front() {
            self.input(Input::Verified { conn, valid })?;
        }
        Ok(())
    }

    pub(crate) fn report_all(&mut self) -> Result<(), Broken> {
        while let Some(conn) = self.reports.pop_front() {
            self.input(Input::Reported { conn, host: host_status(self.inputs) })?;
        }
        Ok(())
    }

    pub(crate) fn read_all(&mut self, limits: (u64, usize)) -> Result<(), Broken> {
        while let Some((token, room, incarnation, range, order)) = self.reads.pop_front() {
            let records = self.stored((&room, incarnation), range, order, limits);
            self.input(Input::ReadDone { token, records })?;
        }
        Ok(())
    }

    pub(crate) fn fail_reads(&mut self) -> Result<(), Broken> {
        while let Some((token, ..)) = self.reads.pop_front() {
            self.input(Input::ReadFailed { token })?;
        }
        Ok(())
    }

    /// Makes the next `count` entries safe.
    pub(crate) fn persist(&mut self, count: usize) -> Result<(), Broken> {
        match self.next_persisted(count) {
            Some(input) => self.input(input),
            None => Ok(()),
        }
    }

    pub(crate) fn next_persisted(&mut self, count: usize) -> Option<Input> {
        let through = self.safe.saturating_add(count).min(self.entries.len());
        if through == self.safe {
            return None;
        }
        self.safe = through;
        Some(Input::Persisted { through: self.entries[through - 1].header.index })
    }

    /// Lets the shard write and ask, for at most so many connections.
    pub(crate) fn serve(&mut self, most: usize) -> Result<(), Broken> {
        while let Some((conn, refusal)) = self.shard.poll_condemned() {
            if self.open.contains(&conn) {
                self.input(Input::Condemned { conn, refusal })?;
            }
        }
        for _ in 0..most {
            let Some(conn) = self.shard.poll_ready() else { break };
            let mut slices: Vec<Bytes> = Vec::new();
            self.shard.gather(conn, &mut slices);
            let bytes = slices.iter().map(Bytes::len).sum();
            if bytes > 0 {
                self.shard.wrote(conn, bytes);
            }
            if self.shard.is_finished(conn) {
                self.lose(conn)?;
            }
        }
        while let Some(need) = self.shard.poll_need() {
            self.input(Input::Fetch(need))?;
        }
        Ok(())
    }

    pub(crate) fn dial(&mut self) -> Result<ConnId, Broken> {
        self.next_conn += 1;
        let conn = ConnId::new(self.next_conn);
        let channel = self.next_conn.is_multiple_of(3).then(|| Digest::new([3; 32]));
        self.shard.add(conn);
        self.open.insert(conn);
        let (nonce, waited) = (Nonce::new([7; 32]), Span::ZERO);
        self.input(Input::Connected { conn, nonce, channel, address: None, waited })?;
        Ok(conn)
    }

    pub(crate) fn lose(&mut self, conn: ConnId) -> Result<(), Broken> {
        if !self.open.remove(&conn) {
            return Ok(());
        }
        self.shard.remove(conn);
        self.input(Input::Disconnected { conn })
    }

    pub(crate) fn send(&mut self, conn: ConnId, frame: ClientFrame) -> Result<(), Broken> {
        if self.open.contains(&conn) {
            self.input(Input::Frame { conn, frame })?;
        }
        Ok(())
    }

    pub(crate) fn ask(&mut self, question: Question) -> ClientFrame {
        self.next_request += 1;
        ClientFrame::Ask { request: RequestId::new(self.next_request).unwrap(), question }
    }

    /// Keeps what the next process begins with instead of the whole journal, or nothing.
    pub(crate) fn take_snapshot(&mut self) {
        self.snapshot = self.engine.snapshot().map(|bytes| (self.entries.len(), bytes));
    }

    /// The process dies with the first `kept` entries on disk, and another one goes on.
    pub(crate) fn restart(&mut self, kept: usize) {
        // A journal that is not even founded is begun anew, which is no restart.
        let kept = kept.clamp(self.safe.max(1), self.entries.len());
        self.entries.truncate(kept);
        self.safe = kept;
        let entries = self.entries.iter().map(|entry| Entry::clone(entry));
        let (config, now) = (self.config.clone(), self.now);
        self.engine = match &self.snapshot {
            Some((through, bytes)) => {
                Engine::restore(bytes, entries.skip(*through), config, now).unwrap()
            }
            None => Engine::replay(entries, config, now).unwrap(),
        };
        self.model.restart(self.engine.committed(), self.now);
        self.shard = Delivery::new(&self.config.limits);
        self.open.clear();
        self.verifies.clear();
        self.reads.clear();
        self.reports.clear();
        assert_eq!(self.engine.head(), self.model.head(), "both know the same journal");
    }

    pub(crate) fn pass(&mut self, millis: u64) {
        self.now.moment = Moment::from_millis(self.now.moment.as_millis() + millis);
        self.now.wall = Timestamp::new(self.now.wall.get() + millis).unwrap();
    }
}

/// Shorthands for scripts.
impl Rig {
    /// Connects a user in a session of its own.
    pub(crate) fn log_in(&mut self, name: &str) -> ConnId {
        let conn = self.dial().unwrap();
        self.send(conn, ClientFrame::hello()).unwrap();
        self.send(conn, login(name, session(name, 0), 1)).unwrap();
        self.verify_all().unwrap();
        self.persist(usize::MAX).unwrap();
        conn
    }

    pub(crate) fn join(&mut self, conn: ConnId, room: &str) {
        let frame = self.ask(question_join(room));
        self.send(conn, frame).unwrap();
        self.persist(usize::MAX).unwrap();
    }
}

pub(crate) fn question_join(room: &str) -> Question {
    Question::Join { room: Untrusted::new(room), start: Start::At(Seq::ZERO.next()) }
}

pub(crate) fn post(counter: u64, room: &str, text: &str) -> ClientFrame {
    let body = Untrusted::new(text);
    let command = Command::Post { room: Untrusted::new(room), incarnation: None, body };
    ClientFrame::Submit { counter: Counter::new(counter).unwrap(), command }
}

pub(crate) fn moderate(counter: u64, user: &str, measure: Measure) -> ClientFrame {
    let command = Command::Moderate { user: Untrusted::new(user), measure };
    ClientFrame::Submit { counter: Counter::new(counter).unwrap(), command }
}

pub(crate) fn reset(counter: u64, room: &str, threshold: u16) -> ClientFrame {
    let threshold = Threshold::new(threshold).unwrap();
    let command = Command::Reset { room: Untrusted::new(room), threshold };
    ClientFrame::Submit { counter: Counter::new(counter).unwrap(), command }
}

pub(crate) const fn server_key() -> PublicKey {
    PublicKey::new([9; 32])
}

pub(crate) fn key_of(name: &str) -> PublicKey {
    let mut bytes = [0x5A; 32];
    bytes.iter_mut().zip(name.bytes()).for_each(|(place, byte)| *place ^= byte);
    PublicKey::new(bytes)
}

pub(crate) fn session(name: &str, number: u8) -> SessionId {
    let mut bytes = [number; 16];
    bytes.iter_mut().skip(1).zip(name.bytes()).for_each(|(place, byte)| *place ^= byte);
    SessionId::new(bytes)
}

pub(crate) fn login(name: &str, session: SessionId, attach: u64) -> ClientFrame {
    ClientFrame::Login(Login {
        name: Untrusted::new(name),
        key: key_of(&name.to_lowercase()),
        session,
        attach: Attach::new(attach).unwrap(),
        signature: Signature::new([1; 64]),
    })
}

/// An order by a key; the signature of the rig's orders and log-ins is a stand-in.
pub(crate) fn operate(key: PublicKey) -> ClientFrame {
    let signature = Signature::new([1; 64]);
    ClientFrame::Operate(Operate { key, order: Order::Status, signature })
}

pub(crate) fn host_status(uptime: u64) -> HostStatus {
    HostStatus { uptime_ms: Span::from_millis(uptime), storage: StorageStatus::Memory }
}

/// The frames that a connection was sent.
pub(crate) fn sent(outputs: &[Output], to: ConnId) -> Vec<&ServerFrame> {
    let frames = outputs.iter().filter_map(|output| match output {
        Output::Deliver(Directive::Send { conn, frame }) if *conn == to => Some(frame),
        _ => None,
    });
    frames.collect()
}

/// What an output is, without what it says of whom.
fn kind_of(output: &Output) -> String {
    let text = match output {
        Output::Persist(entry) => format!("{:?}", entry.change),
        Output::Deliver(Directive::Send { frame, .. }) => match frame {
            ServerFrame::Answer { answer: Answer::Refused(refusal), .. } => {
                return format!("answer refused {}", name_of(refusal));
            }
            ServerFrame::Answer { answer, .. } => format!("{answer:?}"),
            ServerFrame::Refused { refusal, .. } => {
                return format!("refused {}", name_of(refusal));
            }
            frame => format!("{frame:?}"),
        },
        Output::Deliver(Directive::Close { refusal, .. }) => {
            return refusal
                .map_or("close".to_owned(), |refusal| format!("close {}", name_of(&refusal)));
        }
        Output::Deliver(Directive::Page { page: Page::Gone { .. }, .. }) => "Gone".to_owned(),
        Output::Deliver(Directive::Gate { gate, .. }) => format!("Gate-open-{}", gate.open),
        Output::Deliver(directive) => format!("{directive:?}"),
        output => format!("{output:?}"),
    };
    let end = text.find([' ', '(']).unwrap_or(text.len());
    text[..end].to_owned()
}

/// A refusal without its numbers.
fn name_of(refusal: &Refusal) -> String {
    refusal.to_string().replace(|letter: char| letter.is_ascii_digit(), "")
}
