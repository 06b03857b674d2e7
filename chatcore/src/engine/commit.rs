//! What happens when entries are safe: readers see them, and answers that waited are sent.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::engine::feed::RoomFeed;
use crate::engine::question::View;
use crate::engine::session::Outcome;
use crate::engine::{Directive, Duty, Engine, Misuse, Output, TimerKind};
use crate::id::{ConnId, Counter, Incarnation, Index, RequestId, Seq};
use crate::log::{Change, Entry};
use crate::text::RoomName;
use crate::time::Moment;
use crate::wire::{Answer, GateState, JoinedRoom, Refusal, ServerFrame, Start, Welcome};

/// Something that leaves once an entry is committed.
#[derive(Clone, Debug)]
pub(crate) enum Pending {
    /// A frame.
    Frame { conn: ConnId, frame: ServerFrame },
    /// The answer to a log-in, and what everybody was told who was logged in before.
    Welcome { conn: ConnId, welcome: Welcome },
    /// The answer to a post; whether it names a place depends on the gate at that time.
    Posted { conn: ConnId, counter: Counter, room: RoomName, incarnation: Incarnation, seq: Seq },
    /// The answer to a join, and the start of following.
    Joined { conn: ConnId, request: RequestId, room: RoomName, start: Start, opened: bool },
    /// The answer to leaving a room, and the end of following.
    Parted { conn: ConnId, request: RequestId, room: RoomName },
    /// The answer to a question that changes nothing: it shows the committed state of then.
    View { conn: ConnId, request: RequestId, view: View },
    /// The end of a connection, which speaks for nobody any more.
    Close { conn: ConnId, refusal: Refusal },
    /// The answer to those who run the server.
    Moderated { request: RequestId, refusal: Option<Refusal> },
}

impl Pending {
    pub(super) fn outcome(conn: ConnId, counter: Counter, outcome: &Outcome) -> Self {
        let frame = match outcome {
            Outcome::Posted { room, incarnation, seq } => {
                let (room, incarnation, seq) = (room.clone(), *incarnation, *seq);
                return Self::Posted { conn, counter, room, incarnation, seq };
            }
            Outcome::Applied => ServerFrame::Applied { counter },
            Outcome::Refused(refusal) => {
                let refusal: Refusal = *refusal;
                ServerFrame::Refused { counter, refusal }
            }
        };
        Self::Frame { conn, frame }
    }

    /// The connection that it is for, if any.
    const fn conn(&self) -> Option<ConnId> {
        match self {
            Self::Frame { conn, .. }
            | Self::Welcome { conn, .. }
            | Self::Posted { conn, .. }
            | Self::Joined { conn, .. }
            | Self::Parted { conn, .. }
            | Self::View { conn, .. }
            | Self::Close { conn, .. } => Some(*conn),
            Self::Moderated { .. } => None,
        }
    }
}

impl Engine {
    /// Sends a frame that depends on the state as it is now: once that is committed.
    pub(super) fn reply(&mut self, conn: ConnId, frame: ServerFrame) {
        self.when_committed(self.head.index, Pending::Frame { conn, frame });
    }

    pub(super) fn when_committed(&mut self, index: Index, pending: Pending) {
        let is_hasty = mutated!(self, AckBeforeCommit) && matches!(pending, Pending::Posted { .. });
        if is_hasty || (index <= self.committed && self.may_overtake(pending.conn())) {
            self.release(pending);
            return;
        }
        // Answers keep their order, so one that is ready waits for those before it.
        let after = self.pending.back().map_or(index, |(last, _)| index.max(*last));
        self.count_waiting(&pending, |waiting| waiting.saturating_add(1));
        self.pending.push_back((after, pending));
    }

    /// The entry that an answer waits for which shows, of what is not committed, only what
    /// `concerns` it. Usually it waits for the newest of all, so that answers come in order; while
    /// the store is full there is no telling for how long.
    pub(super) fn basis(&self, concerns: impl Fn(&Change) -> bool) -> Index {
        if !self.store_full {
            return self.head.index;
        }
        let last = self.uncommitted.iter().rfind(|entry| concerns(&entry.change));
        last.map_or(self.committed, |entry| entry.header.index)
    }

    /// Whether an answer that is ready may leave before those that wait. It never leaves before an
    /// earlier one of its connection: what that one begins or ends must come first. (What changes
    /// nothing begins and ends nothing: while the store is full it waits for none, and is not asked.)
    fn may_overtake(&self, conn: Option<ConnId>) -> bool {
        let connection = conn.and_then(|conn| self.volatile.connections.get(&conn));
        let is_first = connection.is_none_or(|connection| connection.waiting == 0);
        self.pending.is_empty() || (self.store_full && is_first)
    }

    fn count_waiting(&mut self, pending: &Pending, count: impl FnOnce(u32) -> u32) {
        let connection = pending.conn().and_then(|conn| self.volatile.connections.get_mut(&conn));
        if let Some(connection) = connection {
            connection.waiting = count(connection.waiting);
        }
    }

    /// Nothing more is appended for a client. Whoever looks around is not kept waiting for that to end.
    pub(super) fn handle_store_full(&mut self) {
        if mutated!(self, IgnoreFullStore) {
            return;
        }
        self.store_full = true;
        let waiting = core::mem::take(&mut self.pending);
        let is_view = |(_, pending): &(Index, Pending)| matches!(pending, Pending::View { .. });
        let (views, others): (VecDeque<_>, _) = waiting.into_iter().partition(is_view);
        self.pending = others;
        for (_, view) in views {
            self.count_waiting(&view, |waiting| waiting.saturating_sub(1));
            self.release(view);
        }
    }

    /// Shows readers every entry that is safe, and after each what waited for it. So it makes no
    /// difference how many entries become safe at once.
    pub(super) fn handle_persisted(&mut self, now: Moment, through: Index) -> Result<(), Misuse> {
        if let Duty::Retired { .. } = self.duty {
            return Ok(());
        }
        let (committed, appended) = (self.committed, self.head.index);
        if through <= committed || through > appended {
            return Err(Misuse::PersistedOutOfRange { through, committed, appended });
        }
        self.committed = through;
        let is_safe = |entry: &mut Arc<Entry>| entry.header.index <= through;
        while let Some(entry) = self.uncommitted.pop_front_if(is_safe) {
            if !mutated!(self, DeliverBeforeCommit) {
                self.publish(now, &entry);
            }
            let index = entry.header.index;
            while self.replaced.pop_front_if(|(after, _)| *after <= index).is_some() {}
            while let Some((_, pending)) = self.pending.pop_front_if(|(after, _)| *after <= index) {
                self.count_waiting(&pending, |waiting| waiting.saturating_sub(1));
                self.release(pending);
            }
        }
        self.show();
        // An engine whose follower may take over is told nothing else.
        assert_eq!(self.head.index, appended, "that entries are safe must decide nothing");
        Ok(())
    }

    /// Lets readers know of a committed entry. Its record follows with [`Self::show`].
    pub(super) fn publish(&mut self, now: Moment, entry: &Entry) {
        if let Change::Reset { .. } = &entry.change {
            // Readers see the end of the old life before the new one begins.
            self.show();
        }
        self.feed.advance(entry);
        match &entry.change {
            Change::Reset { room, incarnation, threshold, .. } => {
                let (room, incarnation, threshold) = (room.clone(), *incarnation, *threshold);
                self.changed_gates.push(room.clone());
                self.deliver(Directive::Reset { room, incarnation, threshold });
            }
            // Readers hear that a gate opened before they see what it held.
            Change::GateOpened { room, .. } => self.announce_gate(now, room.clone()),
            Change::Trimmed { room, incarnation, through } => {
                let (room, incarnation, through) = (room.clone(), *incarnation, *through);
                self.deliver(Directive::Trim { room, incarnation, through });
            }
            Change::Joined { room, .. } | Change::Left { room, .. } => {
                self.changed_gates.push(room.clone());
            }
            Change::Founded(_)
            | Change::UserAdded { .. }
            | Change::OperatorGranted { .. }
            | Change::SessionOpened { .. }
            | Change::SessionExpired { .. }
            | Change::RoomCreated { .. }
            | Change::Posted { .. }
            | Change::Refused { .. }
            | Change::Moderated { .. } => {}
        }
    }

    /// Gives readers what became visible.
    pub(super) fn show(&mut self) {
        for shown in self.feed.flush() {
            let (room, incarnation) = (shown.room, shown.incarnation);
            let (through, chunk) = (shown.through, shown.chunk);
            self.deliver(Directive::Visible { room, incarnation, through, chunk });
        }
    }

    pub(super) fn release(&mut self, pending: Pending) {
        match pending {
            Pending::Frame { conn, frame } => self.send(conn, frame),
            Pending::Welcome { conn, welcome } => self.release_welcome(conn, welcome),
            Pending::Posted { conn, counter, room, incarnation, seq } => {
                let feed = self.feed.room(&room);
                let visible = feed.is_some_and(|feed| feed.shows(incarnation, seq))
                    || mutated!(self, TellHeldPlace);
                let seq = visible.then_some(seq);
                self.send(conn, ServerFrame::Accepted { counter, room, incarnation, seq });
            }
            Pending::Joined { conn, request, room, start, opened } => {
                self.show();
                // Who is there when a gate opens starts at the first record.
                let start = if opened { Start::At(Seq::ZERO.next()) } else { start };
                self.release_joined(conn, request, room, start, opened);
            }
            Pending::Parted { conn, request, room } => {
                self.deliver(Directive::Unfollow { conn, room: room.clone() });
                let answer = Answer::Parted { room };
                self.send(conn, ServerFrame::Answer { request, answer });
            }
            Pending::View { conn, request, view } => {
                self.show();
                self.release_view(conn, request, view);
            }
            Pending::Close { conn, refusal } => self.close_turned_away(conn, refusal),
            Pending::Moderated { request, refusal } => {
                self.outputs.push_back(Output::Moderated { request, refusal });
            }
        }
    }

    fn release_welcome(&mut self, conn: ConnId, welcome: Welcome) {
        self.send(conn, ServerFrame::Welcome(welcome));
        if !self.volatile.set_welcomed(conn) {
            return;
        }
        self.tell_generation(conn);
        if let Some(frame) = self.announcement() {
            self.send(conn, frame);
        }
    }

    fn release_joined(
        &mut self,
        conn: ConnId,
        request: RequestId,
        room: RoomName,
        start: Start,
        opened: bool,
    ) {
        if self.volatile.online(conn).is_none() {
            return;
        }
        self.volatile.make_known(conn, &room);
        self.changed_gates.push(room.clone());
        let feed = self.feed.room(&room).expect("a room whose join is committed must exist");
        #[cfg(chat_mutants)]
        let start = self.forget_cursor(start);
        let (after, visible) = (Self::resolve_start(feed, start), feed.visible);
        let gate = self.gate_of(&room, feed);
        let users = gate.open.then(|| Self::user_list(&room, feed));
        let joined = JoinedRoom { room: room.clone(), gate, after, users, opened };
        self.send(conn, ServerFrame::Answer { request, answer: Answer::Joined(joined) });
        self.deliver(Directive::Follow { conn, room, after, visible, gate });
    }

    /// A gate as everybody may know it: nothing in it can be taken back.
    pub(super) fn gate_of(&self, room: &RoomName, feed: &RoomFeed) -> GateState {
        let users = if feed.open {
            u32::try_from(feed.members.len()).unwrap_or(u32::MAX)
        } else {
            self.volatile.shown_attending(room, feed.threshold)
        };
        let (incarnation, threshold, open) = (feed.incarnation, feed.threshold, feed.open);
        GateState { incarnation, users, threshold, open }
    }

    /// Tells rooms whose gate changed, each once.
    pub(super) fn announce_gates(&mut self, now: Moment) {
        let mut rooms = core::mem::take(&mut self.changed_gates);
        rooms.sort_unstable();
        rooms.dedup();
        for room in rooms {
            self.announce_gate(now, room);
        }
    }

    fn announce_gate(&mut self, now: Moment, room: RoomName) {
        let Some(feed) = self.feed.room(&room) else { return };
        let gate = self.gate_of(&room, feed);
        let crowd = gate.users > self.config.limits.crowd_members;
        let interval = self.config.limits.crowd_notice_interval;
        let Some(attendance) = self.volatile.attendance.get_mut(&room) else { return };
        if attendance.announced == Some(gate) {
            return;
        }
        let opened = attendance.announced.is_none_or(|before| {
            before.open != gate.open || before.incarnation != gate.incarnation
        });
        if crowd && !opened && now < attendance.quiet_until {
            if !core::mem::replace(&mut attendance.notice_waits, true) {
                let at = attendance.quiet_until;
                self.volatile.set_timer(at, TimerKind::Notice(room));
            }
            return;
        }
        attendance.announced = Some(gate);
        attendance.quiet_until = now + interval;
        self.deliver(Directive::Gate { room, gate });
    }

    /// A crowd may be told of its gate again.
    pub(super) fn end_quiet(&mut self, room: RoomName) {
        if let Some(attendance) = self.volatile.attendance.get_mut(&room) {
            attendance.notice_waits = false;
        }
        self.changed_gates.push(room);
    }
}
