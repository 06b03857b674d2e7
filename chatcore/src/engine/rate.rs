//! How often something may happen: so much at once, and so much in the long run.

use crate::time::{Moment, Span};

const SECOND: u64 = 1_000_000;

/// What a rate allows, in microseconds of time: each unit takes its share of them, and so much may be
/// taken in advance.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Allowance {
    /// A unit takes `micros / units` of them.
    micros: u64,
    units: u64,
    capacity: u64,
}

impl Allowance {
    /// One after each interval, and `burst` at once, at least one.
    pub(crate) fn every(interval: Span, burst: u32) -> Self {
        let micros = interval.as_millis().saturating_mul(1_000);
        Self { micros, units: 1, capacity: micros.saturating_mul(u64::from(burst.max(1))) }
    }

    /// So many a second, and `burst` at once.
    pub(crate) fn per_second(count: u64, burst: u64) -> Self {
        let (micros, units) = (SECOND, count.max(1));
        let capacity = SECOND.saturating_mul(burst.max(1)).checked_div(units);
        Self { micros, units, capacity: capacity.unwrap_or(u64::MAX) }
    }

    /// What so many units take; never more than there can be.
    fn cost(&self, count: u64) -> u64 {
        let cost = count.saturating_mul(self.micros).checked_div(self.units);
        cost.unwrap_or(u64::MAX).min(self.capacity)
    }
}

/// What was taken of an allowance: the generic cell rate algorithm, with one number of state.
///
/// Source: ITU-T I.371; the number is the theoretical arrival time of the next event.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rate {
    next_micros: u64,
}

impl Rate {
    /// Of which nothing was taken.
    pub(crate) const fn fresh() -> Self {
        Self { next_micros: 0 }
    }

    /// Takes one unit, or says how long to wait.
    pub(crate) fn take(&mut self, now: Moment, allowance: Allowance) -> Result<(), Span> {
        self.take_many(now, allowance, 1)
    }

    /// Takes so many units at once, or says how long to wait.
    pub(crate) fn take_many(
        &mut self,
        now: Moment,
        allowance: Allowance,
        count: u64,
    ) -> Result<(), Span> {
        let cost = allowance.cost(count);
        if let Some(wait) = self.wait(now, allowance, cost) {
            return Err(wait);
        }
        self.next_micros = self.next_micros.max(micros(now)).saturating_add(cost);
        Ok(())
    }

    /// How long until so many units and, if that is more, a quarter of all may be taken: whoever has
    /// to send again does so in bulk. `None` when the units may be taken now.
    pub(crate) fn wait_in_bulk(
        self,
        now: Moment,
        allowance: Allowance,
        count: u64,
    ) -> Option<Span> {
        let cost = allowance.cost(count);
        self.wait(now, allowance, cost)?;
        let bulk = allowance.capacity.checked_div(4).unwrap_or(0);
        self.wait(now, allowance, cost.max(bulk))
    }

    /// How long until so much may be taken, in whole milliseconds, rounded up.
    fn wait(self, now: Moment, allowance: Allowance, cost: u64) -> Option<Span> {
        let taken = self.next_micros.saturating_sub(micros(now));
        let excess = taken.saturating_add(cost).saturating_sub(allowance.capacity);
        (excess > 0).then(|| Span::from_millis(excess.div_ceil(1_000)))
    }
}

const fn micros(moment: Moment) -> u64 {
    moment.as_millis().saturating_mul(1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_allows_a_burst_and_then_one_per_interval() {
        let interval = Span::from_secs(60);
        let (allowance, mut rate) = (Allowance::every(interval, 10), Rate::fresh());
        let at = |secs: u64| Moment::from_millis(1_000_000 + secs * 1_000);
        for _ in 0..10 {
            assert_eq!(rate.take(at(0), allowance), Ok(()));
        }
        assert_eq!(rate.take(at(0), allowance), Err(interval));
        assert_eq!(rate.take(at(59), allowance), Err(Span::from_secs(1)));
        assert_eq!(rate.take(at(60), allowance), Ok(()));
        assert_eq!(rate.take(at(60), allowance), Err(interval));
    }

    #[test]
    fn rate_of_thousands_a_second_is_kept_to_the_unit() {
        let (allowance, mut rate) = (Allowance::per_second(2_000, 100), Rate::fresh());
        let mut count = |now: u64, units: u64| {
            let now = Moment::from_millis(now);
            let mut taken = 0;
            while rate.take_many(now, allowance, units).is_ok() {
                taken += units;
            }
            taken
        };
        assert_eq!(count(5_000, 1), 100);
        assert_eq!(count(5_001, 1), 2);
        assert_eq!(count(5_011, 7), 14, "twenty are there, seven at once");
        assert_eq!(count(9_000, 1), 100, "what was not used is not saved up");
    }

    #[test]
    fn what_is_more_than_all_takes_all_and_who_goes_back_waits_for_a_quarter() {
        let (allowance, mut rate) = (Allowance::per_second(1_000, 400), Rate::fresh());
        let now = Moment::from_millis(5_000);
        assert_eq!(rate.take_many(now, allowance, 9_999), Ok(()));
        assert_eq!(rate.take(now, allowance), Err(Span::from_millis(1)));
        assert_eq!(rate.wait_in_bulk(now, allowance, 1), Some(Span::from_millis(100)));
        assert_eq!(rate.wait_in_bulk(now, allowance, 300), Some(Span::from_millis(300)));
        assert_eq!(rate.wait_in_bulk(Moment::from_millis(5_001), allowance, 1), None);
    }
}
