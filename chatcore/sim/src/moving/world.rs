//! The processes, what they do with what a node wants, and what may happen next.
//!
//! A message that was sent stays there and may arrive at any time, any number of times: that is losing,
//! doubling and reordering in one. What could do nothing any more, wherever and whenever it arrived, is
//! forgotten, so that equal states are found to be equal.

use std::collections::{BTreeSet, VecDeque};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use chatcore::id::{BootId, Digest, Generation, Index, LogId, PublicKey};
use chatcore::migration::{Input, Message, Node, NodeId, Output, Proposal, Record, Standing};

use super::{Bounds, Moving};
use crate::off::Off;

/// The two places where a process runs.
pub(super) const FIRST: usize = 0;
pub(super) const SECOND: usize = 1;

/// Rounds in which all that can be done is done, after which a chat must have gone on.
const ROUNDS: usize = 12;

/// An entry: who said it. Two journals differ by the order in which people came.
type Line = u8;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Machine {
    id: NodeId,
    node: Node<Line>,
    log: Vec<Line>,
    /// How many of them are on the disk.
    durable: usize,
    /// How often entries were forgotten.
    cuts: u64,
    /// What was being stored when entries were forgotten, and is told too late.
    late: Option<(u64, usize)>,
    /// What it was asked to compare, with the outcome that it has yet to tell.
    checks: BTreeSet<(Generation, Index, bool)>,
    /// Whom it copies from, if it does.
    copies: Option<(NodeId, Generation)>,
    /// The oldest record that it may still be told of.
    floor: usize,
    /// Whether its state is not what its entries say.
    differs: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Letter {
    from: NodeId,
    to: NodeId,
    message: Message<Line>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct State {
    /// `None` for who died.
    machines: [Option<Machine>; 2],
    /// Every record there was, the present one last: a reader may be given any.
    records: Vec<Record>,
    letters: BTreeSet<Letter>,
    proposals: BTreeSet<Proposal>,
    /// What anybody committed, and so was shown to people.
    shown: Vec<Line>,
    happened: BTreeSet<Happened>,
    pub(super) deaths: u8,
    pub(super) returns: u8,
}

/// What rules and situations ask about, once it happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Happened {
    /// Somebody committed something else, or a follower took for committed what was not.
    Fork,
    /// An owner that was frozen was told to go on.
    Thaw,
    /// A follower forgot entries that were not its owner's.
    Cut,
    /// An owner heard that its standby has another state.
    Difference,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Somebody says something to an owner.
    Say(usize, Line),
    /// What a journal holds gets to its disk.
    Store(usize),
    /// What was stored before a cut is told after it.
    StoredLate(usize),
    /// What was compared is told.
    Checked(usize, Generation, Index, bool),
    Deliver(Letter),
    Learn(usize),
    Copy(usize),
    Write(Proposal),
    Read(usize, usize),
    Join(usize),
    Drop(usize),
    Freeze(usize),
    Thaw(usize),
    Suspect(usize),
    Differ(usize),
    /// A process ends, and begins again with what it had stored.
    Return(usize),
    Die(usize),
    /// A process that has nothing begins where one died.
    Begin(usize),
}

pub(super) fn id(number: u8) -> NodeId {
    let key = PublicKey::new([number; PublicKey::LEN]);
    NodeId { key, boot: BootId::new([0; BootId::LEN]) }
}

/// The process that begins where another one died.
const REBORN: u8 = 3;

/// What the processes are called when somebody is told of them.
pub(super) const NAMES: [(u8, &str); 3] = [(1, "S"), (2, "T"), (REBORN, "U")];

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

impl Machine {
    fn new(id: NodeId, mut node: Node<Line>, floor: usize, off: Off) -> Self {
        off.node(&mut node);
        Self {
            id,
            node,
            log: Vec::new(),
            durable: 0,
            cuts: 0,
            late: None,
            checks: BTreeSet::new(),
            copies: None,
            floor,
            differs: false,
        }
    }

    fn is_owner(&self) -> bool {
        match self.node.standing() {
            Standing::Alone | Standing::Joint | Standing::Paired | Standing::Frozen => true,
            Standing::Idle
            | Standing::Copying
            | Standing::Learner
            | Standing::Standby
            | Standing::Returning => false,
        }
    }

    fn cut(&mut self, after: Index, cuts: u64) {
        let (after, before) = (count(after), self.log.len());
        if self.durable < before && self.late.is_none() {
            self.late = Some((self.cuts, before));
        }
        self.log.truncate(after);
        (self.durable, self.cuts) = (self.durable.min(after), cuts);
    }

    /// It ends, and comes back with what it had stored.
    fn come_back(&mut self, floor: usize, off: Off) {
        self.log.truncate(self.durable);
        let committed = self.node.committed().min(index(self.durable));
        let mut node = Node::returning(self.id, index(self.durable), committed);
        off.node(&mut node);
        (self.node, self.floor, self.cuts) = (node, floor, 0);
        (self.late, self.copies) = (None, None);
        self.checks.clear();
    }
}

impl State {
    pub(super) fn new(off: Off) -> Self {
        let [first, second] = [1, 2].map(id);
        let record = Record {
            generation: Generation::ZERO.next(),
            log_id: LogId::new([0; LogId::LEN]),
            owner: first,
            standby: None,
        };
        let owner = Node::owner(first, record, Index::ZERO);
        Self {
            machines: [
                Some(Machine::new(first, owner, 0, off)),
                Some(Machine::new(second, Node::new(second), 0, off)),
            ],
            records: vec![record],
            letters: BTreeSet::new(),
            proposals: BTreeSet::new(),
            shown: Vec::new(),
            happened: BTreeSet::new(),
            deaths: 0,
            returns: 0,
        }
    }

    pub(super) fn record(&self) -> &Record {
        self.records.last().expect("there is always a record")
    }

    pub(super) fn changes(&self) -> usize {
        self.records.len() - 1
    }

    fn place_of(&self, id: NodeId) -> Option<usize> {
        self.machines.iter().position(|machine| machine.as_ref().is_some_and(|it| it.id == id))
    }

    fn machine_of(&self, id: NodeId) -> Option<&Machine> {
        self.machines.iter().flatten().find(|machine| machine.id == id)
    }

    fn is_at(&self, id: NodeId, place: usize) -> bool {
        self.place_of(id) == Some(place)
    }

    pub(super) fn has_all(&self, id: NodeId) -> bool {
        self.machine_of(id).is_none_or(|machine| machine.log.starts_with(&self.shown))
    }

    pub(super) fn all_said(&self, model: &Moving) -> bool {
        self.shown.len() == usize::from(model.bounds.people)
    }

    pub(super) fn has(&self, happened: Happened) -> bool {
        self.happened.contains(&happened)
    }

    pub(super) const fn has_fault(&self) -> bool {
        self.deaths > 0 || self.returns > 0
    }

    pub(super) fn is_owned_by(&self, place: usize) -> bool {
        self.is_at(self.record().owner, place)
    }

    pub(super) fn is_alone(&self, place: usize) -> bool {
        self.is_owned_by(place) && self.record().standby.is_none()
    }

    pub(super) fn is_stood_by(&self, place: usize) -> bool {
        self.record().standby.is_some_and(|standby| self.is_at(standby, place))
    }

    pub(super) fn was_owned_by(&self, place: usize) -> bool {
        self.records.iter().any(|record| self.is_at(record.owner, place))
    }

    pub(super) fn had_standby(&self) -> bool {
        self.records.iter().any(|record| record.standby.is_some())
    }

    pub(super) fn is_reborn_standby(&self) -> bool {
        self.record().standby == Some(id(REBORN))
    }

    /// Some number that tells states apart.
    pub(super) fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        hasher.finish()
    }

    /// Whether somebody lives who may own the chat.
    pub(super) fn can_go_on(&self) -> bool {
        let record = self.record();
        let lives = |id| self.machine_of(id).is_some();
        lives(record.owner) || record.standby.is_some_and(lives)
    }

    /// Tells a node something, and does what it wants.
    fn tell(&mut self, place: usize, input: Input<Line>) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
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

    fn carry_out(&mut self, place: usize, output: Output<Line>) -> Option<Input<Line>> {
        let machine = self.machines[place].as_mut()?;
        match output {
            Output::Send { to, message } => {
                let from = machine.id;
                self.send(Letter { from, to, message });
            }
            Output::Propose(proposal) => {
                self.proposals.insert(proposal);
            }
            Output::Copy { owner, generation, after } => {
                assert_eq!(count(after), machine.log.len(), "a copy goes on from what is there");
                machine.copies = Some((owner, generation));
            }
            Output::Check { generation, index, entry } => {
                let same = machine.log.get(count(index) - 1) == Some(&entry);
                machine.checks.insert((generation, index, same));
            }
            Output::Put { index, entry } => {
                assert_eq!(count(index), machine.log.len() + 1, "a follower appends what is next");
                machine.log.push(entry);
            }
            Output::Cut { after, cuts } => {
                machine.cut(after, cuts);
                self.happened.insert(Happened::Cut);
                return Some(Input::WasCut { cuts });
            }
            Output::Commit(through) => self.show(place, count(through)),
            Output::Compare { generation, through, state } => {
                assert_eq!(count(through), machine.log.len(), "the last state is compared");
                let same = !machine.differs && digest_of(&machine.log) == state;
                return Some(Input::Compared { generation, same });
            }
            Output::Differs => {
                self.happened.insert(Happened::Difference);
            }
            Output::Ask => {}
        }
        None
    }

    /// Somebody says that so many entries are committed. A follower only repeats it.
    fn show(&mut self, place: usize, through: usize) {
        let Some(machine) = &self.machines[place] else { return };
        let committed = &machine.log[..through];
        let is_same = committed.iter().zip(&self.shown).all(|(one, other)| one == other);
        let is_news = through > self.shown.len();
        if !is_same || (is_news && !machine.is_owner()) {
            self.happened.insert(Happened::Fork);
        } else if is_news {
            self.shown = committed.to_vec();
        }
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
        let Some((to, Some(stored))) = machine.node.follower() else { return };
        let (from, generation) = (machine.id, machine.node.generation());
        let committed = machine.node.committed();
        let entries = machine.log.iter().enumerate().skip(count(stored));
        let letters: Vec<Letter> = entries
            .map(|(at, entry)| {
                let index = index(at + 1);
                let message = Message::Entry { generation, index, entry: *entry, committed };
                Letter { from, to, message }
            })
            .collect();
        letters.into_iter().for_each(|letter| self.send(letter));
    }

    /// Forgets what will do nothing wherever and whenever it arrives, as generations never go back:
    /// but not what only a rule that is switched off makes do nothing.
    pub(super) fn tidy(&mut self, off: Off) {
        let (machines, records) = (&self.machines, &self.records);
        let known = |id| {
            let machine = machines.iter().flatten().find(|machine| machine.id == id)?;
            Some(machine.node.generation().max(records.get(machine.floor)?.generation))
        };
        let takes_old = off.name() == Some("standby-takes-old");
        self.letters.retain(|Letter { to, message, .. }| {
            let is_taken = takes_old && matches!(message, Message::Entry { .. });
            known(*to).is_some_and(|known| is_taken || message.generation() >= known)
        });
        let present = self.record().generation;
        let is_blind = off.name() == Some("blind-register");
        self.proposals.retain(|proposal| is_blind || proposal.expect >= present);
    }

    pub(super) fn actions(&self, bounds: &Bounds, actions: &mut Vec<Action>) {
        for place in [FIRST, SECOND] {
            match &self.machines[place] {
                Some(machine) => self.actions_of(machine, place, bounds, actions),
                None => actions.push(Action::Begin(place)),
            }
        }
        actions.extend(self.letters.iter().cloned().map(Action::Deliver));
        actions.extend(self.proposals.iter().copied().map(Action::Write));
    }

    fn actions_of(
        &self,
        machine: &Machine,
        place: usize,
        bounds: &Bounds,
        actions: &mut Vec<Action>,
    ) {
        let node = &machine.node;
        if node.admits() {
            let says = (0..bounds.people).filter(|who| !machine.log.contains(who));
            actions.extend(says.map(|who| Action::Say(place, who)));
        }
        if machine.durable < machine.log.len() {
            actions.push(Action::Store(place));
        }
        if machine.late.is_some() {
            actions.push(Action::StoredLate(place));
        }
        let checked = machine.checks.iter().copied();
        actions.extend(
            checked
                .map(|(generation, index, same)| Action::Checked(place, generation, index, same)),
        );
        let records = self.records.iter().enumerate().skip(machine.floor);
        let newer = records.filter(|(_, record)| record.generation > node.generation());
        actions.extend(newer.map(|(at, _)| Action::Read(place, at)));
        match node.standing() {
            Standing::Idle if node.record().is_some() => actions.push(Action::Learn(place)),
            Standing::Idle | Standing::Returning => {}
            Standing::Copying => actions.push(Action::Copy(place)),
            Standing::Learner | Standing::Standby => actions.push(Action::Suspect(place)),
            Standing::Alone => actions.push(Action::Join(place)),
            Standing::Joint => actions.push(Action::Drop(place)),
            Standing::Paired => actions.extend([Action::Drop(place), Action::Freeze(place)]),
            Standing::Frozen => actions.extend([Action::Drop(place), Action::Thaw(place)]),
        }
        if bounds.differs && !self.machines.iter().flatten().any(|machine| machine.differs) {
            actions.push(Action::Differ(place));
        }
        if self.returns < bounds.returns {
            actions.push(Action::Return(place));
        }
        if self.deaths < bounds.deaths {
            actions.push(Action::Die(place));
        }
    }

    pub(super) fn act(&mut self, action: Action, off: Off) {
        match action {
            // Whoever is not heard says it again, to whom it may concern; what a journal has it does not
            // take again.
            Action::Say(place, line) => {
                let Some(machine) = &mut self.machines[place] else { return };
                machine.log.push(line);
                let end = index(machine.log.len());
                self.tell(place, Input::Decided(end));
            }
            Action::Store(place) => self.store(place),
            Action::StoredLate(place) => {
                let Some(machine) = &mut self.machines[place] else { return };
                let Some((cuts, through)) = machine.late.take() else { return };
                self.tell(place, Input::Stored { cuts, through: index(through) });
            }
            Action::Checked(place, generation, index, same) => {
                let Some(machine) = &mut self.machines[place] else { return };
                machine.checks.remove(&(generation, index, same));
                self.tell(place, Input::Checked { generation, index, same });
            }
            Action::Deliver(Letter { from, to, message }) => {
                let Some(place) = self.place_of(to) else { return };
                self.tell(place, Input::Heard { from, message });
            }
            Action::Learn(place) => self.tell(place, Input::Learn),
            Action::Copy(place) => self.copy(place),
            Action::Write(proposal) => self.write(proposal, off),
            Action::Read(place, at) => {
                let Some(record) = self.records.get(at).copied() else { return };
                self.tell(place, Input::Told(record));
            }
            Action::Join(place) => {
                let other = self.machines[1 - place].as_ref();
                let learner = other.filter(|it| it.node.standing() == Standing::Learner);
                let Some(learner) = learner.map(|it| it.id) else { return };
                self.tell(place, Input::Join(learner));
            }
            Action::Drop(place) => self.tell(place, Input::Drop),
            Action::Freeze(place) => {
                let Some(machine) = &self.machines[place] else { return };
                let state = digest_of(&machine.log);
                self.tell(place, Input::Freeze { state });
            }
            Action::Thaw(place) => {
                self.tell(place, Input::Thaw);
                self.happened.insert(Happened::Thaw);
            }
            Action::Suspect(place) => self.tell(place, Input::Suspect),
            Action::Differ(place) => {
                self.machines[place].iter_mut().for_each(|machine| machine.differs = true);
            }
            Action::Return(place) => {
                let floor = self.changes();
                self.machines[place].iter_mut().for_each(|machine| machine.come_back(floor, off));
                self.returns += 1;
            }
            Action::Die(place) => {
                self.machines[place] = None;
                self.deaths += 1;
            }
            Action::Begin(place) => {
                let (id, floor) = (id(REBORN), self.changes());
                self.machines[place] = Some(Machine::new(id, Node::new(id), floor, off));
            }
        }
    }

    fn store(&mut self, place: usize) {
        let Some(machine) = &mut self.machines[place] else { return };
        machine.durable = machine.log.len();
        let (cuts, through) = (machine.cuts, index(machine.durable));
        self.tell(place, Input::Stored { cuts, through });
    }

    /// Who copies gets all that the owner knows to be committed.
    fn copy(&mut self, place: usize) {
        let copies = self.machines[place].as_ref().and_then(|machine| machine.copies);
        let Some((owner, generation)) = copies else { return };
        let Some(owner) = self.machine_of(owner).filter(|machine| machine.is_owner()) else {
            return;
        };
        let committed = owner.log[..count(owner.node.committed())].to_vec();
        let Some(machine) = &mut self.machines[place] else { return };
        if committed.len() > machine.log.len() {
            machine.log = committed;
        }
        (machine.durable, machine.copies) = (machine.log.len(), None);
        let through = index(machine.durable);
        self.tell(place, Input::Copied { generation, through });
    }

    fn write(&mut self, proposal: Proposal, off: Off) {
        let Proposal { owner, standby, .. } = proposal;
        let record = *self.record();
        let is_blind = off.name() == Some("blind-register");
        let lets = off.name() == Some("learner-takes-over") && proposal.expect == record.generation;
        let after = if is_blind || lets {
            Some(Record { generation: record.generation.next(), owner, standby, ..record })
        } else {
            record.after(&proposal)
        };
        self.records.extend(after);
    }

    /// Whether all is said after everybody did what they can for a while, though all that was said before
    /// is lost.
    pub(super) fn goes_on(mut self, people: u8, off: Off) -> bool {
        let is_done = |state: &Self| state.shown.len() == usize::from(people);
        // Nothing that was said arrives: what matters has to be said again.
        self.letters.clear();
        for _ in 0..ROUNDS {
            if is_done(&self) {
                return true;
            }
            [FIRST, SECOND].into_iter().for_each(|place| self.attend(place, people));
            let letters: Vec<Letter> = self.letters.iter().cloned().collect();
            for letter in letters {
                self.act(Action::Deliver(letter), off);
            }
            // What somebody proposed who died is lost with them: it might name nobody else.
            let lives = |proposal: &&Proposal| self.place_of(proposal.by).is_some();
            let proposals: Vec<Proposal> = self.proposals.iter().filter(lives).copied().collect();
            proposals.into_iter().for_each(|proposal| self.write(proposal, off));
            self.tidy(off);
        }
        is_done(&self)
    }

    /// An owner says to its follower that it is there.
    fn beat(&mut self, place: usize) {
        let Some(machine) = &self.machines[place] else { return };
        let Some((to, _)) = machine.node.follower() else { return };
        let (generation, committed) = (machine.node.generation(), machine.node.committed());
        let (from, message) = (machine.id, Message::Beat { generation, committed });
        self.send(Letter { from, to, message });
    }

    /// What a host does when nothing hinders it: it stores, looks at the register, goes on when it was
    /// frozen, gives up who is not there and takes over from who is not there.
    fn attend(&mut self, place: usize, people: u8) {
        self.store(place);
        let checks = self.machines[place].as_ref().map(|machine| machine.checks.clone());
        for (generation, index, same) in checks.into_iter().flatten() {
            self.act(Action::Checked(place, generation, index, same), Off::default());
        }
        self.tell(place, Input::Told(*self.record()));
        self.tell(place, Input::Thaw);
        let Some(machine) = &self.machines[place] else { return };
        let follower = machine.node.follower().map(|(node, _)| node);
        let follows = |node| {
            let standing = self.machine_of(node).map(|machine| machine.node.standing());
            matches!(standing, Some(Standing::Learner | Standing::Standby))
        };
        if follower.is_some_and(|node| !follows(node)) {
            self.tell(place, Input::Drop);
        }
        self.beat(place);
        let owner = self.record().owner;
        if self.machine_of(owner).is_none() {
            self.tell(place, Input::Suspect);
        }
        for line in 0..people {
            let Some(machine) = &self.machines[place] else { return };
            if machine.node.admits() && !machine.log.contains(&line) {
                self.act(Action::Say(place, line), Off::default());
            }
        }
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
