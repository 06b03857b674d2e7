//! What the host says of itself to whoever may know what the server is doing.
//!
//! Looking at files may take long on a disk that is busy or dying, so it is done beside the engine's
//! task, which goes on.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use chatcore::id::{ByteCount, ConnId};
use chatcore::time::{Moment, Span};
use chatcore::wire::{self, CheckpointStatus, DiskStatus, HostStatus, StorageStatus};
use tokio::sync::{Semaphore, mpsc};

use crate::clock::Clock;
use crate::crew::Full;
use crate::host::Message;
use crate::store::{self, Durability, Storage};

/// Looks that may wait or be under way.
///
/// The bound on connections does not bound them: a look outlives a connection that goes away.
const LOOKS_MAX: usize = 16;

/// Looks at what the host knows.
#[derive(Debug)]
pub(crate) struct Figures {
    storage: Storage,
    clock: Clock,
    places: Arc<Semaphore>,
    answers: mpsc::Sender<Message>,
}

impl Figures {
    /// `clock` began when the server did.
    pub(crate) fn new(storage: Storage, clock: Clock, answers: mpsc::Sender<Message>) -> Self {
        Self { storage, clock, places: Arc::new(Semaphore::new(LOOKS_MAX)), answers }
    }

    /// Begins to look; what is seen comes to the engine as a message. Nothing begins when there are
    /// too many.
    pub(crate) fn begin(&self, conn: ConnId) -> Result<(), Full> {
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| Full)?;
        let (storage, clock, answers) = (self.storage.clone(), self.clock, self.answers.clone());
        tokio::spawn(async move {
            let _place = place;
            let look = tokio::task::spawn_blocking(move || seen(&storage)).await;
            let Ok(storage) = look else { return };
            let uptime_ms = clock.moment().since(Moment::default());
            let host = HostStatus { uptime_ms, storage };
            // The engine is gone: so is everybody who waits for the answer.
            let _ = answers.send(Message::Reported { conn, host }).await;
        });
        Ok(())
    }
}

fn seen(storage: &Storage) -> StorageStatus {
    match storage {
        Storage::Ephemeral => StorageStatus::Memory,
        Storage::Folder { path, durability } => StorageStatus::Disk(disk(path, *durability)),
    }
}

fn disk(folder: &Path, durability: Durability) -> DiskStatus {
    let durability = match durability {
        Durability::Commit => wire::Durability::Commit,
        Durability::Relaxed => wire::Durability::Relaxed,
    };
    let bytes = store::bytes_in(folder).ok().map(|bytes| ByteCount::ZERO.saturating_add(bytes));
    let checkpoint = store::newest_checkpoint(folder).ok().flatten();
    let checkpoint = checkpoint.map(|(entry, made)| {
        // A clock that was put back says that it was made just now.
        let age = SystemTime::now().duration_since(made).unwrap_or_default();
        let age_ms = Span::from_millis(u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
        CheckpointStatus { entry, age_ms }
    });
    DiskStatus { durability, bytes, checkpoint }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn looks_are_bounded_and_give_their_place_back() {
        let (answers, mut inbox) = mpsc::channel(LOOKS_MAX);
        let figures = Figures::new(Storage::Ephemeral, Clock::new(), answers);
        let conn = ConnId::new(1);
        for _ in 0..LOOKS_MAX {
            assert_eq!(figures.begin(conn), Ok(()));
        }
        assert_eq!(figures.begin(conn), Err(Full));
        for _ in 0..LOOKS_MAX {
            let told = inbox.recv().await;
            let Some(Message::Reported { host, .. }) = told else { panic!("{told:?}") };
            assert_eq!(host.storage, StorageStatus::Memory);
        }
        while figures.begin(conn).is_err() {
            tokio::task::yield_now().await;
        }
    }
}
