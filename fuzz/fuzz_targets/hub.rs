//! Bytes of several connections to a whole server in memory.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| chat_sim::fuzz::hub::check(input));
