//! Situations that a run must have reached, or its green light says little.
//!
//! A simulator can pass because it never went where it hurts. So every situation worth a thought
//! has a name here, is counted where it happens, and a run of many seeds fails when one of them was
//! too rare. Source of the idea: `TigerBeetle`'s marks, and Antithesis' "sometimes" assertions.

use std::fmt;

macro_rules! marks {
    ($($(#[doc = $doc:literal])* $name:ident $kind:ident,)*) => {
        /// A situation.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Mark { $($(#[doc = $doc])* $name,)* }

        impl Mark {
            /// Every mark.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Whether it combines two of fault, gate, reset, reconnect and restart.
            pub const fn is_combined(self) -> bool {
                match self { $(Self::$name => marks!(@$kind),)* }
            }

            /// Its name in reports.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }
        }
    };
    (@simple) => { false };
    (@combined) => { true };
}

marks! {
    /// A gate opened.
    GateOpened simple,
    /// A post was accepted behind a closed gate.
    PostHeld simple,
    /// A post was accepted in an open room.
    PostShown simple,
    /// A room was reset.
    RoomReset simple,
    /// Somebody who may not reset tried.
    ResetNotAllowed simple,
    /// An operator reset too often.
    ResetTooOften simple,
    /// A client came back and went on where it was.
    Resumed simple,
    /// A client sent a command again.
    SentAgain simple,
    /// Two devices of one user were connected at once.
    TwoDevices simple,
    /// Somebody asked for a name that is taken.
    NameTaken simple,
    /// A connection was replaced by a newer one of its session.
    Replaced simple,
    /// A user left because the grace was over.
    GraceOver simple,
    /// A shard asked for records that it did not have.
    Fetched simple,
    /// Records were read from the store.
    ReadFromStore simple,
    /// A reader was told that records are gone.
    GapTold simple,
    /// A reader was closed because it did not read.
    SlowReaderClosed simple,
    /// A reader was condemned because it left too many answers unread.
    UnreadBoundReached simple,
    /// A connection was closed because it was silent.
    SilentClosed simple,
    /// A connection was closed because it did not log in.
    LoginTimeOver simple,
    /// A connection was refused because there are too many.
    ServerFull simple,
    /// A question came too soon after others.
    AskedTooOften simple,
    /// Too many answers waited for the store.
    TooMuchWaits simple,
    /// A closed gate held as many records as it may.
    HeldFull simple,
    /// A closed gate held as many bytes as it may.
    HeldBytesFull simple,
    /// All closed gates together held as many bytes as they may.
    HeldTotalFull simple,
    /// A log-in was decided after a later one of its session.
    LoginOvertaken simple,
    /// The host told the engine what cannot be.
    HostErred simple,
    /// Engines restored in two ways were visited.
    TwoRestored simple,
    /// The host answered a read with records that were not asked for.
    HostGaveWrongRecords simple,
    /// A session expired.
    SessionExpired simple,
    /// A client gave up a command of a session that expired.
    CommandAbandoned simple,
    /// A crowd was joined without a record.
    JoinedUntold simple,
    /// Bytes that are no frame were refused.
    NoiseRefused simple,
    /// A frame that means nothing was refused.
    NonsenseRefused simple,
    /// A frame before the log-in was refused.
    UnrulyRefused simple,
    /// A signature was refused.
    ForgeryRefused simple,
    /// A number was skipped.
    CounterSkipped simple,
    /// A number was used for another text.
    CounterReused simple,
    /// A store was slow enough that answers waited for more than a second.
    StoreSlow simple,
    /// Records of a room were trimmed.
    RoomTrimmed simple,
    /// Records were trimmed while some were being read.
    TrimmedWhileReading simple,
    /// Records were trimmed while a reader read nothing.
    TrimmedWhileStalled simple,
    /// Records were trimmed soon after a restart.
    TrimmedAfterRestart simple,
    /// Many entries were made safe by one sync.
    GroupCommit simple,

    /// The server died while a gate held records.
    CrashWithHeldRecords combined,
    /// The server died after a gate opened and before that was safe.
    CrashBeforeOpeningSafe combined,
    /// The server died after a reset and before that was safe.
    CrashBeforeResetSafe combined,
    /// Entries were safe when the server died, and nobody had been told.
    CrashInDoubt combined,
    /// Entries were lost when the server died.
    CrashLostUnsafe combined,
    /// The server died while a reader was being brought up to date from the store.
    CrashDuringCatchUp combined,
    /// The server died again before anybody was back.
    CrashAfterCrash combined,
    /// The server came back from a checkpoint and entries after it.
    RestoredWithTail combined,
    /// A gate opened soon after a restart.
    GateOpenedAfterRestart combined,
    /// A gate that was closed before a restart opened after it, in the same life.
    GateOpenedAcrossRestart combined,
    /// A gate was opened by somebody who came back.
    GateOpenedByReturn combined,
    /// A gate opened while the store was full or slow.
    GateOpenedInTrouble combined,
    /// A reset opened the gate again in the same step.
    ResetOpensAtOnce combined,
    /// A room was reset while some of its members were not connected.
    ResetWhileAway combined,
    /// A room was reset while a reader of it was being brought up to date from the store.
    ResetDuringCatchUp combined,
    /// A room was reset while one of its readers read nothing.
    ResetWhileStalled combined,
    /// A room was reset soon after a restart.
    ResetAfterRestart combined,
    /// Somebody came back after a room was reset.
    ReturnAfterReset combined,
    /// Somebody came back while the gate was closed.
    ReturnToClosedGate combined,
    /// A command was sent again to a server that had been restarted.
    SentAgainAfterRestart combined,
    /// A post was refused because it was for an earlier life.
    PostForEarlierLife combined,
    /// A connection broke before its log-in was answered.
    CutDuringLogin combined,
    /// A connection broke inside a frame.
    CutInsideFrame combined,
    /// A client died with commands unanswered, and came back.
    ReturnWithOutbox combined,
    /// A client came back while its old connection hung.
    ReturnWhileHanging combined,
    /// A user left because the grace after a restart was over.
    GraceOverAfterRestart combined,
    /// The wall clock was behind the journal at a restart.
    RestartInThePast combined,
    /// A post was refused because the store was full, and accepted later.
    PostedAfterFull combined,
    /// A read failed, was asked for again, and was answered.
    ReadAgain combined,
    /// A read failed while its reader already needed something else.
    ReadFailedWithNewerNeed combined,
    /// The server stopped in order while commands were unanswered.
    StopWithUnanswered combined,
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How often each situation was reached.
#[derive(Clone, Debug)]
pub struct Marks(Vec<u64>);

impl Default for Marks {
    fn default() -> Self {
        Self(vec![0; Mark::ALL.len()])
    }
}

impl Marks {
    /// Counts one.
    pub fn hit(&mut self, mark: Mark) {
        self.0[mark as usize] += 1;
    }

    /// How often.
    pub fn count(&self, mark: Mark) -> u64 {
        self.0[mark as usize]
    }

    /// Adds another world's.
    pub fn add(&mut self, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(sum, count)| *sum += count);
    }

    /// What was reached less often than `least`.
    pub fn rarer_than(&self, least: u64) -> impl Iterator<Item = Mark> {
        Mark::ALL.iter().copied().filter(move |mark| self.count(*mark) < least)
    }
}
