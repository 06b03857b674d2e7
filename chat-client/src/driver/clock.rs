//! The monotonic clock of this process, as the state machine wants it.

use std::time::Duration;

use chatcore::time::Moment;
use tokio::time::Instant;

/// Reads the clock; moments count from its start.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    origin: Instant,
}

impl Clock {
    pub(super) fn start() -> Self {
        Self { origin: Instant::now() }
    }

    pub(super) fn now(self) -> Moment {
        let millis = self.origin.elapsed().as_millis();
        Moment::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
    }

    /// When `moment` comes.
    pub(super) fn instant(self, moment: Moment) -> Instant {
        let after = Duration::from_millis(moment.as_millis());
        // A moment beyond what the clock can say is as good as never: a day is long enough.
        let day = Duration::from_hours(24);
        self.origin.checked_add(after).unwrap_or_else(|| Instant::now() + day)
    }
}
