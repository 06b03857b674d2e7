//! How the crowd gets into a chat server: blocking, one after the other.

use std::io::{self, Read as _, Write as _};

use bytes::Bytes;
use chatcore::address::Address;
use chatcore::codec::{FrameBuffer, PREFIX_BYTES, decode, encode_to_bytes};
use chatcore::id::{Attach, Digest, PublicKey, RequestId, Seq, SessionId, Signature};
use chatcore::text::Untrusted;
use chatcore::wire::{
    Answer, ClientFrame, ClientHello, Login, LoginProof, Question, Role, ServerFrame, ServerHello,
    Start, VersionRange,
};
use ed25519_dalek::{Signer as _, SigningKey};

use crate::failure::Failure;
use crate::frames::ROOM;
use crate::socket::Socket;

/// How long the server may take to answer.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);

/// Bytes read at once.
const READ_BYTES: usize = 16 << 10;

/// Somebody who is in the room.
#[derive(Debug)]
pub(crate) struct Guest {
    socket: Socket,
    buffer: FrameBuffer,
    /// The last record it has seen.
    seen: u64,
    /// The last question it asked.
    request: RequestId,
}

impl Guest {
    /// Connects, logs in with a key made from the name, and joins the room of all at its end.
    pub(crate) fn join(address: &Address, name: &str) -> Result<Self, Failure> {
        Self::join_room(address, name, ROOM)
    }

    /// As [`Self::join`], another room.
    pub(crate) fn join_room(address: &Address, name: &str, room: &str) -> Result<Self, Failure> {
        let socket = Socket::connect(address)?;
        socket.set_read_timeout(PATIENCE)?;
        let (buffer, request) = (FrameBuffer::default(), RequestId::ZERO);
        let mut guest = Self { socket, buffer, seen: 0, request };
        let versions = VersionRange::SUPPORTED;
        guest.send(&ClientFrame::Hello(ClientHello {
            role: Role::Client,
            versions,
            features: 0,
        }))?;
        let ServerFrame::Hello(hello) = guest.next()? else {
            return Err(Failure::Protocol("the server did not say hello"));
        };
        guest.send(&ClientFrame::Login(log_in(&hello, guest.socket.channel(), name)))?;
        let answer = guest.next()?;
        if let ServerFrame::Close(refusal) = answer {
            return Err(Failure::Refused(refusal));
        }
        if !matches!(answer, ServerFrame::Welcome(_)) {
            return Err(Failure::Protocol("a log-in was not answered"));
        }
        let question = Question::Join { room: Untrusted::new(room), start: Start::Last(0) };
        guest.send(&ClientFrame::Ask { request: RequestId::ZERO, question })?;
        loop {
            let answer = guest.next()?;
            if let ServerFrame::Answer { answer: Answer::Joined(joined), .. } = answer {
                guest.seen = joined.after.get();
                return Ok(guest);
            }
            if let ServerFrame::Close(refusal)
            | ServerFrame::Answer { answer: Answer::Refused(refusal), .. } = answer
            {
                return Err(Failure::Refused(refusal));
            }
        }
    }

    /// The last record it has seen.
    pub(crate) const fn seen(&self) -> u64 {
        self.seen
    }

    /// Reads up to this record, and gives the socket and what was read beyond.
    pub(crate) fn catch_up(mut self, seq: u64) -> Result<(Socket, Vec<u8>), Failure> {
        while self.seen < seq {
            if let ServerFrame::Record(record) = self.next()? {
                self.seen = record.seq.get();
            }
        }
        let mut rest = Vec::new();
        while let Some(frame) = self.next_whole()? {
            match decode(&frame) {
                Ok(ServerFrame::Record(_)) | Err(_) => {
                    return Err(Failure::Protocol("a record came before anything was posted"));
                }
                Ok(_) => {}
            }
        }
        rest.extend_from_slice(self.buffer.as_mut());
        Ok((self.socket, rest))
    }

    /// The socket and what was read beyond the answer to joining, whatever that is.
    pub(crate) fn into_parts(mut self) -> (Socket, Vec<u8>) {
        let rest = self.buffer.as_mut().to_vec();
        (self.socket, rest)
    }

    /// Asks for so many records before one, or the newest; how many came.
    pub(crate) fn page(&mut self, before: Option<Seq>, limit: u16) -> Result<usize, Failure> {
        let question = Question::History { room: Untrusted::new(ROOM), before, limit };
        self.request = self.request.next();
        let asked = self.request;
        self.send(&ClientFrame::Ask { request: asked, question })?;
        loop {
            if let ServerFrame::Answer { request, answer } = self.next()?
                && request == asked
            {
                return match answer {
                    Answer::History { records, .. } => Ok(records.len()),
                    Answer::Refused(refusal) => Err(Failure::Refused(refusal)),
                    Answer::Joined(_)
                    | Answer::Parted { .. }
                    | Answer::Users(_)
                    | Answer::Rooms { .. }
                    | Answer::User(_) => {
                        Err(Failure::Protocol("a question was answered with something else"))
                    }
                };
            }
        }
    }

    fn send(&mut self, frame: &ClientFrame) -> io::Result<()> {
        self.socket.write_all(&encode_to_bytes(frame))?;
        self.socket.flush()
    }

    fn next(&mut self) -> Result<ServerFrame, Failure> {
        loop {
            if let Some(frame) = self.next_whole()? {
                return decode(&frame).map_err(|_| Failure::Protocol("a frame does not decode"));
            }
            let mut bytes = [0; READ_BYTES];
            match self.socket.read(&mut bytes)? {
                0 => return Err(Failure::Ended),
                count => self.buffer.feed(bytes.get(..count).unwrap_or_default()),
            }
        }
    }

    fn next_whole(&mut self) -> Result<Option<Bytes>, Failure> {
        self.buffer.next_frame().map_err(|_| Failure::Protocol("a length prefix is wrong"))
    }
}

const _: () = assert!(READ_BYTES > PREFIX_BYTES, "a read must make progress");

/// The key that everybody of a name has here.
pub(crate) fn key_of(name: &str) -> SigningKey {
    let mut seed = [0; 32];
    seed.iter_mut().zip(name.bytes()).for_each(|(place, byte)| *place = byte);
    SigningKey::from_bytes(&seed)
}

/// The session that a key has here.
pub(crate) fn session_of(key: &SigningKey) -> SessionId {
    let mut session = [0; 16];
    session.copy_from_slice(&key.verifying_key().as_bytes()[..16]);
    SessionId::new(session)
}

/// The proof that one is who the key of a name says, on one connection.
pub(crate) fn log_in(hello: &ServerHello, channel: Option<Digest>, name: &str) -> Login {
    log_in_by(&key_of(name), hello, channel, name)
}

/// As [`log_in`], with a key that need not be that of the name.
pub(crate) fn log_in_by(
    key: &SigningKey,
    hello: &ServerHello,
    channel: Option<Digest>,
    name: &str,
) -> Login {
    let public = PublicKey::new(key.verifying_key().to_bytes());
    let (session, attach) = (session_of(key), Attach::ZERO.next());
    let proof = LoginProof {
        nonce: hello.nonce,
        server_key: hello.server_key,
        log_id: hello.log_id,
        generation: hello.generation,
        channel,
        session,
        attach,
        name,
    };
    let signature = Signature::new(key.sign(&proof.to_bytes()).to_bytes());
    Login { name: Untrusted::new(name), key: public, session, attach, signature }
}
