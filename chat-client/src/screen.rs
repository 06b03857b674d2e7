//! Where lines go: one thread that writes them, so that a reader who stops reading stops nobody
//! else, and signals are heard all the same.
//!
//! Invariant: what a batch of lines shows counts as seen, or as answered, once that batch is written
//! and flushed, never before, and before the next one is written. So a death in between shows the
//! last batch again, at most; the other order would lose it. Nothing better can be had of a pipe:
//! writing to it and noting that in a file are two steps.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use chatcore::id::Counter;
use chatcore::text::RoomName;
use chatcore::wire::Cursor;
use tokio::sync::mpsc;

/// Above so many waiting bytes no more is read from the server.
const PENDING_BYTES_MAX: usize = 256 << 10;

/// What lines on the screen say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// How far rooms were shown.
    pub cursors: BTreeMap<RoomName, Cursor>,
    /// Commands whose answers were shown.
    pub settled: Vec<Counter>,
}

impl Seen {
    /// Whether they say nothing that has to be kept.
    pub fn is_empty(&self) -> bool {
        self.cursors.is_empty() && self.settled.is_empty()
    }
}

/// Writes a batch of whole lines, and flushes.
pub type WriteBatch = Box<dyn FnMut(&str) -> io::Result<()> + Send>;

/// The lines to be written, and the thread that writes them.
#[derive(Debug)]
pub struct Screen {
    batches: SyncSender<String>,
    written: mpsc::Receiver<io::Result<()>>,
    pending: String,
    pending_seen: Seen,
    /// What the batch that is being written shows; `None` when the thread is idle.
    in_flight: Option<Seen>,
}

impl Screen {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the operating system has no thread to give.
    pub fn start(mut write: WriteBatch) -> io::Result<Self> {
        let (batches, to_write) = sync_channel::<String>(1);
        let (report, written) = mpsc::channel(1);
        thread::Builder::new().name("screen".into()).spawn(move || {
            for batch in to_write {
                if report.blocking_send(write(&batch)).is_err() {
                    return;
                }
            }
        })?;
        let (pending, pending_seen) = (String::new(), Seen::default());
        Ok(Self { batches, written, pending, pending_seen, in_flight: None })
    }

    /// The lines of the next batch, to be appended to.
    pub const fn lines(&mut self) -> &mut String {
        &mut self.pending
    }

    /// The lines so far show a room up to here.
    pub fn saw(&mut self, room: RoomName, cursor: Cursor) {
        self.pending_seen.cursors.insert(room, cursor);
    }

    /// The lines so far show the answer to a command.
    pub fn settled(&mut self, counter: Counter) {
        self.pending_seen.settled.push(counter);
    }

    /// What was shown so far was of a journal that is no more.
    pub fn forget_cursors(&mut self) {
        self.pending_seen.cursors.clear();
        self.in_flight.iter_mut().for_each(|seen| seen.cursors.clear());
    }

    /// Commands have other numbers from here on.
    pub fn forget_settled(&mut self) {
        self.pending_seen.settled.clear();
        self.in_flight.iter_mut().for_each(|seen| seen.settled.clear());
    }

    /// Hands the next batch to the thread, unless it is still busy with the last one.
    pub fn show(&mut self) {
        let nothing = self.pending.is_empty() && self.pending_seen.is_empty();
        if nothing || self.in_flight.is_some() {
            return;
        }
        let batch = std::mem::take(&mut self.pending);
        // The thread is idle, so there is room; if it is gone, `shown` says so.
        let _gone = self.batches.try_send(batch);
        self.in_flight = Some(std::mem::take(&mut self.pending_seen));
    }

    /// Waits until the batch is written, and says what it showed; for ever when there is none.
    /// It may be dropped and called again.
    ///
    /// # Errors
    /// When the lines cannot be written.
    pub async fn shown(&mut self) -> io::Result<Seen> {
        if self.in_flight.is_none() {
            return std::future::pending().await;
        }
        let result = self
            .written
            .recv()
            .await
            .unwrap_or_else(|| Err(io::Error::other("the thread that writes lines is gone")));
        let seen = self.in_flight.take().unwrap_or_default();
        result.map(|()| seen)
    }

    /// Whether so much waits that no more should be read from the server.
    pub const fn is_full(&self) -> bool {
        self.pending.len() > PENDING_BYTES_MAX
    }

    /// Whether everything is written.
    pub fn is_idle(&self) -> bool {
        self.in_flight.is_none() && self.pending.is_empty() && self.pending_seen.is_empty()
    }
}

/// Writes to standard output.
pub fn to_stdout() -> WriteBatch {
    Box::new(|batch| {
        let mut stdout = io::stdout().lock();
        stdout.write_all(batch.as_bytes())?;
        stdout.flush()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[tokio::test(flavor = "current_thread")]
    async fn what_lines_say_counts_once_they_are_written() {
        let sink = Arc::new(Mutex::new(String::new()));
        let copy = Arc::clone(&sink);
        let mut screen = Screen::start(Box::new(move |batch| {
            copy.lock().unwrap().push_str(batch);
            Ok(())
        }))
        .unwrap();
        let room: RoomName = "lobby".parse().unwrap();
        screen.lines().push_str("one\n");
        screen.saw(room.clone(), Cursor::default());
        screen.settled(Counter::ZERO);
        screen.show();
        screen.lines().push_str("two\n");
        screen.show();
        let seen = screen.shown().await.unwrap();
        assert_eq!(seen.cursors, [(room, Cursor::default())].into());
        assert_eq!(seen.settled, [Counter::ZERO]);
        assert_eq!(*sink.lock().unwrap(), "one\n");
        assert!(!screen.is_idle());
        screen.show();
        assert_eq!(screen.shown().await.unwrap(), Seen::default());
        assert_eq!(*sink.lock().unwrap(), "one\ntwo\n");
        assert!(screen.is_idle());
    }

    #[tokio::test(flavor = "current_thread")]
    async fn lines_that_cannot_be_written_are_not_seen() {
        let broken = || Err(io::ErrorKind::BrokenPipe.into());
        let mut screen = Screen::start(Box::new(move |_| broken())).unwrap();
        screen.lines().push_str("one\n");
        screen.saw("lobby".parse().unwrap(), Cursor::default());
        screen.show();
        assert_eq!(screen.shown().await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
