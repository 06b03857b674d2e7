//! The server's process: the engine, its delivery shards, and a host that keeps the rules of both.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use chatcore::codec::{FrameBuffer, decode};
use chatcore::delivery::Delivery;
use chatcore::engine::{Archive, Config, Directive, Engine, Event as EngineEvent, Input, Output};
use chatcore::engine::{ReadOrder, ReadToken};
use chatcore::id::{
    ConnId, Generation, Incarnation, Index, LogId, Nonce, PublicKey, Seq, Threshold,
};
use chatcore::log::{Entry, Founding};
use chatcore::text::RoomName;
use chatcore::time::Moment;
use chatcore::wire::{ClientFrame, FRAME_BYTES_MAX, GREETING_FRAME_BYTES_MAX, Record, Refusal};

use crate::broken::{Broken, hold};
use crate::marks::Mark;
use crate::model::Model;
use crate::off::Off;
use crate::world::World;
use crate::world::client::verify;
use crate::world::disk::Disk;
use crate::world::net::Piece;
use crate::world::queue::{Event, Side};

/// How long a closing connection may take to be written its last frames.
const CLOSING_TIME: u64 = 10_000;

/// Inputs that an engine and its copy are given side by side after a restart.
const TWIN_INPUTS: u32 = 300;

/// One run of the server.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) boot: u64,
    pub(crate) engine: Engine,
    shards: Vec<Shard>,
    /// What each connection sent that is no whole frame yet; an entry for each that the engine
    /// knows.
    pub(crate) buffers: BTreeMap<ConnId, FrameBuffer>,
    /// The earliest time at which the engine is asked again.
    timer: Option<u64>,
    /// The same engine once more, made another way, and for how many inputs still.
    twin: Option<(Engine, u32)>,
    /// Reads that are not answered.
    pub(crate) reads: u32,
}

#[derive(Debug)]
struct Shard {
    delivery: Delivery,
    inbox: VecDeque<Directive>,
    /// Whether it was told to look.
    awake: bool,
    timer: Option<u64>,
}

impl Server {
    fn new(boot: u64, engine: Engine, shards: u8, off: Off) -> Self {
        let shard = || {
            let mut delivery = Delivery::new(engine.limits());
            off.delivery(&mut delivery);
            Shard { delivery, inbox: VecDeque::new(), awake: false, timer: None }
        };
        let shards = (0..shards.max(1)).map(|_| shard()).collect();
        let buffers = BTreeMap::new();
        Self { boot, engine, shards, buffers, timer: None, twin: None, reads: 0 }
    }

    fn shard_of(&self, conn: ConnId) -> usize {
        usize::try_from(conn.get()).unwrap_or(0) % self.shards.len()
    }

    /// Whether nothing waits inside.
    pub(crate) fn is_idle(&self) -> bool {
        self.reads == 0 && self.shards.iter().all(|shard| shard.inbox.is_empty())
    }
}

impl World<'_> {
    fn config(&self) -> Config {
        Config {
            limits: self.plan.options.limits.clone(),
            archive: self.plan.options.archive,
            generation: Generation::ZERO.next(),
        }
    }

    fn founding(&self) -> Founding {
        let mut log_id = [7; LogId::LEN];
        log_id[..8].copy_from_slice(&self.boot.to_be_bytes());
        let threshold = Threshold::new(self.plan.options.threshold).unwrap_or_default();
        let server_key = PublicKey::new([9; PublicKey::LEN]);
        Founding { log_id: LogId::new(log_id), server_key, threshold, operators: Vec::new() }
    }

    /// The server is started: it goes on where the journal ends, or begins a new one.
    pub(crate) fn start_server(&mut self, boot: u64) -> Result<(), Broken> {
        if boot != self.boot || self.server.is_some() {
            return Ok(());
        }
        if self.disk.written() == Index::ZERO {
            return self.found_server();
        }
        self.restore_server()
    }

    fn found_server(&mut self) -> Result<(), Broken> {
        let (founding, config, now) = (self.founding(), self.config(), self.clock());
        self.note(|| format!("the server founds journal {}", founding.log_id));
        self.witness.founded();
        self.logs.insert(self.boot, self.witness.log());
        self.model = Some(Model::new(&config, &founding, now));
        let mut engine =
            Engine::found(founding, config, now).expect("drawn limits must be in range");
        self.off.engine(&mut engine);
        self.server = Some(Server::new(self.boot, engine, self.plan.options.shards, self.off));
        self.take_outputs()
    }

    fn restore_server(&mut self) -> Result<(), Broken> {
        let (config, now) = (self.config(), self.clock());
        let back = self.rng.usize(0..3);
        let carried = self.carried.take().filter(|_| self.plan.options.archive == Archive::None);
        let mut engine = match carried {
            Some(bytes) => Engine::restore(&bytes, [], config, now)
                .map_err(|error| Broken::new("a snapshot can be restored", error.to_string()))?,
            None => restore(&self.disk, back, config, now)?,
        };
        self.off.engine(&mut engine);
        let head = self.disk.written();
        hold!(engine.head().index == head, "a restart keeps the journal", "{head}");
        if self.disk.checkpoint_at(back).is_some_and(|(index, _)| *index < head) {
            self.hit(Mark::RestoredWithTail);
        }
        let twin = self.make_twin(&engine)?;
        self.note(|| format!("the server restores entry {head}"));
        self.logs.insert(self.boot, self.witness.log());
        if let Some(model) = &mut self.model {
            model.restart(head, now);
        }
        if self.disk.after(Index::ZERO).last().is_some_and(|entry| entry.header.at > now.wall) {
            self.hit(Mark::RestartInThePast);
        }
        let mut server = Server::new(self.boot, engine, self.plan.options.shards, self.off);
        server.twin = twin;
        self.server = Some(server);
        self.mark_restart();
        self.take_outputs()?;
        self.troubles.is_full = self.now < self.troubles.full_until;
        if self.troubles.is_full { self.input(Input::StoreFull) } else { Ok(()) }
    }

    /// An engine made another way has to be the same; without records in memory it also has to do
    /// the same.
    fn make_twin(&self, engine: &Engine) -> Result<Option<(Engine, u32)>, Broken> {
        let (config, now) = (self.config(), self.clock());
        let snapshot = engine.snapshot();
        let snapshot = snapshot.ok_or_else(|| Broken::new("a restart is level", "no snapshot"))?;
        let mut twin = Engine::restore(&snapshot, [], config, now)
            .map_err(|error| Broken::new("a snapshot can be restored", error.to_string()))?;
        self.off.engine(&mut twin);
        let entries = self.disk.after(Index::ZERO).iter().map(|entry| Entry::clone(entry));
        let mut replayed = Engine::replay(entries, self.config(), now)
            .map_err(|error| Broken::new("a journal can be replayed", error.to_string()))?;
        self.off.engine(&mut replayed);
        for other in [&twin, &replayed] {
            let same = other.state_hash() == engine.state_hash() && other.head() == engine.head();
            hold!(same, "restoring and replaying agree", "at {:?}", engine.head());
        }
        let same = replayed.snapshot().as_ref() == Some(&snapshot);
        let archived = self.plan.options.archive == Archive::Store;
        hold!(same || !archived, "restoring and replaying agree", "{:?}", engine.head());
        let exact = archived && self.plan.options.limits.window_bytes == 0;
        Ok(exact.then_some((twin, TWIN_INPUTS)))
    }

    /// Tells the engine something, if it is still that run.
    pub(crate) fn input(&mut self, input: Input) -> Result<(), Broken> {
        let now = self.clock();
        let Some(server) = &mut self.server else { return Ok(()) };
        if let Some(model) = &mut self.model {
            model.before(now, &input);
        }
        if let Some((twin, left)) = &mut server.twin {
            *left -= 1;
            let result = twin.handle(now, input.clone());
            hold!(result.is_ok(), "a restored engine goes on like the other", "{result:?}");
        }
        server.engine.handle(now, input).expect("the host must keep the rules of the engine");
        self.take_outputs()
    }

    fn take_outputs(&mut self) -> Result<(), Broken> {
        while let Some(output) = self.server.as_mut().and_then(|server| server.engine.poll_output())
        {
            self.compare_twin(&output)?;
            if let Some(model) = &mut self.model {
                model.output(&output)?;
            }
            self.carry_out(output)?;
        }
        self.compare_twin_end()?;
        if let Some(model) = &mut self.model {
            model.after()?;
        }
        self.set_engine_timer();
        Ok(())
    }

    fn compare_twin(&mut self, output: &Output) -> Result<(), Broken> {
        let Some(server) = &mut self.server else { return Ok(()) };
        let Some((twin, _)) = &mut server.twin else { return Ok(()) };
        let other = twin.poll_output();
        let same = other.as_ref().is_some_and(|other| are_same(other, output));
        hold!(same, "a restored engine goes on like the other", "{output:?} or {other:?}");
        Ok(())
    }

    fn compare_twin_end(&mut self) -> Result<(), Broken> {
        let Some(server) = &mut self.server else { return Ok(()) };
        let Some((twin, left)) = &mut server.twin else { return Ok(()) };
        let more = twin.poll_output();
        hold!(more.is_none(), "a restored engine goes on like the other", "and says {more:?}");
        if *left == 0 {
            server.twin = None;
        }
        Ok(())
    }

    fn carry_out(&mut self, output: Output) -> Result<(), Broken> {
        match output {
            Output::Persist(entry) => self.persist(entry),
            Output::Verify { conn, key, message, signature } => {
                let valid = verify(&key, &message, &signature);
                let (at, boot) = (self.now + self.rng.u64(0..3), self.boot);
                self.queue.push(at, Event::Verified { boot, conn, valid });
                Ok(())
            }
            Output::Read { token, room, incarnation, from, to, order } => {
                self.read(token, &(room, incarnation), (from, to), order);
                Ok(())
            }
            Output::Deliver(directive) => {
                self.route(&directive);
                Ok(())
            }
            Output::Event(event) => {
                self.heed(&event);
                Ok(())
            }
        }
    }

    fn persist(&mut self, entry: Arc<Entry>) -> Result<(), Broken> {
        self.note(|| format!("  entry {} {:?}", entry.header.index, entry.change));
        self.digest_bytes(entry.header.digest.as_bytes());
        self.witness.appended(&entry)?;
        self.mark_entry(&entry);
        self.disk.write(entry);
        self.begin_sync();
        Ok(())
    }

    /// One sync at a time: it covers everything that was written when it began.
    fn begin_sync(&mut self) {
        let through = self.disk.written();
        if self.disk.syncing || through <= self.disk.synced {
            return;
        }
        self.disk.syncing = true;
        if through.since(self.disk.synced) > 1 {
            self.hit(Mark::GroupCommit);
        }
        let most = self.plan.options.store.sync_max.max(self.troubles.slowness);
        let at = (self.now + self.rng.u64(0..=most)).max(self.troubles.full_until);
        if at > self.now + 1_000 {
            self.hit(Mark::StoreSlow);
        }
        self.queue.push(at, Event::Synced { boot: self.boot, through });
    }

    pub(crate) fn synced(&mut self, boot: u64, through: Index) -> Result<(), Broken> {
        if boot != self.boot || self.server.is_none() {
            return Ok(());
        }
        if self.disk.synced < through {
            // The disk has it; that it says so comes a little later, and may never come.
            self.disk.synced = through;
            let at = self.now + self.rng.u64(0..=3);
            self.queue.push(at, Event::Synced { boot, through });
            return Ok(());
        }
        self.disk.syncing = false;
        self.disk.told = through;
        self.note(|| format!("  safe through {through}"));
        self.witness.persisted(through);
        self.input(Input::Persisted { through })?;
        self.checkpoint();
        self.begin_sync();
        Ok(())
    }

    /// Writes down the state from time to time.
    fn checkpoint(&mut self) {
        let Some(server) = &self.server else { return };
        if self.plan.options.archive == Archive::None {
            return;
        }
        let last = self.disk.checkpoint_at(0).map_or(0, |(index, _)| index.get());
        let head = server.engine.head().index;
        if head.get() < last + self.plan.options.store.checkpoint_entries {
            return;
        }
        if let Some(bytes) = server.engine.snapshot() {
            self.disk.checkpoint(head, bytes);
        }
    }

    fn read(
        &mut self,
        token: ReadToken,
        key: &(RoomName, Incarnation),
        range: (Seq, Seq),
        order: ReadOrder,
    ) {
        self.hit(Mark::ReadFromStore);
        let store = self.plan.options.store;
        let records = self.disk.read(key, range, order, store.read_records_max);
        let readable = self.now >= self.troubles.unreadable_until;
        let at = self.now + self.rng.u64(0..=store.read_max.max(self.troubles.slowness));
        let records = readable.then_some(records);
        self.queue.push(at, Event::Read { boot: self.boot, token, records });
        if let Some(server) = &mut self.server {
            server.reads += 1;
        }
    }

    pub(crate) fn read_done(
        &mut self,
        boot: u64,
        token: ReadToken,
        records: Option<Vec<Record>>,
    ) -> Result<(), Broken> {
        let Some(server) = self.server.as_mut().filter(|server| server.boot == boot) else {
            return Ok(());
        };
        server.reads -= 1;
        let Some(records) = records else {
            self.memory.read_failed = true;
            return self.input(Input::ReadFailed { token });
        };
        if std::mem::take(&mut self.memory.read_failed) {
            self.hit(Mark::ReadAgain);
        }
        self.input(Input::ReadDone { token, records })
    }

    fn route(&mut self, directive: &Directive) {
        self.mark_directive(directive);
        let Some(server) = &mut self.server else { return };
        if let Directive::Close { conn, .. } = directive {
            let event = Event::GiveUp { boot: self.boot, conn: *conn };
            self.queue.push(self.now + CLOSING_TIME, event);
        }
        let shards = match directive.conn() {
            Some(conn) => server.shard_of(conn)..=server.shard_of(conn),
            None => 0..=server.shards.len() - 1,
        };
        for shard in shards {
            if let Some(server) = &mut self.server {
                server.shards[shard].inbox.push_back(directive.clone());
            }
            self.wake_shard(shard);
        }
    }

    /// A shard looks at what came, soon.
    fn wake_shard(&mut self, shard: usize) {
        let Some(state) = self.server.as_mut().and_then(|server| server.shards.get_mut(shard))
        else {
            return;
        };
        if !std::mem::replace(&mut state.awake, true) {
            let at = self.now + self.rng.u64(0..=self.net.shard_delay_max);
            self.queue.push(at, Event::Shard { boot: self.boot, shard });
        }
    }

    fn heed(&mut self, event: &EngineEvent) {
        self.note(|| format!("  {event:?}"));
        if let EngineEvent::LoggedIn { conn, .. } = event
            && let Some(buffer) =
                self.server.as_mut().and_then(|server| server.buffers.get_mut(conn))
        {
            buffer.set_frame_bytes_max(FRAME_BYTES_MAX);
        }
    }

    pub(crate) fn work_shard(&mut self, boot: u64, shard: usize) -> Result<(), Broken> {
        let now = Moment::from_millis(self.now);
        let Some(server) = self.server.as_mut().filter(|server| server.boot == boot) else {
            return Ok(());
        };
        let state = &mut server.shards[shard];
        state.awake = false;
        state.delivery.expire(now);
        while let Some(directive) = state.inbox.pop_front() {
            state.delivery.handle(directive);
        }
        while let Some(conn) = self.delivery(shard).and_then(Delivery::poll_ready) {
            self.write(shard, conn);
        }
        self.report(shard)?;
        self.set_shard_timer(shard);
        Ok(())
    }

    fn delivery(&mut self, shard: usize) -> Option<&mut Delivery> {
        Some(&mut self.server.as_mut()?.shards.get_mut(shard)?.delivery)
    }

    /// Writes to one connection what its socket takes.
    fn write(&mut self, shard: usize, id: ConnId) {
        let (now, socket_bytes) = (Moment::from_millis(self.now), self.net.socket_bytes);
        let Some(delivery) = self.delivery(shard) else { return };
        let mut slices = Vec::new();
        delivery.gather(id, &mut slices);
        if slices.is_empty() {
            if delivery.is_finished(id) {
                self.drop_connection(id);
            }
            return;
        }
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let free = socket_bytes.saturating_sub(conn.to_client.unread);
        if free == 0 {
            conn.blocked = true;
            if let Some(delivery) = self.delivery(shard) {
                delivery.blocked(id, now);
            }
            return;
        }
        let bytes = join(&slices, free);
        self.digest_bytes(&bytes);
        if let Some(delivery) = self.delivery(shard) {
            delivery.wrote(id, bytes.len());
        }
        if let Some((conn, mut wire)) = self.wire(id) {
            wire.send(id, conn, Side::Client, bytes);
        }
    }

    /// Tells the engine what a shard has to say.
    fn report(&mut self, shard: usize) -> Result<(), Broken> {
        while let Some(need) = self.delivery(shard).and_then(Delivery::poll_need) {
            self.hit(Mark::Fetched);
            self.input(Input::Fetch(need))?;
        }
        while let Some((conn, refusal)) = self.delivery(shard).and_then(Delivery::poll_condemned) {
            self.condemn(conn, refusal)?;
        }
        Ok(())
    }

    fn condemn(&mut self, conn: ConnId, refusal: Refusal) -> Result<(), Broken> {
        let known = self.server.as_ref().is_some_and(|server| server.buffers.contains_key(&conn));
        if known { self.input(Input::Condemned { conn, refusal }) } else { Ok(()) }
    }

    /// Closes the server's end: its reader then hears that it has ended.
    fn drop_connection(&mut self, id: ConnId) {
        let shard = self.server.as_ref().map_or(0, |server| server.shard_of(id));
        if let Some(delivery) = self.delivery(shard) {
            delivery.remove(id);
        }
        let (boot, at) = (self.boot, self.now + self.rng.u64(0..=2));
        let Some((conn, mut wire)) = self.wire(id) else { return };
        if std::mem::replace(&mut conn.server_open, false) {
            wire.end(id, conn, Side::Client);
            self.queue.push(at, Event::Gone { boot, conn: id });
        }
    }

    /// The reader of a connection has ended: the engine is told, once.
    pub(crate) fn gone(&mut self, boot: u64, conn: ConnId) -> Result<(), Broken> {
        let Some(server) = self.server.as_mut().filter(|server| server.boot == boot) else {
            return Ok(());
        };
        let Some(buffer) = server.buffers.remove(&conn) else { return Ok(()) };
        if buffer.is_inside_frame() {
            self.hit(Mark::CutInsideFrame);
        }
        self.input(Input::Disconnected { conn })
    }

    pub(crate) fn give_up(&mut self, boot: u64, conn: ConnId) {
        if boot == self.boot && self.server.is_some() {
            self.drop_connection(conn);
        }
    }

    /// The server hears that a connection is broken.
    pub(crate) fn hang_up_at_server(&mut self, conn: ConnId) -> Result<(), Broken> {
        self.drop_connection(conn);
        self.gone(self.boot, conn)
    }

    pub(crate) fn answer_dial(&mut self, id: ConnId) -> Result<(), Broken> {
        let boot = self.boot;
        let reachable = self.now >= self.troubles.unreachable_until;
        let is_up = self.server.is_some();
        let at = self.now + self.net.delay_min;
        self.queue.push(at, Event::Dialled(id, is_up && reachable));
        let Some(conn) = self.conns.get_mut(&id) else { return Ok(()) };
        if !is_up || !reachable {
            return Ok(());
        }
        conn.server_open = true;
        conn.boot = boot;
        let Some(server) = &mut self.server else { return Ok(()) };
        server.buffers.insert(id, FrameBuffer::new(GREETING_FRAME_BYTES_MAX));
        let shard = server.shard_of(id);
        server.shards[shard].delivery.add(id);
        let mut nonce = [1; Nonce::LEN];
        nonce[..8].copy_from_slice(&id.get().to_be_bytes());
        let address = Some("chat://127.0.0.1:5000".parse().expect("a plain address is one"));
        let nonce = Nonce::new(nonce);
        self.input(Input::Connected { conn: id, nonce, channel: None, address })
    }

    pub(crate) fn arrive_at_server(&mut self, id: ConnId) -> Result<(), Broken> {
        let Some(conn) = self.conns.get_mut(&id) else { return Ok(()) };
        match conn.arrive(Side::Server) {
            None => Ok(()),
            Some(Piece::End) => self.hang_up_at_server(id),
            Some(Piece::Data(bytes)) => self.receive(id, &bytes),
        }
    }

    fn receive(&mut self, conn: ConnId, bytes: &[u8]) -> Result<(), Broken> {
        self.digest_bytes(bytes);
        if let Some(buffer) = self.server.as_mut().and_then(|server| server.buffers.get_mut(&conn))
        {
            buffer.feed(bytes);
        }
        // One frame at a time: a log-in changes how long the next one may be.
        loop {
            let Some(buffer) = self.server.as_mut().and_then(|s| s.buffers.get_mut(&conn)) else {
                return Ok(());
            };
            let frame = match buffer.next_frame() {
                Ok(None) => return Ok(()),
                Ok(Some(frame)) => decode(&frame).map_err(Refusal::Decode),
                Err(fault) => Err(Refusal::Frame(fault)),
            };
            match frame {
                Ok(frame) => {
                    if !matches!(frame, ClientFrame::Ping { .. } | ClientFrame::Pong { .. }) {
                        self.note(|| format!("{conn} > {frame:?}"));
                    }
                    self.mark_frame(conn, &frame);
                    self.input(Input::Frame { conn, frame })?;
                }
                Err(refusal) => {
                    // Nothing of this stream can be understood any more.
                    if let Some(server) = &mut self.server {
                        server.buffers.insert(conn, FrameBuffer::new(0));
                    }
                    return self.condemn(conn, refusal);
                }
            }
        }
    }

    pub(crate) fn verified(&mut self, boot: u64, conn: ConnId, valid: bool) -> Result<(), Broken> {
        if boot == self.boot { self.input(Input::Verified { conn, valid }) } else { Ok(()) }
    }

    fn set_engine_timer(&mut self) {
        let Some(server) = &mut self.server else { return };
        let Some(next) = server.engine.next_timeout() else { return };
        let at = next.as_millis().max(self.now);
        if server.timer.is_none_or(|timer| at < timer) {
            server.timer = Some(at);
            self.queue.push(at, Event::EngineTimer { boot: server.boot });
        }
    }

    pub(crate) fn engine_timer(&mut self, boot: u64) -> Result<(), Broken> {
        let Some(server) = self.server.as_mut().filter(|server| server.boot == boot) else {
            return Ok(());
        };
        if server.timer.is_some_and(|timer| timer <= self.now) {
            server.timer = None;
            return self.input(Input::Timeout);
        }
        Ok(())
    }

    fn set_shard_timer(&mut self, shard: usize) {
        let (now, boot) = (self.now, self.boot);
        let Some(state) = self.server.as_mut().and_then(|server| server.shards.get_mut(shard))
        else {
            return;
        };
        let Some(next) = state.delivery.next_timeout() else { return };
        let at = next.as_millis().max(now);
        if state.timer.is_none_or(|timer| at < timer) {
            state.timer = Some(at);
            self.queue.push(at, Event::ShardTimer { boot, shard });
        }
    }

    pub(crate) fn shard_timer(&mut self, boot: u64, shard: usize) -> Result<(), Broken> {
        if let Some(server) = self.server.as_mut().filter(|server| server.boot == boot) {
            server.shards[shard].timer = None;
        }
        self.work_shard(boot, shard)
    }

    /// The socket of a connection takes bytes again.
    pub(crate) fn make_writable(&mut self, conn: ConnId) {
        let Some(server) = &mut self.server else { return };
        let shard = server.shard_of(conn);
        server.shards[shard].delivery.writable(conn);
        self.wake_shard(shard);
    }

    /// Checks what ties the parts of the engine together, and makes it again from its snapshot.
    pub(crate) fn inspect(&mut self) -> Result<(), Broken> {
        let (config, now) = (self.config(), self.clock());
        let Some(server) = &self.server else { return Ok(()) };
        server.engine.check_invariants();
        let Some(bytes) = server.engine.snapshot() else { return Ok(()) };
        let again = Engine::restore(&bytes, [], config, now)
            .map_err(|error| Broken::new("a snapshot can be restored", error.to_string()))?;
        let same = again.state_hash() == server.engine.state_hash()
            && again.head() == server.engine.head()
            && again.snapshot() == Some(bytes);
        hold!(same, "a restored engine is the one that was saved", "{:?}", again.head());
        let chain = self.model.as_mut().map(Model::head);
        hold!(chain == Some(again.head()), "the chain is the one of the rules", "{chain:?}");
        Ok(())
    }

    /// The whole journal, replayed, gives the state that was lived through.
    pub(crate) fn check_replay(&self) -> Result<(), Broken> {
        let Some(server) = &self.server else { return Ok(()) };
        let entries = self.disk.after(Index::ZERO).iter().map(|entry| Entry::clone(entry));
        let replayed = Engine::replay(entries, self.config(), self.clock())
            .map_err(|error| Broken::new("a journal can be replayed", error.to_string()))?;
        let same = replayed.state_hash() == server.engine.state_hash()
            && replayed.head() == server.engine.head();
        hold!(same, "a replay gives the state that was lived through", "{:?}", replayed.head());
        Ok(())
    }
}

/// The engine of what is on a disk, from the newest checkpoint but so many.
fn restore(
    disk: &Disk,
    back: usize,
    config: Config,
    now: chatcore::time::Now,
) -> Result<Engine, Broken> {
    let copies = |after: Index| disk.after(after).iter().map(|entry| Entry::clone(entry));
    let restored = match disk.checkpoint_at(back) {
        Some((index, bytes)) => Engine::restore(bytes, copies(*index), config, now),
        None => Engine::replay(copies(Index::ZERO), config, now),
    };
    restored.map_err(|error| Broken::new("what is on the disk can be restored", error.to_string()))
}

/// Whether two outputs are the same, but for which records are still in memory.
fn are_same(one: &Output, other: &Output) -> bool {
    let visible = |output: &Output| {
        let Output::Deliver(Directive::Visible { room, incarnation, through, .. }) = output else {
            return None;
        };
        Some((room.clone(), *incarnation, *through))
    };
    one == other || (visible(one).is_some() && visible(one) == visible(other))
}

/// The first bytes of these slices.
fn join(slices: &[Bytes], most: usize) -> Bytes {
    match slices {
        [one] => one.slice(..one.len().min(most)),
        slices => {
            let mut bytes = BytesMut::new();
            for slice in slices {
                let free = most - bytes.len();
                bytes.extend_from_slice(&slice[..slice.len().min(free)]);
            }
            bytes.freeze()
        }
    }
}
