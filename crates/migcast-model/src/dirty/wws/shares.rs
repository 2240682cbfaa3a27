//! How what was written falls on the bands of the memory, and which pages are zero.
//!
//! ```text
//!  cell       │ │ │ │ │ │ │ │ │ │ │ │ │ │ │ │ │ │      writes per band, zero pages per band
//!  stretch    │           │           │           │    how the gaps of each band are spread
//! ```
//! The bands' shares in the pages written in a span of s windows: each write of a band counts min(gap, s), over all
//! positions of the span, and the mean of that over the band's writes is taken from the stretch, their number from the
//! cells. How much is written in a band changes from one moment to the next; how soon its pages are written again, slowly.

use std::ops::Range;

use super::gap;
use super::part::{OCTAVES, STRETCH, WwsPart};
use super::seam::{Behind, OctaveSeam};
use crate::dirty::{BANDS, PerBand};

/// Most cells that are held, in 70 MB. A longer history has longer ones.
const CELLS_MAX: u32 = 1 << 17;
/// Shorter stretches say too little of long gaps, and are joined to the next.
const STRETCH_MIN: u32 = STRETCH / 2;

/// The band of a tracked page. `rank` < `tracked`.
pub fn band(rank: u32, tracked: u32) -> u16 {
    let band = u64::from(rank) * BANDS as u64 / u64::from(tracked.max(1));
    u16::try_from(band).expect("a rank below the count lies in one of 64 bands")
}

/// One whole number for each band.
type Whole = [u32; BANDS];

/// What was counted in a cell.
#[derive(Clone, Debug)]
struct Cell {
    written: Whole,
    zero: Whole,
    left_zero: u32,
}

const EMPTY: Cell = Cell { written: [0; BANDS], zero: [0; BANDS], left_zero: 0 };

/// The gaps of a stretch that is being counted.
#[derive(Clone, Debug)]
struct Gaps {
    /// The window it begins with.
    from: u32,
    windows: u32,
    /// Writes, those of unknown gap included.
    written: PerBand,
    /// Those of known gap, by octave.
    octaves: Vec<PerBand>,
    /// Of the whole memory, by octave: writes, and the sum of their gaps.
    gaps: [(f64, f64); OCTAVES],
}

impl Gaps {
    fn begin(from: u32) -> Gaps {
        Gaps { from, windows: 0, written: [0.0; BANDS], octaves: Vec::new(), gaps: [(0.0, 0.0); OCTAVES] }
    }

    /// Writes of a band of which it is not known when their pages were written before.
    fn unknown(&self, band: usize) -> f64 {
        (self.written[band] - self.octaves.iter().map(|writes| writes[band]).sum::<f64>()).max(0.0)
    }

    /// Writes of an octave by band, to be counted.
    fn known(&mut self, octave: usize) -> &mut PerBand {
        if self.octaves.len() <= octave {
            self.octaves.resize(octave + 1, [0.0; BANDS]);
        }
        &mut self.octaves[octave]
    }

    /// The mean over a band's writes of min(gap, 2^octave); as many bands as there are.
    fn covered(&self, octave: usize) -> [f32; BANDS] {
        let span = (1u64 << octave) as f64;
        let mut covered = self.written.map(|writes| writes * span);
        for (known, (writes, (all, gaps))) in self.octaves.iter().zip(self.gaps).enumerate().take(octave) {
            // An octave begins with its power of two: what lies below `span` lies below it whole.
            let mean = if all > 0.0 { gaps / all } else { 1.5 * (1u64 << known) as f64 };
            covered.iter_mut().zip(writes).for_each(|(covered, writes)| *covered -= writes * (span - mean));
        }
        std::array::from_fn(|band| (covered[band] / self.written[band].max(1.0)) as f32)
    }
}

/// Cells and stretches while they are being counted.
#[derive(Clone, Debug)]
pub(super) struct SharesBuilder {
    /// Windows of a cell.
    each: u32,
    cells: Vec<Cell>,
    windows: u32,
    stretches: Vec<Gaps>,
}

impl SharesBuilder {
    pub(super) fn new() -> SharesBuilder {
        SharesBuilder { each: 1, cells: Vec::new(), windows: 0, stretches: Vec::new() }
    }

    /// Appends a part.
    pub(super) fn part(&mut self, part: &WwsPart) {
        let (first, windows) = (self.windows, part.windows.len() as u32);
        if first == 0 {
            self.each = part.cell;
        }
        self.windows += windows;
        while self.windows.div_ceil(self.each) > CELLS_MAX {
            self.halve();
        }
        self.cells.resize(self.windows.div_ceil(self.each) as usize, EMPTY);
        for count in &part.bands {
            let from = first + count.window;
            let to = (from + part.cell).min(self.windows);
            self.count(from..to, usize::from(count.band), [count.written, count.left_zero, count.zero]);
        }
        for from in (0..windows).step_by(STRETCH as usize) {
            self.stretch(first, from..(from + STRETCH).min(windows), part);
        }
    }

    /// Joins cells in pairs.
    fn halve(&mut self) {
        self.each *= 2;
        let joined = self.cells.chunks(2).map(|pair| {
            let mut joined = pair[0].clone();
            for other in &pair[1..] {
                joined.written.iter_mut().zip(other.written).for_each(|(sum, more)| *sum = sum.wrapping_add(more));
                joined.left_zero = joined.left_zero.wrapping_add(other.left_zero);
                joined.zero = other.zero;
            }
            joined
        });
        self.cells = joined.collect();
    }

    /// Counts what happened in a band within some windows: pages written, left zero, zero at the end.
    fn count(&mut self, windows: Range<u32>, band: usize, [written, left_zero, zero]: [u32; 3]) {
        let (mut from, mut left, mut left_zero) = (windows.start, written, left_zero);
        while from < windows.end {
            let cell = (from / self.each) as usize;
            let end = windows.end.min((from / self.each + 1) * self.each);
            let share = |of: u32| (u64::from(of) * u64::from(end - from) / u64::from(windows.end - from)) as u32;
            let (here, here_zero) = (share(left), share(left_zero));
            let cell = &mut self.cells[cell];
            cell.written[band] = cell.written[band].wrapping_add(here);
            cell.left_zero = cell.left_zero.wrapping_add(here_zero);
            cell.zero[band] = zero;
            (from, left, left_zero) = (end, left - here, left_zero - here_zero);
        }
    }

    /// Counts the gaps of the windows `windows` of a part that begins with window `first`.
    fn stretch(&mut self, first: u32, windows: Range<u32>, part: &WwsPart) {
        if self.stretches.last().is_none_or(|last| last.windows >= STRETCH_MIN) {
            self.stretches.push(Gaps::begin(first + windows.start));
        }
        let stretch = self.stretches.last_mut().expect("there is one");
        stretch.windows += windows.len() as u32;
        for count in part.bands.iter().filter(|count| windows.contains(&count.window)) {
            stretch.written[usize::from(count.band)] += f64::from(count.written);
        }
        for count in part.band_gaps.iter().filter(|count| windows.contains(&count.window)) {
            let octave = usize::from(count.octave);
            stretch.known(octave)[usize::from(count.band)] += f64::from(count.writes);
        }
        for count in part.gaps.iter().filter(|count| windows.contains(&count.window)) {
            let start = f64::from(gap::bucket_start(count.bucket));
            let mean = start + (f64::from(gap::bucket_width(count.bucket)) - 1.0) / 2.0;
            let (writes, gaps) = &mut stretch.gaps[gap::bucket_start(count.bucket).ilog2() as usize];
            *writes += f64::from(count.writes);
            *gaps += f64::from(count.writes) * mean;
        }
    }

    /// The first write of a page in a band has a gap after all: the history starts over.
    pub(super) fn lap(&mut self, window: u32, band: u16, gap: u32) {
        let stretch = self.stretches.partition_point(|stretch| stretch.from <= window) - 1;
        let (stretch, octave) = (&mut self.stretches[stretch], gap.ilog2() as usize);
        stretch.known(octave)[usize::from(band)] += 1.0;
        let (writes, gaps) = &mut stretch.gaps[octave];
        (*writes, *gaps) = (*writes + 1.0, *gaps + f64::from(gap));
    }

    /// Writes of unknown gap are given one, where nobody knows the pages. Counting began anew at the windows `seams`, ascending,
    /// the first of which is 0; before that `before` windows had been counted.
    pub(super) fn close_seam(&mut self, seams: &[u32], before: u32) {
        let octaves = (self.windows.max(1).ilog2() + 1) as usize;
        let behind = |stretch: &Gaps| {
            let seam = seams.partition_point(|seam| *seam <= stretch.from).max(1);
            let (from, end) = (seams[seam - 1], seams.get(seam).map_or(self.windows, |end| *end));
            let before = if seam == 1 { before } else { 0 };
            let first = (stretch.from - from).saturating_add(before);
            Behind::new(first..first.saturating_add(stretch.windows), (end - from).saturating_add(before), octaves)
        };
        let stretches: Vec<Behind> = self.stretches.iter().map(behind).collect();
        for band in 0..BANDS {
            let unknown: Vec<f64> = self.stretches.iter().map(|stretch| stretch.unknown(band)).collect();
            let known = |stretch: usize, octave: usize| {
                self.stretches[stretch].octaves.get(octave).map_or(0.0, |writes| writes[band])
            };
            let seam = OctaveSeam::new(&stretches, known, &unknown);
            for (index, unknown) in unknown.iter().enumerate().filter(|(_, unknown)| **unknown > 0.0) {
                let given = seam.shares(index).enumerate();
                given.for_each(|(octave, share)| self.stretches[index].known(octave)[band] += unknown * share);
            }
        }
    }

    /// Ends the counting.
    pub(super) fn finish(self) -> Shares {
        let octaves = (self.windows.max(1).ilog2() as usize + 2).min(OCTAVES + 1);
        let mut shares = Shares {
            windows: f64::from(self.windows),
            each: f64::from(self.each),
            written: vec![[0; BANDS]],
            zero: self.cells.iter().map(|cell| cell.zero).collect(),
            left_zero: vec![0],
            leaves_zero: self.cells.iter().any(|cell| cell.left_zero > 0),
            stretch_of: Vec::with_capacity(self.cells.len()),
            first_cells: Vec::with_capacity(self.stretches.len() + 1),
            octaves,
            covered: Vec::with_capacity(self.stretches.len() * octaves),
            sums: vec![[0.0; BANDS]; octaves],
            all: vec![0.0; octaves],
        };
        for cell in &self.cells {
            let mut sum = shares.written[shares.written.len() - 1];
            sum.iter_mut().zip(cell.written).for_each(|(sum, more)| *sum = sum.wrapping_add(more));
            shares.written.push(sum);
            shares.left_zero.push(shares.left_zero[shares.left_zero.len() - 1].wrapping_add(cell.left_zero));
        }
        let cells = self.cells.len() as u32;
        shares.first_cells.extend(self.stretches.iter().map(|stretch| stretch.from.div_ceil(self.each).min(cells)));
        shares.first_cells.push(cells);
        for (index, stretch) in (0..).zip(&self.stretches) {
            let of_stretch = shares.first_cells[index]..shares.first_cells[index + 1];
            shares.stretch_of.extend(of_stretch.clone().map(|_| index as u32));
            let written = shares.between(of_stretch.start as usize, of_stretch.end as usize);
            for octave in 0..octaves {
                let covered = stretch.covered(octave);
                let before = shares.sums[index * octaves + octave];
                let sum = |band: usize| before[band] + f64::from(written[band]) * f64::from(covered[band]);
                shares.sums.push(std::array::from_fn(sum));
                shares.covered.push(covered);
            }
            let covered = &shares.covered[index * octaves..];
            let covered: Vec<PerBand> = covered.iter().map(|covered| covered.map(f64::from)).collect();
            for cell in &self.cells[of_stretch.start as usize..of_stretch.end as usize] {
                let written = cell.written.map(f64::from);
                for covered in &covered {
                    let before = shares.all[shares.all.len() - octaves];
                    shares.all.push(before + dot(&written, covered));
                }
            }
        }
        shares
    }
}

/// A number ≥ 0 rounded up. A few instructions where `f64::ceil` is a call.
fn ceil(number: f64) -> usize {
    let whole = number as usize;
    whole + usize::from(whole as f64 != number)
}

/// Where a span of windows lies.
#[derive(Clone, Copy, Debug)]
struct Reach {
    /// Its cells are first..end.
    first: usize,
    end: usize,
    /// The parts of the first and of the last that lie outside; none of a single one, whose writes are all that is known.
    outside: [f64; 2],
    first_stretch: usize,
    last_stretch: usize,
    /// The octaves around its length. Between two of them the write set grows as a straight line would over the logarithm's
    /// mantissa.
    low: usize,
    high: usize,
    /// How far it is to `high`, 0 to 1; of a span shorter than a window, which lies before `low`, less than nothing.
    weight: f64,
}

/// The sum of the products, in eight lanes of which each is summed up by itself.
fn dot(one: &PerBand, other: &PerBand) -> f64 {
    let mut lanes = [0.0; 8];
    for (one, other) in one.as_chunks::<8>().0.iter().zip(other.as_chunks::<8>().0) {
        lanes = std::array::from_fn(|lane| lanes[lane] + one[lane] * other[lane]);
    }
    lanes.iter().sum()
}

/// How the writes of a span fall on the bands, and what else cells and stretches say.
#[derive(Clone, Debug)]
pub(super) struct Shares {
    windows: f64,
    /// Windows of a cell.
    each: f64,
    /// Writes of the cells before, modulo 2^32; one entry more than there are cells.
    written: Vec<Whole>,
    /// Tracked zero pages at the end of a cell.
    zero: Vec<Whole>,
    /// Writes of the cells before that left their page zero, likewise.
    left_zero: Vec<u32>,
    /// Whether any did.
    leaves_zero: bool,
    /// The stretch a cell belongs to.
    stretch_of: Vec<u32>,
    /// The cell a stretch begins with, and the end.
    first_cells: Vec<u32>,
    octaves: usize,
    /// The mean over the writes of min(gap, 2^octave); stretches × octaves.
    covered: Vec<[f32; BANDS]>,
    /// Writes × that, of the stretches before; (stretches + 1) × octaves.
    sums: Vec<PerBand>,
    /// The same over all bands, of the cells before; (cells + 1) × octaves.
    all: Vec<f64>,
}

impl Shares {
    fn cells(&self) -> usize {
        self.zero.len()
    }

    /// Writes in the cells from..to, per band.
    fn between(&self, from: usize, to: usize) -> Whole {
        let (before, until) = (&self.written[from], &self.written[to]);
        std::array::from_fn(|band| until[band].wrapping_sub(before[band]))
    }

    /// The cell of a window. Windows at and beyond the end are those of the last cell.
    fn cell_of(&self, window: f64) -> usize {
        ((window / self.each) as usize).min(self.cells() - 1)
    }

    /// Cells of the windows (from, to], at least one.
    fn cells_of(&self, from: f64, to: f64) -> (usize, usize) {
        let first = self.cell_of(from);
        (first, ceil(to / self.each).clamp(first + 1, self.cells()))
    }

    /// Where windows (from, to] lie.
    #[inline]
    fn reach(&self, from: f64, to: f64, met: f64) -> Reach {
        let span = to - from;
        let low = ((span.max(1.0) as u64).ilog2() as usize).min(self.octaves - 1);
        let high = (low + 1).min(self.octaves - 1);
        let weight = match span < 1.0 {
            // With a share u of writes whose gap is above 1, all of which a span of two windows covers twice, a band's pages
            // are as u × span + (1 − u) × met, or as 1 + u × (span ÷ met − 1).
            true => span / met - 1.0,
            false => (span / (1u64 << low) as f64 - 1.0).clamp(0.0, 1.0),
        };
        let (first, end) = self.cells_of(from, to);
        let outside = match end - first {
            1 => [0.0, 0.0],
            _ => {
                let last = (end - 1) as f64 * self.each;
                let length = self.each.min(self.windows - last);
                [from / self.each - first as f64, (1.0 - (to - last) / length).max(0.0)]
            }
        };
        let [first_stretch, last_stretch] = [first, end - 1].map(|cell| self.stretch_of[cell] as usize);
        Reach { first, end, outside, first_stretch, last_stretch, low, high, weight }
    }

    /// How `written` pages that were written in windows (from, to] fall on these bands; evenly where nothing was written. Of a
    /// span shorter than a window `met` is the share of the runs going on that it meets, > 0.
    pub(super) fn of_bands(&self, from: f64, to: f64, met: f64, written: f64, bands: Range<usize>, pages: &mut [f64]) {
        let Reach { first, end, outside: [head, tail], first_stretch, last_stretch, low, high, weight } =
            self.reach(from, to, met);
        let sum = |octave: usize| {
            let at = |cell: usize| self.all[cell * self.octaves + octave];
            at(end) - at(first) - head * (at(first + 1) - at(first)) - tail * (at(end) - at(end - 1))
        };
        let all = sum(low) + (sum(high) - sum(low)) * weight;
        if all <= 0.0 {
            pages.fill(written / BANDS as f64);
            return;
        }
        let each = written / all;
        // In single precision, of which a processor has twice as many at once; a span's pages are known to far less.
        let [low_each, high_each] = [(1.0 - weight) * each, weight * each].map(|each| each as f32);
        let add = |cells: Range<usize>, [head, tail]: [f64; 2], stretch: usize, pages: &mut [f64]| {
            let at = |cell: usize| self.written[cell][bands.clone()].iter();
            let covered = |octave: usize| self.covered[stretch * self.octaves + octave][bands.clone()].iter();
            let ([low, high], [head, tail]) = ([low, high].map(covered), [head, tail].map(|part| part as f32));
            let writes = |from: u32, to: u32| to.wrapping_sub(from).cast_signed() as f32;
            let firsts = at(cells.start).zip(at(cells.start + 1));
            let counts = firsts.zip(at(cells.end - 1).zip(at(cells.end))).zip(low.zip(high));
            for (pages, (((before, second), (last, until)), (low, high))) in pages.iter_mut().zip(counts) {
                let outside = head * writes(*before, *second) + tail * writes(*last, *until);
                let inside = (writes(*before, *until) - outside).max(0.0);
                *pages += f64::from(inside * (low * low_each + high * high_each));
            }
        };
        pages.fill(0.0);
        if first_stretch == last_stretch {
            add(first..end, [head, tail], first_stretch, pages);
            return;
        }
        add(first..self.first_cells[first_stretch + 1] as usize, [head, 0.0], first_stretch, pages);
        add(self.first_cells[last_stretch] as usize..end, [0.0, tail], last_stretch, pages);
        let at = |stretch: usize, octave: usize| &self.sums[stretch * self.octaves + octave][bands.clone()];
        let [low_first, low_end] = [first_stretch + 1, last_stretch].map(|stretch| at(stretch, low));
        let [high_first, high_end] = [first_stretch + 1, last_stretch].map(|stretch| at(stretch, high));
        for (band, pages) in pages.iter_mut().enumerate() {
            let low = low_end[band] - low_first[band];
            *pages += (low + (high_end[band] - high_first[band] - low) * weight) * each;
        }
    }

    /// Tracked zero pages per band at a window.
    pub(super) fn zero(&self, window: f64) -> PerBand {
        self.zero[self.cell_of(window)].map(f64::from)
    }

    /// Likewise at the end.
    pub(super) fn zero_at_end(&self) -> PerBand {
        self.zero[self.cells() - 1].map(f64::from)
    }

    /// Tracked zero pages on average.
    pub(super) fn zero_mean(&self) -> f64 {
        let all = self.zero.iter().flatten().map(|pages| f64::from(*pages));
        all.sum::<f64>() / self.cells() as f64
    }

    /// Whether any page written was left zero.
    pub(super) fn leaves_zero(&self) -> bool {
        self.leaves_zero
    }

    /// Of the pages written in windows (from, to] the share that was left zero.
    pub(super) fn left_zero(&self, from: f64, to: f64) -> f64 {
        let (first, end) = self.cells_of(from, to);
        let left = self.left_zero[end].wrapping_sub(self.left_zero[first]);
        if left == 0 {
            return 0.0;
        }
        let written: f64 = self.between(first, end).iter().map(|writes| f64::from(*writes)).sum();
        f64::from(left) / written
    }
}
