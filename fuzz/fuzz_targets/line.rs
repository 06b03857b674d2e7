//! The lines a person types.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| chat_sim::fuzz::line::check(input));
