//! Why a peer was told no: a closed set of codes, each with a fixed text.

use core::fmt;

use serde::{Deserialize, Serialize};

use crate::id::Counter;
use crate::text::{BODY_BYTES_MAX, BodyError, NameError};
use crate::time::Span;
use crate::wire::{Command, VersionRange};

/// A refusal as the peer hears it.
///
/// [`Refusal::code`] is stable and for programs; `Display` is for people, fixed for each value, and
/// never repeats what the peer sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// The length prefix is wrong; the connection closes.
    Frame(FrameFault),
    /// The frame cannot be read; the connection closes.
    Decode(DecodeFault),
    /// No common protocol version; the connection closes.
    Version(VersionRange),
    /// Something is too long, too many or too slow.
    Limit(LimitFault),
    /// Not now, or not in this order.
    State(StateFault),
    /// The proof of identity failed, or the session is no longer this connection's.
    Auth(AuthFault),
    /// The name cannot be had.
    Name(NameFault),
    /// Operators only.
    Perm,
    /// The command is empty or malformed.
    Command,
    /// There is no such room or user.
    Target(TargetFault),
    /// Too often; try again later.
    Rate {
        /// How long to wait.
        retry_ms: Span,
    },
    /// Too busy; try again later.
    Busy {
        /// How long to wait.
        retry_ms: Span,
    },
    /// The room's gate is closed.
    Gate {
        /// Users connected.
        have: u32,
        /// Users needed.
        need: u16,
    },
    /// The server moved or stops; the connection closes.
    Gone,
    /// The server cannot keep anything now.
    Store,
    /// A snapshot cannot be used.
    Snapshot,
    /// An encrypted message cannot be read.
    Crypto,
    /// The user was sent away; the connection closes.
    Expelled(ExpelFault),
}

impl Refusal {
    /// The stable code, for programs.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Frame(_) => "E_FRAME",
            Self::Decode(_) => "E_DECODE",
            Self::Version(_) => "E_VERSION",
            Self::Limit(_) => "E_LIMIT",
            Self::State(_) => "E_STATE",
            Self::Auth(_) => "E_AUTH",
            Self::Name(_) => "E_NAME",
            Self::Perm | Self::Expelled(_) => "E_PERM",
            Self::Command => "E_COMMAND",
            Self::Target(_) => "E_TARGET",
            Self::Rate { .. } => "E_RATE",
            Self::Busy { .. } => "E_BUSY",
            Self::Gate { .. } => "E_GATE",
            Self::Gone => "E_GONE",
            Self::Store => "E_STORE",
            Self::Snapshot => "E_SNAPSHOT",
            Self::Crypto => "E_CRYPTO",
        }
    }

    /// Whether the same request may succeed later as it stands. Such a refusal uses up no counter.
    pub const fn is_passing(&self) -> bool {
        matches!(self, Self::Rate { .. } | Self::Busy { .. } | Self::Store | Self::Gone)
    }

    /// Whether `command` may be sent again as it stands after this refusal, and so used up no
    /// counter. As [`Refusal::is_passing`], but a reset that was too often is refused for good: one
    /// that came a minute late would clear what was said meanwhile. While a store is full nothing
    /// is said, and what is refused for good could not be remembered.
    pub const fn is_passing_for(&self, command: &Command) -> bool {
        let late_reset = matches!((self, command), (Self::Rate { .. }, Command::Reset { .. }));
        self.is_passing() && !late_reset
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Frame(fault) => fault.fmt(f),
            Self::Decode(fault) => fault.fmt(f),
            Self::Version(range) => {
                write!(f, "this server speaks protocol versions {} to {}", range.min, range.max)
            }
            Self::Limit(fault) => fault.fmt(f),
            Self::State(fault) => fault.fmt(f),
            Self::Auth(fault) => fault.fmt(f),
            Self::Name(fault) => fault.fmt(f),
            Self::Perm => f.write_str("operators only"),
            Self::Command => f.write_str("the message is empty"),
            Self::Target(fault) => fault.fmt(f),
            Self::Rate { retry_ms } => {
                write!(f, "too often, try again in {} ms", retry_ms.as_millis())
            }
            Self::Busy { retry_ms } => {
                write!(f, "the server is busy, try again in {} ms", retry_ms.as_millis())
            }
            Self::Gate { have, need } => {
                write!(f, "messages are held until {need} users are connected (now {have})")
            }
            Self::Gone => f.write_str("the server moved or stopped"),
            Self::Store => f.write_str("not saved: the server cannot store anything now"),
            Self::Snapshot => f.write_str("the snapshot cannot be used"),
            Self::Crypto => f.write_str("the encrypted message cannot be read"),
            Self::Expelled(fault) => fault.fmt(f),
        }
    }
}

/// An enum of faults, each with its fixed text.
macro_rules! faults {
    ($(#[$doc:meta])* $name:ident { $($(#[$item:meta])* $variant:ident => $text:expr,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
        #[serde(rename_all = "snake_case")]
        pub enum $name {
            $($(#[$item])* #[error($text)] $variant,)*
        }

        impl $name {
            /// Every fault, in wire order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];
        }
    };
}

faults! {
    /// What is wrong with a length prefix.
    FrameFault {
        /// The length is zero.
        Empty => "empty frame",
        /// The length is above what the connection may send now.
        TooLarge => "frame too large",
        /// It came unencrypted where only TLS is taken.
        Unencrypted => "only encrypted connections are taken here: use chats://",
    }
}

faults! {
    /// Why the bytes of a frame are not a message.
    DecodeFault {
        /// An integer is too long for its type.
        Number => "bad number",
        /// The message has a shorter encoding, so this one is not allowed.
        NotCanonical => "not canonical",
        /// Bytes follow the message.
        TrailingBytes => "trailing bytes",
        /// Text is not UTF-8.
        Text => "bad text",
        /// The frame ends inside the message.
        Truncated => "truncated",
        /// A kind or a value that does not exist.
        Value => "unknown kind or value",
    }
}

faults! {
    /// Which limit was met.
    LimitFault {
        /// The text of a message is above 8 KiB.
        Body => "the message is longer than 8192 bytes",
        /// The room holds as much as it may before its gate opens.
        Held => "the room holds no more messages until its gate opens",
        /// The user is in 64 rooms.
        RoomsOfUser => "no more rooms for this user",
        /// The server has 4,096 rooms.
        Rooms => "no more rooms on this server",
        /// The user has 16 live sessions.
        SessionsOfUser => "no more sessions for this user",
        /// The server knows as many users as it may.
        Users => "no more users on this server",
        /// The log-in took too long.
        LoginTime => "the log-in took too long",
        /// The peer gave no sign of life.
        Silence => "no sign of life",
        /// The peer does not read what it is sent.
        SlowReader => "slow reader",
        /// The peer sends much more than it may, and does not wait when it is told to.
        Flood => "too much is sent",
        /// As many users are banned as may be.
        Bans => "no more users can be banned",
    }
}
const _: () = assert!(BODY_BYTES_MAX == 8_192, "the text of LimitFault::Body names the limit");

/// What was out of order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum StateFault {
    /// Only `Hello`, and `Login` or `Operate`, are answered before log-in.
    #[error("log in first")]
    LogInFirst,
    /// A second `Hello`, a second `Login`, or `Operate` after it.
    #[error("already logged in")]
    AlreadyLoggedIn,
    /// The counter is not the next one.
    #[error("counter {expect} is expected")]
    Counter {
        /// The counter to go on with.
        expect: Counter,
    },
    /// The counter was used for another command.
    #[error("counter reused for another command")]
    CounterReused,
    /// The user is not in the room.
    #[error("join the room first")]
    NotMember,
    /// The message was written for an earlier life of the room.
    #[error("the room was reset since this was written")]
    OtherIncarnation,
}

faults! {
    /// Why a connection does not speak for a user.
    AuthFault {
        /// The signature is not the key's.
        Signature => "the signature is wrong",
        /// The same session logged in elsewhere.
        Replaced => "replaced by a newer connection of the same session",
        /// The session belongs to another key.
        Session => "the session belongs to another key",
    }
}

/// Why a name cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum NameFault {
    /// The text is no name.
    #[error(transparent)]
    Bad(NameError),
    /// The name belongs to another key.
    #[error("the name is already in use")]
    InUse,
    /// The name looks like one that belongs to another key.
    #[error("the name is too similar to one in use")]
    TooSimilar,
    /// The key belongs to another name.
    #[error("this key already has another name")]
    KeyHasName,
}

faults! {
    /// What does not exist.
    TargetFault {
        /// There is no such room.
        Room => "there is no such room",
        /// There is no such user.
        User => "there is no such user",
        /// Nobody takes a measure on themselves.
        Oneself => "not on yourself",
        /// The server was founded with this operator's name or key: only those who run it may.
        Founder => "the server's own operators are out of your reach",
        /// The user is banned, which has to end first.
        Banned => "the user is banned",
    }
}

faults! {
    /// How a user was sent away, by an operator or those who run the server.
    ExpelFault {
        /// The user may come back.
        Kicked => "you were sent away",
        /// The user may not.
        Banned => "you are banned",
        /// The name is nobody's now.
        Released => "your name was released",
    }
}

impl From<NameError> for Refusal {
    fn from(error: NameError) -> Self {
        Self::Name(NameFault::Bad(error))
    }
}

impl From<BodyError> for Refusal {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::Empty => Self::Command,
            BodyError::TooLong => Self::Limit(LimitFault::Body),
        }
    }
}
