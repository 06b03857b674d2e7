//! Who serves, as lines for people or as JSON for scripts.

use std::fmt::Write as _;

use chatcore::id::PublicKey;
use chatcore::migration::directory::{Host, Registration};
use chatcore::text::HostAddress;
use serde_json::{Value, json};

pub(super) fn to_json(told: &Registration, directory: Option<PublicKey>) -> Value {
    json!({
        "type": "located",
        "service": told.service,
        "generation": told.generation,
        "log_id": told.log_id,
        "owner": host_to_json(&told.owner),
        "standby": told.standby.as_ref().map(host_to_json),
        "server_key": directory,
    })
}

fn host_to_json(host: &Host) -> Value {
    json!({
        "urls": host.addresses,
        "key": host.node.key,
        "boot": host.node.boot,
        "certificate": certificate(host),
    })
}

pub(super) fn to_lines(told: &Registration) -> String {
    let none = || "none".to_owned();
    let lines = [
        ("service", told.service.to_string()),
        ("owner", host_to_line(&told.owner)),
        ("standby", told.standby.as_ref().map_or_else(none, host_to_line)),
        ("journal", format!("{}, generation {}", told.log_id, told.generation)),
    ];
    let text = lines.iter().fold(String::new(), |mut text, (name, value)| {
        let _ = writeln!(text, "{name:<9}{value}");
        text
    });
    text.trim_end().to_owned()
}

fn host_to_line(host: &Host) -> String {
    let addresses: Vec<&str> = host.addresses.iter().map(HostAddress::as_str).collect();
    let at = match &addresses[..] {
        [] => "at no address".to_owned(),
        [_, ..] => addresses.join(", "),
    };
    let by = certificate(host).map_or_else(String::new, |key| format!(", certificate {key}"));
    format!("{at} (key {}{by})", host.node.key)
}

/// The key of its certificate, as [`Tls::key_hash`](crate::Tls::key_hash) tells it.
fn certificate(host: &Host) -> Option<String> {
    host.tls_key.map(|digest| format!("sha256:{digest}"))
}
