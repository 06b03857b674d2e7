//! Copies of a folder that a server is using.

use std::fs;
use std::path::Path;
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use chat_server::{BackupError, Server, StartError, StoreError};
use chatcore::id::Counter;
use chatcore::wire::ServerFrame;
use serde_json::Value;
use tokio::sync::watch;

use crate::killed::{serve, server};
use crate::peer::Peer;
use crate::store::{config, numbers, post_all, start};

/// Runs a job of the program to its end.
async fn job(words: &[&str], folder: &Path) -> Output {
    let mut command = server();
    command.args(words).arg("--data").arg(folder).env_remove("CHAT_JSON");
    // The runtime goes on with whatever posts meanwhile.
    tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap()
}

async fn backup(folder: &Path, dest: &Path) -> Output {
    job(&["backup", "--json", dest.to_str().unwrap()], folder).await
}

fn json_of(output: &Output) -> Value {
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

async fn exported(folder: &Path) -> Vec<String> {
    let output = job(&["export"], folder).await;
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// Posts numbers, some of them ahead of their answers, and tells how many are acknowledged.
async fn post_on(mut peer: Peer, told: watch::Sender<Counter>, enough: Arc<AtomicBool>) {
    while !enough.load(Ordering::Relaxed) {
        for _ in 0..8 {
            let text = peer.next_counter().to_string();
            peer.post(&text).await;
        }
        for _ in 0..8 {
            let answer = peer.next_answer().await;
            let ServerFrame::Accepted { counter, .. } = answer else { panic!("{answer:?}") };
            told.send_replace(counter);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backup_under_load_holds_all_that_was_acknowledged_before_it_and_the_same_state() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let dest = other.path().join("copy");
    let (program, address) = serve(server(), folder.path());
    let (told, mut acknowledged) = watch::channel(Counter::ZERO);
    let enough = Arc::new(AtomicBool::new(false));
    let ana = Peer::join(&address, "ana").await;
    let posting = tokio::spawn(post_on(ana, told, Arc::clone(&enough)));
    let wanted = Counter::new(2_000).unwrap();
    let before = *acknowledged.wait_for(|counter| *counter >= wanted).await.unwrap();
    let done = json_of(&backup(folder.path(), &dest).await);
    // The server goes on, and is killed in the middle of it.
    acknowledged.changed().await.unwrap();
    enough.store(true, Ordering::Relaxed);
    posting.await.unwrap();
    drop(program);

    let checked = json_of(&job(&["check", "--json"], &dest).await);
    assert_eq!(checked["faults"], 0, "{checked}");
    for field in ["entries", "state_hash"] {
        assert_eq!(checked[field], done[field], "{checked} {done}");
    }
    // The journal that it was taken from has the same state after the same entry: that is what its
    // lines give up to there.
    let (whole, mut copy) = (exported(folder.path()).await, exported(&dest).await);
    let entries = usize::try_from(done["entries"].as_u64().unwrap()).unwrap();
    assert!(whole.len() >= copy.len());
    let end = copy.pop().unwrap();
    assert!(end.contains(r#""type":"end""#), "{end}");
    assert_eq!(copy, whole[..=entries], "the beginning and so many entries");

    let kept = {
        let (_program, address) = serve(server(), &dest);
        let mut ana = Peer::connect(&address).await;
        let kept = ana.log_in("ana").await.unwrap().last_counter;
        assert!(kept >= before, "{kept} of {before}");
        let mut beto = Peer::join_from_the_first(&address, "beto").await;
        let kept = u32::try_from(kept.get()).unwrap();
        assert_eq!(beto.posts(usize::try_from(kept).unwrap()).await, numbers(1..kept + 1));
        kept
    };
    println!("{kept} posts are in the backup, {before} were acknowledged before it");
}

#[tokio::test]
async fn backup_refuses_a_place_that_is_not_empty_and_leaves_it_as_it_is() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (running, address) = start(folder.path()).await;
    let mut ana = Peer::join(&address, "ana").await;
    post_all(&mut ana, &numbers(0..10)).await;
    let empty = other.path().join("empty");
    fs::create_dir(&empty).unwrap();
    json_of(&backup(folder.path(), &empty).await);
    let copied = fs::read(empty.join("journal.db")).unwrap();
    let refused = backup(folder.path(), &empty).await;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(1) && said.contains("not empty"), "{said}");
    assert_eq!(fs::read(empty.join("journal.db")).unwrap(), copied);
    running.stop().await.unwrap();

    let nothing = other.path().join("nothing");
    fs::create_dir(&nothing).unwrap();
    let refused = backup(&nothing, &other.path().join("never")).await;
    assert!(String::from_utf8_lossy(&refused.stderr).contains("there is no chat"), "{refused:?}");
    assert!(!other.path().join("never").exists());
}

#[tokio::test]
async fn e5_backup_of_a_folder_that_is_damaged_or_lost_its_end_is_refused() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (running, address) = start(folder.path()).await;
    let mut ana = Peer::join(&address, "ana").await;
    post_all(&mut ana, &numbers(100..200)).await;
    running.stop().await.unwrap();
    let short = fs::read(folder.path().join("journal.db")).unwrap();
    let (running, address) = start(folder.path()).await;
    let mut ana = Peer::join(&address, "ana").await;
    post_all(&mut ana, &numbers(200..300)).await;
    running.stop().await.unwrap();
    let (path, dest) = (folder.path().join("journal.db"), other.path().join("copy"));
    let refused = || {
        let refused = chat_server::backup(folder.path(), &dest, &mut |_| {}).unwrap_err();
        assert!(!dest.exists(), "nothing is left of it");
        refused
    };
    let whole = fs::read(&path).unwrap();

    // Wherever it is: pages may also hold what is no row any more.
    let places = (0..whole.len()).filter(|place| whole[*place..].starts_with(b"\x03117"));
    let mut flipped = whole.clone();
    places.for_each(|place| flipped[place + 1] ^= 1);
    fs::write(&path, flipped).unwrap();
    let damaged = refused();
    assert!(matches!(damaged, BackupError::Damaged { .. }), "{damaged}");
    assert!(damaged.to_string().contains("table entry, row "), "{damaged}");

    fs::write(&path, short).unwrap();
    let lost = refused();
    assert!(matches!(lost, BackupError::Store(StoreError::Lost { .. })), "{lost}");

    fs::write(&path, whole).unwrap();
    assert!(chat_server::backup(folder.path(), &dest, &mut |_| {}).is_ok());
}

#[tokio::test]
async fn e6_backup_that_was_cut_short_is_never_begun_anew() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (running, address) = start(folder.path()).await;
    let mut ana = Peer::join(&address, "ana").await;
    post_all(&mut ana, &numbers(0..10)).await;
    let dest = other.path().join("copy");
    chat_server::backup(folder.path(), &dest, &mut |_| {}).unwrap();
    running.stop().await.unwrap();
    // As it is until the last step.
    fs::rename(dest.join("journal.db"), dest.join("backup.db")).unwrap();
    let refused = Server::start(config(&dest)).await.unwrap_err();
    assert!(matches!(refused, StartError::Store(StoreError::Gone { .. })), "{refused}");
    assert!(!dest.join("journal.db").exists());
}
