//! Who may reset rooms stands in the journal, and not in what a host is told.

use std::path::Path;

use chatcore::address::Address;
use chatcore::id::{PublicKey, Threshold};
use chatcore::text::Untrusted;
use chatcore::wire::{Command, Refusal, ServerFrame};
use rustix::process::Signal;

use crate::killed::{options, server};
use crate::peer::{Peer, key_of};
use crate::program::Program;

/// Starts a server on a folder, with these operators.
fn serve(folder: &Path, operators: &[&str]) -> (Program, Address) {
    let named = operators.iter().flat_map(|operator| ["--operator", operator]);
    let options: Vec<&str> = options(folder).into_iter().chain(named).collect();
    let mut program = Program::start_by(server(), &options);
    let address = program.address();
    (program, address)
}

/// Stops it, and gives what it said on stderr.
fn stop(program: Program) -> String {
    program.signal(Signal::TERM);
    let (status, stderr) = program.wait();
    assert_eq!(status.code(), Some(0), "{stderr}");
    stderr
}

/// Whether a user may reset rooms: as the log-in says, and as it turns out.
async fn is_operator(address: &Address, name: &str) -> bool {
    let mut peer = Peer::connect(address).await;
    let told = peer.log_in(name).await.expect("the log-in must be accepted").operator;
    let (room, threshold) = (Untrusted::new("lobby"), Threshold::new(1).unwrap());
    peer.ask(crate::peer::join("lobby")).await;
    let counter = peer.submit(Command::Reset { room, threshold }).await;
    let may = match peer.answer_to(counter).await {
        ServerFrame::Applied { .. } => true,
        ServerFrame::Refused { refusal: Refusal::Perm, .. } => false,
        other => panic!("{other:?}"),
    };
    assert_eq!(told, may, "{name}");
    may
}

#[tokio::test]
async fn k6_operator_of_a_later_start_gets_no_right_and_those_of_the_founding_keep_theirs() {
    let folder = tempfile::tempdir().unwrap();
    let (here, there) = (folder.path().join("here"), folder.path().join("there"));
    let key = |name: &str| PublicKey::new(key_of(name).verifying_key().to_bytes()).to_string();
    let (program, address) = serve(&here, &["ana", &key("kim")]);
    assert!(is_operator(&address, "ana").await);
    assert!(!is_operator(&address, "eva").await);
    stop(program);

    // By the name of a user, by a name that nobody has yet, and by a key.
    let later = ["eva", "mora", &key("beto")];
    let nobody_rises = async |address: &Address| {
        for name in ["eva", "mora", "beto"] {
            assert!(!is_operator(address, name).await, "{name}");
        }
        assert!(is_operator(address, "ana").await);
    };
    let (program, address) = serve(&here, &later);
    nobody_rises(&address).await;
    let dest = there.to_str().unwrap();
    let copied = server().args(["backup", dest, "--data"]).arg(&here).output().unwrap();
    assert!(copied.status.success(), "{copied:?}");
    let told = format!(
        "--operator changes nothing: the first operators were settled when this chat was begun, and \
         that is ana, the key {}; operators make others by /op\n",
        key("kim")
    );
    let stderr = stop(program);
    assert!(stderr.contains(&told), "{stderr}");

    // Whoever has the files is another host, and no operator.
    let (program, address) = serve(&there, &later);
    nobody_rises(&address).await;
    assert!(is_operator(&address, "kim").await, "who is named by the founding may come later");
    let stderr = stop(program);
    assert!(stderr.contains(&told), "{stderr}");
}

#[tokio::test]
async fn k6_operator_of_a_later_start_does_not_take_the_place_of_the_first_user() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    stop(serve(&data, &[]).0);
    let (program, address) = serve(&data, &["eva"]);
    assert!(is_operator(&address, "ana").await, "the first user is it");
    assert!(!is_operator(&address, "eva").await);
    let stderr = stop(program);
    let told =
        "when this chat was begun, and that is its first user; operators make others by /op\n";
    assert!(stderr.contains(told), "{stderr}");
}
