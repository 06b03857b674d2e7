//! Other programs: shown before they run, and named when they fail.

use std::fmt;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Why a command failed, and what to do.
#[derive(Debug)]
pub(crate) struct Failure(String);

impl Failure {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The top of the workspace.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_owned()
}

/// `cargo`, for the workspace. Through the PATH, so that `+nightly` goes on working in scripts.
pub(crate) fn cargo_command() -> Command {
    script("cargo")
}

/// A program of the PATH, or of the repository if there is a slash in its name.
pub(crate) fn script(program: &str) -> Command {
    let path = if program.contains('/') { root().join(program) } else { program.into() };
    let mut command = Command::new(path);
    command.current_dir(root()).stdin(Stdio::null());
    // Another toolchain, which a script may ask for, has libraries of its own.
    command.env_remove("LD_LIBRARY_PATH");
    command
}

/// The command as it is typed at the top of the repository.
pub(crate) fn shown(command: &Command) -> String {
    let root = root();
    let relative = |text: &str| {
        let path = Path::new(text).strip_prefix(&root);
        path.map_or_else(|_| text.to_owned(), |path| path.display().to_string())
    };
    let envs = command.get_envs().filter_map(|(name, value)| {
        Some(format!("{}={}", name.to_string_lossy(), quoted(&value?.to_string_lossy())))
    });
    let program = relative(&command.get_program().to_string_lossy());
    let args = command.get_args().map(|arg| quoted(&relative(&arg.to_string_lossy())));
    envs.chain([program]).chain(args).collect::<Vec<_>>().join(" ")
}

/// In quotes if a shell would take it apart.
fn quoted(text: &str) -> String {
    let is_plain = |letter: char| letter.is_alphanumeric() || "-_./:=,+@%".contains(letter);
    if text.chars().all(is_plain) { text.to_owned() } else { format!("'{text}'") }
}

/// Runs a command to its end.
pub(crate) fn run(command: &mut Command) -> Result<(), Failure> {
    let code = code_of(command)?;
    if code == Some(0) { Ok(()) } else { Err(failed(command, code)) }
}

/// Runs a command to its end and gives its exit code, if no signal ended it.
pub(crate) fn code_of(command: &mut Command) -> Result<Option<i32>, Failure> {
    println!("$ {}", shown(command));
    let status = command.status().map_err(|error| not_started(command, &error))?;
    Ok(status.code())
}

/// Runs a command, shows its lines as they come and gives them back, whether it ended well or not.
pub(crate) fn watch(command: &mut Command) -> Result<(Vec<String>, Result<(), Failure>), Failure> {
    println!("$ {}", shown(command));
    let child = command.stdout(Stdio::piped()).spawn();
    let mut child = child.map_err(|error| not_started(command, &error))?;
    let mut lines = Vec::new();
    for line in child.stdout.take().into_iter().flat_map(|out| BufReader::new(out).lines()) {
        let line = line.map_err(|error| Failure::new(format!("{}: {error}", shown(command))))?;
        println!("{line}");
        lines.push(line);
    }
    let status = child.wait().map_err(|error| not_started(command, &error))?;
    let result = if status.success() { Ok(()) } else { Err(failed(command, status.code())) };
    Ok((lines, result))
}

/// What a command prints, without showing it.
pub(crate) fn output_of(command: &mut Command) -> Result<String, Failure> {
    let output = command.stderr(Stdio::inherit()).output();
    let output = output.map_err(|error| not_started(command, &error))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() { Ok(text) } else { Err(failed(command, output.status.code())) }
}

/// Whether a command is there and ends well. Nothing is shown.
pub(crate) fn works(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}

fn not_started(command: &Command, error: &std::io::Error) -> Failure {
    Failure::new(format!("cannot run {}: {error}", command.get_program().to_string_lossy()))
}

fn failed(command: &Command, code: Option<i32>) -> Failure {
    let how = code.map_or("was killed".to_owned(), |code| format!("ended with {code}"));
    Failure::new(format!("`{}` {how}", shown(command)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_shown_as_they_are_typed() {
        let mut command = script(".ci/fuzz");
        command.args(["frame", "a b"]).arg(root().join("target/x")).env("FLAGS", "--cfg x");
        assert_eq!(shown(&command), "FLAGS='--cfg x' .ci/fuzz frame 'a b' target/x");
    }

    #[test]
    fn root_of_workspace_is_found() {
        assert!(root().join("Cargo.lock").is_file());
    }

    #[test]
    fn lines_and_failures_of_a_program_are_told() {
        let mut command = script("sh");
        command.args(["-c", "echo one; echo two; exit 3"]);
        let (lines, result) = watch(&mut command).unwrap();
        assert_eq!(lines, ["one", "two"]);
        assert!(result.unwrap_err().to_string().ends_with("ended with 3"));
    }
}
