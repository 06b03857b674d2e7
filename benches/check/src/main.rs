//! `chat-check`: condemns what the contract forbids, from the clients' output alone.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use chat_check::{AfterKill, Judge};
use clap::Parser;

/// Judges what chat clients showed. Each FILE has the `--json` output of one user's client.
///
/// Posts must be spelt SENDER-NUMBER-ANYTHING, with SENDER-NUMBER as their id. Where a client was
/// killed and started again, its file has the line {"type":"killed"} between the runs.
#[derive(Debug, Parser)]
#[command(name = "chat-check", version, after_help = EXIT_CODES)]
struct Args {
    /// What clients wrote to stdout, one file a user
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,

    /// Condemn clients that say they are connected to another host, as its `listening` line has it
    #[arg(long, value_name = "URI")]
    server: Option<String>,

    /// Count records that a killed client shows again, but do not condemn them
    #[arg(long)]
    allow_repeats_after_kill: bool,
}

const EXIT_CODES: &str = "\
Exit codes: 0 clean, 1 condemned, 2 usage, or nothing to judge: no acknowledged post, no record.";

/// Exit status when there is nothing to judge.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let args = Args::parse();
    let mut judge = Judge::default();
    if let Some(server) = args.server {
        judge.expect_server(server);
    }
    for path in &args.files {
        if let Err(error) = read(&mut judge, path) {
            eprintln!("chat-check: {}: {error}", path.display());
            return USAGE.into();
        }
    }
    let after_kill = if args.allow_repeats_after_kill {
        AfterKill::MayShowAgain
    } else {
        AfterKill::ShowNothingAgain
    };
    let verdict = judge.verdict();
    print!("{verdict}");
    if !verdict.is_clean(after_kill) {
        println!("verdict: condemned");
        return ExitCode::FAILURE;
    }
    if verdict.acknowledged == 0 || verdict.records == 0 {
        println!("verdict: none");
        eprintln!("chat-check: there is nothing to judge: no acknowledged post, or no record");
        return USAGE.into();
    }
    println!("verdict: clean");
    ExitCode::SUCCESS
}

fn read(judge: &mut Judge, path: &Path) -> io::Result<()> {
    let name = path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy();
    judge.read(&name, BufReader::with_capacity(1 << 18, File::open(path)?))
}
