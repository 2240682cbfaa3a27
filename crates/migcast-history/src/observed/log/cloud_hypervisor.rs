//! The log of Cloud Hypervisor's sender, with `-v -v`: one line an iteration (since 52).
//!
//! ```text
//!  cloud-hypervisor:  12.702682s: … Precopy: iter=0 curr=6144MiB total=6144MiB … transfer=3.09s … elapsed=3.11s …
//!  …                                Precopy converged: iter=5 curr=12MiB total=28000MiB …
//!  …                                Migration completed after 16.2s with a downtime of 298ms (goal was 300ms)
//! ```
//! `elapsed` counts from the first iteration; its distance from the request is told by the times before the lines, where
//! they stand there. What is left when it converges is sent while the guest is stopped. Sizes are whole MiB, the migration
//! time has one decimal. The downtime lasts until the target has answered that the guest runs there: it is the guest's.
//!
//! Source: Cloud Hypervisor, vm-migration/src/context.rs `MemoryMigrationContext`; vmm/src/lib.rs `send_migration`.

use jiff::Timestamp;

use super::{Unreadable, before, end_to_end};
use crate::observed::{Known, Observed};

const WANTED: &str = "the sender's log with `Migration completed after …`";
const MIB: u64 = 1 << 20;

/// A migration as it is read.
#[derive(Default)]
struct Migration {
    /// End of each iteration, in seconds since the first one began, and since the program did.
    ends: Vec<(f64, Option<f64>)>,
    /// What was due in each, in MiB.
    due: Vec<u64>,
    /// In MiB.
    sent: u64,
}

/// Reads the migrations of a log; the last one ended at `ended`, the others as much earlier as the log's times say.
pub(super) fn read(text: &str, known: &Known, ended: Timestamp) -> Result<Vec<Observed>, Unreadable> {
    let mut all: Vec<(Option<f64>, Observed)> = Vec::new();
    let mut now = Migration::default();
    for (line, text) in (1..).zip(text.lines()) {
        let stamp = stamp(text);
        if let Some((_, said)) =
            text.split_once("Precopy: iter=").or_else(|| text.split_once("Precopy converged: iter="))
        {
            let converged = text.contains("Precopy converged: ");
            now.take(line, said, stamp, converged)?;
        } else if let Some((_, said)) = text.split_once("Migration completed after ") {
            let refused =
                || Unreadable::value(line, "Migration completed after", said, "SECONDSs with a downtime of MILLISms …");
            let (took, rest) = said.split_once("s with a downtime of ").ok_or_else(refused)?;
            let downtime = rest.split_once("ms").map(|(millis, _)| millis).ok_or_else(refused)?;
            let took: f64 = took.parse().ok().filter(|took| *took >= 0.0).ok_or_else(refused)?;
            let downtime = downtime.parse::<u64>().map_err(|_| refused())? as f64 / 1e3;
            let observed = Observed {
                completed: true,
                migration_time_seconds: Some(took),
                downtime_seconds: Some(downtime),
                stopped_seconds: Some((took - downtime).max(0.0)),
                ..Observed::unseen("cloud-hypervisor", known, ended)
            };
            all.push((stamp, std::mem::take(&mut now).into_observed(observed, stamp, took)));
        } else if let Some((_, said)) = text.split_once("Precopy: Timeout reached: ") {
            let took = said.split_once("s:").and_then(|(seconds, _)| seconds.parse::<f64>().ok());
            let refused = || Unreadable::value(line, "Timeout reached", said, "SECONDSs: …");
            let took = took.filter(|took| *took >= 0.0).ok_or_else(refused)?;
            let observed =
                Observed { migration_time_seconds: Some(took), ..Observed::unseen("cloud-hypervisor", known, ended) };
            all.push((stamp, std::mem::take(&mut now).into_observed(observed, stamp, took)));
        }
    }
    if all.is_empty() {
        return Err(Unreadable::Nothing(WANTED));
    }
    let stamps: Vec<f64> = all.iter().filter_map(|(stamp, ..)| *stamp).collect();
    let mut observed: Vec<Observed> = all.into_iter().map(|(.., observed)| observed).collect();
    if stamps.len() == observed.len() && stamps.is_sorted() {
        let last = stamps[stamps.len() - 1];
        for (one, stamp) in observed.iter_mut().zip(stamps) {
            one.requested = before(before(ended, last - stamp), one.seconds());
        }
    } else {
        // Without times, or of several programs, whose times each begin anew.
        end_to_end(&mut observed, ended);
    }
    Ok(observed)
}

impl Migration {
    /// Takes an iteration's line: of one that was sent, or of the one that will be while the guest is stopped.
    fn take(&mut self, line: usize, said: &str, stamp: Option<f64>, converged: bool) -> Result<(), Unreadable> {
        let field = |name: &str, unit: &'static str| -> Result<f64, Unreadable> {
            let found = said.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
            let number = found.and_then(|value| value.strip_suffix(unit)?.parse::<f64>().ok());
            let number = number.filter(|number| (0.0..1e15).contains(number));
            number.ok_or_else(|| Unreadable::value(line, name, found.unwrap_or_default(), unit_allowed(unit)))
        };
        let (curr, total, elapsed) =
            (field("curr", "MiB")? as u64, field("total", "MiB")? as u64, field("elapsed", "s")?);
        self.due.push(curr);
        self.sent = if converged { total + curr } else { total };
        if !converged {
            self.ends.push((elapsed, stamp));
        }
        Ok(())
    }

    fn into_observed(self, mut observed: Observed, stamp: Option<f64>, took: f64) -> Observed {
        let Some(&(first_end, first_stamp)) = self.ends.first() else { return observed };
        // When the first iteration began, by the times of the lines.
        let active = stamp.zip(first_stamp).map(|(end, first)| (first - first_end - (end - took)).max(0.0));
        if let Some(active) = active {
            observed.active_seconds = Some(active);
            observed.iteration_starts_seconds = self.ends.iter().map(|(end, _)| active + end).collect();
        }
        observed.pending_bytes = self.due.iter().skip(1).map(|mib| mib.saturating_mul(MIB)).collect();
        observed.iterations = Some(self.due.len() as u64);
        observed.sent_bytes = Some(self.sent.saturating_mul(MIB));
        observed
    }
}

fn unit_allowed(unit: &'static str) -> &'static str {
    if unit == "s" { "a number of s" } else { "a number of MiB" }
}

/// Seconds since the program began, which stand before a line.
fn stamp(text: &str) -> Option<f64> {
    let (_, rest) = text.split_once(':')?;
    rest.split_once("s:")?.0.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::super::tests::known;
    use super::*;

    const LOG: &str = "\
cloud-hypervisor:  12.702682s: <vmm> DEBUG:vmm/src/lib.rs:1423 -- Precopy: iter=0 curr=6144MiB total=6144MiB bw=1986.83MiB/s transfer=3.09s overhead=0ms est_downtime=0ms elapsed=3.11s avg_bw=1975.41MiB/s
cloud-hypervisor:  15.728419s: <vmm> DEBUG:vmm/src/lib.rs:1423 -- Precopy: iter=1 curr=5418MiB total=11562MiB bw=1824.44MiB/s transfer=2.97s overhead=56ms est_downtime=2726ms elapsed=6.14s avg_bw=1884.21MiB/s
cloud-hypervisor:  15.780000s: <vmm> DEBUG:vmm/src/lib.rs:1493 -- Precopy: Target downtime can be met: 276ms <= 300ms
cloud-hypervisor:  15.780010s: <vmm> DEBUG:vmm/src/lib.rs:1410 -- Precopy converged: iter=2 curr=504MiB total=11562MiB bw=1824.44MiB/s transfer=0.00s overhead=50ms est_downtime=276ms elapsed=6.19s avg_bw=1867.00MiB/s
cloud-hypervisor:  16.110000s: <vmm> INFO:vmm/src/lib.rs:1794 -- Migration completed after 6.6s with a downtime of 298ms (goal was 300ms)
";

    #[test]
    fn a_log_gives_every_iteration() {
        let ended: Timestamp = "2026-11-24T08:00:10Z".parse().unwrap();
        let one = &read(LOG, &known(), ended).unwrap()[0];
        assert_eq!((one.migration_time_seconds, one.downtime_seconds), (Some(6.6), Some(0.298)));
        assert_eq!(one.requested.to_string(), "2026-11-24T08:00:03.4Z");
        assert_eq!(one.sent_bytes, Some((11_562 + 504) * MIB));
        assert_eq!(one.pending_bytes, [5_418 * MIB, 504 * MIB]);
        let active = one.active_seconds.unwrap();
        assert!((active - (12.702_682 - 3.11 - 9.51)).abs() < 1e-6, "{active}");
        assert_eq!((one.iterations, one.iteration_starts_seconds.len()), (Some(3), 2));
        assert!(one.completed);
    }

    #[test]
    fn several_are_as_far_apart_as_their_times() {
        let ended: Timestamp = "2026-11-24T08:00:10Z".parse().unwrap();
        let later = LOG.replace("cloud-hypervisor:  1", "cloud-hypervisor:  11");
        let requested = |log: &str| read(log, &known(), ended).unwrap()[0].requested.to_string();
        // 100 s lie between their ends; of a log without times only the order is known.
        assert_eq!(requested(&(LOG.to_owned() + &later)), "2026-11-24T07:58:23.4Z");
        assert_eq!(requested(&(LOG.to_owned() + &later).replace("s: <vmm>", " <vmm>")), "2026-11-24T07:59:56.8Z");
    }

    #[test]
    fn one_that_ran_out_of_time_did_not_complete() {
        let log = "x:  1.0s: <vmm> ERROR -- Precopy: Timeout reached: 60s: migration didn't converge in time\n";
        let one = &read(&(log.to_owned() + LOG), &known(), Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!((one[0].completed, one[0].migration_time_seconds, one.len()), (false, Some(60.0), 2));
        assert!(matches!(read("Precopy: x\n", &known(), Timestamp::UNIX_EPOCH), Err(Unreadable::Nothing(_))));
        let error = read("Precopy: iter=0 curr=xMiB\n", &known(), Timestamp::UNIX_EPOCH).unwrap_err();
        assert_eq!(error.to_string(), "line 1: curr is `xMiB`, allowed: a number of MiB");
    }
}
