//! Which of the situations in [`Mark`] a world is in.
#![expect(clippy::wildcard_enum_match_arm, reason = "most of what happens is worth no mark")]

use std::collections::{BTreeMap, BTreeSet};

use chatcore::client::Event as Shown;
use chatcore::engine::{Directive, Need};
use chatcore::id::{ConnId, Counter, Incarnation, Index};
use chatcore::log::{Change, Entry};
use chatcore::text::{BODY_BYTES_MAX, RoomName, UserName};
use chatcore::wire::{
    Answer, AuthFault, ClientFrame, Command, LimitFault, Measure, NameFault, Question, Refusal,
    ServerFrame, Start, StateFault, TargetFault,
};

use crate::marks::Mark;
use crate::world::World;
use crate::world::net::Dialler;
use crate::world::store::Wanted;

/// How long after a restart something happens "soon".
const SOON: u64 = 2_000;

/// What is remembered to tell situations apart.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "what was seen of several things")]
pub(crate) struct Memory {
    /// What could not be read, until it was.
    pub(crate) failed_read: Option<Wanted>,
    /// Whether what happens now happens because its time has come.
    pub(crate) in_timeout: bool,
    /// The next read is to be answered wrongly first.
    pub(crate) owes_wrong_records: bool,
    /// Commands that were refused because the store was full: the last of each connection.
    refused_when_full: BTreeMap<ConnId, Counter>,
    crashed_at: Option<u64>,
    restarted_at: Option<u64>,
    /// Rooms whose gate was closed at the last restart.
    closed_at_restart: BTreeSet<RoomName>,
    /// Clients that came back, until they are told a gate.
    came_back: BTreeSet<usize>,
    /// The run of the server that each client was last logged in to.
    boots: BTreeMap<usize, u64>,
    /// Rooms that were reset since each client was last connected.
    reset_since: BTreeSet<(usize, RoomName)>,
    /// Room and index of gate openings and resets that are not safe.
    unsafe_openings: Vec<Index>,
    unsafe_resets: Vec<Index>,
    /// Users that a restart left in their grace.
    in_grace: BTreeSet<UserName>,
    /// Connections that were logged in.
    logged_in: BTreeSet<ConnId>,
    /// Whether what happens now may bring somebody back.
    returning: bool,
    /// Whether what was sent last is a post.
    posting: bool,
    /// The last entry was a reset.
    after_reset: bool,
}

impl World<'_> {
    pub(crate) fn mark_restart(&mut self) {
        self.memory.restarted_at = Some(self.now);
        let closed = |room: &&RoomName| self.witness.held(room).is_some();
        self.memory.closed_at_restart = self.witness.rooms().filter(closed).cloned().collect();
    }

    fn is_soon_after_restart(&self) -> bool {
        self.memory.restarted_at.is_some_and(|at| self.now - at < SOON)
    }

    pub(crate) fn mark_entry(&mut self, entry: &Entry) {
        let index = entry.header.index;
        let after_reset = std::mem::take(&mut self.memory.after_reset);
        match &entry.change {
            Change::GateOpened { room, incarnation, .. } => {
                self.hit(Mark::GateOpened);
                self.memory.unsafe_openings.push(index);
                let marks = [
                    (after_reset, Mark::ResetOpensAtOnce),
                    (
                        !after_reset && *incarnation > Incarnation::ZERO.next(),
                        Mark::GateOpenedAfterReset,
                    ),
                    (self.is_soon_after_restart(), Mark::GateOpenedAfterRestart),
                    (self.memory.closed_at_restart.remove(room), Mark::GateOpenedAcrossRestart),
                    (self.memory.returning, Mark::GateOpenedByReturn),
                    (self.is_in_trouble(), Mark::GateOpenedInTrouble),
                ];
                self.hit_those(&marks);
            }
            Change::Reset { room, .. } => self.mark_reset(room, index),
            Change::Posted { room, .. } => {
                let closed = self.witness.held(room).is_some();
                self.hit(if closed { Mark::PostHeld } else { Mark::PostShown });
            }
            Change::Left { user, .. } => self.mark_left(user),
            Change::Joined { seq: None, .. } => self.hit(Mark::JoinedUntold),
            Change::SessionExpired { .. } => self.hit(Mark::SessionExpired),
            Change::Moderated { user, measure, .. } => self.mark_measure(user, *measure),
            Change::UserAdded { user, key } if self.witness.is_taken(user, key) => {
                self.hit(Mark::ReleasedNameTaken);
            }
            Change::Trimmed { .. } => self.mark_trimmed(),
            _ => {}
        }
    }

    fn mark_measure(&mut self, user: &UserName, measure: Measure) {
        let is_here = self.slots.iter().any(|slot| {
            slot.name == *user
                && slot.program.as_ref().is_some_and(|program| program.client.is_online())
        });
        let rights = matches!(measure, Measure::Op | Measure::Deop);
        let away = matches!(measure, Measure::Kick | Measure::Ban | Measure::Release) && !is_here;
        let marks = [
            (rights, Mark::RightsChanged),
            (away, Mark::SentAwayWhileAway),
            (self.is_in_trouble(), Mark::MeasureInTrouble),
            (self.is_soon_after_restart(), Mark::MeasureAfterRestart),
        ];
        self.hit_those(&marks);
    }

    fn mark_trimmed(&mut self) {
        let reads = self.server.as_ref().is_some_and(|server| !server.reads.is_empty());
        let stalled =
            self.conns.values().any(|conn| conn.server_open && conn.stalled_until > self.now);
        let marks = [
            (true, Mark::RoomTrimmed),
            (reads, Mark::TrimmedWhileReading),
            (stalled, Mark::TrimmedWhileStalled),
            (self.is_soon_after_restart(), Mark::TrimmedAfterRestart),
        ];
        self.hit_those(&marks);
    }

    fn mark_left(&mut self, user: &UserName) {
        let here = self.slots.iter().any(|slot| {
            slot.name == *user
                && slot.program.as_ref().is_some_and(|program| program.client.is_online())
        });
        if !self.memory.in_timeout {
            return;
        }
        if here {
            self.hit(Mark::LeftBehind);
            return;
        }
        self.hit(Mark::GraceOver);
        if self.memory.in_grace.remove(user) {
            self.hit(Mark::GraceOverAfterRestart);
        }
    }

    fn mark_reset(&mut self, room: &RoomName, index: Index) {
        self.memory.after_reset = true;
        self.memory.unsafe_resets.push(index);
        self.memory.closed_at_restart.remove(room);
        let online = |client: usize| {
            self.slots[client].program.as_ref().is_some_and(|program| program.client.is_online())
        };
        let members = (0..self.slots.len()).filter(|client| self.is_member(*client, room));
        let away: Vec<usize> = members.filter(|client| !online(*client)).collect();
        let stalled = self.conns.values().any(|conn| {
            let Dialler::Client { client, .. } = conn.dialler else { return false };
            let stalls = conn.server_open && conn.stalled_until > self.now;
            stalls && self.is_member(client, room)
        });
        let reads = self.server.as_ref().is_some_and(|server| {
            server.reads.values().any(|wanted| wanted.is_catching_up() && wanted.room == *room)
        });
        let marks = [
            (true, Mark::RoomReset),
            (!away.is_empty(), Mark::ResetWhileAway),
            (stalled, Mark::ResetWhileStalled),
            (reads, Mark::ResetDuringCatchUp),
            (self.is_soon_after_restart(), Mark::ResetAfterRestart),
            (self.is_in_trouble(), Mark::ResetInTrouble),
        ];
        for client in away {
            self.memory.reset_since.insert((client, room.clone()));
        }
        self.hit_those(&marks);
    }

    /// Whether a client's user is a member of a room, and safely so.
    fn is_member(&self, client: usize, room: &RoomName) -> bool {
        let truth = self.model.as_ref().and_then(|model| model.room(room));
        truth.is_some_and(|truth| truth.members.contains(&self.slots[client].name))
    }

    const fn is_in_trouble(&self) -> bool {
        self.now < self.troubles.full_until || self.troubles.slowness > 100
    }

    fn hit_those(&mut self, marks: &[(bool, Mark)]) {
        marks.iter().filter(|(reached, _)| *reached).for_each(|(_, mark)| self.marks.hit(*mark));
    }

    pub(crate) fn mark_crash(&mut self, catches_up: bool) {
        let told = self.disk.told;
        let opening = self.memory.unsafe_openings.iter().any(|index| *index > told);
        let reset = self.memory.unsafe_resets.iter().any(|index| *index > told);
        let rooms: Vec<RoomName> = self.witness.rooms().cloned().collect();
        let held = |room| self.witness.held(room).is_some_and(|held| held.records > 0);
        let again = self.memory.crashed_at.is_some_and(|at| self.now - at < SOON);
        let marks = [
            (rooms.iter().any(held), Mark::CrashWithHeldRecords),
            (opening, Mark::CrashBeforeOpeningSafe),
            (reset, Mark::CrashBeforeResetSafe),
            (catches_up, Mark::CrashDuringCatchUp),
            (again, Mark::CrashAfterCrash),
        ];
        self.hit_those(&marks);
        self.memory.crashed_at = Some(self.now);
        self.mark_gone();
    }

    /// The server is gone, in whatever way.
    pub(crate) fn mark_gone(&mut self) {
        self.memory.in_grace = self.slots.iter().map(|slot| slot.name.clone()).collect();
        self.memory.unsafe_openings.clear();
        self.memory.unsafe_resets.clear();
    }

    pub(crate) fn mark_return(&mut self, client: usize) {
        let returned = self.slots[client].returned();
        if returned {
            self.memory.came_back.insert(client);
            if self.is_in_trouble() {
                self.hit(Mark::ReturnInTrouble);
            }
        }
        let rooms: Vec<RoomName> = self.rooms.clone();
        for room in rooms {
            if self.memory.reset_since.remove(&(client, room)) && returned {
                self.hit(Mark::ReturnAfterReset);
            }
        }
        let name = self.slots[client].name.clone();
        self.memory.in_grace.remove(&name);
        self.memory.crashed_at = None;
    }

    /// Whether a frame is one that may bring somebody back.
    pub(crate) fn mark_frame(&mut self, conn: ConnId, frame: &ClientFrame) {
        let returned = self.client_of(conn).is_some_and(|client| self.slots[client].returned());
        self.memory.returning = match frame {
            ClientFrame::Ask { question: Question::Join { start, .. }, .. } => {
                returned && matches!(start, Start::After(_))
            }
            _ => false,
        };
        self.memory.posting =
            matches!(frame, ClientFrame::Submit { command: Command::Post { .. }, .. });
    }

    pub(crate) fn mark_directive(&mut self, directive: &Directive) {
        match directive {
            Directive::Send { conn, frame } => self.mark_answer(*conn, frame),
            Directive::Close { refusal: Some(refusal), conn } => self.mark_close(*conn, *refusal),
            _ => {}
        }
    }

    fn mark_answer(&mut self, conn: ConnId, frame: &ServerFrame) {
        match frame {
            ServerFrame::Status(_) => self.hit(Mark::StatusTold),
            ServerFrame::Refused { refusal: Refusal::Store, counter } => {
                self.memory.refused_when_full.insert(conn, *counter);
            }
            // Only resets have a rate of their own.
            ServerFrame::Refused { refusal: Refusal::Rate { .. }, .. } if self.memory.posting => {
                self.hit(Mark::SentTooMuch);
            }
            ServerFrame::Refused {
                refusal: Refusal::State(StateFault::OtherIncarnation), ..
            } if self.client_of(conn).is_none() => {}
            ServerFrame::Refused { refusal, .. }
            | ServerFrame::Answer { answer: Answer::Refused(refusal), .. }
            | ServerFrame::Rejected(refusal) => self.mark_refusal(*refusal),
            ServerFrame::Accepted { counter, .. }
                if self.memory.refused_when_full.get(&conn) == Some(counter) =>
            {
                self.memory.refused_when_full.remove(&conn);
                self.hit(Mark::PostedAfterFull);
            }
            _ => {}
        }
    }

    fn mark_refusal(&mut self, refusal: Refusal) {
        let mark = match refusal {
            Refusal::Perm => Mark::NotAllowed,
            Refusal::Target(TargetFault::Oneself | TargetFault::Founder | TargetFault::Banned) => {
                Mark::MeasureOutOfReach
            }
            Refusal::Rate { retry_ms } if retry_ms.as_millis() > 1_000 => Mark::ResetTooOften,
            Refusal::Rate { .. } => Mark::AskedTooOften,
            // A page of history that is being read asks for less patience.
            Refusal::Busy { retry_ms } if retry_ms.as_millis() >= 1_000 => Mark::TooMuchWaits,
            Refusal::Limit(LimitFault::Held) => return self.mark_full_gate(),
            Refusal::State(StateFault::LogInFirst) => Mark::UnrulyRefused,
            Refusal::State(StateFault::OtherIncarnation) => Mark::PostForEarlierLife,
            Refusal::State(StateFault::Counter { .. }) => Mark::CounterSkipped,
            Refusal::State(StateFault::CounterReused) => Mark::CounterReused,
            _ => return,
        };
        self.hit(mark);
    }

    /// A closed gate took no more: which bound may that have been.
    fn mark_full_gate(&mut self) {
        let limits = &self.plan.options.limits;
        let held = || self.witness.rooms().filter_map(|room| self.witness.held(room));
        let longest = u64::try_from(BODY_BYTES_MAX).unwrap_or(u64::MAX);
        let records = held().any(|held| held.records >= u64::from(limits.held_records_max));
        let bytes = held().any(|held| held.bytes + longest > limits.held_bytes_max);
        let total = held().map(|held| held.bytes).sum::<u64>() + longest;
        let marks = [
            (records, Mark::HeldFull),
            (bytes && !records, Mark::HeldBytesFull),
            (total > limits.held_bytes_total_max && !bytes && !records, Mark::HeldTotalFull),
        ];
        self.hit_those(&marks);
    }

    /// A need reaches the engine: what happened while it was on its way.
    pub(crate) fn mark_need(&mut self, need: &Need) {
        let known = self.server.as_ref().is_some_and(|it| it.buffers.contains_key(&need.conn));
        let life = self.witness.life(&need.room).map(|(life, _)| life);
        let trimmed = self.witness.trimmed(&need.room, need.incarnation);
        let marks = [
            (true, Mark::Fetched),
            (!known, Mark::FetchedByNobody),
            (life.is_some_and(|life| life > need.incarnation), Mark::FetchedFromEarlierLife),
            (trimmed > need.after, Mark::FetchedWhatIsTrimmed),
        ];
        self.hit_those(&marks);
    }

    pub(crate) fn mark_log_in(&mut self, conn: ConnId) {
        self.memory.logged_in.insert(conn);
    }

    /// Whether a connection carries nothing up, and nothing down.
    pub(crate) fn silent_ways(&self, conn: ConnId) -> (bool, bool) {
        let conn = self.conns.get(&conn);
        conn.map_or((false, false), |conn| (conn.to_server.silent, conn.to_client.silent))
    }

    fn mark_close(&mut self, conn: ConnId, refusal: Refusal) {
        let mark = match refusal {
            Refusal::Limit(LimitFault::SlowReader) => Mark::SlowReaderClosed,
            Refusal::Limit(LimitFault::Silence) => {
                if self.silent_ways(conn) == (true, false) {
                    self.hit(Mark::UnheardClosed);
                }
                Mark::SilentClosed
            }
            Refusal::Limit(LimitFault::LoginTime) => Mark::LoginTimeOver,
            Refusal::Limit(LimitFault::Flood) => Mark::FloodClosed,
            // Who finds the server full is told a second, sharp.
            Refusal::Busy { retry_ms } if retry_ms.as_millis() > 1_000 => Mark::LoginTooMany,
            Refusal::Busy { .. } => Mark::ServerFull,
            Refusal::Name(NameFault::InUse) => Mark::NameTaken,
            Refusal::Name(NameFault::TooSimilar) => Mark::LookalikeRefused,
            Refusal::Frame(_) => Mark::NoiseRefused,
            Refusal::Decode(_) => Mark::NonsenseRefused,
            Refusal::Auth(AuthFault::Signature) => Mark::ForgeryRefused,
            Refusal::Expelled(_) if self.memory.logged_in.contains(&conn) => Mark::UserSentAway,
            Refusal::Expelled(_) => Mark::BannedTurnedAway,
            Refusal::Perm => Mark::OrderNotAllowed,
            Refusal::State(StateFault::LogInFirst) => Mark::UnrulyRefused,
            Refusal::Auth(AuthFault::Replaced) if !self.memory.logged_in.contains(&conn) => {
                Mark::LoginOvertaken
            }
            Refusal::Auth(AuthFault::Replaced) => {
                if self.silent_ways(conn) != (false, false) {
                    self.hit(Mark::ReturnWhileHanging);
                }
                Mark::Replaced
            }
            _ => return,
        };
        self.hit(mark);
    }

    pub(crate) fn mark_shown(&mut self, client: usize, event: &Shown) {
        match event {
            Shown::Connected { resumed, .. } => self.mark_connected(client, *resumed),
            Shown::Gap { .. } => self.hit(Mark::GapTold),
            Shown::StoreFull => self.hit(Mark::FullStoreTold),
            Shown::Abandoned { .. } => self.hit(Mark::CommandAbandoned),
            Shown::Gate { gate, .. } if self.memory.came_back.remove(&client) && !gate.open => {
                self.hit(Mark::ReturnToClosedGate);
            }
            _ => {}
        }
    }

    fn mark_connected(&mut self, client: usize, resumed: bool) {
        let (name, boot) = (&self.slots[client].name, self.boot_of(client));
        let devices = self.slots.iter().enumerate().any(|(other, slot)| {
            other != client
                && slot.name == *name
                && slot.program.as_ref().is_some_and(|program| program.client.is_online())
        });
        let before = self.memory.boots.insert(client, boot);
        let marks = [
            (resumed, Mark::Resumed),
            (resumed && before.is_some_and(|it| it < boot), Mark::ResumedAfterRestart),
            (devices, Mark::TwoDevices),
        ];
        self.hit_those(&marks);
    }
}
