//! Which page frames of a guest there are.

use std::io;

use migcast_history::format::Block;

use super::control::{Control, DomId, TYPES_MAX};
use crate::memory::PAGE_SIZE;

/// Pieces of memory that a history names; where there are more, the smallest holes are taken for memory.
const PIECES_MAX: usize = 64;

/// Runs of page frames, ascending: a guest's pages in the order of their numbers.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Frames {
    runs: Vec<Run>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    first: u64,
    count: u64,
    /// Number of its first page.
    page: u64,
}

impl Frames {
    /// Asks Xen about so many frame numbers. Of a guest whose frame numbers end far above its memory (a PVH guest's special pages lie just below 4 GiB)
    /// the hole between costs a question, not a page.
    pub(super) fn of(control: &Control, domain: DomId, all: u64) -> io::Result<Frames> {
        let mut runs = Vec::new();
        for first in (0..all).step_by(TYPES_MAX) {
            let count = (all - first).min(TYPES_MAX as u64) as usize;
            let present = control.present(domain, first, count)?;
            add_runs(&mut runs, first, &present);
        }
        Ok(Frames::new(runs))
    }

    fn new(mut runs: Vec<(u64, u64)>) -> Frames {
        while runs.len() > PIECES_MAX {
            let hole = |at: usize| runs[at + 1].0 - (runs[at].0 + runs[at].1);
            let smallest = (0..runs.len() - 1).min_by_key(|at| hole(*at)).unwrap_or(0);
            let (first, count) = runs.remove(smallest + 1);
            runs[smallest].1 = first + count - runs[smallest].0;
        }
        let mut page = 0;
        let number = |(first, count): (u64, u64)| {
            let run = Run { first, count, page };
            page += count;
            run
        };
        Frames { runs: runs.into_iter().map(number).collect() }
    }

    /// The number of the page at a frame; `None` in a hole.
    pub(super) fn page(&self, frame: u64) -> Option<u64> {
        let run = self.runs[..self.runs.partition_point(|run| run.first <= frame)].last()?;
        (frame - run.first < run.count).then(|| run.page + (frame - run.first))
    }

    /// How many pages there are.
    pub(super) fn pages(&self) -> u64 {
        self.runs.last().map_or(0, |run| run.page + run.count)
    }

    /// As a history names them.
    pub(super) fn blocks(&self) -> Vec<Block> {
        let block = |run: &Run| Block {
            name: format!("ram@{:#x}", run.first * PAGE_SIZE),
            length_bytes: run.count * PAGE_SIZE,
            guest_physical_address: Some(run.first * PAGE_SIZE),
        };
        self.runs.iter().map(block).collect()
    }
}

/// Appends the runs of frames that are there, from `first` on; one that goes on is made longer.
fn add_runs(runs: &mut Vec<(u64, u64)>, first: u64, present: &[bool]) {
    for (frame, _) in (first..).zip(present).filter(|(_, present)| **present) {
        match runs.last_mut() {
            Some((begin, count)) if *begin + *count == frame => *count += 1,
            _ => runs.push((frame, 1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_numbered_over_holes() {
        let mut runs = Vec::new();
        add_runs(&mut runs, 0, &[true, true, false, false]);
        add_runs(&mut runs, 4, &[false, true, true, true]);
        add_runs(&mut runs, 8, &[true, false, false, false]);
        let frames = Frames::new(runs);
        assert_eq!(frames.pages(), 6);
        assert_eq!(
            [0, 1, 2, 4, 5, 8, 9].map(|frame| frames.page(frame)),
            [Some(0), Some(1), None, None, Some(2), Some(5), None]
        );
        let blocks = frames.blocks();
        assert_eq!((blocks[1].name.as_str(), blocks[1].length_bytes), ("ram@0x5000", 4 * PAGE_SIZE));
        assert_eq!(blocks[1].guest_physical_address, Some(0x5000));
    }

    #[test]
    fn of_many_pieces_the_smallest_holes_are_memory() {
        // A hole of 1 after the first piece, of 2 after the second, …
        let mut runs = vec![(0, 10)];
        for hole in 1..100 {
            let (first, count) = runs[runs.len() - 1];
            runs.push((first + count + hole, 10));
        }
        let frames = Frames::new(runs.clone());
        assert_eq!(frames.blocks().len(), PIECES_MAX);
        assert_eq!(frames.page(10), Some(10), "in the first hole");
        let (last, _) = runs[99];
        assert_eq!(frames.page(last - 1), None, "in the last hole");
        assert_eq!(frames.pages(), 1_000 + (1..=36).sum::<u64>());
    }
}
