//! The codec behind tokio-util's traits.

use core::marker::PhantomData;

use bytes::BytesMut;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_util::codec::{Decoder, Encoder};

use crate::codec::{decode, encode, split_frame};
use crate::wire::{DecodeFault, FRAME_BYTES_MAX, FrameFault, Refusal};

/// Frames of `In` in, frames of `Out` out.
///
/// A client uses `FrameCodec<ServerFrame, ClientFrame>`, a server the reverse.
#[derive(Debug)]
pub struct FrameCodec<In, Out> {
    frame_bytes_max: usize,
    messages: PhantomData<fn(Out) -> In>,
}

impl<In, Out> Default for FrameCodec<In, Out> {
    fn default() -> Self {
        Self { frame_bytes_max: FRAME_BYTES_MAX, messages: PhantomData }
    }
}

impl<In, Out> FrameCodec<In, Out> {
    /// Changes the largest frame that is accepted.
    pub const fn set_frame_bytes_max(&mut self, frame_bytes_max: usize) {
        self.frame_bytes_max = frame_bytes_max;
    }
}

/// Why a stream of frames ended.
#[derive(Debug, thiserror::Error)]
pub enum FrameCodecError {
    /// A length prefix was wrong.
    #[error(transparent)]
    Frame(#[from] FrameFault),
    /// A frame was no message.
    #[error(transparent)]
    Decode(#[from] DecodeFault),
    /// The stream failed, or ended inside a frame.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

impl FrameCodecError {
    /// What to tell the peer; `None` when the stream itself failed.
    pub const fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::Frame(fault) => Some(Refusal::Frame(*fault)),
            Self::Decode(fault) => Some(Refusal::Decode(*fault)),
            Self::Io(_) => None,
        }
    }
}

impl<In: DeserializeOwned + Serialize, Out> Decoder for FrameCodec<In, Out> {
    type Item = In;
    type Error = FrameCodecError;

    fn decode(&mut self, stream: &mut BytesMut) -> Result<Option<In>, FrameCodecError> {
        match split_frame(stream, self.frame_bytes_max)? {
            Some(frame) => Ok(Some(decode(&frame)?)),
            None => Ok(None),
        }
    }
}

impl<In, Out: Serialize> Encoder<Out> for FrameCodec<In, Out> {
    type Error = FrameCodecError;

    fn encode(&mut self, message: Out, sink: &mut BytesMut) -> Result<(), FrameCodecError> {
        encode(&message, sink);
        Ok(())
    }
}
