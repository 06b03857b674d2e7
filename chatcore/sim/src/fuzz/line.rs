//! The lines a person types into a client.

use chatcore::client::{COMMANDS, Line, LineError, parse_line};
use chatcore::text::Body;
use chatcore::wire::Measure;

use super::text::is_plain;

/// The longest text of an error.
const ERROR_CHARS_MAX: usize = 200;

/// Reads one input as a line.
///
/// # Panics
/// When a command is posted, a text is not, a line does not survive being written down again, or
/// an error repeats what a terminal must not be given.
pub fn check(input: &[u8]) {
    let Ok(text) = core::str::from_utf8(input) else { return };
    let parsed = parse_line(text);
    let line = text.trim_end_matches(['\r', '\n']);
    match meaning(line) {
        Meaning::Text(text) => check_text(text, &parsed),
        Meaning::Command => {
            let posted = matches!(parsed, Ok(Line::Post(_)));
            assert!(!posted, "a command must not be posted: {line:?}");
        }
    }
    match &parsed {
        Ok(line) => {
            let written = write(line);
            assert_eq!(parse_line(&written).as_ref(), Ok(line), "{written:?} means something else");
        }
        Err(error) => check_error(error),
    }
}

/// What a line is by the contract: text, without the sign that is doubled, or a command.
enum Meaning<'a> {
    Text(&'a str),
    Command,
}

fn meaning(line: &str) -> Meaning<'_> {
    for sign in ['/', '$'] {
        let Some(rest) = line.strip_prefix(sign) else { continue };
        return if rest.starts_with(sign) { Meaning::Text(rest) } else { Meaning::Command };
    }
    Meaning::Text(line)
}

fn check_text(text: &str, parsed: &Result<Line, LineError>) {
    match (text.parse::<Body>(), parsed) {
        (Ok(wanted), Ok(Line::Post(body))) => assert_eq!(*body, wanted, "a text must be kept"),
        (Err(_), Err(LineError::Empty | LineError::Body(_))) => {}
        (wanted, parsed) => panic!("{wanted:?} was taken for {parsed:?}"),
    }
}

fn check_error(error: &LineError) {
    let text = error.to_string();
    assert!(is_plain(&text), "an error must not repeat what changes a terminal: {text:?}");
    assert!(text.chars().count() <= ERROR_CHARS_MAX, "an error must be short: {text:?}");
    let known = ["E_COMMAND", "E_NAME", "E_LIMIT"].contains(&error.code());
    assert!(known, "a line has codes of its own: {}", error.code());
    if let LineError::Unknown { nearest: Some(nearest), .. } = error {
        let exists = COMMANDS.iter().any(|command| command.names.contains(nearest));
        assert!(exists, "{nearest} is advised and does not exist");
    }
}

/// A line that means this.
fn write(line: &Line) -> String {
    match line {
        Line::Post(body) if body.as_str().starts_with('/') => format!("/{}", body.as_str()),
        Line::Post(body) if body.as_str().starts_with('$') => format!("${}", body.as_str()),
        Line::Post(body) => body.as_str().to_owned(),
        Line::Private { to, body } => format!("$private {to} {}", body.as_str()),
        Line::Reset { threshold } => format!("$reset -{threshold}"),
        Line::Moderate { user, measure } => {
            let word = match measure {
                Measure::Kick => "kick",
                Measure::Ban => "ban",
                Measure::Unban => "unban",
                Measure::Release => "release",
                Measure::Op => "op",
                Measure::Deop => "deop",
            };
            format!("/{word} {user}")
        }
        Line::Quit => "$exit".to_owned(),
        Line::Join(room) => format!("/join {room}"),
        Line::Part(Some(room)) => format!("/part {room}"),
        Line::Part(None) => "/part".to_owned(),
        Line::Who => "/who".to_owned(),
        Line::Rooms => "/rooms".to_owned(),
        Line::History(count) => format!("/history {count}"),
        Line::Whois(user) => format!("/whois {user}"),
        Line::Verify(user) => format!("/verify {user}"),
        Line::Help => "/help".to_owned(),
    }
}
