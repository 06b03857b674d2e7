//! Every way in which two processes can hand a chat to each other, as far as small numbers go.
//!
//! The nodes and the register are those of [`chatcore::migration`]; the rest is a world in which any
//! message may be lost, late, doubled or overtaken, any record may be read late, anybody may be
//! suspected at any time, and one process may die for good. All its states are visited.
//!
//! A message that was sent stays there for ever and may arrive at any time, any number of times: that
//! is losing, doubling and reordering in one.

use std::collections::BTreeSet;
use std::fmt;

use chatcore::id::{BootId, Digest, Generation, Index, LogId, PublicKey};
use chatcore::migration::{Input, Message, Node, NodeId, Output, Proposal, Record, Standing};
use stateright::{Checker, HasDiscoveries, Model, Path, Property};

use crate::off::Off;

/// How far the world goes.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// How many people say one line each.
    pub people: u8,
    /// Changes of the record.
    pub changes: usize,
    /// Whether a process dies.
    pub dies: bool,
}

/// What a run came to.
#[derive(Debug)]
pub struct Found {
    /// States that differ.
    pub states: usize,
    /// The rule that was broken, or the situation that was not reached, and the way there.
    pub broken: Option<(&'static str, String)>,
}

/// Visits every state within these bounds.
pub fn check(bounds: Bounds, off: Off, threads: usize) -> Found {
    let builder = Moving { bounds, off }.checker().threads(threads);
    let checker = builder.finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let states = checker.unique_state_count();
    let discoveries = checker.discoveries();
    let is_rule = |name: &str| RULES.iter().any(|(rule, _)| *rule == name);
    let broken = discoveries.into_iter().find(|(name, _)| is_rule(name));
    let broken = broken.map(|(name, path)| (name, told(path)));
    let wanted = SITUATIONS.iter().filter(|(name, _)| bounds.dies || !is_of_deaths(name));
    let missed = wanted.into_iter().find(|(name, _)| checker.discovery(name).is_none());
    let missed = missed.map(|(name, _)| (*name, "was never reached".to_owned()));
    Found { states, broken: broken.or(missed) }
}

/// What happened, in order.
fn told(path: Path<State, Action>) -> String {
    let actions = path.into_actions().into_iter().map(|action| format!("{action:?}"));
    actions.collect::<Vec<_>>().join("; ")
}

/// Something that is so in a state or not, by name.
type Fact = (&'static str, fn(&Moving, &State) -> bool);

/// What must hold in every state.
const RULES: [Fact; 3] = [
    ("what is committed is one sequence", |_, state| !state.forked),
    ("the owner has all that is committed", |_, state| state.has_all(state.record().owner)),
    ("the standby has all that is committed", |_, state| {
        state.record().standby.is_none_or(|standby| state.has_all(standby))
    }),
];

/// What must be reached.
const SITUATIONS: [Fact; 5] = [
    ("a chat moved, and went on", |model, state| {
        state.record().owner == ids()[1] && state.all_said(model) && !state.died
    }),
    ("a chat moved there and back, and went on", |model, state| {
        let moved = state.records.iter().any(|record| record.owner == ids()[1]);
        moved && state.record().owner == ids()[0] && state.all_said(model)
    }),
    ("a standby took over from who died, and went on", |model, state| {
        state.died && state.record().owner == ids()[1] && state.all_said(model)
    }),
    ("a standby was given up, and its owner went on", |model, state| {
        let had = state.records.iter().any(|record| record.standby.is_some());
        had && state.record().owner == ids()[0]
            && state.record().standby.is_none()
            && state.all_said(model)
    }),
    ("an owner that was frozen went on", |model, state| state.thawed && state.all_said(model)),
];

fn is_of_deaths(situation: &str) -> bool {
    situation.contains("died")
}

struct Moving {
    bounds: Bounds,
    off: Off,
}

/// An entry: who said it. Two journals differ by the order in which people came.
type Line = u8;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Machine {
    node: Node<Line>,
    log: Vec<Line>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Letter {
    from: NodeId,
    to: NodeId,
    message: Message<Line>,
}

/// A snapshot that is on its way.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Copied {
    owner: NodeId,
    generation: Generation,
    log: Vec<Line>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    /// `None` for who died.
    machines: [Option<Machine>; 2],
    /// Every record there was, the present one last: a reader may be given any.
    records: Vec<Record>,
    letters: BTreeSet<Letter>,
    copies: BTreeSet<Copied>,
    proposals: BTreeSet<Proposal>,
    /// What anybody committed, and so was shown to people.
    shown: Vec<Line>,
    /// Whether somebody committed something else.
    forked: bool,
    died: bool,
    thawed: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Action {
    Say(usize, Line),
    Deliver(Letter),
    Copy(usize),
    TakeCopy(usize, Copied),
    Write(Proposal),
    Read(usize, usize),
    Join(usize),
    Drop(usize),
    Freeze(usize),
    Thaw(usize),
    Suspect(usize),
    Die(usize),
}

fn ids() -> [NodeId; 2] {
    [1, 2].map(|number| NodeId {
        key: PublicKey::new([number; PublicKey::LEN]),
        boot: BootId::new([0; BootId::LEN]),
    })
}

fn place_of(id: NodeId) -> usize {
    usize::from(id != ids()[0])
}

/// Stands in for a digest of the state.
fn digest_of(log: &[Line]) -> Digest {
    let mut bytes = [0; Digest::LEN];
    for (place, line) in bytes.iter_mut().zip(log) {
        *place = line + 1;
    }
    Digest::new(bytes)
}

fn index(count: usize) -> Index {
    Index::ZERO.saturating_add(count.try_into().unwrap_or(u64::MAX))
}

fn count(index: Index) -> usize {
    usize::try_from(index.get()).unwrap_or(usize::MAX)
}

impl State {
    fn record(&self) -> &Record {
        self.records.last().expect("there is always a record")
    }

    fn has_all(&self, id: NodeId) -> bool {
        let machine = self.machines[place_of(id)].as_ref();
        machine.is_none_or(|machine| machine.log.starts_with(&self.shown))
    }

    fn all_said(&self, model: &Moving) -> bool {
        self.shown.len() == usize::from(model.bounds.people)
    }

    /// Tells a node something, and does what it wants.
    fn tell(&mut self, place: usize, input: Input<Line>) {
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            let Some(machine) = &mut self.machines[place] else { return };
            machine.node.handle(input);
            while let Some(machine) = &mut self.machines[place]
                && let Some(output) = machine.node.poll_output()
            {
                inputs.extend(self.carry_out(place, output));
            }
        }
        self.send_entries(place);
    }

    fn carry_out(&mut self, place: usize, output: Output<Line>) -> Vec<Input<Line>> {
        let from = ids()[place];
        let Some(machine) = &mut self.machines[place] else { return Vec::new() };
        match output {
            Output::Send { to, message } => self.send(Letter { from, to, message }),
            Output::Propose(proposal) => {
                self.proposals.insert(proposal);
            }
            // The last one is handled first.
            Output::Put { index, entry } => {
                let place = count(index) - 1;
                if machine.log.get(place) == Some(&entry) {
                    return vec![Input::Had(index)];
                }
                machine.log.truncate(place);
                machine.log.push(entry);
                return vec![Input::Stored(index), Input::Appended(index)];
            }
            Output::Commit(through) => {
                let committed = &machine.log[..count(through)];
                let longer = committed.len().max(self.shown.len());
                let same = committed.iter().zip(&self.shown).all(|(one, other)| one == other);
                self.forked |= !same;
                if committed.len() == longer && same {
                    self.shown = committed.to_vec();
                }
            }
            Output::Compare { generation, state } => {
                let same = digest_of(&machine.log) == state;
                return vec![Input::Compared { generation, same }];
            }
            Output::Ask | Output::Differs => {}
        }
        Vec::new()
    }

    /// Of letters that say the same, only the one that says the most counts: what the others say
    /// follows from it.
    fn send(&mut self, letter: Letter) {
        self.letters.retain(|it| {
            (it.from, it.to) != (letter.from, letter.to) || !says_less(&it.message, &letter.message)
        });
        self.letters.insert(letter);
    }

    /// An owner sends all that its follower may lack.
    fn send_entries(&mut self, place: usize) {
        let Some(machine) = &self.machines[place] else { return };
        let Some((to, generation, stored)) = machine.node.follower() else { return };
        let entries = machine.log.iter().enumerate().skip(count(stored));
        let letters: Vec<Letter> = entries
            .map(|(at, entry)| {
                let committed = machine.node.committed();
                let index = index(at + 1);
                let message = Message::Entry { generation, index, entry: *entry, committed };
                Letter { from: ids()[place], to, message }
            })
            .collect();
        letters.into_iter().for_each(|letter| self.send(letter));
    }

    /// Forgets what will do nothing wherever and whenever it arrives, as generations never go back:
    /// but not what only a rule that is switched off makes do nothing.
    fn tidy(&mut self, off: Off) {
        let machines = &self.machines;
        let known = |id| machines[place_of(id)].as_ref().map(|machine| machine.node.generation());
        self.letters.retain(|letter| {
            let is_taken = off.name() == Some("standby-takes-old")
                && matches!(letter.message, Message::Entry { .. });
            known(letter.to)
                .is_some_and(|known| is_taken || generation_of(&letter.message) >= known)
        });
        self.copies.retain(|copy| {
            known(ids()[1 - place_of(copy.owner)]).is_some_and(|known| copy.generation >= known)
        });
        let present = self.record().generation;
        let is_blind = off.name() == Some("blind-register");
        self.proposals.retain(|proposal| is_blind || proposal.expect >= present);
    }
}

/// Whether all that a message says is said by a later one, too.
fn says_less(one: &Message<Line>, later: &Message<Line>) -> bool {
    match (one, later) {
        (
            Message::Stored { generation, through },
            Message::Stored { generation: same, through: more },
        ) => generation == same && through <= more,
        (
            Message::Entry { generation, index, entry, committed },
            Message::Entry { generation: same, index: at, entry: it, committed: more },
        ) => (generation, index, entry) == (same, at, it) && committed <= more,
        _ => false,
    }
}

const fn generation_of(message: &Message<Line>) -> Generation {
    match message {
        Message::Entry { generation, .. }
        | Message::Stored { generation, .. }
        | Message::Release { generation, .. }
        | Message::Refuse { generation } => *generation,
    }
}

impl Moving {
    fn actions_of(&self, state: &State, place: usize, actions: &mut Vec<Action>) {
        let Some(machine) = &state.machines[place] else { return };
        let node = &machine.node;
        if node.admits() {
            let says = (0..self.bounds.people).filter(|who| !machine.log.contains(who));
            actions.extend(says.map(|who| Action::Say(place, who)));
        }
        let known = node.record().map_or(Generation::ZERO, |record| record.generation);
        let newer = state.records.iter().enumerate().filter(|(_, it)| it.generation > known);
        actions.extend(newer.map(|(at, _)| Action::Read(place, at)));
        match node.standing() {
            Standing::Idle => {
                let of_other = state.copies.iter().filter(|copy| copy.owner != ids()[place]);
                actions.extend(of_other.cloned().map(|copy| Action::TakeCopy(place, copy)));
            }
            Standing::Learner => {}
            Standing::Standby => actions.push(Action::Suspect(place)),
            Standing::Alone => actions.extend([Action::Copy(place), Action::Join(place)]),
            Standing::Joint => actions.push(Action::Drop(place)),
            Standing::Paired => actions.extend([Action::Drop(place), Action::Freeze(place)]),
            Standing::Frozen => actions.extend([Action::Drop(place), Action::Thaw(place)]),
        }
        if self.bounds.dies && !state.died {
            actions.push(Action::Die(place));
        }
    }

    fn write(&self, state: &mut State, mut proposal: Proposal) {
        if self.off.name() == Some("blind-register") {
            proposal.expect = state.record().generation;
            let Proposal { owner, standby, .. } = proposal;
            let (generation, log_id) = (state.record().generation.next(), state.record().log_id);
            state.records.push(Record { generation, log_id, owner, standby });
        } else if let Some(record) = state.record().after(&proposal) {
            state.records.push(record);
        }
    }
}

impl Model for Moving {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let [first, second] = ids();
        let record = Record {
            generation: Generation::ZERO.next(),
            log_id: LogId::new([0; LogId::LEN]),
            owner: first,
            standby: None,
        };
        let machine = |mut node: Node<Line>| {
            self.off.node(&mut node);
            Some(Machine { node, log: Vec::new() })
        };
        vec![State {
            machines: [
                machine(Node::owner(first, record, Index::ZERO)),
                machine(Node::idle(second)),
            ],
            records: vec![record],
            letters: BTreeSet::new(),
            copies: BTreeSet::new(),
            proposals: BTreeSet::new(),
            shown: Vec::new(),
            forked: false,
            died: false,
            thawed: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        (0..2).for_each(|place| self.actions_of(state, place, actions));
        let alive = |id| state.machines[place_of(id)].is_some();
        let letters = state.letters.iter().filter(|letter| alive(letter.to));
        actions.extend(letters.cloned().map(Action::Deliver));
        actions.extend(state.proposals.iter().copied().map(Action::Write));
    }

    fn next_state(&self, before: &State, action: Action) -> Option<State> {
        let mut state = before.clone();
        match action {
            // Whoever is not heard says it again, to whom it may concern; what a journal has it does not
            // take again.
            Action::Say(place, line) => {
                let machine = state.machines[place].as_mut()?;
                machine.log.push(line);
                let end = index(machine.log.len());
                state.tell(place, Input::Appended(end));
                state.tell(place, Input::Stored(end));
            }
            Action::Deliver(Letter { from, to, message }) => {
                state.tell(place_of(to), Input::Heard { from, message });
            }
            Action::Copy(place) => {
                let machine = state.machines[place].as_ref()?;
                let log = machine.log[..count(machine.node.committed())].to_vec();
                let generation = machine.node.record()?.generation;
                state.copies.insert(Copied { owner: ids()[place], generation, log });
            }
            Action::TakeCopy(place, Copied { owner, generation, log }) => {
                let through = index(log.len());
                state.machines[place].as_mut()?.log = log;
                state.tell(place, Input::Copied { owner, generation, through });
            }
            Action::Write(proposal) => self.write(&mut state, proposal),
            Action::Read(place, at) => {
                let record = *state.records.get(at)?;
                state.tell(place, Input::Told(record));
            }
            Action::Join(place) => state.tell(place, Input::Join(ids()[1 - place])),
            Action::Drop(place) => state.tell(place, Input::Drop),
            Action::Freeze(place) => {
                let digest = digest_of(&state.machines[place].as_ref()?.log);
                state.tell(place, Input::Freeze { state: digest });
            }
            Action::Thaw(place) => {
                state.tell(place, Input::Thaw);
                state.thawed = true;
            }
            Action::Suspect(place) => state.tell(place, Input::Suspect),
            Action::Die(place) => {
                state.machines[place] = None;
                state.died = true;
            }
        }
        state.tidy(self.off);
        (state != *before).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let rules = RULES.iter().map(|(name, holds)| Property::always(name, *holds));
        let wanted = SITUATIONS.iter().filter(|(name, _)| self.bounds.dies || !is_of_deaths(name));
        let wanted = wanted.map(|(name, reached)| Property::sometimes(name, *reached));
        rules.chain(wanted).collect()
    }

    fn within_boundary(&self, state: &State) -> bool {
        state.records.len() <= self.bounds.changes + 1
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.broken {
            None => write!(f, "{} states, every rule held", self.states),
            Some((rule, way)) => write!(f, "{} states: {rule}: {way}", self.states),
        }
    }
}
