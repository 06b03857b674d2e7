//! `cargo xtask mutants`: what the simulator would not notice.

use std::fs;
use std::path::Path;

use crate::process::{self, Failure, cargo_command, code_of, root};

/// Where cargo-mutants leaves its results.
const RESULTS: &str = "target/xtask/mutants.out";

/// How cargo-mutants ends after it tried everything: all caught, some missed, some without end.
const TRIED: [Option<i32>; 3] = [Some(0), Some(2), Some(3)];

/// How many worlds the test of the simulator runs.
const WORLDS: &str = "CHAT_SIM_SEEDS";

/// The test that runs them.
const WORLDS_TEST: &str = "every_rule_holds_in_every_world";

/// How long the worlds of one change may take before it counts as one that never ends.
const TEST_SECONDS: &str = "180";

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Only the simulator judges: what the tests of chatcore catch besides does not count. A change that
survives a few worlds may be caught in many; try only the survivors again with:

    cargo xtask mutants --iterate --worlds 2000

Results: target/xtask/mutants.out (caught.txt, missed.txt, and a log of each). What is left out, and
why: .cargo/mutants.toml. The survivors that were looked at: chatcore/sim/SURVIVORS.md.")]
pub(crate) struct Args {
    /// How many worlds a change has to survive
    #[arg(long, default_value_t = 100)]
    worlds: u64,

    /// Only one part of all changes, spread evenly: 0/8 is the first of eight
    #[arg(long, value_name = "K/N")]
    shard: Option<String>,

    /// Leave out what was caught before
    #[arg(long)]
    iterate: bool,

    /// How many changes are tried at once; each has a target folder of its own
    #[arg(long, default_value_t = 2)]
    jobs: u8,

    /// More for cargo mutants, after `--`: `-- --re 'Engine::decide_post'`, `-- --list`
    #[arg(last = true, value_name = "OPTIONS")]
    more: Vec<String>,
}

impl Args {
    fn is_list(&self) -> bool {
        self.more.iter().any(|option| option == "--list")
    }
}

/// Sees whether the worlds hold before anything is changed.
fn check_unchanged(args: &Args) -> Result<(), Failure> {
    let mut command = cargo_command();
    command.args(["test", "-p", "chat-sim", "--test", "worlds", "--profile", "mutants"]);
    command.env(WORLDS, args.worlds.to_string());
    process::run(&mut command)
}

/// Tries the changes and tells how many were noticed.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    crate::need_cargo_tool("mutants")?;
    if !args.is_list() {
        check_unchanged(args)?;
    }
    let mut command = cargo_command();
    command.args(["mutants", "-p", "chatcore", "--file", "chatcore/src/engine/**"]);
    command.args(["--test-package", "chat-sim", "--profile", "mutants", "-o", "target/xtask"]);
    // It would build the tests of chatcore to see whether they pass before any change.
    command.args(["--baseline", "skip", "--timeout", TEST_SECONDS]);
    command.args(["--jobs", &args.jobs.to_string()]);
    if let Some(shard) = &args.shard {
        command.args(["--sharding", "round-robin", "--shard", shard]);
    }
    if args.iterate {
        command.arg("--iterate");
    }
    // Not after `--`: every other test would then be built, too, each time.
    command.arg("--cargo-arg=--test=worlds");
    // The others there would take the longer time of both.
    command.args(["--cargo-test-arg", WORLDS_TEST]).args(&args.more);
    command.env(WORLDS, args.worlds.to_string());
    let folder = root().join("target/xtask");
    fs::create_dir_all(&folder)
        .map_err(|error| Failure::new(format!("cannot make {}: {error}", folder.display())))?;
    let code = code_of(&mut command)?;
    if !TRIED.contains(&code) {
        return Err(Failure::new("cargo mutants did not get to its end; see above"));
    }
    if !args.is_list() {
        tell(&root().join(RESULTS));
    }
    Ok(())
}

fn tell(results: &Path) {
    let count =
        |name: &str| fs::read_to_string(results.join(name)).map_or(0, |text| text.lines().count());
    let (caught, missed) = (count("caught.txt"), count("missed.txt"));
    let (endless, unviable) = (count("timeout.txt"), count("unviable.txt"));
    let (noticed, all) = (caught + endless, caught + endless + missed);
    let score = (noticed * 100).checked_div(all).unwrap_or(0);
    println!("\n{noticed} of {all} changes are noticed: {score} %");
    println!("{caught} break a rule, {endless} never end, {missed} survive: {RESULTS}/missed.txt");
    println!("{unviable} more do not compile");
}
