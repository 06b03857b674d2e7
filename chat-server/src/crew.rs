//! Heavy work that strangers can ask for: handshakes to answer, signatures to check.
//!
//! All of it together takes as many threads as there are cores, beside those of tokio, so that the
//! system shares the cores between it and those who are logged in. Each kind of work has a line of its
//! own with a bounded number of places; whoever finds it full is to be turned away. Nobody is in a line,
//! or at work, while a peer is waited for: who is slow holds up nobody.

use std::num::NonZeroUsize;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinError;

/// The line is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full;

/// Does heavy work, as much at once as there are cores.
#[derive(Clone, Debug)]
pub(crate) struct Crew {
    cores: Arc<Semaphore>,
}

impl Crew {
    pub(crate) fn new(cores: NonZeroUsize) -> Self {
        Self { cores: Arc::new(Semaphore::new(cores.get())) }
    }

    /// A line before the crew, of so many places; what is under way has one of them, too.
    pub(crate) fn line(&self, places: usize) -> Line {
        Line { crew: self.clone(), places: Arc::new(Semaphore::new(places)) }
    }
}

/// A line of those who have work for the crew. The crew takes whoever came first, of all lines.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    crew: Crew,
    places: Arc<Semaphore>,
}

impl Line {
    /// Takes a place in the line, if there is one.
    pub(crate) fn join(&self) -> Result<Turn, Full> {
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| Full)?;
        Ok(Turn { crew: self.crew.clone(), place })
    }
}

/// A place in a line.
#[derive(Debug)]
pub(crate) struct Turn {
    crew: Crew,
    place: OwnedSemaphorePermit,
}

impl Turn {
    /// Has the work done when its turn comes. When this is dropped before, it is never done; when it is
    /// dropped while the work is under way, core and place are given back at its end.
    ///
    /// # Errors
    /// When the work panicked, or the runtime is shut down.
    pub(crate) async fn work<T: Send + 'static>(
        self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, JoinError> {
        let Self { crew, place } = self;
        let core = crew.cores.acquire_owned().await.expect("a crew is never dismissed");
        let done = tokio::task::spawn_blocking(move || {
            let _until_done = (place, core);
            work()
        });
        done.await
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future as _;
    use std::pin::pin;
    use std::sync::mpsc;
    use std::task::{Context, Waker};

    use super::*;

    #[tokio::test]
    async fn c9_line_that_is_full_takes_nobody_and_work_gives_its_place_back() {
        let line = Crew::new(NonZeroUsize::MIN).line(2);
        let (first, second) = (line.join().unwrap(), line.join().unwrap());
        assert_eq!(line.join().err(), Some(Full));
        assert_eq!(first.work(|| 1).await.unwrap(), 1);
        let third = line.join().unwrap();
        assert_eq!(line.join().err(), Some(Full));
        drop(second);
        assert!(third.work(|| panic!("this work was made to fail")).await.is_err());
        assert!(line.join().is_ok());
    }

    #[tokio::test]
    async fn c9_work_of_all_lines_waits_for_a_core_also_when_nobody_waits_for_the_work() {
        let crew = Crew::new(NonZeroUsize::MIN);
        let (one, other) = (crew.line(1), crew.line(1));
        let (go_on, wait) = mpsc::channel::<()>();
        {
            let mut given_up = pin!(one.join().unwrap().work(move || wait.recv()));
            let polled = given_up.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            assert!(polled.is_pending(), "it is under way");
        }
        assert_eq!(one.join().err(), Some(Full), "its place is taken until it is done");
        let mut next = pin!(other.join().unwrap().work(|| 2));
        let polled = next.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(polled.is_pending(), "there is one core, and it is taken");
        go_on.send(()).unwrap();
        assert_eq!(next.await.unwrap(), 2);
        assert!(one.join().is_ok());
    }
}
