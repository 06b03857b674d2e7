//! One connection to a directory: a request, its answer, the next request.
//!
//! A connection is read only while nothing of it waits, so whoever asks more than they may is made to
//! wait, and holds nothing but their place. What a connection takes is a buffer of some kilobytes and at
//! most one claim under way.

use std::sync::Arc;
use std::time::Duration;

use chatcore::codec::{FrameBuffer, decode, encode_to_bytes};
use chatcore::id::{Generation, LogId, Nonce, PublicKey};
use chatcore::migration::directory::{
    ClaimFault, DIRECTORY_FRAME_BYTES_MAX, DirectoryReply, DirectoryRequest, Registers, SignedClaim,
};
use chatcore::text::ServiceName;
use chatcore::wire::{
    ClientFrame, ClientHello, GREETING_FRAME_BYTES_MAX, LimitFault, Refusal, Role, ServerFrame,
    ServerHello, StateFault, VersionRange,
};
use serde::Serialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::connection::{LINGER, Source};
use crate::crew::Line;
use crate::directory::keeper::{BUSY_RETRY, Claimed};
use crate::door::Place;
use crate::server::Transport;
use crate::shard::Sink;
use crate::verify::is_valid;

/// How long a connection may say nothing.
const SILENCE_TIME: Duration = Duration::from_mins(1);

/// After how long a watch is answered at the latest: less than [`SILENCE_TIME`], and than many a router
/// remembers a connection that says nothing.
pub(crate) const WATCH_TIME: Duration = Duration::from_secs(30);

/// What a directory's hello says in place of the journal that a chat has.
pub(crate) const NO_JOURNAL: LogId = LogId::new([0; LogId::LEN]);

/// How long a peer may take to take an answer.
const SEND_TIME: Duration = Duration::from_secs(10);

/// Bytes read at once.
const READ_BYTES: usize = 1 << 10;

/// What everybody who asks has in common.
#[derive(Debug)]
pub(super) struct Office {
    /// The key of the directory.
    pub(super) key: PublicKey,
    pub(super) registers: watch::Receiver<Arc<Registers>>,
    /// The service of those who would talk.
    pub(super) service: ServiceName,
    pub(super) claims: mpsc::Sender<Claimed>,
    /// Where claims wait for their signatures to be checked.
    pub(super) checks: Line,
    pub(super) pace: Pace,
    /// How long the greeting may take, from the accept on.
    pub(super) login_time: Duration,
    pub(super) stop: CancellationToken,
}

/// How many requests a connection may make: so many at once, and one after each interval in the long run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Requests at once, at least 1. Default 32.
    pub burst: u32,
    /// The time between two in the long run. Default 50 ms.
    pub interval: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { burst: 32, interval: Duration::from_millis(50) }
    }
}

impl Pace {
    /// When a request that comes now may be answered, given when all before it are paid off (GCRA).
    fn next(self, level_at: &mut Instant, now: Instant) -> Instant {
        *level_at = (*level_at).max(now) + self.interval;
        let advance = self.interval * self.burst.max(1);
        level_at.checked_sub(advance).map_or(now, |at| at.max(now))
    }
}

/// Why a conversation is over.
enum End {
    /// The peer is gone, or nothing more can be said.
    Gone,
    /// The peer is to be told why.
    Closed(Refusal),
}

impl From<std::io::Error> for End {
    fn from(_: std::io::Error) -> Self {
        Self::Gone
    }
}

/// Why somebody is not greeted.
enum Unwelcome {
    /// The peer is gone.
    Gone,
    /// The peer is told this, and nothing more.
    Told(Box<ServerFrame>),
}

impl From<End> for Unwelcome {
    fn from(end: End) -> Self {
        match end {
            End::Gone => Self::Gone,
            End::Closed(refusal) => Self::Told(Box::new(ServerFrame::Close(refusal))),
        }
    }
}

/// One connection.
pub(super) struct Conversation {
    office: Arc<Office>,
    source: Source,
    sink: Sink,
    buffer: FrameBuffer,
    registers: watch::Receiver<Arc<Registers>>,
    level_at: Instant,
    /// Until when it has to be greeted.
    greet_by: Instant,
    place: Option<Place>,
}

impl Conversation {
    pub(super) fn new(transport: Transport, office: Arc<Office>) -> Self {
        let Transport { source, sink, place, waited, .. } = transport;
        let (now, registers) = (Instant::now(), office.registers.clone());
        let greet_by = now + office.login_time.saturating_sub(waited);
        let buffer = FrameBuffer::new(GREETING_FRAME_BYTES_MAX);
        Self { office, source, sink, buffer, registers, level_at: now, greet_by, place }
    }

    /// Answers until the connection ends.
    pub(super) async fn run(mut self) {
        match self.greet().await {
            Ok(()) => {}
            Err(Unwelcome::Gone) => return,
            Err(Unwelcome::Told(last)) => return self.close(&*last).await,
        }
        loop {
            match self.converse().await {
                Ok(()) => {}
                Err(End::Gone) => return,
                Err(End::Closed(refusal)) => {
                    tracing::debug!(code = refusal.code(), %refusal, "closing");
                    return self.close(&DirectoryReply::Close(refusal)).await;
                }
            }
        }
    }

    /// Hears who is there, in the words of a chat: whoever connects may take this for one.
    async fn greet(&mut self) -> Result<(), Unwelcome> {
        let refusal = Refusal::Limit(LimitFault::LoginTime);
        let frame = self.next_frame(self.greet_by, refusal).await?;
        let ClientFrame::Hello(ClientHello { role, versions, .. }) = frame else {
            return Err(End::Closed(Refusal::State(StateFault::LogInFirst)).into());
        };
        let supported = VersionRange::SUPPORTED;
        let common = versions.common(supported);
        let version = common.ok_or(End::Closed(Refusal::Version(supported)))?;
        match role {
            Role::Node => {}
            Role::Client => return Err(self.send_on()),
        }
        let mut nonce = [0; Nonce::LEN];
        getrandom::fill(&mut nonce).map_err(|_| End::Gone)?;
        let hello = ServerHello {
            version,
            features: 0,
            server_key: self.office.key,
            log_id: NO_JOURNAL,
            generation: Generation::ZERO,
            nonce: Nonce::new(nonce),
        };
        self.send(&ServerFrame::Hello(hello)).await?;
        self.buffer.set_frame_bytes_max(DIRECTORY_FRAME_BYTES_MAX);
        if let Some(place) = &mut self.place {
            place.log_in();
        }
        Ok(())
    }

    /// Where somebody has to go who would talk: nobody does here.
    fn send_on(&self) -> Unwelcome {
        let registers = self.registers.borrow();
        let served = registers.get(&self.office.service);
        Unwelcome::Told(Box::new(match served {
            Some(signed) => ServerFrame::Moved(signed.registration.location()),
            None => ServerFrame::Close(Refusal::Gone),
        }))
    }

    /// Answers the next request.
    async fn converse(&mut self) -> Result<(), End> {
        let silent_at = Instant::now() + SILENCE_TIME;
        let request = self.next_frame(silent_at, Refusal::Limit(LimitFault::Silence)).await?;
        let may_at = self.office.pace.next(&mut self.level_at, Instant::now());
        tokio::select! {
            () = self.office.stop.cancelled() => return Err(End::Closed(Refusal::Gone)),
            () = sleep_until(may_at) => {}
        }
        let reply = match request {
            DirectoryRequest::Locate { service } => self.look_up(&service).1,
            DirectoryRequest::Watch { service, after } => self.watch(&service, after).await?,
            DirectoryRequest::Propose(claim) => self.propose(claim).await?,
        };
        self.send(&reply).await
    }

    /// The generation of a service, and what is said of it.
    fn look_up(&mut self, service: &ServiceName) -> (Generation, DirectoryReply) {
        match self.registers.borrow_and_update().get(service) {
            Some(signed) => {
                (signed.registration.generation, DirectoryReply::Registered(signed.clone()))
            }
            None => (Generation::ZERO, DirectoryReply::Unregistered),
        }
    }

    async fn watch(
        &mut self,
        service: &ServiceName,
        after: Generation,
    ) -> Result<DirectoryReply, End> {
        let late_at = Instant::now() + WATCH_TIME;
        loop {
            let (generation, reply) = self.look_up(service);
            if generation > after || self.buffer.is_inside_frame() {
                return Ok(reply);
            }
            self.buffer.as_mut().reserve(READ_BYTES);
            tokio::select! {
                () = self.office.stop.cancelled() => return Err(End::Closed(Refusal::Gone)),
                changed = self.registers.changed() => changed.map_err(|_| End::Gone)?,
                () = sleep_until(late_at) => return Ok(reply),
                // The next request, or the end.
                read = self.source.read_buf(self.buffer.as_mut()) => match read? {
                    0 => return Err(End::Gone),
                    _ => return Ok(reply),
                },
            }
        }
    }

    async fn propose(&mut self, claim: SignedClaim) -> Result<DirectoryReply, End> {
        let busy = DirectoryReply::Refused(Refusal::Busy { retry_ms: BUSY_RETRY });
        let Ok(turn) = self.office.checks.join() else { return Ok(busy) };
        let directory = self.office.key;
        let checked = turn.work(move || claim.prove(&directory, is_valid)).await;
        let Some(claim) = checked.map_err(|_| End::Gone)? else {
            return Ok(DirectoryReply::Denied(ClaimFault::Signature));
        };
        let (answer, told) = oneshot::channel();
        match self.office.claims.try_send(Claimed { claim, answer }) {
            // Who keeps the registers answers, or is gone: then nobody knows what became of it.
            Ok(()) => told.await.map_err(|_| End::Gone),
            Err(mpsc::error::TrySendError::Full(_)) => Ok(busy),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(End::Gone),
        }
    }

    /// Reads the next frame; too late, that is the end, and why.
    async fn next_frame<T>(&mut self, late_at: Instant, late: Refusal) -> Result<T, End>
    where
        T: serde::de::DeserializeOwned + Serialize,
    {
        loop {
            let frame = self.buffer.next_frame().map_err(|it| End::Closed(Refusal::Frame(it)))?;
            if let Some(frame) = frame {
                return decode(&frame).map_err(|it| End::Closed(Refusal::Decode(it)));
            }
            self.buffer.as_mut().reserve(READ_BYTES);
            tokio::select! {
                () = self.office.stop.cancelled() => return Err(End::Closed(Refusal::Gone)),
                () = sleep_until(late_at) => return Err(End::Closed(late)),
                read = self.source.read_buf(self.buffer.as_mut()) => {
                    if read? == 0 {
                        return Err(End::Gone);
                    }
                }
            }
        }
    }

    async fn send(&mut self, frame: &impl Serialize) -> Result<(), End> {
        let bytes = encode_to_bytes(frame);
        let send = async {
            self.sink.write_all(&bytes).await?;
            self.sink.flush().await
        };
        timeout(SEND_TIME, send).await.map_err(|_| End::Gone)?.map_err(End::from)
    }

    /// Says the last word and reads on, unheard, so that it arrives.
    async fn close(mut self, last: &impl Serialize) {
        let tell = async {
            self.send(last).await.ok()?;
            self.sink.shutdown().await.ok()?;
            tokio::io::copy(&mut self.source, &mut tokio::io::sink()).await.ok()
        };
        // Whether the peer closes in time changes nothing.
        let _ = timeout(LINGER, tell).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_beyond_the_burst_wait_for_their_turn_and_what_is_not_used_is_not_saved_up() {
        let pace = Pace { burst: 3, interval: Duration::from_millis(100) };
        let start = Instant::now();
        let mut level_at = start;
        let after = |millis| start + Duration::from_millis(millis);
        let mut waits = |now| pace.next(&mut level_at, now) - now;
        for expected in [0, 0, 0, 100, 200] {
            assert_eq!(waits(start), Duration::from_millis(expected));
        }
        assert_eq!(waits(after(400)), Duration::ZERO);
        for expected in [0, 0, 0, 100] {
            assert_eq!(waits(after(60_000)), Duration::from_millis(expected));
        }
    }
}
