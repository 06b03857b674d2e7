//! Runs worlds from seeds.
#![forbid(unsafe_code)]

use std::io::{IsTerminal, Write, stderr, stdout};
use std::process::ExitCode;
use std::time::Instant;

use chat_sim::broken::Broken;
use chat_sim::marks::Mark;
use chat_sim::plan::Plan;
use chat_sim::runner::{Batch, Summary, run, run_many, shrink};
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};

/// Runs whole chat worlds from seeds, and checks every rule after every step.
#[derive(Debug, Parser)]
#[command(name = "chat-sim", version)]
struct Args {
    /// Replay one world and tell what happened in it.
    #[arg(long, conflicts_with_all = ["seeds", "first"])]
    seed: Option<u64>,
    /// Tell everything that happens, also when nothing fails.
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Show a failure as it is, without looking for a smaller one.
    #[arg(long)]
    no_shrink: bool,
    /// Run so many worlds.
    #[arg(long, default_value_t = 1_000)]
    seeds: u64,
    /// The seed of the first of them.
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// How many worlds run at once; default: one for each core.
    #[arg(long)]
    threads: Option<usize>,
    /// Fail when a situation was reached less often.
    #[arg(long, default_value_t = 0, value_name = "TIMES")]
    marks: u64,
    /// List how often each situation was reached.
    #[arg(long)]
    list_marks: bool,
    /// Go on after a failure, and list all.
    #[arg(long)]
    keep_going: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    // A panic inside a world is a failure of that world, told with its seed.
    std::panic::set_hook(Box::new(|_| {}));
    let result = match args.seed {
        Some(seed) => replay(&args, seed),
        None => run_batch(&args),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) | Err(_) => ExitCode::FAILURE,
    }
}

fn replay(args: &Args, seed: u64) -> std::io::Result<bool> {
    let mut out = stdout().lock();
    let plan = Plan::draw(seed);
    writeln!(out, "seed {seed}\n{:#?}", plan.options)?;
    let outcome = run(&plan, args.trace);
    for line in &outcome.trace {
        writeln!(out, "{line}")?;
    }
    let Some(broken) = outcome.broken else {
        let (steps, digest) = (outcome.steps, outcome.digest);
        writeln!(out, "seed {seed}: {steps} steps, digest {digest:016x}, every rule held")?;
        return Ok(true);
    };
    if args.no_shrink {
        writeln!(out, "seed {seed} breaks a rule after {} steps: {broken}", outcome.steps)?;
        return Ok(false);
    }
    tell_failure(&mut out, &plan, &broken)?;
    Ok(false)
}

/// Tells the shortest story of a failure that can be found.
fn tell_failure(out: &mut impl Write, plan: &Plan, broken: &Broken) -> std::io::Result<()> {
    let small = shrink(plan, broken);
    let outcome = run(&small, true);
    writeln!(out, "\n{:#?}", small.options)?;
    writeln!(out, "\n{} of {} actions are enough:", small.actions.len(), plan.actions.len())?;
    for action in &small.actions {
        writeln!(out, "{:>8} {:?}", action.at, action.deed)?;
    }
    writeln!(out, "\nWhat happened:")?;
    let mut world = outcome.trace;
    let skipped = world.len().saturating_sub(300);
    for line in world.drain(skipped..) {
        writeln!(out, "{line}")?;
    }
    let now = outcome.broken.as_ref().unwrap_or(broken);
    writeln!(out, "\nseed {} breaks a rule: {now}", plan.seed)?;
    writeln!(out, "replay: cargo run -p chat-sim --release -- --seed {}", plan.seed)
}

fn run_batch(args: &Args) -> std::io::Result<bool> {
    let threads = args.threads.unwrap_or_else(|| {
        std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get)
    });
    let (first, count) = (args.first, args.seeds);
    let last = first + count.saturating_sub(1);
    writeln!(stdout(), "seeds {first} to {last}, {threads} at once")?;
    let bar = progress_bar(count);
    let begun = Instant::now();
    let batch = Batch { first, count, threads, stops_at_failure: !args.keep_going };
    let summary = run_many(batch, |_| bar.inc(1));
    bar.finish_and_clear();
    let seconds = begun.elapsed().as_secs_f64();
    report(args, &summary, seconds, threads)
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
    let Summary { seeds, steps, marks, failures } = summary;
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    let rate = *steps as f64 / seconds / threads as f64;
    writeln!(out, "{seeds} worlds, {steps} steps in {seconds:.1} s: {rate:.0} a second and core")?;
    if args.list_marks {
        for mark in Mark::ALL {
            writeln!(out, "{:>10} {mark}", marks.count(*mark))?;
        }
    }
    let rare: Vec<Mark> = marks.rarer_than(args.marks).collect();
    for mark in &rare {
        let count = marks.count(*mark);
        writeln!(out, "too rare: {mark}, reached {count} of {} times", args.marks)?;
    }
    for (seed, broken) in failures {
        writeln!(out, "seed {seed} breaks a rule: {broken}")?;
    }
    if let Some((seed, broken)) = failures.first()
        && !args.keep_going
        && !args.no_shrink
    {
        tell_failure(&mut out, &Plan::draw(*seed), broken)?;
    }
    Ok(failures.is_empty() && rare.is_empty())
}
