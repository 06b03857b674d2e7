//! The `chat-server` program.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    chat_server::program::main()
}
