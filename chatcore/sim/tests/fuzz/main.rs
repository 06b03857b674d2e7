//! The fuzz corpus, replayed by plain `cargo test`; and what keeps targets and corpus whole.
#![expect(clippy::unwrap_used, reason = "a test that panics is a test that fails")]

mod corpus;
mod entries;
mod scan;
mod seeds;

use std::fs;
use std::path::PathBuf;

/// A path of the workspace.
fn at(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

fn read(path: &str) -> String {
    fs::read_to_string(at(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}
