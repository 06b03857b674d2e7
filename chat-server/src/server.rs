//! The server as a whole: what it is made of, how it starts and how it stops.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use chatcore::address::Address;
use chatcore::engine::{Archive, Config, Engine};
use chatcore::id::{ConnId, Generation, LogId, Nonce, Threshold};
use chatcore::limits::{Limits, LimitsError};
use chatcore::log::{Founding, OperatorRule};
use chatcore::text::HostAddress;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::task::{Id, JoinError, JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::connection::{Connection, FrameLimit, Source};
use crate::descriptors::{self, TooFewDescriptors};
use crate::host::{self, Host, Message};
use crate::key::ServerKey;
use crate::listener::{ListenError, Listener, Plaintext};
use crate::shard::{self, ShardHandle, ShardMessage, Sink, shard_of};
use crate::verify::Verifier;

/// How long a stopping server waits for its connections to take their last frames.
const DRAIN_TIME: Duration = Duration::from_secs(9);

/// Accepted connections that wait to be registered.
const ACCEPTED_QUEUE: usize = 16;

/// What a server is told when it starts.
#[derive(Debug)]
pub struct ServerConfig {
    /// Where to listen; with none it serves only what is attached.
    pub listen: Vec<Address>,
    /// Whether other machines may be served without encryption.
    pub plaintext: Plaintext,
    /// The threshold of new rooms.
    pub threshold: Threshold,
    /// Who is to be an operator; with none, the first user.
    pub operators: Vec<OperatorRule>,
    /// Who the server is.
    pub key: ServerKey,
    /// The bounds. `connections_max` is lowered to what the system allows.
    pub limits: Limits,
}

impl ServerConfig {
    /// A server that listens nowhere, with a key of its own and every default.
    pub fn new(key: ServerKey) -> Self {
        Self {
            listen: Vec::new(),
            plaintext: Plaintext::default(),
            threshold: Threshold::default(),
            operators: Vec::new(),
            key,
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
    /// The system allows too few open files.
    #[error(transparent)]
    Descriptors(#[from] TooFewDescriptors),
    /// No randomness can be had.
    #[error("the system gives no random bytes: {0}")]
    Random(#[from] getrandom::Error),
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
    pub(crate) source: Source,
    pub(crate) sink: Sink,
}

/// A server that runs. Dropping it stops everything at once; [`Server::stop`] does it in order.
#[derive(Debug)]
pub struct Server {
    addresses: Vec<Address>,
    generation: Generation,
    accepted: mpsc::Sender<Transport>,
    messages: mpsc::Sender<Message>,
    listening: CancellationToken,
    /// The engine and the shards: none of them ever ends but by a bug.
    core: JoinSet<()>,
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
        let mut bound = Vec::with_capacity(config.listen.len());
        for address in &config.listen {
            bound.push(Listener::bind(address, config.plaintext).await?);
        }
        let founding = Founding {
            log_id: LogId::new(random()?),
            server_key: config.key.public(),
            threshold: config.threshold,
            operators: config.operators,
        };
        let (clock, generation) = (Clock::new(), Generation::ZERO.next());
        let engine_config = Config { limits: limits.clone(), archive: Archive::None, generation };
        let engine = Engine::found(founding, engine_config, clock.now())?;
        #[cfg(chat_mutants)]
        let engine = crate::mutant::switch_off(engine);

        let cores = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        let (messages, inbox) = mpsc::channel(host::QUEUE);
        let mut core = JoinSet::new();
        let shards: Vec<ShardHandle> = (0..cores.get())
            .map(|_| shard::start(&limits, clock, messages.clone(), &mut core))
            .collect();
        let verifier = Verifier::new(cores, messages.clone());
        core.spawn(Host::new(engine, clock, shards.clone(), verifier).run(inbox));

        let (accepted, arrivals) = mpsc::channel(ACCEPTED_QUEUE);
        let registry = Registry::new(messages.clone(), shards);
        let connections = tokio::spawn(registry.run(arrivals));
        let listening = CancellationToken::new();
        let addresses = bound.iter().map(|listener| listener.address().clone()).collect();
        let mut listeners = JoinSet::new();
        for listener in bound {
            listeners.spawn(listener.run(accepted.clone(), listening.clone()));
        }
        Ok(Self {
            addresses,
            generation,
            accepted,
            messages,
            listening,
            core,
            connections,
            listeners,
        })
    }

    /// Where it listens, in the order of the configuration; free ports have numbers now.
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// The generation it serves in.
    pub const fn generation(&self) -> Generation {
        self.generation
    }

    /// Serves a connection that was accepted elsewhere. It waits while many others are being
    /// registered.
    pub async fn attach<T: AsyncRead + AsyncWrite + Send + 'static>(&self, stream: T) {
        let (source, sink) = tokio::io::split(stream);
        let (source, sink) = (Box::pin(source), Box::pin(sink));
        // Where it came in only the embedding program knows.
        let transport = Transport { address: None, source, sink };
        // The receiver is gone only when the engine is.
        let _ = self.accepted.send(transport).await;
    }

    /// Resolves when the engine or a shard stopped by itself, which only a bug makes it do. The
    /// server is of no more use then.
    pub async fn failed(&mut self) -> JoinError {
        while let Some(ended) = self.core.join_next().await {
            if let Err(error) = ended {
                return error;
            }
        }
        std::future::pending().await
    }

    /// Stops in order: accepts no more, tells everybody, waits for the last frames to be taken,
    /// 9 seconds at most.
    pub async fn stop(mut self) -> Stopped {
        self.listening.cancel();
        while self.listeners.join_next().await.is_some() {}
        drop(self.accepted);
        // The engine is gone only when it failed; then there is nobody to tell.
        let _ = self.messages.send(Message::Stop).await;
        match tokio::time::timeout(DRAIN_TIME, &mut self.connections).await {
            Ok(_) => Stopped::Drained,
            Err(_) => Stopped::TimedOut,
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
        let add = ShardMessage::Add { conn, sink: transport.sink, closed: closed.clone() };
        self.tell_shard(conn, add).await;
        let frame_limit_of_reader = Arc::clone(&frame_limit);
        let address = transport.address;
        self.tell_engine(Message::Connected { conn, nonce, address, frame_limit }).await;
        let reader = Connection {
            conn,
            source: transport.source,
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
        assert!(failure.is_panic(), "{failure}");
    }
}
