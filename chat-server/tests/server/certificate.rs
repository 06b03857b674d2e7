//! A certificate and its key in files, and what becomes of a server when they are replaced.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use chat_server::Tls;
use chatcore::address::Address;
use rustix::process::Signal;

use crate::anybody;
use crate::hostile::Others;
use crate::peer::{Peer, dial};
use crate::program::Program;

pub(crate) struct Certificate {
    /// As it is shown in a handshake.
    der: Vec<u8>,
    pub(crate) file: PathBuf,
    pub(crate) key: PathBuf,
}

impl Certificate {
    /// Makes `NAME.crt` and `NAME.key` in a folder, for this machine, with a new key.
    pub(crate) fn make(folder: &Path, name: &str) -> Self {
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        let path = |kind: &str| folder.join(format!("{name}.{kind}"));
        let der = made.cert.der().to_vec();
        let files = Self { der, file: path("crt"), key: path("key") };
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

/// The certificate that whoever connects now is shown.
async fn shown_at(address: &Address) -> Vec<u8> {
    let Address::Tls { host, port } = address else { panic!("{address}") };
    let stream = anybody::connect(dial(host, *port).await, host).await.expect("a handshake");
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

/// Has the files read again, and what the server says to that.
fn hang_up(program: &mut Program) -> serde_json::Value {
    program.signal(Signal::HUP);
    serde_json::from_str(&program.line()).unwrap()
}

#[tokio::test]
async fn certificate_that_is_replaced_is_shown_from_the_next_connection_on_and_ends_none() {
    let folder = tempfile::tempdir().unwrap();
    let used = Certificate::make(folder.path(), "used");
    let next = Certificate::make(folder.path(), "next");
    let named = used.options();
    let named = named.each_ref().map(String::as_str);
    let options = [&["--json", "--ephemeral", "--listen", "chats://127.0.0.1:0"], &named[..]];
    let mut program = Program::start(&options.concat());
    let address = program.address();
    let mut others = Others::talking(&address).await;
    assert_eq!(shown_at(&address).await, used.der);

    // The certificate alone does not go with the key that is there, and so changes nothing.
    fs::rename(&next.file, &used.file).unwrap();
    assert_eq!(hang_up(&mut program)["type"], "problem");
    assert_eq!(shown_at(&address).await, used.der);
    fs::rename(&next.key, &used.key).unwrap();
    let told = hang_up(&mut program);
    assert_eq!(told["type"], "certificate", "{told}");
    assert_eq!(told["key"], used.read().unwrap().key_hash());
    assert_eq!(shown_at(&address).await, next.der);
    others.assert_undisturbed().await;
    Peer::join(&address, "carla").await;

    fs::write(&used.file, "no certificate any more").unwrap();
    let told = hang_up(&mut program);
    assert!(told["text"].as_str().unwrap().contains("stays as it was"), "{told}");
    assert_eq!(shown_at(&address).await, next.der);
    fs::remove_file(&used.key).unwrap();
    assert_eq!(hang_up(&mut program)["type"], "problem");
    assert_eq!(shown_at(&address).await, next.der);
    others.assert_undisturbed().await;

    let last = Certificate::make(folder.path(), "used");
    assert_eq!(hang_up(&mut program)["type"], "certificate");
    assert_eq!(shown_at(&address).await, last.der);
    others.assert_undisturbed().await;
    program.signal(Signal::TERM);
    let (status, stderr) = program.wait();
    assert_eq!(status.code(), Some(0), "{stderr}");
    for part in ["cannot be used together", "used.crt holds no certificate"] {
        assert!(stderr.contains(part), "{part} is not in {stderr}");
    }
}
