//! A world that takes no step any more tells its seed.
//!
//! A step that never ends cannot say so itself. So whoever runs a world publishes where it is, and
//! somebody else looks from time to time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::off::Off;

/// How long a world may go without a step.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// Where one thread is.
#[derive(Debug, Default)]
pub struct Pulse {
    /// The world that it runs, if any.
    world: Mutex<Option<(u64, Off)>>,
    /// The step of that world that is under way.
    step: AtomicU64,
    /// Steps of all its worlds.
    beats: AtomicU64,
}

impl Pulse {
    /// A world begins.
    pub fn begin(&self, seed: u64, off: Off) {
        self.step.store(0, Ordering::Relaxed);
        self.beat(0);
        *self.world.lock().unwrap_or_else(PoisonError::into_inner) = Some((seed, off));
    }

    /// A step of it begins.
    pub(crate) fn beat(&self, step: u64) {
        self.step.store(step, Ordering::Relaxed);
        // Nobody else writes it.
        let beats = self.beats.load(Ordering::Relaxed);
        self.beats.store(beats.wrapping_add(1), Ordering::Relaxed);
    }

    /// The world has come to its end.
    pub fn end(&self) {
        *self.world.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Where the thread is; nothing while it runs no world.
    pub fn sign(&self) -> Option<Sign> {
        let world = *self.world.lock().unwrap_or_else(PoisonError::into_inner);
        let (seed, off) = world?;
        let (step, beats) = (self.step.load(Ordering::Relaxed), self.beats.load(Ordering::Relaxed));
        Some(Sign { seed, off, step, beats })
    }
}

/// What a pulse said at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sign {
    /// The world.
    pub seed: u64,
    /// What is switched off in it.
    pub off: Off,
    /// The step that is under way.
    pub step: u64,
    /// It grows with every step.
    pub beats: u64,
}

/// Every thread that runs worlds.
#[derive(Debug, Default)]
pub struct Watch(Mutex<Vec<Arc<Pulse>>>);

impl Watch {
    /// A pulse for one more thread.
    pub fn pulse(&self) -> Arc<Pulse> {
        let pulse = Arc::<Pulse>::default();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&pulse));
        pulse
    }

    /// Where each of them is.
    pub fn signs(&self) -> Vec<Option<Sign>> {
        let pulses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pulses.iter().map(|pulse| pulse.sign()).collect()
    }
}

/// What was seen of each thread, and since when it has been the same.
#[derive(Debug, Default)]
pub struct Seen(Vec<(Option<Sign>, Duration)>);

impl Seen {
    /// Looks at every thread. `now` is the time since any moment; the first world is told that has
    /// taken no step for as long as [`PATIENCE`].
    pub fn look(&mut self, now: Duration, signs: &[Option<Sign>]) -> Option<Sign> {
        self.0.resize(signs.len().max(self.0.len()), (None, now));
        let mut stuck = None;
        for ((seen, since), sign) in self.0.iter_mut().zip(signs) {
            if seen != sign {
                (*seen, *since) = (*sign, now);
            }
            let waits = now.saturating_sub(*since) >= PATIENCE;
            stuck = stuck.or_else(|| sign.filter(|_| waits));
        }
        stuck
    }
}

/// What is to be told of a world that takes no step.
pub fn tell(sign: Sign) -> String {
    let Sign { seed, off, step, .. } = sign;
    let seconds = PATIENCE.as_secs();
    let replay = off.replay(seed);
    format!("seed {seed} has been at step {step} for {seconds} s; replay: {replay} --trace")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn world_that_takes_no_step_for_a_minute_is_told() {
        let (watch, mut seen) = (Watch::default(), Seen::default());
        let [well, stuck] = [(); 2].map(|()| watch.pulse());
        well.begin(17, Off::default());
        stuck.begin(u64::MAX, Off::default());
        stuck.beat(5);
        assert_eq!(seen.look(at(100), &watch.signs()), None);
        well.beat(1);
        assert_eq!(seen.look(at(159), &watch.signs()), None);
        let told = seen.look(at(160), &watch.signs()).expect("a minute is over");
        assert_eq!((told.seed, told.step), (u64::MAX, 5));
        let text = tell(told);
        assert!(text.contains("--seed 18446744073709551615 --trace"), "{text}");
    }

    #[test]
    fn thread_that_runs_no_world_is_not_told() {
        let (watch, mut seen) = (Watch::default(), Seen::default());
        let pulse = watch.pulse();
        assert_eq!(seen.look(at(0), &watch.signs()), None);
        pulse.begin(1, Off::default());
        pulse.end();
        assert_eq!(seen.look(at(1_000), &watch.signs()), None);
        assert_eq!(seen.look(at(2_000), &watch.signs()), None);
    }

    #[test]
    fn the_same_seed_again_is_a_step() {
        let (watch, mut seen) = (Watch::default(), Seen::default());
        let pulse = watch.pulse();
        for secs in (0..600).step_by(30) {
            pulse.begin(7, Off::default());
            assert_eq!(seen.look(at(secs), &watch.signs()), None);
        }
    }
}
