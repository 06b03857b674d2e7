//! What a client keeps between runs, in one SQLite file.
//!
//! The file is for the process that dies, not for the power that fails: in WAL mode with
//! `synchronous=NORMAL` a commit survives `kill -9`, and after a power cut the file is intact with
//! the last moments missing. The lock of the key file keeps other clients away.
//!
//! Invariant: changes reach the file in the order they were made; a [`Store::commit`] comes before
//! whatever depends on them.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use chatcore::client::{Origin, Save, Saved, Unsent};
use chatcore::id::{Attach, Counter, LogId, PublicKey, SessionId};
use chatcore::text::{RoomName, UserName};
use chatcore::time::Timestamp;
use chatcore::wire::Cursor;
use rusqlite::{Connection, OptionalExtension as _, params};

use crate::screen::Seen;

/// The layout of the file, in `PRAGMA user_version`.
const SCHEMA_VERSION: i64 = 2;

const SCHEMA: &str = "
CREATE TABLE profile (
    id INTEGER PRIMARY KEY,
    service TEXT NOT NULL,
    name TEXT NOT NULL,
    session TEXT NOT NULL,
    log_id TEXT,
    opened INTEGER,
    attach INTEGER NOT NULL DEFAULT 0,
    last_counter INTEGER NOT NULL DEFAULT 0,
    UNIQUE (service, name)
) STRICT;
CREATE TABLE outbox (
    profile INTEGER NOT NULL REFERENCES profile,
    counter INTEGER NOT NULL,
    label TEXT NOT NULL,
    command TEXT NOT NULL,
    PRIMARY KEY (profile, counter)
) STRICT, WITHOUT ROWID;
CREATE TABLE cursor (
    profile INTEGER NOT NULL REFERENCES profile,
    room TEXT NOT NULL,
    incarnation INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    PRIMARY KEY (profile, room)
) STRICT, WITHOUT ROWID;
PRAGMA user_version = 2;
";

/// From layout 1: when the session was opened was not kept.
const ADD_OPENED: &str = "
ALTER TABLE profile ADD COLUMN opened INTEGER;
PRAGMA user_version = 2;
";

/// Why the state cannot be kept or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The file is of a newer program.
    #[error("the state file has layout {0}, this program knows layout {SCHEMA_VERSION}")]
    Newer(i64),
    /// A value in the file is not what was written there.
    #[error("the state file is damaged: {0}")]
    Damaged(&'static str),
    /// SQLite says no.
    #[error("the state file cannot be used: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// The file cannot be made.
    #[error("the state file cannot be made: {0}")]
    File(#[from] std::io::Error),
}

/// The open file, and the profile in it that this run is about.
#[derive(Debug)]
pub struct Store {
    file: Connection,
    profile: i64,
    log_id: Option<LogId>,
    transaction: Transaction,
}

/// Whether changes wait for [`Store::commit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transaction {
    None,
    Open,
}

impl Store {
    /// Opens or makes the file. `fresh` is the session of a profile that is not in it yet.
    ///
    /// Returns what was kept for this server and name. A key file that the user names may serve
    /// several servers: what was written for one never goes to another.
    ///
    /// # Errors
    /// When the file cannot be used.
    pub fn open(
        path: &Path,
        service: PublicKey,
        name: &UserName,
        fresh: SessionId,
    ) -> Result<(Self, Saved), StoreError> {
        OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
        // A name that begins with `file:` would be read as a URI.
        let file = Connection::open(Path::new(".").join(path))?;
        file.pragma_update(None, "journal_mode", "WAL")?;
        file.pragma_update(None, "synchronous", "NORMAL")?;
        migrate(&file)?;
        file.execute(
            "INSERT INTO profile (service, name, session) VALUES (?1, ?2, ?3)
             ON CONFLICT (service, name) DO NOTHING",
            params![service.to_string(), name.as_str(), fresh.to_string()],
        )?;
        let profile = file.query_row(
            "SELECT id FROM profile WHERE service = ?1 AND name = ?2",
            params![service.to_string(), name.as_str()],
            |row| row.get(0),
        )?;
        let mut store = Self { file, profile, log_id: None, transaction: Transaction::None };
        let saved = store.load()?;
        store.log_id = saved.origin.map(|origin| origin.log_id);
        Ok((store, saved))
    }

    /// Takes in a change. It is in the file after the next [`commit`](Self::commit).
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn apply(&mut self, save: &Save) -> Result<(), StoreError> {
        self.begin()?;
        match save {
            Save::Queued(unsent) => self.queue(unsent),
            Save::Settled(counter) => {
                let sql = "DELETE FROM outbox WHERE profile = ?1 AND counter = ?2";
                self.execute(sql, params![self.profile, to_sql(counter.get())])
            }
            Save::Seen(room, cursor) => self.move_cursor(room, *cursor),
            Save::Attach(attach) => {
                let sql = "UPDATE profile SET attach = ?2 WHERE id = ?1";
                self.execute(sql, params![self.profile, to_sql(attach.get())])
            }
            Save::Renewed { session, origin, outbox } => self.renew(*session, *origin, outbox),
        }
    }

    /// Takes in what lines that were written say, and commits.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn apply_seen(&mut self, seen: Seen) -> Result<(), StoreError> {
        if seen.is_empty() {
            return Ok(());
        }
        for counter in seen.settled {
            self.apply(&Save::Settled(counter))?;
        }
        for (room, cursor) in seen.cursors {
            self.apply(&Save::Seen(room, cursor))?;
        }
        self.commit()
    }

    /// The journal that the cursors are about.
    pub const fn log_id(&self) -> Option<LogId> {
        self.log_id
    }

    /// Whether the file holds nothing of worth: nobody ever logged in with it, and no command
    /// waits.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn is_unused(&self) -> Result<bool, StoreError> {
        let sql = "SELECT NOT EXISTS (SELECT 1 FROM profile WHERE log_id IS NOT NULL)
                       AND NOT EXISTS (SELECT 1 FROM outbox)";
        Ok(self.file.query_row(sql, [], |row| row.get(0))?)
    }

    /// Makes the changes since the last time survive this process.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn commit(&mut self) -> Result<(), StoreError> {
        if self.transaction == Transaction::Open {
            self.file.execute_batch("COMMIT")?;
            self.transaction = Transaction::None;
        }
        Ok(())
    }

    fn begin(&mut self) -> Result<(), StoreError> {
        if self.transaction == Transaction::None {
            self.file.execute_batch("BEGIN IMMEDIATE")?;
            self.transaction = Transaction::Open;
        }
        Ok(())
    }

    fn execute(&self, sql: &str, values: impl rusqlite::Params) -> Result<(), StoreError> {
        self.file.prepare_cached(sql)?.execute(values)?;
        Ok(())
    }

    fn queue(&self, unsent: &Unsent) -> Result<(), StoreError> {
        let command = serde_json::to_string(&unsent.command)
            .map_err(|_| StoreError::Damaged("a command has no JSON form"))?;
        let counter = to_sql(unsent.counter.get());
        self.execute(
            "INSERT OR REPLACE INTO outbox (profile, counter, label, command)
             VALUES (?1, ?2, ?3, ?4)",
            params![self.profile, counter, unsent.id, command],
        )?;
        self.execute(
            "UPDATE profile SET last_counter = max(last_counter, ?2) WHERE id = ?1",
            params![self.profile, counter],
        )
    }

    fn move_cursor(&self, room: &RoomName, cursor: Cursor) -> Result<(), StoreError> {
        self.execute(
            "INSERT INTO cursor (profile, room, incarnation, seq) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (profile, room) DO UPDATE SET incarnation = ?3, seq = ?4",
            params![
                self.profile,
                room.as_str(),
                to_sql(cursor.incarnation.get()),
                to_sql(cursor.seq.get())
            ],
        )
    }

    fn renew(
        &mut self,
        session: SessionId,
        origin: Origin,
        outbox: &[Unsent],
    ) -> Result<(), StoreError> {
        self.execute("DELETE FROM outbox WHERE profile = ?1", [self.profile])?;
        let Origin { log_id, opened } = origin;
        if self.log_id != Some(log_id) {
            self.execute("DELETE FROM cursor WHERE profile = ?1", [self.profile])?;
        }
        self.log_id = Some(log_id);
        self.execute(
            "UPDATE profile SET session = ?2, log_id = ?3, opened = ?4, last_counter = 0
             WHERE id = ?1",
            params![self.profile, session.to_string(), log_id.to_string(), to_sql(opened.get()),],
        )?;
        outbox.iter().try_for_each(|unsent| self.queue(unsent))
    }

    fn load(&self) -> Result<Saved, StoreError> {
        let (session, attach, last_counter): (String, i64, i64) = self.file.query_row(
            "SELECT session, attach, last_counter FROM profile WHERE id = ?1",
            [self.profile],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )?;
        Ok(Saved {
            session: session.parse().map_err(|_| StoreError::Damaged("session"))?,
            origin: self.load_origin()?,
            attach: from_sql(attach, Attach::new, "attach number")?,
            last_counter: from_sql(last_counter, Counter::new, "last counter")?,
            outbox: self.load_outbox()?,
            cursors: self.load_cursors()?,
        })
    }

    fn load_origin(&self) -> Result<Option<Origin>, StoreError> {
        let (log_id, opened): (Option<String>, Option<i64>) = self.file.query_row(
            "SELECT log_id, opened FROM profile WHERE id = ?1",
            [self.profile],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?;
        let Some(log_id) = log_id else { return Ok(None) };
        let log_id = log_id.parse().map_err(|_| StoreError::Damaged("log id"))?;
        // A file of layout 1 does not say it: then the session counts as expired, once.
        let opened = from_sql(opened.unwrap_or_default(), Timestamp::new, "time of opening")?;
        Ok(Some(Origin { log_id, opened }))
    }

    fn load_outbox(&self) -> Result<Vec<Unsent>, StoreError> {
        let mut rows = self.file.prepare(
            "SELECT counter, label, command FROM outbox WHERE profile = ?1 ORDER BY counter",
        )?;
        let rows = rows.query_map([self.profile], |row| {
            Ok((row.get::<_, i64>(0)?, row.get(1)?, row.get::<_, String>(2)?))
        })?;
        rows.map(|row| {
            let (counter, id, command) = row?;
            let counter = from_sql(counter, Counter::new, "counter")?;
            let command =
                serde_json::from_str(&command).map_err(|_| StoreError::Damaged("command"))?;
            Ok(Unsent { counter, id, command })
        })
        .collect()
    }

    fn load_cursors(&self) -> Result<Vec<(RoomName, Cursor)>, StoreError> {
        let mut rows = self.file.prepare(
            "SELECT room, incarnation, seq FROM cursor WHERE profile = ?1 ORDER BY room",
        )?;
        let rows = rows.query_map([self.profile], |row| {
            Ok((row.get::<_, String>(0)?, row.get(1)?, row.get(2)?))
        })?;
        rows.map(|row| {
            let (room, incarnation, seq) = row?;
            let room = room.parse().map_err(|_| StoreError::Damaged("room"))?;
            let incarnation = from_sql(incarnation, chatcore::id::Incarnation::new, "incarnation")?;
            let seq = from_sql(seq, chatcore::id::Seq::new, "sequence number")?;
            Ok((room, Cursor { incarnation, seq }))
        })
        .collect()
    }
}

fn migrate(file: &Connection) -> Result<(), StoreError> {
    let version: Option<i64> =
        file.query_row("PRAGMA user_version", [], |row| row.get(0)).optional()?;
    match version.unwrap_or(0) {
        0 => Ok(file.execute_batch(&format!("BEGIN IMMEDIATE; {SCHEMA} COMMIT"))?),
        1 => Ok(file.execute_batch(&format!("BEGIN IMMEDIATE; {ADD_OPENED} COMMIT"))?),
        SCHEMA_VERSION => Ok(()),
        newer => Err(StoreError::Newer(newer)),
    }
}

/// Numbers that travel are below 2^53, so they fit.
fn to_sql(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn from_sql<T, E>(
    number: i64,
    check: impl Fn(u64) -> Result<T, E>,
    what: &'static str,
) -> Result<T, StoreError> {
    let damaged = StoreError::Damaged(what);
    let Ok(number) = u64::try_from(number) else { return Err(damaged) };
    check(number).map_err(|_| damaged)
}

#[cfg(test)]
mod tests {
    use super::*;
    use chatcore::id::{Incarnation, Seq};
    use chatcore::text::Untrusted;
    use chatcore::wire::Command;

    const SERVICE: PublicKey = PublicKey::new([1; 32]);
    const FRESH: SessionId = SessionId::new([2; 16]);

    fn name() -> UserName {
        "alice".parse().unwrap()
    }

    fn post(counter: u64, text: &str) -> Unsent {
        let command = Command::Post {
            room: Untrusted::new("lobby"),
            incarnation: None,
            body: Untrusted::new(text),
        };
        Unsent { counter: Counter::new(counter).unwrap(), id: format!("id {counter}"), command }
    }

    fn cursor(seq: u64) -> Cursor {
        Cursor { incarnation: Incarnation::new(1).unwrap(), seq: Seq::new(seq).unwrap() }
    }

    fn reopen(path: &Path) -> (Store, Saved) {
        Store::open(path, SERVICE, &name(), SessionId::new([9; 16])).unwrap()
    }

    #[test]
    fn what_was_committed_is_there_in_the_next_run() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        let (mut store, saved) = Store::open(&path, SERVICE, &name(), FRESH).unwrap();
        assert_eq!((saved.session, saved.origin, saved.outbox.len()), (FRESH, None, 0));
        let room: RoomName = "lobby".parse().unwrap();
        let hostile = "\u{0}\"'; DROP TABLE outbox; --\u{202e}";
        for save in [
            Save::Attach(Attach::new(4).unwrap()),
            Save::Queued(post(1, "one")),
            Save::Queued(post(2, hostile)),
            Save::Settled(Counter::new(1).unwrap()),
            Save::Seen(room.clone(), cursor(7)),
        ] {
            store.apply(&save).unwrap();
        }
        store.commit().unwrap();
        let cursors = [(room.clone(), cursor(9))].into();
        store.apply_seen(Seen { cursors, settled: Vec::new() }).unwrap();
        drop(store);
        let (_, saved) = reopen(&path);
        assert_eq!(saved.session, FRESH);
        assert_eq!(saved.attach.get(), 4);
        assert_eq!(saved.last_counter.get(), 2);
        assert_eq!(saved.outbox, [post(2, hostile)]);
        assert_eq!(saved.cursors, [(room, cursor(9))]);
    }

    #[test]
    fn what_was_not_committed_is_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        let (mut store, _) = Store::open(&path, SERVICE, &name(), FRESH).unwrap();
        store.apply(&Save::Queued(post(1, "one"))).unwrap();
        drop(store);
        assert_eq!(reopen(&path).1.outbox, []);
    }

    #[test]
    fn renewal_leaves_only_the_commands_it_names() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        let (mut store, _) = Store::open(&path, SERVICE, &name(), FRESH).unwrap();
        store.apply(&Save::Queued(post(7, "old"))).unwrap();
        store.apply(&Save::Seen("lobby".parse().unwrap(), cursor(7))).unwrap();
        let opened = Timestamp::new(5).unwrap();
        let origin = Origin { log_id: LogId::new([4; 16]), opened };
        let session = SessionId::new([3; 16]);
        let outbox = vec![post(1, "old")];
        store.apply(&Save::Renewed { session, origin, outbox: outbox.clone() }).unwrap();
        store.commit().unwrap();
        drop(store);
        let (_, saved) = reopen(&path);
        assert_eq!((saved.session, saved.origin), (session, Some(origin)));
        assert_eq!((saved.last_counter.get(), saved.cursors.len()), (1, 0));
        assert_eq!(saved.outbox, outbox);
    }

    #[test]
    fn lines_for_one_server_are_not_in_the_outbox_of_another() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        let (mut store, _) = Store::open(&path, SERVICE, &name(), FRESH).unwrap();
        store.apply(&Save::Queued(post(1, "secret"))).unwrap();
        store.commit().unwrap();
        drop(store);
        let other = PublicKey::new([8; 32]);
        let (_, saved) = Store::open(&path, other, &name(), FRESH).unwrap();
        assert_eq!(saved.outbox, []);
        assert_eq!(reopen(&path).1.outbox.len(), 1);
    }

    #[test]
    fn file_of_a_newer_program_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        Connection::open(&path).unwrap().pragma_update(None, "user_version", 3).unwrap();
        let refused = Store::open(&path, SERVICE, &name(), FRESH);
        assert!(matches!(refused, Err(StoreError::Newer(3))));
    }

    #[test]
    fn file_of_layout_1_is_brought_up_to_date_and_its_session_counts_as_expired() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        let (mut store, _) = Store::open(&path, SERVICE, &name(), FRESH).unwrap();
        let (log_id, opened) = (LogId::new([4; 16]), Timestamp::new(5).unwrap());
        let origin = Origin { log_id, opened };
        let renewed = Save::Renewed { session: FRESH, origin, outbox: Vec::new() };
        store.apply(&renewed).unwrap();
        store.commit().unwrap();
        drop(store);
        let file = Connection::open(&path).unwrap();
        file.execute_batch("ALTER TABLE profile DROP COLUMN opened").unwrap();
        file.pragma_update(None, "user_version", 1).unwrap();
        drop(file);
        let (_, saved) = Store::open(&path, SERVICE, &name(), FRESH).unwrap();
        assert_eq!(saved.origin, Some(Origin { log_id, opened: Timestamp::ZERO }));
    }
}
