//! What a client and its host say to each other.

use crate::id::{
    Attach, Counter, Digest, Generation, Incarnation, LogId, PublicKey, Seq, SessionId, Signature,
    Threshold,
};
use crate::text::{Body, HostAddress, RoomName, UserName};
use crate::time::{Span, Timestamp};
use crate::wire::{
    ClientFrame, Command, Cursor, GateState, Measure, Notice, Record, Refusal, RoomInfo,
    ServerFrame, Start, UserInfo,
};

/// What a client is told when it is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientConfig {
    /// The name to log in by.
    pub name: UserName,
    /// The rooms to join at every log-in; the first is where lines go.
    pub rooms: Vec<RoomName>,
    /// Where to start in a room of which nothing has been seen.
    pub start: Start,
    /// Whether to dial again after a loss.
    pub reconnect: bool,
    /// Seed of the jitter between dials; draw it at random so that clients do not dial in step.
    pub jitter_seed: u64,
    /// With a seed, drawn at random, the server has to prove on each connection that it has the key it
    /// names. Without one any server is believed.
    pub proof_seed: Option<[u8; 32]>,
}

/// What a client keeps between runs, for one server key and one name.
///
/// The host loads it when it answers [`Output::Identify`] and changes it by [`Save`]s.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saved {
    /// The session to go on with: random, made by the host on the first run.
    pub session: SessionId,
    /// What the rest is about; `None` until the first log-in, so that whatever is in the outbox of a
    /// session without an origin was certainly never sent.
    pub origin: Option<Origin>,
    /// The number of the last log-in.
    pub attach: Attach,
    /// The number of the last command that was given one.
    pub last_counter: Counter,
    /// Commands that were not answered, oldest first.
    pub outbox: Vec<Unsent>,
    /// What was seen of each room.
    pub cursors: Vec<(RoomName, Cursor)>,
}

/// Where a session comes from. What has another origin is another session, whatever its id: the
/// server knows nothing of what was sent before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The journal it is in.
    pub log_id: LogId,
    /// When it was opened, as the server says.
    pub opened: Timestamp,
}

/// A command that was not answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsent {
    /// Its number.
    pub counter: Counter,
    /// The user's label for it.
    pub id: String,
    /// The command.
    pub command: Command,
}

impl Saved {
    /// What a client keeps before its first run.
    pub const fn new(session: SessionId) -> Self {
        Self {
            session,
            origin: None,
            attach: Attach::ZERO,
            last_counter: Counter::ZERO,
            outbox: Vec::new(),
            cursors: Vec::new(),
        }
    }

    /// Carries out a change. The same change twice is as good as once.
    pub fn apply(&mut self, save: Save) {
        match save {
            Save::Queued(unsent) => {
                self.last_counter = self.last_counter.max(unsent.counter);
                self.outbox.retain(|kept| kept.counter != unsent.counter);
                self.outbox.push(unsent);
            }
            Save::Settled(counter) => self.outbox.retain(|kept| kept.counter != counter),
            Save::Seen(room, cursor) => {
                match self.cursors.iter_mut().find(|(kept, _)| *kept == room) {
                    Some((_, kept)) => *kept = cursor,
                    None => self.cursors.push((room, cursor)),
                }
            }
            Save::Attach(attach) => self.attach = attach,
            Save::Renewed { session, origin, outbox } => {
                if self.origin.is_none_or(|before| before.log_id != origin.log_id) {
                    self.cursors.clear();
                }
                self.session = session;
                self.origin = Some(origin);
                self.last_counter = outbox.last().map_or(Counter::ZERO, |unsent| unsent.counter);
                self.outbox = outbox;
            }
        }
    }
}

/// A change of [`Saved`]. It must be in the file (not necessarily synced to the disk: it has to
/// survive the process) before the outputs after it are carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Save {
    /// A command was written.
    Queued(Unsent),
    /// A command was answered; it and its text can be forgotten. It may be saved late, after the
    /// answer is shown: a death in between makes the client send it again and hear it again.
    Settled(Counter),
    /// Everything in a room up to here was shown. It may be saved late, with the last one of many,
    /// as long as it is not saved before what it speaks of is shown.
    Seen(RoomName, Cursor),
    /// A log-in begins.
    Attach(Attach),
    /// The first log-in, another journal, or numbers that begin again: this session, its origin and
    /// this outbox replace what was kept. Cursors are forgotten if the journal is another one.
    Renewed {
        /// The session from here on.
        session: SessionId,
        /// Its journal, and when it was opened there.
        origin: Origin,
        /// Everything unanswered, under its new numbers; the last of them is the last number given.
        outbox: Vec<Unsent>,
    },
}

/// Something that happened outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Begin: to be said once.
    Start,
    /// The connection asked for stands.
    Dialled {
        /// The TLS exporter of the connection, when there is TLS: the log-in then holds for this
        /// connection alone.
        channel: Option<Digest>,
    },
    /// The connection asked for cannot be had, or is lost; also when bytes came that are no frame.
    Lost {
        /// Why, for people.
        reason: String,
    },
    /// The server sent a frame.
    Frame(ServerFrame),
    /// Answers [`Output::Identify`].
    Identified {
        /// The key to log in with.
        key: PublicKey,
        /// What was kept. On a reconnect the host is not asked again.
        saved: Saved,
    },
    /// Answers [`Output::Verify`].
    Verified {
        /// Whether the signature is the key's.
        valid: bool,
    },
    /// Answers [`Output::Sign`]: each once and in order, also when the connection it was for is
    /// lost.
    Signed(Signature),
    /// The user posts.
    Post {
        /// The room.
        room: RoomName,
        /// The text.
        body: Body,
        /// The user's label; `sent` and `error` events repeat it.
        id: String,
    },
    /// The user resets a room.
    Reset {
        /// The room.
        room: RoomName,
        /// The new threshold.
        threshold: Threshold,
        /// The user's label.
        id: String,
    },
    /// The user, an operator, takes a measure on another.
    Moderate {
        /// The other.
        user: UserName,
        /// What is to be done.
        measure: Measure,
        /// The user's label.
        id: String,
    },
    /// The user joins a room.
    Join {
        /// The room.
        room: RoomName,
        /// The user's label; an `error` event repeats it.
        id: String,
    },
    /// The user leaves a room.
    Part {
        /// The room.
        room: RoomName,
        /// The user's label; an `error` event repeats it.
        id: String,
    },
    /// The user asks something.
    Ask {
        /// What.
        ask: Ask,
        /// The user's label; an `error` event repeats it.
        id: String,
    },
    /// The moment of [`Client::next_timeout`](super::Client::next_timeout) came. Early, late and needless ones are harmless.
    Timeout,
    /// The user is done: once everything is answered, leave. With `now` leave at once.
    Quit {
        /// When to stop waiting for answers.
        drain: Drain,
    },
}

/// What to do with unanswered commands on leaving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drain {
    /// Wait until all are answered, and a little for posts that are visible to be shown.
    Wait,
    /// Leave at once; they stay in the outbox for the next run.
    Now,
}

/// A question of the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Who is in a room.
    Who(RoomName),
    /// Which rooms there are.
    Rooms,
    /// Who a user is.
    Whois(RoomName, UserName),
    /// The last so many records of a room, asked for page by page.
    History(RoomName, u64),
}

impl Ask {
    /// The room it is about.
    pub const fn room(&self) -> Option<&RoomName> {
        match self {
            Self::Who(room) | Self::Whois(room, _) | Self::History(room, _) => Some(room),
            Self::Rooms => None,
        }
    }
}

/// Something the host has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Open a connection and answer [`Input::Dialled`] or [`Input::Lost`]. An earlier connection
    /// is to be dropped.
    Dial,
    /// Close the connection, without an [`Input::Lost`].
    Hangup,
    /// Send a frame.
    Send(ClientFrame),
    /// Load, or make, the key and the saved state for this server and answer
    /// [`Input::Identified`].
    Identify {
        /// The server's key: the state is kept apart for each.
        server_key: PublicKey,
    },
    /// Sign these bytes with the key and answer [`Input::Signed`].
    Sign(Vec<u8>),
    /// Check the server's signature and answer [`Input::Verified`], before its next frame.
    Verify {
        /// The server's key.
        key: PublicKey,
        /// What was signed.
        message: Vec<u8>,
        /// The signature.
        signature: Signature,
    },
    /// Keep this.
    Save(Save),
    /// Show this.
    Event(Event),
    /// The end: nothing more will come.
    Stopped(Stop),
}

/// Why a client stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The user quit and everything is answered.
    Done,
    /// The server refused the user: name, key, version, a newer connection of this session, or an
    /// operator who sent the user away.
    Refused(Refusal),
    /// The connection was lost and `reconnect` is off.
    Lost,
    /// Another server answered at the same address.
    OtherServer,
    /// What answered cannot prove that it has the key it names.
    Impostor,
}

/// Something to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Logged in.
    Connected {
        /// The address that the host which serves gives of itself; `None` when it gives none.
        server: Option<HostAddress>,
        /// The server's generation.
        generation: Generation,
        /// The name in its enforced form.
        user: UserName,
        /// False on the first log-in of a run and after a loss of history.
        resumed: bool,
        /// Whether the user is an operator.
        operator: bool,
    },
    /// The connection is gone.
    Disconnected {
        /// Why, for people.
        reason: String,
        /// When the next dial begins; `None` when there is none.
        retry: Option<Span>,
    },
    /// The state of a gate: on joining and on every change.
    Gate {
        /// The room.
        room: RoomName,
        /// The gate.
        gate: GateState,
        /// Whether the gate opened while the user was there, which is known of every opening but
        /// those while this program did not run.
        opened: bool,
    },
    /// Who is in a room: on joining an open one, when its gate opens, and on every change.
    Users {
        /// The room.
        room: RoomName,
        /// How many.
        count: u32,
        /// At most 256 of them, by name.
        names: Vec<UserName>,
    },
    /// A record became visible.
    Record(Record),
    /// A command is safe.
    Sent {
        /// The user's label.
        id: String,
        /// The room.
        room: RoomName,
        /// Its life.
        incarnation: Incarnation,
        /// Its place; `None` while the gate holds it, or when it was answered too long ago.
        seq: Option<Seq>,
    },
    /// Records that are gone for good.
    Gap {
        /// The room.
        room: RoomName,
        /// Its life.
        incarnation: Incarnation,
        /// The first.
        from: Seq,
        /// The last.
        to: Seq,
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
    /// A measure that the user took is safe.
    Moderated {
        /// The user's label.
        id: String,
        /// On whom.
        user: UserName,
        /// What was done.
        measure: Measure,
    },
    /// The user left a room.
    Parted {
        /// The room.
        room: RoomName,
    },
    /// Answers [`Ask::Rooms`].
    Rooms {
        /// The first 256.
        rooms: Vec<RoomInfo>,
        /// How many there are.
        count: u32,
    },
    /// Answers [`Ask::Whois`].
    User(UserInfo),
    /// Answers [`Ask::History`]: everything asked for, oldest first.
    History {
        /// The room.
        room: RoomName,
        /// The records.
        records: Vec<Record>,
    },
    /// Something the server wants known.
    Notice(Notice),
    /// The server has no space to keep anything new, so what the user did waits here, in order. Told
    /// once until something of it was kept again.
    StoreFull,
    /// A command or question was refused.
    Refused {
        /// The user's label; `None` when it is about nothing that the user did.
        id: Option<String>,
        /// Why.
        refusal: Refusal,
    },
    /// A command was given up: the session expired, and nobody knows whether it took effect.
    Abandoned {
        /// The user's label.
        id: String,
        /// What it was.
        command: Command,
    },
}
