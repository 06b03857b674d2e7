//! The program `chat-bench`: options in, a table out.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use chatcore::address::Address;
use chatcore::text::Body;
use clap::{Args, Parser};
use serde_json::json;

use crate::ceiling;
use crate::child::Transport;
use crate::conversation::Pace;
use crate::failure::Failure;
use crate::fan_out::{self, Plan};
use crate::frames;
use crate::senders::Rooms;
use crate::socket::Listener;
use crate::{comeback, commits, history, hostile, idle, stuck, talk};

/// Bytes of what clients say who came back.
const RETURN_TEXT_BYTES: usize = 100;

/// Measures the chat server against the least that any server could spend for the same bytes.
#[derive(Debug, Parser)]
#[command(name = "chat-bench", version, arg_required_else_help = true)]
enum Options {
    /// CPU time per delivery of chat-server, over that of a bare epoll server: in turn, in one run
    FanOut(FanOut),
    /// Acknowledged posts a second, over what a bare loop does that appends and syncs the same
    /// bytes in the same groups: in turn, in one run. Exits with 1 when the aim is missed
    Commits(Commits),
    /// Starting, memory and pages with a long history. Exits with 1 when an aim is missed
    History(History),
    /// Memory of the server for each connection that only listens, by TCP and by TLS
    Idle(Idle),
    /// What readers have of others that do not read: their slowest percent, over that when all read.
    /// Exits with 1 when it is more than twice that
    Stuck(Stuck),
    /// What becomes of hostile inputs, and of users who talk meanwhile. Exits with 1 when anything is not
    /// as expected
    ///
    /// A server with its default limits is given garbage, broken frames, log-ins that prove nothing, slow
    /// and silent newcomers, floods, and requests by HTTP and TLS that are none, by TCP, by TLS and by a
    /// Unix socket, all at once. Meanwhile users talk. It says what came of every input and after how long,
    /// how long messages took before and meanwhile, and whether each reached everybody in its room once and
    /// in order. It takes half a minute.
    Hostile(Hostile),
    /// How long messages take, without and with many connections that say nothing. Exits with 1 when the
    /// slowest percent takes more than twice as long, or a connection is lost
    ///
    /// Two servers with their default limits, which keep everything. Many people come to one of them, as
    /// fast as it takes newcomers, join rooms and say nothing. Then others talk at a steady rate, at one
    /// server and at the other in turn. Every message has to reach everybody in its room once and in order. Clients come
    /// from several addresses of this machine, as one has too few ports. With 10000 idle ones it takes two
    /// minutes.
    Talk(Talk),
    /// How soon everybody is back at a server that was killed. Exits with 1 when not all are within the time
    ///
    /// Clients log in to a server with its default limits, which keeps everything, and join rooms. The server
    /// is killed and started again with the same data and at the same port, and all come back by the rules
    /// of chat-client. It says when the first, most and the last are back, how many log in a second, what
    /// memory the server takes, how many are told to come later, and how long messages take before and afterwards.
    Return(Return),
    /// The bare epoll server; fan-out starts it by itself
    Ceiling(Ceiling),
}

#[derive(Debug, Args)]
struct FanOut {
    /// Clients that receive every post, beside the sender
    #[arg(long, value_name = "N", default_value_t = 100,
          value_parser = clap::value_parser!(u16).range(1..=2_000))]
    receivers: u16,

    /// Posts that may be unacknowledged at once. May be repeated [default: 256 and 1]
    #[arg(long, value_name = "W", value_parser = clap::value_parser!(u64).range(1..=65_536))]
    window: Vec<u64>,

    /// Posts of a round [default: 200000, or 5000 for windows below 16]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    posts: Option<u64>,

    /// Bytes of a text
    #[arg(long, value_name = "N", default_value_t = 100,
          value_parser = clap::value_parser!(u16).range(1..=8_192))]
    text_bytes: u16,

    /// The kind of socket
    #[arg(long, value_enum, default_value_t = Transport::Tcp)]
    transport: Transport,

    /// How often each server is measured
    #[arg(long, value_name = "N", default_value_t = 5,
          value_parser = clap::value_parser!(u8).range(1..=100))]
    rounds: u8,

    /// Exit with 1 when a ratio is above its aim
    #[arg(long)]
    check: bool,
}

#[derive(Debug, Args)]
struct Commits {
    /// Clients that post, each once its post before is acknowledged. May be repeated
    /// [default: 1 and 100]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1_000))]
    senders: Vec<u16>,

    /// Have all of them in one room, so that each post is also sent to all: then it is the network
    /// that is measured, and no aim is held against it
    #[arg(long)]
    one_room: bool,

    /// Bytes of a text
    #[arg(long, value_name = "N", default_value_t = 100,
          value_parser = clap::value_parser!(u16).range(1..=8_192))]
    text_bytes: u16,

    /// Seconds of a round
    #[arg(long, value_name = "N", default_value_t = 4,
          value_parser = clap::value_parser!(u8).range(1..=60))]
    seconds: u8,

    /// How often each is measured
    #[arg(long, value_name = "N", default_value_t = 5,
          value_parser = clap::value_parser!(u8).range(1..=100))]
    rounds: u8,

    /// A folder on the disk that is to be measured [default: that of temporary files]
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct History {
    /// Messages of the long history
    #[arg(long, value_name = "N", default_value_t = 1_000_000,
          value_parser = clap::value_parser!(u64).range(20_000..=100_000_000))]
    messages: u64,

    /// Bytes of a text
    #[arg(long, value_name = "N", default_value_t = 100,
          value_parser = clap::value_parser!(u16).range(1..=8_192))]
    text_bytes: u16,

    /// How often a server is started on each history
    #[arg(long, value_name = "N", default_value_t = 5,
          value_parser = clap::value_parser!(u8).range(1..=100))]
    rounds: u8,

    /// A folder on the disk that is to be measured [default: that of temporary files]
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct Idle {
    /// Connections of each kind
    #[arg(long, value_name = "N", default_value_t = 2_000,
          value_parser = clap::value_parser!(u32).range(1..=9_000))]
    connections: u32,
}

#[derive(Debug, Args)]
struct Stuck {
    /// Clients that receive every post
    #[arg(long, value_name = "N", default_value_t = 1_000,
          value_parser = clap::value_parser!(u16).range(2..=2_000))]
    readers: u16,

    /// How many of them do not read; half, unless it is said
    #[arg(long = "stuck", value_name = "N",
          value_parser = clap::value_parser!(u16).range(1..=2_000))]
    not_reading: Option<u16>,

    /// How often each is measured
    #[arg(long, value_name = "N", default_value_t = 3,
          value_parser = clap::value_parser!(u8).range(1..=100))]
    rounds: u8,
}

#[derive(Debug, Args)]
struct Hostile {
    /// Try only inputs with this in their name, as the table shows it
    #[arg(long, value_name = "TEXT", default_value = "", value_parser = hostile::part_of_an_input)]
    only: String,

    /// How often each input is tried; those that take ten seconds are tried once
    #[arg(long, value_name = "N", default_value_t = 5,
          value_parser = clap::value_parser!(u8).range(1..=20))]
    rounds: u8,

    /// Users who talk
    #[arg(long, value_name = "N", default_value_t = 20,
          value_parser = clap::value_parser!(u16).range(2..=200))]
    users: u16,

    /// Messages a second, of all of them
    #[arg(long, value_name = "N", default_value_t = 100,
          value_parser = clap::value_parser!(u32).range(1..=1_000))]
    rate: u32,
}

#[derive(Debug, Args)]
struct Talk {
    /// Connections that say nothing
    #[arg(long, value_name = "N", default_value_t = 10_000,
          value_parser = clap::value_parser!(u16).range(1..=11_000))]
    idle: u16,

    /// How many of them are in a room
    #[arg(long, value_name = "N", default_value_t = 50,
          value_parser = clap::value_parser!(u16).range(1..=500))]
    idle_in_a_room: u16,

    /// People who talk
    #[arg(long, value_name = "N", default_value_t = 200,
          value_parser = clap::value_parser!(u16).range(2..=500))]
    talking: u16,

    /// How many rooms they are in
    #[arg(long, value_name = "N", default_value_t = 10,
          value_parser = clap::value_parser!(u16).range(1..=500))]
    rooms: u16,

    /// Messages a second, of all of them
    #[arg(long, value_name = "N", default_value_t = 200,
          value_parser = clap::value_parser!(u32).range(1..=2_000))]
    rate: u32,

    /// Bytes of a text
    #[arg(long, value_name = "N", default_value_t = 100,
          value_parser = clap::value_parser!(u16).range(10..=8_192))]
    text_bytes: u16,

    /// Seconds of a round
    #[arg(long, value_name = "N", default_value_t = 5,
          value_parser = clap::value_parser!(u8).range(1..=60))]
    seconds: u8,

    /// How often each is measured
    #[arg(long, value_name = "N", default_value_t = 5,
          value_parser = clap::value_parser!(u8).range(1..=20))]
    rounds: u8,

    /// A folder on the disk that is to be measured [default: that of temporary files]
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct Return {
    /// Clients that are connected when the server is killed
    #[arg(long, value_name = "N", default_value_t = 5_000,
          value_parser = clap::value_parser!(u16).range(2..=11_000))]
    clients: u16,

    /// How many of them are in a room
    #[arg(long, value_name = "N", default_value_t = 50,
          value_parser = clap::value_parser!(u16).range(1..=500))]
    in_a_room: u16,

    /// How many of them talk before and afterwards
    #[arg(long, value_name = "N", default_value_t = 100,
          value_parser = clap::value_parser!(u16).range(2..=500))]
    talking: u16,

    /// Messages a second, of all of these
    #[arg(long, value_name = "N", default_value_t = 100,
          value_parser = clap::value_parser!(u32).range(1..=2_000))]
    rate: u32,

    /// Seconds that they talk for
    #[arg(long, value_name = "N", default_value_t = 5,
          value_parser = clap::value_parser!(u8).range(1..=60))]
    seconds: u8,

    /// Seconds within which all have to be back
    #[arg(long, value_name = "N", default_value_t = 60,
          value_parser = clap::value_parser!(u8).range(1..=250))]
    within: u8,

    /// A folder on the disk that is to be measured [default: that of temporary files]
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct Ceiling {
    /// Where to listen
    #[arg(long, value_name = "URI")]
    listen: Address,

    /// Bytes of the texts that the frames are to be as long as
    #[arg(long, value_name = "N", default_value_t = 100)]
    text_bytes: u16,
}

/// Runs the program with the arguments of the process.
pub fn main() -> ExitCode {
    let outcome = match Options::parse() {
        Options::FanOut(options) => fan_out(&options),
        Options::Commits(options) => commits(&options),
        Options::History(options) => history(&options),
        Options::Idle(options) => idle(&options).map(|()| ExitCode::SUCCESS),
        Options::Stuck(options) => stuck(&options),
        Options::Hostile(options) => hostile(&options),
        Options::Talk(options) => talk(&options),
        Options::Return(options) => come_back(&options),
        Options::Ceiling(options) => ceiling(&options).map(|()| ExitCode::SUCCESS),
    };
    outcome.unwrap_or_else(|failure| {
        eprintln!("chat-bench: {failure}");
        ExitCode::FAILURE
    })
}

/// Says so when the figures will mean little.
fn warn_of_debug_build() {
    if cfg!(debug_assertions) {
        eprintln!("chat-bench: this is a debug build, its figures mean little: use --release");
    }
}

fn exit_code(met: bool) -> ExitCode {
    if met { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn commits(options: &Commits) -> Result<ExitCode, Failure> {
    warn_of_debug_build();
    let senders = if options.senders.is_empty() { vec![1, 100] } else { options.senders.clone() };
    let met = commits::run(&commits::Plan {
        senders: senders.into_iter().map(usize::from).collect(),
        rooms: if options.one_room { Rooms::One } else { Rooms::Own },
        text_bytes: options.text_bytes.into(),
        time: Duration::from_secs(options.seconds.into()),
        rounds: options.rounds.into(),
        folder: options.folder.clone().unwrap_or_else(std::env::temp_dir),
    })?;
    Ok(exit_code(met))
}

fn history(options: &History) -> Result<ExitCode, Failure> {
    warn_of_debug_build();
    let met = history::run(&history::Plan {
        messages: options.messages,
        text_bytes: options.text_bytes.into(),
        rounds: options.rounds.into(),
        folder: options.folder.clone().unwrap_or_else(std::env::temp_dir),
    })?;
    Ok(exit_code(met))
}

fn idle(options: &Idle) -> Result<(), Failure> {
    warn_of_debug_build();
    idle::run(&idle::Plan {
        connections: options.connections,
        transports: vec![Transport::Tcp, Transport::Tls],
    })
}

fn stuck(options: &Stuck) -> Result<ExitCode, Failure> {
    warn_of_debug_build();
    let readers = usize::from(options.readers);
    let stuck = options.not_reading.map_or(readers / 2, usize::from).min(readers - 1);
    let met = stuck::run(&stuck::Plan { readers, stuck, rounds: options.rounds.into() })?;
    Ok(exit_code(met))
}

fn hostile(options: &Hostile) -> Result<ExitCode, Failure> {
    warn_of_debug_build();
    let plan = hostile::Plan {
        only: options.only.clone(),
        rounds: options.rounds.into(),
        users: options.users.into(),
        rate: options.rate,
    };
    Ok(exit_code(hostile::run(&plan)?))
}

fn talk(options: &Talk) -> Result<ExitCode, Failure> {
    warn_of_debug_build();
    let met = talk::run(&talk::Plan {
        idle: options.idle.into(),
        idle_in_a_room: options.idle_in_a_room.into(),
        talking: options.talking.into(),
        rooms: options.rooms.min(options.talking).into(),
        pace: Pace { rate: options.rate, text_bytes: options.text_bytes.into() },
        time: Duration::from_secs(options.seconds.into()),
        rounds: options.rounds.into(),
        folder: options.folder.clone().unwrap_or_else(std::env::temp_dir),
    })?;
    Ok(exit_code(met))
}

fn come_back(options: &Return) -> Result<ExitCode, Failure> {
    warn_of_debug_build();
    let met = comeback::run(&comeback::Plan {
        clients: options.clients.into(),
        in_a_room: options.in_a_room.into(),
        talking: options.talking.min(options.clients).into(),
        pace: Pace { rate: options.rate, text_bytes: RETURN_TEXT_BYTES },
        time: Duration::from_secs(options.seconds.into()),
        aim: Duration::from_secs(options.within.into()),
        folder: options.folder.clone().unwrap_or_else(std::env::temp_dir),
    })?;
    Ok(exit_code(met))
}

fn fan_out(options: &FanOut) -> Result<ExitCode, Failure> {
    warn_of_debug_build();
    let met = fan_out::run(&Plan {
        receivers: options.receivers.into(),
        text_bytes: options.text_bytes.into(),
        transport: options.transport,
        rounds: options.rounds.into(),
        windows: fan_out::windows(&options.window, options.posts),
    })?;
    Ok(exit_code(met || !options.check))
}

fn ceiling(options: &Ceiling) -> Result<(), Failure> {
    let text: Body = frames::text(options.text_bytes.into())
        .parse()
        .map_err(|_| Failure::Protocol("a text is empty or too long"))?;
    let listener = Listener::bind(&options.listen)?;
    let address = listener.address(&options.listen)?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", json!({ "type": "listening", "url": address.to_string() }))?;
    out.flush()?;
    ceiling::serve(&listener, &text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn options_are_consistent() {
        Options::command().debug_assert();
    }
}
