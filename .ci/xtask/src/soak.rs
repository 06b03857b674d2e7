//! `cargo xtask soak`: the long figures.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::value_parser;

use crate::process::{Failure, cargo_command, root, run as run_command, script, shown, watch};
use crate::table::{Row, table};

/// Worlds that are run first, to see how many fit into the time.
const WORLDS_TRIED: u64 = 1_000;

/// How often each named situation has to come up, at least, in so many worlds.
const MARKS_MIN: &str = "10";
const WORLDS_FOR_MARKS: u64 = 20_000;

/// How long the simulator, and the fuzz targets together, run at least.
const SHARE_MIN: Duration = Duration::from_mins(2);

/// How many fuzz targets `.ci/fuzz` runs at once.
const FUZZED_AT_ONCE: u32 = 2;

/// Posts that are answered between two kills of a server.
const POSTS_A_LIFE: u64 = 3_000;

/// Clients that are killed between two kills of a server.
const CLIENTS_A_LIFE: u64 = 4;

/// Where the table is left.
const TABLE: &str = "target/xtask/soak.txt";

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Builds come first, and are not counted. The runs of real processes and the bench take about a quarter
of an hour, with the usual number of kills; simulator and fuzz targets share the rest. Nothing stops at
a failure: the table at the end shows everything, and is left in target/xtask/soak.txt.")]
pub(crate) struct Args {
    /// How long it all may take, in minutes
    #[arg(long, default_value_t = 60, value_parser = value_parser!(u32).range(10..=10_000))]
    minutes: u32,

    /// How often a server is killed under load and started again; about a second each
    #[arg(long, default_value_t = 300, value_parser = value_parser!(u32).range(1..=100_000))]
    server_kills: u32,

    /// The seed of everything, as an earlier run printed it [default: of the clock]
    #[arg(long)]
    seed: Option<u64>,
}

/// Runs everything, however much of it fails.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let seed = args.seed.unwrap_or_else(seed_of_clock);
    println!("seed {seed}: `cargo xtask soak --seed {seed}` draws the same worlds");
    build()?;
    let end = Instant::now() + Duration::from_mins(1) * args.minutes;
    let mut rows = vec![
        soak_of_processes("real processes", &mut soak_command(seed, false))?,
        soak_of_processes("a server that forgets", &mut soak_command(seed, true))?,
        soak_of_processes("a server that is killed", &mut kills_command(seed, args.server_kills))?,
        rules_switched_off(seed)?,
        bench()?,
    ];
    let left = end.saturating_duration_since(Instant::now());
    rows.extend(worlds(seed, (left / 2).max(SHARE_MIN))?);
    let left = end.saturating_duration_since(Instant::now());
    rows.extend(fuzz(left.max(SHARE_MIN))?);
    conclude(&rows)
}

/// Microseconds since 1970: the worlds of two runs overlap only when both begin at once.
fn seed_of_clock() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or_default()
}

fn build() -> Result<(), Failure> {
    run_command(cargo_command().args(["build", "--release", "--workspace"]))?;
    let mut mutants = cargo_command();
    mutants.args(["build", "--release", "-p", "chat-server", "-p", "chat-sim"]);
    mutants.args(["--target-dir", "target/mutants"]);
    run_command(mutants.env("RUSTFLAGS", "--cfg chat_mutants"))?;
    crate::need_cargo_tool("fuzz")?;
    run_command(cargo_command().args(["+nightly", "fuzz", "build", "--fuzz-dir", "fuzz"]))
}

/// Two hundred clients; with a server that forgets what it answered, the judge has to notice.
fn soak_command(seed: u64, forgets: bool) -> Command {
    let mut command = script("target/release/chat-soak");
    command.args(["--clients", "200", "--senders", "20", "--posts", "20000", "--timeout", "900"]);
    command.args(["--seed", &seed.to_string()]);
    if forgets {
        let server = root().join("target/mutants/release/chat-server");
        command.args(["--expect", "condemned", "--server"]).arg(server);
        command.env("CHAT_MUTANT", "no-dedupe");
    }
    command
}

/// A server that is killed again and again while many posts are under way; clients are killed, too.
fn kills_command(seed: u64, kills: u32) -> Command {
    let mut command = script("target/release/chat-soak");
    let posts = u64::from(kills).saturating_mul(POSTS_A_LIFE).max(1);
    command.args(["--clients", "12", "--senders", "10", "--posts", &posts.to_string()]);
    // More than they can send, so that each life ends in the middle of a burst.
    command.args(["--posts-per-second", "4000", "--faults-per-second", "0", "--resets", "0"]);
    command.args(["--server-kills", &kills.to_string(), "--timeout", "3600"]);
    command.args(["--kills", &u64::from(kills).saturating_mul(CLIENTS_A_LIFE).to_string()]);
    command.args(["--seed", &seed.to_string()]);
    command
}

fn soak_of_processes(name: &str, command: &mut Command) -> Result<Row, Failure> {
    row(name, command, |lines| {
        let marks =
            ["verdict: ", "lost: ", "doubled: ", "reordered: ", "acknowledgements", "was killed"];
        told(lines, &[&marks[..], &["posts a second"]].concat())
    })
}

/// Lacking one rule, worlds have to break.
fn rules_switched_off(first: u64) -> Result<Row, Failure> {
    let mut command = script("target/mutants/release/chat-sim");
    command.args(["--mutants", "--seeds", "5000", "--first", &first.to_string()]);
    row("rules switched off", &mut command, |lines| told(lines, &["mutants caught", "NOT CAUGHT"]))
}

/// The lines that say one of these.
fn told(lines: &[String], marks: &[&str]) -> String {
    let told = lines.iter().filter(|line| marks.iter().any(|mark| line.contains(mark)));
    told.map(|line| line.trim()).collect::<Vec<_>>().join("; ")
}

fn bench() -> Result<Row, Failure> {
    let mut command = script("target/release/chat-bench");
    row("fan-out beside bare epoll", command.arg("fan-out"), figure_of_bench)
}

/// The medians: nanoseconds of the server and of bare epoll, and the one over the other.
fn figure_of_bench(lines: &[String]) -> String {
    let medians = lines.iter().skip_while(|line| !line.starts_with("medians")).skip(2);
    let told = medians.filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [window, server, ceiling, ratio, ..] = *words else { return None };
        Some(format!("window {window}: {server} over {ceiling} ns = {ratio}"))
    });
    told.collect::<Vec<_>>().join("; ")
}

/// Runs a command and makes a row of what it printed.
fn row(
    name: &str,
    command: &mut Command,
    figure: impl FnOnce(&[String]) -> String,
) -> Result<Row, Failure> {
    println!("\n== {name}");
    let began = Instant::now();
    let (lines, result) = watch(command)?;
    Ok(Row {
        name: name.to_owned(),
        figure: figure(&lines),
        well: result.is_ok(),
        took: began.elapsed(),
        command: shown(command),
    })
}

/// A few worlds to see how quick they are, then as many as fit into the time.
fn worlds(seed: u64, time: Duration) -> Result<Vec<Row>, Failure> {
    let first = row("worlds", &mut worlds_command(seed, WORLDS_TRIED), figure_of_worlds)?;
    let left = time.saturating_sub(first.took);
    let count = worlds_in(left, first.took);
    if count == 0 || !first.well {
        return Ok(vec![first]);
    }
    let mut command = worlds_command(seed.saturating_add(WORLDS_TRIED), count);
    if count >= WORLDS_FOR_MARKS {
        command.args(["--marks", MARKS_MIN]);
    }
    let rest = row("more worlds", &mut command, figure_of_worlds)?;
    Ok(vec![first, rest])
}

/// How many worlds fit into a time, after some took so long.
fn worlds_in(time: Duration, took: Duration) -> u64 {
    let count = time.as_millis().saturating_mul(u128::from(WORLDS_TRIED));
    let count = count.checked_div(took.as_millis()).unwrap_or_default();
    u64::try_from(count).unwrap_or(u64::MAX)
}

fn worlds_command(first: u64, count: u64) -> Command {
    let mut command = script("target/release/chat-sim");
    command.args(["--first", &first.to_string(), "--seeds", &count.to_string()]);
    command
}

fn figure_of_worlds(lines: &[String]) -> String {
    told(lines, &[" worlds, ", "breaks a rule", "too rare"])
}

/// Every fuzz target for its share of the time.
fn fuzz(time: Duration) -> Result<Vec<Row>, Failure> {
    let targets = fuzz_targets()?;
    let count = u32::try_from(targets.len().max(1)).unwrap_or(u32::MAX);
    let seconds = (time * FUZZED_AT_ONCE / count).as_secs().to_string();
    let began = Instant::now();
    println!("\n== fuzz targets, {seconds} s each");
    let (lines, result) = watch(script(".ci/fuzz").arg(&seconds))?;
    let took = began.elapsed() * FUZZED_AT_ONCE / count;
    let rows = targets.iter().map(|target| {
        let told = lines.iter().find_map(|line| figure_of_target(line, target));
        Row {
            name: format!("fuzz target {target}"),
            well: told.as_ref().is_some_and(|figure| figure != "FAILED"),
            figure: told.unwrap_or_else(|| "nothing was told of it".to_owned()),
            took,
            command: format!(".ci/fuzz {target} {seconds}"),
        }
    });
    let mut rows: Vec<Row> = rows.collect();
    if let Err(failure) = result {
        let (name, figure) = ("fuzzing".to_owned(), failure.to_string());
        let (took, command) = (began.elapsed(), format!(".ci/fuzz {seconds}"));
        rows.push(Row { name, figure, well: false, took, command });
    }
    Ok(rows)
}

/// What `.ci/fuzz` says about a target, if this line does.
fn figure_of_target(line: &str, target: &str) -> Option<String> {
    let rest = line.strip_prefix("fuzz target ")?.strip_prefix(target)?;
    let rest = rest.strip_prefix([' ', ':'])?;
    Some(rest.trim().to_owned())
}

fn fuzz_targets() -> Result<Vec<String>, Failure> {
    let folder = root().join("fuzz/fuzz_targets");
    let unread = |error| Failure::new(format!("cannot read {}: {error}", folder.display()));
    let mut targets = Vec::new();
    for entry in fs::read_dir(&folder).map_err(unread)? {
        let name = entry.map_err(unread)?.file_name().to_string_lossy().into_owned();
        targets.extend(name.strip_suffix(".rs").map(str::to_owned));
    }
    targets.sort();
    Ok(targets)
}

fn conclude(rows: &[Row]) -> Result<(), Failure> {
    let text = table(rows);
    println!("\n{text}");
    let path = root().join(TABLE);
    let folder = path.parent().unwrap_or(&path);
    let written = fs::create_dir_all(folder).and_then(|()| fs::write(&path, &text));
    written.map_err(|error| Failure::new(format!("cannot write {TABLE}: {error}")))?;
    match rows.iter().filter(|row| !row.well).count() {
        0 => Ok(()),
        failed => Err(Failure::new(format!("{failed} of {} failed; see above", rows.len()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_of_a_target_is_found() {
        let line = "fuzz target name               1000 inputs in 25 s";
        assert_eq!(figure_of_target(line, "name").as_deref(), Some("1000 inputs in 25 s"));
        assert_eq!(figure_of_target("fuzz target name: FAILED", "name").as_deref(), Some("FAILED"));
        assert_eq!(figure_of_target(line, "nam"), None);
    }

    #[test]
    fn medians_of_the_bench_are_found() {
        let lines = ["window round", "256 1 server 76.2", "", "medians"].map(str::to_owned);
        let more =
            ["window    server   ceiling     ratio       aim", "256  73.8  21.8  3.23  9.99"];
        let lines = [&lines[..], &more.map(str::to_owned)[..]].concat();
        assert_eq!(figure_of_bench(&lines), "window 256: 73.8 over 21.8 ns = 3.23");
    }

    #[test]
    fn worlds_fill_the_time() {
        let second = Duration::from_secs(1);
        assert_eq!(worlds_in(second * 60, second * 20), 3 * WORLDS_TRIED);
        assert_eq!(worlds_in(Duration::ZERO, second), 0);
        assert_eq!(worlds_in(second, Duration::ZERO), 0);
    }

    #[test]
    fn every_fuzz_target_is_found() {
        assert!(fuzz_targets().unwrap().contains(&"frame".to_owned()));
    }
}
