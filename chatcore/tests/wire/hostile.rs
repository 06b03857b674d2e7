//! Hostile bytes, each with the refusal it gets.

use bytes::{BufMut as _, BytesMut};
use chatcore::codec::{FrameBuffer, PREFIX_BYTES, decode, encode_to_bytes};
use chatcore::id::{Incarnation, RequestId};
use chatcore::text::{Body, BodyError, NameError, RoomName, Untrusted, UserName};
use chatcore::wire::{
    Answer, ClientFrame, Command, DecodeFault, FRAME_BYTES_MAX, FrameFault,
    GREETING_FRAME_BYTES_MAX, LIST_MAX, ServerFrame,
};

use crate::samples::counter;

/// A frame of `len` bytes, of no meaning.
fn frame_of(len: usize) -> BytesMut {
    let mut frame = BytesMut::new();
    frame.put_u32(u32::try_from(len).unwrap());
    frame.resize(PREFIX_BYTES + len, 0);
    frame
}

#[test]
fn a1_length_over_the_limit_is_refused_from_the_header_alone() {
    for len in [FRAME_BYTES_MAX + 1, 1 << 24, u32::MAX as usize] {
        let mut buffer = FrameBuffer::default();
        buffer.feed(&u32::try_from(len).unwrap().to_be_bytes());
        assert_eq!(buffer.next_frame(), Err(FrameFault::TooLarge), "{len}");
    }
    let mut buffer = FrameBuffer::new(GREETING_FRAME_BYTES_MAX);
    buffer.feed(&frame_of(GREETING_FRAME_BYTES_MAX + 1)[..PREFIX_BYTES]);
    assert_eq!(buffer.next_frame(), Err(FrameFault::TooLarge));
}

#[test]
fn a1_stream_with_a_wrong_length_stays_refused_and_keeps_nothing() {
    let mut buffer = FrameBuffer::default();
    buffer.feed(&[0xFF; PREFIX_BYTES]);
    assert_eq!(buffer.next_frame(), Err(FrameFault::TooLarge));
    buffer.feed(&encode_to_bytes(&ClientFrame::Leave));
    assert_eq!(buffer.next_frame(), Err(FrameFault::TooLarge));
    assert!(!buffer.is_inside_frame());
}

#[test]
fn a2_frame_of_exactly_the_limit_is_taken_and_of_one_byte_more_is_not() {
    for limit in [GREETING_FRAME_BYTES_MAX, FRAME_BYTES_MAX] {
        let mut buffer = FrameBuffer::new(limit);
        buffer.feed(&frame_of(limit));
        assert_eq!(buffer.next_frame().unwrap().unwrap().len(), limit);
        buffer.feed(&frame_of(limit + 1));
        assert_eq!(buffer.next_frame(), Err(FrameFault::TooLarge));
    }
}

#[test]
fn a2_limit_that_grows_at_log_in_holds_for_the_next_frame() {
    let mut buffer = FrameBuffer::new(GREETING_FRAME_BYTES_MAX);
    buffer.feed(&frame_of(1));
    buffer.feed(&frame_of(FRAME_BYTES_MAX));
    assert!(buffer.next_frame().unwrap().is_some());
    buffer.set_frame_bytes_max(FRAME_BYTES_MAX);
    assert_eq!(buffer.next_frame().unwrap().unwrap().len(), FRAME_BYTES_MAX);
}

#[test]
fn a3_frame_without_bytes_is_refused() {
    let mut buffer = FrameBuffer::default();
    buffer.feed(&[0; PREFIX_BYTES]);
    assert_eq!(buffer.next_frame(), Err(FrameFault::Empty));
    assert_eq!(decode::<ClientFrame>(&[]), Err(DecodeFault::Truncated));
}

/// A hello with `features` spelled like this.
fn hello_with_features(features: &[u8]) -> Result<ClientFrame, DecodeFault> {
    decode(&[&[0, 0, 1, 1], features].concat())
}

#[test]
fn a6_number_of_more_bytes_than_its_type_may_have_is_refused() {
    assert!(hello_with_features(&[0xFF, 0xFF, 0xFF, 0xFF, 0x0F]).is_ok());
    for features in [
        [0xFF, 0xFF, 0xFF, 0xFF, 0x1F].as_slice(),
        &[0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x00],
        &[0x80, 0x80, 0x80, 0x80, 0x80, 0x01],
    ] {
        assert_eq!(hello_with_features(features), Err(DecodeFault::Number), "{features:x?}");
    }
    // A token of 11 bytes, and a tenth byte beyond 64 bits.
    let token = |token: &[u8]| decode::<ClientFrame>(&[&[4], token].concat());
    assert_eq!(token(&[0x80; 11]), Err(DecodeFault::Number));
    let beyond = [&[0xFF; 9][..], &[0x02]].concat();
    assert_eq!(token(&beyond), Err(DecodeFault::Number));
    // 2^53 - 1 is the last counter, 2^53 is none.
    let last = [0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x0F];
    assert_eq!(token(&last), Ok(ClientFrame::Ping { token: RequestId::MAX }));
    let next = [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x10];
    assert_eq!(token(&next), Err(DecodeFault::Value));
    // The kind of a frame is a number of at most 32 bits.
    assert_eq!(decode::<ClientFrame>(&[0x80; 6]), Err(DecodeFault::Number));
}

#[test]
fn a7_number_with_a_longer_spelling_than_needed_is_refused() {
    assert!(hello_with_features(&[0]).is_ok());
    assert_eq!(hello_with_features(&[0x80, 0x00]), Err(DecodeFault::NotCanonical));
    let padded = hello_with_features(&[0x80, 0x80, 0x80, 0x80, 0x00]);
    assert_eq!(padded, Err(DecodeFault::NotCanonical));
}

#[test]
fn a7_kind_with_a_longer_spelling_than_needed_is_refused() {
    assert_eq!(decode::<ClientFrame>(&[6]), Ok(ClientFrame::Leave));
    assert_eq!(decode::<ClientFrame>(&[0x86, 0x00]), Err(DecodeFault::NotCanonical));
    assert_eq!(decode::<ClientFrame>(&[0x86, 0x80, 0x00]), Err(DecodeFault::NotCanonical));
}

#[test]
fn a7_kind_option_or_flag_that_does_not_exist_is_refused() {
    assert_eq!(decode::<ClientFrame>(&[9]), Err(DecodeFault::Value));
    let order = [&[7][..], &[0; 32], &[1], &[0; 64]].concat();
    assert_eq!(decode::<ClientFrame>(&order), Err(DecodeFault::Value));
    // A role that does not exist, a history before option 2, a threshold of zero.
    assert_eq!(decode::<ClientFrame>(&[0, 2, 1, 1, 0]), Err(DecodeFault::Value));
    assert_eq!(decode::<ClientFrame>(&[3, 1, 5, 1, b'a', 2, 0]), Err(DecodeFault::Value));
    assert_eq!(decode::<ClientFrame>(&[2, 1, 1, 1, b'a', 0]), Err(DecodeFault::Value));
}

#[test]
fn a8_second_message_in_a_frame_is_refused() {
    assert_eq!(decode::<ClientFrame>(&[6, 6]), Err(DecodeFault::TrailingBytes));
}

#[test]
fn a10_text_claiming_more_bytes_than_there_are_is_refused() {
    for claim in [
        [0x05].as_slice(),
        &[0xFF, 0xFF, 0xFF, 0xFF, 0x0F],
        &[0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x01],
    ] {
        let part = [&[3, 1, 1], claim, b"room"].concat();
        assert_eq!(decode::<ClientFrame>(&part), Err(DecodeFault::Truncated), "{claim:x?}");
    }
}

#[test]
fn a10_list_claiming_more_items_than_there_are_is_refused() {
    let empty_page = ServerFrame::Answer {
        request: RequestId::ZERO,
        answer: Answer::History {
            room: "a".parse().unwrap(),
            incarnation: Incarnation::ZERO,
            records: chatcore::wire::List::default(),
        },
    };
    let frame = encode_to_bytes(&empty_page).slice(PREFIX_BYTES..);
    let (zero, before) = frame.split_last().unwrap();
    assert_eq!(*zero, 0, "the number of records comes last");
    let bomb = [before, &[0xFF, 0xFF, 0xFF, 0xFF, 0x0F]].concat();
    assert_eq!(decode::<ServerFrame>(&bomb), Err(DecodeFault::Truncated));
}

/// A list of users with so many names, as a hostile server would write it.
fn users_frame(count: usize) -> Vec<u8> {
    let names = postcard::to_allocvec(&vec!["a"; count]).unwrap();
    [&[5, 0, 2, 1, b'a', 0][..], &names, &[0]].concat()
}

#[test]
fn a13_list_of_257_items_is_refused_and_of_256_is_not() {
    assert!(decode::<ServerFrame>(&users_frame(LIST_MAX)).is_ok());
    let refused = decode::<ServerFrame>(&users_frame(LIST_MAX + 1));
    assert_eq!(refused, Err(DecodeFault::Value));
}

#[test]
fn a13_text_over_its_own_limit_decodes_and_is_refused_with_a_reason() {
    let long = "x".repeat(60_000);
    let command = Command::Post {
        room: Untrusted::<RoomName>::new("x".repeat(1_000)),
        incarnation: None,
        body: Untrusted::<Body>::new(long),
    };
    let frame = encode_to_bytes(&ClientFrame::Submit { counter: counter(1), command });
    let decoded = decode::<ClientFrame>(&frame[PREFIX_BYTES..]).unwrap();
    let ClientFrame::Submit { command: Command::Post { room, body, .. }, .. } = decoded else {
        panic!("a post was encoded");
    };
    assert_eq!(room.parse(), Err(NameError::TooLong));
    assert_eq!(body.parse(), Err(BodyError::TooLong));
    assert_eq!(Untrusted::<UserName>::new("x".repeat(33)).parse(), Err(NameError::TooLong));
    assert!(Untrusted::<UserName>::new("x".repeat(32)).parse().is_ok());
}

#[test]
fn a13_text_of_a_server_over_its_own_limit_is_refused() {
    let part = |room: &str| {
        let room = postcard::to_allocvec(room).unwrap();
        decode::<ServerFrame>(&[&[5, 0, 1][..], &room].concat())
    };
    assert!(part(&"x".repeat(64)).is_ok());
    assert_eq!(part(&"x".repeat(65)), Err(DecodeFault::Value));
    // Names travel in their enforced form only.
    assert_eq!(part("Lobby"), Err(DecodeFault::Value));
}

#[test]
fn a14_text_that_is_not_utf_8_is_refused_and_never_replaced() {
    for text in [&[0xFF][..], &[0xC3, 0x28], &[0xED, 0xA0, 0x80], &[0xC0, 0xAF], &[0xE2, 0x82]] {
        let len = u8::try_from(text.len()).unwrap();
        let part = [&[3, 1, 1, len], text].concat();
        assert_eq!(decode::<ClientFrame>(&part), Err(DecodeFault::Text), "{text:x?}");
        let parted = [&[5, 0, 1, len], text].concat();
        assert_eq!(decode::<ServerFrame>(&parted), Err(DecodeFault::Text), "{text:x?}");
    }
}
