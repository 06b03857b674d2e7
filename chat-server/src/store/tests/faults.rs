//! Stores that are full, or fail, behind the same threads as the real one.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use chatcore::engine::{Engine, Input, Output};
use chatcore::id::{Counter, Index, PublicKey};
use chatcore::log::{Change, Entry, Head};
use chatcore::time::{Now, Timestamp};
use chatcore::wire::Record;
use rusqlite::ffi;

use super::rig::{Rig, config, folder, founding, reopen, standing};
use crate::store::check::check_journal as check;
use crate::store::fault::{Fault, Hindrance, StoreFailure};
use crate::store::journal::{AppendError, Erasure, History, Store, Wanted};
use crate::store::threads::{Answer, Closed, Keeper, Parts};
use crate::store::{Opened, StoreError, checkpoint};

/// What the disk does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Disk {
    Well,
    Full,
    /// A sync fails once; the next would succeed.
    FailsOnce,
    Panics,
}

/// A store on such a disk, and the entries on it.
#[derive(Clone, Debug)]
struct Fake(Arc<Mutex<(Disk, Vec<Index>)>>);

impl Fake {
    fn new(disk: Disk) -> Self {
        Self(Arc::new(Mutex::new((disk, Vec::new()))))
    }

    fn becomes(&self, disk: Disk) {
        self.0.lock().unwrap().0 = disk;
    }

    fn kept(&self) -> usize {
        self.0.lock().unwrap().1.len()
    }
}

fn error(code: i32) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(ffi::Error::new(code), None)
}

impl Store for Fake {
    fn append(&mut self, entries: &[Arc<Entry>]) -> Result<(), AppendError> {
        let mut state = self.0.lock().unwrap();
        match state.0 {
            Disk::Well => {
                state.1.extend(entries.iter().map(|entry| entry.header.index));
                Ok(())
            }
            Disk::Full => Err(AppendError::Hindered(Hindrance::Full)),
            Disk::FailsOnce => {
                state.0 = Disk::Well;
                let failure = StoreFailure::Write(error(ffi::SQLITE_IOERR_FSYNC));
                Err(AppendError::Failed(failure))
            }
            Disk::Panics => {
                drop(state);
                panic!("a bug")
            }
        }
    }

    fn tidy(&mut self) -> Result<(), AppendError> {
        Ok(())
    }

    fn erase(&mut self, _: &Erasure) -> Result<(), AppendError> {
        Ok(())
    }

    fn remove(&mut self, _: &[Index]) -> Result<(), AppendError> {
        Ok(())
    }

    fn purge(&mut self) -> Result<bool, AppendError> {
        Ok(true)
    }

    fn close(&mut self) -> Result<(), AppendError> {
        Ok(())
    }
}

impl History for Fake {
    fn records(&mut self, _: &Wanted) -> Result<Vec<Record>, Fault> {
        Ok(Vec::new())
    }
}

fn start(fake: &Fake) -> (Keeper, Closed) {
    Keeper::start(Parts {
        store: Box::new(fake.clone()),
        history: Box::new(fake.clone()),
        checkpointer: Box::new(|_: &AtomicBool| {}),
        sweeper: None,
        checkpoint_bytes: u64::MAX,
        since_checkpoint: 0,
        folder: Arc::new(()),
    })
}

/// The founding of a journal, which is its first entry.
fn founded() -> (Engine, Vec<Arc<Entry>>) {
    let mut engine = Engine::found(founding(), config(), Now::default()).unwrap();
    let Some(Output::Persist(entry)) = engine.poll_output() else { panic!("it must be kept") };
    (engine, vec![entry])
}

#[tokio::test]
async fn e1_full_store_keeps_what_it_was_given_until_there_is_space() {
    let fake = Fake::new(Disk::Full);
    let (mut keeper, closed) = start(&fake);
    let (mut engine, entries) = founded();
    keeper.append(entries);
    assert!(matches!(keeper.answer().await, Answer::Full));
    engine.handle(Now::default(), Input::StoreFull).unwrap();
    assert_eq!(fake.kept(), 0);
    fake.becomes(Disk::Well);
    let Answer::Persisted(through) = keeper.answer().await else { panic!("it must be kept") };
    engine.handle(Now::default(), Input::Persisted { through }).unwrap();
    assert!(matches!(keeper.answer().await, Answer::Free));
    assert_eq!(engine.committed(), engine.head().index);
    drop(keeper);
    closed.wait().await;
    assert_eq!(fake.kept(), 1);
}

#[tokio::test]
async fn e1_store_that_stays_full_does_not_keep_the_server_from_ending() {
    let fake = Fake::new(Disk::Full);
    let (mut keeper, closed) = start(&fake);
    keeper.append(founded().1);
    assert!(matches!(keeper.answer().await, Answer::Full));
    drop(keeper);
    closed.wait().await;
    assert_eq!(fake.kept(), 0);
}

#[tokio::test]
async fn e2_sync_that_fails_is_never_tried_again() {
    let fake = Fake::new(Disk::FailsOnce);
    let (mut keeper, closed) = start(&fake);
    let (_, entries) = founded();
    keeper.append(entries.clone());
    let Answer::Failed(failure) = keeper.answer().await else { panic!("it must fail") };
    assert!(failure.to_string().contains("nothing more can be kept"), "{failure}");
    keeper.append(entries);
    drop(keeper);
    closed.wait().await;
    assert_eq!(fake.kept(), 0, "nothing is written after a sync that failed");
}

#[tokio::test]
async fn checkpoint_is_made_beside_the_running_server_after_so_many_bytes() {
    let here = folder();
    let Opened { engine, mut parts } = reopen(here.path()).unwrap();
    let (done, mut told) = tokio::sync::mpsc::unbounded_channel();
    parts.checkpoint_bytes = 1_000;
    let mut make = parts.checkpointer;
    parts.checkpointer = Box::new(move |stop| {
        make(stop);
        done.send(()).unwrap();
    });
    let (mut keeper, closed) = Keeper::start(parts);
    let mut head = Head::new(engine.log_id());
    let change = |number| Change::UserAdded {
        user: format!("user{number}").parse().unwrap(),
        key: PublicKey::new([number; 32]),
    };
    let changes =
        [Change::Founded(engine.founding().clone())].into_iter().chain((1..30).map(change));
    for change in changes {
        keeper.append(vec![Arc::new(head.append(Timestamp::ZERO, change))]);
        let Answer::Persisted(through) = keeper.answer().await else { panic!("it must be kept") };
        assert_eq!(through, head.index);
    }
    told.recv().await.unwrap();
    drop(keeper);
    closed.wait().await;
    assert!(!checkpoint::list(here.path()).unwrap().is_empty());
    assert_eq!(standing(here.path()).unwrap().head, head);
    assert!(check(here.path()).unwrap().findings.is_empty());
}

#[test]
fn program_that_has_the_journal_locked_is_told_of_as_what_it_is() {
    let here = folder();
    let mut rig = Rig::start(here.path());
    let other = rusqlite::Connection::open(here.path().join("journal.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let change = Change::UserAdded { user: "beto".parse().unwrap(), key: PublicKey::new([2; 32]) };
    let mut head = rig.engine.head();
    let entry = Arc::new(head.append(Timestamp::ZERO, change));
    let hindered = rig.parts.store.append(&[Arc::clone(&entry)]);
    assert!(matches!(hindered, Err(AppendError::Hindered(Hindrance::Locked))), "{hindered:?}");
    other.execute_batch("ROLLBACK").unwrap();
    rig.parts.store.append(&[entry]).unwrap();
    rig.close();

    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let refused = standing(here.path()).unwrap_err();
    assert!(matches!(refused, StoreError::Locked(_)), "{refused}");
}

#[tokio::test]
async fn panic_in_the_store_is_told_as_the_bug_that_it_is() {
    let (mut keeper, _) = start(&Fake::new(Disk::Panics));
    keeper.append(founded().1);
    let Answer::Failed(failure) = keeper.answer().await else { panic!("it must fail") };
    assert!(matches!(failure, StoreFailure::Panic("writer")), "{failure}");
}

#[tokio::test]
async fn what_was_handed_over_is_kept_before_the_store_is_closed() {
    let fake = Fake::new(Disk::Well);
    let (keeper, closed) = start(&fake);
    let (_, entries) = founded();
    (0..1_000).for_each(|_| keeper.append(entries.clone()));
    drop(keeper);
    closed.wait().await;
    assert_eq!(fake.kept(), 1_000);
}

#[test]
fn log_stays_short_however_often_the_server_is_killed() {
    let folder = folder();
    let mut counter = Counter::ZERO;
    for _ in 0..30 {
        let mut rig = Rig::start(folder.path());
        rig.counter = counter;
        for _ in 0..50 {
            rig.post("a line");
            rig.parts.store.tidy().unwrap();
        }
        counter = rig.counter;
        // It is not closed.
        drop(rig);
    }
    let log = folder.path().join("journal.db-wal");
    let bytes = std::fs::metadata(log).unwrap().len();
    assert!(bytes < 5 << 20, "{bytes}");
}
