//! The capability `dirty-limit` (8.1 and later, KVM with a dirty ring): each vCPU sleeps when its ring is full, longer or
//! shorter until it writes no more than its quota (softmmu/dirtylimit.c, `dirtylimit_adjust_throttle`).

use std::time::Duration;

use crate::units::{ByteCount, PageCount, SimTime};

/// Settings of dirty-limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirtyLimit {
    /// The capability `dirty-limit`. Default off.
    pub is_on: bool,
    /// `vcpu-dirty-limit`: bytes a second each vCPU may write. Default 1 MB/s, which QEMU counts in MiB.
    pub quota: crate::units::BytesPerSec,
    /// `x-vcpu-dirty-limit-period`: how often it is looked at. Default 1 s.
    pub period: Duration,
    /// Entries of a vCPU's ring (`dirty-ring-size` of the accelerator). 4096 is what QEMU's documentation uses.
    pub ring_entries: u64,
    /// The guest's vCPUs, which share its writes evenly here. Not a setting of QEMU's but of the guest.
    pub vcpus: u64,
}

impl Default for DirtyLimit {
    fn default() -> DirtyLimit {
        DirtyLimit {
            is_on: false,
            quota: crate::units::BytesPerSec::new(1 << 20),
            period: Duration::from_secs(1),
            ring_entries: 4096,
            vcpus: 1,
        }
    }
}

/// DIRTYLIMIT_TOLERANCE_RANGE: MB/s of difference that are left alone.
const TOLERANCE: f64 = 25.0;
/// DIRTYLIMIT_LINEAR_ADJUSTMENT_PCT: from this difference on, in percent of the larger, it is made up for at once.
const LINEAR_FROM_PERCENT: f64 = 50.0;
/// DIRTYLIMIT_THROTTLE_PCT_MAX: a vCPU sleeps at most so many times what its ring takes to fill, per hundred.
const SLEEP_PER_FILL_MAX: f64 = 99.0;

/// The controller of one vCPU; all of them are alike here.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limiter {
    limit: DirtyLimit,
    /// When it was last adjusted, and will be next: timers wait for the step under way.
    last: SimTime,
    next: SimTime,
    /// Largest rate seen, MB/s.
    rate_max: f64,
    /// Sleep each time the ring is full, seconds.
    sleep: f64,
    /// Share of its time the guest sleeps, in [0, 1).
    pub(super) share: f64,
}

impl Limiter {
    pub(super) fn start(limit: DirtyLimit, now: SimTime) -> Limiter {
        Limiter { limit, last: now, next: now + limit.period, rate_max: 0.0, sleep: 0.0, share: 0.0 }
    }

    pub(super) fn is_due(&self, now: SimTime) -> bool {
        now >= self.next
    }

    /// A period is over, in which the guest wrote so many distinct pages.
    pub(super) fn adjust(&mut self, now: SimTime, written: PageCount, page_size: ByteCount) {
        let mib = |bytes: f64| bytes / ByteCount::MIB.get() as f64;
        let seconds = now.since(self.last).as_secs_f64().max(1e-3);
        self.last = now;
        let rate = mib(written.bytes(page_size).get() as f64) / seconds / self.limit.vcpus as f64;
        let quota = mib(self.limit.quota.get() as f64);
        let ring = mib((self.limit.ring_entries * page_size.get()) as f64);
        self.next = now + self.limit.period;
        if rate <= 0.0 {
            return;
        }
        // How fast it would write without sleeping, from how fast it writes with.
        let unthrottled = rate / (1.0 - self.share);
        self.rate_max = self.rate_max.max(rate);
        let fill = ring / self.rate_max;
        if (rate - quota).abs() > TOLERANCE {
            let percent = 100.0 * (rate - quota).abs() / rate.max(quota);
            let change =
                if percent > LINEAR_FROM_PERCENT { fill * percent / (100.0 - percent).max(1.0) } else { fill / 10.0 };
            self.sleep += if rate > quota { change } else { -change };
            self.sleep = self.sleep.clamp(0.0, fill * SLEEP_PER_FILL_MAX);
        }
        self.share = self.sleep / (self.sleep + ring / unthrottled);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::BytesPerSec;

    const PAGE: ByteCount = ByteCount::new(4096);

    /// The share a guest of so many MiB/s sleeps after each of these periods of a second.
    fn shares(quota: u64, unthrottled: f64, periods: u32) -> Vec<f64> {
        let limit = DirtyLimit { is_on: true, quota: BytesPerSec::new(quota << 20), ..DirtyLimit::default() };
        let mut limiter = Limiter::start(limit, SimTime::ZERO);
        let period = |second: u32| {
            let written = (unthrottled * (1.0 - limiter.share) * 256.0) as u64;
            let now = SimTime::ZERO + Duration::from_secs(u64::from(second));
            assert!(limiter.is_due(now));
            limiter.adjust(now, PageCount::new(written), PAGE);
            limiter.share
        };
        (1..=periods).map(period).collect()
    }

    #[test]
    fn a_guest_far_above_its_quota_is_slowed_to_it_at_once() {
        // 200 MiB/s for a quota of 50: the ring of 16 MiB takes 80 ms to fill, and 240 ms of sleep make it a quarter.
        let shares = shares(50, 200.0, 3);
        assert!((shares[0] - 0.75).abs() < 0.01, "{shares:?}");
        assert!((shares[2] - 0.75).abs() < 0.01, "and stays there: {shares:?}");
    }

    #[test]
    fn a_guest_within_25_mb_of_its_quota_is_left_alone() {
        assert_eq!(shares(100, 124.0, 3), [0.0, 0.0, 0.0]);
    }

    #[test]
    fn a_guest_a_little_above_is_slowed_by_a_tenth_of_a_filling_at_a_time() {
        let shares = shares(100, 140.0, 2);
        assert!((shares[0] - 0.1 / 1.1).abs() < 0.01, "{shares:?}");
    }
}
