//! A whole server in memory: an engine and a delivery shard for programs that keep nothing.
//!
//! [`Hub`] answers the engine at once where a real host would ask a store or a pool of threads, so
//! that a program has only bytes to move: what a connection sent goes into [`Hub::receive`], and
//! what it is due comes out of [`Hub::take`]. The programs in `examples/` are built on it. A
//! program with a store, or with more than one shard, drives [`Engine`] and [`Delivery`] itself.

use std::collections::BTreeMap;
use std::fmt;

use bytes::{Bytes, BytesMut};

use crate::codec::{FrameBuffer, decode};
use crate::delivery::Delivery;
use crate::engine::{Config, Engine, Event, Input, Output};
use crate::id::{ConnId, Nonce, PublicKey, Signature};
use crate::limits::LimitsError;
use crate::log::Founding;
use crate::time::{Moment, Now, Span};
use crate::wire::{
    ClientFrame, FRAME_BYTES_MAX, GREETING_FRAME_BYTES_MAX, HostStatus, Refusal, ServerFrame,
    StorageStatus,
};

/// Decides whether a signature over a message is a key's.
type Verify = Box<dyn FnMut(&PublicKey, &[u8], &Signature) -> bool + Send>;

/// A whole server in memory.
pub struct Hub {
    engine: Engine,
    delivery: Delivery,
    incoming: BTreeMap<ConnId, FrameBuffer>,
    verify: Verify,
    began: Moment,
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub").field("engine", &self.engine).finish_non_exhaustive()
    }
}

impl Hub {
    /// A server with a new journal. `verify` says whether a signature over a message is a key's;
    /// with Ed25519 from a library it is one line.
    ///
    /// # Errors
    /// When a limit is out of range.
    pub fn found(
        founding: Founding,
        config: Config,
        now: Now,
        verify: impl FnMut(&PublicKey, &[u8], &Signature) -> bool + Send + 'static,
    ) -> Result<Self, LimitsError> {
        let delivery = Delivery::new(&config.limits);
        let engine = Engine::found(founding, config, now)?;
        let (incoming, verify) = (BTreeMap::new(), Box::new(verify));
        let mut hub = Self { engine, delivery, incoming, verify, began: now.moment };
        hub.settle(now);
        Ok(hub)
    }

    /// A connection was accepted.
    ///
    /// # Panics
    /// When the number was used before.
    pub fn connect(&mut self, now: Now, conn: ConnId, nonce: Nonce) {
        self.incoming.insert(conn, FrameBuffer::new(GREETING_FRAME_BYTES_MAX));
        self.delivery.add(conn);
        self.handle(
            now,
            Input::Connected { conn, nonce, channel: None, address: None, waited: Span::ZERO },
        );
    }

    /// A connection sent bytes, cut anywhere. Those of a connection that is gone are dropped.
    pub fn receive(&mut self, now: Now, conn: ConnId, bytes: &[u8]) {
        if let Some(buffer) = self.incoming.get_mut(&conn) {
            buffer.feed(bytes);
        }
        // One frame at a time: a log-in changes how long the next one may be.
        while let Some(next) = self.incoming.get_mut(&conn).map(next_input) {
            match next {
                Ok(None) => return,
                Ok(Some(frame)) => self.handle(now, Input::Frame { conn, frame }),
                Err(refusal) => {
                    self.incoming.remove(&conn);
                    self.handle(now, Input::Condemned { conn, refusal });
                }
            }
        }
    }

    /// A connection sent a frame.
    pub fn receive_frame(&mut self, now: Now, conn: ConnId, frame: ClientFrame) {
        if self.incoming.contains_key(&conn) {
            self.handle(now, Input::Frame { conn, frame });
        }
    }

    /// A connection is gone: to be said once for each.
    ///
    /// # Panics
    /// When there is no such connection.
    pub fn disconnect(&mut self, now: Now, conn: ConnId) {
        self.incoming.remove(&conn);
        self.delivery.remove(conn);
        self.handle(now, Input::Disconnected { conn });
    }

    /// Takes the next connection that [`take`](Self::take) has bytes for, or that is to be closed;
    /// `None` when there is none.
    pub fn poll_ready(&mut self) -> Option<ConnId> {
        self.delivery.poll_ready()
    }

    /// Takes the next bytes that a connection is due; empty when it is up to date.
    pub fn take(&mut self, now: Now, conn: ConnId) -> Bytes {
        let mut slices = Vec::new();
        self.delivery.gather(conn, &mut slices);
        let mut bytes = BytesMut::new();
        slices.iter().for_each(|slice| bytes.extend_from_slice(slice));
        self.delivery.wrote(conn, bytes.len());
        self.settle(now);
        bytes.freeze()
    }

    /// Takes every frame that a connection is due: [`take`](Self::take) for programs that do not
    /// send bytes.
    pub fn take_frames(&mut self, now: Now, conn: ConnId) -> Vec<ServerFrame> {
        let (mut buffer, mut frames) = (FrameBuffer::default(), Vec::new());
        loop {
            let bytes = self.take(now, conn);
            if bytes.is_empty() {
                return frames;
            }
            buffer.feed(&bytes);
            while let Ok(Some(frame)) = buffer.next_frame() {
                frames.extend(decode::<ServerFrame>(&frame));
            }
        }
    }

    /// Whether a connection has to be closed: it was told why, and took it.
    pub fn is_finished(&self, conn: ConnId) -> bool {
        self.delivery.is_finished(conn)
    }

    /// When to come back with [`timeout`](Self::timeout); `None` when nothing waits.
    pub fn next_timeout(&self) -> Option<Moment> {
        self.engine.next_timeout().into_iter().chain(self.delivery.next_timeout()).min()
    }

    /// The moment of [`next_timeout`](Self::next_timeout) came. Early and late ones are harmless.
    pub fn timeout(&mut self, now: Now) {
        self.delivery.expire(now.moment);
        self.handle(now, Input::Timeout);
    }

    /// The engine, to look at.
    pub const fn engine(&self) -> &Engine {
        &self.engine
    }

    fn handle(&mut self, now: Now, input: Input) {
        self.engine.handle(now, input).expect("the hub must keep the rules of its engine");
        self.settle(now);
    }

    /// Carries out what the engine asks for until it asks for nothing more.
    fn settle(&mut self, now: Now) {
        loop {
            let mut answers = Vec::new();
            while let Some(output) = self.engine.poll_output() {
                answers.extend(self.carry_out(now, output));
            }
            answers.extend(core::iter::from_fn(|| self.delivery.poll_need()).map(Input::Fetch));
            while let Some((conn, refusal)) = self.delivery.poll_condemned() {
                if self.incoming.contains_key(&conn) {
                    answers.push(Input::Condemned { conn, refusal });
                }
            }
            if answers.is_empty() {
                return;
            }
            for answer in answers {
                self.engine.handle(now, answer).expect("the hub must keep the engine's rules");
            }
        }
    }

    fn carry_out(&mut self, now: Now, output: Output) -> Option<Input> {
        match output {
            Output::Persist(entry) => Some(Input::Persisted { through: entry.header.index }),
            Output::Verify { conn, key, message, signature } => {
                let valid = (self.verify)(&key, &message, &signature);
                Some(Input::Verified { conn, valid })
            }
            Output::Report { conn } => {
                let (uptime_ms, storage) = (now.moment.since(self.began), StorageStatus::Memory);
                Some(Input::Reported { conn, host: HostStatus { uptime_ms, storage } })
            }
            // Without a store the engine does not ask; an answer of nothing says that all is gone.
            Output::Read { token, .. } => Some(Input::ReadDone { token, records: Vec::new() }),
            Output::Deliver(directive) => {
                self.delivery.handle(directive);
                None
            }
            Output::Event(Event::LoggedIn { conn, .. }) => {
                if let Some(buffer) = self.incoming.get_mut(&conn) {
                    buffer.set_frame_bytes_max(FRAME_BYTES_MAX);
                }
                None
            }
            // It has no key to sign with, and takes no measures of its own.
            Output::Sign { .. } | Output::Event(_) | Output::Moderated { .. } => None,
        }
    }
}

/// The next frame of a stream, or why there will be no more.
fn next_input(buffer: &mut FrameBuffer) -> Result<Option<ClientFrame>, Refusal> {
    let Some(frame) = buffer.next_frame().map_err(Refusal::Frame)? else { return Ok(None) };
    decode(&frame).map(Some).map_err(Refusal::Decode)
}
