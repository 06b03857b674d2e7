//! TLS to a server, and whether its certificate is to be trusted.
//!
//! A certificate of an authority that this machine trusts, or of those that the user names, has to be
//! for the host and in its time. One that nobody vouches for, as a server makes it for itself, is taken
//! the first time; from then on the server has to show a certificate with the same key.

use std::fmt;
use std::io;
use std::path::Path;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chatcore::id::Digest;
use chatcore::wire::CHANNEL_LABEL;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::client::{
    WebPkiServerVerifier, verify_server_cert_signed_by_trust_anchor,
};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::ParsedCertificate;
use tokio_rustls::rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, Error, OtherError,
    RootCertStore, SignatureScheme, version,
};

/// The most that is read of a file of authorities: those of a whole system take a quarter of it.
const CA_BYTES_MAX: u64 = 1 << 20;

/// Why the authorities cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrustError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It holds something else.
    #[error("{} holds no certificates: it must be a PEM file", .0.display())]
    NoCertificates(std::path::PathBuf),
    /// The library cannot be set up.
    #[error("TLS cannot be used: {0}")]
    Tls(#[from] Error),
}

/// The key of a certificate: the SHA-256 of its subject public key info, as in a pin of RFC 7469.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct KeyHash([u8; 32]);

impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for KeyHash {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let bytes = text.strip_prefix("sha256:").and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
        bytes.and_then(|bytes| bytes.try_into().ok()).map(Self).ok_or(())
    }
}

/// The server shows another key than it did.
#[derive(Debug)]
struct OtherKey {
    known: KeyHash,
    shown: KeyHash,
}

impl fmt::Display for OtherKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { known, shown } = self;
        write!(f, "the server's certificate has the key {shown}, not {known} as before")
    }
}

impl std::error::Error for OtherKey {}

/// What is trusted, for connections to one address.
#[derive(Clone, Debug)]
pub struct Trust {
    config: Arc<ClientConfig>,
    verifier: Arc<Verifier>,
}

#[derive(Debug)]
struct Verifier {
    authorities: Arc<dyn ServerCertVerifier>,
    provider: Arc<CryptoProvider>,
    /// The key that is taken though nobody vouches for it.
    pin: Mutex<Pin>,
}

/// What is done with a certificate that nobody vouches for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pin {
    /// It is refused: the user named the authorities.
    Never,
    /// It is taken, and its key kept.
    FirstUse,
    /// It is taken with this key.
    Known(KeyHash),
}

impl Trust {
    /// Trusts the authorities of this machine; and of a certificate that they do not vouch for the
    /// `known` key, or if there is none the first that is shown.
    ///
    /// # Errors
    /// When the library cannot be set up.
    pub fn of_system(known: Option<KeyHash>) -> Result<Self, TrustError> {
        let provider = Arc::new(ring::default_provider());
        // Where there are none, nobody is vouched for.
        let authorities: Arc<dyn ServerCertVerifier> =
            match rustls_platform_verifier::Verifier::new(Arc::clone(&provider)) {
                Ok(verifier) => Arc::new(verifier),
                Err(_) => Arc::new(Nobody),
            };
        Self::new(authorities, provider, known.map_or(Pin::FirstUse, Pin::Known))
    }

    /// Trusts the authorities in a PEM file, and nobody else.
    ///
    /// # Errors
    /// When it cannot be read, or holds none.
    pub fn of_file(path: &Path) -> Result<Self, TrustError> {
        let none = || TrustError::NoCertificates(path.to_owned());
        let bytes =
            read(path).map_err(|source| TrustError::Io { path: path.to_owned(), source })?;
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&bytes) {
            roots.add(certificate.map_err(|_| none())?).map_err(|_| none())?;
        }
        let provider = Arc::new(ring::default_provider());
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        Self::new(verifier.build().map_err(|_| none())?, provider, Pin::Never)
    }

    fn new(
        authorities: Arc<dyn ServerCertVerifier>,
        provider: Arc<CryptoProvider>,
        pin: Pin,
    ) -> Result<Self, TrustError> {
        let pin = Mutex::new(pin);
        let verifier = Arc::new(Verifier { authorities, provider: Arc::clone(&provider), pin });
        let trusted: Arc<dyn ServerCertVerifier> = Arc::<Verifier>::clone(&verifier);
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(trusted)
            .with_no_client_auth();
        Ok(Self { config: Arc::new(config), verifier })
    }

    /// The key of the certificate that is trusted by itself, once one was shown.
    pub fn pinned(&self) -> Option<KeyHash> {
        match *self.verifier.pin.lock().unwrap_or_else(PoisonError::into_inner) {
            Pin::Known(key) => Some(key),
            Pin::Never | Pin::FirstUse => None,
        }
    }

    /// The client's side of a handshake, and what binds a log-in to the connection.
    pub(crate) async fn connect<S>(
        &self,
        stream: S,
        host: &str,
    ) -> io::Result<(TlsStream<S>, Digest)>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        // An interface behind an IPv6 address is this machine's affair.
        let host = host.split_once('%').map_or(host, |(address, _)| address);
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let connector = TlsConnector::from(Arc::clone(&self.config));
        let stream = connector.connect(name, stream).await?;
        let exporter = [0; Digest::LEN];
        let (_, session) = stream.get_ref();
        let channel = session.export_keying_material(exporter, CHANNEL_LABEL, Some(&[]));
        let channel = channel.map(Digest::new).map_err(io::Error::other)?;
        Ok((stream, channel))
    }
}

impl Verifier {
    /// Of a certificate that no authority vouches for, the key and the time are what counts.
    fn verify_by_itself(
        &self,
        certificate: &CertificateDer<'_>,
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let parsed = ParsedCertificate::try_from(certificate)?;
        let key = parsed.subject_public_key_info();
        let digest = ::ring::digest::digest(&::ring::digest::SHA256, key.as_ref());
        let shown = digest.as_ref().try_into().expect("SHA-256 gives 32 bytes");
        let shown = KeyHash(shown);
        self.verify_time(certificate, &parsed, now)?;
        let mut pin = self.pin.lock().unwrap_or_else(PoisonError::into_inner);
        match *pin {
            Pin::Never => Err(CertificateError::UnknownIssuer.into()),
            Pin::Known(known) if known != shown => {
                let other = OtherError(Arc::new(OtherKey { known, shown }));
                Err(CertificateError::Other(other).into())
            }
            Pin::Known(_) | Pin::FirstUse => {
                *pin = Pin::Known(shown);
                Ok(ServerCertVerified::assertion())
            }
        }
    }

    fn verify_time(
        &self,
        certificate: &CertificateDer<'_>,
        parsed: &ParsedCertificate<'_>,
        now: UnixTime,
    ) -> Result<(), Error> {
        let mut itself = RootCertStore::empty();
        itself.add(certificate.clone().into_owned())?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        let verified =
            verify_server_cert_signed_by_trust_anchor(parsed, &itself, &[], now, algorithms);
        match verified {
            Err(Error::InvalidCertificate(fault)) if is_of_time(&fault) => Err(fault.into()),
            // What else may be odd about it, as that it calls itself an authority, is no matter.
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

const fn is_of_time(fault: &CertificateError) -> bool {
    matches!(
        fault,
        CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. }
    )
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = self.authorities.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        );
        match verified {
            Err(Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
                self.verify_by_itself(end_entity, now)
            }
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        tokio_rustls::rustls::crypto::verify_tls12_signature(
            message,
            certificate,
            signed,
            algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        tokio_rustls::rustls::crypto::verify_tls13_signature(
            message,
            certificate,
            signed,
            algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// The authorities of a machine that has none.
#[derive(Debug)]
struct Nobody;

impl ServerCertVerifier for Nobody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Err(CertificateError::UnknownIssuer.into())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(CertificateError::UnknownIssuer.into())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(CertificateError::UnknownIssuer.into())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        Vec::new()
    }
}

/// Why a handshake failed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The certificate is not to be trusted, and trying again would change nothing.
    Certificate(String),
    /// Anything else, for people.
    Other(String),
}

/// What a failed handshake means; `None` when TLS is not the reason.
#[expect(clippy::wildcard_enum_match_arm, reason = "the library says the rest well enough")]
pub(crate) fn fault_of(error: &io::Error) -> Option<Fault> {
    let error = error.get_ref()?.downcast_ref::<Error>()?;
    Some(match error {
        Error::InvalidCertificate(fault) => Fault::Certificate(of_certificate(fault)),
        Error::AlertReceived(AlertDescription::HandshakeFailure) | Error::InvalidMessage(_) => {
            Fault::Other("there is no TLS at this address: try chat:// in place of chats://".into())
        }
        Error::PeerIncompatible(_) | Error::AlertReceived(AlertDescription::ProtocolVersion) => {
            Fault::Other("the server speaks only older versions of TLS than 1.3".into())
        }
        other => Fault::Other(other.to_string()),
    })
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the library says the rest well enough")]
fn of_certificate(fault: &CertificateError) -> String {
    match fault {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "the server's certificate has expired".into()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "the server's certificate is not valid yet; is this machine's clock right?".into()
        }
        CertificateError::NotValidForName => "the server's certificate is for another host".into(),
        CertificateError::NotValidForNameContext { expected, presented } => format!(
            "the server's certificate is not for {}, but for {}",
            expected.to_str(),
            presented.join(", ")
        ),
        CertificateError::UnknownIssuer => {
            "the server's certificate is not signed by an authority of --tls-ca".into()
        }
        CertificateError::Other(other) => {
            format!("{other}; if that is as it should be, --accept-new-key takes it")
        }
        other => format!("the server's certificate cannot be trusted: {other}"),
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    use std::io::Read as _;

    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(CA_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}
