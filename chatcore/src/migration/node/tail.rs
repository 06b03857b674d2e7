//! What one process has of the journal, and how sure it is of each part.

use crate::id::Index;

/// How far a process has the journal. Each part is a beginning of the one before:
/// `committed` ≤ `verified` ≤ `appended`, and `stored` ≤ `appended`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Tail {
    appended: Index,
    stored: Index,
    /// Entries up to this one are those of the owner that is followed. What is after them is from
    /// before: it was committed then, or it was not.
    verified: Index,
    committed: Index,
    /// How often entries were forgotten.
    cuts: u64,
    work: Work,
}

/// What the host is doing about the end of the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Work {
    Nothing,
    /// It compares what stands there with an entry of the owner's.
    Checking(Index),
    /// It forgets what is after `verified`.
    Cutting,
}

/// What is to be done with an entry of the owner's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Offer {
    /// It is there.
    Had,
    /// Something is there that may be another entry.
    Check,
    /// It is the next one.
    Put,
    /// It comes too early, and has to be sent again.
    Early,
}

impl Tail {
    /// Of a process whose journal is stored up to an entry, and known to be committed up to another.
    pub(super) fn new(stored: Index, committed: Index) -> Self {
        assert!(committed <= stored, "what is committed must be stored");
        Self {
            appended: stored,
            stored,
            verified: committed,
            committed,
            cuts: 0,
            work: Work::Nothing,
        }
    }

    pub(super) const fn appended(&self) -> Index {
        self.appended
    }

    pub(super) const fn stored(&self) -> Index {
        self.stored
    }

    pub(super) const fn committed(&self) -> Index {
        self.committed
    }

    /// How often entries were forgotten.
    pub(super) const fn cuts(&self) -> u64 {
        self.cuts
    }

    /// The last entry of the owner's that is stored.
    pub(super) fn vouched(&self) -> Index {
        self.stored.min(self.verified)
    }

    /// Whether it ends with an entry, which is the owner's.
    pub(super) fn ends_with(&self, index: Index) -> bool {
        self.appended == index && self.verified == index
    }

    pub(super) const fn is_being_cut(&self) -> bool {
        matches!(self.work, Work::Cutting)
    }

    /// The owner itself decided an entry.
    pub(super) fn decide(&mut self, index: Index) {
        assert!(!self.is_being_cut(), "nothing may be appended while entries are being forgotten");
        assert_eq!(index, self.appended.next(), "entries must be appended without holes");
        self.appended = index;
    }

    /// Entries up to one are stored, as of so many cuts. What was stored before a cut says nothing of
    /// what stands there now.
    pub(super) fn store(&mut self, cuts: u64, through: Index) {
        if cuts == self.cuts {
            self.stored = self.stored.max(through.min(self.appended));
        }
    }

    /// Takes note that entries up to one are committed, as far as that is news.
    pub(super) fn commit(&mut self, through: Index) -> Option<Index> {
        let is_new = through > self.committed;
        is_new.then(|| {
            self.committed = through;
            through
        })
    }

    /// The owner says that entries up to one are committed: those that are here as well are.
    pub(super) fn commit_verified(&mut self, through: Index) -> Option<Index> {
        self.commit(through.min(self.verified))
    }

    /// The owner has an entry.
    pub(super) fn offer(&mut self, index: Index) -> Offer {
        let next = self.verified.next();
        if index < next {
            return Offer::Had;
        }
        if index > next || self.work != Work::Nothing {
            return Offer::Early;
        }
        if self.verified < self.appended {
            self.work = Work::Checking(index);
            return Offer::Check;
        }
        (self.appended, self.verified) = (index, index);
        Offer::Put
    }

    /// The host compared. Returns how many cuts there are, and after which entry, if there has to be
    /// one more.
    pub(super) fn check(&mut self, index: Index, same: bool) -> Option<(u64, Index)> {
        if self.work != Work::Checking(index) {
            return None;
        }
        if same {
            (self.work, self.verified) = (Work::Nothing, index);
            return None;
        }
        self.work = Work::Cutting;
        Some((self.cut(self.verified), self.verified))
    }

    /// Everything after an entry is to be forgotten; how often that was so, by now.
    fn cut(&mut self, after: Index) -> u64 {
        (self.appended, self.stored) = (after, self.stored.min(after));
        self.cuts = self.cuts.saturating_add(1);
        self.cuts
    }

    /// The host has forgotten what it was to.
    pub(super) fn was_cut(&mut self, cuts: u64) {
        if self.is_being_cut() && cuts == self.cuts {
            self.work = Work::Nothing;
        }
    }

    /// Another owner, or the same one in another life, may have something else after what is committed.
    pub(super) fn doubt(&mut self) {
        self.verified = self.committed;
        if !self.is_being_cut() {
            self.work = Work::Nothing;
        }
    }

    /// This process owns the journal from here on: as it is here it is right.
    pub(super) fn trust(&mut self) {
        self.verified = self.appended;
        if !self.is_being_cut() {
            self.work = Work::Nothing;
        }
    }

    /// The host has a copy of what the owner had committed up to an entry.
    pub(super) fn end_copy(&mut self, through: Index) {
        assert!(through >= self.appended, "a copy must hold what was there before it");
        (self.appended, self.stored) = (through, through);
        (self.verified, self.committed) = (through, through);
    }
}
