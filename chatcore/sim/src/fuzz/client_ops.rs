//! A client between a user, a network and a server that do anything in any order.
//!
//! An input is a byte of settings and then operations: a code of [`op`] and what it needs. What the
//! client was told is then told to another client, whose outputs are taken only at the end: they
//! have to be the same.

use chatcore::client::{Ask, Client, ClientConfig, Drain, Input, Origin, Output, Saved, Unsent};
use chatcore::codec::decode;
use chatcore::id::{
    Counter, Generation, Incarnation, LogId, Nonce, PublicKey, RequestId, Seq, SessionId,
    Signature, Threshold,
};
use chatcore::text::{Body, RoomName, Untrusted, UserName};
use chatcore::time::{Moment, Span, Timestamp};
use chatcore::wire::{
    Answer, AuthFault, ClientFrame, Command, Cursor, ExpelFault, GateState, JoinedRoom, List,
    Measure, NameFault, Notice, Question, Record, RecordBody, Refusal, ServerFrame, ServerHello,
    Start, StateFault, UserList, VERSION, Welcome,
};

use super::choices::Choices;
use super::desk::Desk;

/// Operations of one input: more would take too long to try often.
const OPS_MAX: usize = 200;

/// The codes of operations, for whoever writes inputs by hand. What each needs follows.
pub mod op {
    /// The world does what the client waits for: the oldest thing.
    pub const OBLIGE: u8 = 0;
    /// The world does everything that the client waits for.
    pub const OBLIGE_ALL: u8 = 1;
    /// The server sends a frame: which, and two numbers.
    pub const FRAME: u8 = 2;
    /// The server sends the bytes of a frame: how many, and they.
    pub const BYTES: u8 = 3;
    /// The user posts: a room.
    pub const POST: u8 = 4;
    /// The user resets: a room.
    pub const RESET: u8 = 5;
    /// The user joins: a room.
    pub const JOIN: u8 = 6;
    /// The user parts: a room.
    pub const PART: u8 = 7;
    /// The user asks: what, and a room.
    pub const ASK: u8 = 8;
    /// The user quits: at once or not.
    pub const QUIT: u8 = 9;
    /// The connection is lost.
    pub const LOSE: u8 = 10;
    /// The next deadline comes.
    pub const WAIT: u8 = 11;
    /// Time passes: how much.
    pub const PASS: u8 = 12;
    /// The host says what it was not asked: which.
    pub const HOST: u8 = 13;
    /// The process dies and is started again.
    pub const DIE: u8 = 14;
    /// The server sends records in their order: how many, in which life and room.
    pub const RECORDS: u8 = 15;
    /// The user takes a measure on another: which.
    pub const MODERATE: u8 = 16;
    /// How many there are.
    pub const COUNT: u8 = 17;
}

const ROOMS: [&str; 3] = ["lobby", "attic", "cellar"];
const SPANS_MS: [u64; 6] = [1, 900, 5_000, 11_000, 61_000, 3_000_000];
/// Numbers where something may happen.
const NUMBERS: [u64; 10] = [0, 1, 2, 3, 4, 5, 64, 65, (1 << 52) - 1, (1 << 53) - 1];

/// What came of an input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// How often the client was logged in.
    pub connected: usize,
    /// Records that were shown.
    pub records: usize,
    /// Posts, resets and measures that were told to be safe.
    pub sent: usize,
}

/// Plays one input.
///
/// # Panics
/// When the client shows something twice, leaves something out, loses a command, sends what it has
/// not saved, asks for a time that has passed, or says something else when it is told the same.
pub fn check(input: &[u8]) {
    play(input);
}

/// As [`check`], and says what came of it.
///
/// # Panics
/// See [`check`].
pub fn play(input: &[u8]) -> Report {
    let mut choices = Choices::new(input);
    let mut run = Run::new(choices.byte());
    for _ in 0..OPS_MAX {
        if choices.is_empty() {
            break;
        }
        run.step(&mut choices);
    }
    run.check_again();
    run.desk.report()
}

struct Run {
    config: ClientConfig,
    client: Client,
    now: u64,
    desk: Desk,
    /// Everything this client was told and said, since its process began.
    told: Vec<(Moment, Input)>,
    said: Vec<Output>,
    labels: u64,
}

fn settings(bits: u8) -> (ClientConfig, Saved) {
    let start = match bits & 3 {
        0 => Start::Last(1_000),
        1 => Start::At(Seq::ZERO.next()),
        _ => Start::After(Cursor::default()),
    };
    let rooms = ROOMS.iter().take(usize::from(bits >> 2 & 3)).map(|name| room_of(name)).collect();
    let reconnect = bits & 0x10 == 0;
    let name = "alice".parse().expect("an ordinary name is one");
    let proof_seed = (bits & 0x40 != 0).then_some([bits; 32]);
    let jitter_seed = u64::from(bits);
    let config = ClientConfig { name, rooms, start, reconnect, jitter_seed, proof_seed };
    let mut saved = Saved::new(SessionId::new([1; SessionId::LEN]));
    if bits & 0x20 != 0 {
        saved.origin = Some(Origin { log_id: LogId::new([1; LogId::LEN]), opened: opened(1) });
        saved.cursors = vec![(room_of("lobby"), Cursor { incarnation: life(1), seq: seq(2) })];
    }
    if bits & 0x40 != 0 {
        saved.last_counter = counter(2);
        saved.outbox = [1, 2].map(left_over).into();
    }
    if bits & 0x80 != 0 {
        saved.last_counter = saved.last_counter.max(counter(1 << 40));
    }
    (config, saved)
}

/// A command that an earlier run left.
fn left_over(number: u64) -> Unsent {
    let command = Command::Post {
        room: Untrusted::new("lobby"),
        incarnation: None,
        body: Untrusted::new("left over"),
    };
    Unsent { counter: counter(number), id: format!("left {number}"), command }
}

impl Run {
    fn new(bits: u8) -> Self {
        let (config, saved) = settings(bits);
        let client = Client::new(config.clone());
        let (told, said) = (Vec::new(), Vec::new());
        let mut run =
            Self { config, client, now: 0, desk: Desk::new(saved), told, said, labels: 0 };
        run.tell(Input::Start);
        run
    }

    fn tell(&mut self, input: Input) {
        let now = Moment::from_millis(self.now);
        self.desk.hear_input(&input);
        self.told.push((now, input.clone()));
        self.client.handle(now, input);
        let from = self.said.len();
        self.said.extend(core::iter::from_fn(|| self.client.poll_output()));
        let outputs = self.said.get(from..).unwrap_or_default();
        self.desk.hear_outputs(outputs);
        self.desk.check(&self.client);
    }

    fn step(&mut self, choices: &mut Choices<'_>) {
        match choices.below(op::COUNT) {
            op::OBLIGE => self.oblige(),
            op::OBLIGE_ALL => {
                for _ in 0..OPS_MAX {
                    if !self.desk.waits() {
                        break;
                    }
                    self.oblige();
                }
            }
            op::FRAME => self.tell(Input::Frame(any_frame(choices))),
            op::BYTES => {
                let count = usize::from(choices.byte());
                if let Ok(frame) = decode::<ServerFrame>(choices.take(count)) {
                    self.tell(Input::Frame(frame));
                }
            }
            op::LOSE => self.tell(Input::Lost { reason: "cut".to_owned() }),
            op::WAIT => self.wait(),
            op::PASS => {
                self.now = self.now.saturating_add(choices.of(&SPANS_MS));
                self.tell(Input::Timeout);
            }
            op::HOST => self.tell(host_says(choices.byte(), self.desk.saved())),
            op::DIE => self.die(),
            op::RECORDS => self.send_records(choices),
            code => {
                let input = self.user_says(code, choices);
                self.tell(input);
            }
        }
    }

    fn user_says(&mut self, code: u8, choices: &mut Choices<'_>) -> Input {
        let room = room_of(choices.of(&ROOMS));
        self.labels = self.labels.saturating_add(1);
        let id = format!("{}", self.labels);
        match code {
            op::POST => Input::Post { room, body: body_of(&id), id },
            op::RESET => Input::Reset { room, threshold: Threshold::DEFAULT, id },
            op::MODERATE => {
                let measure = choices.of(Measure::ALL);
                Input::Moderate { user: user_of("bob"), measure, id }
            }
            op::JOIN => Input::Join { room, id },
            op::PART => Input::Part { room, id },
            op::ASK => {
                let ask = match choices.below(4) {
                    0 => Ask::Who(room),
                    1 => Ask::Rooms,
                    2 => Ask::Whois(room, user_of("bob")),
                    _ => Ask::History(room, choices.of(&NUMBERS)),
                };
                Input::Ask { ask, id }
            }
            _ if choices.flag() => Input::Quit { drain: Drain::Now },
            _ => Input::Quit { drain: Drain::Wait },
        }
    }

    /// Does the oldest thing that the client waits for, as a server and a host would.
    fn oblige(&mut self) {
        let Some(wish) = self.desk.next_wish() else { return };
        let input = match wish {
            Output::Dial => Input::Dialled { channel: None },
            Output::Identify { .. } => {
                let saved = self.desk.saved().clone();
                Input::Identified { key: PublicKey::new([1; 32]), saved }
            }
            Output::Sign(_) => Input::Signed(Signature::new([2; 64])),
            Output::Verify { .. } => Input::Verified { valid: true },
            Output::Send(frame) => match reply(frame, self.desk.last_answered()) {
                Some(frame) => Input::Frame(frame),
                None => return,
            },
            Output::Hangup | Output::Save(_) | Output::Event(_) | Output::Stopped(_) => return,
        };
        self.tell(input);
    }

    /// The next deadline comes. A client that was not told in time asks for no time that has
    /// passed, or it does something at once.
    fn wait(&mut self) {
        let Some(due) = self.client.next_timeout() else { return };
        // Past this every sum of times is the same.
        self.now = self.now.max(due.as_millis().min(1 << 60));
        let before = self.said.len();
        self.tell(Input::Timeout);
        let next = self.client.next_timeout();
        let later = next.is_none_or(|next| next.as_millis() > self.now || self.now >= 1 << 50);
        assert!(later || self.said.len() > before, "a deadline must not be due for ever");
    }

    fn send_records(&mut self, choices: &mut Choices<'_>) {
        let (count, life) = (choices.below(8), life(u64::from(choices.below(3))));
        let room = room_of(choices.of(&ROOMS));
        let first = self.desk.seen(&room).map_or(0, |cursor| cursor.seq.get());
        for step in 1..=u64::from(count) {
            let record = record(&room, life, first.saturating_add(step));
            self.tell(Input::Frame(ServerFrame::Record(record)));
        }
    }

    /// The process dies. Another begins with what was saved.
    fn die(&mut self) {
        self.check_again();
        self.client = Client::new(self.config.clone());
        self.told.clear();
        self.said.clear();
        self.desk.begin_again();
        self.tell(Input::Start);
    }

    /// Another client that is told the same says the same, whenever it is asked.
    fn check_again(&self) {
        let mut other = Client::new(self.config.clone());
        for (now, input) in &self.told {
            other.handle(*now, input.clone());
        }
        let said = core::iter::from_fn(|| other.poll_output());
        assert!(
            said.eq(self.said.iter().cloned()),
            "a client must say the same when told the same"
        );
    }
}

fn host_says(which: u8, saved: &Saved) -> Input {
    match which & 3 {
        0 => Input::Dialled { channel: None },
        1 => Input::Signed(Signature::new([3; 64])),
        2 => Input::Identified { key: PublicKey::new([1; 32]), saved: saved.clone() },
        _ => Input::Start,
    }
}

/// What an ordinary server answers to a frame, if anything.
fn reply(frame: ClientFrame, last: Counter) -> Option<ServerFrame> {
    match frame {
        ClientFrame::Hello(_) => Some(ServerFrame::Hello(hello(1, 9, 0))),
        ClientFrame::Login(login) => Some(ServerFrame::Welcome(Welcome {
            user: user_of("alice"),
            session: login.session,
            last_counter: last,
            opened: opened(1),
            operator: true,
            address: None,
        })),
        ClientFrame::Submit { counter, command: Command::Post { room, .. } } => {
            let (room, incarnation) = (room.parse().ok()?, life(1));
            Some(ServerFrame::Accepted { counter, room, incarnation, seq: None })
        }
        ClientFrame::Submit { counter, .. } => Some(ServerFrame::Applied { counter }),
        ClientFrame::Ask { request, question } => {
            Some(ServerFrame::Answer { request, answer: answer(question)? })
        }
        ClientFrame::Ping { token } => Some(ServerFrame::Pong { token }),
        ClientFrame::Prove { .. } => {
            Some(ServerFrame::Proof { signature: Signature::new([4; Signature::LEN]) })
        }
        ClientFrame::Pong { .. } | ClientFrame::Leave | ClientFrame::Operate(_) => None,
    }
}

fn answer(question: Question) -> Option<Answer> {
    Some(match question {
        Question::Join { room, start } => {
            let after = match start {
                Start::After(cursor) if cursor.incarnation == life(1) => cursor.seq,
                Start::After(_) | Start::Last(_) | Start::At(_) => Seq::ZERO,
            };
            let (room, gate) = (room.parse().ok()?, gate(life(1), true));
            Answer::Joined(JoinedRoom { room, gate, after, users: None, opened: false })
        }
        Question::Part { room } => Answer::Parted { room: room.parse().ok()? },
        Question::Who { room } => Answer::Users(users(room.parse().ok()?, 1)),
        Question::Rooms => Answer::Rooms { rooms: List::default(), count: 0 },
        Question::Whois { .. } => Answer::Refused(Refusal::Perm),
        Question::History { room, before, limit } => {
            let room: RoomName = room.parse().ok()?;
            let end = before.map_or(1_000, Seq::get);
            let first = end.saturating_sub(limit.into()).max(1);
            let records = List::first_of((first..end).map(|seq| record(&room, life(1), seq)));
            Answer::History { room, incarnation: life(1), records }
        }
    })
}

/// A frame with values where something may happen.
fn any_frame(choices: &mut Choices<'_>) -> ServerFrame {
    let (kind, a, b) = (choices.below(20), choices.of(&NUMBERS), choices.of(&NUMBERS));
    let room = room_of(choices.of(&ROOMS));
    let (request, incarnation) = (RequestId::ZERO.saturating_add(a), life(a));
    match kind {
        0 => ServerFrame::Hello(hello(choices.below(2), choices.below(2).saturating_add(8), a)),
        1 => ServerFrame::Welcome(Welcome {
            user: user_of("alice"),
            session: SessionId::new([choices.below(3); SessionId::LEN]),
            last_counter: counter(a),
            opened: opened(b),
            operator: false,
            address: None,
        }),
        2 => ServerFrame::Accepted { counter: counter(a), room, incarnation, seq: Some(seq(b)) },
        3 => ServerFrame::Applied { counter: counter(a) },
        4 => ServerFrame::Refused { counter: counter(a), refusal: any_refusal(choices, b) },
        5 => ServerFrame::Close(any_refusal(choices, b)),
        6 => ServerFrame::Rejected(any_refusal(choices, b)),
        7 => ServerFrame::Notice(Notice::FirstUserIsOperator),
        8 => ServerFrame::Ping { token: request },
        9 => ServerFrame::Pong { token: request },
        10 => ServerFrame::Record(record(&room, incarnation, b)),
        11 => {
            let to = seq(b.saturating_add(u64::from(choices.below(4))));
            ServerFrame::Gap { room, incarnation, from: seq(b), to }
        }
        12 => ServerFrame::Gate { room, gate: gate(incarnation, choices.flag()) },
        13 => ServerFrame::Reset { room, incarnation, threshold: Threshold::DEFAULT },
        kind => {
            // Requests are numbered from 1 with every log-in going on: name a recent one.
            let request = RequestId::ZERO.saturating_add(choices.byte().into());
            let answer = any_answer(kind, (incarnation, seq(b)), room, choices);
            ServerFrame::Answer { request, answer }
        }
    }
}

fn any_answer(
    kind: u8,
    (incarnation, seq): (Incarnation, Seq),
    room: RoomName,
    choices: &mut Choices<'_>,
) -> Answer {
    match kind {
        14 | 15 => {
            let users = choices.flag().then(|| users(room.clone(), seq.get()));
            let gate = gate(incarnation, users.is_some());
            let opened = choices.flag();
            Answer::Joined(JoinedRoom { room, gate, after: seq, users, opened })
        }
        16 => Answer::Parted { room },
        17 => Answer::Users(users(room, seq.get())),
        18 => {
            let count = u64::from(choices.below(4));
            let records = (0..count).map(|step| record(&room, incarnation, seq.get() + step));
            let records = List::first_of(records);
            Answer::History { room, incarnation, records }
        }
        _ => Answer::Refused(any_refusal(choices, seq.get())),
    }
}

fn any_refusal(choices: &mut Choices<'_>, number: u64) -> Refusal {
    let retry_ms = Span::from_millis(number);
    match choices.below(13) {
        0 => Refusal::Rate { retry_ms },
        1 => Refusal::Busy { retry_ms },
        2 => Refusal::Store,
        3 => Refusal::Gone,
        4 => Refusal::State(StateFault::Counter { expect: counter(number) }),
        5 => Refusal::State(StateFault::CounterReused),
        6 => Refusal::State(StateFault::OtherIncarnation),
        7 => Refusal::Auth(AuthFault::Replaced),
        8 => Refusal::Name(NameFault::InUse),
        9 => Refusal::Perm,
        10 => Refusal::Gate { have: 1, need: 2 },
        11 => Refusal::Expelled(ExpelFault::Kicked),
        _ => Refusal::Command,
    }
}

fn hello(log: u8, key: u8, generation: u64) -> ServerHello {
    ServerHello {
        version: VERSION,
        features: 0,
        server_key: PublicKey::new([key; PublicKey::LEN]),
        log_id: LogId::new([log; LogId::LEN]),
        generation: Generation::ZERO.saturating_add(generation),
        nonce: Nonce::new([0; Nonce::LEN]),
    }
}

const fn gate(incarnation: Incarnation, open: bool) -> GateState {
    GateState { incarnation, users: 1, threshold: Threshold::DEFAULT, open }
}

fn users(room: RoomName, as_of: u64) -> UserList {
    let names = List::first_of(["alice", "bob"].map(user_of));
    UserList { room, count: 2, names, as_of: seq(as_of) }
}

fn record(room: &RoomName, incarnation: Incarnation, place: u64) -> Record {
    let user = user_of(if place.is_multiple_of(2) { "bob" } else { "cem" });
    let body = match place % 3 {
        0 => RecordBody::Joined { user },
        1 => RecordBody::Left { user },
        _ => RecordBody::Post { from: user, text: body_of("hello") },
    };
    Record { room: room.clone(), incarnation, seq: seq(place), at: Timestamp::ZERO, body }
}

const fn seq(number: u64) -> Seq {
    Seq::ZERO.saturating_add(number)
}

const fn counter(number: u64) -> Counter {
    Counter::ZERO.saturating_add(number)
}

fn opened(number: u64) -> Timestamp {
    Timestamp::new(number).unwrap_or(Timestamp::MAX)
}

const fn life(number: u64) -> Incarnation {
    Incarnation::ZERO.saturating_add(number)
}

fn room_of(name: &str) -> RoomName {
    name.parse().expect("an ordinary name is one")
}

fn user_of(name: &str) -> UserName {
    name.parse().expect("an ordinary name is one")
}

fn body_of(text: &str) -> Body {
    text.parse().expect("an ordinary text is one")
}
