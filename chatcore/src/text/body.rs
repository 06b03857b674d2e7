//! The text of a message.

use core::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::TextVisitor;

/// The longest body, in bytes of UTF-8.
pub const BODY_BYTES_MAX: usize = 8_192;

/// Why a text is not a [`Body`]. It travels, so it is exhaustive and only grows at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum BodyError {
    /// There is nothing in it but white space.
    #[error("a message may not be empty")]
    Empty,
    /// It is longer than [`BODY_BYTES_MAX`].
    #[error("a message may have at most 8192 bytes")]
    TooLong,
}

/// The text of a message: 1 to [`BODY_BYTES_MAX`] bytes of UTF-8, not only white space.
///
/// Everything else is kept as it was written, control characters too: what they would do differs
/// from screen to screen, so each terminal or page filters them where it shows a body. That is
/// why a body has no `Display`. A clone shares the text.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Body(Arc<str>);

impl Body {
    /// The text, unfiltered.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Body {
    type Err = BodyError;

    /// # Errors
    /// [`BodyError::TooLong`] above [`BODY_BYTES_MAX`], [`BodyError::Empty`] for white space only.
    fn from_str(text: &str) -> Result<Self, BodyError> {
        if text.len() > BODY_BYTES_MAX {
            return Err(BodyError::TooLong);
        }
        if text.chars().all(char::is_whitespace) {
            return Err(BodyError::Empty);
        }
        Ok(Self(text.into()))
    }
}

impl AsRef<str> for Body {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Serialize for Body {
    fn serialize<S: serde::Serializer>(&self, sink: S) -> Result<S::Ok, S::Error> {
        sink.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Body {
    fn deserialize<D: serde::Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        source.deserialize_str(TextVisitor { what: "the text of a message", check: str::parse })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a13_body_of_8193_bytes_is_refused() {
        let longest = "x".repeat(BODY_BYTES_MAX);
        assert_eq!(longest.parse::<Body>().unwrap().as_str(), longest);
        let longer = "x".repeat(BODY_BYTES_MAX + 1);
        assert_eq!(longer.parse::<Body>(), Err(BodyError::TooLong));
        assert!(BodyError::TooLong.to_string().contains(&BODY_BYTES_MAX.to_string()));
        let bytes = postcard::to_allocvec(&longer).unwrap();
        assert!(postcard::from_bytes::<Body>(&bytes).is_err());
        assert!(serde_json::from_value::<Body>(longer.into()).is_err());
    }

    #[test]
    fn a13_body_limit_counts_bytes_and_not_characters() {
        let accents = "é".repeat(BODY_BYTES_MAX / 2);
        assert!(accents.parse::<Body>().is_ok());
        assert_eq!(format!("{accents}x").parse::<Body>(), Err(BodyError::TooLong));
    }

    #[test]
    fn body_of_white_space_only_is_empty() {
        for text in ["", " ", "\n\t \r", "\u{a0}\u{3000}"] {
            assert_eq!(text.parse::<Body>(), Err(BodyError::Empty), "{text:?}");
            let bytes = postcard::to_allocvec(text).unwrap();
            assert!(postcard::from_bytes::<Body>(&bytes).is_err(), "{text:?}");
        }
    }

    #[test]
    fn body_keeps_control_characters_and_outer_space() {
        let text = " \u{1b}[31mred\u{1b}[0m\u{202e}\n";
        assert_eq!(text.parse::<Body>().unwrap().as_str(), text);
    }

    #[test]
    fn a14_body_of_invalid_utf_8_is_refused_and_never_replaced() {
        assert!(postcard::from_bytes::<Body>(&[2, 0xc3, 0x28]).is_err());
        assert!(serde_json::from_slice::<Body>(b"\"\xc3\x28\"").is_err());
    }

    proptest! {
        #[test]
        fn body_survives_postcard_and_json(text in ".{0,40}") {
            let Ok(body) = text.parse::<Body>() else {
                prop_assert!(text.trim().is_empty());
                return Ok(());
            };
            let bytes = postcard::to_allocvec(&body).unwrap();
            prop_assert_eq!(&bytes, &postcard::to_allocvec(&text).unwrap());
            prop_assert_eq!(&postcard::from_bytes::<Body>(&bytes).unwrap(), &body);
            let json = serde_json::to_string(&body).unwrap();
            prop_assert_eq!(&serde_json::from_str::<Body>(&json).unwrap(), &body);
        }
    }
}
