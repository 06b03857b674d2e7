//! What is told to those who run the server, and to nobody else.

use std::os::unix::fs::PermissionsExt as _;

use chat_server::{ListenError, Server, ServerConfig, ServerKey, StartError};
use chatcore::address::Address;
use chatcore::limits::Limits;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

use crate::peer::{PATIENCE, Peer, Stream, hello};

async fn start(admin: &str) -> Server {
    let config = ServerConfig {
        listen: vec!["chat://127.0.0.1:0".parse().unwrap()],
        admin: Some(admin.parse().unwrap()),
        threshold: chatcore::id::Threshold::new(1).unwrap(),
        limits: Limits::default(),
        ..ServerConfig::new(ServerKey::ephemeral().unwrap())
    };
    Server::start(config).await.unwrap()
}

async fn get(server: &Server, path: &str) -> String {
    let mut stream: Box<dyn Stream> = match server.admin().unwrap() {
        Address::Tcp { host, port } => {
            Box::new(TcpStream::connect((host.as_str(), *port)).await.unwrap())
        }
        Address::Unix(path) => Box::new(UnixStream::connect(path).await.unwrap()),
        address @ Address::Tls { .. } => panic!("{address}"),
    };
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let read = stream.read_to_string(&mut answer);
    tokio::time::timeout(PATIENCE, read).await.expect("an answer in time").unwrap();
    answer
}

/// The value of a line of metrics.
fn value(metrics: &str, name: &str) -> u64 {
    let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{name} is not in {metrics}")).parse().unwrap()
}

#[tokio::test]
async fn h8_metrics_count_what_happens_and_name_nobody() {
    let server = start("127.0.0.1:0").await;
    let address = server.addresses()[0].clone();
    let mut ana = Peer::join(&address, "ana-the-secret").await;
    ana.ask(crate::peer::join("room-of-secrets")).await;
    let counter = ana.post("a text of secrets").await;
    ana.answer_to(counter).await;
    let mut stranger = Peer::connect(&address).await;
    stranger.send_bytes(&[0xFF; 8]).await;
    stranger.closed().await;
    let mut unruly = Peer::connect(&address).await;
    unruly.send(&hello()).await;
    unruly.send_bytes(&[0, 0, 0, 0]).await;
    unruly.closed().await;

    let metrics = get(&server, "/metrics").await;
    for (name, wanted) in [
        ("chat_log_ins_total", 1),
        ("chat_users", 1),
        ("chat_users_online", 1),
        ("chat_rooms", 2),
        ("chat_rooms_open", 2),
        ("chat_store_full", 0),
        ("chat_refused_connections_total{reason=\"speech\"}", 1),
        ("chat_closed_connections_total{code=\"E_FRAME\"}", 1),
    ] {
        assert_eq!(value(&metrics, name), wanted, "{name}: {metrics}");
    }
    for name in ["chat_frames_received_total", "chat_bytes_written_total", "chat_record_bytes"] {
        assert!(value(&metrics, name) > 0, "{name}: {metrics}");
    }
    assert_eq!(
        value(&metrics, "chat_journal_entries"),
        value(&metrics, "chat_journal_entries_safe")
    );
    assert!(!metrics.contains("secret"), "no name and no text: {metrics}");
    assert!(metrics.contains("openmetrics-text") && metrics.ends_with("# EOF\n"), "{metrics}");
}

#[tokio::test]
async fn i8_admin_socket_is_its_owners_alone_and_has_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admin");
    let server = start(&format!("unix:{}", path.display())).await;
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(get(&server, "/readyz").await.ends_with("ready\n"));
    for path in ["/", "/admin", "/debug", "/chat"] {
        assert!(get(&server, path).await.starts_with("HTTP/1.1 404 "), "{path}");
    }
    server.stop().await.unwrap();
    assert!(!path.exists());
}

#[tokio::test]
async fn i8_admin_socket_that_other_machines_could_reach_is_refused() {
    let refused_at = async |admin: &str| {
        let config = ServerConfig {
            admin: Some(admin.parse().unwrap()),
            ..ServerConfig::new(ServerKey::ephemeral().unwrap())
        };
        Server::start(config).await.unwrap_err()
    };
    for admin in ["chat://0.0.0.0:0", "chats://127.0.0.1:0"] {
        let refused = refused_at(admin).await;
        let is_named = matches!(
            refused,
            StartError::Listen(
                ListenError::AdminExposed { .. } | ListenError::AdminEncrypted { .. }
            )
        );
        assert!(is_named, "{refused}");
        assert!(
            refused.to_string().contains("--admin unix:/PATH or --admin 127.0.0.1"),
            "{refused}"
        );
    }
}
