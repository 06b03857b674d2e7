//! Single requests to a directory.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| chat_sim::fuzz::message::check_node(input));
