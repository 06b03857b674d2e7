//! What leaves once an entry is safe: records, gates, and the answers that waited.

use std::sync::Arc;

use chatcore::engine::Directive;
use chatcore::id::{ConnId, Index, RequestId, Seq};
use chatcore::log::{Change, Entry};
use chatcore::text::{RoomName, UserName};
use chatcore::wire::{
    Answer, GateState, JoinedRoom, List, Refusal, RoomInfo, ServerFrame, Start, TargetFault,
    UserInfo, UserList,
};

use super::Model;
use super::due::{Duty, Rooms, What};
use super::presence::{Asked, Side, Store, Waiting};
use super::truth::{RoomTruth, to_u32};

impl Model {
    /// A frame that tells of the state as it is now.
    pub(super) fn reply(&mut self, conn: ConnId, frame: ServerFrame) {
        self.when_safe(self.last, Waiting::Frame { conn, frame });
    }

    /// Answers leave in the order in which they came about, each once its entry is safe.
    pub(super) fn when_safe(&mut self, index: Index, waiting: Waiting) {
        if index <= self.committed && self.may_leave(waiting.conn()) {
            return self.release(waiting);
        }
        let after = self.process.waiting.back().map_or(index, |(last, _)| index.max(*last));
        if let Some(state) = self.process.conn_mut(waiting.conn()) {
            state.waiting += 1;
        }
        self.process.waiting.push_back((after, waiting));
    }

    /// Whether an answer that is ready may leave before those that wait: only those of others, and
    /// only while a full store makes them wait for nobody knows how long.
    fn may_leave(&self, conn: Option<ConnId>) -> bool {
        let state = conn.and_then(|conn| self.process.conns.get(&conn));
        let is_first = state.is_none_or(|state| state.waiting == 0);
        let is_full = self.process.store == Store::Full;
        self.process.waiting.is_empty() || is_full && is_first
    }

    /// The entry that an answer waits for: the newest, or while the store is full the newest of
    /// those that the answer tells of.
    pub(super) fn basis(&self, tells_of: impl Fn(&Change) -> bool) -> Index {
        if self.process.store == Store::Free {
            return self.last;
        }
        let new = self.due.entries.iter().map(|due| (due.index, &due.change));
        let old = self.uncommitted.iter().map(|entry| (entry.header.index, &entry.change));
        let newest = old.chain(new).filter(|(_, change)| tells_of(change)).map(|(index, _)| index);
        newest.max().unwrap_or(self.committed)
    }

    pub(super) fn persisted(&mut self, through: Index) {
        self.committed = through;
        while let Some(entry) = self.uncommitted.pop_front_if(|e| e.header.index <= through) {
            let index = entry.header.index;
            self.publish(&entry);
            while let Some((_, waiting)) =
                self.process.waiting.pop_front_if(|(after, _)| *after <= index)
            {
                if let Some(state) = self.process.conn_mut(waiting.conn()) {
                    state.waiting -= 1;
                }
                self.release(waiting);
            }
        }
    }

    /// Readers may know of an entry.
    fn publish(&mut self, entry: &Arc<Entry>) {
        self.commit(entry);
        match &entry.change {
            Change::Joined { room, .. } | Change::Left { room, .. } => {
                self.touched.push(room.clone());
                self.show(entry);
            }
            Change::Posted { .. } => self.show(entry),
            Change::GateOpened { room, .. } => {
                // Readers hear that it is open before they see what it held.
                self.announce(room);
                let truth = self.safe.rooms.get(room).expect("a gate is a room's");
                for held in truth.entries(Seq::ZERO.next(), truth.last()) {
                    self.due.show(room, truth.incarnation, Arc::clone(held));
                }
            }
            Change::Reset { room, incarnation, threshold, .. } => {
                let (room, incarnation, threshold) = (room.clone(), *incarnation, *threshold);
                self.touched.push(room.clone());
                let name = room.clone();
                let directive = Directive::Reset { room, incarnation, threshold };
                self.due.tell_room(&name, directive);
            }
            Change::Trimmed { room, incarnation, through } => {
                let (room, incarnation, through) = (room.clone(), *incarnation, *through);
                self.due.must(What::Exactly(Directive::Trim { room, incarnation, through }));
            }
            Change::Founded(_)
            | Change::UserAdded { .. }
            | Change::OperatorGranted { .. }
            | Change::SessionOpened { .. }
            | Change::SessionExpired { .. }
            | Change::RoomCreated { .. }
            | Change::Refused { .. }
            | Change::Moderated { .. } => {}
        }
    }

    /// Takes an entry into what is safe.
    pub(super) fn commit(&mut self, entry: &Arc<Entry>) {
        let header = &entry.header;
        self.safe.apply(header.index, header.at, &entry.change);
        self.committed_at = header.at;
        self.chain.commit(header);
        if super::due::seq_of(entry).is_some()
            && let Some(room) = entry.change.room()
        {
            self.safe.room_mut(room).keep(Arc::clone(entry));
        }
    }

    fn show(&mut self, entry: &Arc<Entry>) {
        if super::due::seq_of(entry).is_none() {
            return;
        }
        let Some(room) = entry.change.room() else { return };
        let truth = self.safe.rooms.get(room).expect("a record is a room's");
        if truth.open {
            self.due.show(room, truth.incarnation, Arc::clone(entry));
        }
    }

    /// What goes to a connection that is closed does no harm, and need not go.
    pub(super) fn duty_to(&self, conn: ConnId) -> Duty {
        if self.process.is_serving(conn) { Duty::Must } else { Duty::May }
    }

    fn tell(&mut self, conn: ConnId, directive: Directive) {
        let (what, duty) = (What::Exactly(directive), self.duty_to(conn));
        self.due.add(what, duty);
    }

    pub(super) fn release(&mut self, waiting: Waiting) {
        match waiting {
            Waiting::Frame { conn, frame } => self.tell(conn, Directive::Send { conn, frame }),
            Waiting::Posted { conn, counter, room, incarnation, seq } => {
                let truth = self.safe.rooms.get(&room);
                let is_visible = truth.is_some_and(|truth| {
                    truth.incarnation == incarnation && seq <= truth.visible()
                });
                let seq = is_visible.then_some(seq);
                let frame = ServerFrame::Accepted { counter, room, incarnation, seq };
                self.tell(conn, Directive::Send { conn, frame });
            }
            Waiting::Question { conn, request, what } => self.answer(conn, request, what),
            Waiting::Close { conn, refusal } => {
                if self.process.stop_waiting(conn) {
                    self.tell_close(conn, Some(refusal));
                }
            }
            Waiting::Moderated { request, refusal } => self.due.moderated.push((request, refusal)),
        }
    }

    fn answer(&mut self, conn: ConnId, request: RequestId, asked: Asked) {
        let answer = match asked {
            Asked::Join { room, start, opens } => {
                return self.joined((conn, request), room, start, opens);
            }
            Asked::Part { room } => {
                self.tell(conn, Directive::Unfollow { conn, room: room.clone() });
                Ok(Answer::Parted { room })
            }
            Asked::Rooms => return self.rooms_due(conn, request),
            Asked::Who { room } => {
                self.opened(&room).map(|truth| Answer::Users(user_list(&room, truth)))
            }
            Asked::Whois { room, user } => self.user_info(&room, user).map(Answer::User),
            Asked::History { room, before, limit } => match self.opened(&room) {
                Ok(_) => return self.history((conn, request), room, before, limit),
                Err(refusal) => Err(refusal),
            },
        };
        let answer = answer.unwrap_or_else(Answer::Refused);
        let frame = ServerFrame::Answer { request, answer };
        self.tell(conn, Directive::Send { conn, frame });
    }

    /// A room, if its gate is open to readers.
    fn opened(&self, room: &RoomName) -> Result<&RoomTruth, Refusal> {
        let truth = self.safe.rooms.get(room).ok_or(Refusal::Target(TargetFault::Room))?;
        if truth.open {
            return Ok(truth);
        }
        let have = self.process.sides.get(room).map_or(0, |side| side.known);
        Err(Refusal::Gate { have, need: truth.threshold.get() })
    }

    fn user_info(&self, room: &RoomName, user: Option<UserName>) -> Result<UserInfo, Refusal> {
        let truth = self.opened(room)?;
        let unknown = Refusal::Target(TargetFault::User);
        let user = user.filter(|user| truth.members.contains(user)).ok_or(unknown)?;
        let state = self.safe.users.get(&user).ok_or(unknown)?;
        let (key, operator) = (state.key, state.operator);
        let connected = self.process.is_connected(&user);
        Ok(UserInfo { user, key, connected, operator })
    }

    fn joined(
        &mut self,
        (conn, request): (ConnId, RequestId),
        room: RoomName,
        start: Start,
        opens: bool,
    ) {
        if self.process.online(conn).is_none() {
            return;
        }
        self.process.make_known(conn, &room);
        self.touched.push(room.clone());
        let truth = self.safe.rooms.get(&room).expect("a room that is joined is made");
        let visible = truth.visible();
        let after = match start {
            // Who is there when a gate opens gets all of it.
            _ if opens => Seq::ZERO,
            Start::After(cursor) if cursor.incarnation == truth.incarnation => cursor.seq,
            Start::After(_) => Seq::ZERO,
            // What is gone was not asked for.
            Start::Last(count) => visible.saturating_sub(count).max(truth.trimmed),
            Start::At(first) => first.previous(),
        };
        let after = after.min(visible);
        let gate = gate_of(truth, self.process.sides.get(&room));
        let users = truth.open.then(|| user_list(&room, truth));
        let answer =
            Answer::Joined(JoinedRoom { room: room.clone(), gate, after, users, opened: opens });
        self.due.send(conn, ServerFrame::Answer { request, answer });
        self.due.must(What::Exactly(Directive::Follow { conn, room, after, visible, gate }));
    }

    fn rooms_due(&mut self, conn: ConnId, request: RequestId) {
        let rooms = &self.safe.rooms;
        let infos = rooms.iter().take(chatcore::wire::LIST_MAX).map(|(room, truth)| {
            let gate = gate_of(truth, self.process.sides.get(room));
            RoomInfo { room: room.clone(), gate }
        });
        let infos: Vec<RoomInfo> = infos.collect();
        // Each takes at most so many bytes beside its name.
        let bytes: usize = infos.iter().map(|info| info.room.as_str().len() + 32).sum();
        let fit_all = bytes < self.limits.page_bytes;
        let count = to_u32(rooms.len());
        let what = What::Rooms(Rooms { conn, request, infos, count, fit_all });
        let duty = self.duty_to(conn);
        self.due.add(what, duty);
    }

    /// Tells of every gate that may have changed, each once.
    pub(super) fn announce_touched(&mut self) {
        if self.touched.is_empty() {
            return;
        }
        let mut rooms = core::mem::take(&mut self.touched);
        rooms.sort_unstable();
        rooms.dedup();
        rooms.iter().for_each(|room| self.announce(room));
        rooms.clear();
        self.touched = rooms;
    }

    fn announce(&mut self, room: &RoomName) {
        let Some(truth) = self.safe.rooms.get(room) else { return };
        let Some(side) = self.process.sides.get_mut(room) else { return };
        let gate = gate_of(truth, Some(side));
        if !side.watched || side.announced == Some(gate) {
            return;
        }
        let now = self.now.moment;
        let is_new = side.announced.is_none_or(|before| {
            before.open != gate.open || before.incarnation != gate.incarnation
        });
        let crowd = gate.users > self.limits.crowd_members;
        if crowd && !is_new && now < side.quiet_until {
            if !side.notice_waits {
                side.notice_waits = true;
                self.process.notices.insert((side.quiet_until, room.clone()));
            }
            return;
        }
        side.announced = Some(gate);
        side.quiet_until = now + self.limits.crowd_notice_interval;
        self.due.tell_room(room, Directive::Gate { room: room.clone(), gate });
    }
}

/// A gate as everybody may know it.
fn gate_of(truth: &RoomTruth, side: Option<&Side>) -> GateState {
    let users =
        if truth.open { to_u32(truth.members.len()) } else { side.map_or(0, |side| side.known) };
    let (incarnation, threshold, open) = (truth.incarnation, truth.threshold, truth.open);
    GateState { incarnation, users, threshold, open }
}

fn user_list(room: &RoomName, truth: &RoomTruth) -> UserList {
    UserList {
        room: room.clone(),
        count: to_u32(truth.members.len()),
        names: List::first_of(truth.members.iter().cloned()),
        as_of: truth.visible(),
    }
}
