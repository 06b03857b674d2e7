//! Listening: TCP and Unix sockets, and what to do when the system has no more descriptors.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileTypeExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use chatcore::address::Address;
use chatcore::text::HostAddress;
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::connection::Source;
use crate::server::Transport;
use crate::shard::Sink;

/// The first and the longest wait after the system refused a descriptor.
const BACK_OFF_FIRST: Duration = Duration::from_millis(100);
const BACK_OFF_MAX: Duration = Duration::from_secs(1);

/// How often a refused descriptor is worth a line.
const COMPLAINT_INTERVAL: Duration = Duration::from_mins(1);

/// Why a server cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Somebody else listens there.
    #[error(
        "cannot listen on {address}: it is in use, perhaps by another chat-server; \
         choose another with --listen, or port 0 for a free one"
    )]
    InUse {
        /// The address.
        address: Address,
    },
    /// The address is not this machine's alone, and nothing is encrypted.
    #[error(
        "{address} can be reached from other machines and would carry everything unencrypted: \
         add --plaintext to allow it"
    )]
    Exposed {
        /// The address.
        address: Address,
    },
    /// A file that is no socket is in the way.
    #[error("cannot listen on {address}: something else than a socket is there already")]
    NotASocket {
        /// The address.
        address: Address,
    },
    /// The host cannot be found.
    #[error(
        "cannot listen on {address}: no machine of this name is found ({source}); write \
         chat://HOST:PORT, as in chat://127.0.0.1:5000, or unix:/PATH"
    )]
    UnknownHost {
        /// The address.
        address: Address,
        /// Why.
        source: io::Error,
    },
    /// The system says no.
    #[error("cannot listen on {address}: {source}{}", advice(address, source))]
    Io {
        /// The address.
        address: Address,
        /// Why.
        source: io::Error,
    },
}

/// What to do about an error, where the system's own words do not tell.
fn advice(address: &Address, error: &io::Error) -> &'static str {
    use io::ErrorKind::{AddrNotAvailable, InvalidInput, NotFound, PermissionDenied};
    match (address, error.kind()) {
        (Address::Tcp { .. }, AddrNotAvailable) => "; it is no address of this machine",
        (Address::Tcp { port: 1..1024, .. }, PermissionDenied) => {
            "; ports below 1024 are the system's, choose a higher one"
        }
        (Address::Unix(_), NotFound) => "; the folder must exist",
        (Address::Unix(_), InvalidInput) => "; it may have about 100 bytes, choose a shorter one",
        _ => "",
    }
}

/// Whether addresses of other machines' networks may carry unencrypted bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Plaintext {
    /// Only on this machine.
    #[default]
    LoopbackOnly,
    /// Anywhere.
    Anywhere,
}

/// A socket that accepts connections.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: Socket,
    address: Address,
    /// The same for clients to be told; `None` when it is not fit to be shown.
    told: Option<HostAddress>,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    Unix { listener: UnixListener, _file: SocketFile },
}

/// A socket file, removed with its listener.
#[derive(Debug)]
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // It may have been removed already, and then that is what was wanted.
        let _ = fs::remove_file(&self.0);
    }
}

impl Listener {
    pub(crate) async fn bind(address: &Address, plaintext: Plaintext) -> Result<Self, ListenError> {
        match address {
            Address::Tcp { host, port } => bind_tcp(address, host, *port, plaintext).await,
            Address::Unix(path) => bind_unix(address, path.clone()).await,
        }
    }

    fn new(socket: Socket, address: Address) -> Self {
        // A path of a socket file may hold anything; its clients know it anyway.
        let told = address.to_string().parse().ok();
        Self { socket, address, told }
    }

    /// The address it really has: a free port has a number now.
    pub(crate) const fn address(&self) -> &Address {
        &self.address
    }

    /// Accepts until `stop`, whatever happens.
    pub(crate) async fn run(self, accepted: mpsc::Sender<Transport>, stop: CancellationToken) {
        let mut shortage = Shortage::default();
        loop {
            let transport = tokio::select! {
                () = stop.cancelled() => return,
                transport = self.accept() => transport,
            };
            match transport {
                Ok(transport) => {
                    shortage.over();
                    if accepted.send(transport).await.is_err() {
                        return;
                    }
                }
                Err(error) if is_shortage(&error) => {
                    let wait = shortage.wait(&error, &self.address);
                    self.shed(&mut shortage).await;
                    tokio::select! {
                        () = stop.cancelled() => return,
                        () = tokio::time::sleep(wait) => {}
                    }
                }
                // The peer went away before it was accepted: the next one may not have.
                Err(error) => tracing::debug!(address = %self.address, %error, "not accepted"),
            }
        }
    }

    async fn accept(&self) -> io::Result<Transport> {
        match &self.socket {
            Socket::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                // Messages are small and somebody waits for them. A socket that refuses is slower,
                // not wrong.
                let _ = stream.set_nodelay(true);
                let (source, sink) = stream.into_split();
                Ok(self.transport(Box::pin(source), Box::pin(sink)))
            }
            Socket::Unix { listener, .. } => {
                let (stream, _) = listener.accept().await?;
                let (source, sink) = stream.into_split();
                Ok(self.transport(Box::pin(source), Box::pin(sink)))
            }
        }
    }

    fn transport(&self, source: Source, sink: Sink) -> Transport {
        Transport { address: self.told.clone(), source, sink }
    }

    /// Uses the descriptor in reserve to accept one connection and close it, so that whoever
    /// connects is not left hanging.
    async fn shed(&self, shortage: &mut Shortage) {
        if shortage.reserve.take().is_some() {
            let accept = self.accept();
            drop(tokio::time::timeout(Duration::from_millis(1), accept).await);
            shortage.reserve = File::open("/dev/null").ok();
        }
    }
}

async fn bind_tcp(
    address: &Address,
    host: &str,
    port: u16,
    plaintext: Plaintext,
) -> Result<Listener, ListenError> {
    let wrap = |source| ListenError::Io { address: address.clone(), source };
    let unknown = |source| ListenError::UnknownHost { address: address.clone(), source };
    let found: Vec<_> = tokio::net::lookup_host((host, port)).await.map_err(unknown)?.collect();
    let exposed = found.iter().any(|socket| !socket.ip().is_loopback());
    if exposed && plaintext == Plaintext::LoopbackOnly {
        return Err(ListenError::Exposed { address: address.clone() });
    }
    let listener = TcpListener::bind(found.as_slice()).await.map_err(|source| {
        let address = address.clone();
        if source.kind() == io::ErrorKind::AddrInUse {
            ListenError::InUse { address }
        } else {
            ListenError::Io { address, source }
        }
    })?;
    let port = listener.local_addr().map_err(wrap)?.port();
    let address = Address::Tcp { host: host.to_owned(), port };
    Ok(Listener::new(Socket::Tcp(listener), address))
}

async fn bind_unix(address: &Address, path: PathBuf) -> Result<Listener, ListenError> {
    let wrap = |source| ListenError::Io { address: address.clone(), source };
    match fs::symlink_metadata(&path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(ListenError::NotASocket { address: address.clone() });
        }
        // A socket that nobody answers on was left behind by a server that was killed.
        Ok(_) if UnixStream::connect(&path).await.is_err() => {
            fs::remove_file(&path).map_err(wrap)?;
        }
        Ok(_) => return Err(ListenError::InUse { address: address.clone() }),
        Err(_) => {}
    }
    let listener = UnixListener::bind(&path).map_err(wrap)?;
    let socket = Socket::Unix { listener, _file: SocketFile(path) };
    Ok(Listener::new(socket, address.clone()))
}

/// Whether the system, not the peer, is the reason.
fn is_shortage(error: &io::Error) -> bool {
    use rustix::io::Errno;
    error.raw_os_error().is_some_and(|code| {
        [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM]
            .iter()
            .any(|errno| errno.raw_os_error() == code)
    })
}

/// A shortage of descriptors: how long to wait, and when to complain again.
#[derive(Debug)]
struct Shortage {
    /// A descriptor that can be given up in need.
    reserve: Option<File>,
    wait: Duration,
    complained: Option<Instant>,
}

impl Default for Shortage {
    fn default() -> Self {
        let reserve = File::open("/dev/null").ok();
        Self { reserve, wait: BACK_OFF_FIRST, complained: None }
    }
}

impl Shortage {
    fn over(&mut self) {
        self.wait = BACK_OFF_FIRST;
    }

    fn wait(&mut self, error: &io::Error, address: &Address) -> Duration {
        if self.complained.is_none_or(|last| last.elapsed() >= COMPLAINT_INTERVAL) {
            self.complained = Some(Instant::now());
            tracing::error!(%address, %error, "cannot accept more connections, trying again");
        }
        let wait = self.wait;
        self.wait = wait.saturating_mul(2).min(BACK_OFF_MAX);
        wait
    }
}
