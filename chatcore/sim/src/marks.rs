//! Situations that a run must have reached, or its green light says little.
//!
//! A simulator can pass because it never went where it hurts. So every situation worth a thought
//! has a name here, is counted where it happens, and a run of many seeds fails when one of them was
//! too rare. Source of the idea: `TigerBeetle`'s marks, and Antithesis' "sometimes" assertions.

use std::fmt;

/// What a situation is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Something went wrong, or somebody did what they may not.
    Fault,
    /// A closed gate, or one that opens.
    Gate,
    /// A room was reset.
    Reset,
    /// Somebody came back.
    Reconnect,
    /// The server began again, or stopped in order to do so.
    Restart,
    /// None of these.
    Other,
}

impl Kind {
    /// Its name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fault => "fault",
            Self::Gate => "gate",
            Self::Reset => "reset",
            Self::Reconnect => "reconnect",
            Self::Restart => "restart",
            Self::Other => "other",
        }
    }
}

macro_rules! marks {
    ($($(#[doc = $doc:literal])* $name:ident [$($kind:ident),*],)*) => {
        /// A situation.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Mark { $($(#[doc = $doc])* $name,)* }

        impl Mark {
            /// Every mark.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// What it is about; each kind once.
            pub const fn kinds(self) -> &'static [Kind] {
                match self { $(Self::$name => &[$(Kind::$kind,)*],)* }
            }

            /// Its name in reports.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }
        }
    };
}

marks! {
    /// A gate opened.
    GateOpened [Gate],
    /// A post was accepted behind a closed gate.
    PostHeld [Gate],
    /// A post was accepted in an open room.
    PostShown [Other],
    /// A room was reset.
    RoomReset [Reset],
    /// Somebody with the right to do so was told what the server is doing.
    StatusTold [Other],
    /// Somebody wanted a name that looks like another's.
    LookalikeRefused [Fault],
    /// Somebody without the right gave an order.
    OrderNotAllowed [Fault],
    /// Somebody who is no operator tried what only operators may.
    NotAllowed [Other],
    /// A user was sent away.
    UserSentAway [Other],
    /// Somebody was sent away who was not connected.
    SentAwayWhileAway [Other],
    /// Somebody was turned away who is banned.
    BannedTurnedAway [Other],
    /// A name was released, and taken by another key.
    ReleasedNameTaken [Other],
    /// Somebody was made an operator, or was one no longer.
    RightsChanged [Other],
    /// Somebody tried a measure on themselves, or on who is out of reach.
    MeasureOutOfReach [Other],
    /// A measure was taken while the store was full or slow.
    MeasureInTrouble [Fault],
    /// A measure was taken soon after a restart.
    MeasureAfterRestart [Restart],
    /// An operator reset too often.
    ResetTooOften [Reset],
    /// A client came back and went on where it was.
    Resumed [Reconnect],
    /// A client sent a command again.
    SentAgain [Other],
    /// Two devices of one user were connected at once.
    TwoDevices [Other],
    /// Somebody asked for a name that is taken.
    NameTaken [Other],
    /// A connection was replaced by a newer one of its session.
    Replaced [Reconnect],
    /// A user left because the grace was over.
    GraceOver [Other],
    /// A shard asked for records that it did not have.
    Fetched [Other],
    /// What a shard asked for was for a connection that had gone meanwhile.
    FetchedByNobody [Other],
    /// What a shard asked for was of a life that a reset had ended meanwhile.
    FetchedFromEarlierLife [Reset],
    /// What a shard asked for had been trimmed.
    FetchedWhatIsTrimmed [Other],
    /// Records were read from the store.
    ReadFromStore [Other],
    /// A reader was told that records are gone.
    GapTold [Other],
    /// A reader was closed because it did not read.
    SlowReaderClosed [Fault],
    /// A reader was condemned because it left too many answers unread.
    UnreadBoundReached [Fault],
    /// A client told its user that the server's store is full.
    FullStoreTold [Fault],
    /// A connection was closed because it was silent.
    SilentClosed [Fault],
    /// A connection was closed because nothing came up any more, while its client heard the server.
    UnheardClosed [Fault],
    /// A client gave up a connection that carried nothing down any more, while the server heard it.
    DeafClosed [Fault],
    /// A client was shown that the server has its key.
    KeyProven [Other],
    /// A connection was closed because it did not log in.
    LoginTimeOver [Fault],
    /// A connection was refused because there are too many.
    ServerFull [Other],
    /// A question came too soon after others.
    AskedTooOften [Other],
    /// A connection sent more frames or bytes than it may, and was told to wait.
    SentTooMuch [Other],
    /// A connection was closed because it went on all the same.
    FloodClosed [Fault],
    /// A log-in was one of too many at once, and told when to come again.
    LoginTooMany [Other],
    /// Too many answers waited for the store.
    TooMuchWaits [Other],
    /// A closed gate held as many records as it may.
    HeldFull [Gate],
    /// A closed gate held as many bytes as it may.
    HeldBytesFull [Gate],
    /// All closed gates together held as many bytes as they may.
    HeldTotalFull [Gate],
    /// A log-in was decided after a later one of its session.
    LoginOvertaken [Reconnect],
    /// The host told the engine what cannot be.
    HostErred [Fault],
    /// Engines restored in two ways were visited.
    TwoRestored [Other],
    /// The engine that lived until a crash and one restored from its snapshot were visited.
    LivingCompared [Other],
    /// The host answered a read with records that were not asked for.
    HostGaveWrongRecords [Fault],
    /// A session expired.
    SessionExpired [Other],
    /// A client gave up a command of a session that expired.
    CommandAbandoned [Reconnect],
    /// A crowd was joined without a record.
    JoinedUntold [Other],
    /// Bytes that are no frame were refused.
    NoiseRefused [Fault],
    /// A frame that means nothing was refused.
    NonsenseRefused [Fault],
    /// A frame before the log-in was refused.
    UnrulyRefused [Fault],
    /// A signature was refused.
    ForgeryRefused [Fault],
    /// A number was skipped.
    CounterSkipped [Fault],
    /// A number was used for another text.
    CounterReused [Fault],
    /// A store was slow enough that answers waited for more than a second.
    StoreSlow [Fault],
    /// Records of a room were trimmed.
    RoomTrimmed [Other],
    /// Records were trimmed while some were being read.
    TrimmedWhileReading [Other],
    /// Records were trimmed while a reader read nothing.
    TrimmedWhileStalled [Fault],
    /// Records were trimmed soon after a restart.
    TrimmedAfterRestart [Restart],
    /// Many entries were made safe by one sync.
    GroupCommit [Other],

    /// The server died while a gate held records.
    CrashWithHeldRecords [Fault, Gate],
    /// The server died after a gate opened and before that was safe.
    CrashBeforeOpeningSafe [Fault, Gate],
    /// The server died after a reset and before that was safe.
    CrashBeforeResetSafe [Fault, Reset],
    /// Entries were safe when the server died, and nobody had been told.
    CrashInDoubt [Fault],
    /// Entries were lost when the server died.
    CrashLostUnsafe [Fault],
    /// The server died while a reader was being brought up to date from the store.
    CrashDuringCatchUp [Fault],
    /// The server died again before anybody was back.
    CrashAfterCrash [Fault, Restart],
    /// The server came back from a checkpoint and entries after it.
    RestoredWithTail [Restart],
    /// The newest checkpoint could not be used, and the one before brought the server back.
    OlderCheckpoint [Fault, Restart],
    /// No checkpoint could be used, and the journal alone brought the server back.
    NoCheckpoint [Fault, Restart],
    /// A gate opened soon after a restart.
    GateOpenedAfterRestart [Gate, Restart],
    /// A gate that was closed before a restart opened after it, in the same life.
    GateOpenedAcrossRestart [Gate, Restart],
    /// A gate was opened by somebody who came back.
    GateOpenedByReturn [Gate, Reconnect],
    /// A gate opened while the store was full or slow.
    GateOpenedInTrouble [Fault, Gate],
    /// A reset opened the gate again in the same step.
    ResetOpensAtOnce [Reset, Gate],
    /// A gate opened in a life that a reset began, and not in the same step.
    GateOpenedAfterReset [Gate, Reset],
    /// A room was reset while the store was full or slow.
    ResetInTrouble [Fault, Reset],
    /// A reset was sent again by a client that came back.
    ResetSentAgain [Reset, Reconnect],
    /// A room was reset while some of its members were not connected.
    ResetWhileAway [Reset],
    /// A room was reset while a reader of it was being brought up to date from the store.
    ResetDuringCatchUp [Reset],
    /// A room was reset while one of its readers read nothing.
    ResetWhileStalled [Fault, Reset],
    /// A room was reset soon after a restart.
    ResetAfterRestart [Reset, Restart],
    /// Somebody came back after a room was reset.
    ReturnAfterReset [Reset, Reconnect],
    /// The first gate that somebody was told after coming back was closed.
    ReturnToClosedGate [Gate, Reconnect],
    /// A client went on where it was with a server that had been restarted.
    ResumedAfterRestart [Reconnect, Restart],
    /// A command was sent again to a server that had been restarted.
    SentAgainAfterRestart [Reconnect, Restart],
    /// A post was refused because it was for an earlier life.
    PostForEarlierLife [Reset],
    /// A connection broke before its log-in was answered.
    CutDuringLogin [Fault],
    /// A connection broke inside a frame of its client.
    CutInsideFrame [Fault],
    /// A connection broke inside a frame of the server.
    CutInsideAnswer [Fault],
    /// A client died with commands unanswered, and came back.
    ReturnWithOutbox [Fault, Reconnect],
    /// A client came back while the store was full or slow.
    ReturnInTrouble [Fault, Reconnect],
    /// A client came back while its old connection hung.
    ReturnWhileHanging [Fault, Reconnect],
    /// A user left a room because the grace was over, having come back to another.
    LeftBehind [Reconnect],
    /// A user left because the grace after a restart was over.
    GraceOverAfterRestart [Restart],
    /// The wall clock was behind the journal at a restart.
    RestartInThePast [Fault, Restart],
    /// A post was refused because the store was full, and accepted later.
    PostedAfterFull [Fault],
    /// A read failed, was asked for again, and was answered.
    ReadAgain [Fault],
    /// A read failed while its reader already needed something else.
    ReadFailedWithNewerNeed [Fault],
    /// The server stopped in order while commands of connected clients were unanswered.
    StopWithUnanswered [Restart],
}

impl Mark {
    /// Whether it combines two of fault, gate, reset, reconnect and restart.
    pub fn is_combined(self) -> bool {
        self.kinds().iter().filter(|kind| **kind != Kind::Other).count() > 1
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_forty_and_twenty_of_them_combine_two_things() {
        let combined = Mark::ALL.iter().filter(|mark| mark.is_combined()).count();
        assert!(Mark::ALL.len() >= 40, "there are {} marks", Mark::ALL.len());
        assert!(combined >= 20, "{combined} marks combine two things");
    }

    #[test]
    fn kinds_of_a_mark_are_told_once_each() {
        for mark in Mark::ALL {
            let mut kinds = mark.kinds().to_vec();
            kinds.sort();
            kinds.dedup();
            assert_eq!(kinds.len(), mark.kinds().len(), "{mark}");
            assert!(!kinds.is_empty(), "{mark}");
            assert!(kinds.len() == 1 || !kinds.contains(&Kind::Other), "{mark}");
        }
    }
}
