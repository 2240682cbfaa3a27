//! Trials that are kept in a folder, and what migcast forecasts of them.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use migcast_history::observed;
use serde_json::Value;

use super::comparison::Case;
use super::guest::GUESTS;
use super::log::{self, Migration};
use crate::prediction::answer;

/// The file of observed migrations within a results folder, written anew from the logs.
const OBSERVED: &str = "observed.jsonl";

/// The migrations of a folder, guest by guest.
///
/// # Errors
/// There is none, or a log is none.
pub fn read(folder: &Path) -> Result<Vec<Migration>> {
    let logs = GUESTS.iter().map(|guest| log::path(folder, guest.name)).filter(|path| path.exists());
    let all: Vec<Vec<Migration>> = logs.map(|path| log::read(&path)).collect::<Result<_>>()?;
    ensure!(!all.is_empty(), "{}: no log of a guest's migrations in it", folder.display());
    Ok(all.concat())
}

/// Writes those that completed as `migcast calibrate` reads them.
///
/// # Errors
/// The file cannot be written.
pub fn write_observed(folder: &Path, migrations: &[Migration]) -> Result<()> {
    let path = folder.join(OBSERVED);
    let place = || path.display().to_string();
    if path.exists() {
        fs::remove_file(&path).with_context(place)?;
    }
    let mut completed = migrations.iter().filter_map(Migration::observed);
    completed.try_for_each(|one| observed::append(&path, &one)).with_context(place)
}

/// The migrations of a folder by guest and rate, each case with its forecast.
///
/// # Errors
/// There is none, a log is none, or the program fails.
pub fn cases(program: &Path, folder: &Path, platform: Option<&Path>) -> Result<Vec<Case>> {
    let mut cases: Vec<Case> = Vec::new();
    for run in read(folder)? {
        let alike = |case: &&mut Case| {
            let Migration { guest, bytes_per_second, .. } = &case.runs[0];
            (guest, *bytes_per_second) == (&run.guest, run.bytes_per_second)
        };
        match cases.iter_mut().find(alike) {
            Some(case) => case.runs.push(run),
            None => {
                let forecast = forecast(program, folder, &run, None, platform)?;
                cases.push(Case { forecast, runs: vec![run] });
            }
        }
    }
    Ok(cases)
}

/// What was forecast of a migration.
#[derive(Clone, Debug, PartialEq)]
pub struct Forecast {
    /// By whose rules.
    pub algorithm: String,
    /// Why the median start stops.
    pub reason: String,
    /// 5 %, median and 95 % of the migration time, in seconds; infinite where so many never end.
    pub seconds: [f64; 3],
    /// The same of the downtime.
    pub downtime: [f64; 3],
    /// What of every downtime is the platform's: from the last byte to the guest's first instruction.
    pub resume: f64,
    /// Median of the bytes.
    pub bytes: f64,
    /// Pages of each round of the median start, the final one included; a live round without a page leaves nothing in the
    /// stream and is left out.
    pub rounds: Vec<u64>,
}

/// Forecasts a migration of a folder from its guest's recording there, by the rules of the recorded Xen or by those of
/// `algorithm`.
///
/// # Errors
/// The program fails.
pub fn forecast(
    program: &Path,
    folder: &Path,
    of: &Migration,
    algorithm: Option<&str>,
    platform: Option<&Path>,
) -> Result<Forecast> {
    let mut command = Command::new(program);
    command.arg("predict").arg(folder.join(&of.guest)).args(["--json", "--start", "all", "--link"]);
    command.arg(format!("{}B/s", of.bytes_per_second));
    if let Some(algorithm) = algorithm {
        command.args(["--algorithm", algorithm]);
    }
    let said = answer(&mut command, platform)?;
    let rounds = said["iterations_of_median"].as_array().map(Vec::as_slice).unwrap_or_default();
    let pages = |round: &Value| round["sent_pages"].as_u64().context("migcast predict says no sent_pages of a round");
    let rounds: Vec<u64> = rounds.iter().map(pages).collect::<Result<_>>()?;
    let is_seen = |(number, pages): &(usize, &u64)| **pages > 0 || number + 1 == rounds.len();
    let band = |key: &str| ["p5", "p50", "p95"].map(|at| said[key][at].as_f64().unwrap_or(f64::INFINITY));
    let reasons = said["stop_reasons"].as_object().into_iter().flatten();
    let most = reasons.max_by_key(|(_, count)| count.as_u64()).map(|(reason, _)| reason.clone());
    Ok(Forecast {
        algorithm: said["algorithm"].as_str().unwrap_or_default().to_owned(),
        reason: most.unwrap_or_default(),
        seconds: band("migration_time_seconds"),
        downtime: band("downtime_seconds"),
        resume: said["platform"]["resume_seconds"].as_f64().unwrap_or_default(),
        bytes: said["sent_bytes"]["p50"].as_f64().unwrap_or(f64::INFINITY),
        rounds: rounds.iter().enumerate().filter(is_seen).map(|(_, pages)| *pages).collect(),
    })
}
