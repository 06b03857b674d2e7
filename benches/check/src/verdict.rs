//! What a judge found.

use std::fmt;

/// Examples kept of each kind of fault.
const EXAMPLES_MAX: usize = 5;

/// How often something was found, with the first cases.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// How often.
    pub count: u64,
    /// The first cases, for people.
    pub examples: Vec<String>,
}

impl Tally {
    pub(crate) fn add(&mut self, example: impl FnOnce() -> String) {
        self.add_many(1, example);
    }

    pub(crate) fn add_many(&mut self, count: u64, example: impl FnOnce() -> String) {
        self.count = self.count.saturating_add(count);
        if count > 0 && self.examples.len() < EXAMPLES_MAX {
            self.examples.push(example());
        }
    }
}

/// What was found in all streams together. Faults are counted as readers met them: a post that is
/// twice in the log is doubled once for each reader.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Streams judged.
    pub streams: u64,
    /// Records shown.
    pub records: u64,
    /// Posts acknowledged.
    pub acknowledged: u64,
    /// Posts answered with an error.
    pub refused: u64,
    /// Lives of rooms that anybody heard of: one more than resets in each room.
    pub lives: u64,
    /// Times a client was killed.
    pub kills: u64,
    /// Last lines that a killed client did not finish.
    pub torn: u64,
    /// Records that a reader was owed and not shown.
    pub lost: Tally,
    /// Records and posts that a reader was shown more than once.
    pub doubled: Tally,
    /// Records, or posts of one sender, that a reader was shown in another order.
    pub reordered: Tally,
    /// Whatever else the contract forbids.
    pub other: Tally,
    /// The last records before a kill, shown again by the next run. The contract forbids it too.
    pub shown_again: Tally,
}

/// What to think of records that a killed client shows again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterKill {
    /// The contract's rule: a fault.
    ShowNothingAgain,
    /// Counted and not held against the chat: who dies between showing and noting it cannot know.
    MayShowAgain,
}

impl Verdict {
    /// Whether nothing is wrong.
    pub const fn is_clean(&self, after_kill: AfterKill) -> bool {
        let again = match after_kill {
            AfterKill::ShowNothingAgain => self.shown_again.count,
            AfterKill::MayShowAgain => 0,
        };
        self.lost.count == 0
            && self.doubled.count == 0
            && self.reordered.count == 0
            && self.other.count == 0
            && again == 0
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, count) in [
            ("streams", self.streams),
            ("records shown", self.records),
            ("posts acknowledged", self.acknowledged),
            ("posts refused", self.refused),
            ("lives of rooms", self.lives),
            ("kills", self.kills),
            ("torn last lines", self.torn),
        ] {
            writeln!(f, "{name}: {count}")?;
        }
        for (name, tally) in [
            ("lost", &self.lost),
            ("doubled", &self.doubled),
            ("reordered", &self.reordered),
            ("other", &self.other),
            ("shown again after a kill", &self.shown_again),
        ] {
            writeln!(f, "{name}: {}", tally.count)?;
            for example in &tally.examples {
                writeln!(f, "    {example}")?;
            }
        }
        Ok(())
    }
}
