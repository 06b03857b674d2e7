//! The journal: immutable results, hash-chained.
//!
//! An [`Entry`] is a header and a [`Change`]. The chain covers the header and the digest of the
//! change, not the change itself, so that a body can be deleted for real (retention, a reset)
//! while the chain over it stays checkable.
//!
//! Invariant: an entry is a *result*. Applying one decides nothing, verifies nothing and never
//! fails.

use serde::{Deserialize, Serialize};

use crate::codec::append;
use crate::id::{Counter, Digest, Incarnation, Index, LogId, PublicKey, Seq, SessionId, Threshold};
use crate::text::{Body, RoomName, UserName};
use crate::time::Timestamp;
use crate::wire::{Measure, Record, RecordBody, Refusal};

/// One entry of the journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Place, time and digest: what the chain covers.
    pub header: Header,
    /// What happened.
    pub change: Change,
}

/// What the chain covers of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Place in the journal, from 1 without holes.
    pub index: Index,
    /// When it happened: never earlier than the entry before.
    pub at: Timestamp,
    /// Digest of the change.
    pub digest: Digest,
}

/// A change of the durable state: everything that can ever happen to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// The journal begins. Always the first entry, and only the first.
    Founded(Founding),
    /// A name was taken by a key, until it is released.
    UserAdded {
        /// The name.
        user: UserName,
        /// The key that owns it.
        key: PublicKey,
    },
    /// A user became an operator.
    OperatorGranted {
        /// The user.
        user: UserName,
    },
    /// A session began.
    SessionOpened {
        /// The session.
        session: SessionId,
        /// Its user.
        user: UserName,
    },
    /// A session ended for lack of use.
    SessionExpired {
        /// The session.
        session: SessionId,
    },
    /// A room was made.
    RoomCreated {
        /// The room.
        room: RoomName,
        /// The threshold of its gate.
        threshold: Threshold,
    },
    /// A user became a member of a room.
    Joined {
        /// The room.
        room: RoomName,
        /// Its life.
        incarnation: Incarnation,
        /// The record it makes; none in a crowd, or when the gate holds all it may.
        seq: Option<Seq>,
        /// The user.
        user: UserName,
    },
    /// A user stopped being a member.
    Left {
        /// The room.
        room: RoomName,
        /// Its life.
        incarnation: Incarnation,
        /// The record it makes; see `Joined`.
        seq: Option<Seq>,
        /// The user.
        user: UserName,
    },
    /// A user said something.
    Posted {
        /// The room.
        room: RoomName,
        /// Its life.
        incarnation: Incarnation,
        /// The record it makes.
        seq: Seq,
        /// The command that did it.
        command: CommandId,
        /// The user.
        from: UserName,
        /// The text.
        text: Body,
    },
    /// A command was refused for good.
    Refused {
        /// The command.
        command: CommandId,
        /// Why.
        refusal: Refusal,
    },
    /// The gate of a room opened: everything up to now, and all that follows, is visible.
    GateOpened {
        /// The room.
        room: RoomName,
        /// Its life.
        incarnation: Incarnation,
    },
    /// A room was cleared and begins a new life behind a closed gate.
    Reset {
        /// The room.
        room: RoomName,
        /// The new life.
        incarnation: Incarnation,
        /// The new threshold.
        threshold: Threshold,
        /// The command that did it.
        command: CommandId,
    },
    /// Records of a room are gone for good, from the first one on: retention.
    Trimmed {
        /// The room.
        room: RoomName,
        /// Its life.
        incarnation: Incarnation,
        /// The last record that is gone.
        through: Seq,
    },
    /// A measure was taken on a user, who has left every room by now if it sends them away.
    Moderated {
        /// The user.
        user: UserName,
        /// What was done.
        measure: Measure,
        /// Who did it.
        by: Moderator,
    },
}

/// Who takes a measure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Moderator {
    /// An operator, by a command.
    Operator {
        /// The operator.
        user: UserName,
        /// The command.
        command: CommandId,
    },
    /// Those who run the server.
    Server,
}

/// What a journal begins with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Founding {
    /// The life of the journal.
    pub log_id: LogId,
    /// The key of the server that founded it.
    pub server_key: PublicKey,
    /// The threshold of rooms that are made later.
    pub threshold: Threshold,
    /// Who is to be an operator. With none, the first user is.
    pub operators: Vec<OperatorRule>,
}

/// Who is to be an operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperatorRule {
    /// Whoever owns this name.
    Name(UserName),
    /// Whoever owns this key.
    Key(PublicKey),
}

/// A command of a session, and what it said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandId {
    /// The session.
    pub session: SessionId,
    /// Its number.
    pub counter: Counter,
    /// Digest of the command: the same counter for another command is never acknowledged.
    pub digest: Digest,
}

impl Change {
    /// Digest of the change, as headers carry it.
    pub fn digest(&self) -> Digest {
        digest_of("chatcore change v1", self)
    }

    /// The room whose log it belongs to, if any.
    pub const fn room(&self) -> Option<&RoomName> {
        match self {
            Self::RoomCreated { room, .. }
            | Self::Joined { room, .. }
            | Self::Left { room, .. }
            | Self::Posted { room, .. }
            | Self::GateOpened { room, .. }
            | Self::Reset { room, .. }
            | Self::Trimmed { room, .. } => Some(room),
            Self::Founded(_)
            | Self::UserAdded { .. }
            | Self::OperatorGranted { .. }
            | Self::SessionOpened { .. }
            | Self::SessionExpired { .. }
            | Self::Refused { .. }
            | Self::Moderated { .. } => None,
        }
    }

    /// The command that it answers, if any.
    pub const fn command(&self) -> Option<&CommandId> {
        match self {
            Self::Posted { command, .. }
            | Self::Refused { command, .. }
            | Self::Reset { command, .. }
            | Self::Moderated { by: Moderator::Operator { command, .. }, .. } => Some(command),
            Self::Founded(_)
            | Self::UserAdded { .. }
            | Self::OperatorGranted { .. }
            | Self::SessionOpened { .. }
            | Self::SessionExpired { .. }
            | Self::RoomCreated { .. }
            | Self::Joined { .. }
            | Self::Left { .. }
            | Self::GateOpened { .. }
            | Self::Trimmed { .. }
            | Self::Moderated { by: Moderator::Server, .. } => None,
        }
    }
}

impl Entry {
    /// The record it makes in a room log, if any.
    pub fn record(&self) -> Option<Record> {
        let (room, incarnation, seq, body) = match &self.change {
            Change::Joined { room, incarnation, seq: Some(seq), user } => {
                (room, incarnation, seq, RecordBody::Joined { user: user.clone() })
            }
            Change::Left { room, incarnation, seq: Some(seq), user } => {
                (room, incarnation, seq, RecordBody::Left { user: user.clone() })
            }
            Change::Posted { room, incarnation, seq, from, text, .. } => {
                let body = RecordBody::Post { from: from.clone(), text: text.clone() };
                (room, incarnation, seq, body)
            }
            Change::Joined { seq: None, .. }
            | Change::Left { seq: None, .. }
            | Change::Founded(_)
            | Change::UserAdded { .. }
            | Change::OperatorGranted { .. }
            | Change::SessionOpened { .. }
            | Change::SessionExpired { .. }
            | Change::RoomCreated { .. }
            | Change::Refused { .. }
            | Change::GateOpened { .. }
            | Change::Reset { .. }
            | Change::Trimmed { .. }
            | Change::Moderated { .. } => return None,
        };
        let at = self.header.at;
        Some(Record { room: room.clone(), incarnation: *incarnation, seq: *seq, at, body })
    }
}

/// The newest end of a journal: enough to make the next entry and to check one.
///
/// Source of the idea: hash chains as in Certificate Transparency's and Git's histories. Changing,
/// dropping or inserting any entry changes every later head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Place of the last entry; 0 before the first.
    pub index: Index,
    /// Time of the last entry.
    pub at: Timestamp,
    /// Digest over all headers up to here.
    pub chain: Digest,
}

/// An entry that does not follow a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// The entry is not the next one.
    #[error("entry {found} does not follow entry {last}")]
    Index {
        /// The last entry of the head.
        last: Index,
        /// The entry that came.
        found: Index,
    },
    /// The entry is earlier than the one before.
    #[error("entry {index} is earlier than the entry before it")]
    Time {
        /// The entry.
        index: Index,
    },
    /// The change is not the one that the header speaks of.
    #[error("entry {index} is not what its header says")]
    Digest {
        /// The entry.
        index: Index,
    },
}

impl Head {
    /// The head of the empty journal `log_id`.
    pub fn new(log_id: LogId) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("chatcore journal v1");
        hasher.update(log_id.as_bytes());
        let chain = Digest::new(hasher.finalize().into());
        Self { index: Index::ZERO, at: Timestamp::ZERO, chain }
    }

    /// Makes the entry that follows and moves to it.
    pub fn append(&mut self, wall: Timestamp, change: Change) -> Entry {
        let at = self.at.max(wall);
        let header = Header { index: self.index.next(), at, digest: change.digest() };
        self.advance(&header);
        Entry { header, change }
    }

    /// Checks an entry made elsewhere and moves to it.
    ///
    /// # Errors
    /// When the entry does not follow; the head stays where it is.
    pub fn follow(&mut self, entry: &Entry) -> Result<(), ChainError> {
        let Header { index, at, digest } = entry.header;
        if self.index == Index::MAX || index != self.index.next() {
            return Err(ChainError::Index { last: self.index, found: index });
        }
        if at < self.at {
            return Err(ChainError::Time { index });
        }
        if digest != entry.change.digest() {
            return Err(ChainError::Digest { index });
        }
        self.advance(&entry.header);
        Ok(())
    }

    fn advance(&mut self, header: &Header) {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.chain.as_bytes());
        hasher.update(&header.index.get().to_be_bytes());
        hasher.update(&header.at.get().to_be_bytes());
        hasher.update(header.digest.as_bytes());
        *self = Self {
            index: header.index,
            at: header.at,
            chain: Digest::new(hasher.finalize().into()),
        };
    }
}

/// The digest of a value's encoding, apart from digests of other kinds by `context`.
pub(crate) fn digest_of<T: Serialize>(context: &'static str, value: &T) -> Digest {
    // In one piece: postcard gives most values byte by byte, which a hasher takes at many times
    // the cost.
    let mut bytes = Vec::with_capacity(256);
    bytes.extend_from_slice(context.as_bytes());
    bytes.push(0);
    append(value, &mut bytes);
    Digest::new(blake3::hash(&bytes).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(number: u8) -> Change {
        Change::SessionExpired { session: SessionId::new([number; 16]) }
    }

    #[test]
    fn entry_follows_only_the_head_it_was_made_for() {
        let mut owner = Head::new(LogId::new([1; 16]));
        let mut follower = owner;
        let first = owner.append(Timestamp::new(5).unwrap(), opened(1));
        let second = owner.append(Timestamp::new(3).unwrap(), opened(2));
        assert_eq!(second.header.at, Timestamp::new(5).unwrap(), "time never runs back");

        let skipped = follower.follow(&second);
        let last = Index::ZERO;
        assert_eq!(skipped, Err(ChainError::Index { last, found: second.header.index }));
        assert_eq!(follower.follow(&first), Ok(()));
        let edited = Entry { change: opened(3), ..second.clone() };
        let index = second.header.index;
        assert_eq!(follower.follow(&edited), Err(ChainError::Digest { index }));
        assert_eq!(follower.follow(&second), Ok(()));
        assert_eq!(follower, owner);
    }

    #[test]
    fn journals_with_other_ids_have_other_heads() {
        assert_ne!(Head::new(LogId::new([1; 16])), Head::new(LogId::new([2; 16])));
    }
}
