//! What operators do about other users, as all of them see it.

use crate::support::{Client, World};

/// Ana, who is the operator, and Bob.
fn two(world: &World) -> (Client, Client) {
    let mut ana = world.json("ana");
    ana.event("users");
    let mut bob = world.json("bob");
    bob.event("users");
    (ana, bob)
}

/// The reason that a client was told last, and its exit code.
fn end_of(client: &mut Client) -> (String, i32) {
    let reason = client.event("disconnected")["reason"].as_str().unwrap().to_owned();
    (reason, client.exit_code())
}

#[test]
fn who_is_kicked_is_told_so_ends_with_4_and_may_come_back() {
    let world = World::new(1);
    let (mut ana, mut bob) = two(&world);
    ana.say("/kick bob");
    let moderated = ana.event("moderated");
    assert_eq!((&moderated["user"], &moderated["measure"]), (&"bob".into(), &"kick".into()));
    assert_eq!(moderated["id"], "1");
    assert_eq!(ana.event("left")["user"], "bob");
    assert_eq!(end_of(&mut bob), ("you were sent away".to_owned(), 4));
    world.json("bob").event("users");
}

#[test]
fn who_is_banned_is_refused_with_4_until_the_ban_ends() {
    let world = World::new(1);
    let (mut ana, mut bob) = two(&world);
    ana.say("/ban bob");
    ana.event("moderated");
    assert_eq!(end_of(&mut bob), ("you are banned".to_owned(), 4));
    let mut again = world.json("bob");
    let refused = again.event("error");
    assert_eq!((&refused["code"], &refused["text"]), (&"E_PERM".into(), &"you are banned".into()));
    assert_eq!(again.exit_code(), 4);
    ana.say("/unban bob");
    ana.event("moderated");
    world.json("bob").event("users");
}

#[test]
fn name_that_is_released_can_be_taken_with_another_key() {
    let world = World::new(1);
    let (mut ana, mut bob) = two(&world);
    let identity = world.path("another.key");
    let options = ["--json", "--name", "bob", "--identity", identity.to_str().unwrap()];
    let mut early = world.client(&options);
    assert_eq!(early.exit_code(), 4);
    ana.say("/release bob");
    assert_eq!(ana.event("moderated")["measure"], "release");
    assert_eq!(end_of(&mut bob), ("your name was released".to_owned(), 4));
    let mut other = world.client(&options);
    other.event("users");
    other.say("it is me");
    assert_eq!(ana.message("it is me")["from"], "bob");
}

#[test]
fn users_are_made_operators_and_hear_of_it() {
    let world = World::new(1);
    let (mut ana, mut bob) = two(&world);
    bob.say("/kick ana");
    assert_eq!(bob.event("error")["code"], "E_PERM");
    ana.say("/op bob");
    let told = bob.event("notice")["text"].as_str().unwrap().to_owned();
    assert!(told.starts_with("you are an operator now"), "{told}");
    bob.say("/deop ana");
    bob.event("moderated");
    let told = ana.line(|line| line.contains("no operator any more"));
    assert!(told.contains("notice"), "{told}");
    ana.say("/kick bob");
    assert_eq!(ana.event("error")["code"], "E_PERM");
    ana.say("/kick ana");
    bob.say("/kick bob");
    assert_eq!(bob.event("error")["text"], "not on yourself");
}

#[test]
fn measure_is_told_as_a_line_to_people() {
    let world = World::new(1);
    let mut ana = world.client(&["--plain", "--name", "ana"]);
    // Who comes first is the operator.
    ana.line(|line| line.contains("ana has joined"));
    let _bob = world.json("bob");
    ana.line(|line| line.contains("bob has joined"));
    ana.say("/op bob");
    ana.line(|line| line == "* bob is an operator");
    ana.say("/ban bob");
    ana.line(|line| line == "* bob is banned");
    ana.say("/release bob");
    ana.line(|line| line == "* error E_TARGET: the user is banned");
}
