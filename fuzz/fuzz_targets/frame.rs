//! Bytes of a peer, cut into frames and read as messages of both sides.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| chat_sim::fuzz::frame::check(input));
