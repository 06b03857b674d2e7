//! How long to wait before dialling again.

use crate::time::{Moment, Span};

/// The first dial after a loss comes within this.
const FIRST: Span = Span::from_millis(100);
/// The longest wait during [`EARLY`].
const EARLY_MAX: Span = Span::from_secs(5);
/// How long after it was last logged in the waits stay short.
const EARLY: Span = Span::from_secs(60);
/// The longest wait later.
const LATE_MAX: Span = Span::from_secs(60);
/// A connection that was shorter was not a good one, however easily it was had.
const GOOD_MIN: Span = Span::from_secs(2);
/// A connection that lasted so long was a good one, whatever it took to have it.
const GOOD_MAX: Span = Span::from_secs(10);

/// Exponential waits with full jitter, so that clients that lost the same server do not come back
/// in step.
///
/// Source: Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
#[derive(Debug)]
pub(super) struct Backoff {
    random: SplitMix64,
    /// Since when nobody is logged in, and the bound of the last wait; none after a good connection.
    run: Option<(Moment, Span)>,
}

impl Backoff {
    pub(super) const fn new(seed: u64) -> Self {
        Self { random: SplitMix64(seed), run: None }
    }

    /// It was logged in for so long, until now.
    ///
    /// When that was twice as long as the longest wait that may have gone before, but two seconds at
    /// least and ten at most, the connection was a good one, and its loss is a first one: who is with a
    /// server that dies often waits less than it talks. When it was shorter the waits go on growing, but
    /// not beyond those of the first minute: there is a server.
    pub(super) fn served(&mut self, now: Moment, time: Span) {
        self.run = self.run.and_then(|(_, bound)| {
            let twice = Span::from_millis(bound.as_millis().saturating_mul(2));
            let enough = twice.clamp(GOOD_MIN, GOOD_MAX);
            (time < enough).then(|| (now, bound.min(EARLY_MAX)))
        });
    }

    /// How long to wait after one more loss; at least `floor`, which a server may dictate.
    pub(super) fn next(&mut self, now: Moment, floor: Span) -> Span {
        let (began, bound) = match self.run {
            None => (now, FIRST),
            Some((began, bound)) => {
                let early = now.since(began) < EARLY;
                let most = if early { EARLY_MAX } else { LATE_MAX };
                (began, Span::from_millis(bound.as_millis().saturating_mul(2)).min(most))
            }
        };
        self.run = Some((began, bound));
        let jitter = self.random.up_to(bound.as_millis());
        Span::from_millis(floor.as_millis().saturating_add(jitter))
    }
}

/// A tiny generator of evenly spread numbers; not for secrets.
///
/// Source: Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014; the
/// constants are those of Vigna's `splitmix64.c`.
#[derive(Debug)]
struct SplitMix64(u64);

impl SplitMix64 {
    const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 to `most`. The remainder's bias is far below a millisecond.
    fn up_to(&mut self, most: u64) -> u64 {
        let count = most.saturating_add(1);
        self.next().checked_rem(count).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splitmix64_gives_the_published_numbers() {
        let mut random = SplitMix64(1_234_567);
        let numbers = [random.next(), random.next(), random.next()];
        assert_eq!(
            numbers,
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]
        );
    }

    #[test]
    fn first_dial_is_immediate_and_waits_double_up_to_their_bound() {
        let mut longest = [Span::ZERO; 14];
        for seed in 0..2_000 {
            let mut backoff = Backoff::new(seed);
            for (step, longest) in longest.iter_mut().enumerate() {
                let minutes = if step < 9 { 0 } else { 2 };
                let now = Moment::from_millis(minutes * 60_000);
                *longest = backoff.next(now, Span::ZERO).max(*longest);
            }
        }
        let bounds = [
            100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000, 5_000, 10_000, 20_000, 40_000, 60_000,
            60_000,
        ];
        for (longest, bound) in longest.iter().zip(bounds) {
            assert!((bound * 9 / 10..=bound).contains(&longest.as_millis()), "{longest:?} {bound}");
        }
    }

    #[test]
    fn wait_that_a_server_dictates_is_a_lower_bound() {
        let mut backoff = Backoff::new(7);
        let floor = Span::from_secs(3);
        let waits: Vec<Span> = (0..50).map(|_| backoff.next(Moment::default(), floor)).collect();
        assert!(waits.iter().all(|wait| *wait >= floor));
    }

    /// A client that waited `losses` times since its last good connection.
    fn after(losses: u32) -> Backoff {
        let mut backoff = Backoff::new(7);
        for _ in 0..losses {
            let _ = backoff.next(Moment::default(), Span::ZERO);
        }
        backoff
    }

    #[test]
    fn good_connection_makes_the_next_dial_immediate_again() {
        for (losses, good) in [(1, 2_000), (4, 2_000), (5, 3_200), (7, 10_000), (20, 10_000)] {
            let mut backoff = after(losses);
            backoff.served(Moment::default(), Span::from_millis(good));
            assert!(backoff.next(Moment::default(), Span::ZERO) <= FIRST, "{losses} losses");
        }
    }

    #[test]
    fn short_connection_does_not_shorten_the_waits() {
        for (losses, short) in [(1, 1_999), (4, 1_999), (5, 3_199), (20, 9_999)] {
            let (mut served, mut other) = (after(losses), after(losses));
            served.served(Moment::default(), Span::from_millis(short));
            let next = |backoff: &mut Backoff| backoff.next(Moment::default(), Span::ZERO);
            assert_eq!(next(&mut served), next(&mut other), "{losses} losses");
        }
    }

    #[test]
    fn waits_stay_short_with_a_server_that_dies_every_few_seconds() {
        let mut backoff = Backoff::new(7);
        for death in 1..100 {
            let now = Moment::from_millis(death * 3_000);
            backoff.served(now, Span::from_secs(2));
            // It takes a while to come up: the first dial fails.
            let waits = [backoff.next(now, Span::ZERO), backoff.next(now, Span::ZERO)];
            let [first, second] = waits.map(Span::as_millis);
            assert!(first <= 100 && second <= 200, "at death {death}: {waits:?}");
        }
    }

    #[test]
    fn waits_grow_to_5_s_and_no_further_as_long_as_a_server_lets_one_in_and_dies_at_once() {
        let (mut backoff, mut longest) = (Backoff::new(7), Span::ZERO);
        for death in 1..1_000 {
            let now = Moment::from_millis(death * 5_000);
            backoff.served(now, Span::from_millis(1_500));
            longest = backoff.next(now, Span::ZERO).max(longest);
        }
        assert!((Span::from_secs(4)..=EARLY_MAX).contains(&longest), "{longest:?}");
    }
}
