//! Many worlds on all cores, and the smallest story of one that failed.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use crate::broken::Broken;
use crate::marks::Marks;
use crate::plan::{Deed, Plan};
use crate::world::{self, Outcome};

/// The rule that a panic breaks: an assertion of ours did not hold.
pub const NO_PANIC: &str = "nothing panics";

/// Runs a world; a panic in it is a broken rule.
pub fn run(plan: &Plan, traced: bool) -> Outcome {
    catch_unwind(AssertUnwindSafe(|| world::run(plan, traced))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
        let broken = Some(Broken::new(NO_PANIC, text));
        Outcome { steps: 0, digest: 0, marks: Marks::default(), broken, trace: Vec::new() }
    })
}

/// What came of many worlds.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Worlds that ran.
    pub seeds: u64,
    /// Their events.
    pub steps: u64,
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
}

/// Runs worlds on many threads; `progress` is told of each.
pub fn run_many(batch: Batch, progress: impl Fn(&Outcome) + Sync) -> Summary {
    let (next, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let summary = Mutex::new(Summary::default());
    let work = || {
        while !stop.load(Ordering::Relaxed) {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= batch.count {
                return;
            }
            let seed = batch.first + number;
            let outcome = run(&Plan::draw(seed), false);
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
        self.marks.add(&outcome.marks);
        self.failures.extend(outcome.broken.map(|broken| (seed, broken)));
    }
}

/// How many worlds a shrinking may run.
const ATTEMPTS: usize = 600;

/// The smallest plan found that breaks the same rule: actions are left out, whole stretches first,
/// and what the world is made of is made simpler.
///
/// Source of the method: delta debugging (Zeller and Hildebrandt, 2002).
pub fn shrink(plan: &Plan, broken: &Broken) -> Plan {
    let mut best = plan.clone();
    let mut left = ATTEMPTS;
    let mut fails = |plan: &Plan| {
        left = left.saturating_sub(1);
        left > 0 && run(plan, false).broken.is_some_and(|other| is_same(&other, broken))
    };
    for _ in 0..2 {
        drop_actions(&mut best, &mut fails);
        simplify(&mut best, &mut fails);
    }
    best
}

/// Whether two failures are the same: the same rule, and for a panic the same words.
fn is_same(one: &Broken, other: &Broken) -> bool {
    let words = |broken: &Broken| broken.detail.chars().take(30).collect::<String>();
    one.rule == other.rule && (one.rule != NO_PANIC || words(one) == words(other))
}

fn drop_actions(best: &mut Plan, fails: &mut impl FnMut(&Plan) -> bool) {
    let mut size = best.actions.len().div_ceil(2).max(1);
    loop {
        let mut from = 0;
        while from < best.actions.len() {
            let mut smaller = best.clone();
            let to = (from + size).min(smaller.actions.len());
            smaller.actions.drain(from..to);
            if fails(&smaller) {
                *best = smaller;
            } else {
                from += size;
            }
        }
        if size == 1 {
            return;
        }
        size = size.div_ceil(2);
    }
}

fn simplify(best: &mut Plan, fails: &mut impl FnMut(&Plan) -> bool) {
    let simpler: [fn(&mut Plan); 8] = [
        |plan| plan.options.net.pieces_max = 1,
        |plan| plan.options.net.socket_bytes = 64 << 10,
        |plan| plan.options.net.shard_delay_max = 0,
        |plan| plan.options.net.delay_max = plan.options.net.delay_min,
        |plan| plan.options.shards = 1,
        |plan| plan.options.store.sync_max = 0,
        |plan| plan.options.store.read_max = 0,
        |plan| {
            for action in &mut plan.actions {
                if let Deed::Post { count, .. } = &mut action.deed {
                    *count = 1;
                }
            }
        },
    ];
    for change in simpler {
        let mut plan = best.clone();
        change(&mut plan);
        if fails(&plan) {
            *best = plan;
        }
    }
    // A client that nobody misses.
    for place in (1..best.options.clients.len()).rev() {
        let mut plan = best.clone();
        plan.options.clients.remove(place);
        if fails(&plan) {
            *best = plan;
        }
    }
}
