//! The end-to-end checker: what people see, against what the journal says.
//!
//! It knows the entries that the engine handed to the store, what users did, the events that each
//! client showed, and what is in its file. From these alone it judges the promises: everybody sees
//! the same records, each once, in order and without holes; nothing that a crash can take back;
//! nothing of a closed gate; every accepted command is there, once, and every refused one is not;
//! every question is answered once, as the journal says, or refused by a rule that applied; in the
//! end everybody is in the rooms that they want to be in, and level.
//!
//! It shares no code with the engine, the delivery or the client, and keeps no state of theirs.

mod answers;
mod file;
mod journal;
mod questions;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chatcore::client::{Event, Saved};
use chatcore::id::{Counter, Incarnation, Index, PublicKey, Seq, SessionId, Threshold};
use chatcore::log::{Change, Entry};
use chatcore::text::{RoomName, UserName};
use chatcore::wire::{Cursor, ExpelFault, GateState, Record, Refusal};

use crate::broken::{Broken, hold};
use crate::witness::journal::Journal;
pub(crate) use crate::witness::questions::Wish;
use crate::witness::questions::{Given, Questions};

/// A post of a client: which of its posts, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Post {
    pub(crate) client: u8,
    pub(crate) number: u64,
}

impl Post {
    /// The user's label of it.
    pub(crate) fn label(self) -> String {
        format!("{}-{}", self.client, self.number)
    }

    /// Its text, about so long: it can be told from all others.
    pub(crate) fn text(self, bytes: usize) -> String {
        let mut text = self.label();
        let missing = bytes.saturating_sub(text.len() + 1);
        if missing > 0 {
            text.push(' ');
            text.push_str(&"x".repeat(missing));
        }
        text
    }
}

/// The post that a text or a label is of; `None` when no client made it.
fn origin_of(text: &str) -> Option<Post> {
    let (label, _) = text.split_once(' ').unwrap_or((text, ""));
    let (client, number) = label.split_once('-')?;
    Some(Post { client: client.parse().ok()?, number: number.parse().ok()? })
}

/// What the labels of a client's commands begin with: its posts, its resets, its measures.
fn own_labels(client: u8) -> [String; 3] {
    [format!("{client}-"), format!("r{client}-"), format!("m{client}-")]
}

/// What became of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// The user gave it, and it is not in the client's file yet.
    Given,
    /// The client died before it was in its file: nobody ever hears of it.
    Lost,
    /// It is in the client's file, and nobody has said what became of it yet.
    Open,
    /// It was acknowledged, while this journal was the present one.
    Sent(usize),
    /// It was refused, likewise.
    Refused(usize),
    /// The client does not know and said so.
    Unknown,
}

/// What one run of one client has shown.
#[derive(Debug, Default)]
struct Shown {
    /// Which journal it speaks of, once it was connected in any run.
    log: Option<usize>,
    /// Whether this run was connected.
    met: bool,
    rooms: BTreeMap<RoomName, Place>,
    /// Commands that an earlier run heard the fate of and could not write that down in time: they
    /// are sent again and heard of again.
    heard_before: BTreeSet<String>,
    /// What its user asked it.
    questions: Questions,
    /// How much of the journal was safe when it was last connected.
    since: Index,
}

/// How far a client has shown a room.
#[derive(Clone, Debug, Default)]
struct Place {
    /// The last record shown.
    cursor: Option<Cursor>,
    /// The gate as last shown on this connection.
    gate: Option<GateState>,
    /// Whether the gate was open when this run last heard of it; a reset closes it.
    was_open: Option<bool>,
    /// Who was shown to be there, in this life of the room and since the last gap.
    users: Option<Vec<UserName>>,
    /// Who was shown to be there last, in this life of the room.
    listed: Option<Vec<UserName>>,
}

/// What is behind a closed gate.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held {
    pub(crate) records: u64,
    /// Bytes of texts.
    pub(crate) bytes: u64,
}

/// The checker.
#[derive(Debug)]
pub(crate) struct Witness {
    /// What each journal says; the last one is the present one.
    logs: Vec<Journal>,
    clients: BTreeMap<u8, Shown>,
    commands: BTreeMap<String, Fate>,
    /// The labels of commands by their numbers.
    numbers: BTreeMap<(SessionId, Counter), String>,
    /// Grows whenever somebody was shown a record or the fate of a command.
    progress: u64,
    /// Whether old records stay readable; without a store they are gone in time.
    keeps_all: bool,
}

impl Witness {
    /// A checker of a journal that begins. `keeps_all` says whether old records stay readable.
    pub(crate) fn new(keeps_all: bool) -> Self {
        let (clients, commands) = (BTreeMap::new(), BTreeMap::new());
        let (logs, numbers) = (vec![Journal::default()], BTreeMap::new());
        Self { logs, clients, commands, numbers, progress: 0, keeps_all }
    }

    /// Grows whenever somebody was shown a record or the fate of a command.
    pub(crate) const fn progress(&self) -> u64 {
        self.progress
    }

    /// A client was given a page of the history that it reads.
    pub(crate) const fn page_came(&mut self) {
        self.progress += 1;
    }

    /// The number of the present journal.
    pub(crate) const fn log(&self) -> usize {
        self.logs.len() - 1
    }

    fn present(&self) -> &Journal {
        &self.logs[self.log()]
    }

    fn present_mut(&mut self) -> &mut Journal {
        let log = self.log();
        &mut self.logs[log]
    }

    /// The engine handed an entry to the store.
    pub(crate) fn appended(&mut self, entry: &Arc<Entry>) -> Result<(), Broken> {
        if let Change::Posted { text, .. } = &entry.change
            && let Some(post) = origin_of(text.as_str())
        {
            let fate = self.commands.get(&post.label());
            let log = self.log();
            hold!(fate != Some(&Fate::Refused(log)), "a refused post takes no effect", "{post:?}");
            let kept = !matches!(fate, Some(Fate::Given | Fate::Lost));
            hold!(kept, "a command is in the file before it is sent", "{post:?} {fate:?}");
        }
        let is_deed = matches!(entry.change, Change::Reset { .. } | Change::Moderated { .. });
        let command = entry.change.command().filter(|_| is_deed);
        let label =
            command.and_then(|command| self.numbers.get(&(command.session, command.counter)));
        let refused =
            label.and_then(|label| self.commands.get(label)) == Some(&Fate::Refused(self.log()));
        hold!(!refused, "a refused command takes no effect", "{label:?}");
        let log = self.log();
        self.logs[log].append(entry, label.map(String::as_str))
    }

    /// The store reported entries safe.
    pub(crate) fn persisted(&mut self, through: Index) {
        self.present_mut().persisted(through);
    }

    /// The server died; of what was not reported safe, entries through `kept` are still there.
    pub(crate) fn crashed(&mut self, kept: Index) {
        self.present_mut().crashed(kept);
    }

    /// A new journal begins.
    pub(crate) fn founded(&mut self) {
        if !self.present().is_empty() {
            self.logs.push(Journal::default());
        }
    }

    /// A client began to run and knows what an earlier run kept.
    /// Every run wants to be in `home`.
    pub(crate) fn started(&mut self, client: u8, home: RoomName, saved: &Saved) {
        let place = |cursor: Cursor| Place { cursor: Some(cursor), ..Place::default() };
        let rooms = saved.cursors.iter().map(|(room, cursor)| (room.clone(), place(*cursor)));
        let shown = self.clients.entry(client).or_default();
        let unsent = saved.outbox.iter().map(|unsent| unsent.id.clone());
        let heard = |id: &String| self.commands.get(id).is_some_and(|it| *it != Fate::Open);
        let heard_before = unsent.filter(heard).collect();
        let (log, rooms) = (shown.log, rooms.collect());
        *shown = Shown { log, rooms, heard_before, ..Shown::default() };
        shown.questions.begin(home);
    }

    /// A client was logged in to a server of this journal.
    pub(crate) fn connected(
        &mut self,
        client: u8,
        log: usize,
        resumed: bool,
    ) -> Result<(), Broken> {
        let since = self.present().safe();
        let shown = self.clients.entry(client).or_default();
        let same = shown.log.is_none_or(|before| before == log);
        let right = resumed == (shown.met && same);
        hold!(right, "a loss of history is told", "{client} {:?} {log} {resumed}", shown.log);
        if !same {
            shown.rooms.clear();
        }
        shown.log = Some(log);
        shown.met = true;
        shown.since = since;
        for place in shown.rooms.values_mut() {
            place.gate = None;
        }
        Ok(())
    }

    /// A client is about to keep that everything up to here was shown. Of a room that it met just
    /// now that is where it starts: at the first record, unless it wants the newest only.
    pub(crate) fn kept(
        &mut self,
        client: u8,
        room: &RoomName,
        cursor: Cursor,
        wants_all: bool,
    ) -> Result<(), Broken> {
        let life = self.journal_of(client).life(room, cursor.incarnation);
        let most = if wants_all { 0 } else { life.map_or(0, journal::Life::last) };
        let place = self.place(client, room);
        let shown = place.cursor;
        let ok = match shown {
            Some(shown) => cursor <= shown,
            None => cursor.seq.get() <= most,
        };
        hold!(ok, "nothing is kept as seen before it is shown", "{room} {cursor:?} {shown:?}");
        place.cursor.get_or_insert(cursor);
        Ok(())
    }

    fn journal_of(&self, client: u8) -> &Journal {
        &self.logs[self.log_of(client)]
    }

    /// The number of the journal that a client speaks of.
    fn log_of(&self, client: u8) -> usize {
        self.clients.get(&client).and_then(|shown| shown.log).unwrap_or(self.log())
    }

    /// A user gave a command.
    pub(crate) fn queued(&mut self, label: String) {
        self.commands.insert(label, Fate::Given);
    }

    /// A command is in its client's file, under this number.
    pub(crate) fn written(&mut self, label: &str, number: (SessionId, Counter)) {
        self.numbers.insert(number, label.to_owned());
        if let Some(fate @ Fate::Given) = self.commands.get_mut(label) {
            *fate = Fate::Open;
        }
    }

    /// A client has ended: what it had not written down is lost, and so is what it was asked.
    pub(crate) fn ended(&mut self, client: u8) {
        self.clients.entry(client).or_default().questions = Questions::default();
        for own in own_labels(client) {
            let mine = self.commands.range_mut(own.clone()..);
            for (_, fate) in mine.take_while(|(id, _)| id.starts_with(&own)) {
                if *fate == Fate::Given {
                    *fate = Fate::Lost;
                }
            }
        }
    }

    /// A client showed something.
    pub(crate) fn event(&mut self, client: u8, event: &Event) -> Result<(), Broken> {
        match event {
            Event::Record(record) => self.record(client, record),
            Event::Gap { room, incarnation, from, to } => {
                self.gap(client, room, *incarnation, (*from, *to))
            }
            Event::Reset { room, incarnation, threshold } => {
                self.reset(client, room, *incarnation, *threshold)
            }
            Event::Gate { room, gate, opened } => self.gate(client, room, *gate, *opened),
            Event::Users { room, count, names } => self.users(client, room, *count, names),
            Event::Sent { id, room, incarnation, seq } => {
                self.sent(client, id, (room, *incarnation, *seq))
            }
            Event::Refused { id: Some(id), refusal } if self.commands.contains_key(id) => {
                self.refused(client, id, *refusal)
            }
            Event::Moderated { id, .. } => self.took_effect(client, id),
            Event::Abandoned { id, .. } => self.settle(client, id, Fate::Unknown),
            Event::Refused { id: Some(id), refusal } => self.question_refused(client, id, *refusal),
            Event::History { room, records } => self.history(client, room, records),
            Event::Parted { room } => self.parted(client, room),
            Event::Rooms { rooms, count } => self.listed(client, rooms, *count),
            Event::User(info) => self.described(client, info),
            Event::Connected { .. }
            | Event::Disconnected { .. }
            | Event::Notice(_)
            | Event::StoreFull
            | Event::Refused { id: None, .. } => Ok(()),
        }
    }

    fn place(&mut self, client: u8, room: &RoomName) -> &mut Place {
        self.clients.entry(client).or_default().rooms.entry(room.clone()).or_default()
    }

    fn record(&mut self, client: u8, record: &Record) -> Result<(), Broken> {
        self.journal_of(client).check_shown(record)?;
        let Record { room, incarnation, seq, .. } = record;
        let place = self.place(client, room);
        let next = place
            .cursor
            .is_none_or(|cursor| cursor.incarnation == *incarnation && cursor.seq.next() == *seq);
        let cursor = place.cursor;
        hold!(
            next,
            "records come once and in order",
            "{client} {room} {incarnation} {seq} {cursor:?}"
        );
        place.cursor = Some(Cursor { incarnation: *incarnation, seq: *seq });
        self.progress += 1;
        Ok(())
    }

    fn gap(
        &mut self,
        client: u8,
        room: &RoomName,
        incarnation: Incarnation,
        (from, to): (Seq, Seq),
    ) -> Result<(), Broken> {
        let journal = self.journal_of(client);
        let life = journal.life(room, incarnation);
        let trimmed = life.is_some_and(|life| journal.is_trimmed(life, to));
        let gone = trimmed || !self.keeps_all;
        hold!(gone, "a store keeps all but what is trimmed", "gap of {room} {from} {to}");
        let were = life.is_some_and(|life| to.get() <= life.last());
        hold!(were, "a gap is of records that were", "{room} {incarnation} {from} {to}");
        let place = self.place(client, room);
        let next = place
            .cursor
            .is_none_or(|cursor| cursor.incarnation == incarnation && cursor.seq.next() == from);
        hold!(next && from <= to, "a gap is told exactly", "{room} {from} {to} {place:?}");
        place.cursor = Some(Cursor { incarnation, seq: to });
        // Who came or went meanwhile is not known: the next list is shown whatever it says.
        place.users = None;
        Ok(())
    }

    fn reset(
        &mut self,
        client: u8,
        room: &RoomName,
        incarnation: Incarnation,
        threshold: Threshold,
    ) -> Result<(), Broken> {
        let journal = self.journal_of(client);
        let life = journal.life(room, incarnation);
        let safe = life.is_some_and(|life| journal.has_begun(life));
        hold!(safe, "a reset is told once it is safe", "{room} {incarnation}");
        let as_set = life.is_some_and(|life| life.threshold == threshold.get());
        hold!(as_set, "a reset is told with its threshold", "{room} {incarnation} {threshold}");
        let place = self.place(client, room);
        let later = place.cursor.is_none_or(|cursor| cursor.incarnation < incarnation);
        hold!(later, "a room's lives follow each other", "{client} {room} {incarnation}");
        *place = Place {
            cursor: Some(Cursor { incarnation, seq: Seq::ZERO }),
            was_open: place.was_open.map(|_| false),
            ..Place::default()
        };
        Ok(())
    }

    fn gate(
        &mut self,
        client: u8,
        room: &RoomName,
        gate: GateState,
        opened: bool,
    ) -> Result<(), Broken> {
        self.check_opened(client, room, gate, opened)?;
        let journal = self.journal_of(client);
        let life = journal.life(room, gate.incarnation);
        let life = life.ok_or_else(|| Broken::new("a gate is of a life", room.to_string()))?;
        let open = journal.is_open(life);
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
        let told = place.cursor.is_none_or(|cursor| cursor.incarnation >= gate.incarnation);
        hold!(told, "a reset is told before its gate", "{client} {room} {gate:?}");
        place.was_open = Some(gate.open);
        self.answered(client, Given::Gate(room.clone()))
    }

    fn sent(
        &mut self,
        client: u8,
        id: &str,
        (room, incarnation, seq): (&RoomName, Incarnation, Option<Seq>),
    ) -> Result<(), Broken> {
        let log = self.log_of(client);
        let is_told_again = self.commands.get(id) == Some(&Fate::Sent(log));
        let Some(post) = origin_of(id) else { return self.took_effect(client, id) };
        self.settle(client, id, Fate::Sent(log))?;
        let journal = self.journal_of(client);
        hold!(journal.has_safe(post), "an acknowledged post is safe", "{id}");
        let Some(seq) = seq else {
            // Who died after it was told is told less when the server has forgotten the first answer.
            let may_lack = is_told_again || !journal.was_shown_at_once(post);
            hold!(may_lack, "whoever posts in an open room is told the place", "{id}");
            return Ok(());
        };
        journal.check_place(post, (room, incarnation, seq))
    }

    /// A reset or a measure is acknowledged.
    fn took_effect(&mut self, client: u8, id: &str) -> Result<(), Broken> {
        self.settle(client, id, Fate::Sent(self.log_of(client)))?;
        let safe = self.journal_of(client).has_safe_deed(id);
        hold!(safe, "what is acknowledged is safe", "{id}");
        Ok(())
    }

    fn refused(&mut self, client: u8, id: &str, refusal: Refusal) -> Result<(), Broken> {
        let log = self.log_of(client);
        self.settle(client, id, Fate::Refused(log))?;
        let journal = self.journal_of(client);
        let there = origin_of(id).is_some_and(|post| journal.has(post));
        hold!(!there, "a refused post takes no effect", "{id}: {refusal}");
        hold!(!journal.has_deed(id), "a refused command takes no effect", "{id}: {refusal}");
        let decided = journal.has_refused(refusal);
        hold!(decided, "a command is refused as the journal says", "{id}: {refusal}");
        Ok(())
    }

    /// A command has one fate. Who dies right after it was told is told again.
    fn settle(&mut self, client: u8, id: &str, fate: Fate) -> Result<(), Broken> {
        self.clients.entry(client).or_default().heard_before.remove(id);
        let before = self.commands.insert(id.to_owned(), fate);
        let same = match before {
            None | Some(Fate::Given | Fate::Open) => true,
            // What was answered in a journal that is lost may be sent again to the next one, and
            // after its session expired nobody knows.
            Some(before @ (Fate::Sent(earlier) | Fate::Refused(earlier))) => match fate {
                Fate::Sent(log) | Fate::Refused(log) => log > earlier || fate == before,
                Fate::Unknown => true,
                Fate::Given | Fate::Lost | Fate::Open => false,
            },
            Some(before) => before == fate,
        };
        hold!(same, "a command has one fate", "{id} was {before:?} and is {fate:?}");
        self.progress += 1;
        Ok(())
    }

    /// Everything is quiet: nothing may be missing. `online` are the clients that are connected, and
    /// whose they are; the rooms that each is to be in are known from what its user did and was
    /// answered.
    pub(crate) fn finish(&self, online: &[(u8, &UserName)]) -> Result<(), Broken> {
        let mut followers = BTreeSet::new();
        for (client, user) in online {
            let Some(shown) = self.clients.get(client) else { continue };
            for room in shown.questions.wanted() {
                self.check_is_level(*client, room)?;
                followers.insert((room, *user));
            }
            self.check_answered(*client)?;
        }
        self.check_members(&followers)?;
        self.check_acknowledged()
    }

    /// Who follows a room is a member of it, and nobody else is.
    fn check_members(&self, followers: &BTreeSet<(&RoomName, &UserName)>) -> Result<(), Broken> {
        let journal = self.present();
        for room in journal.rooms() {
            let members = journal.members(room);
            let there = followers.iter().filter(|(of, _)| *of == room).map(|(_, user)| *user);
            let there: BTreeSet<&UserName> = there.collect();
            hold!(
                members == there,
                "who follows a room is a member in the end, and nobody else",
                "{room} {members:?} {there:?}"
            );
        }
        Ok(())
    }

    /// Everybody knows who is there, where each coming and going makes a record.
    fn check_listed(&self, client: u8, room: &RoomName) -> Result<(), Broken> {
        let listed = self.clients.get(&client).and_then(|shown| shown.rooms.get(room));
        let listed = listed.and_then(|place| place.listed.as_ref());
        let journal = self.present();
        let members = journal.members(room);
        let known = listed.is_some_and(|listed| members.iter().copied().eq(listed));
        hold!(
            known || journal.has_untold(room),
            "everybody knows who is there in the end",
            "{client} {room} {members:?} {listed:?}"
        );
        Ok(())
    }

    /// Whether a journal says that a name is or was owned by another key: the present one, or an earlier one
    /// whose server was lost while its answer was under way.
    pub(crate) fn is_taken(&self, name: &UserName, key: &PublicKey) -> bool {
        self.logs.iter().any(|journal| journal.was_taken(name, key))
    }

    /// Whether a journal says that a user was sent away like this.
    pub(crate) fn was_sent_away(&self, name: &UserName, how: ExpelFault) -> bool {
        self.logs.iter().any(|journal| journal.was_sent_away(name, how))
    }

    fn check_answered(&self, client: u8) -> Result<(), Broken> {
        for own in own_labels(client) {
            let mine = self.commands.range(own.clone()..);
            for (id, fate) in mine.take_while(|(id, _)| id.starts_with(&own)) {
                let told = !matches!(fate, Fate::Given | Fate::Open);
                hold!(told, "every command is answered in the end", "{id}");
            }
        }
        self.check_questions(client)
    }

    fn check_is_level(&self, client: u8, room: &RoomName) -> Result<(), Broken> {
        let shown = self.clients.get(&client);
        hold!(
            shown.and_then(|shown| shown.log) == Some(self.log()),
            "everybody is connected in the end",
            "{client}"
        );
        let place = shown.and_then(|shown| shown.rooms.get(room));
        let Some((number, life)) = self.present().present(room) else {
            return Err(Broken::new(
                "everybody is in a room in the end",
                format!("{client} {room}"),
            ));
        };
        let gate = place.and_then(|place| place.gate);
        let told = gate
            .is_some_and(|gate| gate.incarnation.get() == number && gate.open == life.is_open());
        hold!(told, "everybody knows the gate in the end", "{client} {room} {number} {gate:?}");
        let last = life.last();
        if life.is_open() && last > 0 {
            let cursor = place.and_then(|place| place.cursor);
            let level =
                cursor.is_some_and(|at| at.incarnation.get() == number && at.seq.get() == last);
            hold!(
                level,
                "everybody sees everything in the end",
                "{client} {room} {last} {cursor:?}"
            );
        }
        if life.is_open() { self.check_listed(client, room) } else { Ok(()) }
    }

    /// Every post that was acknowledged is in its journal.
    fn check_acknowledged(&self) -> Result<(), Broken> {
        for (id, fate) in &self.commands {
            let (Fate::Sent(log), Some(post)) = (fate, origin_of(id)) else { continue };
            let there = self.logs[*log].has(post);
            hold!(there, "an acknowledged post is in the journal", "{id}");
        }
        Ok(())
    }

    /// The present life of a room, and its last record.
    pub(crate) fn life(&self, room: &RoomName) -> Option<(Incarnation, Seq)> {
        place(self.present().present(room)?)
    }

    /// The life of a room that is known to whoever follows what is safe, and its last record.
    pub(crate) fn safe_life(&self, room: &RoomName) -> Option<(Incarnation, Seq)> {
        place(self.present().safe_life(room)?)
    }

    /// The last record of a life that is gone for good, and safely so.
    pub(crate) fn trimmed(&self, room: &RoomName, incarnation: Incarnation) -> Seq {
        let journal = self.present();
        journal.life(room, incarnation).map_or(Seq::ZERO, |life| journal.trimmed(life))
    }

    /// A record is written to a connection, whoever is at its other end.
    pub(crate) fn delivered(&self, record: &Record) -> Result<(), Broken> {
        self.present().check_shown(record)
    }

    /// What a room holds, while its gate is closed.
    pub(crate) fn held(&self, room: &RoomName) -> Option<Held> {
        let (_, life) = self.present().present(room)?;
        (!life.is_open()).then(|| Held { records: life.last(), bytes: life.bytes() })
    }

    /// Every room.
    pub(crate) fn rooms(&self) -> impl Iterator<Item = &RoomName> {
        self.present().rooms()
    }
}

/// The number of a life, and its last record.
fn place((number, life): (u64, &journal::Life)) -> Option<(Incarnation, Seq)> {
    Some((Incarnation::new(number).ok()?, Seq::new(life.last()).ok()?))
}
