//! What a long history costs: starting, memory, and a page from the middle.
//!
//! The histories are made by a real server and killed with it, so that each start also recovers its
//! write-ahead log. A start is measured from the process to the first page of history in a client's
//! hands: it reads the newest checkpoint and checks every entry after it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use chatcore::id::Seq;
use chatcore::text::Body;

use crate::child::{Child, Durability};
use crate::failure::Failure;
use crate::fan_out::{count, median};
use crate::frames;
use crate::login::Guest;
use crate::senders::{Rooms, Senders, Until, percentile};

/// Messages of the short history.
const SHORT: u64 = 10_000;

/// Seconds that a start may take.
const START_AIM: f64 = 3.0;

/// How many times as much memory the long history may take as the short one.
const MEMORY_AIM: f64 = 1.2;

/// Posts that are unacknowledged at once while a history is made.
const WINDOW: usize = 512;

/// Records of a page.
const PAGE: u16 = 50;

/// Readers that ask for pages one after the other, and how many each asks for: a connection may ask
/// for so many at once without being held back.
const READERS: usize = 20;
const PAGES_A_READER: usize = 100;

/// What to measure.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Messages of the long history.
    pub(crate) messages: u64,
    pub(crate) text_bytes: usize,
    pub(crate) rounds: usize,
    /// On the disk that is measured.
    pub(crate) folder: PathBuf,
}

/// A history on the disk.
struct History {
    data: tempfile::TempDir,
    messages: u64,
    /// What the server that made it had resident in the end.
    made_resident: u64,
}

/// What starts on a history gave.
struct Starts {
    /// Seconds of each.
    seconds: Vec<f64>,
    /// Resident bytes after the first page.
    resident: Vec<f64>,
}

/// Measures everything and prints it; whether the aims were met.
pub(crate) fn run(plan: &Plan) -> Result<bool, Failure> {
    println!(
        "messages of {} bytes in one room; {} starts on each history, on {}",
        plan.text_bytes,
        plan.rounds,
        plan.folder.display()
    );
    let mut rows = Vec::new();
    for messages in [SHORT, plan.messages] {
        let history = History::make(plan, messages)?;
        let starts = history.start_again_and_again(plan.rounds)?;
        let pages = history.pages_from_the_middle()?;
        let (tail, bytes) = (history.tail()?, history.bytes()?);
        println!(
            "\n{messages} messages: {:.0} MB on the disk, {tail} entries after the newest checkpoint",
            count(bytes) / 1e6
        );
        println!("the server that made them had {:.1} MB", count(history.made_resident) / 1e6);
        rows.push((messages, starts, pages));
    }
    Ok(conclude(&rows))
}

fn conclude(rows: &[(u64, Starts, Vec<Duration>)]) -> bool {
    println!("\nmedians");
    println!(" messages  start s  slowest s  memory MB  page of {PAGE}: p50 ms   p99 ms");
    let (mut slowest, mut memories) = (0.0_f64, Vec::new());
    for (messages, Starts { seconds, resident }, pages) in rows {
        let (start, memory) = (median(seconds.clone()), median(resident.clone()));
        slowest = seconds.iter().copied().fold(slowest, f64::max);
        memories.push(memory);
        let last = seconds.iter().copied().fold(0.0, f64::max);
        let (half, most) = (percentile(pages, 50), percentile(pages, 99));
        let memory = memory / 1e6;
        println!("{messages:9} {start:8.3} {last:10.3} {memory:10.1} {half:19.2} {most:8.2}");
    }
    let [short, long] = *memories else { return false };
    let ratio = long / short;
    println!("\nfigure                          found      aim");
    println!("slowest start, seconds        {slowest:7.3}   < {START_AIM}");
    println!("memory, long over short       {ratio:7.2}   <= {MEMORY_AIM}");
    slowest < START_AIM && ratio <= MEMORY_AIM
}

impl History {
    /// Has a server take in so many messages, and kills it.
    fn make(plan: &Plan, messages: u64) -> Result<Self, Failure> {
        let data = tempfile::tempdir_in(&plan.folder)?;
        let text: Body = frames::text(plan.text_bytes)
            .parse()
            .map_err(|_| Failure::Protocol("a text is empty or too long"))?;
        // How it was made safe does not show in it.
        let child = Child::on_folder(data.path(), Durability::Relaxed)?;
        let mut sender = Senders::gather(child.address(), 1, Rooms::One, &text)?;
        sender.run(Until::Posts(messages), WINDOW)?;
        let made_resident = child.resident_bytes()?;
        Ok(Self { data, messages, made_resident })
    }

    fn path(&self) -> &Path {
        self.data.path()
    }

    /// Starts a server so many times, and kills it after its first page.
    fn start_again_and_again(&self, rounds: usize) -> Result<Starts, Failure> {
        let mut starts = Starts { seconds: Vec::new(), resident: Vec::new() };
        for _ in 0..rounds {
            let begun = Instant::now();
            let child = Child::on_folder(self.path(), Durability::Commit)?;
            let mut reader = Guest::join(child.address(), "reader")?;
            // All of it from the store: one that is partly in memory may come short.
            let before = Seq::ZERO.saturating_add(reader.seen());
            expect_page(reader.page(Some(before), PAGE)?)?;
            starts.seconds.push(begun.elapsed().as_secs_f64());
            starts.resident.push(count(child.resident_bytes()?));
        }
        Ok(starts)
    }

    /// The time that each of many pages took.
    fn pages_from_the_middle(&self) -> Result<Vec<Duration>, Failure> {
        let child = Child::on_folder(self.path(), Durability::Commit)?;
        let (mut random, mut times) = (fastrand::Rng::with_seed(self.messages), Vec::new());
        for number in 0..READERS {
            let mut reader = Guest::join(child.address(), &format!("reader{number}"))?;
            for _ in 0..PAGES_A_READER {
                let before = random.u64(self.messages / 4..self.messages * 3 / 4);
                let before = Seq::ZERO.saturating_add(before);
                let begun = Instant::now();
                // One that is partly in memory and partly in the store may come short.
                if reader.page(Some(before), PAGE)? == usize::from(PAGE) {
                    times.push(begun.elapsed());
                }
            }
        }
        times.sort_unstable();
        if times.len() < READERS * PAGES_A_READER / 2 {
            return Err(Failure::Protocol("most pages were shorter than was asked for"));
        }
        Ok(times)
    }

    /// Entries that a start replays.
    fn tail(&self) -> Result<u64, Failure> {
        let mut newest = 0;
        for file in std::fs::read_dir(self.path())? {
            let name = file?.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix("checkpoint-"));
            newest = number.and_then(|number| number.parse().ok()).unwrap_or(0).max(newest);
        }
        // A few entries more than messages: users, sessions, a room.
        Ok(self.messages.saturating_sub(newest))
    }

    fn bytes(&self) -> Result<u64, Failure> {
        let mut bytes = 0;
        for file in std::fs::read_dir(self.path())? {
            bytes += file?.metadata()?.len();
        }
        Ok(bytes)
    }
}

fn expect_page(records: usize) -> Result<(), Failure> {
    if records == usize::from(PAGE) {
        return Ok(());
    }
    Err(Failure::Protocol("a page was not as long as was asked for"))
}
