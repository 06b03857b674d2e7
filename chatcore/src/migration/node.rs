//! One process that owns a chat, stands by, or learns to: what it may commit, and what it does
//! about the record.
//!
//! It knows places in the journal and not what stands there: entries pass through it as an opaque
//! `E`. The host appends and stores them, sends what is to be sent, and reads the register; whatever
//! is lost on the way it may send again, and no message that comes late, twice or out of order does
//! harm. When to suspect somebody, to freeze and to thaw is the host's to say: that decides how
//! long something takes, and never whether it is right.
//!
//! What happens on the host itself has to be told in order: every output is taken, and every
//! [`Output::Put`] answered, before the next input; and once entries were forgotten, nothing is said to be
//! stored any more that was written before.

use std::collections::VecDeque;

use crate::id::{Digest, Generation, Index};
use crate::migration::{NodeId, Proposal, Record};

/// What one node tells another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Message<E> {
    /// From the owner: an entry.
    Entry {
        /// The generation that the owner owns.
        generation: Generation,
        /// Its place.
        index: Index,
        /// The entry.
        entry: E,
        /// The last entry that is committed.
        committed: Index,
    },
    /// To the owner: every entry of its up to this one is stored.
    Stored {
        /// The generation of the owner that is told.
        generation: Generation,
        /// The last stored entry.
        through: Index,
    },
    /// From the owner: nothing more will be appended, the standby may take over.
    Release {
        /// The generation.
        generation: Generation,
        /// The last entry.
        through: Index,
        /// Digest of the state after it.
        state: Digest,
        /// The last entry that is committed.
        committed: Index,
    },
    /// To the owner: the state is another one, which is a bug. The standby will not take over.
    Refuse {
        /// The generation.
        generation: Generation,
    },
}

/// Something that happened to a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input<E> {
    /// The host stored what the owner had committed up to an entry, and may go on from there.
    Copied {
        /// The owner.
        owner: NodeId,
        /// Its generation.
        generation: Generation,
        /// The last entry of the copy.
        through: Index,
    },
    /// An entry was appended, by this owner or as [`Output::Put`] wanted: it is the last one now.
    Appended(Index),
    /// The entry that [`Output::Put`] wanted was there.
    Had(Index),
    /// Entries up to this one are stored.
    Stored(Index),
    /// Another node said something.
    Heard {
        /// Who; proven.
        from: NodeId,
        /// What.
        message: Message<E>,
    },
    /// The register said this, now or at any time before.
    Told(Record),
    /// A node that learns from this owner is nearly level: it is to be the standby.
    Join(NodeId),
    /// The standby, or who is to be it, is to be given up.
    Drop,
    /// The standby is to take over: nothing is appended from here on.
    Freeze {
        /// Digest of the state.
        state: Digest,
    },
    /// It took too long: the owner goes on.
    Thaw,
    /// Answers [`Output::Compare`].
    Compared {
        /// The generation that was asked about.
        generation: Generation,
        /// Whether the state is the same.
        same: bool,
    },
    /// Nothing was heard of the owner for too long.
    Suspect,
}

/// Something that a node wants done.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Output<E> {
    /// Send a message.
    Send {
        /// To whom.
        to: NodeId,
        /// What.
        message: Message<E>,
    },
    /// Propose this to the register, and say what it answered by [`Input::Told`].
    Propose(Proposal),
    /// Read the register.
    Ask,
    /// Have this entry at this place. If another stands there, which then was never committed, it and
    /// all after it are forgotten first. Answer with [`Input::Appended`] or [`Input::Had`].
    Put {
        /// The place: at most one after the last entry.
        index: Index,
        /// The entry.
        entry: E,
    },
    /// Entries up to this one are committed: what waits for them may leave.
    Commit(Index),
    /// Say whether the state is this one.
    Compare {
        /// To be repeated.
        generation: Generation,
        /// Digest of the owner's state.
        state: Digest,
    },
    /// The standby found another state than the owner's. It is a bug, and worth an alarm.
    Differs,
}

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Standing {
    /// Nothing: it knows at most who owns the chat.
    Idle,
    /// It follows an owner, and may not take over.
    Learner,
    /// It follows the owner, and may take over.
    Standby,
    /// It decides and commits by itself.
    Alone,
    /// It decides; commits wait for the node that is to be the standby, too.
    Joint,
    /// It decides; commits wait for the standby, too.
    Paired,
    /// As `Paired`, and it appends nothing: the standby may take over.
    Frozen,
}

/// One process.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Node<E> {
    me: NodeId,
    role: Role,
    appended: Index,
    stored: Index,
    /// Of a follower: the entries up to this one are those of its owner. What is after them it has from
    /// before, and it may have been committed then, or not.
    verified: Index,
    committed: Index,
    outputs: VecDeque<Output<E>>,
    #[cfg(chat_mutants)]
    mutant: Option<crate::mutant::Mutant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Role {
    /// The newest record that it was told of, if any.
    Idle(Option<Record>),
    Learner {
        owner: NodeId,
        generation: Generation,
    },
    Standby(Record),
    Owner(Record, Owning),
}

/// How an owner owns. Only a standby that is in the record, or is about to be, may hold up commits, and
/// whoever could take over does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Owning {
    Alone,
    /// A node is about to be the standby. Once it has all that is committed that is proposed, and may
    /// from then on be the record at any time.
    Joint {
        learner: NodeId,
        stored: Index,
        proposed: bool,
    },
    Paired {
        stored: Index,
    },
    /// The standby was told that it may take over.
    Frozen {
        stored: Index,
    },
}

impl Owning {
    /// How an owner owns by a record, when its standby has so much.
    const fn by(record: &Record, stored: Index) -> Self {
        if record.standby.is_some() { Self::Paired { stored } } else { Self::Alone }
    }
}

impl<E> Node<E> {
    /// The owner of a chat that nobody stands by, with all entries stored up to this one.
    ///
    /// # Panics
    /// When the record names another owner, or a standby.
    pub fn owner(me: NodeId, record: Record, through: Index) -> Self {
        assert!(record.owner == me && record.standby.is_none(), "an owner alone must be that");
        Self { committed: through, ..Self::with(me, Role::Owner(record, Owning::Alone), through) }
    }

    /// A process that has nothing.
    pub fn idle(me: NodeId) -> Self {
        Self::with(me, Role::Idle(None), Index::ZERO)
    }

    fn with(me: NodeId, role: Role, through: Index) -> Self {
        Self {
            me,
            role,
            appended: through,
            stored: through,
            verified: through,
            committed: Index::ZERO,
            outputs: VecDeque::new(),
            #[cfg(chat_mutants)]
            mutant: None,
        }
    }

    /// Switches a rule off.
    #[cfg(chat_mutants)]
    pub fn mutate(&mut self, mutant: crate::mutant::Mutant) {
        self.mutant = Some(mutant);
    }

    /// What it is.
    pub const fn standing(&self) -> Standing {
        match self.role {
            Role::Idle(_) => Standing::Idle,
            Role::Learner { .. } => Standing::Learner,
            Role::Standby(_) => Standing::Standby,
            Role::Owner(_, Owning::Alone) => Standing::Alone,
            Role::Owner(_, Owning::Joint { .. }) => Standing::Joint,
            Role::Owner(_, Owning::Paired { .. }) => Standing::Paired,
            Role::Owner(_, Owning::Frozen { .. }) => Standing::Frozen,
        }
    }

    /// Whether it decides what is appended.
    pub const fn admits(&self) -> bool {
        matches!(self.standing(), Standing::Alone | Standing::Joint | Standing::Paired)
    }

    /// The newest record that it acts by.
    pub const fn record(&self) -> Option<&Record> {
        match &self.role {
            Role::Idle(record) => record.as_ref(),
            Role::Learner { .. } => None,
            Role::Standby(record) | Role::Owner(record, _) => Some(record),
        }
    }

    /// The newest generation that it knows of; 0 for none. It never goes back.
    pub fn generation(&self) -> Generation {
        match &self.role {
            Role::Idle(record) => record.map_or(Generation::ZERO, |record| record.generation),
            Role::Learner { generation, .. } => *generation,
            Role::Standby(record) | Role::Owner(record, _) => record.generation,
        }
    }

    /// The last entry it has.
    pub const fn appended(&self) -> Index {
        self.appended
    }

    /// The last entry that is committed, as far as it decides that.
    pub const fn committed(&self) -> Index {
        self.committed
    }

    /// To whom an owner has to send entries, in which generation, and after which one.
    pub fn follower(&self) -> Option<(NodeId, Generation, Index)> {
        let Role::Owner(record, owning) = self.role else { return None };
        let (node, stored) = match owning {
            Owning::Alone => return None,
            Owning::Joint { learner, stored, .. } => (learner, stored),
            Owning::Paired { stored } | Owning::Frozen { stored } => (record.standby?, stored),
        };
        Some((node, record.generation, stored))
    }

    /// Takes the next thing to do.
    pub fn poll_output(&mut self) -> Option<Output<E>> {
        self.outputs.pop_front()
    }

    /// Takes in what happened. What makes no sense in its present role is ignored.
    ///
    /// # Panics
    /// When the host says that an entry was appended that is not the next one, or though nothing may be
    /// appended, because the standby may take over.
    pub fn handle(&mut self, input: Input<E>) {
        match input {
            Input::Copied { owner, generation, through } => self.learn(owner, generation, through),
            Input::Appended(index) => self.append(index),
            Input::Had(index) => self.verify(index),
            Input::Stored(through) => self.store(through),
            Input::Heard { from, message } => self.hear(from, message),
            Input::Told(record) => self.heed(record),
            Input::Join(node) => self.join(node),
            Input::Drop => self.give_up(),
            Input::Freeze { state } => self.freeze(state),
            Input::Thaw => self.thaw(),
            Input::Compared { generation, same } => self.take_over_if(generation, same),
            Input::Suspect => self.suspect(),
        }
    }

    fn learn(&mut self, owner: NodeId, generation: Generation, through: Index) {
        let is_late = generation < self.generation();
        if !matches!(self.role, Role::Idle(_)) || owner == self.me || is_late {
            return;
        }
        self.role = Role::Learner { owner, generation };
        (self.appended, self.stored, self.verified) = (through, through, through);
        self.committed = through;
        self.tell_stored();
    }

    fn append(&mut self, index: Index) {
        match self.role {
            Role::Owner(_, owning) => {
                let frozen = matches!(owning, Owning::Frozen { .. });
                assert!(!frozen, "nothing may be appended while the standby may take over");
                assert_eq!(index, self.appended.next(), "entries must be appended without holes");
            }
            Role::Learner { .. } | Role::Standby(_) => {
                assert_eq!(index, self.verified.next(), "a follower must do as its owner");
                self.stored = self.stored.min(self.verified);
                self.verified = index;
            }
            Role::Idle(_) => return,
        }
        self.appended = index;
    }

    fn verify(&mut self, index: Index) {
        if matches!(self.role, Role::Learner { .. } | Role::Standby(_)) {
            assert_eq!(index, self.verified.next(), "a follower must do as its owner");
            self.verified = index;
            self.tell_stored();
        }
    }

    fn store(&mut self, through: Index) {
        self.stored = self.stored.max(through.min(self.appended));
        self.tell_stored();
        self.commit();
    }

    /// A follower tells its owner how much of the owner's it has.
    fn tell_stored(&mut self) {
        let (owner, generation) = match self.role {
            Role::Learner { owner, generation } => (owner, generation),
            Role::Standby(record) => (record.owner, record.generation),
            Role::Idle(_) | Role::Owner(..) => return,
        };
        let message = Message::Stored { generation, through: self.stored.min(self.verified) };
        self.outputs.push_back(Output::Send { to: owner, message });
    }

    /// Commits what is stored by everybody who may own the chat next.
    fn commit(&mut self) {
        let Role::Owner(_, owning) = self.role else { return };
        let through = match owning {
            Owning::Alone => self.stored,
            Owning::Joint { .. } if mutated!(self, NoJointCommit) => self.stored,
            Owning::Joint { stored, .. }
            | Owning::Paired { stored }
            | Owning::Frozen { stored } => {
                if mutated!(self, CommitWithoutStandby) {
                    self.stored
                } else {
                    stored.min(self.stored)
                }
            }
        };
        if through > self.committed {
            self.committed = through;
            self.outputs.push_back(Output::Commit(through));
        }
    }

    fn hear(&mut self, from: NodeId, message: Message<E>) {
        match message {
            Message::Entry { generation, index, entry, committed } => {
                if self.follows(from, generation) {
                    self.hear_entry(index, entry);
                    self.committed = self.committed.max(committed.min(self.verified));
                } else if generation > self.generation() {
                    // Somebody may own the chat whom this one does not know of.
                    self.outputs.push_back(Output::Ask);
                }
            }
            Message::Stored { generation, through } => self.hear_stored(from, generation, through),
            Message::Release { generation, through, state, committed } => {
                let Role::Standby(record) = self.role else { return };
                let is_of = record.owner == from && record.generation == generation;
                let has = [self.stored, self.verified, self.appended];
                if is_of && has == [through; 3] {
                    self.committed = self.committed.max(committed.min(through));
                    self.outputs.push_back(Output::Compare { generation, state });
                }
            }
            Message::Refuse { generation } => {
                let Role::Owner(record, _) = self.role else { return };
                if record.standby == Some(from) && record.generation == generation {
                    self.outputs.push_back(Output::Differs);
                    self.give_up();
                }
            }
        }
    }

    /// Whether it takes entries from somebody.
    fn follows(&self, from: NodeId, generation: Generation) -> bool {
        match self.role {
            Role::Learner { owner, generation: known } => owner == from && known == generation,
            Role::Standby(record) => {
                let takes_old = mutated!(self, StandbyTakesOld) && generation < record.generation;
                record.owner == from && (record.generation == generation || takes_old)
            }
            Role::Idle(_) | Role::Owner(..) => false,
        }
    }

    fn hear_entry(&mut self, index: Index, entry: E) {
        if index == self.verified.next() {
            self.outputs.push_back(Output::Put { index, entry });
        } else if index <= self.verified {
            // What it said of that may be lost.
            self.tell_stored();
        }
    }

    fn hear_stored(&mut self, from: NodeId, generation: Generation, through: Index) {
        let Role::Owner(record, owning) = &mut self.role else { return };
        // Nobody has of this owner what it does not have.
        if generation != record.generation || through > self.appended {
            return;
        }
        let standby = record.standby;
        let stored = match owning {
            Owning::Joint { learner, stored, .. } if *learner == from => stored,
            Owning::Paired { stored } | Owning::Frozen { stored } if standby == Some(from) => {
                stored
            }
            Owning::Alone
            | Owning::Joint { .. }
            | Owning::Paired { .. }
            | Owning::Frozen { .. } => return,
        };
        *stored = through.max(*stored);
        self.commit();
        self.propose_learner();
    }

    /// Begins to commit with a node, and once that says that it has all that is committed, has it made
    /// the standby.
    fn join(&mut self, learner: NodeId) {
        let Role::Owner(record, Owning::Alone) = self.role else { return };
        if learner != self.me {
            let owning = Owning::Joint { learner, stored: Index::ZERO, proposed: false };
            self.role = Role::Owner(record, owning);
        }
    }

    /// Has the register name the node that is to stand by, if it may take over.
    fn propose_learner(&mut self) {
        let Role::Owner(record, Owning::Joint { learner, stored, proposed: false }) = self.role
        else {
            return;
        };
        if stored >= self.committed || mutated!(self, ProposeBehind) {
            self.role = Role::Owner(record, Owning::Joint { learner, stored, proposed: true });
            self.propose(record.generation, self.me, Some(learner));
        }
    }

    /// Has the register say that nobody stands by. Until it does, commits wait.
    fn give_up(&mut self) {
        let Role::Owner(record, owning) = self.role else { return };
        match owning {
            Owning::Alone => return,
            // Nobody was told of it.
            Owning::Joint { proposed: false, .. } => {
                self.role = Role::Owner(record, Owning::Alone);
                return self.commit();
            }
            Owning::Joint { .. } | Owning::Paired { .. } | Owning::Frozen { .. } => {}
        }
        self.propose(record.generation, self.me, None);
        if mutated!(self, DropStandbyAlone) {
            self.role = Role::Owner(record, Owning::Alone);
            self.commit();
        }
    }

    fn freeze(&mut self, state: Digest) {
        let Role::Owner(record, Owning::Paired { stored }) = self.role else { return };
        let Some(standby) = record.standby else { return };
        self.role = Role::Owner(record, Owning::Frozen { stored });
        let (generation, through) = (record.generation, self.appended);
        let committed = self.committed;
        let message = Message::Release { generation, through, state, committed };
        self.outputs.push_back(Output::Send { to: standby, message });
    }

    /// Goes on. If the standby has taken over meanwhile, nothing of it will ever be committed.
    fn thaw(&mut self) {
        let Role::Owner(record, Owning::Frozen { stored }) = self.role else { return };
        self.role = Role::Owner(record, Owning::Paired { stored });
    }

    fn take_over_if(&mut self, generation: Generation, same: bool) {
        let Role::Standby(record) = self.role else { return };
        if record.generation != generation {
            return;
        }
        if same {
            self.propose(generation, self.me, Some(record.owner));
        } else {
            let message = Message::Refuse { generation };
            self.outputs.push_back(Output::Send { to: record.owner, message });
        }
    }

    fn suspect(&mut self) {
        match self.role {
            Role::Standby(record) => self.propose(record.generation, self.me, None),
            Role::Idle(_) | Role::Learner { .. } | Role::Owner(..) => {}
        }
    }

    fn propose(&mut self, expect: Generation, owner: NodeId, standby: Option<NodeId>) {
        let proposal = Proposal { expect, by: self.me, owner, standby };
        self.outputs.push_back(Output::Propose(proposal));
    }

    /// Takes in a record. An older one than it knows says nothing.
    fn heed(&mut self, record: Record) {
        if record.generation <= self.generation() {
            return;
        }
        match self.role {
            Role::Idle(_) => self.role = Role::Idle(Some(record)),
            Role::Learner { owner, .. } => self.heed_as_learner(owner, record),
            Role::Standby(known) => self.heed_as_standby(&known, record),
            Role::Owner(_, owning) => self.heed_as_owner(owning, record),
        }
        self.tell_stored();
        self.commit();
    }

    fn heed_as_learner(&mut self, owner: NodeId, record: Record) {
        // In a generation that it has not seen somebody else may have owned the chat, and what this
        // one had of the owner may have been replaced since, as far as it was not committed.
        if record.generation != self.generation().next() {
            self.verified = self.committed;
        }
        self.role = if record.owner != owner {
            Role::Idle(Some(record))
        } else if record.standby == Some(self.me) {
            Role::Standby(record)
        } else {
            Role::Learner { owner, generation: record.generation }
        };
    }

    fn heed_as_standby(&mut self, known: &Record, record: Record) {
        self.role = if record.owner == self.me {
            Role::Owner(record, Owning::by(&record, Index::ZERO))
        } else if record.owner == known.owner && record.standby == Some(self.me) {
            Role::Standby(record)
        } else {
            Role::Idle(Some(record))
        };
    }

    fn heed_as_owner(&mut self, owning: Owning, record: Record) {
        if record.owner == self.me {
            let stored = match owning {
                Owning::Joint { learner, stored, .. } if record.standby == Some(learner) => stored,
                Owning::Paired { stored } | Owning::Frozen { stored } => stored,
                Owning::Alone | Owning::Joint { .. } => Index::ZERO,
            };
            self.role = Role::Owner(record, Owning::by(&record, stored));
        } else if record.standby == Some(self.me) {
            // The new owner has all that was committed; of the rest it may have some.
            self.role = Role::Standby(record);
            self.verified = self.committed;
        } else {
            self.role = Role::Idle(Some(record));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{BootId, LogId, PublicKey};

    const S: u8 = 1;
    const T: u8 = 2;

    fn id(number: u8) -> NodeId {
        NodeId { key: PublicKey::new([number; 32]), boot: BootId::new([0; 16]) }
    }

    fn index(value: u64) -> Index {
        Index::new(value).unwrap()
    }

    fn record(generation: u64, owner: u8, standby: Option<u8>) -> Record {
        let generation = Generation::new(generation).unwrap();
        let (owner, standby) = (id(owner), standby.map(id));
        Record { generation, log_id: LogId::new([0; 16]), owner, standby }
    }

    fn outputs(node: &mut Node<&'static str>) -> Vec<Output<&'static str>> {
        core::iter::from_fn(|| node.poll_output()).collect()
    }

    fn append(node: &mut Node<&'static str>, place: u64) {
        node.handle(Input::Appended(index(place)));
        node.handle(Input::Stored(index(place)));
    }

    /// A node that has a copy up to an entry, of the first generation.
    fn learner(through: u64) -> Node<&'static str> {
        let mut node = Node::idle(id(T));
        let (generation, through) = (Generation::new(1).unwrap(), index(through));
        node.handle(Input::Copied { owner: id(S), generation, through });
        node
    }

    fn entry(generation: u64, place: u64, entry: &'static str) -> Input<&'static str> {
        let (generation, index) = (Generation::new(generation).unwrap(), index(place));
        let message = Message::Entry { generation, index, entry, committed: Index::ZERO };
        Input::Heard { from: id(S), message }
    }

    fn stored(generation: u64, through: u64) -> Input<&'static str> {
        let generation = Generation::new(generation).unwrap();
        let message = Message::Stored { generation, through: index(through) };
        Input::Heard { from: id(T), message }
    }

    /// An owner with two entries whom `T` follows.
    fn joining() -> Node<&'static str> {
        let mut node = Node::owner(id(S), record(1, S, None), Index::ZERO);
        append(&mut node, 1);
        append(&mut node, 2);
        node.handle(Input::Join(id(T)));
        node
    }

    #[test]
    fn owner_alone_commits_what_it_stored() {
        let mut node = Node::owner(id(S), record(1, S, None), Index::ZERO);
        node.handle(Input::Appended(index(1)));
        assert_eq!(outputs(&mut node), []);
        node.handle(Input::Stored(index(1)));
        assert_eq!(outputs(&mut node), [Output::Commit(index(1))]);
    }

    #[test]
    fn node_is_proposed_once_it_has_all_that_is_committed_and_commits_wait_for_it_from_then_on() {
        let mut node = joining();
        outputs(&mut node);
        node.handle(stored(1, 1));
        assert_eq!(outputs(&mut node), []);
        node.handle(stored(1, 2));
        let expect = Generation::new(1).unwrap();
        let proposal = Proposal { expect, by: id(S), owner: id(S), standby: Some(id(T)) };
        assert_eq!(outputs(&mut node), [Output::Propose(proposal)]);
        append(&mut node, 3);
        assert_eq!(outputs(&mut node), [], "the proposal may be the record by now");
        node.handle(stored(1, 3));
        assert_eq!(outputs(&mut node), [Output::Commit(index(3))]);
    }

    #[test]
    fn owner_goes_on_without_its_standby_once_the_register_says_so() {
        let mut node = joining();
        node.handle(stored(1, 2));
        node.handle(Input::Told(record(2, S, Some(T))));
        append(&mut node, 3);
        node.handle(Input::Drop);
        assert_eq!(node.committed(), index(2));
        node.handle(Input::Told(record(3, S, None)));
        assert_eq!((node.standing(), node.committed()), (Standing::Alone, index(3)));
    }

    #[test]
    fn frozen_owner_appends_nothing_and_goes_on_when_it_thaws() {
        let mut node = joining();
        node.handle(stored(1, 2));
        node.handle(Input::Told(record(2, S, Some(T))));
        outputs(&mut node);
        let state = Digest::new([7; 32]);
        node.handle(Input::Freeze { state });
        assert!(!node.admits());
        let (generation, through) = (Generation::new(2).unwrap(), index(2));
        let message = Message::Release { generation, through, state, committed: through };
        assert_eq!(outputs(&mut node), [Output::Send { to: id(T), message }]);
        node.handle(Input::Thaw);
        assert!(node.admits());
    }

    #[test]
    fn standby_takes_over_from_who_released_it_only_with_the_same_state() {
        let (generation, through, state) =
            (Generation::new(2).unwrap(), index(1), Digest::new([7; 32]));
        let released = || {
            let mut node: Node<&str> = Node::idle(id(T));
            let learn = Input::Copied { owner: id(S), generation: Generation::ZERO, through };
            node.handle(learn);
            node.handle(Input::Told(record(2, S, Some(T))));
            let message = Message::Release { generation, through, state, committed: through };
            outputs(&mut node);
            node.handle(Input::Heard { from: id(S), message });
            assert_eq!(outputs(&mut node), [Output::Compare { generation, state }]);
            node
        };
        let mut node = released();
        node.handle(Input::Compared { generation, same: true });
        let proposal =
            Proposal { expect: generation, by: id(T), owner: id(T), standby: Some(id(S)) };
        assert_eq!(outputs(&mut node), [Output::Propose(proposal)]);
        let mut node = released();
        node.handle(Input::Compared { generation, same: false });
        let message = Message::Refuse { generation };
        assert_eq!(outputs(&mut node), [Output::Send { to: id(S), message }]);
    }

    #[test]
    fn owner_of_before_says_only_what_it_has_of_the_new_owner() {
        let mut node = joining();
        node.handle(stored(1, 2));
        node.handle(Input::Told(record(2, S, Some(T))));
        append(&mut node, 3);
        outputs(&mut node);
        // The standby took over without the third entry.
        node.handle(Input::Told(record(3, T, Some(S))));
        let generation = Generation::new(3).unwrap();
        let has = |through| Output::Send {
            to: id(T),
            message: Message::Stored { generation, through: index(through) },
        };
        assert_eq!(outputs(&mut node), [has(2)]);
        let (entry, committed) = ("another", index(2));
        let message = Message::Entry { generation, index: index(3), entry, committed };
        node.handle(Input::Heard { from: id(T), message });
        assert_eq!(outputs(&mut node), [Output::Put { index: index(3), entry }]);
        append(&mut node, 3);
        assert_eq!(outputs(&mut node), [has(3)]);
    }
    #[test]
    fn learner_that_missed_a_generation_says_only_what_was_committed_before() {
        for (missed, has) in [(0, 3), (1, 2)] {
            let mut node = learner(2);
            node.handle(entry(1, 3, "third"));
            append(&mut node, 3);
            outputs(&mut node);
            let generation = 2 + missed;
            node.handle(Input::Told(record(generation, S, None)));
            let generation = Generation::new(generation).unwrap();
            let message = Message::Stored { generation, through: index(has) };
            assert_eq!(outputs(&mut node), [Output::Send { to: id(S), message }]);
        }
    }

    #[test]
    fn nobody_is_proposed_who_has_said_nothing() {
        let mut node: Node<&str> = Node::owner(id(S), record(1, S, None), Index::ZERO);
        node.handle(Input::Join(id(T)));
        assert_eq!(outputs(&mut node), []);
        node.handle(stored(1, 0));
        assert!(matches!(outputs(&mut node)[..], [Output::Propose(_)]));
    }

    #[test]
    fn whoever_claims_to_have_more_than_the_owner_is_not_believed() {
        let mut node = joining();
        node.handle(stored(1, 9));
        assert_eq!(
            outputs(&mut node).iter().filter(|it| matches!(it, Output::Propose(_))).count(),
            0
        );
        append(&mut node, 3);
        assert_eq!(node.committed(), index(2));
    }

    #[test]
    #[should_panic(expected = "nothing may be appended while the standby may take over")]
    fn frozen_owner_that_appends_stops() {
        let mut node = joining();
        node.handle(stored(1, 2));
        node.handle(Input::Told(record(2, S, Some(T))));
        node.handle(Input::Freeze { state: Digest::new([7; 32]) });
        node.handle(Input::Appended(index(3)));
    }
}
