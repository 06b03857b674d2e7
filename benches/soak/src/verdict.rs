//! The checker's process, and whether it found what was expected.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use tokio::process::Command;
use tokio::time::{Instant, timeout_at};

use crate::args::Expect;

/// What the checker said.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) text: String,
    status: ExitStatus,
}

/// Whether killed clients had to know what they showed last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kills {
    None,
    Some,
}

impl Verdict {
    /// Has the clients' output judged.
    pub(crate) async fn of(
        program: &Path,
        files: &[PathBuf],
        server: &str,
        kills: Kills,
        deadline: Instant,
    ) -> io::Result<Self> {
        let mut command = Command::new(program);
        command.args(["--server", server]);
        if kills == Kills::Some {
            command.arg("--allow-repeats-after-kill");
        }
        command.args(files).stdin(Stdio::null()).stderr(Stdio::inherit()).kill_on_drop(true);
        let output = timeout_at(deadline, command.output()).await??;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok(Self { text, status: output.status })
    }

    pub(crate) fn meets(&self, expected: Expect) -> bool {
        match expected {
            Expect::Clean => self.status.success(),
            Expect::Condemned => self.status.code() == Some(1) && self.doubled() > 0,
        }
    }

    fn doubled(&self) -> u64 {
        let count = self.text.lines().find_map(|line| line.strip_prefix("doubled: "));
        count.and_then(|count| count.parse().ok()).unwrap_or(0)
    }
}
