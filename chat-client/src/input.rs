//! Lines in: from a stream or a line editor, and what they ask for.

pub mod label;
mod reader;
mod request;

pub use reader::{LINE_BYTES_MAX, LineReader, RawLine};
pub use request::{Action, Here, Request, interpret};

use chatcore::text::RoomName;
use tokio::io::{BufReader, Stdin};

use crate::output::ErrorReport;
use crate::terminal::{Terminal, Typed};

/// Asks for a name.
const NAME_PROMPT: &str = "Your name: ";

/// Where lines come from.
#[derive(Debug)]
pub struct Source {
    kind: Kind,
    /// The number of the last line, from 1.
    number: u64,
}

#[derive(Debug)]
enum Kind {
    Stream(LineReader<BufReader<Stdin>>),
    Terminal(Terminal),
}

/// What came.
#[derive(Debug, PartialEq, Eq)]
pub enum Typing {
    /// A line, or why it is none.
    Line {
        /// Its number in the order of input, from 1: its label.
        number: u64,
        /// The text without its end.
        line: Result<String, ErrorReport>,
    },
    /// There will be no more.
    End,
    /// The user interrupts.
    Interrupt,
}

impl Source {
    /// Lines of standard input.
    pub fn stdin() -> Self {
        let stream = LineReader::new(BufReader::new(tokio::io::stdin()));
        Self { kind: Kind::Stream(stream), number: 0 }
    }

    /// Lines of a person.
    pub const fn terminal(terminal: Terminal) -> Self {
        Self { kind: Kind::Terminal(terminal), number: 0 }
    }

    /// Says that the next line may come, to a room if it needs saying; streams need no asking.
    pub fn prompt(&mut self, room: Option<&RoomName>) {
        if let Kind::Terminal(terminal) = &mut self.kind {
            terminal.prompt(&room.map_or_else(|| "> ".to_owned(), |room| format!("{room}> ")));
        }
    }

    /// Asks a person for a name; `None` when there is no person, or no answer.
    pub async fn ask_name(&mut self) -> Typing {
        if let Kind::Terminal(terminal) = &mut self.kind {
            terminal.prompt(NAME_PROMPT);
        }
        self.next().await
    }

    /// Waits for the next line. It may be dropped and called again.
    pub async fn next(&mut self) -> Typing {
        let line = match &mut self.kind {
            Kind::Stream(stream) => match stream.next().await {
                // A stream that fails has ended: what was read is worth as much as before.
                Ok(None) | Err(_) => return Typing::End,
                Ok(Some(raw)) => Err(raw),
            },
            Kind::Terminal(terminal) => match terminal.next().await {
                Typed::Line(line) => Ok(line),
                Typed::NotUtf8 => Err(RawLine::NotUtf8),
                Typed::End => return Typing::End,
                Typed::Interrupt => return Typing::Interrupt,
            },
        };
        self.number = self.number.saturating_add(1);
        let number = self.number;
        let report =
            |code, text: &str| Err(ErrorReport::new(code, text, Some(label::of_line(number))));
        let line = match line {
            Ok(line) | Err(RawLine::Text(line)) => Ok(line),
            Err(RawLine::TooLong) => report("E_LIMIT", "the line is too long"),
            Err(RawLine::NotUtf8) => report("E_COMMAND", "the line is not UTF-8"),
        };
        Typing::Line { number, line }
    }
}
