//! Facts about the sources that the compiler does not check.

mod sources;

use sources::Source;

/// What each module of chatcore may use, beside itself: dependencies point downwards only.
const MAY_USE: [(&str, &[&str]); 16] = [
    ("address", &[]),
    ("mutant", &[]),
    ("id", &[]),
    ("time", &["id"]),
    ("text", &[]),
    ("limits", &["time"]),
    ("wire", &["id", "text", "time"]),
    ("codec", &["wire"]),
    ("log", &["codec", "id", "text", "time", "wire"]),
    ("chunk", &["codec", "id", "wire"]),
    ("engine", &["chunk", "codec", "id", "limits", "log", "mutant", "text", "time", "wire"]),
    ("client", &["id", "limits", "mutant", "text", "time", "wire"]),
    ("delivery", &["chunk", "codec", "engine", "id", "limits", "mutant", "text", "time", "wire"]),
    ("migration", &["id", "mutant", "text", "wire"]),
    ("hub", &["codec", "delivery", "engine", "id", "limits", "log", "time", "wire"]),
    ("lib", &[]),
];

/// What the library must do without: the world is its host's.
const OUTSIDE: [&str; 16] = [
    "std::net",
    "std::fs",
    "std::thread",
    "std::process",
    "std::env",
    "std::time",
    "std::sync::Mutex",
    "std::sync::RwLock",
    "Instant",
    "SystemTime",
    "HashMap",
    "HashSet",
    "println!",
    "tracing::",
    "log::info",
    "getrandom",
];

const LINES_OF_A_FUNCTION_MAX: usize = 70;

/// The lines of a file's code with their numbers, without comments and without unit tests.
fn code(source: &Source) -> impl Iterator<Item = (usize, &str)> {
    let lines = source.text.lines().take_while(|line| *line != "#[cfg(test)]");
    let lines = (1..).zip(lines).map(|(number, line)| (number, line.trim_start()));
    lines.filter(|(_, line)| !line.starts_with("//"))
}

/// The module of chatcore that a file belongs to, if it belongs to the library.
fn module_of(source: &Source) -> Option<&str> {
    let path = source.path.strip_prefix("chatcore/src/")?;
    path.split(['/', '.']).next()
}

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|letter: char| !letter.is_alphanumeric() && letter != '_')
}

/// The modules of chatcore that a line names after `crate::`.
fn used(line: &str) -> impl Iterator<Item = &str> {
    line.split("crate::").skip(1).filter_map(|rest| words(rest).next())
}

fn wrong_uses(source: &Source) -> Vec<String> {
    let Some(module) = module_of(source) else { return Vec::new() };
    let rule = MAY_USE.iter().find(|(name, _)| *name == module);
    let Some((_, may_use)) = rule else { return vec![format!("{module} has no rule")] };
    let uses = code(source).flat_map(|(number, line)| used(line).map(move |name| (number, name)));
    uses.filter(|(_, name)| MAY_USE.iter().any(|(module, _)| module == name))
        .filter(|(_, name)| *name != module && !may_use.contains(name))
        .map(|(number, name)| format!("{}:{number} uses {name}", source.path))
        .collect()
}

/// What of the world outside a file of the library names.
fn reaches_outside(source: &Source) -> Vec<String> {
    let named = |line: &str| OUTSIDE.into_iter().find(|name| line.contains(name));
    code(source)
        .filter_map(|(number, line)| Some((number, named(line)?)))
        .map(|(number, name)| format!("{}:{number} names {name}", source.path))
        .collect()
}

fn begins_function(line: &str) -> bool {
    let qualifiers = ["pub", "crate", "super", "const", "async", ""];
    words(line).find(|word| !qualifiers.contains(word)) == Some("fn")
        && !line.starts_with(['/', '$'])
}

/// Functions that are too long, as rustfmt lays them out: from `fn` to the brace of its column.
fn long_functions(source: &Source) -> Vec<String> {
    let mut open: Option<(usize, &str)> = None;
    let mut long = Vec::new();
    for (number, line) in (1..).zip(source.text.lines()) {
        let text = line.trim_start();
        let indent = line.get(..line.len() - text.len()).unwrap_or_default();
        match open {
            None if begins_function(text) => {
                open = (!text.ends_with(['}', ';'])).then_some((number, indent));
            }
            Some((start, column)) if indent == column && ["}", ");"].contains(&text) => {
                if number - start >= LINES_OF_A_FUNCTION_MAX {
                    long.push(format!("{}:{start} has {} lines", source.path, number - start + 1));
                }
                open = None;
            }
            None | Some(_) => {}
        }
    }
    long
}

fn library() -> Vec<Source> {
    let mut sources = sources::of_workspace();
    sources.retain(|source| source.path.starts_with("chatcore/src/"));
    sources
}

fn made(path: &str, text: &str) -> Source {
    Source { path: path.to_owned(), text: text.to_owned() }
}

#[test]
fn dependencies_point_downwards() {
    let wrong: Vec<_> = library().iter().flat_map(wrong_uses).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let client = made("chatcore/src/client/machine.rs", "use crate::{id::Seq};\nuse crate::engine");
    assert_eq!(wrong_uses(&client), ["chatcore/src/client/machine.rs:2 uses engine"]);
    let new = made("chatcore/src/elsewhere.rs", "");
    assert_eq!(wrong_uses(&new), ["elsewhere has no rule"]);
}

#[test]
fn delivery_knows_of_the_engine_only_what_it_is_told() {
    let sources = library();
    let delivery = sources.iter().filter(|source| module_of(source) == Some("delivery"));
    let lines: Vec<&str> = delivery
        .flat_map(|source| code(source).map(|(_, line)| line))
        .filter(|line| used(line).any(|name| name == "engine"))
        .collect();
    assert_eq!(lines, ["use crate::engine::{Directive, Need, Page};"]);
}

#[test]
fn library_reaches_for_nothing_outside() {
    let outside: Vec<_> = library().iter().flat_map(reaches_outside).collect();
    assert!(outside.is_empty(), "{}", outside.join("\n"));
    let text = "//! Instant\nlet now = Instant::now();\n#[cfg(test)]\nuse std::fs;";
    let found = reaches_outside(&made("chatcore/src/id.rs", text));
    assert_eq!(found, ["chatcore/src/id.rs:2 names Instant"]);
}

#[test]
fn every_file_says_what_it_is() {
    let sources = sources::of_workspace();
    let silent: Vec<_> = sources
        .iter()
        .filter(|source| !source.text.lines().any(|line| line.starts_with("//! ")))
        .filter(|source| !source.text.starts_with("#![no_main]"))
        .map(|source| source.path.as_str())
        .collect();
    assert!(silent.is_empty(), "{}", silent.join("\n"));
}

#[test]
fn docs_promise_nothing_that_is_not_done() {
    // Spelt so that this file does not find itself.
    let marks = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];
    let sources = sources::of_workspace();
    let found: Vec<_> = sources
        .iter()
        .filter(|source| marks.iter().any(|mark| words(&source.text).any(|word| word == *mark)))
        .map(|source| source.path.as_str())
        .collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn no_function_is_longer_than_a_page() {
    let long: Vec<_> = sources::of_workspace().iter().flat_map(long_functions).collect();
    assert!(long.is_empty(), "{}", long.join("\n"));
    let body = "    x();\n".repeat(69);
    let found =
        long_functions(&made("a.rs", &format!("fn short() {{}}\nfn long() {{\n{body}}}\n")));
    assert_eq!(found, ["a.rs:2 has 71 lines"]);
}
