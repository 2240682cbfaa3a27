//! AVG by counting: a constant rate asked how many pages it writes, never which.

use std::ops::Range;
use std::time::Duration;

use super::{BANDS, ConstantRate, CountedSource, DirtySource, Estimate, PerBand, RateSteps, SpanCounts};
use crate::units::{GuestTime, PageCount};

/// Rates of which no page is looked at: a forecast costs the same whatever the memory. As such a guest no page is zero, and
/// a span holds what it holds on average: W(t) of [`ConstantRate`], spread evenly over the bands.
#[derive(Clone, Debug)]
pub struct CountedRates {
    rates: RateSteps,
}

impl CountedRates {
    /// The counts of `rates`, of which no page is zero.
    pub fn new(rates: RateSteps) -> CountedRates {
        CountedRates { rates }
    }
}

impl DirtySource for CountedRates {
    fn memory(&self) -> PageCount {
        self.rates.memory()
    }

    fn length(&self) -> Option<Duration> {
        self.rates.length()
    }

    fn write_set(&self, span: Duration) -> Estimate {
        self.rates.write_set(span)
    }

    fn zero(&self) -> Estimate {
        Estimate::exact(0.0)
    }

    fn never_zero(&self) -> PageCount {
        self.memory()
    }
}

impl CountedSource for CountedRates {
    type Counts<'a> = RateCounts<'a>;

    fn counts(&self, start: Duration) -> RateCounts<'_> {
        RateCounts { rate: self.rates.at(start) }
    }
}

/// Counts at the rate in force at the start.
#[derive(Clone, Copy, Debug)]
pub struct RateCounts<'a> {
    rate: &'a ConstantRate,
}

impl SpanCounts for RateCounts<'_> {
    fn written(&self, since: GuestTime, until: GuestTime) -> f64 {
        self.rate.write_set(until.since(since)).mean
    }

    fn written_by_band(&self, since: GuestTime, until: GuestTime, _bands: Range<usize>, pages: &mut [f64]) {
        pages.fill(self.written(since, until) / BANDS as f64);
    }

    fn has_zero(&self) -> bool {
        false
    }

    fn zero_per_band(&self, _at: GuestTime) -> PerBand {
        [0.0; BANDS]
    }

    fn left_zero(&self, _since: GuestTime, _until: GuestTime) -> f64 {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::algorithm::Algorithm;
    use crate::dirty::WritePattern;
    use crate::guest::Guest;
    use crate::link::Link;
    use crate::outcome::Outcome;
    use crate::platform::Platform;
    use crate::simulate::Scenario;
    use crate::units::{BytesPerSec, PagesPerSec};

    /// The rules that do not ask which pages come to the same as page by page.
    #[test]
    fn counting_comes_to_what_page_by_page_comes_to() {
        let memory = PageCount::new(100_000);
        let guest = Guest::new("g", memory.bytes(Guest::PAGE_SIZE));
        for (algorithm, rate, set, pattern) in [
            ("xen-4.10", 4_000.0, 30_000, WritePattern::Uniform),
            ("qemu-10.0", 4_000.0, 30_000, WritePattern::Uniform),
            ("qemu-10.0", 9_000.0, 12_000, WritePattern::Uniform),
            ("cloud-hypervisor", 3_000.0, 100_000, WritePattern::Uniform),
            ("xen-4.10", 4_000.0, 12_000, WritePattern::Sequential),
        ] {
            let exact = ConstantRate::new(memory, PageCount::new(set), PagesPerSec::new(rate), pattern, 1);
            let counted = CountedRates::new(RateSteps::new(&exact, &[(Duration::ZERO, PagesPerSec::new(rate))]));
            let scenario = Scenario {
                guest: guest.clone(),
                link: Link::ethernet(BytesPerSec::new(100_000_000)),
                platform: Platform::default(),
                algorithm: Algorithm::named(algorithm).unwrap(),
                horizon: Duration::from_secs(600),
            };
            let told = |outcome: Outcome| {
                let done = outcome.completed().unwrap().clone();
                (done.migration_time.as_secs_f64(), done.downtime.total().as_secs_f64())
            };
            let (exact, counted) =
                (told(scenario.run(&exact, Duration::ZERO)), told(scenario.run(&counted, Duration::ZERO)));
            assert!((counted.0 / exact.0 - 1.0).abs() < 0.01, "{algorithm} {pattern:?}: {counted:?} of {exact:?}");
            // QEMU stops where a step falls, so a hundredth of the time is a tenth of the downtime.
            assert!((counted.1 / exact.1 - 1.0).abs() < 0.1, "{algorithm} {pattern:?}: {counted:?} of {exact:?}");
        }
    }
}
