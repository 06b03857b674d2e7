//! A server in this process, clients in processes of their own, and deadlines for everything.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use chat_server::{Server, ServerConfig, ServerKey};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// The longest any one thing may take.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// A folder with a server's socket and key, and the clients' configuration.
pub(crate) struct World {
    folder: TempDir,
    runtime: Runtime,
    server: Option<Server>,
    threshold: u16,
}

impl World {
    /// A world whose server does not run yet.
    pub(crate) fn without_server(threshold: u16) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(2).enable_all().build().unwrap();
        Self { folder, runtime, server: None, threshold }
    }

    /// A world whose server runs.
    pub(crate) fn new(threshold: u16) -> Self {
        let mut world = Self::without_server(threshold);
        world.start_server();
        world
    }

    /// Starts the server, always with the same key and never with old messages.
    pub(crate) fn start_server(&mut self) {
        self.server = Some(self.serve(&[&self.address()]));
    }

    /// A server of this world that listens somewhere else.
    pub(crate) fn serve(&self, listen: &[&str]) -> Server {
        self.serve_as(listen, |_| {})
    }

    /// A server of this world that is told something else.
    pub(crate) fn serve_as(
        &self,
        listen: &[&str],
        change: impl FnOnce(&mut ServerConfig),
    ) -> Server {
        let key = ServerKey::in_folder(&self.path("server")).unwrap();
        let mut config = ServerConfig::new(key);
        config.listen = listen.iter().map(|address| address.parse().unwrap()).collect();
        config.threshold = chatcore::id::Threshold::new(self.threshold).unwrap();
        change(&mut config);
        self.runtime.block_on(Server::start(config)).unwrap()
    }

    pub(crate) fn stop_server(&mut self) {
        let server = self.server.take().unwrap();
        self.stop(server);
    }

    pub(crate) fn stop(&self, server: Server) {
        self.runtime.block_on(server.stop()).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn address(&self) -> String {
        format!("unix:{}", self.path("socket").display())
    }

    /// A client of this server with these options.
    pub(crate) fn client(&self, options: &[&str]) -> Client {
        let address = self.address();
        let options: Vec<&str> = [address.as_str()].into_iter().chain(options.to_vec()).collect();
        Client::start(self.folder.path(), &options)
    }

    /// A client in JSON mode under a name.
    pub(crate) fn json(&self, name: &str) -> Client {
        self.client(&["--json", "--name", name])
    }
}

/// A client's process. It is killed when it is dropped.
pub(crate) struct Client {
    process: Child,
    stdin: Option<ChildStdin>,
    stdout: Receiver<String>,
    stderr: Receiver<String>,
    shown: Vec<String>,
}

impl Client {
    /// Starts the program with these options alone, and its configuration in `folder`.
    pub(crate) fn start(folder: &Path, options: &[&str]) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_chat-client"))
            .args(options)
            .env_clear()
            .env("XDG_CONFIG_HOME", folder.join("config"))
            .env("TZ", "UTC")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = process.stdin.take();
        let stdout = lines_of(process.stdout.take().unwrap());
        let stderr = lines_of(process.stderr.take().unwrap());
        Self { process, stdin, stdout, stderr, shown: Vec::new() }
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) {
        let stdin = self.stdin.as_mut().expect("input must not have ended");
        stdin.write_all(bytes).unwrap();
        stdin.flush().unwrap();
    }

    pub(crate) fn say(&mut self, line: &str) {
        self.write(format!("{line}\n").as_bytes());
    }

    /// For input that is written while output is read; it ends when this is dropped.
    pub(crate) fn take_stdin(&mut self) -> ChildStdin {
        self.stdin.take().expect("input must not have ended")
    }

    pub(crate) fn end_input(&mut self) {
        self.stdin = None;
    }

    /// Stops reading what the client shows, as `head` does.
    pub(crate) fn close_stdout(&mut self) {
        // Replaced by one that never gives anything: the reading thread ends with its next line.
        self.stdout = channel().1;
    }

    /// The next line of stdout that fits.
    #[track_caller]
    pub(crate) fn line(&mut self, mut fits: impl FnMut(&str) -> bool) -> String {
        let until = Instant::now() + DEADLINE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let Ok(line) = self.stdout.recv_timeout(left) else {
                panic!("the line did not come; there were {:#?}", self.shown);
            };
            self.shown.push(line.clone());
            if fits(&line) {
                return line;
            }
        }
    }

    /// The next event of a type.
    #[track_caller]
    pub(crate) fn event(&mut self, kind: &str) -> Value {
        json(&self.line(|line| json(line)["type"] == kind))
    }

    /// The next message that says this.
    #[track_caller]
    pub(crate) fn message(&mut self, text: &str) -> Value {
        json(&self.line(|line| {
            let event = json(line);
            event["type"] == "message" && event["text"] == text
        }))
    }

    /// The next line of stderr that holds this.
    #[track_caller]
    pub(crate) fn diagnostic(&mut self, part: &str) -> String {
        let until = Instant::now() + DEADLINE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let line = self.stderr.recv_timeout(left).expect("the diagnostic must come");
            if line.contains(part) {
                return line;
            }
        }
    }

    /// Every line of stderr not taken yet, until its end.
    pub(crate) fn diagnostics(&self) -> Vec<String> {
        std::iter::from_fn(|| self.stderr.recv_timeout(DEADLINE).ok()).collect()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.process.id()).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
    }

    /// Kills the process as the system does when memory runs out.
    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Waits for the end, and gives the exit code and every line of stdout not taken yet.
    #[track_caller]
    pub(crate) fn exit(&mut self) -> (i32, Vec<String>) {
        let until = Instant::now() + DEADLINE;
        let mut rest = Vec::new();
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.stdout.recv_timeout(left) {
                Ok(line) => rest.push(line),
                Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => break,
                Err(std::sync::mpsc::RecvTimeoutError::Timeout) => panic!("no end: {rest:#?}"),
            }
        }
        (self.exit_code(), rest)
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.process.try_wait().unwrap().is_some()
    }

    /// Waits for the end, whoever reads stdout.
    #[track_caller]
    pub(crate) fn exit_code(&mut self) -> i32 {
        let until = Instant::now() + DEADLINE;
        // Nothing tells the end of a process to a thread that does not block on it.
        while Instant::now() < until {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status.code().expect("it must not die of a signal");
            }
            thread::yield_now();
        }
        panic!("the process did not end");
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // It may have ended already.
        let _ended = self.process.kill();
        let _reaped = self.process.wait();
    }
}

pub(crate) fn json(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
}

fn lines_of(stream: impl std::io::Read + Send + 'static) -> Receiver<String> {
    let (lines, received) = channel();
    thread::spawn(move || {
        for line in BufReader::new(stream).lines() {
            let Ok(line) = line else { return };
            if lines.send(line).is_err() {
                return;
            }
        }
    });
    received
}
