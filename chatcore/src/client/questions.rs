//! Questions under way, and those that wait for a connection.

use std::collections::{BTreeMap, VecDeque};

use crate::client::Ask;
use crate::id::{Incarnation, RequestId, Seq};
use crate::text::RoomName;
use crate::wire::{LIST_MAX, Question, Record, RecordBody};

/// The most questions of the user that are unanswered.
const QUESTIONS_MAX: usize = 64;
/// The most records that one [`Ask::History`] gives.
const HISTORY_MAX: u64 = 10_000;
/// The most bytes of text that one [`Ask::History`] gathers; it then ends early.
const HISTORY_BYTES_MAX: usize = 16 << 20;

#[derive(Debug, Default)]
pub(super) struct Questions {
    last: RequestId,
    pending: BTreeMap<RequestId, Purpose>,
    waiting: VecDeque<Ask>,
}

/// What an answer is for.
#[derive(Debug)]
pub(super) enum Purpose {
    /// To follow a room.
    Join(RoomName),
    /// To leave a room.
    Part(RoomName),
    /// To know who is in a room.
    List(RoomName),
    /// The user asked.
    User(Ask),
    /// The user asked for records; here is what has come.
    History(Pages),
}

impl Questions {
    /// Takes a question of the user; false when there are too many.
    pub(super) fn push(&mut self, ask: Ask) -> bool {
        let room = self.has_room();
        if room {
            self.waiting.push_back(ask);
        }
        room
    }

    /// Whether the user may ask one more question.
    pub(super) fn has_room(&self) -> bool {
        let of_user = |purpose: &&Purpose| match purpose {
            Purpose::Part(_) | Purpose::User(_) | Purpose::History(_) => true,
            Purpose::Join(_) | Purpose::List(_) => false,
        };
        let pending = self.pending.values().filter(of_user).count();
        self.waiting.len().saturating_add(pending) < QUESTIONS_MAX
    }

    /// Takes the next question of the user that can be asked now.
    pub(super) fn poll_waiting(&mut self) -> Option<Ask> {
        self.waiting.pop_front()
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

    /// The connection is gone: what the user asked is asked again on the next one. Returns the
    /// rooms that the loss has left.
    pub(super) fn disconnect(&mut self) -> Vec<RoomName> {
        let mut parted = Vec::new();
        let mut again = VecDeque::new();
        for purpose in core::mem::take(&mut self.pending).into_values() {
            match purpose {
                Purpose::Join(_) | Purpose::List(_) => {}
                Purpose::Part(room) => parted.push(room),
                Purpose::User(ask) => again.push_back(ask),
                Purpose::History(pages) => again.push_back(pages.into_ask()),
            }
        }
        again.append(&mut self.waiting);
        self.waiting = again;
        parted
    }
}

/// History that is asked for page by page, backwards.
#[derive(Debug)]
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

    fn into_ask(self) -> Ask {
        Ask::History(self.room, self.wanted)
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
    use crate::time::Timestamp;

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

    #[test]
    fn questions_of_a_lost_connection_are_asked_again_in_order() {
        let mut questions = Questions::default();
        let lobby: RoomName = "lobby".parse().unwrap();
        questions.label(Purpose::User(Ask::Rooms));
        questions.label(Purpose::Part(lobby.clone()));
        questions.label(Purpose::History(Pages::new(lobby.clone(), 5)));
        assert!(questions.push(Ask::Who(lobby.clone())));
        assert_eq!(questions.disconnect(), [lobby.clone()]);
        let again: Vec<Ask> = core::iter::from_fn(|| questions.poll_waiting()).collect();
        assert_eq!(again, [Ask::Rooms, Ask::History(lobby.clone(), 5), Ask::Who(lobby)]);
    }

    #[test]
    fn no_more_than_64_questions_wait() {
        let mut questions = Questions::default();
        assert!((0..64).all(|_| questions.push(Ask::Rooms)));
        assert!(!questions.push(Ask::Rooms));
    }
}
