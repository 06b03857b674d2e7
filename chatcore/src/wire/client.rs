//! Frames from a client to a server.

use serde::{Deserialize, Serialize};

use crate::id::{
    Attach, Counter, Incarnation, Nonce, PublicKey, RequestId, Seq, SessionId, Signature,
    Threshold, deserialize_bounded,
};
use crate::text::{Body, RoomName, Untrusted, UserName};
use crate::wire::{Cursor, Operate, VersionRange};

/// Everything a client may send.
///
/// | frame | when | what comes back |
/// |---|---|---|
/// | `Hello` | first, once | `Hello` |
/// | `Login` | after `Hello`, once | `Welcome`, or `Close` |
/// | `Submit` | after `Welcome` | `Accepted`, `Applied` or `Refused` with the same counter |
/// | `Ask` | after `Welcome` | `Answer` with the same request id |
/// | `Ping` | after `Welcome` | `Pong` with the same token |
/// | `Pong` | after a `Ping` | nothing |
/// | `Leave` | after `Welcome` | the connection closes; the user leaves every room at once |
/// | `Operate` | after `Hello`, in place of `Login` | `Status`, or `Close` |
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientFrame {
    /// Opens the conversation.
    Hello(ClientHello),
    /// Proves who the client is.
    Login(Login),
    /// Asks for a change, to be applied exactly once.
    Submit {
        /// The session's number for this command: one more than the last.
        counter: Counter,
        /// The change.
        command: Command,
    },
    /// Asks for an answer; asking twice is harmless.
    Ask {
        /// Label that the answer repeats.
        request: RequestId,
        /// The question.
        question: Question,
    },
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
    /// Quits for good: no grace, the user leaves every room now.
    Leave,
    /// Gives the server an order, without being a user.
    Operate(Operate),
    /// Asks the server to prove that it has the key of its hello: once, between that and the log-in.
    Prove {
        /// A fresh random value, for the server to sign.
        nonce: Nonce,
    },
}

impl ClientFrame {
    /// The first frame of a client that this library is.
    pub const fn hello() -> Self {
        let versions = VersionRange::SUPPORTED;
        Self::Hello(ClientHello { role: Role::Client, versions, features: 0 })
    }

    /// What a server counts for it towards the bytes that a connection may send: the bytes of its
    /// texts, and 32.
    pub fn counted_bytes(&self) -> u64 {
        let texts = match self {
            Self::Submit { command: Command::Post { room, body, .. }, .. } => {
                room.as_str().len().saturating_add(body.as_str().len())
            }
            Self::Submit { command: Command::Reset { room, .. }, .. } => room.as_str().len(),
            Self::Submit { command: Command::Moderate { user, .. }, .. } => user.as_str().len(),
            Self::Login(login) => login.name.as_str().len(),
            Self::Ask { question, .. } => question.text_bytes(),
            Self::Hello(_)
            | Self::Ping { .. }
            | Self::Pong { .. }
            | Self::Leave
            | Self::Operate(_)
            | Self::Prove { .. } => 0,
        };
        u64::try_from(texts.saturating_add(32)).unwrap_or(u64::MAX)
    }
}

/// What the other side is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// A client that a user talks through.
    Client,
    /// A process that may own a chat, or whoever looks up which one does: it asks a directory, and after
    /// the greeting both speak the frames of [`migration::directory`](crate::migration::directory).
    Node,
}

/// The first frame of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientHello {
    /// What connects.
    pub role: Role,
    /// The protocol versions it speaks.
    pub versions: VersionRange,
    /// Optional abilities, one bit each; unknown bits are ignored. None is defined yet.
    pub features: u32,
}

/// Who connects, and the proof.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Login {
    /// The name asked for. A name belongs to the first key that takes it.
    pub name: Untrusted<UserName>,
    /// The user's key.
    pub key: PublicKey,
    /// The session to open or to resume.
    pub session: SessionId,
    /// The client's number for this log-in of the session: the higher one wins.
    pub attach: Attach,
    /// Over [`LoginProof`](crate::wire::LoginProof), by `key`.
    pub signature: Signature,
}

/// A change that must happen exactly once, however often it is sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// Says something in a room.
    Post {
        /// The room; the user must be a member.
        room: Untrusted<RoomName>,
        /// The life of the room it was written for: after a reset it is refused. `None` when the
        /// client has not met the room yet.
        incarnation: Option<Incarnation>,
        /// The text.
        body: Untrusted<Body>,
    },
    /// Clears a room and closes its gate; operators only.
    Reset {
        /// The room.
        room: Untrusted<RoomName>,
        /// The new threshold.
        threshold: Threshold,
    },
    /// Takes a measure against or for a user; operators only. Nobody takes one on themselves.
    Moderate {
        /// The user.
        user: Untrusted<UserName>,
        /// What is to be done.
        measure: Measure,
    },
}

/// What can be done about a user. Each makes sure that something is so: where it was so before, nothing
/// changes. It is about whoever has the name when it takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// The user leaves every room and every connection of theirs is closed. They may come back.
    Kick,
    /// As `Kick`, and neither name nor key may log in again. It ends the rights of an operator.
    Ban,
    /// Name and key may log in again.
    Unban,
    /// The name is nobody's any more, as when its key is lost: the user leaves every room, their
    /// sessions end, and the next to log in by this name has it. What was said stays. A name that
    /// is banned stays banned.
    Release,
    /// The user becomes an operator.
    Op,
    /// The user is no operator any more.
    Deop,
}

impl Measure {
    /// Every measure, in wire order.
    pub const ALL: &'static [Self] =
        &[Self::Kick, Self::Ban, Self::Unban, Self::Release, Self::Op, Self::Deop];
}

/// A question: answered once, changes nothing that must not happen twice.
///
/// A connection that asks too much at once is answered `E_RATE`, and `E_BUSY` while an earlier page
/// of history is still being read for it or too much waits to be made safe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Question {
    /// Becomes (or stays) a member of a room and follows its records.
    Join {
        /// The room, made if it does not exist.
        room: Untrusted<RoomName>,
        /// Where to start.
        start: Start,
    },
    /// Leaves a room.
    Part {
        /// The room.
        room: Untrusted<RoomName>,
    },
    /// Who is there.
    Who {
        /// The room; its gate must be open.
        room: Untrusted<RoomName>,
    },
    /// Which rooms there are.
    Rooms,
    /// Who a user is.
    Whois {
        /// The room both are in; its gate must be open.
        room: Untrusted<RoomName>,
        /// The user.
        user: Untrusted<UserName>,
    },
    /// A page of older records.
    History {
        /// The room; its gate must be open.
        room: Untrusted<RoomName>,
        /// Records before this one; `None` for the newest.
        before: Option<Seq>,
        /// How many at most; a page holds up to 256, and fewer when they are long.
        limit: u16,
    },
}

impl Question {
    fn text_bytes(&self) -> usize {
        match self {
            Self::Join { room, .. }
            | Self::Part { room }
            | Self::Who { room }
            | Self::History { room, .. } => room.as_str().len(),
            Self::Whois { room, user } => room.as_str().len().saturating_add(user.as_str().len()),
            Self::Rooms => 0,
        }
    }
}

/// Where a follower starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// After what the client already has. A cursor of an earlier life of the room starts at the
    /// beginning of the present one.
    After(Cursor),
    /// With the last so many visible records, at most [`COUNTER_MAX`](crate::id::COUNTER_MAX).
    Last(#[serde(deserialize_with = "deserialize_bounded")] u64),
    /// With this record of whatever life the room is in.
    At(Seq),
}
