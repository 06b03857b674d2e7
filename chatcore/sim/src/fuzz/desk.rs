//! Whoever sits before a client: keeps what it saves, and judges what it shows and sends.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use chatcore::client::{Client, Event, Input, Output, Save, Saved};
use chatcore::id::{Counter, Incarnation, Seq};
use chatcore::text::RoomName;
use chatcore::wire::{ClientFrame, Cursor};

use super::client_ops::Report;

/// Frames that one input may make a client send: 64 commands, questions of 64 rooms and 64 more.
const SENDS_MAX: usize = 200;

pub(super) struct Desk {
    saved: Saved,
    /// What the client waits for, oldest first; of a connection that is gone nothing.
    wishes: VecDeque<Output>,
    /// Whether a connection was asked for, and stands.
    dialling: bool,
    connected: bool,
    stopped: bool,
    knowledge: Knowledge,
    /// The newest command that the user was told the end of: what a server has seen at least.
    answered: Counter,
    rooms: BTreeMap<RoomName, Shown>,
    /// Labels of commands that this process was given and has not told the end of.
    open: BTreeSet<String>,
    ended: BTreeSet<String>,
    report: Report,
}

/// Whether the client was given what was saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Knowledge {
    None,
    Asked,
    Given,
}

/// What was shown of one room.
#[derive(Debug, Default)]
struct Shown {
    /// The cursor as it was saved last.
    saved: Option<Cursor>,
    /// The last record, or the last of a gap, that was shown and is not saved as seen yet.
    news: Option<(Incarnation, Seq)>,
}

impl Desk {
    pub(super) fn new(saved: Saved) -> Self {
        Self {
            saved,
            wishes: VecDeque::new(),
            dialling: false,
            connected: false,
            stopped: false,
            knowledge: Knowledge::None,
            answered: Counter::ZERO,
            rooms: BTreeMap::new(),
            open: BTreeSet::new(),
            ended: BTreeSet::new(),
            report: Report::default(),
        }
    }

    /// Another process begins with what was saved.
    pub(super) fn begin_again(&mut self) {
        self.wishes.clear();
        self.open.clear();
        self.ended.clear();
        (self.dialling, self.connected) = (false, false);
        self.stopped = false;
        self.knowledge = Knowledge::None;
        self.rooms.clear();
    }

    pub(super) const fn saved(&self) -> &Saved {
        &self.saved
    }

    pub(super) const fn last_answered(&self) -> Counter {
        self.answered
    }

    pub(super) fn waits(&self) -> bool {
        !self.wishes.is_empty()
    }

    pub(super) fn next_wish(&mut self) -> Option<Output> {
        self.wishes.pop_front()
    }

    pub(super) fn seen(&self, room: &RoomName) -> Option<Cursor> {
        self.rooms.get(room)?.saved
    }

    pub(super) const fn report(&self) -> Report {
        self.report
    }

    /// Takes note of what the client is told.
    pub(super) fn hear_input(&mut self, input: &Input) {
        if self.stopped {
            return;
        }
        match input {
            Input::Dialled { .. } => self.connected |= core::mem::take(&mut self.dialling),
            Input::Lost { .. } => self.hang_up(),
            Input::Identified { .. } if self.knowledge == Knowledge::Asked => self.identify(),
            Input::Post { id, .. } | Input::Reset { id, .. } | Input::Moderate { id, .. } => {
                self.open.insert(id.clone());
            }
            Input::Identified { .. }
            | Input::Start
            | Input::Frame(_)
            | Input::Signed(_)
            | Input::Verified { .. }
            | Input::Join { .. }
            | Input::Part { .. }
            | Input::Ask { .. }
            | Input::Timeout
            | Input::Quit { .. } => {}
        }
    }

    fn identify(&mut self) {
        self.knowledge = Knowledge::Given;
        for (room, cursor) in &self.saved.cursors {
            self.rooms.insert(room.clone(), Shown { saved: Some(*cursor), news: None });
        }
    }

    /// The connection is gone. What the host was asked for beside it is still due.
    fn hang_up(&mut self) {
        (self.dialling, self.connected) = (false, false);
        let of_host = |wish: &Output| matches!(wish, Output::Identify { .. } | Output::Sign(_));
        self.wishes.retain(of_host);
    }

    /// Takes what one input made the client do, and judges it.
    pub(super) fn hear_outputs(&mut self, outputs: &[Output]) {
        let mut sends: usize = 0;
        for output in outputs {
            assert!(!self.stopped, "nothing may come after the end: {output:?}");
            match output {
                Output::Dial => {
                    self.hang_up();
                    self.dialling = true;
                    self.wishes.push_back(output.clone());
                }
                Output::Hangup => self.hang_up(),
                Output::Send(frame) => {
                    sends = sends.saturating_add(1);
                    self.hear_frame(frame);
                    self.wishes.push_back(output.clone());
                }
                Output::Identify { .. } => {
                    assert_eq!(self.knowledge, Knowledge::None, "a client must ask once");
                    self.knowledge = Knowledge::Asked;
                    self.wishes.push_back(output.clone());
                }
                Output::Sign(_) | Output::Verify { .. } => self.wishes.push_back(output.clone()),
                Output::Save(save) => self.save(save),
                Output::Event(event) => self.show(event),
                Output::Stopped(_) => {
                    self.stopped = true;
                    self.wishes.clear();
                }
            }
        }
        assert!(sends <= SENDS_MAX, "{sends} frames after one input");
        let unseen = self.rooms.values().find(|room| room.news.is_some());
        assert!(unseen.is_none(), "what was shown must be saved as seen: {unseen:?}");
    }

    /// What depends on something saved is sent after it is saved.
    fn hear_frame(&self, frame: &ClientFrame) {
        assert!(self.connected, "nothing can be sent without a connection: {frame:?}");
        match frame {
            ClientFrame::Login(login) => {
                assert_eq!(login.attach, self.saved.attach, "a log-in must be saved");
            }
            ClientFrame::Submit { counter, command } => {
                let mut kept = self.saved.outbox.iter();
                let kept = kept.any(|kept| kept.counter == *counter && kept.command == *command);
                assert!(kept, "a command must be saved before it is sent: {frame:?}");
            }
            ClientFrame::Hello(_)
            | ClientFrame::Prove { .. }
            | ClientFrame::Ask { .. }
            | ClientFrame::Ping { .. }
            | ClientFrame::Pong { .. }
            | ClientFrame::Leave => {}
            ClientFrame::Operate(_) => panic!("a client gives no orders"),
        }
    }

    fn save(&mut self, save: &Save) {
        match save {
            Save::Seen(room, cursor) => self.see(room, *cursor),
            Save::Settled(counter) => self.answered = self.answered.max(*counter),
            Save::Renewed { origin, .. } => {
                self.answered = Counter::ZERO;
                if self.saved.origin.is_none_or(|before| before.log_id != origin.log_id) {
                    self.rooms.clear();
                }
            }
            Save::Queued(_) | Save::Attach(_) => {}
        }
        self.saved.apply(save.clone());
    }

    /// A cursor moves to what was just shown, and within one life of a room only forward. Where
    /// nothing was seen it begins anywhere.
    fn see(&mut self, room: &RoomName, cursor: Cursor) {
        let shown = self.rooms.entry(room.clone()).or_default();
        let news = shown.news.take();
        if let Some(before) = shown.saved {
            let seen = Some((cursor.incarnation, cursor.seq));
            assert_eq!(news, seen, "only what was shown is saved as seen");
            let forward = cursor.incarnation != before.incarnation || cursor.seq > before.seq;
            assert!(forward, "a cursor must not go back: {before:?} to {cursor:?}");
        }
        shown.saved = Some(cursor);
    }

    fn show(&mut self, event: &Event) {
        let count = &mut self.report;
        match event {
            Event::Connected { .. } => count.connected = count.connected.saturating_add(1),
            Event::Record(record) => {
                count.records = count.records.saturating_add(1);
                let next = (record.incarnation, record.seq);
                self.show_next(&record.room, next, record.seq);
            }
            Event::Gap { room, incarnation, from, to } => {
                assert!(from <= to, "a gap must hold something");
                self.show_next(room, (*incarnation, *from), *to);
            }
            Event::Reset { room, incarnation, .. } => {
                let shown = self.rooms.entry(room.clone()).or_default();
                let before = shown.saved.map(|cursor| cursor.incarnation);
                assert_ne!(before, Some(*incarnation), "a reset must begin another life");
                shown.news = Some((*incarnation, Seq::ZERO));
            }
            Event::Sent { id, .. } | Event::Moderated { id, .. } => {
                count.sent = count.sent.saturating_add(1);
                self.end(id);
            }
            Event::Refused { id: Some(id), .. } | Event::Abandoned { id, .. } => self.end(id),
            Event::Disconnected { .. }
            | Event::Gate { .. }
            | Event::Users { .. }
            | Event::Parted { .. }
            | Event::Rooms { .. }
            | Event::User(_)
            | Event::History { .. }
            | Event::Notice(_)
            | Event::StoreFull
            | Event::Refused { id: None, .. } => {}
        }
    }

    /// Something of a room is shown, and it is what comes next.
    fn show_next(&mut self, room: &RoomName, first: (Incarnation, Seq), last: Seq) {
        let shown = self.rooms.get_mut(room).expect("records are of rooms that were joined");
        let Cursor { incarnation, seq } = shown.saved.expect("records come after a join");
        let next = (incarnation, seq.saturating_add(1));
        assert_eq!(first, next, "records are shown once and without holes");
        shown.news = Some((incarnation, last));
    }

    /// The user hears what became of a command.
    fn end(&mut self, id: &str) {
        self.open.remove(id);
        assert!(self.ended.insert(id.to_owned()), "the end of {id} must be told once");
    }

    /// What must hold between inputs.
    pub(super) fn check(&self, client: &Client) {
        assert_eq!(client.is_stopped(), self.stopped, "the end must be told");
        assert!(!client.is_online() || self.connected, "a log-in needs a connection");
        let mut kept = self.saved.outbox.iter().map(|unsent| &unsent.id);
        let told = kept.find(|id| self.ended.contains(*id));
        assert_eq!(told, None, "a command that ended must not be kept");
        if self.knowledge == Knowledge::Given && !self.stopped {
            let lost = self
                .open
                .iter()
                .find(|id| !self.saved.outbox.iter().any(|unsent| unsent.id == **id));
            assert_eq!(lost, None, "a command must be kept until it is answered");
        }
    }
}
