//! Text of a peer that nobody has checked yet.

use core::fmt;
use core::marker::PhantomData;
use core::str::FromStr;

use serde::{Deserialize, Serialize};

/// What a peer sent where a `T` belongs.
///
/// Decoding it succeeds for every string, so that a name that is too long or badly formed is
/// refused with a reason by [`parse`](Self::parse), and does not end the connection as a frame
/// that cannot be decoded. On the wire it is the string itself, as a `T` is. `Debug` shows its
/// length only: what a peer sent has no place in a log.
///
/// It is as long as the frame that carried it allows; `T` sets its own limit.
#[derive(Serialize, Deserialize)]
#[serde(transparent, bound = "")]
pub struct Untrusted<T> {
    text: String,
    meant: PhantomData<fn() -> T>,
}

impl<T> Untrusted<T> {
    /// Holds `text`, whatever it is.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), meant: PhantomData }
    }

    /// The text as it came: to be signed or hashed, never to be shown.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl<T: FromStr> Untrusted<T> {
    /// Checks the text.
    ///
    /// # Errors
    /// Why the text is not a `T`.
    pub fn parse(&self) -> Result<T, T::Err> {
        self.text.parse()
    }
}

impl<T: AsRef<str>> From<&T> for Untrusted<T> {
    fn from(checked: &T) -> Self {
        Self::new(checked.as_ref())
    }
}

// By hand, as the derived ones would ask the same of `T`, which is not in here.
impl<T> Clone for Untrusted<T> {
    fn clone(&self) -> Self {
        Self::new(self.text.clone())
    }
}

impl<T> PartialEq for Untrusted<T> {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl<T> Eq for Untrusted<T> {}

impl<T> fmt::Debug for Untrusted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Untrusted({} bytes)", self.text.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::{Body, BodyError, NameError, RoomName, UserName};
    use proptest::prelude::*;

    #[test]
    fn a13_text_beyond_its_limit_decodes_and_is_refused_with_a_reason() {
        let bytes = postcard::to_allocvec(&"x".repeat(9_000)).unwrap();
        let name: Untrusted<UserName> = postcard::from_bytes(&bytes).unwrap();
        assert_eq!(name.parse(), Err(NameError::TooLong));
        let room: Untrusted<RoomName> = postcard::from_bytes(&bytes).unwrap();
        assert_eq!(room.parse(), Err(NameError::TooLong));
        let body: Untrusted<Body> = postcard::from_bytes(&bytes).unwrap();
        assert_eq!(body.parse(), Err(BodyError::TooLong));
    }

    #[test]
    fn a14_untrusted_text_of_invalid_utf_8_is_refused_and_never_replaced() {
        assert!(postcard::from_bytes::<Untrusted<UserName>>(&[1, 0xff]).is_err());
        assert!(serde_json::from_slice::<Untrusted<UserName>>(b"\"\xff\"").is_err());
    }

    #[test]
    fn untrusted_text_does_not_show_in_debug() {
        let secret = Untrusted::<Body>::new("canary");
        assert_eq!(format!("{secret:?}"), "Untrusted(6 bytes)");
    }

    #[test]
    fn checked_text_becomes_untrusted_and_checks_again() {
        let name: UserName = "alice".parse().unwrap();
        assert_eq!(Untrusted::from(&name).parse(), Ok(name.clone()));
        assert_eq!(Untrusted::from(&name), Untrusted::<UserName>::new("alice"));
    }

    proptest! {
        #[test]
        fn untrusted_text_travels_as_the_string_it_is(text in any::<String>()) {
            let sent = Untrusted::<UserName>::new(text.clone());
            let bytes = postcard::to_allocvec(&sent).unwrap();
            prop_assert_eq!(&bytes, &postcard::to_allocvec(&text).unwrap());
            prop_assert_eq!(&postcard::from_bytes::<Untrusted<UserName>>(&bytes).unwrap(), &sent);
            let json = serde_json::to_string(&sent).unwrap();
            prop_assert_eq!(&json, &serde_json::to_string(&text).unwrap());
            prop_assert_eq!(&serde_json::from_str::<Untrusted<UserName>>(&json).unwrap(), &sent);
        }
    }
}
