//! Xen's migration v2: 4.6 to 4.9, and 4.10 and later (tools/libxc/xc_sr_save.c of 4.6.0 and 4.10.0,
//! tools/libs/guest/xg_sr_save.c of 4.17.0).
//!
//! Rounds over the memory; nothing is skipped, the log is not looked into while a round is sent. There is no limit of
//! bandwidth or of downtime, and it always ends.

use std::time::Duration;

use super::rounds::{Frame, Next, Policy, Round, Rounds};
use super::setting::{Count, Field, Pages};
use super::xen_classic::{ANNOUNCED, BATCH, PAGE};
use super::{Ends, Scheme};
use crate::due::DueSet;
use crate::guest::Guest;
use crate::link::Link;
use crate::migration::Migration;
use crate::outcome::StopReason;
use crate::platform::Platform;
use crate::units::{ByteCount, PageCount};

/// Record header (type, length), count and a reserved word: eight bytes each two (xg_sr_stream_format.h).
const AROUND: ByteCount = ByteCount::new(16);
const FRAME: Frame = Frame { batch: BATCH, around: AROUND, page: PAGE, announced: ANNOUNCED };

/// `send_memory_live()` of 4.6 to 4.9.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct V2 {
    /// max_iterations: live rounds at most, the first with every page. Default 5.
    pub max_iterations: u64,
    /// dirty_threshold: after a round of so many pages or fewer the guest is stopped. Default 50.
    pub dirty_threshold: PageCount,
}

impl Default for V2 {
    fn default() -> V2 {
        V2 { max_iterations: 5, dirty_threshold: PageCount::new(50) }
    }
}

impl Scheme for V2 {
    fn explained(&self) -> String {
        format!(
            "Rounds over the memory in page order, the first with every page, each later one with what was written during \
             the one before; nothing is skipped, so a page that is written all the time is sent in each round. The guest \
             is stopped after {} rounds, after a round of {} pages or fewer (which are still sent), or when nothing was written; then \
             everything written since is sent. There is no limit of bandwidth, none of downtime, zero pages are sent \
             whole, and each reading of the log pauses the guest. It always ends.",
            self.max_iterations, self.dirty_threshold
        )
    }

    fn fields(&mut self) -> Vec<Field<'_>> {
        vec![
            Field::new(
                "max-iterations",
                Count::new(&mut self.max_iterations, 1..=1_000_000),
                "live rounds at most; default 5 (max_iterations)",
            ),
            Field::new(
                "dirty-threshold",
                Pages(&mut self.dirty_threshold),
                "the guest is stopped after a round of so many pages or fewer; default 50 (dirty_threshold)",
            ),
        ]
    }

    fn migration<'a>(
        &self,
        guest: &Guest,
        link: &Link,
        platform: &Platform,
        due: Box<dyn DueSet + 'a>,
    ) -> Box<dyn Migration + 'a> {
        Box::new(Rounds::new(*self, guest, link, platform, due))
    }

    fn ends(&self) -> Ends {
        Ends::AfterSending { live: self.max_iterations, stopped: 1 }
    }

    fn boxed(&self) -> Box<dyn Scheme> {
        Box::new(*self)
    }
}

impl Policy for V2 {
    fn frame(&self) -> Frame {
        FRAME
    }

    fn reading_pauses(&self) -> bool {
        true
    }

    /// The loop's condition looks at the set that was just sent; the memory of the first round counts as one.
    fn after_round(&mut self, round: &Round) -> Next {
        if round.number >= self.max_iterations {
            Next::Stop(StopReason::MaxRounds)
        } else if round.due <= self.dirty_threshold {
            Next::Stop(StopReason::SmallSet)
        } else {
            Next::Read
        }
    }

    fn after_reading(&mut self, due: PageCount, _elapsed: Duration) -> Next {
        if due.is_zero() { Next::Stop(StopReason::NothingLeft) } else { Next::Send }
    }
}

/// `send_memory_live()` with `simple_precopy_policy()`, 4.10 and later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct V2Policy {
    /// SPP_MAX_ITERATIONS: live rounds at most, the first with every page. Default 5.
    pub max_iterations: u64,
    /// SPP_TARGET_DIRTY_COUNT: after a round of fewer pages the guest is stopped. Default 50.
    pub target_dirty_count: PageCount,
}

impl Default for V2Policy {
    fn default() -> V2Policy {
        V2Policy { max_iterations: 5, target_dirty_count: PageCount::new(50) }
    }
}

impl Scheme for V2Policy {
    fn explained(&self) -> String {
        format!(
            "Rounds over the memory in page order, the first with every page, each later one with what was written during \
             the one before; nothing is skipped, so a page that is written all the time is sent in each round. The guest \
             is stopped after {} rounds, or after a round of fewer than {} pages (which are still sent); then everything \
             written since is sent. There is no limit of bandwidth, none of downtime, zero pages are sent whole, and each \
             reading of the log pauses the guest. It always ends. No toolstack sets another policy.",
            self.max_iterations, self.target_dirty_count
        )
    }

    fn fields(&mut self) -> Vec<Field<'_>> {
        vec![
            Field::new(
                "max-iterations",
                Count::new(&mut self.max_iterations, 1..=1_000_000),
                "live rounds at most; default 5 (SPP_MAX_ITERATIONS)",
            ),
            Field::new(
                "target-dirty-count",
                Pages(&mut self.target_dirty_count),
                "the guest is stopped after a round of fewer pages; default 50 (SPP_TARGET_DIRTY_COUNT)",
            ),
        ]
    }

    fn migration<'a>(
        &self,
        guest: &Guest,
        link: &Link,
        platform: &Platform,
        due: Box<dyn DueSet + 'a>,
    ) -> Box<dyn Migration + 'a> {
        Box::new(Rounds::new(*self, guest, link, platform, due))
    }

    fn ends(&self) -> Ends {
        Ends::AfterSending { live: self.max_iterations, stopped: 1 }
    }

    fn boxed(&self) -> Box<dyn Scheme> {
        Box::new(*self)
    }
}

impl Policy for V2Policy {
    fn frame(&self) -> Frame {
        FRAME
    }

    fn reading_pauses(&self) -> bool {
        true
    }

    /// Asked before a round's set is sent and again after it, when the set's size is no longer known: so a small set is
    /// sent live, and the last round is not followed by a reading.
    fn after_round(&mut self, round: &Round) -> Next {
        if round.due < self.target_dirty_count {
            Next::Stop(StopReason::SmallSet)
        } else if round.number >= self.max_iterations {
            Next::Stop(StopReason::MaxRounds)
        } else {
            Next::Read
        }
    }
}
