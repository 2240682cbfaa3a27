//! How what was written falls on the bands of the memory, and which pages are zero.
//!
//! ```text
//!  cell       │ │ │ │ │ │ │ │ │ │ │ │ │ │ │ │ │ │      writes per band, by octave of the gap: footprints; zero pages
//!  stretch    │           │           │           │    what is not known behind a seam
//! ```
//! Parts come with cells of their own. Those of the index are the first part's, and twice, four times as long where there
//! would be too many.

use std::ops::Range;

use super::footprints::{Footprints, Sums, Whole, add_counts};
use super::part::{OCTAVES, WwsPart, windows_of_octave};
use super::seam::{Behind, OctaveSeam};
use crate::dirty::{BANDS, PerBand};

/// Most cells that are held, in some 1.3 kB each. A longer history has longer ones.
const CELLS_MAX: u32 = 1 << 17;
/// Windows of a stretch.
const STRETCH: u32 = 1024;
/// Shorter ones say too little of long gaps, and are joined to the next.
const STRETCH_MIN: u32 = STRETCH / 2;

/// The band of a tracked page. `rank` < `tracked`.
pub fn band(rank: u32, tracked: u32) -> u16 {
    let band = u64::from(rank) * BANDS as u64 / u64::from(tracked.max(1));
    u16::try_from(band).expect("a rank below the count lies in one of 64 bands")
}

const NONE: Whole = [0; BANDS];

/// What was counted in a cell.
#[derive(Clone, Debug)]
struct Cell {
    written: Whole,
    zero: Whole,
    left_zero: u32,
}

const EMPTY: Cell = Cell { written: NONE, zero: NONE, left_zero: 0 };

/// What is known of the gaps of some windows, as far as a seam before them matters.
#[derive(Clone, Debug)]
struct Stretch {
    /// The window it begins with.
    from: u32,
    windows: u32,
    /// Writes, those of unknown gap included.
    written: PerBand,
    /// Those of known gap, by octave.
    octaves: Vec<PerBand>,
}

impl Stretch {
    fn begin(from: u32) -> Stretch {
        Stretch { from, windows: 0, written: [0.0; BANDS], octaves: Vec::new() }
    }

    fn known(&self, octave: usize, band: usize) -> f64 {
        self.octaves.get(octave).map_or(0.0, |writes| writes[band])
    }

    /// Writes of a band of which it is not known when their pages were written before.
    fn unknown(&self, band: usize) -> f64 {
        (self.written[band] - self.octaves.iter().map(|writes| writes[band]).sum::<f64>()).max(0.0)
    }

    fn count(&mut self, octave: usize, band: usize, writes: u32) {
        if self.octaves.len() <= octave {
            self.octaves.resize(octave + 1, [0.0; BANDS]);
        }
        self.octaves[octave][band] += f64::from(writes);
    }
}

/// Cells and stretches while they are being counted.
#[derive(Clone, Debug)]
pub(super) struct SharesBuilder {
    /// Windows of a cell.
    each: u32,
    cells: Vec<Cell>,
    /// Writes by octave of their gap, each in cells of [`windows_of_octave`].
    octaves: Vec<Vec<Whole>>,
    windows: u32,
    stretches: Vec<Stretch>,
}

impl SharesBuilder {
    pub(super) fn new() -> SharesBuilder {
        SharesBuilder {
            each: 1,
            cells: Vec::new(),
            octaves: vec![Vec::new(); OCTAVES],
            windows: 0,
            stretches: Vec::new(),
        }
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
        // The stretch of every so many windows of the part.
        let stretches: Vec<usize> = (0..windows)
            .step_by(STRETCH as usize)
            .map(|from| self.stretch(first + from, STRETCH.min(windows - from)))
            .collect();
        for count in &part.bands {
            let (window, band) = (first + count.window, usize::from(count.band));
            self.stretches[stretches[(count.window / STRETCH) as usize]].written[band] += f64::from(count.written);
            let (mut written, mut left_zero) = (count.written, count.left_zero);
            for piece in pieces(window..(window + part.cell).min(self.windows), self.each) {
                let cell = &mut self.cells[piece.cell];
                cell.written[band] = cell.written[band].wrapping_add(piece.take(&mut written));
                cell.left_zero = cell.left_zero.wrapping_add(piece.take(&mut left_zero));
                cell.zero[band] = count.zero;
            }
        }
        for count in &part.band_gaps {
            let (window, band, octave) = (first + count.window, usize::from(count.band), usize::from(count.octave));
            self.stretches[stretches[(count.window / STRETCH) as usize]].count(octave, band, count.writes);
            let windows = window..(window + windows_of_octave(octave, part.cell)).min(self.windows);
            self.count(windows, octave, band, count.writes);
        }
    }

    /// The stretch for so many windows behind those before.
    fn stretch(&mut self, from: u32, windows: u32) -> usize {
        if self.stretches.last().is_none_or(|last| last.windows >= STRETCH_MIN) {
            self.stretches.push(Stretch::begin(from));
        }
        let last = self.stretches.len() - 1;
        self.stretches[last].windows += windows;
        last
    }

    /// Joins cells in pairs.
    fn halve(&mut self) {
        let joined = self.cells.chunks(2).map(|pair| {
            let mut joined = pair[0].clone();
            for other in &pair[1..] {
                add_counts(&mut joined.written, &other.written);
                joined.left_zero = joined.left_zero.wrapping_add(other.left_zero);
                joined.zero = other.zero;
            }
            joined
        });
        self.cells = joined.collect();
        for (octave, counts) in self.octaves.iter_mut().enumerate() {
            if windows_of_octave(octave, self.each) < 2 * self.each {
                let joined = counts.chunks(2).map(|pair| {
                    let mut joined = pair[0];
                    pair[1..].iter().for_each(|other| add_counts(&mut joined, other));
                    joined
                });
                *counts = joined.collect();
            }
        }
        self.each *= 2;
    }

    /// Counts writes of an octave in a band that were somewhere in these windows.
    fn count(&mut self, windows: Range<u32>, octave: usize, band: usize, mut writes: u32) {
        for piece in pieces(windows, windows_of_octave(octave, self.each)) {
            self.add(piece.cell, octave, band, piece.take(&mut writes));
        }
    }

    /// Adds writes of an octave in a band to one of the octave's cells.
    fn add(&mut self, cell: usize, octave: usize, band: usize, writes: u32) {
        let counts = &mut self.octaves[octave];
        if counts.len() <= cell {
            counts.resize(cell + 1, NONE);
        }
        counts[cell][band] = counts[cell][band].wrapping_add(writes);
    }

    /// The first write of a page in a band has a gap after all: the history starts over.
    pub(super) fn lap(&mut self, window: u32, band: u16, gap: u32) {
        self.count(window..window + 1, gap.ilog2() as usize, usize::from(band), 1);
    }

    /// Writes of unknown gap are given one, where nobody knows the pages. Counting began anew at the windows `seams`, ascending,
    /// the first of which is 0; before that `before` windows had been counted.
    pub(super) fn close_seam(&mut self, seams: &[u32], before: u32) {
        let octaves = (self.windows.max(1).ilog2() + 1) as usize;
        let stretches = std::mem::take(&mut self.stretches);
        // Of each stretch how far behind a seam it begins, and how far the next one is behind that.
        let places = stretches.iter().map(|stretch| {
            let seam = seams.partition_point(|seam| *seam <= stretch.from).max(1);
            let (from, end) = (seams[seam - 1], seams.get(seam).map_or(self.windows, |end| *end));
            let before = if seam == 1 { before } else { 0 };
            ((stretch.from - from).saturating_add(before), (end - from).saturating_add(before))
        });
        let places: Vec<(u32, u32)> = places.collect();
        let behind = |(stretch, (first, piece)): (&Stretch, &(u32, u32))| {
            Behind::new(*first..first.saturating_add(stretch.windows), *piece, octaves)
        };
        let behind: Vec<Behind> = stretches.iter().zip(&places).map(behind).collect();
        for band in 0..BANDS {
            let unknown: Vec<f64> = stretches.iter().map(|stretch| stretch.unknown(band)).collect();
            let seam = OctaveSeam::new(&behind, |stretch, octave| stretches[stretch].known(octave, band), &unknown);
            // Of each octave what has been given in parts of a write.
            let mut parts = vec![0.5; octaves];
            for ((stretch, (first, _)), unknown) in stretches.iter().zip(&places).zip(unknown) {
                if unknown > 0.0 {
                    self.give(stretch, *first, band, &seam, &mut parts);
                }
            }
        }
    }

    /// Gives the writes of a band that have none in a stretch, which begins `first` windows behind a seam, a gap.
    fn give(&mut self, stretch: &Stretch, first: u32, band: usize, seam: &OctaveSeam, parts: &mut [f64]) {
        let cells = stretch.from / self.each..(stretch.from + stretch.windows).div_ceil(self.each);
        let each = self.each;
        let times = move |octave: usize| windows_of_octave(octave, each) / each;
        // Of an octave whose cells are longer an even part lies in each; what that is too much is too little in the next.
        let unknown = |cell: u32| {
            let known = self.octaves.iter().enumerate().map(|(octave, counts)| {
                let times = times(octave);
                counts.get((cell / times) as usize).map_or(0.0, |counts| f64::from(counts[band]) / f64::from(times))
            });
            f64::from(self.cells[cell as usize].written[band]) - known.sum::<f64>()
        };
        let unknown: Vec<f64> = cells.clone().map(unknown).collect();
        let (mut left, mut shares) = (0.0, Vec::new());
        for (cell, unknown) in cells.zip(unknown) {
            left += unknown;
            if left <= 0.0 {
                continue;
            }
            let behind = f64::from(first) + f64::from(cell * self.each + self.each / 2) - f64::from(stretch.from);
            seam.shares(behind.max(0.0), &mut shares);
            for (octave, (share, part)) in shares.iter().zip(&mut *parts).enumerate() {
                *part += left * share;
                if *part >= 1.0 {
                    self.add((cell / times(octave)) as usize, octave, band, *part as u32);
                    *part -= part.floor();
                }
            }
            left = 0.0;
        }
    }

    /// Ends the counting. `totals` says how often a gap comes in all the memory, by bucket.
    pub(super) fn finish(self, totals: &[u64]) -> Shares {
        let (each, windows) = (self.each, self.windows);
        let written: Vec<Whole> = self.cells.iter().map(|cell| cell.written).collect();
        let counts = |octave: usize, each: u32| {
            Sums::of(self.octaves.get(octave).map_or(&[], |counts| counts.as_slice()), each, windows)
        };
        let so_far = |of: fn(&Cell) -> u32| {
            let sums = self.cells.iter().scan(0u32, move |sum, cell| {
                *sum = sum.wrapping_add(of(cell));
                Some(*sum)
            });
            std::iter::once(0).chain(sums).collect()
        };
        Shares {
            each: f64::from(each),
            footprints: Footprints::new(Sums::of(&written, each, windows), counts, totals),
            written: so_far(|cell| cell.written.iter().fold(0, |sum, more| sum.wrapping_add(*more))),
            left_zero: so_far(|cell| cell.left_zero),
            leaves_zero: self.cells.iter().any(|cell| cell.left_zero > 0),
            zero: self.cells.iter().map(|cell| cell.zero).collect(),
        }
    }
}

/// A number ≥ 0 rounded up. A few instructions where `f64::ceil` is a call.
fn ceil(number: f64) -> usize {
    let whole = number as usize;
    whole + usize::from(whole as f64 != number)
}

/// Of some windows the ones that lie in a cell.
#[derive(Clone, Copy, Debug)]
struct Piece {
    cell: usize,
    windows: u32,
    /// These, and those in later cells.
    left: u32,
}

impl Piece {
    /// Takes this piece's part of what is left of something.
    fn take(self, left: &mut u32) -> u32 {
        let here = (u64::from(*left) * u64::from(self.windows) / u64::from(self.left)) as u32;
        *left -= here;
        here
    }
}

/// Windows by the cells, of so many windows each, in which they lie.
fn pieces(windows: Range<u32>, each: u32) -> impl Iterator<Item = Piece> {
    let cells = windows.start / each..windows.end.div_ceil(each);
    cells.map(move |cell| {
        let (begin, end) = ((cell * each).max(windows.start), windows.end.min((cell + 1).saturating_mul(each)));
        Piece { cell: cell as usize, windows: end - begin, left: windows.end - begin }
    })
}

/// How the writes of a span fall on the bands, and which pages are zero.
#[derive(Clone, Debug)]
pub(super) struct Shares {
    /// Windows of a cell.
    each: f64,
    footprints: Footprints,
    /// Writes of the cells before, modulo 2^32; one entry more than there are cells.
    written: Vec<u32>,
    /// Writes of the cells before that left their page zero, likewise.
    left_zero: Vec<u32>,
    /// Whether any did.
    leaves_zero: bool,
    /// Tracked zero pages at the end of a cell.
    zero: Vec<Whole>,
}

impl Shares {
    /// See [`Footprints::of_bands`].
    pub(super) fn of_bands(&self, from: f64, to: f64, met: f64, written: f64, bands: Range<usize>, pages: &mut [f64]) {
        self.footprints.of_bands(from, to, met, written, bands, pages);
    }

    fn cells(&self) -> usize {
        self.zero.len()
    }

    /// The cell of a window. Windows at and beyond the end are those of the last cell.
    fn cell_of(&self, window: f64) -> usize {
        ((window / self.each) as usize).min(self.cells() - 1)
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
        let first = self.cell_of(from);
        let end = ceil(to / self.each).clamp(first + 1, self.cells());
        let [left, written] = [&self.left_zero, &self.written].map(|sums| sums[end].wrapping_sub(sums[first]));
        if left == 0 { 0.0 } else { f64::from(left) / f64::from(written) }
    }
}
