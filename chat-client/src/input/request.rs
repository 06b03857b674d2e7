//! What a line asks for: a typed command, or in JSON mode an object.

use chatcore::client::{Line, LineError, parse_line};
use chatcore::id::Threshold;
use chatcore::text::{Body, NameError, RoomName, UserName};
use chatcore::wire::{Measure, Refusal};
use serde::Deserialize;

use crate::args::Mode;
use crate::input::label;
use crate::output::ErrorReport;

/// The longest label of a JSON request, in bytes.
const ID_BYTES_MAX: usize = 256;

/// A line that makes sense.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Its [label]: of a JSON request its own, else the number of the line.
    pub id: String,
    /// What it asks for.
    pub action: Action,
}

/// What a line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing: a person pressed enter.
    Nothing,
    /// To post to a room that it names.
    Post(RoomName, Body),
    /// To join a room and make it the current one.
    Join(RoomName),
    /// To leave a room that it names.
    Part(RoomName),
    /// Which rooms there are.
    Rooms,
    /// A measure on a user.
    Moderate(UserName, Measure),
    /// The commands.
    Help,
    /// The end.
    Quit,
    /// Something in the current room.
    Here(Here),
}

/// What a line asks for in the current room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Here {
    /// To post.
    Post(Body),
    /// To reset it.
    Reset(Threshold),
    /// To leave it.
    Part,
    /// Who is there.
    Who,
    /// Who a user is.
    Whois(UserName),
    /// The last so many records.
    History(u64),
}

/// A JSON request as it is written; unknown fields are ignored, as the contract may grow.
#[derive(Deserialize)]
struct Json {
    #[serde(rename = "type")]
    kind: String,
    room: Option<String>,
    text: Option<String>,
    id: Option<serde_json::Value>,
}

/// Finds out what a line asks for. `number` is its place in the input.
///
/// # Errors
/// What is wrong with it, with its label.
pub fn interpret(line: &str, number: u64, mode: Mode) -> Result<Request, ErrorReport> {
    if mode == Mode::Json && line.starts_with('{') {
        return interpret_json(line, number);
    }
    let id = label::of_line(number);
    match parse_line(line) {
        Ok(line) => match action(line) {
            Some(action) => Ok(Request { id, action }),
            None => Err(not_yet(id)),
        },
        Err(LineError::Empty) if mode == Mode::Terminal => {
            Ok(Request { id, action: Action::Nothing })
        }
        Err(error) => Err(ErrorReport::new(error.code(), error.to_string(), Some(id))),
    }
}

/// `None` for what this version cannot do yet.
fn action(line: Line) -> Option<Action> {
    Some(match line {
        Line::Post(body) => Action::Here(Here::Post(body)),
        Line::Private { .. } | Line::Verify(_) => return None,
        Line::Reset { threshold } => Action::Here(Here::Reset(threshold)),
        Line::Moderate { user, measure } => Action::Moderate(user, measure),
        Line::Quit => Action::Quit,
        Line::Join(room) => Action::Join(room),
        Line::Part(Some(room)) => Action::Part(room),
        Line::Part(None) => Action::Here(Here::Part),
        Line::Who => Action::Here(Here::Who),
        Line::Rooms => Action::Rooms,
        Line::History(count) => Action::Here(Here::History(count)),
        Line::Whois(user) => Action::Here(Here::Whois(user)),
        Line::Help => Action::Help,
    })
}

fn not_yet(id: String) -> ErrorReport {
    ErrorReport::new("E_STATE", "not yet: private messages are not in this version", Some(id))
}

fn interpret_json(line: &str, number: u64) -> Result<Request, ErrorReport> {
    let wrong = |text: String, id| ErrorReport::new("E_COMMAND", text, Some(id));
    let json: Json = serde_json::from_str(line)
        .map_err(|error| wrong(format!("not a request: {error}"), label::of_line(number)))?;
    let id = match json.id {
        None | Some(serde_json::Value::Null) => label::of_line(number),
        Some(serde_json::Value::String(id)) if id.len() <= ID_BYTES_MAX => label::brought(&id),
        Some(_) => {
            let text = format!("id must be a string of at most {ID_BYTES_MAX} bytes");
            return Err(wrong(text, label::of_line(number)));
        }
    };
    match json.kind.as_str() {
        "private" => return Err(not_yet(id)),
        "post" => {}
        _ => return Err(wrong("a request has the type post or private".to_owned(), id)),
    }
    let Some(text) = json.text else {
        return Err(wrong("a post needs a text".to_owned(), id));
    };
    let refused = |refusal: Refusal| ErrorReport::of_refusal(&refusal, Some(id.clone()));
    let body: Body = text.parse().map_err(|error| refused(Refusal::from(error)))?;
    let action = match json.room {
        None => Action::Here(Here::Post(body)),
        Some(room) => {
            let room = room.parse().map_err(|error: NameError| refused(error.into()))?;
            Action::Post(room, body)
        }
    };
    Ok(Request { id, action })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn assert_error(line: &str, mode: Mode, code: &str, id: &str) {
        let report = interpret(line, 7, mode).unwrap_err();
        let shown = report.id.as_deref().map(label::shown);
        assert_eq!((report.code, shown), (code, Some(id)), "{line}");
    }

    #[test]
    fn json_request_keeps_its_label_and_a_line_has_its_number() {
        let line = r#"{"type":"post","room":"dev","text":"a\nb","id":"x","later":1}"#;
        let action = Action::Post("dev".parse().unwrap(), "a\nb".parse().unwrap());
        assert_eq!(interpret(line, 7, Mode::Json), Ok(Request { id: label::brought("x"), action }));
        let here = Action::Here(Here::Post("hi".parse().unwrap()));
        let expected = Ok(Request { id: "7".into(), action: here });
        assert_eq!(interpret(r#"{"type":"post","text":"hi"}"#, 7, Mode::Json), expected);
        assert_eq!(interpret("hi", 7, Mode::Json), expected);
        assert_eq!(interpret("hi", 7, Mode::Plain), expected);
    }

    #[test]
    fn request_that_makes_no_sense_is_an_error_with_its_label() {
        for line in ["{", "{}", r#"{"type":"post","text":"a","id":1}"#, r#"{"type":1}"#] {
            assert_error(line, Mode::Json, "E_COMMAND", "7");
        }
        assert_error(r#"{"type":"shout","id":"x"}"#, Mode::Json, "E_COMMAND", "x");
        assert_error(r#"{"type":"post","id":"x"}"#, Mode::Json, "E_COMMAND", "x");
        assert_error(r#"{"type":"post","text":" ","id":"x"}"#, Mode::Json, "E_COMMAND", "x");
        let room = r#"{"type":"post","room":"a b","text":"a","id":"x"}"#;
        assert_error(room, Mode::Json, "E_NAME", "x");
        let long = format!(r#"{{"type":"post","text":"{}","id":"x"}}"#, "a".repeat(8_193));
        assert_error(&long, Mode::Json, "E_LIMIT", "x");
    }

    #[test]
    fn line_that_begins_with_a_brace_is_text_outside_json_mode() {
        let posted = interpret("{}", 7, Mode::Plain).unwrap().action;
        assert_eq!(posted, Action::Here(Here::Post("{}".parse().unwrap())));
    }

    #[test]
    fn private_messages_are_refused_and_never_posted() {
        for line in ["$private bob hi", "/msg bob hi", "/verify bob"] {
            assert_error(line, Mode::Json, "E_STATE", "7");
        }
        let line = r#"{"type":"private","to":"bob","text":"hi","id":"x"}"#;
        assert_error(line, Mode::Json, "E_STATE", "x");
    }

    #[test]
    fn empty_line_is_an_error_in_a_script_and_nothing_at_a_terminal() {
        assert_error("", Mode::Plain, "E_COMMAND", "7");
        assert_eq!(interpret("", 7, Mode::Terminal).unwrap().action, Action::Nothing);
    }
}
