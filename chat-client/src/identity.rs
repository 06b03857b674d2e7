//! Who the user is: a key file that only this user may read and only one client uses at a time.
//!
//! Invariants: a key file appears whole or not at all, is readable by its owner alone, and stays
//! locked until the [`Identity`] is dropped.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chatcore::id::{PublicKey, Signature};
use chatcore::text::UserName;
use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};

const SEED_BYTES: usize = 32;

/// The most that is read of a key file: a key takes 43 characters and a newline.
const KEY_FILE_BYTES_MAX: u64 = 128;

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// Another client has the key file locked.
    #[error("this identity is already in use on this machine")]
    InUse,
    /// Others than the owner may read or write the key file.
    #[error("the key file {} can be read by others: run chmod 600 on it", .0.display())]
    Readable(PathBuf),
    /// The file holds no key.
    #[error("{} is no key file: it must hold 32 bytes in base64url", .0.display())]
    Malformed(PathBuf),
    /// Neither `XDG_CONFIG_HOME` nor `HOME` says where to keep the key.
    #[error("there is no folder for the key: set HOME, or name a file by --identity")]
    NoFolder,
    /// The operating system gives no random bytes.
    #[error("no random bytes for a new key: {0}")]
    Random(#[from] getrandom::Error),
    /// A file or folder cannot be made, read or locked.
    #[error("{}: {source}", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
}

/// The files of one identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// The key.
    pub key: PathBuf,
    /// What is kept between runs.
    pub state: PathBuf,
}

impl Location {
    /// The key file that the user named, and the state beside it.
    pub fn of_file(key: &Path) -> Self {
        let mut state = key.as_os_str().to_owned();
        state.push(".state.db");
        Self { key: key.to_owned(), state: state.into() }
    }

    /// The folder of a server and a name in the XDG configuration folder.
    ///
    /// # Errors
    /// When the environment names no such folder.
    pub fn of_service(service: PublicKey, name: &UserName) -> Result<Self, IdentityError> {
        let config = config_folder().ok_or(IdentityError::NoFolder)?;
        let folder = config.join(service.to_string()).join(folder_name(name));
        Ok(Self { key: folder.join("key"), state: folder.join("state.db") })
    }

    /// Removes both files, and their folder when nothing else is in it.
    ///
    /// # Errors
    /// When the operating system refuses.
    pub fn remove(&self) -> io::Result<()> {
        fs::remove_file(&self.state)?;
        fs::remove_file(&self.key)?;
        match self.key.parent().map(fs::remove_dir) {
            Some(Err(error)) if error.kind() != io::ErrorKind::DirectoryNotEmpty => Err(error),
            Some(_) | None => Ok(()),
        }
    }
}

/// Where this program keeps what it needs again, by the XDG rules; `None` when the environment names no
/// such folder.
pub(crate) fn config_folder() -> Option<PathBuf> {
    let absolute =
        |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let config = absolute("XDG_CONFIG_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".config")))?;
    Some(config.join("chat"))
}

/// A name as the name of a folder: signs that mean something to a file system are written as `%`
/// and their code, so that no name leads out of the folder.
fn folder_name(name: &UserName) -> String {
    use std::fmt::Write as _;

    let mut folder = String::new();
    for sign in name.as_str().chars() {
        if sign.is_ascii() && !sign.is_ascii_alphanumeric() && !matches!(sign, '_' | '-') {
            write!(folder, "%{:02X}", u32::from(sign)).expect("a String takes what is written");
        } else {
            folder.push(sign);
        }
    }
    folder
}

/// Where a key came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The file was there.
    Found,
    /// There was none, and one was made.
    Made,
}

/// A key in use.
#[derive(Debug)]
pub struct Identity {
    key: SigningKey,
    origin: Origin,
    /// Holds the lock until it is dropped.
    _locked: File,
}

impl Identity {
    /// Reads the key file, makes it if there is none, and locks it.
    ///
    /// # Errors
    /// When another client uses it, when others may read it, or when it cannot be made or read.
    pub fn open(path: &Path) -> Result<Self, IdentityError> {
        let at = |source| IdentityError::File { path: path.to_owned(), source };
        let origin = if path.try_exists().map_err(at)? {
            Origin::Found
        } else {
            create_key_file(path)?;
            Origin::Made
        };
        let mut file = File::open(path).map_err(at)?;
        if file.metadata().map_err(at)?.mode() & 0o077 != 0 {
            return Err(IdentityError::Readable(path.to_owned()));
        }
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(IdentityError::InUse),
            Err(TryLockError::Error(source)) => return Err(at(source)),
        }
        // Another client may have removed a key it had no use for.
        if file.metadata().map_err(at)?.nlink() == 0 {
            return Err(IdentityError::InUse);
        }
        let mut text = Vec::new();
        (&mut file).take(KEY_FILE_BYTES_MAX).read_to_end(&mut text).map_err(at)?;
        let seed = parse_seed(&text).ok_or_else(|| IdentityError::Malformed(path.to_owned()))?;
        Ok(Self { key: SigningKey::from_bytes(&seed), origin, _locked: file })
    }

    /// Whether this made the key.
    pub const fn origin(&self) -> Origin {
        self.origin
    }

    /// The public half.
    pub fn public_key(&self) -> PublicKey {
        PublicKey::new(self.key.verifying_key().to_bytes())
    }

    /// Signs `message`.
    pub fn sign(&self, message: &[u8]) -> Signature {
        Signature::new(self.key.sign(message).to_bytes())
    }
}

/// Whether a signature is that of a key over a message, in its only spelling.
pub(crate) fn is_valid(key: &PublicKey, message: &[u8], signature: &Signature) -> bool {
    let signature = ed25519_dalek::Signature::from_bytes(signature.as_bytes());
    VerifyingKey::from_bytes(key.as_bytes())
        .is_ok_and(|key| key.verify_strict(message, &signature).is_ok())
}

fn parse_seed(text: &[u8]) -> Option<[u8; SEED_BYTES]> {
    URL_SAFE_NO_PAD.decode(text.trim_ascii()).ok()?.try_into().ok()
}

/// Writes a new key beside its place and links it there: whoever comes first wins, and a crash
/// leaves no half of a key.
fn create_key_file(path: &Path) -> Result<(), IdentityError> {
    let at = |source| IdentityError::File { path: path.to_owned(), source };
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(at)?;
    }
    let mut seed = [0; SEED_BYTES];
    getrandom::fill(&mut seed)?;
    let mut draft = path.as_os_str().to_owned();
    draft.push(format!(".new.{:016x}", getrandom::u64()?));
    let draft = PathBuf::from(draft);
    let written = write_draft(&draft, &seed).and_then(|()| match fs::hard_link(&draft, path) {
        // Another client made one at the same time: that one is the key.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        linked => linked,
    });
    let removed = fs::remove_file(&draft);
    written.and(removed).map_err(at)
}

fn write_draft(draft: &Path, seed: &[u8; SEED_BYTES]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(draft)?;
    writeln!(file, "{}", URL_SAFE_NO_PAD.encode(seed))?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn key_file_is_made_once_and_read_by_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/er/key");
        let first = Identity::open(&path).unwrap().public_key();
        assert_eq!(Identity::open(&path).unwrap().public_key(), first);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let parent = path.parent().unwrap();
        assert_eq!(fs::metadata(parent).unwrap().mode() & 0o777, 0o700);
        assert_eq!(fs::read_dir(parent).unwrap().count(), 1, "no draft is left");
    }

    #[test]
    fn l6_key_file_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        drop(Identity::open(&path).unwrap());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(Identity::open(&path), Err(IdentityError::Readable(_))));
    }

    #[test]
    fn identity_in_use_is_refused_until_it_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let held = Identity::open(&path).unwrap();
        assert!(matches!(Identity::open(&path), Err(IdentityError::InUse)));
        drop(held);
        assert!(Identity::open(&path).is_ok());
    }

    #[test]
    fn file_without_a_key_is_left_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        for text in ["", "short", &"A".repeat(500)] {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            assert!(matches!(Identity::open(&path), Err(IdentityError::Malformed(_))));
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
    }

    #[test]
    fn no_name_leads_out_of_its_folder() {
        let of = |name: &str| folder_name(&name.parse().unwrap());
        assert_eq!(of("a/../../b"), "a%2F%2E%2E%2F%2E%2E%2Fb");
        assert_eq!(of("a%2Fb"), "a%252fb");
        assert_eq!(of("иван_1-x"), "иван_1-x");
    }

    #[test]
    fn signature_is_the_keys() {
        let folder = tempfile::tempdir().unwrap();
        let identity = Identity::open(&folder.path().join("key")).unwrap();
        let key = VerifyingKey::from_bytes(identity.public_key().as_bytes());
        let signature = ed25519_dalek::Signature::from_bytes(identity.sign(b"text").as_bytes());
        assert!(key.unwrap().verify_strict(b"text", &signature).is_ok());
    }
}
