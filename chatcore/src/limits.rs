//! Every bound of the engine in one place, with its reason and what happens there.

use crate::time::Span;

/// Answers remembered per session: a command sent again within so many gets its first answer.
pub const REMEMBERED_ANSWERS: usize = 64;

/// What an engine accepts. The default suits a server for some ten thousand people on one machine.
///
/// Checked once, when the engine is made. Raising a bound costs the memory that
/// [`Limits::worst_case_bytes`] counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once, without those that are being closed; more are closed with `E_BUSY`.
    /// Default 12,000; about 2 KiB each, and what they leave unread (`unread_bytes_max`).
    pub connections_max: u32,
    /// Share of `connections_max` that may be connections that have not logged in, in percent, 1 to
    /// 100; more are closed with `E_BUSY`. Default 25.
    pub greeting_percent: u32,
    /// Bytes that connections may take, all of them at their worst: 8 KiB for one that has not logged
    /// in, and for one that has `unread_bytes_max` and the longest frame. A log-in that would leave
    /// less than a tenth of it is closed with `E_BUSY`. Default 4 GiB, with which some 11,800 fit.
    pub memory_max: u64,
    /// From accept to welcome; later the connection closes with `E_LIMIT`. Default 10 s.
    pub login_time: Span,
    /// A connection that is silent for so long is pinged. Default 30 s.
    pub ping_interval: Span,
    /// Pings that may stay unanswered before the connection closes with `E_LIMIT`. Default 2.
    pub pings_unanswered_max: u32,
    /// A user whose last connection broke stays a member for so long. Default 20 s.
    pub grace: Span,
    /// Users with a name; more are refused with `E_LIMIT`. Default 100,000; about 500 bytes each.
    pub users_max: u32,
    /// Users who may be banned at once, which costs nothing more than that they are users; one more
    /// ban is refused with `E_LIMIT`. Default 10,000.
    pub bans_max: u32,
    /// Sessions kept; beyond it the least recently used one that is older than `session_age_min`
    /// and not connected expires, else the log-in is refused with `E_BUSY`. Default 100,000; up to
    /// 8 KiB each when all answers are remembered.
    pub sessions_max: u32,
    /// Sessions kept per user; handled as `sessions_max`, refused with `E_LIMIT`. Default 16.
    pub sessions_per_user_max: u32,
    /// No session expires that was used within this span, at least 1 ms. Default 24 h.
    pub session_age_min: Span,
    /// Rooms on the server; joining one more is refused with `E_LIMIT`. Default 4,096; about 2 KiB
    /// each, empty.
    pub rooms_max: u32,
    /// Rooms per user; joining one more is refused with `E_LIMIT`. Default 64.
    pub rooms_per_user_max: u32,
    /// Records that one room holds while its gate is closed; more posts are refused with `E_LIMIT`,
    /// and joins and leaves make no record. Default 10,000.
    pub held_records_max: u32,
    /// Bytes that one room holds while its gate is closed; handled as `held_records_max`. A join or
    /// leave that begins below it may end one name above. Default 8 MiB.
    pub held_bytes_max: u64,
    /// Bytes that all rooms together hold while their gates are closed; handled as
    /// `held_records_max`. Default 64 MiB.
    pub held_bytes_total_max: u64,
    /// Bytes of visible records kept in memory; older ones are read from the store, or are gone
    /// when there is none. Default 64 MiB.
    pub window_bytes: u64,
    /// Bytes of records that one page of history or one step of catching up reads. Default 32 KiB,
    /// at most 48 KiB so that a page fits in a frame.
    pub page_bytes: usize,
    /// Above so many members joins and leaves make no records, and gate notices are sent at most
    /// once per `crowd_notice_interval`. Default 500.
    pub crowd_members: u32,
    /// See `crowd_members`. Default 1 s.
    pub crowd_notice_interval: Span,
    /// Frames that a connection may send a second after its log-in, in the long run. What is more is
    /// refused with `E_RATE` (a reset with `E_BUSY`), which uses up no counter, and who goes on all the
    /// same, for so many frames more, is closed with `E_LIMIT`. Default 2,000.
    pub frames_per_second: u32,
    /// Frames that a connection may send at once, at least 512, so that a client that has 64 commands
    /// under way and waits as it is told is never closed; see `frames_per_second`. Default 4,000.
    pub frames_burst: u32,
    /// Bytes that a connection may send a second, as [`counted`]; handled as `frames_per_second`.
    /// Default 2 MiB.
    ///
    /// [`counted`]: crate::wire::ClientFrame::counted_bytes
    pub bytes_per_second: u64,
    /// Bytes that a connection may send at once, at least 64 KiB; see `bytes_per_second`. Default
    /// 4 MiB.
    pub bytes_burst: u64,
    /// New sessions that may log in a second, in the long run; more are closed with `E_BUSY`, to come
    /// again after 1 to 5 s, each at another time. Default 200.
    pub logins_per_second: u32,
    /// New sessions that may log in at once. Default 400.
    pub logins_burst: u32,
    /// Known sessions that may log in a second, in the long run; handled as `logins_per_second`.
    /// Default 2,000.
    pub returns_per_second: u32,
    /// Known sessions that may log in at once. Default 4,000.
    pub returns_burst: u32,
    /// Questions a connection may ask at once; more are refused with `E_RATE`. An answer may be a
    /// thousand times as long as its question. Default 128, twice what a client that comes back to
    /// all its rooms asks.
    pub question_burst: u32,
    /// One more question is allowed after so long. Default 20 ms.
    pub question_interval: Span,
    /// Answers of one connection that wait for entries to be made safe; what is asked or posted
    /// beyond is refused with `E_BUSY`, which uses up no counter. Default 1,024.
    pub waiting_per_connection_max: u32,
    /// As `waiting_per_connection_max`, of all connections together; a log-in beyond is closed with
    /// `E_BUSY`. Default 65,536; about 512 bytes each, and up to 8 KiB for the text of a post.
    pub waiting_max: u32,
    /// Resets one operator may make at once. Default 10.
    pub reset_burst: u32,
    /// One more reset is allowed after so long. Default 60 s.
    pub reset_interval: Span,
    /// Bytes of answers that a connection leaves unread; more closes it with `E_LIMIT`. Records
    /// never count: a reader that lags is a cursor. Default 256 KiB.
    pub unread_bytes_max: usize,
    /// A connection that has bytes waiting and takes none for so long closes with `E_LIMIT`.
    /// Default 60 s.
    pub stall_time: Span,
    /// Log-ins that wait at a follower until it leads; more are closed with `E_BUSY`, to come again as
    /// after `logins_per_second`. They are connections of `connections_max`, not of its share that has
    /// not logged in, and count for `memory_max` as those that have. Sessions that the journal does not
    /// know may wait while all who wait are within the share that `greeting_percent` says, so that
    /// strangers keep no member out. Default 12,000.
    pub parked_max: u32,
    /// A log-in waits at a follower for so long; then its connection closes with `E_BUSY`. A move takes
    /// a few seconds from its announcement to its end. Default 60 s.
    pub parked_time: Span,
    /// Commands and questions that a connection may send while its log-in waits; with more it closes
    /// with `E_BUSY`. At most 512. Default 256, enough for a client that comes back to all its rooms and
    /// asks of each who is there.
    pub parked_frames_max: u32,
    /// Bytes of these, [`counted`] as for `bytes_per_second`; handled as `parked_frames_max`. At most
    /// `unread_bytes_max`, as it is that memory which they take. Default 64 KiB.
    ///
    /// [`counted`]: crate::wire::ClientFrame::counted_bytes
    pub parked_bytes_max: u64,
    /// After it was told that the chat moved, a connection is closed with `E_GONE` after so long, unless
    /// its client leaves before: so long it may take to log in where the chat is now. Default 2 s.
    pub moved_time: Span,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 12_000,
            greeting_percent: 25,
            memory_max: 4 << 30,
            login_time: Span::from_secs(10),
            ping_interval: Span::from_secs(30),
            pings_unanswered_max: 2,
            grace: Span::from_secs(20),
            users_max: 100_000,
            bans_max: 10_000,
            sessions_max: 100_000,
            sessions_per_user_max: 16,
            session_age_min: Span::from_secs(24 * 60 * 60),
            rooms_max: 4_096,
            rooms_per_user_max: 64,
            held_records_max: 10_000,
            held_bytes_max: 8 << 20,
            held_bytes_total_max: 64 << 20,
            window_bytes: 64 << 20,
            page_bytes: 32 << 10,
            crowd_members: 500,
            crowd_notice_interval: Span::from_secs(1),
            frames_per_second: 2_000,
            frames_burst: 4_000,
            bytes_per_second: 2 << 20,
            bytes_burst: 4 << 20,
            logins_per_second: 200,
            logins_burst: 400,
            returns_per_second: 2_000,
            returns_burst: 4_000,
            question_burst: 128,
            question_interval: Span::from_millis(20),
            waiting_per_connection_max: 1_024,
            waiting_max: 65_536,
            reset_burst: 10,
            reset_interval: Span::from_secs(60),
            unread_bytes_max: 256 << 10,
            stall_time: Span::from_secs(60),
            parked_max: 12_000,
            parked_time: Span::from_secs(60),
            parked_frames_max: 256,
            parked_bytes_max: 64 << 10,
            moved_time: Span::from_secs(2),
        }
    }
}

/// What a connection takes at its worst before its log-in.
const GREETING_BYTES: u64 = 8 << 10;

/// What it may be in the middle of sending after that.
pub(crate) const LONGEST_FRAME_BYTES: usize = 64 << 10;

/// While a client waits for a quarter of what it may send at once, what it had under way comes in vain:
/// a window of commands and as many questions, twice.
const FRAMES_BURST_MIN: u32 = 512;

/// A limit outside its range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name} is {value}, it must be {min} to {max}")]
pub struct LimitsError {
    /// The field.
    pub name: &'static str,
    /// Its value.
    pub value: u64,
    /// The smallest allowed.
    pub min: u64,
    /// The largest allowed.
    pub max: u64,
}

/// Rough memory of one connection, user, session, remembered answer and room, for
/// [`Limits::worst_case_bytes`].
const CONNECTION_BYTES: u64 = 2 << 10;
const USER_BYTES: u64 = 512;
const SESSION_BYTES: u64 = 256;
const ANSWER_BYTES: u64 = 128;
const ROOM_BYTES: u64 = 2 << 10;
/// A membership is known to the user, the room, the feed, the attendance, the connection and its
/// shard.
const MEMBERSHIP_BYTES: u64 = 768;
/// An entry with the longest text, its encoded record, and the answer that waits for it.
const WAITING_BYTES: u64 = 9 << 10;
/// Records that a delivery shard keeps.
const SHARD_BYTES: u64 = 256 << 20;

impl Limits {
    /// The bytes that connections may take at their worst, when so many of them have not logged in and so
    /// many have.
    pub fn reserved_bytes(&self, greeting: u32, online: u32) -> u64 {
        let each = self.unread_bytes_max.saturating_add(LONGEST_FRAME_BYTES);
        let each = u64::try_from(each).unwrap_or(u64::MAX);
        let of_online = u64::from(online).saturating_mul(each);
        u64::from(greeting).saturating_mul(GREETING_BYTES).saturating_add(of_online)
    }

    /// Whether so many connections leave a tenth of `memory_max`.
    pub fn has_memory_for(&self, greeting: u32, online: u32) -> bool {
        let tenth = self.memory_max.checked_div(10).unwrap_or(0);
        self.reserved_bytes(greeting, online) <= self.memory_max.saturating_sub(tenth)
    }

    /// How many connections may be on their way to a log-in at once: the share of
    /// `connections_max` that `greeting_percent` says.
    pub fn greeting_max(&self) -> u32 {
        self.greeting_share_of(self.connections_max)
    }

    /// How many log-ins may wait at a follower for one of a session that the journal does not know to
    /// wait, too.
    pub fn parked_strangers_max(&self) -> u32 {
        self.greeting_share_of(self.parked_max)
    }

    fn greeting_share_of(&self, count: u32) -> u32 {
        let share = u64::from(count).saturating_mul(self.greeting_percent.into());
        u32::try_from(share.div_ceil(100)).unwrap_or(u32::MAX)
    }

    /// Checks every field.
    ///
    /// # Errors
    /// The first field that is out of range.
    pub fn check(&self) -> Result<(), LimitsError> {
        let page_bytes = u64::try_from(self.page_bytes).unwrap_or(u64::MAX);
        let unread_bytes_max = u64::try_from(self.unread_bytes_max).unwrap_or(u64::MAX);
        let millions = 1 << 24;
        let ranges = [
            ("connections_max", u64::from(self.connections_max), 1, millions),
            ("greeting_percent", u64::from(self.greeting_percent), 1, 100),
            ("memory_max", self.memory_max, 1 << 20, 1 << 50),
            ("pings_unanswered_max", u64::from(self.pings_unanswered_max), 1, 1_000),
            ("users_max", u64::from(self.users_max), 1, millions),
            ("bans_max", u64::from(self.bans_max), 1, millions),
            ("sessions_max", u64::from(self.sessions_max), 1, millions),
            ("sessions_per_user_max", u64::from(self.sessions_per_user_max), 1, 1_000),
            ("rooms_max", u64::from(self.rooms_max), 1, millions),
            ("rooms_per_user_max", u64::from(self.rooms_per_user_max), 1, 4_096),
            ("held_records_max", u64::from(self.held_records_max), 1, millions),
            ("held_bytes_max", self.held_bytes_max, 64 << 10, 1 << 40),
            ("held_bytes_total_max", self.held_bytes_total_max, self.held_bytes_max, 1 << 40),
            ("window_bytes", self.window_bytes, 0, 1 << 40),
            ("page_bytes", page_bytes, 16 << 10, 48 << 10),
            ("frames_per_second", self.frames_per_second.into(), 1, millions),
            ("frames_burst", self.frames_burst.into(), FRAMES_BURST_MIN.into(), millions),
            ("bytes_per_second", self.bytes_per_second, 1, 1 << 40),
            ("bytes_burst", self.bytes_burst, 64 << 10, 1 << 40),
            ("logins_per_second", self.logins_per_second.into(), 1, millions),
            ("logins_burst", self.logins_burst.into(), 1, millions),
            ("returns_per_second", self.returns_per_second.into(), 1, millions),
            ("returns_burst", self.returns_burst.into(), 1, millions),
            ("question_burst", u64::from(self.question_burst), 1, millions),
            ("waiting_per_connection_max", self.waiting_per_connection_max.into(), 1, millions),
            ("waiting_max", self.waiting_max.into(), 1, millions),
            ("reset_burst", u64::from(self.reset_burst), 1, 1_000),
            ("unread_bytes_max", unread_bytes_max, 64 << 10, 1 << 30),
            ("login_time", self.login_time.as_millis(), 1, 1 << 32),
            ("ping_interval", self.ping_interval.as_millis(), 1, 1 << 32),
            ("session_age_min", self.session_age_min.as_millis(), 1, 1 << 40),
            ("stall_time", self.stall_time.as_millis(), 1, 1 << 32),
            ("parked_max", self.parked_max.into(), 1, millions),
            ("parked_time", self.parked_time.as_millis(), 1, 1 << 32),
            ("parked_frames_max", self.parked_frames_max.into(), 0, FRAMES_BURST_MIN.into()),
            ("parked_bytes_max", self.parked_bytes_max, 0, unread_bytes_max),
            ("moved_time", self.moved_time.as_millis(), 1, 1 << 32),
        ];
        for (name, value, min, max) in ranges {
            if value < min || value > max {
                return Err(LimitsError { name, value, min, max });
            }
        }
        Ok(())
    }

    /// An upper bound of the engine's memory in bytes when everything is at its limit at once.
    ///
    /// It adds what each field says it costs, and what one delivery shard keeps. With the defaults
    /// it is about 5.3 GiB: more than half of it answers that 12,000 connections leave unread just below their
    /// bound, a quarter answers that 100,000 busy sessions remember, and an eighth posts that wait
    /// for a store that stands still.
    pub fn worst_case_bytes(&self) -> u64 {
        let of = |count: u32, each: u64| u64::from(count).saturating_mul(each);
        let remembered = u64::try_from(REMEMBERED_ANSWERS).unwrap_or(u64::MAX);
        let per_session = ANSWER_BYTES.saturating_mul(remembered).saturating_add(SESSION_BYTES);
        let unread = u64::try_from(self.unread_bytes_max).unwrap_or(u64::MAX);
        let memberships = of(self.rooms_per_user_max, MEMBERSHIP_BYTES);
        let per_connection = CONNECTION_BYTES.saturating_add(memberships).saturating_add(unread);
        [
            of(self.connections_max, per_connection),
            of(self.waiting_max, WAITING_BYTES),
            SHARD_BYTES,
            of(self.users_max, USER_BYTES),
            of(self.sessions_max, per_session),
            of(self.rooms_max, ROOM_BYTES),
            self.held_bytes_total_max,
            self.window_bytes,
        ]
        .into_iter()
        .fold(0, u64::saturating_add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_limits_are_valid_and_cost_what_the_docs_say() {
        let limits = Limits::default();
        assert_eq!(limits.check(), Ok(()));
        let mib = limits.worst_case_bytes() >> 20;
        assert!((5_200..5_600).contains(&mib), "worst case is {mib} MiB");
    }

    #[test]
    fn limit_out_of_range_names_itself() {
        let limits = Limits { greeting_percent: 101, ..Limits::default() };
        let error = LimitsError { name: "greeting_percent", value: 101, min: 1, max: 100 };
        assert_eq!(limits.check(), Err(error));
    }
}
