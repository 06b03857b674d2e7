//! What happens next: events in the order of their time, and of their making.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use chatcore::engine::ReadToken;
use chatcore::id::{ConnId, Index};
use chatcore::wire::Record;

/// One end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// The client's.
    Client,
    /// The server's.
    Server,
}

/// Something that happens.
#[derive(Debug)]
pub(crate) enum Event {
    /// The plan's next action.
    Act(usize),
    /// A dial reaches the machine of the server.
    Dial(ConnId),
    /// A dial was answered; whether well.
    Dialled(ConnId, bool),
    /// A piece of a stream reaches a side.
    Arrive(ConnId, Side),
    /// A side hears that its connection is broken.
    Broken(ConnId, Side),
    /// A client that read nothing reads again.
    Resume(ConnId),
    /// A signature was checked.
    Verified { boot: u64, conn: ConnId, valid: bool },
    /// The host says what it is doing.
    Looked { boot: u64, conn: ConnId },
    /// Entries up to this one are safe.
    Synced { boot: u64, through: Index },
    /// A read is done; nothing when it failed.
    Read { boot: u64, token: ReadToken, records: Option<Vec<Record>> },
    /// A shard looks at its directives.
    Shard { boot: u64, shard: usize },
    /// Something that a shard had to say reaches the engine.
    Reported { boot: u64, shard: usize },
    /// The engine wanted to be asked again.
    EngineTimer { boot: u64 },
    /// A shard wanted to be asked again.
    ShardTimer { boot: u64, shard: usize },
    /// A client wanted to be asked again.
    ClientTimer { client: usize, run: u64 },
    /// The server has closed a connection and its reader has ended.
    Gone { boot: u64, conn: ConnId },
    /// A closing connection has had its time.
    GiveUp { boot: u64, conn: ConnId },
    /// The server is started.
    Boot { boot: u64 },
    /// A trouble of the store may be over.
    StoreWell,
}

#[derive(Debug)]
struct Item {
    at: u64,
    order: u64,
    event: Event,
}

impl PartialEq for Item {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}

impl Eq for Item {}

impl PartialOrd for Item {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Item {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

/// Events that are to come.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    heap: BinaryHeap<Reverse<Item>>,
    made: u64,
}

impl Queue {
    pub(crate) fn push(&mut self, at: u64, event: Event) {
        self.made += 1;
        self.heap.push(Reverse(Item { at, order: self.made, event }));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }

    pub(crate) fn pop(&mut self) -> Option<(u64, Event)> {
        self.heap.pop().map(|Reverse(item)| (item.at, item.event))
    }
}
