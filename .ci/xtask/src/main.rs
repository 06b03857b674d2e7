//! `cargo xtask`: the checks that take longer than anybody waits for before a commit.
//!
//! Each command prints the commands that it runs, so that any of them can be repeated by hand.
#![forbid(unsafe_code)]

mod coverage;
mod mutants;
mod process;
mod soak;
mod table;

use std::process::ExitCode;

use clap::Parser;

use crate::process::{Failure, cargo_command, script};

/// Everything that has to hold, and the long figures. What each costs is said in CONTRIBUTING.md.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", after_help = EXIT_CODES)]
enum Command {
    /// Everything that has to hold before a change lands: runs .ci/run
    Ci,
    /// The long figures: simulator, real processes, fuzz targets and bench; then one table of all
    Soak(soak::Args),
    /// How many lines the tests reach, and the files with the most that they do not
    Coverage(coverage::Args),
    /// Changes the engine in hundreds of places and lists the changes that no simulated world notices
    Mutants(mutants::Args),
}

const EXIT_CODES: &str = "\
Exit codes: 0 all is well, 1 something failed, 2 usage. Coverage and surviving mutants are figures,
not failures.";

fn main() -> ExitCode {
    match run(&Command::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("cargo xtask: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: &Command) -> Result<(), Failure> {
    match command {
        Command::Ci => process::run(&mut script(".ci/run")),
        Command::Soak(args) => soak::run(args),
        Command::Coverage(args) => coverage::run(args),
        Command::Mutants(args) => mutants::run(args),
    }
}

/// Installs a subcommand of cargo unless it is there.
fn need_cargo_tool(name: &str) -> Result<(), Failure> {
    if process::works(cargo_command().args([name, "--version"])) {
        return Ok(());
    }
    let package = format!("cargo-{name}");
    println!("{package} is not installed yet; it is built now, which takes a few minutes");
    process::run(cargo_command().args(["install", "--locked", &package])).map_err(|failure| {
        Failure::new(format!("{failure}; install {package} by hand, then try again"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn options_are_consistent() {
        Command::command().debug_assert();
    }
}
