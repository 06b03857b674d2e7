//! Journals that are cut, flipped, lost and mixed up.

mod damage;
mod faults;
mod recovery;
mod retention;
pub(super) mod rig;
mod transfer;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use chatcore::engine::ReadOrder;
use chatcore::id::{Incarnation, Index, Seq};
use chatcore::wire::RecordBody;

use crate::store::check::check_journal as check;
use crate::store::checkpoint;
use crate::store::journal::Wanted;
use rig::{Rig, copy, folder, reopen, standing};

#[test]
fn journal_comes_back_as_it_was_and_verifies() {
    let here = folder();
    let mut rig = Rig::start(here.path());
    (0..200).for_each(|number| rig.post(&format!("post {number}")));
    let before = rig.close();
    assert_eq!(standing(here.path()).unwrap(), before);
    let checked = check(here.path()).unwrap();
    assert!(checked.findings.is_empty(), "{:?}", checked.findings);
    assert_eq!((checked.entries, checked.rooms), (before.head.index, 1));
}

#[test]
fn l6_nobody_else_may_read_what_is_kept() {
    let parent = folder();
    let here = parent.path().join("data");
    let mut rig = Rig::start(&here);
    rig.post("secret");
    (rig.parts.checkpointer)(&false.into());
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&here), 0o700);
    let files: Vec<_> = fs::read_dir(&here).unwrap().map(|file| file.unwrap().path()).collect();
    assert!(files.len() >= 6, "{files:?}");
    files.iter().for_each(|file| assert_eq!(mode(file), 0o600, "{file:?}"));
}

#[test]
fn pages_are_whole_in_both_directions_at_every_place() {
    let here = folder();
    let mut rig = Rig::start(here.path());
    (0..150).for_each(|number| rig.post(&format!("post {number}")));
    let all = rig.history(1);
    let last = all.last().unwrap().seq.get();
    assert!(last > 150);
    let room: chatcore::text::RoomName = "lobby".parse().unwrap();
    for order in [ReadOrder::Forward, ReadOrder::Backward] {
        for (from, to) in (1..=last).flat_map(|from| [(from, from), (from, last), (1, from)]) {
            let (from, to) = (Seq::new(from).unwrap(), Seq::new(to).unwrap());
            let (room, incarnation) = (room.clone(), Incarnation::new(1).unwrap());
            let wanted = Wanted { room, incarnation, from, to, order };
            let page = rig.parts.history.records(&wanted).unwrap();
            let (first, end) = (page.first().unwrap().seq, page.last().unwrap().seq);
            match order {
                ReadOrder::Forward => assert_eq!(first, from),
                ReadOrder::Backward => assert_eq!(end, to),
            }
            let place = usize::try_from(first.get()).unwrap() - 1;
            assert_eq!(page, all[place..place + page.len()]);
        }
    }
}

#[test]
fn page_is_bounded_in_bytes_and_holds_one_record_at_least() {
    let here = folder();
    let mut rig = Rig::start(here.path());
    let long = "x".repeat(8_000);
    (0..50).for_each(|_| rig.post(&long));
    let incarnation = Incarnation::new(1).unwrap();
    for order in [ReadOrder::Forward, ReadOrder::Backward] {
        let room = "lobby".parse().unwrap();
        let (from, to) = (Seq::new(5).unwrap(), Seq::new(40).unwrap());
        let wanted = Wanted { room, incarnation, from, to, order };
        assert_eq!(rig.parts.history.records(&wanted).unwrap().len(), 4);
    }
    assert_eq!(rig.history(1).len(), 51);
}

#[test]
fn k5_life_that_a_reset_began_is_read_and_the_one_before_is_gone() {
    let here = folder();
    let mut rig = Rig::start(here.path());
    (0..100).for_each(|_| rig.post("before"));
    rig.reset();
    assert_eq!(rig.history(2), []);
    (0..100).for_each(|_| rig.post("after"));
    assert_eq!(rig.history(1), []);
    rig.close();
    let mut again = reopen(here.path()).unwrap();
    let records = rig::history(&mut again.parts, 2).unwrap();
    assert_eq!(records.len(), 100);
    let is_after = |body: &RecordBody| matches!(body, RecordBody::Post { text, .. } if text.as_str() == "after");
    assert!(records.iter().all(|record| is_after(&record.body)));
}

#[test]
fn e6_checkpoint_that_cannot_be_used_is_passed_over_and_nothing_is_lost() {
    let here = folder();
    let mut rig = Rig::start(here.path());
    let mut made = Vec::new();
    for _ in 0..3 {
        (0..100).for_each(|number| rig.post(&format!("post {number}")));
        (rig.parts.checkpointer)(&false.into());
        made.push(rig.engine.head().index);
    }
    rig.post("after");
    let before = rig.close();
    let found = checkpoint::list(here.path()).unwrap();
    assert_eq!(found, [made[2], made[1]], "two are kept, the newest first");
    let file = |index| checkpoint::path_of(here.path(), index);
    let spoil = |index: Index| {
        let mut bytes = fs::read(file(index)).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(file(index), bytes).unwrap();
    };
    let same = || assert_eq!(standing(here.path()).unwrap(), before);
    same();
    spoil(made[2]);
    same();
    assert_eq!(check(here.path()).unwrap().findings.len(), 1);
    spoil(made[1]);
    same();
    found.iter().for_each(|index| fs::remove_file(file(*index)).unwrap());
    same();
}

#[test]
fn e6_checkpoint_of_another_journal_is_passed_over_and_one_beyond_the_end_tells_of_a_loss() {
    let (here, other) = (folder(), folder());
    let mut rig = Rig::start(other.path());
    (0..90).for_each(|_| rig.post("another"));
    (rig.parts.checkpointer)(&false.into());
    let safe = rig.close().head.index;
    let name = checkpoint::path_of(here.path(), safe);
    let other = checkpoint::path_of(other.path(), safe);
    let mut rig = Rig::start(here.path());
    (0..10).for_each(|_| rig.post("this"));
    let before = rig.close();
    fs::copy(&other, &name).unwrap();
    let refused = standing(here.path()).unwrap_err();
    assert!(refused.to_string().contains("the newest are lost"), "{refused}");
    fs::remove_file(&name).unwrap();
    assert_eq!(standing(here.path()).unwrap(), before);
    let mut rig = Rig::start(here.path());
    (0..200).for_each(|_| rig.post("this"));
    let before = rig.close();
    fs::copy(&other, &name).unwrap();
    assert_eq!(standing(here.path()).unwrap(), before);
    assert_eq!(check(here.path()).unwrap().findings.len(), 1);
}

#[test]
fn e6_journal_that_is_gone_or_empty_is_never_begun_anew() {
    let here = folder();
    let mut rig = Rig::start(here.path());
    rig.post("kept");
    (rig.parts.checkpointer)(&false.into());
    rig.close();
    let empty = folder();
    Rig::start(empty.path()).close();
    let fresh = folder();
    drop(reopen(fresh.path()).unwrap());
    for remove in [&["journal.db"][..], &["journal.db", "tip"], &["journal.db", "journal.db-wal"]] {
        let copied = folder();
        copy(here.path(), copied.path());
        remove.iter().for_each(|name| fs::remove_file(copied.path().join(name)).unwrap());
        let refused = standing(copied.path()).unwrap_err();
        assert!(refused.to_string().contains("is gone"), "{refused}");
        assert!(!copied.path().join("journal.db").exists());
    }
    // A database that was never written to, in the place of the one that was.
    for remove in [&[][..], &["tip"]] {
        let copied = folder();
        copy(here.path(), copied.path());
        fs::copy(fresh.path().join("journal.db"), copied.path().join("journal.db")).unwrap();
        let _ = fs::remove_file(copied.path().join("journal.db-wal"));
        remove.iter().for_each(|name| fs::remove_file(copied.path().join(name)).unwrap());
        let refused = standing(copied.path()).unwrap_err();
        assert!(refused.to_string().contains("the newest are lost"), "{refused}");
    }
}

#[test]
fn e7_server_killed_before_its_first_entry_begins_again() {
    let here = folder();
    drop(reopen(here.path()).unwrap());
    fs::write(here.path().join("journal.db.new"), "half").unwrap();
    fs::write(here.path().join("checkpoint.new"), "half").unwrap();
    let mut rig = Rig::start(here.path());
    rig.post("first");
    let before = rig.close();
    assert_eq!(standing(here.path()).unwrap(), before);
    let bare = folder();
    fs::write(bare.path().join("journal.db.new"), "half").unwrap();
    Rig::start(bare.path()).close();
}

#[test]
fn data_of_a_newer_version_is_refused_and_left_byte_for_byte() {
    let here = folder();
    let mut rig = Rig::start(here.path());
    rig.post("kept");
    rig.close();
    let path = here.path().join("journal.db");
    let mut bytes = fs::read(&path).unwrap();
    bytes[63] = 3;
    fs::write(&path, &bytes).unwrap();
    let refused = standing(here.path()).unwrap_err();
    assert!(refused.to_string().contains("newer chat-server"), "{refused}");
    assert_eq!(fs::read(&path).unwrap(), bytes);
}

#[test]
fn file_that_is_no_journal_is_refused_and_left_alone() {
    for bytes in [&b""[..], b"SQLite format 3\0", &[0; 4_096]] {
        let here = folder();
        let path = here.path().join("journal.db");
        fs::write(&path, bytes).unwrap();
        let refused = standing(here.path()).unwrap_err();
        assert!(refused.to_string().contains("no journal"), "{refused}");
        assert_eq!(fs::read(&path).unwrap(), bytes);
    }
}
