//! Random operations over several users and rooms, and what must hold whatever they are.

use std::collections::{BTreeMap, BTreeSet};

use chatcore::engine::{Archive, Engine, Input, RestoreError, SNAPSHOT_VERSION};
use chatcore::log::{ChainError, Change, Entry};
use chatcore::time::{Span, Timestamp};
use chatcore::wire::*;
use proptest::prelude::*;

use crate::rig::{Persisting, Rig, Setup, after, post, reset};

const USERS: [&str; 4] = ["ana", "bob", "cem", "dov"];
const ROOMS: [&str; 2] = ["lobby", "attic"];

#[derive(Clone, Debug)]
enum Step {
    Connect(usize),
    Join(usize, usize),
    Part(usize, usize),
    Post(usize, usize, usize),
    Resend(usize, u64),
    Reset(usize, usize, u16),
    Leave(usize),
    Lose(usize),
    Stall(usize),
    Resume(usize),
    Look(usize, usize),
    Pass(u64),
    JumpWall(u64),
    Persist(usize),
    Hold,
    Fill,
    Free,
    Sicken,
    Heal,
}

fn step() -> impl Strategy<Value = Step> {
    let (user, room) = (0..USERS.len(), 0..ROOMS.len());
    prop_oneof![
        4 => user.clone().prop_map(Step::Connect),
        4 => (user.clone(), room.clone()).prop_map(|(user, room)| Step::Join(user, room)),
        1 => (user.clone(), room.clone()).prop_map(|(user, room)| Step::Part(user, room)),
        8 => (user.clone(), room.clone(), 0..3_usize).prop_map(|(u, r, n)| Step::Post(u, r, n)),
        2 => (user.clone(), 1..9_u64).prop_map(|(user, back)| Step::Resend(user, back)),
        1 => (user.clone(), room.clone(), 1..4_u16).prop_map(|(u, r, n)| Step::Reset(u, r, n)),
        1 => user.clone().prop_map(Step::Leave),
        2 => user.clone().prop_map(Step::Lose),
        1 => user.clone().prop_map(Step::Stall),
        2 => user.clone().prop_map(Step::Resume),
        1 => (user, room).prop_map(|(user, room)| Step::Look(user, room)),
        1 => (0..40_u64).prop_map(Step::Pass),
        1 => (0..2_000_000_000_000_u64).prop_map(Step::JumpWall),
        3 => (1..9_usize).prop_map(Step::Persist),
        1 => Just(Step::Hold),
        1 => Just(Step::Fill),
        2 => Just(Step::Free),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    proptest::collection::vec(step(), 1..80)
}

/// As [`steps`], before a store that cannot read now and then.
fn steps_before_an_ill_store() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![8 => step(), 1 => Just(Step::Sicken), 1 => Just(Step::Heal)];
    proptest::collection::vec(step, 1..80)
}

/// A run: the rig, and what its clients remember between their connections.
struct Run {
    rig: Rig,
    /// The last record a user has of a room: (life, seq).
    cursors: BTreeMap<(usize, usize), (u64, u64)>,
    sent: BTreeMap<usize, Vec<Command>>,
    /// What each connection was given, with the user and where each join began.
    frames: Vec<(usize, Vec<ServerFrame>)>,
    texts: u64,
    /// Whether the store is full.
    full: bool,
}

impl Run {
    fn new(setup: Setup) -> Self {
        let rig = setup.rig();
        let (cursors, sent) = (BTreeMap::new(), BTreeMap::new());
        Self { rig, cursors, sent, frames: Vec::new(), texts: 0, full: false }
    }

    fn of(setup: Setup, steps: &[Step]) -> Self {
        let mut run = Self::new(setup);
        steps.iter().for_each(|step| run.step(step));
        run.settle();
        run
    }

    fn is_online(&self, user: usize) -> bool {
        self.rig.peers.get(USERS[user]).is_some_and(|peer| !peer.closed)
    }

    fn put_away(&mut self, user: usize) {
        let Some(peer) = self.rig.peers.remove(USERS[user]) else { return };
        for frame in &peer.frames {
            if let ServerFrame::Record(record) = frame {
                let room = ROOMS.iter().position(|room| *room == record.room.as_ref()).unwrap();
                let place = (record.incarnation.get(), record.seq.get());
                self.cursors.insert((user, room), place);
            }
        }
        self.frames.push((user, peer.frames));
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Connect(user) if !self.is_online(user) => {
                self.put_away(user);
                self.rig.login(USERS[user]);
            }
            Step::Join(user, room) if self.is_online(user) => {
                let (life, seq) = self.cursors.get(&(user, room)).copied().unwrap_or((1, 0));
                self.rig.join_from(USERS[user], ROOMS[room], after(life, seq));
            }
            Step::Part(user, room) if self.is_online(user) => {
                self.rig.part(USERS[user], ROOMS[room]);
            }
            Step::Post(user, room, size) if self.is_online(user) => {
                self.texts += 1;
                let text = format!("{} {}", self.texts, "x".repeat(size * 900));
                self.command(user, post(ROOMS[room], &text));
            }
            Step::Reset(user, room, threshold) if self.is_online(user) => {
                self.command(user, reset(ROOMS[room], threshold));
            }
            Step::Resend(user, back) if self.is_online(user) => self.resend(user, back),
            Step::Leave(user) if self.is_online(user) => self.rig.leave(USERS[user]),
            Step::Lose(user) if self.is_online(user) => self.rig.lose(USERS[user]),
            Step::Stall(user) if self.is_online(user) => self.rig.stall(USERS[user]),
            Step::Resume(user) if self.is_online(user) => self.rig.resume(USERS[user]),
            Step::Look(user, room) if self.is_online(user) => {
                self.rig.who(USERS[user], ROOMS[room]);
                self.rig.history(USERS[user], ROOMS[room], None, 20);
            }
            Step::Pass(secs) => self.rig.pass_secs(secs),
            Step::JumpWall(wall) => self.rig.now.wall = Timestamp::new(wall).unwrap(),
            Step::Persist(count) => {
                self.rig.persist_some(count);
                self.rig.drive();
            }
            Step::Hold => self.toggle_persisting(),
            Step::Fill => self.fill(true),
            Step::Free => self.fill(false),
            Step::Sicken => self.rig.ill = true,
            Step::Heal => self.rig.ill = false,
            _ => {}
        }
    }

    fn toggle_persisting(&mut self) {
        self.rig.persisting = match self.rig.persisting {
            Persisting::AtOnce => Persisting::Held,
            Persisting::Held => Persisting::AtOnce,
        };
        self.rig.drive();
    }

    fn fill(&mut self, full: bool) {
        self.full = full;
        self.rig.input(if full { Input::StoreFull } else { Input::StoreFree });
    }

    fn command(&mut self, user: usize, command: Command) {
        let sent = self.sent.entry(user).or_default();
        let counter = u64::try_from(sent.len() + 1).unwrap();
        // Resets are rare enough never to be refused in passing, which would use no counter.
        if !self.full {
            sent.push(command.clone());
        }
        self.rig.submit(USERS[user], counter, command);
    }

    fn resend(&mut self, user: usize, back: u64) {
        let sent = self.sent.get(&user).map_or(&[][..], Vec::as_slice);
        let Some(place) = sent.len().checked_sub(usize::try_from(back).unwrap()) else { return };
        let (counter, command) = (u64::try_from(place + 1).unwrap(), sent[place].clone());
        self.rig.submit(USERS[user], counter, command);
    }

    /// Everything becomes safe, and everybody who is connected reads to the end.
    fn settle(&mut self) {
        self.rig.persisting = Persisting::AtOnce;
        self.fill(false);
        self.rig.drive();
        for (user, name) in USERS.iter().enumerate() {
            if self.is_online(user) {
                self.rig.resume(name);
            }
        }
        // What the store could not read is asked for again after a second.
        self.rig.ill = false;
        self.rig.pass_secs(1);
    }

    fn disconnect_all(&mut self) {
        for (user, name) in USERS.iter().enumerate() {
            if self.is_online(user) {
                self.rig.lose(name);
            }
            self.put_away(user);
        }
    }

    /// The same people before another engine, nobody connected.
    fn branch(&self, engine: Engine) -> Self {
        let mut other = Self::new(self.rig.setup.clone());
        other.rig.now = self.rig.now;
        other.rig.entries.clone_from(&self.rig.entries);
        other.rig.safe = self.rig.safe;
        other.rig.next_conn = self.rig.next_conn;
        other.rig.adopt_opened(&self.rig);
        other.rig.replace_engine(engine);
        other.cursors = self.cursors.clone();
        other.sent = self.sent.clone();
        other.texts = self.texts;
        other
    }

    fn go_on(&mut self, steps: &[Step]) {
        self.rig.persisting = Persisting::AtOnce;
        steps.iter().for_each(|step| self.step(step));
        self.settle();
    }

    fn all_frames(&self) -> Vec<(usize, Vec<ServerFrame>)> {
        let mut all = self.frames.clone();
        for (user, name) in USERS.iter().enumerate() {
            if let Some(peer) = self.rig.peers.get(*name) {
                all.push((user, peer.frames.clone()));
            }
        }
        all
    }
}

/// A naive reading of the journal: what each life of each room says, and whether it opened.
#[derive(Default)]
struct Model {
    logs: BTreeMap<(String, u64), Vec<String>>,
    opened: BTreeSet<(String, u64)>,
}

impl Model {
    fn of<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> Self {
        let mut model = Self::default();
        for entry in entries {
            model.read(&entry.change, entry.header.at.get());
        }
        model
    }

    fn read(&mut self, change: &Change, at: u64) {
        let (room, life, shown) = match change {
            Change::Joined { room, incarnation, user, .. } => {
                (room, incarnation, format!("+{user}"))
            }
            Change::Left { room, incarnation, user, .. } => (room, incarnation, format!("-{user}")),
            Change::Posted { room, incarnation, from, text, .. } => {
                (room, incarnation, format!("{from}: {}", text.as_str()))
            }
            Change::GateOpened { room, incarnation } => {
                assert!(self.opened.insert((room.to_string(), incarnation.get())));
                return;
            }
            _ => return,
        };
        let log = self.logs.entry((room.to_string(), life.get())).or_default();
        log.push(format!("{at} {shown}"));
    }

    /// Every connection got of every room what its log says: from where it began, without holes,
    /// once, in order.
    fn check(&self, frames: &[ServerFrame]) {
        let mut next: BTreeMap<String, (u64, u64)> = BTreeMap::new();
        for frame in frames {
            match frame {
                ServerFrame::Answer { answer: Answer::Joined(joined), .. } => {
                    let place = (joined.gate.incarnation.get(), joined.after.get() + 1);
                    next.insert(joined.room.to_string(), place);
                }
                ServerFrame::Reset { room, incarnation, .. } => {
                    next.insert(room.to_string(), (incarnation.get(), 1));
                }
                ServerFrame::Record(record) => {
                    let room = record.room.to_string();
                    let life = record.incarnation.get();
                    assert_eq!(next[&room], (life, record.seq.get()), "the next record of {room}");
                    next.insert(room.clone(), (life, record.seq.get() + 1));
                    assert!(self.opened.contains(&(room.clone(), life)));
                    let place = usize::try_from(record.seq.get()).unwrap() - 1;
                    assert_eq!(self.logs[&(room, life)][place], line_of(record));
                }
                ServerFrame::Gap { .. } => panic!("nothing is ever gone here"),
                _ => {}
            }
        }
    }
}

fn line_of(record: &Record) -> String {
    let line = match &record.body {
        RecordBody::Post { from, text } => format!("{from}: {}", text.as_str()),
        RecordBody::Joined { user } => format!("+{user}"),
        RecordBody::Left { user } => format!("-{user}"),
    };
    format!("{} {line}", record.at.get())
}

/// At rest everybody who follows an open room is at its end.
fn check_complete(run: &Run, model: &Model) {
    for name in USERS {
        let Some(peer) = run.rig.peers.get(name).filter(|peer| !peer.closed) else { continue };
        for room in ROOMS {
            let mut place = None;
            for frame in &peer.frames {
                match frame {
                    ServerFrame::Answer { answer: Answer::Joined(joined), .. }
                        if joined.room.as_ref() == room =>
                    {
                        place = Some((joined.gate.incarnation.get(), joined.after.get()));
                    }
                    ServerFrame::Answer { answer: Answer::Parted { room: parted }, .. }
                        if parted.as_ref() == room =>
                    {
                        place = None;
                    }
                    ServerFrame::Reset { room: gone, incarnation, .. } if gone.as_ref() == room => {
                        place = Some((incarnation.get(), 0));
                    }
                    ServerFrame::Record(record) if record.room.as_ref() == room => {
                        place = Some((record.incarnation.get(), record.seq.get()));
                    }
                    _ => {}
                }
            }
            let Some((life, seq)) = place else { continue };
            let key = (room.to_owned(), life);
            let log = model.logs.get(&key).map_or(0, Vec::len);
            let expected = if model.opened.contains(&key) { log } else { 0 };
            assert_eq!(usize::try_from(seq).unwrap(), expected, "{name} at the end of {room}");
        }
    }
}

/// What each connection was given, each room's records and the answers apart: how these are mixed,
/// and how many notices of a gate are skipped, depends on when a connection takes bytes.
fn apart(run: &Run) -> Vec<(usize, BTreeMap<String, Vec<ServerFrame>>)> {
    let mut all = Vec::new();
    for (user, frames) in run.all_frames() {
        let mut apart: BTreeMap<String, Vec<ServerFrame>> = BTreeMap::new();
        for frame in frames {
            let room = match &frame {
                ServerFrame::Gate { .. } => continue,
                ServerFrame::Record(record) => record.room.to_string(),
                ServerFrame::Reset { room, .. } => room.to_string(),
                _ => String::new(),
            };
            apart.entry(room).or_default().push(frame);
        }
        all.push((user, apart));
    }
    all
}

/// As [`apart`] without the answers: pages of history may be shorter when less is in memory, and
/// answers from the store come when they are read.
fn records(run: &Run) -> Vec<(usize, BTreeMap<String, Vec<ServerFrame>>)> {
    let mut apart = apart(run);
    apart.iter_mut().for_each(|(_, rooms)| drop(rooms.remove("")));
    apart
}

fn stored(window_bytes: u64) -> Setup {
    let mut setup = Setup::limits(|limits| limits.window_bytes = window_bytes);
    setup.archive = Archive::Store;
    setup
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..Default::default() })]

    #[test]
    fn every_follower_reads_what_the_journal_says(steps in steps(), piece in 1..4_000_usize) {
        let run = Run::of(Setup { piece, shards: 2, ..Setup::default() }, &steps);
        let model = Model::of(run.rig.entries.iter().map(AsRef::as_ref));
        for (_, frames) in run.all_frames() {
            model.check(&frames);
        }
        check_complete(&run, &model);
    }

    #[test]
    fn reader_before_an_ill_store_misses_nothing(steps in steps_before_an_ill_store()) {
        let run = Run::of(Setup { shards: 2, ..stored(0) }, &steps);
        let model = Model::of(run.rig.entries.iter().map(AsRef::as_ref));
        for (_, frames) in run.all_frames() {
            model.check(&frames);
        }
        check_complete(&run, &model);
    }

    #[test]
    fn shards_and_pieces_make_no_difference(steps in steps(), piece in 1..400_usize) {
        let one = Run::of(Setup::default(), &steps);
        for (shards, piece, always_blocked) in [(2, usize::MAX, false), (3, piece, true)] {
            let setup = Setup { shards, piece, always_blocked, ..Setup::default() };
            let other = Run::of(setup, &steps);
            prop_assert_eq!(&one.rig.entries, &other.rig.entries);
            prop_assert_eq!(apart(&one), apart(&other));
        }
    }

    #[test]
    fn outputs_taken_late_are_the_outputs_taken_early(steps in steps()) {
        let early = Run::of(Setup::default(), &steps);
        let late = Run::of(Setup { drains_early: false, ..Setup::default() }, &steps);
        prop_assert_eq!(&early.rig.entries, &late.rig.entries);
        prop_assert_eq!(early.all_frames(), late.all_frames());
        prop_assert_eq!(early.rig.events, late.rig.events);
    }

    #[test]
    fn snapshot_restores_the_same_engine(steps in steps(), more in steps()) {
        let mut run = Run::of(Setup::default(), &steps);
        run.disconnect_all();
        run.rig.drive();
        let bytes = run.rig.engine.snapshot().unwrap();
        let config = run.rig.setup.config();
        let restored = Engine::restore(&bytes, [], config, run.rig.now).unwrap();
        prop_assert_eq!(restored.state_hash(), run.rig.engine.state_hash());
        prop_assert_eq!(restored.head(), run.rig.engine.head());
        prop_assert_eq!(restored.snapshot().unwrap(), bytes);
        // Both go on: those who were in a room have a fresh grace in the restored one, so the
        // grace of the other has to begin now, too.
        run.rig.pass_secs(20);
        let bytes = run.rig.engine.snapshot().unwrap();
        let restored = Engine::restore(&bytes, [], run.rig.setup.config(), run.rig.now).unwrap();
        let mut other = run.branch(restored);
        run.frames.clear();
        let begin = run.rig.entries.len();
        // Rates belong to a process.
        let more: Vec<Step> =
            more.into_iter().filter(|step| !matches!(step, Step::Reset(..))).collect();
        for one in [&mut run, &mut other] {
            one.go_on(&more);
        }
        prop_assert_eq!(&run.rig.entries[begin..], &other.rig.entries[begin..]);
        prop_assert_eq!(apart(&run), apart(&other));
        prop_assert_eq!(run.rig.engine.state_hash(), other.rig.engine.state_hash());
    }

    #[test]
    fn snapshot_and_the_entries_after_it_give_the_engine_of_the_whole_journal(
        steps in steps(),
        more in steps(),
        place in any::<prop::sample::Index>(),
        setup in prop_oneof![Just(Setup::default()), Just(stored(0)), Just(stored(1 << 20))],
    ) {
        let config = setup.config();
        let mut run = Run::of(setup, &steps);
        run.disconnect_all();
        run.rig.drive();
        let entries: Vec<Entry> = run.rig.entries.iter().map(|entry| Entry::clone(entry)).collect();
        let (before, tail) = entries.split_at(1 + place.index(entries.len()));
        let replay = |entries: &[Entry]| {
            Engine::replay(entries.to_vec(), config.clone(), run.rig.now).unwrap()
        };
        let bytes = replay(before).snapshot().unwrap();
        let restored =
            Engine::restore(&bytes, tail.to_vec(), config.clone(), run.rig.now).unwrap();
        restored.check_invariants();
        for other in [&replay(&entries), &run.rig.engine] {
            prop_assert_eq!(restored.state_hash(), other.state_hash());
            prop_assert_eq!(restored.head(), other.head());
            prop_assert_eq!(restored.committed(), other.committed());
            prop_assert_eq!(restored.snapshot(), other.snapshot());
        }
        let mut one = run.branch(replay(&entries));
        let mut other = run.branch(restored);
        for run in [&mut one, &mut other] {
            run.go_on(&more);
        }
        prop_assert_eq!(&one.rig.entries, &other.rig.entries);
        prop_assert_eq!(records(&one), records(&other));
        check_complete(&other, &Model::of(other.rig.entries.iter().map(AsRef::as_ref)));
        prop_assert_eq!(one.rig.engine.snapshot(), other.rig.engine.snapshot());
    }

    #[test]
    fn replay_of_the_entries_gives_the_same_engine(steps in steps()) {
        let run = Run::of(Setup::default(), &steps);
        let entries = run.rig.entries.iter().map(|entry| Entry::clone(entry));
        let again = Engine::replay(entries, run.rig.setup.config(), run.rig.now).unwrap();
        again.check_invariants();
        prop_assert_eq!(again.state_hash(), run.rig.engine.state_hash());
        prop_assert_eq!(again.head(), run.rig.engine.head());
        prop_assert_eq!(again.snapshot(), run.rig.engine.snapshot());
    }

    #[test]
    fn tiny_window_and_a_store_give_every_reader_the_same(steps in steps()) {
        let large = Run::of(stored(1 << 20), &steps);
        for window_bytes in [0, 3_000] {
            let tiny = Run::of(Setup { shards: 1, ..stored(window_bytes) }, &steps);
            prop_assert_eq!(&large.rig.entries, &tiny.rig.entries);
            let model = Model::of(tiny.rig.entries.iter().map(AsRef::as_ref));
            for (_, frames) in tiny.all_frames() {
                model.check(&frames);
            }
            check_complete(&tiny, &model);
            prop_assert_eq!(records(&large), records(&tiny));
        }
    }
}

#[test]
fn snapshot_with_any_bit_flipped_is_refused() {
    let mut run = Run::new(Setup::default());
    for step in [Step::Connect(0), Step::Join(0, 0), Step::Post(0, 0, 0)] {
        run.step(&step);
    }
    let bytes = run.rig.engine.snapshot().unwrap();
    let config = run.rig.setup.config();
    let restore = |bytes: &[u8]| Engine::restore(bytes, [], config.clone(), run.rig.now);
    assert!(restore(&bytes).is_ok());
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(restore(&flipped).is_err(), "bit {bit}");
    }
    for len in 0..bytes.len() {
        assert!(restore(&bytes[..len]).is_err(), "cut to {len}");
    }
    let mut newer = bytes.clone();
    let found = SNAPSHOT_VERSION + 1;
    newer[8..10].copy_from_slice(&found.to_be_bytes());
    assert_eq!(restore(&newer).unwrap_err(), RestoreError::Version { found });
}

/// What is wrong with `tail` behind a snapshot of the first two of `entries`.
fn fault_of_tail(entries: &[Entry], tail: &[Entry]) -> Option<RestoreError> {
    let (config, now) = (Setup::default().config(), Setup::default().rig().now);
    let engine = Engine::replay(entries[..2].to_vec(), config.clone(), now).unwrap();
    Engine::restore(&engine.snapshot().unwrap(), tail.to_vec(), config, now).err()
}

#[test]
fn entry_that_does_not_follow_the_snapshot_is_refused() {
    let mut rig = Setup::default().rig();
    rig.join("ana");
    let entries: Vec<Entry> = rig.entries.iter().map(|entry| Entry::clone(entry)).collect();
    assert_eq!(fault_of_tail(&entries, &entries[2..]), None);
    let index = |place: usize| entries[place].header.index;
    let order = |last: usize, found: usize| {
        let (last, found) = (index(last), index(found));
        Some(RestoreError::Chain(ChainError::Index { last, found }))
    };
    assert_eq!(fault_of_tail(&entries, &entries[1..]), order(1, 1), "at the snapshot's head");
    assert_eq!(fault_of_tail(&entries, &entries), order(1, 0), "before it");
    assert_eq!(fault_of_tail(&entries, &entries[3..]), order(1, 3), "with a hole");
    let twice = [entries[2].clone(), entries[2].clone()];
    assert_eq!(fault_of_tail(&entries, &twice), order(2, 2), "twice");
    let edited = Entry { change: entries[3].change.clone(), ..entries[2].clone() };
    let digest = ChainError::Digest { index: index(2) };
    assert_eq!(fault_of_tail(&entries, &[edited]), Some(RestoreError::Chain(digest)));
}

#[test]
fn gate_that_opened_after_the_snapshot_shows_what_was_held_before_it() {
    for archive in [Archive::Store, Archive::None] {
        let mut rig = Setup { archive, ..Setup::default() }.rig();
        rig.join("ana");
        for number in 0..9 {
            rig.say("ana", &format!("held {number}"));
        }
        let bytes = rig.engine.snapshot().unwrap();
        let safe = rig.entries.len();
        rig.say("ana", "held after");
        rig.join("bob");
        rig.say("ana", "open");
        let heard = rig.heard("bob")[3..].to_vec();
        let tail = rig.entries[safe..].iter().map(|entry| Entry::clone(entry));
        let restored = Engine::restore(&bytes, tail, rig.setup.config(), rig.now).unwrap();
        rig.replace_engine(restored);
        rig.join("bob");
        assert_eq!(heard.len(), 13);
        assert_eq!(rig.heard("bob")[3..], heard);
        assert_eq!(rig.reads > 0, archive == Archive::Store);
    }
}

#[test]
fn gate_that_opens_after_a_restore_shows_what_the_store_holds() {
    for archive in [Archive::Store, Archive::None] {
        let mut rig = Setup { threshold: 3, archive, ..Setup::default() }.rig();
        rig.join("ana");
        for number in 0..9 {
            rig.say("ana", &format!("held {number}"));
        }
        rig.lose("ana");
        let bytes = rig.engine.snapshot().unwrap();
        let restored = Engine::restore(&bytes, [], rig.setup.config(), rig.now).unwrap();
        rig.replace_engine(restored);
        rig.join("ana");
        rig.say("ana", "held after");
        rig.join("bob");
        rig.join("cem");
        let expected = rig.heard("cem")[3..].to_vec();
        assert_eq!(expected.len(), 13);
        assert_eq!(expected[10], "lobby 1:11 ana: held after");
        assert!(rig.heard("ana").ends_with(&expected));
        assert!(rig.heard("bob").ends_with(&expected));
        rig.history("bob", "lobby", Some(5), 2);
        let page = "history lobby [lobby 1:3 ana: held 1, lobby 1:4 ana: held 2]";
        assert_eq!(rig.heard("bob"), [page]);
        assert_eq!(rig.reads > 0, archive == Archive::Store);
    }
}

#[test]
fn member_who_does_not_come_back_after_a_restore_leaves_after_a_grace() {
    let mut rig = Setup::default().rig();
    rig.join("ana");
    rig.join("bob");
    let bytes = rig.engine.snapshot().unwrap();
    let restored = Engine::restore(&bytes, [], rig.setup.config(), rig.now).unwrap();
    rig.replace_engine(restored);
    rig.login("ana");
    rig.join_from("ana", "lobby", after(1, 2));
    rig.forget();
    rig.pass(Span::from_secs(20));
    rig.expect(&["ana < gate lobby 1/2 open", "ana < lobby 1:3 -bob"]);
}
