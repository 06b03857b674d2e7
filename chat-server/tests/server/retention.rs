//! What `--keep` has forgotten: told exactly, gone from the disk, and nothing else is.

use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

use chat_server::{Bound, Server, ServerConfig, ServerKey};
use chatcore::address::Address;
use chatcore::id::Seq;
use chatcore::limits::Limits;
use chatcore::wire::{Answer, Record, RecordBody, Refusal, ServerFrame};
use rustix::process::Signal;

use crate::injected::{SYNCS, with};
use crate::killed::{options, serve, server};
use crate::peer::{Peer, history};
use crate::program::Program;

/// What somebody sees who joins and wants all there is: the gap, and the records after it.
struct Seen {
    gap: Option<(u64, u64)>,
    records: Vec<Record>,
}

impl Seen {
    /// Joins under a name that is not in the room, and reads up to that. What is forgotten while it
    /// reads is told as a gap where it has got to, and what it read before is forgotten, too.
    async fn by(address: &Address, name: &str) -> Self {
        let mut peer = Peer::join_from_the_first(address, name).await;
        let (mut gap, mut records, mut next) = (None, Vec::new(), 1);
        loop {
            match peer.next().await.expect("a record") {
                ServerFrame::Gap { from, to, .. } => {
                    assert_eq!(from.get(), next, "a gap begins where the records before it end");
                    gap = Some((1, to.get()));
                    records.clear();
                    next = to.get() + 1;
                }
                ServerFrame::Record(record) => {
                    assert_eq!(record.seq.get(), next, "no hole");
                    next += 1;
                    let is_own = matches!(&record.body, RecordBody::Joined { user } if user.as_str() == name);
                    records.push(record);
                    if is_own {
                        return Self { gap, records };
                    }
                }
                _ => {}
            }
        }
    }

    /// The gap begins with the first record and ends with the one before those that are left.
    fn assert_exact(&self) {
        let first = self.records[0].seq.get();
        assert_eq!(self.gap, (first > 1).then(|| (1, first - 1)));
    }

    fn texts(&self) -> Vec<&str> {
        fn text(record: &Record) -> Option<&str> {
            match &record.body {
                RecordBody::Post { text, .. } => Some(text.as_str()),
                RecordBody::Joined { .. } | RecordBody::Left { .. } => None,
            }
        }
        self.records.iter().filter_map(text).collect()
    }
}

/// A page of history, as soon as the server lets one ask for it.
async fn page(peer: &mut Peer, before: Option<Seq>, limit: u16) -> Vec<Record> {
    loop {
        match peer.ask(history("lobby", before, limit)).await {
            Answer::History { records, .. } => return records.iter().cloned().collect(),
            Answer::Refused(Refusal::Rate { retry_ms }) => {
                tokio::time::sleep(Duration::from_millis(retry_ms.as_millis())).await;
            }
            other => panic!("{other:?}"),
        }
    }
}

/// The oldest record that anybody can still read; 0 when there is none.
async fn oldest(peer: &mut Peer) -> u64 {
    let (mut before, mut oldest) = (None, 0);
    while let Some(first) = page(peer, before, 100).await.first() {
        oldest = first.seq.get();
        before = Some(first.seq);
    }
    oldest
}

/// Waits until everything before a record is forgotten.
async fn until_forgotten(peer: &mut Peer, seq: u64) {
    let forgotten = async { while oldest(peer).await < seq {} };
    tokio::time::timeout(crate::peer::PATIENCE, forgotten).await.expect("it must be forgotten");
}

async fn post_all(peer: &mut Peer, texts: &[String]) {
    for text in texts {
        let answer = peer.post_and_wait(text).await;
        assert!(matches!(answer, Some(ServerFrame::Accepted { .. })), "{answer:?}");
    }
}

/// Texts that nothing else in a folder has in it.
fn secrets(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("secret {number:05}")).collect()
}

/// How many of these texts are in any file of a folder.
fn count_in(folder: &Path, texts: &[String]) -> usize {
    let wanted: HashSet<&[u8]> = texts.iter().map(String::as_bytes).collect();
    let mut found = HashSet::new();
    for file in std::fs::read_dir(folder).unwrap() {
        // One that was just renamed is found under its new name.
        let Ok(bytes) = std::fs::read(file.unwrap().path()) else { continue };
        let there = bytes.windows(texts[0].len()).filter(|window| wanted.contains(window));
        found.extend(there.map(<[u8]>::to_vec));
    }
    found.len()
}

/// How many rows retention blanked.
fn blank_rows(folder: &Path) -> i64 {
    let connection = rusqlite::Connection::open(folder.join("journal.db")).unwrap();
    let count = "SELECT count(*) FROM entry WHERE previous < 0";
    connection.query_row(count, [], |row| row.get(0)).unwrap()
}

/// Waits until these texts are in no file. Nothing is said meanwhile.
async fn until_gone(peer: &mut Peer, folder: &Path, texts: &[String]) {
    let gone = async {
        while count_in(folder, texts) > 0 {
            page(peer, None, 1).await;
        }
    };
    tokio::time::timeout(crate::peer::PATIENCE, gone).await.expect("it must be gone");
}

fn keeping<'a>(folder: &'a Path, bound: &'a str) -> Vec<&'a str> {
    [&options(folder)[..], &["--keep", bound]].concat()
}

fn end(program: Program) {
    program.signal(Signal::TERM);
    let (status, stderr) = program.wait();
    assert_eq!(status.code(), Some(0), "{stderr}");
    assert_eq!(stderr.matches("retention is held up").count(), 0, "{stderr}");
}

#[tokio::test]
async fn gap_is_told_of_exactly_what_was_deleted_and_its_text_is_in_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let texts = secrets(100);
    let (program, address) = serve(server(), folder.path());
    let mut ana = Peer::join(&address, "ana").await;
    post_all(&mut ana, &texts).await;
    let whole = Seen::by(&address, "beto").await;
    assert_eq!((whole.gap, whole.texts().len()), (None, 100), "without a bound all is kept");
    end(program);

    let mut program = Program::start_by(server(), &keeping(folder.path(), "20"));
    let address = program.address();
    let mut ana = Peer::join(&address, "ana").await;
    // Her join, the posts and the join of beto: 102 records.
    until_forgotten(&mut ana, 83).await;
    let left = Seen::by(&address, "carla").await;
    left.assert_exact();
    assert!(left.records.len() <= 21, "{}", left.records.len());
    until_gone(&mut ana, folder.path(), &texts[..80]).await;
    end(program);
    let (status, said) = crate::store::check(folder.path());
    assert_eq!(status, Some(0), "{said}");
    assert_eq!(count_in(folder.path(), &texts[..80]), 0);

    let (_program, address) = serve(server(), folder.path());
    let kept = Seen::by(&address, "dora").await;
    kept.assert_exact();
    assert!(kept.gap.is_some(), "what is gone stays gone, whatever is kept from now on");
}

#[tokio::test]
async fn e6_backup_of_a_journal_with_holes_needs_one_checkpoint_that_is_whole_and_names_what_lacks()
{
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let texts = secrets(100);
    let mut program = Program::start_by(server(), &keeping(folder.path(), "20"));
    let mut ana = Peer::join(&program.address(), "ana").await;
    post_all(&mut ana, &texts).await;
    until_gone(&mut ana, folder.path(), &texts[..80]).await;
    end(program);
    let files = std::fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().path());
    let mut checkpoints: Vec<_> =
        files.filter(|path| path.to_str().unwrap().contains("/checkpoint-")).collect();
    checkpoints.sort();
    let (one, others) = checkpoints.split_first().unwrap();
    assert!(!others.is_empty(), "two are kept: {checkpoints:?}");
    let flip = |path: &Path| {
        let mut bytes = std::fs::read(path).unwrap();
        bytes[100] ^= 1;
        std::fs::write(path, bytes).unwrap();
    };
    others.iter().for_each(|other| flip(other));
    let copy = other.path().join("copy");
    chat_server::backup(folder.path(), &copy, &mut |_| {}).unwrap();
    let (status, said) = crate::store::check(&copy);
    assert_eq!(status, Some(0), "{said}");
    let (program, address) = serve(server(), &copy);
    Seen::by(&address, "beto").await.assert_exact();
    end(program);

    flip(one);
    let refused = chat_server::backup(folder.path(), &other.path().join("none"), &mut |_| {});
    let said = refused.unwrap_err().to_string();
    let damaged = format!("{} is damaged", folder.path().display());
    assert!(
        said.contains(&damaged) && said.contains("no checkpoint after it can be used"),
        "{said}"
    );
}

#[tokio::test]
async fn e3_server_killed_after_it_forgot_deletes_at_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let texts = secrets(100);
    let mut program = Program::start_by(server(), &keeping(folder.path(), "20"));
    let mut ana = Peer::join(&program.address(), "ana").await;
    post_all(&mut ana, &texts).await;
    until_forgotten(&mut ana, 82).await;
    drop(program);
    // It is finished where everything is kept, too.
    let (program, address) = serve(server(), folder.path());
    let mut ana = Peer::join(&address, "ana").await;
    until_gone(&mut ana, folder.path(), &texts[..80]).await;
    end(program);
    let (status, said) = crate::store::check(folder.path());
    assert_eq!(status, Some(0), "{said}");
}

#[tokio::test]
async fn e7_server_killed_at_any_sync_while_it_deletes_loses_nothing_that_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    // The files are made while nobody is killed.
    end(serve(server(), folder.path()).0);
    let mut kept: usize = 0;
    let mut blank = 0;
    for place in [400, 3, 300, 5, 500, 8, 350, 450, 12, 550] {
        let Some(command) = with(SYNCS, &format!("signal=KILL:when={place}")) else { return };
        let mut program = Program::start_by(command, &keeping(folder.path(), "20"));
        if let Some(address) = program.address_if_any()
            && let Some(mut ana) = Peer::try_join(&address, "ana").await
        {
            // Until it is killed; what it does meanwhile is another matter each time.
            for number in kept + 1.. {
                match ana.post_and_wait(&format!("secret {number:05}")).await {
                    Some(ServerFrame::Accepted { .. }) => kept = number,
                    _ => break,
                }
            }
        }
        drop(program);
        let (status, said) = crate::store::check(folder.path());
        assert_eq!(status, Some(0), "killed at {place}: {said}");
        let before = std::mem::replace(&mut blank, blank_rows(folder.path()));
        println!("{kept} are kept, {before} to {blank} rows are blank");
    }
    assert!(kept > 1_000, "{kept}");
    let mut program = Program::start_by(server(), &keeping(folder.path(), "20"));
    let address = program.address();
    let seen = Seen::by(&address, "beto").await;
    seen.assert_exact();
    assert!(seen.records.len() >= 18);
    // The last one that was not acknowledged may be there.
    let newest = seen.texts().last().unwrap().trim_start_matches("secret ").parse().unwrap();
    assert!((kept..=kept + 1).contains(&newest), "{newest} {kept}");
    let mut ana = Peer::join(&address, "ana").await;
    until_gone(&mut ana, folder.path(), &secrets(kept - 20)).await;
}

#[tokio::test]
async fn history_has_no_seam_from_memory_over_the_store_to_the_edge_of_what_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let key = ServerKey::in_folder(folder.path()).unwrap();
    let (path, durability) = (folder.path().to_owned(), chat_server::Durability::Commit);
    let server = Server::start(ServerConfig {
        listen: vec!["chat://127.0.0.1:0".parse().unwrap()],
        storage: chat_server::Storage::Folder { path, durability },
        threshold: chatcore::id::Threshold::new(1).unwrap(),
        // Some of what is kept is in memory.
        limits: Limits { window_bytes: 20_000, ..Limits::default() },
        keep: [Bound::Records(400)].into_iter().collect(),
        ..ServerConfig::new(key)
    })
    .await
    .unwrap();
    let address = server.addresses()[0].clone();
    let mut ana = Peer::join(&address, "ana").await;
    post_all(&mut ana, &secrets(1_000)).await;
    until_forgotten(&mut ana, 602).await;
    let forward = Seen::by(&address, "beto").await;
    forward.assert_exact();
    let (mut backward, mut before) = (Vec::new(), None);
    loop {
        let records = page(&mut ana, before, 37).await;
        let Some(first) = records.first() else { break };
        before = Some(first.seq);
        backward.extend(records.into_iter().rev());
    }
    backward.reverse();
    // One more may be forgotten for the join of beto.
    let skipped = usize::try_from(backward[0].seq.since(forward.records[0].seq)).unwrap();
    assert!(skipped <= 8, "{skipped}");
    assert_eq!(backward, forward.records[skipped..]);
    server.stop().await.unwrap();
}

#[tokio::test]
async fn server_that_keeps_nothing_on_a_disk_forgets_too() {
    let options = ["--json", "--ephemeral", "--listen", "chat://127.0.0.1:0", "-n", "1"];
    let mut program = Program::start_by(server(), &[&options[..], &["--keep", "20"]].concat());
    let address = program.address();
    let mut ana = Peer::join(&address, "ana").await;
    post_all(&mut ana, &secrets(100)).await;
    until_forgotten(&mut ana, 82).await;
    Seen::by(&address, "beto").await.assert_exact();
}

#[tokio::test]
async fn message_is_forgotten_when_it_is_too_old_though_nobody_says_anything() {
    for ephemeral in [true, false] {
        let mut options = vec!["--json", "--listen", "chat://127.0.0.1:0", "-n", "1"];
        options.extend(["--keep", "1s", "--keep", "1GiB"]);
        options.extend(ephemeral.then_some("--ephemeral"));
        let mut program = Program::start_by(server(), &options);
        let mut ana = Peer::join(&program.address(), "ana").await;
        post_all(&mut ana, &["soon old".to_owned()]).await;
        let forgotten = async { while oldest(&mut ana).await > 0 {} };
        tokio::time::timeout(crate::peer::PATIENCE, forgotten).await.expect("it must be forgotten");
    }
}

#[test]
fn bound_that_is_none_is_a_usage_error_that_says_what_to_write() {
    for (bound, part) in [
        ("often", "an age such as 30d"),
        ("10MB", "a size such as 512KiB, 64MiB or 2GiB"),
        ("0d", "one second and one message at least"),
        ("1KiB", "64KiB at least"),
    ] {
        let program = Program::start_by(server(), &["--ephemeral", "--keep", bound]);
        let (status, stderr) = program.wait();
        assert_eq!(status.code(), Some(2), "{bound}: {stderr}");
        assert!(stderr.contains(part) && stderr.contains("--keep"), "{bound}: {stderr}");
    }
}
