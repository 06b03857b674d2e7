//! Runs worlds from seeds.
#![forbid(unsafe_code)]

use std::io::{IsTerminal, Write, stderr, stdout};
use std::num::NonZeroUsize;
use std::process::{ExitCode, exit};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use chat_sim::broken::Broken;
use chat_sim::marks::Mark;
use chat_sim::moving::{self, Bounds};
use chat_sim::off::Off;
use chat_sim::panics::keep_quiet;
use chat_sim::plan::Plan;
use chat_sim::runner::{Batch, Summary, run_many, shrink_failure};
use chat_sim::watchdog::{self, Pulse, Seen, Watch};
use chat_sim::world::run_watched;
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, value_parser};
use indicatif::{ProgressBar, ProgressStyle};

/// Why there is nothing to switch off.
const NO_MUTANTS: &str = "nothing can be switched off: build with RUSTFLAGS='--cfg chat_mutants'";

/// Runs whole chat worlds from seeds, and checks every rule after every step.
#[derive(Debug, Parser)]
#[command(name = "chat-sim", version)]
#[expect(clippy::struct_excessive_bools, reason = "they are flags")]
struct Args {
    /// Replay one world and tell what happened in it.
    #[arg(long, conflicts_with_all = ["seeds", "first", "threads", "marks", "list_marks",
          "keep_going"])]
    seed: Option<u64>,
    /// Tell everything that happens, also when nothing fails.
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Show a failure as it is, without looking for a smaller one.
    #[arg(long, conflicts_with = "keep_going")]
    no_shrink: bool,
    /// Run so many worlds.
    #[arg(long, default_value_t = 1_000, value_parser = value_parser!(u64).range(1..))]
    seeds: u64,
    /// The seed of the first of them; the last one is below 2^64.
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// How many worlds run at once; default: one for each core.
    #[arg(long)]
    threads: Option<NonZeroUsize>,
    /// Fail when a situation was reached less often.
    #[arg(long, default_value_t = 0, value_name = "TIMES")]
    marks: u64,
    /// List how often each situation was reached, and what it is about.
    #[arg(long)]
    list_marks: bool,
    /// Go on after a failure, and list all.
    #[arg(long)]
    keep_going: bool,
    /// Run with one rule of chatcore switched off. Needs a build like `--mutants`.
    #[arg(long, value_name = "NAME", conflicts_with = "mutants")]
    mutant: Option<String>,
    /// Switch off one rule of chatcore after the other, and fail unless each is caught within as
    /// many worlds as `--seeds` says. Needs a build with
    /// `RUSTFLAGS='--cfg chat_mutants'`.
    #[arg(long, conflicts_with = "seed")]
    mutants: bool,
    /// Visit every state of processes that hand a chat to each other, with so many changes of the record,
    /// instead of running worlds.
    #[arg(long, value_name = "CHANGES", conflicts_with_all = ["seed", "mutants"])]
    moves: Option<usize>,
    /// People who say something meanwhile.
    #[arg(long, default_value_t = 2, requires = "moves")]
    people: u8,
    /// Processes that die for good meanwhile, each replaced by one that has nothing.
    #[arg(long, default_value_t = 0, requires = "moves", value_parser = clap::value_parser!(u8).range(..=1))]
    deaths: u8,
    /// How often a process ends meanwhile and comes back with what it had stored.
    #[arg(long, default_value_t = 0, requires = "moves")]
    returns: u8,
    /// The state of a process may become another one than its entries say.
    #[arg(long, requires = "moves")]
    differs: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let off = match args.mutant.as_deref().map_or(Ok(Off::default()), named) {
        Ok(off) => off,
        Err(why) => Args::command().error(ErrorKind::InvalidValue, why).exit(),
    };
    keep_quiet();
    let watch = Arc::<Watch>::default();
    watch_over(Arc::clone(&watch));
    let result = match args.seed {
        Some(seed) => replay(&args, off, seed, &watch.pulse()),
        None if args.moves.is_some() => visit_moves(&args, off),
        None if args.mutants => prove_checkers(&args, &watch),
        None => run_batch(&args, off, &watch),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) | Err(_) => ExitCode::FAILURE,
    }
}

/// The rule of a name, switched off.
fn named(name: &str) -> Result<Off, String> {
    if let Some((off, _)) = Off::all().find(|(_, other)| *other == name) {
        return Ok(off);
    }
    let names: Vec<&str> = Off::all().map(|(_, name)| name).collect();
    if names.is_empty() {
        return Err(NO_MUTANTS.to_owned());
    }
    Err(format!("there is no mutant {name:?}; there are {}", names.join(", ")))
}

/// Visits every state of a chat that moves.
fn visit_moves(args: &Args, off: Off) -> std::io::Result<bool> {
    let (changes, people) = (args.moves.unwrap_or_default(), args.people);
    let Args { deaths, returns, differs, .. } = *args;
    let bounds = Bounds { people, changes, deaths, returns, differs };
    let begun = Instant::now();
    let found = moving::check(bounds, off, threads(args));
    writeln!(stdout(), "{found} ({:.1} s)", begun.elapsed().as_secs_f64())?;
    Ok(found.is_well())
}

/// Looks from time to time whether every world goes on.
fn watch_over(watch: Arc<Watch>) {
    let (begun, mut seen) = (Instant::now(), Seen::default());
    thread::spawn(move || {
        loop {
            thread::sleep(Duration::from_secs(1));
            if let Some(sign) = seen.look(begun.elapsed(), &watch.signs()) {
                // Nothing can be done about an error of the terminal.
                let _ = writeln!(stderr(), "{}", watchdog::tell(sign));
                exit(1);
            }
        }
    });
}

fn threads(args: &Args) -> usize {
    let cores = || thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    args.threads.unwrap_or_else(cores).get()
}

/// Switches off each rule in turn: a simulator that finds nothing then has not been shown to work.
fn prove_checkers(args: &Args, watch: &Watch) -> std::io::Result<bool> {
    let mut out = stdout().lock();
    let (first, count, threads) = (args.first, args.seeds, threads(args));
    let (mut caught, mut all) = (0, 0);
    for (off, name) in Off::all() {
        all += 1;
        if off.is_of_migration() {
            let found = moving::refute(off, threads);
            let rule = found.broken.map(|(rule, _)| rule);
            caught += u64::from(rule.is_some());
            match rule {
                Some(rule) => {
                    writeln!(out, "caught after {} states: {name}: {rule}", found.states)?;
                }
                None => writeln!(out, "NOT CAUGHT in {} states: {name}", found.states)?,
            }
            continue;
        }
        let batch = Batch { first, count, threads, stops_at_failure: true, off };
        let summary = run_many(batch, watch, |_| {});
        let seeds = summary.seeds;
        match summary.failures.first() {
            Some((seed, broken)) => {
                caught += 1;
                writeln!(
                    out,
                    "caught after {seeds:>4} worlds: {name}: seed {seed}: {}",
                    broken.rule
                )?;
                writeln!(out, "    {}", off.replay(*seed))?;
            }
            None => writeln!(out, "NOT CAUGHT in {seeds} worlds: {name}")?,
        }
    }
    if all == 0 {
        writeln!(out, "{NO_MUTANTS}")?;
        return Ok(false);
    }
    writeln!(out, "{caught} of {all} mutants caught within {count} worlds each")?;
    Ok(caught == all)
}

fn replay(args: &Args, off: Off, seed: u64, pulse: &Pulse) -> std::io::Result<bool> {
    let mut out = stdout().lock();
    let plan = Plan::draw(seed);
    writeln!(out, "seed {seed}\n{:#?}", plan.options)?;
    let mut told = Ok(());
    let mut tell = |line: String| {
        if told.is_ok() {
            told = writeln!(out, "{line}");
        }
    };
    let outcome = run_watched(&plan, off, args.trace.then_some(&mut tell), pulse);
    told?;
    let Some(broken) = outcome.broken else {
        let (steps, digest) = (outcome.steps, outcome.digest);
        writeln!(out, "seed {seed}: {steps} steps, digest {digest:016x}, every rule held")?;
        return Ok(true);
    };
    if args.no_shrink {
        writeln!(out, "seed {seed} breaks a rule after {} steps: {broken}", outcome.steps)?;
        return Ok(false);
    }
    tell_failure(&mut out, off, &plan, &broken, pulse)?;
    Ok(false)
}

/// Tells the shortest story of a failure that can be found, after the options of its world.
fn tell_failure(
    out: &mut impl Write,
    off: Off,
    plan: &Plan,
    broken: &Broken,
    pulse: &Pulse,
) -> std::io::Result<()> {
    let small = shrink_failure(plan, off, broken, pulse);
    let mut world = Vec::new();
    let mut tell = |line| world.push(line);
    let outcome = run_watched(&small, off, Some(&mut tell), pulse);
    writeln!(out, "\nThe world can be simpler:")?;
    for line in small.options.differences(&plan.options) {
        writeln!(out, "{line}")?;
    }
    writeln!(out, "\n{} of {} actions are enough:", small.actions.len(), plan.actions.len())?;
    for action in &small.actions {
        writeln!(out, "{:>8} {}", action.at, small.tell(action.deed))?;
    }
    writeln!(out, "\nWhat happened:")?;
    let skipped = world.len().saturating_sub(300);
    if skipped > 0 {
        writeln!(out, "({skipped} lines before: with --trace all is told)")?;
    }
    for line in world.drain(skipped..) {
        writeln!(out, "{line}")?;
    }
    let now = outcome.broken.as_ref().unwrap_or(broken);
    writeln!(out, "\nseed {} breaks a rule: {now}", plan.seed)?;
    writeln!(out, "replay: {}", off.replay(plan.seed))
}

fn run_batch(args: &Args, off: Off, watch: &Watch) -> std::io::Result<bool> {
    let (first, count, threads) = (args.first, args.seeds, threads(args));
    let Some(last) = first.checked_add(count - 1) else {
        writeln!(stderr(), "chat-sim: there are no {count} seeds from {first} on")?;
        return Ok(false);
    };
    writeln!(stdout(), "seeds {first} to {last}, {threads} at once")?;
    let bar = progress_bar(count);
    let begun = Instant::now();
    let stops_at_failure = !args.keep_going;
    let batch = Batch { first, count, threads, stops_at_failure, off };
    let summary = run_many(batch, watch, |_| bar.inc(1));
    bar.finish_and_clear();
    let seconds = begun.elapsed().as_secs_f64();
    let well = report(args, &summary, seconds, threads)?;
    if let Some((seed, broken)) = summary.failures.first()
        && !args.keep_going
        && !args.no_shrink
    {
        let (mut out, plan) = (stdout().lock(), Plan::draw(*seed));
        writeln!(out, "{:#?}", plan.options)?;
        tell_failure(&mut out, off, &plan, broken, &watch.pulse())?;
    }
    Ok(well)
}

fn progress_bar(count: u64) -> ProgressBar {
    if !stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} worlds, {eta} left");
    ProgressBar::new(count).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn report(args: &Args, summary: &Summary, seconds: f64, threads: usize) -> std::io::Result<bool> {
    let mut out = stdout().lock();
    let Summary { seeds, steps, digest, marks, failures } = summary;
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    let rate = *steps as f64 / seconds / threads as f64;
    writeln!(out, "{seeds} worlds, {steps} steps in {seconds:.1} s: {rate:.0} a second and core")?;
    writeln!(out, "digest of all: {digest:016x}")?;
    if args.list_marks {
        for mark in Mark::ALL {
            let kinds: Vec<&str> = mark.kinds().iter().map(|kind| kind.name()).collect();
            writeln!(out, "{:>10} {mark} ({})", marks.count(*mark), kinds.join(" and "))?;
        }
    }
    let missing: Vec<Mark> = marks.rarer_than(args.marks).collect();
    for mark in &missing {
        let count = marks.count(*mark);
        writeln!(out, "too rare: {mark}, reached {count} of {} times", args.marks)?;
    }
    for (seed, broken) in failures {
        writeln!(out, "seed {seed} breaks a rule: {broken}")?;
    }
    Ok(failures.is_empty() && missing.is_empty())
}
