//! A host that errs: it tells the engine what cannot be, is refused, and nothing comes of it.

use chatcore::engine::{Input, Misuse, ReadOrder, ReadToken};
use chatcore::id::{ConnId, Nonce, Seq};
use chatcore::time::Span;
use chatcore::wire::{ClientFrame, Record, Refusal};

use crate::broken::{Broken, hold};
use crate::marks::Mark;
use crate::plan::{Slip, pick};
use crate::world::World;
use crate::world::store::Wanted;

/// What a slip breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    UnknownConnection,
    ConnectionReused,
    PersistedOutOfRange,
    UnknownRead,
    WrongRecords,
}

impl Rule {
    const fn of(misuse: &Misuse) -> Option<Self> {
        match misuse {
            Misuse::UnknownConnection(_) => Some(Self::UnknownConnection),
            Misuse::ConnectionReused(_) => Some(Self::ConnectionReused),
            Misuse::PersistedOutOfRange { .. } => Some(Self::PersistedOutOfRange),
            Misuse::UnknownRead => Some(Self::UnknownRead),
            Misuse::WrongRecords => Some(Self::WrongRecords),
            Misuse::WrongDuty | Misuse::Chain(_) | Misuse::EarlierGeneration { .. } | _ => None,
        }
    }
}

impl World<'_> {
    /// Errs, if there is a way to do so now, or at the next read: the engine says which rule was broken, says nothing
    /// else, and is as it was.
    pub(crate) fn err(&mut self, slip: Slip) -> Result<(), Broken> {
        let Some((input, rule)) = self.wrong_input(slip) else {
            self.memory.owes_wrong_records |= slip == Slip::WrongRecords;
            return Ok(());
        };
        let now = self.clock();
        let Some(server) = &mut self.server else { return Ok(()) };
        let engine = &mut server.engine;
        let said = format!("{input:?}");
        let before = (engine.head(), engine.committed(), engine.state_hash());
        let around = (engine.connection_count(), engine.next_timeout());
        let misuse = engine.handle(now, input).err();
        let found = misuse.as_ref().and_then(Rule::of);
        hold!(found == Some(rule), "a host that errs is told", "{said}: {misuse:?}");
        let output = engine.poll_output();
        hold!(output.is_none(), "an error of the host leads to nothing", "{said}: {output:?}");
        let after = (engine.head(), engine.committed(), engine.state_hash());
        let same = before == after && around == (engine.connection_count(), engine.next_timeout());
        hold!(same, "an error of the host changes nothing", "{said}");
        engine.check_invariants();
        self.hit(Mark::HostErred);
        if rule == Rule::WrongRecords {
            self.hit(Mark::HostGaveWrongRecords);
        }
        Ok(())
    }

    fn wrong_input(&mut self, slip: Slip) -> Option<(Input, Rule)> {
        let engine = &self.server.as_ref()?.engine;
        let (committed, head) = (engine.committed(), engine.head().index);
        match slip {
            Slip::Stranger => Some((self.stranger_says(), Rule::UnknownConnection)),
            Slip::Twice => {
                let conns: Vec<ConnId> = self.server.as_ref()?.buffers.keys().copied().collect();
                let conn = *conns.get(self.rng.usize(0..conns.len().max(1)))?;
                let nonce = Nonce::new([2; Nonce::LEN]);
                let input = Input::Connected {
                    conn,
                    nonce,
                    channel: None,
                    address: None,
                    waited: Span::ZERO,
                };
                Some((input, Rule::ConnectionReused))
            }
            Slip::SafeTooFar => {
                let through = head.saturating_add(self.rng.u64(1..3));
                Some((Input::Persisted { through }, Rule::PersistedOutOfRange))
            }
            Slip::SafeAgain => {
                let input = Input::Persisted { through: committed };
                Some((input, Rule::PersistedOutOfRange))
            }
            Slip::UnknownRead => Some((self.answer_again()?, Rule::UnknownRead)),
            Slip::WrongRecords => {
                let (token, records) = self.wrong_records()?;
                Some((Input::ReadDone { token, records }, Rule::WrongRecords))
            }
        }
    }

    fn stranger_says(&mut self) -> Input {
        let conn = ConnId::new(u64::MAX - self.rng.u64(0..9));
        match self.rng.u8(0..3) {
            0 => Input::Disconnected { conn },
            1 => Input::Condemned { conn, refusal: Refusal::Gone },
            _ => Input::Frame { conn, frame: ClientFrame::hello() },
        }
    }

    fn answer_again(&mut self) -> Option<Input> {
        let token = self.server.as_ref()?.answered?;
        let done = self.rng.bool();
        let records = Vec::new();
        Some(if done { Input::ReadDone { token, records } } else { Input::ReadFailed { token } })
    }

    /// Records for a read that is under way, and not those alone that it asked for.
    fn wrong_records(&mut self) -> Option<(ReadToken, Vec<Record>)> {
        let server = self.server.as_ref()?;
        let (token, wanted) = server.reads.iter().next().map(|(t, it)| (*t, it.clone()))?;
        let Wanted { from, to, .. } = wanted;
        let read = |from: Seq, to: Seq| {
            let order = ReadOrder::Forward;
            self.disk.read(&Wanted { from, to, order, ..wanted.clone() }, usize::MAX)
        };
        let asked = read(from, to);
        let before = (from > Seq::ZERO.next()).then(|| read(from.previous(), to));
        let beyond = read(from, to.next());
        let beyond = (beyond.len() > asked.len()).then_some(beyond);
        let hole = (asked.len() > 2).then(|| without_second(asked.clone()));
        let elsewhere = with_first(asked.clone(), |record| {
            record.room = "no-room-of-anybody".parse().expect("a plain word is a room's name");
        });
        let in_another_life =
            with_first(asked, |record| record.incarnation = record.incarnation.next());
        let ways: Vec<Vec<Record>> = [before, beyond, hole, elsewhere, in_another_life]
            .into_iter()
            .flatten()
            .filter(|records| !records.is_empty())
            .collect();
        (!ways.is_empty()).then(|| (token, pick(&mut self.rng, &ways).clone()))
    }
}

fn without_second(mut records: Vec<Record>) -> Vec<Record> {
    records.remove(1);
    records
}

fn with_first(mut records: Vec<Record>, change: impl FnOnce(&mut Record)) -> Option<Vec<Record>> {
    change(records.first_mut()?);
    Some(records)
}
