//! What no outcome can be below, or above, whatever the guest writes.

use std::time::Duration;

use crate::algorithm::Ends;
use crate::dirty::DirtySource;
use crate::due::Sent;
use crate::simulate::Scenario;
use crate::units::ByteCount;

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
    /// Every page that is never zero crosses the link at least once, live or stopped; the device state is saved while the
    /// guest is stopped. An algorithm that ends by itself after so much sent has upper bounds, too: the paper's for
    /// classic Xen (Akoush et al. 2010: overheads + 5V/L; V/L of downtime).
    pub fn of(scenario: &Scenario, source: &impl DirtySource) -> Bounds {
        let Scenario { platform, link, guest, algorithm, .. } = scenario;
        let pages = source.never_zero().bytes(guest.page_size).transfer_time_ceil(link.goodput());
        let ends = algorithm.scheme().ends();
        let around = platform.connect + platform.setup;
        let stopped = platform.device_state_cost + platform.resume;
        // A link too slow to carry anything takes the longest time there is.
        let migration = pages.saturating_add(around + platform.resume);
        let least_downtime = match ends {
            Ends::AfterSending { live: 0, .. } => pages.saturating_add(stopped),
            _ => stopped,
        };
        let (mut most, mut most_downtime) = (None, None);
        if let Ends::AfterSending { live, stopped: standing } = ends {
            let memory = Bounds::sending_all_of(scenario);
            let device = platform.device_state.transfer_time_ceil(link.goodput()).saturating_add(stopped);
            // What stands in the sender's buffer when the guest stops is delivered before it resumes.
            let buffer = link.sender_buffer.transfer_time_ceil(link.goodput());
            let times = |memories: u64| memory.saturating_mul(u32::try_from(memories).unwrap_or(u32::MAX));
            let down = times(standing).saturating_add(device).saturating_add(buffer);
            most_downtime = Some(down);
            most = Some(times(live).saturating_add(down).saturating_add(around + platform.stop));
        }
        Bounds {
            migration_time: Bound { min: migration, max: most },
            downtime: Bound { min: least_downtime, max: most_downtime },
        }
    }

    /// Longest time of a pass over the whole memory: no page is more than the page and 16 bytes, no batch shorter than 1024
    /// pages but the last, and before each and at the end the log is read.
    fn sending_all_of(scenario: &Scenario) -> Duration {
        const AROUND_PAGE: ByteCount = ByteCount::new(16);
        const BATCH: u64 = 1024;
        let Scenario { platform, link, guest, .. } = scenario;
        let bytes = guest.memory.bytes(guest.page_size + AROUND_PAGE);
        let work = platform.page_work(Sent { data: guest.memory, zero: guest.memory, ..Sent::default() });
        let readings = guest.memory.get().div_ceil(BATCH) + 2;
        let reading = platform.log_reading(guest).saturating_mul(u32::try_from(readings).unwrap_or(u32::MAX));
        bytes.transfer_time_ceil(link.goodput()).saturating_add(work).saturating_add(reading)
    }
}
