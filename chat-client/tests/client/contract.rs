//! Events, plain lines and exit codes, as the contract has them.

use rustix::process::Signal;

use crate::support::{Client, World, json};
use chat_server::{Bound, Durability, Storage};

#[test]
fn gate_holds_messages_back_and_opens_for_everybody_in_order() {
    let world = World::new(2);
    let mut alice = world.json("alice");
    let gate = alice.event("gate");
    assert_eq!((&gate["users"], &gate["open"]), (&1.into(), &false.into()));
    alice.say("one");
    let sent = alice.event("sent");
    assert_eq!(sent["id"], "1");
    assert!(sent.get("seq").is_none(), "{sent}");
    let mut bob = world.json("bob");
    for client in [&mut alice, &mut bob] {
        assert_eq!(client.event("joined")["user"], "alice");
        assert_eq!(client.message("one")["seq"], 2);
        assert_eq!(client.event("joined")["user"], "bob");
    }
    assert_eq!(alice.event("users")["names"], json(r#"["alice","bob"]"#));
    bob.say("two");
    assert_eq!(bob.event("sent")["seq"], 4);
    assert_eq!(alice.message("two")["from"], "bob");
}

#[test]
fn connected_names_the_host_as_its_listening_line_does_however_it_was_dialled() {
    let world = World::without_server(1);
    let (server, file) = (world.serve(&["chat://127.0.0.1:0", &world.address()]), world.address());
    let [tcp, unix] = server.addresses() else { panic!("two listeners were asked for") };
    let by_name = tcp.to_string().replace("127.0.0.1", "localhost");
    for (dialled, listening) in [(by_name, tcp), (tcp.to_string(), tcp), (file, unix)] {
        let mut ana = Client::start(&world.path(""), &[&dialled, "--json", "--name", "ana"]);
        assert_eq!(ana.event("connected")["server"], listening.to_string(), "{dialled}");
    }
}

#[test]
fn plain_lines_are_as_in_the_contract() {
    let world = World::new(2);
    let mut alice = world.client(&["--name", "alice"]);
    alice.line(|line| line == "* 1 of 2 users connected: messages are held");
    alice.say("hello");
    alice.line(|line| line == "(held) hello");
    let mut bob = world.client(&["--name", "bob", "--plain"]);
    alice.line(|line| line == "* Chat is now active!");
    alice.line(|line| line == "* alice has joined the chat");
    alice.line(|line| line.starts_with('[') && line.ends_with("] alice: hello"));
    alice.line(|line| line == "* bob has joined the chat");
    bob.line(|line| line == "* Chat is now active!");
    bob.line(|line| line == "* alice has joined the chat");
    bob.line(|line| line.ends_with("] alice: hello"));
    let mut late = world.client(&["--name", "carol", "--plain"]);
    late.line(|line| {
        assert_ne!(line, "* Chat is now active!", "it has been for long");
        line == "* carol has joined the chat"
    });
    bob.end_input();
    alice.line(|line| line == "* bob has left the chat");
    assert_eq!(bob.exit().0, 0);
}

#[test]
fn h1_controls_of_others_are_shown_as_signs_in_plain_mode() {
    let world = World::new(1);
    let mut reader = world.client(&["--name", "reader"]);
    reader.line(|line| line.starts_with("* 1 user connected"));
    let mut bob = world.json("bob");
    bob.say(r#"{"type":"post","text":"\u001b[2J\u202e!\n[12:00] alice: fake","id":"x"}"#);
    bob.event("sent");
    reader.line(|line| line.ends_with("] bob: ␛[2J<U+202E>!"));
    assert_eq!(reader.line(|_| true), "        [12:00] alice: fake");
}

#[test]
fn end_of_input_waits_for_acknowledgement() {
    let mut world = World::without_server(1);
    let mut alice = world.client(&["--json", "--name", "alice"]);
    alice.say("one");
    alice.say("two");
    alice.end_input();
    alice.event("disconnected");
    world.start_server();
    let (code, lines) = alice.exit();
    assert_eq!(code, 0);
    let sent = lines.iter().filter(|line| json(line)["type"] == "sent");
    assert_eq!(sent.map(|line| json(line)["id"].clone()).collect::<Vec<_>>(), ["1", "2"]);
}

#[test]
fn piped_line_is_shown_to_its_sender_before_the_end() {
    let world = World::new(1);
    for round in 0..10 {
        let mut alice = world.json("alice");
        let text = format!("hi {round}");
        alice.say(&text);
        alice.end_input();
        let (code, lines) = alice.exit();
        assert_eq!(code, 0);
        let events: Vec<_> = lines.iter().map(|line| json(line)).collect();
        assert_eq!(events.iter().filter(|event| event["type"] == "sent").count(), 1);
        let shown = |event: &serde_json::Value| event["type"] == "message" && event["text"] == text;
        assert!(events.iter().any(shown), "{lines:#?}");
    }
}

#[test]
fn piped_line_that_the_gate_holds_is_not_waited_for() {
    let world = World::new(2);
    let mut alice = world.json("alice");
    alice.say("hi");
    alice.end_input();
    let (code, lines) = alice.exit();
    assert_eq!(code, 0);
    assert!(lines.iter().any(|line| json(line)["type"] == "sent"));
    assert!(lines.iter().all(|line| json(line)["type"] != "message"));
}

#[test]
fn end_of_input_without_a_server_or_a_limit_is_said_once() {
    let mut world = World::without_server(1);
    let mut alice = world.client(&["--json", "--name", "alice"]);
    alice.say("one");
    alice.end_input();
    alice.diagnostic("--timeout SPAN");
    alice.event("disconnected");
    alice.event("disconnected");
    world.start_server();
    assert_eq!(alice.exit().0, 0);
    assert_eq!(alice.diagnostics(), Vec::<String>::new());
}

#[test]
fn end_of_input_without_acknowledgement_in_time_has_code_5() {
    let world = World::without_server(1);
    let mut alice = world.client(&["--json", "--name", "alice", "--timeout", "50ms"]);
    alice.say("one");
    alice.end_input();
    assert_eq!(alice.exit().0, 5);
    alice.diagnostic("1 not acknowledged in time");
}

#[test]
fn no_connection_in_time_has_code_3() {
    let world = World::without_server(1);
    let mut alice = world.client(&["--json", "--name", "alice", "--timeout", "50ms"]);
    assert_eq!(alice.exit().0, 3);
    alice.diagnostic("the server did not answer in time");
}

#[test]
fn lost_connection_without_reconnecting_has_code_3() {
    let mut world = World::new(1);
    let mut alice = world.client(&["--json", "--name", "alice", "--no-reconnect"]);
    alice.event("connected");
    world.stop_server();
    let (code, lines) = alice.exit();
    assert_eq!(code, 3);
    let lost = lines.iter().map(|line| json(line)).find(|line| line["type"] == "disconnected");
    assert!(lost.unwrap().get("retry_ms").is_none());
}

#[test]
fn client_reconnects_by_itself() {
    let mut world = World::new(1);
    let mut alice = world.json("alice");
    assert_eq!(alice.event("connected")["resumed"], false);
    world.stop_server();
    assert!(alice.event("disconnected")["retry_ms"].is_u64());
    alice.say("meanwhile");
    world.start_server();
    // The journal of a server that keeps nothing is another one.
    assert_eq!(alice.event("connected")["resumed"], false);
    assert_eq!(alice.message("meanwhile")["incarnation"], 1);
}

#[test]
fn sigint_has_code_130_and_sigterm_ends_in_order() {
    let world = World::new(1);
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 0)] {
        let mut alice = world.json("alice");
        alice.event("users");
        alice.signal(signal);
        assert_eq!(alice.exit().0, code);
    }
}

#[test]
fn usage_errors_have_code_2_and_leave_stdout_alone() {
    let folder = tempfile::tempdir().unwrap();
    for (options, hint) in [
        (&["wss://example.org", "--name", "a"] as &[&str], "not in this version yet"),
        (&["--plain"], "--name"),
        (&["--name", "a", "--room", "a b"], "spaces"),
        (&["--name", "a", "--timeout", "30"], "unit"),
    ] {
        let mut client = Client::start(folder.path(), options);
        client.diagnostic(hint);
        assert_eq!(client.exit(), (2, Vec::new()), "{options:?}");
    }
}

#[test]
fn reader_that_has_gone_ends_the_client_with_code_1() {
    let world = World::new(1);
    let mut alice = world.json("alice");
    alice.event("users");
    alice.close_stdout();
    let mut bob = world.json("bob");
    bob.event("users");
    // The first line finds the reading thread, which ends; a later one finds nobody.
    for count in 0.. {
        bob.say("hello");
        bob.event("sent");
        if alice.has_ended() {
            break;
        }
        assert!(count < 10_000, "the client does not notice");
    }
    assert_eq!(alice.exit_code(), 1);
}

#[test]
fn line_right_after_a_reset_of_ones_own_is_posted_in_the_new_life() {
    let world = World::new(1);
    let mut alice = world.json("alice");
    alice.event("connected");
    alice.say("before");
    alice.message("before");
    for round in 2..=6 {
        let text = format!("after {round}");
        alice.write(format!("$reset -1\n{text}\n").as_bytes());
        assert_eq!(alice.message(&text)["incarnation"], round);
    }
}

#[test]
fn reset_that_comes_too_often_is_refused_at_once_and_never_comes_late() {
    let world = World::new(1);
    let mut alice = world.json("alice");
    alice.event("connected");
    for _ in 0..11 {
        alice.say("$reset -1");
    }
    let refused = alice.event("error");
    assert_eq!(refused["code"], "E_RATE");
    assert_eq!(refused["id"], "11");
    alice.say("goes on");
    assert_eq!(alice.message("goes on")["incarnation"], 11);
    alice.end_input();
    assert_eq!(alice.exit_code(), 0);
}

#[test]
fn script_that_asks_more_than_a_server_answers_at_once_gets_every_answer() {
    let world = World::new(1);
    let mut alice = world.json("alice");
    alice.write("/rooms\n".repeat(150).as_bytes());
    alice.end_input();
    let (code, lines) = alice.exit();
    let kinds: Vec<_> = lines.iter().map(|line| json(line)["type"].clone()).collect();
    assert_eq!(kinds.iter().filter(|kind| *kind == "rooms").count(), 150, "{lines:#?}");
    assert!(!kinds.contains(&"error".into()), "{lines:#?}");
    assert_eq!(code, 0);
}

/// What a client shows of a room up to its own joining.
fn shown_at_first(client: &mut Client, name: &str) -> Vec<serde_json::Value> {
    let mut shown = Vec::new();
    client.line(|line| {
        let event = json(line);
        let is_own = event["type"] == "joined" && event["user"] == name;
        if ["gap", "message", "joined", "left"].iter().any(|kind| event["type"] == *kind) {
            shown.push(event);
        }
        is_own
    });
    shown
}

#[test]
fn gap_is_shown_of_what_retention_deleted_and_never_of_what_was_not_asked() {
    let world = World::without_server(1);
    let storage = Storage::Folder { path: world.path("data"), durability: Durability::Commit };
    let serve = |keep: Option<Bound>| {
        world.serve_as(&[&world.address()], |config| {
            config.storage = storage.clone();
            config.keep = keep.into_iter().collect();
        })
    };
    let server = serve(None);
    let mut alice = world.json("alice");
    (1..=60).for_each(|number| alice.say(&format!("post {number}")));
    alice.message("post 60");
    world.stop(server);
    alice.event("disconnected");
    let _server = serve(Some(Bound::Records(20)));
    assert_eq!(alice.event("connected")["resumed"], true);

    // Until it is forgotten.
    let (mut number, mut shown) = (0, Vec::new());
    while shown.first().is_none_or(|event: &serde_json::Value| event["type"] != "gap") {
        number += 1;
        let name = format!("reader{number}");
        let mut reader = world.client(&["--json", "--name", &name, "--since", "1"]);
        shown = shown_at_first(&mut reader, &name);
        assert!(number < 1_000, "{shown:?}");
    }
    let (gap, records) = shown.split_first().unwrap();
    assert_eq!((&gap["room"], &gap["incarnation"]), (&"lobby".into(), &1.into()));
    assert_eq!(gap["from"], 1);
    let seqs = |records: &[serde_json::Value]| -> Vec<u64> {
        records.iter().map(|record| record["seq"].as_u64().unwrap()).collect()
    };
    let first = gap["to"].as_u64().unwrap() + 1;
    assert!(seqs(records).iter().copied().eq((first..).take(records.len())), "{shown:#?}");

    // Who asks for the newest is told of none, nor is who has seen it.
    let mut late = world.json("late");
    let shown = shown_at_first(&mut late, "late");
    assert!(shown.iter().all(|event| event["type"] != "gap"), "{shown:#?}");
    alice.say("the end");
    alice.line(|line| {
        let event = json(line);
        assert_ne!(event["type"], "gap");
        event["type"] == "message" && event["text"] == "the end"
    });
}
