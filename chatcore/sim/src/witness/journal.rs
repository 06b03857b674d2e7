//! What one journal says, as the store was told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chatcore::id::{Incarnation, Index, PublicKey, Seq, Threshold};
use chatcore::log::{Change, Entry};
use chatcore::text::{RoomName, UserName};
use chatcore::wire::{ExpelFault, Measure, Record, RecordBody, Refusal};

use crate::broken::{Broken, hold};
use crate::witness::{Post, origin_of};

/// One life of one room.
#[derive(Debug, Default)]
pub(crate) struct Life {
    /// The places of its records in the journal, by sequence number from 1.
    records: Vec<usize>,
    /// Bytes of the texts of posts.
    bytes: u64,
    /// Where in the journal its gate opened.
    opened: Option<u64>,
    /// Where in the journal it was trimmed, and through which record.
    trims: Vec<(u64, Seq)>,
    /// Where in the journal it began.
    began: u64,
    pub(crate) threshold: u16,
    /// Whether somebody came or went without a record, as in a crowd.
    untold: bool,
}

/// Somebody came to a room, or went.
#[derive(Clone, Debug)]
struct Presence {
    index: u64,
    user: UserName,
    came: bool,
}

impl Life {
    /// Its last record, safe or not.
    pub(crate) fn last(&self) -> u64 {
        self.records.len() as u64
    }

    pub(crate) const fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) const fn is_open(&self) -> bool {
        self.opened.is_some()
    }

    /// Where in the journal its gate opened.
    pub(crate) const fn opened(&self) -> Option<u64> {
        self.opened
    }
}

/// One journal.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    entries: Vec<Arc<Entry>>,
    /// How many of them were reported safe.
    safe: u64,
    lives: BTreeMap<RoomName, Vec<Life>>,
    /// Where each post is.
    posts: BTreeMap<Post, usize>,
    /// The posts of each client, in the order of the journal.
    order: BTreeMap<u8, Vec<u64>>,
    /// Who came to each room and went, in all its lives.
    presence: BTreeMap<RoomName, Vec<Presence>>,
    /// Where each reset and each measure of a user is, by its label.
    deeds: BTreeMap<String, u64>,
}

impl Journal {
    /// The engine handed an entry to the store. A reset or a measure that a client sent has
    /// its user's label.
    pub(crate) fn append(&mut self, entry: &Arc<Entry>, label: Option<&str>) -> Result<(), Broken> {
        let place = self.entries.len();
        let index = entry.header.index.get();
        hold!(index == place as u64 + 1, "entries are dense", "entry {index} after {place}");
        self.entries.push(Arc::clone(entry));
        match &entry.change {
            Change::RoomCreated { room, threshold } => self.begin(room, 1, *threshold, index)?,
            Change::Reset { room, incarnation, threshold, .. } => {
                self.begin(room, incarnation.get(), *threshold, index)?;
                let label = label.map(str::to_owned);
                let twice = label.is_some_and(|label| self.deeds.insert(label, index).is_some());
                hold!(!twice, "a reset takes effect once", "{room} {incarnation} again");
            }
            Change::GateOpened { room, incarnation } => {
                let life = self.present_mut(room, *incarnation)?;
                hold!(life.opened.is_none(), "a gate opens once", "{room} {incarnation}");
                life.opened = Some(index);
            }
            Change::Posted { text, .. } => self.count_post(text.as_str(), place)?,
            Change::Joined { room, incarnation, user, seq } => {
                self.note_presence(room, *incarnation, user, seq.is_none(), true)?;
            }
            Change::Left { room, incarnation, user, seq } => {
                self.note_presence(room, *incarnation, user, seq.is_none(), false)?;
            }
            Change::Moderated { user, measure, .. } => {
                let label = label.map(str::to_owned);
                let twice = label.is_some_and(|label| self.deeds.insert(label, index).is_some());
                hold!(!twice, "a measure takes effect once", "{measure:?} {user} again");
            }
            Change::Founded(_)
            | Change::UserAdded { .. }
            | Change::OperatorGranted { .. }
            | Change::SessionOpened { .. }
            | Change::SessionExpired { .. }
            | Change::Refused { .. } => {}
            Change::Trimmed { room, incarnation, through } => {
                let life = self.present_mut(room, *incarnation)?;
                let kept = life.is_open() && through.get() <= life.last();
                hold!(kept, "what nobody may see is not trimmed", "{room} {through}");
                let further = life.trims.last().is_none_or(|(_, before)| through > before);
                hold!(further, "a room is trimmed further each time", "{room} {through}");
                life.trims.push((index, *through));
            }
        }
        self.number(entry, place)
    }

    fn note_presence(
        &mut self,
        room: &RoomName,
        incarnation: Incarnation,
        user: &UserName,
        untold: bool,
        came: bool,
    ) -> Result<(), Broken> {
        self.present_mut(room, incarnation)?.untold |= untold;
        let presence = Presence { index: self.entries.len() as u64, user: user.clone(), came };
        self.presence.entry(room.clone()).or_default().push(presence);
        Ok(())
    }

    fn begin(
        &mut self,
        room: &RoomName,
        number: u64,
        threshold: Threshold,
        began: u64,
    ) -> Result<(), Broken> {
        let lives = self.lives.entry(room.clone()).or_default();
        let next = lives.len() as u64 + 1;
        hold!(number == next, "a room's lives follow each other", "{room} {number} is not {next}");
        lives.push(Life { began, threshold: threshold.get(), ..Life::default() });
        Ok(())
    }

    /// Records of a life are numbered from 1 without holes.
    fn number(&mut self, entry: &Entry, place: usize) -> Result<(), Broken> {
        let (Change::Joined { room, incarnation, seq: Some(seq), .. }
        | Change::Left { room, incarnation, seq: Some(seq), .. }
        | Change::Posted { room, incarnation, seq, .. }) = &entry.change
        else {
            return Ok(());
        };
        let (incarnation, seq) = (*incarnation, *seq);
        let life = self.present_mut(room, incarnation)?;
        let next = life.last() + 1;
        hold!(seq.get() == next, "records are numbered without holes", "{room} {seq}, not {next}");
        life.records.push(place);
        life.bytes += text_bytes(entry);
        Ok(())
    }

    fn count_post(&mut self, text: &str, place: usize) -> Result<(), Broken> {
        let Some(post) = origin_of(text) else { return Ok(()) };
        let twice = self.posts.insert(post, place).is_some();
        hold!(!twice, "a post takes effect once", "{text:.20} again");
        let order = self.order.entry(post.client).or_default();
        let last = order.last().copied().unwrap_or(0);
        hold!(post.number > last, "posts keep their author's order", "{text:.20} after {last}");
        order.push(post.number);
        Ok(())
    }

    fn present_mut(&mut self, room: &RoomName, life: Incarnation) -> Result<&mut Life, Broken> {
        let lives = self.lives.get_mut(room);
        let present = lives.filter(|lives| lives.len() as u64 == life.get());
        let last = present.and_then(|lives| lives.last_mut());
        last.ok_or_else(|| {
            Broken::new("entries speak of the present life", format!("{room} {life}"))
        })
    }

    /// The store reported entries safe.
    pub(crate) const fn persisted(&mut self, through: Index) {
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
        if let Some(record) = entry.record()
            && let Some(life) = self.lives.get_mut(&record.room).and_then(|lives| lives.last_mut())
        {
            life.records.pop();
            life.bytes -= text_bytes(entry);
        }
        match &entry.change {
            Change::RoomCreated { room, .. } => {
                self.lives.get_mut(room).and_then(Vec::pop);
            }
            Change::Reset { room, .. } => {
                self.lives.get_mut(room).and_then(Vec::pop);
                self.deeds.retain(|_, at| *at != entry.header.index.get());
            }
            Change::Moderated { .. } => {
                self.deeds.retain(|_, at| *at != entry.header.index.get());
            }
            Change::GateOpened { room, .. } => {
                if let Some(life) = self.lives.get_mut(room).and_then(|lives| lives.last_mut()) {
                    life.opened = None;
                }
            }
            Change::Posted { text, .. } => {
                if let Some(post) = origin_of(text.as_str()) {
                    self.posts.remove(&post);
                    self.order.get_mut(&post.client).and_then(Vec::pop);
                }
            }
            Change::Joined { room, .. } | Change::Left { room, .. } => {
                self.presence.get_mut(room).and_then(Vec::pop);
            }
            Change::Founded(_)
            | Change::UserAdded { .. }
            | Change::OperatorGranted { .. }
            | Change::SessionOpened { .. }
            | Change::SessionExpired { .. }
            | Change::Refused { .. } => {}
            Change::Trimmed { room, .. } => {
                if let Some(life) = self.lives.get_mut(room).and_then(|lives| lives.last_mut()) {
                    life.trims.pop();
                }
            }
        }
    }

    /// Whether records of a life, up to this one, are gone for good, and safely so.
    pub(crate) fn is_trimmed(&self, life: &Life, through: Seq) -> bool {
        through <= self.trimmed(life)
    }

    /// The last record of a life that is gone for good, and safely so.
    pub(crate) fn trimmed(&self, life: &Life) -> Seq {
        let safe = life.trims.iter().rev().find(|(index, _)| *index <= self.safe);
        safe.map_or(Seq::ZERO, |(_, through)| *through)
    }

    /// A life of a room.
    pub(crate) fn life(&self, room: &RoomName, life: Incarnation) -> Option<&Life> {
        let place = usize::try_from(life.get()).ok()?.checked_sub(1)?;
        self.lives.get(room)?.get(place)
    }

    /// The present life of a room, and its number.
    pub(crate) fn present(&self, room: &RoomName) -> Option<(u64, &Life)> {
        let lives = self.lives.get(room)?;
        Some((lives.len() as u64, lives.last()?))
    }

    /// The newest life of a room whose beginning is safe, and its number.
    pub(crate) fn safe_life(&self, room: &RoomName) -> Option<(u64, &Life)> {
        let lives = self.lives.get(room)?;
        let newest = lives.iter().rposition(|life| self.has_begun(life))?;
        Some((newest as u64 + 1, lives.get(newest)?))
    }

    pub(crate) fn rooms(&self) -> impl Iterator<Item = &RoomName> {
        self.lives.keys()
    }

    /// Whether the gate of a life is open, and safely so.
    pub(crate) fn is_open(&self, life: &Life) -> bool {
        life.opened.is_some_and(|opened| opened <= self.safe)
    }

    /// Whether the gate of any life of a room was open, and safely so.
    pub(crate) fn was_open(&self, room: &RoomName) -> bool {
        self.lives.get(room).is_some_and(|lives| lives.iter().any(|life| self.is_open(life)))
    }

    /// Whether any life of a room had this threshold.
    pub(crate) fn had_threshold(&self, room: &RoomName, threshold: u16) -> bool {
        self.lives.get(room).is_some_and(|all| all.iter().any(|it| it.threshold == threshold))
    }

    /// Whether the beginning of a life is safe.
    pub(crate) const fn has_begun(&self, life: &Life) -> bool {
        life.began <= self.safe
    }

    /// A record that anybody sees is the journal's, safe, and of an open gate.
    pub(crate) fn check_shown(&self, record: &Record) -> Result<(), Broken> {
        let Record { room, incarnation, seq, .. } = record;
        let there =
            || Broken::new("a record is the journal's", format!("{room} {incarnation} {seq}"));
        let life = self.life(room, *incarnation).ok_or_else(there)?;
        hold!(self.is_open(life), "nothing is seen of a closed gate", "{room} {incarnation} {seq}");
        let entry = self.entry_at(life, *seq).ok_or_else(there)?;
        let safe = entry.header.index.get() <= self.safe;
        hold!(safe, "nothing is seen before it is safe", "{room} {incarnation} {seq}");
        hold!(is_record_of(entry, record), "a record says what the journal says", "{record:?}");
        Ok(())
    }

    fn entry_at(&self, life: &Life, seq: Seq) -> Option<&Entry> {
        let place = usize::try_from(seq.get()).ok()?.checked_sub(1)?;
        self.entries.get(*life.records.get(place)?).map(Arc::as_ref)
    }

    /// A post that is said to be at a place is there, and safe.
    pub(crate) fn check_place(
        &self,
        post: Post,
        (room, incarnation, seq): (&RoomName, Incarnation, Seq),
    ) -> Result<(), Broken> {
        let life = self.life(room, incarnation);
        let entry = life.and_then(|life| self.entry_at(life, seq));
        let safe = entry.filter(|entry| entry.header.index.get() <= self.safe);
        let there = safe.is_some_and(|entry| {
            matches!(&entry.change, Change::Posted { text, .. }
                if origin_of(text.as_str()) == Some(post))
        });
        hold!(there, "an acknowledged post is safe and at its place", "{post:?} {room} {seq}");
        Ok(())
    }

    /// Whether a post took effect.
    pub(crate) fn has(&self, post: Post) -> bool {
        self.posts.contains_key(&post)
    }

    /// Whether a post took effect, and safely so.
    pub(crate) fn has_safe(&self, post: Post) -> bool {
        self.posts.get(&post).is_some_and(|place| (*place as u64) < self.safe)
    }

    /// Whether a reset or a measure took effect.
    pub(crate) fn has_deed(&self, label: &str) -> bool {
        self.deeds.contains_key(label)
    }

    /// Whether a reset or a measure took effect, and safely so.
    pub(crate) fn has_safe_deed(&self, label: &str) -> bool {
        self.deeds.get(label).is_some_and(|index| *index <= self.safe)
    }

    /// Whether the gate was open when a post was made, and the room lives on: its place is no
    /// secret.
    pub(crate) fn was_shown_at_once(&self, post: Post) -> bool {
        let Some(entry) = self.posts.get(&post).and_then(|place| self.entries.get(*place)) else {
            return false;
        };
        let Change::Posted { room, incarnation, .. } = &entry.change else { return false };
        let is_present = self.present(room).is_some_and(|(life, _)| life == incarnation.get());
        let opened = self.life(room, *incarnation).and_then(|life| life.opened);
        is_present && opened.is_some_and(|opened| opened < entry.header.index.get())
    }

    /// Whether any command was refused like this.
    pub(crate) fn has_refused(&self, refusal: Refusal) -> bool {
        let safe = usize::try_from(self.safe).unwrap_or(usize::MAX);
        self.entries.iter().take(safe).any(|entry| {
            matches!(&entry.change, Change::Refused { refusal: given, .. } if *given == refusal)
        })
    }

    /// How much is safe.
    pub(crate) fn safe(&self) -> Index {
        Index::ZERO.saturating_add(self.safe)
    }

    /// How many records of a life anybody may see.
    pub(crate) fn visible(&self, life: &Life) -> u64 {
        let safe = |place: &usize| (*place as u64) < self.safe;
        if self.is_open(life) { life.records.partition_point(safe) as u64 } else { 0 }
    }

    /// The last that was safely heard of a user in a room up to a place: whether there.
    fn was_member(&self, room: &RoomName, user: &UserName, through: u64) -> bool {
        let all = self.presence.get(room).map(Vec::as_slice).unwrap_or_default();
        let of_user = all.iter().filter(|presence| presence.user == *user);
        let last = of_user.take_while(|presence| presence.index <= through).last();
        last.is_some_and(|presence| presence.came)
    }

    /// Whether a user went or came after a place, safely or not.
    fn has_moved(&self, room: &RoomName, user: &UserName, after: u64, came: bool) -> bool {
        let all = self.presence.get(room).map(Vec::as_slice).unwrap_or_default();
        all.iter().any(|it| it.index > after && it.user == *user && it.came == came)
    }

    /// Whether a user was in a room at any time since a place.
    pub(crate) fn was_there(&self, room: &RoomName, user: &UserName, since: Index) -> bool {
        let since = since.get();
        self.was_member(room, user, since) || self.has_moved(room, user, since, true)
    }

    /// Whether a user was not in a room at any time since a place.
    pub(crate) fn was_away(&self, room: &RoomName, user: &UserName, since: Index) -> bool {
        let since = since.get();
        !self.was_member(room, user, since) || self.has_moved(room, user, since, false)
    }

    /// Where a record is in the journal; where its life began for the one before the first.
    fn index_of(&self, room: &RoomName, incarnation: Incarnation, seq: Seq) -> u64 {
        let Some(life) = self.life(room, incarnation) else { return 0 };
        self.entry_at(life, seq).map_or(life.began, |entry| entry.header.index.get())
    }

    /// Whether exactly these users were in a room after a record, or later. Where people come and go
    /// without a record nobody can tell, but that they were there some time.
    pub(crate) fn were_there(
        &self,
        room: &RoomName,
        names: &[UserName],
        (incarnation, seq): (Incarnation, Seq),
    ) -> bool {
        let presence = self.presence.get(room).map(Vec::as_slice).unwrap_or_default();
        if self.has_untold(room) {
            return names.iter().all(|name| presence.iter().any(|it| it.user == *name));
        }
        let from = self.index_of(room, incarnation, seq);
        let mut there = BTreeSet::new();
        let shown: BTreeSet<&UserName> = names.iter().collect();
        for Presence { index, user, came } in presence.iter().filter(|it| it.index <= self.safe) {
            if *index > from && there == shown {
                return true;
            }
            if *came {
                there.insert(user)
            } else {
                there.remove(user)
            };
        }
        there == shown
    }

    /// Who is in a room, safely so.
    pub(crate) fn members(&self, room: &RoomName) -> BTreeSet<&UserName> {
        let mut there = BTreeSet::new();
        let presence = self.presence.get(room).into_iter().flatten();
        for Presence { user, came, .. } in presence.filter(|it| it.index <= self.safe) {
            if *came {
                there.insert(user)
            } else {
                there.remove(user)
            };
        }
        there
    }

    /// Whether somebody came or went in a room without a record.
    pub(crate) fn has_untold(&self, room: &RoomName) -> bool {
        self.lives.get(room).into_iter().flatten().any(|life| life.untold)
    }

    /// Whether a name was ever owned by another key.
    pub(crate) fn was_taken(&self, name: &UserName, by_other_than: &PublicKey) -> bool {
        self.entries.iter().any(|entry| {
            matches!(&entry.change, Change::UserAdded { user, key }
                if user == name && key != by_other_than)
        })
    }

    /// Whether a user was sent away like this, and safely so.
    pub(crate) fn was_sent_away(&self, name: &UserName, how: ExpelFault) -> bool {
        let wanted = match how {
            ExpelFault::Kicked => Measure::Kick,
            ExpelFault::Banned => Measure::Ban,
            ExpelFault::Released => Measure::Release,
        };
        let safe = usize::try_from(self.safe).unwrap_or(usize::MAX);
        self.entries.iter().take(safe).any(|entry| {
            matches!(&entry.change, Change::Moderated { user, measure, .. }
                if user == name && *measure == wanted)
        })
    }

    /// Whether a name was owned by a key, and an operator's or not, at any time since a place, and
    /// safely so.
    pub(crate) fn was_so(&self, name: &UserName, wanted: (PublicKey, bool), since: Index) -> bool {
        let mut owner: Option<(PublicKey, bool)> = None;
        for entry in &self.entries {
            let index = entry.header.index;
            if index > since && owner == Some(wanted) {
                return true;
            }
            if index.get() > self.safe {
                break;
            }
            owner = owner_after(owner, name, &entry.change);
        }
        owner == Some(wanted)
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

/// Who owns a name after an entry, and whether that is an operator.
fn owner_after(
    owner: Option<(PublicKey, bool)>,
    name: &UserName,
    change: &Change,
) -> Option<(PublicKey, bool)> {
    let made = |operator| owner.map(|(key, _)| (key, operator));
    if let Change::UserAdded { user, key } = change
        && user == name
    {
        return Some((*key, false));
    }
    if matches!(change, Change::OperatorGranted { user } if user == name) {
        return made(true);
    }
    let Change::Moderated { user, measure, .. } = change else { return owner };
    match measure {
        _ if user != name => owner,
        Measure::Op => made(true),
        Measure::Deop | Measure::Ban => made(false),
        Measure::Release => None,
        Measure::Kick | Measure::Unban => owner,
    }
}

fn text_bytes(entry: &Entry) -> u64 {
    let Change::Posted { text, .. } = &entry.change else { return 0 };
    text.as_str().len() as u64
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
