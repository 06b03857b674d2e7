//! A certificate and its key, in files.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use chat_server::Tls;

pub(crate) struct Certificate {
    pub(crate) file: PathBuf,
    pub(crate) key: PathBuf,
}

impl Certificate {
    /// Makes `NAME.crt` and `NAME.key` in a folder, for this machine, with a new key.
    pub(crate) fn make(folder: &Path, name: &str) -> Self {
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        let path = |kind: &str| folder.join(format!("{name}.{kind}"));
        let files = Self { file: path("crt"), key: path("key") };
        fs::write(&files.file, made.cert.pem()).unwrap();
        fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
        files.open_key_to(0o600);
        files
    }

    pub(crate) fn open_key_to(&self, mode: u32) {
        fs::set_permissions(&self.key, fs::Permissions::from_mode(mode)).unwrap();
    }

    pub(crate) fn read(&self) -> Result<Tls, chat_server::TlsError> {
        Tls::from_files(&self.file, &self.key)
    }

    /// The options that name the files.
    pub(crate) fn options(&self) -> [String; 4] {
        let [file, key] = [&self.file, &self.key].map(|path| path.display().to_string());
        ["--tls-cert".to_owned(), file, "--tls-key".to_owned(), key]
    }
}
