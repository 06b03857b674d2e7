//! Hostile peers and ordinary users at the same server, which has its default limits: what becomes of
//! every hostile input, and whether the users notice.

mod caller;
mod cases;
mod sign;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use chatcore::address::Address;
use chatcore::limits::Limits;

use crate::child::{Child, Transport};
use crate::conversation::{Conversation, Outcome, Pace, Resident};
use crate::failure::Failure;
use crate::idle::raise_descriptors;
use crate::socket::socket_address;
use crate::town::Town;
use caller::Caller;
use cases::{Case, Door, When};
use sign::{Sign, Signs, once, shown};

/// What is done.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// What the names of inputs have to hold to be tried.
    pub(crate) only: String,
    /// How often each input is tried.
    pub(crate) rounds: usize,
    /// How many users talk meanwhile.
    pub(crate) users: usize,
    /// Messages a second, of all of them.
    pub(crate) rate: u32,
}

/// What users are called, and their rooms: hostile peers know one of each.
const USERS: &str = "friend";
const NAME: &str = "friend1";
const ROOM: &str = "friends1";
/// Shown like [`NAME`], with a letter of another script.
const LOOK_ALIKE: &str = "fri\u{435}nd1";

const USERS_IN_A_ROOM: usize = 10;
const TEXT_BYTES: usize = 100;

/// How long users talk undisturbed.
const CALM: Duration = Duration::from_secs(3);

/// How long the whole of it may take.
const TIME_LIMIT: Duration = Duration::from_mins(1);

/// What is at once takes no longer than this, and so much later may a deadline be held: there is more
/// that the machine does.
const AT_ONCE: Duration = Duration::from_secs(5);

/// A deadline is counted from when the server accepts, in whole milliseconds, and here from before.
const DEADLINE_EARLY: Duration = Duration::from_millis(10);

/// Where the server listens.
#[derive(Clone, Debug)]
struct Site {
    /// Takes everything.
    plain: Address,
    /// The same, by TLS.
    tls: Address,
    unix: Address,
    /// A port that takes TLS alone, as if it did not.
    tls_only: Address,
}

/// What became of one input by one way, every time.
#[derive(Clone)]
struct Row {
    input: &'static str,
    by: &'static str,
    expected: String,
    seen: String,
    /// The longest time until the server ended it, if it did.
    lasted: Option<Duration>,
    as_expected: bool,
}

/// Checks that there is an input with this in its name.
pub(crate) fn part_of_an_input(text: &str) -> Result<String, String> {
    let is_there = cases::all().iter().any(|case| case.input.contains(text));
    is_there.then(|| text.to_owned()).ok_or_else(|| "no input has this in its name".to_owned())
}

/// Does it all and prints; whether everything came as expected.
pub(crate) fn run(plan: &Plan) -> Result<bool, Failure> {
    raise_descriptors()?;
    let folder = tempfile::tempdir()?;
    let unix = format!("unix:{}", folder.path().join("socket").display());
    let listen = ["chat://127.0.0.1:0", "chats://127.0.0.1:0", &unix];
    let server = Child::with_default_limits(&folder.path().join("data"), &listen)?;
    let site = Site::of(&server)?;
    let deadline = Instant::now() + TIME_LIMIT;
    let all_sent = Arc::new(AtomicBool::new(false));
    let users = talk(plan.clone(), socket_address(&site.plain)?, Arc::clone(&all_sent));
    let calm = receive(&users, deadline)??;
    let rows = attack(&site, plan, deadline)?;
    all_sent.store(true, Ordering::Relaxed);
    let disturbed = receive(&users, deadline)??;
    println!("every input {} times, at a server with its default limits\n", plan.rounds);
    let as_expected = print_rows(&rows);
    println!("\na reader that never reads while a room talks is not here: see chat-bench stuck");
    print_users(plan, &calm, &disturbed);
    let lives = finish(&site, server)?;
    Ok(lives && as_expected && calm.losses + disturbed.losses == 0)
}

impl Site {
    fn of(server: &Child) -> Result<Self, Failure> {
        let [(_, plain), (_, strict), (_, unix)] =
            [server.listening()?, server.listening()?, server.listening()?];
        let (Address::Tcp { host, port }, Address::Tls { host: strict, port: strict_port }) =
            (plain.clone(), strict)
        else {
            return Err(Failure::NotListening);
        };
        let tls = Address::Tls { host, port };
        Ok(Self { plain, tls, unix, tls_only: Address::Tcp { host: strict, port: strict_port } })
    }

    const fn door(&self, door: Door) -> &Address {
        match door {
            Door::Open(Transport::Tcp) => &self.plain,
            Door::Open(Transport::Tls) => &self.tls,
            Door::Open(Transport::Unix) => &self.unix,
            Door::TlsOnly => &self.tls_only,
        }
    }
}

/// Has users talk in a thread of their own: first undisturbed, then until all hostile inputs are sent.
fn talk(
    plan: Plan,
    server: SocketAddr,
    all_sent: Arc<AtomicBool>,
) -> mpsc::Receiver<Result<Outcome, Failure>> {
    let (results, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let outcome = (|| {
            let (mut town, mut conversation) = gather(&plan, server)?;
            let begun = Instant::now();
            let calm = conversation.run(&mut town, || begun.elapsed() < CALM)?;
            // Whoever waited may have given up, and then ends this process.
            let _ = results.send(Ok(calm));
            let outcome = conversation.run(&mut town, || !all_sent.load(Ordering::Relaxed))?;
            town.close()?;
            Ok(outcome)
        })();
        let _ = results.send(outcome);
    });
    receiver
}

fn gather(plan: &Plan, server: SocketAddr) -> Result<(Town, Conversation), Failure> {
    let mut town = Town::new(server)?;
    let rooms = plan.users.div_ceil(USERS_IN_A_ROOM);
    let people: Vec<Resident> = (0..plan.users)
        .map(|person| Resident { person, name: format!("{USERS}{person}"), room: person % rooms })
        .collect();
    let names: Vec<_> =
        people.iter().map(|it| (it.name.clone(), format!("{USERS}s{}", it.room))).collect();
    town.settle_all(&names, &Limits::default(), &mut |_, _| Ok(()))?;
    let pace = Pace { rate: plan.rate, text_bytes: TEXT_BYTES };
    Ok((town, Conversation::among(&people, pace)))
}

fn receive<T>(results: &mpsc::Receiver<T>, deadline: Instant) -> Result<T, Failure> {
    let left = deadline.saturating_duration_since(Instant::now());
    results.recv_timeout(left).map_err(|_| Failure::TimeLimit)
}

/// Tries everything by every way, all of it at once.
fn attack(site: &Site, plan: &Plan, deadline: Instant) -> Result<Vec<Row>, Failure> {
    let (done, rows) = mpsc::channel();
    let (all, rounds) = (cases::all(), plan.rounds);
    let chosen = all.iter().filter(|case| case.input.contains(&plan.only));
    let each = chosen.flat_map(|case| case.by.iter().map(move |door| (case.clone(), *door)));
    let count = each.clone().count();
    for (number, (case, door)) in each.enumerate() {
        let (site, done) = (site.clone(), done.clone());
        std::thread::spawn(move || {
            let row = try_often(&case, &site, door, (number, rounds));
            // Whoever waited may have given up, and then ends this process.
            let _ = done.send((number, row));
        });
    }
    let rows: Result<Vec<_>, _> = (0..count).map(|_| receive(&rows, deadline)).collect();
    let mut rows = rows?;
    rows.sort_unstable_by_key(|(number, _)| *number);
    Ok(rows.into_iter().map(|(_, row)| row).collect())
}

/// Tries one input by one way, until something else comes of it than was expected.
fn try_often(case: &Case, site: &Site, door: Door, (number, rounds): (usize, usize)) -> Row {
    let mut row = Row {
        input: case.input,
        by: door.name(),
        expected: shown(&case.expected),
        seen: String::new(),
        lasted: None,
        as_expected: true,
    };
    let rounds = match case.when {
        When::AtOnce => rounds,
        When::AtDeadline => 1,
    };
    for round in 0..rounds {
        let name = format!("foe-{number}-{round}");
        match attempt(case, site.door(door), &name) {
            Ok((signs, lasted)) => {
                row.as_expected = signs.meets(&case.expected) && case.when.allows(lasted);
                row.seen = signs.to_string();
                row.lasted = row.lasted.max(lasted);
            }
            Err(failure) => {
                row.as_expected = false;
                row.seen = failure.to_string();
            }
        }
        if !row.as_expected {
            break;
        }
    }
    row
}

fn attempt(
    case: &Case,
    address: &Address,
    name: &str,
) -> Result<(Signs, Option<Duration>), Failure> {
    let mut caller = Caller::connect(address, name)?;
    (case.act)(&mut caller)?;
    Ok(caller.seen())
}

impl When {
    fn allows(self, lasted: Option<Duration>) -> bool {
        let login_time = Duration::from_millis(Limits::default().login_time.as_millis());
        let (least, most) = match self {
            Self::AtOnce => (Duration::ZERO, AT_ONCE),
            Self::AtDeadline => (login_time.saturating_sub(DEADLINE_EARLY), login_time + AT_ONCE),
        };
        lasted.is_none_or(|lasted| (least..=most).contains(&lasted))
    }
}

impl Door {
    const fn name(self) -> &'static str {
        match self {
            Self::Open(transport) => transport.name(),
            Self::TlsOnly => "tcp",
        }
    }
}

fn print_rows(rows: &[Row]) -> bool {
    let lines: Vec<[String; 5]> = rows.chunk_by(Row::is_like).map(line_of).collect();
    let titles = ["input", "by", "expected", "seen", "closed after ms"].map(str::to_owned);
    let width = |column: usize| {
        let cells = lines.iter().chain([&titles]).filter_map(|line| line.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..titles.len()).map(width).collect();
    for line in [&titles].into_iter().chain(&lines) {
        let cells = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        println!("{}", cells.collect::<Vec<_>>().join("  ").trim_end());
    }
    rows.iter().all(|row| row.as_expected)
}

/// What is said of an input by all ways by which the same came of it.
fn line_of(rows: &[Row]) -> [String; 5] {
    let joined =
        |each: &dyn Fn(&Row) -> String| rows.iter().map(each).collect::<Vec<_>>().join(" ");
    let time =
        |row: &Row| row.lasted.map_or_else(|| "-".to_owned(), |it| it.as_millis().to_string());
    let Some(first) = rows.first() else { return Default::default() };
    let verdict = if first.as_expected { "" } else { "  UNEXPECTED" };
    [
        first.input.to_owned(),
        joined(&|row| row.by.to_owned()),
        first.expected.clone(),
        first.seen.clone(),
        joined(&time) + verdict,
    ]
}

impl Row {
    /// Whether one line says enough of both.
    fn is_like(&self, other: &Self) -> bool {
        self.input == other.input && self.as_expected && other.as_expected
    }
}

fn print_users(plan: &Plan, calm: &Outcome, disturbed: &Outcome) {
    println!(
        "\n{} users in rooms of {USERS_IN_A_ROOM} say {} messages a second; every one reached everybody in \
         its room once, in order; {} of their connections were lost\n\n\
         \x20            messages    shown   p50 ms   p99 ms   max ms",
        plan.users,
        plan.rate,
        calm.losses + disturbed.losses,
    );
    println!("before     {}\nmeanwhile  {}", calm.row(), disturbed.row());
}

/// Whether the server lives, takes newcomers and has nothing to complain of; it stops then.
fn finish(site: &Site, server: Child) -> Result<bool, Failure> {
    let mut health = Caller::connect(&site.plain, "")?;
    cases::get(&mut health, "/healthz", "");
    let is_healthy = health.seen().0.meets(&vec![once(Sign::Http(200)), once(Sign::End)]);
    let mut newcomer = Caller::connect(&site.plain, "newcomer")?;
    newcomer.log_in()?;
    let bytes = server.resident_bytes()?;
    let log = server.stop()?;
    println!(
        "\nafterwards the server {}, lets a newcomer in and has {:.1} MB; its log has {} lines",
        if is_healthy { "lives" } else { "does not answer" },
        crate::idle::megabytes(bytes),
        log.lines().count(),
    );
    print!("{log}");
    Ok(is_healthy && !log.contains("panicked"))
}
