//! Actual against predicted: one case, and the table of many.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use migcast_history::observed::Observed;
use migcast_model::calibrate::review::interval_of_share;
use serde::{Deserialize, Serialize};

use crate::past::Past;
use crate::prediction::{self, Band, Baselines, Predicted};

/// One migration with what had been predicted of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Case {
    /// What was predicted, from the history alone.
    pub predicted: Predicted,
    /// What happened.
    pub observed: Observed,
}

/// Forecasts each of `observed` from what its guest had left *before* it in its history, which lies in `folder`; what is asked
/// alike is asked once.
///
/// # Errors
/// An observed migration names no history, or `program` cannot forecast from it.
pub fn forecast(
    program: &Path,
    folder: &Path,
    observed: impl IntoIterator<Item = Observed>,
    platform: Option<&Path>,
) -> Result<Vec<Case>> {
    let mut cases: Vec<Case> = Vec::new();
    for observed in observed {
        let history = observed.history.as_ref().context("an observed migration names no history")?;
        let past = Past::at(&folder.join(history), observed.requested)?;
        let alike =
            || cases.iter().filter(|case| is_asked_alike(&case.observed, &observed)).map(|case| &case.predicted);
        // What was recorded up to another migration says something else; where the edge lies stays as it was.
        let predicted = match alike().find(|known| !past.is_fresh() && known.baselines_lately.is_none()) {
            Some(known) => known.clone(),
            None => {
                let beside = alike().next().map(|known| known.converges_beside);
                prediction::predict(program, &past, &observed, platform, beside)?
            }
        };
        cases.push(Case { predicted, observed });
    }
    Ok(cases)
}

/// Each of `observed` with the forecast that `path` keeps of it, a case a line.
///
/// # Errors
/// The file cannot be read, or holds no forecast of one of them.
pub fn kept(path: &Path, observed: impl IntoIterator<Item = Observed>) -> Result<Vec<Case>> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let case =
        |(index, line)| serde_json::from_str(line).with_context(|| format!("{}, line {}", path.display(), index + 1));
    let cases: Vec<Case> = text.lines().enumerate().map(case).collect::<Result<_>>()?;
    let of = |observed: Observed| {
        let case = cases.iter().find(|case| case.observed == observed).cloned();
        case.with_context(|| {
            format!("{}: no forecast of the migration requested at {}", path.display(), observed.requested)
        })
    };
    observed.into_iter().map(of).collect()
}

/// Whether the same forecast answers both, if nothing was recorded between them.
fn is_asked_alike(one: &Observed, other: &Observed) -> bool {
    let asked = |of: &Observed| {
        (of.history.clone(), of.link_bits_per_second, of.settings.clone(), of.give_up_seconds.map(f64::to_bits))
    };
    asked(one) == asked(other)
}

impl Case {
    /// Whether the prediction's majority of starts agrees with what happened.
    pub fn verdict_is_right(&self) -> bool {
        let converges = 2 * self.predicted.converged >= self.predicted.starts;
        converges == self.observed.completed
    }

    /// Whether the band holds the migration time.
    fn holds_time(&self) -> bool {
        self.predicted.migration_time_seconds.holds(self.observed.seconds())
    }

    /// Whether the band holds the guest's downtime.
    fn holds_downtime(&self) -> bool {
        self.observed.downtime_seconds.is_some_and(|downtime| self.predicted.downtime_seconds.holds(downtime))
    }

    /// Whether the verdict would be the same over a link slower or faster by a quarter.
    pub fn is_away_from_the_edge(&self) -> bool {
        let converges = 2 * self.predicted.converged >= self.predicted.starts;
        self.predicted.converges_beside == [converges; 2]
    }

    /// Pages sent more than once, as a share of all that were sent with data.
    fn repeated_share(&self) -> f64 {
        let Observed { data_pages, zero_pages, .. } = self.observed;
        let (data, zero) = (data_pages.unwrap_or_default(), zero_pages.unwrap_or_default());
        (data + zero).saturating_sub(self.predicted.memory_pages) as f64 / data.max(1) as f64
    }

    /// Cores' worth of CPU time from which on others disturb a migration: with its source it then shares a core.
    pub const OTHER_CORES_MAX: f64 = 1.0;

    /// Whether something else saturated a core meanwhile.
    pub fn is_disturbed(&self) -> bool {
        self.observed.other_cpu_cores.is_some_and(|cores| cores >= Case::OTHER_CORES_MAX)
    }

    fn key(&self) -> (String, u64, String) {
        (self.observed.guest.clone(), self.observed.link_bits_per_second, self.observed.settings.join(" "))
    }

    /// Guest, link and settings, as a row of the table begins.
    pub fn title(&self) -> String {
        let settings =
            self.observed.settings.join(" ").replace("max-bandwidth=none ", "").replace("downtime-limit=", "");
        format!("{}, {} Mbit/s, {settings}", self.observed.guest, self.observed.link_bits_per_second / 1_000_000)
    }
}

/// Errors up to which a forecast needs no explanation: of time, of the guest's downtime, of bytes.
const GOALS: [(&str, f64); 3] = [("time", 0.03), ("downtime", 0.10), ("bytes", 0.02)];
/// How far a reading of the dirty log may lie from the forecast's before it counts as another one.
const SAME_PENDING: f64 = 0.1;

/// For each case outside of [`GOALS`] one line: by how much, whether the band holds it, and the first reading of the dirty
/// log that came out otherwise than in the median forecast.
pub fn explanations(cases: &[Case]) -> String {
    cases.iter().filter_map(explanation).fold(String::new(), |mut out, line| {
        let _ = writeln!(out, "- {line}");
        out
    })
}

fn explanation(case: &Case) -> Option<String> {
    let (observed, predicted) = (&case.observed, &case.predicted);
    if !observed.completed {
        let share = format!("{} of {} starting points converge", predicted.converged, predicted.starts);
        return (!case.verdict_is_right()).then(|| format!("{}: did not converge; {share}", case.title()));
    }
    let Some(time) = predicted.migration_time_seconds.p50 else {
        return Some(format!("{}: completed after {:.2} s, forecast never", case.title(), observed.seconds()));
    };
    let ratio = |predicted: Option<f64>, actual: Option<f64>| Some(predicted? / actual? - 1.0);
    let errors = [
        Some(time / observed.seconds() - 1.0),
        ratio(predicted.downtime_seconds.p50, observed.downtime_seconds),
        ratio(predicted.sent_bytes.p50, observed.sent_bytes.map(|bytes| bytes as f64)),
    ];
    let outside = GOALS.iter().zip(errors).filter_map(|((name, goal), error)| {
        error.filter(|error| error.abs() > *goal).map(|error| format!("{name} {:+.1} %", error * 100.0))
    });
    let outside: Vec<String> = outside.collect();
    if outside.is_empty() {
        return None;
    }
    let band = match (case.holds_time(), case.holds_downtime()) {
        (true, true) => "both within the band",
        (true, false) => "time within the band",
        (false, true) => "downtime within the band",
        (false, false) => "neither within the band",
    };
    Some(format!("{}: {}; {band}; {}", case.title(), outside.join(", "), first_difference(case)))
}

fn first_difference(case: &Case) -> String {
    let (actual, predicted) = (&case.observed.pending_bytes, &case.predicted.readings);
    // The first start is set-up's reading, with everything due; pending bytes are told from the next one on.
    let starts = &case.observed.iteration_starts_seconds;
    for (index, bytes) in actual.iter().enumerate() {
        let (at, mb) = (starts.get(index + 1).copied().unwrap_or_default(), *bytes as f64 / 1e6);
        let Some(expected) = predicted.get(index) else {
            return format!("reading {} at {at:.2} s with {mb:.1} MB due is one more than forecast", index + 1);
        };
        let expected_mb = expected.pending_bytes / 1e6;
        if (mb - expected_mb).abs() > SAME_PENDING * mb.max(expected_mb) {
            let when = expected.at_seconds;
            return format!(
                "reading {}: {mb:.1} MB due at {at:.2} s, forecast {expected_mb:.1} MB at {when:.2} s",
                index + 1
            );
        }
    }
    match predicted.get(actual.len()) {
        Some(_) if actual.is_empty() => "nobody noted what was due".to_owned(),
        Some(next) => format!("stopped where the forecast reads once more, {:.1} MB due", next.pending_bytes / 1e6),
        None => "every reading as forecast".to_owned(),
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
    for group in groups.values() {
        let _ = write!(out, "| {} | {} |", group[0].title(), group.len());
        let columns: [(Actual, Expected, f64, usize); 5] = [
            (|o| o.migration_time_seconds, |p| p.migration_time_seconds, 1.0, 2),
            (|o| o.downtime_seconds, |p| p.downtime_seconds, 1e3, 0),
            (|o| o.downtime_reported_seconds, |p| p.downtime_reported_seconds, 1e3, 0),
            (|o| o.sent_bytes.map(|bytes| bytes as f64), |p| p.sent_bytes, 1e-6, 1),
            (|o| o.iterations.map(|count| count as f64), |p| p.iterations, 1.0, 0),
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
    // A migration that did not end takes longer than any that did.
    let actual = |case: &Case| if case.observed.completed { actual(&case.observed) } else { Some(f64::INFINITY) };
    let actual = median(group.iter().filter_map(|case| actual(case)));
    let predicted = median(group.iter().map(|case| predicted(&case.predicted).p50.unwrap_or(f64::INFINITY)));
    let finite = |value: Option<f64>| value.filter(|value| value.is_finite());
    let (actual, predicted) = (finite(actual), finite(predicted));
    let show =
        |value: Option<f64>| value.map_or_else(|| "never".to_owned(), |value| format!("{:.decimals$}", value * unit));
    let error = actual.zip(predicted).map(|(actual, predicted)| (predicted - actual) / actual * 100.0);
    let error = error.map_or_else(|| "–".to_owned(), |error| format!("{error:+.1} %"));
    format!("{} / {} / {error}", show(actual), show(predicted))
}

/// Share of pages sent more than once from which on a simple rule should not do.
const MUCH_REPEATED: f64 = 0.3;

type Rule = (&'static str, fn(&Predicted) -> Option<f64>);

/// Migration times: ours first, then the simpler rules.
const TIMES: [Rule; 4] = [
    ("migration time", |predicted| predicted.migration_time_seconds.p50),
    ("time, memory ÷ link", |predicted| predicted.baselines.memory_over_link),
    ("time, AVG", |predicted| predicted.baselines.avg),
    ("time, 2023 predictor", |predicted| predicted.baselines.piecewise),
];

/// Those that are fed with a history's last seconds.
const LATELY: [Rule; 2] = [
    ("time, AVG of the last seconds", |predicted| lately(predicted).avg),
    ("time, 2023 predictor of the last seconds", |predicted| lately(predicted).piecewise),
];

/// Of a history that ended before, nothing is known of what the guest did lately but all that it did.
fn lately(predicted: &Predicted) -> &Baselines {
    predicted.baselines_lately.as_ref().unwrap_or(&predicted.baselines)
}

/// The rules that these cases tell apart.
fn times(cases: &[&Case]) -> Vec<Rule> {
    let know_lately = cases.iter().any(|case| case.predicted.baselines_lately.is_some());
    TIMES.into_iter().chain(LATELY.into_iter().filter(|_| know_lately)).collect()
}

/// How well the times of those migrations were foretold of whose pages [`MUCH_REPEATED`] or more were sent again: how many
/// there are, and the median error of our forecast and of each simpler rule, in percent.
fn where_much_is_repeated(completed: &[&Case]) -> (usize, Vec<(&'static str, Option<f64>)>) {
    let repeated: Vec<&Case> =
        completed.iter().copied().filter(|case| case.repeated_share() >= MUCH_REPEATED).collect();
    let error = |rule: Rule| (rule.0, median_error(&repeated, rule.1, |o| o.migration_time_seconds));
    (repeated.len(), times(completed).into_iter().map(error).collect())
}

/// What the goals for real migrations ask for, of those that completed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Goals {
    /// Migrations that completed.
    pub completed: usize,
    /// How many of their times, and of their downtimes, the band holds.
    pub in_band: (usize, usize),
    /// How many of them sent much again.
    pub much_repeated: usize,
    /// Of those our median error of time, and that of the best simpler rule, in percent.
    pub repeated_errors: (f64, f64),
}

impl Goals {
    /// What came of them.
    pub fn of(cases: &[Case]) -> Goals {
        let completed: Vec<&Case> = cases.iter().filter(|case| case.observed.completed).collect();
        let (much_repeated, errors) = where_much_is_repeated(&completed);
        let errors: Vec<f64> = errors.into_iter().map(|(_, error)| error.unwrap_or(f64::NAN)).collect();
        let (ours, best) = (errors[0], errors[1..].iter().copied().fold(f64::INFINITY, f64::min));
        Goals { completed: completed.len(), in_band: in_band(&completed), much_repeated, repeated_errors: (ours, best) }
    }
}

/// How well all cases were foretold, and by the simpler rules.
pub fn summary(cases: &[Case]) -> String {
    let completed: Vec<&Case> = cases.iter().filter(|case| case.observed.completed).collect();
    let mut out = verdicts(cases);
    let show = |error: Option<f64>| error.map_or_else(|| "-".to_owned(), |error| format!("{error:.1} %"));
    let down = median_error(&completed, |p| p.downtime_seconds.p50, |o| o.downtime_seconds);
    let bytes = median_error(&completed, |p| p.sent_bytes.p50, |o| o.sent_bytes.map(|bytes| bytes as f64));
    let time = |rule: Rule| (rule.0, median_error(&completed, rule.1, |o| o.migration_time_seconds));
    let rows = [time(TIMES[0]), ("downtime", down), ("bytes", bytes)];
    let baselines = times(&completed).into_iter().skip(1).map(time);
    for (name, error) in rows.into_iter().chain(baselines) {
        let _ = writeln!(out, "median |error|, {name}: {}", show(error));
    }
    let (repeated, errors) = where_much_is_repeated(&completed);
    if repeated > 0 {
        let errors = errors.into_iter().map(|(name, error)| format!("{name} {}", show(error)));
        let _ = writeln!(
            out,
            "the same where {} % or more is sent again ({repeated}): {}",
            MUCH_REPEATED * 100.0,
            errors.collect::<Vec<_>>().join(", ")
        );
    }
    let (in_time, in_down) = in_band(&completed);
    let held = |held: usize| {
        let (low, high) = interval_of_share(held, completed.len());
        format!("{held} of {} ({:.0} to {:.0} %)", completed.len(), low * 100.0, high * 100.0)
    };
    if !completed.is_empty() {
        let _ = writeln!(out, "inside 5-95 %: time {}, downtime {}", held(in_time), held(in_down));
    }
    out
}

fn verdicts(cases: &[Case]) -> String {
    let count = |which: &dyn Fn(&&Case) -> bool| cases.iter().filter(which).count();
    let right = count(&|case| case.verdict_is_right());
    let away = count(&|case| case.is_away_from_the_edge());
    let right_away = count(&|case| case.is_away_from_the_edge() && case.verdict_is_right());
    let never_away = count(&|case| case.is_away_from_the_edge() && !case.observed.completed);
    format!(
        "{} migrations, {} completed; verdict right in {right}; of {away} where a quarter more or less of the link changes \
         nothing, {never_away} did not complete, and the verdict is right in {right_away}\n",
        cases.len(),
        count(&|case| case.observed.completed)
    )
}

/// Median of |predicted ÷ actual − 1| over migrations that completed, in percent. A rule that says "never" of a migration that ended is wrong beyond
/// measure.
pub fn median_error(
    cases: &[&Case],
    predicted: impl Fn(&Predicted) -> Option<f64>,
    actual: impl Fn(&Observed) -> Option<f64>,
) -> Option<f64> {
    let one = |case: &&Case| {
        let actual = actual(&case.observed)?;
        Some(predicted(&case.predicted).map_or(f64::INFINITY, |predicted| (predicted / actual - 1.0).abs() * 100.0))
    };
    median(cases.iter().filter_map(one))
}

fn in_band(cases: &[&Case]) -> (usize, usize) {
    let count = |held: fn(&Case) -> bool| cases.iter().filter(|case| held(case)).count();
    (count(Case::holds_time), count(Case::holds_downtime))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prediction::{Baselines, Reading};

    /// A case of which `change` makes something else than forecast: 4 s, 300 ms, 200 MB, two readings.
    fn case(change: impl FnOnce(&mut Observed)) -> Case {
        let mut observed: Observed = serde_json::from_value(serde_json::json!({
            "format": "migcast.observed/1", "requested": "2026-01-01T00:00:00Z", "guest": "g", "hypervisor": "qemu",
            "hypervisor_version": "10.0.2", "accelerator": "tcg", "link_bits_per_second": 400_000_000,
            "settings": ["max-bandwidth=none", "downtime-limit=300ms"], "completed": true,
            "migration_time_seconds": 4.0, "downtime_seconds": 0.3, "downtime_reported_seconds": 0.25,
            "sent_bytes": 200_000_000, "data_pages": 1, "zero_pages": 1, "iterations": 4,
            "iteration_starts_seconds": [0.0, 3.0, 3.5, 3.7], "pending_bytes": [30_000_000, 14_000_000],
        }))
        .unwrap();
        change(&mut observed);
        let band = |p50: f64, spread: f64| Band { p50: Some(p50), p5: Some(p50 - spread), p95: Some(p50 + spread) };
        let reading = |at_seconds, pending_bytes| Reading { at_seconds, pending_bytes };
        let predicted = Predicted {
            starts: 10,
            converged: 10,
            converges_beside: [true, true],
            memory_pages: 100,
            migration_time_seconds: band(4.0, 0.1),
            downtime_seconds: band(0.3, 0.05),
            downtime_reported_seconds: band(0.25, 0.05),
            sent_bytes: band(2e8, 1e6),
            iterations: band(4.0, 1.0),
            readings: vec![reading(3.0, 30e6), reading(3.5, 14e6)],
            baselines: Baselines { memory_over_link: Some(10.0), avg: Some(5.0), piecewise: None },
            baselines_lately: None,
        };
        Case { predicted, observed }
    }

    #[test]
    fn a_case_within_the_goals_needs_no_explanation() {
        assert_eq!(explanations(&[case(|observed| observed.downtime_seconds = Some(0.29))]), "");
    }

    #[test]
    fn the_first_reading_that_differs_is_named() {
        let other = |observed: &mut Observed| {
            observed.migration_time_seconds = Some(4.4);
            observed.pending_bytes = vec![31_000_000, 20_000_000, 9_000_000];
        };
        let expected = "- g, 400 Mbit/s, 300ms: time -9.1 %; downtime within the band; \
                        reading 2: 20.0 MB due at 3.50 s, forecast 14.0 MB at 3.50 s\n";
        assert_eq!(explanations(&[case(other)]), expected);
        let early = explanations(&[case(|observed| {
            observed.sent_bytes = Some(180_000_000);
            observed.pending_bytes.truncate(1);
        })]);
        assert!(early.contains("bytes +11.1 %; both within the band"), "{early}");
        assert!(early.ends_with("stopped where the forecast reads once more, 14.0 MB due\n"), "{early}");
    }

    #[test]
    fn a_row_of_runs_that_mostly_did_not_end_says_never() {
        let never = || case(|observed| observed.completed = false);
        let row = |cases: &[Case]| table(cases).lines().nth(2).unwrap().to_owned();
        assert!(row(&[never(), never(), case(|_| {})]).contains("| 3 | never / 4.00 / – |"));
        assert!(row(&[never(), case(|_| {}), case(|_| {})]).contains("| 3 | 4.00 / 4.00 / +0.0 % |"));
    }

    #[test]
    fn a_case_beside_a_core_of_other_work_is_disturbed() {
        assert!(!case(|_| {}).is_disturbed(), "nobody looked");
        assert!(!case(|observed| observed.other_cpu_cores = Some(0.4)).is_disturbed());
        assert!(case(|observed| observed.other_cpu_cores = Some(1.2)).is_disturbed());
    }

    #[test]
    fn a_rule_that_says_never_of_what_ended_is_wrong_beyond_measure() {
        let summary = summary(&[case(|_| {})]);
        assert!(summary.contains("median |error|, migration time: 0.0 %"), "{summary}");
        assert!(summary.contains("median |error|, time, 2023 predictor: inf %"), "{summary}");
        assert!(
            summary.contains("inside 5-95 %: time 1 of 1 (21 to 100 %), downtime 1 of 1 (21 to 100 %)"),
            "{summary}"
        );
    }

    #[test]
    fn verdicts_count_apart_where_the_link_decides() {
        let mut near = case(|observed| observed.completed = false);
        near.predicted.converges_beside = [false, true];
        let mut far = case(|observed| observed.completed = false);
        (far.predicted.converged, far.predicted.converges_beside) = (0, [false, false]);
        let summary = summary(&[near, far, case(|_| {})]);
        let expected = "3 migrations, 1 completed; verdict right in 2; of 2 where a quarter more or less of the link changes \
                        nothing, 1 did not complete, and the verdict is right in 2\n";
        assert!(summary.starts_with(expected), "{summary}");
    }

    #[test]
    fn guests_that_rewrite_much_are_judged_apart() {
        assert!(!summary(&[case(|_| {})]).contains("sent again"));
        // 160 pages sent of 100: 60 of the 110 with data went out again.
        let summary = summary(&[case(|observed| (observed.data_pages, observed.zero_pages) = (Some(110), Some(50)))]);
        assert!(summary.contains("the same where 30 % or more is sent again (1): migration time 0.0 %"), "{summary}");
    }
}
