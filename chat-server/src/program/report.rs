//! What the program says: lines for people, or JSON for scripts.

use std::io::{self, IsTerminal as _, Write as _};
use std::path::Path;

use chatcore::address::Address;
use chatcore::id::{Index, PublicKey, Threshold};
use chatcore::log::{Founding, OperatorRule};
use chatcore::migration::directory::Registration;
use chatcore::wire::{ServerHello, Status};
use serde_json::json;

use crate::directory::Directory;
use crate::program::args::{DirectoryArgs, RunArgs};
use crate::program::{Failure, located, status};
use crate::server::Server;
use crate::store::{BackedUp, BackupStep, Checked, Durability, Storage, TransferStep};
use crate::tls::TlsError;

/// For whom stdout is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Plain,
    Json,
}

/// Says what happens.
#[derive(Debug)]
pub(super) struct Report {
    form: Form,
}

impl Report {
    pub(super) const fn new(form: Form) -> Self {
        Self { form }
    }

    /// Says where it listens, what it keeps, and in which file the token for calls is.
    pub(super) fn listening(&self, server: &Server, storage: &Storage, token: Option<&Path>) {
        match self.form {
            Form::Json => {
                // Scripts read stdout; whoever started the script may want to know.
                let _ = writeln!(io::stderr(), "chat-server: {}", kept(storage));
                for address in server.addresses() {
                    say(&json!({
                        "type": "listening",
                        "url": address.to_string(),
                        "generation": server.generation().get(),
                        "role": "owner",
                        "certificate": server.certificate(),
                    }));
                }
                if let Some(admin) = server.admin() {
                    say(&json!({ "type": "admin", "url": admin.to_string() }));
                }
            }
            Form::Plain => {
                say(&welcome(server.addresses(), server.founding().threshold, storage));
                if let Some(key) = server.certificate() {
                    say(&format!("The key of its certificate is {key}."));
                }
                if let Some(admin) = server.admin() {
                    say(&told_at(admin));
                }
                if let Some(token) = token {
                    say(&format!("Calls there need the token in {}.", token.display()));
                }
            }
        }
    }

    /// Says where a directory listens, and by which key it is known.
    pub(super) fn directory(&self, directory: &Directory, folder: &Path) {
        let key = directory.key();
        match self.form {
            Form::Json => {
                for address in directory.addresses() {
                    say(&json!({
                        "type": "listening",
                        "url": address.to_string(),
                        "role": "directory",
                        "server_key": key,
                        "certificate": directory.certificate(),
                    }));
                }
            }
            Form::Plain => {
                let listening: Vec<String> =
                    directory.addresses().iter().map(Address::to_string).collect();
                say(&format!(
                    "chat-server {} is a directory on {}\nIts key is {key}, in {}.",
                    env!("CARGO_PKG_VERSION"),
                    listening.join(", "),
                    folder.display(),
                ));
                if let Some(key) = directory.certificate() {
                    say(&format!("The key of its certificate is {key}."));
                }
                say(&"Ctrl-C stops it; what is registered stays.");
            }
        }
    }

    /// Says who serves.
    pub(super) fn located(&self, told: &Registration, directory: Option<PublicKey>) {
        match self.form {
            Form::Json => say(&located::to_json(told, directory)),
            Form::Plain => say(&located::to_lines(told)),
        }
    }

    /// Something is wrong with the configuration.
    pub(super) fn problem(&self, problem: &impl std::fmt::Display) {
        match self.form {
            Form::Json => say(&json!({ "type": "problem", "text": problem.to_string() })),
            Form::Plain => {
                let _ = writeln!(io::stderr(), "chat-server: {problem}");
            }
        }
    }

    pub(super) fn well_configured(&self) {
        match self.form {
            Form::Json => say(&json!({ "type": "config", "problems": 0 })),
            Form::Plain => say(&"The configuration is well."),
        }
    }

    /// The certificate was to be read again: its key, or why it stays.
    pub(super) fn certificate(&self, read: Result<String, TlsError>) {
        match (self.form, read) {
            (Form::Json, Ok(key)) => say(&json!({ "type": "certificate", "key": key })),
            (Form::Plain, Ok(key)) => {
                say(&format!("SIGHUP: the certificate is read again. Its key is {key}."));
            }
            (form, Err(error)) => {
                let problem = format!("the certificate stays as it was: {error}");
                // Who sent the signal looks at the log, whatever stdout is for.
                if form == Form::Json {
                    say(&json!({ "type": "problem", "text": problem }));
                }
                let _ = writeln!(io::stderr(), "chat-server: {problem}");
            }
        }
    }

    pub(super) fn stopping(&self, reason: &str) {
        if self.form == Form::Plain {
            say(&format!("{reason}: telling everybody and stopping"));
        }
    }

    pub(super) fn stopped(&self, reason: &str) {
        match self.form {
            Form::Json => say(&json!({ "type": "stopped", "reason": reason })),
            Form::Plain => say(&"stopped"),
        }
    }

    /// Says what `check` found: each fault, then a summary.
    pub(super) fn checked(&self, folder: &Path, checked: &Checked) {
        let Checked { entries, state_hash, rooms, checkpoints, findings, notes, .. } = checked;
        let state = state_hash.map_or_else(|| "none".to_owned(), |hash| hash.to_string());
        for finding in findings {
            match self.form {
                Form::Json => say(&json!({ "type": "fault", "text": finding.to_string() })),
                Form::Plain => say(finding),
            }
        }
        for note in notes {
            match self.form {
                Form::Json => say(&json!({ "type": "note", "text": note.to_string() })),
                Form::Plain => say(note),
            }
        }
        let all = if notes.is_empty() { "all" } else { "all else" };
        match self.form {
            Form::Json => say(&json!({
                "type": "checked",
                "entries": entries.get(),
                "state_hash": state_hash,
                "rooms": rooms,
                "checkpoints": checkpoints,
                "faults": findings.len(),
            })),
            Form::Plain if findings.is_empty() => say(&format!(
                "{}: {all} is as it was written ({}, {}, {}, state {state})",
                folder.display(),
                number(entries.get(), "entry", "entries"),
                number(rooms, "room", "rooms"),
                number(checkpoints, "checkpoint", "checkpoints"),
            )),
            Form::Plain => {}
        }
    }

    /// Says what a server is doing.
    pub(super) fn status(&self, dialled: &Address, hello: &ServerHello, told: &Status) {
        match self.form {
            Form::Json => say(&status::to_json(dialled, hello, told)),
            Form::Plain => say(&status::to_lines(dialled, hello, told)),
        }
    }

    /// Where it is told how far a long job is.
    pub(super) fn progress(&self) -> ProgressLine {
        let is_watched = self.form == Form::Plain && io::stderr().is_terminal();
        ProgressLine { is_watched, shown: None }
    }

    /// As [`Self::progress`] for a job that writes lines to stdout: on one terminal they would mix.
    pub(super) fn progress_beside_lines(&self) -> ProgressLine {
        let mut progress = self.progress();
        progress.is_watched &= !io::stdout().is_terminal();
        progress
    }

    pub(super) fn backed_up(&self, dest: &Path, done: &BackedUp) {
        let BackedUp { entries, state_hash, bytes } = done;
        match self.form {
            Form::Json => say(&json!({
                "type": "backed_up",
                "path": dest.display().to_string(),
                "entries": entries,
                "state_hash": state_hash,
                "bytes": bytes,
            })),
            Form::Plain => say(&format!(
                "{entries} entries are in {} now, verified (state {state_hash}).\n\
                 It holds the server's secret key. To serve it: chat-server --data {}",
                dest.display(),
                dest.display(),
            )),
        }
    }

    pub(super) fn imported(&self, folder: &Path, entries: Index) {
        match self.form {
            Form::Json => say(&json!({ "type": "imported", "entries": entries })),
            Form::Plain => say(&format!("{entries} entries are in {} now", folder.display())),
        }
    }

    pub(super) fn failure(&self, failure: &Failure) {
        let is_of_another_job = matches!(
            failure,
            Failure::Store(_)
                | Failure::Backup(_)
                | Failure::Transfer(_)
                | Failure::Damaged { .. }
                | Failure::Identity(_)
                | Failure::NoRight(_)
                | Failure::Order(_)
                | Failure::Locate(_)
                | Failure::Unregistered { .. }
        );
        if self.form == Form::Json && !is_of_another_job {
            say(&json!({ "type": "stopped", "reason": failure.to_string() }));
        }
        // Nobody reads stderr: then the exit status has to say it.
        let _ = writeln!(io::stderr(), "chat-server: {failure}");
    }
}

/// A line on a terminal that says how far a job is.
#[derive(Debug)]
pub(super) struct ProgressLine {
    is_watched: bool,
    /// What it says.
    shown: Option<String>,
}

impl ProgressLine {
    pub(super) fn show(&mut self, text: String) {
        if self.is_watched && self.shown.as_ref() != Some(&text) {
            // Cleared of the text before, which may be longer.
            let _ = write!(io::stderr(), "\r{text:<PROGRESS_WIDTH$}");
            self.shown = Some(text);
        }
    }
}

/// The longest text of a progress line.
const PROGRESS_WIDTH: usize = 32;

pub(super) fn of_backup(step: BackupStep) -> String {
    match step {
        BackupStep::Copying { done, total } => format!("copying: {} %", percent(done, total)),
        BackupStep::Verifying => "verifying".to_owned(),
    }
}

pub(super) fn of_transfer(step: TransferStep) -> String {
    match step {
        TransferStep::Entries { done, total: Some(total) } => {
            format!("writing: {} %", percent(done, total))
        }
        TransferStep::Entries { done, total: None } => format!("{done} entries read"),
        TransferStep::Verifying => "verifying".to_owned(),
    }
}

fn percent(done: u64, total: u64) -> u64 {
    done.saturating_mul(100).checked_div(total).unwrap_or(100)
}

impl Drop for ProgressLine {
    fn drop(&mut self) {
        if self.shown.is_some() {
            let _ = write!(io::stderr(), "\r{:PROGRESS_WIDTH$}\r", "");
        }
    }
}

/// Says which options changed nothing, because the chat is older than this server.
pub(super) fn overruled(founding: &Founding, args: &RunArgs) {
    let mut err = io::stderr();
    if let Some(asked) = args.threshold.filter(|asked| *asked != founding.threshold) {
        let kept = founding.threshold;
        let _ = writeln!(
            err,
            "chat-server: --threshold {asked} changes nothing: this chat was begun with {kept}"
        );
    }
    if !args.operator.is_empty() && args.operator != founding.operators {
        let kept = operators(&founding.operators);
        let _ = writeln!(
            err,
            "chat-server: --operator changes nothing: the first operators were settled when this chat was \
             begun, and that is {kept}; operators make others by /op"
        );
    }
}

/// Says which services were not to be let go on, as they do.
pub(super) fn not_rebuilt(directory: &Directory, args: &DirectoryArgs) {
    for (service, last) in &args.rebuild {
        if let Some(told) = directory.registered(service) {
            let _ = writeln!(
                io::stderr(),
                "chat-server: --rebuild {service}={last} changes nothing: the service is registered, in \
                 generation {}. Leave the option out, or a loss goes unnoticed",
                told.generation
            );
        }
    }
}

/// Who the first operators are, for people.
fn operators(rules: &[OperatorRule]) -> String {
    let named = rules.iter().map(|rule| match rule {
        OperatorRule::Name(name) => name.to_string(),
        OperatorRule::Key(key) => format!("the key {key}"),
    });
    match rules {
        [] => "its first user".to_owned(),
        [_, ..] => named.collect::<Vec<_>>().join(", "),
    }
}

fn welcome(addresses: &[Address], threshold: Threshold, storage: &Storage) -> String {
    let listening: Vec<String> = addresses.iter().map(Address::to_string).collect();
    let first = addresses.first().cloned().unwrap_or_default();
    let at = if first == Address::default() { String::new() } else { format!(" {first}") };
    format!(
        "chat-server {} listens on {}\n\
         {}.\n\
         Messages are held until {threshold} {} connected.\n\
         Join from another terminal:\n\
         \n    cargo run --release -p chat-client --{at} --name YOU\n\n\
         Ctrl-C stops the server.",
        env!("CARGO_PKG_VERSION"),
        listening.join(", "),
        kept(storage),
        if threshold.get() == 1 { "user is" } else { "users are" },
    )
}

/// Where metrics are told and calls taken.
fn told_at(admin: &Address) -> String {
    match admin {
        Address::Unix(path) => {
            format!("Metrics are told, and calls taken, at the socket {}.", path.display())
        }
        Address::Tcp { .. } | Address::Tls { .. } => {
            let url = admin.to_string();
            let place = url.split_once("://").map_or(url.as_str(), |(_, place)| place);
            format!("Metrics are told at http://{place}/metrics.")
        }
    }
}

/// What becomes of messages when the server stops.
fn kept(storage: &Storage) -> String {
    match storage {
        Storage::Ephemeral => "Nothing is kept: messages are gone when the server stops".to_owned(),
        Storage::Folder { path, durability: Durability::Commit } => {
            format!("Messages are kept in {}", path.display())
        }
        Storage::Folder { path, durability: Durability::Relaxed } => format!(
            "Messages are kept in {}; a power cut may cost the newest moments",
            path.display()
        ),
    }
}

fn number(count: impl std::fmt::Display, one: &str, more: &str) -> String {
    let count = count.to_string();
    let word = if count == "1" { one } else { more };
    format!("{count} {word}")
}

/// Writes a line to stdout at once, for whoever waits for it.
fn say(line: &impl std::fmt::Display) {
    let mut out = io::stdout().lock();
    // A reader that went away does not stop the server.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_a_share_where_the_end_is_known_and_a_count_where_it_is_not() {
        let entries = |done, total| of_transfer(TransferStep::Entries { done, total });
        assert_eq!(entries(512, Some(1_024)), "writing: 50 %");
        assert_eq!(entries(0, Some(0)), "writing: 100 %");
        assert_eq!(entries(1_024, None), "1024 entries read");
        assert!(entries(1 << 53, None).len() <= PROGRESS_WIDTH);
        assert_eq!(of_backup(BackupStep::Copying { done: 1, total: 3 }), "copying: 33 %");
    }

    #[test]
    fn welcome_says_how_to_join_and_what_is_kept() {
        let usual = Storage::Folder { path: "/srv/chat".into(), durability: Durability::Commit };
        let usual = welcome(&[Address::default()], Threshold::DEFAULT, &usual);
        assert!(usual.contains("chat://127.0.0.1:5000"), "{usual}");
        assert!(usual.contains("chat-client -- --name YOU"), "{usual}");
        assert!(usual.contains("Messages are kept in /srv/chat."), "{usual}");
        let other: Address = "unix:/tmp/chat".parse().unwrap();
        let unusual = welcome(&[other], Threshold::DEFAULT, &Storage::Ephemeral);
        assert!(unusual.contains("chat-client -- unix:/tmp/chat --name YOU"), "{unusual}");
        assert!(unusual.contains("Nothing is kept"), "{unusual}");
    }
}
