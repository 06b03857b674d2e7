//! Flags, environment and file, as the program reads them.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// The program with nothing of this process's environment.
fn run(folder: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chat-server"));
    command.env_clear().env("HOME", folder).args(arguments);
    command.envs(environment.iter().copied());
    command.output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn file(&self, text: &str) -> String {
        let path: PathBuf = self.folder.path().join("chat.toml");
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    /// The line of the printed configuration that is about an option.
    fn printed(&self, key: &str, arguments: &[&str], environment: &[(&str, &str)]) -> String {
        let arguments = [arguments, &["--print-config"]].concat();
        let output = run(self.folder.path(), &arguments, environment);
        assert!(output.status.success(), "{}", text(&output.stderr));
        let printed = text(&output.stdout);
        let line = printed.lines().find(|line| line.starts_with(&format!("{key} = ")));
        line.unwrap_or_else(|| panic!("{key} is not in {printed}")).to_owned()
    }

    /// What `check-config` says is wrong, a line each.
    fn problems(&self, config: &str, arguments: &[&str]) -> Vec<String> {
        let file = self.file(config);
        let arguments = [&["check-config", "--config", &file], arguments].concat();
        let output = run(self.folder.path(), &arguments, &[]);
        assert_eq!(output.status.code(), Some(2), "{}", text(&output.stdout));
        let said = text(&output.stderr);
        said.lines().map(|line| line.replace(&file, "FILE")).collect()
    }
}

#[test]
fn flag_counts_before_environment_before_file_before_default() {
    let place = Place::new();
    let file = place.file("# a comment\nthreshold = 3\nephemeral = true\nkeep = [\"30d\", 1000]\n");
    let config = ["--config", file.as_str()];
    let of = |flags: &[&str], environment: &[(&str, &str)]| {
        place.printed("threshold", &[&config, flags].concat(), environment)
    };
    let environment = [("CHAT_THRESHOLD", "4")];
    assert_eq!(of(&["-n", "5"], &environment), "threshold = 5  # flag");
    assert_eq!(of(&[], &environment), "threshold = 4  # environment, CHAT_THRESHOLD");
    assert_eq!(of(&[], &[]), "threshold = 3  # file, line 2");
    assert_eq!(place.printed("# threshold", &[], &[]), "# threshold = …  # not set");
    assert_eq!(place.printed("durability", &config, &[]), "durability = \"commit\"  # default");
    assert_eq!(place.printed("ephemeral", &config, &[]), "ephemeral = true  # file, line 3");
    assert_eq!(place.printed("keep", &config, &[]), "keep = [\"30d\", 1000]  # file, line 4");
    let by_environment = [("CHAT_CONFIG", file.as_str())];
    assert_eq!(place.printed("threshold", &[], &by_environment), "threshold = 3  # file, line 2");
}

#[test]
fn printed_configuration_is_a_file_that_says_the_same() {
    let place = Place::new();
    let flags = [
        "-n",
        "7",
        "--listen",
        "chat://127.0.0.1:0",
        "--listen",
        "unix:/tmp/a \"socket\"",
        "--data",
        "/srv/chat\\x",
        "--durability",
        "relaxed",
        "--keep",
        "30d",
        "--operator",
        "ana",
        "-vv",
        "--plaintext",
        "--tls-self-signed",
        "--limit",
        "grace=5s",
        "--limit",
        "connections-max=77",
        "--log",
        "chat_server=debug",
        "--print-config",
    ];
    let printed = |arguments: &[&str]| {
        let output = run(place.folder.path(), arguments, &[]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        let said = text(&output.stdout);
        let lines = said.lines().map(|line| line.split("  # ").next().unwrap().to_owned());
        lines.collect::<Vec<_>>()
    };
    let first = printed(&flags);
    let file = place.file(&first.join("\n"));
    assert_eq!(printed(&["--config", &file, "--print-config"]), first);
    assert!(first.contains(&"connections-max = 77".to_owned()), "{first:?}");
}

#[test]
fn limits_of_a_file_hold_one_by_one() {
    let place = Place::new();
    let file = place.file("[limits]\ngrace = \"5s\"\nconnections-max = 50\n");
    let arguments = ["--config", &file, "--limit", "grace=7s"];
    assert_eq!(place.printed("grace", &arguments, &[]), "grace = \"7s\"");
    assert_eq!(place.printed("connections-max", &arguments, &[]), "connections-max = 50");
}

#[test]
fn check_names_every_problem_with_its_place_and_what_was_meant() {
    let place = Place::new();
    let config = "treshold = 3\nlisten = \"ftp://x\"\nephemeral = 1\nconfig = \"y\"\n\
        durability = \"soon\"\n[limits]\ngrce = \"5s\"\nwindow-bytes = \"2MB\"\n[other]\n";
    let problems = place.problems(config, &[]);
    let wanted = [
        "FILE:1:1: there is no option treshold; do you mean threshold?",
        "FILE:2:1: listen: invalid value 'ftp://x'",
        "FILE:3:1: ephemeral must be true or false",
        "FILE:4:1: config makes no sense in a file",
        "FILE:5:1: durability: invalid value 'soon'",
        "FILE:7:1: there is no limit grce; do you mean grace?",
        "FILE:8:1: window-bytes must be a number of bytes",
        "FILE:9:2: there is no option other",
        "the configuration cannot be used",
    ];
    assert_eq!(problems.len(), wanted.len(), "{problems:#?}");
    for (problem, wanted) in problems.iter().zip(wanted) {
        assert!(problem.contains(wanted), "{problem} must say {wanted}");
    }
    assert!(problems[4].contains("it may be commit, relaxed"), "{}", problems[4]);
}

#[test]
fn what_is_no_toml_or_no_text_is_told() {
    let place = Place::new();
    assert!(place.problems("threshold =\n", &[])[0].contains("FILE:1:"));
    let twice = place.problems("threshold = 1\nthreshold = 2\n", &[]);
    assert!(twice[0].contains("FILE:2:1: duplicate key"), "{twice:?}");
    let long = "#".repeat(70_000);
    assert!(place.problems(&long, &[])[0].contains("longer than 64 KiB"));
    let absent = run(place.folder.path(), &["--config", "/nowhere/chat.toml"], &[]);
    assert_eq!(absent.status.code(), Some(2));
    assert!(text(&absent.stderr).contains("/nowhere/chat.toml: No such file"));
    let path = place.file("");
    std::fs::write(&path, [0xFF, 0xFE]).unwrap();
    let output = run(place.folder.path(), &["--config", &path], &[]);
    assert!(text(&output.stderr).contains("not UTF-8"), "{}", text(&output.stderr));
    let folder = place.folder.path().display().to_string();
    assert_eq!(run(place.folder.path(), &["--config", &folder], &[]).status.code(), Some(2));
}

#[test]
fn check_finds_bounds_out_of_range_and_certificates_that_are_none() {
    let place = Place::new();
    let problems = place.problems("[limits]\ngreeting-percent = 101\n", &[]);
    assert!(problems[0].contains("greeting_percent is 101, it must be 1 to 100"), "{problems:?}");
    let problems = place.problems("", &["--tls-cert", "/none.crt", "--tls-key", "/none.key"]);
    assert!(problems[0].contains("/none.crt"), "{problems:?}");
}

#[test]
fn check_of_a_good_configuration_says_so_and_starts_nothing() {
    let place = Place::new();
    let file = place.file("threshold = 3\n");
    let output = run(place.folder.path(), &["check-config", "--config", &file], &[]);
    assert_eq!(
        (output.status.code(), text(&output.stdout)),
        (Some(0), "The configuration is well.\n".to_owned())
    );
    let output = run(place.folder.path(), &["check-config", "--json"], &[]);
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&told["type"], &told["problems"]), (&"config".into(), &0.into()));
    assert_eq!(std::fs::read_dir(place.folder.path()).unwrap().count(), 1, "the file alone");
}

#[test]
fn shells_get_completions_and_the_manual_names_every_option() {
    let place = Place::new();
    for shell in ["bash", "zsh", "fish"] {
        let output = run(place.folder.path(), &["completions", shell], &[]);
        assert!(text(&output.stdout).contains("tls-self-signed"), "{shell}");
    }
    let page = text(&run(place.folder.path(), &["man"], &[]).stdout).replace("\\-", "-");
    let help = text(&run(place.folder.path(), &["--help"], &[]).stdout);
    let options = help.split_whitespace().filter(|word| word.starts_with("--"));
    let options: Vec<&str> =
        options.map(|word| word.trim_end_matches(|sign: char| !sign.is_alphanumeric())).collect();
    assert!(options.len() > 10, "{help}");
    for option in options {
        assert!(page.contains(option), "the manual lacks {option}");
    }
    for part in ["Exit status", "CHAT_THRESHOLD", "for other machines, encrypted"] {
        assert!(page.contains(part), "the manual lacks {part}");
    }
    let page = text(&run(place.folder.path(), &["man", "backup"], &[]).stdout);
    assert!(page.contains("DEST"), "{page}");
    let none = run(place.folder.path(), &["man", "walk"], &[]);
    assert_eq!(none.status.code(), Some(2));
    assert!(text(&none.stderr).contains("there is no command walk"));
}
