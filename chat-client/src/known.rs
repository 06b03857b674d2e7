//! Servers that were met before: which key each had, so that nobody can take its place unnoticed.
//!
//! One line a server, added when it is first met: its address, its key, and the key of its certificate
//! where no authority vouches for it. The last line of an address counts. A file that a crash cut off
//! in the middle of a line is as if the line had not been begun.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use chatcore::address::Address;
use chatcore::id::PublicKey;

use crate::tls::KeyHash;

/// The most that is read: some hundred thousand servers.
const BYTES_MAX: u64 = 16 << 20;

/// Why it is not known who was met.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KnownError {
    /// The file cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line is none of ours.
    #[error("line {line} of {} is damaged: correct or remove it", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
    },
    /// It is longer than is read.
    #[error("{} is longer than 16 MiB: remove old lines", .0.display())]
    TooLong(PathBuf),
}

/// Who a server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// Its key.
    pub key: PublicKey,
    /// The key of its certificate, where that is trusted by itself.
    pub certificate: Option<KeyHash>,
}

/// The file of those that were met.
#[derive(Clone, Debug)]
pub struct KnownServers {
    path: PathBuf,
}

impl KnownServers {
    /// The file that the user named.
    pub fn of_file(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// The file in the XDG configuration folder; `None` when the environment names no such folder.
    pub fn of_user() -> Option<Self> {
        let folder = crate::identity::config_folder()?;
        Some(Self { path: folder.join("known_servers") })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Who was met at an address.
    ///
    /// # Errors
    /// When the file cannot be read, or is damaged.
    pub fn find(&self, address: &Address) -> Result<Option<Known>, KnownError> {
        let text = self.read()?;
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let address = address.to_string();
        let mut found = None;
        for (number, line) in whole.lines().enumerate() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let damaged =
                || KnownError::Damaged { path: self.path.clone(), line: number.saturating_add(1) };
            let (of, known) = parse(line).ok_or_else(damaged)?;
            if of == address {
                found = Some(known);
            }
        }
        Ok(found)
    }

    /// Remembers who is at an address.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn remember(&self, address: &Address, known: Known) -> Result<(), KnownError> {
        let at = |source| KnownError::Io { path: self.path.clone(), source };
        if let Some(folder) = self.path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(at)?;
        }
        let text = self.read()?;
        let whole = text.rfind('\n').map_or(0, |end| end.saturating_add(1));
        let mut options = OpenOptions::new();
        let mut file =
            options.append(true).create(true).mode(0o600).open(&self.path).map_err(at)?;
        let certificate = known.certificate.map_or_else(String::new, |key| format!(" {key}"));
        let line = format!("{address} {}{certificate}\n", known.key);
        if whole < text.len() {
            file.set_len(u64::try_from(whole).unwrap_or(u64::MAX)).map_err(at)?;
        }
        file.write_all(line.as_bytes()).and_then(|()| file.sync_all()).map_err(at)
    }

    fn read(&self) -> Result<String, KnownError> {
        let at = |source| KnownError::Io { path: self.path.clone(), source };
        let file = match std::fs::File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
            Err(source) => return Err(at(source)),
        };
        let mut text = String::new();
        file.take(BYTES_MAX + 1).read_to_string(&mut text).map_err(at)?;
        if u64::try_from(text.len()).unwrap_or(u64::MAX) > BYTES_MAX {
            return Err(KnownError::TooLong(self.path.clone()));
        }
        Ok(text)
    }
}

/// Address, key, and the certificate's key if there is one. The path of a socket may hold spaces.
fn parse(line: &str) -> Option<(&str, Known)> {
    let (rest, last) = line.rsplit_once(' ')?;
    if let Ok(certificate) = last.parse() {
        let (address, key) = rest.rsplit_once(' ')?;
        let key = key.parse().ok()?;
        return Some((address, Known { key, certificate: Some(certificate) }));
    }
    Some((rest, Known { key: last.parse().ok()?, certificate: None }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(number: u8) -> Known {
        Known { key: PublicKey::new([number; 32]), certificate: None }
    }

    fn address(text: &str) -> Address {
        text.parse().unwrap()
    }

    #[test]
    fn server_is_known_by_the_last_line_of_its_address() {
        let folder = tempfile::tempdir().unwrap();
        let servers = KnownServers::of_file(&folder.path().join("a/known"));
        let (here, there) = (address("chats://here"), address("unix:/a socket"));
        assert_eq!(servers.find(&here).unwrap(), None);
        servers.remember(&here, known(1)).unwrap();
        servers.remember(&there, known(2)).unwrap();
        let hash = "sha256:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8".parse().unwrap();
        let with_certificate = Known { certificate: Some(hash), ..known(3) };
        servers.remember(&here, with_certificate).unwrap();
        assert_eq!(servers.find(&here).unwrap(), Some(with_certificate));
        assert_eq!(servers.find(&there).unwrap(), Some(known(2)));
    }

    #[test]
    fn e7_line_that_a_crash_cut_off_is_of_no_account_and_damage_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("known");
        let servers = KnownServers::of_file(&path);
        let here = address("chat://here");
        servers.remember(&here, known(1)).unwrap();
        let whole = std::fs::read_to_string(&path).unwrap();
        let second = whole.replace("here", "there");
        for cut in 0..second.len() {
            std::fs::write(&path, format!("{whole}{}", &second[..cut])).unwrap();
            assert_eq!(servers.find(&here).unwrap(), Some(known(1)), "cut at {cut}");
            assert_eq!(servers.find(&address("chat://there")).unwrap(), None, "cut at {cut}");
        }
        servers.remember(&address("chat://there"), known(2)).unwrap();
        assert_eq!(servers.find(&address("chat://there")).unwrap(), Some(known(2)));
        std::fs::write(&path, format!("{whole}something else\n")).unwrap();
        assert!(matches!(servers.find(&here), Err(KnownError::Damaged { line: 2, .. })));
    }
}
