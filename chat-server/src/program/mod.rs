//! The program `chat-server`: options in, a running server, lines for people or scripts out.

mod args;
mod report;
mod status;

use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use chatcore::limits::Limits;
use chatcore::wire::Refusal;
use clap::Parser as _;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::key::{KeyError, ServerKey};
use crate::listener::ListenError;
use crate::orders::{IdentityError, OrderError, OrderKey, Orders};
use crate::server::{self, Server, ServerConfig, StartError, Stopped};
use crate::store::{self, BackupError, Checked, Storage, StoreError, TransferError};
use crate::tls::{Tls, TlsError};
use args::{Args, BackupArgs, FolderArgs, Job, RunArgs, StatusArgs};
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
    #[error("{} is not as it was written: {found} found", folder.display())]
    Damaged { folder: PathBuf, found: usize },
}

impl Failure {
    fn exit_code(&self) -> ExitCode {
        match self {
            Self::Start(StartError::Listen(
                ListenError::Exposed { .. } | ListenError::NoCertificate { .. },
            ))
            | Self::NoFolder => ExitCode::from(USAGE),
            Self::Order(error) => exit_code_of(error),
            Self::NoRight(_) => ExitCode::from(REFUSED),
            Self::Start(_)
            | Self::Identity(_)
            | Self::Key(_)
            | Self::Tls(_)
            | Self::Runtime(_)
            | Self::Server(_)
            | Self::Store(_)
            | Self::Backup(_)
            | Self::Transfer(_)
            | Self::Damaged { .. } => ExitCode::FAILURE,
        }
    }
}

fn exit_code_of(error: &OrderError) -> ExitCode {
    match error {
        OrderError::Unreachable { .. } | OrderError::Silent { .. } => ExitCode::from(NETWORK),
        OrderError::Refused { refusal: Refusal::Perm | Refusal::Auth(_), .. }
        | OrderError::OtherServer { .. } => ExitCode::from(REFUSED),
        // It is full, or stops: as good as not there for now.
        OrderError::Refused { refusal: Refusal::Busy { .. } | Refusal::Gone, .. } => {
            ExitCode::from(NETWORK)
        }
        OrderError::Refused { .. } | OrderError::Foreign { .. } => ExitCode::FAILURE,
    }
}

/// Runs the program with the arguments of the process.
pub fn main() -> ExitCode {
    let job = Args::parse().into_job();
    let report = Report::new(job.form());
    job.start_log();
    let result = match &job {
        Job::Run(args) => run(args, &report),
        Job::Check(args) => check(args, &report),
        Job::Backup(args) => backup(args, &report),
        Job::Export(args) => export(args, &report),
        Job::Import(args) => import(args, &report),
        Job::Status(args) => status(args, &report),
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
    let tls = tls(args, &folder)?;
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
        let signals = Signals::listen().map_err(Failure::Runtime)?;
        let server = Server::start(ServerConfig {
            listen: args.listen.clone(),
            plaintext: args.plaintext.into(),
            tls,
            storage: storage.clone(),
            keep: args.keep.iter().copied().collect(),
            threshold: args.threshold.unwrap_or_default(),
            operators: args.operator.clone(),
            limits: limits(&storage),
            ..ServerConfig::new(key)
        })
        .await?;
        report.listening(&server, &storage);
        report::overruled(server.founding(), args);
        serve(server, signals, report).await
    })
}

/// What is shown by TLS, if anything.
fn tls(args: &RunArgs, folder: &Path) -> Result<Option<Tls>, TlsError> {
    match (&args.tls_cert, &args.tls_key) {
        (Some(certificate), Some(key)) => Tls::from_files(certificate, key).map(Some),
        _ if args.tls_self_signed => Tls::self_signed(folder, &args.listen).map(Some),
        _ => Ok(None),
    }
}

/// Bytes of records that stay in memory when all of them are in a store: what readers that lag a
/// little are sent without asking it. A page of it takes less than a millisecond, so there is no need
/// for memory to grow with the history at all.
const WINDOW_BYTES: u64 = 2 << 20;

fn limits(storage: &Storage) -> Limits {
    let limits = Limits::default();
    match storage {
        Storage::Ephemeral => limits,
        Storage::Folder { .. } => Limits { window_bytes: WINDOW_BYTES, ..limits },
    }
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

/// What proves the right: an operator's key, or the server's own.
fn order_key(args: &StatusArgs) -> Result<OrderKey, Failure> {
    if let Some(identity) = &args.identity {
        return Ok(OrderKey::of_identity(identity)?);
    }
    let folder = data_folder(args.folder.data.clone())?;
    OrderKey::of_server(&folder).map_err(|error| match error {
        KeyError::Gone { .. } => Failure::NoRight(folder),
        other @ (KeyError::Folder { .. }
        | KeyError::Io { .. }
        | KeyError::Open { .. }
        | KeyError::Damaged { .. }
        | KeyError::Random(_)) => Failure::Key(other),
    })
}

/// The signals that stop the program in order.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        let terminate = signal(SignalKind::terminate())?;
        Ok(Self { terminate, interrupt: signal(SignalKind::interrupt())? })
    }
}

/// Serves until a signal comes.
async fn serve(mut server: Server, mut signals: Signals, report: &Report) -> Result<(), Failure> {
    let reason = tokio::select! {
        _ = signals.terminate.recv() => "SIGTERM",
        _ = signals.interrupt.recv() => "SIGINT",
        failure = server.failed() => return Err(Failure::Server(failure)),
    };
    report.stopping(reason);
    if server.stop().await == Stopped::TimedOut {
        tracing::warn!("some connections did not take their last messages in time");
    }
    report.stopped(reason);
    Ok(())
}

/// Where the server keeps its key and the chat: the folder named, or the one the XDG rules give.
fn data_folder(named: Option<PathBuf>) -> Result<PathBuf, Failure> {
    if let Some(folder) = named {
        return Ok(folder);
    }
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    let xdg = absolute("XDG_DATA_HOME");
    let base = xdg.or_else(|| absolute("HOME").map(|home| home.join(".local/share")));
    base.map(|base| base.join("chat-server")).ok_or(Failure::NoFolder)
}
