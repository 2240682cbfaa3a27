//! What no outcome can be below, or above, whatever the guest writes.

use std::time::Duration;

use crate::algorithm::Algorithm;
use crate::dirty::DirtySource;
use crate::simulate::Scenario;

/// A lower bound and, where the algorithm has one, an upper bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// No outcome is below this.
    pub min: Duration,
    /// No outcome is above this; `None` where the algorithm never gives up.
    pub max: Option<Duration>,
}

/// Bounds of one scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Of the migration time.
    pub migration_time: Bound,
    /// Of the guest's downtime.
    pub downtime: Bound,
}

impl Bounds {
    /// Every page that is never zero crosses the link at least once, and the target resumes after the last of them; the
    /// device state is saved while the guest is stopped. QEMU has no upper bound: it never gives up by itself.
    pub fn of(scenario: &Scenario, source: &impl DirtySource) -> Bounds {
        let Scenario { platform, link, guest, algorithm, .. } = scenario;
        let Algorithm::Qemu(..) = algorithm;
        let pages = source.never_zero().bytes(guest.page_size).transfer_time_ceil(link.goodput());
        let stopped = platform.device_state_cost + platform.resume;
        // A link too slow to carry anything takes the longest time there is.
        let migration = pages.saturating_add(platform.connect + platform.setup + platform.resume);
        Bounds { migration_time: Bound { min: migration, max: None }, downtime: Bound { min: stopped, max: None } }
    }
}
