//! Length-delimited postcard frames, pure and bounded.
//!
//! A frame is a big-endian `u32` length and that many bytes of postcard. [`FrameBuffer`] cuts a
//! byte stream into frames, fed in any pieces; [`decode`] reads one frame strictly: the whole frame
//! and nothing but its one canonical encoding. [`encode`] writes one. With the feature `tokio`,
//! `FrameCodec` is the same behind tokio-util's `Encoder` and `Decoder`.
//!
//! Invariant: the length is checked before anything is stored, so a peer's word never allocates.

#[cfg(feature = "tokio")]
mod framed;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;

#[cfg(feature = "tokio")]
pub use framed::{FrameCodec, FrameCodecError};

use crate::wire::{DecodeFault, FRAME_BYTES_MAX, FrameFault, GREETING_FRAME_BYTES_MAX};

/// Bytes of the length prefix.
pub const PREFIX_BYTES: usize = 4;

const _: () = assert!(FRAME_BYTES_MAX < 1 << 24, "the first byte of a frame must be zero");
const _: () = assert!(GREETING_FRAME_BYTES_MAX <= FRAME_BYTES_MAX, "a greeting is a frame");

/// A byte stream being cut into frames.
///
/// It holds what was fed and not yet taken. After a fault it stays faulty: there is no way to find
/// the next frame in a stream whose length prefix was wrong.
///
/// ```
/// use chatcore::codec::{FrameBuffer, decode, encode};
/// use chatcore::wire::ClientFrame;
///
/// let mut stream = bytes::BytesMut::new();
/// encode(&ClientFrame::Leave, &mut stream);
/// let mut buffer = FrameBuffer::default();
/// for byte in stream {
///     buffer.feed(&[byte]);
/// }
/// let frame = buffer.next_frame().unwrap().unwrap();
/// assert_eq!(decode::<ClientFrame>(&frame), Ok(ClientFrame::Leave));
/// ```
#[derive(Debug)]
pub struct FrameBuffer {
    bytes: BytesMut,
    frame_bytes_max: usize,
    fault: Option<FrameFault>,
}

impl Default for FrameBuffer {
    /// A buffer for frames of up to [`FRAME_BYTES_MAX`] bytes.
    fn default() -> Self {
        Self::new(FRAME_BYTES_MAX)
    }
}

impl FrameBuffer {
    /// A buffer for frames of up to `frame_bytes_max` bytes.
    pub fn new(frame_bytes_max: usize) -> Self {
        Self { bytes: BytesMut::new(), frame_bytes_max, fault: None }
    }

    /// Changes the largest frame, for the frames that have not been taken yet.
    pub const fn set_frame_bytes_max(&mut self, frame_bytes_max: usize) {
        self.frame_bytes_max = frame_bytes_max;
    }

    /// Appends bytes that came in. After a fault they are dropped.
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.fault.is_none() {
            self.bytes.extend_from_slice(bytes);
        }
    }

    /// The buffer itself, for readers that fill it in place.
    pub const fn as_mut(&mut self) -> &mut BytesMut {
        &mut self.bytes
    }

    /// Whether a frame has begun and not ended.
    pub fn is_inside_frame(&self) -> bool {
        !self.bytes.is_empty()
    }

    /// Takes the next whole frame, without its prefix; `None` until more bytes come.
    ///
    /// # Errors
    /// When a length is zero or above the limit, at once and from then on.
    pub fn next_frame(&mut self) -> Result<Option<Bytes>, FrameFault> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        match split_frame(&mut self.bytes, self.frame_bytes_max) {
            Ok(frame) => Ok(frame),
            Err(fault) => {
                self.bytes = BytesMut::new();
                self.fault = Some(fault);
                Err(fault)
            }
        }
    }
}

/// Splits the first whole frame off `stream`.
fn split_frame(stream: &mut BytesMut, max: usize) -> Result<Option<Bytes>, FrameFault> {
    let Some(prefix) = stream.first_chunk::<PREFIX_BYTES>() else {
        return Ok(None);
    };
    let len = usize::try_from(u32::from_be_bytes(*prefix)).unwrap_or(usize::MAX);
    if len == 0 {
        return Err(FrameFault::Empty);
    }
    if len > max {
        return Err(FrameFault::TooLarge);
    }
    if stream.len().saturating_sub(PREFIX_BYTES) < len {
        return Ok(None);
    }
    stream.advance(PREFIX_BYTES);
    Ok(Some(stream.split_to(len).freeze()))
}

/// Reads one frame, without its prefix.
///
/// # Errors
/// When it is not exactly the canonical encoding of one message. postcard alone would accept bytes
/// behind the message and longer forms of the same number; both would let one message have many
/// spellings, so the message is encoded again and compared.
pub fn decode<T: DeserializeOwned + Serialize>(frame: &[u8]) -> Result<T, DecodeFault> {
    let (message, rest) =
        postcard::take_from_bytes::<T>(frame).map_err(|error| decode_fault(&error))?;
    if !rest.is_empty() {
        return Err(DecodeFault::TrailingBytes);
    }
    let same = postcard::serialize_with_flavor(&message, Compare { expected: frame });
    match same {
        Ok(true) => Ok(message),
        Ok(false) | Err(_) => Err(DecodeFault::NotCanonical),
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "all that is left is a wrong value")]
const fn decode_fault(error: &postcard::Error) -> DecodeFault {
    match error {
        postcard::Error::DeserializeUnexpectedEnd => DecodeFault::Truncated,
        postcard::Error::DeserializeBadVarint => DecodeFault::Number,
        postcard::Error::DeserializeBadUtf8 => DecodeFault::Text,
        _ => DecodeFault::Value,
    }
}

/// Appends one frame, prefix included, to `sink`.
///
/// # Panics
/// When the message is longer than [`FRAME_BYTES_MAX`]. A page of records or rooms is cut to fit by
/// the engine; text that was checked always fits; text that was not ([`Untrusted`]) may not.
///
/// [`Untrusted`]: crate::text::Untrusted
pub fn encode<T: Serialize>(message: &T, sink: &mut BytesMut) {
    let start = sink.len();
    sink.put_u32(0);
    append(message, sink);
    let len = sink.len().saturating_sub(start).saturating_sub(PREFIX_BYTES);
    assert!(len <= FRAME_BYTES_MAX, "a wire message must fit in a frame");
    let prefix = u32::try_from(len).expect("a frame length must fit in its prefix").to_be_bytes();
    sink.iter_mut().skip(start).zip(prefix).for_each(|(place, byte)| *place = byte);
}

/// One frame, prefix included, as bytes of its own.
pub fn encode_to_bytes<T: Serialize>(message: &T) -> Bytes {
    let mut sink = BytesMut::with_capacity(64);
    encode(message, &mut sink);
    sink.freeze()
}

/// Appends the encoding of a value, without a prefix and of any length: what [`decode`] reads.
///
/// # Panics
/// When the value has no postcard encoding; everything in this library has one.
pub fn append<T: Serialize>(value: &T, sink: &mut impl BufMut) {
    postcard::serialize_with_flavor(value, Append { sink })
        .expect("a value must have a postcard encoding");
}

/// A postcard sink that appends to a buffer. postcard's own for this takes even long runs of bytes
/// one at a time.
struct Append<'a, B> {
    sink: &'a mut B,
}

impl<B: BufMut> postcard::ser_flavors::Flavor for Append<'_, B> {
    type Output = ();

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.sink.put_u8(byte);
        Ok(())
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.sink.put_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// A postcard sink that compares with what came in and stores nothing.
struct Compare<'a> {
    expected: &'a [u8],
}

impl postcard::ser_flavors::Flavor for Compare<'_> {
    type Output = bool;

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.try_extend(&[byte])
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.expected =
            self.expected.strip_prefix(bytes).ok_or(postcard::Error::SerializeBufferFull)?;
        Ok(())
    }

    fn finalize(self) -> postcard::Result<bool> {
        Ok(self.expected.is_empty())
    }
}
