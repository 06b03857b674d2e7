//! Records that retention takes: they are gone from every file, and nothing else is.

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use chatcore::engine::{Input, ReadOrder};
use chatcore::id::{Incarnation, Index, Seq};
use chatcore::time::Timestamp;
use chatcore::wire::RecordBody;

use super::rig::{Rig, copy, folder, history_after, reopen, reopen_keeping, standing};
use crate::retention::{Bound, Keep};
use crate::store::check::check_journal as check;
use crate::store::journal::Wanted;
use crate::store::sweep::Sweeper;
use crate::store::threads::Parts;
use crate::store::{Finding, Flaw, StoreError, checkpoint, export, import};

fn keep(bound: Bound) -> Keep {
    [bound].into_iter().collect()
}

/// Follows the journal as far as it goes; what is due.
fn due(sweeper: &mut Sweeper, now: u64) -> Vec<Input> {
    sweeper.follow(&false.into()).unwrap();
    sweeper.due(Timestamp::new(now).unwrap())
}

/// Deletes what may be deleted; how many rows.
fn sweep(parts: &mut Parts) -> usize {
    let sweeper = parts.sweeper.as_mut().unwrap();
    sweeper.follow(&false.into()).unwrap();
    let mut count = 0;
    while let Some(erasure) = sweeper.next_erasure().unwrap() {
        parts.store.erase(&erasure).unwrap();
        sweeper.erased();
        count += erasure.rows.len();
    }
    count
}

/// Removes what may be removed.
fn compact(parts: &mut Parts) {
    let sweeper = parts.sweeper.as_mut().unwrap();
    sweeper.begin_compaction();
    while let Some(rows) = sweeper.next_removal(&false.into()).unwrap() {
        parts.store.remove(&rows).unwrap();
    }
}

impl Rig {
    /// Has forgotten what is due.
    fn trim(&mut self) {
        for input in due(self.parts.sweeper.as_mut().unwrap(), 1_000_000) {
            self.input(input);
        }
    }

    /// Makes two checkpoints that are newer than everything before.
    fn checkpoint_twice(&mut self) {
        for number in 0..2 {
            self.post(&format!("between {number}"));
            (self.parts.checkpointer)(&false.into());
        }
    }

    /// Has forgotten and deleted what is due, and the log emptied.
    fn retain(&mut self) -> usize {
        self.trim();
        self.checkpoint_twice();
        let count = sweep(&mut self.parts);
        compact(&mut self.parts);
        assert!(self.parts.store.purge().unwrap());
        count
    }
}

/// Which of these texts, all of a length, are in any file of a folder.
fn found_in(folder: &Path, texts: &[String]) -> BTreeSet<String> {
    let wanted: HashSet<&[u8]> = texts.iter().map(String::as_bytes).collect();
    let Some(length) = texts.first().map(String::len) else { return BTreeSet::new() };
    assert!(texts.iter().all(|text| text.len() == length));
    let mut found = BTreeSet::new();
    for file in fs::read_dir(folder).unwrap() {
        let bytes = fs::read(file.unwrap().path()).unwrap();
        let there = bytes.windows(length).filter(|window| wanted.contains(window));
        found.extend(there.map(|window| String::from_utf8(window.to_vec()).unwrap()));
    }
    found
}

fn assert_whole(folder: &Path) {
    let checked = check(folder).unwrap();
    assert!(checked.findings.is_empty(), "{:?}", checked.findings);
}

fn texts_of(parts: &mut Parts, room: &str, after: Seq) -> Vec<String> {
    let records = history_after(parts, room, 1, after).unwrap();
    let text = |body: RecordBody| match body {
        RecordBody::Post { text, .. } => Some(text.as_str().to_owned()),
        RecordBody::Joined { .. } | RecordBody::Left { .. } => None,
    };
    records.into_iter().filter_map(|record| text(record.body)).collect()
}

/// A chat of so many posts of which ten are kept; the texts of the others.
fn chat(folder: &Path, posts: u32) -> (Rig, Vec<String>) {
    let mut rig = Rig::start_keeping(folder, keep(Bound::Records(10)));
    let texts: Vec<String> = (0..posts).map(|number| format!("secret {number:05}")).collect();
    texts.iter().for_each(|text| rig.post(text));
    let gone = texts[..texts.len() - 10].to_vec();
    (rig, gone)
}

#[test]
fn deleted_record_is_in_no_file_and_all_the_others_are_read() {
    let here = folder();
    let (mut rig, gone) = chat(here.path(), 300);
    assert_eq!(found_in(here.path(), &gone).len(), 290);
    assert_eq!(rig.retain(), 291, "the join of ana too");
    assert_eq!(found_in(here.path(), &gone), BTreeSet::new());
    let left = texts_of(&mut rig.parts, "lobby", Seq::new(291).unwrap());
    assert_eq!(left.len(), 12);
    assert_eq!((left[0].as_str(), left[9].as_str()), ("secret 00290", "secret 00299"));
    let before = rig.close();
    assert_eq!(found_in(here.path(), &gone), BTreeSet::new());
    assert_whole(here.path());
    assert_eq!(standing(here.path()).unwrap(), before);
}

#[test]
fn nothing_is_deleted_without_a_bound() {
    let here = folder();
    let mut rig = Rig::start(here.path());
    assert!(rig.parts.sweeper.is_none());
    (0..100).for_each(|number| rig.post(&format!("post {number}")));
    rig.reset();
    rig.checkpoint_twice();
    let mut again = reopen(here.path());
    assert!(again.is_err(), "it is in use");
    rig.close();
    again = reopen(here.path());
    assert!(again.unwrap().parts.sweeper.is_none());
}

/// Texts of every length, the longest on pages of their own, in rooms that are trimmed one by one: rows
/// move about in the file, and must leave nothing behind.
#[test]
fn deleted_rows_leave_no_trace_wherever_they_were_in_the_file() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let here = folder();
    let mut rig = Rig::start_keeping(here.path(), keep(Bound::Records(1 << 30)));
    let rooms = ["lobby", "one", "two", "three", "four"];
    rooms.iter().for_each(|room| rig.enter(1, room));
    let (mut all, mut trimmed): (Vec<Vec<String>>, Vec<u64>) = (vec![Vec::new(); 5], vec![0; 5]);
    for round in 0..8 {
        for number in 0..400 {
            let room = random.usize(0..5);
            let length = if random.u32(0..10) == 0 { 6_000 } else { random.usize(0..300) };
            let name = format!("{room}/{round}/{number:03}");
            rig.post_in(rooms[room], &format!("{name}{}", "abcdefghij".repeat(length / 10)));
            all[room].push(name);
        }
        // The oldest of one room, or of all but one.
        let place = random.usize(0..5);
        let others = round % 2 == 1;
        for (room, texts) in all.iter().enumerate().filter(|(room, _)| (*room == place) != others) {
            let most = u64::try_from(texts.len()).unwrap() + 1;
            trimmed[room] = random.u64(trimmed[room]..=most);
            if round == 7 {
                trimmed[room] = most;
            }
            let (name, incarnation) = (rooms[room].parse().unwrap(), Incarnation::new(1).unwrap());
            let through = Seq::new(trimmed[room]).unwrap();
            rig.input(Input::Trim { room: name, incarnation, through });
        }
        all[0].extend(["0/n/000".to_owned(), "0/n/001".to_owned()]);
        (0..2).for_each(|number| {
            rig.post(&format!("0/n/00{number}"));
            (rig.parts.checkpointer)(&false.into());
        });
        sweep(&mut rig.parts);
        compact(&mut rig.parts);
        assert!(rig.parts.store.purge().unwrap());
        let mut gone = Vec::new();
        for (place, texts) in all.iter().enumerate() {
            // The first record of each room is a join.
            let count = usize::try_from(trimmed[place].saturating_sub(1)).unwrap();
            gone.extend(texts[..count].iter().filter(|text| !text.contains('n')).cloned());
            let left = texts_of(&mut rig.parts, rooms[place], Seq::new(trimmed[place]).unwrap());
            assert!(left.iter().zip(&texts[count..]).all(|(one, other)| one.starts_with(other)));
            assert_eq!(left.len(), texts.len() - count);
        }
        assert_eq!(found_in(here.path(), &gone), BTreeSet::new());
    }
    let rows = i64::try_from(rig.engine.head().index.get()).unwrap();
    let before = rig.close();
    assert_whole(here.path());
    assert_eq!(standing(here.path()).unwrap(), before);
    let connection = rusqlite::Connection::open(here.path().join("journal.db")).unwrap();
    let left = |row: &rusqlite::Row<'_>| row.get::<_, i64>(0);
    let left = connection.query_row("SELECT count(*) FROM entry", [], left).unwrap();
    println!("{left} of {rows} rows are left");
    assert!(left < rows, "some are removed");
}

#[test]
fn e7_server_killed_between_the_entry_and_the_deletion_deletes_at_the_next_start() {
    let here = folder();
    let (mut rig, gone) = chat(here.path(), 300);
    rig.trim();
    rig.checkpoint_twice();
    // Whatever is kept from then on.
    for bound in [None, Some(Bound::Records(10)), Some(Bound::Records(100_000))] {
        let killed = folder();
        copy(here.path(), killed.path());
        let mut opened = reopen_keeping(killed.path(), bound.into_iter().collect()).unwrap();
        assert_eq!(sweep(&mut opened.parts), 291);
        assert!(opened.parts.store.purge().unwrap());
        drop(opened);
        assert_eq!(found_in(killed.path(), &gone), BTreeSet::new());
        assert_whole(killed.path());
    }
}

#[test]
fn e7_server_killed_between_any_two_deletions_goes_on_at_the_next_start() {
    let here = folder();
    let (mut rig, _) = chat(here.path(), 1_700);
    rig.trim();
    rig.checkpoint_twice();
    let standing_before = rig.standing();
    let mut left = 1_691;
    while left > 0 {
        let killed = folder();
        copy(here.path(), killed.path());
        let mut opened = reopen_keeping(killed.path(), keep(Bound::Records(10))).unwrap();
        let sweeper = opened.parts.sweeper.as_mut().unwrap();
        assert!(due(sweeper, 0).len() <= 1);
        assert_eq!(sweep(&mut opened.parts), left);
        drop(opened);
        assert_whole(killed.path());
        assert_eq!(standing(killed.path()).unwrap(), standing_before);
        let sweeper = rig.parts.sweeper.as_mut().unwrap();
        sweeper.follow(&false.into()).unwrap();
        let erasure = sweeper.next_erasure().unwrap().unwrap();
        rig.parts.store.erase(&erasure).unwrap();
        sweeper.erased();
        left -= erasure.rows.len();
    }
}

#[test]
fn e7_server_killed_before_the_log_is_emptied_empties_it_at_the_next_start() {
    let here = folder();
    let (mut rig, gone) = chat(here.path(), 300);
    rig.trim();
    rig.checkpoint_twice();
    assert_eq!(sweep(&mut rig.parts), 291);
    let killed = folder();
    copy(here.path(), killed.path());
    assert!(!found_in(killed.path(), &gone).is_empty(), "the log has them");
    let mut opened = reopen_keeping(killed.path(), Keep::default()).unwrap();
    assert_eq!(sweep(&mut opened.parts), 0);
    assert!(opened.parts.store.purge().unwrap());
    assert_eq!(found_in(killed.path(), &gone), BTreeSet::new());
}

#[test]
fn e7_what_was_trimmed_of_a_life_that_is_over_is_deleted_whatever_is_kept_from_then_on() {
    let here = folder();
    let (mut rig, gone) = chat(here.path(), 300);
    rig.trim();
    rig.reset();
    rig.checkpoint_twice();
    for is_blank in [false, true] {
        if is_blank {
            sweep(&mut rig.parts);
        }
        let killed = folder();
        copy(here.path(), killed.path());
        assert!(!found_in(killed.path(), &gone).is_empty(), "the log has them");
        let mut opened = reopen(killed.path()).unwrap();
        assert_eq!(sweep(&mut opened.parts), if is_blank { 0 } else { 291 });
        assert!(opened.parts.store.purge().unwrap());
        drop(opened);
        assert_eq!(found_in(killed.path(), &gone), BTreeSet::new());
        assert_whole(killed.path());
    }
}

#[test]
fn row_that_a_checkpoint_lacks_is_not_deleted() {
    let here = folder();
    let (mut rig, _) = chat(here.path(), 300);
    rig.trim();
    assert_eq!(sweep(&mut rig.parts), 0, "there is none");
    assert!(rig.parts.sweeper.as_ref().unwrap().lacks_checkpoint());
    (rig.parts.checkpointer)(&false.into());
    assert_eq!(sweep(&mut rig.parts), 0, "one alone may be damaged one day");
    assert!(rig.parts.sweeper.as_ref().unwrap().lacks_checkpoint());
    rig.post("one more");
    (rig.parts.checkpointer)(&false.into());
    assert_eq!(sweep(&mut rig.parts), 291);
    // What came after the older of the two stays until that is gone.
    (0..300).for_each(|number| rig.post(&format!("again {number}")));
    rig.trim();
    let count = sweep(&mut rig.parts);
    assert!(count <= 10, "{count}");
    rig.checkpoint_twice();
    assert_eq!(count + sweep(&mut rig.parts), 301);
    rig.close();
    assert_whole(here.path());
}

#[test]
fn what_is_forgotten_is_deleted_also_where_nothing_happens_any_more() {
    let here = folder();
    let (mut rig, gone) = chat(here.path(), 300);
    rig.trim();
    for file in ["a newer checkpoint", "its twin"] {
        assert_eq!(sweep(&mut rig.parts), 0, "{file} is not there yet");
        assert!(rig.parts.sweeper.as_ref().unwrap().lacks_checkpoint());
        (rig.parts.checkpointer)(&false.into());
    }
    assert_eq!(sweep(&mut rig.parts), 291);
    assert!(rig.parts.store.purge().unwrap());
    assert_eq!(found_in(here.path(), &gone), BTreeSet::new());
    let before = rig.close();
    assert_whole(here.path());
    assert_eq!(standing(here.path()).unwrap(), before);
}

/// The files of all checkpoints.
fn checkpoint_files(folder: &Path) -> Vec<PathBuf> {
    let found = checkpoint::list(folder).unwrap().into_iter();
    let files = found.flat_map(|index| checkpoint::files(folder, index));
    files.filter(|file| file.exists()).collect()
}

#[test]
fn e6_either_checkpoint_alone_brings_back_a_journal_that_has_holes_and_none_is_refused() {
    for is_quiet in [false, true] {
        let here = folder();
        let (mut rig, _) = chat(here.path(), 300);
        if is_quiet {
            rig.trim();
            (0..2).for_each(|_| (rig.parts.checkpointer)(&false.into()));
            assert_eq!(sweep(&mut rig.parts), 291);
        } else {
            rig.retain();
        }
        rig.post("after");
        let before = rig.close();
        let found = checkpoint_files(here.path());
        assert_eq!(found.len(), 2);
        for file in &found {
            for spoil in
                [|file: &Path| fs::write(file, "nothing"), |file: &Path| fs::remove_file(file)]
            {
                let damaged = folder();
                copy(here.path(), damaged.path());
                spoil(&damaged.path().join(file.file_name().unwrap())).unwrap();
                assert_eq!(standing(damaged.path()).unwrap(), before);
                let findings = check(damaged.path()).unwrap().findings;
                let there = fs::exists(damaged.path().join(file.file_name().unwrap())).unwrap();
                assert_eq!(findings.len(), usize::from(there), "{findings:?}");
            }
        }
        found.iter().for_each(|file| fs::remove_file(file).unwrap());
        let refused = standing(here.path()).unwrap_err();
        let wanted = "retention deleted it, and no checkpoint";
        assert!(refused.to_string().contains(wanted), "{refused}");
        assert!(check(here.path()).is_err());
    }
}

#[test]
fn e7_older_checkpoint_that_a_kill_left_beside_a_twin_holds_up_no_deletion() {
    let here = folder();
    let mut rig = Rig::start_keeping(here.path(), keep(Bound::Records(10)));
    rig.post("post");
    (rig.parts.checkpointer)(&false.into());
    let [older] = &checkpoint_files(here.path())[..] else { panic!("there is one") };
    let bytes = fs::read(older).unwrap();
    (0..299).for_each(|_| rig.post("post"));
    rig.trim();
    (0..2).for_each(|_| (rig.parts.checkpointer)(&false.into()));
    assert!(!older.exists());
    fs::write(older, bytes).unwrap();
    assert_eq!(sweep(&mut rig.parts), 0, "it needs the rows");
    assert!(rig.parts.sweeper.as_ref().unwrap().lacks_checkpoint());
    (rig.parts.checkpointer)(&false.into());
    assert_eq!(sweep(&mut rig.parts), 291);
    let before = rig.close();
    assert_whole(here.path());
    assert_eq!(standing(here.path()).unwrap(), before);
}

#[test]
fn twin_whose_checkpoint_is_damaged_is_written_anew_with_it() {
    let here = folder();
    let (mut rig, _) = chat(here.path(), 300);
    rig.trim();
    (0..2).for_each(|_| (rig.parts.checkpointer)(&false.into()));
    let [one, twin] = checkpoint::files(here.path(), rig.engine.head().index);
    for damaged in [&one, &twin] {
        fs::write(damaged, "nothing").unwrap();
        assert_eq!(sweep(&mut rig.parts), 0);
        assert!(rig.parts.sweeper.as_ref().unwrap().lacks_checkpoint());
        (rig.parts.checkpointer)(&false.into());
        assert_eq!(fs::read(&one).unwrap(), fs::read(&twin).unwrap());
    }
    // What is newer takes the place of both.
    assert_eq!(sweep(&mut rig.parts), 291);
    rig.checkpoint_twice();
    assert_eq!(checkpoint::list(here.path()).unwrap().len(), 2);
    assert!(!one.exists() && !twin.exists());
}

#[test]
fn tip_of_before_a_deletion_keeps_nobody_from_starting() {
    let here = folder();
    let (mut rig, _) = chat(here.path(), 300);
    // The system may keep an old one in a power cut: it is never synced.
    let old = fs::read(here.path().join("tip")).unwrap();
    (0..20).for_each(|number| rig.post(&format!("more {number}")));
    rig.retain();
    let before = rig.close();
    fs::write(here.path().join("tip"), old).unwrap();
    assert_eq!(standing(here.path()).unwrap(), before);
    assert_whole(here.path());
}

#[test]
fn pages_are_whole_in_both_directions_up_to_the_edge_of_what_is_left() {
    let here = folder();
    let (mut rig, _) = chat(here.path(), 300);
    (0..130).for_each(|number| rig.post(&format!("more {number}")));
    let all = rig.history(1);
    let (room, incarnation) = ("lobby".parse().unwrap(), Incarnation::new(1).unwrap());
    rig.input(Input::Trim { room, incarnation, through: Seq::new(200).unwrap() });
    rig.checkpoint_twice();
    assert_eq!(sweep(&mut rig.parts), 200);
    for order in [ReadOrder::Forward, ReadOrder::Backward] {
        for (from, to) in (195..=431).flat_map(|from| [(from, from), (from, 431), (195, from)]) {
            let room = "lobby".parse().unwrap();
            let (from, to) = (Seq::new(from).unwrap(), Seq::new(to).unwrap());
            let wanted = Wanted { room, incarnation, from, to, order };
            let page = rig.parts.history.records(&wanted).unwrap();
            let edge = Seq::new(201).unwrap();
            let Some(first) = page.first() else {
                assert!(to < edge, "{from} {to}");
                continue;
            };
            match order {
                ReadOrder::Forward => assert_eq!(first.seq, from.max(edge)),
                ReadOrder::Backward => assert_eq!(page.last().unwrap().seq, to),
            }
            let place = usize::try_from(first.seq.get()).unwrap() - 1;
            assert_eq!(page, all[place..place + page.len()]);
        }
    }
}

#[test]
fn life_that_a_reset_ended_is_deleted_where_there_is_a_bound() {
    let here = folder();
    let (mut rig, _) = chat(here.path(), 300);
    rig.reset();
    rig.post("new life");
    assert_eq!(rig.retain(), 301);
    let gone: Vec<String> = (0..300).map(|number| format!("secret {number:05}")).collect();
    assert_eq!(found_in(here.path(), &gone), BTreeSet::new());
    assert_eq!(history_after(&mut rig.parts, "lobby", 2, Seq::ZERO).unwrap().len(), 3);
    let before = rig.close();
    assert_whole(here.path());
    assert_eq!(standing(here.path()).unwrap(), before);
}

#[test]
fn space_of_deleted_rows_is_used_again() {
    let here = folder();
    let mut rig = Rig::start_keeping(here.path(), keep(Bound::Records(100)));
    let size = || fs::metadata(here.path().join("journal.db")).unwrap().len();
    let mut sizes = Vec::new();
    for round in 0..8 {
        (0..400).for_each(|number| rig.post(&format!("{round} {number} {}", "x".repeat(500))));
        rig.retain();
        sizes.push(size());
    }
    assert!(sizes[7] < sizes[2] + sizes[2] / 10, "{sizes:?}");
    rig.close();
    assert_whole(here.path());
}

#[test]
fn journal_with_holes_is_exported_and_imported_as_it_is() {
    let (here, there) = (folder(), folder());
    let (mut rig, gone) = chat(here.path(), 300);
    rig.enter(1, "other");
    (0..70).for_each(|number| rig.post_in("other", &format!("other {number}")));
    rig.post("the last of the lobby");
    rig.retain();
    rig.post("after");
    let before = rig.standing();
    let mut lines = Vec::new();
    assert_eq!(export(here.path(), &mut lines, &mut |_| {}).unwrap(), before.head.index);
    let text = String::from_utf8(lines).unwrap();
    assert!(gone.iter().all(|gone| !text.contains(gone)));
    let take_in = |text: &str, there: &Path| {
        import(there, super::rig::KEY, &mut text.as_bytes(), &mut |_| {})
    };
    assert_eq!(take_in(&text, there.path()).unwrap(), before.head.index);
    assert_whole(there.path());
    assert_eq!(standing(there.path()).unwrap(), before);
    let mut again = Vec::new();
    export(there.path(), &mut again, &mut |_| {}).unwrap();
    assert_eq!(String::from_utf8(again).unwrap(), text);
    let mut opened = reopen(there.path()).unwrap();
    for (room, edge) in [("lobby", 295), ("other", 61)] {
        let left = texts_of(&mut rig.parts, room, Seq::new(edge).unwrap());
        assert_eq!(texts_of(&mut opened.parts, room, Seq::new(edge).unwrap()), left);
        assert!(!left.is_empty());
    }
    // Without its state, or with a part of it, it is no chat.
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let refused = folder();
    let without =
        |part: &str| lines.iter().filter(|line| !line.contains(part)).copied().collect::<String>();
    for wrong in [without("\"type\":\"checkpoint\""), without("\"type\":\"deleted\"")] {
        assert!(take_in(&wrong, refused.path()).is_err());
        let left: Vec<_> = fs::read_dir(refused.path()).unwrap().map(|it| it.unwrap()).collect();
        assert!(left.iter().all(|file| file.file_name() == "lock"), "{left:?}");
    }
}

#[test]
fn e7_import_that_was_killed_at_its_end_is_begun_again() {
    let (here, there) = (folder(), folder());
    let (mut rig, _) = chat(here.path(), 300);
    rig.retain();
    let mut lines = Vec::new();
    export(here.path(), &mut lines, &mut |_| {}).unwrap();
    import(there.path(), super::rig::KEY, &mut lines.as_slice(), &mut |_| {}).unwrap();
    fs::rename(there.path().join("journal.db"), there.path().join("import.db")).unwrap();
    import(there.path(), super::rig::KEY, &mut lines.as_slice(), &mut |_| {}).unwrap();
    assert_eq!(standing(there.path()).unwrap(), rig.standing());
}

/// Changes a database behind everybody's back.
fn tamper(here: &Path, statement: &str) {
    let connection = rusqlite::Connection::open(here.join("journal.db")).unwrap();
    assert!(connection.execute(statement, []).unwrap() > 0);
}

#[test]
fn e5_hole_that_retention_did_not_make_is_found() {
    let here = folder();
    let (mut rig, _) = chat(here.path(), 300);
    rig.retain();
    rig.close();
    assert_whole(here.path());
    let last = |connection: &rusqlite::Connection| -> i64 {
        let blank = "SELECT max(number) FROM entry WHERE previous < 0";
        connection.query_row(blank, [], |row| row.get(0)).unwrap()
    };
    let blank = last(&rusqlite::Connection::open(here.path().join("journal.db")).unwrap());
    for (statement, flaw) in [
        // The oldest that is left, too.
        (
            format!(
                "UPDATE entry SET previous = -1, chain = iif(number = {blank}, zeroblob(32), chain)
                 WHERE number IN ({blank}, {blank} + 1)"
            ),
            Flaw::Untrimmed,
        ),
        (format!("DELETE FROM entry WHERE number = {blank}"), Flaw::Missing),
        (format!("UPDATE entry SET previous = -1 WHERE number = {}", blank + 3), Flaw::Record),
        (format!("UPDATE entry SET chain = zeroblob(32) WHERE number = {blank}"), Flaw::Chain),
        (
            format!("UPDATE entry SET chain = randomblob(32) WHERE number = {blank} - 1"),
            Flaw::Chain,
        ),
    ] {
        let tampered = folder();
        copy(here.path(), tampered.path());
        tamper(tampered.path(), &statement);
        let findings = check(tampered.path()).unwrap().findings;
        let [Finding::Row(fault)] = findings.as_slice() else {
            panic!("{statement}: {findings:?}")
        };
        assert_eq!(fault.flaw, flaw, "{statement}");
    }
}

#[test]
fn digest_is_left_of_the_last_of_deleted_records_that_follow_each_other_and_of_no_other() {
    let here = folder();
    let (mut rig, _) = chat(here.path(), 300);
    rig.enter(1, "other");
    for number in 0..9 {
        rig.post_in("other", &format!("other {number}"));
        rig.post(&format!("lobby {number}"));
    }
    // First what is between others, then what joins these.
    for (room, through) in [("other", 5), ("lobby", 309)] {
        let (room, incarnation) = (room.parse().unwrap(), Incarnation::new(1).unwrap());
        rig.input(Input::Trim { room, incarnation, through: Seq::new(through).unwrap() });
        rig.checkpoint_twice();
        sweep(&mut rig.parts);
        let connection = rusqlite::Connection::open(here.path().join("journal.db")).unwrap();
        let wrong = "SELECT count(*) FROM entry WHERE previous < 0 AND (chain = zeroblob(32)) =
            EXISTS (SELECT 1 FROM entry AS next WHERE next.number = entry.number + 1
            AND next.previous >= 0)";
        let wrong: i64 = connection.query_row(wrong, [], |row| row.get(0)).unwrap();
        assert_eq!(wrong, 0);
        let mut lines = Vec::new();
        export(here.path(), &mut lines, &mut |_| {}).unwrap();
        let gone = String::from_utf8(lines).unwrap().matches("\"type\":\"deleted\"").count();
        assert!(gone < 10, "one for each run: {gone}");
    }
    let before = rig.close();
    assert_whole(here.path());
    assert_eq!(standing(here.path()).unwrap(), before);
}

#[test]
fn older_program_reads_a_journal_of_which_nothing_was_trimmed() {
    let here = folder();
    let (mut rig, _) = chat(here.path(), 300);
    let layout = || -> u32 {
        let connection = rusqlite::Connection::open(here.path().join("journal.db")).unwrap();
        connection.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap()
    };
    assert_eq!(layout(), 1);
    rig.trim();
    assert_eq!(layout(), 2);
    rig.retain();
    assert_eq!(layout(), 2);
    let lost = StoreError::Newer { path: here.path().to_owned(), found: 2, known: 1 };
    assert!(lost.to_string().contains("newer chat-server"));
    assert!(rig.engine.head().index > Index::ZERO);
}
