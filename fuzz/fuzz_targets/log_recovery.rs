//! Data folders to which anything happened.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| chat_server::fuzz::check(input));
