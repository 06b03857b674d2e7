//! Names, bodies, addresses, identifiers and numbers.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| chat_sim::fuzz::name::check(input));
