//! A process that is measured.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{ChildStderr, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use chatcore::address::Address;
use rustix::process::{Pid, Signal, kill_process};

use crate::crowd::Speaks;
use crate::failure::Failure;

/// How long a process may take to say where it listens.
const START_TIME: Duration = Duration::from_secs(10);

/// The kind of socket that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Transport {
    /// TCP over loopback.
    Tcp,
    /// A Unix socket.
    Unix,
    /// TLS over loopback, where only the server's side is looked at.
    #[value(skip)]
    Tls,
}

impl Transport {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Unix => "unix",
            Self::Tls => "tls",
        }
    }
}

/// When a server acknowledges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Durability {
    /// Once the disk has it.
    Commit,
    /// Once the operating system has it.
    Relaxed,
}

impl Durability {
    const fn name(self) -> &'static str {
        match self {
            Self::Commit => "commit",
            Self::Relaxed => "relaxed",
        }
    }
}

/// A process that listens; it ends with this value, however the measurement ends.
#[derive(Debug)]
pub(crate) struct Child {
    process: std::process::Child,
    address: Address,
    /// What it writes to its standard output, and when.
    lines: mpsc::Receiver<(Instant, String)>,
    /// What it says about itself, if anybody asks.
    log: Option<JoinHandle<String>>,
    /// Where its socket and its key are, if they are of no use later: removed with this value.
    folder: Option<tempfile::TempDir>,
}

/// What a server can do is measured, not what it lets one client do.
const WITHOUT_RATES: [&str; 2] = [
    "--limit",
    "frames-per-second=16000000,frames-burst=16000000,bytes-per-second=64GiB,bytes-burst=64GiB,\
     logins-per-second=16000000,logins-burst=16000000",
];

impl Child {
    /// Starts what is measured and waits until it listens.
    pub(crate) fn start(
        speaks: Speaks,
        transport: Transport,
        text_bytes: usize,
    ) -> Result<Self, Failure> {
        let folder = tempfile::tempdir()?;
        let mut command = match speaks {
            Speaks::Chat => {
                let mut command = Command::new(server_path()?);
                command.args(WITHOUT_RATES);
                command.args(["--ephemeral", "--json", "--threshold", "1", "--data"]);
                command.arg(folder.path());
                command
            }
            Speaks::Nothing => {
                let mut command = Command::new(std::env::current_exe()?);
                command.args(["ceiling", "--text-bytes", &text_bytes.to_string()]);
                command
            }
        };
        let listen = match transport {
            Transport::Tcp => "chat://127.0.0.1:0".to_owned(),
            Transport::Tls => "chats://127.0.0.1:0".to_owned(),
            Transport::Unix => format!("unix:{}", folder.path().join("socket").display()),
        };
        if transport == Transport::Tls {
            command.arg("--tls-self-signed");
        }
        command.args(["--listen", &listen]).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = Self::spawn(&mut command)?;
        child.folder = Some(folder);
        child.address = child.listening()?.1;
        Ok(child)
    }

    /// Starts a chat server on a data folder and waits until it listens.
    pub(crate) fn on_folder(data: &Path, durability: Durability) -> Result<Self, Failure> {
        let mut command = Command::new(server_path()?);
        // What its own socket costs is not what is measured here.
        let listen = format!("unix:{}", data.join("socket").display());
        command.args(WITHOUT_RATES);
        command.args(["--json", "--threshold", "1", "--listen", &listen]);
        command.args(["--durability", durability.name(), "--data"]).arg(data);
        command.env("CHAT_LOG", "warn,chat_server::store=debug");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = Self::spawn(&mut command)?;
        child.address = child.listening()?.1;
        Ok(child)
    }

    /// Has a chat server begin on a data folder, with the limits and the durability that are the
    /// default, and does not wait until it listens: [`Self::listening`] does, once for each address.
    pub(crate) fn with_default_limits(data: &Path, listen: &[&str]) -> Result<Self, Failure> {
        let mut command = Command::new(server_path()?);
        command.args(["--json", "--threshold", "1", "--tls-self-signed", "--data"]).arg(data);
        for address in listen {
            command.args(["--listen", address]);
        }
        command.env("CHAT_LOG", "warn");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self::spawn(&mut command)
    }

    fn spawn(command: &mut Command) -> Result<Self, Failure> {
        let mut process = command.spawn()?;
        let (stdout, stderr) = (process.stdout.take(), process.stderr.take());
        let lines = stdout.map_or_else(|| mpsc::channel().1, lines_of);
        let address = Address::default();
        Ok(Self { process, address, lines, log: stderr.map(text_of), folder: None })
    }

    /// Has it stop in order; what it said about itself.
    pub(crate) fn stop(mut self) -> Result<String, Failure> {
        kill_process(Pid::from_child(&self.process), Signal::TERM)?;
        self.process.wait()?;
        let log = self.log.take().and_then(|log| log.join().ok());
        Ok(log.unwrap_or_default())
    }

    /// Ends it at once, as a power cut of it alone would.
    pub(crate) fn kill(mut self) -> Result<(), Failure> {
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }

    /// The memory of it that is resident, in bytes.
    pub(crate) fn resident_bytes(&self) -> Result<u64, Failure> {
        self.memory("VmRSS:")
    }

    /// The most memory of it that was ever resident, in bytes.
    pub(crate) fn peak_bytes(&self) -> Result<u64, Failure> {
        self.memory("VmHWM:")
    }

    fn memory(&self, which: &str) -> Result<u64, Failure> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        memory_of(&status, which).ok_or(Failure::Ended)
    }

    /// Where it listens.
    pub(crate) const fn address(&self) -> &Address {
        &self.address
    }

    /// The CPU time it has used, in user and in kernel mode, threads that ended included; in steps
    /// of a clock tick, usually 10 ms.
    pub(crate) fn cpu_time(&self) -> Result<Duration, Failure> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.id()))?;
        let ticks = cpu_ticks(&stat).ok_or(Failure::Ended)?;
        let ticks_a_second = rustix::param::clock_ticks_per_second().max(1);
        Ok(Duration::from_nanos(ticks * 1_000_000_000 / ticks_a_second))
    }

    /// Waits until it listens at one more address; when that was, and where.
    pub(crate) fn listening(&self) -> Result<(Instant, Address), Failure> {
        let (at, line) = self.lines.recv_timeout(START_TIME).map_err(|_| Failure::NotListening)?;
        let event: serde_json::Value =
            serde_json::from_str(&line).map_err(|_| Failure::NotListening)?;
        let url = event.get("url").and_then(serde_json::Value::as_str);
        let address = url.and_then(|url| url.parse().ok()).ok_or(Failure::NotListening)?;
        Ok((at, address))
    }
}

/// What it writes, line by line, so that it never waits for its own report to be read.
fn lines_of(stdout: ChildStdout) -> mpsc::Receiver<(Instant, String)> {
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            // Whoever waited may have gone.
            let _ = sender.send((Instant::now(), line));
        }
    });
    lines
}

fn text_of(stderr: ChildStderr) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut text = String::new();
        // What is no text ends it, and is missed where it is looked for.
        let _ = BufReader::new(stderr).read_to_string(&mut text);
        text
    })
}

impl Drop for Child {
    fn drop(&mut self) {
        // It may have ended by itself; either way nothing is left of it.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// User and kernel time in a line of `/proc/PID/stat`: the 14th and 15th field. The second one is
/// the program's name in brackets and may hold anything.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_whitespace().skip(11);
    let (user, kernel): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(user + kernel)
}

/// A figure of memory in `/proc/PID/status`.
fn memory_of(status: &str, which: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(which))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(1_024)
}

/// The server that was built beside this program.
fn server_path() -> Result<PathBuf, Failure> {
    let path = std::env::current_exe()?.with_file_name("chat-server");
    if path.is_file() { Ok(path) } else { Err(Failure::NoServer { path }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_ticks_are_found_behind_any_program_name() {
        let stat = "42 (a) b) S 1 42 42 0 -1 4194560 100 0 0 0 17 5 0 0 20 0 3 0 1 2 3";
        assert_eq!(cpu_ticks(stat), Some(22));
        assert_eq!(cpu_ticks("42 (cat"), None);
    }

    #[test]
    fn resident_memory_is_found_among_the_others() {
        let status = "Name:\tcat\nVmHWM:\t    9 kB\nVmRSS:\t    2 kB\nThreads:\t1\n";
        assert_eq!(memory_of(status, "VmRSS:"), Some(2_048));
        assert_eq!(memory_of(status, "VmHWM:"), Some(9_216));
        assert_eq!(memory_of("Name:\tcat\n", "VmRSS:"), None);
    }
}
