//! Who serves a chat, and where.

use core::fmt;
use core::ops::Deref;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use crate::id::{BootId, Generation, KeyHash, LogId, PublicKey};
use crate::text::HostAddress;
use crate::wire::List;

/// The most addresses that one host is told to have.
pub const ADDRESSES_MAX: usize = 8;

/// A host that serves a chat, or is about to, and where clients find it.
///
/// It is what the register says, told by a host that does not serve. It proves nothing: whoever dials one
/// of the addresses checks there whom it met.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Location {
    /// The generation that this is true of. What is said of a later one counts more.
    pub generation: Generation,
    /// The journal.
    pub log_id: LogId,
    /// The host's own key.
    pub key: PublicKey,
    /// Its life: another one has not what this one had.
    pub boot: BootId,
    /// The key of the certificate that it shows by TLS; `None` where it takes no TLS.
    pub tls_key: Option<KeyHash>,
    /// Where it listens, what is to be tried first being first.
    pub addresses: Addresses,
}

/// At most [`ADDRESSES_MAX`] addresses; none for a host that only a directory can find.
#[derive(Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Addresses(List<HostAddress>);

impl Addresses {
    /// The first [`ADDRESSES_MAX`] of `addresses`.
    pub fn first_of(addresses: impl IntoIterator<Item = HostAddress>) -> Self {
        Self(List::first_of(addresses.into_iter().take(ADDRESSES_MAX)))
    }
}

impl Deref for Addresses {
    type Target = [HostAddress];

    fn deref(&self) -> &[HostAddress] {
        &self.0
    }
}

impl fmt::Debug for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<'de> Deserialize<'de> for Addresses {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        let addresses = List::deserialize(source)?;
        if addresses.len() > ADDRESSES_MAX {
            return Err(D::Error::custom("too many addresses"));
        }
        Ok(Self(addresses))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a13_list_of_9_addresses_is_refused_and_of_8_is_not() {
        let decoded = |count: usize| {
            let bytes = postcard::to_allocvec(&vec!["chat://host:1"; count]).unwrap();
            postcard::from_bytes::<Addresses>(&bytes).ok()
        };
        assert_eq!(decoded(ADDRESSES_MAX).unwrap().len(), ADDRESSES_MAX);
        assert_eq!(decoded(ADDRESSES_MAX + 1), None);
        let many = (0..20).map(|port| format!("chat://host:{port}").parse().unwrap());
        assert_eq!(Addresses::first_of(many).len(), ADDRESSES_MAX);
    }
}
