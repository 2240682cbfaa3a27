//! QEMU's own trace of a migration: what was due at each reading of the dirty log, which its monitor does not tell.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::Result;
use serde_json::json;

use crate::qmp::Qmp;

/// Told after each reading of the dirty log while the guest runs (migration/trace-events; QEMU 8.0 and later).
const PENDING: &str = "migrate_pending_exact";

/// Makes QEMU write its trace into `file`. A QEMU that was built without the `log` backend, or an older one, warns on
/// standard error and writes nothing.
pub fn arguments(command: &mut Command, file: &Path) {
    command.args(["-msg", "timestamp=on", "-trace", PENDING]).arg("-D").arg(file);
}

/// What tells the order of sections and readings of the dirty log (migration/trace-events; QEMU 10.0). Turned on by
/// [`trace_sections`] for the migrations that need it.
const SECTION_BEGAN: &str = "savevm_section_start";
const SECTION_ENDED: &str = "savevm_section_end";
const SYNC_BEGAN: &str = "migration_bitmap_sync_start";
const SYNC_ENDED: &str = "migration_bitmap_sync_end";
const WINDOW_CLOSED: &str = "migrate_transferred";

/// Makes a running QEMU trace sections, readings and bandwidth windows from now on.
///
/// # Errors
/// It was built without them.
pub fn trace_sections(monitor: &mut Qmp) -> Result<()> {
    for name in [SECTION_BEGAN, SECTION_ENDED, SYNC_BEGAN, SYNC_ENDED, WINDOW_CLOSED] {
        monitor.execute("trace-event-set-state", &json!({ "name": name, "enable": true }))?;
    }
    Ok(())
}

/// A line of the trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traced {
    /// When.
    pub at: SystemTime,
    /// What.
    pub what: What,
}

/// What a line of the trace tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A section of this name begins.
    SectionBegan(String),
    /// A section of this name is over.
    SectionEnded(String),
    /// The dirty log is about to be read.
    SyncBegan,
    /// It has been read.
    SyncEnded,
    /// A bandwidth window was closed: bytes accepted in it, and its length in milliseconds.
    WindowClosed(u64, u64),
}

/// What a trace tells of sections, readings and windows, in order. Other lines are passed over.
pub fn traced(trace: &str) -> Vec<Traced> {
    trace.lines().filter_map(line).filter_map(|(at, event)| Some(Traced { at, what: what(event)? })).collect()
}

/// `savevm_section_start ram, section_id 2`, `migrate_transferred transferred 13182958 time_spent 112 …`
fn what(event: &str) -> Option<What> {
    let (name, rest) = event.split_once(' ').unwrap_or((event, ""));
    let section = || Some(rest.split_once(", section_id ")?.0.to_owned());
    match name {
        SECTION_BEGAN => section().map(What::SectionBegan),
        SECTION_ENDED => section().map(What::SectionEnded),
        SYNC_BEGAN => Some(What::SyncBegan),
        SYNC_ENDED => Some(What::SyncEnded),
        WINDOW_CLOSED => {
            let mut words = rest.strip_prefix("transferred ")?.split(' ');
            let bytes = words.next()?.parse().ok()?;
            Some(What::WindowClosed(bytes, words.nth(1)?.parse().ok()?))
        }
        _ => None,
    }
}

/// When a line was written, and the event it tells of.
fn line(line: &str) -> Option<(SystemTime, &str)> {
    let (stamp, event) = line.split_once('@')?.1.split_once(':')?;
    let (seconds, micros) = stamp.split_once('.')?;
    let at = Duration::from_secs(seconds.parse().ok()?) + Duration::from_micros(micros.parse().ok()?);
    Some((SystemTime::UNIX_EPOCH + at, event))
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
fn reading(text: &str) -> Option<Reading> {
    let (at, event) = line(text)?;
    let pending = event.strip_prefix(PENDING)?.trim_start().strip_prefix("exact pending size ")?;
    Some(Reading { at, pending_bytes: pending.split(' ').next()?.parse().ok()? })
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

    #[test]
    fn sections_readings_and_windows_are_told_in_order() {
        let trace = "7@1.000001:savevm_section_start ram, section_id 2\n\
                     7@1.000002:migration_bitmap_sync_start \n\
                     7@1.000003:migrate_pending_exact exact pending size 4096 (pre = 4096 post=0)\n\
                     7@1.000004:migration_bitmap_sync_end dirty_pages 31\n\
                     7@1.000005:savevm_section_end ram, section_id 2 -> 0\n\
                     7@1.000006:migrate_transferred transferred 13182958 time_spent 112 bandwidth 117704 max_size 353\n\
                     7@1.000007:savevm_section_start";
        let told = traced(trace);
        let what: Vec<What> = told.iter().map(|traced| traced.what.clone()).collect();
        let ram = || "ram".to_owned();
        let expected = [
            What::SectionBegan(ram()),
            What::SyncBegan,
            What::SyncEnded,
            What::SectionEnded(ram()),
            What::WindowClosed(13_182_958, 112),
        ];
        assert_eq!(what, expected);
        assert_eq!(told[4].at, SystemTime::UNIX_EPOCH + Duration::from_micros(1_000_006));
    }
}
