//! A person at a terminal: a line editor on a thread of its own, its prompt kept below what comes
//! in.

use std::convert::Infallible;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use rustix::process::{Signal, getpid, kill_process};
use rustix::termios::{InputModes, LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use rustyline::error::ReadlineError;
use rustyline::{DefaultEditor, ExternalPrinter as _};
use tokio::sync::mpsc;

use crate::screen::WriteBatch;

/// How long the editor may take to end; only a terminal that takes no bytes makes it wait.
const EDITOR_TIME: Duration = Duration::from_secs(1);

/// The editor turns it on at each prompt; it can turn it off only as long as it has the terminal.
const BRACKETED_PASTE_OFF: &[u8] = b"\x1b[?2004l";

/// A batch that shows nothing: a line up, and down again. The editor takes one batch after the
/// other and does not say when; but once it takes this one, it has shown those before.
pub const NOTHING: &str = "\x1b[A\n";

/// Why there is no line editor.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TerminalError {
    /// The editor does not know what to do with this terminal.
    #[error("this terminal cannot edit lines ({0}); try --plain")]
    Editor(#[from] ReadlineError),
    /// The terminal's settings cannot be read, or there is no thread.
    #[error("the terminal cannot be used: {0}")]
    Io(#[from] io::Error),
}

/// What the person did.
#[derive(Debug, PartialEq, Eq)]
pub enum Typed {
    /// A line; after a paste it may hold line breaks.
    Line(String),
    /// Bytes that are no text; what was typed before them is gone.
    NotUtf8,
    /// Control-D on an empty line.
    End,
    /// Control-C.
    Interrupt,
}

/// The line editor.
///
/// Invariants: from start to end the terminal echoes nothing by itself, so that what is typed
/// before a prompt waits for it instead of being scattered over the screen; and the editor's thread
/// has let go of the terminal when its settings are put back.
pub struct Terminal {
    /// A prompt for each line wanted; `None` at the end.
    prompts: Option<Sender<String>>,
    typed: mpsc::Receiver<Typed>,
    /// How many prompts were not answered: 0 or 1.
    asked: usize,
    /// Closed when the thread ends.
    editing: Receiver<Infallible>,
    /// The terminal, also when standard input is something else.
    device: OwnedFd,
    /// The settings before this changed them.
    settings: Termios,
}

impl std::fmt::Debug for Terminal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Terminal").field("asked", &self.asked).finish_non_exhaustive()
    }
}

impl Terminal {
    /// Starts the editor, and gives the way to write above its prompt.
    ///
    /// # Errors
    /// When the terminal is of no use.
    pub fn start() -> Result<(Self, WriteBatch), TerminalError> {
        let mut editor = DefaultEditor::new()?;
        let mut printer = editor.create_external_printer()?;
        let device = io::stdin().as_fd().try_clone_to_owned()?;
        let settings = tcgetattr(&device).map_err(io::Error::from)?;
        let (prompts, wanted) = channel();
        let (typed_to, typed) = mpsc::channel(1);
        let (edits, editing) = channel();
        thread::Builder::new().name("editor".into()).spawn(move || {
            edit(editor, &wanted, &typed_to);
            drop::<Sender<Infallible>>(edits);
        })?;
        let write: WriteBatch =
            Box::new(move |batch| printer.print(batch.to_owned()).map_err(io::Error::other));
        let prompts = Some(prompts);
        let started = Self { prompts, typed, asked: 0, editing, device, settings };
        // Only now: what changed the settings also puts them back.
        started.hush()?;
        Ok((started, write))
    }

    /// Between prompts keys wait to be read; control-C still is a signal.
    fn hush(&self) -> io::Result<()> {
        let mut quiet = self.settings.clone();
        quiet.local_modes -= LocalModes::ICANON | LocalModes::ECHO;
        quiet.input_modes -= InputModes::ICRNL;
        Ok(tcsetattr(&self.device, OptionalActions::Now, &quiet)?)
    }

    /// Asks for a line, unless that was done already.
    pub fn prompt(&mut self, prompt: &str) {
        if self.asked == 0
            && let Some(prompts) = &self.prompts
            && prompts.send(prompt.to_owned()).is_ok()
        {
            self.asked = 1;
        }
    }

    /// Waits for what the person does; for ever when nothing was asked. It may be dropped and
    /// called again.
    pub async fn next(&mut self) -> Typed {
        if self.asked == 0 {
            return std::future::pending().await;
        }
        let typed = self.typed.recv().await.unwrap_or(Typed::End);
        self.asked = 0;
        typed
    }

    /// Takes the keyboard away from the editor, which may be waiting for a key or be about to:
    /// it finds the end of input instead.
    fn end_editing(&mut self) -> io::Result<()> {
        self.prompts = None;
        self.typed.close();
        rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
        // It waits for the old input still; a change of size makes it look again.
        kill_process(getpid(), Signal::WINCH)?;
        match self.editing.recv_timeout(EDITOR_TIME) {
            Err(RecvTimeoutError::Timeout) => Err(io::ErrorKind::TimedOut.into()),
            Err(RecvTimeoutError::Disconnected) => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(BRACKETED_PASTE_OFF)?;
                stdout.flush()
            }
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Whatever fails here, the settings are put back.
        let _best_effort = self.end_editing();
        let _best_effort = tcsetattr(&self.device, OptionalActions::Now, &self.settings);
    }
}

fn edit(mut editor: DefaultEditor, wanted: &Receiver<String>, typed: &mpsc::Sender<Typed>) {
    for prompt in wanted {
        let done = match editor.readline(&prompt) {
            Ok(line) => {
                // A history that is full or disabled is no reason to stop.
                let _kept = editor.add_history_entry(&line);
                Typed::Line(line)
            }
            Err(ReadlineError::Interrupted) => Typed::Interrupt,
            Err(ReadlineError::Io(error)) if error.kind() == io::ErrorKind::InvalidData => {
                Typed::NotUtf8
            }
            Err(_) => Typed::End,
        };
        if typed.blocking_send(done).is_err() {
            return;
        }
    }
}
