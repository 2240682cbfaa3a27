//! A forecast start by start: as a table for plots, and by time of day.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use jiff::tz::TimeZone;
use migcast_model::quantity::show_duration;
use serde::Serialize;

use super::Prediction;

/// By what starts are grouped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum By {
    /// Hour of the day
    Hour,
    /// Day of the week
    Weekday,
    /// Hour of the week
    HourOfWeek,
}

/// The starts of one group.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Group {
    /// E.g. "14:00", "Mon", "Mon 14:00".
    pub(crate) when: String,
    /// How many starts there are, on how many days.
    pub(crate) starts: usize,
    pub(crate) days: usize,
    pub(crate) converged: usize,
    /// At 5, 50 and 95 %; `null` where that does not converge.
    pub(crate) migration_time_seconds: [Option<f64>; 3],
    pub(crate) downtime_seconds: [Option<f64>; 3],
}

/// A start's day, migration time and downtime, in seconds, infinite where it does not converge.
type Seen = (jiff::civil::Date, f64, f64);

/// Every start that was simulated, grouped by their time of day or week in a time zone, in the order of the clock.
pub(crate) fn grouped(prediction: &Prediction, by: By, zone: &TimeZone) -> Vec<Group> {
    let mut groups: BTreeMap<(i8, i8), Vec<Seen>> = BTreeMap::new();
    for (at, outcome, _) in prediction.on_the_wall() {
        let local = at.to_zoned(zone.clone());
        let weekday = local.weekday().to_monday_zero_offset();
        let key = match by {
            By::Hour => (0, local.hour()),
            By::Weekday => (weekday, 0),
            By::HourOfWeek => (weekday, local.hour()),
        };
        let done = outcome.completed();
        let time = done.map_or(f64::INFINITY, |done| done.migration_time.as_secs_f64());
        let down = done.map_or(f64::INFINITY, |done| done.downtime.total().as_secs_f64());
        groups.entry(key).or_default().push((local.date(), time, down));
    }
    let group = |((weekday, hour), starts): ((i8, i8), Vec<Seen>)| {
        let name = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"][weekday as usize];
        let when = match by {
            By::Hour => format!("{hour:02}:00"),
            By::Weekday => name.to_owned(),
            By::HourOfWeek => format!("{name} {hour:02}:00"),
        };
        let mut days: Vec<_> = starts.iter().map(|start| start.0).collect();
        days.sort_unstable();
        days.dedup();
        let converged = starts.iter().filter(|start| start.1.is_finite()).count();
        Group {
            when,
            starts: starts.len(),
            days: days.len(),
            converged,
            migration_time_seconds: quantiles(starts.iter().map(|start| start.1).collect()),
            downtime_seconds: quantiles(starts.iter().map(|start| start.2).collect()),
        }
    };
    groups.into_iter().map(group).collect()
}

/// At 5, 50 and 95 %, nearest ranks.
fn quantiles(mut values: Vec<f64>) -> [Option<f64>; 3] {
    values.sort_by(f64::total_cmp);
    [0.05, 0.5, 0.95].map(|q| {
        let rank = ((q * values.len() as f64).ceil() as usize).clamp(1, values.len());
        Some(values[rank - 1]).filter(|value| value.is_finite())
    })
}

/// Writes the groups for a person.
pub(crate) fn write_groups(out: &mut impl Write, groups: &[Group]) -> io::Result<()> {
    let cell =
        |value: Option<f64>| value.map_or_else(|| "never".to_owned(), |s| show_duration(Duration::from_secs_f64(s)));
    writeln!(
        out,
        "\n{:12}{:>8}{:>6}{:>14}{:>12}{:>12}{:>14}{:>12}{:>12}",
        "start at", "starts", "days", "time, median", "5 %", "95 %", "down, median", "5 %", "95 %"
    )?;
    for Group { when, starts, days, migration_time_seconds: time, downtime_seconds: down, .. } in groups {
        let ([t5, t50, t95], [d5, d50, d95]) = (time.map(cell), down.map(cell));
        writeln!(out, "{when:12}{starts:>8}{days:>6}{t50:>14}{t5:>12}{t95:>12}{d50:>14}{d5:>12}{d95:>12}")?;
    }
    if groups.iter().any(|group| group.days < 2) {
        writeln!(out, "some of these times were seen on one day only: another day may differ")?;
    }
    Ok(())
}

/// Writes one line per start that was simulated into a CSV file.
pub(crate) fn write_starts(prediction: &Prediction, path: &Path) -> anyhow::Result<()> {
    let write = || -> io::Result<()> {
        let mut out = BufWriter::new(File::create(path)?);
        writeln!(out, "start,migration_time_seconds,downtime_seconds,sent_bytes,iterations,stop_reason,used")?;
        for (at, outcome, used) in prediction.on_the_wall() {
            let reason = outcome.stop_reason();
            match outcome.completed() {
                Some(done) => {
                    let (time, down) = (done.migration_time.as_secs_f64(), done.downtime.total().as_secs_f64());
                    let (sent, iterations) = (done.sent_bytes.get(), done.iteration_count);
                    writeln!(out, "{at},{time:.6},{down:.6},{sent},{iterations},{reason},{used}")?;
                }
                None => writeln!(out, "{at},,,,,{reason},{used}")?,
            }
        }
        out.flush()
    };
    write().with_context(|| format!("--per-start {}", path.display()))
}
