//! What dom0 said of a trial, kept as it was said: a line each, and what is read from it.
//!
//! ```text
//!  guest NAME MIB XEN-VERSION
//!  migration BYTES/S TICK-BEFORE TICK-AFTER MICROS      the guest's own number; the longest it stood, by its own clock,
//!                                                       zero if it does not look often enough to tell
//!  xl SECONDS …                                         xl's log, stamped: `asked`, what libxl says, `ended STATUS`
//!  first NANOS                                          the stream's first byte, since 1970
//!  round BEGAN ENDED PAGES HOLES                        nanoseconds since then; frames that have no page
//!  end BYTES NANOS
//! ```

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use migcast_history::observed::log::xl;
use migcast_history::observed::{Known, Observed};

/// One migration, as it was. Times are seconds since it was asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Migration {
    /// The guest's name.
    pub guest: String,
    /// Its memory, in MiB.
    pub memory_mib: u32,
    /// Version of Xen.
    pub version: String,
    /// Rate of the pipe.
    pub bytes_per_second: u64,
    /// What xl's log says.
    pub xl: xl::Migration,
    /// Bytes in the pipe, all of xl's.
    pub bytes: u64,
    /// Rounds of libxc's stream, the final one included.
    pub rounds: Vec<Round>,
    /// Longest span in which the guest did nothing, by its own clock, in seconds, if it looks at it often.
    pub stood: Option<f64>,
    /// Whether the guest's own number went on afterwards.
    pub went_on: bool,
}

/// A round of libxc's stream.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Round {
    /// Pages that were sent.
    pub pages: u64,
    /// Frames that were named without a page: the hole of a PVH guest's frame numbers, in the first round.
    pub holes: u64,
    /// When its first page data passed, in seconds since the migration was asked for.
    pub began: f64,
}

/// Where a guest's raw log is within a results folder.
pub fn path(folder: &Path, guest: &str) -> PathBuf {
    folder.join(format!("{guest}.log"))
}

/// The migrations of a raw log.
///
/// # Errors
/// It cannot be read, or is no such log.
pub fn read(path: &Path) -> Result<Vec<Migration>> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    parse(&text).with_context(|| path.display().to_string())
}

fn parse(text: &str) -> Result<Vec<Migration>> {
    let mut guest = (String::new(), 0, String::new());
    let mut all: Vec<Migration> = Vec::new();
    let mut logs: Vec<String> = Vec::new();
    let mut first = 0.0;
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let number = |at: usize| -> Result<f64> {
            words.get(at).and_then(|word| word.parse().ok()).with_context(|| format!("no number in '{line}'"))
        };
        let of_none = || format!("before any migration: '{line}'");
        match words[0] {
            "guest" => {
                ensure!(words.len() == 4, "not a guest: '{line}'");
                guest = (words[1].to_owned(), number(2)? as u32, words[3].to_owned());
            }
            "migration" => {
                let (name, memory_mib, version) = guest.clone();
                all.push(Migration {
                    guest: name,
                    memory_mib,
                    version,
                    bytes_per_second: number(1)? as u64,
                    xl: xl::Migration::default(),
                    bytes: 0,
                    rounds: Vec::new(),
                    stood: Some(number(4)? / 1e6).filter(|seconds| *seconds > 0.0),
                    went_on: number(3)? > number(2)?,
                });
                logs.push(String::new());
            }
            "xl" => {
                let log = logs.last_mut().with_context(of_none)?;
                log.push_str(&line["xl ".len()..]);
                log.push('\n');
            }
            "first" => first = number(1)? / 1e9,
            "round" => {
                let (began, pages, holes) = (first + number(1)? / 1e9, number(3)? as u64, number(4)? as u64);
                all.last_mut().with_context(of_none)?.rounds.push(Round { pages, holes, began });
            }
            "end" => all.last_mut().with_context(of_none)?.bytes = number(1)? as u64,
            _ => {}
        }
    }
    for (migration, log) in all.iter_mut().zip(&logs) {
        // One that was ended from outside leaves a log without an end; what there is of it counts.
        migration.xl = xl::parse(log).pop().unwrap_or_default();
        let asked = migration.xl.requested.unwrap_or_default();
        migration.rounds.iter_mut().for_each(|round| round.began -= asked);
    }
    Ok(all)
}

impl Migration {
    /// From the call of `xl migrate` until the target had started the guest, in seconds.
    pub fn seconds(&self) -> Option<f64> {
        Some(self.xl.resumed? - self.xl.requested?)
    }

    /// From the guest's suspension until the target had started it, in seconds.
    pub fn downtime(&self) -> Option<f64> {
        Some(self.xl.resumed? - self.xl.stopped?)
    }

    /// As `migcast calibrate` reads it. `None` if it did not complete.
    pub fn observed(&self) -> Option<Observed> {
        let known = Known {
            guest: self.guest.clone(),
            history: Some(PathBuf::from(&self.guest)),
            version: self.version.clone(),
            accelerator: "tcg".to_owned(),
            link_bits_per_second: self.bytes_per_second * 8,
            settings: Vec::new(),
        };
        let observed = self.xl.observed(&known)?;
        let pages = |round: &Round| round.pages * 4096;
        let live = self.rounds.get(1..self.rounds.len().saturating_sub(1)).unwrap_or_default();
        Some(Observed {
            active_seconds: self.rounds.first().map(|round| round.began),
            sent_bytes: Some(self.bytes),
            data_pages: Some(self.rounds.iter().map(|round| round.pages).sum()),
            zero_pages: Some(0),
            iterations: Some(self.rounds.len() as u64),
            iteration_starts_seconds: self.rounds.iter().skip(1).map(|round| round.began).collect(),
            pending_bytes: live.iter().map(pages).collect(),
            ..observed
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "\
dom0 ready
guest quiet 128 4.17.7
recorder: migcast: recorded
migration 10000000 12 33 871000
xl 1795473495.0 asked
xl 1795473509.5 libxl: debug: x: Domain 1:issuing PVH/HVM suspend request via XenBus control node
xl 1795473509.6 libxl: debug: x: Domain 1:guest has suspended
xl 1795473510.0 migration target: Domain started successsfully.
xl 1795473510.1 Migration successful.
xl 1795473510.2 ended 0
first 1795473495250000000
round 0 14000000000 32784 1011696
round 14000000000 15000000000 400 0
end 150000000 15100000000
";

    #[test]
    fn a_migration_is_read_from_what_dom0_said() {
        let [migration] = parse(LOG).unwrap().try_into().unwrap();
        let Migration { rounds, bytes, stood, went_on, .. } = &migration;
        assert_eq!((rounds.len(), rounds[1].pages, *bytes, *stood, *went_on), (2, 400, 150_000_000, Some(0.871), true));
        assert!((rounds[0].began - 0.25).abs() < 1e-3, "{rounds:?}");
        assert!((migration.seconds().unwrap() - 15.0).abs() < 1e-3);
        assert!((migration.downtime().unwrap() - 0.4).abs() < 1e-3);
        let observed = migration.observed().unwrap();
        assert_eq!((observed.iterations, observed.data_pages), (Some(2), Some(33_184)));
        assert_eq!((observed.hypervisor_version.as_str(), observed.pending_bytes.len()), ("4.17.7", 0));
    }

    #[test]
    fn what_is_not_such_a_log_is_named() {
        let said = |text: &str| parse(text).unwrap_err().to_string();
        assert_eq!(said("migration fast"), "no number in 'migration fast'");
        assert_eq!(said("round 1 2 3 4"), "before any migration: 'round 1 2 3 4'");
    }

    #[test]
    fn a_migration_that_was_cut_off_is_no_observed_one() {
        let cut: String =
            LOG.lines().filter(|line| !line.contains("igration ")).map(|line| format!("{line}\n")).collect();
        let all = parse(&cut.replace("guest quiet", "guest quiet 128 4\nmigration 1 2 3 4\n#")).unwrap();
        assert!(all[0].observed().is_none() && all[0].seconds().is_none());
    }
}
