//! When a silent server is asked for a sign of life, and when it is given up.

use crate::time::{Moment, Span};

/// Silence before a ping, while an answer is due.
const PING_WHEN_ASKED: Span = Span::from_secs(5);
/// Silence before a ping otherwise.
const PING_WHEN_IDLE: Span = Span::from_secs(60);
/// Silence after a ping before the connection counts as lost, while an answer is due.
const LOST_WHEN_ASKED: Span = Span::from_secs(10);
/// The same otherwise.
const LOST_WHEN_IDLE: Span = Span::from_secs(20);

/// Who spoke last, and who owes an answer.
#[derive(Debug)]
pub(super) struct Silence {
    heard: Moment,
    /// Since when the server has been silent while an answer is due.
    asked: Option<Moment>,
    pinged: Option<Moment>,
}

/// What a silence calls for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Fine,
    Ping,
    Lost,
}

impl Silence {
    pub(super) const fn new(now: Moment) -> Self {
        Self { heard: now, asked: None, pinged: None }
    }

    /// The server spoke.
    pub(super) const fn hear(&mut self, now: Moment) {
        *self = Self::new(now);
    }

    /// Whether an answer is due.
    pub(super) fn expect(&mut self, now: Moment, due: bool) {
        self.asked = due.then(|| self.asked.unwrap_or(now));
    }

    /// When to ask [`Silence::judge`] again.
    pub(super) fn deadline(&self) -> Moment {
        match (self.pinged, self.asked) {
            (None, None) => self.heard + PING_WHEN_IDLE,
            (None, Some(asked)) => asked + PING_WHEN_ASKED,
            (Some(pinged), None) => pinged + LOST_WHEN_IDLE,
            (Some(pinged), Some(asked)) => pinged.max(asked) + LOST_WHEN_ASKED,
        }
    }

    /// Judges the silence; a ping is then taken as sent.
    pub(super) fn judge(&mut self, now: Moment) -> Verdict {
        if now < self.deadline() {
            return Verdict::Fine;
        }
        if self.pinged.is_some() {
            return Verdict::Lost;
        }
        self.pinged = Some(now);
        Verdict::Ping
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(secs: u64) -> Moment {
        Moment::from_millis(secs * 1_000)
    }

    #[test]
    fn c3_unanswered_command_is_probed_after_5_s_and_given_up_10_s_later() {
        let mut silence = Silence::new(at(0));
        silence.expect(at(50), true);
        silence.expect(at(54), true);
        assert_eq!(silence.judge(at(54)), Verdict::Fine);
        assert_eq!(silence.judge(at(55)), Verdict::Ping);
        assert_eq!(silence.judge(at(64)), Verdict::Fine);
        assert_eq!(silence.judge(at(65)), Verdict::Lost);
    }

    #[test]
    fn c3_idle_connection_is_probed_after_60_s_and_given_up_20_s_later() {
        let mut silence = Silence::new(at(0));
        assert_eq!(silence.judge(at(59)), Verdict::Fine);
        assert_eq!(silence.judge(at(60)), Verdict::Ping);
        assert_eq!(silence.judge(at(79)), Verdict::Fine);
        assert_eq!(silence.judge(at(80)), Verdict::Lost);
    }

    #[test]
    fn anything_heard_ends_a_silence() {
        let mut silence = Silence::new(at(0));
        silence.expect(at(0), true);
        assert_eq!(silence.judge(at(5)), Verdict::Ping);
        silence.hear(at(14));
        silence.expect(at(14), true);
        assert_eq!(silence.deadline(), at(19));
    }
}
