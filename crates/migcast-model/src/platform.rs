//! The platform: what a migration costs besides the guest's pages, for one pair of hosts.

use std::time::Duration;

use crate::due::Sent;
use crate::guest::Guest;
use crate::units::{ByteCount, PageCount};

/// Overheads and costs of one pair of hosts, in wall-clock time. Measured, not guessed: [`Platform::default`] is a
/// starting point that says so in every forecast made with it.
///
/// ```text
///  request            log on                 stop              delivered      target runs
///     │ connect │ setup │ pages … passes …    │ stop │ pages, device state │ drain │ resume │
///                                             └────── reported downtime ───┘
///                                                    └───────── the guest's downtime ───────┘
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Platform {
    /// Where the figures come from, for people.
    pub name: String,
    /// From the request to the start of the migration thread: connecting, listening.
    pub connect: Duration,
    /// From the start of the migration thread to its first page: device set-up, allocating bitmaps, turning the log on.
    pub setup: Duration,
    /// CPU time of the sender per page with data.
    pub page_cost: Duration,
    /// CPU time of the sender per zero page: the test for zero, nine bytes.
    pub zero_page_cost: Duration,
    /// Time of one dirty-log synchronisation per GiB of guest memory.
    pub sync_cost_per_gib: Duration,
    /// What the first round takes the sender beside its pages, in algorithms of rounds: libxc asks the type of every frame
    /// number a guest may have, and a PVH guest's go up to 4 GiB whatever its memory.
    pub first_round: Duration,
    /// Bytes of the first round beside its pages, which the link carries meanwhile: libxc names every frame number without a
    /// page, eight bytes each.
    pub first_round_bytes: ByteCount,
    /// What every later round takes between the reading of the log and its first page, in algorithms of rounds, while the
    /// guest runs, and in the last one while it stands: libxc walks through the bits of all frame numbers a guest may have.
    pub round: Duration,
    /// From the decision to stop until the guest has run its last instruction.
    pub stop: Duration,
    /// Pages that the guest writes to suspend itself, beside its own work, in algorithms of rounds.
    pub stop_pages: PageCount,
    /// Device state sent while the guest is stopped.
    pub device_state: ByteCount,
    /// Time to save the device state, beside the sending of it.
    pub device_state_cost: Duration,
    /// From the last byte's arrival at the target to the guest's first instruction there.
    pub resume: Duration,
    /// Speed of the guest while it is being migrated, against its speed while it was recorded, in (0, 1].
    pub guest_speed: f64,
    /// Relative standard deviation of migration times about their forecast, from the same starting point, ≥ 0.
    pub time_scatter: f64,
    /// Standard deviation of downtimes about theirs: it is the target's resume and where a step falls that scatter, not
    /// a share of the downtime.
    pub downtime_scatter: Duration,
    /// The part of it that alike migrations have in common: one guest under the same settings is always forecast too long,
    /// or always too short. At most `downtime_scatter`.
    pub downtime_scatter_common: Duration,
}

impl Default for Platform {
    /// Round figures for an idle x86 host that sends from one thread: 1.5 µs a page is about 22 Gbit/s, 0.2 µs a zero
    /// page is a scan at 20 GB/s. Not measured on anyone's hosts.
    fn default() -> Platform {
        Platform {
            name: "uncalibrated defaults".to_owned(),
            connect: Duration::from_millis(5),
            setup: Duration::from_millis(20),
            page_cost: Duration::from_nanos(1_500),
            zero_page_cost: Duration::from_nanos(200),
            sync_cost_per_gib: Duration::from_micros(500),
            first_round: Duration::ZERO,
            first_round_bytes: ByteCount::ZERO,
            round: Duration::ZERO,
            stop: Duration::from_millis(2),
            stop_pages: PageCount::ZERO,
            device_state: ByteCount::new(512 << 10),
            device_state_cost: Duration::from_millis(10),
            resume: Duration::from_millis(30),
            guest_speed: 1.0,
            time_scatter: 0.0,
            downtime_scatter: Duration::ZERO,
            downtime_scatter_common: Duration::ZERO,
        }
    }
}

impl Platform {
    /// The sender's work on these pages; to encode a page is taken for as much as to send it.
    pub fn page_work(&self, sent: Sent) -> Duration {
        times(self.page_cost, sent.data + sent.encoded) + times(self.zero_page_cost, sent.zero)
    }

    /// How far a guest that nobody slows comes in a span of wall time while it is migrated.
    pub fn guest_time(&self, span: Duration) -> Duration {
        if self.guest_speed == 1.0 { span } else { span.mul_f64(self.guest_speed) }
    }

    /// Time of one look into the whole dirty log of this guest.
    pub fn log_reading(&self, guest: &Guest) -> Duration {
        self.sync_cost_per_gib.mul_f64(guest.memory_bytes().get() as f64 / ByteCount::GIB.get() as f64)
    }

    /// A platform that costs nothing at all: for closed forms and for tests of an algorithm's rules.
    pub fn free() -> Platform {
        Platform {
            name: "free".to_owned(),
            connect: Duration::ZERO,
            setup: Duration::ZERO,
            page_cost: Duration::ZERO,
            zero_page_cost: Duration::ZERO,
            sync_cost_per_gib: Duration::ZERO,
            first_round: Duration::ZERO,
            first_round_bytes: ByteCount::ZERO,
            round: Duration::ZERO,
            stop: Duration::ZERO,
            stop_pages: PageCount::ZERO,
            device_state: ByteCount::ZERO,
            device_state_cost: Duration::ZERO,
            resume: Duration::ZERO,
            guest_speed: 1.0,
            time_scatter: 0.0,
            downtime_scatter: Duration::ZERO,
            downtime_scatter_common: Duration::ZERO,
        }
    }
}

fn times(cost: Duration, pages: PageCount) -> Duration {
    let nanos = u64::try_from(cost.as_nanos()).unwrap_or(u64::MAX);
    Duration::from_nanos(nanos.saturating_mul(pages.get()))
}
