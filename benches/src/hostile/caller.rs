//! One connection of a hostile peer, and what it sees.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use chatcore::address::Address;
use chatcore::codec::{FrameBuffer, decode, encode, encode_to_bytes};
use chatcore::id::{Counter, Digest, RequestId};
use chatcore::text::Untrusted;
use chatcore::wire::{
    Answer, ClientFrame, Login, Question, Refusal, ServerFrame, ServerHello, Start,
};

use super::sign::{Sign, Signs};
use crate::failure::Failure;
use crate::frames::post_to;
use crate::login::log_in;
use crate::socket::Socket;
use crate::stream::is_for_later;

/// Longer than anything may take that the server does.
const PATIENCE: Duration = Duration::from_secs(15);

/// Bytes read at once.
const READ_BYTES: usize = 16 << 10;

/// The first byte of an alert of TLS (RFC 8446, section 5.1).
const TLS_ALERT: u8 = 21;

/// A connection, and what came of it.
pub(super) struct Caller {
    address: Address,
    /// A name that nobody else has.
    name: String,
    socket: Socket,
    buffer: FrameBuffer,
    begun: Instant,
    /// How long it lasted, once it has ended.
    lasted: Option<Duration>,
    signs: Signs,
}

impl Caller {
    pub(super) fn connect(address: &Address, name: &str) -> Result<Self, Failure> {
        let begun = Instant::now();
        let socket = Socket::connect(address)?;
        socket.set_read_timeout(PATIENCE)?;
        socket.set_write_timeout(PATIENCE)?;
        Ok(Self {
            address: address.clone(),
            name: name.to_owned(),
            socket,
            buffer: FrameBuffer::default(),
            begun,
            lasted: None,
            signs: Signs::default(),
        })
    }

    /// One more connection of the same peer.
    pub(super) fn another(&self) -> Result<Self, Failure> {
        Self::connect(&self.address, &self.name)
    }

    /// What it saw, and when the server ended it.
    pub(super) fn seen(self) -> (Signs, Option<Duration>) {
        (self.signs, self.lasted)
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// A room that nobody else is in.
    pub(super) fn own_room(&self) -> String {
        format!("{}-room", self.name)
    }

    pub(super) fn channel(&self) -> Option<Digest> {
        self.socket.channel()
    }

    /// Sends bytes, whatever they are. That the server takes no more is seen where it is read.
    pub(super) fn send(&mut self, bytes: &[u8]) {
        // A server that closed while this was under way is no failure of anybody.
        let _ = self.socket.write_all(bytes).and_then(|()| self.socket.flush());
    }

    pub(super) fn send_frame(&mut self, frame: &ClientFrame) {
        self.send(&encode_to_bytes(frame));
    }

    /// Sends so many frames at once.
    pub(super) fn send_frames(&mut self, frames: impl Iterator<Item = ClientFrame>) {
        let mut bytes = BytesMut::new();
        frames.for_each(|frame| encode(&frame, &mut bytes));
        self.send(&bytes);
    }

    /// Sends byte after byte, as slowly as this, until the server has had enough.
    pub(super) fn dribble(
        &mut self,
        bytes: impl IntoIterator<Item = u8>,
        every: Duration,
    ) -> Result<(), Failure> {
        self.socket.set_read_timeout(every)?;
        for byte in bytes {
            self.send(&[byte]);
            if self.read() != Came::Nothing || self.begun.elapsed() >= PATIENCE {
                break;
            }
        }
        Ok(self.socket.set_read_timeout(PATIENCE)?)
    }

    /// Says that it sends no more.
    pub(super) fn stop_sending(&self) -> Result<(), Failure> {
        Ok(self.socket.shut_down(Shutdown::Write)?)
    }

    /// Says hello; what the server says of itself.
    pub(super) fn greet(&mut self) -> Result<ServerHello, Failure> {
        self.send_frame(&ClientFrame::hello());
        match self.next()? {
            Some(ServerFrame::Hello(hello)) => Ok(hello),
            Some(_) | None => Err(Failure::Protocol("the server did not say hello")),
        }
    }

    /// Logs in as itself.
    pub(super) fn log_in(&mut self) -> Result<Login, Failure> {
        let hello = self.greet()?;
        let login = log_in(&hello, self.channel(), &self.name);
        self.send_frame(&ClientFrame::Login(login.clone()));
        match self.next()? {
            Some(ServerFrame::Welcome(_)) => Ok(login),
            Some(ServerFrame::Close(refusal)) => Err(Failure::Refused(refusal)),
            Some(_) | None => Err(Failure::Protocol("a log-in was not answered")),
        }
    }

    /// Logs in and joins a room of its own.
    pub(super) fn settle(&mut self) -> Result<(), Failure> {
        self.log_in()?;
        let room = Untrusted::new(self.own_room());
        self.ask(RequestId::ZERO, Question::Join { room, start: Start::Last(0) });
        loop {
            match self.next()? {
                Some(ServerFrame::Answer { answer: Answer::Joined(_), .. }) => return Ok(()),
                Some(_) => {}
                None => return Err(Failure::Ended),
            }
        }
    }

    pub(super) fn ask(&mut self, request: RequestId, question: Question) {
        self.send_frame(&ClientFrame::Ask { request, question });
    }

    /// Posts under a number of its choice.
    pub(super) fn post(&mut self, room: &str, counter: Counter, text: &str) {
        self.send_frame(&post_to(room, counter, text));
    }

    /// Reads until all that was sent is answered, or to the end.
    ///
    /// What is refused for good is answered once the server has it on its disk, and only a question
    /// waits for that.
    pub(super) fn await_answers(&mut self) -> Result<(), Failure> {
        let last = RequestId::MAX;
        self.ask(last, Question::Rooms);
        loop {
            match self.next()? {
                Some(ServerFrame::Answer { request, .. }) if request == last => break,
                Some(_) => {}
                None => return Ok(()),
            }
        }
        self.ping()
    }

    /// Reads until a ping is answered, or to the end. Who has just sent too much is not answered a ping
    /// that is too much, too, and sends it again.
    pub(super) fn ping(&mut self) -> Result<(), Failure> {
        const TRIES: u32 = 5;

        let token = RequestId::MAX;
        self.socket.set_read_timeout(PATIENCE / TRIES)?;
        for _ in 0..TRIES {
            self.send_frame(&ClientFrame::Ping { token });
            while let Some(frame) = self.frame()? {
                if frame == (ServerFrame::Pong { token }) {
                    self.signs.push(Sign::Lives);
                    return Ok(self.socket.set_read_timeout(PATIENCE)?);
                }
            }
            if self.lasted.is_some() {
                return Ok(());
            }
        }
        self.signs.push(Sign::Silence);
        Ok(())
    }

    /// Reads frames until the server ends the connection.
    pub(super) fn read_to_end(&mut self) -> Result<(), Failure> {
        while self.next()?.is_some() {}
        Ok(())
    }

    /// Reads what is no frame until the server ends the connection.
    pub(super) fn read_bytes_to_end(&mut self) {
        let mut came = Came::Bytes;
        while came == Came::Bytes {
            came = self.read();
        }
        if came == Came::Nothing {
            self.signs.push(Sign::Silence);
        }
        let bytes = self.buffer.as_mut().split();
        let status = bytes.strip_prefix(b"HTTP/1.1 ").and_then(|rest| rest.get(..3));
        let status = status.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
        let alert = (bytes.first() == Some(&TLS_ALERT)).then_some(Sign::Alert);
        if let Some(answer) = status.map(Sign::Http).or(alert) {
            self.signs.put_first(answer);
        }
    }

    /// The next frame; none once the server has ended the connection, or says nothing any more.
    fn next(&mut self) -> Result<Option<ServerFrame>, Failure> {
        let frame = self.frame()?;
        if frame.is_none() && self.lasted.is_none() {
            self.signs.push(Sign::Silence);
        }
        Ok(frame)
    }

    /// The next frame, if one comes in the time of the socket.
    fn frame(&mut self) -> Result<Option<ServerFrame>, Failure> {
        loop {
            let whole = self.buffer.next_frame();
            let whole = whole.map_err(|_| Failure::Protocol("a length prefix is wrong"))?;
            if let Some(frame) = whole {
                let frame = decode(&frame);
                let frame = frame.map_err(|_| Failure::Protocol("a frame does not decode"))?;
                self.note(&frame);
                return Ok(Some(frame));
            }
            match self.read() {
                Came::Bytes => {}
                Came::End | Came::Nothing => return Ok(None),
            }
        }
    }

    fn note(&mut self, frame: &ServerFrame) {
        if let ServerFrame::Close(refusal) = frame {
            self.signs.push(Sign::Close(*refusal));
        }
        if let Some(refusal) = refusal_of(frame) {
            self.signs.push(Sign::no(refusal));
        }
    }

    fn read(&mut self) -> Came {
        if self.lasted.is_some() {
            return Came::End;
        }
        let mut bytes = [0; READ_BYTES];
        match self.socket.read(&mut bytes) {
            Err(error) if is_for_later(&error) => Came::Nothing,
            // TCP is reset when bytes are left that the server did not read; TLS is cut short by who
            // has lost patience.
            Ok(0) | Err(_) => {
                self.lasted = Some(self.begun.elapsed());
                self.signs.push(Sign::End);
                Came::End
            }
            Ok(count) => {
                self.buffer.feed(bytes.get(..count).unwrap_or_default());
                Came::Bytes
            }
        }
    }
}

/// What a read gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Came {
    Bytes,
    /// Nothing, for as long as that was waited for.
    Nothing,
    End,
}

/// What a frame refuses, if it does and is not the last one.
const fn refusal_of(frame: &ServerFrame) -> Option<Refusal> {
    match frame {
        ServerFrame::Refused { refusal, .. }
        | ServerFrame::Rejected(refusal)
        | ServerFrame::Answer { answer: Answer::Refused(refusal), .. } => Some(*refusal),
        ServerFrame::Hello(_)
        | ServerFrame::Welcome(_)
        | ServerFrame::Accepted { .. }
        | ServerFrame::Applied { .. }
        | ServerFrame::Answer { .. }
        | ServerFrame::Record(_)
        | ServerFrame::Gap { .. }
        | ServerFrame::Gate { .. }
        | ServerFrame::Reset { .. }
        | ServerFrame::Notice(_)
        | ServerFrame::Close(_)
        | ServerFrame::Ping { .. }
        | ServerFrame::Pong { .. }
        | ServerFrame::Status(_)
        | ServerFrame::Proof { .. }
        | ServerFrame::Parked(_)
        | ServerFrame::Moved(_)
        | ServerFrame::Prepare { .. }
        | ServerFrame::Stay
        | ServerFrame::Generation { .. } => None,
    }
}
