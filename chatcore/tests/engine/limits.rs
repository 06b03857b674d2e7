//! Every bound: what happens at it, and that others are unaffected.

use chatcore::engine::{Input, Misuse};
use chatcore::id::*;
use chatcore::log::OperatorRule;
use chatcore::time::{Span, Timestamp};
use chatcore::wire::*;

use crate::rig::{Rig, Setup, after, key_of, reset, rig};

#[test]
fn held_records_are_bounded_and_presence_makes_none_when_full() {
    let mut rig = Setup::limits(|limits| limits.held_records_max = 3);
    rig.threshold = 3;
    let mut rig = rig.rig();
    rig.join("ana");
    rig.say("ana", "two");
    rig.say("ana", "three");
    rig.forget();
    rig.say("ana", "four");
    rig.expect(&["ana < refused 3 E_LIMIT the room holds no more messages until its gate opens"]);
    rig.join("bob");
    rig.leave("bob");
    rig.join("bob");
    rig.join("cem");
    let heard = rig.heard("cem");
    assert_eq!(
        heard[2..],
        [
            "joined lobby 3/3 open after 0 with ana,bob,cem",
            "lobby 1:1 +ana",
            "lobby 1:2 ana: two",
            "lobby 1:3 ana: three",
        ]
    );
    rig.say("ana", "four");
    assert_eq!(rig.heard("cem"), ["lobby 1:4 ana: four"]);
}

#[test]
fn held_bytes_are_bounded_per_room_and_over_all_rooms() {
    let mut rig = Setup::limits(|limits| {
        limits.held_bytes_max = 64 << 10;
        limits.held_bytes_total_max = 96 << 10;
    })
    .rig();
    rig.join("ana");
    rig.join_from("ana", "attic", Start::Last(0));
    let fit = |rig: &mut Rig, room: &str| {
        let mut accepted = 0;
        for _ in 0..20 {
            rig.post("ana", room, &"x".repeat(8_000));
            accepted += usize::from(rig.heard("ana").pop().unwrap().contains("accepted"));
        }
        accepted
    };
    assert_eq!(fit(&mut rig, "lobby"), 8);
    assert_eq!(fit(&mut rig, "attic"), 4);
    // A reset lets go of what was held.
    rig.command("ana", reset("lobby", 2));
    rig.forget();
    assert_eq!(fit(&mut rig, "attic"), 4);
}

#[test]
fn crowd_has_no_presence_records_and_a_notice_a_second() {
    let mut rig = Setup::limits(|limits| limits.crowd_members = 3).rig();
    for name in ["ana", "bob", "cem", "dov"] {
        rig.join(name);
    }
    rig.forget();
    let start = Start::Last(0);
    for name in ["eli", "fay", "gus"] {
        rig.login(name);
        rig.join_from(name, "lobby", start);
    }
    rig.leave("dov");
    // The newest word is due a second after the last one, and comes once.
    rig.pass(Span::from_millis(1_000));
    let heard = rig.heard("ana");
    assert_eq!(heard.last().unwrap(), "gate lobby 6/2 open");
    assert!(heard.len() <= 2, "{heard:?}");
    assert!(rig.records("ana").iter().all(|record| record.seq <= Seq::new(4).unwrap()));
    // Each who joined was told the count of then, and nothing older afterwards.
    assert_eq!(
        rig.heard("fay")[2..],
        ["joined lobby 6/2 open after 4 with ana,bob,cem,dov,eli,fay",]
    );
    rig.say("ana", "for all");
    assert_eq!(rig.heard("gus").last().unwrap(), "lobby 1:5 ana: for all");
}

#[test]
fn crowd_is_told_of_a_reset_at_once() {
    let mut rig = Setup::limits(|limits| limits.crowd_members = 2).rig();
    for name in ["ana", "bob", "cem", "dov"] {
        rig.join(name);
    }
    rig.forget();
    rig.command("ana", reset("lobby", 9));
    assert_eq!(rig.heard("bob"), ["reset lobby 2 needs 9", "gate lobby 4/9 closed"]);
}

#[test]
fn sessions_of_a_user_are_bounded_and_the_oldest_unused_one_expires() {
    let mut rig = Setup::limits(|limits| limits.sessions_per_user_max = 2).rig();
    for label in ["one", "two", "three"] {
        rig.login_as(label, "ana");
        if !rig.peers[label].closed {
            rig.lose(label);
        }
    }
    assert_eq!(rig.heard("three")[1], "close E_LIMIT no more sessions for this user");
    let day = 24 * 60 * 60 * 1_000;
    rig.now.wall = Timestamp::new(rig.now.wall.get() + day).unwrap();
    rig.login_as("two", "ana");
    rig.forget();
    rig.login_as("three", "ana");
    assert!(rig.heard("three")[1].starts_with("welcome ana last 0"));
    // The session that was connected stays; the other one is new when it comes back.
    rig.lose("three");
    rig.login_as("one", "ana");
    assert!(rig.heard("one")[1].starts_with("close E_LIMIT"));
}

#[test]
fn sessions_and_users_of_the_server_are_bounded() {
    let mut rig = Setup::limits(|limits| limits.sessions_max = 2).rig();
    for name in ["ana", "bob", "cem"] {
        rig.login(name);
    }
    assert!(rig.heard("cem")[1].starts_with("close E_BUSY"));
    let mut rig = Setup::limits(|limits| limits.users_max = 2).rig();
    for name in ["ana", "bob", "cem"] {
        rig.login(name);
    }
    assert_eq!(rig.heard("cem")[1], "close E_LIMIT no more users on this server");
    rig.lose("ana");
    rig.login("ana");
    assert!(rig.heard("ana")[1].starts_with("welcome"));
}

#[test]
fn named_operators_leave_no_first_user_operator() {
    let operators =
        vec![OperatorRule::Name("bob".parse().unwrap()), OperatorRule::Key(key_of("cem"))];
    let mut rig = Setup { operators, ..Setup::default() }.rig();
    for (name, operator) in [("ana", ""), ("bob", " operator"), ("cem", " operator")] {
        rig.login(name);
        assert_eq!(rig.heard(name)[1..], [format!("welcome {name} last 0{operator}")]);
    }
}

#[test]
fn reader_that_leaves_answers_unread_is_closed() {
    let mut rig = Setup::limits(|limits| limits.unread_bytes_max = 64 << 10).rig();
    rig.join("ana");
    rig.join("bob");
    rig.stall("ana");
    for _ in 0..10_000 {
        rig.send("ana", ClientFrame::Ping { token: RequestId::MAX });
    }
    rig.drive();
    // It is told when it reads on, and dropped when it does not.
    rig.forget();
    rig.pass_secs(60);
    assert!(rig.peers["ana"].closed);
    rig.say("bob", "fine");
    assert_eq!(rig.heard("bob").last().unwrap(), "lobby 1:4 bob: fine");
}

#[test]
fn c1_stalled_reader_is_closed_and_resumes_from_its_cursor() {
    let mut rig = rig();
    rig.join("ana");
    rig.join("bob");
    rig.forget();
    rig.stall("ana");
    rig.say("bob", "missed");
    for _ in 0..3 {
        rig.send("ana", ClientFrame::Pong { token: RequestId::ZERO });
        rig.send("bob", ClientFrame::Pong { token: RequestId::ZERO });
        rig.pass_secs(20);
    }
    assert!(rig.peers["ana"].closed);
    assert_eq!(rig.heard("ana"), ["closed"]);
    rig.login("ana");
    rig.join_from("ana", "lobby", after(1, 2));
    assert_eq!(rig.heard("ana")[3], "lobby 1:3 bob: missed");
}

#[test]
fn stalled_reader_that_reads_again_in_time_misses_nothing() {
    let mut rig = rig();
    rig.join("ana");
    rig.join("bob");
    rig.forget();
    rig.stall("ana");
    for text in ["a", "b", "c"] {
        rig.say("bob", text);
    }
    rig.resume("ana");
    assert_eq!(rig.heard("ana"), ["lobby 1:3 bob: a", "lobby 1:4 bob: b", "lobby 1:5 bob: c"]);
    rig.pass_secs(29);
    assert!(!rig.peers["ana"].closed);
}

#[test]
fn records_that_memory_no_longer_has_are_told_as_a_gap() {
    let mut setup = Setup::limits(|limits| limits.window_bytes = 700);
    // A shard of its own keeps nothing for who comes.
    setup.shards = 4;
    let mut rig = setup.rig();
    rig.join("ana");
    rig.join("bob");
    for text in ["three", "four", "five", "six"] {
        rig.say("ana", text);
    }
    rig.login("cem");
    rig.join_from("cem", "lobby", Start::At(Seq::ZERO));
    let heard = rig.heard("cem");
    assert!(heard[3].starts_with("gap lobby 1-"), "{heard:?}");
    assert_eq!(heard.last().unwrap(), "lobby 1:7 +cem");
}

#[test]
fn misuse_is_told_and_changes_nothing() {
    let mut rig = rig();
    rig.join("ana");
    let (conn, hash) = (ConnId::new(999), rig.engine.state_hash());
    let known = rig.peers["ana"].conn;
    let through = rig.engine.head().index.next();
    let committed = rig.engine.committed();
    let cases = [
        (Input::Disconnected { conn }, Misuse::UnknownConnection(conn)),
        (Input::Frame { conn, frame: ClientFrame::Leave }, Misuse::UnknownConnection(conn)),
        (
            Input::Connected {
                conn: known,
                nonce: Nonce::new([0; 32]),
                channel: None,
                address: None,
                waited: Span::ZERO,
            },
            Misuse::ConnectionReused(known),
        ),
        (
            Input::Persisted { through },
            Misuse::PersistedOutOfRange { through, committed, appended: committed },
        ),
        (
            Input::Persisted { through: committed },
            Misuse::PersistedOutOfRange { through: committed, committed, appended: committed },
        ),
    ];
    for (input, misuse) in cases {
        assert_eq!(rig.engine.handle(rig.now, input), Err(misuse));
    }
    assert_eq!(rig.engine.state_hash(), hash);
    assert_eq!(rig.engine.poll_output(), None);
}

#[test]
fn read_answered_wrongly_is_misuse() {
    let mut setup = Setup::limits(|limits| limits.window_bytes = 0);
    setup.archive = chatcore::engine::Archive::Store;
    let mut rig = setup.rig();
    rig.join("ana");
    rig.join("bob");
    rig.held_reads = Some(Vec::new());
    rig.history("bob", "lobby", None, 10);
    let (token, records) = rig.held_reads.take().unwrap().pop().unwrap();
    let mut wrong = records.clone();
    wrong.reverse();
    let answer = |records: &[Record]| Input::ReadDone { token, records: records.to_vec() };
    assert_eq!(rig.engine.handle(rig.now, answer(&wrong)), Err(Misuse::WrongRecords));
    assert_eq!(rig.engine.handle(rig.now, answer(&records)), Ok(()));
    assert_eq!(rig.engine.handle(rig.now, answer(&records)), Err(Misuse::UnknownRead));
}

/// A room of whose records none is in memory, and a store that does not answer.
fn room_before_a_slow_store() -> Rig {
    let mut setup = Setup::limits(|limits| limits.window_bytes = 0);
    setup.archive = chatcore::engine::Archive::Store;
    // A shard of its own keeps nothing for who comes.
    setup.shards = 4;
    let mut rig = setup.rig();
    rig.join("ana");
    rig.join("bob");
    rig.forget();
    rig.held_reads = Some(Vec::new());
    rig
}

#[test]
fn one_page_of_history_is_read_for_a_connection_at_a_time() {
    let mut rig = room_before_a_slow_store();
    for _ in 0..50 {
        rig.history("bob", "lobby", None, 10);
    }
    rig.history("ana", "lobby", None, 10);
    assert_eq!(rig.held_reads.as_ref().unwrap().len(), 2, "one read each");
    let refused = rig.heard("bob");
    assert_eq!(refused.len(), 49);
    assert!(refused.iter().all(|line| line.contains("E_BUSY")), "{refused:?}");
    for (token, records) in rig.held_reads.replace(Vec::new()).unwrap() {
        rig.input(Input::ReadDone { token, records });
    }
    assert_eq!(rig.heard("bob").len(), 1);
    rig.history("bob", "lobby", None, 10);
    assert_eq!(rig.held_reads.as_ref().unwrap().len(), 1, "then it may ask again");
}

#[test]
fn one_page_is_read_for_a_reader_that_begins_again_and_again() {
    let mut rig = room_before_a_slow_store();
    rig.login("cem");
    for _ in 0..50 {
        rig.join_from("cem", "lobby", Start::At(Seq::ZERO.next()));
    }
    assert_eq!(rig.held_reads.as_ref().unwrap().len(), 1);
    // The last beginning is served in full once the store answers.
    rig.forget();
    for (token, records) in rig.held_reads.take().unwrap() {
        rig.input(Input::ReadDone { token, records });
    }
    assert_eq!(rig.heard("cem"), ["lobby 1:1 +ana", "lobby 1:2 +bob", "lobby 1:3 +cem"]);
}

#[test]
fn questions_are_limited_and_an_answer_comes_to_each() {
    let mut rig = rig();
    rig.join("ana");
    rig.join("bob");
    rig.forget();
    // Not driven in between: what they lead to must be small before anything is written.
    for _ in 0..3_000 {
        rig.ask("ana", Question::Rooms);
    }
    let heard = rig.heard("ana");
    let refused = heard.iter().filter(|line| line.contains("E_RATE")).count();
    assert_eq!((heard.len(), heard.len() - refused), (3_000, 127), "a join was one more");
    rig.pass(Span::from_millis(20));
    rig.ask("ana", Question::Rooms);
    assert!(!rig.heard("ana").pop().unwrap().contains("E_RATE"));
    rig.ask("bob", Question::Rooms);
    assert!(!rig.heard("bob").pop().unwrap().contains("E_RATE"), "others are not concerned");
}

#[test]
fn what_waits_for_a_store_that_stands_still_is_bounded() {
    let mut rig = Setup::limits(|limits| {
        limits.waiting_per_connection_max = 3;
        limits.waiting_max = 5;
    })
    .rig();
    rig.join("ana");
    rig.join("bob");
    rig.forget();
    rig.persisting = crate::rig::Persisting::Held;
    for counter in 1..=5 {
        rig.submit("ana", counter, crate::rig::post("lobby", "waits"));
    }
    let busy =
        |counter: u64| format!("refused {counter} E_BUSY the server is busy, try again in 1000 ms");
    assert_eq!(rig.heard("ana"), [busy(4), busy(5)]);
    for counter in 1..=3 {
        rig.submit("bob", counter, crate::rig::post("lobby", "waits too"));
    }
    assert_eq!(rig.heard("bob"), [busy(3)]);
    rig.persist();
    // The refusals used up no counter.
    rig.persisting = crate::rig::Persisting::AtOnce;
    rig.submit("ana", 4, crate::rig::post("lobby", "again"));
    assert_eq!(rig.heard("ana").last().unwrap(), "lobby 1:8 ana: again");
}

#[test]
fn log_ins_that_wait_for_a_store_that_stands_still_are_bounded() {
    let mut rig = Setup::limits(|limits| limits.waiting_max = 5).rig();
    rig.join("ana");
    rig.lose("ana");
    rig.persisting = crate::rig::Persisting::Held;
    rig.login("bob");
    // Whoever gets no answer in time comes again, and again.
    for _ in 0..4 {
        rig.login("ana");
        rig.lose("ana");
    }
    let entries = rig.entries.len();
    for name in ["ana", "cem"] {
        rig.login(name);
        let heard = rig.heard(name);
        assert!(heard[1].starts_with("close E_BUSY"), "{heard:?}");
    }
    assert_eq!(rig.entries.len(), entries);
    rig.persist();
    rig.login("ana");
    assert_eq!(rig.heard("ana")[1], "welcome ana last 0 operator");
}

#[test]
fn connections_that_are_being_closed_keep_nobody_out() {
    let mut rig = Setup::limits(|limits| limits.connections_max = 8).rig();
    rig.login("ana");
    // Refused, told so, and slow to go away.
    for number in 0..20 {
        let label = format!("lingers {number}");
        rig.dial(&label);
        rig.stall(&label);
        rig.drive();
    }
    for label in ["lingers 0", "lingers 1"] {
        rig.lose(label);
    }
    rig.login("bob");
    assert!(rig.heard("bob")[1].starts_with("welcome bob"));
}

#[test]
fn session_of_the_server_that_was_used_longest_ago_expires() {
    let mut rig = Setup::limits(|limits| limits.sessions_max = 3).rig();
    for name in ["ana", "bob", "cem"] {
        rig.join(name);
        rig.pass_secs(1);
    }
    rig.say("ana", "used");
    let day = 24 * 60 * 60;
    for name in ["ana", "bob", "cem"] {
        rig.lose(name);
    }
    rig.pass_secs(day);
    rig.login("dov");
    assert!(rig.heard("dov")[1].starts_with("welcome dov"));
    let sessions = ["ana", "bob", "cem"].map(crate::rig::session_of);
    let expired: Vec<_> = rig
        .entries
        .iter()
        .filter_map(|entry| match &entry.change {
            chatcore::log::Change::SessionExpired { session } => Some(*session),
            _ => None,
        })
        .collect();
    assert_eq!(expired, [sessions[1]], "ana's was used after bob's");
}

#[test]
fn short_records_are_counted_with_what_it_takes_to_know_them() {
    let mut setup = Setup::limits(|limits| limits.window_bytes = 64 << 10);
    setup.archive = chatcore::engine::Archive::Store;
    setup.read_max = 1;
    let mut rig = setup.rig();
    rig.join("ana");
    rig.join("bob");
    for _ in 0..500 {
        rig.say("ana", "x");
    }
    rig.forget();
    rig.history("bob", "lobby", Some(250), 1);
    assert_eq!(rig.reads, 1, "500 records of 40 bytes do not fit in 64 KiB");
    rig.history("bob", "lobby", Some(450), 1);
    assert_eq!(rig.reads, 1, "150 do");
}

fn slow() -> Rig {
    let mut setup = Setup::limits(|limits| {
        limits.frames_per_second = 512;
        limits.frames_burst = 512;
    });
    setup.threshold = 1;
    let mut rig = setup.rig();
    rig.join("ana");
    rig.forget();
    rig
}

/// Posts in one instant until one is refused; how many were accepted.
fn post_until_refused(rig: &mut Rig) -> (usize, String) {
    for count in 0.. {
        rig.say("ana", "x");
        let last = rig.heard("ana").pop().unwrap();
        if last.contains("refused") {
            return (count, last);
        }
    }
    unreachable!("the range has no end");
}

#[test]
fn frames_beyond_the_rate_are_refused_for_now_and_use_up_no_counter() {
    let mut rig = slow();
    // The log-in is no part of it; the join is.
    let (count, refused) = post_until_refused(&mut rig);
    assert_eq!(count, 511);
    // A quarter of what may be sent at once.
    assert_eq!(refused, "refused 512 E_RATE too often, try again in 250 ms");
    rig.submit("ana", 512, reset("lobby", 1));
    assert_eq!(rig.heard("ana"), ["refused 512 E_BUSY the server is busy, try again in 250 ms"]);
    rig.who("ana", "lobby");
    assert_eq!(rig.heard("ana"), ["no: E_RATE too often, try again in 250 ms"]);
    rig.pass(Span::from_millis(250));
    rig.submit("ana", 512, crate::rig::post("lobby", "x"));
    let accepted = rig.heard("ana").iter().any(|line| line.contains("accepted 512"));
    assert!(accepted, "the counter was not used up");
}

#[test]
fn peer_that_goes_on_though_it_is_told_to_wait_is_closed_and_no_other() {
    let mut rig = slow();
    rig.join("bob");
    post_until_refused(&mut rig);
    rig.forget();
    let mut refused = 0;
    loop {
        rig.submit("ana", 512, crate::rig::post("lobby", "y"));
        let heard = rig.heard("ana");
        if heard[0] == "close E_LIMIT too much is sent" {
            break;
        }
        assert!(heard[0].starts_with("refused 512 E_RATE"), "{heard:?}");
        refused += 1;
    }
    // One was refused before.
    assert_eq!(refused, 511);
    rig.say("bob", "undisturbed");
    assert!(rig.heard("bob").iter().any(|line| line.contains("bob: undisturbed")));
}

#[test]
fn bytes_have_a_rate_of_their_own() {
    let mut setup = Setup::limits(|limits| {
        limits.bytes_per_second = 64 << 10;
        limits.bytes_burst = 64 << 10;
    });
    setup.threshold = 1;
    let mut rig = setup.rig();
    rig.join("ana");
    rig.forget();
    let text = "x".repeat(8_000);
    let mut counter = 1;
    let mut accepted = |rig: &mut Rig| {
        let first = counter;
        loop {
            rig.submit("ana", counter, crate::rig::post("lobby", &text));
            let heard = rig.heard("ana");
            if heard.iter().any(|line| line.contains("E_RATE")) {
                return counter - first;
            }
            counter += 1;
        }
    };
    assert_eq!(accepted(&mut rig), 8);
    rig.pass(Span::from_secs(1));
    assert_eq!(accepted(&mut rig), 8);
}

#[test]
fn c8_new_sessions_beyond_the_rate_come_again_one_after_the_other_and_known_ones_do_not_wait() {
    let mut setup = Setup::limits(|limits| {
        limits.logins_per_second = 1;
        limits.logins_burst = 2;
    });
    setup.threshold = 1;
    let mut rig = setup.rig();
    rig.login("ana");
    rig.login("bob");
    rig.forget();
    rig.login("cem");
    let heard = rig.heard("cem");
    let busy = &heard[1];
    assert!(busy.starts_with("close E_BUSY the server is busy, try again in "), "{heard:?}");
    let millis: u64 = busy.split_whitespace().rev().nth(1).unwrap().parse().unwrap();
    assert!((1_000..5_000).contains(&millis), "{busy}");
    rig.lose("ana");
    rig.login("ana");
    assert!(rig.heard("ana").iter().any(|line| line.contains("welcome")), "she was here before");
    rig.pass(Span::from_secs(1));
    rig.login("cem");
    assert!(rig.heard("cem").iter().any(|line| line.contains("welcome")));
}

#[test]
fn c7_log_in_that_would_take_the_last_tenth_of_the_memory_is_put_off_and_nobody_who_is_in_suffers()
{
    let mut setup = Setup::limits(|limits| limits.memory_max = 1 << 20);
    setup.threshold = 1;
    let mut rig = setup.rig();
    // Each may take 320 KiB: two of them, and 8 KiB for one who comes, fit into nine tenths of 1 MiB.
    rig.join("ana");
    rig.join("bob");
    rig.login("cem");
    let heard = rig.heard("cem");
    assert!(heard[1].starts_with("close E_BUSY the server is busy, try again in "), "{heard:?}");
    rig.forget();
    rig.say("ana", "undisturbed");
    assert_eq!(rig.heard("bob"), ["lobby 1:3 ana: undisturbed"]);
    rig.leave("bob");
    rig.lose("bob");
    rig.login("cem");
    assert!(rig.heard("cem").iter().any(|line| line.contains("welcome")));
}
