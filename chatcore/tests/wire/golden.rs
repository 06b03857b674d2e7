//! The frames that are pinned byte by byte.

use core::fmt::Write as _;
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use bytes::Bytes;
use chatcore::codec::{PREFIX_BYTES, decode, encode_to_bytes};
use chatcore::migration::directory::{ClaimFault, DirectoryReply, DirectoryRequest};
use chatcore::wire::{
    AuthFault, ClientFrame, DecodeFault, FrameFault, LimitFault, Role, ServerFrame, TargetFault,
};

use crate::samples;
use crate::variants::Variants;

const REWRITE: &str = "CHATCORE_REWRITE_GOLDEN";

const HEAD: &str = "\
# Golden frames: one at least for every variant of every enum that travels.
#
# A name, the whole frame with its length prefix in hexadecimal, and the same message in JSON.
# Names begin with the side that sends the frame.
#
# A change of these bytes breaks every client there is: enums only grow at the end, and what has
# gone out stays. After adding a frame, write this file anew and read the difference:
#
#     CHATCORE_REWRITE_GOLDEN=1 cargo test -p chatcore --test wire golden_frames
";

/// A frame of either side, of a chat or of a directory.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Message {
    Client(ClientFrame),
    Server(ServerFrame),
    Node(DirectoryRequest),
    Directory(DirectoryReply),
}

impl Message {
    /// The frame with its prefix.
    pub(crate) fn encode(&self) -> Bytes {
        match self {
            Self::Client(frame) => encode_to_bytes(frame),
            Self::Server(frame) => encode_to_bytes(frame),
            Self::Node(frame) => encode_to_bytes(frame),
            Self::Directory(frame) => encode_to_bytes(frame),
        }
    }

    /// Decodes a frame without prefix as one of the same side.
    pub(crate) fn decode_alike(&self, frame: &[u8]) -> Result<Self, DecodeFault> {
        match self {
            Self::Client(_) => decode(frame).map(Self::Client),
            Self::Server(_) => decode(frame).map(Self::Server),
            Self::Node(_) => decode(frame).map(Self::Node),
            Self::Directory(_) => decode(frame).map(Self::Directory),
        }
    }

    pub(crate) fn to_json(&self) -> String {
        match self {
            Self::Client(frame) => serde_json::to_string(frame).unwrap(),
            Self::Server(frame) => serde_json::to_string(frame).unwrap(),
            Self::Node(frame) => serde_json::to_string(frame).unwrap(),
            Self::Directory(frame) => serde_json::to_string(frame).unwrap(),
        }
    }

    pub(crate) fn parse_json_alike(&self, json: &str) -> serde_json::Result<Self> {
        match self {
            Self::Client(_) => serde_json::from_str(json).map(Self::Client),
            Self::Server(_) => serde_json::from_str(json).map(Self::Server),
            Self::Node(_) => serde_json::from_str(json).map(Self::Node),
            Self::Directory(_) => serde_json::from_str(json).map(Self::Directory),
        }
    }
}

/// Every golden frame with its name.
pub(crate) fn golden() -> Vec<(String, Message)> {
    let client = samples::client_frames().into_iter().map(|(suffix, frame)| {
        (format!("client.{}{suffix}", frame.variant()), Message::Client(frame))
    });
    let server = samples::server_frames().into_iter().map(|(suffix, frame)| {
        (format!("server.{}{suffix}", frame.variant()), Message::Server(frame))
    });
    let node = samples::directory_requests()
        .into_iter()
        .map(|(suffix, frame)| (format!("node.{}{suffix}", frame.variant()), Message::Node(frame)));
    let directory = samples::directory_replies().into_iter().map(|(suffix, frame)| {
        (format!("directory.{}{suffix}", frame.variant()), Message::Directory(frame))
    });
    client.chain(server).chain(node).chain(directory).collect()
}

/// The frame without its prefix.
pub(crate) fn payload(frame: &Bytes) -> Bytes {
    frame.slice(PREFIX_BYTES..)
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/wire/golden.txt")
}

/// The checked-in file.
pub(crate) fn golden_text() -> String {
    fs::read_to_string(path()).unwrap_or_default()
}

fn render() -> String {
    golden().into_iter().fold(HEAD.to_owned(), |mut text, (name, message)| {
        let (bytes, json) = (hex(&message.encode()), message.to_json());
        write!(text, "\n{name}\n{bytes}\n{json}\n").unwrap();
        text
    })
}

/// The lines that differ: what is checked in with `-`, what the code gives with `+`.
fn difference(old: &str, new: &str) -> String {
    let entries = |text: &str| -> BTreeSet<String> {
        text.split("\n\n").map(|entry| entry.trim().to_owned()).collect()
    };
    let (old, new) = (entries(old), entries(new));
    let prefixed = |sign: &'static str, entry: &String| -> String {
        entry.lines().flat_map(|line| [sign, " ", line, "\n"]).collect()
    };
    let gone = old.difference(&new).map(|entry| prefixed("-", entry));
    gone.chain(new.difference(&old).map(|entry| prefixed("+", entry))).collect()
}

#[test]
fn golden_frames_are_what_the_code_writes() {
    let (old, new) = (golden_text(), render());
    if std::env::var_os(REWRITE).is_some() {
        fs::write(path(), new).unwrap();
        return;
    }
    assert!(old == new, "the wire format changed:\n{}", difference(&old, &new));
}

#[test]
fn difference_of_golden_files_shows_the_entry_that_changed() {
    let old = "head\n\na\n01\n1\n\nb\n02\n2\n";
    let new = "head\n\na\n01\n1\n\nb\n03\n2\n";
    assert_eq!(difference(old, new), "- b\n- 02\n- 2\n+ b\n+ 03\n+ 2\n");
    assert_eq!(difference(old, old), "");
}

#[test]
fn golden_names_are_unique() {
    let names: BTreeSet<String> = golden().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names.len(), golden().len());
}

#[track_caller]
fn assert_covers<T: Variants>(samples: impl IntoIterator<Item = T>) {
    let mut found: Vec<&str> = samples.into_iter().map(|sample| sample.variant()).collect();
    found.dedup();
    assert_eq!(found, T::VARIANTS, "{} lacks a golden frame, or is out of order", T::TYPE);
}

#[test]
fn every_variant_that_travels_has_a_golden_frame() {
    assert_covers(samples::client_frames().into_iter().map(|(_, frame)| frame));
    assert_covers([Role::Client, Role::Node]);
    assert_covers(samples::commands().into_iter().map(|(_, command)| command));
    assert_covers(samples::questions().into_iter().map(|(_, question)| question));
    assert_covers(samples::starts());
    assert_covers(samples::orders());
    assert_covers(samples::storages());
    assert_covers(samples::durabilities());
    assert_covers(samples::server_frames().into_iter().map(|(_, frame)| frame));
    assert_covers(samples::answers().into_iter().map(|(_, answer)| answer));
    assert_covers(samples::record_bodies());
    assert_covers(samples::notices());
    assert_covers(samples::refusals());
    assert_covers(FrameFault::ALL.iter().copied());
    assert_covers(DecodeFault::ALL.iter().copied());
    assert_covers(LimitFault::ALL.iter().copied());
    assert_covers(samples::state_faults());
    assert_covers(AuthFault::ALL.iter().copied());
    assert_covers(samples::name_faults());
    assert_covers(samples::name_errors());
    assert_covers(TargetFault::ALL.iter().copied());
    assert_covers(samples::directory_requests().into_iter().map(|(_, frame)| frame));
    assert_covers(samples::directory_replies().into_iter().map(|(_, frame)| frame));
    assert_covers(ClaimFault::ALL.iter().copied());
}

#[test]
fn golden_frames_survive_json_and_back() {
    for (name, message) in golden() {
        let back = message.parse_json_alike(&message.to_json()).expect(&name);
        assert_eq!(back, message, "{name}");
        assert_eq!(back.encode(), message.encode(), "{name}");
    }
}

#[test]
fn golden_frames_decode_to_what_was_encoded() {
    for (name, message) in golden() {
        assert_eq!(message.decode_alike(&payload(&message.encode())), Ok(message), "{name}");
    }
}
