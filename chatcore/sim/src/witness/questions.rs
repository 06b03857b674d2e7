//! What became of each thing that a user asked: it is answered once, or refused once, or lost with
//! the run of the client that was asked.
//!
//! An answer does not say which question it is for, and answers to histories overtake each other.
//! So answers are matched with the questions that they fit, anew whenever one comes: that there is
//! a way to match all of them is what is checked.

use std::collections::BTreeSet;

use chatcore::id::Index;
use chatcore::text::{RoomName, UserName};

use crate::broken::{Broken, hold};

/// The most questions that a client takes before it refuses more by itself.
const QUESTIONS_MAX: usize = 128;

/// What a user wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    Join(RoomName),
    Part(RoomName),
    Who(RoomName),
    Rooms,
    Whois(RoomName, UserName),
    History(RoomName, u64),
}

impl Wish {
    /// The room it is about.
    pub(crate) const fn room(&self) -> Option<&RoomName> {
        match self {
            Self::Join(room)
            | Self::Part(room)
            | Self::Who(room)
            | Self::Whois(room, _)
            | Self::History(room, _) => Some(room),
            Self::Rooms => None,
        }
    }
}

/// What was safe when a user asked: an answer is at least as new.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known {
    /// The number of the journal.
    pub(crate) log: usize,
    /// How much of it was safe.
    pub(crate) safe: Index,
    /// The present life of the room, and how many of its records were visible; 0 behind a gate.
    pub(crate) life: u64,
    pub(crate) visible: u64,
    /// Whether the gate of that life was open.
    pub(crate) open: bool,
}

/// A question that is not answered, or perhaps not.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    label: String,
    pub(crate) wish: Wish,
    pub(crate) known: Known,
    /// When, in order with the answers.
    at: u64,
    answer: Option<Answer>,
}

/// Something shown that answers a question.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    at: u64,
    pub(crate) what: Given,
}

/// What is shown as an answer.
#[derive(Clone, Debug)]
pub(crate) enum Given {
    /// The gate of a room, which who joins is shown; it is shown unasked too.
    Gate(RoomName),
    Parted(RoomName),
    /// Who is in a room. What differs from what was shown before is shown unasked too.
    Users {
        room: RoomName,
        is_news: bool,
    },
    Rooms,
    User(UserName),
    History {
        room: RoomName,
        records: u64,
        fits: Fits,
    },
}

/// Which questions a history fits, by what was known when they were asked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fits {
    /// The journal that it comes from.
    pub(crate) log: usize,
    /// The life and the last of its records.
    pub(crate) newest: (u64, u64),
    /// Whether there may be fewer records than were asked for: the first one is among them, those
    /// before are gone, or the life has ended.
    pub(crate) may_be_short: bool,
}

impl Given {
    /// Whether it is shown unasked too.
    const fn may_be_unasked(&self) -> bool {
        matches!(self, Self::Gate(_) | Self::Users { is_news: true, .. })
    }
}

impl Asked {
    fn is_answered_by(&self, answer: &Answer) -> bool {
        if answer.at < self.at {
            return false;
        }
        match (&self.wish, &answer.what) {
            (Wish::Join(asked), Given::Gate(room))
            | (Wish::Part(asked), Given::Parted(room))
            | (Wish::Who(asked), Given::Users { room, .. }) => asked == room,
            (Wish::Rooms, Given::Rooms) => true,
            (Wish::Whois(_, asked), Given::User(user)) => asked == user,
            (Wish::History(asked, count), Given::History { room, records, fits }) => {
                let long = records == count || (records < count && fits.may_be_short);
                let end = (self.known.life, self.known.visible);
                asked == room && long && (fits.log != self.known.log || fits.newest >= end)
            }
            _ => false,
        }
    }

    /// Whether what answers it may have been shown unasked, so that it may still be refused.
    fn is_settled(&self) -> bool {
        self.answer.as_ref().is_some_and(|answer| !answer.what.may_be_unasked())
    }
}

/// The questions of one run of a client.
#[derive(Debug, Default)]
pub(crate) struct Questions {
    asked: Vec<Asked>,
    clock: u64,
    /// What was to be done with which room, in order; what was refused has no effect. Without a
    /// label: the room that every run begins with.
    moves: Vec<(Option<String>, Move)>,
}

/// A room is to be joined, or left.
#[derive(Clone, Debug)]
enum Move {
    In(RoomName),
    Out(RoomName),
}

impl Questions {
    const fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    /// The first room of a run.
    pub(crate) fn begin(&mut self, home: RoomName) {
        self.moves.push((None, Move::In(home)));
    }

    /// The rooms that a client is to be in.
    pub(crate) fn wanted(&self) -> BTreeSet<&RoomName> {
        let mut wanted = BTreeSet::new();
        for (_, step) in &self.moves {
            match step {
                Move::In(room) => wanted.insert(room),
                Move::Out(room) => wanted.remove(room),
            };
        }
        wanted
    }

    pub(crate) fn ask(&mut self, label: String, wish: Wish, known: Known) {
        let step = match &wish {
            Wish::Join(room) => Some(Move::In(room.clone())),
            Wish::Part(room) => Some(Move::Out(room.clone())),
            Wish::Who(_) | Wish::Rooms | Wish::Whois(..) | Wish::History(..) => None,
        };
        self.moves.extend(step.map(|step| (Some(label.clone()), step)));
        let at = self.tick();
        self.asked.push(Asked { label, wish, known, at, answer: None });
    }

    /// Something was shown that answers a question, unless it was shown unasked.
    pub(crate) fn answer(&mut self, what: Given) -> Result<(), Broken> {
        let at = self.tick();
        self.find_question_for(Answer { at, what })?;
        if self.asked.iter().all(|asked| asked.answer.is_some()) {
            self.forget_settled();
        }
        Ok(())
    }

    /// Forgets questions whose answers nobody else can have been given.
    fn forget_settled(&mut self) {
        let (settled, unsettled): (Vec<Asked>, Vec<Asked>) =
            std::mem::take(&mut self.asked).into_iter().partition(Asked::is_settled);
        let may_be_of_another = |asked: &Asked| {
            let answer = asked.answer.as_ref();
            answer.is_some_and(|answer| unsettled.iter().any(|it| it.is_answered_by(answer)))
        };
        let kept: Vec<Asked> = settled.into_iter().filter(may_be_of_another).collect();
        self.asked = unsettled;
        self.asked.extend(kept);
        self.asked.sort_by_key(|asked| asked.at);
    }

    fn find_question_for(&mut self, answer: Answer) -> Result<(), Broken> {
        let unasked = answer.what.may_be_unasked();
        let said = answer.what.clone();
        let mut tried = vec![false; self.asked.len()];
        let found = assign(&mut self.asked, answer, &mut tried);
        hold!(found || unasked, "an answer is to a question, and the only one", "{said:?}");
        Ok(())
    }

    /// A room was left: joins of it before that are over, as of a room that the client was in.
    pub(crate) fn part(&mut self, room: &RoomName) -> Result<(), Broken> {
        let parts = |asked: &Asked| asked.wish == Wish::Part(room.clone()) && !asked.is_settled();
        if let Some(at) = self.asked.iter().find(|asked| parts(asked)).map(|asked| asked.at) {
            self.asked.retain(|asked| asked.at > at || asked.wish != Wish::Join(room.clone()));
        }
        self.answer(Given::Parted(room.clone()))
    }

    /// A question was refused: it had no answer.
    pub(crate) fn refuse(&mut self, label: &str) -> Result<Asked, Broken> {
        self.moves.retain(|(of, _)| of.as_deref() != Some(label));
        let place = self.asked.iter().position(|asked| asked.label == label);
        let place = place.ok_or_else(|| Broken::new("a question has one fate", label))?;
        let mut asked = self.asked.remove(place);
        if let Some(answer) = asked.answer.take() {
            self.find_question_for(answer)?;
        }
        Ok(asked)
    }

    /// Whether so much is asked that a client may refuse more.
    pub(crate) const fn may_be_full(&self) -> bool {
        self.asked.len() + 1 >= QUESTIONS_MAX
    }

    /// What was known at the questions about a user, and the room that each names.
    pub(crate) fn about(&self, user: &UserName) -> impl Iterator<Item = (&RoomName, &Known)> {
        self.asked.iter().filter_map(move |asked| {
            let Wish::Whois(room, other) = &asked.wish else { return None };
            (other == user).then_some((room, &asked.known))
        })
    }

    /// Questions that nothing answered.
    pub(crate) fn open(&self) -> impl Iterator<Item = (&str, &Wish)> {
        let open = self.asked.iter().filter(|asked| asked.answer.is_none());
        open.map(|asked| (asked.label.as_str(), &asked.wish))
    }
}

/// Gives an answer to a question that it fits, and if need be the answer of that one to another.
fn assign(asked: &mut [Asked], answer: Answer, tried: &mut [bool]) -> bool {
    let fits = |asked: &Asked| asked.is_answered_by(&answer);
    let places: Vec<usize> = (0..asked.len()).filter(|place| fits(&asked[*place])).collect();
    if let Some(free) = places.iter().find(|place| asked[**place].answer.is_none()) {
        asked[*free].answer = Some(answer);
        return true;
    }
    for place in &places {
        if std::mem::replace(&mut tried[*place], true) {
            continue;
        }
        let Some(before) = asked[*place].answer.clone() else { continue };
        if assign(asked, before, tried) {
            asked[*place].answer = Some(answer);
            return true;
        }
    }
    if answer.what.may_be_unasked() {
        return false;
    }
    // What answers it may have been shown unasked.
    let Some(place) = places.into_iter().find(|place| !asked[*place].is_settled()) else {
        return false;
    };
    asked[place].answer = Some(answer);
    true
}
