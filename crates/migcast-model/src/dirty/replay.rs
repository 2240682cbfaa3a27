//! HIST: a recorded history, replayed page by page.
use std::ops::Range;
use std::time::Duration;

use crate::units::PageCount;

/// A tracked page that became zero, or ceased to be, in a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ZeroChange {
    /// Rank among the tracked pages, in scan order.
    pub rank: u32,
    /// What it is from now on.
    pub zero: bool,
}

/// A recorded history, replayed page by page.
#[derive(Debug)]
pub struct PageReplay {}

/// Collects windows into a [`PageReplay`].
#[derive(Debug)]
pub struct PageReplayBuilder {}

impl PageReplayBuilder {
    /// `tracked` pages stand for `memory` pages (equal in a full recording; fewer in a sampled one).
    pub fn new(tracked: PageCount, memory: PageCount) -> Self {
        let _ = (tracked, memory);
        todo!()
    }

    /// The zero map at the start of the first window: runs of ranks that are zero. Without it no page is.
    pub fn zero_at_start(&mut self, runs: impl IntoIterator<Item = Range<u32>>) {
        let _ = runs;
        todo!()
    }

    /// Appends a recorded window: its length, the ranks written in it (each once) and the changes of the zero map.
    pub fn window(&mut self, length: Duration, written: &[u32], zero: &[ZeroChange]) {
        let _ = (length, written, zero);
        todo!()
    }

    /// The finished replay, or `None` if it holds no window.
    pub fn build(self) -> Option<PageReplay> {
        todo!()
    }
}
