//! Orders to a server from those who run it, and what it says of itself.

use serde::{Deserialize, Serialize};

use crate::id::{ByteCount, Index, PublicKey, Signature};
use crate::text::HostAddress;
use crate::time::Span;

/// An order, and the proof that its sender may give it.
///
/// It comes in place of a log-in: whoever sends it is no user here, opens no session, counts for no
/// gate and leaves nothing in the journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operate {
    /// The key that proves the right: the server's own, or that of a user who is an operator.
    pub key: PublicKey,
    /// What is to be done.
    pub order: Order,
    /// Over [`OperateProof`](crate::wire::OperateProof), by `key`.
    pub signature: Signature,
}

/// What a server can be told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Say what it is doing.
    Status,
}

/// What a server is doing.
///
/// It holds counts and no names, texts or secrets. What the journal says is told as far as it is safe,
/// as everywhere; only `newest` is ahead of that. Who the server is stands in its hello.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Where the host listens, as in [`Welcome`](crate::wire::Welcome).
    pub address: Option<HostAddress>,
    /// Connections of every kind: also those that have not logged in, those that are closing, and
    /// this one.
    pub connections: u32,
    /// Users who are connected, each once.
    pub online: u32,
    /// Users there are.
    pub users: u32,
    /// Rooms there are.
    pub rooms: u32,
    /// Rooms whose gate is open.
    pub open: u32,
    /// The last entry of the journal.
    pub newest: Index,
    /// The last entry that is safe.
    pub safe: Index,
    /// Whether the store can keep nothing more for now.
    pub store_full: bool,
    /// What records in memory take.
    pub memory: ByteCount,
    /// What the engine does not know.
    pub host: HostStatus,
}

/// What the host of an engine says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostStatus {
    /// How long it has been running.
    pub uptime_ms: Span,
    /// Where the journal is kept.
    pub storage: StorageStatus,
}

/// Where a journal is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StorageStatus {
    /// In memory alone: it is gone when the server stops.
    Memory,
    /// On a disk.
    Disk(DiskStatus),
}

/// How a journal is kept on a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskStatus {
    /// When something counts as kept.
    pub durability: Durability,
    /// What all of it takes there; `None` when the host cannot tell.
    pub bytes: Option<ByteCount>,
    /// The newest checkpoint; `None` when there is none, or the host cannot tell.
    pub checkpoint: Option<CheckpointStatus>,
}

/// When an entry counts as kept, and is acknowledged and shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// When the disk has it.
    Commit,
    /// When the operating system has it.
    Relaxed,
}

/// A checkpoint: the state after an entry, from which a start goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointStatus {
    /// The last entry in it.
    pub entry: Index,
    /// How long ago it was made, by the wall clock.
    pub age_ms: Span,
}
