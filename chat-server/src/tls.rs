//! TLS: what the server shows to those who connect by `chats://`.
//!
//! TLS 1.3 alone, by rustls. Whoever wants certificates of an authority names their files; whoever has
//! none lets the server make one, which clients pin by its key when they first meet it. That key stays
//! in the server's folder, so that a new certificate for it, as for another name, is the same server to
//! them.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use ::ring::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chatcore::address::Address;
use chatcore::id::Digest;
use rcgen::{CertificateParams, DnType, KeyPair, SanType};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::server::{Acceptor, ParsedCertificate};
use tokio_rustls::rustls::{self, HandshakeKind, ServerConfig, version};
use tokio_rustls::server::TlsStream;
use tokio_rustls::{Accept, LazyConfigAcceptor, StartHandshake};

use crate::anybody;
use crate::crew::{Crew, Line};
use crate::key::make_secret;

/// The file of the key that goes with certificates that the server makes itself.
pub(crate) const TLS_KEY: &str = "tls.key";

/// The most that is read of a file: chains of certificates take some kilobytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Bytes that a connection may hold encrypted and unsent, beside what its socket takes.
const BUFFER_BYTES: usize = 16 << 10;

/// Handshakes that may wait for a core or be under way: what two cores do in about a tenth of a second
/// with the usual keys, and in three seconds with an RSA key of 4096 bits.
///
/// A connection takes part from its whole hello on, until its answer is made; what is waited for before
/// and after bounds nobody but itself, by its place at the door and `login_time`. The exception is
/// [`REPEATED_MAX`].
const HANDSHAKES_MAX: usize = 1_024;

/// Handshakes at once whose client has to say hello again, as it offered no key that is understood. The
/// second hello is answered without the crew, on a thread of tokio's. Clients guess right, so that this
/// is rare; who finds no place is turned away as by [`HANDSHAKES_MAX`].
const REPEATED_MAX: usize = 64;

/// How long such a place is kept for a client that has to say hello again.
const REPEATED_TIME: Duration = Duration::from_secs(2);

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read, or the key cannot be made.
    #[error("cannot use {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is no chain of certificates.
    #[error(
        "{} holds no certificate: it must be a PEM file with the server's certificate first, then \
         those of the authorities between",
        .0.display()
    )]
    NoCertificate(PathBuf),
    /// The file is no private key.
    #[error("{} holds no private key: it must be a PEM file with one", .0.display())]
    NoKey(PathBuf),
    /// Everybody on this machine may read the key.
    #[error(
        "the key {} can be read or written by others (mode {mode:o}): run chmod 600 on it",
        path.display()
    )]
    Open {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// Certificate and key do not go together, or cannot be used.
    #[error("the certificate {} and the key {} cannot be used together: {source}", certificate.display(), key.display())]
    Unusable {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// No certificate can be made for the key.
    #[error("cannot make a certificate for {}: {source}", path.display())]
    Unmade {
        /// The key's file.
        path: PathBuf,
        /// Why.
        source: rcgen::Error,
    },
}

/// The certificate that a server shows, and its key. A clone shows the same, also after
/// [`Tls::read_again`].
#[derive(Clone, Debug)]
pub struct Tls {
    /// Where it was read; `None` when the server made it itself.
    files: Option<Arc<Files>>,
    shown: Arc<RwLock<Shown>>,
}

#[derive(Debug)]
struct Files {
    certificate: PathBuf,
    key: PathBuf,
}

/// What is shown to those who connect now.
#[derive(Clone, Debug)]
struct Shown {
    config: Arc<ServerConfig>,
    key_hash: String,
}

impl Tls {
    /// Reads a chain of certificates, the server's own first, and its private key, from PEM files.
    ///
    /// # Errors
    /// When a file cannot be read or is something else, when others than its owner and group may read
    /// the key, or when the two do not go together.
    pub fn from_files(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let files = Files { certificate: certificate.to_owned(), key: key.to_owned() };
        let shown = files.read()?;
        Ok(Self::new(Some(files), shown))
    }

    /// Makes a certificate for this machine and for the hosts of `listen`, signed by its own key. The
    /// key is made on first use and kept in `folder`, which has to be there.
    ///
    /// # Errors
    /// When the key cannot be made or read, or others may read it.
    pub fn self_signed(folder: &Path, listen: &[Address]) -> Result<Self, TlsError> {
        let path = folder.join(TLS_KEY);
        let at = |source| TlsError::Io { path: path.clone(), source };
        let unmade = |source| TlsError::Unmade { path: path.clone(), source };
        if !path.try_exists().map_err(at)? {
            let made = KeyPair::generate().map_err(unmade)?;
            make_secret(folder, TLS_KEY, made.serialize_pem().as_bytes()).map_err(at)?;
        }
        check_mode(&path)?;
        let text = String::from_utf8(read(&path)?).map_err(|_| TlsError::NoKey(path.clone()))?;
        let pair = KeyPair::from_pem(&text).map_err(|_| TlsError::NoKey(path.clone()))?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "chat-server");
        params.subject_alt_names = names_of(listen);
        let certificate = params.self_signed(&pair).map_err(unmade)?;
        let secret = PrivatePkcs8KeyDer::from(pair.serialize_der()).into();
        let shown = Shown::new(vec![certificate.der().clone()], secret, &path, &path)?;
        Ok(Self::new(None, shown))
    }

    fn new(files: Option<Files>, shown: Shown) -> Self {
        Self { files: files.map(Arc::new), shown: Arc::new(RwLock::new(shown)) }
    }

    /// Reads the files again. Connections from now on are shown what they hold; those that there are
    /// stay as they are. A certificate that the server made itself stays, too.
    ///
    /// # Errors
    /// As for [`Tls::from_files`]; what was shown before is then shown further on.
    pub fn read_again(&self) -> Result<(), TlsError> {
        if let Some(files) = &self.files {
            let shown = files.read()?;
            *self.shown.write().unwrap_or_else(PoisonError::into_inner) = shown;
        }
        Ok(())
    }

    /// The certificate's key, as clients tell it: `sha256:` and the SHA-256 of its subject public key
    /// info (RFC 7469) in base64url.
    pub fn key_hash(&self) -> String {
        self.shown().key_hash
    }

    fn shown(&self) -> Shown {
        self.shown.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The server's side of a handshake. The peer's hello and its last word are waited for; what costs
    /// time in between, agreeing on a secret and signing it, is done by the crew.
    pub(crate) async fn accept<S>(
        &self,
        stream: S,
        handshakes: &Handshakes,
    ) -> Result<TlsStream<S>, Unanswered>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let hello = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
        let turn = handshakes.line.join().map_err(|_| Unanswered::Busy)?;
        let config = self.shown().config;
        let answered = turn.work(move || answer(hello, config)).await;
        let (accept, is_repeated) = answered.map_err(io::Error::other)?;
        if !is_repeated {
            return Ok(accept.await?);
        }
        let _place = handshakes.repeated.try_acquire().map_err(|_| Unanswered::Busy)?;
        let late = |_| io::Error::new(io::ErrorKind::TimedOut, "no second hello came in time");
        Ok(tokio::time::timeout(REPEATED_TIME, accept).await.map_err(late)??)
    }
}

impl Files {
    fn read(&self) -> Result<Shown, TlsError> {
        let Self { certificate, key } = self;
        let chain: Result<Vec<_>, _> =
            CertificateDer::pem_slice_iter(&read(certificate)?).collect();
        let none = || TlsError::NoCertificate(certificate.clone());
        let chain = chain.map_err(|_| none())?;
        if chain.is_empty() {
            return Err(none());
        }
        check_mode(key)?;
        let secret =
            PrivateKeyDer::from_pem_slice(&read(key)?).map_err(|_| TlsError::NoKey(key.clone()))?;
        Shown::new(chain, secret, certificate, key)
    }
}

impl Shown {
    fn new(
        chain: Vec<CertificateDer<'static>>,
        secret: PrivateKeyDer<'static>,
        certificate: &Path,
        key: &Path,
    ) -> Result<Self, TlsError> {
        let unusable = |source| TlsError::Unusable {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
            source,
        };
        let first = chain.first().cloned();
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&version::TLS13])
            .map_err(unusable)?
            .with_no_client_auth()
            .with_single_cert(chain, secret)
            .map_err(unusable)?;
        let key_hash = first.map_or_else(String::new, |first| key_hash(&first));
        // A chat connects seldom and stays: what a resumed session saves is not worth its memory.
        config.send_tls13_tickets = 0;
        Ok(Self { config: Arc::new(config), key_hash })
    }
}

/// The bounds on what handshakes cost, for all doors of a server.
#[derive(Debug)]
pub(crate) struct Handshakes {
    line: Line,
    /// See [`REPEATED_MAX`].
    repeated: Semaphore,
}

impl Handshakes {
    pub(crate) fn new(crew: &Crew) -> Self {
        Self { line: crew.line(HANDSHAKES_MAX), repeated: Semaphore::new(REPEATED_MAX) }
    }
}

/// Why a handshake came to nothing.
#[derive(Debug)]
pub(crate) enum Unanswered {
    /// There are too many. Nothing was answered: there is no cheap way to say so by TLS.
    Busy,
    /// The peer broke it off, or said what cannot be understood.
    Broken(io::Error),
}

impl From<io::Error> for Unanswered {
    fn from(error: io::Error) -> Self {
        Self::Broken(error)
    }
}

/// Makes the answer to a hello, which is the heavy part of a handshake; and whether it is that the
/// client has to say hello again.
fn answer<S>(hello: StartHandshake<S>, config: Arc<ServerConfig>) -> (Accept<S>, bool)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut is_repeated = false;
    let accept = hello.into_stream_with(config, |session| {
        session.set_buffer_limit(Some(BUFFER_BYTES));
        is_repeated = session.handshake_kind() == Some(HandshakeKind::FullWithHelloRetryRequest);
    });
    (accept, is_repeated)
}

fn key_hash(certificate: &CertificateDer<'_>) -> String {
    let Ok(parsed) = ParsedCertificate::try_from(certificate) else { return String::new() };
    let digest = digest(&SHA256, parsed.subject_public_key_info().as_ref());
    format!("sha256:{}", URL_SAFE_NO_PAD.encode(digest))
}

/// What binds a log-in to this one connection: `tls-exporter` of RFC 9266.
pub(crate) fn channel_of<S>(stream: &TlsStream<S>) -> Result<Digest, rustls::Error> {
    let exporter = [0; Digest::LEN];
    let label = chatcore::wire::CHANNEL_LABEL;
    stream.get_ref().1.export_keying_material(exporter, label, Some(&[])).map(Digest::new)
}

/// The client's side, and what binds an order to the connection.
pub(crate) async fn connect<S>(
    stream: S,
    host: &str,
) -> io::Result<(tokio_rustls::client::TlsStream<S>, Digest)>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let stream = anybody::connect(stream, host).await?;
    let exporter = [0; Digest::LEN];
    let label = chatcore::wire::CHANNEL_LABEL;
    let channel = stream.get_ref().1.export_keying_material(exporter, label, Some(&[]));
    let channel = channel.map(Digest::new).map_err(io::Error::other)?;
    Ok((stream, channel))
}

/// Names and addresses that a certificate is for.
fn names_of(listen: &[Address]) -> Vec<SanType> {
    let machine = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let hosts = listen.iter().filter_map(Address::host).map(str::to_owned);
    let always = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
    let mut names: Vec<SanType> = Vec::new();
    for host in always.into_iter().chain([machine]).chain(hosts) {
        let name = match host.parse::<IpAddr>() {
            // Nobody connects to "any address".
            Ok(address) if address.is_unspecified() => None,
            Ok(address) => Some(SanType::IpAddress(address)),
            // A name that no certificate can hold is left out.
            Err(_) => host.try_into().ok().map(SanType::DnsName),
        };
        names.extend(name.filter(|name| !names.contains(name)));
    }
    names
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let at = |source| TlsError::Io { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    File::open(path).map_err(at)?.take(FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(at)?;
    Ok(bytes)
}

/// The owner's group may read a key: that is how systems share one between the programs of a machine.
fn check_mode(path: &Path) -> Result<(), TlsError> {
    let at = |source| TlsError::Io { path: path.to_owned(), source };
    let mode = fs::metadata(path).map_err(at)?.permissions().mode() & 0o777;
    if mode & 0o027 == 0 { Ok(()) } else { Err(TlsError::Open { path: path.to_owned(), mode }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroUsize;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    #[tokio::test]
    async fn c9_handshake_that_finds_no_place_is_closed_without_an_answer_and_the_next_is_done() {
        let folder = tempfile::tempdir().unwrap();
        let tls = Tls::self_signed(folder.path(), &[]).unwrap();
        let handshakes = Handshakes::new(&Crew::new(NonZeroUsize::MIN));
        let turns: Vec<_> = (0..HANDSHAKES_MAX).map(|_| handshakes.line.join().unwrap()).collect();
        let (near, far) = tokio::io::duplex(4 << 10);
        let (accepted, connected) =
            tokio::join!(tls.accept(far, &handshakes), connect(near, "localhost"));
        assert!(matches!(accepted, Err(Unanswered::Busy)));
        let ended = connected.unwrap_err();
        assert_eq!(ended.kind(), io::ErrorKind::UnexpectedEof, "{ended}");
        drop(turns);
        let (near, far) = tokio::io::duplex(4 << 10);
        let (accepted, connected) =
            tokio::join!(tls.accept(far, &handshakes), connect(near, "localhost"));
        let (mut accepted, (mut connected, _)) = (accepted.unwrap(), connected.unwrap());
        let said = async {
            accepted.write_all(b"x").await.unwrap();
            accepted.flush().await.unwrap();
        };
        assert_eq!(tokio::join!(said, connected.read_u8()).1.unwrap(), b'x');
    }
}
