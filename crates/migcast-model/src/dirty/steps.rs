//! AVG, with the rate of the moment: what is left to say of a guest of whom only rates are known.

use std::time::Duration;

use super::{ConstantCursor, ConstantRate, DirtySource, Estimate, PageSource};
use crate::units::{PageCount, PagesPerSec};

/// A guest that writes at a rate which depends on when its migration starts, and is constant during the migration.
///
/// The rates are those in force at moments that are evenly spread over what was measured: all weigh the same.
#[derive(Clone, Debug)]
pub struct RateSteps {
    /// Since the start of the series, ascending; at least one.
    steps: Vec<(Duration, ConstantRate)>,
}

impl RateSteps {
    /// Writes like `guest`, at the rate in force at the start: that of the last of `steps` (times since the start of the
    /// series, ascending; at least one) not after it, of the first one before that.
    ///
    /// # Panics
    /// If there is no step, or they do not ascend.
    pub fn new(guest: &ConstantRate, steps: &[(Duration, PagesPerSec)]) -> RateSteps {
        assert!(!steps.is_empty(), "a series has at least one rate");
        assert!(steps.is_sorted_by(|a, b| a.0 < b.0), "steps ascend");
        RateSteps { steps: steps.iter().map(|(at, rate)| (*at, guest.with_rate(*rate))).collect() }
    }

    /// What is in force at this start.
    pub(super) fn at(&self, start: Duration) -> &ConstantRate {
        let after = self.steps.partition_point(|(at, _)| *at <= start);
        &self.steps[after.saturating_sub(1)].1
    }
}

impl DirtySource for RateSteps {
    fn memory(&self) -> PageCount {
        self.steps[0].1.memory()
    }

    /// A rate stays in force for the whole migration, so nothing is ever repeated.
    fn length(&self) -> Option<Duration> {
        None
    }

    fn write_set(&self, span: Duration) -> Estimate {
        let sets = self.steps.iter().map(|(_, rate)| rate.write_set(span).mean);
        Estimate::exact(sets.sum::<f64>() / self.steps.len() as f64)
    }

    fn zero(&self) -> Estimate {
        self.steps[0].1.zero()
    }

    fn never_zero(&self) -> PageCount {
        self.steps[0].1.never_zero()
    }
}

impl PageSource for RateSteps {
    type Cursor<'a> = ConstantCursor<'a>;

    fn tracked(&self) -> PageCount {
        self.steps[0].1.tracked()
    }

    fn cursor(&self, start: Duration) -> ConstantCursor<'_> {
        self.at(start).cursor(start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dirty::{PageCursor, WritePattern};
    use crate::units::GuestTime;

    fn source() -> RateSteps {
        let memory = PageCount::new(1_000);
        let guest = ConstantRate::new(memory, memory, PagesPerSec::ZERO, WritePattern::Sequential, 0);
        let step = |seconds, rate| (Duration::from_secs(seconds), PagesPerSec::new(rate));
        RateSteps::new(&guest, &[step(5, 100.0), step(15, 0.0), step(25, 300.0)])
    }

    #[test]
    fn the_rate_at_the_start_stays_in_force() {
        let source = source();
        let written = |start| {
            let mut cursor = source.cursor(Duration::from_secs(start));
            let mut count = 0;
            cursor.advance(GuestTime::from_nanos(20_000_000_000), |_| count += 1);
            count
        };
        // Twenty seconds' writes, whatever rates come after the start; a sequential writer comes round to each page.
        assert_eq!([0, 5, 14, 15, 24, 25, 90].map(written), [2_000, 2_000, 2_000, 0, 0, 6_000, 6_000]);
    }

    #[test]
    fn write_sets_are_the_mean_of_those_of_the_rates() {
        let source = source();
        let span = Duration::from_secs(1);
        assert!((source.write_set(span).mean - 400.0 / 3.0).abs() < 1e-9, "{:?}", source.write_set(span));
        assert_eq!((source.memory().get(), source.never_zero().get(), source.zero().mean), (1_000, 1_000, 0.0));
    }
}
