//! The threads of the store: one writes, one reads, one makes checkpoints.
//!
//! The engine's task hands entries over and goes on. What waits for the writer is what the engine
//! has appended and not seen safe: it is bounded by `waiting_max`, because each of these entries is
//! of somebody whose answer waits, but for leaves and gates, at most one a membership and room. What
//! waits for the reader is bounded by two reads a connection. So neither queue needs a bound of its
//! own, and sending never waits.
//!
//! The writer takes all that has come meanwhile and makes it safe at once: the slower the disk, the
//! larger the groups.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, SyncSender, TryRecvError};
use std::thread;
use std::time::{Duration, Instant};

use chatcore::engine::ReadToken;
use chatcore::id::Index;
use chatcore::log::{Change, Entry};
use chatcore::wire::Record;
use tokio::sync::{mpsc as tokio_mpsc, oneshot};

use crate::store::fault::StoreFailure;
use crate::store::journal::{AppendError, History, Store, Wanted};

/// Entries that are made safe at once: a commit takes some ten milliseconds then, and 36 MiB at
/// worst.
const GROUP_MAX: usize = 4_096;

/// How long the writer waits before it asks a full disk again.
const FULL_RETRY: Duration = Duration::from_secs(1);

/// Answers that wait for the engine; the store waits when there are more.
const ANSWERS: usize = 64;

/// How often a history that cannot be read is worth a line.
const COMPLAINT_INTERVAL: Duration = Duration::from_mins(1);

/// What the store tells the engine's task.
#[derive(Debug)]
pub(crate) enum Answer {
    /// Every entry up to this one is safe.
    Persisted(Index),
    /// Nothing more can be kept for now.
    Full,
    /// It can be kept again.
    Free,
    /// Records were read; `None` when they cannot be.
    Read(ReadToken, Option<Vec<Record>>),
    /// Nothing more will be kept. It is the last answer.
    Failed(StoreFailure),
}

/// The way to the threads of a store. They end when this is dropped and what was handed over is
/// kept.
#[derive(Debug)]
pub(crate) struct Keeper {
    entries: Sender<Vec<Arc<Entry>>>,
    reads: Sender<(ReadToken, Wanted)>,
    answers: tokio_mpsc::Receiver<Answer>,
    stop: Arc<AtomicBool>,
}

/// Resolves when a store is closed and its folder free.
#[derive(Debug)]
pub(crate) struct Closed(oneshot::Receiver<()>);

impl Closed {
    pub(crate) async fn wait(self) {
        // Nothing is ever sent: what was to be told is that the other end was dropped.
        let _ = self.0.await;
    }
}

/// What the threads work with.
pub(crate) struct Parts {
    pub(crate) store: Box<dyn Store>,
    pub(crate) history: Box<dyn History>,
    /// Makes a checkpoint, unless it is told to stop.
    pub(crate) checkpointer: Box<dyn FnMut(&AtomicBool) + Send>,
    /// Bytes of entries after which one is due.
    pub(crate) checkpoint_bytes: u64,
    /// Bytes since the newest one.
    pub(crate) since_checkpoint: u64,
    /// Dropped when all of them have ended.
    pub(crate) folder: Arc<dyn Send + Sync>,
}

impl Keeper {
    /// Starts the threads.
    pub(crate) fn start(parts: Parts) -> (Self, Closed) {
        let (entries, entry_inbox) = mpsc::channel();
        let (reads, read_inbox) = mpsc::channel();
        let (due, due_inbox) = mpsc::sync_channel(1);
        let (sender, answers) = tokio_mpsc::channel(ANSWERS);
        let stop = Arc::new(AtomicBool::new(false));
        let reader = Reader { history: parts.history, complained: None, answers: sender.clone() };
        let checkpoints = Checkpoints { make: parts.checkpointer, stop: Arc::clone(&stop) };
        let writer = Writer {
            store: parts.store,
            waiting: Vec::new(),
            inbox: entry_inbox,
            is_full: false,
            answers: sender.clone(),
            due,
            since_checkpoint: parts.since_checkpoint,
            checkpoint_bytes: parts.checkpoint_bytes,
            kept: Kept::default(),
        };
        let (closed, wait) = oneshot::channel::<()>();
        let last = Arc::new((parts.folder, closed));
        let spawn = |name: &'static str, run: Box<dyn FnOnce() + Send>| {
            let (answers, last) = (sender.clone(), Arc::clone(&last));
            let body = move || {
                if catch_unwind(AssertUnwindSafe(run)).is_err() {
                    let _ = answers.blocking_send(Answer::Failed(StoreFailure::Panic(name)));
                }
                drop(last);
            };
            thread::Builder::new().name(format!("store-{name}")).spawn(body)
        };
        for (name, run) in [
            ("writer", Box::new(move || writer.run()) as Box<dyn FnOnce() + Send>),
            ("reader", Box::new(move || reader.run(&read_inbox))),
            ("checkpointer", Box::new(move || checkpoints.run(&due_inbox))),
        ] {
            spawn(name, run).expect("a process must be able to start a thread");
        }
        (Self { entries, reads, answers, stop }, Closed(wait))
    }

    /// Hands entries over to be kept. Never waits.
    pub(crate) fn append(&self, entries: Vec<Arc<Entry>>) {
        // A writer that is gone has said why.
        let _ = self.entries.send(entries);
    }

    /// Hands over a question for records. Never waits.
    pub(crate) fn read(&self, token: ReadToken, wanted: Wanted) {
        let _ = self.reads.send((token, wanted));
    }

    /// The next answer. May be dropped half-way.
    pub(crate) async fn answer(&mut self) -> Answer {
        // Each thread that ends by a bug says so before.
        self.answers.recv().await.unwrap_or(Answer::Failed(StoreFailure::Panic("writer")))
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Makes entries safe, in groups.
struct Writer {
    store: Box<dyn Store>,
    waiting: Vec<Arc<Entry>>,
    inbox: Receiver<Vec<Arc<Entry>>>,
    is_full: bool,
    answers: tokio_mpsc::Sender<Answer>,
    due: SyncSender<()>,
    since_checkpoint: u64,
    checkpoint_bytes: u64,
    kept: Kept,
}

/// What was made safe: one line in the log in the end.
#[derive(Clone, Copy, Debug, Default)]
struct Kept {
    entries: u64,
    commits: u64,
    /// How long that took.
    busy: Duration,
}

/// Whether more can come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum More {
    Yes,
    No,
}

impl Writer {
    fn run(mut self) {
        if let Err(failure) = self.work() {
            tracing::error!(error = %failure, "the store failed");
            self.tell(Answer::Failed(failure));
        }
    }

    /// Runs until nothing can come any more and all is safe, or will not be.
    fn work(&mut self) -> Result<(), StoreFailure> {
        loop {
            let more = self.gather();
            let kept = self.keep()?;
            if more == More::No && (self.waiting.is_empty() || kept == 0) {
                break;
            }
        }
        let Kept { entries, commits, busy } = self.kept;
        tracing::debug!(entries, commits, busy_us = busy.as_micros(), "nothing more is to be kept");
        match self.store.close() {
            Ok(()) | Err(AppendError::Full(_)) => Ok(()),
            Err(AppendError::Failed(failure)) => Err(failure),
        }
    }

    /// Waits until there is something to keep, and takes all there is.
    fn gather(&mut self) -> More {
        if self.is_full {
            return self.rest();
        }
        if self.waiting.is_empty() {
            match self.inbox.recv() {
                Ok(entries) => self.waiting.extend(entries),
                Err(_) => return More::No,
            }
        }
        while self.waiting.len() < GROUP_MAX {
            match self.inbox.try_recv() {
                Ok(entries) => self.waiting.extend(entries),
                Err(TryRecvError::Empty) => return More::Yes,
                Err(TryRecvError::Disconnected) => return More::No,
            }
        }
        More::Yes
    }

    /// Waits until it is time to ask the disk again.
    fn rest(&mut self) -> More {
        let until = Instant::now() + FULL_RETRY;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.inbox.recv_timeout(left) {
                Ok(entries) => self.waiting.extend(entries),
                Err(RecvTimeoutError::Timeout) => return More::Yes,
                Err(RecvTimeoutError::Disconnected) => return More::No,
            }
        }
    }

    /// Makes a group safe; how many entries that were.
    fn keep(&mut self) -> Result<usize, StoreFailure> {
        let count = self.waiting.len().min(GROUP_MAX);
        let group = self.waiting.get(..count).unwrap_or_default();
        let Some(through) = group.last().map(|entry| entry.header.index) else { return Ok(0) };
        let begun = Instant::now();
        match self.store.append(group) {
            Ok(()) => {}
            Err(AppendError::Full(error)) => {
                if !std::mem::replace(&mut self.is_full, true) {
                    tracing::error!(%error, "the store is full: nothing is accepted until there \
                        is space");
                    self.tell(Answer::Full);
                }
                return Ok(0);
            }
            Err(AppendError::Failed(failure)) => return Err(failure),
        }
        let bytes = self.waiting.drain(..count).map(|entry| bytes_of(&entry)).sum();
        self.kept.entries += u64::try_from(count).unwrap_or_default();
        self.kept.commits += 1;
        self.tell(Answer::Persisted(through));
        if std::mem::replace(&mut self.is_full, false) {
            tracing::warn!("the store has space again");
            self.tell(Answer::Free);
        }
        self.count(bytes);
        let tidied = self.store.tidy();
        self.kept.busy += begun.elapsed();
        match tidied {
            Ok(()) | Err(AppendError::Full(_)) => Ok(count),
            Err(AppendError::Failed(failure)) => Err(failure),
        }
    }

    /// Asks for a checkpoint when one is due. One that is being made goes on.
    fn count(&mut self, bytes: u64) {
        self.since_checkpoint = self.since_checkpoint.saturating_add(bytes);
        if self.since_checkpoint >= self.checkpoint_bytes && self.due.try_send(()).is_ok() {
            self.since_checkpoint = 0;
        }
    }

    fn tell(&self, answer: Answer) {
        // The engine's task is gone only when the server is.
        let _ = self.answers.blocking_send(answer);
    }
}

/// What an entry takes on the disk beside the text that somebody said, about.
pub(crate) const ENTRY_BYTES: u64 = 128;

/// What an entry takes on the disk, about.
fn bytes_of(entry: &Entry) -> u64 {
    let Change::Posted { text, .. } = &entry.change else { return ENTRY_BYTES };
    let text = u64::try_from(text.as_str().len()).unwrap_or(u64::MAX);
    text.saturating_add(ENTRY_BYTES)
}

/// Reads what is not in memory any more.
struct Reader {
    history: Box<dyn History>,
    complained: Option<Instant>,
    answers: tokio_mpsc::Sender<Answer>,
}

impl Reader {
    fn run(mut self, inbox: &Receiver<(ReadToken, Wanted)>) {
        while let Ok((token, wanted)) = inbox.recv() {
            let records = match self.history.records(&wanted) {
                Ok(records) => Some(records),
                Err(fault) => {
                    self.complain(&fault);
                    None
                }
            };
            if self.answers.blocking_send(Answer::Read(token, records)).is_err() {
                return;
            }
        }
    }

    /// Readers that lag ask again and again.
    fn complain(&mut self, fault: &dyn std::fmt::Display) {
        if self.complained.is_none_or(|last| last.elapsed() >= COMPLAINT_INTERVAL) {
            self.complained = Some(Instant::now());
            tracing::error!(%fault, "cannot read history");
        }
    }
}

/// Makes checkpoints when they are due.
struct Checkpoints {
    make: Box<dyn FnMut(&AtomicBool) + Send>,
    stop: Arc<AtomicBool>,
}

impl Checkpoints {
    fn run(mut self, due: &Receiver<()>) {
        while due.recv().is_ok() {
            // The server goes on without: the journal is all there, and only a start takes longer.
            if catch_unwind(AssertUnwindSafe(|| (self.make)(&self.stop))).is_err() {
                tracing::error!("making a checkpoint panicked, which is a bug; no more are made");
                return;
            }
        }
    }
}
