//! The tables: coarse enough to be printed anew in seconds.

use std::fmt::Write;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::document::Block;
use super::program::{PLATFORM, Program, number, points, text};

const FIXED: [&str; 4] = ["--algorithm", "xen-classic", "--platform", PLATFORM];
/// The guest's memory, bytes.
const MEMORY: f64 = 1_073_741_824.0;
/// A page in the stream: with its frame number and type.
const PAGE_SENT: f64 = 4104.0;

/// A link of the paper and what is recalled of the paper's bounds for it, times in seconds. Recalled, not checked: the
/// formula's results stand beside them.
struct PaperLink {
    name: &'static str,
    goodput: &'static str,
    bits_per_second: f64,
    times: &'static str,
    downtimes: &'static str,
}

const LINKS: [PaperLink; 3] = [
    PaperLink {
        name: "100 Mbit/s",
        goodput: "94.2Mbit/s",
        bits_per_second: 94.2e6,
        times: "95.3 s … 459.1 s",
        downtimes: "314 ms … 91.5 s",
    },
    PaperLink {
        name: "1 Gbit/s",
        goodput: "935Mbit/s",
        bits_per_second: 935e6,
        times: "13.3 s … 50.1 s",
        downtimes: "314 ms … 9.50 s",
    },
    PaperLink {
        name: "10 Gbit/s",
        goodput: "7.13Gbit/s",
        bits_per_second: 7.13e9,
        times: "5.3 s … 10.1 s",
        downtimes: "314 ms … 1.52 s",
    },
];

/// All blocks.
pub(super) fn all(program: &Program) -> Result<Vec<Block>> {
    Ok(vec![
        ("rates", rates(program)?),
        ("knees", knees(program)?),
        ("bounds", bounds(program)?),
        ("models", models(program)?),
    ])
}

fn seconds(seconds: f64) -> String {
    match seconds {
        ..0.9995 => format!("{:.0} ms", seconds * 1e3),
        ..9.995 => format!("{seconds:.2} s"),
        _ => format!("{seconds:.1} s"),
    }
}

/// A number with its thousands apart.
fn count(number: f64) -> String {
    let whole = number.round() as u64;
    if whole < 1_000 { whole.to_string() } else { format!("{},{:03}", whole / 1_000, whole % 1_000) }
}

/// Why the one migration of this point was stopped.
fn stop_reason(point: &Value) -> Result<&str> {
    let reasons = point["stop_reasons"].as_object().and_then(|reasons| reasons.keys().next());
    Ok(reasons.context("a point has a stop reason")?)
}

fn time(point: &Value) -> Result<f64> {
    number(point, &["migration_time_seconds", "p50"])
}

fn downtime(point: &Value) -> Result<f64> {
    number(point, &["downtime_seconds", "p50"])
}

/// The guest of 1 GiB over these rates.
fn sweep(program: &Program, rates: &str, link: &str, more: &[&str]) -> Result<Value> {
    let rates = format!("dirty-rate={rates}");
    let words = ["sweep", "--memory", "1GiB", "--vary", &rates, "--link", link];
    program.json(&[&words[..], more, &FIXED].concat())
}

/// Migration time and downtime over the dirty rate, for uniform and sequential writes.
fn rates(program: &Program) -> Result<String> {
    let columns = [
        ("uniform over 256 MiB", &["--wws", "256MiB"][..]),
        ("uniform over 1 GiB", &["--wws", "1GiB"]),
        ("sequential over 256 MiB", &["--wws", "256MiB", "--writes", "sequential"]),
        ("sequential over 1 GiB", &["--wws", "1GiB", "--writes", "sequential"]),
    ];
    let sweeps: Result<Vec<Value>> =
        columns.iter().map(|(_, more)| sweep(program, "0:60000pages/s:5000", "935Mbit/s", more)).collect();
    let sweeps = sweeps?;
    let mut table = "| pages/s |".to_owned();
    columns.iter().for_each(|(name, _)| table += &format!(" {name}: time, downtime, stopped by |"));
    table += "\n| ---: |";
    columns.iter().for_each(|_| table += " ---: |");
    for (index, point) in points(&sweeps[0])?.iter().enumerate() {
        write!(table, "\n| {} |", count(number(point, &["dirty_rate_pages_per_second"])?))?;
        for sweep in &sweeps {
            let point = &points(sweep)?[index];
            let (time, downtime) = (seconds(time(point)?), seconds(downtime(point)?));
            write!(table, " {time}, {downtime}, {} |", stop_reason(point)?)?;
        }
    }
    Ok(table)
}

/// Downtime below and above the rate at which a link carries pages.
fn knees(program: &Program) -> Result<String> {
    const SHARES: [f64; 6] = [0.5, 0.75, 0.9, 1.0, 1.1, 1.5];
    let mut table = "| link | carries, pages/s |".to_owned();
    SHARES.iter().for_each(|share| table += &format!(" {:.0} % |", share * 100.0));
    table += "\n| --- | ---: |";
    SHARES.iter().for_each(|_| table += " ---: |");
    for link in &LINKS {
        let knee = link.bits_per_second / 8.0 / PAGE_SENT;
        let rates: Vec<String> = SHARES.iter().map(|share| format!("{:.0}pages/s", knee * share)).collect();
        let swept = sweep(program, &rates.join(","), link.goodput, &[])?;
        write!(table, "\n| {} | {} |", link.name, count(knee))?;
        for point in points(&swept)? {
            write!(table, " {} |", seconds(downtime(point)?))?;
        }
    }
    Ok(table)
}

/// The paper's formula, the simulator's bounds and what was simulated.
fn bounds(program: &Program) -> Result<String> {
    const OVERHEADS: f64 = 4.1;
    const RESUME: f64 = 0.314;
    const RATES: &str = "0,1000,2000,3000,5000,10000,20000,30000,35000,50000,100000,200000,500000pages/s";
    let mut table =
        "| link | | recalled of the paper | the formula | the simulator's bounds | simulated, least and most |\n\
                     | --- | --- | ---: | ---: | ---: | ---: |"
            .to_owned();
    for link in &LINKS {
        let whole = MEMORY * 8.0 / link.bits_per_second;
        let page = 4096.0 * 8.0 / link.bits_per_second;
        let formulas = [(OVERHEADS + whole, OVERHEADS + 5.0 * whole - page), (RESUME, RESUME + whole)];
        let words = ["predict", "--memory", "1GiB", "--dirty-rate", "0pages/s", "--link", link.goodput];
        let predicted = program.json(&[&words[..], &FIXED].concat())?;
        let patterns = ["uniform", "sequential"];
        let swept: Result<Vec<Value>> =
            patterns.iter().map(|pattern| sweep(program, RATES, link.goodput, &["--writes", pattern])).collect();
        let swept = swept?;
        let rows = [
            ("migration time", "migration_time_seconds", link.times),
            ("downtime", "downtime_seconds", link.downtimes),
        ];
        for ((name, key, recalled), (low, high)) in rows.into_iter().zip(formulas) {
            let (min, max) =
                (number(&predicted, &["bounds", key, "min"])?, number(&predicted, &["bounds", key, "max"])?);
            let (mut least, mut most) = (f64::MAX, 0.0);
            for sweep in &swept {
                for point in points(sweep)? {
                    least = f64::min(least, number(point, &[key, "p50"])?);
                    most = f64::max(most, number(point, &[key, "p50"])?);
                }
            }
            // To the nanosecond that times are rounded to.
            ensure!(
                least > min - 1e-8 && most < max + 1e-8,
                "{name} over {}: simulated {least} to {most}, out of the bounds {min} to {max}",
                link.name
            );
            write!(
                table,
                "\n| {} | {name} | {recalled} | {} … {} | {} … {} | {} … {} |",
                link.name,
                seconds(low),
                seconds(high),
                seconds(min),
                seconds(max),
                seconds(least),
                seconds(most)
            )?;
        }
    }
    Ok(table)
}

/// AVG and HIST from the first half of a cyclic history against what the second half does.
fn models(program: &Program) -> Result<String> {
    let (first, second) = (program.first_half(), program.second_half());
    let over_starts = |half| {
        let words = ["sweep", text(half)?, "--vary", "start=0:157s:3s", "--link", "935Mbit/s"];
        program.json(&[&words[..], &FIXED].concat())
    };
    let (hist, actual) = (over_starts(&first)?, over_starts(&second)?);
    let words = ["predict", text(&first)?, "--model", "avg", "--link", "935Mbit/s"];
    let avg = program.json(&[&words[..], &FIXED].concat())?;
    let mut table = "| | | 5 % | median | 95 % | error start by start, mean | starts within 10 % |\n\
                     | --- | --- | ---: | ---: | ---: | ---: | ---: |"
        .to_owned();
    for (name, key) in [("migration time", "migration_time_seconds"), ("downtime", "downtime_seconds")] {
        let values = |sweep: &Value| points(sweep)?.iter().map(|point| number(point, &[key, "p50"])).collect();
        let (actual, hist): (Result<Vec<f64>>, Result<Vec<f64>>) = (values(&actual), values(&hist));
        let (actual, hist) = (actual?, hist?);
        let constant = vec![number(&avg, &[key, "p50"])?; actual.len()];
        for (model, predicted) in [("actual", &actual), ("HIST", &hist), ("AVG", &constant)] {
            let [low, median, high] = [0.05, 0.5, 0.95].map(|q| seconds(quantile(predicted, q)));
            write!(table, "\n| {name} | {model} | {low} | {median} | {high} |")?;
            if model == "actual" {
                table += " | |";
                continue;
            }
            let errors: Vec<f64> = predicted.iter().zip(&actual).map(|(a, b)| (a / b - 1.0).abs()).collect();
            let mean = errors.iter().sum::<f64>() / errors.len() as f64;
            let within = errors.iter().filter(|error| **error <= 0.1).count();
            write!(table, " {:.1} % | {within} of {} |", mean * 100.0, errors.len())?;
        }
    }
    Ok(table)
}

/// The value at the nearest rank.
fn quantile(values: &[f64], q: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[((q * sorted.len() as f64).ceil() as usize).clamp(1, sorted.len()) - 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_nearest_ranks() {
        assert_eq!(quantile(&[3.0, 1.0, 2.0], 0.5), 2.0);
        assert_eq!(quantile(&[3.0, 1.0, 2.0], 0.95), 3.0);
        assert_eq!(quantile(&[3.0, 1.0, 2.0], 0.0), 1.0);
    }

    #[test]
    fn seconds_have_three_digits_or_so() {
        assert_eq!(seconds(0.314), "314 ms");
        assert_eq!(seconds(9.497), "9.50 s");
        assert_eq!(seconds(45.25), "45.2 s");
        assert_eq!((count(217_166.4), count(999.0)), ("217,166".to_owned(), "999".to_owned()));
    }
}
