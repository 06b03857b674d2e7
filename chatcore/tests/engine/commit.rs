//! Nothing that depends on an entry leaves before it is committed.

use chatcore::engine::{Directive, Input};
use chatcore::id::*;
use chatcore::wire::*;

use crate::rig::{Persisting, Rig, Setup, hello, post, reset, rig, session_of};

#[test]
fn nothing_leaves_before_it_is_safe_but_pongs_and_closes() {
    let mut rig = rig();
    rig.join("ana");
    rig.join("bob");
    rig.forget();
    rig.persisting = Persisting::Held;
    rig.say("ana", "unsafe");
    rig.command("ana", reset("lobby", 4));
    rig.login("cem");
    rig.send("bob", ClientFrame::Ping { token: RequestId::ZERO });
    rig.who("bob", "lobby");
    rig.part("bob", "lobby");
    rig.dial("eve");
    rig.send("eve", hello());
    let login = rig.login_frame("server", session_of("eve"));
    rig.send("eve", login);
    let heard = rig.heard("eve");
    assert!(heard[1].starts_with("close E_NAME"), "{heard:?}");
    rig.expect(&["bob < pong 0", "cem < hello"]);

    // The post becomes safe, and nothing else.
    rig.persist_some(1);
    rig.expect(&[
        "ana < accepted 1 lobby 1:3",
        "ana < lobby 1:3 ana: unsafe",
        "bob < lobby 1:3 ana: unsafe",
    ]);
    rig.persist_some(1);
    rig.expect(&[
        "ana < applied 2",
        "ana < reset lobby 2 needs 4",
        "ana < gate lobby 1/4 closed",
        "bob < reset lobby 2 needs 4",
        "bob < gate lobby 1/4 closed",
    ]);
    rig.persisting = Persisting::AtOnce;
    rig.expect(&[
        "bob < no: E_GATE messages are held until 4 users are connected (now 1)",
        "bob < parted lobby",
        "cem < welcome cem last 0",
    ]);
}

#[test]
fn gate_counts_no_join_that_a_crash_can_take_back() {
    let mut rig = Setup { threshold: 3, ..Setup::default() }.rig();
    rig.join("ana");
    rig.login("bob");
    rig.forget();
    rig.persisting = Persisting::Held;
    rig.join_from("bob", "lobby", Start::Last(0));
    rig.expect(&[]);
    rig.persisting = Persisting::AtOnce;
    rig.expect(&["ana < gate lobby 2/3 closed", "bob < joined lobby 2/3 closed after 0"]);
}

/// Whatever becomes safe step by step, a closed gate is never explained by enough users.
#[test]
fn question_asked_as_a_gate_opens_is_answered_by_the_open_room() {
    let mut rig = rig();
    rig.join("ana");
    rig.login("bob");
    rig.persisting = Persisting::Held;
    rig.join_from("bob", "lobby", Start::Last(0));
    for label in ["ana", "bob"] {
        rig.who(label, "lobby");
        rig.whois(label, "lobby", "ana");
        rig.history(label, "lobby", None, 5);
    }
    rig.forget();
    for _ in 0..2 {
        rig.persist_some(1);
        rig.who("ana", "lobby");
    }
    rig.persisting = Persisting::AtOnce;
    rig.persist();
    for label in ["ana", "bob"] {
        let heard = rig.heard(label);
        assert!(heard.iter().any(|line| line.contains("lobby 2/2 open")), "{heard:?}");
        assert!(heard.iter().all(|line| !line.contains("E_GATE")), "{heard:?}");
        let opens = heard.iter().position(|line| line.contains("lobby 2/2 open"));
        let names = heard.iter().position(|line| line.contains("ana,bob"));
        assert!(opens <= names, "who is told names has been told that the gate is open: {heard:?}");
    }
}

#[test]
fn join_that_is_safe_after_its_connection_is_gone_follows_nothing() {
    let mut rig = rig();
    rig.join("ana");
    rig.login("bob");
    rig.persisting = Persisting::Held;
    rig.join_from("bob", "lobby", Start::Last(0));
    rig.lose("bob");
    rig.persisting = Persisting::AtOnce;
    rig.persist();
    let conn = rig.peers["bob"].conn;
    let to_bob = rig.directives().filter(|directive| directive.conn() == Some(conn));
    assert_eq!(to_bob.count(), 0);
    // The gate opened by the join all the same: it was decided.
    assert!(rig.heard("ana").contains(&"gate lobby 2/2 open".to_owned()));
}

#[test]
fn repeated_command_is_not_acknowledged_before_the_first_one_is_safe() {
    let mut rig = rig();
    rig.join("ana");
    rig.forget();
    rig.persisting = Persisting::Held;
    rig.submit("ana", 1, post("lobby", "x"));
    rig.submit("ana", 1, post("lobby", "x"));
    rig.submit("ana", 5, post("lobby", "x"));
    rig.expect(&[]);
    rig.persisting = Persisting::AtOnce;
    rig.expect(&[
        "ana < accepted 1 lobby held",
        "ana < accepted 1 lobby held",
        "ana < refused 5 E_STATE counter 2 is expected",
    ]);
}

/// Every kind of entry, made while nothing is made safe.
fn script(rig: &mut Rig) {
    rig.persisting = Persisting::Held;
    rig.say("ana", "one");
    rig.history("ana", "lobby", None, 9);
    for name in ["bob", "cem", "dov"] {
        rig.login(name);
        rig.join_from(name, "lobby", Start::At(Seq::ZERO));
    }
    rig.say("ana", "two");
    rig.who("bob", "lobby");
    rig.command("ana", reset("lobby", 3));
    rig.say("ana", "three");
    rig.part("cem", "lobby");
    rig.history("bob", "lobby", None, 9);
    rig.say("ana", "four");
    rig.command("ana", reset("lobby", 9));
    rig.history("bob", "lobby", None, 9);
    rig.say("ana", "five");
    rig.leave("dov");
}

#[test]
fn entries_made_safe_in_any_grouping_give_every_connection_the_same() {
    let run = |group: usize| {
        let mut rig = rig();
        rig.join("ana");
        rig.forget();
        script(&mut rig);
        while rig.safe < rig.entries.len() {
            rig.persist_some(group);
            rig.drive();
        }
        let of = |label: &str, wanted: fn(&ServerFrame) -> bool| -> Vec<ServerFrame> {
            rig.peers[label].frames.iter().filter(|frame| wanted(frame)).cloned().collect()
        };
        // Notices of a gate are the newest word only, so how many there are may differ; and a
        // reset ends the old life for a reader that has not come to it.
        ["ana", "bob", "cem", "dov"].map(|label| {
            let answers = of(label, |frame| {
                !matches!(
                    frame,
                    ServerFrame::Record(_) | ServerFrame::Gate { .. } | ServerFrame::Reset { .. }
                )
            });
            let last = of(label, |frame| matches!(frame, ServerFrame::Gate { .. })).pop();
            // Who went away is told nothing more.
            let stays = ["ana", "bob"].contains(&label);
            (answers, last.filter(|_| stays))
        })
    };
    let one_by_one = run(1);
    for group in [2, 3, 5, 100] {
        assert_eq!(run(group), one_by_one, "in groups of {group}");
    }
}

#[test]
fn reset_with_records_of_the_old_life_not_yet_safe_shows_them_before_it() {
    let mut rig = rig();
    rig.join("ana");
    rig.join("bob");
    rig.persisting = Persisting::Held;
    rig.say("bob", "old");
    rig.command("ana", reset("lobby", 2));
    rig.say("bob", "new");
    rig.outputs.clear();
    rig.setup.drains_early = true;
    let through = rig.entries.last().unwrap().header.index;
    rig.input(Input::Persisted { through });
    let shown: Vec<String> = rig
        .directives()
        .filter_map(|directive| match directive {
            Directive::Visible { incarnation, through, .. } => {
                Some(format!("{incarnation}:{through}"))
            }
            Directive::Reset { incarnation, .. } => Some(format!("reset {incarnation}")),
            Directive::Gate { gate, .. } => Some(format!("open {}", gate.open)),
            _ => None,
        })
        .collect();
    assert_eq!(shown, ["1:3", "reset 2", "open true", "2:1"]);
}
