//! What is due where, and how far the scan has come in it.
//!
//! ```text
//!  bands    │   0   │   1   │   2   │   3   │  …
//!  regions  │ one since ┆ another since   ┆ …           told at a reading of the log
//!  cells    │   0   │ 1 ┆ 2 │   3   │ 4 ┆ 5 │  …        a region's part in one band
//!  passed        ├──────────────┤▲                       the pass began at a region's beginning
//! ```
//! What a cell holds is set when the log is read, and stays: the scan's place alone says what is left. So a pass over a
//! cell costs a sum.

use std::ops::Range;

use super::mix::{Mix, NOTHING, whole_up};
use crate::units::GuestTime;

/// A stretch of the memory of which one thing is known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Region {
    /// Where it begins and ends, in bands from the memory's beginning.
    pub(super) from: f64,
    pub(super) to: f64,
    /// Since when its writes are due; `None` as long as all of it is.
    pub(super) since: Option<GuestTime>,
    /// Since when its writes have been sent, and kept in the cache; `None` as long as none has.
    pub(super) kept_since: Option<GuestTime>,
}

impl Region {
    /// The bands in which it lies.
    pub(super) fn bands(&self) -> Range<usize> {
        self.from as usize..whole_up(self.to) as usize
    }

    /// Its cells, of whose bands so many pages each were written; of those the share that is zero, and of the others the
    /// share that is sent encoded.
    pub(super) fn cells(self, region: u32, written: &[f64], [zero, encoded]: [f64; 2]) -> impl Iterator<Item = Cell> {
        let bands = self.from as u32..;
        bands.zip(written).map(move |(band, written)| {
            // Comparisons instead of `max` and `min`, which mind numbers that are none.
            let (begin, end) = (f64::from(band), f64::from(band + 1));
            let from = if self.from > begin { self.from } else { begin };
            let share = if self.to < end { self.to } else { end } - from;
            let pages = *written * share;
            let data = pages * (1.0 - zero);
            let due = Mix { data: data * (1.0 - encoded), zero: pages * zero, encoded: data * encoded };
            Cell { band, region, from, share, due, pages }
        })
    }
}

/// The part of a region that lies in one band.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cell {
    pub(super) band: u32,
    pub(super) region: u32,
    /// Where it begins, in bands from the memory's beginning, and its share of its band.
    pub(super) from: f64,
    pub(super) share: f64,
    /// Pages due when the log was last read.
    pub(super) due: Mix,
    /// All of them, whatever their kind.
    pub(super) pages: f64,
}

impl Cell {
    /// The page of the memory at which what is due behind its first `gone` pages lies, in a pass in which all are due: told
    /// from its end, at which it has none whatever sums have lost.
    pub(super) fn page(&self, gone: f64, band_pages: f64) -> f64 {
        (self.from + self.share) * band_pages - (self.pages - gone)
    }

    /// What is due behind its first `gone` pages if its pages lie evenly mixed.
    pub(super) fn behind(&self, gone: f64) -> Mix {
        if gone == 0.0 { self.due } else { self.due.times((self.pages - gone).max(0.0) / self.pages) }
    }
}

/// A region, or a part of it, as a reading of the log finds it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    pub(super) region: Region,
    /// Whether the scan has passed it since the last reading.
    pub(super) is_passed: bool,
    /// Of one that is passed, whether it was after the scan had gone around the memory's end.
    pub(super) is_around: bool,
    /// Whether the scan stands at its beginning.
    pub(super) is_next: bool,
}

/// Regions, cells, and the scan's place among them.
#[derive(Clone, Debug, Default)]
pub(super) struct Scan {
    pub(super) regions: Vec<Region>,
    pub(super) cells: Vec<Cell>,
    /// The cell in which it stands; behind the last one until it goes around, where it does.
    at: usize,
    /// Pages of that cell that it has passed.
    gone: f64,
    /// Whole cells that it has passed since the last reading of the log.
    passed: usize,
}

impl Scan {
    /// Room for what a linear scan of so many bands needs.
    pub(super) fn with_room(bands: usize) -> Scan {
        let cells = if bands == 1 { 1 } else { bands + 8 };
        Scan { cells: Vec::with_capacity(cells), ..Scan::default() }
    }

    /// The same as another, in the room there is.
    pub(super) fn stand_as(&mut self, other: &Scan) {
        self.regions.clone_from(&other.regions);
        self.cells.clone_from(&other.cells);
        (self.at, self.gone, self.passed) = (other.at, other.gone, other.passed);
    }

    /// Whether the scan stands behind the last cell.
    pub(super) fn is_at_end(&self) -> bool {
        self.at == self.cells.len()
    }

    /// Whether it has passed none since the last reading.
    pub(super) fn has_passed_none(&self) -> bool {
        self.passed == 0
    }

    /// Whether it has passed every cell.
    pub(super) fn has_passed_all(&self) -> bool {
        self.passed >= self.cells.len()
    }

    /// The cell in which it stands, and how many of its pages are passed.
    pub(super) fn cell(&self) -> (&Cell, f64) {
        (&self.cells[self.at], self.gone)
    }

    /// Goes past so many pages of the cell in which it stands, or what it has.
    pub(super) fn pass(&mut self, pages: f64) {
        self.gone = (self.gone + pages).min(self.cells[self.at].pages);
    }

    /// Leaves a cell whose end it has come to.
    pub(super) fn settle(&mut self) {
        if self.gone > 0.0 && self.cells[self.at].pages - self.gone < NOTHING {
            self.leave();
        }
    }

    /// Whether a cell has been due from the beginning.
    pub(super) fn is_first(&self, cell: &Cell) -> bool {
        self.regions[cell.region as usize].since.is_none()
    }

    /// Pages that would be sent encoded have their data sent.
    pub(super) fn encode_nothing(&mut self) {
        for cell in &mut self.cells {
            cell.due.data += std::mem::take(&mut cell.due.encoded);
        }
    }

    /// Passes whole cells up to the memory's end, as long as they hold less than `most` pages; `each` is told of those in
    /// which any is due. Returns what they hold.
    #[inline]
    pub(super) fn pass_whole(&mut self, most: f64, mut each: impl FnMut(&Cell)) -> Mix {
        let mut parts = Mix::default();
        if self.gone > 0.0 {
            return parts;
        }
        let (mut pages, mut passed) = (0.0, 0);
        for cell in &self.cells[self.at..self.end()] {
            pages += cell.pages;
            if pages >= most {
                break;
            }
            if cell.pages >= NOTHING {
                each(cell);
            }
            parts.add(cell.due);
            passed += 1;
        }
        (self.at, self.passed) = (self.at + passed, self.passed + passed);
        parts
    }

    /// Leaves the cell in which it stands.
    pub(super) fn leave(&mut self) {
        (self.at, self.gone) = (self.at + 1, 0.0);
        self.passed += 1;
    }

    /// From the memory's end to its beginning.
    pub(super) fn turn(&mut self) {
        self.at = 0;
    }

    /// The first cell ahead, or the memory's end, that is passed.
    fn end(&self) -> usize {
        self.cells.len().min(self.at + self.cells.len().saturating_sub(self.passed))
    }

    /// Cells that are not passed up to the memory's end, with the pages of them that are.
    pub(super) fn ahead(&self) -> impl Iterator<Item = (&Cell, f64)> {
        let gone = std::iter::once(self.gone).chain(std::iter::repeat(0.0));
        self.cells[self.at..self.end()].iter().zip(gone)
    }

    /// The same, and on around the end.
    pub(super) fn ahead_around(&self) -> impl Iterator<Item = (&Cell, f64)> {
        let left = self.cells.len().saturating_sub(self.passed);
        let around = left.saturating_sub(self.cells.len() - self.at);
        self.ahead().chain(self.cells[..around].iter().map(|cell| (cell, 0.0)))
    }

    /// Sets what each cell ahead holds that has been due from the beginning. Says whether there is one.
    pub(super) fn set_first(&mut self, mut hold: impl FnMut(&Cell) -> Mix) -> bool {
        let mut has_any = false;
        for index in self.at..self.end() {
            if self.is_first(&self.cells[index]) {
                self.cells[index].due = hold(&self.cells[index]);
                has_any = true;
            }
        }
        has_any
    }

    /// What the scan has passed and what not: regions, the one in which it stands in two where `cuts`, and else not
    /// passed before its cell's end.
    pub(super) fn pieces(&self, cuts: bool, pieces: &mut Vec<Piece>) {
        pieces.clear();
        // Where the pass began: a region's beginning.
        let (cells, passed) = (self.cells.len(), self.passed);
        let began = (self.at + cells).saturating_sub(passed) % cells.max(1);
        let is_passed = |cell: usize| (cell + cells - began) % cells < passed;
        let mut cell = 0;
        for (index, region) in self.regions.iter().enumerate() {
            let first = cell;
            while cell < cells && self.cells[cell].region as usize == index {
                cell += 1;
            }
            let piece = Piece {
                region: *region,
                is_passed: is_passed(first),
                is_around: first < began,
                is_next: first == self.at,
            };
            let border = (first..cell).contains(&self.at).then(|| self.place(cuts)).filter(|at| *at > region.from);
            let Some(border) = border.filter(|border| *border < region.to) else {
                pieces.push(piece);
                continue;
            };
            let (mut before, mut behind) = (piece, piece);
            (before.region.to, before.is_passed, before.is_next) = (border, true, false);
            (behind.region.from, behind.is_passed, behind.is_next) = (border, self.has_passed_all(), true);
            pieces.extend([before, behind]);
        }
    }

    /// Where it stands, or its cell begins, in bands from the memory's beginning.
    fn place(&self, exactly: bool) -> f64 {
        let cell = &self.cells[self.at];
        if exactly && self.gone > 0.0 { cell.from + cell.share * (self.gone / cell.pages).min(1.0) } else { cell.from }
    }

    /// Of one region, which has one cell: since when its writes are due, and what it holds. A new pass begins.
    pub(super) fn hold_one(&mut self, since: GuestTime, cell: Cell) {
        self.regions[0].since = Some(since);
        self.cells.clear();
        self.cells.push(cell);
        self.begin(0);
    }

    /// The scan's place at the beginning of a cell, from which a new pass begins.
    pub(super) fn begin(&mut self, at: usize) {
        (self.at, self.gone, self.passed) = (at, 0.0, 0);
    }
}

/// Appends a region, to the last one if it is as much and the scan does not stand between them.
pub(super) fn append(regions: &mut Vec<Region>, region: Region, is_next: bool) {
    let last = regions.last_mut().filter(|_| !is_next);
    match last.filter(|last| last.since == region.since && last.kept_since == region.kept_since) {
        Some(last) => last.to = region.to,
        None => regions.push(region),
    }
}

/// Lets no band have more than `most` pages. What an index tells of one band is rougher than what it tells of all: pages
/// beyond that lie in the others, in proportion to what was written there.
#[inline]
pub(super) fn fill_up_to(written: &mut [f64], most: f64) {
    while written.iter().any(|pages| *pages > most) {
        let (mut beyond, mut others) = (0.0, 0.0);
        for pages in written.iter_mut() {
            if *pages > most {
                beyond += *pages - most;
                *pages = most;
            } else if *pages < most {
                others += *pages;
            }
        }
        let factor = if others > 0.0 { 1.0 + beyond / others } else { 1.0 };
        written.iter_mut().filter(|pages| **pages < most).for_each(|pages| *pages *= factor);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten pages in each of four bands, of regions that meet at these bands; the scan stands at a region's beginning.
    fn standing(borders: &[f64], region: usize) -> Scan {
        let mut scan = Scan::default();
        for (index, ends) in borders.windows(2).enumerate() {
            // No two are as much.
            let since = Some(GuestTime::from_nanos(index as u64));
            let region = Region { from: ends[0], to: ends[1], since, kept_since: None };
            scan.cells.extend(region.cells(index as u32, &[10.0; 4][..region.bands().len()], [0.0, 0.0]));
            scan.regions.push(region);
        }
        let at = scan.cells.iter().position(|cell| cell.region as usize == region).unwrap();
        scan.begin(at);
        scan
    }

    /// Where pieces begin, whether they are passed, and after the end was gone around; where the scan stands.
    fn pieces(scan: &Scan, cuts: bool) -> (Vec<(f64, bool, bool)>, Option<f64>) {
        let mut pieces = Vec::new();
        scan.pieces(cuts, &mut pieces);
        let told = pieces.iter().map(|piece| (piece.region.from, piece.is_passed, piece.is_around)).collect();
        (told, pieces.iter().find(|piece| piece.is_next).map(|piece| piece.region.from))
    }

    #[test]
    fn a_region_is_cut_where_the_scan_stands() {
        let mut scan = standing(&[0.0, 4.0], 0);
        assert_eq!(pieces(&scan, true), (vec![(0.0, false, false)], Some(0.0)), "nothing is passed");
        let whole = scan.pass_whole(25.0, |_| {});
        scan.pass(5.0);
        assert_eq!((whole.pages(), scan.cell().0.band, scan.cell().1), (20.0, 2, 5.0));
        assert_eq!(pieces(&scan, true), (vec![(0.0, true, false), (2.5, false, false)], Some(2.5)));
        // What does not begin anew is not passed before its end.
        assert_eq!(pieces(&scan, false), (vec![(0.0, true, false), (2.0, false, false)], Some(2.0)));
    }

    #[test]
    fn a_pass_goes_around_the_end_up_to_where_it_began() {
        let mut scan = standing(&[0.0, 1.5, 4.0], 1);
        let mut bands = Vec::new();
        // 5, 10 and 10 pages from the middle of band 1 to the end.
        assert_eq!(scan.pass_whole(f64::INFINITY, |cell| bands.push(cell.band)).pages(), 25.0);
        assert!(scan.is_at_end() && !scan.has_passed_all());
        assert_eq!(pieces(&scan, true), (vec![(0.0, false, true), (1.5, true, false)], None));
        scan.turn();
        scan.pass(4.0);
        let ahead: Vec<f64> = scan.ahead_around().map(|(cell, gone)| cell.pages - gone).collect();
        assert_eq!(ahead, [6.0, 5.0]);
        let cut = vec![(0.0, true, true), (0.4, false, true), (1.5, true, false)];
        assert_eq!(pieces(&scan, true), (cut, Some(0.4)));
        scan.leave();
        scan.pass_whole(f64::INFINITY, |cell| bands.push(cell.band));
        assert!(scan.has_passed_all());
        assert_eq!(bands, [1, 2, 3, 1]);
        assert_eq!(pieces(&scan, true), (vec![(0.0, true, true), (1.5, true, false)], Some(1.5)));
    }

    #[test]
    fn cells_keep_what_a_reading_told_however_far_the_scan_is() {
        let mut scan = standing(&[0.0, 4.0], 0);
        scan.pass(2.5);
        let (cell, gone) = scan.cell();
        assert_eq!((cell.behind(gone).pages(), cell.pages, cell.page(gone, 10.0)), (7.5, 10.0, 2.5));
        scan.pass(100.0);
        assert_eq!((scan.cell().0.band, scan.cell().1), (0, 10.0), "no more than it has");
        scan.settle();
        assert_eq!((scan.cell().0.band, scan.cell().1), (1, 0.0));
        // Not past what would be as much.
        assert_eq!((scan.pass_whole(10.0, |_| {}).pages(), scan.pass_whole(10.1, |_| {}).pages()), (0.0, 10.0));
    }

    #[test]
    fn regions_that_are_as_much_are_joined_unless_the_scan_stands_between_them() {
        let region = |from: f64, since: Option<u64>| {
            let since = since.map(GuestTime::from_nanos);
            Region { from, to: from + 1.0, since, kept_since: None }
        };
        let mut regions = Vec::new();
        append(&mut regions, region(0.0, Some(1)), false);
        append(&mut regions, region(1.0, Some(1)), false);
        append(&mut regions, region(2.0, None), false);
        append(&mut regions, region(3.0, None), true);
        let told: Vec<(f64, f64)> = regions.iter().map(|region| (region.from, region.to)).collect();
        assert_eq!(told, [(0.0, 2.0), (2.0, 3.0), (3.0, 4.0)]);
    }

    #[test]
    fn pages_beyond_what_a_band_has_lie_in_the_others() {
        let filled = |mut written: Vec<f64>| {
            fill_up_to(&mut written, 10.0);
            written
        };
        assert_eq!(filled(vec![10.0, 4.0, 0.0]), [10.0, 4.0, 0.0]);
        assert_eq!(filled(vec![13.0, 1.0, 2.0, 0.0]), [10.0, 2.0, 4.0, 0.0]);
        // The second has too many then, too.
        assert_eq!(filled(vec![15.0, 8.0, 2.0]), [10.0, 10.0, 5.0]);
        assert_eq!(filled(vec![30.0, 5.0]), [10.0, 10.0], "all of them");
        assert_eq!(filled(vec![30.0, 0.0]), [10.0, 0.0], "no other was written");
    }
}
