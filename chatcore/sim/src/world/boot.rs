//! How the server begins, and whether what it begins with is what was.

use chatcore::engine::{Archive, Config, Engine, Input, Output};
use chatcore::id::{Digest, Generation, Index, LogId, PublicKey, Threshold};
use chatcore::log::{Change, Entry, Founding, OperatorRule};
use chatcore::time::Now;

use crate::broken::{Broken, hold};
use crate::marks::Mark;
use crate::model::Model;
use crate::plan::OperatorOptions;
use crate::world::World;
use crate::world::client::{key_of, name_of};
use crate::world::disk::Disk;
use crate::world::server::Server;
use crate::world::twin::{Twin, are_same};
use crate::world::visit::Visit;

/// A state of the engine, and where in which journal it was.
#[derive(Debug)]
pub(crate) struct Inspected {
    log: usize,
    index: Index,
    hash: Digest,
    snapshot: Vec<u8>,
}

impl World<'_> {
    pub(crate) fn config(&self) -> Config {
        Config {
            limits: self.plan.options.limits.clone(),
            archive: self.plan.options.archive,
            generation: Generation::ZERO.next(),
        }
    }

    fn founding(&self) -> Founding {
        let mut log_id = [7; LogId::LEN];
        log_id[..8].copy_from_slice(&self.boot.to_be_bytes());
        let threshold = Threshold::new(self.plan.options.threshold).unwrap_or_default();
        let server_key = PublicKey::new([9; PublicKey::LEN]);
        let operator = self.plan.options.operator.map(|operator| match operator {
            OperatorOptions::Name(user) => OperatorRule::Name(name_of(user)),
            OperatorOptions::Key(user) => OperatorRule::Key(key_of(user)),
        });
        let operators = operator.into_iter().collect();
        Founding { log_id: LogId::new(log_id), server_key, threshold, operators }
    }

    /// The server is started: it goes on where the journal ends, or begins a new one.
    pub(crate) fn start_server(&mut self, boot: u64) -> Result<(), Broken> {
        if boot != self.boot || self.server.is_some() {
            return Ok(());
        }
        if self.disk.written() == Index::ZERO {
            return self.found_server();
        }
        self.restore_server()
    }

    fn found_server(&mut self) -> Result<(), Broken> {
        let (founding, config, now) = (self.founding(), self.config(), self.clock());
        self.note(|| format!("the server founds journal {}", founding.log_id));
        self.witness.founded();
        self.logs.insert(self.boot, self.witness.log());
        self.model = Some(Model::new(&config, &founding, now));
        let mut engine =
            Engine::found(founding, config, now).expect("drawn limits must be in range");
        self.off.engine(&mut engine);
        self.server =
            Some(Server::new(self.boot, engine, self.plan.options.shards, self.off, self.now));
        self.take_outputs().map(drop)
    }

    fn restore_server(&mut self) -> Result<(), Broken> {
        let (config, now) = (self.config(), self.clock());
        let back = self.rng.usize(0..3);
        let carried = self.carried.take().filter(|_| self.plan.options.archive == Archive::None);
        let mut engine = match carried {
            Some(bytes) => Engine::restore(&bytes, [], config, now)
                .map_err(|error| Broken::new("a snapshot can be restored", error.to_string()))?,
            None => restore(&self.disk, back, config, now)?,
        };
        self.off.engine(&mut engine);
        let head = self.disk.written();
        hold!(engine.head().index == head, "a restart keeps the journal", "{head}");
        self.mark_restored(back, head);
        let twin = self.make_twin(&engine)?;
        self.note(|| format!("the server restores entry {head}"));
        self.logs.insert(self.boot, self.witness.log());
        if let Some(model) = &mut self.model {
            model.restart(head, now);
        }
        if self.disk.after(Index::ZERO).last().is_some_and(|entry| entry.header.at > now.wall) {
            self.hit(Mark::RestartInThePast);
        }
        let mut server =
            Server::new(self.boot, engine, self.plan.options.shards, self.off, self.now);
        server.twin = Some(twin);
        self.server = Some(server);
        self.mark_restart();
        self.take_outputs()?;
        self.troubles.is_full = self.now < self.troubles.full_until;
        if self.troubles.is_full { self.input(Input::StoreFull) } else { Ok(()) }
    }

    /// From the newest checkpoint, or where so many cannot be used, from an older one or from none.
    fn mark_restored(&mut self, back: usize, head: Index) {
        let used = self.disk.checkpoint_at(back).map(|(index, _)| *index);
        if used.is_some_and(|index| index < head) {
            self.hit(Mark::RestoredWithTail);
        }
        if self.disk.checkpoint_at(0).is_none() || back == 0 {
            return;
        }
        let with =
            used.map_or_else(|| "no checkpoint".to_owned(), |index| format!("that of {index}"));
        self.note(|| format!("  newer checkpoints cannot be used: it goes on with {with}"));
        let is_older = used.is_some();
        self.hit(if is_older { Mark::OlderCheckpoint } else { Mark::NoCheckpoint });
    }

    /// An engine made another way has to be the same, and to do the same.
    fn make_twin(&self, engine: &Engine) -> Result<Twin, Broken> {
        let (config, now) = (self.config(), self.clock());
        let snapshot = engine.snapshot();
        let snapshot = snapshot.ok_or_else(|| Broken::new("a restart is level", "no snapshot"))?;
        let mut twin = Engine::restore(&snapshot, [], config, now)
            .map_err(|error| Broken::new("a snapshot can be restored", error.to_string()))?;
        self.off.engine(&mut twin);
        let entries = self.disk.after(Index::ZERO).iter().map(|entry| Entry::clone(entry));
        let mut replayed = Engine::replay(entries, self.config(), now)
            .map_err(|error| Broken::new("a journal can be replayed", error.to_string()))?;
        self.off.engine(&mut replayed);
        for other in [&twin, &replayed] {
            let same = other.state_hash() == engine.state_hash() && other.head() == engine.head();
            hold!(same, "restoring and replaying agree", "at {:?}", engine.head());
        }
        let same = replayed.snapshot().as_ref() == Some(&snapshot);
        let archived = self.plan.options.archive == Archive::Store;
        hold!(same || !archived, "restoring and replaying agree", "{:?}", engine.head());
        let is_exact = !archived || self.plan.options.limits.window_bytes == 0;
        Ok(Twin::new(twin, is_exact))
    }

    /// Checks what ties the parts of the engine together.
    pub(crate) fn check_whole(&mut self) -> Result<(), Broken> {
        let Some(server) = &mut self.server else { return Ok(()) };
        server.engine.check_invariants();
        let count = server.engine.connection_count();
        hold!(count == server.buffers.len(), "the engine knows every connection", "{count}");
        server.check_memory()
    }

    /// Makes the engine again from its snapshot, if it can give one.
    pub(crate) fn inspect(&mut self) -> Result<(), Broken> {
        let (config, now) = (self.config(), self.clock());
        let Some(server) = self.server.as_ref().filter(|server| server.is_level()) else {
            return Ok(());
        };
        self.due_inspection = false;
        let Some(bytes) = server.engine.snapshot() else { return Ok(()) };
        let again = Engine::restore(&bytes, [], config, now)
            .map_err(|error| Broken::new("a snapshot can be restored", error.to_string()))?;
        let same = again.state_hash() == server.engine.state_hash()
            && again.head() == server.engine.head()
            && again.snapshot().as_ref() == Some(&bytes);
        hold!(same, "a restored engine is the one that was saved", "{:?}", again.head());
        let chain = self.model.as_mut().map(Model::head);
        hold!(chain == Some(again.head()), "the chain is the one of the rules", "{chain:?}");
        let (index, hash) = (again.head().index, again.state_hash());
        self.check_goes_on(Inspected { log: self.witness.log(), index, hash, snapshot: bytes })
    }

    /// An engine restored from here, and one restored from the last inspection and the entries
    /// since then, say the same to the same visitor.
    fn check_goes_on(&mut self, here: Inspected) -> Result<(), Broken> {
        if self.plan.options.archive == Archive::None {
            return Ok(());
        }
        let (log, index, hash) = (here.log, here.index, here.hash);
        let before = self.inspected.replace(here);
        let Some(before) = before.filter(|it| it.log == log && it.index < index) else {
            return Ok(());
        };
        let mut since = self.disk.after(before.index).iter();
        let posted = since.any(|entry| matches!(entry.change, Change::Posted { .. }));
        hold!(!posted || hash != before.hash, "the state hash is that of the state", "{hash}");
        let Some(here) = &self.inspected else { return Ok(()) };
        let (one, other) = (self.visit(here, index)?, self.visit(&before, index)?);
        let first = one.iter().zip(&other).find(|(one, other)| !are_same(one, other));
        let same = first.is_none() && one.len() == other.len();
        let from = before.index;
        hold!(same, "a restored engine goes on like the other", "{from} to {index}: {first:?}");
        self.hit(Mark::TwoRestored);
        Ok(())
    }

    /// What the engine of a state and of the entries after it, up to `through`, says to a visitor.
    fn visit(&self, state: &Inspected, through: Index) -> Result<Vec<Output>, Broken> {
        let mut config = self.config();
        // Which records are in memory depends on the way there; only held ones are, then.
        config.limits.window_bytes = 0;
        let now = self.clock();
        let tail = self.disk.after(state.index).iter();
        let tail = tail.take_while(|entry| entry.header.index <= through);
        let tail = tail.map(|entry| Entry::clone(entry));
        let mut engine = Engine::restore(&state.snapshot, tail, config, now)
            .map_err(|error| Broken::new("a snapshot can be restored", error.to_string()))?;
        self.off.engine(&mut engine);
        let (slot, room) = (&self.slots[0], &self.rooms[0]);
        Ok(Visit::new(&self.disk, now, (&slot.name, slot.key), room).to(&mut engine).outputs)
    }

    /// The whole journal, replayed, gives the state that was lived through.
    pub(crate) fn check_replay(&self) -> Result<(), Broken> {
        let Some(server) = &self.server else { return Ok(()) };
        let entries = self.disk.after(Index::ZERO).iter().map(|entry| Entry::clone(entry));
        let replayed = Engine::replay(entries, self.config(), self.clock())
            .map_err(|error| Broken::new("a journal can be replayed", error.to_string()))?;
        let same = replayed.state_hash() == server.engine.state_hash()
            && replayed.head() == server.engine.head();
        hold!(same, "a replay gives the state that was lived through", "{:?}", replayed.head());
        Ok(())
    }
}

/// The engine of what is on a disk, from the newest checkpoint but so many.
fn restore(disk: &Disk, back: usize, config: Config, now: Now) -> Result<Engine, Broken> {
    let copies = |after: Index| disk.after(after).iter().map(|entry| Entry::clone(entry));
    let restored = match disk.checkpoint_at(back) {
        Some((index, bytes)) => Engine::restore(bytes, copies(*index), config, now),
        None => Engine::replay(copies(Index::ZERO), config, now),
    };
    restored.map_err(|error| Broken::new("what is on the disk can be restored", error.to_string()))
}
