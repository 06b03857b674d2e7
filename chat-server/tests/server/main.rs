//! The server as a library, over real sockets.
#![expect(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test that panics is a test that fails"
)]

mod admin;
#[path = "../../src/anybody.rs"]
mod anybody;
mod backup;
mod certificate;
mod claims;
mod config;
mod directory;
mod disk;
mod door;
mod gate;
mod hello;
mod hostile;
mod injected;
mod killed;
mod lifecycle;
mod metrics;
mod operators;
mod peer;
mod power;
mod program;
mod retention;
mod status;
mod store;

use chat_server::{Server, ServerConfig, ServerKey, Tls};
use chatcore::address::Address;
use chatcore::limits::Limits;

/// A server on a free port of this machine.
async fn start(limits: Limits) -> (Server, Address) {
    let config = ServerConfig {
        listen: vec!["chat://127.0.0.1:0".parse().unwrap()],
        limits,
        ..ServerConfig::new(ServerKey::ephemeral().unwrap())
    };
    let server = Server::start(config).await.unwrap();
    let address = server.addresses()[0].clone();
    (server, address)
}

/// A server that can be reached in every way there is.
struct Everywhere {
    server: Server,
    _folder: tempfile::TempDir,
}

impl Everywhere {
    async fn start(limits: Limits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = format!("unix:{}", folder.path().join("socket").display());
        let listen = ["chat://127.0.0.1:0", "chats://127.0.0.1:0", &socket];
        let listen = listen.map(|address| address.parse().unwrap()).to_vec();
        let config = ServerConfig {
            tls: Some(Tls::self_signed(folder.path(), &listen).unwrap()),
            listen,
            limits,
            ..ServerConfig::new(ServerKey::ephemeral().unwrap())
        };
        Self { server: Server::start(config).await.unwrap(), _folder: folder }
    }

    /// By TCP, by TLS and by a Unix socket.
    fn addresses(&self) -> &[Address] {
        self.server.addresses()
    }
}

/// A folder for data: it may hold something before a server starts on it.
fn private_folder() -> tempfile::TempDir {
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    tempfile::Builder::new().permissions(private).tempdir().unwrap()
}

/// Says that a test cannot do what it is for here. Where nothing may be left out it fails.
fn not_tried(why: &str) {
    let must = std::env::var_os("CHAT_REQUIRE_ALL").is_some();
    assert!(!must, "nothing may be left out: {why}");
    println!("not tried: {why}");
}
