//! The journal as lines, and back.

use std::fs;
use std::path::Path;

use chatcore::id::{Index, PublicKey};

use super::rig::{KEY, Rig, Standing, folder, history, reopen, standing};
use crate::store::check::check_journal as check;
use crate::store::{TransferError, TransferStep, export, import};

/// A chat with a reset and a second life, still open, and its lines.
fn exported(here: &Path) -> (Rig, String) {
    let mut rig = Rig::start(here);
    (0..100).for_each(|number| rig.post(&format!("\"post\" {number}\u{0}\u{1f600}\u{202e}")));
    rig.reset();
    rig.join("beto", 2);
    (0..100).for_each(|number| rig.post(&format!("post {number}")));
    let mut lines = Vec::new();
    let count = export(here, &mut lines, &mut |_| {}).unwrap();
    assert_eq!(count, rig.engine.head().index);
    (rig, String::from_utf8(lines).unwrap())
}

fn import_text(here: &Path, text: &str) -> Result<Index, TransferError> {
    import(here, KEY, &mut text.as_bytes(), &mut |_| {})
}

#[test]
fn journal_that_is_exported_beside_a_writer_and_imported_is_the_same() {
    let (here, there) = (folder(), folder());
    let (mut rig, lines) = exported(here.path());
    let before = rig.standing();
    assert_eq!(import_text(there.path(), &lines).unwrap(), before.head.index);
    let after: Standing = standing(there.path()).unwrap();
    assert_eq!(after, before);
    let mut opened = reopen(there.path()).unwrap();
    assert_eq!(history(&mut opened.parts, 2).unwrap(), rig.history(2));
    drop(opened);
    assert!(check(there.path()).unwrap().findings.is_empty());
    let mut again = Vec::new();
    export(there.path(), &mut again, &mut |_| {}).unwrap();
    assert_eq!(String::from_utf8(again).unwrap(), lines);
    let occupied = import_text(there.path(), &lines);
    assert!(matches!(occupied, Err(TransferError::Occupied(_))), "{occupied:?}");
}

#[test]
fn lines_that_are_lost_moved_or_changed_are_refused_and_nothing_is_left() {
    let here = folder();
    let (_, text) = exported(here.path());
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let join = |lines: &[&str]| lines.concat();
    let mut wrong: Vec<String> = (0..lines.len()).map(|count| join(&lines[..count])).collect();
    for place in 0..lines.len() {
        let mut without = lines.clone();
        without.remove(place);
        let mut moved = lines.clone();
        moved.swap(place, (place + 1) % lines.len());
        wrong.extend([join(&without), join(&moved)]);
    }
    for (from, to) in [
        ("post 40", "past 40"),
        ("\"at\":1100", "\"at\":1101"),
        ("\"layout\":2", "\"layout\":3"),
        ("\"type\":\"end\"", "\"type\":\"and\""),
        ("{\"at\":1101", "{\"at\":1101,"),
    ] {
        let changed = text.replacen(from, to, 1);
        assert!(changed != text, "{from}");
        wrong.push(changed);
    }
    wrong.push(text.trim_end().to_owned());
    wrong.push("x".repeat(2 << 20));
    let there = folder();
    for text in wrong {
        assert!(import_text(there.path(), &text).is_err());
        let left: Vec<_> = fs::read_dir(there.path()).unwrap().map(|it| it.unwrap()).collect();
        assert!(left.iter().all(|file| file.file_name() == "lock"), "{left:?}");
    }
    assert!(import_text(there.path(), &text).is_ok());
}

#[test]
fn whoever_exports_and_imports_is_told_how_far_it_is() {
    let (here, there) = (folder(), folder());
    let mut rig = Rig::start(here.path());
    (0..1_500).for_each(|number| rig.post(&format!("post {number}")));
    let (mut lines, mut steps) = (Vec::new(), Vec::new());
    let last = export(here.path(), &mut lines, &mut |step| steps.push(step)).unwrap().get();
    let entries = |done, total| TransferStep::Entries { done, total };
    let of = |done| entries(done, Some(last));
    assert_eq!(steps, [of(512), of(1_024), of(last)]);
    let mut steps = Vec::new();
    import(there.path(), KEY, &mut lines.as_slice(), &mut |step| steps.push(step)).unwrap();
    assert_eq!(steps, [entries(1_024, None), TransferStep::Verifying]);
}

#[test]
fn journal_of_another_server_is_not_imported() {
    let (here, there) = (folder(), folder());
    let (_, text) = exported(here.path());
    let refused = import(there.path(), PublicKey::new([8; 32]), &mut text.as_bytes(), &mut |_| {})
        .unwrap_err();
    assert!(refused.to_string().contains("server.key"), "{refused}");
}
