//! How the server's store is asked, and what it answers when.

use std::sync::Arc;

use chatcore::engine::{Archive, Input, ReadOrder, ReadToken};
use chatcore::id::{Incarnation, Index, RequestId, Seq};
use chatcore::log::Entry;
use chatcore::text::RoomName;
use chatcore::wire::{Measure, Record};

use crate::broken::Broken;
use crate::marks::Mark;
use crate::plan::Slip;
use crate::world::World;
use crate::world::queue::Event;

/// How long the store tries to read what it cannot.
const GIVES_UP_AFTER: u64 = 1_000;

/// Records that the engine asked for.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) room: RoomName,
    pub(crate) incarnation: Incarnation,
    pub(crate) from: Seq,
    pub(crate) to: Seq,
    pub(crate) order: ReadOrder,
}

impl Wanted {
    /// Whether it is for a reader that lags, and not for a page of history.
    pub(crate) fn is_catching_up(&self) -> bool {
        self.order == ReadOrder::Forward
    }

    fn begins_like(&self, other: &Self) -> bool {
        (&self.room, self.incarnation, self.from, self.order)
            == (&other.room, other.incarnation, other.from, other.order)
    }
}

impl World<'_> {
    pub(crate) fn persist(&mut self, entry: Arc<Entry>) -> Result<(), Broken> {
        self.note(|| format!("  entry {} {:?}", entry.header.index, entry.change));
        self.digest_bytes(entry.header.digest.as_bytes());
        self.witness.appended(&entry)?;
        self.mark_entry(&entry);
        self.disk.write(entry);
        self.begin_sync();
        Ok(())
    }

    /// One sync at a time: it covers everything that was written when it began.
    fn begin_sync(&mut self) {
        let through = self.disk.written();
        if self.disk.syncing || through <= self.disk.synced {
            return;
        }
        self.disk.syncing = true;
        if through.since(self.disk.synced) > 1 {
            self.hit(Mark::GroupCommit);
        }
        let most = self.plan.options.store.sync_max.max(self.troubles.slowness);
        let at = (self.now + self.rng.u64(0..=most)).max(self.troubles.full_until);
        if at > self.now + 1_000 {
            self.note(|| format!("  the store is slow: {through} is to be safe at {at}"));
            self.hit(Mark::StoreSlow);
        }
        self.queue.push(at, Event::Synced { boot: self.boot, through });
    }

    pub(crate) fn synced(&mut self, boot: u64, through: Index) -> Result<(), Broken> {
        if boot != self.boot || self.server.is_none() {
            return Ok(());
        }
        if self.disk.synced < through {
            // The disk has it; that it says so comes a little later, and may never come.
            self.disk.synced = through;
            let at = self.now + self.rng.u64(0..=3);
            self.queue.push(at, Event::Synced { boot, through });
            return Ok(());
        }
        self.disk.syncing = false;
        self.disk.told = through;
        self.note(|| format!("  safe through {through}"));
        self.witness.persisted(through);
        self.input(Input::Persisted { through })?;
        self.checkpoint();
        self.begin_sync();
        Ok(())
    }

    /// Writes down the state from time to time.
    fn checkpoint(&mut self) {
        let Some(server) = &self.server else { return };
        if self.plan.options.archive == Archive::None {
            return;
        }
        let last = self.disk.checkpoint_at(0).map_or(0, |(index, _)| index.get());
        let head = server.engine.head().index;
        if head.get() < last + self.plan.options.store.checkpoint_entries {
            return;
        }
        if let Some(bytes) = server.engine.snapshot() {
            self.note(|| format!("  a checkpoint of entry {head}"));
            self.disk.checkpoint(head, bytes);
        }
    }

    /// Retention wants all records of a room gone but the last.
    pub(crate) fn trim(&mut self, room: RoomName, keep: u64) -> Result<(), Broken> {
        // A host whose retention follows what is safe may be behind a reset.
        let is_behind = self.rng.bool();
        let life = if is_behind { self.witness.safe_life(&room) } else { self.witness.life(&room) };
        let Some((incarnation, last)) = life else { return Ok(()) };
        self.input(Input::Trim { room, incarnation, through: last.saturating_sub(keep) })
    }

    /// Those who run the server take a measure on the user of a client.
    pub(crate) fn moderate_as_server(
        &mut self,
        client: usize,
        measure: Measure,
    ) -> Result<(), Broken> {
        self.measures += 1;
        let request = RequestId::new(self.measures).unwrap_or_default();
        let user = self.slots[client].name.clone();
        self.input(Input::Moderate { request, user, measure })
    }

    pub(crate) fn read(&mut self, token: ReadToken, wanted: Wanted) {
        self.hit(Mark::ReadFromStore);
        let store = self.plan.options.store;
        let mut records = self.disk.read(&wanted, store.read_records_max);
        if self.rng.bool() {
            // The disk deletes in its own time what was trimmed.
            let trimmed = self.witness.trimmed(&wanted.room, wanted.incarnation);
            records.retain(|record| record.seq > trimmed);
        }
        let readable = self.now >= self.troubles.unreadable_until;
        // A store that cannot read may try for a while before it says so.
        let least = if readable { 0 } else { GIVES_UP_AFTER };
        let most = store.read_max.max(self.troubles.slowness).max(least);
        let at = self.now + self.rng.u64(0..=most);
        let records = readable.then_some(records);
        self.queue.push(at, Event::Read { boot: self.boot, token, records });
        if let Some(server) = &mut self.server {
            server.reads.insert(token, wanted);
        }
    }

    pub(crate) fn read_done(
        &mut self,
        boot: u64,
        token: ReadToken,
        records: Option<Vec<Record>>,
    ) -> Result<(), Broken> {
        if self.server.as_ref().is_none_or(|server| server.boot != boot) {
            return Ok(());
        }
        if std::mem::take(&mut self.memory.owes_wrong_records) {
            self.err(Slip::WrongRecords)?;
        }
        let Some(server) = &mut self.server else { return Ok(()) };
        let wanted = server.reads.remove(&token);
        server.answered = Some(token);
        let Some(records) = records else {
            self.memory.failed_read = wanted;
            if self.model.as_ref().is_some_and(|model| model.needs_more(token)) {
                self.hit(Mark::ReadFailedWithNewerNeed);
            }
            self.note(|| "  the store could not read".to_owned());
            return self.input(Input::ReadFailed { token });
        };
        let is_again = |wanted: &Wanted| {
            self.memory.failed_read.as_ref().is_some_and(|failed| failed.begins_like(wanted))
        };
        if wanted.as_ref().is_some_and(is_again) {
            self.memory.failed_read = None;
            self.hit(Mark::ReadAgain);
        }
        self.input(Input::ReadDone { token, records })
    }
}
