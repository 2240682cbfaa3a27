//! The map of zero pages while a history is being written, and its rows on disk.
use std::ops::Range;

use migcast_model::dirty::ZeroChange;

use crate::sample::Tracked;
use crate::table::Values;

/// Which tracked pages are zero, by rank.
#[derive(Debug)]
pub(crate) struct ZeroMap {
    bits: Vec<u64>,
    count: u32,
}

/// One row of `zero/`: tracked pages from `page` on for `pages` pages are zero, or are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ZeroRun {
    pub(crate) window: u32,
    pub(crate) page: u64,
    pub(crate) pages: u32,
    pub(crate) zero: bool,
}

impl ZeroRun {
    /// The same, of another window.
    pub(crate) fn in_window(self, window: u32) -> ZeroRun {
        ZeroRun { window, ..self }
    }

    /// The columns of `zero/`.
    pub(crate) fn columns(rows: &[ZeroRun]) -> [Values; 4] {
        [
            Values::U32(rows.iter().map(|row| row.window.cast_signed()).collect()),
            Values::U64(rows.iter().map(|row| row.page.cast_signed()).collect()),
            Values::U32(rows.iter().map(|row| row.pages.cast_signed()).collect()),
            Values::Bool(rows.iter().map(|row| row.zero).collect()),
        ]
    }
}

impl ZeroMap {
    pub(crate) fn new(tracked: u32) -> ZeroMap {
        ZeroMap { bits: vec![0; (tracked as usize).div_ceil(64)], count: 0 }
    }

    /// How many tracked pages are zero.
    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    pub(crate) fn is_zero(&self, rank: u32) -> bool {
        self.bits[rank as usize / 64] >> (rank % 64) & 1 == 1
    }

    /// Sets a page's state; says whether that changed it.
    pub(crate) fn set(&mut self, rank: u32, zero: bool) -> bool {
        if self.is_zero(rank) == zero {
            return false;
        }
        self.bits[rank as usize / 64] ^= 1 << (rank % 64);
        self.count = if zero { self.count + 1 } else { self.count - 1 };
        true
    }

    /// Runs of ranks that are zero, ascending, as long as they go.
    pub(crate) fn runs(&self) -> Vec<Range<u32>> {
        let mut runs: Vec<Range<u32>> = Vec::new();
        let words = self.bits.iter().enumerate().filter(|(_, bits)| **bits != 0);
        for (word, &bits) in words {
            let base = u32::try_from(word * 64).expect("ranks are 32 bits");
            let mut bits = bits;
            while bits != 0 {
                let start = bits.trailing_zeros();
                let length = (bits >> start).trailing_ones();
                extend(&mut runs, base + start..base + start + length);
                // A run to the top of the word would shift by 64.
                bits &= if start + length == 64 { 0 } else { u64::MAX << (start + length) };
            }
        }
        runs
    }
}

/// Appends a run of ranks, joining it to the last where they touch.
pub(crate) fn extend(runs: &mut Vec<Range<u32>>, run: Range<u32>) {
    match runs.last_mut() {
        Some(last) if last.end == run.start => last.end = run.end,
        _ => runs.push(run),
    }
}

/// Rows for a run of ranks: one, or several where its pages are more than a row can count.
pub(crate) fn push_rows(rows: &mut Vec<ZeroRun>, tracked: &Tracked, window: u32, ranks: Range<u32>, zero: bool) {
    let pages = tracked.pages_of(ranks.clone());
    match u32::try_from(pages.end - pages.start) {
        Ok(length) => rows.push(ZeroRun { window, page: pages.start, pages: length, zero }),
        Err(_) => {
            let middle = ranks.start + (ranks.end - ranks.start) / 2;
            push_rows(rows, tracked, window, ranks.start..middle, zero);
            push_rows(rows, tracked, window, middle..ranks.end, zero);
        }
    }
}

/// Rows for the changes of a window, ascending by rank.
pub(crate) fn push_changes(
    rows: &mut Vec<ZeroRun>,
    tracked: &Tracked,
    window: u32,
    changes: impl IntoIterator<Item = ZeroChange>,
) {
    let mut run: Option<(Range<u32>, bool)> = None;
    for ZeroChange { rank, zero } in changes {
        match &mut run {
            Some((ranks, same)) if ranks.end == rank && *same == zero => ranks.end += 1,
            _ => {
                if let Some((ranks, zero)) = run.replace((rank..rank + 1, zero)) {
                    push_rows(rows, tracked, window, ranks, zero);
                }
            }
        }
    }
    if let Some((ranks, zero)) = run {
        push_rows(rows, tracked, window, ranks, zero);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn runs_are_the_set_pages(changes in prop::collection::vec((0u32..300, any::<bool>()), 0..400)) {
            let mut map = ZeroMap::new(300);
            let mut plain = [false; 300];
            for (rank, zero) in changes {
                prop_assert_eq!(map.set(rank, zero), plain[rank as usize] != zero);
                plain[rank as usize] = zero;
            }
            let expected: Vec<u32> = (0..300).filter(|rank| plain[*rank as usize]).collect();
            let runs = map.runs();
            prop_assert!(runs.windows(2).all(|pair| pair[0].end < pair[1].start));
            prop_assert_eq!(runs.into_iter().flatten().collect::<Vec<_>>(), expected.clone());
            prop_assert_eq!(map.count() as usize, expected.len());
        }
    }
}
