//! Which pages of a guest are tracked: all, or a seeded random one out of every N.
//!
//! ```text
//! block "pc.ram"   │ stratum 0 │ stratum 1 │ stratum 2 │s3│      one_in = 4, 14 pages
//! pages             0  1  2  3  4  5  6  7  8  9 10 11 12 13
//! tracked                 ■     ■                    ■     ■
//! rank                    0     1                    2     3
//! ```
use std::ops::Range;

use serde::{Deserialize, Serialize};
use twox_hash::XxHash3_64;

use crate::format::{Block, Manifest};

/// Each block is cut into strata of `one_in` consecutive pages (the last may be shorter) and one page of each
/// stratum, drawn by `seed`, is tracked. `one_in` = 1 tracks every page. A tracked page has a *rank*: its index among
/// the tracked pages in scan order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// Pages per tracked page, ≥ 1.
    pub one_in: u32,
    /// Seed of the draw.
    pub seed: u64,
}

impl Sample {
    /// Every page is tracked.
    pub const fn full() -> Sample {
        Sample { one_in: 1, seed: 0 }
    }

    /// True where every page is tracked.
    pub const fn is_full(&self) -> bool {
        self.one_in == 1
    }
}

/// Why pages cannot be laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SampleError {
    /// `one_in` is zero.
    #[error("sample.one_in is 0, allowed: 1 or more")]
    OneInZero,
    /// More pages are tracked than a rank can number.
    #[error("{tracked} tracked pages, allowed: 1 to {}; track one page in more", Tracked::COUNT_MAX)]
    Tracked {
        /// Pages that would be tracked.
        tracked: u128,
    },
    /// The blocks are larger together than any machine's memory.
    #[error("memory of {memory} pages, allowed: up to {}", Tracked::MEMORY_MAX)]
    Memory {
        /// Pages of all blocks.
        memory: u128,
    },
    /// The page size is not a power of two.
    #[error("page size of {page_size} bytes, allowed: a power of two")]
    PageSize {
        /// The page size given.
        page_size: u64,
    },
}

/// The tracked pages of a guest: page numbers and their ranks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tracked {
    one_in: u32,
    count: u32,
    memory: u64,
    blocks: Vec<TrackedBlock>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct TrackedBlock {
    /// Seeds the draws in this block.
    key: u64,
    first_page: u64,
    pages: u64,
    first_rank: u32,
    strata: u32,
}

impl Tracked {
    /// Most pages that can be tracked: ranks are `u32` and one value stays free.
    pub const COUNT_MAX: u32 = u32::MAX - 1;
    /// Most pages a guest may have.
    pub const MEMORY_MAX: u64 = 1 << 48;

    /// Lays out the tracked pages of `blocks`. Blocks whose length is no multiple of `page_size` end in a whole page.
    pub fn new(blocks: &[Block], page_size: u64, sample: Sample) -> Result<Tracked, SampleError> {
        if sample.one_in == 0 {
            return Err(SampleError::OneInZero);
        }
        if !page_size.is_power_of_two() {
            return Err(SampleError::PageSize { page_size });
        }
        let sum =
            |unit: u64| blocks.iter().map(|b| u128::from(b.length_bytes.div_ceil(page_size).div_ceil(unit))).sum();
        let memory: u128 = sum(1);
        if memory > u128::from(Self::MEMORY_MAX) {
            return Err(SampleError::Memory { memory });
        }
        let tracked: u128 = sum(u64::from(sample.one_in));
        if tracked == 0 || tracked > u128::from(Self::COUNT_MAX) {
            return Err(SampleError::Tracked { tracked });
        }
        let mut layout =
            Tracked { one_in: sample.one_in, count: 0, memory: 0, blocks: Vec::with_capacity(blocks.len()) };
        for block in blocks {
            let pages = block.length_bytes.div_ceil(page_size);
            let strata = u32::try_from(pages.div_ceil(u64::from(sample.one_in))).expect("their sum fits");
            let key = XxHash3_64::oneshot_with_seed(sample.seed, block.name.as_bytes());
            let (first_page, first_rank) = (layout.memory, layout.count);
            layout.blocks.push(TrackedBlock { key, first_page, pages, first_rank, strata });
            layout.memory += pages;
            layout.count += strata;
        }
        Ok(layout)
    }

    /// The tracked pages a manifest describes.
    pub fn of(manifest: &Manifest) -> Result<Tracked, SampleError> {
        Self::new(&manifest.blocks, manifest.page_size_bytes, manifest.sample)
    }

    /// How many pages are tracked, 1 to [`Self::COUNT_MAX`].
    pub fn count(&self) -> u32 {
        self.count
    }

    /// How many pages the guest has.
    pub fn memory(&self) -> u64 {
        self.memory
    }

    /// How many pages a tracked page stands for, on average: ≥ 1.
    pub fn weight(&self) -> f64 {
        self.memory as f64 / f64::from(self.count)
    }

    /// The page number of the tracked page with this rank. Panics unless `rank` < [`Self::count`].
    pub fn page_of_rank(&self, rank: u32) -> u64 {
        assert!(rank < self.count, "rank {rank} of {} tracked pages", self.count);
        let block = &self.blocks[self.blocks.partition_point(|block| block.first_rank <= rank) - 1];
        block.first_page + block.drawn(rank - block.first_rank, self.one_in)
    }

    /// The rank of a page, or `None` where it is not tracked or not a page of this guest.
    pub fn rank_of_page(&self, page: u64) -> Option<u32> {
        if page >= self.memory {
            return None;
        }
        let (block, stratum) = self.stratum_of(page);
        (block.first_page + block.drawn(stratum, self.one_in) == page).then_some(block.first_rank + stratum)
    }

    /// The ranks of the tracked pages whose numbers lie in `pages`.
    pub fn ranks_in(&self, pages: Range<u64>) -> Range<u32> {
        let start = self.rank_from(pages.start);
        start..self.rank_from(pages.end).max(start)
    }

    /// The pages from the first tracked page of a range of ranks to its last.
    pub(crate) fn pages_of(&self, ranks: Range<u32>) -> Range<u64> {
        self.page_of_rank(ranks.start)..self.page_of_rank(ranks.end - 1) + 1
    }

    /// The rank of the first tracked page at or after `page`; the count where there is none.
    fn rank_from(&self, page: u64) -> u32 {
        if page >= self.memory {
            return self.count;
        }
        let (block, stratum) = self.stratum_of(page);
        let passed = block.first_page + block.drawn(stratum, self.one_in) < page;
        block.first_rank + stratum + u32::from(passed)
    }

    /// The block a page of this guest lies in, and the stratum there.
    fn stratum_of(&self, page: u64) -> (&TrackedBlock, u32) {
        // Empty blocks share their first page with the next one: the last that starts here or before holds it.
        let block = &self.blocks[self.blocks.partition_point(|block| block.first_page <= page) - 1];
        let stratum = (page - block.first_page) / u64::from(self.one_in);
        (block, u32::try_from(stratum).expect("a block has fewer strata than 2^32"))
    }
}

impl TrackedBlock {
    /// The page drawn in a stratum, counted from the block's start. A function of seed, block name and stratum alone,
    /// so that it survives a restart of the recorder and the growth of other blocks.
    fn drawn(&self, stratum: u32, one_in: u32) -> u64 {
        let start = u64::from(stratum) * u64::from(one_in);
        let width = (self.pages - start).min(u64::from(one_in));
        if width == 1 {
            return start;
        }
        let hash = XxHash3_64::oneshot_with_seed(self.key, &u64::from(stratum).to_le_bytes());
        start + ((u128::from(hash) * u128::from(width)) >> 64) as u64
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn block(name: &str, pages: u64) -> Block {
        Block { name: name.into(), length_bytes: pages * 4096, guest_physical_address: None }
    }

    #[test]
    fn the_draw_does_not_change() {
        // Recordings on disk depend on it.
        let tracked = Tracked::new(&[block("pc.ram", 100)], 4096, Sample { one_in: 16, seed: 7 }).unwrap();
        let pages: Vec<u64> = (0..tracked.count()).map(|rank| tracked.page_of_rank(rank)).collect();
        assert_eq!(pages, [14, 21, 34, 61, 67, 93, 96]);
    }

    #[test]
    fn a_full_sample_is_the_identity() {
        let tracked = Tracked::new(&[block("a", 3), block("b", 0), block("c", 4)], 4096, Sample::full()).unwrap();
        assert_eq!((tracked.count(), tracked.memory()), (7, 7));
        for page in 0..7 {
            assert_eq!(tracked.rank_of_page(page), Some(page as u32));
            assert_eq!(tracked.page_of_rank(page as u32), page);
        }
        assert_eq!(tracked.rank_of_page(7), None);
    }

    #[test]
    fn every_page_is_as_likely_as_another() {
        let tracked = Tracked::new(&[block("a", 80_000)], 4096, Sample { one_in: 8, seed: 3 }).unwrap();
        let mut drawn = [0u32; 8];
        (0..tracked.count()).for_each(|rank| drawn[(tracked.page_of_rank(rank) % 8) as usize] += 1);
        assert!(drawn.iter().all(|n| (1_100..1_400).contains(n)), "{drawn:?}");
    }

    proptest! {
        #[test]
        fn ranks_and_pages_are_inverse(sizes in prop::collection::vec(0u64..200, 1..5), one_in in 1u32..40, seed: u64) {
            prop_assume!(sizes.iter().sum::<u64>() > 0);
            let blocks: Vec<Block> = sizes.iter().enumerate().map(|(i, n)| block(&i.to_string(), *n)).collect();
            let tracked = Tracked::new(&blocks, 4096, Sample { one_in, seed }).unwrap();
            let pages: Vec<u64> = (0..tracked.count()).map(|rank| tracked.page_of_rank(rank)).collect();
            prop_assert!(pages.windows(2).all(|pair| pair[0] < pair[1]));
            let found: Vec<u64> = (0..tracked.memory()).filter(|page| tracked.rank_of_page(*page).is_some()).collect();
            prop_assert_eq!(&pages, &found);
            for (rank, page) in pages.iter().enumerate() {
                prop_assert_eq!(tracked.rank_of_page(*page), Some(rank as u32));
                prop_assert_eq!(tracked.ranks_in(0..*page), 0..rank as u32);
                prop_assert_eq!(tracked.ranks_in(*page..*page + 1).len(), 1);
            }
            prop_assert_eq!(tracked.ranks_in(0..u64::MAX), 0..tracked.count());
        }

        #[test]
        fn growth_of_one_block_leaves_the_others_alone(a in 1u64..100, b in 1u64..100, more in 0u64..100, seed: u64) {
            let sample = Sample { one_in: 5, seed };
            let drawn = |first: u64| {
                let tracked = Tracked::new(&[block("a", first), block("b", b)], 4096, sample).unwrap();
                (first..first + b).filter(|p| tracked.rank_of_page(*p).is_some()).map(|p| p - first).collect::<Vec<_>>()
            };
            prop_assert_eq!(drawn(a), drawn(a + more));
        }
    }
}
