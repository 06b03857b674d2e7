//! Starting and stopping.

use chat_server::{ListenError, Plaintext, Server, ServerConfig, ServerKey, StartError, Stopped};
use chatcore::address::Address;
use chatcore::limits::Limits;
use chatcore::wire::{Refusal, ServerFrame};
use tokio::net::UnixStream;

use crate::peer::Peer;
use crate::{Everywhere, start};

fn config(listen: &str) -> ServerConfig {
    let listen = vec![listen.parse().unwrap()];
    ServerConfig { listen, ..ServerConfig::new(ServerKey::ephemeral().unwrap()) }
}

#[tokio::test]
async fn unix_socket_serves_and_is_removed_at_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("chat.sock");
    let server = Server::start(config(&format!("unix:{}", path.display()))).await.unwrap();
    let mut ana = Peer::join(&Address::Unix(path.clone()), "ana").await;
    ana.post("hello").await;
    let in_use = Server::start(config(&format!("unix:{}", path.display()))).await;
    assert!(matches!(in_use, Err(StartError::Listen(ListenError::InUse { .. }))));
    server.stop().await.unwrap();
    assert!(!path.exists());
}

#[tokio::test]
async fn socket_file_left_by_a_killed_server_is_taken_over() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("chat.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "a socket file outlives its listener");
    let server = Server::start(config(&format!("unix:{}", path.display()))).await.unwrap();
    Peer::join(&Address::Unix(path), "ana").await;
    server.stop().await.unwrap();
}

#[tokio::test]
async fn socket_file_of_somebody_whose_queue_is_full_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("chat.sock");
    let socket = tokio::net::UnixSocket::new_stream().unwrap();
    socket.bind(&path).unwrap();
    let busy = socket.listen(1).unwrap();
    let mut waiting = Vec::new();
    // Until one more would have to wait.
    while let Ok(stream) = UnixStream::connect(&path).await {
        waiting.push(stream);
        assert!(waiting.len() < 100, "a queue has an end");
    }
    let refused = Server::start(config(&format!("unix:{}", path.display()))).await;
    assert!(matches!(refused, Err(StartError::Listen(ListenError::InUse { .. }))), "{refused:?}");
    assert!(busy.accept().await.is_ok());
    assert!(UnixStream::connect(&path).await.is_ok(), "the socket file is still there");
}

#[tokio::test]
async fn socket_file_that_somebody_else_put_in_place_of_ones_own_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("chat.sock");
    let server = Server::start(config(&format!("unix:{}", path.display()))).await.unwrap();
    std::fs::remove_file(&path).unwrap();
    let _other = std::os::unix::net::UnixListener::bind(&path).unwrap();
    server.stop().await.unwrap();
    assert!(UnixStream::connect(&path).await.is_ok());
}

#[tokio::test]
async fn file_that_is_no_socket_is_never_removed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("precious");
    std::fs::write(&path, "data").unwrap();
    let refused = Server::start(config(&format!("unix:{}", path.display()))).await;
    assert!(matches!(refused, Err(StartError::Listen(ListenError::NotASocket { .. }))));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "data");
}

#[tokio::test]
async fn port_that_is_taken_is_a_clear_error() {
    let (_server, address) = start(Limits::default()).await;
    let refused = Server::start(config(&address.to_string())).await.unwrap_err();
    assert!(matches!(refused, StartError::Listen(ListenError::InUse { .. })), "{refused}");
    assert!(refused.to_string().contains("in use"), "{refused}");
}

#[tokio::test]
async fn other_machines_are_served_only_when_plaintext_is_allowed() {
    let refused = Server::start(config("chat://0.0.0.0:0")).await.unwrap_err();
    assert!(refused.to_string().contains("--plaintext"), "{refused}");
    let allowed = ServerConfig { plaintext: Plaintext::Anywhere, ..config("chat://0.0.0.0:0") };
    Server::start(allowed).await.unwrap().stop().await.unwrap();
}

#[tokio::test]
async fn c12_server_that_stops_tells_everybody_and_keeps_what_it_acknowledged() {
    for way in 0..3 {
        let house = Everywhere::start(Limits::default()).await;
        let address = house.addresses()[way].clone();
        let mut ana = Peer::join(&address, "ana").await;
        let mut beto = Peer::join(&address, "beto").await;
        let mut last = None;
        for number in 0..500 {
            last = Some(ana.post(&number.to_string()).await);
        }
        let answer = ana.answer_to(last.unwrap()).await;
        assert!(matches!(answer, ServerFrame::Accepted { .. }), "{answer:?}");
        let stopped = tokio::spawn(house.server.stop());
        let wanted: Vec<String> = (0..500).map(|number| number.to_string()).collect();
        assert_eq!(beto.posts(500).await, wanted, "what was acknowledged is delivered");
        assert_eq!(ana.closed().await, Some(Refusal::Gone), "{address}");
        assert_eq!(beto.closed().await, Some(Refusal::Gone), "{address}");
        assert_eq!(stopped.await.unwrap().unwrap(), Stopped::Drained, "{address}");
    }
}
