//! A client against a server that is broken or malicious.

use chatcore::client::{Ask, ClientConfig, Event, Input, Output, Save, Saved, Stop, Unsent};
use chatcore::id::{
    ByteCount, Digest, Generation, Incarnation, Index, Nonce, PublicKey, RequestId, Seq, Signature,
    Threshold,
};
use chatcore::time::{Moment, Span};
use chatcore::wire::{
    Answer, AuthFault, ClientFrame, HostStatus, List, NameFault, Refusal, ServerFrame, ServerHello,
    ServerProof, StateFault, Status, StorageStatus, UserList, Welcome,
};
use proptest::prelude::*;

use crate::rig::{ask, config, join, lobby, part};
use crate::script::{
    SESSION, Script, counter, gate, hello, joined, record, refused, stopped, submitted,
};

#[test]
fn b8_passing_refusal_is_retried_with_everything_after_it() {
    let mut script = Script::joined();
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
fn status_that_nobody_asked_for_ends_the_connection() {
    let (address, memory, host) = (
        None,
        ByteCount::ZERO,
        HostStatus { uptime_ms: Span::ZERO, storage: StorageStatus::Memory },
    );
    let status = ServerFrame::Status(Status {
        address,
        connections: 1,
        online: 0,
        users: 0,
        rooms: 0,
        open: 0,
        newest: Index::ZERO,
        safe: Index::ZERO,
        store_full: false,
        memory,
        host,
    });
    let mut logging_in = Script::new(Saved::new(SESSION));
    logging_in.log_in(&hello(1, 9));
    for mut script in [logging_in, Script::joined()] {
        let outputs = script.frame(status.clone());
        assert!(outputs.contains(&Output::Hangup), "{outputs:?}");
    }
}

#[test]
fn b8_reused_counter_is_final_for_its_command_alone() {
    let mut script = Script::joined();
    script.post("a");
    script.post("b");
    let outputs = script.refuse(1, Refusal::State(StateFault::CounterReused));
    assert_eq!(refused(&outputs), ["a"]);
    assert_eq!(script.saved.outbox.len(), 1);
}

#[test]
fn b8_counter_that_nobody_has_ends_the_session_and_not_the_client() {
    let mut script = Script::joined();
    script.post("a");
    let outputs = script.refuse(1, Refusal::State(StateFault::Counter { expect: counter(7) }));
    assert_eq!(given_up(&outputs), ["a"]);
    script.post("b");
    script.wait();
    let outputs = script.log_in(&hello(1, 9));
    let Some(Output::Send(ClientFrame::Login(login))) = outputs.last() else { panic!() };
    assert_ne!(login.session, SESSION);
    assert_eq!(submitted(&script.enter(login.session, 0, false)), [1]);
    assert_eq!(script.saved.session, login.session);
}

/// The session expired, a run opened it again and died before it heard of that.
#[test]
fn post_of_a_session_that_expired_and_was_opened_again_is_given_up_and_not_refused() {
    let mut script = Script::joined();
    script.post("a");
    script.frame(ServerFrame::Applied { counter: counter(1) });
    script.post("b");
    script.lose();
    script.log_in(&hello(1, 9));
    let outputs = script.welcome(SESSION, 0, true);
    assert_eq!(given_up(&outputs), ["b"], "it may have taken effect");
    assert!(refused(&outputs).is_empty());
    assert!(script.saved.outbox.is_empty());
}

/// The session expired, was opened again by a log-in whose welcome was lost on its way, and so is
/// known to the server when the client comes the next time.
#[test]
fn b8_post_of_a_session_that_was_opened_again_unheard_is_not_sent_a_second_time() {
    let mut script = Script::joined();
    script.post("a");
    script.lose();
    script.log_in(&hello(1, 9));
    script.lose_welcome();
    script.lose();
    script.log_in(&hello(1, 9));
    let outputs = script.enter(SESSION, 0, true);
    assert_eq!(given_up(&outputs), ["a"], "it may have taken effect");
    assert_eq!(submitted(&outputs), Vec::<u64>::new());
    assert!(script.saved.outbox.is_empty());
}

/// The labels of commands of which nobody knows what became.
fn given_up(outputs: &[Output]) -> Vec<&str> {
    let given_up = outputs.iter().filter_map(|output| match output {
        Output::Event(Event::Abandoned { id, .. }) => Some(id.as_str()),
        _ => None,
    });
    given_up.collect()
}

#[test]
fn b8_copied_file_never_has_its_text_taken_for_another() {
    let mut script = Script::joined();
    script.post("a");
    script.frame(ServerFrame::Applied { counter: counter(1) });
    script.lose();
    script.post("b");
    script.log_in(&hello(1, 9));
    let outputs = script.enter(SESSION, 200, true);
    assert_eq!(submitted(&outputs), [201]);
    assert_eq!(script.saved.last_counter, counter(201));
    assert_eq!(script.saved.outbox[0].id, "b");
}

#[test]
fn b8_saved_command_whose_number_was_used_long_ago_is_given_up_and_shown() {
    let mut first = Script::joined();
    first.post("a");
    let mut script = Script::new(first.saved);
    script.log_in(&hello(1, 9));
    let outputs = script.enter(SESSION, 65, true);
    let given_up = |output: &Output| matches!(output, Output::Event(Event::Abandoned { .. }));
    assert!(outputs.iter().any(given_up));
    assert_eq!(submitted(&outputs), Vec::<u64>::new());
    assert_eq!(script.saved.outbox, Vec::<Unsent>::new());
}

#[test]
fn command_is_saved_before_it_is_sent() {
    let mut script = Script::joined();
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
    script.say(Input::Dialled { channel: None });
    script.frame(ServerFrame::Hello(hello(1, 9)));
    script.lose();
    script.say(Input::Dialled { channel: None });
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
    script.say(Input::Dialled { channel: None });
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
    script.say(Input::Dialled { channel: None });
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
                    opened: chatcore::time::Timestamp::new(u64::from(open)).unwrap(),
                    operator: open,
                    address: None,
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
        1 => Just(Input::Dialled { channel: None }),
        1 => Just(Input::Signed(Signature::new([0; 64]))),
        1 => Just(Input::Timeout),
        1 => Just(Input::Lost { reason: String::new() }),
        1 => Just(ask(Ask::Who(lobby()))),
        1 => Just(ask(Ask::History(lobby(), u64::MAX))),
        1 => Just(join(lobby())),
        1 => Just(part(lobby())),
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

/// A client that wants the server's key proven, up to the server's hello; and what it asked for.
fn doubting() -> (Script, Nonce) {
    let wants_proof = ClientConfig { proof_seed: Some([7; 32]), ..config("alice") };
    let mut script = Script::configured(wants_proof, Saved::new(SESSION));
    let channel = Some(Digest::new([3; 32]));
    let outputs = script.say(Input::Dialled { channel });
    let challenge = outputs.iter().find_map(|output| match output {
        Output::Send(ClientFrame::Prove { nonce }) => Some(*nonce),
        _ => None,
    });
    script.frame(ServerFrame::Hello(hello(1, 9)));
    let (key, saved) = (PublicKey::new([1; 32]), script.saved.clone());
    script.say(Input::Identified { key, saved });
    script.say(Input::Signed(Signature::new([0; 64])));
    (script, challenge.expect("it must ask"))
}

#[test]
fn g2_server_has_to_sign_the_clients_nonce_for_this_connection_before_its_welcome_counts() {
    let (mut script, challenge) = doubting();
    let signature = Signature::new([5; 64]);
    let outputs = script.frame(ServerFrame::Proof { signature });
    let ServerHello { server_key, log_id, generation, nonce, .. } = hello(1, 9);
    let channel = Some(Digest::new([3; 32]));
    let proof = ServerProof { challenge, nonce, server_key, log_id, generation, channel };
    let wanted = Output::Verify { key: server_key, message: proof.to_bytes(), signature };
    assert_eq!(outputs, [wanted]);
    script.say(Input::Verified { valid: true });
    script.welcome(SESSION, 0, false);
    assert!(script.client.is_online());
    // The next connection has a nonce of its own.
    script.lose();
    let outputs = script.say(Input::Dialled { channel: None });
    assert!(!outputs.contains(&Output::Send(ClientFrame::Prove { nonce: challenge })));
}

#[test]
fn g2_server_that_cannot_prove_its_key_is_left_for_good() {
    let (mut script, _) = doubting();
    script.frame(ServerFrame::Proof { signature: Signature::new([5; 64]) });
    let outputs = script.say(Input::Verified { valid: false });
    assert_eq!(stopped(&outputs), Some(Stop::Impostor));
    // One that does not even try is no server to talk to.
    let (mut script, _) = doubting();
    let outputs = script.welcome(SESSION, 0, false);
    assert_eq!(outputs.first(), Some(&Output::Hangup));
    assert!(!script.client.is_online());
}

#[test]
fn proof_that_nobody_asked_for_ends_the_connection() {
    let mut script = Script::new(Saved::new(SESSION));
    script.log_in(&hello(1, 9));
    let outputs = script.frame(ServerFrame::Proof { signature: Signature::new([5; 64]) });
    assert_eq!(outputs.first(), Some(&Output::Hangup));
}
