//! `chat-soak`: many real clients talk through a network that breaks at random, some of them are
//! killed, the room is reset, and `chat-check` judges what they showed.
//!
//! Everything is real but the network: the server and the clients are the programs as they are
//! built, and [`proxy`] stands between them. The seed decides which faults come in which order;
//! what they hit depends on the machine, so a seed repeats the plan of a run and not the run.

#![forbid(unsafe_code)]

mod args;
mod board;
mod chaos;
mod client;
mod feed;
mod programs;
mod proxy;
mod run;
mod server;
mod verdict;

use std::process::ExitCode;

use clap::Parser as _;
use tokio::signal::unix::{SignalKind, signal};

use crate::args::Args;
use crate::run::{Failure, run};

fn main() -> ExitCode {
    let args = Args::parse();
    println!("seed {}", args.seed());
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&Failure::Start("the runtime", error)),
    };
    match runtime.block_on(run_unless_stopped(&args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => fail(&failure),
    }
}

/// Every process that was started ends when its future is dropped.
async fn run_unless_stopped(args: &Args) -> Result<(), Failure> {
    let listen = |kind| signal(kind).map_err(|error| Failure::Start("listening to signals", error));
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    tokio::select! {
        result = run(args) => result,
        _ = interrupt.recv() => Err(Failure::Interrupted),
        _ = terminate.recv() => Err(Failure::Interrupted),
    }
}

fn fail(failure: &Failure) -> ExitCode {
    eprintln!("chat-soak: {failure}");
    ExitCode::FAILURE
}
