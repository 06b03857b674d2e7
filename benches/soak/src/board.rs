//! What is known of all clients together, and waiting for it to change.

use std::process::ExitStatus;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, timeout_at};

use crate::client::{News, Place, Progress};

/// How often a line says how far the run is.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);

/// Gathers the news of all clients.
#[derive(Debug)]
pub(crate) struct Board {
    news: mpsc::Receiver<(usize, News)>,
    deadline: Instant,
    /// How far each client has come.
    shown: Vec<Place>,
    fed: Vec<bool>,
    /// The last place that a post was acknowledged at.
    placed: Place,
    began: Instant,
    progress: Interval,
    pub(crate) figures: Figures,
}

/// Counts over all clients.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Figures {
    pub(crate) records: u64,
    pub(crate) acknowledged: u64,
    pub(crate) refused: u64,
    /// Of `refused`, those that were written for an earlier life of the room.
    pub(crate) overtaken: u64,
    pub(crate) connected: u64,
    pub(crate) disconnected: u64,
    pub(crate) restarts: u64,
    pub(crate) ended: usize,
    /// Posts that killed clients never heard of again.
    pub(crate) doubtful: usize,
}

/// Why waiting has no end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Stuck {
    #[error(
        "time is up while waiting for {what}: {} posts acknowledged, {} refused, {} clients \
         without all posts answered, records shown up to {}..={} of {}",
        figures.acknowledged, figures.refused, unfed, shown.0, shown.1, placed
    )]
    Timeout {
        what: &'static str,
        figures: Box<Figures>,
        unfed: usize,
        shown: (Place, Place),
        placed: Place,
    },
    #[error("client {client} ended with {status} while waiting for {what}")]
    Ended { client: usize, status: ExitStatus, what: &'static str },
    #[error("client {client} failed while waiting for {what}: {error}")]
    Failed { client: usize, error: std::io::Error, what: &'static str },
    #[error("no client is left while waiting for {0}")]
    Alone(&'static str),
}

impl Board {
    pub(crate) fn new(
        news: mpsc::Receiver<(usize, News)>,
        clients: usize,
        deadline: Instant,
    ) -> Self {
        let (shown, fed) = (vec![Place::default(); clients], vec![false; clients]);
        let mut progress = interval(PROGRESS_INTERVAL);
        progress.set_missed_tick_behavior(MissedTickBehavior::Skip);
        // The first tick is at once, and there is nothing to tell yet.
        progress.reset();
        Self {
            news,
            deadline,
            shown,
            fed,
            placed: Place::default(),
            began: Instant::now(),
            progress,
            figures: Figures::default(),
        }
    }

    /// Waits until something is so.
    pub(crate) async fn until(
        &mut self,
        what: &'static str,
        is_so: impl Fn(&Self) -> bool,
    ) -> Result<(), Stuck> {
        while !is_so(self) {
            let news = tokio::select! {
                news = timeout_at(self.deadline, self.news.recv()) => news,
                _ = self.progress.tick() => {
                    self.tell_progress(what);
                    continue;
                }
            };
            match news {
                Ok(Some((client, news))) => self.take(client, news, what)?,
                Ok(None) => return Err(Stuck::Alone(what)),
                Err(_) => return Err(self.timeout(what)),
            }
        }
        Ok(())
    }

    /// Whether every post is answered, or lost with a kill.
    pub(crate) fn is_fed(&self) -> bool {
        self.fed.iter().all(|fed| *fed)
    }

    /// How many posts were answered.
    pub(crate) fn answered(&self) -> u64 {
        self.figures.acknowledged.saturating_add(self.figures.refused)
    }

    fn tell_progress(&self, what: &str) {
        let Figures { acknowledged, refused, disconnected, .. } = self.figures;
        println!(
            "  {:3} s: waiting for {what}; {} posts answered, life {}, {disconnected} connections lost",
            self.began.elapsed().as_secs(),
            acknowledged + refused,
            self.life()
        );
    }

    /// The newest life of the room that a client showed.
    pub(crate) fn life(&self) -> u64 {
        self.span().1.life
    }

    /// Whether all clients showed the same last record of an open life, and no acknowledged one is
    /// after it.
    pub(crate) fn is_even(&self) -> bool {
        let (least, most) = self.span();
        least == most && most.open && most >= self.placed
    }

    fn span(&self) -> (Place, Place) {
        let [least, most] = [self.shown.iter().min(), self.shown.iter().max()];
        (least.copied().unwrap_or_default(), most.copied().unwrap_or_default())
    }

    fn take(&mut self, client: usize, news: News, what: &'static str) -> Result<(), Stuck> {
        match news {
            News::Progress(progress) => self.add(client, progress),
            News::Restarted => self.figures.restarts += 1,
            News::Exited { status, asked, doubtful } if asked && status.success() => {
                self.figures.ended += 1;
                self.figures.doubtful += doubtful;
            }
            News::Exited { status, .. } => return Err(Stuck::Ended { client, status, what }),
            News::Failed(error) => return Err(Stuck::Failed { client, error, what }),
        }
        Ok(())
    }

    fn add(&mut self, client: usize, progress: Progress) {
        let figures = &mut self.figures;
        figures.records += progress.records;
        figures.acknowledged += progress.acknowledged;
        figures.refused += progress.refused;
        figures.overtaken += progress.overtaken;
        figures.connected += progress.connected;
        figures.disconnected += progress.disconnected;
        self.placed = self.placed.max(progress.placed);
        if let Some(shown) = self.shown.get_mut(client) {
            *shown = progress.shown.max(*shown);
        }
        if let Some(fed) = self.fed.get_mut(client) {
            *fed = progress.fed;
        }
    }

    fn timeout(&self, what: &'static str) -> Stuck {
        let unfed = self.fed.iter().filter(|fed| !**fed).count();
        let (figures, shown, placed) = (Box::new(self.figures), self.span(), self.placed);
        Stuck::Timeout { what, figures, unfed, shown, placed }
    }
}
