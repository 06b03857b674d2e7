//! What happens, in words: whoever reads a trace knows neither the draws nor the code.

use chatcore::text::Untrusted;
use chatcore::wire::{ClientFrame, Command, Operate, Question as Asked, ServerFrame};

use crate::plan::{Deed, Fault, Plan, Question, Ways};

/// How much is shown of a text that somebody sent, and of a frame.
const TEXT_CHARS: usize = 24;
const FRAME_CHARS: usize = 240;

/// What a room is called, by its place.
pub(crate) fn room_name(place: usize) -> String {
    if place == 0 { "lobby".to_owned() } else { format!("room-{place}") }
}

impl Plan {
    /// What a deed is in this world, in words.
    pub fn tell(&self, deed: Deed) -> String {
        let client = |number| format!("client {}", self.options.client(number));
        let room = |number| room_name(self.options.room(number));
        match deed {
            Deed::Start(it) => format!("{} is started", client(it)),
            Deed::Post { client: it, room: to, count, bytes, taper } => {
                let shorter =
                    if taper == 0 { String::new() } else { format!(", tapering by {taper}") };
                let (client, room) = (client(it), room(to));
                format!("{client} posts {count} lines of {bytes} bytes{shorter} to {room}")
            }
            Deed::Reset { client: it, room: of, threshold } => {
                format!("{} resets {} to {threshold}", client(it), room(of))
            }
            Deed::Join { client: it, room: of } => format!("{} joins {}", client(it), room(of)),
            Deed::Part { client: it, room: of } => format!("{} leaves {}", client(it), room(of)),
            Deed::Ask { client: it, room: of, question } => {
                format!("{} asks {}", client(it), self.tell_question(&room(of), question))
            }
            Deed::Moderate { by, client: it, measure } => {
                let by = by.map_or_else(|| "the server".to_owned(), client);
                format!("{by} takes a measure on {}: {measure:?}", client(it))
            }
            Deed::Trim { room: of, keep } => {
                format!("retention takes of {} all but the last {keep} records", room(of))
            }
            Deed::Quit(it) => format!("{} quits once everything is answered", client(it)),
            Deed::Leave(it) => format!("{} quits at once", client(it)),
            Deed::Wrong(fault) => self.tell_fault(fault),
            Deed::Wild { kind, seed } => format!("a stranger comes: {kind:?}, seed {seed}"),
        }
    }

    fn tell_question(&self, room: &str, question: Question) -> String {
        match question {
            Question::Who => format!("who is in {room}"),
            Question::Rooms => "which rooms there are".to_owned(),
            Question::Whois(other) => {
                format!("in {room} who the user of client {} is", self.options.client(other))
            }
            Question::History(count) => format!("for the last {count} records of {room}"),
        }
    }

    fn tell_fault(&self, fault: Fault) -> String {
        let client = |number| format!("client {}", self.options.client(number));
        match fault {
            Fault::Kill(it) => format!("{} dies", client(it)),
            Fault::Cut(it) => format!("the connection of {} breaks", client(it)),
            Fault::Silence { client: it, ways } => {
                let of = client(it);
                match ways {
                    Ways::Both => format!("the connection of {of} hangs"),
                    Ways::Up => format!("the connection of {of} hangs on the way up"),
                    Ways::Down => format!("the connection of {of} hangs on the way down"),
                }
            }
            Fault::Stall { client: it, millis } => {
                format!("{} reads nothing for {millis} ms", client(it))
            }
            Fault::Unreachable { millis } => format!("nobody can be dialled for {millis} ms"),
            Fault::Crash { kept, down } => {
                format!("the server dies for {down} ms; {kept}/255 of what was not synced is kept")
            }
            Fault::Stop { down } => format!("the server stops in order for {down} ms"),
            Fault::Slow { millis } => format!("the store takes up to {millis} ms from now on"),
            Fault::Full { millis } => format!("the store fills up for {millis} ms"),
            Fault::Unreadable { millis } => format!("the store cannot read for {millis} ms"),
            Fault::Jump { by } => format!("the wall clock jumps by {by} ms"),
            Fault::Err(slip) => format!("the host errs: {slip:?}"),
        }
    }
}

/// A frame that somebody sent, with the beginning of its texts.
pub(crate) fn tell_frame(frame: &ClientFrame) -> String {
    match frame {
        ClientFrame::Login(login) => {
            let (name, session, attach) = (text(&login.name), login.session, login.attach);
            format!("Login {name}, session {session:?}, attach {attach}")
        }
        ClientFrame::Submit { counter, command } => match command {
            Command::Post { room, incarnation, body } => {
                let life = incarnation.map_or(String::new(), |life| format!(" in life {life}"));
                format!("Submit {counter}: Post to {}{life}: {}", text(room), text(body))
            }
            Command::Reset { room, threshold } => {
                format!("Submit {counter}: Reset {} to {threshold}", text(room))
            }
            Command::Moderate { user, measure } => {
                format!("Submit {counter}: {measure:?} {}", text(user))
            }
        },
        ClientFrame::Ask { request, question } => {
            format!("Ask {request}: {}", tell_asked(question))
        }
        ClientFrame::Prove { nonce } => format!("Prove {nonce}"),
        ClientFrame::Operate(Operate { key, order, .. }) => format!("Operate {order:?} by {key}"),
        frame @ (ClientFrame::Hello(_)
        | ClientFrame::Ping { .. }
        | ClientFrame::Pong { .. }
        | ClientFrame::Leave) => format!("{frame:?}"),
    }
}

fn tell_asked(question: &Asked) -> String {
    match question {
        Asked::Join { room, start } => format!("Join {} from {start:?}", text(room)),
        Asked::Part { room } => format!("Part {}", text(room)),
        Asked::Who { room } => format!("Who {}", text(room)),
        Asked::Rooms => "Rooms".to_owned(),
        Asked::Whois { room, user } => format!("Whois {} in {}", text(user), text(room)),
        Asked::History { room, before, limit } => {
            format!("History of {}, {limit} before {before:?}", text(room))
        }
    }
}

/// A frame that somebody was sent, bounded.
pub(crate) fn tell_answer(frame: &ServerFrame) -> String {
    bounded(&format!("{frame:?}"), FRAME_CHARS)
}

/// A text that nobody has checked: escaped and bounded.
fn text<T>(untrusted: &Untrusted<T>) -> String {
    let whole = untrusted.as_str();
    let begin: String = whole.chars().take(TEXT_CHARS).collect();
    let rest = if begin.len() < whole.len() {
        format!("… ({} bytes)", whole.len())
    } else {
        String::new()
    };
    format!("{begin:?}{rest}")
}

fn bounded(line: &str, most: usize) -> String {
    match line.char_indices().nth(most) {
        None => line.to_owned(),
        Some((end, _)) => format!("{}… ({} bytes)", &line[..end], line.len()),
    }
}

#[cfg(test)]
mod tests {
    use chatcore::id::Counter;

    use super::*;

    #[test]
    fn deed_is_told_as_what_it_resolves_to() {
        let mut plan = Plan::draw(1);
        plan.options.clients = vec![plan.options.clients[0]; 3];
        plan.options.rooms = 2;
        let deed = Deed::Reset { client: 65, room: 115, threshold: 3 };
        assert_eq!(plan.tell(deed), "client 2 resets room-1 to 3");
        let deed = Deed::Wrong(Fault::Kill(3));
        assert_eq!(plan.tell(deed), "client 0 dies");
    }

    #[test]
    fn untrusted_text_is_told_escaped_and_bounded() {
        let room = Untrusted::new("lob\u{202e}by\n");
        let body = Untrusted::new("x".repeat(7_000));
        let command = Command::Post { room, incarnation: None, body };
        let counter = Counter::ZERO.next();
        let told = tell_frame(&ClientFrame::Submit { counter, command });
        let long = "x".repeat(TEXT_CHARS);
        let wanted = format!(r#"Submit 1: Post to "lob\u{{202e}}by\n": "{long}"… (7000 bytes)"#);
        assert_eq!(told, wanted);
        assert!(bounded(&"ä".repeat(900), FRAME_CHARS).ends_with("… (1800 bytes)"));
    }
}
