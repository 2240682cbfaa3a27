//! The program as the document's reader calls it, and the histories it is called with.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::shell;

/// The platform of the paper's hosts, below the top of the repository.
pub(super) const PLATFORM: &str = "docs/paper/platform.json";

/// The built program, and a folder for histories that is removed with it.
pub(super) struct Program {
    path: PathBuf,
    folder: PathBuf,
}

/// What is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Build {
    /// The program as users run it, fast.
    Release,
    /// What `cargo test --workspace` has built already: the same packages, so that cargo chooses the same features.
    AsTested,
}

impl Program {
    /// Builds it with what writes the cyclic history, and writes that.
    pub(super) fn build(build: Build) -> Result<Program> {
        let folder = std::env::temp_dir().join(format!("migcast-paper-{}", std::process::id()));
        std::fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
        let (packages, profile) = match build {
            Build::Release => (&["--release", "--package", "migcast", "--package", "migcast-history"][..], "release"),
            Build::AsTested => (&["--workspace"][..], "debug"),
        };
        let built = target_folder()?.join(profile);
        let program = Program { path: built.join("migcast"), folder };
        shell::run(shell::cargo().arg("build").args(packages).args(["--bins", "--examples"]))?;
        shell::run(Command::new(built.join("examples/cyclic")).arg(program.whole()))?;
        for (half, end) in [(program.first_half(), "--to"), (program.second_half(), "--from")] {
            let whole = program.whole();
            let words = ["history", "trim", text(&whole)?, end, "160s", "--out", text(&half)?];
            program.print(&words)?;
        }
        Ok(program)
    }

    /// The guest of `examples/cyclic.rs`: four cycles.
    fn whole(&self) -> PathBuf {
        self.folder.join("cyclic")
    }

    /// Its first two cycles: what is known when a forecast is asked for.
    pub(super) fn first_half(&self) -> PathBuf {
        self.folder.join("first-half")
    }

    /// Its last two: what happens then.
    pub(super) fn second_half(&self) -> PathBuf {
        self.folder.join("second-half")
    }

    /// What it prints.
    pub(super) fn print(&self, words: &[&str]) -> Result<String> {
        // Paths of the document are from the top of the repository.
        let output = Command::new(&self.path).args(words).current_dir(crate::root()).output();
        let output = output.with_context(|| format!("starting {}", self.path.display()))?;
        let told = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "migcast {}: {told}", words.join(" "));
        String::from_utf8(output.stdout).context("migcast prints UTF-8")
    }

    /// What it prints as JSON.
    pub(super) fn json(&self, words: &[&str]) -> Result<Value> {
        let printed = self.print(&[words, &["--json"]].concat())?;
        serde_json::from_str(&printed).with_context(|| format!("migcast {}", words.join(" ")))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.folder) {
            eprintln!("paper: {} is left behind: {error}", self.folder.display());
        }
    }
}

/// Where cargo builds.
fn target_folder() -> Result<PathBuf> {
    let asked = shell::ask(shell::cargo().args(["metadata", "--format-version", "1", "--no-deps"]));
    let metadata: Value = serde_json::from_str(&asked.context("cargo metadata")?).context("cargo metadata")?;
    Ok(PathBuf::from(metadata["target_directory"].as_str().context("cargo metadata names no target directory")?))
}

/// A path as a word of a command line.
pub(super) fn text(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))
}

/// The number at a path of keys such as `["downtime_seconds", "p50"]`; an error where it is missing or null.
pub(super) fn number(of: &Value, keys: &[&str]) -> Result<f64> {
    let value = keys.iter().fold(of, |value, key| &value[*key]);
    value.as_f64().with_context(|| format!("{} is {value}, wanted a number", keys.join(".")))
}

/// The points of a sweep.
pub(super) fn points(sweep: &Value) -> Result<&[Value]> {
    Ok(sweep["points"].as_array().context("a sweep has points")?)
}
