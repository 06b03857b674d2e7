//! The body of the target `frame`. `chatcore/tests/fuzz_corpus.rs` runs it over the corpus, too.

use std::fmt::Debug;

use chatcore::codec::{FrameBuffer, PREFIX_BYTES, decode, encode_to_bytes};
use chatcore::wire::{ClientFrame, FRAME_BYTES_MAX, GREETING_FRAME_BYTES_MAX, ServerFrame};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Reads one input: a first byte that chooses how the stream is cut, then the stream.
///
/// # Panics
/// When a message that decodes has another encoding too, or does not survive JSON; when the way
/// the stream is cut makes a difference.
pub(crate) fn check(input: &[u8]) {
    let Some((choice, stream)) = input.split_first() else { return };
    let frame_bytes_max = match choice & 0x80 {
        0 => FRAME_BYTES_MAX,
        _ => GREETING_FRAME_BYTES_MAX,
    };
    let pieces = frames_of(stream, piece_len(choice & 0x7F), frame_bytes_max);
    let whole = frames_of(stream, usize::MAX, frame_bytes_max);
    assert_eq!(pieces, whole, "the cuts of a stream must make no difference");
    for frame in pieces {
        check_message::<ClientFrame>(&frame);
        check_message::<ServerFrame>(&frame);
    }
}

/// 0 for the whole stream at once, else so many bytes at a time.
fn piece_len(choice: u8) -> usize {
    match choice {
        0 => usize::MAX,
        len => usize::from(len),
    }
}

/// The frames of a stream up to the first fault.
fn frames_of(stream: &[u8], piece_len: usize, frame_bytes_max: usize) -> Vec<Vec<u8>> {
    let mut buffer = FrameBuffer::new(frame_bytes_max);
    let mut frames = Vec::new();
    for piece in stream.chunks(piece_len) {
        buffer.feed(piece);
        while let Ok(Some(frame)) = buffer.next_frame() {
            assert!((1..=frame_bytes_max).contains(&frame.len()), "a frame must keep the limit");
            frames.push(frame.to_vec());
        }
    }
    frames
}

fn check_message<T>(frame: &[u8])
where
    T: DeserializeOwned + Serialize + Debug + PartialEq,
{
    let Ok(message) = decode::<T>(frame) else { return };
    let again = encode_to_bytes(&message);
    assert_eq!(again.get(PREFIX_BYTES..), Some(frame), "a message must have one encoding");
    let json = serde_json::to_string(&message).expect("a message must have a JSON form");
    let back: T = serde_json::from_str(&json).expect("the JSON form of a message must be one");
    assert_eq!(back, message, "a message must survive JSON");
}
