//! What a recorder keeps of a stretch of windows for the index, and how: small enough to keep for months.
//!
//! ```text
//!  windows      length, pages written                                      of every window
//!  gaps         writes by gap bucket, whole memory                         gaps below 64: of every window
//!                                                                          64 … 127: of two, 128 … 255: of four, …
//!  bands        pages written, left zero, zero now, per band               of a cell: 1 window, more of a large guest
//!  band_gaps    writes by octave of their gap, per band                    of a cell, or a quarter of the octave's gaps
//!  runs         pages written in windows on end, by how often              of every window
//! ```
//! A gap of g windows matters to spans of about g windows, so it need not be known to the window in which its write was;
//! and in which band what was written lies matters to a sixteenth of a migration, which is long where the memory is large
//! ([`cell_for`]).

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use super::design_effect::{DesignEffect, Neighbours};
use super::gap;
use super::levels::{LEVELS_MAX, buckets_of, level_of};
use super::runs::{Lengthened, OpenRuns, RunCount, TIMES_MAX};
use super::shares::band;
use super::tracker::{Lap, WriteTracker};
use crate::dirty::{BANDS, ZeroChange};
use crate::page_set::PageSet;
use crate::units::PageCount;

/// Most windows of a cell.
pub const CELL_MAX: u32 = 1024;
/// Octaves of gaps that are told apart: 2^0, 2^1, … windows.
pub const OCTAVES: usize = 32;

/// How many windows are counted together for a gap bucket.
pub fn windows_of(bucket: u16) -> u32 {
    1 << level_of(bucket)
}

/// How many windows are counted together for an octave of the gaps of a band, where cells have `cell` windows.
pub fn windows_of_octave(octave: usize, cell: u32) -> u32 {
    cell.max((1 << octave) / 4)
}

/// How many windows of this length a cell should have for a guest of so many bytes: those of a sixteenth of what the memory takes
/// over 10 Gbit/s, as a power of two.
pub fn cell_for(memory: u64, window: Duration) -> u32 {
    let sixteenth = memory as f64 * 8.0 / 10e9 / 16.0;
    let windows = (sixteenth / window.as_secs_f64().max(1e-9)) as u32;
    1 << windows.clamp(1, CELL_MAX).ilog2()
}

/// A recorded window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartWindow {
    /// Its length, in nanoseconds, > 0.
    pub nanos: u64,
    /// Distinct tracked pages written in it.
    pub written: u32,
}

/// Writes of one gap bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GapCount {
    /// The first of the windows that are counted together, counted from the part's first. Their number is 2^level of the
    /// bucket, fewer at the part's end.
    pub window: u32,
    /// The bucket, not that of first writes.
    pub bucket: u16,
    /// How many, ≥ 1.
    pub writes: u32,
}

/// What happened in a band within a cell, which is shorter at the part's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BandCount {
    /// The first of the windows, counted from the part's first.
    pub window: u32,
    /// The band.
    pub band: u16,
    /// Pages written, each counted in every window it was written in.
    pub written: u32,
    /// Of those the ones that were zero after their window.
    pub left_zero: u32,
    /// Tracked pages that are zero after the last of the windows.
    pub zero: u32,
}

/// Writes of a band by octave of their gap, within as many windows as [`windows_of_octave`] says, fewer at the part's end. First
/// writes are not among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BandGapCount {
    /// The first of the windows, counted from the part's first.
    pub window: u32,
    /// The band.
    pub band: u16,
    /// Gaps from 2^octave to below 2^(octave + 1) windows.
    pub octave: u16,
    /// How many, ≥ 1.
    pub writes: u32,
}

impl BandGapCount {
    /// Writes that were counted over `stretch` windows together, as index formats before version 5 kept them: of each band they are
    /// taken to lie where it was written, by cell. Ascending, as all are.
    pub fn mixed(counts: &[BandGapCount], stretch: u32, bands: &[BandCount], cell: u32) -> Vec<BandGapCount> {
        let mut written: BTreeMap<(u32, u16), Vec<(u32, u32)>> = BTreeMap::new();
        for count in bands {
            written.entry((count.window / stretch, count.band)).or_default().push((count.window, count.written));
        }
        let mut mixed: BTreeMap<(u32, u16, u16), u32> = BTreeMap::new();
        for &BandGapCount { window, band, octave, writes } in counts {
            let cells = written.get(&(window / stretch, band)).map_or(&[][..], Vec::as_slice);
            let all: u64 = cells.iter().map(|(_, written)| u64::from(*written)).sum();
            let (mut before, mut given) = (0, 0);
            for (window, written) in cells.iter().filter(|(_, written)| *written > 0) {
                before += u64::from(*written);
                let so_far = (u128::from(writes) * u128::from(before) / u128::from(all)) as u32;
                if so_far > given {
                    let each = windows_of_octave(octave.into(), cell);
                    *mixed.entry((window / each * each, band, octave)).or_default() += so_far - given;
                }
                given = so_far;
            }
        }
        let counts = mixed.into_iter();
        counts.map(|((window, band, octave), writes)| BandGapCount { window, band, octave, writes }).collect()
    }
}

/// A run of recorded windows, as counts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WwsPart {
    /// Windows that were recorded before it: no gap reaches back further.
    pub before: u32,
    /// Windows of a cell, a power of two up to [`CELL_MAX`].
    pub cell: u32,
    /// The windows.
    pub windows: Vec<PartWindow>,
    /// By window and bucket.
    pub gaps: Vec<GapCount>,
    /// By window and band. Bands that are missing have none of either.
    pub bands: Vec<BandCount>,
    /// By window, band and octave.
    pub band_gaps: Vec<BandGapCount>,
    /// Runs that go on, by window and by how often their pages count as written.
    pub runs: Vec<RunCount>,
    /// Runs from before it that count as written twice, three times, … since they have gone on in it; the first is empty.
    pub lengthened: [Lengthened; TIMES_MAX as usize],
    /// Tracked pages that were zero at its start.
    pub zero_at_start: u64,
    /// How often one became zero since.
    pub made_zero: u64,
    /// Of a sample, by all that its recorder has seen: what it errs by.
    pub design_effect: Option<DesignEffect>,
}

/// Of writes whose gaps lie anywhere in a bucket, but reach back by `possible` windows at most, those whose gaps are no longer
/// than `seen`.
pub(super) fn seen_of(writes: u32, bucket: u16, seen: u32, possible: u32) -> u32 {
    let visible = gap::up_to(bucket, seen);
    if visible == gap::bucket_width(bucket) {
        return writes;
    }
    (u64::from(writes) * u64::from(visible) / u64::from(gap::up_to(bucket, possible).max(1))) as u32
}

impl WwsPart {
    /// Lets the part remember only `seen` windows before it, where it is laid behind others than those it was recorded after:
    /// of writes whose gaps reach back further it is no longer known when their pages were written before.
    pub fn remember(&mut self, seen: u32) {
        let before = self.before;
        if seen >= before {
            return;
        }
        let windows = self.windows.len() as u32;
        self.gaps.retain_mut(|count| {
            let middle = count.window + windows_of(count.bucket).min(windows - count.window) / 2;
            let possible = before.saturating_add(middle);
            count.writes = seen_of(count.writes, count.bucket, seen.saturating_add(middle), possible);
            count.writes > 0
        });
        // Nor is it known of the first window's pages that they were written in the one before it.
        self.runs.retain(|count| seen > 0 || count.window > 0);
        for lengthened in &mut self.lengthened {
            lengthened.before = lengthened.before.min(u64::from(lengthened.runs) * u64::from(seen));
        }
        self.before = seen;
    }
}

/// Counts windows as they stream by.
#[derive(Clone, Debug)]
pub struct PartRecorder {
    tracked: u32,
    tracker: WriteTracker,
    /// Of a sample.
    neighbours: Option<Neighbours>,
    zero: PageSet,
    zero_per_band: [u32; BANDS],
    open: Open,
}

/// The part that is being counted.
#[derive(Clone, Debug)]
struct Open {
    part: WwsPart,
    /// Per level the counts of the windows that are counted together now, by bucket of the level.
    gaps: Vec<Vec<u32>>,
    /// Written and left zero, per band, in the cell.
    cell: [(u32, u32); BANDS],
    /// Per octave the writes by band.
    octaves: Vec<[u32; BANDS]>,
    runs: OpenRuns,
}

impl PartRecorder {
    /// Nothing is known of any of so many tracked pages, which stand for so many of the memory. `cell` windows are counted
    /// together for each band, a power of two up to [`CELL_MAX`].
    ///
    /// # Panics
    /// If it is none.
    pub fn new(tracked: u32, memory: PageCount, cell: u32) -> PartRecorder {
        assert!(cell.is_power_of_two() && cell <= CELL_MAX, "cells of {cell} windows");
        PartRecorder {
            tracked,
            tracker: WriteTracker::new(tracked),
            neighbours: (u64::from(tracked) < memory.get()).then(|| Neighbours::new(tracked)),
            zero: PageSet::empty(tracked),
            zero_per_band: [0; BANDS],
            open: Open {
                part: WwsPart { cell, ..WwsPart::default() },
                gaps: (0..LEVELS_MAX).map(|level| vec![0; buckets_of(level).len()]).collect(),
                cell: [(0, 0); BANDS],
                octaves: vec![[0; BANDS]; OCTAVES],
                runs: OpenRuns::default(),
            },
        }
    }

    /// The zero map at the start of the next window: runs of ranks that are zero, and no other is. Without it no page is
    /// zero at the start.
    pub fn zero_at_start(&mut self, runs: impl IntoIterator<Item = Range<u32>>) {
        self.zero.clear();
        self.zero_per_band = [0; BANDS];
        runs.into_iter().flatten().for_each(|rank| self.set_zero(rank, true));
        self.open.part.zero_at_start = self.zero_pages();
        self.open.part.made_zero = 0;
    }

    /// The ranks that are zero by now, ascending.
    pub(super) fn zero(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.tracked).filter(|rank| self.zero.contains(*rank))
    }

    fn zero_pages(&self) -> u64 {
        self.zero_per_band.iter().map(|pages| u64::from(*pages)).sum()
    }

    fn set_zero(&mut self, rank: u32, zero: bool) {
        if self.zero.contains(rank) == zero {
            return;
        }
        self.zero.set(rank, zero);
        let of_band = &mut self.zero_per_band[usize::from(band(rank, self.tracked))];
        *of_band = if zero { *of_band + 1 } else { *of_band - 1 };
        self.open.part.made_zero += u64::from(zero);
    }

    /// Notes changes of the zero map.
    pub fn change_zero(&mut self, changes: impl IntoIterator<Item = ZeroChange>) {
        changes.into_iter().for_each(|change| self.set_zero(change.rank, change.zero));
    }

    /// Windows of the part that is being counted.
    pub fn windows(&self) -> u32 {
        self.open.windows()
    }

    /// Counts a recorded window: its length (> 0) and the ranks written in it (each once). The zero map is by now the one
    /// at its end.
    pub fn window(&mut self, length: Duration, written: &[u32]) {
        let nanos = u64::try_from(length.as_nanos()).expect("a window is shorter than 500 years").max(1);
        let Open { part, gaps, cell, octaves, runs } = &mut self.open;
        let neighbours = &mut self.neighbours;
        part.windows.push(PartWindow { nanos, written: written.len() as u32 });
        runs.window();
        let any_zero = self.zero_per_band.iter().any(|pages| *pages > 0);
        self.tracker.window(written, |write| {
            let band = usize::from(band(write.rank, self.tracked));
            cell[band].0 += 1;
            cell[band].1 += u32::from(any_zero && self.zero.contains(write.rank));
            runs.count(write.run);
            if let Some(neighbours) = neighbours {
                neighbours.write(write.rank, write.gap);
            }
            if write.gap > 0 {
                let bucket = gap::bucket(write.gap);
                let level = level_of(bucket);
                gaps[level][usize::from(bucket - buckets_of(level).start)] += 1;
                octaves[write.gap.ilog2() as usize][band] += 1;
            }
        });
        self.open.close_full(&self.zero_per_band);
    }

    /// The part as it is if it ends now.
    pub fn part(&self) -> WwsPart {
        WwsPart { design_effect: self.design_effect(), ..self.open.clone().end(&self.zero_per_band) }
    }

    fn design_effect(&self) -> Option<DesignEffect> {
        let zero_borders = [1, 2].map(|lag| self.zero.borders(lag));
        self.neighbours.as_ref()?.design_effect(self.tracker.recorded(), zero_borders)
    }

    /// Ends the part, and begins another. What was written when is remembered.
    pub fn take(&mut self) -> WwsPart {
        let design_effect = self.design_effect();
        WwsPart { design_effect, ..self.end_part() }
    }

    /// Begins another part, for who has the one that ends already ([`Self::part`]).
    pub fn next_part(&mut self) {
        self.end_part();
    }

    fn end_part(&mut self) -> WwsPart {
        let ended = self.open.end(&self.zero_per_band);
        self.open.part.before = self.tracker.recorded();
        self.open.part.zero_at_start = self.zero_pages();
        ended
    }

    /// Tells how every page that was written goes on if all that was recorded starts over now.
    pub fn laps(&self, tell: impl FnMut(Lap)) {
        self.tracker.laps(tell);
    }
}

impl Open {
    fn windows(&self) -> u32 {
        self.part.windows.len() as u32
    }

    /// Notes what is counted together up to here.
    fn close_full(&mut self, zero: &[u32; BANDS]) {
        let (windows, cell) = (self.windows(), self.part.cell);
        let levels = (windows.trailing_zeros() as usize + 1).min(LEVELS_MAX);
        (0..levels).for_each(|level| self.close_gaps(level, windows - (1 << level)));
        if windows.is_multiple_of(cell) {
            self.close_cell(windows - cell, zero);
        }
        for octave in 0..OCTAVES {
            let each = windows_of_octave(octave, cell);
            if !windows.is_multiple_of(each) {
                break;
            }
            self.close_octave(octave, windows - each);
        }
    }

    fn close_gaps(&mut self, level: usize, window: u32) {
        for (bucket, writes) in buckets_of(level).zip(&mut self.gaps[level]) {
            if *writes > 0 {
                self.part.gaps.push(GapCount { window, bucket, writes: std::mem::take(writes) });
            }
        }
    }

    fn close_cell(&mut self, window: u32, zero: &[u32; BANDS]) {
        for (band, (counts, &zero)) in (0..).zip(self.cell.iter_mut().zip(zero)) {
            let (written, left_zero) = std::mem::take(counts);
            if written > 0 || zero > 0 {
                self.part.bands.push(BandCount { window, band, written, left_zero, zero });
            }
        }
    }

    fn close_octave(&mut self, octave: usize, window: u32) {
        for (band, writes) in (0..).zip(&mut self.octaves[octave]).filter(|(_, writes)| **writes > 0) {
            let writes = std::mem::take(writes);
            self.part.band_gaps.push(BandGapCount { window, band, octave: octave as u16, writes });
        }
    }

    /// Ends the part; the next has the same cells.
    fn end(&mut self, zero: &[u32; BANDS]) -> WwsPart {
        let (windows, cell) = (self.windows(), self.part.cell);
        let last = |each: u32| (!windows.is_multiple_of(each)).then(|| windows / each * each);
        for level in 1..LEVELS_MAX {
            last(1 << level).into_iter().for_each(|window| self.close_gaps(level, window));
        }
        last(cell).into_iter().for_each(|window| self.close_cell(window, zero));
        for octave in 0..OCTAVES {
            let each = windows_of_octave(octave, cell);
            last(each).into_iter().for_each(|window| self.close_octave(octave, window));
        }
        self.part.gaps.sort_unstable();
        self.part.band_gaps.sort_unstable();
        (self.part.runs, self.part.lengthened) = self.runs.take();
        std::mem::replace(&mut self.part, WwsPart { cell, ..WwsPart::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(recorder: &mut PartRecorder, written: &[u32]) {
        recorder.window(Duration::from_millis(100), written);
    }

    #[test]
    fn gaps_are_counted_the_coarser_the_longer_they_are() {
        let mut recorder = PartRecorder::new(64, PageCount::new(64), 8);
        for k in 0..140 {
            window(&mut recorder, if k == 0 || k == 3 || k == 70 || k == 139 { &[5] } else { &[] });
        }
        let part = recorder.take();
        let count = |window, gap: u32| GapCount { window, bucket: gap::bucket(gap), writes: 1 };
        assert_eq!(part.gaps, [count(3, 3), count(70, 67), count(138, 69)]);
        let written: Vec<(u32, u32)> = part.bands.iter().map(|cell| (cell.window, cell.written)).collect();
        assert_eq!(written, [(0, 2), (64, 1), (136, 1)]);
        let octaves: Vec<(u16, u32)> = part.band_gaps.iter().map(|count| (count.octave, count.writes)).collect();
        assert_eq!(octaves, [(1, 1), (6, 1), (6, 1)], "of 16 windows together");
    }

    #[test]
    fn a_part_ends_with_cells_that_are_not_full_and_the_next_remembers() {
        let mut recorder = PartRecorder::new(64, PageCount::new(64), 8);
        (0..3).for_each(|_| window(&mut recorder, &[9]));
        let first = recorder.take();
        assert_eq!((first.windows.len(), first.bands[0].written, first.band_gaps[0].writes), (3, 3, 2));
        (0..100).for_each(|_| window(&mut recorder, &[]));
        window(&mut recorder, &[9]);
        let second = recorder.take();
        assert_eq!(second.gaps, [GapCount { window: 100, bucket: gap::bucket(101), writes: 1 }]);
        assert_eq!(recorder.take(), WwsPart { before: 104, cell: 8, ..WwsPart::default() });
    }

    #[test]
    fn a_part_that_is_laid_behind_others_forgets_gaps_that_reach_back_further() {
        let mut recorder = PartRecorder::new(64, PageCount::new(64), 8);
        window(&mut recorder, &[1, 2]);
        (0..9).for_each(|_| window(&mut recorder, &[]));
        recorder.take();
        // Gaps of 10, 12 and 2: the first two reach back to 10 windows before the part, the third stays within it.
        (0..2).for_each(|k| window(&mut recorder, if k == 0 { &[1] } else { &[] }));
        window(&mut recorder, &[1, 2]);
        let part = recorder.take();
        let gaps = |part: &WwsPart| part.gaps.iter().map(|count| (count.window, count.bucket)).collect::<Vec<_>>();
        assert_eq!((part.before, gaps(&part)), (10, vec![(0, 10), (2, 2), (2, 12)]));
        let remembering = |seen| {
            let mut part = part.clone();
            part.remember(seen);
            (part.before, gaps(&part))
        };
        assert_eq!(remembering(11), (10, vec![(0, 10), (2, 2), (2, 12)]));
        assert_eq!(remembering(9), (9, vec![(2, 2)]));
        assert_eq!(remembering(0), (0, vec![(2, 2)]));
    }

    #[test]
    fn zero_pages_are_told_per_band() {
        let mut recorder = PartRecorder::new(128, PageCount::new(128), 8);
        recorder.zero_at_start(std::iter::once(0..4));
        let change = |rank, zero| ZeroChange { rank, zero };
        recorder.change_zero([change(3, false), change(127, true)]);
        recorder.window(Duration::from_secs(1), &[0, 3, 127]);
        let part = recorder.part();
        assert_eq!(recorder.take(), part);
        let told: Vec<_> = part.bands.iter().map(|b| (b.band, b.written, b.left_zero, b.zero)).collect();
        assert_eq!(told, [(0, 1, 1, 2), (1, 1, 0, 1), (63, 1, 1, 1)]);
        assert_eq!((part.zero_at_start, part.made_zero, recorder.take().zero_at_start), (4, 1, 4));
    }

    #[test]
    fn a_cell_is_a_sixteenth_of_what_the_memory_takes_over_10_gbit() {
        let cell = |gib: u64, millis| cell_for(gib << 30, Duration::from_millis(millis));
        assert_eq!([1, 3, 4, 16, 64, 1_000].map(|gib| cell(gib, 100)), [1, 1, 2, 8, 32, 512]);
        assert_eq!((cell(64, 1_000), cell(1, 10), cell(64, 1), cell(0, 1)), (2, 4, CELL_MAX, 1));
    }

    #[test]
    fn writes_counted_by_stretches_are_taken_to_lie_where_the_band_was_written() {
        let written = |window, band, written| BandCount { window, band, written, left_zero: 0, zero: 0 };
        let bands = [written(0, 1, 30), written(8, 0, 7), written(16, 1, 10), written(1024, 1, 5)];
        let count = |window, band, octave, writes| BandGapCount { window, band, octave, writes };
        let stretches = [count(0, 0, 2, 3), count(0, 1, 0, 8), count(0, 1, 7, 20), count(1024, 1, 0, 5)];
        let mixed = BandGapCount::mixed(&stretches, 1024, &bands, 8);
        let expected =
            [count(0, 1, 0, 6), count(0, 1, 7, 20), count(8, 0, 2, 3), count(16, 1, 0, 2), count(1024, 1, 0, 5)];
        assert_eq!(mixed, expected, "gaps of octave 7 are of 32 windows together");
    }
}
