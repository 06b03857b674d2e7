//! Golden frames, damaged in every small way: refused, or another message with those very bytes.

use bytes::BytesMut;
use chatcore::codec::FrameBuffer;
use chatcore::wire::DecodeFault;

use crate::golden::{Message, golden, hex, payload};

/// What a damaged stream says, if anything; it must say it in exactly its own bytes.
#[track_caller]
fn assert_canonical(like: &Message, stream: &[u8]) {
    let mut buffer = FrameBuffer::default();
    buffer.feed(stream);
    let mut seen = BytesMut::new();
    while let Ok(Some(frame)) = buffer.next_frame() {
        let Ok(message) = like.decode_alike(&frame) else { return };
        seen.extend_from_slice(&message.encode());
        assert!(stream.starts_with(&seen), "{} is read as {message:?}", hex(stream));
    }
}

#[test]
fn a7_every_flipped_bit_is_refused_or_is_the_one_encoding_of_another_message() {
    for (_, message) in golden() {
        let good = message.encode();
        for place in 0..good.len() * 8 {
            let mut bad = BytesMut::from(&good[..]);
            bad[place / 8] ^= 1 << (place % 8);
            assert_canonical(&message, &bad);
        }
    }
}

#[test]
fn truncated_golden_frames_are_refused_at_every_length() {
    for (name, message) in golden() {
        let whole = payload(&message.encode());
        for len in 0..whole.len() {
            let refused = message.decode_alike(&whole[..len]);
            assert_eq!(refused, Err(DecodeFault::Truncated), "{name} at {len}");
        }
    }
}

#[test]
fn a8_golden_frames_with_a_byte_behind_them_are_refused() {
    for (name, message) in golden() {
        for behind in [0x00, 0x01, 0x7F, 0x80, 0xFF] {
            let mut longer = payload(&message.encode()).to_vec();
            longer.push(behind);
            let refused = message.decode_alike(&longer);
            assert_eq!(refused, Err(DecodeFault::TrailingBytes), "{name}");
        }
    }
}
