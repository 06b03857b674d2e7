//! A client whose server is a script.

use chatcore::client::{Client, ClientConfig, Event, Input, Output, Saved, Stop};
use chatcore::id::{
    Counter, Generation, Incarnation, LogId, Nonce, PublicKey, RequestId, Seq, SessionId,
    Signature, Threshold,
};
use chatcore::time::{Moment, Timestamp};
use chatcore::wire::{
    Answer, ClientFrame, GateState, JoinedRoom, Record, RecordBody, Refusal, ServerFrame,
    ServerHello, VERSION, Welcome,
};

use crate::rig::{config, lobby};

pub(crate) const SESSION: SessionId = SessionId::new([1; 16]);

/// A client whose every output is at hand, and the clock.
pub(crate) struct Script {
    pub(crate) client: Client,
    pub(crate) now: u64,
    pub(crate) saved: Saved,
    /// How often the server opened a session.
    openings: u64,
}

pub(crate) const fn hello(log: u8, key: u8) -> ServerHello {
    ServerHello {
        version: VERSION,
        features: 0,
        server_key: PublicKey::new([key; 32]),
        log_id: LogId::new([log; 16]),
        generation: Generation::ZERO,
        nonce: Nonce::new([0; 32]),
    }
}

pub(crate) fn counter(n: u64) -> Counter {
    Counter::new(n).unwrap()
}

impl Script {
    pub(crate) fn new(saved: Saved) -> Self {
        Self::configured(config("alice"), saved)
    }

    pub(crate) fn configured(config: ClientConfig, saved: Saved) -> Self {
        let client = as_told!(Client::new(config));
        let openings = saved.origin.map_or(0, |origin| origin.opened.get());
        let mut script = Self { client, now: 0, saved, openings };
        script.say(Input::Start);
        script
    }

    /// Logged in, and the lobby's join is not answered yet.
    pub(crate) fn online() -> Self {
        let mut script = Self::new(Saved::new(SESSION));
        script.log_in(&hello(1, 9));
        script.welcome(SESSION, 0, false);
        script
    }

    /// Logged in and in the lobby, whose gate is closed.
    pub(crate) fn joined() -> Self {
        let mut script = Self::online();
        script.frame(joined(1, 1, 0));
        script
    }

    pub(crate) fn say(&mut self, input: Input) -> Vec<Output> {
        self.client.handle(Moment::from_millis(self.now), input);
        self.drain()
    }

    fn drain(&mut self) -> Vec<Output> {
        let outputs: Vec<Output> = core::iter::from_fn(|| self.client.poll_output()).collect();
        for output in &outputs {
            if let Output::Save(save) = output {
                self.saved.apply(save.clone());
            }
        }
        outputs
    }

    pub(crate) fn frame(&mut self, frame: ServerFrame) -> Vec<Output> {
        self.say(Input::Frame(frame))
    }

    pub(crate) fn log_in(&mut self, hello: &ServerHello) -> Vec<Output> {
        self.say(Input::Dialled { channel: None });
        let outputs = self.frame(ServerFrame::Hello(hello.clone()));
        if outputs.iter().any(|output| matches!(output, Output::Identify { .. })) {
            let (key, saved) = (PublicKey::new([1; 32]), self.saved.clone());
            self.say(Input::Identified { key, saved });
        }
        self.say(Input::Signed(Signature::new([0; 64])))
    }

    /// The server knows the session, or opens it with this log-in.
    pub(crate) fn welcome(&mut self, session: SessionId, last: u64, known: bool) -> Vec<Output> {
        self.openings += u64::from(!known);
        let opened = Timestamp::new(self.openings).unwrap();
        let (user, last_counter) = ("alice".parse().unwrap(), counter(last));
        let operator = false;
        let address = None;
        let welcome = Welcome { user, session, last_counter, opened, operator, address };
        self.frame(ServerFrame::Welcome(welcome))
    }

    /// The server opens the session, and its answer is lost on the way.
    pub(crate) const fn lose_welcome(&mut self) {
        self.openings += 1;
    }

    /// As [`Self::welcome`], and the rooms are joined.
    pub(crate) fn enter(&mut self, session: SessionId, last: u64, known: bool) -> Vec<Output> {
        let mut outputs = self.welcome(session, last, known);
        for request in asked(&outputs) {
            outputs.extend(self.frame(joined(request, 1, 0)));
        }
        outputs
    }

    /// Loses the connection and waits until the next dial.
    pub(crate) fn lose(&mut self) {
        self.say(Input::Lost { reason: "lost".into() });
        self.wait();
    }

    pub(crate) fn wait(&mut self) -> Vec<Output> {
        self.now = self.client.next_timeout().unwrap().as_millis();
        self.say(Input::Timeout)
    }

    pub(crate) fn post(&mut self, id: &str) -> Vec<Output> {
        let (room, body, id) = (lobby(), id.parse().unwrap(), id.to_owned());
        self.say(Input::Post { room, body, id })
    }

    pub(crate) fn refuse(&mut self, n: u64, refusal: Refusal) -> Vec<Output> {
        self.frame(ServerFrame::Refused { counter: counter(n), refusal })
    }
}

pub(crate) fn submitted(outputs: &[Output]) -> Vec<u64> {
    let submits = outputs.iter().filter_map(|output| match output {
        Output::Send(ClientFrame::Submit { counter, .. }) => Some(counter.get()),
        _ => None,
    });
    submits.collect()
}

/// The numbers of the questions asked.
pub(crate) fn asked(outputs: &[Output]) -> Vec<u64> {
    let asks = outputs.iter().filter_map(|output| match output {
        Output::Send(ClientFrame::Ask { request, .. }) => Some(request.get()),
        _ => None,
    });
    asks.collect()
}

pub(crate) fn refused(outputs: &[Output]) -> Vec<&str> {
    let refused = outputs.iter().filter_map(|output| match output {
        Output::Event(Event::Refused { id: Some(id), .. }) => Some(id.as_str()),
        _ => None,
    });
    refused.collect()
}

pub(crate) fn stopped(outputs: &[Output]) -> Option<Stop> {
    outputs.iter().find_map(|output| match output {
        Output::Stopped(stop) => Some(*stop),
        _ => None,
    })
}

pub(crate) fn record(incarnation: u64, seq: u64) -> ServerFrame {
    ServerFrame::Record(Record {
        room: lobby(),
        incarnation: Incarnation::new(incarnation).unwrap(),
        seq: Seq::new(seq).unwrap(),
        at: Timestamp::default(),
        body: RecordBody::Joined { user: "bob".parse().unwrap() },
    })
}

pub(crate) fn gate(incarnation: u64, open: bool) -> GateState {
    let incarnation = Incarnation::new(incarnation).unwrap();
    GateState { incarnation, users: 1, threshold: Threshold::DEFAULT, open }
}

pub(crate) fn joined(request: u64, incarnation: u64, after: u64) -> ServerFrame {
    let (room, gate) = (lobby(), gate(incarnation, false));
    let joined =
        JoinedRoom { room, gate, after: Seq::new(after).unwrap(), users: None, opened: false };
    let request = RequestId::new(request).unwrap();
    ServerFrame::Answer { request, answer: Answer::Joined(joined) }
}
