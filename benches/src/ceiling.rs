//! The ceiling: the least a server on this machine can spend for the same bytes.
//!
//! One thread, one epoll, non-blocking sockets and no protocol: whatever a wake-up reads from the
//! sender goes to everybody as one write each, of frames as long as a chat server's records, and
//! to the sender also as one acknowledgement a post. It keeps nothing, checks nothing, knows
//! nobody.

use std::io;
use std::time::{Duration, Instant};

use chatcore::text::Body;

use crate::failure::Failure;
use crate::frames::{typical_accepted, typical_record};
use crate::socket::Listener;
use crate::stream::{Poll, Received, Stream, is_for_later, scratch};

/// How long it serves at most: longer than any run takes.
const TIME_LIMIT: Duration = Duration::from_mins(5);

/// The token of the listener; connections count up from zero, the sender first.
const LISTENER: u64 = u64::MAX;

/// The token of the sender: whoever connects first.
const SENDER: u64 = 0;

/// Serves until the sender goes.
pub(crate) fn serve(listener: &Listener, text: &Body) -> Result<(), Failure> {
    listener.make_nonblocking()?;
    let mut ceiling = Ceiling::new(text)?;
    ceiling.poll.add(listener, LISTENER)?;
    let (deadline, mut ready) = (Instant::now() + TIME_LIMIT, Vec::new());
    loop {
        ceiling.poll.wait(&mut ready, deadline)?;
        for token in &ready {
            match *token {
                LISTENER => ceiling.accept(listener)?,
                token => {
                    if ceiling.serve(token)? == Received::End {
                        return Ok(());
                    }
                }
            }
        }
    }
}

struct Ceiling {
    poll: Poll,
    streams: Vec<Stream>,
    scratch: Vec<u8>,
    record: Vec<u8>,
    accepted: Vec<u8>,
    /// What one wake-up writes; kept so that it is allocated once.
    out: Vec<u8>,
}

impl Ceiling {
    fn new(text: &Body) -> io::Result<Self> {
        Ok(Self {
            poll: Poll::new()?,
            streams: Vec::new(),
            scratch: scratch(),
            record: typical_record(text).to_vec(),
            accepted: typical_accepted().to_vec(),
            out: Vec::new(),
        })
    }

    fn accept(&mut self, listener: &Listener) -> io::Result<()> {
        loop {
            let socket = match listener.accept() {
                Ok(socket) => socket,
                Err(error) if is_for_later(&error) => return Ok(()),
                Err(error) => return Err(error),
            };
            let token = self.streams.len() as u64;
            self.streams.push(Stream::new(socket, token, Vec::new(), &self.poll)?);
        }
    }

    fn serve(&mut self, token: u64) -> Result<Received, Failure> {
        let place = usize::try_from(token).unwrap_or(usize::MAX);
        let Some(stream) = self.streams.get_mut(place) else { return Ok(Received::Open) };
        stream.flush(&self.poll)?;
        let mut posts = 0;
        let received = stream.read_frames(&mut self.scratch, |_| {
            posts += 1;
            Ok(())
        })?;
        if token == SENDER && posts > 0 {
            self.fan_out(posts)?;
        }
        Ok(received)
    }

    fn fan_out(&mut self, posts: usize) -> io::Result<()> {
        self.out.clear();
        (0..posts).for_each(|_| self.out.extend_from_slice(&self.record));
        let (sender, receivers) = self.streams.split_first_mut().expect("the sender is here");
        for receiver in receivers {
            receiver.send(&self.poll, &self.out)?;
        }
        (0..posts).for_each(|_| self.out.extend_from_slice(&self.accepted));
        sender.send(&self.poll, &self.out)
    }
}
