//! The body of the fuzz target `log_recovery`: a folder to which anything happened.
//!
//! A folder with a small chat is made once, in two states: stopped in order, and killed. An input says
//! which of them is taken, and what happens to its files. A start then either refuses, names what it
//! refuses, and leaves the files as they are; or it comes back with a beginning of the journal that
//! was written, no shorter than what the tip and the checkpoints know of.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use chatcore::engine::{Archive, Config, Engine, ReadOrder};
use chatcore::id::{
    Counter, Digest, Incarnation, Index, LogId, PublicKey, Seq, SessionId, Threshold,
};
use chatcore::limits::Limits;
use chatcore::log::{Change, CommandId, Entry, Founding, Head};
use chatcore::text::{RoomName, UserName};
use chatcore::time::{Now, Timestamp};
use chatcore::wire::Record;

use crate::retention::Keep;
use crate::store::checkpoint::{self, Checkpoint};
use crate::store::folder::{FoundTip, JOURNAL, TIP, make_folder};
use crate::store::journal::Wanted;
use crate::store::threads::Parts;
use crate::store::{Durability, Opened, StoreError, check as check_folder, open};

/// Things that happen to a folder at most.
const DEEDS_MAX: usize = 32;

/// What disks write as one.
const SECTOR: usize = 512;

/// No file grows beyond so many bytes.
const FILE_BYTES_MAX: usize = 256 << 10;

const LOG: &str = "journal.db-wal";

/// The bit of the first byte that has the folder verified as `check` does it.
pub const CHECKED: u8 = 2;

/// What can happen to a file, by the byte that says it.
pub mod deed {
    /// A bit flips: where (2 bytes), which.
    pub const FLIP: u8 = 0;
    /// Bytes are overwritten: where (2 bytes), how many, which.
    pub const WRITE: u8 = 1;
    /// A sector becomes zeros: which.
    pub const ZERO: u8 = 2;
    /// All after a place is gone: where (2 bytes).
    pub const CUT: u8 = 3;
    /// It is gone.
    pub const REMOVE: u8 = 4;
    /// It becomes these bytes: how many (2 bytes), which.
    pub const REPLACE: u8 = 5;
    /// A sector is written to the place of another: which, where to.
    pub const COPY: u8 = 6;
    /// It is the one of the other state of the folder.
    pub const SWAP: u8 = 7;
    /// Bytes are appended: how many, which.
    pub const APPEND: u8 = 8;
    /// It takes the place of another: which.
    pub const RENAME: u8 = 9;
    /// How many there are.
    pub const COUNT: u8 = 10;
}

/// Files by their names.
type Files = BTreeMap<String, Vec<u8>>;

/// The chat that every folder begins with.
struct Story {
    stopped: Files,
    killed: Files,
    /// The chain and the state after each entry.
    standings: BTreeMap<Index, (Digest, Digest)>,
    /// What readers of the lobby see, if nothing is lost.
    records: Vec<Record>,
}

/// What came of an input, so that tests can tell whether seeds get somewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// The start was refused.
    Refused,
    /// All of the journal is there.
    Whole,
    /// A beginning of it is.
    Beginning,
    /// There was nothing left to come back from.
    New,
}

/// Does to a folder what the input says, and starts on it.
///
/// # Panics
/// When a rule is broken.
pub fn check(input: &[u8]) {
    play(input);
}

/// As [`check`]; what came of it.
///
/// # Panics
/// When a rule is broken.
pub fn play(input: &[u8]) -> Outcome {
    static STORY: OnceLock<Story> = OnceLock::new();
    let story = STORY.get_or_init(Story::tell);
    let mut bytes = Bytes(input);
    let settings = bytes.byte();
    let (own, other) = match settings & 1 {
        0 => (&story.stopped, &story.killed),
        _ => (&story.killed, &story.stopped),
    };
    let mut files = own.clone();
    for _ in 0..DEEDS_MAX {
        if bytes.0.is_empty() {
            break;
        }
        bytes.happen(&mut files, other);
    }
    let folder = Folder::new();
    files.iter().for_each(|(name, bytes)| folder.write(name, bytes));
    let outcome = story.judge(&folder, &files);
    // It takes as long as all the rest, and a start may have changed what it sees.
    if settings & CHECKED != 0 {
        // Whatever is in it, it is told and nothing breaks.
        let _ = check_folder(&folder.0);
    }
    outcome
}

impl Story {
    fn tell() -> Self {
        let folder = Folder::new();
        let Opened { engine: _, mut parts } = start(&folder.0).expect("an empty folder will do");
        let mut head = Head::new(founding().log_id);
        let changes = changes();
        let mut entries = Vec::with_capacity(changes.len());
        let (early, late) = (changes.len() / 3, changes.len() * 2 / 3);
        for (place, change) in changes.into_iter().enumerate() {
            let at = Timestamp::new(1_000 + head.index.get()).expect("it is soon after 1970");
            let entry = Arc::new(head.append(at, change));
            entries.push(Entry::clone(&entry));
            parts.store.append(&[entry]).expect("an entry must be kept");
            if place == early || place == late {
                (parts.checkpointer)(&false.into());
                // As after so many commits: what is in the log so far is in the database, too.
                parts.store.close().expect("the log must be moved");
            }
        }
        let killed = folder.read();
        parts.store.close().expect("the log must be moved");
        drop(parts);
        let stopped = folder.read();
        let records = entries.iter().filter_map(Entry::record).collect();
        Self { stopped, killed, standings: standings(&entries), records }
    }

    fn judge(&self, folder: &Folder, files: &Files) -> Outcome {
        // What the folder knows of how far the journal reached, before a start touches it.
        let safe = Self::known_safe(folder);
        let opened = match start(&folder.0) {
            Ok(opened) => opened,
            Err(refused) => {
                folder.expect_named(&refused);
                folder.expect_unchanged(files);
                return Outcome::Refused;
            }
        };
        let Opened { engine, mut parts } = opened;
        if engine.committed() == Index::ZERO {
            let is_trace = |(name, bytes): (&String, &Vec<u8>)| name != TIP || !bytes.is_empty();
            assert!(!files.iter().any(is_trace), "a journal is begun anew over one that was");
            return Outcome::New;
        }
        let Head { index, chain, .. } = engine.head();
        let standing = self.standings.get(&index);
        assert_eq!(standing, Some(&(chain, engine.state_hash())), "another state after {index}");
        assert!(index >= safe, "{index} of {safe} entries came back without a word");
        self.read_back(&mut parts);
        let whole = self.standings.last_key_value().is_some_and(|(last, _)| *last == index);
        if whole { Outcome::Whole } else { Outcome::Beginning }
    }

    /// The last entry that a tip or a checkpoint that is whole knows of.
    fn known_safe(folder: &Folder) -> Index {
        let tip = match FoundTip::read(&folder.0.join(TIP)) {
            Ok(FoundTip::At(tip)) => tip.index,
            Ok(FoundTip::None | FoundTip::Damaged) | Err(_) => Index::ZERO,
        };
        let found = checkpoint::list(&folder.0).unwrap_or_default().into_iter();
        let whole = found.filter(|index| Checkpoint::load(&folder.0, *index).is_ok());
        whole.chain([tip]).max().unwrap_or(tip)
    }

    /// Each page is refused, or as it was written.
    fn read_back(&self, parts: &mut Parts) {
        let mut from = Seq::ZERO.next();
        loop {
            let (room, incarnation) = (lobby(), Incarnation::ZERO.next());
            let (to, order) = (Seq::MAX, ReadOrder::Forward);
            let wanted = Wanted { room, incarnation, from, to, order };
            let Ok(page) = parts.history.records(&wanted) else { return };
            let Some(last) = page.last() else { return };
            let begin = usize::try_from(from.get() - 1).unwrap_or(usize::MAX);
            let written = self.records.get(begin..begin.saturating_add(page.len()));
            assert_eq!(written, Some(&page[..]), "a page must be as it was written");
            from = last.seq.next();
        }
    }
}

/// A folder that is there as long as this is.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let memory = Path::new("/dev/shm");
        let base = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = base.join(format!("chat-fuzz-{}-{number}", std::process::id()));
        make_folder(&path).expect("a folder must be made");
        Self(path)
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.0.join(name), bytes).expect("a file must be written");
    }

    /// Its files, but for what a start makes anew.
    fn read(&self) -> Files {
        let files = fs::read_dir(&self.0).expect("the folder is there").flatten();
        let named = files.filter_map(|file| {
            let name = file.file_name().into_string().ok()?;
            let kept = name == JOURNAL || name == LOG || name == TIP;
            let kept = kept || name.starts_with("checkpoint-");
            kept.then(|| (name, fs::read(file.path()).expect("the file is there")))
        });
        named.collect()
    }

    /// A refusal names the folder, and the file in it where there is one to name.
    fn expect_named(&self, refused: &StoreError) {
        let folder = self.0.display().to_string();
        let said = refused.to_string();
        assert!(said.contains(&folder), "{said}");
    }

    fn expect_unchanged(&self, files: &Files) {
        // A log without a frame that counts is as good as none.
        for (name, bytes) in files.iter().filter(|(name, _)| *name != LOG) {
            let found = fs::read(self.0.join(name)).ok();
            assert!(
                found.as_ref() == Some(bytes),
                "{name} was changed by a start that was refused"
            );
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What stays behind is in nobody's way.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn start(folder: &Path) -> Result<Opened, StoreError> {
    open(folder, Durability::Commit, founding(), &config(), Keep::default(), Now::default())
}

fn config() -> Config {
    let limits = Limits { window_bytes: 0, ..Limits::default() };
    Config { limits, archive: Archive::Store, ..Config::default() }
}

fn founding() -> Founding {
    let (log_id, server_key) = (LogId::new([7; 16]), PublicKey::new([9; 32]));
    Founding { log_id, server_key, threshold: Threshold::DEFAULT, operators: Vec::new() }
}

fn lobby() -> RoomName {
    "lobby".parse().expect("it is a name")
}

/// Somebody comes, opens the gate of a room, and talks until there is an anchor.
fn changes() -> Vec<Change> {
    let user: UserName = "ana".parse().expect("it is a name");
    let (room, incarnation, session) = (lobby(), Incarnation::ZERO.next(), SessionId::new([1; 16]));
    let first = Seq::ZERO.next();
    let mut changes = vec![
        Change::Founded(founding()),
        Change::UserAdded { user: user.clone(), key: PublicKey::new([1; 32]) },
        Change::OperatorGranted { user: user.clone() },
        Change::SessionOpened { session, user: user.clone() },
        Change::RoomCreated { room: room.clone(), threshold: Threshold::DEFAULT },
        Change::Joined { room: room.clone(), incarnation, seq: Some(first), user: user.clone() },
        Change::GateOpened { room: room.clone(), incarnation },
    ];
    let digest = Digest::new([3; 32]);
    changes.extend((1..=90).map(|number| {
        let counter = Counter::ZERO.saturating_add(number);
        let (room, from) = (room.clone(), user.clone());
        let text = format!("post {number}").parse().expect("it is a text");
        let (seq, command) = (first.saturating_add(number), CommandId { session, counter, digest });
        Change::Posted { room, incarnation, seq, command, from, text }
    }));
    changes
}

/// What each beginning of a journal leads to.
fn standings(entries: &[Entry]) -> BTreeMap<Index, (Digest, Digest)> {
    let beginnings = (1..=entries.len()).map(|count| {
        let entries = entries.iter().take(count).cloned();
        let engine = Engine::replay(entries, config(), Now::default()).expect("it is a journal");
        (engine.head().index, (engine.head().chain, engine.state_hash()))
    });
    beginnings.collect()
}

/// An input, read bit by bit. Behind its end everything is 0.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    fn number(&mut self) -> usize {
        usize::from(u16::from_be_bytes([self.byte(), self.byte()]))
    }

    fn take(&mut self, count: usize) -> Vec<u8> {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken.to_vec()
    }

    /// One thing happens to one file, if it is there.
    fn happen(&mut self, files: &mut Files, other: &Files) {
        let deed = self.byte() % deed::COUNT;
        let names: Vec<String> = other.keys().chain(files.keys()).cloned().collect();
        let place = usize::from(self.byte()).checked_rem(names.len()).unwrap_or(0);
        let Some(name) = names.get(place) else { return };
        match deed {
            deed::REMOVE => drop(files.remove(name)),
            deed::REPLACE => {
                let count = self.number();
                files.insert(name.clone(), self.take(count));
            }
            deed::SWAP => {
                files.extend(other.get(name).map(|bytes| (name.clone(), bytes.clone())));
            }
            deed::RENAME => {
                let to = usize::from(self.byte()).checked_rem(names.len());
                let moved = files.remove(name);
                if let (Some(to), Some(bytes)) = (to.and_then(|to| names.get(to)), moved) {
                    files.insert(to.clone(), bytes);
                }
            }
            deed => {
                if let Some(bytes) = files.get_mut(name) {
                    self.change(deed, bytes);
                }
            }
        }
    }

    fn change(&mut self, deed: u8, bytes: &mut Vec<u8>) {
        let length = bytes.len();
        let sector = |number: usize| {
            let begin = number.saturating_mul(SECTOR).checked_rem(length).unwrap_or(0);
            begin / SECTOR * SECTOR..(begin / SECTOR * SECTOR + SECTOR).min(length)
        };
        match deed {
            deed::FLIP => {
                let place = self.number().checked_rem(length);
                let bit = self.byte() % 8;
                if let Some(byte) = place.and_then(|place| bytes.get_mut(place)) {
                    *byte ^= 1 << bit;
                }
            }
            deed::WRITE => {
                let place = self.number().checked_rem(length).unwrap_or(0);
                let count = usize::from(self.byte());
                let new = self.take(count);
                bytes.iter_mut().skip(place).zip(new).for_each(|(byte, new)| *byte = new);
            }
            deed::ZERO => {
                let place = sector(self.byte().into());
                bytes.get_mut(place).unwrap_or_default().fill(0);
            }
            deed::CUT => bytes.truncate(self.number()),
            deed::COPY => {
                let (from, to) = (sector(self.byte().into()), sector(self.byte().into()));
                let copied = bytes.get(from).unwrap_or_default().to_vec();
                let place = bytes.get_mut(to).unwrap_or_default();
                place.iter_mut().zip(copied).for_each(|(byte, new)| *byte = new);
            }
            _ => {
                let count = usize::from(self.byte());
                bytes.extend(self.take(count));
                bytes.truncate(FILE_BYTES_MAX);
            }
        }
    }
}
