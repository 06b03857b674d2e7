//! Both clocks of this process, as the state machine wants them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chatcore::time::{Moment, Now, Timestamp};
use tokio::time::Instant;

/// Reads the clocks; moments count from its start.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    origin: Instant,
}

impl Clock {
    pub(super) fn start() -> Self {
        Self { origin: Instant::now() }
    }

    pub(super) fn now(self) -> Now {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now {
            moment: Moment::from_millis(millis(self.origin.elapsed())),
            wall: Timestamp::new(millis(wall)).unwrap_or(Timestamp::MAX),
        }
    }

    /// When `moment` comes.
    pub(super) fn instant(self, moment: Moment) -> Instant {
        let after = Duration::from_millis(moment.as_millis());
        // A moment beyond what the clock can say is as good as never: a day is long enough.
        let day = Duration::from_hours(24);
        self.origin.checked_add(after).unwrap_or_else(|| Instant::now() + day)
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
