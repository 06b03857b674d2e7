//! A server whose disk is full, as its users meet it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use chat_server::{Durability, Storage};

use crate::support::{Client, World, json};

/// Names the folder of the small disk to a test that runs again on it.
const DISK: &str = "CHAT_TEST_SMALL_DISK";

/// Where a small disk of this test's own is mounted. There is none at first: the test is then run
/// once more, in a namespace that has one, and has to pass there; the caller has nothing left to do.
fn small_disk(name: &str) -> Option<PathBuf> {
    if let Some(folder) = std::env::var_os(DISK) {
        return Some(folder.into());
    }
    let folder = tempfile::tempdir().unwrap();
    let mount = "mount -t tmpfs -o size=2048k tmpfs \"$0\"";
    let in_namespace = |script: &str| {
        let mut command = Command::new("unshare");
        command.args(["-rm", "sh", "-c", script]).arg(folder.path());
        command
    };
    if !in_namespace(mount).output().is_ok_and(|output| output.status.success()) {
        let must = std::env::var_os("CHAT_REQUIRE_ALL").is_some();
        assert!(!must, "nothing may be left out: this machine allows no mount");
        println!("not tried: this machine allows no mount");
        return None;
    }
    let mut again = in_namespace(&format!("{mount} && exec \"$@\""));
    again.arg(std::env::current_exe().unwrap()).args([name, "--exact", "--nocapture"]);
    let output = again.env(DISK, folder.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let passed = output.status.success() && said.contains("test result: ok. 1 passed");
    assert!(passed, "{said}{}", String::from_utf8_lossy(&output.stderr));
    None
}

/// Whether it says that the store is full.
fn is_notice(line: &str) -> bool {
    let event = json(line);
    event["type"] == "notice" && event["text"].as_str().unwrap().contains("E_STORE")
}

fn notices(shown: &[String]) -> usize {
    shown.iter().filter(|line| is_notice(line)).count()
}

/// Says long lines until the client tells of the full disk; how many. What was on its way when the
/// server found out waits unanswered, so that each line is asked after before the next one.
fn say_until_told(client: &mut Client) -> usize {
    let long = "x".repeat(2_000);
    let mut said = 0;
    loop {
        said += 1;
        client.say(&format!("{said} {long}"));
        client.say("/rooms");
        let told = client.line(|line| is_notice(line) || json(line)["type"] == "rooms");
        if is_notice(&told) {
            return said;
        }
        assert!(said < 64, "a client has no more under way");
    }
}

fn fill(disk: &Path) -> PathBuf {
    let filler = disk.join("filler");
    let cut_short = fs::write(&filler, vec![0; 4 << 20]);
    assert!(cut_short.is_err(), "the disk must be full");
    filler
}

#[test]
fn e1_user_is_told_once_that_the_disk_is_full_and_all_comes_in_order_once_there_is_space() {
    let name = "full::e1_user_is_told_once_that_the_disk_is_full_and_all_comes_in_order_once_\
        there_is_space";
    let Some(disk) = small_disk(name) else { return };
    let world = World::without_server(2);
    let storage = Storage::Folder { path: disk.join("data"), durability: Durability::Commit };
    let server = world.serve_as(&[&world.address()], |config| config.storage = storage.clone());
    let mut ana = world.json("ana");
    let mut bob = world.json("bob");
    ana.say("before");
    bob.message("before");
    let filler = fill(&disk);
    let said = say_until_told(&mut ana);

    fs::remove_file(filler).unwrap();
    ana.end_input();
    let (code, rest) = ana.exit();
    assert_eq!((code, notices(&rest)), (0, 0), "{rest:?}");
    for number in 1..=said {
        let text = bob.event("message")["text"].to_string();
        assert!(text.starts_with(&format!("\"{number} x")), "number {number}: {text}");
    }
    world.stop(server);
}
