//! The command line.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::time::Duration;

use chatcore::address::Address;
use chatcore::id::{COUNTER_MAX, Incarnation, Seq};
use chatcore::text::RoomName;
use chatcore::wire::{Cursor, Start};
use clap::{Parser, ValueEnum};

/// The server of a client that was given none.
const DEFAULT_ADDRESS: &str = "chat://127.0.0.1:5000";

/// Records that a client starts with when it is told nothing.
const HISTORY_DEFAULT: u64 = 1_000;

const EXAMPLES: &str = "\
Input, one line each:
  text              posts to the current room; //text and $$text post text that begins with / or $
  /join ROOM        joins a room, lines go there from now on; /part leaves the current room
  /who  /rooms      who is here, which rooms there are
  /history N        the last N messages; /whois USER says who a user is
  $reset -N         operators: clears the room and holds messages until N users are connected
  /kick /ban USER   operators: send a user away, for now or for good; /help shows what else
  /help  $exit      this list; the end. Commands may begin with / or $

Examples:
  chat-client --name alice
  chat-client chat://192.0.2.7:5000 --name alice --room dev --room lobby
  echo 'the build is done' | chat-client --name ci --timeout 10s
  chat-client --name bot --json --history all | jq -r 'select(.type == \"message\") | .text'

Exit codes: 0 fine, 1 failure (also when nobody reads the output any more), 2 usage, 3 network,
4 refused (name, key, identity in use, sent away), 5 not acknowledged in time, 130 interrupted.

At the end of input the client waits until the server has acknowledged every line, and a little for
your own lines to be shown; while the server is away it tries again and again, so give scripts a
--timeout. What was not acknowledged is kept and sent by the next run with the same name or
identity. A client that is killed may show its last few lines again on the next run, and misses none.

Events of --json: every \"sent\" and \"error\" that is about a line of input has an \"id\". It is the
\"id\" of a JSON request, else the number of the line in this run; a line that an earlier run left is
called earlier-COUNTER, and of a line above 64 KiB no id is read. \"disconnected\" has \"retry_ms\"
unless the client gives up, as with --no-reconnect.";

/// Talks to a chat server: on a terminal line by line, in a script as plain lines or as JSON.
#[derive(Clone, Debug, Parser)]
#[command(name = "chat-client", version, after_help = EXAMPLES)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the command line")]
#[expect(clippy::doc_markdown, reason = "clap shows these texts as they are")]
pub struct Args {
    /// Where the server is: chat://host:port or unix:/path
    #[arg(value_name = "URI", default_value = DEFAULT_ADDRESS)]
    pub address: Address,

    /// Your name; asked for when missing and a person is there
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,

    /// A room to join, may be repeated; lines go to the first
    #[arg(long = "room", value_name = "ROOM", default_value = "lobby")]
    pub rooms: Vec<RoomName>,

    /// Your key, made if missing, with what was not sent yet beside it as FILE.state.db [default:
    /// in the XDG config folder, one per server and name]
    #[arg(long, value_name = "FILE")]
    pub identity: Option<PathBuf>,

    /// For chats://: trust the authorities in this PEM file and nobody else, instead of those of this
    /// machine and certificates that were met before
    #[arg(long, value_name = "FILE")]
    pub tls_ca: Option<PathBuf>,

    /// Where the keys of servers are remembered [default: in the XDG config folder]
    #[arg(long, value_name = "FILE", env = "CHAT_KNOWN_SERVERS")]
    pub known_servers: Option<PathBuf>,

    /// Take another key from the server than the one that is remembered, and remember that
    #[arg(long)]
    pub accept_new_key: bool,

    /// Start with this record of a room nothing has been seen of, instead of the last ones
    #[arg(long, value_name = "[INCARNATION:]SEQ", value_parser = parse_since)]
    pub since: Option<Start>,

    /// Start with the last so many records of a room nothing has been seen of [default: 1000]
    #[arg(long, value_name = "N|all", value_parser = parse_history, conflicts_with = "since")]
    pub history: Option<Start>,

    /// End with code 3 when the connection is lost or cannot be had, instead of trying again
    #[arg(long)]
    pub no_reconnect: bool,

    /// How long to wait for the first connection, and for acknowledgement at the end of input,
    /// such as 30s, 500ms or 2m [default: no limit]
    #[arg(long, value_name = "SPAN", value_parser = parse_span)]
    pub timeout: Option<Duration>,

    /// One line an event, also on a terminal; a dumb terminal has nothing else
    #[arg(long)]
    pub plain: bool,

    /// One JSON object an event
    #[arg(long, conflicts_with = "plain")]
    pub json: bool,

    /// Colours, unless --json
    #[arg(long, value_name = "WHEN", value_enum, default_value_t = ColorChoice::Auto)]
    pub color: ColorChoice,

    /// Say on stderr what happens
    #[arg(short, long)]
    pub verbose: bool,
}

/// When to use colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[expect(clippy::doc_markdown, reason = "clap shows these texts as they are")]
pub enum ColorChoice {
    /// On a terminal, unless NO_COLOR is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// How input is read and events are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A person at a terminal: line editing, a prompt below what comes in.
    Terminal,
    /// One line an event.
    Plain,
    /// One JSON object an event.
    Json,
}

/// Whether colours are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Color {
    /// Notices are dim, errors red.
    On,
    /// Text alone.
    Off,
}

impl Args {
    /// The mode that the options and the streams of this process ask for.
    pub fn mode(&self) -> Mode {
        if self.json {
            return Mode::Json;
        }
        let person = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
        if self.plain || !person || is_dumb() { Mode::Plain } else { Mode::Terminal }
    }

    /// Where to start in a room of which nothing has been seen.
    pub fn start(&self) -> Start {
        self.since.or(self.history).unwrap_or(Start::Last(HISTORY_DEFAULT))
    }

    /// Whether the plain output has colours.
    pub fn color(&self) -> Color {
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let on = match self.color {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto => std::io::stdout().is_terminal() && !is_dumb() && !set("NO_COLOR"),
        };
        if on { Color::On } else { Color::Off }
    }
}

/// Whether the terminal can neither edit a line nor show colours.
fn is_dumb() -> bool {
    std::env::var_os("TERM").is_some_and(|term| term == "dumb")
}

/// Reads `SEQ` or `INCARNATION:SEQ`; both include the record they name.
fn parse_since(text: &str) -> Result<Start, String> {
    let number = |text: &str| text.parse::<u64>().map_err(|_| "write SEQ or INCARNATION:SEQ");
    let seq = |text| Seq::new(number(text)?).map_err(|error| error.to_string());
    match text.split_once(':') {
        None => Ok(Start::At(seq(text)?)),
        Some((life, place)) => {
            let incarnation = Incarnation::new(number(life)?).map_err(|error| error.to_string())?;
            Ok(Start::After(Cursor { incarnation, seq: seq(place)?.previous() }))
        }
    }
}

fn parse_history(text: &str) -> Result<Start, String> {
    if text == "all" {
        return Ok(Start::Last(COUNTER_MAX));
    }
    match text.parse() {
        // More than there can ever be is all of them.
        Ok(count) => Ok(Start::Last(COUNTER_MAX.min(count))),
        Err(_) => Err("write a number, or all".to_owned()),
    }
}

/// Reads `500ms`, `30s`, `2m` or `1h`.
fn parse_span(text: &str) -> Result<Duration, String> {
    const HELP: &str = "write a number with its unit: 500ms, 30s, 2m or 1h";
    let digits = text.find(|sign: char| !sign.is_ascii_digit()).ok_or(HELP)?;
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| HELP)?;
    let millis_each = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(HELP.to_owned()),
    };
    Ok(Duration::from_millis(number.saturating_mul(millis_each)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    fn parse(options: &[&str]) -> Result<Args, clap::Error> {
        Args::try_parse_from(["chat-client"].iter().chain(options))
    }

    #[test]
    fn options_are_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn a_client_told_nothing_joins_the_lobby_of_the_local_server() {
        let args = parse(&[]).unwrap();
        assert_eq!(args.address.to_string(), DEFAULT_ADDRESS);
        assert_eq!(args.rooms, ["lobby".parse().unwrap()]);
        assert_eq!(args.start(), Start::Last(1_000));
        assert_eq!(args.timeout, None);
    }

    #[test]
    fn since_includes_the_record_it_names() {
        let seq = Seq::new(7).unwrap();
        assert_eq!(parse(&["--since", "7"]).unwrap().start(), Start::At(seq));
        let cursor = Cursor { incarnation: Incarnation::new(2).unwrap(), seq: seq.previous() };
        assert_eq!(parse(&["--since", "2:7"]).unwrap().start(), Start::After(cursor));
        for wrong in ["", "x", "1:", ":1", "1:2:3", "-1", "9007199254740992"] {
            assert!(parse(&["--since", wrong]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn history_is_a_number_or_all() {
        assert_eq!(parse(&["--history", "0"]).unwrap().start(), Start::Last(0));
        assert_eq!(parse(&["--history", "all"]).unwrap().start(), Start::Last(COUNTER_MAX));
        let most = u64::MAX.to_string();
        assert_eq!(parse(&["--history", &most]).unwrap().start(), Start::Last(COUNTER_MAX));
        assert!(parse(&["--history", "some"]).is_err());
        assert!(parse(&["--history", "1", "--since", "1"]).is_err());
    }

    #[test]
    fn span_has_a_unit() {
        let of = |text: &str| parse(&["--timeout", text]).map(|args| args.timeout);
        assert_eq!(of("500ms").unwrap(), Some(Duration::from_millis(500)));
        assert_eq!(of("2m").unwrap(), Some(Duration::from_mins(2)));
        for wrong in ["30", "s", "1.5s", "-1s", "30 s"] {
            assert!(of(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn usage_error_has_code_2() {
        for options in [
            &["--plain", "--json"] as &[&str],
            &["wss://example.org"],
            &["--room", "a room"],
            &["--unknown"],
        ] {
            assert_eq!(parse(options).unwrap_err().exit_code(), 2, "{options:?}");
        }
    }
}
