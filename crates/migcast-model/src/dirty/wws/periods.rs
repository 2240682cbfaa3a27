//! What of an index is kept for stretches of the history rather than for each window: how its writes fall on the bands
//! of the memory, how often a page is written within a window, which pages are zero.
//!
//! ```text
//!  period     │ 0        │ 1        │ 2        │ …        windows, as many for each
//!  octave e   Σ min(gap, 2^e) over the writes of a period, per band: the mean write set of a span of 2^e windows
//! ```
//! A period grows with the history, so that there are never many: 1 window first, doubled when there are too many.

use super::gap::{self, FIRST_WRITE};
use super::tracker::TimesWritten;
use crate::dirty::{BANDS, PerBand};

/// Octaves of gaps that are told apart: 2^0, 2^1, … windows.
pub(super) const OCTAVES: usize = 33;

/// Most periods.
const PERIODS_MAX: usize = 1024;

/// The band of a tracked page. `rank` < `tracked`.
pub fn band(rank: u32, tracked: u32) -> u16 {
    let band = u64::from(rank) * BANDS as u64 / u64::from(tracked.max(1));
    u16::try_from(band).expect("a rank below the count lies in one of 64 bands")
}

/// What is counted in a period.
#[derive(Clone, Debug)]
pub(super) struct Period {
    /// Writes by octave of their gap: how many, and the sum of their gaps; those of unknown gap come last.
    writes: Vec<PerBand>,
    gaps: Vec<PerBand>,
    first: PerBand,
    /// Zero pages, summed over the windows.
    pub(super) zero: PerBand,
    /// Windows summed.
    pub(super) windows: f64,
    /// Writes by how often they count as written in their window, from once on.
    pub(super) times: TimesWritten,
    /// Writes that left their page zero.
    pub(super) left_zero: f64,
}

impl Default for Period {
    fn default() -> Self {
        Period {
            writes: Vec::new(),
            gaps: Vec::new(),
            first: [0.0; BANDS],
            zero: [0.0; BANDS],
            windows: 0.0,
            times: TimesWritten::default(),
            left_zero: 0.0,
        }
    }
}

impl Period {
    /// Counts `events` writes of this bucket in a band.
    pub(super) fn count(&mut self, band: u16, bucket: u16, events: f64) {
        let band = usize::from(band);
        if bucket == FIRST_WRITE {
            self.first[band] += events;
            return;
        }
        let octave = gap::bucket_start(bucket).ilog2() as usize;
        if self.writes.len() <= octave {
            self.writes.resize(octave + 1, [0.0; BANDS]);
            self.gaps.resize(octave + 1, [0.0; BANDS]);
        }
        let mean_gap = f64::from(gap::bucket_start(bucket)) + (f64::from(gap::bucket_width(bucket)) - 1.0) / 2.0;
        self.writes[octave][band] += events;
        self.gaps[octave][band] += events * mean_gap;
    }

    /// The first write of a page in this band was after all not the first: a history that starts over has one before.
    pub(super) fn lap(&mut self, band: u16, bucket: u16) {
        self.first[usize::from(band)] -= 1.0;
        self.count(band, bucket, 1.0);
    }

    fn merge(&mut self, other: &Period) {
        let add = |to: &mut PerBand, from: &PerBand| to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
        if self.writes.len() < other.writes.len() {
            self.writes.resize(other.writes.len(), [0.0; BANDS]);
            self.gaps.resize(other.gaps.len(), [0.0; BANDS]);
        }
        self.writes.iter_mut().zip(&other.writes).for_each(|(to, from)| add(to, from));
        self.gaps.iter_mut().zip(&other.gaps).for_each(|(to, from)| add(to, from));
        add(&mut self.first, &other.first);
        add(&mut self.zero, &other.zero);
        self.windows += other.windows;
        self.times = self.times.with(&other.times);
        self.left_zero += other.left_zero;
    }

    /// Σ min(gap, 2^octave) over the writes, per band.
    fn covered(&self, octave: usize) -> PerBand {
        let span = (1u64 << octave) as f64;
        let mut covered = self.first.map(|events| events * span);
        for (e, (writes, gaps)) in self.writes.iter().zip(&self.gaps).enumerate() {
            for band in 0..BANDS {
                // An octave begins with its power of two: what lies below `span` lies below it whole.
                covered[band] += if e < octave { gaps[band] } else { writes[band] * span };
            }
        }
        covered
    }
}

/// The periods of a history that is being counted.
#[derive(Clone, Debug)]
pub(super) struct Periods {
    /// Windows a period holds.
    each: u32,
    periods: Vec<Period>,
}

impl Periods {
    pub(super) fn new() -> Periods {
        Periods { each: 1, periods: Vec::new() }
    }

    /// The period of a window.
    pub(super) fn of(&mut self, window: u32) -> &mut Period {
        while window / self.each >= PERIODS_MAX as u32 {
            self.each *= 2;
            let halved = self.periods.chunks(2).map(|pair| {
                let mut merged = pair[0].clone();
                pair[1..].iter().for_each(|other| merged.merge(other));
                merged
            });
            self.periods = halved.collect();
        }
        let period = (window / self.each) as usize;
        if self.periods.len() <= period {
            self.periods.resize_with(period + 1, Period::default);
        }
        &mut self.periods[period]
    }

    /// Ends the counting after so many windows.
    pub(super) fn finish(self, windows: u32) -> Shares {
        let octaves = (windows.max(1).ilog2() as usize + 2).min(OCTAVES);
        let mut covered = vec![[0.0; BANDS]; octaves];
        let mut sums = covered.clone();
        for period in &self.periods {
            for (octave, sum) in covered.iter_mut().enumerate() {
                let more = period.covered(octave);
                sum.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
                sums.push(*sum);
            }
        }
        let mut zero_sums = vec![[0.0; BANDS]];
        let mut written = vec![Written::default()];
        for period in &self.periods {
            let mut sum = *zero_sums.last().expect("it begins with none");
            let mean = period.zero.map(|pages| pages / period.windows.max(1.0) * f64::from(self.each));
            sum.iter_mut().zip(mean).for_each(|(sum, mean)| *sum += mean);
            zero_sums.push(sum);
            let before = written.last().expect("it begins with none");
            written.push(before.with(period));
        }
        Shares { each: f64::from(self.each), octaves, sums, zero_sums, written }
    }
}

/// How the writes of a span fall on the bands, and what else periods say.
#[derive(Clone, Debug)]
pub(super) struct Shares {
    /// Windows a period holds.
    each: f64,
    octaves: usize,
    /// [`Period::covered`] summed over the periods before, for each octave: (periods + 1) × octaves.
    sums: Vec<PerBand>,
    /// Zero pages × windows, summed over the periods before.
    zero_sums: Vec<PerBand>,
    written: Vec<Written>,
}

/// Writes of the periods before, by what is said of them.
#[derive(Clone, Copy, Debug, Default)]
struct Written {
    times: TimesWritten,
    left_zero: f64,
}

impl Written {
    fn with(&self, period: &Period) -> Written {
        Written { times: self.times.with(&period.times), left_zero: self.left_zero + period.left_zero }
    }
}

impl Shares {
    fn periods(&self) -> usize {
        self.written.len() - 1
    }

    /// Periods of the windows (from, to], at least one. Windows at and beyond the end are those of the last period.
    fn periods_of(&self, from: f64, to: f64) -> (usize, usize) {
        let first = ((from / self.each) as usize).min(self.periods() - 1);
        (first, ((to / self.each).ceil() as usize).clamp(first + 1, self.periods()))
    }

    /// Shares of the bands, which add up to one, in the pages written in windows (from, to]. Equal ones where nothing
    /// was written.
    pub(super) fn of_span(&self, from: f64, to: f64) -> PerBand {
        let mut shares = [0.0; BANDS];
        let (first, end) = self.periods_of(from, to);
        // Between two octaves the write set grows as a straight line would over the logarithm's mantissa.
        let span = (to - from).max(1.0);
        let octave = (span.log2() as usize).min(self.octaves - 1);
        let above = (octave + 1).min(self.octaves - 1);
        let weight = (span / (1u64 << octave) as f64 - 1.0).clamp(0.0, 1.0);
        let at = |period: usize, octave: usize| &self.sums[period * self.octaves + octave];
        let [low_first, low_end] = [first, end].map(|period| at(period, octave));
        let [high_first, high_end] = [first, end].map(|period| at(period, above));
        let mut total = 0.0;
        for band in 0..BANDS {
            let low = low_end[band] - low_first[band];
            let high = high_end[band] - high_first[band];
            shares[band] = low + (high - low) * weight;
            total += shares[band];
        }
        if total > 0.0 {
            shares.iter_mut().for_each(|share| *share /= total);
        } else {
            shares.fill(1.0 / BANDS as f64);
        }
        shares
    }

    /// Tracked zero pages per band in the period of a window.
    pub(super) fn zero(&self, window: f64) -> PerBand {
        let (first, end) = self.periods_of(window, window);
        std::array::from_fn(|band| (self.zero_sums[end][band] - self.zero_sums[first][band]) / self.each)
    }

    /// Tracked zero pages on average.
    pub(super) fn zero_mean(&self) -> f64 {
        self.zero_sums[self.periods()].iter().sum::<f64>() / (self.each * self.periods() as f64)
    }

    /// Of the pages written in windows (from, to] the share that was left zero.
    pub(super) fn left_zero(&self, from: f64, to: f64) -> f64 {
        let (first, end) = self.periods_of(from, to);
        let (before, after) = (&self.written[first], &self.written[end]);
        let writes = after.times.without(&before.times).writes();
        if writes > 0.0 { (after.left_zero - before.left_zero) / writes } else { 0.0 }
    }

    /// Of the pages written in this window those met in a part of it, `span` ≤ 1 window long; as a multiple of `span`.
    pub(super) fn within_window(&self, window: f64, span: f64) -> f64 {
        let (first, end) = self.periods_of(window, window);
        self.written[end].times.without(&self.written[first].times).met_within(span)
    }

    /// The same over the whole history.
    pub(super) fn within_any_window(&self, span: f64) -> f64 {
        self.written[self.periods()].times.met_within(span)
    }
}
