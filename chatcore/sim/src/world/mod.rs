//! One world: a server, its store, its clients, and the network between them, moved by events.
//!
//! Everything that happens is an event in one queue, in the order of simulated time. The same
//! plan gives the same events, byte for byte. Beside the world stand the checkers: the
//! [`Model`] hears what the engine is told and says, the
//! witness sees what the store holds and what clients show.

mod boot;
mod bounds;
mod client;
mod disk;
mod faults;
mod living;
mod marking;
mod net;
mod queue;
mod server;
mod slip;
mod store;
mod twin;
mod visit;
mod waits;
mod wild;

use std::collections::BTreeMap;

use chatcore::client::Stop;
use chatcore::engine::Archive;
use chatcore::id::ConnId;
use chatcore::text::RoomName;
use chatcore::time::{Moment, Now, Timestamp};
use chatcore::wire::{ExpelFault, Measure, Refusal};
use fastrand::Rng;

use crate::broken::{Broken, hold};
use crate::marks::{Mark, Marks};
use crate::model::Model;
use crate::off::Off;
use crate::panics;
use crate::plan::{NetOptions, Plan, Profile};
use crate::telling::room_name;
use crate::watchdog::Pulse;
use crate::witness::Witness;
use crate::world::boot::Inspected;
use crate::world::client::Slot;
use crate::world::disk::Disk;
use crate::world::faults::Troubles;
use crate::world::marking::Memory;
use crate::world::net::{Conn, Wire};
use crate::world::queue::{Event, Queue, Side};
use crate::world::server::Server;
use crate::world::wild::WildPeer;

/// The wall clock when a world begins.
const EPOCH: u64 = 1_700_000_000_000;

/// How often the whole state is checked, and the engine is made again from its snapshot; a little
/// later when entries wait for the store, as there is no snapshot then.
const INSPECT_STEPS: u64 = 64;

/// After how many steps a world settles, even if its plan has more.
const ACTING_STEPS: u64 = 6_500;

/// How many steps a world has to settle once nothing goes wrong any more, since it last came
/// nearer.
const SETTLE_STEPS: u64 = 10_000;

/// How many steps a world may take at all.
const STEPS_MAX: u64 = 100_000;

/// How often it is looked whether it has.
const LOOK_STEPS: u64 = 32;

/// What came of a world.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Events that happened.
    pub steps: u64,
    /// A digest of everything that was written and sent: the same for the same plan.
    pub digest: u64,
    /// Situations reached.
    pub marks: Marks,
    /// The first rule that was broken.
    pub broken: Option<Broken>,
    /// What happened, if it was asked for.
    pub trace: Vec<String>,
}

/// Runs a world to its end, or to the first broken rule. `off` is what is switched off in it, and
/// `traced` whether to write down what happens.
pub fn run(plan: &Plan, off: Off, traced: bool) -> Outcome {
    let mut lines = Vec::new();
    let mut tell = |line| lines.push(line);
    let outcome = run_watched(plan, off, traced.then_some(&mut tell), &Pulse::default());
    Outcome { trace: lines, ..outcome }
}

/// As [`run`]; `tell` is told what happens when it happens, so that it is known also of a step that
/// does not end, and `pulse` of every step.
pub fn run_watched<'a>(
    plan: &'a Plan,
    off: Off,
    tell: Option<&'a mut dyn FnMut(String)>,
    pulse: &Pulse,
) -> Outcome {
    let mut world = World::new(plan, off, tell);
    pulse.begin(plan.seed, off);
    // What was written down until then is worth the most when something panics.
    let result = panics::catch(|| world.run(pulse));
    pulse.end();
    Outcome {
        steps: world.steps,
        digest: world.digest,
        marks: world.marks,
        broken: result.err(),
        trace: Vec::new(),
    }
}

pub(crate) struct World<'a> {
    plan: &'a Plan,
    off: Off,
    now: u64,
    steps: u64,
    digest: u64,
    marks: Marks,
    tell: Option<&'a mut dyn FnMut(String)>,
    queue: Queue,
    rng: Rng,
    disk: Disk,
    server: Option<Server>,
    /// What the last run of the server left when it stopped in order: what keeps nothing else is
    /// moved by this.
    carried: Option<Vec<u8>>,
    /// The number of the present or next run of the server.
    boot: u64,
    conns: BTreeMap<ConnId, Conn>,
    dials: u64,
    /// How many measures those who run the server have taken.
    measures: u64,
    slots: Vec<Slot>,
    wild: BTreeMap<ConnId, WildPeer>,
    rooms: Vec<RoomName>,
    troubles: Troubles,
    memory: Memory,
    model: Option<Model>,
    witness: Witness,
    /// Which journal each run of the server served.
    logs: BTreeMap<u64, usize>,
    net: NetOptions,
    /// An inspection is due, as soon as nothing waits for the store.
    due_inspection: bool,
    /// The state as it was last inspected.
    inspected: Option<Inspected>,
    /// Once nothing goes wrong any more: the step of the last progress, and how much there was.
    healed: Option<(u64, u64)>,
}

impl<'a> World<'a> {
    fn new(plan: &'a Plan, off: Off, tell: Option<&'a mut dyn FnMut(String)>) -> Self {
        let rooms = (0..plan.options.rooms.max(1)).map(|number| room_name(number.into()).parse());
        let options = plan.options.clients.iter().enumerate();
        Self {
            plan,
            off,
            now: 0,
            steps: 0,
            digest: plan.seed,
            marks: Marks::default(),
            tell,
            queue: Queue::default(),
            rng: Rng::with_seed(plan.seed ^ 0x0C_EA_75),
            disk: Disk::default(),
            server: None,
            carried: None,
            boot: 1,
            conns: BTreeMap::new(),
            dials: 0,
            measures: 0,
            slots: options.map(|(number, options)| Slot::new(number, *options)).collect(),
            wild: BTreeMap::new(),
            rooms: rooms.map(|room| room.expect("a plain word is a room's name")).collect(),
            troubles: Troubles::default(),
            memory: Memory::default(),
            model: None,
            witness: Witness::new(plan.options.archive == Archive::Store),
            logs: BTreeMap::new(),
            net: plan.options.net,
            due_inspection: false,
            inspected: None,
            healed: None,
        }
    }

    fn run(&mut self, pulse: &Pulse) -> Result<(), Broken> {
        self.queue.push(0, Event::Boot { boot: self.boot });
        for (place, action) in self.plan.actions.iter().enumerate() {
            self.queue.push(action.at, Event::Act(place));
        }
        if self.plan.actions.is_empty() {
            self.heal()?;
        }
        while let Some((at, event)) = self.queue.pop() {
            assert!(at >= self.now, "time must not run back");
            self.now = at;
            self.steps += 1;
            pulse.beat(self.steps);
            self.happen(event)?;
            if self.steps.is_multiple_of(INSPECT_STEPS) {
                self.check_whole()?;
                self.due_inspection = true;
            }
            if self.due_inspection {
                self.inspect()?;
            }
            if self.has_ended()? {
                return self.conclude();
            }
        }
        self.conclude()
    }

    fn happen(&mut self, event: Event) -> Result<(), Broken> {
        match event {
            Event::Act(place) => self.act(place),
            Event::Dial(conn) => self.answer_dial(conn),
            Event::Dialled(conn, well) => self.dialled(conn, well),
            Event::Arrive(conn, Side::Server) => self.arrive_at_server(conn),
            Event::Arrive(conn, Side::Client) => self.arrive_at_client(conn),
            Event::Broken(conn, Side::Server) => self.break_at_server(conn),
            Event::Broken(conn, Side::Client) => self.break_at_client(conn),
            Event::Resume(conn) => self.resume(conn),
            Event::Verified { boot, conn, valid } => self.verified(boot, conn, valid),
            Event::Looked { boot, conn } => self.tell_status(boot, conn),
            Event::Synced { boot, through } => self.synced(boot, through),
            Event::Read { boot, token, records } => self.read_done(boot, token, records),
            Event::Shard { boot, shard } => self.work_shard(boot, shard),
            Event::Reported { boot, shard } => self.reported(boot, shard),
            Event::EngineTimer { boot } => self.engine_timer(boot),
            Event::ShardTimer { boot, shard } => self.shard_timer(boot, shard),
            Event::ClientTimer { client, run } => self.client_timer(client, run),
            Event::Gone { boot, conn } => self.gone(boot, conn),
            Event::GiveUp { boot, conn } => {
                self.give_up(boot, conn);
                Ok(())
            }
            Event::Boot { boot } => self.start_server(boot),
            Event::StoreWell => self.store_is_well(),
        }
    }

    fn act(&mut self, place: usize) -> Result<(), Broken> {
        let plan = self.plan;
        let Some(action) = plan.actions.get(place) else { return Ok(()) };
        if self.healed.is_some() {
            return Ok(());
        }
        let effect = self.lack(action.deed).map_or(String::new(), |why| format!(" (not: {why})"));
        self.note(|| format!("{}{effect}", plan.tell(action.deed)));
        self.do_deed(action.deed)?;
        if place + 1 == plan.actions.len() {
            self.heal()?;
        }
        Ok(())
    }

    /// Everything that goes wrong is over: from here on the world has to settle.
    fn heal(&mut self) -> Result<(), Broken> {
        self.note(|| "nothing goes wrong any more".to_owned());
        self.healed = Some((self.steps, self.witness.progress()));
        self.end_troubles()?;
        for client in 0..self.slots.len() {
            self.start_client(client)?;
        }
        Ok(())
    }

    /// Whether everything that has to come has come.
    fn has_ended(&mut self) -> Result<bool, Broken> {
        let goes_on = self.steps < 2 * STEPS_MAX;
        hold!(goes_on, "a world comes to an end", "at {}", self.now);
        let Some((moved_at, moved)) = self.healed else {
            // It has had its time, even if what comes next in its plan is far away.
            return if self.steps < ACTING_STEPS { Ok(false) } else { self.heal().map(|()| false) };
        };
        if self.plan.options.profile == Profile::Extreme {
            return Ok(true);
        }
        if !self.steps.is_multiple_of(LOOK_STEPS) && !self.queue.is_empty() {
            return Ok(false);
        }
        let progress = self.witness.progress();
        if progress > moved {
            self.healed = Some((self.steps, progress));
        }
        self.start_who_stopped()?;
        match self.check_settled() {
            Ok(()) => Ok(true),
            Err(_) if self.steps - moved_at < SETTLE_STEPS && self.steps < STEPS_MAX => Ok(false),
            Err(broken) => Err(broken),
        }
    }

    /// Whether everybody who may be is connected and has seen everything.
    fn check_settled(&self) -> Result<(), Broken> {
        let stored = self.disk.told == self.disk.written();
        let serves = self.server.as_ref().is_some_and(Server::is_idle);
        hold!(stored && serves, "the server serves in the end", "it has work to do");
        let mut present = Vec::new();
        for (number, slot) in self.slots.iter().enumerate() {
            let Some(program) = &slot.program else {
                let owned = slot.is_refused_for_good();
                hold!(owned, "everybody is connected in the end", "{} {:?}", slot.name, slot.stop);
                continue;
            };
            hold!(program.client.is_online(), "everybody is connected in the end", "{}", slot.name);
            let unsent = slot.unsent();
            hold!(unsent == 0, "nothing is left to be sent in the end", "{} {unsent}", slot.name);
            present.push((u8::try_from(number).unwrap_or(u8::MAX), &slot.name));
        }
        // Whoever is first to take a name keeps it.
        hold!(!present.is_empty(), "somebody is there in the end", "nobody");
        self.witness.finish(&present)
    }

    /// Whoever quit once nothing goes wrong any more, as they were told before, begins again, and so
    /// does who was sent away; bans end. What became of everybody is to be seen.
    fn start_who_stopped(&mut self) -> Result<(), Broken> {
        for client in 0..self.slots.len() {
            match self.slots[client].stop {
                Some(Stop::Done) => self.start_client(client)?,
                Some(Stop::Refused(Refusal::Expelled(fault))) => {
                    if fault == ExpelFault::Banned {
                        self.moderate_as_server(client, Measure::Unban)?;
                    }
                    self.start_client(client)?;
                }
                Some(Stop::Refused(_) | Stop::Lost | Stop::OtherServer | Stop::Impostor) | None => {
                }
            }
        }
        Ok(())
    }

    /// What must hold when all is said and done.
    fn conclude(&mut self) -> Result<(), Broken> {
        self.check_whole()?;
        self.inspect()?;
        if self.plan.options.profile != Profile::Extreme {
            self.check_settled()?;
        }
        self.check_replay()
    }

    /// What time it is for the server.
    fn clock(&self) -> Now {
        let wall = EPOCH.saturating_add(self.now).saturating_add_signed(self.troubles.wall_offset);
        let wall = Timestamp::new(wall).unwrap_or(Timestamp::MAX);
        Now { moment: Moment::from_millis(self.now), wall }
    }

    /// Writes down what happens, if anybody wants to read it.
    fn note(&mut self, line: impl FnOnce() -> String) {
        if let Some(tell) = &mut self.tell {
            tell(format!("{:>8} {}", self.now, line()));
        }
    }

    fn hit(&mut self, mark: Mark) {
        self.marks.hit(mark);
    }

    /// Takes bytes into the digest of this world.
    fn digest_bytes(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        let words = words.iter().map(|word| u64::from_le_bytes(*word));
        let rest = rest.iter().map(|byte| u64::from(*byte));
        let mix =
            |sum: u64, word: u64| (sum ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29);
        self.digest = words.chain(rest).fold(self.digest, mix);
    }

    /// A connection, and what it takes to send on it.
    fn wire(&mut self, conn: ConnId) -> Option<(&mut Conn, Wire<'_>)> {
        let wire =
            Wire { now: self.now, options: self.net, rng: &mut self.rng, queue: &mut self.queue };
        Some((self.conns.get_mut(&conn)?, wire))
    }

    fn room(&self, number: u8) -> RoomName {
        self.rooms[self.plan.options.room(number)].clone()
    }
}
