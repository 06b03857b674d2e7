//! `PROTOCOL.md` says what the code does: every vector and every table of kinds in it is checked.

use core::fmt::Write as _;
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use chatcore::id::{Attach, Digest, Generation, LogId, Nonce, PublicKey, SessionId};
use chatcore::limits::{Limits, REMEMBERED_ANSWERS};
use chatcore::migration::directory::{
    DIRECTORY_FRAME_BYTES_MAX, DirectoryReply, DirectoryRequest, SERVICES_MAX,
};
use chatcore::text::{
    BODY_BYTES_MAX, HOST_ADDRESS_BYTES_MAX, ROOM_NAME_CHARS_MAX, SERVICE_NAME_CHARS_MAX,
    USER_NAME_CHARS_MAX,
};
use chatcore::wire::{
    ADDRESSES_MAX, ClientFrame, FRAME_BYTES_MAX, GREETING_FRAME_BYTES_MAX, LIST_MAX, LoginProof,
    OperateProof, Order, ServerFrame, VERSION,
};
use ed25519_dalek::{Signer as _, SigningKey, Verifier as _};

use crate::golden::{golden_text, hex};
use crate::samples;
use crate::variants::{ENUMS, Variants};

fn protocol() -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("PROTOCOL.md");
    fs::read_to_string(path).unwrap()
}

/// The fenced blocks of a kind, without the fences.
fn blocks<'a>(text: &'a str, kind: &str) -> Vec<&'a str> {
    let begin = format!("```{kind}\n");
    let parts = text.split(begin.as_str()).skip(1);
    parts.map(|part| part.split("\n```").next().unwrap()).collect()
}

#[test]
fn protocol_prints_golden_frames_exactly() {
    let (protocol, golden) = (protocol(), golden_text());
    let entries: BTreeSet<&str> = golden.split("\n\n").map(str::trim).collect();
    let printed = blocks(&protocol, "golden");
    for block in &printed {
        assert!(entries.contains(block), "PROTOCOL.md prints what is not golden:\n{block}");
    }
    for (side, kinds) in [
        ("client", ClientFrame::VARIANTS),
        ("server", ServerFrame::VARIANTS),
        ("node", DirectoryRequest::VARIANTS),
        ("directory", DirectoryReply::VARIANTS),
    ] {
        for kind in kinds {
            let name = format!("{side}.{kind}");
            let shown = printed.iter().any(|block| {
                let first = block.lines().next().unwrap();
                first == name || first.starts_with(&format!("{name}."))
            });
            assert!(shown, "PROTOCOL.md prints no vector of {name}");
        }
    }
}

#[test]
fn protocol_lists_every_kind_with_its_number() {
    let protocol = protocol();
    for (name, variants) in ENUMS {
        let heading = format!("### {name}\n");
        let section = protocol.split(heading.as_str()).nth(1);
        let section = section.unwrap_or_else(|| panic!("PROTOCOL.md has no section {name}"));
        let section = section.split("\n#").next().unwrap();
        let rows: Vec<&str> = section.lines().filter(|line| line.starts_with("| ")).collect();
        for (number, variant) in variants.iter().enumerate() {
            let row = format!("| {number} | `{variant}` |");
            let found = rows.iter().filter(|line| line.starts_with(&row)).count();
            assert_eq!(found, 1, "{name} lacks the row {row}");
        }
        let numbered = rows.iter().filter(|row| row[2..].starts_with(|c: char| c.is_ascii_digit()));
        assert_eq!(numbered.count(), variants.len(), "{name} has too many rows");
    }
}

#[test]
fn protocol_lists_every_refusal_with_its_code_and_text() {
    let protocol = protocol();
    for refusal in samples::refusals() {
        let name = samples::refusal_name(&refusal);
        let row = format!("| `{name}` | `{}` | {refusal} |", refusal.code());
        assert!(protocol.contains(&row), "PROTOCOL.md lacks the row {row}");
    }
}

#[test]
fn protocol_names_the_limits_of_the_code() {
    let limits = Limits::default();
    let secs = |span: chatcore::time::Span| format!("{} s", span.as_millis() / 1_000);
    let rows = [
        ("protocol version", VERSION.to_string()),
        ("frame before log-in", format!("{GREETING_FRAME_BYTES_MAX} bytes")),
        ("frame after log-in", format!("{FRAME_BYTES_MAX} bytes")),
        ("items of a list", LIST_MAX.to_string()),
        ("body of a message", format!("{BODY_BYTES_MAX} bytes")),
        ("user name", format!("{USER_NAME_CHARS_MAX} characters")),
        ("room name", format!("{ROOM_NAME_CHARS_MAX} characters")),
        ("address of a host", format!("{HOST_ADDRESS_BYTES_MAX} bytes")),
        ("addresses of a host", ADDRESSES_MAX.to_string()),
        ("name of a service", format!("{SERVICE_NAME_CHARS_MAX} characters")),
        ("frame of a directory", format!("{DIRECTORY_FRAME_BYTES_MAX} bytes")),
        ("services of a directory", SERVICES_MAX.to_string()),
        ("remembered answers", REMEMBERED_ANSWERS.to_string()),
        ("time to log in", secs(limits.login_time)),
        ("silence before a ping", secs(limits.ping_interval)),
        ("unanswered pings", limits.pings_unanswered_max.to_string()),
        ("grace after a lost connection", secs(limits.grace)),
        ("rooms of a user", limits.rooms_per_user_max.to_string()),
        ("sessions of a user", limits.sessions_per_user_max.to_string()),
        ("answers left unread", format!("{} bytes", limits.unread_bytes_max)),
        ("connection that takes no byte", secs(limits.stall_time)),
        ("log-in that waits", secs(limits.parked_time)),
        ("frames while it waits", limits.parked_frames_max.to_string()),
        ("bytes while it waits", format!("{} bytes", limits.parked_bytes_max)),
        ("connection after `moved`", secs(limits.moved_time)),
    ];
    let protocol = protocol();
    for (what, value) in rows {
        let row = format!("| {what} | {value} |");
        assert!(protocol.contains(&row), "PROTOCOL.md lacks the row {row}");
    }
}

fn ramp<const N: usize>(first: u8) -> [u8; N] {
    core::array::from_fn(|place| first.wrapping_add(u8::try_from(place).unwrap()))
}

/// A log-in proof, worked out.
fn worked_proof(channel: Option<Digest>) -> String {
    let key = SigningKey::from_bytes(&ramp(0x00));
    let proof = LoginProof {
        nonce: Nonce::new(ramp(0xA0)),
        server_key: PublicKey::new(ramp(0x50)),
        log_id: LogId::new(ramp(0x70)),
        generation: Generation::new(3).unwrap(),
        channel,
        session: SessionId::new(ramp(0x30)),
        attach: Attach::new(7).unwrap(),
        name: "Alice",
    };
    let message = proof.to_bytes();
    let signature = key.sign(&message);
    key.verifying_key().verify(&message, &signature).unwrap();
    let fields = [
        ("secret key", hex(key.as_bytes())),
        ("public key", hex(key.verifying_key().as_bytes())),
        ("nonce", hex(proof.nonce.as_bytes())),
        ("server key", hex(proof.server_key.as_bytes())),
        ("log id", hex(proof.log_id.as_bytes())),
        ("generation", proof.generation.to_string()),
        ("channel", channel.map_or("none".to_owned(), |channel| hex(channel.as_bytes()))),
        ("session", hex(proof.session.as_bytes())),
        ("attach", proof.attach.to_string()),
        ("name", proof.name.to_owned()),
        ("signed bytes", hex(&message)),
        ("signature", hex(&signature.to_bytes())),
    ];
    fields.iter().fold(String::new(), |mut text, (name, value)| {
        writeln!(text, "{name:<12} {value}").unwrap();
        text
    })
}

/// The proof of an order, worked out.
fn worked_order() -> String {
    let key = SigningKey::from_bytes(&ramp(0x00));
    let proof = OperateProof {
        nonce: Nonce::new(ramp(0xA0)),
        server_key: PublicKey::new(ramp(0x50)),
        log_id: LogId::new(ramp(0x70)),
        generation: Generation::new(3).unwrap(),
        channel: None,
        order: Order::Status,
    };
    let message = proof.to_bytes();
    let signature = key.sign(&message);
    key.verifying_key().verify(&message, &signature).unwrap();
    let fields = [
        ("secret key", hex(key.as_bytes())),
        ("public key", hex(key.verifying_key().as_bytes())),
        ("nonce", hex(proof.nonce.as_bytes())),
        ("server key", hex(proof.server_key.as_bytes())),
        ("log id", hex(proof.log_id.as_bytes())),
        ("generation", proof.generation.to_string()),
        ("channel", "none".to_owned()),
        ("order", "status".to_owned()),
        ("signed bytes", hex(&message)),
        ("signature", hex(&signature.to_bytes())),
    ];
    fields.iter().fold(String::new(), |mut text, (name, value)| {
        writeln!(text, "{name:<12} {value}").unwrap();
        text
    })
}

/// What is signed of the two claims of the samples, and of what they lead to, worked out.
fn worked_registers() -> [String; 2] {
    let directory = PublicKey::new(ramp(0x50));
    let [alone, _] = samples::claims();
    let [_, pair] = samples::registrations();
    let said = [alone.to_bytes(&directory), pair.to_bytes(&directory)];
    said.map(|message| {
        let key = SigningKey::from_bytes(&ramp(0x00));
        let fields = [
            ("secret key", hex(key.as_bytes())),
            ("directory", hex(directory.as_bytes())),
            ("signed bytes", hex(&message)),
            ("signature", hex(&key.sign(&message).to_bytes())),
        ];
        fields.iter().fold(String::new(), |mut text, (name, value)| {
            writeln!(text, "{name:<12} {value}").unwrap();
            text
        })
    })
}

#[test]
fn protocol_works_out_proofs_as_the_code_does() {
    let protocol = protocol();
    let printed = blocks(&protocol, "proof");
    let exporter = Digest::new(ramp(0xC0));
    let [claim, registration] = worked_registers();
    let proofs = [worked_proof(None), worked_proof(Some(exporter)), worked_order()];
    let worked: Vec<String> = proofs.into_iter().chain([claim, registration]).collect();
    for (number, worked) in worked.iter().enumerate() {
        let block = printed.get(number).copied().unwrap_or("nothing");
        assert!(block == worked.trim_end(), "PROTOCOL.md must print:\n{worked}");
    }
    assert_eq!(printed.len(), worked.len());
}

#[test]
fn log_in_proof_has_the_layout_that_protocol_tells() {
    let without = worked_proof(None);
    let line = without.lines().find(|line| line.starts_with("signed bytes")).unwrap();
    let bytes = line.split_whitespace().last().unwrap();
    let layout = [
        hex(b"chatcore log-in v1\0"),
        hex(&ramp::<32>(0xA0)),
        hex(&ramp::<32>(0x50)),
        hex(&ramp::<16>(0x70)),
        "0000000000000003".to_owned(),
        "00".to_owned(),
        hex(&ramp::<16>(0x30)),
        "0000000000000007".to_owned(),
        hex(b"Alice"),
    ];
    assert_eq!(bytes, layout.concat());
}

#[test]
fn claim_and_registration_have_the_layout_that_protocol_tells() {
    let directory = ramp::<32>(0x50);
    let text = |text: &str| format!("{:04x}{}", text.len(), hex(text.as_bytes()));
    let owner = [
        hex(&ramp::<32>(0x10)),
        hex(&ramp::<16>(0x50)),
        format!("01{}", hex(&ramp::<32>(0xC0))),
        "02".to_owned(),
        text("chats://a.example:5000"),
        text("unix:/run/chat.sock"),
    ];
    let standby = [hex(&ramp::<32>(0x20)), hex(&ramp::<16>(0x60)), "00".into(), "00".into()];
    let claim = [
        hex(b"chatcore claim v1\0"),
        hex(&directory),
        text("chat"),
        hex(&ramp::<16>(0x70)),
        "0000000000000000".to_owned(),
        owner.concat(),
        "00".to_owned(),
    ];
    let registration = [
        hex(b"chatcore registration v1\0"),
        hex(&directory),
        text("chat"),
        "000000000000012d".to_owned(),
        hex(&ramp::<16>(0x70)),
        owner.concat(),
        format!("01{}", standby.concat()),
    ];
    let worked = worked_registers();
    for (worked, layout) in worked.iter().zip([claim, registration]) {
        let line = worked.lines().find(|line| line.starts_with("signed bytes")).unwrap();
        assert_eq!(line.split_whitespace().last().unwrap(), layout.concat());
    }
}

#[test]
fn proof_of_an_order_has_the_layout_that_protocol_tells() {
    let proof = |channel| OperateProof {
        nonce: Nonce::new(ramp(0xA0)),
        server_key: PublicKey::new(ramp(0x50)),
        log_id: LogId::new(ramp(0x70)),
        generation: Generation::new(3).unwrap(),
        channel,
        order: Order::Status,
    };
    let exporter = ramp::<32>(0xC0);
    for (channel, bytes) in
        [(None, "00".to_owned()), (Some(Digest::new(exporter)), format!("01{}", hex(&exporter)))]
    {
        let layout = [
            hex(b"chatcore operate v1\0"),
            hex(&ramp::<32>(0xA0)),
            hex(&ramp::<32>(0x50)),
            hex(&ramp::<16>(0x70)),
            "0000000000000003".to_owned(),
            bytes,
            hex(b"status\0"),
        ];
        assert_eq!(hex(&proof(channel).to_bytes()), layout.concat());
    }
}
