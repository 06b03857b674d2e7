//! What being safe costs: acknowledged posts of the real server, beside a bare loop that appends and
//! syncs as many bytes in groups as large.
//!
//! How large the server's groups were, and how long keeping them took, it says itself when it stops;
//! how many bytes a post takes shows in its database. What it writes beside those, to the log and a
//! second time to the database, the bare loop does not: that is the server's own cost. `store/s` is
//! what the store alone would do if the network and the engine cost nothing: what is missing from there
//! to `server/s` is theirs. Where a sync takes a fifth of a millisecond, and two cores are shared by
//! clients, network, engine and store, the cores are used up before the disk is.
//!
//! That it is the cores shows with a slower disk, which strace can play: with
//! `strace -f --seccomp-bpf -e trace=fdatasync -e inject=fdatasync:delay_exit=4000 -o /dev/null` before
//! the command, both the server and the bare loop wait four milliseconds longer for each sync.

use std::path::PathBuf;
use std::time::Duration;

use chatcore::text::Body;

use crate::bare_log;
use crate::child::{Child, Durability};
use crate::failure::Failure;
use crate::fan_out::{count, median};
use crate::frames;
use crate::senders::{Rooms, Senders, Until};

/// The least ratio aimed at, of so many senders. For a single one none is: it waits for the network
/// and for a sync in turn, and the bare loop for a sync alone.
const AIM: (usize, f64) = (100, 0.5);

/// What to measure.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) senders: Vec<usize>,
    pub(crate) rooms: Rooms,
    pub(crate) text_bytes: usize,
    /// How long a round takes.
    pub(crate) time: Duration,
    pub(crate) rounds: usize,
    /// On the disk that is measured.
    pub(crate) folder: PathBuf,
}

/// One round.
#[derive(Clone, Copy, Debug)]
struct Sample {
    /// Acknowledged posts a second.
    server: f64,
    /// Entries a second of the time that the store was busy.
    store: f64,
    /// Posts a second of the bare loop.
    bare: f64,
    /// Entries in a sync.
    group: f64,
    /// Bytes that a post takes in the database.
    bytes: f64,
    median: f64,
    slowest_percent: f64,
}

/// Measures everything and prints it; whether the aim was met.
pub(crate) fn run(plan: &Plan) -> Result<bool, Failure> {
    println!(
        "posts of {} bytes to {}, each sender waits for its acknowledgement; {} rounds of {} s, on \
         {}\n",
        plan.text_bytes,
        match plan.rooms {
            Rooms::One => "one room",
            Rooms::Own => "a room for each sender",
        },
        plan.rounds,
        plan.time.as_secs(),
        plan.folder.display()
    );
    println!("senders round  server/s   store/s    bare/s  ratio  group  bytes   p50 ms   p99 ms");
    let (mut met, mut summary) = (true, Vec::new());
    for senders in &plan.senders {
        let mut samples = Vec::with_capacity(plan.rounds);
        for round in 1..=plan.rounds {
            let sample = sample(plan, *senders)?;
            let Sample { server, store, bare, group, bytes, median, slowest_percent } = sample;
            let ratio = server / bare;
            println!(
                "{senders:7} {round:5} {server:9.0} {store:9.0} {bare:9.0} {ratio:6.2} {group:6.1} {bytes:6.0} \
                 {median:8.2} {slowest_percent:8.2}"
            );
            samples.push(sample);
        }
        let of = |figure: fn(&Sample) -> f64| median(samples.iter().map(figure).collect());
        let ratio = of(|sample| sample.server / sample.bare);
        let aim = Some(AIM.1).filter(|_| *senders == AIM.0 && plan.rooms == Rooms::Own);
        met &= aim.is_none_or(|aim| ratio >= aim);
        let (server, store) = (of(|sample| sample.server), of(|sample| sample.store));
        summary.push((*senders, server, store, of(|sample| sample.bare), ratio, aim));
    }
    println!("\nmedians\nsenders  server/s   store/s    bare/s  ratio      aim");
    for (senders, server, store, bare, ratio, aim) in summary {
        let aim = aim.map_or_else(|| "-".to_owned(), |aim| format!(">= {aim}"));
        println!("{senders:7} {server:9.0} {store:9.0} {bare:9.0} {ratio:6.2} {aim:>8}");
    }
    Ok(met)
}

/// A server that is started for this, warmed up and loaded; then the bare loop.
fn sample(plan: &Plan, senders: usize) -> Result<Sample, Failure> {
    let data = tempfile::tempdir_in(&plan.folder)?;
    let text: Body = frames::text(plan.text_bytes)
        .parse()
        .map_err(|_| Failure::Protocol("a text is empty or too long"))?;
    let child = Child::on_folder(data.path(), Durability::Commit)?;
    let mut crowd = Senders::gather(child.address(), senders, plan.rooms, &text)?;
    crowd.run(Until::Time(plan.time / 4), 1)?;
    let outcome = crowd.run(Until::Time(plan.time), 1)?;
    drop(crowd);
    let log = child.stop()?;
    let number = |name| number_in(&log, name).ok_or(Failure::NoCommits);
    let (entries, commits, busy) = (number("entries")?, number("commits")?, number("busy_us")?);
    let database = std::fs::metadata(data.path().join("journal.db"))?.len();
    let (group, bytes) = (count(entries) / count(commits), count(database) / count(entries));
    let bare = bare_log::groups_a_second(&plan.folder, bytes_of(group * bytes), plan.time)?;
    Ok(Sample {
        server: count(outcome.acknowledged) / outcome.elapsed.as_secs_f64(),
        store: count(entries) * 1e6 / count(busy),
        bare: bare * group,
        group,
        bytes,
        median: outcome.percentile(50),
        slowest_percent: outcome.percentile(99),
    })
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "some kilobytes")]
const fn bytes_of(bytes: f64) -> usize {
    bytes as usize
}

/// The last number of this name in a log.
fn number_in(log: &str, name: &str) -> Option<u64> {
    let words = log.split_whitespace().rev();
    let mut numbers = words.filter_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    numbers.next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_number_of_a_name_is_found() {
        let log = "DEBUG made entries=3\nDEBUG nothing more entries=1200 commits=40\n";
        assert_eq!(number_in(log, "entries"), Some(1_200));
        assert_eq!(number_in(log, "commits"), Some(40));
        assert_eq!(number_in(log, "commit"), None);
    }
}
