//! The clients' machines: a file that survives, and a program that may die at any time.

use bytes::Bytes;
use chatcore::client::{Ask, Client, ClientConfig, Drain, Event as Shown, Input, Output};
use chatcore::client::{Save, Saved, Stop, Unsent};
use chatcore::codec::{FrameBuffer, decode, encode_to_bytes};
use chatcore::id::{ConnId, Counter, PublicKey, Seq, SessionId, Signature, Threshold};
use chatcore::text::{RoomName, UserName};
use chatcore::time::Moment;
use chatcore::wire::{
    Answer, ClientFrame, Command, Measure, NameFault, Question as Asked, Refusal, ServerFrame,
    Start,
};

use crate::broken::{Broken, hold};
use crate::marks::Mark;
use crate::plan::{ClientOptions, Question, StartAt};
use crate::witness::{Post, Wish};
use crate::world::World;
use crate::world::net::{Conn, Dialler, Piece};
use crate::world::queue::{Event, Side};
use crate::world::server::channel_of;
use crate::world::waits::{Waits, wait_of};

/// How many pages the longest history has that a user asks for.
const HISTORY_PAGES: usize = 64;

/// A client's machine.
#[derive(Debug)]
pub(crate) struct Slot {
    number: u8,
    options: ClientOptions,
    pub(crate) name: UserName,
    pub(crate) key: PublicKey,
    /// What is in its file.
    saved: Saved,
    /// What is on its way into the file.
    late: Vec<Save>,
    pub(crate) program: Option<Program>,
    /// How often it was started.
    run: u64,
    /// How much was posted.
    posted: u64,
    resets: u64,
    measures: u64,
    /// How much was asked.
    asked: u64,
    /// How its user quit, in this run.
    quit: Option<Drain>,
    /// Why the last run stopped by itself, unless there is a later one.
    pub(crate) stop: Option<Stop>,
    /// The server told it not to dial before this.
    dials_from: u64,
    /// The highest number that a command of its session was sent under, and to which run of the
    /// server.
    sent: (Counter, u64),
    /// The highest one that was sent by an earlier connection.
    sent_before: Counter,
    /// Whether the last run died with commands unanswered.
    died_with_outbox: bool,
}

pub(crate) fn name_of(user: u8) -> UserName {
    format!("user-{user}").parse().expect("a plain word is a name")
}

pub(crate) const fn key_of(user: u8) -> PublicKey {
    PublicKey::new([user; PublicKey::LEN])
}

/// A client that runs.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) client: Client,
    pub(crate) conn: Option<ConnId>,
    buffer: FrameBuffer,
    timer: Option<u64>,
    waits: Waits,
    /// How often it was logged in.
    log_ins: u32,
}

impl Slot {
    pub(crate) fn new(place: usize, options: ClientOptions) -> Self {
        let number = u8::try_from(place).unwrap_or(u8::MAX);
        let key = if options.impostor { 100 + number } else { options.user };
        Self {
            number,
            options,
            name: name_of(options.user),
            key: key_of(key),
            saved: Saved::new(SessionId::new([number; SessionId::LEN])),
            late: Vec::new(),
            program: None,
            run: 0,
            posted: 0,
            resets: 0,
            measures: 0,
            asked: 0,
            quit: None,
            stop: None,
            dials_from: 0,
            sent: (Counter::ZERO, 0),
            sent_before: Counter::ZERO,
            died_with_outbox: false,
        }
    }

    fn config(&self, room: RoomName, seed: u64) -> ClientConfig {
        ClientConfig {
            name: self.name.clone(),
            rooms: vec![room],
            start: self.options.start.into(),
            reconnect: true,
            jitter_seed: seed ^ self.run ^ u64::from(self.number),
            // Every other one wants the server's key proven.
            proof_seed: self.number.is_multiple_of(2).then_some([self.number; 32]),
        }
    }

    /// Whether it was logged in before, in this run or an earlier one.
    pub(crate) fn returned(&self) -> bool {
        let log_ins = self.program.as_ref().map_or(0, |program| program.log_ins);
        log_ins > 1 || (log_ins > 0 && self.run > 1)
    }

    /// Whether it stopped because its name is somebody else's.
    pub(crate) fn is_refused_for_good(&self) -> bool {
        self.stop == Some(Stop::Refused(Refusal::Name(NameFault::InUse)))
    }

    /// How many commands are in its file, or will be once nothing is on its way.
    pub(crate) fn unsent(&self) -> usize {
        let mut saved = self.saved.clone();
        self.late.iter().cloned().for_each(|save| saved.apply(save));
        saved.outbox.len()
    }

    /// Writes what is on its way, in order.
    fn flush(&mut self) {
        for save in std::mem::take(&mut self.late) {
            self.saved.apply(save);
        }
    }
}

impl From<StartAt> for Start {
    fn from(start: StartAt) -> Self {
        match start {
            StartAt::First => Self::At(Seq::ZERO.next()),
            StartAt::Last(count) => Self::Last(count),
        }
    }
}

impl World<'_> {
    /// The machine of a client, by any number.
    pub(crate) fn machine(&self, number: u8) -> usize {
        self.plan.options.client(number)
    }

    pub(crate) fn start_client(&mut self, place: usize) -> Result<(), Broken> {
        let (room, seed) = (self.rooms[0].clone(), self.plan.seed);
        let slot = &mut self.slots[place];
        if slot.program.is_some() {
            return Ok(());
        }
        slot.run += 1;
        slot.quit = None;
        slot.stop = None;
        slot.dials_from = 0;
        slot.flush();
        let config = slot.config(room, seed);
        let mut client = Client::new(config);
        self.off.client(&mut client);
        slot.program = Some(Program {
            client,
            conn: None,
            buffer: FrameBuffer::default(),
            timer: None,
            waits: Waits::default(),
            log_ins: 0,
        });
        let number = slot.number;
        self.note(|| format!("client {number} starts"));
        let home = self.rooms[0].clone();
        self.witness.started(number, home, &self.slots[place].saved);
        self.tell(place, Input::Start)
    }

    /// Tells a client something and carries out what it wants.
    pub(crate) fn tell(&mut self, client: usize, input: Input) -> Result<(), Broken> {
        let now = Moment::from_millis(self.now);
        let Some(program) = &mut self.slots[client].program else { return Ok(()) };
        program.client.handle(now, input);
        while let Some(program) = &mut self.slots[client].program
            && let Some(output) = program.client.poll_output()
        {
            let answer = self.carry_out_for(client, output)?;
            if let (Some(answer), Some(program)) = (answer, &mut self.slots[client].program) {
                program.client.handle(now, answer);
            }
        }
        self.set_client_timer(client);
        self.check_file(client)
    }

    /// What is not late is in the file.
    fn check_file(&mut self, client: usize) -> Result<(), Broken> {
        let slot = &self.slots[client];
        if slot.late.is_empty() { self.witness.flushed(slot.number, &slot.saved) } else { Ok(()) }
    }

    fn carry_out_for(&mut self, client: usize, output: Output) -> Result<Option<Input>, Broken> {
        let slot = &mut self.slots[client];
        match output {
            Output::Dial => self.dial(client)?,
            Output::Hangup => {
                self.mark_hangup(client);
                self.hang_up(client);
            }
            Output::Send(frame) => self.send(client, &frame)?,
            Output::Identify { .. } => {
                return Ok(Some(Input::Identified { key: slot.key, saved: slot.saved.clone() }));
            }
            Output::Sign(message) => return Ok(Some(Input::Signed(sign(&slot.key, &message)))),
            Output::Verify { key, message, signature } => {
                let valid = verify(&key, &message, &signature);
                if valid {
                    self.hit(Mark::KeyProven);
                }
                return Ok(Some(Input::Verified { valid }));
            }
            Output::Save(save) => self.save(client, save)?,
            Output::Event(event) => self.show(client, &event)?,
            Output::Stopped(stop) => self.end_program(client, stop)?,
        }
        Ok(None)
    }

    fn dial(&mut self, client: usize) -> Result<(), Broken> {
        let from = self.slots[client].dials_from;
        hold!(self.now >= from, "a client waits as it is told", "{client} dials before {from}");
        self.hang_up(client);
        self.dials += 1;
        let id = ConnId::new(self.dials);
        let run = self.slots[client].run;
        self.slots[client].sent_before = self.slots[client].sent.0;
        self.note(|| format!("client {client} dials: {id}"));
        self.conns.insert(id, Conn::new(Dialler::Client { client, run }, self.boot));
        if let Some(program) = &mut self.slots[client].program {
            program.conn = Some(id);
            program.buffer = FrameBuffer::default();
            program.waits = Waits::default();
        }
        let at = self.now + self.net.delay_min;
        self.queue.push(at, Event::Dial(id));
        Ok(())
    }

    /// A client gives up a connection.
    fn mark_hangup(&mut self, client: usize) {
        let slot = &self.slots[client];
        let id = slot.program.as_ref().and_then(|program| program.conn);
        let Some(id) = id.filter(|_| slot.quit.is_none()) else { return };
        let is_heard = self.conns.get(&id).is_some_and(|conn| conn.server_open);
        if is_heard && self.silent_ways(id) == (false, true) {
            self.hit(Mark::DeafClosed);
        }
    }

    /// Closes the client's end.
    fn hang_up(&mut self, client: usize) {
        let id = self.slots[client].program.as_mut().and_then(|program| program.conn.take());
        let Some(id) = id else { return };
        self.note(|| format!("client {client} closes {id}"));
        let Some((conn, mut wire)) = self.wire(id) else { return };
        conn.client_open = false;
        conn.lose(Side::Client);
        wire.end(id, conn, Side::Server);
    }

    fn send(&mut self, client: usize, frame: &ClientFrame) -> Result<(), Broken> {
        let (now, boot) = (self.now, self.boot);
        let slot = &mut self.slots[client];
        if let Some(program) = &mut slot.program {
            program.waits.sends(now, frame)?;
        }
        if let ClientFrame::Ask { question: Asked::Join { room, start }, .. } = frame {
            let starts = (*start, slot.options.start.into());
            self.witness.joins(slot.number, room.as_str(), starts)?;
        }
        if let ClientFrame::Submit { counter, command } = frame {
            let (highest, last_boot) = slot.sent;
            let before = *counter <= slot.sent_before;
            slot.sent = (highest.max(*counter), boot);
            if *counter <= highest {
                self.hit(Mark::SentAgain);
                if matches!(command, Command::Reset { .. }) && before {
                    self.hit(Mark::ResetSentAgain);
                }
                if last_boot != boot {
                    self.hit(Mark::SentAgainAfterRestart);
                }
            }
        }
        let conn = self.slots[client].program.as_ref().and_then(|program| program.conn);
        if let Some(id) = conn {
            self.send_bytes(id, encode_to_bytes(frame));
        }
        Ok(())
    }

    pub(crate) fn send_bytes(&mut self, id: ConnId, bytes: Bytes) {
        if let Some((conn, mut wire)) = self.wire(id)
            && conn.client_open
        {
            wire.send(id, conn, Side::Server, bytes);
        }
    }

    /// Keeps something: at once, or late if it may be and the machine is like that.
    fn save(&mut self, client: usize, save: Save) -> Result<(), Broken> {
        let slot = &mut self.slots[client];
        if let Save::Seen(room, cursor) = &save {
            let wants_all = slot.options.start == StartAt::First;
            self.witness.kept(slot.number, room, *cursor, wants_all)?;
        }
        match &save {
            Save::Queued(unsent) => {
                self.witness.written(&unsent.id, (slot.saved.session, unsent.counter));
            }
            Save::Renewed { session, outbox, .. } => {
                let written = |unsent: &Unsent| (*session, unsent.counter);
                outbox.iter().for_each(|it| self.witness.written(&it.id, written(it)));
                slot.sent.0 = Counter::ZERO;
                slot.sent_before = Counter::ZERO;
            }
            Save::Settled(_) | Save::Seen(..) | Save::Attach(_) => {}
        }
        let may_be_late = matches!(save, Save::Settled(_) | Save::Seen(..));
        slot.late.push(save);
        if !(may_be_late && slot.options.saves_late) || self.rng.u8(0..8) == 0 {
            slot.flush();
        }
        Ok(())
    }

    fn show(&mut self, client: usize, event: &Shown) -> Result<(), Broken> {
        let number = self.slots[client].number;
        self.note(|| format!("client {number} shows {event:?}"));
        self.mark_shown(client, event);
        if let Shown::Connected { resumed, .. } = event {
            self.connected(client);
            let log = self.log_of(client);
            self.witness.connected(number, log, *resumed)?;
        }
        self.witness.event(number, event)
    }

    /// The run of the server that a client is connected to.
    pub(crate) fn boot_of(&self, client: usize) -> u64 {
        let conn = self.slots[client].program.as_ref().and_then(|program| program.conn);
        conn.and_then(|conn| self.conns.get(&conn)).map_or(0, |conn| conn.boot)
    }

    /// The journal of the server that a client is connected to.
    fn log_of(&self, client: usize) -> usize {
        self.logs.get(&self.boot_of(client)).copied().unwrap_or(0)
    }

    fn connected(&mut self, client: usize) {
        let slot = &mut self.slots[client];
        let Some(program) = &mut slot.program else { return };
        program.log_ins += 1;
        let returned = std::mem::take(&mut slot.died_with_outbox);
        let id = program.conn;
        if returned {
            self.hit(Mark::ReturnWithOutbox);
        }
        if let Some(conn) = id.and_then(|id| self.conns.get_mut(&id)) {
            conn.welcomed = true;
        }
        self.mark_return(client);
    }

    fn end_program(&mut self, client: usize, stop: Stop) -> Result<(), Broken> {
        let (number, quit) = (self.slots[client].number, self.slots[client].quit);
        self.note(|| format!("client {number} stops: {stop:?}"));
        self.hang_up(client);
        self.slots[client].program = None;
        self.slots[client].stop = Some(stop);
        self.slots[client].flush();
        self.check_stop(client, stop)?;
        if (stop, quit) == (Stop::Done, Some(Drain::Wait)) {
            self.witness.drained(number)?;
        }
        self.witness.ended(number);
        Ok(())
    }

    /// A client stops because its user quit or was sent away, or because its name is another key's;
    /// not for what passes.
    fn check_stop(&self, client: usize, stop: Stop) -> Result<(), Broken> {
        let slot = &self.slots[client];
        let right = match stop {
            Stop::Done => slot.quit.is_some(),
            Stop::Refused(Refusal::Expelled(fault)) => {
                self.witness.was_sent_away(&slot.name, fault)
            }
            Stop::Refused(_) => {
                slot.is_refused_for_good() && self.witness.is_taken(&slot.name, &slot.key)
            }
            Stop::Lost | Stop::OtherServer | Stop::Impostor => false,
        };
        hold!(right, "a client stops for a reason that stays", "{} {stop:?}", slot.name);
        Ok(())
    }

    /// A client dies: what was on its way into the file may be lost.
    pub(crate) fn kill(&mut self, client: usize) {
        let kept = self.rng.usize(0..=self.slots[client].late.len());
        self.hang_up(client);
        let slot = &mut self.slots[client];
        if slot.program.take().is_none() {
            return;
        }
        slot.late.truncate(kept);
        slot.flush();
        slot.died_with_outbox = !slot.saved.outbox.is_empty();
        self.witness.ended(slot.number);
    }

    pub(crate) fn post(
        &mut self,
        client: usize,
        room: RoomName,
        bytes: usize,
    ) -> Result<(), Broken> {
        let slot = &mut self.slots[client];
        if slot.program.is_none() {
            return Ok(());
        }
        slot.posted += 1;
        let post = Post { client: slot.number, number: slot.posted };
        self.witness.queued(post.label());
        let body = post.text(bytes).parse().expect("a plain text is a body");
        self.tell(client, Input::Post { room, body, id: post.label() })
    }

    pub(crate) fn reset(
        &mut self,
        client: usize,
        room: RoomName,
        threshold: u16,
    ) -> Result<(), Broken> {
        let slot = &mut self.slots[client];
        if slot.program.is_none() {
            return Ok(());
        }
        slot.resets += 1;
        let id = format!("r{}-{}", slot.number, slot.resets);
        let threshold = Threshold::new(threshold).unwrap_or_default();
        self.witness.queued(id.clone());
        self.tell(client, Input::Reset { room, threshold, id })
    }

    /// A user takes a measure on another.
    pub(crate) fn moderate(
        &mut self,
        client: usize,
        user: UserName,
        measure: Measure,
    ) -> Result<(), Broken> {
        let slot = &mut self.slots[client];
        if slot.program.is_none() {
            return Ok(());
        }
        slot.measures += 1;
        let id = format!("m{}-{}", slot.number, slot.measures);
        self.witness.queued(id.clone());
        self.tell(client, Input::Moderate { user, measure, id })
    }

    /// A user asks something, or joins or leaves a room.
    pub(crate) fn ask(&mut self, client: usize, wish: Wish) -> Result<(), Broken> {
        let slot = &mut self.slots[client];
        if slot.program.is_none() {
            return Ok(());
        }
        slot.asked += 1;
        let id = format!("q{}-{}", slot.number, slot.asked);
        self.witness.asked(slot.number, id.clone(), wish.clone());
        let input = match wish {
            Wish::Join(room) => Input::Join { room, id },
            Wish::Part(room) => Input::Part { room, id },
            Wish::Who(room) => Input::Ask { ask: Ask::Who(room), id },
            Wish::Rooms => Input::Ask { ask: Ask::Rooms, id },
            Wish::Whois(room, user) => Input::Ask { ask: Ask::Whois(room, user), id },
            Wish::History(room, count) => Input::Ask { ask: Ask::History(room, count), id },
        };
        self.tell(client, input)
    }

    /// What a question of the plan asks.
    pub(crate) fn wish(&self, room: RoomName, question: Question) -> Wish {
        match question {
            Question::Who => Wish::Who(room),
            Question::Rooms => Wish::Rooms,
            Question::Whois(other) => {
                Wish::Whois(room, self.slots[self.machine(other)].name.clone())
            }
            // Of a store that reads record by record: a long one brings nothing new.
            Question::History(count) => {
                let most = u64::try_from(self.plan.options.store.read_records_max * HISTORY_PAGES);
                Wish::History(room, u64::from(count).min(most.unwrap_or(u64::MAX)))
            }
        }
    }

    pub(crate) fn quit(&mut self, client: usize, drain: Drain) -> Result<(), Broken> {
        let slot = &mut self.slots[client];
        slot.quit = slot.program.as_ref().map(|_| drain);
        self.tell(client, Input::Quit { drain })
    }

    /// The client that a connection is for, if that run still uses it.
    pub(crate) fn client_of(&self, id: ConnId) -> Option<usize> {
        let Dialler::Client { client, run } = self.conns.get(&id)?.dialler else { return None };
        let slot = self.slots.get(client).filter(|slot| slot.run == run)?;
        (slot.program.as_ref()?.conn == Some(id)).then_some(client)
    }

    pub(crate) fn dialled(&mut self, id: ConnId, well: bool) -> Result<(), Broken> {
        let Some(conn) = self.conns.get(&id) else { return Ok(()) };
        if conn.dialler == Dialler::Wild {
            self.wild_dialled(id, well);
            return Ok(());
        }
        let Some(client) = self.client_of(id) else { return Ok(()) };
        if well {
            return self.tell(client, Input::Dialled { channel: channel_of(id) });
        }
        self.lose_at_client(id, "connection refused")
    }

    /// A client hears that its connection is gone.
    pub(crate) fn lose_at_client(&mut self, id: ConnId, reason: &str) -> Result<(), Broken> {
        let Some(client) = self.client_of(id) else {
            self.wild.remove(&id);
            return Ok(());
        };
        self.note(|| format!("client {client} hears of {id}: {reason}"));
        if self.conns.get(&id).is_some_and(|conn| conn.server_open && !conn.welcomed) {
            self.hit(Mark::CutDuringLogin);
        }
        self.hang_up(client);
        self.tell(client, Input::Lost { reason: reason.to_owned() })
    }

    /// The connection of a client breaks.
    pub(crate) fn break_at_client(&mut self, id: ConnId) -> Result<(), Broken> {
        let program = self.client_of(id).and_then(|client| self.slots[client].program.as_ref());
        if program.is_some_and(|program| program.buffer.is_inside_frame()) {
            self.hit(Mark::CutInsideAnswer);
        }
        self.lose_at_client(id, "connection reset")
    }

    pub(crate) fn arrive_at_client(&mut self, id: ConnId) -> Result<(), Broken> {
        let now = self.now;
        let Some(conn) = self.conns.get_mut(&id) else { return Ok(()) };
        if conn.stalled_until > now {
            conn.waiting += 1;
            return Ok(());
        }
        let Some(piece) = conn.arrive(Side::Client) else { return Ok(()) };
        let was_blocked = std::mem::replace(&mut conn.blocked, false);
        if was_blocked && conn.server_open {
            self.make_writable(id);
        }
        match piece {
            Piece::Data(bytes) => self.take_in(id, &bytes),
            Piece::End => self.lose_at_client(id, "connection closed"),
        }
    }

    /// A client that read nothing reads again.
    pub(crate) fn resume(&mut self, id: ConnId) -> Result<(), Broken> {
        let now = self.now;
        let Some(conn) = self.conns.get_mut(&id).filter(|conn| conn.stalled_until <= now) else {
            return Ok(());
        };
        let waiting = std::mem::take(&mut conn.waiting);
        self.note(|| format!("{id} is read again: {waiting} pieces wait"));
        for _ in 0..waiting {
            self.arrive_at_client(id)?;
        }
        Ok(())
    }

    fn take_in(&mut self, id: ConnId, bytes: &[u8]) -> Result<(), Broken> {
        if self.wild.contains_key(&id) {
            return self.wild_receives(id, bytes);
        }
        let Some(client) = self.client_of(id) else { return Ok(()) };
        let Some(program) = &mut self.slots[client].program else { return Ok(()) };
        program.buffer.feed(bytes);
        while self.client_of(id).is_some()
            && let Some(program) = &mut self.slots[client].program
        {
            let Some(frame) = next_frame(&mut program.buffer)? else { break };
            program.waits.hears(self.now, &frame);
            self.note_answer(id, &frame);
            if let ServerFrame::Answer { answer: Answer::History { .. }, .. } = &frame {
                self.witness.page_came();
            }
            if let ServerFrame::Close(refusal) = &frame {
                let wait = wait_of(*refusal).unwrap_or_default();
                self.slots[client].dials_from = self.now + wait.as_millis();
            }
            self.tell(client, Input::Frame(frame))?;
        }
        Ok(())
    }

    fn set_client_timer(&mut self, client: usize) {
        let slot = &mut self.slots[client];
        let Some(program) = &mut slot.program else { return };
        let Some(next) = program.client.next_timeout() else { return };
        let at = next.as_millis().max(self.now);
        if program.timer.is_none_or(|timer| at < timer) {
            program.timer = Some(at);
            self.queue.push(at, Event::ClientTimer { client, run: slot.run });
        }
    }

    pub(crate) fn client_timer(&mut self, client: usize, run: u64) -> Result<(), Broken> {
        let slot = &mut self.slots[client];
        let Some(program) = slot.program.as_mut().filter(|_| slot.run == run) else {
            return Ok(());
        };
        if program.timer.is_some_and(|timer| timer <= self.now) {
            program.timer = None;
            return self.tell(client, Input::Timeout);
        }
        Ok(())
    }
}

/// The next frame of a server's stream, which is always well-formed.
pub(crate) fn next_frame(buffer: &mut FrameBuffer) -> Result<Option<ServerFrame>, Broken> {
    let frame = buffer.next_frame();
    let frame =
        frame.map_err(|fault| Broken::new("a server sends frames", format!("{fault:?}")))?;
    let Some(frame) = frame else { return Ok(None) };
    let frame = decode::<ServerFrame>(&frame);
    frame.map(Some).map_err(|fault| Broken::new("a server sends frames", format!("{fault:?}")))
}

/// What stands in for a signature here: it depends on every bit of the key and the message.
pub(crate) fn sign(key: &PublicKey, message: &[u8]) -> Signature {
    let mut sum: u64 = 0xCBF2_9CE4_8422_2325;
    for byte in key.as_bytes().iter().chain(message) {
        sum = (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3);
    }
    let mut bytes = [0; Signature::LEN];
    bytes[..8].copy_from_slice(&sum.to_be_bytes());
    Signature::new(bytes)
}

pub(crate) fn verify(key: &PublicKey, message: &[u8], signature: &Signature) -> bool {
    sign(key, message) == *signature
}
