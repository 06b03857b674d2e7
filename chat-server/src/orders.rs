//! Giving orders to a running server: the other end of a connection.
//!
//! Whoever gives one is no user: the server learns of no name and opens no session. The right is proved
//! by the server's own key, or by that of a user who is an operator.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chatcore::address::Address;
use chatcore::codec::{FrameBuffer, decode, encode_to_bytes};
use chatcore::id::{Digest, Nonce, PublicKey, Signature};
use chatcore::wire::{
    ClientFrame, Operate, OperateProof, Order, Refusal, ServerFrame, ServerHello, ServerProof,
    Status,
};
use ed25519_dalek::{Signer as _, SigningKey};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use crate::dial::{Stream, dial};
use crate::key::{KeyError, read_seed};
use crate::verify::is_valid;

/// How long a connection may take to be made, and then each answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// The most that is read of an identity: a key takes 43 characters and a newline.
const IDENTITY_BYTES_MAX: u64 = 128;

/// A key that proves the right to give orders.
pub struct OrderKey {
    signing: SigningKey,
    whose: Whose,
}

/// Whose key it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    Server,
    Operator,
}

impl fmt::Debug for OrderKey {
    /// The public half alone.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let public = self.public();
        f.debug_struct("OrderKey").field("public", &public).finish_non_exhaustive()
    }
}

/// Why an operator's key cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The file cannot be read.
    #[error("cannot read the identity {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others may read the file.
    #[error("the identity {} can be read by others: run chmod 600 on it", .0.display())]
    Open(PathBuf),
    /// The file holds no key.
    #[error("{} is no identity: it must hold 32 bytes in base64url", .0.display())]
    Malformed(PathBuf),
}

impl OrderKey {
    /// The key of the server whose folder this is.
    ///
    /// # Errors
    /// When the file is not there, cannot be used, or is damaged or open to others.
    pub fn of_server(folder: &Path) -> Result<Self, KeyError> {
        let signing = SigningKey::from_bytes(&read_seed(folder)?);
        Ok(Self { signing, whose: Whose::Server })
    }

    /// The key of a user, as `chat-client --identity` keeps it. A client may be using it.
    ///
    /// # Errors
    /// When the file cannot be read, is open to others, or holds no key.
    pub fn of_identity(path: &Path) -> Result<Self, IdentityError> {
        let at = |source| IdentityError::Io { path: path.to_owned(), source };
        let file = File::open(path).map_err(at)?;
        if file.metadata().map_err(at)?.permissions().mode() & 0o077 != 0 {
            return Err(IdentityError::Open(path.to_owned()));
        }
        let mut text = Vec::new();
        file.take(IDENTITY_BYTES_MAX).read_to_end(&mut text).map_err(at)?;
        let bytes = URL_SAFE_NO_PAD.decode(text.trim_ascii()).ok();
        let seed: Option<[u8; 32]> = bytes.and_then(|bytes| bytes.try_into().ok());
        let seed = seed.ok_or_else(|| IdentityError::Malformed(path.to_owned()))?;
        Ok(Self { signing: SigningKey::from_bytes(&seed), whose: Whose::Operator })
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        PublicKey::new(self.signing.verifying_key().to_bytes())
    }

    fn sign(&self, hello: &ServerHello, channel: Option<Digest>, order: Order) -> Operate {
        let proof = OperateProof {
            nonce: hello.nonce,
            server_key: hello.server_key,
            log_id: hello.log_id,
            generation: hello.generation,
            channel,
            order,
        };
        let signature = Signature::new(self.signing.sign(&proof.to_bytes()).to_bytes());
        Operate { key: self.public(), order, signature }
    }
}

/// Why an order was not carried out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OrderError {
    /// There is no connection to be had.
    #[error("no server can be reached at {address}: {source}; name another address with --server")]
    Unreachable {
        /// Where it was looked for.
        address: Address,
        /// Why.
        source: io::Error,
    },
    /// The connection ended before the answer, or none came.
    #[error("the server at {address} gave no answer: {source}")]
    Silent {
        /// Where it is.
        address: Address,
        /// Why.
        source: io::Error,
    },
    /// What answers there does not speak as this program does.
    #[error(
        "what listens at {address} does not know this order: it is another version, or no chat server"
    )]
    Foreign {
        /// Where it is.
        address: Address,
    },
    /// The key is of another server.
    #[error(
        "the server at {address} has the key {found}, not the one of this folder, {key}: name its folder \
         with --data, or an operator's key with --identity"
    )]
    OtherServer {
        /// Where it is.
        address: Address,
        /// Its key.
        found: PublicKey,
        /// The key that was to prove the right.
        key: PublicKey,
    },
    /// It cannot prove that it has the key it names.
    #[error("what answers at {address} cannot prove that it has the key it names")]
    Impostor {
        /// Where it is.
        address: Address,
    },
    /// No randomness can be had.
    #[error("the system gives no random bytes: {0}")]
    Random(#[from] getrandom::Error),
    /// The server refused.
    #[error("the server at {address} refused: {refusal}")]
    Refused {
        /// Where it is.
        address: Address,
        /// Why.
        refusal: Refusal,
    },
}

/// A connection to a server that waits for an order.
pub struct Orders {
    address: Address,
    stream: Pin<Box<dyn Stream>>,
    channel: Option<Digest>,
    buffer: FrameBuffer,
    hello: ServerHello,
}

impl fmt::Debug for Orders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Orders").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Orders {
    /// Connects and says hello.
    ///
    /// # Errors
    /// When nobody listens there, or who does is no server that can be talked to.
    pub async fn connect(address: &Address) -> Result<Self, OrderError> {
        let (stream, channel) = match timeout(PATIENCE, dial(address)).await {
            Ok(Ok(dialled)) => dialled,
            Ok(Err(source)) => {
                return Err(OrderError::Unreachable { address: address.clone(), source });
            }
            Err(_) => {
                let source = too_late();
                return Err(OrderError::Unreachable { address: address.clone(), source });
            }
        };
        let (address, buffer) = (address.clone(), FrameBuffer::default());
        let mut talk = Talk { address, stream, buffer };
        let frame = talk.ask(&ClientFrame::hello()).await?;
        let ServerFrame::Hello(hello) = frame else {
            return Err(OrderError::Foreign { address: talk.address });
        };
        talk.demand_proof(&hello, channel).await?;
        let Talk { address, stream, buffer } = talk;
        Ok(Self { address, stream, channel, buffer, hello })
    }

    /// What the server said of itself.
    pub const fn hello(&self) -> &ServerHello {
        &self.hello
    }

    /// Asks what the server is doing.
    ///
    /// # Errors
    /// When it refuses, or does not answer.
    pub async fn status(self, key: &OrderKey) -> Result<Status, OrderError> {
        let Self { address, stream, channel, buffer, hello } = self;
        // The server would refuse it, too, and could not say why.
        if key.whose == Whose::Server && hello.server_key != key.public() {
            let (found, key) = (hello.server_key, key.public());
            return Err(OrderError::OtherServer { address, found, key });
        }
        let order = ClientFrame::Operate(key.sign(&hello, channel, Order::Status));
        let mut talk = Talk { address, stream, buffer };
        let answer = talk.ask(&order).await?;
        let ServerFrame::Status(status) = answer else {
            return Err(OrderError::Foreign { address: talk.address });
        };
        Ok(status)
    }
}

/// Frames to and from a server.
struct Talk {
    address: Address,
    stream: Pin<Box<dyn Stream>>,
    buffer: FrameBuffer,
}

impl Talk {
    /// Has the server prove that it has the key it names.
    async fn demand_proof(
        &mut self,
        hello: &ServerHello,
        channel: Option<Digest>,
    ) -> Result<(), OrderError> {
        let mut challenge = [0; Nonce::LEN];
        getrandom::fill(&mut challenge)?;
        let challenge = Nonce::new(challenge);
        let frame = self.ask(&ClientFrame::Prove { nonce: challenge }).await?;
        let ServerFrame::Proof { signature } = frame else {
            return Err(OrderError::Foreign { address: self.address.clone() });
        };
        let (server_key, nonce) = (hello.server_key, hello.nonce);
        let (log_id, generation) = (hello.log_id, hello.generation);
        let proof = ServerProof { challenge, nonce, server_key, log_id, generation, channel };
        if is_valid(&server_key, &proof.to_bytes(), &signature) {
            Ok(())
        } else {
            Err(OrderError::Impostor { address: self.address.clone() })
        }
    }

    /// Sends a frame and waits for the next one, which is the answer, or tells why there is none.
    async fn ask(&mut self, frame: &ClientFrame) -> Result<ServerFrame, OrderError> {
        let answer = timeout(PATIENCE, self.exchange(&encode_to_bytes(frame))).await;
        let address = self.address.clone();
        let source = match answer {
            Ok(Ok(Some(ServerFrame::Close(Refusal::Decode(_))) | None)) => {
                return Err(OrderError::Foreign { address });
            }
            Ok(Ok(Some(ServerFrame::Close(refusal)))) => {
                return Err(OrderError::Refused { address, refusal });
            }
            Ok(Ok(Some(answer))) => return Ok(answer),
            Ok(Err(source)) => source,
            Err(_) => too_late(),
        };
        Err(OrderError::Silent { address, source })
    }

    /// The answer to what is sent; `None` when it cannot be understood.
    async fn exchange(&mut self, bytes: &[u8]) -> io::Result<Option<ServerFrame>> {
        // A server that closes may still have said why.
        let sent = self.stream.write_all(bytes).await;
        loop {
            match self.buffer.next_frame() {
                Ok(Some(frame)) => return Ok(decode(&frame).ok()),
                Ok(None) => {}
                Err(_) => return Ok(None),
            }
            if self.stream.read_buf(self.buffer.as_mut()).await? == 0 {
                sent?;
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it hung up"));
            }
        }
    }
}

fn too_late() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("nothing came within {PATIENCE:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn identity_that_others_may_read_or_that_holds_no_key_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let put = |text: &str, mode| {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            OrderKey::of_identity(&path)
        };
        let key = format!("{}\n", URL_SAFE_NO_PAD.encode([7; 32]));
        assert!(put(&key, 0o600).is_ok());
        assert!(matches!(put(&key, 0o640), Err(IdentityError::Open(_))));
        for text in ["", "short", &"A".repeat(500)] {
            assert!(matches!(put(text, 0o600), Err(IdentityError::Malformed(_))), "{text}");
        }
        fs::remove_file(&path).unwrap();
        assert!(matches!(OrderKey::of_identity(&path), Err(IdentityError::Io { .. })));
        assert!(!path.exists(), "none is made");
    }

    #[test]
    fn key_shows_its_public_half_alone() {
        let folder = tempfile::tempdir().unwrap();
        let public = crate::ServerKey::in_folder(folder.path()).unwrap().public();
        let key = OrderKey::of_server(folder.path()).unwrap();
        assert_eq!(key.public(), public);
        let shown = format!("{key:?}");
        assert_eq!(shown, format!("OrderKey {{ public: {public:?}, .. }}"));
    }
}
