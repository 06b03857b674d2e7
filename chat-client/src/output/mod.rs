//! What a user is shown, in one of two vocabularies: plain lines or JSON objects.

mod escape;
mod json;
mod plain;

pub use escape::escape;

use chatcore::client::{COMMANDS, CommandHelp, Event};
use chatcore::text::Body;
use chatcore::time::Timestamp;
use chatcore::wire::{Measure, Refusal};

use crate::args::{Color, Mode};
use chatcore::address::Address;

/// Commands that are understood and answered "not yet".
const LATER: [&str; 2] = ["msg", "verify"];

/// For whom commands are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// For who begins: without those that the server takes from operators alone.
    Everybody,
    /// All of them.
    Operators,
}

/// Commands and what they do, one line each: the same in all modes.
pub fn help(audience: Audience) -> String {
    let is_known = |command: &&CommandHelp| !LATER.iter().any(|it| command.names.contains(it));
    let is_meant =
        |command: &&CommandHelp| audience == Audience::Operators || !command.is_for_operators();
    let known = COMMANDS.iter().filter(is_known).filter(is_meant);
    // The bounds of a number are for who gets it wrong.
    let usage = |text: &'static str| text.split(',').next().unwrap_or(text);
    let lines = known.map(|command| (usage(command.usage), command.what));
    let text = ("//TEXT or $$TEXT", "post a text that begins with / or $");
    let lines = lines.chain([text]).map(|(usage, what)| format!("{usage:<18}  {what}"));
    lines.collect::<Vec<_>>().join("\n")
}

/// What went wrong, as every mode shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorReport {
    /// The stable code.
    pub code: &'static str,
    /// What is wrong, for people.
    pub text: String,
    /// The label of the line it is about.
    pub id: Option<String>,
    /// Figures that come with some codes.
    pub figures: Figures,
}

/// Figures that come with an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Figures {
    /// None.
    None,
    /// When to try again.
    Retry {
        /// In so many milliseconds.
        millis: u64,
    },
    /// How far a gate is from opening.
    Gate {
        /// Users connected.
        have: u32,
        /// Users needed.
        need: u16,
    },
}

impl ErrorReport {
    /// An error without figures.
    pub fn new(code: &'static str, text: impl Into<String>, id: Option<String>) -> Self {
        Self { code, text: text.into(), id, figures: Figures::None }
    }

    /// The error that a refusal is.
    pub fn of_refusal(refusal: &Refusal, id: Option<String>) -> Self {
        let figures = match refusal {
            Refusal::Rate { retry_ms } | Refusal::Busy { retry_ms } => {
                Figures::Retry { millis: retry_ms.as_millis() }
            }
            Refusal::Gate { have, need } => Figures::Gate { have: *have, need: *need },
            Refusal::Frame(_)
            | Refusal::Decode(_)
            | Refusal::Version(_)
            | Refusal::Limit(_)
            | Refusal::State(_)
            | Refusal::Auth(_)
            | Refusal::Name(_)
            | Refusal::Perm
            | Refusal::Command
            | Refusal::Target(_)
            | Refusal::Gone
            | Refusal::Store
            | Refusal::Snapshot
            | Refusal::Crypto
            | Refusal::Expelled(_) => Figures::None,
        };
        Self { code: refusal.code(), text: refusal.to_string(), id, figures }
    }
}

/// Writes events as text: the same calls for every mode.
#[derive(Debug)]
pub struct Printer {
    mode: PrinterMode,
}

#[derive(Debug)]
enum PrinterMode {
    Json(json::JsonPrinter),
    Plain(plain::PlainPrinter),
}

impl Printer {
    /// A printer for a mode. `address` is where the client connects, as it is shown.
    pub fn new(mode: Mode, color: Color, address: &Address) -> Self {
        let mode = match mode {
            Mode::Json => PrinterMode::Json(json::JsonPrinter::new(address)),
            Mode::Plain | Mode::Terminal => {
                PrinterMode::Plain(plain::PlainPrinter::new(color, address))
            }
        };
        Self { mode }
    }

    /// Appends an event to `out`, lines with their ends.
    pub fn event(&mut self, event: &Event, out: &mut String) {
        match &mut self.mode {
            PrinterMode::Json(json) => json.event(event, out),
            PrinterMode::Plain(plain) => plain.event(event, out),
        }
    }

    /// Appends an error.
    pub fn error(&self, report: &ErrorReport, out: &mut String) {
        match &self.mode {
            PrinterMode::Json(_) => json::error(report, out),
            PrinterMode::Plain(plain) => plain.error(report, out),
        }
    }

    /// Appends a notice of this program, of any number of lines.
    pub fn notice(&self, text: &str, out: &mut String) {
        match &self.mode {
            PrinterMode::Json(_) => json::notice(text, out),
            PrinterMode::Plain(plain) => plain.notice(text, out),
        }
    }

    /// Remembers what a post says until it is answered, for `(held) text`.
    pub fn remember(&mut self, id: &str, body: &Body) {
        match &mut self.mode {
            PrinterMode::Json(_) => {}
            PrinterMode::Plain(plain) => plain.remember(id, body),
        }
    }
}

/// A server's wall-clock time as a time of the calendar; the epoch when it is beyond any calendar.
fn calendar_time(at: Timestamp) -> jiff::Timestamp {
    i64::try_from(at.get())
        .ok()
        .and_then(|millis| jiff::Timestamp::from_millisecond(millis).ok())
        .unwrap_or_default()
}

/// What a server's notice says.
const fn notice_text(notice: chatcore::wire::Notice) -> &'static str {
    match notice {
        chatcore::wire::Notice::FirstUserIsOperator => {
            "you are the operator, as no other was named: $reset -N clears the room, and /help shows \
             what else you may do"
        }
        chatcore::wire::Notice::OperatorGranted => {
            "you are an operator now: /help shows what you may do"
        }
        chatcore::wire::Notice::OperatorRevoked => "you are no operator any more",
    }
}

/// The code stands for what the server answers, as scripts know it.
const STORE_FULL: &str = "the server's disk is full (E_STORE): what you send waits here, and is sent \
    again by itself when there is space";

/// The line that takes a measure.
fn measure_line(user: &str, measure: Measure) -> String {
    let command = COMMANDS.iter().find(|command| command.measure() == Some(measure));
    let word = command.and_then(|command| command.names.first()).unwrap_or(&"?");
    format!("/{word} {user}")
}

/// What was given up after its session expired.
const ABANDONED: &str = "not known to be posted: the session expired before the answer came";
