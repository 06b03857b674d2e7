//! The program `chat-server`: options in, a running server, lines for people or scripts out.

mod args;
mod bounds;
mod config;
mod located;
mod report;
mod status;

use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::ExitCode;

use chatcore::address::Address;
use chatcore::text::ServiceName;
use chatcore::wire::Refusal;
use clap::CommandFactory as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use crate::admin::{AdminToken, TokenError};
use crate::directory::{
    Directory, DirectoryClient, DirectoryConfig, DirectoryError, DirectoryFailure,
    DirectoryStartError,
};
use crate::key::{KeyError, ServerKey};
use crate::listener::ListenError;
use crate::orders::{IdentityError, OrderError, OrderKey, Orders};
use crate::server::{self, Server, ServerConfig, StartError, Stopped};
use crate::store::{self, BackupError, Checked, FolderError, Storage, StoreError, TransferError};
use crate::tls::{Tls, TlsError};
use args::{
    Args, BackupArgs, DirectoryArgs, FolderArgs, Job, LocateArgs, RunArgs, StatusArgs, TlsArgs,
};
use bounds::Bounds;
use config::Configured;
use report::Report;

/// Exit status when an option asks for what is not allowed.
const USAGE: u8 = 2;

/// Exit status when no server answers.
const NETWORK: u8 = 3;

/// Exit status when there is no right.
const REFUSED: u8 = 4;

/// Why the program fails.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error(
        "cannot tell where to keep the chat and the server key: set HOME, or name a folder with --data"
    )]
    NoFolder,
    #[error("cannot start the runtime: {0}")]
    Runtime(std::io::Error),
    #[error(transparent)]
    Server(server::Failure),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Backup(#[from] BackupError),
    #[error(transparent)]
    Transfer(#[from] TransferError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(
        "there is no server key in {}: name the folder of the server with --data, or the key of an \
         operator with --identity",
        .0.display()
    )]
    NoRight(PathBuf),
    #[error(transparent)]
    Order(#[from] OrderError),
    #[error(transparent)]
    DirectoryStart(#[from] DirectoryStartError),
    #[error(transparent)]
    Directory(#[from] DirectoryFailure),
    #[error(transparent)]
    Locate(#[from] DirectoryError),
    #[error("nobody has registered {service} with the directory at {address}")]
    Unregistered { address: Address, service: ServiceName },
    #[error("{} is not as it was written: {found} found", folder.display())]
    Damaged { folder: PathBuf, found: usize },
    #[error("the configuration cannot be used")]
    Misconfigured,
    #[error("there is no command {0}; chat-server --help lists them")]
    NoCommand(String),
    #[error("cannot write it: {0}")]
    Unwritten(std::io::Error),
}

impl Failure {
    fn exit_code(&self) -> ExitCode {
        match self {
            Self::Start(
                StartError::Listen(
                    ListenError::Exposed { .. }
                    | ListenError::AdminExposed { .. }
                    | ListenError::NoCertificate { .. },
                )
                | StartError::Limits(_),
            )
            | Self::DirectoryStart(DirectoryStartError::Listen(
                ListenError::Exposed { .. } | ListenError::NoCertificate { .. },
            ))
            | Self::Misconfigured
            | Self::NoCommand(_)
            | Self::NoFolder => ExitCode::from(USAGE),
            Self::Order(error) => exit_code_of(error),
            Self::Locate(error) => match error {
                DirectoryError::Unreachable { .. }
                | DirectoryError::Silent { .. }
                | DirectoryError::Refused { .. } => ExitCode::from(NETWORK),
                DirectoryError::OtherKey { .. } | DirectoryError::Forged { .. } => {
                    ExitCode::from(REFUSED)
                }
                DirectoryError::Foreign { .. } => ExitCode::FAILURE,
            },
            Self::NoRight(_) => ExitCode::from(REFUSED),
            Self::Start(_)
            | Self::Identity(_)
            | Self::Key(_)
            | Self::Tls(_)
            | Self::Token(_)
            | Self::Runtime(_)
            | Self::Server(_)
            | Self::Store(_)
            | Self::Backup(_)
            | Self::Transfer(_)
            | Self::Unwritten(_)
            | Self::DirectoryStart(_)
            | Self::Directory(_)
            | Self::Unregistered { .. }
            | Self::Damaged { .. } => ExitCode::FAILURE,
        }
    }
}

fn exit_code_of(error: &OrderError) -> ExitCode {
    match error {
        OrderError::Unreachable { .. } | OrderError::Silent { .. } => ExitCode::from(NETWORK),
        OrderError::Refused { refusal: Refusal::Perm | Refusal::Auth(_), .. }
        | OrderError::Impostor { .. }
        | OrderError::OtherServer { .. } => ExitCode::from(REFUSED),
        // It is full, or stops: as good as not there for now.
        OrderError::Refused { refusal: Refusal::Busy { .. } | Refusal::Gone, .. } => {
            ExitCode::from(NETWORK)
        }
        OrderError::Refused { .. } | OrderError::Random(_) | OrderError::Foreign { .. } => {
            ExitCode::FAILURE
        }
    }
}

/// Runs the program with the arguments of the process.
pub fn main() -> ExitCode {
    let configured = match config::read(std::env::args_os().collect()) {
        Ok(configured) => configured,
        Err(error) => error.exit(),
    };
    let printed = configured.wants_to_be_printed().then(|| configured.to_toml());
    let Configured { args, problems, .. } = configured;
    let job = args.into_job();
    let report = Report::new(job.form());
    job.start_log();
    problems.iter().for_each(|problem| report.problem(problem));
    let result = match (&job, printed) {
        (Job::CheckConfig(args), _) => check_config(args, problems.is_empty(), &report),
        _ if !problems.is_empty() => Err(Failure::Misconfigured),
        (_, Some(printed)) => write_out(&printed),
        (Job::Run(args), None) => run(args, &report),
        (Job::Check(args), None) => check(args, &report),
        (Job::Backup(args), None) => backup(args, &report),
        (Job::Export(args), None) => export(args, &report),
        (Job::Import(args), None) => import(args, &report),
        (Job::Status(args), None) => status(args, &report),
        (Job::Directory(args), None) => directory(args, &report),
        (Job::Locate(args), None) => locate(args, &report),
        (Job::Completions { shell }, None) => completions(*shell),
        (Job::Man { command }, None) => man(command.as_deref()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            report.failure(&failure);
            failure.exit_code()
        }
    }
}

fn run(args: &RunArgs, report: &Report) -> Result<(), Failure> {
    let folder = data_folder(args.data.clone())?;
    let key = ServerKey::in_folder(&folder)?;
    let tls = tls(&args.tls, &args.listen, &folder)?;
    let token = admin_token(args, &folder)?;
    let Bounds { limits, addresses } = bounds(args);
    let storage = if args.ephemeral {
        Storage::Ephemeral
    } else {
        Storage::Folder { path: folder, durability: args.durability.into() }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(Failure::Runtime)?;
    runtime.block_on(async {
        // Before anybody is told that the server listens, and may want it to stop.
        let signals = Signals::listen(args.tls.certificate.is_some()).map_err(Failure::Runtime)?;
        let server = Server::start(ServerConfig {
            listen: args.listen.clone(),
            admin: args.admin.clone(),
            admin_token: token.clone(),
            plaintext: args.plaintext.into(),
            tls: tls.clone(),
            storage: storage.clone(),
            keep: args.keep.iter().copied().collect(),
            threshold: args.threshold.unwrap_or_default(),
            operators: args.operator.clone(),
            limits,
            address_limits: addresses,
            ..ServerConfig::new(key)
        })
        .await?;
        report.listening(&server, &storage, token.as_ref().map(AdminToken::path));
        report::overruled(server.founding(), args);
        serve((server, tls), signals, report).await
    })
}

/// Says whether a server could start like this, as far as that can be told without starting one.
fn check_config(args: &RunArgs, file_is_well: bool, report: &Report) -> Result<(), Failure> {
    let mut is_well = file_is_well;
    let mut note = |problem: Option<String>| {
        if let Some(problem) = problem {
            is_well = false;
            report.problem(&problem);
        }
    };
    note(bounds(args).limits.check().err().map(|error| error.to_string()));
    if let (Some(certificate), Some(key)) = (&args.tls.certificate, &args.tls.key) {
        note(Tls::from_files(certificate, key).err().map(|error| error.to_string()));
    }
    if !is_well {
        return Err(Failure::Misconfigured);
    }
    report.well_configured();
    Ok(())
}

fn write_out(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(Failure::Unwritten)
}

fn completions(shell: clap_complete::Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "chat-server", &mut script);
    write_out(&String::from_utf8_lossy(&script))
}

/// The manual page of the program, or of one of its commands.
fn man(command: Option<&str>) -> Result<(), Failure> {
    let mut program = Args::command();
    program.build();
    let command = match command {
        None => program,
        Some(name) => {
            let found = program.find_subcommand(name).cloned();
            found.ok_or_else(|| Failure::NoCommand(name.to_owned()))?
        }
    };
    let mut page = Vec::new();
    clap_mangen::Man::new(command).render(&mut page).map_err(Failure::Unwritten)?;
    write_out(&String::from_utf8_lossy(&page))
}

/// What is shown by TLS, if anything.
fn tls(args: &TlsArgs, listen: &[Address], folder: &Path) -> Result<Option<Tls>, TlsError> {
    match (&args.certificate, &args.key) {
        (Some(certificate), Some(key)) => Tls::from_files(certificate, key).map(Some),
        _ if args.self_signed => Tls::self_signed(folder, listen).map(Some),
        _ => Ok(None),
    }
}

/// What calls have to bring along where everybody on this machine can connect.
fn admin_token(args: &RunArgs, folder: &Path) -> Result<Option<AdminToken>, TokenError> {
    match &args.admin {
        Some(Address::Tcp { .. } | Address::Tls { .. }) => AdminToken::in_folder(folder).map(Some),
        Some(Address::Unix(_)) | None => Ok(None),
    }
}

/// Bytes of records that stay in memory when all of them are in a store: what readers that lag a
/// little are sent without asking it. A page of it takes less than a millisecond, so there is no need
/// for memory to grow with the history at all.
const WINDOW_BYTES: u64 = 2 << 20;

/// The bounds, as they were set.
fn bounds(args: &RunArgs) -> Bounds {
    let mut bounds = Bounds::default();
    if !args.ephemeral {
        bounds.limits.window_bytes = WINDOW_BYTES;
    }
    bounds.apply(&args.limit);
    bounds
}

/// Verifies what is kept.
fn check(args: &FolderArgs, report: &Report) -> Result<(), Failure> {
    let folder = data_folder(args.data.clone())?;
    let checked: Checked = store::check(&folder)?;
    report.checked(&folder, &checked);
    match checked.findings.len() {
        0 => Ok(()),
        found => Err(Failure::Damaged { folder, found }),
    }
}

/// Copies the folder.
fn backup(args: &BackupArgs, report: &Report) -> Result<(), Failure> {
    let folder = data_folder(args.folder.data.clone())?;
    let mut progress = report.progress();
    let done =
        store::backup(&folder, &args.dest, &mut |step| progress.show(report::of_backup(step)))?;
    drop(progress);
    report.backed_up(&args.dest, &done);
    Ok(())
}

/// Writes what is kept to stdout.
fn export(args: &FolderArgs, report: &Report) -> Result<(), Failure> {
    let folder = data_folder(args.data.clone())?;
    let mut progress = report.progress_beside_lines();
    let mut out = BufWriter::new(std::io::stdout().lock());
    store::export(&folder, &mut out, &mut |step| progress.show(report::of_transfer(step)))?;
    Ok(())
}

/// Makes a folder of what `export` wrote.
fn import(args: &FolderArgs, report: &Report) -> Result<(), Failure> {
    let folder = data_folder(args.data.clone())?;
    let key = ServerKey::of_folder(&folder)?;
    let mut progress = report.progress();
    let lines = &mut std::io::stdin().lock();
    let entries = store::import(&folder, key.public(), lines, &mut |step| {
        progress.show(report::of_transfer(step));
    })?;
    drop(progress);
    report.imported(&folder, entries);
    Ok(())
}

/// Asks a running server what it is doing.
fn status(args: &StatusArgs, report: &Report) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::Runtime)?;
    let (hello, told) = runtime.block_on(async {
        // First: where nobody listens no key would help.
        let orders = Orders::connect(&args.server).await?;
        let key = order_key(args)?;
        let hello = orders.hello().clone();
        Ok::<_, Failure>((hello, orders.status(&key).await?))
    })?;
    report.status(&args.server, &hello, &told);
    Ok(())
}

/// Serves as a directory.
fn directory(args: &DirectoryArgs, report: &Report) -> Result<(), Failure> {
    let data = match &args.data {
        Some(named) => named.clone(),
        None => xdg_folder("chat-directory")?,
    };
    // For the key of a certificate that it makes itself.
    store::make_folder(&data).map_err(|error| match error {
        FolderError::Io(source) => DirectoryStartError::Io { path: data.clone(), source },
        FolderError::Open(open) => DirectoryStartError::Folder(StoreError::OpenFolder(open)),
    })?;
    let tls = tls(&args.tls, &args.listen, &data)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(Failure::Runtime)?;
    runtime.block_on(async {
        // Before anybody is told that it listens, and may want it to stop.
        let signals = Signals::listen(args.tls.certificate.is_some()).map_err(Failure::Runtime)?;
        let directory = Directory::start(DirectoryConfig {
            listen: args.listen.clone(),
            plaintext: args.plaintext.into(),
            tls: tls.clone(),
            last: args.rebuild.iter().cloned().collect(),
            service: args.service.clone(),
            ..DirectoryConfig::new(data.clone())
        })
        .await?;
        report.directory(&directory, &data);
        report::not_rebuilt(&directory, args);
        serve_directory((directory, tls), signals, report).await
    })
}

/// Answers until a signal comes that stops it.
async fn serve_directory(
    (mut directory, tls): (Directory, Option<Tls>),
    mut signals: Signals,
    report: &Report,
) -> Result<(), Failure> {
    let mut reading = None;
    let reason = loop {
        tokio::select! {
            _ = signals.terminate.recv() => break "SIGTERM",
            _ = signals.interrupt.recv() => break "SIGINT",
            // A signal that comes while the files are read waits for its turn.
            () = comes(&mut signals.hang_up), if reading.is_none() => {
                reading = tls.clone().map(read_again);
            }
            Some(read) = outcome_of(&mut reading) => report.certificate(read),
            failure = directory.failed() => return Err(Failure::Directory(failure)),
        }
    };
    report.stopping(reason);
    directory.stop().await?;
    report.stopped(reason);
    Ok(())
}

/// Asks a directory who serves.
fn locate(args: &LocateArgs, report: &Report) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::Runtime)?;
    let mut client = DirectoryClient::new(args.server.clone(), args.key);
    let told = runtime.block_on(client.locate(&args.service))?;
    let (address, service) = (args.server.clone(), args.service.clone());
    let registration = told.ok_or(Failure::Unregistered { address, service })?;
    report.located(&registration, client.key());
    Ok(())
}

/// What proves the right: an operator's key, or the server's own.
fn order_key(args: &StatusArgs) -> Result<OrderKey, Failure> {
    if let Some(identity) = &args.identity {
        return Ok(OrderKey::of_identity(identity)?);
    }
    let folder = data_folder(args.folder.data.clone())?;
    OrderKey::of_server(&folder).map_err(|error| match error {
        KeyError::Gone { .. } => Failure::NoRight(folder),
        other @ (KeyError::Folder { .. }
        | KeyError::OpenFolder(_)
        | KeyError::Io { .. }
        | KeyError::Open { .. }
        | KeyError::Damaged { .. }
        | KeyError::Random(_)) => Failure::Key(other),
    })
}

/// The signals that the program acts on.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    /// When there are files to be read again.
    hang_up: Option<Signal>,
}

impl Signals {
    /// Without files to be read again SIGHUP is left to the system: it ends a server whose terminal is
    /// closed, unless it was started by `nohup`.
    fn listen(has_files: bool) -> std::io::Result<Self> {
        let terminate = signal(SignalKind::terminate())?;
        let interrupt = signal(SignalKind::interrupt())?;
        let hang_up = has_files.then(|| signal(SignalKind::hangup())).transpose()?;
        Ok(Self { terminate, interrupt, hang_up })
    }
}

/// Waits for a signal; for ever when it is not listened for.
async fn comes(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

/// Serves until a signal comes that stops it, or a call that asks for the end.
async fn serve(
    (mut server, tls): (Server, Option<Tls>),
    mut signals: Signals,
    report: &Report,
) -> Result<(), Failure> {
    let mut stop_asked = pin!(server.stop_asked());
    let mut reading = None;
    let reason = loop {
        tokio::select! {
            _ = signals.terminate.recv() => break "SIGTERM",
            _ = signals.interrupt.recv() => break "SIGINT",
            () = &mut stop_asked => break "POST /stop",
            // A signal that comes while the files are read waits for its turn.
            () = comes(&mut signals.hang_up), if reading.is_none() => {
                reading = tls.clone().map(read_again);
            }
            Some(read) = outcome_of(&mut reading) => report.certificate(read),
            failure = server.failed() => return Err(Failure::Server(failure)),
        }
    };
    report.stopping(reason);
    if server.stop().await.map_err(Failure::Server)? == Stopped::TimedOut {
        tracing::warn!("some connections did not take their last messages in time");
    }
    report.stopped(reason);
    Ok(())
}

/// What is told of a certificate that was read: its key, or why the one before stays.
type Read = Result<String, TlsError>;

/// Reads the certificate again beside everything else: a file system that hangs must keep nobody from
/// stopping the server.
fn read_again(tls: Tls) -> oneshot::Receiver<Read> {
    let (told, outcome) = oneshot::channel();
    std::thread::spawn(move || {
        // The server may have stopped meanwhile.
        let _ = told.send(tls.read_again().map(|()| tls.key_hash()));
    });
    outcome
}

/// Waits for what is being read; `None` when nothing is.
async fn outcome_of(reading: &mut Option<oneshot::Receiver<Read>>) -> Option<Read> {
    let read = reading.as_mut()?.await;
    *reading = None;
    Some(read.expect("who reads a certificate tells what came of it"))
}

/// Where the server keeps its key and the chat: the folder named, or the one the XDG rules give.
fn data_folder(named: Option<PathBuf>) -> Result<PathBuf, Failure> {
    named.map_or_else(|| xdg_folder("chat-server"), Ok)
}

/// The folder of a program by the XDG rules.
fn xdg_folder(name: &str) -> Result<PathBuf, Failure> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    let xdg = absolute("XDG_DATA_HOME");
    let base = xdg.or_else(|| absolute("HOME").map(|home| home.join(".local/share")));
    base.map(|base| base.join(name)).ok_or(Failure::NoFolder)
}
