//! A naive model of the engine, written against the rules and not with its helpers.
//!
//! It is told every input before the engine handles it and every output after, predicts from the
//! rules alone what has to come out, and names the rule when something else does. It shares the
//! engine's public types and none of its logic.
//!
//! ```text
//! model.before(now, &input);
//! engine.handle(now, input);
//! while let Some(output) = engine.poll_output() { model.output(&output)?; … }
//! model.after()?;
//! ```
//!
//! What [`Engine::found`](chatcore::engine::Engine::found) puts out is given to `output` before the
//! first input. After a [`Broken`] the model means nothing any more.
//!
//! Where the rules leave a choice the model takes any: how many pieces records become visible in,
//! what is in memory and what is read from the store once the window was full, how many rooms a
//! list holds when not all fit, whether answers that waited for an entry still go to a
//! connection that was closed meanwhile, where they do no harm, and how many bytes are in memory. It assumes that the host keeps the
//! rules of the interface, that the store gives what was committed, and that the moments that come
//! in never run back.

mod chain;
mod command;
mod commit;
mod due;
mod facts;
mod login;
mod operate;
mod presence;
mod question;
mod records;
pub mod rules;
mod truth;

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::BytesMut;
use chatcore::engine::{Archive, Config, Directive, Event, Input, Output, Page, ReadToken};
use chatcore::id::{Counter, Generation, Incarnation, Index, RequestId, Seq, SessionId};
use chatcore::limits::Limits;
use chatcore::log::{Change, Entry, Founding, Head};
use chatcore::text::{RoomName, UserName};
use chatcore::time::{Moment, Now, Timestamp};
use chatcore::wire::{Answer, Refusal, ServerFrame};

pub use crate::broken::Broken;
use chain::{Chain, Hasher};
use due::{Due, DueEntry, Duty, Expected, Lane, What};
use facts::Facts;
use presence::{CatchUp, Process, Side, Store};
use records::Asking;
pub use truth::RoomTruth;

/// What one engine must do, whoever speaks to it.
#[derive(Debug)]
pub struct Model {
    limits: Limits,
    archive: Archive,
    generation: Generation,
    founding: Founding,
    /// The time of the input under way.
    now: Now,
    /// The last entry that is appended, and its time.
    last: Index,
    last_at: Timestamp,
    /// The last entry that is committed, and its time.
    committed: Index,
    committed_at: Timestamp,
    /// What is appended says.
    facts: Facts,
    /// What is committed says.
    safe: Facts,
    uncommitted: VecDeque<Arc<Entry>>,
    chain: Chain,
    process: Process,
    /// Rooms whose gate may have changed in the input under way.
    touched: Vec<RoomName>,
    due: Due,
    hasher: Hasher,
    scratch: BytesMut,
}

impl Model {
    /// The model of an engine that is founded like this.
    pub fn new(config: &Config, founding: &Founding, now: Now) -> Self {
        let mut model = Self {
            limits: config.limits.clone(),
            archive: config.archive,
            generation: config.generation,
            founding: founding.clone(),
            now,
            last: Index::ZERO,
            last_at: Timestamp::ZERO,
            committed: Index::ZERO,
            committed_at: Timestamp::ZERO,
            facts: Facts::default(),
            safe: Facts::default(),
            uncommitted: VecDeque::new(),
            chain: Chain::new(founding.log_id),
            process: Process::default(),
            touched: Vec::new(),
            due: Due::default(),
            hasher: Hasher::default(),
            scratch: BytesMut::new(),
        };
        model.append(Change::Founded(founding.clone()));
        model
    }

    /// Before the engine is given an input.
    ///
    /// # Panics
    /// For an input of an engine that follows, or that moves: it predicts one that leads for good.
    pub fn before(&mut self, now: Now, input: &Input) {
        self.now = now;
        match input {
            Input::Connected { conn, nonce, channel, address, waited } => {
                let state = presence::Conn::new(*nonce, *channel, address.clone(), self.now.moment);
                self.connected(*conn, state, *waited);
            }
            Input::Frame { conn, frame } => self.frame(*conn, frame),
            Input::Condemned { conn, refusal } => self.close(*conn, *refusal),
            Input::Disconnected { conn } => self.disconnected(*conn),
            Input::Verified { conn, valid } => self.verified(*conn, *valid),
            Input::Signed { conn, signature } => self.signed(*conn, *signature),
            Input::Reported { conn, host } => self.reported(*conn, *host),
            Input::Persisted { through } => self.persisted(*through),
            Input::Fetch(need) => self.fetch(need.clone()),
            Input::ReadDone { token, records } => self.read_done(*token, records),
            Input::ReadFailed { token } => self.read_failed(*token),
            Input::StoreFull => self.store_full(),
            Input::StoreFree => self.process.store = Store::Free,
            Input::Trim { room, incarnation, through } => self.trim(room, *incarnation, *through),
            Input::Moderate { request, user, measure } => {
                self.moderate(*request, user, *measure);
            }
            Input::Timeout => self.timeout(),
            Input::Stop => self.stop(),
            Input::Entry(_)
            | Input::Located(_)
            | Input::Lead { .. }
            | Input::Retire(_)
            | Input::Generation { .. }
            | Input::Prepare(_) => panic!("the model knows of no move: {input:?}"),
        }
        self.announce_touched();
    }

    /// Every output after that input, in order.
    ///
    /// # Errors
    /// When a rule is broken.
    pub fn output(&mut self, output: &Output) -> Result<(), Broken> {
        match output {
            Output::Persist(entry) => self.persist(entry),
            Output::Verify { .. } => match self.due.verify.take() {
                Some(due) if due == *output => Ok(()),
                due => Err(Broken::new(rules::VERIFY, format!("{output:?}, due is {due:?}"))),
            },
            Output::Sign { .. } => match self.due.sign.take() {
                Some(due) if due == *output => Ok(()),
                due => Err(Broken::new(rules::SIGN, format!("{output:?}, due is {due:?}"))),
            },
            Output::Report { conn } => match self.due.report.take() {
                Some(due) if due == *conn => Ok(()),
                due => Err(Broken::new(rules::REPORT, format!("{output:?}, due is {due:?}"))),
            },
            Output::Moderated { request, refusal } => self.moderated(*request, *refusal),
            Output::Read { token, room, incarnation, from, to, order } => self.asked(&Asking {
                token: *token,
                room,
                incarnation: *incarnation,
                from: *from,
                to: *to,
                order: *order,
            }),
            Output::Deliver(directive) => self.deliver(directive),
            Output::Event(event) => self.event(event),
        }
    }

    /// All outputs of the input were taken.
    ///
    /// # Errors
    /// When something had to come and did not.
    pub fn after(&mut self) -> Result<(), Broken> {
        if let Some(due) = self.due.entries.front() {
            let rule = rules::of_missing_entry(&due.change);
            return Err(Broken::new(rule, format!("{due:?} did not come")));
        }
        let missing = self.due.directives.iter().find(|due| due.duty == Duty::Must);
        if let Some(Expected { what, .. }) = missing {
            return Err(Broken::new(rules::of_missing(what), format!("{what:?} did not come")));
        }
        if let Some(due) = &self.due.verify {
            return Err(Broken::new(rules::VERIFY, format!("{due:?} did not come")));
        }
        if let Some(due) = &self.due.sign {
            return Err(Broken::new(rules::SIGN, format!("{due:?} did not come")));
        }
        if let Some(due) = self.due.report {
            return Err(Broken::new(rules::REPORT, format!("{due} waits for it")));
        }
        if let Some(due) = self.due.moderated.first() {
            return Err(Broken::new(rules::MODERATED, format!("{due:?} did not come")));
        }
        if let Some(due) = self.due.events.first() {
            return Err(Broken::new(rules::EVENT, format!("{due:?} did not come")));
        }
        self.due.clear();
        Ok(())
    }

    /// The process died, and a new engine was made of the journal up to `kept`, which is at least
    /// what was committed and holds at least the founding. Connections, reads, rates and answers
    /// that waited are gone, the store is free, and every member has a fresh grace in each room.
    pub fn restart(&mut self, kept: Index, now: Now) {
        self.now = now;
        let mut unseen = self.process.window_bytes;
        while let Some(entry) = self.uncommitted.pop_front_if(|e| e.header.index <= kept) {
            unseen += 1_024 + records::RECORD_COST + text_bytes(&entry.change);
            self.commit(&entry);
        }
        self.uncommitted.clear();
        self.due = Due::default();
        self.touched.clear();
        self.facts = self.safe.without_entries();
        (self.last, self.last_at) = (kept, self.committed_at);
        self.committed = kept;
        self.process = Process::default();
        if !self.has_store() {
            self.process.window_bytes = unseen;
        }
        self.begin_grace();
    }

    fn begin_grace(&mut self) {
        let ends = self.now.moment + self.limits.grace;
        for (name, user) in &self.safe.users {
            let absences = user.rooms.iter().map(|room| (ends, (name.clone(), room.clone())));
            self.process.graces.extend(absences);
        }
        for (name, room) in &self.safe.rooms {
            let restored = if self.archive == Archive::Store { room.last() } else { Seq::ZERO };
            let side = Side { shown: room.visible(), restored, ..Side::default() };
            self.process.sides.insert(name.clone(), side);
        }
    }

    /// The time that an entry would have now.
    fn entry_time(&self) -> Timestamp {
        self.last_at.max(self.now.wall)
    }

    /// An entry has to come, and the state is as if it had.
    fn append(&mut self, change: Change) {
        let (index, at) = (self.last.next(), self.entry_time());
        (self.last, self.last_at) = (index, at);
        self.facts.apply(index, at, &change);
        self.due.entries.push_back(DueEntry { index, at, change });
    }

    /// Retention takes what may be seen of the present life, and never less than before.
    fn trim(&mut self, room: &RoomName, incarnation: Incarnation, through: Seq) {
        let is_of = |truth: &&RoomTruth| truth.incarnation == incarnation;
        let Some(safe) = self.safe.rooms.get(room).filter(is_of) else { return };
        let Some(present) = self.facts.rooms.get(room).filter(is_of) else { return };
        let through = through.min(safe.visible());
        if through > present.trimmed {
            let room = room.clone();
            self.append(Change::Trimmed { room, incarnation, through });
        }
    }

    fn persist(&mut self, entry: &Arc<Entry>) -> Result<(), Broken> {
        let header = entry.header;
        let Some(due) = self.due.entries.pop_front() else {
            let rule = rules::of_entry(&entry.change, None);
            return Err(Broken::new(rule, format!("{entry:?}, nothing is due")));
        };
        let rule = if entry.change != due.change {
            rules::of_entry(&entry.change, Some(&due.change))
        } else if header.index != due.index {
            rules::ENTRY_NUMBER
        } else if header.at != due.at {
            rules::ENTRY_TIME
        } else if header.digest != self.hasher.digest("chatcore change v1", &entry.change) {
            rules::ENTRY_DIGEST
        } else {
            self.uncommitted.push_back(Arc::clone(entry));
            return Ok(());
        };
        Err(Broken::new(rule, format!("{entry:?}, due is {due:?}")))
    }

    fn moderated(&mut self, request: RequestId, refusal: Option<Refusal>) -> Result<(), Broken> {
        let (found, due) = ((request, refusal), &mut self.due.moderated);
        if due.first() == Some(&found) {
            due.remove(0);
            return Ok(());
        }
        Err(Broken::new(rules::MODERATED, format!("{found:?}, due are {due:?}")))
    }

    fn event(&mut self, event: &Event) -> Result<(), Broken> {
        if let Some(place) = self.due.events.iter().position(|due| due == event) {
            self.due.events.remove(place);
            return Ok(());
        }
        let due = &self.due.events;
        Err(Broken::new(rules::EVENT, format!("{event:?}, due are {due:?}")))
    }

    /// A directive: it has to be what is due next in its lane.
    fn deliver(&mut self, directive: &Directive) -> Result<(), Broken> {
        let (lane, mut start) = (Lane::of(directive), 0);
        while let Some(place) = self.due.position(start, lane) {
            let Some(due) = self.due.directives.get(place) else { break };
            if !may_be(&due.what, directive) {
                if due.duty == Duty::Must {
                    return Err(self.explain(directive, Some(due)));
                }
                start = place + 1;
                continue;
            }
            let Some(Expected { what, duty }) = self.due.directives.remove(place) else { break };
            if let Some(rest) = self.meet(what, directive)? {
                self.due.directives.insert(place, Expected { what: rest, duty });
            }
            return Ok(());
        }
        Err(self.explain(directive, None))
    }

    /// Compares a directive with what is due; gives what is still due of that.
    fn meet(&mut self, what: What, directive: &Directive) -> Result<Option<What>, Broken> {
        match (what, directive) {
            (What::Show(show), Directive::Visible { incarnation, through, chunk, .. }) => {
                let rest = self.shown(show, (*incarnation, *through, chunk.as_ref()))?;
                return Ok(rest.map(What::Show));
            }
            (What::CatchUp(due), Directive::Page { page, .. }) => self.caught_up(&due, page)?,
            (what @ What::Given { .. }, Directive::Page { page, .. }) => self.given(&what, page)?,
            (What::Rooms(rooms), Directive::Send { frame, .. }) => {
                if let ServerFrame::Answer { answer, .. } = frame {
                    Self::rooms_told(&rooms, answer)?;
                }
            }
            (What::Newest(newest), Directive::Send { frame, .. }) => {
                if let ServerFrame::Answer { answer, .. } = frame {
                    self.page_of(&newest, answer)?;
                }
            }
            (
                What::Exactly(_)
                | What::Show(_)
                | What::Rooms(_)
                | What::Newest(_)
                | What::CatchUp(_)
                | What::Given { .. }
                | What::Status(..),
                directive,
            ) => self.note(directive)?,
        }
        Ok(None)
    }

    /// The last entry that is safe.
    pub const fn committed(&self) -> Index {
        self.committed
    }

    /// The newest end of the journal, with the chain worked out by hand: to be compared with
    /// [`Engine::head`](chatcore::engine::Engine::head). It costs a hash for each entry since the
    /// last time.
    pub fn head(&mut self) -> Head {
        let chain = self.chain.value(self.uncommitted.iter().map(|entry| &entry.header));
        Head { index: self.last, at: self.last_at, chain }
    }

    /// When the engine has to be told of the time again at the latest.
    pub fn next_due(&self) -> Option<Moment> {
        self.process.next_due()
    }

    /// How many answers wait for an entry to be safe.
    pub fn waiting(&self) -> usize {
        self.process.waiting.len()
    }

    /// Whether a reader, whom this read is for, needs something else by now.
    pub fn needs_more(&self, token: ReadToken) -> bool {
        let conn = self.process.reads.get(&token).map(|reading| reading.conn);
        let state = conn.and_then(|conn| self.process.conns.get(&conn));
        state.is_some_and(|state| matches!(state.catch_up, CatchUp::ReadingBefore(_)))
    }

    /// What is committed of a room; `None` when its making is not.
    pub fn room(&self, room: &RoomName) -> Option<&RoomTruth> {
        self.safe.rooms.get(room)
    }

    /// Every committed room, by name.
    pub fn rooms(&self) -> impl ExactSizeIterator<Item = (&RoomName, &RoomTruth)> {
        self.safe.rooms.iter()
    }

    /// Whether a user is an operator, by what is appended.
    pub fn is_operator(&self, user: &UserName) -> bool {
        self.facts.users.get(user).is_some_and(|user| user.operator)
    }

    /// The last command of a session, by what is appended; `None` when there is no such session.
    pub fn last_counter(&self, session: &SessionId) -> Option<Counter> {
        self.facts.sessions.get(session).map(|session| session.last)
    }
}

/// Whether a directive is what is due, or is to be looked at as such.
fn may_be(due: &What, directive: &Directive) -> bool {
    let answers = |wanted| match directive {
        Directive::Send { frame: ServerFrame::Answer { request, answer }, .. } => {
            *request == wanted && !matches!(answer, Answer::Parted { .. })
        }
        Directive::Send { .. }
        | Directive::Close { .. }
        | Directive::Follow { .. }
        | Directive::Unfollow { .. }
        | Directive::Page { .. }
        | Directive::Gate { .. }
        | Directive::Visible { .. }
        | Directive::Reset { .. }
        | Directive::Trim { .. } => false,
    };
    match due {
        What::Exactly(due) => due == directive,
        What::Show(_) => matches!(directive, Directive::Visible { .. }),
        What::Status(_, due) => matches!(directive,
            Directive::Send { frame: ServerFrame::Status(found), .. }
                if operate::is_told(due, found)),
        What::Rooms(rooms) => answers(rooms.request),
        What::Newest(newest) => answers(newest.request),
        What::CatchUp(due::CatchUpDue { room, incarnation, .. })
        | What::Given { room, incarnation, .. } => {
            let (due_room, due_life) = (room, incarnation);
            matches!(directive, Directive::Page { room, incarnation, page, .. }
                if room == due_room
                    && incarnation == due_life
                    && matches!(page, Page::Records(_) | Page::Gone { .. }))
        }
    }
}

fn text_bytes(change: &Change) -> u64 {
    match change {
        Change::Posted { text, .. } => truth::to_u64(text.as_str().len()),
        Change::Founded(_)
        | Change::UserAdded { .. }
        | Change::OperatorGranted { .. }
        | Change::SessionOpened { .. }
        | Change::SessionExpired { .. }
        | Change::RoomCreated { .. }
        | Change::Joined { .. }
        | Change::Left { .. }
        | Change::Refused { .. }
        | Change::GateOpened { .. }
        | Change::Reset { .. }
        | Change::Trimmed { .. }
        | Change::Moderated { .. } => 0,
    }
}
