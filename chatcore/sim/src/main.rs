//! Runs worlds from seeds.
#![forbid(unsafe_code)]

fn main() {}
