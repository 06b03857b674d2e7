//! One connection's reading side: bytes in, frames to the engine, nothing else.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use chatcore::codec::{FrameBuffer, decode};
use chatcore::id::ConnId;
use chatcore::wire::{ClientFrame, FRAME_BYTES_MAX, GREETING_FRAME_BYTES_MAX, Refusal};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::host::Message;

/// A connection's reading side.
pub(crate) type Source = Pin<Box<dyn AsyncRead + Send>>;

/// Bytes read at once: what an idle connection keeps.
const READ_BYTES: usize = 4 << 10;

/// Frames handed to the engine at once, so that one busy connection does not fill its queue.
const FRAMES_AT_ONCE: usize = 256;

/// Bytes of frames handed to the engine at once, a little less or one frame more: with the longest
/// frames, a queue full of batches would otherwise take gigabytes.
const BYTES_AT_ONCE: usize = 32 << 10;

/// How long a closed connection is still read, unheard: bytes that nobody reads would make the
/// system reset the connection, and the peer lose the last frame, which says why.
///
/// It begins when the last frame is written and the writing side closed, and ends as soon as the peer
/// closes too, so that only who does not waits for all of it. A shorter time would cut off peers on
/// slow networks, whose hello may still be on its way, and win nothing against hostile ones: who is
/// turned away, as by a full server, holds a descriptor for so long, and who never says hello for the
/// ten times longer `login_time`. The last frame itself waits only behind what the peer left unread:
/// nothing, for who is turned away at once.
pub(crate) const LINGER: Duration = Duration::from_secs(1);

/// The largest frame that a connection may send now.
#[derive(Debug)]
pub(crate) struct FrameLimit(AtomicUsize);

impl Default for FrameLimit {
    fn default() -> Self {
        Self(AtomicUsize::new(GREETING_FRAME_BYTES_MAX))
    }
}

impl FrameLimit {
    /// The connection has logged in.
    pub(crate) fn raise(&self) {
        self.0.store(FRAME_BYTES_MAX, Ordering::Relaxed);
    }

    fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// Why a connection is read no more.
enum End {
    /// The peer or the transport ended it.
    Gone,
    /// This side closed it, or is about to.
    Closed,
}

/// One connection's reader.
pub(crate) struct Connection {
    pub(crate) conn: ConnId,
    pub(crate) source: Source,
    pub(crate) messages: mpsc::Sender<Message>,
    pub(crate) frame_limit: Arc<FrameLimit>,
    /// Cancelled once the writing side is closed.
    pub(crate) closed: CancellationToken,
}

impl Connection {
    /// Reads until the connection ends. Whoever spawned it reports the end to the engine, also when
    /// it panics.
    pub(crate) async fn run(mut self) {
        match self.read().await {
            End::Gone => {}
            End::Closed => self.linger().await,
        }
    }

    async fn read(&mut self) -> End {
        let mut buffer = FrameBuffer::default();
        loop {
            buffer.as_mut().reserve(READ_BYTES);
            let read = tokio::select! {
                biased;
                () = self.closed.cancelled() => return End::Closed,
                read = self.source.read_buf(buffer.as_mut()) => read,
            };
            match read {
                Ok(0) if buffer.is_inside_frame() => {
                    tracing::debug!(conn = %self.conn, "connection ended inside a frame");
                    return End::Gone;
                }
                Ok(0) => return End::Gone,
                Ok(_) => {}
                Err(error) => {
                    tracing::debug!(conn = %self.conn, %error, "connection broke");
                    return End::Gone;
                }
            }
            if let Some(end) = self.hand_over(&mut buffer).await {
                return end;
            }
        }
    }

    /// Gives the engine every whole frame that came; the end, if one of them was none.
    async fn hand_over(&mut self, buffer: &mut FrameBuffer) -> Option<End> {
        let conn = self.conn;
        loop {
            buffer.set_frame_bytes_max(self.frame_limit.get());
            let Batch { frames, fault, more } = cut(buffer);
            if !frames.is_empty() {
                self.tell(Message::Frames { conn, frames }).await;
            }
            if let Some(refusal) = fault {
                self.tell(Message::Condemned { conn, refusal }).await;
                return Some(End::Closed);
            }
            if !more {
                return None;
            }
        }
    }

    async fn tell(&mut self, message: Message) {
        // The engine is gone only when the whole server is.
        let _ = self.messages.send(message).await;
    }

    /// Reads on without listening until the writing side is closed and the peer has gone.
    async fn linger(&mut self) {
        let mut unheard = Vec::with_capacity(READ_BYTES);
        let deaf = async {
            loop {
                unheard.clear();
                match self.source.read_buf(&mut unheard).await {
                    Ok(0) | Err(_) => return,
                    Ok(_) => {}
                }
            }
        };
        let limit = async {
            self.closed.cancelled().await;
            tokio::time::sleep(LINGER).await;
        };
        tokio::select! {
            () = deaf => {}
            () = limit => {}
        }
    }
}

/// Frames that go to the engine together.
#[derive(Debug, Default)]
struct Batch {
    frames: Vec<ClientFrame>,
    /// Why no frame can follow.
    fault: Option<Refusal>,
    /// Whether there may be more in the buffer.
    more: bool,
}

/// Cuts off whole frames, up to the first that is none, or until it is enough for once.
fn cut(buffer: &mut FrameBuffer) -> Batch {
    let (mut batch, mut bytes) = (Batch::default(), 0_usize);
    while batch.frames.len() < FRAMES_AT_ONCE && bytes < BYTES_AT_ONCE {
        let next = match buffer.next_frame() {
            Ok(Some(frame)) => {
                bytes = bytes.saturating_add(frame.len());
                decode(&frame).map_err(Refusal::Decode)
            }
            Ok(None) => return batch,
            Err(fault) => Err(Refusal::Frame(fault)),
        };
        match next {
            Ok(frame) => batch.frames.push(frame),
            Err(refusal) => return Batch { fault: Some(refusal), ..batch },
        }
    }
    Batch { more: true, ..batch }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chatcore::codec::encode_to_bytes;
    use chatcore::id::Counter;
    use chatcore::text::Untrusted;
    use chatcore::wire::Command;

    #[test]
    fn batch_is_bounded_in_frames_and_in_bytes() {
        let post = |length: usize| {
            let body = Untrusted::new("x".repeat(length));
            let command = Command::Post { room: Untrusted::new("lobby"), incarnation: None, body };
            encode_to_bytes(&ClientFrame::Submit { counter: Counter::ZERO.next(), command })
        };
        for (length, expected) in [(8_000, 5), (1, FRAMES_AT_ONCE)] {
            let mut buffer = FrameBuffer::default();
            (0..=FRAMES_AT_ONCE).for_each(|_| buffer.feed(&post(length)));
            let batch = cut(&mut buffer);
            assert_eq!((batch.frames.len(), batch.more), (expected, true));
        }
    }
}
