//! What has to come out of the input under way.
//!
//! Order matters only where the rules say so: entries among themselves, and directives of one
//! *lane*, which is one connection, the pages for it, or one room. What two lanes are told has no
//! order of its own.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use chatcore::engine::{Directive, Event, Output};
use chatcore::id::{ConnId, Incarnation, Index, RequestId, Seq};
use chatcore::log::{Change, Entry};
use chatcore::text::RoomName;
use chatcore::time::Timestamp;
use chatcore::wire::{Refusal, RoomInfo, ServerFrame, Status};

/// What has to come.
#[derive(Debug, Default)]
pub(super) struct Due {
    pub(super) entries: VecDeque<DueEntry>,
    pub(super) directives: VecDeque<Expected>,
    /// At most one; `Output::Verify`.
    pub(super) verify: Option<Output>,
    /// At most one; `Output::Sign`.
    pub(super) sign: Option<Output>,
    /// Whose status needs the host's part.
    pub(super) report: Option<ConnId>,
    pub(super) events: Vec<Event>,
    /// What those who run the server are answered.
    pub(super) moderated: Vec<(RequestId, Option<Refusal>)>,
    /// Where in `directives` the next record of a room belongs.
    shows: BTreeMap<RoomName, usize>,
}

/// An entry that has to be appended.
#[derive(Debug)]
pub(super) struct DueEntry {
    pub(super) index: Index,
    pub(super) at: Timestamp,
    pub(super) change: Change,
}

/// A directive, or a read in its place.
#[derive(Debug)]
pub(super) struct Expected {
    pub(super) what: What,
    pub(super) duty: Duty,
}

/// Whether something has to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Duty {
    Must,
    /// It is for a connection that is closed, where it does no harm.
    May,
}

/// What is expected, as exactly as the rules say it.
#[derive(Debug)]
pub(super) enum What {
    Exactly(Directive),
    Show(Show),
    Rooms(Rooms),
    Newest(Newest),
    CatchUp(CatchUpDue),
    /// What the server is doing, but for how much is in memory.
    Status(ConnId, Status),
    /// Records that the store gave for a reader that lags, both ends included.
    Given {
        conn: ConnId,
        room: RoomName,
        incarnation: Incarnation,
        first: Seq,
        last: Seq,
    },
}

/// Records of a room that become visible, in as many pieces as you like.
#[derive(Debug)]
pub(super) struct Show {
    pub(super) room: RoomName,
    pub(super) incarnation: Incarnation,
    /// The first of `entries`.
    pub(super) next: Seq,
    pub(super) entries: VecDeque<Arc<Entry>>,
}

/// The list of rooms: the first by name, as many as fit.
#[derive(Debug)]
pub(super) struct Rooms {
    pub(super) conn: ConnId,
    pub(super) request: RequestId,
    pub(super) infos: Vec<RoomInfo>,
    pub(super) count: u32,
    pub(super) fit_all: bool,
}

/// A page of history: from memory, or the store is asked for it.
#[derive(Debug)]
pub(super) struct Newest {
    pub(super) conn: ConnId,
    pub(super) request: RequestId,
    pub(super) room: RoomName,
    pub(super) incarnation: Incarnation,
    /// The last record that the page may hold.
    pub(super) last: Seq,
    pub(super) limit: usize,
    /// The entries of the longest page, oldest first.
    pub(super) entries: Vec<Arc<Entry>>,
    pub(super) source: Source,
}

/// Where a page of history comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// From memory, as far as that reaches back.
    Memory,
    /// From what the store gave.
    Store,
}

/// Records for a reader that lags: from memory, or the store is asked for them, or they are gone.
#[derive(Clone, Debug)]
pub(super) struct CatchUpDue {
    pub(super) conn: ConnId,
    pub(super) room: RoomName,
    pub(super) incarnation: Incarnation,
    pub(super) after: Seq,
}

/// What is told in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane<'a> {
    Conn(ConnId),
    /// What a connection lacks comes beside what it asked.
    Pages(ConnId),
    Room(&'a RoomName),
    /// What retention takes is old, and told beside what is new.
    Trims(&'a RoomName),
}

impl<'a> Lane<'a> {
    pub(super) const fn of(directive: &'a Directive) -> Self {
        match directive {
            Directive::Send { conn, .. }
            | Directive::Close { conn, .. }
            | Directive::Follow { conn, .. }
            | Directive::Unfollow { conn, .. } => Self::Conn(*conn),
            Directive::Page { conn, .. } => Self::Pages(*conn),
            Directive::Gate { room, .. }
            | Directive::Visible { room, .. }
            | Directive::Reset { room, .. } => Self::Room(room),
            Directive::Trim { room, .. } => Self::Trims(room),
        }
    }
}

impl What {
    pub(super) const fn lane(&self) -> Lane<'_> {
        match self {
            Self::Exactly(directive) => Lane::of(directive),
            Self::Show(show) => Lane::Room(&show.room),
            Self::Rooms(Rooms { conn, .. })
            | Self::Newest(Newest { conn, .. })
            | Self::Status(conn, _) => Lane::Conn(*conn),
            Self::CatchUp(CatchUpDue { conn, .. }) | Self::Given { conn, .. } => Lane::Pages(*conn),
        }
    }
}

impl Due {
    pub(super) fn must(&mut self, what: What) {
        self.add(what, Duty::Must);
    }

    pub(super) fn add(&mut self, what: What, duty: Duty) {
        self.directives.push_back(Expected { what, duty });
    }

    pub(super) fn send(&mut self, conn: ConnId, frame: ServerFrame) {
        self.must(What::Exactly(Directive::Send { conn, frame }));
    }

    /// A room is told something between two records.
    pub(super) fn tell_room(&mut self, room: &RoomName, directive: Directive) {
        self.shows.remove(room);
        self.must(What::Exactly(directive));
    }

    /// A record becomes visible.
    pub(super) fn show(&mut self, room: &RoomName, incarnation: Incarnation, entry: Arc<Entry>) {
        let place = self.shows.get(room).copied();
        let last = place.and_then(|place| self.directives.get_mut(place));
        if let Some(Expected { what: What::Show(show), .. }) = last {
            show.entries.push_back(entry);
            return;
        }
        let next = seq_of(&entry).expect("what is shown must be a record");
        let (room, entries) = (room.clone(), VecDeque::from([entry]));
        self.shows.insert(room.clone(), self.directives.len());
        self.must(What::Show(Show { room, incarnation, next, entries }));
    }

    /// A reader that lags is about to be closed: it need not be served any more.
    pub(super) fn need_not_read(&mut self, conn: ConnId) {
        let reads = self
            .directives
            .iter_mut()
            .filter(|expected| matches!(&expected.what, What::CatchUp(due) if due.conn == conn));
        reads.for_each(|expected| expected.duty = Duty::May);
    }

    /// Forgets what may be left: it did not have to come.
    pub(super) fn clear(&mut self) {
        self.directives.clear();
        self.shows.clear();
    }

    /// Where the first thing of this lane stands, from `start` on.
    pub(super) fn position(&self, start: usize, lane: Lane<'_>) -> Option<usize> {
        let mut rest = self.directives.iter().skip(start);
        rest.position(|expected| expected.what.lane() == lane).map(|place| place + start)
    }
}

/// The place of the record that an entry makes.
pub(super) const fn seq_of(entry: &Entry) -> Option<Seq> {
    match &entry.change {
        Change::Joined { seq, .. } | Change::Left { seq, .. } => *seq,
        Change::Posted { seq, .. } => Some(*seq),
        Change::Founded(_)
        | Change::UserAdded { .. }
        | Change::OperatorGranted { .. }
        | Change::SessionOpened { .. }
        | Change::SessionExpired { .. }
        | Change::RoomCreated { .. }
        | Change::Refused { .. }
        | Change::GateOpened { .. }
        | Change::Reset { .. }
        | Change::Trimmed { .. }
        | Change::Moderated { .. } => None,
    }
}
