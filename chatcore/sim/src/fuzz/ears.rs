//! What one connection may hear, judged by the journal and by what it said.

use std::collections::{BTreeMap, BTreeSet};

use chatcore::id::{Counter, Incarnation, RequestId, Seq, SessionId};
use chatcore::text::RoomName;
use chatcore::wire::Refusal;
use chatcore::wire::{
    Answer, ClientFrame, GateState, JoinedRoom, Record, ServerFrame, StateFault, Status,
};

use super::host::Journal;

/// One connection's memory.
#[derive(Debug, Default)]
pub(super) struct Ears {
    /// The session it is logged in with.
    pub(super) session: Option<SessionId>,
    /// The number that the session's next command should have, as far as the server told.
    pub(super) next: Option<Counter>,
    /// Questions, commands and pings that have not been answered.
    asked: BTreeMap<RequestId, u32>,
    submitted: BTreeMap<Counter, u32>,
    pinged: BTreeMap<RequestId, u32>,
    /// The rooms it follows: the life and the last record, and whether the gate was seen open.
    places: BTreeMap<RoomName, Place>,
    closed: bool,
    /// Whether the server proved its key.
    proven: bool,
    /// Records and answers heard.
    pub(super) records: u64,
    pub(super) answers: u64,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    life: Incarnation,
    last: Seq,
    open: bool,
}

impl Ears {
    /// Takes note of what the peer says.
    pub(super) fn expect(&mut self, frame: &ClientFrame) {
        match frame {
            ClientFrame::Ask { request, .. } => owe(&mut self.asked, *request),
            ClientFrame::Submit { counter, .. } => owe(&mut self.submitted, *counter),
            // Before the hello a ping is out of order, so it may be answered otherwise.
            ClientFrame::Ping { token } if self.session.is_some() => owe(&mut self.pinged, *token),
            ClientFrame::Hello(_)
            | ClientFrame::Login(_)
            | ClientFrame::Ping { .. }
            | ClientFrame::Pong { .. }
            | ClientFrame::Leave
            | ClientFrame::Operate(_)
            | ClientFrame::Prove { .. } => {}
        }
    }

    /// Takes a frame of the server.
    pub(super) fn hear(&mut self, frame: ServerFrame, journal: &mut Journal) {
        assert!(!self.closed, "nothing may follow the last frame: {frame:?}");
        match frame {
            ServerFrame::Welcome(welcome) => {
                assert_eq!(self.session, None, "a connection must log in once");
                self.session = Some(welcome.session);
                self.next = Some(welcome.last_counter.saturating_add(1));
            }
            ServerFrame::Accepted { counter, room, incarnation, seq } => {
                settle(&mut self.submitted, counter);
                self.hear_place(journal, counter, (room, incarnation, seq));
            }
            ServerFrame::Applied { counter } => settle(&mut self.submitted, counter),
            ServerFrame::Refused { counter, refusal } => {
                settle(&mut self.submitted, counter);
                if let Refusal::State(StateFault::Counter { expect }) = refusal {
                    self.next = Some(expect);
                }
            }
            ServerFrame::Answer { request, answer } => {
                settle(&mut self.asked, request);
                self.answers = self.answers.saturating_add(1);
                self.hear_answer(answer, journal);
            }
            ServerFrame::Record(record) => self.hear_record(&record, journal),
            ServerFrame::Gap { room, incarnation, from, to } => {
                self.hear_gap(&room, incarnation, (from, to), journal);
            }
            ServerFrame::Gate { room, gate } => self.hear_gate(&room, gate, journal),
            ServerFrame::Reset { room, incarnation, .. } => {
                let place = self.place(&room);
                assert!(incarnation > place.life, "a reset must begin a later life");
                *place = Place { life: incarnation, last: Seq::ZERO, open: false };
            }
            ServerFrame::Close(_) => self.closed = true,
            ServerFrame::Proof { .. } => {
                assert!(!self.proven, "a server proves its key once");
                self.proven = true;
            }
            ServerFrame::Status(status) => {
                assert_eq!(self.session, None, "a status is told to no user");
                let Status { safe, newest, rooms, open, .. } = status;
                assert!(safe <= newest && open <= rooms, "what is told must fit together");
                let known = u64::try_from(journal.safe).unwrap_or(u64::MAX);
                assert!(safe.get() <= known, "what is told to be safe must be");
                self.closed = true;
            }
            ServerFrame::Pong { token } => {
                if self.session.is_some() && self.pinged.contains_key(&token) {
                    settle(&mut self.pinged, token);
                }
            }
            ServerFrame::Parked(_)
            | ServerFrame::Moved(_)
            | ServerFrame::Prepare { .. }
            | ServerFrame::Stay
            | ServerFrame::Generation { .. } => panic!("nothing moves here: {frame:?}"),
            ServerFrame::Hello(_)
            | ServerFrame::Rejected(_)
            | ServerFrame::Notice(_)
            | ServerFrame::Ping { .. } => {}
        }
    }

    fn place(&mut self, room: &RoomName) -> &mut Place {
        self.places.get_mut(room).expect("news are of rooms that are followed")
    }

    fn hear_answer(&mut self, answer: Answer, journal: &Journal) {
        match answer {
            Answer::Joined(joined) => self.hear_joined(joined, journal),
            Answer::Parted { room } => drop(self.places.remove(&room)),
            Answer::Users(users) => {
                let life = self.place(&users.room).life;
                check_open(journal, &users.room, life);
            }
            Answer::History { room, incarnation, records } => {
                check_open(journal, &room, incarnation);
                records.iter().for_each(|record| check_record(record, journal));
                let run = records.windows(2).all(|pair| match pair {
                    [one, next] => next.seq == one.seq.saturating_add(1),
                    _ => false,
                });
                assert!(run, "a page of history must have no hole");
            }
            Answer::Rooms { .. } | Answer::User(_) | Answer::Refused(_) => {}
        }
    }

    fn hear_joined(&mut self, joined: JoinedRoom, journal: &Journal) {
        let JoinedRoom { room, gate, after, users, opened } = joined;
        let shown = gate.open || opened || users.is_some() || after != Seq::ZERO;
        if shown {
            check_open(journal, &room, gate.incarnation);
        }
        let place = Place { life: gate.incarnation, last: after, open: gate.open };
        self.places.insert(room, place);
    }

    fn hear_record(&mut self, record: &Record, journal: &Journal) {
        self.records = self.records.saturating_add(1);
        check_open(journal, &record.room, record.incarnation);
        check_record(record, journal);
        let place = self.place(&record.room);
        let next = (place.life, place.last.saturating_add(1));
        assert_eq!((record.incarnation, record.seq), next, "records come without holes, once");
        place.last = record.seq;
    }

    fn hear_gap(
        &mut self,
        room: &RoomName,
        life: Incarnation,
        (from, to): (Seq, Seq),
        journal: &Journal,
    ) {
        check_open(journal, room, life);
        let place = self.place(room);
        assert_eq!((place.life, place.last.saturating_add(1)), (life, from), "a gap begins here");
        assert!(from <= to, "a gap must hold something");
        place.last = to;
    }

    fn hear_gate(&mut self, room: &RoomName, gate: GateState, journal: &Journal) {
        if gate.open {
            check_open(journal, room, gate.incarnation);
        }
        let place = self.place(room);
        assert_eq!(gate.incarnation, place.life, "a notice must be of the life that is read");
        assert!(gate.open || !place.open, "a gate must not close in a life of its room");
        place.open = gate.open;
    }

    /// A post is told one place for ever, and only once it is safe.
    fn hear_place(
        &self,
        journal: &mut Journal,
        counter: Counter,
        (room, life, seq): (RoomName, Incarnation, Option<Seq>),
    ) {
        let session = self.session.expect("who posts must be logged in");
        if let Some(seq) = seq {
            check_open(journal, &room, life);
            let known = journal.records.contains_key(&(room.clone(), life, seq));
            assert!(known, "a place must be that of a safe record");
        }
        let told =
            journal.told.entry((session, counter)).or_insert_with(|| (room.clone(), life, seq));
        assert_eq!((&told.0, told.1), (&room, life), "a post must stay where it is");
        if told.2.is_some() && seq.is_some() {
            assert_eq!(told.2, seq, "a post must stay where it is");
        }
        told.2 = told.2.or(seq);
    }

    /// Nothing is owed, and every room is read to its end.
    pub(super) fn check_rest(&self, journal: &Journal) {
        if self.closed {
            return;
        }
        assert!(self.asked.is_empty(), "a question must be answered: {:?}", self.asked);
        assert!(self.submitted.is_empty(), "a command must be answered: {:?}", self.submitted);
        assert!(self.pinged.is_empty(), "a ping must be answered: {:?}", self.pinged);
        for (room, place) in &self.places {
            let life = (room.clone(), place.life);
            let end = journal.ends.get(&life).copied().unwrap_or_default();
            let wanted = if journal.opened.contains(&life) { end } else { Seq::ZERO };
            assert_eq!(place.last, wanted, "{room} must be read to its end");
        }
    }
}

fn owe<K: Ord>(owed: &mut BTreeMap<K, u32>, key: K) {
    let count = owed.entry(key).or_default();
    *count = count.saturating_add(1);
}

fn settle<K: Ord + Copy + core::fmt::Debug>(owed: &mut BTreeMap<K, u32>, key: K) {
    let count = owed.get_mut(&key).expect("only what was asked is answered, once");
    *count = count.saturating_sub(1);
    if *count == 0 {
        owed.remove(&key);
    }
}

fn check_open(journal: &Journal, room: &RoomName, life: Incarnation) {
    let open: &BTreeSet<_> = &journal.opened;
    assert!(open.contains(&(room.clone(), life)), "a closed gate of {room} let something out");
}

fn check_record(record: &Record, journal: &Journal) {
    let key = (record.room.clone(), record.incarnation, record.seq);
    assert_eq!(journal.records.get(&key), Some(record), "a record must be the journal's");
}
