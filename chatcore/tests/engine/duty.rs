//! An engine that follows, takes over and retires.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chatcore::engine::{Archive, Duty, Engine, Event, Input, Misuse, Move, Output, ParkedCounts};
use chatcore::id::*;
use chatcore::log::{ChainError, Change, Entry};
use chatcore::text::{HostAddress, Untrusted};
use chatcore::time::Span;
use chatcore::wire::*;
use proptest::prelude::*;

use crate::rig::{Persisting, Rig, Setup, after, hello, post, reset, rig, seq, session_of};

fn generation(number: u64) -> Generation {
    Generation::new(number).unwrap()
}

/// A host by its number, and the generation in which something is said of it.
fn location(host: u8, number: u64) -> Location {
    let address: HostAddress = format!("chat://host{host}:5000").parse().unwrap();
    Location {
        generation: generation(number),
        log_id: LogId::new([1; 16]),
        key: PublicKey::new([host; 32]),
        boot: BootId::new([host; 16]),
        tls_key: None,
        addresses: Addresses::first_of([address]),
    }
}

/// An engine that follows the one of a rig, with a rig around it: it has what is safe there.
fn follower_of(owner: &Rig) -> Rig {
    let entries = owner.entries[..owner.safe].iter().map(|entry| Entry::clone(entry));
    let engine = Engine::replay(entries, owner.setup.config(), owner.now).unwrap();
    let engine = engine.following(location(1, 1)).unwrap();
    let mut follower = Rig::around(owner.setup.clone(), engine, owner.now);
    follower.entries.extend_from_slice(&owner.entries[..owner.safe]);
    (follower.safe, follower.persisting) = (owner.safe, Persisting::Held);
    follower.next_conn = owner.next_conn + 1_000;
    follower.adopt_opened(owner);
    follow(&mut follower, owner);
    follower
}

/// Gives a follower what the owner has and it has not.
fn follow(follower: &mut Rig, owner: &Rig) {
    for entry in &owner.entries[follower.entries.len()..] {
        follower.follow(entry);
    }
    follower.adopt_opened(owner);
    follower.now = owner.now;
}

/// The follower has everything and all of it is committed.
fn level(follower: &mut Rig, owner: &Rig) {
    follow(follower, owner);
    follower.persist_some(owner.safe - follower.safe);
}

/// Says hello and logs in, and what came back.
fn park(follower: &mut Rig, name: &str) -> Vec<String> {
    follower.login(name);
    follower.heard(name)
}

fn lead(follower: &mut Rig, number: u64) {
    follower.input(Input::Lead { generation: generation(number) });
    follower.persisting = Persisting::AtOnce;
    follower.drive();
}

fn ask_to_join(rig: &mut Rig, label: &str, room: &str, start: Start) {
    rig.ask(label, Question::Join { room: Untrusted::new(room), start });
}

const PARKED: &str = "parked, generation 1 at chat://host1:5000";

/// Ana and bob in an open lobby, with a few posts.
fn talk() -> Rig {
    let mut owner = rig();
    owner.join("ana");
    owner.join("bob");
    owner.say("ana", "one");
    owner.say("bob", "two");
    owner.forget();
    owner
}

#[test]
fn follower_has_the_owners_state_hash_after_every_entry() {
    let mut owner = rig();
    let mut follower = follower_of(&owner);
    let check = |owner: &Rig, follower: &mut Rig| {
        follow(follower, owner);
        assert_eq!(follower.engine.state_hash(), owner.engine.state_hash());
        assert_eq!(follower.engine.head(), owner.engine.head());
    };
    for name in ["ana", "bob", "cem"] {
        owner.join(name);
        check(&owner, &mut follower);
    }
    owner.say("ana", "one");
    check(&owner, &mut follower);
    owner.command("ana", reset("lobby", 2));
    check(&owner, &mut follower);
    owner.leave("cem");
    check(&owner, &mut follower);
    owner.lose("bob");
    owner.pass_secs(30);
    check(&owner, &mut follower);
    assert!(follower.engine.snapshot().is_none(), "some of it is not committed");
    level(&mut follower, &owner);
    assert_eq!(follower.engine.snapshot(), owner.engine.snapshot());
    assert!(follower.outputs.iter().all(|output| !matches!(output, Output::Persist(_))));
}

#[test]
fn follower_is_made_of_a_snapshot_and_the_entries_after_it() {
    let mut owner = talk();
    let (snapshot, through) = (owner.engine.snapshot().unwrap(), owner.safe);
    owner.persisting = Persisting::Held;
    owner.say("ana", "three");
    owner.say("bob", "four");
    owner.persist_some(1);
    let engine = Engine::restore(&snapshot, [], owner.setup.config(), owner.now).unwrap();
    let mut engine = engine.following(location(1, 1)).unwrap();
    for entry in &owner.entries[through..] {
        engine.handle(owner.now, Input::Entry(Arc::clone(entry))).unwrap();
    }
    let through = owner.engine.committed();
    engine.handle(owner.now, Input::Persisted { through }).unwrap();
    engine.check_invariants();
    assert_eq!((engine.head(), engine.committed()), (owner.engine.head(), through));
    assert_eq!(engine.state_hash(), owner.engine.state_hash());
    assert_eq!(engine.poll_output(), None);
    assert_eq!(engine.next_timeout(), None, "it expects nobody back");
}

#[test]
fn entry_that_does_not_follow_is_refused_and_changes_nothing() {
    let mut owner = talk();
    let mut follower = follower_of(&owner);
    owner.say("ana", "three");
    owner.say("ana", "four");
    let [first, second] =
        [owner.safe - 2, owner.safe - 1].map(|place| owner.entries[place].clone());
    let before = (follower.engine.head(), follower.engine.state_hash());
    let last = before.0.index;
    let found = second.header.index;
    let refused = follower.engine.handle(follower.now, Input::Entry(second));
    assert_eq!(refused, Err(Misuse::Chain(ChainError::Index { last, found })));
    let mut forged = Entry::clone(&first);
    forged.change = Change::SessionExpired { session: session_of("ana") };
    let refused = follower.engine.handle(follower.now, Input::Entry(Arc::new(forged)));
    let index = first.header.index;
    assert_eq!(refused, Err(Misuse::Chain(ChainError::Digest { index })));
    assert_eq!((follower.engine.head(), follower.engine.state_hash()), before);
    follower.engine.check_invariants();
    level(&mut follower, &owner);
    assert_eq!(follower.engine.state_hash(), owner.engine.state_hash());
}

#[test]
fn follower_decides_nothing_whatever_comes() {
    let owner = talk();
    let mut follower = follower_of(&owner);
    let head = follower.engine.head();
    for name in ["ana", "bob", "cem"] {
        park(&mut follower, name);
        ask_to_join(&mut follower, name, "lobby", Start::Last(9));
        follower.submit(name, 3, post("lobby", "not yet"));
        follower.submit(name, 4, reset("lobby", 9));
    }
    let (room, incarnation) = ("lobby".parse().unwrap(), Incarnation::ZERO.next());
    follower.input(Input::Trim { room, incarnation, through: seq(2) });
    let (request, user) = (RequestId::ZERO, "bob".parse().unwrap());
    follower.input(Input::Moderate { request, user, measure: Measure::Ban });
    follower.drive();
    assert_eq!(follower.moderated, [(request, Some(Refusal::Gone))]);
    follower.lose("cem");
    follower.leave("bob");
    follower.pass_secs(600);
    follower.login("ana");
    follower.input(Input::Stop);
    follower.drive();
    assert_eq!(follower.engine.head(), head);
    assert_eq!(follower.entries.len(), owner.entries.len());
    assert_eq!(follower.engine.state_hash(), owner.engine.state_hash());
}

#[test]
fn follower_checks_names_and_signatures_as_an_owner_does() {
    let owner = talk();
    let mut follower = follower_of(&owner);
    assert_eq!(park(&mut follower, "ana"), ["hello", PARKED]);
    let told = follower.peers["ana"].frames.iter().find_map(|frame| match frame {
        ServerFrame::Hello(hello) => Some(hello.generation),
        _ => None,
    });
    assert_eq!(told, Some(generation(1)));
    assert!(park(&mut follower, "server")[1].starts_with("close E_NAME"));
    follower.dial("eve");
    follower.send("eve", hello());
    let ClientFrame::Login(mut login) = follower.login_frame("eve", session_of("eve")) else {
        panic!("a log-in was made");
    };
    login.signature = Signature::new([0; 64]);
    follower.send("eve", ClientFrame::Login(login));
    assert_eq!(follower.heard("eve")[1], "close E_AUTH the signature is wrong");
    // Whose a name is, and whether there is room for one more, is decided by the one who leads.
    assert_eq!(park(&mut follower, "zoe"), ["hello", PARKED]);
    assert_eq!(follower.engine.parked(), ParkedCounts { connections: 2, users: 1 });
    assert_eq!(follower.engine.counts().online, 0);
}

#[test]
fn connection_that_waits_answers_pings_and_may_leave() {
    let owner = talk();
    let mut follower = follower_of(&owner);
    park(&mut follower, "ana");
    follower.send("ana", ClientFrame::Ping { token: RequestId::ZERO });
    follower.send("ana", hello());
    assert_eq!(follower.heard("ana"), ["pong 0", "rejected E_STATE already logged in"]);
    follower.leave("ana");
    assert_eq!(follower.heard("ana"), ["closed"]);
    assert_eq!(follower.engine.parked().connections, 0);
}

#[test]
fn connection_waits_for_so_long_and_is_then_told_to_come_again() {
    let owner = talk();
    let mut follower = follower_of(&owner);
    park(&mut follower, "ana");
    follower.pass_secs(59);
    assert_eq!(follower.heard("ana"), Vec::<String>::new());
    follower.pass_secs(1);
    assert!(follower.heard("ana")[0].starts_with("close E_BUSY"));
    assert_eq!(follower.engine.parked().connections, 0);
}

#[test]
fn places_of_those_who_wait_are_bounded_and_strangers_leave_some_to_members() {
    let mut setup = Setup::limits(|limits| {
        (limits.connections_max, limits.parked_max) = (100, 4);
        limits.greeting_percent = 50;
    });
    setup.threshold = 1;
    let mut owner = setup.rig();
    for name in ["ana", "bob", "cem"] {
        owner.join(name);
    }
    let mut follower = follower_of(&owner);
    for name in ["eve", "fay"] {
        assert_eq!(park(&mut follower, name), ["hello", PARKED]);
    }
    assert!(park(&mut follower, "gus")[1].starts_with("close E_BUSY"), "two of four are taken");
    for name in ["ana", "bob"] {
        assert_eq!(park(&mut follower, name), ["hello", PARKED]);
    }
    assert!(park(&mut follower, "cem")[1].starts_with("close E_BUSY"));
    follower.lose("eve");
    assert_eq!(park(&mut follower, "cem"), ["hello", PARKED]);
    // Who waits takes no place of those who have not logged in.
    for number in 0..50 {
        follower.dial(&number.to_string());
        assert_eq!(follower.heard(&number.to_string()), Vec::<String>::new());
    }
}

#[test]
fn log_in_counts_for_the_memory_of_all_while_it_waits() {
    let mut setup = Setup::limits(|limits| limits.memory_max = 1 << 20);
    setup.threshold = 1;
    let mut owner = setup.rig();
    for name in ["ana", "bob", "cem"] {
        owner.login(name);
        owner.lose(name);
    }
    let mut follower = follower_of(&owner);
    for name in ["ana", "bob"] {
        assert_eq!(park(&mut follower, name), ["hello", PARKED]);
    }
    assert!(park(&mut follower, "cem")[1].starts_with("close E_BUSY"));
    lead(&mut follower, 2);
    assert!(follower.heard("ana")[0].starts_with("welcome"));
    assert!(follower.heard("bob")[0].starts_with("welcome"));
}

#[test]
fn frames_of_a_connection_that_waits_are_bounded_in_number_and_bytes() {
    let owner = talk();
    let mut follower = follower_of(&owner);
    let limits = follower.setup.limits.clone();
    park(&mut follower, "ana");
    for _ in 0..limits.parked_frames_max {
        ask_to_join(&mut follower, "ana", "lobby", Start::Last(0));
    }
    assert_eq!(follower.heard("ana"), Vec::<String>::new());
    ask_to_join(&mut follower, "ana", "lobby", Start::Last(0));
    assert!(follower.heard("ana")[0].starts_with("close E_BUSY"));
    park(&mut follower, "bob");
    for number in 3..11 {
        follower.submit("bob", number, post("lobby", &"x".repeat(8_000)));
    }
    assert_eq!(follower.heard("bob"), Vec::<String>::new());
    follower.submit("bob", 11, post("lobby", &"x".repeat(8_000)));
    assert!(follower.heard("bob")[0].starts_with("close E_BUSY"));
    assert_eq!(follower.engine.parked().connections, 0);
}

#[test]
fn newer_log_in_of_a_session_takes_the_place_of_the_one_that_waits() {
    let owner = talk();
    let mut follower = follower_of(&owner);
    let older = follower.login_frame("ana", session_of("ana"));
    park(&mut follower, "ana");
    let first = follower.put_away("ana").unwrap();
    assert!(!first.closed);
    // One of an earlier number that comes late.
    follower.dial("late");
    follower.send("late", hello());
    follower.send("late", older);
    assert!(follower.heard("late")[1].starts_with("close E_AUTH replaced"));
    park(&mut follower, "ana");
    let replaced =
        Event::Closed { conn: first.conn, refusal: Some(Refusal::Auth(AuthFault::Replaced)) };
    assert!(follower.events.contains(&replaced), "{:?}", follower.events);
    // Whoever has another key has another place, whatever session it claims.
    follower.dial("eve");
    follower.send("eve", hello());
    let stolen = follower.login_frame("eve", session_of("ana"));
    follower.send("eve", stolen);
    follower.drive();
    assert_eq!(follower.engine.parked().connections, 2);
    lead(&mut follower, 2);
    assert_eq!(follower.heard("ana")[0], "welcome ana last 1 operator");
    assert!(follower.heard("eve")[2].starts_with("close E_AUTH the session belongs"));
}

/// Everybody of an owner's rig logs in at the follower and asks to go on where they are.
fn park_all(follower: &mut Rig, names: &[&str], last: u64) {
    for name in names {
        park(follower, name);
        ask_to_join(follower, name, "lobby", after(1, last));
    }
    follower.forget();
}

#[test]
fn parked_log_in_is_let_in_when_the_follower_leads_and_nobody_sees_a_leave_or_a_join() {
    let mut owner = talk();
    let mut follower = follower_of(&owner);
    park_all(&mut follower, &["ana", "bob"], 4);
    owner.say("ana", "while you dialled");
    level(&mut follower, &owner);
    let entries = follower.entries.len();
    assert_eq!(follower.engine.parked().users, 2);
    lead(&mut follower, 2);
    for name in ["ana", "bob"] {
        let last = if name == "ana" { "2 operator" } else { "1" };
        assert_eq!(
            follower.heard(name),
            [
                &format!("welcome {name} last {last}"),
                "generation 2",
                "joined lobby 2/2 open after 4 with ana,bob",
                "lobby 1:5 ana: while you dialled",
            ]
        );
    }
    follower.pass_secs(25);
    assert_eq!(follower.entries.len(), entries, "nothing was decided for it");
    assert_eq!(follower.engine.state_hash(), owner.engine.state_hash());
    follower.say("bob", "here we are");
    assert_eq!(follower.heard("ana"), ["lobby 1:6 bob: here we are"]);
}

#[test]
fn member_who_does_not_come_back_after_a_move_leaves_after_a_fresh_grace() {
    let mut owner = talk();
    owner.lose("bob");
    owner.pass_secs(19);
    let mut follower = follower_of(&owner);
    park_all(&mut follower, &["ana"], 4);
    level(&mut follower, &owner);
    lead(&mut follower, 2);
    follower.forget();
    follower.pass_secs(19);
    follower.expect(&[]);
    follower.pass_secs(1);
    follower.expect(&["ana < gate lobby 1/2 open", "ana < lobby 1:5 -bob"]);
}

#[test]
fn gate_does_not_flicker_when_the_engine_moves() {
    let setup = Setup { threshold: 5, ..Setup::default() };
    let mut owner = setup.rig();
    let names = ["ana", "bob", "cem"];
    for name in names {
        owner.join(name);
    }
    // A member who is away counts for nobody, before and after.
    owner.join("dov");
    owner.lose("dov");
    owner.forget();
    owner.say("ana", "held");
    owner.expect(&["ana < accepted 1 lobby held"]);
    let mut follower = follower_of(&owner);
    for name in names {
        park(&mut follower, name);
    }
    // Some send their joins before, some once they are welcome.
    ask_to_join(&mut follower, "bob", "lobby", after(1, 0));
    level(&mut follower, &owner);
    follower.forget();
    lead(&mut follower, 2);
    follower.expect(&[
        "ana < welcome ana last 1 operator",
        "ana < generation 2",
        "bob < welcome bob last 0",
        "bob < generation 2",
        "bob < joined lobby 3/5 closed after 0",
        "cem < welcome cem last 0",
        "cem < generation 2",
    ]);
    follower.who("bob", "lobby");
    let refused = "E_GATE messages are held until 5 users are connected (now 3)";
    follower.expect(&[&format!("bob < no: {refused}")]);
    for name in ["ana", "cem"] {
        follower.join_from(name, "lobby", after(1, 0));
        follower.expect(&[&format!("{name} < joined lobby 3/5 closed after 0")]);
    }
    follower.pass_secs(25);
    follower.expect(&[]);
    // Whoever is lost before it is back is missed.
    follower.lose("cem");
    follower.expect(&["ana < gate lobby 2/5 closed", "bob < gate lobby 2/5 closed"]);
}

#[test]
fn gate_that_counts_who_is_about_to_be_back_never_looks_as_if_it_were_to_open() {
    let mut owner = Setup { threshold: 3, ..Setup::default() }.rig();
    owner.join("ana");
    owner.join("bob");
    owner.login("cem");
    let mut follower = follower_of(&owner);
    for name in ["ana", "bob", "cem"] {
        park(&mut follower, name);
    }
    level(&mut follower, &owner);
    lead(&mut follower, 2);
    follower.forget();
    follower.join_from("cem", "lobby", Start::Last(0));
    follower.expect(&["cem < joined lobby 2/3 closed after 0"]);
    follower.join_from("ana", "lobby", after(1, 0));
    follower.expect(&["ana < joined lobby 2/3 closed after 0"]);
    follower.lose("bob");
    follower.expect(&[]);
    follower.login("bob");
    follower.forget();
    follower.join_from("bob", "lobby", after(1, 0));
    let heard = follower.heard("bob");
    assert_eq!(heard[0], "joined lobby 3/3 open after 0 with ana,bob,cem", "{heard:?}");
}

#[test]
fn entries_that_were_not_committed_wait_on_with_the_new_owner() {
    let mut owner = talk();
    let mut follower = follower_of(&owner);
    park_all(&mut follower, &["ana", "bob"], 4);
    owner.persisting = Persisting::Held;
    owner.say("ana", "unsafe");
    follow(&mut follower, &owner);
    follower.input(Input::Lead { generation: generation(2) });
    follower.submit("ana", 2, post("lobby", "unsafe"));
    assert_eq!(follower.heard("ana"), Vec::<String>::new(), "a join waits for what is before it");
    follower.persisting = Persisting::AtOnce;
    assert_eq!(
        follower.heard("ana"),
        [
            "welcome ana last 2 operator",
            "generation 2",
            "joined lobby 2/2 open after 4 with ana,bob",
            "accepted 2 lobby 1:5",
            "lobby 1:5 ana: unsafe",
        ]
    );
    let texts = follower.entries.iter().filter(
        |entry| matches!(&entry.change, Change::Posted { text, .. } if text.as_str() == "unsafe"),
    );
    assert_eq!(texts.count(), 1);
}

#[test]
fn log_ins_that_waited_are_not_held_to_the_rate_of_those_who_return() {
    let mut setup = Setup::limits(|limits| {
        (limits.returns_per_second, limits.returns_burst) = (1, 1);
    });
    setup.threshold = 1;
    let mut owner = setup.rig();
    let names = ["ana", "bob", "cem", "dov"];
    for name in names {
        owner.join(name);
    }
    let mut follower = follower_of(&owner);
    for name in names {
        park(&mut follower, name);
    }
    level(&mut follower, &owner);
    lead(&mut follower, 2);
    for name in names {
        assert!(follower.heard(name)[0].starts_with("welcome"), "{name}");
    }
}

#[test]
fn stranger_who_waited_is_a_user_once_the_follower_leads() {
    let owner = talk();
    let mut follower = follower_of(&owner);
    park(&mut follower, "cem");
    ask_to_join(&mut follower, "cem", "lobby", Start::Last(1));
    lead(&mut follower, 2);
    assert_eq!(
        follower.heard("cem"),
        [
            "welcome cem last 0",
            "generation 2",
            "joined lobby 3/2 open after 4 with ana,bob,cem",
            "lobby 1:5 +cem",
        ]
    );
}

#[test]
fn log_in_that_is_being_checked_when_the_follower_leads_is_decided() {
    let owner = talk();
    let mut follower = follower_of(&owner);
    follower.dial("ana");
    follower.send("ana", hello());
    let login = follower.login_frame("ana", session_of("ana"));
    follower.send("ana", login);
    follower.input(Input::Lead { generation: generation(2) });
    follower.persisting = Persisting::AtOnce;
    let heard = follower.heard("ana");
    assert_eq!(heard, ["hello", "welcome ana last 1 operator", "generation 2"]);
}

#[test]
fn log_in_is_bound_to_the_generation_of_its_hello_though_the_owner_has_another_now() {
    let mut owner = rig();
    owner.dial("ana");
    owner.send("ana", hello());
    owner.input(Input::Generation { generation: generation(2) });
    let login = owner.login_frame("ana", session_of("ana"));
    owner.send("ana", login);
    let ClientFrame::Login(login) = owner.login_frame("ana", session_of("ana")) else {
        panic!("a log-in was made");
    };
    let message = owner.outputs.iter().find_map(|output| match output {
        Output::Verify { message, .. } => Some(message.clone()),
        _ => None,
    });
    let proof = LoginProof {
        nonce: owner.nonce,
        server_key: crate::rig::server_key(),
        log_id: LogId::new([1; 16]),
        generation: generation(1),
        channel: None,
        session: login.session,
        attach: Attach::new(login.attach.get() - 1).unwrap(),
        name: "ana",
    };
    assert_eq!(message, Some(proof.to_bytes()));
    assert_eq!(owner.heard("ana")[2..], ["generation 2", "notice FirstUserIsOperator"]);
}

#[test]
fn owner_tells_everybody_its_new_generation_and_later_hellos_say_it() {
    let mut owner = talk();
    owner.persisting = Persisting::Held;
    owner.login("cem");
    owner.dial("dov");
    owner.send("dov", hello());
    owner.forget();
    owner.input(Input::Generation { generation: generation(2) });
    owner.expect(&["ana < generation 2", "bob < generation 2"]);
    // Cem is told right after its welcome, and dov has not logged in.
    owner.persisting = Persisting::AtOnce;
    owner.expect(&["cem < welcome cem last 0", "cem < generation 2"]);
    owner.dial("eli");
    owner.send("eli", hello());
    owner.drive();
    let ServerFrame::Hello(hello) = &owner.peers["eli"].frames[0] else { panic!("a hello is due") };
    assert_eq!(hello.generation, generation(2));
    let earlier = owner.engine.handle(owner.now, Input::Generation { generation: generation(1) });
    let (found, present) = (generation(1), generation(2));
    assert_eq!(earlier, Err(Misuse::EarlierGeneration { found, present }));
}

#[test]
fn move_is_announced_to_everybody_and_to_who_logs_in_meanwhile_and_taken_back() {
    let mut owner = talk();
    owner.persisting = Persisting::Held;
    owner.login("cem");
    owner.forget();
    let next = Move { target: location(2, 1), within: Span::from_millis(500) };
    owner.input(Input::Prepare(Some(next.clone())));
    let prepare = "prepare in 500 ms, generation 1 at chat://host2:5000";
    owner.expect(&[&format!("ana < {prepare}"), &format!("bob < {prepare}")]);
    owner.persisting = Persisting::AtOnce;
    owner.expect(&["cem < welcome cem last 0", &format!("cem < {prepare}")]);
    assert_eq!(owner.engine.duty(), &Duty::Leading { next: Some(next) });
    owner.input(Input::Prepare(None));
    owner.expect(&["ana < stay", "bob < stay", "cem < stay"]);
    owner.input(Input::Prepare(None));
    owner.login("dov");
    owner.expect(&["dov < hello", "dov < welcome dov last 0"]);
}

#[test]
fn follower_that_hears_of_another_generation_tells_those_who_wait() {
    let owner = talk();
    let mut follower = follower_of(&owner);
    park(&mut follower, "ana");
    follower.input(Input::Located(location(1, 2)));
    assert_eq!(follower.heard("ana"), ["parked, generation 2 at chat://host1:5000"]);
    assert_eq!(park(&mut follower, "bob")[1], "parked, generation 2 at chat://host1:5000");
    let ServerFrame::Hello(hello) = &follower.peers["bob"].frames[0] else {
        panic!("a hello is due");
    };
    assert_eq!(hello.generation, generation(2));
}

const MOVED: &str = "moved, generation 2 at chat://host2:5000";

#[test]
fn retired_engine_tells_everybody_who_serves_and_decides_nothing() {
    let mut owner = talk();
    owner.login("cem");
    owner.dial("greeting");
    owner.dial("greeted");
    owner.send("greeted", hello());
    owner.dial("verifying");
    owner.send("verifying", hello());
    owner.drive();
    let login = owner.login_frame("dov", session_of("dov"));
    owner.send("verifying", login);
    let verified = Input::Verified { conn: owner.peers["verifying"].conn, valid: true };
    assert!(matches!(owner.outputs.pop(), Some(Output::Verify { .. })), "it is being checked");
    owner.persisting = Persisting::Held;
    owner.submit("ana", 2, post("lobby", "never committed"));
    owner.forget();
    let (head, safe) = (owner.engine.head(), owner.safe);
    owner.input(Input::Retire(location(2, 2)));
    let gone = "close E_GONE the server moved or stopped";
    for label in ["ana", "bob", "cem"] {
        assert_eq!(owner.heard(label), [MOVED]);
    }
    for label in ["greeting", "greeted", "verifying"] {
        assert_eq!(owner.heard(label), [MOVED, gone, "closed"], "{label}");
    }
    // Nothing that comes changes anything, and nothing that waited comes.
    owner.input(verified);
    owner.submit("ana", 3, post("lobby", "too late"));
    owner.join_from("bob", "attic", Start::Last(0));
    owner.send("bob", ClientFrame::Ping { token: RequestId::ZERO });
    assert_eq!(owner.heard("bob"), ["pong 0"]);
    let through = head.index;
    owner.input(Input::Persisted { through });
    owner.leave("cem");
    assert_eq!(owner.heard("cem"), ["closed"]);
    owner.dial("late");
    assert_eq!(owner.heard("late"), [MOVED, gone, "closed"]);
    owner.pass(Span::from_millis(1_999));
    owner.expect(&[]);
    owner.pass(Span::from_millis(1));
    owner.expect(&[
        &format!("ana < {gone}"),
        "ana < closed",
        &format!("bob < {gone}"),
        "bob < closed",
    ]);
    owner.pass_secs(60);
    assert_eq!((owner.engine.head(), owner.safe), (head, safe));
    assert_eq!(owner.engine.connection_count(), 0);
    assert_eq!(owner.engine.next_timeout(), None);
}

#[test]
fn retired_engine_answers_no_measure_as_if_it_were_safe_and_forgets_what_is_read() {
    let mut setup = Setup::limits(|limits| limits.window_bytes = 0);
    setup.archive = Archive::Store;
    let mut owner = setup.rig();
    owner.join("ana");
    owner.join("bob");
    owner.held_reads = Some(Vec::new());
    owner.history("bob", "lobby", None, 5);
    owner.persisting = Persisting::Held;
    let (request, user) = (RequestId::ZERO, "bob".parse().unwrap());
    owner.input(Input::Moderate { request, user, measure: Measure::Op });
    owner.forget();
    owner.input(Input::Retire(location(2, 2)));
    owner.expect(&[&format!("ana < {MOVED}"), &format!("bob < {MOVED}")]);
    assert_eq!(owner.moderated, [(request, Some(Refusal::Gone))]);
    stand_by(&mut owner, location(2, 2));
    let mut follower = owner;
    for (token, records) in follower.held_reads.take().unwrap() {
        follower.input(Input::ReadDone { token, records });
        let again = follower.engine.handle(follower.now, Input::ReadFailed { token });
        assert_eq!(again, Err(Misuse::UnknownRead));
    }
    follower.expect(&[]);
}

/// Goes on behind another owner where an engine retired, from what was safe there.
fn stand_by(rig: &mut Rig, owner: Location) {
    stand_by_with(rig, owner, rig.safe);
}

/// As [`stand_by`], with so many entries of the store: what comes after those that are known to be safe may
/// yet be.
fn stand_by_with(rig: &mut Rig, owner: Location, count: usize) {
    rig.drive();
    rig.entries.truncate(count.max(rig.safe));
    rig.persisting = Persisting::Held;
    let entries = rig.entries[..rig.safe].iter().map(|entry| Entry::clone(entry));
    let engine = Engine::replay(entries, rig.setup.config(), rig.now).unwrap();
    let mut engine = engine.following(owner).unwrap();
    for entry in &rig.entries[rig.safe..] {
        engine.handle(rig.now, Input::Entry(Arc::clone(entry))).unwrap();
    }
    let retired = std::mem::replace(&mut rig.engine, engine);
    rig.engine.adopt(retired).unwrap();
    rig.engine.check_invariants();
}

#[test]
fn follower_goes_on_with_the_connections_of_the_engine_that_retired() {
    let mut owner = talk();
    owner.dial("greeting");
    owner.stall("greeting");
    owner.input(Input::Retire(location(2, 2)));
    owner.forget();
    owner.pass_secs(1);
    let closing = owner.peers["greeting"].conn;
    stand_by(&mut owner, location(2, 2));
    let mut follower = owner;
    assert_eq!(follower.engine.connection_count(), 3);
    // It has its own connections from then on; a number is that of one.
    follower.now.moment = follower.now.moment + Span::from_millis(500);
    park(&mut follower, "cem");
    let (conn, nonce, channel, address, waited) =
        (closing, Nonce::new([7; 32]), None, None, Span::ZERO);
    let again = Input::Connected { conn, nonce, channel, address, waited };
    let reused = follower.engine.handle(follower.now, again);
    assert_eq!(reused, Err(Misuse::ConnectionReused(closing)));
    follower.pass(Span::from_millis(499));
    follower.expect(&[]);
    follower.pass(Span::from_millis(1));
    let gone = "close E_GONE the server moved or stopped";
    follower.expect(&[
        &format!("ana < {gone}"),
        "ana < closed",
        &format!("bob < {gone}"),
        "bob < closed",
    ]);
}

#[test]
fn follower_that_begins_anew_keeps_who_waits_and_what_they_sent() {
    let mut owner = talk();
    let mut follower = follower_of(&owner);
    park_all(&mut follower, &["ana"], 4);
    follower.dial("bob");
    follower.send("bob", hello());
    follower.forget();
    owner.persisting = Persisting::Held;
    owner.say("ana", "never committed");
    follow(&mut follower, &owner);
    let (at, safe) = (location(1, 2), follower.safe);
    stand_by(&mut follower, at.clone());
    assert_eq!(follower.engine.head().index, follower.entries[safe - 1].header.index);
    follower.input(Input::Located(at));
    follower.expect(&["ana < parked, generation 2 at chat://host1:5000"]);
    let login = follower.login_frame("bob", session_of("bob"));
    follower.send("bob", login);
    follower.expect(&["bob < parked, generation 2 at chat://host1:5000"]);
    lead(&mut follower, 3);
    assert_eq!(
        follower.heard("ana"),
        [
            "welcome ana last 1 operator",
            "generation 3",
            "joined lobby 2/2 open after 4 with ana,bob",
        ]
    );
    assert_eq!(follower.heard("bob"), ["welcome bob last 1", "generation 3"]);
}

#[test]
fn old_connection_hears_nothing_of_what_is_said_where_the_chat_is_now() {
    let mut owner = talk();
    let mut other = follower_of(&owner);
    owner.input(Input::Retire(location(2, 2)));
    owner.forget();
    stand_by(&mut owner, location(2, 2));
    let mut follower = owner;
    lead(&mut other, 2);
    other.login("bob");
    other.join_from("bob", "lobby", after(1, 4));
    other.say("bob", "here");
    level(&mut follower, &other);
    follower.expect(&[]);
}

#[test]
fn duty_that_an_engine_does_not_have_is_no_input_for_it() {
    let owner = talk();
    let entry = Arc::clone(owner.entries.last().unwrap());
    let now = owner.now;
    let lead = || Input::Lead { generation: generation(3) };
    let bump = || Input::Generation { generation: generation(3) };
    let refused = |engine: &mut Engine, inputs: Vec<Input>| {
        for input in inputs {
            let result = engine.handle(now, input.clone());
            assert_eq!(result, Err(Misuse::WrongDuty), "{input:?}");
            engine.check_invariants();
        }
    };
    let mut following = follower_of(&owner).engine;
    refused(&mut following, vec![bump(), Input::Prepare(None)]);
    let mut leading = owner.engine;
    let located = || Input::Located(location(1, 3));
    refused(&mut leading, vec![Input::Entry(entry.clone()), located(), lead()]);
    leading.handle(now, Input::Retire(location(2, 2))).unwrap();
    let all = vec![Input::Entry(entry), located(), lead(), bump(), Input::Prepare(None)];
    refused(&mut leading, all);
    assert_eq!(leading.following(location(2, 2)).unwrap_err(), Misuse::WrongDuty);
    // One that leads, or that has connections, takes over from nobody.
    let mut follower = follower_of(&talk());
    assert_eq!(talk().engine.adopt(follower.engine), Err(Misuse::WrongDuty));
    follower = follower_of(&talk());
    assert_eq!(follower.engine.adopt(talk().engine), Err(Misuse::WrongDuty));
    follower.dial("ana");
    let other = follower_of(&talk());
    assert_eq!(follower.engine.adopt(other.engine), Err(Misuse::WrongDuty));
}

#[test]
fn follower_that_is_given_up_sends_everybody_on() {
    let owner = talk();
    let mut follower = follower_of(&owner);
    park(&mut follower, "ana");
    follower.input(Input::Retire(location(1, 2)));
    let moved = "moved, generation 2 at chat://host1:5000";
    let gone = "close E_GONE the server moved or stopped";
    assert_eq!(follower.heard("ana"), [moved, gone, "closed"]);
    follower.input(Input::Retire(location(3, 3)));
    follower.dial("bob");
    assert_eq!(follower.heard("bob")[0], "moved, generation 3 at chat://host3:5000");
}

#[test]
fn that_entries_are_safe_and_records_are_read_decides_nothing() {
    let mut owner = talk();
    owner.persisting = Persisting::Held;
    owner.say("ana", "three");
    owner.login("cem");
    owner.join_from("cem", "lobby", Start::Last(0));
    owner.leave("bob");
    let head = owner.engine.head();
    while owner.safe < owner.entries.len() {
        owner.persist_some(1);
        assert_eq!(owner.engine.head(), head);
    }
}

#[test]
fn command_that_was_not_committed_is_taken_by_the_new_owner_once() {
    let mut owner = talk();
    let mut follower = follower_of(&owner);
    park_all(&mut follower, &["ana", "bob"], 4);
    owner.persisting = Persisting::Held;
    // The follower has the first; the second it never had, and what it appends stands in its place.
    owner.submit("ana", 2, post("lobby", "had"));
    follow(&mut follower, &owner);
    owner.submit("ana", 3, post("lobby", "not had"));
    owner.forget();
    owner.input(Input::Retire(location(2, 2)));
    owner.expect(&[&format!("ana < {MOVED}"), &format!("bob < {MOVED}")]);
    lead(&mut follower, 2);
    follower.submit("ana", 2, post("lobby", "had"));
    follower.submit("ana", 3, post("lobby", "not had"));
    follower.submit("ana", 3, post("lobby", "not had"));
    let heard = follower.heard("ana");
    assert_eq!(
        heard[3..],
        [
            "lobby 1:5 ana: had",
            "accepted 2 lobby 1:5",
            "accepted 3 lobby 1:6",
            "lobby 1:6 ana: not had",
            "accepted 3 lobby 1:6",
        ]
    );
    // The old owner follows from what is committed, not from what it had.
    stand_by(&mut owner, location(2, 2));
    level(&mut owner, &follower);
    assert_eq!(owner.engine.state_hash(), follower.engine.state_hash());
}

/// Numbers that a seed stands for (xorshift64*).
struct Draw(u64);

impl Draw {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let number = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32;
        usize::try_from(number).unwrap() % end
    }
}

const USERS: [&str; 4] = ["ana", "bob", "cem", "dov"];

/// What a user's program remembers.
#[derive(Default)]
struct Person {
    /// The host that it talks by, and how many frames of that connection it has read.
    host: usize,
    read: usize,
    /// Texts in the order in which they were posted; the first is the command 1.
    sent: Vec<String>,
    answered: BTreeSet<u64>,
    /// Every record that was shown.
    shown: Vec<String>,
}

impl Person {
    /// Takes in what came: each record next to the one before, or shown already.
    fn read(&mut self, name: &str, rig: &Rig) {
        for frame in &rig.peers[name].frames[self.read..] {
            self.read += 1;
            match frame {
                ServerFrame::Record(record) => {
                    let place = usize::try_from(record.seq.get()).unwrap() - 1;
                    let line = format!("{:?}", record.body);
                    if place < self.shown.len() {
                        assert_eq!(self.shown[place], line, "a record is what it was");
                    } else {
                        assert_eq!(self.shown.len(), place, "{name} misses a record");
                        self.shown.push(line);
                    }
                }
                ServerFrame::Accepted { counter, .. } => {
                    self.answered.insert(counter.get());
                }
                ServerFrame::Hello(_)
                | ServerFrame::Welcome(_)
                | ServerFrame::Generation { .. }
                | ServerFrame::Parked(_)
                | ServerFrame::Moved(_)
                | ServerFrame::Notice(_)
                | ServerFrame::Answer { answer: Answer::Joined(_), .. } => {}
                ServerFrame::Gate { gate, .. } => {
                    assert!(!gate.open || gate.users == 4, "{gate:?}");
                }
                other => panic!("{name} was told {other:?}"),
            }
        }
    }

    fn cursor(&self) -> Start {
        after(1, u64::try_from(self.shown.len()).unwrap())
    }
}

/// Two hosts, one of which follows the other, and people who talk meanwhile.
struct World {
    hosts: [Rig; 2],
    /// Which of them leads, and in which generation.
    leader: usize,
    generation: u64,
    people: Vec<Person>,
    /// How many entries are committed, whoever knows that.
    committed: usize,
    /// The owner's state after each of its entries that was the last of an input.
    hashes: BTreeMap<Index, Digest>,
    draw: Draw,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut owner = Setup { threshold: 4, ..Setup::default() }.rig();
        USERS.iter().for_each(|name| owner.join(name));
        let follower = follower_of(&owner);
        owner.persisting = Persisting::Held;
        let people = USERS.iter().map(|_| Person::default()).collect();
        let (hosts, hashes, draw) = ([owner, follower], BTreeMap::new(), Draw(seed | 1));
        let committed = hosts[0].safe;
        Self { hosts, leader: 0, generation: 1, people, committed, hashes, draw }
    }

    fn follower(&self) -> usize {
        1 - self.leader
    }

    fn note_hash(&mut self) {
        let engine = &self.hosts[self.leader].engine;
        self.hashes.insert(engine.head().index, engine.state_hash());
    }

    fn step(&mut self) {
        let follower = self.follower();
        match self.draw.below(10) {
            0..4 => self.post(),
            4..7 => self.replicate(),
            7 => {
                // What is safe is what both have.
                let both = self.hosts[follower].entries.len();
                let owner = &mut self.hosts[self.leader];
                let count = self.draw.below(both.saturating_sub(owner.safe) + 1);
                owner.persist_some(count);
                owner.drive();
                self.committed = self.committed.max(owner.safe);
            }
            8 => {
                let safe = self.hosts[self.leader].safe;
                let behind = safe.saturating_sub(self.hosts[follower].safe);
                let count = self.draw.below(behind + 1);
                self.hosts[follower].persist_some(count);
                self.hosts[follower].drive();
            }
            _ => self.dial_again(),
        }
        for (person, name) in self.people.iter_mut().zip(USERS) {
            person.read(name, &self.hosts[person.host]);
        }
    }

    fn post(&mut self) {
        let user = self.draw.below(USERS.len());
        let person = &mut self.people[user];
        person.sent.push(format!("{} {}", USERS[user], person.sent.len()));
        self.submit(user, self.people[user].sent.len());
        self.note_hash();
    }

    fn submit(&mut self, user: usize, number: usize) {
        let text = self.people[user].sent[number - 1].clone();
        let host = &mut self.hosts[self.leader];
        host.submit(USERS[user], u64::try_from(number).unwrap(), post("lobby", &text));
    }

    fn replicate(&mut self) {
        let have = self.hosts[self.follower()].entries.len();
        let Some(entry) = self.hosts[self.leader].entries.get(have).cloned() else { return };
        let follower = self.follower();
        self.hosts[follower].follow(&entry);
        if let Some(hash) = self.hashes.get(&entry.header.index) {
            assert_eq!(self.hosts[follower].engine.state_hash(), *hash, "{}", entry.header.index);
        }
    }

    /// Somebody's connection to the owner breaks, and is made again.
    fn dial_again(&mut self) {
        let user = self.draw.below(USERS.len());
        self.people[user].read(USERS[user], &self.hosts[self.leader]);
        self.hosts[self.leader].lose(USERS[user]);
        self.log_in(user, self.leader);
    }

    fn log_in(&mut self, user: usize, host: usize) {
        let other = 1 - host;
        let (cursor, rigs) = (self.people[user].cursor(), &mut self.hosts);
        let attach = rigs[0].attach_at_least(&rigs[1]);
        rigs[host].set_attach(attach);
        rigs[other].set_attach(attach);
        rigs[host].login(USERS[user]);
        rigs[host].join_from(USERS[user], "lobby", cursor);
        (self.people[user].host, self.people[user].read) = (host, 0);
        self.resend(user, host);
    }

    /// Sends what is not answered once more, in order, if that host leads.
    fn resend(&mut self, user: usize, host: usize) {
        if host == self.leader {
            for number in 1..=self.people[user].sent.len() {
                if !self.people[user].answered.contains(&u64::try_from(number).unwrap()) {
                    self.submit(user, number);
                }
            }
            self.note_hash();
        }
    }

    /// The follower takes over; some have dialled it before, at any time.
    fn swap(&mut self) {
        let (old, new) = (self.leader, self.follower());
        let early: Vec<usize> = (0..USERS.len()).filter(|_| self.draw.below(2) == 0).collect();
        for user in &early {
            let (host, read) = (self.people[*user].host, self.people[*user].read);
            self.log_in(*user, new);
            // The old connection is the one that counts for now.
            (self.people[*user].host, self.people[*user].read) = (host, read);
        }
        for _ in 0..self.draw.below(12) {
            self.step_without_dialling();
        }
        self.generation += 1;
        let place = location(u8::try_from(new).unwrap(), self.generation);
        self.hosts[old].input(Input::Retire(place.clone()));
        self.hosts[old].drive();
        self.people.iter_mut().zip(USERS).for_each(|(it, name)| it.read(name, &self.hosts[old]));
        self.hosts[new].input(Input::Lead { generation: generation(self.generation) });
        self.hosts[new].drive();
        self.leader = new;
        self.hashes.clear();
        stand_by_with(&mut self.hosts[old], place, self.committed);
        for user in 0..USERS.len() {
            if early.contains(&user) {
                (self.people[user].host, self.people[user].read) = (new, 0);
                self.resend(user, new);
            } else {
                self.log_in(user, new);
            }
        }
        self.hosts[old].pass_secs(3);
        self.hosts[new].now = self.hosts[old].now;
    }

    fn step_without_dialling(&mut self) {
        match self.draw.below(2) {
            0 => self.post(),
            _ => self.replicate(),
        }
        for (person, name) in self.people.iter_mut().zip(USERS) {
            person.read(name, &self.hosts[person.host]);
        }
    }

    /// All is replicated, committed and read.
    fn settle(&mut self) {
        let (leader, follower) = (self.leader, self.follower());
        while self.hosts[follower].entries.len() < self.hosts[leader].entries.len() {
            self.replicate();
        }
        self.hosts[leader].persist();
        self.hosts[leader].drive();
        self.hosts[follower].persist();
        for (person, name) in self.people.iter_mut().zip(USERS) {
            person.read(name, &self.hosts[leader]);
        }
        let [one, other] = &self.hosts;
        assert_eq!(one.entries, other.entries);
        assert_eq!(one.engine.state_hash(), other.engine.state_hash());
        assert_eq!(one.engine.snapshot(), other.engine.snapshot());
    }

    /// Everybody was shown all of the journal, and everything that was sent is in it once and in order.
    fn check(&self) {
        let entries = &self.hosts[self.leader].entries;
        let records: Vec<_> = entries.iter().filter_map(|entry| entry.record()).collect();
        let lines: Vec<String> =
            records.iter().map(|record| format!("{:?}", record.body)).collect();
        for (person, name) in self.people.iter().zip(USERS) {
            assert_eq!(person.shown, lines, "{name} was shown everything once");
            let posts = records.iter().filter_map(|record| match &record.body {
                RecordBody::Post { from, text } if from.as_ref() == name => Some(text.as_str()),
                _ => None,
            });
            assert_eq!(posts.collect::<Vec<_>>(), person.sent, "what {name} said is said once");
        }
        let comes_or_goes = |entry: &&Arc<Entry>| {
            matches!(entry.change, Change::Joined { .. } | Change::Left { .. })
        };
        assert_eq!(entries.iter().filter(comes_or_goes).count(), USERS.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..Default::default() })]

    /// The seed of a failure is printed.
    #[test]
    fn talk_goes_on_over_moves_and_everything_is_said_once_and_in_order(seed in any::<u64>()) {
        let mut world = World::new(seed);
        for _ in 0..=world.draw.below(3) {
            for _ in 0..world.draw.below(40) {
                world.step();
            }
            world.swap();
        }
        for _ in 0..world.draw.below(40) {
            world.step();
        }
        world.settle();
        world.check();
    }
}
