//! Frames from a server to a client.

use serde::{Deserialize, Serialize};

use crate::id::{
    Counter, Generation, Incarnation, LogId, Nonce, PublicKey, RequestId, Seq, SessionId,
    Signature, Threshold,
};
use crate::text::{Body, HostAddress, RoomName, UserName};
use crate::time::{Span, Timestamp};
use crate::wire::{List, Location, Refusal, Status};

/// Everything a server may send.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServerFrame {
    /// Answers the client's hello.
    Hello(ServerHello),
    /// The log-in is accepted.
    Welcome(Welcome),
    /// A post is safe; the first and every later answer to the same counter.
    Accepted {
        /// The command.
        counter: Counter,
        /// The room it was posted to.
        room: RoomName,
        /// The life of the room.
        incarnation: Incarnation,
        /// Its place, once visible; `None` while the gate holds it.
        seq: Option<Seq>,
    },
    /// A command took effect and has nothing more to tell: a reset, a measure, or one so old that
    /// its first answer is forgotten.
    Applied {
        /// The command.
        counter: Counter,
    },
    /// A command did not take effect.
    Refused {
        /// The command.
        counter: Counter,
        /// Why.
        refusal: Refusal,
    },
    /// The answer to a question.
    Answer {
        /// The question's label.
        request: RequestId,
        /// The answer.
        answer: Answer,
    },
    /// One record of a room that the client follows.
    Record(Record),
    /// Records that are gone for good and will not come.
    Gap {
        /// The room.
        room: RoomName,
        /// The life of the room.
        incarnation: Incarnation,
        /// The first record that is gone.
        from: Seq,
        /// The last record that is gone.
        to: Seq,
    },
    /// Users, threshold or state of a gate changed.
    Gate {
        /// The room.
        room: RoomName,
        /// The gate now.
        gate: GateState,
    },
    /// The room begins a new life: what was before is gone.
    Reset {
        /// The room.
        room: RoomName,
        /// The new life.
        incarnation: Incarnation,
        /// The new threshold.
        threshold: Threshold,
    },
    /// A frame that carries no label was out of order.
    Rejected(Refusal),
    /// Something a user should know.
    Notice(Notice),
    /// The last frame: why the server closes the connection.
    Close(Refusal),
    /// Asks for a sign of life.
    Ping {
        /// Repeated by the `Pong`.
        token: RequestId,
    },
    /// A sign of life.
    Pong {
        /// The token of the `Ping`.
        token: RequestId,
    },
    /// What the server is doing: the answer to an order. The server closes the connection next.
    Status(Status),
    /// Answers `Prove`, before anything that comes of a log-in.
    Proof {
        /// Of the server's key over a [`ServerProof`](crate::wire::ServerProof).
        signature: Signature,
    },
    /// The proof of the log-in is right, and another host serves: this one decides about the log-in once
    /// it does. It says who serves until then.
    Parked(Location),
    /// Another host serves: this one. Nothing more is decided here, and the connection is closed soon.
    Moved(Location),
    /// The chat is about to move. Who likes to go on without a pause logs in there beforehand.
    Prepare {
        /// The host that it moves to.
        target: Location,
        /// Clients dial it at a moment of this span that each draws for itself, so that not all come
        /// at once.
        within_ms: Span,
    },
    /// The move that was announced does not take place for now.
    Stay,
    /// The host serves in another generation from now on.
    Generation {
        /// The generation.
        generation: Generation,
    },
}

/// Who the server is, and what a log-in must sign.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerHello {
    /// The protocol version to speak from here on.
    pub version: u16,
    /// Optional abilities of this connection, one bit each.
    pub features: u32,
    /// The server's key.
    pub server_key: PublicKey,
    /// The journal it serves.
    pub log_id: LogId,
    /// The generation it serves in.
    pub generation: Generation,
    /// Fresh for every connection.
    pub nonce: Nonce,
}

/// The log-in is accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The user's name in its enforced form.
    pub user: UserName,
    /// The session.
    pub session: SessionId,
    /// The last command of the session that the server knows; 0 for a new session.
    pub last_counter: Counter,
    /// When the session was opened, by the clock of the journal. Another time than at an earlier
    /// log-in says that the session had expired in between: nobody knows any more what became of
    /// the commands that were sent in it.
    pub opened: Timestamp,
    /// Whether the user is an operator.
    pub operator: bool,
    /// Where the host that serves listens, as it says itself: the address that this connection came
    /// in by, not the one that was dialled. `None` when it listens nowhere, or cannot tell. It is
    /// for those who logged in: a stranger learns nothing that it did not dial.
    pub address: Option<HostAddress>,
}

/// The answer to a question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// The user is a member and follows.
    Joined(JoinedRoom),
    /// The user is no member any more.
    Parted {
        /// The room.
        room: RoomName,
    },
    /// Who is there.
    Users(UserList),
    /// Which rooms there are, the first 256 by name.
    Rooms {
        /// The rooms.
        rooms: List<RoomInfo>,
        /// How many there are.
        count: u32,
    },
    /// Who a user is.
    User(UserInfo),
    /// A page of records, oldest first.
    History {
        /// The room.
        room: RoomName,
        /// The life of the room.
        incarnation: Incarnation,
        /// The records.
        records: List<Record>,
    },
    /// No answer.
    Refused(Refusal),
}

/// The user is a member and follows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinedRoom {
    /// The room.
    pub room: RoomName,
    /// Its gate.
    pub gate: GateState,
    /// The last record that the client will not be sent: it starts right after.
    pub after: Seq,
    /// Who is there; `None` while the gate is closed.
    pub users: Option<UserList>,
    /// Whether the gate opened by this very join: the client was there and gets everything.
    pub opened: bool,
}

/// Who is in a room.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserList {
    /// The room.
    pub room: RoomName,
    /// How many there are.
    pub count: u32,
    /// The first 256 by name.
    pub names: List<UserName>,
    /// The last record that the list takes into account: later ones change it.
    pub as_of: Seq,
}

/// A gate as everybody in the room may know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GateState {
    /// The life of the room.
    pub incarnation: Incarnation,
    /// While closed: users connected now, each once. Once open: members, and a user whose
    /// connection broke stays one for the grace.
    pub users: u32,
    /// Users needed.
    pub threshold: Threshold,
    /// Whether it is open.
    pub open: bool,
}

/// One room in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoomInfo {
    /// The room.
    pub room: RoomName,
    /// Its gate.
    pub gate: GateState,
}

/// Who a user is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserInfo {
    /// The name.
    pub user: UserName,
    /// The key that owns the name.
    pub key: PublicKey,
    /// Whether the user is connected now.
    pub connected: bool,
    /// Whether the user is an operator.
    pub operator: bool,
}

/// One record of a room: the only thing a follower's cursor moves over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The room.
    pub room: RoomName,
    /// The life of the room.
    pub incarnation: Incarnation,
    /// Its place: one more than the record before.
    pub seq: Seq,
    /// When the server accepted it; never earlier than the record before.
    pub at: Timestamp,
    /// What happened.
    pub body: RecordBody,
}

/// What happened in a room.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecordBody {
    /// A user said something.
    Post {
        /// Who; stamped by the server.
        from: UserName,
        /// The text.
        text: Body,
    },
    /// A user came.
    Joined {
        /// Who.
        user: UserName,
    },
    /// A user went.
    Left {
        /// Who.
        user: UserName,
    },
}

/// A place in a room's history: everything up to it has been seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Cursor {
    /// The life of the room.
    pub incarnation: Incarnation,
    /// The last record seen; 0 for none.
    pub seq: Seq,
}

/// Something a user should know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Notice {
    /// No operator was named, so the first user, who reads this, is the operator.
    FirstUserIsOperator,
    /// Who reads this is an operator from now on.
    OperatorGranted,
    /// Who reads this is no operator any more.
    OperatorRevoked,
}
