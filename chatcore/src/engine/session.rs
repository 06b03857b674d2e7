//! One session: which of its commands took effect, so that none takes effect twice.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::id::{Counter, Digest, Incarnation, Index, Seq};
use crate::limits::REMEMBERED_ANSWERS;
use crate::log::CommandId;
use crate::text::{RoomName, UserName};
use crate::time::Timestamp;
use crate::wire::Refusal;

/// One session of a user.
///
/// Source of the idea: contiguous client sequence numbers as in RIFL (Lee et al., SOSP 2015) and
/// NFSv4.1 sessions. A number, unlike a window of time, cannot forget a duplicate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Session {
    user: UserName,
    /// The last command that took effect or was refused for good.
    last: Counter,
    /// When it was opened: what expired and was opened again is another session, with another time.
    opened: Timestamp,
    /// When the session was last heard of in the journal.
    used: Timestamp,
    /// The answers to the last commands, the newest last.
    answers: VecDeque<Remembered>,
}

/// What a command was answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Remembered {
    digest: Digest,
    index: Index,
    outcome: Outcome,
}

/// What became of a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Outcome {
    Applied,
    Posted { room: RoomName, incarnation: Incarnation, seq: Seq },
    Refused(Refusal),
}

/// A remembered answer with the command it belongs to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answered<O> {
    pub(crate) counter: Counter,
    pub(crate) digest: Digest,
    /// The journal entry that decided it: the answer is true once this is committed.
    pub(crate) index: Index,
    pub(crate) outcome: O,
}

/// What a command's counter says about it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place<'a> {
    /// It is the next one.
    Next,
    /// It was answered before, like this.
    Answered(Answered<&'a Outcome>),
    /// It took effect so long ago that its answer is forgotten.
    Forgotten,
    /// Another command had this counter.
    Reused,
    /// Commands before it are missing.
    Ahead { expect: Counter },
}

impl Session {
    pub(crate) const fn new(user: UserName, opened: Timestamp) -> Self {
        Self { user, last: Counter::ZERO, opened, used: opened, answers: VecDeque::new() }
    }

    /// Forgets the oldest answer when the memory is full, and returns it.
    pub(crate) fn make_room_for_answer(&mut self) -> Option<Answered<Outcome>> {
        if self.answers.len() < REMEMBERED_ANSWERS {
            return None;
        }
        let counter = self.oldest_answered();
        let Remembered { digest, index, outcome } = self.answers.pop_front()?;
        Some(Answered { counter, digest, index, outcome })
    }

    pub(crate) fn remember(
        &mut self,
        command: &CommandId,
        index: Index,
        outcome: Outcome,
        at: Timestamp,
    ) {
        assert_eq!(command.counter, self.last.next(), "a session's commands must have no hole");
        assert!(self.answers.len() < REMEMBERED_ANSWERS, "answers must stay within their bound");
        self.last = command.counter;
        self.used = at;
        self.answers.push_back(Remembered { digest: command.digest, index, outcome });
    }

    /// Takes back the newest answer, unless older ones were forgotten: there must be enough.
    #[cfg(chat_mutants)]
    pub(crate) fn forget_newest_answer(&mut self) -> Option<Answered<Outcome>> {
        if self.answers.len() >= REMEMBERED_ANSWERS {
            return None;
        }
        let Remembered { digest, index, outcome } = self.answers.pop_back()?;
        let counter = self.last;
        self.last = self.last.saturating_sub(1);
        Some(Answered { counter, digest, index, outcome })
    }

    /// Where a command with this counter and digest stands.
    pub(crate) fn place(&self, counter: Counter, digest: Digest) -> Place<'_> {
        let expect = self.next();
        if counter > self.last && counter == expect {
            return Place::Next;
        }
        if counter > self.last || counter == Counter::ZERO {
            return Place::Ahead { expect };
        }
        let back = usize::try_from(self.last.since(counter)).unwrap_or(usize::MAX);
        let remembered = self
            .answers
            .len()
            .checked_sub(back.saturating_add(1))
            .and_then(|at| self.answers.get(at));
        match remembered {
            None => Place::Forgotten,
            Some(answer) if answer.digest != digest => Place::Reused,
            Some(Remembered { index, outcome, .. }) => {
                Place::Answered(Answered { counter, digest, index: *index, outcome })
            }
        }
    }

    pub(crate) const fn user(&self) -> &UserName {
        &self.user
    }

    pub(crate) const fn last(&self) -> Counter {
        self.last
    }

    pub(crate) const fn opened(&self) -> Timestamp {
        self.opened
    }

    pub(crate) const fn used(&self) -> Timestamp {
        self.used
    }

    pub(crate) fn answers(&self) -> impl Iterator<Item = Answered<&Outcome>> {
        let oldest = self.oldest_answered();
        (0_u64..).zip(&self.answers).map(move |(place, answer)| Answered {
            counter: oldest.saturating_add(place),
            digest: answer.digest,
            index: answer.index,
            outcome: &answer.outcome,
        })
    }

    /// Whether it could have come about by remembering answers.
    pub(crate) fn is_sound(&self) -> bool {
        let count = u64::try_from(self.answers.len()).unwrap_or(u64::MAX);
        let full = u64::try_from(REMEMBERED_ANSWERS).unwrap_or(u64::MAX);
        count == self.last.get().min(full) && self.opened <= self.used
    }

    /// The counter that a new command must have. It saturates: a session cannot go beyond the
    /// largest counter, and its commands are then refused.
    const fn next(&self) -> Counter {
        self.last.saturating_add(1)
    }

    fn oldest_answered(&self) -> Counter {
        let count = u64::try_from(self.answers.len()).unwrap_or(u64::MAX);
        self.last.saturating_add(1).saturating_sub(count)
    }
}
