//! Bytes of a peer, cut into frames and read as messages of both sides.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../shared/frame.rs"]
mod frame;

fuzz_target!(|input: &[u8]| frame::check(input));
