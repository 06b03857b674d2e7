//! The data folder: which file is what, who uses it, and how far the journal is known to reach.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{
    DirBuilderExt as _, FileExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};

use chatcore::id::{Digest, Index};
use chatcore::log::Head;

use crate::store::fault::StoreError;

/// The database's name in the folder.
pub(crate) const JOURNAL: &str = "journal.db";

/// The name of the file of [`Tip`].
pub(crate) const TIP: &str = "tip";

/// A data folder holds something, and others than its owner may change it, or others than its group
/// get into it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the data folder {} is open to others (mode {mode:o}): run chmod 700 on it if it is for the chat \
     alone, or name another with --data",
    path.display()
)]
pub struct OpenFolder {
    /// The folder.
    pub path: PathBuf,
    /// Its permissions.
    pub mode: u32,
}

/// Why a data folder cannot be had.
#[derive(Debug)]
pub(crate) enum FolderError {
    Io(io::Error),
    Open(OpenFolder),
}

impl From<io::Error> for FolderError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// A data folder that this process alone uses, until this is dropped.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    _locked: File,
}

impl Folder {
    /// Makes the folder if it is not there, and locks it. The lock is the system's: it goes with
    /// the process, however that ends.
    pub(crate) fn lock(path: &Path) -> Result<Self, StoreError> {
        make_folder(path).map_err(|error| match error {
            FolderError::Io(source) => StoreError::Io { path: path.to_owned(), source },
            FolderError::Open(open) => StoreError::OpenFolder(open),
        })?;
        Self::lock_existing(path)
    }

    /// Locks a folder that is there.
    pub(crate) fn lock_existing(path: &Path) -> Result<Self, StoreError> {
        let file = path.join("lock");
        let at = |source| StoreError::Io { path: file.clone(), source };
        let locked = private().create(true).append(true).open(&file).map_err(at)?;
        match locked.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), _locked: locked }),
            Err(TryLockError::WouldBlock) => Err(StoreError::InUse(path.to_owned())),
            Err(TryLockError::Error(error)) => Err(at(error)),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.path.join(JOURNAL)
    }

    /// The file of [`Tip`].
    pub(crate) fn tip(&self) -> PathBuf {
        self.path.join(TIP)
    }
}

/// What the files of a folder take, all in all.
pub(crate) fn bytes_in(folder: &Path) -> io::Result<u64> {
    let mut bytes: u64 = 0;
    for file in fs::read_dir(folder)? {
        match file?.metadata() {
            Ok(found) if found.is_file() => bytes = bytes.saturating_add(found.len()),
            Ok(_) => {}
            // A file that goes meanwhile, as the older checkpoint does, takes nothing.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(bytes)
}

/// How to open files that nobody else may read.
pub(crate) fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}

/// Makes a file appear under its name, whole.
pub(crate) fn publish(new: &Path, name: &Path, folder: &Path) -> io::Result<()> {
    fs::rename(new, name)?;
    sync_folder(folder)
}

/// Makes a folder that nobody else may read, and those that it is in, where they are not there. They
/// survive a power cut. One that is there must be as private, or empty: then it is made so.
pub(crate) fn make_folder(path: &Path) -> Result<(), FolderError> {
    let above = |path: &Path| match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => PathBuf::from("."),
        Some(parent) => parent.to_owned(),
        None => path.to_owned(),
    };
    let missing =
        path.ancestors().take_while(|path| !path.as_os_str().is_empty() && !path.exists());
    let missing: Vec<PathBuf> = missing.map(above).collect();
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    missing.iter().try_for_each(|parent| sync_folder(parent))?;
    if missing.is_empty() {
        // Whoever made it may not have done so. Where this may not either, it is the owner's to do.
        let _ = sync_folder(&above(path));
    }
    keep_others_out(path)
}

/// The owner's group may read a folder, as whoever makes backups of a machine has to.
fn keep_others_out(path: &Path) -> Result<(), FolderError> {
    let is_empty = || fs::read_dir(path).map(|mut files| files.next().is_none());
    let mode = fs::metadata(path)?.permissions().mode() & 0o777;
    let private = fs::Permissions::from_mode(0o700);
    // Looked at once more: until it was closed, somebody could put something there.
    if mode & 0o027 == 0 || is_empty()? && fs::set_permissions(path, private).is_ok() && is_empty()?
    {
        return Ok(());
    }
    Err(FolderError::Open(OpenFolder { path: path.to_owned(), mode }))
}

/// Makes what was made, renamed or removed in a folder survive a power cut.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

const TIP_MAGIC: &[u8; 8] = b"chattip1";
const TIP_BYTES: usize = 80;

/// The last entry that is known to be safe, beside the database.
///
/// SQLite takes a write-ahead log up to its first damaged frame and forgets the rest, and it takes
/// a log that is gone for an empty one: after a crash that would cut off acknowledged entries
/// without a word. This file is written after each commit and never synced. What it says was safe
/// before it was written, so whatever a crash leaves of it asks for no more than was kept.
#[derive(Debug)]
pub(crate) struct TipFile(File);

/// What a [`TipFile`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tip {
    pub(crate) index: Index,
    pub(crate) chain: Digest,
}

/// What is in the place of a tip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FoundTip {
    /// No file.
    None,
    /// A file that is none.
    Damaged,
    /// A tip.
    At(Tip),
}

impl TipFile {
    /// Opens the file to be written.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        private().create(true).truncate(false).write(true).open(path).map(Self)
    }

    pub(crate) fn write(&self, head: &Head) -> io::Result<()> {
        let tip = Tip { index: head.index, chain: head.chain };
        self.0.write_all_at(&tip.to_bytes(), 0)
    }
}

/// Makes a new tip that is safe, for a journal that is whole.
pub(crate) fn write_tip(path: &Path, head: &Head) -> io::Result<()> {
    let tip = TipFile(private().create_new(true).write(true).open(path)?);
    tip.write(head)?;
    tip.0.sync_all()
}

impl FoundTip {
    pub(crate) fn read(path: &Path) -> io::Result<Self> {
        match fs::read(path) {
            // A server was killed between making it and its first commit.
            Ok(bytes) if bytes.is_empty() => Ok(Self::None),
            Ok(bytes) => Ok(Tip::from_bytes(&bytes).map_or(Self::Damaged, Self::At)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::None),
            Err(error) => Err(error),
        }
    }
}

impl Tip {
    fn to_bytes(self) -> [u8; TIP_BYTES] {
        let mut bytes = [0; TIP_BYTES];
        let parts: [&[u8]; 3] = [TIP_MAGIC, &self.index.get().to_be_bytes(), self.chain.as_bytes()];
        let said = parts.concat();
        let digest = blake3::hash(&said);
        let all = said.iter().chain(digest.as_bytes());
        bytes.iter_mut().zip(all).for_each(|(place, byte)| *place = *byte);
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (_, rest) = bytes.split_first_chunk::<8>()?;
        let (index, rest) = rest.split_first_chunk::<8>()?;
        let (chain, _) = rest.split_first_chunk::<32>()?;
        let index = Index::new(u64::from_be_bytes(*index)).ok()?;
        let tip = Self { index, chain: Digest::new(*chain) };
        (tip.to_bytes() == bytes).then_some(tip)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chatcore::id::LogId;

    #[test]
    fn tip_is_what_was_written_or_damaged() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tip");
        assert_eq!(FoundTip::read(&path).unwrap(), FoundTip::None);
        let chain = Digest::new([7; 32]);
        let head = Head { index: Index::new(9).unwrap(), chain, ..Head::new(LogId::new([0; 16])) };
        TipFile::open(&path).unwrap().write(&head).unwrap();
        let tip = Tip { index: head.index, chain };
        assert_eq!(FoundTip::read(&path).unwrap(), FoundTip::At(tip));
        let bytes = fs::read(&path).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Tip::from_bytes(&flipped), None, "bit {bit}");
        }
    }

    #[test]
    fn folder_that_others_may_enter_or_change_is_closed_when_it_is_empty_and_refused_when_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        fs::create_dir(&path).unwrap();
        let set = |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        for (open, closed) in [
            (0o700, 0o700),
            (0o750, 0o750),
            (0o755, 0o700),
            (0o770, 0o700),
            (0o711, 0o700),
            (0o777, 0o700),
        ] {
            set(open);
            assert!(make_folder(&path).is_ok(), "{open:o}");
            assert_eq!(mode(), closed, "{open:o}");
        }
        fs::write(path.join("server.key"), [7; 32]).unwrap();
        for closed in [0o700, 0o750] {
            set(closed);
            assert!(make_folder(&path).is_ok(), "{closed:o}");
        }
        for open in [0o755, 0o770, 0o711, 0o701, 0o720, 0o702, 0o777] {
            set(open);
            let refused = Folder::lock(&path).unwrap_err();
            let told = matches!(&refused, StoreError::OpenFolder(told) if told.mode == open);
            assert!(told, "{open:o}: {refused}");
            assert_eq!(mode(), open, "it is left as it is");
        }
        assert!(!path.join("lock").exists(), "nothing is put into it");
    }

    #[test]
    fn folder_is_one_process_s_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        let first = Folder::lock(&path).unwrap();
        assert!(matches!(Folder::lock(&path), Err(StoreError::InUse(_))));
        drop(first);
        assert!(Folder::lock(&path).is_ok());
    }
}
