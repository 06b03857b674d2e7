//! A directory: a server that knows who serves, and nothing else.
//!
//! It answers on the same door as a chat: TLS, addresses, places and the time for a greeting are its. Behind it
//! one task looks after each connection (`conversation`), and one thread owns the registers (`keeper`),
//! which are a file (`disk`). Look-ups are answered from memory, also while the disk is waited for, and
//! never tell of anything that it does not have. Clients who would log in are told where they can.
//! [`DirectoryClient`] is the other end.
//!
//! | bound | what happens there |
//! |---|---|
//! | connections, those of an address, those not greeted yet | as with a chat: told that it is busy, or closed |
//! | requests of a connection ([`Pace`]) | it is not read until they are paid off |
//! | watches | one a connection: the next request ends it |
//! | time of a watch, of silence, to take an answer | it is answered; closed; closed |
//! | claims whose signature waits to be checked, claims that wait to be judged | refused with `E_BUSY` |
//! | services ([`SERVICES_MAX`](chatcore::migration::directory::SERVICES_MAX)) | denied |
//! | space on the disk | refused with `E_STORE`, and what was kept stays |
//!
//! A sync or a rename that fails ends it: nobody knows then what the disk has.

mod client;
mod conversation;
mod disk;
mod keeper;

use std::collections::BTreeMap;
use std::io;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use chatcore::address::Address;
use chatcore::id::{Generation, PublicKey};
use chatcore::limits::{Limits, LimitsError};
use chatcore::migration::directory::{Registers, Registration};
use chatcore::text::ServiceName;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinError, JoinHandle, JoinSet};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::addresses::{AddressLimits, Addresses};
use crate::crew::Crew;
use crate::descriptors::{self, TooFewDescriptors};
use crate::door::{House, Places};
use crate::http::{self, Health, Layer};
use crate::key::KeyError;
use crate::listener::{ListenError, Listener, Plaintext};
use crate::metrics::Metrics;
use crate::server::Transport;
use crate::store::StoreError;
use crate::tls::{Handshakes, Tls};
pub use client::{DirectoryClient, DirectoryError, Proposed};
pub use conversation::Pace;
use conversation::{Conversation, Office};
use disk::{Disk, Found, Loss};
use keeper::{CLAIMS_MAX, Keeper};

/// Claims whose signatures may wait to be checked or be under way.
const CHECKS_MAX: usize = 256;

/// Accepted connections that wait for their task.
const ACCEPTED_QUEUE: usize = 16;

/// How long a stop waits for answers that are under way, and then for the registers to be closed.
const DRAIN_TIME: Duration = Duration::from_secs(4);
const CLOSE_TIME: Duration = Duration::from_secs(1);

/// What a directory is told when it starts.
#[derive(Debug)]
pub struct DirectoryConfig {
    /// Where to listen.
    pub listen: Vec<Address>,
    /// Whether other machines may be served without encryption.
    pub plaintext: Plaintext,
    /// What is shown to those who come by TLS; with none, nobody can.
    pub tls: Option<Tls>,
    /// The folder of its key and its registers.
    pub data: PathBuf,
    /// Of services that another directory held, which is lost: the generation that was their last. With
    /// any, a folder that lost its registers is taken for an empty one.
    pub last: BTreeMap<ServiceName, Generation>,
    /// The service whose owner clients are told who would log in here: they do not name one. Default
    /// `chat`.
    pub service: ServiceName,
    /// What one address may do.
    pub address_limits: AddressLimits,
    /// Connections at once; lowered to what the system allows. Default 4,096.
    pub connections_max: u32,
    /// What one connection may ask.
    pub pace: Pace,
}

impl DirectoryConfig {
    /// A directory of a folder that listens nowhere, with every default.
    pub fn new(data: PathBuf) -> Self {
        Self {
            listen: Vec::new(),
            plaintext: Plaintext::default(),
            tls: None,
            data,
            last: BTreeMap::new(),
            service: ServiceName::default(),
            address_limits: AddressLimits::default(),
            connections_max: 4_096,
            pace: Pace::default(),
        }
    }
}

/// Why a directory does not start. Nothing that was kept is changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DirectoryStartError {
    /// It cannot listen.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The system allows too few open files.
    #[error(transparent)]
    Descriptors(#[from] TooFewDescriptors),
    /// A limit is out of range.
    #[error(transparent)]
    Limits(#[from] LimitsError),
    /// The folder cannot be had.
    #[error(transparent)]
    Folder(#[from] StoreError),
    /// The key cannot be had.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The folder is that of a chat.
    #[error(
        "{} is the folder of a chat: a directory needs one of its own, name it with --data",
        .0.display()
    )]
    OfAChat(PathBuf),
    /// The registers are not what was written.
    #[error("the registers {} are damaged, and were left as they are: {HELP}", .0.display())]
    Damaged(PathBuf),
    /// The registers are gone, and the key that goes with them is there.
    #[error("the registers {} are gone, and the key beside them is that of a directory: {HELP}", .0.display())]
    Gone(PathBuf),
    /// The key is gone, and the registers that it signed are there.
    #[error(
        "there is no key {}, and the registers beside it were signed by one: put it there",
        .0.display()
    )]
    KeyGone(PathBuf),
    /// The registers are of another directory.
    #[error(
        "the registers {} belong to the directory {founder}, and the key beside them is that of {key}: \
         put the right server.key beside them",
        path.display()
    )]
    OtherKey {
        /// The file.
        path: PathBuf,
        /// Whose they are.
        founder: PublicKey,
        /// The key beside them.
        key: PublicKey,
    },
    /// The registers are of a newer program.
    #[error(
        "{} is of a newer chat-server (layout {found}, this program knows {known}); \
         it was left as it is",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its layout.
        found: u16,
        /// The newest layout that this program knows.
        known: u16,
    },
    /// The system says no.
    #[error("cannot use {}: {source}; name another folder with --data", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The task that opens the folder panicked, which is a bug.
    #[error("the folder could not be opened, which is a bug: {0}")]
    Bug(JoinError),
}

/// What to do about registers that are lost.
const HELP: &str = "put them back from a copy, if no service has changed since; otherwise start \
    with another, empty folder and --rebuild SERVICE=GENERATION for each service, the generation being the \
    highest that its owner and its standby tell";

/// Why a directory stopped by itself. It answers nothing from then on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DirectoryFailure {
    /// Keeping failed. It is never tried again: the system may have forgotten what it could not write,
    /// and a second try would be a lie.
    #[error(
        "the registers could not be kept ({0}): nothing more is registered, and the claim was not answered"
    )]
    Write(io::Error),
    /// The thread that owns the registers panicked, or has nobody left to answer.
    #[error("the keeper of the registers ended, which is a bug")]
    Bug,
}

/// A directory that runs. Dropping it stops everything at once; [`Directory::stop`] does it in order.
#[derive(Debug)]
pub struct Directory {
    addresses: Vec<Address>,
    tls: Option<Tls>,
    key: PublicKey,
    listening: CancellationToken,
    stop: CancellationToken,
    registers: watch::Receiver<Arc<Registers>>,
    listeners: JoinSet<()>,
    conversations: JoinHandle<()>,
    ended: oneshot::Receiver<Result<(), DirectoryFailure>>,
}

impl Directory {
    /// Starts to listen and answer.
    ///
    /// # Errors
    /// When it cannot listen, the system forbids it, or what is in the folder cannot be used; nothing runs
    /// then.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn start(config: DirectoryConfig) -> Result<Self, DirectoryStartError> {
        let connections_max = descriptors::raise(config.connections_max)?;
        let limits = Limits { connections_max, ..Limits::default() };
        limits.check()?;
        let mut bound = Vec::with_capacity(config.listen.len());
        for address in &config.listen {
            bound.push(Listener::bind(address, config.plaintext, config.tls.as_ref()).await?);
        }
        let loss = if config.last.is_empty() { Loss::Unexpected } else { Loss::Known };
        let data = config.data;
        let open = tokio::task::spawn_blocking(move || Disk::open(&data, loss));
        let Found { disk, key, registrations } = open.await.map_err(DirectoryStartError::Bug)??;
        let registers = registrations
            .into_iter()
            .map(|registration| keeper::sign(&key, registration))
            .fold(Registers::new(config.last), |registers, signed| registers.with(signed));

        let (crew, metrics) = (Crew::new(cores()), Metrics::new());
        let (accepted, arrivals) = mpsc::channel(ACCEPTED_QUEUE);
        let house = Arc::new(house(&limits, config.address_limits, (&crew, metrics), accepted));
        let (claims, inbox) = mpsc::channel(CLAIMS_MAX);
        let stop = CancellationToken::new();
        let public = key.public();
        let keeper = Keeper::new(key, disk, registers);
        let registers = keeper.registers();
        let office = Office {
            key: public,
            registers: registers.clone(),
            service: config.service,
            claims,
            checks: crew.line(CHECKS_MAX),
            pace: config.pace,
            login_time: house.login_time,
            stop: stop.clone(),
        };
        let conversations = tokio::spawn(receive(arrivals, Arc::new(office)));
        let (listening, mut listeners) = (CancellationToken::new(), JoinSet::new());
        let addresses = bound.iter().map(|listener| listener.address().clone()).collect();
        for listener in bound {
            listeners.spawn(listener.run(Arc::clone(&house), listening.clone()));
        }
        Ok(Self {
            addresses,
            tls: config.tls,
            key: public,
            listening,
            stop,
            registers,
            listeners,
            conversations,
            ended: keep(keeper, inbox),
        })
    }

    /// Where it listens, in the order of the configuration; free ports have numbers now.
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// The key of the certificate that it shows by TLS now, if it does; see [`Tls::key_hash`].
    pub fn certificate(&self) -> Option<String> {
        self.tls.as_ref().map(Tls::key_hash)
    }

    /// The key by which it signs, and nodes know it.
    pub const fn key(&self) -> PublicKey {
        self.key
    }

    /// What is registered of a service now.
    pub fn registered(&self, service: &ServiceName) -> Option<Registration> {
        self.registers.borrow().get(service).map(|signed| signed.registration.clone())
    }

    /// Resolves when the directory stopped by itself. It is of no more use then.
    ///
    /// # Panics
    /// When it is waited for once more.
    pub async fn failed(&mut self) -> DirectoryFailure {
        match (&mut self.ended).await {
            Ok(Err(failure)) => failure,
            // It ends by itself only when nobody is left to bring it claims.
            Ok(Ok(())) | Err(_) => DirectoryFailure::Bug,
        }
    }

    /// Stops in order: accepts no more, answers what is under way, tells everybody, 4 seconds at most, and
    /// closes the folder.
    ///
    /// # Errors
    /// When it stops by itself meanwhile, as for [`Directory::failed`].
    pub async fn stop(mut self) -> Result<(), DirectoryFailure> {
        self.listening.cancel();
        while self.listeners.join_next().await.is_some() {}
        self.stop.cancel();
        if timeout(DRAIN_TIME, &mut self.conversations).await.is_err() {
            tracing::warn!("some connections did not take their last answers in time");
            self.conversations.abort();
        }
        // A disk that stands still keeps nobody from stopping: what it has not kept was not told.
        match timeout(CLOSE_TIME, self.ended).await {
            Ok(Ok(ended)) => ended,
            Ok(Err(_)) => Err(DirectoryFailure::Bug),
            Err(_) => Ok(()),
        }
    }
}

fn cores() -> NonZeroUsize {
    std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

/// What all doors of a directory have in common.
fn house(
    limits: &Limits,
    address_limits: AddressLimits,
    (crew, metrics): (&Crew, Metrics),
    accepted: mpsc::Sender<Transport>,
) -> House {
    let health = Arc::new(Health::default());
    House {
        places: Places::new(limits),
        handshakes: Handshakes::new(crew),
        addresses: Arc::new(Addresses::new(address_limits)),
        pages: http::pages(Arc::clone(&health), Layer::Plain),
        encrypted_pages: http::pages(health, Layer::Tls),
        metrics,
        login_time: Duration::from_millis(limits.login_time.as_millis()),
        accepted,
    }
}

/// Starts the thread that owns the registers; how it ended, once it has.
fn keep(
    keeper: Keeper,
    inbox: mpsc::Receiver<keeper::Claimed>,
) -> oneshot::Receiver<Result<(), DirectoryFailure>> {
    let (end, ended) = oneshot::channel();
    // No thread of tokio's: those are waited for at the end, and a disk may stand still.
    std::thread::spawn(move || {
        // Nobody waits for it any more when the directory was dropped.
        let _ = end.send(keeper.run(inbox));
    });
    ended
}

/// Looks after connections until nobody can bring one any more, or it has to stop, and all have ended.
async fn receive(mut arrivals: mpsc::Receiver<Transport>, office: Arc<Office>) {
    let mut conversations = JoinSet::new();
    let stop = office.stop.clone();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            transport = arrivals.recv() => match transport {
                Some(transport) => {
                    conversations.spawn(Conversation::new(transport, Arc::clone(&office)).run());
                }
                None => break,
            },
            Some(ended) = conversations.join_next(), if !conversations.is_empty() => {
                note_end(ended);
            }
        }
    }
    drop(office);
    while let Some(ended) = conversations.join_next().await {
        note_end(ended);
    }
}

/// A panic costs one connection.
fn note_end(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a connection failed and is closed");
    }
}
