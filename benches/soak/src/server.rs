//! The server's process.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

/// How long it may take to start, and to stop: it promises 10 s.
const STEP_TIME: Duration = Duration::from_secs(15);

/// How a server is started.
#[derive(Clone, Debug)]
pub(crate) struct Launch {
    pub(crate) program: PathBuf,
    /// Where its key is, and what it keeps.
    pub(crate) folder: PathBuf,
    /// Whether it keeps what it acknowledges.
    pub(crate) keeps: bool,
    pub(crate) threshold: u16,
    pub(crate) operator: String,
}

/// A server that listens. It is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    /// As its `listening` line has it.
    pub(crate) url: String,
    launch: Launch,
    child: Child,
    /// Held open, for it has more to say.
    _lines: BufReader<ChildStdout>,
}

#[derive(Deserialize)]
struct Listening {
    url: String,
}

impl Server {
    /// Starts a server on a free port, and waits until it listens.
    pub(crate) async fn start(launch: Launch) -> io::Result<Self> {
        Self::start_at("chat://127.0.0.1:0", launch).await
    }

    async fn start_at(url: &str, launch: Launch) -> io::Result<Self> {
        let Launch { program, folder, keeps, threshold, operator } = &launch;
        let mut command = Command::new(program);
        command.args(["--json", "--listen", url, "--operator", operator, "--threshold"]);
        command.arg(threshold.to_string()).arg("--data").arg(folder);
        if !keeps {
            command.arg("--ephemeral");
        }
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
        let stdout = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let mut lines = BufReader::new(stdout);
        let mut line = String::new();
        timeout(STEP_TIME, lines.read_line(&mut line)).await??;
        let listening = serde_json::from_str(&line).ok();
        let (url, address) = listening
            .and_then(|Listening { url }| {
                let address = url.strip_prefix("chat://")?.parse().ok()?;
                Some((url, address))
            })
            .ok_or_else(|| io::Error::other(format!("the server began with {line:?}")))?;
        Ok(Self { address, url, launch, child, _lines: lines })
    }

    /// Kills it, and starts it again on what it kept, where it was.
    pub(crate) async fn kill_and_start_again(&mut self) -> io::Result<()> {
        self.child.kill().await?;
        *self = Self::start_at(&self.url, self.launch.clone()).await?;
        Ok(())
    }

    /// Stops it in order.
    pub(crate) async fn stop(mut self) -> io::Result<ExitStatus> {
        let pid = self.child.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        if let Some(pid) = pid {
            kill_process(pid, Signal::TERM)?;
        }
        timeout(STEP_TIME, self.child.wait()).await?
    }
}
