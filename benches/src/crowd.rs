//! One sender and many receivers, in one thread: what both servers are loaded with.
//!
//! The sender is in the room too and gets every record, so a post is delivered to one more than
//! there are receivers. All of it runs in one loop, which also keeps receivers from falling far
//! behind the sender: a server is then measured at fan-out and not at catching up.

use std::time::{Duration, Instant};

use bytes::BytesMut;
use chatcore::address::Address;
use chatcore::codec::encode;
use chatcore::id::Counter;
use chatcore::text::Body;

use crate::failure::Failure;
use crate::frames::{Kind, Kinds, SENDER, post, seq_of};
use crate::login::Guest;
use crate::socket::Socket;
use crate::stream::{Poll, Received, Stream, scratch};

/// What is posted.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    pub(crate) posts: u64,
    /// Posts that may be unacknowledged at once.
    pub(crate) window: u64,
    pub(crate) time_limit: Duration,
}

/// What came of it.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) deliveries: u64,
    pub(crate) elapsed: Duration,
    /// From post to receipt, in ascending order: of the first record of each read.
    pub(crate) latencies: Vec<Duration>,
}

/// Who is measured, as far as the crowd has to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speaks {
    /// The chat protocol: the crowd logs in, and records are numbered.
    Chat,
    /// Frames of the same length and no meaning.
    Nothing,
}

/// The sender, first, and the receivers.
pub(crate) struct Crowd {
    poll: Poll,
    members: Vec<Member>,
    speaks: Speaks,
    kinds: Kinds,
    text: Body,
    /// Posts so far.
    posted: Counter,
}

#[derive(Debug)]
struct Member {
    stream: Stream,
    /// The last record that came.
    seen: u64,
}

impl Crowd {
    /// Connects a sender and so many receivers.
    pub(crate) fn gather(
        address: &Address,
        speaks: Speaks,
        receivers: usize,
        text: &Body,
    ) -> Result<Self, Failure> {
        let poll = Poll::new()?;
        let sockets = match speaks {
            Speaks::Chat => log_in_all(address, receivers)?,
            Speaks::Nothing => connect_all(address, receivers)?,
        };
        let members = (0..).zip(sockets).map(|(token, (socket, rest, seen))| {
            Ok(Member { stream: Stream::new(socket, token, rest, &poll)?, seen })
        });
        let members = members.collect::<Result<_, Failure>>()?;
        let (kinds, text) = (Kinds::new(text), text.clone());
        Ok(Self { poll, members, speaks, kinds, text, posted: Counter::ZERO })
    }

    /// Posts it all and waits until everybody has everything.
    pub(crate) fn run(&mut self, load: &Load) -> Result<Outcome, Failure> {
        let base = self.members.first().map_or(0, |sender| sender.seen);
        let mut run = Run {
            window: load.window,
            posts: load.posts,
            acknowledged: 0,
            base,
            sent: Vec::with_capacity(usize::try_from(load.posts).unwrap_or(0)),
            latencies: Vec::new(),
        };
        let (start, mut ready, mut scratch) = (Instant::now(), Vec::new(), scratch());
        let deadline = start + load.time_limit;
        let mut behind = self.members.len();
        self.refill(&mut run)?;
        while behind > 0 || run.acknowledged < run.posts {
            self.poll.wait(&mut ready, deadline)?;
            for token in &ready {
                if self.read(*token, &mut run, &mut scratch)? == Progress::Complete {
                    behind = behind.saturating_sub(1);
                }
            }
            self.refill(&mut run)?;
        }
        let mut latencies = run.latencies;
        latencies.sort_unstable();
        let deliveries = load.posts * self.members.len() as u64;
        Ok(Outcome { deliveries, elapsed: start.elapsed(), latencies })
    }

    /// Posts as much as the window allows.
    fn refill(&mut self, run: &mut Run) -> Result<(), Failure> {
        let sent = run.sent.len() as u64;
        let count = (run.acknowledged + run.window).min(run.posts) - sent;
        let sender = self.members.first_mut().ok_or(Failure::Ended)?;
        sender.stream.flush(&self.poll)?;
        if count == 0 {
            return Ok(());
        }
        let mut frames = BytesMut::new();
        for _ in 0..count {
            self.posted = self.posted.next();
            encode(&post(self.posted, self.text.as_str()), &mut frames);
        }
        let now = Instant::now();
        run.sent.extend((0..count).map(|_| now));
        sender.stream.send(&self.poll, &frames)?;
        Ok(())
    }

    fn read(&mut self, token: u64, run: &mut Run, scratch: &mut [u8]) -> Result<Progress, Failure> {
        let place = usize::try_from(token).unwrap_or(usize::MAX);
        let Some(Member { stream, seen }) = self.members.get_mut(place) else {
            return Ok(Progress::Partial);
        };
        let (kinds, speaks, before, last) = (self.kinds, self.speaks, *seen, run.base + run.posts);
        let received = stream.read_frames(scratch, |frame| {
            match kinds.of(frame) {
                Kind::Record => {
                    // Numbers are looked at once a read: every read holds the one before it to
                    // account, and the driver costs the same whatever the window.
                    if *seen == before {
                        check(speaks, before + 1, seq_of(frame)?)?;
                        run.clock(before);
                    }
                    *seen += 1;
                }
                Kind::Accepted => run.acknowledged += 1,
                Kind::Other => {}
            }
            Ok(())
        })?;
        if received == Received::End {
            return Err(Failure::Ended);
        }
        if *seen > last {
            return Err(Failure::OutOfOrder { expected: last, found: *seen });
        }
        let complete = *seen == last && before < last;
        Ok(if complete { Progress::Complete } else { Progress::Partial })
    }
}

/// Whether a member got its last record just now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    Partial,
    Complete,
}

/// One load under way.
#[derive(Debug)]
struct Run {
    window: u64,
    posts: u64,
    acknowledged: u64,
    /// The last record before the first post.
    base: u64,
    /// When each post was sent.
    sent: Vec<Instant>,
    latencies: Vec<Duration>,
}

impl Run {
    /// The record after `before` came now.
    fn clock(&mut self, before: u64) {
        let post = usize::try_from(before.saturating_sub(self.base)).unwrap_or(usize::MAX);
        self.latencies.extend(self.sent.get(post).map(Instant::elapsed));
    }
}

const fn check(speaks: Speaks, expected: u64, found: u64) -> Result<(), Failure> {
    match speaks {
        Speaks::Chat if found != expected => Err(Failure::OutOfOrder { expected, found }),
        Speaks::Chat | Speaks::Nothing => Ok(()),
    }
}

/// A socket, what was read of its next frame, and the last record before that.
type Arrival = (Socket, Vec<u8>, u64);

fn connect_all(address: &Address, receivers: usize) -> Result<Vec<Arrival>, Failure> {
    let sockets = (0..=receivers).map(|_| Ok((Socket::connect(address)?, Vec::new(), 0)));
    sockets.collect()
}

fn log_in_all(address: &Address, receivers: usize) -> Result<Vec<Arrival>, Failure> {
    let names = (0..receivers).map(|number| format!("receiver{number}"));
    let mut guests = names
        .chain([SENDER.to_owned()])
        .map(|name| Guest::join(address, &name))
        .collect::<Result<Vec<_>, _>>()?;
    guests.rotate_right(1);
    let base = guests.first().map_or(0, Guest::seen);
    let caught_up = guests.into_iter().map(|guest| {
        let (socket, rest) = guest.catch_up(base)?;
        Ok((socket, rest, base))
    });
    caught_up.collect()
}
