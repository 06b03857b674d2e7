//! Breaks connections at random.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fastrand::Rng;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::proxy::{End, Fault, Live, Side};

/// What was broken so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    closes: u64,
    resets: u64,
    half_open: u64,
    deaf: u64,
    stalls: u64,
}

impl Faults {
    /// Connections that ended.
    pub(crate) const fn cuts(&self) -> u64 {
        self.closes + self.resets + self.half_open + self.deaf
    }

    const fn count(&mut self, fault: Fault) {
        let count = match fault {
            Fault::Cut(End::Close) => &mut self.closes,
            Fault::Cut(End::Reset) => &mut self.resets,
            Fault::HalfOpen { .. } => &mut self.half_open,
            Fault::Deaf(_) => &mut self.deaf,
            Fault::Stall(_) => &mut self.stalls,
        };
        *count = count.saturating_add(1);
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { closes, resets, half_open, deaf, stalls } = self;
        write!(f, "{} cuts ({closes} closed, {resets} reset, ", self.cuts())?;
        write!(f, "{half_open} half open, {deaf} deaf), {stalls} stalls")
    }
}

/// Breaks connections until it is dropped.
#[derive(Debug)]
pub(crate) struct Chaos {
    task: JoinHandle<()>,
    faults: Arc<Mutex<Faults>>,
}

impl Drop for Chaos {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Chaos {
    /// Breaks so many connections a second on average.
    pub(crate) fn start(live: Live, per_second: u32, seed: u64) -> Self {
        let faults = Arc::new(Mutex::new(Faults::default()));
        let count = Arc::clone(&faults);
        let mut random = Rng::with_seed(seed);
        let task = tokio::spawn(async move {
            let Some(pause) = Duration::from_secs(1).checked_div(per_second) else { return };
            loop {
                sleep(pause.mul_f64(2.0 * random.f64())).await;
                let fault = draw(&mut random);
                if live.hit(random.f64(), fault) {
                    count.lock().unwrap_or_else(PoisonError::into_inner).count(fault);
                }
            }
        });
        Self { task, faults }
    }

    pub(crate) fn faults(&self) -> Faults {
        *self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn draw(random: &mut Rng) -> Fault {
    match random.u8(..10) {
        0..=2 => Fault::Cut(End::Close),
        3..=4 => Fault::Cut(End::Reset),
        5 => Fault::Stall(Duration::from_millis(random.u64(50..2_000))),
        6..=7 => Fault::Deaf(Duration::from_millis(random.u64(50..1_500))),
        side => {
            let unaware = if side == 8 { Side::Client } else { Side::Server };
            Fault::HalfOpen { unaware, until: Duration::from_millis(random.u64(200..5_000)) }
        }
    }
}
