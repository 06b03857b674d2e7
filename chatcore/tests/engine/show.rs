//! Frames as short lines, for transcripts that read as a script.

use chatcore::text::HostAddress;
use chatcore::wire::*;

pub(crate) fn show(frame: &ServerFrame) -> String {
    match frame {
        ServerFrame::Hello(_) => "hello".to_owned(),
        ServerFrame::Welcome(welcome) => {
            let operator = if welcome.operator { " operator" } else { "" };
            format!("welcome {} last {}{operator}", welcome.user, welcome.last_counter)
        }
        ServerFrame::Accepted { counter, room, incarnation, seq } => match seq {
            Some(seq) => format!("accepted {counter} {room} {incarnation}:{seq}"),
            None => format!("accepted {counter} {room} held"),
        },
        ServerFrame::Applied { counter } => format!("applied {counter}"),
        ServerFrame::Refused { counter, refusal } => {
            format!("refused {counter} {}", show_refusal(refusal))
        }
        ServerFrame::Answer { answer, .. } => show_answer(answer),
        ServerFrame::Record(record) => show_record(record),
        ServerFrame::Gap { room, from, to, .. } => format!("gap {room} {from}-{to}"),
        ServerFrame::Gate { room, gate } => format!("gate {room} {}", show_gate(gate)),
        ServerFrame::Reset { room, incarnation, threshold } => {
            format!("reset {room} {incarnation} needs {threshold}")
        }
        ServerFrame::Rejected(refusal) => format!("rejected {}", show_refusal(refusal)),
        ServerFrame::Notice(notice) => format!("notice {notice:?}"),
        ServerFrame::Close(refusal) => format!("close {}", show_refusal(refusal)),
        ServerFrame::Ping { .. } => "ping".to_owned(),
        ServerFrame::Pong { token } => format!("pong {token}"),
        ServerFrame::Status(status) => show_status(status),
        ServerFrame::Proof { .. } => "proof".to_owned(),
        ServerFrame::Parked(location) => format!("parked, {}", show_location(location)),
        ServerFrame::Moved(location) => format!("moved, {}", show_location(location)),
        ServerFrame::Prepare { target, within_ms } => {
            format!("prepare in {} ms, {}", within_ms.as_millis(), show_location(target))
        }
        ServerFrame::Stay => "stay".to_owned(),
        ServerFrame::Generation { generation } => format!("generation {generation}"),
    }
}

pub(crate) fn show_refusal(refusal: &Refusal) -> String {
    format!("{} {refusal}", refusal.code())
}

fn show_location(location: &Location) -> String {
    let addresses: Vec<&str> = location.addresses.iter().map(HostAddress::as_str).collect();
    format!("generation {} at {}", location.generation, addresses.join(" "))
}

fn show_status(status: &Status) -> String {
    let Status { connections, online, users, rooms, open, newest, safe, .. } = status;
    let full = if status.store_full { " full" } else { "" };
    format!(
        "status {connections} connections, {online}/{users} users, {open}/{rooms} rooms, entries \
         {safe}/{newest}{full}"
    )
}

fn show_gate(gate: &GateState) -> String {
    let state = if gate.open { "open" } else { "closed" };
    format!("{}/{} {state}", gate.users, gate.threshold)
}

fn show_answer(answer: &Answer) -> String {
    match answer {
        Answer::Joined(joined) => {
            let users = joined
                .users
                .as_ref()
                .map_or(String::new(), |users| format!(" with {}", show_names(users)));
            let (room, gate) = (&joined.room, show_gate(&joined.gate));
            format!("joined {room} {gate} after {}{users}", joined.after)
        }
        Answer::Parted { room } => format!("parted {room}"),
        Answer::Users(users) => {
            format!("users {} {} {}", users.room, users.count, show_names(users))
        }
        Answer::Rooms { rooms, count } => {
            let rooms: Vec<String> = rooms
                .iter()
                .map(|info| format!("{} {}", info.room, show_gate(&info.gate)))
                .collect();
            format!("rooms {count}: {}", rooms.join(", "))
        }
        Answer::User(info) => {
            let connected = if info.connected { "here" } else { "away" };
            format!("user {} {connected}", info.user)
        }
        Answer::History { room, records, .. } => {
            let records: Vec<String> = records.iter().map(show_record).collect();
            format!("history {room} [{}]", records.join(", "))
        }
        Answer::Refused(refusal) => format!("no: {}", show_refusal(refusal)),
    }
}

fn show_names(users: &UserList) -> String {
    users.names.iter().map(AsRef::as_ref).collect::<Vec<&str>>().join(",")
}

fn show_record(record: &Record) -> String {
    let place = format!("{} {}:{}", record.room, record.incarnation, record.seq);
    match &record.body {
        RecordBody::Post { from, text } => format!("{place} {from}: {}", text.as_str()),
        RecordBody::Joined { user } => format!("{place} +{user}"),
        RecordBody::Left { user } => format!("{place} -{user}"),
    }
}
