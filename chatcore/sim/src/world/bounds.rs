//! What connections may take of the server: memory, and timers.

use std::collections::BTreeMap;

use chatcore::engine::Input;
use chatcore::id::ConnId;
use chatcore::limits::Limits;
use chatcore::time::{Moment, Span};
use chatcore::wire::{FRAME_BYTES_MAX, GREETING_FRAME_BYTES_MAX};

use crate::broken::{Broken, hold};

/// What a connection may leave unread that has not logged in.
const GREETING_UNREAD_MAX: usize = 8 << 10;

/// What a frame is longer than what it carries.
const PREFIX_BYTES: usize = 4;

/// What one connection takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Taken {
    pub(crate) conn: ConnId,
    pub(crate) logged_in: bool,
    /// Whether it was told why it closes.
    pub(crate) closing: bool,
    /// Bytes of answers that wait for it.
    pub(crate) unread: usize,
    /// Bytes that came from it and are no whole frame yet.
    pub(crate) received: usize,
}

impl Taken {
    /// What it may leave unread, and what may have come of a frame. One frame may pass the bound,
    /// and a last one comes.
    const fn most(self, limits: &Limits) -> (usize, usize) {
        if self.logged_in {
            let unread = limits.unread_bytes_max + 2 * FRAME_BYTES_MAX;
            (unread, FRAME_BYTES_MAX + PREFIX_BYTES)
        } else {
            (GREETING_UNREAD_MAX, GREETING_FRAME_BYTES_MAX + PREFIX_BYTES)
        }
    }
}

/// No connection takes more than it may, and all of them together no more than `connections_max` of
/// them, of which not too many have not logged in, and those that are being closed.
pub(crate) fn check_memory(all: &[Taken], limits: &Limits) -> Result<(), Broken> {
    for taken in all {
        let (unread, received) = taken.most(limits);
        let well = taken.unread <= unread && taken.received <= received;
        hold!(well, "what waits for a connection is bounded", "{}: {taken:?}", taken.conn);
    }
    let open = || all.iter().filter(|taken| !taken.closing);
    let (count, greeting) = (open().count(), open().filter(|taken| !taken.logged_in).count());
    let most = usize::try_from(limits.connections_max).unwrap_or(usize::MAX);
    let share = u64::from(limits.connections_max) * u64::from(limits.greeting_percent);
    let greeting_most = usize::try_from(share.div_ceil(100)).unwrap_or(usize::MAX);
    let well = count <= most && greeting <= greeting_most;
    hold!(well, "connections are bounded", "{count} of {most}, {greeting} of {greeting_most}");
    // What the limits promise of all, and what is on top of it for each: a frame on its way in, one
    // answer beyond the bound, and the last frame. Those that close are not among `connections_max`.
    let mut most = most.saturating_mul(limits.unread_bytes_max);
    for taken in all {
        let own = if taken.closing { limits.unread_bytes_max } else { 0 };
        most = most.saturating_add(own + 3 * FRAME_BYTES_MAX + PREFIX_BYTES);
    }
    let taken: usize = all.iter().map(|taken| taken.unread + taken.received).sum();
    hold!(taken <= most, "what waits for all connections is bounded", "{taken} of {most}");
    Ok(())
}

/// After an input no deadline lies in the past, but one that was missed before; and none at all
/// after `Timeout`.
pub(crate) fn check_deadline(
    before: Option<Moment>,
    after: Option<Moment>,
    now: Moment,
    is_timeout: bool,
) -> Result<(), Broken> {
    let Some(due) = after else { return Ok(()) };
    let well = if is_timeout { due > now } else { due >= before.map_or(now, |it| it.min(now)) };
    hold!(well, "no timer is left in the past", "{due:?} at {now:?}, {before:?} before");
    Ok(())
}

/// How often the engine wanted to be woken for nothing.
///
/// A connection has one timer. It is not moved with every frame: it comes to see that it is too
/// early, and then a ping interval after the connection was last heard. So between two of its wakes
/// there is an interval, but for the time that it was silent at the first. Other wakes may come to
/// nothing, too: the login time of who is logged in, the end of a grace of who is in no room, a retry
/// after a read that failed. There is one for each.
#[derive(Debug)]
pub(crate) struct Wakes {
    interval: u64,
    /// When each connection was last heard.
    heard: BTreeMap<ConnId, u64>,
    /// How long connections were there, and how long one of them had been silent at each wake, all
    /// together, in milliseconds.
    time: u64,
    seen_at: u64,
    allowed: u64,
    idle: u64,
}

impl Wakes {
    pub(crate) const fn new(ping_interval: Span, now: u64) -> Self {
        let interval = ping_interval.as_millis();
        let heard = BTreeMap::new();
        Self { interval, heard, time: 0, seen_at: now, allowed: 0, idle: 0 }
    }

    /// The engine is told something.
    pub(crate) fn told(&mut self, now: u64, input: &Input) {
        let count = u64::try_from(self.heard.len()).unwrap_or(u64::MAX);
        self.time = self.time.saturating_add((now - self.seen_at).saturating_mul(count));
        self.seen_at = now;
        if let Input::Connected { conn, .. } | Input::Frame { conn, .. } = input {
            self.heard.insert(*conn, now);
        }
        if let Input::Disconnected { conn } = input {
            self.heard.remove(conn);
        }
        let may_come_to_nothing = matches!(
            input,
            Input::Connected { .. } | Input::Disconnected { .. } | Input::ReadFailed { .. }
        );
        self.allowed += u64::from(may_come_to_nothing);
    }

    /// It was woken when it wanted to be; whether nothing came of it.
    pub(crate) fn woke(&mut self, is_idle: bool) -> Result<(), Broken> {
        let silence = self.heard.values().map(|at| self.seen_at - at).max().unwrap_or(0);
        self.idle += u64::from(is_idle);
        let most = self.allowed + self.time / self.interval.max(1);
        hold!(self.idle <= most, "a connection has one timer", "{} wakes of {most}", self.idle);
        self.time = self.time.saturating_add(silence.min(self.interval));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use chatcore::id::Nonce;
    use chatcore::wire::ClientFrame;

    use super::*;

    /// Connections that took nothing yet, logged in or not.
    fn taken(count: u64, logged_in: bool) -> Vec<Taken> {
        let taken = |conn| Taken {
            conn: ConnId::new(conn),
            logged_in,
            closing: false,
            unread: 0,
            received: 0,
        };
        (0..count).map(taken).collect()
    }

    fn limits() -> Limits {
        Limits { connections_max: 4, greeting_percent: 50, ..Limits::default() }
    }

    fn rule(all: &[Taken]) -> Option<&'static str> {
        check_memory(all, &limits()).err().map(|broken| broken.rule)
    }

    #[test]
    fn who_has_not_logged_in_may_leave_less_unread() {
        let mut all = [taken(1, true), taken(1, false)].concat();
        all.iter_mut().for_each(|it| it.unread = GREETING_UNREAD_MAX);
        assert_eq!(rule(&all), None);
        all[0].unread += 1;
        assert_eq!(rule(&all), None);
        all[1].unread += 1;
        assert_eq!(rule(&all), Some("what waits for a connection is bounded"));
        all[1] = Taken { unread: 0, received: GREETING_FRAME_BYTES_MAX + 5, ..all[1] };
        assert_eq!(rule(&all), Some("what waits for a connection is bounded"));
    }

    #[test]
    fn connections_are_no_more_than_the_limits_say() {
        assert_eq!(rule(&taken(4, true)), None);
        assert_eq!(rule(&taken(5, true)), Some("connections are bounded"));
        assert_eq!(rule(&taken(3, false)), Some("connections are bounded"));
        let mut all = taken(5, true);
        all[0].closing = true;
        assert_eq!(rule(&all), None);
    }

    #[test]
    fn all_connections_together_take_no_more_than_the_limits_promise() {
        let mut all = taken(4, true);
        let each = limits().unread_bytes_max + 2 * FRAME_BYTES_MAX;
        all.iter_mut().for_each(|it| it.unread = each);
        assert_eq!(rule(&all), None);
        let broken = check_memory(&all, &Limits { unread_bytes_max: 1, ..limits() });
        assert!(broken.is_err());
    }

    #[test]
    fn deadline_in_the_past_is_noticed() {
        let at = |millis| Some(Moment::from_millis(millis));
        let check = |before, after, is_timeout| {
            check_deadline(before, after, Moment::from_millis(10), is_timeout).is_ok()
        };
        assert!(check(at(20), at(10), false) && check(None, None, true));
        assert!(check(at(5), at(5), false) && check(at(5), at(7), false));
        assert!(!check(at(20), at(9), false) && !check(None, at(9), false));
        assert!(!check(at(5), at(4), false));
        assert!(!check(at(5), at(10), true) && check(at(5), at(11), true));
    }

    #[test]
    fn second_timer_of_a_connection_is_noticed() {
        let conn = ConnId::new(1);
        let nonce = Nonce::new([0; Nonce::LEN]);
        let wakes_of = |timers: u32| {
            let mut wakes = Wakes::new(Span::from_secs(1), 0);
            wakes.told(
                0,
                &Input::Connected { conn, nonce, channel: None, address: None, waited: Span::ZERO },
            );
            (1..9).try_for_each(|second| {
                wakes.told(second * 1_000, &Input::Frame { conn, frame: ClientFrame::Leave });
                (0..timers).try_for_each(|_| wakes.woke(true))
            })
        };
        assert!(wakes_of(1).is_ok());
        assert_eq!(wakes_of(2).expect_err("too many").rule, "a connection has one timer");
    }
}
