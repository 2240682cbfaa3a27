//! QEMU's own trace of a migration: what was due at each reading of the dirty log, which its monitor does not tell.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

/// Told after each reading of the dirty log while the guest runs (migration/trace-events; QEMU 8.0 and later).
const PENDING: &str = "migrate_pending_exact";

/// Makes QEMU write its trace into `file`. A QEMU that was built without the `log` backend, or an older one, warns on
/// standard error and writes nothing.
pub fn arguments(command: &mut Command, file: &Path) {
    command.args(["-msg", "timestamp=on", "-trace", PENDING]).arg("-D").arg(file);
}

/// A reading of the dirty log while the guest ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// When.
    pub at: SystemTime,
    /// Bytes that were due then: pages times their size.
    pub pending_bytes: u64,
}

/// The readings in a trace, in order. Other lines are passed over.
pub fn readings(trace: &str) -> Vec<Reading> {
    trace.lines().filter_map(reading).collect()
}

/// `PID@SECONDS.MICROS:migrate_pending_exact exact pending size 991232 (pre = 991232 post=0)`
fn reading(line: &str) -> Option<Reading> {
    let (stamp, event) = line.split_once('@')?.1.split_once(':')?;
    let (seconds, micros) = stamp.split_once('.')?;
    let at = Duration::from_secs(seconds.parse().ok()?) + Duration::from_micros(micros.parse().ok()?);
    let pending = event.strip_prefix(PENDING)?.trim_start().strip_prefix("exact pending size ")?;
    Some(Reading { at: SystemTime::UNIX_EPOCH + at, pending_bytes: pending.split(' ').next()?.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readings_are_found_among_other_lines() {
        let trace = "3360@1795397108.465081:migrate_pending_exact exact pending size 30998528 (pre = 30998528 post=0)\n\
                     qemu-system-x86_64: warning: something\n\
                     3360@1795397108.522961:migrate_transferred transferred 13182958 time_spent 112\n\
                     3360@1795397108.705225:migrate_pending_exact exact pending size 7921664 (pre = 7921664 post=0)\n\
                     3360@17953971";
        let readings = readings(trace);
        assert_eq!(readings.iter().map(|reading| reading.pending_bytes).collect::<Vec<_>>(), [30_998_528, 7_921_664]);
        let at = readings[0].at.duration_since(SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(at, Duration::from_micros(1_795_397_108_465_081));
    }
}
