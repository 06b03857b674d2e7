//! Why a measurement fails.

use std::io;
use std::path::PathBuf;

/// Why a measurement fails.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(
        "there is no {}: build it with `cargo build --release -p chat-server`",
        path.display()
    )]
    NoServer { path: PathBuf },
    #[error("the measured process did not say where it listens within 10 seconds")]
    NotListening,
    #[error("the measured process ended its connections")]
    Ended,
    #[error("the run did not end within its time limit")]
    TimeLimit,
    #[error("a receiver expected record {expected} and got {found}")]
    OutOfOrder { expected: u64, found: u64 },
    #[error("a receiver expected text {expected} of somebody and got {found}")]
    WrongText { expected: usize, found: usize },
    #[error("{deliveries} messages were never shown to somebody who was due them")]
    Missing { deliveries: u64 },
    #[error(
        "{needed} open files are needed and {allowed} are allowed: raise the limit (ulimit -Hn), or \
         have fewer connections"
    )]
    Descriptors { needed: u64, allowed: u64 },
    #[error("the server refused a member of the crowd: {0}")]
    Refused(chatcore::wire::Refusal),
    #[error("a frame was not what the protocol says: {0}")]
    Protocol(&'static str),
    #[error("the server did not say how often it synced; is it of another version?")]
    NoCommits,
    #[error("the run was too short to measure: use more --posts")]
    TooShort,
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<rustix::io::Errno> for Failure {
    fn from(error: rustix::io::Errno) -> Self {
        Self::Io(error.into())
    }
}
