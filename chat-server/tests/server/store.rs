//! What was acknowledged is kept.

use std::path::Path;

use chat_server::{Durability, Server, ServerConfig, ServerKey, StartError, Storage, StoreError};
use chatcore::address::Address;
use chatcore::limits::Limits;
use chatcore::wire::{Answer, RecordBody, ServerFrame};

use crate::peer::Peer;
use crate::private_folder;

/// What a server on a folder is told. One user opens the gate; nothing stays in memory, so that all
/// history comes from the store.
pub(crate) fn config(folder: &Path) -> ServerConfig {
    let (path, durability) = (folder.to_owned(), Durability::Commit);
    ServerConfig {
        listen: vec!["chat://127.0.0.1:0".parse().unwrap()],
        storage: Storage::Folder { path, durability },
        threshold: chatcore::id::Threshold::new(1).unwrap(),
        limits: Limits { window_bytes: 0, ..Limits::default() },
        ..ServerConfig::new(ServerKey::in_folder(folder).unwrap())
    }
}

pub(crate) async fn start(folder: &Path) -> (Server, Address) {
    let server = Server::start(config(folder)).await.unwrap();
    let address = server.addresses()[0].clone();
    (server, address)
}

/// Posts these, and waits until the last is acknowledged.
pub(crate) async fn post_all(peer: &mut Peer, texts: &[String]) {
    let mut last = None;
    for text in texts {
        last = Some(peer.post(text).await);
    }
    let answer = peer.answer_to(last.expect("something is posted")).await;
    assert!(matches!(answer, ServerFrame::Accepted { .. }), "{answer:?}");
}

pub(crate) fn numbers(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

#[tokio::test]
async fn history_survives_a_restart_and_is_read_without_a_seam() {
    let folder = private_folder();
    for run in 0..3 {
        let (server, address) = start(folder.path()).await;
        let mut ana = Peer::join_from_the_first(&address, "ana").await;
        let before = numbers(0..run * 300);
        assert_eq!(ana.posts(before.len()).await, before);
        post_all(&mut ana, &numbers(run * 300..(run + 1) * 300)).await;
        let mut beto = Peer::join_from_the_first(&address, "beto").await;
        let all = numbers(0..(run + 1) * 300);
        assert_eq!(beto.posts(all.len()).await, all);
        server.stop().await.unwrap();
    }
}

#[tokio::test]
async fn history_that_is_asked_for_backwards_is_whole() {
    let folder = private_folder();
    let (server, address) = start(folder.path()).await;
    let mut ana = Peer::join_from_the_first(&address, "ana").await;
    post_all(&mut ana, &numbers(0..700)).await;
    let (mut before, mut found) = (None, Vec::new());
    loop {
        let question = crate::peer::history("lobby", before, 100);
        let Answer::History { records, .. } = ana.ask(question).await else { panic!("no history") };
        let Some(first) = records.iter().next() else { break };
        before = Some(first.seq);
        let texts = records.iter().rev().filter_map(|record| match &record.body {
            RecordBody::Post { text, .. } => Some(text.as_str().to_owned()),
            _ => None,
        });
        found.extend(texts);
        if before.is_some_and(|seq| seq.get() == 1) {
            break;
        }
    }
    found.reverse();
    assert_eq!(found, numbers(0..700));
    server.stop().await.unwrap();
}

#[tokio::test]
async fn what_a_gate_holds_survives_a_restart_and_is_shown_when_it_opens() {
    let folder = private_folder();
    let threshold = chatcore::id::Threshold::new(2).unwrap();
    let closed = || ServerConfig { threshold, ..config(folder.path()) };
    let server = Server::start(closed()).await.unwrap();
    let mut ana = Peer::join(&server.addresses()[0], "ana").await;
    for text in numbers(0..100) {
        let counter = ana.post(&text).await;
        let answer = ana.answer_to(counter).await;
        assert!(matches!(answer, ServerFrame::Accepted { seq: None, .. }), "{answer:?}");
    }
    server.stop().await.unwrap();
    let server = Server::start(closed()).await.unwrap();
    let mut ana = Peer::join(&server.addresses()[0], "ana").await;
    let mut beto = Peer::join(&server.addresses()[0], "beto").await;
    assert_eq!(beto.posts(100).await, numbers(0..100));
    assert_eq!(ana.posts(100).await, numbers(0..100));
    server.stop().await.unwrap();
}

#[tokio::test]
async fn second_server_on_a_folder_says_that_it_is_in_use() {
    let folder = private_folder();
    let (server, _) = start(folder.path()).await;
    let refused = Server::start(config(folder.path())).await.unwrap_err();
    assert!(matches!(refused, StartError::Store(StoreError::InUse(_))), "{refused}");
    assert!(refused.to_string().contains("in use"), "{refused}");
    server.stop().await.unwrap();
    start(folder.path()).await.0.stop().await.unwrap();
}

#[tokio::test]
async fn journal_of_another_server_is_refused() {
    let folder = private_folder();
    start(folder.path()).await.0.stop().await.unwrap();
    let key = ServerKey::ephemeral().unwrap();
    let refused = Server::start(ServerConfig { key, ..config(folder.path()) }).await.unwrap_err();
    assert!(matches!(refused, StartError::Store(StoreError::OtherKey { .. })), "{refused}");
}

/// Runs `chat-server check` on a folder.
pub(crate) fn check(folder: &Path) -> (Option<i32>, String) {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_chat-server"))
        .args(["check", "--data"])
        .arg(folder)
        .env_remove("CHAT_JSON")
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).unwrap())
}

#[tokio::test]
async fn e5_check_finds_a_whole_folder_whole_and_names_every_row_that_is_not() {
    let folder = private_folder();
    assert_eq!(check(folder.path()).0, Some(1), "there is nothing to verify");
    let (server, address) = start(folder.path()).await;
    let mut ana = Peer::join(&address, "ana").await;
    post_all(&mut ana, &numbers(0..300)).await;
    let (status, said) = check(folder.path());
    assert!(status == Some(1) && said.contains("in use"), "{said}");
    server.stop().await.unwrap();
    let (status, said) = check(folder.path());
    assert!(status == Some(0) && said.contains("all is as it was written"), "{said}");

    let path = folder.path().join("journal.db");
    let mut bytes = std::fs::read(&path).unwrap();
    for text in ["117", "250"] {
        let is_text = |window: &[u8]| window == [b"\x03", text.as_bytes()].concat();
        let place = bytes.windows(4).position(is_text).expect(text);
        bytes[place + 1] ^= 1;
    }
    std::fs::write(&path, &bytes).unwrap();
    let (status, said) = check(folder.path());
    assert_eq!(status, Some(1), "{said}");
    assert_eq!(said.matches("table entry, row ").count(), 2, "{said}");
    assert_eq!(std::fs::read(&path).unwrap(), bytes, "nothing is repaired");
    let refused = Server::start(config(folder.path())).await.unwrap_err();
    assert!(refused.to_string().contains("table entry, row "), "{refused}");
}

#[tokio::test]
async fn e6_check_is_not_silent_about_any_file_that_is_missing() {
    let folder = private_folder();
    let (server, address) = start(folder.path()).await;
    let mut ana = Peer::join(&address, "ana").await;
    post_all(&mut ana, &numbers(0..3)).await;
    server.stop().await.unwrap();
    let (status, said) = check(folder.path());
    assert!(status == Some(0) && said.contains(", 1 room, 0 checkpoints, "), "{said}");
    let file = |name: &str| folder.path().join(name);
    let aside = folder.path().join("aside");

    // A server starts without it, and nobody may take that for more than it is.
    for empty in [true, false] {
        std::fs::rename(file("tip"), &aside).unwrap();
        if empty {
            std::fs::write(file("tip"), "").unwrap();
        }
        let (status, said) = check(folder.path());
        assert!(status == Some(0) && said.contains("tip is not there"), "{said}");
        assert!(said.contains("all else is as it was written"), "{said}");
        std::fs::rename(&aside, file("tip")).unwrap();
    }
    for (name, part) in
        [("server.key", "there is no server key"), ("journal.db", "journal.db is gone, and ")]
    {
        std::fs::rename(file(name), &aside).unwrap();
        let (status, said) = check(folder.path());
        assert!(status == Some(1) && said.contains(part), "{name}: {said}");
        std::fs::rename(&aside, file(name)).unwrap();
    }
    std::fs::rename(file("server.key"), &aside).unwrap();
    let other = private_folder();
    ServerKey::in_folder(other.path()).unwrap();
    std::fs::copy(other.path().join("server.key"), file("server.key")).unwrap();
    let (status, said) = check(folder.path());
    assert!(status == Some(1) && said.contains("belongs to the server"), "{said}");
}

#[tokio::test]
async fn chat_that_is_exported_while_it_runs_goes_on_in_the_folder_it_is_imported_to() {
    let (folder, other) = (private_folder(), private_folder());
    let (server, address) = start(folder.path()).await;
    let mut ana = Peer::join(&address, "ana").await;
    post_all(&mut ana, &numbers(0..100)).await;
    let program = |job: &str, folder: &Path| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_chat-server"));
        command.args([job, "--data"]).arg(folder);
        command
    };
    let exported = program("export", folder.path()).output().unwrap();
    assert!(exported.status.success(), "{exported:?}");
    server.stop().await.unwrap();

    let lines = other.path().join("lines");
    std::fs::write(&lines, &exported.stdout).unwrap();
    let import = || {
        let lines = std::fs::File::open(&lines).unwrap();
        program("import", other.path()).stdin(lines).output().unwrap()
    };
    let refused = import();
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("put its server.key there"));
    std::fs::copy(folder.path().join("server.key"), other.path().join("server.key")).unwrap();
    let imported = import();
    assert!(imported.status.success(), "{imported:?}");
    assert_eq!(check(other.path()).0, Some(0));
    let (server, address) = start(other.path()).await;
    let mut beto = Peer::join_from_the_first(&address, "beto").await;
    assert_eq!(beto.posts(100).await, numbers(0..100));
    server.stop().await.unwrap();
}
