//! Text that travels: names, message bodies and addresses, checked once and valid by construction.
//!
//! [`UserName`], [`RoomName`], [`ServiceName`], [`Body`] and [`HostAddress`] can only be made by parsing, and
//! decoding one with serde checks the same rules. Where a bad text of a peer must become a refusal with a reason,
//! and not a frame that cannot be decoded, the wire carries [`Untrusted`] instead.

mod body;
mod host_address;
mod mark;
mod name;
mod precis;
mod skeleton;
mod untrusted;

pub use body::{BODY_BYTES_MAX, Body, BodyError};
pub use host_address::{HOST_ADDRESS_BYTES_MAX, HostAddress, HostAddressError};
pub use name::{
    NameError, ROOM_NAME_BYTES_MAX, ROOM_NAME_CHARS_MAX, RoomName, SERVICE_NAME_BYTES_MAX,
    SERVICE_NAME_CHARS_MAX, ServiceName, USER_NAME_BYTES_MAX, USER_NAME_CHARS_MAX, UserName,
};
pub use skeleton::Skeleton;
pub use untrusted::Untrusted;

use core::fmt;

/// Decodes a checked text from a string, in every format, without a `String` in between.
struct TextVisitor<T, E> {
    what: &'static str,
    check: fn(&str) -> Result<T, E>,
}

impl<T, E: fmt::Display> serde::de::Visitor<'_> for TextVisitor<T, E> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.what)
    }

    fn visit_str<D: serde::de::Error>(self, text: &str) -> Result<T, D> {
        // The error's text is fixed: unlike serde's `invalid_value` it never repeats the input.
        (self.check)(text).map_err(D::custom)
    }
}
