//! HIST: a recorded history, replayed page by page.
//!
//! A window says which pages were written in it, not when, and not how often; [`builder`] says how the replay fills that
//! in. It runs in *recorded time*: windows laid end to end, gaps left out, and starts over at the end (the paper's
//! assumption of cyclic behaviour).

mod builder;
mod halves;

use std::time::Duration;

pub(super) use builder::times_in_run;
pub use builder::{PageReplayBuilder, ZeroChange};

use super::strata::{self, Differences};
use super::{DirtySource, Estimate, PageCursor, PageSource};
use crate::page_set::PageSet;
use crate::units::{GuestTime, PageCount, multiply_and_divide};

/// Windows between two stored zero maps. A cursor starts at the last map before its start and applies what follows.
const CHECKPOINT_WINDOWS: usize = 64;

/// One thing that happens to a page, packed: rank, whether it was written, whether it is zero from then on.
#[derive(Clone, Copy, Debug)]
struct Event(u32);

impl Event {
    const RANKS: u32 = 1 << 30;

    fn new(rank: u32, written: bool, zero: bool) -> Event {
        Event(rank << 2 | u32::from(written) << 1 | u32::from(zero))
    }

    fn rank(self) -> u32 {
        self.0 >> 2
    }

    fn written(self) -> bool {
        self.0 & 2 != 0
    }

    fn zero(self) -> bool {
        self.0 & 1 != 0
    }
}

/// A recorded history, replayed page by page.
///
/// Memory: 4 bytes per write (a page that is written in many windows on end has several in each), 1 bit per tracked page
/// and 64 windows.
#[derive(Debug)]
pub struct PageReplay {
    tracked: u32,
    memory: PageCount,
    /// All events, window after window, within a window in the order they are replayed.
    events: Vec<Event>,
    /// `events` of window k are `event_bounds[k]..event_bounds[k + 1]`.
    event_bounds: Vec<usize>,
    /// Distinct pages written in each window.
    written: Vec<u32>,
    /// Window k spans `time_bounds[k]..time_bounds[k + 1]`, in nanoseconds of recorded time.
    time_bounds: Vec<u64>,
    /// The zero map at the start of every [`CHECKPOINT_WINDOWS`]-th window.
    zero_checkpoints: Vec<PageSet>,
    /// The zero map at the end.
    zero_at_end: PageSet,
    /// Whether every start finds that map, instead of the one of its moment.
    starts_from_end: bool,
    /// Mean number of zero pages, in tracked pages.
    zero_mean: f64,
    /// Pages that are zero at some moment.
    ever_zero: PageSet,
}

impl PageReplay {
    /// Most tracked pages a replay can number.
    pub const TRACKED_MAX: u32 = Event::RANKS;

    /// Number of recorded windows.
    pub fn windows(&self) -> usize {
        self.time_bounds.len() - 1
    }

    /// Start of each window, in recorded time.
    pub fn window_starts(&self) -> impl ExactSizeIterator<Item = Duration> + '_ {
        self.time_bounds[..self.windows()].iter().map(|nanos| Duration::from_nanos(*nanos))
    }

    /// Pages written in each window, scaled to the whole memory.
    pub fn written_per_window(&self) -> impl ExactSizeIterator<Item = PageCount> + '_ {
        self.written.iter().map(|written| self.scale(u64::from(*written)))
    }

    /// This replay for a migration that is still to come: it finds the zero pages that there were in the end, wherever in the
    /// recording it starts. How a guest writes comes again, what it has filled stays filled.
    pub fn from_last_zero_map(mut self) -> PageReplay {
        self.zero_mean = f64::from(self.zero_at_end.len());
        self.starts_from_end = true;
        self
    }

    fn length_nanos(&self) -> u64 {
        self.time_bounds[self.windows()]
    }

    fn scale(&self, tracked_pages: u64) -> PageCount {
        PageCount::new(tracked_pages).scale(self.memory.get(), u64::from(self.tracked))
    }

    fn window_at(&self, nanos: u64) -> usize {
        self.time_bounds.partition_point(|bound| *bound <= nanos) - 1
    }

    /// Tells of every write in order: rank and recorded time.
    fn writes(&self, mut tell: impl FnMut(usize, u64)) {
        for window in 0..self.windows() {
            let bounds = self.event_bounds[window]..self.event_bounds[window + 1];
            for (k, event) in self.events[bounds].iter().enumerate().filter(|(_, event)| event.written()) {
                tell(event.rank() as usize, self.event_time(window, k));
            }
        }
    }

    /// Recorded time of the `k`-th of the window's events.
    fn event_time(&self, window: usize, k: usize) -> u64 {
        let start = self.time_bounds[window];
        let length = self.time_bounds[window + 1] - start;
        let count = self.event_bounds[window + 1] - self.event_bounds[window];
        start + multiply_and_divide(length, 2 * k as u64 + 1, 0, 2 * count as u64) as u64
    }
}

impl DirtySource for PageReplay {
    fn memory(&self) -> PageCount {
        self.memory
    }

    fn length(&self) -> Option<Duration> {
        Some(Duration::from_nanos(self.length_nanos()))
    }

    /// Footprint theory (Xiang, Ding et al.), for writes: a write counts in every span that ends at or after it and in
    /// which it is its page's first, so its share is min(gap to the page's previous write, span).
    ///
    /// Its variance over other draws of the tracked pages, for a sample of one page out of each run of `w`: see [`strata`].
    /// Zero where all pages are tracked.
    fn write_set(&self, span: Duration) -> Estimate {
        let span = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        let length = self.length_nanos();
        // First every page's last write, which comes before its first one, a lap earlier.
        let mut previous = vec![0; self.tracked as usize];
        self.writes(|rank, time| previous[rank] = time);
        // For each page the time at which spans may begin that hold a write of it: at most the recording's length.
        let mut covered = vec![0; self.tracked as usize];
        self.writes(|rank, time| {
            let lap = if previous[rank] >= time { length } else { 0 };
            covered[rank] += (time + lap - previous[rank]).min(span);
            previous[rank] = time;
        });
        let in_sample = covered.iter().map(|nanos| u128::from(*nanos)).sum::<u128>() as f64 / length as f64;
        let weight = self.memory.get() as f64 / f64::from(self.tracked);
        let shares: Vec<f64> = covered.iter().map(|nanos| *nanos as f64 / length as f64).collect();
        let mut differences = Differences::default();
        differences.add(&shares);
        // Where there is nothing to compare with: as if the others were idle.
        let within = differences.within_run().unwrap_or_else(|| shares.iter().map(|share| share * share).sum());
        let windows = span as f64 / length as f64 * self.windows() as f64;
        let variance = strata::variance(weight, within * shares.len() as f64, windows);
        Estimate { mean: in_sample * weight, variance }
    }

    /// The variance is that of the zero pages of the end, found as that of a write set.
    fn zero(&self) -> Estimate {
        let weight = self.memory.get() as f64 / f64::from(self.tracked);
        let borders = [1, 2].map(|lag| self.zero_at_end.borders(lag));
        let within = Differences::of_set(self.tracked, borders).within_run().unwrap_or(0.0);
        Estimate { mean: self.zero_mean * weight, variance: weight * (weight - 1.0) * f64::from(self.tracked) * within }
    }

    fn never_zero(&self) -> PageCount {
        self.scale(u64::from(self.tracked - self.ever_zero.len()))
    }
}

impl PageSource for PageReplay {
    type Cursor<'a> = ReplayCursor<'a>;

    fn tracked(&self) -> PageCount {
        PageCount::new(u64::from(self.tracked))
    }

    fn cursor(&self, start: Duration) -> ReplayCursor<'_> {
        let start = (start.as_nanos() % u128::from(self.length_nanos())) as u64;
        let checkpoint = self.window_at(start) / CHECKPOINT_WINDOWS;
        let window = checkpoint * CHECKPOINT_WINDOWS;
        let mut cursor = ReplayCursor {
            replay: self,
            origin: self.time_bounds[window],
            lap: 0,
            window,
            next: 0,
            zero: self.zero_checkpoints[checkpoint].clone(),
        };
        cursor.advance(GuestTime::ZERO + Duration::from_nanos(start - cursor.origin), |_| {});
        cursor.origin = start;
        if self.starts_from_end {
            cursor.zero.clone_from(&self.zero_at_end);
        }
        cursor
    }
}

/// Walks the events of a [`PageReplay`], round and round.
#[derive(Clone, Debug)]
pub struct ReplayCursor<'a> {
    replay: &'a PageReplay,
    /// Recorded time at guest time zero.
    origin: u64,
    /// Times the end of the recording has been passed.
    lap: u64,
    window: usize,
    /// Next event of `window`.
    next: usize,
    zero: PageSet,
}

impl PageCursor for ReplayCursor<'_> {
    fn advance(&mut self, until: GuestTime, mut written: impl FnMut(u32)) {
        let replay = self.replay;
        let position = u128::from(self.origin) + u128::from(until.as_nanos());
        let length = u128::from(replay.length_nanos());
        let last_lap = u64::try_from(position / length).unwrap_or(u64::MAX);
        if last_lap > self.lap + 1 {
            // Whole laps lie between, and one is like the other.
            replay.events.iter().filter(|event| event.written()).for_each(|event| written(event.rank()));
            (self.lap, self.window, self.next) = (last_lap, 0, 0);
            self.start_over();
        }
        loop {
            // Position within the current lap; everything beyond its end is the next lap's.
            let in_lap = position.saturating_sub(u128::from(self.lap) * length);
            let in_lap = u64::try_from(in_lap).unwrap_or(u64::MAX);
            let events = &replay.events[replay.event_bounds[self.window]..replay.event_bounds[self.window + 1]];
            // A window that lies behind is told of whole, without asking when in it each page was written.
            let is_behind = in_lap >= replay.time_bounds[self.window + 1];
            while let Some(event) =
                events.get(self.next).filter(|_| is_behind || replay.event_time(self.window, self.next) <= in_lap)
            {
                self.zero.set(event.rank(), event.zero());
                if event.written() {
                    written(event.rank());
                }
                self.next += 1;
            }
            if !is_behind {
                return;
            }
            self.next = 0;
            self.window += 1;
            if self.window == replay.windows() {
                self.window = 0;
                self.lap += 1;
                self.start_over();
            }
        }
    }

    fn is_zero(&self, rank: u32) -> bool {
        self.zero.contains(rank)
    }
}

impl ReplayCursor<'_> {
    /// The recording begins again: with its first zero map, unless it began with its last.
    fn start_over(&mut self) {
        let replay = self.replay;
        self.zero.clone_from(if replay.starts_from_end { &replay.zero_at_end } else { &replay.zero_checkpoints[0] });
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const WINDOW: Duration = Duration::from_millis(100);

    fn replay(windows: &[&[u32]]) -> PageReplay {
        let mut builder = PageReplayBuilder::new(PageCount::new(64), PageCount::new(64));
        windows.iter().for_each(|written| builder.window(WINDOW, written, &[]));
        builder.build().unwrap()
    }

    fn written(replay: &PageReplay, start_ms: u64, from_ms: u64, to_ms: u64) -> BTreeSet<u32> {
        let mut cursor = replay.cursor(Duration::from_millis(start_ms));
        cursor.advance(GuestTime::from_nanos(from_ms * 1_000_000), |_| {});
        let mut pages = BTreeSet::new();
        cursor.advance(GuestTime::from_nanos(to_ms * 1_000_000), |rank| {
            pages.insert(rank);
        });
        pages
    }

    #[test]
    fn whole_windows_give_their_write_sets() {
        let replay = replay(&[&[1, 2], &[3], &[], &[2]]);
        assert_eq!(written(&replay, 0, 0, 100), BTreeSet::from([1, 2]));
        assert_eq!(written(&replay, 100, 0, 300), BTreeSet::from([2, 3]));
    }

    #[test]
    fn a_recording_starts_over_at_its_end() {
        let replay = replay(&[&[1, 2], &[3], &[], &[4]]);
        assert_eq!(written(&replay, 300, 0, 200), BTreeSet::from([1, 2, 4]));
        assert_eq!(written(&replay, 0, 800, 900), BTreeSet::from([1, 2]));
        assert_eq!(written(&replay, 400, 0, 100), BTreeSet::from([1, 2]), "a start beyond the end is taken modulo");
    }

    #[test]
    fn half_a_window_holds_half_its_pages() {
        let pages: Vec<u32> = (0..40).collect();
        let replay = replay(&[&pages]);
        assert_eq!(written(&replay, 0, 0, 50).len(), 20);
        assert_eq!(written(&replay, 50, 0, 50).len(), 20);
        assert_eq!(written(&replay, 0, 0, 50).union(&written(&replay, 50, 0, 50)).count(), 40);
    }

    #[test]
    fn the_zero_map_follows_the_writes_and_starts_over() {
        let mut builder = PageReplayBuilder::new(PageCount::new(8), PageCount::new(8));
        builder.zero_at_start(std::iter::once(2..5));
        builder.window(WINDOW, &[3], &[ZeroChange { rank: 3, zero: false }]);
        builder.window(WINDOW, &[], &[ZeroChange { rank: 7, zero: true }]);
        let replay = builder.build().unwrap();
        let zeros = |start_ms: u64, at_ms: u64| -> Vec<u32> {
            let mut cursor = replay.cursor(Duration::from_millis(start_ms));
            cursor.advance(GuestTime::from_nanos(at_ms * 1_000_000), |_| {});
            (0..8).filter(|rank| cursor.is_zero(*rank)).collect()
        };
        assert_eq!(zeros(0, 0), [2, 3, 4]);
        assert_eq!(zeros(0, 99), [2, 4]);
        assert_eq!(zeros(0, 199), [2, 4, 7]);
        assert_eq!(zeros(0, 201), [2, 3, 4], "the next lap begins with the first map");
        assert_eq!(zeros(100, 0), [2, 4]);
        assert_eq!(replay.zero().mean, 2.5, "two zero pages half of the time, three the other half");
        assert_eq!(replay.never_zero().get(), 4);
    }

    #[test]
    fn a_migration_to_come_finds_what_was_filled_in_the_end_wherever_it_starts() {
        let mut builder = PageReplayBuilder::new(PageCount::new(8), PageCount::new(8));
        builder.zero_at_start(std::iter::once(2..5));
        builder.window(WINDOW, &[3], &[ZeroChange { rank: 3, zero: false }]);
        builder.window(WINDOW, &[2, 3], &[ZeroChange { rank: 3, zero: true }, ZeroChange { rank: 2, zero: false }]);
        let replay = builder.build().unwrap().from_last_zero_map();
        let zeros = |start_ms: u64, at_ms: u64| -> Vec<u32> {
            let mut cursor = replay.cursor(Duration::from_millis(start_ms));
            cursor.advance(GuestTime::from_nanos(at_ms * 1_000_000), |_| {});
            (0..8).filter(|rank| cursor.is_zero(*rank)).collect()
        };
        assert_eq!((zeros(0, 0), zeros(100, 0)), (vec![3, 4], vec![3, 4]));
        assert_eq!(zeros(0, 99), [4], "what is written is followed");
        assert_eq!((zeros(0, 199), zeros(0, 201), zeros(0, 299)), (vec![3, 4], vec![3, 4], vec![4]));
        assert_eq!(replay.zero().mean, 2.0);
    }

    #[test]
    fn the_zero_map_is_right_at_any_start_of_a_long_recording() {
        let mut builder = PageReplayBuilder::new(PageCount::new(512), PageCount::new(512));
        for window in 0..200u32 {
            builder.window(WINDOW, &[window], &[ZeroChange { rank: window, zero: true }]);
        }
        let replay = builder.build().unwrap();
        for start in [0, 63, 64, 65, 150, 199] {
            let cursor = replay.cursor(WINDOW * start);
            assert_eq!((0..512).filter(|rank| cursor.is_zero(*rank)).count(), start as usize, "at window {start}");
        }
    }

    #[test]
    fn a_sample_is_scaled_to_the_memory_with_its_error() {
        let sampled = |written: &[u32]| {
            let mut builder = PageReplayBuilder::new(PageCount::new(100), PageCount::new(1_600));
            builder.window(WINDOW, written, &[]);
            builder.build().unwrap()
        };
        let one_region = sampled(&(0..50).collect::<Vec<_>>());
        assert_eq!(one_region.written_per_window().next().unwrap().get(), 800);
        let scattered = sampled(&(0..100).step_by(2).collect::<Vec<_>>());
        let estimates = [one_region, scattered].map(|replay| replay.write_set(WINDOW));
        assert_eq!(estimates.map(|estimate| estimate.mean), [800.0; 2]);
        // 16 × 15 × 100/198 for each pair of neighbours of which one is written.
        let per_pair = 16.0 * 15.0 * 100.0 / 198.0;
        let missed = 16.0 * 15.0 / 2.0;
        assert!(
            (estimates[0].variance - missed - per_pair / 3.0).abs() < 1e-6,
            "only where the region ends may the draw matter"
        );
        assert!((estimates[1].variance - missed - 99.0 * per_pair).abs() < 1e-6);
    }

    #[test]
    fn a_single_tracked_page_has_an_error_too_and_a_full_recording_has_none() {
        let replay = |tracked, memory| {
            let mut builder = PageReplayBuilder::new(PageCount::new(tracked), PageCount::new(memory));
            builder.window(WINDOW, &[0], &[]);
            builder.build().unwrap().write_set(WINDOW)
        };
        assert_eq!(replay(1, 16), Estimate { mean: 16.0, variance: 360.0 });
        assert_eq!(replay(1, 1), Estimate::exact(1.0));
        assert_eq!(replay(4, 4), Estimate::exact(1.0));
    }

    proptest! {
        #[test]
        fn the_mean_write_set_is_the_mean_over_all_positions(
            windows in prop::collection::vec(prop::collection::btree_set(0u32..64, 0..20), 1..12),
            span in 1u64..15,
        ) {
            let lists: Vec<Vec<u32>> = windows.iter().map(|set| set.iter().copied().collect()).collect();
            let replay = replay(&lists.iter().map(Vec::as_slice).collect::<Vec<_>>());
            let length_ms = 100 * windows.len() as u64;
            // Count at every millisecond; windows of at most 20 events put at most one event between two positions.
            let total: usize = (0..length_ms).map(|start| written(&replay, start, 0, span * 100).len()).sum();
            let counted = total as f64 / length_ms as f64;
            let mean = replay.write_set(Duration::from_millis(span * 100)).mean;
            prop_assert!((mean - counted).abs() <= 0.02 * counted + 0.3, "{} against {}", mean, counted);
        }
    }
}
