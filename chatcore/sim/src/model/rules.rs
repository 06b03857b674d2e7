//! The rules by name, and which one an output that had no place breaks.

use chatcore::engine::{Directive, Page};
use chatcore::id::{ConnId, Counter, Incarnation, RequestId, Seq};
use chatcore::log::Change;
use chatcore::text::RoomName;
use chatcore::wire::{Answer, ServerFrame};

use super::due::{Expected, What};
use super::presence::{Asked, Waiting};
use super::{Broken, Model};

macro_rules! rules {
    ($($name:ident = $text:literal;)*) => {
        $(#[doc = $text] pub const $name: &str = $text;)*

        /// Every rule.
        pub const ALL: &[&str] = &[$($name),*];
    };
}

rules! {
    ENTRY_NUMBER = "entries are numbered without holes";
    ENTRY_TIME = "an entry is as late as the wall clock and the entry before";
    ENTRY_DIGEST = "an entry carries the digest of its change";
    ENTRY_UNDUE = "nothing is appended but what the rules make of the input";
    ENTRY_MISSING = "everything that the rules make of the input is appended";
    AUTHOR = "the server stamps who did it";
    RECORD_NUMBER = "records of a room are numbered without holes";
    LIFE = "an entry is of its room's present life";
    ONCE = "a command takes effect once";
    GATE_OPENS = "a gate opens when enough users follow the room, and only then";
    REFUSED = "a command is refused for the right reason";
    RESET = "a reset begins the next life behind the threshold that was asked";
    OWNER = "a name belongs to one key, and a session to one name";
    SECRET = "a closed gate lets counts out, and nothing else";
    SAFE_FIRST = "nothing leaves before its entry is safe";
    ANSWER = "an answer says what the rules say";
    ANSWER_ONCE = "every request is answered once";
    ANSWER_ORDER = "answers come in the order of what was asked";
    VERIFY = "a signature is checked once, over the bytes of the protocol";
    SIGN = "the server proves its key once, over the bytes of the protocol";
    REPORT = "the host is asked once what it is doing, for somebody who may know";
    CLOSE = "a connection is closed once, for its reason, and then";
    AFTER_CLOSE = "nothing follows a close";
    STRANGER = "nothing is sent to a connection that is not there";
    PING = "a connection is pinged when it falls silent, and only then";
    FOLLOW = "following begins and ends where the client was told";
    GATE_TOLD = "every change of a gate is told, as everybody may know it";
    GATE_FIRST = "a gate is told to be open before the place of what it held";
    RESET_TOLD = "a reset is told once, when it is safe";
    RECORD = "a record is what its entry says";
    VISIBLE_NEXT = "records become visible in order, once and without holes";
    VISIBLE_WHOLE = "a chunk holds all that became visible and is in memory";
    VISIBLE_ALL = "everything that may be seen is shown";
    PAGE = "a reader that lags is given what follows its cursor";
    GONE = "only what is in no memory and no store is gone";
    HISTORY = "a page of history holds the newest records that fit";
    READ = "the store is asked for visible records that are not in memory";
    TRIMMED = "retention takes what may be seen, from the first record on";
    MODERATED = "those who run the server are answered once, when a measure is safe or refused";
    MEASURE = "a measure is taken by whom the rules let, and sends away whom it is taken on";
    EVENT = "an event is told once, when it happens";
}

/// The rule that an entry breaks where another one was due, or none.
pub(super) fn of_entry(found: &Change, due: Option<&Change>) -> &'static str {
    let Some(due) = due else { return of_undue(found) };
    match (due, found) {
        (Change::GateOpened { .. }, _) | (_, Change::GateOpened { .. }) => GATE_OPENS,
        (
            Change::Posted { seq, from, incarnation, command, .. },
            Change::Posted {
                seq: found_seq,
                from: found_from,
                incarnation: found_life,
                command: found_command,
                ..
            },
        ) => of_fields([
            (from == found_from, AUTHOR),
            (incarnation == found_life, LIFE),
            (seq == found_seq, RECORD_NUMBER),
            (command == found_command, ONCE),
        ]),
        (
            Change::Joined { seq, user, incarnation, .. },
            Change::Joined { seq: found_seq, user: found_user, incarnation: found_life, .. },
        )
        | (
            Change::Left { seq, user, incarnation, .. },
            Change::Left { seq: found_seq, user: found_user, incarnation: found_life, .. },
        ) => of_fields([
            (user == found_user, AUTHOR),
            (incarnation == found_life, LIFE),
            (seq == found_seq, RECORD_NUMBER),
            (true, ENTRY_UNDUE),
        ]),
        (_, Change::Moderated { .. }) => MEASURE,
        (Change::Refused { .. }, _) | (_, Change::Refused { .. }) => REFUSED,
        (Change::Moderated { .. }, _) => MEASURE,
        (Change::Reset { .. }, Change::Reset { .. }) => RESET,
        (Change::Trimmed { .. }, _) | (_, Change::Trimmed { .. }) => TRIMMED,
        _ => of_undue(found),
    }
}

fn of_fields<const N: usize>(fields: [(bool, &'static str); N]) -> &'static str {
    fields.iter().find(|(same, _)| !same).map_or(ENTRY_UNDUE, |(_, rule)| rule)
}

const fn of_undue(found: &Change) -> &'static str {
    match found {
        Change::GateOpened { .. } => GATE_OPENS,
        Change::Posted { .. } | Change::Refused { .. } => ONCE,
        Change::Reset { .. } => RESET,
        Change::Trimmed { .. } => TRIMMED,
        Change::Moderated { .. } => MEASURE,
        Change::UserAdded { .. }
        | Change::OperatorGranted { .. }
        | Change::SessionOpened { .. }
        | Change::SessionExpired { .. } => OWNER,
        Change::Founded(_)
        | Change::RoomCreated { .. }
        | Change::Joined { .. }
        | Change::Left { .. } => ENTRY_UNDUE,
    }
}

/// The rule that is broken when an entry never comes.
pub(super) const fn of_missing_entry(due: &Change) -> &'static str {
    match due {
        Change::GateOpened { .. } => GATE_OPENS,
        Change::Trimmed { .. } => TRIMMED,
        Change::Moderated { .. } => MEASURE,
        Change::Founded(_)
        | Change::UserAdded { .. }
        | Change::OperatorGranted { .. }
        | Change::SessionOpened { .. }
        | Change::SessionExpired { .. }
        | Change::RoomCreated { .. }
        | Change::Joined { .. }
        | Change::Left { .. }
        | Change::Posted { .. }
        | Change::Refused { .. }
        | Change::Reset { .. } => ENTRY_MISSING,
    }
}

/// The rule that is broken when a directive never comes.
pub(super) const fn of_missing(due: &What) -> &'static str {
    match due {
        What::Show(_) => VISIBLE_ALL,
        What::Rooms(_) | What::Newest(_) | What::Status(..) => ANSWER_ONCE,
        What::CatchUp(_) | What::Given { .. } => PAGE,
        What::Exactly(directive) => match directive {
            Directive::Send { frame: ServerFrame::Ping { .. }, .. } => PING,
            Directive::Send { .. } => ANSWER_ONCE,
            Directive::Close { .. } => CLOSE,
            Directive::Follow { .. } | Directive::Unfollow { .. } => FOLLOW,
            Directive::Page { .. } => PAGE,
            Directive::Gate { .. } => GATE_TOLD,
            Directive::Visible { .. } => VISIBLE_ALL,
            Directive::Reset { .. } => RESET_TOLD,
            Directive::Trim { .. } => TRIMMED,
        },
    }
}

/// What an answer answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Label {
    Command(Counter),
    Question(RequestId),
    Other,
}

const fn label_of(frame: &ServerFrame) -> Label {
    match frame {
        ServerFrame::Accepted { counter, .. }
        | ServerFrame::Applied { counter }
        | ServerFrame::Refused { counter, .. } => Label::Command(*counter),
        ServerFrame::Answer { request, .. } => Label::Question(*request),
        ServerFrame::Hello(_)
        | ServerFrame::Welcome(_)
        | ServerFrame::Record(_)
        | ServerFrame::Gap { .. }
        | ServerFrame::Gate { .. }
        | ServerFrame::Reset { .. }
        | ServerFrame::Rejected(_)
        | ServerFrame::Notice(_)
        | ServerFrame::Close(_)
        | ServerFrame::Ping { .. }
        | ServerFrame::Pong { .. }
        | ServerFrame::Status(_)
        | ServerFrame::Proof { .. }
        | ServerFrame::Parked(_)
        | ServerFrame::Moved(_)
        | ServerFrame::Prepare { .. }
        | ServerFrame::Stay
        | ServerFrame::Generation { .. } => Label::Other,
    }
}

impl Model {
    /// Which rule a directive breaks that is not what was due in its lane.
    pub(super) fn explain(&self, found: &Directive, due: Option<&Expected>) -> Broken {
        let passed_over = due.filter(|due| is_passed_over(&due.what, found));
        let rule = passed_over.map_or_else(|| self.of(found, due), |due| of_missing(&due.what));
        let due = due.map(|due| &due.what);
        Broken::new(rule, format!("{found:?}, due is {due:?}"))
    }

    fn of(&self, found: &Directive, due: Option<&Expected>) -> &'static str {
        match found {
            Directive::Send { conn, frame } => self.of_send(*conn, frame, due),
            Directive::Close { .. } => CLOSE,
            Directive::Follow { conn, .. } => {
                if self.joins(*conn) {
                    SAFE_FIRST
                } else {
                    FOLLOW
                }
            }
            Directive::Unfollow { .. } => FOLLOW,
            Directive::Page { room, incarnation, page, .. } => {
                self.of_page(room, *incarnation, page)
            }
            Directive::Gate { room, gate } => {
                let is_early = gate.open && !self.is_open(room, gate.incarnation);
                if is_early && self.opens(room, gate.incarnation) { SAFE_FIRST } else { GATE_TOLD }
            }
            Directive::Visible { room, incarnation, through, .. } => {
                let rule = self.of_records(room, *incarnation, *through);
                rule.unwrap_or(VISIBLE_NEXT)
            }
            Directive::Reset { room, incarnation, .. } => {
                let life = |rooms: &std::collections::BTreeMap<RoomName, super::RoomTruth>| {
                    rooms.get(room).map(|truth| truth.incarnation)
                };
                let is_early = life(&self.facts.rooms) >= Some(*incarnation)
                    && life(&self.safe.rooms) < Some(*incarnation);
                if is_early { SAFE_FIRST } else { RESET_TOLD }
            }
            Directive::Trim { .. } => TRIMMED,
        }
    }

    fn of_send(&self, conn: ConnId, frame: &ServerFrame, due: Option<&Expected>) -> &'static str {
        if !self.process.conns.contains_key(&conn) {
            return STRANGER;
        }
        if due.is_none() && !self.process.is_serving(conn) {
            return AFTER_CLOSE;
        }
        if self.leaks(frame) {
            return SECRET;
        }
        let label = label_of(frame);
        let same =
            |waiting: &Waiting| waiting.conn() == Some(conn) && label_of_waiting(waiting) == label;
        let waits = self.process.waiting.iter().any(|(_, waiting)| same(waiting));
        match due.map(|due| &due.what) {
            _ if matches!(frame, ServerFrame::Ping { .. }) => PING,
            Some(What::Exactly(Directive::Send { frame: due, .. })) if label_of(due) == label => {
                ANSWER
            }
            Some(What::Status(..)) if matches!(frame, ServerFrame::Status(_)) => ANSWER,
            _ if waits => SAFE_FIRST,
            Some(What::Exactly(Directive::Close { .. })) => CLOSE,
            Some(_) => ANSWER_ORDER,
            None => ANSWER_ONCE,
        }
    }

    /// Whether a frame tells of a closed gate what nobody may know.
    fn leaks(&self, frame: &ServerFrame) -> bool {
        let closed = |room: &RoomName| self.safe.rooms.get(room).is_none_or(|truth| !truth.open);
        match frame {
            ServerFrame::Accepted { room, incarnation, seq, .. } => {
                seq.is_some() && !self.is_open(room, *incarnation)
            }
            ServerFrame::Record(record) => !self.is_open(&record.room, record.incarnation),
            ServerFrame::Answer { answer, .. } => match answer {
                Answer::Joined(joined) => {
                    let tells = joined.users.is_some() || joined.after != Seq::ZERO;
                    tells && closed(&joined.room)
                }
                Answer::Users(users) => closed(&users.room),
                Answer::History { room, incarnation, .. } => !self.is_open(room, *incarnation),
                Answer::Parted { .. }
                | Answer::Rooms { .. }
                | Answer::User(_)
                | Answer::Refused(_) => false,
            },
            ServerFrame::Hello(_)
            | ServerFrame::Welcome(_)
            | ServerFrame::Applied { .. }
            | ServerFrame::Refused { .. }
            | ServerFrame::Gap { .. }
            | ServerFrame::Gate { .. }
            | ServerFrame::Reset { .. }
            | ServerFrame::Rejected(_)
            | ServerFrame::Notice(_)
            | ServerFrame::Close(_)
            | ServerFrame::Ping { .. }
            | ServerFrame::Pong { .. }
            | ServerFrame::Status(_)
            | ServerFrame::Proof { .. }
            | ServerFrame::Parked(_)
            | ServerFrame::Moved(_)
            | ServerFrame::Prepare { .. }
            | ServerFrame::Stay
            | ServerFrame::Generation { .. } => false,
        }
    }

    fn of_page(&self, room: &RoomName, incarnation: Incarnation, page: &Page) -> &'static str {
        match page {
            Page::Records(chunk) => {
                self.of_records(room, incarnation, chunk.last()).unwrap_or(PAGE)
            }
            Page::Gone { .. } => GONE,
        }
    }

    /// Why records up to this one may not be seen, if they may not.
    fn of_records(&self, room: &RoomName, life: Incarnation, last: Seq) -> Option<&'static str> {
        let truth = self.safe.rooms.get(room);
        if !self.is_open(room, life) {
            return Some(if self.opens(room, life) { SAFE_FIRST } else { SECRET });
        }
        truth.is_none_or(|truth| truth.last() < last).then_some(SAFE_FIRST)
    }

    /// Whether readers may know that the gate of this life is open.
    fn is_open(&self, room: &RoomName, life: Incarnation) -> bool {
        self.safe.rooms.get(room).is_some_and(|truth| truth.open && truth.incarnation == life)
    }

    /// Whether the gate of this life is open by what is appended.
    fn opens(&self, room: &RoomName, life: Incarnation) -> bool {
        self.facts.rooms.get(room).is_some_and(|truth| truth.open && truth.incarnation == life)
    }

    /// Whether a join of this connection waits to be safe.
    fn joins(&self, conn: ConnId) -> bool {
        self.process.waiting.iter().any(|(_, waiting)| {
            let join = matches!(waiting, Waiting::Question { what: Asked::Join { .. }, .. });
            join && waiting.conn() == Some(conn)
        })
    }
}

/// Whether a room is told what comes after something that it was not told.
const fn is_passed_over(due: &What, found: &Directive) -> bool {
    match due {
        What::Show(_) => matches!(found, Directive::Gate { .. } | Directive::Reset { .. }),
        What::Exactly(Directive::Reset { .. }) => {
            matches!(found, Directive::Gate { .. } | Directive::Visible { .. })
        }
        What::Exactly(_)
        | What::Rooms(_)
        | What::Newest(_)
        | What::CatchUp(_)
        | What::Given { .. }
        | What::Status(..) => false,
    }
}

const fn label_of_waiting(waiting: &Waiting) -> Label {
    match waiting {
        Waiting::Frame { frame, .. } => label_of(frame),
        Waiting::Posted { counter, .. } => Label::Command(*counter),
        Waiting::Question { request, .. } => Label::Question(*request),
        Waiting::Close { .. } | Waiting::Moderated { .. } => Label::Other,
    }
}
