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
use std::sync::Arc;

use ::ring::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chatcore::address::Address;
use chatcore::id::Digest;
use rcgen::{CertificateParams, DnType, KeyPair, SanType};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::crypto::{
    WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature,
};
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime,
};
use tokio_rustls::rustls::server::ParsedCertificate;
use tokio_rustls::rustls::{
    self, ClientConfig, DigitallySignedStruct, ServerConfig, SignatureScheme, version,
};
use tokio_rustls::server::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::key::make_secret;

/// The file of the key that goes with certificates that the server makes itself.
pub(crate) const TLS_KEY: &str = "tls.key";

/// The most that is read of a file: chains of certificates take some kilobytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Bytes that a connection may hold encrypted and unsent, beside what its socket takes.
const BUFFER_BYTES: usize = 16 << 10;

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

/// The certificate that a server shows, and its key.
#[derive(Clone, Debug)]
pub struct Tls {
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
        let chain: Result<Vec<_>, _> =
            CertificateDer::pem_slice_iter(&read(certificate)?).collect();
        let none = || TlsError::NoCertificate(certificate.to_owned());
        let chain = chain.map_err(|_| none())?;
        if chain.is_empty() {
            return Err(none());
        }
        check_mode(key)?;
        let secret = PrivateKeyDer::from_pem_slice(&read(key)?)
            .map_err(|_| TlsError::NoKey(key.to_owned()))?;
        Self::new(chain, secret, certificate, key)
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
        Self::new(vec![certificate.der().clone()], secret, &path, &path)
    }

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

    /// The certificate's key, as clients tell it: `sha256:` and the SHA-256 of its subject public key
    /// info (RFC 7469) in base64url.
    pub fn key_hash(&self) -> &str {
        &self.key_hash
    }

    /// The server's side of a handshake.
    pub(crate) async fn accept<S>(&self, stream: S) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let acceptor = TlsAcceptor::from(Arc::clone(&self.config));
        acceptor.accept_with(stream, |session| session.set_buffer_limit(Some(BUFFER_BYTES))).await
    }
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

/// The client's side, for who proves who they are to a server whose key they know, as by an order. It
/// checks no certificate: an order holds for one server's key and one connection, so that whoever
/// stands between can pass none on.
pub(crate) async fn connect<S>(
    stream: S,
    host: &str,
) -> io::Result<(tokio_rustls::client::TlsStream<S>, Digest)>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let provider = Arc::new(ring::default_provider());
    let any = AnyCertificate(provider.signature_verification_algorithms);
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&version::TLS13])
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(any))
        .with_no_client_auth();
    // An interface behind an IPv6 address is this machine's affair.
    let host = host.split_once('%').map_or(host, |(address, _)| address);
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    let exporter = [0; Digest::LEN];
    let label = chatcore::wire::CHANNEL_LABEL;
    let channel = stream.get_ref().1.export_keying_material(exporter, label, Some(&[]));
    let channel = channel.map(Digest::new).map_err(io::Error::other)?;
    Ok((stream, channel))
}

/// Takes any certificate whose key the server has.
#[derive(Debug)]
struct AnyCertificate(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
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
