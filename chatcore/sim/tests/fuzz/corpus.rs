//! Every input that was worth keeping.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::panic::catch_unwind;

use chat_sim::fuzz::{TARGETS, client_ops, engine_ops};

use crate::seeds::{self, Seeds};
use crate::{at, read};

const REWRITE: &str = "CHATCORE_REWRITE_GOLDEN";
const CORPUS_BYTES_MAX: usize = 2 << 20;

/// Targets whose bodies are in another crate, which replays their corpus itself.
const ELSEWHERE: [&str; 1] = ["log_recovery"];

/// The inputs of a target by their names.
pub(crate) fn inputs(target: &str) -> BTreeMap<String, Vec<u8>> {
    let Ok(files) = fs::read_dir(at("fuzz/corpus").join(target)) else { return BTreeMap::new() };
    let named = files.map(|file| {
        let path = file.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        (name, fs::read(path).unwrap())
    });
    named.collect()
}

fn names_in(folder: &str) -> BTreeSet<String> {
    let files = fs::read_dir(at(folder)).unwrap();
    let stem = |file: fs::DirEntry| file.path().file_stem().unwrap().to_str().unwrap().to_owned();
    files.map(|file| stem(file.unwrap())).collect()
}

/// The names of the programs in a manifest.
fn bins(manifest: &str) -> BTreeSet<String> {
    let bins = manifest.split("[[bin]]").skip(1);
    bins.map(|bin| bin.split('"').nth(1).unwrap().to_owned()).collect()
}

fn write(seeds: &Seeds) {
    for ((target, name), seed) in seeds {
        let folder = at("fuzz/corpus").join(target);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(name), seed).unwrap();
    }
}

#[test]
fn corpus_holds_every_seed() {
    let seeds = seeds::all();
    if std::env::var_os(REWRITE).is_some() {
        write(&seeds);
    }
    for ((target, name), seed) in &seeds {
        let found = fs::read(at("fuzz/corpus").join(target).join(name)).ok();
        assert!(found.as_ref() == Some(seed), "{target}/{name}: write it with {REWRITE}=1");
    }
    for target in TARGETS {
        let count = seeds.keys().filter(|(of, _)| *of == target.name).count();
        assert!(count >= 5, "{} has {count} seeds", target.name);
    }
}

#[test]
fn corpus_keeps_the_rules() {
    for target in TARGETS {
        for (name, input) in inputs(target.name) {
            let kept = catch_unwind(|| (target.check)(&input));
            assert!(kept.is_ok(), "fuzz/corpus/{}/{name} breaks a rule, see above", target.name);
        }
    }
}

#[test]
fn corpus_is_small_and_each_target_has_one() {
    let mut bytes = 0;
    for target in TARGETS {
        let inputs = inputs(target.name);
        assert!(!inputs.is_empty(), "{} has no corpus", target.name);
        bytes += inputs.values().map(Vec::len).sum::<usize>();
    }
    assert!(bytes <= CORPUS_BYTES_MAX, "the corpus has {bytes} bytes");
}

#[test]
fn every_target_is_a_program_with_a_shim_and_a_corpus_and_nothing_else_is() {
    let names = TARGETS.iter().map(|target| target.name).chain(ELSEWHERE);
    let targets: BTreeSet<String> = names.map(str::to_owned).collect();
    assert_eq!(targets.len(), TARGETS.len() + ELSEWHERE.len(), "two targets have one name");
    assert_eq!(bins(&read("fuzz/Cargo.toml")), targets);
    assert_eq!(names_in("fuzz/fuzz_targets"), targets);
    assert_eq!(names_in("fuzz/corpus"), targets);
}

#[test]
fn shim_calls_the_body_of_its_target_and_nothing_else() {
    for target in TARGETS {
        let shim = read(&format!("fuzz/fuzz_targets/{}.rs", target.name));
        let code: Vec<&str> = shim.lines().filter(|line| !line.starts_with("//")).collect();
        let [main, "", call] = code[..] else { panic!("{} is no shim", target.name) };
        assert_eq!(main, "#![no_main]");
        let path = call.strip_prefix("libfuzzer_sys::fuzz_target!(|input: &[u8]| chat_sim::fuzz::");
        let path = path.and_then(|path| path.strip_suffix("(input));")).unwrap();
        let listed = format!("Target {{ name: \"{}\", check: {path} }},", target.name);
        assert!(read("chatcore/sim/src/fuzz/mod.rs").contains(&listed), "{listed}");
    }
}

#[test]
fn stream_of_all_golden_frames_takes_any_cut() {
    let frames = seeds::all().into_iter().filter(|((target, _), _)| *target == "frame");
    let stream: Vec<u8> = frames.flat_map(|(_, seed)| seed[1..].to_vec()).collect();
    for choice in 0..=u8::MAX {
        chat_sim::fuzz::frame::check(&[&[choice][..], &stream].concat());
    }
}

#[test]
fn seeds_of_operations_get_somewhere() {
    let engine = seeds::engine_scripts().into_iter().map(|(_, seed)| engine_ops::play(&seed));
    let engine: Vec<engine_ops::Report> = engine.collect();
    assert!(engine.iter().any(|report| report.records > 5), "{engine:?}");
    assert!(engine.iter().any(|report| report.opened > 1), "{engine:?}");
    assert!(engine.iter().any(|report| report.answers > 5), "{engine:?}");
    let client = seeds::client_scripts().into_iter().map(|(_, seed)| client_ops::play(&seed));
    let client: Vec<client_ops::Report> = client.collect();
    assert!(client.iter().any(|report| report.connected > 1), "{client:?}");
    assert!(client.iter().any(|report| report.records > 3), "{client:?}");
    assert!(client.iter().any(|report| report.sent > 1), "{client:?}");
}
