//! The options.

use std::path::PathBuf;

use chatcore::address::Address;
use chatcore::id::{Generation, PublicKey, Threshold};
use chatcore::log::OperatorRule;
use chatcore::text::{NameError, ServiceName};
use clap::{ArgAction, Parser, Subcommand, ValueEnum};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::prelude::*;

use crate::listener::Plaintext;
use crate::program::bounds::{self, Setting};
use crate::program::report::Form;
use crate::retention::Bound;
use crate::store::Durability;

/// Starts a chat server. People join it with chat-client.
///
/// Messages are held back until enough people are connected at once; then everybody sees all of
/// them, in order, and the chat stays open.
#[derive(Debug, Parser)]
#[command(name = "chat-server", version, after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub(super) struct Args {
    #[command(subcommand)]
    job: Option<Job>,

    #[command(flatten)]
    run: RunArgs,
}

/// What the program is to do.
#[derive(Debug, Subcommand)]
pub(super) enum Job {
    /// Serve: the main job, which need not be named
    #[command(hide = true)]
    Run(RunArgs),
    /// Verify everything that is kept, while no server runs, and change nothing
    Check(FolderArgs),
    /// Copy the folder, key and all, into another one; a server may be running on it
    Backup(BackupArgs),
    /// Write all that is kept to stdout, one JSON object a line; a server may be running
    Export(FolderArgs),
    /// Read what `export` wrote from stdin into a folder that holds its server.key and no chat
    Import(FolderArgs),
    /// Say what a running server is doing
    Status(StatusArgs),
    /// Serve as a directory: the address that stays when a chat moves
    Directory(DirectoryArgs),
    /// Ask a directory who serves
    Locate(LocateArgs),
    /// Say whether flags, environment and configuration file make sense; takes the options of the main
    /// job, and starts nothing
    CheckConfig(RunArgs),
    /// Write what a shell needs to complete commands and options
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write a manual page, as for `man -l -`
    Man {
        /// The page of one command instead of the program's own
        command: Option<String>,
    },
}

/// The options of the jobs that are about a folder.
#[derive(Debug, clap::Args)]
pub(super) struct FolderArgs {
    /// The folder [default: the XDG data folder]
    #[arg(long, value_name = "DIR", env = "CHAT_DATA")]
    pub(super) data: Option<PathBuf>,

    /// Write one JSON object a line to stdout
    #[arg(long, env = "CHAT_JSON")]
    json: bool,
}

/// The options of `backup`.
#[derive(Debug, clap::Args)]
#[command(after_help = BACKUP_HELP)]
pub(super) struct BackupArgs {
    #[command(flatten)]
    pub(super) folder: FolderArgs,

    /// Where the copy is to be: a folder that is not there yet, or empty
    #[arg(value_name = "DEST")]
    pub(super) dest: PathBuf,
}

const BACKUP_HELP: &str = "\
The copy is what the folder held at one moment: all that was acknowledged before this began. It is
verified before it gets its name. `chat-server --data DEST` serves it; do not let it serve while the
server that it was taken from does. It holds the server's secret key: keep it as safe as the folder. It
does not hold admin.token: the server on the copy makes its own.";

/// The options of `status`.
#[derive(Debug, clap::Args)]
#[command(after_help = STATUS_HELP)]
pub(super) struct StatusArgs {
    /// The server: `chat://HOST:PORT` or `unix:/PATH`
    #[arg(long, value_name = "URI", env = "CHAT_SERVER", default_value_t = Address::default())]
    pub(super) server: Address,

    /// The key of an operator, the file that `chat-client --identity` names [default: the key of the
    /// server, in its folder]
    #[arg(long, value_name = "FILE", env = "CHAT_IDENTITY")]
    pub(super) identity: Option<PathBuf>,

    #[command(flatten)]
    pub(super) folder: FolderArgs,
}

const STATUS_HELP: &str = "\
It takes no name in the chat and counts for no gate. Who asks has to prove the right: by the key in the
server's folder (--data), or by the key of an operator (--identity).

Exit status: 0 told, 1 not understood or no key to be had, 2 wrong use, 3 nobody answers, 4 no right.";

/// What is shown to those who come by TLS.
#[derive(Debug, clap::Args)]
pub(super) struct TlsArgs {
    /// A PEM file with the certificate to be shown to clients that come by TLS, and those of the
    /// authorities between. SIGHUP has this file and the key's read again
    #[arg(
        id = "tls_cert",
        long = "tls-cert",
        value_name = "FILE",
        env = "CHAT_TLS_CERT",
        requires = "tls_key",
        conflicts_with = "tls_self_signed"
    )]
    pub(super) certificate: Option<PathBuf>,

    /// A PEM file with the private key of the certificate
    #[arg(
        id = "tls_key",
        long = "tls-key",
        value_name = "FILE",
        env = "CHAT_TLS_KEY",
        requires = "tls_cert"
    )]
    pub(super) key: Option<PathBuf>,

    /// Take TLS with a certificate that the server makes itself. Clients remember its key, which stays
    /// in the data folder
    #[arg(id = "tls_self_signed", long = "tls-self-signed", env = "CHAT_TLS_SELF_SIGNED")]
    pub(super) self_signed: bool,
}

/// What is said, and to whom.
#[derive(Debug, clap::Args)]
pub(super) struct LogArgs {
    /// Write one JSON object a line to stdout
    #[arg(long, env = "CHAT_JSON")]
    json: bool,

    /// Say on stderr what the server does; twice for more
    #[arg(short, long, action = ArgAction::Count)]
    verbose: u8,

    /// What to say on stderr: error, warn, info, debug, trace, or TARGET=LEVEL, comma-separated
    #[arg(long, value_name = "FILTER", env = "CHAT_LOG")]
    log: Option<Targets>,
}

/// The options of `directory`.
#[derive(Debug, clap::Args)]
#[command(after_help = DIRECTORY_HELP)]
pub(super) struct DirectoryArgs {
    /// Where to listen: `chat://HOST:PORT`, `chats://HOST:PORT` (encrypted only) or `unix:/PATH`.
    /// Without `:PORT` it is 5000, port 0 picks a free one. May be repeated
    #[arg(long, value_name = "URI", env = "CHAT_LISTEN", value_delimiter = ',',
          default_values_t = [Address::default()])]
    pub(super) listen: Vec<Address>,

    /// Where the directory keeps its key and what is registered: a folder of its own that it makes, or
    /// that nobody else may enter [default: the XDG data folder]
    #[arg(long, value_name = "DIR", env = "CHAT_DATA")]
    pub(super) data: Option<PathBuf>,

    /// Allow other machines to connect without encryption
    #[arg(long, env = "CHAT_PLAINTEXT")]
    pub(super) plaintext: bool,

    #[command(flatten)]
    pub(super) tls: TlsArgs,

    /// The service to whose owner clients are sent that would log in here
    #[arg(long, value_name = "NAME", env = "CHAT_SERVICE", default_value_t = ServiceName::default(),
          value_parser = parse_service)]
    pub(super) service: ServiceName,

    /// For one start: let a service go on here that was registered with a directory that is lost. The
    /// generation is its last one, the higher one of those that its owner and its standby tell. May be
    /// repeated
    #[arg(long, value_name = "SERVICE=GENERATION", value_parser = parse_rebuild)]
    pub(super) rebuild: Vec<(ServiceName, Generation)>,

    #[command(flatten)]
    pub(super) log: LogArgs,
}

const DIRECTORY_HELP: &str = "\
A directory keeps who owns each chat and who stands by, and changes that only as those two may want it. It
serves no chat itself. Whoever comes first owns a service that nobody has registered yet: let no strangers
reach it before yours are. Keep a copy of its folder, above all of server.key, by which others know it.

Signals: SIGTERM and SIGINT stop it in order; what was registered stays.";

/// The options of `locate`.
#[derive(Debug, clap::Args)]
#[command(after_help = LOCATE_HELP)]
pub(super) struct LocateArgs {
    /// The directory: `chat://HOST:PORT`, `chats://HOST:PORT` or `unix:/PATH`
    #[arg(long, value_name = "URI", env = "CHAT_SERVER", default_value_t = Address::default())]
    pub(super) server: Address,

    /// The service
    #[arg(long, value_name = "NAME", env = "CHAT_SERVICE", default_value_t = ServiceName::default(),
          value_parser = parse_service)]
    pub(super) service: ServiceName,

    /// The key that the directory must have, as its `listening` line tells it [default: any]
    #[arg(long, value_name = "KEY", env = "CHAT_DIRECTORY_KEY", allow_hyphen_values = true)]
    pub(super) key: Option<PublicKey>,

    /// Write one JSON object a line to stdout
    #[arg(long, env = "CHAT_JSON")]
    json: bool,
}

const LOCATE_HELP: &str = "\
Exit status: 0 told, 1 nobody is registered or not understood, 2 wrong use, 3 nobody answers, 4 another
directory than the one with --key.";

/// The options of the main job.
#[derive(Debug, clap::Args)]
pub(super) struct RunArgs {
    /// Where to listen: `chat://HOST:PORT`, `chats://HOST:PORT` (encrypted only) or `unix:/PATH`.
    /// Without `:PORT` it is 5000, port 0 picks a free one. May be repeated: each client is then told the one that it came in by
    #[arg(long, value_name = "URI", env = "CHAT_LISTEN", value_delimiter = ',',
          default_values_t = [Address::default()])]
    pub(super) listen: Vec<Address>,

    /// How many people must be connected at once before a room shows its messages: 1 to 65535. A
    /// chat that is there already keeps its own [default: 2]
    #[arg(short = 'n', long, value_name = "N", env = "CHAT_THRESHOLD",
          value_parser = parse_threshold)]
    pub(super) threshold: Option<Threshold>,

    /// Keep nothing of the chat; keys and the token for calls stay in the folder
    #[arg(long, env = "CHAT_EPHEMERAL")]
    pub(super) ephemeral: bool,

    /// Where the server keeps its key and, unless it is ephemeral, the chat: a folder that it makes, or
    /// that nobody else may enter [default: the XDG data folder]
    #[arg(long, value_name = "DIR", env = "CHAT_DATA")]
    pub(super) data: Option<PathBuf>,

    /// When a message is acknowledged: `commit`, once the disk has it; `relaxed`, once the operating
    /// system has it, which is faster and may cost the newest moments in a power cut
    #[arg(long, value_name = "WHEN", env = "CHAT_DURABILITY", value_enum,
          default_value_t = When::Commit)]
    pub(super) durability: When,

    /// How much of each room is kept; the rest is deleted for good: an age (`30d`, `12h`, `45m`,
    /// `90s`), a size on the disk (`64MiB`; also KiB, GiB) or a number of messages (`100000`; joins and
    /// leaves count). May be repeated: the bound that is reached first counts [default: everything]
    #[arg(long, value_name = "BOUND", env = "CHAT_KEEP", value_delimiter = ',')]
    pub(super) keep: Vec<Bound>,

    /// Who may reset rooms and send users away, by name or public key. May be repeated. A chat that is
    /// there already keeps its own, on every host [default: the first user]
    #[arg(long, value_name = "NAME|KEY", env = "CHAT_OPERATOR", value_delimiter = ',',
          value_parser = parse_operator, allow_hyphen_values = true)]
    pub(super) operator: Vec<OperatorRule>,

    /// Allow other machines to connect without encryption
    #[arg(long, env = "CHAT_PLAINTEXT")]
    pub(super) plaintext: bool,

    #[command(flatten)]
    pub(super) tls: TlsArgs,

    /// Where to tell metrics by HTTP, at /metrics, and take calls of those who run the server:
    /// `unix:/PATH` or an address of this machine, as 127.0.0.1:9464
    #[arg(long, value_name = "URI", env = "CHAT_ADMIN", long_help = ADMIN_HELP)]
    pub(super) admin: Option<Address>,

    /// A bound of the server, as connections-max=20000, login-time=5s or unread-bytes-max=128KiB. May
    /// be repeated; --help lists the names
    #[arg(long, value_name = "NAME=VALUE", env = "CHAT_LIMIT", value_delimiter = ',',
          long_help = bounds::help())]
    pub(super) limit: Vec<Setting>,

    /// A TOML file with options, spelled as here: `threshold = 3`. What a flag or the environment says
    /// counts before what it says
    #[arg(long, value_name = "FILE", env = "CHAT_CONFIG")]
    pub(super) config: Option<PathBuf>,

    /// Write the options that hold as such a file, with where each came from, and start nothing
    #[arg(long)]
    pub(super) print_config: bool,

    #[command(flatten)]
    log: LogArgs,
}

const ADMIN_HELP: &str = "\
Where to tell metrics by HTTP, at /metrics, and take calls of those who run the server: `unix:/PATH` or
an address of this machine, as 127.0.0.1:9464.

  POST /users/NAME/kick  (or ban, unban, release, op, deop)
  GET  /status
  POST /stop

A Unix socket is for the server's own user and root alone. On an address of this machine calls need the
token in the file admin.token of the data folder, as `Authorization: Bearer TOKEN`.

  curl --unix-socket /run/chat.sock -X POST http://localhost/users/bob/kick";

/// When a message is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum When {
    /// Once the disk has it
    Commit,
    /// Once the operating system has it
    Relaxed,
}

impl From<When> for Durability {
    fn from(when: When) -> Self {
        match when {
            When::Commit => Self::Commit,
            When::Relaxed => Self::Relaxed,
        }
    }
}

const EXAMPLES: &str = "\
Examples:
  chat-server                                 on this machine, port 5000
  chat-server -n 3 --operator ana             three people open the chat, ana is the operator
  chat-server --listen unix:/tmp/chat.sock    through a file
  chat-server --data /srv/chat                another folder for what is kept
  chat-server status                          what the server on this machine is doing
  chat-server directory --listen chat://127.0.0.1:5001
                                              the address that stays when a chat moves
  chat-server --config chat.toml              with the options in a file
  chat-server --keep 30d --keep 100MiB        30 days, and no more than 100 MiB a room
  chat-server --listen chats://0.0.0.0:5000 --tls-self-signed
                                              for other machines, encrypted
  chat-server --listen chat://0.0.0.0:5000 --plaintext
                                              for other machines, unencrypted

Signals: SIGTERM and SIGINT stop the server in order. With --tls-cert and --tls-key, SIGHUP has the two
files read again: new connections are shown what they hold, those that there are go on. Files that cannot
be used change nothing, and stderr says why.

Exit status: 0 fine, 1 failure, 2 wrong use or configuration, 3 no server answers, 4 no right.

Options that name an environment variable may be given by it; a flag counts before the environment, and
that before the file of --config.";

impl Args {
    /// The job that was named.
    pub(super) const fn job(&self) -> Option<&Job> {
        self.job.as_ref()
    }

    /// The options of the main job, when no job was named.
    pub(super) const fn run(&self) -> &RunArgs {
        &self.run
    }

    /// What is to be done.
    pub(super) fn into_job(self) -> Job {
        self.job.unwrap_or(Job::Run(self.run))
    }
}

impl Job {
    pub(super) const fn form(&self) -> Form {
        let (Self::Run(RunArgs { log: LogArgs { json, .. }, .. })
        | Self::CheckConfig(RunArgs { log: LogArgs { json, .. }, .. })
        | Self::Directory(DirectoryArgs { log: LogArgs { json, .. }, .. })
        | Self::Locate(LocateArgs { json, .. })
        | Self::Check(FolderArgs { json, .. })
        | Self::Export(FolderArgs { json, .. })
        | Self::Backup(BackupArgs { folder: FolderArgs { json, .. }, .. })
        | Self::Import(FolderArgs { json, .. })
        | Self::Status(StatusArgs { folder: FolderArgs { json, .. }, .. })) = self
        else {
            return Form::Plain;
        };
        if *json { Form::Json } else { Form::Plain }
    }

    /// Starts the log on stderr.
    pub(super) fn start_log(&self) {
        let (filter, verbose) = match self {
            Self::Run(RunArgs { log, .. }) | Self::Directory(DirectoryArgs { log, .. }) => {
                (log.log.clone(), log.verbose)
            }
            Self::Check(_)
            | Self::Backup(_)
            | Self::Export(_)
            | Self::Import(_)
            | Self::Status(_)
            | Self::Locate(_)
            | Self::CheckConfig(_)
            | Self::Completions { .. }
            | Self::Man { .. } => (None, 0),
        };
        let level = match verbose {
            0 => LevelFilter::WARN,
            1 => LevelFilter::DEBUG,
            _ => LevelFilter::TRACE,
        };
        let filter = filter.unwrap_or_else(|| Targets::new().with_default(level));
        let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false);
        tracing_subscriber::registry().with(lines.with_filter(filter)).init();
    }
}

impl From<bool> for Plaintext {
    fn from(anywhere: bool) -> Self {
        if anywhere { Self::Anywhere } else { Self::LoopbackOnly }
    }
}

fn parse_threshold(text: &str) -> Result<Threshold, &'static str> {
    let number = text.parse().ok().and_then(Threshold::new);
    number.ok_or("it must be a number from 1 to 65535")
}

/// A key is 43 characters of base64url and so is no name: names have at most 32.
fn parse_operator(text: &str) -> Result<OperatorRule, NameError> {
    if let Ok(key) = text.parse() {
        return Ok(OperatorRule::Key(key));
    }
    text.parse().map(OperatorRule::Name)
}

fn parse_service(text: &str) -> Result<ServiceName, String> {
    text.parse().map_err(|error| match error {
        NameError::TooLong => "the name of a service may have at most 32 characters".to_owned(),
        other @ (NameError::Empty
        | NameError::Character
        | NameError::Sign
        | NameError::Mark
        | NameError::Direction
        | NameError::Reserved) => other.to_string(),
    })
}

fn parse_rebuild(text: &str) -> Result<(ServiceName, Generation), String> {
    let (service, generation) = text.split_once('=').ok_or("write SERVICE=GENERATION")?;
    let generation = generation.parse().ok().and_then(|number| Generation::new(number).ok());
    let generation = generation.filter(|generation| *generation > Generation::ZERO);
    let generation = generation.ok_or("the generation must be a number from 1 to 2^53 - 1")?;
    Ok((parse_service(service)?, generation))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn options_are_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn b11_threshold_outside_its_range_is_a_usage_error() {
        for bad in ["0", "65536", "-1", "two"] {
            assert!(Args::try_parse_from(["chat-server", "-n", bad]).is_err(), "{bad}");
        }
        for good in [1_u16, u16::MAX] {
            let args = run_args(&["chat-server", "-n", &good.to_string()]).unwrap();
            assert_eq!(args.threshold.map(Threshold::get), Some(good));
        }
    }

    fn run_args(args: &[&str]) -> Result<RunArgs, clap::Error> {
        match Args::try_parse_from(args)?.into_job() {
            Job::Run(args) => Ok(args),
            other @ (Job::Check(_)
            | Job::Backup(_)
            | Job::Export(_)
            | Job::Import(_)
            | Job::Status(_)
            | Job::Directory(_)
            | Job::Locate(_)
            | Job::CheckConfig(_)
            | Job::Completions { .. }
            | Job::Man { .. }) => panic!("{other:?}"),
        }
    }

    #[test]
    fn main_job_may_be_named_and_no_other_can_be() {
        for args in [&["chat-server", "run", "-n", "3"][..], &["chat-server", "-n", "3"]] {
            assert_eq!(run_args(args).unwrap().threshold, Threshold::new(3));
        }
        assert!(Args::try_parse_from(["chat-server", "walk"]).is_err());
    }

    #[test]
    fn check_takes_a_folder_and_no_option_of_the_main_job() {
        let args = Args::try_parse_from(["chat-server", "check", "--data", "/srv"]).unwrap();
        let Job::Check(args) = args.into_job() else { panic!("check must be another job") };
        assert_eq!(args.data, Some("/srv".into()));
        assert!(Args::try_parse_from(["chat-server", "check", "-n", "3"]).is_err());
    }

    #[test]
    fn rebuilt_service_is_a_name_and_its_last_generation() {
        let (chat, seven) = (ServiceName::default(), Generation::new(7).unwrap());
        assert_eq!(parse_rebuild("Chat=7"), Ok((chat, seven)));
        for bad in ["chat", "chat=", "chat=0", "chat=-1", "chat=9007199254740992", "a b=1", "=1"] {
            assert!(parse_rebuild(bad).is_err(), "{bad}");
        }
        assert!(parse_service(&"x".repeat(33)).unwrap_err().contains("32 characters"));
    }

    #[test]
    fn operator_is_a_key_or_a_name() {
        let key = PublicKey::new([5; 32]);
        assert_eq!(parse_operator(&key.to_string()), Ok(OperatorRule::Key(key)));
        assert_eq!(parse_operator("Ana"), Ok(OperatorRule::Name("ana".parse().unwrap())));
        assert!(parse_operator("an operator").is_err());
    }

    #[test]
    fn key_may_begin_with_a_hyphen() {
        let key = PublicKey::new([0xFB; 32]).to_string();
        assert!(key.starts_with('-'), "{key}");
        for args in [
            ["chat-server", "locate", "--key", &key].as_slice(),
            &["chat-server", "--operator", &key],
        ] {
            assert!(Args::try_parse_from(args).is_ok(), "{args:?}");
        }
    }
}
