//! What one sender posts, and what became of it.

use std::collections::{BTreeMap, BTreeSet};
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
    /// Acknowledged while the gate of this life held them, and not shown yet.
    held: BTreeMap<u32, u64>,
    pace: Interval,
}

impl Feed {
    pub(crate) fn new(name: String, posts: u32, pace: Duration) -> Self {
        let mut pace = interval(pace);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (unanswered, doubtful) = (BTreeSet::new(), BTreeSet::new());
        Self { name, next: 1, last: posts, unanswered, doubtful, held: BTreeMap::new(), pace }
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

    /// Takes note of an answer; false when it is to none of the posts.
    pub(crate) fn answer(&mut self, id: &str) -> bool {
        let Some(number) = self.number_of(id) else { return false };
        if !self.unanswered.remove(&number) {
            self.doubtful.remove(&number);
        }
        true
    }

    /// Takes note that a gate holds a post in a life of the room.
    pub(crate) fn hold(&mut self, id: &str, life: u64) {
        if let Some(number) = self.number_of(id) {
            self.held.insert(number, life);
        }
    }

    /// Takes note of a message that is shown.
    pub(crate) fn show(&mut self, text: &str) {
        let id = text.rsplit_once('-').map_or(text, |(id, _padding)| id);
        if let Some(number) = self.number_of(id) {
            self.held.remove(&number);
        }
    }

    /// Takes note of a life of the room: what an earlier one held ended with it.
    pub(crate) fn enter(&mut self, life: u64) {
        self.held.retain(|_, held_in| *held_in >= life);
    }

    fn number_of(&self, id: &str) -> Option<u32> {
        id.strip_prefix(self.name.as_str())?.strip_prefix('-')?.parse().ok()
    }

    /// The client was killed.
    pub(crate) fn lose(&mut self) {
        self.doubtful.append(&mut self.unanswered);
    }

    /// Whether all posts are answered, and none waits for a gate.
    pub(crate) fn is_done(&self) -> bool {
        self.next > self.last && self.unanswered.is_empty() && self.held.is_empty()
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
        assert!(feed.answer("ana-2"));
        assert!(feed.is_done());
        assert_eq!(feed.doubtful(), 1);
        feed.answer("ana-1");
        assert_eq!(feed.doubtful(), 0);
        assert!(!feed.answer("7") && !feed.answer("bob-1"), "these are not of the feed");
    }

    #[tokio::test]
    async fn feed_is_not_done_while_a_gate_holds_a_post_of_a_life_that_goes_on() {
        let mut feed = Feed::new("ana".into(), 2, Duration::from_millis(1));
        for id in ["ana-1", "ana-2"] {
            feed.due().await;
            feed.take();
            feed.answer(id);
            feed.hold(id, 1);
        }
        feed.show("ana-1-xxxxxxxxxxxxxxxx");
        feed.enter(1);
        assert!(!feed.is_done());
        feed.enter(2);
        assert!(feed.is_done());
    }
}
