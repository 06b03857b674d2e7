//! The end-to-end checker: what people see, against what the journal says.
//!
//! It knows two things: the entries that the engine handed to the store, and the events that each
//! client showed. From these alone it judges the promises: everybody sees the same records, each
//! once, in order and without holes; nothing that a crash can take back; nothing of a closed gate;
//! every accepted post is there, once, and every refused one is not.
//!
//! It shares no code with the engine, the delivery or the client, and keeps no state of theirs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chatcore::client::Event;
use chatcore::id::{Incarnation, Index, Seq, Threshold};
use chatcore::log::{Change, Entry};
use chatcore::text::RoomName;
use chatcore::wire::{Command, Cursor, GateState, Record, RecordBody, Refusal};

use crate::broken::{Broken, hold};

/// What became of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Nobody has said yet.
    Open,
    /// It was acknowledged.
    Sent,
    /// It was refused.
    Refused,
    /// The client does not know and said so.
    Unknown,
}

/// One life of one room.
#[derive(Debug, Default)]
struct Life {
    /// The places of its records in the journal, by sequence number from 1.
    records: Vec<usize>,
    /// Where in the journal its gate opened.
    opened: Option<u64>,
    /// Where in the journal it began.
    began: u64,
    threshold: u16,
}

/// What one run of one client has shown.
#[derive(Debug, Default)]
struct Shown {
    rooms: BTreeMap<RoomName, Place>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Place {
    /// The last record shown.
    cursor: Option<Cursor>,
    /// The gate as last shown.
    gate: Option<GateState>,
}

/// The checker.
#[derive(Debug, Default)]
pub struct Witness {
    entries: Vec<Arc<Entry>>,
    /// How many of them were reported safe.
    safe: u64,
    lives: BTreeMap<(RoomName, u64), Life>,
    /// The present life of every room, with what is not safe.
    present: BTreeMap<RoomName, u64>,
    /// Where in the journal each text is.
    texts: BTreeMap<String, usize>,
    /// The number of the last post of each client in the journal.
    last_posts: BTreeMap<u8, Vec<u64>>,
    clients: BTreeMap<u8, Shown>,
    commands: BTreeMap<String, Fate>,
    /// Whether gaps may be told: without a store old records are gone.
    keeps_all: bool,
}

/// The text that a client posts: it can be told from all others.
pub(crate) fn text_of(client: u8, number: u64, bytes: usize) -> String {
    let mut text = format!("{client}-{number} ");
    let missing = bytes.saturating_sub(text.len());
    text.extend(std::iter::repeat_n('x', missing));
    text.truncate(text.trim_end().len());
    text
}

/// Whose text it is, and which of theirs; `None` when no client posted it.
fn origin_of(text: &str) -> Option<(u8, u64)> {
    let (label, _) = text.split_once(' ').unwrap_or((text, ""));
    let (client, number) = label.split_once('-')?;
    Some((client.parse().ok()?, number.parse().ok()?))
}

impl Witness {
    /// A checker of a journal that begins. `keeps_all` says whether old records stay readable.
    pub fn new(keeps_all: bool) -> Self {
        Self { keeps_all, ..Self::default() }
    }

    /// The engine handed an entry to the store.
    pub(crate) fn appended(&mut self, entry: &Arc<Entry>) -> Result<(), Broken> {
        let place = self.entries.len();
        let index = entry.header.index.get();
        let dense = index == place as u64 + 1;
        hold!(dense, "entries are dense", "entry {index} after {place} entries");
        self.entries.push(Arc::clone(entry));
        match &entry.change {
            Change::RoomCreated { room, threshold } => self.begin_life(room, 1, *threshold, index),
            Change::Reset { room, incarnation, threshold, .. } => {
                let before = self.present.get(room).copied().unwrap_or(0);
                let next = incarnation.get() == before + 1;
                hold!(next, "a reset begins the next life", "{room} {incarnation} after {before}");
                self.begin_life(room, incarnation.get(), *threshold, index);
            }
            Change::GateOpened { room, incarnation } => {
                let life = self.life_mut(room, *incarnation)?;
                hold!(life.opened.is_none(), "a gate opens once", "{room} {incarnation}");
                life.opened = Some(index);
            }
            Change::Posted { text, .. } => self.count_post(text.as_str(), place)?,
            Change::Joined { .. }
            | Change::Left { .. }
            | Change::Founded(_)
            | Change::UserAdded { .. }
            | Change::OperatorGranted { .. }
            | Change::SessionOpened { .. }
            | Change::SessionExpired { .. }
            | Change::Refused { .. } => {}
        }
        self.number_record(entry, place)
    }

    fn begin_life(&mut self, room: &RoomName, life: u64, threshold: Threshold, index: u64) {
        let threshold = threshold.get();
        let new = Life { began: index, threshold, ..Life::default() };
        self.lives.insert((room.clone(), life), new);
        self.present.insert(room.clone(), life);
    }

    fn number_record(&mut self, entry: &Entry, place: usize) -> Result<(), Broken> {
        let (room, incarnation, seq) = match &entry.change {
            Change::Joined { room, incarnation, seq: Some(seq), .. }
            | Change::Left { room, incarnation, seq: Some(seq), .. }
            | Change::Posted { room, incarnation, seq, .. } => (room, *incarnation, *seq),
            _ => return Ok(()),
        };
        let present = self.present.get(room) == Some(&incarnation.get());
        hold!(present, "a record is of the present life", "{room} {incarnation}");
        let life = self.life_mut(room, incarnation)?;
        let next = life.records.len() as u64 + 1;
        let dense = seq.get() == next;
        hold!(dense, "records are numbered without holes", "{room} {seq} is not {next}");
        life.records.push(place);
        Ok(())
    }

    fn count_post(&mut self, text: &str, place: usize) -> Result<(), Broken> {
        let Some((client, number)) = origin_of(text) else { return Ok(()) };
        let twice = self.texts.insert(text.to_owned(), place);
        hold!(twice.is_none(), "a post takes effect once", "{text:.20} again");
        let fate = self.commands.get(&label(client, number));
        let refused = fate == Some(&Fate::Refused);
        hold!(!refused, "a refused post takes no effect", "{text:.20}");
        let posts = self.last_posts.entry(client).or_default();
        let last = posts.last().copied().unwrap_or(0);
        hold!(number > last, "posts keep their author's order", "{client}: {number} after {last}");
        posts.push(number);
        Ok(())
    }

    fn life_mut(&mut self, room: &RoomName, life: Incarnation) -> Result<&mut Life, Broken> {
        let key = (room.clone(), life.get());
        let life = self.lives.get_mut(&key);
        life.ok_or_else(|| Broken::new("a life begins before it is spoken of", room.to_string()))
    }

    /// The store reported entries safe.
    pub(crate) fn persisted(&mut self, through: Index) {
        self.safe = through.get();
    }

    /// The server died; of what was not reported safe, entries through `kept` are still there.
    pub(crate) fn crashed(&mut self, kept: Index) {
        assert!(kept.get() >= self.safe, "a store must keep what it reported safe");
        while self.entries.len() as u64 > kept.get() {
            let Some(entry) = self.entries.pop() else { return };
            self.take_back(&entry);
        }
        self.safe = kept.get();
    }

    fn take_back(&mut self, entry: &Entry) {
        match &entry.change {
            Change::RoomCreated { room, .. } => {
                self.lives.remove(&(room.clone(), 1));
                self.present.remove(room);
            }
            Change::Reset { room, incarnation, .. } => {
                self.lives.remove(&(room.clone(), incarnation.get()));
                self.present.insert(room.clone(), incarnation.get() - 1);
            }
            Change::GateOpened { room, incarnation } => {
                if let Some(life) = self.lives.get_mut(&(room.clone(), incarnation.get())) {
                    life.opened = None;
                }
            }
            Change::Posted { text, .. } => {
                self.texts.remove(text.as_str());
                if let Some((client, _)) = origin_of(text.as_str()) {
                    self.last_posts.entry(client).or_default().pop();
                }
            }
            _ => {}
        }
        if let Some(record) = entry.record()
            && let Some(life) = self.lives.get_mut(&(record.room, record.incarnation.get()))
        {
            life.records.pop();
        }
    }

    /// Everything was lost, and a new journal began.
    pub(crate) fn lost_everything(&mut self) {
        let fresh = Self::new(self.keeps_all);
        let before = std::mem::replace(self, fresh);
        self.clients = before.clients;
        self.commands = before.commands;
    }

    /// A client began to run and knows what an earlier run kept.
    pub(crate) fn started(&mut self, client: u8, cursors: &[(RoomName, Cursor)]) {
        let place = |cursor: Cursor| Place { cursor: Some(cursor), gate: None };
        let rooms = cursors.iter().map(|(room, cursor)| (room.clone(), place(*cursor)));
        self.clients.insert(client, Shown { rooms: rooms.collect() });
    }

    /// A client is about to keep that everything up to here was shown.
    pub(crate) fn kept(
        &self,
        client: u8,
        room: &RoomName,
        cursor: Cursor,
    ) -> Result<(), Broken> {
        let shown = self.clients.get(&client).and_then(|shown| shown.rooms.get(room));
        let shown = shown.and_then(|place| place.cursor);
        let ok = shown.is_some_and(|shown| cursor <= shown);
        hold!(ok, "nothing is kept as seen before it is shown", "{room} {cursor:?} {shown:?}");
        Ok(())
    }

    /// A user posted.
    pub(crate) fn queued(&mut self, client: u8, number: u64) {
        self.commands.insert(label(client, number), Fate::Open);
    }

    /// A client showed something.
    pub(crate) fn event(&mut self, client: u8, event: &Event) -> Result<(), Broken> {
        match event {
            Event::Connected { resumed, .. } => self.connected(client, *resumed),
            Event::Record(record) => self.record(client, record),
            Event::Gap { room, incarnation, from, to } => {
                self.gap(client, room, *incarnation, *from, *to)
            }
            Event::Reset { room, incarnation, threshold } => {
                self.reset(client, room, *incarnation, *threshold)
            }
            Event::Gate { room, gate } => self.gate(client, room, *gate),
            Event::Users { room, count, names } => {
                let place = self.place(client, room);
                let open = place.gate.is_some_and(|gate| gate.open);
                hold!(open, "no names before the gate opens", "{client} {room}");
                let fits = *count as usize >= names.len();
                hold!(fits, "a list is not longer than its count", "{count} {names:?}");
                Ok(())
            }
            Event::Sent { id, room, incarnation, seq } => self.sent(id, room, *incarnation, *seq),
            Event::Refused { id: Some(id), refusal } => self.refused(id, *refusal),
            Event::Abandoned { id, command } => self.abandoned(id, command),
            Event::History { records, .. } => self.history(records),
            Event::Parted { .. }
            | Event::Disconnected { .. }
            | Event::Rooms { .. }
            | Event::User(_)
            | Event::Notice(_)
            | Event::Refused { id: None, .. } => Ok(()),
        }
    }

    fn connected(&mut self, client: u8, resumed: bool) -> Result<(), Broken> {
        let shown = self.clients.entry(client).or_default();
        for place in shown.rooms.values_mut() {
            place.gate = None;
        }
        // After a loss of history rooms begin anew, and only then.
        let lives = &self.lives;
        let unknown = |room: &RoomName, cursor: Cursor| {
            cursor.incarnation.get() > 0
                && !lives.contains_key(&(room.clone(), cursor.incarnation.get()))
        };
        if !resumed {
            shown.rooms.retain(|room, place| {
                place.cursor.is_none_or(|cursor| !unknown(room, cursor))
            });
        }
        Ok(())
    }

    fn place(&mut self, client: u8, room: &RoomName) -> &mut Place {
        self.clients.entry(client).or_default().rooms.entry(room.clone()).or_default()
    }

    fn record(&mut self, client: u8, record: &Record) -> Result<(), Broken> {
        self.check_shown(record)?;
        let place = self.place(client, &record.room);
        let (life, seq) = (record.incarnation, record.seq);
        if let Some(cursor) = place.cursor {
            let next = cursor.incarnation == life && cursor.seq.next() == seq;
            let room = &record.room;
            hold!(next, "records come once and in order", "{client} {room} {cursor:?} {life} {seq}");
        }
        place.cursor = Some(Cursor { incarnation: life, seq });
        Ok(())
    }

    /// A record that anybody sees is the journal's, safe, and of an open gate.
    fn check_shown(&self, record: &Record) -> Result<(), Broken> {
        let Record { room, incarnation, seq, .. } = record;
        let life = self.lives.get(&(room.clone(), incarnation.get()));
        let life = life.ok_or_else(|| Broken::new("a record is the journal's", "no such life"))?;
        let open = life.opened.is_some_and(|opened| opened <= self.safe);
        hold!(open, "nothing is seen of a closed gate", "{room} {incarnation} {seq}");
        let place = usize::try_from(seq.get()).ok().and_then(|seq| life.records.get(seq - 1));
        let place = *place.ok_or_else(|| Broken::new("a record is the journal's", "no place"))?;
        let safe = (place as u64) < self.safe;
        hold!(safe, "nothing is seen before it is safe", "{room} {incarnation} {seq}");
        let same = self.entries.get(place).is_some_and(|entry| is_record_of(entry, record));
        hold!(same, "a record says what the journal says", "{record:?}");
        Ok(())
    }

    fn gap(
        &mut self,
        client: u8,
        room: &RoomName,
        incarnation: Incarnation,
        from: Seq,
        to: Seq,
    ) -> Result<(), Broken> {
        hold!(!self.keeps_all, "a store keeps everything", "gap of {room} {from} {to}");
        let known = self.lives.get(&(room.clone(), incarnation.get()));
        let there = known.is_some_and(|life| to.get() <= life.records.len() as u64);
        hold!(there, "a gap is of records that were", "{room} {incarnation} {from} {to}");
        let place = self.place(client, room);
        let next = place.cursor.is_none_or(|cursor| {
            cursor.incarnation == incarnation && cursor.seq.next() == from
        });
        hold!(next && from <= to, "a gap is told exactly", "{room} {from} {to} {place:?}");
        place.cursor = Some(Cursor { incarnation, seq: to });
        Ok(())
    }

    fn reset(
        &mut self,
        client: u8,
        room: &RoomName,
        incarnation: Incarnation,
        threshold: Threshold,
    ) -> Result<(), Broken> {
        let life = self.lives.get(&(room.clone(), incarnation.get()));
        let safe = life.is_some_and(|life| life.began <= self.safe);
        hold!(safe, "a reset is told once it is safe", "{room} {incarnation}");
        let same = life.is_some_and(|life| life.threshold == threshold.get());
        hold!(same, "a reset is told with its threshold", "{room} {incarnation} {threshold}");
        let place = self.place(client, room);
        let later = place.cursor.is_none_or(|cursor| cursor.incarnation < incarnation);
        hold!(later, "a room's lives follow each other", "{client} {room} {incarnation}");
        place.cursor = Some(Cursor { incarnation, seq: Seq::ZERO });
        place.gate = None;
        Ok(())
    }

    fn gate(&mut self, client: u8, room: &RoomName, gate: GateState) -> Result<(), Broken> {
        let life = self.lives.get(&(room.clone(), gate.incarnation.get()));
        let life = life.ok_or_else(|| Broken::new("a gate is of a life", format!("{room}")))?;
        let open = life.opened.is_some_and(|opened| opened <= self.safe);
        hold!(open || !gate.open, "a gate is told open once that is safe", "{room} {gate:?}");
        let same = gate.threshold.get() == life.threshold;
        hold!(same, "a gate is told with its threshold", "{room} {gate:?}");
        let place = self.place(client, room);
        if let Some(before) = place.gate {
            let closes = before.incarnation == gate.incarnation && before.open && !gate.open;
            hold!(!closes, "a gate stays open for good", "{client} {room} {gate:?}");
            let back = gate.incarnation < before.incarnation;
            hold!(!back, "a room's lives follow each other", "{client} {room} {gate:?}");
        }
        place.gate = Some(gate);
        // A client that has seen nothing yet learns here which life it is in.
        let fresh = Cursor { incarnation: gate.incarnation, seq: Seq::ZERO };
        if place.cursor.is_some_and(|cursor| cursor < fresh) {
            return Err(Broken::new("a reset is told before its gate", format!("{room} {gate:?}")));
        }
        Ok(())
    }

    fn sent(
        &mut self,
        id: &str,
        room: &RoomName,
        incarnation: Incarnation,
        seq: Option<Seq>,
    ) -> Result<(), Broken> {
        let fate = self.commands.insert(id.to_owned(), Fate::Sent);
        let open = matches!(fate, None | Some(Fate::Open | Fate::Sent));
        hold!(open, "a command has one fate", "{id} was {fate:?} and is sent");
        let Some(seq) = seq else { return Ok(()) };
        let life = self.lives.get(&(room.clone(), incarnation.get()));
        let place = life.and_then(|life| life.records.get(usize::try_from(seq.get()).ok()? - 1));
        let Some(entry) = place.and_then(|place| self.entries.get(*place)) else {
            return Err(Broken::new("an acknowledged post is in the journal", id));
        };
        let safe = entry.header.index.get() <= self.safe;
        hold!(safe, "an acknowledged post is safe", "{id} {room} {seq}");
        let same = matches!(&entry.change, Change::Posted { text, .. }
            if origin_of(text.as_str()).is_some_and(|(client, number)| label(client, number) == id));
        hold!(same, "an acknowledged post is the one at its place", "{id} {room} {seq}");
        Ok(())
    }

    fn refused(&mut self, id: &str, refusal: Refusal) -> Result<(), Broken> {
        let fate = self.commands.insert(id.to_owned(), Fate::Refused);
        let open = matches!(fate, None | Some(Fate::Open | Fate::Refused));
        hold!(open, "a command has one fate", "{id} was {fate:?} and is refused: {refusal}");
        let there = self.texts.keys().any(|text| {
            origin_of(text).is_some_and(|(client, number)| label(client, number) == id)
        });
        hold!(!there, "a refused post takes no effect", "{id}: {refusal}");
        Ok(())
    }

    fn abandoned(&mut self, id: &str, _command: &Command) -> Result<(), Broken> {
        let fate = self.commands.insert(id.to_owned(), Fate::Unknown);
        let open = matches!(fate, None | Some(Fate::Open | Fate::Unknown));
        hold!(open, "a command has one fate", "{id} was {fate:?} and is given up");
        Ok(())
    }

    fn history(&self, records: &[Record]) -> Result<(), Broken> {
        for pair in records.windows(2) {
            let [one, other] = pair else { continue };
            let next = one.incarnation == other.incarnation && one.seq.next() == other.seq;
            hold!(next, "history has no holes", "{} {}", one.seq, other.seq);
        }
        records.iter().try_for_each(|record| self.check_shown(record))
    }

    /// Everything is quiet: nothing may be missing. `present` are the clients that are connected,
    /// with the rooms they follow.
    pub(crate) fn finish(&self, present: &[(u8, Vec<RoomName>)]) -> Result<(), Broken> {
        for (client, rooms) in present {
            for room in rooms {
                self.check_is_level(*client, room)?;
            }
            let own = format!("{client}-");
            let mine = self.commands.range(own.clone()..).take_while(|(id, _)| id.starts_with(&own));
            for (id, fate) in mine {
                let told = *fate != Fate::Open;
                hold!(told, "every command is answered in the end", "{id}");
            }
        }
        self.check_acknowledged()
    }

    fn check_is_level(&self, client: u8, room: &RoomName) -> Result<(), Broken> {
        let place = self.clients.get(&client).and_then(|shown| shown.rooms.get(room));
        let life = self.present.get(room).copied().unwrap_or(0);
        let state = self.lives.get(&(room.clone(), life));
        let open = state.is_some_and(|state| state.opened.is_some());
        let last = state.map_or(0, |state| state.records.len() as u64);
        let gate = place.and_then(|place| place.gate);
        let told = gate.is_some_and(|gate| gate.incarnation.get() == life && gate.open == open);
        hold!(told, "everybody knows the gate in the end", "{client} {room} {life} {gate:?}");
        if open && last > 0 {
            let cursor = place.and_then(|place| place.cursor);
            let level = cursor
                .is_some_and(|at| at.incarnation.get() == life && at.seq.get() == last);
            hold!(level, "everybody sees everything in the end", "{client} {room} {last} {cursor:?}");
        }
        Ok(())
    }

    /// Every post that was acknowledged is in the journal, unless all of it was lost.
    fn check_acknowledged(&self) -> Result<(), Broken> {
        if !self.keeps_all {
            return Ok(());
        }
        let there: BTreeSet<String> = self.texts.keys().filter_map(|text| {
            origin_of(text).map(|(client, number)| label(client, number))
        }).collect();
        for (id, fate) in &self.commands {
            let post = !id.starts_with('r');
            let kept = !post || *fate != Fate::Sent || there.contains(id);
            hold!(kept, "an acknowledged post is in the journal", "{id}");
        }
        Ok(())
    }

    /// How many entries there are.
    pub(crate) fn appended_count(&self) -> u64 {
        self.entries.len() as u64
    }

    /// Whether a room's gate is closed in its present life, and how many records it has.
    pub(crate) fn held(&self, room: &RoomName) -> Option<(bool, usize)> {
        let life = self.present.get(room)?;
        let life = self.lives.get(&(room.clone(), *life))?;
        Some((life.opened.is_none(), life.records.len()))
    }

    /// Every room.
    pub(crate) fn rooms(&self) -> impl Iterator<Item = &RoomName> {
        self.present.keys()
    }
}

/// A user's label of a post.
pub(crate) fn label(client: u8, number: u64) -> String {
    format!("{client}-{number}")
}

/// Whether an entry makes exactly this record.
fn is_record_of(entry: &Entry, record: &Record) -> bool {
    let body = match (&entry.change, &record.body) {
        (Change::Posted { from, text, .. }, RecordBody::Post { from: shown, text: said }) => {
            from == shown && text == said
        }
        (Change::Joined { user, .. }, RecordBody::Joined { user: shown })
        | (Change::Left { user, .. }, RecordBody::Left { user: shown }) => user == shown,
        _ => false,
    };
    body && entry.header.at == record.at
}
