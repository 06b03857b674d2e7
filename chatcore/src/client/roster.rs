//! Who is in one room, as far as the client knows.

use std::collections::{BTreeSet, VecDeque};

use crate::id::Seq;
use crate::text::UserName;
use crate::wire::{GateState, LIST_MAX, UserList};

/// Names of the users in a room: a list from the server, changed by the records after it.
#[derive(Debug, Default)]
pub(super) struct Roster {
    knowledge: Knowledge,
    names: BTreeSet<UserName>,
    /// The last record that the list took into account.
    as_of: Seq,
    /// The last record that is gone: a list must not be older.
    missed: Seq,
    /// The newest changes, for a list that was made before them and comes after them.
    recent: VecDeque<(Seq, Presence)>,
    /// What was shown last.
    shown: Option<(u32, Vec<UserName>)>,
}

/// A user came or went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Presence {
    Joined(UserName),
    Left(UserName),
}

/// When a list that was refused is to be asked for again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Again {
    /// As soon as anything may be asked.
    Now,
    /// When the gate is told again: it is closed now, or the room is left.
    WithGate,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Knowledge {
    /// Nothing is known of this life of the room.
    #[default]
    None,
    /// A list is to be asked for.
    Wanted,
    /// A list was asked for.
    Asked,
    /// `names` are everybody.
    All,
    /// `names` are the first of more than [`LIST_MAX`].
    Part,
}

impl Roster {
    /// The room began a new life, with a list of its own.
    pub(super) fn reset(&mut self) {
        self.knowledge = Knowledge::None;
        (self.as_of, self.missed) = (Seq::ZERO, Seq::ZERO);
        self.recent.clear();
        self.shown = None;
    }

    /// The connection is gone, and a question with it.
    pub(super) fn disconnect(&mut self) {
        self.knowledge = Knowledge::None;
    }

    /// Records up to this one are gone: who came or went in them is not known, unless the list is
    /// newer.
    pub(super) fn miss(&mut self, to: Seq) {
        self.missed = self.missed.max(to);
        // A list that is under way may be new enough.
        if to > self.as_of && self.knowledge != Knowledge::Asked {
            self.knowledge = Knowledge::None;
        }
    }

    /// Takes a list, unless it is older than what is gone: another is to be asked for then.
    pub(super) fn seed(&mut self, list: UserList) {
        if list.as_of < self.missed {
            self.knowledge = Knowledge::Wanted;
            return;
        }
        self.as_of = list.as_of;
        self.names = list.names.into_vec().into_iter().collect();
        let all = usize::try_from(list.count).is_ok_and(|count| count <= self.names.len());
        self.knowledge = if all { Knowledge::All } else { Knowledge::Part };
        for (seq, presence) in core::mem::take(&mut self.recent) {
            self.note(seq, presence);
        }
    }

    /// Takes a record of a user who came or went.
    pub(super) fn note(&mut self, seq: Seq, presence: Presence) {
        if seq <= self.as_of {
            return;
        }
        if self.recent.len() >= LIST_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back((seq, presence.clone()));
        match presence {
            Presence::Joined(user) => self.names.insert(user),
            Presence::Left(user) => self.names.remove(&user),
        };
        if self.names.len() > LIST_MAX {
            self.names.pop_last();
            if self.knowledge == Knowledge::All {
                self.knowledge = Knowledge::Part;
            }
        }
    }

    /// The gate is in this state: a list may have to be asked for.
    pub(super) fn heed(&mut self, gate: GateState) {
        let few = usize::try_from(gate.users).is_ok_and(|users| users <= LIST_MAX);
        let lacking = match self.knowledge {
            Knowledge::None => true,
            Knowledge::Part => few,
            Knowledge::Wanted | Knowledge::Asked | Knowledge::All => false,
        };
        if gate.open && lacking {
            self.knowledge = Knowledge::Wanted;
        }
    }

    /// Whether a list is to be asked for now; true once.
    pub(super) fn take_wish(&mut self) -> bool {
        let wanted = self.knowledge == Knowledge::Wanted;
        if wanted {
            self.knowledge = Knowledge::Asked;
        }
        wanted
    }

    /// The list was refused: it is to be asked for again.
    pub(super) fn refuse(&mut self, again: Again) {
        if self.knowledge == Knowledge::Asked {
            self.knowledge = match again {
                Again::Now => Knowledge::Wanted,
                Again::WithGate => Knowledge::None,
            };
        }
    }

    /// What to show of a room with this gate, if it differs from what was shown.
    pub(super) fn news(&mut self, gate: GateState) -> Option<(u32, Vec<UserName>)> {
        let value = self.value(gate)?;
        if self.shown.as_ref() == Some(&value) {
            return None;
        }
        self.shown = Some(value.clone());
        Some(value)
    }

    /// How many there are, and the first names; `None` while nobody may know.
    fn value(&self, gate: GateState) -> Option<(u32, Vec<UserName>)> {
        let count = match self.knowledge {
            _ if !gate.open => return None,
            Knowledge::None | Knowledge::Wanted | Knowledge::Asked => return None,
            Knowledge::All => u32::try_from(self.names.len()).unwrap_or(u32::MAX),
            Knowledge::Part => gate.users,
        };
        Some((count, self.names.iter().cloned().collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Incarnation, Threshold};
    use crate::wire::List;

    fn user(name: &str) -> UserName {
        name.parse().unwrap()
    }

    fn seq(n: u64) -> Seq {
        Seq::new(n).unwrap()
    }

    fn list(count: u32, names: &[&str], as_of: u64) -> UserList {
        let names = List::first_of(names.iter().map(|name| user(name)));
        UserList { room: "lobby".parse().unwrap(), count, names, as_of: seq(as_of) }
    }

    const fn open(users: u32) -> GateState {
        let incarnation = Incarnation::ZERO;
        GateState { incarnation, users, threshold: Threshold::DEFAULT, open: true }
    }

    #[test]
    fn records_change_a_list_only_when_they_are_newer_than_it() {
        let mut roster = Roster::default();
        roster.seed(list(2, &["ann", "bob"], 5));
        roster.note(seq(5), Presence::Left(user("bob")));
        assert_eq!(roster.news(open(2)), Some((2, vec![user("ann"), user("bob")])));
        roster.note(seq(6), Presence::Left(user("bob")));
        assert_eq!(roster.news(open(2)), Some((1, vec![user("ann")])));
        assert_eq!(roster.news(open(2)), None);
    }

    #[test]
    fn list_that_comes_after_newer_records_does_not_undo_them() {
        let mut roster = Roster::default();
        roster.heed(open(1));
        assert!(roster.take_wish());
        roster.note(seq(6), Presence::Joined(user("bob")));
        roster.seed(list(1, &["ann"], 5));
        assert_eq!(roster.news(open(2)), Some((2, vec![user("ann"), user("bob")])));
    }

    #[test]
    fn room_with_more_users_than_a_list_holds_is_counted_by_its_gate() {
        let mut roster = Roster::default();
        roster.seed(list(300, &["ann"], 5));
        assert_eq!(roster.news(open(301)), Some((301, vec![user("ann")])));
        roster.heed(open(301));
        assert!(!roster.take_wish());
        roster.heed(open(256));
        assert!(roster.take_wish());
        assert!(!roster.take_wish());
    }

    #[test]
    fn list_keeps_256_names_however_many_come() {
        let mut roster = Roster::default();
        roster.seed(list(0, &[], 0));
        for n in 1..=1_000 {
            roster.note(seq(n), Presence::Joined(user(&format!("u{n}"))));
        }
        let (count, names) = roster.news(open(1_000)).unwrap();
        assert_eq!((count, names.len()), (1_000, LIST_MAX));
    }

    #[test]
    fn list_is_asked_for_again_when_records_after_it_are_gone() {
        let mut roster = Roster::default();
        roster.seed(list(1, &["ann"], 5));
        roster.miss(seq(5));
        assert_eq!(roster.news(open(1)), Some((1, vec![user("ann")])));
        roster.miss(seq(6));
        roster.heed(open(2));
        assert!(roster.take_wish());
        roster.note(seq(7), Presence::Joined(user("cat")));
        assert_eq!(roster.news(open(3)), None);
        roster.seed(list(2, &["ann", "bob"], 6));
        assert_eq!(roster.news(open(3)), Some((3, vec![user("ann"), user("bob"), user("cat")])));
    }

    #[test]
    fn list_that_is_older_than_what_is_gone_is_not_believed() {
        let mut roster = Roster::default();
        roster.heed(open(1));
        assert!(roster.take_wish());
        roster.miss(seq(9));
        roster.heed(open(2));
        assert!(!roster.take_wish(), "one is under way");
        roster.seed(list(1, &["ann"], 8));
        assert_eq!(roster.news(open(2)), None);
        assert!(roster.take_wish());
        roster.seed(list(2, &["ann", "bob"], 9));
        assert_eq!(roster.news(open(2)), Some((2, vec![user("ann"), user("bob")])));
    }

    #[test]
    fn closed_gate_shows_nobody() {
        let mut roster = Roster::default();
        roster.seed(list(1, &["ann"], 1));
        assert_eq!(roster.news(GateState { open: false, ..open(1) }), None);
    }
}
