//! Coming back: the newest checkpoint and the entries after it, all of it checked.
//!
//! A checkpoint that cannot be used is passed over, with a warning, for the one before it and more
//! entries, and at last for the whole journal. A row that cannot be used is the end: every way leads
//! over it. Nothing is ever repaired, cut off or begun anew.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use chatcore::engine::{Archive, Config, Engine, RestoreError};
use chatcore::id::{Digest, Index};
use chatcore::log::{Change, Entry, Head};
use chatcore::time::Now;

use crate::store::checkpoint::{self, Checkpoint};
use crate::store::database::{Database, Row};
use crate::store::fault::{CheckpointError, Fault, Flaw, Hindrance, StoreError};
use crate::store::folder::{Folder, FoundTip, Tip};
use crate::store::lives::Lives;

/// Rows that are read at once: some kilobytes usually, four megabytes at most.
pub(crate) const ROWS_AT_ONCE: usize = 512;

/// What came back.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub(crate) engine: Engine,
    pub(crate) lives: Lives,
    /// The checkpoint that it came back from; 0 when there was none.
    pub(crate) base: Index,
}

/// Why one way back is closed.
pub(crate) enum Blocked {
    /// For the checkpoint's sake: another may do.
    Checkpoint(CheckpointError),
    /// For all.
    Store(StoreError),
}

impl From<CheckpointError> for Blocked {
    fn from(error: CheckpointError) -> Self {
        Self::Checkpoint(error)
    }
}

impl From<StoreError> for Blocked {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Brings back the journal of a folder; `None` when there is none yet.
///
/// # Errors
/// When the journal is damaged, or ends before what is known to have been safe.
pub(crate) fn recover(
    folder: &Folder,
    database: &Database,
    config: &Config,
    now: Now,
) -> Result<Option<Recovered>, StoreError> {
    let last = database.last().map_err(|fault| damaged(database, fault))?;
    let checkpoints = checkpoint::list(folder.path())
        .map_err(|source| StoreError::Io { path: folder.path().to_owned(), source })?;
    let file = folder.tip();
    let tip =
        FoundTip::read(&file).map_err(|source| StoreError::Io { path: file.clone(), source })?;
    hold_against(tip, file, database, last)?;
    if last == Index::ZERO && checkpoints.is_empty() {
        return Ok(None);
    }
    let way = Way { folder, database, config, now, stop: &NEVER };
    way.first_of(&checkpoints).map(Some)
}

static NEVER: AtomicBool = AtomicBool::new(false);

/// Checks that the journal holds the entry that is known to have been safe.
pub(crate) fn hold_against(
    tip: FoundTip,
    file: PathBuf,
    database: &Database,
    last: Index,
) -> Result<(), StoreError> {
    let path = database.path().to_owned();
    let Tip { index, chain } = match tip {
        FoundTip::At(tip) => tip,
        FoundTip::None => return Ok(()),
        FoundTip::Damaged => {
            tracing::warn!(file = %file.display(), "damaged: it cannot tell whether the newest \
                entries are all there");
            return Ok(());
        }
    };
    if last < index {
        return Err(StoreError::Lost { path, last, safe: index, witness: file });
    }
    let fault = |fault| damaged(database, fault);
    // It is not synced: after a power cut it may be of a time before what retention deleted since.
    // Then two checkpoints are newer, and they know better.
    if database.is_deleted(index).map_err(fault)?
        || database.head(index).map_err(fault)?.chain == chain
    {
        return Ok(());
    }
    Err(StoreError::Other { path, index, witness: file })
}

pub(crate) fn damaged(database: &Database, fault: Fault) -> StoreError {
    let path = database.path().to_owned();
    let hindrance = if let Flaw::Sqlite(error) = &fault.flaw { Hindrance::of(error) } else { None };
    match hindrance {
        Some(Hindrance::Full) => StoreError::Full(path),
        Some(Hindrance::Locked) => StoreError::Locked(path),
        None => StoreError::Damaged { path, fault },
    }
}

/// The ways back that a folder allows.
pub(crate) struct Way<'a> {
    pub(crate) folder: &'a Folder,
    pub(crate) database: &'a Database,
    pub(crate) config: &'a Config,
    pub(crate) now: Now,
    /// Set when it is of no more use.
    pub(crate) stop: &'a AtomicBool,
}

impl Way<'_> {
    /// From the first of these checkpoints that can be used, or from the beginning.
    pub(crate) fn first_of(&self, checkpoints: &[Index]) -> Result<Recovered, StoreError> {
        for index in checkpoints {
            match self.by_checkpoint(*index) {
                Ok(recovered) => return Ok(recovered),
                Err(Blocked::Store(error)) => return Err(error),
                Err(Blocked::Checkpoint(error)) => {
                    let file = checkpoint::path_of(self.folder.path(), *index);
                    if let CheckpointError::Newer(found)
                    | CheckpointError::Snapshot(RestoreError::Version { found }) = error
                    {
                        return Err(newer(file, found));
                    }
                    tracing::warn!(file = %file.display(), %error, "passed over");
                }
            }
        }
        self.by_replay()
    }

    fn by_checkpoint(&self, index: Index) -> Result<Recovered, Blocked> {
        self.by(Checkpoint::load(self.folder.path(), index)?)
    }

    pub(crate) fn by(&self, checkpoint: Checkpoint) -> Result<Recovered, Blocked> {
        let index = checkpoint.head.index;
        let last = self.database.last().map_err(|fault| damaged(self.database, fault))?;
        if index > last {
            // It was made of entries that were there.
            let path = self.database.path().to_owned();
            let witness = checkpoint::path_of(self.folder.path(), index);
            return Err(StoreError::Lost { path, last, safe: index, witness }.into());
        }
        self.by_loaded(checkpoint, last)
    }

    pub(crate) fn by_loaded(
        &self,
        checkpoint: Checkpoint,
        last: Index,
    ) -> Result<Recovered, Blocked> {
        let Checkpoint { head, state_hash, lives, snapshot } = checkpoint;
        let elsewhere = || CheckpointError::Elsewhere(head.index);
        let found = self.database.head(head.index);
        if found.map_err(|fault| damaged(self.database, fault))? != head {
            return Err(elsewhere().into());
        }
        let bare = Engine::restore(&snapshot, [], self.config.clone(), self.now)
            .map_err(CheckpointError::Snapshot)?;
        if bare.head() != head {
            return Err(elsewhere().into());
        }
        let (found, expected) = (bare.state_hash(), state_hash);
        if found != expected {
            return Err(CheckpointError::State { found, expected }.into());
        }
        if last == head.index {
            return Ok(Recovered { engine: bare, lives, base: head.index });
        }
        drop(bare);
        let mut tail = Tail::after(self.database, head, lives, self.stop);
        let restored = Engine::restore(&snapshot, tail.by_ref(), self.config.clone(), self.now);
        let lives = tail.end(self.database)?;
        let engine = restored.map_err(CheckpointError::Snapshot)?;
        Ok(Recovered { engine, lives, base: head.index })
    }

    pub(crate) fn by_replay(&self) -> Result<Recovered, StoreError> {
        let fault = |fault| damaged(self.database, fault);
        let one = Index::ZERO.next();
        let first = self.database.rows_after(Index::ZERO, 1).map_err(fault)?;
        let first = first.into_iter().next().ok_or(Flaw::Missing);
        let first = first.map_err(|flaw| fault(Fault::entry(one, flaw)))?;
        let head = first.beginning().map_err(fault)?;
        let mut tail = Tail::after(self.database, head, Lives::default(), self.stop);
        let replayed = Engine::replay(tail.by_ref(), self.config.clone(), self.now);
        let lives = tail.end(self.database)?;
        let path = self.database.path().to_owned();
        let engine = replayed.map_err(|source| StoreError::Replay { path, source })?;
        Ok(Recovered { engine, lives, base: Index::ZERO })
    }
}

fn newer(path: PathBuf, found: u16) -> StoreError {
    StoreError::Newer { path, found: found.into(), known: checkpoint::LAYOUT.into() }
}

impl Row {
    /// The head of the journal that this row begins, if it does.
    pub(crate) fn beginning(&self) -> Result<Head, Fault> {
        let Some(Change::Founded(founding)) = self.change() else {
            return Err(Fault::entry(self.head().index, Flaw::Founding));
        };
        Ok(Head::new(founding.log_id))
    }
}

/// The entries after a head, read bit by bit and checked. It ends at the last one, or at the first
/// that cannot be trusted.
pub(crate) struct Tail<'a> {
    database: &'a Database,
    head: Head,
    lives: Lives,
    rows: std::vec::IntoIter<Row>,
    stop: &'a AtomicBool,
    end: Option<End>,
}

/// Why a tail ended.
enum End {
    Last,
    Stopped,
    Fault(Fault),
}

impl<'a> Tail<'a> {
    pub(crate) fn after(
        database: &'a Database,
        head: Head,
        lives: Lives,
        stop: &'a AtomicBool,
    ) -> Self {
        Self { database, head, lives, rows: Vec::new().into_iter(), stop, end: None }
    }

    fn read(&mut self) -> Result<Option<Entry>, Fault> {
        if self.rows.len() == 0 {
            self.rows = self.database.rows_after(self.head.index, ROWS_AT_ONCE)?.into_iter();
        }
        let Some(row) = self.rows.next() else { return Ok(None) };
        let place = self.head.index.next();
        if row.change().is_none() {
            return Err(Fault::entry(place, Flaw::Deleted));
        }
        if row.head().index != place {
            return Err(Fault::entry(place, Flaw::Missing));
        }
        let (entry, previous) = row.verify(&mut self.head)?;
        let link = self.lives.follow(&entry).map_err(|flaw| Fault::entry(place, flaw))?;
        if previous != link.map_or(Index::ZERO, |link| link.previous) {
            return Err(Fault::entry(place, Flaw::Previous));
        }
        Ok(Some(entry))
    }

    /// What the rooms are like after the last entry, if all could be read.
    pub(crate) fn end(self, database: &Database) -> Result<Lives, StoreError> {
        match self.end {
            Some(End::Fault(fault)) => Err(damaged(database, fault)),
            Some(End::Stopped) => Err(StoreError::Stopped),
            Some(End::Last) | None => Ok(self.lives),
        }
    }
}

impl Iterator for Tail<'_> {
    type Item = Entry;

    fn next(&mut self) -> Option<Entry> {
        if self.end.is_some() {
            return None;
        }
        if self.stop.load(Ordering::Relaxed) {
            self.end = Some(End::Stopped);
            return None;
        }
        match self.read() {
            Ok(Some(entry)) => return Some(entry),
            Ok(None) => self.end = Some(End::Last),
            Err(fault) => self.end = Some(End::Fault(fault)),
        }
        None
    }
}

/// Makes a checkpoint of all that is in the journal, and removes those that are two older. When there is
/// one already, it gets a twin, and all that are older are removed.
///
/// Bounded in memory by the state twice over, and never by the history: entries pass through.
pub(crate) fn make_checkpoint(way: &Way<'_>) -> Result<Index, CheckpointFailure> {
    let config = Config { archive: Archive::Store, ..way.config.clone() };
    let way = Way { config: &config, ..*way };
    let folder = way.folder.path();
    let checkpoints = checkpoint::list(folder)?;
    let Recovered { engine, lives, base } = way.first_of(&checkpoints)?;
    let snapshot = engine.snapshot().ok_or(CheckpointFailure::NotLevel)?;
    let (head, state_hash): (Head, Digest) = (engine.head(), engine.state_hash());
    drop(engine);
    if head.index > base {
        // It must not know of more than the disk has: a power cut would make that a loss.
        if let Some(log) = way.database.open_log()? {
            log.sync_data().map_err(CheckpointFailure::Sync)?;
        }
        Checkpoint { head, state_hash, lives, snapshot }.save(folder)?;
        checkpoint::remove_before(folder, base)?;
    } else {
        checkpoint::double(folder, head.index)?;
        checkpoint::remove_before(folder, head.index)?;
    }
    Ok(head.index)
}

/// Why there is no new checkpoint.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CheckpointFailure {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("it cannot be written: {0}")]
    Io(#[from] io::Error),
    #[error("the journal cannot be synced before ({0}): none is made any more")]
    Sync(io::Error),
    #[error("an engine without a journal of its own must be level")]
    NotLevel,
}
