//! The program on a real folder: killed, and out of space.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;

use chatcore::address::Address;
use chatcore::id::Counter;
use chatcore::wire::{Answer, Refusal, ServerFrame};

use crate::peer::{Peer, join};
use crate::private_folder;
use crate::program::Program;

/// A server on a folder, whose gate one user opens.
pub(crate) fn serve(command: Command, folder: &Path) -> (Program, Address) {
    let mut program = Program::start_by(command, &options(folder));
    let address = program.address();
    (program, address)
}

pub(crate) fn options(folder: &Path) -> [&str; 7] {
    let folder = folder.to_str().unwrap();
    ["--json", "-n", "1", "--listen", "chat://127.0.0.1:0", "--data", folder]
}

pub(crate) fn server() -> Command {
    Command::new(env!("CARGO_BIN_EXE_chat-server"))
}

/// Sends posts, each with its number as text, until `wanted` of them are acknowledged; the last that
/// is. There are always some that wait for their answer.
async fn post_until(peer: &mut Peer, wanted: Counter) -> Counter {
    loop {
        for _ in 0..5 {
            let text = peer.next_counter().to_string();
            peer.post(&text).await;
        }
        let answer = peer.next_answer().await;
        let ServerFrame::Accepted { counter, .. } = answer else { panic!("{answer:?}") };
        if counter >= wanted {
            return counter;
        }
    }
}

#[tokio::test]
async fn e3_e7_post_that_was_acknowledged_survives_kill_9_at_any_instant() {
    kill_again_and_again(20, "commit").await;
}

#[tokio::test]
async fn e3_post_that_was_acknowledged_survives_kill_9_when_the_disk_is_not_waited_for() {
    kill_again_and_again(5, "relaxed").await;
}

async fn kill_again_and_again(rounds: u32, durability: &str) {
    let seed = 20;
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let folder = private_folder();
    let mut acknowledged = Counter::ZERO;
    for round in 0..rounds {
        let mut command = server();
        command.env("CHAT_DURABILITY", durability);
        let (program, address) = serve(command, folder.path());
        let mut ana = Peer::connect(&address).await;
        let welcome = ana.log_in("ana").await.unwrap();
        let kept = welcome.last_counter;
        assert!(kept >= acknowledged, "{kept} of {acknowledged} are left in round {round}");
        ana.ask(join("lobby")).await;
        // Of the last posts it is not known whether they were kept; each is there once, or not.
        let mut reader = Peer::join_from_the_first(&address, "beto").await;
        let posts = reader.posts(usize::try_from(kept.get()).unwrap()).await;
        let wanted: Vec<String> = (1..=kept.get()).map(|number| number.to_string()).collect();
        assert_eq!(posts, wanted, "round {round}");
        acknowledged = post_until(&mut ana, kept.saturating_add(random.u64(1..200))).await;
        drop(program);
    }
    let check = crate::store::check(folder.path());
    assert_eq!(check.0, Some(0), "{}", check.1);
}

#[tokio::test]
async fn j7_gate_that_somebody_saw_open_is_open_after_kill_9() {
    for _ in 0..5 {
        let folder = private_folder();
        let folder_name = folder.path().to_str().unwrap();
        let options =
            ["--json", "-n", "2", "--listen", "chat://127.0.0.1:0", "--data", folder_name];
        let mut program = Program::start_by(server(), &options);
        let address = program.address();
        let mut ana = Peer::join(&address, "ana").await;
        ana.post("held").await;
        let _beto = Peer::join(&address, "beto").await;
        assert_eq!(ana.posts(1).await, ["held"]);
        drop(program);
        let mut program = Program::start_by(server(), &options);
        let mut carla = Peer::join_from_the_first(&program.address(), "carla").await;
        assert_eq!(carla.posts(1).await, ["held"], "one user sees what was open");
    }
}

#[tokio::test]
async fn e7_database_stays_locked_so_that_no_other_program_takes_the_log_for_left_behind() {
    let folder = private_folder();
    let (program, address) = serve(server(), folder.path());
    let mut ana = Peer::join(&address, "ana").await;
    let answer = ana.post_and_wait("kept").await;
    assert!(matches!(answer, Some(ServerFrame::Accepted { .. })), "{answer:?}");
    // SQLite's own program removes the log of a database that nobody has locked.
    let inode = std::fs::metadata(folder.path().join("journal.db")).unwrap().ino();
    let locks = std::fs::read_to_string("/proc/locks").unwrap();
    let (owner, file) = (format!(" {} ", program.id()), format!(":{inode} "));
    let is_locked =
        |line: &str| line.contains(" POSIX ") && line.contains(&owner) && line.contains(&file);
    assert!(locks.lines().any(is_locked), "{locks}");
}

/// A server whose folder is a small disk of its own, and a way to that disk from outside.
fn on_small_disk(folder: &Path, kilobytes: u32) -> Command {
    let mut command = Command::new("unshare");
    let script = format!(
        "mount -t tmpfs -o size={kilobytes}k tmpfs {} && exec \"$0\" \"$@\"",
        folder.display()
    );
    command.args(["-rm", "sh", "-c", &script]).arg(env!("CARGO_BIN_EXE_chat-server"));
    command
}

/// Whether this machine lets a test have a disk of its own.
fn may_mount(folder: &Path) -> bool {
    let script = format!("mount -t tmpfs -o size=64k tmpfs {}", folder.display());
    Command::new("unshare")
        .args(["-rm", "sh", "-c", &script])
        .output()
        .is_ok_and(|output| output.status.success())
}

#[tokio::test]
async fn e1_full_disk_takes_nothing_shows_nothing_and_goes_on_when_there_is_space() {
    let folder = private_folder();
    if !may_mount(folder.path()) {
        crate::not_tried("this machine allows no mount");
        return;
    }
    let (program, address) = serve(on_small_disk(folder.path(), 2_048), folder.path());
    // The disk as the server sees it.
    let disk = format!("/proc/{}/root{}", program.id(), folder.path().display());
    let mut ana = Peer::join(&address, "ana").await;
    let mut beto = Peer::join(&address, "beto").await;
    let counter = ana.post("before").await;
    ana.answer_to(counter).await;
    assert_eq!(beto.posts(1).await, ["before"]);
    let filler = Path::new(&disk).join("filler");
    let _ = std::fs::write(&filler, vec![0; 4 << 20]);

    // Some that were under way when the disk was found full wait; then all is refused.
    let (mut waiting, mut kept) = (Vec::new(), 0);
    let refused = loop {
        let counter = ana.post(&"x".repeat(2_000)).await;
        ana.ask(chatcore::wire::Question::Rooms).await;
        match ana.answer_if_any(counter) {
            None => waiting.push(counter),
            Some(ServerFrame::Refused { refusal, .. }) => break refusal,
            Some(answer) => {
                assert!(matches!(answer, ServerFrame::Accepted { .. }), "{answer:?}");
                kept += 1;
            }
        }
    };
    assert_eq!(refused, Refusal::Store);
    ana.take_back();
    // Reading goes on.
    let history = beto.ask(crate::peer::history("lobby", None, 10)).await;
    assert!(matches!(history, Answer::History { .. }), "{history:?}");

    std::fs::remove_file(&filler).unwrap();
    let last = waiting.last().expect("one post found the disk full");
    let answer = ana.answer_to(*last).await;
    assert!(matches!(answer, ServerFrame::Accepted { .. }), "{answer:?}");
    // A post that is refused for now is sent again under its number.
    loop {
        let answer = ana.post_and_wait("after").await.expect("an answer");
        if matches!(answer, ServerFrame::Accepted { .. }) {
            break;
        }
        assert!(
            matches!(answer, ServerFrame::Refused { refusal: Refusal::Store, .. }),
            "{answer:?}"
        );
        ana.take_back();
    }
    let seen = beto.posts(kept + waiting.len() + 1).await;
    let (last, others) = seen.split_last().unwrap();
    assert_eq!(last, "after", "nobody saw what was refused");
    assert!(others.iter().all(|text| text.len() == 2_000));
    program.signal(rustix::process::Signal::TERM);
    let (status, stderr) = tokio::task::spawn_blocking(|| program.wait()).await.unwrap();
    assert_eq!(status.code(), Some(0), "{stderr}");
    assert_eq!(stderr.matches("the store is full").count(), 1, "{stderr}");
    assert!(stderr.contains("takes what is posted again"), "{stderr}");
}

/// A server whose folder is a copy of another one, on a disk that is full then.
fn on_full_disk(from: &Path, folder: &Path, without: &str) -> Command {
    let mut command = Command::new("unshare");
    let script = format!(
        "mount -t tmpfs -o size=1024k tmpfs {0} && cp -a {1}/. {0} && rm -f {0}/{without} && \
         {{ cat /dev/zero > {0}/filler 2> /dev/null; exec \"$0\" \"$@\"; }}",
        folder.display(),
        from.display(),
    );
    command.args(["-rm", "sh", "-c", &script]).arg(env!("CARGO_BIN_EXE_chat-server"));
    command
}

#[tokio::test]
async fn e1_server_starts_on_a_full_disk_where_it_can_and_says_that_it_is_full_where_it_cannot() {
    let (from, folder) = (private_folder(), private_folder());
    if !may_mount(folder.path()) {
        crate::not_tried("this machine allows no mount");
        return;
    }
    let (program, address) = serve(server(), from.path());
    let mut ana = Peer::join(&address, "ana").await;
    ana.post_and_wait("kept").await;
    drop(program);

    let (program, address) =
        serve(on_full_disk(from.path(), folder.path(), "nothing"), folder.path());
    let mut ana = Peer::join_from_the_first(&address, "ana").await;
    assert_eq!(ana.posts(1).await, ["kept"]);
    drop(program);

    let command = on_full_disk(from.path(), folder.path(), "journal.db-shm");
    let (status, stderr) = Program::start_by(command, &options(folder.path())).wait();
    assert!(status.code() == Some(1) && stderr.contains("is full: make room"), "{stderr}");
}

#[tokio::test]
async fn folder_whose_name_looks_like_a_uri_is_a_folder() {
    let here = private_folder();
    let name = Path::new("file:data?mode=memory");
    let mut command = server();
    command.current_dir(here.path());
    let (program, address) = serve(command, name);
    let mut ana = Peer::join(&address, "ana").await;
    ana.post_and_wait("kept").await;
    assert!(here.path().join(name).join("journal.db").is_file());
    let mut command = server();
    command.current_dir(here.path()).args(["backup", "file:copy", "--data"]).arg(name);
    let done = command.output().unwrap();
    assert!(done.status.success(), "{done:?}");
    assert!(here.path().join("file:copy/journal.db").is_file());
    drop(program);
}

/// What an import says that runs on a disk of its own, what is in the folder then, and what a check says.
fn import_on_small_disk(from: &Path, lines: &Path, kilobytes: usize) -> (bool, String) {
    let folder = private_folder();
    let script = format!(
        "mount -t tmpfs -o size={kilobytes}k,mode=700 tmpfs {0} && cp -p {1}/server.key {0} && \
         \"$0\" import --data {0} < {2} 2>&1; status=$?; ls {0}; \
         \"$0\" check --data {0} 2>&1; exit $status",
        folder.path().display(),
        from.display(),
        lines.display()
    );
    let mut command = Command::new("unshare");
    command.args(["-rm", "sh", "-c", &script]).arg(env!("CARGO_BIN_EXE_chat-server"));
    let output = command.env_remove("CHAT_JSON").output().unwrap();
    (output.status.success(), String::from_utf8(output.stdout).unwrap())
}

#[tokio::test]
async fn e1_import_is_whole_however_small_the_disk_is_or_says_that_it_is_full_and_leaves_nothing() {
    let folder = private_folder();
    if !may_mount(folder.path()) {
        crate::not_tried("this machine allows no mount");
        return;
    }
    let (server, address) = crate::store::start(folder.path()).await;
    let mut ana = Peer::join(&address, "ana").await;
    let texts: Vec<String> = (0..150).map(|number| format!("{number:02000}")).collect();
    crate::store::post_all(&mut ana, &texts).await;
    server.stop().await.unwrap();
    let lines = folder.path().join("lines");
    let mut file = std::fs::File::create(&lines).unwrap();
    let entries = chat_server::export(folder.path(), &mut file, &mut |_| {}).unwrap();
    let (mut whole, mut full) = (0, 0);
    for kilobytes in (500..1_500).step_by(25) {
        let (succeeded, said) = import_on_small_disk(folder.path(), &lines, kilobytes);
        if succeeded {
            whole += 1;
            let all = format!("all is as it was written ({entries} entries");
            assert!(said.contains(&all), "{kilobytes} KiB: {said}");
        } else {
            full += 1;
            assert!(said.contains("is full"), "{kilobytes} KiB: {said}");
            assert!(said.contains("\nlock\nserver.key\n"), "{kilobytes} KiB: {said}");
        }
    }
    assert!(whole > 3 && full > 10, "{whole} were whole, and {full} times the disk was full");
}

#[test]
fn options_that_a_chat_which_is_there_overrules_are_named() {
    let folder = private_folder();
    let end = |options: &[&str]| {
        let name = folder.path().to_str().unwrap();
        let common = ["--json", "--listen", "chat://127.0.0.1:0", "--data", name];
        let mut program = Program::start_by(server(), &[&common[..], options].concat());
        program.address();
        program.signal(rustix::process::Signal::TERM);
        program.wait().1
    };
    let quiet = end(&["-n", "3", "--operator", "ana"]);
    assert!(!quiet.contains("changes nothing"), "{quiet}");
    let same = [end(&[]), end(&["-n", "3", "--operator", "ana"])];
    assert!(same.iter().all(|said| !said.contains("changes nothing")), "{same:?}");
    let other = end(&["-n", "4", "--operator", "beto"]);
    assert!(other.contains("--threshold 4 changes nothing: this chat was begun with 3"), "{other}");
    assert!(other.contains("--operator changes nothing") && other.contains("is ana; "), "{other}");
}
