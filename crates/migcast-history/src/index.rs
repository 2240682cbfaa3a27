//! The WWS index: how many pages were written again after how long, per window and part of memory.
//!
//! An *event* is a page written in a recorded window. Its *gap* is the number of recorded windows since the one in
//! which that page was last written (1 = the window before). Events are counted per window, band and bucket:
//!
//! ```text
//! band     tracked ranks, cut into 64 equal ranges:  rank × 64 ÷ tracked, rounded down
//! bucket   0: first write of this page    1 … 15: that gap exactly    16 …: 8 buckets per octave
//! ```
//!
//! From such counts the number of distinct pages written in any span follows without the pages themselves:
//! |W(a, b]| = events in (a, b] whose previous write is at or before a (footprint theory of cache locality).

use migcast_model::dirty::wws::{self, WriteTracker};

pub use migcast_model::dirty::wws::band;
pub use migcast_model::dirty::wws::gap::{BUCKETS, FIRST_WRITE, bucket, bucket_start};

use crate::table::Values;

/// Bands of an index.
pub const BANDS: u16 = wws::BANDS as u16;

/// One row of `wws/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct IndexRow {
    /// Window, counted from the start of the history.
    pub window: u32,
    /// Band of the pages, below [`BANDS`].
    pub band: u16,
    /// Bucket of their gaps, below [`BUCKETS`].
    pub bucket: u16,
    /// How many there are, ≥ 1.
    pub events: u32,
}

impl IndexRow {
    /// The columns of `wws/`.
    pub(crate) fn columns(rows: &[IndexRow]) -> [Values; 4] {
        [
            Values::U32(rows.iter().map(|row| row.window.cast_signed()).collect()),
            Values::U32(rows.iter().map(|row| i32::from(row.band)).collect()),
            Values::U32(rows.iter().map(|row| i32::from(row.bucket)).collect()),
            Values::U32(rows.iter().map(|row| row.events.cast_signed()).collect()),
        ]
    }
}

/// Builds the index while windows stream by.
#[derive(Debug)]
pub(crate) struct IndexBuilder {
    tracked: u32,
    writes: WriteTracker,
    /// Events of the current window per band and bucket, all zero between windows.
    counts: Vec<u32>,
    touched: Vec<u16>,
    rows: Vec<IndexRow>,
}

impl IndexBuilder {
    pub(crate) fn new(tracked: u32) -> IndexBuilder {
        let counts = vec![0; usize::from(BANDS) * usize::from(BUCKETS)];
        IndexBuilder { tracked, writes: WriteTracker::new(tracked), counts, touched: Vec::new(), rows: Vec::new() }
    }

    /// Counts a recorded window in which the pages of `ranks` were written, ascending, each once.
    pub(crate) fn window(&mut self, window: u32, ranks: &[u32]) {
        let IndexBuilder { tracked, writes, counts, touched, .. } = self;
        writes.window(ranks, |write| {
            let cell = band(write.rank, *tracked) * BUCKETS + bucket(write.gap);
            let count = &mut counts[usize::from(cell)];
            if *count == 0 {
                touched.push(cell);
            }
            *count += 1;
        });
        self.touched.sort_unstable();
        for cell in self.touched.drain(..) {
            let events = std::mem::take(&mut self.counts[usize::from(cell)]);
            self.rows.push(IndexRow { window, band: cell / BUCKETS, bucket: cell % BUCKETS, events });
        }
    }

    /// Rows since the last [`Self::clear`], by window, band and bucket.
    pub(crate) fn rows(&self) -> &[IndexRow] {
        &self.rows
    }

    /// Forgets the rows, not the pages.
    pub(crate) fn clear(&mut self) {
        self.rows.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_carry_their_gap_in_recorded_windows() {
        let mut index = IndexBuilder::new(64);
        index.window(5, &[0, 63]);
        index.window(9, &[0]);
        index.window(10, &[63]);
        let row = |window, band, bucket| IndexRow { window, band, bucket, events: 1 };
        assert_eq!(index.rows(), [row(5, 0, 0), row(5, 63, 0), row(9, 0, 1), row(10, 63, 2)]);
    }
}
