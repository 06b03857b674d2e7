//! The server's process: the engine, its delivery shards, and a host that keeps the rules of both.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::{Bytes, BytesMut};
use chatcore::codec::{FrameBuffer, decode};
use chatcore::delivery::Delivery;
use chatcore::engine::{Directive, Engine, Event as EngineEvent, Input, Need, Output, ReadToken};
use chatcore::id::{ConnId, Digest, Nonce};
use chatcore::time::{Moment, Span};
use chatcore::wire::{
    ClientFrame, FRAME_BYTES_MAX, GREETING_FRAME_BYTES_MAX, HostStatus, Refusal, ServerFrame,
    ServerHello, StorageStatus,
};

use crate::broken::{Broken, hold};
use crate::marks::Mark;
use crate::model::Model;
use crate::off::Off;
use crate::tap::{Cause, Tap};
use crate::telling::{tell_answer, tell_frame};
use crate::world::World;
use crate::world::bounds::{Taken, Wakes, check_deadline, check_memory};
use crate::world::client::{sign, verify};
use crate::world::living::Gates;
use crate::world::net::Piece;
use crate::world::queue::{Event, Side};
use crate::world::store::Wanted;
use crate::world::twin::Twin;

/// How long a closing connection may take to be written its last frames.
const CLOSING_TIME: u64 = 10_000;

/// How many outputs an input may lead to if nobody is there, and how many more for each who is or
/// for what waits: a user is in a few rooms.
const OUTPUTS_MIN: u64 = 100;
const OUTPUTS_EACH: u64 = 8;

/// More members than any room here has.
const NO_CROWD: u32 = 100;

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
    /// After a restart, for a while: the same engine once more, made another way.
    pub(crate) twin: Option<Twin>,
    /// Reads that are not answered, and what they ask for.
    pub(crate) reads: BTreeMap<ReadToken, Wanted>,
    /// Connections that are logged in, and those that were told to close.
    logged_in: BTreeSet<ConnId>,
    closing: BTreeSet<ConnId>,
    wakes: Wakes,
    /// What the shards were last told of each gate.
    pub(crate) gates: Gates,
    /// The last read that was answered.
    pub(crate) answered: Option<ReadToken>,
}

#[derive(Debug)]
struct Shard {
    delivery: Delivery,
    /// Reads along what it writes.
    tap: Tap,
    inbox: VecDeque<Directive>,
    /// Connections that it condemned, and the engine has not heard of.
    condemned: VecDeque<(ConnId, Refusal)>,
    /// What is on its way to the engine, in order, and when the last of it arrives.
    reports: VecDeque<Report>,
    reports_at: u64,
    /// Whether it was told to look.
    awake: bool,
    timer: Option<u64>,
}

/// What a shard has to say to the engine.
#[derive(Debug)]
enum Report {
    /// It lacks records.
    Fetch(Need),
    /// A connection reads too slowly.
    Condemned(ConnId, Refusal),
}

impl Server {
    pub(crate) fn new(boot: u64, engine: Engine, shards: u8, off: Off, now: u64) -> Self {
        let shard = || {
            let mut delivery = Delivery::new(engine.limits());
            off.delivery(&mut delivery);
            Shard {
                delivery,
                tap: Tap::new(engine.limits()),
                inbox: VecDeque::new(),
                condemned: VecDeque::new(),
                reports: VecDeque::new(),
                reports_at: 0,
                awake: false,
                timer: None,
            }
        };
        let shards = (0..shards.max(1)).map(|_| shard()).collect();
        let buffers = BTreeMap::new();
        let wakes = Wakes::new(engine.limits().ping_interval, now);
        Self {
            boot,
            engine,
            shards,
            buffers,
            timer: None,
            twin: None,
            reads: BTreeMap::new(),
            logged_in: BTreeSet::new(),
            closing: BTreeSet::new(),
            wakes,
            gates: Gates::new(),
            answered: None,
        }
    }

    fn shard_of(&self, conn: ConnId) -> usize {
        shard_of(conn, self.shards.len())
    }

    /// What connections take is bounded.
    pub(crate) fn check_memory(&mut self) -> Result<(), Broken> {
        let (shards, count) = (&self.shards, self.shards.len());
        let taken = self.buffers.iter_mut().map(|(conn, buffer)| Taken {
            conn: *conn,
            logged_in: self.logged_in.contains(conn),
            closing: self.closing.contains(conn),
            unread: shards[shard_of(*conn, count)].delivery.unread_bytes(*conn),
            received: buffer.as_mut().len(),
        });
        let taken: Vec<Taken> = taken.collect();
        check_memory(&taken, self.engine.limits())
    }

    /// How many things one input may lead to: so many for each connection, for each entry that
    /// waits, and for each of the answers that wait.
    fn outputs_max(&self, answers: usize) -> u64 {
        let (head, committed) = (self.engine.head().index, self.engine.committed());
        let many = self.engine.connection_count() + answers;
        let many = u64::try_from(many).unwrap_or(u64::MAX);
        OUTPUTS_MIN + OUTPUTS_EACH * (many + head.since(committed))
    }

    /// Whether everything that was appended is safe.
    pub(crate) fn is_level(&self) -> bool {
        self.engine.committed() == self.engine.head().index
    }

    /// Whether nothing waits inside.
    pub(crate) fn is_idle(&self) -> bool {
        let is_idle = |shard: &Shard| shard.inbox.is_empty() && shard.reports.is_empty();
        self.reads.is_empty() && self.shards.iter().all(is_idle)
    }
}

fn shard_of(conn: ConnId, shards: usize) -> usize {
    usize::try_from(conn.get()).unwrap_or(0) % shards
}

impl Shard {
    /// Takes in what time it is and what the engine said; why connections are condemned.
    fn take_in(&mut self, now: Moment) -> Result<Vec<Cause>, Broken> {
        self.awake = false;
        self.tap.time_is(now);
        self.delivery.expire(now);
        let mut causes = Vec::new();
        self.heed_condemned(&mut causes)?;
        while let Some(directive) = self.inbox.pop_front() {
            self.tap.told(&directive);
            self.delivery.handle(directive);
            self.heed_condemned(&mut causes)?;
        }
        Ok(causes)
    }

    /// From here on the shard need not take answers for those whom it condemned.
    fn heed_condemned(&mut self, causes: &mut Vec<Cause>) -> Result<(), Broken> {
        while let Some((conn, refusal)) = self.delivery.poll_condemned() {
            causes.push(self.tap.condemned(conn, refusal)?);
            self.condemned.push_back((conn, refusal));
        }
        Ok(())
    }
}

impl World<'_> {
    /// Tells the engine something, if it is still that run.
    pub(crate) fn input(&mut self, input: Input) -> Result<(), Broken> {
        let now = self.clock();
        let Some(server) = &mut self.server else { return Ok(()) };
        let waiting = self.model.as_ref().map_or(0, Model::waiting);
        let (most, is_timeout) = (server.outputs_max(waiting), input == Input::Timeout);
        self.memory.in_timeout = is_timeout;
        if let Some(model) = &mut self.model {
            model.before(now, &input);
        }
        if let Some(twin) = &mut server.twin {
            twin.input(now, &input, &self.disk)?;
        }
        let before = server.engine.next_timeout();
        server.wakes.told(self.now, &input);
        server.engine.handle(now, input).expect("the host must keep the rules of the engine");
        check_deadline(before, server.engine.next_timeout(), now.moment, is_timeout)?;
        let is_due = is_timeout && before.is_some_and(|due| due <= now.moment);
        let count = self.take_outputs()?;
        hold!(
            count <= most,
            "what an input leads to is bounded",
            "{count} outputs, {most} at most"
        );
        // A crowd is told of its gate later, by a timer that may come to nothing.
        let crowds = self.plan.options.limits.crowd_members < NO_CROWD;
        match &mut self.server {
            Some(server) if is_due && !crowds => server.wakes.woke(count == 0),
            Some(_) | None => Ok(()),
        }
    }

    /// Carries out what the engine wants done; how many things that was.
    pub(crate) fn take_outputs(&mut self) -> Result<u64, Broken> {
        let mut count = 0;
        while let Some(output) = self.server.as_mut().and_then(|server| server.engine.poll_output())
        {
            count += 1;
            if let Some(twin) = self.server.as_mut().and_then(|server| server.twin.as_mut()) {
                twin.compare(&output)?;
            }
            if let Some(model) = &mut self.model {
                model.output(&output)?;
            }
            self.carry_out(output)?;
        }
        if let Some(server) = &mut self.server
            && let Some(twin) = &mut server.twin
        {
            twin.compare_end()?;
            server.twin = server.twin.take().filter(|twin| !twin.is_over());
        }
        if let Some(model) = &mut self.model {
            model.after()?;
        }
        self.check_timer()?;
        self.set_engine_timer();
        Ok(count)
    }

    /// The engine asks to be told of the time when something is due, or earlier.
    fn check_timer(&self) -> Result<(), Broken> {
        let due = self.model.as_ref().and_then(Model::next_due);
        let asked = self.server.as_ref().and_then(|server| server.engine.next_timeout());
        let in_time = due.is_none_or(|due| asked.is_some_and(|asked| asked <= due));
        hold!(in_time, "what is due has a timer", "due {due:?}, asked for {asked:?}");
        Ok(())
    }

    fn carry_out(&mut self, output: Output) -> Result<(), Broken> {
        match output {
            Output::Persist(entry) => self.persist(entry),
            Output::Verify { conn, key, message, signature } => {
                let valid = verify(&key, &message, &signature);
                let at = self.now + self.rng.u64(0..=self.net.verify_max);
                self.queue.push(at, Event::Verified { boot: self.boot, conn, valid });
                Ok(())
            }
            // A signature takes no time that anybody would notice.
            Output::Sign { conn, message } => {
                let Some(server) = &self.server else { return Ok(()) };
                let signature = sign(&server.engine.founding().server_key, &message);
                self.input(Input::Signed { conn, signature })
            }
            Output::Report { conn } => {
                let at = self.now + self.rng.u64(0..=self.net.verify_max);
                self.queue.push(at, Event::Looked { boot: self.boot, conn });
                Ok(())
            }
            Output::Read { token, room, incarnation, from, to, order } => {
                self.read(token, Wanted { room, incarnation, from, to, order });
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
            Output::Moderated { request, refusal } => {
                self.note(|| format!("  measure {request} of the server: {refusal:?}"));
                Ok(())
            }
        }
    }

    fn route(&mut self, directive: &Directive) {
        self.mark_directive(directive);
        let Some(server) = &mut self.server else { return };
        if let Directive::Close { conn, .. } = directive {
            server.closing.insert(*conn);
            let event = Event::GiveUp { boot: self.boot, conn: *conn };
            self.queue.push(self.now + CLOSING_TIME, event);
        }
        if let Directive::Gate { room, gate } = directive {
            server.gates.insert(room.clone(), *gate);
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
        let EngineEvent::LoggedIn { conn, .. } = event else { return };
        self.mark_log_in(*conn);
        let server = self.server.as_mut();
        let Some(server) = server else { return };
        server.logged_in.insert(*conn);
        if let Some(buffer) = server.buffers.get_mut(conn) {
            buffer.set_frame_bytes_max(FRAME_BYTES_MAX);
        }
    }

    pub(crate) fn work_shard(&mut self, boot: u64, shard: usize) -> Result<(), Broken> {
        let now = Moment::from_millis(self.now);
        let Some(server) = self.server.as_mut().filter(|server| server.boot == boot) else {
            return Ok(());
        };
        let causes = server.shards[shard].take_in(now)?;
        if causes.contains(&Cause::Unread) {
            self.hit(Mark::UnreadBoundReached);
        }
        while let Some(conn) = self.delivery(shard).and_then(Delivery::poll_ready) {
            self.write(shard, conn)?;
        }
        self.report(shard)?;
        if let Some(state) = self.shard(shard) {
            state.tap.check(state.delivery.next_timeout())?;
        }
        self.set_shard_timer(shard);
        Ok(())
    }

    fn shard(&mut self, shard: usize) -> Option<&mut Shard> {
        self.server.as_mut()?.shards.get_mut(shard)
    }

    fn delivery(&mut self, shard: usize) -> Option<&mut Delivery> {
        Some(&mut self.shard(shard)?.delivery)
    }

    /// Writes to one connection what its socket takes.
    fn write(&mut self, shard: usize, id: ConnId) -> Result<(), Broken> {
        let (now, socket_bytes) = (Moment::from_millis(self.now), self.net.socket_bytes);
        let Some(state) = self.server.as_mut().and_then(|server| server.shards.get_mut(shard))
        else {
            return Ok(());
        };
        let mut slices = Vec::new();
        state.delivery.gather(id, &mut slices);
        if slices.is_empty() {
            state.tap.gave_nothing(id);
            if state.delivery.is_finished(id) {
                state.tap.finished(id)?;
                self.drop_connection(id);
            }
            return Ok(());
        }
        let Some(conn) = self.conns.get_mut(&id) else { return Ok(()) };
        let free = socket_bytes.saturating_sub(conn.to_client.unread);
        if free == 0 {
            conn.blocked = true;
            state.delivery.blocked(id, now);
            state.tap.blocked(id, now);
            return Ok(());
        }
        let bytes = join(&slices, free);
        state.tap.wrote(id, &bytes, &self.witness)?;
        state.delivery.wrote(id, bytes.len());
        self.digest_bytes(&bytes);
        if let Some((conn, mut wire)) = self.wire(id) {
            wire.send(id, conn, Side::Client, bytes);
        }
        Ok(())
    }

    /// Puts on its way to the engine what a shard has to say: it arrives in order, and other things
    /// may reach the engine before.
    fn report(&mut self, shard: usize) -> Result<(), Broken> {
        let now = self.now;
        let Some(state) = self.server.as_mut().and_then(|server| server.shards.get_mut(shard))
        else {
            return Ok(());
        };
        let before = state.reports.len();
        while let Some(need) = state.delivery.poll_need() {
            state.tap.needs(&need)?;
            state.reports.push_back(Report::Fetch(need));
        }
        let condemned = std::mem::take(&mut state.condemned);
        state.reports.extend(condemned.into_iter().map(|(conn, why)| Report::Condemned(conn, why)));
        for _ in before..state.reports.len() {
            let at = now + self.rng.u64(0..=self.net.shard_delay_max);
            state.reports_at = state.reports_at.max(at);
            self.queue.push(state.reports_at, Event::Reported { boot: self.boot, shard });
        }
        Ok(())
    }

    /// The next thing that a shard had to say reaches the engine.
    pub(crate) fn reported(&mut self, boot: u64, shard: usize) -> Result<(), Broken> {
        if boot != self.boot {
            return Ok(());
        }
        match self.shard(shard).and_then(|state| state.reports.pop_front()) {
            None => Ok(()),
            Some(Report::Condemned(conn, refusal)) => self.condemn(conn, refusal),
            Some(Report::Fetch(need)) => {
                self.mark_need(&need);
                self.note(|| format!("  {need:?}"));
                self.input(Input::Fetch(need))
            }
        }
    }

    /// Writes down what somebody is told.
    pub(crate) fn note_answer(&mut self, conn: ConnId, frame: &ServerFrame) {
        if !matches!(frame, ServerFrame::Ping { .. } | ServerFrame::Pong { .. }) {
            self.note(|| format!("{conn} < {}", tell_answer(frame)));
        }
    }

    fn condemn(&mut self, conn: ConnId, refusal: Refusal) -> Result<(), Broken> {
        let known = self.server.as_ref().is_some_and(|server| server.buffers.contains_key(&conn));
        if known { self.input(Input::Condemned { conn, refusal }) } else { Ok(()) }
    }

    /// Closes the server's end: its reader then hears that it has ended.
    fn drop_connection(&mut self, id: ConnId) {
        let shard = self.server.as_ref().map_or(0, |server| server.shard_of(id));
        if let Some(state) = self.shard(shard) {
            state.delivery.remove(id);
            state.tap.remove(id);
        }
        let (boot, at) = (self.boot, self.now + self.rng.u64(0..=2));
        let Some((conn, mut wire)) = self.wire(id) else { return };
        if std::mem::replace(&mut conn.server_open, false) {
            wire.end(id, conn, Side::Client);
            self.queue.push(at, Event::Gone { boot, conn: id });
            self.note(|| format!("  the server closes {id}"));
        }
    }

    /// The reader of a connection has ended: the engine is told, once.
    pub(crate) fn gone(&mut self, boot: u64, conn: ConnId) -> Result<(), Broken> {
        let Some(server) = self.server.as_mut().filter(|server| server.boot == boot) else {
            return Ok(());
        };
        if server.buffers.remove(&conn).is_none() {
            return Ok(());
        }
        server.logged_in.remove(&conn);
        server.closing.remove(&conn);
        self.input(Input::Disconnected { conn })
    }

    pub(crate) fn give_up(&mut self, boot: u64, conn: ConnId) {
        if boot == self.boot && self.server.is_some() {
            self.drop_connection(conn);
        }
    }

    /// A connection breaks.
    pub(crate) fn break_at_server(&mut self, conn: ConnId) -> Result<(), Broken> {
        let buffer = self.server.as_ref().and_then(|server| server.buffers.get(&conn));
        let is_inside = buffer.is_some_and(FrameBuffer::is_inside_frame);
        self.note(|| format!("  the server hears that {conn} is broken"));
        if is_inside {
            self.hit(Mark::CutInsideFrame);
        }
        self.hang_up_at_server(conn)
    }

    /// The server hears that a connection has ended.
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
        server.shards[shard].tap.add(id);
        let mut nonce = [1; Nonce::LEN];
        nonce[..8].copy_from_slice(&id.get().to_be_bytes());
        let address = Some("chat://127.0.0.1:5000".parse().expect("a plain address is one"));
        let nonce = Nonce::new(nonce);
        // Every other one as if by TLS, of which some time is spent before it is a connection.
        let channel = channel_of(id);
        let waited = channel.map_or(Span::ZERO, |_| Span::from_millis(id.get() % 64));
        self.input(Input::Connected { conn: id, nonce, channel, address, waited })
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
                        self.note(|| format!("{conn} > {}", tell_frame(&frame)));
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

    /// The host says its part of what the server is doing.
    pub(crate) fn tell_status(&mut self, boot: u64, conn: ConnId) -> Result<(), Broken> {
        let (uptime_ms, storage) = (Span::from_millis(self.now), StorageStatus::Memory);
        let host = HostStatus { uptime_ms, storage };
        if boot == self.boot { self.input(Input::Reported { conn, host }) } else { Ok(()) }
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
        server.shards[shard].tap.writable(conn);
        self.wake_shard(shard);
    }
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

/// What secures a connection: every other one, as if by TLS.
pub(crate) fn channel_of(id: ConnId) -> Option<Digest> {
    id.get().is_multiple_of(2).then(|| {
        let mut exporter = [7; Digest::LEN];
        exporter[..8].copy_from_slice(&id.get().to_be_bytes());
        Digest::new(exporter)
    })
}

/// What secures the connection that a hello came by: its nonce begins with the connection's number.
pub(crate) fn channel_behind(hello: &ServerHello) -> Option<Digest> {
    let number = hello.nonce.as_bytes().first_chunk().expect("a nonce is longer than a number");
    channel_of(ConnId::new(u64::from_be_bytes(*number)))
}
