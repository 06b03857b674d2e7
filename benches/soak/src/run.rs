//! A run from the start of the server to the verdict.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fastrand::Rng;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::args::{Args, Expect};
use crate::board::{Board, Figures, Stuck};
use crate::chaos::{Chaos, Faults};
use crate::client::{Client, Order, Setup, last_words};
use crate::feed::Feed;
use crate::programs::{ProgramError, Programs};
use crate::proxy::Proxy;
use crate::server::{Launch, Server};
use crate::verdict::{Kills, Verdict};

/// Pieces of news that wait to be read.
const NEWS_QUEUE: usize = 1_024;

/// Why a run fails.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("{0} failed: {1}")]
    Start(&'static str, io::Error),
    #[error(transparent)]
    Program(#[from] ProgramError),
    #[error("{stuck}; {words}")]
    Stuck { stuck: Box<Stuck>, words: String },
    #[error("{acknowledged} of {posts} posts were acknowledged, {overtaken} refused for a reset")]
    Unacknowledged { acknowledged: u64, overtaken: u64, posts: u32 },
    #[error("no connection broke, so the run shows nothing")]
    Peaceful,
    #[error("the checker did not find what was expected: {0:?}")]
    Unexpected(Expect),
    #[error("interrupted")]
    Interrupted,
}

/// The client that resets the room: the first sender, so that it also posts in the new life.
const OPERATOR: u16 = 0;

/// What is done to the chat from outside, beside the faults of the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blow {
    Kill,
    KillServer,
    Reset,
}

impl Blow {
    const fn awaited(self) -> &'static str {
        match self {
            Self::Kill => "the posts before a kill",
            Self::KillServer => "the posts before the server is killed",
            Self::Reset => "the posts before a reset",
        }
    }
}

/// After how many answered posts each blow falls: those of a kind are spread evenly.
fn plan(args: &Args) -> Vec<(u64, Blow)> {
    let spread = |count: u32, blow| {
        let share =
            move |number: u32| u64::from(args.posts) * u64::from(number) / (u64::from(count) + 1);
        (1..=count).map(move |number| (share(number), blow))
    };
    let mut plan: Vec<_> =
        spread(args.kills, Blow::Kill).chain(spread(args.resets, Blow::Reset)).collect();
    plan.extend(spread(args.server_kills, Blow::KillServer));
    plan.sort_by_key(|(share, _)| *share);
    plan
}

fn name_of(args: &Args, index: u16) -> String {
    let sends = index < args.senders && args.posts_of(index) > 0;
    format!("{}{index:03}", if sends { "sender" } else { "reader" })
}

/// The clients of a run.
struct Crowd {
    setups: Vec<Setup>,
    orders: Vec<mpsc::Sender<Order>>,
    tasks: JoinSet<()>,
    board: Board,
}

/// Why a run was cut short.
enum Cut {
    Stuck(Stuck),
    Server(io::Error),
}

impl From<Stuck> for Cut {
    fn from(stuck: Stuck) -> Self {
        Self::Stuck(stuck)
    }
}

/// What was answered while somebody was answered, from blow to blow.
#[derive(Clone, Copy, Debug, Default)]
struct Load {
    posts: u64,
    time: Duration,
}

impl Load {
    fn add(&mut self, posts: u64, time: Duration) {
        self.posts = self.posts.saturating_add(posts);
        self.time = self.time.saturating_add(time);
    }
}

/// How long the parts of a run took.
struct Times {
    load: Load,
    feeding: Duration,
    catching_up: Duration,
    leaving: Duration,
}

pub(crate) async fn run(args: &Args) -> Result<(), Failure> {
    let programs = Programs::find(args)?;
    raise_descriptors().map_err(|error| Failure::Start("raising the file limit", error))?;
    let mut folder = tempfile::Builder::new()
        .prefix("chat-soak-")
        .tempdir()
        .map_err(|error| Failure::Start("making a folder", error))?;
    let result = run_in(args, &programs, folder.path()).await;
    if result.is_err() || args.keep {
        folder.disable_cleanup(true);
        println!("output kept in {}", folder.path().display());
    }
    result
}

async fn run_in(args: &Args, programs: &Programs, folder: &Path) -> Result<(), Failure> {
    let deadline = Instant::now() + args.time();
    let threshold = args.clients.div_ceil(2);
    let launch = Launch {
        program: programs.server.clone(),
        folder: folder.join("server"),
        keeps: args.server_kills > 0,
        threshold,
        operator: name_of(args, OPERATOR),
    };
    let mut server =
        Server::start(launch).await.map_err(|error| Failure::Start("the server", error))?;
    let proxy =
        Proxy::start(server.address).await.map_err(|error| Failure::Start("the proxy", error))?;
    let mut crowd = Crowd::start(args, programs, &proxy, folder, deadline)
        .map_err(|error| Failure::Start("a client", error))?;
    let (times, faults) = match crowd.talk(args, &proxy, &mut server).await {
        Ok(talked) => talked,
        Err(Cut::Stuck(stuck)) => return Err(crowd.explain(stuck, folder)),
        Err(Cut::Server(error)) => return Err(Failure::Start("the server again", error)),
    };
    let figures = crowd.board.figures;
    let url = server.url.clone();
    let status = server.stop().await.map_err(|error| Failure::Start("stopping", error))?;
    println!("server ended with {status}");
    report(args, &figures, &times, faults);
    let files: Vec<PathBuf> = crowd.setups.iter().map(Setup::output).collect();
    let verdict = judge(args, programs, &files, &url, deadline).await?;
    hold_against(args, &verdict, &figures)?;
    if args.faults_per_second > 0 && (faults.cuts() == 0 || figures.disconnected == 0) {
        return Err(Failure::Peaceful);
    }
    Ok(())
}

impl Crowd {
    fn start(
        args: &Args,
        programs: &Programs,
        proxy: &Proxy,
        folder: &Path,
        deadline: Instant,
    ) -> io::Result<Self> {
        let (send_news, news) = mpsc::channel(NEWS_QUEUE);
        let count = usize::from(args.clients);
        let (mut setups, mut orders) = (Vec::new(), Vec::new());
        let mut tasks = JoinSet::new();
        for (number, index) in (0..args.clients).enumerate() {
            let posts = if index < args.senders { args.posts_of(index) } else { 0 };
            let name = name_of(args, index);
            let setup = Setup {
                number,
                name: name.clone(),
                program: programs.client.clone(),
                address: proxy.address,
                folder: folder.to_owned(),
            };
            let feed = Feed::new(name, posts, args.pace());
            let client = Client::start(setup.clone(), feed, send_news.clone())?;
            let (order, ordered) = mpsc::channel(4);
            tasks.spawn(client.run(ordered));
            setups.push(setup);
            orders.push(order);
        }
        Ok(Self { setups, orders, tasks, board: Board::new(news, count, deadline) })
    }

    /// From the first post until everybody has left.
    async fn talk(
        &mut self,
        args: &Args,
        proxy: &Proxy,
        server: &mut Server,
    ) -> Result<(Times, Faults), Cut> {
        let began = Instant::now();
        let mut random = Rng::with_seed(args.seed());
        let chaos = Chaos::start(proxy.live.clone(), args.faults_per_second, random.u64(..));
        let mut load = Load::default();
        for (share, blow) in plan(args) {
            // Once somebody is back after the last kill.
            let before = self.board.answered();
            let is_back = |board: &Board| board.answered() > before || board.is_fed();
            self.board.until(blow.awaited(), is_back).await?;
            let (back, since) = (self.board.answered(), Instant::now());
            let is_time = |board: &Board| board.answered() >= share || board.is_fed();
            self.board.until(blow.awaited(), is_time).await?;
            load.add(self.board.answered().saturating_sub(back), since.elapsed());
            self.strike(blow, server, &mut random).await?;
        }
        let (restarts, lives) = (u64::from(args.kills), u64::from(args.resets) + 1);
        // A server that forgets what it answered resets more often than it was asked to.
        let is_struck = |board: &Board| board.figures.restarts == restarts && board.life() >= lives;
        self.board
            .until("answers to all posts", |board| board.is_fed() && is_struck(board))
            .await?;
        let faults = chaos.faults();
        drop(chaos);
        let fed = Instant::now();
        self.board.until("everybody to show everything", Board::is_even).await?;
        let even = Instant::now();
        for order in &self.orders {
            // Who ended already is told by the board.
            let _ended = order.send(Order::Finish).await;
        }
        let count = self.setups.len();
        self.board.until("everybody to leave", |board| board.figures.ended == count).await?;
        while self.tasks.join_next().await.is_some() {}
        let times = Times {
            load,
            feeding: fed.duration_since(began),
            catching_up: even.duration_since(fed),
            leaving: even.elapsed(),
        };
        Ok((times, faults))
    }

    async fn strike(&self, blow: Blow, server: &mut Server, random: &mut Rng) -> Result<(), Cut> {
        let operator = usize::from(OPERATOR);
        let (pick, order) = match blow {
            // Not the operator: a reset that it was told and did not read would never come.
            Blow::Kill => {
                let down = Duration::from_millis(random.u64(..500));
                (random.usize(operator + 1..self.orders.len()), Order::Kill { down })
            }
            // So many that the gate stays closed for a while at times, and opens in spite of faults.
            Blow::Reset => {
                let clients = u16::try_from(self.orders.len()).unwrap_or(u16::MAX);
                let threshold = random.u16(clients.div_ceil(2)..=clients - clients / 4);
                (operator, Order::Reset { threshold })
            }
            Blow::KillServer => {
                // At any instant of what goes on, not right after an answer.
                sleep(Duration::from_micros(random.u64(..20_000))).await;
                return server.kill_and_start_again().await.map_err(Cut::Server);
            }
        };
        if let Some(orders) = self.orders.get(pick) {
            let _ended = orders.send(order).await;
        }
        Ok(())
    }

    /// What a client that ended too early said.
    fn explain(&self, stuck: Stuck, folder: &Path) -> Failure {
        let client = match &stuck {
            Stuck::Ended { client, .. } | Stuck::Failed { client, .. } => Some(*client),
            Stuck::Timeout { .. } | Stuck::Alone(_) => None,
        };
        let words = client
            .and_then(|client| self.setups.get(client))
            .map(|Setup { name, .. }| format!("{name} said: {}", last_words(folder, name)));
        Failure::Stuck {
            stuck: Box::new(stuck),
            words: words.unwrap_or_else(|| "nobody ended".to_owned()),
        }
    }
}

fn report(args: &Args, figures: &Figures, times: &Times, faults: Faults) {
    let Args { clients, senders, posts, .. } = args;
    let Figures { records, acknowledged, overtaken, connected, disconnected, .. } = figures;
    let Figures { restarts, doubtful, .. } = figures;
    let seconds = |span: Duration| format!("{:.1} s", span.as_secs_f64());
    println!("{clients} clients, {senders} of them post, {posts} posts");
    println!("faults: {faults}");
    println!("kills: {restarts}, leaving {doubtful} posts that may have been lost with the client");
    println!("resets: {}, which refused {overtaken} posts of the lives before", args.resets);
    println!("the server was killed {} times", args.server_kills);
    println!("connections: {connected} made, {disconnected} lost");
    println!("{acknowledged} acknowledgements and {records} records shown");
    let Load { posts, time } = times.load;
    println!(
        "{} posts a second were answered, {} while the clients were back before a kill or reset",
        rate(acknowledged + overtaken, times.feeding),
        rate(posts, time)
    );
    println!(
        "time: {} posting, {} catching up, {} leaving",
        seconds(times.feeding),
        seconds(times.catching_up),
        seconds(times.leaving)
    );
}

/// How many a second that is.
fn rate(count: u64, time: Duration) -> u128 {
    u128::from(count).saturating_mul(1_000).checked_div(time.as_millis()).unwrap_or(0)
}

async fn judge(
    args: &Args,
    programs: &Programs,
    files: &[PathBuf],
    url: &str,
    deadline: Instant,
) -> Result<Verdict, Failure> {
    let kills = if args.kills == 0 { Kills::None } else { Kills::Some };
    let began = Instant::now();
    let verdict = Verdict::of(&programs.check, files, url, kills, deadline)
        .await
        .map_err(|error| Failure::Start("the checker", error))?;
    print!("{}", verdict.text);
    println!("judged in {:.1} s", began.elapsed().as_secs_f64());
    Ok(verdict)
}

/// Whether the run went as it should.
fn hold_against(args: &Args, verdict: &Verdict, figures: &Figures) -> Result<(), Failure> {
    if !verdict.meets(args.expect) {
        return Err(Failure::Unexpected(args.expect));
    }
    let Figures { acknowledged, overtaken, .. } = *figures;
    let complete = acknowledged + overtaken == u64::from(args.posts);
    if args.expect == Expect::Clean && args.kills == 0 && !complete {
        return Err(Failure::Unacknowledged { acknowledged, overtaken, posts: args.posts });
    }
    Ok(())
}

/// Each client costs a few descriptors.
fn raise_descriptors() -> io::Result<()> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    Ok(setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?)
}
