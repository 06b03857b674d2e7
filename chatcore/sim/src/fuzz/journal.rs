//! Journals from anywhere: entries one after the other, each a frame.

use chatcore::codec::FrameBuffer;
use chatcore::engine::{Config, Engine, RestoreError};
use chatcore::id::LogId;
use chatcore::log::{Change, Entry, Head};
use chatcore::time::Now;

use super::message::check_message;

/// Reads one input: the framed entries of a journal.
///
/// Entries whose chain fits are *not* applied: a journal that no engine wrote makes
/// [`Engine::replay`] panic by its own word, and anybody can compute a chain.
///
/// # Panics
/// When an entry has another encoding too, or when a chain takes an entry that is not the next one.
pub fn check(input: &[u8]) {
    let entries = entries_of(input);
    let mut head = Head::new(log_id_of(&entries));
    let mut whole = !entries.is_empty();
    for entry in &entries {
        let before = head;
        if head.follow(entry).is_err() {
            assert_eq!(head, before, "a head must stay where an entry does not follow");
            whole = false;
            break;
        }
        let mut again = before;
        let made = again.append(entry.header.at, entry.change.clone());
        assert_eq!((&made, again), (entry, head), "what follows is what would have been written");
        if let Some(record) = entry.record() {
            assert_eq!(entry.change.room(), Some(&record.room), "a record is of its entry's room");
        }
    }
    if !whole {
        check_refusal(entries);
    }
}

fn entries_of(input: &[u8]) -> Vec<Entry> {
    let mut buffer = FrameBuffer::default();
    buffer.feed(input);
    let mut entries = Vec::new();
    while let Ok(Some(frame)) = buffer.next_frame() {
        let Ok(entry) = check_message::<Entry>(&frame) else { break };
        entries.push(entry);
    }
    entries
}

fn log_id_of(entries: &[Entry]) -> LogId {
    match entries.first().map(|entry| &entry.change) {
        Some(Change::Founded(founding)) => founding.log_id,
        _ => LogId::new([0; LogId::LEN]),
    }
}

/// A journal whose first entry is no founding, or is damaged, is refused; never a panic. Later
/// damage is met by a replay only after it applied what comes before.
fn check_refusal(entries: Vec<Entry>) {
    let first = entries.into_iter().next();
    let refused = Engine::replay(first, Config::default(), Now::default());
    let fits = matches!(refused, Err(RestoreError::NotFounded | RestoreError::Chain(_)) | Ok(_));
    assert!(fits, "a journal is refused for what is wrong with it");
}
