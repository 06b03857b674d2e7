//! The engine: rooms, gates, sessions and the journal that holds them, as one state machine.
//!
//! It reads no clock, opens no socket and draws no random number. The host feeds [`Input`]s to
//! [`Engine::handle`], takes [`Output`]s from [`Engine::poll_output`] until there are none, and
//! comes back at [`Engine::next_timeout`]. Equal inputs give equal outputs, and it makes no
//! difference whether outputs are taken after each input or after many.
//!
//! Inside, everything goes one way: an input is *decided* against the durable and the volatile
//! state, which yields journal entries; an entry is *applied*, which is the only way the durable
//! state changes; and once it is committed the feed makes it visible to readers.
//!
//! # Who decides
//!
//! An engine that is made [leads](Duty): it decides. There may be others that [follow](Duty::Following) it,
//! on other hosts, of which one takes over when the chat moves or the owner dies. Which host may have its
//! engine lead, and when an entry is committed, is [`migration`](crate::migration)'s to say; here is what a
//! host then does.
//!
//! - *To follow*, it restores an engine from what is known to be committed, makes it a follower
//!   ([`Engine::following`]), and gives it each later entry as [`Input::Entry`], those of its own store that may
//!   yet be committed first. [`Input::Persisted`] says how far they are committed, as for an owner. Who logs in
//!   waits ([`Engine::parked`]). When who leads changes, or its generation, it says [`Input::Located`].
//! - *To take over*, it says [`Input::Lead`].
//! - *To move away*, it announces that by [`Input::Prepare`]; while its follower may take over it gives the
//!   engine nothing but `Persisted`, [`Input::ReadDone`] and [`Input::ReadFailed`], which append nothing; and once
//!   the other leads it says [`Input::Retire`], restores another engine from its store to follow that one,
//!   and hands it the connections ([`Engine::adopt`]). If the other does not lead after all, everything that
//!   was kept back is given to the engine late, which is harmless.
//! - A follower whose entries have to be cut off is not told so: the host restores another one, which adopts
//!   the connections, too.
//!
//! Invariants: nothing that depends on an entry leaves before the entry is committed; a peer's
//! bytes never make [`Engine::handle`] fail; no state is undone in place; only an engine that leads
//! appends, and never because of what is safe or was read.

mod command;
mod commit;
mod connection;
mod durable;
mod duty;
mod feed;
mod fingerprint;
mod moderate;
#[cfg(chat_mutants)]
mod mutant;
mod operate;
mod parking;
mod question;
mod rate;
mod room;
mod session;
mod snapshot;
mod volatile;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::chunk::Chunk;
use crate::engine::commit::Pending;
use crate::engine::durable::Durable;
use crate::engine::feed::Feed;
use crate::engine::question::ReadPurpose;
use crate::engine::volatile::{Connection, Volatile};
use crate::id::{
    ConnId, Digest, Generation, Incarnation, Index, LogId, Nonce, PublicKey, RequestId, Seq,
    Signature, Threshold,
};
use crate::limits::{Limits, LimitsError};
use crate::log::{ChainError, Change, Entry, Founding, Head};
use crate::text::{HostAddress, RoomName, UserName};
use crate::time::{Moment, Now, Span};
use crate::wire::{
    ClientFrame, GateState, HostStatus, Location, Measure, Record, Refusal, ServerFrame, UserInfo,
};

pub use duty::{Duty, Move, ParkedCounts};
pub use operate::Counts;
pub use snapshot::{RestoreError, SNAPSHOT_VERSION};

/// Something that happened outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A connection was accepted.
    Connected {
        /// Its number, never used before.
        conn: ConnId,
        /// A fresh random value, for the log-in to sign.
        nonce: Nonce,
        /// The TLS exporter of the connection, when there is TLS.
        channel: Option<Digest>,
        /// The host's own address that it came in by, for the client to know where it is.
        address: Option<HostAddress>,
        /// How long ago it was accepted, when the host needed time with it first: the time to log
        /// in is that much shorter.
        waited: Span,
    },
    /// A connection sent a frame.
    Frame {
        /// The connection.
        conn: ConnId,
        /// What it sent.
        frame: ClientFrame,
    },
    /// A connection sent bytes that are no frame, or must be closed for another reason of the
    /// host's.
    Condemned {
        /// The connection.
        conn: ConnId,
        /// Why.
        refusal: Refusal,
    },
    /// A connection is gone. To be said once for every `Connected`, also after a `Close`.
    Disconnected {
        /// The connection.
        conn: ConnId,
    },
    /// Answers [`Output::Verify`].
    Verified {
        /// The connection.
        conn: ConnId,
        /// Whether the signature is the key's.
        valid: bool,
    },
    /// Answers [`Output::Sign`].
    Signed {
        /// The connection.
        conn: ConnId,
        /// Of the server's key.
        signature: Signature,
    },
    /// Answers [`Output::Report`].
    Reported {
        /// The connection.
        conn: ConnId,
        /// What the host says of itself.
        host: HostStatus,
    },
    /// Answers [`Output::Persist`]: every entry up to this one is safe.
    Persisted {
        /// The last safe entry.
        through: Index,
    },
    /// A delivery shard lacks records that a reader is due.
    Fetch(Need),
    /// Answers [`Output::Read`].
    ReadDone {
        /// The token of the question.
        token: ReadToken,
        /// The records, oldest first and without holes. They may begin later than asked (the rest
        /// is gone for good) and end earlier (there is more); none means that all are gone.
        records: Vec<Record>,
    },
    /// Answers [`Output::Read`]: the store cannot read now. A question for history is refused with
    /// `E_STORE`; for a reader that lags the engine asks again by itself, a second later.
    ReadFailed {
        /// The token of the question.
        token: ReadToken,
    },
    /// The store can keep nothing more for now. What would append an entry for a client is refused
    /// with `E_STORE` until [`Input::StoreFree`]; what the journal holds is read and delivered as
    /// before. Entries that [`Output::Persist`] gave stay due. There may still come more: nobody
    /// leaves and no gate opens twice, so at most one for each membership and each room. Saying it
    /// again is harmless.
    StoreFull,
    /// The store can keep entries again. Needless ones are harmless.
    StoreFree,
    /// Forget records of a room for good, from the first one on: retention. The host decides by age
    /// and size, of which its store knows; the engine makes an entry of it, and readers who are due
    /// what is gone are told the gap. What is not visible is kept, and so nothing is trimmed of a
    /// room whose gate is closed, or of an earlier life; that, or less than before, is harmless.
    Trim {
        /// The room.
        room: RoomName,
        /// Its life.
        incarnation: Incarnation,
        /// The last record to be forgotten.
        through: Seq,
    },
    /// Those who run the server take a measure on a user. Answered by [`Output::Moderated`].
    Moderate {
        /// Label that the answer repeats.
        request: RequestId,
        /// The user.
        user: UserName,
        /// What is to be done.
        measure: Measure,
    },
    /// The moment of [`Engine::next_timeout`] came. Early, late and needless ones are harmless.
    Timeout,
    /// Stop serving: every connection is told so and closed.
    Stop,
    /// For a follower: the next entry that the engine which leads appended. The host has it, or is about
    /// to: no [`Output::Persist`] comes of it. [`Input::Persisted`] says later that it is committed.
    Entry(Arc<Entry>),
    /// For a follower: who leads now, or the generation in which it does.
    Located(Location),
    /// For a follower: lead from now on. Every member has a fresh grace to come back, and the log-ins
    /// that wait are decided in the order in which they came, each followed by what its connection sent
    /// since. Entries that are not committed stay, and are for this engine to have committed.
    Lead {
        /// The generation in which it leads.
        generation: Generation,
    },
    /// Another engine leads now, and this one decides nothing any more. Connections of users are told
    /// who does and have `moved_time` to leave, all others are told and closed, and so is everybody who
    /// comes. What waits for a commit is never sent, and [`Input::Persisted`] says nothing to it. Its
    /// journal stays as it was, of no use: the end of it may never have been committed. Said again, it
    /// tells of a newer owner.
    Retire(Location),
    /// For an engine that leads: it goes on in a later generation, as its standby was added or dropped.
    Generation {
        /// The generation.
        generation: Generation,
    },
    /// For an engine that leads: the chat is about to move, or is not after all.
    Prepare(Option<Move>),
}

/// Something the host has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Make this entry safe and answer with [`Input::Persisted`], once for many if that suits.
    /// Entries come in order and without holes.
    Persist(Arc<Entry>),
    /// Check a signature and answer with [`Input::Verified`].
    Verify {
        /// The connection it is about.
        conn: ConnId,
        /// The key.
        key: PublicKey,
        /// What was signed.
        message: Vec<u8>,
        /// The signature.
        signature: Signature,
    },
    /// Sign this with the server's key and answer with [`Input::Signed`], before anything more of this
    /// connection. A host that has no key does nothing: clients that want it proven leave then.
    Sign {
        /// The connection it is about.
        conn: ConnId,
        /// What to sign.
        message: Vec<u8>,
    },
    /// Somebody who may know asks what the server is doing: say the host's part of it by
    /// [`Input::Reported`]. Until then the connection counts as one that has not logged in, and is
    /// closed like one when that takes too long.
    Report {
        /// The connection.
        conn: ConnId,
    },
    /// Read records that are not in memory and answer with [`Input::ReadDone`] or
    /// [`Input::ReadFailed`].
    Read {
        /// To be repeated.
        token: ReadToken,
        /// The room.
        room: RoomName,
        /// Its life.
        incarnation: Incarnation,
        /// The first record.
        from: Seq,
        /// The last record. Fewer may be read: from the first on for [`ReadOrder::Forward`], up to
        /// the last for [`ReadOrder::Backward`].
        to: Seq,
        /// Which end matters when it is too much at once.
        order: ReadOrder,
    },
    /// Answers [`Input::Moderate`]: the measure is safe, or was not taken.
    Moderated {
        /// The label of the question.
        request: RequestId,
        /// Why it was not taken; `None` when it was.
        refusal: Option<Refusal>,
    },
    /// Hand to the delivery shard that [`Directive::conn`] names, or to all.
    Deliver(Directive),
    /// Something worth a line in a log.
    Event(Event),
}

/// Which end of a range of records matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadOrder {
    /// The oldest first.
    Forward,
    /// The newest.
    Backward,
}

/// A question to the store that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReadToken(u64);

/// What a delivery shard has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Directive {
    /// Send a frame.
    Send {
        /// To whom.
        conn: ConnId,
        /// The frame.
        frame: ServerFrame,
    },
    /// Send a last frame, then close.
    Close {
        /// Whom.
        conn: ConnId,
        /// Why; `None` after a client left by itself, or was told all that it asked for.
        refusal: Option<Refusal>,
    },
    /// Make a connection follow a room, or go on from another place.
    Follow {
        /// The connection.
        conn: ConnId,
        /// The room.
        room: RoomName,
        /// The last record it is not to be sent.
        after: Seq,
        /// The last record there is to see.
        visible: Seq,
        /// The gate as the connection was just told.
        gate: GateState,
    },
    /// Make a connection follow a room no more.
    Unfollow {
        /// The connection.
        conn: ConnId,
        /// The room.
        room: RoomName,
    },
    /// Answer a shard's [`Need`].
    Page {
        /// The connection.
        conn: ConnId,
        /// The room.
        room: RoomName,
        /// Its life.
        incarnation: Incarnation,
        /// The records.
        page: Page,
    },
    /// Tell every follower of a room that its gate changed. A reader that lags may be told the
    /// newest state only.
    Gate {
        /// The room.
        room: RoomName,
        /// The gate.
        gate: GateState,
    },
    /// Records of a room became visible.
    Visible {
        /// The room.
        room: RoomName,
        /// Its life.
        incarnation: Incarnation,
        /// The last of them.
        through: Seq,
        /// The newest of them, ending with `through`; what is missing is to be fetched.
        chunk: Option<Chunk>,
    },
    /// A room began a new life.
    Reset {
        /// The room.
        room: RoomName,
        /// The new life.
        incarnation: Incarnation,
        /// The new threshold.
        threshold: Threshold,
    },
    /// Records of a room are gone for good: they must not be read from memory any more.
    Trim {
        /// The room.
        room: RoomName,
        /// Its life.
        incarnation: Incarnation,
        /// The last record that is gone.
        through: Seq,
    },
}

impl Directive {
    /// The connection it is for; `None` when it is for every shard.
    pub const fn conn(&self) -> Option<ConnId> {
        match self {
            Self::Send { conn, .. }
            | Self::Close { conn, .. }
            | Self::Follow { conn, .. }
            | Self::Unfollow { conn, .. }
            | Self::Page { conn, .. } => Some(*conn),
            Self::Gate { .. } | Self::Visible { .. } | Self::Reset { .. } | Self::Trim { .. } => {
                None
            }
        }
    }
}

/// Records that a reader is due and its shard does not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    /// The reader.
    pub conn: ConnId,
    /// The room.
    pub room: RoomName,
    /// Its life.
    pub incarnation: Incarnation,
    /// The records after this one.
    pub after: Seq,
}

/// Records for a reader that lags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Page {
    /// The next records.
    Records(Chunk),
    /// The next records, up to this one, are gone for good.
    Gone {
        /// The last record that is gone.
        to: Seq,
    },
}

/// Something worth a line in a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A user logged in.
    LoggedIn {
        /// The connection.
        conn: ConnId,
        /// The user.
        user: UserName,
    },
    /// A connection is being closed.
    Closed {
        /// The connection.
        conn: ConnId,
        /// Why; `None` when the client left by itself, or was told all that it asked for.
        refusal: Option<Refusal>,
    },
    /// A gate opened.
    GateOpened {
        /// The room.
        room: RoomName,
    },
    /// A room was reset.
    Reset {
        /// The room.
        room: RoomName,
        /// Its new life.
        incarnation: Incarnation,
    },
    /// A measure was taken on a user.
    Moderated {
        /// The user.
        user: UserName,
        /// What was done.
        measure: Measure,
        /// The operator who did it; `None` for those who run the server.
        by: Option<UserName>,
    },
}

/// What a timer is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum TimerKind {
    /// A connection must have logged in, or may have fallen silent.
    Connection(ConnId),
    /// A user's grace to come back to a room is over.
    Grace(UserName, RoomName),
    /// A crowd may be told of its gate again.
    Notice(RoomName),
    /// What a reader lacks may be asked for again.
    CatchUp(ConnId),
}

/// A mistake of the program that embeds the engine. Nothing a peer sends leads to one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Misuse {
    /// The connection was never reported, or is gone.
    #[error("{0} is not connected")]
    UnknownConnection(ConnId),
    /// The connection was reported before.
    #[error("{0} is already connected")]
    ConnectionReused(ConnId),
    /// Entries were reported safe that do not exist, or were reported before.
    #[error("entries through {through} cannot be persisted, {committed} to {appended} are due")]
    PersistedOutOfRange {
        /// What was reported.
        through: Index,
        /// What was safe before.
        committed: Index,
        /// What there is.
        appended: Index,
    },
    /// A read was answered that was not asked.
    #[error("this read was not asked for, or was answered before")]
    UnknownRead,
    /// Records came that were not asked for.
    #[error("a read was answered with records that were not asked for")]
    WrongRecords,
    /// The engine does not have the duty that this is for.
    #[error("this is for an engine of another duty")]
    WrongDuty,
    /// A follower was given an entry that is not the next one.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// Generations only grow.
    #[error("generation {found} is earlier than {present}, the present one")]
    EarlierGeneration {
        /// What came.
        found: Generation,
        /// What there was.
        present: Generation,
    },
}

/// Where records are when they are no longer in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Archive {
    /// Nowhere: memory is all there is.
    #[default]
    None,
    /// In a store that answers [`Output::Read`].
    Store,
}

/// What an engine is told when it is made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// The bounds.
    pub limits: Limits,
    /// Where old records are.
    pub archive: Archive,
    /// The generation in which it leads. One that is made to follow has that of whom it follows.
    pub generation: Generation,
}

/// The chat engine.
#[derive(Debug)]
pub struct Engine {
    config: Config,
    duty: Duty,
    generation: Generation,
    head: Head,
    committed: Index,
    durable: Durable,
    volatile: Volatile,
    feed: Feed,
    /// Appended and not committed.
    uncommitted: VecDeque<Arc<Entry>>,
    /// What was so of users before measures and rights that are not committed, oldest first.
    replaced: VecDeque<(Index, UserInfo)>,
    /// What waits for a commit, in order.
    pending: VecDeque<(Index, Pending)>,
    reads: BTreeMap<ReadToken, ReadPurpose>,
    next_read: u64,
    outputs: VecDeque<Output>,
    /// Rooms whose gate may have to be announced.
    changed_gates: Vec<RoomName>,
    /// Whether nothing may be appended that can as well be asked for again later.
    store_full: bool,
    stopping: bool,
    #[cfg(chat_mutants)]
    mutant: Option<crate::mutant::Mutant>,
    /// The time of the first input.
    #[cfg(chat_mutants)]
    began: Option<Now>,
}

impl Engine {
    /// Begins a new journal.
    ///
    /// # Errors
    /// When a limit is out of range.
    pub fn found(founding: Founding, config: Config, now: Now) -> Result<Self, LimitsError> {
        config.limits.check()?;
        let mut head = Head::new(founding.log_id);
        let entry = Arc::new(head.append(now.wall, Change::Founded(founding.clone())));
        let mut engine = Self::assemble(config, head, Durable::new(founding));
        engine.committed = Index::ZERO;
        engine.uncommitted.push_back(Arc::clone(&entry));
        engine.outputs.push_back(Output::Persist(entry));
        Ok(engine)
    }

    fn assemble(config: Config, head: Head, durable: Durable) -> Self {
        let feed = Feed::new(config.limits.window_bytes);
        Self {
            duty: Duty::Leading { next: None },
            generation: config.generation,
            config,
            committed: head.index,
            head,
            durable,
            volatile: Volatile::default(),
            feed,
            uncommitted: VecDeque::new(),
            replaced: VecDeque::new(),
            pending: VecDeque::new(),
            reads: BTreeMap::new(),
            next_read: 0,
            outputs: VecDeque::new(),
            changed_gates: Vec::new(),
            store_full: false,
            stopping: false,
            #[cfg(chat_mutants)]
            mutant: None,
            #[cfg(chat_mutants)]
            began: None,
        }
    }

    /// Takes in what happened.
    ///
    /// # Errors
    /// When the host broke a rule of this interface; the engine is unchanged.
    pub fn handle(&mut self, now: Now, input: Input) -> Result<(), Misuse> {
        #[cfg(chat_mutants)]
        let now = self.clock(now);
        match input {
            Input::Connected { conn, nonce, channel, address, waited } => {
                let connection = Connection::new(nonce, channel, address, now.moment);
                self.handle_connected(now, conn, connection, waited)?;
            }
            Input::Frame { conn, frame } => self.handle_frame(now, conn, frame)?,
            Input::Condemned { conn, refusal } => {
                self.known(conn)?;
                self.close(now, conn, Some(refusal));
            }
            Input::Disconnected { conn } => self.handle_disconnected(now, conn)?,
            Input::Verified { conn, valid } => self.handle_verified(now, conn, valid),
            Input::Signed { conn, signature } => self.handle_signed(conn, signature),
            Input::Reported { conn, host } => self.handle_reported(now, conn, host),
            Input::Persisted { through } => self.handle_persisted(now.moment, through)?,
            Input::Fetch(need) => self.handle_fetch(need),
            Input::ReadDone { token, records } => self.handle_read_done(token, records)?,
            Input::ReadFailed { token } => self.handle_read_failed(now.moment, token)?,
            Input::StoreFull => self.handle_store_full(),
            Input::StoreFree => self.store_full = false,
            Input::Trim { room, incarnation, through } => {
                self.handle_trim(now, room, incarnation, through);
            }
            Input::Moderate { request, user, measure } => {
                self.handle_moderate(now, request, user, measure);
            }
            Input::Timeout => self.handle_timeout(now),
            Input::Stop => self.handle_stop(now),
            Input::Entry(entry) => self.handle_entry(entry)?,
            Input::Located(owner) => self.handle_located(owner)?,
            Input::Lead { generation } => self.handle_lead(now, generation)?,
            Input::Retire(owner) => self.handle_retire(now, owner)?,
            Input::Generation { generation } => self.handle_generation(generation)?,
            Input::Prepare(next) => self.handle_prepare(next)?,
        }
        self.announce_gates(now.moment);
        Ok(())
    }

    /// Takes the next thing to do; `None` until the next input.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to come back with [`Input::Timeout`]; `None` when nothing waits.
    pub fn next_timeout(&self) -> Option<Moment> {
        self.volatile.next_timer()
    }

    /// The bounds it was made with.
    pub const fn limits(&self) -> &Limits {
        &self.config.limits
    }

    /// The life of its journal.
    pub const fn log_id(&self) -> LogId {
        self.durable.founding().log_id
    }

    /// What its journal began with.
    pub const fn founding(&self) -> &Founding {
        self.durable.founding()
    }

    /// The newest end of its journal.
    pub const fn head(&self) -> Head {
        self.head
    }

    /// The last entry that is safe.
    pub const fn committed(&self) -> Index {
        self.committed
    }

    /// A digest of everything the journal says: equal for equal states, whatever the way there.
    pub fn state_hash(&self) -> Digest {
        self.durable.state_hash()
    }

    /// How many connections there are, logged in or not, closing ones included.
    pub fn connection_count(&self) -> usize {
        self.volatile.connections.len()
    }

    /// Checks every rule that ties parts of the state together. It walks the whole state: for
    /// tests and simulations.
    ///
    /// # Panics
    /// When a rule is broken; the message names it.
    pub fn check_invariants(&self) {
        self.durable.check();
        self.feed.check(&self.durable, self.uncommitted.is_empty());
        self.volatile.check();
        self.check_duty();
        let waiting: u32 = self.volatile.connections.values().map(|conn| conn.waiting).sum();
        let all = u32::try_from(self.pending.len()).unwrap_or(u32::MAX);
        assert!(waiting <= all, "what waits for a connection must wait");
        assert!(self.committed <= self.head.index, "only what was appended can be committed");
        assert_eq!(
            self.head.index.since(self.committed),
            u64::try_from(self.uncommitted.len()).unwrap_or(u64::MAX),
            "what is not committed must wait"
        );
    }

    fn check_duty(&self) {
        let waiting = self.volatile.parking.len();
        let follows = matches!(self.duty, Duty::Following { .. });
        assert!(waiting == 0 || follows, "log-ins wait only for an engine that follows");
        if !self.is_leading() {
            assert!(
                self.volatile.is_idle(),
                "nobody is in a room before an engine leads, or after"
            );
            assert!(self.pending.is_empty(), "no answer waits before an engine leads, or after");
            return;
        }
        for (name, user) in self.durable.users() {
            for room in &user.rooms {
                let accounted = self.volatile.accounts_for(name, room);
                assert!(accounted, "a member follows the room or is expected back, and not both");
            }
        }
    }

    fn known(&self, conn: ConnId) -> Result<(), Misuse> {
        let known = self.volatile.connections.contains_key(&conn);
        if known { Ok(()) } else { Err(Misuse::UnknownConnection(conn)) }
    }

    /// Appends a result to the journal and applies it: the only way the durable state changes.
    fn append(&mut self, now: Now, change: Change) {
        if mutated!(self, TimeGoesBack) {
            self.head.at = now.wall;
        }
        let entry = Arc::new(self.head.append(now.wall, change));
        self.take_in(Arc::clone(&entry));
        if mutated!(self, DeliverBeforeCommit) {
            self.publish(now.moment, &entry);
            self.show();
        }
        self.outputs.push_back(Output::Persist(entry));
    }

    /// Applies an entry that is not committed yet, whoever decided it.
    fn take_in(&mut self, entry: Arc<Entry>) {
        let before = match &entry.change {
            Change::OperatorGranted { user } | Change::Moderated { user, .. } => {
                self.durable.describe(user, false)
            }
            Change::Founded(_)
            | Change::UserAdded { .. }
            | Change::SessionOpened { .. }
            | Change::SessionExpired { .. }
            | Change::RoomCreated { .. }
            | Change::Joined { .. }
            | Change::Left { .. }
            | Change::Posted { .. }
            | Change::Refused { .. }
            | Change::GateOpened { .. }
            | Change::Reset { .. }
            | Change::Trimmed { .. } => None,
        };
        self.replaced.extend(before.map(|info| (entry.header.index, info)));
        self.durable.apply(&entry);
        self.uncommitted.push_back(entry);
    }

    fn handle_trim(&mut self, now: Now, room: RoomName, incarnation: Incarnation, through: Seq) {
        // A follower is told by the engine that leads what to forget.
        if !self.is_leading() {
            return;
        }
        let Some(feed) = self.feed.room(&room) else { return };
        let Some(state) = self.durable.room(&room) else { return };
        // A reset may be on its way: then the life that readers still see is over.
        if state.incarnation() != incarnation || feed.incarnation != incarnation {
            return;
        }
        let through = through.min(feed.visible);
        if through > state.trimmed() {
            self.append(now, Change::Trimmed { room, incarnation, through });
        }
    }

    /// Lets through what is to be appended for a client, unless the store is full. What is decided
    /// for nobody's sake, as that a user left, is not asked about: it must not be lost.
    fn admit_changes(&self, changes: Vec<Change>) -> Result<Vec<Change>, Refusal> {
        let refused = self.store_full && !changes.is_empty();
        if refused { Err(Refusal::Store) } else { Ok(changes) }
    }

    /// What all shards are told is for readers, whom only an engine that leads has.
    fn deliver(&mut self, directive: Directive) {
        if directive.conn().is_none() && !self.is_leading() {
            return;
        }
        self.outputs.push_back(Output::Deliver(directive));
    }

    /// Sends a frame that depends on nothing the journal says.
    fn send(&mut self, conn: ConnId, frame: ServerFrame) {
        self.deliver(Directive::Send { conn, frame });
    }
}
