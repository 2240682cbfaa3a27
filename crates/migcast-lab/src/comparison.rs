//! Actual against predicted: one case, and the table of many.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use migcast_history::observed::Observed;
use serde::{Deserialize, Serialize};

use crate::prediction::{Band, Predicted};

/// One migration with what had been predicted of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Case {
    /// What was predicted, from the history alone.
    pub predicted: Predicted,
    /// What happened.
    pub observed: Observed,
}

impl Case {
    /// Whether the prediction's majority of starts agrees with what happened.
    pub fn verdict_is_right(&self) -> bool {
        let converges = 2 * self.predicted.converged >= self.predicted.starts;
        converges == self.observed.completed
    }

    fn key(&self) -> (String, u64, String) {
        (self.observed.guest.clone(), self.observed.link_bits_per_second, self.observed.settings.join(" "))
    }
}

/// The paper's table as Markdown: a row per guest, link and setting, with medians over its runs.
pub fn table(cases: &[Case]) -> String {
    let mut groups: BTreeMap<_, Vec<&Case>> = BTreeMap::new();
    cases.iter().for_each(|case| groups.entry(case.key()).or_default().push(case));
    let mut out = String::from(
        "| guest, link, settings | runs | migration time, s: actual / predicted / error | downtime, ms | QEMU's downtime, ms \
         | bytes, MB | syncs | in band: time, downtime |\n|---|---|---|---|---|---|---|---|\n",
    );
    for ((guest, link, settings), group) in &groups {
        let settings = settings.replace("max-bandwidth=none ", "").replace("downtime-limit=", "");
        let _ = write!(out, "| {guest}, {} Mbit/s, {settings} | {} |", link / 1_000_000, group.len());
        let columns: [(Actual, Expected, f64, usize); 5] = [
            (|o| Some(o.migration_time_seconds), |p| p.migration_time_seconds, 1.0, 2),
            (|o| o.downtime_seconds, |p| p.downtime_seconds, 1e3, 0),
            (|o| o.downtime_reported_seconds, |p| p.downtime_reported_seconds, 1e3, 0),
            (|o| Some(o.sent_bytes as f64), |p| p.sent_bytes, 1e-6, 1),
            (|o| Some(o.iterations as f64), |p| p.iterations, 1.0, 0),
        ];
        for (actual, predicted, unit, decimals) in columns {
            let _ = write!(out, " {} |", cell(group, actual, predicted, unit, decimals));
        }
        let _ = writeln!(out, " {} |", bands(group));
    }
    out
}

type Actual = fn(&Observed) -> Option<f64>;
type Expected = fn(&Predicted) -> Band;

fn cell(group: &[&Case], actual: Actual, predicted: Expected, unit: f64, decimals: usize) -> String {
    let completed = group.iter().filter(|case| case.observed.completed);
    let actual = median(completed.filter_map(|case| actual(&case.observed)));
    let predicted = median(group.iter().filter_map(|case| predicted(&case.predicted).p50));
    let show =
        |value: Option<f64>| value.map_or_else(|| "never".to_owned(), |value| format!("{:.decimals$}", value * unit));
    let error = actual.zip(predicted).map(|(actual, predicted)| (predicted - actual) / actual * 100.0);
    let error = error.map_or_else(|| "–".to_owned(), |error| format!("{error:+.1} %"));
    format!("{} / {} / {error}", show(actual), show(predicted))
}

/// How well all cases were foretold, and by the simpler rules.
pub fn summary(cases: &[Case]) -> String {
    let completed: Vec<&Case> = cases.iter().filter(|case| case.observed.completed).collect();
    let error = |predicted: &dyn Fn(&Case) -> Option<f64>, actual: &dyn Fn(&Case) -> Option<f64>| {
        // A rule that says "never" of a migration that ended is wrong beyond measure.
        let one = |case: &&Case| {
            let actual = actual(case)?;
            Some(predicted(case).map_or(f64::INFINITY, |predicted| (predicted - actual).abs() / actual * 100.0))
        };
        median(completed.iter().filter_map(one)).map_or_else(|| "-".to_owned(), |error| format!("{error:.1} %"))
    };
    let time = |case: &Case| Some(case.observed.migration_time_seconds);
    let right = cases.iter().filter(|case| case.verdict_is_right()).count();
    let (in_time, in_down) = in_band(&completed);
    let mut out = format!("{} migrations, {} completed; verdict right in {right}\n", cases.len(), completed.len());
    let rows: [(&str, String); 7] = [
        ("migration time", error(&|case| case.predicted.migration_time_seconds.p50, &time)),
        ("downtime", error(&|case| case.predicted.downtime_seconds.p50, &|case| case.observed.downtime_seconds)),
        ("bytes", error(&|case| case.predicted.sent_bytes.p50, &|case| Some(case.observed.sent_bytes as f64))),
        ("time, memory ÷ link", error(&|case| case.predicted.baselines.memory_over_link, &time)),
        ("time, AVG", error(&|case| case.predicted.baselines.avg, &time)),
        ("time, 2023 predictor", error(&|case| case.predicted.baselines.piecewise, &time)),
        ("inside 5-95 %", format!("time {in_time}, downtime {in_down} of {}", completed.len())),
    ];
    for (name, value) in rows {
        let _ = writeln!(out, "median |error|, {name}: {value}");
    }
    out.replace("median |error|, inside", "inside")
}

fn in_band(cases: &[&Case]) -> (usize, usize) {
    let time = |case: &&&Case| case.predicted.migration_time_seconds.holds(case.observed.migration_time_seconds);
    let down =
        |case: &&&Case| case.observed.downtime_seconds.is_some_and(|down| case.predicted.downtime_seconds.holds(down));
    (cases.iter().filter(time).count(), cases.iter().filter(down).count())
}

fn bands(group: &[&Case]) -> String {
    let completed: Vec<&Case> = group.iter().copied().filter(|case| case.observed.completed).collect();
    let (time, down) = in_band(&completed);
    format!("{time}, {down} of {}", completed.len())
}

/// The median of some values, the mean of the middle two where they are even in number.
pub fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let (low, high) = (values.get(values.len().wrapping_sub(1) / 2)?, values.get(values.len() / 2)?);
    Some((low + high) / 2.0)
}
