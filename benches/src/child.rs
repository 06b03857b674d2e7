//! A process that is measured.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use chatcore::address::Address;

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
}

/// A process that listens; it ends with this value, however the measurement ends.
#[derive(Debug)]
pub(crate) struct Child {
    process: std::process::Child,
    address: Address,
    /// Where its socket and its key are.
    _folder: tempfile::TempDir,
}

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
            Transport::Unix => format!("unix:{}", folder.path().join("socket").display()),
        };
        command.args(["--listen", &listen]).stdin(Stdio::null()).stdout(Stdio::piped());
        let process = command.spawn()?;
        // From here on the process ends with the value, also when the next step fails.
        let mut child = Self { process, address: Address::default(), _folder: folder };
        child.address = child.read_address()?;
        Ok(child)
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

    fn read_address(&mut self) -> Result<Address, Failure> {
        let stdout = self.process.stdout.take().ok_or(Failure::NotListening)?;
        let (lines, first) = mpsc::channel();
        // It reads on, so that the process never waits for its own report to be read.
        std::thread::spawn(move || {
            let (mut reader, mut line) = (BufReader::new(stdout), String::new());
            let read = reader.read_line(&mut line);
            // Whoever waited may have given up.
            let _ = read.is_ok().then(|| lines.send(line));
            let _ = reader.read_to_end(&mut Vec::new());
        });
        let line = first.recv_timeout(START_TIME).map_err(|_| Failure::NotListening)?;
        let event: serde_json::Value =
            serde_json::from_str(&line).map_err(|_| Failure::NotListening)?;
        let url = event.get("url").and_then(serde_json::Value::as_str);
        url.and_then(|url| url.parse().ok()).ok_or(Failure::NotListening)
    }
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
}
