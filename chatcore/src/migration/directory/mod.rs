//! The registers of a directory: for each service the one record of who serves it.
//!
//! A directory is the address that stays when a chat moves. It knows nothing of chats: it holds a
//! [`Registration`] for each service and changes it by compare-and-swap alone, as
//! [`Record::after`](super::Record::after) allows. It reads no clock, gives nobody a time for anything,
//! and takes nothing back by itself.
//!
//! | who | does |
//! |---|---|
//! | a node | signs a [`Claim`], that of the next owner alone or with a standby |
//! | the host of a directory | has it proven ([`SignedClaim::prove`]) and judged ([`Registers::judge`]), signs what becomes of it, keeps that for good, and only then takes it in ([`Registers::with`]) and answers |
//! | whoever looks up | checks that the directory signed what it is told ([`SignedRegistration::is_of`]) |
//!
//! # Who may claim what
//!
//! Of a service that is registered, its owner and its standby, as they stand in the record. Of one that
//! is not, anybody: whoever comes first *founds* it, alone, and its key is what counts from then on. A
//! name can so be taken by a stranger who is quicker, and all of them by one who is busy: a directory
//! that strangers can reach is for services that were founded before they could.
//!
//! # When a directory has lost its registers
//!
//! Generations must go on where they were, or an owner who was cut off meanwhile and the owner of the
//! new register could both own the same one. So a service that is not registered is founded in
//! generation 1, by a node that knows of none, unless whoever runs the directory says
//! ([`Registers::new`]) which generation was the last: the highest that the owner and the standby know
//! of, both asked. Then only a node that knows of that one can found it, in the next. Should the higher
//! one of the two be out of reach, nobody can know it, and whoever goes on all the same has to do so with
//! another journal.
//!
//! # What an answer proves
//!
//! What a directory signs it has kept. That something is *not* so it does not sign, nor that what it
//! signed is the newest: whoever stands between may repeat what was true once, or say no in the
//! directory's place. That does no harm to who acts on signed registrations alone, and only on those of a
//! higher generation than it knows. In particular a claim that was refused, or not answered, may have
//! been applied: only a registration tells.

mod wire;

use std::collections::BTreeMap;

use crate::id::Generation;
use crate::text::ServiceName;

pub use wire::{
    Claim, ClaimFault, DIRECTORY_FRAME_BYTES_MAX, DirectoryReply, DirectoryRequest, Host,
    ProvenClaim, Registration, SignedClaim, SignedRegistration,
};

/// The most services that one directory holds. Whoever would found one more is denied.
///
/// All of them together take some 290 KiB, which is written anew with every change.
pub const SERVICES_MAX: usize = 64;

/// What is to be done about a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "one at a time is looked at, and none is kept")]
pub enum Verdict {
    /// This is next: to be signed, kept, and taken in by [`Registers::with`].
    Apply(Registration),
    /// It was applied before, and what it led to still holds: its sender may have missed the answer.
    Applied,
    /// It was made for another generation than the present one.
    Conflict,
    /// It is not right, and will not become so.
    Denied(ClaimFault),
}

/// All registers of a directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registers {
    services: BTreeMap<ServiceName, SignedRegistration>,
    last: BTreeMap<ServiceName, Generation>,
}

impl Registers {
    /// Registers without a service. `last` says of services that were registered elsewhere before, in
    /// which generation they were last; for one that is registered here it has no effect.
    pub const fn new(last: BTreeMap<ServiceName, Generation>) -> Self {
        Self { services: BTreeMap::new(), last }
    }

    /// What is registered of a service.
    pub fn get(&self, service: &ServiceName) -> Option<&SignedRegistration> {
        self.services.get(service)
    }

    /// Everything that is registered, by the name of the service.
    pub fn iter(&self) -> impl Iterator<Item = &SignedRegistration> {
        self.services.values()
    }

    /// Says what is to be done about a claim. Nothing changes.
    pub fn judge(&self, claim: &ProvenClaim) -> Verdict {
        let claim = claim.claim();
        match self.services.get(&claim.service) {
            Some(present) => judge_change(&present.registration, claim),
            None => self.judge_founding(claim),
        }
    }

    fn judge_founding(&self, claim: &Claim) -> Verdict {
        let last = self.last.get(&claim.service).copied().unwrap_or_default();
        if self.services.len() >= SERVICES_MAX {
            Verdict::Denied(ClaimFault::Services)
        } else if claim.expect != last {
            Verdict::Denied(ClaimFault::Unregistered)
        } else if claim.expect == Generation::MAX {
            Verdict::Denied(ClaimFault::Generation)
        } else if claim.standby.is_some() {
            // Nobody has said of it that it has anything.
            Verdict::Denied(ClaimFault::Right)
        } else {
            Verdict::Apply(claim.applied(claim.expect.next()))
        }
    }

    /// The registers with the next registration of a service in place of the present one.
    ///
    /// # Panics
    /// When it does not follow the present one, or would be one service too many: a host takes in what
    /// [`judge`](Self::judge) said of these registers, and nothing else.
    #[must_use]
    pub fn with(&self, next: SignedRegistration) -> Self {
        let service = next.registration.service.clone();
        if let Some(present) = self.get(&service) {
            let present = present.registration.generation;
            let follows =
                present < Generation::MAX && next.registration.generation == present.next();
            assert!(follows, "a registration must follow the present one");
        }
        let mut registers = self.clone();
        registers.services.insert(service, next);
        assert!(registers.services.len() <= SERVICES_MAX, "registers must keep their bound");
        registers
    }
}

fn judge_change(present: &Registration, claim: &Claim) -> Verdict {
    let generation = present.generation;
    if present.generation.previous() == claim.expect && *present == claim.applied(generation) {
        Verdict::Applied
    } else if claim.expect != generation {
        Verdict::Conflict
    } else if claim.log_id != present.log_id {
        Verdict::Denied(ClaimFault::LogId)
    } else if generation == Generation::MAX {
        Verdict::Denied(ClaimFault::Generation)
    } else if present.record().after(&claim.proposal()).is_none() {
        Verdict::Denied(ClaimFault::Right)
    } else {
        Verdict::Apply(claim.applied(generation.next()))
    }
}
