//! Retention on the disk: what is due to be forgotten, and what is forgotten and still there.
//!
//! A follower of the journal, like all that makes something of it: it reads the rows from the first
//! one on, and so it knows after a start what a server that was killed had not deleted yet. It only
//! reads. What is due the engine is asked for; what is to be deleted the writer is given, some hundred
//! rows at a time.
//!
//! A row is blanked once nothing can need it: its record is gone by an entry that is safe, and both
//! checkpoints are newer than it, or the only one is and has a twin. So coming back stays possible from
//! either file, and only from these: without a checkpoint a journal of which something is deleted is of
//! no use. Blank rows are removed when they are so many that reading all that is left is worth it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use chatcore::engine::Input;
use chatcore::id::{Index, Seq};
use chatcore::log::Change;
use chatcore::time::Timestamp;

use crate::retention::{Gone, Keep, Ledger};
use crate::store::checkpoint;
use crate::store::database::{Database, Row};
use crate::store::fault::{Fault, StoreError};
use crate::store::folder::Folder;
use crate::store::journal::{Erasure, step_back};
use crate::store::recovery::{ROWS_AT_ONCE, damaged};

/// Finds what is due, what is to be blanked and what is to be removed.
#[derive(Debug)]
pub(crate) struct Sweeper {
    database: Database,
    folder: Arc<Folder>,
    ledger: Ledger,
    /// The last row it has read.
    place: Index,
    /// What is gone and may not be blank yet, in the order in which it went.
    gone: VecDeque<Gone>,
    /// No way back needs rows up to this one.
    floor: Index,
    /// About what blank rows take that were not there yet when rows were removed last.
    blank_bytes: usize,
    /// What all rows took then.
    all_bytes: usize,
    compaction: Option<Compaction>,
}

/// What blank rows must take before they are removed, beside a part of all rows.
const BLANK_BYTES_MIN: usize = 1 << 20;
const BLANK_PART: usize = 4;

/// Blank rows that stay beside one with a record, in bytes of a page: more than the four pages that
/// SQLite may put together.
const MARGIN: usize = 16 << 10;

/// The least of a row that is in its page, when the rest of it is on pages of its own.
const LOCAL_BYTES: usize = 400;

/// Looks for blank rows that are far from any with a record.
#[derive(Debug)]
struct Compaction {
    place: Index,
    /// How much is blank between the last record and here, up to the margin.
    left: usize,
    /// Blank rows that may be too near to the next record, and what they take of their pages.
    run: VecDeque<(Index, usize)>,
    run_bytes: usize,
    all_bytes: usize,
}

impl Compaction {
    const fn new() -> Self {
        // There is nothing before the first row.
        let (place, left) = (Index::ZERO, MARGIN);
        Self { place, left, run: VecDeque::new(), run_bytes: 0, all_bytes: 0 }
    }

    /// Takes in the next row; the rows that can be removed now.
    fn take(&mut self, row: &Row, found: &mut Vec<Index>) {
        self.place = row.head().index;
        self.all_bytes = self.all_bytes.saturating_add(row.bytes);
        match row.change() {
            None if self.left < MARGIN => self.left += row.bytes.min(LOCAL_BYTES),
            None => {
                let bytes = row.bytes.min(LOCAL_BYTES);
                self.run.push_back((self.place, bytes));
                self.run_bytes += bytes;
                while let Some((number, bytes)) = self.run.front().copied()
                    && self.run_bytes - bytes >= MARGIN
                {
                    self.run_bytes -= bytes;
                    self.run.pop_front();
                    found.push(number);
                }
            }
            Some(change) if holds_record(change) => {
                (self.left, self.run_bytes) = (0, 0);
                self.run.clear();
            }
            // Nothing in it is ever deleted.
            Some(_) => {}
        }
    }
}

const fn holds_record(change: &Change) -> bool {
    matches!(
        change,
        Change::Posted { .. }
            | Change::Joined { seq: Some(_), .. }
            | Change::Left { seq: Some(_), .. }
    )
}

impl Sweeper {
    pub(crate) fn new(database: Database, folder: Arc<Folder>, keep: Keep) -> Self {
        Self {
            database,
            folder,
            ledger: Ledger::new(keep),
            place: Index::ZERO,
            gone: VecDeque::new(),
            floor: Index::ZERO,
            blank_bytes: 0,
            all_bytes: 0,
            compaction: None,
        }
    }

    /// Reads on to the end of the journal.
    pub(crate) fn follow(&mut self, stop: &AtomicBool) -> Result<(), StoreError> {
        while !stop.load(Ordering::Relaxed) {
            let rows = self.database.rows_after(self.place, ROWS_AT_ONCE);
            let rows = rows.map_err(|fault| self.wrap(fault))?;
            if rows.is_empty() {
                break;
            }
            for row in rows {
                let head = row.head();
                self.place = head.index;
                match row.change() {
                    Some(change) => {
                        self.gone.extend(self.ledger.follow(head.index, head.at, change));
                    }
                    None => self.blank_bytes = self.blank_bytes.saturating_add(row.bytes),
                }
            }
        }
        Ok(())
    }

    /// What the engine is to be asked for.
    pub(crate) fn due(&self, now: Timestamp) -> Vec<Input> {
        self.ledger.due(now)
    }

    /// The next rows that are to be blanked; the same until they are.
    pub(crate) fn next_erasure(&mut self) -> Result<Option<Erasure>, StoreError> {
        let Some(gone) = self.gone.front() else { return Ok(None) };
        if gone.from.0 > self.floor {
            let path = self.folder.path();
            self.floor = checkpoint::floor(path, gone.from.0)
                .map_err(|source| StoreError::Io { path: path.to_owned(), source })?;
        }
        if gone.from.0 > self.floor {
            return Ok(None);
        }
        let rows = self.rows_of(gone).map_err(|fault| self.wrap(fault))?;
        let (room, incarnation, life) = (gone.room.clone(), gone.incarnation, gone.life);
        Ok(Some(Erasure { room, incarnation, life, rows }))
    }

    /// They are blank.
    pub(crate) fn erased(&mut self) {
        if let Some(gone) = self.gone.pop_front() {
            let bytes = usize::try_from(gone.bytes).unwrap_or(usize::MAX);
            self.blank_bytes = self.blank_bytes.saturating_add(bytes);
        }
    }

    /// The next blank rows that are to be removed, when there are enough of them to look for.
    pub(crate) fn next_removal(
        &mut self,
        stop: &AtomicBool,
    ) -> Result<Option<Vec<Index>>, StoreError> {
        if self.compaction.is_none()
            && self.blank_bytes >= BLANK_BYTES_MIN + self.all_bytes / BLANK_PART
        {
            self.begin_compaction();
        }
        let Some(mut compaction) = self.compaction.take() else { return Ok(None) };
        let mut found = Vec::new();
        while found.len() < ROWS_AT_ONCE && !stop.load(Ordering::Relaxed) {
            let rows = self.database.rows_after(compaction.place, ROWS_AT_ONCE);
            let rows = rows.map_err(|fault| self.wrap(fault))?;
            if rows.is_empty() {
                self.all_bytes = compaction.all_bytes;
                return Ok((!found.is_empty()).then_some(found));
            }
            rows.iter().for_each(|row| compaction.take(row, &mut found));
        }
        self.compaction = Some(compaction);
        Ok(Some(found))
    }

    pub(crate) fn begin_compaction(&mut self) {
        (self.compaction, self.blank_bytes) = (Some(Compaction::new()), 0);
    }

    /// Rows cannot be removed now: it is tried again when there are more.
    pub(crate) fn end_compaction(&mut self) {
        self.compaction = None;
    }

    /// Whether something waits for a newer checkpoint, or for the twin of the newest one.
    pub(crate) fn lacks_checkpoint(&self) -> bool {
        self.gone.front().is_some_and(|gone| gone.from.0 > self.floor)
    }

    fn rows_of(&self, gone: &Gone) -> Result<Vec<(Index, Seq)>, Fault> {
        let (mut place, mut rows) = (gone.from, Vec::new());
        loop {
            let (record, previous) =
                step_back(&self.database, &gone.room, gone.incarnation, place)?;
            if record.seq <= gone.last {
                rows.push(place);
            }
            if record.seq <= gone.first {
                break;
            }
            place = (previous, record.seq.previous());
        }
        rows.reverse();
        Ok(rows)
    }

    fn wrap(&self, fault: Fault) -> StoreError {
        damaged(&self.database, fault)
    }
}
