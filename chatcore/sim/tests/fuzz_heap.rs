//! What the messages of the corpus cost in memory while they are read. A test binary of its own: it
//! counts every allocation.
#![expect(clippy::unwrap_used, reason = "a test that panics is a test that fails")]

use std::fs;
use std::path::PathBuf;

use allocation_counter::measure;
use chatcore::codec::decode;
use chatcore::wire::{ClientFrame, LIST_MAX, ServerFrame};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The memory of one item of a list beside its text, texts included as what `Arc` adds to them; a
/// list that grows holds its items up to three times.
const ITEM_BYTES: usize = 3 * 256;

fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let files = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    files.map(|path| (path.display().to_string(), fs::read(path).unwrap())).collect()
}

/// The most memory that a frame may take: twice its bytes, and the items that really came. An item
/// takes a byte at least.
fn most(frame: &[u8]) -> usize {
    2 * frame.len() + ITEM_BYTES * frame.len().min(LIST_MAX + 1)
}

fn check<T: DeserializeOwned + Serialize>(target: &str) {
    for (name, frame) in corpus(target) {
        let cost = measure(|| drop(decode::<T>(&frame)));
        let (bytes, most) = (usize::try_from(cost.bytes_max).unwrap(), most(&frame));
        assert!(bytes <= most, "{name}: {bytes} bytes for a frame of {}", frame.len());
    }
}

#[test]
fn a10_message_of_the_corpus_costs_no_more_than_what_really_came() {
    check::<ClientFrame>("client_message");
    check::<ServerFrame>("server_message");
}

#[test]
fn a10_claim_without_items_costs_next_to_nothing() {
    // An answer with a list of rooms that claims 2^32 - 1 of them.
    let bomb = [5, 1, 3, 0xFF, 0xFF, 0xFF, 0xFF, 0x0F];
    let cost = measure(|| assert!(decode::<ServerFrame>(&bomb).is_err()));
    assert!(usize::try_from(cost.bytes_max).unwrap() <= most(&bomb), "{cost:?}");
}
