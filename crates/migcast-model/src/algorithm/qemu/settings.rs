//! What a user can set, with QEMU's defaults.

use std::time::Duration;

use super::Version;
use super::dirty_limit::DirtyLimit;
use super::throttle::AutoConverge;
use crate::algorithm::setting::{
    Cap, Choice, Count, Field, Millis, OptionalCount, OptionalMillis, OptionalRate, PowerOfTwo, PowerOfTwoSize, Rate,
    Switch,
};
use crate::due::DirtyLog;
use crate::units::{ByteCount, BytesPerSec};

/// Longest wait that makes sense.
const HOUR: Duration = Duration::from_secs(3600);

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
    /// Slowing a guest that writes too much.
    pub auto_converge: AutoConverge,
    /// Slowing it to a rate (QEMU ≥ 8.1).
    pub dirty_limit: DirtyLimit,
    /// Sending by several threads.
    pub multifd: Multifd,
    /// Encoding what is sent again.
    pub xbzrle: Xbzrle,
    /// Moving the guest before its memory.
    pub postcopy: Postcopy,
    /// The capability `pause-before-switchover`: how long the stopped guest waits for `migrate-continue`; `None` without
    /// the capability. Not QEMU's to say but whoever manages it.
    pub pause_before_switchover: Option<Duration>,
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
            auto_converge: AutoConverge::default(),
            dirty_limit: DirtyLimit::default(),
            multifd: Multifd::default(),
            xbzrle: Xbzrle::default(),
            postcopy: Postcopy::default(),
            pause_before_switchover: None,
        }
    }
}

/// The capability `multifd`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Multifd {
    /// Default off.
    pub is_on: bool,
    /// `multifd-channels`: threads, each with a connection of its own. Default 2.
    pub channels: u64,
}

impl Default for Multifd {
    fn default() -> Multifd {
        Multifd { is_on: false, channels: 2 }
    }
}

/// The capability `xbzrle`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Xbzrle {
    /// Default off.
    pub is_on: bool,
    /// `xbzrle-cache-size`. Default 64 MiB.
    pub cache: ByteCount,
    /// What an encoded page takes of a page, in percent: not a setting of QEMU's but of the guest's writes, and assumed.
    pub encoded_percent: u64,
}

impl Default for Xbzrle {
    fn default() -> Xbzrle {
        Xbzrle { is_on: false, cache: ByteCount::new(64 << 20), encoded_percent: 50 }
    }
}

/// The capability `postcopy-ram`, and when `migrate-start-postcopy` is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Postcopy {
    /// The capability, for whoever manages the migration to make use of. Default off; on if one of the next two says when.
    pub is_allowed: bool,
    /// So long after the request.
    pub after: Option<Duration>,
    /// Once so many passes are over: `virsh migrate --postcopy-after-precopy` is 1.
    pub after_passes: Option<u64>,
    /// `max-postcopy-bandwidth`: cap of the pages nobody waits for. Default none.
    pub max_bandwidth: BytesPerSec,
}

impl Default for Postcopy {
    fn default() -> Postcopy {
        Postcopy { is_allowed: false, after: None, after_passes: None, max_bandwidth: UNLIMITED }
    }
}

impl Postcopy {
    /// Whether the capability is on.
    pub fn is_on(&self) -> bool {
        self.is_allowed || self.after.is_some() || self.after_passes.is_some()
    }
}

const DIRTY_LOGS: &[(&str, DirtyLog)] =
    &[("kvm-manual", DirtyLog::KvmManual), ("kvm", DirtyLog::Kvm), ("ring", DirtyLog::Ring), ("tcg", DirtyLog::Tcg)];

impl Settings {
    /// The settings this version has, as users see them.
    pub(super) fn fields(&mut self, version: Version) -> Vec<Field<'_>> {
        let mut fields = vec![
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
        fields.extend(self.auto_converge.fields());
        if version >= Version::V8_1 {
            fields.extend(self.dirty_limit.fields());
        }
        fields.extend(self.multifd.fields());
        fields.extend(self.xbzrle.fields());
        fields.extend(self.postcopy.fields());
        fields.push(
            Field::new(
                "pause-before-switchover",
                OptionalMillis::new(&mut self.pause_before_switchover, Duration::ZERO..=HOUR),
                "how long the stopped guest waits for migrate-continue, or `none` without the capability; default none",
            )
            .minor(),
        );
        fields
    }
}

impl AutoConverge {
    fn fields(&mut self) -> Vec<Field<'_>> {
        let percent = 1..=99;
        vec![
            Field::new("auto-converge", Switch(&mut self.is_on), "slow the guest when it writes too much; default off"),
            Field::new(
                "throttle-trigger-threshold",
                Count::percent(&mut self.trigger_threshold, 1..=100),
                "too much is more than this share of what was sent, twice; default 50%",
            ),
            Field::new(
                "cpu-throttle-initial",
                Count::percent(&mut self.initial, percent.clone()),
                "its first step; default 20%",
            ),
            Field::new(
                "cpu-throttle-increment",
                Count::percent(&mut self.increment, percent.clone()),
                "each further step; default 10%",
            ),
            Field::new("max-cpu-throttle", Count::percent(&mut self.max, percent), "the most; default 99%"),
            Field::new("cpu-throttle-tailslow", Switch(&mut self.tailslow), "smaller steps near the end; default off"),
            Field::new(
                "vcpu-busy",
                OptionalCount::percent(&mut self.busy, 1..=100),
                "how much of their time the vCPUs are busy: they sleep in their idle time first; by default what the history says, else 100%",
            ),
        ]
        .into_iter()
        .map(Field::minor)
        .collect()
    }
}

impl DirtyLimit {
    fn fields(&mut self) -> Vec<Field<'_>> {
        vec![
            Field::new(
                "dirty-limit",
                Switch(&mut self.is_on),
                "slow the guest to a rate instead; needs dirty-log=ring; default off (QEMU >= 8.1)",
            ),
            Field::new("vcpu-dirty-limit", Rate(&mut self.quota), "that rate, of each vCPU; default 1MiB/s"),
            Field::new(
                "x-vcpu-dirty-limit-period",
                Millis::new(&mut self.period, Duration::from_millis(1)..=Duration::from_secs(1000)),
                "how often it is adjusted; default 1s",
            ),
            Field::new(
                "dirty-ring-size",
                PowerOfTwo::new(&mut self.ring_entries, 1024..=65_536),
                "entries of a vCPU's ring; a property of -accel kvm, 4096 is usual",
            ),
            Field::new(
                "vcpus",
                Count::new(&mut self.vcpus, 1..=4096),
                "vCPUs that share the guest's writes; default 1",
            ),
        ]
        .into_iter()
        .map(Field::minor)
        .collect()
    }
}

impl Multifd {
    fn fields(&mut self) -> Vec<Field<'_>> {
        vec![
            Field::new("multifd", Switch(&mut self.is_on), "send by several threads and connections; default off")
                .minor(),
            Field::new("multifd-channels", Count::new(&mut self.channels, 1..=255), "how many; default 2").minor(),
        ]
    }
}

impl Xbzrle {
    fn fields(&mut self) -> Vec<Field<'_>> {
        vec![
            Field::new(
                "xbzrle",
                Switch(&mut self.is_on),
                "encode what is sent again against what was sent; default off",
            ),
            Field::new(
                "xbzrle-cache-size",
                PowerOfTwoSize(&mut self.cache),
                "memory for what was sent, a power of two; default 64MiB",
            ),
            Field::new(
                "xbzrle-encoded-size",
                Count::percent(&mut self.encoded_percent, 0..=100),
                "what an encoded page takes of a page, by the guest's writes: an assumption, 50% unless stated",
            ),
        ]
        .into_iter()
        .map(Field::minor)
        .collect()
    }
}

impl Postcopy {
    fn fields(&mut self) -> Vec<Field<'_>> {
        vec![
            Field::new(
                "postcopy-ram",
                Switch(&mut self.is_allowed),
                "let a manager start post-copy; the next two turn it on, too; default off",
            ),
            Field::new(
                "postcopy-after",
                OptionalMillis::new(&mut self.after, Duration::ZERO..=1000 * HOUR),
                "when migrate-start-postcopy is given, from the request on, or `none`; default none",
            ),
            Field::new(
                "postcopy-after-passes",
                OptionalCount::new(&mut self.after_passes, 0..=1_000_000),
                "or after how many passes; virsh --postcopy-after-precopy is 1; default none",
            ),
            Field::new(
                "max-postcopy-bandwidth",
                Cap::new(&mut self.max_bandwidth, UNLIMITED),
                "cap of the pages nobody waits for, or `none`; default none",
            ),
        ]
        .into_iter()
        .map(Field::minor)
        .collect()
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
        let refused = "at least 8kbit/s, or `none`";
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
    fn sizes_of_the_cache_and_the_ring_are_powers_of_two() {
        let cache = |value| with("xbzrle-cache-size", value).map(|settings| settings.xbzrle.cache.get());
        assert_eq!((cache("4KiB"), cache("128MiB")), (Ok(4096), Ok(128 << 20)));
        for value in ["2KiB", "100MB", "65MiB"] {
            assert_eq!(cache(value), Err("a power of two from 4KiB on, such as 64MiB".to_owned()));
        }
        let ring = |value| with("dirty-ring-size", value).map(|settings| settings.dirty_limit.ring_entries);
        assert_eq!((ring("1024"), ring("65536")), (Ok(1024), Ok(65_536)));
        for value in ["512", "5000", "131072"] {
            assert_eq!(ring(value), Err("a power of two from 1024 to 65536".to_owned()));
        }
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
