//! Every variant of every enum that travels, by the name it has in JSON.
//!
//! The matches have no `_` arm: whoever adds a variant is stopped here by the compiler, and then by
//! the golden test until a frame pins the new variant's bytes.

use chatcore::migration::directory::{ClaimFault, DirectoryReply, DirectoryRequest};
use chatcore::text::NameError;
use chatcore::wire::{
    Answer, AuthFault, ClientFrame, Command, DecodeFault, Durability, ExpelFault, FrameFault,
    LimitFault, Measure, NameFault, Notice, Order, Question, RecordBody, Refusal, Role,
    ServerFrame, Start, StateFault, StorageStatus, TargetFault,
};

/// An enum that travels.
pub(crate) trait Variants {
    /// Its type's name.
    const TYPE: &'static str;
    /// The names of its variants, in wire order.
    const VARIANTS: &'static [&'static str];

    /// The name of this variant.
    fn variant(&self) -> &'static str;
}

macro_rules! variants {
    ($($enum:ident { $($variant:ident => $name:literal,)* })*) => {
        $(impl Variants for $enum {
            const TYPE: &'static str = stringify!($enum);
            const VARIANTS: &'static [&'static str] = &[$($name),*];

            fn variant(&self) -> &'static str {
                match self {
                    $(Self::$variant { .. } => $name,)*
                }
            }
        })*

        /// Every enum that travels with its variants: what the schema must be found to hold.
        pub(crate) const ENUMS: &[(&str, &[&str])] = &[$(($enum::TYPE, $enum::VARIANTS)),*];
    };
}

variants! {
    ClientFrame {
        Hello => "hello",
        Login => "login",
        Submit => "submit",
        Ask => "ask",
        Ping => "ping",
        Pong => "pong",
        Leave => "leave",
        Operate => "operate",
        Prove => "prove",
    }
    Role {
        Client => "client",
        Node => "node",
    }
    Command {
        Post => "post",
        Reset => "reset",
        Moderate => "moderate",
    }
    Measure {
        Kick => "kick",
        Ban => "ban",
        Unban => "unban",
        Release => "release",
        Op => "op",
        Deop => "deop",
    }
    Question {
        Join => "join",
        Part => "part",
        Who => "who",
        Rooms => "rooms",
        Whois => "whois",
        History => "history",
    }
    Order {
        Status => "status",
    }
    Start {
        After => "after",
        Last => "last",
        At => "at",
    }
    ServerFrame {
        Hello => "hello",
        Welcome => "welcome",
        Accepted => "accepted",
        Applied => "applied",
        Refused => "refused",
        Answer => "answer",
        Record => "record",
        Gap => "gap",
        Gate => "gate",
        Reset => "reset",
        Rejected => "rejected",
        Notice => "notice",
        Close => "close",
        Ping => "ping",
        Pong => "pong",
        Status => "status",
        Proof => "proof",
        Parked => "parked",
        Moved => "moved",
        Prepare => "prepare",
        Stay => "stay",
        Generation => "generation",
    }
    StorageStatus {
        Memory => "memory",
        Disk => "disk",
    }
    Durability {
        Commit => "commit",
        Relaxed => "relaxed",
    }
    Answer {
        Joined => "joined",
        Parted => "parted",
        Users => "users",
        Rooms => "rooms",
        User => "user",
        History => "history",
        Refused => "refused",
    }
    RecordBody {
        Post => "post",
        Joined => "joined",
        Left => "left",
    }
    Notice {
        FirstUserIsOperator => "first_user_is_operator",
        OperatorGranted => "operator_granted",
        OperatorRevoked => "operator_revoked",
    }
    Refusal {
        Frame => "frame",
        Decode => "decode",
        Version => "version",
        Limit => "limit",
        State => "state",
        Auth => "auth",
        Name => "name",
        Perm => "perm",
        Command => "command",
        Target => "target",
        Rate => "rate",
        Busy => "busy",
        Gate => "gate",
        Gone => "gone",
        Store => "store",
        Snapshot => "snapshot",
        Crypto => "crypto",
        Expelled => "expelled",
    }
    ExpelFault {
        Kicked => "kicked",
        Banned => "banned",
        Released => "released",
    }
    FrameFault {
        Empty => "empty",
        TooLarge => "too_large",
        Unencrypted => "unencrypted",
    }
    DecodeFault {
        Number => "number",
        NotCanonical => "not_canonical",
        TrailingBytes => "trailing_bytes",
        Text => "text",
        Truncated => "truncated",
        Value => "value",
    }
    LimitFault {
        Body => "body",
        Held => "held",
        RoomsOfUser => "rooms_of_user",
        Rooms => "rooms",
        SessionsOfUser => "sessions_of_user",
        Users => "users",
        LoginTime => "login_time",
        Silence => "silence",
        SlowReader => "slow_reader",
        Flood => "flood",
        Bans => "bans",
    }
    StateFault {
        LogInFirst => "log_in_first",
        AlreadyLoggedIn => "already_logged_in",
        Counter => "counter",
        CounterReused => "counter_reused",
        NotMember => "not_member",
        OtherIncarnation => "other_incarnation",
    }
    AuthFault {
        Signature => "signature",
        Replaced => "replaced",
        Session => "session",
    }
    NameFault {
        Bad => "bad",
        InUse => "in_use",
        TooSimilar => "too_similar",
        KeyHasName => "key_has_name",
    }
    NameError {
        Empty => "empty",
        TooLong => "too_long",
        Character => "character",
        Sign => "sign",
        Mark => "mark",
        Direction => "direction",
        Reserved => "reserved",
    }
    TargetFault {
        Room => "room",
        User => "user",
        Oneself => "oneself",
        Founder => "founder",
        Banned => "banned",
    }
    DirectoryRequest {
        Locate => "locate",
        Watch => "watch",
        Propose => "propose",
    }
    DirectoryReply {
        Registered => "registered",
        Unregistered => "unregistered",
        Applied => "applied",
        Conflict => "conflict",
        Denied => "denied",
        Refused => "refused",
        Close => "close",
    }
    ClaimFault {
        Signature => "signature",
        Right => "right",
        LogId => "log_id",
        Unregistered => "unregistered",
        Services => "services",
        Generation => "generation",
    }
}
