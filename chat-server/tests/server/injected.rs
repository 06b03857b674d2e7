//! The program over a system whose calls fail or are slow.

use std::path::Path;
use std::process::Command;

use chatcore::id::RequestId;
use chatcore::wire::{ClientFrame, Refusal, ServerFrame};
use rustix::process::{Signal, kill_process};

use crate::killed::{options, serve, server};
use crate::peer::Peer;
use crate::program::Program;

/// Calls that make the system keep what was written.
pub(crate) const SYNCS: &str = "fsync,fdatasync";

/// The server under a tracer that does something to such calls of the system; `None` where there is
/// no tracer, or it may not trace.
pub(crate) fn with(calls: &str, injected: &str) -> Option<Command> {
    let works = Command::new("strace").args(["-o", "/dev/null", "true"]).output();
    if !works.is_ok_and(|output| output.status.success()) {
        crate::not_tried("this machine has no strace that may trace");
        return None;
    }
    let mut command = Command::new("strace");
    command
        .args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={calls}")])
        .args(["-e", &format!("inject={calls}:{injected}")])
        .arg(env!("CARGO_BIN_EXE_chat-server"));
    Some(command)
}

#[tokio::test]
async fn c12_post_that_waits_for_a_slow_disk_is_answered_before_a_server_that_stops_closes() {
    let folder = tempfile::tempdir().unwrap();
    let Some(slow) = with(SYNCS, "delay_exit=200000") else { return };
    // The files are made while syncs are fast.
    let (program, _) = serve(server(), folder.path());
    program.signal(Signal::TERM);
    program.wait();
    let (program, address) = serve(slow, folder.path());
    let mut ana = Peer::join(&address, "ana").await;
    let counter = ana.post("on its way").await;
    // A pong does not wait for the disk, and comes after the post was taken.
    let token = RequestId::new(7).unwrap();
    ana.send(&ClientFrame::Ping { token }).await;
    while ana.next().await != Some(ServerFrame::Pong { token }) {}
    // The tracer keeps signals to itself.
    let traced = program.children();
    kill_process(traced[0], Signal::TERM).unwrap();
    let answer = ana.answer_to(counter).await;
    assert!(matches!(answer, ServerFrame::Accepted { .. }), "{answer:?}");
    assert_eq!(ana.closed().await, Some(Refusal::Gone));
    tokio::task::spawn_blocking(|| program.wait()).await.unwrap();
    let (_program, address) = serve(server(), folder.path());
    let mut beto = Peer::join_from_the_first(&address, "beto").await;
    assert_eq!(beto.posts(1).await, ["on its way"]);
}

#[tokio::test]
async fn e2_server_whose_sync_fails_stops_and_says_why_and_nothing_acknowledged_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let Some(failing) = with(SYNCS, "error=EIO:when=12+") else { return };
    // The files are made while syncs succeed.
    let (program, _) = serve(server(), folder.path());
    program.signal(Signal::TERM);
    program.wait();
    let (program, address) = serve(failing, folder.path());
    let mut ana = Peer::join(&address, "ana").await;
    let mut acknowledged = 0;
    while let Some(answer) = ana.post_and_wait(&(acknowledged + 1).to_string()).await {
        assert!(matches!(answer, ServerFrame::Accepted { .. }), "{answer:?}");
        acknowledged += 1;
        assert!(acknowledged < 100, "a sync must fail");
    }
    assert!(acknowledged > 0);
    let (status, stderr) = tokio::task::spawn_blocking(|| program.wait()).await.unwrap();
    assert_eq!(status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("nothing more can be kept"), "{stderr}");

    let (_program, address) = serve(server(), folder.path());
    let mut beto = Peer::join_from_the_first(&address, "beto").await;
    let wanted: Vec<String> = (1..=acknowledged).map(|number: u32| number.to_string()).collect();
    assert_eq!(beto.posts(wanted.len()).await, wanted);
}

/// A server whose syncs are slow and fail from the same one on in every new folder; `None` as for [`with`].
async fn slowly_failing(folder: &Path) -> Option<(Program, Peer)> {
    let failing = with(SYNCS, "error=EIO:delay_exit=300000:when=12+")?;
    // The files are made while syncs succeed.
    let (program, _) = serve(server(), folder);
    program.signal(Signal::TERM);
    program.wait();
    let (program, address) = serve(failing, folder);
    let ana = Peer::join(&address, "ana").await;
    Some((program, ana))
}

#[tokio::test]
async fn e2_server_whose_sync_fails_while_it_stops_says_so_at_once_and_ends_with_1() {
    let mut good = 0_u32;
    {
        let folder = tempfile::tempdir().unwrap();
        let Some((_program, mut ana)) = slowly_failing(folder.path()).await else { return };
        while ana.post_and_wait("one more").await.is_some() {
            good += 1;
            assert!(good < 100, "a sync must fail");
        }
    }
    // Entries may share a sync, so that it is not always the same post that meets the failure.
    for before in [good, good + 1, good.saturating_sub(1), good + 2, good.saturating_sub(2)] {
        let folder = tempfile::tempdir().unwrap();
        let Some((program, mut ana)) = slowly_failing(folder.path()).await else { return };
        for _ in 0..before {
            ana.post_and_wait("one more").await;
        }
        ana.post("on its way").await;
        let token = RequestId::new(7).unwrap();
        ana.send(&ClientFrame::Ping { token }).await;
        let mut answers = Vec::new();
        while let Some(frame) = ana.next().await
            && frame != (ServerFrame::Pong { token })
        {
            answers.push(frame);
        }
        // The tracer keeps signals to itself.
        let Some(traced) = program.children().first().copied() else { continue };
        if kill_process(traced, Signal::TERM).is_err() {
            continue;
        }
        while let Some(frame) = ana.next().await {
            answers.push(frame);
        }
        let (status, stderr) = tokio::task::spawn_blocking(|| program.wait()).await.unwrap();
        if answers.iter().any(|frame| matches!(frame, ServerFrame::Accepted { .. })) {
            continue;
        }
        assert_eq!(status.code(), Some(1), "{stderr}");
        assert!(stderr.contains("nothing more can be kept"), "{stderr}");
        return;
    }
    panic!("no sync failed while the server stopped");
}

/// Posts numbers after `kept`, one at a time, until ten more are acknowledged or no more can be; the
/// last that is.
async fn post_numbers(program: &mut Program, kept: u64) -> u64 {
    let Some(address) = program.address_if_any() else { return kept };
    let Some(mut ana) = Peer::try_join(&address, "ana").await else { return kept };
    for number in kept + 1..=kept + 10 {
        match ana.post_and_wait(&number.to_string()).await {
            Some(ServerFrame::Accepted { .. }) => {}
            Some(ServerFrame::Refused { refusal: Refusal::Store, .. }) | None => return number - 1,
            other => panic!("{other:?}"),
        }
    }
    kept + 10
}

#[tokio::test]
async fn e1_e2_e7_call_that_fails_at_any_place_costs_nothing_that_was_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let (mut kept, mut broken) = (0, 0);
    for (calls, error) in [
        ("pwrite64", "EIO"),
        ("pwrite64", "ENOSPC"),
        (SYNCS, "EIO"),
        ("pread64", "EIO"),
        ("ftruncate", "EIO"),
        ("openat", "EMFILE"),
    ] {
        // Counted apart for each thread.
        for place in [1, 2, 4, 7, 11, 16, 22] {
            let injected = format!("error={error}:when={place}");
            let Some(command) = with(calls, &injected) else { return };
            let mut program = Program::start_by(command, &options(folder.path()));
            let acknowledged = post_numbers(&mut program, kept).await;
            broken += u32::from(acknowledged < kept + 10);
            drop(program);

            let (_program, address) = serve(server(), folder.path());
            let mut ana = Peer::connect(&address).await;
            let last = ana.log_in("ana").await.unwrap().last_counter.get();
            assert!(last >= acknowledged, "{last} of {acknowledged} after {calls}:{injected}");
            let mut beto = Peer::join_from_the_first(&address, "beto").await;
            let wanted: Vec<String> = (1..=last).map(|number| number.to_string()).collect();
            assert_eq!(beto.posts(wanted.len()).await, wanted, "after {calls}:{injected}");
            kept = last;
        }
    }
    println!("{kept} posts are kept, {broken} servers broke down");
    assert!(kept > 100 && broken > 10, "{kept} {broken}");
}
