//! The rooms a client follows: a cursor each, moved without holes.

use std::collections::BTreeMap;

use crate::client::roster::{Again, Presence, Roster};
use crate::client::{Event, Outputs, Save};
use crate::id::{Incarnation, Seq, Threshold};
use crate::text::RoomName;
use crate::time::Moment;
use crate::wire::{Cursor, GateState, JoinedRoom, Question, Record, RecordBody, Start, UserList};

/// The most rooms a client follows, as many as a server allows by default.
pub(super) const ROOMS_MAX: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Rooms(BTreeMap<RoomName, Room>);

/// What the client knows of one room.
#[derive(Debug, Default)]
struct Room {
    membership: Membership,
    /// What was shown of it.
    cursor: Option<Cursor>,
    gate: Option<GateState>,
    roster: Roster,
    /// The user's label for the join that is not answered.
    label: Option<String>,
    resets: Resets,
    /// The newest post of the user's own that has a place.
    own_post: Option<Cursor>,
}

/// Resets of the user's own: each begins the life after the one before.
#[derive(Clone, Copy, Debug, Default)]
struct Resets {
    /// How many are unanswered.
    pending: u64,
    /// The life that the last answered one began, or that was there before the first.
    life: Incarnation,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Membership {
    /// Not wanted.
    #[default]
    Out,
    /// To be asked for, at this moment if there is one.
    Wanted(Option<Moment>),
    /// Asked for.
    Asked,
    /// Granted on this connection.
    In,
}

/// A question that a room needs answered.
#[derive(Debug)]
pub(super) enum Wish {
    Join(RoomName, Option<Cursor>),
    Who(RoomName),
}

/// Whether a list of users was asked for by the user, who then sees it even if it is no news.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    ByUser,
    ByClient,
}

impl Wish {
    /// The question to ask; `start` is where a room begins of which nothing was seen.
    pub(super) fn question(&self, start: Start) -> Question {
        match self {
            Self::Join(room, cursor) => {
                Question::Join { room: room.into(), start: cursor.map_or(start, Start::After) }
            }
            Self::Who(room) => Question::Who { room: room.into() },
        }
    }
}

impl Rooms {
    /// Takes over what an earlier run saw.
    pub(super) fn load(&mut self, cursors: Vec<(RoomName, Cursor)>) {
        for (name, cursor) in cursors {
            self.0.entry(name).or_default().cursor = Some(cursor);
        }
    }

    /// Wants a room; false when there are too many.
    pub(super) fn want(&mut self, name: &RoomName) -> bool {
        let wanted = self.0.values().filter(|room| room.membership != Membership::Out).count();
        if wanted >= ROOMS_MAX && !self.is_wanted(name) {
            return false;
        }
        let room = self.0.entry(name.clone()).or_default();
        if room.membership == Membership::Out {
            room.membership = Membership::Wanted(None);
        }
        true
    }

    /// Gives the join of a room that is wanted the user's label.
    pub(super) fn label(&mut self, name: &RoomName, label: String) {
        if let Some(room) = self.0.get_mut(name)
            && room.membership != Membership::In
        {
            room.label = Some(label);
        }
    }

    pub(super) fn take_label(&mut self, name: &RoomName) -> Option<String> {
        self.0.get_mut(name)?.label.take()
    }

    pub(super) fn is_wanted(&self, name: &RoomName) -> bool {
        self.0.get(name).is_some_and(|room| room.membership != Membership::Out)
    }

    /// Whether a room is wanted and its join is not answered on this connection.
    pub(super) fn is_joining(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(|room| match room.membership {
            Membership::Wanted(_) | Membership::Asked => true,
            Membership::Out | Membership::In => false,
        })
    }

    /// The rooms the client follows or is about to.
    pub(super) fn names(&self) -> impl Iterator<Item = &RoomName> {
        let wanted = self.0.iter().filter(|(_, room)| room.membership != Membership::Out);
        wanted.map(|(name, _)| name)
    }

    /// Wants a room no more. What was seen of it is remembered.
    pub(super) fn part(&mut self, name: &RoomName) {
        let Some(room) = self.0.get_mut(name) else { return };
        let cursor = room.cursor;
        *room = Room { cursor, ..Room::default() };
    }

    /// A join was refused for now.
    pub(super) fn retry(&mut self, name: &RoomName, at: Moment) {
        if let Some(room) = self.0.get_mut(name) {
            room.membership = Membership::Wanted(Some(at));
        }
    }

    /// The list of users was refused.
    pub(super) fn refuse_list(&mut self, name: &RoomName, again: Again) {
        if let Some(room) = self.0.get_mut(name) {
            room.roster.refuse(again);
        }
    }

    /// The connection is gone: every room has to be joined again.
    pub(super) fn disconnect(&mut self) {
        for room in self.0.values_mut() {
            room.roster.disconnect();
            if room.membership != Membership::Out {
                room.membership = Membership::Wanted(None);
            }
        }
    }

    /// Wants no room any more whose join is under way.
    #[cfg(chat_mutants)]
    pub(super) fn forget_joins(&mut self) {
        self.0.retain(|_, room| room.membership != Membership::Asked);
    }

    /// The journal is another one: nothing of it was seen.
    pub(super) fn forget(&mut self) {
        for room in self.0.values_mut() {
            let (membership, label) = (room.membership, room.label.take());
            let resets = Resets { life: Incarnation::ZERO, ..room.resets };
            *room = Room { membership, label, resets, ..Room::default() };
        }
    }

    /// The life that a post written now is for. While resets of the user's own are under way it is
    /// the one that the last of them begins, which has no number before it is met.
    pub(super) fn incarnation_for_post(&self, name: &RoomName) -> Option<Incarnation> {
        let Resets { pending, life } = self.0.get(name)?.resets;
        self.incarnation(name).filter(|known| known.get() >= life.get().saturating_add(pending))
    }

    /// The user resets a room.
    pub(super) fn begin_reset(&mut self, name: &str) {
        let Some(room) = self.0.get_mut(name) else { return };
        let resets = &mut room.resets;
        if let (0, Some(cursor)) = (resets.pending, room.cursor) {
            resets.life = resets.life.max(cursor.incarnation);
        }
        resets.pending = resets.pending.saturating_add(1);
    }

    /// A reset of the user's own is safe. Returns the life that it began, whose first notice may
    /// still be under way.
    pub(super) fn end_reset(&mut self, name: &str) -> Incarnation {
        let Some(room) = self.0.get_mut(name) else { return Incarnation::ZERO };
        let known = room.cursor.map_or(Incarnation::ZERO, |cursor| cursor.incarnation);
        if room.resets.pending > 0 {
            room.resets.pending = room.resets.pending.saturating_sub(1);
            room.resets.life = room.resets.life.next();
        }
        // A later life can only be that of another's reset, or of one whose answer comes next.
        if room.resets.pending > 0 { room.resets.life } else { room.resets.life.max(known) }
    }

    /// A reset of the user's own has no effect.
    pub(super) fn give_up_reset(&mut self, name: &str) {
        if let Some(room) = self.0.get_mut(name) {
            room.resets.pending = room.resets.pending.saturating_sub(1);
        }
    }

    /// A post of the user's own has this place.
    pub(super) fn note_own_post(&mut self, name: &RoomName, place: Cursor) {
        if let Some(room) = self.0.get_mut(name) {
            room.own_post = Some(place);
        }
    }

    /// Whether a post of the user's own is visible and was not shown yet.
    pub(super) fn owes_own_post(&self) -> bool {
        self.0.values().any(|room| match (room.own_post, room.cursor) {
            (Some(post), Some(shown)) => {
                post.incarnation == shown.incarnation && post.seq > shown.seq
            }
            _ => false,
        })
    }

    /// The life of a room as last known.
    pub(super) fn incarnation(&self, name: &RoomName) -> Option<Incarnation> {
        Some(self.0.get(name)?.cursor?.incarnation)
    }

    /// What has to be asked now, each once. A join has a time of its own; who is there is asked only
    /// while questions `may_be_asked`.
    pub(super) fn poll_wish(&mut self, now: Moment, may_be_asked: bool) -> Option<Wish> {
        self.0.iter_mut().find_map(|(name, room)| match room.membership {
            Membership::Wanted(at) if at.is_none_or(|at| at <= now) => {
                room.membership = Membership::Asked;
                Some(Wish::Join(name.clone(), room.cursor))
            }
            Membership::In if may_be_asked && room.roster.take_wish() => {
                Some(Wish::Who(name.clone()))
            }
            Membership::Out | Membership::Wanted(_) | Membership::Asked | Membership::In => None,
        })
    }

    /// When a join is to be tried again.
    pub(super) fn deadline(&self) -> Option<Moment> {
        let at = |room: &Room| match room.membership {
            Membership::Wanted(at) => at,
            Membership::Out | Membership::Asked | Membership::In => None,
        };
        self.0.values().filter_map(at).min()
    }

    /// A join was granted.
    pub(super) fn join(&mut self, joined: JoinedRoom, out: &mut Outputs) {
        let JoinedRoom { room: name, gate, after, users, opened } = joined;
        let Some(room) = self.0.get_mut(&name) else { return };
        if room.membership != Membership::Asked {
            return;
        }
        room.membership = Membership::In;
        room.label = None;
        if room.cursor.is_some_and(|cursor| cursor.incarnation != gate.incarnation) {
            room.reset(&name, gate.incarnation, gate.threshold, out);
        }
        match room.cursor {
            Some(cursor) if after > cursor.seq => room.skip(&name, after, out),
            Some(_) => {}
            None => {
                room.resets.life = gate.incarnation;
                room.advance(&name, gate.incarnation, after, out);
            }
        }
        if let Some(list) = users {
            room.roster.seed(list);
        }
        room.take_gate(&name, gate, opened, out);
    }

    pub(super) fn gate(&mut self, name: &RoomName, gate: GateState, out: &mut Outputs) {
        let Some((room, cursor)) = self.followed(name) else { return };
        match gate.incarnation.cmp(&cursor.incarnation) {
            core::cmp::Ordering::Less => {}
            core::cmp::Ordering::Equal => room.take_gate(name, gate, false, out),
            core::cmp::Ordering::Greater => room.rejoin(),
        }
    }

    pub(super) fn reset(
        &mut self,
        name: &RoomName,
        incarnation: Incarnation,
        threshold: Threshold,
        out: &mut Outputs,
    ) {
        let Some((room, cursor)) = self.followed(name) else { return };
        if incarnation > cursor.incarnation {
            room.reset(name, incarnation, threshold, out);
        }
    }

    pub(super) fn record(&mut self, record: Record, out: &mut Outputs) {
        let name = record.room.clone();
        let Some((room, cursor)) = self.followed(&name) else { return };
        let Record { incarnation, seq, .. } = record;
        if incarnation < cursor.incarnation {
            return;
        }
        if incarnation > cursor.incarnation || seq > cursor.seq.saturating_add(1) {
            room.rejoin();
            return;
        }
        if seq > cursor.seq {
            let presence = presence_of(&record.body);
            out.event(Event::Record(record));
            room.advance(&name, incarnation, seq, out);
            if let Some(presence) = presence {
                room.roster.note(seq, presence);
                room.show_users(&name, out);
            }
        }
    }

    pub(super) fn gap(&mut self, name: &RoomName, from: Cursor, to: Seq, out: &mut Outputs) {
        let Some((room, cursor)) = self.followed(name) else { return };
        if from.incarnation < cursor.incarnation {
            return;
        }
        let ahead = from.seq > cursor.seq.saturating_add(1);
        if from.incarnation > cursor.incarnation || ahead {
            room.rejoin();
        } else if to > cursor.seq {
            room.skip(name, to, out);
        }
    }

    pub(super) fn users(&mut self, list: UserList, wanted: Wanted, out: &mut Outputs) {
        let name = list.room.clone();
        let answer = (wanted == Wanted::ByUser).then(|| (list.count, list.names.to_vec()));
        let mut news = None;
        if let Some(room) = self.0.get_mut(&name) {
            room.roster.seed(list);
            news = room.gate.and_then(|gate| room.roster.news(gate));
        }
        show_users(&name, news.or(answer), out);
    }

    /// A room whose records are welcome.
    fn followed(&mut self, name: &RoomName) -> Option<(&mut Room, Cursor)> {
        let room = self.0.get_mut(name)?;
        let cursor = room.cursor?;
        match room.membership {
            Membership::In | Membership::Asked => Some((room, cursor)),
            Membership::Out | Membership::Wanted(_) => None,
        }
    }
}

impl Room {
    /// Something is missing: joining again sends everything after the cursor. Once, until it is
    /// answered.
    fn rejoin(&mut self) {
        if self.membership == Membership::In {
            self.membership = Membership::Wanted(None);
        }
    }

    fn advance(&mut self, name: &RoomName, incarnation: Incarnation, seq: Seq, out: &mut Outputs) {
        let cursor = Cursor { incarnation, seq };
        self.cursor = Some(cursor);
        out.save(Save::Seen(name.clone(), cursor));
    }

    /// Moves the cursor over records that are gone.
    fn skip(&mut self, name: &RoomName, to: Seq, out: &mut Outputs) {
        let Some(Cursor { incarnation, seq }) = self.cursor else { return };
        let (room, from) = (name.clone(), seq.saturating_add(1));
        out.event(Event::Gap { room, incarnation, from, to });
        self.advance(name, incarnation, to, out);
        self.roster.miss(to);
        if let Some(gate) = self.gate {
            self.roster.heed(gate);
        }
    }

    fn reset(
        &mut self,
        name: &RoomName,
        incarnation: Incarnation,
        threshold: Threshold,
        out: &mut Outputs,
    ) {
        out.event(Event::Reset { room: name.clone(), incarnation, threshold });
        self.roster.reset();
        if let Some(gate) = &mut self.gate {
            // Until the next notice nobody knows whether it is open.
            *gate = GateState { incarnation, users: gate.users, threshold, open: false };
        }
        self.advance(name, incarnation, Seq::ZERO, out);
    }

    /// Takes a gate, which `opened` by joining or opens if it was seen closed.
    fn take_gate(&mut self, name: &RoomName, gate: GateState, opened: bool, out: &mut Outputs) {
        let before = self.gate.replace(gate);
        let opened = gate.open && (opened || before.is_some_and(|before| !before.open));
        out.event(Event::Gate { room: name.clone(), gate, opened });
        self.show_users(name, out);
        self.roster.heed(gate);
    }

    fn show_users(&mut self, name: &RoomName, out: &mut Outputs) {
        let Some(gate) = self.gate else { return };
        show_users(name, self.roster.news(gate), out);
    }
}

fn show_users(
    name: &RoomName,
    value: Option<(u32, Vec<crate::text::UserName>)>,
    out: &mut Outputs,
) {
    if let Some((count, names)) = value {
        out.event(Event::Users { room: name.clone(), count, names });
    }
}

fn presence_of(body: &RecordBody) -> Option<Presence> {
    match body {
        RecordBody::Post { .. } => None,
        RecordBody::Joined { user } => Some(Presence::Joined(user.clone())),
        RecordBody::Left { user } => Some(Presence::Left(user.clone())),
    }
}
