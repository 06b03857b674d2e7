//! Verifying a whole folder: every row, every anchor, every checkpoint.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use chatcore::engine::{Archive, Config, Engine};
use chatcore::id::{Digest, Index, PublicKey, Seq};
use chatcore::limits::Limits;
use chatcore::log::{Change, Head};
use chatcore::text::RoomName;
use chatcore::time::Now;

use crate::key::{KeyError, ServerKey};
use crate::store::checkpoint::{self, Checkpoint};
use crate::store::database::{Access, Database, Row};
use crate::store::expect_journal;
use crate::store::fault::{Fault, Flaw, StoreError};
use crate::store::folder::{Folder, FoundTip, JOURNAL};
use crate::store::lives::{Link, Lives};
use crate::store::recovery::{self, Blocked, ROWS_AT_ONCE, Recovered, Way};

/// Damaged rows that are named; whoever has more needs a backup, not a list.
const FINDINGS_MAX: usize = 20;

/// What is in a folder.
#[derive(Debug)]
pub struct Checked {
    /// The last entry of its journal; 0 when it has none.
    pub entries: Index,
    /// The state after it; none when it has no entry, or cannot be replayed.
    pub state_hash: Option<Digest>,
    /// The key that the journal was founded by.
    pub founder: Option<PublicKey>,
    /// How many rooms there are.
    pub rooms: usize,
    /// How many checkpoints there are.
    pub checkpoints: usize,
    /// What is wrong, at most about 20 things; none when all is as it was written.
    pub findings: Vec<Finding>,
    /// What cannot be told. It keeps no server from starting.
    pub notes: Vec<Note>,
}

/// Something that cannot be told of a folder.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Note {
    /// The file that tells how far the journal reached is not there, or empty.
    #[error("{} is not there: nothing tells whether the newest entries are", .0.display())]
    NoTip(PathBuf),
}

/// Something that is wrong in a folder.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Finding {
    /// A row.
    #[error(transparent)]
    Row(#[from] Fault),
    /// There are rows in `anchor` that belong to no record.
    #[error("table anchor has {found} rows, {due} are due")]
    Anchors {
        /// How many there are.
        found: u64,
        /// How many there should be.
        due: u64,
    },
    /// SQLite itself finds its file damaged.
    #[error("SQLite says: {0}")]
    Sqlite(String),
    /// A checkpoint cannot be used.
    #[error("{}: {reason}", path.display())]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The file that tells how far the journal reached is damaged.
    #[error("{} is damaged", .0.display())]
    Tip(PathBuf),
    /// The journal cannot be taken up.
    #[error(transparent)]
    Journal(StoreError),
    /// The server's key cannot be used.
    #[error(transparent)]
    Key(KeyError),
}

/// Verifies everything in a data folder, and changes nothing in it. Of records that retention deleted
/// nothing is left to verify; what comes after them is.
///
/// It takes about as long as replaying the journal twice, and memory for the state, not for the
/// history.
///
/// # Errors
/// When the folder holds no journal, is in use, or is of a newer program. What is damaged is no
/// error, but a finding.
pub fn check(path: &Path) -> Result<Checked, StoreError> {
    let mut checked = check_journal(path)?;
    match (ServerKey::of_folder(path), checked.founder) {
        (Ok(key), Some(founder)) if key.public() != founder => {
            let (path, key) = (path.join(JOURNAL), key.public());
            checked.findings.push(Finding::Journal(StoreError::OtherKey { path, founder, key }));
        }
        (Ok(_), _) => {}
        (Err(error), _) => checked.findings.push(Finding::Key(error)),
    }
    Ok(checked)
}

/// Verifies all but the key.
pub(crate) fn check_journal(path: &Path) -> Result<Checked, StoreError> {
    let file = path.join(JOURNAL);
    expect_journal(path)?;
    let folder = Folder::lock_existing(path)?;
    let database = Database::open(&file, Access::Read)?;
    let at = |source| StoreError::Io { path: path.to_owned(), source };
    let checkpoints = checkpoint::list(path).map_err(at)?;
    let mut rows = Rows::new(&database);
    rows.check();
    let is_whole = !rows.deleted;
    let mut checked = Checked {
        entries: rows.last,
        state_hash: None,
        founder: None,
        rooms: 0,
        checkpoints: checkpoints.len(),
        findings: rows.findings,
        notes: Vec::new(),
    };
    match database.integrity() {
        Ok(lines) => checked.findings.extend(lines.into_iter().map(Finding::Sqlite)),
        Err(error) => checked.findings.push(Finding::Sqlite(error.to_string())),
    }
    // What follows goes over the same rows.
    if checked.findings.is_empty() {
        check_states(&folder, &database, &checkpoints, is_whole, &mut checked)?;
    }
    Ok(checked)
}

/// What is wrong with the rows of a journal, and nothing else.
pub(crate) fn check_rows(database: &Database) -> Vec<Finding> {
    let mut rows = Rows::new(database);
    rows.check();
    rows.findings
}

/// Replays the journal, or what is left of it after the oldest checkpoint, and compares what each
/// checkpoint leads to.
fn check_states(
    folder: &Folder,
    database: &Database,
    checkpoints: &[Index],
    is_whole: bool,
    checked: &mut Checked,
) -> Result<(), StoreError> {
    let tip = folder.tip();
    let at = |source| StoreError::Io { path: tip.clone(), source };
    let found = FoundTip::read(&tip).map_err(at)?;
    match found {
        FoundTip::Damaged => checked.findings.push(Finding::Tip(tip)),
        FoundTip::None if checked.entries > Index::ZERO => checked.notes.push(Note::NoTip(tip)),
        FoundTip::None | FoundTip::At(_) => {
            let held = recovery::hold_against(found, tip, database, checked.entries);
            checked.findings.extend(held.err().map(Finding::Journal));
        }
    }
    if checked.entries == Index::ZERO && checkpoints.is_empty() {
        return Ok(());
    }
    let limits = Limits { window_bytes: 0, ..Limits::default() };
    let config = &Config { limits, archive: Archive::Store, ..Config::default() };
    let stop = &AtomicBool::new(false);
    let way = Way { folder, database, config, now: Now::default(), stop };
    let oldest_first: Vec<Index> = checkpoints.iter().rev().copied().collect();
    let recovered = if is_whole { way.by_replay()? } else { way.first_of(&oldest_first)? };
    let Recovered { engine, lives, .. } = recovered;
    checked.rooms = lives.iter().count();
    checked.state_hash = Some(engine.state_hash());
    checked.founder = Some(engine.founding().server_key);
    for (index, path) in checkpoints.iter().flat_map(|index| files_of(folder, *index)) {
        let recovered = Checkpoint::read(&path, index).map_err(Blocked::from);
        let reason = match recovered.and_then(|checkpoint| way.by(checkpoint)) {
            Ok(other) if are_same(&other, &engine, &lives) => continue,
            Ok(_) => "it leads to another state than the journal".to_owned(),
            Err(Blocked::Checkpoint(error)) => error.to_string(),
            Err(Blocked::Store(error)) => error.to_string(),
        };
        checked.findings.push(Finding::Checkpoint { path, reason });
    }
    Ok(())
}

/// The files of a checkpoint that are there.
fn files_of(folder: &Folder, index: Index) -> impl Iterator<Item = (Index, PathBuf)> {
    let files = checkpoint::files(folder.path(), index).into_iter();
    files.filter(|path| path.exists()).map(move |path| (index, path))
}

fn are_same(one: &Recovered, engine: &Engine, lives: &Lives) -> bool {
    let hashes = (one.engine.state_hash(), one.engine.head());
    hashes == (engine.state_hash(), engine.head()) && one.lives == *lives
}

/// All rows, one after the other.
struct Rows<'a> {
    database: &'a Database,
    /// Where the chain stands; unknown at the beginning and after a damaged row.
    head: Option<Head>,
    last: Index,
    /// Rooms, as long as every row was good.
    lives: Option<Lives>,
    anchors: u64,
    /// Whether there are any that retention deleted.
    deleted: bool,
    /// Whether the row before is blank, and if so, whether it says that another blank one follows.
    blank: Option<bool>,
    /// The last record that is missing of the present life of a room, and the row that shows it.
    missing: BTreeMap<RoomName, (Seq, Index)>,
    /// The last record that may be missing.
    trimmed: BTreeMap<RoomName, Seq>,
    findings: Vec<Finding>,
}

impl<'a> Rows<'a> {
    fn new(database: &'a Database) -> Self {
        Self {
            database,
            head: None,
            last: Index::ZERO,
            lives: Some(Lives::default()),
            anchors: 0,
            deleted: false,
            blank: None,
            missing: BTreeMap::new(),
            trimmed: BTreeMap::new(),
            findings: Vec::new(),
        }
    }

    fn check(&mut self) {
        while self.findings.len() < FINDINGS_MAX {
            match self.database.rows_after(self.last, ROWS_AT_ONCE) {
                Ok(rows) if rows.is_empty() => break,
                Ok(rows) => rows.into_iter().for_each(|row| self.check_row(row)),
                Err(fault) => self.pass_over(fault),
            }
        }
        // After damage it is not known what was trimmed.
        let holes = self.missing.iter().filter(|_| self.lives.is_some());
        let untrimmed = holes.filter(|(room, (last, _))| self.trimmed.get(*room) < Some(last));
        let faults = untrimmed.map(|(_, (_, row))| Fault::entry(*row, Flaw::Untrimmed).into());
        self.findings.extend(faults.take(FINDINGS_MAX));
        match self.database.anchor_count() {
            Ok(found) if self.lives.is_some() && found != self.anchors => {
                self.findings.push(Finding::Anchors { found, due: self.anchors });
            }
            Ok(_) => {}
            Err(flaw) => self.findings.push(Fault::anchor(Index::ZERO, flaw).into()),
        }
    }

    /// Goes on after a row that cannot be read.
    fn pass_over(&mut self, fault: Fault) {
        // Rows before it in the same group are good, and are read by themselves.
        let bad = Index::new(fault.row).unwrap_or(Index::MAX);
        while self.last.next() < bad {
            match self.database.rows_after(self.last, 1).map(Vec::into_iter) {
                Ok(mut rows) => match rows.next() {
                    Some(row) => self.check_row(row),
                    None => break,
                },
                Err(_) => break,
            }
        }
        self.last = bad;
        self.lost_track(fault);
    }

    fn lost_track(&mut self, fault: Fault) {
        (self.head, self.blank) = (None, None);
        self.lives = None;
        self.findings.push(fault.into());
    }

    fn check_row(&mut self, row: Row) {
        let (place, after) = (self.last.next(), row.head());
        self.last = after.index;
        let blank = self.blank.take();
        if row.change().is_none() {
            // That of the last in a run the row after it tells; the others have none.
            if blank.is_some_and(|is_inside| !is_inside) {
                self.findings.push(Fault::entry(place.previous(), Flaw::Chain).into());
            }
            (self.head, self.deleted) = (Some(after), true);
            self.blank = Some(row.is_inside_blank());
            return;
        }
        if after.index != place {
            return self.lost_track(Fault::entry(place, Flaw::Missing));
        }
        let head = match self.head {
            Some(head) => Ok(head),
            None if place == Index::ZERO.next() => row.beginning(),
            // The row before was damaged: this one is where the chain is taken up again.
            None => {
                self.head = Some(after);
                return;
            }
        };
        let verified = head.and_then(|mut head| row.verify(&mut head));
        match verified.and_then(|(entry, previous)| self.check_links(&entry, previous)) {
            Ok(()) => self.head = Some(after),
            Err(fault) => self.lost_track(fault),
        }
    }

    fn check_links(&mut self, entry: &chatcore::log::Entry, previous: Index) -> Result<(), Fault> {
        let Some(lives) = &mut self.lives else { return Ok(()) };
        let place = entry.header.index;
        let wrong = |flaw| Fault::entry(place, flaw);
        if let Some(record) = entry.record() {
            let is_first = lives.get(&record.room).is_some_and(|life| life.last == Seq::ZERO);
            let resumes = lives.resume(&record, previous);
            // It is always the oldest that are deleted.
            if resumes && !(is_first && previous < place && self.database.is_deleted(previous)?) {
                return Err(wrong(Flaw::Record));
            }
            if resumes {
                self.missing.insert(record.room, (record.seq.previous(), place));
            }
        }
        if let Change::Trimmed { room, through, .. } = &entry.change {
            self.trimmed.insert(room.clone(), *through);
        }
        // Of a life that is over all may be missing.
        if let Change::Reset { room, .. } = &entry.change {
            self.trimmed.remove(room);
            self.missing.remove(room);
        }
        let link = lives.follow(entry).map_err(wrong)?;
        if previous != link.map_or(Index::ZERO, |link| link.previous) {
            return Err(wrong(Flaw::Previous));
        }
        let Some(Link { life, seq, .. }) = link.filter(Link::is_anchor) else { return Ok(()) };
        self.anchors += 1;
        match self.database.anchor(life, seq) {
            Ok(Some(number)) if number == place => Ok(()),
            Ok(_) => Err(Fault::anchor(place, Flaw::Anchor(seq))),
            Err(flaw) => Err(Fault::anchor(place, flaw)),
        }
    }
}
