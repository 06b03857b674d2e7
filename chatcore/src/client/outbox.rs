//! Commands that are not answered: numbered, sent in order, sent again after a loss.
//!
//! Go-back-N over contiguous numbers: up to [`WINDOW`] commands are under way; when one is refused
//! for now, it and everything after it is sent again, once all that was under way is answered.

use std::collections::VecDeque;

use crate::client::{Outputs, Place, Save, Unsent};
use crate::id::Counter;
use crate::limits::REMEMBERED_ANSWERS;
use crate::time::{Moment, Span};
use crate::wire::Command;

/// The most commands that wait for an answer.
pub(super) const OUTBOX_MAX: usize = 10_000;

/// How far the last command under way may be from the first one unanswered: the server remembers
/// the answers to so many, and so can tell a repeated command from another text.
const WINDOW: u64 = 64;
const _: () = assert!(REMEMBERED_ANSWERS == 64, "the window is what the server remembers");

#[derive(Debug, Default)]
pub(super) struct Outbox {
    /// The last number given.
    last: Counter,
    /// Numbered commands, oldest first.
    entries: VecDeque<Entry>,
    /// Commands written before there was a session to number them in.
    unnumbered: VecDeque<(Place, String, Command)>,
    numbering: Numbering,
    /// The next command to send.
    next: Counter,
    /// Sent on this connection and unanswered.
    in_flight: Vec<Counter>,
    /// After a refusal: nothing is sent before this, nor before `in_flight` is empty.
    held_until: Option<Moment>,
}

#[derive(Debug)]
struct Entry {
    place: Place,
    unsent: Unsent,
    /// Whether the server may have seen it under its number.
    exposed: bool,
}

/// Whether there is a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Numbering {
    #[default]
    Waits,
    Runs,
}

/// What the server's last counter says about ours.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Agreement {
    /// Everything can be sent.
    Agreed,
    /// As `Agreed`, after commands got new numbers: the whole outbox has to be saved.
    Renumbered,
    /// The server has forgotten what it answered.
    Behind,
}

impl Outbox {
    /// Takes over what an earlier run left and numbers what was written in this one.
    pub(super) fn load(&mut self, last: Counter, mut left: Vec<Unsent>, out: &mut Outputs) {
        left.sort_by_key(|unsent| unsent.counter);
        left.dedup_by_key(|unsent| unsent.counter);
        self.last = left.last().map_or(last, |unsent| unsent.counter.max(last));
        let entry = |unsent| Entry { place: Place::default(), unsent, exposed: true };
        self.entries = left.into_iter().map(entry).collect();
        self.numbering = Numbering::Runs;
        for (place, id, command) in core::mem::take(&mut self.unnumbered) {
            self.number(place, id, command, out);
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.len() >= OUTBOX_MAX
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len().saturating_add(self.unnumbered.len())
    }

    /// Takes a new command; its place is behind all others.
    pub(super) fn push(&mut self, place: Place, id: String, command: Command, out: &mut Outputs) {
        match self.numbering {
            Numbering::Waits => self.unnumbered.push_back((place, id, command)),
            Numbering::Runs => self.number(place, id, command, out),
        }
    }

    fn number(&mut self, place: Place, id: String, command: Command, out: &mut Outputs) {
        self.last = self.last.saturating_add(1);
        let unsent = Unsent { counter: self.last, id, command };
        out.save(Save::Queued(unsent.clone()));
        self.entries.push_back(Entry { place, unsent, exposed: false });
    }

    /// Everything unanswered that has a number.
    pub(super) fn to_vec(&self) -> Vec<Unsent> {
        self.entries.iter().map(|entry| entry.unsent.clone()).collect()
    }

    pub(super) fn commands_mut(&mut self) -> impl Iterator<Item = &mut Command> {
        self.entries.iter_mut().map(|entry| &mut entry.unsent.command)
    }

    /// Numbers everything again, after `base`: in a session that has seen nothing of it.
    pub(super) fn renumber_all(&mut self, base: Counter) {
        self.last = base;
        for entry in &mut self.entries {
            self.last = self.last.saturating_add(1);
            entry.unsent.counter = self.last;
            entry.exposed = false;
        }
    }

    /// Gives up every command that the server may have seen.
    pub(super) fn take_exposed(&mut self) -> Vec<Unsent> {
        self.take_where(|entry| entry.exposed)
    }

    /// Gives up every measure.
    pub(super) fn take_measures(&mut self) -> Vec<Unsent> {
        self.take_where(|entry| matches!(entry.unsent.command, Command::Moderate { .. }))
    }

    fn take_where(&mut self, wanted: impl Fn(&Entry) -> bool) -> Vec<Unsent> {
        let (taken, kept) = core::mem::take(&mut self.entries).into_iter().partition(wanted);
        self.entries = kept;
        let taken: VecDeque<Entry> = taken;
        taken.into_iter().map(|entry| entry.unsent).collect()
    }

    /// Compares with the last counter that the server knows. The returned commands are given up:
    /// their numbers were used so long ago that the server would no longer tell another text.
    pub(super) fn agree(&mut self, theirs: Counter) -> (Agreement, Vec<Unsent>) {
        let first = self.first().unwrap_or(self.last.saturating_add(1));
        if theirs.saturating_add(1) < first {
            return (Agreement::Behind, Vec::new());
        }
        let given_up = self.take_where(|entry| {
            entry.exposed && theirs.saturating_sub(WINDOW.saturating_sub(1)) > entry.unsent.counter
        });
        // What was never sent gets numbers that nobody used, whoever else used this session.
        let exposed = self.entries.iter().rev().find(|entry| entry.exposed);
        let mut last = exposed.map_or(theirs, |entry| entry.unsent.counter.max(theirs));
        let mut agreement = Agreement::Agreed;
        for entry in self.entries.iter_mut().filter(|entry| !entry.exposed) {
            last = last.saturating_add(1);
            if entry.unsent.counter != last {
                entry.unsent.counter = last;
                agreement = Agreement::Renumbered;
            }
        }
        self.last = last;
        (agreement, given_up)
    }

    fn first(&self) -> Option<Counter> {
        self.entries.front().map(|entry| entry.unsent.counter)
    }

    /// Everything is to be sent from the first unanswered one.
    pub(super) fn restart(&mut self) {
        self.in_flight.clear();
        self.held_until = None;
        self.next = Counter::ZERO;
    }

    /// Whether everything before `place` was sent on this connection, or is answered.
    pub(super) fn is_sent_before(&self, place: Place) -> bool {
        self.unnumbered.is_empty()
            && self.entries.get(self.next_index()).is_none_or(|entry| entry.place >= place)
    }

    /// Whether everything before `place` is answered.
    pub(super) fn is_answered_before(&self, place: Place) -> bool {
        let places = self.entries.iter().map(|entry| entry.place);
        let mut places = places.chain(self.unnumbered.iter().map(|(place, _, _)| *place));
        places.next().is_none_or(|first| first >= place)
    }

    fn next_index(&self) -> usize {
        self.entries.partition_point(|entry| entry.unsent.counter < self.next)
    }

    /// The next command to send, if it may be sent now.
    pub(super) fn poll_send(
        &mut self,
        now: Moment,
        may_go: impl FnOnce(Place, &Command) -> bool,
    ) -> Option<(Counter, Command)> {
        if let Some(until) = self.held_until {
            if now < until || !self.in_flight.is_empty() {
                return None;
            }
            self.held_until = None;
        }
        let end = self.first()?.saturating_add(WINDOW);
        let next = self.next_index();
        let entry = self.entries.get_mut(next)?;
        let counter = entry.unsent.counter;
        if counter >= end || !may_go(entry.place, &entry.unsent.command) {
            return None;
        }
        entry.exposed = true;
        self.in_flight.push(counter);
        self.next = counter.saturating_add(1);
        Some((counter, entry.unsent.command.clone()))
    }

    pub(super) const fn awaits_answers(&self) -> bool {
        !self.in_flight.is_empty()
    }

    /// When held commands may be sent.
    pub(super) fn deadline(&self) -> Option<Moment> {
        self.held_until.filter(|_| self.in_flight.is_empty())
    }

    /// Takes a command that is answered for good; `None` when no answer to it was due.
    pub(super) fn settle(&mut self, counter: Counter) -> Option<Unsent> {
        if !self.land(counter) {
            return None;
        }
        let place = self.place(counter)?;
        Some(self.entries.remove(place)?.unsent)
    }

    /// A command that is not answered.
    pub(super) fn command(&self, counter: Counter) -> Option<&Command> {
        self.place(counter).and_then(|place| self.entries.get(place)).map(|e| &e.unsent.command)
    }

    /// Takes note of an answer; false when none was due.
    pub(super) fn land(&mut self, counter: Counter) -> bool {
        match self.in_flight.iter().position(|sent| *sent == counter) {
            Some(place) => {
                self.in_flight.remove(place);
                true
            }
            None => false,
        }
    }

    /// Sends again from `counter` on, after a while; false when it is not here.
    pub(super) fn go_back(&mut self, counter: Counter, now: Moment, wait: Span) -> bool {
        if self.place(counter).is_none() {
            return false;
        }
        self.next = self.next.min(counter);
        // Refusals of what was sent after it change nothing of the first one's time.
        self.held_until = Some(self.held_until.unwrap_or(now + wait));
        true
    }

    fn place(&self, counter: Counter) -> Option<usize> {
        self.entries.binary_search_by_key(&counter, |entry| entry.unsent.counter).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::Untrusted;

    fn command(text: &str) -> Command {
        let (room, body) = (Untrusted::new("lobby"), Untrusted::new(text));
        Command::Post { room, incarnation: None, body }
    }

    fn counter(n: u64) -> Counter {
        Counter::new(n).unwrap()
    }

    /// An outbox in the middle of a session, with commands after number `last`.
    fn outbox(last: u64, fresh: u64) -> Outbox {
        let mut outbox = Outbox::default();
        outbox.load(counter(last), Vec::new(), &mut Outputs::default());
        for n in 0..fresh {
            push(&mut outbox, n + 1, &n.to_string());
        }
        outbox
    }

    fn push(outbox: &mut Outbox, place: u64, text: &str) {
        outbox.push(Place(place), text.to_owned(), command(text), &mut Outputs::default());
    }

    fn poll_send(outbox: &mut Outbox, now: Moment) -> Option<(Counter, Command)> {
        outbox.poll_send(now, |_, _| true)
    }

    fn send_all(outbox: &mut Outbox, now: Moment) -> Vec<u64> {
        core::iter::from_fn(|| poll_send(outbox, now)).map(|(counter, _)| counter.get()).collect()
    }

    fn numbers(outbox: &Outbox) -> Vec<u64> {
        outbox.to_vec().iter().map(|unsent| unsent.counter.get()).collect()
    }

    #[test]
    fn no_more_commands_are_under_way_than_the_server_remembers() {
        let mut outbox = outbox(0, 100);
        let now = Moment::default();
        assert_eq!(send_all(&mut outbox, now), (1..=64).collect::<Vec<_>>());
        // An answer out of order does not move the window: the first one could still be repeated.
        assert!(outbox.settle(counter(2)).is_some());
        assert_eq!(send_all(&mut outbox, now), Vec::<u64>::new());
        assert!(outbox.settle(counter(1)).is_some());
        assert_eq!(send_all(&mut outbox, now), [65, 66]);
    }

    #[test]
    fn b8_refusal_for_now_sends_it_and_all_after_it_again_once_everything_is_answered() {
        let mut outbox = outbox(0, 3);
        let now = Moment::default();
        assert_eq!(send_all(&mut outbox, now), [1, 2, 3]);
        assert!(outbox.settle(counter(1)).is_some());
        for refused in [2, 3] {
            assert!(outbox.land(counter(refused)));
            assert!(outbox.go_back(counter(2), now, Span::from_secs(refused)));
            assert_eq!(send_all(&mut outbox, now), Vec::<u64>::new());
        }
        assert_eq!(outbox.deadline(), Some(now + Span::from_secs(2)));
        assert_eq!(send_all(&mut outbox, now + Span::from_secs(2)), [2, 3]);
    }

    #[test]
    fn command_counts_as_sent_until_it_has_to_be_sent_again_and_then_as_answered() {
        let mut outbox = outbox(0, 2);
        let now = Moment::default();
        let state = |outbox: &Outbox| {
            (outbox.is_sent_before(Place(3)), outbox.is_answered_before(Place(3)))
        };
        assert_eq!(state(&outbox), (false, false));
        assert!(outbox.is_sent_before(Place(1)) && outbox.is_answered_before(Place(1)));
        assert!(outbox.poll_send(now, |place, _| place < Place(1)).is_none());
        assert_eq!(send_all(&mut outbox, now), [1, 2]);
        assert_eq!(state(&outbox), (true, false));
        assert!(outbox.land(counter(2)) && outbox.go_back(counter(2), now, Span::ZERO));
        assert_eq!(state(&outbox), (false, false));
        assert!(outbox.settle(counter(1)).is_some());
        assert_eq!(send_all(&mut outbox, now), [2]);
        outbox.restart();
        assert_eq!(state(&outbox), (false, false));
        assert_eq!(send_all(&mut outbox, now), [2]);
        assert!(outbox.settle(counter(2)).is_some());
        assert_eq!(state(&outbox), (true, true));
    }

    #[test]
    fn answer_that_is_not_due_settles_nothing() {
        let mut outbox = outbox(0, 1);
        assert_eq!(outbox.settle(counter(1)), None);
        assert_eq!(numbers(&outbox), [1]);
    }

    #[test]
    fn b8_commands_never_sent_get_numbers_that_a_copy_of_the_file_did_not_use() {
        let mut outbox = outbox(10, 2);
        assert_eq!(outbox.agree(counter(90)), (Agreement::Renumbered, Vec::new()));
        assert_eq!(numbers(&outbox), [91, 92]);
    }

    #[test]
    fn b8_command_that_may_have_been_sent_keeps_its_number_while_the_server_can_tell_its_text() {
        for (theirs, given_up) in [(10, 0), (12, 0), (74, 0), (75, 1), (76, 2)] {
            let mut outbox = outbox(10, 2);
            send_all(&mut outbox, Moment::default());
            let (agreement, taken) = outbox.agree(counter(theirs));
            assert_eq!((agreement, taken.len()), (Agreement::Agreed, given_up), "{theirs}");
            push(&mut outbox, 3, "new");
            let new = *numbers(&outbox).last().unwrap();
            assert_eq!(new, theirs.max(12) + 1, "{theirs}");
        }
    }

    #[test]
    fn server_that_forgot_answers_is_behind() {
        assert_eq!(outbox(10, 2).agree(counter(9)).0, Agreement::Behind);
        assert_eq!(outbox(10, 0).agree(counter(9)).0, Agreement::Behind);
        assert_eq!(outbox(10, 2).agree(counter(10)).0, Agreement::Agreed);
    }

    #[test]
    fn b11_counters_at_their_end_do_not_panic() {
        let mut outbox = outbox(0, 2);
        let _ = outbox.agree(Counter::MAX);
        push(&mut outbox, 3, "more");
        let _ = poll_send(&mut outbox, Moment::default());
        assert_eq!(numbers(&outbox).last(), Some(&Counter::MAX.get()));
    }
}
