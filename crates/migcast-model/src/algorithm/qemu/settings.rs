//! What a user can set, with QEMU's defaults.

use std::time::Duration;

use super::Version;
use crate::algorithm::setting::{Cap, Choice, Field, Millis, OptionalRate};
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

const DIRTY_LOGS: &[(&str, DirtyLog)] =
    &[("kvm-manual", DirtyLog::KvmManual), ("kvm", DirtyLog::Kvm), ("ring", DirtyLog::Ring), ("tcg", DirtyLog::Tcg)];

impl Settings {
    /// The settings this version has, as users see them.
    pub(super) fn fields(&mut self, version: Version) -> Vec<Field<'_>> {
        let mut fields = vec![
            // QEMU takes 0, too, and then sends 10 windows of nothing each second: refused as never meant.
            Field::new(
                "max-bandwidth",
                Cap::new(&mut self.max_bandwidth, UNLIMITED),
                "cap while the guest runs, or `none`; default 128MiB/s (QEMU >= 5.2, MAX_THROTTLE), libvirt sets none",
            ),
            Field::new(
                "downtime-limit",
                Millis::new(&mut self.downtime_limit, Duration::ZERO..=Settings::DOWNTIME_LIMIT_MAX),
                "the guest is stopped when the rest fits into this; default 300ms (DEFAULT_MIGRATE_SET_DOWNTIME)",
            ),
            Field::new(
                "dirty-log",
                Choice::new(&mut self.dirty_log, DIRTY_LOGS),
                "kvm-manual, kvm, ring or tcg: when the dirty log forgets; default by the history's accelerator",
            ),
        ];
        if version.rules().has_avail_switchover_bandwidth {
            // QEMU reads 0 as "not set".
            fields.push(Field::new(
                "avail-switchover-bandwidth",
                OptionalRate(&mut self.avail_switchover_bandwidth),
                "bandwidth the decision to stop assumes, or `none` for the measured one; default none (QEMU >= 8.2)",
            ));
        }
        fields
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::algorithm::setting::Refusal;

    /// The default settings after this one was set, or what is allowed instead.
    fn with(key: &'static str, value: &str) -> Result<Settings, String> {
        let mut settings = Settings::default();
        let mut fields = settings.fields(Version::NEWEST);
        let field = fields.iter_mut().find(|field| field.key == key).unwrap();
        let read = field.value.read(value);
        drop(fields);
        read.map(|()| settings).map_err(|refusal| match refusal {
            Refusal::OutOfRange(allowed) => allowed,
            Refusal::Malformed(error) => error.to_string(),
        })
    }

    #[test]
    fn max_bandwidth_is_a_rate_above_zero_or_none() {
        let max_bandwidth = |value| with("max-bandwidth", value).map(|settings| settings.max_bandwidth);
        assert_eq!(max_bandwidth("1MB/s"), Ok(BytesPerSec::new(1_000_000)));
        assert_eq!(max_bandwidth("none"), Ok(UNLIMITED));
        let refused = "more than 0, or `none`";
        assert_eq!(max_bandwidth("0MB/s"), Err(refused.to_owned()));
    }

    #[test]
    fn downtime_limit_is_at_most_2000_s_in_whole_milliseconds() {
        let downtime_limit = |value| with("downtime-limit", value).map(|settings| settings.downtime_limit);
        assert_eq!(downtime_limit("0ms"), Ok(Duration::ZERO));
        assert_eq!(downtime_limit("2000s"), Ok(Duration::from_secs(2000)));
        for value in ["2000001ms", "1500us", "2000s 1us"] {
            let refused = "0ms to 2000s, in whole milliseconds";
            assert_eq!(downtime_limit(value), Err(refused.to_owned()));
        }
    }

    #[test]
    fn avail_switchover_bandwidth_of_zero_is_none() {
        let available = |value| {
            let settings = with("avail-switchover-bandwidth", value);
            settings.map(|settings| settings.avail_switchover_bandwidth)
        };
        assert_eq!(available("1GB/s"), Ok(Some(BytesPerSec::new(1_000_000_000))));
        assert_eq!(available("0GB/s"), Ok(None));
        assert_eq!(available("none"), Ok(None));
    }

    #[test]
    fn each_dirty_log_has_its_name() {
        let dirty_log = |value| with("dirty-log", value).map(|settings| settings.dirty_log);
        assert_eq!(dirty_log("kvm-manual"), Ok(DirtyLog::KvmManual));
        assert_eq!(dirty_log("kvm"), Ok(DirtyLog::Kvm));
        assert_eq!(dirty_log("ring"), Ok(DirtyLog::Ring));
        assert_eq!(dirty_log("tcg"), Ok(DirtyLog::Tcg));
        let refused = "kvm-manual, kvm, ring or tcg";
        assert_eq!(dirty_log("xen"), Err(refused.to_owned()));
    }
}
