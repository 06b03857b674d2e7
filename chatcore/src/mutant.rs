//! Rules that can be switched off, to prove that the checks notice.
//!
//! Only in a build with `RUSTFLAGS='--cfg chat_mutants'`, and even there everything is as it should
//! be until `mutate` is called: on each engine, delivery shard and client that is to break the rule.
//! In every other build `mutated!` is `false` and nothing of this is left.

/// Whether a component was told to break a rule.
#[cfg(chat_mutants)]
macro_rules! mutated {
    ($component:expr, $mutant:ident) => {
        $component.mutant == Some($crate::mutant::Mutant::$mutant)
    };
}
#[cfg(not(chat_mutants))]
macro_rules! mutated {
    ($component:expr, $mutant:ident) => {
        false
    };
}

/// The rules, each with its name in scripts.
#[cfg(chat_mutants)]
macro_rules! mutants {
    ($($(#[$doc:meta])* $mutant:ident => $name:literal,)*) => {
        /// A rule to switch off. Its text, and what it is parsed from, is its name in scripts.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Mutant {
            $($(#[$doc])* $mutant,)*
        }

        impl Mutant {
            /// Every mutant.
            pub const ALL: &'static [Self] = &[$(Self::$mutant),*];

            /// Whether it is a rule of migration, whose checker is another.
            pub const fn is_of_migration(self) -> bool {
                matches!(
                    self,
                    Self::NoJointCommit
                        | Self::ProposeBehind
                        | Self::CommitWithoutStandby
                        | Self::StandbyTakesOld
                        | Self::DropStandbyAlone
                        | Self::BlindRegister
                        | Self::LearnerTakesOver
                        | Self::ReturnAtOnce
                        | Self::FollowerKeepsUnverified
                        | Self::StoredBeforeCut
                )
            }

            /// Its name in scripts.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$mutant => $name,)*
                }
            }
        }
    };
}

#[cfg(chat_mutants)]
mutants! {
    /// Engine: a command that is sent again takes effect again. Commands get numbers of the
    /// engine's own, whatever number the client gave.
    NoDedupe => "no-dedupe",
    /// Engine: a counter that another command had is acknowledged.
    AckReusedCounter => "ack-reused-counter",
    /// Engine: a command takes effect though commands before it are missing.
    AcceptCounterGap => "accept-counter-gap",
    /// Engine: records are shown when they are appended.
    DeliverBeforeCommit => "deliver-before-commit",
    /// Engine: a post is acknowledged when it is appended.
    AckBeforeCommit => "ack-before-commit",
    /// Engine: what was read before it was trimmed is shown after.
    ShowTrimmed => "show-trimmed",
    /// Engine: history is given out though the gate is closed.
    HistoryThroughGate => "history-through-gate",
    /// Engine: live records are shown though the gate is closed.
    DeliverThroughGate => "deliver-through-gate",
    /// Engine: whoever posts behind a closed gate is told the place of the post.
    TellHeldPlace => "tell-held-place",
    /// Engine: a user counts for a gate once for each connection.
    CountConnections => "count-connections",
    /// Engine: a gate opens with one user less than it takes.
    OpenGateEarly => "open-gate-early",
    /// Engine: a connection that a newer one of its session replaced counts for gates for good.
    ReplacedKeepsAttending => "replaced-keeps-attending",
    /// Engine: a closed gate holds as much as comes.
    HoldWithoutLimit => "hold-without-limit",
    /// Engine: a reader that comes back with a cursor goes on at the newest record.
    ResumeAtEnd => "resume-at-end",
    /// Engine: a post that was written for an earlier life of a room goes into the present one.
    PostIntoNewLife => "post-into-new-life",
    /// Engine and delivery: a page that was read before a reset is given out after it.
    PageAcrossReset => "page-across-reset",
    /// Engine: a post bears the name of the first member of its room.
    WrongAuthor => "wrong-author",
    /// Engine: whoever has any key may log in by a name that is taken.
    NameOfAnotherKey => "name-of-another-key",
    /// Engine: a connection may send as much as it likes.
    NoFrameRate => "no-frame-rate",
    /// Engine: any number of new sessions may log in at once.
    NoLoginRate => "no-login-rate",
    /// Engine: whoever likes resets a room.
    AnyoneResets => "anyone-resets",
    /// Engine: whoever likes takes measures on others.
    AnyoneModerates => "anyone-moderates",
    /// Engine: who is banned may come back.
    BanIsAKick => "ban-is-a-kick",
    /// Engine: who is sent away stays a member of every room.
    KickKeepsRooms => "kick-keeps-rooms",
    /// Migration: an owner commits alone while a node may have become its standby.
    NoJointCommit => "no-joint-commit",
    /// Migration: who is to stand by is proposed though it lacks what is committed.
    ProposeBehind => "propose-behind",
    /// Migration: an owner commits what its standby does not have.
    CommitWithoutStandby => "commit-without-standby",
    /// Migration: a standby follows an owner of an earlier generation.
    StandbyTakesOld => "standby-takes-old",
    /// Migration: an owner gives its standby up by itself.
    DropStandbyAlone => "drop-standby-alone",
    /// Migration: the register writes what it is told, whatever it holds.
    BlindRegister => "blind-register",
    /// Migration: who only learns takes over, and the register lets it.
    LearnerTakesOver => "learner-takes-over",
    /// Migration: an owner that comes back goes on as if it had never been away.
    ReturnAtOnce => "return-at-once",
    /// Migration: a follower is sure of what it has whatever becomes of its owner.
    FollowerKeepsUnverified => "follower-keeps-unverified",
    /// Migration: what was stored before entries were forgotten counts for those that came after.
    StoredBeforeCut => "stored-before-cut",
    /// Engine: a release bears the time of the entry before.
    ReleaseAtOnce => "release-at-once",
    /// Engine: a user whose grace is over stays a member.
    NoLeaveAfterGrace => "no-leave-after-grace",
    /// Engine: who comes back to any room stays a member of all.
    ReturnEndsEveryGrace => "return-ends-every-grace",
    /// Engine: after a restore nobody is expected back, and so nobody leaves.
    RestoreForgetsGrace => "restore-forgets-grace",
    /// Engine: a restore loses the newest answer of each session, whose command then takes effect
    /// again.
    RestoreForgetsAnswer => "restore-forgets-answer",
    /// Engine: the state hash knows nothing of who joins.
    MemberNotHashed => "member-not-hashed",
    /// Engine: a wall clock that is set back takes the time of records back.
    TimeGoesBack => "time-goes-back",
    /// Engine: deadlines follow the wall clock.
    TimersOnWallClock => "timers-on-wall-clock",
    /// Engine: a full store is given more entries.
    IgnoreFullStore => "ignore-full-store",
    /// Engine: a read that failed is not asked for again.
    GiveUpFailedRead => "give-up-failed-read",
    /// Delivery: a reader goes on with what is in the shard's memory, and is not told of the rest.
    LaggingLosesRecords => "lagging-loses-records",
    /// Delivery: nobody is told that records are gone.
    GapUntold => "gap-untold",
    /// Delivery: records of before a reset stay in the shard's memory.
    ResetKeepsRecords => "reset-keeps-records",
    /// Delivery: a gap is told to begin one record later than it does.
    GapBeginsLate => "gap-begins-late",
    /// Delivery: a gap is one record longer than what is gone.
    GapTooLong => "gap-too-long",
    /// Delivery: the last record of a page is given out again after it.
    PageRepeatsRecord => "page-repeats-record",
    /// Delivery: nobody is told that a gate's users changed when nothing else did.
    GateUsersUntold => "gate-users-untold",
    /// Delivery: answers for a connection that was told to close are written after its last frame.
    AnswerAfterClose => "answer-after-close",
    /// Delivery: a connection may leave as many answers unread as it likes.
    UnreadWithoutLimit => "unread-without-limit",
    /// Delivery: a connection may take nothing for as long as it likes.
    StallWithoutLimit => "stall-without-limit",
    /// Delivery: when not all rooms can be served, the first ones are, each time.
    FirstRoomsFirst => "first-rooms-first",
    /// Client: what was under way when a connection was lost is not sent again.
    ClientDoesNotResend => "client-does-not-resend",
    /// Client: a command that is refused for now is forgotten.
    ClientDropsRefused => "client-drops-refused",
    /// Client: a record counts as seen before it is shown.
    ClientSavesBeforeShowing => "client-saves-before-showing",
    /// Client: what is answered stays in the file, to be sent again by the next run.
    ClientKeepsAnswered => "client-keeps-answered",
    /// Client: a command that is refused for now is sent again at once.
    ClientIgnoresRetry => "client-ignores-retry",
    /// Client: a server that is busy is given up for good.
    ClientStopsWhenBusy => "client-stops-when-busy",
    /// Client: who is in a room is not asked again when the server was too busy to say.
    ClientForgetsList => "client-forgets-list",
    /// Client: a room whose join is under way when the connection is lost is not joined again.
    ClientForgetsJoin => "client-forgets-join",
    /// Client: the refusal of a question is not shown.
    ClientSwallowsRefusal => "client-swallows-refusal",
    /// Client: a history ends with its first page.
    ClientEndsHistoryEarly => "client-ends-history-early",
}

/// A name that no mutant has.
#[cfg(chat_mutants)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no such mutant")]
pub struct UnknownMutant;

#[cfg(chat_mutants)]
impl core::fmt::Display for Mutant {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(chat_mutants)]
impl core::str::FromStr for Mutant {
    type Err = UnknownMutant;

    fn from_str(name: &str) -> Result<Self, UnknownMutant> {
        Self::ALL.iter().copied().find(|mutant| mutant.name() == name).ok_or(UnknownMutant)
    }
}

#[cfg(all(test, chat_mutants))]
mod tests {
    use super::*;

    #[test]
    fn every_name_finds_its_mutant_and_no_other() {
        for mutant in Mutant::ALL {
            assert_eq!(mutant.to_string().parse(), Ok(*mutant));
        }
        assert_eq!("no-such".parse::<Mutant>(), Err(UnknownMutant));
    }
}
