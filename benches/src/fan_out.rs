//! The comparison: rounds, medians, the table and the aims.

use std::time::Duration;

use chatcore::text::Body;

use crate::child::{Child, Transport};
use crate::crowd::{Crowd, Load, Outcome, Speaks};
use crate::failure::Failure;
use crate::frames;

/// A window to measure, what is posted in a round by default, and the largest ratio aimed at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    pub(crate) size: u64,
    pub(crate) posts: u64,
    pub(crate) aim: Option<f64>,
}

/// The windows that have aims. Their posts take either server about a second of CPU time or more,
/// so that a clock tick is a percent of it.
const WINDOWS: [Window; 2] = [
    Window { size: 256, posts: 200_000, aim: Some(9.99) },
    Window { size: 1, posts: 5_000, aim: Some(1.5) },
];

/// What share of the posts warms up: caches, buffers that grow, threads that start.
const WARM_UP_SHARE: u64 = 10;

/// How long one warm-up or run may take.
const TIME_LIMIT: Duration = Duration::from_mins(2);

/// What to measure.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) receivers: usize,
    pub(crate) text_bytes: usize,
    pub(crate) transport: Transport,
    pub(crate) rounds: usize,
    pub(crate) windows: Vec<Window>,
}

/// What one server did in one round.
#[derive(Clone, Copy, Debug)]
struct Sample {
    /// CPU time of the server for one delivery, in nanoseconds.
    cost: f64,
    /// Deliveries a second.
    rate: f64,
    median: Duration,
    slowest_percent: Duration,
}

/// The windows with these sizes, or all that have aims; `posts` replaces the default number.
pub(crate) fn windows(sizes: &[u64], posts: Option<u64>) -> Vec<Window> {
    let known = |size: u64| {
        let default_posts = if size < 16 { 5_000 } else { 200_000 };
        let new = Window { size, posts: default_posts, aim: None };
        WINDOWS.into_iter().find(|window| window.size == size).unwrap_or(new)
    };
    let mut windows: Vec<Window> = match sizes {
        [] => WINDOWS.to_vec(),
        sizes => sizes.iter().map(|size| known(*size)).collect(),
    };
    for window in &mut windows {
        window.posts = posts.unwrap_or(window.posts);
    }
    windows
}

/// Measures everything and prints it; whether every aim was met.
pub(crate) fn run(plan: &Plan) -> Result<bool, Failure> {
    println!(
        "1 sender, {} receivers, texts of {} bytes, {:?} sockets, {} rounds",
        plan.receivers, plan.text_bytes, plan.transport, plan.rounds
    );
    println!("cost: CPU time of the server process for one delivery, in nanoseconds\n");
    println!("window round      who      cost  deliveries/s   p50 ms   p99 ms");
    let mut met = true;
    let mut summary = Vec::new();
    for window in &plan.windows {
        let (server, ceiling) = measure(plan, window)?;
        let ratios = server.iter().zip(&ceiling).map(|(server, ceiling)| server / ceiling);
        let ratio = median(ratios.collect());
        met &= window.aim.is_none_or(|aim| ratio <= aim);
        summary.push((window, median(server), median(ceiling), ratio));
    }
    println!("\nmedians\nwindow    server   ceiling     ratio       aim");
    for (Window { size, aim, .. }, server, ceiling, ratio) in summary {
        let aim = aim.map_or_else(|| "-".to_owned(), |aim| aim.to_string());
        println!("{size:6} {server:9.1} {ceiling:9.1} {ratio:9.2} {aim:>9}");
    }
    Ok(met)
}

/// The costs of both, a pair a round, measured in turn so that whatever else the machine does
/// touches both.
fn measure(plan: &Plan, window: &Window) -> Result<(Vec<f64>, Vec<f64>), Failure> {
    let mut costs = (Vec::new(), Vec::new());
    for round in 1..=plan.rounds {
        for (speaks, who, costs) in
            [(Speaks::Chat, "server", &mut costs.0), (Speaks::Nothing, "ceiling", &mut costs.1)]
        {
            let sample = sample(plan, window, speaks)?;
            println!(
                "{:6} {round:5} {who:>8} {:9.1} {:13.0} {:8.3} {:8.3}",
                window.size,
                sample.cost,
                sample.rate,
                sample.median.as_secs_f64() * 1e3,
                sample.slowest_percent.as_secs_f64() * 1e3,
            );
            costs.push(sample.cost);
        }
    }
    Ok(costs)
}

/// One server, started for this, warmed up and measured.
fn sample(plan: &Plan, window: &Window, speaks: Speaks) -> Result<Sample, Failure> {
    let text: Body = frames::text(plan.text_bytes)
        .parse()
        .map_err(|_| Failure::Protocol("a text is empty or too long"))?;
    let child = Child::start(speaks, plan.transport, plan.text_bytes)?;
    let mut crowd = Crowd::gather(child.address(), speaks, plan.receivers, &text)?;
    let load = Load { posts: window.posts, window: window.size, time_limit: TIME_LIMIT };
    crowd.run(&Load { posts: load.posts.div_ceil(WARM_UP_SHARE), ..load.clone() })?;
    let before = child.cpu_time()?;
    let outcome = crowd.run(&load)?;
    let spent = child.cpu_time()?.saturating_sub(before);
    if spent.is_zero() {
        return Err(Failure::TooShort);
    }
    Ok(Sample::new(&outcome, spent))
}

impl Sample {
    fn new(outcome: &Outcome, spent: Duration) -> Self {
        let at = |percent: usize| {
            let place = outcome.latencies.len().saturating_sub(1) * percent / 100;
            outcome.latencies.get(place).copied().unwrap_or_default()
        };
        let deliveries = count(outcome.deliveries);
        Self {
            cost: spent.as_secs_f64() * 1e9 / deliveries,
            rate: deliveries / outcome.elapsed.as_secs_f64(),
            median: at(50),
            slowest_percent: at(99),
        }
    }
}

/// A count as a floating-point number, exact below 2^53.
#[expect(clippy::cast_precision_loss, reason = "nothing is counted that far")]
pub(crate) const fn count(number: u64) -> f64 {
    number as f64
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let upper = values.get(values.len() / 2).copied().unwrap_or(f64::NAN);
    match values.get((values.len() / 2).wrapping_sub(1)) {
        Some(lower) if values.len().is_multiple_of(2) => f64::midpoint(*lower, upper),
        Some(_) | None => upper,
    }
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn median_of_an_even_number_lies_between() {
        assert!((median(vec![3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!((median(vec![4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < f64::EPSILON);
        assert!((median(vec![7.0]) - 7.0).abs() < f64::EPSILON);
        assert!(median(Vec::new()).is_nan());
    }

    #[test]
    fn window_without_an_aim_can_be_measured_too() {
        let [one, other] = &windows(&[1, 8], Some(10))[..] else { panic!("two windows") };
        assert_eq!((one.size, one.posts, one.aim.is_some()), (1, 10, true));
        assert_eq!((other.size, other.posts, other.aim.is_some()), (8, 10, false));
    }
}
