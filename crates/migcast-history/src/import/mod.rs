//! Dirty rates that other tools measured, read from their files.
//!
//! ```text
//! CSV, QEMU, virsh, KubeVirt ──► Imported: what was measured when ──► SeriesBuilder ──► RateSeries
//! ```
//!
//! The formats are described in `docs/import.md`. A file is read line by line (KubeVirt's, which is one document, up to
//! [`DOCUMENT_BYTES_MAX`]); what is wrong in it is told with its line.
mod csv;
mod domstats;
mod lines;
mod prometheus;
mod qemu;
mod series;
mod unit;

use std::fmt;
use std::io::{self, BufRead};
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(crate) use csv::Splitter;
pub use lines::LINE_BYTES_MAX;
pub use prometheus::DOCUMENT_BYTES_MAX;
pub use series::{Built, SeriesBuilder};
pub use unit::{RateUnit, UnitError};

use crate::quote::JsonError;
use crate::rates::RATES_MAX;

/// Whose file it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Text with a header line, a column of times and one of rates.
    Csv,
    /// Replies of QEMU to `query-dirty-rate`, one JSON object a line.
    Qemu,
    /// Text of `virsh domstats --dirtyrate`, once or many times.
    Virsh,
    /// A range query of Prometheus for `kubevirt_vmi_dirty_rate_bytes_per_second`.
    Kubevirt,
}

/// What a file does not say, or says of several.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Size of the guest's pages in bytes, ≥ 1.
    pub page_size_bytes: u64,
    /// How long each rate was measured, where the file does not say: CSV and KubeVirt, where a second is assumed if this is
    /// missing, and a QEMU that was asked in whole seconds of a shorter measurement. More than 0, at most
    /// [`crate::rates::SPAN_MAX`].
    pub span: Option<Duration>,
    /// When the host booted, from which QEMU before 8.2 counts its times (QEMU, virsh).
    pub boot: Option<jiff::Timestamp>,
    /// Which of several guests (virsh, KubeVirt): its name, for KubeVirt also as `NAMESPACE/NAME`.
    pub guest: Option<String>,
    /// The column of times, where it has none of the usual names (CSV).
    pub time_column: Option<String>,
    /// The column of rates, where its name does not tell (CSV).
    pub rate_column: Option<String>,
    /// The unit of rates, where the column's name does not tell (CSV).
    pub unit: Option<RateUnit>,
}

/// What was found in a file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Imported {
    /// The guest's name, if the file says it.
    pub guest: Option<String>,
    /// Its memory in bytes, if the file says it.
    pub memory_bytes: Option<u64>,
    /// In the order of the file.
    pub measured: Vec<Measured>,
    /// Answers that were no measurement: not begun, still measuring.
    pub unfinished: usize,
}

/// One measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measured {
    /// Where in the file.
    pub place: Place,
    /// When it began, nanoseconds since the Unix epoch.
    pub start_unix_ns: i64,
    /// How long it took; more than 0, at most [`crate::rates::SPAN_MAX`].
    pub span: Duration,
    /// Distinct pages written meanwhile, rounded to whole pages.
    pub written: u64,
    /// The file says that the guest was migrating, or that nothing was measured.
    pub left_out: bool,
}

/// Where in a file something stands, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In a line.
    Line(u64),
    /// In a value of a result of a Prometheus query.
    Value {
        /// The result.
        result: usize,
        /// The value in it.
        value: usize,
    },
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Line(line) => write!(f, "line {line}"),
            Place::Value { result, value } => write!(f, "result {result}, value {value}"),
        }
    }
}

/// Why rates could not be imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The system refused.
    #[error("cannot read {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A line without an end.
    #[error("{}, line {line}: longer than {LINE_BYTES_MAX} bytes, allowed: lines of text", path.display())]
    LongLine {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: u64,
    },
    /// A document that is too large to be one.
    #[error("{}: more than {DOCUMENT_BYTES_MAX} bytes, allowed: the result of one range query", path.display())]
    LongDocument {
        /// The file.
        path: PathBuf,
    },
    /// More measurements than a series may have.
    #[error("{}: more than {RATES_MAX} measurements, allowed: up to so many; import a part, or one of every few", path.display())]
    TooMany {
        /// The file with the first that is too many.
        path: PathBuf,
    },
    /// A value is none, or out of its range.
    #[error("{}, {place}: {field} is {value}, allowed: {allowed}", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// Where in it.
        place: Place,
        /// What the file calls it.
        field: String,
        /// How it stands there.
        value: String,
        /// What would be right.
        allowed: String,
    },
    /// A line of JSON that is none, or not the expected one.
    #[error("{}, line {line}{}: {reason}", path.display(), column.map_or_else(String::new, |column| format!(", column {column}")))]
    JsonLine {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: u64,
        /// Counted from 1; unknown where a whole value is not the expected one.
        column: Option<usize>,
        /// What is wrong.
        reason: String,
    },
    /// A document that is no JSON, or not the expected one.
    #[error("{}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and what is wrong.
        source: JsonError,
    },
    /// The file lacks something as a whole.
    #[error("{}: {what}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What it has, and what is allowed or to be done.
        what: String,
    },
}

/// Reads what was measured from a file of `format`; `path` is only for what an error says.
///
/// # Errors
/// The first thing that is wrong. A file without any measurement is no error here: [`SeriesBuilder::finish`] looks at
/// all files together.
pub fn read(format: Format, input: &mut dyn BufRead, path: &Path, asked: &Asked) -> Result<Imported, ImportError> {
    let file = File { path, asked };
    match format {
        Format::Csv => csv::read(input, file),
        Format::Qemu => qemu::read(input, file),
        Format::Virsh => domstats::read(input, file),
        Format::Kubevirt => prometheus::read(input, file),
    }
}

/// A file that is being read.
#[derive(Clone, Copy, Debug)]
struct File<'a> {
    path: &'a Path,
    asked: &'a Asked,
}

/// Latest time a file may state, in seconds since the epoch: the year 2200. Times in milliseconds lie beyond.
const UNIX_SECONDS_MAX: f64 = 7_258_118_400.0;

/// A number of seconds from which on a start is since 1970 (it is in the year 2001): no host is up for 31 years.
const UPTIME_SECONDS_MAX: i64 = 1_000_000_000;

/// How long a rate was measured where nobody says.
const SPAN_DEFAULT: Duration = Duration::from_secs(1);

/// Most pages a measurement may count: what the format has for a guest.
const PAGES_MAX: f64 = (1u64 << 48) as f64;

impl File<'_> {
    fn value(&self, place: Place, field: &str, value: &str, allowed: impl Into<String>) -> ImportError {
        let (field, value) = (crate::quote::quoted(field), crate::quote::quoted(value));
        ImportError::Value { path: self.path.into(), place, field, value, allowed: allowed.into() }
    }

    /// How long a rate was measured, where the file never says.
    fn span(&self) -> Duration {
        self.asked.span.unwrap_or(SPAN_DEFAULT)
    }

    fn whole(&self, what: impl Into<String>) -> ImportError {
        ImportError::File { path: self.path.into(), what: what.into() }
    }

    /// One measurement more, unless there are too many.
    fn push(&self, measured: &mut Vec<Measured>, one: Measured) -> Result<(), ImportError> {
        if measured.len() >= RATES_MAX {
            return Err(ImportError::TooMany { path: self.path.into() });
        }
        measured.push(one);
        Ok(())
    }

    /// A point in time as text: RFC 3339, or seconds since the epoch.
    fn time(&self, place: Place, field: &str, text: &str) -> Result<i64, ImportError> {
        let allowed = "a time such as 2026-01-31T12:00:00Z, or seconds since 1970 up to the year 2200";
        let refused = || self.value(place, field, text, allowed);
        if let Ok(seconds) = text.parse::<f64>() {
            return unix_ns(seconds).ok_or_else(refused);
        }
        let timestamp: jiff::Timestamp = text.parse().map_err(|_| refused())?;
        let known = (0..=(UNIX_SECONDS_MAX as i64)).contains(&timestamp.as_second());
        i64::try_from(timestamp.as_nanosecond()).ok().filter(|_| known).ok_or_else(refused)
    }

    /// What a rate of `value` units wrote within `span`, in pages.
    fn written(
        &self,
        (place, field, text): (Place, &str, &str),
        unit: RateUnit,
        span: Duration,
    ) -> Result<u64, ImportError> {
        let allowed = "a number of 0 or more, and less than 2^48 pages in the span that was measured";
        let rate = text.parse::<f64>().ok().map(|rate| unit.pages(rate, self.asked.page_size_bytes));
        let pages = rate.map(|rate| rate * span.as_secs_f64()).filter(|pages| (0.0..PAGES_MAX).contains(pages));
        pages.map(|pages| pages.round() as u64).ok_or_else(|| self.value(place, field, text, allowed))
    }

    /// A start that QEMU states: since 8.2 in seconds since 1970, before that since the host booted.
    fn qemu_start(&self, place: Place, field: &str, seconds: i64) -> Result<i64, ImportError> {
        let since = match self.asked.boot {
            _ if seconds >= UPTIME_SECONDS_MAX => 0,
            Some(boot) => boot.as_nanosecond(),
            None => {
                return Err(self.whole(format!(
                    "{field} {seconds} counts from the boot of the guest's host, as QEMU before 8.2 does: say with --boot \
                     when that was, such as 2026-01-31T12:00:00Z (`uptime -s` tells it there, in local time)"
                )));
            }
        };
        let at = since + i128::from(seconds) * 1_000_000_000;
        let known = (0..=(UNIX_SECONDS_MAX as i128) * 1_000_000_000).contains(&at) && seconds >= 0;
        i64::try_from(at).ok().filter(|_| known).ok_or_else(|| {
            self.value(
                place,
                field,
                &seconds.to_string(),
                "seconds since 1970 or --boot, 0 or more, up to the year 2200",
            )
        })
    }

    /// The guest that is meant among those a file names, which are in order and each once.
    fn choose(&self, names: &[&str], kind: &str, option: &str) -> Result<String, ImportError> {
        let listed = || listed(names.iter().copied());
        match (&self.asked.guest, names) {
            (_, []) => Err(self.whole(format!("no {kind} in it, allowed: one or more"))),
            (Some(wanted), names) if names.contains(&wanted.as_str()) => Ok(wanted.clone()),
            (Some(wanted), _) => {
                Err(self.whole(format!("no {kind} named {}, there are: {}", crate::quote::quoted(wanted), listed())))
            }
            (None, [only]) => Ok((*only).to_owned()),
            (None, _) => Err(self.whole(format!("{} {kind}s, choose with {option}: {}", names.len(), listed()))),
        }
    }
}

/// Names an error lists at most, and characters of each: a file may have thousands, and long ones.
const NAMES_SHOWN: usize = 8;
const NAME_CHARS_MAX: usize = 40;

/// Names out of a file as part of a line.
fn listed<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> String {
    let rest = names.len().saturating_sub(NAMES_SHOWN);
    let cut = |name: &str| match name.char_indices().nth(NAME_CHARS_MAX) {
        Some((end, _)) => crate::quote::quoted(&name[..end]) + "…",
        None => crate::quote::quoted(name),
    };
    let shown: Vec<String> = names.take(NAMES_SHOWN).map(cut).collect();
    shown.join(", ") + &if rest > 0 { format!(" and {rest} more") } else { String::new() }
}

/// Seconds since the epoch, to the nanosecond as far as a float tells.
fn unix_ns(seconds: f64) -> Option<i64> {
    (0.0..=UNIX_SECONDS_MAX).contains(&seconds).then(|| (seconds * 1e9).round() as i64)
}

#[cfg(test)]
mod tests;
