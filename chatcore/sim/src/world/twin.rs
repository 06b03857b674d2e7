//! A second engine beside the first after a restart: made another way, it does the same.

use std::collections::VecDeque;

use chatcore::engine::{Directive, Engine, Input, Output};
use chatcore::id::ByteCount;
use chatcore::time::Now;
use chatcore::wire::{Answer, Refusal, ServerFrame};

use crate::broken::{Broken, hold};
use crate::world::disk::Disk;
use crate::world::store::Wanted;

/// The rule.
const ALIKE: &str = "a restored engine goes on like the other";

/// Inputs that both are given after a restart.
const INPUTS: u32 = 300;

/// Records that one read gives.
const READ_RECORDS: usize = 100;

/// The second engine.
#[derive(Debug)]
pub(crate) struct Twin {
    engine: Engine,
    inputs_left: u32,
    /// Whether both have the same records in memory. If not, the twin reads by itself what it lacks,
    /// and what comes of where records are is not compared.
    is_exact: bool,
    said: VecDeque<Output>,
}

impl Twin {
    pub(crate) const fn new(engine: Engine, is_exact: bool) -> Self {
        Self { engine, inputs_left: INPUTS, is_exact, said: VecDeque::new() }
    }

    /// Whether it has been there long enough.
    pub(crate) const fn is_over(&self) -> bool {
        self.inputs_left == 0
    }

    /// Is told what the first one is told.
    pub(crate) fn input(&mut self, now: Now, input: &Input, disk: &Disk) -> Result<(), Broken> {
        self.inputs_left = self.inputs_left.saturating_sub(1);
        let answers_read = matches!(input, Input::ReadDone { .. } | Input::ReadFailed { .. });
        if answers_read && !self.is_exact {
            return Ok(());
        }
        let mut inputs = VecDeque::from([input.clone()]);
        while let Some(input) = inputs.pop_front() {
            let result = self.engine.handle(now, input);
            hold!(result.is_ok(), ALIKE, "{result:?}");
            while let Some(output) = self.engine.poll_output() {
                match self.answer(&output, disk) {
                    Some(answer) => inputs.push_back(answer),
                    None if self.is_exact || is_told_alike(&output) => self.said.push_back(output),
                    None => {}
                }
            }
        }
        Ok(())
    }

    /// What it wants to read by itself.
    fn answer(&self, output: &Output, disk: &Disk) -> Option<Input> {
        let Output::Read { token, room, incarnation, from, to, order } = output else {
            return None;
        };
        if self.is_exact {
            return None;
        }
        let (incarnation, from, to, order) = (*incarnation, *from, *to, *order);
        let wanted = Wanted { room: room.clone(), incarnation, from, to, order };
        let records = disk.read(&wanted, READ_RECORDS);
        Some(Input::ReadDone { token: *token, records })
    }

    /// The first one says something.
    pub(crate) fn compare(&mut self, output: &Output) -> Result<(), Broken> {
        if !self.is_exact && !is_told_alike(output) {
            return Ok(());
        }
        let other = self.said.pop_front();
        let same = other.as_ref().is_some_and(|other| are_same(other, output));
        hold!(same, ALIKE, "{output:?} or {other:?}");
        Ok(())
    }

    /// The first one has nothing more to say.
    pub(crate) fn compare_end(&mut self) -> Result<(), Broken> {
        let more = self.said.pop_front();
        hold!(more.is_none(), ALIKE, "and says {more:?}");
        Ok(())
    }
}

/// Whether an output does not depend on which records are in memory.
pub(crate) const fn is_told_alike(output: &Output) -> bool {
    match output {
        Output::Read { .. } | Output::Deliver(Directive::Page { .. }) => false,
        Output::Deliver(Directive::Send { frame: ServerFrame::Answer { answer, .. }, .. }) => {
            // A page that is being read is asked for again.
            !matches!(
                answer,
                Answer::History { .. }
                    | Answer::Refused(Refusal::Busy { .. } | Refusal::Store | Refusal::State(_))
            )
        }
        Output::Deliver(_)
        | Output::Persist(_)
        | Output::Verify { .. }
        | Output::Sign { .. }
        | Output::Report { .. }
        | Output::Moderated { .. }
        | Output::Event(_) => true,
    }
}

/// Whether two outputs are the same, but for which records are still in memory.
pub(crate) fn are_same(one: &Output, other: &Output) -> bool {
    let apart = (apart_from_memory(one), apart_from_memory(other));
    one == other || (apart.0.is_some() && apart.0 == apart.1)
}

/// An output that tells something of the records in memory, without that.
fn apart_from_memory(output: &Output) -> Option<Output> {
    let mut output = output.clone();
    match &mut output {
        Output::Deliver(Directive::Visible { chunk, .. }) => *chunk = None,
        Output::Deliver(Directive::Send { frame: ServerFrame::Status(status), .. }) => {
            status.memory = ByteCount::ZERO;
        }
        Output::Deliver(_)
        | Output::Persist(_)
        | Output::Verify { .. }
        | Output::Sign { .. }
        | Output::Report { .. }
        | Output::Moderated { .. }
        | Output::Read { .. }
        | Output::Event(_) => return None,
    }
    Some(output)
}
