//! People of a town who talk at a steady rate, and what becomes of every message: it has to reach
//! everybody in its room who talks, once and in order.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use chatcore::wire::{Record, RecordBody};

use crate::failure::Failure;
use crate::senders::percentile;
use crate::town::{News, Town};

/// How long the last messages may take to be shown.
const LAST_MESSAGES: Duration = Duration::from_secs(20);

/// How much is said.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// Messages a second, of all together, each of the talkers in turn.
    pub(crate) rate: u32,
    pub(crate) text_bytes: usize,
}

/// What came of it.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) posts: u64,
    /// From when a post was due to when it was shown to one reader, in ascending order. A post that is
    /// late because the ones before it took long is thus late, too.
    pub(crate) latencies: Vec<Duration>,
    /// Connections that broke of people in their rooms, whether they talk or not.
    pub(crate) losses: u64,
}

/// People who talk.
#[derive(Debug)]
pub(crate) struct Conversation {
    pace: Pace,
    talkers: Vec<Talker>,
    /// Whose name is whose.
    authors: BTreeMap<String, usize>,
    /// Who is who in town.
    readers: BTreeMap<usize, usize>,
    /// How many talkers there are in each room.
    rooms: BTreeMap<usize, u64>,
    outstanding: u64,
    latencies: Vec<Duration>,
    losses: u64,
}

/// Somebody who is to talk.
#[derive(Clone, Debug)]
pub(crate) struct Resident {
    /// Their number in town.
    pub(crate) person: usize,
    pub(crate) name: String,
    pub(crate) room: usize,
}

#[derive(Debug)]
struct Talker {
    person: usize,
    room: usize,
    /// When each of their posts was due.
    due: Vec<Instant>,
    /// How many posts of each talker came to them.
    came: BTreeMap<usize, usize>,
    /// The last record that came.
    seq: Option<u64>,
}

impl Conversation {
    /// Of people who are in their rooms.
    pub(crate) fn among(people: &[Resident], pace: Pace) -> Self {
        let mut rooms = BTreeMap::new();
        people.iter().for_each(|it| *rooms.entry(it.room).or_default() += 1);
        let talker = |Resident { person, room, .. }: &Resident| Talker {
            person: *person,
            room: *room,
            due: Vec::new(),
            came: BTreeMap::new(),
            seq: None,
        };
        let names = people.iter().map(|it| it.name.clone());
        Self {
            pace,
            talkers: people.iter().map(talker).collect(),
            authors: names.zip(0..).collect(),
            readers: people.iter().map(|it| it.person).zip(0..).collect(),
            rooms,
            outstanding: 0,
            latencies: Vec::new(),
            losses: 0,
        }
    }

    /// Has them talk as long as it goes on, and waits until everything is shown to everybody.
    pub(crate) fn run(
        &mut self,
        town: &mut Town,
        mut goes_on: impl FnMut() -> bool,
    ) -> Result<Outcome, Failure> {
        let (begun, mut posts) = (Instant::now(), 0_u64);
        while goes_on() {
            let due = begun + Duration::from_secs(posts) / self.pace.rate.max(1);
            self.listen(town, due.saturating_duration_since(Instant::now()))?;
            self.post(town, posts, due)?;
            posts += 1;
        }
        let deadline = Instant::now() + LAST_MESSAGES;
        while self.outstanding > 0 {
            if Instant::now() >= deadline {
                return Err(Failure::Missing { deliveries: self.outstanding });
            }
            town.turn(deadline, &mut |who, news| self.see(who, news))?;
        }
        let mut latencies = std::mem::take(&mut self.latencies);
        latencies.sort_unstable();
        let losses = std::mem::take(&mut self.losses);
        Ok(Outcome { posts, latencies, losses })
    }

    /// Has them listen for so long, and all others in town, too.
    pub(crate) fn listen(&mut self, town: &mut Town, time: Duration) -> Result<(), Failure> {
        let until = Instant::now() + time;
        while Instant::now() < until {
            town.turn(until, &mut |who, news| self.see(who, news))?;
        }
        Ok(())
    }

    fn post(&mut self, town: &mut Town, number: u64, due: Instant) -> Result<(), Failure> {
        let place = usize::try_from(number).unwrap_or(0).checked_rem(self.talkers.len());
        let talker = place.and_then(|place| self.talkers.get_mut(place)).ok_or(Failure::Ended)?;
        talker.due.push(due);
        let text = format!("{:<1$}", talker.due.len(), self.pace.text_bytes);
        self.outstanding += self.rooms.get(&talker.room).copied().unwrap_or_default();
        let person = talker.person;
        town.say(person, &text, &mut |who, news| self.see(who, news))
    }

    /// Takes note of what happened in town.
    fn see(&mut self, who: usize, news: News<'_>) -> Result<(), Failure> {
        match news {
            News::Lost => self.losses += 1,
            News::Came(record) => return self.check(who, record),
            News::Shown(record) => self.clock(who, record),
            News::LoggedIn | News::Follows | News::Busy | News::Missed => {}
        }
        Ok(())
    }

    /// A record must follow the one before, and a text be the next one of who wrote it.
    fn check(&mut self, who: usize, record: &Record) -> Result<(), Failure> {
        let place = self.readers.get(&who).copied();
        let Some(reader) = place.and_then(|place| self.talkers.get_mut(place)) else {
            return Ok(());
        };
        let found = record.seq.get();
        if let Some(before) = reader.seq.replace(found)
            && found != before + 1
        {
            return Err(Failure::OutOfOrder { expected: before + 1, found });
        }
        let Some((author, number)) = post_of(&self.authors, record) else { return Ok(()) };
        let before = reader.came.entry(author).or_default();
        *before += 1;
        if *before != number {
            return Err(Failure::WrongText { expected: *before, found: number });
        }
        Ok(())
    }

    fn clock(&mut self, who: usize, record: &Record) {
        let post = post_of(&self.authors, record).filter(|_| self.readers.contains_key(&who));
        let Some((author, number)) = post else { return };
        let due = self.talkers.get(author).and_then(|talker| talker.due.get(number - 1));
        self.latencies.extend(due.map(Instant::elapsed));
        self.outstanding = self.outstanding.saturating_sub(1);
    }
}

/// Whose post it is, and their how many-th.
fn post_of(authors: &BTreeMap<String, usize>, record: &Record) -> Option<(usize, usize)> {
    let RecordBody::Post { from, text } = &record.body else { return None };
    let number = text.as_str().trim_end().parse().ok().filter(|number| *number > 0)?;
    Some((*authors.get(from.as_str())?, number))
}

impl Outcome {
    /// How many messages there were, how often they were shown, and how soon in milliseconds: half of
    /// them, all but the slowest percent, and all.
    pub(crate) fn row(&self) -> String {
        let [half, slow, slowest] = [50, 99, 100].map(|percent| self.percentile(percent));
        let (posts, shown) = (self.posts, self.latencies.len());
        format!("{posts:>10} {shown:>8} {half:>8.2} {slow:>8.2} {slowest:>8.2}")
    }

    /// The latency that so many percent do not exceed, in milliseconds.
    pub(crate) fn percentile(&self, percent: usize) -> f64 {
        percentile(&self.latencies, percent)
    }
}
