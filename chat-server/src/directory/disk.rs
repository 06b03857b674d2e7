//! The registers on the disk: one small file, written anew with every change.
//!
//! All of them together take some kilobytes and change when a chat moves, so there is no need for a
//! database: what a rename replaces is old or new at any moment and after a power cut, whatever comes in
//! between, and one digest over everything finds any damage. There is nothing to bring back.
//!
//! Nothing is repaired, and nothing that is gone is taken for what never was: a register that starts
//! empty lets another chat own the name.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use chatcore::codec;
use chatcore::id::PublicKey;
use chatcore::migration::directory::{Registration, SERVICES_MAX};
use chatcore::wire::List;

use crate::directory::DirectoryStartError;
use crate::key::{KEY, ServerKey};
use crate::store::{Folder, JOURNAL, private, publish, sync_folder};

/// The file's name in its folder.
const FILE: &str = "registers";

/// What is to be the file.
const NEW: &str = "registers.new";

const MAGIC: &[u8; 8] = b"chatregs";

/// The layout of the file.
const LAYOUT: u16 = 1;

const _: () = assert!(SERVICES_MAX <= chatcore::wire::LIST_MAX, "all services are in one list");

/// Whether a folder may have lost its registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loss {
    /// They are there, or there never were any.
    Unexpected,
    /// Whoever runs the directory knows that they are gone.
    Known,
}

/// The folder of a directory, which this process alone uses.
#[derive(Debug)]
pub(super) struct Disk {
    folder: Folder,
}

/// Why a change was not kept.
#[derive(Debug)]
pub(super) enum WriteError {
    /// There is no space, or the like: what was kept before is untouched, and the next change may be
    /// kept.
    Refused(io::Error),
    /// Nobody knows what the disk has: nothing may be written to it any more.
    Failed(io::Error),
}

/// What a directory begins with.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) disk: Disk,
    pub(super) key: ServerKey,
    /// By name.
    pub(super) registrations: Vec<Registration>,
}

impl Disk {
    /// Locks a folder, and reads what is registered and who the directory is. A folder that is not there,
    /// or empty, becomes that of a new directory.
    ///
    /// # Errors
    /// When the folder is in use or is something else's, or what is in it cannot be used.
    pub(super) fn open(path: &Path, loss: Loss) -> Result<Found, DirectoryStartError> {
        let disk = Self { folder: Folder::lock(path)? };
        if path.join(JOURNAL).exists() {
            return Err(DirectoryStartError::OfAChat(path.to_owned()));
        }
        let has_key = path.join(KEY).exists();
        let file = disk.file();
        let at = |source| DirectoryStartError::Io { path: file.clone(), source };
        let (founder, registrations) = match fs::read(&file) {
            Ok(bytes) => {
                // What was renamed right before a crash may not have reached the disk yet.
                File::open(&file).and_then(|file| file.sync_all()).map_err(at)?;
                sync_folder(path).map_err(at)?;
                from_bytes(&file, &bytes)?
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if has_key && loss == Loss::Unexpected {
                    return Err(DirectoryStartError::Gone(file));
                }
                // Before there is a key: who is killed in between has lost nothing.
                disk.write(None, &[]).map_err(|error| at(error.into_source()))?;
                (None, Vec::new())
            }
            Err(error) => return Err(at(error)),
        };
        if founder.is_some() && !has_key {
            return Err(DirectoryStartError::KeyGone(path.join(KEY)));
        }
        let key = ServerKey::in_folder(path)?;
        match founder {
            Some(founder) if founder == key.public() => {}
            Some(founder) => {
                let key = key.public();
                return Err(DirectoryStartError::OtherKey { path: file, founder, key });
            }
            None => {
                let written = disk.write(Some(&key.public()), &[]);
                written.map_err(|error| at(error.into_source()))?;
            }
        }
        Ok(Found { disk, key, registrations })
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join(FILE)
    }

    /// Makes this what is registered with a directory, for good: when it returns, the disk has it.
    pub(super) fn write(
        &self,
        directory: Option<&PublicKey>,
        registrations: &[&Registration],
    ) -> Result<(), WriteError> {
        let (folder, new) = (self.folder.path(), self.folder.path().join(NEW));
        let written =
            private().create(true).truncate(true).write(true).open(&new).and_then(|mut file| {
                file.write_all(&to_bytes(directory, registrations)).map(|()| file)
            });
        let file = written.map_err(|error| {
            // A disk that is full needs the space; what cannot be removed is overwritten next time.
            let _ = fs::remove_file(&new);
            WriteError::Refused(error)
        })?;
        file.sync_all()
            .and_then(|()| publish(&new, &self.file(), folder))
            .map_err(WriteError::Failed)
    }
}

impl WriteError {
    fn into_source(self) -> io::Error {
        match self {
            Self::Refused(source) | Self::Failed(source) => source,
        }
    }
}

fn to_bytes(directory: Option<&PublicKey>, registrations: &[&Registration]) -> Vec<u8> {
    let mut bytes = [&MAGIC[..], &LAYOUT.to_be_bytes()].concat();
    codec::append(&(directory, List::first_of(registrations.iter().copied())), &mut bytes);
    let digest = blake3::hash(&bytes);
    bytes.extend_from_slice(digest.as_bytes());
    bytes
}

/// Whose registers they are, and what is registered.
fn from_bytes(
    path: &Path,
    bytes: &[u8],
) -> Result<(Option<PublicKey>, Vec<Registration>), DirectoryStartError> {
    let damaged = || DirectoryStartError::Damaged(path.to_owned());
    let (body, digest) = bytes.split_last_chunk::<32>().ok_or_else(damaged)?;
    let (magic, rest) = body.split_first_chunk::<8>().ok_or_else(damaged)?;
    let (layout, said) = rest.split_first_chunk::<2>().ok_or_else(damaged)?;
    if magic != MAGIC || blake3::hash(body).as_bytes() != digest {
        return Err(damaged());
    }
    let found = u16::from_be_bytes(*layout);
    if found != LAYOUT {
        let path = path.to_owned();
        return Err(DirectoryStartError::Newer { path, found, known: LAYOUT });
    }
    let (directory, registrations): (Option<PublicKey>, List<Registration>) =
        codec::decode(said).map_err(|_| damaged())?;
    let registrations = registrations.into_vec();
    let in_order = registrations.is_sorted_by(|one, next| one.service < next.service);
    if !in_order || registrations.len() > SERVICES_MAX {
        return Err(damaged());
    }
    Ok((directory, registrations))
}

#[cfg(test)]
mod tests {
    use super::*;
    use chatcore::id::{BootId, Generation, LogId};
    use chatcore::migration::NodeId;
    use chatcore::migration::directory::Host;
    use chatcore::wire::Addresses;

    fn registration(service: &str) -> Registration {
        let node = NodeId { key: PublicKey::new([1; 32]), boot: BootId::new([2; 16]) };
        Registration {
            service: service.parse().unwrap(),
            generation: Generation::new(7).unwrap(),
            log_id: LogId::new([3; 16]),
            owner: Host { node, addresses: Addresses::default(), tls_key: None },
            standby: None,
        }
    }

    fn open(path: &Path) -> Result<Found, DirectoryStartError> {
        Disk::open(path, Loss::Unexpected)
    }

    #[test]
    fn e5_flipped_bit_or_missing_end_of_the_registers_is_noticed() {
        let (chat, other) = (registration("chat"), registration("other"));
        let key = PublicKey::new([9; 32]);
        let bytes = to_bytes(Some(&key), &[&chat, &other]);
        let path = Path::new("registers");
        assert_eq!(from_bytes(path, &bytes).unwrap(), (Some(key), vec![chat, other]));
        let is_damaged =
            |bytes: &[u8]| matches!(from_bytes(path, bytes), Err(DirectoryStartError::Damaged(_)));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(is_damaged(&flipped), "bit {bit}");
        }
        assert!((0..bytes.len()).all(|length| is_damaged(&bytes[..length])));
        assert!(is_damaged(&[&bytes[..], &[0]].concat()));
    }

    #[test]
    fn registers_of_a_newer_program_or_out_of_order_are_refused() {
        let (chat, path) = (registration("chat"), Path::new("registers"));
        let again = |bytes: Vec<u8>| {
            let body = &bytes[..bytes.len() - 32];
            [body, blake3::hash(body).as_bytes()].concat()
        };
        let mut newer = to_bytes(None, &[&chat]);
        newer[9] = 2;
        let refused = from_bytes(path, &again(newer)).unwrap_err();
        assert!(matches!(refused, DirectoryStartError::Newer { found: 2, .. }), "{refused}");
        let twice = to_bytes(None, &[&chat, &chat]);
        assert!(matches!(from_bytes(path, &twice), Err(DirectoryStartError::Damaged(_))));
    }

    #[test]
    fn what_was_written_is_found_again_and_nothing_is_left_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        let Found { disk, key, registrations } = open(&path).unwrap();
        assert_eq!(registrations, []);
        let chat = registration("chat");
        disk.write(Some(&key.public()), &[&chat]).unwrap();
        drop(disk);
        let found = open(&path).unwrap();
        assert_eq!((found.registrations, found.key.public()), (vec![chat], key.public()));
        let mut names: Vec<_> = fs::read_dir(&path)
            .unwrap()
            .map(|file| file.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["lock", "registers", "server.key"]);
    }

    #[test]
    fn e7_directory_that_is_killed_while_it_begins_begins_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        let key = open(&path).unwrap().key.public();
        let file = path.join(FILE);
        // Before its key was written into its registers, and before it had one.
        fs::write(&file, to_bytes(None, &[])).unwrap();
        fs::write(path.join(NEW), "half").unwrap();
        assert_eq!(open(&path).unwrap().key.public(), key);
        fs::write(&file, to_bytes(None, &[])).unwrap();
        fs::remove_file(path.join(KEY)).unwrap();
        assert_ne!(open(&path).unwrap().key.public(), key);
    }

    #[test]
    fn e7_registers_or_key_that_are_gone_are_never_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        let key = open(&path).unwrap().key.public();
        let (file, secret) = (path.join(FILE), path.join(KEY));
        let (registers, seed) = (fs::read(&file).unwrap(), fs::read(&secret).unwrap());
        fs::remove_file(&secret).unwrap();
        assert!(matches!(open(&path), Err(DirectoryStartError::KeyGone(_))));
        assert!(!secret.exists());
        drop(ServerKey::in_folder(&path).unwrap());
        assert!(matches!(open(&path), Err(DirectoryStartError::OtherKey { .. })));
        fs::write(&secret, seed).unwrap();
        fs::remove_file(&file).unwrap();
        assert!(matches!(open(&path), Err(DirectoryStartError::Gone(_))));
        assert!(!file.exists());
        // Unless whoever runs it knows.
        assert_eq!(Disk::open(&path, Loss::Known).unwrap().key.public(), key);
        assert_eq!(fs::read(&file).unwrap(), registers);
        fs::write(path.join(JOURNAL), "").unwrap();
        assert!(matches!(open(&path), Err(DirectoryStartError::OfAChat(_))));
    }
}
