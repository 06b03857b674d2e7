//! A stream cut anywhere gives the same frames, and ends as it should.

use bytes::{Bytes, BytesMut};
use chatcore::codec::{FrameBuffer, FrameCodec, FrameCodecError, encode_to_bytes};
use chatcore::wire::{ClientFrame, FRAME_BYTES_MAX, FrameFault, Refusal, ServerFrame};
use tokio_util::codec::{Decoder, Encoder as _};

use crate::golden::{Message, golden, payload};
use crate::samples;

fn stream_and_frames() -> (Bytes, Vec<Bytes>) {
    let frames: Vec<Bytes> = golden().into_iter().map(|(_, message)| message.encode()).collect();
    (frames.concat().into(), frames.iter().map(payload).collect())
}

/// The frames that pieces of a stream give, taken as soon as they are whole.
fn frames_of<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<Bytes> {
    let mut buffer = FrameBuffer::default();
    let mut frames = Vec::new();
    for piece in pieces {
        buffer.feed(piece);
        while let Some(frame) = buffer.next_frame().unwrap() {
            frames.push(frame);
        }
    }
    assert!(!buffer.is_inside_frame());
    frames
}

#[test]
fn a4_stream_cut_at_every_byte_gives_the_same_frames() {
    let (stream, frames) = stream_and_frames();
    for place in 0..=stream.len() {
        let (before, after) = stream.split_at(place);
        assert!(frames_of([before, after]) == frames, "cut at {place}");
    }
}

#[test]
fn a4_stream_of_single_bytes_gives_the_same_frames() {
    let (stream, frames) = stream_and_frames();
    assert_eq!(frames_of(stream.chunks(1)), frames);
}

/// What tokio-util's decoder makes of pieces of a stream that then ends.
fn decoded<In, Out>(pieces: &[&[u8]]) -> Result<Vec<In>, FrameCodecError>
where
    FrameCodec<In, Out>: Decoder<Item = In, Error = FrameCodecError>,
{
    let mut codec = FrameCodec::<In, Out>::default();
    let mut buffer = BytesMut::new();
    let mut messages = Vec::new();
    for piece in pieces {
        buffer.extend_from_slice(piece);
        while let Some(message) = codec.decode(&mut buffer)? {
            messages.push(message);
        }
    }
    while let Some(message) = codec.decode_eof(&mut buffer)? {
        messages.push(message);
    }
    Ok(messages)
}

#[test]
fn a4_tokio_decoder_gives_the_same_messages_however_the_stream_is_cut() {
    let stream = |is_of_side: fn(&Message) -> bool| -> Vec<u8> {
        let side = golden().into_iter().filter(|(_, message)| is_of_side(message));
        side.flat_map(|(_, message)| message.encode()).collect()
    };
    let client = stream(|message| matches!(message, Message::Client(_)));
    let server = stream(|message| matches!(message, Message::Server(_)));
    let from_client: Vec<_> =
        samples::client_frames().into_iter().map(|(_, frame)| frame).collect();
    let from_server: Vec<_> =
        samples::server_frames().into_iter().map(|(_, frame)| frame).collect();
    for place in 0..=client.len() {
        let (before, after) = client.split_at(place);
        let messages = decoded::<ClientFrame, ServerFrame>(&[before, after]).unwrap();
        assert!(messages == from_client, "cut at {place}");
    }
    for place in 0..=server.len() {
        let (before, after) = server.split_at(place);
        let messages = decoded::<ServerFrame, ClientFrame>(&[before, after]).unwrap();
        assert!(messages == from_server, "cut at {place}");
    }
    let bytes: Vec<&[u8]> = client.chunks(1).collect();
    assert_eq!(decoded::<ClientFrame, ServerFrame>(&bytes).unwrap(), from_client);
}

#[test]
fn tokio_encoder_writes_the_golden_frames() {
    let mut codec = FrameCodec::<ServerFrame, ClientFrame>::default();
    for (_, frame) in samples::client_frames() {
        let mut sink = BytesMut::new();
        codec.encode(frame.clone(), &mut sink).unwrap();
        assert_eq!(sink, encode_to_bytes(&frame));
    }
}

#[test]
fn a5_stream_that_ends_inside_a_frame_is_told_from_one_that_ends_between_frames() {
    let frame = encode_to_bytes(&samples::client_frames()[1].1);
    for len in 1..frame.len() {
        let mut buffer = FrameBuffer::default();
        buffer.feed(&frame[..len]);
        assert_eq!(buffer.next_frame(), Ok(None));
        assert!(buffer.is_inside_frame(), "after {len} bytes");
        let ended = decoded::<ClientFrame, ServerFrame>(&[&frame[..len]]).unwrap_err();
        assert!(matches!(ended, FrameCodecError::Io(_)), "after {len} bytes: {ended}");
        assert_eq!(ended.refusal(), None);
    }
    assert!(!FrameBuffer::default().is_inside_frame());
    assert_eq!(decoded::<ClientFrame, ServerFrame>(&[&frame]).unwrap().len(), 1);
    assert_eq!(decoded::<ClientFrame, ServerFrame>(&[]).unwrap(), []);
}

#[test]
fn a1_tokio_decoder_refuses_a_long_frame_from_its_header_alone() {
    let mut codec = FrameCodec::<ClientFrame, ServerFrame>::default();
    let too_long = u32::try_from(FRAME_BYTES_MAX + 1).unwrap().to_be_bytes();
    let refused = codec.decode(&mut BytesMut::from(&too_long[..])).unwrap_err();
    assert_eq!(refused.refusal(), Some(Refusal::Frame(FrameFault::TooLarge)));
    codec.set_frame_bytes_max(1);
    let mut two = BytesMut::from(&[0, 0, 0, 2][..]);
    assert!(matches!(codec.decode(&mut two), Err(FrameCodecError::Frame(FrameFault::TooLarge))));
}
