//! The outcome of one simulated migration.

use std::time::Duration;

use crate::due::Sent;
use crate::migration::Progress;
use crate::units::{ByteCount, PageCount, SimTime};

/// How one simulated migration ended. Not converging is an outcome, not an error.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// The guest runs on the target.
    Completed(Completed),
    /// The simulation's horizon came first: the migration was still copying, and would have gone on.
    NotConverged(Progress),
    /// The hypervisor, or what manages it, gave up: the guest stays where it is.
    Cancelled(Progress),
}

impl Outcome {
    /// The completed migration, if it completed.
    pub fn completed(&self) -> Option<&Completed> {
        match self {
            Outcome::Completed(completed) => Some(completed),
            Outcome::NotConverged(_) | Outcome::Cancelled(_) => None,
        }
    }

    /// The name scripts see.
    pub fn stop_reason(&self) -> &'static str {
        match self {
            Outcome::Completed(completed) => completed.stop_reason.name(),
            Outcome::NotConverged(_) => "not-converged",
            Outcome::Cancelled(_) => "cancelled",
        }
    }
}

/// A migration that ended with the guest on the target.
#[derive(Clone, Debug, PartialEq)]
pub struct Completed {
    /// From the request until the guest runs on the target *and* the source is done.
    pub migration_time: Duration,
    /// The hypervisor's own figure (QEMU: `total-time`, which ends when the source has written its last byte).
    pub migration_time_reported: Duration,
    /// The guest's downtime: last instruction on the source to first on the target. The sum of its parts.
    pub downtime: DowntimeParts,
    /// The hypervisor's own figure (QEMU: `downtime`).
    pub downtime_reported: Duration,
    /// Bytes handed to the link, headers and device state included.
    pub sent_bytes: ByteCount,
    /// Pages sent with data and as zeros, repeats included.
    pub sent: Sent,
    /// Guest time lost to throttling.
    pub throttled: Duration,
    /// How long the guest ran on the target before its last page was there: its accesses to pages that were not waited
    /// for the link.
    pub post_copy: Duration,
    /// Iterations as the hypervisor counts them (QEMU: `dirty-sync-count`).
    pub iteration_count: u64,
    /// Each iteration in order, stop-and-copy last.
    pub iterations: Vec<Iteration>,
    /// Why the live phase ended.
    pub stop_reason: StopReason,
}

/// The guest's downtime, split into parts that add up to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DowntimeParts {
    /// Waiting for whatever manages the migration to let it go on.
    pub switchover: Duration,
    /// Sending the pages that were still due, and reading the dirty log once more.
    pub pages: Duration,
    /// Saving and sending the device state.
    pub device_state: Duration,
    /// Delivering what still stood in the sender's buffer.
    pub drain: Duration,
    /// From the last byte's arrival to the first instruction on the target.
    pub resume: Duration,
}

impl DowntimeParts {
    /// The guest's downtime.
    pub fn total(self) -> Duration {
        self.switchover + self.pages + self.device_state + self.drain + self.resume
    }
}

/// Iterations of most migrations: room is made for so many at once.
pub(crate) const ITERATIONS_OFTEN: usize = 8;

/// What was done between two readings of the dirty log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Iteration {
    /// When it began.
    pub start: SimTime,
    /// When it ended.
    pub end: SimTime,
    /// Pages sent.
    pub sent: Sent,
    /// Due pages passed over because they had been written again (old Xen; QEMU never skips).
    pub skipped: PageCount,
    /// Bytes handed to the link.
    pub sent_bytes: ByteCount,
    /// Pages due at its beginning.
    pub due_at_start: PageCount,
}

impl Iteration {
    /// Ends the last of `iterations` at `now`, and begins another with so many pages due.
    pub(crate) fn begin(iterations: &mut Vec<Iteration>, now: SimTime, due: PageCount) {
        if let Some(ended) = iterations.last_mut() {
            ended.end = now;
        }
        iterations.push(Iteration {
            start: now,
            end: now,
            sent: Sent::default(),
            skipped: PageCount::ZERO,
            sent_bytes: ByteCount::ZERO,
            due_at_start: due,
        });
    }
}

/// Why a live phase ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StopReason {
    /// What remained fitted into the downtime limit.
    BelowThreshold,
    /// Nothing remained.
    NothingLeft,
    /// So many rounds were done as the algorithm allows.
    MaxRounds,
    /// The last round's set was small.
    SmallSet,
    /// So many times the memory was sent as the algorithm allows.
    MaxFactor,
    /// The last round's set was larger than the one before.
    Growing,
    /// The time allowed was over.
    Timeout,
    /// The algorithm stops the guest at this point whatever is left.
    Fixed,
    /// Whatever manages the migration paused the guest.
    Forced,
    /// The guest went on at the target, its memory followed.
    PostCopy,
}

impl StopReason {
    /// The name scripts see.
    pub fn name(self) -> &'static str {
        match self {
            StopReason::BelowThreshold => "below-threshold",
            StopReason::NothingLeft => "nothing-left",
            StopReason::MaxRounds => "max-rounds",
            StopReason::SmallSet => "small-set",
            StopReason::MaxFactor => "max-factor",
            StopReason::Growing => "growing",
            StopReason::Timeout => "timeout",
            StopReason::Fixed => "fixed",
            StopReason::Forced => "forced",
            StopReason::PostCopy => "post-copy",
        }
    }
}
