//! Whether the engine that lived goes on like one that is restored from what it says of itself.
//!
//! Engines that are compared elsewhere were all restored, so what only living leaves behind would
//! never show. A crash is the one moment at which the living engine can be had: its world is about
//! to lose it. It is brought to rest, a twin is made of its snapshot, and both are visited.
//!
//! With a store, which records are in memory is not part of a snapshot, and where they travel along,
//! they come in other pieces, so that a full window loses others. So what depends on that is compared
//! only where nothing but held records is in memory, that is with a window of 0, and, without a store,
//! where nothing was lost yet. A restored engine announces a gate that the shards of the living
//! one know already: such repeats are left out. When a crowd was told last is not part of a snapshot
//! either, so with a crowd no gates are compared.

use std::collections::{BTreeMap, BTreeSet};

use chatcore::engine::{Archive, Directive, Engine, Input, Output, Page, ReadToken};
use chatcore::id::ConnId;
use chatcore::text::RoomName;
use chatcore::time::Now;
use chatcore::wire::{GateState, Record, Refusal};

use crate::broken::{Broken, hold};
use crate::marks::Mark;
use crate::world::World;
use crate::world::server::Server;
use crate::world::twin::{are_same, is_told_alike};
use crate::world::visit::{Heard, Visit};

/// What shards were last told of each gate.
pub(crate) type Gates = BTreeMap<RoomName, GateState>;

/// A window that no world fills.
const NEVER_FULL: u64 = 64 << 20;

/// The rule.
const ALIKE: &str = "the living engine goes on like a restored one";

impl World<'_> {
    /// Compares the engine of a server that dies with one restored from its snapshot.
    pub(crate) fn check_living(&mut self, server: Server) -> Result<(), Broken> {
        let (config, now) = (self.config(), self.clock());
        let window = config.limits.window_bytes;
        let travels = config.archive == Archive::None && window >= NEVER_FULL;
        let is_exact = travels || window == 0;
        let ends = now.moment + config.limits.grace;
        let (conns, reads) = (server.buffers.into_keys(), server.reads.into_keys());
        let (engine, gates) = (server.engine, server.gates);
        let mut lived = Resting { engine, now, gates, own: Vec::new(), reads: Vec::new() };
        lived.rest(conns, reads, self.troubles.is_full);
        let Some(bytes) = lived.engine.snapshot() else {
            return Err(Broken::new(ALIKE, "an engine at rest has no snapshot"));
        };
        let mut restored = Engine::restore(&bytes, [], config, now)
            .map_err(|error| Broken::new("a snapshot can be restored", error.to_string()))?;
        self.off.engine(&mut restored);
        while restored.poll_output().is_some() {}
        // Whoever was in a grace before has less of it left than after a restart.
        let is_whole = lived.engine.next_timeout().is_none_or(|at| at >= ends);
        let Resting { mut engine, own, gates, .. } = lived;
        let (one, other) = (self.visit_as(&own, &mut engine), self.visit_as(&own, &mut restored));
        // Rates end with the process: a living engine may just have let in as many as it may.
        if is_put_off(&one) {
            return Ok(());
        }
        let crowd = |gate: &GateState| gate.users > self.plan.options.limits.crowd_members;
        let is_told = |heard: &Heard| !heard.outputs.iter().filter_map(gate_of).any(crowd);
        let tells = is_told(&one) && is_told(&other) && !gates.values().any(crowd);
        let said = |heard| {
            let mut said = said(heard, gates.clone(), is_exact, is_whole);
            said.retain(|output| tells || gate_of(output).is_none());
            said
        };
        compare(&said(one), &said(other))?;
        if is_whole {
            let same =
                engine.head() == restored.head() && engine.state_hash() == restored.state_hash();
            hold!(same, ALIKE, "{:?} or {:?}", engine.head(), restored.head());
            self.hit(Mark::LivingCompared);
        }
        Ok(())
    }

    fn visit_as(&self, own: &[Record], engine: &mut Engine) -> Heard {
        let (slot, room) = (&self.slots[0], &self.rooms[0]);
        let visit = Visit::new(&self.disk, self.clock(), (&slot.name, slot.key), room);
        visit.with(own.to_vec()).to(engine)
    }
}

/// What both have to say alike. Of a visit that is not `is_whole` what came while the visitor was
/// there; of gates, what is news in a room that the visitor follows.
fn said(heard: Heard, mut gates: Gates, is_exact: bool, is_whole: bool) -> Vec<Output> {
    let most = if is_whole { heard.outputs.len() } else { heard.while_here };
    let mut followed = BTreeSet::new();
    let mut is_news = |output: &Output| {
        if let Output::Deliver(Directive::Follow { room, .. }) = output {
            followed.insert(room.clone());
        }
        let Output::Deliver(Directive::Gate { room, gate }) = output else { return true };
        gates.insert(room.clone(), *gate) != Some(*gate) && followed.contains(room)
    };
    let outputs = heard.outputs.into_iter().take(most);
    outputs.filter(|it| is_news(it) && (is_exact || is_told_alike(it))).collect()
}

fn compare(one: &[Output], other: &[Output]) -> Result<(), Broken> {
    let first = one.iter().zip(other).find(|(one, other)| !are_alike(one, other));
    hold!(first.is_none(), ALIKE, "{first:?}");
    let least = one.len().min(other.len());
    let more = one.get(least).or_else(|| other.get(least));
    hold!(more.is_none(), ALIKE, "one of them says {more:?}");
    Ok(())
}

const fn gate_of(output: &Output) -> Option<&GateState> {
    if let Output::Deliver(Directive::Gate { gate, .. }) = output { Some(gate) } else { None }
}

/// Whether two outputs are the same, but for the number of a read, as each counts its own, and for
/// where a page ends: records that lived came in other pieces.
fn are_alike(one: &Output, other: &Output) -> bool {
    let wants = |output: &Output| {
        let Output::Read { room, incarnation, from, to, order, .. } = output else { return None };
        Some((room.clone(), *incarnation, *from, *to, *order))
    };
    are_same(one, other)
        || (wants(one).is_some() && wants(one) == wants(other))
        || are_pages_alike(one, other)
}

fn are_pages_alike(one: &Output, other: &Output) -> bool {
    let page = |output: &Output| {
        let Output::Deliver(Directive::Page { room, incarnation, page, .. }) = output else {
            return None;
        };
        let Page::Records(chunk) = page else { return None };
        Some(((room.clone(), *incarnation, chunk.first()), chunk.bytes().clone()))
    };
    let (Some((one, some)), Some((other, others))) = (page(one), page(other)) else {
        return false;
    };
    one == other && (some.starts_with(&others) || others.starts_with(&some))
}

/// Whether a visitor was one of too many.
fn is_put_off(heard: &Heard) -> bool {
    let is_busy = |output: &Output| {
        let Output::Deliver(Directive::Close { refusal, .. }) = output else { return false };
        matches!(refusal, Some(Refusal::Busy { .. }))
    };
    heard.outputs.iter().any(is_busy)
}

/// An engine that is brought to rest.
struct Resting {
    engine: Engine,
    now: Now,
    gates: Gates,
    /// Records of entries that the disk does not have.
    own: Vec<Record>,
    /// Reads that were asked for meanwhile.
    reads: Vec<ReadToken>,
}

impl Resting {
    /// Everybody goes, nothing is read any more, the store is free and everything is safe.
    fn rest(
        &mut self,
        conns: impl Iterator<Item = ConnId>,
        reads: impl Iterator<Item = ReadToken>,
        is_full: bool,
    ) {
        conns.for_each(|conn| self.tell(Input::Disconnected { conn }));
        reads.for_each(|token| self.tell(Input::ReadFailed { token }));
        if is_full {
            self.tell(Input::StoreFree);
        }
        while self.engine.committed() < self.engine.head().index {
            self.tell(Input::Persisted { through: self.engine.head().index });
        }
        for token in std::mem::take(&mut self.reads) {
            self.tell(Input::ReadFailed { token });
        }
    }

    fn tell(&mut self, input: Input) {
        self.engine.handle(self.now, input).expect("the host must keep the rules of the engine");
        while let Some(output) = self.engine.poll_output() {
            match output {
                Output::Persist(entry) => self.own.extend(entry.record()),
                Output::Read { token, .. } => self.reads.push(token),
                Output::Deliver(Directive::Gate { room, gate }) => {
                    self.gates.insert(room, gate);
                }
                Output::Verify { .. }
                | Output::Sign { .. }
                | Output::Moderated { .. }
                | Output::Report { .. }
                | Output::Deliver(_)
                | Output::Event(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(conn: u64) -> Output {
        Output::Deliver(Directive::Close { conn: ConnId::new(conn), refusal: None })
    }

    #[test]
    fn whatever_one_of_both_says_alone_is_noticed() {
        let (short, long) = ([close(1)], [close(1), close(2)]);
        assert_eq!(compare(&long, &long), Ok(()));
        for (one, other) in [(&short[..], &long[..]), (&long, &short), (&[close(3)], &short)] {
            let broken = compare(one, other).expect_err("they differ");
            assert_eq!(broken.rule, ALIKE);
        }
    }
}
