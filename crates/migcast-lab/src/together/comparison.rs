//! Trials beside their forecasts: the makespans of the policies, their order, and every guest's own figures.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::kept::{self, Moved, Trial};
use super::plan::{Move, Plan, Policy};
use crate::comparison::median;
use crate::prediction::Band;

/// How far a forecast makespan may be from the actual one, as a share of it.
pub const MAKESPAN_GOAL: f64 = 0.10;

/// A trial with what was forecast of it.
#[derive(Clone, Debug)]
pub struct Case {
    /// What happened.
    pub trial: Trial,
    /// The policy as the plan had it, with its forecast.
    pub forecast: Policy,
}

impl Case {
    /// What was forecast of a guest's migration.
    fn of(&self, moved: &Moved) -> Option<&Move> {
        self.forecast.place(&moved.observed.guest).map(|place| &self.forecast.moves[place])
    }

    /// Seconds from the first request to the last end; endless if a migration was given up.
    fn makespan(&self) -> f64 {
        self.trial.makespan_seconds.unwrap_or(f64::INFINITY)
    }

    /// All guests' downtimes together, in seconds, if each is known.
    fn downtime_sum(&self) -> Option<f64> {
        self.trial.moves.iter().map(|moved| moved.observed.downtime_seconds).sum()
    }

    /// Bytes that all guests sent, if each is known.
    fn sent(&self) -> Option<f64> {
        self.trial.moves.iter().map(|moved| moved.observed.sent_bytes.map(|bytes| bytes as f64)).sum()
    }
}

/// Reads the trials of a results folder with the plans they are of, in the order in which they were made.
///
/// # Errors
/// A file cannot be read, or a trial is of a policy that its plan does not have.
pub fn read(folder: &Path) -> Result<Vec<Case>> {
    let mut plans: BTreeMap<PathBuf, Plan> = BTreeMap::new();
    let case = |trial: Trial| {
        if !plans.contains_key(&trial.plan) {
            plans.insert(trial.plan.clone(), Plan::read(&folder.join(&trial.plan))?);
        }
        let forecast = plans[&trial.plan].policy(&trial.policy)?.clone();
        Ok(Case { trial, forecast })
    };
    kept::read(folder)?.into_iter().map(case).collect()
}

/// Gives each case the forecast that `ask` has now for the settings and the fleet file of its plan, as long as the policy is
/// still carried out as it was: what is planned may have become another plan, which nobody tried. Returns the lines that say
/// of which trials the old forecast stays.
///
/// # Errors
/// As `ask` says, which is asked once for each plan.
pub fn forecast_again(cases: &mut [Case], mut ask: impl FnMut(&Trial) -> Result<Plan>) -> Result<Vec<String>> {
    let (mut plans, mut stay) = (BTreeMap::new(), Vec::new());
    for case in cases {
        let plan = match plans.entry(case.trial.plan.clone()) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(ask(&case.trial)?),
        };
        match plan.policy(&case.trial.policy) {
            Ok(policy) if policy.is_carried_out_like(&case.forecast) => case.forecast = policy.clone(),
            _ => stay.push(format!("{}: the plan is another one now, its first forecast stays", describe(case))),
        }
    }
    Ok(stay)
}

/// Parts the cases that say something from those that do not, which are told with the reason.
pub fn sound(cases: Vec<Case>) -> (Vec<Case>, Vec<String>) {
    let (mut sound, mut faults) = (Vec::new(), Vec::new());
    for case in cases {
        match case.trial.fault() {
            Some(fault) => faults.push(format!("{}: {fault}", describe(&case))),
            None => sound.push(case),
        }
    }
    (sound, faults)
}

/// One trial for a person, in a line.
pub fn describe(case: &Case) -> String {
    let Trial { policy, guests_cpu_cores, other_cpu_cores, .. } = &case.trial;
    let others = other_cpu_cores.map_or_else(|| "-".to_owned(), |cores| format!("{cores:.2}"));
    format!(
        "{policy} took {} s, forecast {} s; cores used by guests before {guests_cpu_cores:.2}, by others {others}",
        show(case.trial.makespan_seconds, 1.0, 2),
        show_band(&case.forecast.makespan_seconds, 1.0, 2),
    )
}

/// What is compared: its name, the unit and the decimals it is shown with.
type Quantity<A, F> = (&'static str, f64, usize, A, F);
type OfAll = Quantity<fn(&Case) -> Option<f64>, fn(&Policy) -> Band>;
type OfOne = Quantity<fn(&Moved) -> Option<f64>, fn(&Move) -> Band>;

const OF_ALL: [OfAll; 3] = [
    ("makespan, s", 1.0, 2, |case| Some(case.makespan()), |policy| policy.makespan_seconds),
    ("downtimes together, ms", 1e3, 0, Case::downtime_sum, |policy| policy.downtime_sum_seconds),
    ("bytes, MB", 1e-6, 1, Case::sent, |policy| policy.sent_bytes),
];

const OF_ONE: [OfOne; 5] = [
    ("begins, s", 1.0, 2, |moved| Some(moved.begun_seconds), |one| one.begins_seconds),
    ("ends, s", 1.0, 2, |moved| Some(arrival(moved, moved.ended_seconds)), |one| one.ends_seconds),
    (
        "migration time, s",
        1.0,
        2,
        |moved| Some(arrival(moved, moved.observed.seconds())),
        |one| one.migration_time_seconds,
    ),
    ("downtime, ms", 1e3, 0, |moved| moved.observed.downtime_seconds, |one| one.downtime_seconds),
    ("bytes, MB", 1e-6, 1, |moved| moved.observed.sent_bytes.map(|bytes| bytes as f64), |one| one.sent_bytes),
];

/// A migration that was given up takes longer than any that was not.
fn arrival(moved: &Moved, seconds: f64) -> f64 {
    if moved.observed.completed { seconds } else { f64::INFINITY }
}

/// Two tables as Markdown: a row per policy, and a row per policy and guest; medians over the trials of each.
pub fn table(cases: &[Case]) -> String {
    let policies = by_policy(cases);
    let mut out = String::new();
    header(&mut out, "policy | trials", OF_ALL.map(|quantity| quantity.0).as_slice());
    for (name, group) in &policies {
        let _ = write!(out, "| {name} | {} |", group.len());
        for (_, unit, decimals, actual, forecast) in OF_ALL {
            let pairs = group.iter().map(|case| (actual(case), forecast(&case.forecast)));
            let _ = write!(out, " {} |", cell(pairs, unit, decimals));
        }
        out.push('\n');
    }
    out.push('\n');
    header(&mut out, "policy | guest", OF_ONE.map(|quantity| quantity.0).as_slice());
    for (name, group) in &policies {
        for Move { guest, .. } in &group[0].forecast.moves {
            let _ = write!(out, "| {name} | {guest} |");
            for (_, unit, decimals, actual, forecast) in OF_ONE {
                let of_guest =
                    |case: &&Case| case.trial.moves.iter().find(|moved| moved.observed.guest == *guest).cloned();
                let pairs = group.iter().filter_map(|case| {
                    let moved = of_guest(case)?;
                    Some((actual(&moved), forecast(case.of(&moved)?)))
                });
                let _ = write!(out, " {} |", cell(pairs, unit, decimals));
            }
            out.push('\n');
        }
    }
    out
}

fn header(out: &mut String, first: &str, quantities: &[&str]) {
    let _ = writeln!(out, "| {first} | {} |", quantities.join(" | "));
    let _ = writeln!(out, "|---|---|{}", "---|".repeat(quantities.len()));
}

/// Policies in the order in which they were tried first.
fn by_policy(cases: &[Case]) -> Vec<(&str, Vec<&Case>)> {
    let mut groups: Vec<(&str, Vec<&Case>)> = Vec::new();
    for case in cases {
        match groups.iter_mut().find(|(name, _)| *name == case.trial.policy) {
            Some((_, group)) => group.push(case),
            None => groups.push((&case.trial.policy, vec![case])),
        }
    }
    groups
}

/// `actual / forecast (5 % to 95 %) / error; how many the band holds`, of medians.
fn cell(pairs: impl Iterator<Item = (Option<f64>, Band)>, unit: f64, decimals: usize) -> String {
    let pairs: Vec<(Option<f64>, Band)> = pairs.collect();
    let (actual, band) = middle(&pairs);
    let error = actual.zip(band.p50).filter(|(actual, _)| *actual > 0.0);
    let error = error.map_or_else(|| "–".to_owned(), |(actual, p50)| format!("{:+.1} %", (p50 / actual - 1.0) * 100.0));
    let held = pairs.iter().filter(|(actual, band)| actual.is_some_and(|actual| band.holds(actual))).count();
    format!(
        "{} / {} / {error}; {held} of {}",
        show(actual, unit, decimals),
        show_band(&band, unit, decimals),
        pairs.len()
    )
}

/// Medians of what happened and of each end of the bands; `None` is endless.
fn middle(pairs: &[(Option<f64>, Band)]) -> (Option<f64>, Band) {
    let finite = |value: Option<f64>| value.filter(|value| value.is_finite());
    let of = |which: fn(&Band) -> Option<f64>| {
        finite(median(pairs.iter().map(|(_, band)| which(band).unwrap_or(f64::INFINITY))))
    };
    let actual = finite(median(pairs.iter().filter_map(|(actual, _)| *actual)));
    (actual, Band { p5: of(|band| band.p5), p50: of(|band| band.p50), p95: of(|band| band.p95) })
}

fn show(value: Option<f64>, unit: f64, decimals: usize) -> String {
    value.map_or_else(|| "never".to_owned(), |value| format!("{:.decimals$}", value * unit))
}

fn show_band(band: &Band, unit: f64, decimals: usize) -> String {
    let show = |value| show(value, unit, decimals);
    format!("{} ({} to {})", show(band.p50), show(band.p5), show(band.p95))
}

/// A policy's makespan: what it came to, and what was forecast.
struct Judged<'a> {
    name: &'a str,
    actual: f64,
    forecast: Band,
}

impl Judged<'_> {
    fn median_forecast(&self) -> f64 {
        self.forecast.p50.unwrap_or(f64::INFINITY)
    }

    /// By how much the forecast is off, for a person, and whether that is within the goal.
    fn error(&self) -> (String, bool) {
        match (self.forecast.p50, self.actual.is_finite()) {
            (Some(p50), true) => {
                let error = p50 / self.actual - 1.0;
                (format!("{:+.1} %", error * 100.0), error.abs() <= MAKESPAN_GOAL)
            }
            (Some(p50), false) => (format!("never, forecast {p50:.2} s"), false),
            (None, true) => (format!("{:.2} s, forecast never", self.actual), false),
            (None, false) => ("never, as forecast".to_owned(), true),
        }
    }

    /// Whether the forecasts of two policies lie apart: no value is within both bands.
    fn is_apart_from(&self, other: &Judged) -> bool {
        let below = |one: &Judged, other: &Judged| {
            one.forecast.p95.zip(other.forecast.p5.or(Some(f64::INFINITY))).is_some_and(|(high, low)| high < low)
        };
        below(self, other) || below(other, self)
    }
}

/// Whether each makespan is within the goal, and whether the policies came in the order that was forecast.
pub fn summary(cases: &[Case]) -> String {
    let judge = |(name, group): (_, Vec<&Case>)| {
        let pairs: Vec<(Option<f64>, Band)> =
            group.iter().map(|case| (Some(case.makespan()), case.forecast.makespan_seconds)).collect();
        let (actual, forecast) = middle(&pairs);
        Judged { name, actual: actual.unwrap_or(f64::INFINITY), forecast }
    };
    let judged: Vec<Judged> = by_policy(cases).into_iter().map(judge).collect();
    let mut out = String::new();
    for one in &judged {
        let (error, is_within) = one.error();
        let verdict = if is_within { "within" } else { "outside" };
        let _ = writeln!(out, "makespan of {}: {error}, {verdict} {:.0} %", one.name, MAKESPAN_GOAL * 100.0);
    }
    if judged.len() > 1 {
        out.push_str(&order(&judged));
    }
    out
}

/// The order of the policies, and of each pair that came the other way round whether the forecast told them apart.
fn order(judged: &[Judged]) -> String {
    let sorted = |key: fn(&Judged) -> f64| {
        let mut sorted: Vec<&Judged> = judged.iter().collect();
        sorted.sort_by(|one, other| key(one).total_cmp(&key(other)));
        sorted.iter().map(|one| one.name).collect::<Vec<_>>()
    };
    let (forecast, actual) = (sorted(|one| one.median_forecast()), sorted(|one| one.actual));
    if forecast == actual {
        return format!("order of the policies: {}, as forecast\n", actual.join(", "));
    }
    let (mut pairs, mut is_wrong) = (String::new(), false);
    for (index, one) in judged.iter().enumerate() {
        for other in &judged[index + 1..] {
            let (first, second) = if one.actual <= other.actual { (one, other) } else { (other, one) };
            if first.median_forecast() <= second.median_forecast() {
                continue;
            }
            let is_apart = one.is_apart_from(other);
            is_wrong |= is_apart;
            let apart = if is_apart { "were forecast apart" } else { "have bands that overlap" };
            let _ = writeln!(pairs, "- {} came before {}; they {apart}", first.name, second.name);
        }
    }
    let verdict = if is_wrong { "not as forecast" } else { "as far as the forecast tells them apart as forecast" };
    format!("order of the policies: {}; {verdict}, which was {}\n{pairs}", actual.join(", "), forecast.join(", "))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::together::plan::tests::{a_move, plan};

    /// A trial of a policy with one guest, x, forecast to take 10 s (9 to 11), or what `forecast` says instead.
    fn case(policy: &str, makespan: Option<f64>, forecast: Option<Value>) -> Case {
        let seconds = makespan.unwrap_or(60.0);
        let observed = json!({
            "format": "migcast.observed/1", "requested": "2026-01-01T00:00:00Z", "guest": "x", "hypervisor": "qemu",
            "hypervisor_version": "10.0.2", "accelerator": "tcg", "link_bits_per_second": 104, "settings": [],
            "completed": makespan.is_some(), "migration_time_seconds": seconds, "downtime_seconds": 1.05,
            "sent_bytes": 1,
        });
        let trial = json!({
            "format": kept::FORMAT, "requested": "2026-01-01T00:00:00Z", "policy": policy, "plan": "plan-1.json",
            "from": "here", "link_bits_per_second": 104, "settings": [], "machine_cores": 2, "guests_cpu_cores": 0.5,
            "other_cpu_cores": 0.1, "makespan_seconds": makespan,
            "moves": [{ "begun_seconds": 0.0, "ended_seconds": seconds, "observed": observed }],
        });
        let mut policy = plan(json!({}), &[a_move("x", "a", "b", |_| {})]).unwrap().policies.remove(0);
        if let Some(forecast) = forecast {
            policy.makespan_seconds = serde_json::from_value(forecast).unwrap();
        }
        Case { trial: serde_json::from_value(trial).unwrap(), forecast: policy }
    }

    fn band(p5: f64, p50: f64, p95: f64) -> Option<Value> {
        Some(json!({ "p5": p5, "p50": p50, "p95": p95 }))
    }

    #[test]
    fn rows_have_medians_and_count_what_the_band_holds() {
        let cases = [case("p", Some(8.0), None), case("p", Some(10.5), None), case("p", Some(12.5), None)];
        let table = table(&cases);
        let rows: Vec<&str> = table.lines().collect();
        assert!(rows[2].starts_with("| p | 3 | 10.50 / 10.00 (9.00 to 11.00) / -4.8 %; 1 of 3 |"), "{table}");
        assert!(rows[6].starts_with("| p | x | 0.00 / 1.00 (0.90 to 1.10) / –; 0 of 3 | 10.50 / 1.00"), "{table}");
        assert!(rows[6].contains("| 1050 / 1000 (900 to 1100) / -4.8 %; 3 of 3 |"), "{table}");
    }

    #[test]
    fn a_trial_with_a_guest_that_was_given_up_never_ended() {
        let cases = [case("p", None, None)];
        assert!(
            table(&cases).lines().nth(2).unwrap().starts_with("| p | 1 | never / 10.00 (9.00 to 11.00) / –; 0 of 1")
        );
        assert_eq!(summary(&cases), "makespan of p: never, forecast 10.00 s, outside 10 %\n");
        let cases = [case("p", None, Some(json!({})))];
        assert_eq!(summary(&cases), "makespan of p: never, as forecast, within 10 %\n");
    }

    #[test]
    fn an_order_that_is_not_as_forecast_names_each_pair_and_whether_it_was_told_apart() {
        let right = [case("p", Some(10.5), None), case("q", Some(20.0), band(18.0, 19.0, 21.0))];
        let expected = "makespan of p: -4.8 %, within 10 %\nmakespan of q: -5.0 %, within 10 %\n\
                        order of the policies: p, q, as forecast\n";
        assert_eq!(summary(&right), expected);
        let wrong = [
            case("p", Some(25.0), None),
            case("q", Some(20.0), band(18.0, 19.0, 21.0)),
            case("r", Some(19.5), band(19.0, 20.0, 21.0)),
        ];
        let expected = "order of the policies: r, q, p; not as forecast, which was p, q, r\n\
                        - q came before p; they were forecast apart\n- r came before p; they were forecast apart\n\
                        - r came before q; they have bands that overlap\n";
        assert!(summary(&wrong).ends_with(expected), "{}", summary(&wrong));
        let expected = "order of the policies: r, q; as far as the forecast tells them apart as forecast, which was q, r\n\
                        - r came before q; they have bands that overlap\n";
        assert!(summary(&wrong[1..]).ends_with(expected), "{}", summary(&wrong[1..]));
    }

    #[test]
    fn a_plan_that_has_become_another_one_keeps_its_first_forecast() {
        let mut cases = [case("planned", Some(10.0), None), case("planned", Some(12.0), None)];
        cases[1].trial.plan = PathBuf::from("plan-2.json");
        let mut asked = 0;
        let stay = forecast_again(&mut cases, |trial| {
            asked += 1;
            let reserve = if trial.plan == Path::new("plan-1.json") { 0 } else { 1 };
            let one = a_move("x", "a", "b", |one| one["reserve_bits_per_second"] = json!(reserve));
            let mut plan = plan(json!({}), &[one])?;
            plan.policies[0].makespan_seconds.p50 = Some(11.0);
            Ok(plan)
        });
        assert_eq!(asked, 2);
        assert!(stay.unwrap()[0].ends_with("the plan is another one now, its first forecast stays"));
        assert_eq!(cases.map(|case| case.forecast.makespan_seconds.p50), [Some(11.0), Some(10.0)]);
    }

    #[test]
    fn void_and_disturbed_trials_are_told_apart_from_sound_ones() {
        let (mut void, mut disturbed) = (case("p", Some(10.0), None), case("p", Some(10.0), None));
        void.trial.guests_cpu_cores = 1.4;
        disturbed.trial.other_cpu_cores = Some(0.5);
        let (sound, faults) = sound(vec![void, case("p", Some(10.0), None), disturbed]);
        assert_eq!(sound.len(), 1);
        assert!(
            faults[0].ends_with("void, the guests alone used 1.40 of 2 cores, allowed is less than 1.40"),
            "{faults:?}"
        );
        assert!(faults[1].ends_with("left out, 0.50 cores were used by others"), "{faults:?}");
    }
}
