//! Migrations that are kept in a folder with their recordings, and what migcast forecasts of them.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use super::trial::Migration;
use crate::prediction::answer;

/// The file of migrations within a results folder, a JSON object a line.
const MIGRATIONS: &str = "migrations.jsonl";

/// Appends migrations to those of a folder.
///
/// # Errors
/// The file cannot be written.
pub fn append(folder: &Path, migrations: &[Migration]) -> Result<()> {
    let path = folder.join(MIGRATIONS);
    let place = || path.display().to_string();
    let mut file = OpenOptions::new().append(true).create(true).open(&path).with_context(place)?;
    migrations.iter().try_for_each(|of| writeln!(file, "{}", serde_json::to_string(of)?).with_context(place))
}

/// The migrations of a folder.
///
/// # Errors
/// The file is not there, or a line of it is no migration.
pub fn read(folder: &Path) -> Result<Vec<Migration>> {
    let path = folder.join(MIGRATIONS);
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    text.lines().map(|line| serde_json::from_str(line).with_context(|| format!("{}: {line}", path.display()))).collect()
}

/// What was forecast of a migration.
#[derive(Clone, Debug, PartialEq)]
pub struct Forecast {
    /// By whose rules.
    pub algorithm: String,
    /// Median of the migration time, in seconds.
    pub seconds: Option<f64>,
    /// Pages of each round of the median start, the final one included.
    pub rounds: Vec<u64>,
}

/// Forecasts a migration of a folder from its guest's recording there.
///
/// # Errors
/// The program fails.
pub fn forecast(program: &Path, folder: &Path, of: &Migration, platform: Option<&Path>) -> Result<Forecast> {
    let mut command = Command::new(program);
    command.arg("predict").arg(folder.join(&of.guest)).args(["--json", "--start", "all", "--link"]);
    command.arg(format!("{}B/s", of.bytes_per_second));
    let said = answer(&mut command, platform)?;
    let rounds = said["iterations_of_median"].as_array().map(Vec::as_slice).unwrap_or_default();
    let pages = |round: &Value| round["sent_pages"].as_u64().context("migcast predict says no sent_pages of a round");
    Ok(Forecast {
        algorithm: said["algorithm"].as_str().unwrap_or_default().to_owned(),
        seconds: said["migration_time_seconds"]["p50"].as_f64(),
        rounds: rounds.iter().map(pages).collect::<Result<_>>()?,
    })
}
