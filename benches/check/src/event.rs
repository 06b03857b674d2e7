//! Lines, as the contract spells them.

use serde::Deserialize;

/// What a line says, as far as the rules care.
#[derive(Debug)]
pub(crate) enum Event {
    /// A message, a join or a leave.
    Record(Record),
    Gate(Gate),
    /// Who is there: never told while a gate is closed.
    Users(Users),
    Gap(Gap),
    Reset(Reset),
    Sent(Sent),
    Error(Failed),
    Connected(Connected),
    /// The client was killed here.
    Killed,
    /// Nothing that a rule is about.
    Other,
}

/// A record of a room's log.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) place: Place,
    pub(crate) content: Content,
    pub(crate) at: Option<String>,
}

/// Where a record is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    pub(crate) room: String,
    pub(crate) incarnation: u64,
    pub(crate) seq: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    Message { from: String, text: String },
    Joined { user: String },
    Left { user: String },
}

#[derive(Debug, Deserialize)]
pub(crate) struct Gate {
    pub(crate) room: String,
    pub(crate) incarnation: u64,
    pub(crate) open: bool,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Users {
    pub(crate) room: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Gap {
    pub(crate) room: String,
    pub(crate) incarnation: u64,
    pub(crate) from: u64,
    pub(crate) to: u64,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Reset {
    pub(crate) room: String,
    pub(crate) incarnation: u64,
}

/// An acknowledgement.
#[derive(Debug, Deserialize)]
pub(crate) struct Sent {
    pub(crate) room: Option<String>,
    pub(crate) id: String,
    pub(crate) incarnation: Option<u64>,
    pub(crate) seq: Option<u64>,
}

/// An error, perhaps of a post.
#[derive(Debug, Deserialize)]
pub(crate) struct Failed {
    pub(crate) id: Option<String>,
    /// The text of a post that was given up.
    pub(crate) line: Option<String>,
}

/// A log-in.
#[derive(Debug, Deserialize)]
pub(crate) struct Connected {
    pub(crate) server: String,
}

#[derive(Deserialize)]
struct Kind<'a> {
    #[serde(rename = "type", borrow)]
    kind: std::borrow::Cow<'a, str>,
}

#[derive(Deserialize)]
struct Line {
    room: String,
    incarnation: u64,
    seq: u64,
    at: Option<String>,
    from: Option<String>,
    text: Option<String>,
    user: Option<String>,
}

impl Line {
    /// Reads a record; `content` takes its fields out of the line.
    fn record(
        line: &str,
        content: impl FnOnce(&mut Self) -> Option<Content>,
    ) -> Result<Event, serde_json::Error> {
        let mut parsed: Self = serde_json::from_str(line)?;
        let content = content(&mut parsed)
            .ok_or_else(|| <serde_json::Error as serde::de::Error>::custom("a field is missing"))?;
        let Self { room, incarnation, seq, at, .. } = parsed;
        Ok(Event::Record(Record { place: Place { room, incarnation, seq }, content, at }))
    }
}

impl Event {
    /// Reads a line.
    pub(crate) fn parse(line: &str) -> Result<Self, serde_json::Error> {
        let Kind { kind } = serde_json::from_str(line)?;
        Ok(match kind.as_ref() {
            "message" => Line::record(line, |line| {
                let (from, text) = (line.from.take()?, line.text.take()?);
                Some(Content::Message { from, text })
            })?,
            "joined" => {
                Line::record(line, |line| Some(Content::Joined { user: line.user.take()? }))?
            }
            "left" => Line::record(line, |line| Some(Content::Left { user: line.user.take()? }))?,
            "gate" => Self::Gate(serde_json::from_str(line)?),
            "users" => Self::Users(serde_json::from_str(line)?),
            "gap" => Self::Gap(serde_json::from_str(line)?),
            "reset" => Self::Reset(serde_json::from_str(line)?),
            "sent" => Self::Sent(serde_json::from_str(line)?),
            "connected" => Self::Connected(serde_json::from_str(line)?),
            "error" => Self::Error(serde_json::from_str(line)?),
            "killed" => Self::Killed,
            _ => Self::Other,
        })
    }
}

/// The post that a text is, by the convention of its spelling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Post<'a> {
    pub(crate) id: &'a str,
    pub(crate) sender: &'a str,
    pub(crate) number: u64,
}

impl<'a> Post<'a> {
    /// Reads `SENDER-NUMBER-ANYTHING`, or the id alone.
    pub(crate) fn of(text: &'a str) -> Option<Self> {
        let (sender, rest) = text.split_once('-')?;
        let digits = rest.split_once('-').map_or(rest, |(digits, _)| digits);
        let number = digits.parse().ok()?;
        let id = text.get(..sender.len().checked_add(1)?.checked_add(digits.len())?)?;
        Some(Self { id, sender, number })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_names_its_sender_and_number() {
        let post = Post { id: "ana-12", sender: "ana", number: 12 };
        assert_eq!(Post::of("ana-12-and more"), Some(post));
        assert_eq!(Post::of("ana-12"), Some(post));
        for text in ["ana", "ana-", "ana-x-1", "12", ""] {
            assert_eq!(Post::of(text), None, "{text}");
        }
    }

    #[test]
    fn line_with_a_field_missing_is_no_event() {
        assert!(Event::parse(r#"{"type":"message","room":"a","incarnation":1}"#).is_err());
        assert!(Event::parse(r#"{"room":"a"}"#).is_err());
        assert!(matches!(Event::parse(r#"{"type":"later"}"#), Ok(Event::Other)));
    }
}
