//! Whole clients against a whole engine, with losses at every place.
#![expect(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test that panics is a test that fails, and looks at the few kinds it is about"
)]

#[macro_use]
#[path = "../mutated/mod.rs"]
mod mutated;

mod hostile;
mod moves;
mod order;
mod rig;
mod script;

use chatcore::client::{Ask, Client, Drain, Event, Input, Output, Stop};
use chatcore::id::Threshold;
use chatcore::wire::RecordBody;
use proptest::prelude::*;
use rig::{Fault, Host, World, ask, config, lobby};

const LINES: [&str; 5] = ["one", "two", "three", "four", "five"];
const ALICE: usize = 0;
const BOB: usize = 1;

fn everything_is_said(world: &World) -> bool {
    let seen = |host: usize| world.hosts[host].shown().len() >= LINES.len();
    world.hosts[ALICE].is_drained() && seen(ALICE) && seen(BOB)
}

/// A conversation in which one thing goes wrong; false when it ended before that could happen.
fn conversation_with(fault: Fault) -> (World, bool) {
    let mut world = World::new(2, &["alice", "bob"]);
    world.hosts[ALICE].fault = fault;
    world.type_lines(ALICE, &LINES[..2]);
    world.run_until(|world| world.hosts[BOB].client.is_online());
    world.type_lines(ALICE, &LINES[2..]);
    world.run_until(everything_is_said);
    let struck = world.hosts[ALICE].fault == Fault::None;
    (world, struck)
}

#[test]
fn b4_connection_cut_at_every_frame_shows_each_post_once_and_in_order() {
    for place in 0.. {
        let (world, struck) = conversation_with(Fault::CutAtFrame(place));
        assert_eq!(world.hosts[ALICE].shown(), LINES, "alice, cut at frame {place}");
        assert_eq!(world.hosts[BOB].shown(), LINES, "bob, cut at frame {place}");
        assert_eq!(world.hosts[ALICE].sent(), LINES, "cut at frame {place}");
        if !struck {
            assert!(place > 15, "the conversation has only {place} frames");
            return;
        }
    }
}

#[test]
fn client_that_dies_at_every_output_loses_and_doubles_nothing() {
    for place in 0.. {
        let (world, struck) = conversation_with(Fault::DieAtOutput(place));
        assert_eq!(world.hosts[BOB].shown(), LINES, "died at output {place}");
        // What was shown and not yet noted as seen is shown again by the next process.
        let mut shown = world.hosts[ALICE].shown();
        let all = shown.len();
        shown.dedup();
        assert_eq!(shown, LINES, "died at output {place}");
        assert!(all <= LINES.len() + 1, "died at output {place}");
        if !struck {
            assert!(place > 30, "the conversation has only {place} outputs");
            return;
        }
    }
}

#[test]
fn line_written_without_a_connection_is_sent_after_it_is_back() {
    let mut world = World::new(1, &["alice"]);
    world.run_until(|world| world.hosts[ALICE].client.is_online());
    world.reachable = false;
    world.cut(ALICE);
    world.type_lines(ALICE, &["later"]);
    for _ in 0..5 {
        let lost = world.hosts[ALICE].events.len();
        world.run_until(|world| world.hosts[ALICE].events.len() > lost);
    }
    world.reachable = true;
    world.run_until(|world| world.hosts[ALICE].shown() == ["later"]);
    assert_eq!(world.hosts[ALICE].resumed(), [false, true]);
}

#[test]
fn journal_that_begins_again_is_not_resumed_and_gets_the_unanswered_lines() {
    let mut world = World::new(1, &["alice"]);
    world.type_lines(ALICE, &["old"]);
    world.run_until(|world| world.hosts[ALICE].shown() == ["old"]);
    world.type_lines(ALICE, &["unanswered"]);
    world.replace_server(2, 1);
    world.run_until(|world| world.hosts[ALICE].shown() == ["old", "unanswered"]);
    assert_eq!(world.hosts[ALICE].resumed(), [false, false]);
    world.restart(ALICE);
    world.type_lines(ALICE, &["new"]);
    world.run_until(|world| world.hosts[ALICE].shown().len() == 3);
    assert_eq!(world.hosts[ALICE].sent(), ["old", "unanswered", "new"]);
}

#[test]
fn expired_session_shows_what_may_have_been_sent_and_sends_what_was_not() {
    let mut world = World::new(1, &["alice"]);
    world.type_lines(ALICE, &["old"]);
    world.run_until(|world| world.hosts[ALICE].shown() == ["old"]);
    // The next output after its saving is its sending: it may have arrived.
    world.type_lines(ALICE, &["unsure"]);
    world.run_until(|world| {
        world.hosts[ALICE].said.iter().any(|output| {
            matches!(output, Output::Send(chatcore::wire::ClientFrame::Submit { counter, .. })
            if counter.get() == 2)
        })
    });
    world.hosts[ALICE].saved.outbox = world.hosts[ALICE]
        .said
        .iter()
        .filter_map(|output| match output {
            Output::Save(chatcore::client::Save::Queued(unsent)) if unsent.id == "unsure" => {
                Some(unsent.clone())
            }
            _ => None,
        })
        .collect();
    world.replace_server(1, 1);
    world.restart(ALICE);
    world.run_until(|world| world.hosts[ALICE].client.is_online());
    world.type_lines(ALICE, &["new"]);
    world.run_until(|world| world.hosts[ALICE].is_drained());
    let abandoned: Vec<&str> = world.hosts[ALICE]
        .events
        .iter()
        .filter_map(|event| match event {
            Event::Abandoned { id, .. } => Some(id.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(abandoned, ["unsure"]);
    assert_eq!(world.hosts[ALICE].sent().last(), Some(&"new"));
    assert!(world.hosts[ALICE].saved.outbox.is_empty());
}

#[test]
fn reset_begins_a_new_life_and_asks_who_is_there_once_the_gate_is_open_again() {
    let mut world = World::new(2, &["alice", "bob"]);
    world.run_until(|world| world.hosts.iter().all(|host| host.client.is_online()));
    world.hosts.iter_mut().for_each(|host| host.events.clear());
    let threshold = Threshold::new(2).unwrap();
    world.tell(ALICE, Input::Reset { room: lobby(), threshold, id: "r".into() });
    let is_list = |event: &Event| matches!(event, Event::Users { count: 2, .. });
    world.run_until(|world| world.hosts[BOB].events.iter().any(is_list));
    let reset = |event: &Event| match event {
        Event::Reset { incarnation, .. } => Some(incarnation.get()),
        _ => None,
    };
    let resets: Vec<u64> = world.hosts[BOB].events.iter().filter_map(reset).collect();
    assert_eq!(resets, [2]);
    world.type_lines(ALICE, &["again"]);
    world.run_until(|world| world.hosts[BOB].shown() == ["again"]);
}

#[test]
fn user_list_follows_who_comes_and_goes() {
    let mut world = World::new(1, &["alice", "bob"]);
    let two = |event: &Event| matches!(event, Event::Users { count: 2, .. });
    world.run_until(|world| world.hosts[ALICE].events.iter().any(two));
    world.hosts[ALICE].events.clear();
    world.tell(BOB, Input::Quit { drain: Drain::Wait });
    world.run_until(|world| {
        world.hosts[ALICE].events.iter().any(|event| {
        matches!(event, Event::Users { count: 1, names, .. } if names[0].as_str() == "alice")
    })
    });
    assert_eq!(world.hosts[BOB].stopped, Some(Stop::Done));
    let left = |event: &Event| match event {
        Event::Record(record) => matches!(record.body, RecordBody::Left { .. }),
        _ => false,
    };
    assert!(world.hosts[ALICE].events.iter().any(left));
}

#[test]
fn history_is_gathered_over_many_pages() {
    let mut world = World::new(1, &["alice"]);
    let lines: Vec<String> = (0..600).map(|n| format!("line {n}")).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    world.type_lines(ALICE, &lines);
    world.run_until(|world| world.hosts[ALICE].is_drained());
    world.tell(ALICE, ask(Ask::History(lobby(), 550)));
    world.tell(ALICE, ask(Ask::History(lobby(), 5_000)));
    let sizes = |world: &World| -> Vec<(usize, u64)> {
        let histories = world.hosts[ALICE].events.iter().filter_map(|event| match event {
            Event::History { records, .. } => Some((records.len(), records[0].seq.get())),
            _ => None,
        });
        histories.collect()
    };
    world.run_until(|world| sizes(world).len() == 2);
    assert_eq!(sizes(&world), [(550, 52), (601, 1)]);
}

#[test]
fn e1_lines_that_a_full_store_refused_are_sent_in_order_once_it_is_not() {
    let mut world = World::new(2, &["alice", "bob"]);
    world.type_lines(ALICE, &LINES[..1]);
    world.run_until(|world| !world.hosts[BOB].shown().is_empty());
    world.fill_store(true);
    world.type_lines(ALICE, &LINES[1..4]);
    let until = world.now + 5_000;
    world.run_until(|world| world.now > until);
    assert!(world.hosts.iter().all(|host| host.shown() == LINES[..1]));
    assert_eq!(world.hosts[ALICE].saved.outbox.len(), 3);
    let submits = world.hosts[ALICE].said.iter().filter(|output| {
        matches!(output, Output::Send(chatcore::wire::ClientFrame::Submit { .. }))
    });
    assert!(submits.count() <= 1 + 3 * 7, "once a second is enough");
    // Not even a lost connection makes it forget.
    world.cut(ALICE);
    world.type_lines(ALICE, &LINES[4..]);
    world.run_until(|world| world.hosts[ALICE].client.is_online());
    world.fill_store(false);
    world.run_until(everything_is_said);
    assert_eq!(world.hosts[BOB].shown(), LINES);
    assert_eq!(world.hosts[ALICE].sent(), LINES);
    assert_eq!(world.hosts[ALICE].told_full(), 1);
}

#[test]
fn e1_user_is_told_of_each_full_store_once_whatever_waits_for_it() {
    let mut world = World::new(2, &["alice", "bob"]);
    let go_on = |world: &mut World| {
        let until = world.now + 5_000;
        world.run_until(|world| world.now > until);
    };
    go_on(&mut world);
    world.fill_store(true);
    world.type_lines(ALICE, &LINES[..2]);
    world.tell(BOB, Input::Join { room: "den".parse().unwrap(), id: "1".into() });
    go_on(&mut world);
    let told = |world: &World| world.hosts.iter().map(Host::told_full).collect::<Vec<_>>();
    assert_eq!(told(&world), [1, 1]);
    world.fill_store(false);
    go_on(&mut world);
    world.fill_store(true);
    world.type_lines(ALICE, &LINES[2..3]);
    go_on(&mut world);
    assert_eq!(told(&world), [2, 1]);
}

#[test]
fn e1_newcomer_gets_in_once_the_store_is_not_full() {
    let mut world = World::new(1, &["alice"]);
    world.fill_store(true);
    world.type_lines(ALICE, &LINES);
    let until = world.now + 5_000;
    world.run_until(|world| world.now > until);
    assert!(!world.hosts[ALICE].client.is_online());
    world.fill_store(false);
    world.run_until(|world| world.hosts[ALICE].shown() == LINES);
}

#[test]
fn quit_waits_for_the_answers_and_leaves_at_once_when_told_to() {
    let mut world = World::new(1, &["alice"]);
    world.type_lines(ALICE, &LINES);
    world.tell(ALICE, Input::Quit { drain: Drain::Wait });
    world.run_until(|world| world.hosts[ALICE].stopped.is_some());
    assert_eq!(world.hosts[ALICE].stopped, Some(Stop::Done));
    assert_eq!(world.hosts[ALICE].sent(), LINES);
    assert_eq!(world.hosts[ALICE].shown(), LINES);
    let mut world = World::new(1, &["alice"]);
    world.reachable = false;
    world.type_lines(ALICE, &LINES);
    world.tell(ALICE, Input::Quit { drain: Drain::Now });
    world.run_until(|world| world.hosts[ALICE].stopped == Some(Stop::Done));
}

#[test]
fn b4_newer_connection_of_the_session_ends_the_older_client_for_good() {
    let mut world = World::new(1, &["alice", "alice"]);
    world.hosts[1].saved = world.hosts[0].saved.clone();
    world.hosts[1].key = world.hosts[0].key;
    world.run_until(|world| world.hosts.iter().any(|host| host.stopped.is_some()));
    let stopped = world.hosts.iter().find_map(|host| host.stopped).unwrap();
    assert!(matches!(stopped, Stop::Refused(refusal) if refusal.code() == "E_AUTH"));
    world.run_until(|world| world.hosts.iter().any(|host| host.client.is_online()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn draining_late_or_early_gives_the_same_outputs(
        place in 0_usize..40,
        batches in prop::collection::vec(1_usize..9, 1..6),
    ) {
        let (mut world, _) = conversation_with(Fault::CutAtFrame(place));
        world.tell(ALICE, Input::Quit { drain: Drain::Wait });
        world.run_until(|world| world.hosts[ALICE].stopped.is_some());
        let mut late = Client::new(config("alice"));
        let mut said = Vec::new();
        let mut inputs = world.hosts[ALICE].inputs.iter().cloned();
        for batch in batches.iter().cycle() {
            let mut ended = true;
            for (now, input) in inputs.by_ref().take(*batch) {
                late.handle(now, input);
                ended = false;
            }
            said.extend(core::iter::from_fn(|| late.poll_output()));
            if ended {
                break;
            }
        }
        prop_assert_eq!(&said, &world.hosts[ALICE].said);
    }
}
