//! People who do not keep to the protocol: whatever they send, they harm nobody but themselves.

use bytes::Bytes;
use chatcore::codec::{FrameBuffer, encode_to_bytes};
use chatcore::id::{
    Attach, ConnId, Counter, Incarnation, Nonce, PublicKey, RequestId, Seq, SessionId, Signature,
    Threshold,
};
use chatcore::text::Untrusted;
use chatcore::wire::{
    Answer, ClientFrame, Command, Cursor, Login, LoginProof, Measure, Operate, OperateProof, Order,
    Question, ServerFrame, ServerHello, Start,
};
use fastrand::Rng;

use crate::broken::Broken;
use crate::plan::{Wild, pick};
use crate::world::World;
use crate::world::client::{key_of, next_frame, sign};
use crate::world::net::{Conn, Dialler};
use crate::world::queue::{Event, Side};
use crate::world::server::channel_behind;

/// How many of them there may be.
const KEYS: u8 = 3;

/// How often a glutton asks for a page of history, and for how long it reads nothing then.
const GLUTTON_PAGES: u64 = 100;
const GLUTTON_STALL: u64 = 10_000;

/// How often the restless joins.
const RESTLESS_JOINS: u64 = 100;

/// One of them.
#[derive(Debug)]
pub(crate) struct WildPeer {
    kind: Wild,
    /// How often it has joined.
    joins: u64,
    rng: Rng,
    buffer: FrameBuffer,
}

impl World<'_> {
    pub(crate) fn begin_wild(&mut self, kind: Wild, seed: u32) {
        self.dials += 1;
        let id = ConnId::new(self.dials);
        self.note(|| format!("a stranger dials: {id}"));
        self.conns.insert(id, Conn::new(Dialler::Wild, self.boot));
        let rng = Rng::with_seed(seed.into());
        self.wild.insert(id, WildPeer { kind, joins: 0, rng, buffer: FrameBuffer::default() });
        self.queue.push(self.now, Event::Dial(id));
    }

    /// Everybody who does not keep to the protocol goes.
    pub(crate) fn send_strangers_away(&mut self) {
        for (id, _) in std::mem::take(&mut self.wild) {
            let Some((conn, mut wire)) = self.wire(id) else { continue };
            if std::mem::replace(&mut conn.client_open, false) {
                conn.lose(Side::Client);
                wire.end(id, conn, Side::Server);
            }
        }
    }

    pub(crate) fn wild_dialled(&mut self, id: ConnId, well: bool) {
        if !well {
            self.wild.remove(&id);
            return;
        }
        let Some(peer) = self.wild.get_mut(&id) else { return };
        let rng = &mut peer.rng;
        let first = match peer.kind {
            Wild::Mute => return,
            Wild::Noise => noise(rng),
            Wild::Unruly => join((0..rng.u8(1..6)).map(|_| any_frame(rng))),
            Wild::Forger | Wild::Member | Wild::Glutton | Wild::Restless | Wild::Operator => {
                encode_to_bytes(&ClientFrame::hello())
            }
        };
        self.send_bytes(id, first);
    }

    /// Reads what a wild peer was sent, and goes on.
    pub(crate) fn wild_receives(&mut self, id: ConnId, bytes: &[u8]) -> Result<(), Broken> {
        let Some(peer) = self.wild.get_mut(&id) else { return Ok(()) };
        peer.buffer.feed(bytes);
        let (mut answers, mut stops_reading) = (Vec::new(), false);
        while let Some(peer) = self.wild.get_mut(&id)
            && let Some(frame) = next_frame(&mut peer.buffer)?
        {
            if let ServerFrame::Hello(hello) = &frame {
                answers.push(peer.introduce_itself(hello));
            }
            if let ServerFrame::Welcome(_) = &frame {
                answers.push(peer.speak());
                stops_reading = peer.kind == Wild::Glutton;
            }
            if let ServerFrame::Answer { answer: Answer::Joined(_), .. } = &frame {
                answers.extend(peer.join_again());
            }
            self.note_answer(id, &frame);
        }
        for answer in answers {
            self.send_bytes(id, answer);
        }
        if stops_reading {
            self.stall_connection(id, self.now + GLUTTON_STALL);
        }
        Ok(())
    }
}

impl WildPeer {
    /// What it has to say once it is logged in.
    fn speak(&mut self) -> Bytes {
        match self.kind {
            Wild::Glutton => join(all_there_is()),
            Wild::Restless => encode_to_bytes(&from_the_first(self.joins)),
            Wild::Mute
            | Wild::Noise
            | Wild::Unruly
            | Wild::Forger
            | Wild::Member
            | Wild::Operator => {
                let count = self.rng.u8(1..40);
                join((0..count).map(|_| any_frame(&mut self.rng)))
            }
        }
    }

    /// What the restless does when it has joined.
    fn join_again(&mut self) -> Option<Bytes> {
        self.joins += 1;
        let goes_on = self.kind == Wild::Restless && self.joins < RESTLESS_JOINS;
        goes_on.then(|| encode_to_bytes(&from_the_first(self.joins)))
    }

    fn introduce_itself(&mut self, hello: &ServerHello) -> Bytes {
        match self.kind {
            Wild::Operator => {
                let order = self.order(hello);
                // Whoever cannot wait asks again, or for something else.
                let more = (0..self.rng.u8(0..3)).map(|_| any_frame(&mut self.rng));
                join(core::iter::once(order).chain(more))
            }
            Wild::Mute
            | Wild::Noise
            | Wild::Unruly
            | Wild::Forger
            | Wild::Member
            | Wild::Glutton
            | Wild::Restless => encode_to_bytes(&self.log_in(hello)),
        }
    }

    /// An order by the server's key, a user's, who may be an operator, or anybody's.
    fn order(&mut self, hello: &ServerHello) -> ClientFrame {
        let key = match self.rng.u8(0..4) {
            0 => PublicKey::new([200; PublicKey::LEN]),
            1 => key_of(self.rng.u8(0..3)),
            _ => hello.server_key,
        };
        let order = Order::Status;
        let proof = OperateProof {
            nonce: hello.nonce,
            server_key: hello.server_key,
            log_id: hello.log_id,
            generation: hello.generation,
            channel: channel_behind(hello),
            order,
        };
        let is_forged = self.rng.u8(0..8) == 0;
        let signer = if is_forged { PublicKey::new([3; PublicKey::LEN]) } else { key };
        let signature = sign(&signer, &proof.to_bytes());
        ClientFrame::Operate(Operate { key, order, signature })
    }

    fn log_in(&mut self, hello: &ServerHello) -> ClientFrame {
        let number = self.rng.u8(0..KEYS);
        let key = PublicKey::new([200 + number; PublicKey::LEN]);
        // Mostly its own, from several connections at once: the later attachment has to win.
        let owner = if self.rng.u8(0..4) == 0 { self.rng.u8(0..KEYS) } else { number };
        let session = SessionId::new([200 + owner; SessionId::LEN]);
        let attach = Attach::new(self.rng.u64(0..6)).unwrap_or_default();
        let name = match self.rng.u8(0..6) {
            0 => "user-0".to_owned(),
            1 => "Server".to_owned(),
            // It looks like the name below, which may be another's.
            2 => format!("wi1d-{}", self.rng.u8(0..KEYS)),
            _ => format!("wild-{number}"),
        };
        let proof = LoginProof {
            nonce: hello.nonce,
            server_key: hello.server_key,
            log_id: hello.log_id,
            generation: hello.generation,
            channel: channel_behind(hello),
            session,
            attach,
            name: &name,
        };
        let signature = if self.kind == Wild::Forger {
            Signature::new([3; Signature::LEN])
        } else {
            sign(&key, &proof.to_bytes())
        };
        let name = Untrusted::new(name);
        ClientFrame::Login(Login { name, key, session, attach, signature })
    }
}

fn join(frames: impl Iterator<Item = ClientFrame>) -> Bytes {
    frames.flat_map(|frame| encode_to_bytes(&frame)).collect()
}

/// Bytes that are no frame, or a frame that is nothing.
fn noise(rng: &mut Rng) -> Bytes {
    let len = rng.usize(1..200);
    let mut bytes: Vec<u8> = (0..len).map(|_| rng.u8(..)).collect();
    match rng.u8(0..3) {
        0 => {}
        1 => bytes.splice(0..0, [0, 0, 0, 0]).for_each(drop),
        _ => {
            let len = u32::try_from(bytes.len()).unwrap_or(0).to_be_bytes();
            bytes.splice(0..0, len).for_each(drop);
        }
    }
    bytes.into()
}

fn any_room(rng: &mut Rng) -> Untrusted<chatcore::text::RoomName> {
    Untrusted::new(*pick(rng, &["lobby", "lobby", "lobby", "room-1", "elsewhere", "no room", ""]))
}

fn any_counter(rng: &mut Rng) -> Counter {
    let number = match rng.u8(0..8) {
        0 => rng.u64(0..100),
        1 => Counter::MAX.get() - rng.u64(0..2),
        _ => rng.u64(0..6),
    };
    Counter::new(number).unwrap_or_default()
}

/// A join that begins with everything.
fn from_the_first(number: u64) -> ClientFrame {
    let (room, start) = (Untrusted::new("lobby"), Start::At(Seq::ZERO.next()));
    let request = RequestId::new(number).unwrap_or_default();
    ClientFrame::Ask { request, question: Question::Join { room, start } }
}

/// The same long page, again and again.
fn all_there_is() -> impl Iterator<Item = ClientFrame> {
    (0..=GLUTTON_PAGES).map(|number| {
        let (room, start) = (Untrusted::new("lobby"), Start::Last(0));
        let question = match number {
            0 => Question::Join { room, start },
            _ => Question::History { room, before: None, limit: 300 },
        };
        let request = RequestId::new(number).unwrap_or_default();
        ClientFrame::Ask { request, question }
    })
}

/// Any frame, with numbers and names from a small world.
fn any_frame(rng: &mut Rng) -> ClientFrame {
    match rng.u8(0..20) {
        0 if rng.bool() => ClientFrame::Prove { nonce: Nonce::new([1; Nonce::LEN]) },
        0 => ClientFrame::hello(),
        1 => ClientFrame::Ping { token: RequestId::ZERO },
        2 => ClientFrame::Pong { token: RequestId::ZERO },
        3 if rng.u8(0..4) == 0 => ClientFrame::Leave,
        4..12 => ClientFrame::Submit { counter: any_counter(rng), command: any_command(rng) },
        _ => {
            // Its own for each question: whoever uses one twice cannot tell the answers apart.
            let request = RequestId::new(rng.u64(0..1 << 50)).unwrap_or_default();
            ClientFrame::Ask { request, question: any_question(rng) }
        }
    }
}

fn any_command(rng: &mut Rng) -> Command {
    let room = any_room(rng);
    if rng.u8(0..8) == 0 {
        let threshold = Threshold::new(rng.u16(1..4)).unwrap_or_default();
        return Command::Reset { room, threshold };
    }
    if rng.u8(0..8) == 0 {
        let user = *pick(rng, &["user-0", "user-1", "wild-0", "nobody", "no name"]);
        let measure = *pick(rng, Measure::ALL);
        return Command::Moderate { user: Untrusted::new(user), measure };
    }
    let incarnation = rng.bool().then(|| Incarnation::new(rng.u64(0..3)).unwrap_or_default());
    let body = Untrusted::new(*pick(rng, &["one", "two", "three", "", "wild words"]));
    Command::Post { room, incarnation, body }
}

fn any_question(rng: &mut Rng) -> Question {
    let room = any_room(rng);
    let seq = |rng: &mut Rng| Seq::new(rng.u64(0..30)).unwrap_or_default();
    match rng.u8(0..10) {
        0 => Question::Part { room },
        1 => Question::Who { room },
        2 => Question::Rooms,
        3 => {
            let user = Untrusted::new(*pick(rng, &["user-0", "user-1", "nobody", "no name"]));
            Question::Whois { room, user }
        }
        4 | 5 => {
            let before = rng.bool().then(|| seq(rng));
            Question::History { room, before, limit: rng.u16(0..400) }
        }
        _ => {
            let incarnation = Incarnation::new(rng.u64(0..3)).unwrap_or_default();
            let start = match rng.u8(0..3) {
                0 => Start::After(Cursor { incarnation, seq: seq(rng) }),
                1 => Start::Last(rng.u64(0..30)),
                _ => Start::At(seq(rng)),
            };
            Question::Join { room, start }
        }
    }
}
