//! Records that retention takes.

use chatcore::engine::{Archive, Engine, Input};
use chatcore::id::Incarnation;
use chatcore::log::Change;
use chatcore::wire::*;

use crate::rig::{Rig, Setup, after, reset, rig, seq};

/// Ana and bob in an open room of six records that are in the store alone, nothing unread.
fn archived_room() -> Rig {
    let mut setup = Setup::limits(|limits| limits.window_bytes = 0);
    setup.archive = Archive::Store;
    // Nobody finds old records in the memory of somebody else's shard.
    setup.shards = 5;
    filled(setup.rig())
}

fn filled(mut rig: Rig) -> Rig {
    rig.join("ana");
    rig.join("bob");
    for text in ["3", "4", "5", "6"] {
        rig.say("ana", text);
    }
    rig.forget();
    rig
}

fn trim(rig: &mut Rig, incarnation: u64, through: u64) {
    let (room, incarnation) = ("lobby".parse().unwrap(), Incarnation::new(incarnation).unwrap());
    rig.input(Input::Trim { room, incarnation, through: seq(through) });
    rig.drive();
}

fn trims(rig: &Rig) -> Vec<u64> {
    let through = |change: &Change| match change {
        Change::Trimmed { through, .. } => Some(through.get()),
        _ => None,
    };
    rig.entries.iter().filter_map(|entry| through(&entry.change)).collect()
}

#[test]
fn gap_is_told_to_who_asks_for_what_is_gone_and_to_nobody_else() {
    for mut rig in [archived_room(), filled(rig())] {
        trim(&mut rig, 1, 3);
        assert!(rig.heard("ana").is_empty(), "who has seen it hears nothing");
        rig.login("cem");
        rig.forget();
        rig.join_from("cem", "lobby", after(1, 1));
        let joined = "joined lobby 3/2 open after 1 with ana,bob,cem";
        let rest = ["lobby 1:4 ana: 4", "lobby 1:5 ana: 5", "lobby 1:6 ana: 6", "lobby 1:7 +cem"];
        assert_eq!(rig.heard("cem"), [&[joined, "gap lobby 2-3"][..], &rest].concat());
        rig.join_from("cem", "lobby", Start::Last(100));
        let joined = "joined lobby 3/2 open after 3 with ana,bob,cem";
        assert_eq!(rig.heard("cem"), [&[joined][..], &rest].concat());
    }
}

#[test]
fn history_ends_where_retention_does() {
    for mut rig in [archived_room(), filled(rig())] {
        trim(&mut rig, 1, 4);
        rig.history("ana", "lobby", None, 10);
        rig.history("ana", "lobby", Some(5), 10);
        let page = "history lobby [lobby 1:5 ana: 5, lobby 1:6 ana: 6]";
        assert_eq!(rig.heard("ana"), [page, "history lobby []"]);
    }
}

#[test]
fn only_what_is_visible_is_trimmed_and_only_in_the_present_life() {
    let mut rig = rig();
    rig.join("ana");
    rig.say("ana", "held");
    trim(&mut rig, 1, 2);
    assert!(trims(&rig).is_empty(), "what a closed gate holds stays");
    rig.join("bob");
    trim(&mut rig, 1, 100);
    trim(&mut rig, 1, 2);
    assert_eq!(trims(&rig), [3], "no more than there is, and never less than before");
    rig.command("ana", reset("lobby", 2));
    rig.say("ana", "new");
    trim(&mut rig, 1, 100);
    assert_eq!(trims(&rig), [3], "an earlier life is over");
    trim(&mut rig, 2, 1);
    assert_eq!(trims(&rig), [3, 1]);
}

#[test]
fn read_that_was_under_way_shows_nothing_that_was_trimmed_since() {
    let mut rig = archived_room();
    rig.login("cem");
    rig.forget();
    rig.held_reads = Some(Vec::new());
    rig.history("ana", "lobby", Some(6), 3);
    rig.join_from("cem", "lobby", after(1, 0));
    trim(&mut rig, 1, 4);
    for (token, records) in rig.held_reads.take().unwrap() {
        rig.input(Input::ReadDone { token, records });
    }
    rig.drive();
    assert_eq!(rig.heard("ana").last().unwrap(), "history lobby [lobby 1:5 ana: 5]");
    let heard = rig.heard("cem");
    let rest = ["gap lobby 1-4", "lobby 1:5 ana: 5", "lobby 1:6 ana: 6", "lobby 1:7 +cem"];
    assert_eq!(heard[1..], rest);
}

#[test]
fn restored_and_replayed_engines_know_what_was_trimmed() {
    let mut rig = archived_room();
    trim(&mut rig, 1, 4);
    let config = || rig.setup.config();
    let bytes = rig.engine.snapshot().unwrap();
    let restored = Engine::restore(&bytes, [], config(), rig.now).unwrap();
    let entries = rig.entries.iter().map(|entry| (**entry).clone());
    let replayed = Engine::replay(entries, config(), rig.now).unwrap();
    for other in [&restored, &replayed] {
        assert_eq!(other.state_hash(), rig.engine.state_hash());
        assert_eq!(other.snapshot().unwrap(), bytes);
    }
    rig.replace_engine(restored);
    rig.login("ana");
    rig.join_from("ana", "lobby", after(1, 0));
    assert_eq!(rig.heard("ana")[3], "gap lobby 1-4");
}
