//! Snapshots, with their digest and with one that fits.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| chat_sim::fuzz::snapshot::check(input));
