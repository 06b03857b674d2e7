//! What can be wrong with a store, and where.

use std::io;
use std::path::{Path, PathBuf};

use chatcore::engine::RestoreError;
use chatcore::id::{Digest, Index, PublicKey, Seq};
use chatcore::limits::LimitsError;
use chatcore::log::ChainError;
use chatcore::wire::DecodeFault;
use rusqlite::{ErrorCode, ffi};

use crate::store::folder::OpenFolder;

/// A row that cannot be trusted, or not be read.
#[derive(Debug, PartialEq, thiserror::Error)]
#[error("table {table}, row {row}: {flaw}")]
pub struct Fault {
    /// The table of the database.
    pub table: &'static str,
    /// The row; of the table `anchor`, the row of `entry` that it should name.
    pub row: u64,
    /// What is wrong.
    pub flaw: Flaw,
}

/// What is wrong with a row.
#[derive(Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Flaw {
    /// It is not there.
    #[error("it is missing")]
    Missing,
    /// Retention deleted it, and there is no other way than over it.
    #[error("retention deleted it, and no checkpoint after it can be used")]
    Deleted,
    /// Records before it are deleted that nothing trimmed.
    #[error("records before it are deleted, and no entry says that they may be")]
    Untrimmed,
    /// A number is out of range.
    #[error("a number in it is out of range")]
    Number,
    /// The change is no change, or not in canonical form.
    #[error("what it holds is damaged: {0}")]
    Change(DecodeFault),
    /// It does not follow the row before.
    #[error(transparent)]
    Order(#[from] ChainError),
    /// It, or the row before, is not what was written: the chain of digests does not fit.
    #[error("it or the row before it is damaged: the chain does not fit")]
    Chain,
    /// It is not the next record of its room.
    #[error("it is not the next record of its room")]
    Record,
    /// It names another row than the one with the record before.
    #[error("it does not name the record before it")]
    Previous,
    /// It is the first, and founds no journal.
    #[error("the journal does not begin with its founding")]
    Founding,
    /// The record is not found where it should be.
    #[error("no row names record {0} of its room")]
    Anchor(Seq),
    /// SQLite cannot read it.
    #[error("{0}")]
    Sqlite(rusqlite::Error),
}

impl Fault {
    pub(crate) fn entry(row: Index, flaw: Flaw) -> Self {
        Self { table: "entry", row: row.get(), flaw }
    }

    pub(crate) fn anchor(row: Index, flaw: Flaw) -> Self {
        Self { table: "anchor", row: row.get(), flaw }
    }
}

/// Why a store cannot be used. Nothing in it was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another process uses it.
    #[error(
        "the data folder {} is in use by another chat-server; stop that first, or name another \
         folder with --data",
        .0.display()
    )]
    InUse(PathBuf),
    /// Others may get into it.
    #[error(transparent)]
    OpenFolder(#[from] OpenFolder),
    /// There is no store.
    #[error("there is no chat in {}", .0.display())]
    Absent(PathBuf),
    /// It is of a newer program.
    #[error(
        "{} is of a newer chat-server (layout {found}, this program knows {known}); \
         it was left as it is",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its layout.
        found: u32,
        /// The newest layout that this program knows.
        known: u32,
    },
    /// A file is not what its name says.
    #[error("{} is no journal of a chat-server", .0.display())]
    NotAJournal(PathBuf),
    /// Rows are damaged.
    #[error("{}: {fault}; restore the folder from a backup", path.display())]
    Damaged {
        /// The database.
        path: PathBuf,
        /// Where and what.
        fault: Fault,
    },
    /// The journal ends before what was acknowledged.
    #[error(
        "{} ends with entry {last}, but entries through {safe} were there before: the newest are \
         lost. Restore the folder from a backup; to go on without them, remove {}",
        path.display(), witness.display()
    )]
    Lost {
        /// The database.
        path: PathBuf,
        /// Its last entry.
        last: Index,
        /// The last entry that is known to have been there.
        safe: Index,
        /// The file that knows.
        witness: PathBuf,
    },
    /// There is no journal, though there was one.
    #[error(
        "{} is gone, and {} is left of it: restore the folder from a backup, or name another with \
         --data",
        path.display(), witness.display()
    )]
    Gone {
        /// The database.
        path: PathBuf,
        /// What is left of it.
        witness: PathBuf,
    },
    /// The journal is another one than the one that was acknowledged.
    #[error(
        "{} holds another entry {index} than was there before. Restore the folder from a backup; \
         to go on all the same, remove {}",
        path.display(), witness.display()
    )]
    Other {
        /// The database.
        path: PathBuf,
        /// The entry.
        index: Index,
        /// The file that knows.
        witness: PathBuf,
    },
    /// The journal was founded by another server.
    #[error(
        "{} belongs to the server {founder}, and the key beside it is that of {key}: put the \
         right server.key beside it",
        path.display()
    )]
    OtherKey {
        /// The database.
        path: PathBuf,
        /// The key of the founding.
        founder: PublicKey,
        /// The key of this server.
        key: PublicKey,
    },
    /// A checkpoint that nothing else can stand for cannot be used.
    #[error("{}: {reason}; restore the folder from a backup", path.display())]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The whole journal cannot be replayed.
    #[error("{} cannot be replayed: {source}", path.display())]
    Replay {
        /// The database.
        path: PathBuf,
        /// Why.
        source: RestoreError,
    },
    /// A limit is out of range.
    #[error(transparent)]
    Limits(#[from] LimitsError),
    /// There is no space.
    #[error("the disk with {} is full: make room on it", .0.display())]
    Full(PathBuf),
    /// Another program, not a server, writes to it.
    #[error("another program has {} locked: stop that first", .0.display())]
    Locked(PathBuf),
    /// SQLite says no.
    #[error("cannot use {}: {source}", path.display())]
    Sqlite {
        /// The database.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
    /// The system says no.
    #[error("cannot use {}: {source}; name another folder with --data", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The server stops.
    #[error("it was told to stop")]
    Stopped,
}

impl StoreError {
    pub(crate) fn sqlite(path: &Path, source: rusqlite::Error) -> Self {
        let path = path.to_owned();
        match Hindrance::of(&source) {
            Some(Hindrance::Full) => Self::Full(path),
            Some(Hindrance::Locked) => Self::Locked(path),
            None => Self::Sqlite { path, source },
        }
    }
}

/// What keeps from writing for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hindrance {
    /// The disk is full.
    Full,
    /// Somebody else has the database open and writes to it.
    Locked,
}

impl Hindrance {
    /// What passes by itself; `None` for all other errors. A quota that is used up is among those: what
    /// the system said, SQLite does not tell.
    pub(crate) fn of(error: &rusqlite::Error) -> Option<Self> {
        let ffi::Error { code, extended_code } = *error.sqlite_error()?;
        // The shared memory beside the log is no data: when it cannot grow, the disk is full.
        if code == ErrorCode::DiskFull || extended_code == ffi::SQLITE_IOERR_SHMSIZE {
            return Some(Self::Full);
        }
        matches!(code, ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked).then_some(Self::Locked)
    }
}

/// Why a checkpoint cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CheckpointError {
    /// The system says no.
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
    /// It is of a newer program.
    #[error("it has layout {0}, which this program does not know")]
    Newer(u16),
    /// It is not what was written.
    #[error("it is damaged")]
    Damaged,
    /// The snapshot in it is none.
    #[error(transparent)]
    Snapshot(#[from] RestoreError),
    /// The restored state is not the one that was saved.
    #[error("it gives the state {found}, and was made of {expected}")]
    State {
        /// What it gives.
        found: Digest,
        /// What it was made of.
        expected: Digest,
    },
    /// The journal has no such entry, or another one.
    #[error("it does not fit the journal at entry {0}")]
    Elsewhere(Index),
}

/// Why the store of a running server came to an end. The server stops: it could keep nothing more.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreFailure {
    /// Writing or syncing failed. It is never tried again: the system may have forgotten what it
    /// could not write, and a second try would be a lie.
    #[error("the store failed ({0}): nothing more can be kept, and nothing was acknowledged since")]
    Write(rusqlite::Error),
    /// An entry came that does not follow.
    #[error("the store was given an entry that does not follow, which is a bug: {0}")]
    Entry(Flaw),
    /// A thread of it panicked.
    #[error("the {0} of the store panicked, which is a bug")]
    Panic(&'static str),
}
