//! What happens by the plan: what people do, what goes wrong, and what of it is worth a mark.

use std::collections::BTreeSet;

use chatcore::client::{Drain, Event as Shown, Input as ClientInput, Stop};
use chatcore::engine::{Archive, Directive, Input};
use chatcore::id::{ConnId, Index};
use chatcore::log::{Change, Entry};
use chatcore::text::{RoomName, UserName};
use chatcore::wire::{
    Answer, AuthFault, ClientFrame, LimitFault, NameFault, Refusal, ServerFrame,
    StateFault,
};

use crate::broken::Broken;
use crate::marks::Mark;
use crate::plan::Deed;
use crate::witness::Witness;
use crate::world::World;
use crate::world::queue::{Event, Side};

/// How long after a restart something happens "soon".
const SOON: u64 = 2_000;

/// What goes wrong at present, and what is remembered to tell situations apart.
#[derive(Debug, Default)]
pub(crate) struct Troubles {
    pub(crate) wall_offset: i64,
    pub(crate) unreachable_until: u64,
    pub(crate) full_until: u64,
    pub(crate) unreadable_until: u64,
    pub(crate) slowness: u64,
    /// A read failed, and none was answered since.
    pub(crate) read_failed: bool,
    /// Whether the engine knows that the store is full.
    is_full: bool,
    /// Clients that were refused because of it.
    refused_when_full: BTreeSet<ConnId>,
    crashed_at: Option<u64>,
    restarted_at: Option<u64>,
    /// Rooms whose gate was closed at the last restart.
    closed_at_restart: BTreeSet<RoomName>,
    /// Rooms that were reset since each client was last connected.
    reset_since: BTreeSet<(usize, RoomName)>,
    /// Room and index of gate openings and resets that are not safe.
    unsafe_openings: Vec<Index>,
    unsafe_resets: Vec<Index>,
    /// Users that a restart left in their grace.
    in_grace: BTreeSet<UserName>,
    /// Whether the present log-in or return may open a gate.
    returning: bool,
    /// The last entry was a reset.
    after_reset: bool,
}

impl Troubles {
    pub(crate) fn restarted(&mut self, now: u64, witness: &Witness) {
        self.restarted_at = Some(now);
        self.is_full = false;
        let closed = |room: &&RoomName| witness.held(room).is_some_and(|(closed, _)| closed);
        self.closed_at_restart = witness.rooms().filter(closed).cloned().collect();
    }

    fn soon_after_restart(&self, now: u64) -> bool {
        self.restarted_at.is_some_and(|at| now - at < SOON)
    }
}

impl World<'_> {
    pub(crate) fn do_deed(&mut self, deed: Deed) -> Result<(), Broken> {
        match deed {
            Deed::Start(client) => self.start_client(self.with_client(client)),
            Deed::Post { client, room, count, bytes } => {
                let (client, room) = (self.with_client(client), self.room(room));
                (0..count).try_for_each(|_| self.post(client, room.clone(), bytes.into()))
            }
            Deed::Reset { client, room, threshold } => {
                self.reset(self.with_client(client), self.room(room), threshold)
            }
            Deed::Join { client, room } => {
                let room = self.room(room);
                self.tell(self.with_client(client), ClientInput::Join { room })
            }
            Deed::Part { client, room } => {
                let room = self.room(room);
                self.tell(self.with_client(client), ClientInput::Part { room })
            }
            Deed::Ask { client, room, question } => {
                self.ask(self.with_client(client), self.room(room), question)
            }
            Deed::Quit(client) => self.quit(self.with_client(client), Drain::Wait),
            Deed::Leave(client) => self.quit(self.with_client(client), Drain::Now),
            Deed::Wild { kind, seed } => {
                self.begin_wild(kind, seed);
                Ok(())
            }
            fault => self.go_wrong(fault),
        }
    }

    fn go_wrong(&mut self, fault: Deed) -> Result<(), Broken> {
        let later = |millis: u32| self.now + u64::from(millis);
        match fault {
            Deed::Kill(client) => self.kill(self.with_client(client)),
            Deed::Cut(client) => self.cut(client),
            Deed::Silence(client) => self.silence(client),
            Deed::Stall { client, millis } => self.stall(client, later(millis)),
            Deed::Unreachable { millis } => self.troubles.unreachable_until = later(millis),
            Deed::Crash { kept, down } => self.crash(kept, down.into()),
            Deed::Stop { down } => return self.stop(down.into()),
            Deed::Slow { millis } => self.troubles.slowness = millis.into(),
            Deed::Full { millis } => return self.fill_store(later(millis)),
            Deed::Unreadable { millis } => self.troubles.unreadable_until = later(millis),
            Deed::Jump { by } => {
                let offset = self.troubles.wall_offset.saturating_add(by);
                self.troubles.wall_offset = offset.clamp(-1 << 40, 1 << 50);
            }
            _ => {}
        }
        Ok(())
    }

    fn conn_of(&self, client: u8) -> Option<ConnId> {
        self.slots[self.with_client(client)].program.as_ref()?.conn
    }

    /// A connection breaks: what is under way is lost, from anywhere on.
    fn cut(&mut self, client: u8) {
        let Some(id) = self.conn_of(client) else { return };
        let delays = [self.rng.u64(0..50), self.rng.u64(0..50)];
        let Some(conn) = self.conns.get_mut(&id) else { return };
        conn.silent = true;
        for (side, delay) in [Side::Client, Side::Server].into_iter().zip(delays) {
            conn.lose(side);
            self.queue.push(self.now + delay, Event::Broken(id, side));
        }
    }

    fn silence(&mut self, client: u8) {
        let Some(id) = self.conn_of(client) else { return };
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.silent = true;
        }
    }

    fn stall(&mut self, client: u8, until: u64) {
        let Some(id) = self.conn_of(client) else { return };
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.stalled_until = until;
            self.queue.push(until, Event::Resume(id));
        }
    }

    /// The server dies. Everything it held is gone, and of the store what was not safe, perhaps.
    fn crash(&mut self, kept: u8, down: u64) {
        let Some(server) = self.server.take() else {
            // It dies while it is down: it stays down a little longer.
            return;
        };
        self.mark_crash(server.reads > 0);
        drop(server);
        self.lose_server(kept, down);
    }

    fn lose_server(&mut self, kept: u8, down: u64) {
        if self.plan.options.archive == Archive::None {
            self.disk = super::disk::Disk::default();
        } else {
            let (told, written) = (self.disk.told, self.disk.written());
            let kept = self.disk.crash(kept);
            self.witness.crashed(kept);
            if kept > told {
                self.hit(Mark::CrashInDoubt);
            }
            if kept < written {
                self.hit(Mark::CrashLostUnsafe);
            }
            self.note(|| format!("of {written} entries {kept} are kept, {told} were reported safe"));
        }
        self.boot += 1;
        self.queue.push(self.now + down, Event::Boot { boot: self.boot });
        let open: Vec<ConnId> =
            self.conns.iter().filter(|(_, conn)| conn.server_open).map(|(id, _)| *id).collect();
        for id in open {
            let delay = self.rng.u64(0..50);
            let Some(conn) = self.conns.get_mut(&id) else { continue };
            conn.server_open = false;
            conn.lose(Side::Server);
            if !conn.silent {
                self.queue.push(self.now + delay, Event::Broken(id, Side::Client));
            }
        }
    }

    /// The server stops in order: everybody is told, everything is written, then it ends.
    fn stop(&mut self, down: u64) -> Result<(), Broken> {
        if self.server.is_none() {
            return Ok(());
        }
        if self.disk.written() > self.disk.told {
            self.hit(Mark::StopWithUnanswered);
        }
        self.input(Input::Stop)?;
        if let Some(server) = &mut self.server {
            server.stopping = true;
        }
        let shards = usize::from(self.plan.options.shards);
        for shard in 0..shards {
            self.work_shard(self.boot, shard)?;
        }
        self.server = None;
        self.lose_server(u8::MAX, down);
        Ok(())
    }

    fn fill_store(&mut self, until: u64) -> Result<(), Broken> {
        self.troubles.full_until = self.troubles.full_until.max(until);
        self.queue.push(until, Event::StoreWell { boot: self.boot });
        if self.server.is_some() && !self.troubles.is_full {
            self.troubles.is_full = true;
            return self.input(Input::StoreFull);
        }
        Ok(())
    }

    pub(crate) fn store_is_well(&mut self, _boot: u64) -> Result<(), Broken> {
        if self.now < self.troubles.full_until || !self.troubles.is_full {
            return Ok(());
        }
        self.troubles.is_full = false;
        self.input(Input::StoreFree)
    }

    /// Nothing goes wrong any more.
    pub(crate) fn end_troubles(&mut self) -> Result<(), Broken> {
        let now = self.now;
        self.troubles.unreachable_until = now;
        self.troubles.full_until = now;
        self.troubles.unreadable_until = now;
        self.troubles.slowness = 0;
        self.net = self.net.well();
        let stalled: Vec<ConnId> = self
            .conns
            .iter_mut()
            .filter(|(_, conn)| conn.stalled_until > now)
            .map(|(id, conn)| {
                conn.stalled_until = now;
                *id
            })
            .collect();
        for id in stalled {
            self.resume(id)?;
        }
        self.store_is_well(self.boot)
    }

    pub(crate) fn mark_entry(&mut self, entry: &Entry) {
        let (now, index) = (self.now, entry.header.index);
        let after_reset = std::mem::take(&mut self.troubles.after_reset);
        match &entry.change {
            Change::GateOpened { room, .. } => {
                self.hit(Mark::GateOpened);
                self.troubles.unsafe_openings.push(index);
                let marks = [
                    (after_reset, Mark::ResetOpensAtOnce),
                    (self.troubles.soon_after_restart(now), Mark::GateOpenedAfterRestart),
                    (
                        self.troubles.closed_at_restart.remove(room),
                        Mark::GateOpenedAcrossRestart,
                    ),
                    (self.troubles.returning, Mark::GateOpenedByReturn),
                    (self.is_in_trouble(), Mark::GateOpenedInTrouble),
                ];
                self.hit_those(&marks);
            }
            Change::Reset { room, .. } => self.mark_reset(room, index),
            Change::Posted { room, .. } => {
                let closed = self.witness.held(room).is_some_and(|(closed, _)| closed);
                self.hit(if closed { Mark::PostHeld } else { Mark::PostShown });
            }
            Change::Left { user, .. } => self.mark_left(user),
            Change::Joined { seq: None, .. } => self.hit(Mark::JoinedUntold),
            Change::SessionExpired { .. } => self.hit(Mark::SessionExpired),
            _ => {}
        }
    }

    fn mark_left(&mut self, user: &UserName) {
        let here = self.slots.iter().any(|slot| {
            slot.name == *user && slot.program.as_ref().is_some_and(|program| {
                program.client.is_online()
            })
        });
        if !here {
            self.hit(Mark::GraceOver);
            if self.troubles.in_grace.remove(user) {
                self.hit(Mark::GraceOverAfterRestart);
            }
        }
    }

    fn mark_reset(&mut self, room: &RoomName, index: Index) {
        self.troubles.after_reset = true;
        self.troubles.unsafe_resets.push(index);
        self.troubles.closed_at_restart.remove(room);
        let online = |client: usize| {
            self.slots[client].program.as_ref().is_some_and(|program| program.client.is_online())
        };
        let away: Vec<usize> = (0..self.slots.len()).filter(|client| !online(*client)).collect();
        let stalled = self.conns.values().any(|conn| conn.server_open && conn.stalled_until > self.now);
        let reads = self.server.as_ref().is_some_and(|server| server.reads > 0);
        let marks = [
            (true, Mark::RoomReset),
            (!away.is_empty(), Mark::ResetWhileAway),
            (stalled, Mark::ResetWhileStalled),
            (reads, Mark::ResetDuringCatchUp),
            (self.troubles.soon_after_restart(self.now), Mark::ResetAfterRestart),
        ];
        for client in away {
            self.troubles.reset_since.insert((client, room.clone()));
        }
        self.hit_those(&marks);
    }

    const fn is_in_trouble(&self) -> bool {
        self.now < self.troubles.full_until || self.troubles.slowness > 100
    }

    fn hit_those(&mut self, marks: &[(bool, Mark)]) {
        marks.iter().filter(|(reached, _)| *reached).for_each(|(_, mark)| self.marks.hit(*mark));
    }

    fn mark_crash(&mut self, reads: bool) {
        let told = self.disk.told;
        let opening = self.troubles.unsafe_openings.iter().any(|index| *index > told);
        let reset = self.troubles.unsafe_resets.iter().any(|index| *index > told);
        let rooms: Vec<RoomName> = self.witness.rooms().cloned().collect();
        let held = |room| self.witness.held(room).is_some_and(|(closed, count)| closed && count > 0);
        let again = self.troubles.crashed_at.is_some_and(|at| self.now - at < SOON);
        let marks = [
            (rooms.iter().any(held), Mark::CrashWithHeldRecords),
            (opening, Mark::CrashBeforeOpeningSafe),
            (reset, Mark::CrashBeforeResetSafe),
            (reads, Mark::CrashDuringCatchUp),
            (again, Mark::CrashAfterCrash),
        ];
        self.hit_those(&marks);
        self.troubles.crashed_at = Some(self.now);
        self.troubles.in_grace = self.slots.iter().map(|slot| slot.name.clone()).collect();
        self.troubles.unsafe_openings.clear();
        self.troubles.unsafe_resets.clear();
    }

    pub(crate) fn mark_return(&mut self, client: usize) {
        let rooms: Vec<RoomName> = self.rooms.clone();
        for room in rooms {
            if self.troubles.reset_since.remove(&(client, room)) {
                self.hit(Mark::ReturnAfterReset);
            }
        }
        let name = self.slots[client].name.clone();
        self.troubles.in_grace.remove(&name);
        self.troubles.crashed_at = None;
    }

    /// Whether a frame is one that may bring somebody back.
    pub(crate) fn mark_frame(&mut self, conn: ConnId, frame: &ClientFrame) {
        self.troubles.returning = match frame {
            ClientFrame::Ask { question: chatcore::wire::Question::Join { start, .. }, .. } => {
                matches!(start, chatcore::wire::Start::After(cursor) if cursor.seq.get() > 0)
                    || self.troubles.reset_since.iter().any(|(client, _)| {
                        self.slots[*client].program.as_ref().and_then(|program| program.conn)
                            == Some(conn)
                    })
            }
            _ => false,
        };
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
            ServerFrame::Refused { refusal, .. }
            | ServerFrame::Answer { answer: Answer::Refused(refusal), .. }
            | ServerFrame::Rejected(refusal) => self.mark_refusal(conn, *refusal),
            ServerFrame::Accepted { .. } if self.troubles.refused_when_full.remove(&conn) => {
                self.hit(Mark::PostedAfterFull);
            }
            _ => {}
        }
    }

    fn mark_refusal(&mut self, conn: ConnId, refusal: Refusal) {
        let mark = match refusal {
            Refusal::Perm => Mark::ResetNotAllowed,
            Refusal::Rate { retry_ms } if retry_ms.as_millis() > 1_000 => Mark::ResetTooOften,
            Refusal::Rate { .. } => Mark::AskedTooOften,
            Refusal::Busy { .. } => Mark::TooMuchWaits,
            Refusal::Limit(LimitFault::Held) => Mark::HeldFull,
            Refusal::State(StateFault::LogInFirst) => Mark::UnrulyRefused,
            Refusal::State(StateFault::OtherIncarnation) => Mark::PostForEarlierLife,
            Refusal::State(StateFault::Counter { .. }) => Mark::CounterSkipped,
            Refusal::State(StateFault::CounterReused) => Mark::CounterReused,
            Refusal::Store => {
                self.troubles.refused_when_full.insert(conn);
                return;
            }
            _ => return,
        };
        self.hit(mark);
    }

    fn mark_close(&mut self, conn: ConnId, refusal: Refusal) {
        let mark = match refusal {
            Refusal::Limit(LimitFault::SlowReader) => Mark::SlowReaderClosed,
            Refusal::Limit(LimitFault::Silence) => Mark::SilentClosed,
            Refusal::Limit(LimitFault::LoginTime) => Mark::LoginTimeOver,
            Refusal::Busy { .. } => Mark::ServerFull,
            Refusal::Name(NameFault::InUse) => Mark::NameTaken,
            Refusal::Frame(_) => Mark::NoiseRefused,
            Refusal::Decode(_) => Mark::NonsenseRefused,
            Refusal::Auth(AuthFault::Signature) => Mark::ForgeryRefused,
            Refusal::State(StateFault::LogInFirst) => Mark::UnrulyRefused,
            Refusal::Auth(AuthFault::Replaced) => {
                if self.conns.get(&conn).is_some_and(|conn| conn.silent) {
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
            Shown::Connected { resumed: true, .. } => self.hit(Mark::Resumed),
            Shown::Gap { .. } => self.hit(Mark::GapTold),
            Shown::Abandoned { .. } => self.hit(Mark::CommandAbandoned),
            Shown::Gate { gate, .. } if !gate.open => {
                let came_back = self.slots[client].returned();
                if came_back {
                    self.hit(Mark::ReturnToClosedGate);
                }
            }
            _ => {}
        }
        if let Shown::Connected { .. } = event {
            let name = &self.slots[client].name;
            let devices = self.slots.iter().enumerate().any(|(other, slot)| {
                other != client
                    && slot.name == *name
                    && slot.program.as_ref().is_some_and(|program| program.client.is_online())
            });
            if devices {
                self.hit(Mark::TwoDevices);
            }
        }
    }

    pub(crate) fn mark_stop(&mut self, stop: Stop) {
        let _ = stop;
    }
}
