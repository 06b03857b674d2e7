//! Operations on an engine and its delivery shards.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| chat_sim::fuzz::engine_ops::check(input));
