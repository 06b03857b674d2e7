//! The door: what becomes of a socket that was accepted.
//!
//! One port speaks everything, and the first byte says what comes: 0x00 begins a frame, as none is
//! longer than 16 MiB; 0x16 begins TLS, inside which the first byte decides again; a letter begins
//! HTTP. Nothing else is understood. Until a connection has logged in it holds one of a bounded number
//! of places, also while it does not say what it is, and all of that together has `login_time`.

use std::io::{self, Cursor};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use chatcore::codec::encode_to_bytes;
use chatcore::limits::Limits;
use chatcore::text::HostAddress;
use chatcore::time::Span;
use chatcore::wire::{FrameFault, Refusal, ServerFrame};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, timeout_at};

use crate::addresses::{Addresses, Visit};
use crate::connection::{LINGER, Source};
use crate::http;
use crate::metrics::{Metrics, Refused};
use crate::server::Transport;
use crate::shard::Sink;
use crate::tls::{self, Handshakes, Tls, Unanswered};

/// Connections that are told that there is no place, at once; beyond, they are closed without a word.
pub(crate) const TURNED_AWAY_MAX: usize = 64;

/// How long one of them has to say what it is, so that it can be told in its own words.
const TURNED_AWAY_TIME: Duration = Duration::from_secs(1);

/// What a client is told to wait when there is no place.
const BUSY_RETRY: Span = Span::from_secs(1);

/// A fatal TLS alert, `handshake_failure` (RFC 8446, section 6.2): there is no TLS here.
const NO_TLS: [u8; 7] = [0x15, 3, 3, 0, 2, 2, 40];

/// Places for connections: one each, and for those that have not logged in one of fewer.
#[derive(Debug)]
pub(crate) struct Places {
    all: Arc<Semaphore>,
    greeting: Arc<Semaphore>,
    turned_away: Arc<Semaphore>,
}

/// A connection's place, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    _one_of_all: OwnedSemaphorePermit,
    _visit: Option<Visit>,
    greeting: Option<OwnedSemaphorePermit>,
}

impl Place {
    /// Gives back the place among those that have not logged in.
    pub(crate) fn log_in(&mut self) {
        self.greeting = None;
    }
}

/// Whether a connection may become more than an answer.
enum Standing {
    Placed(Place),
    TurnedAway { _until_told: OwnedSemaphorePermit, _visit: Option<Visit> },
}

impl Places {
    pub(crate) fn new(limits: &Limits) -> Self {
        let of = |count: u32| {
            let count = usize::try_from(count).unwrap_or(usize::MAX);
            Arc::new(Semaphore::new(count.min(Semaphore::MAX_PERMITS)))
        };
        Self {
            all: of(limits.connections_max),
            greeting: of(limits.greeting_max()),
            turned_away: Arc::new(Semaphore::new(TURNED_AWAY_MAX)),
        }
    }

    /// `None` when there is not even a place to be told so.
    fn take(&self, visit: Option<Visit>) -> Option<Standing> {
        let take = |places: &Arc<Semaphore>| Arc::clone(places).try_acquire_owned().ok();
        if let (Some(greeting), Some(one_of_all)) = (take(&self.greeting), take(&self.all)) {
            return Some(Standing::Placed(Place {
                _one_of_all: one_of_all,
                _visit: visit,
                greeting: Some(greeting),
            }));
        }
        let until_told = take(&self.turned_away)?;
        Some(Standing::TurnedAway { _until_told: until_told, _visit: visit })
    }
}

/// What all doors of a server have in common.
#[derive(Debug)]
pub(crate) struct House {
    pub(crate) places: Places,
    pub(crate) handshakes: Handshakes,
    pub(crate) addresses: Arc<Addresses>,
    /// What is answered by HTTP in the clear, and inside TLS.
    pub(crate) pages: Router,
    pub(crate) encrypted_pages: Router,
    pub(crate) metrics: Metrics,
    pub(crate) login_time: Duration,
    /// To where connections of the chat go.
    pub(crate) accepted: mpsc::Sender<Transport>,
}

/// What one listener lets in.
#[derive(Debug)]
pub(crate) struct Door {
    pub(crate) house: Arc<House>,
    /// The address as clients are told it; `None` when it is not fit to be shown.
    pub(crate) address: Option<HostAddress>,
    /// Whether frames may come unencrypted.
    pub(crate) takes_plain: bool,
    pub(crate) tls: Option<Tls>,
}

/// What a connection begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Speech {
    Frames,
    Tls,
    Http,
    Unknown,
}

impl Speech {
    const fn of(first: u8) -> Self {
        match first {
            0x00 => Self::Frames,
            0x16 => Self::Tls,
            b'A'..=b'Z' | b'a'..=b'z' => Self::Http,
            _ => Self::Unknown,
        }
    }
}

/// A connection at the door.
struct Caller<R, W> {
    source: R,
    sink: W,
    standing: Standing,
    since: Instant,
    deadline: Instant,
}

impl Door {
    /// Looks after a socket that was just accepted, until it is a connection of the chat, has got its
    /// answer, or its time is over.
    pub(crate) async fn receive<R, W>(self: Arc<Self>, source: R, sink: W, visit: Option<Visit>)
    where
        R: AsyncRead + Send + Unpin + 'static,
        W: AsyncWrite + Send + Unpin + 'static,
    {
        let metrics = &self.house.metrics;
        let Some(standing) = self.house.places.take(visit) else {
            return metrics.refused(Refused::Full);
        };
        if matches!(standing, Standing::TurnedAway { .. }) {
            metrics.refused(Refused::Full);
        }
        let since = Instant::now();
        let time = match standing {
            Standing::Placed(_) => self.house.login_time,
            Standing::TurnedAway { .. } => TURNED_AWAY_TIME,
        };
        let caller = Caller { source, sink, standing, since, deadline: since + time };
        let deadline = caller.deadline;
        // Who says nothing in time, or breaks off, has asked for nothing.
        if !matches!(timeout_at(deadline, self.hear(caller)).await, Ok(Ok(()))) {
            metrics.refused(Refused::Silent);
        }
    }

    async fn hear<R, W>(&self, mut caller: Caller<R, W>) -> io::Result<()>
    where
        R: AsyncRead + Send + Unpin + 'static,
        W: AsyncWrite + Send + Unpin + 'static,
    {
        let first = caller.source.read_u8().await?;
        match (Speech::of(first), &self.tls) {
            (Speech::Frames, _) if !self.takes_plain => {
                self.house.metrics.refused(Refused::Speech);
                caller.refuse(Refusal::Frame(FrameFault::Unencrypted)).await
            }
            (Speech::Tls, Some(tls)) => self.hear_by_tls(tls, first, caller).await,
            (Speech::Tls, None) => caller.tell(&NO_TLS).await,
            (Speech::Http, _) if !self.takes_plain => {
                answer(first, caller, http::encrypted_only()).await
            }
            (speech, _) => self.go_on(speech, first, caller, None).await,
        }
    }

    async fn hear_by_tls<R, W>(&self, tls: &Tls, first: u8, caller: Caller<R, W>) -> io::Result<()>
    where
        R: AsyncRead + Send + Unpin + 'static,
        W: AsyncWrite + Send + Unpin + 'static,
    {
        let Caller { source, sink, standing, since, deadline } = caller;
        if matches!(standing, Standing::TurnedAway { .. }) {
            // A handshake costs more than the answer is worth.
            return Ok(());
        }
        let stream = tokio::io::join(Cursor::new([first]).chain(source), sink);
        let mut stream = match tls.accept(stream, &self.house.handshakes).await {
            Ok(stream) => stream,
            Err(Unanswered::Busy) => {
                self.house.metrics.refused(Refused::Handshakes);
                return Ok(());
            }
            Err(Unanswered::Broken(error)) => {
                tracing::debug!(%error, "no TLS came about");
                return Err(error);
            }
        };
        let channel = tls::channel_of(&stream).map_err(io::Error::other)?;
        let first = stream.read_u8().await?;
        let (source, sink) = tokio::io::split(stream);
        let caller = Caller { source, sink, standing, since, deadline };
        self.go_on(Speech::of(first), first, caller, Some(channel)).await
    }

    /// What is in the clear, or inside TLS.
    async fn go_on<R, W>(
        &self,
        speech: Speech,
        first: u8,
        caller: Caller<R, W>,
        channel: Option<chatcore::id::Digest>,
    ) -> io::Result<()>
    where
        R: AsyncRead + Send + Unpin + 'static,
        W: AsyncWrite + Send + Unpin + 'static,
    {
        match (speech, caller) {
            (
                Speech::Frames,
                Caller { source, sink, standing: Standing::Placed(place), since, .. },
            ) => {
                let source: Source = Box::pin(Cursor::new([first]).chain(source));
                let sink: Sink = Box::pin(sink);
                let (address, place) = (self.address.clone(), Some(place));
                let waited = since.elapsed();
                let transport = Transport { address, channel, source, sink, place, waited };
                // The receiver is gone only when the engine is.
                let _ = self.house.accepted.send(transport).await;
                Ok(())
            }
            (Speech::Frames, caller) => caller.refuse(Refusal::Busy { retry_ms: BUSY_RETRY }).await,
            (Speech::Http, caller) => {
                self.house.metrics.page();
                let House { pages, encrypted_pages, .. } = &*self.house;
                let pages = if channel.is_some() { encrypted_pages } else { pages };
                answer(first, caller, pages.clone()).await
            }
            // As a length, each of these bytes begins one that no frame has.
            (Speech::Tls | Speech::Unknown, caller) => {
                self.house.metrics.refused(Refused::Speech);
                caller.refuse(Refusal::Frame(FrameFault::TooLarge)).await
            }
        }
    }
}

/// Answers one request by HTTP.
async fn answer<R, W>(first: u8, caller: Caller<R, W>, pages: Router) -> io::Result<()>
where
    R: AsyncRead + Send + Unpin + 'static,
    W: AsyncWrite + Send + Unpin + 'static,
{
    let Caller { source, sink, standing, .. } = caller;
    let pages = match standing {
        Standing::Placed(_) => pages,
        Standing::TurnedAway { .. } => http::busy(),
    };
    http::serve(tokio::io::join(Cursor::new([first]).chain(source), sink), pages).await
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Caller<R, W> {
    /// Says why, in the words of the chat, and closes.
    async fn refuse(self, refusal: Refusal) -> io::Result<()> {
        tracing::debug!(code = refusal.code(), %refusal, "turned away at the door");
        self.tell(&encode_to_bytes(&ServerFrame::Close(refusal))).await
    }

    /// Writes the last bytes and reads on, unheard, so that they arrive.
    async fn tell(mut self, last: &[u8]) -> io::Result<()> {
        self.sink.write_all(last).await?;
        self.sink.shutdown().await?;
        read_on(&mut self.source).await;
        Ok(())
    }
}

/// Reads on, unheard, so that the last bytes that were written arrive: a connection that is closed with
/// bytes unread is reset, and they are lost.
pub(crate) async fn read_on(source: &mut (impl AsyncRead + Unpin)) {
    let mut nowhere = tokio::io::sink();
    let deaf = tokio::io::copy(source, &mut nowhere);
    // Whether the peer closes in time changes nothing.
    let _ = timeout_at(Instant::now() + LINGER, deaf).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a15_first_byte_tells_frames_from_tls_from_http() {
        for (first, speech) in [
            (0x00, Speech::Frames),
            (0x16, Speech::Tls),
            (b'G', Speech::Http),
            (b'S', Speech::Http),
            (0x01, Speech::Unknown),
            (0x80, Speech::Unknown),
            (b' ', Speech::Unknown),
            (0xFF, Speech::Unknown),
        ] {
            assert_eq!(Speech::of(first), speech, "{first:#04x}");
        }
    }

    #[test]
    fn c2_places_for_those_who_have_not_logged_in_are_a_share_of_all() {
        let limits = Limits { connections_max: 8, greeting_percent: 25, ..Limits::default() };
        let places = Places::new(&limits);
        let take = || match places.take(None) {
            Some(Standing::Placed(place)) => Some(place),
            Some(Standing::TurnedAway { .. }) | None => None,
        };
        let mut inside = Vec::new();
        for _ in 0..8 {
            let mut place = take().expect("who logs in leaves the place to the next");
            place.log_in();
            inside.push(place);
        }
        assert!(take().is_none(), "there are no more than eight");
        inside.truncate(4);
        let greeting: Vec<_> = (0..2).map(|_| take().expect("a quarter of eight")).collect();
        assert!(take().is_none());
        drop(greeting);
        assert!(take().is_some());
    }
}
