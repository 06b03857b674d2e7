//! What happens when entries are safe: readers see them, and answers that waited are sent.

use crate::engine::session::Outcome;
use crate::engine::{Directive, Engine, Misuse, Output, TimerKind};
use crate::id::{ConnId, Counter, Incarnation, Index, RequestId, Seq};
use crate::log::Change;
use crate::text::RoomName;
use crate::time::Moment;
use crate::wire::{Answer, GateState, JoinedRoom, Refusal, ServerFrame, Start};

/// Something that leaves once an entry is committed.
#[derive(Clone, Debug)]
pub(crate) enum Pending {
    /// A frame.
    Frame { conn: ConnId, frame: ServerFrame },
    /// The answer to a post; whether it names a place depends on the gate at that time.
    Posted { conn: ConnId, counter: Counter, room: RoomName, incarnation: Incarnation, seq: Seq },
    /// The answer to a join, and the start of following.
    Joined { conn: ConnId, request: RequestId, room: RoomName, start: Start },
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
}

impl Engine {
    /// Sends a frame that depends on the state as it is now: once that is committed.
    pub(super) fn reply(&mut self, conn: ConnId, frame: ServerFrame) {
        self.when_committed(self.head.index, Pending::Frame { conn, frame });
    }

    pub(super) fn when_committed(&mut self, index: Index, pending: Pending) {
        if index <= self.committed && self.pending.is_empty() {
            self.release(pending);
            return;
        }
        // Answers keep their order, so one that is ready waits for those before it.
        let after = self.pending.back().map_or(index, |(last, _)| index.max(*last));
        self.pending.push_back((after, pending));
    }

    pub(super) fn handle_persisted(&mut self, through: Index) -> Result<(), Misuse> {
        let (committed, appended) = (self.committed, self.head.index);
        if through <= committed || through > appended {
            return Err(Misuse::PersistedOutOfRange { through, committed, appended });
        }
        self.committed = through;
        while self.uncommitted.front().is_some_and(|entry| entry.header.index <= through) {
            let Some(entry) = self.uncommitted.pop_front() else { break };
            if let Change::Reset { room, incarnation, threshold, .. } = &entry.change {
                // Readers see the end of the old life before the new one begins.
                self.show();
                self.feed.advance(&entry);
                let (room, incarnation, threshold) = (room.clone(), *incarnation, *threshold);
                self.changed_gates.push(room.clone());
                self.deliver(Directive::Reset { room, incarnation, threshold });
            } else {
                self.feed.advance(&entry);
                self.note_gate_change(&entry.change);
            }
        }
        self.show();
        while self.pending.front().is_some_and(|(index, _)| *index <= through) {
            if let Some((_, pending)) = self.pending.pop_front() {
                self.release(pending);
            }
        }
        Ok(())
    }

    fn note_gate_change(&mut self, change: &Change) {
        let changes_gate = matches!(
            change,
            Change::Joined { .. } | Change::Left { .. } | Change::GateOpened { .. }
        );
        if let (true, Some(room)) = (changes_gate, change.room()) {
            if self.changed_gates.last() != Some(room) {
                self.changed_gates.push(room.clone());
            }
        }
    }

    /// Gives readers what became visible.
    fn show(&mut self) {
        for shown in self.feed.flush() {
            let (room, incarnation) = (shown.room, shown.incarnation);
            let (through, chunk) = (shown.through, shown.chunk);
            self.deliver(Directive::Visible { room, incarnation, through, chunk });
        }
    }

    fn release(&mut self, pending: Pending) {
        match pending {
            Pending::Frame { conn, frame } => self.send(conn, frame),
            Pending::Posted { conn, counter, room, incarnation, seq } => {
                let feed = self.feed.room(&room);
                let visible =
                    feed.is_some_and(|feed| feed.incarnation == incarnation && feed.visible >= seq);
                let seq = visible.then_some(seq);
                self.send(conn, ServerFrame::Accepted { counter, room, incarnation, seq });
            }
            Pending::Joined { conn, request, room, start } => {
                self.release_joined(conn, request, room, start);
            }
        }
    }

    fn release_joined(&mut self, conn: ConnId, request: RequestId, room: RoomName, start: Start) {
        let follows = self.volatile.online(conn).is_some_and(|online| online.rooms.contains(&room));
        let (Some(feed), Some(gate)) = (self.feed.room(&room), self.gate_state(&room)) else {
            return;
        };
        // The client left the room, or the server, before it was in.
        if !follows {
            let answer = Answer::Parted { room };
            return self.send(conn, ServerFrame::Answer { request, answer });
        }
        let (after, visible) = (Self::resolve_start(feed, start), feed.visible);
        let users = gate.open.then(|| self.user_list(&room));
        let joined = JoinedRoom { room: room.clone(), gate, after, users };
        self.send(conn, ServerFrame::Answer { request, answer: Answer::Joined(joined) });
        self.deliver(Directive::Follow { conn, room, after, visible, gate });
    }

    /// A gate as everybody in the room may know it; `None` until the room is committed.
    pub(super) fn gate_state(&self, room: &RoomName) -> Option<GateState> {
        let feed = self.feed.room(room)?;
        let members = self.durable.room(room).map_or(0, |state| state.members.len());
        let users = if feed.open {
            u32::try_from(members).unwrap_or(u32::MAX)
        } else {
            self.volatile.attending(room)
        };
        let (incarnation, threshold, open) = (feed.incarnation, feed.threshold, feed.open);
        Some(GateState { incarnation, users, threshold, open })
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
        let Some(gate) = self.gate_state(&room) else { return };
        let crowd = gate.users > self.config.limits.crowd_members;
        let interval = self.config.limits.crowd_notice_interval;
        let Some(attendance) = self.volatile.attendance.get_mut(&room) else { return };
        if attendance.announced == Some(gate) || attendance.notice_waits {
            return;
        }
        let opened = attendance.announced.is_none_or(|before| {
            before.open != gate.open || before.incarnation != gate.incarnation
        });
        if crowd && !opened && now < attendance.quiet_until {
            attendance.notice_waits = true;
            let at = attendance.quiet_until;
            self.volatile.set_timer(at, TimerKind::Notice(room));
            return;
        }
        attendance.announced = Some(gate);
        attendance.quiet_until = now + interval;
        self.outputs.push_back(Output::Deliver(Directive::Gate { room, gate }));
    }

    /// A crowd may be told of its gate again.
    pub(super) fn end_quiet(&mut self, room: RoomName) {
        if let Some(attendance) = self.volatile.attendance.get_mut(&room) {
            attendance.notice_waits = false;
        }
        self.changed_gates.push(room);
    }
}
