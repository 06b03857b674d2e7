//! A copy of a data folder, made while a server runs on it.
//!
//! The pages are copied by SQLite's own online backup, under a read transaction that is held from
//! the first page to the last: a copy of one moment, which takes memory for some pages and never
//! begins again because somebody writes, and no lock that a writer waits for. `VACUUM INTO` would
//! give as consistent a copy, but it writes rows anew, tells nobody how far it is, and would heal or
//! hide what is damaged in pages. Until the copy is done the write-ahead log of the server grows by
//! what is written meanwhile; then it is moved into the database as always.
//!
//! Beside the pages a start needs the key and the checkpoints, as far as these are whole. The tip is not
//! copied but written anew, for what the copy holds. The token for calls is not copied either: nobody
//! knows a server by it, so one that can be read from a copy would only be a way into the first server.
//!
//! A folder with a backup that was cut short has no `journal.db`, and a tip: no server starts on it.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use chatcore::engine::{Archive, Config};
use chatcore::id::{Digest, Index};
use chatcore::limits::Limits;
use chatcore::log::Head;
use chatcore::time::Now;

use crate::key::{KEY, KeyError, ServerKey};
use crate::store::check::check_rows;
use crate::store::checkpoint::Checkpoint;
use crate::store::database::{Access, Database};
use crate::store::fault::{CheckpointError, StoreError};
use crate::store::folder::{Folder, FoundTip, JOURNAL, TIP, private, publish, write_tip};
use crate::store::transfer::remove;
use crate::store::{Finding, checkpoint, expect_journal, recovery};
use crate::tls::TLS_KEY;

/// Pages that are copied at once: 1 MiB.
const PAGES_AT_ONCE: i32 = 256;

/// Pages after which the copy is synced: 16 MiB. A disk that was handed all of a large copy at once
/// would let the server wait for its own syncs.
const PAGES_A_SYNC: i32 = 4_096;

/// What a backup holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackedUp {
    /// The last entry of its journal.
    pub entries: Index,
    /// The state after it.
    pub state_hash: Digest,
    /// The bytes of its database.
    pub bytes: u64,
}

/// How far a backup is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackupStep {
    /// Pages are copied.
    Copying {
        /// How many are.
        done: u64,
        /// How many there are.
        total: u64,
    },
    /// The copy is verified.
    Verifying,
}

/// Why there is no backup. Nothing is left of it then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// There is something in the place already.
    #[error(
        "{} is there already and not empty: name a folder that is not there, or remove it",
        .0.display()
    )]
    Occupied(PathBuf),
    /// The folder cannot be read, or the copy not be written or not be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The key cannot be copied.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The folder is damaged, and the copy with it.
    #[error("{} is damaged: {finding}; `chat-server check` tells all", path.display())]
    Damaged {
        /// The folder that was to be copied.
        path: PathBuf,
        /// What was found first.
        finding: Box<Finding>,
    },
    /// The copy is not what was read.
    #[error("the copy in {} ends elsewhere than the journal did: try again", .0.display())]
    Elsewhere(PathBuf),
}

/// Copies the data folder `from` into the folder `to`, which must not be there or be empty. A server
/// may be running on `from`; `each` is told how far it is.
///
/// It takes memory for the state, not for the history.
///
/// # Errors
/// When there is no journal, when anything is in `to`, when a file cannot be read or written, or when
/// what was copied cannot be trusted.
pub fn backup(
    from: &Path,
    to: &Path,
    each: &mut dyn FnMut(BackupStep),
) -> Result<BackedUp, BackupError> {
    expect_journal(from)?;
    let is_new = expect_empty(to)?;
    let folder = Folder::lock(to)?;
    let result = fill(from, &folder, each);
    if result.is_err() {
        discard(to, is_new);
    }
    result
}

/// Whether the folder is not there; an error when it is and holds anything.
fn expect_empty(path: &Path) -> Result<bool, BackupError> {
    match fs::read_dir(path) {
        Ok(mut files) => match files.next() {
            None => Ok(false),
            Some(_) => Err(BackupError::Occupied(path.to_owned())),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(source) => Err(StoreError::Io { path: path.to_owned(), source }.into()),
    }
}

/// Removes what was written: the space may be what was missing.
fn discard(path: &Path, is_new: bool) {
    // What cannot be removed is in the way of the next try, which says so.
    for file in fs::read_dir(path).into_iter().flatten().flatten() {
        let _ = fs::remove_file(file.path());
    }
    if is_new {
        let _ = fs::remove_dir(path);
    }
}

fn fill(
    from: &Path,
    to: &Folder,
    each: &mut dyn FnMut(BackupStep),
) -> Result<BackedUp, BackupError> {
    let source = Database::open(&from.join(JOURNAL), Access::Read)?;
    // Before the pages are held, so that it cannot say more than they do; else a copy of a journal
    // that lost its end would look whole.
    let witness = from.join(TIP);
    let tip = FoundTip::read(&witness).map_err(|source| at(&witness, source))?;
    let unread = |source| StoreError::sqlite(&from.join(JOURNAL), source);
    let pin = source.pin().map_err(unread)?;
    let damaged = |fault| recovery::damaged(&source, fault);
    let last = source.last().map_err(damaged)?;
    if last == Index::ZERO {
        return Err(StoreError::Absent(from.to_owned()).into());
    }
    recovery::hold_against(tip, witness, &source, last)?;
    let head = source.head(last).map_err(damaged)?;
    // At once, so that the checkpoints of this moment are still there.
    copy_checkpoints(from, to.path(), last).map_err(|source| at(to.path(), source))?;
    write_tip(&to.tip(), &head).map_err(|source| at(&to.tip(), source))?;
    ServerKey::of_folder(from)?;
    let key = to.path().join(KEY);
    copy_file(&from.join(KEY), &key).map_err(|source| at(&key, source))?;
    // Clients know a server by this key, too, where it made itself a certificate.
    let (tls_key, copy) = (from.join(TLS_KEY), to.path().join(TLS_KEY));
    if tls_key.exists() {
        copy_file(&tls_key, &copy).map_err(|source| at(&copy, source))?;
    }
    let place = to.path().join("backup.db");
    copy_pages(&source, &place, each)?;
    pin.finish().map_err(unread)?;
    each(BackupStep::Verifying);
    let bytes = fs::metadata(&place).map_err(|source| at(&place, source))?.len();
    let state_hash = verify(from, to, &place, &head)?;
    publish(&place, &to.database(), to.path()).map_err(|source| at(&place, source))?;
    remove(&place);
    Ok(BackedUp { entries: last, state_hash, bytes })
}

fn at(path: &Path, source: io::Error) -> StoreError {
    StoreError::Io { path: path.to_owned(), source }
}

/// Copies the checkpoints that are whole and not beyond `last`: as at a start, one may stand for the
/// other, and when rows were deleted there is no other way back.
fn copy_checkpoints(from: &Path, to: &Path, last: Index) -> io::Result<()> {
    for index in checkpoint::list(from)?.into_iter().filter(|index| *index <= last) {
        match Checkpoint::load(from, index) {
            Ok(checkpoint) => {
                checkpoint.save(to)?;
                if checkpoint::whole_files(from, index) == 2 {
                    checkpoint::double(to, index)?;
                }
            }
            // A newer one stands for it by now.
            Err(CheckpointError::Io(error)) if error.kind() == io::ErrorKind::NotFound => {}
            Err(CheckpointError::Io(error)) => return Err(error),
            Err(
                error @ (CheckpointError::Newer(_)
                | CheckpointError::Damaged
                | CheckpointError::Snapshot(_)
                | CheckpointError::State { .. }
                | CheckpointError::Elsewhere(_)),
            ) => {
                let file = checkpoint::path_of(from, index);
                tracing::warn!(file = %file.display(), %error, "not copied");
            }
        }
    }
    Ok(())
}

fn copy_file(from: &Path, to: &Path) -> io::Result<()> {
    let mut source = File::open(from)?;
    let mut copy = private().create_new(true).write(true).open(to)?;
    io::copy(&mut source, &mut copy)?;
    copy.sync_all()
}

fn copy_pages(
    source: &Database,
    place: &Path,
    each: &mut dyn FnMut(BackupStep),
) -> Result<(), StoreError> {
    let file = private().create_new(true).write(true).open(place);
    let file = file.map_err(|source| at(place, source))?;
    let mut synced = 0;
    let copied = source.copy(place, PAGES_AT_ONCE, |done, total| {
        if done - synced >= PAGES_A_SYNC {
            synced = done;
            file.sync_data().map_err(CopyError::Io)?;
        }
        let pages = |count: i32| u64::try_from(count).unwrap_or_default();
        each(BackupStep::Copying { done: pages(done), total: pages(total) });
        Ok(())
    });
    copied.map_err(|error| match error {
        CopyError::Io(source) => at(place, source),
        CopyError::Sqlite(source) => StoreError::sqlite(place, source),
    })
}

enum CopyError {
    Io(io::Error),
    Sqlite(rusqlite::Error),
}

impl From<rusqlite::Error> for CopyError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

/// Checks every row of a copy, and brings it back as a start will; the state that gives.
fn verify(from: &Path, to: &Folder, place: &Path, head: &Head) -> Result<Digest, BackupError> {
    let database = Database::open(place, Access::Read)?;
    if let Some(finding) = check_rows(&database).into_iter().next() {
        let finding = Box::new(finding);
        return Err(BackupError::Damaged { path: from.to_owned(), finding });
    }
    let limits = Limits { window_bytes: 0, ..Limits::default() };
    let config = Config { limits, archive: Archive::Store, ..Config::default() };
    let recovered = recovery::recover(to, &database, &config, Now::default());
    let recovered = recovered.map_err(|error| {
        // The copy is as the folder is, and will not stay.
        if let StoreError::Damaged { fault, .. } = error {
            let finding = Box::new(fault.into());
            return BackupError::Damaged { path: from.to_owned(), finding };
        }
        error.into()
    })?;
    let engine = recovered.map(|recovered| recovered.engine);
    let engine = engine.filter(|engine| engine.head() == *head);
    let engine = engine.ok_or_else(|| BackupError::Elsewhere(to.path().to_owned()))?;
    let (founder, key) = (engine.founding().server_key, ServerKey::of_folder(to.path())?.public());
    if founder != key {
        return Err(StoreError::OtherKey { path: from.join(JOURNAL), founder, key }.into());
    }
    Ok(engine.state_hash())
}
