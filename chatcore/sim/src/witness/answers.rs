//! Whether what a user is answered is so: against the journal, and against what was asked.

use chatcore::id::{Incarnation, Index, Seq};
use chatcore::text::{RoomName, UserName};
use chatcore::wire::{
    GateState, LimitFault, Record, Refusal, RoomInfo, StateFault, TargetFault, UserInfo,
};

use super::journal::Journal;
use super::questions::{Asked, Fits, Given, Known, Wish};
use super::{Fate, Place, Witness, own_labels};
use crate::broken::{Broken, hold};

impl Witness {
    /// A user asked a client something.
    pub(crate) fn asked(&mut self, client: u8, label: String, wish: Wish) {
        let known = self.known(wish.room());
        self.clients.entry(client).or_default().questions.ask(label, wish, known);
    }

    /// What is safe now.
    fn known(&self, room: Option<&RoomName>) -> Known {
        let (log, journal) = (self.log(), self.present());
        let begun = room.and_then(|room| journal.present(room));
        let begun = begun.filter(|(_, life)| journal.has_begun(life));
        let (life, visible, open) = begun.map_or((0, 0, false), |(number, life)| {
            (number, journal.visible(life), journal.is_open(life))
        });
        Known { log, safe: journal.safe(), life, visible, open }
    }

    /// Something was shown that may answer a question.
    pub(super) fn answered(&mut self, client: u8, given: Given) -> Result<(), Broken> {
        self.progress += 1;
        self.clients.entry(client).or_default().questions.answer(given)
    }

    pub(super) fn parted(&mut self, client: u8, room: &RoomName) -> Result<(), Broken> {
        let place = self.place(client, room);
        *place = Place { cursor: place.cursor, ..Place::default() };
        self.progress += 1;
        self.clients.entry(client).or_default().questions.part(room)
    }

    /// A list of rooms has those of the journal, each with a gate that it had or has.
    pub(super) fn listed(
        &mut self,
        client: u8,
        rooms: &[RoomInfo],
        count: u32,
    ) -> Result<(), Broken> {
        let all = count as usize == rooms.len();
        hold!(all, "a short list has everything", "{count} {rooms:?}");
        let journal = self.journal_of(client);
        for RoomInfo { room, gate } in rooms {
            let life = journal.life(room, gate.incarnation);
            let fits = life.is_some_and(|life| {
                life.threshold == gate.threshold.get() && (!gate.open || journal.is_open(life))
            });
            hold!(fits, "a list has the rooms of the journal", "{room} {gate:?}");
        }
        self.answered(client, Given::Rooms)
    }

    /// A user who is described is as the journal says, and was in the room that was asked about.
    pub(super) fn described(&mut self, client: u8, info: &UserInfo) -> Result<(), Broken> {
        let log = self.log_of(client);
        let journal = self.journal_of(client);
        let so = (info.key, info.operator);
        let same = self.clients.get(&client).is_some_and(|shown| {
            shown.questions.about(&info.user).any(|(_, known)| {
                let since = if known.log == log { known.safe } else { Index::ZERO };
                journal.was_so(&info.user, so, since)
            })
        });
        hold!(same, "a user is as the journal says", "{info:?}");
        let there = self.clients.get(&client).is_some_and(|shown| {
            shown.questions.about(&info.user).any(|(room, known)| {
                known.log != log || journal.was_there(room, &info.user, known.safe)
            })
        });
        hold!(there, "a user who is described was in the room", "{info:?}");
        self.answered(client, Given::User(info.user.clone()))
    }

    /// Who is shown to be in a room was there at once, and not before the last record shown.
    pub(super) fn users(
        &mut self,
        client: u8,
        room: &RoomName,
        count: u32,
        names: &[UserName],
    ) -> Result<(), Broken> {
        let place = self.place(client, room);
        let closed = place.gate.is_some_and(|gate| !gate.open);
        let cursor =
            place.cursor.map_or((Incarnation::ZERO, Seq::ZERO), |at| (at.incarnation, at.seq));
        let is_news = place.users.as_deref() != Some(names);
        (place.users, place.listed) = (Some(names.to_vec()), Some(names.to_vec()));
        hold!(!closed, "no names before the gate opens", "{client} {room}");
        let journal = self.journal_of(client);
        let open = journal.was_open(room);
        hold!(open, "no names of a gate that never opened", "{client} {room}");
        let fits = count as usize == names.len();
        hold!(fits, "a short list has everything", "{count} {names:?}");
        let there = journal.were_there(room, names, cursor);
        hold!(there, "a list of users is as the journal says", "{client} {room} {names:?}");
        self.answered(client, Given::Users { room: room.clone(), is_news })
    }

    /// A history has no holes and nothing else than the journal has; that it is the newest, and all
    /// that was asked for, is told by whether it fits a question.
    pub(super) fn history(
        &mut self,
        client: u8,
        room: &RoomName,
        records: &[Record],
    ) -> Result<(), Broken> {
        for pair in records.windows(2) {
            let [one, other] = pair else { continue };
            let next = one.incarnation == other.incarnation && one.seq.next() == other.seq;
            hold!(next, "history has no holes", "{} {}", one.seq, other.seq);
        }
        let journal = self.journal_of(client);
        records.iter().try_for_each(|record| journal.check_shown(record))?;
        let same = records.iter().all(|record| record.room == *room);
        hold!(same, "a history is of its room", "{room}");
        let fits = self.fits_of(client, room, records);
        let count = records.len() as u64;
        self.answered(client, Given::History { room: room.clone(), records: count, fits })
    }

    fn fits_of(&self, client: u8, room: &RoomName, records: &[Record]) -> Fits {
        let journal = self.journal_of(client);
        let (present, gone) = journal
            .present(room)
            .map_or((0, Seq::ZERO), |(number, life)| (number, journal.trimmed(life)));
        let log = self.log_of(client);
        let Some((first, last)) = records.first().zip(records.last()) else {
            // Nothing is visible of a life that just began, or what was is gone.
            let newest = (present, if self.keeps_all { gone.get() } else { u64::MAX });
            return Fits { log, newest, may_be_short: true };
        };
        let life = last.incarnation.get();
        let gone = journal.life(room, last.incarnation).map(|life| journal.trimmed(life));
        let whole = gone.is_some_and(|gone| first.seq.previous() <= gone);
        let may_be_short = whole || !self.keeps_all || life < present;
        Fits { log, newest: (life, last.seq.get()), may_be_short }
    }

    /// A question is refused by a rule that is there for it, and that applied.
    pub(super) fn question_refused(
        &mut self,
        client: u8,
        label: &str,
        refusal: Refusal,
    ) -> Result<(), Broken> {
        self.progress += 1;
        let questions = &mut self.clients.entry(client).or_default().questions;
        let may_be_full = questions.may_be_full();
        let asked = questions.refuse(label)?;
        let follows = asked.wish.room().is_some_and(|room| self.place(client, room).gate.is_some());
        let journal = self.journal_of(client);
        let same_log = self.log_of(client) == asked.known.log;
        let full = may_be_full && matches!(refusal, Refusal::Busy { .. });
        let right = full || may_refuse(journal, &asked, refusal, same_log, follows);
        hold!(right, "a question is refused by its rules", "{label} {asked:?}: {refusal}");
        Ok(())
    }

    /// A gate is said to have opened if this run saw it closed before; of one that it did not see
    /// so, if it opened while the client was connected.
    pub(super) fn check_opened(
        &mut self,
        client: u8,
        room: &RoomName,
        gate: GateState,
        opened: bool,
    ) -> Result<(), Broken> {
        let was_open = self.place(client, room).was_open;
        let since = self.clients.get(&client).map_or(0, |shown| shown.since.get());
        let journal = self.journal_of(client);
        let life = journal.life(room, gate.incarnation);
        let now = life.and_then(super::journal::Life::opened).is_some_and(|at| at > since);
        let right = match was_open {
            Some(false) => opened == gate.open,
            Some(true) => !opened,
            None => !opened || (gate.open && now),
        };
        hold!(right, "who is there is told that a gate opens", "{client} {room} {gate:?} {opened}");
        Ok(())
    }

    /// A client that its user let end in order has no command and no question left, but for joins,
    /// which are not waited for, and for commands of earlier runs if it met no server in this one:
    /// it does not know of them.
    pub(crate) fn drained(&self, client: u8) -> Result<(), Broken> {
        let Some(shown) = self.clients.get(&client) else { return Ok(()) };
        for own in own_labels(client) {
            let mine = self.commands.range(own.clone()..);
            for (id, fate) in mine.take_while(|(id, _)| id.starts_with(&own)) {
                let told = match fate {
                    Fate::Given => false,
                    Fate::Open => !shown.met,
                    Fate::Lost | Fate::Sent(_) | Fate::Refused(_) | Fate::Unknown => true,
                };
                hold!(told, "who quits in order is answered", "{id}");
            }
        }
        let mut open = shown.questions.open();
        let left = open.find(|(_, wish)| !matches!(wish, Wish::Join(_)));
        hold!(left.is_none(), "who quits in order is answered", "{left:?}");
        Ok(())
    }

    /// In the end every question is answered; a join of a room that the client was in already is
    /// answered by nothing.
    pub(super) fn check_questions(&self, client: u8) -> Result<(), Broken> {
        let Some(shown) = self.clients.get(&client) else { return Ok(()) };
        for (label, wish) in shown.questions.open() {
            let done = match wish {
                Wish::Join(room) => shown.rooms.get(room).is_some_and(|place| place.gate.is_some()),
                Wish::Part(_)
                | Wish::Who(_)
                | Wish::Rooms
                | Wish::Whois(..)
                | Wish::History(..) => false,
            };
            hold!(done, "every question is answered in the end", "{label} {wish:?}");
        }
        Ok(())
    }
}

/// Whether the rules refuse a question like this.
#[expect(clippy::wildcard_enum_match_arm, reason = "no other refusal is for questions")]
fn may_refuse(
    journal: &Journal,
    asked: &Asked,
    refusal: Refusal,
    same_log: bool,
    follows: bool,
) -> bool {
    let Known { safe, life, open, .. } = asked.known;
    let present = |room: &RoomName| journal.present(room).map_or(0, |(number, _)| number);
    let Some(room) = asked.wish.room() else { return false };
    let reads = matches!(asked.wish, Wish::History(..));
    let looks = reads || matches!(asked.wish, Wish::Who(_) | Wish::Whois(..));
    match refusal {
        Refusal::Limit(LimitFault::RoomsOfUser | LimitFault::Rooms) => {
            matches!(asked.wish, Wish::Join(_))
        }
        Refusal::Target(TargetFault::Room) => {
            let unknown = life == 0 || !same_log;
            unknown && !matches!(asked.wish, Wish::Join(_))
        }
        Refusal::State(StateFault::NotMember) => {
            !follows && (looks || matches!(asked.wish, Wish::Part(_)))
        }
        Refusal::Gate { have, need } => {
            let closed = !open || !same_log || present(room) > life;
            // With enough users the gate opens, and until that is safe nobody reads.
            let opening = journal
                .present(room)
                .is_none_or(|(_, life)| life.opened().is_none_or(|at| at > safe.get()));
            let held = have < u32::from(need) || opening;
            looks && closed && held && journal.had_threshold(room, need)
        }
        Refusal::Target(TargetFault::User) => {
            let Wish::Whois(room, user) = &asked.wish else { return false };
            !same_log || journal.was_away(room, user, safe)
        }
        Refusal::State(StateFault::OtherIncarnation) => {
            reads && (!same_log || present(room) > life)
        }
        Refusal::Store => reads,
        _ => false,
    }
}
