//! Text of `virsh domjobinfo DOMAIN --completed`, once or many times.
//!
//! ```text
//!  Time elapsed      migration_time_seconds    libvirt's job, until the guest ran on the target
//!  Total downtime    downtime_seconds          stopped on the source to running on the target, by libvirt's clocks
//!  Memory processed  sent_bytes                Normal pages, Constant pages   data_pages, zero_pages
//!  Setup time        setup_seconds             Iteration                      iterations
//! ```
//! Both times need the two hosts' clocks to agree. libvirt does not say when it was.
//!
//! Source: libvirt, tools/virsh-domain.c `cmdDomjobinfo`; include/libvirt/libvirt-domain.h `VIR_DOMAIN_JOB_*`.

use jiff::Timestamp;

use super::{Unreadable, bytes, end_to_end};
use crate::observed::{Known, Observed};

const WANTED: &str = "text of `virsh domjobinfo DOMAIN --completed` after a migration";

/// A job as it is read.
struct Job {
    observed: Observed,
    is_migration: bool,
    has_time: bool,
}

/// Reads jobs in their order, the last of which ended at `ended`.
pub(super) fn read(text: &str, known: &Known, ended: Timestamp) -> Result<Vec<Observed>, Unreadable> {
    let mut jobs: Vec<Job> = Vec::new();
    for (line, text) in (1..).zip(text.lines()) {
        let Some((label, value)) = text.split_once(':') else { continue };
        let (label, value) = (label.trim(), value.trim());
        if label == "Job type" {
            let completed = match value {
                "Completed" => true,
                "Failed" | "Cancelled" => false,
                _ => return Err(Unreadable::value(line, label, value, "Completed, Failed or Cancelled")),
            };
            let observed = Observed { completed, ..Observed::unseen("qemu", known, ended) };
            jobs.push(Job { observed, is_migration: true, has_time: false });
        } else if let Some(job) = jobs.last_mut() {
            job.set(line, label, value)?;
        }
    }
    jobs.retain(|job| job.is_migration);
    if let Some(number) = jobs.iter().position(|job| !job.has_time) {
        return Err(Unreadable::Timeless(number + 1, "the line `Time elapsed` is wanted"));
    }
    if jobs.is_empty() {
        return Err(Unreadable::Nothing(WANTED));
    }
    let mut all: Vec<Observed> = jobs.into_iter().map(|job| job.observed).collect();
    end_to_end(&mut all, ended);
    Ok(all)
}

impl Job {
    fn set(&mut self, line: usize, label: &str, value: &str) -> Result<(), Unreadable> {
        let mut words = value.split_whitespace();
        let (number, unit) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let refused = |allowed| Unreadable::value(line, label, value, allowed);
        let count = || number.parse::<u64>().map_err(|_| refused("a whole number"));
        let seconds = || {
            let millis = count().ok().filter(|_| unit == "ms");
            millis.map(|millis| millis as f64 / 1e3).ok_or_else(|| refused("a whole number of ms"))
        };
        let one = &mut self.observed;
        match label {
            "Operation" => self.is_migration = matches!(value, "Outgoing migration" | "Incoming migration"),
            "Time elapsed" => {
                let took = seconds()?;
                one.migration_time_seconds = Some(took);
                self.has_time = true;
            }
            "Total downtime" => one.downtime_seconds = Some(seconds()?),
            "Setup time" => one.setup_seconds = Some(seconds()?),
            "Memory processed" => {
                one.sent_bytes =
                    Some(bytes(number, unit).ok_or_else(|| refused("a size in B, KiB, MiB, GiB or TiB"))? as u64);
            }
            "Normal pages" => one.data_pages = Some(count()?),
            "Constant pages" => one.zero_pages = Some(count()?),
            "Iteration" => one.iterations = Some(count()?),
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::known;
    use super::*;

    const TEXT: &str = "\
Job type:         Completed   
Operation:        Outgoing migration
Time elapsed:     4032         ms
Time elapsed w/o network: 4030         ms
Data processed:   180.312 MiB
Data remaining:   0.000 B
Memory processed: 180.312 MiB
Memory total:     576.016 MiB
Memory bandwidth: 46.102 MiB/s
Dirty rate:       2000         pages/s
Page size:        4096         bytes
Iteration:        4           
Postcopy requests: 0           
Constant pages:   95833       
Normal pages:     45829       
Normal data:      179.020 MiB
Total downtime:   354          ms
Downtime w/o network: 352          ms
Setup time:       3            ms

";

    #[test]
    fn a_job_gives_times_bytes_and_pages() {
        let ended: Timestamp = "2026-11-24T08:00:10.032Z".parse().unwrap();
        let all = read(&TEXT.repeat(2), &known(), ended).unwrap();
        assert_eq!(all.len(), 2);
        let one = &all[1];
        assert_eq!(one.requested.to_string(), "2026-11-24T08:00:06Z");
        assert_eq!(all[0].requested.to_string(), "2026-11-24T08:00:01.968Z", "laid end to end");
        assert_eq!((one.migration_time_seconds, one.downtime_seconds), (Some(4.032), Some(0.354)));
        assert_eq!((one.data_pages, one.zero_pages, one.iterations), (Some(45_829), Some(95_833), Some(4)));
        assert_eq!((one.sent_bytes, one.setup_seconds), (Some(189_070_835), Some(0.003)));
        assert!(one.completed);
    }

    #[test]
    fn other_jobs_are_passed_over_and_none_at_all_is_said() {
        let ended = Timestamp::UNIX_EPOCH;
        let save = TEXT.replace("Outgoing migration", "Save");
        assert!(matches!(read(&save, &known(), ended), Err(Unreadable::Nothing(_))));
        let error = read("Job type:         None\n", &known(), ended).unwrap_err();
        assert_eq!(error.to_string(), "line 1: Job type is `None`, allowed: Completed, Failed or Cancelled");
        let error = read(&TEXT.replace("4032         ms", "4.0 s"), &known(), ended).unwrap_err();
        assert_eq!(error.to_string(), "line 3: Time elapsed is `4.0 s`, allowed: a whole number of ms");
        assert!(!read(&TEXT.replace("Completed", "Failed"), &known(), ended).unwrap()[0].completed);
    }
}
