//! What one sender posts, and what became of it.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;
use tokio::time::{Interval, MissedTickBehavior, interval};

/// Posts under way at once: enough that a cut hits some, few enough that pipes never fill.
const WINDOW: usize = 16;

/// The posts of a sender: `NAME-NUMBER-PADDING` with the id `NAME-NUMBER`.
#[derive(Debug)]
pub(crate) struct Feed {
    name: String,
    next: u32,
    last: u32,
    unanswered: BTreeSet<u32>,
    /// Unanswered when the client was killed: the line may never have been read.
    doubtful: BTreeSet<u32>,
    pace: Interval,
}

impl Feed {
    pub(crate) fn new(name: String, posts: u32, pace: Duration) -> Self {
        let mut pace = interval(pace);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (unanswered, doubtful) = (BTreeSet::new(), BTreeSet::new());
        Self { name, next: 1, last: posts, unanswered, doubtful, pace }
    }

    /// Waits for the time of the next post; for ever while none is due. It may be dropped and
    /// called again.
    pub(crate) async fn due(&mut self) {
        if self.next > self.last || self.unanswered.len() >= WINDOW {
            return std::future::pending().await;
        }
        self.pace.tick().await;
    }

    /// The next request, as a line.
    pub(crate) fn take(&mut self) -> String {
        let number = self.next;
        self.next = number.saturating_add(1);
        self.unanswered.insert(number);
        let id = format!("{}-{number}", self.name);
        let text = format!("{id}-{:x<16}", "");
        format!("{}\n", json!({ "type": "post", "room": "lobby", "text": text, "id": id }))
    }

    /// Takes note of an answer.
    pub(crate) fn answer(&mut self, id: &str) {
        let number = id.rsplit_once('-').and_then(|(_, number)| number.parse().ok());
        if let Some(number) = number
            && !self.unanswered.remove(&number)
        {
            self.doubtful.remove(&number);
        }
    }

    /// The client was killed.
    pub(crate) fn lose(&mut self) {
        self.doubtful.append(&mut self.unanswered);
    }

    pub(crate) fn is_done(&self) -> bool {
        self.next > self.last && self.unanswered.is_empty()
    }

    pub(crate) fn doubtful(&self) -> usize {
        self.doubtful.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn feed_is_done_once_everything_is_answered_or_lost_with_a_kill() {
        let mut feed = Feed::new("ana".into(), 2, Duration::from_millis(1));
        feed.due().await;
        assert!(feed.take().contains(r#""text":"ana-1-xxxxxxxxxxxxxxxx""#));
        feed.lose();
        feed.due().await;
        assert!(feed.take().contains(r#""id":"ana-2""#));
        assert!(!feed.is_done());
        feed.answer("ana-2");
        assert!(feed.is_done());
        assert_eq!(feed.doubtful(), 1);
        feed.answer("ana-1");
        assert_eq!(feed.doubtful(), 0);
    }
}
