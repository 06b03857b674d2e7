//! The server's key: made on first use, kept in a file that nobody else may read.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use chatcore::id::{PublicKey, Signature};
use ed25519_dalek::{Signer as _, SigningKey};

use crate::store::{FolderError, JOURNAL, OpenFolder, make_folder};

/// Who the server is: clients remember this key.
#[derive(Clone)]
pub struct ServerKey {
    public: PublicKey,
    signing: SigningKey,
}

impl fmt::Debug for ServerKey {
    /// The public half alone.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerKey").field("public", &self.public).finish_non_exhaustive()
    }
}

/// Why the key cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The folder cannot be made.
    #[error(
        "cannot make the folder {} for the server's key: {source}; name another with --data",
        path.display()
    )]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others may get into the folder.
    #[error(transparent)]
    OpenFolder(#[from] OpenFolder),
    /// The file cannot be used.
    #[error(
        "cannot use the server key {}: {source}; name another folder with --data",
        path.display()
    )]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not there, and what belongs to it is.
    #[error(
        "there is no server key {}, and the chat that belongs there was founded with one: \
         put its server.key there",
        path.display()
    )]
    Gone {
        /// The file.
        path: PathBuf,
    },
    /// The file can be read by others.
    #[error(
        "the server key {} can be read by others (mode {mode:o}): run chmod 600 on it",
        path.display()
    )]
    Open {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The file is no key.
    #[error("the server key {} is damaged: it must hold 32 bytes", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// No randomness can be had.
    #[error("the system gives no random bytes: {0}")]
    Random(#[from] getrandom::Error),
}

const KEY_BYTES: usize = 32;

/// The file's name in its folder.
pub(crate) const KEY: &str = "server.key";

impl ServerKey {
    /// A key for this run only.
    ///
    /// # Errors
    /// When no randomness can be had.
    pub fn ephemeral() -> Result<Self, KeyError> {
        let mut seed = [0; KEY_BYTES];
        getrandom::fill(&mut seed)?;
        Ok(Self::from_seed(&seed))
    }

    /// The key in `folder`, made if there is none, unless the folder holds a journal: that has been
    /// founded by a key.
    ///
    /// # Errors
    /// When the folder cannot be used or is open to others, or the file is gone, damaged or open to
    /// others.
    pub fn in_folder(folder: &Path) -> Result<Self, KeyError> {
        let path = folder.join(KEY);
        let wrap = |source| KeyError::Io { path: path.clone(), source };
        make_folder(folder).map_err(|error| match error {
            FolderError::Io(source) => KeyError::Folder { path: folder.to_owned(), source },
            FolderError::Open(open) => KeyError::OpenFolder(open),
        })?;
        match File::open(&path) {
            Ok(file) => Ok(Self::from_seed(&read(&path, file)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if folder.join(JOURNAL).exists() {
                    return Err(KeyError::Gone { path });
                }
                let mut seed = [0; KEY_BYTES];
                getrandom::fill(&mut seed)?;
                make_secret(folder, KEY, &seed).map_err(wrap)?;
                let file = File::open(&path).map_err(wrap)?;
                Ok(Self::from_seed(&read(&path, file)?))
            }
            Err(error) => Err(wrap(error)),
        }
    }

    /// The key in `folder`, which has to be there.
    ///
    /// # Errors
    /// When the file is not there, cannot be used, or is damaged or open to others.
    pub fn of_folder(folder: &Path) -> Result<Self, KeyError> {
        Ok(Self::from_seed(&read_seed(folder)?))
    }

    /// The public half.
    pub const fn public(&self) -> PublicKey {
        self.public
    }

    /// Of the secret half over a message.
    pub(crate) fn sign(&self, message: &[u8]) -> Signature {
        Signature::new(self.signing.sign(message).to_bytes())
    }

    fn from_seed(seed: &[u8; KEY_BYTES]) -> Self {
        let signing = SigningKey::from_bytes(seed);
        Self { public: PublicKey::new(signing.verifying_key().to_bytes()), signing }
    }
}

/// What the key in `folder` is made of: the secret half.
pub(crate) fn read_seed(folder: &Path) -> Result<[u8; KEY_BYTES], KeyError> {
    let path = folder.join(KEY);
    match File::open(&path) {
        Ok(file) => read(&path, file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(KeyError::Gone { path }),
        Err(source) => Err(KeyError::Io { path, source }),
    }
}

fn read(path: &Path, file: File) -> Result<[u8; KEY_BYTES], KeyError> {
    let wrap = |source| KeyError::Io { path: path.to_owned(), source };
    let mode = file.metadata().map_err(wrap)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeyError::Open { path: path.to_owned(), mode });
    }
    let mut seed = Vec::with_capacity(KEY_BYTES);
    file.take(KEY_BYTES as u64 + 1).read_to_end(&mut seed).map_err(wrap)?;
    seed.try_into().map_err(|_| KeyError::Damaged { path: path.to_owned() })
}

/// Makes a file for a secret: there whole or not at all, also when two servers start at once, and
/// readable by its owner alone. One that is there already stays as it is.
pub(crate) fn make_secret(folder: &Path, name: &str, secret: &[u8]) -> io::Result<()> {
    let temporary = folder.join(format!("{name}.{}", std::process::id()));
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(secret).and_then(|()| file.sync_all())?;
    let linked = fs::hard_link(&temporary, folder.join(name));
    fs::remove_file(&temporary)?;
    match linked {
        Ok(()) => File::open(folder)?.sync_all(),
        // Another server was first: its secret is as good.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_is_made_once_and_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let first = ServerKey::in_folder(folder.path()).unwrap().public();
        assert_eq!(ServerKey::in_folder(folder.path()).unwrap().public(), first);
        let mode = fs::metadata(folder.path().join("server.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file stays");
    }

    #[test]
    fn key_that_others_may_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        ServerKey::in_folder(folder.path()).unwrap();
        let path = folder.path().join("server.key");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let refused = ServerKey::in_folder(folder.path());
        assert!(matches!(refused, Err(KeyError::Open { mode: 0o644, .. })), "{refused:?}");
    }

    #[test]
    fn e7_key_that_is_gone_is_not_replaced_beside_a_journal() {
        let folder = tempfile::tempdir().unwrap();
        make_folder(folder.path()).unwrap();
        fs::write(folder.path().join(JOURNAL), []).unwrap();
        assert!(matches!(ServerKey::in_folder(folder.path()), Err(KeyError::Gone { .. })));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn damaged_key_is_refused_and_never_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("server.key");
        ServerKey::in_folder(folder.path()).unwrap();
        fs::write(&path, [1; 31]).unwrap();
        assert!(matches!(ServerKey::in_folder(folder.path()), Err(KeyError::Damaged { .. })));
        assert_eq!(fs::read(&path).unwrap(), [1; 31]);
    }
}
