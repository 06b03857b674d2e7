//! Operations of hosts and clients on an engine and its delivery shards, in any order.
//!
//! An input is a byte of settings and then operations: a code of [`op`] and what it needs. Played
//! again, the same operations have to give the same bytes to the same connections.

use std::collections::BTreeMap;
use std::sync::Arc;

use chatcore::engine::{Archive, Config, Input, Misuse};
use chatcore::id::{
    Attach, ConnId, Counter, Generation, Incarnation, LogId, Nonce, PublicKey, RequestId, Seq,
    SessionId, Signature, Threshold,
};
use chatcore::limits::Limits;
use chatcore::log::{Entry, Founding, OperatorRule};
use chatcore::text::{RoomName, Untrusted, UserName};
use chatcore::time::{Span, Timestamp};
use chatcore::wire::{
    ClientFrame, Command, Cursor, LimitFault, Login, Measure, Operate, Order, Question, Refusal,
    Start,
};

use super::choices::Choices;
use super::host::{Host, Pace, WRONG_SIGNATURE};

/// Operations of one input: more would take too long to try often.
const OPS_MAX: usize = 120;

/// The codes of operations, for whoever writes inputs by hand. Each is followed by a slot, the
/// connection it is about; whatever else it needs follows.
pub mod op {
    /// Opens a connection in a slot that is free.
    pub const CONNECT: u8 = 0;
    /// Says hello.
    pub const HELLO: u8 = 1;
    /// Logs in: a user, a session, a flaw (0 for none).
    pub const LOGIN: u8 = 2;
    /// Opens a connection, says hello and logs in: a user, a session.
    pub const ENTER: u8 = 3;
    /// Joins: a room, a start, its number.
    pub const JOIN: u8 = 4;
    /// Parts: a room.
    pub const PART: u8 = 5;
    /// Posts: a room, a life, a text, a number.
    pub const POST: u8 = 6;
    /// Resets: a room, a threshold, a number.
    pub const RESET: u8 = 7;
    /// Asks: what, a room, a detail.
    pub const ASK: u8 = 8;
    /// Sends a ping, a pong, or leaves: which.
    pub const SIGN: u8 = 9;
    /// Sends bytes: how many, and they.
    pub const BYTES: u8 = 10;
    /// The connection breaks.
    pub const CUT: u8 = 11;
    /// The transport takes no more, or takes bytes again: which.
    pub const STALL: u8 = 12;
    /// Time passes: how much.
    pub const PASS: u8 = 13;
    /// Entries become safe: how many.
    pub const PERSIST: u8 = 14;
    /// Entries become safe late from now on, or at once; the same for reads: which.
    pub const PACE: u8 = 15;
    /// A read is answered: whether what it asks for is gone.
    pub const READ: u8 = 16;
    /// The server begins again: from its journal, or from a snapshot: which.
    pub const RESTART: u8 = 17;
    /// The wall clock jumps: where to.
    pub const WALL: u8 = 18;
    /// The host condemns the connection.
    pub const CONDEMN: u8 = 19;
    /// The host breaks a rule: which.
    pub const MISUSE: u8 = 20;
    /// The server stops serving.
    pub const STOP: u8 = 21;
    /// Retention takes records of a room: the room, its life, how many.
    pub const TRIM: u8 = 22;
    /// Asks what the server is doing: by which key, a flaw (0 for none).
    pub const OPERATE: u8 = 23;
    /// Those who run the server take a measure: on whom, which.
    pub const MODERATE: u8 = 24;
    /// Takes a measure as a user: on whom, which, its number.
    pub const MEASURE: u8 = 25;
    /// How many there are.
    pub const COUNT: u8 = 26;
}

/// Names to log in by. The second spelling of one, a look-alike, a reserved one and none at all.
pub(super) const USERS: [&str; 8] = ["ana", "bob", "cem", "ANA", "b0b", "server", "", "d\u{1b}"];
const ROOMS: [&str; 4] = ["lobby", "attic", "Lobby", "a:b"];
const SLOTS: u8 = 5;
/// Lengths of texts: none, ordinary ones, the longest and one more.
const TEXT_BYTES: [usize; 8] = [2, 2, 0, 900, 3_000, 8_192, 8_193, 40];
const SPANS_MS: [u64; 8] = [1, 20, 1_000, 10_000, 20_000, 31_000, 60_000, 90_000_000];

/// What came of an input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Entries of the journal at the end.
    pub entries: usize,
    /// Lives of rooms whose gate opened.
    pub opened: usize,
    /// Records that connections were given which still stand.
    pub records: u64,
    /// Answers to their questions.
    pub answers: u64,
}

/// Plays one input, and every fourth one twice.
///
/// # Panics
/// When a rule of the state is broken, a connection hears what it must not or lacks what it is due,
/// or the second time differs from the first.
pub fn check(input: &[u8]) {
    let sum = input.iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte));
    if sum.is_multiple_of(4) {
        play(input);
    } else {
        Run::of(input, Checks::All);
    }
}

/// Plays one input twice, and says what came of it.
///
/// # Panics
/// See [`check`].
pub fn play(input: &[u8]) -> Report {
    let (one, other) = (Run::of(input, Checks::All), Run::of(input, Checks::Ears));
    let transcripts = [&one, &other].map(|run| run.host.transcript.finalize());
    assert_eq!(transcripts[0], transcripts[1], "the same operations must give the same bytes");
    assert_eq!(one.host.engine.head(), other.host.engine.head(), "and the same journal");
    let hashes = [&one, &other].map(|run| run.host.engine.state_hash());
    assert_eq!(hashes[0], hashes[1], "and the same state");
    one.report()
}

/// How much is judged while operations are played: the rules of the state cost most of the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Checks {
    Ears,
    All,
}

/// What an input leaves behind.
#[derive(Clone, Debug)]
pub struct Kept {
    /// The journal.
    pub entries: Vec<Arc<Entry>>,
    /// The snapshot of the engine at the end of it.
    pub snapshot: Vec<u8>,
}

/// Plays one input and keeps what it leaves behind: for inputs of other targets.
///
/// # Panics
/// See [`check`].
pub fn keep(input: &[u8]) -> Kept {
    let host = Run::of(input, Checks::All).host;
    let snapshot = host.engine.snapshot().expect("everything is safe at the end");
    Kept { entries: host.journal.entries, snapshot }
}

struct Run {
    host: Host,
    slots: [Option<ConnId>; SLOTS as usize],
    /// What each session sent, in the order of its numbers.
    sent: BTreeMap<SessionId, Vec<Command>>,
    texts: u64,
    attach: u64,
    requests: u64,
}

/// The founding that every run begins with, but for its operators.
pub(super) fn founding(threshold: u16, operators: Vec<OperatorRule>) -> Founding {
    Founding {
        log_id: LogId::new([1; LogId::LEN]),
        server_key: PublicKey::new([9; PublicKey::LEN]),
        threshold: Threshold::new(threshold).unwrap_or_default(),
        operators,
    }
}

/// Bounds so low that a short input meets them.
fn tight() -> Limits {
    Limits {
        connections_max: 4,
        greeting_percent: 50,
        pings_unanswered_max: 1,
        users_max: 2,
        bans_max: 1,
        sessions_max: 3,
        sessions_per_user_max: 2,
        rooms_max: 1,
        rooms_per_user_max: 1,
        held_records_max: 4,
        held_bytes_max: 64 << 10,
        held_bytes_total_max: 64 << 10,
        window_bytes: 1_500,
        page_bytes: 16 << 10,
        crowd_members: 1,
        question_burst: 3,
        waiting_per_connection_max: 2,
        waiting_max: 3,
        reset_burst: 1,
        unread_bytes_max: 64 << 10,
        ..Limits::default()
    }
}

fn settings(bits: u8) -> (Founding, Config, Pace) {
    let is = |bit: u8| bits & bit != 0;
    let mut limits = if is(0x01) { tight() } else { Limits::default() };
    if is(0x02) {
        limits.window_bytes = 0;
    }
    let archive = if is(0x04) { Archive::Store } else { Archive::None };
    let pace = Pace {
        late_entries: is(0x08),
        late_reads: is(0x10),
        piece: if is(0x20) { 7 } else { usize::MAX },
        read_max: if is(0x40) { 1 } else { 1_000 },
    };
    let bob = "bob".parse().expect("an ordinary name is one");
    let operators = if is(0x80) { vec![OperatorRule::Name(bob)] } else { Vec::new() };
    let config = Config { limits, archive, generation: Generation::ZERO };
    (founding(2, operators), config, pace)
}

impl Run {
    fn of(input: &[u8], checks: Checks) -> Self {
        let mut choices = Choices::new(input);
        let (founding, config, pace) = settings(choices.byte());
        let host = Host::found(founding, config, pace);
        let (slots, sent) = ([None; SLOTS as usize], BTreeMap::new());
        let mut run = Self { host, slots, sent, texts: 0, attach: 0, requests: 0 };
        for _ in 0..OPS_MAX {
            if choices.is_empty() {
                break;
            }
            run.step(&mut choices);
            if checks == Checks::All {
                run.host.engine.check_invariants();
            }
        }
        run.host.settle();
        run
    }

    fn report(&self) -> Report {
        let ears = || self.host.peers.values().map(|peer| &peer.ears);
        Report {
            entries: self.host.journal.entries.len(),
            opened: self.host.journal.opened.len(),
            records: ears().map(|ears| ears.records).sum(),
            answers: ears().map(|ears| ears.answers).sum(),
        }
    }

    fn step(&mut self, choices: &mut Choices<'_>) {
        match choices.below(op::COUNT) {
            op::PASS => self.host.pass(Span::from_millis(choices.of(&SPANS_MS))),
            op::PERSIST => self.persist(choices.byte()),
            op::PACE => self.change_pace(choices.byte()),
            op::READ => {
                self.host.answer_read(choices.flag());
                self.host.drive();
            }
            op::RESTART => self.restart(choices.flag()),
            op::WALL => {
                let wall = u64::from(choices.byte()) << 45;
                self.host.now.wall = Timestamp::new(wall).unwrap_or(Timestamp::MAX);
            }
            op::MISUSE => self.misuse(choices.byte()),
            op::STOP => self.host.stop(),
            op::TRIM => self.trim(choices),
            op::MODERATE => {
                let (user, measure) = (user(choices), measure(choices));
                if let Ok(user) = user.parse() {
                    self.host.moderate(user, measure);
                }
            }
            code => {
                let slot = usize::from(choices.below(SLOTS));
                self.step_of_slot(code, slot, choices);
            }
        }
    }

    fn trim(&mut self, choices: &mut Choices<'_>) {
        let room = ROOMS.get(usize::from(choices.below(4))).and_then(|room| room.parse().ok());
        let incarnation = Incarnation::ZERO.saturating_add(choices.byte().into());
        let through = Seq::ZERO.saturating_add(choices.byte().into());
        if let Some(room) = room {
            self.host.trim(room, incarnation, through);
        }
    }

    fn step_of_slot(&mut self, code: u8, slot: usize, choices: &mut Choices<'_>) {
        if [op::CONNECT, op::ENTER].contains(&code) {
            return self.open(code, slot, choices);
        }
        let conn = self.slots.get(slot).copied().flatten();
        let Some(conn) = conn.filter(|conn| self.host.peers.contains_key(conn)) else { return };
        let frame = match code {
            op::HELLO => ClientFrame::hello(),
            op::LOGIN => {
                let (user, session) = (choices.byte(), choices.byte());
                self.login(user, session, choices.byte())
            }
            op::JOIN => self.ask(join(choices)),
            op::PART => self.ask(Question::Part { room: room(choices) }),
            op::ASK => self.ask(look(choices)),
            op::POST => {
                let command = self.post(choices);
                self.submit(conn, command, choices.byte())
            }
            op::RESET => {
                let (room, threshold) = (room(choices), u16::from(choices.below(4)));
                let threshold = Threshold::new(threshold).unwrap_or_default();
                self.submit(conn, Command::Reset { room, threshold }, choices.byte())
            }
            op::MEASURE => {
                let (user, measure) = (user(choices), measure(choices));
                self.submit(conn, Command::Moderate { user, measure }, choices.byte())
            }
            op::SIGN => sign(choices.below(3)),
            op::OPERATE => operate(choices.byte(), choices.byte()),
            _ => return self.disturb(code, conn, choices),
        };
        self.host.send(conn, frame);
    }

    /// What happens to a connection beside frames.
    fn disturb(&mut self, code: u8, conn: ConnId, choices: &mut Choices<'_>) {
        match code {
            op::BYTES => {
                let count = usize::from(choices.byte());
                self.host.receive(conn, choices.take(count));
            }
            op::CUT => self.host.cut(conn),
            op::STALL => self.host.stall(conn, choices.flag()),
            op::CONDEMN => {
                self.host.condemn(conn, Refusal::Limit(LimitFault::SlowReader));
            }
            _ => {}
        }
    }

    fn open(&mut self, code: u8, slot: usize, choices: &mut Choices<'_>) {
        let Some(place) = self.slots.get_mut(slot) else { return };
        if place.is_some_and(|conn| self.host.peers.contains_key(&conn)) {
            return;
        }
        let conn = self.host.connect();
        *place = Some(conn);
        if code == op::ENTER {
            let (user, session) = (choices.byte(), choices.byte());
            self.host.send(conn, ClientFrame::hello());
            let login = self.login(user, session, 0);
            self.host.send(conn, login);
        }
    }

    fn login(&mut self, user: u8, session: u8, flaw: u8) -> ClientFrame {
        let user = user.checked_rem(8).unwrap_or_default();
        let name = USERS.get(usize::from(user)).copied().unwrap_or_default();
        self.attach = self.attach.saturating_add(1);
        // The two spellings of a name are one user's.
        let owner = if name == "ANA" { 0 } else { user };
        let owner = if flaw == 2 { owner.wrapping_add(1) } else { owner };
        let number = owner.wrapping_mul(16).wrapping_add(session & 3);
        let login = Login {
            name: Untrusted::new(name),
            key: key_of(owner),
            session: SessionId::new([number; SessionId::LEN]),
            attach: if flaw == 3 { Attach::ZERO } else { Attach::ZERO.saturating_add(self.attach) },
            signature: if flaw == 1 { WRONG_SIGNATURE } else { Signature::new([1; 64]) },
        };
        ClientFrame::Login(login)
    }

    fn ask(&mut self, question: Question) -> ClientFrame {
        self.requests = self.requests.saturating_add(1);
        let request = RequestId::ZERO.saturating_add(self.requests);
        ClientFrame::Ask { request, question }
    }

    fn post(&mut self, choices: &mut Choices<'_>) -> Command {
        let room = room(choices);
        let life = choices.below(4);
        let incarnation = (life != 0).then(|| Incarnation::ZERO.saturating_add(life.into()));
        self.texts = self.texts.saturating_add(1);
        let text = format!("{:02}", self.texts);
        let len = choices.of(&TEXT_BYTES);
        let body = text.repeat(len.div_ceil(2)).chars().take(len).collect::<String>();
        Command::Post { room, incarnation, body: Untrusted::new(body) }
    }

    /// Sends a command under its number, or one that was sent before, or under another number.
    fn submit(&mut self, conn: ConnId, command: Command, number: u8) -> ClientFrame {
        let ears = self.host.peers.get(&conn).map(|peer| &peer.ears);
        let session = ears.and_then(|ears| ears.session);
        let expected = ears.and_then(|ears| ears.next).unwrap_or_default();
        let sent = self.sent.entry(session.unwrap_or(SessionId::new([0; 16]))).or_default();
        let next = Counter::ZERO.saturating_add(u64::try_from(sent.len()).unwrap_or(0)).next();
        let (counter, command) = match number & 7 {
            1 | 2 => match sent.len().checked_sub(usize::from(number >> 3).saturating_add(1)) {
                Some(place) => {
                    let counter = Counter::ZERO.saturating_add(u64::try_from(place).unwrap_or(0));
                    let again = sent.get(place).cloned().unwrap_or_else(|| command.clone());
                    (counter.next(), if number & 7 == 1 { again } else { command })
                }
                None => (next, command),
            },
            3 => (next.saturating_add(number.into()), command),
            4 => (Counter::MAX, command),
            5 => (Counter::ZERO, command),
            6 => {
                let kept = usize::try_from(expected.previous().get()).unwrap_or(usize::MAX);
                sent.truncate(kept);
                sent.push(command.clone());
                (expected, command)
            }
            _ => {
                sent.push(command.clone());
                (next, command)
            }
        };
        ClientFrame::Submit { counter, command }
    }

    fn persist(&mut self, count: u8) {
        self.host.persist(usize::from(count).saturating_add(1));
        self.host.drive();
    }

    fn change_pace(&mut self, bits: u8) {
        self.host.pace.late_entries = bits & 1 != 0;
        self.host.pace.late_reads = bits & 2 != 0;
        self.host.drive();
    }

    fn restart(&mut self, snapshot: bool) {
        if snapshot {
            self.host.restore();
        } else {
            self.host.crash();
        }
    }

    /// A mistake of the host is refused and changes nothing.
    fn misuse(&mut self, which: u8) {
        let unknown = ConnId::new(u64::MAX);
        let through = self.host.engine.head().index.saturating_add(1);
        let used = self.host.peers.keys().next().copied();
        let input = match which & 3 {
            0 => Input::Frame { conn: unknown, frame: ClientFrame::Leave },
            1 => Input::Disconnected { conn: unknown },
            2 => Input::Persisted { through },
            _ => {
                let Some(conn) = used else { return };
                let nonce = Nonce::new([0; Nonce::LEN]);
                Input::Connected { conn, nonce, channel: None, address: None, waited: Span::ZERO }
            }
        };
        let engine = &mut self.host.engine;
        let before = (engine.state_hash(), engine.next_timeout(), engine.connection_count());
        let refused: Result<(), Misuse> = engine.handle(self.host.now, input);
        assert!(refused.is_err(), "a mistake of the host must be refused");
        let after = (engine.state_hash(), engine.next_timeout(), engine.connection_count());
        assert_eq!(before, after, "a mistake of the host must change nothing");
        assert_eq!(engine.poll_output(), None, "a mistake of the host must cause nothing");
    }
}

/// The key of a user by its place in [`USERS`].
pub(super) const fn key_of(user: u8) -> PublicKey {
    PublicKey::new([user.wrapping_add(0x40); PublicKey::LEN])
}

/// How a user logs in for the first time, in a session of its own.
pub(super) fn hello_and_login(user: u8, attach: u64) -> [ClientFrame; 2] {
    let login = Login {
        name: Untrusted::new(USERS.get(usize::from(user)).copied().unwrap_or_default()),
        key: key_of(user),
        session: SessionId::new([user.wrapping_mul(16); SessionId::LEN]),
        attach: Attach::ZERO.saturating_add(attach),
        signature: Signature::new([1; Signature::LEN]),
    };
    [ClientFrame::hello(), ClientFrame::Login(login)]
}

/// An order by the key of a user, or of the server.
fn operate(whose: u8, flaw: u8) -> ClientFrame {
    let whose = whose.checked_rem(9).unwrap_or_default();
    let server_key = founding(2, Vec::new()).server_key;
    let key = if whose == 8 { server_key } else { key_of(whose) };
    let signature = if flaw == 1 { WRONG_SIGNATURE } else { Signature::new([1; Signature::LEN]) };
    ClientFrame::Operate(Operate { key, order: Order::Status, signature })
}

fn room(choices: &mut Choices<'_>) -> Untrusted<RoomName> {
    Untrusted::new(choices.of(&ROOMS))
}

fn user(choices: &mut Choices<'_>) -> Untrusted<UserName> {
    Untrusted::new(choices.of(&USERS))
}

fn measure(choices: &mut Choices<'_>) -> Measure {
    choices.of(Measure::ALL)
}

fn join(choices: &mut Choices<'_>) -> Question {
    let room = room(choices);
    let (kind, number) = (choices.byte(), choices.byte());
    let seq = if number == u8::MAX { Seq::MAX } else { Seq::ZERO.saturating_add(number.into()) };
    let incarnation = Incarnation::ZERO.saturating_add(u64::from(kind >> 4));
    let start = match kind & 3 {
        0 => Start::At(seq),
        1 => Start::Last(seq.get()),
        _ => Start::After(Cursor { incarnation, seq }),
    };
    Question::Join { room, start }
}

fn look(choices: &mut Choices<'_>) -> Question {
    let kind = choices.below(4);
    let room = room(choices);
    match kind {
        0 => Question::Who { room },
        1 => Question::Rooms,
        2 => {
            let user = Untrusted::new(choices.of(&USERS));
            Question::Whois { room, user }
        }
        _ => {
            let number = u64::from(choices.byte());
            let before = (number != 0).then(|| Seq::ZERO.saturating_add(number));
            let limit = u16::from(choices.byte());
            Question::History { room, before, limit }
        }
    }
}

fn sign(which: u8) -> ClientFrame {
    let token = RequestId::ZERO.saturating_add(u64::from(which));
    match which {
        0 => ClientFrame::Ping { token },
        1 => ClientFrame::Pong { token },
        _ => ClientFrame::Leave,
    }
}
