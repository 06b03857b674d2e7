//! The server as a whole: what it is made of, how it starts and how it stops.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use chatcore::address::Address;
use chatcore::engine::{Archive, Config, Engine};
use chatcore::id::{ConnId, Digest, Generation, LogId, Nonce, Threshold};
use chatcore::limits::{Limits, LimitsError};
use chatcore::log::{Founding, OperatorRule};
use chatcore::text::HostAddress;
use chatcore::time::Span;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::task::{Id, JoinError, JoinHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::addresses::{AddressLimits, Addresses};
use crate::admin::{AdminToken, Desk, Gate};
use crate::clock::Clock;
use crate::connection::{Connection, FrameLimit, Source};
use crate::crew::Crew;
use crate::descriptors::{self, TooFewDescriptors};
use crate::door::{House, Place, Places};
use crate::figures::Figures;
use crate::host::{self, EngineHandle, Host, Kept, Message};
use crate::http::{self, Health, Layer};
use crate::key::ServerKey;
use crate::listener::{ListenError, Listener, Plaintext};
use crate::metrics::Metrics;
use crate::retention::{Keep, Ledger};
use crate::shard::{self, ShardHandle, ShardMessage, Sink, shard_of};
use crate::store::{self, Closed, Keeper, Opened, Storage, StoreError, StoreFailure};
use crate::tls::{Handshakes, Tls};
use crate::verify::Verifier;

/// The number of this owner: the first and only one, for now.
const GENERATION: Generation = match Generation::new(1) {
    Ok(first) => first,
    Err(_) => Generation::ZERO,
};

/// How long a stopping server waits for its connections to take their last frames.
const DRAIN_TIME: Duration = Duration::from_secs(9);

/// How long it then waits for the store to be closed.
const CLOSE_TIME: Duration = Duration::from_millis(800);

/// Accepted connections that wait to be registered.
const ACCEPTED_QUEUE: usize = 16;

/// What a server is told when it starts.
#[derive(Debug)]
pub struct ServerConfig {
    /// Where to listen; with none it serves only what is attached.
    pub listen: Vec<Address>,
    /// Where to tell metrics and take calls of those who run the server: a Unix socket or an address
    /// of this machine.
    pub admin: Option<Address>,
    /// What calls have to bring along where `admin` is no Unix socket; with none, none are taken there.
    pub admin_token: Option<AdminToken>,
    /// Whether other machines may be served without encryption.
    pub plaintext: Plaintext,
    /// What is shown to those who come by TLS; with none, nobody can.
    pub tls: Option<Tls>,
    /// Where it keeps what it acknowledges.
    pub storage: Storage,
    /// How much of each room it keeps.
    pub keep: Keep,
    /// The threshold of new rooms. A journal that is there already keeps its own.
    pub threshold: Threshold,
    /// Who is to be an operator; with none, the first user. A journal that is there already keeps
    /// its own.
    pub operators: Vec<OperatorRule>,
    /// Who the server is.
    pub key: ServerKey,
    /// What one address may do.
    pub address_limits: AddressLimits,
    /// The bounds. `connections_max` is lowered to what the system allows.
    pub limits: Limits,
}

impl ServerConfig {
    /// A server that listens nowhere and keeps nothing, with every default.
    pub fn new(key: ServerKey) -> Self {
        Self {
            listen: Vec::new(),
            admin: None,
            admin_token: None,
            plaintext: Plaintext::default(),
            tls: None,
            storage: Storage::Ephemeral,
            keep: Keep::default(),
            threshold: Threshold::default(),
            operators: Vec::new(),
            key,
            address_limits: AddressLimits::default(),
            limits: Limits::default(),
        }
    }
}

/// Why a server does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// It cannot listen.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// A limit is out of range.
    #[error(transparent)]
    Limits(#[from] LimitsError),
    /// What is kept cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The thread that opens the store panicked, which is a bug.
    #[error("the store could not be opened, which is a bug: {0}")]
    Bug(JoinError),
    /// The system allows too few open files.
    #[error(transparent)]
    Descriptors(#[from] TooFewDescriptors),
    /// No randomness can be had.
    #[error("the system gives no random bytes: {0}")]
    Random(#[from] getrandom::Error),
}

/// Why a server stopped by itself. It is of no more use, and acknowledges nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// The engine or a shard found its own rules broken.
    #[error("the engine failed, which is a bug: {0}")]
    Bug(JoinError),
    /// The store can keep nothing more.
    #[error(transparent)]
    Store(StoreFailure),
}

/// How a server stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// Everybody was told.
    Drained,
    /// Some connections did not take their last frames in time.
    TimedOut,
}

/// Both directions of a connection.
pub(crate) struct Transport {
    /// The address it came in by, for its client to be told.
    pub(crate) address: Option<HostAddress>,
    /// The exporter, when it is inside TLS.
    pub(crate) channel: Option<Digest>,
    pub(crate) source: Source,
    pub(crate) sink: Sink,
    /// Its place; who is attached has none, and the engine's bounds alone hold.
    pub(crate) place: Option<Place>,
    /// How long ago it was accepted.
    pub(crate) waited: Duration,
}

/// The sockets of a server that is about to run.
struct Bound {
    chat: Vec<Listener>,
    /// The socket for those who run the server, and what it lets in.
    admin: Option<(Listener, Gate)>,
    tls: Option<Tls>,
}

/// A server that runs. Dropping it stops everything at once; [`Server::stop`] does it in order.
#[derive(Debug)]
pub struct Server {
    addresses: Vec<Address>,
    admin: Option<Address>,
    tls: Option<Tls>,
    generation: Generation,
    founding: Founding,
    accepted: mpsc::Sender<Transport>,
    messages: mpsc::Sender<Message>,
    listening: CancellationToken,
    stop_asked: CancellationToken,
    /// The engine and the shards: none of them ever ends but by a bug, or because the store failed.
    core: JoinSet<Result<(), StoreFailure>>,
    store_closed: Option<Closed>,
    connections: JoinHandle<()>,
    listeners: JoinSet<()>,
}

impl Server {
    /// Starts to listen and serve.
    ///
    /// # Errors
    /// When it cannot listen, or the system or a limit forbids it; nothing runs then.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn start(config: ServerConfig) -> Result<Self, StartError> {
        let mut limits = config.limits;
        limits.connections_max = descriptors::raise(limits.connections_max)?;
        limits.check()?;
        let chat = Vec::with_capacity(config.listen.len());
        let mut bound = Bound { chat, admin: None, tls: config.tls };
        for address in &config.listen {
            let listener = Listener::bind(address, config.plaintext, bound.tls.as_ref()).await?;
            bound.chat.push(listener);
        }
        if let Some(address) = &config.admin {
            let gate = Gate::new(address, config.admin_token);
            bound.admin = Some((Listener::bind_admin(address).await?, gate));
        }
        let founding = Founding {
            log_id: LogId::new(random()?),
            server_key: config.key.public(),
            threshold: config.threshold,
            operators: config.operators,
        };
        let clock = Clock::new();
        let storage = config.storage.clone();
        let (engine, kept) = open(config.storage, config.keep, founding, limits, clock).await?;
        #[cfg(chat_mutants)]
        let engine = crate::mutant::switch_off(engine);
        Ok(Self::run((bound, config.address_limits), (engine, config.key), clock, storage, kept))
    }

    /// Serves with an engine that was just made.
    fn run(
        (bound, address_limits): (Bound, AddressLimits),
        (engine, key): (Engine, ServerKey),
        clock: Clock,
        storage: Storage,
        (kept, store_closed): (Kept, Option<Closed>),
    ) -> Self {
        let (founding, limits) = (engine.founding().clone(), engine.limits().clone());
        let cores = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        let (messages, inbox) = mpsc::channel(host::QUEUE);
        let metrics = Metrics::new();
        let mut core = JoinSet::new();
        let shards: Vec<ShardHandle> = (0..cores.get())
            .map(|_| {
                let told = (messages.clone(), metrics.clone());
                shard::start(&limits, clock, told, &mut core)
            })
            .collect();
        let crew = Crew::new(cores);
        let verifier = Verifier::new(&crew, messages.clone());
        let figures = Figures::new(storage, clock, messages.clone());
        let health = Arc::new(Health::default());
        let parts = (verifier, figures, kept, Arc::clone(&health), metrics.clone());
        let host = Host::new((engine, key), clock, shards.clone(), parts);
        core.spawn(host.run(inbox));

        let (accepted, arrivals) = mpsc::channel(ACCEPTED_QUEUE);
        let registry = Registry::new(messages.clone(), shards);
        let connections = tokio::spawn(registry.run(arrivals));
        let listening = CancellationToken::new();
        let admin = bound.admin.as_ref().map(|(listener, _)| listener.address().clone());
        let addresses = bound.chat.iter().map(|listener| listener.address().clone()).collect();
        let house = Arc::new(House {
            places: Places::new(&limits),
            handshakes: Handshakes::new(&crew),
            addresses: Arc::new(Addresses::new(address_limits)),
            pages: http::pages(Arc::clone(&health), Layer::Plain),
            encrypted_pages: http::pages(Arc::clone(&health), Layer::Tls),
            metrics: metrics.clone(),
            login_time: Duration::from_millis(limits.login_time.as_millis()),
            accepted: accepted.clone(),
        });
        let mut listeners = JoinSet::new();
        for listener in bound.chat {
            listeners.spawn(listener.run(Arc::clone(&house), listening.clone()));
        }
        let stop_asked = CancellationToken::new();
        if let Some((listener, gate)) = bound.admin {
            let engine = EngineHandle::new(messages.clone());
            let (founding, generation, stop) = (founding.clone(), GENERATION, stop_asked.clone());
            let desk = Desk { engine, founding, generation, stop };
            let pages = http::admin_pages(health, metrics, desk, gate);
            listeners.spawn(listener.run_admin(pages, listening.clone()));
        }
        Self {
            addresses,
            admin,
            tls: bound.tls,
            generation: GENERATION,
            founding,
            accepted,
            messages,
            listening,
            stop_asked,
            core,
            store_closed,
            connections,
            listeners,
        }
    }

    /// Where it listens, in the order of the configuration; free ports have numbers now.
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// The key of the certificate that it shows by TLS now, if it does; see [`Tls::key_hash`].
    pub fn certificate(&self) -> Option<String> {
        self.tls.as_ref().map(Tls::key_hash)
    }

    /// Where it tells its metrics and takes calls, if it does; a free port has a number now.
    pub const fn admin(&self) -> Option<&Address> {
        self.admin.as_ref()
    }

    /// The generation it serves in.
    pub const fn generation(&self) -> Generation {
        self.generation
    }

    /// What its journal began with. It may be older than this server.
    pub const fn founding(&self) -> &Founding {
        &self.founding
    }

    /// Serves a connection that was accepted elsewhere. It waits while many others are being
    /// registered.
    pub async fn attach<T: AsyncRead + AsyncWrite + Send + 'static>(&self, stream: T) {
        let (source, sink) = tokio::io::split(stream);
        let (source, sink) = (Box::pin(source), Box::pin(sink));
        // Where it came in only the embedding program knows.
        let (channel, place, waited) = (None, None, Duration::ZERO);
        let transport = Transport { address: None, channel, source, sink, place, waited };
        // The receiver is gone only when the engine is.
        let _ = self.accepted.send(transport).await;
    }

    /// Resolves when those who run the server ask for its end, by a call. It serves on until
    /// [`Server::stop`] is called.
    pub fn stop_asked(&self) -> impl Future<Output = ()> + Send + use<> {
        self.stop_asked.clone().cancelled_owned()
    }

    /// Resolves when the server stopped by itself: by a bug, or because the store can keep nothing
    /// more. It is of no more use then.
    pub async fn failed(&mut self) -> Failure {
        match failure_in(&mut self.core).await {
            Some(failure) => failure,
            None => std::future::pending().await,
        }
    }

    /// Stops in order: accepts no more, makes safe and answers what was posted, tells everybody,
    /// waits for the last frames to be taken, 9 seconds at most, and closes the store.
    ///
    /// # Errors
    /// When the server stops by itself meanwhile, as for [`Server::failed`]. What was acknowledged is
    /// safe all the same; what was not may be gone.
    pub async fn stop(mut self) -> Result<Stopped, Failure> {
        let deadline = Instant::now() + DRAIN_TIME;
        self.listening.cancel();
        while self.listeners.join_next().await.is_some() {}
        drop(self.accepted);
        // The engine is gone only when it failed; then there is nobody to tell.
        let _ = self.messages.send(Message::Stop).await;
        let stopped = tokio::select! {
            biased;
            Some(failure) = failure_in(&mut self.core) => return Err(failure),
            drained = tokio::time::timeout_at(deadline, &mut self.connections) => match drained {
                Ok(_) => Stopped::Drained,
                Err(_) => Stopped::TimedOut,
            },
        };
        self.core.shutdown().await;
        if let Some(closed) = self.store_closed
            && tokio::time::timeout(CLOSE_TIME, closed.wait()).await.is_err()
        {
            tracing::warn!("the store is not closed yet: the next start will take a little longer");
        }
        Ok(stopped)
    }
}

/// Waits for a failure among the engine and the shards; `None` when all have ended without one.
async fn failure_in(core: &mut JoinSet<Result<(), StoreFailure>>) -> Option<Failure> {
    while let Some(ended) = core.join_next().await {
        match ended {
            Ok(Ok(())) => {}
            Ok(Err(failure)) => return Some(Failure::Store(failure)),
            Err(error) => return Some(Failure::Bug(error)),
        }
    }
    None
}

/// The engine, where it is kept, and how one knows that that is closed.
async fn open(
    storage: Storage,
    keep: Keep,
    founding: Founding,
    limits: Limits,
    clock: Clock,
) -> Result<(Engine, (Kept, Option<Closed>)), StartError> {
    let config = |archive| Config { limits, archive, generation: GENERATION };
    match storage {
        Storage::Ephemeral => {
            let engine = Engine::found(founding, config(Archive::None), clock.now())?;
            Ok((engine, (Kept::InMemory(Ledger::new(keep)), None)))
        }
        Storage::Folder { path, durability } => {
            let config = config(Archive::Store);
            let open = move || store::open(&path, durability, founding, &config, keep, clock.now());
            let opened = tokio::task::spawn_blocking(open).await.map_err(StartError::Bug)?;
            let Opened { engine, parts } = opened?;
            let (keeper, closed) = Keeper::start(parts);
            Ok((engine, (Kept::ByStore(keeper), Some(closed))))
        }
    }
}

/// Registers connections with their shard and the engine, and reports how each ends.
struct Registry {
    messages: mpsc::Sender<Message>,
    shards: Vec<ShardHandle>,
    readers: JoinSet<()>,
    connections: HashMap<Id, ConnId>,
    next: u64,
}

impl Registry {
    fn new(messages: mpsc::Sender<Message>, shards: Vec<ShardHandle>) -> Self {
        Self { messages, shards, readers: JoinSet::new(), connections: HashMap::new(), next: 0 }
    }

    /// Runs until nobody can bring a connection any more and all have ended.
    async fn run(mut self, mut arrivals: mpsc::Receiver<Transport>) {
        let mut open = true;
        while open || !self.readers.is_empty() {
            tokio::select! {
                transport = arrivals.recv(), if open => match transport {
                    Some(transport) => self.register(transport).await,
                    None => open = false,
                },
                Some(ended) = self.readers.join_next_with_id(), if !self.readers.is_empty() => {
                    self.unregister(ended).await;
                }
            }
        }
    }

    async fn register(&mut self, transport: Transport) {
        let nonce = match random() {
            Ok(nonce) => Nonce::new(nonce),
            Err(error) => {
                tracing::error!(%error, "a connection is dropped: no random bytes");
                return;
            }
        };
        self.next = self.next.wrapping_add(1);
        let conn = ConnId::new(self.next);
        let (closed, frame_limit) = (CancellationToken::new(), Arc::new(FrameLimit::default()));
        // The shard first: what the engine has to say must find its connection.
        let Transport { address, channel, source, sink, place, waited } = transport;
        self.tell_shard(conn, ShardMessage::Add { conn, sink, closed: closed.clone() }).await;
        let frame_limit_of_reader = Arc::clone(&frame_limit);
        let waited = Span::from_millis(u64::try_from(waited.as_millis()).unwrap_or(u64::MAX));
        let connected =
            Message::Connected { conn, nonce, channel, address, waited, frame_limit, place };
        self.tell_engine(connected).await;
        let reader = Connection {
            conn,
            source,
            messages: self.messages.clone(),
            frame_limit: frame_limit_of_reader,
            closed,
        };
        let task = self.readers.spawn(reader.run());
        self.connections.insert(task.id(), conn);
    }

    /// A reader ended, by itself or by a panic: either way its connection is over.
    async fn unregister(&mut self, ended: Result<(Id, ()), JoinError>) {
        let task = match &ended {
            Ok((task, ())) => *task,
            Err(error) => error.id(),
        };
        let Some(conn) = self.connections.remove(&task) else { return };
        if let Err(error) = ended {
            tracing::error!(%conn, %error, "a connection failed and is closed");
        }
        self.tell_engine(Message::Disconnected { conn }).await;
        self.tell_shard(conn, ShardMessage::Remove { conn }).await;
    }

    async fn tell_shard(&self, conn: ConnId, message: ShardMessage) {
        if let Some(shard) = self.shards.get(shard_of(conn, self.shards.len())) {
            shard.tell(message).await;
        }
    }

    async fn tell_engine(&self, message: Message) {
        // The engine is gone only when it failed, and then the process stops.
        let _ = self.messages.send(message).await;
    }
}

fn random<const N: usize>() -> Result<[u8; N], getrandom::Error> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn c13_broken_rule_in_the_engine_ends_the_server_and_says_so() {
        let key = ServerKey::ephemeral().unwrap();
        let mut server = Server::start(ServerConfig::new(key)).await.unwrap();
        // Only a bug of this program reports a connection that never was.
        let stranger = Message::Disconnected { conn: ConnId::new(u64::MAX) };
        server.messages.send(stranger).await.unwrap();
        let failure = server.failed().await;
        let is_panic = matches!(&failure, Failure::Bug(error) if error.is_panic());
        assert!(is_panic, "{failure}");
    }
}
