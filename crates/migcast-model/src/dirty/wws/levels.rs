//! Writes by window and gap, so laid out that the distinct pages of any span are read off in a few places.
//!
//! Gaps matter at the scale of the span that is asked for. So windows are merged for large gaps: level 0 holds every
//! window and the gaps below 64, level ℓ one octave of gaps, 32·2^ℓ to 64·2^ℓ, in cells of 2^ℓ windows:
//!
//! ```text
//!  level   gaps         cell          for every bucket J a column, an entry at each cell's beginning x:
//!  0       1 … 63       1 window        M(J)(x): writes before x of bucket J and above
//!  1       64 … 127     2               P(J)(x): writes behind x that reach back to or before x,
//!  2       128 … 255    4                        by gaps of the buckets below J
//!  ⋮
//! ```
//! A span of s windows from a on holds the pages whose writes in it reach back to or before a:
//!
//! ```text
//!  |W(a, a+s]|  =  P(J)(a)  +  M(J)(a+s) − M(J)(a)          J: the first bucket with no gap below s
//!                  those of gaps below s, wherever they end     those of longer gaps: each reaches back far enough
//! ```
//! If s lies inside a bucket J, that bucket is counted by itself: all its writes in (a, a + its smallest gap], and of
//! those behind that the share that reaches back, which falls from one to nothing over the bucket's width.

use std::iter;
use std::ops::Range;

use rayon::prelude::*;

use super::gap;

/// Buckets of level 0: gaps of 1 to 63 windows.
const FINE: Range<u16> = 1..32;
/// Buckets of each further level.
const PER_LEVEL: u16 = 8;
/// Gaps of a bucket that are looked at one by one when P is made; wider buckets are looked at in so many places.
const SAMPLES_MAX: u32 = 8;

/// Levels there are.
pub(super) const LEVELS_MAX: usize = 27;

/// The level of a bucket of known gap.
pub(super) fn level_of(bucket: u16) -> usize {
    usize::from(bucket.saturating_sub(FINE.end - PER_LEVEL) / PER_LEVEL)
}

/// The buckets of a level.
pub(super) fn buckets_of(level: usize) -> Range<u16> {
    if level == 0 {
        return FINE;
    }
    let first = FINE.end + PER_LEVEL * (level as u16 - 1);
    first..first + PER_LEVEL
}

/// Cells of a block of counts: what is counted together lies together, and so does what is summed up together.
const BLOCK: usize = 1024;

/// Writes by cell and bucket, while they are being counted.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    windows: u32,
    /// Per level block after block, in a block bucket after bucket, in a bucket cell after cell.
    levels: Vec<Vec<u32>>,
    /// Per window: all writes, whatever their gap.
    all: Vec<u32>,
}

impl Counts {
    /// One more window, in which so many tracked pages were written.
    pub(super) fn window(&mut self, written: u32) {
        self.windows += 1;
        self.all.push(written);
    }

    /// Windows so far.
    pub(super) fn windows(&self) -> u32 {
        self.windows
    }

    /// Pages written in each window.
    pub(super) fn written(&self) -> &[u32] {
        &self.all
    }

    /// Counts writes of a known gap that were somewhere in these windows, evenly spread over them.
    pub(super) fn spread(&mut self, windows: Range<u32>, bucket: u16, writes: u32) {
        if windows.len() == 1 {
            self.count(windows.start, bucket, writes);
            return;
        }
        let (level, length) = (level_of(bucket), u64::from(windows.len() as u32));
        let (mut from, mut left) = (windows.start, writes);
        while from < windows.end && left > 0 {
            let cell_end = ((from >> level) + 1) << level;
            let end = cell_end.min(windows.end);
            let part = u64::from(writes) * u64::from(end - from);
            let here = if end == windows.end { left } else { (((part + length / 2) / length) as u32).min(left) };
            self.count(from, bucket, here);
            (from, left) = (end, left - here);
        }
    }

    /// Counts writes of a known gap in a window there is.
    pub(super) fn count(&mut self, window: u32, bucket: u16, writes: u32) {
        let level = level_of(bucket);
        if self.levels.len() <= level {
            self.levels.resize_with(level + 1, Vec::new);
        }
        let buckets = buckets_of(level);
        let (block, cell) = ((window >> level) as usize / BLOCK, (window >> level) as usize % BLOCK);
        let counts = &mut self.levels[level];
        if counts.len() < (block + 1) * buckets.len() * BLOCK {
            counts.resize((block + 1) * buckets.len() * BLOCK, 0);
        }
        let count = &mut counts[(block * buckets.len() + usize::from(bucket - buckets.start)) * BLOCK + cell];
        *count = count.wrapping_add(writes);
    }

    /// Sums them up.
    pub(super) fn finish(self) -> Levels {
        let Counts { windows, levels: mut counted, all } = self;
        // As many levels as there are gaps to ask for.
        let deepest = level_of(gap::bucket(windows.max(1)));
        counted.resize_with(deepest + 1, Vec::new);
        let mut first = Column { before: prefix_sums(all.into_iter()), across: vec![0.0; windows as usize + 1] };
        let mut levels: Vec<Level> = Vec::new();
        for (level, counts) in counted.into_iter().enumerate() {
            let grid = Grid::new(level, windows);
            if level > 0 {
                first = levels[level - 1].columns.last().expect("a level has columns").every_second(grid);
            }
            levels.push(Level::of(grid, first, &counts, buckets_of(level)));
            first = Column::default();
        }
        Levels { windows: f64::from(windows), levels }
    }
}

/// 0, then the sums from the first on; they wrap around.
fn prefix_sums(counts: impl Iterator<Item = u32>) -> Vec<u32> {
    let sums = counts.scan(0u32, |sum, count| {
        *sum = sum.wrapping_add(count);
        Some(*sum)
    });
    iter::once(0).chain(sums).collect()
}

/// The windows of a history in cells of one length.
#[derive(Clone, Copy, Debug)]
pub(super) struct Grid {
    /// A cell has 2^shift windows; the last may be shorter.
    shift: usize,
    windows: u32,
    /// 2^−shift.
    per_window: f64,
}

impl Grid {
    pub(super) fn new(shift: usize, windows: u32) -> Grid {
        Grid { shift, windows, per_window: 1.0 / (1u64 << shift) as f64 }
    }

    pub(super) fn cells(self) -> usize {
        (self.windows as usize).div_ceil(1 << self.shift)
    }

    /// The window a cell begins with, or the end.
    pub(super) fn begin(self, cell: usize) -> f64 {
        ((cell << self.shift) as f64).min(f64::from(self.windows))
    }

    /// Where a time lies. `at` is at most the number of windows.
    pub(super) fn place(self, at: f64) -> Place {
        let cell = at as u32 >> self.shift;
        let (begin, end) = (cell << self.shift, (u64::from(cell) + 1) << self.shift);
        if end <= u64::from(self.windows) {
            return Place { cell: cell as usize, part: (at - f64::from(begin)) * self.per_window };
        }
        let cell = (cell as usize).min(self.cells() - 1);
        let (begin, end) = (self.begin(cell), self.begin(cell + 1));
        Place { cell, part: (at - begin) / (end - begin) }
    }

    /// Where a span ends that begins with the first cell, as if all cells were whole.
    fn on(self, span: f64) -> Place {
        let cell = span as usize >> self.shift;
        let (begin, windows) = (cell << self.shift, 1u64 << self.shift);
        Place { cell, part: (span - begin as f64) / windows as f64 }
    }
}

/// A time in the cells of a level. A question has two or three of them, and looks each up in several columns.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) cell: usize,
    /// How far in the cell, 0 to 1.
    pub(super) part: f64,
}

/// One entry for each cell's beginning, and one for the end.
#[derive(Clone, Debug, Default)]
struct Column {
    /// M: writes before here, modulo 2^32.
    before: Vec<u32>,
    /// P: writes that reach across.
    across: Vec<f32>,
}

/// Where a span ends in a history that starts over.
#[derive(Clone, Copy, Debug)]
enum Until {
    Within(Place),
    /// In the history's next turn: it goes to the end, and from the beginning on to where it is at last.
    Beyond {
        end: Place,
        begin: Place,
        again: Place,
    },
}

impl Column {
    fn every_second(&self, grid: Grid) -> Column {
        let rows = (0..=grid.cells()).map(|row| (2 * row).min(self.before.len() - 1));
        Column {
            before: rows.clone().map(|row| self.before[row]).collect(),
            across: rows.map(|row| self.across[row]).collect(),
        }
    }

    /// Writes from one place to a later one, fewer than 2^31. Writes that were counted over some windows are spread
    /// evenly over them, so that now and then fewer than none are left of the others.
    fn between(&self, from: Place, to: Place) -> f64 {
        let writes = |from: usize, to: usize| f64::from(self.before[to].wrapping_sub(self.before[from]).cast_signed());
        let whole = writes(from.cell, to.cell);
        whole + to.part * writes(to.cell, to.cell + 1) - from.part * writes(from.cell, from.cell + 1)
    }

    /// Writes from a place to the end of a span.
    fn up_to(&self, from: Place, to: Until) -> f64 {
        match to {
            Until::Within(to) => self.between(from, to),
            Until::Beyond { end, begin, again } => self.between(from, end) + self.between(begin, again),
        }
    }

    fn across(&self, at: Place) -> f64 {
        let (here, next) = (f64::from(self.across[at.cell]), f64::from(self.across[at.cell + 1]));
        here + at.part * (next - here)
    }
}

/// The columns of a level: one for each of its buckets, one for the bucket behind them.
#[derive(Clone, Debug)]
struct Level {
    grid: Grid,
    columns: Vec<Column>,
}

impl Level {
    fn of(grid: Grid, first: Column, counts: &[u32], buckets: Range<u16>) -> Level {
        let alone: Vec<Column> = (0..buckets.len())
            .into_par_iter()
            .map(|index| {
                let of_block = |block: usize| (block * buckets.len() + index) * BLOCK;
                let count = |cell: usize| counts.get(of_block(cell / BLOCK) + cell % BLOCK).copied().unwrap_or(0);
                let before = prefix_sums((0..grid.cells()).map(count));
                let across = reaching_back(grid, &before, buckets.start + index as u16);
                Column { before, across }
            })
            .collect();
        let mut columns = vec![first];
        for mut next in alone {
            let last = columns.last().expect("it begins with one");
            next.before.iter_mut().zip(&last.before).for_each(|(these, all)| *these = all.wrapping_sub(*these));
            next.across.iter_mut().zip(&last.across).for_each(|(these, below)| *these += below);
            columns.push(next);
        }
        Level { grid, columns }
    }
}

/// For every cell's beginning, and the end: the writes of one bucket behind it that reach back to or before it. The
/// history starts over at its end.
fn reaching_back(grid: Grid, before: &[u32], bucket: u16) -> Vec<f32> {
    let (width, windows) = (gap::bucket_width(bucket), f64::from(grid.windows));
    let samples = width.min(SAMPLES_MAX);
    let step = f64::from(width) / f64::from(samples);
    // Each gap of a bucket is as likely as the others; a sample stands for `step` of them.
    let gap = |sample: u32| f64::from(gap::bucket_start(bucket)) + (f64::from(sample) + 0.5) * step - 0.5;
    let gaps: Vec<f64> = (0..samples).map(gap).map(|gap| gap.min(windows)).collect();
    // From the beginning of every cell on a gap ends as many cells further, as far in the cell, if that is a whole one.
    let ends: Vec<Place> = gaps.iter().map(|gap| grid.on(*gap)).collect();
    // Sums wrap around; what reaches back is at most once each page.
    let writes = |from: usize, to: usize| f64::from(before[to].wrapping_sub(before[from]));
    let up_to = |from: usize, Place { cell, part }: Place| writes(from, cell) + part * writes(cell, cell + 1);
    let across = |cell: usize| {
        let from = grid.begin(cell);
        let behind = gaps.iter().map(|gap| {
            let to = from + gap;
            if to <= windows {
                up_to(cell, grid.place(to))
            } else {
                writes(cell, grid.cells()) + up_to(0, grid.place(to - windows))
            }
        });
        (behind.sum::<f64>() / f64::from(samples)) as f32
    };
    if before.iter().all(|sum| *sum == 0) {
        return vec![0.0; grid.cells() + 1];
    }
    let last = ends.last().map_or(0, |end| end.cell);
    let whole = (grid.windows as usize >> grid.shift).saturating_sub(last);
    let mut all = Vec::with_capacity(grid.cells() + 1);
    let mut sums = [0.0; BLOCK];
    for from in (0..whole).step_by(BLOCK) {
        let cells = from..whole.min(from + BLOCK);
        let sums = &mut sums[..cells.len()];
        sums.fill(0.0);
        for Place { cell, part } in &ends {
            let (here, end) = (&before[cells.clone()], cells.start + cell);
            let (there, next) = (&before[end..][..here.len()], &before[end + 1..][..here.len()]);
            for (sum, ((here, there), next)) in sums.iter_mut().zip(here.iter().zip(there).zip(next)) {
                *sum += f64::from(there.wrapping_sub(*here)) + part * f64::from(next.wrapping_sub(*there));
            }
        }
        all.extend(sums.iter().map(|sum| (*sum / f64::from(samples)) as f32));
    }
    all.extend((whole..=grid.cells()).map(across));
    all
}

/// All levels of a history that starts over at its end.
#[derive(Clone, Debug)]
pub(super) struct Levels {
    windows: f64,
    levels: Vec<Level>,
}

impl Levels {
    /// Windows of the history.
    pub(super) fn windows(&self) -> f64 {
        self.windows
    }

    /// Writes of gaps above 1 in windows (from, to], at most a window apart: pages whose runs begin in them.
    pub(super) fn begun(&self, from: f64, to: f64) -> f64 {
        let Level { grid, columns } = &self.levels[0];
        columns[1].up_to(grid.place(from), self.until(*grid, to))
    }

    /// Tracked pages written in windows (from, to], each counted once. `from` lies in the history; a span has a
    /// window or more, and one longer than the history is taken for the history.
    pub(super) fn distinct(&self, from: f64, to: f64) -> f64 {
        let span = (to - from).min(self.windows);
        let to = from + span;
        let whole = (span as u32).max(1);
        // The bucket in which the span lies, or the next if it holds no longer gap.
        let around = gap::bucket(whole);
        let (start, width) = (gap::bucket_start(around), gap::bucket_width(around));
        let is_behind = f64::from(start + width - 1) <= span;
        let bucket = if is_behind { around + 1 } else { around };
        let level = level_of(bucket).min(self.levels.len() - 1);
        let Level { grid, columns } = &self.levels[level];
        let index = usize::from(bucket - buckets_of(level).start).min(columns.len() - 1);
        let begin = grid.place(from);
        let these = &columns[index];
        let across = these.across(begin);
        if is_behind || f64::from(start) >= span || index + 1 == columns.len() {
            return across
                + match to <= self.windows {
                    true => these.between(begin, grid.place(to)),
                    false => these.up_to(begin, self.until(*grid, to)),
                };
        }
        // Inside a bucket.
        let longer = &columns[index + 1];
        let (start, width) = (f64::from(start), f64::from(width));
        let reach = (start + width - (start + span + 1.0) / 2.0) / width;
        // As nearly always; else two turns of the history meet.
        if to <= self.windows {
            let (near, end) = (grid.place(from + start), grid.place(to));
            let [to_near, to_end] = [near, end].map(|end| [these.between(begin, end), longer.between(begin, end)]);
            let (near, alone) = (to_near[0] - to_near[1], to_end[0] - to_end[1]);
            return across + to_end[1] + near + (alone - near) * reach;
        }
        let alone = |end: Until| these.up_to(begin, end) - longer.up_to(begin, end);
        let end = self.until(*grid, to);
        let near = alone(self.until(*grid, from + start));
        across + longer.up_to(begin, end) + near + (alone(end) - near) * reach
    }

    /// Where a span ends whose end is at most the history's length behind the history.
    fn until(&self, grid: Grid, to: f64) -> Until {
        if to <= self.windows {
            return Until::Within(grid.place(to));
        }
        let again = (to - self.windows).min(self.windows);
        Until::Beyond { end: grid.place(self.windows), begin: grid.place(0.0), again: grid.place(again) }
    }
}
