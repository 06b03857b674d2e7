//! What a world is made of and what happens in it, drawn from a seed before it begins.
//!
//! Everything that is chosen is in a [`Plan`]: taking an action out of it leaves all others as they
//! are, which is what makes a failure small (see [`shrink`](crate::shrink)).
//!
//! Each seed draws the *weights* of its actions too, most of them zero, so that some worlds do one
//! thing a thousand times and others a little of everything ("swarm testing", Groce et al., ISSTA
//! 2012; the habit is `TigerBeetle`'s).

use chatcore::engine::Archive;
use chatcore::limits::Limits;
use chatcore::time::Span;
use chatcore::wire::Measure;
use fastrand::Rng;

/// How much goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Nothing: everything must finish.
    Calm,
    /// Faults, and a world that must recover from them.
    Mixed,
    /// Faults and bounds so tight that nothing is promised but safety.
    Extreme,
}

/// A world before it begins.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where it comes from.
    pub seed: u64,
    /// What the world is made of.
    pub options: Options,
    /// What happens, earliest first.
    pub actions: Vec<Action>,
}

/// What a world is made of.
#[derive(Clone, Debug)]
pub struct Options {
    /// How much goes wrong.
    pub profile: Profile,
    /// The clients: each is a program on somebody's machine, and may be started many times.
    pub clients: Vec<ClientOptions>,
    /// Rooms that anybody goes to; the first is where everybody begins.
    pub rooms: u8,
    /// The threshold of new rooms.
    pub threshold: u16,
    /// Whether the server has a store. Without one a crash begins a new journal.
    pub archive: Archive,
    /// The bounds of the engine.
    pub limits: Limits,
    /// Who is to be an operator, by number; with none, the first user is.
    pub operator: Option<OperatorOptions>,
    /// Delivery shards.
    pub shards: u8,
    /// The network.
    pub net: NetOptions,
    /// The store.
    pub store: StoreOptions,
}

/// One client.
#[derive(Clone, Copy, Debug)]
pub struct ClientOptions {
    /// Whose it is: two clients of one user are two devices.
    pub user: u8,
    /// Whether its user has a key of their own for a name that somebody else may own.
    pub impostor: bool,
    /// Where it starts in a room that it has not seen.
    pub start: StartAt,
    /// Whether what may be saved late is saved late.
    pub saves_late: bool,
}

/// Who is to be an operator: a user by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OperatorOptions {
    /// Whoever owns the user's name.
    Name(u8),
    /// Whoever owns the user's key.
    Key(u8),
}

/// Where a client starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartAt {
    /// With everything.
    First,
    /// With the last so many records.
    Last(u64),
}

/// The network, in milliseconds and bytes.
#[derive(Clone, Copy, Debug)]
pub struct NetOptions {
    /// Shortest delay of a piece.
    pub delay_min: u64,
    /// Longest delay of a piece.
    pub delay_max: u64,
    /// In how many pieces a write arrives, at most.
    pub pieces_max: u8,
    /// What a socket takes before it is full.
    pub socket_bytes: usize,
    /// How long a shard may wait before it looks at its directives, and what it has to say may be on
    /// its way to the engine.
    pub shard_delay_max: u64,
    /// How long the check of a signature takes, at most. What takes longer than a client's patience
    /// lets a log-in be decided after a later one of the same session.
    pub verify_max: u64,
}

/// The store, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct StoreOptions {
    /// Longest time of a sync.
    pub sync_max: u64,
    /// Longest time of a read.
    pub read_max: u64,
    /// Most records that one read gives.
    pub read_records_max: usize,
    /// Entries between two checkpoints.
    pub checkpoint_entries: u64,
}

/// Something that happens at its time.
#[derive(Clone, Copy, Debug)]
pub struct Action {
    /// Milliseconds since the world began.
    pub at: u64,
    /// What.
    pub deed: Deed,
}

/// What somebody does, or what goes wrong. Numbers of clients and rooms are taken modulo how many
/// there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// A client is started, unless it runs.
    Start(u8),
    /// A user posts so many lines.
    Post {
        /// The client.
        client: u8,
        /// The room.
        room: u8,
        /// How many lines.
        count: u8,
        /// How long the first is, roughly, in bytes.
        bytes: u16,
        /// By how many powers of two each is shorter than the one before; the fourth is as long as
        /// the first again.
        taper: u8,
    },
    /// A user resets a room.
    Reset {
        /// The client.
        client: u8,
        /// The room.
        room: u8,
        /// The new threshold.
        threshold: u16,
    },
    /// A user joins a room.
    Join {
        /// The client.
        client: u8,
        /// The room.
        room: u8,
    },
    /// A user leaves a room.
    Part {
        /// The client.
        client: u8,
        /// The room.
        room: u8,
    },
    /// A user asks.
    Ask {
        /// The client.
        client: u8,
        /// The room.
        room: u8,
        /// What.
        question: Question,
    },
    /// A measure is taken on the user of a client.
    Moderate {
        /// The client whose user takes it; those who run the server when there is none.
        by: Option<u8>,
        /// The client.
        client: u8,
        /// What is done.
        measure: Measure,
    },
    /// Retention takes the records of a room but the last.
    Trim {
        /// The room.
        room: u8,
        /// How many stay.
        keep: u16,
    },
    /// A user quits, once everything is answered.
    Quit(u8),
    /// A user quits at once.
    Leave(u8),
    /// Something goes wrong.
    Wrong(Fault),
    /// Somebody connects who does not keep to the protocol.
    Wild {
        /// What this one does.
        kind: Wild,
        /// Seed of the details.
        seed: u32,
    },
}

/// The ways of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ways {
    /// There and back.
    Both,
    /// From the client to the server.
    Up,
    /// From the server to the client.
    Down,
}

/// What goes wrong. Numbers of clients are taken modulo how many there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A client dies.
    Kill(u8),
    /// A connection breaks; both sides hear of it, soon.
    Cut(u8),
    /// A connection carries nothing any more, and nobody hears of it.
    Silence {
        /// The client.
        client: u8,
        /// Where to.
        ways: Ways,
    },
    /// A client reads nothing for so long.
    Stall {
        /// The client.
        client: u8,
        /// Milliseconds.
        millis: u32,
    },
    /// Nobody can be dialled for so long.
    Unreachable {
        /// Milliseconds.
        millis: u32,
    },
    /// The server dies and is started again after so long.
    Crash {
        /// What of the entries that were not synced is in the store afterwards, in parts of 256.
        kept: u8,
        /// Milliseconds.
        down: u32,
    },
    /// The server stops in order and is started again after so long.
    Stop {
        /// Milliseconds.
        down: u32,
    },
    /// The store takes so long for everything from now on, at most.
    Slow {
        /// Milliseconds.
        millis: u32,
    },
    /// The store is full for so long.
    Full {
        /// Milliseconds.
        millis: u32,
    },
    /// The store cannot read for so long.
    Unreadable {
        /// Milliseconds.
        millis: u32,
    },
    /// The wall clock jumps.
    Jump {
        /// Milliseconds.
        by: i64,
    },
    /// The host tells the engine what cannot be.
    Err(Slip),
}

/// What a host that errs tells the engine: each is refused, and nothing comes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slip {
    /// Something of a connection that never was.
    Stranger,
    /// A connection that is there is there once more.
    Twice,
    /// Entries are safe that were never made.
    SafeTooFar,
    /// Entries are safe that were reported safe before.
    SafeAgain,
    /// An answer to a read that was never asked for.
    UnknownRead,
    /// Records that were not asked for: of another room, beyond the range, or with a hole.
    WrongRecords,
}

impl Slip {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Stranger,
        Self::Twice,
        Self::SafeTooFar,
        Self::SafeAgain,
        Self::UnknownRead,
        Self::WrongRecords,
    ];
}

/// What a user asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// Who is there.
    Who,
    /// Which rooms there are.
    Rooms,
    /// Who somebody is.
    Whois(u8),
    /// The last records.
    History(u16),
}

/// What somebody does who does not keep to the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wild {
    /// Connects and says nothing.
    Mute,
    /// Sends bytes that are no frames.
    Noise,
    /// Sends frames in any order without a log-in.
    Unruly,
    /// Logs in with a signature of somebody else's.
    Forger,
    /// Logs in and sends all kinds of frames with all kinds of numbers.
    Member,
    /// Logs in, asks for more than it may leave unread, and reads nothing for a while.
    Glutton,
    /// Logs in and joins a room from its first record on, again and again.
    Restless,
    /// Gives the server an order, with a right or without one.
    Operator,
}

/// Chances of each deed, in parts of their sum.
struct Weights(Vec<(u32, Kind)>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Start,
    Post,
    Reset,
    Join,
    Part,
    Ask,
    Moderate,
    Trim,
    Quit,
    Leave,
    Wild,
    Wrong(FaultKind),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FaultKind {
    Kill,
    Cut,
    Silence,
    Stall,
    Unreachable,
    Crash,
    Stop,
    Slow,
    Full,
    Unreadable,
    Jump,
    Err,
}

/// What people do: the weight that a kind has when it has one, and whether every world has it.
const WORK: [(Kind, u32, bool); 11] = [
    (Kind::Post, 100, true),
    (Kind::Start, 14, true),
    (Kind::Reset, 5, false),
    (Kind::Join, 10, false),
    (Kind::Part, 5, false),
    (Kind::Ask, 16, false),
    (Kind::Moderate, 5, false),
    (Kind::Trim, 4, false),
    (Kind::Quit, 3, false),
    (Kind::Leave, 3, false),
    (Kind::Wild, 8, false),
];

/// What goes wrong, likewise.
const FAULTS: [(Kind, u32, bool); 12] = [
    (Kind::Wrong(FaultKind::Kill), 4, false),
    (Kind::Wrong(FaultKind::Cut), 12, false),
    (Kind::Wrong(FaultKind::Silence), 3, false),
    (Kind::Wrong(FaultKind::Stall), 5, false),
    (Kind::Wrong(FaultKind::Unreachable), 2, false),
    (Kind::Wrong(FaultKind::Crash), 6, false),
    (Kind::Wrong(FaultKind::Stop), 2, false),
    (Kind::Wrong(FaultKind::Slow), 3, false),
    (Kind::Wrong(FaultKind::Full), 3, false),
    (Kind::Wrong(FaultKind::Unreadable), 3, false),
    (Kind::Wrong(FaultKind::Jump), 3, false),
    (Kind::Wrong(FaultKind::Err), 6, false),
];

impl Plan {
    /// Draws a world.
    pub fn draw(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed ^ 0x5EED);
        let profile = match rng.u8(0..10) {
            0..2 => Profile::Calm,
            2..8 => Profile::Mixed,
            _ => Profile::Extreme,
        };
        let options = Options::draw(&mut rng, profile);
        let actions = draw_actions(&mut rng, &options);
        Self { seed, options, actions }
    }
}

impl Options {
    /// The client that a number stands for.
    pub(crate) fn client(&self, number: u8) -> usize {
        usize::from(number) % self.clients.len().max(1)
    }

    /// Where these differ from those that they were before a failure was made smaller.
    pub fn differences(&self, before: &Self) -> Vec<String> {
        let told = |options: &Self| {
            [
                format!("clients: {:?}", options.clients),
                format!("shards: {}", options.shards),
                format!("net: {:?}", options.net),
                format!("store: {:?}", options.store),
            ]
        };
        let before = told(before);
        told(self).into_iter().zip(before).filter(|(it, old)| it != old).map(|it| it.0).collect()
    }

    /// The room that a number stands for.
    pub(crate) fn room(&self, number: u8) -> usize {
        usize::from(number) % usize::from(self.rooms.max(1))
    }

    fn draw(rng: &mut Rng, profile: Profile) -> Self {
        let count = rng.u8(2..=6);
        let threshold = u16::from(rng.u8(1..=count.min(4)));
        let archive = if rng.u8(0..4) == 0 { Archive::None } else { Archive::Store };
        Self {
            profile,
            clients: draw_clients(rng, count),
            rooms: rng.u8(1..=3),
            threshold,
            archive,
            limits: draw_limits(rng, profile),
            operator: match rng.u8(0..6) {
                0 => Some(OperatorOptions::Name(rng.u8(0..count))),
                1 => Some(OperatorOptions::Key(rng.u8(0..count))),
                _ => None,
            },
            shards: rng.u8(1..=3),
            net: NetOptions::draw(rng, profile),
            store: StoreOptions {
                sync_max: *pick(rng, &[0, 2, 20, 200]),
                read_max: *pick(rng, &[0, 5, 50]),
                read_records_max: *pick(rng, &[1, 7, 100]),
                checkpoint_entries: *pick(rng, &[5, 50, 500]),
            },
        }
    }
}

impl NetOptions {
    fn draw(rng: &mut Rng, profile: Profile) -> Self {
        let delay_min = *pick(rng, &[0, 1, 10]);
        let small = profile != Profile::Calm && rng.bool();
        Self {
            delay_min,
            delay_max: delay_min + *pick(rng, &[0, 5, 40, 300]),
            pieces_max: *pick(rng, &[1, 1, 2, 5]),
            socket_bytes: if small { *pick(rng, &[200, 2_000, 9_000]) } else { 64 << 10 },
            shard_delay_max: *pick(rng, &[0, 0, 3, 50]),
            verify_max: if small { *pick(rng, &[2, 500, 9_000]) } else { 2 },
        }
    }
}

impl NetOptions {
    /// A network that is as good as any.
    pub(crate) const WELL: Self = Self {
        delay_min: 1,
        delay_max: 2,
        pieces_max: 1,
        socket_bytes: 64 << 10,
        shard_delay_max: 0,
        verify_max: 2,
    };
}

fn draw_clients(rng: &mut Rng, count: u8) -> Vec<ClientOptions> {
    let devices = rng.u8(0..3) == 0;
    let impostors = rng.u8(0..4) == 0;
    let draw = |number: u8| ClientOptions {
        user: if devices && number > 1 && rng.bool() { number / 2 } else { number },
        impostor: impostors && number > 0 && rng.u8(0..4) == 0,
        start: match rng.u8(0..4) {
            0 => StartAt::Last(rng.u64(0..20)),
            _ => StartAt::First,
        },
        saves_late: rng.bool(),
    };
    (0..count).map(draw).collect()
}

fn draw_limits(rng: &mut Rng, profile: Profile) -> Limits {
    let window_bytes = *pick(rng, &[0, 500, 4_000, 64 << 20]);
    let mut limits = Limits {
        window_bytes,
        page_bytes: 16 << 10,
        crowd_members: *pick(rng, &[2, 500, 500]),
        session_age_min: Span::from_secs(*pick(rng, &[1, 60, 24 * 60 * 60])),
        grace: Span::from_secs(*pick(rng, &[0, 2, 20])),
        ping_interval: Span::from_secs(*pick(rng, &[2, 30, 30])),
        stall_time: Span::from_secs(*pick(rng, &[3, 60])),
        ..Limits::default()
    };
    if rng.bool() {
        limits.held_records_max = *pick(rng, &[3, 20]);
    }
    if rng.u8(0..4) == 0 {
        limits.held_bytes_max = 64 << 10;
        limits.held_bytes_total_max = (64 << 10) + *pick(rng, &[0, 0, 0, 9_000]);
    }
    if rng.u8(0..4) == 0 {
        limits.waiting_per_connection_max = *pick(rng, &[20, 70]);
        limits.question_burst = *pick(rng, &[6, 20]);
        limits.reset_burst = *pick(rng, &[1, 2]);
    }
    if rng.u8(0..4) == 0 {
        limits.sessions_per_user_max = 3;
        limits.unread_bytes_max = 64 << 10;
    }
    if rng.u8(0..4) == 0 {
        limits.frames_per_second = *pick(rng, &[20, 200]);
        limits.frames_burst = 512;
        limits.bytes_per_second = *pick(rng, &[4_000, 2 << 20]);
        limits.bytes_burst = 64 << 10;
    }
    if rng.u8(0..4) == 0 {
        limits.logins_per_second = *pick(rng, &[5, 20]);
        limits.logins_burst = *pick(rng, &[1, 4]);
        limits.returns_per_second = *pick(rng, &[5, 20]);
        limits.returns_burst = *pick(rng, &[1, 4]);
    }
    if profile == Profile::Extreme {
        limits.connections_max = *pick(rng, &[2, 4, 10]);
        limits.memory_max = *pick(rng, &[1 << 20, 2 << 20, 4 << 30]);
        limits.users_max = *pick(rng, &[2, 4, 100]);
        limits.bans_max = *pick(rng, &[1, 100]);
        limits.sessions_max = *pick(rng, &[2, 4, 100]);
        limits.rooms_max = *pick(rng, &[1, 2, 100]);
        limits.rooms_per_user_max = *pick(rng, &[1, 2]);
        limits.waiting_max = *pick(rng, &[2, 70, 1_000]);
        limits.login_time = Span::from_millis(*pick(rng, &[50, 1_000]));
    }
    limits
}

fn draw_actions(rng: &mut Rng, options: &Options) -> Vec<Action> {
    let weights = Weights::draw(rng, options.profile);
    let pace = *pick(rng, &[3, 30, 150, 600]);
    let mut at = 0;
    let clients = u8::try_from(options.clients.len()).unwrap_or(u8::MAX);
    let mut actions: Vec<Action> = (0..clients)
        .map(|client| Action { at: rng.u64(0..2_000), deed: Deed::Start(client) })
        .collect();
    for _ in 0..rng.usize(200..500) {
        at += match rng.u8(0..100) {
            // Now and then everybody waits: for a grace to end, a ping, a session to grow old.
            0 => rng.u64(0..60_000),
            1..50 => 0,
            _ => rng.u64(0..=pace * 2),
        };
        let kind = weights.pick(rng);
        let deed = draw_deed(rng, kind);
        actions.push(Action { at, deed });
    }
    actions.sort_by_key(|action| action.at);
    actions
}

impl Weights {
    fn draw(rng: &mut Rng, profile: Profile) -> Self {
        let faults: &[_] = if profile == Profile::Calm { &[] } else { &FAULTS };
        let intensity = *pick(rng, &[1, 1, 3]);
        let work = WORK.iter().map(|kind| (1, kind));
        let faults = faults.iter().map(|kind| (intensity, kind));
        let drawn = work.chain(faults).filter_map(|(factor, (kind, weight, always))| {
            let taken = *always || rng.bool();
            taken.then_some((weight * factor, *kind))
        });
        Self(drawn.collect())
    }

    fn pick(&self, rng: &mut Rng) -> Kind {
        let sum: u32 = self.0.iter().map(|(weight, _)| weight).sum();
        let mut left = rng.u32(0..sum);
        for (weight, kind) in &self.0 {
            match left.checked_sub(*weight) {
                Some(rest) => left = rest,
                None => return *kind,
            }
        }
        Kind::Post
    }
}

fn draw_deed(rng: &mut Rng, kind: Kind) -> Deed {
    let (client, room) = (rng.u8(..), rng.u8(..));
    match kind {
        Kind::Start => Deed::Start(client),
        Kind::Post => {
            let bytes = *pick(rng, &[1, 10, 10, 80, 80, 400, 7_000]);
            let count = *pick(rng, &[1, 1, 1, 1, 1, 1, 3, 3, 10, 70]);
            Deed::Post { client, room, count, bytes, taper: *pick(rng, &[0, 0, 2, 5]) }
        }
        Kind::Reset => Deed::Reset { client, room, threshold: u16::from(rng.u8(1..=4)) },
        Kind::Join => Deed::Join { client, room },
        Kind::Part => Deed::Part { client, room },
        Kind::Ask => Deed::Ask { client, room, question: draw_question(rng) },
        Kind::Moderate => {
            let by = (rng.u8(0..4) != 0).then(|| rng.u8(..));
            Deed::Moderate { by, client, measure: *pick(rng, Measure::ALL) }
        }
        Kind::Trim => Deed::Trim { room, keep: *pick(rng, &[0, 1, 10, 100]) },
        Kind::Quit => Deed::Quit(client),
        Kind::Leave => Deed::Leave(client),
        Kind::Wrong(kind) => Deed::Wrong(draw_fault(rng, kind)),
        Kind::Wild => {
            let kinds = [
                Wild::Mute,
                Wild::Noise,
                Wild::Unruly,
                Wild::Forger,
                Wild::Member,
                Wild::Member,
                Wild::Glutton,
                Wild::Glutton,
                Wild::Restless,
                Wild::Operator,
            ];
            Deed::Wild { kind: *pick(rng, &kinds), seed: rng.u32(..) }
        }
    }
}

fn draw_fault(rng: &mut Rng, kind: FaultKind) -> Fault {
    let client = rng.u8(..);
    match kind {
        FaultKind::Kill => Fault::Kill(client),
        FaultKind::Cut => Fault::Cut(client),
        FaultKind::Silence => {
            let ways = *pick(rng, &[Ways::Both, Ways::Up, Ways::Down]);
            Fault::Silence { client, ways }
        }
        FaultKind::Stall => Fault::Stall { client, millis: draw_millis(rng) },
        FaultKind::Unreachable => Fault::Unreachable { millis: draw_millis(rng) },
        FaultKind::Crash => Fault::Crash { kept: rng.u8(..), down: draw_millis(rng) },
        FaultKind::Stop => Fault::Stop { down: draw_millis(rng) },
        FaultKind::Slow => Fault::Slow { millis: *pick(rng, &[0, 10, 500, 3_000]) },
        FaultKind::Full => Fault::Full { millis: draw_millis(rng) },
        FaultKind::Unreadable => Fault::Unreadable { millis: draw_millis(rng) },
        FaultKind::Jump => {
            let by = *pick(rng, &[-3_600_000, 3_600_000, 31_536_000_000, -10, 90_000]);
            Fault::Jump { by }
        }
        FaultKind::Err => Fault::Err(*pick(rng, &Slip::ALL)),
    }
}

fn draw_question(rng: &mut Rng) -> Question {
    match rng.u8(0..5) {
        0 => Question::Who,
        1 => Question::Rooms,
        2 => Question::Whois(rng.u8(..)),
        _ => Question::History(*pick(rng, &[1, 10, 300, 1_000])),
    }
}

fn draw_millis(rng: &mut Rng) -> u32 {
    *pick(rng, &[0, 5, 100, 1_000, 5_000, 30_000])
}

/// One of these.
pub(crate) fn pick<'a, T>(rng: &mut Rng, from: &'a [T]) -> &'a T {
    &from[rng.usize(0..from.len())]
}
