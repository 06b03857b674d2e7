//! The rules: each line of each stream is held against the stream so far and against what the
//! others were shown; what must be there is looked for at the end.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{self, BufRead};

use crate::event::{
    Connected, Content, Event, Failed, Gap, Gate, Place, Post, Record, Reset, Sent, Users,
};
use crate::life::Standing;
use crate::posts::PostStanding;
use crate::stream::Stream;
use crate::verdict::Verdict;

/// Takes streams, and judges them together.
#[derive(Debug, Default)]
pub struct Judge {
    log: HashMap<Place, Shown>,
    posts: BTreeMap<String, KnownPost>,
    acknowledged: BTreeMap<String, Acknowledged>,
    refused: BTreeSet<String>,
    /// The host that everybody has to be connected to, if that is known.
    server: Option<String>,
    /// The last life of each room that anybody knows of.
    newest: BTreeMap<String, u64>,
    streams: Vec<Stream>,
    found: Verdict,
}

/// A record as it was first shown to anybody.
#[derive(Debug, PartialEq, Eq)]
struct Shown {
    content: Content,
    at: Option<String>,
}

/// A post that anybody was shown.
#[derive(Debug)]
struct KnownPost {
    key: usize,
    place: Place,
}

#[derive(Debug)]
struct Acknowledged {
    stream: String,
    kills: u64,
    room: String,
    incarnation: u64,
    seq: Option<u64>,
}

impl Judge {
    /// Condemns whoever says it is connected to another host than `server`.
    pub fn expect_server(&mut self, server: String) {
        self.server = Some(server);
    }

    /// Reads what one user was shown, in all runs of its client.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(&mut self, name: &str, mut lines: impl BufRead) -> io::Result<()> {
        let mut stream = Stream::new(name.to_owned());
        let mut line = Vec::new();
        let mut broken: Option<u64> = None;
        for number in 1_u64.. {
            line.clear();
            if lines.read_until(b'\n', &mut line)? == 0 {
                break;
            }
            let event = str::from_utf8(&line).ok().and_then(|line| Event::parse(line).ok());
            if let Some(number) = broken.take() {
                self.take_broken(&stream, number, event.as_ref());
            }
            match event {
                Some(event) => self.take(&mut stream, event),
                None => broken = Some(number),
            }
        }
        if let Some(number) = broken {
            self.take_broken(&stream, number, None);
        }
        self.found.streams = self.found.streams.saturating_add(1);
        self.streams.push(stream);
        Ok(())
    }

    /// A killed client may leave half a line; anything else that is no event is a fault.
    fn take_broken(&mut self, stream: &Stream, number: u64, after: Option<&Event>) {
        if matches!(after, Some(Event::Killed)) {
            self.found.torn = self.found.torn.saturating_add(1);
        } else {
            self.found.other.add(|| format!("{}: line {number} is no event", stream.name));
        }
    }

    fn take(&mut self, stream: &mut Stream, event: Event) {
        match event {
            Event::Record(record) => self.take_record(stream, record),
            Event::Gate(gate) => self.take_gate(stream, &gate),
            Event::Users(users) => self.take_users(stream, &users),
            Event::Gap(gap) => self.take_gap(stream, &gap),
            Event::Reset(reset) => self.take_reset(stream, &reset),
            Event::Sent(sent) => self.take_sent(stream, sent),
            Event::Error(failed) => self.take_failed(failed),
            Event::Connected(connected) => self.take_connected(stream, &connected),
            Event::Killed => {
                stream.kill();
                self.found.kills = self.found.kills.saturating_add(1);
            }
            Event::Other => {}
        }
    }

    fn take_record(&mut self, stream: &mut Stream, record: Record) {
        let Record { place, content, at } = record;
        let Self { found, .. } = self;
        found.records = found.records.saturating_add(1);
        let (name, spot) = (stream.name.clone(), place.to_string());
        let Some(life) = stream.enter(&place.room, place.incarnation) else {
            return found
                .reordered
                .add(|| format!("{name}: {spot} after a later life of the room"));
        };
        if !life.is_open() {
            found.other.add(|| format!("{name}: {spot} before the gate was open"));
        }
        let standing = life.show(place.seq);
        match standing {
            Standing::Ahead => {}
            Standing::Late => found.reordered.add(|| format!("{name}: {spot} comes late")),
            Standing::TooOld => {
                found.reordered.add(|| format!("{name}: {spot} is before where the reader began"));
            }
            Standing::Repeated => found.doubled.add(|| format!("{name}: {spot} twice")),
            Standing::ShownAgain => found.shown_again.add(|| format!("{name}: {spot}")),
        }
        if let (Standing::Ahead, Some(at)) = (standing, &at)
            && !life.tell_time(at)
        {
            found.other.add(|| format!("{name}: {spot} goes back in time to {at}"));
        }
        if matches!(standing, Standing::Ahead | Standing::Late) {
            self.take_post(stream, &place, &content);
        }
        self.compare(stream, place, Shown { content, at });
    }

    /// Holds a message against the posts before it.
    fn take_post(&mut self, stream: &mut Stream, place: &Place, content: &Content) {
        let Content::Message { from, text } = content else { return };
        let Some(post) = Post::of(text) else { return };
        let Self { posts, found, .. } = self;
        if post.sender != from {
            found.other.add(|| format!("{}: {place} is of {from}: {text:?}", stream.name));
            return;
        }
        let key = posts.get(post.id).map_or(posts.len(), |known| known.key);
        posts.entry(post.id.to_owned()).or_insert_with(|| KnownPost { key, place: place.clone() });
        let name = stream.name.clone();
        let Some(room) = stream.rooms.get_mut(&place.room) else { return };
        match room.posts.show(key, post) {
            PostStanding::New => {}
            PostStanding::Doubled => {
                found.doubled.add(|| format!("{name}: {} again at {place}", post.id));
            }
            PostStanding::Overtaken { by } => {
                found.reordered.add(|| format!("{name}: {} after number {by}", post.id));
            }
        }
    }

    /// Everybody is shown the same.
    fn compare(&mut self, stream: &Stream, place: Place, shown: Shown) {
        self.note_life(&place.room, place.incarnation);
        match self.log.get(&place) {
            None => {
                self.log.insert(place, shown);
            }
            Some(first) if *first == shown => {}
            Some(first) => self.found.other.add(|| {
                let name = &stream.name;
                format!("{name}: {place} is {shown:?}, others were shown {first:?}")
            }),
        }
    }

    fn take_gate(&mut self, stream: &mut Stream, gate: &Gate) {
        let Gate { room, incarnation, open } = gate;
        self.note_life(room, *incarnation);
        let name = stream.name.clone();
        let Some(life) = stream.enter(room, *incarnation) else {
            let example = || format!("{name}: gate of {room} of an earlier life");
            return self.found.reordered.add(example);
        };
        if !life.tell_gate(*open) {
            self.found.other.add(|| format!("{name}: the open gate of {room} closed"));
        }
    }

    fn take_users(&mut self, stream: &Stream, users: &Users) {
        let Users { room } = users;
        if !stream.current(room).is_some_and(crate::life::Life::is_open) {
            self.found
                .other
                .add(|| format!("{}: users of {room} while its gate is closed", stream.name));
        }
    }

    fn take_gap(&mut self, stream: &mut Stream, gap: &Gap) {
        let Gap { room, incarnation, from, to } = gap;
        let name = stream.name.clone();
        let told = stream.enter(room, *incarnation).is_some_and(|life| life.tell_gap(*from, *to));
        if !told {
            self.found.other.add(|| format!("{name}: gap {from} to {to} was not asked for"));
        }
    }

    fn take_reset(&mut self, stream: &mut Stream, reset: &Reset) {
        let Reset { room, incarnation } = reset;
        self.note_life(room, *incarnation);
        let known = stream.rooms.get(room).and_then(|room| room.lives.last_key_value());
        if known.is_some_and(|(known, _)| known >= incarnation) {
            let name = &stream.name;
            self.found.other.add(|| format!("{name}: reset of {room} to a life it had before"));
        }
        stream.enter(room, *incarnation);
    }

    fn take_sent(&mut self, stream: &Stream, sent: Sent) {
        let Sent { room, id, incarnation, seq } = sent;
        // A private message is in no room, and a command that is no post leaves no record.
        let (Some(room), Some(incarnation), Some(_)) = (room, incarnation, Post::of(&id)) else {
            return;
        };
        let closed = !stream.current(&room).is_some_and(crate::life::Life::is_open);
        if seq.is_some() && closed {
            let name = &stream.name;
            self.found.other.add(|| format!("{name}: {id} has a place while its gate is closed"));
        }
        let (stream, kills) = (stream.name.clone(), stream.kills);
        let now = Acknowledged { stream, kills, room, incarnation, seq };
        let Some(before) = self.acknowledged.insert(id.clone(), now) else { return };
        let Some(now) = self.acknowledged.get(&id) else { return };
        // Who is killed between showing an acknowledgement and noting it shows it again.
        if before.stream != now.stream || before.kills == now.kills {
            self.found.other.add(|| format!("{}: {id} is acknowledged twice", now.stream));
        }
    }

    fn take_failed(&mut self, failed: Failed) {
        match failed {
            // Nobody knows what became of it.
            Failed { line: Some(_), .. } => {}
            Failed { id, line: None } => {
                self.refused.extend(id.filter(|id| Post::of(id).is_some()));
            }
        }
    }

    fn take_connected(&mut self, stream: &Stream, connected: &Connected) {
        let Connected { server } = connected;
        if self.server.as_ref().is_some_and(|expected| expected != server) {
            let name = &stream.name;
            self.found.other.add(|| format!("{name}: connected to {server:?}"));
        }
    }

    fn note_life(&mut self, room: &str, incarnation: u64) {
        match self.newest.get_mut(room) {
            Some(newest) => *newest = incarnation.max(*newest),
            None => {
                self.newest.insert(room.to_owned(), incarnation);
            }
        }
    }

    /// Looks for what must be there, and gives the verdict.
    pub fn verdict(mut self) -> Verdict {
        self.count_holes();
        self.look_for_refused();
        let acknowledged = std::mem::take(&mut self.acknowledged);
        for (id, acknowledged) in &acknowledged {
            self.look_for(id, acknowledged);
        }
        let count = |length| u64::try_from(length).unwrap_or(u64::MAX);
        self.found.acknowledged = count(acknowledged.len());
        self.found.refused = count(self.refused.len());
        self.found.lives = self.newest.values().fold(0, |sum, lives| sum.saturating_add(*lives));
        self.found
    }

    fn count_holes(&mut self) {
        for stream in &self.streams {
            for (name, room) in &stream.rooms {
                let lives = room.lives.values();
                for (first, last) in lives.flat_map(crate::life::Life::holes) {
                    let count = last.saturating_sub(first).saturating_add(1);
                    let reader = &stream.name;
                    let example = || format!("{reader}: {name} records {first} to {last}");
                    self.found.lost.add_many(count, example);
                }
            }
        }
    }

    /// What was refused is shown to nobody: a post that was written for an earlier life of its room
    /// least of all.
    fn look_for_refused(&mut self) {
        // Who is acknowledged too is found out by `look_for`.
        let refused = self.refused.iter().filter(|id| !self.acknowledged.contains_key(*id));
        for id in refused {
            if let Some(KnownPost { place, .. }) = self.posts.get(id) {
                self.found.other.add(|| format!("{id} is refused and shown at {place}"));
            }
        }
    }

    /// An acknowledged post is shown to everybody who follows the room, and it is where the
    /// acknowledgement says. A reset ends a life with what was not shown of it.
    fn look_for(&mut self, id: &str, acknowledged: &Acknowledged) {
        let Acknowledged { stream: sender, room, incarnation, seq, .. } = acknowledged;
        if self.refused.contains(id) {
            self.found.other.add(|| format!("{sender}: {id} is acknowledged and refused"));
        }
        let known = self.posts.get(id);
        if let Some(KnownPost { place, .. }) = known
            && (place.incarnation, place.seq) != (*incarnation, seq.unwrap_or(place.seq))
        {
            let at = seq.map_or("an unknown place".to_owned(), |seq| seq.to_string());
            let example = || format!("{sender}: {id} is at {place}, not at {incarnation}:{at}");
            self.found.other.add(example);
        }
        if self.newest.get(room).is_some_and(|newest| newest > incarnation) {
            return;
        }
        let seq = known.map(|known| known.place.seq).or(*seq);
        // No stream shows a post that has no key.
        let key = known.map_or(usize::MAX, |known| known.key);
        for stream in &self.streams {
            let Some(room) = stream.rooms.get(room) else { continue };
            let life = room.lives.get(incarnation);
            if !room.posts.shows(key) && life.is_some_and(|life| life.owes(seq)) {
                self.found.lost.add(|| format!("{}: {id} is not shown", stream.name));
            }
        }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}:{}", self.room, self.incarnation, self.seq)
    }
}
