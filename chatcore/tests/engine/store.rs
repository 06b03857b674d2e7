//! A store that is full, or does not answer.

use chatcore::engine::{Archive, Input, Misuse};
use chatcore::wire::*;

use crate::rig::{Persisting, Rig, Setup, after, post, reset, rig};

/// Ana and bob in an open room of two records, nothing unread.
fn open_room() -> Rig {
    let mut rig = rig();
    rig.join("ana");
    rig.join("bob");
    rig.forget();
    rig
}

const NO: &str = "E_STORE not saved: the server cannot store anything now";

#[test]
fn e1_full_store_takes_nothing_for_a_client_and_uses_up_no_counter() {
    let mut rig = open_room();
    let entries = rig.entries.len();
    rig.input(Input::StoreFull);
    rig.submit("ana", 1, post("lobby", "x"));
    rig.submit("ana", 1, reset("lobby", 9));
    // What would be refused for good would be remembered by an entry.
    rig.submit("bob", 1, post("nowhere", "x"));
    rig.join_from("bob", "attic", Start::Last(0));
    rig.expect(&[
        &format!("ana < refused 1 {NO}"),
        &format!("ana < refused 1 {NO}"),
        &format!("bob < refused 1 {NO}"),
        &format!("bob < no: {NO}"),
    ]);
    for (label, name) in [("cem", "cem"), ("other session", "ana")] {
        rig.login_as(label, name);
        assert_eq!(rig.heard(label), ["hello", &format!("close {NO}"), "closed"]);
    }
    assert_eq!(rig.entries.len(), entries);

    rig.input(Input::StoreFree);
    rig.submit("ana", 1, post("lobby", "x"));
    rig.expect(&["ana < accepted 1 lobby 1:3", "ana < lobby 1:3 ana: x", "bob < lobby 1:3 ana: x"]);
    // The resets that were refused were not counted.
    for counter in 2..12 {
        rig.submit("ana", counter, reset("lobby", 2));
    }
    assert!(rig.heard("ana").contains(&"applied 11".to_owned()));
}

#[test]
fn e1_full_store_answers_what_needs_no_entry_and_knows_the_past() {
    let mut rig = open_room();
    rig.submit("ana", 1, post("lobby", "x"));
    rig.input(Input::StoreFull);
    rig.forget();
    rig.submit("ana", 1, post("lobby", "x"));
    rig.submit("ana", 1, post("lobby", "y"));
    rig.submit("ana", 3, post("lobby", "z"));
    rig.expect(&[
        "ana < accepted 1 lobby 1:3",
        "ana < refused 1 E_STATE counter reused for another command",
        "ana < refused 3 E_STATE counter 2 is expected",
    ]);
    rig.join_from("ana", "lobby", after(1, 2));
    rig.expect(&["ana < joined lobby 2/2 open after 2 with ana,bob", "ana < lobby 1:3 ana: x"]);
}

#[test]
fn e1_whoever_looked_around_just_before_the_store_was_full_is_answered() {
    let mut rig = open_room();
    rig.persisting = Persisting::Held;
    rig.submit("ana", 1, post("lobby", "x"));
    rig.who("ana", "lobby");
    rig.who("bob", "lobby");
    rig.expect(&[]);
    rig.input(Input::StoreFull);
    rig.drive();
    rig.expect(&["ana < users lobby 2 ana,bob", "bob < users lobby 2 ana,bob"]);
}

/// The store is full and ana's post is not in it.
fn room_with_an_unsafe_post() -> Rig {
    let mut rig = open_room();
    rig.persisting = Persisting::Held;
    rig.submit("ana", 1, post("lobby", "unsafe"));
    rig.input(Input::StoreFull);
    rig.forget();
    rig
}

#[test]
fn e1_post_that_a_full_store_did_not_take_holds_up_nobody_who_reads() {
    let mut rig = room_with_an_unsafe_post();
    for label in ["ana", "bob"] {
        rig.history(label, "lobby", None, 5);
        rig.who(label, "attic");
    }
    let page = "history lobby [lobby 1:1 +ana, lobby 1:2 +bob]";
    let no = "no: E_TARGET there is no such room";
    assert_eq!(rig.heard("ana"), [page, no]);
    assert_eq!(rig.heard("bob"), [page, no]);
    rig.lose("bob");
    rig.login("bob");
    rig.join_from("bob", "lobby", after(1, 1));
    assert_eq!(
        rig.heard("bob"),
        [
            "hello",
            "welcome bob last 0",
            "joined lobby 2/2 open after 1 with ana,bob",
            "lobby 1:2 +bob"
        ]
    );
    rig.forget();
    rig.submit("bob", 1, post("lobby", "no"));
    rig.expect(&[&format!("bob < refused 1 {NO}")]);

    // Ana's post was not answered, and whoever asks again has to wait for it.
    rig.lose("ana");
    rig.login("ana");
    rig.join_from("ana", "lobby", after(1, 2));
    let joined = "joined lobby 2/2 open after 2 with ana,bob";
    assert_eq!(rig.heard("ana"), ["hello", "welcome ana last 0 operator", joined]);
    rig.submit("ana", 1, post("lobby", "unsafe"));
    rig.forget();
    rig.persisting = Persisting::AtOnce;
    rig.input(Input::StoreFree);
    rig.expect(&[
        "ana < accepted 1 lobby 1:3",
        "ana < lobby 1:3 ana: unsafe",
        "bob < lobby 1:3 ana: unsafe",
    ]);
}

#[test]
fn e1_answers_that_begin_and_end_something_keep_their_order_before_a_full_store() {
    let mut rig = open_room();
    rig.login_as("ana2", "ana");
    rig.join_from("ana2", "lobby", after(1, 2));
    rig.persisting = Persisting::Held;
    rig.submit("ana", 1, post("lobby", "unsafe"));
    rig.input(Input::StoreFull);
    rig.forget();
    // By her other connection ana stays a member, so this takes no entry.
    rig.part("ana", "lobby");
    rig.join_from("ana", "lobby", after(1, 2));
    rig.expect(&[]);
    rig.persist();
    rig.persisting = Persisting::AtOnce;
    rig.input(Input::StoreFree);
    let heard = rig.heard("ana");
    let joined = "joined lobby 2/2 open after 2 with ana,bob";
    let order = ["accepted 1 lobby 1:3", "parted lobby", joined, "lobby 1:3 ana: unsafe"];
    assert_eq!(heard, order);
}

#[test]
fn e1_session_that_a_full_store_did_not_take_is_not_welcome_before_it_is_safe() {
    let mut rig = open_room();
    rig.persisting = Persisting::Held;
    rig.login("cem");
    rig.lose("cem");
    rig.input(Input::StoreFull);
    rig.login("cem");
    assert_eq!(rig.heard("cem"), ["hello"]);
    rig.persisting = Persisting::AtOnce;
    assert_eq!(rig.heard("cem"), ["welcome cem last 0"]);
}

#[test]
fn e1_leave_is_not_lost_when_the_store_is_full() {
    let mut rig = room_with_an_unsafe_post();
    rig.lose("bob");
    rig.pass_secs(20);
    rig.persisting = Persisting::AtOnce;
    rig.input(Input::StoreFree);
    let heard = rig.heard("ana");
    assert!(heard.contains(&"lobby 1:4 -bob".to_owned()), "{heard:?}");
}

#[test]
fn e1_gate_opens_though_the_store_is_full_and_is_not_told_before_it_is_safe() {
    let mut rig = Setup { threshold: 2, ..Setup::default() }.rig();
    rig.join("ana");
    rig.lose("ana");
    rig.join("bob");
    rig.input(Input::StoreFull);
    rig.persisting = Persisting::Held;
    rig.login("ana");
    rig.forget();
    rig.join_from("ana", "lobby", after(1, 0));
    rig.who("bob", "lobby");
    rig.expect(&["bob < no: E_GATE messages are held until 2 users are connected (now 1)"]);
    rig.persist();
    rig.expect(&[
        "ana < joined lobby 2/2 open after 0 with ana,bob",
        "ana < lobby 1:1 +ana",
        "ana < lobby 1:2 +bob",
        "bob < gate lobby 2/2 open",
        "bob < lobby 1:1 +ana",
        "bob < lobby 1:2 +bob",
    ]);
}

/// A room of nine records of which none is in memory, and a store that cannot read.
fn room_before_an_ill_store() -> Rig {
    let mut setup = Setup::limits(|limits| limits.window_bytes = 0);
    setup.archive = Archive::Store;
    // A shard of its own keeps nothing for who comes.
    setup.shards = 4;
    setup.read_max = 3;
    let mut rig = setup.rig();
    rig.join("ana");
    rig.join("bob");
    for number in 3..=9 {
        rig.say("ana", &number.to_string());
    }
    rig.login("cem");
    rig.forget();
    rig.ill = true;
    rig.reads = 0;
    rig
}

#[test]
fn question_that_the_store_cannot_answer_is_refused_and_can_be_asked_again() {
    let mut rig = room_before_an_ill_store();
    rig.history("bob", "lobby", None, 2);
    rig.expect(&[&format!("bob < no: {NO}")]);
    rig.ill = false;
    rig.history("bob", "lobby", None, 2);
    rig.expect(&["bob < history lobby [lobby 1:8 ana: 8, lobby 1:9 ana: 9]"]);
}

#[test]
fn reader_that_lags_waits_for_an_ill_store_and_misses_nothing() {
    let mut rig = room_before_an_ill_store();
    rig.join_from("cem", "lobby", after(1, 2));
    for seconds in 0..5 {
        assert_eq!(rig.reads, 1 + seconds, "the store is asked once a second");
        rig.pass_secs(1);
    }
    assert_eq!(rig.heard("cem").len(), 1, "it is told that it joined, and no gap");
    rig.forget();
    // Others are served meanwhile, and what is new comes after what is old.
    rig.say("bob", "11");
    rig.expect(&[
        "ana < lobby 1:11 bob: 11",
        "bob < accepted 1 lobby 1:11",
        "bob < lobby 1:11 bob: 11",
    ]);
    rig.ill = false;
    rig.pass_secs(1);
    rig.drive();
    let seqs: Vec<u64> = rig.records("cem").iter().map(|record| record.seq.get()).collect();
    assert_eq!(seqs, (3..=11).collect::<Vec<_>>());
}

#[test]
fn reader_that_begins_again_before_an_ill_store_asks_no_more_often() {
    let mut rig = room_before_an_ill_store();
    for last in 0..50 {
        rig.join_from("cem", "lobby", after(1, last % 9));
    }
    assert_eq!(rig.reads, 1);
    rig.ill = false;
    rig.pass_secs(1);
    rig.drive();
    // Only its last beginning counts.
    let seqs: Vec<u64> = rig.records("cem").iter().map(|record| record.seq.get()).collect();
    assert_eq!(seqs, (5..=10).collect::<Vec<_>>());
}

#[test]
fn reset_before_an_ill_store_ends_the_wait_for_the_old_life() {
    let mut rig = room_before_an_ill_store();
    rig.join_from("cem", "lobby", after(1, 2));
    rig.command("ana", reset("lobby", 2));
    rig.say("bob", "new");
    rig.forget();
    rig.ill = false;
    rig.pass_secs(1);
    rig.drive();
    let records = rig.records("cem");
    let seqs: Vec<_> = records.iter().map(|one| (one.incarnation.get(), one.seq.get())).collect();
    assert_eq!(seqs, [(2, 1)]);
}

#[test]
fn read_that_fails_for_a_connection_that_is_gone_leaves_nothing_behind() {
    let mut rig = room_before_an_ill_store();
    rig.join_from("cem", "lobby", after(1, 2));
    rig.lose("cem");
    let reads = rig.reads;
    rig.pass_secs(5);
    assert_eq!(rig.reads, reads);
    rig.login("cem");
    rig.ill = false;
    rig.held_reads = Some(Vec::new());
    rig.join_from("cem", "lobby", after(1, 2));
    rig.lose("cem");
    for (token, _) in rig.held_reads.take().unwrap() {
        rig.input(Input::ReadFailed { token });
        let again = rig.engine.handle(rig.now, Input::ReadFailed { token });
        assert_eq!(again, Err(Misuse::UnknownRead));
    }
}
