//! What is known of all clients together, and waiting for it to change.

use std::process::ExitStatus;

use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use crate::client::{News, Progress};

/// Gathers the news of all clients.
#[derive(Debug)]
pub(crate) struct Board {
    news: mpsc::Receiver<(usize, News)>,
    deadline: Instant,
    /// The last record that each client showed.
    shown: Vec<u64>,
    fed: Vec<bool>,
    /// The last place that a post was acknowledged at.
    placed: u64,
    pub(crate) figures: Figures,
}

/// Counts over all clients.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Figures {
    pub(crate) records: u64,
    pub(crate) acknowledged: u64,
    pub(crate) refused: u64,
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
         without all posts answered, records shown {}..={} of {}",
        figures.acknowledged, figures.refused, unfed, shown.0, shown.1, placed
    )]
    Timeout { what: &'static str, figures: Figures, unfed: usize, shown: (u64, u64), placed: u64 },
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
        let (shown, fed) = (vec![0; clients], vec![false; clients]);
        Self { news, deadline, shown, fed, placed: 0, figures: Figures::default() }
    }

    /// Waits until something is so.
    pub(crate) async fn until(
        &mut self,
        what: &'static str,
        is_so: impl Fn(&Self) -> bool,
    ) -> Result<(), Stuck> {
        while !is_so(self) {
            match timeout_at(self.deadline, self.news.recv()).await {
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

    /// Whether all clients showed the same last record, and no acknowledged one is after it.
    pub(crate) fn is_even(&self) -> bool {
        let (least, most) = self.span();
        least == most && most >= self.placed
    }

    fn span(&self) -> (u64, u64) {
        let [least, most] = [self.shown.iter().min(), self.shown.iter().max()];
        (least.copied().unwrap_or(0), most.copied().unwrap_or(0))
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
        let (figures, shown, placed) = (self.figures, self.span(), self.placed);
        Stuck::Timeout { what, figures, unfed, shown, placed }
    }
}
