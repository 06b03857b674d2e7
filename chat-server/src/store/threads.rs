//! The threads of the store: one writes, one reads, one makes checkpoints, and where there is
//! retention one looks after that.
//!
//! The engine's task hands entries over and goes on. What waits for the writer is what the engine
//! has appended and not seen safe: it is bounded by `waiting_max`, because each of these entries is
//! of somebody whose answer waits, but for leaves and gates, at most one a membership and room. What
//! waits for the reader is bounded by two reads a connection. So neither queue needs a bound of its
//! own, and sending never waits.
//!
//! The writer takes all that has come meanwhile and makes it safe at once: the slower the disk, the
//! larger the groups. Between two groups it deletes what retention gave it, one short list at a time.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, SyncSender, TryRecvError};
use std::thread;
use std::time::{Duration, Instant};

use chatcore::engine::{Input, ReadToken};
use chatcore::id::Index;
use chatcore::log::{Change, Entry};
use chatcore::wire::Record;
use tokio::sync::{mpsc as tokio_mpsc, oneshot};

use crate::clock::Clock;
use crate::retention::ROUND;
use crate::store::fault::{Hindrance, StoreError, StoreFailure};
use crate::store::journal::{AppendError, Erasure, History, Store, Wanted};
use crate::store::sweep::Sweeper;

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
    /// Records are due to be forgotten: the engine is to be told so.
    Trim(Input),
    /// Nothing more will be kept. It is the last answer.
    Failed(StoreFailure),
}

/// What the writer is given.
enum Work {
    /// Keep these.
    Append(Vec<Arc<Entry>>),
    /// Blank these; nothing is said when it cannot be done now.
    Erase(Erasure, SyncSender<()>),
    /// Remove these; nothing is said when it cannot be done now.
    Remove(Vec<Index>, SyncSender<()>),
    /// Make what was blanked unreadable; whether it is.
    Purge(SyncSender<bool>),
}

/// The way to the threads of a store. They end when this is dropped and what was handed over is
/// kept.
#[derive(Debug)]
pub(crate) struct Keeper {
    work: Sender<Work>,
    reads: Sender<(ReadToken, Wanted)>,
    answers: tokio_mpsc::Receiver<Answer>,
    stop: Arc<AtomicBool>,
    /// Wakes who looks after retention when it is dropped: nothing is ever sent.
    _stopped: Sender<()>,
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
    /// Finds what retention takes; `None` when everything is kept.
    pub(crate) sweeper: Option<Sweeper>,
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
        let (work, work_inbox) = mpsc::channel();
        let (stopped, until) = mpsc::channel();
        let (reads, read_inbox) = mpsc::channel();
        let (due, due_inbox) = mpsc::sync_channel(1);
        let (sender, answers) = tokio_mpsc::channel(ANSWERS);
        let stop = Arc::new(AtomicBool::new(false));
        let reader = Reader { history: parts.history, complained: None, answers: sender.clone() };
        let took = Arc::new(AtomicU64::new(0));
        let checkpoints = Checkpoints {
            make: parts.checkpointer,
            stop: Arc::clone(&stop),
            took: Arc::clone(&took),
        };
        let retention = parts.sweeper.map(|sweeper| Retention {
            sweeper,
            clock: Clock::new(),
            work: work.clone(),
            answers: sender.clone(),
            due: due.clone(),
            took,
            asked: None,
            purged: false,
            stop: Arc::clone(&stop),
        });
        let writer = Writer {
            store: parts.store,
            waiting: Vec::new(),
            chores: Vec::new(),
            inbox: work_inbox,
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
        let mut threads = vec![
            ("writer", Box::new(move || writer.run()) as Box<dyn FnOnce() + Send>),
            ("reader", Box::new(move || reader.run(&read_inbox))),
            ("checkpointer", Box::new(move || checkpoints.run(&due_inbox))),
        ];
        if let Some(retention) = retention {
            threads.push(("retention", Box::new(move || retention.run(&until))));
        }
        for (name, run) in threads {
            spawn(name, run).expect("a process must be able to start a thread");
        }
        (Self { work, reads, answers, stop, _stopped: stopped }, Closed(wait))
    }

    /// Hands entries over to be kept. Never waits.
    pub(crate) fn append(&self, entries: Vec<Arc<Entry>>) {
        // A writer that is gone has said why.
        let _ = self.work.send(Work::Append(entries));
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
    /// What retention gave: it waits for each to be done, so there is one at most.
    chores: Vec<Work>,
    inbox: Receiver<Work>,
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
            self.do_chores()?;
            if more == More::No && (self.waiting.is_empty() || kept == 0) {
                break;
            }
        }
        let Kept { entries, commits, busy } = self.kept;
        tracing::debug!(entries, commits, busy_us = busy.as_micros(), "nothing more is to be kept");
        match self.store.close() {
            Ok(()) | Err(AppendError::Hindered(_)) => Ok(()),
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
                Ok(work) => self.take(work),
                Err(_) => return More::No,
            }
        }
        while self.waiting.len() < GROUP_MAX {
            match self.inbox.try_recv() {
                Ok(work) => self.take(work),
                Err(TryRecvError::Empty) => return More::Yes,
                Err(TryRecvError::Disconnected) => return More::No,
            }
        }
        More::Yes
    }

    fn take(&mut self, work: Work) {
        match work {
            Work::Append(entries) => self.waiting.extend(entries),
            chore @ (Work::Erase(..) | Work::Remove(..) | Work::Purge(_)) => {
                self.chores.push(chore);
            }
        }
    }

    /// Does what retention asked for. While the disk is full it may be just that which makes room.
    fn do_chores(&mut self) -> Result<(), StoreFailure> {
        for chore in std::mem::take(&mut self.chores) {
            let done = match chore {
                Work::Append(_) => Ok(()),
                // Who asked may be gone: the server stops.
                Work::Erase(erasure, done) => self.store.erase(&erasure).map(|()| {
                    let _ = done.send(());
                }),
                Work::Remove(rows, done) => self.store.remove(&rows).map(|()| {
                    let _ = done.send(());
                }),
                Work::Purge(done) => self.store.purge().map(|purged| {
                    let _ = done.send(purged);
                }),
            };
            match done.and_then(|()| self.store.tidy()) {
                Ok(()) | Err(AppendError::Hindered(_)) => {}
                Err(AppendError::Failed(failure)) => return Err(failure),
            }
        }
        Ok(())
    }

    /// Waits until it is time to ask the disk again.
    fn rest(&mut self) -> More {
        let until = Instant::now() + FULL_RETRY;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.inbox.recv_timeout(left) {
                Ok(work) => self.take(work),
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
            Err(AppendError::Hindered(hindrance)) => {
                if !std::mem::replace(&mut self.is_full, true) {
                    complain_of(hindrance);
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
            tracing::warn!("the store takes what is posted again");
            self.tell(Answer::Free);
        }
        self.count(bytes);
        let tidied = self.store.tidy();
        self.kept.busy += begun.elapsed();
        match tidied {
            Ok(()) | Err(AppendError::Hindered(_)) => Ok(count),
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

fn complain_of(hindrance: Hindrance) {
    match hindrance {
        Hindrance::Full => {
            tracing::error!("the store is full: nothing is accepted until there is space");
        }
        Hindrance::Locked => tracing::error!(
            "another program has the journal locked: nothing is accepted until it lets go"
        ),
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
    /// Milliseconds that the last one took.
    took: Arc<AtomicU64>,
}

impl Checkpoints {
    fn run(mut self, due: &Receiver<()>) {
        while due.recv().is_ok() {
            let begun = Instant::now();
            // The server goes on without: the journal is all there, and only a start takes longer.
            if catch_unwind(AssertUnwindSafe(|| (self.make)(&self.stop))).is_err() {
                tracing::error!("making a checkpoint panicked, which is a bug; no more are made");
                return;
            }
            let millis = begun.elapsed().as_millis();
            self.took.store(u64::try_from(millis).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
    }
}

/// After a checkpoint that retention asked for it waits so many times as long as that took: the more
/// state there is, the longer what is forgotten stays on the disk.
const CHECKPOINT_SHARE: u64 = 20;

/// How long retention rests after an error.
const RETENTION_RETRY: Duration = Duration::from_mins(1);

/// Has records forgotten that are due, and deleted that are forgotten.
struct Retention {
    sweeper: Sweeper,
    clock: Clock,
    work: Sender<Work>,
    answers: tokio_mpsc::Sender<Answer>,
    due: SyncSender<()>,
    /// Milliseconds that the last checkpoint took.
    took: Arc<AtomicU64>,
    /// When it last asked for a checkpoint.
    asked: Option<Instant>,
    /// Whether all that was blanked is unreadable. At a start nobody knows.
    purged: bool,
    stop: Arc<AtomicBool>,
}

/// Why retention goes no further.
enum Stuck {
    /// The server stops.
    Stopped,
    Store(StoreError),
}

impl From<StoreError> for Stuck {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Retention {
    fn run(mut self, until: &Receiver<()>) {
        while let Some(rest) = self.turn() {
            if until.recv_timeout(rest) != Err(RecvTimeoutError::Timeout) {
                return;
            }
        }
    }

    /// Does what can be done now; how long to rest then, unless the server stops.
    fn turn(&mut self) -> Option<Duration> {
        match self.round() {
            Ok(()) => Some(ROUND),
            Err(Stuck::Stopped) => None,
            // Nothing is lost by it: it goes on where it is.
            Err(Stuck::Store(error)) => {
                tracing::error!(%error, "retention is held up, and tried again in a minute");
                Some(RETENTION_RETRY)
            }
        }
    }

    fn round(&mut self) -> Result<(), Stuck> {
        self.sweeper.follow(&self.stop)?;
        for input in self.sweeper.due(self.clock.now().wall) {
            self.answers.blocking_send(Answer::Trim(input)).map_err(|_| Stuck::Stopped)?;
        }
        while let Some(erasure) = self.sweeper.next_erasure()? {
            self.purged = false;
            let (done, wait) = mpsc::sync_channel(1);
            self.hand_over(Work::Erase(erasure, done))?;
            if wait.recv().is_err() {
                // The disk is full: the next round tries again.
                return Ok(());
            }
            self.sweeper.erased();
        }
        if !self.purged {
            let (done, wait) = mpsc::sync_channel(1);
            self.hand_over(Work::Purge(done))?;
            self.purged = wait.recv().unwrap_or(false);
        }
        self.ask_for_checkpoint();
        self.compact()
    }

    /// Makes room, when it is worth it.
    fn compact(&mut self) -> Result<(), Stuck> {
        while let Some(rows) = self.sweeper.next_removal(&self.stop)? {
            let (done, wait) = mpsc::sync_channel(1);
            self.hand_over(Work::Remove(rows, done))?;
            if wait.recv().is_err() {
                self.sweeper.end_compaction();
            }
        }
        Ok(())
    }

    fn hand_over(&self, work: Work) -> Result<(), Stuck> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(Stuck::Stopped);
        }
        self.work.send(work).map_err(|_| Stuck::Stopped)
    }

    fn ask_for_checkpoint(&mut self) {
        let took = self.took.load(Ordering::Relaxed);
        let rest = Duration::from_millis(took.saturating_mul(CHECKPOINT_SHARE)).max(ROUND);
        let rested = self.asked.is_none_or(|asked| asked.elapsed() >= rest);
        if rested && self.sweeper.lacks_checkpoint() && self.due.try_send(()).is_ok() {
            self.asked = Some(Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::retention::Bound;
    use crate::store::tests::rig::{Rig, folder};

    #[test]
    fn retention_goes_on_after_a_row_that_could_not_be_read_for_a_while() {
        let here = folder();
        let mut rig = Rig::start_keeping(here.path(), [Bound::Records(1)].into_iter().collect());
        (0..10).for_each(|number| rig.post(&format!("post {number}")));
        let (answers, mut told) = tokio_mpsc::channel(ANSWERS);
        let mut retention = Retention {
            sweeper: rig.parts.sweeper.take().unwrap(),
            clock: Clock::new(),
            work: mpsc::channel().0,
            answers,
            due: mpsc::sync_channel(1).0,
            took: Arc::default(),
            asked: None,
            purged: true,
            stop: Arc::default(),
        };
        let flip = || {
            let database = rusqlite::Connection::open(here.path().join("journal.db")).unwrap();
            database.execute("UPDATE entry SET at = -at WHERE number = 8", []).unwrap();
        };
        flip();
        assert_eq!(retention.turn(), Some(RETENTION_RETRY));
        assert!(told.try_recv().is_err());
        flip();
        assert_eq!(retention.turn(), Some(ROUND));
        assert!(matches!(told.try_recv(), Ok(Answer::Trim(_))));
    }
}
