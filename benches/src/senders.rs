//! Many who post, in one thread: each has so many posts unacknowledged, and posts again when an
//! acknowledgement comes. Everybody is sent every record of the room that they are in.

use std::time::{Duration, Instant};

use bytes::BytesMut;
use chatcore::address::Address;
use chatcore::codec::encode;
use chatcore::id::Counter;
use chatcore::text::Body;

use crate::failure::Failure;
use crate::frames::{Kind, Kinds, ROOM, post_to};
use crate::login::Guest;
use crate::stream::{Poll, Received, Stream, scratch};

/// How long the last acknowledgements may take.
const LAST_ANSWERS: Duration = Duration::from_secs(30);

/// When to stop posting.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Until {
    /// When the time is up.
    Time(Duration),
    /// When all together posted so much.
    Posts(u64),
}

/// Where everybody posts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rooms {
    /// In the room of all, so that each post is also sent to all.
    One,
    /// In a room of their own.
    Own,
}

/// What came of it.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) acknowledged: u64,
    pub(crate) elapsed: Duration,
    /// From a post to its acknowledgement, in ascending order.
    pub(crate) latencies: Vec<Duration>,
}

pub(crate) struct Senders {
    poll: Poll,
    members: Vec<Member>,
    kinds: Kinds,
    text: Body,
    scratch: Vec<u8>,
}

struct Member {
    stream: Stream,
    room: String,
    posted: Counter,
    /// When it posted what is unacknowledged, oldest first.
    waiting: std::collections::VecDeque<Instant>,
}

impl Senders {
    /// Connects so many.
    pub(crate) fn gather(
        address: &Address,
        count: usize,
        rooms: Rooms,
        text: &Body,
    ) -> Result<Self, Failure> {
        let poll = Poll::new()?;
        let mut members = Vec::with_capacity(count);
        for number in 0..count {
            let (name, room) = match rooms {
                Rooms::One => (format!("sender{number}"), ROOM.to_owned()),
                Rooms::Own => (format!("sender{number}"), format!("room{number}")),
            };
            let (socket, rest) = Guest::join_room(address, &name, &room)?.into_parts();
            let token = u64::try_from(number).unwrap_or(u64::MAX);
            let stream = Stream::new(socket, token, rest, &poll)?;
            members.push(Member { stream, room, posted: Counter::ZERO, waiting: [].into() });
        }
        let (kinds, text) = (Kinds::new(text), text.clone());
        Ok(Self { poll, members, kinds, text, scratch: scratch() })
    }

    /// Has everybody post with a window of so many posts, and waits for the last acknowledgement.
    pub(crate) fn run(&mut self, until: Until, window: usize) -> Result<Outcome, Failure> {
        let begun = Instant::now();
        let mut run = Run { until, begun, posted: 0, latencies: Vec::new() };
        for member in &mut self.members {
            member.post(&self.poll, &self.text, window, &mut run)?;
        }
        let mut ready = Vec::new();
        while self.members.iter().any(|member| !member.waiting.is_empty()) {
            let deadline = Instant::now() + LAST_ANSWERS;
            self.poll.wait(&mut ready, deadline)?;
            for token in &ready {
                self.serve(*token, window, &mut run)?;
            }
        }
        let elapsed = begun.elapsed();
        let mut latencies = run.latencies;
        latencies.sort_unstable();
        Ok(Outcome { acknowledged: run.posted, elapsed, latencies })
    }

    fn serve(&mut self, token: u64, window: usize, run: &mut Run) -> Result<(), Failure> {
        let place = usize::try_from(token).unwrap_or(usize::MAX);
        let Some(member) = self.members.get_mut(place) else { return Ok(()) };
        member.stream.flush(&self.poll)?;
        let (kinds, waiting) = (self.kinds, &mut member.waiting);
        let received = member.stream.read_frames(&mut self.scratch, |frame| {
            match kinds.of(frame) {
                Kind::Accepted => {
                    let sent = waiting.pop_front();
                    let sent = sent.ok_or(Failure::Protocol("an answer came to no post"))?;
                    run.latencies.push(sent.elapsed());
                }
                Kind::Record => {}
                Kind::Other => crate::frames::expect_no_refusal(frame)?,
            }
            Ok(())
        })?;
        if received == Received::End {
            return Err(Failure::Ended);
        }
        member.post(&self.poll, &self.text, window, run)
    }
}

impl Member {
    /// Posts what the window allows.
    fn post(
        &mut self,
        poll: &Poll,
        text: &Body,
        window: usize,
        run: &mut Run,
    ) -> Result<(), Failure> {
        let mut frames = BytesMut::new();
        while self.waiting.len() < window && run.goes_on() {
            self.posted = self.posted.next();
            encode(&post_to(&self.room, self.posted, text.as_str()), &mut frames);
            self.waiting.push_back(Instant::now());
            run.posted += 1;
        }
        if !frames.is_empty() {
            self.stream.send(poll, &frames)?;
        }
        Ok(())
    }
}

/// One load under way.
struct Run {
    until: Until,
    begun: Instant,
    posted: u64,
    latencies: Vec<Duration>,
}

impl Run {
    fn goes_on(&self) -> bool {
        match self.until {
            Until::Time(time) => self.begun.elapsed() < time,
            Until::Posts(posts) => self.posted < posts,
        }
    }
}

impl Outcome {
    /// The latency that so many percent do not exceed, in milliseconds.
    pub(crate) fn percentile(&self, percent: usize) -> f64 {
        percentile(&self.latencies, percent)
    }
}

/// Of spans in ascending order, the one that so many percent do not exceed, in milliseconds.
pub(crate) fn percentile(spans: &[Duration], percent: usize) -> f64 {
    let place = spans.len().saturating_sub(1) * percent / 100;
    spans.get(place).copied().unwrap_or_default().as_secs_f64() * 1e3
}
