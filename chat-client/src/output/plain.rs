//! Lines for people, and for scripts that like lines.
//!
//! Invariant: a line of a user begins with the time and the name, and what follows its first line
//! break is indented; so nobody can make a line that looks like another user's or like a notice.

use std::collections::BTreeMap;

use chatcore::client::Event;
use chatcore::text::{Body, RoomName, UserName};
use chatcore::time::{Span, Timestamp};
use chatcore::wire::{Command, GateState, Measure, Record, RecordBody, RoomInfo, UserInfo};
use jiff::tz::TimeZone;

use super::{ABANDONED, ErrorReport, STORE_FULL, calendar_time, escape, measure_line, notice_text};
use crate::args::Color;
use chatcore::address::Address;

const DIM: &str = "\u{1b}[2m";
const RED: &str = "\u{1b}[31m";
const PLAIN: &str = "\u{1b}[0m";

/// Stands before every line of a message but the first: as wide as `[12:00] `.
const INDENT: &str = "        ";

/// Names in one line of who is there; the others are a number.
const NAMES_SHOWN: usize = 20;

/// Writes events as lines.
#[derive(Debug)]
pub(super) struct PlainPrinter {
    color: Color,
    /// What was dialled: a person knows the server by it, while the address that the host gives of
    /// itself is for scripts.
    server: String,
    zone: TimeZone,
    rooms: BTreeMap<RoomName, RoomView>,
    /// What unanswered posts say, by their labels.
    texts: BTreeMap<String, Body>,
    /// Why the connection was last lost; one attempt after the other fails for the same reason.
    loss: Option<String>,
    /// Whether there is a connection.
    connected: bool,
}

/// What was last shown of a room.
#[derive(Debug, Default)]
struct RoomView {
    users: Option<u32>,
}

impl PlainPrinter {
    pub(super) fn new(color: Color, address: &Address) -> Self {
        Self {
            color,
            server: address.to_string(),
            zone: TimeZone::try_system().unwrap_or(TimeZone::UTC),
            rooms: BTreeMap::new(),
            texts: BTreeMap::new(),
            loss: None,
            connected: false,
        }
    }

    pub(super) fn remember(&mut self, id: &str, body: &Body) {
        self.texts.insert(id.to_owned(), body.clone());
    }

    pub(super) fn event(&mut self, event: &Event, out: &mut String) {
        match event {
            Event::Connected { user, .. } => {
                self.loss = None;
                self.connected = true;
                self.star(&format!("connected to {} as {user}", self.server), out);
            }
            Event::Disconnected { reason, retry } => {
                if retry.is_none() || self.loss.as_ref() != Some(reason) {
                    self.star(&disconnected_text(self.connected, reason, *retry), out);
                }
                self.connected = false;
                self.loss = Some(reason.clone());
            }
            Event::Gate { room, gate, opened } => self.gate(room, *gate, *opened, out),
            Event::Users { room, count, names } => self.users(room, *count, names, out),
            Event::Record(record) => self.record(record, out),
            Event::Sent { id, room, seq, .. } => {
                let text = self.texts.remove(id);
                if let (None, Some(text)) = (seq, text) {
                    self.held(room, &text, out);
                }
            }
            Event::Gap { room, from, to, .. } => {
                self.star_in(room, &format!("messages {from} to {to} are gone"), out);
            }
            Event::Reset { room, threshold, .. } => {
                self.view(room).users = None;
                let users = users_text(threshold.get().into());
                let text = format!("the room was reset: it opens again with {users} connected");
                self.star_in(room, &text, out);
            }
            Event::Moderated { user, measure, .. } => {
                self.star(&moderated_text(user, *measure), out);
            }
            Event::Parted { room } => {
                self.star(&format!("you left {room}"), out);
                self.rooms.remove(room);
            }
            Event::Rooms { rooms, count } => self.room_list(rooms, *count, out),
            Event::User(info) => self.star(&user_text(info), out),
            Event::History { room, records } => self.history(room, records, out),
            Event::Notice(notice) => self.notice(notice_text(*notice), out),
            Event::StoreFull => self.notice(STORE_FULL, out),
            Event::Refused { id, refusal } => {
                if let Some(id) = id {
                    self.texts.remove(id);
                }
                self.error(&ErrorReport::of_refusal(refusal, id.clone()), out);
            }
            Event::Abandoned { id, command } => {
                self.texts.remove(id);
                self.error(&ErrorReport::new("E_STATE", abandoned_text(command), None), out);
            }
        }
    }

    pub(super) fn error(&self, report: &ErrorReport, out: &mut String) {
        let text = escape(&report.text);
        self.colored(RED, &format!("* error {}: {text}", report.code), out);
    }

    pub(super) fn notice(&self, text: &str, out: &mut String) {
        for line in text.lines() {
            self.star(line, out);
        }
    }

    fn gate(&mut self, room: &RoomName, gate: GateState, opened: bool, out: &mut String) {
        self.view(room);
        if !gate.open {
            let (users, threshold) = (gate.users, gate.threshold);
            let text = format!("{users} of {threshold} users connected: messages are held");
            self.star_in(room, &text, out);
        } else if opened {
            self.star_in(room, "Chat is now active!", out);
        }
    }

    /// Names when they are news as a whole, else how many: who came or went has a line already.
    fn users(&mut self, room: &RoomName, count: u32, names: &[UserName], out: &mut String) {
        let before = self.view(room).users.replace(count);
        match before {
            None => self.star_in(room, &names_text(count, names), out),
            Some(before) if before == count => {
                self.star_in(room, &names_text(count, names), out);
            }
            Some(_) => self.star_in(room, &count_text(count), out),
        }
    }

    fn record(&self, record: &Record, out: &mut String) {
        match &record.body {
            RecordBody::Post { from, text } => {
                let time = self.clock(record.at);
                let place = self.place(&record.room);
                push_body(&format!("[{time}] {place}{from}: "), text, out);
            }
            RecordBody::Joined { user } => {
                self.star_in(&record.room, &format!("{user} has joined the chat"), out);
            }
            RecordBody::Left { user } => {
                self.star_in(&record.room, &format!("{user} has left the chat"), out);
            }
        }
    }

    fn held(&self, room: &RoomName, text: &Body, out: &mut String) {
        let mut lines = String::new();
        push_body(&format!("(held) {}", self.place(room)), text, &mut lines);
        for line in lines.lines() {
            self.colored(DIM, line, out);
        }
    }

    fn history(&self, room: &RoomName, records: &[Record], out: &mut String) {
        let count = records.len();
        self.star_in(room, &format!("history ({count} lines):"), out);
        for record in records {
            self.record(record, out);
        }
        self.star_in(room, "end of the history", out);
    }

    fn room_list(&self, rooms: &[RoomInfo], count: u32, out: &mut String) {
        self.star(&format!("rooms: {count}"), out);
        for RoomInfo { room, gate } in rooms {
            let text = if gate.open {
                format!("{room}: {}", users_text(gate.users))
            } else {
                let (users, threshold) = (gate.users, gate.threshold);
                format!("{room}: {users} of {threshold} users, messages are held")
            };
            self.star(&text, out);
        }
    }

    fn star_in(&self, room: &RoomName, text: &str, out: &mut String) {
        self.star(&format!("{}{text}", self.place(room)), out);
    }

    fn star(&self, text: &str, out: &mut String) {
        self.colored(DIM, &format!("* {}", escape(text)), out);
    }

    fn colored(&self, color: &str, line: &str, out: &mut String) {
        match self.color {
            Color::On => out.extend([color, line, PLAIN, "\n"]),
            Color::Off => out.extend([line, "\n"]),
        }
    }

    /// The room in brackets, when there is more than one to be told apart.
    fn place(&self, room: &RoomName) -> String {
        if self.rooms.len() > 1 { format!("[{room}] ") } else { String::new() }
    }

    fn clock(&self, at: Timestamp) -> String {
        let at = calendar_time(at).to_zoned(self.zone.clone());
        format!("{:02}:{:02}", at.hour(), at.minute())
    }

    fn view(&mut self, room: &RoomName) -> &mut RoomView {
        self.rooms.entry(room.clone()).or_default()
    }
}

fn push_body(lead: &str, text: &Body, out: &mut String) {
    for (number, line) in text.as_str().split('\n').enumerate() {
        let line = line.strip_suffix('\r').unwrap_or(line);
        out.push_str(if number == 0 { lead } else { INDENT });
        out.push_str(&escape(line));
        out.push('\n');
    }
}

fn count_text(count: u32) -> String {
    format!("{} connected", users_text(count))
}

fn users_text(count: u32) -> String {
    if count == 1 { "1 user".to_owned() } else { format!("{count} users") }
}

fn names_text(count: u32, names: &[UserName]) -> String {
    let shown: Vec<&str> = names.iter().take(NAMES_SHOWN).map(UserName::as_str).collect();
    let rest = u64::from(count).saturating_sub(u64::try_from(shown.len()).unwrap_or(u64::MAX));
    let more = if rest == 0 { String::new() } else { format!(" and {rest} more") };
    format!("{}: {}{more}", count_text(count), shown.join(", "))
}

/// Why there is no connection. Not when the next attempt comes: the later ones are not told.
fn disconnected_text(connected: bool, reason: &str, retry: Option<Span>) -> String {
    let what = if connected { "disconnected" } else { "not connected" };
    let hope = if retry.is_some() { "; trying again" } else { "" };
    format!("{what}: {reason}{hope}")
}

fn user_text(info: &UserInfo) -> String {
    let UserInfo { user, key, connected, operator } = info;
    let here = if *connected { "connected" } else { "not connected" };
    let rank = if *operator { ", operator" } else { "" };
    format!("{user}: {here}{rank}, key {key}")
}

/// What a measure makes so, whether or not it was so before.
fn moderated_text(user: &UserName, measure: Measure) -> String {
    let what = match measure {
        Measure::Kick => "was sent away",
        Measure::Ban => "is banned",
        Measure::Unban => "is not banned",
        Measure::Release => "is nobody's name any more: the next to take it has it",
        Measure::Op => "is an operator",
        Measure::Deop => "is no operator",
    };
    format!("{user} {what}")
}

fn abandoned_text(command: &Command) -> String {
    match command {
        Command::Post { body, .. } => format!("{ABANDONED}: {}", body.as_str()),
        Command::Reset { .. } => ABANDONED.to_owned(),
        Command::Moderate { user, measure } => {
            format!("{ABANDONED}: {}", measure_line(user.as_str(), *measure))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chatcore::id::{Incarnation, Seq, Threshold};
    use chatcore::wire::{NameFault, Refusal};

    fn printer() -> PlainPrinter {
        let mut printer = PlainPrinter::new(Color::Off, &"chat://localhost".parse().unwrap());
        printer.zone = TimeZone::UTC;
        printer
    }

    fn lobby() -> RoomName {
        "lobby".parse().unwrap()
    }

    fn shown(printer: &mut PlainPrinter, event: &Event) -> String {
        let mut out = String::new();
        printer.event(event, &mut out);
        out
    }

    fn record(room: &str, body: RecordBody) -> Event {
        Event::Record(Record {
            room: room.parse().unwrap(),
            incarnation: Incarnation::new(1).unwrap(),
            seq: Seq::new(5).unwrap(),
            at: Timestamp::new(1_795_348_800_120).unwrap(),
            body,
        })
    }

    fn post(text: &str) -> Event {
        let (from, text) = ("bob".parse().unwrap(), text.parse().unwrap());
        record("lobby", RecordBody::Post { from, text })
    }

    fn gate(users: u32, open: bool, opened: bool) -> Event {
        let incarnation = Incarnation::new(1).unwrap();
        let gate = GateState { incarnation, users, threshold: Threshold::DEFAULT, open };
        Event::Gate { room: lobby(), gate, opened }
    }

    #[test]
    fn lines_are_as_in_the_contract() {
        let printer = &mut printer();
        assert_eq!(shown(printer, &post("hi")), "[12:00] bob: hi\n");
        let user: UserName = "bob".parse().unwrap();
        let joined = record("lobby", RecordBody::Joined { user: user.clone() });
        assert_eq!(shown(printer, &joined), "* bob has joined the chat\n");
        let left = record("lobby", RecordBody::Left { user });
        assert_eq!(shown(printer, &left), "* bob has left the chat\n");
        let held = "* 1 of 2 users connected: messages are held\n";
        assert_eq!(shown(printer, &gate(1, false, false)), held);
        assert_eq!(shown(printer, &gate(2, true, true)), "* Chat is now active!\n");
        assert_eq!(shown(printer, &gate(3, true, false)), "");
    }

    #[test]
    fn one_user_is_not_called_users() {
        let printer = &mut printer();
        let incarnation = Incarnation::new(1).unwrap();
        let threshold = Threshold::new(1).unwrap();
        let reset = Event::Reset { room: lobby(), incarnation, threshold };
        let line = shown(printer, &reset);
        assert_eq!(line, "* the room was reset: it opens again with 1 user connected\n");
        let gate = GateState { incarnation, users: 1, threshold, open: true };
        let rooms = vec![RoomInfo { room: lobby(), gate }];
        let lines = shown(printer, &Event::Rooms { rooms, count: 1 });
        assert_eq!(lines, "* rooms: 1\n* lobby: 1 user\n");
        let names = vec!["bob".parse().unwrap()];
        let users = Event::Users { room: lobby(), count: 1, names };
        assert_eq!(shown(printer, &users), "* 1 user connected: bob\n");
    }

    #[test]
    fn nobody_can_fake_a_line_of_another_user() {
        let fake = "hi\n[12:01] alice: I agree\r\n* carol has left the chat\r\u{85}x";
        assert_eq!(
            shown(&mut printer(), &post(fake)),
            "[12:00] bob: hi\n        [12:01] alice: I agree\n        \
             * carol has left the chat␍<U+0085>x\n"
        );
    }

    #[test]
    fn h1_controls_of_a_message_are_shown() {
        let line = shown(&mut printer(), &post("\u{1b}]0;title\u{7}\u{202e}"));
        assert_eq!(line, "[12:00] bob: ␛]0;title␇<U+202E>\n");
        let reason = "\u{1b}[2J".to_owned();
        let lost = Event::Disconnected { reason, retry: Some(Span::from_millis(1_250)) };
        let line = shown(&mut printer(), &lost);
        assert_eq!(line, "* not connected: ␛[2J; trying again\n");
    }

    #[test]
    fn connection_that_cannot_be_had_for_the_same_reason_is_told_once() {
        let printer = &mut printer();
        let lost = |retry| {
            let retry = Some(Span::from_millis(retry));
            Event::Disconnected { reason: "refused".to_owned(), retry }
        };
        assert_eq!(shown(printer, &lost(400)), "* not connected: refused; trying again\n");
        assert_eq!(shown(printer, &lost(900)), "");
        let given_up = Event::Disconnected { reason: "refused".to_owned(), retry: None };
        assert_eq!(shown(printer, &given_up), "* not connected: refused\n");
        printer.connected = true;
        assert_eq!(shown(printer, &given_up), "* disconnected: refused\n");
    }

    #[test]
    fn own_line_is_shown_as_held_until_it_has_a_place() {
        let printer = &mut printer();
        printer.remember("1", &"hello\nyou".parse().unwrap());
        let sent = Event::Sent {
            id: "1".into(),
            room: lobby(),
            incarnation: Incarnation::new(1).unwrap(),
            seq: None,
        };
        assert_eq!(shown(printer, &sent), "(held) hello\n        you\n");
        assert_eq!(shown(printer, &sent), "", "once");
    }

    #[test]
    fn room_is_named_when_there_are_several() {
        let printer = &mut printer();
        shown(printer, &gate(2, true, false));
        printer.view(&"dev".parse().unwrap());
        assert_eq!(shown(printer, &post("hi")), "[12:00] [lobby] bob: hi\n");
        let user = "bob".parse().unwrap();
        let joined = record("dev", RecordBody::Joined { user });
        assert_eq!(shown(printer, &joined), "* [dev] bob has joined the chat\n");
    }

    #[test]
    fn colours_surround_a_line_and_never_come_from_a_message() {
        let mut printer = printer();
        printer.color = Color::On;
        let refusal = Refusal::Name(NameFault::InUse);
        let error = shown(&mut printer, &Event::Refused { id: None, refusal });
        assert_eq!(error, "\u{1b}[31m* error E_NAME: the name is already in use\u{1b}[0m\n");
        assert_eq!(shown(&mut printer, &post("\u{1b}[31m")), "[12:00] bob: ␛[31m\n");
    }

    #[test]
    fn measure_that_is_given_up_is_told_as_it_was_typed() {
        let (user, id) = (chatcore::text::Untrusted::new("bob"), String::new());
        for (measure, line) in [(Measure::Ban, "/ban bob"), (Measure::Deop, "/deop bob")] {
            let command = Command::Moderate { user: user.clone(), measure };
            let event = Event::Abandoned { id: id.clone(), command };
            let shown = shown(&mut printer(), &event);
            assert!(shown.ends_with(&format!(": {line}\n")), "{shown}");
        }
    }
}
