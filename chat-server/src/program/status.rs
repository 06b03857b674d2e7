//! What a server is doing, as lines for people or as JSON for scripts.

use std::fmt::Write as _;

use chatcore::address::Address;
use chatcore::time::Span;
use chatcore::wire::{
    CheckpointStatus, DiskStatus, Durability, ServerHello, Status, StorageStatus,
};
use serde_json::{Value, json};

pub(super) fn to_json(dialled: &Address, hello: &ServerHello, told: &Status) -> Value {
    json!({
        "type": "status",
        "url": address(dialled, told),
        "server_key": hello.server_key,
        "log_id": hello.log_id,
        "generation": hello.generation,
        "uptime_ms": told.host.uptime_ms,
        "connections": told.connections,
        "online": told.online,
        "users": told.users,
        "rooms": told.rooms,
        "gates_open": told.open,
        "gates_closed": told.rooms.saturating_sub(told.open),
        "newest": told.newest,
        "safe": told.safe,
        "memory_bytes": told.memory,
        "store": store(told),
    })
}

fn store(told: &Status) -> Value {
    let full = told.store_full;
    match told.host.storage {
        StorageStatus::Memory => json!({ "kept": "memory", "full": full }),
        StorageStatus::Disk(DiskStatus { durability, bytes, checkpoint }) => json!({
            "kept": "disk",
            "full": full,
            "durability": durability,
            "bytes": bytes,
            "checkpoint": checkpoint,
        }),
    }
}

pub(super) fn to_lines(dialled: &Address, hello: &ServerHello, told: &Status) -> String {
    let Status { connections, online, users, rooms, open, newest, safe, memory, host, .. } = told;
    let closed = rooms.saturating_sub(*open);
    let behind = match newest.since(*safe) {
        0 => "all safe".to_owned(),
        _ => format!("safe up to {safe}"),
    };
    let lines = [
        ("server", format!("{}, up {}", address(dialled, told), span(host.uptime_ms))),
        ("key", hello.server_key.to_string()),
        ("journal", format!("{}, generation {}", hello.log_id, hello.generation)),
        ("entries", format!("{newest}, {behind}")),
        ("connections", format!("{connections}, this one included")),
        ("users", format!("{users}, {online} connected")),
        ("rooms", format!("{rooms}, {open} with an open gate, {closed} with a closed one")),
        ("memory", format!("{} of records", size(memory.get()))),
        ("kept", kept(host.storage)),
    ];
    let mut text = lines.iter().fold(String::new(), |mut text, (name, value)| {
        let _ = writeln!(text, "{name:<13}{value}");
        text
    });
    if told.store_full {
        text +=
            "NOTHING IS ACCEPTED NOW: the disk is full, or another program has the journal locked";
    }
    text.trim_end().to_owned()
}

/// Where the server says that it listens, or else where it was found.
fn address(dialled: &Address, told: &Status) -> String {
    told.address.as_ref().map_or_else(|| dialled.to_string(), |address| address.as_str().to_owned())
}

fn kept(storage: StorageStatus) -> String {
    let StorageStatus::Disk(DiskStatus { durability, bytes, checkpoint }) = storage else {
        return "in memory alone: it is gone when the server stops".to_owned();
    };
    let how = match durability {
        Durability::Commit => "on the disk, acknowledged once it is there",
        Durability::Relaxed => "on the disk, acknowledged once the system has it",
    };
    let bytes = bytes.map_or_else(|| "unknown size".to_owned(), |bytes| size(bytes.get()));
    let checkpoint = checkpoint.map_or_else(
        || "no checkpoint yet".to_owned(),
        |CheckpointStatus { entry, age_ms }| {
            format!("newest checkpoint after entry {entry}, {} ago", span(age_ms))
        },
    );
    format!("{how}; {bytes}; {checkpoint}")
}

/// A length of time in its two largest units.
fn span(span: Span) -> String {
    let secs = span.as_millis() / 1_000;
    let (mins, hours, days) = (secs / 60, secs / 3_600, secs / 86_400);
    match (days, hours, mins) {
        (0, 0, 0) => format!("{secs} s"),
        (0, 0, _) => format!("{mins} min {} s", secs % 60),
        (0, ..) => format!("{hours} h {} min", mins % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

/// A number of bytes in the largest unit that it fills.
fn size(bytes: u64) -> String {
    let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.into_iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) => format!("{}.{} {name}", bytes / unit, bytes % unit * 10 / unit),
        None => format!("{bytes} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_sizes_are_told_in_their_largest_units() {
        let spans = [
            (0, "0 s"),
            (59_999, "59 s"),
            (61_000, "1 min 1 s"),
            (3_599_000, "59 min 59 s"),
            (7_260_000, "2 h 1 min"),
            (90_000_000, "1 d 1 h"),
        ];
        for (millis, text) in spans {
            assert_eq!(span(Span::from_millis(millis)), text);
        }
        let sizes = [
            (0, "0 bytes"),
            (1_023, "1023 bytes"),
            (1_024, "1.0 KiB"),
            ((1 << 20) - 1, "1023.9 KiB"),
            (3 << 29, "1.5 GiB"),
        ];
        for (bytes, text) in sizes {
            assert_eq!(size(bytes), text);
        }
    }
}
