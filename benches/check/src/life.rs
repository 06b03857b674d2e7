//! What one reader was shown of one life of a room: a sequence without holes or repetitions.

use std::collections::BTreeMap;

#[derive(Debug, Default)]
pub(crate) struct Life {
    gate: Gate,
    /// The first record the reader is owed, and the one after the last it was shown or told of;
    /// unknown of a later joiner until its first record.
    span: Option<Span>,
    /// Records that were passed over, as first → last.
    holes: BTreeMap<u64, u64>,
    /// Records that the reader was told are gone, as first → last.
    told: BTreeMap<u64, u64>,
    newest_at: Option<String>,
    rewind: Rewind,
}

#[derive(Clone, Copy, Debug)]
struct Span {
    first: u64,
    next: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Gate {
    #[default]
    Untold,
    Closed,
    Open,
}

/// Whether the run before was killed, and so may not know what it showed last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Rewind {
    #[default]
    Over,
    /// Nothing was shown since.
    Possible,
    /// The records before this one were shown again.
    Running { next: u64 },
}

/// How a record stands to those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It is ahead of them.
    Ahead,
    /// It was passed over, and comes now.
    Late,
    /// It is from before the first.
    TooOld,
    Repeated,
    /// As `Repeated`, in the order of the first time, after a kill.
    ShownAgain,
}

impl Life {
    /// A life whose beginning the reader was there for: it is owed everything.
    pub(crate) fn from_the_start() -> Self {
        Self { span: Some(Span { first: 1, next: 1 }), ..Self::default() }
    }

    /// Whether everything fits what was told before: an open gate stays open.
    pub(crate) fn tell_gate(&mut self, open: bool) -> bool {
        let gate = if open { Gate::Open } else { Gate::Closed };
        if gate == Gate::Closed && self.span.is_none() {
            self.span = Some(Span { first: 1, next: 1 });
        }
        let before = std::mem::replace(&mut self.gate, gate);
        before != Gate::Open || open
    }

    pub(crate) fn is_open(&self) -> bool {
        self.gate == Gate::Open
    }

    pub(crate) const fn kill(&mut self) {
        self.rewind = Rewind::Possible;
    }

    /// Takes a record.
    pub(crate) fn show(&mut self, seq: u64) -> Standing {
        let Span { first, next } = *self.span.get_or_insert(Span { first: seq, next: seq });
        if seq >= next {
            self.rewind = Rewind::Over;
            self.pass_over(next, seq);
            self.span = Some(Span { first, next: seq.saturating_add(1) });
            return Standing::Ahead;
        }
        if self.fill_hole(seq) {
            return Standing::Late;
        }
        if seq < first || covers(&self.told, seq) {
            return Standing::TooOld;
        }
        let again = match self.rewind {
            Rewind::Over => false,
            Rewind::Possible => true,
            Rewind::Running { next } => next == seq,
        };
        if !again {
            return Standing::Repeated;
        }
        let after = seq.saturating_add(1);
        self.rewind = if after == next { Rewind::Over } else { Rewind::Running { next: after } };
        Standing::ShownAgain
    }

    /// Takes word that records are gone; false when the word makes no sense here.
    pub(crate) fn tell_gap(&mut self, from: u64, to: u64) -> bool {
        let Some(Span { first, next }) = self.span else { return false };
        if from > to || from < next {
            return false;
        }
        self.pass_over(next, from);
        self.told.insert(from, to);
        self.span = Some(Span { first, next: to.saturating_add(1) });
        true
    }

    /// Whether time does not run backwards. RFC 3339 texts of one form sort like their times.
    pub(crate) fn tell_time(&mut self, at: &str) -> bool {
        match &mut self.newest_at {
            Some(newest) if at < newest.as_str() => false,
            Some(newest) if at == newest => true,
            newest => {
                *newest = Some(at.to_owned());
                true
            }
        }
    }

    pub(crate) fn holes(&self) -> impl Iterator<Item = (u64, u64)> {
        self.holes.iter().map(|(first, last)| (*first, *last))
    }

    /// Whether the reader was owed a post that it was not shown, and no hole says so already.
    pub(crate) fn owes(&self, seq: Option<u64>) -> bool {
        let (Some(seq), Some(Span { first, .. })) = (seq, self.span) else { return true };
        seq >= first && !covers(&self.told, seq) && !covers(&self.holes, seq)
    }

    fn pass_over(&mut self, from: u64, to: u64) {
        if from < to {
            self.holes.insert(from, to.saturating_sub(1));
        }
    }

    fn fill_hole(&mut self, seq: u64) -> bool {
        if !covers(&self.holes, seq) {
            return false;
        }
        let (first, last) =
            self.holes.range(..=seq).next_back().map_or((seq, seq), |(a, b)| (*a, *b));
        self.holes.remove(&first);
        self.pass_over(first, seq);
        self.pass_over(seq.saturating_add(1), last.saturating_add(1));
        true
    }
}

fn covers(ranges: &BTreeMap<u64, u64>, seq: u64) -> bool {
    ranges.range(..=seq).next_back().is_some_and(|(_, last)| seq <= *last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hole_that_is_filled_later_is_none() {
        let mut life = Life::from_the_start();
        assert_eq!(life.show(1), Standing::Ahead);
        assert_eq!(life.show(5), Standing::Ahead);
        assert_eq!(life.holes().collect::<Vec<_>>(), [(2, 4)]);
        assert_eq!(life.show(3), Standing::Late);
        assert_eq!(life.holes().collect::<Vec<_>>(), [(2, 2), (4, 4)]);
        assert_eq!(life.show(3), Standing::Repeated);
    }

    #[test]
    fn hole_costs_no_memory_however_wide() {
        let mut life = Life::from_the_start();
        assert_eq!(life.show(u64::MAX - 1), Standing::Ahead);
        assert_eq!(life.holes().collect::<Vec<_>>(), [(1, u64::MAX - 2)]);
    }

    #[test]
    fn only_the_last_records_in_their_order_count_as_shown_again() {
        let mut life = Life::from_the_start();
        (1..=5).for_each(|seq| assert_eq!(life.show(seq), Standing::Ahead));
        life.kill();
        assert_eq!([4, 5, 6].map(|seq| life.show(seq)), {
            [Standing::ShownAgain, Standing::ShownAgain, Standing::Ahead]
        });
        assert_eq!(life.show(6), Standing::Repeated);
        life.kill();
        assert_eq!([4, 6].map(|seq| life.show(seq)), [Standing::ShownAgain, Standing::Repeated]);
    }
}
