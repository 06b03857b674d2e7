//! Lines that are typed or piped in.

use crate::support::{World, json};

#[test]
fn unknown_command_is_an_error_that_names_the_nearest_and_is_never_posted() {
    let world = World::new(1);
    let mut alice = world.json("alice");
    alice.event("users");
    alice.say("/jion dev");
    let error = alice.event("error");
    assert_eq!((&error["code"], &error["id"]), (&"E_COMMAND".into(), &"1".into()));
    assert!(error["text"].as_str().unwrap().contains("/join"), "{error}");
    alice.say("//jion dev");
    assert_eq!(alice.event("message")["text"], "/jion dev");
}

#[test]
fn json_requests_repeat_their_labels() {
    let world = World::new(1);
    let mut alice = world.json("alice");
    alice.event("users");
    alice.say(r#"{"type":"post","room":"lobby","text":"a\nb","id":"any"}"#);
    assert_eq!(alice.event("sent")["id"], "any");
    alice.say(r#"{"type":"post","room":"elsewhere","text":"a","id":"not there"}"#);
    let error = alice.event("error");
    assert_eq!((&error["code"], &error["id"]), (&"E_TARGET".into(), &"not there".into()));
    alice.say("{oops");
    let error = alice.event("error");
    assert_eq!((&error["code"], &error["id"]), (&"E_COMMAND".into(), &"3".into()));
    alice.say("$private bob hi");
    alice.say(r#"{"type":"private","to":"bob","text":"hi","id":"p"}"#);
    for id in ["4", "p"] {
        let error = alice.event("error");
        assert_eq!((&error["code"], &error["id"]), (&"E_STATE".into(), &id.into()));
    }
    alice.say("end");
    alice.message("end");
}

#[test]
fn line_too_long_is_an_error_and_the_next_one_is_posted() {
    let world = World::new(1);
    let mut alice = world.json("alice");
    alice.event("users");
    for (bytes, id) in [(8_193, "1"), (1 << 20, "2")] {
        alice.say(&"x".repeat(bytes));
        let error = alice.event("error");
        assert_eq!((&error["code"], &error["id"]), (&"E_LIMIT".into(), &id.into()));
    }
    let longest = "y".repeat(8_192);
    alice.say(&longest);
    assert_eq!(alice.event("message")["text"], longest);
}

#[test]
fn a14_invalid_utf_8_is_an_error_and_the_next_line_is_posted() {
    let world = World::new(1);
    let mut alice = world.json("alice");
    alice.event("users");
    alice.write(b"caf\xe9\nnext\n");
    assert_eq!(alice.event("error")["code"], "E_COMMAND");
    assert_eq!(alice.event("message")["text"], "next");
}

#[test]
fn reset_closes_the_gate_and_begins_a_new_life() {
    let world = World::new(1);
    let mut alice = world.json("alice");
    alice.event("users");
    alice.say("$reset");
    assert_eq!(alice.event("error")["code"], "E_COMMAND");
    alice.say("$reset -2");
    let reset = alice.event("reset");
    assert_eq!((&reset["incarnation"], &reset["threshold"]), (&2.into(), &2.into()));
    alice.say("$reset -2");
    let sent = alice.line(|line| json(line)["type"] == "sent" && json(line)["id"] == "3");
    assert_eq!(json(&sent)["incarnation"], 3);
    alice.say("/who");
    let error = alice.event("error");
    assert_eq!((&error["code"], &error["have"]), (&"E_GATE".into(), &1.into()));
}

#[test]
fn error_about_a_line_has_its_id() {
    let world = World::new(2);
    let mut alice = world.json("alice");
    alice.event("gate");
    for (id, line, code) in [
        ("1", "/who", "E_GATE"),
        ("2", "/history", "E_GATE"),
        ("3", "/whois bob", "E_GATE"),
        ("4", "/part dev", "E_TARGET"),
        ("5", "/join a:b", "E_NAME"),
        ("6", "$reset -0", "E_COMMAND"),
    ] {
        alice.say(line);
        let error = alice.event("error");
        assert_eq!((&error["code"], &error["id"]), (&code.into(), &id.into()), "{line}");
    }
    // Errors of commands have theirs and are not taken for questions.
    alice.say(r#"{"type":"post","room":"dev","text":"a","id":"mine"}"#);
    assert_eq!(alice.event("error")["id"], "mine");
    alice.end_input();
    assert_eq!(alice.exit().0, 0);
}

#[test]
fn questions_are_answered_in_the_current_room() {
    let world = World::new(1);
    let mut alice = world.json("alice");
    alice.event("users");
    alice.say("/join dev");
    assert_eq!(alice.event("users")["room"], "dev");
    alice.say("here");
    assert_eq!(alice.message("here")["room"], "dev");
    alice.say("/join lobby");
    assert_eq!(alice.event("notice")["text"], "you are in lobby already: lines go there now");
    alice.say("there");
    assert_eq!(alice.message("there")["room"], "lobby");
    alice.say("/join dev");
    alice.say("/history 1");
    assert_eq!(alice.event("history")["records"][0]["text"], "here");
    alice.say("/whois alice");
    assert_eq!(alice.event("user")["operator"], true);
    alice.say("/rooms");
    assert_eq!(alice.event("rooms")["count"], 2);
    alice.say("/part");
    assert_eq!(alice.event("parted")["room"], "dev");
    alice.say("back");
    assert_eq!(alice.message("back")["room"], "lobby");
    alice.say("$exit");
    assert_eq!(alice.exit().0, 0);
}

#[test]
fn lines_typed_before_the_first_log_in_take_effect_in_order() {
    let mut world = World::without_server(1);
    let mut alice = world.json("alice");
    for line in ["one", "/history", "/part", "/join dev", "two", "/who"] {
        alice.say(line);
    }
    alice.end_input();
    alice.event("disconnected");
    world.start_server();
    let (code, lines) = alice.exit();
    assert_eq!(code, 0);
    let events: Vec<_> = lines.iter().map(|line| json(line)).collect();
    let of_type = |kind: &str| -> Vec<_> {
        events.iter().filter(|event| event["type"] == kind).cloned().collect()
    };
    assert_eq!(of_type("error"), Vec::<serde_json::Value>::new());
    let rooms: Vec<_> = of_type("sent").iter().map(|sent| sent["room"].clone()).collect();
    assert_eq!(rooms, ["lobby", "dev"]);
    assert_eq!(of_type("history")[0]["records"][1]["text"], "one");
    assert_eq!(of_type("parted").len(), 1);
}

#[test]
fn ten_thousand_piped_lines_arrive_in_order() {
    let world = World::new(1);
    let mut reader = world.json("reader");
    reader.event("users");
    let mut alice = world.json("alice");
    let lines: Vec<String> = (0..10_000).map(|number| format!("line {number}\n")).collect();
    let mut stdin = alice.take_stdin();
    let writer = std::thread::spawn(move || {
        std::io::Write::write_all(&mut stdin, lines.concat().as_bytes()).unwrap();
    });
    for number in 0..10_000 {
        assert_eq!(reader.event("message")["text"], format!("line {number}"));
    }
    writer.join().unwrap();
    assert_eq!(alice.exit().0, 0);
}
