//! The task that owns the engine.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chatcore::engine::{Counts, Directive, Engine, Event, Input, Misuse, Need, Output};
use chatcore::id::{ConnId, Digest, Nonce, RequestId};
use chatcore::log::Entry;
use chatcore::text::{HostAddress, UserName};
use chatcore::time::Span;
use chatcore::wire::{ClientFrame, HostStatus, Measure, Refusal};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::clock::{Clock, sleep_until};
use crate::connection::FrameLimit;
use crate::crew::Full;
use crate::door::Place;
use crate::figures::Figures;
use crate::http::{Health, Readiness};
use crate::key::ServerKey;
use crate::metrics::Metrics;
use crate::retention::{Ledger, ROUND};
use crate::shard::{ShardHandle, shard_of};
use crate::store::{Answer, Keeper, StoreFailure, Wanted};
use crate::verify::Verifier;

/// Messages that wait for the engine; a connection that sends more waits itself.
pub(crate) const QUEUE: usize = 256;

/// Messages that the engine takes in one turn. What they lead to is committed and delivered
/// together: the larger the crowd of messages, the fewer and longer the writes.
const TURN: usize = 256;

/// How long a server that stops waits for the store, so that what was posted is answered before its
/// connection closes. A full store is not waited for.
const STORE_DRAIN_TIME: Duration = Duration::from_secs(5);

/// What a client is told to wait when too many others are being looked after.
const BUSY_RETRY: Span = Span::from_secs(1);

/// What the engine is told.
#[derive(Debug)]
pub(crate) enum Message {
    /// A connection was accepted, and its shard knows it.
    Connected {
        conn: ConnId,
        nonce: Nonce,
        channel: Option<Digest>,
        /// The address it came in by.
        address: Option<HostAddress>,
        /// How long ago it was accepted.
        waited: Span,
        frame_limit: Arc<FrameLimit>,
        /// Its place; who is attached has none.
        place: Option<Place>,
    },
    /// A connection sent frames.
    Frames { conn: ConnId, frames: Vec<ClientFrame> },
    /// A connection has to close.
    Condemned { conn: ConnId, refusal: Refusal },
    /// A connection is gone.
    Disconnected { conn: ConnId },
    /// A signature was checked.
    Verified { conn: ConnId, valid: bool },
    /// What the host says of itself is known.
    Reported { conn: ConnId, host: HostStatus },
    /// Somebody wants to know how much there is.
    Count(oneshot::Sender<Counts>),
    /// Those who run the server take a measure.
    Moderate { user: UserName, measure: Measure, asker: oneshot::Sender<Option<Refusal>> },
    /// A shard lacks records.
    Fetch(Need),
    /// Everybody is to be told that the server stops.
    Stop,
}

/// A way to ask the engine's task.
#[derive(Clone, Debug)]
pub(crate) struct EngineHandle(mpsc::Sender<Message>);

/// How long the engine may take to answer those who run the server.
const ANSWER_TIME: Duration = Duration::from_secs(5);

/// Why nothing is known of a measure that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoAnswer;

impl EngineHandle {
    pub(crate) const fn new(messages: mpsc::Sender<Message>) -> Self {
        Self(messages)
    }

    /// How much there is; `None` when the engine does not answer in time.
    pub(crate) async fn counts(&self) -> Option<Counts> {
        self.ask(Message::Count).await.ok()
    }

    /// Takes a measure on a user, and waits until it is safe. Why it was not taken, if it was not.
    ///
    /// # Errors
    /// When the engine does not answer in time, as with a store that stands still: the measure may
    /// be taken yet.
    pub(crate) async fn moderate(
        &self,
        user: UserName,
        measure: Measure,
    ) -> Result<Result<(), Refusal>, NoAnswer> {
        let refusal = self.ask(|asker| Message::Moderate { user, measure, asker }).await?;
        Ok(refusal.map_or(Ok(()), Err))
    }

    async fn ask<T>(
        &self,
        message: impl FnOnce(oneshot::Sender<T>) -> Message,
    ) -> Result<T, NoAnswer> {
        let (asker, answer) = oneshot::channel();
        let ask = async {
            self.0.send(message(asker)).await.ok()?;
            answer.await.ok()
        };
        tokio::time::timeout(ANSWER_TIME, ask).await.ok().flatten().ok_or(NoAnswer)
    }
}

/// Where entries are kept.
#[derive(Debug)]
pub(crate) enum Kept {
    /// In memory alone, where they are as safe as they will ever be at once. Retention is the host's.
    InMemory(Ledger),
    /// By a store, which also looks after retention.
    ByStore(Keeper),
}

/// A connection as far as it is the host's affair.
#[derive(Debug)]
struct Admitted {
    /// What its reader may accept.
    frame_limit: Arc<FrameLimit>,
    place: Option<Place>,
}

impl Admitted {
    fn log_in(&mut self) {
        self.frame_limit.raise();
        if let Some(place) = &mut self.place {
            place.log_in();
        }
    }
}

/// The engine and what it needs around it.
#[derive(Debug)]
pub(crate) struct Host {
    engine: Engine,
    key: ServerKey,
    clock: Clock,
    shards: Vec<ShardHandle>,
    verifier: Verifier,
    figures: Figures,
    kept: Kept,
    /// When retention looks at what is due.
    round_at: Option<Instant>,
    store_full: bool,
    /// Until when a stop waits for the store.
    stop_by: Option<Instant>,
    /// What each connection may do; more from its log-in on.
    admitted: BTreeMap<ConnId, Admitted>,
    /// Who waits to hear of a measure, and how many were asked for.
    moderating: BTreeMap<RequestId, oneshot::Sender<Option<Refusal>>>,
    measures: u64,
    /// For those who ask from outside.
    health: Arc<Health>,
    metrics: Metrics,
    /// What this turn leads to, a list a shard.
    directives: Vec<Vec<Directive>>,
}

impl Host {
    pub(crate) fn new(
        (engine, key): (Engine, ServerKey),
        clock: Clock,
        shards: Vec<ShardHandle>,
        (verifier, figures, kept, health, metrics): (Verifier, Figures, Kept, Arc<Health>, Metrics),
    ) -> Self {
        let has_rounds = matches!(&kept, Kept::InMemory(ledger) if ledger.has_bound());
        let directives = shards.iter().map(|_| Vec::new()).collect();
        Self {
            engine,
            key,
            clock,
            shards,
            verifier,
            figures,
            kept,
            round_at: has_rounds.then(Instant::now),
            store_full: false,
            stop_by: None,
            admitted: BTreeMap::new(),
            moderating: BTreeMap::new(),
            measures: 0,
            health,
            metrics,
            directives,
        }
    }

    /// Runs until every sender of `messages` is gone.
    ///
    /// # Errors
    /// When the store failed: nothing is acknowledged from then on, and the process has to stop.
    ///
    /// # Panics
    /// When the engine finds its own state broken, or this host its rules: the process has to stop.
    pub(crate) async fn run(
        mut self,
        mut messages: mpsc::Receiver<Message>,
    ) -> Result<(), StoreFailure> {
        let mut turn = Vec::with_capacity(TURN);
        self.settle();
        loop {
            let deadline = self.engine.next_timeout();
            let timeout = sleep_until(deadline.map(|at| self.clock.instant(at)));
            tokio::select! {
                // A server that is to stop listens to nobody, so that the store can catch up.
                count = messages.recv_many(&mut turn, TURN), if self.stop_by.is_none() => {
                    if count == 0 {
                        return Ok(());
                    }
                }
                answer = answer_of(&mut self.kept) => self.take_answer(answer)?,
                () = timeout => self.handle(Input::Timeout),
                () = sleep_until(self.round_at) => self.trim(),
                () = sleep_until(self.stop_by) => self.stop(),
            }
            for message in turn.drain(..) {
                self.take(message);
            }
            self.settle();
            self.stop_when_level();
            self.hand_out().await;
        }
    }

    fn take_answer(&mut self, answer: Answer) -> Result<(), StoreFailure> {
        match answer {
            Answer::Persisted(through) => self.handle(Input::Persisted { through }),
            Answer::Full => {
                self.store_full = true;
                self.health.set(Readiness::StoreFull);
                self.handle(Input::StoreFull);
            }
            Answer::Free => {
                self.store_full = false;
                self.health.set(Readiness::Ready);
                self.handle(Input::StoreFree);
            }
            Answer::Read(token, Some(records)) => self.handle(Input::ReadDone { token, records }),
            Answer::Read(token, None) => self.handle(Input::ReadFailed { token }),
            Answer::Trim(input) => self.handle(input),
            Answer::Failed(failure) => return Err(failure),
        }
        Ok(())
    }

    /// Stops once all that was appended is safe and answered.
    fn stop_when_level(&mut self) {
        let is_level = self.engine.committed() == self.engine.head().index;
        if self.stop_by.is_some() && (is_level || self.store_full) {
            self.stop();
        }
    }

    fn stop(&mut self) {
        self.stop_by = None;
        self.handle(Input::Stop);
        self.settle();
    }

    /// Has forgotten what is due.
    fn trim(&mut self) {
        self.round_at = Some(Instant::now() + ROUND);
        let Kept::InMemory(ledger) = &self.kept else { return };
        for input in ledger.due(self.clock.now().wall) {
            self.handle(input);
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Connected { conn, nonce, channel, address, waited, frame_limit, place } => {
                self.admitted.insert(conn, Admitted { frame_limit, place });
                self.handle(Input::Connected { conn, nonce, channel, address, waited });
            }
            Message::Frames { conn, frames } => {
                self.metrics.received(frames.len());
                for frame in frames {
                    self.handle(Input::Frame { conn, frame });
                }
            }
            Message::Condemned { conn, refusal } => {
                // A shard may condemn a connection whose reader has just gone.
                if self.admitted.contains_key(&conn) {
                    self.handle(Input::Condemned { conn, refusal });
                }
            }
            Message::Disconnected { conn } => {
                self.handle(Input::Disconnected { conn });
                // Its place only now, so that the engine never counts more than there are.
                self.admitted.remove(&conn);
            }
            Message::Verified { conn, valid } => self.handle(Input::Verified { conn, valid }),
            Message::Reported { conn, host } => self.handle(Input::Reported { conn, host }),
            // Who asked may have gone.
            Message::Count(asker) => drop(asker.send(self.engine.counts())),
            Message::Moderate { user, measure, asker } => self.moderate(user, measure, asker),
            Message::Fetch(need) => self.handle(Input::Fetch(need)),
            Message::Stop => {
                self.health.set(Readiness::Stopping);
                self.stop_by = Some(Instant::now() + STORE_DRAIN_TIME);
            }
        }
    }

    fn moderate(
        &mut self,
        user: UserName,
        measure: Measure,
        asker: oneshot::Sender<Option<Refusal>>,
    ) {
        self.measures = self.measures.saturating_add(1);
        let request = RequestId::new(self.measures).unwrap_or(RequestId::MAX);
        self.moderating.insert(request, asker);
        self.handle(Input::Moderate { request, user, measure });
    }

    fn handle(&mut self, input: Input) {
        let result: Result<(), Misuse> = self.engine.handle(self.clock.now(), input);
        result.expect("the host must keep the rules of the engine");
    }

    /// Carries out what the engine asks for until it asks for nothing more.
    fn settle(&mut self) {
        loop {
            let mut appended = Vec::new();
            while let Some(output) = self.engine.poll_output() {
                self.carry_out(output, &mut appended);
            }
            let Some(last) = appended.last() else { return };
            let through = last.header.index;
            match &mut self.kept {
                // The engine goes on; what depends on these entries waits for the answer.
                Kept::ByStore(store) => return store.append(appended),
                Kept::InMemory(ledger) => {
                    appended.iter().for_each(|entry| ledger.follow_entry(entry));
                    self.handle(Input::Persisted { through });
                }
            }
        }
    }

    fn carry_out(&mut self, output: Output, appended: &mut Vec<Arc<Entry>>) {
        match output {
            Output::Persist(entry) => appended.push(entry),
            Output::Verify { conn, key, message, signature } => {
                let begun = self.verifier.begin(conn, key, message, signature);
                self.turn_away_if(conn, begun);
            }
            // It takes some twenty microseconds, less than having it done elsewhere.
            Output::Sign { conn, message } => {
                let signature = self.key.sign(&message);
                self.handle(Input::Signed { conn, signature });
            }
            Output::Report { conn } => {
                let begun = self.figures.begin(conn);
                self.turn_away_if(conn, begun);
            }
            Output::Read { token, room, incarnation, from, to, order } => {
                let Kept::ByStore(store) = &self.kept else {
                    panic!("an engine without a store must not read from it");
                };
                store.read(token, Wanted { room, incarnation, from, to, order });
            }
            Output::Deliver(directive) => self.route(directive),
            Output::Event(event) => self.note(&event),
            Output::Moderated { request, refusal } => {
                if let Some(asker) = self.moderating.remove(&request) {
                    // Who asked may have gone.
                    let _ = asker.send(refusal);
                }
            }
        }
    }

    /// Closes a connection for which nothing could begin.
    fn turn_away_if(&mut self, conn: ConnId, begun: Result<(), Full>) {
        if begun == Err(Full) {
            let refusal = Refusal::Busy { retry_ms: BUSY_RETRY };
            self.take(Message::Condemned { conn, refusal });
        }
    }

    fn route(&mut self, directive: Directive) {
        let Some(conn) = directive.conn() else {
            self.directives.iter_mut().for_each(|list| list.push(directive.clone()));
            return;
        };
        let shard = shard_of(conn, self.shards.len());
        if let Some(list) = self.directives.get_mut(shard) {
            list.push(directive);
        }
    }

    fn note(&mut self, event: &Event) {
        match event {
            Event::LoggedIn { conn, user } => {
                if let Some(admitted) = self.admitted.get_mut(conn) {
                    admitted.log_in();
                }
                self.metrics.logged_in();
                tracing::debug!(%conn, %user, "logged in");
            }
            Event::Closed { conn, refusal } => {
                // As in the engine: who is being closed keeps nobody out.
                if let Some(admitted) = self.admitted.get_mut(conn) {
                    admitted.place = None;
                }
                self.metrics.closed(refusal.as_ref().map(Refusal::code));
                let code = refusal.as_ref().map_or("all is said", Refusal::code);
                tracing::debug!(%conn, code, "closing");
            }
            Event::GateOpened { room } => tracing::info!(%room, "gate opened"),
            Event::Reset { room, incarnation } => {
                tracing::info!(%room, %incarnation, "room reset");
            }
            Event::Moderated { user, measure, by } => {
                let by = by.as_ref().map_or("the server", UserName::as_str);
                tracing::info!(%user, ?measure, %by, "measure taken");
            }
        }
    }

    /// Gives each shard its part of the turn. A full shard holds the engine back, and so everybody
    /// who sends: there is no other place for what cannot be delivered.
    async fn hand_out(&mut self) {
        for (shard, list) in self.shards.iter().zip(&mut self.directives) {
            if !list.is_empty() {
                shard.send(std::mem::take(list)).await;
            }
        }
    }
}

/// The store's next answer; never, when there is no store.
async fn answer_of(kept: &mut Kept) -> Answer {
    match kept {
        Kept::ByStore(store) => store.answer().await,
        Kept::InMemory(_) => std::future::pending().await,
    }
}
