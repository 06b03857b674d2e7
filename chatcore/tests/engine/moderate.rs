//! Measures: who may take which on whom, what they do, and when that is told.

use chatcore::engine::{Engine, Input};
use chatcore::id::*;
use chatcore::log::{Change, Entry, Moderator, OperatorRule};
use chatcore::wire::*;

use crate::rig::{Persisting, Rig, Setup, hello, key_of, moderate, rig};

const KICKED: &str = "close E_PERM you were sent away";
const BANNED: &str = "close E_PERM you are banned";
const RELEASED: &str = "close E_PERM your name was released";

/// Ana, who is the operator, Bob and Cem in the lobby, whose gate is open.
fn three() -> Rig {
    let mut rig = rig();
    for name in ["ana", "bob", "cem"] {
        rig.join(name);
    }
    rig.forget();
    rig
}

/// Those who run the server take a measure; what they are answered.
#[track_caller]
fn as_server(rig: &mut Rig, user: &str, measure: Measure) -> Option<Refusal> {
    let request = RequestId::new(77).unwrap();
    rig.input(Input::Moderate { request, user: user.parse().unwrap(), measure });
    rig.drive();
    let (answered, refusal) = rig.moderated.pop().unwrap();
    assert_eq!((answered, rig.moderated.len()), (request, 0));
    refusal
}

/// Somebody with a key of their own asks for a name.
fn log_in_with(rig: &mut Rig, label: &str, name: &str, key: &str) {
    rig.dial(label);
    rig.send(label, hello());
    let session = rig.peers[label].session;
    let ClientFrame::Login(mut login) = rig.login_frame(name, session) else { panic!() };
    login.key = key_of(key);
    rig.send(label, ClientFrame::Login(login));
    rig.drive();
}

fn opened(rig: &Rig, label: &str) -> chatcore::time::Timestamp {
    let welcome = rig.peers[label].frames.iter().find_map(|frame| match frame {
        ServerFrame::Welcome(welcome) => Some(welcome.opened),
        _ => None,
    });
    welcome.unwrap()
}

#[test]
fn who_is_kicked_leaves_every_room_at_once_and_may_come_back() {
    let mut rig = three();
    rig.login_as("bob's other", "bob");
    rig.forget();
    rig.command("ana", moderate("bob", Measure::Kick));
    rig.expect(&[
        "ana < applied 1",
        "ana < gate lobby 2/2 open",
        "ana < lobby 1:4 -bob",
        &format!("bob < {KICKED}"),
        "bob < closed",
        &format!("bob's other < {KICKED}"),
        "bob's other < closed",
        "cem < gate lobby 2/2 open",
        "cem < lobby 1:4 -bob",
    ]);
    rig.join("bob");
    assert!(rig.heard("bob").contains(&"welcome bob last 0".to_owned()));
}

#[test]
fn who_is_away_is_kicked_out_of_the_rooms_that_they_are_expected_back_in() {
    let mut rig = three();
    rig.lose("bob");
    rig.forget();
    rig.command("ana", moderate("bob", Measure::Kick));
    rig.expect(&[
        "ana < applied 1",
        "ana < gate lobby 2/2 open",
        "ana < lobby 1:4 -bob",
        "cem < gate lobby 2/2 open",
        "cem < lobby 1:4 -bob",
    ]);
    rig.pass_secs(60);
    assert!(!rig.heard("ana").iter().any(|line| line.contains("-bob")), "nobody leaves twice");
}

#[test]
fn who_is_banned_is_refused_by_name_and_by_key_until_the_ban_ends() {
    let mut rig = three();
    rig.command("ana", moderate("bob", Measure::Ban));
    rig.forget();
    rig.login("bob");
    rig.expect(&["bob < hello", &format!("bob < {BANNED}"), "bob < closed"]);
    log_in_with(&mut rig, "masked", "robert", "bob");
    rig.expect(&["masked < hello", &format!("masked < {BANNED}"), "masked < closed"]);
    log_in_with(&mut rig, "thief", "bob", "eve");
    let taken = "thief < close E_NAME the name is already in use";
    rig.expect(&["thief < hello", taken, "thief < closed"]);
    rig.command("ana", moderate("bob", Measure::Unban));
    rig.forget();
    rig.login("bob");
    rig.expect(&["bob < hello", "bob < welcome bob last 0"]);
}

#[test]
fn ban_ends_the_rights_of_an_operator_and_unban_does_not_give_them_back() {
    let mut rig = three();
    rig.command("ana", moderate("bob", Measure::Op));
    rig.command("ana", moderate("bob", Measure::Ban));
    rig.command("ana", moderate("bob", Measure::Unban));
    rig.forget();
    rig.login("bob");
    rig.expect(&["bob < hello", "bob < welcome bob last 0"]);
}

#[test]
fn g9_name_that_is_released_is_whose_key_comes_first_and_the_old_sessions_are_over() {
    let mut rig = three();
    rig.say("bob", "mine");
    let before = opened(&rig, "bob");
    rig.command("ana", moderate("bob", Measure::Release));
    assert!(rig.heard("bob").contains(&RELEASED.to_owned()));
    log_in_with(&mut rig, "new", "bob", "eve");
    assert_eq!(rig.heard("new"), ["hello", "welcome bob last 0"]);
    rig.login("bob");
    assert!(rig.heard("bob").contains(&"close E_NAME the name is already in use".to_owned()));
    assert!(opened(&rig, "new") > before);
}

#[test]
fn session_that_is_opened_again_after_a_release_bears_another_time_while_the_clock_stands_still() {
    let mut rig = three();
    let before = opened(&rig, "bob");
    // Everything here happens in one millisecond.
    rig.command("ana", moderate("bob", Measure::Release));
    rig.login("bob");
    assert_ne!(opened(&rig, "bob"), before, "commands of the old session would be sent again");
}

#[test]
fn operators_are_made_and_unmade_and_hear_of_it() {
    let mut rig = three();
    rig.command("ana", moderate("bob", Measure::Op));
    rig.expect(&["ana < applied 1", "bob < notice OperatorGranted"]);
    rig.command("bob", moderate("ana", Measure::Deop));
    rig.expect(&["ana < notice OperatorRevoked", "bob < applied 1"]);
    rig.command("ana", moderate("bob", Measure::Kick));
    rig.expect(&["ana < refused 2 E_PERM operators only"]);
    // What is so already changes nothing, and is told to nobody else.
    rig.command("bob", moderate("ana", Measure::Deop));
    rig.expect(&["bob < applied 2"]);
}

#[test]
fn k1_measure_is_refused_to_whoever_is_no_operator_and_tells_nothing_of_names() {
    let mut rig = three();
    for (counter, user) in [(1, "cem"), (2, "nobody"), (3, "no name")] {
        rig.command("bob", moderate(user, Measure::Ban));
        rig.expect(&[&format!("bob < refused {counter} E_PERM operators only")]);
    }
}

#[test]
fn measure_is_refused_on_oneself_on_nobody_and_on_who_is_banned() {
    let mut rig = three();
    let refused = |rig: &mut Rig, user: &str, measure| {
        let counter = rig.command("ana", moderate(user, measure));
        let heard = rig.heard("ana");
        heard[0].strip_prefix(&format!("refused {counter} ")).unwrap().to_owned()
    };
    for measure in Measure::ALL {
        assert_eq!(refused(&mut rig, "ANA", *measure), "E_TARGET not on yourself");
        assert_eq!(refused(&mut rig, "nobody", *measure), "E_TARGET there is no such user");
    }
    rig.command("ana", moderate("bob", Measure::Ban));
    rig.forget();
    for measure in [Measure::Op, Measure::Release] {
        assert_eq!(refused(&mut rig, "bob", measure), "E_TARGET the user is banned");
    }
}

#[test]
fn founders_are_out_of_the_reach_of_operators_and_not_of_those_who_run_the_server() {
    let operators =
        vec![OperatorRule::Key(key_of("ana")), OperatorRule::Name("bob".parse().unwrap())];
    let mut rig = Setup { operators, ..Setup::default() }.rig();
    for name in ["ana", "bob", "cem"] {
        rig.join(name);
    }
    rig.forget();
    for (counter, measure) in (1..).zip(Measure::ALL) {
        rig.command("bob", moderate("ana", *measure));
        let refused = "E_TARGET the server's own operators are out of your reach";
        rig.expect(&[&format!("bob < refused {counter} {refused}")]);
    }
    // By name as well as by key.
    rig.command("ana", moderate("bob", Measure::Release));
    let refused = "E_TARGET the server's own operators are out of your reach";
    rig.expect(&[&format!("ana < refused 1 {refused}")]);
    assert_eq!(as_server(&mut rig, "ana", Measure::Kick), None);
    assert!(rig.heard("ana").contains(&KICKED.to_owned()));
    // Whom the server took the right from is as anybody else, but for what would give it again.
    for name in ["ana", "bob"] {
        assert_eq!(as_server(&mut rig, name, Measure::Deop), None);
    }
    assert_eq!(as_server(&mut rig, "cem", Measure::Op), None);
    rig.forget();
    for (counter, name) in (1..).zip(["ana", "bob"]) {
        rig.command("cem", moderate(name, Measure::Release));
        rig.expect(&[&format!("cem < refused {counter} {refused}")]);
    }
    rig.command("cem", moderate("ana", Measure::Kick));
    assert!(rig.heard("cem").contains(&"applied 3".to_owned()));
    assert_eq!(as_server(&mut rig, "bob", Measure::Release), None);
}

#[test]
fn those_who_run_the_server_are_answered_once_the_measure_is_safe() {
    let mut rig = three();
    rig.persisting = Persisting::Held;
    let request = RequestId::new(5).unwrap();
    let user = "bob".parse().unwrap();
    rig.input(Input::Moderate { request, user, measure: Measure::Kick });
    rig.expect(&[]);
    assert_eq!(rig.moderated, []);
    rig.persist();
    assert_eq!(rig.heard("bob"), [KICKED, "closed"]);
    assert_eq!(rig.moderated, [(request, None)]);
}

#[test]
fn those_who_run_the_server_are_told_why_not() {
    let mut rig = three();
    let missing = Some(Refusal::Target(TargetFault::User));
    assert_eq!(as_server(&mut rig, "nobody", Measure::Kick), missing);
    assert_eq!(as_server(&mut rig, "bob", Measure::Ban), None);
    let banned = Some(Refusal::Target(TargetFault::Banned));
    assert_eq!(as_server(&mut rig, "bob", Measure::Op), banned);
    rig.input(Input::StoreFull);
    assert_eq!(as_server(&mut rig, "bob", Measure::Unban), Some(Refusal::Store));
    rig.input(Input::StoreFree);
    assert_eq!(as_server(&mut rig, "bob", Measure::Unban), None);
}

#[test]
fn nobody_hears_of_a_measure_before_it_is_safe() {
    let mut rig = three();
    rig.persisting = Persisting::Held;
    rig.command("ana", moderate("bob", Measure::Op));
    rig.whois("cem", "lobby", "bob");
    rig.say("bob", "too late");
    rig.command("ana", moderate("bob", Measure::Kick));
    rig.say("bob", "nobody hears this");
    rig.expect(&[]);
    // Bob is no operator as far as that is safe.
    rig.input(Input::StoreFull);
    let bob = |line: &String| line.starts_with("user bob");
    let told: Vec<String> = rig.heard("cem").into_iter().filter(bob).collect();
    assert!(!told[0].contains("operator"), "{told:?}");
    rig.input(Input::StoreFree);
    rig.persist();
    let heard = rig.heard("bob");
    assert_eq!(heard[0], "notice OperatorGranted");
    assert_eq!(heard[heard.len() - 2..], [KICKED, "closed"]);
    assert!(heard.contains(&"accepted 1 lobby 1:4".to_owned()), "{heard:?}");
    assert!(!rig.heard("ana").iter().any(|line| line.contains("nobody hears")));
}

#[test]
fn log_in_hears_of_a_ban_once_that_is_safe_and_of_what_is_lost_never() {
    let mut rig = three();
    let kept = rig.entries.len();
    rig.persisting = Persisting::Held;
    rig.command("ana", moderate("bob", Measure::Ban));
    rig.login_as("again", "bob");
    rig.expect(&["again < hello"]);
    rig.persist();
    assert_eq!(rig.heard("again"), [BANNED, "closed"]);
    // The same, and the server dies before.
    let entries = rig.entries[..kept].iter().map(|entry| Entry::clone(entry));
    let restored = Engine::replay(entries, rig.setup.config(), rig.now).unwrap();
    rig.entries.truncate(kept);
    rig.safe = kept;
    rig.replace_engine(restored);
    rig.login("bob");
    rig.command("bob", moderate("cem", Measure::Ban));
    rig.expect(&["bob < hello", "bob < welcome bob last 0"]);
}

#[test]
fn who_was_turned_away_can_be_closed_before_that_is_safe() {
    let kicked = || {
        let mut rig = three();
        rig.persisting = Persisting::Held;
        rig.command("ana", moderate("bob", Measure::Kick));
        rig.forget();
        rig
    };
    let mut rig = kicked();
    rig.input(Input::Stop);
    let gone = "close E_GONE the server moved or stopped";
    assert_eq!(rig.heard("bob"), [gone, "closed"]);
    let mut rig = kicked();
    let conn = rig.peers["bob"].conn;
    rig.input(Input::Condemned { conn, refusal: Refusal::Frame(FrameFault::Empty) });
    assert_eq!(rig.heard("bob"), ["close E_FRAME empty frame", "closed"]);
    // A store that stands still does not keep it for ever, and nothing comes twice.
    let mut rig = kicked();
    rig.pass_secs(60);
    let busy = "close E_BUSY the server is busy, try again in 1000 ms";
    assert_eq!(rig.heard("bob"), [busy, "closed"]);
    rig.persist();
    assert_eq!(rig.heard("bob"), [""; 0]);
}

#[test]
fn who_is_turned_away_keeps_a_place_of_those_who_have_not_logged_in_until_closed() {
    let limits = |limits: &mut chatcore::limits::Limits| {
        (limits.connections_max, limits.greeting_percent) = (4, 25);
    };
    let mut rig = Setup::limits(limits).rig();
    rig.join("ana");
    rig.persisting = Persisting::Held;
    rig.say("ana", "the store takes its time");
    log_in_with(&mut rig, "thief", "ana", "eve");
    rig.forget();
    rig.dial("next");
    let busy = "close E_BUSY the server is busy, try again in 1000 ms";
    rig.expect(&[&format!("next < {busy}"), "next < closed"]);
    rig.persist();
    rig.dial("later");
    rig.send("later", hello());
    assert_eq!(rig.heard("later"), ["hello"]);
}

#[test]
fn users_are_counted_as_far_as_they_are_safe() {
    let mut rig = three();
    rig.persisting = Persisting::Held;
    rig.command("ana", moderate("bob", Measure::Release));
    assert_eq!(rig.engine.counts().users, 3);
    log_in_with(&mut rig, "new", "bob", "eve");
    rig.login("dan");
    rig.command("ana", moderate("dan", Measure::Release));
    assert_eq!(rig.engine.counts().users, 3);
    rig.persist();
    assert_eq!(rig.engine.counts().users, 3);
}

#[test]
fn who_was_kicked_comes_back_while_the_store_is_full() {
    let mut rig = three();
    rig.persisting = Persisting::Held;
    rig.command("ana", moderate("bob", Measure::Kick));
    rig.input(Input::StoreFull);
    rig.lose("bob");
    rig.login("bob");
    assert_eq!(rig.heard("bob"), ["hello", "welcome bob last 0"]);
}

#[test]
fn measure_takes_effect_once_however_often_it_is_sent() {
    let mut rig = three();
    rig.submit("ana", 1, moderate("bob", Measure::Kick));
    rig.join("bob");
    rig.forget();
    rig.submit("ana", 1, moderate("bob", Measure::Kick));
    rig.expect(&["ana < applied 1"]);
}

#[test]
fn full_store_refuses_measures_for_now() {
    let mut rig = three();
    rig.input(Input::StoreFull);
    rig.submit("ana", 1, moderate("bob", Measure::Kick));
    let full = "E_STORE not saved: the server cannot store anything now";
    rig.expect(&[&format!("ana < refused 1 {full}")]);
    rig.input(Input::StoreFree);
    rig.submit("ana", 1, moderate("bob", Measure::Kick));
    assert!(rig.heard("ana").contains(&"applied 1".to_owned()));
}

#[test]
fn bans_have_a_bound() {
    let mut rig = Setup::limits(|limits| limits.bans_max = 1).rig();
    for name in ["ana", "bob", "cem"] {
        rig.join(name);
    }
    rig.command("ana", moderate("bob", Measure::Ban));
    rig.forget();
    rig.command("ana", moderate("cem", Measure::Ban));
    rig.expect(&["ana < refused 2 E_LIMIT no more users can be banned"]);
    // Who is banned is so already.
    rig.command("ana", moderate("bob", Measure::Ban));
    rig.command("ana", moderate("bob", Measure::Unban));
    rig.command("ana", moderate("cem", Measure::Ban));
    assert!(rig.heard("ana").contains(&"applied 5".to_owned()));
}

#[test]
fn gate_does_not_open_by_who_was_kicked() {
    let mut rig = Setup { threshold: 3, ..Setup::default() }.rig();
    rig.join("ana");
    rig.join("bob");
    rig.command("ana", moderate("bob", Measure::Kick));
    rig.forget();
    rig.join("cem");
    assert!(rig.heard("ana").contains(&"gate lobby 2/3 closed".to_owned()));
}

#[test]
fn measures_are_in_the_journal_and_outlive_a_restore() {
    let mut rig = three();
    rig.command("ana", moderate("bob", Measure::Ban));
    rig.command("ana", moderate("cem", Measure::Op));
    let bytes = rig.engine.snapshot().unwrap();
    let hash = rig.engine.state_hash();
    let restored = Engine::restore(&bytes, [], rig.setup.config(), rig.now).unwrap();
    assert_eq!(restored.state_hash(), hash);
    let entries = rig.entries.iter().map(|entry| Entry::clone(entry));
    let replayed = Engine::replay(entries, rig.setup.config(), rig.now).unwrap();
    assert_eq!(replayed.state_hash(), hash);
    let by_ana = rig.entries.iter().any(|entry| {
        matches!(&entry.change, Change::Moderated { user, measure: Measure::Ban,
            by: Moderator::Operator { user: by, .. } }
            if user.as_ref() == "bob" && by.as_ref() == "ana")
    });
    assert!(by_ana, "the journal says who did it");
    rig.replace_engine(restored);
    rig.login("bob");
    rig.expect(&["bob < hello", &format!("bob < {BANNED}"), "bob < closed"]);
    rig.login("cem");
    rig.expect(&["cem < hello", "cem < welcome cem last 0 operator"]);
}

#[test]
fn name_that_the_founding_names_makes_an_operator_of_whoever_takes_it() {
    let operators = vec![OperatorRule::Name("ana".parse().unwrap())];
    let mut rig = Setup { operators, ..Setup::default() }.rig();
    rig.login("ana");
    assert_eq!(as_server(&mut rig, "ana", Measure::Release), None);
    rig.forget();
    log_in_with(&mut rig, "new", "ana", "eve");
    rig.expect(&["new < hello", "new < welcome ana last 0 operator"]);
}
