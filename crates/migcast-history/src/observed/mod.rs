//! Observed migrations (`migcast.observed/1`): what really happened, one JSON object a line.
//!
//! Written by the laboratory, by `migcast observe` ([`log`]) and by whoever watches real migrations; read by
//! `migcast calibrate`, and kept with the forecasts that were made before them in a [`store`].

pub mod forecast;
pub mod log;
pub mod store;

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::quote::{JsonError, quoted};

/// The format's name.
pub const FORMAT: &str = "migcast.observed/1";

/// One migration that really took place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Observed {
    /// [`FORMAT`].
    pub format: String,
    /// When it was requested, UTC.
    pub requested: Timestamp,
    /// The guest.
    pub guest: String,
    /// The history it was forecast from, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history: Option<PathBuf>,
    /// "qemu", "xen", …
    pub hypervisor: String,
    /// Its version.
    pub hypervisor_version: String,
    /// "tcg", "kvm", …
    pub accelerator: String,
    /// Line rate of the link, bits per second.
    pub link_bits_per_second: u64,
    /// Settings that differ from the hypervisor's defaults, as `migcast predict --set` takes them.
    pub settings: Vec<String>,
    /// True if the guest ended up on the target; false if the migration was given up while still copying.
    pub completed: bool,
    /// From the request until the guest ran on the target, or until it was given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub migration_time_seconds: Option<f64>,
    /// The hypervisor's own figure (QEMU: total-time); one of the two is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub migration_time_reported_seconds: Option<f64>,
    /// The guest's downtime: last instruction on the source to first on the target (QEMU: STOP to RESUME).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub downtime_seconds: Option<f64>,
    /// The hypervisor's own figure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub downtime_reported_seconds: Option<f64>,
    /// When memory began to be copied, seconds since the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active_seconds: Option<f64>,
    /// When the guest ran its last instruction on the source, seconds since the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped_seconds: Option<f64>,
    /// When the source was done, seconds since the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_done_seconds: Option<f64>,
    /// The hypervisor's own set-up time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub setup_seconds: Option<f64>,
    /// Bytes sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent_bytes: Option<u64>,
    /// Pages sent with data, repeats included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_pages: Option<u64>,
    /// Pages sent as zeros.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zero_pages: Option<u64>,
    /// Iterations as the hypervisor counts them (QEMU: dirty-sync-count).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iterations: Option<u64>,
    /// Bytes in the source's TCP send queue when the guest stopped, if it was looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub send_queue_at_stop_bytes: Option<u64>,
    /// When each iteration after the first began, seconds since the request.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub iteration_starts_seconds: Vec<f64>,
    /// Bytes due after each reading of the dirty log while the guest ran, the first (everything) left out: pages times
    /// their size.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pending_bytes: Vec<u64>,
    /// How far the vCPUs were slowed, step by step from the request on, where that was watched.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub throttle: Vec<ThrottleStep>,
    /// How long it was given before it was given up, from the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub give_up_seconds: Option<f64>,
    /// Most the sender's TCP buffer may hold (Linux: `net.ipv4.tcp_wmem`, third value).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp_send_buffer_max_bytes: Option<u64>,
    /// One-minute load average of the machine at the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_average: Option<f64>,
    /// Cores' worth of CPU time that others than the two ends of the migration used meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub other_cpu_cores: Option<f64>,
}

/// What the log of a migration does not tell of it.
#[derive(Clone, Debug)]
pub struct Known {
    /// The guest.
    pub guest: String,
    /// The history it had left before.
    pub history: Option<PathBuf>,
    /// Version of the hypervisor.
    pub version: String,
    /// "kvm", "xen", …
    pub accelerator: String,
    /// Line rate of the link, in bits per second.
    pub link_bits_per_second: u64,
    /// Settings that differ from the defaults.
    pub settings: Vec<String>,
}

/// A time in which the hypervisor slowed the vCPUs alike (QEMU: `cpu-throttle-percentage`).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ThrottleStep {
    /// When it began, seconds since the request.
    pub start_seconds: f64,
    /// Percent of their time the vCPUs were to sleep.
    pub percent: u64,
    /// Share of the time a vCPU really ran: CPU time of its thread by time passed, 0 to 1.
    pub vcpu_busy: f64,
}

/// Why observed migrations could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ObservedError {
    /// The file cannot be read.
    #[error("observed migrations {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line is no observed migration.
    #[error("observed migrations {}, line {line}: {source}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// Why.
        source: JsonError,
    },
    /// A line of another format or version.
    #[error("observed migrations {}, line {line}: format is `{found}`, this program reads `{FORMAT}`", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What it says.
        found: String,
    },
    /// A line that does not say how long it took.
    #[error("observed migrations {}, line {line}: migration_time_seconds or migration_time_reported_seconds is missing", path.display())]
    Timeless {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
    },
    /// A value of a line is out of its range.
    #[error("observed migrations {}, line {line}: {field} is {value}, allowed: {allowed}", path.display())]
    Field {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// The field's name.
        field: &'static str,
        /// Its value.
        value: f64,
        /// What would be right.
        allowed: &'static str,
    },
}

/// Longest span of time, in seconds: thirty years are no migration.
const SECONDS_MAX: f64 = 1e9;

/// Most bytes a migration may send, and most pages: what one guest can have, a thousand times and more.
const BYTES_MAX: f64 = (1u64 << 60) as f64;
const PAGES_MAX: f64 = (1u64 << 48) as f64;

/// Slowest and fastest link, in bits per second: a byte, and what no machine has.
const LINK: std::ops::RangeInclusive<f64> = 8.0..=1e15;

impl Observed {
    /// One of which nothing has been seen yet.
    pub fn unseen(hypervisor: &str, known: &Known, requested: Timestamp) -> Observed {
        Observed {
            format: FORMAT.to_owned(),
            requested,
            guest: known.guest.clone(),
            history: known.history.clone(),
            hypervisor: hypervisor.to_owned(),
            hypervisor_version: known.version.clone(),
            accelerator: known.accelerator.clone(),
            link_bits_per_second: known.link_bits_per_second,
            settings: known.settings.clone(),
            completed: false,
            migration_time_seconds: None,
            migration_time_reported_seconds: None,
            downtime_seconds: None,
            downtime_reported_seconds: None,
            active_seconds: None,
            stopped_seconds: None,
            source_done_seconds: None,
            setup_seconds: None,
            sent_bytes: None,
            data_pages: None,
            zero_pages: None,
            iterations: None,
            send_queue_at_stop_bytes: None,
            iteration_starts_seconds: Vec::new(),
            pending_bytes: Vec::new(),
            throttle: Vec::new(),
            give_up_seconds: None,
            tcp_send_buffer_max_bytes: None,
            load_average: None,
            other_cpu_cores: None,
        }
    }

    /// How long it took: until the guest ran on the target, or else by the hypervisor's own figure.
    pub fn seconds(&self) -> f64 {
        self.migration_time_seconds.or(self.migration_time_reported_seconds).unwrap_or_default()
    }

    /// The first value that is out of its range: its field, itself and what is allowed.
    fn out_of_range(&self) -> Option<(&'static str, f64, &'static str)> {
        let spans = [
            ("migration_time_seconds", self.migration_time_seconds),
            ("migration_time_reported_seconds", self.migration_time_reported_seconds),
            ("downtime_seconds", self.downtime_seconds),
            ("downtime_reported_seconds", self.downtime_reported_seconds),
            ("active_seconds", self.active_seconds),
            ("stopped_seconds", self.stopped_seconds),
            ("source_done_seconds", self.source_done_seconds),
            ("setup_seconds", self.setup_seconds),
            ("give_up_seconds", self.give_up_seconds),
        ];
        let starts = self.iteration_starts_seconds.iter().map(|start| ("iteration_starts_seconds", Some(*start)));
        let steps = self.throttle.iter().map(|step| ("start_seconds", Some(step.start_seconds)));
        let seconds = spans
            .into_iter()
            .chain(starts)
            .chain(steps)
            .map(|(field, value)| (field, value, 0.0..=SECONDS_MAX, "0 to 10^9"));
        let amounts = [
            ("link_bits_per_second", Some(self.link_bits_per_second), LINK, "8 to 10^15"),
            ("sent_bytes", self.sent_bytes, 0.0..=BYTES_MAX, "up to 2^60"),
            ("data_pages", self.data_pages, 0.0..=PAGES_MAX, "up to 2^48"),
            ("zero_pages", self.zero_pages, 0.0..=PAGES_MAX, "up to 2^48"),
            ("send_queue_at_stop_bytes", self.send_queue_at_stop_bytes, 0.0..=BYTES_MAX, "up to 2^60"),
            ("tcp_send_buffer_max_bytes", self.tcp_send_buffer_max_bytes, 0.0..=BYTES_MAX, "up to 2^60"),
        ];
        let pending =
            self.pending_bytes.iter().map(|bytes| ("pending_bytes", Some(*bytes), 0.0..=BYTES_MAX, "up to 2^60"));
        let shares = self.throttle.iter().flat_map(|step| {
            // A clock that ticks may show a little more than all of the time.
            let busy = ("vcpu_busy", Some(step.vcpu_busy), 0.0..=1.5, "0 to 1.5");
            [("percent", Some(step.percent as f64), 0.0..=100.0, "0 to 100"), busy]
        });
        let amounts = amounts
            .into_iter()
            .chain(pending)
            .map(|(field, value, range, allowed)| (field, value.map(|value| value as f64), range, allowed))
            .chain(shares);
        let mut wrong = seconds.chain(amounts).filter_map(|(field, value, range, allowed)| {
            value.filter(|value| !range.contains(value)).map(|value| (field, value, allowed))
        });
        wrong.next()
    }
}

/// Reads all observed migrations of a file; empty lines are passed over.
pub fn read(path: &Path) -> Result<Vec<Observed>, ObservedError> {
    let text = fs::read(path).map_err(|source| ObservedError::Unreadable { path: path.to_owned(), source })?;
    parse(&text, path)
}

/// Reads observed migrations from a file's text; `path` is only for what an error says.
pub fn parse(text: &[u8], path: &Path) -> Result<Vec<Observed>, ObservedError> {
    let lines = (1..).zip(text.split(|byte| *byte == b'\n')).filter(|(_, text)| !text.trim_ascii().is_empty());
    let read = |(line, text)| checked(serde_json::from_slice(text), line, path);
    lines.map(read).collect()
}

/// What a line says, if it is an observed migration with all values in their ranges.
fn checked(read: Result<Observed, serde_json::Error>, line: usize, path: &Path) -> Result<Observed, ObservedError> {
    let at = || path.to_owned();
    let observed = read.map_err(|source| ObservedError::Malformed { path: at(), line, source: source.into() })?;
    if observed.format != FORMAT {
        return Err(ObservedError::Foreign { path: at(), line, found: quoted(&observed.format) });
    }
    if observed.migration_time_seconds.is_none() && observed.migration_time_reported_seconds.is_none() {
        return Err(ObservedError::Timeless { path: at(), line });
    }
    match observed.out_of_range() {
        Some((field, value, allowed)) => Err(ObservedError::Field { path: at(), line, field, value, allowed }),
        None => Ok(observed),
    }
}

/// Appends one observed migration to a file, as one write, so that a killed writer leaves whole lines.
///
/// # Errors
/// The file cannot be written.
pub fn append(path: &Path, observed: &Observed) -> io::Result<()> {
    let mut line = serde_json::to_vec(observed)?;
    line.push(b'\n');
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    file.write_all(&line)?;
    file.sync_data()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn observed(change: impl FnOnce(&mut serde_json::Value)) -> Result<Vec<Observed>, ObservedError> {
        let mut value = serde_json::json!({
            "format": FORMAT, "requested": "2026-01-01T00:00:00Z", "guest": "g", "hypervisor": "qemu",
            "hypervisor_version": "10.0.2", "accelerator": "tcg", "link_bits_per_second": 400_000_000, "settings": [],
            "completed": true, "migration_time_seconds": 4.06, "sent_bytes": 1, "data_pages": 1, "zero_pages": 1,
            "iterations": 6,
        });
        change(&mut value);
        parse(value.to_string().as_bytes(), Path::new("o"))
    }

    #[test]
    fn each_value_out_of_range_is_named_in_one_line() {
        let step = |percent: u64, busy: f64| serde_json::json!([{ "start_seconds": 1.0, "percent": percent, "vcpu_busy": busy }]);
        let cases: [(&str, serde_json::Value, &str); 8] = [
            ("throttle", step(101, 0.5), "percent is 101, allowed: 0 to 100"),
            ("throttle", step(20, -0.5), "vcpu_busy is -0.5, allowed: 0 to 1.5"),
            ("migration_time_seconds", (-1.0).into(), "migration_time_seconds is -1, allowed: 0 to 10^9"),
            ("downtime_seconds", 2e9.into(), "downtime_seconds is 2000000000, allowed: 0 to 10^9"),
            ("iteration_starts_seconds", vec![1.0, -2.0].into(), "iteration_starts_seconds is -2, allowed"),
            ("link_bits_per_second", 0.into(), "link_bits_per_second is 0, allowed: 8 to 10^15"),
            ("zero_pages", u64::MAX.into(), "zero_pages is 18446744073709552000, allowed: up to 2^48"),
            ("format", "a\nb".into(), "format is `a\\nb`, this program reads"),
        ];
        for (field, value, expected) in cases {
            let line = observed(|observed| observed[field] = value).unwrap_err().to_string();
            assert!(line.contains(expected) && line.starts_with("observed migrations o, line 1: "), "{line}");
        }
    }

    #[test]
    fn one_of_the_two_migration_times_is_needed() {
        let error = observed(|observed| _ = observed.as_object_mut().unwrap().remove("migration_time_seconds"));
        assert!(error.unwrap_err().to_string().ends_with("migration_time_reported_seconds is missing"));
        let only_reported = |observed: &mut serde_json::Value| {
            observed.as_object_mut().unwrap().remove("migration_time_seconds");
            observed["migration_time_reported_seconds"] = 4.0.into();
        };
        assert_eq!(observed(only_reported).unwrap()[0].seconds(), 4.0);
    }

    proptest! {
        #[test]
        fn numbers_are_read_as_they_were_written(seconds in 0.0..1e6f64) {
            let read = observed(|observed| observed["migration_time_seconds"] = seconds.into()).unwrap();
            prop_assert_eq!(read[0].migration_time_seconds, Some(seconds));
        }
    }
}
