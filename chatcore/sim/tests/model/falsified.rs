//! Outputs that are not what the engine put out, and the rule that each breaks.

use std::collections::BTreeSet;
use std::sync::Arc;

use chat_sim::model::{Broken, rules};
use chatcore::engine::{Archive, Directive, Event, Input, Need, Output, Page};
use chatcore::id::*;
use chatcore::limits::Limits;
use chatcore::log::{Change, Entry};
use chatcore::text::{RoomName, Untrusted};
use chatcore::time::{Span, Timestamp};
use chatcore::wire::*;

use crate::rig::{Rig, Setup, login, post, question_join, reset, sent, session};

/// What a falsified run came to.
type Outcome = Result<(), Broken>;

/// One case for each name: a script whose last input is falsified, and the rule that reports it.
macro_rules! breaks {
    ($($name:ident: $rule:ident, $script:expr;)*) => {
        $(
            #[test]
            fn $name() {
                let script: fn() -> Outcome = $script;
                let broken = script().expect_err("the model must notice");
                assert_eq!(broken.rule, rules::$rule, "{broken}");
            }
        )*

        const COVERED: &[&str] = &[$(rules::$rule),*];
    };
}

fn rig() -> Rig {
    Rig::new(Setup { threshold: 2, ..Setup::default() })
}

/// Ana, an operator, and Bob in a room whose gate is open.
fn open() -> (Rig, ConnId, ConnId) {
    let mut rig = rig();
    let (ana, bob) = (rig.log_in("ana"), rig.log_in("bob"));
    rig.join(ana, "lobby");
    rig.join(bob, "lobby");
    (rig, ana, bob)
}

/// Ana, an operator, alone in a room whose gate is closed.
fn closed() -> (Rig, ConnId) {
    let mut rig = rig();
    let ana = rig.log_in("ana");
    rig.join(ana, "lobby");
    (rig, ana)
}

fn frame(conn: ConnId, frame: ClientFrame) -> Input {
    Input::Frame { conn, frame }
}

fn say(conn: ConnId, counter: u64) -> Input {
    frame(conn, post(counter, "lobby", "hi"))
}

/// Everything appended is persisted, and told otherwise than it was.
fn persisted(rig: &mut Rig, falsify: impl FnMut(Vec<Output>) -> Vec<Output>) -> Outcome {
    let mut falsify = falsify;
    let input = rig.next_persisted(usize::MAX).unwrap();
    rig.falsified(input, &mut falsify)
}

/// One input, told otherwise than it was.
fn told(rig: &mut Rig, input: Input, falsify: impl FnMut(Vec<Output>) -> Vec<Output>) -> Outcome {
    let mut falsify = falsify;
    rig.falsified(input, &mut falsify)
}

fn deliver(directive: Directive) -> Output {
    Output::Deliver(directive)
}

fn send(conn: ConnId, frame: ServerFrame) -> Output {
    deliver(Directive::Send { conn, frame })
}

fn is_send(output: &Output) -> bool {
    matches!(output, Output::Deliver(Directive::Send { .. }))
}

fn is_visible(output: &Output) -> bool {
    matches!(output, Output::Deliver(Directive::Visible { .. }))
}

fn is_gate(output: &Output) -> bool {
    matches!(output, Output::Deliver(Directive::Gate { .. }))
}

fn is_close(output: &Output) -> bool {
    matches!(output, Output::Deliver(Directive::Close { .. }))
}

fn is_page(output: &Output) -> bool {
    matches!(output, Output::Deliver(Directive::Page { .. }))
}

fn is_follow(output: &Output) -> bool {
    matches!(output, Output::Deliver(Directive::Follow { .. }))
}

fn is_reset(output: &Output) -> bool {
    matches!(output, Output::Deliver(Directive::Reset { .. }))
}

fn is_entry(output: &Output) -> bool {
    matches!(output, Output::Persist(_))
}

/// Leaves out what is so, and there must be some.
fn without(is: fn(&Output) -> bool) -> impl FnMut(Vec<Output>) -> Vec<Output> {
    move |mut outputs| {
        assert!(outputs.iter().any(is), "there is none among {outputs:?}");
        outputs.retain(|output| !is(output));
        outputs
    }
}

/// Tells twice what is so.
fn twice(is: fn(&Output) -> bool) -> impl FnMut(Vec<Output>) -> Vec<Output> {
    move |outputs| {
        assert!(outputs.iter().any(is), "there is none among {outputs:?}");
        outputs
            .into_iter()
            .flat_map(|output| {
                let count = if is(&output) { 2 } else { 1 };
                std::iter::repeat_n(output, count)
            })
            .collect()
    }
}

/// Changes what is so.
fn with(
    is: fn(&Output) -> bool,
    change: impl Fn(&mut Output),
) -> impl FnMut(Vec<Output>) -> Vec<Output> {
    move |mut outputs| {
        let mut found: Vec<_> = outputs.iter_mut().filter(|output| is(output)).collect();
        assert!(!found.is_empty(), "there is none");
        found.iter_mut().for_each(|output| change(output));
        outputs
    }
}

/// Adds one at the end.
fn and(more: Output) -> impl FnMut(Vec<Output>) -> Vec<Output> {
    move |mut outputs| {
        outputs.push(more.clone());
        outputs
    }
}

/// Changes the entries of a post that Ana says in the open room.
fn entry(change: impl Fn(&mut Entry)) -> Outcome {
    let (mut rig, ana, _) = open();
    told(
        &mut rig,
        say(ana, 1),
        with(is_entry, |output| {
            let Output::Persist(entry) = output else { return };
            change(Arc::make_mut(entry));
        }),
    )
}

/// Changes the fields of the entry of that post.
fn posted(edit: impl Fn(&mut Change)) -> Outcome {
    entry(|entry| edit(&mut entry.change))
}

/// A change of the frame that a request leads to.
fn answer(rig: &mut Rig, input: Input, change: impl Fn(&mut ServerFrame)) -> Outcome {
    let falsify = with(is_send, |output| {
        let Output::Deliver(Directive::Send { frame, .. }) = output else { return };
        change(frame);
    });
    told(rig, input, falsify)
}

fn question(rig: &mut Rig, conn: ConnId, question: Question) -> Input {
    let frame = rig.ask(question);
    self::frame(conn, frame)
}

fn history(rig: &mut Rig, conn: ConnId) -> Input {
    let room = Untrusted::new("lobby");
    question(rig, conn, Question::History { room, before: None, limit: 9 })
}

/// Ana in an open room with a few posts; what lies behind the window is in `archive`.
fn talked(window_bytes: u64, archive: Archive) -> (Rig, ConnId) {
    let limits = Limits { window_bytes, ..Limits::default() };
    let mut rig = Rig::new(Setup { limits, archive, threshold: 1, ..Setup::default() });
    let ana = rig.log_in("ana");
    rig.join(ana, "lobby");
    for counter in 1..5 {
        rig.input(say(ana, counter)).unwrap();
        rig.persist(usize::MAX).unwrap();
    }
    (rig, ana)
}

fn need(conn: ConnId, after: u64) -> Input {
    let (room, after) = ("lobby".parse().unwrap(), Seq::new(after).unwrap());
    Input::Fetch(Need { conn, room, incarnation: Incarnation::ZERO.next(), after })
}

fn lobby() -> RoomName {
    "lobby".parse().unwrap()
}

fn set_seq(change: &mut Change) {
    if let Change::Posted { seq, .. } = change {
        *seq = seq.next();
    }
}

breaks! {
    entry_with_a_hole_before_it: ENTRY_NUMBER, || {
        entry(|entry| entry.header.index = entry.header.index.next())
    };
    entry_from_the_past: ENTRY_TIME, || entry(|entry| entry.header.at = Timestamp::ZERO);
    entry_with_another_digest: ENTRY_DIGEST, || {
        entry(|entry| entry.header.digest = Digest::new([1; 32]))
    };
    entry_that_nobody_led_to: ENTRY_UNDUE, || {
        let (mut rig, ana, bob) = open();
        let left = |rig: &mut Rig| {
            let mut outputs = Vec::new();
            rig.falsified(frame(bob, ClientFrame::Leave), &mut |found| {
                outputs.clone_from(&found);
                found
            })?;
            Ok::<_, Broken>(outputs.into_iter().find(is_entry).unwrap())
        };
        let left = left(&mut rig)?;
        told(&mut rig, frame(ana, ClientFrame::Pong { token: RequestId::ZERO }), and(left))
    };
    entry_that_is_lost: ENTRY_MISSING, || {
        let (mut rig, ana, _) = open();
        told(&mut rig, say(ana, 1), without(is_entry))
    };
    post_of_another_author: AUTHOR, || posted(|change| {
        if let Change::Posted { from, .. } = change {
            *from = "bob".parse().unwrap();
        }
    });
    post_that_skips_a_number: RECORD_NUMBER, || posted(set_seq);
    post_of_another_life: LIFE, || posted(|change| {
        if let Change::Posted { incarnation, .. } = change {
            *incarnation = incarnation.next();
        }
    });
    post_that_is_appended_twice: ONCE, || {
        let (mut rig, ana, _) = open();
        told(&mut rig, say(ana, 1), twice(is_entry))
    };
    post_that_is_appended_again_when_repeated: ONCE, || {
        let (mut rig, ana, _) = open();
        let mut first = Vec::new();
        rig.falsified(say(ana, 1), &mut |outputs| {
            first.clone_from(&outputs);
            outputs
        })?;
        told(&mut rig, say(ana, 1), and(first.into_iter().find(is_entry).unwrap()))
    };
    gate_that_opens_for_too_few: GATE_OPENS, || {
        let (mut rig, ana) = closed();
        let opened = Change::GateOpened { room: lobby(), incarnation: Incarnation::ZERO.next() };
        let header = rig.entries.last().unwrap().header;
        let entry = Output::Persist(Arc::new(Entry { header, change: opened }));
        told(&mut rig, say(ana, 1), and(entry))
    };
    gate_that_stays_closed: GATE_OPENS, || {
        let (mut rig, _) = closed();
        let bob = rig.log_in("bob");
        let join = question(&mut rig, bob, question_join("lobby"));
        told(&mut rig, join, without(|output| match output {
            Output::Persist(entry) => matches!(entry.change, Change::GateOpened { .. }),
            _ => false,
        }))
    };
    command_that_is_refused_for_another_reason: REFUSED, || {
        let (mut rig, _, bob) = open();
        told(&mut rig, frame(bob, reset(1, "lobby", 1)), with(is_entry, |output| {
            let Output::Persist(entry) = output else { return };
            if let Change::Refused { refusal, .. } = &mut Arc::make_mut(entry).change {
                *refusal = Refusal::Command;
            }
        }))
    };
    reset_with_another_threshold: RESET, || {
        let (mut rig, ana, _) = open();
        told(&mut rig, frame(ana, reset(1, "lobby", 5)), with(is_entry, |output| {
            let Output::Persist(entry) = output else { return };
            if let Change::Reset { threshold, .. } = &mut Arc::make_mut(entry).change {
                *threshold = Threshold::DEFAULT;
            }
        }))
    };
    name_that_is_given_to_another_key: OWNER, || {
        let mut rig = rig();
        let conn = rig.dial()?;
        rig.send(conn, ClientFrame::hello())?;
        rig.send(conn, login("ana", session("ana", 0), 1))?;
        told(&mut rig, Input::Verified { conn, valid: true }, with(is_entry, |output| {
            let Output::Persist(entry) = output else { return };
            if let Change::UserAdded { key, .. } = &mut Arc::make_mut(entry).change {
                *key = PublicKey::new([1; 32]);
            }
        }))
    };

    post_that_a_full_store_takes: ONCE, || {
        let (mut rig, ana, _) = open();
        let mut first = Vec::new();
        rig.falsified(say(ana, 1), &mut |outputs| {
            first.clone_from(&outputs);
            outputs
        })?;
        rig.input(Input::StoreFull)?;
        told(&mut rig, say(ana, 2), and(first.into_iter().find(is_entry).unwrap()))
    };
    post_that_a_full_store_does_not_refuse: ANSWER_ONCE, || {
        let (mut rig, ana, _) = open();
        rig.input(Input::StoreFull)?;
        told(&mut rig, say(ana, 1), without(is_send))
    };
    read_that_is_asked_again_too_soon: READ, || {
        let (mut rig, ana) = talked(0, Archive::Store);
        let mut read = Vec::new();
        rig.falsified(need(ana, 2), &mut |outputs| {
            read.clone_from(&outputs);
            outputs
        })?;
        let (token, ..) = rig.reads.pop_front().unwrap();
        rig.input(Input::ReadFailed { token })?;
        rig.pass(999);
        told(&mut rig, Input::Timeout, and(read.pop().unwrap()))
    };

    place_of_a_held_post: SECRET, || {
        let (mut rig, ana) = closed();
        rig.input(say(ana, 1))?;
        persisted(&mut rig, with(is_send, |output| {
            let Output::Deliver(Directive::Send { frame, .. }) = output else { return };
            if let ServerFrame::Accepted { seq, .. } = frame {
                *seq = Seq::new(2).ok();
            }
        }))
    };
    names_behind_a_closed_gate: SECRET, || {
        let (mut rig, ana) = closed();
        let who = question(&mut rig, ana, Question::Who { room: Untrusted::new("lobby") });
        answer(&mut rig, who, |frame| {
            let ServerFrame::Answer { answer, .. } = frame else { return };
            let names = List::first_of(["ana".parse().unwrap()]);
            *answer = Answer::Users(UserList { room: lobby(), count: 1, names, as_of: Seq::ZERO });
        })
    };
    record_behind_a_closed_gate: SECRET, || {
        let (mut rig, ana) = talked(0, Archive::None);
        let shown = {
            let mut all = Vec::new();
            rig.input(say(ana, 5))?;
            let input = rig.next_persisted(usize::MAX).unwrap();
            rig.falsified(input, &mut |outputs| {
                all.clone_from(&outputs);
                outputs
            })?;
            all.into_iter().find(is_visible).unwrap()
        };
        rig.input(frame(ana, reset(6, "lobby", 5)))?;
        rig.persist(usize::MAX)?;
        rig.input(say(ana, 7))?;
        persisted(&mut rig, and(shown))
    };
    answer_before_its_entry_is_safe: SAFE_FIRST, || {
        let (mut rig, ana, _) = open();
        let (room, seq) = (lobby(), Seq::new(3).ok());
        let (counter, incarnation) = (Counter::ZERO.next(), Incarnation::ZERO.next());
        let frame = ServerFrame::Accepted { counter, room, incarnation, seq: seq.filter(|_| false) };
        told(&mut rig, say(ana, 1), and(send(ana, frame)))
    };
    record_before_its_entry_is_safe: SAFE_FIRST, || {
        let (mut rig, ana, _) = open();
        let (room, incarnation) = (lobby(), Incarnation::ZERO.next());
        let through = Seq::new(3).unwrap();
        let visible = Directive::Visible { room, incarnation, through, chunk: None };
        told(&mut rig, say(ana, 1), and(deliver(visible)))
    };
    reset_before_its_entry_is_safe: SAFE_FIRST, || {
        let (mut rig, ana, _) = open();
        let (room, incarnation) = (lobby(), Incarnation::ZERO.next().next());
        let told_early = Directive::Reset { room, incarnation, threshold: Threshold::DEFAULT };
        told(&mut rig, frame(ana, reset(1, "lobby", 2)), and(deliver(told_early)))
    };

    welcome_with_another_counter: ANSWER, || {
        let mut rig = rig();
        let conn = rig.dial()?;
        rig.send(conn, ClientFrame::hello())?;
        rig.send(conn, login("ana", session("ana", 0), 1))?;
        rig.verify_all()?;
        persisted(&mut rig, with(is_send, |output| {
            let Output::Deliver(Directive::Send { frame, .. }) = output else { return };
            if let ServerFrame::Welcome(welcome) = frame {
                welcome.last_counter = Counter::MAX;
            }
        }))
    };
    gap_in_the_counters_that_expects_another: ANSWER, || {
        let (mut rig, ana, _) = open();
        answer(&mut rig, say(ana, 7), |frame| {
            if let ServerFrame::Refused { refusal, .. } = frame {
                *refusal = Refusal::State(StateFault::Counter { expect: Counter::MAX });
            }
        })
    };
    question_too_often_with_another_wait: ANSWER, || {
        let limits = Limits { question_burst: 1, ..Limits::default() };
        let mut rig = Rig::new(Setup { limits, threshold: 2, ..Setup::default() });
        let ana = rig.log_in("ana");
        rig.join(ana, "lobby");
        let rooms = question(&mut rig, ana, Question::Rooms);
        answer(&mut rig, rooms, |frame| {
            if let ServerFrame::Answer { answer, .. } = frame {
                *answer = Answer::Refused(Refusal::Rate { retry_ms: Span::ZERO });
            }
        })
    };
    room_that_is_not_listed: ANSWER, || {
        let (mut rig, ana, _) = open();
        let rooms = question(&mut rig, ana, Question::Rooms);
        answer(&mut rig, rooms, |frame| {
            if let ServerFrame::Answer { answer: Answer::Rooms { rooms, .. }, .. } = frame {
                *rooms = List::default();
            }
        })
    };
    answer_that_is_lost: ANSWER_ONCE, || {
        let (mut rig, ana, _) = open();
        rig.input(say(ana, 1))?;
        persisted(&mut rig, without(is_send))
    };
    answer_that_comes_twice: ANSWER_ONCE, || {
        let (mut rig, ana, _) = open();
        rig.input(say(ana, 1))?;
        persisted(&mut rig, twice(is_send))
    };
    answers_in_another_order: ANSWER_ORDER, || {
        let (mut rig, ana, _) = open();
        rig.input(say(ana, 1))?;
        rig.input(say(ana, 2))?;
        persisted(&mut rig, |mut outputs| {
            let places = outputs.iter().enumerate().filter(|(_, output)| is_send(output));
            let places: Vec<usize> = places.map(|(place, _)| place).collect();
            outputs.swap(places[0], places[1]);
            outputs
        })
    };
    signature_over_other_bytes: VERIFY, || {
        let mut rig = rig();
        let conn = rig.dial()?;
        rig.send(conn, ClientFrame::hello())?;
        let input = frame(conn, login("ana", session("ana", 0), 1));
        told(&mut rig, input, with(|output| matches!(output, Output::Verify { .. }), |output| {
            let Output::Verify { message, .. } = output else { return };
            message.push(0);
        }))
    };
    signature_that_is_not_checked: VERIFY, || {
        let mut rig = rig();
        let conn = rig.dial()?;
        rig.send(conn, ClientFrame::hello())?;
        let input = frame(conn, login("ana", session("ana", 0), 1));
        told(&mut rig, input, without(|output| matches!(output, Output::Verify { .. })))
    };

    close_that_is_lost: CLOSE, || {
        let (mut rig, ana, _) = open();
        told(&mut rig, frame(ana, ClientFrame::Leave), without(is_close))
    };
    close_that_comes_twice: CLOSE, || {
        let (mut rig, ana, _) = open();
        told(&mut rig, frame(ana, ClientFrame::Leave), twice(is_close))
    };
    close_for_another_reason: CLOSE, || {
        let (mut rig, ..) = open();
        told(&mut rig, Input::Stop, with(is_close, |output| {
            let Output::Deliver(Directive::Close { refusal, .. }) = output else { return };
            *refusal = None;
        }))
    };
    frame_after_a_close: AFTER_CLOSE, || {
        let (mut rig, ana, _) = open();
        let pong = ServerFrame::Pong { token: RequestId::ZERO };
        told(&mut rig, frame(ana, ClientFrame::Leave), and(send(ana, pong)))
    };
    frame_to_nobody: STRANGER, || {
        let (mut rig, ..) = open();
        let pong = ServerFrame::Pong { token: RequestId::ZERO };
        told(&mut rig, Input::Timeout, and(send(ConnId::new(99), pong)))
    };
    ping_of_a_lively_connection: PING, || {
        let (mut rig, ana, _) = open();
        let ping = ServerFrame::Ping { token: RequestId::ZERO };
        told(&mut rig, Input::Timeout, and(send(ana, ping)))
    };
    ping_that_is_lost: PING, || {
        let (mut rig, ..) = open();
        rig.pass(30_000);
        told(&mut rig, Input::Timeout, without(is_send))
    };

    following_from_another_place: FOLLOW, || {
        let (mut rig, ana, _) = open();
        let join = question(&mut rig, ana, question_join("lobby"));
        told(&mut rig, join, with(is_follow, |output| {
            let Output::Deliver(Directive::Follow { after, .. }) = output else { return };
            *after = after.next();
        }))
    };
    following_that_does_not_begin: FOLLOW, || {
        let (mut rig, ana, _) = open();
        let join = question(&mut rig, ana, question_join("lobby"));
        told(&mut rig, join, without(is_follow))
    };
    following_before_what_was_there_is_shown: FOLLOW, || {
        let (mut rig, ana, _) = open();
        rig.input(say(ana, 1))?;
        let join = question(&mut rig, ana, question_join("lobby"));
        rig.input(join)?;
        persisted(&mut rig, |mut outputs| {
            let place = outputs.iter().position(is_visible).unwrap();
            let visible = outputs.remove(place);
            outputs.push(visible);
            outputs
        })
    };
    gate_that_is_not_told: GATE_TOLD, || {
        let (mut rig, _, bob) = open();
        rig.input(frame(bob, ClientFrame::Leave))?;
        persisted(&mut rig, without(is_gate))
    };
    gate_that_is_told_with_other_counts: GATE_TOLD, || {
        let (mut rig, _, bob) = open();
        rig.input(frame(bob, ClientFrame::Leave))?;
        persisted(&mut rig, with(is_gate, |output| {
            let Output::Deliver(Directive::Gate { gate, .. }) = output else { return };
            gate.users += 1;
        }))
    };
    place_before_the_gate_is_told_to_be_open: GATE_FIRST, || {
        let (mut rig, ana) = closed();
        rig.input(say(ana, 1))?;
        rig.persist(usize::MAX)?;
        let bob = rig.log_in("bob");
        let join = question(&mut rig, bob, question_join("lobby"));
        rig.input(join)?;
        rig.input(say(ana, 1))?;
        persisted(&mut rig, |mut outputs| {
            // The answer to the post that the opening shows comes first.
            assert_eq!(sent(&outputs, ana).len(), 1, "the post is answered again");
            let to_ana = |output: &Output| {
                is_send(output) && matches!(output, Output::Deliver(Directive::Send { conn, .. })
                    if conn.get() == 1)
            };
            let place = outputs.iter().position(to_ana).unwrap();
            let accepted = outputs.remove(place);
            outputs.insert(0, accepted);
            outputs
        })
    };
    reset_that_is_not_told: RESET_TOLD, || {
        let (mut rig, ana, _) = open();
        rig.input(frame(ana, reset(1, "lobby", 9)))?;
        persisted(&mut rig, without(is_reset))
    };
    reset_that_is_told_twice: RESET_TOLD, || {
        let (mut rig, ana, _) = open();
        rig.input(frame(ana, reset(1, "lobby", 9)))?;
        persisted(&mut rig, twice(is_reset))
    };

    record_of_another_room: RECORD, || {
        let (mut rig, ana, bob) = open();
        rig.join(ana, "attic");
        rig.join(bob, "attic");
        rig.input(say(ana, 1))?;
        rig.input(frame(ana, post(2, "attic", "hi")))?;
        persisted(&mut rig, |mut outputs| {
            let chunks: Vec<_> = outputs
                .iter_mut()
                .filter_map(|output| match output {
                    Output::Deliver(Directive::Visible { chunk, .. }) => Some(chunk),
                    _ => None,
                })
                .collect();
            let [one, other] = chunks.try_into().unwrap();
            std::mem::swap(one, other);
            outputs
        })
    };
    record_that_is_shown_twice: VISIBLE_NEXT, || {
        let (mut rig, ana, _) = open();
        rig.input(say(ana, 1))?;
        persisted(&mut rig, twice(is_visible))
    };
    record_that_is_not_in_its_chunk: VISIBLE_WHOLE, || {
        let (mut rig, ana, _) = open();
        rig.input(say(ana, 1))?;
        persisted(&mut rig, with(is_visible, |output| {
            let Output::Deliver(Directive::Visible { chunk, .. }) = output else { return };
            *chunk = None;
        }))
    };
    record_that_is_not_shown: VISIBLE_ALL, || {
        let (mut rig, ana, _) = open();
        rig.input(say(ana, 1))?;
        persisted(&mut rig, without(is_visible))
    };
    page_that_does_not_come: PAGE, || {
        let (mut rig, ana) = talked(1 << 20, Archive::None);
        told(&mut rig, need(ana, 2), without(is_page))
    };
    page_from_another_cursor: PAGE, || {
        let (mut rig, ana) = talked(1 << 20, Archive::None);
        told(&mut rig, need(ana, 2), with(is_page, |output| {
            let Output::Deliver(Directive::Page { page, .. }) = output else { return };
            if let Page::Records(chunk) = page {
                *chunk = chunk.after(Seq::new(3).unwrap(), usize::MAX).unwrap();
            }
        }))
    };
    records_in_memory_that_are_said_to_be_gone: GONE, || {
        let (mut rig, ana) = talked(1 << 20, Archive::None);
        told(&mut rig, need(ana, 2), with(is_page, |output| {
            let Output::Deliver(Directive::Page { page, .. }) = output else { return };
            *page = Page::Gone { to: Seq::new(4).unwrap() };
        }))
    };
    history_that_lacks_a_record: HISTORY, || {
        let (mut rig, ana) = talked(1 << 20, Archive::None);
        let history = history(&mut rig, ana);
        answer(&mut rig, history, |frame| {
            if let ServerFrame::Answer { answer: Answer::History { records, .. }, .. } = frame {
                *records = List::first_of(records[1..].to_vec());
            }
        })
    };
    history_that_lacks_what_the_store_gave: HISTORY, || {
        let (mut rig, ana) = talked(0, Archive::Store);
        let history = history(&mut rig, ana);
        rig.input(history)?;
        let (token, room, incarnation, range, order) = rig.reads.pop_front().unwrap();
        let records = rig.stored((&room, incarnation), range, order, (0, 9));
        answer(&mut rig, Input::ReadDone { token, records }, |frame| {
            if let ServerFrame::Answer { answer: Answer::History { records, .. }, .. } = frame {
                *records = List::first_of(records[..2].to_vec());
            }
        })
    };
    read_of_another_range: READ, || {
        let (mut rig, ana) = talked(0, Archive::Store);
        told(&mut rig, need(ana, 2), with(
            |output| matches!(output, Output::Read { .. }),
            |output| {
                let Output::Read { from, .. } = output else { return };
                *from = Seq::ZERO.next();
            },
        ))
    };
    event_that_did_not_happen: EVENT, || {
        let (mut rig, ..) = open();
        told(&mut rig, Input::Timeout, and(Output::Event(Event::GateOpened { room: lobby() })))
    };
}

#[test]
fn every_rule_is_broken_by_a_test() {
    let covered: BTreeSet<_> = COVERED.iter().collect();
    let rules: BTreeSet<_> = rules::ALL.iter().collect();
    assert_eq!(covered, rules, "each rule has a test that breaks it");
    assert_eq!(rules.len(), rules::ALL.len(), "no two rules have the same name");
}
