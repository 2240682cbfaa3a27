//! Measurements laid after each other in time: what becomes a rate series.
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use super::{ImportError, Measured};
use crate::quote::quoted;
use crate::rates::{RATES_MAX, Rate};

/// Makes a rate series of measurements, file by file.
///
/// A rate is in force from the start of its measurement to the start of the next one, but no longer than it is held (or
/// was measured); the last one for as long as it was measured. What overlaps a migration is left out.
#[derive(Debug)]
pub struct SeriesBuilder {
    /// Pages of the guest.
    pages: u64,
    hold: Duration,
    /// When the guest was migrating, nanoseconds since the Unix epoch.
    migrating: Vec<Range<i64>>,
    measured: Vec<Measured>,
    /// The last measurement seen, be it left out.
    last: Option<Measured>,
    left_out: usize,
    repeated: usize,
}

/// A finished series, and what is not in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Built {
    /// At least one.
    pub rates: Vec<Rate>,
    /// Measurements left out because the guest was migrating, or the file says so.
    pub left_out: usize,
    /// Measurements that were there twice: a tool asked again before there was a new one.
    pub repeated: usize,
}

impl SeriesBuilder {
    /// For a guest of so many pages. `hold` is how long a rate is believed without a new one; what was measured within
    /// one of `migrating` (nanoseconds since the Unix epoch) is left out.
    pub fn new(pages: u64, hold: Duration, migrating: Vec<Range<i64>>) -> SeriesBuilder {
        let measured = Vec::new();
        SeriesBuilder { pages, hold, migrating, measured, last: None, left_out: 0, repeated: 0 }
    }

    /// Adds a file's measurements, which come after those of the files before.
    ///
    /// # Errors
    /// A time that goes back; more pages than the guest has; too many measurements.
    pub fn add(&mut self, path: &Path, measured: &[Measured]) -> Result<(), ImportError> {
        for one in measured {
            let alike = |last: &Measured| Measured { place: one.place, ..*last } == *one;
            if self.last.as_ref().is_some_and(alike) {
                self.repeated += 1;
                continue;
            }
            self.check(path, one)?;
            self.last = Some(*one);
            let span = span_of(one);
            if one.left_out || self.migrating.iter().any(|range| overlap(range, &span)) {
                self.left_out += 1;
                // Nothing measured before is believed beyond it.
                self.measured.push(Measured { left_out: true, ..*one });
            } else {
                self.measured.push(*one);
            }
        }
        Ok(())
    }

    fn check(&self, path: &Path, one: &Measured) -> Result<(), ImportError> {
        let value = |field: &str, value: String, allowed: String| {
            let (field, path, place) = (field.to_owned(), path.to_owned(), one.place);
            Err(ImportError::Value { path, place, field, value, allowed })
        };
        if let Some(last) = self.last.filter(|last| last.start_unix_ns >= one.start_unix_ns) {
            let time = |unix_ns| crate::reader::timestamp(unix_ns).to_string();
            let allowed = format!("later than {}, the one before", time(last.start_unix_ns));
            return value("the start", time(one.start_unix_ns), allowed);
        }
        if one.written > self.pages {
            let (pages, span) = (self.pages, one.span.as_secs_f64());
            return value(
                "pages written",
                format!("{} within {span} s", one.written),
                format!("up to the guest's {pages}"),
            );
        }
        if self.measured.len() >= RATES_MAX {
            return Err(ImportError::TooMany { path: path.to_owned() });
        }
        Ok(())
    }

    /// The series of all files.
    ///
    /// # Errors
    /// No measurement, or none that is not left out; `path` is the file that an error names.
    pub fn finish(self, path: &Path) -> Result<Built, ImportError> {
        let mut rates = Vec::with_capacity(self.measured.len() - self.left_out);
        for (index, one) in self.measured.iter().enumerate().filter(|(_, one)| !one.left_out) {
            let span = span_of(one);
            let held = match self.measured.get(index + 1) {
                Some(next) => {
                    one.start_unix_ns.saturating_add(nanoseconds(self.hold)).max(span.end).min(next.start_unix_ns)
                }
                None => span.end,
            };
            let stops = self.migrating.iter().map(|range| range.start).filter(|start| *start > one.start_unix_ns);
            let end_unix_ns = stops.fold(held, i64::min);
            rates.push(Rate { start_unix_ns: one.start_unix_ns, end_unix_ns, written: one.written, span: one.span });
        }
        if rates.is_empty() {
            let what = match self.left_out {
                0 => "no finished measurement in it, allowed: one or more".to_owned(),
                left_out => format!("all {left_out} measurements are left out, as the guest was migrating"),
            };
            return Err(ImportError::File { path: path.to_owned(), what: quoted(&what) });
        }
        Ok(Built { rates, left_out: self.left_out, repeated: self.repeated })
    }
}

fn span_of(one: &Measured) -> Range<i64> {
    one.start_unix_ns..one.start_unix_ns.saturating_add(nanoseconds(one.span))
}

fn overlap(a: &Range<i64>, b: &Range<i64>) -> bool {
    a.start < b.end && b.start < a.end
}

fn nanoseconds(span: Duration) -> i64 {
    i64::try_from(span.as_nanos()).unwrap_or(i64::MAX)
}
