//! A client against a server that is scripted, broken or malicious.

use chatcore::client::{Ask, Client, Event, Input, Output, Save, Saved, Stop, Unsent};
use chatcore::id::{
    Counter, Generation, Incarnation, LogId, Nonce, PublicKey, RequestId, Seq, SessionId,
    Signature, Threshold,
};
use chatcore::time::{Moment, Span, Timestamp};
use chatcore::wire::{
    Answer, AuthFault, ClientFrame, GateState, JoinedRoom, List, NameFault, Record, RecordBody,
    Refusal, ServerFrame, ServerHello, StateFault, UserList, VERSION, Welcome,
};
use proptest::prelude::*;

use crate::rig::{config, lobby};

const SESSION: SessionId = SessionId::new([1; 16]);

/// A client whose every output is at hand, and the clock.
struct Script {
    client: Client,
    now: u64,
    saved: Saved,
}

const fn hello(log: u8, key: u8) -> ServerHello {
    ServerHello {
        version: VERSION,
        features: 0,
        server_key: PublicKey::new([key; 32]),
        log_id: LogId::new([log; 16]),
        generation: Generation::ZERO,
        nonce: Nonce::new([0; 32]),
    }
}

fn counter(n: u64) -> Counter {
    Counter::new(n).unwrap()
}

impl Script {
    fn new(saved: Saved) -> Self {
        let mut script = Self { client: as_told!(Client::new(config("alice"))), now: 0, saved };
        script.say(Input::Start);
        script
    }

    fn online() -> Self {
        let mut script = Self::new(Saved::new(SESSION));
        script.log_in(&hello(1, 9));
        script.welcome(SESSION, 0, false);
        script
    }

    fn say(&mut self, input: Input) -> Vec<Output> {
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

    fn frame(&mut self, frame: ServerFrame) -> Vec<Output> {
        self.say(Input::Frame(frame))
    }

    fn log_in(&mut self, hello: &ServerHello) -> Vec<Output> {
        self.say(Input::Dialled);
        let outputs = self.frame(ServerFrame::Hello(hello.clone()));
        if outputs.iter().any(|output| matches!(output, Output::Identify { .. })) {
            let (key, saved) = (PublicKey::new([1; 32]), self.saved.clone());
            self.say(Input::Identified { key, saved });
        }
        self.say(Input::Signed(Signature::new([0; 64])))
    }

    fn welcome(&mut self, session: SessionId, last: u64, known: bool) -> Vec<Output> {
        let (user, last_counter) = ("alice".parse().unwrap(), counter(last));
        let operator = false;
        self.frame(ServerFrame::Welcome(Welcome { user, session, last_counter, known, operator }))
    }

    /// Loses the connection and waits until the next dial.
    fn lose(&mut self) {
        self.say(Input::Lost { reason: "lost".into() });
        self.wait();
    }

    fn wait(&mut self) -> Vec<Output> {
        self.now = self.client.next_timeout().unwrap().as_millis();
        self.say(Input::Timeout)
    }

    fn post(&mut self, id: &str) -> Vec<Output> {
        let (room, body, id) = (lobby(), id.parse().unwrap(), id.to_owned());
        self.say(Input::Post { room, body, id })
    }

    fn refuse(&mut self, n: u64, refusal: Refusal) -> Vec<Output> {
        self.frame(ServerFrame::Refused { counter: counter(n), refusal })
    }
}

fn submitted(outputs: &[Output]) -> Vec<u64> {
    let submits = outputs.iter().filter_map(|output| match output {
        Output::Send(ClientFrame::Submit { counter, .. }) => Some(counter.get()),
        _ => None,
    });
    submits.collect()
}

fn refused(outputs: &[Output]) -> Vec<&str> {
    let refused = outputs.iter().filter_map(|output| match output {
        Output::Event(Event::Refused { id: Some(id), .. }) => Some(id.as_str()),
        _ => None,
    });
    refused.collect()
}

fn stopped(outputs: &[Output]) -> Option<Stop> {
    outputs.iter().find_map(|output| match output {
        Output::Stopped(stop) => Some(*stop),
        _ => None,
    })
}

fn record(incarnation: u64, seq: u64) -> ServerFrame {
    ServerFrame::Record(Record {
        room: lobby(),
        incarnation: Incarnation::new(incarnation).unwrap(),
        seq: Seq::new(seq).unwrap(),
        at: Timestamp::default(),
        body: RecordBody::Joined { user: "bob".parse().unwrap() },
    })
}

fn gate(incarnation: u64, open: bool) -> GateState {
    let incarnation = Incarnation::new(incarnation).unwrap();
    GateState { incarnation, users: 1, threshold: Threshold::DEFAULT, open }
}

fn joined(request: u64, incarnation: u64, after: u64) -> ServerFrame {
    let (room, gate) = (lobby(), gate(incarnation, false));
    let joined = JoinedRoom { room, gate, after: Seq::new(after).unwrap(), users: None };
    let request = RequestId::new(request).unwrap();
    ServerFrame::Answer { request, answer: Answer::Joined(joined) }
}

#[test]
fn b8_passing_refusal_is_retried_with_everything_after_it() {
    let mut script = Script::online();
    for id in ["a", "b", "c"] {
        script.post(id);
    }
    let wait = Span::from_millis(700);
    assert!(script.refuse(1, Refusal::Rate { retry_ms: wait }).is_empty());
    let expect = Refusal::State(StateFault::Counter { expect: counter(1) });
    assert!(script.refuse(2, expect).is_empty());
    assert!(script.refuse(3, expect).is_empty());
    assert_eq!(script.client.next_timeout(), Some(Moment::from_millis(700)));
    assert_eq!(submitted(&script.wait()), [1, 2, 3]);
}

#[test]
fn b8_reused_counter_is_final_for_its_command_alone() {
    let mut script = Script::online();
    script.post("a");
    script.post("b");
    let outputs = script.refuse(1, Refusal::State(StateFault::CounterReused));
    assert_eq!(refused(&outputs), ["a"]);
    assert_eq!(script.saved.outbox.len(), 1);
}

#[test]
fn b8_counter_that_nobody_has_ends_the_session_and_not_the_client() {
    let mut script = Script::online();
    script.post("a");
    let outputs = script.refuse(1, Refusal::State(StateFault::Counter { expect: counter(7) }));
    assert_eq!(refused(&outputs), ["a"]);
    script.post("b");
    script.wait();
    let outputs = script.log_in(&hello(1, 9));
    let Some(Output::Send(ClientFrame::Login(login))) = outputs.last() else { panic!() };
    assert_ne!(login.session, SESSION);
    assert_eq!(submitted(&script.welcome(login.session, 0, false)), [1]);
    assert_eq!(script.saved.session, login.session);
}

#[test]
fn b8_copied_file_never_has_its_text_taken_for_another() {
    let mut script = Script::online();
    script.post("a");
    script.frame(ServerFrame::Applied { counter: counter(1) });
    script.lose();
    script.post("b");
    script.log_in(&hello(1, 9));
    let outputs = script.welcome(SESSION, 200, true);
    assert_eq!(submitted(&outputs), [201]);
    assert_eq!(script.saved.last_counter, counter(201));
    assert_eq!(script.saved.outbox[0].id, "b");
}

#[test]
fn b8_saved_command_whose_number_was_used_long_ago_is_given_up_and_shown() {
    let mut first = Script::online();
    first.post("a");
    let mut script = Script::new(first.saved);
    script.log_in(&hello(1, 9));
    let outputs = script.welcome(SESSION, 65, true);
    let given_up = |output: &Output| matches!(output, Output::Event(Event::Abandoned { .. }));
    assert!(outputs.iter().any(given_up));
    assert_eq!(submitted(&outputs), Vec::<u64>::new());
    assert_eq!(script.saved.outbox, Vec::<Unsent>::new());
}

#[test]
fn command_is_saved_before_it_is_sent() {
    let mut script = Script::online();
    let outputs = script.post("a");
    assert!(matches!(
        outputs.as_slice(),
        [Output::Save(Save::Queued(_)), Output::Send(ClientFrame::Submit { .. })]
    ));
}

#[test]
fn signature_for_a_lost_connection_is_not_used_for_the_next() {
    let mut script = Script::online();
    script.lose();
    script.say(Input::Dialled);
    script.frame(ServerFrame::Hello(hello(1, 9)));
    script.lose();
    script.say(Input::Dialled);
    script.frame(ServerFrame::Hello(hello(1, 9)));
    assert!(script.say(Input::Signed(Signature::new([1; 64]))).is_empty());
    let outputs = script.say(Input::Signed(Signature::new([2; 64])));
    assert!(matches!(
        outputs.as_slice(),
        [Output::Send(ClientFrame::Login(login))] if login.attach.get() == 3
    ));
}

#[test]
fn another_server_at_the_address_stops_the_client() {
    let mut script = Script::online();
    script.lose();
    script.say(Input::Dialled);
    let outputs = script.frame(ServerFrame::Hello(hello(1, 8)));
    assert_eq!(stopped(&outputs), Some(Stop::OtherServer));
}

#[test]
fn b4_refused_users_stop_and_everything_else_is_tried_again() {
    for refusal in [Refusal::Auth(AuthFault::Replaced), Refusal::Name(NameFault::InUse)] {
        let outputs = Script::online().frame(ServerFrame::Close(refusal));
        assert_eq!(stopped(&outputs), Some(Stop::Refused(refusal)));
    }
    let mut script = Script::online();
    let retry_ms = Span::from_secs(30);
    let outputs = script.frame(ServerFrame::Close(Refusal::Busy { retry_ms }));
    assert_eq!(stopped(&outputs), None);
    assert!(script.client.next_timeout() >= Some(Moment::from_millis(30_000)));
}

#[test]
fn server_of_an_earlier_generation_is_left() {
    let mut script = Script::online();
    script.lose();
    let generation = Generation::ZERO.next();
    script.log_in(&ServerHello { generation, ..hello(1, 9) });
    script.lose();
    script.say(Input::Dialled);
    let outputs = script.frame(ServerFrame::Hello(hello(1, 9)));
    assert_eq!(outputs.first(), Some(&Output::Hangup));
}

#[test]
fn records_are_shown_once_and_a_hole_is_asked_for_once() {
    let mut script = Script::online();
    script.frame(joined(1, 1, 0));
    let shows = |outputs: &[Output]| {
        outputs.iter().any(|output| matches!(output, Output::Event(Event::Record(_))))
    };
    assert!(shows(&script.frame(record(1, 1))));
    assert!(!shows(&script.frame(record(1, 1))));
    let outputs = script.frame(record(1, 3));
    assert!(matches!(outputs.as_slice(), [Output::Send(ClientFrame::Ask { .. })]));
    assert!(script.frame(record(1, 4)).is_empty());
    script.frame(joined(2, 1, 1));
    assert!(shows(&script.frame(record(1, 2))));
    assert!(!shows(&script.frame(record(0, 3))));
    // A later life without its reset: joining again tells.
    assert!(!shows(&script.frame(record(2, 1))));
    let outputs = script.frame(joined(3, 2, 0));
    assert!(matches!(outputs.first(), Some(Output::Event(Event::Reset { .. }))));
}

#[test]
fn gap_is_told_exactly_and_the_records_after_it_are_shown() {
    let mut script = Script::online();
    script.frame(joined(1, 1, 3));
    let (incarnation, seq) = (Incarnation::new(1).unwrap(), |n| Seq::new(n).unwrap());
    let gap = ServerFrame::Gap { room: lobby(), incarnation, from: seq(2), to: seq(9) };
    let outputs = script.frame(gap);
    let (room, from, to) = (lobby(), seq(4), seq(9));
    assert_eq!(outputs[0], Output::Event(Event::Gap { room, incarnation, from, to }));
    assert!(matches!(script.frame(record(1, 10))[0], Output::Event(Event::Record(_))));
}

#[test]
fn c3_server_that_does_not_answer_is_probed_and_left() {
    let mut script = Script::online();
    let outputs = script.wait();
    assert!(matches!(outputs.as_slice(), [Output::Send(ClientFrame::Ping { .. })]));
    assert_eq!(script.now, 5_000);
    assert_eq!(script.wait().first(), Some(&Output::Hangup));
    assert_eq!(script.now, 15_000);
}

/// Frames with values at their ends, in any order.
fn any_frame() -> impl Strategy<Value = ServerFrame> {
    let numbers = prop_oneof![0_u64..5, Just(u64::MAX >> 11), Just((u64::MAX >> 11) - 1)];
    let refusals = prop_oneof![
        Just(Refusal::Gone),
        Just(Refusal::Store),
        Just(Refusal::Perm),
        Just(Refusal::Rate { retry_ms: Span::from_millis(u64::MAX) }),
        Just(Refusal::Busy { retry_ms: Span::ZERO }),
        Just(Refusal::State(StateFault::CounterReused)),
        numbers
            .clone()
            .prop_map(|n| { Refusal::State(StateFault::Counter { expect: counter(n) }) }),
    ];
    (0..17, numbers.clone(), numbers, refusals, any::<bool>()).prop_map(
        |(kind, a, b, refusal, open)| {
            let (request, seq) = (RequestId::new(a).unwrap(), Seq::new(b).unwrap());
            let incarnation = Incarnation::new(a).unwrap();
            let room = lobby();
            let user: chatcore::text::UserName = "bob".parse().unwrap();
            let names = List::first_of([user]);
            let list =
                UserList { room: lobby(), count: u32::MAX, names: names.clone(), as_of: seq };
            let answer = |answer| ServerFrame::Answer { request, answer };
            match kind {
                0 => ServerFrame::Hello(hello(u8::try_from(b % 2).unwrap(), 9)),
                1 | 2 => ServerFrame::Welcome(Welcome {
                    user: "alice".parse().unwrap(),
                    session: SESSION,
                    last_counter: counter(a),
                    known: open,
                    operator: open,
                }),
                3 => {
                    ServerFrame::Accepted { counter: counter(b), room, incarnation, seq: Some(seq) }
                }
                4 => ServerFrame::Applied { counter: counter(b) },
                5 | 6 => ServerFrame::Refused { counter: counter(b), refusal },
                7 => joined(a, b, a),
                8 => answer(Answer::Users(list)),
                9 => answer(Answer::Refused(refusal)),
                10 => answer(Answer::History { room, incarnation, records: List::default() }),
                11 | 12 => record(a, b),
                13 => ServerFrame::Gap { room, incarnation, from: Seq::ZERO, to: seq },
                14 => ServerFrame::Gate { room, gate: gate(a, open) },
                15 => ServerFrame::Reset { room, incarnation, threshold: Threshold::DEFAULT },
                _ => ServerFrame::Ping { token: request },
            }
        },
    )
}

fn any_input() -> impl Strategy<Value = Input> {
    prop_oneof![
        8 => any_frame().prop_map(Input::Frame),
        1 => Just(Input::Dialled),
        1 => Just(Input::Signed(Signature::new([0; 64]))),
        1 => Just(Input::Timeout),
        1 => Just(Input::Lost { reason: String::new() }),
        1 => Just(Input::Ask(Ask::Who(lobby()))),
        1 => Just(Input::Ask(Ask::History(lobby(), u64::MAX))),
        1 => Just(Input::Join { room: lobby() }),
        1 => Just(Input::Part { room: lobby() }),
        1 => Just(Input::Post {
            room: lobby(),
            body: "hi".parse().unwrap(),
            id: String::new()
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_sequence_of_inputs_panics_or_asks_for_a_time_that_has_passed(
        begin in any::<bool>(),
        inputs in prop::collection::vec(any_input(), 0..120),
    ) {
        let mut script = if begin { Script::online() } else { Script::new(Saved::new(SESSION)) };
        for input in inputs {
            if input == Input::Timeout && let Some(at) = script.client.next_timeout() {
                script.now = script.now.max(at.as_millis().min(1 << 50));
            }
            let timed_out = input == Input::Timeout;
            let outputs = script.say(input);
            let dialled = outputs.contains(&Output::Dial);
            let sends = outputs.iter().filter(|output| matches!(output, Output::Send(_))).count();
            prop_assert!(sends <= 200, "{} frames after one input", sends);
            if timed_out && !dialled && let Some(at) = script.client.next_timeout() {
                let due = at.as_millis() > script.now || at.as_millis() > 1 << 50;
                prop_assert!(due || !outputs.is_empty(), "{at:?} at {}", script.now);
            }
        }
    }
}
