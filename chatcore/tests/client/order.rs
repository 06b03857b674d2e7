//! What a user does takes effect in the order in which it was done.

use chatcore::client::{Ask, Drain, Event, Input, Output, Stop};
use chatcore::id::{Incarnation, RequestId, Seq, Threshold};
use chatcore::time::Span;
use chatcore::wire::{
    Answer, ClientFrame, LimitFault, List, Question, RecordBody, Refusal, ServerFrame, StateFault,
};

use crate::rig::{Fault, World, ask, join, lobby, part};
use crate::script::{
    SESSION, Script, asked, counter, gate, hello, joined, record, refused, stopped, submitted,
};

const ALICE: usize = 0;

fn dev() -> chatcore::text::RoomName {
    "dev".parse().unwrap()
}

fn post(room: chatcore::text::RoomName, text: &str) -> Input {
    Input::Post { room, body: text.parse().unwrap(), id: text.to_owned() }
}

/// What the user is told of what was done, in words.
fn told(events: &[Event]) -> Vec<String> {
    let told = events.iter().filter_map(|event| match event {
        Event::Sent { id, .. } => Some(id.clone()),
        Event::Parted { room } => Some(format!("left {room}")),
        Event::Refused { refusal, .. } => Some(refusal.to_string()),
        Event::History { records, .. } => {
            let texts = records.iter().filter_map(|record| match &record.body {
                RecordBody::Post { text, .. } => Some(text.as_str()),
                RecordBody::Joined { .. } | RecordBody::Left { .. } => None,
            });
            Some(format!("history: {}", texts.collect::<Vec<_>>().join(" ")))
        }
        _ => None,
    });
    told.collect()
}

/// Lines typed before the first log-in, and a connection that breaks once.
fn busy_start(fault: Fault) -> (World, bool) {
    let mut world = World::new(1, &["alice"]);
    world.hosts[ALICE].fault = fault;
    for input in [
        post(lobby(), "one"),
        ask(Ask::History(lobby(), 10)),
        post(lobby(), "two"),
        part(lobby()),
        join(dev()),
        post(dev(), "three"),
        part(dev()),
        join(lobby()),
        post(lobby(), "four"),
        ask(Ask::History(lobby(), 10)),
    ] {
        world.tell(ALICE, input);
    }
    let is_history = |event: &&Event| matches!(event, Event::History { .. });
    world.run_until(|world| world.hosts[ALICE].events.iter().filter(is_history).count() == 2);
    let struck = world.hosts[ALICE].fault == Fault::None;
    (world, struck)
}

#[test]
fn lines_take_effect_in_order_wherever_the_connection_breaks() {
    for place in 0.. {
        let (world, struck) = busy_start(Fault::CutAtFrame(place));
        let mut told = told(&world.hosts[ALICE].events);
        // An answer to a question may come before those to the commands before it.
        let histories = told.extract_if(.., |line| line.starts_with("history"));
        let histories: Vec<String> = histories.collect();
        // What is asked again after a loss may see more.
        assert!(histories[0].starts_with("history: one"), "{histories:?}, cut at {place}");
        assert!(struck || histories[0] == "history: one", "{histories:?}");
        assert_eq!(histories[1], "history: one two four", "cut at {place}");
        let expected = ["one", "two", "left lobby", "three", "left dev", "four"];
        assert_eq!(told, expected, "cut at {place}");
        if !struck {
            assert!(place > 30, "the conversation has only {place} frames");
            return;
        }
    }
}

#[test]
fn part_waits_for_the_answers_to_what_was_posted_before() {
    let mut script = Script::joined();
    script.post("a");
    assert!(asked(&script.say(part(lobby()))).is_empty());
    // Refused for now: what comes after the part waits with it.
    script.refuse(1, Refusal::Rate { retry_ms: Span::from_millis(700) });
    assert!(submitted(&script.post("b")).is_empty());
    let outputs = script.wait();
    assert_eq!((submitted(&outputs), asked(&outputs)), (vec![1], vec![]));
    let outputs = script.frame(ServerFrame::Applied { counter: counter(1) });
    let [parts] = asked(&outputs)[..] else { panic!("{outputs:?}") };
    let answer = Answer::Parted { room: lobby() };
    assert!(submitted(&outputs).is_empty());
    let request = RequestId::new(parts).unwrap();
    assert_eq!(submitted(&script.frame(ServerFrame::Answer { request, answer })), [2]);
}

#[test]
fn part_waits_for_the_answers_to_what_was_asked_about_the_room_before() {
    let mut script = Script::joined();
    let [asks] = asked(&script.say(ask(Ask::Who(lobby()))))[..] else { panic!("not asked") };
    assert!(asked(&script.say(part(lobby()))).is_empty());
    let (request, answer) = (RequestId::new(asks).unwrap(), Answer::Refused(Refusal::Gone));
    assert_eq!(asked(&script.frame(ServerFrame::Answer { request, answer })).len(), 1);
}

/// They would share what a server allows, and each gathers up to its bound in memory.
#[test]
fn histories_are_read_one_after_the_other() {
    let mut script = Script::joined();
    let [first] = asked(&script.say(ask(Ask::History(lobby(), 5))))[..] else {
        panic!("not asked")
    };
    assert!(asked(&script.say(ask(Ask::History(lobby(), 5)))).is_empty());
    let (room, incarnation) = (lobby(), Incarnation::ZERO.next());
    let answer = Answer::History { room, incarnation, records: List::default() };
    let request = RequestId::new(first).unwrap();
    assert_eq!(asked(&script.frame(ServerFrame::Answer { request, answer })).len(), 1);
}

#[test]
fn part_that_is_refused_for_now_is_done_by_the_loss_of_the_connection() {
    let mut script = Script::joined();
    let [parts] = asked(&script.say(part(lobby())))[..] else { panic!("not asked") };
    let refusal = Refusal::Busy { retry_ms: Span::from_millis(700) };
    let (request, answer) = (RequestId::new(parts).unwrap(), Answer::Refused(refusal));
    assert!(script.frame(ServerFrame::Answer { request, answer }).is_empty());
    let outputs = script.say(Input::Lost { reason: "lost".into() });
    let told = outputs.into_iter().filter_map(|output| match output {
        Output::Event(event @ (Event::Parted { .. } | Event::Refused { .. })) => Some(event),
        _ => None,
    });
    assert_eq!(told.collect::<Vec<_>>(), [Event::Parted { room: lobby() }]);
}

#[test]
fn part_without_a_connection_is_at_once_unless_something_is_to_be_said_before() {
    let mut script = Script::joined();
    script.lose();
    let outputs = script.say(part(lobby()));
    assert_eq!(outputs, [Output::Event(Event::Parted { room: lobby() })]);
    let refusal = Refusal::State(StateFault::NotMember);
    let outputs = script.say(part(lobby()));
    let id = Some("part".to_owned());
    assert_eq!(outputs, [Output::Event(Event::Refused { id, refusal })]);

    let mut script = Script::joined();
    script.lose();
    script.post("a");
    assert!(script.say(part(lobby())).is_empty());
}

#[test]
fn post_waits_for_the_join_of_its_room_also_when_that_is_refused_for_now() {
    let mut script = Script::online();
    assert!(submitted(&script.post("a")).is_empty());
    assert!(asked(&script.say(ask(Ask::Who(lobby())))).is_empty());
    let refusal = Refusal::Busy { retry_ms: Span::from_millis(300) };
    let request = RequestId::new(1).unwrap();
    let outputs = script.frame(ServerFrame::Answer { request, answer: Answer::Refused(refusal) });
    assert!(outputs.is_empty(), "{outputs:?}");
    assert_eq!(asked(&script.wait()), [2]);
    assert_eq!(script.now, 300);
    let outputs = script.frame(joined(2, 1, 0));
    assert_eq!((submitted(&outputs), asked(&outputs)), (vec![1], vec![3]));
}

#[test]
fn join_under_way_when_the_connection_is_lost_is_asked_again() {
    let mut script = Script::online();
    script.lose();
    script.log_in(&hello(1, 9));
    assert_eq!(asked(&script.welcome(SESSION, 0, true)), [2]);
}

#[test]
fn refusal_repeats_the_label_of_what_was_refused() {
    for (input, label) in [
        (ask(Ask::Rooms), "ask"),
        (ask(Ask::History(lobby(), 5)), "ask"),
        (join(dev()), "join"),
        (part(lobby()), "part"),
    ] {
        let mut script = Script::joined();
        let [number] = asked(&script.say(input))[..] else { panic!("{label}") };
        let request = RequestId::new(number).unwrap();
        let answer = Answer::Refused(Refusal::Limit(LimitFault::Rooms));
        let outputs = script.frame(ServerFrame::Answer { request, answer });
        assert_eq!(refused(&outputs), [label]);
    }
}

#[test]
fn question_refused_for_now_is_asked_again_before_what_came_after_it() {
    let mut script = Script::joined();
    let [who] = asked(&script.say(ask(Ask::Who(lobby()))))[..] else { panic!() };
    let refusal = Refusal::Rate { retry_ms: Span::from_millis(20) };
    let request = RequestId::new(who).unwrap();
    let outputs = script.frame(ServerFrame::Answer { request, answer: Answer::Refused(refusal) });
    assert!(outputs.is_empty(), "{outputs:?}");
    assert!(submitted(&script.post("a")).is_empty());
    let outputs = script.wait();
    let [Output::Send(first), Output::Send(second)] = outputs.as_slice() else { panic!() };
    assert!(matches!(first, ClientFrame::Ask { question: Question::Who { .. }, .. }));
    assert!(matches!(second, ClientFrame::Submit { .. }));
}

#[test]
fn page_of_history_refused_for_now_is_asked_again_and_not_the_pages_before_it() {
    let mut script = Script::joined();
    let [first] = asked(&script.say(ask(Ask::History(lobby(), 300))))[..] else { panic!() };
    let records = (45..=300).map(|seq| match record(1, seq) {
        ServerFrame::Record(record) => record,
        frame => panic!("{frame:?}"),
    });
    let (room, incarnation) = (lobby(), Incarnation::new(1).unwrap());
    let records = List::first_of(records);
    let page = Answer::History { room, incarnation, records };
    let request = RequestId::new(first).unwrap();
    let outputs = script.frame(ServerFrame::Answer { request, answer: page });
    let [second] = asked(&outputs)[..] else { panic!("{outputs:?}") };
    let refusal = Refusal::Rate { retry_ms: Span::from_millis(20) };
    let request = RequestId::new(second).unwrap();
    script.frame(ServerFrame::Answer { request, answer: Answer::Refused(refusal) });
    let outputs = script.wait();
    let [Output::Send(ClientFrame::Ask { question, .. })] = &outputs[..] else { panic!() };
    let before = Some(Seq::new(45).unwrap());
    assert_eq!(*question, Question::History { room: (&lobby()).into(), before, limit: 44 });
}

#[test]
fn client_that_quits_and_is_given_more_to_do_is_not_asked_back_at_once_for_ever() {
    let mut script = Script::joined();
    script.post("a");
    script.say(QUIT);
    script.frame(accepted(Some(2)));
    // It waits for its own post to be shown, until then at most:
    let until = script.client.next_timeout().unwrap();
    script.post("b");
    script.now = until.as_millis();
    script.say(Input::Timeout);
    assert!(script.client.next_timeout().unwrap() > until);
}

const QUIT: Input = Input::Quit { drain: Drain::Wait };

fn accepted(seq: Option<u64>) -> ServerFrame {
    let (room, incarnation) = (lobby(), Incarnation::new(1).unwrap());
    let seq = seq.map(|seq| Seq::new(seq).unwrap());
    ServerFrame::Accepted { counter: counter(1), room, incarnation, seq }
}

#[test]
fn whoever_quits_sees_the_own_post_first_if_it_is_visible() {
    let mut script = Script::joined();
    script.post("a");
    script.say(QUIT);
    assert_eq!(stopped(&script.frame(accepted(Some(2)))), None);
    assert_eq!(stopped(&script.frame(record(1, 1))), None);
    assert_eq!(stopped(&script.frame(record(1, 2))), Some(Stop::Done));
}

#[test]
fn whoever_quits_waits_for_no_post_that_is_held_or_was_shown() {
    let mut held = Script::joined();
    held.post("a");
    held.say(QUIT);
    assert_eq!(stopped(&held.frame(accepted(None))), Some(Stop::Done));
    let mut shown = Script::joined();
    shown.post("a");
    shown.frame(record(1, 1));
    shown.say(QUIT);
    assert_eq!(stopped(&shown.frame(accepted(Some(1)))), Some(Stop::Done));
}

#[test]
fn whoever_quits_waits_3_s_at_most_for_the_own_post_and_not_without_a_connection() {
    let quitting = || {
        let mut script = Script::joined();
        script.post("a");
        script.say(QUIT);
        script.frame(accepted(Some(2)));
        script
    };
    let mut script = quitting();
    assert_eq!(stopped(&script.wait()), Some(Stop::Done));
    assert_eq!(script.now, 3_000);
    let lost = Input::Lost { reason: "lost".into() };
    assert_eq!(stopped(&quitting().say(lost)), Some(Stop::Done));
}

/// The lives in which resets are told to be safe.
fn lives_of_resets(outputs: &[Output]) -> Vec<u64> {
    let lives = outputs.iter().filter_map(|output| match output {
        Output::Event(Event::Sent { incarnation, .. }) => Some(incarnation.get()),
        _ => None,
    });
    lives.collect()
}

#[test]
fn reset_is_told_with_the_life_that_it_began_whichever_notice_comes_first() {
    let reset = || {
        let (room, threshold) = (lobby(), Threshold::DEFAULT);
        Input::Reset { room, threshold, id: "r".into() }
    };
    let began = |life| {
        let incarnation = Incarnation::new(life).unwrap();
        ServerFrame::Reset { room: lobby(), incarnation, threshold: Threshold::DEFAULT }
    };
    let applied = |number| ServerFrame::Applied { counter: counter(number) };
    let refusal = Refusal::Perm;
    let refused = |number| ServerFrame::Refused { counter: counter(number), refusal };
    for (frames, lives) in [
        (vec![applied(1), applied(2), began(2), began(3)], vec![2, 3]),
        (vec![began(2), applied(1), began(3), applied(2)], vec![2, 3]),
        (vec![began(2), began(3), applied(1), applied(2)], vec![2, 3]),
        (vec![refused(1), applied(2), began(2)], vec![2]),
        // Somebody else's was first.
        (vec![refused(1), began(2), began(3), applied(2)], vec![3]),
    ] {
        let mut script = Script::joined();
        script.say(reset());
        script.say(reset());
        let outputs: Vec<_> = frames.iter().flat_map(|frame| script.frame(frame.clone())).collect();
        assert_eq!(lives_of_resets(&outputs), lives, "{frames:?}");
    }
}

#[test]
fn reset_that_an_earlier_run_left_is_told_with_the_life_that_it_began() {
    let mut first = Script::joined();
    first.say(Input::Reset { room: lobby(), threshold: Threshold::DEFAULT, id: "r".into() });
    let mut script = Script::new(first.saved);
    script.log_in(&hello(1, 9));
    script.enter(SESSION, 0, true);
    let outputs = script.frame(ServerFrame::Applied { counter: counter(1) });
    assert_eq!(lives_of_resets(&outputs), [2]);
}

#[test]
fn list_of_users_that_is_refused_for_now_is_asked_for_again_when_the_server_said() {
    let mut script = Script::joined();
    let notice = ServerFrame::Gate { room: lobby(), gate: gate(1, true) };
    let [list] = asked(&script.frame(notice.clone()))[..] else { panic!("not asked") };
    let refusal = Refusal::Rate { retry_ms: Span::from_millis(20) };
    let (request, answer) = (RequestId::new(list).unwrap(), Answer::Refused(refusal));
    assert!(script.frame(ServerFrame::Answer { request, answer }).is_empty());
    // Neither a notice nor the user makes it any earlier.
    assert!(asked(&script.frame(notice)).is_empty());
    assert!(asked(&script.say(ask(Ask::Who(lobby())))).is_empty());
    assert_eq!(asked(&script.wait()).len(), 2);
    assert_eq!(script.now, 20);
}
