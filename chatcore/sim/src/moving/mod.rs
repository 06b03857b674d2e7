//! Every way in which processes can hand a chat to each other, as far as small numbers go.
//!
//! The nodes and the register are those of [`chatcore::migration`]; the rest is a world in which any
//! message may be lost, late, doubled or overtaken, any record may be read late, storing takes as long
//! as it likes, anybody may be suspected at any time, a process may end and come back with what it had
//! stored, and another one may die for good, with one that has nothing in its place. All states of this
//! world are visited.
//!
//! | module | what it is |
//! |---|---|
//! | `world` | the processes, what they do with what a node wants, and what may happen next |
//! | `rules` | what must hold in every state, and what must be reached |

mod rules;
mod world;

use std::fmt;

use stateright::{Checker, HasDiscoveries, Model, Path, Property};

use crate::off::Off;
use rules::{RULES, SITUATIONS};
use world::{Action, NAMES, State};

/// How far the world goes.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// How many people say one line each.
    pub people: u8,
    /// Changes of the record.
    pub changes: usize,
    /// How many processes die for good.
    pub deaths: u8,
    /// How often a process ends and comes back.
    pub returns: u8,
    /// Whether the state of a process becomes another one than it should.
    pub differs: bool,
}

/// What a run came to.
#[derive(Debug)]
pub struct Found {
    /// States that differ.
    pub states: usize,
    /// The rule that was broken, and the way there.
    pub broken: Option<(&'static str, String)>,
    /// A situation that was never reached.
    pub missed: Option<&'static str>,
}

/// Visits every state within these bounds.
pub fn check(bounds: Bounds, off: Off, threads: usize) -> Found {
    let builder = Moving { bounds, off }.checker().threads(threads);
    let checker = builder.finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let states = checker.unique_state_count();
    let mut discoveries = checker.discoveries();
    let broken = RULES
        .iter()
        .find_map(|rule| discoveries.remove(rule.name).map(|path| (rule.name, told(path))));
    let wanted = SITUATIONS.iter().filter(|situation| (situation.is_possible)(&bounds));
    let missed =
        wanted.map(|situation| situation.name).find(|name| !discoveries.contains_key(name));
    Found { states, broken, missed }
}

/// Visits states of a small world until a rule is broken for want of the one that is switched off.
pub fn refute(off: Off, threads: usize) -> Found {
    let bounds = Bounds { people: 2, changes: 2, deaths: 0, returns: 1, differs: false };
    check(bounds, off, threads)
}

/// What happened, in order; the processes by their names.
fn told(path: Path<State, Action>) -> String {
    let actions = path.into_actions().into_iter().map(|action| format!("{action:?}"));
    let told = actions.collect::<Vec<_>>().join("; ");
    NAMES
        .iter()
        .fold(told, |told, (number, name)| told.replace(&format!("{:?}", world::id(*number)), name))
}

impl Found {
    /// Whether every rule held, and everything that was to be reached was.
    pub const fn is_well(&self) -> bool {
        self.broken.is_none() && self.missed.is_none()
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { states, broken, missed } = self;
        match (broken, missed) {
            (Some((rule, way)), _) => write!(f, "{states} states: {rule}: {way}"),
            (None, Some(situation)) => write!(f, "{states} states: {situation}: never reached"),
            (None, None) => write!(f, "{states} states, every rule held"),
        }
    }
}

#[derive(Clone, Copy)]
struct Moving {
    bounds: Bounds,
    off: Off,
}

impl Model for Moving {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State::new(self.off)]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        state.actions(&self.bounds, actions);
    }

    fn next_state(&self, before: &State, action: Action) -> Option<State> {
        let mut state = before.clone();
        state.act(action, self.off);
        state.tidy(self.off);
        (state != *before).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let rules = RULES.iter().map(|rule| Property::always(rule.name, rule.holds));
        let wanted = SITUATIONS.iter().filter(|situation| (situation.is_possible)(&self.bounds));
        let wanted = wanted.map(|situation| Property::sometimes(situation.name, situation.holds));
        rules.chain(wanted).collect()
    }

    fn within_boundary(&self, state: &State) -> bool {
        state.changes() <= self.bounds.changes
    }
}
