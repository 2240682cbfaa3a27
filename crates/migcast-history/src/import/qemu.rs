//! QEMU's replies to `query-dirty-rate`, one JSON object a line, bare or in `return` as they stand in a log of QMP.
//!
//! Facts: `qapi/migration.json` (`DirtyRateInfo`) and `migration/dirtyrate.c` of QEMU 5.2 to 10.1, and what 10.0.2 answers.
//! `start-time` is in seconds, whatever `calc-time-unit` (since 8.2) says of `calc-time`: of the host's monotonic clock
//! before 8.2, since 1970 from there on. `calc-time` is rounded down, in seconds unless milliseconds are asked for.
//! `dirty-rate` is in MiB/s, rounded down; it is missing, in 5.2 −1, while there is none.
use std::io::BufRead;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::lines::Lines;
use super::{File, ImportError, Imported, Measured, Place, RateUnit};
use crate::quote::JsonError;
use crate::rates::SPAN_MAX;

/// A reply, as far as it matters: how it was measured (`mode`, `sample-pages`, `vcpu-dirty-rate`) does not.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct DirtyRateInfo {
    status: Status,
    start_time: i64,
    calc_time: i64,
    #[serde(default)]
    calc_time_unit: TimeUnit,
    dirty_rate: Option<i64>,
}

#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Status {
    Unstarted,
    Measuring,
    Measured,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum TimeUnit {
    #[default]
    Second,
    Millisecond,
}

pub(super) fn read(input: &mut dyn BufRead, file: File<'_>) -> Result<Imported, ImportError> {
    let mut lines = Lines::new(input, file);
    let mut imported = Imported::default();
    while let Some((line, text)) = lines.next_line()? {
        let wrong = |source: serde_json::Error| {
            let column = (source.column() > 0).then(|| source.column());
            let reason = JsonError::from(source).reason();
            ImportError::JsonLine { path: file.path.into(), line, column, reason }
        };
        let message: Value = serde_json::from_str(text).map_err(wrong)?;
        if is_something_else(&message) {
            continue;
        }
        let reply = message.get("return").cloned().unwrap_or(message);
        let info: DirtyRateInfo = serde_json::from_value(reply).map_err(wrong)?;
        match measured(Place::Line(line), &info, file)? {
            Some(measured) => file.push(&mut imported.measured, measured)?,
            None => imported.unfinished += 1,
        }
    }
    Ok(imported)
}

/// What else stands in a log of QMP: the greeting, events, errors, and replies that say no more than "done".
fn is_something_else(message: &Value) -> bool {
    let is_empty = |reply: &Value| reply.as_object().is_some_and(serde_json::Map::is_empty);
    ["QMP", "event", "error", "execute"].iter().any(|key| message.get(key).is_some())
        || message.get("return").is_some_and(is_empty)
}

fn measured(place: Place, info: &DirtyRateInfo, file: File<'_>) -> Result<Option<Measured>, ImportError> {
    let rate = match info.dirty_rate {
        Some(rate) if info.status == Status::Measured && rate != -1 => rate,
        _ => return Ok(None),
    };
    let unit = match info.calc_time_unit {
        TimeUnit::Second => Duration::from_secs(1),
        TimeUnit::Millisecond => Duration::from_millis(1),
    };
    let span = match (info.calc_time, file.asked.span) {
        // Shorter than the second it was asked in.
        (0, Some(span)) => span,
        (0, None) => {
            let allowed =
                "more than 0; where it was rounded down from less than a second, say with --span how long it was";
            return Err(file.value(place, "calc-time", "0", allowed));
        }
        (time, _) => span(place, "calc-time", time, unit, file)?,
    };
    let start_unix_ns = file.qemu_start(place, "start-time", info.start_time)?;
    let written = file.written((place, "dirty-rate", &rate.to_string()), RateUnit::Bytes(1 << 20), span)?;
    Ok(Some(Measured { place, start_unix_ns, span, written, left_out: false }))
}

/// A span that was measured, given in units of time.
pub(super) fn span(
    place: Place,
    field: &str,
    count: i64,
    unit: Duration,
    file: File<'_>,
) -> Result<Duration, ImportError> {
    let span = u32::try_from(count).ok().and_then(|count| unit.checked_mul(count));
    let known = span.filter(|span| !span.is_zero() && *span <= SPAN_MAX);
    known.ok_or_else(|| file.value(place, field, &count.to_string(), "more than 0, at most a day"))
}
