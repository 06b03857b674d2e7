//! Hostile and faulty cases, each by its id: the refusal, and that others are unaffected.

use chatcore::engine::{Event, Input};
use chatcore::id::*;
use chatcore::text::Untrusted;
use chatcore::time::{Span, Timestamp};
use chatcore::wire::*;

use crate::rig::{Rig, Setup, address_of, hello, key_of, post, reset, rig, session_of};

/// A room of two with an open gate and nothing left to look at.
fn open_room() -> Rig {
    let mut rig = rig();
    rig.join("ana");
    rig.join("bob");
    rig.forget();
    rig
}

/// The rest of the room goes on as if nothing had happened.
#[track_caller]
fn others_go_on(rig: &mut Rig) {
    rig.forget();
    rig.say("bob", "still fine");
    let heard = rig.heard("bob").join("\n");
    assert!(heard.contains("accepted") && heard.contains("bob: still fine"), "{heard}");
}

#[test]
fn a13_body_and_names_above_their_caps_are_refused() {
    let mut rig = open_room();
    rig.say("ana", &"x".repeat(8_193));
    rig.say("ana", &"x".repeat(8_192));
    let heard = rig.heard("ana");
    assert_eq!(heard[0], "refused 1 E_LIMIT the message is longer than 8192 bytes");
    assert_eq!(heard[1], "accepted 2 lobby 1:3");
    rig.say("ana", "  \n");
    assert!(rig.heard("ana")[0].starts_with("refused 3 E_COMMAND"));
    rig.login(&"n".repeat(33));
    let heard = rig.heard(&"n".repeat(33));
    assert!(heard[1].starts_with("close E_NAME") && heard[2] == "closed", "{heard:?}");
    rig.enter(&"n".repeat(32), "lobby");
    rig.join_from("ana", &"r".repeat(65), Start::Last(0));
    assert!(rig.heard("ana").last().unwrap().starts_with("no: E_NAME"));
    others_go_on(&mut rig);
}

#[test]
fn a17_wrong_version_is_told_the_supported_range() {
    let mut rig = open_room();
    rig.dial("old");
    let versions = VersionRange { min: 90, max: 99 };
    rig.send("old", ClientFrame::Hello(ClientHello { role: Role::Client, versions, features: 0 }));
    let line = "old < close E_VERSION this server speaks protocol versions 1 to 1";
    rig.expect(&[line, "old < closed"]);
    others_go_on(&mut rig);
}

#[test]
fn b1_third_frame_before_login_closes() {
    let mut rig = open_room();
    rig.dial("eve");
    rig.submit("eve", 1, post("lobby", "x"));
    rig.who("eve", "lobby");
    rig.leave("eve");
    rig.expect(&[
        "eve < refused 1 E_STATE log in first",
        "eve < no: E_STATE log in first",
        "eve < close E_STATE log in first",
        "eve < closed",
    ]);
    others_go_on(&mut rig);
}

#[test]
fn ping_is_answered_at_any_time_after_hello() {
    let mut rig = rig();
    rig.dial("ana");
    rig.send("ana", hello());
    for _ in 0..9 {
        rig.send("ana", ClientFrame::Ping { token: RequestId::MAX });
    }
    assert_eq!(rig.heard("ana")[9], format!("pong {COUNTER_MAX}"));
}

#[test]
fn b2_second_hello_and_login_change_nothing() {
    let mut rig = open_room();
    rig.send("ana", hello());
    let login = rig.login_frame("eve", session_of("eve"));
    rig.send("ana", login);
    rig.whois("ana", "lobby", "eve");
    rig.expect(&[
        "ana < rejected E_STATE already logged in",
        "ana < rejected E_STATE already logged in",
        "ana < no: E_TARGET there is no such user",
    ]);
    others_go_on(&mut rig);
}

#[test]
fn b3_two_users_with_one_name_one_wins() {
    let mut rig = open_room();
    rig.dial("one");
    rig.dial("two");
    for label in ["one", "two"] {
        rig.send(label, hello());
        let session = session_of(label);
        let ClientFrame::Login(mut login) = rig.login_frame("cem", session) else { panic!() };
        login.key = key_of(label);
        rig.send(label, ClientFrame::Login(login));
    }
    rig.expect(&[
        "one < hello",
        "one < welcome cem last 0",
        "two < hello",
        "two < close E_NAME the name is already in use",
        "two < closed",
    ]);
    others_go_on(&mut rig);
}

#[test]
fn a_key_has_one_name_and_a_wrong_signature_none() {
    let mut rig = open_room();
    for (label, key, signed) in [("x", "ana", 1), ("y", "y", 0)] {
        rig.dial(label);
        rig.send(label, hello());
        let ClientFrame::Login(login) = rig.login_frame("cem", session_of(label)) else { panic!() };
        let signature = Signature::new([signed; 64]);
        rig.send(label, ClientFrame::Login(Login { key: key_of(key), signature, ..login }));
    }
    rig.expect(&[
        "x < hello",
        "x < close E_NAME this key already has another name",
        "x < closed",
        "y < hello",
        "y < close E_AUTH the signature is wrong",
        "y < closed",
    ]);
}

#[test]
fn b4_same_session_again_replaces_the_old_connection() {
    let mut rig = open_room();
    let old = rig.peers.remove("ana").unwrap();
    rig.peers.insert("old".to_owned(), old);
    rig.login("ana");
    rig.expect(&[
        "ana < hello",
        "ana < welcome ana last 0 operator",
        "old < close E_AUTH replaced by a newer connection of the same session",
        "old < closed",
    ]);
    // An older log-in that comes late does not win back the session.
    rig.dial("late");
    rig.send("late", hello());
    let ClientFrame::Login(mut login) = rig.login_frame("ana", session_of("ana")) else { panic!() };
    login.attach = Attach::ZERO;
    rig.send("late", ClientFrame::Login(login));
    assert!(rig.heard("late")[1].starts_with("close E_AUTH replaced"));
    // The session of one user is nobody else's.
    rig.dial("eve");
    rig.send("eve", hello());
    let login = rig.login_frame("eve", session_of("ana"));
    rig.send("eve", login);
    assert_eq!(rig.heard("eve")[1], "close E_AUTH the session belongs to another key");
    others_go_on(&mut rig);
}

#[test]
fn b7_same_command_again_gets_the_first_answer_and_no_copy() {
    let mut rig = open_room();
    for _ in 0..3 {
        rig.submit("ana", 1, post("lobby", "once"));
    }
    rig.lose("ana");
    rig.login("ana");
    rig.submit("ana", 1, post("lobby", "once"));
    let heard = rig.heard("ana");
    assert_eq!(heard[1..], ["welcome ana last 1 operator", "accepted 1 lobby 1:3"]);
    rig.expect(&["bob < lobby 1:3 ana: once"]);
}

#[test]
fn b8_counters_out_of_order_are_never_acknowledged() {
    let mut rig = open_room();
    rig.submit("ana", 3, post("lobby", "gap"));
    rig.submit("ana", 0, post("lobby", "zero"));
    rig.submit("ana", 1, post("lobby", "one"));
    rig.submit("ana", 1, post("lobby", "other"));
    rig.submit("ana", COUNTER_MAX, post("lobby", "far"));
    let heard = rig.heard("ana");
    assert_eq!(
        heard,
        [
            "refused 3 E_STATE counter 1 is expected",
            "refused 0 E_STATE counter 1 is expected",
            "accepted 1 lobby 1:3",
            "lobby 1:3 ana: one",
            "refused 1 E_STATE counter reused for another command",
            &format!("refused {COUNTER_MAX} E_STATE counter 2 is expected"),
        ]
    );
    for counter in 2..=65 {
        rig.submit("ana", counter, post("lobby", &format!("post {counter}")));
    }
    rig.forget();
    rig.submit("ana", 1, post("lobby", "one"));
    rig.submit("ana", 2, post("lobby", "post 2"));
    rig.submit("ana", 2, post("lobby", "other"));
    rig.expect(&[
        "ana < applied 1",
        "ana < accepted 2 lobby 1:4",
        "ana < refused 2 E_STATE counter reused for another command",
    ]);
    others_go_on(&mut rig);
}

#[test]
fn b8_a_post_written_before_a_reset_is_refused_after_it() {
    let mut rig = open_room();
    rig.command("ana", reset("lobby", 1));
    rig.forget();
    let (room, body) = (Untrusted::new("lobby"), Untrusted::new("late"));
    let incarnation = Some(Incarnation::ZERO.next());
    rig.command("bob", Command::Post { room, incarnation, body });
    rig.expect(&["bob < refused 1 E_STATE the room was reset since this was written"]);
}

#[test]
fn b9_author_is_the_one_who_logged_in() {
    let mut rig = open_room();
    rig.say("bob", "ana: forged");
    let RecordBody::Post { from, .. } = &rig.records("ana").last().unwrap().body else { panic!() };
    assert_eq!(from.as_ref(), "bob");
}

#[test]
fn b11_threshold_of_one_opens_at_once_and_the_largest_never_by_wrapping() {
    let mut rig = Setup { threshold: 1, ..Setup::default() }.rig();
    rig.join("ana");
    assert_eq!(rig.heard("ana")[3], "joined lobby 1/1 open after 0 with ana");
    let mut rig = Setup { threshold: u16::MAX, ..Setup::default() }.rig();
    for name in ["ana", "bob", "cem"] {
        rig.join(name);
    }
    assert_eq!(rig.heard("cem").last().unwrap(), "joined lobby 3/65535 closed after 0");
}

#[test]
fn b12_rooms_per_user_and_per_server_are_bounded() {
    let mut rig = open_room();
    for room in 1..64 {
        rig.join_from("ana", &format!("room{room}"), Start::Last(0));
    }
    rig.forget();
    rig.join_from("ana", "one-more", Start::Last(0));
    rig.expect(&["ana < no: E_LIMIT no more rooms for this user"]);
    others_go_on(&mut rig);

    let mut rig = Setup::limits(|limits| limits.rooms_max = 3).rig();
    rig.login("ana");
    for room in ["a", "b", "c"] {
        rig.join_from("ana", room, Start::Last(0));
    }
    rig.forget();
    rig.join_from("ana", "d", Start::Last(0));
    rig.expect(&["ana < no: E_LIMIT no more rooms on this server"]);
}

#[test]
fn c2_log_in_has_a_deadline_and_newcomers_a_share() {
    let mut rig = open_room();
    rig.dial("slow");
    rig.send("slow", hello());
    rig.pass_secs(9);
    rig.expect(&["slow < hello"]);
    rig.pass_secs(1);
    rig.expect(&["slow < close E_LIMIT the log-in took too long", "slow < closed"]);
    others_go_on(&mut rig);

    let mut rig = Setup::limits(|limits| limits.connections_max = 8).rig();
    rig.login("ana");
    for label in ["x", "y", "z"] {
        rig.dial(label);
    }
    rig.forget();
    assert!(rig.peers["z"].closed && !rig.peers["y"].closed && !rig.peers["ana"].closed);
    rig.lose("x");
    rig.login("bob");
    assert!(!rig.peers["bob"].closed);
}

#[test]
fn connections_beyond_the_limit_are_told_to_wait() {
    let mut rig = Setup::limits(|limits| limits.connections_max = 4).rig();
    for name in ["a", "b", "c", "d"] {
        rig.login(name);
    }
    rig.forget();
    rig.dial("e");
    rig.expect(&["e < close E_BUSY the server is busy, try again in 1000 ms", "e < closed"]);
}

#[test]
fn c3_silent_connection_is_pinged_twice_and_gone_by_90_s() {
    let mut rig = open_room();
    rig.pass_secs(59);
    rig.send("bob", ClientFrame::Pong { token: RequestId::ZERO });
    rig.forget();
    rig.pass_secs(30);
    rig.expect(&["ana < ping", "bob < ping"]);
    rig.send("bob", ClientFrame::Pong { token: RequestId::ZERO });
    rig.pass_secs(1);
    rig.expect(&["ana < close E_LIMIT no sign of life", "ana < closed"]);
    rig.pass_secs(20);
    rig.expect(&["bob < gate lobby 1/2 open", "bob < lobby 1:3 -ana"]);
}

#[test]
fn d1_wall_clock_that_jumps_moves_no_deadline_and_never_shows_an_earlier_time() {
    let mut rig = open_room();
    let deadline = rig.engine.next_timeout();
    let year = 365 * 24 * 60 * 60 * 1_000;
    for (text, wall) in [("a", -3_600_000), ("b", year), ("c", 0), ("d", -year)] {
        rig.now.wall =
            Timestamp::new(rig.now.wall.get().checked_add_signed(wall).unwrap()).unwrap();
        rig.input(Input::Timeout);
        rig.say("ana", text);
    }
    assert_eq!(rig.engine.next_timeout(), deadline);
    let records = rig.records("bob");
    assert!(records.is_sorted_by(|one, next| one.at <= next.at && one.seq < next.seq));
    assert!(rig.peers.values().all(|peer| !peer.closed));
}

#[test]
fn d3_time_of_a_record_is_the_servers_and_no_frame_of_a_client_has_one() {
    let mut rig = open_room();
    rig.say("ana", "now");
    let at = rig.records("bob").last().unwrap().at;
    assert_eq!(at, rig.now.wall);
    let frames = include_str!("../../src/wire/client.rs");
    assert!(!frames.contains("Timestamp") && !frames.contains("crate::time"));
}

#[test]
fn g5_g7_g8_names_that_deceive_are_refused() {
    let mut rig = open_room();
    rig.enter("raul", "lobby");
    for (name, reason) in [
        ("r\u{430}ul", "too similar"),
        ("\u{301}x", "combining mark"),
        ("a\u{200B}b", "hidden"),
        ("a\u{202E}b", "hidden"),
        ("a\u{1}b", "hidden"),
        ("server", "reserved"),
        ("System", "reserved"),
        ("admin", "reserved"),
        ("$x", "sign"),
        ("*x", "sign"),
        ("a b", "spaces"),
        ("a:b", "colons"),
        ("", "empty"),
    ] {
        rig.login(name);
        let heard = rig.heard(name);
        assert!(heard[1].starts_with("close E_NAME") && heard[1].contains(reason), "{heard:?}");
        assert!(rig.peers[name].closed);
        rig.peers.remove(name);
    }
    others_go_on(&mut rig);
}

#[test]
fn j1_closed_gate_answers_two_counts_and_nothing_else() {
    let mut rig = Setup { threshold: 3, ..Setup::default() }.rig();
    rig.join("ana");
    rig.say("ana", "secret");
    rig.join("bob");
    rig.forget();
    rig.who("bob", "lobby");
    rig.whois("bob", "lobby", "ana");
    rig.whois("bob", "lobby", "\u{1}");
    rig.history("bob", "lobby", None, 10);
    let no = "bob < no: E_GATE messages are held until 3 users are connected (now 2)";
    rig.expect(&[no, no, no, no]);
}

#[test]
fn j1_question_before_a_reset_is_not_answered_from_the_old_life_after_it() {
    let mut rig = Setup::limits(|limits| limits.window_bytes = 0);
    rig.archive = chatcore::engine::Archive::Store;
    let mut rig = rig.rig();
    rig.join("ana");
    rig.join("bob");
    rig.forget();
    rig.held_reads = Some(Vec::new());
    rig.history("bob", "lobby", None, 10);
    rig.command("ana", reset("lobby", 5));
    rig.forget();
    for (token, records) in rig.held_reads.take().unwrap() {
        assert_eq!(records.len(), 2);
        rig.input(Input::ReadDone { token, records });
    }
    rig.expect(&["bob < no: E_STATE the room was reset since this was written"]);
}

#[test]
fn j1_page_read_before_a_reset_is_not_delivered_after_it() {
    let mut setup = Setup::limits(|limits| limits.window_bytes = 0);
    setup.archive = chatcore::engine::Archive::Store;
    setup.shards = 4;
    let mut rig = setup.rig();
    rig.join("ana");
    rig.join("bob");
    rig.held_reads = Some(Vec::new());
    rig.join("cem");
    rig.command("ana", reset("lobby", 5));
    let held = rig.held_reads.take().unwrap();
    assert_eq!(held.len(), 1);
    for (token, records) in held {
        rig.input(Input::ReadDone { token, records });
    }
    assert_eq!(rig.directives().count(), 0);
}

#[test]
fn j2_user_with_many_sessions_counts_once() {
    let mut rig = rig();
    for label in ["ana", "ana2", "ana3", "ana4", "ana5"] {
        rig.login_as(label, "ana");
        rig.join_from(label, "lobby", Start::At(Seq::ZERO));
        assert!(rig.heard(label).pop().unwrap().starts_with("joined lobby 1/2 closed"));
    }
    rig.lose("ana3");
    rig.join("bob");
    assert!(rig.heard("bob")[2].starts_with("joined lobby 2/2 open"));
}

#[test]
fn j4_nth_user_that_joins_and_leaves_at_once_opens_for_good() {
    let mut rig = rig();
    rig.join("ana");
    rig.login("bob");
    rig.forget();
    rig.setup.drains_early = false;
    let (room, start) = (Untrusted::new("lobby"), Start::Last(0));
    rig.ask("bob", Question::Join { room, start });
    rig.leave("bob");
    assert_eq!(
        rig.heard("ana"),
        ["gate lobby 1/2 open", "lobby 1:1 +ana", "lobby 1:2 +bob", "lobby 1:3 -bob",]
    );
}

#[test]
fn j4_whoever_opens_the_gate_by_joining_is_told_and_gets_everything() {
    let mut rig = rig();
    rig.enter("ana", "lobby");
    rig.login("bob");
    rig.forget();
    // Even who asks for no history was there.
    rig.join_from("bob", "lobby", Start::Last(0));
    rig.enter("cem", "lobby");
    let joined = |name: &str| {
        let frames = rig.peers[name].frames.iter();
        let mut answers = frames.filter_map(|frame| match frame {
            ServerFrame::Answer { answer: Answer::Joined(joined), .. } => Some(joined.opened),
            _ => None,
        });
        answers.next()
    };
    assert_eq!((joined("bob"), joined("cem")), (Some(true), Some(false)));
    assert_eq!(rig.heard("bob")[1..3], ["lobby 1:1 +ana", "lobby 1:2 +bob"]);
}

#[test]
fn j5_dead_connection_counts_until_it_is_declared_dead() {
    for declared_dead in [false, true] {
        let mut rig = Setup { threshold: 3, ..Setup::default() }.rig();
        rig.join("ana");
        rig.join("bob");
        // Bob's host is gone; his connection takes nothing any more.
        rig.stall("bob");
        rig.forget();
        if declared_dead {
            rig.lose("bob");
            rig.expect(&["ana < gate lobby 1/3 closed"]);
        }
        rig.join("cem");
        let joined = rig.heard("cem").into_iter().find(|line| line.starts_with("joined"));
        let counted = if declared_dead { "2/3 closed" } else { "3/3 open" };
        assert!(joined.unwrap().starts_with(&format!("joined lobby {counted}")));
    }
}

#[test]
fn k1_reset_is_for_operators_and_for_rooms_that_exist() {
    let mut rig = open_room();
    rig.command("bob", reset("lobby", 9));
    rig.command("ana", reset("nowhere", 9));
    rig.expect(&[
        "ana < refused 1 E_TARGET there is no such room",
        "bob < refused 1 E_PERM operators only",
    ]);
    others_go_on(&mut rig);
}

#[test]
fn k1_resets_are_limited_to_ten_and_then_one_a_minute() {
    let mut rig = open_room();
    for _ in 0..10 {
        rig.command("ana", reset("lobby", 2));
    }
    rig.forget();
    rig.submit("ana", 11, reset("lobby", 2));
    rig.expect(&["ana < refused 11 E_RATE too often, try again in 60000 ms"]);
    rig.send("bob", ClientFrame::Pong { token: RequestId::ZERO });
    rig.pass_secs(60);
    rig.forget();
    // It is refused for good: sent again it does not clear what was said meanwhile.
    rig.submit("ana", 11, reset("lobby", 2));
    assert_eq!(rig.heard("ana")[0], "refused 11 E_RATE too often, try again in 60000 ms");
    rig.forget();
    rig.submit("ana", 12, reset("lobby", 2));
    assert_eq!(rig.heard("ana")[0], "applied 12");
}

#[test]
fn k4_reset_with_enough_connected_opens_again_in_the_same_step() {
    let mut rig = open_room();
    rig.command("ana", reset("lobby", 2));
    rig.say("bob", "hi");
    rig.expect(&[
        "ana < applied 1",
        "ana < reset lobby 2 needs 2",
        "ana < gate lobby 2/2 open",
        "ana < lobby 2:1 bob: hi",
        "bob < reset lobby 2 needs 2",
        "bob < gate lobby 2/2 open",
        "bob < accepted 1 lobby 2:1",
        "bob < lobby 2:1 bob: hi",
    ]);
}

#[test]
fn k4_reset_against_the_nth_join_is_one_order_or_the_other() {
    for reset_first in [true, false] {
        let mut rig = open_room();
        rig.login("cem");
        rig.forget();
        rig.setup.drains_early = false;
        let counter = Counter::ZERO.next();
        let reset = ClientFrame::Submit { counter, command: reset("lobby", 3) };
        let join = Question::Join { room: Untrusted::new("lobby"), start: Start::At(Seq::ZERO) };
        if reset_first {
            rig.send("ana", reset.clone());
        }
        rig.ask("cem", join);
        if !reset_first {
            rig.send("ana", reset);
        }
        rig.drive();
        rig.say("bob", "after");
        let opened = rig.events.iter().filter(|event| matches!(event, Event::GateOpened { .. }));
        assert_eq!(opened.count(), 2);
        let resets = rig.events.iter().filter(|event| matches!(event, Event::Reset { .. }));
        assert_eq!(resets.count(), 1);
        for name in ["ana", "bob", "cem"] {
            let last = rig.heard(name).pop().unwrap();
            let place = if reset_first { 2 } else { 1 };
            assert_eq!(last, format!("lobby 2:{place} bob: after"));
        }
    }
}

#[test]
fn stop_tells_everybody_and_lets_nobody_in() {
    let mut rig = open_room();
    rig.input(Input::Stop);
    rig.dial("cem");
    let line = "close E_GONE the server moved or stopped";
    let expected: Vec<String> = ["ana", "bob", "cem"]
        .iter()
        .flat_map(|name| [format!("{name} < {line}"), format!("{name} < closed")])
        .collect();
    rig.expect(&expected.iter().map(String::as_str).collect::<Vec<_>>());
}

#[test]
fn condemned_connection_closes_alone() {
    let mut rig = open_room();
    let conn = rig.peers["ana"].conn;
    let refusal = Refusal::Decode(DecodeFault::Truncated);
    rig.input(Input::Condemned { conn, refusal });
    rig.expect(&["ana < close E_DECODE truncated", "ana < closed"]);
    rig.pass(Span::from_secs(19));
    others_go_on(&mut rig);
}

#[test]
fn welcome_names_the_address_that_each_connection_came_in_by() {
    let mut rig = rig();
    rig.login("ana");
    rig.login_as("phone", "ana");
    rig.forget();
    for label in ["ana", "phone"] {
        let told = rig.peers[label].frames.iter().find_map(|frame| match frame {
            ServerFrame::Welcome(welcome) => welcome.address.clone(),
            _ => None,
        });
        assert_eq!(told, Some(address_of(label)));
    }
}
