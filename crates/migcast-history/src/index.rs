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

/// Bands of an index.
pub const BANDS: u16 = 64;

/// Buckets of an index, the one for first writes included. The last holds gaps up to 2^32 windows.
pub const BUCKETS: u16 = 240;

/// The bucket of first writes.
pub const FIRST_WRITE: u16 = 0;

/// The band of a tracked page. `rank` < `tracked`.
pub fn band(rank: u32, tracked: u32) -> u16 {
    let band = u64::from(rank) * u64::from(BANDS) / u64::from(tracked.max(1));
    u16::try_from(band).expect("a rank below the count lies in one of 64 bands")
}

/// The bucket of a gap in recorded windows. A gap of 0 stands for a first write.
pub fn bucket(gap: u32) -> u16 {
    if gap < 8 {
        return gap as u16;
    }
    let octave = gap.ilog2();
    let eighth = (gap >> (octave - 3)) & 7;
    ((octave - 2) * 8 + eighth) as u16
}

/// The smallest gap in a bucket. `bucket` < [`BUCKETS`].
pub fn bucket_start(bucket: u16) -> u32 {
    if bucket < 16 {
        return u32::from(bucket);
    }
    let octave = u32::from(bucket) / 8 + 2;
    (8 + u32::from(bucket) % 8) << (octave - 3)
}

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

/// Builds the index while windows stream by.
#[derive(Debug)]
pub(crate) struct IndexBuilder {
    tracked: u32,
    last: LastWrites,
    /// Recorded windows so far; gaps are counted in them.
    recorded: u32,
    /// Events of the current window per band and bucket, all zero between windows.
    counts: Vec<u32>,
    touched: Vec<u16>,
    rows: Vec<IndexRow>,
}

impl IndexBuilder {
    pub(crate) fn new(tracked: u32) -> IndexBuilder {
        let counts = vec![0; usize::from(BANDS) * usize::from(BUCKETS)];
        IndexBuilder {
            tracked,
            last: LastWrites::new(tracked),
            recorded: 0,
            counts,
            touched: Vec::new(),
            rows: Vec::new(),
        }
    }

    /// Counts a recorded window in which the pages of `ranks` were written, ascending, each once.
    pub(crate) fn window(&mut self, window: u32, ranks: &[u32]) {
        self.recorded += 1;
        for &rank in ranks {
            let gap = self.last.replace(rank, self.recorded).map_or(0, |before| self.recorded - before);
            let cell = band(rank, self.tracked) * BUCKETS + bucket(gap);
            let count = &mut self.counts[usize::from(cell)];
            if *count == 0 {
                self.touched.push(cell);
            }
            *count += 1;
        }
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

/// The last recorded window of every tracked page. Memory is taken only for parts that were ever written: a large and
/// quiet guest costs little, and so does a damaged manifest that claims a huge one.
#[derive(Debug)]
pub(crate) struct LastWrites {
    parts: Vec<Option<Box<[u32; Self::PART]>>>,
}

impl LastWrites {
    const PART: usize = 4096;

    pub(crate) fn new(tracked: u32) -> LastWrites {
        let mut parts = Vec::new();
        parts.resize_with((tracked as usize).div_ceil(Self::PART), || None);
        LastWrites { parts }
    }

    /// Notes a write in window `now` (≥ 1) and gives the window of the one before.
    pub(crate) fn replace(&mut self, rank: u32, now: u32) -> Option<u32> {
        let part = self.parts[rank as usize / Self::PART].get_or_insert_with(|| Box::new([0; Self::PART]));
        let before = std::mem::replace(&mut part[rank as usize % Self::PART], now);
        (before != 0).then_some(before)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn buckets_are_exact_below_16_and_end_at_2_pow_32() {
        (0..16).for_each(|gap| assert_eq!(u32::from(bucket(gap)), gap));
        assert_eq!(bucket(u32::MAX), BUCKETS - 1);
        (0..BUCKETS).for_each(|b| assert_eq!(bucket(bucket_start(b)), b));
    }

    #[test]
    fn events_carry_their_gap_in_recorded_windows() {
        let mut index = IndexBuilder::new(64);
        index.window(5, &[0, 63]);
        index.window(9, &[0]);
        index.window(10, &[63]);
        let row = |window, band, bucket| IndexRow { window, band, bucket, events: 1 };
        assert_eq!(index.rows(), [row(5, 0, 0), row(5, 63, 0), row(9, 0, 1), row(10, 63, 2)]);
    }

    proptest! {
        #[test]
        fn a_gap_lies_in_its_bucket(gap in 1u32..) {
            let b = bucket(gap);
            prop_assert!(bucket_start(b) <= gap);
            prop_assert!(b + 1 == BUCKETS || gap < bucket_start(b + 1));
        }
    }
}
