//! Retention on the disk: what is due to be forgotten, and what is forgotten and still there.
//!
//! A follower of the journal, like all that makes something of it: it reads the rows from the first
//! one on, and so it knows after a start what a server that was killed had not deleted yet. It only
//! reads. What is due the engine is asked for; what is to be deleted the writer is given, some hundred
//! rows at a time.
//!
//! A row is deleted once nothing can need it: its record is gone by an entry that is safe, and both
//! checkpoints are newer than it. So coming back stays possible from either of them, and only from
//! them: without a checkpoint a journal of which something is deleted is of no use.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use chatcore::engine::Input;
use chatcore::id::{Index, Seq};
use chatcore::time::Timestamp;

use crate::retention::{Gone, Keep, Ledger};
use crate::store::checkpoint;
use crate::store::database::Database;
use crate::store::fault::{Fault, StoreError};
use crate::store::folder::Folder;
use crate::store::journal::{Erasure, step_back};
use crate::store::recovery::{ROWS_AT_ONCE, damaged};

/// Rooms that the engine is asked to trim in one round: it takes a part of a millisecond for each.
const TRIMS_A_ROUND: usize = 64;

/// Finds what is due and what is to be deleted.
#[derive(Debug)]
pub(crate) struct Sweeper {
    database: Database,
    folder: Arc<Folder>,
    ledger: Ledger,
    /// The last row it has read.
    place: Index,
    /// What is gone and may still be there, in the order in which it went.
    gone: VecDeque<Gone>,
    /// No way back needs rows up to this one.
    floor: Index,
}

impl Sweeper {
    pub(crate) fn new(database: Database, folder: Arc<Folder>, keep: Keep) -> Self {
        let (ledger, place) = (Ledger::new(keep), Index::ZERO);
        Self { database, folder, ledger, place, gone: VecDeque::new(), floor: place }
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
                if let Some(change) = row.change() {
                    self.gone.extend(self.ledger.follow(head.index, head.at, change));
                }
            }
        }
        Ok(())
    }

    /// What the engine is to be asked for.
    pub(crate) fn due(&self, now: Timestamp) -> Vec<Input> {
        self.ledger.due(now, TRIMS_A_ROUND)
    }

    /// The next rows that are to be deleted; the same until they are.
    pub(crate) fn next_erasure(&mut self) -> Result<Option<Erasure>, StoreError> {
        let Some(gone) = self.gone.front() else { return Ok(None) };
        if gone.from.0 > self.floor {
            let path = self.folder.path();
            self.floor = checkpoint::floor(path)
                .map_err(|source| StoreError::Io { path: path.to_owned(), source })?;
        }
        if gone.from.0 > self.floor {
            return Ok(None);
        }
        let rows = self.rows_of(gone).map_err(|fault| self.wrap(fault))?;
        let (room, incarnation, life) = (gone.room.clone(), gone.incarnation, gone.life);
        Ok(Some(Erasure { room, incarnation, life, rows }))
    }

    /// They are deleted.
    pub(crate) fn erased(&mut self) {
        self.gone.pop_front();
    }

    /// Whether something waits for a newer checkpoint, and there is one to be made.
    pub(crate) fn lacks_checkpoint(&self) -> bool {
        let newest = checkpoint::list(self.folder.path());
        let newest = newest.ok().and_then(|list| list.first().copied());
        !self.gone.is_empty() && newest.is_none_or(|newest| newest < self.place)
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
