//! One client's process: what it is fed, what it writes, how it is killed and started again.

use std::borrow::Cow;
use std::fmt;
use std::fs::File;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::mpsc;
use tokio::time::sleep;

use crate::feed::Feed;

const BUFFER_BYTES: usize = 64 << 10;

/// How long a client may take for its first connection and its last acknowledgements.
const CLIENT_TIMEOUT: &str = "60s";

/// What a client is told to do.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Order {
    /// Be killed, and started again after a while.
    Kill { down: Duration },
    /// Reset the room, with a gate for so many users.
    Reset { threshold: u16 },
    /// Have its input end, and end itself.
    Finish,
}

/// What became of a client, or of its posts.
#[derive(Debug)]
pub(crate) enum News {
    Progress(Progress),
    /// It is running again after a kill.
    Restarted,
    /// It ended; `asked` when it was told to.
    Exited {
        status: ExitStatus,
        asked: bool,
        doubtful: usize,
    },
    /// It cannot be run.
    Failed(io::Error),
}

/// How far a client has come in a room: lives follow one another, and the gate of a life opens once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) life: u64,
    pub(crate) open: bool,
    /// The last record shown.
    pub(crate) seq: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { life, open, seq } = self;
        write!(f, "{life}:{seq}{}", if *open { "" } else { " held" })
    }
}

/// What one piece of output tells.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Progress {
    /// How far it has come, if this tells.
    pub(crate) shown: Place,
    /// The last place a post was acknowledged at.
    pub(crate) placed: Place,
    pub(crate) records: u64,
    pub(crate) acknowledged: u64,
    pub(crate) refused: u64,
    /// Of `refused`, those that were written for an earlier life of the room.
    pub(crate) overtaken: u64,
    pub(crate) connected: u64,
    pub(crate) disconnected: u64,
    /// Whether all its posts are answered.
    pub(crate) fed: bool,
}

/// How a client is run.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) number: usize,
    pub(crate) name: String,
    pub(crate) program: PathBuf,
    pub(crate) address: SocketAddr,
    /// Its home, and where its output goes.
    pub(crate) folder: PathBuf,
}

impl Setup {
    pub(crate) fn output(&self) -> PathBuf {
        self.folder.join(format!("{}.jsonl", self.name))
    }

    fn home(&self) -> PathBuf {
        self.folder.join(&self.name)
    }

    fn spawn(&self) -> io::Result<Child> {
        let home = self.home();
        let errors = File::options().append(true).create(true).open(home.join("stderr"))?;
        Command::new(&self.program)
            .arg(format!("chat://{}", self.address))
            .args(["--json", "--history", "all", "--timeout", CLIENT_TIMEOUT, "--name", &self.name])
            .env("HOME", &home)
            .env("XDG_CONFIG_HOME", home.join("config"))
            .env("XDG_DATA_HOME", home.join("data"))
            .env("XDG_STATE_HOME", home.join("state"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors)
            .kill_on_drop(true)
            .spawn()
    }
}

/// A client's process. It is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Client {
    setup: Setup,
    feed: Feed,
    child: Child,
    /// None once its input has ended.
    stdin: Option<ChildStdin>,
    stdout: ChildStdout,
    output: File,
    /// The line that has no end yet.
    line: Vec<u8>,
    news: mpsc::Sender<(usize, News)>,
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    code: Option<Cow<'a, str>>,
    seq: Option<u64>,
    incarnation: Option<u64>,
    open: Option<bool>,
    #[serde(borrow)]
    id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    text: Option<Cow<'a, str>>,
    /// The text of a post that was given up.
    #[serde(borrow, rename = "line")]
    given_up: Option<Cow<'a, str>>,
}

impl Line<'_> {
    fn place(&self) -> Place {
        // What has a place was let through by its gate.
        let open = self.open.unwrap_or(self.seq.is_some());
        Place { life: self.incarnation.unwrap_or(0), open, seq: self.seq.unwrap_or(0) }
    }
}

/// What woke a client's task.
enum Step {
    Output(io::Result<usize>),
    Order(Option<Order>),
    Due,
}

impl Client {
    /// Starts a client's process.
    pub(crate) fn start(
        setup: Setup,
        feed: Feed,
        news: mpsc::Sender<(usize, News)>,
    ) -> io::Result<Self> {
        std::fs::create_dir_all(setup.home())?;
        let output = File::create(setup.output())?;
        let mut child = setup.spawn()?;
        let (stdin, stdout) = pipes(&mut child)?;
        Ok(Self { setup, feed, child, stdin: Some(stdin), stdout, output, line: Vec::new(), news })
    }

    /// Runs it to its end.
    pub(crate) async fn run(mut self, orders: mpsc::Receiver<Order>) {
        let news = match self.follow(orders).await {
            Ok(status) => {
                let (asked, doubtful) = (self.stdin.is_none(), self.feed.doubtful());
                News::Exited { status, asked, doubtful }
            }
            Err(error) => News::Failed(error),
        };
        self.tell(news).await;
    }

    async fn follow(&mut self, mut orders: mpsc::Receiver<Order>) -> io::Result<ExitStatus> {
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            let step = tokio::select! {
                read = self.stdout.read(&mut buffer) => Step::Output(read),
                order = orders.recv() => Step::Order(order),
                () = self.feed.due(), if self.stdin.is_some() => Step::Due,
            };
            match step {
                Step::Output(read) => match read? {
                    0 => return self.child.wait().await,
                    count => self.take_output(&buffer[..count]).await?,
                },
                Step::Order(Some(Order::Kill { down })) => self.kill(down).await?,
                Step::Order(Some(Order::Finish) | None) => self.stdin = None,
                Step::Order(Some(Order::Reset { threshold })) => {
                    self.write(&format!("$reset -{threshold}\n")).await?;
                }
                Step::Due => {
                    let post = self.feed.take();
                    self.write(&post).await?;
                }
            }
        }
    }

    async fn write(&mut self, line: &str) -> io::Result<()> {
        let Some(stdin) = &mut self.stdin else { return Ok(()) };
        stdin.write_all(line.as_bytes()).await
    }

    /// Keeps what it wrote, and finds out what that tells.
    async fn take_output(&mut self, bytes: &[u8]) -> io::Result<()> {
        // The file is of this machine, and the next client's turn can wait for it.
        self.output.write_all(bytes)?;
        let mut progress = Progress::default();
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(part);
            if part.ends_with(b"\n") {
                let line = std::mem::take(&mut self.line);
                self.take_line(&line, &mut progress);
            }
        }
        progress.fed = self.feed.is_done();
        self.tell(News::Progress(progress)).await;
        Ok(())
    }

    fn take_line(&mut self, line: &[u8], progress: &mut Progress) {
        // What is no event is for the checker to judge.
        let Ok(line) = serde_json::from_slice::<Line<'_>>(line) else { return };
        match line.kind.as_ref() {
            "message" | "joined" | "left" => {
                progress.records += 1;
                progress.shown = progress.shown.max(line.place());
                self.feed.show(line.text.as_deref().unwrap_or_default());
            }
            "gate" | "reset" => {
                progress.shown = progress.shown.max(line.place());
                self.feed.enter(line.place().life);
            }
            "sent" | "error" => self.take_answer(&line, progress),
            "connected" => progress.connected += 1,
            "disconnected" => progress.disconnected += 1,
            _ => {}
        }
    }

    fn take_answer(&mut self, line: &Line<'_>, progress: &mut Progress) {
        let Some(id) = line.id.as_deref().filter(|id| self.feed.answer(id)) else { return };
        if line.kind == "error" {
            progress.refused += 1;
            // A post that was given up is E_STATE too, and comes with its text.
            let overtaken = line.code.as_deref() == Some("E_STATE") && line.given_up.is_none();
            progress.overtaken += u64::from(overtaken);
            return;
        }
        progress.acknowledged += 1;
        progress.placed = progress.placed.max(line.place());
        if line.seq.is_none() {
            self.feed.hold(id, line.place().life);
        }
    }

    /// Kills it in the middle of whatever it does, and starts it again on the same folder.
    async fn kill(&mut self, down: Duration) -> io::Result<()> {
        self.child.start_kill()?;
        let mut rest = Vec::new();
        self.stdout.read_to_end(&mut rest).await?;
        self.take_output(&rest).await?;
        self.child.wait().await?;
        let end: &[u8] = if self.line.is_empty() { b"" } else { b"\n" };
        self.line.clear();
        self.output.write_all(&[end, b"{\"type\":\"killed\"}\n"].concat())?;
        self.feed.lose();
        sleep(down).await;
        let mut child = self.setup.spawn()?;
        let (stdin, stdout) = pipes(&mut child)?;
        (self.child, self.stdin, self.stdout) = (child, Some(stdin), stdout);
        self.tell(News::Restarted).await;
        // It may have been the last answers that were lost.
        let fed = self.feed.is_done();
        self.tell(News::Progress(Progress { fed, ..Progress::default() })).await;
        Ok(())
    }

    async fn tell(&self, news: News) {
        // Nobody listens any more when the run is over.
        let _over = self.news.send((self.setup.number, news)).await;
    }
}

fn pipes(child: &mut Child) -> io::Result<(ChildStdin, ChildStdout)> {
    let pipes = child.stdin.take().zip(child.stdout.take());
    pipes.ok_or_else(|| io::ErrorKind::BrokenPipe.into())
}

/// The last line that a client wrote to stderr, for people.
pub(crate) fn last_words(folder: &Path, name: &str) -> String {
    let path = folder.join(name).join("stderr");
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().next_back().unwrap_or("nothing on stderr").to_owned()
}
