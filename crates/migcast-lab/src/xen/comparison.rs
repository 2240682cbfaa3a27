//! Real migrations beside their forecasts: round by round, as the paper's table, and in a few figures.

use std::fmt::Write;

use migcast_model::quantity::show_rate;
use migcast_model::units::BytesPerSec;

use super::kept::Forecast;
use super::log::Migration;
use crate::comparison;

/// A round is forecast rightly if it is within this share of its pages, or so many of them.
const SHARE: f64 = 0.05;
const PAGES: f64 = 64.0;

/// One guest at one rate: what was forecast, and what happened.
#[derive(Clone, Debug)]
pub struct Case {
    /// The forecast.
    pub forecast: Forecast,
    /// The migrations, at least one.
    pub runs: Vec<Migration>,
}

impl Case {
    /// The guest's name.
    pub fn guest(&self) -> &str {
        &self.runs[0].guest
    }

    /// Rate of the pipe, for people.
    pub fn rate(&self) -> String {
        show_rate(BytesPerSec::new(self.runs[0].bytes_per_second))
    }

    /// Pages of each round in the median over the runs that had as many rounds as most.
    pub fn rounds(&self) -> Vec<f64> {
        let counts: Vec<f64> = self.runs.iter().map(|run| run.rounds.len() as f64).collect();
        let count = lower_median(counts) as usize;
        let alike: Vec<&Migration> = self.runs.iter().filter(|run| run.rounds.len() == count).collect();
        (0..count).map(|at| median(alike.iter().map(|run| run.rounds[at].pages as f64))).collect()
    }

    /// Median of the migration time, in seconds.
    pub fn seconds(&self) -> f64 {
        median(self.runs.iter().map(|run| run.seconds().unwrap_or(f64::INFINITY)))
    }

    /// Median of the downtime, in seconds.
    pub fn downtime(&self) -> f64 {
        median(self.runs.iter().map(|run| run.downtime().unwrap_or(f64::INFINITY)))
    }

    fn stood(&self) -> String {
        let stood = comparison::median(self.runs.iter().filter_map(|run| run.stood));
        stood.map_or_else(|| "not known".to_owned(), |seconds| format!("{seconds:.2}"))
    }

    /// Median of the bytes.
    pub fn bytes(&self) -> f64 {
        median(self.runs.iter().map(|run| run.bytes as f64))
    }
}

/// Every round of every migration, with the forecast above.
pub fn rounds(cases: &[Case]) -> String {
    let mut text = format!(
        "{:12}{:>12}{:>10}{:>9}{:>9}{:>9}  pages sent, round by round; the last with the guest suspended\n",
        "guest", "pipe", "", "time", "down", "stood"
    );
    for case in cases {
        let Forecast { seconds, downtime, rounds, .. } = &case.forecast;
        let (guest, rate) = (case.guest(), case.rate());
        let pages = in_a_row(rounds.iter().copied());
        let _ = writeln!(
            text,
            "{guest:12}{rate:>12}{:>10}{:>7.1} s{:>7.2} s{:9}  {pages}",
            "forecast", seconds[1], downtime[1], ""
        );
        for run in &case.runs {
            let pages = in_a_row(run.rounds.iter().map(|round| round.pages));
            let state = if run.went_on { "" } else { "  the guest did NOT go on" };
            let stood = run.stood.map_or_else(|| "-".to_owned(), |stood| format!("{stood:.2} s"));
            let (time, down) = (run.seconds().unwrap_or(f64::INFINITY), run.downtime().unwrap_or(f64::INFINITY));
            let _ = writeln!(text, "{:24}{:>10}{time:>7.1} s{down:>7.2} s{stood:>9}  {pages}{state}", "", "actual");
        }
    }
    text
}

/// The paper's table: actual, predicted, error; medians over the runs.
pub fn table(cases: &[Case]) -> String {
    let mut text = String::from(
        "| guest | pipe | runs | time, s: actual / predicted / error | downtime, s: actual / predicted / error; as the guest felt \
         it | sent, MB: actual / predicted / error | rounds: actual / predicted |\n\
         | --- | --- | ---: | --- | --- | --- | --- |\n",
    );
    for case in cases {
        let told = &case.forecast;
        let of = |actual: f64, told: f64, digits: usize| {
            format!("{actual:.digits$} / {told:.digits$} / {:+.1} %", (told / actual - 1.0) * 100.0)
        };
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {}; {} | {} | {} / {} |",
            case.guest(),
            case.rate(),
            case.runs.len(),
            of(case.seconds(), told.seconds[1], 1),
            of(case.downtime(), told.downtime[1], 2),
            case.stood(),
            of(case.bytes() / 1e6, told.bytes / 1e6, 1),
            case.rounds().len(),
            told.rounds.len(),
        );
    }
    text
}

/// The same guests under the rules of 2010 and under today's: forecasts from the same recordings, beside what happened.
pub fn rules(classic: &[Forecast], cases: &[Case]) -> String {
    let mut text = String::from(
        "| guest | pipe | today: time, downtime, sent, rounds | forecast of today's rules | forecast of the rules of 2010 |\n\
         | --- | --- | --- | --- | --- |\n",
    );
    let of = |seconds: f64, downtime: f64, bytes: f64, rounds: usize| {
        format!("{seconds:.1} s, {downtime:.2} s, {:.0} MB, {rounds}", bytes / 1e6)
    };
    let told = |told: &Forecast| {
        let Forecast { seconds, downtime, bytes, rounds, reason, .. } = told;
        format!("{}, {reason}", of(seconds[1], downtime[1], *bytes, rounds.len()))
    };
    for (classic, case) in classic.iter().zip(cases) {
        let actual = of(case.seconds(), case.downtime(), case.bytes(), case.rounds().len());
        let (guest, rate, today) = (case.guest(), case.rate(), told(&case.forecast));
        let _ = writeln!(text, "| {guest} | {rate} | {actual} | {today} | {} |", told(classic));
    }
    text
}

/// What the goals are about.
pub fn summary(cases: &[Case]) -> String {
    let mut text = String::new();
    let count = |is: &dyn Fn(&Case, &Migration) -> bool| -> (usize, usize) {
        let all: Vec<bool> = cases.iter().flat_map(|case| case.runs.iter().map(|run| is(case, run))).collect();
        (all.iter().filter(|is| **is).count(), all.len())
    };
    let (right, all) = count(&|case, run| run.rounds.len() == case.forecast.rounds.len());
    let _ = writeln!(text, "{all} migrations; as many rounds as forecast in {right}");
    let near = |case: &Case| -> Vec<bool> {
        let told = case.forecast.rounds.iter().map(|pages| *pages as f64);
        case.rounds().iter().zip(told).map(|(real, told)| (told - real).abs() <= (SHARE * real).max(PAGES)).collect()
    };
    let near: Vec<bool> = cases.iter().flat_map(near).collect();
    let within = near.iter().filter(|is| **is).count();
    let _ = writeln!(text, "pages of a round, median of its runs, within 5 % or 64: {within} of {} rounds", near.len());
    let mut errors = |name: &str, of: &dyn Fn(&Case) -> f64| {
        let all: Vec<f64> = cases.iter().map(|case| of(case).abs() * 100.0).collect();
        let worst = all.iter().copied().fold(0.0, f64::max);
        let _ = writeln!(text, "{name}: median |error| {:.1} %, worst case {worst:.1} %", median(all.into_iter()));
    };
    errors("migration time", &|case| case.forecast.seconds[1] / case.seconds() - 1.0);
    errors("downtime", &|case| case.forecast.downtime[1] / case.downtime() - 1.0);
    errors("downtime less the toolstack's constant", &|case| {
        let resume = case.forecast.resume;
        (case.forecast.downtime[1] - resume) / (case.downtime() - resume) - 1.0
    });
    errors("bytes", &|case| case.forecast.bytes / case.bytes() - 1.0);
    let held = |of: &dyn Fn(&Forecast) -> [f64; 3], real: &dyn Fn(&Migration) -> Option<f64>| {
        count(&|case, run| {
            real(run).is_some_and(|real| (of(&case.forecast)[0]..=of(&case.forecast)[2]).contains(&real))
        })
    };
    let (time, _) = held(&|told| told.seconds, &Migration::seconds);
    let (down, _) = held(&|told| told.downtime, &Migration::downtime);
    let _ = writeln!(text, "inside the 5-95 % band: time {time} of {all}, downtime {down} of {all}");
    text
}

fn in_a_row(pages: impl Iterator<Item = u64>) -> String {
    pages.map(|pages| format!("{pages:>6}")).collect::<Vec<_>>().join(" ")
}

/// The median of values of which there is at least one.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    comparison::median(values).unwrap_or(f64::NAN)
}

/// The lower of the two in the middle: one of the values.
fn lower_median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[(values.len() - 1) / 2]
}

#[cfg(test)]
mod tests {
    use migcast_history::observed::log::xl;

    use super::super::log::Round;
    use super::*;

    fn run(pages: &[u64], downtime: f64) -> Migration {
        let xl = xl::Migration {
            requested: Some(100.0),
            stopped: Some(120.0 - downtime),
            resumed: Some(120.0),
            ..xl::Migration::default()
        };
        Migration {
            guest: "quiet".to_owned(),
            memory_mib: 128,
            version: "4.17.7".to_owned(),
            bytes_per_second: 10_000_000,
            xl,
            bytes: 150_000_000,
            rounds: pages.iter().map(|pages| Round { pages: *pages, holes: 0, began: 0.0 }).collect(),
            stood: Some(downtime + 0.1),
            went_on: true,
        }
    }

    fn case() -> Case {
        let forecast = Forecast {
            algorithm: "xen-4.10".to_owned(),
            reason: "small-set".to_owned(),
            seconds: [18.0, 19.0, 20.0],
            downtime: [0.7, 0.9, 1.0],
            resume: 0.5,
            bytes: 150e6,
            rounds: vec![32_784, 1_000, 300],
        };
        Case {
            forecast,
            runs: vec![run(&[32_784, 1_100, 310], 0.8), run(&[32_784, 1_120, 290], 1.2), run(&[9, 9], 1.0)],
        }
    }

    #[test]
    fn the_goals_are_counted_over_runs_and_rounds() {
        let summary = summary(&[case()]);
        let lines: Vec<&str> = summary.lines().collect();
        assert_eq!(lines[0], "3 migrations; as many rounds as forecast in 2");
        assert_eq!(lines[1], "pages of a round, median of its runs, within 5 % or 64: 2 of 3 rounds");
        assert_eq!(lines[2], "migration time: median |error| 5.0 %, worst case 5.0 %");
        assert_eq!(lines[4], "downtime less the toolstack's constant: median |error| 20.0 %, worst case 20.0 %");
        assert_eq!(lines[6], "inside the 5-95 % band: time 3 of 3, downtime 2 of 3");
    }

    #[test]
    fn tables_show_what_was_forecast_and_what_came() {
        let table = table(&[case()]);
        let row = table.lines().nth(2).unwrap();
        assert!(
            row.starts_with("| quiet | 80 Mbit/s | 3 | 20.0 / 19.0 / -5.0 % | 1.00 / 0.90 / -10.0 %; 1.10 |"),
            "{row}"
        );
        let rounds = rounds(&[case()]);
        assert_eq!(rounds.lines().count(), 5);
        assert!(rounds.contains("forecast   19.0 s   0.90 s            32784   1000    300"), "{rounds}");
        assert!(rules(&[case().forecast], &[case()]).contains("| 19.0 s, 0.90 s, 150 MB, 3, small-set |"));
    }
}
