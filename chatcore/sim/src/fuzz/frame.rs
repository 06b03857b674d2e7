//! Bytes of a peer, cut into frames and read as messages of both sides.

use bytes::BytesMut;
use chatcore::codec::{FrameBuffer, FrameCodec, FrameCodecError, decode};
use chatcore::wire::{ClientFrame, FRAME_BYTES_MAX, GREETING_FRAME_BYTES_MAX, ServerFrame};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_util::codec::Decoder;

use super::message::check_message;

/// Reads one input: a first byte that chooses how the stream is cut, then the stream.
///
/// # Panics
/// When the way a stream is cut makes a difference, when the codec behind tokio-util's traits reads
/// another stream than the frame buffer, or when a frame breaks a rule of messages.
pub fn check(input: &[u8]) {
    let Some((choice, stream)) = input.split_first() else { return };
    let frame_bytes_max = match choice & 0x80 {
        0 => FRAME_BYTES_MAX,
        _ => GREETING_FRAME_BYTES_MAX,
    };
    let pieces = frames_of(stream, piece_len(choice & 0x7F), frame_bytes_max);
    let whole = frames_of(stream, usize::MAX, frame_bytes_max);
    assert_eq!(pieces, whole, "the cuts of a stream must make no difference");
    // Now and then, the seeds among them: it costs as much as all the rest.
    if choice % 4 == 3 {
        check_codec::<ClientFrame>(stream, &whole, frame_bytes_max);
        check_codec::<ServerFrame>(stream, &whole, frame_bytes_max);
    }
    for frame in whole {
        // Whether it is a message does not matter here.
        let _ = check_message::<ClientFrame>(&frame);
        let _ = check_message::<ServerFrame>(&frame);
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
    for (place, piece) in stream.chunks(piece_len).enumerate() {
        // The two ways in are one.
        if place.is_multiple_of(2) {
            buffer.feed(piece);
        } else {
            buffer.as_mut().extend_from_slice(piece);
        }
        while let Ok(Some(frame)) = buffer.next_frame() {
            assert!((1..=frame_bytes_max).contains(&frame.len()), "a frame must keep the limit");
            frames.push(frame.to_vec());
        }
    }
    frames
}

/// The codec gives of each frame what [`decode`] does, up to the first fault.
fn check_codec<T>(stream: &[u8], frames: &[Vec<u8>], frame_bytes_max: usize)
where
    T: DeserializeOwned + Serialize + PartialEq + std::fmt::Debug,
{
    let mut codec = FrameCodec::<T, T>::default();
    codec.set_frame_bytes_max(frame_bytes_max);
    let mut stream = BytesMut::from(stream);
    for frame in frames {
        match (codec.decode(&mut stream), decode::<T>(frame)) {
            (Ok(Some(one)), Ok(other)) => assert_eq!(one, other, "both must read the same"),
            (Err(FrameCodecError::Decode(one)), Err(other)) => {
                assert_eq!(one, other, "both must refuse for the same reason");
                return;
            }
            (one, other) => panic!("the codec reads {one:?} where the buffer reads {other:?}"),
        }
    }
}
