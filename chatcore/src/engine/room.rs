//! One room: its gate, its members, and how long its log is.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::id::{Incarnation, Seq, Threshold};
use crate::text::UserName;

/// One room.
///
/// It holds no record: those are the journal's. It knows only how many there are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Room {
    incarnation: Incarnation,
    gate: Gate,
    last: Seq,
    /// The last record that is gone for good.
    trimmed: Seq,
    /// Everybody in the room, connected or within the grace.
    pub(crate) members: BTreeSet<UserName>,
}

/// A room's gate. Opening is one-way: only a reset, which begins a new life, closes it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Gate {
    /// Records wait until enough users are connected at once.
    Holding {
        threshold: Threshold,
        /// Bytes of text that wait, for the bound on them.
        bytes: u64,
    },
    /// Records are visible.
    Open { threshold: Threshold },
}

impl Gate {
    pub(crate) const fn threshold(self) -> Threshold {
        match self {
            Self::Holding { threshold, .. } | Self::Open { threshold } => threshold,
        }
    }

    pub(crate) const fn is_open(self) -> bool {
        matches!(self, Self::Open { .. })
    }
}

impl Room {
    pub(crate) fn new(threshold: Threshold) -> Self {
        Self {
            incarnation: Incarnation::ZERO.next(),
            gate: Gate::Holding { threshold, bytes: 0 },
            last: Seq::ZERO,
            trimmed: Seq::ZERO,
            members: BTreeSet::new(),
        }
    }

    pub(crate) fn record(&mut self, seq: Seq, text_bytes: usize) {
        assert_eq!(seq, self.last.next(), "records of a room must be numbered without holes");
        self.last = seq;
        if let Gate::Holding { bytes, .. } = &mut self.gate {
            *bytes = bytes.saturating_add(u64::try_from(text_bytes).unwrap_or(u64::MAX));
        }
    }

    pub(crate) fn open(&mut self) {
        assert!(!self.gate.is_open(), "a gate must open once in a life of its room");
        self.gate = Gate::Open { threshold: self.gate.threshold() };
    }

    /// Begins a new life. Members stay.
    pub(crate) fn reset(&mut self, incarnation: Incarnation, threshold: Threshold) {
        assert_eq!(incarnation, self.incarnation.next(), "lives of a room must follow each other");
        self.incarnation = incarnation;
        self.gate = Gate::Holding { threshold, bytes: 0 };
        (self.last, self.trimmed) = (Seq::ZERO, Seq::ZERO);
    }

    /// Forgets records for good, from the first one on.
    pub(crate) fn trim(&mut self, incarnation: Incarnation, through: Seq) {
        assert_eq!(incarnation, self.incarnation, "only the present life of a room has records");
        assert!(self.gate.is_open(), "what a closed gate holds must not be trimmed");
        let further = through > self.trimmed && through <= self.last;
        assert!(further, "a room must be trimmed further, and of records that it has");
        self.trimmed = through;
    }

    pub(crate) const fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    pub(crate) const fn gate(&self) -> Gate {
        self.gate
    }

    pub(crate) const fn last(&self) -> Seq {
        self.last
    }

    pub(crate) const fn trimmed(&self) -> Seq {
        self.trimmed
    }

    /// Whether a room could have come about like this.
    pub(crate) const fn is_sound(&self) -> bool {
        let shown = if self.gate.is_open() { self.last.get() } else { 0 };
        self.trimmed.get() <= shown
    }

    pub(crate) const fn held_bytes(&self) -> u64 {
        match self.gate {
            Gate::Holding { bytes, .. } => bytes,
            Gate::Open { .. } => 0,
        }
    }

    /// Records behind the closed gate.
    pub(crate) const fn held_records(&self) -> u64 {
        match self.gate {
            Gate::Holding { .. } => self.last.get(),
            Gate::Open { .. } => 0,
        }
    }
}
