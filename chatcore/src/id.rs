//! Identifiers: one type per meaning, so that no two can be swapped by accident.
//!
//! Numbers that travel are at most [`COUNTER_MAX`], the largest integer that every JSON reader
//! keeps exact. Byte identifiers are raw in postcard and base64url text in JSON.

use core::fmt;
use core::num::NonZeroU16;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

/// The largest value of any counter that travels: 2^53 - 1, exact in a JSON number.
pub const COUNTER_MAX: u64 = (1 << 53) - 1;

/// A number that was outside its range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} {value} is above {max}")]
pub struct OutOfRange {
    what: &'static str,
    value: u64,
    max: u64,
}

impl OutOfRange {
    pub(crate) const fn new(what: &'static str, value: u64) -> Self {
        Self { what, value, max: COUNTER_MAX }
    }
}

/// Decodes a number of at most [`COUNTER_MAX`].
pub(crate) fn deserialize_bounded<'de, D: Deserializer<'de>>(source: D) -> Result<u64, D::Error> {
    match u64::deserialize(source)? {
        value if value > COUNTER_MAX => Err(D::Error::custom(OutOfRange::new("number", value))),
        value => Ok(value),
    }
}

/// Range-checked construction for a newtype over `u64` that is at most [`COUNTER_MAX`].
macro_rules! bounded_u64 {
    ($name:ident, $what:literal) => {
        impl $name {
            /// The smallest value, zero.
            pub const ZERO: Self = Self(0);
            /// The largest value, [`COUNTER_MAX`](crate::id::COUNTER_MAX).
            pub const MAX: Self = Self($crate::id::COUNTER_MAX);

            /// Wraps `value`.
            ///
            /// # Errors
            /// When `value` is above [`COUNTER_MAX`](crate::id::COUNTER_MAX).
            pub const fn new(value: u64) -> Result<Self, $crate::id::OutOfRange> {
                if value > $crate::id::COUNTER_MAX {
                    return Err($crate::id::OutOfRange::new($what, value));
                }
                Ok(Self(value))
            }

            /// The number itself.
            pub const fn get(self) -> u64 {
                self.0
            }
        }

        impl TryFrom<u64> for $name {
            type Error = $crate::id::OutOfRange;

            fn try_from(value: u64) -> Result<Self, Self::Error> {
                Self::new(value)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
                Self::new(u64::deserialize(source)?).map_err(serde::de::Error::custom)
            }
        }
    };
}
pub(crate) use bounded_u64;

macro_rules! counter {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize,
        )]
        #[serde(transparent)]
        pub struct $name(u64);

        bounded_u64!($name, $what);

        impl $name {
            /// The value that follows.
            ///
            /// # Panics
            /// At [`COUNTER_MAX`]: nothing counts that far in a machine's life, so reaching it
            /// means that the state is damaged, and stopping is safer than wrapping.
            #[must_use]
            pub fn next(self) -> Self {
                Self::new(self.0.saturating_add(1))
                    .expect(concat!($what, " must stay within 2^53 - 1"))
            }

            /// The value before, zero when this one is zero.
            #[must_use]
            pub const fn previous(self) -> Self {
                Self(self.0.saturating_sub(1))
            }

            /// `by` further on, at most [`Self::MAX`].
            #[must_use]
            pub const fn saturating_add(self, by: u64) -> Self {
                let sum = self.0.saturating_add(by);
                Self(if sum > COUNTER_MAX { COUNTER_MAX } else { sum })
            }

            /// `by` further back, at least zero.
            #[must_use]
            pub const fn saturating_sub(self, by: u64) -> Self {
                Self(self.0.saturating_sub(by))
            }

            /// How far `self` is beyond `earlier`, zero when it is not.
            pub const fn since(self, earlier: Self) -> u64 {
                self.0.saturating_sub(earlier.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

counter!(
    /// Place of an entry in the journal, from 1; 0 means "before the first entry".
    Index, "journal index"
);
counter!(
    /// Place of a record in one incarnation of a room, from 1 without holes; 0 is "before the
    /// first record".
    Seq, "sequence number"
);
counter!(
    /// A session's number for one of its commands, from 1 without holes.
    Counter, "command counter"
);
counter!(
    /// Life of one room, from 1, one more at every reset.
    Incarnation, "incarnation"
);
counter!(
    /// Number of the owner of the engine, one more at every change of owner or standby.
    Generation, "generation"
);
counter!(
    /// A client's label for a question; the answer repeats it.
    RequestId, "request id"
);
counter!(
    /// A client's number for one log-in of a session: the higher one wins.
    Attach, "attach number"
);

counter!(
    /// A number of bytes, as far as it travels: what is larger is told as the largest.
    ByteCount, "number of bytes"
);

/// One transport connection, named by the host and never used again in one run of it.
///
/// It never travels and is never stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(u64);

impl ConnId {
    /// The connection that the host calls `number`.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The host's number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "conn {}", self.0)
    }
}

/// How many distinct users must be connected at once before a room's gate opens: 1 to 65,535.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Threshold(NonZeroU16);

impl Threshold {
    /// The threshold of a server that was told nothing: two users.
    pub const DEFAULT: Self = match Self::new(2) {
        Some(two) => two,
        None => unreachable!(),
    };

    /// A threshold of `users`; `None` for zero, a gate that could never be closed.
    pub const fn new(users: u16) -> Option<Self> {
        match NonZeroU16::new(users) {
            Some(users) => Some(Self(users)),
            None => None,
        }
    }

    /// The number of users.
    pub const fn get(self) -> u16 {
        self.0.get()
    }
}

impl Default for Threshold {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl fmt::Display for Threshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why a text is not a byte identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} must be {bytes} bytes in base64url without padding")]
pub struct IdTextError {
    what: &'static str,
    bytes: usize,
}

macro_rules! byte_id {
    ($(#[$doc:meta])* $name:ident, $len:literal, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $len]);

        impl $name {
            /// Length in bytes.
            pub const LEN: usize = $len;

            /// Wraps the bytes.
            pub const fn new(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }

            /// The bytes.
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            /// Base64url without padding.
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }

        impl core::str::FromStr for $name {
            type Err = IdTextError;

            fn from_str(text: &str) -> Result<Self, IdTextError> {
                let wrong = IdTextError { what: $what, bytes: $len };
                let mut bytes = [0; $len];
                match URL_SAFE_NO_PAD.decode_slice(text, &mut bytes) {
                    Ok($len) => Ok(Self(bytes)),
                    Ok(_) | Err(_) => Err(wrong),
                }
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, sink: S) -> Result<S::Ok, S::Error> {
                bytes_serde::serialize(&self.0, sink)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
                bytes_serde::deserialize(source, $what).map(Self)
            }
        }
    };
}

byte_id!(
    /// Life of one journal: new only when history was lost or never kept.
    LogId, 16, "log id"
);
byte_id!(
    /// One run of a client, or of the outbox it resumed. Random, chosen by the client.
    SessionId, 16, "session id"
);
byte_id!(
    /// One life of a process that may own a chat: drawn anew whenever it starts without an intact
    /// journal.
    BootId, 16, "boot id"
);
byte_id!(
    /// The key of a certificate: the SHA-256 of its subject public key info, as in a pin of RFC 7469.
    KeyHash, 32, "key hash"
);
byte_id!(
    /// A blake3 digest.
    Digest, 32, "digest"
);
byte_id!(
    /// A random value of the server that a log-in must sign.
    Nonce, 32, "nonce"
);
byte_id!(
    /// An Ed25519 public key.
    PublicKey, 32, "public key"
);
byte_id!(
    /// An Ed25519 signature.
    Signature, 64, "signature"
);

/// Byte identifiers as raw bytes in binary formats and base64url in text formats.
mod bytes_serde {
    use super::{URL_SAFE_NO_PAD, fmt};
    use base64::Engine as _;
    use serde::de::{Error as _, SeqAccess, Unexpected, Visitor};
    use serde::ser::SerializeTuple as _;

    pub(super) fn serialize<const N: usize, S: serde::Serializer>(
        bytes: &[u8; N],
        sink: S,
    ) -> Result<S::Ok, S::Error> {
        if sink.is_human_readable() {
            return sink.serialize_str(&URL_SAFE_NO_PAD.encode(bytes));
        }
        let mut tuple = sink.serialize_tuple(N)?;
        for byte in bytes {
            tuple.serialize_element(byte)?;
        }
        tuple.end()
    }

    pub(super) fn deserialize<'de, const N: usize, D: serde::Deserializer<'de>>(
        source: D,
        what: &'static str,
    ) -> Result<[u8; N], D::Error> {
        if source.is_human_readable() {
            source.deserialize_str(TextVisitor { what })
        } else {
            source.deserialize_tuple(N, BytesVisitor { what })
        }
    }

    struct TextVisitor<const N: usize> {
        what: &'static str,
    }

    impl<const N: usize> Visitor<'_> for TextVisitor<N> {
        type Value = [u8; N];

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a {} of {N} bytes in base64url", self.what)
        }

        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
            let mut bytes = [0; N];
            match URL_SAFE_NO_PAD.decode_slice(text, &mut bytes) {
                Ok(len) if len == N => Ok(bytes),
                // Not `Unexpected::Str`: an error never repeats what a peer sent.
                Ok(_) | Err(_) => Err(E::invalid_value(Unexpected::Other("text"), &self)),
            }
        }
    }

    struct BytesVisitor<const N: usize> {
        what: &'static str,
    }

    impl<'de, const N: usize> Visitor<'de> for BytesVisitor<N> {
        type Value = [u8; N];

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a {} of {N} bytes", self.what)
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut source: A) -> Result<Self::Value, A::Error> {
            let mut bytes = [0; N];
            for (place, byte) in bytes.iter_mut().enumerate() {
                *byte =
                    source.next_element()?.ok_or_else(|| A::Error::invalid_length(place, &self))?;
            }
            Ok(bytes)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counter_above_the_json_limit_is_refused() {
        assert_eq!(Seq::new(COUNTER_MAX).map(Seq::get), Ok(COUNTER_MAX));
        assert_eq!(
            Seq::new(COUNTER_MAX + 1),
            Err(OutOfRange::new("sequence number", COUNTER_MAX + 1))
        );
        let too_large = postcard::to_allocvec(&(COUNTER_MAX + 1)).unwrap();
        assert!(postcard::from_bytes::<Seq>(&too_large).is_err());
    }

    #[test]
    #[should_panic(expected = "sequence number must stay within 2^53 - 1")]
    fn b11_counter_at_its_end_stops_instead_of_wrapping() {
        let _ = Seq::MAX.next();
    }

    #[test]
    fn key_text_survives_a_round_trip_and_refuses_another_length() {
        let key = PublicKey::new([7; 32]);
        assert_eq!(key.to_string().parse(), Ok(key));
        assert!("AAAA".parse::<PublicKey>().is_err());
        let error = serde_json::from_str::<PublicKey>("\"canary\"").unwrap_err();
        assert!(!error.to_string().contains("canary"), "{error}");
        let json = serde_json::to_string(&key).unwrap();
        assert_eq!(serde_json::from_str::<PublicKey>(&json).unwrap(), key);
        assert_eq!(postcard::to_allocvec(&key).unwrap(), [7; 32]);
    }

    #[test]
    fn b11_threshold_of_zero_does_not_exist() {
        assert_eq!(Threshold::new(0), None);
        assert_eq!(Threshold::new(u16::MAX).map(Threshold::get), Some(65_535));
    }
}
