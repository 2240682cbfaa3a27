//! The CPU limit: credit that grows with time and is spent by work.

use std::time::Duration;

/// Span over which the limit holds. Closing a segment costs a burst once a minute; what was saved since the last one
/// pays for it, and no more than that is saved.
const MEMORY: Duration = Duration::from_secs(60);

/// Keeps the recorder's CPU time at or below a share of one core.
#[derive(Debug)]
pub(crate) struct Budget {
    /// Share of one core, > 0.
    limit: f64,
    credit_seconds: f64,
    /// When the credit was last brought up to date, and the CPU time used until then.
    at: Duration,
    spent: Duration,
}

impl Budget {
    /// Starts with nothing saved. `spent` is the CPU time used before `at`, which is not counted.
    pub(crate) fn new(limit: f64, at: Duration, spent: Duration) -> Budget {
        assert!(limit > 0.0, "a CPU limit is positive, not {limit}");
        Budget { limit, credit_seconds: 0.0, at, spent }
    }

    /// Brings the account up to `now`, when `spent` CPU time has been used in all.
    pub(crate) fn settle(&mut self, now: Duration, spent: Duration) {
        let earned = self.limit * now.saturating_sub(self.at).as_secs_f64();
        let cost = spent.saturating_sub(self.spent).as_secs_f64();
        self.credit_seconds = (self.credit_seconds + earned - cost).min(self.limit * MEMORY.as_secs_f64());
        self.at = now;
        self.spent = spent;
    }

    /// The earliest time at which work that will cost `expected` is paid for.
    pub(crate) fn affordable_at(&self, expected: Duration) -> Duration {
        let missing = expected.as_secs_f64() - self.credit_seconds;
        if missing <= 0.0 {
            return self.at;
        }
        // A limit so small that the wait overflows means: not in this recording.
        Duration::try_from_secs_f64(missing / self.limit).map_or(Duration::MAX, |wait| self.at.saturating_add(wait))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn work_waits_until_it_is_paid_for() {
        let mut budget = Budget::new(0.05, Duration::ZERO, 7 * MS);
        budget.settle(100 * MS, 7 * MS + 10 * MS);
        // 100 ms earned 5 ms, 10 ms were spent; 10 ms more cost 15 ms of credit at 5 %: 300 ms later.
        let at = budget.affordable_at(10 * MS);
        assert!(at.abs_diff(400 * MS) < MS / 100, "{at:?}");
    }

    #[test]
    fn saved_credit_pays_at_once_and_is_capped_at_a_minute() {
        let mut budget = Budget::new(0.05, Duration::ZERO, Duration::ZERO);
        budget.settle(Duration::from_secs(3600), Duration::ZERO);
        assert_eq!(budget.affordable_at(Duration::from_secs(2)), Duration::from_secs(3600));
        assert!(budget.affordable_at(Duration::from_secs(4)) > Duration::from_secs(3600));
    }

    #[test]
    fn a_tiny_limit_waits_for_ever_instead_of_overflowing() {
        let budget = Budget::new(1e-300, Duration::ZERO, Duration::ZERO);
        assert_eq!(budget.affordable_at(Duration::from_secs(1)), Duration::MAX);
    }
}
