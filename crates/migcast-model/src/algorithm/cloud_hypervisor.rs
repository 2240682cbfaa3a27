//! Cloud Hypervisor: a fixed number of rounds up to version 51, an estimate of the downtime from 52 on (vmm/src/lib.rs:
//! `do_memory_iterations`, `is_precopy_converged`; vm-migration/src/context.rs).
//!
//! The log is read, and cleared, at the beginning of each round. From 52 on what the last reading found is not sent live:
//! it goes out when the guest is stopped, and a page of it that was written once more goes out twice.

use std::time::Duration;

use super::rounds::{Frame, Next, Policy, Round, Rounds};
use super::setting::{Choice, Count, Field, Millis};
use super::{Ends, Request, Scheme, Terms};
use crate::due::{DueSet, PageBytes};
use crate::migration::Migration;
use crate::outcome::StopReason;
use crate::units::{ByteCount, BytesPerSec, PageCount};

/// Whole pages, zero or not. The 16 bytes of a range of neighbours are left out: under 0.4 % of its pages.
const PAGE: PageBytes = PageBytes { data: ByteCount::new(4096), zero: ByteCount::new(4096), encoded: ByteCount::ZERO };
/// A request holds a whole round; the batch is what is looked at between two looks at the clock.
const FRAME: Frame =
    Frame { batch: PageCount::new(1024), around: ByteCount::ZERO, page: PAGE, announced: ByteCount::ZERO };
/// Longest span that makes sense: a day.
const DAY: Duration = Duration::from_secs(86_400);

/// Up to version 51.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rounds51 {
    /// MAX_DIRTY_MIGRATIONS: live rounds after the first. Default 5.
    pub max_dirty_migrations: u64,
}

impl Default for Rounds51 {
    fn default() -> Rounds51 {
        Rounds51 { max_dirty_migrations: 5 }
    }
}

impl Scheme for Rounds51 {
    fn explained(&self) -> String {
        format!(
            "A round with every page, then up to {} rounds with what was written during the one before, fewer if nothing was; \
             then the guest is stopped and everything written since is sent. Nothing is skipped, zero pages are sent whole, \
             and there is no limit of bandwidth or of downtime. It always ends, but a guest that writes faster than the link \
             carries is stopped with much to send.",
            self.max_dirty_migrations
        )
    }

    fn fields(&mut self) -> Vec<Field<'_>> {
        vec![Field::new(
            "max-dirty-migrations",
            Count::new(&mut self.max_dirty_migrations, 0..=1_000_000),
            "live rounds after the first at most; default 5 (MAX_DIRTY_MIGRATIONS)",
        )]
    }

    fn migration<'a>(&self, request: &Request<'a>, due: Box<dyn DueSet + 'a>) -> Box<dyn Migration + 'a> {
        Box::new(Rounds::new(*self, request, due))
    }

    fn ends(&self) -> Ends {
        Ends::AfterSending {
            live: self.max_dirty_migrations.saturating_add(1),
            stopped: 1,
            rounds: self.max_dirty_migrations.saturating_add(1),
        }
    }
}

impl Policy for Rounds51 {
    fn frame(&self) -> Frame {
        FRAME
    }

    fn after_round(&mut self, round: &Round) -> Next {
        if round.number > self.max_dirty_migrations { Next::Stop(StopReason::MaxRounds) } else { Next::Read }
    }

    fn after_reading(&mut self, due: PageCount, _elapsed: Duration) -> Next {
        if due.is_zero() { Next::Stop(StopReason::NothingLeft) } else { Next::Send }
    }
}

/// From version 52 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Estimate52 {
    /// `downtime_ms`: the guest is stopped when sending the rest is estimated to take no longer. Default 300 ms.
    pub downtime: Duration,
    /// `timeout_s`, from when memory is first sent. Default 3600 s.
    pub timeout: Duration,
    /// `timeout_strategy`. Default cancel.
    pub at_timeout: AtTimeout,
}

/// What happens when the timeout has passed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AtTimeout {
    /// The migration is cancelled.
    #[default]
    Cancel,
    /// The guest is stopped whatever is left.
    Ignore,
}

const AT_TIMEOUT: &[(&str, AtTimeout)] = &[("cancel", AtTimeout::Cancel), ("ignore", AtTimeout::Ignore)];

impl Default for Estimate52 {
    fn default() -> Estimate52 {
        Estimate52 {
            downtime: Duration::from_millis(300),
            timeout: Duration::from_secs(3600),
            at_timeout: AtTimeout::default(),
        }
    }
}

impl Scheme for Estimate52 {
    fn explained(&self) -> String {
        let timeout = match self.at_timeout {
            AtTimeout::Cancel => "cancelled",
            AtTimeout::Ignore => "ended by stopping the guest whatever is left",
        };
        format!(
            "A round with every page, then rounds with what was written during the one before. Before each the time it would \
             take is estimated from the bandwidth of the last round alone: if that is at most {} ms, or nothing was written, the \
             guest is stopped, and what that reading found is sent then, with whatever was written since (a page in both \
             goes out twice). After {} s the migration is {timeout}. Nothing is skipped, zero pages are sent whole, and there is no \
             limit of bandwidth. The estimate knows nothing of the device state.",
            self.downtime.as_millis(),
            self.timeout.as_secs()
        )
    }

    fn fields(&mut self) -> Vec<Field<'_>> {
        vec![
            Field::new(
                "downtime",
                Millis::new(&mut self.downtime, Duration::ZERO..=DAY),
                "the guest is stopped when sending the rest is estimated to take no longer; default 300ms (downtime_ms)",
            ),
            Field::new(
                "timeout",
                Millis::new(&mut self.timeout, Duration::ZERO..=DAY),
                "from when memory is first sent, looked at before each round; default 3600s (timeout_s)",
            ),
            Field::new(
                "timeout-strategy",
                Choice::new(&mut self.at_timeout, AT_TIMEOUT),
                "cancel, or ignore: stop the guest whatever is left; default cancel (timeout_strategy)",
            ),
        ]
    }

    fn migration<'a>(&self, request: &Request<'a>, due: Box<dyn DueSet + 'a>) -> Box<dyn Migration + 'a> {
        Box::new(Rounds::new(Estimating { settings: *self, bandwidth: None }, request, due))
    }

    fn downtime_aim(&self) -> Duration {
        self.downtime
    }

    fn ends(&self) -> Ends {
        Ends::AfterTime(self.timeout)
    }

    /// The "effective downtime" of its log: from the decision until the target has answered.
    fn terms(&self) -> Terms {
        Terms { reporter: Some("the VMM"), iterations: "rounds" }
    }
}

/// The decisions, with the bandwidth of the last round.
#[derive(Clone, Copy, Debug)]
struct Estimating {
    settings: Estimate52,
    bandwidth: Option<BytesPerSec>,
}

impl Policy for Estimating {
    fn frame(&self) -> Frame {
        FRAME
    }

    fn acknowledged(&self) -> bool {
        true
    }

    fn after_round(&mut self, round: &Round) -> Next {
        self.bandwidth = Some(round.bytes.per(round.lasted)).filter(|rate| !rate.is_zero());
        Next::Read
    }

    /// In the order of the source.
    fn after_reading(&mut self, due: PageCount, elapsed: Duration) -> Next {
        let estimate = self.bandwidth.map(|rate| due.bytes(PAGE.data).transfer_time_ceil(rate));
        if due.is_zero() {
            Next::Stop(StopReason::NothingLeft)
        } else if estimate.is_some_and(|estimate| estimate <= self.settings.downtime) {
            Next::Stop(StopReason::BelowThreshold)
        } else if elapsed < self.settings.timeout {
            Next::Send
        } else {
            match self.settings.at_timeout {
                AtTimeout::Cancel => Next::Cancel,
                AtTimeout::Ignore => Next::Stop(StopReason::Timeout),
            }
        }
    }
}
