//! The journal as JSON lines, and back.
//!
//! | line | what |
//! |---|---|
//! | first | `{"type":"journal","layout":1,"log_id":"…"}` |
//! | each entry | `{"type":"entry","at":MILLISECONDS,"change":{…}}` |
//! | last | `{"type":"end","entries":N,"chain":"…"}` |
//!
//! The order of the fields says nothing. `at` counts from 1970. `chain` is the digest over the whole journal: who imports makes it anew, so
//! lines that are changed, lost or moved are noticed. The server's key is a secret and not in it.

use std::fs;
use std::io::{self, BufRead, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use chatcore::engine::{Archive, Config};
use chatcore::id::{Digest, Index, LogId, PublicKey};
use chatcore::limits::Limits;
use chatcore::log::{Change, Entry, Head};
use chatcore::time::{Now, Timestamp};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::store::database::{self, Access, Database};
use crate::store::fault::{Fault, Flaw, StoreError, StoreFailure};
use crate::store::folder::{Folder, JOURNAL, publish};
use crate::store::journal::{AppendError, Journal, SharedLives, Store as _};
use crate::store::lives::Lives;
use crate::store::recovery::{self, Tail, Way};
use crate::store::{Durability, expect_no_trace};

/// The layout of the lines.
const LAYOUT: u64 = 1;

/// Entries that are made safe at once.
const GROUP: usize = 1_024;

/// The longest line: an entry with the longest text, every sign of it escaped, or a founding with
/// some ten thousand operators.
const LINE_BYTES_MAX: u64 = 1 << 20;

/// Why lines could not be written or taken in.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransferError {
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The lines cannot be written.
    #[error("cannot write: {0}")]
    Write(io::Error),
    /// The lines cannot be read.
    #[error("cannot read: {0}")]
    Read(io::Error),
    /// A line is not what it should be.
    #[error("line {number}: {flaw}")]
    Line {
        /// Which one, from 1.
        number: u64,
        /// What is wrong.
        flaw: LineFlaw,
    },
    /// The lines fit each other, and no chat can have gone like this.
    #[error("no chat-server wrote these lines")]
    Made,
    /// There is a journal in the folder already.
    #[error("there is a chat in {} already; name an empty folder with --data", .0.display())]
    Occupied(PathBuf),
    /// The new store cannot keep it.
    #[error("cannot keep it: {0}")]
    Keep(#[from] StoreFailure),
    /// The disk is full.
    #[error("the disk is full: {0}")]
    Full(rusqlite::Error),
}

/// What is wrong with a line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LineFlaw {
    /// It is not the JSON of such a line.
    #[error("it is no line of an exported chat: {0}")]
    Json(#[from] serde_json::Error),
    /// It is of another kind than is due here.
    #[error("{0} is due here")]
    Kind(&'static str),
    /// It is longer than any.
    #[error("it is longer than {LINE_BYTES_MAX} bytes")]
    Long,
    /// It is of a newer program.
    #[error("layout {0} is of a newer chat-server")]
    Newer(u64),
    /// The entry does not follow.
    #[error(transparent)]
    Entry(Flaw),
    /// The lines before are not those that were written.
    #[error("lines are missing or changed: the chain does not fit")]
    Chain,
}

/// Writes the journal of a folder, up to what is its end now; how many entries that were. A server
/// may be running on it.
///
/// # Errors
/// When there is no journal, when a row of it is damaged, or when nobody takes the lines.
pub fn export(path: &Path, out: &mut impl Write) -> Result<Index, TransferError> {
    let file = path.join(JOURNAL);
    if !file.is_file() {
        return Err(StoreError::Absent(path.to_owned()).into());
    }
    let database = Database::open(&file, Access::Read)?;
    let damaged = |fault| recovery::damaged(&database, fault);
    let last = database.last().map_err(damaged)?;
    let first = database.rows_after(Index::ZERO, 1).map_err(damaged)?.into_iter().next();
    let Some(first) = first else { return Err(StoreError::Absent(path.to_owned()).into()) };
    let head = first.beginning().map_err(damaged)?;
    let Change::Founded(founding) = first.change() else {
        return Err(damaged(Fault::entry(Index::ZERO.next(), Flaw::Founding)).into());
    };
    let log_id = founding.log_id.to_string();
    line(out, &json!({ "type": "journal", "layout": LAYOUT, "log_id": log_id }))?;
    let never = AtomicBool::new(false);
    let mut tail = Tail::after(&database, head, Lives::default(), &never);
    while tail.head().index < last {
        let Some(Entry { header, change }) = tail.next() else { break };
        line(out, &json!({ "type": "entry", "at": header.at, "change": change }))?;
    }
    let Head { index, chain, .. } = tail.head();
    tail.end(&database)?;
    line(out, &json!({ "type": "end", "entries": index, "chain": chain }))?;
    out.flush().map_err(TransferError::Write)?;
    Ok(index)
}

fn line(out: &mut impl Write, value: &Value) -> Result<(), TransferError> {
    writeln!(out, "{value}").map_err(TransferError::Write)
}

/// Makes a journal in a folder from lines; how many entries that were. It appears whole, after all of
/// it has been replayed, or not at all.
///
/// # Errors
/// When the folder holds a journal or is in use, when the lines are not whole and unchanged, when
/// `key` did not found the journal, or when it cannot be kept.
pub fn import(
    path: &Path,
    key: PublicKey,
    lines: &mut impl BufRead,
) -> Result<Index, TransferError> {
    let folder = Folder::lock(path)?;
    if folder.database().exists() {
        return Err(TransferError::Occupied(path.to_owned()));
    }
    expect_no_trace(&folder)?;
    let place = path.join("import.db");
    let result = fill(&folder, &place, key, lines);
    if result.is_err() {
        // What is left of it is of no use, and the space may be what was missing.
        remove(&place);
    }
    result
}

/// Removes a database that is of no use, or that was given its name, and what SQLite left beside it.
pub(crate) fn remove(place: &Path) {
    for end in ["db", "db-wal", "db-shm"] {
        // It may not be there.
        let _ = fs::remove_file(place.with_extension(end));
    }
}

fn fill(
    folder: &Folder,
    place: &Path,
    key: PublicKey,
    lines: &mut impl BufRead,
) -> Result<Index, TransferError> {
    remove(place);
    database::create(place, folder.path())?;
    let at = |source| StoreError::Io { path: place.to_owned(), source };
    let mut lines = Lines { lines, number: 0 };
    let mut head = Head::new(lines.beginning()?);
    let database = Database::open(place, Access::Write(Durability::Commit))?;
    // Nobody is told that anything is safe before all is.
    let mut journal = Journal::new(database, head, SharedLives::default(), None);
    let mut group = Vec::with_capacity(GROUP);
    while let Some((wall, change)) = lines.entry(&head)? {
        group.push(Arc::new(head.append(wall, change)));
        if group.len() == GROUP {
            keep(&mut journal, &group)?;
            group.clear();
        }
    }
    keep(&mut journal, &group)?;
    journal.close().map_err(sort)?;
    drop(journal);
    check(folder, place, key)?;
    let name = folder.database();
    publish(place, &name, folder.path()).map_err(at)?;
    remove(place);
    Ok(head.index)
}

fn keep(journal: &mut Journal, group: &[Arc<Entry>]) -> Result<(), TransferError> {
    journal.append(group).and_then(|()| journal.tidy()).map_err(sort)
}

fn sort(error: AppendError) -> TransferError {
    match error {
        AppendError::Full(error) => TransferError::Full(error),
        AppendError::Failed(failure) => TransferError::Keep(failure),
    }
}

/// Replays the new journal, as the first start will.
fn check(folder: &Folder, place: &Path, key: PublicKey) -> Result<(), TransferError> {
    let database = &Database::open(place, Access::Read)?;
    let limits = Limits { window_bytes: 0, ..Limits::default() };
    let config = &Config { limits, archive: Archive::Store, ..Config::default() };
    let stop = &AtomicBool::new(false);
    let way = Way { folder, database, config, now: Now::default(), stop };
    // An engine asserts what no journal of one contradicts. Lines may be anybody's.
    let replayed = catch_unwind(AssertUnwindSafe(|| way.by_replay()));
    let founder = replayed.map_err(|_| TransferError::Made)??.engine.founding().server_key;
    if founder == key {
        return Ok(());
    }
    Err(StoreError::OtherKey { path: folder.database(), founder, key }.into())
}

/// Lines as they come.
struct Lines<'a, R> {
    lines: &'a mut R,
    number: u64,
}

impl<R: BufRead> Lines<'_, R> {
    fn wrong(&self, flaw: impl Into<LineFlaw>) -> TransferError {
        TransferError::Line { number: self.number, flaw: flaw.into() }
    }

    /// The next line; an error when there is none, for the last one says that it is the last.
    fn next(&mut self) -> Result<Value, TransferError> {
        self.number += 1;
        let mut text = Vec::new();
        let mut limited = io::Read::take(&mut *self.lines, LINE_BYTES_MAX);
        limited.read_until(b'\n', &mut text).map_err(TransferError::Read)?;
        if !text.ends_with(b"\n") {
            let is_long = u64::try_from(text.len()).is_ok_and(|len| len == LINE_BYTES_MAX);
            let flaw = if is_long { LineFlaw::Long } else { LineFlaw::Kind("another line") };
            return Err(self.wrong(flaw));
        }
        serde_json::from_slice(&text).map_err(|error| self.wrong(error))
    }

    fn field<T: DeserializeOwned>(&self, line: &Value, name: &str) -> Result<T, TransferError> {
        let value = line.get(name).unwrap_or(&Value::Null);
        T::deserialize(value).map_err(|error| self.wrong(error))
    }

    /// The first line: the life of the journal.
    fn beginning(&mut self) -> Result<LogId, TransferError> {
        let line = self.next()?;
        if line.get("type") != Some(&json!("journal")) {
            return Err(self.wrong(LineFlaw::Kind("the line of type journal")));
        }
        let layout: u64 = self.field(&line, "layout")?;
        if layout != LAYOUT {
            return Err(self.wrong(LineFlaw::Newer(layout)));
        }
        self.field(&line, "log_id")
    }

    /// The next entry; `None` at the end, if what came before is whole.
    fn entry(&mut self, head: &Head) -> Result<Option<(Timestamp, Change)>, TransferError> {
        let line = self.next()?;
        if line.get("type") == Some(&json!("entry")) {
            return Ok(Some((self.field(&line, "at")?, self.field(&line, "change")?)));
        }
        if line.get("type") != Some(&json!("end")) {
            return Err(self.wrong(LineFlaw::Kind("a line of type entry or end")));
        }
        let entries: Index = self.field(&line, "entries")?;
        let chain: Digest = self.field(&line, "chain")?;
        if entries == head.index && chain == head.chain {
            return Ok(None);
        }
        Err(self.wrong(LineFlaw::Chain))
    }
}
