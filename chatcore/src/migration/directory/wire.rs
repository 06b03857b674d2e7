//! What nodes and a directory say to each other, and the bytes that are signed.

use serde::{Deserialize, Serialize};

use crate::id::{Generation, KeyHash, LogId, PublicKey, Signature};
use crate::migration::{NodeId, Proposal, Record};
use crate::text::ServiceName;
use crate::wire::{Addresses, Location, Refusal};

/// The largest frame of either side after the greeting, in bytes without the length prefix. A claim with
/// two hosts of the longest addresses takes about 4,600.
pub const DIRECTORY_FRAME_BYTES_MAX: usize = 8 << 10;

const CLAIM_DOMAIN: &[u8] = b"chatcore claim v1\0";
const REGISTRATION_DOMAIN: &[u8] = b"chatcore registration v1\0";

/// A node, and how it is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// The node.
    pub node: NodeId,
    /// The key of the certificate that it shows by TLS; `None` where it takes no TLS.
    pub tls_key: Option<KeyHash>,
    /// Where it listens, what is to be tried first being first; nothing for one that cannot be dialled.
    pub addresses: Addresses,
}

/// What a node wants registered of a service: that it owns it from now on, or further on.
///
/// It is a [`Proposal`] of the next owner itself. What is told of both hosts is registered with it, so
/// that an owner whose addresses change claims what it owns once more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The service.
    pub service: ServiceName,
    /// The journal that the service has to have; of one that is not registered, the one it will have.
    pub log_id: LogId,
    /// The generation that the register has to have; 0 for a service that was never registered.
    pub expect: Generation,
    /// The next owner, who makes the claim.
    pub owner: Host,
    /// The next standby.
    pub standby: Option<Host>,
}

impl Claim {
    /// The change of the record that it wants.
    pub fn proposal(&self) -> Proposal {
        let standby = self.standby.as_ref().map(|standby| standby.node);
        let Self { expect, owner: Host { node, .. }, .. } = *self;
        Proposal { expect, by: node, owner: node, standby }
    }

    /// What it leads to in a generation.
    pub(super) fn applied(&self, generation: Generation) -> Registration {
        let Self { service, log_id, owner, standby, .. } = self.clone();
        Registration { service, generation, log_id, owner, standby }
    }

    /// The bytes to sign: the domain tag, the key of the directory, then every field in order. Numbers
    /// are big-endian, and a text has its length in front, in two bytes. A host is its key, its boot, the key
    /// of its certificate as a byte 0 or as a byte 1 and 32 bytes, the number of its addresses in one byte,
    /// and the addresses. No standby is a byte 0, one is a byte 1 and the host.
    pub fn to_bytes(&self, directory: &PublicKey) -> Vec<u8> {
        let Self { service, log_id, expect, owner, standby } = self;
        let fixed: [&[u8]; 2] = [CLAIM_DOMAIN, directory.as_bytes()];
        let mut bytes = fixed.concat();
        append_text(service.as_str(), &mut bytes);
        bytes.extend_from_slice(log_id.as_bytes());
        bytes.extend_from_slice(&expect.get().to_be_bytes());
        append_hosts(owner, standby.as_ref(), &mut bytes);
        bytes
    }
}

/// A claim, and the signature of who makes it. It proves nothing until that is checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedClaim {
    /// The claim.
    pub claim: Claim,
    /// Over [`Claim::to_bytes`], by the key of its owner.
    pub signature: Signature,
}

impl SignedClaim {
    /// The claim, when `is_valid` says of key, message and signature that they belong together. One that
    /// was made to another directory is not proven to this one.
    pub fn prove(
        self,
        directory: &PublicKey,
        is_valid: impl FnOnce(&PublicKey, &[u8], &Signature) -> bool,
    ) -> Option<ProvenClaim> {
        let Self { claim, signature } = self;
        let message = claim.to_bytes(directory);
        is_valid(&claim.owner.node.key, &message, &signature).then_some(ProvenClaim(claim))
    }
}

/// A claim whose signature was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProvenClaim(Claim);

impl ProvenClaim {
    /// The claim.
    pub const fn claim(&self) -> &Claim {
        &self.0
    }
}

/// What a directory has registered of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    /// The service.
    pub service: ServiceName,
    /// One more with every change.
    pub generation: Generation,
    /// The journal of the service.
    pub log_id: LogId,
    /// Who serves it.
    pub owner: Host,
    /// Who has all that is committed, and may take over.
    pub standby: Option<Host>,
}

impl Registration {
    /// Who is what by it.
    pub fn record(&self) -> Record {
        let standby = self.standby.as_ref().map(|standby| standby.node);
        let Self { generation, log_id, owner: Host { node: owner, .. }, .. } = *self;
        Record { generation, log_id, owner, standby }
    }

    /// Where those who would talk find the service.
    pub fn location(&self) -> Location {
        let Self { generation, log_id, owner, .. } = self;
        let Host { node: NodeId { key, boot }, tls_key, addresses } = owner.clone();
        Location { generation: *generation, log_id: *log_id, key, boot, tls_key, addresses }
    }

    /// The bytes to sign: as those of a [`Claim`], under a domain tag of its own and with the generation
    /// before the journal.
    pub fn to_bytes(&self, directory: &PublicKey) -> Vec<u8> {
        let Self { service, generation, log_id, owner, standby } = self;
        let fixed: [&[u8]; 2] = [REGISTRATION_DOMAIN, directory.as_bytes()];
        let mut bytes = fixed.concat();
        append_text(service.as_str(), &mut bytes);
        bytes.extend_from_slice(&generation.get().to_be_bytes());
        bytes.extend_from_slice(log_id.as_bytes());
        append_hosts(owner, standby.as_ref(), &mut bytes);
        bytes
    }
}

/// A registration, and the signature of its directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedRegistration {
    /// The registration.
    pub registration: Registration,
    /// Over [`Registration::to_bytes`], by the key of the directory.
    pub signature: Signature,
}

impl SignedRegistration {
    /// Whether this directory signed it, by what `is_valid` says of key, message and signature.
    pub fn is_of(
        &self,
        directory: &PublicKey,
        is_valid: impl FnOnce(&PublicKey, &[u8], &Signature) -> bool,
    ) -> bool {
        is_valid(directory, &self.registration.to_bytes(directory), &self.signature)
    }
}

/// Why a claim came to nothing, and always would.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum ClaimFault {
    /// The signature is not that of its owner for this directory.
    #[error("the signature is wrong")]
    Signature,
    /// It is not by the owner or the standby, wants another owner than may be next, or founds a service
    /// with a standby.
    #[error("only the owner and the standby of a service change it, and not in this way")]
    Right,
    /// The service has another journal.
    #[error("the service has another journal")]
    LogId,
    /// The service is not registered, and has to be founded in another generation.
    #[error("the service is not registered, and not to be founded in this generation")]
    Unregistered,
    /// There are as many services as there may be.
    #[error("the directory takes no more services")]
    Services,
    /// There is no generation after the present one.
    #[error("the service has had its last generation")]
    Generation,
}

impl ClaimFault {
    /// Every fault, in wire order.
    pub const ALL: &'static [Self] = &[
        Self::Signature,
        Self::Right,
        Self::LogId,
        Self::Unregistered,
        Self::Services,
        Self::Generation,
    ];
}

/// Everything that may be asked of a directory after the greeting, one after the other. Each is answered
/// once, in order.
///
/// | request | what comes back |
/// |---|---|
/// | `Locate` | `Registered` or `Unregistered` |
/// | `Watch` | the same, later |
/// | `Propose` | `Applied`, `Conflict`, `Denied`; or `Refused`, when it was not looked at |
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::large_enum_variant, reason = "one at a time is looked at, and none is kept")]
pub enum DirectoryRequest {
    /// Who serves.
    Locate {
        /// The service.
        service: ServiceName,
    },
    /// Who serves, once that has another generation; at the latest after some time, or when the next
    /// request comes.
    Watch {
        /// The service.
        service: ServiceName,
        /// The generation that is known; 0 for none.
        after: Generation,
    },
    /// Register this.
    Propose(SignedClaim),
}

/// Everything that a directory may say after the greeting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DirectoryReply {
    /// What is registered.
    Registered(SignedRegistration),
    /// Nothing is registered of this service.
    Unregistered,
    /// The claim is what is registered now, for good.
    Applied(SignedRegistration),
    /// The claim was for another generation than this one, which is the present one.
    Conflict(SignedRegistration),
    /// The claim is not right.
    Denied(ClaimFault),
    /// Nothing was done about the claim, and it may be made again.
    Refused(Refusal),
    /// The last frame: why the directory closes the connection.
    Close(Refusal),
}

fn append_text(text: &str, bytes: &mut Vec<u8>) {
    let length = u16::try_from(text.len()).expect("names and addresses must be short");
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(text.as_bytes());
}

fn append_hosts(owner: &Host, standby: Option<&Host>, bytes: &mut Vec<u8>) {
    append_host(owner, bytes);
    match standby {
        None => bytes.push(0),
        Some(standby) => {
            bytes.push(1);
            append_host(standby, bytes);
        }
    }
}

fn append_host(host: &Host, bytes: &mut Vec<u8>) {
    let Host { node, tls_key, addresses } = host;
    bytes.extend_from_slice(node.key.as_bytes());
    bytes.extend_from_slice(node.boot.as_bytes());
    match tls_key {
        None => bytes.push(0),
        Some(hash) => {
            bytes.push(1);
            bytes.extend_from_slice(hash.as_bytes());
        }
    }
    bytes.push(u8::try_from(addresses.len()).expect("a host must have few addresses"));
    addresses.iter().for_each(|address| append_text(address.as_str(), bytes));
}
