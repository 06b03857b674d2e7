//! Many worlds on all cores.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use crate::broken::Broken;
use crate::marks::Marks;
use crate::off::Off;
use crate::panics::NO_PANIC;
use crate::plan::Plan;
use crate::shrink::shrink;
use crate::watchdog::{Pulse, Watch};
use crate::world::{Outcome, run_watched};

/// What came of many worlds.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Worlds that ran.
    pub seeds: u64,
    /// Their events.
    pub steps: u64,
    /// Of all their digests.
    pub digest: u64,
    /// Situations reached in all of them.
    pub marks: Marks,
    /// The failures: seed and rule, by seed.
    pub failures: Vec<(u64, Broken)>,
}

/// Which worlds to run.
#[derive(Clone, Copy, Debug)]
pub struct Batch {
    /// The first seed.
    pub first: u64,
    /// How many.
    pub count: u64,
    /// How many at once.
    pub threads: usize,
    /// Whether to stop at the first failure.
    pub stops_at_failure: bool,
    /// What is switched off in them.
    pub off: Off,
}

/// Runs worlds on many threads; `progress` is told of each, and `watch` where each thread is.
pub fn run_many(batch: Batch, watch: &Watch, progress: impl Fn(&Outcome) + Sync) -> Summary {
    let (next, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let summary = Mutex::new(Summary::default());
    let work = || {
        let pulse = watch.pulse();
        while !stop.load(Ordering::Relaxed) {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= batch.count {
                return;
            }
            let seed = batch.first + number;
            let outcome = run_watched(&Plan::draw(seed), batch.off, None, &pulse);
            progress(&outcome);
            if batch.stops_at_failure && outcome.broken.is_some() {
                stop.store(true, Ordering::Relaxed);
            }
            summary.lock().unwrap_or_else(PoisonError::into_inner).add(seed, outcome);
        }
    };
    thread::scope(|scope| {
        for _ in 0..batch.threads.max(1) {
            scope.spawn(work);
        }
    });
    let mut summary = summary.into_inner().unwrap_or_else(PoisonError::into_inner);
    summary.failures.sort_by_key(|(seed, _)| *seed);
    summary
}

impl Summary {
    fn add(&mut self, seed: u64, outcome: Outcome) {
        self.seeds += 1;
        self.steps += outcome.steps;
        // In whatever order they end.
        self.digest = self.digest.wrapping_add(outcome.digest);
        self.marks.add(&outcome.marks);
        self.failures.extend(outcome.broken.map(|broken| (seed, broken)));
    }
}

/// The smallest plan found that breaks the same rule, after [`shrink`].
pub fn shrink_failure(plan: &Plan, off: Off, broken: &Broken, pulse: &Pulse) -> Plan {
    shrink(plan, |plan| {
        let other = run_watched(plan, off, None, pulse).broken;
        other.is_some_and(|other| is_same(&other, broken))
    })
}

/// Whether two failures are the same: the same rule, and for a panic the same words.
fn is_same(one: &Broken, other: &Broken) -> bool {
    let words = |broken: &Broken| broken.detail.chars().take(30).collect::<String>();
    one.rule == other.rule && (one.rule != NO_PANIC || words(one) == words(other))
}
