//! The power is cut while a server writes.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use chat_server::{Server, StartError};
use chatcore::id::Counter;
use chatcore::wire::ServerFrame;

use crate::disk::{self, Disk, Event};
use crate::killed::{options, serve};
use crate::peer::Peer;
use crate::private_folder;
use crate::program::Program;
use crate::store::config;

/// How often the power is cut.
pub(crate) const CUTS: usize = 80;

/// The server under a tracer that writes down every byte, and does this to its calls; `None` where there
/// is no tracer.
pub(crate) fn traced(trace: &Path, durability: &str, injected: &[&str]) -> Option<Command> {
    let works = Command::new("strace").args(["-o", "/dev/null", "true"]).output();
    if !works.is_ok_and(|output| output.status.success()) {
        crate::not_tried("this machine has no strace that may trace");
        return None;
    }
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-y", "-xx", "-s", "1000000", "-o"]).arg(trace);
    command.args(["-e", &format!("trace={}", disk::CALLS)]);
    command.args(injected);
    command.arg(env!("CARGO_BIN_EXE_chat-server")).env("CHAT_DURABILITY", durability);
    Some(command)
}

/// Stops a server in order that is traced: the tracer keeps signals to itself.
fn stop(program: Program) -> ExitStatus {
    rustix::process::kill_process(program.children()[0], rustix::process::Signal::TERM).unwrap();
    program.wait().0
}

/// What servers did on a new folder: a first one that is stopped in order, and one that comes after
/// it and is killed, each with so many commits, the last ones of more posts at once. The second makes
/// so many that the log is moved into the database in the middle of it.
async fn story(durability: &str) -> Option<Vec<Event>> {
    let (folder, traces) = (private_folder(), private_folder());
    let data = folder.path().join("data");
    let mut events = Vec::new();
    for (run, commits) in [(0, 60), (1, 560)] {
        let trace = traces.path().join(run.to_string());
        let (program, address) = serve(traced(&trace, durability, &[])?, &data);
        let mut ana = Peer::join(&address, "ana").await;
        for _ in 0..commits {
            post(&mut ana, 1).await;
        }
        for _ in 0..4 {
            post(&mut ana, 30).await;
        }
        if run == 0 {
            assert!(tokio::task::spawn_blocking(|| stop(program)).await.unwrap().success());
        } else {
            drop(program);
        }
        let text = std::fs::read_to_string(&trace).unwrap();
        events.extend(disk::read_trace(&text, &data));
    }
    Some(events)
}

/// What servers did on a new folder: a first one to whose sync of a post this happens, and one that comes
/// after it, shows that post to somebody, and is killed. And the number of the post.
async fn story_of_a_post_that_was_not_synced(
    happens: &str,
    durability: &str,
) -> Option<(Vec<Event>, Counter)> {
    let (folder, traces) = (private_folder(), private_folder());
    let data = folder.path().join("data");
    let read = |trace: &Path| disk::read_trace(&std::fs::read_to_string(trace).unwrap(), &data);
    let (first, second) = (traces.path().join("first"), traces.path().join("second"));
    let inject = format!("inject=fdatasync:{happens}:when=30");
    let injected = ["-e", &inject];
    // Calls are counted for each thread, and only the writer of the store makes so many.
    let (program, address) = serve(traced(&first, "commit", &injected)?, &data);
    let mut ana = Peer::join(&address, "ana").await;
    let mut last = ana.next_counter();
    while ana.post_and_wait(&last.to_string()).await.is_some() {
        last = ana.next_counter();
    }
    drop(program);
    let (program, address) = serve(traced(&second, durability, &[])?, &data);
    // She is in the room still, so that nothing new has to be kept.
    let mut ana = Peer::join_from_the_first(&address, "ana").await;
    let posts = ana.posts(usize::try_from(last.get()).unwrap()).await;
    assert_eq!(posts.last(), Some(&last.to_string()));
    drop(program);
    Some(([read(&first), read(&second)].concat(), last))
}

/// Posts so many numbers at once, and waits for all to be acknowledged.
async fn post(peer: &mut Peer, count: usize) {
    let mut last = peer.next_counter();
    for _ in 0..count {
        let text = peer.next_counter().to_string();
        last = peer.post(&text).await;
    }
    let answer = peer.answer_to(last).await;
    assert!(matches!(answer, ServerFrame::Accepted { .. }), "{answer:?}");
}

/// How often something came back after a power cut, with what was acknowledged and no more, and how
/// often something acknowledged was gone, or the start was refused.
#[derive(Debug, Default)]
struct Cuts {
    without_the_rest: u32,
    lossy: u32,
}

async fn cut_again_and_again(events: &[Event]) -> Cuts {
    let seed = 4;
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut instants: Vec<usize> = (0..CUTS).map(|_| random.usize(0..=events.len())).collect();
    instants.sort_unstable();
    let (mut disk, mut done, mut cuts) = (Disk::default(), 0, Cuts::default());
    for instant in instants {
        events[done..instant].iter().for_each(|event| disk.follow(event));
        done = instant;
        let chance = [0.0, 0.1, 0.5, 0.9, 1.0][random.usize(0..5)];
        let folder = private_folder();
        disk.after_power_cut(folder.path(), chance, &mut random);
        let (kept, acknowledged) = (come_back(folder.path()).await, disk.acknowledged);
        if kept.as_ref().is_ok_and(|kept| *kept >= acknowledged) {
            cuts.without_the_rest += u32::from(kept.unwrap() == acknowledged);
        } else {
            println!("event {instant}: {acknowledged} were acknowledged, {kept:?} came back");
            cuts.lossy += 1;
        }
    }
    assert!(disk.acknowledged > Counter::new(400).unwrap(), "{}", disk.acknowledged);
    cuts
}

#[tokio::test]
async fn e4_power_cut_at_any_instant_costs_nothing_that_was_acknowledged() {
    let Some(events) = story("commit").await else { return };
    let cuts = cut_again_and_again(&events).await;
    assert!(cuts.lossy == 0 && cuts.without_the_rest > 0, "{cuts:?}");
}

#[tokio::test]
async fn e4_power_cut_costs_what_was_acknowledged_before_the_disk_had_it() {
    // So that it is seen that such a disk forgets.
    let Some(events) = story("relaxed").await else { return };
    let cuts = cut_again_and_again(&events).await;
    assert!(cuts.lossy > 0, "{cuts:?}");
}

#[tokio::test]
async fn e4_post_that_was_shown_after_a_restart_survives_a_power_cut_though_it_was_not_synced_before()
 {
    for (happens, durability) in
        [("signal=KILL", "commit"), ("signal=KILL", "relaxed"), ("error=EIO", "commit")]
    {
        let story = story_of_a_post_that_was_not_synced(happens, durability);
        let Some((events, last)) = story.await else {
            return;
        };
        let (mut disk, mut random) = (Disk::default(), fastrand::Rng::with_seed(4));
        for event in &events {
            disk.follow(event);
            if disk.acknowledged < last || !matches!(event, Event::Acknowledged(_)) {
                continue;
            }
            for chance in [0.0, 0.5] {
                let folder = private_folder();
                disk.after_power_cut(folder.path(), chance, &mut random);
                assert_eq!(come_back(folder.path()).await.unwrap(), last, "{happens}");
            }
        }
        assert_eq!(disk.acknowledged, last);
    }
}

#[tokio::test]
async fn e4_checkpoint_is_never_ahead_of_a_journal_whose_disk_is_not_waited_for() {
    let (folder, traces) = (private_folder(), private_folder());
    let (data, trace) = (folder.path().join("data"), traces.path().join("trace"));
    let Some(command) = traced(&trace, "relaxed", &[]) else { return };
    let options = [&options(&data)[..], &["--keep", "5"]].concat();
    let mut program = Program::start_by(command, &options);
    let mut ana = Peer::join(&program.address(), "ana").await;
    let is_checkpoint = |name: &str| name.starts_with("checkpoint-");
    let made = || {
        let files = std::fs::read_dir(&data).unwrap().map(|file| file.unwrap().file_name());
        files.filter(|name| is_checkpoint(name.to_str().unwrap())).count()
    };
    while made() < 2 {
        post(&mut ana, 1).await;
    }
    drop(program);
    let events = disk::read_trace(&std::fs::read_to_string(&trace).unwrap(), &data);
    let (mut disk, mut random) = (Disk::default(), fastrand::Rng::with_seed(4));
    let (mut seen, mut after) = (0, usize::MAX);
    for event in &events {
        disk.follow(event);
        if matches!(event, Event::Named { to, .. } if is_checkpoint(to)) {
            (seen, after) = (seen + 1, 0);
        }
        if after < 8 {
            after += 1;
            let cut = private_folder();
            disk.after_power_cut(cut.path(), 0.0, &mut random);
            Server::start(config(cut.path())).await.unwrap().stop().await.unwrap();
        }
    }
    assert!(seen >= 2, "{seen}");
}

#[test]
fn e4_folder_that_was_made_survives_a_power_cut_and_so_do_those_above_it() {
    let (here, traces) = (private_folder(), private_folder());
    let above = here.path().canonicalize().unwrap();
    let (data, copy) = (above.join("new/data"), above.join("backups/copy"));
    let trace = traces.path().join("trace");
    let Some(mut backup) = traced(&trace, "commit", &[]) else { return };
    let synced = || -> Vec<PathBuf> {
        let text = std::fs::read_to_string(&trace).unwrap();
        let calls = text.lines().filter(|line| line.contains("fsync("));
        let paths = calls.filter_map(|line| disk::annotation(line.split_once("fsync(")?.1));
        paths.map(PathBuf::from).collect()
    };
    let (program, _) = serve(traced(&trace, "commit", &[]).unwrap(), &data);
    assert!(stop(program).success());
    let found = synced();
    assert!(found.contains(&above) && found.contains(&above.join("new")), "{found:?}");
    let done = backup.args(["backup", "--data"]).arg(&data).arg(&copy).output().unwrap();
    assert!(done.status.success(), "{done:?}");
    let found = synced();
    assert!(found.contains(&above) && found.contains(&above.join("backups")), "{found:?}");
}

/// Starts a server on what is left; the last post that it has, after all of them were read.
async fn come_back(folder: &Path) -> Result<Counter, StartError> {
    let server = Server::start(config(folder)).await?;
    let address = server.addresses()[0].clone();
    let mut ana = Peer::connect(&address).await;
    let kept = ana.log_in("ana").await.unwrap().last_counter;
    let mut beto = Peer::join_from_the_first(&address, "beto").await;
    let posts = beto.posts(usize::try_from(kept.get()).unwrap()).await;
    let wanted: Vec<String> = (1..=kept.get()).map(|number| number.to_string()).collect();
    assert_eq!(posts, wanted);
    // A server that stops waits a while for who does not close.
    drop((ana, beto));
    server.stop().await.unwrap();
    let checked = chat_server::check(folder).unwrap();
    assert!(checked.findings.is_empty(), "{:?}", checked.findings);
    Ok(kept)
}
