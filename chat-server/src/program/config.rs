//! The configuration file, and what becomes of it, flags and environment together.
//!
//! A file says what the command line could say, in TOML: each key is a long option, and the table
//! `[limits]` holds what `--limit` sets. So there is one list of options, that of the command line: what
//! the file says and neither a flag nor the environment does is given to it as further arguments. A new
//! option is in the file without a line here.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::ops::Range;
use std::path::{Path, PathBuf};

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command, CommandFactory as _, FromArgMatches as _};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::args::{Args, Job, RunArgs};
use super::bounds::Setting;

/// The most that is read.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// The option whose values are a table of the file.
const LIMIT: &str = "limit";

/// Options that make no sense in a file.
const NOT_IN_A_FILE: [&str; 4] = ["config", "print-config", "help", "version"];

/// Why a file cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) file: PathBuf,
    /// Line and column, counted from 1; `None` when it is about the whole file.
    pub(super) place: Option<(usize, usize)>,
    pub(super) text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, place, text } = self;
        match place {
            Some((line, column)) => write!(f, "{}:{line}:{column}: {text}", file.display()),
            None => write!(f, "{}: {text}", file.display()),
        }
    }
}

/// Where the value of an option came from.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Origin {
    Flag,
    Environment(String),
    Line(usize),
    Default,
    Nowhere,
}

/// What is to be done, and where each option of the main job came from.
#[derive(Debug)]
pub(super) struct Configured {
    pub(super) args: Args,
    /// What is wrong with the file; the options are then those without it.
    pub(super) problems: Vec<Problem>,
    matches: ArgMatches,
    lines: BTreeMap<String, usize>,
}

/// Reads the command line, the environment and the file that they name.
///
/// # Errors
/// When the command line makes no sense by itself, or together with the file.
pub(super) fn read(arguments: Vec<OsString>) -> Result<Configured, clap::Error> {
    let matches = Args::command().try_get_matches_from(&arguments)?;
    let args = Args::from_arg_matches(&matches)?;
    let Some(path) = args.run_args().and_then(|run| run.config.clone()) else {
        return Ok(Configured { args, problems: Vec::new(), matches, lines: BTreeMap::new() });
    };
    let of_run = matches.subcommand().map_or(&matches, |(_, of_job)| of_job).clone();
    let file = ConfigFile::read(&path, &of_run);
    if !file.problems.is_empty() {
        let lines = BTreeMap::new();
        return Ok(Configured { args, problems: file.problems, matches, lines });
    }
    let together = arguments.into_iter().chain(file.arguments);
    let matches = Args::command().try_get_matches_from(together)?;
    let args = Args::from_arg_matches(&matches)?;
    Ok(Configured { args, problems: Vec::new(), matches, lines: file.lines })
}

/// A file, as arguments of the command line.
struct ConfigFile<'a> {
    path: &'a Path,
    text: String,
    command: Command,
    /// What flags and environment say.
    said: &'a ArgMatches,
    arguments: Vec<OsString>,
    /// The line of each option that is taken from here.
    lines: BTreeMap<String, usize>,
    problems: Vec<Problem>,
}

impl<'a> ConfigFile<'a> {
    fn read(path: &'a Path, said: &'a ArgMatches) -> Self {
        let mut file = Self {
            path,
            text: String::new(),
            command: run_command(),
            said,
            arguments: Vec::new(),
            lines: BTreeMap::new(),
            problems: Vec::new(),
        };
        match read_text(path) {
            Ok(text) => file.text = text,
            Err(text) => file.problem(None, text),
        }
        file.take_all();
        file
    }

    fn take_all(&mut self) {
        let text = std::mem::take(&mut self.text);
        let (table, errors) = DeTable::parse_recoverable(&text);
        for error in errors {
            let place = error.span().map(|span| place_of(&text, &span));
            self.problem(place, error.message().to_owned());
        }
        let mut entries: Vec<_> = table.into_inner().into_iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        for (key, value) in entries {
            let place = place_of(&text, &key.span());
            if key.get_ref() == "limits" {
                self.take_limits(&text, place, value);
            } else if let Err(problem) = self.take(key.get_ref(), place, value.get_ref()) {
                self.problem(Some(place), problem);
            }
        }
    }

    /// Takes one option.
    fn take(
        &mut self,
        key: &str,
        place: (usize, usize),
        value: &DeValue<'_>,
    ) -> Result<(), String> {
        if NOT_IN_A_FILE.contains(&key) {
            return Err(format!("{key} makes no sense in a file"));
        }
        if key == LIMIT {
            return Err("limits have a table of their own: [limits]".to_owned());
        }
        let arg = self.command.get_arguments().find(|arg| arg.get_long() == Some(key));
        let arg = arg.ok_or_else(|| self.unknown(key))?.clone();
        let arguments = arguments_of(&arg, key, value)?;
        self.check(key, &arguments)?;
        if !is_said(self.said, arg.get_id().as_str()) {
            self.arguments.extend(arguments);
            self.lines.insert(key.to_owned(), place.0);
        }
        Ok(())
    }

    fn take_limits(&mut self, text: &str, place: (usize, usize), table: Spanned<DeValue<'_>>) {
        let DeValue::Table(table) = table.into_inner() else {
            return self.problem(Some(place), "limits must be a table: [limits]".to_owned());
        };
        let said: Vec<&'static str> = match self.said.get_many::<Setting>(LIMIT) {
            Some(settings) => settings.map(Setting::name).collect(),
            None => Vec::new(),
        };
        for (name, value) in table {
            let place = place_of(text, &name.span());
            let setting = word_of(value.get_ref())
                .ok_or_else(|| "write a number, a text, or true or false".to_owned())
                .and_then(|value| format!("{}={value}", name.get_ref()).parse::<Setting>());
            match setting {
                Ok(setting) if said.contains(&setting.name()) => {}
                Ok(setting) => {
                    self.arguments.push(format!("--{LIMIT}={setting}").into());
                    self.lines.entry(LIMIT.to_owned()).or_insert(place.0);
                }
                Err(problem) => self.problem(Some(place), problem),
            }
        }
    }

    /// Whether the command line would take it, by itself.
    fn check(&self, key: &str, arguments: &[OsString]) -> Result<(), String> {
        let name = OsString::from("chat-server");
        let tried = self.command.clone().try_get_matches_from([&[name], arguments].concat());
        match tried {
            Ok(_) => Ok(()),
            // What else it needs or excludes may be said elsewhere.
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::MissingRequiredArgument | ErrorKind::ArgumentConflict
                ) =>
            {
                Ok(())
            }
            Err(error) => Err(format!("{key}: {}", cause_of(&error))),
        }
    }

    fn unknown(&self, key: &str) -> String {
        let tried = self.command.clone().try_get_matches_from(["chat-server", &format!("--{key}")]);
        let similar = tried.err().and_then(|error| {
            let similar = error.get(ContextKind::SuggestedArg)?;
            Some(similar.to_string().trim_start_matches('-').to_owned())
        });
        match similar {
            Some(similar) => format!("there is no option {key}; do you mean {similar}?"),
            None => format!("there is no option {key}; chat-server --help lists them"),
        }
    }

    fn problem(&mut self, place: Option<(usize, usize)>, text: String) {
        self.problems.push(Problem { file: self.path.to_owned(), place, text });
    }
}

/// The options of the main job alone.
fn run_command() -> Command {
    use clap::Args as _;

    RunArgs::augment_args(Command::new("chat-server"))
}

/// Whether a flag or the environment says something.
fn is_said(said: &ArgMatches, id: &str) -> bool {
    let source = said.value_source(id);
    matches!(source, Some(ValueSource::CommandLine | ValueSource::EnvVariable))
}

/// A value as the arguments that say the same.
fn arguments_of(arg: &Arg, key: &str, value: &DeValue<'_>) -> Result<Vec<OsString>, String> {
    let flag = || OsString::from(format!("--{key}"));
    let with = |word: String| OsString::from(format!("--{key}={word}"));
    match (arg.get_action(), value) {
        (ArgAction::SetTrue, DeValue::Boolean(true)) => Ok(vec![flag()]),
        (ArgAction::SetTrue, DeValue::Boolean(false)) => Ok(Vec::new()),
        (ArgAction::SetTrue, _) => Err(format!("{key} must be true or false")),
        (ArgAction::Count, value) => {
            let count = word_of(value).and_then(|word| word.parse::<u8>().ok());
            let count = count.ok_or_else(|| format!("{key} must be a number"))?;
            Ok((0..count).map(|_| flag()).collect())
        }
        (ArgAction::Append, DeValue::Array(values)) => {
            let words = values.iter().map(|value| word_of(value.get_ref()).map(with));
            let words: Option<Vec<_>> = words.collect();
            words.ok_or_else(|| format!("{key} must be a list of texts"))
        }
        (_, value) => {
            let word = word_of(value).ok_or_else(|| format!("{key} must be one text or number"))?;
            Ok(vec![with(word)])
        }
    }
}

/// A value as one word of the command line.
fn word_of(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .ok()
            .map(|number| number.to_string()),
        DeValue::Boolean(value) => Some(value.to_string()),
        DeValue::Float(_) | DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => None,
    }
}

/// What is wrong with a value, without the usage that the command line adds.
fn cause_of(error: &clap::Error) -> String {
    let text = error.to_string();
    let cause = text.lines().next().unwrap_or_default();
    let cause = cause.strip_prefix("error: ").unwrap_or(cause).to_owned();
    match error.get(ContextKind::ValidValue) {
        Some(ContextValue::Strings(values)) => format!("{cause}; it may be {}", values.join(", ")),
        Some(_) | None => cause,
    }
}

fn read_text(path: &Path) -> Result<String, String> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| error.to_string())?;
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > FILE_BYTES_MAX {
        return Err("longer than 64 KiB: this is no configuration".to_owned());
    }
    String::from_utf8(bytes).map_err(|_| "not UTF-8: this is no configuration".to_owned())
}

/// Line and column of the first byte, counted from 1.
fn place_of(text: &str, span: &Range<usize>) -> (usize, usize) {
    let before = text.get(..span.start).unwrap_or(text);
    let line = before.matches('\n').count().saturating_add(1);
    let begun = before.rfind('\n').map_or(before, |end| before.get(end + 1..).unwrap_or_default());
    (line, begun.chars().count().saturating_add(1))
}

impl Configured {
    /// Whether somebody asked what holds, instead of a start.
    pub(super) fn wants_to_be_printed(&self) -> bool {
        self.args.run_args().is_some_and(|run| run.print_config)
    }

    /// The options of the main job as a file that says the same, each with where it came from.
    pub(super) fn to_toml(&self) -> String {
        let matches = self.matches.subcommand().map_or(&self.matches, |(_, of_job)| of_job);
        let command = run_command();
        let mut lines = Vec::new();
        for arg in command.get_arguments() {
            let Some(key) = arg.get_long() else { continue };
            if NOT_IN_A_FILE.contains(&key) || key == LIMIT {
                continue;
            }
            let origin = self.origin(matches, arg, key);
            let (sign, value) = match value_of(matches, arg) {
                Some(value) => ("", value),
                // Left out, so that the default holds.
                None => ("# ", "…".to_owned()),
            };
            lines.push(format!("{sign}{key} = {value}  # {origin}"));
        }
        let settings = matches.get_many::<Setting>(LIMIT).into_iter().flatten();
        let by_name: BTreeMap<_, _> = settings.map(|it| (it.name(), it.to_string())).collect();
        if !by_name.is_empty() {
            lines.push("\n[limits]".to_owned());
        }
        for setting in by_name.values() {
            let (name, value) = setting.split_once('=').unwrap_or((setting, ""));
            lines.push(format!("{name} = {}", quoted(value)));
        }
        lines.join("\n")
    }

    fn origin(&self, matches: &ArgMatches, arg: &Arg, key: &str) -> Origin {
        if let Some(line) = self.lines.get(key) {
            return Origin::Line(*line);
        }
        match matches.value_source(arg.get_id().as_str()) {
            Some(ValueSource::CommandLine) => Origin::Flag,
            Some(ValueSource::EnvVariable) => {
                let name = arg.get_env().unwrap_or_default();
                Origin::Environment(name.to_string_lossy().into_owned())
            }
            Some(_) => Origin::Default,
            None => Origin::Nowhere,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag => f.write_str("flag"),
            Self::Environment(name) => write!(f, "environment, {name}"),
            Self::Line(line) => write!(f, "file, line {line}"),
            Self::Default => f.write_str("default"),
            Self::Nowhere => f.write_str("not set"),
        }
    }
}

/// The value of an option in TOML; `None` when there is none.
fn value_of(matches: &ArgMatches, arg: &Arg) -> Option<String> {
    let id = arg.get_id().as_str();
    let words = || {
        let raw = matches.get_raw(id)?;
        Some(raw.map(|word| quoted(&word.to_string_lossy())).collect::<Vec<_>>())
    };
    let action = arg.get_action();
    if matches!(action, ArgAction::SetTrue) {
        return Some(matches.get_flag(id).to_string());
    }
    if matches!(action, ArgAction::Count) {
        return Some(matches.get_count(id).to_string());
    }
    let words = words()?;
    let is_list = matches!(action, ArgAction::Append);
    Some(if is_list { format!("[{}]", words.join(", ")) } else { words.concat() })
}

/// A word in TOML: a number as it is, any other as a text.
fn quoted(word: &str) -> String {
    if word.parse::<u32>().is_ok_and(|number| number.to_string() == word) {
        return word.to_owned();
    }
    toml_text(word)
}

/// A basic string of TOML.
fn toml_text(text: &str) -> String {
    use fmt::Write as _;

    let mut out = String::from("\"");
    for sign in text.chars() {
        match sign {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            sign if sign.is_control() => {
                write!(out, "\\u{:04X}", u32::from(sign)).expect("a String takes what is written");
            }
            sign => out.push(sign),
        }
    }
    out.push('"');
    out
}

impl Args {
    /// The options of the main job, when this is it or about it.
    fn run_args(&self) -> Option<&RunArgs> {
        match self.job() {
            None => Some(self.run()),
            Some(Job::Run(run) | Job::CheckConfig(run)) => Some(run),
            Some(
                Job::Check(_)
                | Job::Backup(_)
                | Job::Export(_)
                | Job::Import(_)
                | Job::Status(_)
                | Job::Directory(_)
                | Job::Locate(_)
                | Job::Completions { .. }
                | Job::Man { .. },
            ) => None,
        }
    }
}
