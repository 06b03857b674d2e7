//! Where the programs are that take part.

use std::path::PathBuf;
use std::{env, io};

use crate::args::Args;

/// Paths of programs that exist.
#[derive(Debug)]
pub(crate) struct Programs {
    pub(crate) server: PathBuf,
    pub(crate) client: PathBuf,
    pub(crate) check: PathBuf,
}

/// Why a program cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProgramError {
    #[error("cannot tell where this program is: {0}")]
    Here(#[from] io::Error),
    #[error("there is no {}; build it: cargo build{profile} -p chat-server \
         -p chat-client -p chat-check", path.display())]
    Missing { path: PathBuf, profile: &'static str },
}

impl Programs {
    /// Finds them beside this program, or the server where the options say.
    pub(crate) fn find(args: &Args) -> Result<Self, ProgramError> {
        let here = env::current_exe()?;
        let beside = |name: &str| exists(here.with_file_name(name));
        Ok(Self {
            server: args.server.clone().map_or_else(|| beside("chat-server"), exists)?,
            client: beside("chat-client")?,
            check: beside("chat-check")?,
        })
    }
}

fn exists(path: PathBuf) -> Result<PathBuf, ProgramError> {
    if path.is_file() {
        return Ok(path);
    }
    let profile = if cfg!(debug_assertions) { "" } else { " --release" };
    Err(ProgramError::Missing { path, profile })
}
