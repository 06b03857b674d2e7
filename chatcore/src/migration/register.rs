//! The record of who owns a chat, and which changes of it are right.

use serde::{Deserialize, Serialize};

use crate::id::{BootId, Generation, LogId, PublicKey};

/// One process that may own a chat. Who starts again without all that it had is another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId {
    /// The key of the machine.
    pub key: PublicKey,
    /// Drawn anew whenever it starts without an intact journal.
    pub boot: BootId,
}

/// Who owns a chat, as the register says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Record {
    /// One more with every change.
    pub generation: Generation,
    /// The journal.
    pub log_id: LogId,
    /// Who decides and commits.
    pub owner: NodeId,
    /// Who has all that is committed, and may take over.
    pub standby: Option<NodeId>,
}

/// A change that a node wants of the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Proposal {
    /// The generation that the record has to have.
    pub expect: Generation,
    /// Who proposes; to be proven to the register.
    pub by: NodeId,
    /// The next owner.
    pub owner: NodeId,
    /// The next standby.
    pub standby: Option<NodeId>,
}

impl Record {
    /// The record after a proposal; `None` when it is not right, and nothing changes.
    ///
    /// The owner may stay the owner and choose a standby. The standby may become the owner, with the
    /// owner of before as its standby, who has all that is committed, too, or with none. After the last
    /// generation there is none: a register that counts no further changes no more.
    pub fn after(&self, proposal: &Proposal) -> Option<Self> {
        let Proposal { expect, by, owner, standby } = *proposal;
        let (is_owner, is_standby) = (by == self.owner, Some(by) == self.standby);
        let chooses = is_owner && owner == by;
        let takes = is_standby && owner == by && standby.is_none_or(|it| it == self.owner);
        let is_right = (chooses || takes) && standby != Some(owner);
        let is_last = self.generation == Generation::MAX;
        (expect == self.generation && is_right && !is_last).then(|| Self {
            generation: self.generation.next(),
            log_id: self.log_id,
            owner,
            standby,
        })
    }

    /// What a node is by this record.
    pub fn names(&self, node: NodeId) -> bool {
        self.owner == node || self.standby == Some(node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(number: u8) -> NodeId {
        NodeId { key: PublicKey::new([number; 32]), boot: BootId::new([0; 16]) }
    }

    fn record() -> Record {
        let (owner, standby) = (node(1), Some(node(2)));
        Record { generation: Generation::ZERO.next(), log_id: LogId::new([9; 16]), owner, standby }
    }

    fn proposal(by: u8, owner: u8, standby: Option<u8>) -> Proposal {
        let expect = Generation::ZERO.next();
        Proposal { expect, by: node(by), owner: node(owner), standby: standby.map(node) }
    }

    #[test]
    fn owner_chooses_its_standby_and_gives_itself_up_to_nobody() {
        for standby in [None, Some(2), Some(3)] {
            let after = record().after(&proposal(1, 1, standby)).unwrap();
            assert_eq!((after.owner, after.standby), (node(1), standby.map(node)));
            assert_eq!(after.generation, record().generation.next());
        }
        assert_eq!(record().after(&proposal(1, 2, Some(1))), None);
        assert_eq!(record().after(&proposal(1, 1, Some(1))), None);
    }

    #[test]
    fn standby_takes_over_with_the_owner_of_before_or_alone() {
        for standby in [None, Some(1)] {
            let after = record().after(&proposal(2, 2, standby)).unwrap();
            assert_eq!((after.owner, after.standby), (node(2), standby.map(node)));
        }
        // Nobody else is known to have all that is committed.
        assert_eq!(record().after(&proposal(2, 2, Some(3))), None);
        assert_eq!(record().after(&proposal(2, 1, None)), None);
    }

    #[test]
    fn last_generation_has_none_after_it() {
        let last = Record { generation: Generation::MAX, ..record() };
        let proposal = Proposal { expect: Generation::MAX, ..proposal(1, 1, None) };
        assert_eq!(last.after(&proposal), None);
        let before = Record { generation: Generation::MAX.previous(), ..record() };
        let proposal = Proposal { expect: before.generation, ..proposal };
        assert_eq!(before.after(&proposal).unwrap().generation, Generation::MAX);
    }

    #[test]
    fn stranger_and_whoever_is_late_change_nothing() {
        assert_eq!(record().after(&proposal(3, 3, None)), None);
        let late = Proposal { expect: Generation::ZERO, ..proposal(1, 1, None) };
        assert_eq!(record().after(&late), None);
        let reborn = NodeId { boot: BootId::new([1; 16]), ..node(2) };
        let amnesiac = Proposal { by: reborn, owner: reborn, ..proposal(2, 2, None) };
        assert_eq!(record().after(&amnesiac), None);
    }
}
