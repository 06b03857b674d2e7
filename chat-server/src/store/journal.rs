//! The journal as the server writes it, and its history as readers ask for it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chatcore::engine::ReadOrder;
use chatcore::id::{Incarnation, Index, Seq};
use chatcore::log::{Entry, Head};
use chatcore::text::RoomName;
use chatcore::wire::{LIST_MAX, Record, RecordBody};

use crate::store::database::{Database, NewRow};
use crate::store::fault::{Fault, Flaw, Hindrance, StoreFailure};
use crate::store::folder::TipFile;
use crate::store::lives::{ANCHOR_INTERVAL, Draft, Life, Lives};

/// What keeps a journal: the seam to whatever the disk is.
pub(crate) trait Store: Send {
    /// Makes entries safe, all of them or none. They follow those that were appended before.
    fn append(&mut self, entries: &[Arc<Entry>]) -> Result<(), AppendError>;

    /// Puts the house in order. Called when entries are safe and nobody waits for them any more.
    fn tidy(&mut self) -> Result<(), AppendError>;

    /// Blanks records, all of them or none.
    fn erase(&mut self, erasure: &Erasure) -> Result<(), AppendError>;

    /// Removes blank rows, all of them or none.
    fn remove(&mut self, rows: &[Index]) -> Result<(), AppendError>;

    /// Makes what was blanked unreadable in every file, unless somebody reads just now; whether it is.
    fn purge(&mut self) -> Result<bool, AppendError>;

    /// Called once, when nothing will be appended any more.
    fn close(&mut self) -> Result<(), AppendError>;
}

/// What finds records in a journal.
pub(crate) trait History: Send {
    /// Records of a range, oldest first and without holes.
    fn records(&mut self, wanted: &Wanted) -> Result<Vec<Record>, Fault>;
}

/// Why entries were not kept.
#[derive(Debug)]
pub(crate) enum AppendError {
    /// They cannot be kept now; nothing was kept, and trying again is right.
    Hindered(Hindrance),
    /// The store is of no more use.
    Failed(StoreFailure),
}

/// Records that are to be blanked: the oldest that are left of a life of a room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Erasure {
    pub(crate) room: RoomName,
    pub(crate) incarnation: Incarnation,
    /// The entry that this life of the room began with.
    pub(crate) life: Index,
    /// Where they are, oldest first.
    pub(crate) rows: Vec<(Index, Seq)>,
}

/// Records that are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) room: RoomName,
    pub(crate) incarnation: Incarnation,
    pub(crate) from: Seq,
    pub(crate) to: Seq,
    pub(crate) order: ReadOrder,
}

/// The newest records of rooms, shared between who writes and who reads. It is locked for moments.
#[derive(Clone, Debug, Default)]
pub(crate) struct SharedLives(Arc<Mutex<Lives>>);

impl SharedLives {
    pub(crate) fn new(lives: Lives) -> Self {
        Self(Arc::new(Mutex::new(lives)))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Lives> {
        // A thread that panicked with it ends the server anyway.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A journal that is written.
#[derive(Debug)]
pub(crate) struct Journal {
    database: Database,
    head: Head,
    lives: SharedLives,
    /// Where it is noted how far the journal reaches.
    tip: Option<TipFile>,
    tip_failed: bool,
    /// About how many pages the write-ahead log has.
    log_pages: u64,
}

/// Pages of the write-ahead log after which it is moved into the database: 4 MiB, as SQLite itself
/// would do. It holds up one commit for some milliseconds.
const LOG_PAGES_MAX: u64 = 1_000;

/// Entries that fill a page, about, and pages that every commit writes beside those.
const ENTRIES_A_PAGE: u64 = 16;
const PAGES_A_COMMIT: u64 = 2;

impl Journal {
    pub(crate) fn new(
        database: Database,
        head: Head,
        lives: SharedLives,
        tip: Option<TipFile>,
    ) -> Self {
        // A server before this one may have left a long one, which nobody else counts.
        let log_pages = database.log_pages();
        Self { database, head, lives, tip, tip_failed: false, log_pages }
    }

    /// Goes on after entries that are deleted where this journal comes from.
    pub(crate) fn skip(&mut self, head: Head) -> Result<(), AppendError> {
        self.database.append_blank(&head).map_err(sort)?;
        self.head = head;
        Ok(())
    }

    /// Moves all of the log into the database, so that this file alone is the journal.
    pub(crate) fn settle(&self) -> Result<(), AppendError> {
        match self.database.purge() {
            Ok(true) => Ok(()),
            Ok(false) => Err(AppendError::Hindered(Hindrance::Locked)),
            Err(error) => Err(sort(error)),
        }
    }

    /// Counts rows that were changed, at worst each on a page of its own.
    fn count_rows(&mut self, count: usize) {
        self.log_pages += PAGES_A_COMMIT + u64::try_from(count).unwrap_or(u64::MAX);
    }

    fn note_tip(&mut self) {
        let written = self.tip.as_ref().map_or(Ok(()), |tip| tip.write(&self.head));
        // The entries are safe all the same; only a second fault would make it matter.
        if let Err(error) = written
            && !std::mem::replace(&mut self.tip_failed, true)
        {
            tracing::warn!(%error, "cannot note beside the journal how far it reaches");
        }
    }
}

impl Store for Journal {
    fn append(&mut self, entries: &[Arc<Entry>]) -> Result<(), AppendError> {
        let safe = self.lives.lock();
        let mut draft = Draft::over(&safe);
        let mut head = self.head;
        let mut rows = Vec::with_capacity(entries.len());
        for entry in entries {
            let wrong = |flaw| AppendError::Failed(StoreFailure::Entry(flaw));
            head.follow(entry).map_err(|error| wrong(Flaw::Order(error)))?;
            let link = draft.follow(entry).map_err(wrong)?;
            rows.push(NewRow { entry, chain: head.chain, link });
        }
        let changed = draft.into_changed();
        // Whoever reads need not wait for the disk.
        drop(safe);
        self.database.append(&rows).map_err(sort)?;
        self.lives.lock().extend(changed);
        self.head = head;
        let count = u64::try_from(entries.len()).unwrap_or(u64::MAX);
        self.log_pages += PAGES_A_COMMIT + count / ENTRIES_A_PAGE;
        self.note_tip();
        Ok(())
    }

    fn tidy(&mut self) -> Result<(), AppendError> {
        if self.log_pages < LOG_PAGES_MAX {
            return Ok(());
        }
        self.log_pages = 0;
        match self.database.checkpoint(false).map_err(sort) {
            // What is in the log is as safe there, and it goes on growing until it fits.
            Err(AppendError::Hindered(_)) | Ok(()) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn erase(&mut self, erasure: &Erasure) -> Result<(), AppendError> {
        let Erasure { room, incarnation, life, rows } = erasure;
        let Some((_, last)) = rows.last() else { return Ok(()) };
        // Whoever comes upon the hole has to find it named.
        self.lives.lock().delete(room, *incarnation, *last);
        self.database.blank(*life, rows).map_err(sort)?;
        self.count_rows(rows.len());
        Ok(())
    }

    fn remove(&mut self, rows: &[Index]) -> Result<(), AppendError> {
        self.database.remove(rows).map_err(sort)?;
        self.count_rows(rows.len());
        Ok(())
    }

    fn purge(&mut self) -> Result<bool, AppendError> {
        match self.database.purge().map_err(sort) {
            Ok(purged) => {
                self.log_pages = if purged { 0 } else { self.log_pages };
                Ok(purged)
            }
            Err(AppendError::Hindered(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn close(&mut self) -> Result<(), AppendError> {
        match self.database.checkpoint(true).map_err(sort) {
            Err(AppendError::Hindered(_)) | Ok(()) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Tells what passes from what does not.
fn sort(error: rusqlite::Error) -> AppendError {
    match Hindrance::of(&error) {
        Some(hindrance) => AppendError::Hindered(hindrance),
        None => AppendError::Failed(StoreFailure::Write(error)),
    }
}

/// Records that one read gives forwards: what a reader that lags is sent at once.
const FORWARD_MAX: u64 = 2 * ANCHOR_INTERVAL;

/// Records that one read gives backwards: all that one answer can hold.
const BACKWARD_MAX: u64 = LIST_MAX as u64;

/// A journal that is read.
#[derive(Debug)]
pub(crate) struct Records {
    database: Database,
    lives: SharedLives,
    page_bytes: usize,
}

impl Records {
    /// `page_bytes` is about the most that one read gives, a record in any case.
    pub(crate) fn new(database: Database, lives: SharedLives, page_bytes: usize) -> Self {
        Self { database, lives, page_bytes }
    }

    /// Where walking back to `to` begins: at the next anchor, or at the newest record.
    fn start(&self, life: Life, to: Seq) -> Result<(Index, Seq), Fault> {
        let anchor = to.get().next_multiple_of(ANCHOR_INTERVAL);
        let seq = Seq::new(anchor).unwrap_or(Seq::MAX);
        if seq > life.last {
            return Ok((life.newest, life.last));
        }
        let number = self.database.anchor(life.began, seq);
        let missing = |flaw| Fault::anchor(life.newest, flaw);
        let number = number.map_err(missing)?.ok_or_else(|| missing(Flaw::Anchor(seq)))?;
        Ok((number, seq))
    }
}

impl History for Records {
    fn records(&mut self, wanted: &Wanted) -> Result<Vec<Record>, Fault> {
        loop {
            let life = self.lives.lock().get(&wanted.room);
            // A life that ended while it was asked about is nobody's any more.
            let current = |life: &Life| life.incarnation == wanted.incarnation;
            let Some(life) = life.filter(current) else { return Ok(Vec::new()) };
            let read = self.read(wanted, life);
            let now = self.lives.lock().get(&wanted.room);
            // Rows may be deleted while they are walked over: then there are fewer to walk over.
            let is_hole = now.filter(current).is_none_or(|now| now.deleted > life.deleted);
            if read.is_ok() || !is_hole {
                return read;
            }
        }
    }
}

impl Records {
    /// Reads as many rows as it gives records, at most 63 more, and before each the one that it is
    /// checked against.
    fn read(&self, wanted: &Wanted, life: Life) -> Result<Vec<Record>, Fault> {
        let Wanted { room, from, to, order, .. } = wanted;
        let (from, to) = cut((*from).max(life.deleted.next()), (*to).min(life.last), *order);
        if from > to {
            return Ok(Vec::new());
        }
        let (mut number, mut seq) = self.start(life, to)?;
        let (mut records, mut bytes) = (Vec::new(), 0_usize);
        while seq >= from {
            let place = (number, seq);
            let (record, previous) = step_back(&self.database, room, life.incarnation, place)?;
            if seq <= to {
                bytes = bytes.saturating_add(size(&record));
                if *order == ReadOrder::Backward && bytes > self.page_bytes && !records.is_empty() {
                    break;
                }
                records.push(record);
            }
            if seq == Seq::ZERO.next() {
                break;
            }
            (number, seq) = (previous, seq.previous());
        }
        records.reverse();
        if *order == ReadOrder::Forward {
            keep_first(&mut records, self.page_bytes);
        }
        Ok(records)
    }
}

/// The record in a row, and the row of the one before, for whoever walks back along a life.
pub(crate) fn step_back(
    database: &Database,
    room: &RoomName,
    incarnation: Incarnation,
    (number, seq): (Index, Seq),
) -> Result<(Record, Index), Fault> {
    let (entry, previous) = database.entry(number)?;
    let record = entry.record().filter(|record| {
        (&record.room, record.incarnation, record.seq) == (room, incarnation, seq)
    });
    let record = record.ok_or_else(|| Fault::entry(number, Flaw::Record))?;
    // It goes back: one that did not could be walked for ever.
    if previous >= number || (previous == Index::ZERO && seq > Seq::ZERO.next()) {
        return Err(Fault::entry(number, Flaw::Previous));
    }
    Ok((record, previous))
}

/// The part of a range that is read at once, from the end that matters. Forwards it ends with an
/// anchor if it can, so that nothing is read in vain.
fn cut(from: Seq, to: Seq, order: ReadOrder) -> (Seq, Seq) {
    let from = from.max(Seq::ZERO.next());
    match order {
        ReadOrder::Backward => (from.max(to.next().saturating_sub(BACKWARD_MAX)), to),
        ReadOrder::Forward => {
            let most = from.saturating_add(FORWARD_MAX - 1);
            if to <= most {
                return (from, to);
            }
            let anchor = most.get() / ANCHOR_INTERVAL * ANCHOR_INTERVAL;
            (from, Seq::new(anchor).unwrap_or(most))
        }
    }
}

/// Cuts off what is more than `bytes_max`, but for the first.
fn keep_first(records: &mut Vec<Record>, bytes_max: usize) {
    let mut bytes = 0_usize;
    let fitting = records.iter().take_while(|record| {
        bytes = bytes.saturating_add(size(record));
        bytes <= bytes_max
    });
    let count = fitting.count().max(1);
    records.truncate(count);
}

/// About what a record takes on the wire.
fn size(record: &Record) -> usize {
    const REST: usize = 24;
    let said = match &record.body {
        RecordBody::Post { from, text } => from.as_str().len().saturating_add(text.as_str().len()),
        RecordBody::Joined { user } | RecordBody::Left { user } => user.as_str().len(),
    };
    REST.saturating_add(record.room.as_str().len()).saturating_add(said)
}
