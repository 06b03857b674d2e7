//! Random runs: whatever clients, network and store do, the engine and the model agree.

use std::collections::BTreeMap;

use chat_sim::model::Broken;
use chatcore::engine::{Archive, Input, Need};
use chatcore::id::*;
use chatcore::limits::Limits;
use chatcore::log::OperatorRule;
use chatcore::text::Untrusted;
use chatcore::time::{Span, Timestamp};
use chatcore::wire::*;
use fastrand::Rng;

use crate::rig::{Rig, Setup, key_of, login, operate, question_join, server_key, session};

const NAMES: [&str; 16] = [
    "ana", "Bob", "cem", "dov", "fay", "gus", "hal", "ana", "Bob", "cem", "dov", "paypal",
    "paypa1", "eve", "admin", "x y",
];
const ROOMS: [&str; 6] = ["lobby", "Attic", "zoo", "den", "no room", ""];
const TEXTS: [&str; 4] = ["hi", "", "  ", "something longer to say, so that a window fills"];

/// One client: who it is and where it is connected.
struct Client {
    name: &'static str,
    key: PublicKey,
    session: SessionId,
    attach: u64,
    conn: Option<ConnId>,
    /// Its last commands, to be sent again.
    sent: Vec<(u64, Command)>,
}

struct Run {
    rig: Rig,
    rng: Rng,
    clients: Vec<Client>,
}

/// Bounds that are met now and then.
fn limits(rng: &mut Rng) -> Limits {
    let mut limits = Limits::default();
    let few = |rng: &mut Rng, usual: u32, most: u32| {
        if rng.u8(..3) == 0 { rng.u32(1..=most) } else { usual }
    };
    limits.connections_max = few(rng, 100, 12);
    limits.greeting_percent = few(rng, 100, 60);
    limits.users_max = few(rng, 100, 6);
    limits.bans_max = few(rng, 100, 1);
    limits.sessions_max = few(rng, 100, 8);
    limits.sessions_per_user_max = few(rng, 16, 2);
    limits.session_age_min = Span::from_secs(u64::from(few(rng, 86_400, 30)));
    limits.rooms_max = few(rng, 100, 3);
    limits.rooms_per_user_max = few(rng, 64, 2);
    limits.held_records_max = few(rng, 10_000, 9);
    limits.crowd_members = few(rng, 500, 3);
    limits.crowd_notice_interval = Span::from_millis(u64::from(few(rng, 1_000, 9_000)));
    limits.question_burst = few(rng, 128, 4);
    limits.question_interval = Span::from_millis(u64::from(few(rng, 20, 900)));
    limits.waiting_per_connection_max = few(rng, 1_024, 4);
    limits.waiting_max = few(rng, 65_536, 9);
    limits.reset_burst = few(rng, 10, 3);
    limits.grace = Span::from_millis(u64::from(rng.u32(..30_000)) * u64::from(rng.u8(..2)));
    limits.window_bytes = [0, 3_000, 20_000, 64 << 20][rng.usize(..4)];
    if rng.u8(..4) == 0 {
        limits.held_bytes_max = 64 << 10;
        limits.held_bytes_total_max = 64 << 10;
    }
    limits.check().unwrap();
    limits
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let operators = match rng.u8(..3) {
            0 => vec![OperatorRule::Name("cem".parse().unwrap()), OperatorRule::Key(key_of("eve"))],
            _ => Vec::new(),
        };
        let archive = if rng.bool() { Archive::Store } else { Archive::None };
        let limits = limits(&mut rng);
        let threshold = rng.u16(1..4);
        let rig = Rig::new(Setup { limits, archive, operators, threshold });
        let clients = (0..12).map(|number| {
            let all = if rng.u8(..4) == 0 { NAMES.len() } else { 11 };
            let name = NAMES[rng.usize(..all)];
            let other = rng.u8(..30) == 0;
            let key = key_of(if other { "eve" } else { name }.to_lowercase().as_str());
            let of = if rng.u8(..30) == 0 { "shared" } else { name };
            let session = session(of, number % 3);
            Client { name, key, session, attach: 0, conn: None, sent: Vec::new() }
        });
        let clients = clients.collect();
        Self { rig, rng, clients }
    }

    fn step(&mut self) -> Result<(), Broken> {
        match self.rng.u8(..100) {
            0..60 => self.client_step(),
            60..72 => {
                let count = self.rng.usize(1..6);
                let count = if self.rng.u8(..3) == 0 { usize::MAX } else { count };
                self.rig.persist(count)
            }
            72..79 => self.rig.serve(3),
            79 => self.fetch(),
            80..84 => {
                let most = [0, 1, 3, 300][self.rng.usize(..4)];
                if self.rng.u8(..4) == 0 {
                    return self.rig.fail_reads();
                }
                let lost = u64::from(self.rng.u8(..4) == 0) * self.rng.u64(..9);
                self.rig.read_all((lost, most))
            }
            84..90 => {
                self.rig.verify_all()?;
                if self.rng.bool() { self.rig.report_all() } else { Ok(()) }
            }
            90..96 => self.pass(),
            96 => {
                let wall = self.rng.u64(..2_000_000_000_000);
                self.rig.now.wall = Timestamp::new(wall).unwrap();
                Ok(())
            }
            97 => match self.rng.u8(..12) {
                0 => {
                    self.restart();
                    Ok(())
                }
                1 => self.condemn(),
                2 if self.rng.u8(..12) == 0 => self.rig.input(Input::Stop),
                3 => self.rig.input(Input::StoreFull),
                6 | 7 => self.moderate(),
                4 | 5 => {
                    self.rig.take_snapshot();
                    Ok(())
                }
                _ => self.rig.input(Input::StoreFree),
            },
            _ => self.rig.input(Input::Timeout),
        }
    }

    /// Those who run the server take a measure.
    fn moderate(&mut self) -> Result<(), Broken> {
        let request = RequestId::new(self.rig.inputs).unwrap();
        let measure = self.rng.choice(Measure::ALL).copied().unwrap();
        let Ok(user) = NAMES[self.rng.usize(..NAMES.len())].parse() else { return Ok(()) };
        self.rig.input(Input::Moderate { request, user, measure })
    }

    fn pass(&mut self) -> Result<(), Broken> {
        let most = [50, 3_000, 40_000][self.rng.usize(..3)];
        self.rig.pass(self.rng.u64(..most));
        if self.rng.bool() {
            let moment = self.rig.now.moment;
            self.rig.shard.expire(moment);
            self.rig.input(Input::Timeout)?;
        }
        Ok(())
    }

    fn restart(&mut self) {
        let kept = self.rng.usize(self.rig.safe..=self.rig.entries.len());
        self.rig.restart(kept);
        self.clients.iter_mut().for_each(|client| client.conn = None);
    }

    /// A shard lacks something: what it asked may have crossed a reset, or be of no use.
    fn fetch(&mut self) -> Result<(), Broken> {
        let conns: Vec<ConnId> = self.rig.open.iter().copied().collect();
        let Some(conn) = self.rng.choice(conns) else { return Ok(()) };
        let Ok(room) = self.room().parse() else { return Ok(()) };
        let life = self.rig.model.room(&room).map_or(1, |truth| truth.incarnation.get());
        let incarnation = Incarnation::new(life - u64::from(self.rng.bool())).unwrap();
        let after = Seq::new(self.rng.u64(..30)).unwrap();
        self.rig.input(Input::Fetch(Need { conn, room, incarnation, after }))
    }

    fn condemn(&mut self) -> Result<(), Broken> {
        let conns: Vec<ConnId> = self.rig.open.iter().copied().collect();
        let Some(conn) = self.rng.choice(conns) else { return Ok(()) };
        let refusal = Refusal::Frame(FrameFault::Empty);
        self.rig.input(Input::Condemned { conn, refusal })
    }

    fn client_step(&mut self) -> Result<(), Broken> {
        let place = self.rng.usize(..self.clients.len());
        let client = &self.clients[place];
        let conn = client.conn.filter(|conn| self.rig.open.contains(conn));
        let Some(conn) = conn else {
            if self.rng.u8(..3) > 0 {
                return self.connect(place);
            }
            return Ok(());
        };
        let frame = match self.rng.u8(..41) {
            0..16 => self.submit(place),
            16..33 => self.question(),
            33 => ClientFrame::Ping { token: RequestId::new(self.rng.u64(..9)).unwrap() },
            34 => ClientFrame::Pong { token: RequestId::ZERO },
            35 => ClientFrame::hello(),
            36 => ClientFrame::Leave,
            37 => return self.rig.lose(conn),
            38 => return self.connect(place),
            39 => self.operate(place),
            _ => self.login(place),
        };
        self.rig.send(conn, frame)
    }

    fn connect(&mut self, place: usize) -> Result<(), Broken> {
        let conn = self.rig.dial()?;
        self.clients[place].conn = Some(conn);
        if self.rng.u8(..20) == 0 {
            return Ok(());
        }
        let min = u16::from(self.rng.u8(..20) == 0) + 1;
        let versions = VersionRange { min, max: min + 1 };
        let hello = ClientHello { role: Role::Client, versions, features: 0 };
        self.rig.send(conn, ClientFrame::Hello(hello))?;
        if self.rng.u8(..3) == 0 {
            self.rig.send(conn, ClientFrame::Prove { nonce: Nonce::new([6; Nonce::LEN]) })?;
        }
        let first = if self.rng.u8(..20) == 0 { self.operate(place) } else { self.login(place) };
        self.rig.send(conn, first)?;
        if self.rng.u8(..4) > 0 { self.rig.verify_all() } else { Ok(()) }
    }

    fn login(&mut self, place: usize) -> ClientFrame {
        let client = &mut self.clients[place];
        client.attach += 1;
        let attach = client.attach.saturating_sub(self.rng.u64(..2));
        let ClientFrame::Login(mut login) = login(client.name, client.session, attach) else {
            unreachable!("a log-in is one");
        };
        login.key = client.key;
        if self.rng.u8(..20) == 0 {
            login.signature = Signature::new([0; 64]);
        }
        ClientFrame::Login(login)
    }

    fn operate(&mut self, place: usize) -> ClientFrame {
        let key = if self.rng.bool() { server_key() } else { self.clients[place].key };
        let ClientFrame::Operate(mut order) = operate(key) else {
            unreachable!("an order is one");
        };
        if self.rng.u8(..10) == 0 {
            order.signature = Signature::new([0; 64]);
        }
        ClientFrame::Operate(order)
    }

    fn submit(&mut self, place: usize) -> ClientFrame {
        let client = &self.clients[place];
        let last = self.rig.model.last_counter(&client.session).map_or(0, Counter::get);
        let sent = &client.sent;
        let (counter, command) = match self.rng.u8(..12) {
            0 | 1 if !sent.is_empty() => {
                let recent = sent.len().saturating_sub(90);
                sent[self.rng.usize(recent..sent.len())].clone()
            }
            2 => (self.rng.u64(..=last + 2), self.command()),
            _ => (last + 1, self.command()),
        };
        self.clients[place].sent.push((counter, command.clone()));
        ClientFrame::Submit { counter: Counter::new(counter).unwrap(), command }
    }

    fn room(&mut self) -> &'static str {
        let usual = self.rng.u8(..10) > 0;
        ROOMS[self.rng.usize(..if usual { 3 } else { ROOMS.len() })]
    }

    fn command(&mut self) -> Command {
        let room = Untrusted::new(self.room());
        if self.rng.u8(..8) == 0 {
            let threshold = Threshold::new(self.rng.u16(1..4)).unwrap();
            return Command::Reset { room, threshold };
        }
        if self.rng.u8(..12) == 0 {
            let user = Untrusted::new(NAMES[self.rng.usize(..NAMES.len())]);
            let measure = self.rng.choice(Measure::ALL).copied().unwrap();
            return Command::Moderate { user, measure };
        }
        let life = Incarnation::new(self.rng.u64(1..4)).unwrap();
        let incarnation = (self.rng.u8(..4) == 0).then_some(life);
        let text = match self.rng.u8(..20) {
            0 => TEXTS[self.rng.usize(..TEXTS.len())].to_owned(),
            1 => "y".repeat(self.rng.usize(8_000..8_300)),
            _ => format!("{} {}", self.rig.inputs, "z".repeat(self.rng.usize(..200))),
        };
        Command::Post { room, incarnation, body: Untrusted::new(text) }
    }

    fn question(&mut self) -> ClientFrame {
        let room = self.room();
        let question = match self.rng.u8(..14) {
            0..6 => {
                let Question::Join { room, start } = question_join(room) else {
                    unreachable!("a join is one");
                };
                let seq = Seq::new(self.rng.u64(..20)).unwrap();
                let incarnation = Incarnation::new(self.rng.u64(..4)).unwrap();
                let start = match self.rng.u8(..5) {
                    0 => Start::Last(self.rng.u64(..9)),
                    1 => Start::At(seq),
                    2 => Start::After(Cursor { incarnation, seq }),
                    _ => start,
                };
                Question::Join { room, start }
            }
            6 => Question::Part { room: Untrusted::new(room) },
            7 | 8 => Question::Who { room: Untrusted::new(room) },
            9 => Question::Rooms,
            10 => {
                let user = NAMES[self.rng.usize(..NAMES.len())];
                Question::Whois { room: Untrusted::new(room), user: Untrusted::new(user) }
            }
            _ => {
                let before = Seq::new(self.rng.u64(..40)).unwrap();
                let before = self.rng.bool().then_some(before);
                let limit = [0, 3, 20, 999][self.rng.usize(..4)];
                Question::History { room: Untrusted::new(room), before, limit }
            }
        };
        self.rig.ask(question)
    }
}

/// How long to run, for those who want more: `MODEL_FIRST_SEED`, `MODEL_SEEDS`, `MODEL_STEPS`.
fn number(name: &str, usual: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

#[test]
fn engine_does_what_the_model_says_whatever_happens() {
    let (first, seeds) = (number("MODEL_FIRST_SEED", 0), number("MODEL_SEEDS", 200));
    let steps = number("MODEL_STEPS", 1_500);
    let (mut inputs, mut tally) = (0, BTreeMap::new());
    for seed in first..first + seeds {
        let mut run = Run::new(seed);
        for step in 0..steps {
            if let Err(broken) = run.step() {
                panic!("seed {seed}, step {step}: {broken}");
            }
        }
        assert_eq!(run.rig.engine.head(), run.rig.model.head(), "seed {seed}: another journal");
        inputs += run.rig.inputs;
        for (kind, count) in run.rig.tally {
            *tally.entry(kind).or_insert(0) += count;
        }
    }
    println!("{seeds} runs, {inputs} inputs: {tally:#?}");
}
