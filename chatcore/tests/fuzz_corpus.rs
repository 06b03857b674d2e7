//! The fuzz corpus, replayed by plain `cargo test`.
#![expect(clippy::unwrap_used, reason = "a test that panics is a test that fails")]

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

#[path = "../../fuzz/shared/frame.rs"]
mod frame;

const REWRITE: &str = "CHATCORE_REWRITE_GOLDEN";

/// How seeds are cut: seven bytes at a time.
const SEED_CHOICE: u8 = 7;

fn here() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn corpus_dir() -> PathBuf {
    here().join("../fuzz/corpus/frame")
}

fn corpus() -> BTreeMap<String, Vec<u8>> {
    let files = fs::read_dir(corpus_dir()).unwrap();
    files
        .map(|file| {
            let path = file.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, fs::read(path).unwrap())
        })
        .collect()
}

fn unhex(text: &str) -> Vec<u8> {
    assert!(text.len().is_multiple_of(2), "{text}");
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

/// The golden frames as inputs of the target.
fn seeds() -> BTreeMap<String, Vec<u8>> {
    let golden = fs::read_to_string(here().join("tests/wire/golden.txt")).unwrap();
    let entries = golden.split("\n\n").skip(1);
    entries
        .map(|entry| {
            let mut lines = entry.lines();
            let name = lines.next().unwrap().to_owned();
            let frame = unhex(lines.next().unwrap());
            (name, [&[SEED_CHOICE][..], &frame].concat())
        })
        .collect()
}

#[test]
fn fuzz_corpus_holds_every_golden_frame() {
    let seeds = seeds();
    if std::env::var_os(REWRITE).is_some() {
        for (name, seed) in &seeds {
            fs::write(corpus_dir().join(name), seed).unwrap();
        }
    }
    let corpus = corpus();
    assert!(seeds.len() > 50);
    for (name, seed) in &seeds {
        assert_eq!(corpus.get(name), Some(seed), "{name}: write it with {REWRITE}=1");
    }
}

#[test]
fn fuzz_corpus_holds_to_the_rules() {
    for input in corpus().values() {
        frame::check(input);
    }
}

#[test]
fn fuzz_target_takes_any_cut() {
    let stream: Vec<u8> = seeds().into_values().flat_map(|seed| seed[1..].to_vec()).collect();
    for choice in 0..=u8::MAX {
        frame::check(&[&[choice][..], &stream].concat());
    }
}
