//! What happens by the plan: what people do, and what goes wrong.

use chatcore::client::Drain;
use chatcore::engine::{Archive, Input};
use chatcore::id::ConnId;

use crate::broken::Broken;
use crate::marks::Mark;
use crate::plan::{Deed, Fault, NetOptions, Ways};
use crate::witness::Wish;
use crate::world::World;
use crate::world::client::Slot;
use crate::world::disk::Disk;
use crate::world::queue::{Event, Side};
use crate::world::store::Wanted;

/// What goes wrong at present.
#[derive(Debug, Default)]
pub(crate) struct Troubles {
    pub(crate) wall_offset: i64,
    pub(crate) unreachable_until: u64,
    pub(crate) full_until: u64,
    pub(crate) unreadable_until: u64,
    pub(crate) slowness: u64,
    /// Whether the engine knows that the store is full.
    pub(crate) is_full: bool,
}

impl World<'_> {
    pub(crate) fn do_deed(&mut self, deed: Deed) -> Result<(), Broken> {
        match deed {
            Deed::Start(client) => self.start_client(self.machine(client)),
            Deed::Post { client, room, count, bytes, taper } => {
                let (client, room) = (self.machine(client), self.room(room));
                let lengths = tapering(bytes, taper).take(count.into());
                lengths.map(usize::from).try_for_each(|it| self.post(client, room.clone(), it))
            }
            Deed::Reset { client, room, threshold } => {
                self.reset(self.machine(client), self.room(room), threshold)
            }
            Deed::Join { client, room } => {
                self.ask(self.machine(client), Wish::Join(self.room(room)))
            }
            Deed::Part { client, room } => {
                self.ask(self.machine(client), Wish::Part(self.room(room)))
            }
            Deed::Ask { client, room, question } => {
                self.ask(self.machine(client), self.wish(self.room(room), question))
            }
            Deed::Moderate { by: Some(by), client, measure } => {
                let user = self.slots[self.machine(client)].name.clone();
                self.moderate(self.machine(by), user, measure)
            }
            Deed::Moderate { by: None, client, measure } => {
                self.moderate_as_server(self.machine(client), measure)
            }
            Deed::Trim { room, keep } => self.trim(self.room(room), keep.into()),
            Deed::Quit(client) => self.quit(self.machine(client), Drain::Wait),
            Deed::Leave(client) => self.quit(self.machine(client), Drain::Now),
            Deed::Wild { kind, seed } => {
                self.begin_wild(kind, seed);
                Ok(())
            }
            Deed::Wrong(fault) => self.go_wrong(fault),
        }
    }

    /// What a deed lacks to have any effect.
    pub(crate) fn lack(&self, deed: Deed) -> Option<&'static str> {
        let program = |client| self.slots[self.machine(client)].program.as_ref();
        let idle = |client| program(client).is_none().then_some("it does not run");
        let deaf = |client| self.conn_of(client).is_none().then_some("it has no connection");
        match deed {
            Deed::Start(client) => program(client).is_some().then_some("it runs"),
            Deed::Post { client, .. }
            | Deed::Reset { client, .. }
            | Deed::Moderate { by: Some(client), .. }
            | Deed::Join { client, .. }
            | Deed::Part { client, .. }
            | Deed::Ask { client, .. }
            | Deed::Quit(client)
            | Deed::Leave(client)
            | Deed::Wrong(Fault::Kill(client)) => idle(client),
            Deed::Wrong(
                Fault::Cut(client) | Fault::Silence { client, .. } | Fault::Stall { client, .. },
            ) => deaf(client),
            Deed::Moderate { by: None, .. }
            | Deed::Trim { .. }
            | Deed::Wrong(Fault::Crash { .. } | Fault::Stop { .. }) => {
                self.server.is_none().then_some("the server does not run")
            }
            Deed::Wild { .. }
            | Deed::Wrong(
                Fault::Unreachable { .. }
                | Fault::Slow { .. }
                | Fault::Full { .. }
                | Fault::Unreadable { .. }
                | Fault::Jump { .. }
                | Fault::Err(_),
            ) => None,
        }
    }

    fn go_wrong(&mut self, fault: Fault) -> Result<(), Broken> {
        let later = |millis: u32| self.now + u64::from(millis);
        match fault {
            Fault::Kill(client) => self.kill(self.machine(client)),
            Fault::Cut(client) => self.cut(client),
            Fault::Silence { client, ways } => self.silence(client, ways),
            Fault::Stall { client, millis } => self.stall(client, later(millis)),
            Fault::Unreachable { millis } => self.troubles.unreachable_until = later(millis),
            Fault::Crash { kept, down } => return self.crash(kept, down.into()),
            Fault::Stop { down } => return self.stop(down.into()),
            Fault::Slow { millis } => self.troubles.slowness = millis.into(),
            Fault::Full { millis } => return self.fill_store(later(millis)),
            Fault::Unreadable { millis } => self.troubles.unreadable_until = later(millis),
            Fault::Jump { by } => {
                let offset = self.troubles.wall_offset.saturating_add(by);
                self.troubles.wall_offset = offset.clamp(-1 << 40, 1 << 50);
            }
            Fault::Err(slip) => return self.err(slip),
        }
        Ok(())
    }

    fn conn_of(&self, client: u8) -> Option<ConnId> {
        self.slots[self.machine(client)].program.as_ref()?.conn
    }

    /// A connection breaks: what is under way is lost, from anywhere on.
    fn cut(&mut self, client: u8) {
        let Some(id) = self.conn_of(client) else { return };
        let delays = [self.rng.u64(0..50), self.rng.u64(0..50)];
        let Some(conn) = self.conns.get_mut(&id) else { return };
        conn.silence();
        let lost = (conn.to_client.unread, conn.to_server.unread);
        for (side, delay) in [Side::Client, Side::Server].into_iter().zip(delays) {
            conn.lose(side);
            self.queue.push(self.now + delay, Event::Broken(id, side));
        }
        let (down, up) = lost;
        self.note(|| format!("  {id} breaks: {down} bytes are lost on the way down, {up} up"));
    }

    fn silence(&mut self, client: u8, ways: Ways) {
        let Some(id) = self.conn_of(client) else { return };
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let what = match ways {
            Ways::Both => {
                conn.silence();
                "nothing"
            }
            Ways::Up => {
                conn.to_server.silent = true;
                "nothing from its client"
            }
            Ways::Down => {
                conn.to_client.silent = true;
                "nothing from the server"
            }
        };
        self.note(|| format!("  {id} carries {what} any more"));
    }

    fn stall(&mut self, client: u8, until: u64) {
        if let Some(id) = self.conn_of(client) {
            self.stall_connection(id, until);
        }
    }

    /// Whoever is at the other end reads nothing until then.
    pub(crate) fn stall_connection(&mut self, id: ConnId, until: u64) {
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.stalled_until = until;
            self.note(|| format!("  {id} is not read until {until}"));
            self.queue.push(until, Event::Resume(id));
        }
    }

    /// The server dies. Everything it held is gone, and of the store what was not safe, perhaps.
    fn crash(&mut self, kept: u8, down: u64) -> Result<(), Broken> {
        let Some(server) = self.server.take() else {
            return Ok(());
        };
        self.carried = None;
        let catches_up = server.reads.values().any(Wanted::is_catching_up);
        self.mark_crash(catches_up);
        self.check_living(server)?;
        self.lose_server(kept, down);
        Ok(())
    }

    fn lose_server(&mut self, kept: u8, down: u64) {
        if self.plan.options.archive == Archive::None && self.carried.is_none() {
            self.note(|| "  the server is gone, and its journal with it".to_owned());
            self.disk = Disk::default();
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
            self.note(|| {
                let lost = written.since(kept);
                format!("  the server is gone; its store has entries up to {kept}: {lost} are lost, {told} were reported safe")
            });
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
            if !conn.to_client.silent {
                self.queue.push(self.now + delay, Event::Broken(id, Side::Client));
            }
        }
    }

    /// The server stops in order: everybody is told, everything is written, then it ends.
    fn stop(&mut self, down: u64) -> Result<(), Broken> {
        if self.server.is_none() {
            return Ok(());
        }
        let awaits = |slot: &Slot| {
            slot.program.as_ref().is_some_and(|program| program.client.is_online())
                && slot.unsent() > 0
        };
        if self.slots.iter().any(awaits) {
            self.hit(Mark::StopWithUnanswered);
        }
        self.input(Input::Stop)?;
        let through = self.disk.written();
        if through > self.disk.told && self.now >= self.troubles.full_until {
            self.disk.synced = through;
            self.disk.told = through;
            self.witness.persisted(through);
            self.input(Input::Persisted { through })?;
        }
        let shards = usize::from(self.plan.options.shards);
        for shard in 0..shards {
            self.work_shard(self.boot, shard)?;
        }
        let server = self.server.take();
        self.carried = server.and_then(|server| server.engine.snapshot());
        self.mark_gone();
        self.lose_server(u8::MAX, down);
        Ok(())
    }

    fn fill_store(&mut self, until: u64) -> Result<(), Broken> {
        self.troubles.full_until = self.troubles.full_until.max(until);
        self.queue.push(until, Event::StoreWell);
        if self.server.is_some() && !self.troubles.is_full {
            self.troubles.is_full = true;
            self.note(|| format!("  the store is full until {until}"));
            return self.input(Input::StoreFull);
        }
        Ok(())
    }

    pub(crate) fn store_is_well(&mut self) -> Result<(), Broken> {
        if self.now < self.troubles.full_until || !self.troubles.is_full {
            return Ok(());
        }
        self.troubles.is_full = false;
        self.note(|| "  the store is free".to_owned());
        self.input(Input::StoreFree)
    }

    /// Nothing goes wrong any more.
    pub(crate) fn end_troubles(&mut self) -> Result<(), Broken> {
        let now = self.now;
        self.troubles.unreachable_until = now;
        self.troubles.full_until = now;
        self.troubles.unreadable_until = now;
        self.troubles.slowness = 0;
        self.memory.owes_wrong_records = false;
        self.net = NetOptions::WELL;
        self.send_strangers_away();
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
        self.store_is_well()
    }
}

/// Lengths from `first` down, each `1 << taper` times shorter than the one before; after three of
/// them from the beginning.
fn tapering(first: u16, taper: u8) -> impl Iterator<Item = u16> {
    (0..3_u32).cycle().map(move |step| (first >> (u32::from(taper) * step).min(15)).max(1))
}
