//! How many pages of each band are written from any moment on, in spans of certain lengths: their *footprints*.
//!
//! ```text
//!  length     0  1  2  3  4  6  8  12        16 24        32 48 …         half octaves, in windows
//!  told from  every window                   every 2nd    every 4th …     an eighth of it, a cell at least
//! ```
//! A span is told by the lengths around its own, each from the two moments around its beginning. What lies between is as
//! straight lines would have it. The numbers are in proportion: how many pages a span has is known better ([`levels`]), so
//! a footprint says only how they fall on the bands.
//!
//! They are made of what is counted by cell, band and octave of the gap. With C(o, x) the writes of octave o in the x windows
//! behind a, of which those of gap g count if they lie in the first g of them,
//!
//! ```text
//!  F(a, x)  =  Σ  mean of C(o, min(g, x)) over the gaps g of the octave     o: those that begin below x
//!           +  Σ  C(o, x)                                                   the others, and first writes
//! ```
//!
//! [`levels`]: super::levels

use std::ops::Range;

use rayon::prelude::*;

use super::gap;
use super::levels::{Grid, Place};
use super::part::windows_of_octave;
use crate::dirty::BANDS;

/// One whole number for each band, modulo 2^32.
pub(super) type Whole = [u32; BANDS];
/// One number for each band.
type Lanes = [f32; BANDS];

/// A number ≥ 0 to 8 bits of precision, in half the room.
fn shortened(number: f32) -> u16 {
    (number.to_bits().wrapping_add(0x8000) >> 16) as u16
}

fn restored(short: u16) -> f32 {
    f32::from_bits(u32::from(short) << 16)
}

/// Adds counts that wrap around.
pub(super) fn add_counts(sum: &mut Whole, more: &Whole) {
    sum.iter_mut().zip(more).for_each(|(sum, more)| *sum = sum.wrapping_add(*more));
}

/// Windows in cells of so many, a power of two.
fn grid(each: u32, windows: u32) -> Grid {
    Grid::new(each.trailing_zeros() as usize, windows)
}

/// Writes before each cell's beginning, and before the end.
#[derive(Clone, Debug)]
pub(super) struct Sums {
    /// Windows of a cell.
    each: u32,
    windows: u32,
    before: Vec<Whole>,
}

impl Sums {
    /// Of what was counted in cells of so many windows, a power of two.
    pub(super) fn of(counts: &[Whole], each: u32, windows: u32) -> Sums {
        let cells = windows.div_ceil(each) as usize;
        let mut before = Vec::with_capacity(cells + 1);
        let mut sum = [0; BANDS];
        before.push(sum);
        for cell in 0..cells {
            counts.get(cell).into_iter().for_each(|counts| add_counts(&mut sum, counts));
            before.push(sum);
        }
        Sums { each, windows, before }
    }

    fn all(&self) -> &Whole {
        &self.before[self.before.len() - 1]
    }

    /// Writes of a span that begins in the history and ends at most its length later.
    fn between(&self, from: f64, to: f64) -> Lanes {
        let (grid, windows) = (grid(self.each, self.windows), f64::from(self.windows));
        let (to, turn) = if to > windows { (to - windows, *self.all()) } else { (to, [0; BANDS]) };
        let [from, to] = [from, to].map(|at| grid.place(at));
        let [[begin, second], [last, until]] =
            [from, to].map(|place| [&self.before[place.cell], &self.before[place.cell + 1]]);
        let [head, tail] = [from, to].map(|place| place.part as f32);
        let writes = |from: u32, to: u32| to.wrapping_sub(from).cast_signed() as f32;
        std::array::from_fn(|band| {
            let whole = writes(begin[band], last[band].wrapping_add(turn[band]));
            whole + tail * writes(last[band], until[band]) - head * writes(begin[band], second[band])
        })
    }

    /// Without what is counted in others, in cells as long as theirs, which are no shorter.
    fn without(self, others: &Sums) -> Sums {
        let (times, last) = ((others.each / self.each) as usize, self.before.len() - 1);
        let rows = others.before.iter().enumerate().map(|(row, others)| {
            let these = &self.before[(row * times).min(last)];
            std::array::from_fn(|band| these[band].wrapping_sub(others[band]))
        });
        Sums { each: others.each, before: rows.collect(), ..self }
    }
}

/// Footprints of one length.
#[derive(Clone, Debug)]
struct Column {
    /// In windows.
    length: f64,
    /// In whose cells rows begin.
    grid: Grid,
    /// One for each cell, and the first again for the end.
    rows: Vec<[u16; BANDS]>,
    /// What a row comes to.
    totals: Vec<f32>,
}

impl Column {
    fn of(length: f64, grid: Grid, rows: impl IndexedParallelIterator<Item = Lanes>) -> Column {
        let shorten = |row: Lanes| {
            let row = row.map(|pages| shortened(pages.max(0.0)));
            (row, row.iter().map(|pages| restored(*pages)).sum::<f32>())
        };
        let (rows, totals) = rows.map(shorten).unzip();
        Column { length, grid, rows, totals }
    }

    /// The row that begins at a window or before it, and what part the next has in windows (from, to], 0 to 1.
    fn place(&self, from: f64, to: f64) -> (usize, f64) {
        let Place { cell, part } = self.grid.place(from);
        let (length, span) = (self.grid.begin(cell + 1) - self.grid.begin(cell), to - from);
        // In spans longer than it is to the next row more and more of them is written; a shorter one lies in the cell of either.
        let part =
            if span < length { (part * length + span - length).max(0.0) / span.max(f64::MIN_POSITIVE) } else { part };
        (cell, part)
    }
}

/// Footprints of all lengths, in a history that starts over at its end.
#[derive(Clone, Debug)]
pub(super) struct Footprints {
    /// Of the lengths 0, 1, 2, 3, 4, 6, …; the first has, of what is written in a span without length, the pages that go on being
    /// written from one window to the next.
    columns: Vec<Column>,
}

impl Footprints {
    /// Of the writes per cell, those of each octave of the gap in cells of [`windows_of_octave`], and how often a gap comes in all the
    /// memory, by bucket.
    pub(super) fn new(written: Sums, octaves: impl Fn(usize, u32) -> Sums, totals: &[u64]) -> Footprints {
        let (cell, windows) = (written.each, written.windows);
        let all = f64::from(windows);
        let mut columns = Vec::new();
        // Writes of the octaves from this one on, and of those before it the ones that reach back to or before a row's beginning.
        let mut longer = written;
        let mut across: Vec<Lanes> = vec![[0.0; BANDS]; windows.div_ceil(cell) as usize + 1];
        let mut each = cell;
        for octave in 0u32.. {
            let least = (1u64 << octave) as f64;
            let grid = grid(each, windows);
            // The last is the first again.
            let begin = |row: usize| if row < grid.cells() { grid.begin(row) } else { 0.0 };
            let footprint = |across: &Lanes, longer: &Sums, row: usize, length: f64| {
                let (from, mut pages) = (begin(row), *across);
                add(&mut pages, &longer.between(from, from + length.min(all)), 1.0);
                pages
            };
            let rows = across.par_iter().enumerate().map(|(row, across)| footprint(across, &longer, row, least));
            columns.push(Column::of(least, grid, rows));
            if least >= all && octave > 0 {
                break;
            }
            let these = octaves(octave as usize, windows_of_octave(octave as usize, cell));
            longer = longer.without(&these);
            // What the octave adds to spans of half an octave more, and to those that are longer than all its gaps.
            let (half, gaps) = (1.5 * least, gaps_of(octave, totals));
            let share = 1.0 / gaps.len() as f32;
            let rows = across.par_iter_mut().enumerate().map(|(row, across)| {
                let (from, mut within) = (begin(row), *across);
                if *these.all() != [0; BANDS] {
                    let up_to = |length: f64| these.between(from, from + length.min(all));
                    let until_half = up_to(half);
                    for gap in &gaps {
                        let whole = up_to(*gap);
                        add(&mut within, if *gap < half { &whole } else { &until_half }, share);
                        add(across, &whole, share);
                    }
                }
                footprint(&within, &longer, row, half)
            });
            let late = Column::of(half, grid, rows);
            match octave {
                // Between one window and two there is no length.
                0 => columns.insert(0, Column::of(0.0, grid, across.par_iter().copied())),
                _ => columns.push(late),
            }
            let next = cell.max((2u32 << octave) / 8);
            if next > each {
                let first = across[0];
                let kept = across[..grid.cells()].iter().step_by((next / each) as usize);
                across = kept.copied().chain([first]).collect();
                each = next;
            }
        }
        Footprints { columns }
    }

    /// The columns around a span of a window or more, and how far it is from the first to the second, 0 to 1.
    fn around(&self, span: f64) -> (&Column, &Column, f64) {
        let octave = (span as u64).max(1).ilog2() as usize;
        let is_late = span >= 1.5 * (1u64 << octave) as f64 && octave > 0;
        let last = self.columns.len() - 1;
        let low = (2 * octave + usize::from(is_late)).max(1).min(last);
        let high = (low + 1).min(last);
        let (low, high) = (&self.columns[low], &self.columns[high]);
        let weight = if low.length < high.length { (span - low.length) / (high.length - low.length) } else { 0.0 };
        (low, high, weight.clamp(0.0, 1.0))
    }

    /// How `written` pages that were written in windows (from, to] fall on these bands; evenly where nothing was written. Of a
    /// span shorter than a window `met` is the share of the runs going on that it meets, no less than its length.
    pub(super) fn of_bands(&self, from: f64, to: f64, met: f64, written: f64, bands: Range<usize>, pages: &mut [f64]) {
        let span = to - from;
        let (low, high, weights) = if span < 1.0 {
            // Of a window's pages those at which a run begins lie evenly in it.
            (&self.columns[0], &self.columns[1], [met - span, span])
        } else {
            let (low, high, weight) = self.around(span);
            (low, high, [1.0 - weight, weight])
        };
        let [(low_row, low_part), (high_row, high_part)] = [low, high].map(|column| column.place(from, to));
        let parts = [
            weights[0] * (1.0 - low_part),
            weights[0] * low_part,
            weights[1] * (1.0 - high_part),
            weights[1] * high_part,
        ];
        let totals = [low.totals[low_row], low.totals[low_row + 1], high.totals[high_row], high.totals[high_row + 1]];
        let all: f64 = parts.iter().zip(totals).map(|(part, total)| part * f64::from(total)).sum();
        if all <= 0.0 {
            pages.fill(written / BANDS as f64);
            return;
        }
        let each = parts.map(|part| (part * written / all) as f32);
        let rows = [&low.rows[low_row], &low.rows[low_row + 1], &high.rows[high_row], &high.rows[high_row + 1]];
        let [one, two, three, four] = rows.map(|row| &row[bands.clone()]);
        for ((pages, (one, two)), (three, four)) in
            pages.iter_mut().zip(one.iter().zip(two)).zip(three.iter().zip(four))
        {
            let low = each[0] * restored(*one) + each[1] * restored(*two);
            *pages = f64::from(low + (each[2] * restored(*three) + each[3] * restored(*four)));
        }
    }
}

/// Gaps that stand for those of an octave, each for as many: one for each gap there is, or four.
fn gaps_of(octave: u32, totals: &[u64]) -> Vec<f64> {
    let buckets = gap::bucket(1 << octave)..gap::bucket(((2u64 << octave) - 1) as u32) + 1;
    // Gaps that do not come are as likely as each other.
    let times = |bucket: u16| totals[usize::from(bucket)] as f64 + f64::from(gap::bucket_width(bucket)) * 1e-6;
    let all: f64 = buckets.clone().map(times).sum();
    let samples = (1u32 << octave).min(4);
    let at = |sample: u32| {
        let mut left = (f64::from(sample) + 0.5) / f64::from(samples) * all;
        for bucket in buckets.clone() {
            let times = times(bucket);
            if left <= times || bucket + 1 == buckets.end {
                let width = f64::from(gap::bucket_width(bucket));
                return f64::from(gap::bucket_start(bucket)) + (left / times).min(1.0) * (width - 1.0);
            }
            left -= times;
        }
        unreachable!("an octave has buckets")
    };
    (0..samples).map(at).collect()
}

fn add(sum: &mut Lanes, more: &Lanes, times: f32) {
    sum.iter_mut().zip(more).for_each(|(sum, more)| *sum += times * more);
}
