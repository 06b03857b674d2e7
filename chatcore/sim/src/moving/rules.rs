//! What must hold in every state, and what must be reached.

use super::world::{FIRST, Happened, SECOND, State};
use super::{Bounds, Moving};

/// Something that is so in a state or not.
pub(super) struct Fact {
    pub(super) name: &'static str,
    pub(super) holds: fn(&Moving, &State) -> bool,
    /// Whether it can be reached at all within such bounds.
    pub(super) is_possible: fn(&Bounds) -> bool,
}

/// One state in so many is followed until the chat goes on: that takes longer than anything else.
const MENDED_EVERY: u64 = 16;

pub(super) const RULES: [Fact; 4] = [
    Fact {
        name: "what is committed is one sequence",
        holds: |_, state| !state.has(Happened::Fork),
        is_possible: |_| true,
    },
    Fact {
        name: "the owner has all that is committed",
        holds: |_, state| state.has_all(state.record().owner),
        is_possible: |_| true,
    },
    Fact {
        name: "the standby has all that is committed",
        holds: |_, state| state.record().standby.is_none_or(|standby| state.has_all(standby)),
        is_possible: |_| true,
    },
    Fact {
        name: "once nothing more happens to it, the chat goes on",
        holds: |model, state| {
            let is_looked_at = state.digest().is_multiple_of(MENDED_EVERY);
            !is_looked_at
                || !state.can_go_on()
                || state.clone().goes_on(model.bounds.people, model.off)
        },
        is_possible: |_| true,
    },
];

pub(super) const SITUATIONS: [Fact; 9] = [
    Fact {
        name: "a chat moved, and went on",
        holds: |model, state| {
            state.is_owned_by(SECOND) && state.all_said(model) && !state.has_fault()
        },
        is_possible: |_| true,
    },
    Fact {
        name: "a chat moved there and back, and went on",
        holds: |model, state| {
            state.was_owned_by(SECOND) && state.is_owned_by(FIRST) && state.all_said(model)
        },
        is_possible: |bounds| bounds.changes >= 3,
    },
    Fact {
        name: "a standby was given up, and its owner went on",
        holds: |model, state| state.had_standby() && state.is_alone(FIRST) && state.all_said(model),
        is_possible: |_| true,
    },
    Fact {
        name: "an owner that was frozen went on",
        holds: |model, state| state.has(Happened::Thaw) && state.all_said(model),
        is_possible: |_| true,
    },
    Fact {
        name: "an owner of before forgot what it had never committed, and stands by",
        holds: |_, state| state.has(Happened::Cut) && state.is_stood_by(FIRST),
        is_possible: |bounds| bounds.people >= 2 && bounds.changes >= 3,
    },
    Fact {
        name: "a standby took over from who died, and went on",
        holds: |model, state| {
            state.deaths > 0 && state.is_owned_by(SECOND) && state.all_said(model)
        },
        is_possible: |bounds| bounds.deaths > 0,
    },
    Fact {
        name: "who has nothing stands by in place of who died",
        holds: |_, state| state.is_reborn_standby(),
        is_possible: |bounds| bounds.deaths > 0,
    },
    Fact {
        name: "an owner came back, and went on",
        holds: |model, state| {
            state.returns > 0 && !state.was_owned_by(SECOND) && state.all_said(model)
        },
        is_possible: |bounds| bounds.returns > 0,
    },
    Fact {
        name: "a standby whose state differs was given up",
        holds: |model, state| {
            state.has(Happened::Difference) && state.is_alone(FIRST) && state.all_said(model)
        },
        is_possible: |bounds| bounds.differs,
    },
];
