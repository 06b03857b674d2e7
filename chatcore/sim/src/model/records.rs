//! What readers are shown: records that become visible, pages of old ones, reads for them.

use std::sync::Arc;

use bytes::BytesMut;
use chatcore::chunk::Chunk;
use chatcore::codec::encode;
use chatcore::engine::{Directive, Page, ReadOrder, ReadToken};
use chatcore::id::{Incarnation, Seq};
use chatcore::log::Entry;
use chatcore::text::RoomName;
use chatcore::time::Span;
use chatcore::wire::{Answer, Record, Refusal, ServerFrame};

use super::due::{CatchUpDue, Duty, Newest, Rooms, Show, Source, What, seq_of};
use super::presence::{CatchUp, Reader, Reading};
use super::truth::{record_of, to_u64};
use super::{Model, rules};
use crate::broken::Broken;

/// What a record costs in memory beside its bytes, at most.
pub(super) const RECORD_COST: u64 = 260;

/// What a client waits while another page of history is read for it.
const READING: Refusal = Refusal::Busy { retry_ms: Span::from_millis(100) };

/// What the store is asked.
#[derive(Debug)]
pub(super) struct Asking<'a> {
    pub(super) token: ReadToken,
    pub(super) room: &'a RoomName,
    pub(super) incarnation: Incarnation,
    pub(super) from: Seq,
    pub(super) to: Seq,
    pub(super) order: ReadOrder,
}

impl Model {
    /// Whether this record of a room is in memory for sure: it became visible in this process, and
    /// the window was never full.
    fn is_in_memory(&self, room: &RoomName, seq: Seq) -> bool {
        let restored = self.process.sides.get(room).map_or(Seq::ZERO, |side| side.restored);
        self.process.window_bytes <= self.limits.window_bytes && seq > restored
    }

    /// Records became visible: the next ones, each once, each what its entry says.
    pub(super) fn shown(
        &mut self,
        mut show: Show,
        (incarnation, through, chunk): (Incarnation, Seq, Option<&Chunk>),
    ) -> Result<Option<Show>, Broken> {
        let Show { room, next, entries, .. } = &show;
        let last = next.saturating_add(to_u64(entries.len())).previous();
        if incarnation != show.incarnation || through < *next || through > last {
            let detail = format!("{room} {incarnation}: {through} after {next} of {last}");
            return Err(Broken::new(rules::VISIBLE_NEXT, detail));
        }
        let first = chunk.map_or(through.next(), Chunk::first);
        if first < *next || chunk.is_some_and(|chunk| chunk.last() != through) {
            let detail = format!("{room}: from {first} to {through}, {next} is next");
            return Err(Broken::new(rules::VISIBLE_NEXT, detail));
        }
        let lacks = first.since(*next);
        let side = self.process.sides.entry(room.clone()).or_default();
        // Only what a process before this one held may be in the store alone.
        if lacks > 0 && first.previous() > side.restored {
            let detail = format!("{room}: {next} to {} are not in the chunk", first.previous());
            return Err(Broken::new(rules::VISIBLE_WHOLE, detail));
        }
        side.shown = through;
        if let Some(chunk) = chunk {
            let skip = usize::try_from(lacks).unwrap_or(usize::MAX);
            let bytes = compare(&mut self.scratch, chunk, show.entries.iter().skip(skip))?;
            let cost = RECORD_COST.saturating_mul(to_u64(chunk.len()));
            self.process.window_bytes += bytes.saturating_add(cost);
        }
        let count = usize::try_from(through.next().since(show.next)).unwrap_or(usize::MAX);
        show.entries.drain(..count);
        show.next = through.next();
        Ok((!show.entries.is_empty()).then_some(show))
    }

    /// A reader that lags is given a page: what follows its cursor and may be seen.
    pub(super) fn caught_up(&mut self, due: &CatchUpDue, page: &Page) -> Result<(), Broken> {
        let CatchUpDue { room, after, .. } = due;
        let truth = self.safe.rooms.get(room).expect("only of a room that there is");
        let visible = truth.visible();
        match page {
            Page::Records(chunk) => {
                if chunk.first() != after.next() || chunk.last() > visible {
                    let detail = format!(
                        "{room}: {} to {} for what follows {after} of {visible}",
                        chunk.first(),
                        chunk.last()
                    );
                    return Err(Broken::new(rules::PAGE, detail));
                }
                let is_long = chunk.len() > 1 && chunk.bytes().len() > self.limits.page_bytes;
                let gone = self.process.sides.get(room).map_or(Seq::ZERO, |side| side.gone);
                if is_long || chunk.first() <= gone || chunk.first() < truth.oldest() {
                    let detail = format!("{room}: {} from {}", chunk.len(), chunk.first());
                    return Err(Broken::new(rules::PAGE, detail));
                }
                let entries = truth.entries(chunk.first(), chunk.last());
                compare(&mut self.scratch, chunk, entries.iter()).map(drop)
            }
            Page::Gone { to } => {
                let in_range = after < to && *to <= visible;
                let is_trimmed = *to == truth.trimmed;
                let is_kept = self.has_store() || self.is_in_memory(room, *to);
                if !in_range || is_kept && !is_trimmed {
                    let detail = format!("{room}: gone to {to} after {after} of {visible}");
                    return Err(Broken::new(rules::GONE, detail));
                }
                let side = self.process.sides.entry(room.clone()).or_default();
                side.gone = side.gone.max(*to);
                Ok(())
            }
        }
    }

    /// A reader that lags is given what the store gave.
    pub(super) fn given(&mut self, what: &What, page: &Page) -> Result<(), Broken> {
        let What::Given { room, first, last, .. } = what else { return Ok(()) };
        let Page::Records(chunk) = page else {
            return Err(Broken::new(rules::GONE, format!("{room}: {first} to {last} were given")));
        };
        if (chunk.first(), chunk.last()) != (*first, *last) {
            let detail = format!("{room}: {} to {}", chunk.first(), chunk.last());
            return Err(Broken::new(rules::PAGE, detail));
        }
        let truth = self.safe.rooms.get(room).expect("only of a room that there is");
        compare(&mut self.scratch, chunk, truth.entries(*first, *last).iter()).map(drop)
    }

    /// A page of history: the newest that fit, and less only where memory ends.
    pub(super) fn page_of(&mut self, newest: &Newest, answer: &Answer) -> Result<(), Broken> {
        let room = &newest.room;
        let records = match answer {
            Answer::History { room, incarnation, records }
                if *room == newest.room && *incarnation == newest.incarnation =>
            {
                records
            }
            Answer::Refused(refusal) if *refusal == READING && self.reads_history(newest) => {
                return Ok(());
            }
            Answer::History { .. }
            | Answer::Joined(_)
            | Answer::Parted { .. }
            | Answer::Users(_)
            | Answer::Rooms { .. }
            | Answer::User(_)
            | Answer::Refused(_) => {
                return Err(Broken::new(
                    rules::ANSWER,
                    format!("{answer:?} to a question of {room}"),
                ));
            }
        };
        let older = newest.entries.len().checked_sub(records.len());
        let (older, page) = match older.and_then(|older| newest.entries.split_at_checked(older)) {
            Some((older, page)) => (older.last(), page),
            None => return Err(Broken::new(rules::HISTORY, format!("{room}: more than asked"))),
        };
        let same = page.iter().zip(records.iter()).all(|(entry, record)| is(record, entry));
        if !same {
            let detail = format!("{room}: not the records up to {}", newest.last);
            return Err(Broken::new(rules::HISTORY, detail));
        }
        let bytes: usize = page.iter().map(|entry| self.frame_bytes(entry)).sum();
        if bytes > self.limits.page_bytes {
            return Err(Broken::new(rules::HISTORY, format!("{room}: {bytes} bytes on a page")));
        }
        match older {
            Some(older) if !self.may_end_before(newest, older, bytes, page.is_empty()) => {
                let detail = format!("{room}: only {} records", records.len());
                Err(Broken::new(rules::HISTORY, detail))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Whether a page of history may do without the next older record.
    fn may_end_before(
        &mut self,
        newest: &Newest,
        older: &Arc<Entry>,
        bytes: usize,
        is_empty: bool,
    ) -> bool {
        if bytes + self.frame_bytes(older) > self.limits.page_bytes {
            return true;
        }
        let seq = seq_of(older).expect("what is shown is a record");
        match newest.source {
            Source::Store => false,
            // With a store an empty page would say that there is nothing older.
            Source::Memory => {
                !(self.is_in_memory(&newest.room, seq) || is_empty && self.has_store())
            }
        }
    }

    fn frame_bytes(&mut self, entry: &Entry) -> usize {
        self.scratch.clear();
        if let Some(record) = record_of(entry) {
            encode(&ServerFrame::Record(record), &mut self.scratch);
        }
        self.scratch.len()
    }

    fn reads_history(&self, newest: &Newest) -> bool {
        let state = self.process.conns.get(&newest.conn);
        newest.source == Source::Memory && state.is_some_and(|state| state.reads_history)
    }

    /// The rooms there are: the first by name, as many as fit.
    pub(super) fn rooms_told(rooms: &Rooms, answer: &Answer) -> Result<(), Broken> {
        let Answer::Rooms { rooms: told, count } = answer else {
            return Err(Broken::new(
                rules::ANSWER,
                format!("{answer:?} to a question for the rooms"),
            ));
        };
        let is_short = told.len() < rooms.infos.len() && rooms.fit_all;
        let first = rooms.infos.get(..told.len());
        if *count == rooms.count && !is_short && first == Some(&told[..]) {
            return Ok(());
        }
        Err(Broken::new(rules::ANSWER, format!("{answer:?}, there are {:?}", rooms.infos)))
    }

    /// The store is asked for records: for visible ones, and only when they are not in memory.
    pub(super) fn asked(&mut self, asking: &Asking<'_>) -> Result<(), Broken> {
        let whose = |what: &What| match what {
            What::Newest(newest) => is_page_read(newest, asking),
            What::CatchUp(due) => is_catch_up_read(due, asking),
            What::Exactly(_)
            | What::Show(_)
            | What::Rooms(_)
            | What::Given { .. }
            | What::Status(..) => false,
        };
        // A read does not say who it is for: of two alike, the one is not for a connection that is
        // closed.
        let place = |duty: Duty| {
            let mut expected = self.due.directives.iter();
            expected.position(|expected| expected.duty == duty && whose(&expected.what))
        };
        let place = place(Duty::Must).or_else(|| place(Duty::May));
        let is_due = place.filter(|_| self.has_store());
        let Some(expected) = is_due.and_then(|place| self.due.directives.remove(place)) else {
            return Err(Broken::new(rules::READ, format!("{asking:?} is of no use to anybody")));
        };
        let Asking { token, incarnation, from, to, .. } = *asking;
        let room = asking.room.clone();
        let truth = self.safe.rooms.get(&room);
        let visible = truth.map_or(Seq::ZERO, super::RoomTruth::visible);
        // A page of history was due when it was asked for, perhaps just before a trim.
        let is_gone =
            asking.order == ReadOrder::Forward && truth.is_some_and(|truth| from < truth.oldest());
        let is_needless = match asking.order {
            ReadOrder::Forward => self.is_in_memory(&room, from),
            ReadOrder::Backward => self.is_in_memory(&room, to),
        };
        let is_wrong = (to > visible || is_gone) && expected.what.is_present(&self.safe.rooms);
        if is_wrong || is_needless {
            return Err(Broken::new(rules::READ, format!("{asking:?} of {visible}")));
        }
        let (conn, whose) = match expected.what {
            What::Newest(Newest { conn, request, limit, .. }) => {
                (conn, Reader::History { request, limit })
            }
            What::CatchUp(CatchUpDue { conn, .. }) => (conn, Reader::Lagging),
            What::Exactly(_)
            | What::Show(_)
            | What::Rooms(_)
            | What::Given { .. }
            | What::Status(..) => return Ok(()),
        };
        if let Some(state) = self.process.conns.get_mut(&conn) {
            match whose {
                Reader::Lagging => state.catch_up = CatchUp::Reading,
                Reader::History { .. } => state.reads_history = true,
            }
        }
        let reading = Reading { conn, room, incarnation, from, to, whose };
        match self.process.reads.insert(token, reading) {
            None => Ok(()),
            Some(before) => {
                Err(Broken::new(rules::READ, format!("{token:?} was given to {before:?}")))
            }
        }
    }

    /// What follows from a directive that came as it had to.
    pub(super) fn note(&mut self, directive: &Directive) -> Result<(), Broken> {
        match directive {
            Directive::Follow { room, visible, .. } => {
                let shown = self.process.sides.get(room).map_or(Seq::ZERO, |side| side.shown);
                if *visible == shown {
                    return Ok(());
                }
                let detail = format!("{room}: {visible}, shards were told of {shown}");
                Err(Broken::new(rules::FOLLOW, detail))
            }
            Directive::Gate { room, gate } => {
                self.process.sides.entry(room.clone()).or_default().told = Some(*gate);
                Ok(())
            }
            Directive::Reset { room, .. } => {
                let side = self.process.sides.entry(room.clone()).or_default();
                (side.shown, side.restored, side.gone) = (Seq::ZERO, Seq::ZERO, Seq::ZERO);
                Ok(())
            }
            Directive::Send { frame, .. } => self.note_place(frame),
            Directive::Close { .. }
            | Directive::Unfollow { .. }
            | Directive::Page { .. }
            | Directive::Visible { .. }
            | Directive::Trim { .. } => Ok(()),
        }
    }

    /// Whoever is told the place of a post has been told that the gate is open.
    fn note_place(&self, frame: &ServerFrame) -> Result<(), Broken> {
        let ServerFrame::Accepted { room, incarnation, seq: Some(_), .. } = frame else {
            return Ok(());
        };
        let told = self.process.sides.get(room).and_then(|side| side.told);
        if told.is_some_and(|gate| gate.incarnation == *incarnation && !gate.open) {
            return Err(Broken::new(rules::GATE_FIRST, format!("{room}: {frame:?}")));
        }
        Ok(())
    }
}

impl What {
    /// Whether it is about the present life of its room.
    fn is_present(&self, rooms: &std::collections::BTreeMap<RoomName, super::RoomTruth>) -> bool {
        let (room, incarnation) = match self {
            Self::Newest(Newest { room, incarnation, .. })
            | Self::CatchUp(CatchUpDue { room, incarnation, .. }) => (room, incarnation),
            Self::Exactly(_)
            | Self::Show(_)
            | Self::Rooms(_)
            | Self::Given { .. }
            | Self::Status(..) => return false,
        };
        rooms.get(room).is_some_and(|truth| truth.incarnation == *incarnation)
    }
}

fn is_page_read(newest: &Newest, asking: &Asking<'_>) -> bool {
    let first = newest.entries.first().and_then(|entry| seq_of(entry));
    newest.source == Source::Memory
        && asking.order == ReadOrder::Backward
        && (asking.room, asking.incarnation) == (&newest.room, newest.incarnation)
        && (Some(asking.from), asking.to) == (first, newest.last)
}

fn is_catch_up_read(due: &CatchUpDue, asking: &Asking<'_>) -> bool {
    asking.order == ReadOrder::Forward
        && (asking.room, asking.incarnation) == (&due.room, due.incarnation)
        && asking.from == due.after.next()
        && asking.to >= asking.from
}

/// Whether a record says what its entry does.
fn is(record: &Record, entry: &Entry) -> bool {
    record_of(entry).as_ref() == Some(record)
}

/// Compares the bytes of a chunk with those that its entries must have; gives their number.
///
/// An encoding is canonical, so equal bytes are equal records, and nothing has to be decoded.
fn compare<'a>(
    scratch: &mut BytesMut,
    chunk: &Chunk,
    entries: impl Iterator<Item = &'a Arc<Entry>>,
) -> Result<u64, Broken> {
    let mut rest = &chunk.bytes()[..];
    let mut count = 0;
    for entry in entries.take(chunk.len()) {
        let Some(record) = record_of(entry) else { break };
        scratch.clear();
        encode(&ServerFrame::Record(record), scratch);
        let Some(after) = rest.strip_prefix(&scratch[..]) else {
            let detail = format!("{:?} is not what {entry:?} makes", seen(rest));
            return Err(Broken::new(rules::RECORD, detail));
        };
        rest = after;
        count += 1;
    }
    if rest.is_empty() && count == chunk.len() {
        return Ok(to_u64(chunk.bytes().len()));
    }
    Err(Broken::new(rules::RECORD, format!("{} records, {count} are due", chunk.len())))
}

/// The frame that bytes begin with, for people.
fn seen(bytes: &[u8]) -> String {
    let mut buffer = chatcore::codec::FrameBuffer::default();
    buffer.feed(bytes);
    match buffer.next_frame() {
        Ok(Some(frame)) => format!("{:?}", chatcore::codec::decode::<ServerFrame>(&frame)),
        Ok(None) => "nothing".to_owned(),
        Err(fault) => fault.to_string(),
    }
}
