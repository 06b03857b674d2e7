//! Transcripts that read as a script.

use chatcore::wire::Start;

use crate::rig::{after, post, reset, rig, seq};

#[test]
fn gate_holds_everything_and_opens_for_good() {
    let mut rig = rig();
    rig.join("ana");
    rig.expect(&[
        "ana < hello",
        "ana < welcome ana last 0 operator",
        "ana < notice FirstUserIsOperator",
        "ana < joined lobby 1/2 closed after 0",
    ]);
    rig.say("ana", "one");
    rig.expect(&["ana < accepted 1 lobby held"]);
    rig.join("bob");
    rig.expect(&[
        "ana < gate lobby 2/2 open",
        "ana < lobby 1:1 +ana",
        "ana < lobby 1:2 ana: one",
        "ana < lobby 1:3 +bob",
        "bob < hello",
        "bob < welcome bob last 0",
        "bob < joined lobby 2/2 open after 0 with ana,bob",
        "bob < lobby 1:1 +ana",
        "bob < lobby 1:2 ana: one",
        "bob < lobby 1:3 +bob",
    ]);
    rig.leave("bob");
    rig.expect(&["ana < gate lobby 1/2 open", "ana < lobby 1:4 -bob", "bob < closed"]);
    rig.say("ana", "alone");
    rig.expect(&["ana < accepted 2 lobby 1:5", "ana < lobby 1:5 ana: alone"]);
    rig.join("cem");
    rig.expect(&[
        "ana < gate lobby 2/2 open",
        "ana < lobby 1:6 +cem",
        "cem < hello",
        "cem < welcome cem last 0",
        "cem < joined lobby 2/2 open after 0 with ana,cem",
        "cem < lobby 1:1 +ana",
        "cem < lobby 1:2 ana: one",
        "cem < lobby 1:3 +bob",
        "cem < lobby 1:4 -bob",
        "cem < lobby 1:5 ana: alone",
        "cem < lobby 1:6 +cem",
    ]);
}

#[test]
fn reset_clears_the_room_and_closes_the_gate() {
    let mut rig = rig();
    rig.join("ana");
    rig.join("bob");
    rig.say("bob", "old");
    rig.forget();
    rig.command("ana", reset("lobby", 3));
    rig.expect(&[
        "ana < applied 1",
        "ana < reset lobby 2 needs 3",
        "ana < gate lobby 2/3 closed",
        "bob < reset lobby 2 needs 3",
        "bob < gate lobby 2/3 closed",
    ]);
    rig.say("bob", "new");
    rig.history("bob", "lobby", None, 9);
    rig.expect(&[
        "bob < accepted 2 lobby held",
        "bob < no: E_GATE messages are held until 3 users are connected (now 2)",
    ]);
    rig.join("cem");
    rig.expect(&[
        "ana < gate lobby 3/3 open",
        "ana < lobby 2:1 bob: new",
        "ana < lobby 2:2 +cem",
        "bob < gate lobby 3/3 open",
        "bob < lobby 2:1 bob: new",
        "bob < lobby 2:2 +cem",
        "cem < hello",
        "cem < welcome cem last 0",
        "cem < joined lobby 3/3 open after 0 with ana,bob,cem",
        "cem < lobby 2:1 bob: new",
        "cem < lobby 2:2 +cem",
    ]);
}

#[test]
fn lost_connection_leaves_after_the_grace_and_a_quit_at_once() {
    let mut rig = rig();
    for name in ["ana", "bob", "cem"] {
        rig.join(name);
    }
    rig.forget();
    rig.lose("bob");
    rig.pass_secs(19);
    rig.expect(&[]);
    rig.pass_secs(1);
    rig.expect(&[
        "ana < gate lobby 2/2 open",
        "ana < lobby 1:4 -bob",
        "cem < gate lobby 2/2 open",
        "cem < lobby 1:4 -bob",
    ]);
    rig.leave("cem");
    rig.expect(&["ana < gate lobby 1/2 open", "ana < lobby 1:5 -cem", "cem < closed"]);
}

#[test]
fn who_comes_back_to_one_room_leaves_the_others_when_the_grace_is_over() {
    let mut rig = rig();
    for name in ["ana", "bob"] {
        rig.join(name);
        rig.join_from(name, "dev", Start::At(seq(1)));
    }
    rig.lose("bob");
    rig.pass_secs(5);
    rig.login("bob");
    rig.join_from("bob", "lobby", after(1, 2));
    // Lost again, it has another grace in the room that it came back to, and in no other.
    rig.lose("bob");
    rig.forget();
    rig.pass_secs(14);
    rig.expect(&[]);
    rig.pass_secs(1);
    rig.expect(&["ana < gate dev 1/2 open", "ana < dev 1:3 -bob"]);
    rig.pass_secs(4);
    rig.expect(&[]);
    rig.pass_secs(1);
    rig.expect(&["ana < gate lobby 1/2 open", "ana < lobby 1:3 -bob"]);
}

#[test]
fn device_that_is_lost_takes_its_user_out_of_the_rooms_that_no_other_device_follows() {
    let mut rig = rig();
    rig.join("ana");
    rig.join_from("ana", "dev", Start::At(seq(1)));
    rig.login_as("phone", "bob");
    rig.join_from("phone", "lobby", Start::At(seq(1)));
    rig.login_as("desk", "bob");
    rig.join_from("desk", "lobby", Start::At(seq(1)));
    rig.join_from("desk", "dev", Start::At(seq(1)));
    rig.lose("desk");
    rig.pass_secs(9);
    rig.lose("phone");
    rig.forget();
    rig.pass_secs(11);
    rig.expect(&["ana < gate dev 1/2 open", "ana < dev 1:3 -bob"]);
    rig.pass_secs(9);
    rig.expect(&["ana < gate lobby 1/2 open", "ana < lobby 1:3 -bob"]);
}

#[test]
fn resume_by_cursor_goes_on_where_it_was() {
    let mut rig = rig();
    rig.join("ana");
    rig.join("bob");
    rig.lose("bob");
    rig.say("ana", "missed");
    rig.forget();
    rig.login("bob");
    rig.join_from("bob", "lobby", after(1, 2));
    rig.say("ana", "live");
    rig.expect(&[
        "ana < accepted 2 lobby 1:4",
        "ana < lobby 1:4 ana: live",
        "bob < hello",
        "bob < welcome bob last 0",
        "bob < joined lobby 2/2 open after 2 with ana,bob",
        "bob < lobby 1:3 ana: missed",
        "bob < lobby 1:4 ana: live",
    ]);
    rig.lose("bob");
    rig.command("ana", reset("lobby", 2));
    rig.forget();
    rig.login("bob");
    rig.join_from("bob", "lobby", after(1, 4));
    assert_eq!(rig.heard("bob")[2..], ["joined lobby 2/2 open after 0 with ana,bob"]);
}

#[test]
fn starts_may_be_the_last_few_or_a_place() {
    let mut rig = rig();
    rig.join("ana");
    rig.join("bob");
    rig.say("ana", "three");
    for (label, start, expected) in [
        ("c", Start::Last(1), 3),
        ("d", Start::Last(0), 5),
        ("e", Start::At(seq(3)), 2),
        ("f", Start::At(seq(900)), 7),
        ("g", after(1, 900), 8),
    ] {
        rig.login(label);
        rig.join_from(label, "lobby", start);
        let joined = &rig.heard(label)[2];
        assert!(joined.contains(&format!("after {expected} ")), "{label}: {joined}");
    }
}

#[test]
fn joins_and_parts_sent_without_waiting_are_answered_in_order() {
    let mut rig = rig();
    rig.join("ana");
    rig.join("bob");
    rig.forget();
    rig.persisting = crate::rig::Persisting::Held;
    rig.part("bob", "lobby");
    rig.join_from("bob", "lobby", after(1, 2));
    rig.who("bob", "lobby");
    rig.part("bob", "lobby");
    rig.expect(&[]);
    rig.persisting = crate::rig::Persisting::AtOnce;
    assert_eq!(
        rig.heard("bob"),
        [
            "parted lobby",
            "joined lobby 2/2 open after 2 with ana,bob",
            "users lobby 2 ana,bob",
            "parted lobby",
        ]
    );
    rig.expect(&[
        "ana < gate lobby 1/2 open",
        "ana < lobby 1:3 -bob",
        "ana < lobby 1:4 +bob",
        "ana < lobby 1:5 -bob",
    ]);
}

#[test]
fn user_in_two_sessions_leaves_with_the_last() {
    let mut rig = rig();
    rig.join("ana");
    rig.join("bob");
    rig.login_as("bob2", "bob");
    rig.join_from("bob2", "lobby", Start::Last(0));
    rig.forget();
    rig.leave("bob");
    rig.expect(&["bob < closed"]);
    rig.say("bob2", "still here");
    rig.forget();
    rig.leave("bob2");
    rig.expect(&["ana < gate lobby 1/2 open", "ana < lobby 1:4 -bob", "bob2 < closed"]);
}

#[test]
fn rooms_and_users_are_listed() {
    let mut rig = rig();
    rig.join("ana");
    rig.join("bob");
    rig.join_from("ana", "attic", Start::Last(0));
    rig.forget();
    rig.ask("bob", chatcore::wire::Question::Rooms);
    rig.who("bob", "lobby");
    rig.whois("bob", "lobby", "ana");
    rig.whois("bob", "lobby", "nobody");
    rig.who("bob", "attic");
    rig.who("bob", "cellar");
    rig.part("bob", "attic");
    rig.command("bob", post("attic", "hi"));
    rig.lose("ana");
    rig.whois("bob", "lobby", "ana");
    rig.expect(&[
        "bob < rooms 2: attic 1/2 closed, lobby 2/2 open",
        "bob < users lobby 2 ana,bob",
        "bob < user ana here",
        "bob < no: E_TARGET there is no such user",
        "bob < no: E_STATE join the room first",
        "bob < no: E_TARGET there is no such room",
        "bob < no: E_STATE join the room first",
        "bob < refused 1 E_STATE join the room first",
        "bob < user ana away",
    ]);
}
