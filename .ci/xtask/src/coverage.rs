//! `cargo xtask coverage`: which lines the tests reach.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::{Failure, cargo_command, output_of, run as run_command, script, watch, works};

/// The place of two columns in a row of the summary, counted in words.
const LINES_MISSED: usize = 8;
const LINES_COVER: usize = 9;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Optimised, as the random tests take long enough even so. Examples in docs and programs in examples/
are not counted, so hub.rs looks untested. Every line: target/llvm-cov/html/index.html, with --html.")]
pub(crate) struct Args {
    /// Measure every crate by every test, and not chatcore by its own
    #[arg(long)]
    workspace: bool,

    /// Write every line as a page, too
    #[arg(long)]
    html: bool,

    /// How many files to list, those with the least coverage first
    #[arg(long, default_value_t = 10, value_name = "N")]
    lowest: usize,
}

/// Runs the tests and tells what they reach.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    crate::need_cargo_tool("llvm-cov")?;
    let tools = find_tools()?;
    let mut command = cargo_command();
    command.args(["llvm-cov", "--release", "--all-features"]);
    if args.workspace {
        command.args(["--workspace", "--exclude", "xtask"]);
    } else {
        command.args(["-p", "chatcore"]);
    }
    tools.give_to(&mut command);
    let (lines, result) = watch(command.arg("--summary-only"))?;
    result?;
    tell_lowest(&lines, args.lowest)?;
    if args.html {
        let mut report = cargo_command();
        report.args(["llvm-cov", "report", "--release", "--html"]);
        tools.give_to(&mut report);
        run_command(&mut report)?;
    }
    Ok(())
}

fn tell_lowest(lines: &[String], count: usize) -> Result<(), Failure> {
    let mut files: Vec<(f64, &str, &str)> = lines.iter().filter_map(|line| file(line)).collect();
    let total = files.iter().position(|(_, name, _)| *name == "TOTAL");
    let Some(total) = total else {
        return Err(Failure::new("cargo llvm-cov printed no summary; see above"));
    };
    let (cover, _, missed) = files.remove(total);
    files.sort_by(|one, other| one.0.total_cmp(&other.0));
    println!("\n{cover} % of lines, {missed} missed; the lowest files:");
    for (cover, name, missed) in files.iter().take(count) {
        println!("{cover:>8.2} %  {missed:>5} missed  {name}");
    }
    Ok(())
}

/// Coverage, name and missed lines in a row of the summary.
fn file(line: &str) -> Option<(f64, &str, &str)> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let cover = words.get(LINES_COVER)?.strip_suffix('%')?.parse().ok()?;
    Some((cover, *words.first()?, *words.get(LINES_MISSED)?))
}

/// Where `llvm-cov` and `llvm-profdata` are.
#[derive(Debug, PartialEq, Eq)]
enum Tools {
    /// With the compiler, where they are found.
    OfToolchain,
    /// In this folder.
    In(PathBuf),
}

impl Tools {
    fn give_to(&self, command: &mut Command) {
        if let Self::In(folder) = self {
            command.env("LLVM_COV", folder.join("llvm-cov"));
            command.env("LLVM_PROFDATA", folder.join("llvm-profdata"));
        }
    }
}

/// Finds the tools, or has rustup install them.
fn find_tools() -> Result<Tools, Failure> {
    if std::env::var_os("LLVM_COV").is_some() && std::env::var_os("LLVM_PROFDATA").is_some() {
        return Ok(Tools::OfToolchain);
    }
    let libraries = output_of(script("rustc").args(["--print", "target-libdir"]))?;
    let of_toolchain = Path::new(libraries.trim()).with_file_name("bin");
    if works(script("rustup").args(["component", "add", "llvm-tools"])) || has_tools(&of_toolchain)
    {
        return Ok(Tools::OfToolchain);
    }
    let version = output_of(script("rustc").arg("-vV"))?;
    let major = llvm_of(&version).ok_or_else(|| Failure::new("rustc -vV names no LLVM version"))?;
    let of_debian = PathBuf::from(format!("/usr/lib/llvm-{major}/bin"));
    if has_tools(&of_debian) {
        return Ok(Tools::In(of_debian));
    }
    Err(Failure::new(format!(
        "there is no llvm-cov of LLVM {major}, and `rustup component add llvm-tools` fails; install \
         it (`apt install llvm-{major}`), or set LLVM_COV and LLVM_PROFDATA"
    )))
}

fn has_tools(folder: &Path) -> bool {
    ["llvm-cov", "llvm-profdata"].iter().all(|name| folder.join(name).is_file())
}

/// The first number of the LLVM that `rustc -vV` names.
fn llvm_of(version: &str) -> Option<&str> {
    version.lines().find_map(|line| line.strip_prefix("LLVM version: "))?.split('.').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_a_summary_are_read() {
        let row = "delivery.rs  623  14  97.75%  44  1  97.73%  388  6  98.45%  0  0  -";
        assert_eq!(file(row), Some((98.45, "delivery.rs", "6")));
        assert_eq!(file("Filename  Regions  Missed Regions  Cover"), None);
        assert_eq!(file("test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0"), None);
    }

    #[test]
    fn version_of_llvm_is_found() {
        assert_eq!(llvm_of("release: 1.95.0\nLLVM version: 22.1.2\n"), Some("22"));
        assert_eq!(llvm_of("release: 1.95.0"), None);
    }
}
