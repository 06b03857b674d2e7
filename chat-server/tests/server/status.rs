//! `chat-server status`: what a running server says of itself, and to whom.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Output;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chat_server::{OrderError, OrderKey, Orders, ServerKey};
use chatcore::address::Address;
use chatcore::limits::Limits;
use chatcore::wire::{Refusal, StorageStatus};
use serde_json::{Value, json};

use crate::killed::{serve, server};
use crate::peer::{Peer, key_of};
use crate::program::Program;
use crate::store::{numbers, post_all};

/// Asks by the program.
async fn status(options: &[&str]) -> Output {
    let mut command = server();
    command.arg("status").args(options).env_remove("CHAT_JSON").env_remove("CHAT_DATA");
    // The runtime goes on with whoever is connected.
    tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap()
}

async fn status_of(address: &Address, folder: &Path) -> Output {
    let folder = folder.to_str().unwrap();
    status(&["--json", "--server", &address.to_string(), "--data", folder]).await
}

fn json_of(output: &Output) -> Value {
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[track_caller]
fn assert_fails(output: &Output, code: i32, hint: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(said.contains(hint), "{said}");
    assert!(output.stdout.is_empty(), "{output:?}");
}

/// The identity of a user of these tests, as `chat-client` keeps it.
fn identity_of(name: &str, folder: &Path) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, format!("{}\n", URL_SAFE_NO_PAD.encode(key_of(name).to_bytes()))).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path
}

#[tokio::test]
async fn status_of_a_durable_server_tells_counts_entries_and_where_it_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let (_program, address) = serve(server(), folder.path());
    let mut ana = Peer::join(&address, "ana").await;
    let _beto = Peer::join(&address, "beto").await;
    post_all(&mut ana, &numbers(0..10)).await;
    let first = json_of(&status_of(&address, folder.path()).await);
    let second = json_of(&status_of(&address, folder.path()).await);
    let key = ServerKey::in_folder(folder.path()).unwrap().public();
    let expected = [
        ("type", json!("status")),
        ("url", json!(address.to_string())),
        ("server_key", json!(key.to_string())),
        ("generation", json!(1)),
        ("online", json!(2)),
        ("users", json!(2)),
        ("rooms", json!(1)),
        ("gates_open", json!(1)),
        ("gates_closed", json!(0)),
    ];
    for (name, value) in expected {
        assert_eq!(first[name], value, "{first}");
    }
    assert_eq!(first["newest"], first["safe"], "nothing is under way: {first}");
    assert!(first["connections"].as_u64() >= Some(3), "this one, too: {first}");
    assert!(first["memory_bytes"].as_u64() > Some(0), "{first}");
    assert!(second["uptime_ms"].as_u64() >= first["uptime_ms"].as_u64(), "{first} {second}");
    let store = &first["store"];
    assert_eq!((&store["kept"], &store["full"]), (&json!("disk"), &json!(false)));
    assert_eq!((&store["durability"], &store["checkpoint"]), (&json!("commit"), &Value::Null));
    assert!(store["bytes"].as_u64() > Some(4_096), "{store}");
    // Asking leaves nothing behind.
    for name in ["newest", "users", "online", "rooms", "log_id"] {
        assert_eq!(first[name], second[name]);
    }
}

#[tokio::test]
async fn status_tells_the_newest_checkpoint_and_its_age() {
    let folder = tempfile::tempdir().unwrap();
    let (_program, address) = serve(server(), folder.path());
    // By name and time alone: a status reads no file.
    fs::write(folder.path().join("checkpoint-0000000000000007"), "").unwrap();
    fs::write(folder.path().join("checkpoint-0000000000000003"), "").unwrap();
    let told = json_of(&status_of(&address, folder.path()).await);
    let checkpoint = &told["store"]["checkpoint"];
    assert_eq!(checkpoint["entry"], 7, "{told}");
    assert!(checkpoint["age_ms"].as_u64() < Some(60_000), "{told}");
}

#[tokio::test]
async fn status_of_an_ephemeral_server_on_a_socket_file_says_that_nothing_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let (data, socket) = (folder.path().join("data"), folder.path().join("chat.sock"));
    let (data, socket) = (data.to_str().unwrap(), format!("unix:{}", socket.display()));
    let options = ["--json", "--ephemeral", "--listen", &socket, "--data", data];
    let mut program = Program::start_by(server(), &options);
    let address = program.address();
    let _ana = Peer::join(&address, "ana").await;
    let told = json_of(&status_of(&address, Path::new(data)).await);
    assert_eq!(told["store"], json!({ "kept": "memory", "full": false }));
    assert_eq!((&told["gates_open"], &told["gates_closed"]), (&json!(0), &json!(1)));
    assert_eq!(told["url"], socket.as_str());
    let output = status(&["--server", &socket, "--data", data]).await;
    let said = String::from_utf8(output.stdout).unwrap();
    for line in [
        "users        1, 1 connected\n",
        "rooms        1, 0 with an open gate, 1 with a closed one\n",
        "kept         in memory alone: it is gone when the server stops\n",
    ] {
        assert!(said.contains(line), "{said}");
    }
}

#[tokio::test]
async fn status_where_nobody_listens_exits_with_3() {
    let folder = tempfile::tempdir().unwrap();
    ServerKey::in_folder(folder.path()).unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let free: Address = format!("chat://{}", taken.local_addr().unwrap()).parse().unwrap();
    drop(taken);
    let socket = format!("unix:{}", folder.path().join("none").display()).parse().unwrap();
    for address in [free, socket] {
        let hint = format!("no server can be reached at {address}");
        assert_fails(&status_of(&address, folder.path()).await, 3, &hint);
        // With or without a key.
        assert_fails(&status_of(&address, Path::new("/nonexistent")).await, 3, &hint);
    }
}

#[tokio::test]
async fn status_without_the_right_is_refused_with_4() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (_program, address) = serve(server(), folder.path());
    let address_text = address.to_string();
    // Nobody's folder, the folder of another server, and the keys of a user and of nobody.
    let nobody = status_of(&address, other.path()).await;
    assert_fails(&nobody, 4, "there is no server key");
    assert!(fs::read_dir(other.path()).unwrap().next().is_none(), "none is made");
    ServerKey::in_folder(other.path()).unwrap();
    assert_fails(&status_of(&address, other.path()).await, 4, "--identity");
    let _ana = Peer::join(&address, "ana").await;
    let _beto = Peer::join(&address, "beto").await;
    for name in ["beto", "carla"] {
        let identity = identity_of(name, other.path());
        let identity = identity.to_str().unwrap();
        let refused = status(&["--server", &address_text, "--identity", identity]).await;
        assert_fails(&refused, 4, "operators only");
    }
}

#[tokio::test]
async fn status_is_told_to_an_operator_by_its_identity() {
    let (folder, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (_program, address) = serve(server(), folder.path());
    // The first user is the operator.
    let _ana = Peer::join(&address, "ana").await;
    let identity = identity_of("ana", home.path());
    let address = address.to_string();
    let options = ["--json", "--server", &address, "--identity", identity.to_str().unwrap()];
    assert_eq!(json_of(&status(&options).await)["online"], 1);
    fs::set_permissions(&identity, fs::Permissions::from_mode(0o644)).unwrap();
    assert_fails(&status(&options).await, 1, "chmod 600");
}

#[tokio::test]
async fn status_that_makes_no_sense_exits_with_2() {
    for (options, hint) in
        [(&["--server", "ftp://here"][..], "chat://"), (&["-n", "3"], "unexpected argument")]
    {
        assert_fails(&status(options).await, 2, hint);
    }
}

#[tokio::test]
async fn status_of_what_is_no_chat_server_is_not_understood() {
    let folder = tempfile::tempdir().unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("chat://{}", listener.local_addr().unwrap()).parse().unwrap();
    let web = tokio::spawn(async move {
        use tokio::io::AsyncWriteExt as _;
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
    });
    assert_fails(&status_of(&address, folder.path()).await, 1, "no chat server");
    web.await.unwrap();
}

#[tokio::test]
async fn server_tells_a_full_house_busy_and_answers_the_library_alike() {
    let folder = tempfile::tempdir().unwrap();
    let config = chat_server::ServerConfig {
        listen: vec!["chat://127.0.0.1:0".parse().unwrap()],
        limits: Limits { connections_max: 1, ..Limits::default() },
        ..chat_server::ServerConfig::new(ServerKey::in_folder(folder.path()).unwrap())
    };
    let server = chat_server::Server::start(config).await.unwrap();
    let address = server.addresses()[0].clone();
    let key = OrderKey::of_server(folder.path()).unwrap();
    let told = Orders::connect(&address).await.unwrap().status(&key).await.unwrap();
    assert_eq!((told.connections, told.host.storage), (1, StorageStatus::Memory));
    let _held = Peer::join(&address, "ana").await;
    let refused = Orders::connect(&address).await.unwrap_err();
    let is_busy = matches!(refused, OrderError::Refused { refusal: Refusal::Busy { .. }, .. });
    assert!(is_busy, "{refused}");
    server.stop().await.unwrap();
}
