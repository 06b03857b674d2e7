//! The directory: what it keeps, what it tells, and what it lets nobody do.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use chat_server::{
    Directory, DirectoryClient, DirectoryConfig, DirectoryError, Pace, Proposed, ServerKey, Tls,
};
use chatcore::address::Address;
use chatcore::codec::{FrameBuffer, decode, encode_to_bytes};
use chatcore::id::{BootId, Generation, LogId, PublicKey, Signature};
use chatcore::limits::Limits;
use chatcore::migration::NodeId;
use chatcore::migration::directory::{
    Claim, ClaimFault, DIRECTORY_FRAME_BYTES_MAX, DirectoryReply, DirectoryRequest, Host,
    Registration, SERVICES_MAX, SignedClaim,
};
use chatcore::text::ServiceName;
use chatcore::wire::{
    Addresses, ClientFrame, ClientHello, DecodeFault, FrameFault, Refusal, Role, ServerFrame,
    StateFault, VersionRange,
};
use ed25519_dalek::{Signer as _, SigningKey};
use rustix::process::{Signal, kill_process};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::disk::{self, Disk};
use crate::injected::{SYNCS, with};
use crate::killed::server;
use crate::peer::{PATIENCE, hello};
use crate::power::{CUTS, traced};
use crate::private_folder;
use crate::program::Program;

/// The program as a directory, where it listens, and its key.
fn serve(command: Command, folder: &Path) -> (Program, Address, PublicKey) {
    let mut program = Program::start_by(command, &options(folder));
    let line = program.line();
    let told: Value = serde_json::from_str(&line).expect(&line);
    assert_eq!(
        (&told["type"], &told["role"]),
        (&"listening".into(), &"directory".into()),
        "{told}"
    );
    let text = |name: &str| told[name].as_str().unwrap();
    (program, text("url").parse().unwrap(), text("server_key").parse().unwrap())
}

fn options(folder: &Path) -> [&str; 6] {
    let folder = folder.to_str().unwrap();
    ["directory", "--json", "--listen", "chat://127.0.0.1:0", "--data", folder]
}

/// A directory inside this process, and its only address.
async fn start(config: DirectoryConfig) -> (Directory, Address) {
    let listen = vec!["chat://127.0.0.1:0".parse().unwrap()];
    let directory = Directory::start(DirectoryConfig { listen, ..config }).await.unwrap();
    let address = directory.addresses()[0].clone();
    (directory, address)
}

fn chat() -> ServiceName {
    ServiceName::default()
}

fn generation(value: u64) -> Generation {
    Generation::new(value).unwrap()
}

/// A node whose key is always the same for a number.
struct Node {
    signing: SigningKey,
    key: ServerKey,
    _folder: tempfile::TempDir,
}

impl Node {
    fn new(number: u8) -> Self {
        let (folder, seed) = (private_folder(), [number; 32]);
        let path = folder.path().join("server.key");
        fs::write(&path, seed).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
        let key = ServerKey::of_folder(folder.path()).unwrap();
        Self { signing: SigningKey::from_bytes(&seed), key, _folder: folder }
    }

    fn host(&self) -> Host {
        let node = NodeId { key: self.key.public(), boot: BootId::new([7; 16]) };
        let address = "chats://node.example:5000".parse().unwrap();
        Host { node, addresses: Addresses::first_of([address]), tls_key: None }
    }

    fn claim(&self, expect: u64, standby: Option<&Self>) -> Claim {
        let (service, log_id) = (chat(), LogId::new([9; 16]));
        let (owner, standby) = (self.host(), standby.map(Self::host));
        Claim { service, log_id, expect: generation(expect), owner, standby }
    }

    /// As another program would sign it, for a directory of its choice.
    fn sign(&self, claim: Claim, directory: &PublicKey) -> SignedClaim {
        let signature = self.signing.sign(&claim.to_bytes(directory));
        SignedClaim { claim, signature: Signature::new(signature.to_bytes()) }
    }
}

/// What is registered after a claim was applied.
fn after(claim: &Claim) -> Registration {
    let Claim { service, log_id, expect, owner, standby } = claim.clone();
    Registration { service, generation: expect.next(), log_id, owner, standby }
}

async fn must_apply(client: &mut DirectoryClient, node: &Node, claim: Claim) -> Registration {
    let expected = after(&claim);
    match client.propose(claim, &node.key).await.unwrap() {
        Proposed::Applied(registration) => assert_eq!(registration, expected),
        other => panic!("{other:?}"),
    }
    expected
}

/// A connection that says what a test wants, whether it may be said or not.
struct Asker {
    stream: TcpStream,
    buffer: FrameBuffer,
}

impl Asker {
    async fn connect(address: &Address) -> Self {
        let Address::Tcp { host, port } = address else { panic!("{address} is no port") };
        let stream = TcpStream::connect((host.as_str(), *port)).await.unwrap();
        Self { stream, buffer: FrameBuffer::default() }
    }

    async fn greeted(address: &Address) -> Self {
        let mut asker = Self::connect(address).await;
        asker.send(&node_hello()).await;
        assert!(matches!(asker.next().await, Some(ServerFrame::Hello(_))));
        asker
    }

    async fn send(&mut self, frame: &impl Serialize) {
        self.send_bytes(&encode_to_bytes(frame)).await;
    }

    async fn send_bytes(&mut self, bytes: &[u8]) {
        // A directory that has closed already may refuse them.
        let _ = self.stream.write_all(bytes).await;
    }

    /// The next frame; `None` at the end.
    async fn next<T: DeserializeOwned + Serialize>(&mut self) -> Option<T> {
        let read = async {
            loop {
                if let Some(frame) = self.buffer.next_frame().unwrap() {
                    return Some(decode(&frame).expect("canonical frames"));
                }
                match self.stream.read_buf(self.buffer.as_mut()).await {
                    Ok(0) | Err(_) => return None,
                    Ok(_) => {}
                }
            }
        };
        timeout(PATIENCE, read).await.expect("a frame or the end in time")
    }

    async fn ask(&mut self, request: &DirectoryRequest) -> DirectoryReply {
        self.send(request).await;
        self.next().await.expect("a reply")
    }

    async fn propose(&mut self, claim: SignedClaim) -> DirectoryReply {
        self.ask(&DirectoryRequest::Propose(claim)).await
    }
}

fn node_hello() -> ClientFrame {
    let versions = VersionRange::SUPPORTED;
    ClientFrame::Hello(ClientHello { role: Role::Node, versions, features: 0 })
}

/// Claims of two nodes, one after the other: the first founds the service, takes the second as its standby,
/// and then they swap.
fn claim_of_round(nodes: &[Node; 2], round: u64) -> (&Node, Claim) {
    let [first, second] = nodes;
    let (owner, other) =
        if round >= 2 && round.is_multiple_of(2) { (second, first) } else { (first, second) };
    (owner, owner.claim(round, (round > 0).then_some(other)))
}

#[tokio::test]
async fn e7_what_was_registered_survives_kill_9_right_after_each_answer() {
    let folder = private_folder();
    let nodes = [Node::new(1), Node::new(2)];
    let (mut known, mut pinned) = (None, None);
    for round in 0..25 {
        let (program, address, key) = serve(server(), folder.path());
        assert_eq!(*pinned.get_or_insert(key), key, "the key stays");
        let mut client = DirectoryClient::new(address, pinned);
        assert_eq!(client.locate(&chat()).await.unwrap(), known, "round {round}");
        let (owner, claim) = claim_of_round(&nodes, round);
        known = Some(must_apply(&mut client, owner, claim).await);
        drop(program);
    }
}

#[tokio::test]
async fn e7_m7_claim_under_way_at_kill_9_was_applied_or_not_and_making_it_again_tells() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let folder = private_folder();
    let nodes = [Node::new(1), Node::new(2)];
    let (mut known, mut applied) = (None, 0);
    for round in 0..25 {
        let (owner, claim) = claim_of_round(&nodes, round);
        let (program, address, key) = serve(server(), folder.path());
        let mut asker = Asker::greeted(&address).await;
        asker.send(&DirectoryRequest::Propose(owner.sign(claim.clone(), &key))).await;
        for _ in 0..random.u32(..2_000_000) {
            std::hint::spin_loop();
        }
        drop(program);
        let (_program, address, key) = serve(server(), folder.path());
        let mut client = DirectoryClient::new(address, Some(key));
        let found = client.locate(&chat()).await.unwrap();
        assert!(found == known || found == Some(after(&claim)), "round {round}: {found:?}");
        applied += u32::from(found != known);
        known = Some(must_apply(&mut client, owner, claim.clone()).await);
        assert_eq!(client.locate(&chat()).await.unwrap(), known, "it is applied once");
    }
    println!("{applied} of 25 were applied before the end");
}

#[tokio::test]
async fn e4_power_cut_at_any_instant_costs_no_change_that_was_answered() {
    let seed = 5;
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let (folder, traces) = (private_folder(), private_folder());
    let (data, trace) = (folder.path().join("data"), traces.path().join("trace"));
    let Some(command) = traced(&trace, "commit", &[]) else { return };
    let nodes = [Node::new(1), Node::new(2)];
    let (program, address, key) = serve(command, &data);
    let mut client = DirectoryClient::new(address, Some(key));
    for round in 0..40 {
        let (owner, claim) = claim_of_round(&nodes, round);
        must_apply(&mut client, owner, claim).await;
    }
    drop(program);
    let events = disk::read_trace(&fs::read_to_string(&trace).unwrap(), &data);
    let mut instants: Vec<usize> = (0..CUTS).map(|_| random.usize(0..=events.len())).collect();
    instants.sort_unstable();
    let (mut disk, mut done, mut without_the_rest) = (Disk::default(), 0, 0);
    for instant in instants {
        events[done..instant].iter().for_each(|event| disk.follow(event));
        done = instant;
        let (cut, chance) = (private_folder(), [0.0, 0.5, 1.0][random.usize(0..3)]);
        disk.after_power_cut(cut.path(), chance, &mut random);
        let (_directory, address) = start(DirectoryConfig::new(cut.path().to_owned())).await;
        let found = DirectoryClient::new(address, None).locate(&chat()).await.unwrap();
        let found = found.map_or(0, |registration| {
            let (_, claim) = claim_of_round(&nodes, registration.generation.previous().get());
            assert_eq!(registration, after(&claim));
            registration.generation.get()
        });
        let answered = disk.acknowledged.get();
        assert!((answered..=answered + 1).contains(&found), "{found} of {answered} at {instant}");
        without_the_rest += u32::from(found == answered);
    }
    assert!(disk.acknowledged.get() > 30 && without_the_rest > 0, "{}", disk.acknowledged);
}

/// What the program says on a folder that it does not serve.
fn refused(folder: &Path, more: &[&str]) -> String {
    let options = [&options(folder)[..], more].concat();
    let (status, stderr) = Program::start_by(server(), &options).wait();
    assert_eq!(status.code(), Some(1), "{stderr}");
    stderr
}

#[tokio::test]
async fn e5_e7_registers_that_are_damaged_or_gone_are_refused_with_what_to_do_and_left_alone() {
    let folder = private_folder();
    let node = Node::new(1);
    let (program, address, key) = serve(server(), folder.path());
    let mut client = DirectoryClient::new(address, Some(key));
    for expect in 0..7 {
        must_apply(&mut client, &node, node.claim(expect, None)).await;
    }
    drop(program);
    let file = folder.path().join("registers");
    let whole = fs::read(&file).unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    for damaged in [&whole[..whole.len() - 1], &whole[..0], &whole[..10], &flipped] {
        fs::write(&file, damaged).unwrap();
        for more in [&[][..], &["--rebuild", "chat=7"]] {
            let said = refused(folder.path(), more);
            assert!(said.contains("are damaged") && said.contains("--rebuild"), "{said}");
            assert_eq!(fs::read(&file).unwrap(), damaged);
        }
    }
    fs::remove_file(&file).unwrap();
    let said = refused(folder.path(), &[]);
    assert!(said.contains("are gone") && said.contains("--rebuild"), "{said}");
    assert!(!file.exists());
    // A copy does.
    fs::write(&file, &whole).unwrap();
    let (_program, address, _) = serve(server(), folder.path());
    let mut client = DirectoryClient::new(address, Some(key));
    let found = client.locate(&chat()).await.unwrap().unwrap();
    assert_eq!(found.generation, generation(7));
}

#[tokio::test]
async fn m19_directory_that_lost_its_registers_goes_on_after_the_generation_it_is_told() {
    let folder = private_folder();
    let (node, late) = (Node::new(1), Node::new(2));
    let options = [&options(folder.path())[..], &["--rebuild", "chat=7"]].concat();
    for round in 0..2 {
        let mut program = Program::start_by(server(), &options);
        let address = program.address_if_any().unwrap();
        let mut client = DirectoryClient::new(address, None);
        if round == 0 {
            for expect in [0, 6] {
                let told = client.propose(late.claim(expect, None), &late.key).await.unwrap();
                assert!(matches!(told, Proposed::Denied(ClaimFault::Unregistered)), "{told:?}");
            }
            must_apply(&mut client, &node, node.claim(7, None)).await;
        }
        // It has no effect on what is registered.
        let told = client.propose(late.claim(7, None), &late.key).await.unwrap();
        assert!(matches!(told, Proposed::Conflict(_)), "{told:?}");
        program.signal(Signal::TERM);
        let (_, stderr) = program.wait();
        let is_told = stderr.contains("--rebuild chat=7 changes nothing");
        assert_eq!(is_told, round > 0, "{stderr}");
    }
}

#[tokio::test]
async fn e2_directory_whose_sync_fails_stops_and_says_why_and_its_registers_are_old_or_new() {
    // The file is synced, then the folder: what fails first is one of both.
    for failing in [4, 5] {
        let folder = private_folder();
        let nodes = [Node::new(1), Node::new(2)];
        let injected = format!("error=EIO:when={failing}+");
        let Some(command) = with(SYNCS, &injected) else { return };
        // The files are made while syncs succeed.
        let (program, _, _) = serve(server(), folder.path());
        program.signal(Signal::TERM);
        program.wait();
        let (program, address, key) = serve(command, folder.path());
        let mut client = DirectoryClient::new(address, Some(key));
        let (mut applied, mut unanswered) = (None, None);
        for round in 0..10 {
            let (owner, claim) = claim_of_round(&nodes, round);
            match client.propose(claim.clone(), &owner.key).await.unwrap() {
                Proposed::Applied(registration) => applied = Some(registration),
                Proposed::Unknown(_) => {
                    unanswered = Some(claim);
                    break;
                }
                other => panic!("{other:?}"),
            }
        }
        let unanswered = unanswered.expect("a sync must fail");
        assert!(applied.is_some());
        let (status, stderr) = tokio::task::spawn_blocking(|| program.wait()).await.unwrap();
        assert_eq!(status.code(), Some(1), "{stderr}");
        assert!(stderr.contains("could not be kept") && stderr.contains("os error 5"), "{stderr}");
        let (_program, address, _) = serve(server(), folder.path());
        let mut client = DirectoryClient::new(address, Some(key));
        let found = client.locate(&chat()).await.unwrap();
        assert!(found == applied || found == Some(after(&unanswered)), "{found:?}");
    }
}

/// A directory whose folder is synced for half a minute from the third change on, and a node that made the
/// first two; `None` as for [`with`].
async fn standing_still(folder: &Path) -> Option<(Program, Address, PublicKey, Node)> {
    let command = with(SYNCS, "delay_enter=30000000:when=6+")?;
    let (program, _, _) = serve(server(), folder);
    program.signal(Signal::TERM);
    program.wait();
    let (program, address, key) = serve(command, folder);
    let node = Node::new(1);
    let mut client = DirectoryClient::new(address.clone(), Some(key));
    for expect in 0..2 {
        must_apply(&mut client, &node, node.claim(expect, None)).await;
    }
    Some((program, address, key, node))
}

#[tokio::test]
async fn look_up_is_answered_while_the_disk_is_waited_for_and_tells_only_what_it_has() {
    let folder = private_folder();
    let Some((mut program, address, key, node)) = standing_still(folder.path()).await else {
        return;
    };
    let file = folder.path().join("registers");
    let before = fs::read(&file).unwrap();
    let mut asker = Asker::greeted(&address).await;
    let claim = node.claim(2, Some(&Node::new(2)));
    asker.send(&DirectoryRequest::Propose(node.sign(claim, &key))).await;
    // It is renamed already, and not safe yet.
    while fs::read(&file).unwrap() == before {
        tokio::task::yield_now().await;
    }
    let mut client = DirectoryClient::new(address.clone(), Some(key));
    for _ in 0..10 {
        let told = client.locate(&chat()).await.unwrap();
        assert_eq!(told, Some(after(&node.claim(1, None))));
    }
    // Nobody is told of it: who watches is answered by the next request, with what there is.
    let mut watcher = Asker::greeted(&address).await;
    watcher.send(&DirectoryRequest::Watch { service: chat(), after: generation(2) }).await;
    watcher.send(&DirectoryRequest::Locate { service: chat() }).await;
    for _ in 0..2 {
        let told = watcher.next().await;
        let Some(DirectoryReply::Registered(signed)) = told else { panic!("{told:?}") };
        assert_eq!(signed.registration.generation, generation(2));
    }
    // A directory that is to stop waits for no disk that stands still.
    let begun = Instant::now();
    // The tracer keeps signals to itself.
    let traced = program.children()[0];
    kill_process(traced, Signal::TERM).unwrap();
    let (program, line) = tokio::task::spawn_blocking(move || {
        let line = program.line();
        (program, line)
    })
    .await
    .unwrap();
    assert!(line.contains(r#""type":"stopped""#), "{line}");
    let state = format!("/proc/{}/stat", traced.as_raw_nonzero());
    while fs::read_to_string(&state).is_ok_and(|stat| !stat.contains(") Z ")) {
        tokio::task::yield_now().await;
    }
    assert!(begun.elapsed() < Duration::from_secs(10));
    // The tracer would not notice before its delay is over.
    program.signal(Signal::KILL);
    assert_eq!(asker.next::<DirectoryReply>().await, None, "it was not answered");
    assert_eq!(watcher.next().await, Some(DirectoryReply::Close(Refusal::Gone)));
}

#[tokio::test]
async fn m7_claim_that_is_forged_made_to_another_directory_or_made_again_changes_nothing() {
    let folder = private_folder();
    let (directory, address) = start(DirectoryConfig::new(folder.path().to_owned())).await;
    let (key, owner, standby, stranger) =
        (directory.key(), Node::new(1), Node::new(2), Node::new(3));
    let mut asker = Asker::greeted(&address).await;
    let founding = owner.sign(owner.claim(0, None), &key);
    let joining = owner.sign(owner.claim(1, Some(&standby)), &key);
    for claim in [&founding, &joining] {
        let reply = asker.propose(claim.clone()).await;
        assert!(matches!(reply, DirectoryReply::Applied(_)), "{reply:?}");
    }
    let before = asker.ask(&DirectoryRequest::Locate { service: chat() }).await;

    let takeover = standby.claim(2, None);
    let foreign = standby.sign(takeover.clone(), &PublicKey::new([5; 32]));
    // By the key of somebody else, and altered on its way.
    let forged = stranger.sign(takeover.clone(), &key);
    let mut altered = standby.sign(takeover, &key);
    altered.claim.owner.addresses = Addresses::default();
    for claim in [foreign, forged, altered] {
        let reply = asker.propose(claim).await;
        assert_eq!(reply, DirectoryReply::Denied(ClaimFault::Signature));
    }
    let reply = asker.propose(stranger.sign(stranger.claim(2, None), &key)).await;
    assert_eq!(reply, DirectoryReply::Denied(ClaimFault::Right));
    // Of those that are made again, the last one still holds.
    let DirectoryReply::Registered(present) = before.clone() else { panic!("{before:?}") };
    assert_eq!(asker.propose(founding).await, DirectoryReply::Conflict(present.clone()));
    assert_eq!(asker.propose(joining.clone()).await, DirectoryReply::Applied(present));
    let locate = DirectoryRequest::Locate { service: chat() };
    assert_eq!(asker.ask(&locate).await, before);

    let reply = asker.propose(standby.sign(standby.claim(2, None), &key)).await;
    let DirectoryReply::Applied(present) = reply else { panic!("{reply:?}") };
    assert_eq!(asker.propose(joining).await, DirectoryReply::Conflict(present));
}

/// Claims, with one of the others, what it saw last until there were sixty generations; those that it won.
async fn race(address: Address, number: u8) -> Vec<u64> {
    let (me, other) = (Node::new(number), Node::new(number % 4 + 1));
    let mut client = DirectoryClient::new(address, None);
    let (mut known, mut won) = (0, Vec::new());
    while known < 60 {
        let claim = me.claim(known, (known > 0).then_some(&other));
        let told = match client.propose(claim, &me.key).await.unwrap() {
            Proposed::Applied(told) => {
                won.push(told.generation.get());
                told
            }
            Proposed::Conflict(told) => told,
            // Neither owner nor standby: until one of them chooses it.
            Proposed::Denied(ClaimFault::Right) => client.locate(&chat()).await.unwrap().unwrap(),
            other => panic!("{other:?}"),
        };
        assert!(told.generation.get() >= known, "{told:?} after {known}");
        known = told.generation.get();
    }
    won
}

#[tokio::test]
async fn of_nodes_that_race_one_wins_each_generation_and_all_are_told_who() {
    let folder = private_folder();
    let (_directory, address) = start(DirectoryConfig {
        pace: Pace { burst: 10_000, ..Pace::default() },
        ..DirectoryConfig::new(folder.path().to_owned())
    })
    .await;
    let racers = (1..=4).map(|number| tokio::spawn(race(address.clone(), number)));
    let mut won = Vec::new();
    for racer in racers.collect::<Vec<_>>() {
        won.extend(timeout(PATIENCE, racer).await.expect("in time").unwrap());
    }
    won.sort_unstable();
    let expected: Vec<u64> = (1..=won.len().try_into().unwrap()).collect();
    assert_eq!(won, expected, "each generation has one winner");
    assert!(won.len() >= 60);
}

#[tokio::test]
async fn whoever_watches_is_told_once_there_is_something_new() {
    let folder = private_folder();
    let (directory, address) = start(DirectoryConfig::new(folder.path().to_owned())).await;
    let (node, mut watchers) = (Node::new(1), Vec::new());
    for _ in 0..20 {
        let mut watcher = Asker::greeted(&address).await;
        watcher.send(&DirectoryRequest::Watch { service: chat(), after: Generation::ZERO }).await;
        watchers.push(watcher);
    }
    let watching = tokio::spawn({
        let (mut client, key) = (DirectoryClient::new(address.clone(), None), directory.key());
        async move {
            let told = client.watch(&chat(), generation(2)).await;
            assert_eq!(client.key(), Some(key), "it is the one of the first hello");
            told
        }
    });
    let mut client = DirectoryClient::new(address.clone(), Some(directory.key()));
    let first = must_apply(&mut client, &node, node.claim(0, None)).await;
    for watcher in &mut watchers {
        let told = watcher.next().await;
        let Some(DirectoryReply::Registered(signed)) = told else { panic!("{told:?}") };
        assert_eq!(signed.registration, first);
    }
    // What is known is no news, and another service is none.
    let mut idle = watchers.pop().unwrap();
    idle.send(&DirectoryRequest::Watch { service: chat(), after: generation(3) }).await;
    let mut elsewhere = watchers.pop().unwrap();
    let service: ServiceName = "other".parse().unwrap();
    elsewhere.send(&DirectoryRequest::Watch { service, after: Generation::ZERO }).await;
    must_apply(&mut client, &node, node.claim(1, None)).await;
    let third = must_apply(&mut client, &node, node.claim(2, None)).await;
    assert_eq!(timeout(PATIENCE, watching).await.unwrap().unwrap(), third);
    directory.stop().await.unwrap();
    let gone = DirectoryReply::Close(Refusal::Gone);
    assert_eq!(idle.next().await, Some(gone.clone()));
    assert_eq!(elsewhere.next().await, Some(gone));
}

#[tokio::test]
async fn whoever_watches_finds_a_directory_that_was_away_and_no_other_in_its_place() {
    let (folder, other, sockets) = (private_folder(), private_folder(), private_folder());
    let listen: Vec<Address> =
        vec![format!("unix:{}", sockets.path().join("socket").display()).parse().unwrap()];
    let config = |folder: &Path| DirectoryConfig {
        listen: listen.clone(),
        ..DirectoryConfig::new(folder.to_owned())
    };
    let node = Node::new(1);
    let directory = Directory::start(config(folder.path())).await.unwrap();
    let mut client = DirectoryClient::new(listen[0].clone(), None);
    must_apply(&mut client, &node, node.claim(0, None)).await;
    directory.stop().await.unwrap();
    let unreachable = client.locate(&chat()).await.unwrap_err();
    assert!(matches!(unreachable, DirectoryError::Unreachable { .. }), "{unreachable}");
    let known = client.key();

    let impostor = Directory::start(config(other.path())).await.unwrap();
    let mut anybody = DirectoryClient::new(listen[0].clone(), None);
    must_apply(&mut anybody, &node, node.claim(0, None)).await;
    must_apply(&mut anybody, &node, node.claim(1, None)).await;
    let refused = client.locate(&chat()).await.unwrap_err();
    assert!(matches!(refused, DirectoryError::OtherKey { .. }), "{refused}");
    let refused = client.propose(node.claim(1, None), &node.key).await.unwrap_err();
    assert!(matches!(refused, DirectoryError::OtherKey { .. }), "{refused}");
    assert_eq!(client.key(), known);
    let watching = tokio::spawn(async move { client.watch(&chat(), generation(1)).await });
    impostor.stop().await.unwrap();

    let directory = Directory::start(config(folder.path())).await.unwrap();
    let mut client = DirectoryClient::new(listen[0].clone(), known);
    assert_eq!(Some(directory.key()), known);
    let second = must_apply(&mut client, &node, node.claim(1, None)).await;
    assert_eq!(timeout(PATIENCE, watching).await.unwrap().unwrap(), second);
}

/// Answers one connection with the hello of a directory of this key, and then with these replies; with
/// none left it hangs up.
async fn pretend(key: PublicKey, replies: Vec<DirectoryReply>) -> Address {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("chat://{}", listener.local_addr().unwrap()).parse().unwrap();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut peer = Asker { stream, buffer: FrameBuffer::default() };
        assert!(matches!(peer.next().await, Some(ClientFrame::Hello(_))));
        let hello = chatcore::wire::ServerHello {
            version: 1,
            features: 0,
            server_key: key,
            log_id: LogId::new([0; 16]),
            generation: Generation::ZERO,
            nonce: chatcore::id::Nonce::new([0; 32]),
        };
        peer.send(&ServerFrame::Hello(hello)).await;
        for reply in replies {
            if peer.next::<DirectoryRequest>().await.is_none() {
                return;
            }
            peer.send(&reply).await;
        }
        let _ = peer.next::<DirectoryRequest>().await;
    });
    address
}

#[tokio::test]
async fn m7_client_says_of_a_claim_that_is_not_answered_by_the_directory_that_its_outcome_is_unknown()
 {
    let folder = private_folder();
    let (directory, real) = start(DirectoryConfig::new(folder.path().to_owned())).await;
    let (node, key) = (Node::new(1), directory.key());
    let mut client = DirectoryClient::new(real, Some(key));
    must_apply(&mut client, &node, node.claim(0, None)).await;
    let mut asker = Asker::greeted(&directory.addresses()[0]).await;
    let told = asker.ask(&DirectoryRequest::Locate { service: chat() }).await;
    let DirectoryReply::Registered(first) = told else { panic!("{told:?}") };
    let mut forged = first.clone();
    forged.registration.generation = generation(2);
    let mut elsewhere = first.clone();
    elsewhere.registration.service = "other".parse().unwrap();

    let lies = [
        vec![],
        vec![DirectoryReply::Applied(forged.clone())],
        vec![DirectoryReply::Conflict(forged.clone())],
        vec![DirectoryReply::Conflict(elsewhere)],
        // True, and not what is claimed now.
        vec![DirectoryReply::Applied(first.clone())],
        vec![DirectoryReply::Registered(first.clone())],
        vec![DirectoryReply::Close(Refusal::Gone)],
    ];
    for lie in lies {
        let mut client = DirectoryClient::new(pretend(key, lie.clone()).await, Some(key));
        let told = client.propose(node.claim(1, None), &node.key).await.unwrap();
        assert!(matches!(told, Proposed::Unknown(_)), "{lie:?}: {told:?}");
    }
    let busy = DirectoryReply::Refused(Refusal::Store);
    let mut client = DirectoryClient::new(pretend(key, vec![busy]).await, Some(key));
    let told = client.propose(node.claim(1, None), &node.key).await.unwrap_err();
    assert!(matches!(told, DirectoryError::Refused { refusal: Refusal::Store, .. }), "{told}");
    let forged = vec![DirectoryReply::Registered(forged)];
    let mut client = DirectoryClient::new(pretend(key, forged).await, Some(key));
    let told = client.locate(&chat()).await.unwrap_err();
    assert!(matches!(told, DirectoryError::Forged { .. }), "{told}");
}

#[tokio::test]
async fn request_that_is_given_up_half_way_leaves_no_answer_to_the_next() {
    let folder = private_folder();
    let (_directory, address) = start(DirectoryConfig::new(folder.path().to_owned())).await;
    let node = Node::new(1);
    let mut client = DirectoryClient::new(address, None);
    must_apply(&mut client, &node, node.claim(0, None)).await;
    let other: ServiceName = "other".parse().unwrap();
    for _ in 0..3 {
        let mut watching = Box::pin(client.watch(&other, Generation::ZERO));
        // It is asked, and there is nothing to tell.
        for _ in 0..3 {
            let polled = std::future::poll_fn(|context| {
                std::task::Poll::Ready(watching.as_mut().poll(context).is_ready())
            });
            assert!(!polled.await);
            tokio::task::yield_now().await;
        }
        drop(watching);
        assert_eq!(client.locate(&chat()).await.unwrap(), Some(after(&node.claim(0, None))));
    }
}

#[tokio::test]
async fn change_that_cannot_be_written_is_refused_for_now_and_the_directory_goes_on() {
    let folder = private_folder();
    let (_directory, address) = start(DirectoryConfig::new(folder.path().to_owned())).await;
    let node = Node::new(1);
    let mut client = DirectoryClient::new(address, None);
    let first = must_apply(&mut client, &node, node.claim(0, None)).await;
    // What is in the way keeps the next file from being made, as a full disk would.
    let way = folder.path().join("registers.new");
    fs::create_dir(&way).unwrap();
    let told = client.propose(node.claim(1, None), &node.key).await.unwrap_err();
    assert!(matches!(told, DirectoryError::Refused { refusal: Refusal::Store, .. }), "{told}");
    assert_eq!(client.locate(&chat()).await.unwrap(), Some(first));
    fs::remove_dir(&way).unwrap();
    must_apply(&mut client, &node, node.claim(1, None)).await;
}

#[tokio::test]
async fn second_directory_on_a_folder_and_one_on_that_of_a_chat_are_refused() {
    let folder = private_folder();
    let (_program, _, _) = serve(server(), folder.path());
    let said = refused(folder.path(), &[]);
    assert!(said.contains("in use"), "{said}");
    let mode =
        |name: &str| fs::metadata(folder.path().join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("."), mode("server.key"), mode("registers")), (0o700, 0o600, 0o600));

    let folder = private_folder();
    let (program, _) = crate::killed::serve(server(), folder.path());
    drop(program);
    let said = refused(folder.path(), &[]);
    assert!(said.contains("is the folder of a chat"), "{said}");
    let open = private_folder();
    fs::write(open.path().join("something"), "").unwrap();
    fs::set_permissions(open.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let said = refused(open.path(), &[]);
    assert!(said.contains("chmod 700"), "{said}");
}

#[tokio::test]
async fn bytes_that_are_no_request_close_their_connection_with_why() {
    let folder = private_folder();
    let (_directory, address) = start(DirectoryConfig::new(folder.path().to_owned())).await;
    let watch = encode_to_bytes(&DirectoryRequest::Watch { service: chat(), after: generation(9) });
    let too_long = u32::try_from(DIRECTORY_FRAME_BYTES_MAX + 1).unwrap().to_be_bytes();
    for (bytes, refusal) in [
        (&[0, 0, 0, 1, 9][..], Refusal::Decode(DecodeFault::Value)),
        (&[0, 0, 0, 2, 0, 0], Refusal::Decode(DecodeFault::Value)),
        (&[0, 0, 0, 0], Refusal::Frame(FrameFault::Empty)),
        (&too_long, Refusal::Frame(FrameFault::TooLarge)),
    ] {
        // At once, and behind a watch that they end.
        let mut asker = Asker::greeted(&address).await;
        asker.send_bytes(bytes).await;
        assert_eq!(asker.next().await, Some(DirectoryReply::Close(refusal)));
        assert_eq!(asker.next::<DirectoryReply>().await, None);
        let mut asker = Asker::greeted(&address).await;
        asker.send_bytes(&[&watch[..], bytes].concat()).await;
        assert_eq!(asker.next().await, Some(DirectoryReply::Unregistered));
        assert_eq!(asker.next().await, Some(DirectoryReply::Close(refusal)));
    }
    let old = VersionRange { min: 0, max: 0 };
    let old = ClientFrame::Hello(ClientHello { role: Role::Node, versions: old, features: 0 });
    let supported = Refusal::Version(VersionRange::SUPPORTED);
    for (frame, refusal) in [
        (ClientFrame::Leave, Refusal::State(StateFault::LogInFirst)),
        (old, supported),
        // Nobody talks here, nor anywhere else yet.
        (hello(), Refusal::Gone),
    ] {
        let mut asker = Asker::connect(&address).await;
        asker.send(&frame).await;
        assert_eq!(asker.next().await, Some(ServerFrame::Close(refusal)));
    }
    let mut asker = Asker::connect(&address).await;
    asker.send_bytes(&[0, 0, 4, 1]).await;
    let too_large = Refusal::Frame(FrameFault::TooLarge);
    assert_eq!(asker.next().await, Some(ServerFrame::Close(too_large)));
}

#[tokio::test]
async fn client_that_would_log_in_is_told_who_serves() {
    let folder = private_folder();
    let service: ServiceName = "talk".parse().unwrap();
    let config = DirectoryConfig {
        service: service.clone(),
        ..DirectoryConfig::new(folder.path().to_owned())
    };
    let (_directory, address) = start(config).await;
    let node = Node::new(1);
    let mut client = DirectoryClient::new(address.clone(), None);
    // Another service is not theirs.
    must_apply(&mut client, &node, node.claim(0, None)).await;
    let last = async || {
        let mut asker = Asker::connect(&address).await;
        asker.send(&hello()).await;
        let last = asker.next().await;
        assert_eq!(asker.next::<ServerFrame>().await, None, "it is closed at once");
        last
    };
    assert_eq!(last().await, Some(ServerFrame::Close(Refusal::Gone)));
    let claim = Claim { service, ..node.claim(0, None) };
    let registration = must_apply(&mut client, &node, claim).await;
    let Some(ServerFrame::Moved(location)) = last().await else { panic!("moved") };
    assert_eq!(location, registration.location());
    assert_eq!(location.addresses[0].as_str(), "chats://node.example:5000");
    let (key, generation) = (node.key.public(), generation(1));
    assert_eq!((location.key, location.generation), (key, generation));
}

#[tokio::test]
async fn connections_are_bounded_and_those_that_there_are_are_answered_on() {
    let folder = private_folder();
    let config =
        DirectoryConfig { connections_max: 16, ..DirectoryConfig::new(folder.path().to_owned()) };
    let (_directory, address) = start(config).await;
    let mut askers = Vec::new();
    for _ in 0..16 {
        askers.push(Asker::greeted(&address).await);
    }
    let mut late = Asker::connect(&address).await;
    late.send(&node_hello()).await;
    let told = late.next().await;
    assert!(matches!(told, Some(ServerFrame::Close(Refusal::Busy { .. }))), "{told:?}");
    let mut client = DirectoryClient::new(address.clone(), None);
    let told = client.locate(&chat()).await.unwrap_err();
    assert!(matches!(told, DirectoryError::Refused { .. }), "{told}");
    for asker in &mut askers {
        let told = asker.ask(&DirectoryRequest::Locate { service: chat() }).await;
        assert_eq!(told, DirectoryReply::Unregistered);
    }
    // Who goes makes room.
    drop(askers.pop());
    while client.locate(&chat()).await.is_err() {}
}

#[tokio::test]
async fn services_are_bounded_and_survive_a_restart_all_together() {
    let folder = private_folder();
    let config = || DirectoryConfig {
        pace: Pace { burst: 1_000, ..Pace::default() },
        ..DirectoryConfig::new(folder.path().to_owned())
    };
    let (directory, address) = start(config()).await;
    let node = Node::new(1);
    let claim = |number: usize| Claim {
        service: format!("chat-{number}").parse().unwrap(),
        ..node.claim(0, None)
    };
    let mut client = DirectoryClient::new(address, None);
    for number in 0..SERVICES_MAX {
        must_apply(&mut client, &node, claim(number)).await;
    }
    let told = client.propose(claim(SERVICES_MAX), &node.key).await.unwrap();
    assert!(matches!(told, Proposed::Denied(ClaimFault::Services)), "{told:?}");
    directory.stop().await.unwrap();
    let (_directory, address) = start(config()).await;
    let mut client = DirectoryClient::new(address, client.key());
    for number in 0..SERVICES_MAX {
        let claim = claim(number);
        assert_eq!(client.locate(&claim.service).await.unwrap(), Some(after(&claim)));
    }
}

#[tokio::test]
async fn i7_directory_is_asked_by_tls_as_well() {
    let folder = private_folder();
    let listen = vec!["chats://127.0.0.1:0".parse().unwrap()];
    let tls = Tls::self_signed(folder.path(), &listen).unwrap();
    let data = folder.path().join("data");
    let config = DirectoryConfig { listen, tls: Some(tls), ..DirectoryConfig::new(data) };
    let directory = Directory::start(config).await.unwrap();
    let node = Node::new(1);
    let mut client = DirectoryClient::new(directory.addresses()[0].clone(), None);
    must_apply(&mut client, &node, node.claim(0, None)).await;
    assert_eq!(client.key(), Some(directory.key()));
    assert!(directory.certificate().unwrap().starts_with("sha256:"));
}

/// Asks by the program.
async fn locate(options: &[&str]) -> Output {
    let mut command = server();
    command.arg("locate").args(options).env_remove("CHAT_JSON");
    // The runtime goes on with the directory.
    tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap()
}

#[tokio::test]
async fn locate_tells_who_serves_as_lines_and_as_json_and_by_its_exit_status_why_not() {
    let folder = private_folder();
    let (directory, address) = start(DirectoryConfig::new(folder.path().to_owned())).await;
    let (nodes, key) = ([Node::new(1), Node::new(2)], directory.key());
    let mut client = DirectoryClient::new(address.clone(), Some(key));
    for round in 0..2 {
        let (owner, claim) = claim_of_round(&nodes, round);
        must_apply(&mut client, owner, claim).await;
    }
    let (at, good, other) =
        (address.to_string(), key.to_string(), PublicKey::new([1; 32]).to_string());
    let told = locate(&["--server", &at, "--json", "--key", &good]).await;
    assert!(told.status.success(), "{told:?}");
    let told: Value = serde_json::from_slice(&told.stdout).unwrap();
    assert_eq!((&told["type"], &told["service"]), (&"located".into(), &"chat".into()), "{told}");
    assert_eq!((&told["generation"], &told["server_key"]), (&2.into(), &good.as_str().into()));
    assert_eq!(told["owner"]["urls"][0], "chats://node.example:5000", "{told}");
    assert_eq!(told["owner"]["key"], nodes[0].key.public().to_string(), "{told}");
    assert_eq!(told["standby"]["key"], nodes[1].key.public().to_string(), "{told}");
    let told = locate(&["--server", &at]).await;
    let told = String::from_utf8(told.stdout).unwrap();
    assert!(told.contains("owner    chats://node.example:5000 (key "), "{told}");
    assert!(told.contains("generation 2"), "{told}");

    let (_chat, no_directory) = crate::start(Limits::default()).await;
    let no_directory = no_directory.to_string();
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = format!("chat://{}", free.local_addr().unwrap());
    drop(free);
    for (options, code, hint) in [
        (&["--server", &at, "--service", "other"][..], 1, "nobody has registered other"),
        (&["--server", &no_directory], 1, "is no directory"),
        (&["--server", &at, "--service", "no name"], 2, "a name may not contain"),
        (&["--server", &nobody], 3, "no directory can be reached"),
        (&["--server", &at, "--key", &other], 4, "has the key"),
    ] {
        let told = locate(options).await;
        let said = String::from_utf8_lossy(&told.stderr);
        assert_eq!(told.status.code(), Some(code), "{said}");
        assert!(said.contains(hint) && told.stdout.is_empty(), "{said}");
    }
}

#[test]
fn c12_sigterm_at_the_moment_the_directory_listens_is_an_orderly_end() {
    for signal in [Signal::TERM, Signal::INT] {
        let folder = private_folder();
        let (mut program, _, _) = serve(server(), folder.path());
        program.signal(signal);
        let line = program.line();
        assert!(line.contains(r#""type":"stopped""#), "{line}");
        let (status, stderr) = program.wait();
        assert_eq!(status.code(), Some(0), "{stderr}");
    }
}

#[test]
fn help_tells_what_a_directory_is_for_and_options_that_make_no_sense_are_usage_errors() {
    let help = |args: &[&str]| {
        let output = server().args(args).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let all = help(&["--help"]);
    assert!(all.contains("  directory ") && all.contains("  locate "), "{all}");
    let directory = help(&["directory", "--help"]);
    for option in [
        "--listen",
        "--data",
        "--service",
        "--tls-cert",
        "--tls-self-signed",
        "--plaintext",
        "--json",
    ] {
        assert!(directory.contains(option), "{option}: {directory}");
    }
    assert!(directory.contains("--rebuild <SERVICE=GENERATION>"), "{directory}");
    assert!(directory.contains("Keep a copy of its folder"), "{directory}");
    assert!(help(&["locate", "--help"]).contains("--service <NAME>"));
    assert!(help(&["man", "directory"]).contains("rebuild"));
    for (args, hint) in [
        (&["directory", "--rebuild", "chat"][..], "SERVICE=GENERATION"),
        (&["directory", "--rebuild", "chat=0"], "from 1"),
        (&["directory", "--threshold", "2"], "unexpected argument"),
        (&["directory", "--listen", "chat://0.0.0.0:0"], "--plaintext"),
    ] {
        let (status, stderr) = Program::start(args).wait();
        assert_eq!(status.code(), Some(2), "{args:?}: {stderr}");
        assert!(stderr.contains(hint), "{args:?}: {stderr}");
    }
}
