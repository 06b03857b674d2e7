//! Digests by their documented layout: of changes and commands, and the chain over them.

use std::collections::VecDeque;

use chatcore::id::{Digest, LogId};
use chatcore::log::Header;
use serde::Serialize;

/// Makes digests and keeps the memory that it takes.
#[derive(Debug, Default)]
pub(super) struct Hasher {
    bytes: Vec<u8>,
}

impl Hasher {
    /// blake3 over the context, a zero, and the postcard encoding.
    pub(super) fn digest<T: Serialize>(&mut self, context: &str, value: &T) -> Digest {
        let mut bytes = core::mem::take(&mut self.bytes);
        bytes.clear();
        bytes.extend_from_slice(context.as_bytes());
        bytes.push(0);
        self.bytes = postcard::to_extend(value, bytes).expect("what is hashed has an encoding");
        Digest::new(blake3::hash(&self.bytes).into())
    }
}

/// The chain over a journal, worked out only where somebody looks.
#[derive(Debug)]
pub(super) struct Chain {
    value: Digest,
    /// Committed and not yet in `value`.
    headers: VecDeque<Header>,
}

impl Chain {
    pub(super) fn new(log_id: LogId) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("chatcore journal v1");
        hasher.update(log_id.as_bytes());
        Self { value: Digest::new(hasher.finalize().into()), headers: VecDeque::new() }
    }

    pub(super) fn commit(&mut self, header: &Header) {
        self.headers.push_back(*header);
    }

    /// The chain up to the last of `beyond`, which follow what is committed.
    pub(super) fn value<'a>(&mut self, beyond: impl Iterator<Item = &'a Header>) -> Digest {
        let headers = core::mem::take(&mut self.headers);
        self.value = headers.iter().fold(self.value, link);
        beyond.fold(self.value, link)
    }
}

/// The digest before, then the place and the time in big-endian, then the digest of the change.
fn link(before: Digest, header: &Header) -> Digest {
    let mut bytes = [0; 80];
    let parts: [&[u8]; 4] = [
        before.as_bytes(),
        &header.index.get().to_be_bytes(),
        &header.at.get().to_be_bytes(),
        header.digest.as_bytes(),
    ];
    let mut places = bytes.iter_mut();
    for byte in parts.into_iter().flatten() {
        if let Some(place) = places.next() {
            *place = *byte;
        }
    }
    Digest::new(blake3::hash(&bytes).into())
}
