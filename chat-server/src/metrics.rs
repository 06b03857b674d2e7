//! What the server counts, for a monitoring system: in the text format of `OpenMetrics`.
//!
//! Labels are from closed sets. Names of users and rooms, addresses and texts never are: they would let
//! anybody fill the monitoring system's memory, and tell it who talks.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use chatcore::engine::Counts;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Why the door let somebody no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// Too many came from the address.
    Address,
    /// There was no place.
    Full,
    /// Too many handshakes were waiting for a core.
    Handshakes,
    /// It was neither a frame nor TLS nor HTTP, or in the clear where that is not allowed.
    Speech,
    /// It did not say in time what it is, or broke off.
    Silent,
}

impl Refused {
    const fn label(self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::Full => "full",
            Self::Handshakes => "handshakes",
            Self::Speech => "speech",
            Self::Silent => "silent",
        }
    }
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ByCode {
    code: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ByReason {
    reason: &'static str,
}

type Level = Gauge<u64, AtomicU64>;

/// Everything that is counted. A clone counts the same.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    registry: Arc<Registry>,
    refused: Family<ByReason, Counter>,
    pages: Counter,
    log_ins: Counter,
    closed: Family<ByCode, Counter>,
    frames: Counter,
    written_bytes: Counter,
    levels: Levels,
}

/// What is asked of the engine when somebody looks.
#[derive(Clone, Debug, Default)]
struct Levels {
    connections: Level,
    online: Level,
    users: Level,
    rooms: Level,
    open: Level,
    entries: Level,
    safe: Level,
    store_full: Level,
    record_bytes: Level,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("chat");
        let (refused, closed) = (Family::default(), Family::default());
        let [pages, log_ins, frames, written_bytes] = [(); 4].map(|()| Counter::default());
        let levels = Levels::default();
        let counters: [(&str, &str, &Counter); 4] = [
            ("http_requests", "Requests answered by HTTP on the port of the chat", &pages),
            ("log_ins", "Log-ins that were accepted", &log_ins),
            ("frames_received", "Frames that connections sent", &frames),
            ("bytes_written", "Bytes written to connections, before TLS", &written_bytes),
        ];
        for (name, help, counter) in counters {
            registry.register(name, help, counter.clone());
        }
        let help = "Connections that the door let no further";
        registry.register("refused_connections", help, refused.clone());
        let help = "Connections that the server closed, by the code of the refusal";
        registry.register("closed_connections", help, closed.clone());
        for (name, help, level) in levels.all() {
            registry.register(name, help, level.clone());
        }
        let registry = Arc::new(registry);
        Self { registry, refused, pages, log_ins, closed, frames, written_bytes, levels }
    }

    pub(crate) fn refused(&self, why: Refused) {
        self.refused.get_or_create(&ByReason { reason: why.label() }).inc();
    }

    pub(crate) fn page(&self) {
        self.pages.inc();
    }

    pub(crate) fn logged_in(&self) {
        self.log_ins.inc();
    }

    /// A connection was closed, for a reason or because all is said.
    pub(crate) fn closed(&self, code: Option<&'static str>) {
        self.closed.get_or_create(&ByCode { code: code.unwrap_or("none") }).inc();
    }

    pub(crate) fn received(&self, frames: usize) {
        self.frames.inc_by(u64::try_from(frames).unwrap_or(u64::MAX));
    }

    pub(crate) fn written(&self, bytes: usize) {
        self.written_bytes.inc_by(u64::try_from(bytes).unwrap_or(u64::MAX));
    }

    /// The text for the monitoring system.
    pub(crate) fn text(&self, counts: &Counts) -> String {
        self.levels.set(counts);
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("a String takes what is written");
        text
    }
}

impl Levels {
    fn all(&self) -> [(&'static str, &'static str, &Level); 9] {
        [
            ("connections", "Connections of the chat, logged in or not", &self.connections),
            ("users_online", "Users who are connected", &self.online),
            ("users", "Users who have a name", &self.users),
            ("rooms", "Rooms", &self.rooms),
            ("rooms_open", "Rooms whose gate is open", &self.open),
            ("journal_entries", "Entries of the journal", &self.entries),
            ("journal_entries_safe", "Entries of the journal that are safe", &self.safe),
            ("store_full", "1 while the store takes nothing for lack of space", &self.store_full),
            ("record_bytes", "Bytes of records in memory", &self.record_bytes),
        ]
    }

    fn set(&self, counts: &Counts) {
        let Counts { connections, online, users, rooms, open, newest, safe, store_full, memory } =
            *counts;
        self.connections.set(connections.into());
        self.online.set(online.into());
        self.users.set(users.into());
        self.rooms.set(rooms.into());
        self.open.set(open.into());
        self.entries.set(newest.get());
        self.safe.set(safe.get());
        self.store_full.set(store_full.into());
        self.record_bytes.set(memory.get());
    }
}
