//! The clocks, read in one place.

use std::time::{Instant, SystemTime};

use chatcore::time::{Moment, Now, Timestamp};

/// Reads both clocks for the engine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    origin: Instant,
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self { origin: Instant::now() }
    }

    pub(crate) fn now(self) -> Now {
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        // A clock before 1970 shows 1970: time in a room never runs back anyway.
        let millis = since_epoch.map_or(0, |span| u64::try_from(span.as_millis()).unwrap_or(0));
        let wall = Timestamp::new(millis).unwrap_or(Timestamp::MAX);
        Now { moment: self.moment(), wall }
    }

    pub(crate) fn moment(self) -> Moment {
        let millis = self.origin.elapsed().as_millis();
        Moment::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
    }

    /// The first instant at which [`Self::moment`] is at least `moment`.
    pub(crate) fn instant(self, moment: Moment) -> tokio::time::Instant {
        let span = std::time::Duration::from_millis(moment.as_millis());
        (self.origin + span).into()
    }
}

/// Sleeps until then, or for ever.
pub(crate) async fn sleep_until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
