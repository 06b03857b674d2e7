//! The journal as JSON lines, and back.
//!
//! | line | what |
//! |---|---|
//! | first | `{"type":"journal","layout":2,"log_id":"…"}` |
//! | each entry | `{"type":"entry","at":MILLISECONDS,"change":{…}}` |
//! | entries that retention deleted, up to one | `{"type":"deleted","through":N,"at":MILLISECONDS,"chain":"…"}` |
//! | after all entries, if some are deleted: a state that they led to, in parts | `{"type":"checkpoint","part":"BASE64"}` |
//! | last | `{"type":"end","entries":N,"chain":"…"}` |
//!
//! The order of the fields says nothing. `at` counts from 1970. `chain` is the digest over the whole
//! journal: who imports makes it anew, so lines that are changed, lost or moved are noticed. An entry
//! whose room has the record before among the deleted ones names that by `"previous":N`. The server's
//! key is a secret and not in it. Layout 1 knows nothing of what is deleted.

use std::fs;
use std::io::{self, BufRead, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chatcore::engine::{Archive, Config};
use chatcore::id::{Digest, Index, LogId, PublicKey};
use chatcore::limits::Limits;
use chatcore::log::{Change, Entry, Head};
use chatcore::time::{Now, Timestamp};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::store::checkpoint::{self, Checkpoint};
use crate::store::database::{self, Access, Database, Row};
use crate::store::fault::{Fault, Flaw, Hindrance, StoreError, StoreFailure};
use crate::store::folder::{Folder, FoundTip, JOURNAL, TIP, private, publish, write_tip};
use crate::store::journal::{AppendError, Journal, SharedLives, Store as _};
use crate::store::lives::Lives;
use crate::store::recovery::{self, Blocked, ROWS_AT_ONCE, Recovered, Way};
use crate::store::{Durability, expect_journal, expect_no_trace};

/// The layout of the lines, and the newest that can be read.
const LAYOUT: u64 = 2;

/// Entries that are made safe at once.
const GROUP: usize = 1_024;

/// The longest line: an entry with the longest text, every sign of it escaped, or a founding with
/// some ten thousand operators.
const LINE_BYTES_MAX: u64 = 1 << 20;

/// Bytes of a checkpoint on a line.
const PART_BYTES: usize = 512 << 10;

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
    /// It is no Base64.
    #[error("its part of a checkpoint is no Base64")]
    Base64,
    /// The entry does not follow.
    #[error(transparent)]
    Entry(Flaw),
    /// The lines before are not those that were written.
    #[error("lines are missing or changed: the chain does not fit")]
    Chain,
}

/// How far an export or an import is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransferStep {
    /// Entries are written, or taken in.
    Entries {
        /// How many are.
        done: u64,
        /// How many there are; an import does not know.
        total: Option<u64>,
    },
    /// What was taken in is verified.
    Verifying,
}

/// Writes the journal of a folder, up to what is its end now; how many entries that were. A server
/// may be running on it. `each` is told how far it is.
///
/// # Errors
/// When there is no journal, when a row of it is damaged, or when nobody takes the lines.
pub fn export(
    path: &Path,
    out: &mut impl Write,
    each: &mut dyn FnMut(TransferStep),
) -> Result<Index, TransferError> {
    let file = path.join(JOURNAL);
    expect_journal(path)?;
    let database = Database::open(&file, Access::Read)?;
    let damaged = |fault| recovery::damaged(&database, fault);
    let last = database.last().map_err(damaged)?;
    let first = database.rows_after(Index::ZERO, 1).map_err(damaged)?.into_iter().next();
    let Some(first) = first else { return Err(StoreError::Absent(path.to_owned()).into()) };
    let head = first.beginning().map_err(damaged)?;
    let Some(Change::Founded(founding)) = first.change() else {
        return Err(damaged(Fault::entry(Index::ZERO.next(), Flaw::Founding)).into());
    };
    let log_id = founding.log_id.to_string();
    line(out, &json!({ "type": "journal", "layout": LAYOUT, "log_id": log_id }))?;
    let mut rows = Rows {
        database: &database,
        head,
        lives: Lives::default(),
        deleted: false,
        inside_blank: false,
        total: last,
        each,
    };
    rows.write(out, last)?;
    if let Some(checkpoint) = rows.write_to_checkpoint(out, path)? {
        for part in checkpoint.to_bytes().chunks(PART_BYTES) {
            line(out, &json!({ "type": "checkpoint", "part": STANDARD.encode(part) }))?;
        }
    }
    let Head { index, chain, .. } = rows.head;
    line(out, &json!({ "type": "end", "entries": index, "chain": chain }))?;
    out.flush().map_err(TransferError::Write)?;
    Ok(index)
}

/// Rows as they are written, while a server may append and delete.
struct Rows<'a> {
    database: &'a Database,
    head: Head,
    lives: Lives,
    /// Whether some were deleted.
    deleted: bool,
    /// Whether the last one was, and so is the next one.
    inside_blank: bool,
    /// The end of the journal when it began.
    total: Index,
    each: &'a mut dyn FnMut(TransferStep),
}

impl Rows<'_> {
    /// Writes the rows up to one, or to the end of what was deleted around it.
    fn write(&mut self, out: &mut impl Write, through: Index) -> Result<(), TransferError> {
        let damaged = |fault| recovery::damaged(self.database, fault);
        while self.head.index < through || self.inside_blank {
            let place = self.head.index.next();
            let rows = self.database.rows_after(self.head.index, ROWS_AT_ONCE).map_err(damaged)?;
            if rows.is_empty() {
                return Err(damaged(Fault::entry(place, Flaw::Missing)).into());
            }
            for row in rows {
                if self.head.index < through || self.inside_blank {
                    self.write_row(out, row)?;
                }
            }
            let (done, total) = (self.head.index.get(), self.total.max(self.head.index).get());
            (self.each)(TransferStep::Entries { done, total: Some(total) });
        }
        Ok(())
    }

    fn write_row(&mut self, out: &mut impl Write, row: Row) -> Result<(), TransferError> {
        let damaged = |fault| recovery::damaged(self.database, fault);
        let place = self.head.index.next();
        if row.change().is_none() {
            (self.head, self.deleted) = (row.head(), true);
            self.inside_blank = row.is_inside_blank();
            if self.inside_blank {
                return Ok(());
            }
            let Head { index, at, chain } = self.head;
            let gone = json!({ "type": "deleted", "through": index, "at": at, "chain": chain });
            return line(out, &gone);
        }
        if row.head().index != place {
            return Err(damaged(Fault::entry(place, Flaw::Missing)).into());
        }
        let (entry, previous) = row.verify(&mut self.head).map_err(damaged)?;
        let resumes = entry.record().is_some_and(|record| self.lives.resume(&record, previous));
        let wrong = |flaw| damaged(Fault::entry(place, flaw));
        self.lives.follow(&entry).map_err(wrong)?;
        let Entry { header, change } = entry;
        let mut said = json!({ "type": "entry", "at": header.at, "change": change });
        if let Some(fields) = said.as_object_mut().filter(|_| resumes) {
            fields.insert("previous".to_owned(), json!(previous));
        }
        line(out, &said)
    }

    /// Writes on to a checkpoint that is newer than all that was deleted, and gives it; `None` when
    /// nothing was. A server that runs may delete more, but never what its oldest checkpoint lacks.
    fn write_to_checkpoint(
        &mut self,
        out: &mut impl Write,
        folder: &Path,
    ) -> Result<Option<Checkpoint>, TransferError> {
        while self.deleted {
            let at = |source| StoreError::Io { path: folder.to_owned(), source };
            let oldest = checkpoint::list(folder).map_err(at)?.last().copied();
            let oldest = oldest.unwrap_or(Index::ZERO);
            if oldest <= self.head.index {
                let path = checkpoint::path_of(folder, oldest);
                let loaded = Checkpoint::load(folder, oldest);
                return loaded.map(Some).map_err(|error| {
                    StoreError::Checkpoint { path, reason: error.to_string() }.into()
                });
            }
            self.write(out, oldest)?;
        }
        Ok(None)
    }
}

fn line(out: &mut impl Write, value: &Value) -> Result<(), TransferError> {
    writeln!(out, "{value}").map_err(TransferError::Write)
}

/// Makes a journal in a folder from lines; how many entries that were. It appears whole, after all of
/// it has been replayed, or not at all. `each` is told how far it is.
///
/// # Errors
/// When the folder holds a journal or is in use, when the lines are not whole and unchanged, when
/// `key` did not found the journal, or when it cannot be kept.
pub fn import(
    path: &Path,
    key: PublicKey,
    lines: &mut impl BufRead,
    each: &mut dyn FnMut(TransferStep),
) -> Result<Index, TransferError> {
    let folder = Folder::lock(path)?;
    if folder.database().exists() {
        return Err(TransferError::Occupied(path.to_owned()));
    }
    let place = path.join("import.db");
    forget_killed(&folder, &place)?;
    expect_no_trace(path)?;
    let result = fill(&folder, &place, key, lines, each);
    if result.is_err() {
        // What is left of it is of no use, and the space may be what was missing.
        let _ = forget_killed(&folder, &place);
        remove(&place);
    }
    result
}

/// An import that ended when all was there but the journal's name left a checkpoint and a tip, which
/// says so.
fn forget_killed(folder: &Folder, place: &Path) -> Result<(), StoreError> {
    let at = |source| StoreError::Io { path: folder.path().to_owned(), source };
    if !place.exists() || folder.database().exists() {
        return Ok(());
    }
    let is_of_it = match FoundTip::read(&folder.tip()).map_err(at)? {
        FoundTip::None => true,
        FoundTip::Damaged => false,
        FoundTip::At(tip) => Database::open(place, Access::Read)
            .is_ok_and(|new| new.head(tip.index).is_ok_and(|head| head.chain == tip.chain)),
    };
    if is_of_it {
        checkpoint::remove_before(folder.path(), Index::MAX).map_err(at)?;
        // Last, because it is what tells whose they are.
        let _ = fs::remove_file(folder.tip());
    }
    Ok(())
}

/// Removes a database that is of no use, or that was given its name, and what was left beside it.
pub(crate) fn remove(place: &Path) {
    for end in ["db", "db-wal", "db-shm", CHECKPOINT, TIP] {
        // It may not be there.
        let _ = fs::remove_file(place.with_extension(end));
    }
}

/// How the name of the checkpoint ends while an import is under way.
const CHECKPOINT: &str = "checkpoint";

fn fill(
    folder: &Folder,
    place: &Path,
    key: PublicKey,
    lines: &mut impl BufRead,
    each: &mut dyn FnMut(TransferStep),
) -> Result<Index, TransferError> {
    remove(place);
    database::create(place, folder.path())?;
    let at = |source| StoreError::Io { path: place.to_owned(), source };
    let mut lines = Lines { lines, number: 0 };
    let mut import = Import::new(place, lines.beginning()?)?;
    while let Some(item) = lines.item(&import.head)? {
        if import.take(item)? {
            each(TransferStep::Entries { done: import.head.index.get(), total: None });
        }
    }
    let head = import.close()?;
    each(TransferStep::Verifying);
    let checkpoint = check(folder, place, key)?;
    let name = folder.database();
    if let Some(index) = checkpoint {
        let name = checkpoint::path_of(folder.path(), index);
        publish(&place.with_extension(CHECKPOINT), &name, folder.path()).map_err(at)?;
    }
    let tip = place.with_extension(TIP);
    let named = write_tip(&tip, &head).and_then(|()| publish(&tip, &folder.tip(), folder.path()));
    named.map_err(|source| StoreError::Io { path: tip, source })?;
    publish(place, &name, folder.path()).map_err(at)?;
    remove(place);
    Ok(head.index)
}

/// A journal that is being made of lines.
struct Import {
    journal: Journal,
    lives: SharedLives,
    head: Head,
    group: Vec<Arc<Entry>>,
    /// Where it is made.
    place: PathBuf,
    checkpoint: PathBuf,
}

impl Import {
    fn new(place: &Path, log_id: LogId) -> Result<Self, TransferError> {
        let (head, lives) = (Head::new(log_id), SharedLives::default());
        let database = Database::open(place, Access::Write(Durability::Commit))?;
        // Nobody is told that anything is safe before all is.
        let journal = Journal::new(database, head, lives.clone(), None);
        let group = Vec::with_capacity(GROUP);
        let checkpoint = place.with_extension(CHECKPOINT);
        Ok(Self { journal, lives, head, group, place: place.to_owned(), checkpoint })
    }

    /// Takes in what a line says; whether entries were made safe.
    fn take(&mut self, item: Item) -> Result<bool, TransferError> {
        match item {
            Item::Entry { at, change, previous } => {
                let entry = Arc::new(self.head.append(at, *change));
                if let (Some(previous), Some(record)) = (previous, entry.record()) {
                    self.keep()?;
                    self.lives.lock().resume(&record, previous);
                }
                self.group.push(entry);
                if self.group.len() == GROUP { self.keep().map(|()| true) } else { Ok(false) }
            }
            Item::Deleted(head) => {
                self.keep()?;
                self.head = head;
                self.journal.skip(head).map(|()| true).map_err(sort(&self.place))
            }
            Item::Checkpoint(part) => {
                let mut options = private();
                let file = options.create(true).append(true).open(&self.checkpoint);
                file.and_then(|mut file| file.write_all(&part).and_then(|()| file.sync_all()))
                    .map_err(|source| StoreError::Io { path: self.checkpoint.clone(), source })?;
                Ok(false)
            }
        }
    }

    fn keep(&mut self) -> Result<(), TransferError> {
        self.journal
            .append(&self.group)
            .and_then(|()| self.journal.tidy())
            .map_err(sort(&self.place))?;
        self.group.clear();
        Ok(())
    }

    /// All of it is in one file then, and safe.
    fn close(mut self) -> Result<Head, TransferError> {
        self.keep()?;
        self.journal.settle().map_err(sort(&self.place))?;
        Ok(self.head)
    }
}

/// An import does not wait until there is space.
fn sort(path: &Path) -> impl Fn(AppendError) -> TransferError {
    let path = path.to_owned();
    move |error| match error {
        AppendError::Hindered(Hindrance::Full) => StoreError::Full(path.clone()).into(),
        AppendError::Hindered(Hindrance::Locked) => StoreError::Locked(path.clone()).into(),
        AppendError::Failed(failure) => TransferError::Keep(failure),
    }
}

/// Replays the new journal, as the first start will; the checkpoint that it begins with, if it does.
fn check(folder: &Folder, place: &Path, key: PublicKey) -> Result<Option<Index>, TransferError> {
    let database = &Database::open(place, Access::Read)?;
    let limits = Limits { window_bytes: 0, ..Limits::default() };
    let config = &Config { limits, archive: Archive::Store, ..Config::default() };
    let stop = &AtomicBool::new(false);
    let way = Way { folder, database, config, now: Now::default(), stop };
    // An engine asserts what no journal of one contradicts. Lines may be anybody's.
    let replayed = catch_unwind(AssertUnwindSafe(|| take_up(&way, place)));
    let Recovered { engine, base, .. } = replayed.map_err(|_| TransferError::Made)??;
    let founder = engine.founding().server_key;
    if founder == key {
        return Ok(Some(base).filter(|base| *base > Index::ZERO));
    }
    Err(StoreError::OtherKey { path: folder.database(), founder, key }.into())
}

fn take_up(way: &Way<'_>, place: &Path) -> Result<Recovered, StoreError> {
    let path = place.with_extension(CHECKPOINT);
    let bytes = match fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return way.by_replay(),
        Err(source) => return Err(StoreError::Io { path, source }),
        Ok(bytes) => bytes,
    };
    let last = way.database.last().map_err(|fault| recovery::damaged(way.database, fault))?;
    let loaded = Checkpoint::from_bytes(&bytes).map_err(Blocked::Checkpoint);
    loaded.and_then(|checkpoint| way.by_loaded(checkpoint, last)).map_err(|blocked| match blocked {
        Blocked::Store(error) => error,
        Blocked::Checkpoint(error) => StoreError::Checkpoint { path, reason: error.to_string() },
    })
}

/// What a line between the first and the last says.
enum Item {
    Entry { at: Timestamp, change: Box<Change>, previous: Option<Index> },
    Deleted(Head),
    Checkpoint(Vec<u8>),
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
        if !(1..=LAYOUT).contains(&layout) {
            return Err(self.wrong(LineFlaw::Newer(layout)));
        }
        self.field(&line, "log_id")
    }

    /// The next item; `None` at the end, if what came before is whole.
    fn item(&mut self, head: &Head) -> Result<Option<Item>, TransferError> {
        let line = self.next()?;
        let kind = line.get("type").and_then(Value::as_str);
        match kind {
            Some("entry") => {
                let (at, change) = (self.field(&line, "at")?, self.field(&line, "change")?);
                let previous = self.field(&line, "previous")?;
                Ok(Some(Item::Entry { at, change, previous }))
            }
            Some("deleted") => {
                let index: Index = self.field(&line, "through")?;
                let (at, chain) = (self.field(&line, "at")?, self.field(&line, "chain")?);
                if index <= head.index {
                    return Err(self.wrong(LineFlaw::Chain));
                }
                Ok(Some(Item::Deleted(Head { index, at, chain })))
            }
            Some("checkpoint") => {
                let part: String = self.field(&line, "part")?;
                let part = STANDARD.decode(part).map_err(|_| self.wrong(LineFlaw::Base64))?;
                Ok(Some(Item::Checkpoint(part)))
            }
            Some("end") => {
                let entries: Index = self.field(&line, "entries")?;
                let chain: Digest = self.field(&line, "chain")?;
                if entries == head.index && chain == head.chain {
                    return Ok(None);
                }
                Err(self.wrong(LineFlaw::Chain))
            }
            Some(_) | None => {
                Err(self.wrong(LineFlaw::Kind("a line of type entry, deleted, checkpoint or end")))
            }
        }
    }
}
