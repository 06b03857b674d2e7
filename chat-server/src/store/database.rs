//! The journal in SQLite: its tables, how a row is written, and how it is checked when it is read.
//!
//! One entry is one row with a growing key, so that a group of entries is written to the end of the
//! table and costs few pages, however many rooms they are of. An index over rooms would cost several
//! times as much. In its place each row with a record names the row with the record before of the
//! same life, and every 64th record of a life has a row in `anchor`: reading goes from an anchor
//! back, so a page costs its length and at most 63 rows more.
//!
//! `chain` is the digest over the journal up to the row. Whoever reads a row makes it anew from the
//! row before and compares: a flipped bit shows, at whatever row. What points elsewhere (`previous`,
//! `anchor`) is checked against what is found there.
//!
//! Rows of records that retention took are deleted, and nothing else is, in two steps:
//!
//! 1. They are *blanked*: zeros are written over what they held, in its place. `previous`, which nobody
//!    needs any more, becomes negative and says so.
//! 2. They are *removed*, so that their space can be used again, where no row with a record is near.
//!    SQLite moves the rows of neighbouring pages together then, and what it moves it leaves a copy of
//!    in the unused part of a page, where no deletion would ever find it. So far from records there is
//!    nothing to leave but zeros.
//!
//! The last of a run of blank rows says where the chain stood, so that the row after it can still be
//! checked, and is never removed. The others have zeros there: between two digests that are known, a short
//! text could be guessed. A row that is missing and has no blank one after it is damage.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chatcore::codec;
use chatcore::id::{Digest, Index, Seq};
use chatcore::log::{Change, Entry, Head, Header};
use chatcore::time::Timestamp;
use rusqlite::backup::{Backup, Progress, StepResult};
use rusqlite::config::DbConfig;
use rusqlite::{
    Connection, ErrorCode, OpenFlags, OptionalExtension as _, Row as SqlRow, Transaction,
    TransactionBehavior, ffi, params,
};

use crate::store::Durability;
use crate::store::fault::{Fault, Flaw, StoreError};
use crate::store::folder::{private, publish};
use crate::store::lives::{self, Link};

/// The layout of the tables, in `PRAGMA user_version`.
pub(crate) const LAYOUT: u32 = 2;

/// The layout until an entry trims records: the same tables, none of whose rows is blank. A program that
/// knows no other can read it.
const LAYOUT_WHOLE: u32 = 1;

/// `chat`, in `PRAGMA application_id`.
const APPLICATION: u32 = 0x6368_6174;

/// `previous` is negative in a blank row; `change` holds zeros then, or nothing.
const SCHEMA: &str = "
CREATE TABLE entry (
    number INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    chain BLOB NOT NULL,
    previous INTEGER NOT NULL,
    change BLOB
) STRICT;
CREATE TABLE anchor (
    life INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    number INTEGER NOT NULL,
    PRIMARY KEY (life, seq)
) STRICT, WITHOUT ROWID;
";

/// The chain in a blank row that another one follows.
const HIDDEN: Digest = Digest::new([0; 32]);

/// How long is waited for another program that has the database locked.
const BUSY_TIME: Duration = Duration::from_secs(5);

/// Opens a file that is there.
fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    // The SQLite in this program reads a name that begins with `file:` as a URI, whatever the flags say.
    Connection::open_with_flags(Path::new(".").join(path), flags)
}

/// For what a database is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write(Durability),
}

/// An open connection to a journal.
#[derive(Debug)]
pub(crate) struct Database {
    connection: Connection,
    path: PathBuf,
}

/// A row of `entry`, not yet checked.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    number: Index,
    at: Timestamp,
    chain: Digest,
    /// The row with the record before; 0 when there is none.
    pub(crate) previous: Index,
    /// None in a blank row.
    change: Option<Change>,
    /// The length of what it held.
    pub(crate) bytes: usize,
}

/// What is written of an entry.
#[derive(Debug)]
pub(crate) struct NewRow<'a> {
    pub(crate) entry: &'a Entry,
    pub(crate) chain: Digest,
    pub(crate) link: Option<Link>,
}

impl Row {
    /// Checks that it follows `head`, and moves there.
    pub(crate) fn verify(self, head: &mut Head) -> Result<(Entry, Index), Fault> {
        let number = self.number;
        let wrong = |flaw| Fault::entry(number, flaw);
        let change = self.change.ok_or_else(|| wrong(Flaw::Deleted))?;
        let header = Header { index: number, at: self.at, digest: change.digest() };
        let entry = Entry { header, change };
        head.follow(&entry).map_err(|error| wrong(Flaw::Order(error)))?;
        if head.chain != self.chain {
            return Err(wrong(Flaw::Chain));
        }
        Ok((entry, self.previous))
    }

    /// What it holds; `None` when it is blank: what was missing up to it is deleted, too.
    pub(crate) const fn change(&self) -> Option<&Change> {
        self.change.as_ref()
    }

    /// Whether a blank row follows it, at once or after rows that are not there.
    pub(crate) fn is_inside_blank(&self) -> bool {
        self.change.is_none() && self.chain == HIDDEN
    }

    /// Where the chain is after it, if it is to be believed.
    pub(crate) const fn head(&self) -> Head {
        Head { index: self.number, at: self.at, chain: self.chain }
    }
}

/// Makes an empty journal. It appears whole or not at all.
pub(crate) fn create(path: &Path, folder: &Path) -> Result<(), StoreError> {
    let new = path.with_extension("db.new");
    let at = |source| StoreError::Io { path: new.clone(), source };
    let wrap = |source| StoreError::sqlite(&new, source);
    // Left behind by a server that was killed just here: nothing was ever in it.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at(error)),
        Ok(()) | Err(_) => {}
    }
    private().create_new(true).write(true).open(&new).map_err(at)?;
    let connection = connect(&new).map_err(wrap)?;
    let pragmas = format!(
        "PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {LAYOUT_WHOLE};
         PRAGMA journal_mode = DELETE;"
    );
    connection
        .execute_batch(&format!("{pragmas} BEGIN; {SCHEMA} COMMIT;"))
        .and_then(|()| connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(())))
        .map_err(wrap)?;
    connection.close().map_err(|(_, source)| wrap(source))?;
    File::open(&new).and_then(|file| file.sync_all()).map_err(at)?;
    publish(&new, path, folder).map_err(at)
}

impl Database {
    /// Opens a journal that is there, if it is one and its layout is known.
    ///
    /// The file is touched through SQLite alone: whoever else in this process opened and closed it
    /// would by that give up the locks of every connection to it, as the rules of locks have it, and
    /// another process could then take the write-ahead log away.
    ///
    /// Closing never moves the log into the database: that is a sync like any other, and
    /// [`Self::checkpoint`] tells when it fails.
    pub(crate) fn open(path: &Path, access: Access) -> Result<Self, StoreError> {
        let wrap = |source| StoreError::sqlite(path, source);
        let connection = connect(path).map_err(wrap)?;
        connection
            .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
            .and_then(|_| connection.pragma_update(None, "trusted_schema", false))
            .and_then(|()| connection.pragma_update(None, "cell_size_check", true))
            .and_then(|()| connection.busy_timeout(BUSY_TIME))
            .map_err(wrap)?;
        let database = Self { connection, path: path.to_owned() };
        database.identify()?;
        database.prepare(access).map_err(wrap)?;
        Ok(database)
    }

    /// Checks whose file it is, and of what layout.
    fn identify(&self) -> Result<(), StoreError> {
        let path = || self.path.clone();
        let number = |pragma| self.connection.query_row(pragma, [], |row| row.get(0));
        let both = number("PRAGMA application_id")
            .and_then(|application| Ok((application, number("PRAGMA user_version")?)));
        match both {
            Ok((APPLICATION, LAYOUT_WHOLE | LAYOUT)) => Ok(()),
            Ok((APPLICATION, found)) if found > LAYOUT => {
                Err(StoreError::Newer { path: path(), found, known: LAYOUT })
            }
            Ok(_) => Err(StoreError::NotAJournal(path())),
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::NotADatabase) => {
                Err(StoreError::NotAJournal(path()))
            }
            Err(source) => Err(StoreError::sqlite(&self.path, source)),
        }
    }

    fn prepare(&self, access: Access) -> rusqlite::Result<()> {
        let Access::Write(durability) = access else {
            return self.connection.pragma_update(None, "query_only", true);
        };
        let synchronous = match durability {
            Durability::Commit => "FULL",
            Durability::Relaxed => "NORMAL",
        };
        self.connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
        self.connection.query_row("PRAGMA wal_autocheckpoint = 0", [], |_| Ok(()))?;
        // Zeros are written over what is deleted.
        self.connection.query_row("PRAGMA secure_delete = ON", [], |_| Ok(()))?;
        self.connection.pragma_update(None, "synchronous", synchronous)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The write-ahead log.
    fn log(&self) -> PathBuf {
        self.path.with_extension("db-wal")
    }

    /// Makes sure that the disk has all that the write-ahead log holds.
    ///
    /// A server that was killed before a sync, or whose sync failed, leaves entries there that only the
    /// memory of the system may have; and what a sync could not write, no later one would write. So all
    /// of it is written once more in its place. That changes nothing and needs no space.
    pub(crate) fn secure_log(&self) -> Result<(), StoreError> {
        let sqlite = |source| StoreError::sqlite(&self.path, source);
        let log = self.log();
        // Nobody else writes there meanwhile.
        let immediate = TransactionBehavior::Immediate;
        let held = Transaction::new_unchecked(&self.connection, immediate).map_err(sqlite)?;
        rewrite(&log).map_err(|source| StoreError::Io { path: log, source })?;
        held.finish().map_err(sqlite)
    }

    /// About how many pages the write-ahead log has; as many as could be when that cannot be told.
    pub(crate) fn log_pages(&self) -> u64 {
        const PAGE_BYTES: u64 = 4_096;
        match fs::metadata(self.log()) {
            Ok(file) => file.len() / PAGE_BYTES,
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(_) => u64::MAX / 2,
        }
    }

    /// The write-ahead log, if there is one. Syncing it makes sure that the disk has all that was
    /// appended, where nobody waited for that.
    pub(crate) fn open_log(&self) -> io::Result<Option<File>> {
        match File::open(self.log()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            opened => opened.map(Some),
        }
    }

    /// Appends rows, all or none. With [`Durability::Commit`] they are on the disk afterwards.
    pub(crate) fn append(&mut self, rows: &[NewRow<'_>]) -> rusqlite::Result<()> {
        let transaction = self.connection.transaction()?;
        if rows.iter().any(|row| matches!(row.entry.change, Change::Trimmed { .. })) {
            transaction.pragma_update(None, "user_version", LAYOUT)?;
        }
        {
            let mut entry = transaction.prepare_cached(
                "INSERT INTO entry (number, at, chain, previous, change)
                 VALUES (?1, ?2, ?3, ?4, ?5)",
            )?;
            let mut anchor = transaction
                .prepare_cached("INSERT INTO anchor (life, seq, number) VALUES (?1, ?2, ?3)")?;
            let mut change = Vec::new();
            for row in rows {
                let Header { index, at, .. } = row.entry.header;
                change.clear();
                codec::append(&row.entry.change, &mut change);
                let previous = row.link.map_or(Index::ZERO, |link| link.previous);
                let (at, previous) = (to_sql(at.get()), to_sql(previous.get()));
                let number = to_sql(index.get());
                entry.execute(params![number, at, row.chain.as_bytes(), previous, change])?;
                if let Some(link) = row.link.filter(Link::is_anchor) {
                    let (life, seq) = (to_sql(link.life.get()), to_sql(link.seq.get()));
                    anchor.execute([life, seq, number])?;
                }
            }
        }
        transaction.commit()
    }

    /// Blanks rows of records of a life, all or none.
    pub(crate) fn blank(&mut self, life: Index, rows: &[(Index, Seq)]) -> rusqlite::Result<()> {
        let transaction = self.connection.transaction()?;
        transaction.pragma_update(None, "user_version", LAYOUT)?;
        {
            // As long as before, or SQLite might move the rows around it: see above.
            let mut blank = transaction.prepare_cached(
                "UPDATE entry SET change = zeroblob(length(change)), previous = -max(previous, 1)
                 WHERE number = ?1 AND previous >= 0",
            )?;
            let mut hide = transaction.prepare_cached(
                "UPDATE entry SET chain = zeroblob(32)
                 WHERE (number = ?1 OR number = ?1 - 1) AND previous < 0 AND NOT EXISTS
                 (SELECT 1 FROM entry AS next WHERE next.number = entry.number + 1
                  AND next.previous >= 0)",
            )?;
            let mut anchor =
                transaction.prepare_cached("DELETE FROM anchor WHERE life = ?1 AND seq = ?2")?;
            for (number, seq) in rows {
                blank.execute([to_sql(number.get())])?;
                if lives::is_anchor(*seq) {
                    anchor.execute([to_sql(life.get()), to_sql(seq.get())])?;
                }
            }
            for (number, _) in rows {
                hide.execute([to_sql(number.get())])?;
            }
        }
        transaction.commit()
    }

    /// Removes blank rows, all or none; of the last before a row that is not blank, what it can do
    /// without.
    pub(crate) fn remove(&mut self, rows: &[Index]) -> rusqlite::Result<()> {
        let transaction = self.connection.transaction()?;
        {
            let mut remove = transaction.prepare_cached(
                "DELETE FROM entry WHERE number = ?1 AND previous < 0 AND NOT EXISTS
                 (SELECT 1 FROM entry WHERE number = ?1 + 1 AND previous >= 0)",
            )?;
            let mut empty = transaction.prepare_cached(
                "UPDATE entry SET change = NULL WHERE number = ?1 AND previous < 0",
            )?;
            for number in rows {
                let number = [to_sql(number.get())];
                if remove.execute(number)? == 0 {
                    empty.execute(number)?;
                }
            }
        }
        transaction.commit()
    }

    /// Adds a blank row: what was up to there elsewhere is not here.
    pub(crate) fn append_blank(&mut self, head: &Head) -> rusqlite::Result<()> {
        let transaction = self.connection.transaction()?;
        transaction.pragma_update(None, "user_version", LAYOUT)?;
        transaction.execute(
            "UPDATE entry SET chain = zeroblob(32)
             WHERE number = (SELECT max(number) FROM entry) AND previous < 0",
            [],
        )?;
        transaction.execute(
            "INSERT INTO entry (number, at, chain, previous) VALUES (?1, ?2, ?3, -1)",
            params![to_sql(head.index.get()), to_sql(head.at.get()), head.chain.as_bytes()],
        )?;
        transaction.commit()
    }

    /// Whether anything was ever trimmed, in whatever life of a room, or deleted.
    pub(crate) fn has_trimmed(&self) -> Result<bool, StoreError> {
        let layout =
            self.connection.query_row("PRAGMA user_version", [], |row| row.get::<_, u32>(0));
        let layout = layout.map_err(|source| StoreError::sqlite(&self.path, source))?;
        Ok(layout != LAYOUT_WHOLE)
    }

    /// Whether a row was deleted by retention, as it says itself or the next one that is there.
    pub(crate) fn is_deleted(&self, number: Index) -> Result<bool, Fault> {
        let next = self
            .connection
            .prepare_cached(
                "SELECT previous < 0 FROM entry WHERE number >= ?1 ORDER BY number LIMIT 1",
            )
            .and_then(|mut statement| {
                statement.query_row([to_sql(number.get())], |row| row.get(0)).optional()
            });
        next.map(|is_blank| is_blank == Some(true))
            .map_err(|error| Fault::entry(number, Flaw::Sqlite(error)))
    }

    /// Moves the write-ahead log into the database and empties its file, unless somebody reads just
    /// now; whether it did. What was deleted is in neither file then.
    pub(crate) fn purge(&self) -> rusqlite::Result<bool> {
        // Commits wait for this, so it waits for nobody.
        self.connection.busy_timeout(Duration::ZERO)?;
        let purged = self
            .connection
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, bool>(0))
            .map(|is_busy| !is_busy);
        self.connection.busy_timeout(BUSY_TIME)?;
        purged
    }

    /// Moves the write-ahead log into the database, as far as readers allow.
    pub(crate) fn checkpoint(&self, truncate: bool) -> rusqlite::Result<()> {
        let mode = if truncate { "TRUNCATE" } else { "PASSIVE" };
        self.connection.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |_| Ok(()))
    }

    /// Holds what is read to how it is now, until this is dropped, whoever writes meanwhile. The
    /// write-ahead log cannot begin anew before that, and grows.
    pub(crate) fn pin(&self) -> rusqlite::Result<Transaction<'_>> {
        let pin = self.connection.unchecked_transaction()?;
        // What is read is decided by the first look, not by the beginning.
        pin.query_row("PRAGMA user_version", [], |_| Ok(()))?;
        Ok(pin)
    }

    /// Copies all pages into an empty file, some at a time; `each` is told how many are done, of how
    /// many, and may end it. The copy is whole only when that is over, and on the disk then.
    pub(crate) fn copy<E: From<rusqlite::Error>>(
        &self,
        to: &Path,
        pages_at_once: i32,
        mut each: impl FnMut(i32, i32) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut copy = connect(to)?;
        let backup = Backup::new(&self.connection, &mut copy)?;
        loop {
            let step = backup.step(pages_at_once)?;
            let Progress { remaining, pagecount } = backup.progress();
            each(pagecount.saturating_sub(remaining), pagecount)?;
            match step {
                StepResult::Done => break,
                StepResult::More => {}
                // Nobody else knows the copy, and what is pinned is not locked; as for anything new.
                StepResult::Busy | StepResult::Locked | _ => return Err(busy().into()),
            }
        }
        drop(backup);
        copy.close().map_err(|(_, error)| error.into())
    }

    /// The last row; 0 when there is none.
    pub(crate) fn last(&self) -> Result<Index, Fault> {
        let last = self
            .connection
            .query_row("SELECT max(number) FROM entry", [], |row| row.get::<_, Option<i64>>(0));
        let at = |flaw| Fault::entry(Index::ZERO, flaw);
        let number = last.map_err(|error| at(Flaw::Sqlite(error)))?.unwrap_or(0);
        index(number).ok_or_else(|| at(Flaw::Number))
    }

    /// The rows after one, oldest first, so many at most. None is left out: a hole is for the
    /// caller to find.
    pub(crate) fn rows_after(&self, after: Index, most: usize) -> Result<Vec<Row>, Fault> {
        let mut found = Vec::new();
        // Where reading has come to, for whoever is told that it ended there.
        let mut place = after;
        let result = (|| {
            let mut statement = self.connection.prepare_cached(
                "SELECT number, at, chain, previous, change FROM entry
                 WHERE number > ?1 ORDER BY number LIMIT ?2",
            )?;
            let most = i64::try_from(most).unwrap_or(i64::MAX);
            let mut rows = statement.query([to_sql(after.get()), most])?;
            while let Some(row) = rows.next()? {
                let row = row_of(row)?;
                place = row.number;
                found.push(row);
            }
            Ok(())
        })();
        match result {
            Ok(()) => Ok(found),
            Err(flaw) => Err(Fault::entry(place.next(), flaw)),
        }
    }

    /// One row, checked against the one before, which gives its place in the chain.
    pub(crate) fn entry(&self, number: Index) -> Result<(Entry, Index), Fault> {
        let mut head = self.head(number.previous())?;
        self.row(number)?.verify(&mut head)
    }

    /// Where the chain is after a row, if the row is to be believed.
    pub(crate) fn head(&self, number: Index) -> Result<Head, Fault> {
        self.row(number).map(|row| row.head())
    }

    fn row(&self, number: Index) -> Result<Row, Fault> {
        let row = (|| {
            let mut statement = self.connection.prepare_cached(
                "SELECT number, at, chain, previous, change FROM entry WHERE number = ?1",
            )?;
            let mut rows = statement.query([to_sql(number.get())])?;
            row_of(rows.next()?.ok_or(Flaw::Missing)?)
        })();
        row.map_err(|flaw| Fault::entry(number, flaw))
    }

    /// The entry of a record that is an anchor.
    pub(crate) fn anchor(&self, life: Index, seq: Seq) -> Result<Option<Index>, Flaw> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT number FROM anchor WHERE life = ?1 AND seq = ?2")?;
        let key = [to_sql(life.get()), to_sql(seq.get())];
        let number = statement.query_row(key, |row| row.get(0)).optional()?;
        number.map(|number| index(number).ok_or(Flaw::Number)).transpose()
    }

    /// How many anchors there are.
    pub(crate) fn anchor_count(&self) -> Result<u64, Flaw> {
        let count: i64 =
            self.connection.query_row("SELECT count(*) FROM anchor", [], |row| row.get(0))?;
        u64::try_from(count).map_err(|_| Flaw::Number)
    }

    /// What SQLite itself finds wrong, a line each and ten at most.
    pub(crate) fn integrity(&self) -> Result<Vec<String>, rusqlite::Error> {
        let mut statement = self.connection.prepare("PRAGMA integrity_check(10)")?;
        let lines = statement.query_map([], |row| row.get::<_, String>(0))?;
        let lines: Result<Vec<_>, _> = lines.collect();
        Ok(lines?.into_iter().filter(|line| line != "ok").collect())
    }
}

/// Writes a file over itself and syncs it, if it is there.
fn rewrite(path: &Path) -> io::Result<()> {
    const BYTES_AT_ONCE: usize = 64 << 10;
    let file = match OpenOptions::new().read(true).write(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened?,
    };
    let (mut bytes, mut place) = (vec![0; BYTES_AT_ONCE], 0);
    loop {
        let count = file.read_at(&mut bytes, place)?;
        let Some(read) = bytes.get(..count).filter(|read| !read.is_empty()) else { break };
        file.write_all_at(read, place)?;
        place += u64::try_from(count).unwrap_or_default();
    }
    file.sync_data()
}

fn busy() -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_BUSY), None)
}

fn row_of(row: &SqlRow<'_>) -> Result<Row, Flaw> {
    let number = index(row.get(0)?).ok_or(Flaw::Number)?;
    let at = u64::try_from(row.get::<_, i64>(1)?).ok().and_then(|at| Timestamp::new(at).ok());
    let (previous, change): (i64, Option<Vec<u8>>) = (row.get(3)?, row.get(4)?);
    let bytes = change.as_ref().map_or(0, Vec::len);
    let is_blank = previous < 0;
    let change = if is_blank { None } else { Some(change.ok_or(Flaw::Missing)?) };
    Ok(Row {
        number,
        at: at.ok_or(Flaw::Number)?,
        chain: Digest::new(row.get(2)?),
        previous: if is_blank { Index::ZERO } else { index(previous).ok_or(Flaw::Number)? },
        change: change.map(|it| codec::decode(&it)).transpose().map_err(Flaw::Change)?,
        bytes,
    })
}

impl From<rusqlite::Error> for Flaw {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

/// Numbers of the engine are below 2^53, so they fit.
fn to_sql(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn index(number: i64) -> Option<Index> {
    u64::try_from(number).ok().and_then(|number| Index::new(number).ok())
}
