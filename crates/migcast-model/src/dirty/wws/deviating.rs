//! An index as it might be if other pages had been tracked: what the sampling error of a forecast off it is measured with.

use std::ops::Range;
use std::time::Duration;

use super::design_effect::between_octaves;
use super::{IndexCounts, WwsIndex};
use crate::dirty::{BANDS, CountedSource, DirtySource, Estimate, PerBand, SpanCounts, ZeroPlaces, zero_places};
use crate::units::{GuestTime, PageCount};

/// An index whose counts are as another draw of the tracked pages might have them.
#[derive(Clone, Debug)]
pub struct Deviating<'a> {
    index: &'a WwsIndex,
    /// What counts of written pages are multiplied with, of spans of 2^[`Self::FIRST`], 2^([`Self::FIRST`] + 1), … windows.
    factors: Vec<f64>,
    /// Zero pages that there are more.
    more_zero: f64,
    /// Where they lie then.
    zero_at_end: Option<ZeroPlaces>,
}

impl WwsIndex {
    /// This index with its counts of written pages so many standard errors of sampling larger, or smaller if negative: each as
    /// is known of spans of its length, at most by half.
    pub fn deviating(&self, standard_errors: f64) -> Deviating<'_> {
        let window = self.length as f64 / self.levels.windows();
        let last = libm::log2(self.levels.windows()).ceil() as i32;
        let factor = |octave: i32| {
            let Estimate { mean, variance } =
                self.write_set(Duration::from_nanos((window * libm::exp2(f64::from(octave))) as u64));
            let relative = if mean > 0.0 { standard_errors * variance.sqrt() / mean } else { 0.0 };
            1.0 + relative.clamp(-0.5, 0.5)
        };
        let factors = (Deviating::FIRST..=last).map(factor).collect();
        Deviating { index: self, factors, more_zero: 0.0, zero_at_end: self.zero_at_end.clone() }
    }

    /// Likewise with its zero pages.
    pub fn deviating_in_zero(&self, standard_errors: f64) -> Deviating<'_> {
        let more_zero = standard_errors * self.zero().variance.sqrt();
        let zero_at_end = self.zero_at_end.as_ref().map(|places| places.shifted(more_zero));
        Deviating { index: self, factors: vec![1.0], more_zero, zero_at_end }
    }
}

impl Deviating<'_> {
    /// Spans of a thousandth of a window are the shortest that are told apart.
    const FIRST: i32 = -10;

    /// What the count of a span of so many windows is multiplied with: between two octaves on a straight line.
    fn factor(&self, windows: f64) -> f64 {
        let place = libm::log2(windows) - f64::from(Self::FIRST);
        between_octaves(place, self.factors.len() - 1, |octave| self.factors[octave])
    }
}

impl DirtySource for Deviating<'_> {
    fn memory(&self) -> PageCount {
        self.index.memory
    }

    fn length(&self) -> Option<Duration> {
        self.index.length()
    }

    fn write_set(&self, span: Duration) -> Estimate {
        let Estimate { mean, variance } = self.index.write_set(span);
        let factor = self.factor(span.as_secs_f64() * 1e9 * self.index.per_nano);
        Estimate { mean: mean * factor, variance: variance * factor * factor }
    }

    fn zero(&self) -> Estimate {
        let Estimate { mean, variance } = self.index.zero();
        Estimate { mean: (mean + self.more_zero).clamp(0.0, self.index.memory.get() as f64), variance }
    }

    fn never_zero(&self) -> PageCount {
        self.index.never_zero()
    }
}

impl CountedSource for Deviating<'_> {
    type Counts<'b>
        = DeviatingCounts<'b>
    where
        Self: 'b;

    fn counts(&self, start: Duration) -> DeviatingCounts<'_> {
        DeviatingCounts { deviating: self, counts: self.index.counts(start) }
    }
}

/// A [`Deviating`] index from one starting point on.
#[derive(Clone, Copy, Debug)]
pub struct DeviatingCounts<'a> {
    deviating: &'a Deviating<'a>,
    counts: IndexCounts<'a>,
}

impl SpanCounts for DeviatingCounts<'_> {
    fn written(&self, since: GuestTime, until: GuestTime) -> f64 {
        let (from, to) = self.counts.span(since, until);
        self.counts.written_in(from, to) * self.deviating.factor(to - from)
    }

    fn written_by_band(&self, since: GuestTime, until: GuestTime, bands: Range<usize>, pages: &mut [f64]) {
        let (from, to) = self.counts.span(since, until);
        let written = self.counts.written_in(from, to) * self.deviating.factor(to - from);
        self.counts.spread(from, to, written, bands, pages);
    }

    fn has_zero(&self) -> bool {
        self.counts.has_zero()
    }

    fn zero_is_fixed(&self) -> bool {
        self.counts.zero_is_fixed()
    }

    fn zero_places(&self) -> Option<&ZeroPlaces> {
        self.counts.zero_places().and(self.deviating.zero_at_end.as_ref())
    }

    fn zero_per_band(&self, at: GuestTime) -> PerBand {
        let mut zero = self.counts.zero_per_band(at);
        zero_places::shift(
            &mut zero,
            self.deviating.index.memory.get() as f64 / BANDS as f64,
            self.deviating.more_zero,
        );
        zero
    }

    fn left_zero(&self, since: GuestTime, until: GuestTime) -> f64 {
        self.counts.left_zero(since, until)
    }
}
