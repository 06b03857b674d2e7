//! Worlds from seeds, as many as a plain test run can bear. CI runs thousands: see `.ci/run`.

use std::env;

use chat_sim::marks::{Kind, Mark};
use chat_sim::off::Off;
use chat_sim::plan::{Plan, Profile};
use chat_sim::runner::{Batch, run_many};
use chat_sim::watchdog::Watch;
use chat_sim::world::run;

/// How many worlds; `CHAT_SIM_SEEDS` says otherwise.
const SEEDS: u64 = 12;

/// How many of them nothing goes wrong in.
const CALM_WORLDS: usize = 12;

fn seeds() -> u64 {
    let wanted = env::var("CHAT_SIM_SEEDS").ok();
    wanted.map_or(SEEDS, |text| text.parse().expect("CHAT_SIM_SEEDS is a number of worlds"))
}

#[test]
fn every_rule_holds_in_every_world() {
    let (first, count) = (1, seeds());
    println!("seeds {first} to {count}");
    let batch = Batch { first, count, threads: 2, stops_at_failure: true, off: Off::default() };
    let summary = run_many(batch, &Watch::default(), |_| {});
    for (seed, broken) in &summary.failures {
        println!("replay: cargo run -p chat-sim --release -- --seed {seed}\n{broken}");
    }
    assert!(summary.failures.is_empty(), "a rule was broken");
    assert_eq!(summary.seeds, count);
}

#[test]
fn same_seed_gives_the_same_world_byte_for_byte() {
    for seed in 1..=4 {
        let plan = Plan::draw(seed);
        let [one, other] = [(); 2].map(|()| run(&plan, Off::default(), false));
        assert_eq!((one.digest, one.steps), (other.digest, other.steps), "seed {seed}");
        // Writing down what happens changes nothing.
        let traced = run(&plan, Off::default(), true);
        assert_eq!((one.digest, one.steps), (traced.digest, traced.steps), "seed {seed}");
    }
}

#[test]
fn where_nothing_goes_wrong_no_mark_combines_a_fault() {
    let plans = (1..).map(Plan::draw).filter(|plan| plan.options.profile == Profile::Calm);
    for plan in plans.take(CALM_WORLDS) {
        let outcome = run(&plan, Off::default(), false);
        let of_a_fault = |mark: &&Mark| mark.is_combined() && mark.kinds().contains(&Kind::Fault);
        for mark in Mark::ALL.iter().filter(of_a_fault) {
            assert_eq!(outcome.marks.count(*mark), 0, "seed {}: {mark}", plan.seed);
        }
    }
}

#[test]
fn other_seeds_give_other_worlds() {
    let digest = |seed| run(&Plan::draw(seed), Off::default(), false).digest;
    assert_ne!(digest(1), digest(2));
}
