//! What a user can set, with QEMU's defaults.

use std::time::Duration;

use crate::due::DirtyLog;
use crate::units::BytesPerSec;

/// A bandwidth cap that never binds: what libvirt sets unless told otherwise (qemu_migration_params.c: the largest
/// number of MiB/s that fits).
pub const UNLIMITED: BytesPerSec = BytesPerSec::new(i64::MAX as u64);

/// Settings of one QEMU migration.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// `max-bandwidth`: cap while the guest runs. It does not hold in stop-and-copy. Default 128 MiB/s (QEMU ≥ 5.2,
    /// migration.c MAX_THROTTLE; a bare QMP user gets this, libvirt sets [`UNLIMITED`]).
    pub max_bandwidth: BytesPerSec,
    /// `downtime-limit`: default 300 ms, at most 2000 s (DEFAULT_MIGRATE_SET_DOWNTIME, MAX_MIGRATE_DOWNTIME_SECONDS).
    pub downtime_limit: Duration,
    /// `avail-switchover-bandwidth` (QEMU ≥ 8.2): bandwidth that the decision to stop assumes instead of the measured
    /// one. Default: none.
    pub avail_switchover_bandwidth: Option<BytesPerSec>,
    /// How the dirty log behaves; not a setting of QEMU's but of where it runs.
    pub dirty_log: DirtyLog,
}

impl Settings {
    /// The largest downtime limit QEMU takes: 2000 s.
    pub const DOWNTIME_LIMIT_MAX: Duration = Duration::from_secs(2000);
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            max_bandwidth: BytesPerSec::new(128 << 20),
            downtime_limit: Duration::from_millis(300),
            avail_switchover_bandwidth: None,
            dirty_log: DirtyLog::default(),
        }
    }
}
