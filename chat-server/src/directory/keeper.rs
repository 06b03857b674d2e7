//! Who owns the registers: a thread that takes one claim after the other, and tells of a change only once
//! the disk has it.

use std::io;
use std::sync::Arc;

use chatcore::migration::directory::{
    DirectoryReply, ProvenClaim, Registers, Registration, SignedRegistration, Verdict,
};
use chatcore::time::Span;
use chatcore::wire::Refusal;
use tokio::sync::{mpsc, oneshot, watch};

use crate::directory::DirectoryFailure;
use crate::directory::disk::{Disk, WriteError};
use crate::key::ServerKey;

/// Claims that wait to be judged: at a hundred writes a second what half a second takes.
pub(super) const CLAIMS_MAX: usize = 64;

/// What whoever makes one more is told to wait.
pub(super) const BUSY_RETRY: Span = Span::from_secs(1);

/// A claim, and who waits for what becomes of it.
#[derive(Debug)]
pub(super) struct Claimed {
    pub(super) claim: ProvenClaim,
    pub(super) answer: oneshot::Sender<DirectoryReply>,
}

/// The registers, what they are kept on, and who signs them.
#[derive(Debug)]
pub(super) struct Keeper {
    key: ServerKey,
    disk: Disk,
    /// What is kept, for everybody who looks up.
    told: watch::Sender<Arc<Registers>>,
}

impl Keeper {
    /// A keeper of registers that were found on its disk.
    pub(super) fn new(key: ServerKey, disk: Disk, registers: Registers) -> Self {
        Self { key, disk, told: watch::Sender::new(Arc::new(registers)) }
    }

    /// What is registered, now and whenever it changes.
    pub(super) fn registers(&self) -> watch::Receiver<Arc<Registers>> {
        self.told.subscribe()
    }

    /// Judges claims until nobody can make one any more.
    ///
    /// # Errors
    /// When nobody knows what the disk has. The claim that was to be kept is not answered.
    pub(super) fn run(self, mut claims: mpsc::Receiver<Claimed>) -> Result<(), DirectoryFailure> {
        while let Some(Claimed { claim, answer }) = claims.blocking_recv() {
            let reply = self.take(&claim).map_err(DirectoryFailure::Write)?;
            // Who waited may have gone; the registers tell what became of the claim.
            let _ = answer.send(reply);
        }
        Ok(())
    }

    fn take(&self, claim: &ProvenClaim) -> Result<DirectoryReply, io::Error> {
        let registers = Arc::clone(&self.told.borrow());
        let service = &claim.claim().service;
        let present =
            || registers.get(service).cloned().expect("a service that is judged is there");
        match registers.judge(claim) {
            Verdict::Apply(next) => self.apply(&registers, next),
            Verdict::Applied => Ok(DirectoryReply::Applied(present())),
            Verdict::Conflict => Ok(DirectoryReply::Conflict(present())),
            Verdict::Denied(fault) => Ok(DirectoryReply::Denied(fault)),
        }
    }

    fn apply(
        &self,
        registers: &Registers,
        next: Registration,
    ) -> Result<DirectoryReply, io::Error> {
        let signed = sign(&self.key, next);
        let registers = registers.with(signed.clone());
        let all: Vec<&Registration> = registers.iter().map(|it| &it.registration).collect();
        match self.disk.write(Some(&self.key.public()), &all) {
            Ok(()) => {}
            Err(WriteError::Refused(error)) => {
                tracing::error!(%error, "a change cannot be kept, and is refused");
                return Ok(DirectoryReply::Refused(Refusal::Store));
            }
            Err(WriteError::Failed(error)) => return Err(error),
        }
        let Registration { service, generation, owner, standby, .. } = &signed.registration;
        let (owner, standby) = (owner.node.key, standby.as_ref().map(|it| it.node.key));
        tracing::info!(%service, %generation, %owner, ?standby, "registered");
        self.told.send_replace(Arc::new(registers));
        Ok(DirectoryReply::Applied(signed))
    }
}

/// What a directory says of a service.
pub(super) fn sign(key: &ServerKey, registration: Registration) -> SignedRegistration {
    let signature = key.sign(&registration.to_bytes(&key.public()));
    SignedRegistration { registration, signature }
}
