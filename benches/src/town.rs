//! Many people in one thread, each with the state machine that `chat-client` runs: they log in, come
//! back, wait as they are told, answer pings and prove the server's key by its rules and no others.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use chatcore::client::{Client, ClientConfig, Drain, Event, Input, Output, Saved, Stop};
use chatcore::codec::{decode, encode_to_bytes};
use chatcore::id::{PublicKey, Signature};
use chatcore::limits::Limits;
use chatcore::text::{Body, RoomName, UserName};
use chatcore::time::Moment;
use chatcore::wire::{ClientFrame, Record, Refusal, ServerFrame, Start};
use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};

use crate::failure::Failure;
use crate::login::{key_of, session_of};
use crate::socket::Socket;
use crate::stream::{Poll, Received, Stream, scratch};

/// Connections from one address of this machine at most: fewer than there are ports for one.
const FROM_ONE_ADDRESS: usize = 500;

/// How long people may take to come to their rooms, beside three times what their number calls for.
const SETTLING: Duration = Duration::from_secs(30);

/// What happened to a person.
#[derive(Clone, Copy, Debug)]
pub(crate) enum News<'a> {
    /// The server let them in.
    LoggedIn,
    /// They are in their room, and are sent what is said there.
    Follows,
    /// The server told them to come again later.
    Busy,
    /// They were in their room, and their connection broke.
    Lost,
    /// They have no connection, or lost it before they were in their room.
    Missed,
    /// A record came, whether it is shown or not.
    Came(&'a Record),
    /// A record is shown to them.
    Shown(&'a Record),
}

/// Who is told the news, and of whom they are.
pub(crate) type Watch<'a> = &'a mut dyn FnMut(usize, News<'_>) -> Result<(), Failure>;

/// Many people, and the server that they talk by.
pub(crate) struct Town {
    server: SocketAddr,
    poll: Poll,
    begun: Instant,
    people: Vec<Person>,
    /// When whose machine wants to be asked again.
    due: BTreeSet<(Moment, usize)>,
    following: usize,
    ready: Vec<u64>,
    scratch: Vec<u8>,
}

#[derive(Debug)]
struct Person {
    client: Client,
    key: SigningKey,
    room: RoomName,
    from: Ipv4Addr,
    line: Line,
    due: Option<Moment>,
    follows: bool,
}

#[derive(Debug)]
enum Line {
    Down,
    Dialling(Stream),
    Up(Stream),
}

impl Town {
    pub(crate) fn new(server: SocketAddr) -> io::Result<Self> {
        Ok(Self {
            server,
            poll: Poll::new()?,
            begun: Instant::now(),
            people: Vec::new(),
            due: BTreeSet::new(),
            following: 0,
            ready: Vec::new(),
            scratch: scratch(),
        })
    }

    /// Adds somebody, who dials at once; their number.
    pub(crate) fn settle(
        &mut self,
        name: &str,
        room: &str,
        watch: Watch<'_>,
    ) -> Result<usize, Failure> {
        let who = self.people.len();
        let name: UserName = name.parse().map_err(|_| Failure::Protocol("a name is none"))?;
        let room: RoomName = room.parse().map_err(|_| Failure::Protocol("a room is none"))?;
        let config = ClientConfig {
            name: name.clone(),
            rooms: vec![room.clone()],
            start: Start::Last(0),
            reconnect: true,
            jitter_seed: fastrand::u64(..),
            proof_seed: Some(std::array::from_fn(|_| fastrand::u8(..))),
        };
        self.people.push(Person {
            client: Client::new(config),
            key: key_of(name.as_str()),
            room,
            from: source_of(who),
            line: Line::Down,
            due: None,
            follows: false,
        });
        self.tell(who, Input::Start, watch)?;
        Ok(who)
    }

    /// Has people with these names come to these rooms: so many at once, and so many a second after them,
    /// which is what a server takes of those whom it does not know. Ends when all are in their rooms.
    pub(crate) fn settle_all(
        &mut self,
        people: &[(String, String)],
        limits: &Limits,
        watch: Watch<'_>,
    ) -> Result<(), Failure> {
        let (begun, before) = (Instant::now(), self.following());
        let rate = limits.logins_per_second.max(1);
        let count = u32::try_from(people.len()).unwrap_or(u32::MAX);
        let deadline = begun + Duration::from_secs(count.into()) / rate * 3 + SETTLING;
        for (number, (name, room)) in (0_u32..).zip(people) {
            let late = number.saturating_sub(limits.logins_burst);
            let due = begun + Duration::from_secs(late.into()) / rate;
            while Instant::now() < due {
                self.turn(due, watch)?;
            }
            self.settle(name, room, watch)?;
        }
        while self.following() < before + people.len() {
            if Instant::now() >= deadline {
                return Err(Failure::TimeLimit);
            }
            self.turn(deadline, watch)?;
        }
        Ok(())
    }

    /// How many addresses so many people come from.
    pub(crate) const fn addresses(people: usize) -> usize {
        people.div_ceil(FROM_ONE_ADDRESS)
    }

    /// How many are in their rooms now.
    pub(crate) const fn following(&self) -> usize {
        self.following
    }

    /// Has somebody say something in their room.
    pub(crate) fn say(&mut self, who: usize, text: &str, watch: Watch<'_>) -> Result<(), Failure> {
        let body: Body = text.parse().map_err(|_| Failure::Protocol("a text is too long"))?;
        let person = self.people.get(who).ok_or(Failure::Protocol("there is nobody"))?;
        let (room, id) = (person.room.clone(), String::new());
        self.tell(who, Input::Post { room, body, id }, watch)
    }

    /// Has everybody leave for good.
    pub(crate) fn close(mut self) -> Result<(), Failure> {
        for who in 0..self.people.len() {
            self.tell(who, Input::Quit { drain: Drain::Now }, &mut |_, _| Ok(()))?;
        }
        Ok(())
    }

    /// Waits until something happens, or until a time, and sees to it.
    pub(crate) fn turn(&mut self, until: Instant, watch: Watch<'_>) -> Result<(), Failure> {
        let next = self.due.first().map(|(at, _)| self.instant(*at));
        let mut ready = std::mem::take(&mut self.ready);
        self.poll.wait_until(&mut ready, next.map_or(until, |next| next.min(until)))?;
        for token in &ready {
            self.attend(usize::try_from(*token).unwrap_or(usize::MAX), watch)?;
        }
        self.ready = ready;
        let now = self.now();
        while let Some((at, who)) = self.due.first().copied()
            && at <= now
        {
            self.tell(who, Input::Timeout, watch)?;
        }
        Ok(())
    }

    fn now(&self) -> Moment {
        Moment::from_millis(u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    fn instant(&self, at: Moment) -> Instant {
        self.begun + Duration::from_millis(at.as_millis())
    }

    /// Somebody's socket can be read or written.
    fn attend(&mut self, who: usize, watch: Watch<'_>) -> Result<(), Failure> {
        let Some(person) = self.people.get_mut(who) else { return Ok(()) };
        match std::mem::replace(&mut person.line, Line::Down) {
            Line::Down => Ok(()),
            Line::Dialling(stream) => match stream.connected(&self.poll) {
                Ok(()) => {
                    person.line = Line::Up(stream);
                    self.tell(who, Input::Dialled { channel: None }, watch)
                }
                Err(error) => self.lose(who, error.to_string(), watch),
            },
            Line::Up(mut stream) => {
                let mut frames = Vec::new();
                let flushed = stream.flush(&self.poll).map_err(Failure::from);
                let read = flushed.and_then(|()| {
                    stream.read_frames(&mut self.scratch, |frame| {
                        frames.push(read_frame(frame)?);
                        Ok(())
                    })
                });
                person.line = Line::Up(stream);
                self.hear(who, frames, watch)?;
                match read {
                    Ok(Received::Open) => Ok(()),
                    Ok(Received::End) => self.lose(who, "the server is gone".to_owned(), watch),
                    Err(Failure::Io(error)) => self.lose(who, error.to_string(), watch),
                    Err(failure) => Err(failure),
                }
            }
        }
    }

    fn hear(
        &mut self,
        who: usize,
        frames: Vec<ServerFrame>,
        watch: Watch<'_>,
    ) -> Result<(), Failure> {
        for frame in frames {
            if !self.people.get(who).is_some_and(Person::is_up) {
                // It hung up at an earlier one.
                return Ok(());
            }
            if let ServerFrame::Close(Refusal::Busy { .. }) = &frame {
                watch(who, News::Busy)?;
            }
            if let ServerFrame::Record(record) = &frame {
                watch(who, News::Came(record))?;
            }
            self.tell(who, Input::Frame(frame), watch)?;
        }
        Ok(())
    }

    /// The connection is gone, unless the machine has given it up by itself.
    fn lose(&mut self, who: usize, reason: String, watch: Watch<'_>) -> Result<(), Failure> {
        if let Some(person) = self.people.get_mut(who) {
            person.line = Line::Down;
        }
        self.tell(who, Input::Lost { reason }, watch)
    }

    /// Tells a machine what happened, and carries out what it wants.
    fn tell(&mut self, who: usize, input: Input, watch: Watch<'_>) -> Result<(), Failure> {
        let (now, server) = (self.now(), self.server);
        let Some(person) = self.people.get_mut(who) else { return Ok(()) };
        let followed = person.follows;
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            person.client.handle(now, input);
            while let Some(output) = person.client.poll_output() {
                let hands = Hands { who, server, poll: &self.poll };
                inputs.extend(hands.carry_out(person, output, watch)?);
            }
        }
        match (followed, person.follows) {
            (false, true) => self.following += 1,
            (true, false) => self.following -= 1,
            (true, true) | (false, false) => {}
        }
        let due = person.client.next_timeout();
        if due != person.due {
            person.due.map(|at| self.due.remove(&(at, who)));
            due.map(|at| self.due.insert((at, who)));
            person.due = due;
        }
        Ok(())
    }
}

/// What is needed to do what a machine wants.
struct Hands<'a> {
    who: usize,
    server: SocketAddr,
    poll: &'a Poll,
}

impl Hands<'_> {
    /// Does something; what the machine has to be told of it.
    fn carry_out(
        &self,
        person: &mut Person,
        output: Output,
        watch: Watch<'_>,
    ) -> Result<Option<Input>, Failure> {
        match output {
            Output::Dial => Ok(self.dial(person)),
            Output::Hangup => {
                person.line = Line::Down;
                Ok(None)
            }
            Output::Send(frame) => Ok(self.send(person, &frame)),
            Output::Identify { .. } => {
                let key = PublicKey::new(person.key.verifying_key().to_bytes());
                let saved = Saved::new(session_of(&person.key));
                Ok(Some(Input::Identified { key, saved }))
            }
            Output::Sign(message) => {
                let signature = person.key.sign(&message).to_bytes();
                Ok(Some(Input::Signed(Signature::new(signature))))
            }
            Output::Verify { key, message, signature } => {
                let signature = ed25519_dalek::Signature::from_bytes(signature.as_bytes());
                let valid = VerifyingKey::from_bytes(key.as_bytes())
                    .and_then(|key| key.verify_strict(&message, &signature))
                    .is_ok();
                Ok(Some(Input::Verified { valid }))
            }
            Output::Event(event) => self.show(person, &event, watch).map(|()| None),
            // What is saved is for who outlives this process, and nobody here does.
            Output::Save(_) | Output::Stopped(Stop::Done) => Ok(None),
            Output::Stopped(Stop::Refused(refusal)) => Err(Failure::Refused(refusal)),
            Output::Stopped(Stop::Lost | Stop::OtherServer | Stop::Impostor) => Err(Failure::Ended),
        }
    }

    fn dial(&self, person: &mut Person) -> Option<Input> {
        let token = u64::try_from(self.who).unwrap_or(u64::MAX);
        let stream = Socket::begin(person.from, self.server)
            .and_then(|socket| Stream::connecting(socket, token, self.poll));
        match stream {
            Ok(stream) => {
                person.line = Line::Dialling(stream);
                None
            }
            Err(error) => Some(Input::Lost { reason: error.to_string() }),
        }
    }

    fn send(&self, person: &mut Person, frame: &ClientFrame) -> Option<Input> {
        let Line::Up(stream) = &mut person.line else { return None };
        let sent = stream.send(self.poll, &encode_to_bytes(frame));
        let error = sent.err()?;
        person.line = Line::Down;
        Some(Input::Lost { reason: error.to_string() })
    }

    fn show(&self, person: &mut Person, event: &Event, watch: Watch<'_>) -> Result<(), Failure> {
        match event {
            Event::Connected { .. } => watch(self.who, News::LoggedIn),
            // The first one of a connection answers the join.
            Event::Gate { .. } if !std::mem::replace(&mut person.follows, true) => {
                watch(self.who, News::Follows)
            }
            Event::Disconnected { .. } => {
                let followed = std::mem::replace(&mut person.follows, false);
                watch(self.who, if followed { News::Lost } else { News::Missed })
            }
            Event::Record(record) => watch(self.who, News::Shown(record)),
            Event::Gap { .. } => Err(Failure::Protocol("records are gone that were due")),
            Event::Refused { refusal, .. } => Err(Failure::Refused(*refusal)),
            Event::Abandoned { .. } => Err(Failure::Protocol("a post was given up")),
            Event::Gate { .. }
            | Event::Users { .. }
            | Event::Sent { .. }
            | Event::Reset { .. }
            | Event::Moderated { .. }
            | Event::Parted { .. }
            | Event::Rooms { .. }
            | Event::User(_)
            | Event::History { .. }
            | Event::Notice(_)
            | Event::StoreFull => Ok(()),
        }
    }
}

impl Person {
    const fn is_up(&self) -> bool {
        matches!(self.line, Line::Up(_))
    }
}

fn read_frame(frame: &[u8]) -> Result<ServerFrame, Failure> {
    decode(frame).map_err(|_| Failure::Protocol("a frame does not decode"))
}

/// The address of this machine that somebody comes from, so that no address runs out of ports.
fn source_of(who: usize) -> Ipv4Addr {
    let [.., high, low] = (who / FROM_ONE_ADDRESS + 2).to_be_bytes();
    Ipv4Addr::new(127, 0, high, low)
}
