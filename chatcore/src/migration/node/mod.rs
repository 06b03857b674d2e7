//! One process that owns a chat, stands by, or learns to: what it may commit, and what it does
//! about the record.
//!
//! It knows places in the journal and not what stands there: entries pass through it as an opaque
//! `E`. The host appends and stores them, sends what is to be sent, and reads the register; whatever
//! is lost on the way it may send again, and no message that comes late, twice or out of order does
//! harm. When to suspect somebody, to freeze and to thaw is the host's to say: that decides how
//! long something takes, and never whether it is right.
//!
//! What happens on the host itself has to be told in order: every output is taken and begun before the
//! next input. What takes time then (storing, comparing, forgetting, copying, asking the register) is
//! told when it is done, and may come too late.
//!
//! # Why a follower compares
//! A follower may have entries that its owner does not have: its own from when it was the owner, or
//! some that the owner lost when its process ended, as an owner sends what it has not stored yet. So
//! with every change of the record it is sure of what is committed alone. It keeps the rest, which may
//! be committed for all it knows, compares it with what the owner sends, and forgets it from the first
//! difference on.

mod tail;

use std::collections::VecDeque;

use crate::id::{Digest, Generation, Index};
use crate::migration::{NodeId, Proposal, Record};
use tail::{Offer, Tail};

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
    /// From the owner: it is there. To be sent whenever nothing else was for a while; what the follower
    /// answers tells where to go on with entries.
    Beat {
        /// The generation.
        generation: Generation,
        /// The last entry that is committed.
        committed: Index,
    },
    /// To the owner: every entry of its up to this one is stored. Entries are to be sent from there on.
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
    },
    /// To the owner: the state is another one, which is a bug. The standby will not take over.
    Refuse {
        /// The generation.
        generation: Generation,
    },
}

impl<E> Message<E> {
    /// The generation of the owner that says it, or that is told.
    pub const fn generation(&self) -> Generation {
        match self {
            Self::Entry { generation, .. }
            | Self::Beat { generation, .. }
            | Self::Stored { generation, .. }
            | Self::Release { generation, .. }
            | Self::Refuse { generation } => *generation,
        }
    }
}

/// Something that happened to a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input<E> {
    /// This process is to follow the owner of whom the record tells.
    Learn,
    /// Answers [`Output::Copy`]: the host has stored what the owner had committed up to an entry.
    Copied {
        /// The generation that was asked about.
        generation: Generation,
        /// The last entry of the copy.
        through: Index,
    },
    /// This owner decided an entry: it is the last one now.
    Decided(Index),
    /// Entries up to this one are stored.
    Stored {
        /// How many cuts had been made when the last of them was written.
        cuts: u64,
        /// The last of them.
        through: Index,
    },
    /// Another node said something.
    Heard {
        /// Who; proven.
        from: NodeId,
        /// What.
        message: Message<E>,
    },
    /// The register said this, now or at any time since this process began.
    Told(Record),
    /// Answers [`Output::Check`].
    Checked {
        /// The generation that was asked about.
        generation: Generation,
        /// The place that was asked about.
        index: Index,
        /// Whether the same entry stands there.
        same: bool,
    },
    /// Answers [`Output::Cut`].
    WasCut {
        /// The number of the cut.
        cuts: u64,
    },
    /// A node that learns from this owner is nearly level: it is to be the standby.
    Join(NodeId),
    /// The standby, or who is to be it, is to be given up.
    Drop,
    /// The standby is to take over: nothing is decided from here on.
    Freeze {
        /// Digest of the state after the last entry.
        state: Digest,
    },
    /// It took too long: the owner goes on.
    Thaw,
    /// Answers [`Output::Compare`], while the last entry is the one that it was about.
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
    /// Propose this to the register until it answers anything newer than `expect`, and say what it
    /// answered by [`Input::Told`].
    Propose(Proposal),
    /// Read the register. It is not asked for again before the register was heard.
    Ask,
    /// Have what the owner has committed copied, as much at once as the host likes, or nothing. To be
    /// given up when this node stands as anything but [`Standing::Copying`].
    Copy {
        /// The owner.
        owner: NodeId,
        /// To be repeated.
        generation: Generation,
        /// The last entry, which is the owner's.
        after: Index,
    },
    /// Say whether this entry is the one at this place.
    Check {
        /// To be repeated: an owner has one entry at a place for as long as its generation lasts.
        generation: Generation,
        /// The place; there is an entry.
        index: Index,
        /// The entry.
        entry: E,
    },
    /// Append and store this entry: it is the next one.
    Put {
        /// Its place.
        index: Index,
        /// The entry.
        entry: E,
    },
    /// Forget every entry after this one: none of them was ever committed.
    Cut {
        /// The last entry to keep.
        after: Index,
        /// To be repeated; and what is stored after it is stored as of so many cuts.
        cuts: u64,
    },
    /// Entries up to this one are committed: what waits for them may leave.
    Commit(Index),
    /// Say whether the state after an entry, which is the last one, is this one.
    Compare {
        /// To be repeated.
        generation: Generation,
        /// The last entry.
        through: Index,
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
    /// It gets a copy of what the owner has.
    Copying,
    /// It follows an owner, and may not take over.
    Learner,
    /// It follows the owner, and may take over.
    Standby,
    /// It was the owner when its process ended, and is not yet sure to be it still. It decides and
    /// commits nothing.
    Returning,
    /// It decides and commits by itself.
    Alone,
    /// It decides; commits wait for the node that is to be the standby, too.
    Joint,
    /// It decides; commits wait for the standby, too.
    Paired,
    /// As `Paired`, and it decides nothing: the standby may take over.
    Frozen,
}

/// One process.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Node<E> {
    me: NodeId,
    role: Role,
    tail: Tail,
    /// Whether the register was asked, and has not answered.
    asks: bool,
    outputs: VecDeque<Output<E>>,
    #[cfg(chat_mutants)]
    mutant: Option<crate::mutant::Mutant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Role {
    /// The newest record that it was told of, if any.
    Idle(Option<Record>),
    /// Since this generation, and by the newest record.
    Copying(Generation, Record),
    Learner(Record),
    Standby(Record, Option<Release>),
    Owner(Record, Owning),
}

/// How an owner owns. Only a standby that is in the record, or is about to be, may hold up commits, and
/// whoever could take over does. `vouched` is what it said in this generation, if it said anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Owning {
    /// It was proposed to own the chat in the next generation: whatever was proposed in its life before
    /// comes too late then.
    Returning,
    Alone,
    /// A node is about to be the standby. Once it has all that is committed that is proposed, and may
    /// from then on be the record at any time.
    Joint {
        learner: NodeId,
        vouched: Option<Vouched>,
        proposed: bool,
    },
    Paired {
        vouched: Option<Vouched>,
    },
    /// The standby was told that it may take over.
    Frozen {
        vouched: Option<Vouched>,
    },
}

/// What a follower said that it has stored of its owner's entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Vouched {
    /// The most that it ever said, which stays true.
    most: Index,
    /// What it said last: less, when its process ended meanwhile and it has to compare the rest anew.
    last: Index,
}

impl Vouched {
    fn or_more(before: Option<Self>, last: Index) -> Self {
        Self { most: before.map_or(last, |before| before.most.max(last)), last }
    }
}

/// What the owner said with its last word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Release {
    through: Index,
    state: Digest,
}

impl Owning {
    /// How an owner owns by a record.
    const fn by(record: &Record) -> Self {
        if record.standby.is_some() { Self::Paired { vouched: None } } else { Self::Alone }
    }
}

impl<E> Node<E> {
    /// The owner that has just founded the register of a chat, with all entries stored up to this one.
    ///
    /// # Panics
    /// When the record names another owner, or a standby.
    pub fn owner(me: NodeId, record: Record, through: Index) -> Self {
        assert!(record.owner == me && record.standby.is_none(), "an owner alone must be that");
        let tail = Tail::new(through, through);
        Self { role: Role::Owner(record, Owning::Alone), ..Self::idle(me, tail) }
    }

    /// A process that has nothing.
    pub fn new(me: NodeId) -> Self {
        Self::idle(me, Tail::new(Index::ZERO, Index::ZERO))
    }

    /// A process that comes back with all that it had stored, up to one entry, of which it knows that
    /// all up to another is committed. It may be more. What the register says has to be read anew.
    ///
    /// # Panics
    /// When more is committed than stored.
    pub fn returning(me: NodeId, stored: Index, committed: Index) -> Self {
        Self::idle(me, Tail::new(stored, committed))
    }

    const fn idle(me: NodeId, tail: Tail) -> Self {
        Self {
            me,
            role: Role::Idle(None),
            tail,
            asks: false,
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
            Role::Copying(..) => Standing::Copying,
            Role::Learner(_) => Standing::Learner,
            Role::Standby(..) => Standing::Standby,
            Role::Owner(_, Owning::Returning) => Standing::Returning,
            Role::Owner(_, Owning::Alone) => Standing::Alone,
            Role::Owner(_, Owning::Joint { .. }) => Standing::Joint,
            Role::Owner(_, Owning::Paired { .. }) => Standing::Paired,
            Role::Owner(_, Owning::Frozen { .. }) => Standing::Frozen,
        }
    }

    /// Whether it decides what is appended, and may do so now.
    pub const fn admits(&self) -> bool {
        let decides =
            matches!(self.standing(), Standing::Alone | Standing::Joint | Standing::Paired);
        decides && !self.tail.is_being_cut()
    }

    /// The newest record that it was told of.
    pub const fn record(&self) -> Option<&Record> {
        match &self.role {
            Role::Idle(record) => record.as_ref(),
            Role::Copying(_, record)
            | Role::Learner(record)
            | Role::Standby(record, _)
            | Role::Owner(record, _) => Some(record),
        }
    }

    /// The newest generation that it knows of; 0 for none. It never goes back.
    pub fn generation(&self) -> Generation {
        self.record().map_or(Generation::ZERO, |record| record.generation)
    }

    /// The last entry it has.
    pub const fn appended(&self) -> Index {
        self.tail.appended()
    }

    /// The last entry that it knows to be committed.
    pub const fn committed(&self) -> Index {
        self.tail.committed()
    }

    /// To whom an owner has to send entries, and after which one: `None` until it said what it has.
    pub fn follower(&self) -> Option<(NodeId, Option<Index>)> {
        let Role::Owner(record, owning) = self.role else { return None };
        match owning {
            Owning::Returning | Owning::Alone => None,
            Owning::Joint { learner, vouched, .. } => Some((learner, vouched.map(|it| it.last))),
            Owning::Paired { vouched } | Owning::Frozen { vouched } => {
                record.standby.map(|standby| (standby, vouched.map(|it| it.last)))
            }
        }
    }

    /// Takes the next thing to do.
    pub fn poll_output(&mut self) -> Option<Output<E>> {
        self.outputs.pop_front()
    }

    /// Takes in what happened. What makes no sense in its present role is ignored.
    ///
    /// # Panics
    /// When the host decides an entry where [`Node::admits`] says that it may not, or leaves a place out.
    pub fn handle(&mut self, input: Input<E>) {
        match input {
            Input::Learn => self.learn(),
            Input::Copied { generation, through } => self.end_copy(generation, through),
            Input::Decided(index) => {
                assert!(self.admits(), "only an owner that may decide appends an entry");
                self.tail.decide(index);
            }
            Input::Stored { cuts, through } => self.store(cuts, through),
            Input::Heard { from, message } => self.hear(from, message),
            Input::Told(record) => self.heed(record),
            Input::Checked { generation, index, same } => self.check(generation, index, same),
            Input::WasCut { cuts } => {
                self.tail.was_cut(cuts);
                self.tell_stored();
            }
            Input::Join(node) => self.join(node),
            Input::Drop => self.give_up(),
            Input::Freeze { state } => self.freeze(state),
            Input::Thaw => self.thaw(),
            Input::Compared { generation, same } => self.compare(generation, same),
            Input::Suspect => self.suspect(),
        }
    }

    /// Becomes a follower of the owner, if it is nothing yet. A process that does not know the record
    /// might stand in it.
    fn learn(&mut self) {
        let Role::Idle(Some(record)) = self.role else { return };
        // What it has beyond the committed it may have vouched for in this very generation, when it has
        // come back since: then it must not lose that, and compares.
        if self.appended() > self.committed() {
            self.role = Role::Learner(record);
            return self.tell_stored();
        }
        let (owner, generation, after) = (record.owner, record.generation, self.committed());
        self.role = Role::Copying(generation, record);
        self.outputs.push_back(Output::Copy { owner, generation, after });
    }

    fn end_copy(&mut self, asked: Generation, through: Index) {
        let Role::Copying(since, record) = self.role else { return };
        if since == asked {
            self.role = Role::Learner(record);
            self.tail.end_copy(through);
            self.tell_stored();
        }
    }

    fn store(&mut self, cuts: u64, through: Index) {
        let cuts = if mutated!(self, StoredBeforeCut) { self.tail.cuts() } else { cuts };
        self.tail.store(cuts, through);
        self.tell_stored();
        self.commit();
    }

    /// A follower tells its owner how much of the owner's it has.
    fn tell_stored(&mut self) {
        let (Role::Learner(record) | Role::Standby(record, _)) = self.role else { return };
        let (generation, through) = (record.generation, self.tail.vouched());
        self.send(record.owner, Message::Stored { generation, through });
    }

    fn send(&mut self, to: NodeId, message: Message<E>) {
        self.outputs.push_back(Output::Send { to, message });
    }

    /// Commits what is stored by everybody who may own the chat next.
    fn commit(&mut self) {
        let Role::Owner(_, owning) = self.role else { return };
        let mine = self.tail.stored();
        let through = match owning {
            Owning::Returning => return,
            Owning::Alone => mine,
            Owning::Joint { .. } if mutated!(self, NoJointCommit) => mine,
            Owning::Joint { .. } | Owning::Paired { .. } | Owning::Frozen { .. }
                if mutated!(self, CommitWithoutStandby) =>
            {
                mine
            }
            Owning::Joint { vouched, .. }
            | Owning::Paired { vouched }
            | Owning::Frozen { vouched } => {
                let Some(Vouched { most, .. }) = vouched else { return };
                mine.min(most)
            }
        };
        let news = self.tail.commit(through);
        self.outputs.extend(news.map(Output::Commit));
    }

    fn hear(&mut self, from: NodeId, message: Message<E>) {
        self.ask_about(message.generation());
        match message {
            Message::Entry { generation, index, entry, committed } => {
                if self.follows(from, generation) {
                    self.hear_entry(index, entry);
                    self.hear_committed(committed);
                }
            }
            Message::Beat { generation, committed } => {
                if self.follows(from, generation) {
                    self.hear_committed(committed);
                    // What it said before may be lost, and what was sent since.
                    self.tell_stored();
                }
            }
            Message::Stored { generation, through } => self.hear_stored(from, generation, through),
            Message::Release { generation, through, state } => {
                if self.follows(from, generation)
                    && let Role::Standby(record, _) = self.role
                {
                    self.role = Role::Standby(record, Some(Release { through, state }));
                    self.heed_release();
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

    /// Whoever speaks of a later generation may know of an owner that this one does not know of.
    fn ask_about(&mut self, generation: Generation) {
        if generation > self.generation() && !core::mem::replace(&mut self.asks, true) {
            self.outputs.push_back(Output::Ask);
        }
    }

    /// Whether it takes entries from somebody.
    fn follows(&self, from: NodeId, generation: Generation) -> bool {
        let (Role::Learner(record) | Role::Standby(record, _)) = self.role else { return false };
        let takes_old = mutated!(self, StandbyTakesOld) && generation < record.generation;
        record.owner == from && (record.generation == generation || takes_old)
    }

    fn hear_entry(&mut self, index: Index, entry: E) {
        match self.tail.offer(index) {
            // What it said of that may be lost.
            Offer::Had => self.tell_stored(),
            Offer::Check => {
                let generation = self.generation();
                self.outputs.push_back(Output::Check { generation, index, entry });
            }
            Offer::Put => {
                self.outputs.push_back(Output::Put { index, entry });
                self.heed_release();
            }
            Offer::Early => {}
        }
    }

    fn hear_committed(&mut self, committed: Index) {
        let news = self.tail.commit_verified(committed);
        self.outputs.extend(news.map(Output::Commit));
    }

    fn check(&mut self, generation: Generation, index: Index, same: bool) {
        // Of an earlier owner, which had another entry there.
        if generation != self.generation() {
            return;
        }
        if let Some((cuts, after)) = self.tail.check(index, same) {
            return self.outputs.push_back(Output::Cut { after, cuts });
        }
        self.tell_stored();
        self.heed_release();
    }

    fn hear_stored(&mut self, from: NodeId, generation: Generation, through: Index) {
        let Role::Owner(record, owning) = &mut self.role else { return };
        // Nobody has of this owner what it does not have.
        if generation != record.generation || through > self.tail.appended() {
            return;
        }
        let standby = record.standby;
        let vouched = match owning {
            Owning::Joint { learner, vouched, .. } if *learner == from => vouched,
            Owning::Paired { vouched } | Owning::Frozen { vouched } if standby == Some(from) => {
                vouched
            }
            Owning::Returning
            | Owning::Alone
            | Owning::Joint { .. }
            | Owning::Paired { .. }
            | Owning::Frozen { .. } => return,
        };
        *vouched = Some(Vouched::or_more(*vouched, through));
        self.commit();
        self.propose_learner();
    }

    /// Begins to commit with a node, and once that says that it has all that is committed, has it made
    /// the standby.
    fn join(&mut self, learner: NodeId) {
        let Role::Owner(record, Owning::Alone) = self.role else { return };
        if learner != self.me {
            let owning = Owning::Joint { learner, vouched: None, proposed: false };
            self.role = Role::Owner(record, owning);
        }
    }

    /// Has the register name the node that is to stand by, if it may take over.
    fn propose_learner(&mut self) {
        let Role::Owner(record, Owning::Joint { learner, vouched, proposed: false }) = self.role
        else {
            return;
        };
        let has_all = vouched.is_some_and(|vouched| vouched.most >= self.committed());
        if has_all || mutated!(self, ProposeBehind) {
            self.role = Role::Owner(record, Owning::Joint { learner, vouched, proposed: true });
            self.propose(record.generation, self.me, Some(learner));
        }
    }

    /// Has the register say that nobody stands by. Until it does, commits wait.
    fn give_up(&mut self) {
        let Role::Owner(record, owning) = self.role else { return };
        match owning {
            Owning::Returning | Owning::Alone => return,
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
        let Role::Owner(record, Owning::Paired { vouched }) = self.role else { return };
        let Some(standby) = record.standby else { return };
        self.role = Role::Owner(record, Owning::Frozen { vouched });
        let (generation, through) = (record.generation, self.appended());
        self.send(standby, Message::Release { generation, through, state });
    }

    /// Goes on. If the standby has taken over meanwhile, nothing of it will ever be committed.
    fn thaw(&mut self) {
        let Role::Owner(record, Owning::Frozen { vouched }) = self.role else { return };
        self.role = Role::Owner(record, Owning::Paired { vouched });
    }

    /// Has the state compared once it is the one that the owner released. What of it is not stored yet
    /// is not committed either, and will be only when it is.
    fn heed_release(&mut self) {
        let Role::Standby(record, Some(Release { through, state })) = self.role else { return };
        if self.tail.ends_with(through) {
            self.role = Role::Standby(record, None);
            let generation = record.generation;
            self.outputs.push_back(Output::Compare { generation, through, state });
        }
    }

    /// Takes over from an owner that released the chat with the state that is here, too.
    fn compare(&mut self, generation: Generation, same: bool) {
        let Role::Standby(record, _) = self.role else { return };
        if record.generation != generation {
            return;
        }
        if same {
            self.propose(generation, self.me, Some(record.owner));
        } else {
            self.send(record.owner, Message::Refuse { generation });
        }
    }

    fn suspect(&mut self) {
        match self.role {
            Role::Standby(record, _) => self.propose(record.generation, self.me, None),
            Role::Learner(record) if mutated!(self, LearnerTakesOver) => {
                self.propose(record.generation, self.me, None);
            }
            Role::Idle(_) | Role::Copying(..) | Role::Learner(_) | Role::Owner(..) => {}
        }
    }

    fn propose(&mut self, expect: Generation, owner: NodeId, standby: Option<NodeId>) {
        let proposal = Proposal { expect, by: self.me, owner, standby };
        self.outputs.push_back(Output::Propose(proposal));
    }

    /// Takes in a record. An older one than it knows says nothing.
    fn heed(&mut self, record: Record) {
        self.asks = false;
        if record.generation <= self.generation() {
            return;
        }
        let before = core::mem::replace(&mut self.role, Role::Idle(Some(record)));
        if record.owner == self.me {
            self.own(before, record);
        } else {
            self.follow(before, record);
        }
        self.tell_stored();
        self.commit();
    }

    /// The register says that it owns the chat.
    fn own(&mut self, before: Role, record: Record) {
        self.tail.trust();
        let returns = !matches!(before, Role::Standby(..) | Role::Owner(..));
        if returns && !mutated!(self, ReturnAtOnce) {
            self.role = Role::Owner(record, Owning::Returning);
            self.propose(record.generation, self.me, record.standby);
        } else {
            self.role = Role::Owner(record, Owning::by(&record));
        }
    }

    /// The register says that another node owns the chat.
    fn follow(&mut self, before: Role, record: Record) {
        if !mutated!(self, FollowerKeepsUnverified) {
            self.tail.doubt();
        }
        let same_owner = |known: &Record| known.owner == record.owner;
        self.role = match before {
            _ if record.standby == Some(self.me) => Role::Standby(record, None),
            Role::Copying(since, known) if same_owner(&known) => Role::Copying(since, record),
            Role::Learner(known) if same_owner(&known) => Role::Learner(record),
            Role::Idle(_)
            | Role::Copying(..)
            | Role::Learner(_)
            | Role::Standby(..)
            | Role::Owner(..) => Role::Idle(Some(record)),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{BootId, LogId, PublicKey};

    const S: u8 = 1;
    const T: u8 = 2;

    const STATE: Digest = Digest::new([7; Digest::LEN]);

    type Host = Node<&'static str>;

    fn id(number: u8) -> NodeId {
        NodeId { key: PublicKey::new([number; 32]), boot: BootId::new([0; 16]) }
    }

    fn index(value: u64) -> Index {
        Index::new(value).unwrap()
    }

    fn generation(value: u64) -> Generation {
        Generation::new(value).unwrap()
    }

    fn record(number: u64, owner: u8, standby: Option<u8>) -> Record {
        let (generation, log_id) = (generation(number), LogId::new([0; 16]));
        Record { generation, log_id, owner: id(owner), standby: standby.map(id) }
    }

    fn outputs(node: &mut Host) -> Vec<Output<&'static str>> {
        core::iter::from_fn(|| node.poll_output()).collect()
    }

    fn proposal(expect: u64, owner: u8, standby: Option<u8>) -> Output<&'static str> {
        let (expect, by, standby) = (generation(expect), id(owner), standby.map(id));
        Output::Propose(Proposal { expect, by, owner: by, standby })
    }

    fn decide(node: &mut Host, place: u64) {
        node.handle(Input::Decided(index(place)));
        node.handle(Input::Stored { cuts: 0, through: index(place) });
    }

    fn hear(node: &mut Host, from: u8, message: Message<&'static str>) {
        node.handle(Input::Heard { from: id(from), message });
    }

    fn entry(number: u64, place: u64, entry: &'static str) -> Message<&'static str> {
        let (generation, index) = (generation(number), index(place));
        Message::Entry { generation, index, entry, committed: Index::ZERO }
    }

    fn stored(number: u64, through: u64) -> Message<&'static str> {
        Message::Stored { generation: generation(number), through: index(through) }
    }

    fn asks(number: u64, place: u64, entry: &'static str) -> Output<&'static str> {
        Output::Check { generation: generation(number), index: index(place), entry }
    }

    fn checked(number: u64, place: u64, same: bool) -> Input<&'static str> {
        Input::Checked { generation: generation(number), index: index(place), same }
    }

    /// What a follower says to `S`.
    fn says_stored(number: u64, through: u64) -> Output<&'static str> {
        Output::Send { to: id(S), message: stored(number, through) }
    }

    fn release(number: u64, through: u64) -> Message<&'static str> {
        let (generation, through) = (generation(number), index(through));
        Message::Release { generation, through, state: STATE }
    }

    /// An owner with two entries that `T` is to stand by.
    fn joining() -> Host {
        let mut node = Node::owner(id(S), record(1, S, None), Index::ZERO);
        decide(&mut node, 1);
        decide(&mut node, 2);
        node.handle(Input::Join(id(T)));
        outputs(&mut node);
        node
    }

    /// An owner with two entries that `T` stands by and has.
    fn paired() -> Host {
        let mut node = joining();
        hear(&mut node, T, stored(1, 2));
        node.handle(Input::Told(record(2, S, Some(T))));
        hear(&mut node, T, stored(2, 2));
        outputs(&mut node);
        node
    }

    /// A node with a copy of two entries that `S` has committed.
    fn learner() -> Host {
        let mut node = Node::new(id(T));
        node.handle(Input::Told(record(1, S, None)));
        node.handle(Input::Learn);
        let (generation, after) = (generation(1), Index::ZERO);
        assert_eq!(outputs(&mut node), [Output::Copy { owner: id(S), generation, after }]);
        node.handle(Input::Copied { generation, through: index(2) });
        assert_eq!(outputs(&mut node), [says_stored(1, 2)]);
        node
    }

    /// A standby of `S` with the same.
    fn standby() -> Host {
        let mut node = learner();
        node.handle(Input::Told(record(2, S, Some(T))));
        assert_eq!(outputs(&mut node), [says_stored(2, 2)]);
        node
    }

    #[test]
    fn owner_alone_commits_what_it_stored() {
        let mut node = Host::owner(id(S), record(1, S, None), Index::ZERO);
        node.handle(Input::Decided(index(1)));
        assert_eq!(outputs(&mut node), []);
        node.handle(Input::Stored { cuts: 0, through: index(1) });
        assert_eq!(outputs(&mut node), [Output::Commit(index(1))]);
    }

    #[test]
    fn node_is_proposed_once_it_has_all_that_is_committed_and_commits_wait_for_it_from_then_on() {
        let mut node = joining();
        assert_eq!(node.follower(), Some((id(T), None)), "it has to say first what it has");
        hear(&mut node, T, stored(1, 1));
        assert_eq!(outputs(&mut node), []);
        hear(&mut node, T, stored(1, 2));
        assert_eq!(outputs(&mut node), [proposal(1, S, Some(T))]);
        decide(&mut node, 3);
        assert_eq!(outputs(&mut node), [], "the proposal may be the record by now");
        hear(&mut node, T, stored(1, 3));
        assert_eq!(outputs(&mut node), [Output::Commit(index(3))]);
    }

    #[test]
    fn standby_that_comes_back_is_sent_what_it_is_not_sure_of_any_more() {
        let mut node = paired();
        for place in 3..=5 {
            decide(&mut node, place);
        }
        hear(&mut node, T, stored(2, 5));
        assert_eq!(node.follower(), Some((id(T), Some(index(5)))));
        hear(&mut node, T, stored(2, 4));
        assert_eq!(node.follower(), Some((id(T), Some(index(4)))));
        assert_eq!(node.committed(), index(5), "it has that all the same");
    }

    #[test]
    fn owner_goes_on_without_its_standby_once_the_register_says_so() {
        let mut node = paired();
        decide(&mut node, 3);
        node.handle(Input::Drop);
        assert_eq!(outputs(&mut node), [proposal(2, S, None)]);
        assert_eq!(node.committed(), index(2));
        node.handle(Input::Told(record(3, S, None)));
        assert_eq!((node.standing(), node.committed()), (Standing::Alone, index(3)));
    }

    #[test]
    fn frozen_owner_decides_nothing_and_goes_on_when_it_thaws() {
        let mut node = paired();
        node.handle(Input::Freeze { state: STATE });
        assert!(!node.admits());
        assert_eq!(outputs(&mut node), [Output::Send { to: id(T), message: release(2, 2) }]);
        node.handle(Input::Thaw);
        assert!(node.admits());
    }

    #[test]
    #[should_panic(expected = "only an owner that may decide appends an entry")]
    fn frozen_owner_that_decides_stops() {
        let mut node = paired();
        node.handle(Input::Freeze { state: STATE });
        node.handle(Input::Decided(index(3)));
    }

    #[test]
    fn standby_takes_over_from_who_released_it_once_it_has_all_and_only_with_the_same_state() {
        let released = || {
            let mut node = standby();
            // The last word overtakes the entry before it.
            hear(&mut node, S, release(2, 3));
            assert_eq!(outputs(&mut node), []);
            hear(&mut node, S, entry(2, 3, "third"));
            let (generation, through) = (generation(2), index(3));
            let put = Output::Put { index: through, entry: "third" };
            let compare = Output::Compare { generation, through, state: STATE };
            assert_eq!(outputs(&mut node), [put, compare]);
            node
        };
        let mut node = released();
        node.handle(Input::Compared { generation: generation(2), same: true });
        assert_eq!(outputs(&mut node), [proposal(2, T, Some(S))]);
        let mut node = released();
        node.handle(Input::Compared { generation: generation(2), same: false });
        let message = Message::Refuse { generation: generation(2) };
        assert_eq!(outputs(&mut node), [Output::Send { to: id(S), message }]);
    }

    #[test]
    fn owner_whose_standby_has_another_state_gives_it_up() {
        let mut node = paired();
        node.handle(Input::Freeze { state: STATE });
        outputs(&mut node);
        hear(&mut node, T, Message::Refuse { generation: generation(2) });
        assert_eq!(outputs(&mut node), [Output::Differs, proposal(2, S, None)]);
    }

    #[test]
    fn owner_of_before_keeps_what_the_new_owner_has_and_forgets_the_rest() {
        let mut node = paired();
        for place in 3..=5 {
            decide(&mut node, place);
        }
        node.handle(Input::Told(record(3, T, Some(S))));
        let says = |through| Output::Send { to: id(T), message: stored(3, through) };
        assert_eq!(outputs(&mut node), [says(2)]);
        hear(&mut node, T, entry(3, 3, "same"));
        assert_eq!(outputs(&mut node), [asks(3, 3, "same")]);
        hear(&mut node, T, entry(3, 4, "another"));
        assert_eq!(outputs(&mut node), [], "that comes again");
        node.handle(checked(3, 3, true));
        assert_eq!(outputs(&mut node), [says(3)]);
        hear(&mut node, T, entry(3, 4, "another"));
        outputs(&mut node);
        node.handle(checked(3, 4, false));
        assert_eq!(outputs(&mut node), [Output::Cut { after: index(3), cuts: 1 }]);
        // What was stored there before counts for nothing.
        node.handle(Input::Stored { cuts: 0, through: index(5) });
        node.handle(Input::WasCut { cuts: 1 });
        assert_eq!(outputs(&mut node), [says(3), says(3)]);
        hear(&mut node, T, entry(3, 4, "another"));
        node.handle(Input::Stored { cuts: 1, through: index(4) });
        let put = Output::Put { index: index(4), entry: "another" };
        assert_eq!(outputs(&mut node), [put, says(4)]);
    }

    #[test]
    fn follower_is_sure_of_what_is_committed_alone_whenever_the_record_changes() {
        let mut node = standby();
        hear(&mut node, S, entry(2, 3, "third"));
        node.handle(Input::Stored { cuts: 0, through: index(3) });
        outputs(&mut node);
        // Its owner came back, perhaps without that entry.
        node.handle(Input::Told(record(3, S, Some(T))));
        assert_eq!(outputs(&mut node), [says_stored(3, 2)]);
        hear(&mut node, S, entry(3, 3, "another"));
        assert_eq!(outputs(&mut node), [asks(3, 3, "another")]);
    }

    #[test]
    fn comparison_with_an_entry_of_an_owner_of_before_says_nothing_of_the_present_one() {
        let mut node = paired();
        decide(&mut node, 3);
        node.handle(Input::Told(record(3, T, Some(S))));
        hear(&mut node, T, entry(3, 3, "same"));
        // Its owner came back without that entry, and has another one.
        node.handle(Input::Told(record(4, T, Some(S))));
        hear(&mut node, T, entry(4, 3, "another"));
        outputs(&mut node);
        node.handle(checked(3, 3, true));
        assert_eq!(outputs(&mut node), []);
        node.handle(checked(4, 3, false));
        assert_eq!(outputs(&mut node), [Output::Cut { after: index(2), cuts: 1 }]);
    }

    #[test]
    fn owner_that_comes_back_decides_once_nothing_of_its_life_before_can_become_the_record() {
        for standby in [None, Some(T)] {
            let mut node = Host::returning(id(S), index(5), index(3));
            node.handle(Input::Told(record(4, S, standby)));
            assert_eq!((node.standing(), node.admits()), (Standing::Returning, false));
            assert_eq!(outputs(&mut node), [proposal(4, S, standby)]);
            hear(&mut node, T, stored(4, 5));
            assert_eq!(node.committed(), index(3));
            node.handle(Input::Told(record(5, S, standby)));
            assert!(node.admits());
            let committed = if standby.is_some() { 3 } else { 5 };
            assert_eq!(node.committed(), index(committed));
        }
    }

    #[test]
    fn owner_that_comes_back_after_its_standby_took_over_follows_it() {
        let mut node = Host::returning(id(S), index(5), index(3));
        node.handle(Input::Told(record(4, S, Some(T))));
        outputs(&mut node);
        node.handle(Input::Told(record(5, T, None)));
        assert_eq!(node.standing(), Standing::Idle);
        node.handle(Input::Learn);
        let message = stored(5, 3);
        assert_eq!(outputs(&mut node), [Output::Send { to: id(T), message }]);
        assert_eq!(node.appended(), index(5), "it may have vouched for that");
    }

    #[test]
    fn process_that_does_not_know_the_record_follows_nobody() {
        let mut node = Host::returning(id(S), index(5), index(3));
        node.handle(Input::Learn);
        assert_eq!((node.standing(), outputs(&mut node)), (Standing::Idle, Vec::new()));
    }

    #[test]
    fn copy_that_was_given_up_counts_for_nothing() {
        let mut node = Host::new(id(T));
        node.handle(Input::Told(record(1, S, None)));
        node.handle(Input::Learn);
        node.handle(Input::Told(record(2, 3, None)));
        node.handle(Input::Learn);
        outputs(&mut node);
        node.handle(Input::Copied { generation: generation(1), through: index(2) });
        assert_eq!(node.standing(), Standing::Copying);
    }

    #[test]
    fn whoever_claims_to_have_more_than_the_owner_is_not_believed() {
        let mut node = joining();
        hear(&mut node, T, stored(1, 9));
        assert_eq!(outputs(&mut node), []);
        decide(&mut node, 3);
        assert_eq!(node.committed(), index(2));
    }

    #[test]
    fn register_is_asked_once_about_owners_that_are_not_known() {
        let mut node = standby();
        let beat = |number| Message::Beat { generation: generation(number), committed: index(2) };
        for number in [3, 4, 5] {
            hear(&mut node, 3, beat(number));
        }
        assert_eq!(outputs(&mut node), [Output::Ask]);
        node.handle(Input::Told(record(2, S, Some(T))));
        hear(&mut node, 3, beat(3));
        assert_eq!(outputs(&mut node), [Output::Ask]);
    }

    #[test]
    fn follower_hears_what_is_committed_as_far_as_it_has_it() {
        let mut node = standby();
        hear(&mut node, S, entry(2, 3, "third"));
        outputs(&mut node);
        let beat = Message::Beat { generation: generation(2), committed: index(9) };
        hear(&mut node, S, beat);
        assert_eq!(outputs(&mut node), [Output::Commit(index(3)), says_stored(2, 2)]);
    }
}
