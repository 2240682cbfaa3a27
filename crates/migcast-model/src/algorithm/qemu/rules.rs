//! The decisions of QEMU's migration thread as pure functions, and what differs between versions.

use std::time::Duration;

use super::Settings;
use crate::outcome::StopReason;
use crate::units::{ByteCount, BytesPerSec, SimTime};

/// Versions whose rules differ; each stands until the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// 7.2
    V7_2,
    /// 8.0
    V8_0,
    /// 8.1: dirty-limit; multifd's channels are no longer synced with each section.
    V8_1,
    /// 8.2: `avail-switchover-bandwidth`; the rate limit counts bytes flushed, not bytes queued.
    V8_2,
    /// 9.0: syncs only strictly below the threshold.
    V9_0,
    /// 9.2: with auto-converge, a forced sync every 5 s.
    V9_2,
    /// 10.0
    V10_0,
    /// 10.1: what is left may equal the threshold.
    V10_1,
}

/// When the dirty log is read (`qemu_savevm_state_pending_exact`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncRule {
    /// What remains is less than the threshold: 7.2 (ram_save_pending), 9.0 and later (migration_iteration_run).
    Below,
    /// What remains is at most the threshold: 8.0 to 8.2.
    AtOrBelow,
}

/// When the guest is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompletionRule {
    /// Nothing pending, or less than the threshold: up to 10.0.
    Below,
    /// At most the threshold: 10.1 and later (7aaa1fc072).
    AtOrBelow,
}

/// What the rate limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateAccounting {
    /// Every byte at once as it is queued: up to 8.0 (QEMUFile.rate_limit_used), and 8.1, whose migration_transferred_bytes
    /// asks qemu_file_transferred, which flushes the stream before it counts.
    Queued,
    /// Bytes when the stream's buffer is flushed: 8.2 and later (migration_transferred_bytes without a QEMUFile).
    Flushed,
}

/// What distinguishes a version, for what is modelled here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// When the dirty log is read.
    pub sync: SyncRule,
    /// When the guest is stopped.
    pub completion: CompletionRule,
    /// What the rate limit counts of the main channel.
    pub rate_accounting: RateAccounting,
    /// Whether `avail-switchover-bandwidth` exists.
    pub has_avail_switchover_bandwidth: bool,
    /// With multifd, whether every section ends with a packet from each channel: up to 8.0.
    pub multifd_syncs_each_section: bool,
    /// With multifd, whether the channels look for zero pages (`zero-page-detection` multifd): 9.0 and later.
    pub channels_find_zero_pages: bool,
    /// With auto-converge, whether the log is read every 5 s: 9.2 and later (52ac968ab2).
    pub has_sync_timer: bool,
    /// With post-copy allowed, whether the log is read before every step: 8.0 to 8.2 (mended by 910c164736).
    pub postcopy_syncs_every_step: bool,
    /// Whether a post-copy that was asked for comes before the test for completion: 10.1 and later.
    pub postcopy_comes_first: bool,
}

impl Version {
    /// Every version, oldest first.
    pub const ALL: [Version; 8] = [
        Version::V7_2,
        Version::V8_0,
        Version::V8_1,
        Version::V8_2,
        Version::V9_0,
        Version::V9_2,
        Version::V10_0,
        Version::V10_1,
    ];

    /// The newest rules.
    pub const NEWEST: Version = Version::V10_1;

    /// The rules that hold for QEMU `major.minor`: those of the newest version here that is not newer. QEMU before 7.2
    /// has none.
    pub fn of(major: u32, minor: u32) -> Option<Version> {
        Version::ALL.into_iter().rfind(|version| version.number() <= (major, minor))
    }

    /// Major and minor number in a version text, such as `6.2.0 (Debian …)`.
    pub fn number_in(text: &str) -> Option<(u32, u32)> {
        let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse::<u32>().ok());
        Some((numbers.next()??, numbers.next()??))
    }

    /// Whether a version text names a QEMU before the oldest version here.
    pub fn is_older_than_all(text: &str) -> bool {
        Version::number_in(text).is_some_and(|number| number < Version::ALL[0].number())
    }

    /// Major and minor number.
    pub fn number(self) -> (u32, u32) {
        match self {
            Version::V7_2 => (7, 2),
            Version::V8_0 => (8, 0),
            Version::V8_1 => (8, 1),
            Version::V8_2 => (8, 2),
            Version::V9_0 => (9, 0),
            Version::V9_2 => (9, 2),
            Version::V10_0 => (10, 0),
            Version::V10_1 => (10, 1),
        }
    }

    /// Its name in the table of algorithms.
    pub fn name(self) -> &'static str {
        match self {
            Version::V7_2 => "qemu-7.2",
            Version::V8_0 => "qemu-8.0",
            Version::V8_1 => "qemu-8.1",
            Version::V8_2 => "qemu-8.2",
            Version::V9_0 => "qemu-9.0",
            Version::V9_2 => "qemu-9.2",
            Version::V10_0 => "qemu-10.0",
            Version::V10_1 => "qemu-10.1",
        }
    }

    /// What this version does.
    pub fn rules(self) -> Rules {
        Rules {
            sync: if (Version::V8_0..Version::V9_0).contains(&self) { SyncRule::AtOrBelow } else { SyncRule::Below },
            completion: if self >= Version::V10_1 { CompletionRule::AtOrBelow } else { CompletionRule::Below },
            rate_accounting: if self >= Version::V8_2 { RateAccounting::Flushed } else { RateAccounting::Queued },
            has_avail_switchover_bandwidth: self >= Version::V8_2,
            multifd_syncs_each_section: self < Version::V8_1,
            channels_find_zero_pages: self >= Version::V9_0,
            has_sync_timer: self >= Version::V9_2,
            postcopy_syncs_every_step: (Version::V8_0..Version::V9_0).contains(&self),
            postcopy_comes_first: self >= Version::V10_1,
        }
    }
}

impl Rules {
    /// Whether the dirty log is read before deciding, with `remaining` bytes known to be due.
    pub fn needs_sync(self, remaining: ByteCount, threshold: ByteCount) -> bool {
        match self.sync {
            SyncRule::Below => remaining < threshold,
            SyncRule::AtOrBelow => remaining <= threshold,
        }
    }

    /// Whether the guest is stopped now, with `pending` bytes to send, and why.
    pub fn stops(self, pending: ByteCount, threshold: ByteCount) -> Option<StopReason> {
        let stops = match self.completion {
            CompletionRule::Below => pending.is_zero() || pending < threshold,
            CompletionRule::AtOrBelow => pending <= threshold,
        };
        let reason = if pending.is_zero() { StopReason::NothingLeft } else { StopReason::BelowThreshold };
        stops.then_some(reason)
    }

    /// Bytes that may be due for the guest to be stopped, from what went out in a closed window
    /// (migration_update_counters). All in milliseconds, as QEMU's clock counts.
    pub fn threshold(self, settings: &Settings, transferred: ByteCount, spent: Duration) -> ByteCount {
        let measured = transferred.get() as f64 / spent.as_millis() as f64;
        let per_milli = match settings.avail_switchover_bandwidth {
            Some(stated) if self.has_avail_switchover_bandwidth => (stated.get() / 1000) as f64,
            _ => measured,
        };
        ByteCount::new((per_milli * settings.downtime_limit.as_millis() as f64) as u64)
    }
}

/// One bandwidth window: BUFFER_DELAY 100 ms, and the budget that goes with it.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    start_ms: u64,
    /// Bytes counted against the budget.
    pub used: ByteCount,
    /// Bytes handed to the link.
    pub transferred: ByteCount,
    budget: ByteCount,
}

impl Window {
    /// BUFFER_DELAY.
    pub const LENGTH: Duration = Duration::from_millis(100);
    const LENGTH_MS: u64 = 100;
    /// XFER_LIMIT_RATIO: windows per second of budget.
    const PER_SECOND: u64 = 10;

    /// A window that opens now, with a tenth of a second's worth of `max_bandwidth`.
    pub fn open(now: SimTime, max_bandwidth: BytesPerSec) -> Window {
        Window {
            start_ms: now.as_millis(),
            used: ByteCount::ZERO,
            transferred: ByteCount::ZERO,
            budget: ByteCount::new(max_bandwidth.get() / Window::PER_SECOND),
        }
    }

    /// How long the window has lasted, if that is long enough to close it.
    pub fn closes(&self, now: SimTime) -> Option<Duration> {
        let spent = now.as_millis().saturating_sub(self.start_ms);
        (spent >= Window::LENGTH_MS).then(|| Duration::from_millis(spent))
    }

    /// Strictly greater: the page that passes the budget is the last one.
    pub fn is_exceeded(&self) -> bool {
        self.used > self.budget
    }

    /// Bytes that may still be counted without exceeding the budget.
    pub fn left(&self) -> ByteCount {
        self.budget.saturating_sub(self.used)
    }

    /// When a thread over its budget wakes up.
    pub fn wake(&self) -> SimTime {
        SimTime::from_nanos((self.start_ms + Window::LENGTH_MS) * 1_000_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_of_a_budget_may_be_used_without_exceeding_it() {
        let mut window = Window::open(SimTime::ZERO, BytesPerSec::new(1_000));
        assert_eq!(window.left(), ByteCount::new(100));
        window.used = ByteCount::new(40);
        assert_eq!(window.left(), ByteCount::new(60));
        window.used += window.left();
        assert!(!window.is_exceeded());
        window.used += ByteCount::new(1);
        assert!(window.is_exceeded());
        assert_eq!(window.left(), ByteCount::ZERO);
    }
}
