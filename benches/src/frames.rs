//! The frames that both sides of the comparison carry.

use bytes::Bytes;
use chatcore::codec::{decode, encode_to_bytes};
use chatcore::id::{Counter, Incarnation, Seq};
use chatcore::text::{Body, RoomName, Untrusted, UserName};
use chatcore::time::Timestamp;
use chatcore::wire::{ClientFrame, Command, Record, RecordBody, ServerFrame};

use crate::failure::Failure;

/// The room that everybody is in.
pub(crate) const ROOM: &str = "lobby";

/// The name of the sender.
pub(crate) const SENDER: &str = "sender";

/// A number of usual length on the wire for a sequence number or a counter in the middle of a run.
const TYPICAL_NUMBER: u64 = 100_000;

/// 2026 in milliseconds: a time of usual length on the wire.
const TYPICAL_TIME: u64 = 1_790_000_000_000;

/// A text of so many bytes.
pub(crate) fn text(bytes: usize) -> String {
    "x".repeat(bytes)
}

/// The post with this counter to the room of all.
pub(crate) fn post(counter: Counter, text: &str) -> ClientFrame {
    post_to(ROOM, counter, text)
}

/// The post with this counter.
pub(crate) fn post_to(room: &str, counter: Counter, text: &str) -> ClientFrame {
    let (room, body) = (Untrusted::new(room), Untrusted::new(text));
    ClientFrame::Submit { counter, command: Command::Post { room, incarnation: None, body } }
}

/// A frame as long as those that a chat server sends to every reader for a post.
pub(crate) fn typical_record(text: &Body) -> Bytes {
    let from: UserName = SENDER.parse().expect("the sender's name must be a name");
    encode_to_bytes(&ServerFrame::Record(Record {
        room: room(),
        incarnation: Incarnation::ZERO.next(),
        seq: Seq::ZERO.saturating_add(TYPICAL_NUMBER),
        at: Timestamp::new(TYPICAL_TIME).expect("the time must be a time"),
        body: RecordBody::Post { from, text: text.clone() },
    }))
}

/// A frame as long as those that a chat server answers a post with.
pub(crate) fn typical_accepted() -> Bytes {
    encode_to_bytes(&ServerFrame::Accepted {
        counter: Counter::ZERO.saturating_add(TYPICAL_NUMBER),
        room: room(),
        incarnation: Incarnation::ZERO.next(),
        seq: Some(Seq::ZERO.saturating_add(TYPICAL_NUMBER)),
    })
}

fn room() -> RoomName {
    ROOM.parse().expect("the room's name must be a name")
}

/// What a frame is to the crowd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Record,
    Accepted,
    Other,
}

/// Tells frames apart by their first byte, the variant of [`ServerFrame`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kinds {
    record: Option<u8>,
    accepted: Option<u8>,
}

impl Kinds {
    pub(crate) fn new(text: &Body) -> Self {
        let first = |frame: &Bytes| frame.get(chatcore::codec::PREFIX_BYTES).copied();
        Self { record: first(&typical_record(text)), accepted: first(&typical_accepted()) }
    }

    pub(crate) fn of(self, frame: &[u8]) -> Kind {
        let first = frame.first().copied();
        match first {
            first if first == self.record => Kind::Record,
            first if first == self.accepted => Kind::Accepted,
            _ => Kind::Other,
        }
    }
}

/// An error when a frame says no to somebody.
pub(crate) fn expect_no_refusal(frame: &[u8]) -> Result<(), Failure> {
    match decode(frame) {
        Ok(ServerFrame::Refused { refusal, .. } | ServerFrame::Close(refusal)) => {
            Err(Failure::Refused(refusal))
        }
        Ok(_) => Ok(()),
        Err(_) => Err(Failure::Protocol("a frame does not decode")),
    }
}

/// The number of a record.
pub(crate) fn seq_of(frame: &[u8]) -> Result<u64, Failure> {
    match decode(frame) {
        Ok(ServerFrame::Record(record)) => Ok(record.seq.get()),
        Ok(_) | Err(_) => Err(Failure::Protocol("a record does not decode")),
    }
}
