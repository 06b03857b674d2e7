//! Questions under way, and those that wait for a connection or for their turn.

use std::collections::{BTreeMap, VecDeque};

use crate::client::{Ask, Place};
use crate::id::{Incarnation, RequestId, Seq};
use crate::text::RoomName;
use crate::time::Moment;
use crate::wire::{LIST_MAX, Question, Record, RecordBody};

/// The most questions of the user that are unanswered, joins and parts among them: as many as a
/// server answers at once, and enough to join all the rooms it allows in one go.
const QUESTIONS_MAX: usize = 128;
/// The most records that one [`Ask::History`] gives.
const HISTORY_MAX: u64 = 10_000;
/// The most bytes of text that one [`Ask::History`] gathers; it then ends early.
const HISTORY_BYTES_MAX: usize = 16 << 20;

#[derive(Debug, Default)]
pub(super) struct Questions {
    last: RequestId,
    pending: BTreeMap<RequestId, Purpose>,
    /// What the user did and what was not asked yet, or has to be asked again, in order.
    waiting: VecDeque<(Line, Step)>,
    /// After a refusal: nothing is asked before this.
    held_until: Option<Moment>,
}

/// Something the user did that is no command: a question to the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Join(RoomName),
    Part(RoomName),
    Ask(Ask),
    /// The next page of records of which some have come.
    Page(Pages),
}

/// Where in the order a question of the user stands, and the user's label for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) place: Place,
    pub(super) id: String,
}

impl Step {
    /// The room it is about.
    pub(super) const fn room(&self) -> Option<&RoomName> {
        match self {
            Self::Join(room) | Self::Part(room) => Some(room),
            Self::Ask(ask) => ask.room(),
            Self::Page(pages) => Some(pages.room()),
        }
    }
}

/// What an answer is for.
#[derive(Debug)]
pub(super) enum Purpose {
    /// To follow a room.
    Join(RoomName),
    /// To leave a room.
    Part(Line, RoomName),
    /// To know who is in a room.
    List(RoomName),
    /// The user asked.
    User(Line, Ask),
    /// The user asked for records; here is what has come.
    History(Line, Pages),
}

impl Questions {
    /// Takes what the user did, behind all before it.
    pub(super) fn push(&mut self, line: Line, step: Step) {
        self.waiting.push_back((line, step));
    }

    /// Whether so much is unanswered that the user may ask nothing more.
    pub(super) fn is_full(&self) -> bool {
        let of_user = |purpose: &&Purpose| match purpose {
            Purpose::Part(..) | Purpose::User(..) | Purpose::History(..) => true,
            Purpose::Join(_) | Purpose::List(_) => false,
        };
        let pending = self.pending.values().filter(of_user).count();
        self.waiting.len().saturating_add(pending) >= QUESTIONS_MAX
    }

    /// What is next, unless it has to wait: after a refusal, for a room to be left, or for what was
    /// asked before.
    pub(super) fn next(&mut self, now: Moment) -> Option<(Place, &Step)> {
        if self.is_held(now) || self.parting().is_some() {
            return None;
        }
        let (line, step) = self.waiting.front()?;
        match step {
            // Whoever has left a room is told nothing more of it.
            Step::Part(room) if self.awaits_answer_about(room) => None,
            // One after the other: they would share what a server allows, and each takes memory.
            Step::Ask(Ask::History(..)) if self.reads_history() => None,
            Step::Part(_) | Step::Join(_) | Step::Ask(_) | Step::Page(_) => {
                Some((line.place, step))
            }
        }
    }

    /// Takes what is next.
    pub(super) fn take_next(&mut self) -> Option<(Line, Step)> {
        self.waiting.pop_front()
    }

    /// Only what comes before this may go out.
    pub(super) fn barrier(&self) -> Option<Place> {
        let waiting = self.waiting.front().map(|(line, _)| line.place);
        self.parting().into_iter().chain(waiting).min()
    }

    /// The place of a part under way: what comes after it is about another state of the room.
    fn parting(&self) -> Option<Place> {
        self.pending.values().find_map(|purpose| match purpose {
            Purpose::Part(line, _) => Some(line.place),
            Purpose::Join(_) | Purpose::List(_) | Purpose::User(..) | Purpose::History(..) => None,
        })
    }

    /// Whether the user awaits an answer about a room.
    fn awaits_answer_about(&self, room: &RoomName) -> bool {
        self.pending.values().any(|purpose| match purpose {
            Purpose::User(_, ask) => ask.room() == Some(room),
            Purpose::History(_, pages) => pages.room() == room,
            Purpose::Join(_) | Purpose::Part(..) | Purpose::List(_) => false,
        })
    }

    fn reads_history(&self) -> bool {
        self.pending.values().any(|purpose| matches!(purpose, Purpose::History(..)))
    }

    /// Asks again after a while, at the old place.
    pub(super) fn retry(&mut self, line: Line, step: Step, at: Moment) {
        self.put_back(line, step);
        self.hold(at);
    }

    /// Nothing is to be asked before this.
    pub(super) fn hold(&mut self, until: Moment) {
        self.held_until = self.held_until.max(Some(until));
    }

    /// Whether nothing may be asked yet.
    pub(super) fn is_held(&mut self, now: Moment) -> bool {
        self.held_until = self.held_until.filter(|until| now < *until);
        self.held_until.is_some()
    }

    fn put_back(&mut self, line: Line, step: Step) {
        let index = self.waiting.partition_point(|(waiting, _)| waiting.place < line.place);
        self.waiting.insert(index, (line, step));
    }

    /// When questions may be asked again.
    pub(super) const fn deadline(&self) -> Option<Moment> {
        self.held_until
    }

    /// Labels a question that is being asked.
    pub(super) fn label(&mut self, purpose: Purpose) -> RequestId {
        self.last = self.last.next();
        self.pending.insert(self.last, purpose);
        self.last
    }

    /// Takes a fresh label for a ping.
    pub(super) fn token(&mut self) -> RequestId {
        self.last = self.last.next();
        self.last
    }

    /// What an answer is for; `None` when it was not asked for.
    pub(super) fn take(&mut self, request: RequestId) -> Option<Purpose> {
        self.pending.remove(&request)
    }

    pub(super) fn awaits_answers(&self) -> bool {
        !self.pending.is_empty()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pending.is_empty() && self.waiting.is_empty()
    }

    /// The connection is gone: what the user asked is asked again on the next one, and a history from
    /// its beginning: the next server may have another journal. Returns the rooms that were about to be
    /// left: the loss has left them.
    pub(super) fn disconnect(&mut self) -> Vec<(Line, RoomName)> {
        self.held_until = None;
        for (_, step) in &mut self.waiting {
            if let Step::Page(pages) = step {
                *step = pages.anew();
            }
        }
        let mut parted = Vec::new();
        for purpose in core::mem::take(&mut self.pending).into_values() {
            match purpose {
                Purpose::Join(_) | Purpose::List(_) => {}
                Purpose::Part(line, room) => parted.push((line, room)),
                Purpose::User(line, ask) => self.put_back(line, Step::Ask(ask)),
                Purpose::History(line, pages) => self.put_back(line, pages.anew()),
            }
        }
        parted
    }
}

/// History that is asked for page by page, backwards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pages {
    room: RoomName,
    wanted: u64,
    incarnation: Option<Incarnation>,
    /// What has come, oldest first.
    records: VecDeque<Record>,
    bytes: usize,
}

/// Whether there is more to ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    More,
    Done,
}

impl Pages {
    pub(super) fn new(room: RoomName, wanted: u64) -> Self {
        let wanted = wanted.min(HISTORY_MAX);
        Self { room, wanted, incarnation: None, records: VecDeque::new(), bytes: 0 }
    }

    pub(super) const fn room(&self) -> &RoomName {
        &self.room
    }

    pub(super) fn into_records(self) -> Vec<Record> {
        self.records.into()
    }

    /// The question before any page came.
    pub(super) fn anew(&self) -> Step {
        Step::Ask(Ask::History(self.room.clone(), self.wanted))
    }

    /// How many are lacking.
    pub(super) fn lacking(&self) -> u64 {
        self.wanted.saturating_sub(u64::try_from(self.records.len()).unwrap_or(u64::MAX))
    }

    fn oldest(&self) -> Option<Seq> {
        self.records.front().map(|record| record.seq)
    }

    /// The question for the next page.
    pub(super) fn question(&self) -> Question {
        let room = (&self.room).into();
        let limit = u16::try_from(self.page_len()).unwrap_or(u16::MAX);
        Question::History { room, before: self.oldest(), limit }
    }

    fn page_len(&self) -> usize {
        usize::try_from(self.lacking()).unwrap_or(LIST_MAX).min(LIST_MAX)
    }

    /// Takes a page. What does not belong before the oldest record ends it.
    pub(super) fn add(&mut self, incarnation: Incarnation, page: Vec<Record>) -> Progress {
        // A reset between two pages: what came before it belongs to no room any more.
        if self.incarnation.is_some_and(|before| before != incarnation) {
            return Progress::Done;
        }
        self.incarnation = Some(incarnation);
        let before = self.records.len();
        let most = self.page_len();
        for record in page.into_iter().rev().take(most) {
            let fits = record.room == self.room
                && record.incarnation == incarnation
                && self.oldest().is_none_or(|oldest| record.seq < oldest);
            if !fits {
                return Progress::Done;
            }
            self.bytes = self.bytes.saturating_add(size(&record));
            self.records.push_front(record);
        }
        let first = self.oldest().is_none_or(|oldest| oldest <= Seq::ZERO.next());
        let ends = first
            || self.records.len() == before
            || self.lacking() == 0
            || self.bytes >= HISTORY_BYTES_MAX;
        if ends { Progress::Done } else { Progress::More }
    }
}

fn size(record: &Record) -> usize {
    match &record.body {
        RecordBody::Post { text, .. } => text.as_str().len(),
        RecordBody::Joined { .. } | RecordBody::Left { .. } => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::{Span, Timestamp};

    fn page(seqs: core::ops::RangeInclusive<u64>) -> Vec<Record> {
        let record = |seq| Record {
            room: "lobby".parse().unwrap(),
            incarnation: Incarnation::ZERO.next(),
            seq: Seq::new(seq).unwrap(),
            at: Timestamp::default(),
            body: RecordBody::Joined { user: "ann".parse().unwrap() },
        };
        seqs.map(record).collect()
    }

    fn add(pages: &mut Pages, seqs: core::ops::RangeInclusive<u64>) -> Progress {
        pages.add(Incarnation::ZERO.next(), page(seqs))
    }

    fn seqs(pages: Pages) -> Vec<u64> {
        pages.into_records().iter().map(|record| record.seq.get()).collect()
    }

    #[test]
    fn history_goes_on_backwards_through_short_pages_until_it_has_enough() {
        let mut pages = Pages::new("lobby".parse().unwrap(), 300);
        assert_eq!(add(&mut pages, 801..=1_000), Progress::More);
        let Question::History { before, limit, .. } = pages.question() else { panic!() };
        assert_eq!((before, limit), (Seq::new(801).ok(), 100));
        assert_eq!(add(&mut pages, 751..=800), Progress::More);
        // A server that gives more than it was asked for changes nothing.
        assert_eq!(add(&mut pages, 600..=750), Progress::Done);
        assert_eq!(seqs(pages), (701..=1_000).collect::<Vec<_>>());
    }

    #[test]
    fn history_ends_at_the_first_record_or_at_an_empty_page() {
        let mut pages = Pages::new("lobby".parse().unwrap(), 10);
        assert_eq!(add(&mut pages, 1..=3), Progress::Done);
        let mut pages = Pages::new("lobby".parse().unwrap(), 10);
        assert_eq!(add(&mut pages, 5..=6), Progress::More);
        assert_eq!(pages.add(Incarnation::ZERO.next(), Vec::new()), Progress::Done);
        assert_eq!(seqs(pages), [5, 6]);
    }

    #[test]
    fn page_that_repeats_records_or_comes_from_another_life_ends_the_history() {
        let mut pages = Pages::new("lobby".parse().unwrap(), 10);
        assert_eq!(add(&mut pages, 5..=6), Progress::More);
        assert_eq!(add(&mut pages, 4..=6), Progress::Done);
        assert_eq!(pages.add(Incarnation::ZERO, page(1..=4)), Progress::Done);
        assert_eq!(seqs(pages), [5, 6]);
    }

    fn line(place: u64) -> Line {
        Line { place: Place(place), id: place.to_string() }
    }

    #[test]
    fn questions_of_a_lost_connection_are_asked_again_in_order() {
        let mut questions = Questions::default();
        let lobby: RoomName = "lobby".parse().unwrap();
        questions.push(line(4), Step::Ask(Ask::Who(lobby.clone())));
        questions.label(Purpose::User(line(2), Ask::Rooms));
        questions.label(Purpose::Part(line(3), lobby.clone()));
        // Asked for before the others; this is its second page.
        questions.label(Purpose::History(line(1), Pages::new(lobby.clone(), 5)));
        assert_eq!(questions.disconnect(), [(line(3), lobby.clone())]);
        let again: Vec<Ask> = core::iter::from_fn(|| questions.take_next())
            .map(|(_, step)| match step {
                Step::Ask(ask) => ask,
                Step::Join(_) | Step::Part(_) | Step::Page(_) => panic!("{step:?}"),
            })
            .collect();
        assert_eq!(again, [Ask::History(lobby.clone(), 5), Ask::Rooms, Ask::Who(lobby)]);
    }

    #[test]
    fn history_whose_next_page_waits_begins_anew_on_the_next_connection() {
        let mut questions = Questions::default();
        let lobby: RoomName = "lobby".parse().unwrap();
        let mut pages = Pages::new(lobby.clone(), 10);
        assert_eq!(add(&mut pages, 5..=6), Progress::More);
        questions.retry(line(1), Step::Page(pages), Moment::default());
        assert!(questions.disconnect().is_empty());
        let again = questions.take_next().map(|(_, step)| step);
        assert_eq!(again, Some(Step::Ask(Ask::History(lobby, 10))));
    }

    #[test]
    fn nothing_passes_a_question_that_has_to_be_asked_again_or_a_part_under_way() {
        let mut questions = Questions::default();
        let now = Moment::default();
        let (dev, at) = ("dev".parse::<RoomName>().unwrap(), now + Span::from_secs(1));
        questions.retry(line(2), Step::Ask(Ask::Rooms), at);
        questions.retry(line(1), Step::Ask(Ask::Rooms), now);
        assert_eq!((questions.barrier(), questions.next(now)), (Some(Place(1)), None));
        assert_eq!(questions.deadline(), Some(at));
        assert_eq!(questions.next(at), Some((Place(1), &Step::Ask(Ask::Rooms))));
        questions.take_next();
        let request = questions.label(Purpose::Part(line(1), dev));
        assert_eq!((questions.barrier(), questions.next(at)), (Some(Place(1)), None));
        questions.take(request);
        assert_eq!(questions.barrier(), Some(Place(2)));
    }

    #[test]
    fn no_more_questions_wait_than_a_server_answers_at_once() {
        let mut questions = Questions::default();
        for place in 0..128 {
            assert!(!questions.is_full());
            questions.push(line(place), Step::Ask(Ask::Rooms));
        }
        assert!(questions.is_full());
    }
}
