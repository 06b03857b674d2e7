//! Keys, names, and what is kept between runs.

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;

use chatcore::codec::encode_to_bytes;
use chatcore::id::{Generation, LogId, Nonce, PublicKey, Signature};
use chatcore::wire::{ServerFrame, ServerHello, VERSION};

use crate::support::{Client, World};

#[test]
fn second_client_on_the_same_identity_exits_with_code_4() {
    let world = World::new(1);
    let mut first = world.json("alice");
    first.event("connected");
    let mut second = world.json("alice");
    let error = second.event("error");
    assert_eq!(error["code"], "E_AUTH");
    assert!(error["text"].as_str().unwrap().contains("already in use on this machine"));
    assert_eq!(second.exit().0, 4);
    first.say("still here");
    first.message("still here");
}

#[test]
fn b3_two_users_of_one_name_collide_and_the_second_exits_with_code_4() {
    let world = World::new(1);
    let key = |name: &str| world.path(name).display().to_string();
    let mut first = world.client(&["--json", "--name", "alice", "--identity", &key("one")]);
    first.event("connected");
    let mut second = world.client(&["--json", "--name", "ALICE", "--identity", &key("two")]);
    let error = second.event("error");
    assert_eq!(
        (&error["code"], &error["text"]),
        (&"E_NAME".into(), &"the name is already in use".into())
    );
    assert_eq!(second.exit().0, 4);
}

#[test]
fn g8_reserved_name_is_refused_with_code_4() {
    let world = World::new(1);
    let mut client = world.json("server");
    assert_eq!(client.event("error")["code"], "E_NAME");
    assert_eq!(client.exit().0, 4);
}

#[test]
fn name_refused_on_its_first_use_leaves_no_key_behind() {
    let world = World::new(1);
    let key = |name: &str| world.path(name).display().to_string();
    let mut owner = world.client(&["--json", "--name", "alice", "--identity", &key("owner")]);
    owner.event("connected");
    let folders = || -> usize {
        let files =
            fs::read_dir(world.path("config/chat")).unwrap().map(|file| file.unwrap().path());
        let services = files.filter(|path| path.is_dir());
        services.map(|service| fs::read_dir(service).unwrap().count()).sum()
    };
    assert_eq!(world.json("alice").exit().0, 4);
    assert_eq!(folders(), 0);
    // The user's own file is the user's.
    let mut other = world.client(&["--json", "--name", "alice", "--identity", &key("other")]);
    assert_eq!(other.exit().0, 4);
    assert!(world.path("other").exists());
}

#[test]
fn line_of_an_earlier_run_is_never_taken_for_one_of_this_run() {
    let mut world = World::new(1);
    let mut alice = world.client(&["--json", "--name", "alice", "-v"]);
    alice.event("users");
    world.stop_server();
    alice.event("disconnected");
    for line in ["one", r#"{"type":"post","text":"two","id":"2"}"#] {
        alice.say(line);
        alice.diagnostic("kept through command");
    }
    alice.kill();
    world.start_server();
    let mut again = world.json("alice");
    again.say("three");
    let ids: Vec<_> = (0..3).map(|_| again.event("sent")["id"].clone()).collect();
    assert_eq!(ids, ["earlier-1", "2", "1"]);
}

#[test]
fn key_file_that_others_can_read_is_refused() {
    let world = World::new(1);
    let key = world.path("key");
    fs::write(&key, "").unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let options = ["--json", "--name", "alice", "--identity", key.to_str().unwrap()];
    let mut client = world.client(&options);
    let error = client.event("error");
    assert!(error["text"].as_str().unwrap().contains("chmod 600"), "{error}");
    assert_eq!(client.exit().0, 1);
}

#[test]
fn unsent_lines_survive_kill_9_and_are_posted_once() {
    let mut world = World::new(1);
    let mut alice = world.client(&["--json", "--name", "alice", "-v"]);
    alice.event("users");
    world.stop_server();
    alice.event("disconnected");
    for text in ["one", "two", "three"] {
        alice.say(text);
        alice.diagnostic("kept through command");
    }
    alice.kill();
    world.start_server();
    let mut again = world.json("alice");
    for text in ["one", "two", "three"] {
        again.message(text);
    }
    again.say("last");
    again.end_input();
    assert_eq!(again.exit().0, 0);
    let mut reader = world.client(&["--json", "--name", "bob", "--history", "all"]);
    let texts: Vec<_> = (0..4).map(|_| reader.event("message")["text"].clone()).collect();
    assert_eq!(texts, ["one", "two", "three", "last"]);
}

#[test]
fn restarted_client_goes_on_where_it_was() {
    let world = World::new(1);
    let mut bob = world.json("bob");
    bob.event("users");
    let mut alice = world.json("alice");
    alice.event("users");
    for text in ["one", "two"] {
        bob.say(text);
        alice.message(text);
    }
    alice.end_input();
    assert_eq!(alice.exit().0, 0);
    bob.say("three");
    bob.message("three");
    let mut again = world.json("alice");
    bob.say("four");
    let texts: Vec<_> = (0..2).map(|_| again.event("message")["text"].clone()).collect();
    assert_eq!(texts, ["three", "four"]);
}

#[test]
fn killed_client_shows_at_most_again_what_it_wrote_last() {
    let world = World::new(1);
    let mut bob = world.json("bob");
    bob.event("users");
    for round in 0..5 {
        let mut alice = world.json("alice");
        alice.event("users");
        let texts = ["a", "b", "c"].map(|text| format!("{round}{text}"));
        // One after the other, so that each is written by itself.
        for text in &texts {
            bob.say(text);
            alice.message(text);
        }
        alice.kill();
        let mut again = world.json("alice");
        let end = format!("{round}.");
        again.event("users");
        bob.say(&end);
        let mut shown = Vec::new();
        while shown.last() != Some(&end) {
            shown.push(again.event("message")["text"].as_str().unwrap().to_owned());
        }
        let expected = [vec![end.clone()], vec![texts[2].clone(), end]];
        assert!(expected.contains(&shown), "{shown:?}");
        again.end_input();
        assert_eq!(again.exit().0, 0);
    }
}

#[test]
fn client_killed_again_and_again_misses_nothing() {
    let world = World::new(1);
    let mut bob = world.json("bob");
    bob.event("users");
    let mut seen = Vec::new();
    for round in 0..5 {
        let mut alice = world.json("alice");
        alice.event("users");
        for place in 0..3 {
            let text = format!("{round}.{place}");
            bob.say(&text);
            // What the last run showed and did not yet note may be shown once more.
            seen.push(alice.message(&text)["seq"].as_u64().unwrap());
        }
        alice.kill();
    }
    assert!(seen.is_sorted());
    assert_eq!(seen.len(), 15);
}

#[test]
fn identity_of_an_operator_proves_the_right_to_ask_a_server_while_its_client_uses_it() {
    let world = World::new(1);
    let path = world.path("operator");
    let mut client =
        world.client(&["--json", "--name", "alice", "--identity", path.to_str().unwrap()]);
    client.event("connected");
    let address = world.address().parse().unwrap();
    let key = chat_server::OrderKey::of_identity(&path).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let told = runtime.block_on(async {
        let orders = chat_server::Orders::connect(&address).await.unwrap();
        orders.status(&key).await.unwrap()
    });
    assert_eq!((told.users, told.online), (1, 1));
    client.say("still here");
    client.message("still here");
}

/// Answers one client as a server whose key it does not have would.
fn pretend(listener: &TcpListener) {
    let (mut stream, _) = listener.accept().unwrap();
    let hello = ServerHello {
        version: VERSION,
        features: 0,
        server_key: PublicKey::new([7; 32]),
        log_id: LogId::new([1; 16]),
        generation: Generation::ZERO,
        nonce: Nonce::new([2; 32]),
    };
    let proof = ServerFrame::Proof { signature: Signature::new([3; 64]) };
    let frames = [ServerFrame::Hello(hello), proof].map(|frame| encode_to_bytes(&frame));
    stream.write_all(&frames.concat()).unwrap();
    // Until the client hangs up.
    std::io::copy(&mut stream, &mut std::io::sink()).unwrap();
}

#[test]
fn g2_server_that_only_names_the_key_of_another_is_refused() {
    let world = World::without_server(1);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("chat://{}", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || pretend(&listener));
    let mut ana = Client::start(&world.path(""), &[&address, "--json", "--name", "ana"]);
    let error = ana.event("error");
    assert_eq!(error["code"], "E_AUTH");
    assert!(error["text"].as_str().unwrap().contains("cannot prove"), "{error}");
    assert_eq!(ana.exit().0, 4);
    server.join().unwrap();
    assert!(!world.path("config/chat/known_servers").exists(), "nobody is remembered");
}
