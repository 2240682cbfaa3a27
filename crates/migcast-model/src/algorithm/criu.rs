//! CRIU: processes instead of guests, pre-dumped as p.haul repeats it (phaul/iters.py), then dumped while frozen.
//!
//! A pre-dump freezes the process tree while it collects pages and clears their soft-dirty bits, thaws it, and writes.

use super::rounds::{Frame, Next, Policy, Round, Rounds};
use super::setting::{Count, Field, Pages};
use super::{Ends, Request, Scheme};
use crate::due::{DueSet, PageBytes};
use crate::migration::Migration;
use crate::outcome::StopReason;
use crate::units::{ByteCount, PageCount};

/// A page, zero or not. The 32 bytes of a range of neighbours are left out: under 0.8 % of its pages.
const PAGE: PageBytes = PageBytes { data: ByteCount::new(4096), zero: ByteCount::new(4096), encoded: ByteCount::ZERO };

/// Settings of p.haul's loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Pre-dumps at most after the first, which has every page. Default 8.
    pub max_iterations: u64,
    /// A pre-dump of so many pages or fewer is the last. Default 64.
    pub min_pages: PageCount,
    /// A pre-dump that is larger than the one before by more than this is the last, in percent. Default 10.
    pub max_growth: u64,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { max_iterations: 8, min_pages: PageCount::new(64), max_growth: 10 }
    }
}

impl Scheme for Settings {
    fn explained(&self) -> String {
        format!(
            "Pre-dumps of the process tree, the first with every page, each later one with what was written since the one \
             before; the processes are frozen while pages are collected, not while they are sent; the downtime is the last freeze alone. The loop of p.haul ends after a \
             pre-dump of {} pages or fewer, after one that is more than {} % larger than the one before, or after {} of them beside the first; then \
             the processes are frozen for good and the rest is dumped. It always ends.",
            self.min_pages, self.max_growth, self.max_iterations
        )
    }

    fn fields(&mut self) -> Vec<Field<'_>> {
        vec![
            Field::new(
                "max-iterations",
                Count::new(&mut self.max_iterations, 1..=1_000_000),
                "pre-dumps at most after the first; default 8 (p.haul)",
            ),
            Field::new(
                "min-pages",
                Pages(&mut self.min_pages),
                "a pre-dump of so many pages or fewer is the last; default 64 (p.haul)",
            ),
            Field::new(
                "max-growth",
                Count::percent(&mut self.max_growth, 0..=1_000_000),
                "a pre-dump larger than the one before by more than this is the last; default 10% (p.haul)",
            ),
        ]
    }

    fn migration<'a>(&self, request: &Request<'a>, due: Box<dyn DueSet + 'a>) -> Box<dyn Migration + 'a> {
        Box::new(Rounds::new(Loop { settings: *self, before: None }, request, due))
    }

    fn ends(&self) -> Ends {
        Ends::AfterSending {
            live: self.max_iterations.saturating_add(1),
            stopped: 1,
            rounds: self.max_iterations.saturating_add(1),
        }
    }
}

/// The loop, with the size of the pre-dump before.
#[derive(Clone, Copy, Debug)]
struct Loop {
    settings: Settings,
    before: Option<PageCount>,
}

impl Policy for Loop {
    fn frame(&self) -> Frame {
        Frame { batch: PageCount::new(1024), around: ByteCount::ZERO, page: PAGE, announced: ByteCount::ZERO }
    }

    fn reading_pauses(&self) -> bool {
        true
    }

    /// The first pre-dump freezes the processes as each does (cr-dump.c `cr_pre_dump_tasks`).
    fn reads_before_first(&self) -> bool {
        true
    }

    fn after_round(&mut self, round: &Round) -> Next {
        let Settings { max_iterations, min_pages, max_growth } = self.settings;
        let before = self.before.replace(round.due);
        // Whole percent, rounded down.
        let growth =
            |before: PageCount| round.due.get().saturating_sub(before.get()).saturating_mul(100) / before.get().max(1);
        let grew = before.is_some_and(|before| growth(before) > max_growth);
        if round.due <= min_pages {
            Next::Stop(StopReason::SmallSet)
        } else if grew {
            Next::Stop(StopReason::Growing)
        } else if round.number > max_iterations {
            Next::Stop(StopReason::MaxRounds)
        } else {
            Next::Read
        }
    }
}
