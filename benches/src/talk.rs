//! Those who talk, beside many more who only listen: how long messages take without them and with them,
//! at one server with its default limits.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use chatcore::limits::Limits;

use crate::child::Child;
use crate::conversation::{Conversation, Pace, Resident};
use crate::failure::Failure;
use crate::fan_out::median;
use crate::idle::{megabytes, raise_descriptors_to};
use crate::socket::socket_address;
use crate::town::{News, Town};

/// What is measured.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Who say nothing.
    pub(crate) idle: usize,
    /// How many of them are in a room.
    pub(crate) idle_in_a_room: usize,
    pub(crate) talking: usize,
    /// How many rooms these are in.
    pub(crate) rooms: usize,
    pub(crate) pace: Pace,
    /// How long they talk in a round.
    pub(crate) time: Duration,
    pub(crate) rounds: usize,
    /// A folder on the disk that is to be measured.
    pub(crate) folder: PathBuf,
}

/// The slowest percent may take this many times what it takes without idle ones.
const AIM: f64 = 2.0;

/// What is less than this is never too slow: nobody sees it, and on a machine with little to do it is
/// chance.
const UNSEEN_MS: f64 = 5.0;

/// How long a server and those who only listen catch up with each other before a round.
const SETTLING: Duration = Duration::from_secs(1);

/// A server, and the people that it has.
struct Side {
    idle: usize,
    /// Goes with its server, which is to stop first.
    server: Child,
    town: Town,
    conversation: Conversation,
    percents: Vec<f64>,
    losses: u64,
    _folder: tempfile::TempDir,
}

/// Measures and prints; whether the aim was met.
pub(crate) fn run(plan: &Plan) -> Result<bool, Failure> {
    raise_descriptors_to(plan.idle + plan.talking * 2)?;
    introduce(plan);
    let (mut alone, mut beside) = (Side::open(plan, 0)?, Side::open(plan, plan.idle)?);
    let influx = beside.settle_idle(plan)?;
    println!("    idle   messages    shown   p50 ms   p99 ms   max ms  server MB  server % CPU");
    for _ in 0..plan.rounds {
        alone.measure(plan)?;
        beside.measure(plan)?;
    }
    let limits = Limits::default();
    println!(
        "\n{} idle ones were in their rooms after {:.1} s; {} were told E_BUSY before, and came again \
         (limit: {} new ones a second after {} at once)",
        plan.idle,
        influx.time.as_secs_f64(),
        influx.busy,
        limits.logins_per_second,
        limits.logins_burst,
    );
    let losses = influx.losses + alone.losses + beside.losses;
    let [without, with] = [alone.close()?, beside.close()?];
    // Each over the one right before it, as what else the machine does changes from minute to minute.
    let ratio = median(with.iter().zip(&without).map(|(with, without)| with / without).collect());
    let with = median(with);
    println!(
        "connections lost: {losses}; every message reached everybody in its room once, in order\n\
         p99 with idle ones: {with:.2} ms, over that of the round before: {ratio:.2}, both the median \
         (aim: <= {AIM} times, or <= {UNSEEN_MS} ms)"
    );
    Ok((ratio <= AIM || with <= UNSEEN_MS) && losses == 0)
}

fn introduce(plan: &Plan) {
    let Plan { idle, idle_in_a_room, talking, rooms, pace, time, rounds, .. } = plan;
    println!(
        "{talking} people in {rooms} rooms say {} messages of {} bytes a second, {rounds} rounds of {} s, \
         at two servers in turn; one of them has {idle} others who say nothing in rooms of \
         {idle_in_a_room}; servers have their default limits and keep everything; clients come from {} \
         addresses\n",
        pace.rate,
        pace.text_bytes,
        time.as_secs(),
        Town::addresses(idle + talking),
    );
}

fn gather(plan: &Plan, town: &mut Town) -> Result<Conversation, Failure> {
    let people: Vec<Resident> = (0..plan.talking)
        .map(|person| Resident {
            person,
            name: format!("talker{person}"),
            room: person % plan.rooms,
        })
        .collect();
    let names: Vec<_> =
        people.iter().map(|it| (it.name.clone(), format!("talkers{}", it.room))).collect();
    town.settle_all(&names, &Limits::default(), &mut |_, _| Ok(()))?;
    Ok(Conversation::among(&people, plan.pace))
}

/// How the idle ones came.
#[derive(Debug, Default)]
struct Influx {
    time: Duration,
    busy: u64,
    /// Connections of people who were in their rooms.
    losses: u64,
}

impl Side {
    /// A server, and those who will talk, in their rooms.
    fn open(plan: &Plan, idle: usize) -> Result<Self, Failure> {
        let folder = tempfile::tempdir_in(&plan.folder)?;
        let server = Child::with_default_limits(folder.path(), &["chat://127.0.0.1:0"])?;
        let mut town = Town::new(socket_address(&server.listening()?.1)?)?;
        let conversation = gather(plan, &mut town)?;
        let (percents, losses) = (Vec::new(), 0);
        Ok(Self { idle, server, town, conversation, percents, losses, _folder: folder })
    }

    fn settle_idle(&mut self, plan: &Plan) -> Result<Influx, Failure> {
        let name = |number| format!("idle{number}");
        let room = |number| format!("idlers{}", number / plan.idle_in_a_room);
        let names: Vec<_> = (0..plan.idle).map(|number| (name(number), room(number))).collect();
        let (begun, mut influx) = (Instant::now(), Influx::default());
        self.town.settle_all(&names, &Limits::default(), &mut |_, news| {
            match news {
                News::Busy => influx.busy += 1,
                News::Lost => influx.losses += 1,
                News::LoggedIn | News::Follows | News::Missed | News::Came(_) | News::Shown(_) => {}
            }
            Ok(())
        })?;
        influx.time = begun.elapsed();
        Ok(influx)
    }

    /// One round.
    fn measure(&mut self, plan: &Plan) -> Result<(), Failure> {
        let Self { idle, server, town, conversation, .. } = self;
        conversation.listen(town, SETTLING)?;
        let (begun, cpu) = (Instant::now(), server.cpu_time()?);
        let outcome = conversation.run(town, || begun.elapsed() < plan.time)?;
        let cpu = server.cpu_time()?.saturating_sub(cpu).as_secs_f64();
        let share = 100.0 * cpu / begun.elapsed().as_secs_f64();
        let memory = megabytes(server.resident_bytes()?);
        println!("{idle:>8} {} {memory:>10.1} {share:>13.1}", outcome.row());
        self.percents.push(outcome.percentile(99));
        self.losses += outcome.losses;
        Ok(())
    }

    /// The slowest percents of the rounds, in milliseconds.
    fn close(self) -> Result<Vec<f64>, Failure> {
        self.town.close()?;
        self.server.stop()?;
        Ok(self.percents)
    }
}
