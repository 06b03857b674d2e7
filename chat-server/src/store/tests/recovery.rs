//! The corpus of the fuzz target `log_recovery`, replayed; and seeds that get somewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::panic::catch_unwind;
use std::path::PathBuf;

use crate::store::fuzz::{self, Outcome, deed};

/// Set, the seeds are written to the corpus.
const REWRITE: &str = "CHATCORE_REWRITE_GOLDEN";

fn at(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fuzz").join(path)
}

/// The files of the folder in the order that the target counts them.
const CHECKPOINTS: [u8; 2] = [0, 1];
const DATABASE: u8 = 2;
const LOG: u8 = 3;
const TIP: u8 = 4;

const STOPPED: u8 = fuzz::CHECKED;
const KILLED: u8 = fuzz::CHECKED | 1;

/// Things that happen, by name, and what comes of each.
fn seeds() -> Vec<(&'static str, Vec<u8>, Outcome)> {
    use Outcome::{Beginning, New, Refused, Whole};
    let remove = |files: &[u8]| -> Vec<u8> {
        [KILLED].into_iter().chain(files.iter().flat_map(|file| [deed::REMOVE, *file])).collect()
    };
    vec![
        ("stopped", vec![STOPPED], Whole),
        ("killed", vec![KILLED], Whole),
        ("log_gone", remove(&[LOG]), Refused),
        ("log_and_tip_gone", remove(&[LOG, TIP]), Beginning),
        ("log_cut", vec![KILLED, deed::CUT, LOG, 0x20, 0], Refused),
        (
            "log_cut_as_in_a_crash",
            vec![KILLED, deed::REMOVE, TIP, deed::CUT, LOG, 0x20, 0],
            Beginning,
        ),
        ("log_flipped", vec![KILLED, deed::FLIP, LOG, 0x10, 0, 3], Refused),
        ("log_of_before", vec![STOPPED, deed::SWAP, LOG], Whole),
        ("database_gone", remove(&[DATABASE]), Refused),
        ("database_of_zeros", vec![STOPPED, deed::ZERO, DATABASE, 0], Refused),
        ("database_empty", vec![STOPPED, deed::CUT, DATABASE, 0, 0], Refused),
        ("database_no_journal", vec![STOPPED, deed::REPLACE, DATABASE, 0, 4, 1, 2, 3, 4], Refused),
        ("database_of_before", vec![STOPPED, deed::SWAP, DATABASE, deed::REMOVE, LOG], Refused),
        ("database_row_flipped", vec![STOPPED, deed::FLIP, DATABASE, 0x6F, 0xC0, 0], Refused),
        ("database_in_another_mode", vec![STOPPED, deed::WRITE, DATABASE, 0, 18, 2, 1, 1], Whole),
        ("sector_misplaced", vec![STOPPED, deed::COPY, DATABASE, 9, 55], Refused),
        ("tip_gone", remove(&[TIP]), Whole),
        ("tip_flipped", vec![KILLED, deed::FLIP, TIP, 0, 20, 1], Whole),
        ("tip_longer", vec![KILLED, deed::APPEND, TIP, 1, 7], Whole),
        ("tip_empty", vec![KILLED, deed::CUT, TIP, 0, 0], Whole),
        ("checkpoint_flipped", vec![KILLED, deed::FLIP, CHECKPOINTS[1], 0, 30, 1], Whole),
        ("checkpoints_gone", remove(&CHECKPOINTS), Whole),
        (
            "checkpoint_of_another",
            vec![KILLED, deed::RENAME, CHECKPOINTS[0], CHECKPOINTS[1]],
            Whole,
        ),
        ("only_checkpoints", remove(&[DATABASE, LOG, TIP]), Refused),
        ("only_tip", remove(&[0, 1, DATABASE, LOG]), Refused),
        ("only_log", remove(&[0, 1, DATABASE, TIP]), Refused),
        ("nothing", remove(&[0, 1, DATABASE, LOG, TIP]), New),
    ]
}

fn inputs() -> BTreeMap<String, Vec<u8>> {
    let files = fs::read_dir(at("corpus/log_recovery")).unwrap();
    let named = files.map(|file| {
        let file = file.unwrap();
        (file.file_name().into_string().unwrap(), fs::read(file.path()).unwrap())
    });
    named.collect()
}

#[test]
fn corpus_of_recoveries_holds_every_seed_and_each_gets_where_it_is_to() {
    let mut elsewhere = Vec::new();
    for (name, seed, outcome) in seeds() {
        let path = at("corpus/log_recovery").join(name);
        if std::env::var_os(REWRITE).is_some() {
            fs::write(&path, &seed).unwrap();
        }
        let found = fs::read(&path).ok();
        assert!(found.as_ref() == Some(&seed), "{name}: write it with {REWRITE}=1");
        let came = fuzz::play(&seed);
        if came != outcome {
            elsewhere.push((name, came, outcome));
        }
    }
    assert!(elsewhere.is_empty(), "name, what came, what was to come: {elsewhere:?}");
}

#[test]
fn e3_e5_e6_corpus_of_recoveries_keeps_the_rules() {
    for (name, input) in inputs() {
        let kept = catch_unwind(|| fuzz::check(&input));
        assert!(kept.is_ok(), "fuzz/corpus/log_recovery/{name} breaks a rule, see above");
    }
}

#[test]
fn e3_e5_e6_whatever_happens_to_a_folder_it_comes_back_or_is_refused() {
    let seed = 11;
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut outcomes = BTreeSet::new();
    for _ in 0..400 {
        let length = random.usize(1..40);
        let input: Vec<u8> = (0..length).map(|_| random.u8(..)).collect();
        outcomes.insert(fuzz::play(&input));
    }
    assert!(outcomes.len() >= 3, "{outcomes:?}");
}

#[test]
fn shim_of_recoveries_calls_their_body_and_nothing_else() {
    let shim = fs::read_to_string(at("fuzz_targets/log_recovery.rs")).unwrap();
    let code: Vec<&str> = shim.lines().filter(|line| !line.starts_with("//")).collect();
    let call = "libfuzzer_sys::fuzz_target!(|input: &[u8]| chat_server::fuzz::check(input));";
    assert_eq!(code, ["#![no_main]", "", call]);
}
