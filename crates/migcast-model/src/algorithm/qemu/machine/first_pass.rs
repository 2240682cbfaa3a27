//! Strides of the first pass, kept for the next migration of the same scenario.
//!
//! Until the log is read for the first time nothing that a guest writes has a part in it: where pages are all alike, clock,
//! buffer and window go the same way from every starting point. A forecast has thousands of them, and the first pass of a
//! large guest most of the steps: the first migration takes them and notes where each one led; the others look up how
//! far they come.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use super::Qemu;
use crate::algorithm::qemu::rules::{Rules, Window};
use crate::link::SendQueue;
use crate::units::{ByteCount, BytesPerSec, SimTime};

/// Shorter strides are taken as fast as they are looked up.
const STEPS_MIN: usize = 8;
/// Of longer ones the beginning is kept, in some megabytes: an hour of steps.
const STEPS_MAX: usize = 1 << 16;

/// What first passes of one scenario have in common, whatever their starting points.
#[derive(Debug, Default)]
pub struct FirstPass(RwLock<Strides>);

/// Strides by when they begin.
type Strides = BTreeMap<SimTime, (Standing, Arc<[Step]>)>;

/// Where a stride begins, as far as its steps depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Standing {
    now: SimTime,
    queue: SendQueue,
    window: Window,
    threshold: ByteCount,
    granted: BytesPerSec,
}

/// Where a step of a stride led.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    /// Pages of the stride so far.
    pub(super) gone: u64,
    pub(super) now: SimTime,
    queue: SendQueue,
    window: Window,
    threshold: ByteCount,
    /// How much may have been due at the stride's beginning, in bytes, for the log to be read after this step or an
    /// earlier one: what has gone, and the threshold.
    reach: ByteCount,
}

/// A stride of the first pass that is about to be taken.
pub(super) enum Ahead {
    /// Somebody took one that begins likewise.
    Known(Arc<[Step]>),
    /// Nobody has: its steps are noted.
    New(Notes),
}

/// The steps of a stride as it is taken.
pub(super) struct Notes {
    first_pass: Arc<FirstPass>,
    begins: Standing,
    steps: Vec<Step>,
}

impl FirstPass {
    fn from(&self, standing: Standing) -> Option<Arc<[Step]>> {
        // Nobody can have left it half written.
        let kept = self.0.read().unwrap_or_else(PoisonError::into_inner);
        kept.get(&standing.now).filter(|(known, _)| *known == standing).map(|(_, steps)| Arc::clone(steps))
    }
}

impl Notes {
    /// The step that has just led `machine` to `now`.
    pub(super) fn note<D>(&mut self, machine: &Qemu<D>, gone: u64, now: SimTime) {
        if self.steps.len() < STEPS_MAX {
            let Qemu { queue, window, threshold, .. } = *machine;
            let reach = ByteCount::new(gone * machine.guest.page_size.get()) + threshold;
            let reach = self.steps.last().map_or(reach, |before| before.reach.max(reach));
            self.steps.push(Step { gone, now, queue, window, threshold, reach });
        }
    }

    /// Leaves them to the others.
    pub(super) fn keep(self) {
        let Notes { first_pass, begins, steps } = self;
        if steps.len() >= STEPS_MIN {
            let mut kept = first_pass.0.write().unwrap_or_else(PoisonError::into_inner);
            kept.entry(begins.now).or_insert_with(|| (begins, steps.into()));
        }
    }
}

/// Of the steps of a stride those that are taken with `due` bytes due at its beginning: none that would come to the page
/// `alike`, none after the log is to be read or `until` has come. Says whether one of these two ends it.
pub(super) fn taken(steps: &[Step], rules: Rules, (alike, due): (u64, ByteCount), until: SimTime) -> (&[Step], bool) {
    let among = &steps[..steps.partition_point(|step| step.gone < alike)];
    let goes_on = among.partition_point(|step| step.now < until && !rules.needs_sync(due, step.reach));
    if goes_on < among.len() { (&among[..=goes_on], true) } else { (among, false) }
}

impl<D> Qemu<D> {
    /// Looks up the stride that begins here, if others share this first pass.
    pub(super) fn stride_ahead(&self, granted: BytesPerSec) -> Option<Ahead> {
        let first_pass = self.first_pass.as_ref().filter(|_| self.syncs == 1)?;
        let Qemu { now, queue, window, threshold, .. } = *self;
        let begins = Standing { now, queue, window, threshold, granted };
        Some(match first_pass.from(begins) {
            Some(steps) => Ahead::Known(steps),
            None => Ahead::New(Notes { first_pass: Arc::clone(first_pass), begins, steps: Vec::new() }),
        })
    }

    /// Stands where this step led, but for the clock.
    pub(super) fn stand(&mut self, step: Step) {
        (self.queue, self.window, self.threshold) = (step.queue, step.window, step.threshold);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::algorithm::qemu::Version;

    /// Ten steps of 100 pages and 50 ms; a threshold of 50 pages from the third on.
    fn steps() -> Vec<Step> {
        let step = |index: u64| {
            let threshold = ByteCount::new(if index < 3 { 0 } else { 50 * 4096 });
            let now = SimTime::from_nanos(index * 50_000_000);
            let reach = ByteCount::new(index * 100 * 4096) + threshold;
            let window = Window::open(now, BytesPerSec::new(1));
            Step { gone: index * 100, now, queue: SendQueue::new(ByteCount::ZERO), window, threshold, reach }
        };
        (1..=10).map(step).collect()
    }

    #[test]
    fn as_many_steps_are_taken_as_if_each_were_looked_at() {
        let steps = steps();
        let taken = |version: Version, alike, due: u64, until| {
            let due = ByteCount::new(due * 4096);
            let (taken, is_over) = taken(&steps, version.rules(), (alike, due), SimTime::from_nanos(until));
            (taken.len(), is_over)
        };
        let newest = |alike, due, until| taken(Version::NEWEST, alike, due, until);
        assert_eq!(newest(10_000, 10_000, u64::MAX), (10, false), "all of them");
        assert_eq!(newest(10_000, 10_000, 200_000_000), (4, true), "until somebody looks");
        assert_eq!(newest(400, 10_000, u64::MAX), (3, false), "the fourth would come to a page of another kind");
        assert_eq!(newest(100, 10_000, u64::MAX), (0, false));
        // 649 - 600 = 49 pages left are below the threshold, 650 - 600 = 50 are at it.
        assert_eq!(newest(10_000, 649, u64::MAX), (6, true));
        assert_eq!(newest(10_000, 650, u64::MAX), (7, true));
        assert_eq!(taken(Version::V8_2, 10_000, 650, u64::MAX), (6, true), "8.2 reads at it, too");
    }
}
