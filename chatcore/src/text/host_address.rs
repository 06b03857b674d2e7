//! The address that a host gives of itself.

use core::fmt;
use core::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::TextVisitor;

/// The longest address of a host, in bytes of UTF-8.
pub const HOST_ADDRESS_BYTES_MAX: usize = 256;

/// Why a text is not a [`HostAddress`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostAddressError {
    /// There is nothing in it.
    #[error("an address may not be empty")]
    Empty,
    /// It is longer than [`HOST_ADDRESS_BYTES_MAX`].
    #[error("an address may have at most 256 bytes")]
    TooLong,
    /// It holds a character that a terminal might act on.
    #[error("an address may hold visible ASCII, spaces, and letters and digits of any script")]
    Character,
}

/// Where a host says it can be reached: 1 to [`HOST_ADDRESS_BYTES_MAX`] bytes of visible ASCII,
/// spaces, and letters and digits of any script.
///
/// It is made to be shown and compared: nothing in it steers a terminal. Which schemes there are is
/// not its affair, so that a client may be told of one that it does not know. A clone shares the
/// text.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostAddress(Arc<str>);

impl HostAddress {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether a character is shown in its place and does nothing else.
fn is_plain(sign: char) -> bool {
    sign == ' ' || sign.is_ascii_graphic() || (!sign.is_ascii() && sign.is_alphanumeric())
}

impl FromStr for HostAddress {
    type Err = HostAddressError;

    /// # Errors
    /// What is wrong with the text.
    fn from_str(text: &str) -> Result<Self, HostAddressError> {
        if text.is_empty() {
            return Err(HostAddressError::Empty);
        }
        if text.len() > HOST_ADDRESS_BYTES_MAX {
            return Err(HostAddressError::TooLong);
        }
        if !text.chars().all(is_plain) {
            return Err(HostAddressError::Character);
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for HostAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl Serialize for HostAddress {
    fn serialize<S: serde::Serializer>(&self, sink: S) -> Result<S::Ok, S::Error> {
        sink.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for HostAddress {
    fn deserialize<D: serde::Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        source.deserialize_str(TextVisitor { what: "the address of a host", check: str::parse })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(text: &str) -> Option<HostAddress> {
        postcard::from_bytes(&postcard::to_allocvec(text).unwrap()).ok()
    }

    #[test]
    fn host_address_of_257_bytes_is_refused() {
        let longest = format!("unix:/{}", "x".repeat(HOST_ADDRESS_BYTES_MAX - 6));
        assert_eq!(decoded(&longest).unwrap().as_str(), longest);
        let longer = format!("{longest}x");
        assert_eq!(longer.parse::<HostAddress>(), Err(HostAddressError::TooLong));
        assert!(
            HostAddressError::TooLong.to_string().contains(&HOST_ADDRESS_BYTES_MAX.to_string())
        );
        assert_eq!(decoded(&longer), None);
        assert_eq!("".parse::<HostAddress>(), Err(HostAddressError::Empty));
    }

    #[test]
    fn host_address_holds_nothing_that_steers_a_terminal() {
        for sign in "\0\n\r\t\u{1b}\u{7f}\u{9b}\u{200e}\u{202e}\u{2028}\u{2066}\u{feff}".chars() {
            let text = format!("chat://host{sign}:1");
            assert_eq!(text.parse::<HostAddress>(), Err(HostAddressError::Character), "{sign:?}");
            assert_eq!(decoded(&text), None, "{sign:?}");
        }
    }

    #[test]
    fn host_address_may_be_any_that_a_listener_has() {
        for text in [
            "chat://127.0.0.1:5000",
            "chat://[::1]:5000",
            "wss://bücher.example/chat",
            "unix:/run/my chat/日本.sock",
        ] {
            assert_eq!(decoded(text).unwrap().to_string(), text);
        }
    }
}
