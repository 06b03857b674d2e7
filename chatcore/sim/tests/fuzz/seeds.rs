//! Inputs to begin with: golden frames, lines of the contract, snapshots of real engines.

use std::collections::BTreeMap;

use chat_sim::fuzz::client_ops::op as client;
use chat_sim::fuzz::engine_ops::{self, op};
use chatcore::client::COMMANDS;
use chatcore::codec::{PREFIX_BYTES, encode_to_bytes};
use chatcore::id::{Counter, RequestId, Seq};
use chatcore::text::Untrusted;
use chatcore::wire::{ClientFrame, Command, Question, Start};

use crate::read;

/// By target and name.
pub(crate) type Seeds = BTreeMap<(&'static str, String), Vec<u8>>;

/// How streams of the target `frame` are cut: seven bytes at a time.
const CUT: u8 = 7;

pub(crate) fn all() -> Seeds {
    let mut seeds = Seeds::new();
    add_frames(&mut seeds);
    for (name, script) in engine_scripts() {
        let kept = engine_ops::keep(&script);
        let framed = kept.entries.iter().flat_map(|entry| encode_to_bytes(&**entry).to_vec());
        seeds.insert(("journal", name.to_owned()), framed.collect());
        seeds.insert(("snapshot", name.to_owned()), kept.snapshot);
        seeds.insert(("engine_ops", name.to_owned()), script);
    }
    for (name, script) in client_scripts() {
        seeds.insert(("client_ops", name.to_owned()), script);
    }
    for (name, script) in hub_scripts() {
        seeds.insert(("hub", name.to_owned()), script);
    }
    for (name, text) in texts() {
        seeds.insert(("name", name), text.into_bytes());
    }
    for (name, line) in lines() {
        seeds.insert(("line", name), line.into_bytes());
    }
    seeds
}

fn unhex(text: &str) -> Vec<u8> {
    assert!(text.len().is_multiple_of(2), "{text}");
    let bytes = (0..text.len()).step_by(2);
    bytes.map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

/// The golden frames as a stream each, as single messages, and as lines of JSON.
fn add_frames(seeds: &mut Seeds) {
    let golden = read("chatcore/tests/wire/golden.txt");
    for entry in golden.split("\n\n").skip(1) {
        let mut lines = entry.lines();
        let name = lines.next().unwrap().to_owned();
        let frame = unhex(lines.next().unwrap());
        let json = lines.next().unwrap().to_owned();
        let side = match name.split('.').next() {
            Some("client") => "client_message",
            Some("server") => "server_message",
            Some("node") => "node_message",
            Some("directory") => "directory_message",
            other => panic!("{other:?} is no side"),
        };
        seeds.insert((side, name.clone()), frame[PREFIX_BYTES..].to_vec());
        seeds.insert(("frame", name.clone()), [&[CUT][..], &frame].concat());
        seeds.insert(("frame_json", name), json.into_bytes());
    }
}

/// Somebody in the first two slots, both in the lobby.
fn two_in_lobby(settings: u8) -> Vec<u8> {
    let join = |slot| [op::JOIN, slot, 0, 0, 1];
    let mut script = vec![settings, op::ENTER, 0, 0, 0, op::ENTER, 1, 1, 0];
    script.extend([join(0), join(1)].concat());
    script
}

/// A post of two letters to the lobby under the next number.
const fn post(slot: u8) -> [u8; 6] {
    [op::POST, slot, 0, 0, 0, 0]
}

/// Operations on an engine that get somewhere, by name.
pub(crate) fn engine_scripts() -> Vec<(&'static str, Vec<u8>)> {
    let talk = |settings| [two_in_lobby(settings), [post(0), post(1), post(0)].concat()].concat();
    let with = |settings, more: &[u8]| [talk(settings), more.to_vec()].concat();
    let held = [vec![0, op::ENTER, 0, 0, 0, op::JOIN, 0, 0, 0, 1], [post(0), post(0)].concat()];
    let hello = encode_to_bytes(&ClientFrame::hello());
    let length = u8::try_from(hello.len()).unwrap();
    let bytes = [&[0, op::CONNECT, 0, op::BYTES, 0, length][..], &hello].concat();
    let looks: [&[u8]; 4] = [&[0, 0], &[1, 0], &[2, 0, 1], &[3, 0, 4, 2]];
    let looks = looks.map(|what| [&[op::ASK, 0], what].concat()).concat();
    vec![
        ("founded", vec![0]),
        ("talk", talk(0)),
        ("held", held.concat()),
        ("operators", with(0x80, &[op::RESET, 1, 0, 3, 0])),
        ("reset", with(0, &[&[op::RESET, 0, 0, 1, 0][..], &post(1), &post(0)].concat())),
        ("tight", with(0x01, &[op::ENTER, 2, 2, 0, op::JOIN, 0, 1, 0, 1, op::JOIN, 1, 0, 1, 1])),
        ("looks", with(0, &looks)),
        ("store", with(0x46, &[&looks[..], &[op::ENTER, 2, 2, 0, op::JOIN, 2, 0, 0, 1]].concat())),
        ("late", with(0x18, &[op::PERSIST, 3, op::PACE, 0, op::READ, 0])),
        ("pieces", with(0x20, &[op::STALL, 1, 1, op::POST, 0, 0, 0, 5, 0, op::STALL, 1, 0])),
        ("slow", with(0, &[op::STALL, 1, 1, op::POST, 0, 0, 0, 3, 0, op::PASS, 6, op::PASS, 6])),
        ("crash", with(0x08, &[op::PERSIST, 9, op::RESTART, 0, op::ENTER, 0, 0, 0])),
        ("restored", with(0, &[op::RESTART, 1, op::ENTER, 0, 0, 0, op::JOIN, 0, 0, 2, 2])),
        ("resent", with(0, &[op::POST, 0, 0, 0, 0, 1, op::POST, 0, 0, 0, 0, 2])),
        ("replaced", with(0, &[op::ENTER, 2, 0, 0, op::LOGIN, 2, 0, 0, 0])),
        ("grace", with(0, &[op::CUT, 1, op::PASS, 5, op::SIGN, 0, 2])),
        ("condemned", with(0, &[op::CONDEMN, 0, op::STOP, op::CONNECT, 3, op::HELLO, 3])),
        ("operate", with(0, &[op::CONNECT, 2, op::HELLO, 2, op::OPERATE, 2, 8, 0])),
        ("operators_order", with(0, &[op::CONNECT, 2, op::HELLO, 2, op::OPERATE, 2, 0, 0])),
        ("no_right", with(0, &[op::CONNECT, 2, op::HELLO, 2, op::OPERATE, 2, 1, 0])),
        ("wall", with(0, &[&[op::WALL, 3][..], &post(0), &[op::WALL, 0], &post(0)].concat())),
        ("misuse", with(0, &[op::MISUSE, 0, op::MISUSE, 1, op::MISUSE, 2, op::MISUSE, 3])),
        ("bytes", bytes),
    ]
}

/// What happens to a hub: connections 0 and 1 log in as they open, 2 does not; then frames.
fn hub_scripts() -> Vec<(&'static str, Vec<u8>)> {
    let frame = |place: u8, frame: &ClientFrame| {
        let bytes = encode_to_bytes(frame);
        [&[place, u8::try_from(bytes.len()).unwrap()][..], &bytes].concat()
    };
    let ask = |question| ClientFrame::Ask { request: RequestId::ZERO, question };
    let join = ask(Question::Join { room: Untrusted::new("lobby"), start: Start::At(Seq::ZERO) });
    let (incarnation, body) = (None, Untrusted::new("hi"));
    let command = Command::Post { room: Untrusted::new("lobby"), incarnation, body };
    let post = ClientFrame::Submit { counter: Counter::ZERO.next(), command };
    let talk = [vec![0, 1], frame(0, &join), frame(1, &join), frame(0, &post)].concat();
    let whole = encode_to_bytes(&post);
    let payload = &whole[PREFIX_BYTES..];
    // 0x82 is for connection 1, and a frame that comes whole.
    let typed = [&[0x82, u8::try_from(payload.len()).unwrap()][..], payload].concat();
    vec![
        ("opened", vec![0, 1, 0x80]),
        ("talk", talk.clone()),
        ("typed", [talk.clone(), typed].concat()),
        ("garbage", vec![0, 0, 5, 0, 0, 0, 1, 9]),
        ("times", [talk.clone(), vec![0xB1, 0xB1, 0xB1, 0xB1]].concat()),
        ("gone", [talk, vec![0xD2, 0xD1, 0, 1]].concat()),
    ]
}

/// Operations on a client that get somewhere, by name.
pub(crate) fn client_scripts() -> Vec<(&'static str, Vec<u8>)> {
    /// One room.
    const LOBBY: u8 = 0x04;
    let online = |settings, more: &[u8]| [&[settings, client::OBLIGE_ALL][..], more].concat();
    let records = [client::RECORDS, 4, 1, 0];
    vec![
        ("online", online(LOBBY, &[])),
        ("posts", online(LOBBY, &[client::POST, 0, client::POST, 0, client::OBLIGE_ALL])),
        ("records", online(LOBBY, &[&records[..], &records].concat())),
        ("saved", online(0x64, &[&records[..], &[client::OBLIGE_ALL]].concat())),
        ("lost", online(LOBBY, &[client::POST, 0, client::LOSE, client::WAIT, client::OBLIGE_ALL])),
        ("early", vec![LOBBY, client::POST, 0, client::RESET, 0, client::OBLIGE_ALL]),
        ("once", online(0x14, &[client::LOSE])),
        (
            "dies",
            online(
                LOBBY,
                &[&[client::POST, 0, client::DIE, client::OBLIGE_ALL][..], &records].concat(),
            ),
        ),
        ("asks", online(LOBBY, &[0, 1, 2, 3].map(|what| [client::ASK, 0, what]).concat())),
        ("parts", online(LOBBY, &[client::PART, 0, client::JOIN, 1, client::OBLIGE_ALL])),
        ("quits", online(LOBBY, &[client::POST, 0, client::QUIT, 0, client::OBLIGE_ALL])),
        ("silent", online(LOBBY, &[client::WAIT, client::WAIT, client::OBLIGE_ALL])),
    ]
}

/// Texts with something about them.
fn texts() -> Vec<(String, String)> {
    let long_body = "x".repeat(8_192);
    let id = "AAECAwQFBgcICQoLDA0ODw";
    let key = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";
    let signature = "A".repeat(86);
    let texts = [
        ("plain", "alice"),
        ("capitals", "ALICE"),
        ("wide", "Ａｌｉｃｅ"),
        ("composed", "e\u{301}te\u{301}"),
        ("hebrew", "שָׁלוֹם"),
        ("thaana", "ދިވެހި"),
        ("cyrillic", "раураl"),
        ("cherokee", "ᏣᎳᎩ"),
        ("lisu", "\u{a4df}ax"),
        ("katakana", "ﾊﾞｯｸ"),
        ("digits", "r00m-101"),
        ("reserved", "s.e.r.v.e.r"),
        ("sigil", "$bob"),
        ("controls", "a\u{1b}[31mb"),
        ("hidden", "a\u{200b}\u{202e}b"),
        ("white", " \t\u{3000}\n"),
        ("address", "chat://127.0.0.1:5000"),
        ("address_v6", "[::1]:7"),
        ("address_unix", "unix:///run/chat.sock"),
        ("log_id", id),
        ("key", key),
        ("signature", &signature),
        ("body_longest", &long_body),
        ("eight_bytes", "\0\u{1f}______"),
    ];
    texts.map(|(name, text)| (name.to_owned(), text.to_owned())).into()
}

/// Every command, and texts that look like one.
fn lines() -> Vec<(String, String)> {
    let commands = COMMANDS.iter().flat_map(|command| command.names).map(|name| {
        let arguments = match *name {
            "msg" | "private" => " bob hi  there ",
            "reset" => " -3",
            "gate" => " reset 3",
            "join" | "part" => " tea",
            "whois" | "verify" => " bob",
            "history" => " 7",
            _ => "",
        };
        ((*name).to_owned(), format!("/{name}{arguments}\r\n"))
    });
    let others = [
        ("text", "hello, world"),
        ("doubled_slash", "//quit"),
        ("doubled_dollar", "$$5 for lunch"),
        ("mixed", "/$quit"),
        ("typo", "/jion tea"),
        ("unknown", "$5 for lunch"),
        ("escape", "/\u{1b}]0;\u{202e}\u{200b}x"),
        ("empty", "\r\n"),
        ("malformed", "$reset 0"),
    ];
    commands.chain(others.map(|(name, line)| (name.to_owned(), line.to_owned()))).collect()
}
