//! The lines a person types: text to post, or a command.

use core::fmt;

use crate::id::Threshold;
use crate::text::{Body, BodyError, NameError, RoomName, UserName};
use crate::wire::Measure;

/// How many records `/history` gives without a number.
const HISTORY_DEFAULT: u64 = 50;
/// The most characters of an unknown command that are repeated.
const WORD_CHARS_MAX: usize = 16;
/// The most changes of a letter between a typed word and the command it may have meant.
const TYPOS_MAX: usize = 2;

/// What a line means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// Post this to the current room.
    Post(Body),
    /// Tell one user alone.
    Private {
        /// Whom.
        to: UserName,
        /// What.
        body: Body,
    },
    /// Reset the current room.
    Reset {
        /// The new threshold.
        threshold: Threshold,
    },
    /// Take a measure on a user.
    Moderate {
        /// The user.
        user: UserName,
        /// What is to be done.
        measure: Measure,
    },
    /// Leave.
    Quit,
    /// Join a room.
    Join(RoomName),
    /// Leave a room; without a name the current one.
    Part(Option<RoomName>),
    /// Show who is here.
    Who,
    /// Show which rooms there are.
    Rooms,
    /// Show the last so many records.
    History(u64),
    /// Show who a user is.
    Whois(UserName),
    /// Compare keys with a user.
    Verify(UserName),
    /// Show the commands.
    Help,
}

/// Why a line means nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// There is nothing in it.
    #[error("the line is empty")]
    Empty,
    /// There is no such command.
    #[error("there is no command {word}: {}", advice(*nearest))]
    Unknown {
        /// What was typed: at most 16 characters, and no control characters.
        word: String,
        /// The command that was probably meant, without its sigil.
        nearest: Option<&'static str>,
    },
    /// The command lacks something, or has too much.
    #[error("this command is written {usage}")]
    Malformed {
        /// How it is written.
        usage: &'static str,
    },
    /// A name in it is none.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The text cannot be posted.
    #[error(transparent)]
    Body(#[from] BodyError),
}

impl LineError {
    /// The stable code, for programs.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Empty
            | Self::Unknown { .. }
            | Self::Malformed { .. }
            | Self::Body(BodyError::Empty) => "E_COMMAND",
            Self::Name(_) => "E_NAME",
            Self::Body(BodyError::TooLong) => "E_LIMIT",
        }
    }
}

fn advice(nearest: Option<&'static str>) -> impl fmt::Display {
    fmt::from_fn(move |f| match nearest {
        Some(name) => write!(f, "did you mean /{name}?"),
        None => f.write_str("/help shows all, and // posts a line that begins with /"),
    })
}

/// One command as `/help` and the manual show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommandHelp {
    /// Its names without a sigil; the first is the usual one.
    pub names: &'static [&'static str],
    /// How it is written.
    pub usage: &'static str,
    /// What it does.
    pub what: &'static str,
    word: Word,
}

impl CommandHelp {
    /// The measure that it takes, if it takes one.
    pub const fn measure(&self) -> Option<Measure> {
        if let Word::Moderate(measure) = self.word { Some(measure) } else { None }
    }

    /// Whether the server takes it from operators alone.
    pub const fn is_for_operators(&self) -> bool {
        matches!(self.word, Word::Reset | Word::Gate | Word::Moderate(_))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    Private,
    Reset,
    Gate,
    Moderate(Measure),
    Quit,
    Join,
    Part,
    Who,
    Rooms,
    History,
    Whois,
    Verify,
    Help,
}

const fn command(
    word: Word,
    names: &'static [&'static str],
    usage: &'static str,
    what: &'static str,
) -> CommandHelp {
    CommandHelp { names, usage, what, word }
}

/// Every command, in the order to show them. Each name may begin with `/` or `$`.
pub const COMMANDS: &[CommandHelp] = &[
    command(
        Word::Private,
        &["msg", "private"],
        "/msg USER MESSAGE or $private USER MESSAGE",
        "tell one user alone",
    ),
    command(Word::Who, &["who"], "/who", "show who is here"),
    command(
        Word::History,
        &["history"],
        "/history [N]",
        "show the last N messages (50 without a number)",
    ),
    command(Word::Whois, &["whois"], "/whois USER", "show who a user is"),
    command(Word::Verify, &["verify"], "/verify USER", "compare keys with a user"),
    command(Word::Rooms, &["rooms"], "/rooms", "show the rooms of this server"),
    command(Word::Join, &["join"], "/join ROOM", "join a room and post there"),
    command(Word::Part, &["part"], "/part [ROOM]", "leave a room"),
    command(
        Word::Reset,
        &["reset"],
        "$reset -N",
        "operators: clear the room, hold lines until N users come",
    ),
    command(Word::Gate, &["gate"], "/gate reset N", "operators: the same as $reset -N"),
    command(
        Word::Moderate(Measure::Kick),
        &["kick"],
        "/kick USER",
        "operators: send a user away, who may come back",
    ),
    command(
        Word::Moderate(Measure::Ban),
        &["ban"],
        "/ban USER",
        "operators: send a user away for good, by name and key",
    ),
    command(Word::Moderate(Measure::Unban), &["unban"], "/unban USER", "operators: end a ban"),
    command(Word::Moderate(Measure::Op), &["op"], "/op USER", "operators: make a user an operator"),
    command(
        Word::Moderate(Measure::Deop),
        &["deop"],
        "/deop USER",
        "operators: make an operator a plain user",
    ),
    command(
        Word::Moderate(Measure::Release),
        &["release"],
        "/release USER",
        "operators: free a name whose key is lost",
    ),
    command(Word::Help, &["help"], "/help", "show all commands"),
    command(Word::Quit, &["quit", "exit"], "/quit or $exit", "leave the chat"),
];

/// Reads one line.
///
/// A line that begins with `/` or `$` is a command and is never posted; doubled, the sign begins a
/// text. The end of the line may still be there.
///
/// # Errors
/// Why the line means nothing; the text of the error helps a person.
pub fn parse_line(text: &str) -> Result<Line, LineError> {
    let text = text.trim_end_matches(['\r', '\n']);
    let Some(rest) = text.strip_prefix(['/', '$']) else {
        return post(text);
    };
    if rest.starts_with(['/', '$']) && text.starts_with(&rest[..1]) {
        return post(rest);
    }
    let (word, arguments) = split_word(rest);
    let known = COMMANDS.iter().find(|command| command.names.contains(&word));
    let Some(command) = known else {
        let sigil = &text[..1];
        return Err(LineError::Unknown { word: shown(sigil, word), nearest: nearest(word) });
    };
    parse_command(command, arguments.trim_start())
}

fn post(text: &str) -> Result<Line, LineError> {
    match text.parse() {
        Ok(body) => Ok(Line::Post(body)),
        Err(BodyError::Empty) => Err(LineError::Empty),
        Err(error @ BodyError::TooLong) => Err(error.into()),
    }
}

fn parse_command(command: &CommandHelp, text: &str) -> Result<Line, LineError> {
    let malformed = LineError::Malformed { usage: command.usage };
    let arguments = text.trim_end();
    let alone = |line| if arguments.is_empty() { Ok(line) } else { Err(malformed.clone()) };
    match command.word {
        Word::Quit => alone(Line::Quit),
        Word::Who => alone(Line::Who),
        Word::Rooms => alone(Line::Rooms),
        Word::Help => alone(Line::Help),
        Word::Part if arguments.is_empty() => Ok(Line::Part(None)),
        Word::Part => Ok(Line::Part(Some(one_word(arguments, malformed)?.parse()?))),
        Word::Join => Ok(Line::Join(one_word(arguments, malformed)?.parse()?)),
        Word::Whois => Ok(Line::Whois(one_word(arguments, malformed)?.parse()?)),
        Word::Verify => Ok(Line::Verify(one_word(arguments, malformed)?.parse()?)),
        Word::History if arguments.is_empty() => Ok(Line::History(HISTORY_DEFAULT)),
        Word::History => number(arguments).map(Line::History).ok_or(malformed),
        Word::Private => private(text, malformed),
        Word::Moderate(measure) => {
            let user = one_word(arguments, malformed)?.parse()?;
            Ok(Line::Moderate { user, measure })
        }
        Word::Reset => reset(arguments.strip_prefix('-')).ok_or(malformed),
        Word::Gate => match split_word(arguments) {
            ("reset", count) => reset(Some(count.trim())).ok_or(malformed),
            _ => Err(malformed),
        },
    }
}

fn private(arguments: &str, malformed: LineError) -> Result<Line, LineError> {
    let (to, text) = split_word(arguments);
    if to.is_empty() || text.trim().is_empty() {
        return Err(malformed);
    }
    Ok(Line::Private { to: to.parse()?, body: text.parse()? })
}

fn reset(count: Option<&str>) -> Option<Line> {
    let threshold = Threshold::new(u16::try_from(number(count?)?).ok()?)?;
    Some(Line::Reset { threshold })
}

/// A number of digits alone: no sign.
fn number(text: &str) -> Option<u64> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}

fn one_word(arguments: &str, malformed: LineError) -> Result<&str, LineError> {
    match split_word(arguments) {
        ("", _) => Err(malformed),
        (word, "") => Ok(word),
        _ => Err(malformed),
    }
}

/// The first word, and what follows the white space after it.
fn split_word(text: &str) -> (&str, &str) {
    text.split_once(char::is_whitespace).unwrap_or((text, ""))
}

/// What was typed where a command belongs, fit to be shown.
fn shown(sigil: &str, word: &str) -> String {
    let mut shown = sigil.to_owned();
    let mut chars = word.chars();
    for char in chars.by_ref().take(WORD_CHARS_MAX) {
        // Escapes control characters and those that change the direction or have no width, but
        // not quotes and backslashes, whose escapes are as short as that of NUL.
        match char.escape_debug() {
            escaped if escaped.len() > 2 || char.is_control() => shown.extend(escaped),
            _ => shown.push(char),
        }
    }
    if chars.next().is_some() {
        shown.push('…');
    }
    shown
}

/// The command that was probably meant: few letters differ, and not most of the word.
fn nearest(word: &str) -> Option<&'static str> {
    let word: Vec<char> = word.chars().take(WORD_CHARS_MAX).flat_map(char::to_lowercase).collect();
    let names = COMMANDS.iter().flat_map(|command| command.names);
    names
        .map(|name| (typos(&word, name), *name))
        .filter(|(typos, name)| *typos <= TYPOS_MAX && typos.saturating_mul(2) <= name.len())
        .min_by_key(|(typos, _)| *typos)
        .map(|(_, name)| name)
}

/// The edit distance: letters inserted, left out, replaced, or swapped with their neighbour.
///
/// Source: the optimal string alignment of Damerau (1964), row by row.
fn typos(word: &[char], name: &str) -> usize {
    let name: Vec<char> = name.chars().collect();
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=name.len()).collect();
    for (row, letter) in word.iter().enumerate() {
        let mut current = vec![row.saturating_add(1)];
        for (column, wanted) in name.iter().enumerate() {
            let at = |line: &[usize], place: usize| line.get(place).copied().unwrap_or(usize::MAX);
            let replaced = at(&above, column).saturating_add(usize::from(letter != wanted));
            let inserted = at(&current, column).saturating_add(1);
            let dropped = at(&above, column.saturating_add(1)).saturating_add(1);
            let mut best = replaced.min(inserted).min(dropped);
            let earlier = (row.checked_sub(1), column.checked_sub(1));
            if let (Some(up), Some(left)) = earlier
                && word.get(up) == Some(wanted)
                && name.get(left) == Some(letter)
            {
                best = best.min(at(&before, left).saturating_add(1));
            }
            current.push(best);
        }
        before = core::mem::replace(&mut above, current);
    }
    above.last().copied().unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn body(text: &str) -> Body {
        text.parse().unwrap()
    }

    fn reset_to(n: u16) -> Line {
        Line::Reset { threshold: Threshold::new(n).unwrap() }
    }

    #[test]
    fn every_command_of_the_contract_is_understood_with_both_signs() {
        let bob: UserName = "bob".parse().unwrap();
        let tea: RoomName = "tea".parse().unwrap();
        let private = Line::Private { to: bob.clone(), body: body("hi  there ") };
        let lines = [
            ("private bob hi  there ", private.clone()),
            ("msg bob hi  there ", private),
            ("reset -3", reset_to(3)),
            ("gate reset 3", reset_to(3)),
            ("reset -65535", reset_to(65_535)),
            ("exit", Line::Quit),
            ("quit", Line::Quit),
            ("join tea", Line::Join(tea.clone())),
            ("part", Line::Part(None)),
            ("part tea", Line::Part(Some(tea))),
            ("who", Line::Who),
            ("rooms", Line::Rooms),
            ("history", Line::History(50)),
            ("history 7", Line::History(7)),
            ("whois bob", Line::Whois(bob.clone())),
            ("verify bob", Line::Verify(bob.clone())),
            ("kick bob", Line::Moderate { user: bob.clone(), measure: Measure::Kick }),
            ("ban bob", Line::Moderate { user: bob.clone(), measure: Measure::Ban }),
            ("unban bob", Line::Moderate { user: bob.clone(), measure: Measure::Unban }),
            ("op bob", Line::Moderate { user: bob.clone(), measure: Measure::Op }),
            ("deop bob", Line::Moderate { user: bob.clone(), measure: Measure::Deop }),
            ("release bob", Line::Moderate { user: bob, measure: Measure::Release }),
            ("help\r\n", Line::Help),
        ];
        for (text, line) in lines {
            for sigil in ["/", "$"] {
                assert_eq!(parse_line(&format!("{sigil}{text}")), Ok(line.clone()), "{text}");
            }
        }
    }

    #[test]
    fn doubled_sign_begins_a_text() {
        assert_eq!(parse_line("//quit"), Ok(Line::Post(body("/quit"))));
        assert_eq!(parse_line("$$5 for lunch"), Ok(Line::Post(body("$5 for lunch"))));
        assert_eq!(parse_line(" hello /quit "), Ok(Line::Post(body(" hello /quit "))));
        assert!(matches!(parse_line("/$quit"), Err(LineError::Unknown { .. })));
    }

    #[test]
    fn b11_malformed_command_answers_with_its_usage() {
        let lines = [
            "$reset",
            "$reset 3",
            "$reset -0",
            "$reset -65536",
            "$reset --3",
            "$reset -+3",
            "/gate",
            "/gate 3",
            "/gate reset",
            "/gate reset -3",
            "/msg",
            "/msg bob",
            "/msg bob ",
            "/join",
            "/join a b",
            "/who now",
            "/quit now",
            "/history x",
            "/history -1",
            "/history 99999999999999999999",
            "/whois",
            "/kick",
            "/ban bob ana",
        ];
        for line in lines {
            let Err(error @ LineError::Malformed { usage }) = parse_line(line) else {
                panic!("{line} is not malformed");
            };
            assert!(error.to_string().contains(usage));
            assert_eq!(error.code(), "E_COMMAND");
        }
    }

    #[test]
    fn unknown_command_is_an_error_that_names_the_nearest() {
        let nearest = |line: &str| match parse_line(line) {
            Err(LineError::Unknown { nearest, .. }) => nearest,
            other => panic!("{other:?}"),
        };
        assert_eq!(nearest("/jion tea"), Some("join"));
        assert_eq!(nearest("/QUIT"), Some("quit"));
        assert_eq!(nearest("$privat bob hi"), Some("private"));
        assert_eq!(nearest("/hsitory"), Some("history"));
        assert_eq!(nearest("$5 for lunch"), None);
        assert_eq!(nearest("/ "), None);
        let error = parse_line("/jion tea").unwrap_err();
        assert_eq!(error.to_string(), "there is no command /jion: did you mean /join?");
    }

    #[test]
    fn h1_unknown_command_repeats_no_control_characters_and_few_others() {
        let line = format!("/\u{1b}]0;\u{202e}\u{200b}{} secret", "x".repeat(100));
        let text = parse_line(&line).unwrap_err().to_string();
        assert!(!text.contains(['\u{1b}', '\u{202e}', '\u{200b}']), "{text:?}");
        assert!(!text.contains("secret") && text.len() < 200, "{text}");
        let text = parse_line("/\0\u{7f}\u{9b}'\\").unwrap_err().to_string();
        assert!(text.contains(r"/\0\u{7f}\u{9b}'\:"), "{text:?}");
    }

    #[test]
    fn bad_name_and_bad_text_have_their_own_codes() {
        assert_eq!(parse_line("/whois server").unwrap_err().code(), "E_NAME");
        assert_eq!(parse_line("/join a:b").unwrap_err().code(), "E_NAME");
        assert_eq!(parse_line(&"x".repeat(8_193)).unwrap_err().code(), "E_LIMIT");
        assert_eq!(parse_line("\r\n"), Err(LineError::Empty));
        assert_eq!(parse_line(" \t").unwrap_err().code(), "E_COMMAND");
    }

    #[test]
    fn every_name_of_a_command_stands_in_its_usage_or_is_explained() {
        for command in COMMANDS {
            assert!(command.names.iter().all(|name| command.usage.contains(name)), "{command:?}");
        }
    }

    proptest! {
        #[test]
        fn no_line_panics_and_no_command_is_posted(sigil in "[/$]", text in "\\PC{0,40}") {
            let line = parse_line(&format!("{sigil}{text}"));
            let posted = matches!(line, Ok(Line::Post(_)));
            prop_assert!(!posted || text.starts_with(&sigil));
        }
    }
}
