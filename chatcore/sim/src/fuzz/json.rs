//! Frames as JSON, one a line, as those who prefer text write them.

use core::fmt::Debug;

use chatcore::codec::{PREFIX_BYTES, decode, encode_to_bytes};
use chatcore::migration::directory::{DirectoryReply, DirectoryRequest};
use chatcore::wire::{ClientFrame, FRAME_BYTES_MAX, ServerFrame};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Reads one input: lines of JSON.
///
/// # Panics
/// When a line that is a message does not survive the binary form, or is printed as a line that
/// means something else.
pub fn check(input: &[u8]) {
    let lines = input.split(|byte| *byte == b'\n').filter(|line| line.len() <= FRAME_BYTES_MAX);
    for line in lines {
        check_line::<ClientFrame>(line);
        check_line::<ServerFrame>(line);
        check_line::<DirectoryRequest>(line);
        check_line::<DirectoryReply>(line);
    }
}

fn check_line<T>(line: &[u8])
where
    T: DeserializeOwned + Serialize + Debug + PartialEq,
{
    let Ok(message) = serde_json::from_slice::<T>(line) else { return };
    // The binary form is never longer than the line, so it fits in a frame.
    let frame = encode_to_bytes(&message);
    let payload = frame.get(PREFIX_BYTES..).unwrap_or_default();
    assert!(payload.len() <= line.len(), "the binary form must be the shorter one");
    let back = decode::<T>(payload).expect("what came as JSON must have a binary form");
    assert_eq!(back, message, "a message must survive the binary form");
    let printed = serde_json::to_string(&message).expect("a message must have a JSON form");
    assert!(!printed.contains('\n'), "a message must be one line");
    let parsed: T = serde_json::from_str(&printed).expect("a printed message must be one");
    assert_eq!(parsed, message, "a message must survive printing");
    let again = serde_json::to_string(&parsed).expect("a message must have a JSON form");
    assert_eq!(again, printed, "a message must have one printed form");
}
