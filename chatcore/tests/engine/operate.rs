//! Orders: who may give them, and what is told to whom.

use chatcore::engine::{Engine, Input};
use chatcore::id::*;
use chatcore::log::{Founding, OperatorRule};
use chatcore::text::Untrusted;
use chatcore::time::{Moment, Now, Timestamp};
use chatcore::wire::*;
use ed25519_dalek::{Signer as _, SigningKey};

use crate::rig::{HOST, Persisting, Rig, Setup, address_of, hello, moderate, post, session_of};

/// The keys of the server, of its operator and of somebody who is a user at most.
const SERVER: u8 = 1;
const OPERATOR: u8 = 2;
const STRANGER: u8 = 3;

const STATUS: &str = "status 1 connections, 0/0 users, 0/0 rooms, entries 1/1";

fn key(which: u8) -> SigningKey {
    SigningKey::from_bytes(&[which; 32])
}

fn public(which: u8) -> PublicKey {
    PublicKey::new(key(which).verifying_key().to_bytes())
}

/// A server whose key can sign, and whose operator has a key.
fn rig() -> Rig {
    let now = Now {
        moment: Moment::from_millis(1_000_000),
        wall: Timestamp::new(1_700_000_000_000).unwrap(),
    };
    let setup = Setup::default();
    let founding = Founding {
        log_id: LogId::new([1; 16]),
        server_key: public(SERVER),
        threshold: Threshold::new(setup.threshold).unwrap(),
        operators: vec![OperatorRule::Key(public(OPERATOR))],
    };
    let engine = Engine::found(founding, setup.config(), now).unwrap();
    let mut rig = Rig::around(setup, engine, now);
    rig.drive();
    rig
}

/// An order that a key signs for the connection of `label`.
fn status_order(rig: &Rig, label: &str, which: u8) -> ClientFrame {
    let told = rig.peers[label].frames.iter().find_map(|frame| match frame {
        ServerFrame::Hello(hello) => Some(hello.clone()),
        _ => None,
    });
    let ServerHello { nonce, server_key, log_id, generation, .. } = told.unwrap();
    let (order, channel) = (Order::Status, None);
    let proof = OperateProof { nonce, server_key, log_id, generation, channel, order };
    let signature = Signature::new(key(which).sign(&proof.to_bytes()).to_bytes());
    ClientFrame::Operate(Operate { key: public(which), order, signature })
}

fn greet(rig: &mut Rig, label: &str) {
    rig.dial(label);
    rig.send(label, hello());
    rig.drive();
}

/// Asks by a connection of its own for what the server is doing.
fn ask(rig: &mut Rig, label: &str, which: u8) {
    greet(rig, label);
    let order = status_order(rig, label, which);
    rig.send(label, order);
    rig.drive();
}

/// Logs in with a key that can sign.
fn log_in(rig: &mut Rig, name: &str, which: u8) {
    rig.dial(name);
    rig.send(name, hello());
    let login = Login {
        name: Untrusted::new(name),
        key: public(which),
        session: session_of(name),
        attach: Attach::ZERO,
        signature: Signature::new([1; 64]),
    };
    rig.send(name, ClientFrame::Login(login));
    rig.drive();
}

fn told(rig: &Rig, label: &str) -> Status {
    let mut frames = rig.peers[label].frames.iter();
    let status = frames.find_map(|frame| match frame {
        ServerFrame::Status(status) => Some(status.clone()),
        _ => None,
    });
    status.unwrap()
}

#[test]
fn status_is_told_to_the_key_of_the_server_which_needs_no_user() {
    let mut rig = rig();
    ask(&mut rig, "host", SERVER);
    rig.expect(&["host < hello", &format!("host < {STATUS}"), "host < closed"]);
    let Status { address, host, .. } = told(&rig, "host");
    assert_eq!((address, host), (Some(address_of("host")), HOST));
}

#[test]
fn status_is_told_to_the_key_of_an_operator_and_of_no_other_user() {
    let mut rig = rig();
    // The key may become an operator's; until it has a name it is nobody's.
    ask(&mut rig, "early", OPERATOR);
    rig.expect(&["early < hello", "early < close E_PERM operators only", "early < closed"]);
    log_in(&mut rig, "ana", OPERATOR);
    log_in(&mut rig, "bob", STRANGER);
    rig.forget();
    ask(&mut rig, "operator", OPERATOR);
    ask(&mut rig, "user", STRANGER);
    rig.expect(&[
        "operator < hello",
        "operator < status 3 connections, 2/2 users, 0/0 rooms, entries 6/6",
        "operator < closed",
        "user < hello",
        "user < close E_PERM operators only",
        "user < closed",
    ]);
}

#[test]
fn status_is_refused_to_whoever_signed_something_else() {
    let mut rig = rig();
    greet(&mut rig, "thief");
    let order = status_order(&rig, "thief", STRANGER);
    let ClientFrame::Operate(operate) = order else { panic!("{order:?}") };
    rig.send("thief", ClientFrame::Operate(Operate { key: public(SERVER), ..operate }));
    let refused = ["thief < close E_AUTH the signature is wrong", "thief < closed"];
    rig.expect(&[&["thief < hello"], &refused[..]].concat());
}

#[test]
fn order_cannot_be_replayed_on_another_connection() {
    let mut rig = rig();
    greet(&mut rig, "host");
    let order = status_order(&rig, "host", SERVER);
    rig.send("host", order.clone());
    rig.drive();
    assert_eq!(told(&rig, "host").connections, 1);
    rig.forget();
    rig.nonce = Nonce::new([8; 32]);
    greet(&mut rig, "thief");
    rig.send("thief", order);
    let refused = ["thief < close E_AUTH the signature is wrong", "thief < closed"];
    rig.expect(&[&["thief < hello"], &refused[..]].concat());
}

#[test]
fn order_before_hello_or_after_log_in_is_out_of_order() {
    let mut rig = rig();
    greet(&mut rig, "other");
    let order = status_order(&rig, "other", SERVER);
    rig.dial("eve");
    for _ in 0..3 {
        rig.send("eve", order.clone());
    }
    rig.lose("other");
    rig.expect(&[
        "eve < rejected E_STATE log in first",
        "eve < rejected E_STATE log in first",
        "eve < close E_STATE log in first",
        "eve < closed",
        "other < hello",
    ]);
    log_in(&mut rig, "ana", OPERATOR);
    rig.forget();
    rig.send("ana", order);
    rig.expect(&["ana < rejected E_STATE already logged in"]);
}

#[test]
fn order_counts_for_no_gate_and_leaves_nothing_in_the_journal() {
    let mut rig = rig();
    log_in(&mut rig, "ana", OPERATOR);
    rig.join_from("ana", "lobby", Start::Last(0));
    rig.forget();
    let (entries, hash) = (rig.entries.len(), rig.engine.state_hash());
    // The same user, too, would count once and no more.
    ask(&mut rig, "as user", OPERATOR);
    ask(&mut rig, "as host", SERVER);
    assert_eq!((rig.entries.len(), rig.engine.state_hash()), (entries, hash));
    assert!(rig.heard("ana").is_empty(), "nobody hears of it");
    let Status { online, users, rooms, open, .. } = told(&rig, "as host");
    assert_eq!((online, users, rooms, open), (1, 1, 1, 0));
    rig.login("bob");
    rig.join_from("bob", "lobby", Start::Last(0));
    ask(&mut rig, "later", SERVER);
    assert_eq!((told(&rig, "later").open, told(&rig, "later").online), (1, 2));
}

#[test]
fn status_tells_what_is_safe_and_how_far_the_journal_is_ahead() {
    let mut rig = rig();
    log_in(&mut rig, "ana", OPERATOR);
    rig.join_from("ana", "lobby", Start::Last(0));
    let before = rig.entries.len();
    rig.persisting = Persisting::Held;
    rig.submit("ana", 1, post("lobby", "x"));
    rig.login("bob");
    rig.input(Input::StoreFull);
    ask(&mut rig, "host", SERVER);
    let status = told(&rig, "host");
    let index = |entries: usize| Index::new(u64::try_from(entries).unwrap()).unwrap();
    assert_eq!((status.safe, status.newest), (index(before), index(before + 3)));
    assert_eq!((status.users, status.online, status.store_full), (1, 2, true));
    rig.persist();
    rig.input(Input::StoreFree);
    let memory = status.memory;
    ask(&mut rig, "again", SERVER);
    let status = told(&rig, "again");
    assert_eq!((status.safe, status.newest), (index(before + 3), index(before + 3)));
    assert_eq!((status.users, status.store_full), (2, false));
    assert!(status.memory > memory, "the post is in memory now");
}

#[test]
fn status_whose_host_is_slow_waits_like_a_log_in() {
    let mut rig = rig();
    rig.held_reports = Some(Vec::new());
    ask(&mut rig, "host", SERVER);
    ask(&mut rig, "gone", SERVER);
    let token = RequestId::ZERO;
    rig.send("host", ClientFrame::Ping { token });
    rig.send("host", ClientFrame::Leave);
    rig.lose("gone");
    rig.expect(&[
        "gone < hello",
        "host < hello",
        "host < pong 0",
        "host < rejected E_STATE log in first",
    ]);
    let login_time = rig.setup.limits.login_time;
    rig.pass(login_time);
    rig.expect(&["host < close E_LIMIT the log-in took too long", "host < closed"]);
    // Both were given up, and one never was.
    for conn in rig.held_reports.take().unwrap().into_iter().chain([ConnId::new(99)]) {
        rig.input(Input::Reported { conn, host: HOST });
    }
    rig.expect(&[]);
    assert_eq!(rig.engine.connection_count(), 0);
}

#[test]
fn server_that_stops_tells_no_status() {
    let mut rig = rig();
    rig.held_reports = Some(Vec::new());
    ask(&mut rig, "host", SERVER);
    rig.input(Input::Stop);
    rig.expect(&[
        "host < hello",
        "host < close E_GONE the server moved or stopped",
        "host < closed",
    ]);
}

#[test]
fn right_that_is_not_safe_yet_counts_for_nothing_and_one_that_is_lost_counts_until_that_is_safe() {
    let mut rig = rig();
    log_in(&mut rig, "ana", OPERATOR);
    log_in(&mut rig, "bob", STRANGER);
    rig.forget();
    rig.persisting = Persisting::Held;
    rig.command("ana", moderate("bob", Measure::Op));
    ask(&mut rig, "early", STRANGER);
    rig.expect(&["early < hello", "early < close E_PERM operators only", "early < closed"]);
    rig.persist();
    rig.command("ana", moderate("bob", Measure::Deop));
    rig.forget();
    ask(&mut rig, "late", STRANGER);
    assert!(rig.heard("late").iter().any(|line| line.starts_with("status")));
    rig.persist();
    rig.forget();
    ask(&mut rig, "later", STRANGER);
    rig.expect(&["later < hello", "later < close E_PERM operators only", "later < closed"]);
}

#[test]
fn right_that_comes_with_a_new_name_counts_once_it_is_safe() {
    let mut rig = rig();
    rig.persisting = Persisting::Held;
    log_in(&mut rig, "ana", OPERATOR);
    rig.forget();
    ask(&mut rig, "early", OPERATOR);
    rig.expect(&["early < hello", "early < close E_PERM operators only", "early < closed"]);
    rig.persist();
    rig.forget();
    ask(&mut rig, "later", OPERATOR);
    assert!(rig.heard("later").iter().any(|line| line.starts_with("status")));
}
