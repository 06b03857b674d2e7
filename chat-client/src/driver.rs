//! Carries out what the client's state machine asks for: one task between socket, input, screen,
//! clock and signals.
//!
//! Invariants: outputs are carried out in order, and a change is in the file before a byte that
//! depends on it leaves; nothing here grows without bound; at the end every line that was read is
//! either answered or in the outbox of the next run.

mod act;
mod clock;

use std::io;
use std::time::Duration;

use chatcore::address::Address;
use chatcore::client::{Client, ClientConfig, Drain, Event, Input, Output, Save, Stop};
use chatcore::id::{Counter, PublicKey, SessionId};
use chatcore::text::{RoomName, UserName};
use chatcore::wire::{Command, NameFault};
use futures_util::FutureExt as _;
use tokio::time::{Instant, sleep_until};

use crate::Exit;
use crate::args::{Args, Mode};
use crate::driver::clock::Clock;
use crate::identity::{self, Identity, IdentityError, Location, Origin};
use crate::input::{Source, Typing, label};
use crate::known::{Known, KnownError, KnownServers};
use crate::link::{Appetite, Link, LinkEvent};
use crate::output::Printer;
use crate::screen::{Screen, Seen};
use crate::signals::{Signal, Signals};
use crate::store::{Store, StoreError};
use crate::tls::{Trust, TrustError};

/// Above so many unanswered commands no more input is read, nor while no more may be asked.
const UNANSWERED_MAX: usize = 1_000;

/// Frames and lines that are handled before their effects are saved and shown together.
const BATCH: usize = 64;

/// How long SIGTERM waits for answers.
const TERMINATION_TIME: Duration = Duration::from_secs(5);

/// How long the last lines may take to be written.
const FAREWELL_TIME: Duration = Duration::from_secs(2);

/// For a script that waits where nobody answers.
const NO_LIMIT: &str = "waiting for the server without a limit; --timeout SPAN sets one";

/// How a conversation ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The program is to exit.
    Exit(Exit),
    /// The name cannot be had: another may be tried.
    NameRefused(NameFault),
}

/// Why a conversation cannot go on on this machine.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The lines cannot be written; without a message when nobody reads them any more.
    #[error("standard output: {0}")]
    Screen(io::Error),
    #[error("no random bytes: {0}")]
    Random(#[from] getrandom::Error),
    /// Another server answers where one was met before.
    #[error(
        "the server at {address} has the key {found}, not {known} as before: it is another server, or \
         somebody pretends to be it; if that is as it should be, --accept-new-key takes it"
    )]
    OtherServer { address: Address, found: PublicKey, known: PublicKey },
    /// The certificate is not to be trusted.
    #[error("{0}")]
    Distrusted(String),
}

/// Why a conversation cannot begin.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SetUpError {
    /// The operating system gives no random bytes.
    #[error("no random bytes: {0}")]
    Random(#[from] getrandom::Error),
    /// It is not known who was met before.
    #[error(transparent)]
    Known(#[from] KnownError),
    /// The authorities of `--tls-ca` cannot be had.
    #[error(transparent)]
    Trust(#[from] TrustError),
}

/// Who the server is.
#[derive(Debug)]
struct Acquaintance {
    /// Where that is remembered; nowhere, when there is no folder for it.
    servers: Option<KnownServers>,
    /// As it was met before.
    before: Option<Known>,
    /// Whose certificates are trusted, where there are any.
    trust: Option<Trust>,
    /// As it said now.
    key: Option<PublicKey>,
}

impl Acquaintance {
    fn load(args: &Args) -> Result<Self, SetUpError> {
        let servers = match &args.known_servers {
            Some(file) => Some(KnownServers::of_file(file)),
            None => KnownServers::of_user(),
        };
        let found = servers.as_ref().map(|servers| servers.find(&args.address)).transpose()?;
        let before = found.flatten().filter(|_| !args.accept_new_key);
        let trust = match (&args.address, &args.tls_ca) {
            (Address::Tcp { .. } | Address::Unix(_), _) => None,
            (Address::Tls { .. }, Some(file)) => Some(Trust::of_file(file)?),
            (Address::Tls { .. }, None) => {
                Some(Trust::of_system(before.and_then(|known| known.certificate))?)
            }
        };
        Ok(Self { servers, before, trust, key: None })
    }
}

/// The parts that outlive one conversation: a refused name begins another with the same ones.
#[derive(Debug)]
pub struct Surroundings {
    /// Where lines come from.
    pub source: Source,
    /// Where lines go.
    pub screen: Screen,
    /// SIGINT and SIGTERM.
    pub signals: Signals,
}

/// What is known once the server said who it is.
#[derive(Debug)]
struct Profile {
    identity: Identity,
    store: Store,
    /// The files that this run made, to be removed if the name is refused.
    made: Option<Location>,
}

/// Whether more input is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    Open,
    Ended,
}

/// Whether this conversation was ever logged in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Met {
    NotYet,
    Yes,
}

/// One conversation under one name.
#[derive(Debug)]
pub struct Driver<'a> {
    args: &'a Args,
    name: UserName,
    around: &'a mut Surroundings,
    printer: Printer,
    client: Client,
    clock: Clock,
    link: Link,
    server: Acquaintance,
    profile: Option<Profile>,
    /// Joined rooms; lines go to the last.
    rooms: Vec<RoomName>,
    reading: Reading,
    met: Met,
    /// The last command that waits to be saved.
    queued: Option<Counter>,
    deadline: Option<Instant>,
    /// Told once, should it become true.
    no_limit: Option<&'static str>,
    /// The exit code, when something else than the state machine decides it.
    exit: Option<Exit>,
    stopped: Option<Stop>,
}

/// What the task woke up for.
enum Step {
    Link(LinkEvent),
    Typed(Typing),
    Shown(io::Result<Seen>),
    Signal(Signal),
    Timeout,
    Deadline,
}

impl<'a> Driver<'a> {
    /// Prepares a conversation.
    ///
    /// # Errors
    /// When the operating system gives no random bytes, or what is known of the server or its
    /// authorities cannot be read.
    pub fn new(
        args: &'a Args,
        name: UserName,
        around: &'a mut Surroundings,
    ) -> Result<Self, SetUpError> {
        let mut rooms = Vec::new();
        for room in &args.rooms {
            if !rooms.contains(room) {
                rooms.push(room.clone());
            }
        }
        let mut proof_seed = [0; 32];
        getrandom::fill(&mut proof_seed)?;
        let client = Client::new(ClientConfig {
            name: name.clone(),
            rooms: rooms.clone(),
            start: args.start(),
            reconnect: !args.no_reconnect,
            jitter_seed: getrandom::u64()?,
            proof_seed: Some(proof_seed),
        });
        // The first room is where lines go.
        rooms.rotate_left(1);
        Ok(Self {
            args,
            name,
            around,
            printer: Printer::new(args.mode(), args.color(), &args.address),
            client,
            clock: Clock::start(),
            link: Link::default(),
            server: Acquaintance::load(args)?,
            profile: None,
            rooms,
            reading: Reading::Open,
            met: Met::NotYet,
            queued: None,
            deadline: args.timeout.map(|span| Instant::now() + span),
            no_limit: Some(NO_LIMIT),
            exit: None,
            stopped: None,
        })
    }

    /// Talks until the end.
    pub async fn run(mut self) -> Ended {
        let result = self.converse().await;
        let ended = match result {
            Ok(stop) => self.ended(stop),
            Err(failure) => self.fail(&failure),
        };
        self.link.finish().await;
        self.farewell().await;
        ended
    }

    async fn converse(&mut self) -> Result<Stop, Failure> {
        self.handle(Input::Start);
        loop {
            self.carry_out()?;
            if let Some(stop) = self.stopped {
                return Ok(stop);
            }
            self.around.screen.show();
            // What was written is noted before anything else, so that dying now shows little again.
            let step = match self.around.screen.shown().now_or_never() {
                Some(shown) => Step::Shown(shown),
                None => self.wait().await,
            };
            self.take_step(step)?;
        }
    }

    async fn wait(&mut self) -> Step {
        let timer = self.client.next_timeout().map(|at| self.clock.instant(at));
        // A person can always interrupt; only scripts are faster than a server.
        let keeps_up = self.keeps_up() || self.args.mode() == Mode::Terminal;
        let reads = self.reading == Reading::Open && keeps_up;
        let appetite = self.appetite();
        tokio::select! {
            signal = self.around.signals.next() => Step::Signal(signal),
            shown = self.around.screen.shown() => Step::Shown(shown),
            event = self.link.next(appetite) => Step::Link(event),
            typed = self.around.source.next(), if reads => Step::Typed(typed),
            () = until(timer) => Step::Timeout,
            () = until(self.deadline) => Step::Deadline,
        }
    }

    /// Whether the server answers as fast as lines come.
    fn keeps_up(&self) -> bool {
        self.client.unanswered() < UNANSWERED_MAX && self.client.may_ask()
    }

    fn appetite(&self) -> Appetite {
        if self.around.screen.is_full() { Appetite::WriteOnly } else { Appetite::Read }
    }

    fn take_step(&mut self, step: Step) -> Result<(), Failure> {
        match step {
            Step::Link(event) => {
                self.take_link_event(event)?;
                self.take_ready_frames()?;
            }
            Step::Typed(typed) => {
                self.take_typed(typed);
                self.take_ready_lines();
            }
            Step::Shown(shown) => self.note_shown(shown)?,
            Step::Signal(Signal::Interrupt) => self.interrupt(),
            Step::Signal(Signal::Terminate) => self.leave_within(TERMINATION_TIME),
            Step::Timeout => self.handle(Input::Timeout),
            Step::Deadline => self.give_up(),
        }
        Ok(())
    }

    /// Keeps what lines that are written say.
    fn note_shown(&mut self, shown: io::Result<Seen>) -> Result<(), Failure> {
        let seen = shown.map_err(Failure::Screen)?;
        if let Some(profile) = &mut self.profile {
            profile.store.apply_seen(seen)?;
        }
        Ok(())
    }

    /// Handles frames that are there already, so that they are saved and shown together.
    fn take_ready_frames(&mut self) -> Result<(), Failure> {
        for _ in 1..BATCH {
            // Each frame may change what is wanted next: a dial, a hang-up, the end.
            self.perform_outputs()?;
            if let Some(shown) = self.around.screen.shown().now_or_never() {
                self.note_shown(shown)?;
            }
            if self.stopped.is_some() || self.appetite() == Appetite::WriteOnly {
                return Ok(());
            }
            // What this batch changes is not saved yet, so no byte may leave here.
            let Some(event) = self.link.next_ready() else { return Ok(()) };
            self.take_link_event(event)?;
        }
        Ok(())
    }

    fn take_ready_lines(&mut self) {
        for _ in 1..BATCH {
            if self.reading == Reading::Ended || !self.keeps_up() {
                return;
            }
            let Some(typed) = self.around.source.next().now_or_never() else { return };
            self.take_typed(typed);
        }
    }

    fn take_link_event(&mut self, event: LinkEvent) -> Result<(), Failure> {
        match event {
            LinkEvent::Dialled { channel } => self.handle(Input::Dialled { channel }),
            LinkEvent::Frame(frame) => self.handle(Input::Frame(frame)),
            LinkEvent::Lost { reason } => self.handle(Input::Lost { reason }),
            LinkEvent::Distrusted { reason } => return Err(Failure::Distrusted(reason)),
        }
        Ok(())
    }

    fn handle(&mut self, input: Input) {
        self.client.handle(self.clock.now(), input);
    }

    /// Carries out everything that is due, and saves it: bytes may leave afterwards.
    fn carry_out(&mut self) -> Result<(), Failure> {
        self.perform_outputs()?;
        if let Some(profile) = &mut self.profile {
            profile.store.commit()?;
        }
        if let Some(counter) = self.queued.take() {
            self.debug(&format!("kept through command {counter}"));
        }
        Ok(())
    }

    fn perform_outputs(&mut self) -> Result<(), Failure> {
        while let Some(output) = self.client.poll_output() {
            match output {
                Output::Dial => self.link.dial(&self.args.address, self.server.trust.as_ref()),
                Output::Hangup => self.link.hang_up(),
                Output::Send(frame) => self.link.send(&frame),
                Output::Identify { server_key } => self.identify(server_key)?,
                Output::Sign(message) => self.sign(&message),
                Output::Verify { key, message, signature } => {
                    let valid = identity::is_valid(&key, &message, &signature);
                    self.handle(Input::Verified { valid });
                }
                Output::Save(save) => self.save(&save)?,
                Output::Event(event) => self.show(&event),
                Output::Stopped(stop) => self.stopped = Some(stop),
            }
        }
        Ok(())
    }

    fn identify(&mut self, server_key: PublicKey) -> Result<(), Failure> {
        if let Some(Known { key: known, .. }) = self.server.before
            && known != server_key
        {
            let (address, found) = (self.args.address.clone(), server_key);
            return Err(Failure::OtherServer { address, found, known });
        }
        self.server.key = Some(server_key);
        let location = match &self.args.identity {
            Some(file) => Location::of_file(file),
            None => Location::of_service(server_key, &self.name)?,
        };
        let identity = Identity::open(&location.key)?;
        let mut fresh = [0; SessionId::LEN];
        getrandom::fill(&mut fresh)?;
        let fresh = SessionId::new(fresh);
        let (store, mut saved) = Store::open(&location.state, server_key, &self.name, fresh)?;
        self.debug(&format!("server key {server_key}, identity {}", location.key.display()));
        for unsent in &mut saved.outbox {
            unsent.id = label::left_by_earlier_run(&unsent.id, unsent.counter);
            if let Command::Post { body, .. } = &unsent.command
                && let Ok(body) = body.parse()
            {
                self.printer.remember(&unsent.id, &body);
            }
        }
        let key = identity.public_key();
        let chosen = self.args.identity.is_some();
        let made = (identity.origin() == Origin::Made && !chosen).then_some(location);
        self.profile = Some(Profile { identity, store, made });
        self.handle(Input::Identified { key, saved });
        Ok(())
    }

    fn sign(&mut self, message: &[u8]) {
        if let Some(profile) = &self.profile {
            let signature = profile.identity.sign(message);
            self.handle(Input::Signed(signature));
        }
    }

    fn save(&mut self, save: &Save) -> Result<(), Failure> {
        let Some(profile) = &mut self.profile else { return Ok(()) };
        match save {
            // These are kept once the lines that they speak of are written.
            Save::Seen(room, cursor) => {
                self.around.screen.saw(room.clone(), *cursor);
                return Ok(());
            }
            Save::Settled(counter) => {
                self.around.screen.settled(*counter);
                return Ok(());
            }
            Save::Renewed { origin, .. } => {
                self.around.screen.forget_settled();
                if profile.store.log_id() != Some(origin.log_id) {
                    self.around.screen.forget_cursors();
                }
            }
            Save::Queued(unsent) => self.queued = Some(unsent.counter),
            Save::Attach(_) => {}
        }
        Ok(profile.store.apply(save)?)
    }

    fn show(&mut self, event: &Event) {
        match event {
            Event::Connected { .. } => self.note_connected(),
            Event::Disconnected { retry: Some(_), .. } => self.note_no_limit(),
            Event::Disconnected { retry: None, .. }
            | Event::Sent { .. }
            | Event::Abandoned { .. }
            | Event::Gate { .. }
            | Event::Users { .. }
            | Event::Record(_)
            | Event::Gap { .. }
            | Event::Reset { .. }
            | Event::Moderated { .. }
            | Event::Parted { .. }
            | Event::Rooms { .. }
            | Event::User(_)
            | Event::History { .. }
            | Event::Notice(_)
            | Event::StoreFull
            | Event::Refused { .. } => {}
        }
        self.printer.event(event, self.around.screen.lines());
    }

    /// Remembers who the server is, when that is new.
    fn remember_server(&mut self) {
        let Some(key) = self.server.key else { return };
        let Some(servers) = &self.server.servers else { return };
        let address = &self.args.address;
        let pinned = self.server.trust.as_ref().and_then(Trust::pinned);
        let certificate = pinned.or(self.server.before.and_then(|known| known.certificate));
        let known = Known { key, certificate };
        if self.server.before == Some(known) {
            return;
        }
        let remembered = servers.remember(address, known);
        let place = servers.path().display().to_string();
        let is_new = self.server.before.replace(known).is_none_or(|it| it.certificate.is_none());
        if let Err(error) = remembered {
            // The conversation is none the worse; only the next one knows no more than this.
            return self.tell(&format!("the server's key is not remembered: {error}"));
        }
        match certificate {
            Some(certificate) if is_new => self.tell(&format!(
                "nobody vouches for the certificate of {address}; its key, {certificate}, is remembered \
                 in {place}: compare it with what the server says of itself"
            )),
            Some(_) | None => self.debug(&format!("the server's key is remembered in {place}")),
        }
    }

    /// All that is left to do waits for a connection.
    fn note_no_limit(&mut self) {
        if self.reading == Reading::Ended
            && self.deadline.is_none()
            && let Some(text) = self.no_limit.take()
        {
            self.tell(text);
        }
    }

    fn note_connected(&mut self) {
        self.remember_server();
        let before = std::mem::replace(&mut self.met, Met::Yes);
        match (self.reading, before) {
            (Reading::Open, _) => {
                self.deadline = None;
                self.prompt();
            }
            (Reading::Ended, Met::NotYet) => self.handle(Input::Quit { drain: Drain::Wait }),
            (Reading::Ended, Met::Yes) => {}
        }
    }
}

/// Sleeps until `at`; for ever without one.
async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
