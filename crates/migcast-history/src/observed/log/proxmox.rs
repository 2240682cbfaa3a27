//! Task logs of Proxmox VE (`qm migrate`), one task or many.
//!
//! ```text
//!  DATE TIME start migrate command to …                             request
//!  DATE TIME migration completed, transferred 138.0 MiB VM-state    bytes, where it says so
//!  DATE TIME average migration speed: … - downtime 73 ms            QEMU's downtime
//!  DATE TIME migration status: completed                            the source is done
//!  DATE TIME migration finished …                                   the end; other words where it failed
//! ```
//! Times are whole seconds of the node's own zone: a migration of a few seconds is not told well by them. Starting the
//! guest on the target and copying disks come before the request and do not count.
//!
//! Source: Proxmox qemu-server, src/PVE/QemuMigrate.pm.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use super::{Unreadable, bytes};
use crate::observed::{Known, Observed};

const WANTED: &str = "a task log of `qm migrate --online` with the times of its lines";

/// A task as it is read.
#[derive(Default)]
struct Task {
    requested: Option<Timestamp>,
    done: Option<Timestamp>,
    downtime: Option<f64>,
    sent: Option<u64>,
}

/// Reads tasks whose times are in `zone`.
pub(super) fn read(text: &str, known: &Known, zone: &TimeZone) -> Result<Vec<Observed>, Unreadable> {
    let (mut all, mut task) = (Vec::new(), Task::default());
    for (line, text) in (1..).zip(text.lines()) {
        let stamped = text.get(..19).and_then(|stamp| Some((stamp.parse::<DateTime>().ok()?, text[19..].trim_start())));
        let Some((stamp, text)) = stamped else { continue };
        let time = || {
            let time = zone.to_timestamp(stamp);
            time.map_err(|_| Unreadable::value(line, "the time", &stamp.to_string(), "a time of --time-zone"))
        };
        if text.starts_with("start migrate command to ") {
            task = Task { requested: Some(time()?), ..Task::default() };
        } else if let Some(rest) = text.strip_prefix("average migration speed: ") {
            let millis = rest.split_once("downtime ").and_then(|(_, rest)| rest.strip_suffix(" ms"));
            let millis = millis.and_then(|millis| millis.parse::<u64>().ok());
            let refused = || Unreadable::value(line, "average migration speed", rest, "SPEED - downtime NUMBER ms");
            task.downtime = Some(millis.ok_or_else(refused)? as f64 / 1e3);
        } else if let Some(rest) = text.strip_prefix("migration completed, transferred ") {
            let mut words = rest.split(' ');
            let sent = words.next().zip(words.next()).and_then(|(number, unit)| bytes(number, unit));
            let refused = || Unreadable::value(line, "transferred", rest, "a size in B, KiB, MiB, GiB or TiB");
            task.sent = Some(sent.ok_or_else(refused)? as u64);
        } else if text == "migration status: completed" {
            task.done = Some(time()?);
        } else if let Some(completed) = ending(text)
            && let Some(requested) = task.requested
        {
            let end = if completed { task.done.unwrap_or(time()?) } else { time()? };
            all.push(Observed {
                completed,
                migration_time_reported_seconds: Some(end.duration_since(requested).as_secs_f64()),
                downtime_reported_seconds: task.downtime,
                sent_bytes: task.sent,
                ..Observed::unseen("qemu", known, requested)
            });
            task = Task::default();
        }
    }
    if task.requested.is_some() {
        return Err(Unreadable::Unended(all.len() + 1));
    }
    if all.is_empty() { Err(Unreadable::Nothing(WANTED)) } else { Ok(all) }
}

/// Whether a line ends a task, and how.
fn ending(text: &str) -> Option<bool> {
    if text.starts_with("migration finished successfully") {
        Some(true)
    } else if text.starts_with("ERROR: migration aborted")
        || text.starts_with("ERROR: migration finished with problems")
    {
        Some(text.contains("finished"))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::known;
    use super::*;

    const TASK: &str = "\
2025-01-04 00:34:24 starting migration of VM 105 to node 'pve1' (10.10.1.1)
2025-01-04 00:34:29 start migrate command to unix:/run/qemu-server/105.migrate
2025-01-04 00:34:30 migration active, transferred 357.9 MiB of 4.0 GiB VM-state, 586.6 MiB/s
2025-01-04 00:34:37 migration active, transferred 2.5 GiB of 4.0 GiB VM-state, 443.7 MiB/s
2025-01-04 00:34:38 average migration speed: 457.0 MiB/s - downtime 73 ms
2025-01-04 00:34:38 migration completed, transferred 2.8 GiB VM-state
2025-01-04 00:34:38 migration status: completed
2025-01-04 00:34:42 migration finished successfully (duration 00:00:18)
TASK OK
";

    #[test]
    fn a_task_gives_when_how_long_and_qemus_downtime() {
        let zone = TimeZone::get("Europe/Berlin").unwrap();
        let all = read(&TASK.repeat(2), &known(), &zone).unwrap();
        assert_eq!(all.len(), 2);
        assert_eq!(all[0].requested.to_string(), "2025-01-03T23:34:29Z");
        assert_eq!(all[0].migration_time_reported_seconds, Some(9.0));
        assert_eq!(all[0].downtime_reported_seconds, Some(0.073));
        assert_eq!(all[0].sent_bytes, Some(3_006_477_107));
    }

    #[test]
    fn one_that_was_aborted_did_not_complete_and_one_that_goes_on_is_refused() {
        let begun: String = TASK.lines().take(4).map(|line| format!("{line}\n")).collect();
        assert!(matches!(read(&begun, &known(), &TimeZone::UTC), Err(Unreadable::Unended(1))));
        let aborted = begun + "2025-01-04 00:35:00 ERROR: migration aborted (duration 00:00:36): failed\n";
        let one = &read(&aborted, &known(), &TimeZone::UTC).unwrap()[0];
        assert_eq!((one.completed, one.migration_time_reported_seconds), (false, Some(31.0)));
    }
}
