//! The state hash, kept along with every change.

use serde::Serialize;

use crate::id::Digest;
use crate::log::digest_of;

/// A hash of a set of facts that can be added and removed in any order.
///
/// The sum, in four lanes of 64 bits, of each fact's blake3 digest (`AdHash` of Bellare and
/// Micciancio, 1997). It finds two replicas that went apart by a bug; it is not meant to withstand
/// somebody who searches for collisions. Against those stands the chain of the journal, which is
/// compared beside it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fingerprint([u64; 4]);

impl Fingerprint {
    pub(crate) fn add<T: Serialize>(&mut self, fact: &T) {
        for (lane, part) in self.0.iter_mut().zip(lanes(fact)) {
            *lane = lane.wrapping_add(part);
        }
    }

    pub(crate) fn remove<T: Serialize>(&mut self, fact: &T) {
        for (lane, part) in self.0.iter_mut().zip(lanes(fact)) {
            *lane = lane.wrapping_sub(part);
        }
    }

    pub(crate) fn digest(&self) -> Digest {
        digest_of("chatcore state v1", &self.0)
    }
}

fn lanes<T: Serialize>(fact: &T) -> [u64; 4] {
    let digest = digest_of("chatcore fact v1", fact);
    let (chunks, _) = digest.as_bytes().as_chunks::<8>();
    let mut lanes = [0; 4];
    for (lane, chunk) in lanes.iter_mut().zip(chunks) {
        *lane = u64::from_le_bytes(*chunk);
    }
    lanes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_count_once_each_and_in_any_order() {
        let (mut one, mut other) = (Fingerprint::default(), Fingerprint::default());
        one.add(&"a");
        one.add(&"b");
        other.add(&"b");
        other.add(&"c");
        other.add(&"a");
        assert_ne!(one.digest(), other.digest());
        other.remove(&"c");
        assert_eq!(one.digest(), other.digest());
    }
}
