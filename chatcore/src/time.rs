//! Time as the engine sees it: an argument, never a reading.
//!
//! Two clocks are kept apart because they fail differently. A [`Moment`] is monotonic and drives
//! every deadline; a [`Timestamp`] is the wall clock and is only shown to people. The host reads
//! both and passes them together as [`Now`], so a wall clock that jumps by a year moves no
//! deadline, and the engine stays a function of its inputs.

use core::fmt;
use core::ops::Add;

use serde::{Deserialize, Serialize};

use crate::id::{COUNTER_MAX, deserialize_bounded};

/// A length of time in milliseconds, at most [`COUNTER_MAX`] (285,000 years) as it travels.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Span(#[serde(deserialize_with = "deserialize_bounded")] u64);

impl Span {
    /// No time at all.
    pub const ZERO: Self = Self(0);

    /// A span of `millis` milliseconds; saturates at the largest span.
    pub const fn from_millis(millis: u64) -> Self {
        if millis > COUNTER_MAX { Self(COUNTER_MAX) } else { Self(millis) }
    }

    /// A span of `secs` seconds; saturates at the largest span.
    pub const fn from_secs(secs: u64) -> Self {
        Self::from_millis(secs.saturating_mul(1_000))
    }

    /// The number of milliseconds.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// What is left of it after a part is over; none when all of it is.
    #[must_use]
    pub const fn saturating_sub(self, part: Self) -> Self {
        Self(self.0.saturating_sub(part.0))
    }
}

/// A point on the host's monotonic clock, in milliseconds since any fixed origin.
///
/// Meaningful only within one run of one process; it is never stored and never sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(u64);

impl Moment {
    /// The moment `millis` milliseconds after the origin.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the origin.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// The span from `earlier` to `self`, zero when `earlier` is later.
    pub const fn since(self, earlier: Self) -> Span {
        Span::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Span> for Moment {
    type Output = Self;

    /// The moment `span` later; saturates at the end of time.
    fn add(self, span: Span) -> Self {
        Self(self.0.saturating_add(span.0))
    }
}

/// Wall-clock time: milliseconds since the Unix epoch, UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Timestamp(u64);

crate::id::bounded_u64!(Timestamp, "timestamp");

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}ms", self.0)
    }
}

/// Both clocks, read by the host at the same instant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// The monotonic clock: deadlines.
    pub moment: Moment,
    /// The wall clock: the time shown beside a message.
    pub wall: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn span_beyond_what_json_keeps_exact_is_refused_and_never_made() {
        assert_eq!(Span::from_millis(u64::MAX).as_millis(), COUNTER_MAX);
        assert_eq!(Span::from_secs(u64::MAX).as_millis(), COUNTER_MAX);
        let longest = Moment::from_millis(u64::MAX).since(Moment::from_millis(0));
        let bytes = postcard::to_allocvec(&longest).unwrap();
        assert_eq!(postcard::from_bytes::<Span>(&bytes), Ok(longest));
        let longer = postcard::to_allocvec(&(COUNTER_MAX + 1)).unwrap();
        assert!(postcard::from_bytes::<Span>(&longer).is_err());
    }
}
