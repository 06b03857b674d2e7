//! From dial to log-in to loss: the life of a client's connections.

use crate::client::backoff::Backoff;
use crate::client::outbox::{Agreement, Outbox};
use crate::client::questions::{Line, Questions, Step};
use crate::client::rooms::Rooms;
use crate::client::silence::{Silence, Verdict};
use crate::client::{
    ClientConfig, Drain, Event, Input, Origin, Output, Outputs, Place, Save, Saved, Stop, Unsent,
};
use crate::id::{
    Attach, COUNTER_MAX, Counter, Digest, Generation, LogId, Nonce, PublicKey, SessionId,
    Signature, Threshold,
};
use crate::text::{Body, RoomName};
use crate::time::{Moment, Span};
use crate::wire::{
    ClientFrame, ClientHello, Command, FrameFault, Login, LoginProof, Refusal, Role, ServerFrame,
    ServerHello, ServerProof, VersionRange, Welcome,
};

/// How long each step of connecting may take.
const STEP_TIME: Span = Span::from_secs(10);
/// How long to wait before leaving for posts of one's own that are visible.
const OWN_POSTS_TIME: Span = Span::from_secs(3);
/// How long to wait after a refusal that names no time.
pub(super) const RETRY_TIME: Span = Span::from_secs(1);

/// The client's side of a conversation.
///
/// The host gives it [`Input`]s, carries out its [`Output`]s in order, and comes back at
/// [`Client::next_timeout`]. Equal inputs give equal outputs, whenever they are taken.
#[derive(Debug)]
pub struct Client {
    pub(super) config: ClientConfig,
    pub(super) phase: Phase,
    /// Known once the host answered.
    identity: Option<Identity>,
    /// The key of the first server that answered; no other will do.
    server_key: Option<PublicKey>,
    /// What the connection is secured by, if it is.
    channel: Option<Digest>,
    /// What the server said of itself on this connection.
    hello: Option<ServerHello>,
    /// Whether the server proved its key on this connection.
    proof: Proof,
    /// Connections that a proof was asked for on: each with another nonce.
    challenges: u64,
    /// Signatures asked for that have not come: only the last one is for this connection.
    signatures_due: u32,
    /// The newest owner that answered, of this journal.
    newest: Option<(LogId, Generation)>,
    /// Whether this run was ever logged in.
    met: bool,
    quitting: bool,
    /// Whether the user was told that the server's store is full, and nothing was kept since.
    told_full: bool,
    /// Everything is answered, and until then what was posted may still be shown.
    lingering: Option<Moment>,
    /// Of what the user did last.
    last_place: Place,
    pub(super) outbox: Outbox,
    pub(super) rooms: Rooms,
    pub(super) questions: Questions,
    backoff: Backoff,
    pub(super) out: Outputs,
    #[cfg(chat_mutants)]
    pub(super) mutant: Option<crate::mutant::Mutant>,
}

/// Who the client is to this server.
#[derive(Debug)]
struct Identity {
    key: PublicKey,
    session: SessionId,
    /// `None` until the session was logged in for the first time.
    origin: Option<Origin>,
    attach: Attach,
    /// Whether the session cannot go on, as its numbers make no sense to the server.
    broken: bool,
}

/// How far the client has come.
#[derive(Debug)]
pub(super) enum Phase {
    /// Not begun.
    Idle,
    /// A connection was asked for.
    Dialling { deadline: Moment },
    /// The server has to say hello.
    Greeting { deadline: Moment },
    /// The host has to load who we are.
    Identifying(ServerHello),
    /// The host has to sign.
    Signing(Claim),
    /// The server has to accept the log-in.
    LoggingIn { claim: Claim, deadline: Moment },
    /// Logged in.
    Online { since: Moment, silence: Silence },
    /// The next dial comes later.
    Waiting { until: Moment },
    /// The end.
    Stopped,
}

/// Whether the server proved that it has its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Proof {
    /// It is believed without.
    NotNeeded,
    /// It was asked to sign this.
    Awaited(Nonce),
    /// The host checks it.
    Checking,
    Given,
}

/// A log-in that is under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claim {
    session: SessionId,
    attach: Attach,
    log_id: LogId,
    generation: Generation,
}

impl Client {
    /// A client that waits for [`Input::Start`]. Of `config.rooms` it joins the first 64.
    pub fn new(config: ClientConfig) -> Self {
        let mut rooms = Rooms::default();
        for room in &config.rooms {
            rooms.want(room);
        }
        Self {
            backoff: Backoff::new(config.jitter_seed),
            config,
            phase: Phase::Idle,
            identity: None,
            server_key: None,
            channel: None,
            hello: None,
            proof: Proof::NotNeeded,
            challenges: 0,
            signatures_due: 0,
            newest: None,
            met: false,
            quitting: false,
            told_full: false,
            lingering: None,
            last_place: Place::default(),
            outbox: Outbox::default(),
            rooms,
            questions: Questions::default(),
            out: Outputs::default(),
            #[cfg(chat_mutants)]
            mutant: None,
        }
    }

    /// Takes in what happened. What makes no sense in the present state is ignored; after
    /// [`Output::Stopped`] everything is.
    pub fn handle(&mut self, now: Moment, input: Input) {
        if matches!(self.phase, Phase::Stopped) {
            return;
        }
        match input {
            Input::Start if matches!(self.phase, Phase::Idle) => self.dial(now),
            Input::Start => {}
            Input::Dialled { channel } => self.greet(now, channel),
            Input::Lost { reason } => self.lose(now, reason, Span::ZERO),
            Input::Frame(frame) => self.handle_frame(now, frame),
            Input::Identified { key, saved } => self.identify(key, saved),
            Input::Verified { valid } => self.judge_proof(valid),
            Input::Signed(signature) => self.log_in(now, signature),
            Input::Post { room, body, id } => self.post(&room, &body, id),
            Input::Reset { room, threshold, id } => self.reset(&room, threshold, id),
            Input::Moderate { user, measure, id } => {
                self.queue(id, Command::Moderate { user: (&user).into(), measure });
            }
            Input::Join { room, id } => self.ask(id, Step::Join(room)),
            Input::Part { room, id } => self.ask(id, Step::Part(room)),
            Input::Ask { ask, id } => self.ask(id, Step::Ask(ask)),
            Input::Timeout => self.handle_timeout(now),
            Input::Quit { drain: Drain::Wait } => self.quitting = true,
            Input::Quit { drain: Drain::Now } => self.stop(Stop::Done),
        }
        self.send_what_is_due(now);
        self.stop_if_drained(now);
    }

    /// Takes the next thing to do; `None` until the next input.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.out.pop()
    }

    /// When to come back with [`Input::Timeout`]; `None` when nothing waits.
    pub fn next_timeout(&self) -> Option<Moment> {
        match &self.phase {
            Phase::Dialling { deadline }
            | Phase::Greeting { deadline }
            | Phase::LoggingIn { deadline, .. }
            | Phase::Waiting { until: deadline } => Some(*deadline),
            Phase::Online { silence, .. } => {
                let due =
                    [self.outbox.deadline(), self.rooms.deadline(), self.questions.deadline()];
                let due = due.into_iter().chain([self.lingering]).flatten();
                due.chain([silence.deadline()]).min()
            }
            Phase::Idle | Phase::Identifying(_) | Phase::Signing(_) | Phase::Stopped => None,
        }
    }

    /// Whether the server owes an answer to anything the user did.
    pub fn awaits_answers(&self) -> bool {
        !self.outbox.is_empty() || !self.questions.is_empty()
    }

    /// How many commands are unanswered.
    pub fn unanswered(&self) -> usize {
        self.outbox.len()
    }

    /// Whether the user may join, part or ask now; beyond, that is refused with `E_BUSY`.
    pub fn may_ask(&self) -> bool {
        !self.questions.is_full()
    }

    /// Whether it is logged in.
    pub const fn is_online(&self) -> bool {
        matches!(self.phase, Phase::Online { .. })
    }

    /// Whether nothing more will come.
    pub const fn is_stopped(&self) -> bool {
        matches!(self.phase, Phase::Stopped)
    }

    /// The rooms it follows, or will once it is logged in, by name. A join that waits for its turn
    /// is not among them.
    pub fn rooms(&self) -> impl Iterator<Item = &RoomName> {
        self.rooms.names()
    }

    fn dial(&mut self, now: Moment) {
        self.phase = Phase::Dialling { deadline: now + STEP_TIME };
        self.out.push(Output::Dial);
    }

    fn greet(&mut self, now: Moment, channel: Option<Digest>) {
        if !matches!(self.phase, Phase::Dialling { .. }) {
            return;
        }
        self.channel = channel;
        self.phase = Phase::Greeting { deadline: now + STEP_TIME };
        let versions = VersionRange::SUPPORTED;
        let hello = ClientHello { role: Role::Client, versions, features: 0 };
        self.out.send(ClientFrame::Hello(hello));
        if let Some(seed) = self.config.proof_seed {
            self.challenges = self.challenges.saturating_add(1);
            let challenge = challenge_of(&seed, self.challenges);
            self.proof = Proof::Awaited(challenge);
            self.out.send(ClientFrame::Prove { nonce: challenge });
        }
    }

    /// The server's proof came.
    pub(super) fn take_proof(&mut self, now: Moment, signature: Signature) {
        let (Proof::Awaited(challenge), Some(hello)) = (self.proof, &self.hello) else {
            return self.hang_up(now, "the server proved what nobody asked for");
        };
        let key = hello.server_key;
        let message = ServerProof {
            challenge,
            nonce: hello.nonce,
            server_key: key,
            log_id: hello.log_id,
            generation: hello.generation,
            channel: self.channel,
        }
        .to_bytes();
        self.proof = Proof::Checking;
        self.out.push(Output::Verify { key, message, signature });
    }

    /// The server says on a connection that is logged in that a journal, its own unless it names one, has
    /// an owner of this generation. An earlier one is not believed from then on.
    pub(super) fn heed(&mut self, log_id: Option<LogId>, generation: Generation) {
        let is_online = self.is_online();
        if let Some((log, newest)) = &mut self.newest
            && is_online
            && log_id.is_none_or(|log_id| log_id == *log)
        {
            *newest = generation.max(*newest);
        }
    }

    fn judge_proof(&mut self, valid: bool) {
        if self.proof != Proof::Checking {
            return;
        }
        if valid {
            self.proof = Proof::Given;
        } else {
            self.stop(Stop::Impostor);
        }
    }

    pub(super) fn meet(&mut self, now: Moment, hello: ServerHello) {
        self.hello = Some(hello.clone());
        let spoken = VersionRange { min: hello.version, max: hello.version };
        if VersionRange::SUPPORTED.common(spoken).is_none() {
            return self.stop(Stop::Refused(Refusal::Version(spoken)));
        }
        if self.server_key.is_some_and(|key| key != hello.server_key) {
            return self.stop(Stop::OtherServer);
        }
        let (log_id, generation) = (hello.log_id, hello.generation);
        if self.newest.is_some_and(|(log, newest)| log == log_id && generation < newest) {
            return self.hang_up(now, "an earlier owner of this server answered");
        }
        self.newest = Some((log_id, generation));
        if self.identity.is_some() {
            return self.sign(&hello);
        }
        let server_key = hello.server_key;
        self.phase = Phase::Identifying(hello);
        if self.server_key.replace(server_key).is_none() {
            self.out.push(Output::Identify { server_key });
        }
    }

    fn identify(&mut self, key: PublicKey, saved: Saved) {
        if self.server_key.is_none() || self.identity.is_some() {
            return;
        }
        let Saved { session, origin, attach, last_counter, outbox, cursors } = saved;
        self.identity = Some(Identity { key, session, origin, attach, broken: false });
        self.rooms.load(cursors);
        for unsent in &outbox {
            if let Command::Reset { room, .. } = &unsent.command {
                self.rooms.begin_reset(room.as_str());
            }
        }
        self.outbox.load(last_counter, outbox, &mut self.out);
        if let Phase::Identifying(hello) = &self.phase {
            let hello = hello.clone();
            self.sign(&hello);
        }
    }

    /// Asks for the proof of a log-in.
    fn sign(&mut self, hello: &ServerHello) {
        let Some(identity) = &mut self.identity else { return };
        identity.attach = identity.attach.saturating_add(1);
        self.out.save(Save::Attach(identity.attach));
        let claim = Claim {
            session: identity.session_for(hello.log_id),
            attach: identity.attach,
            log_id: hello.log_id,
            generation: hello.generation,
        };
        let proof = LoginProof {
            nonce: hello.nonce,
            server_key: hello.server_key,
            log_id: claim.log_id,
            generation: claim.generation,
            channel: self.channel,
            session: claim.session,
            attach: claim.attach,
            name: self.config.name.as_str(),
        };
        self.out.push(Output::Sign(proof.to_bytes()));
        self.signatures_due = self.signatures_due.saturating_add(1);
        self.phase = Phase::Signing(claim);
    }

    fn log_in(&mut self, now: Moment, signature: Signature) {
        let Some(left) = self.signatures_due.checked_sub(1) else { return };
        self.signatures_due = left;
        // An earlier one was for a connection that is gone.
        let (0, Phase::Signing(claim), Some(identity)) = (left, &self.phase, &self.identity) else {
            return;
        };
        let claim = *claim;
        let (session, attach, key) = (claim.session, claim.attach, identity.key);
        let name = (&self.config.name).into();
        self.out.send(ClientFrame::Login(Login { name, key, session, attach, signature }));
        self.phase = Phase::LoggingIn { claim, deadline: now + STEP_TIME };
    }

    pub(super) fn enter(&mut self, now: Moment, welcome: Welcome) {
        let Phase::LoggingIn { claim, .. } = &self.phase else { return };
        let claim = *claim;
        if !matches!(self.proof, Proof::NotNeeded | Proof::Given) {
            return self.hang_up(now, "the server did not prove that it has its key");
        }
        let sane =
            welcome.session == claim.session && welcome.last_counter.get() <= COUNTER_MAX / 2;
        let (true, Some(identity)) = (sane, &self.identity) else {
            return self.hang_up(now, "the server answered another log-in");
        };
        let history_lost = identity.origin.is_some_and(|it| it.log_id != claim.log_id);
        self.phase = Phase::Online { since: now, silence: Silence::new(now) };
        if !mutated!(self, ClientDoesNotResend) {
            self.outbox.restart();
        }
        self.out.event(Event::Connected {
            server: welcome.address,
            generation: claim.generation,
            user: welcome.user,
            resumed: self.met && !history_lost,
            operator: welcome.operator,
        });
        self.met = true;
        if history_lost {
            self.rooms.forget();
            self.forget_incarnations();
            // Its users may be others by the same names.
            let measures = self.outbox.take_measures();
            self.abandon(measures);
        }
        let origin = Origin { log_id: claim.log_id, opened: welcome.opened };
        self.settle_numbers(now, claim.session, origin, welcome.last_counter);
    }

    /// Brings the numbers of the outbox in line with what the server knows of the session.
    fn settle_numbers(&mut self, now: Moment, session: SessionId, origin: Origin, theirs: Counter) {
        let Some(identity) = &self.identity else { return };
        let before = identity.origin.filter(|before| before.log_id == origin.log_id);
        let Some(before) = before.filter(|_| identity.session == session) else {
            self.outbox.renumber_all(theirs);
            return self.renew(session, origin);
        };
        if before.opened != origin.opened {
            // It has expired since, and was opened again: by this log-in, or by one whose welcome
            // never came.
            let given_up = self.outbox.take_exposed();
            self.outbox.renumber_all(theirs);
            self.abandon(given_up);
            return self.renew(session, origin);
        }
        let (agreement, given_up) = self.outbox.agree(theirs);
        let settled: Vec<Counter> = given_up.iter().map(|unsent| unsent.counter).collect();
        self.abandon(given_up);
        for counter in settled {
            self.out.save(Save::Settled(counter));
        }
        match agreement {
            Agreement::Agreed => {}
            Agreement::Renumbered => self.renew(session, origin),
            Agreement::Behind => self.break_session(now),
        }
    }

    fn abandon(&mut self, given_up: Vec<Unsent>) {
        for Unsent { id, command, .. } in given_up {
            self.give_up(&command);
            self.out.event(Event::Abandoned { id, command });
        }
    }

    /// A command has no effect that is known of.
    pub(super) fn give_up(&mut self, command: &Command) {
        match command {
            Command::Reset { room, .. } => self.rooms.give_up_reset(room.as_str()),
            Command::Post { .. } | Command::Moderate { .. } => {}
        }
    }

    fn renew(&mut self, session: SessionId, origin: Origin) {
        let Some(identity) = &mut self.identity else { return };
        identity.session = session;
        identity.origin = Some(origin);
        identity.broken = false;
        let outbox = self.outbox.to_vec();
        self.out.save(Save::Renewed { session, origin, outbox });
    }

    /// Lives of rooms in another journal have nothing to do with these.
    fn forget_incarnations(&mut self) {
        for command in self.outbox.commands_mut() {
            match command {
                Command::Post { incarnation, .. } => *incarnation = None,
                Command::Reset { .. } | Command::Moderate { .. } => {}
            }
        }
    }

    /// The server and this client disagree about what was answered, as when the session expired and
    /// a run that died has opened it again: nobody knows what became of what the server may have
    /// seen, and the rest goes to a new session.
    pub(super) fn break_session(&mut self, now: Moment) {
        let given_up = self.outbox.take_exposed();
        let counters: Vec<Counter> = given_up.iter().map(|unsent| unsent.counter).collect();
        self.abandon(given_up);
        for counter in counters {
            self.out.save(Save::Settled(counter));
        }
        if let Some(identity) = &mut self.identity {
            identity.broken = true;
        }
        self.hang_up(now, "the server does not know what it answered");
    }

    fn post(&mut self, room: &RoomName, body: &Body, id: String) {
        let incarnation = self.rooms.incarnation_for_post(room);
        self.queue(id, Command::Post { room: room.into(), incarnation, body: body.into() });
    }

    fn reset(&mut self, room: &RoomName, threshold: Threshold, id: String) {
        self.rooms.begin_reset(room.as_str());
        self.queue(id, Command::Reset { room: room.into(), threshold });
    }

    fn queue(&mut self, id: String, command: Command) {
        if self.outbox.is_full() {
            return self.refuse(Some(id), Refusal::Busy { retry_ms: RETRY_TIME });
        }
        let place = self.next_place();
        self.outbox.push(place, id, command, &mut self.out);
    }

    const fn next_place(&mut self) -> Place {
        self.last_place = self.last_place.next();
        self.last_place
    }

    fn ask(&mut self, id: String, step: Step) {
        if self.questions.is_full() {
            return self.refuse(Some(id), Refusal::Busy { retry_ms: RETRY_TIME });
        }
        let place = self.next_place();
        self.questions.push(Line { place, id }, step);
    }

    pub(super) fn refuse(&mut self, id: Option<String>, refusal: Refusal) {
        self.out.event(Event::Refused { id, refusal });
    }

    /// Something that the user waits for was refused for now, and is sent again by itself.
    pub(super) fn note_delay(&mut self, refusal: Refusal) {
        if refusal == Refusal::Store && !core::mem::replace(&mut self.told_full, true) {
            self.out.event(Event::StoreFull);
        }
    }

    /// Something was kept by the server.
    pub(super) const fn note_kept(&mut self) {
        self.told_full = false;
    }

    fn handle_timeout(&mut self, now: Moment) {
        match &mut self.phase {
            Phase::Waiting { until } if now >= *until => self.dial(now),
            Phase::Dialling { deadline }
            | Phase::Greeting { deadline }
            | Phase::LoggingIn { deadline, .. }
                if now >= *deadline =>
            {
                self.hang_up(now, "the server did not answer in time");
            }
            Phase::Online { silence, .. } => match silence.judge(now) {
                Verdict::Fine => {}
                Verdict::Ping => {
                    let token = self.questions.token();
                    self.out.send(ClientFrame::Ping { token });
                }
                Verdict::Lost => self.hang_up(now, "no answer"),
            },
            Phase::Idle
            | Phase::Waiting { .. }
            | Phase::Dialling { .. }
            | Phase::Greeting { .. }
            | Phase::LoggingIn { .. }
            | Phase::Identifying(_)
            | Phase::Signing(_)
            | Phase::Stopped => {}
        }
    }

    /// The server said why it closes.
    pub(super) fn take_leave(&mut self, now: Moment, refusal: Refusal) {
        let floor = match refusal {
            Refusal::Name(_)
            | Refusal::Auth(_)
            | Refusal::Version(_)
            | Refusal::Perm
            | Refusal::Expelled(_)
            | Refusal::Frame(FrameFault::Unencrypted) => {
                if self.is_online() {
                    let reason = refusal.to_string();
                    self.out.event(Event::Disconnected { reason, retry: None });
                }
                return self.stop(Stop::Refused(refusal));
            }
            Refusal::Busy { .. } if mutated!(self, ClientStopsWhenBusy) => {
                return self.stop(Stop::Refused(refusal));
            }
            Refusal::Rate { retry_ms } | Refusal::Busy { retry_ms } => retry_ms,
            Refusal::Frame(_)
            | Refusal::Decode(_)
            | Refusal::Limit(_)
            | Refusal::State(_)
            | Refusal::Command
            | Refusal::Target(_)
            | Refusal::Gate { .. }
            | Refusal::Gone
            | Refusal::Store
            | Refusal::Snapshot
            | Refusal::Crypto => Span::ZERO,
        };
        self.out.push(Output::Hangup);
        self.lose(now, refusal.to_string(), floor);
    }

    /// Gives up a connection.
    pub(super) fn hang_up(&mut self, now: Moment, reason: &str) {
        self.out.push(Output::Hangup);
        self.lose(now, reason.to_owned(), Span::ZERO);
    }

    /// A connection is gone, or could not be had. A server may dictate a wait.
    fn lose(&mut self, now: Moment, reason: String, floor: Span) {
        match self.phase {
            Phase::Idle | Phase::Waiting { .. } | Phase::Stopped => return,
            Phase::Online { since, .. } => self.backoff.served(now, now.since(since)),
            Phase::Dialling { .. }
            | Phase::Greeting { .. }
            | Phase::Identifying(_)
            | Phase::Signing(_)
            | Phase::LoggingIn { .. } => {}
        }
        #[cfg(chat_mutants)]
        if mutated!(self, ClientForgetsJoin) {
            self.rooms.forget_joins();
        }
        self.rooms.disconnect();
        for (line, room) in self.questions.disconnect() {
            self.part(line, room);
        }
        let retry = self.config.reconnect.then(|| self.backoff.next(now, floor));
        self.out.event(Event::Disconnected { reason, retry });
        self.phase = Phase::Waiting { until: now + retry.unwrap_or_default() };
        self.stop_if_drained(now);
        if retry.is_none() {
            self.stop(Stop::Lost);
        }
    }

    fn stop_if_drained(&mut self, now: Moment) {
        if !self.quitting || self.awaits_answers() {
            // What is done meanwhile has to be answered first.
            self.lingering = None;
            return;
        }
        if self.is_online() && self.rooms.owes_own_post() {
            let until = *self.lingering.get_or_insert(now + OWN_POSTS_TIME);
            if now < until {
                return;
            }
        }
        self.stop(Stop::Done);
    }

    fn stop(&mut self, stop: Stop) {
        match (&self.phase, stop) {
            (Phase::Stopped, _) => return,
            (Phase::Idle | Phase::Waiting { .. }, _) => {}
            (Phase::Online { .. }, Stop::Done) => {
                self.out.send(ClientFrame::Leave);
                self.out.push(Output::Hangup);
            }
            _ => self.out.push(Output::Hangup),
        }
        self.phase = Phase::Stopped;
        self.out.push(Output::Stopped(stop));
    }
}

impl Identity {
    /// The session to log in with. A session that cannot go on has one successor for each journal,
    /// always the same, so that dying between a log-in and its saving leaves no session behind.
    fn session_for(&self, log_id: LogId) -> SessionId {
        match self.origin {
            None => self.session,
            Some(before) if before.log_id == log_id && !self.broken => self.session,
            Some(_) => successor(self.session, log_id),
        }
    }
}

fn successor(session: SessionId, log_id: LogId) -> SessionId {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"chatcore session successor v1\0");
    hasher.update(session.as_bytes());
    hasher.update(log_id.as_bytes());
    let mut id = [0; SessionId::LEN];
    hasher.finalize_xof().fill(&mut id);
    SessionId::new(id)
}

/// A value that nobody can foresee who does not know the seed.
fn challenge_of(seed: &[u8; 32], number: u64) -> Nonce {
    let mut hasher = blake3::Hasher::new_keyed(seed);
    hasher.update(b"chatcore challenge v1\0");
    hasher.update(&number.to_be_bytes());
    Nonce::new(*hasher.finalize().as_bytes())
}

/// Whether a frame may come at any time after the server's hello.
pub(super) const fn is_sign_of_life(frame: &ServerFrame) -> bool {
    matches!(frame, ServerFrame::Ping { .. } | ServerFrame::Pong { .. } | ServerFrame::Notice(_))
}
