//! A delivery shard: one task that writes to many connections.
//!
//! It polls the transports itself instead of waking a task for each: a message that a thousand
//! people read costs one wake and a thousand writes. A transport that takes no more is left alone
//! until its waker puts it back on the list.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, IoSlice};
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use bytes::Bytes;
use chatcore::delivery::Delivery;
use chatcore::engine::Directive;
use chatcore::id::ConnId;
use chatcore::limits::Limits;
use chatcore::time::{Moment, Span};
use tokio::io::AsyncWrite;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::clock::{Clock, sleep_until};
use crate::host::Message;
use crate::metrics::Metrics;
use crate::store::StoreFailure;

/// A connection's writing side.
pub(crate) type Sink = Pin<Box<dyn AsyncWrite + Send>>;

/// Messages that wait for a shard; the engine waits when there are more.
const QUEUE: usize = 64;

/// Messages that a shard takes before it writes.
const TURN: usize = 64;

/// Writes after which a shard looks for new messages: what comes meanwhile goes out with the rest.
const WRITES_AT_ONCE: usize = 256;

/// How long a connection that is closing may take to be written its last frames.
const CLOSING_TIME: Span = Span::from_secs(10);

/// Slices that one system call writes.
const SLICES: usize = 64;

/// What a shard is told.
pub(crate) enum ShardMessage {
    /// Take over a connection's writing side. `closed` is cancelled once it is closed.
    Add { conn: ConnId, sink: Sink, closed: CancellationToken },
    /// A connection is gone.
    Remove { conn: ConnId },
    /// What a turn of the engine leads to.
    Directives(Vec<Directive>),
}

/// The way to a shard.
#[derive(Clone, Debug)]
pub(crate) struct ShardHandle {
    messages: mpsc::Sender<ShardMessage>,
}

impl ShardHandle {
    pub(crate) async fn send(&self, directives: Vec<Directive>) {
        self.tell(ShardMessage::Directives(directives)).await;
    }

    pub(crate) async fn tell(&self, message: ShardMessage) {
        // A shard is gone only when the whole server is.
        let _ = self.messages.send(message).await;
    }
}

/// Connections that follow each other and belong to one shard. A room whose people came together
/// then wakes few shards for a message, and few cores share what is counted for its bytes.
const NEIGHBOURS: usize = 128;

/// The shard that a connection belongs to.
pub(crate) fn shard_of(conn: ConnId, shards: usize) -> usize {
    let shards = NonZeroUsize::new(shards).unwrap_or(NonZeroUsize::MIN);
    usize::try_from(conn.get()).unwrap_or(0) / NEIGHBOURS % shards
}

/// Starts a shard that reports to the engine. It ends when every handle is gone.
pub(crate) fn start(
    limits: &Limits,
    clock: Clock,
    (engine, metrics): (mpsc::Sender<Message>, Metrics),
    tasks: &mut JoinSet<Result<(), StoreFailure>>,
) -> ShardHandle {
    let (messages, inbox) = mpsc::channel(QUEUE);
    let shard = Shard {
        delivery: Delivery::new(limits),
        writers: BTreeMap::new(),
        woken: Arc::default(),
        slices: Vec::with_capacity(SLICES),
        closing: VecDeque::new(),
        clock,
        metrics,
    };
    // A shard polls many transports in one go and gives way by itself, after each turn. The
    // runtime's own budget would end a turn after 128 of them by feigning that they are blocked.
    tasks.spawn(tokio::task::unconstrained(async move {
        shard.run(inbox, engine).await;
        Ok(())
    }));
    ShardHandle { messages }
}

struct Shard {
    delivery: Delivery,
    writers: BTreeMap<ConnId, Writer>,
    woken: Arc<Woken>,
    /// What is written to one connection; kept so that it is allocated once.
    slices: Vec<Bytes>,
    /// When closing connections are given up, the earliest first.
    closing: VecDeque<(Moment, ConnId)>,
    clock: Clock,
    metrics: Metrics,
}

struct Writer {
    sink: Sink,
    waker: Waker,
    closed: CancellationToken,
    /// Whether the transport took bytes that it could not pass on yet, as TLS does.
    keeps_bytes: bool,
}

/// Connections whose transports take bytes again.
#[derive(Debug, Default)]
struct Woken {
    connections: Mutex<Vec<ConnId>>,
    notify: Notify,
}

struct ConnectionWaker {
    conn: ConnId,
    woken: Arc<Woken>,
}

impl Wake for ConnectionWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let mut connections = self.woken.connections.lock().unwrap_or_else(PoisonError::into_inner);
        connections.push(self.conn);
        drop(connections);
        self.woken.notify.notify_one();
    }
}

impl Shard {
    async fn run(mut self, mut inbox: mpsc::Receiver<ShardMessage>, engine: mpsc::Sender<Message>) {
        let mut turn = Vec::with_capacity(TURN);
        let woken = Arc::clone(&self.woken);
        loop {
            let idle = !self.write_some();
            let report = self.delivery.has_reports();
            let timeout = sleep_until(self.next_timeout().map(|at| self.clock.instant(at)));
            tokio::select! {
                biased;
                count = inbox.recv_many(&mut turn, TURN) => {
                    if count == 0 {
                        return;
                    }
                }
                () = woken.notify.notified() => {}
                permit = engine.reserve(), if report => {
                    if let (Ok(permit), Some(report)) = (permit, self.take_report()) {
                        permit.send(report);
                    }
                }
                () = timeout, if idle => {}
                () = tokio::task::yield_now(), if !idle => {}
            }
            turn.drain(..).for_each(|message| self.take(message));
            self.take_woken();
            self.expire();
        }
    }

    fn take(&mut self, message: ShardMessage) {
        match message {
            ShardMessage::Add { conn, sink, closed } => {
                let woken = Arc::clone(&self.woken);
                let waker = Arc::new(ConnectionWaker { conn, woken }).into();
                self.delivery.add(conn);
                let writer = Writer { sink, waker, closed, keeps_bytes: false };
                self.writers.insert(conn, writer);
            }
            ShardMessage::Remove { conn } => self.drop_connection(conn),
            ShardMessage::Directives(directives) => {
                directives.into_iter().for_each(|directive| self.follow(directive));
            }
        }
    }

    fn follow(&mut self, directive: Directive) {
        if let Directive::Close { conn, .. } = &directive {
            self.closing.push_back((self.clock.moment() + CLOSING_TIME, *conn));
        }
        self.delivery.handle(directive);
    }

    /// Writes to connections that have something to write; false when none is left.
    fn write_some(&mut self) -> bool {
        for _ in 0..WRITES_AT_ONCE {
            match self.delivery.poll_ready() {
                Some(conn) => self.write(conn),
                None => return false,
            }
        }
        true
    }

    fn write(&mut self, conn: ConnId) {
        let Some(writer) = self.writers.get_mut(&conn) else { return };
        self.slices.clear();
        self.delivery.gather(conn, &mut self.slices);
        if self.slices.is_empty() {
            return self.drop_if_finished(conn);
        }
        match writer.poll_write(&self.slices) {
            Poll::Ready(Ok(count)) if count > 0 => {
                self.delivery.wrote(conn, count);
                self.metrics.written(count);
                self.flush(conn);
            }
            Poll::Ready(Ok(_)) => self.drop_connection(conn),
            Poll::Ready(Err(error)) => self.give_up(conn, &error),
            Poll::Pending => self.delivery.blocked(conn, self.clock.moment()),
        }
    }

    /// Has the transport pass on what it keeps; if it cannot now, its waker says when.
    fn flush(&mut self, conn: ConnId) {
        let Some(writer) = self.writers.get_mut(&conn) else { return };
        let flushed = writer.poll_flush();
        writer.keeps_bytes = flushed.is_pending();
        if let Poll::Ready(Err(error)) = flushed {
            self.give_up(conn, &error);
        }
    }

    fn give_up(&mut self, conn: ConnId, error: &io::Error) {
        tracing::debug!(%conn, %error, "cannot write");
        self.drop_connection(conn);
    }

    fn drop_if_finished(&mut self, conn: ConnId) {
        let keeps_bytes = self.writers.get(&conn).is_some_and(|writer| writer.keeps_bytes);
        if self.delivery.is_finished(conn) && !keeps_bytes {
            self.drop_connection(conn);
        }
    }

    /// Closes the writing side, if it is not closed yet, and lets the reader know.
    fn drop_connection(&mut self, conn: ConnId) {
        self.delivery.remove(conn);
        if let Some(writer) = self.writers.remove(&conn) {
            writer.close();
        }
    }

    fn take_woken(&mut self) {
        let mut connections = self.woken.connections.lock().unwrap_or_else(PoisonError::into_inner);
        let woken = std::mem::take(&mut *connections);
        drop(connections);
        for conn in woken {
            if self.writers.get(&conn).is_some_and(|writer| writer.keeps_bytes) {
                self.flush(conn);
                self.drop_if_finished(conn);
            }
            self.delivery.writable(conn);
        }
    }

    /// Something to tell the engine.
    fn take_report(&mut self) -> Option<Message> {
        if let Some(need) = self.delivery.poll_need() {
            return Some(Message::Fetch(need));
        }
        let (conn, refusal) = self.delivery.poll_condemned()?;
        Some(Message::Condemned { conn, refusal })
    }

    fn next_timeout(&self) -> Option<Moment> {
        let closing = self.closing.front().map(|(at, _)| *at);
        closing.into_iter().chain(self.delivery.next_timeout()).min()
    }

    fn expire(&mut self) {
        let now = self.clock.moment();
        self.delivery.expire(now);
        while self.closing.front().is_some_and(|(at, _)| *at <= now) {
            if let Some((_, conn)) = self.closing.pop_front() {
                self.drop_connection(conn);
            }
        }
    }
}

impl Writer {
    fn poll_write(&mut self, slices: &[Bytes]) -> Poll<io::Result<usize>> {
        let mut parts = [IoSlice::new(&[]); SLICES];
        let count = slices.len().min(SLICES);
        for (part, slice) in parts.iter_mut().zip(slices) {
            *part = IoSlice::new(slice);
        }
        let parts = parts.get(..count).unwrap_or_default();
        let mut context = Context::from_waker(&self.waker);
        let sink = self.sink.as_mut();
        // Most writes are one slice, and the system takes that a little cheaper without a list.
        let write = || match parts {
            [part] => sink.poll_write(&mut context, part),
            parts => sink.poll_write_vectored(&mut context, parts),
        };
        unless_it_panics(write)
    }

    fn poll_flush(&mut self) -> Poll<io::Result<()>> {
        let mut context = Context::from_waker(&self.waker);
        let sink = self.sink.as_mut();
        unless_it_panics(|| sink.poll_flush(&mut context))
    }

    /// Tells the peer that nothing more comes, and the reader that this side is closed. A transport
    /// that cannot say so now is dropped without.
    fn close(self) {
        let Self { mut sink, waker, closed, keeps_bytes: _ } = self;
        let shut_down = || {
            let mut context = Context::from_waker(&waker);
            let _ = sink.as_mut().poll_shutdown(&mut context);
            drop(sink);
        };
        if catch_unwind(AssertUnwindSafe(shut_down)).is_err() {
            tracing::error!("a transport panicked while it was closed");
        }
        closed.cancel();
    }
}

/// A transport may be anybody's code. One that panics is broken, and only that one.
fn unless_it_panics<T>(poll: impl FnOnce() -> Poll<io::Result<T>>) -> Poll<io::Result<T>> {
    catch_unwind(AssertUnwindSafe(poll))
        .unwrap_or_else(|_| Poll::Ready(Err(io::Error::other("the transport panicked"))))
}
