//! Whether a client that is told to wait does so.

use std::collections::BTreeSet;

use chatcore::id::{Counter, RequestId};
use chatcore::time::Span;
use chatcore::wire::{Answer, ClientFrame, Command, Question, Refusal, ServerFrame};

use crate::broken::{Broken, hold};

/// What one connection of a client was told to wait for. A new connection begins anew.
#[derive(Debug, Default)]
pub(crate) struct Waits {
    /// Questions that were asked and not answered.
    asked: Vec<(RequestId, Question)>,
    /// Questions that are not to be asked again before a time.
    held: Vec<(Question, u64)>,
    /// Resets that were sent: one that comes too often is refused for good.
    resets: BTreeSet<Counter>,
    /// No command is to be sent before this. A refusal that comes meanwhile changes nothing.
    commands: Option<u64>,
}

impl Waits {
    /// The client sends a frame.
    pub(crate) fn sends(&mut self, now: u64, frame: &ClientFrame) -> Result<(), Broken> {
        if let ClientFrame::Submit { counter, command } = frame {
            if matches!(command, Command::Reset { .. }) {
                self.resets.insert(*counter);
            }
            let until = self.commands.take().unwrap_or(0);
            hold!(now >= until, "a client waits as it is told", "{counter} at {now}, not {until}");
        }
        if let ClientFrame::Ask { request, question } = frame {
            self.held.retain(|(_, until)| *until > now);
            let early = self.held.iter().find(|(held, _)| held == question);
            hold!(early.is_none(), "a client waits as it is told", "{early:?} at {now}");
            self.asked.push((*request, question.clone()));
        }
        Ok(())
    }

    /// The client hears a frame.
    pub(crate) fn hears(&mut self, now: u64, frame: &ServerFrame) {
        if let ServerFrame::Refused { counter, refusal } = frame
            && let Some(wait) = wait_of(*refusal).or_else(|| patience_of(*refusal))
            && !(self.resets.contains(counter) && matches!(refusal, Refusal::Rate { .. }))
        {
            self.commands.get_or_insert(now + wait.as_millis());
        }
        let ServerFrame::Answer { request, answer } = frame else { return };
        let Some(place) = self.asked.iter().position(|(asked, _)| asked == request) else { return };
        let (_, question) = self.asked.swap_remove(place);
        if let Answer::Refused(refusal) = answer
            && let Some(wait) = wait_of(*refusal)
        {
            self.held.push((question, now + wait.as_millis()));
        }
    }
}

/// A full store names no time: a client then waits for as long as it likes.
fn patience_of(refusal: Refusal) -> Option<Span> {
    (refusal == Refusal::Store).then_some(Span::ZERO)
}

/// How long a refusal tells to wait.
pub(crate) const fn wait_of(refusal: Refusal) -> Option<Span> {
    if let Refusal::Rate { retry_ms } | Refusal::Busy { retry_ms } = refusal {
        return Some(retry_ms);
    }
    None
}
