//! Non-blocking sockets under epoll, and frames told apart by their length prefix alone.

use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use chatcore::codec::PREFIX_BYTES;
use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};

use crate::failure::Failure;
use crate::socket::Socket;

/// Bytes that one read takes at most: several windows of posts.
const READ_BYTES: usize = 256 << 10;

/// Events that one wait takes at most.
const EVENTS: usize = 256;

/// Where reads go before their frames are counted: one for all streams of a thread.
pub(crate) fn scratch() -> Vec<u8> {
    vec![0; READ_BYTES]
}

/// An epoll instance.
pub(crate) struct Poll {
    epoll: OwnedFd,
    events: Vec<Event>,
}

impl Poll {
    pub(crate) fn new() -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        Ok(Self { epoll, events: Vec::with_capacity(EVENTS) })
    }

    /// Reports `source` as `token` while it can be read.
    pub(crate) fn add(&self, source: impl AsFd, token: u64) -> io::Result<()> {
        self.add_for(source, token, EventFlags::IN)
    }

    fn add_for(&self, source: impl AsFd, token: u64, flags: EventFlags) -> io::Result<()> {
        epoll::add(&self.epoll, source, EventData::new_u64(token), flags)?;
        Ok(())
    }

    fn set_interest(&self, source: &Socket, token: u64, flags: EventFlags) -> io::Result<()> {
        epoll::modify(&self.epoll, source, EventData::new_u64(token), flags)?;
        Ok(())
    }

    /// Waits until something can be read or written, and puts its tokens into `ready`.
    ///
    /// # Errors
    /// [`Failure::TimeLimit`] at `deadline`.
    pub(crate) fn wait(&mut self, ready: &mut Vec<u64>, deadline: Instant) -> Result<(), Failure> {
        if Instant::now() >= deadline {
            return Err(Failure::TimeLimit);
        }
        self.wait_until(ready, deadline)
    }

    /// As [`Self::wait`], but that nothing happens until then is no failure.
    pub(crate) fn wait_until(&mut self, ready: &mut Vec<u64>, at: Instant) -> Result<(), Failure> {
        ready.clear();
        let left = at.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).map_err(|_| Failure::TimeLimit)?;
        self.events.clear();
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        ready.extend(self.events.iter().map(|event| event.data.u64()));
        Ok(())
    }
}

/// What a read gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Received {
    /// Something, or nothing for now.
    Open,
    /// The other side is gone.
    End,
}

/// A non-blocking connection that reads frames and keeps what the socket does not take yet.
#[derive(Debug)]
pub(crate) struct Stream {
    socket: Socket,
    token: u64,
    /// The beginning of a frame whose end has not come.
    partial: Vec<u8>,
    /// What is still to be written.
    backlog: Vec<u8>,
}

impl Stream {
    /// Puts a socket under `poll`; `partial` is what was read of its next frame.
    pub(crate) fn new(
        socket: Socket,
        token: u64,
        partial: Vec<u8>,
        poll: &Poll,
    ) -> io::Result<Self> {
        socket.make_nonblocking()?;
        poll.add(&socket, token)?;
        Ok(Self { socket, token, partial, backlog: Vec::new() })
    }

    /// Puts a socket that is being connected under `poll`: it is reported once that is over.
    pub(crate) fn connecting(socket: Socket, token: u64, poll: &Poll) -> io::Result<Self> {
        poll.add_for(&socket, token, EventFlags::OUT)?;
        Ok(Self { socket, token, partial: Vec::new(), backlog: Vec::new() })
    }

    /// Connecting is over: from here on it reads.
    pub(crate) fn connected(&self, poll: &Poll) -> io::Result<()> {
        self.socket.take_error()?;
        poll.set_interest(&self.socket, self.token, EventFlags::IN)
    }

    /// Writes what the socket takes and keeps the rest.
    pub(crate) fn send(&mut self, poll: &Poll, bytes: &[u8]) -> io::Result<()> {
        if !self.backlog.is_empty() {
            self.backlog.extend_from_slice(bytes);
            return Ok(());
        }
        let written = write_some(&mut self.socket, bytes)?;
        if let Some(rest @ [_, ..]) = bytes.get(written..) {
            self.backlog.extend_from_slice(rest);
            poll.set_interest(&self.socket, self.token, EventFlags::IN | EventFlags::OUT)?;
        }
        Ok(())
    }

    /// Writes more of what was kept, if anything was.
    pub(crate) fn flush(&mut self, poll: &Poll) -> io::Result<()> {
        if self.backlog.is_empty() {
            return Ok(());
        }
        let written = write_some(&mut self.socket, &self.backlog)?;
        self.backlog.drain(..written);
        if self.backlog.is_empty() {
            poll.set_interest(&self.socket, self.token, EventFlags::IN)?;
        }
        Ok(())
    }

    /// Reads once and shows every whole frame, without its prefix, to `each`.
    pub(crate) fn read_frames(
        &mut self,
        scratch: &mut [u8],
        mut each: impl FnMut(&[u8]) -> Result<(), Failure>,
    ) -> Result<Received, Failure> {
        let kept = self.partial.len();
        let (head, tail) =
            scratch.split_at_mut_checked(kept).ok_or(Failure::Protocol("a frame is too long"))?;
        head.copy_from_slice(&self.partial);
        let count = match self.socket.read(tail) {
            Ok(0) => return Ok(Received::End),
            Ok(count) => count,
            Err(error) if is_for_later(&error) => return Ok(Received::Open),
            Err(error) => return Err(error.into()),
        };
        let mut rest = scratch.get(..kept + count).unwrap_or_default();
        while let Some((frame, after)) = split_frame(rest) {
            each(frame)?;
            rest = after;
        }
        self.partial.clear();
        self.partial.extend_from_slice(rest);
        Ok(Received::Open)
    }
}

/// Splits the first whole frame off, without its prefix.
fn split_frame(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (prefix, rest) = bytes.split_first_chunk::<PREFIX_BYTES>()?;
    rest.split_at_checked(usize::try_from(u32::from_be_bytes(*prefix)).ok()?)
}

fn write_some(socket: &mut Socket, bytes: &[u8]) -> io::Result<usize> {
    match socket.write(bytes) {
        Err(error) if is_for_later(&error) => Ok(0),
        written => written,
    }
}

/// Whether the same call may succeed later.
pub(crate) fn is_for_later(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
