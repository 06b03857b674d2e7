//! A client between a user, a network and a server.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| chat_sim::fuzz::client_ops::check(input));
