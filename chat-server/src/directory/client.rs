//! Asking a directory: the other end of a connection to one.
//!
//! Nothing is believed that the directory's key has not signed, and that key is the one that the caller
//! knows, or else that of the first hello. How the connection is secured has no part in that: whoever
//! stands between can keep answers back or repeat old ones, which a caller notices by their generation.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use chatcore::address::Address;
use chatcore::codec::{FrameBuffer, decode, encode_to_bytes};
use chatcore::id::{Generation, PublicKey};
use chatcore::migration::directory::{
    Claim, ClaimFault, DirectoryReply, DirectoryRequest, Registration, SignedClaim,
    SignedRegistration,
};
use chatcore::text::ServiceName;
use chatcore::wire::{ClientFrame, ClientHello, Refusal, Role, ServerFrame, VersionRange};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, timeout};

use crate::dial::{Stream, dial};
use crate::directory::conversation::{NO_JOURNAL, WATCH_TIME};
use crate::key::ServerKey;
use crate::verify::is_valid;

/// How long a connection may take to be made, and then each answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a connection is kept for the next request: less than a directory waits for one.
const KEEP_TIME: Duration = Duration::from_secs(30);

/// The first and the longest pause of a watch that gets no answer, before it is asked for once more.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Why nothing is known of what a directory holds.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DirectoryError {
    /// There is no connection to be had.
    #[error("no directory can be reached at {address}: {source}")]
    Unreachable {
        /// Where it was looked for.
        address: Address,
        /// Why.
        source: io::Error,
    },
    /// The connection ended before the answer, or none came.
    #[error("the directory at {address} gave no answer: {source}")]
    Silent {
        /// Where it is.
        address: Address,
        /// Why.
        source: io::Error,
    },
    /// What answers there does not speak as this program does.
    #[error("what listens at {address} is no directory, or of another version")]
    Foreign {
        /// Where it is.
        address: Address,
    },
    /// It has another key than it should.
    #[error("the directory at {address} has the key {found} and not {key}")]
    OtherKey {
        /// Where it is.
        address: Address,
        /// Its key.
        found: PublicKey,
        /// The key that it should have.
        key: PublicKey,
    },
    /// What it said is not signed by its key, or not what was asked.
    #[error("what answers at {address} says what the directory did not sign")]
    Forged {
        /// Where it is.
        address: Address,
    },
    /// It refused.
    #[error("the directory at {address} refused: {refusal}")]
    Refused {
        /// Where it is.
        address: Address,
        /// Why.
        refusal: Refusal,
    },
}

/// What became of a claim.
#[derive(Debug)]
pub enum Proposed {
    /// It is what is registered, for good.
    Applied(Registration),
    /// It was for another generation: this is what is registered.
    Conflict(Registration),
    /// The directory says that it is not right. That is signed by nobody.
    Denied(ClaimFault),
    /// It may have been applied, or not, or may be yet: only a registration of a higher generation than
    /// it expects tells, or the same claim once more.
    Unknown(DirectoryError),
}

/// Asks a directory.
///
/// A request that is given up half way, as by dropping its future, disturbs none after it.
pub struct DirectoryClient {
    address: Address,
    key: Option<PublicKey>,
    /// A connection on which nothing is under way.
    kept: Option<Talk>,
}

impl fmt::Debug for DirectoryClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, key, .. } = self;
        f.debug_struct("DirectoryClient")
            .field("address", address)
            .field("key", key)
            .finish_non_exhaustive()
    }
}

impl DirectoryClient {
    /// For the directory at an address, which has to have this key. Without one, the key is taken that
    /// it shows first, and no other from then on.
    pub const fn new(address: Address, key: Option<PublicKey>) -> Self {
        Self { address, key, kept: None }
    }

    /// The key that the directory has to have; `None` until it is known.
    pub const fn key(&self) -> Option<PublicKey> {
        self.key
    }

    /// Says what is registered of a service; `None` when the directory says that nothing is.
    ///
    /// # Errors
    /// When it cannot be reached, does not answer in time, or is not the directory that it should be.
    pub async fn locate(
        &mut self,
        service: &ServiceName,
    ) -> Result<Option<Registration>, DirectoryError> {
        let request = DirectoryRequest::Locate { service: service.clone() };
        if let Some(talk) = self.kept_talk()
            && let Ok(told) = self.look_up(talk, &request, service, PATIENCE).await
        {
            return Ok(told);
        }
        let talk = self.connect().await?;
        self.look_up(talk, &request, service, PATIENCE).await
    }

    /// Waits until a service has a generation above `after`, however long that takes. A directory that
    /// cannot be reached is tried again, after pauses that grow to 5 seconds.
    pub async fn watch(&mut self, service: &ServiceName, after: Generation) -> Registration {
        let request = DirectoryRequest::Watch { service: service.clone(), after };
        let mut pause = PAUSE_FIRST;
        loop {
            let asked = Instant::now();
            match self.watch_once(&request, service).await {
                Ok(Some(told)) if told.generation > after => return told,
                // That is how a watch ends of which there is nothing to tell.
                Ok(_) if asked.elapsed() >= PAUSE_MAX => {
                    pause = PAUSE_FIRST;
                    continue;
                }
                Ok(_) => {}
                Err(error @ (DirectoryError::OtherKey { .. } | DirectoryError::Forged { .. })) => {
                    tracing::warn!(%error, "the directory is not believed");
                }
                Err(error) => tracing::debug!(%error, "the directory is asked again"),
            }
            tokio::time::sleep(jittered(pause)).await;
            pause = pause.saturating_mul(2).min(PAUSE_MAX);
        }
    }

    async fn watch_once(
        &mut self,
        request: &DirectoryRequest,
        service: &ServiceName,
    ) -> Result<Option<Registration>, DirectoryError> {
        let talk = self.talk().await?;
        self.look_up(talk, request, service, WATCH_TIME + PATIENCE).await
    }

    /// Signs a claim by the key of its owner, and makes it.
    ///
    /// # Errors
    /// When the directory cannot be reached, is not the one that it should be, or says that it did not
    /// look at the claim for now: it did not apply it then, unless somebody in between lies.
    pub async fn propose(
        &mut self,
        claim: Claim,
        key: &ServerKey,
    ) -> Result<Proposed, DirectoryError> {
        let talk = self.talk().await?;
        let signature = key.sign(&claim.to_bytes(&talk.directory));
        let request = DirectoryRequest::Propose(SignedClaim { claim: claim.clone(), signature });
        Ok(match self.ask(talk, &request, PATIENCE).await {
            Ok(DirectoryReply::Applied(signed)) if is_outcome(&claim, &signed.registration) => self
                .believe(signed, &claim.service)
                .map_or_else(Proposed::Unknown, Proposed::Applied),
            Ok(DirectoryReply::Conflict(signed)) => {
                let told = self.believe(signed, &claim.service);
                told.map_or_else(Proposed::Unknown, Proposed::Conflict)
            }
            Ok(DirectoryReply::Denied(fault)) => Proposed::Denied(fault),
            Ok(DirectoryReply::Refused(refusal)) => {
                let address = self.address.clone();
                return Err(DirectoryError::Refused { address, refusal });
            }
            Ok(_) => Proposed::Unknown(self.foreign()),
            Err(error) => Proposed::Unknown(error),
        })
    }

    async fn look_up(
        &mut self,
        talk: Talk,
        request: &DirectoryRequest,
        service: &ServiceName,
        patience: Duration,
    ) -> Result<Option<Registration>, DirectoryError> {
        match self.ask(talk, request, patience).await? {
            DirectoryReply::Registered(signed) => self.believe(signed, service).map(Some),
            DirectoryReply::Unregistered => Ok(None),
            DirectoryReply::Applied(_)
            | DirectoryReply::Conflict(_)
            | DirectoryReply::Denied(_)
            | DirectoryReply::Refused(_)
            | DirectoryReply::Close(_) => Err(self.foreign()),
        }
    }

    /// What is said of a service, when the directory signed it.
    fn believe(
        &self,
        signed: SignedRegistration,
        service: &ServiceName,
    ) -> Result<Registration, DirectoryError> {
        let is_signed = self.key.is_some_and(|directory| signed.is_of(&directory, is_valid));
        if is_signed && signed.registration.service == *service {
            Ok(signed.registration)
        } else {
            Err(DirectoryError::Forged { address: self.address.clone() })
        }
    }

    fn foreign(&self) -> DirectoryError {
        DirectoryError::Foreign { address: self.address.clone() }
    }

    /// The connection that is kept, unless the directory may be closing it.
    fn kept_talk(&mut self) -> Option<Talk> {
        self.kept.take().filter(|talk| talk.used.elapsed() < KEEP_TIME)
    }

    async fn talk(&mut self) -> Result<Talk, DirectoryError> {
        match self.kept_talk() {
            Some(talk) => Ok(talk),
            None => self.connect().await,
        }
    }

    /// Connects and says hello.
    async fn connect(&mut self) -> Result<Talk, DirectoryError> {
        let address = || self.address.clone();
        let dialled = timeout(PATIENCE, dial(&self.address)).await;
        let dialled = dialled.map_err(|_| too_late(PATIENCE)).flatten();
        let (stream, _) =
            dialled.map_err(|source| DirectoryError::Unreachable { address: address(), source })?;
        let (versions, role) = (VersionRange::SUPPORTED, Role::Node);
        let hello = ClientFrame::Hello(ClientHello { role, versions, features: 0 });
        let mut talk = Talk {
            stream,
            buffer: FrameBuffer::default(),
            directory: PublicKey::new([0; PublicKey::LEN]),
            used: Instant::now(),
        };
        let found = match talk.exchange(&hello, PATIENCE).await {
            // A chat has a journal: its key is not to be taken for a directory's.
            Ok(Some(ServerFrame::Hello(hello))) if hello.log_id == NO_JOURNAL => hello.server_key,
            Ok(Some(ServerFrame::Close(refusal))) => {
                return Err(DirectoryError::Refused { address: address(), refusal });
            }
            Ok(_) => return Err(self.foreign()),
            Err(source) => return Err(DirectoryError::Silent { address: address(), source }),
        };
        match self.key {
            Some(key) if key != found => {
                return Err(DirectoryError::OtherKey { address: address(), found, key });
            }
            Some(_) | None => self.key = Some(found),
        }
        talk.directory = found;
        Ok(talk)
    }

    /// Asks, and keeps the connection once it is answered.
    async fn ask(
        &mut self,
        mut talk: Talk,
        request: &DirectoryRequest,
        patience: Duration,
    ) -> Result<DirectoryReply, DirectoryError> {
        let address = self.address.clone();
        match talk.exchange(request, patience).await {
            Ok(Some(DirectoryReply::Close(refusal))) => {
                Err(DirectoryError::Refused { address, refusal })
            }
            Ok(Some(reply)) => {
                talk.used = Instant::now();
                self.kept = Some(talk);
                Ok(reply)
            }
            Ok(None) => Err(DirectoryError::Foreign { address }),
            Err(source) => Err(DirectoryError::Silent { address, source }),
        }
    }
}

/// Whether a registration is what a claim wants.
fn is_outcome(claim: &Claim, registration: &Registration) -> bool {
    let Claim { service: _, log_id, expect, owner, standby } = claim;
    registration.generation.previous() == *expect
        && registration.log_id == *log_id
        && registration.owner == *owner
        && registration.standby == *standby
}

/// A connection.
struct Talk {
    stream: Pin<Box<dyn Stream>>,
    buffer: FrameBuffer,
    /// Whom it leads to.
    directory: PublicKey,
    /// When it was last of use.
    used: Instant,
}

impl Talk {
    /// Sends a frame and waits for the next one; `None` when it cannot be understood.
    async fn exchange<Q: Serialize, A: DeserializeOwned + Serialize>(
        &mut self,
        frame: &Q,
        patience: Duration,
    ) -> io::Result<Option<A>> {
        let answer = async {
            // Who closes may still have said why.
            let sent = self.send(&encode_to_bytes(frame)).await;
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
        };
        timeout(patience, answer).await.map_err(|_| too_late(patience)).flatten()
    }

    async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }
}

fn too_late(patience: Duration) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("nothing came within {patience:?}"))
}

/// A part of a pause, by chance: of many who wait for the same, not all come back at once.
fn jittered(pause: Duration) -> Duration {
    let parts = getrandom::u32().map_or(u32::MAX, |random| random);
    pause.mul_f64(f64::from(parts) / f64::from(u32::MAX))
}
