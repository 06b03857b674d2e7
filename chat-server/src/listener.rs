//! Listening: TCP and Unix sockets, and what to do when the system has no more descriptors.

use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use chatcore::address::Address;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixSocket, UnixStream};
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::admin;
use crate::door::{Door, House};
use crate::http;
use crate::metrics::Refused;
use crate::tls::Tls;

/// The first and the longest wait after the system refused a descriptor.
const BACK_OFF_FIRST: Duration = Duration::from_millis(100);
const BACK_OFF_MAX: Duration = Duration::from_secs(1);

/// Requests of those who run the server that are answered at once, and how long each may take.
const ADMINS_MAX: usize = 16;
const ADMIN_TIME: Duration = Duration::from_secs(10);

/// Those that wait for the others in the system's queue.
const ADMIN_QUEUE: u32 = 128;

/// Connections that the system keeps until the chat accepts them, or fewer if it says so
/// (`net.core.somaxconn`). Who comes beyond that waits a second and more for its packet to be sent again:
/// thousands do when a server is back.
const QUEUE: u32 = 4_096;

/// How long one may take that is under way when the server stops: it may be the one that asked for it.
const LAST_ADMIN_TIME: Duration = Duration::from_secs(1);

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
        "{address} can be reached from other machines and would carry everything unencrypted: add \
         --tls-cert and --tls-key, or --tls-self-signed, or --plaintext to allow it"
    )]
    Exposed {
        /// The address.
        address: Address,
    },
    /// The address for those who run the server is not this machine's alone.
    #[error(
        "{address} can be reached from other machines: metrics are told and calls taken on a Unix socket \
         or on this machine alone, as --admin unix:/PATH or --admin 127.0.0.1:9464"
    )]
    AdminExposed {
        /// The address.
        address: Address,
    },
    /// The address for those who run the server is to be encrypted.
    #[error(
        "{address}: metrics are told and calls taken unencrypted, on this machine alone: as --admin \
         unix:/PATH or --admin 127.0.0.1:9464"
    )]
    AdminEncrypted {
        /// The address.
        address: Address,
    },
    /// It is to be encrypted, and there is no certificate.
    #[error(
        "{address} needs a certificate: name one by --tls-cert and --tls-key, or let the server make \
         one by --tls-self-signed"
    )]
    NoCertificate {
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
        (Address::Tcp { .. } | Address::Tls { .. }, AddrNotAvailable) => {
            "; it is no address of this machine"
        }
        (
            Address::Tcp { port: 1..1024, .. } | Address::Tls { port: 1..1024, .. },
            PermissionDenied,
        ) => "; ports below 1024 are the system's, choose a higher one",
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
    /// Whether frames may come unencrypted.
    takes_plain: bool,
    tls: Option<Tls>,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    Unix { listener: UnixListener, _file: SocketFile },
}

/// A connection that was accepted.
enum Accepted {
    Tcp(TcpStream, IpAddr),
    Unix(UnixStream),
}

/// A socket file, removed with its listener.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    /// The device and the inode.
    id: (u64, u64),
}

impl SocketFile {
    fn new(path: PathBuf) -> io::Result<Self> {
        let id = file_id(&path)?;
        Ok(Self { path, id })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Somebody else may have put their own in its place, which is not ours to remove.
        if file_id(&self.path).is_ok_and(|id| id == self.id) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn file_id(path: &Path) -> io::Result<(u64, u64)> {
    let found = fs::symlink_metadata(path)?;
    Ok((found.dev(), found.ino()))
}

impl Listener {
    pub(crate) async fn bind(
        address: &Address,
        plaintext: Plaintext,
        tls: Option<&Tls>,
    ) -> Result<Self, ListenError> {
        match address {
            Address::Tcp { host, port } | Address::Tls { host, port } => {
                bind_tcp(address, (host, *port), plaintext, tls).await
            }
            Address::Unix(path) => bind_unix(address, path.clone(), listen_unix).await,
        }
    }

    /// A socket for those who run the server.
    pub(crate) async fn bind_admin(address: &Address) -> Result<Self, ListenError> {
        if let Address::Unix(path) = address {
            return bind_unix(address, path.clone(), private_socket).await;
        }
        match Self::bind(address, Plaintext::LoopbackOnly, None).await {
            Err(ListenError::Exposed { address }) => Err(ListenError::AdminExposed { address }),
            Err(ListenError::NoCertificate { address }) => {
                Err(ListenError::AdminEncrypted { address })
            }
            Ok(listener) => Ok(listener),
            Err(error) => Err(error),
        }
    }

    /// The address it really has: a free port has a number now.
    pub(crate) const fn address(&self) -> &Address {
        &self.address
    }

    /// Accepts until `stop`, whatever happens.
    pub(crate) async fn run(self, house: Arc<House>, stop: CancellationToken) {
        let door = Arc::new(Door {
            house,
            // A path of a socket file may hold anything; its clients know it anyway.
            address: self.address.to_string().parse().ok(),
            takes_plain: self.takes_plain,
            tls: self.tls.clone(),
        });
        let (mut shortage, mut callers) = (Shortage::default(), JoinSet::new());
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => return,
                Some(ended) = callers.join_next(), if !callers.is_empty() => {
                    note_end(ended);
                    continue;
                }
                accepted = self.accept() => accepted,
            };
            match accepted {
                Ok(accepted) => {
                    shortage.over();
                    receive(&door, accepted, &mut callers);
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

    /// Answers requests for `pages` until `stop`, some at a time; the rest wait in the system's queue.
    pub(crate) async fn run_admin(self, pages: Router, stop: CancellationToken) {
        let (mut shortage, mut callers) = (Shortage::default(), JoinSet::new());
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                Some(ended) = callers.join_next(), if !callers.is_empty() => {
                    note_end(ended);
                    continue;
                }
                accepted = self.accept(), if callers.len() < ADMINS_MAX => accepted,
            };
            match accepted {
                Ok(Accepted::Tcp(stream, _)) => {
                    callers.spawn(answer_admin(stream, pages.clone()));
                }
                Ok(Accepted::Unix(stream)) if admin::is_ours(&stream) => {
                    callers.spawn(answer_admin(stream, pages.clone()));
                }
                Ok(Accepted::Unix(_)) => {}
                Err(error) => {
                    let wait = shortage.wait(&error, &self.address);
                    callers.spawn(tokio::time::sleep(wait));
                }
            }
        }
        drop(self);
        let last = async {
            while let Some(ended) = callers.join_next().await {
                note_end(ended);
            }
        };
        // Who is not answered by then has said nothing yet, or waits for a store that stands still.
        let _ = tokio::time::timeout(LAST_ADMIN_TIME, last).await;
    }

    async fn accept(&self) -> io::Result<Accepted> {
        Ok(match &self.socket {
            Socket::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                // Messages are small and somebody waits for them. A socket that refuses is slower,
                // not wrong.
                let _ = stream.set_nodelay(true);
                Accepted::Tcp(stream, peer.ip())
            }
            Socket::Unix { listener, .. } => Accepted::Unix(listener.accept().await?.0),
        })
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

/// Answers one request, in bounded time.
async fn answer_admin<S>(stream: S, pages: Router)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    // Who breaks off, or is too slow, may ask again.
    let _ = tokio::time::timeout(ADMIN_TIME, http::serve(stream, pages)).await;
}

/// Lets a connection in, if there are not too many from where it comes.
fn receive(door: &Arc<Door>, accepted: Accepted, callers: &mut JoinSet<()>) {
    let door = Arc::clone(door);
    match accepted {
        Accepted::Tcp(stream, ip) => {
            let Ok(visit) = door.house.addresses.visit(ip, Instant::now()) else {
                door.house.metrics.refused(Refused::Address);
                return tracing::debug!(%ip, "too many connections from one address");
            };
            let (source, sink) = stream.into_split();
            callers.spawn(door.receive(source, sink, visit));
        }
        Accepted::Unix(stream) => {
            let (source, sink) = stream.into_split();
            callers.spawn(door.receive(source, sink, None));
        }
    }
}

/// A panic at the door costs one connection.
fn note_end(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a connection failed at the door and is closed");
    }
}

async fn bind_tcp(
    address: &Address,
    (host, port): (&str, u16),
    plaintext: Plaintext,
    tls: Option<&Tls>,
) -> Result<Listener, ListenError> {
    let address = || address.clone();
    let wrap = |source| ListenError::Io { address: address(), source };
    let unknown = |source| ListenError::UnknownHost { address: address(), source };
    let found: Vec<_> = tokio::net::lookup_host((host, port)).await.map_err(unknown)?.collect();
    let is_local = found.iter().all(|socket| socket.ip().is_loopback());
    let wants_tls = matches!(address(), Address::Tls { .. });
    let takes_plain = !wants_tls && (is_local || plaintext == Plaintext::Anywhere);
    if !takes_plain && tls.is_none() {
        let address = address();
        return Err(if wants_tls {
            ListenError::NoCertificate { address }
        } else {
            ListenError::Exposed { address }
        });
    }
    let listener = listen_tcp(&found).map_err(|source| {
        if source.kind() == io::ErrorKind::AddrInUse {
            ListenError::InUse { address: address() }
        } else {
            wrap(source)
        }
    })?;
    let (host, port) = (host.to_owned(), listener.local_addr().map_err(wrap)?.port());
    // As clients have to write it.
    let address =
        if takes_plain { Address::Tcp { host, port } } else { Address::Tls { host, port } };
    Ok(Listener { socket: Socket::Tcp(listener), address, takes_plain, tls: tls.cloned() })
}

/// Listens on the first of these addresses that can be had.
fn listen_tcp(addresses: &[SocketAddr]) -> io::Result<TcpListener> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in addresses {
        match listen_on(*address) {
            Ok(listener) => return Ok(listener),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn listen_on(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Else a server that starts again would have to wait for connections of the one before to time out.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(QUEUE)
}

fn listen_unix(path: &Path) -> io::Result<UnixListener> {
    let socket = UnixSocket::new_stream()?;
    socket.bind(path)?;
    socket.listen(QUEUE)
}

/// A socket file that nobody but its owner can connect to, from its first moment on.
fn private_socket(path: &Path) -> io::Result<UnixListener> {
    let socket = UnixSocket::new_stream()?;
    // Where this cannot be said before, who is not the owner is let connect for a moment, and then
    // closed: see `admin::is_ours`.
    let _ = make_private(&socket);
    socket.bind(path)?;
    fs::set_permissions(path, owner_alone())?;
    socket.listen(ADMIN_QUEUE)
}

/// On Linux the file of a socket gets the mode that the socket had before.
fn make_private(socket: &UnixSocket) -> io::Result<()> {
    File::from(socket.as_fd().try_clone_to_owned()?).set_permissions(owner_alone())
}

fn owner_alone() -> fs::Permissions {
    fs::Permissions::from_mode(0o600)
}

async fn bind_unix(
    address: &Address,
    path: PathBuf,
    listen: impl FnOnce(&Path) -> io::Result<UnixListener>,
) -> Result<Listener, ListenError> {
    let wrap = |source| ListenError::Io { address: address.clone(), source };
    match fs::symlink_metadata(&path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(ListenError::NotASocket { address: address.clone() });
        }
        Ok(_) => match UnixStream::connect(&path).await.map_err(|error| (error.kind(), error)) {
            // A socket that nobody listens on was left behind by a server that was killed.
            Err((io::ErrorKind::ConnectionRefused, _)) => fs::remove_file(&path).map_err(wrap)?,
            Err((io::ErrorKind::NotFound, _)) => {}
            // A queue that is full is somebody's, too.
            Ok(_) | Err((io::ErrorKind::WouldBlock, _)) => {
                return Err(ListenError::InUse { address: address.clone() });
            }
            Err((_, error)) => return Err(wrap(error)),
        },
        Err(_) => {}
    }
    let listener = listen(&path).map_err(wrap)?;
    let file = SocketFile::new(path).map_err(wrap)?;
    let socket = Socket::Unix { listener, _file: file };
    Ok(Listener { socket, address: address.clone(), takes_plain: true, tls: None })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn i8_file_of_an_admin_socket_is_never_open_to_others() {
        let folder = tempfile::tempdir().unwrap();
        let mode_of = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let path = folder.path().join("before");
        let socket = UnixSocket::new_stream().unwrap();
        make_private(&socket).unwrap();
        socket.bind(&path).unwrap();
        assert_eq!(mode_of(&path), 0o600, "already before anybody can connect");
        let path = folder.path().join("whole");
        let _listener = private_socket(&path).unwrap();
        assert_eq!(mode_of(&path), 0o600);
    }
}
