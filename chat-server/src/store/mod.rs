//! The durable store: a follower of the journal, on disk.
//!
//! Entries go in, and the word that they are safe comes out; it decides nothing. What is in the
//! folder:
//!
//! | file | what |
//! |---|---|
//! | `server.key` | who the server is; the journal's founding names it |
//! | `lock` | locked while a server uses the folder |
//! | `journal.db`, `-wal`, `-shm` | the journal, in SQLite (`database`) |
//! | `tip` | the last entry that was safe, so that a loss is noticed (`folder`) |
//! | `checkpoint-N`, `.twin` | the state after entry N, the newest two, or one twice (`checkpoint`) |
//!
//! Who does what: `journal` writes groups of entries and finds records; `threads` keeps the engine
//! from waiting for any of it; `recovery` brings the engine back; `check` verifies everything;
//! `transfer` writes the journal as JSON lines and reads them; `sweep` finds what retention takes;
//! `backup` copies a folder that is in use.
//!
//! **When an entry is safe.** With [`Durability::Commit`], when the disk says that it has it: a
//! `kill -9` or a power cut costs nothing that was acknowledged. With [`Durability::Relaxed`], when
//! the operating system has it: a `kill -9` costs nothing, a power cut may cost the newest moments.
//! The next start then refuses, unless the power cut took the newest `tip`, too: clients may have seen
//! what is gone, and would take what gets its numbers next for what they have. Whoever removes `tip`
//! accepts that.
//!
//! What a start finds in the write-ahead log may never have reached the disk: a server that is killed
//! between writing and syncing leaves it to the memory of the system. So before anything else a start
//! writes that log once more, as it is, and syncs it; it holds some megabytes.
//!
//! **Faults.** A full disk stops admission and nothing else, until there is space. Any other error
//! of writing or syncing ends the server: what the system could not write it may have forgotten, so
//! trying again would prove nothing. Rows are checked whenever they are read: those after the newest
//! checkpoint at the start, a page of history when somebody asks for it, all by `chat-server check`.
//! What does not fit is refused and named. Retention that comes upon it rests for a minute.
//!
//! **Retention.** Records that an entry trimmed are blanked once two files of checkpoints are newer than
//! them, which retention asks for: zeros are written over them, and the write-ahead log, which still has them,
//! is moved into the database and emptied. When a megabyte and a quarter of all is blank, the rows are
//! removed and their space is used again by what comes next; the file does not become shorter. A server
//! that is killed in between goes on at the next start, whatever that keeps: the layout says that
//! something was trimmed once.
//!
//! **Cost.** A commit is one sync, whatever the number of entries in it. Memory does not grow with
//! the history: per room one life of about 100 bytes is kept, and while a checkpoint is made the
//! state a second time, and its encoding. A start reads the newest checkpoint and at most about
//! [`CHECKPOINT_BYTES`] of entries, twice as many when it is killed while one is being made.

mod backup;
mod check;
mod checkpoint;
mod database;
mod fault;
mod folder;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
mod journal;
mod lives;
mod recovery;
mod sweep;
#[cfg(test)]
mod tests;
mod threads;
mod transfer;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use chatcore::engine::{Config, Engine};
use chatcore::id::PublicKey;
use chatcore::log::{Founding, Head};
use chatcore::time::Now;

pub use backup::{BackedUp, BackupError, BackupStep, backup};
pub use check::{Checked, Finding, Note, check};
pub(crate) use checkpoint::newest as newest_checkpoint;
pub use fault::{Fault, Flaw, StoreError, StoreFailure};
pub use folder::OpenFolder;
pub(crate) use folder::{
    Folder, FolderError, JOURNAL, bytes_in, make_folder, private, publish, sync_folder,
};
pub(crate) use journal::Wanted;
pub(crate) use threads::{Answer, Closed, Keeper};
pub use transfer::{LineFlaw, TransferError, TransferStep, export, import};

use crate::retention::Keep;
use database::{Access, Database};
use folder::{FoundTip, TIP, TipFile};
use journal::{Journal, Records, SharedLives};
use lives::Lives;
use recovery::{CheckpointFailure, Recovered, Way};
use sweep::Sweeper;
use threads::Parts;

/// Where a server keeps what it acknowledges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Storage {
    /// Nowhere: it is gone when the server stops.
    #[default]
    Ephemeral,
    /// In a folder.
    Folder {
        /// The folder, made if it is not there.
        path: PathBuf,
        /// When something counts as kept.
        durability: Durability,
    },
}

/// When an entry counts as kept, and is acknowledged and shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// When the disk has it.
    #[default]
    Commit,
    /// When the operating system has it: faster, and a power cut may cost the newest moments.
    Relaxed,
}

/// Bytes of entries after which a checkpoint is made: about 120,000 messages of a line each. A start
/// replays them in half a second.
const CHECKPOINT_BYTES: u64 = 32 << 20;

/// An engine whose journal is kept.
pub(crate) struct Opened {
    pub(crate) engine: Engine,
    pub(crate) parts: Parts,
}

/// Opens the store of a folder and brings back the engine in it, or founds a new one when the folder
/// holds none.
///
/// # Errors
/// When the folder is in use, or what is in it cannot be used; nothing in it is changed then.
pub(crate) fn open(
    path: &Path,
    durability: Durability,
    founding: Founding,
    config: &Config,
    keep: Keep,
    now: Now,
) -> Result<Opened, StoreError> {
    let folder = Folder::lock(path)?;
    let file = folder.database();
    let wrap = |path: &Path, source| StoreError::Io { path: path.to_owned(), source };
    if !file.try_exists().map_err(|error| wrap(&file, error))? {
        expect_no_trace(path)?;
        database::create(&file, folder.path())?;
    }
    let database = Database::open(&file, Access::Write(durability))?;
    // Before anything in it is taken for safe, and shown to anybody.
    database.secure_log()?;
    sync_folder(path).map_err(|error| wrap(path, error))?;
    let begun = match recovery::recover(&folder, &database, config, now)? {
        Some(recovered) => Begun::again(recovered, founding.server_key, &file)?,
        None => Begun::anew(founding, config, now)?,
    };
    let lives = SharedLives::new(begun.lives);
    let tip = TipFile::open(&folder.tip()).map_err(|error| wrap(&folder.tip(), error))?;
    let page_bytes = config.limits.page_bytes;
    let records = Records::new(Database::open(&file, Access::Read)?, lives.clone(), page_bytes);
    let folder = Arc::new(folder);
    let checkpointer = checkpointer(Arc::clone(&folder), config.clone());
    // What was forgotten once is deleted, whatever is kept from now on, and the log emptied.
    let sweeper = if keep.is_everything() && !database.has_trimmed()? {
        None
    } else {
        Some(Sweeper::new(Database::open(&file, Access::Read)?, Arc::clone(&folder), keep))
    };
    let parts = Parts {
        store: Box::new(Journal::new(database, begun.head, lives, Some(tip))),
        history: Box::new(records),
        checkpointer: Box::new(checkpointer),
        sweeper,
        checkpoint_bytes: CHECKPOINT_BYTES,
        since_checkpoint: begun.since_checkpoint,
        folder,
    };
    Ok(Opened { engine: begun.engine, parts })
}

/// What a server begins with.
struct Begun {
    engine: Engine,
    /// Where the journal on the disk ends.
    head: Head,
    lives: Lives,
    /// Bytes of entries since the newest checkpoint, about.
    since_checkpoint: u64,
}

impl Begun {
    /// With what the folder holds, if it is this server's.
    fn again(recovered: Recovered, key: PublicKey, file: &Path) -> Result<Self, StoreError> {
        let Recovered { engine, lives, base } = recovered;
        let founder = engine.founding().server_key;
        if founder != key {
            return Err(StoreError::OtherKey { path: file.to_owned(), founder, key });
        }
        let head = engine.head();
        let since_checkpoint = head.index.since(base).saturating_mul(threads::ENTRY_BYTES);
        Ok(Self { engine, head, lives, since_checkpoint })
    }

    /// With a new journal. Its founding is the first entry to be kept.
    fn anew(founding: Founding, config: &Config, now: Now) -> Result<Self, StoreError> {
        let head = Head::new(founding.log_id);
        let engine = Engine::found(founding, config.clone(), now)?;
        Ok(Self { engine, head, lives: Lives::default(), since_checkpoint: 0 })
    }
}

/// Where there is no database there must be no trace of one: a journal that is gone is never taken
/// for one that never was.
fn expect_no_trace(folder: &Path) -> Result<(), StoreError> {
    let at = |source| StoreError::Io { path: folder.to_owned(), source };
    let path = folder.join(JOURNAL);
    let checkpoints = checkpoint::list(folder).map_err(at)?;
    let tip = FoundTip::read(&folder.join(TIP)).map_err(at)?;
    let log = path.with_extension("db-wal");
    let witness = match (checkpoints.first(), tip) {
        (Some(index), _) => checkpoint::path_of(folder, *index),
        (None, FoundTip::At(_) | FoundTip::Damaged) => folder.join(TIP),
        (None, FoundTip::None) if log.try_exists().map_err(at)? => log,
        (None, FoundTip::None) => return Ok(()),
    };
    Err(StoreError::Gone { path, witness })
}

/// Whoever reads a folder says the same of a journal that is gone.
fn expect_journal(folder: &Path) -> Result<(), StoreError> {
    if folder.join(JOURNAL).is_file() {
        return Ok(());
    }
    if folder.is_dir() {
        expect_no_trace(folder)?;
    }
    Err(StoreError::Absent(folder.to_owned()))
}

/// Makes a checkpoint each time it is called.
fn checkpointer(folder: Arc<Folder>, mut config: Config) -> impl FnMut(&AtomicBool) + Send {
    // Records are in the journal: this engine serves nobody.
    config.limits.window_bytes = 0;
    // After a sync that failed the next one may say that all is well.
    let mut sync_failed = false;
    move |stop| {
        if sync_failed {
            return;
        }
        let made = Database::open(&folder.database(), Access::Read)
            .map_err(CheckpointFailure::Store)
            .and_then(|database| {
                let (folder, database, config) = (&*folder, &database, &config);
                let now = Now::default();
                recovery::make_checkpoint(&Way { folder, database, config, now, stop })
            });
        match made {
            Ok(index) => tracing::debug!(%index, "checkpoint made"),
            Err(CheckpointFailure::Store(StoreError::Stopped)) => {}
            Err(error) => {
                sync_failed = matches!(error, CheckpointFailure::Sync(_));
                tracing::error!(%error, "no checkpoint could be made");
            }
        }
    }
}
