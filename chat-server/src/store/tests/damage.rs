//! Bytes that are cut off or flipped.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use chatcore::engine::ReadOrder;
use chatcore::id::{Incarnation, Index, Seq};

use super::rig::{Rig, Standing, copy, folder, history, reopen, standing};
use crate::store::check::check_journal as check;
use crate::store::journal::Wanted;
use crate::store::{Finding, StoreError};

/// Where the chat stood after each commit, by the length of the write-ahead log then.
struct Story {
    folder: tempfile::TempDir,
    /// By the last entry of each commit.
    standings: BTreeMap<Index, Standing>,
    /// The last entry that was safe at a length of the log.
    safe: BTreeMap<u64, Index>,
}

/// A chat with a gate that opens, a reset and another life, each input a commit of its own.
fn story() -> Story {
    let here = folder();
    let mut rig = Rig::start(here.path());
    let (mut standings, mut safe) = (BTreeMap::new(), BTreeMap::new());
    let log = here.path().join("journal.db-wal");
    let mut note = |rig: &Rig| {
        standings.insert(rig.engine.head().index, rig.standing());
        safe.insert(fs::metadata(&log).unwrap().len(), rig.engine.head().index);
    };
    note(&rig);
    for number in 0..70 {
        match number {
            20 => rig.join("beto", 2),
            40 => rig.reset(),
            _ => rig.post(&format!("post {number}")),
        }
        note(&rig);
    }
    Story { folder: here, standings, safe }
}

#[test]
fn e3_e7_k5_log_cut_at_every_512_bytes_gives_every_acknowledged_entry_or_is_refused() {
    let Story { folder: whole, standings, safe } = story();
    let log = fs::read(whole.path().join("journal.db-wal")).unwrap();
    let last = *safe.values().last().unwrap();
    let mut recovered = 0;
    for length in (0..=log.len()).step_by(512).chain([log.len()]) {
        let cut = folder();
        copy(whole.path(), cut.path());
        fs::write(cut.path().join("journal.db-wal"), &log[..length]).unwrap();
        // As it is after a crash: nothing says more than the log.
        fs::remove_file(cut.path().join("tip")).unwrap();
        let wanted = safe.range(..=u64::try_from(length).unwrap()).next_back();
        match standing(cut.path()) {
            Ok(found) if found.head.index == Index::ZERO.next() => {
                assert_eq!(wanted, None, "begun anew at {length}");
            }
            Ok(found) => {
                let index = found.head.index;
                assert!(wanted.is_none_or(|(_, safe)| index >= *safe), "{index} at {length}");
                // All of a reset or nothing of it.
                assert!(standings.get(&index).is_none_or(|standing| *standing == found));
                recovered += 1;
            }
            Err(refused) => panic!("a log cut at {length} is a crash: {refused}"),
        }
        // With the word that more was safe it is no crash but a loss.
        let short = folder();
        copy(whole.path(), short.path());
        fs::write(short.path().join("journal.db-wal"), &log[..length]).unwrap();
        match standing(short.path()) {
            Ok(found) => assert_eq!(found.head.index, last, "cut at {length}"),
            Err(StoreError::Lost { safe, .. }) => assert_eq!(safe, last, "cut at {length}"),
            Err(other) => panic!("{other}, cut at {length}"),
        }
    }
    assert!(recovered > 100, "{recovered}");
}

/// A small chat that has been stopped in order: all of it is in the database.
fn small(posts: u32) -> (tempfile::TempDir, Standing) {
    let here = folder();
    let mut rig = Rig::start(here.path());
    (0..posts).for_each(|number| rig.post(&format!("post {number}")));
    let standing = rig.close();
    (here, standing)
}

#[test]
fn e3_database_cut_at_every_512_bytes_is_whole_or_refused() {
    let (whole, before) = small(120);
    let bytes = fs::read(whole.path().join("journal.db")).unwrap();
    for length in (0..bytes.len()).step_by(512) {
        let cut = folder();
        copy(whole.path(), cut.path());
        fs::write(cut.path().join("journal.db"), &bytes[..length]).unwrap();
        if let Ok(found) = standing(cut.path()) {
            assert_eq!(found, before, "cut at {length}");
        }
    }
}

/// What a folder gives after a bit of it was flipped: all as it was, or a refusal at the start, of
/// the check, or of a page of history.
fn judge(here: &Path, before: &Standing, records: usize) -> &'static str {
    let Ok(mut opened) = reopen(here) else { return "refused" };
    let found = Standing { head: opened.engine.head(), state_hash: opened.engine.state_hash() };
    assert_eq!(found, *before);
    let read = history(&mut opened.parts, 1);
    drop(opened);
    match read {
        Ok(found) => assert_eq!(found.len(), records),
        Err(_) => return "unreadable",
    }
    match check(here) {
        Ok(checked) if checked.findings.is_empty() => "equal",
        Ok(_) | Err(_) => "found",
    }
}

/// Which bits are flipped: all of the file's head, of one row and of the only anchor, which is at the
/// end of the third page, and some of everything. With
/// `CHAT_FLIPS=all`, every bit of the file, which takes minutes.
fn bits_of(bytes: &[u8]) -> Vec<usize> {
    if std::env::var("CHAT_FLIPS").is_ok_and(|flips| flips == "all") {
        return (0..bytes.len() * 8).collect();
    }
    let seed = 5;
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let text = b"post 33";
    let row = bytes.windows(text.len()).position(|window| window == text).unwrap();
    let anchor = 3 * 4_096 - 16..3 * 4_096;
    let chosen = (0..100).chain(row - 100..row + 20).chain(anchor);
    let chosen = chosen.flat_map(|byte| byte * 8..byte * 8 + 8);
    chosen.chain((0..800).map(|_| random.usize(0..bytes.len() * 8))).collect()
}

#[test]
fn e5_flipped_bit_of_a_database_is_refused_or_changes_nothing() {
    let (whole, before) = small(66);
    let bytes = fs::read(whole.path().join("journal.db")).unwrap();
    let here = folder();
    copy(whole.path(), here.path());
    let mut outcomes: BTreeMap<&str, u32> = BTreeMap::new();
    for bit in bits_of(&bytes) {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        fs::write(here.path().join("journal.db"), &flipped).unwrap();
        // What the one before left behind is not of this one.
        let _ = fs::remove_file(here.path().join("journal.db-wal"));
        let _ = fs::remove_file(here.path().join("journal.db-shm"));
        *outcomes.entry(judge(here.path(), &before, 67)).or_default() += 1;
    }
    println!("{} bytes: {outcomes:?}", bytes.len());
    // An anchor is not looked at by a start.
    for outcome in ["refused", "found", "equal"] {
        assert!(outcomes.contains_key(outcome), "{outcome}");
    }
}

#[test]
fn e5_row_that_no_start_looks_at_is_refused_when_it_is_read_and_the_others_are_not() {
    let here = folder();
    let mut rig = Rig::start(here.path());
    (0..400).for_each(|number| rig.post(&format!("post {number}")));
    (rig.parts.checkpointer)(&false.into());
    let before = rig.close();
    let path = here.path().join("journal.db");
    let mut bytes = fs::read(&path).unwrap();
    let text = b"post 100";
    let place = bytes.windows(text.len()).position(|window| window == text).unwrap();
    bytes[place] ^= 1;
    fs::write(&path, &bytes).unwrap();
    assert_eq!(standing(here.path()).unwrap(), before, "the checkpoint is after it");
    let mut opened = reopen(here.path()).unwrap();
    let fault = history(&mut opened.parts, 1).unwrap_err();
    let mut read = |from: u64, to: u64| {
        opened.parts.history.records(&Wanted {
            room: "lobby".parse().unwrap(),
            incarnation: Incarnation::new(1).unwrap(),
            from: Seq::new(from).unwrap(),
            to: Seq::new(to).unwrap(),
            order: ReadOrder::Forward,
        })
    };
    // The first record says that ana joined.
    assert!(read(1, 64).is_ok() && read(129, 192).is_ok() && read(300, 401).is_ok());
    assert_eq!(read(90, 110).unwrap_err().row, fault.row);
    drop(opened);
    let findings = check(here.path()).unwrap().findings;
    let Some(Finding::Row(found)) = findings.first() else { panic!("{findings:?}") };
    assert_eq!((found.table, found.row), (fault.table, fault.row));
}

#[test]
fn e5_damaged_tip_is_found_and_keeps_nobody_from_starting() {
    let (here, before) = small(10);
    let path = here.path().join("tip");
    let mut bytes = fs::read(&path).unwrap();
    bytes[20] ^= 1;
    fs::write(&path, bytes).unwrap();
    let findings = check(here.path()).unwrap().findings;
    assert!(matches!(findings.as_slice(), [Finding::Tip(_)]), "{findings:?}");
    assert_eq!(standing(here.path()).unwrap(), before);
}
