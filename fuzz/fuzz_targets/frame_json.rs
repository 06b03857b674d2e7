//! Frames as JSON, one a line.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| chat_sim::fuzz::json::check(input));
