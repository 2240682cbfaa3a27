//! Xen's migration v2: 4.6 to 4.9, and 4.10 and later (tools/libxc/xc_sr_save.c of 4.6.0 and 4.10.0,
//! tools/libs/guest/xg_sr_save.c of 4.17.0).
//!
//! Rounds over the memory; nothing is skipped, the log is not looked into while a round is sent. There is no limit of
//! bandwidth or of downtime, and it always ends.

use std::time::Duration;

use super::rounds::{Frame, Next, Policy, Round, Rounds};
use super::setting::{Count, Field, Pages};
use super::xen_classic::{ANNOUNCED, BATCH, PAGE};
use super::{Ends, Request, Scheme};
use crate::due::DueSet;
use crate::migration::Migration;
use crate::outcome::StopReason;
use crate::units::{ByteCount, PageCount};

/// Record header (type, length), count and a reserved word: eight bytes each two (xg_sr_stream_format.h).
const AROUND: ByteCount = ByteCount::new(16);

/// `send_memory_live()`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct V2 {
    /// Whose.
    pub version: Version,
    /// max_iterations, SPP_MAX_ITERATIONS: live rounds at most, the first with every page. Default 5.
    pub max_iterations: u64,
    /// dirty_threshold: after a round of so many pages or fewer the guest is stopped. From 4.10 on
    /// SPP_TARGET_DIRTY_COUNT: of fewer pages. Default 50.
    pub small_set: PageCount,
}

/// Versions whose rules differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// 4.6 to 4.9: a loop.
    V4_6,
    /// 4.10 and later: `simple_precopy_policy()`, asked before and after each round. No toolstack sets another.
    V4_10,
}

impl V2 {
    /// This version with its defaults.
    pub fn of(version: Version) -> V2 {
        V2 { version, max_iterations: 5, small_set: PageCount::new(50) }
    }

    fn is_small(&self, set: PageCount) -> bool {
        match self.version {
            Version::V4_6 => set <= self.small_set,
            Version::V4_10 => set < self.small_set,
        }
    }
}

impl Scheme for V2 {
    fn explained(&self) -> String {
        let (small, empty) = match self.version {
            Version::V4_6 => (format!("{} pages or fewer", self.small_set), ", or when nothing was written"),
            Version::V4_10 => (format!("fewer than {} pages", self.small_set), ""),
        };
        format!(
            "Rounds over the memory in page order, the first with every page, each later one with what was written during \
             the one before; nothing is skipped, so a page that is written all the time is sent in each round. The guest \
             is stopped after {} rounds, after a round of {small} (which are still sent){empty}; then \
             everything written since is sent. There is no limit of bandwidth, none of downtime, zero pages are sent \
             whole, and each reading of the log pauses the guest. It always ends.",
            self.max_iterations
        )
    }

    fn fields(&mut self) -> Vec<Field<'_>> {
        let rounds = Count::new(&mut self.max_iterations, 1..=1_000_000);
        let small_set = Pages(&mut self.small_set);
        match self.version {
            Version::V4_6 => vec![
                Field::new("max-iterations", rounds, "live rounds at most; default 5 (max_iterations)"),
                Field::new(
                    "dirty-threshold",
                    small_set,
                    "the guest is stopped after a round of so many pages or fewer; default 50 (dirty_threshold)",
                ),
            ],
            Version::V4_10 => vec![
                Field::new("max-iterations", rounds, "live rounds at most; default 5 (SPP_MAX_ITERATIONS)"),
                Field::new(
                    "target-dirty-count",
                    small_set,
                    "the guest is stopped after a round of fewer pages; default 50 (SPP_TARGET_DIRTY_COUNT)",
                ),
            ],
        }
    }

    fn migration<'a>(&self, request: &Request<'a>, due: Box<dyn DueSet + 'a>) -> Box<dyn Migration + 'a> {
        Box::new(Rounds::new(*self, request, due))
    }

    fn ends(&self) -> Ends {
        Ends::AfterSending { live: self.max_iterations, stopped: 1, rounds: self.max_iterations }
    }
}

impl Policy for V2 {
    fn frame(&self) -> Frame {
        Frame { batch: BATCH, around: AROUND, page: PAGE, announced: ANNOUNCED }
    }

    fn reading_pauses(&self) -> bool {
        true
    }

    /// The size of the set that was just sent decides: a small set is sent live, and the last round is not followed by a
    /// reading. The loop of 4.6 counts rounds first, the policy of 4.10 has looked at the set before it was sent.
    fn after_round(&mut self, round: &Round) -> Next {
        let last = (round.number >= self.max_iterations).then_some(StopReason::MaxRounds);
        let small = self.is_small(round.due).then_some(StopReason::SmallSet);
        let reason = match self.version {
            Version::V4_6 => last.or(small),
            Version::V4_10 => small.or(last),
        };
        reason.map_or(Next::Read, Next::Stop)
    }

    fn after_reading(&mut self, due: PageCount, _elapsed: Duration) -> Next {
        match self.version {
            Version::V4_6 if due.is_zero() => Next::Stop(StopReason::NothingLeft),
            Version::V4_6 | Version::V4_10 => Next::Send,
        }
    }
}
