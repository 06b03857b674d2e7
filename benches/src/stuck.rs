//! Readers that do not read: what the others have of them.
//!
//! The same crowd twice, on two servers in turn: all of it reads, and half of it does not. A reader is
//! stuck once the system's buffers between the server and it are full, which is what the warm-up is for:
//! it posts more than they can be made to hold.

use std::time::Duration;

use chatcore::text::Body;

use crate::child::{Child, Transport};
use crate::crowd::{Crowd, Load, Speaks};
use crate::failure::Failure;
use crate::fan_out::median;
use crate::frames;
use crate::login::Guest;
use crate::senders::percentile;

/// What is measured.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) readers: usize,
    pub(crate) stuck: usize,
    pub(crate) rounds: usize,
}

/// The longest text but a little.
const TEXT_BYTES: usize = 8_000;

/// Together more bytes than `tcp_wmem` (4 MiB) and the `tcp_rmem` of who never reads allow.
const WARM_UP_POSTS: u64 = 600;

const POSTS: u64 = 200;

/// How long a warm-up or a run may take.
const TIME_LIMIT: Duration = Duration::from_mins(2);

/// The others' slowest percent may be this many times what it is when all read.
const AIM: f64 = 2.0;

/// Measures and prints; whether the aim was met.
pub(crate) fn run(plan: &Plan) -> Result<bool, Failure> {
    crate::idle::raise_descriptors()?;
    let Plan { readers, stuck, rounds } = *plan;
    println!(
        "{readers} readers of texts of {TEXT_BYTES} bytes, one post at a time; {stuck} of them do not \
         read in every other run\n"
    );
    println!("round  stuck   p50 ms   p99 ms  server MB");
    let mut slowest = [Vec::new(), Vec::new()];
    for round in 1..=rounds {
        for (stuck, slowest) in [0, stuck].into_iter().zip(&mut slowest) {
            let Sample { median, percent, bytes } = sample(readers, stuck)?;
            println!("{round:5} {stuck:6} {median:8.2} {percent:8.2} {bytes:>10}");
            slowest.push(percent);
        }
    }
    let [all_read, some_do_not] = slowest.map(median);
    let ratio = some_do_not / all_read;
    println!("\np99 with stuck readers over p99 without: {ratio:.2} (aim <= {AIM})");
    Ok(ratio <= AIM)
}

struct Sample {
    median: f64,
    percent: f64,
    /// Resident memory of the server, in megabytes.
    bytes: u64,
}

fn sample(readers: usize, stuck: usize) -> Result<Sample, Failure> {
    let text = frames::text(TEXT_BYTES);
    let text: Body = text.parse().map_err(|_| Failure::Protocol("a text is too long"))?;
    let server = Child::start(Speaks::Chat, Transport::Tcp, TEXT_BYTES)?;
    let names = (0..stuck).map(|number| format!("stuck{number}"));
    let held: Result<Vec<_>, _> = names.map(|name| Guest::join(server.address(), &name)).collect();
    let held = held?;
    let mut crowd = Crowd::gather(server.address(), Speaks::Chat, readers - stuck, &text)?;
    let load = |posts| Load { posts, window: 1, time_limit: TIME_LIMIT };
    crowd.run(&load(WARM_UP_POSTS))?;
    let outcome = crowd.run(&load(POSTS))?;
    let bytes = server.resident_bytes()? / 1_000_000;
    drop(held);
    server.stop()?;
    let of = |percent| percentile(&outcome.latencies, percent);
    Ok(Sample { median: of(50), percent: of(99), bytes })
}
