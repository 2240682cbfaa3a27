//! The WWS index: how many distinct pages were written in any span of a history, without the pages.
//!
//! ```text
//!  windows of written pages ─► part: what is kept of them ─► levels: writes per window and gap bucket, whole memory
//!            a recorder, while it records; on disk      ├──► runs: pages written in windows on end, for spans within one
//!                                                       └──► shares: the bands' parts in them, zero pages
//! ```
//! A write counts in a span if it is its page's first there: if its gap, the windows since that page was written before,
//! reaches back to the span's beginning. So counting the writes by window and gap is enough (footprint theory of cache
//! locality, Xiang, Ding et al., for writes). [`part`] is what is counted, [`levels`] reads a span off in constant time, with
//! [`runs`] one shorter than a window; [`shares`] says how it falls on the bands of the memory, by their [`footprints`], [`seam`] how the history's end is
//! joined to its beginning. What a sample errs by tells [`design_effect`]; [`deviating`] is an index that errs by so much.
//!
//! As the replay does, the index runs in recorded time, gaps left out, starts over at the end, and takes the moments of a
//! window's writes to be spread evenly over it.

mod design_effect;
mod deviating;
mod footprints;
pub mod gap;
mod levels;
pub mod part;
mod runs;
mod seam;
mod shares;
mod tracker;

use std::ops::Range;
use std::time::Duration;

pub use design_effect::{DesignEffect, Neighbours};
pub use deviating::Deviating;
pub use part::{PartRecorder, WwsPart};
pub use runs::{Lengthened, RunCount, TIMES_MAX};
pub use shares::band;
pub use tracker::{Lap, Write, WriteTracker};

use self::levels::{Counts, Levels, level_of};
use self::part::GapCount;
use self::runs::{Runs, RunsBuilder};
use self::seam::Seam;
use self::shares::{Shares, SharesBuilder};
pub use super::BANDS;
use super::{CountedSource, DirtySource, Estimate, PerBand, SpanCounts, ZeroChange, ZeroPlaces};
use crate::units::{GuestTime, PageCount};

/// Windows that come one by one are taken for a part when there are so many.
const PART: u32 = 1024;

/// What was written in any span, as counts. Memory: some 400 bytes for each window, and 1.3 kB for each cell.
#[derive(Clone, Debug)]
pub struct WwsIndex {
    tracked: u32,
    memory: PageCount,
    levels: Levels,
    runs: Runs,
    shares: Shares,
    /// Window k spans `time_bounds[k]..time_bounds[k + 1]`, in nanoseconds of recorded time.
    time_bounds: Vec<u64>,
    /// The last of them.
    length: u64,
    /// Windows in a nanosecond, on average.
    per_nano: f64,
    /// Tracked pages written, each counted in every window it was written in.
    written: u64,
    /// Writes by bucket.
    totals: Vec<u64>,
    /// Tracked pages that were zero at some moment, at most.
    ever_zero: u64,
    /// Where the zero pages of the end lie, where somebody has seen them.
    zero_at_end: Option<ZeroPlaces>,
    /// Whether every start finds the zero pages of the end, instead of those of its moment.
    starts_from_end: bool,
    /// Of a sample, where its recorder told.
    design_effect: Option<DesignEffect>,
}

/// Collects windows into a [`WwsIndex`]: one by one, or parts that were recorded.
#[derive(Clone, Debug)]
pub struct WwsIndexBuilder {
    tracked: u32,
    memory: PageCount,
    /// Where windows come one by one.
    recorder: Option<PartRecorder>,
    counts: Counts,
    runs: RunsBuilder,
    shares: SharesBuilder,
    time_bounds: Vec<u64>,
    totals: Vec<u64>,
    /// Writes of known gap by window, as differences from the window before.
    known: Vec<f64>,
    /// Windows that were recorded before the first.
    before: u32,
    /// The windows with which counting begins anew.
    seams: Vec<u32>,
    /// Windows up to now since the last of them, and what was counted before that.
    remembered: u32,
    ever_zero: u64,
    zero_at_end: Option<ZeroPlaces>,
    /// Of the part whose recorder has seen most.
    design_effect: Option<DesignEffect>,
}

impl WwsIndexBuilder {
    /// `tracked` pages stand for `memory` pages: equal in a full recording, fewer in a sampled one.
    ///
    /// # Panics
    /// Unless 0 < `tracked` ≤ `memory`, and `tracked` < 2^32.
    pub fn new(tracked: PageCount, memory: PageCount) -> Self {
        assert!(!tracked.is_zero() && tracked <= memory, "some of the memory is tracked");
        WwsIndexBuilder {
            tracked: u32::try_from(tracked.get()).expect("ranks of tracked pages are 32 bits"),
            memory,
            recorder: None,
            counts: Counts::default(),
            runs: RunsBuilder::default(),
            shares: SharesBuilder::new(),
            time_bounds: vec![0],
            totals: vec![0; usize::from(gap::BUCKETS)],
            known: Vec::new(),
            before: 0,
            seams: Vec::new(),
            remembered: 0,
            ever_zero: 0,
            zero_at_end: None,
            design_effect: None,
        }
    }

    fn recorder(&mut self) -> &mut PartRecorder {
        self.recorder.get_or_insert_with(|| PartRecorder::new(self.tracked, self.memory, 1))
    }

    /// The zero map at the start of the next window: runs of ranks that are zero, and no other is. Without it no page is
    /// zero at the start.
    pub fn zero_at_start(&mut self, runs: impl IntoIterator<Item = Range<u32>>) {
        self.recorder().zero_at_start(runs);
    }

    /// Appends a recorded window: its length (> 0), the ranks written in it (each once) and the changes of the zero map.
    pub fn window(&mut self, length: Duration, written: &[u32], zero: &[ZeroChange]) {
        let recorder = self.recorder();
        recorder.change_zero(zero.iter().copied());
        recorder.window(length, written);
        if recorder.windows() == PART {
            let part = recorder.take();
            self.part(&part);
        }
    }

    /// Appends a part, which was recorded after those before it, or laid behind them ([`WwsPart::remember`]). Gaps that reach back
    /// beyond the first part are not known.
    pub fn part(&mut self, part: &WwsPart) {
        let first = self.counts.windows();
        // What goes on behind a seam remembers back to it, and no further.
        if first == 0 || part.before < self.remembered {
            self.seams.push(first);
        }
        let goes_on_from = part.before.min(self.remembered);
        self.remembered = part.before.saturating_add(part.windows.len() as u32);
        for window in &part.windows {
            self.counts.window(window.written);
            self.time_bounds.push(self.time_bounds[self.time_bounds.len() - 1] + window.nanos);
        }
        if first == 0 {
            (self.before, self.ever_zero) = (part.before, part.zero_at_start);
        }
        self.ever_zero += part.made_zero;
        self.known.resize(self.time_bounds.len(), 0.0);
        part.gaps.iter().for_each(|count| self.gap(first, *count));
        self.runs.part(first, goes_on_from, &part.runs, &part.lengthened);
        self.shares.part(part);
        let seen = |effect: &Option<DesignEffect>| effect.as_ref().map(|effect| effect.windows);
        if seen(&part.design_effect) >= seen(&self.design_effect) {
            self.design_effect.clone_from(&part.design_effect);
        }
    }

    /// The zero map at the end of the last part, page by page: ascending runs of ranks that are zero. Of windows that come one
    /// by one it is known.
    pub fn zero_at_end(&mut self, runs: impl IntoIterator<Item = Range<u32>>) {
        self.zero_at_end = Some(ZeroPlaces::new(self.tracked, self.memory, runs));
    }

    /// Counts writes of a part that begins with window `first`.
    fn gap(&mut self, first: u32, GapCount { window, bucket, writes }: GapCount) {
        let (from, end) = (first + window, self.counts.windows());
        let to = from.saturating_add(1 << level_of(bucket)).min(end);
        // Of a page that was written before the first part it is not known when.
        let middle = from + (to - from) / 2;
        let seen = if self.before == 0 { u32::MAX } else { middle };
        let writes = part::seen_of(writes, bucket, seen, self.before.saturating_add(middle));
        if writes > 0 {
            self.counts.spread(from..to, bucket, writes);
            self.total(from, bucket, writes);
            let each = f64::from(writes) / f64::from(to - from);
            self.known[from as usize] += each;
            self.known[to as usize] -= each;
        }
    }

    /// The finished index, or `None` if it holds no window.
    pub fn build(mut self) -> Option<WwsIndex> {
        let recorder = self.recorder.take();
        let last = recorder.map(|mut recorder| (recorder.take(), recorder));
        if let Some((part, recorder)) = &last {
            self.part(part);
            self.zero_at_end(recorder.zero().map(|rank| rank..rank + 1));
            recorder.laps(|lap| {
                self.lap(lap.first, gap::bucket(lap.gap), 1);
                self.shares.lap(lap.first, band(lap.rank, self.tracked), lap.gap);
            });
        }
        if self.counts.windows() == 0 {
            return None;
        }
        if last.is_none() {
            self.close_seam();
            self.shares.close_seam(&self.seams, self.before);
        }
        let written = self.counts.written().iter().map(|pages| u64::from(*pages)).sum();
        let length = self.time_bounds[self.time_bounds.len() - 1];
        let per_nano = f64::from(self.counts.windows()) / length as f64;
        let runs = self.runs.finish(self.counts.windows());
        let (levels, shares) = rayon::join(|| self.counts.finish(), || self.shares.finish(&self.totals));
        Some(WwsIndex {
            length,
            per_nano,
            tracked: self.tracked,
            memory: self.memory,
            written,
            levels,
            runs,
            shares,
            time_bounds: self.time_bounds,
            totals: self.totals,
            ever_zero: self.ever_zero.min(u64::from(self.tracked)),
            zero_at_end: self.zero_at_end,
            starts_from_end: false,
            design_effect: self.design_effect,
        })
    }

    /// The first writes of pages have a gap after all: the history starts over.
    fn lap(&mut self, window: u32, bucket: u16, writes: u32) {
        self.counts.count(window, bucket, writes);
        self.total(window, bucket, writes);
    }

    /// Writes of a known gap: to the bucket's total, and those of gap 1, which are known to the window, to the runs.
    fn total(&mut self, window: u32, bucket: u16, writes: u32) {
        self.totals[usize::from(bucket)] += u64::from(writes);
        if bucket == gap::bucket(1) {
            self.runs.gone_on(window, writes);
        }
    }

    fn close_seam(&mut self) {
        let mut known = 0.0;
        let unknown = self.counts.written().iter().zip(&self.known).map(|(written, more)| {
            known += more;
            f64::from(*written) - known
        });
        let unknown: Vec<f64> = unknown.collect();
        Seam::new(&self.totals, &unknown, &self.seams)
            .give(&unknown, |window, bucket, writes| self.lap(window, bucket, writes));
    }
}

impl WwsIndex {
    /// Number of recorded windows.
    pub fn windows(&self) -> usize {
        self.time_bounds.len() - 1
    }

    /// Start of each window, in recorded time.
    pub fn window_starts(&self) -> impl ExactSizeIterator<Item = Duration> + '_ {
        self.time_bounds[..self.windows()].iter().map(|nanos| Duration::from_nanos(*nanos))
    }

    /// This index for a migration that is still to come: as [`PageReplay::from_last_zero_map`], but what is written on the
    /// way leaves the zero pages as they are.
    ///
    /// [`PageReplay::from_last_zero_map`]: crate::dirty::PageReplay::from_last_zero_map
    pub fn from_last_zero_map(self) -> WwsIndex {
        WwsIndex { starts_from_end: true, ..self }
    }

    /// Tracked pages, fewer than the memory's in a sampled history.
    pub fn tracked(&self) -> PageCount {
        PageCount::new(self.tracked.into())
    }

    /// Pages of the memory a tracked page stands for.
    fn weight(&self) -> f64 {
        self.memory.get() as f64 / f64::from(self.tracked)
    }

    /// Where a recorded time lies, in windows. Windows are nearly of one length, so it is looked for near where it lies
    /// if they were.
    fn place(&self, nanos: u64) -> f64 {
        let (bounds, last) = (&self.time_bounds, self.windows() - 1);
        // Signed numbers are converted in one step.
        let mut window =
            ((nanos.cast_signed() as f64 * self.per_nano) as i64).cast_unsigned().min(last as u64) as usize;
        if bounds[window] > nanos || bounds[window + 1] <= nanos {
            window = self.window_near(window, nanos);
        }
        let (begin, end) = (bounds[window], bounds[window + 1]);
        let [part, whole] = [nanos - begin, end - begin].map(|nanos| nanos.cast_signed() as f64);
        window.cast_signed() as f64 + part / whole
    }

    /// The window in which a recorded time lies, looked for from another on.
    fn window_near(&self, mut window: usize, nanos: u64) -> usize {
        let (bounds, last) = (&self.time_bounds, self.windows() - 1);
        let mut step = 1;
        // Gallop to a window at or before it, then on to the last such.
        while bounds[window] > nanos {
            window = window.saturating_sub(step);
            step *= 2;
        }
        step = 1;
        while window + step <= last && bounds[window + step] <= nanos {
            window += step;
            step *= 2;
        }
        window + bounds[window..=last.min(window + step)].partition_point(|bound| *bound <= nanos) - 1
    }

    /// Tracked pages written in windows (from, to].
    fn distinct(&self, from: f64, to: f64) -> f64 {
        let span = to - from;
        if span <= 0.0 {
            0.0
        } else if span >= 1.0 {
            self.levels.distinct(from, to).max(0.0)
        } else {
            self.levels.begun(from, to).max(0.0) + self.runs.met(from, span)
        }
    }
}

impl DirtySource for WwsIndex {
    fn memory(&self) -> PageCount {
        self.memory
    }

    fn length(&self) -> Option<Duration> {
        Some(Duration::from_nanos(self.length))
    }

    /// Each write's share in all spans of this length is min(gap, span), over all positions. The variance of a sample is that of
    /// a draw of each page by itself, times the design effect of the recording ([`DesignEffect`]), 1 where none was kept; of a
    /// span shorter than a window that of a window.
    fn write_set(&self, span: Duration) -> Estimate {
        let windows = self.levels.windows();
        let span = span.as_secs_f64() * 1e9 / self.length as f64 * windows;
        let in_sample = if span < 1.0 {
            (self.written as f64 - self.runs.writes()) / windows * span + self.runs.met_anywhere(span)
        } else {
            let covered = |(bucket, events): (usize, &u64)| {
                let bucket = bucket as u16;
                *events as f64 * mean_covered(bucket, span)
            };
            self.totals.iter().enumerate().map(covered).sum::<f64>() / windows
        };
        let weight = self.weight();
        let variance = DesignEffect::write_set_variance(self.design_effect.as_ref(), weight, in_sample, span);
        Estimate { mean: in_sample * weight, variance }
    }

    fn zero(&self) -> Estimate {
        let tracked = match self.starts_from_end {
            true => self.shares.zero_at_end().iter().sum(),
            false => self.shares.zero_mean(),
        };
        let weight = self.weight();
        // Without one as if each page had been drawn by itself.
        let alone = tracked * (1.0 - tracked / f64::from(self.tracked)).max(0.0);
        let within = self.design_effect.as_ref().map_or(alone, |effect| effect.zero_within_runs(self.tracked));
        Estimate { mean: tracked * weight, variance: weight * (weight - 1.0) * within }
    }

    fn never_zero(&self) -> PageCount {
        PageCount::new(u64::from(self.tracked) - self.ever_zero).scale(self.memory.get(), u64::from(self.tracked))
    }
}

/// The mean of min(gap, span) over the gaps of a bucket, for a span of a window or more.
fn mean_covered(bucket: u16, span: f64) -> f64 {
    let (start, width) = (f64::from(gap::bucket_start(bucket)), f64::from(gap::bucket_width(bucket)));
    let last = start + width - 1.0;
    if span >= last {
        (start + last) / 2.0
    } else if span <= start {
        span
    } else {
        let below = span.floor() - start + 1.0;
        ((start + span.floor()) / 2.0 * below + span * (width - below)) / width
    }
}

impl CountedSource for WwsIndex {
    type Counts<'a> = IndexCounts<'a>;

    fn counts(&self, start: Duration) -> IndexCounts<'_> {
        let origin = (start.as_nanos() % u128::from(self.length)) as u64;
        IndexCounts { index: self, origin, weight: self.weight() }
    }
}

/// A [`WwsIndex`] from one starting point on.
#[derive(Clone, Copy, Debug)]
pub struct IndexCounts<'a> {
    index: &'a WwsIndex,
    /// Recorded time at guest time zero.
    origin: u64,
    /// Pages of the memory a tracked page stands for.
    weight: f64,
}

impl IndexCounts<'_> {
    /// Both ends of a span in windows; the first within the history, the second up to its length behind.
    fn span(&self, since: GuestTime, until: GuestTime) -> (f64, f64) {
        let from = self.wrapped(since);
        let length = self.index.length;
        let nanos = (until.as_nanos() - since.as_nanos()).min(length);
        let (from_place, to) = (self.index.place(from), from + nanos);
        let laps = self.index.levels.windows();
        let to_place = if to < length { self.index.place(to) } else { laps + self.index.place(to - length) };
        (from_place, to_place)
    }

    fn wrapped(&self, at: GuestTime) -> u64 {
        let (length, at) = (self.index.length, at.as_nanos());
        let at = if at < length { at } else { at % length };
        // Both lie before the end.
        let (left, origin) = (length - at, self.origin);
        if origin < left { origin + at } else { origin - left }
    }

    /// How `written` pages that were written in windows (from, to] fall on these bands.
    fn spread(&self, from: f64, to: f64, written: f64, bands: Range<usize>, pages: &mut [f64]) {
        let span = to - from;
        let met = if span > 0.0 && span < 1.0 { self.index.runs.share_met(from, span) } else { 1.0 };
        self.index.shares.of_bands(from, to, met, written, bands, pages);
    }

    /// Distinct pages written in windows (from, to].
    fn written_in(&self, from: f64, to: f64) -> f64 {
        self.index.distinct(from, to) * self.weight
    }
}

impl SpanCounts for IndexCounts<'_> {
    fn written(&self, since: GuestTime, until: GuestTime) -> f64 {
        let (from, to) = self.span(since, until);
        self.written_in(from, to)
    }

    fn written_by_band(&self, since: GuestTime, until: GuestTime, bands: Range<usize>, pages: &mut [f64]) {
        let (from, to) = self.span(since, until);
        self.spread(from, to, self.written_in(from, to), bands, pages);
    }

    fn has_zero(&self) -> bool {
        self.index.ever_zero > 0
    }

    fn zero_is_fixed(&self) -> bool {
        self.index.starts_from_end || !self.has_zero()
    }

    fn zero_places(&self) -> Option<&ZeroPlaces> {
        self.index.zero_at_end.as_ref().filter(|_| self.index.starts_from_end && self.has_zero())
    }

    fn zero_per_band(&self, at: GuestTime) -> PerBand {
        let zero = match self.index.starts_from_end {
            true => self.index.shares.zero_at_end(),
            false => self.index.shares.zero(self.index.place(self.wrapped(at))),
        };
        zero.map(|pages| pages * self.weight)
    }

    fn left_zero(&self, since: GuestTime, until: GuestTime) -> f64 {
        if !self.index.shares.leaves_zero() {
            return 0.0;
        }
        let (from, to) = self.span(since, until);
        self.index.shares.left_zero(from, to)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::dirty::splitmix;

    const WINDOW: Duration = Duration::from_millis(100);

    fn index(pages: u64, windows: &[Vec<u32>]) -> WwsIndex {
        let mut builder = WwsIndexBuilder::new(PageCount::new(pages), PageCount::new(pages));
        windows.iter().for_each(|written| builder.window(WINDOW, written, &[]));
        builder.build().unwrap()
    }

    /// Distinct pages of windows from..to, which may go on behind the end.
    fn distinct(windows: &[Vec<u32>], from: usize, to: usize) -> f64 {
        let pages: BTreeSet<u32> = (from..to).flat_map(|k| windows[k % windows.len()].iter().copied()).collect();
        pages.len() as f64
    }

    /// A guest that writes at random: of its pages every one in `hot` all the time, the rest now and then.
    fn hot_and_cold(pages: u32, windows: u32) -> Vec<Vec<u32>> {
        let is_written = |window: u32, page: u32| {
            let one_in = if page.is_multiple_of(16) { 4 } else { 400 };
            splitmix(u64::from(window), u64::from(page)).is_multiple_of(one_in)
        };
        (0..windows).map(|window| (0..pages).filter(|page| is_written(window, *page)).collect()).collect()
    }

    fn at(windows: f64) -> GuestTime {
        GuestTime::from_nanos((windows * 1e8) as u64)
    }

    #[test]
    fn long_spans_are_within_a_percent_of_a_count() {
        let windows = hot_and_cold(4_000, 900);
        let index = index(4_000, &windows);
        for (from, to) in [(0, 20), (100, 133), (40, 140), (250, 800), (700, 901), (890, 1_000), (450, 1_350), (5, 69)]
        {
            let counted = distinct(&windows, from, to);
            let told = index.counts(WINDOW * from as u32).written(GuestTime::ZERO, at((to - from) as f64));
            assert!((told / counted - 1.0).abs() < 0.01, "{from}..{to}: {told} against {counted}");
        }
    }

    /// Pages of the first four bands come back every 300 windows, others hardly ever.
    fn busy_bands(windows: Range<u32>) -> Vec<Vec<u32>> {
        let is_written = |window: u32, page: u32| {
            let one_in = if page < 400 { 300 } else { 20_000 };
            splitmix(u64::from(window), u64::from(page)).is_multiple_of(one_in)
        };
        windows.map(|window| (0..6_400).filter(|page| is_written(window, *page)).collect()).collect()
    }

    /// From the parts of these pieces, each recorded by itself.
    fn from_parts(pieces: &[&[Vec<u32>]]) -> WwsIndex {
        let pages = PageCount::new(6_400);
        let mut builder = WwsIndexBuilder::new(pages, pages);
        for windows in pieces {
            let mut recorder = PartRecorder::new(6_400, pages, 8);
            for windows in windows.chunks(PART as usize) {
                windows.iter().for_each(|written| recorder.window(WINDOW, written));
                builder.part(&recorder.take());
            }
        }
        builder.build().unwrap()
    }

    /// How many pages of the busy bands an index tells of a span, over how many were counted.
    fn told_of_busy_bands(index: &WwsIndex, windows: &[Vec<u32>], from: usize, to: usize) -> f64 {
        let pages: BTreeSet<u32> = windows[from..to].iter().flatten().copied().collect();
        let mut told = [0.0; 4];
        let counts = index.counts(WINDOW * from as u32);
        counts.written_by_band(GuestTime::ZERO, at((to - from) as f64), 0..4, &mut told);
        told.iter().sum::<f64>() / pages.range(..400).count() as f64
    }

    #[test]
    fn bands_are_told_apart_at_the_beginning_too_where_no_gap_is_known() {
        let windows = busy_bands(0..3_000);
        for index in [index(6_400, &windows), from_parts(&[&windows])] {
            for (from, to) in [(0, 250), (0, 600), (200, 1_200), (1_100, 1_700)] {
                let told = told_of_busy_bands(&index, &windows, from, to);
                assert!((told - 1.0).abs() < 0.02, "{from}..{to}: {told} times as many");
            }
        }
    }

    #[test]
    fn and_at_the_beginning_of_each_piece_of_a_joined_history() {
        let windows = busy_bands(0..6_000);
        let index = from_parts(&[&windows[..3_072], &windows[3_072..]]);
        for (from, to) in [(0, 600), (2_600, 3_600), (3_072, 3_672), (3_200, 4_200), (3_700, 4_700), (4_200, 5_200)] {
            let pages: BTreeSet<u32> = windows[from..to].iter().flatten().copied().collect();
            let written = index.counts(WINDOW * from as u32).written(GuestTime::ZERO, at((to - from) as f64));
            for told in [written / pages.len() as f64, told_of_busy_bands(&index, &windows, from, to)] {
                assert!((told - 1.0).abs() < 0.04, "{from}..{to}: {told} times as many");
            }
        }
    }

    #[test]
    fn a_span_longer_than_the_history_holds_every_page_that_was_ever_written() {
        let windows = vec![vec![1, 2], vec![2], vec![3], vec![], vec![1]];
        let index = index(8, &windows);
        for start in 0..5 {
            for length in [5.0, 7.3, 1e6] {
                let told = index.counts(WINDOW * start).written(at(0.0), at(length));
                assert!((told - 3.0).abs() < 1e-6, "{told}");
            }
        }
    }

    #[test]
    fn a_page_in_every_window_is_once_in_each_span_and_often_in_a_window() {
        let index = index(64, &vec![vec![9]; 600]);
        let told = |from: f64, span: f64| index.counts(Duration::ZERO).written(at(from), at(from + span));
        for span in [1.0, 1.5, 2.0, 17.3, 599.0] {
            assert!((told(300.25, span) - 1.0).abs() < 1e-6, "{span}: {}", told(300.25, span));
        }
        assert!((told(300.0, 0.5) - 1.0).abs() < 0.002, "but for the ends of its run: {}", told(300.0, 0.5));
        assert!((told(300.0, 0.1) - 0.6).abs() < 0.01, "six times a window, ln 601: {}", told(300.0, 0.1));
    }

    #[test]
    fn more_writes_than_a_sum_of_32_bits_holds_wrap_around_unseen() {
        // Four million pages in every one of 1,200 windows: the sums begin anew at the 1,074th.
        let (pages, windows) = (4_000_000, 0..1_200);
        let part = WwsPart {
            before: 10_000,
            cell: 8,
            windows: vec![part::PartWindow { nanos: 100_000_000, written: pages }; windows.len()],
            gaps: windows.map(|window| GapCount { window, bucket: gap::bucket(1), writes: pages }).collect(),
            ..WwsPart::default()
        };
        let mut builder = WwsIndexBuilder::new(PageCount::new(5_000_000), PageCount::new(5_000_000));
        builder.part(&part);
        let index = builder.build().unwrap();
        for start in [0, 500, 1_070, 1_073, 1_074, 1_190] {
            let told = index.counts(WINDOW * start).written(GuestTime::ZERO, at(5.0));
            assert!((told / f64::from(pages) - 1.0).abs() < 1e-6, "from {start}: {told}");
        }
    }

    #[test]
    fn the_bands_share_what_was_written_in_them() {
        // Pages 0 and 1 all the time, page 40 once in ten windows, page 63 once.
        let windows: Vec<Vec<u32>> = (0..300)
            .map(|k| match k {
                200 => vec![0, 1, 40, 63],
                _ if k % 10 == 0 => vec![0, 1, 40],
                _ => vec![0, 1],
            })
            .collect();
        let index = index(64, &windows);
        let told = index.counts(Duration::ZERO).written_per_band(at(100.0), at(132.0));
        let expected = |band: usize| match band {
            0 | 1 | 40 => 1.0,
            _ => 0.0,
        };
        (0..BANDS).for_each(|band| assert!((told[band] - expected(band)).abs() < 0.2, "{band}: {}", told[band]));
        let told = index.counts(Duration::ZERO).written_per_band(at(200.0), at(201.0));
        assert!((told[63] - 1.0).abs() < 0.05 && (told[0] - 1.0).abs() < 0.05);
    }

    #[test]
    fn of_cells_at_the_ends_of_a_span_the_part_in_it_counts() {
        // In the first cell of 8 windows a band is written, in the second another, then none.
        let window = |k: u32| (0..10).map(|page| if k < 8 { 10 * k + page } else { 420 + 10 * k + page }).collect();
        let windows: Vec<Vec<u32>> = (0..16).map(window).chain((0..48).map(|_| Vec::new())).collect();
        let index = from_parts(&[&windows]);
        for (from, to, expected) in [(4.0, 9.0, [40.0, 10.0]), (2.5, 8.5, [55.0, 5.0]), (0.0, 16.0, [80.0, 80.0])] {
            let told = index.counts(Duration::ZERO).written_per_band(at(from), at(to));
            let near = |(told, expected): (f64, f64)| (told - expected).abs() < 0.02 * expected;
            assert!([told[0], told[5]].into_iter().zip(expected).all(near), "{from}..{to}: {}, {}", told[0], told[5]);
        }
    }

    #[test]
    fn a_history_of_more_cells_than_are_held_has_longer_ones() {
        // Each band in turn, for 64 windows: its page always, another once.
        let mut builder = WwsIndexBuilder::new(PageCount::new(128), PageCount::new(128));
        for k in 0..140_000u32 {
            let written = [0, 1].map(|more| k / 64 % 64 * 2 + more);
            builder.window(WINDOW, if k % 64 == 8 { &written } else { &written[..1] }, &[]);
        }
        let index = builder.build().unwrap();
        let told = |from: f64, to: f64| index.counts(Duration::ZERO).written_per_band(at(from), at(to));
        for turn in [0.0, 1_000.0, 2_180.0] {
            let (from, band) = (64.0 * turn, turn as usize % 64);
            let near =
                |told: f64, expected: f64| assert!((told - expected).abs() < 0.1, "{turn}: {told}, not {expected}");
            near(told(from, from + 64.0)[band], 2.0);
            near(told(from + 32.0, from + 64.0)[band], 1.0);
            let both = told(from + 32.0, from + 96.0);
            near(both[band], 1.0);
            near(both[band + 1], 2.0);
        }
    }

    #[test]
    fn zero_pages_are_told_by_band_and_of_what_was_written() {
        let mut builder = WwsIndexBuilder::new(PageCount::new(128), PageCount::new(256));
        builder.zero_at_start(std::iter::once(64..128));
        for window in 0..10 {
            let changes = [ZeroChange { rank: 64 + window, zero: false }, ZeroChange { rank: window, zero: true }];
            builder.window(WINDOW, &[window, 64 + window], &changes);
        }
        let index = builder.build().unwrap();
        assert_eq!((index.zero().mean, index.never_zero().get()), (128.0, 2 * (128 - 74)));
        let counts = index.counts(Duration::ZERO);
        let zero = counts.zero_per_band(at(9.5));
        assert_eq!(
            (zero[0], zero[5], zero[32], zero[37], zero[63]),
            (4.0, 0.0, 0.0, 4.0, 4.0),
            "two tracked pages a band"
        );
        assert_eq!(counts.left_zero(at(0.0), at(10.0)), 0.5);
        let later = index.clone().from_last_zero_map();
        let (first, last) = (later.counts(Duration::ZERO).zero_per_band(at(0.0)), zero);
        assert_eq!((first[0], first[32]), (last[0], last[32]), "those of the end, from the beginning on");
    }

    #[test]
    fn the_mean_write_set_is_that_of_the_replay() {
        let windows = hot_and_cold(2_000, 300);
        let mut replay = crate::dirty::PageReplayBuilder::new(PageCount::new(2_000), PageCount::new(2_000));
        windows.iter().for_each(|written| replay.window(WINDOW, written, &[]));
        let (replay, index) = (replay.build().unwrap(), index(2_000, &windows));
        for millis in [20, 100, 250, 1_600, 5_000, 29_000] {
            let span = Duration::from_millis(millis);
            let (oracle, told) = (replay.write_set(span).mean, index.write_set(span).mean);
            assert!((told / oracle - 1.0).abs() < 0.03, "{millis} ms: {told} against {oracle}");
        }
    }

    proptest! {
        #[test]
        fn spans_of_whole_windows_are_exact_up_to_16(
            windows in prop::collection::vec(prop::collection::btree_set(0u32..64, 0..20), 1..80),
            from in 0usize..80,
            length in 1usize..=16,
        ) {
            let windows: Vec<Vec<u32>> = windows.into_iter().map(|set| set.into_iter().collect()).collect();
            let (from, length) = (from % windows.len(), length.min(windows.len()));
            let index = index(64, &windows);
            let told = index.counts(WINDOW * from as u32).written(GuestTime::ZERO, at(length as f64));
            let counted = distinct(&windows, from, from + length);
            prop_assert!((told - counted).abs() < 1e-3, "{} against {}", told, counted);
        }

        #[test]
        fn bands_of_one_window_and_of_two_are_exact(
            windows in prop::collection::vec(prop::collection::btree_set(0u32..256, 0..40), 2..200),
            from in 0usize..200,
        ) {
            let windows: Vec<Vec<u32>> = windows.into_iter().map(|set| set.into_iter().collect()).collect();
            let (index, from) = (index(256, &windows), from % windows.len());
            for length in [1, 2] {
                let told = index.counts(WINDOW * from as u32).written_per_band(at(0.0), at(length as f64));
                let pages: BTreeSet<u32> =
                    (from..from + length).flat_map(|k| windows[k % windows.len()].iter().copied()).collect();
                for (band, told) in (0..).zip(told) {
                    let counted = pages.range(4 * band..4 * (band + 1)).count() as f64;
                    prop_assert!((told - counted).abs() < 0.02, "band {} of {}: {}, not {}", band, length, told, counted);
                }
            }
        }

        #[test]
        fn bands_add_up_and_a_few_asked_for_have_what_they_have_among_the_others(
            windows in prop::collection::vec(prop::collection::btree_set(0u32..256, 0..40), 1..1_500),
            start in 0.0..1_500.0f64,
            length in 0.0..1_800.0f64,
        ) {
            let windows: Vec<Vec<u32>> = windows.into_iter().map(|set| set.into_iter().collect()).collect();
            let index = index(256, &windows);
            let counts = index.counts(WINDOW.mul_f64(start % windows.len() as f64));
            let (since, until) = (at(0.0), at(length));
            let all = counts.written_per_band(since, until);
            let nothing = counts.written_per_band(since, since);
            prop_assert!(nothing == [0.0; BANDS], "{:?}", nothing);
            let (sum, written) = (all.iter().sum::<f64>(), counts.written(since, until));
            prop_assert!((sum - written).abs() < 1e-6 * written.max(1.0), "{} of {}", sum, written);
            for (first, among) in all.windows(3).enumerate() {
                let mut alone = [f64::NAN; 3];
                counts.written_by_band(since, until, first..first + 3, &mut alone);
                prop_assert!(alone == among, "bands from {}: {:?} and {:?}", first, alone, among);
            }
        }
    }
}
