//! Every way into chatcore has a fuzz target.
//!
//! `scan.rs` finds the ways by their types; this list says of each what tries it. One that is not
//! listed fails the tests, and so does a line for one that is gone, a target that does not exist or
//! has no corpus, and a target whose body does not use what it is said to.

use std::collections::{BTreeMap, BTreeSet};

use crate::corpus::inputs;
use crate::scan::{self, Found};
use crate::{at, read};

/// What tries an entry.
#[derive(Clone, Copy, Debug)]
enum Tried {
    /// A target, in whose code this stands.
    By(&'static str, &'static str),
    /// Nothing: what it is given does not come from others. Why.
    Not(&'static str),
}

use Tried::{By, Not};

/// Every way in.
const ENTRIES: &[(&str, Tried)] = &[
    ("address::Address: FromStr", By("name", "text.parse::<Address>()")),
    ("client::line::parse_line", By("line", "parse_line(text)")),
    ("client::machine::Client::handle", By("client_ops", "self.client.handle(now, input)")),
    ("codec::FrameBuffer::as_mut", By("frame", "buffer.as_mut()")),
    ("codec::FrameBuffer::feed", By("frame", "buffer.feed(piece)")),
    ("codec::decode", By("client_message", "decode::<T>(frame)")),
    ("codec::encode", Not("it writes: the bound is on where it appends")),
    ("codec::framed::FrameCodec: Decoder", By("frame", "codec.decode(&mut stream)")),
    ("codec::framed::FrameCodec: Encoder::encode", Not("it writes, as `encode` does")),
    ("delivery::Delivery::gather", Not("it appends to what its host gives it")),
    ("engine::Engine::handle", By("engine_ops", "self.engine.handle(self.now, input)")),
    ("migration::node::Node::handle", Not("a search visits every state of small worlds: `moving`")),
    (
        "migration::directory::wire::DirectoryReply: Deserialize",
        By("directory_message", "check_whole::<DirectoryReply>("),
    ),
    (
        "migration::directory::wire::DirectoryRequest: Deserialize",
        By("node_message", "check_whole::<DirectoryRequest>("),
    ),
    ("migration::directory::wire::SignedClaim::prove", By("node_message", "signed.clone().prove(")),
    (
        "migration::directory::wire::SignedRegistration::is_of",
        By("directory_message", "signed.is_of("),
    ),
    ("mutant::Mutant: FromStr", Not("only in builds that prove the checks")),
    ("engine::snapshot::Engine::replay", By("engine_ops", "Engine::replay(entries")),
    ("engine::snapshot::Engine::restore", By("snapshot", "Engine::restore(bytes")),
    ("engine::snapshot::Image: Deserialize", By("snapshot", "Engine::restore(bytes")),
    ("hub::Hub::found", Not("the host writes the check of signatures")),
    ("hub::Hub::receive", By("hub", "hub.receive(")),
    ("hub::Hub::receive_frame", By("hub", "hub.receive_frame(")),
    ("id::Attach: TryFrom", By("name", "check_number::<Attach>(value)")),
    ("id::BootId: FromStr", By("name", "check_id::<BootId>(text)")),
    ("id::ByteCount: TryFrom", By("name", "check_number::<ByteCount>(value)")),
    ("id::Counter: TryFrom", By("name", "check_number::<Counter>(value)")),
    ("id::Digest: FromStr", By("name", "check_id::<Digest>(text)")),
    ("id::Generation: TryFrom", By("name", "check_number::<Generation>(value)")),
    ("id::Incarnation: TryFrom", By("name", "check_number::<Incarnation>(value)")),
    ("id::Index: TryFrom", By("name", "check_number::<Index>(value)")),
    ("id::KeyHash: FromStr", By("name", "check_id::<KeyHash>(text)")),
    ("id::LogId: FromStr", By("name", "check_id::<LogId>(text)")),
    ("id::Nonce: FromStr", By("name", "check_id::<Nonce>(text)")),
    ("id::PublicKey: FromStr", By("name", "check_id::<PublicKey>(text)")),
    ("id::RequestId: TryFrom", By("name", "check_number::<RequestId>(value)")),
    ("id::Seq: TryFrom", By("name", "check_number::<Seq>(value)")),
    ("id::SessionId: FromStr", By("name", "check_id::<SessionId>(text)")),
    ("id::Signature: FromStr", By("name", "check_id::<Signature>(text)")),
    ("log::Entry: Deserialize", By("journal", "check_message::<Entry>(")),
    ("log::Head::follow", By("journal", "head.follow(entry)")),
    ("text::body::Body: FromStr", By("name", "text.parse::<Body>()")),
    ("text::body::BodyError: Deserialize", Not("a reason, which never travels by itself")),
    ("text::host_address::HostAddress: FromStr", By("name", "text.parse::<HostAddress>()")),
    ("text::name::RoomName: FromStr", By("name", "text.parse::<RoomName>()")),
    ("text::name::ServiceName: FromStr", By("name", "text.parse::<ServiceName>()")),
    ("text::name::UserName: FromStr", By("name", "text.parse::<UserName>()")),
    ("text::untrusted::Untrusted::new", By("name", "Untrusted::<UserName>::new(text)")),
    ("text::untrusted::Untrusted::parse", By("name", "Untrusted::<UserName>::new(text).parse()")),
    ("time::Timestamp: TryFrom", By("name", "check_number::<Timestamp>(value)")),
    ("wire::client::ClientFrame: Deserialize", By("client_message", "check_whole::<ClientFrame>(")),
    ("wire::location::Addresses::first_of", Not("it takes the first of what was read before")),
    ("wire::refusal::Refusal::is_passing_for", Not("it looks at a command that was read before")),
    ("wire::refusal::Refusal: From::from", Not("it makes a reason of another, of a closed set")),
    ("wire::server::ServerFrame: Deserialize", By("server_message", "check_whole::<ServerFrame>(")),
];

/// Roots that are read as JSON, too.
const JSON: [&str; 4] = [
    "check_line::<ClientFrame>(line)",
    "check_line::<ServerFrame>(line)",
    "check_line::<DirectoryRequest>(line)",
    "check_line::<DirectoryReply>(line)",
];

/// What is wrong between a scan and a list, one line each.
fn faults(found: &Found, list: &[(&str, Tried)]) -> Vec<String> {
    let listed: BTreeMap<&str, Tried> = list.iter().copied().collect();
    let unlisted = found.entries.iter().filter(|entry| !listed.contains_key(entry.as_str()));
    let gone = listed.keys().filter(|entry| !found.entries.contains(**entry));
    let mut faults: Vec<String> = unlisted.map(|it| format!("{it} has no target")).collect();
    faults.extend(gone.map(|entry| format!("{entry} is listed and does not exist")));
    faults.extend(listed.iter().filter_map(|(entry, tried)| fault_of(entry, *tried)));
    faults
}

fn fault_of(entry: &str, tried: Tried) -> Option<String> {
    match tried {
        Not(reason) => reason.is_empty().then(|| format!("{entry} is not tried without a reason")),
        By(target, _) if inputs(target).is_empty() => {
            Some(format!("{entry}: the target {target} has no corpus"))
        }
        By(target, call) => {
            let used = body_of(target).contains(call);
            (!used).then(|| format!("{entry}: the body of {target} does not say {call}"))
        }
    }
}

/// The code of a target: that of the module which its program calls, and of those beside it that it
/// uses; without comments.
fn body_of(target: &str) -> String {
    let shim = read(&format!("fuzz/fuzz_targets/{target}.rs"));
    let (mut waiting, mut seen) = (modules_after(&shim, "chat_sim::fuzz::"), BTreeSet::new());
    let mut body = String::new();
    while let Some(module) = waiting.pop() {
        if seen.insert(module.clone()) {
            let code = code_of(&read(&format!("chatcore/sim/src/fuzz/{module}.rs")));
            waiting.extend(modules_after(&code, "super::"));
            body += &code;
        }
    }
    body
}

fn modules_after(code: &str, prefix: &str) -> Vec<String> {
    let rests = code.split(prefix).skip(1);
    let words =
        rests.filter_map(|rest| rest.split(|it: char| !it.is_alphanumeric() && it != '_').next());
    words.map(str::to_owned).collect()
}

fn code_of(source: &str) -> String {
    let lines = source.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.flat_map(|line| [line, "\n"]).collect()
}

#[test]
fn every_way_in_has_a_target() {
    let found = scan::folder(&at("chatcore/src"));
    let faults = faults(&found, ENTRIES);
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    let json = body_of("frame_json");
    assert!(JSON.iter().all(|call| json.contains(call)), "messages are read as JSON, too");
}

#[test]
fn new_way_in_is_found_whatever_its_name_and_shape() {
    let ways = [
        ("pub fn a(bytes: &[u8]) {}", "new::a"),
        ("pub fn a(text: impl AsRef<str>) {}", "new::a"),
        ("pub fn a<B: bytes::Buf>(source: B) {}", "new::a"),
        ("pub fn a<B>(source: B) where B: std::io::Read {}", "new::a"),
        ("pub fn a(lines: Vec<String>) {}", "new::a"),
        ("pub fn a() -> &'static mut BytesMut {}", "new::a"),
        ("mod inner { pub async fn a(bytes: Vec<u8>) {} }", "new::inner::a"),
        ("impl T { pub const fn a(&self, bytes: &[u8]) {} }", "new::T::a"),
        ("impl<B: Buf> T<B> { pub fn a(&self, source: B) {} }", "new::T::a"),
        ("pub trait T { fn a(&self, bytes: &[u8]); }", "new::T::a"),
        ("impl core::str::FromStr for T {}", "new::T: FromStr"),
        ("impl<'a> TryFrom<&'a [u8]> for T<'a> {}", "new::T: TryFrom"),
        ("impl From<&str> for T { fn from(text: &str) {} }", "new::T: From::from"),
        ("impl<'de> serde::Deserialize<'de> for T {}", "new::T: Deserialize"),
        ("#[derive(Clone, serde::Deserialize)] enum T { A }", "new::T: Deserialize"),
        (
            "#[derive(Deserialize)] struct A(u8); #[derive(Deserialize)] struct T(A);",
            "new::T: Deserialize",
        ),
        (
            "macro_rules! m { () => { impl FromStr for $n {} } } m!(/** Doc \"]. */ T, 1);",
            "new::T: FromStr",
        ),
        ("#[derive(Deserialize)] struct T; pub fn a(message: T) {}", "new::a"),
        ("pub struct Blob(pub Vec<u8>); pub fn a(blob: &Blob) {}", "new::a"),
        ("pub enum Blob { Text { text: String } } pub fn a(blob: &Blob) {}", "new::a"),
        ("pub type Blob = [u8]; pub fn a(blob: &Blob) {}", "new::a"),
        (
            "/** Of `ClientFrame`. */ #[derive(Deserialize)] struct U { /** As `T`. */ a: u8 } \
          #[derive(Deserialize)] struct T;",
            "new::T: Deserialize",
        ),
    ];
    for (source, entry) in ways {
        let found = scan::text("new", source);
        assert!(found.entries.contains(entry), "{source}: {:?}", found.entries);
        assert!(faults(&found, &[]).contains(&format!("{entry} has no target")));
    }
}

#[test]
fn way_that_is_not_public_or_takes_nothing_foreign_is_none() {
    let none = [
        "fn a(bytes: &[u8]) {}",
        "pub(crate) fn a(bytes: &[u8]) {}",
        "pub fn a(key: [u8; 32], count: u64) -> String {}",
        "impl T { pub fn a(&self) -> &[u8] {} }",
        "#[cfg(test)] mod tests { pub fn a(bytes: &[u8]) {} }",
        "#[derive(Serialize)] struct T;",
    ];
    for source in none {
        assert!(scan::text("new", source).entries.is_empty(), "{source}");
    }
}

#[test]
fn line_of_the_list_that_is_not_true_is_found() {
    let found = scan::text("new", "pub fn a(bytes: &[u8]) {}");
    let wrong = [By("frame", "there is no such call"), By("no_such_target", "decode"), Not("")];
    for tried in wrong {
        assert_eq!(faults(&found, &[("new::a", tried)]).len(), 1, "{tried:?}");
    }
    let gone = [("new::a", By("frame", "check_codec")), ("new::b", Not("gone"))];
    assert_eq!(faults(&found, &gone), ["new::b is listed and does not exist"]);
}
