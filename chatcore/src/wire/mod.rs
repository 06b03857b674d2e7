//! What travels between a client and a server: frames, refusals, records.
//!
//! Every type here is plain data with a fixed encoding: postcard inside a length-delimited frame
//! (see [`crate::codec`]), and JSON with the same names for those who prefer text. Nothing here
//! knows a state; the engine and the client decide what a frame means.
//!
//! Invariants: enums only grow at the end (golden bytes pin every variant); no maps, no `usize`,
//! no recursive types, no list of zero-sized items; text that a peer chose is [`Untrusted`] on its
//! way to the server, so that a bad name is refused with a reason instead of failing to decode.
//!
//! [`Untrusted`]: crate::text::Untrusted

mod client;
mod list;
mod location;
mod operate;
mod proof;
mod refusal;
mod server;

pub use client::{ClientFrame, ClientHello, Command, Login, Measure, Question, Role, Start};
pub use list::{LIST_MAX, List};
pub use location::{ADDRESSES_MAX, Addresses, Location};
pub use operate::{
    CheckpointStatus, DiskStatus, Durability, HostStatus, Operate, Order, Status, StorageStatus,
};
pub use proof::{CHANNEL_LABEL, LoginProof, OperateProof, ServerProof};
pub use refusal::{
    AuthFault, DecodeFault, ExpelFault, FrameFault, LimitFault, NameFault, Refusal, StateFault,
    TargetFault,
};
pub use server::{
    Answer, Cursor, GateState, JoinedRoom, Notice, Record, RecordBody, RoomInfo, ServerFrame,
    ServerHello, UserInfo, UserList, Welcome,
};

use serde::{Deserialize, Serialize};

/// The protocol version this library speaks.
pub const VERSION: u16 = 1;

/// The largest frame before log-in, in bytes without the length prefix.
pub const GREETING_FRAME_BYTES_MAX: usize = 1 << 10;

/// The largest frame after log-in, in bytes without the length prefix.
pub const FRAME_BYTES_MAX: usize = 64 << 10;

/// A range of protocol versions, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionRange {
    /// The oldest version spoken.
    pub min: u16,
    /// The newest version spoken.
    pub max: u16,
}

impl VersionRange {
    /// What this library speaks.
    pub const SUPPORTED: Self = Self { min: VERSION, max: VERSION };

    /// The newest version that both ranges hold, if any.
    pub fn common(self, other: Self) -> Option<u16> {
        let newest = self.max.min(other.max);
        let oldest = self.min.max(other.min);
        (oldest <= newest).then_some(newest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_negotiation_takes_the_newest_that_both_speak() {
        let ours = VersionRange { min: 2, max: 5 };
        assert_eq!(ours.common(VersionRange { min: 1, max: 3 }), Some(3));
        assert_eq!(ours.common(VersionRange { min: 4, max: 9 }), Some(5));
        assert_eq!(ours.common(VersionRange { min: 6, max: 9 }), None);
        assert_eq!(ours.common(VersionRange { min: 1, max: 1 }), None);
    }
}
