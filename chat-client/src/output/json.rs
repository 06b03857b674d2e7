//! One JSON object a line, as the contract spells them.

use std::borrow::Cow;

use chatcore::client::Event;
use chatcore::id::PublicKey;
use chatcore::text::{HostAddress, RoomName, UserName};
use chatcore::time::Timestamp;
use chatcore::wire::{Command, GateState, Measure, Record, RecordBody, RoomInfo};
use serde::Serialize;

use super::{
    ABANDONED, ErrorReport, Figures, STORE_FULL, calendar_time, measure_line, notice_text,
};
use crate::input::label;
use chatcore::address::Address;

/// Writes events as JSON.
#[derive(Debug)]
pub(super) struct JsonPrinter {
    /// Stands for the server's own address where it gives none.
    dialled: String,
}

/// The vocabulary. Fields may be added, never changed.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Line<'a> {
    Connected {
        server: &'a str,
        generation: u64,
        user: &'a UserName,
        resumed: bool,
        operator: bool,
    },
    Disconnected {
        reason: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        retry_ms: Option<u64>,
    },
    Gate {
        room: &'a RoomName,
        #[serde(flatten)]
        gate: Gate,
    },
    Users {
        room: &'a RoomName,
        count: u32,
        names: &'a [UserName],
    },
    Joined {
        room: &'a RoomName,
        incarnation: u64,
        user: &'a UserName,
        seq: u64,
        at: String,
    },
    Left {
        room: &'a RoomName,
        incarnation: u64,
        user: &'a UserName,
        seq: u64,
        at: String,
    },
    Message {
        room: &'a RoomName,
        incarnation: u64,
        seq: u64,
        from: &'a UserName,
        text: &'a str,
        at: String,
    },
    Sent {
        room: &'a RoomName,
        id: &'a str,
        incarnation: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        seq: Option<u64>,
    },
    Gap {
        room: &'a RoomName,
        incarnation: u64,
        from: u64,
        to: u64,
    },
    Reset {
        room: &'a RoomName,
        incarnation: u64,
        threshold: u16,
    },
    Moderated {
        user: &'a UserName,
        measure: Measure,
        id: &'a str,
    },
    Parted {
        room: &'a RoomName,
    },
    Rooms {
        count: u32,
        rooms: Vec<Room<'a>>,
    },
    User {
        user: &'a UserName,
        key: PublicKey,
        connected: bool,
        operator: bool,
    },
    History {
        room: &'a RoomName,
        records: Vec<Self>,
    },
    Notice {
        text: &'a str,
    },
    Error {
        code: &'a str,
        text: Cow<'a, str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        retry_ms: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        have: Option<u32>,
        #[serde(skip_serializing_if = "Option::is_none")]
        need: Option<u16>,
        /// The text of a line that was given up.
        #[serde(skip_serializing_if = "Option::is_none")]
        line: Option<Cow<'a, str>>,
    },
}

#[derive(Serialize)]
struct Gate {
    incarnation: u64,
    users: u32,
    threshold: u16,
    open: bool,
}

#[derive(Serialize)]
struct Room<'a> {
    room: &'a RoomName,
    #[serde(flatten)]
    gate: Gate,
}

impl JsonPrinter {
    pub(super) fn new(address: &Address) -> Self {
        Self { dialled: address.to_string() }
    }

    pub(super) fn event(&self, event: &Event, out: &mut String) {
        push(&self.line(event), out);
    }

    fn line<'a>(&'a self, event: &'a Event) -> Line<'a> {
        match event {
            Event::Connected { server, generation, user, resumed, operator } => Line::Connected {
                server: server.as_ref().map_or(&self.dialled, HostAddress::as_str),
                generation: generation.get(),
                user,
                resumed: *resumed,
                operator: *operator,
            },
            Event::Disconnected { reason, retry } => {
                Line::Disconnected { reason, retry_ms: retry.map(chatcore::time::Span::as_millis) }
            }
            Event::Gate { room, gate, .. } => Line::Gate { room, gate: gate_of(gate) },
            Event::Users { room, count, names } => Line::Users { room, count: *count, names },
            Event::Record(record) => record_line(record),
            Event::Sent { id, room, incarnation, seq } => Line::Sent {
                room,
                id: label::shown(id),
                incarnation: incarnation.get(),
                seq: seq.map(chatcore::id::Seq::get),
            },
            Event::Gap { room, incarnation, from, to } => {
                Line::Gap { room, incarnation: incarnation.get(), from: from.get(), to: to.get() }
            }
            Event::Reset { room, incarnation, threshold } => {
                Line::Reset { room, incarnation: incarnation.get(), threshold: threshold.get() }
            }
            Event::Moderated { id, user, measure } => {
                Line::Moderated { user, measure: *measure, id: label::shown(id) }
            }
            Event::Parted { room } => Line::Parted { room },
            Event::Rooms { rooms, count } => {
                Line::Rooms { count: *count, rooms: rooms.iter().map(room_of).collect() }
            }
            Event::User(info) => Line::User {
                user: &info.user,
                key: info.key,
                connected: info.connected,
                operator: info.operator,
            },
            Event::History { room, records } => {
                Line::History { room, records: records.iter().map(record_line).collect() }
            }
            Event::Notice(notice) => Line::Notice { text: notice_text(*notice) },
            Event::StoreFull => Line::Notice { text: STORE_FULL },
            Event::Refused { id, refusal } => {
                error_line(&ErrorReport::of_refusal(refusal, None), id.as_deref())
            }
            Event::Abandoned { id, command } => abandoned_line(id, command),
        }
    }
}

/// Appends an error.
pub(super) fn error(report: &ErrorReport, out: &mut String) {
    push(&error_line(report, report.id.as_deref()), out);
}

/// Appends a notice.
pub(super) fn notice(text: &str, out: &mut String) {
    push(&Line::Notice { text }, out);
}

fn push(line: &Line<'_>, out: &mut String) {
    out.push_str(&serde_json::to_string(line).expect("an event must have a JSON form"));
    out.push('\n');
}

fn error_line<'a>(report: &ErrorReport, id: Option<&'a str>) -> Line<'a> {
    let (retry_ms, have, need) = match report.figures {
        Figures::None => (None, None, None),
        Figures::Retry { millis } => (Some(millis), None, None),
        Figures::Gate { have, need } => (None, Some(have), Some(need)),
    };
    let text = Cow::Owned(report.text.clone());
    let id = id.map(label::shown);
    Line::Error { code: report.code, text, id, retry_ms, have, need, line: None }
}

fn abandoned_line<'a>(id: &'a str, command: &'a Command) -> Line<'a> {
    let line = match command {
        Command::Post { body, .. } => Some(Cow::Borrowed(body.as_str())),
        Command::Reset { .. } => None,
        Command::Moderate { user, measure } => {
            Some(Cow::Owned(measure_line(user.as_str(), *measure)))
        }
    };
    let (text, id) = (Cow::Borrowed(ABANDONED), Some(label::shown(id)));
    Line::Error { code: "E_STATE", text, id, retry_ms: None, have: None, need: None, line }
}

fn record_line(record: &Record) -> Line<'_> {
    let (room, incarnation, seq) = (&record.room, record.incarnation.get(), record.seq.get());
    let at = time_text(record.at);
    match &record.body {
        RecordBody::Post { from, text } => {
            Line::Message { room, incarnation, seq, from, text: text.as_str(), at }
        }
        RecordBody::Joined { user } => Line::Joined { room, incarnation, user, seq, at },
        RecordBody::Left { user } => Line::Left { room, incarnation, user, seq, at },
    }
}

fn gate_of(gate: &GateState) -> Gate {
    Gate {
        incarnation: gate.incarnation.get(),
        users: gate.users,
        threshold: gate.threshold.get(),
        open: gate.open,
    }
}

fn room_of(info: &RoomInfo) -> Room<'_> {
    Room { room: &info.room, gate: gate_of(&info.gate) }
}

/// RFC 3339 in UTC with milliseconds.
fn time_text(at: Timestamp) -> String {
    format!("{:.3}", calendar_time(at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use chatcore::id::{Incarnation, Seq};
    use chatcore::time::Span;
    use chatcore::wire::Refusal;

    fn printed(event: &Event) -> String {
        let mut out = String::new();
        JsonPrinter::new(&"chat://[::1]".parse().unwrap()).event(event, &mut out);
        out
    }

    fn record(body: RecordBody) -> Record {
        Record {
            room: "lobby".parse().unwrap(),
            incarnation: Incarnation::new(1).unwrap(),
            seq: Seq::new(5).unwrap(),
            at: Timestamp::new(1_795_348_800_120).unwrap(),
            body,
        }
    }

    #[test]
    fn message_is_spelt_as_in_the_contract() {
        let text = "hi \u{1b}[2J\n\"".parse().unwrap();
        let event = Event::Record(record(RecordBody::Post { from: "bob".parse().unwrap(), text }));
        assert_eq!(
            printed(&event),
            concat!(
                r#"{"type":"message","room":"lobby","incarnation":1,"seq":5,"from":"bob","#,
                r#""text":"hi \u001b[2J\n\"","at":"2026-11-22T12:00:00.120Z"}"#,
                "\n"
            )
        );
    }

    #[test]
    fn held_post_is_sent_without_a_place() {
        let event = Event::Sent {
            id: "1".into(),
            room: "lobby".parse().unwrap(),
            incarnation: Incarnation::new(2).unwrap(),
            seq: None,
        };
        let expected = r#"{"type":"sent","room":"lobby","id":"1","incarnation":2}"#;
        assert_eq!(printed(&event), format!("{expected}\n"));
    }

    #[test]
    fn error_repeats_the_label_and_names_its_figures() {
        let refusal = Refusal::Rate { retry_ms: Span::from_millis(70) };
        let event = Event::Refused { id: Some("x\u{2028}".into()), refusal };
        let value: serde_json::Value = serde_json::from_str(&printed(&event)).unwrap();
        assert_eq!(value["code"], "E_RATE");
        assert_eq!(value["retry_ms"], 70);
        assert_eq!(value["id"], "x\u{2028}");
        let refusal = Refusal::Gate { have: 1, need: 2 };
        let value: serde_json::Value =
            serde_json::from_str(&printed(&Event::Refused { id: None, refusal })).unwrap();
        assert_eq!((&value["have"], &value["need"]), (&1.into(), &2.into()));
        assert!(value.get("id").is_none());
    }

    #[test]
    fn history_holds_records_as_they_were_shown() {
        let records = vec![record(RecordBody::Joined { user: "bob".parse().unwrap() })];
        let event = Event::History { room: "lobby".parse().unwrap(), records };
        let value: serde_json::Value = serde_json::from_str(&printed(&event)).unwrap();
        assert_eq!(value["type"], "history");
        assert_eq!(value["records"][0]["type"], "joined");
        assert_eq!(value["records"][0]["user"], "bob");
    }
}
