//! Whether two engines go on alike: the same visitor comes to both, and both say the same.

use std::collections::VecDeque;

use chatcore::engine::{Directive, Engine, Input, Need, Output, ReadOrder};
use chatcore::id::{
    Attach, ConnId, Counter, Nonce, PublicKey, RequestId, Seq, SessionId, Signature,
};
use chatcore::text::{RoomName, Untrusted, UserName};
use chatcore::time::{Now, Span};
use chatcore::wire::{Answer, ClientFrame, Command, Login, Question, Record, ServerFrame, Start};

use crate::world::disk::Disk;
use crate::world::store::Wanted;

/// A connection that no other has.
const CONN: ConnId = ConnId::new(u64::MAX);

/// Timers that an engine has when everybody is gone: a grace each.
const TIMERS_MAX: usize = 1_000;

/// Records that one read gives.
const READ_RECORDS: usize = 100;

/// Somebody who logs in, joins a room, asks, posts and goes, and then waits until everybody else
/// has left, too.
#[derive(Debug)]
pub(crate) struct Visit<'a> {
    disk: &'a Disk,
    now: Now,
    name: &'a UserName,
    key: PublicKey,
    room: &'a RoomName,
    /// Records that came about by the visit itself.
    own: Vec<Record>,
}

/// What an engine said to a visitor.
#[derive(Debug)]
pub(crate) struct Heard {
    /// All of it.
    pub(crate) outputs: Vec<Output>,
    /// How much of it before everybody's time came.
    pub(crate) while_here: usize,
}

impl<'a> Visit<'a> {
    pub(crate) const fn new(
        disk: &'a Disk,
        now: Now,
        (name, key): (&'a UserName, PublicKey),
        room: &'a RoomName,
    ) -> Self {
        Self { disk, now, name, key, room, own: Vec::new() }
    }

    /// With records that the disk does not have.
    pub(crate) fn with(self, own: Vec<Record>) -> Self {
        Self { own, ..self }
    }

    /// Everything that an engine says to it.
    pub(crate) fn to(mut self, engine: &mut Engine) -> Heard {
        let mut said = Vec::new();
        let nonce = Nonce::new([5; Nonce::LEN]);
        self.tell(
            engine,
            Input::Connected {
                conn: CONN,
                nonce,
                channel: None,
                address: None,
                waited: Span::ZERO,
            },
            &mut said,
        );
        for frame in [ClientFrame::hello(), self.log_in(), self.join(), self.post()] {
            self.tell(engine, Input::Frame { conn: CONN, frame }, &mut said);
        }
        if let Some(need) = self.need(&said) {
            self.tell(engine, Input::Fetch(need), &mut said);
        }
        for frame in self.questions() {
            self.tell(engine, Input::Frame { conn: CONN, frame }, &mut said);
        }
        self.tell(engine, Input::Disconnected { conn: CONN }, &mut said);
        let while_here = said.len();
        for _ in 0..TIMERS_MAX {
            let Some(due) = engine.next_timeout() else { break };
            self.now.moment = self.now.moment.max(due);
            self.tell(engine, Input::Timeout, &mut said);
        }
        Heard { outputs: said, while_here }
    }

    fn log_in(&self) -> ClientFrame {
        ClientFrame::Login(Login {
            name: Untrusted::new(self.name.as_str()),
            key: self.key,
            session: SessionId::new([250; SessionId::LEN]),
            attach: Attach::ZERO.saturating_add(1),
            signature: Signature::new([0; Signature::LEN]),
        })
    }

    fn join(&self) -> ClientFrame {
        let (room, start) = (self.a_room(), Start::At(Seq::ZERO.next()));
        ask(1, Question::Join { room, start })
    }

    fn post(&self) -> ClientFrame {
        let (room, body) = (self.a_room(), Untrusted::new("a visit"));
        let command = Command::Post { room, incarnation: None, body };
        ClientFrame::Submit { counter: Counter::ZERO.next(), command }
    }

    fn questions(&self) -> [ClientFrame; 4] {
        let history = Question::History { room: self.a_room(), before: None, limit: 50 };
        [
            ask(2, history),
            ask(3, Question::Who { room: self.a_room() }),
            ask(4, Question::Rooms),
            ask(5, Question::Part { room: self.a_room() }),
        ]
    }

    fn a_room(&self) -> Untrusted<RoomName> {
        Untrusted::new(self.room.as_str())
    }

    /// What its shard lacks, once it has joined.
    fn need(&self, said: &[Output]) -> Option<Need> {
        said.iter().find_map(|output| {
            let Output::Deliver(Directive::Send { frame, .. }) = output else { return None };
            let ServerFrame::Answer { answer: Answer::Joined(joined), .. } = frame else {
                return None;
            };
            let (room, incarnation) = (self.room.clone(), joined.gate.incarnation);
            Some(Need { conn: CONN, room, incarnation, after: Seq::ZERO })
        })
    }

    /// Tells the engine something and does at once what it wants done.
    fn tell(&mut self, engine: &mut Engine, input: Input, said: &mut Vec<Output>) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            engine.handle(self.now, input).expect("a visitor's host must keep the rules");
            let mut through = None;
            while let Some(output) = engine.poll_output() {
                match &output {
                    Output::Persist(entry) => {
                        through = Some(entry.header.index);
                        self.own.extend(entry.record());
                    }
                    Output::Verify { conn, .. } => {
                        inputs.push_back(Input::Verified { conn: *conn, valid: true });
                    }
                    Output::Read { token, room, incarnation, from, to, order } => {
                        let (incarnation, from, to, order) = (*incarnation, *from, *to, *order);
                        let wanted = Wanted { room: room.clone(), incarnation, from, to, order };
                        let records = self.read(&wanted);
                        inputs.push_back(Input::ReadDone { token: *token, records });
                    }
                    Output::Deliver(_)
                    | Output::Sign { .. }
                    | Output::Moderated { .. }
                    | Output::Report { .. }
                    | Output::Event(_) => {}
                }
                said.push(output);
            }
            inputs.extend(through.map(|through| Input::Persisted { through }));
        }
    }

    /// What the disk has, and after that what the visit added.
    fn read(&self, wanted: &Wanted) -> Vec<Record> {
        let (room, incarnation) = (wanted.room.clone(), wanted.incarnation);
        let range = wanted.from..=wanted.to;
        let mut records = self.disk.read(wanted, usize::MAX);
        let own = self.own.iter().filter(|record| {
            record.room == room && record.incarnation == incarnation && range.contains(&record.seq)
        });
        records.extend(own.cloned());
        match wanted.order {
            ReadOrder::Forward => records.truncate(READ_RECORDS),
            ReadOrder::Backward => {
                records.drain(..records.len().saturating_sub(READ_RECORDS));
            }
        }
        records
    }
}

fn ask(number: u64, question: Question) -> ClientFrame {
    ClientFrame::Ask { request: RequestId::ZERO.saturating_add(number), question }
}
