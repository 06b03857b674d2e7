//! The durable state: what the journal says, and nothing else.
//!
//! [`Durable::apply`] is the only way it changes. Everything in it is covered by the state hash and
//! travels in a snapshot; connections, deadlines and who is attached do not belong here.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::engine::fingerprint::Fingerprint;
use crate::engine::room::{Gate, Room};
use crate::engine::session::{Outcome, Session};
use crate::id::{Digest, Incarnation, PublicKey, Seq, SessionId};
use crate::log::{Change, CommandId, Entry, Founding, Moderator, OperatorRule};
use crate::text::{RoomName, Skeleton, UserName};
use crate::time::Timestamp;
use crate::wire::{Measure, UserInfo};

/// What the journal says.
#[derive(Clone, Debug)]
pub(crate) struct Durable {
    founding: Founding,
    users: BTreeMap<UserName, User>,
    sessions: BTreeMap<SessionId, Session>,
    rooms: BTreeMap<RoomName, Room>,
    /// Kept along with every change, so that the state hash never walks the state.
    fingerprint: Fingerprint,
    /// Derived from `users`: which name a key owns.
    names_by_key: BTreeMap<PublicKey, UserName>,
    /// Derived from `users`: which names have a look. Two names given under older tables may look
    /// alike under newer ones; both stay.
    names_by_skeleton: BTreeMap<Skeleton, BTreeSet<UserName>>,
    /// Derived from `users`: how many are banned.
    banned: u32,
    /// Derived from `sessions`: their order by last use, for the one that expires next.
    sessions_by_use: BTreeSet<(Timestamp, SessionId)>,
    /// Derived from `rooms`: bytes held behind all closed gates.
    held_bytes: u64,
    #[cfg(chat_mutants)]
    pub(crate) mutant: Option<crate::mutant::Mutant>,
}

/// A name and who owns it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) key: PublicKey,
    pub(crate) standing: Standing,
    /// The rooms it is a member of; the other half of `Room::members`.
    pub(crate) rooms: BTreeSet<RoomName>,
    /// Its live sessions; the other half of `Session::user`.
    pub(crate) sessions: BTreeSet<SessionId>,
}

/// What a user may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Standing {
    #[default]
    Plain,
    Operator,
    /// Not even log in.
    Banned,
}

impl User {
    pub(crate) const fn is_operator(&self) -> bool {
        matches!(self.standing, Standing::Operator)
    }

    pub(crate) const fn is_banned(&self) -> bool {
        matches!(self.standing, Standing::Banned)
    }
}

/// The part of the state that a snapshot carries; everything else is derived from it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DurableImage {
    pub(crate) founding: Founding,
    pub(crate) users: Vec<UserImage>,
    pub(crate) sessions: Vec<(SessionId, Session)>,
    pub(crate) rooms: Vec<(RoomName, Room)>,
}

/// One user in a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct UserImage {
    pub(crate) name: UserName,
    pub(crate) key: PublicKey,
    pub(crate) standing: Standing,
}

/// One fact of the state, as the fingerprint counts it.
#[derive(Serialize)]
enum Fact<'a> {
    Founding(&'a Founding),
    User {
        name: &'a UserName,
        key: PublicKey,
        standing: Standing,
    },
    Session {
        id: SessionId,
        user: &'a UserName,
        last: crate::id::Counter,
        opened: Timestamp,
        used: Timestamp,
    },
    Answer(SessionId, crate::id::Counter, Digest, crate::id::Index, &'a Outcome),
    Room {
        name: &'a RoomName,
        incarnation: Incarnation,
        gate: Gate,
        last: Seq,
        trimmed: Seq,
    },
    Member {
        room: &'a RoomName,
        user: &'a UserName,
    },
}

impl Durable {
    /// The state after the first entry.
    pub(crate) fn new(founding: Founding) -> Self {
        let mut fingerprint = Fingerprint::default();
        fingerprint.add(&Fact::Founding(&founding));
        Self {
            founding,
            users: BTreeMap::new(),
            sessions: BTreeMap::new(),
            rooms: BTreeMap::new(),
            fingerprint,
            names_by_key: BTreeMap::new(),
            names_by_skeleton: BTreeMap::new(),
            banned: 0,
            sessions_by_use: BTreeSet::new(),
            held_bytes: 0,
            #[cfg(chat_mutants)]
            mutant: None,
        }
    }

    /// Applies a result. It decides nothing and cannot fail.
    ///
    /// # Panics
    /// When the entry was not made for this state: the journal is then damaged or the engine has a
    /// bug, and going on would spread it.
    pub(crate) fn apply(&mut self, entry: &Entry) {
        match &entry.change {
            Change::Founded(_) => panic!("a journal must be founded once"),
            Change::UserAdded { user, key } => self.add_user(user, *key),
            Change::OperatorGranted { user } => self.set_standing(user, Standing::Operator),
            Change::SessionOpened { session, user } => self.open_session(*session, user, entry),
            Change::SessionExpired { session } => self.expire_session(*session),
            Change::RoomCreated { room, threshold } => {
                let made = self.rooms.insert(room.clone(), Room::new(*threshold)).is_none();
                assert!(made, "a room must be made once");
                self.count_room(room);
            }
            Change::Joined { room, seq, user, .. } => self.join(room, *seq, user),
            Change::Left { room, seq, user, .. } => self.leave(room, *seq, user),
            Change::Posted { room, seq, command, text, incarnation, .. } => {
                self.record(room, *seq, text.as_ref().len());
                let (room, incarnation, seq) = (room.clone(), *incarnation, *seq);
                self.answer(command, Outcome::Posted { room, incarnation, seq }, entry);
            }
            Change::Refused { command, refusal } => {
                self.answer(command, Outcome::Refused(*refusal), entry);
            }
            Change::GateOpened { room, .. } => self.change_room(room, Room::open),
            Change::Reset { room, incarnation, threshold, command } => {
                self.change_room(room, |room| room.reset(*incarnation, *threshold));
                self.answer(command, Outcome::Applied, entry);
            }
            Change::Trimmed { room, incarnation, through } => {
                self.change_room(room, |room| room.trim(*incarnation, *through));
            }
            Change::Moderated { user, measure, by } => self.moderate(user, *measure, by, entry),
        }
    }

    fn add_user(&mut self, name: &UserName, key: PublicKey) {
        let (standing, rooms, sessions) = (Standing::Plain, BTreeSet::new(), BTreeSet::new());
        let user = User { key, standing, rooms, sessions };
        assert!(self.users.insert(name.clone(), user).is_none(), "a name must be taken once");
        let free = self.names_by_key.insert(key, name.clone()).is_none();
        assert!(free, "a key must own one name");
        self.names_by_skeleton.entry(name.skeleton()).or_default().insert(name.clone());
        self.fingerprint.add(&Fact::User { name, key, standing });
    }

    fn set_standing(&mut self, name: &UserName, standing: Standing) {
        let user = self.users.get_mut(name).expect("who has a standing must be a user");
        self.fingerprint.remove(&Fact::User { name, key: user.key, standing: user.standing });
        self.banned = self.banned.saturating_sub(u32::from(user.is_banned()));
        user.standing = standing;
        self.banned = self.banned.saturating_add(u32::from(user.is_banned()));
        self.fingerprint.add(&Fact::User { name, key: user.key, standing });
    }

    fn moderate(&mut self, name: &UserName, measure: Measure, by: &Moderator, entry: &Entry) {
        let user = self.users.get(name).expect("a measure must be taken on a user");
        match (measure, user.standing) {
            (Measure::Ban, _) if mutated!(self, BanIsAKick) => {}
            (Measure::Ban, _) => self.set_standing(name, Standing::Banned),
            (Measure::Unban, Standing::Banned) | (Measure::Deop, Standing::Operator) => {
                self.set_standing(name, Standing::Plain);
            }
            (Measure::Op, Standing::Plain) => self.set_standing(name, Standing::Operator),
            (Measure::Release, _) => self.release(name),
            (Measure::Kick | Measure::Unban | Measure::Op | Measure::Deop, _) => {}
        }
        if let Moderator::Operator { command, .. } = by {
            self.answer(command, Outcome::Applied, entry);
        }
    }

    /// A name is nobody's any more.
    fn release(&mut self, name: &UserName) {
        let user = self.users.get(name).expect("a name that is released must be taken");
        assert!(user.rooms.is_empty(), "who loses a name must have left every room");
        let sessions: Vec<SessionId> = user.sessions.iter().copied().collect();
        for session in sessions {
            self.expire_session(session);
        }
        // Also tells the count of bans, and leaves one fact of it for the fingerprint to forget.
        self.set_standing(name, Standing::Plain);
        let User { key, standing, .. } = self.users.remove(name).expect("it was there just now");
        self.fingerprint.remove(&Fact::User { name, key, standing });
        self.names_by_key.remove(&key);
        let skeleton = name.skeleton();
        if let Some(alike) = self.names_by_skeleton.get_mut(&skeleton) {
            alike.remove(name);
            if alike.is_empty() {
                self.names_by_skeleton.remove(&skeleton);
            }
        }
    }

    fn open_session(&mut self, id: SessionId, user: &UserName, entry: &Entry) {
        let session = Session::new(user.clone(), entry.header.at);
        self.fingerprint.add(&session_fact(id, &session));
        self.sessions_by_use.insert((session.used(), id));
        let new = self.sessions.insert(id, session).is_none();
        assert!(new, "a session must be opened once");
        let user = self.users.get_mut(user).expect("a session must belong to a user");
        user.sessions.insert(id);
    }

    fn expire_session(&mut self, id: SessionId) {
        let session = self.sessions.remove(&id).expect("a session that expires must exist");
        self.sessions_by_use.remove(&(session.used(), id));
        self.fingerprint.remove(&session_fact(id, &session));
        for answer in session.answers() {
            let fact =
                Fact::Answer(id, answer.counter, answer.digest, answer.index, answer.outcome);
            self.fingerprint.remove(&fact);
        }
        let user = self.users.get_mut(session.user()).expect("a session must belong to a user");
        user.sessions.remove(&id);
    }

    /// Remembers the answer to a command.
    fn answer(&mut self, command: &CommandId, outcome: Outcome, entry: &Entry) {
        let id = command.session;
        let session = self.sessions.get_mut(&id).expect("a command must belong to a session");
        self.fingerprint.remove(&session_fact(id, session));
        if let Some(answer) = session.make_room_for_answer() {
            let fact =
                Fact::Answer(id, answer.counter, answer.digest, answer.index, &answer.outcome);
            self.fingerprint.remove(&fact);
        }
        let index = entry.header.index;
        let fact = Fact::Answer(id, command.counter, command.digest, index, &outcome);
        self.fingerprint.add(&fact);
        self.sessions_by_use.remove(&(session.used(), id));
        session.remember(command, index, outcome, entry.header.at);
        self.sessions_by_use.insert((session.used(), id));
        self.fingerprint.add(&session_fact(id, session));
    }

    fn join(&mut self, room: &RoomName, seq: Option<Seq>, user: &UserName) {
        let member = self.users.get_mut(user).expect("a member must be a user");
        assert!(member.rooms.insert(room.clone()), "a user must join a room once");
        let state = self.rooms.get_mut(room).expect("a joined room must exist");
        assert!(state.members.insert(user.clone()), "memberships must agree both ways");
        if !mutated!(self, MemberNotHashed) {
            self.fingerprint.add(&Fact::Member { room, user });
        }
        if let Some(seq) = seq {
            self.record(room, seq, user.as_ref().len());
        }
    }

    fn leave(&mut self, room: &RoomName, seq: Option<Seq>, user: &UserName) {
        let member = self.users.get_mut(user).expect("a member must be a user");
        assert!(member.rooms.remove(room), "a user must leave a room it is in");
        let state = self.rooms.get_mut(room).expect("a left room must exist");
        assert!(state.members.remove(user), "memberships must agree both ways");
        self.fingerprint.remove(&Fact::Member { room, user });
        if let Some(seq) = seq {
            self.record(room, seq, user.as_ref().len());
        }
    }

    fn record(&mut self, room: &RoomName, seq: Seq, text_bytes: usize) {
        self.change_room(room, |room| room.record(seq, text_bytes));
    }

    /// Changes what the fingerprint and the total of held bytes know of a room.
    fn change_room(&mut self, name: &RoomName, change: impl FnOnce(&mut Room)) {
        self.discount_room(name);
        change(self.rooms.get_mut(name).expect("a room that changes must exist"));
        self.count_room(name);
    }

    fn count_room(&mut self, name: &RoomName) {
        let room = self.rooms.get(name).expect("a room that is counted must exist");
        self.held_bytes = self.held_bytes.saturating_add(room.held_bytes());
        self.fingerprint.add(&room_fact(name, room));
    }

    fn discount_room(&mut self, name: &RoomName) {
        let room = self.rooms.get(name).expect("a room that is discounted must exist");
        self.held_bytes = self
            .held_bytes
            .checked_sub(room.held_bytes())
            .expect("a room must not hold more than all rooms together");
        self.fingerprint.remove(&room_fact(name, room));
    }
}

const fn session_fact(id: SessionId, session: &Session) -> Fact<'_> {
    let (user, last) = (session.user(), session.last());
    Fact::Session { id, user, last, opened: session.opened(), used: session.used() }
}

const fn room_fact<'a>(name: &'a RoomName, room: &Room) -> Fact<'a> {
    Fact::Room {
        name,
        incarnation: room.incarnation(),
        gate: room.gate(),
        last: room.last(),
        trimmed: room.trimmed(),
    }
}

impl Durable {
    pub(crate) const fn founding(&self) -> &Founding {
        &self.founding
    }

    pub(crate) fn user(&self, name: &UserName) -> Option<&User> {
        self.users.get(name)
    }

    pub(crate) fn is_operator(&self, name: &UserName) -> bool {
        self.users.get(name).is_some_and(User::is_operator)
    }

    pub(crate) fn users(&self) -> impl ExactSizeIterator<Item = (&UserName, &User)> {
        self.users.iter()
    }

    pub(crate) fn name_of_key(&self, key: &PublicKey) -> Option<&UserName> {
        self.names_by_key.get(key)
    }

    pub(crate) fn name_that_looks_like(&self, name: &UserName) -> Option<&UserName> {
        self.names_by_skeleton.get(&name.skeleton())?.first()
    }

    pub(crate) fn session(&self, id: &SessionId) -> Option<&Session> {
        self.sessions.get(id)
    }

    pub(crate) fn sessions(&self) -> impl ExactSizeIterator<Item = (&SessionId, &Session)> {
        self.sessions.iter()
    }

    /// Every session with its last use, the least recently used one first.
    pub(crate) fn sessions_by_use(&self) -> impl Iterator<Item = (Timestamp, SessionId)> {
        self.sessions_by_use.iter().copied()
    }

    pub(crate) fn room(&self, name: &RoomName) -> Option<&Room> {
        self.rooms.get(name)
    }

    pub(crate) fn rooms(&self) -> impl ExactSizeIterator<Item = (&RoomName, &Room)> {
        self.rooms.iter()
    }

    /// Bytes held behind all closed gates.
    pub(crate) const fn held_bytes(&self) -> u64 {
        self.held_bytes
    }

    /// How many users are banned.
    pub(crate) const fn banned(&self) -> u32 {
        self.banned
    }

    /// Whether the journal was founded with this name or key as an operator's.
    pub(crate) fn is_founder(&self, name: &UserName, key: &PublicKey) -> bool {
        self.founding.operators.iter().any(|rule| match rule {
            OperatorRule::Name(wanted) => wanted == name,
            OperatorRule::Key(wanted) => wanted == key,
        })
    }

    /// Whether a new user with this name and key is to be an operator.
    pub(crate) fn makes_operator(&self, name: &UserName, key: &PublicKey) -> bool {
        if self.founding.operators.is_empty() {
            return self.users.is_empty();
        }
        self.is_founder(name, key)
    }

    pub(crate) fn describe(&self, name: &UserName, connected: bool) -> Option<UserInfo> {
        let user = self.users.get(name)?;
        let (key, operator) = (user.key, user.is_operator());
        Some(UserInfo { user: name.clone(), key, connected, operator })
    }

    /// Takes back the newest answer of each session, as if its command had never come.
    #[cfg(chat_mutants)]
    pub(crate) fn forget_newest_answers(&mut self) {
        for (id, session) in &mut self.sessions {
            let before = session.clone();
            let Some(answer) = session.forget_newest_answer() else { continue };
            let fact =
                Fact::Answer(*id, answer.counter, answer.digest, answer.index, &answer.outcome);
            self.fingerprint.remove(&fact);
            self.fingerprint.remove(&session_fact(*id, &before));
            self.fingerprint.add(&session_fact(*id, session));
        }
    }

    /// The state hash: equal for equal states.
    pub(crate) fn state_hash(&self) -> Digest {
        self.fingerprint.digest()
    }

    pub(crate) fn image(&self) -> DurableImage {
        let users = self.users.iter().map(|(name, user)| UserImage {
            name: name.clone(),
            key: user.key,
            standing: user.standing,
        });
        DurableImage {
            founding: self.founding.clone(),
            users: users.collect(),
            sessions: self.sessions.iter().map(|(id, session)| (*id, session.clone())).collect(),
            rooms: self.rooms.iter().map(|(name, room)| (name.clone(), room.clone())).collect(),
        }
    }

    /// Rebuilds the state, its derived parts and its fingerprint; `None` when the parts contradict
    /// each other or are not in canonical order.
    pub(crate) fn from_image(image: &DurableImage) -> Option<Self> {
        let mut durable = Self::new(image.founding.clone());
        for user in &image.users {
            let taken = durable.users.contains_key(&user.name)
                || durable.names_by_key.contains_key(&user.key);
            if taken {
                return None;
            }
            durable.add_user(&user.name, user.key);
            durable.set_standing(&user.name, user.standing);
        }
        for (id, session) in &image.sessions {
            durable.adopt_session(*id, session.clone())?;
        }
        for (name, room) in &image.rooms {
            durable.adopt_room(name, room.clone())?;
        }
        (durable.image() == *image).then_some(durable)
    }

    fn adopt_session(&mut self, id: SessionId, session: Session) -> Option<()> {
        self.users.get_mut(session.user())?.sessions.insert(id);
        self.fingerprint.add(&session_fact(id, &session));
        if !session.is_sound() {
            return None;
        }
        for answer in session.answers() {
            let fact =
                Fact::Answer(id, answer.counter, answer.digest, answer.index, answer.outcome);
            self.fingerprint.add(&fact);
        }
        self.sessions_by_use.insert((session.used(), id));
        self.sessions.insert(id, session).is_none().then_some(())
    }

    fn adopt_room(&mut self, name: &RoomName, room: Room) -> Option<()> {
        for member in &room.members {
            let user = self.users.get_mut(member).filter(|user| !user.is_banned())?;
            user.rooms.insert(name.clone());
            self.fingerprint.add(&Fact::Member { room: name, user: member });
        }
        if !room.is_sound() || self.rooms.insert(name.clone(), room).is_some() {
            return None;
        }
        self.count_room(name);
        Some(())
    }

    /// The whole-state check: every rule that ties two tables together.
    ///
    /// # Panics
    /// When a rule is broken.
    pub(crate) fn check(&self) {
        for (name, user) in &self.users {
            assert_eq!(self.names_by_key.get(&user.key), Some(name), "a key must find its name");
            for room in &user.rooms {
                let room = self.rooms.get(room).expect("a user's room must exist");
                assert!(room.members.contains(name), "memberships must agree both ways");
            }
            for id in &user.sessions {
                let session = self.sessions.get(id).expect("a user's session must exist");
                assert_eq!(session.user(), name, "sessions must agree both ways");
            }
        }
        for (name, room) in &self.rooms {
            for member in &room.members {
                let user = self.users.get(member).expect("a member must be a user");
                assert!(user.rooms.contains(name), "memberships must agree both ways");
            }
        }
        let count: usize = self.users.values().map(|user| user.sessions.len()).sum();
        assert_eq!(count, self.sessions.len(), "every session must belong to its user");
        let rebuilt = Self::from_image(&self.image()).expect("the state must fit its own image");
        assert_eq!(
            rebuilt.state_hash(),
            self.state_hash(),
            "the state hash must be that of the state"
        );
        let by_use = self.sessions.iter().map(|(id, session)| (session.used(), *id));
        let by_use: BTreeSet<_> = by_use.collect();
        assert_eq!(self.sessions_by_use, by_use, "sessions must be in the order of their use");
        assert_eq!(rebuilt.held_bytes, self.held_bytes, "held bytes must be those of the rooms");
        assert_eq!(rebuilt.banned, self.banned, "bans must count");
    }
}
