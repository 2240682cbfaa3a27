//! Logs of real migrations, in the forms in which people have them, as observed migrations.
//!
//! | form | tells | not |
//! | --- | --- | --- |
//! | [`query_migrate`] | QEMU's own times, bytes, pages | when, the guest's downtime |
//! | [`domjobinfo`] | time and downtime as libvirt saw them, bytes, pages | when |
//! | [`cloud_hypervisor`] | every iteration, time to a tenth of a second, downtime | when |
//! | [`proxmox`] | when, time in whole seconds, QEMU's downtime | pages |
//! | [`xl`] | when, suspension and resumption; rounds before Xen 4.6 | bytes |
//! | [`table`] | what its columns say | |

pub mod cloud_hypervisor;
pub mod domjobinfo;
pub mod proxmox;
pub mod query_migrate;
pub mod table;
pub mod xl;

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::{Known, Observed, ObservedError};
use crate::quote::quoted;

/// The kinds of logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Replies to QMP's `query-migrate`.
    QueryMigrate,
    /// Text of `virsh domjobinfo --completed`.
    Domjobinfo,
    /// Cloud Hypervisor's log of the sender.
    CloudHypervisor,
    /// Task logs of Proxmox VE.
    Proxmox,
    /// `xl -vvv migrate`, or the statistics of Xen before 4.6.
    Xl,
    /// CSV whose columns have the keys of `migcast.observed/1`.
    Csv,
}

impl Form {
    /// All of them.
    pub const ALL: [Form; 6] =
        [Form::QueryMigrate, Form::Domjobinfo, Form::CloudHypervisor, Form::Proxmox, Form::Xl, Form::Csv];

    /// Whose migrations it tells of, where that is not for the user to say.
    pub fn hypervisor(self) -> Option<&'static str> {
        match self {
            Form::QueryMigrate | Form::Domjobinfo | Form::Proxmox => Some("qemu"),
            Form::CloudHypervisor => Some("cloud-hypervisor"),
            Form::Xl => Some("xen"),
            Form::Csv => None,
        }
    }

    /// Whether it says when its migrations took place.
    pub fn tells_when(self) -> bool {
        matches!(self, Form::Proxmox | Form::Xl | Form::Csv)
    }
}

/// How the times in a log are to be understood.
#[derive(Clone, Debug)]
pub struct Clock {
    /// When the last of its migrations ended, for forms that do not say.
    pub ended: Timestamp,
    /// In which zone its times are, for forms that have them without one.
    pub zone: TimeZone,
}

/// Why a log gives no observed migrations.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// Something in the log.
    #[error("{}: {reason}", path.display())]
    Log {
        /// The log.
        path: PathBuf,
        /// What.
        reason: Unreadable,
    },
    /// What it says cannot be.
    #[error(transparent)]
    Observed(#[from] ObservedError),
}

/// What is in the way of reading a log.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// Nothing of a migration is in it; what is wanted.
    #[error("no migration in it; {0} is wanted")]
    Nothing(&'static str),
    /// How long one took is not known; counted from 1, and what to do.
    #[error("migration {0} has no times; {1}")]
    Timeless(usize, &'static str),
    /// One is not over at the log's end; counted from 1.
    #[error("migration {0} has no end in it")]
    Unended(usize),
    /// A figure that cannot be; the migration counted from 1.
    #[error("migration {number}: {field} is {value}, allowed: {allowed}")]
    OutOfRange {
        /// Counted from 1.
        number: usize,
        /// The field.
        field: &'static str,
        /// Its value.
        value: f64,
        /// What would be right.
        allowed: &'static str,
    },
    /// A value that is not allowed.
    #[error("line {line}: {field} is `{found}`, allowed: {allowed}")]
    Value {
        /// Counted from 1.
        line: usize,
        /// The field.
        field: String,
        /// What stands there.
        found: String,
        /// What would be right.
        allowed: &'static str,
    },
}

impl Unreadable {
    fn value(line: usize, field: &str, found: &str, allowed: &'static str) -> Unreadable {
        Unreadable::Value { line, field: quoted(field), found: quoted(found), allowed }
    }
}

/// Reads a log as observed migrations, in the log's order; `path` is only for what an error says.
///
/// # Errors
/// No migration is in it, one is not over, one has no times, or a value cannot be.
pub fn read(
    form: Form,
    hypervisor: &str,
    text: &str,
    known: &Known,
    clock: &Clock,
    path: &Path,
) -> Result<Vec<Observed>, LogError> {
    let all = match form {
        Form::QueryMigrate => query_migrate::read(text, known, clock.ended),
        Form::Domjobinfo => domjobinfo::read(text, known, clock.ended),
        Form::CloudHypervisor => cloud_hypervisor::read(text, known, clock.ended),
        Form::Proxmox => proxmox::read(text, known, &clock.zone),
        Form::Xl => xl::read(text, known),
        Form::Csv => return Ok(table::read(text, hypervisor, known, path)?),
    };
    let in_range =
        |all: Vec<Observed>| match all.iter().zip(1..).find_map(|(one, number)| Some((one.out_of_range()?, number))) {
            Some(((field, value, allowed), number)) => Err(Unreadable::OutOfRange { number, field, value, allowed }),
            None => Ok(all),
        };
    all.and_then(in_range).map_err(|reason| LogError::Log { path: path.to_owned(), reason })
}

/// Dates migrations of which only the order is known: the last one ended at `ended`, each other one when the next began.
fn end_to_end(all: &mut [Observed], ended: Timestamp) {
    let mut ended = ended;
    for one in all.iter_mut().rev() {
        one.requested = before(ended, one.seconds());
        ended = one.requested;
    }
}

/// The time this many seconds before another, as near as it can be told.
fn before(time: Timestamp, seconds: f64) -> Timestamp {
    time.checked_sub(std::time::Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or_default()).unwrap_or(time)
}

/// A size such as `188.234 MiB`, in bytes.
fn bytes(number: &str, unit: &str) -> Option<f64> {
    let factor = match unit {
        "B" => 1.0,
        "KiB" => 1024.0,
        "MiB" => 1024.0 * 1024.0,
        "GiB" => 1024.0 * 1024.0 * 1024.0,
        "TiB" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
        _ => return None,
    };
    let number: f64 = number.parse().ok().filter(|number| *number >= 0.0)?;
    Some(number * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn known() -> Known {
        Known {
            guest: "web".to_owned(),
            history: None,
            version: "10.0.2".to_owned(),
            accelerator: "kvm".to_owned(),
            link_bits_per_second: 10_000_000_000,
            settings: Vec::new(),
        }
    }

    #[test]
    fn what_cannot_be_read_says_why_in_one_line() {
        let clock = Clock { ended: Timestamp::UNIX_EPOCH, zone: TimeZone::UTC };
        for form in Form::ALL {
            for text in ["", "hello\u{1b}[1m\n", "{\"return\": {\"status\": \"active\"}}", "Job type:  a\tb\n"] {
                let error = read(form, "qemu", text, &known(), &clock, Path::new("log")).unwrap_err();
                crate::fuzzing::one_line(&error);
                assert!(error.to_string().contains("log"), "{form:?}: {error}");
            }
        }
    }

    #[test]
    fn a_figure_that_cannot_be_names_its_migration() {
        let clock = Clock { ended: Timestamp::UNIX_EPOCH, zone: TimeZone::UTC };
        let of = |millis: u64| format!("{{\"status\": \"completed\", \"total-time\": {millis}}}\n\n");
        let text = of(23) + &of(2_000_000_000_000);
        let error = read(Form::QueryMigrate, "qemu", &text, &known(), &clock, Path::new("log")).unwrap_err();
        let expected = "log: migration 2: migration_time_reported_seconds is 2000000000, allowed: 0 to 10^9";
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn sizes_are_read_in_their_units() {
        assert_eq!(bytes("1.5", "GiB"), Some(1_610_612_736.0));
        assert_eq!(bytes("-1", "GiB"), None);
        assert_eq!(bytes("1", "GB"), None);
    }
}
