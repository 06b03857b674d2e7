//! The program, as a process.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use chatcore::address::Address;
use chatcore::wire::{Refusal, ServerFrame};
use rustix::process::{Pid, Resource, Rlimit, Signal, prlimit};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::certificate::Certificate;
use crate::peer::{PATIENCE, Peer};

/// A running `chat-server`, killed when it is dropped.
pub(crate) struct Program {
    child: Child,
    stdout: BufReader<ChildStdout>,
    _data: tempfile::TempDir,
}

impl Program {
    pub(crate) fn start(args: &[&str]) -> Self {
        Self::start_by(Command::new(env!("CARGO_BIN_EXE_chat-server")), args)
    }

    pub(crate) fn start_by(mut command: Command, args: &[&str]) -> Self {
        let data = tempfile::tempdir().unwrap();
        command.args(args);
        if !args.contains(&"--data") {
            command.arg("--data").arg(data.path());
        }
        let mut child = command
            .env_remove("CHAT_JSON")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self { child, stdout, _data: data }
    }

    /// The next line of stdout.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Reads the line that says where it listens; `None` when it ends without.
    pub(crate) fn address_if_any(&mut self) -> Option<Address> {
        let line = self.line();
        let event: serde_json::Value = serde_json::from_str(&line).ok()?;
        (event["type"] == "listening").then(|| event["url"].as_str().unwrap().parse().unwrap())
    }

    /// Processes that it started, as a tracer did.
    pub(crate) fn children(&self) -> Vec<Pid> {
        let list = format!("/proc/{0}/task/{0}/children", self.id());
        let list = fs::read_to_string(list).unwrap_or_default();
        let numbers = list.split_whitespace().filter_map(|number| number.parse().ok());
        numbers.filter_map(Pid::from_raw).collect()
    }

    /// Reads the line that says where it listens.
    pub(crate) fn address(&mut self) -> Address {
        let line = self.line();
        let event: serde_json::Value = serde_json::from_str(&line).expect(&line);
        assert_eq!(event["type"], "listening", "{event}");
        assert_eq!(event["role"], "owner", "{event}");
        assert_eq!(event["generation"], 1, "{event}");
        event["url"].as_str().unwrap().parse().unwrap()
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Waits for the end and returns the status and what stderr said.
    pub(crate) fn wait(mut self) -> (ExitStatus, String) {
        let pid = Pid::from_child(&self.child);
        let (ended, watch) = std::sync::mpsc::channel::<()>();
        std::thread::spawn(move || {
            if watch.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
                let _ = rustix::process::kill_process(pid, Signal::KILL);
            }
        });
        let status = self.child.wait().unwrap();
        drop(ended);
        assert_ne!(status.signal(), Some(9), "the server must end in time");
        let mut stderr = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        (status, stderr)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let children = self.children();
        for child in &children {
            let _ = rustix::process::kill_process(*child, Signal::KILL);
        }
        if children.is_empty() {
            // It may have ended by itself.
            let _ = self.child.kill();
        }
        // A tracer ends once who it traces is gone, and with it the locks.
        let _ = self.child.wait();
    }
}

const FREE_PORT: [&str; 4] = ["--json", "--ephemeral", "--listen", "chat://127.0.0.1:0"];

/// Starts a server that can be reached in every way there is: by TCP, by TLS and by a Unix socket.
fn start_everywhere(folder: &Path, more: &[&str]) -> (Program, Vec<Address>) {
    let data = folder.join("data").display().to_string();
    let socket = format!("unix:{}", folder.join("socket").display());
    let mut options = vec!["--json", "--data", &data, "--tls-self-signed"];
    for address in ["chat://127.0.0.1:0", "chats://127.0.0.1:0", &socket] {
        options.extend(["--listen", address]);
    }
    options.extend(more);
    let mut program = Program::start(&options);
    let addresses = (0..3).map(|_| program.address()).collect();
    (program, addresses)
}

/// Talks without a pause until the server closes; what was acknowledged, and why it closed.
async fn talk(
    address: Address,
    name: String,
    began: mpsc::Sender<()>,
) -> (Vec<String>, Option<Refusal>) {
    const UNDER_WAY: usize = 16;

    let mut peer = Peer::join(&address, &name).await;
    let mut texts = (0..).map(|number| format!("{name} {number}"));
    let mut unanswered = BTreeMap::new();
    let (mut acknowledged, mut last) = (Vec::new(), None);
    loop {
        while unanswered.len() < UNDER_WAY {
            let text = texts.next().unwrap();
            unanswered.insert(peer.post(&text).await, text);
        }
        match peer.next().await {
            Some(ServerFrame::Accepted { counter, .. }) => {
                acknowledged.push(unanswered.remove(&counter).unwrap());
                // Who waits for it waits for the first alone.
                let _ = began.try_send(());
            }
            Some(ServerFrame::Close(refusal)) => last = Some(refusal),
            Some(_) => {}
            None => return (acknowledged, last),
        }
    }
}

#[tokio::test]
async fn c12_sigterm_under_load_tells_everybody_by_every_way_and_costs_nothing_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let (mut program, addresses) = start_everywhere(folder.path(), &[]);
    let mut talkers = JoinSet::new();
    for (number, address) in addresses.iter().cycle().take(9).enumerate() {
        let (begins, mut began) = mpsc::channel(1);
        talkers.spawn(talk(address.clone(), format!("talker-{number}"), begins));
        began.recv().await.expect("it must be heard");
    }
    let begun = Instant::now();
    program.signal(Signal::TERM);
    let mut acknowledged = BTreeSet::new();
    while let Some(talked) = talkers.join_next().await {
        let (texts, last) = talked.unwrap();
        assert_eq!(last, Some(Refusal::Gone));
        acknowledged.extend(texts);
    }
    let last = program.line();
    let (status, _) = program.wait();
    assert_eq!(status.code(), Some(0));
    assert!(last.contains(r#""type":"stopped""#) && last.contains("SIGTERM"), "{last}");
    assert!(begun.elapsed() < Duration::from_secs(10), "a drain takes at most 10 s");

    let (_program, addresses) = start_everywhere(folder.path(), &[]);
    let mut reader = Peer::join_from_the_first(&addresses[1], "reader").await;
    while !acknowledged.is_empty() {
        acknowledged.remove(&reader.posts(1).await[0]);
    }
}

#[test]
fn c12_sigterm_at_the_moment_the_server_listens_is_an_orderly_end() {
    for _ in 0..20 {
        let mut program =
            Program::start_by(Command::new(env!("CARGO_BIN_EXE_chat-server")), &FREE_PORT);
        program.address();
        program.signal(Signal::TERM);
        let (status, _) = program.wait();
        assert_eq!(status.code(), Some(0), "{status}");
    }
}

#[tokio::test]
async fn log_in_tells_the_url_of_the_listener_that_it_came_in_by() {
    let folder = tempfile::tempdir().unwrap();
    let file = format!("unix:{}", folder.path().join("chat.sock").display());
    let options = ["--json", "--listen", "chat://127.0.0.1:0", "--listen", &file];
    let mut program = Program::start(&options);
    let (tcp, unix) = (program.address(), program.address());
    let Address::Tcp { port, .. } = tcp else { panic!("{tcp}") };
    let by_name = Address::Tcp { host: "localhost".to_owned(), port };
    for (dialled, listening) in [(&tcp, &tcp), (&by_name, &tcp), (&unix, &unix)] {
        let welcome = Peer::connect(dialled).await.log_in("ana").await.unwrap();
        let told = welcome.address.map(|address| address.to_string());
        assert_eq!(told, Some(listening.to_string()), "{dialled}");
    }
}

#[tokio::test]
async fn c12_clients_that_read_nothing_do_not_keep_the_server_from_stopping() {
    let folder = tempfile::tempdir().unwrap();
    let (program, addresses) = start_everywhere(folder.path(), &["--ephemeral"]);
    let mut ana = Peer::join(&addresses[0], "ana").await;
    let mut stuck = Vec::new();
    for (address, name) in addresses.iter().zip(["eva", "ida", "ute"]) {
        stuck.push(Peer::join(address, name).await);
    }
    let text = "x".repeat(8_000);
    for _ in 0..1_000 {
        let counter = ana.post(&text).await;
        ana.answer_to(counter).await;
    }
    program.signal(Signal::TERM);
    let (status, _) = tokio::task::spawn_blocking(|| program.wait()).await.unwrap();
    assert_eq!(status.code(), Some(0));
}

#[test]
fn port_that_is_taken_is_told_with_what_to_do() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("chat://{}", taken.local_addr().unwrap());
    let (status, stderr) = Program::start(&["--listen", &address]).wait();
    assert_eq!(status.code(), Some(1));
    assert!(stderr.contains("in use") && stderr.contains("--listen"), "{stderr}");
}

#[test]
fn bad_options_are_usage_errors() {
    for (args, hint) in [
        (&["-n", "0"][..], "from 1 to 65535"),
        (&["-n", "two"], "from 1 to 65535"),
        (&["--listen", ":5001"], "chat://127.0.0.1:5001"),
        (&["--listen", "/tmp/chat.sock"], "unix:"),
        (&["--listen", "ftp://here"], "chat://"),
        (&["--listen", "chat://0.0.0.0:0"], "--plaintext"),
        (&["--operator", "a b"], "a name may not contain"),
        (&["--colour"], "unexpected argument"),
    ] {
        let (status, stderr) = Program::start(args).wait();
        assert_eq!(status.code(), Some(2), "{args:?}: {stderr}");
        assert!(stderr.contains(hint), "{args:?}: {stderr}");
    }
}

#[test]
fn address_or_folder_that_cannot_be_had_is_told_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    fs::write(path("file"), "").unwrap();
    let (long, deep) = (format!("unix:{}", path(&"x".repeat(120))), path("file/data"));
    let (homeless, file) =
        (format!("unix:{}", path("none/sock")), format!("unix:{}", path("file")));
    // Too long for a name, so that no resolver is asked.
    let unknown = "x".repeat(64);
    for (args, hint) in [
        (&["--listen", &unknown][..], "chat://HOST:PORT"),
        (&["--listen", "192.0.2.1:0", "--plaintext"], "no address of this machine"),
        (&["--listen", &long], "choose a shorter one"),
        (&["--listen", &homeless], "the folder must exist"),
        (&["--listen", &file], "something else than a socket"),
        (&["--data", &deep], "name another with --data"),
    ] {
        let (status, stderr) = Program::start(args).wait();
        assert_eq!(status.code(), Some(1), "{args:?}: {stderr}");
        assert!(stderr.contains(hint), "{args:?}: {stderr}");
    }
}

#[test]
fn i7_certificate_key_that_others_can_read_is_refused_at_the_start_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let certificate = Certificate::make(folder.path(), "one");
    certificate.open_key_to(0o644);
    let options = certificate.options();
    let (status, stderr) = Program::start(&options.each_ref().map(String::as_str)).wait();
    assert_eq!(status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("one.key") && stderr.contains("mode 644"), "{stderr}");
    assert!(stderr.contains("chmod 600"), "{stderr}");
}

#[tokio::test]
async fn data_folder_that_others_may_enter_serves_nobody_and_can_still_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let named = data.display().to_string();
    let open_to = |mode| fs::set_permissions(&data, fs::Permissions::from_mode(mode)).unwrap();
    let options = ["--json", "--listen", "chat://127.0.0.1:0", "--data", &named];
    let mut program = Program::start(&options);
    let mut ana = Peer::join(&program.address(), "ana").await;
    let counter = ana.post("kept").await;
    ana.answer_to(counter).await;
    program.signal(Signal::TERM);
    assert_eq!(program.wait().0.code(), Some(0));

    for (mode, told) in [(0o755, "mode 755"), (0o777, "mode 777")] {
        open_to(mode);
        let (status, stderr) = Program::start(&options).wait();
        assert_eq!(status.code(), Some(1), "{stderr}");
        for part in [&named, told, "chmod 700"] {
            assert!(stderr.contains(part), "{part} is not in {stderr}");
        }
        for job in ["check", "export"] {
            let mut command = Command::new(env!("CARGO_BIN_EXE_chat-server"));
            let output = command.args([job, "--data", &named]).output().unwrap();
            assert!(output.status.success(), "{job}: {output:?}");
        }
    }
    open_to(0o700);
    Program::start(&options).address();
}

/// A shell that starts the server with so few open files.
fn with_open_files(limit: u32) -> Command {
    let mut command = Command::new("sh");
    let script = format!("ulimit -n {limit} && exec \"$0\" \"$@\"");
    command.arg("-c").arg(script).arg(env!("CARGO_BIN_EXE_chat-server"));
    command
}

#[test]
fn too_few_open_files_are_told_at_the_start() {
    let (status, stderr) = Program::start_by(with_open_files(70), &FREE_PORT).wait();
    assert_eq!(status.code(), Some(1));
    assert!(stderr.contains("only 70 open files are allowed"), "{stderr}");
}

/// Lets a program that runs open so many files more, and no more.
fn leave_open_files(id: u32, count: usize) {
    let open = fs::read_dir(format!("/proc/{id}/fd")).unwrap().count();
    let pid = Pid::from_raw(id.try_into().unwrap());
    let current = Some(u64::try_from(open + count).unwrap());
    prlimit(pid, Resource::Nofile, Rlimit { current, maximum: current }).unwrap();
}

#[tokio::test]
async fn c6_shortage_of_descriptors_is_survived() {
    // Who says nothing is soon given up, so that this does not take long.
    let options = [&FREE_PORT[..], &["--limit", "login-time=1s"]].concat();
    let mut program = Program::start_by(Command::new(env!("CARGO_BIN_EXE_chat-server")), &options);
    let address = program.address();
    let mut ana = Peer::join(&address, "ana").await;
    let mut beto = Peer::join(&address, "beto").await;
    leave_open_files(program.id(), 20);
    // More connections than descriptors: the system queues some, the server sheds others.
    let mut crowd = Vec::new();
    for _ in 0..200 {
        crowd.push(Peer::connect(&address).await);
    }
    ana.post("still here").await;
    assert_eq!(beto.posts(1).await, ["still here"]);
    drop(crowd);
    // It accepts again by itself.
    let welcome = tokio::time::timeout(PATIENCE, async {
        loop {
            let mut carla = Peer::connect(&address).await;
            carla.send(&crate::peer::hello()).await;
            if let Some(ServerFrame::Hello(_)) = carla.next().await {
                return;
            }
        }
    });
    welcome.await.expect("the server must accept again");
    program.signal(Signal::TERM);
    let (status, stderr) = program.wait();
    assert_eq!(status.code(), Some(0));
    let complaints = stderr.matches("cannot accept more connections").count();
    assert_eq!(complaints, 1, "one line a minute: {stderr}");
}

#[tokio::test]
async fn h7_nothing_that_a_peer_sends_makes_up_a_line_of_the_log() {
    let options = [&FREE_PORT[..], &["-vv", "-n", "1"]].concat();
    let mut program = Program::start_by(Command::new(env!("CARGO_BIN_EXE_chat-server")), &options);
    let address = program.address();
    let nasty = "\u{1b}[2J\r\n2026-11-28T00:00:00Z ERROR chat_server: made up\u{202e}";
    let mut stranger = Peer::connect(&address).await;
    assert!(stranger.log_in(nasty).await.is_err());
    let mut raw = Peer::connect(&address).await;
    raw.send_bytes(format!("GET /{nasty} HTTP/1.1\r\nHost: {nasty}\r\n\r\n").as_bytes()).await;
    let mut ana = Peer::join(&address, "ana").await;
    ana.ask(crate::peer::join(nasty)).await;
    let counter = ana.post(nasty).await;
    ana.answer_to(counter).await;
    program.signal(Signal::TERM);
    let (status, log) = program.wait();
    assert_eq!(status.code(), Some(0));
    assert!(log.contains("logged in"), "{log}");
    for line in log.lines() {
        let made_up = line.contains("made up") || line.chars().any(char::is_control);
        assert!(!made_up, "{line:?}");
    }
}
