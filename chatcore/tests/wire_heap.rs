//! What hostile frames cost in memory. A test binary of its own: it counts every allocation.
#![expect(clippy::unwrap_used, reason = "a test that panics is a test that fails")]

use core::hint::black_box;

use allocation_counter::{AllocationInfo, measure};
use chatcore::codec::{FrameBuffer, decode};
use chatcore::wire::{ClientFrame, DecodeFault, FRAME_BYTES_MAX, FrameFault, ServerFrame};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Lengths as varints: 2^14 - 1, 2^16, 2^32 - 1, 2^64 - 1.
const CLAIMS: [&[u8]; 4] = [
    &[0xFF, 0x7F],
    &[0x80, 0x80, 0x04],
    &[0xFF, 0xFF, 0xFF, 0xFF, 0x0F],
    &[0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x01],
];

fn refusal_of<T: DeserializeOwned + Serialize>(frame: &[u8]) -> (DecodeFault, AllocationInfo) {
    let mut fault = None;
    let cost = measure(|| fault = decode::<T>(frame).err());
    (fault.expect("a bomb must be refused"), cost)
}

#[track_caller]
fn assert_cheap(frame: &[u8], cost: AllocationInfo) {
    let most = u64::try_from(2 * frame.len()).unwrap();
    assert!(cost.bytes_max < most, "{} bytes for a frame of {}", cost.bytes_max, frame.len());
}

#[test]
fn the_counter_counts() {
    let cost = measure(|| drop(black_box(vec![0_u8; 1_000])));
    assert!(cost.bytes_max >= 1_000, "{cost:?}");
}

#[test]
fn a1_length_over_the_limit_allocates_nothing_that_stays() {
    for prefix in [[0xFF; 4], [0x00, 0x01, 0x00, 0x01]] {
        let cost = measure(|| {
            let mut buffer = FrameBuffer::default();
            buffer.feed(&prefix);
            assert_eq!(buffer.next_frame(), Err(FrameFault::TooLarge));
            for _ in 0..100 {
                buffer.feed(&[0; 1_024]);
            }
            assert_eq!(buffer.next_frame(), Err(FrameFault::TooLarge));
        });
        assert!(cost.bytes_max < 256, "{cost:?}");
    }
}

#[test]
fn a1_length_within_the_limit_allocates_only_for_bytes_that_came() {
    let prefix = u32::try_from(FRAME_BYTES_MAX).unwrap().to_be_bytes();
    let cost = measure(|| {
        let mut buffer = FrameBuffer::default();
        buffer.feed(&prefix);
        assert_eq!(buffer.next_frame(), Ok(None));
    });
    assert!(cost.bytes_max < 256, "{cost:?}");
}

#[test]
fn a10_text_bomb_costs_less_than_twice_its_frame() {
    for claim in CLAIMS {
        // Asks to leave a room, whose name claims to be longer than the frame; then a post whose
        // room is there and whose text is not.
        let part = [&[3, 1, 1], claim, b"name"].concat();
        let post = [&[2, 1, 0, 5], &b"lobby"[..], &[0], claim, b"text"].concat();
        for frame in [part, post] {
            let (fault, cost) = refusal_of::<ClientFrame>(&frame);
            assert_eq!(fault, DecodeFault::Truncated);
            assert_cheap(&frame, cost);
        }
    }
}

// Answers that hold a list.
const USERS: u8 = 2;
const ROOMS: u8 = 3;
const HISTORY: u8 = 5;

/// An answer with a list, up to the length of the list.
fn before_list(answer: u8) -> Vec<u8> {
    let room = [&[32][..], &[b'a'; 32]].concat();
    let fields = match answer {
        USERS => [&room[..], &[0]].concat(),
        ROOMS => Vec::new(),
        _ => [&room[..], &[1]].concat(),
    };
    [&[5, 0, answer][..], &fields].concat()
}

#[test]
fn a10_list_bomb_without_items_costs_less_than_twice_its_frame() {
    for claim in CLAIMS {
        for answer in [USERS, ROOMS, HISTORY] {
            let frame = [&before_list(answer)[..], claim].concat();
            let (fault, cost) = refusal_of::<ServerFrame>(&frame);
            assert_eq!(fault, DecodeFault::Truncated);
            assert_cheap(&frame, cost);
        }
    }
}

#[test]
fn a10_list_bomb_full_of_the_smallest_items_costs_less_than_twice_its_frame() {
    // A name; a room with its gate; a record of a user who joined.
    let items: [(u8, &[u8]); 3] = [
        (USERS, &[1, b'a']),
        (ROOMS, &[1, b'a', 1, 0, 1, 0]),
        (5, &[1, b'a', 1, 1, 1, 1, 1, b'a']),
    ];
    // The frame is long enough for the smallest claim: capacity must not follow it either.
    for (claim, (answer, item)) in CLAIMS.into_iter().flat_map(|claim| items.map(|it| (claim, it)))
    {
        let mut frame = [&before_list(answer)[..], claim].concat();
        while frame.len() + item.len() <= FRAME_BYTES_MAX {
            frame.extend_from_slice(item);
        }
        let (fault, cost) = refusal_of::<ServerFrame>(&frame);
        assert_eq!(fault, DecodeFault::Value, "the list is too long");
        assert_cheap(&frame, cost);
    }
}

#[test]
fn a13_longest_frame_of_a_client_costs_less_than_twice_itself() {
    let text_len = FRAME_BYTES_MAX - 16;
    let mut frame = vec![2, 1, 0, 5];
    frame.extend_from_slice(b"lobby");
    frame.push(0);
    frame.extend(postcard::to_allocvec(&"x".repeat(text_len)).unwrap());
    let cost = measure(|| drop(decode::<ClientFrame>(&frame).unwrap()));
    assert_cheap(&frame, cost);
}
