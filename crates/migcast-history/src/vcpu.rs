//! How busy a guest's vCPUs were while it was recorded.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::damage::ReadError;
use crate::reader::History;
use crate::windows::{State, Window};

/// vCPUs a guest may have; more than any hypervisor gives one.
const VCPUS_MAX: u32 = 1 << 16;

/// CPU time that the threads of a guest's vCPUs used while it was recorded. Sums, so that spans can be added.
///
/// What auto-converge makes a vCPU sleep it takes from its idle time first, each vCPU for itself. So the mean over the
/// vCPUs misleads: of four of which one does all the work, that one has no idle time to lose. [`VcpuTime::busy_share`] asks
/// for each second of CPU time how busy its own vCPU was meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VcpuTime {
    /// How many vCPUs, ≥ 1; the most there were at a time.
    pub vcpus: u32,
    /// Time over which they were watched, in nanoseconds, > 0.
    pub watched_ns: u64,
    /// CPU time of all vCPUs together, in nanoseconds; at most `vcpus` × `watched_ns`.
    pub busy_ns: u64,
    /// The same with each vCPU's time in each look's span (about a second) multiplied by the share of that span it is; at
    /// most `busy_ns`.
    pub weighted_ns: u64,
}

impl VcpuTime {
    /// What the vCPUs used in a span: `used_ns` holds one number per vCPU. A clock that ticks may show a little more than
    /// the span; that counts as all of it. `None` for an empty span or without vCPUs.
    pub fn of_span(span_ns: u64, used_ns: &[u64]) -> Option<VcpuTime> {
        let mut time =
            VcpuTime { vcpus: u32::try_from(used_ns.len()).ok()?, watched_ns: span_ns, busy_ns: 0, weighted_ns: 0 };
        for used in used_ns.iter().map(|used| (*used).min(span_ns)) {
            time.busy_ns = time.busy_ns.checked_add(used)?;
            time.weighted_ns += part(used, used, span_ns.max(1));
        }
        Some(time).filter(VcpuTime::is_valid)
    }

    /// Both spans together.
    pub fn and(self, other: VcpuTime) -> VcpuTime {
        VcpuTime {
            vcpus: self.vcpus.max(other.vcpus),
            watched_ns: self.watched_ns.saturating_add(other.watched_ns),
            busy_ns: self.busy_ns.saturating_add(other.busy_ns),
            weighted_ns: self.weighted_ns.saturating_add(other.weighted_ns),
        }
    }

    /// Its share of a part of the time: `of` out of `whole`, > 0, where `of` ≤ `whole`.
    pub(crate) fn share(self, of: u64, whole: u64) -> VcpuTime {
        VcpuTime {
            // Rounded up, so that no vCPU becomes busier than always.
            watched_ns: self.watched_ns - part(self.watched_ns, whole - of, whole),
            busy_ns: part(self.busy_ns, of, whole),
            weighted_ns: part(self.weighted_ns, of, whole),
            ..self
        }
    }

    /// How busy the vCPU was on which a second of CPU time was spent, on average over those seconds: 0 to 1. The vCPU's
    /// own share where there is one, that of the busy ones where others idle.
    pub fn busy_share(self) -> f64 {
        if self.busy_ns == 0 { 0.0 } else { self.weighted_ns as f64 / self.busy_ns as f64 }
    }

    /// CPU time per vCPU and time: 0 to 1.
    pub fn mean_share(self) -> f64 {
        self.busy_ns as f64 / (f64::from(self.vcpus) * self.watched_ns as f64)
    }

    /// Whether it keeps the rules of its fields.
    pub(crate) fn is_valid(&self) -> bool {
        let most = u128::from(self.vcpus) * u128::from(self.watched_ns);
        (1..=VCPUS_MAX).contains(&self.vcpus)
            && self.watched_ns > 0
            && u128::from(self.busy_ns) <= most
            && self.weighted_ns <= self.busy_ns
    }
}

/// value × of ÷ whole, rounded down, where `of` ≤ `whole`.
fn part(value: u64, of: u64, whole: u64) -> u64 {
    let part = u128::from(value) * u128::from(of) / u128::from(whole);
    u64::try_from(part).expect("a part is at most the whole")
}

/// Deals the time of the vCPUs, which is known by segment, out to the windows in which it was watched.
#[derive(Debug)]
pub(crate) struct VcpuShares<'a> {
    history: &'a History,
    /// The segment of the last window that was asked for: its windows, its time, and the length of those of its windows
    /// that are recorded, in nanoseconds.
    segment: Option<(Range<u32>, VcpuTime, u64)>,
}

impl<'a> VcpuShares<'a> {
    /// Nothing dealt out yet.
    pub(crate) fn of_history(history: &'a History) -> VcpuShares<'a> {
        VcpuShares { history, segment: None }
    }

    /// The share of the window of this index. Where nobody looked, nothing is read for it.
    pub(crate) fn of(&mut self, index: u32, window: &Window) -> Result<Option<VcpuTime>, ReadError> {
        if window.state != State::Recorded {
            return Ok(None);
        }
        if self.segment.as_ref().is_none_or(|(windows, ..)| !windows.contains(&index)) {
            let segment = self.history.segments().iter().find(|segment| segment.windows().contains(&index));
            let Some((segment, time)) = segment.and_then(|segment| Some((segment, segment.vcpu_time()?))) else {
                return Ok(None);
            };
            let windows = self.history.windows(segment)?;
            let recorded = windows.iter().filter(|window| window.state == State::Recorded);
            self.segment = Some((segment.windows(), time, recorded.map(Window::length_ns).sum()));
        }
        Ok(self.segment.as_ref().map(|(_, time, recorded)| time.share(window.length_ns(), *recorded)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn one_busy_vcpu_among_idle_ones_is_busy() {
        let time = VcpuTime::of_span(SECOND, &[SECOND, 0, 0, 0]).unwrap();
        assert_eq!((time.busy_share(), time.mean_share()), (1.0, 0.25));
        let even = VcpuTime::of_span(SECOND, &[SECOND / 4; 4]).unwrap();
        assert_eq!((even.busy_share(), even.mean_share()), (0.25, 0.25));
    }

    #[test]
    fn work_that_moves_between_vcpus_is_still_done_by_a_busy_one() {
        let one = VcpuTime::of_span(SECOND, &[SECOND, 0]).unwrap();
        let other = VcpuTime::of_span(SECOND, &[0, SECOND]).unwrap();
        assert_eq!(one.and(other).busy_share(), 1.0);
        assert_eq!(one.and(other).mean_share(), 0.5);
    }

    #[test]
    fn a_tick_too_much_is_all_of_the_span_and_nothing_is_no_span() {
        let time = VcpuTime::of_span(SECOND, &[SECOND + 10_000_000]).unwrap();
        assert_eq!((time.busy_ns, time.busy_share()), (SECOND, 1.0));
        assert_eq!(VcpuTime::of_span(SECOND, &[]), None);
        assert_eq!(VcpuTime::of_span(0, &[1]), None);
        assert_eq!(VcpuTime::of_span(SECOND, &[0]).unwrap().busy_share(), 0.0);
    }

    #[test]
    fn shares_add_up_and_stay_valid() {
        let whole = VcpuTime { vcpus: 3, watched_ns: 1_000_003, busy_ns: 3_000_009, weighted_ns: 3_000_009 };
        assert!(whole.is_valid());
        let parts = [1, 7, 92].map(|of| whole.share(of, 100));
        assert!(parts.iter().all(VcpuTime::is_valid), "{parts:?}");
        let sum = parts.into_iter().reduce(VcpuTime::and).unwrap();
        assert!(sum.watched_ns - whole.watched_ns <= 3 && whole.busy_ns - sum.busy_ns <= 3, "{sum:?}");
        assert_eq!(whole.share(100, 100), whole);
    }
}
