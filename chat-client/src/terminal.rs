//! A person at a terminal: a line editor on a thread of its own, its prompt kept below what comes
//! in.

use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use rustyline::error::ReadlineError;
use rustyline::{DefaultEditor, ExternalPrinter as _};
use tokio::sync::mpsc;

use crate::screen::WriteBatch;

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
    /// Control-D on an empty line.
    End,
    /// Control-C.
    Interrupt,
}

/// The line editor.
pub struct Terminal {
    /// A prompt for each line wanted.
    prompts: Sender<String>,
    typed: mpsc::Receiver<Typed>,
    /// How many prompts were not answered: 0 or 1.
    asked: usize,
    /// The settings before the editor changed them.
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
        let settings = tcgetattr(io::stdin()).map_err(io::Error::from)?;
        let mut editor = DefaultEditor::new()?;
        let mut printer = editor.create_external_printer()?;
        let (prompts, wanted) = channel();
        let (typed_to, typed) = mpsc::channel(1);
        thread::Builder::new()
            .name("editor".into())
            .spawn(move || edit(editor, &wanted, &typed_to))?;
        let write: WriteBatch =
            Box::new(move |batch| printer.print(batch.to_owned()).map_err(io::Error::other));
        Ok((Self { prompts, typed, asked: 0, settings }, write))
    }

    /// Asks for a line, unless that was done already.
    pub fn prompt(&mut self, prompt: &str) {
        if self.asked == 0 && self.prompts.send(prompt.to_owned()).is_ok() {
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
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // The editor may be waiting for a key, with the terminal in raw mode.
        let _best_effort = tcsetattr(io::stdin(), OptionalActions::Drain, &self.settings);
        if self.asked > 0 {
            println!();
        }
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
            Err(_) => Typed::End,
        };
        if typed.blocking_send(done).is_err() {
            return;
        }
    }
}
