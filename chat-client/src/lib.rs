//! The chat's terminal program: [`chatcore::client`] between a socket and a person or a script.
//!
//! The state machine in `chatcore` decides everything about the conversation; this crate dials,
//! keeps the key and the outbox, reads lines and shows events. [`driver`] is the middle of it,
//! everything else is an edge: [`link`] and [`tls`] the socket, [`store`], [`identity`] and [`known`] the
//! files, [`input`] and [`terminal`] the keyboard, [`screen`] and [`output`] the lines.

#![forbid(unsafe_code)]

pub mod args;
pub mod driver;
pub mod identity;
pub mod input;
pub mod known;
pub mod link;
pub mod output;
pub mod screen;
pub mod signals;
pub mod store;
pub mod terminal;
pub mod tls;

use std::process::ExitCode;

use chatcore::text::UserName;
use chatcore::wire::{NameFault, Refusal};

use crate::args::{Args, Mode};
use crate::driver::{Driver, Ended, Surroundings};
use crate::input::{Source, Typing};
use crate::output::{Audience, ErrorReport, Printer, help};
use crate::screen::{Screen, to_stdout};
use crate::signals::Signals;
use crate::terminal::Terminal;

/// How the program ends; the codes are a contract with scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0: all is well.
    Done,
    /// 1: this machine cannot go on, or nobody reads the output any more.
    Failure,
    /// 2: the command line makes no sense.
    Usage,
    /// 3: no connection.
    Network,
    /// 4: the server refused the user, or another client uses the identity.
    Refused,
    /// 5: not everything was acknowledged in time.
    Unacknowledged,
    /// 130: SIGINT.
    Interrupted,
}

impl Exit {
    /// The exit code.
    pub const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failure => 1,
            Self::Usage => 2,
            Self::Network => 3,
            Self::Refused => 4,
            Self::Unacknowledged => 5,
            Self::Interrupted => 130,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        exit.code().into()
    }
}

/// Runs the program to its end.
pub fn run(args: &Args) -> Exit {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return complain(Exit::Failure, &error),
    };
    let exit = runtime.block_on(talk(args));
    // A thread may be waiting for a line that never comes.
    runtime.shutdown_background();
    exit
}

/// Conversations under one name after the other, until one is accepted and ends.
async fn talk(args: &Args) -> Exit {
    if args.name.is_none() && args.mode() != Mode::Terminal {
        return complain(Exit::Usage, &"a name is needed: --name NAME");
    }
    let mut around = match surroundings(args) {
        Ok(around) => around,
        Err(error) => return complain(Exit::Failure, &error),
    };
    let printer = Printer::new(args.mode(), args.color(), &args.address);
    if args.mode() == Mode::Terminal {
        printer.notice(WELCOME, around.screen.lines());
        printer.notice(&help(Audience::Everybody), around.screen.lines());
        around.screen.show();
    }
    let mut wish = args.name.clone();
    loop {
        let name = match wish.take() {
            Some(text) => text,
            None => match ask_name(&mut around).await {
                Ok(text) => text,
                Err(exit) => return exit,
            },
        };
        let ended = match name.trim().parse::<UserName>() {
            Ok(name) => match Driver::new(args, name, &mut around) {
                Ok(driver) => driver.run().await,
                Err(error) => return complain(Exit::Failure, &error),
            },
            Err(error) => {
                let refusal = Refusal::Name(NameFault::Bad(error));
                refuse(&printer, &refusal, &mut around).await;
                Ended::NameRefused(NameFault::Bad(error))
            }
        };
        match ended {
            Ended::Exit(exit) => return exit,
            Ended::NameRefused(_) if args.mode() != Mode::Terminal => return Exit::Refused,
            Ended::NameRefused(_) => {}
        }
    }
}

const WELCOME: &str = "Type a line and press enter to post it; these are the commands:";

/// Prints why a name cannot be had. In a script it is the last line.
async fn refuse(printer: &Printer, refusal: &Refusal, around: &mut Surroundings) {
    let report = ErrorReport::of_refusal(refusal, None);
    printer.error(&report, around.screen.lines());
    while !around.screen.is_idle() {
        around.screen.show();
        if around.screen.shown().await.is_err() {
            // A screen that is gone ends the next conversation, or this program anyway.
            return;
        }
    }
}

async fn ask_name(around: &mut Surroundings) -> Result<String, Exit> {
    loop {
        around.screen.show();
        let typed = tokio::select! {
            typed = around.source.ask_name() => typed,
            signal = around.signals.next() => return Err(signal.exit()),
            _written = around.screen.shown() => continue,
        };
        match typed {
            Typing::Line { line: Ok(name), .. } => return Ok(name),
            Typing::Line { line: Err(_), .. } => {}
            Typing::End => return Err(Exit::Done),
            Typing::Interrupt => return Err(Exit::Interrupted),
        }
    }
}

fn surroundings(args: &Args) -> Result<Surroundings, Box<dyn std::error::Error>> {
    let (source, write) = match args.mode() {
        Mode::Terminal => {
            let (terminal, write) = Terminal::start()?;
            (Source::terminal(terminal), write)
        }
        Mode::Plain | Mode::Json => (Source::stdin(), to_stdout()),
    };
    Ok(Surroundings { source, screen: Screen::start(write)?, signals: Signals::listen()? })
}

fn complain(exit: Exit, error: &dyn std::fmt::Display) -> Exit {
    eprintln!("chat-client: {error}");
    exit
}
