//! Checkpoints: the state after an entry, as a file, so that a start need not replay the journal.
//!
//! A checkpoint is a follower of the journal: it is made by restoring the one before and the entries
//! since, from what is on the disk, by a thread of its own. The engine that serves is not asked: it
//! never pauses, and it could give a snapshot only when nothing waits for the store. So every
//! checkpoint also proves that the journal can be recovered.
//!
//! It is a file beside the database and not a row in it, because a large state in the database would
//! hold up the commits of messages while it is written.
//!
//! What retention deletes is only in checkpoints from then on, so two files have to hold it: one may be
//! damaged one day. They are those of two entries, or, where nothing happened after the newest one, that
//! one and its **twin**, a second file of the same.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use chatcore::codec;
use chatcore::id::{Digest, Incarnation, Index, Seq};
use chatcore::log::Head;
use chatcore::text::RoomName;

use crate::store::fault::CheckpointError;
use crate::store::folder::{private, publish, sync_folder};
use crate::store::lives::{Life, Lives};

const MAGIC: &[u8; 8] = b"chatckpt";

/// The layout of the file.
pub(crate) const LAYOUT: u16 = 1;

const PREFIX: &str = "checkpoint-";

/// How the name of a twin ends.
const TWIN: &str = "twin";

/// The state after an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    pub(crate) head: Head,
    pub(crate) state_hash: Digest,
    pub(crate) lives: Lives,
    pub(crate) snapshot: Vec<u8>,
}

/// Name, incarnation, beginning, last record and its entry.
type LifeImage = (RoomName, Incarnation, Index, Seq, Index);

/// What stands before the snapshot.
type Description = (Head, Digest, Vec<LifeImage>);

impl Checkpoint {
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let lives = self.lives.iter().map(|(room, life)| {
            (room.clone(), life.incarnation, life.began, life.last, life.newest)
        });
        let description: Description = (self.head, self.state_hash, lives.collect());
        let mut said = Vec::new();
        codec::append(&description, &mut said);
        let length = u32::try_from(said.len()).expect("rooms are bounded, and so what is said");
        let layout = LAYOUT.to_be_bytes();
        let mut bytes: Vec<u8> =
            [MAGIC.as_slice(), &layout, &length.to_be_bytes(), &said, &self.snapshot].concat();
        let digest = blake3::hash(&bytes);
        bytes.extend_from_slice(digest.as_bytes());
        bytes
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, CheckpointError> {
        let damaged = || CheckpointError::Damaged;
        let (body, digest) = bytes.split_last_chunk::<32>().ok_or_else(damaged)?;
        let (magic, rest) = body.split_first_chunk::<8>().ok_or_else(damaged)?;
        let (layout, rest) = rest.split_first_chunk::<2>().ok_or_else(damaged)?;
        if magic != MAGIC || blake3::hash(body).as_bytes() != digest {
            return Err(CheckpointError::Damaged);
        }
        let layout = u16::from_be_bytes(*layout);
        if layout != LAYOUT {
            return Err(CheckpointError::Newer(layout));
        }
        let (length, rest) = rest.split_first_chunk::<4>().ok_or_else(damaged)?;
        let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| damaged())?;
        let (said, snapshot) = rest.split_at_checked(length).ok_or_else(damaged)?;
        let (head, state_hash, images): Description = codec::decode(said).map_err(|_| damaged())?;
        let mut lives = Lives::default();
        for (room, incarnation, began, last, newest) in images {
            lives.set(room, Life { incarnation, began, last, newest, ..Life::NONE });
        }
        Ok(Self { head, state_hash, lives, snapshot: snapshot.to_vec() })
    }

    /// Reads the checkpoint after an entry, from its twin when the file itself is damaged or gone.
    pub(crate) fn load(folder: &Path, index: Index) -> Result<Self, CheckpointError> {
        let [path, twin] = files(folder, index);
        match Self::read(&path, index) {
            Err(error @ (CheckpointError::Damaged | CheckpointError::Io(_))) => {
                let checkpoint = Self::read(&twin, index).map_err(|_| error)?;
                tracing::warn!(file = %path.display(), "cannot be used, but its twin can");
                Ok(checkpoint)
            }
            read => read,
        }
    }

    /// Reads one of the files of the checkpoint after an entry.
    pub(crate) fn read(path: &Path, index: Index) -> Result<Self, CheckpointError> {
        let checkpoint = Self::from_bytes(&fs::read(path)?)?;
        if checkpoint.head.index == index { Ok(checkpoint) } else { Err(CheckpointError::Damaged) }
    }

    /// Writes it down. It appears whole or not at all, and is safe afterwards.
    pub(crate) fn save(&self, folder: &Path) -> io::Result<()> {
        write(&self.to_bytes(), &path_of(folder, self.head.index), folder)
    }
}

fn write(bytes: &[u8], path: &Path, folder: &Path) -> io::Result<()> {
    let new = folder.join("checkpoint.new");
    let written = private()
        .create(true)
        .truncate(true)
        .write(true)
        .open(&new)
        .and_then(|mut file: File| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| publish(&new, path, folder));
    if written.is_err() {
        // A disk that is full needs the space; what cannot be removed is overwritten next time.
        let _ = fs::remove_file(&new);
    }
    written
}

/// Makes sure that the checkpoint after an entry, which is known to be good, is there twice: the file
/// that is read is copied as it is, and stays.
pub(crate) fn double(folder: &Path, index: Index) -> io::Result<()> {
    let [path, twin] = files(folder, index);
    let (from, to) =
        if Checkpoint::read(&path, index).is_ok() { (path, twin) } else { (twin, path) };
    let bytes = fs::read(from)?;
    if fs::read(&to).is_ok_and(|found| found == bytes) {
        Ok(())
    } else {
        write(&bytes, &to, folder)
    }
}

pub(crate) fn path_of(folder: &Path, index: Index) -> PathBuf {
    folder.join(format!("{PREFIX}{:016}", index.get()))
}

/// Where the checkpoint after an entry is: its file and its twin, which usually is not there.
pub(crate) fn files(folder: &Path, index: Index) -> [PathBuf; 2] {
    let path = path_of(folder, index);
    let twin = path.with_extension(TWIN);
    [path, twin]
}

/// The checkpoints of a folder, the newest first, by name alone.
pub(crate) fn list(folder: &Path) -> io::Result<Vec<Index>> {
    let mut found = Vec::new();
    for file in fs::read_dir(folder)? {
        let name = PathBuf::from(file?.file_name());
        let is_twin = name.extension().is_some_and(|end| end == TWIN);
        let name = if is_twin { name.with_extension("") } else { name };
        let number = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
        let number = number.and_then(|number| number.parse().ok());
        found.extend(number.and_then(|number| Index::new(number).ok()));
    }
    found.sort_unstable();
    found.dedup();
    found.reverse();
    Ok(found)
}

/// How many files of the checkpoint after an entry are whole: up to two.
pub(crate) fn whole_files(folder: &Path, index: Index) -> usize {
    files(folder, index).iter().filter(|path| Checkpoint::read(path, index).is_ok()).count()
}

/// The newest checkpoint of a folder, by name alone, and when it was made.
pub(crate) fn newest(folder: &Path) -> io::Result<Option<(Index, SystemTime)>> {
    let Some(index) = list(folder)?.first().copied() else { return Ok(None) };
    let [path, twin] = files(folder, index);
    let made = fs::metadata(path).or_else(|_| fs::metadata(twin))?.modified()?;
    Ok(Some((index, made)))
}

/// The entry up to which no way back needs the journal: that of the oldest checkpoint, if two files are
/// whole; 0 otherwise. One alone may be damaged one day. Nothing is read when it is below `least`.
pub(crate) fn floor(folder: &Path, least: Index) -> io::Result<Index> {
    let found = list(folder)?;
    let Some(oldest) = found.last().copied().filter(|oldest| *oldest >= least) else {
        return Ok(Index::ZERO);
    };
    let whole: usize = found.iter().map(|index| whole_files(folder, *index)).sum();
    Ok(if whole < 2 { Index::ZERO } else { oldest })
}

/// Removes the checkpoints before `oldest`: those that newer, safe ones stand for.
pub(crate) fn remove_before(folder: &Path, oldest: Index) -> io::Result<()> {
    for index in list(folder)?.into_iter().filter(|index| *index < oldest) {
        for path in files(folder, index) {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
    }
    sync_folder(folder)
}

#[cfg(test)]
mod tests {
    use super::*;
    use chatcore::id::LogId;

    #[test]
    fn e5_flipped_bit_of_a_checkpoint_is_noticed() {
        let mut lives = Lives::default();
        let (one, five) = (Index::new(1).unwrap(), Index::new(5).unwrap());
        let (incarnation, last) = (Incarnation::new(1).unwrap(), Seq::new(3).unwrap());
        let life = Life { incarnation, began: one, last, newest: five, ..Life::NONE };
        lives.set("lobby".parse().unwrap(), life);
        let head = Head { index: five, ..Head::new(LogId::new([1; 16])) };
        let state_hash = Digest::new([2; 32]);
        let checkpoint = Checkpoint { head, state_hash, lives, snapshot: vec![3; 100] };
        let bytes = checkpoint.to_bytes();
        assert_eq!(Checkpoint::from_bytes(&bytes).unwrap(), checkpoint);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let refused = Checkpoint::from_bytes(&flipped);
            assert!(matches!(refused, Err(CheckpointError::Damaged)), "bit {bit}");
        }
        for length in 0..bytes.len() {
            assert!(Checkpoint::from_bytes(&bytes[..length]).is_err(), "{length} bytes");
        }
    }
}
