//! The client's program: see [`chat_client`].
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    chat_client::run(&chat_client::args::Args::parse()).into()
}
