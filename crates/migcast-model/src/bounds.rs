//! What no outcome can be below, or above, whatever the guest writes.

use std::time::Duration;

use crate::algorithm::Ends;
use crate::dirty::DirtySource;
use crate::due::Sent;
use crate::guest::Guest;
use crate::link::Link;
use crate::platform::Platform;
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
    pub fn of(scenario: &Scenario, source: &(impl DirtySource + ?Sized)) -> Bounds {
        let Scenario { platform, link, guest, algorithm, .. } = scenario;
        let pages = source.never_zero().bytes(guest.page_size).transfer_time_ceil(link.goodput());
        let ends = algorithm.scheme().ends();
        let around = platform.connect + platform.setup;
        let stopped = platform.device_state_cost + platform.resume;
        // Where the guest moves first it resumes while pages still flow.
        let may_move_first = algorithm.scheme().may_move_first();
        let moving = if may_move_first { pages.max(platform.resume) } else { pages.saturating_add(platform.resume) };
        // A link too slow to carry anything takes the longest time there is.
        let migration = moving.saturating_add(around);
        let least_downtime = match ends {
            Ends::AfterSending { live: 0, .. } => pages.saturating_add(stopped),
            _ => stopped,
        };
        let (most, most_downtime) = Bounds::most(guest, link, platform, ends).unzip();
        Bounds {
            migration_time: Bound { min: migration, max: most },
            downtime: Bound { min: least_downtime, max: most_downtime },
        }
    }

    /// Longest migration time and downtime of what ends by itself after so much sent.
    pub(crate) fn most(guest: &Guest, link: &Link, platform: &Platform, ends: Ends) -> Option<(Duration, Duration)> {
        let Ends::AfterSending { live, stopped, rounds } = ends else { return None };
        let times = |span: Duration, count: u64| span.saturating_mul(u32::try_from(count).unwrap_or(u32::MAX));
        let pass = Bounds::sending_all_of(guest, link, platform);
        let device = platform.device_state.transfer_time_ceil(link.goodput());
        // What stands in the sender's buffer when the guest stops is delivered before it resumes.
        let buffer = link.sender_buffer.transfer_time_ceil(link.goodput());
        let reading = platform.log_reading(guest);
        let around_stop = device + platform.device_state_cost + platform.resume;
        let down = times(pass, stopped).saturating_add(around_stop).saturating_add(buffer).saturating_add(reading * 2);
        // A round reads the log once, and looks into it once more than it has whole batches.
        let readings = times(reading, rounds.saturating_mul(2));
        let around = platform.connect + platform.setup + platform.stop;
        Some((times(pass, live).saturating_add(readings).saturating_add(down).saturating_add(around), down))
    }

    /// Longest time of a pass over the whole memory: no page is more than the page and 16 bytes, no batch shorter than 1024
    /// pages but the last of a round, and before each the log is looked into.
    fn sending_all_of(guest: &Guest, link: &Link, platform: &Platform) -> Duration {
        const AROUND_PAGE: ByteCount = ByteCount::new(16);
        const BATCH: u64 = 1024;
        let bytes = guest.memory.bytes(guest.page_size + AROUND_PAGE);
        let work = platform.page_work(Sent { data: guest.memory, zero: guest.memory, ..Sent::default() });
        let looks = u32::try_from(guest.memory.get().div_ceil(BATCH)).unwrap_or(u32::MAX);
        let reading = platform.log_reading(guest).saturating_mul(looks);
        bytes.transfer_time_ceil(link.goodput()).saturating_add(work).saturating_add(reading)
    }
}
