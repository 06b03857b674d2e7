//! From a failure to the smallest story of it.
//!
//! Source of the method: delta debugging (Zeller and Hildebrandt, 2002).

use crate::plan::{Deed, Plan};

/// How many worlds a shrinking may run.
const ATTEMPTS: usize = 600;

/// The smallest plan found for which `fails` is true: actions are left out, whole stretches first,
/// and what the world is made of is made simpler.
pub fn shrink(plan: &Plan, mut fails: impl FnMut(&Plan) -> bool) -> Plan {
    let mut best = plan.clone();
    let mut left = ATTEMPTS;
    let mut fails = |plan: &Plan| {
        left = left.saturating_sub(1);
        left > 0 && fails(plan)
    };
    for _ in 0..2 {
        drop_actions(&mut best, &mut fails);
        simplify(&mut best, &mut fails);
    }
    best
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Fault;

    /// A failure that takes a crash and, at any time after it, a reset.
    fn fails(plan: &Plan) -> bool {
        let is_crash = |deed: Deed| matches!(deed, Deed::Wrong(Fault::Crash { .. }));
        let is_reset = |deed: Deed| matches!(deed, Deed::Reset { .. });
        let crash = plan.actions.iter().position(|action| is_crash(action.deed));
        let reset = plan.actions.iter().rposition(|action| is_reset(action.deed));
        crash.is_some_and(|crash| reset.is_some_and(|reset| crash < reset))
    }

    #[test]
    fn failure_shrinks_to_the_actions_that_it_takes() {
        let plan =
            (1..1_000).map(Plan::draw).find(fails).expect("some world has a crash and a reset");
        let small = shrink(&plan, fails);
        assert_eq!(small.actions.len(), 2, "{:?}", small.actions);
        assert_eq!(small.options.clients.len(), 1);
        assert!(fails(&small));
    }
}
