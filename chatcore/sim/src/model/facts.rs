//! What a journal says, read naively: users, sessions, rooms.
//!
//! The model keeps it twice: as far as it is appended, to decide by, and as far as it is committed,
//! to tell by. A restart makes the first anew from the second.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use chatcore::id::{Counter, Digest, Incarnation, Index, PublicKey, Seq, SessionId};
use chatcore::limits::REMEMBERED_ANSWERS;
use chatcore::log::{Change, CommandId, Moderator};
use chatcore::text::{RoomName, Skeleton, UserName};
use chatcore::time::Timestamp;
use chatcore::wire::{Measure, Refusal};

use super::truth::RoomTruth;

/// What a journal says.
#[derive(Debug, Default)]
pub(super) struct Facts {
    pub(super) users: BTreeMap<UserName, User>,
    pub(super) keys: BTreeMap<PublicKey, UserName>,
    pub(super) looks: BTreeSet<Skeleton>,
    pub(super) sessions: BTreeMap<SessionId, Session>,
    pub(super) rooms: BTreeMap<RoomName, RoomTruth>,
    /// Bytes behind all closed gates.
    pub(super) held_bytes: u64,
}

/// A name that is taken.
#[derive(Clone, Debug)]
pub(super) struct User {
    pub(super) key: PublicKey,
    pub(super) operator: bool,
    pub(super) banned: bool,
    pub(super) rooms: BTreeSet<RoomName>,
    pub(super) sessions: BTreeSet<SessionId>,
}

/// A session and what its last commands were answered.
#[derive(Clone, Debug)]
pub(super) struct Session {
    pub(super) user: UserName,
    pub(super) last: Counter,
    pub(super) opened: Timestamp,
    pub(super) used: Timestamp,
    /// The newest last; its counter is `last`.
    answers: VecDeque<Answered>,
}

/// What a command was answered, and the entry that did.
#[derive(Clone, Debug)]
pub(super) struct Answered {
    digest: Digest,
    pub(super) index: Index,
    pub(super) outcome: Outcome,
}

/// What became of a command.
#[derive(Clone, Debug)]
pub(super) enum Outcome {
    Applied,
    Posted { room: RoomName, incarnation: Incarnation, seq: Seq },
    Refused(Refusal),
}

/// What a counter says of a command.
#[derive(Debug)]
pub(super) enum Standing<'a> {
    New,
    Repeated(&'a Answered),
    Reused,
    Forgotten,
    Ahead { expect: Counter },
}

impl Session {
    /// Section 8 of the protocol, line by line.
    pub(super) fn standing(&self, counter: Counter, digest: &Digest) -> Standing<'_> {
        let expect = self.last.saturating_add(1);
        if counter == Counter::ZERO || counter > self.last {
            let is_new = counter == expect && counter > self.last;
            return if is_new { Standing::New } else { Standing::Ahead { expect } };
        }
        let back = usize::try_from(self.last.since(counter)).unwrap_or(usize::MAX);
        match self.answers.iter().rev().nth(back) {
            None => Standing::Forgotten,
            Some(answer) if answer.digest == *digest => Standing::Repeated(answer),
            Some(_) => Standing::Reused,
        }
    }
}

impl Facts {
    /// A copy that does not know what records say.
    pub(super) fn without_entries(&self) -> Self {
        let rooms = self.rooms.iter().map(|(name, room)| (name.clone(), room.without_entries()));
        Self {
            users: self.users.clone(),
            keys: self.keys.clone(),
            looks: self.looks.clone(),
            sessions: self.sessions.clone(),
            rooms: rooms.collect(),
            held_bytes: self.held_bytes,
        }
    }

    /// Takes in one entry.
    pub(super) fn apply(&mut self, index: Index, at: Timestamp, change: &Change) {
        match change {
            Change::Founded(_) => {}
            Change::UserAdded { user, key } => self.add_user(user, *key),
            Change::OperatorGranted { user } => self.user_mut(user).operator = true,
            Change::SessionOpened { session, user } => {
                let answers = VecDeque::new();
                let (user_of, last) = (user.clone(), Counter::ZERO);
                let opened = Session { user: user_of, last, opened: at, used: at, answers };
                self.sessions.insert(*session, opened);
                self.user_mut(user).sessions.insert(*session);
            }
            Change::SessionExpired { session } => {
                let ended = self.sessions.remove(session).expect("only a session can expire");
                self.user_mut(&ended.user).sessions.remove(session);
            }
            Change::RoomCreated { room, threshold } => {
                self.rooms.insert(room.clone(), RoomTruth::new(*threshold));
            }
            Change::Joined { room, seq, user, .. } => {
                self.user_mut(user).rooms.insert(room.clone());
                self.room_mut(room).members.insert(user.clone());
                self.count_record(room, *seq, user.as_str().len());
            }
            Change::Left { room, seq, user, .. } => {
                self.user_mut(user).rooms.remove(room);
                self.room_mut(room).members.remove(user);
                self.count_record(room, *seq, user.as_str().len());
            }
            Change::Posted { room, incarnation, seq, command, text, .. } => {
                self.count_record(room, Some(*seq), text.as_str().len());
                let (room, incarnation, seq) = (room.clone(), *incarnation, *seq);
                self.answer(command, index, at, Outcome::Posted { room, incarnation, seq });
            }
            Change::Refused { command, refusal } => {
                self.answer(command, index, at, Outcome::Refused(*refusal));
            }
            Change::GateOpened { room, .. } => self.release_held(room, RoomTruth::open),
            Change::Reset { room, incarnation, threshold, command } => {
                self.release_held(room, |room| room.reset(*incarnation, *threshold));
                self.answer(command, index, at, Outcome::Applied);
            }
            Change::Trimmed { room, through, .. } => self.room_mut(room).trimmed = *through,
            Change::Moderated { user, measure, by } => {
                self.moderate(user, *measure);
                if let Moderator::Operator { command, .. } = by {
                    self.answer(command, index, at, Outcome::Applied);
                }
            }
        }
    }

    fn add_user(&mut self, name: &UserName, key: PublicKey) {
        let (operator, banned) = (false, false);
        let user =
            User { key, operator, banned, rooms: BTreeSet::new(), sessions: BTreeSet::new() };
        self.users.insert(name.clone(), user);
        self.keys.insert(key, name.clone());
        self.looks.insert(name.skeleton());
    }

    fn moderate(&mut self, name: &UserName, measure: Measure) {
        let user = self.user_mut(name);
        match measure {
            Measure::Kick => {}
            Measure::Ban => (user.operator, user.banned) = (false, true),
            Measure::Unban => user.banned = false,
            Measure::Op => user.operator = true,
            Measure::Deop => user.operator = false,
            Measure::Release => {
                let released = self.users.remove(name).expect("it was there just now");
                self.keys.remove(&released.key);
                self.looks.remove(&name.skeleton());
                self.sessions.retain(|_, session| session.user != *name);
            }
        }
    }

    fn count_record(&mut self, room: &RoomName, seq: Option<Seq>, text_bytes: usize) {
        if seq.is_none() {
            return;
        }
        let room = self.room_mut(room);
        let before = room.held_bytes;
        room.count_record(text_bytes);
        let more = room.held_bytes - before;
        self.held_bytes += more;
    }

    fn release_held(&mut self, room: &RoomName, change: impl FnOnce(&mut RoomTruth)) {
        let room = self.room_mut(room);
        let held = room.held_bytes;
        change(room);
        self.held_bytes -= held;
    }

    fn answer(&mut self, command: &CommandId, index: Index, at: Timestamp, outcome: Outcome) {
        let session = self.sessions.get_mut(&command.session);
        let session = session.expect("a command must be of a session that there is");
        session.last = command.counter;
        session.used = at;
        session.answers.push_back(Answered { digest: command.digest, index, outcome });
        if session.answers.len() > REMEMBERED_ANSWERS {
            session.answers.pop_front();
        }
    }

    pub(super) fn room_mut(&mut self, room: &RoomName) -> &mut RoomTruth {
        self.rooms.get_mut(room).expect("an entry must be of a room that there is")
    }

    fn user_mut(&mut self, user: &UserName) -> &mut User {
        self.users.get_mut(user).expect("an entry must be of a user that there is")
    }
}
