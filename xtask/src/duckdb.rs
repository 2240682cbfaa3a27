//! `cargo xtask duckdb`: opens shipped histories with another reader of Parquet, by the documented schema alone.
//!
//! DuckDB comes from PyPI into a folder of its own outside of the clone (`cargo xtask setup` makes it), so that clones
//! share it and a clean one finds it.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::shell;

/// The version the check was written with; its Python interface changes between major ones.
const VERSION: &str = "2.0.0";

/// What it is shown: guests of the lab, and a sample of one page in three.
const HISTORIES: [&str; 3] = ["testdata/histories/web", "testdata/histories/hot-cold", "testdata/format/v1/history"];

/// Where the document shows how.
const DOCUMENT: &str = "docs/history-format.md";

pub(crate) fn run() -> Result<()> {
    if !is_there()? {
        let folder = folder()?;
        bail!(
            "DuckDB {VERSION} is missing in {}: run `cargo xtask setup`, which needs PyPI for it once",
            folder.display()
        );
    }
    shell::run(shell::cargo().args(["build", "--package", "migcast"]))?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| crate::root().join("target"), PathBuf::from);
    let mut check = Command::new(python()?);
    check.current_dir(crate::root()).arg("xtask/src/duckdb/check.py");
    shell::run(check.arg(target.join("debug/migcast")).arg(DOCUMENT).args(HISTORIES))
}

/// Whether the right version is installed.
pub(crate) fn is_there() -> Result<bool> {
    let asked = ["-c", "import duckdb; print(duckdb.__version__)"];
    let said = shell::ask(Command::new(python()?).args(asked));
    Ok(said.is_some_and(|said| said.trim() == VERSION))
}

/// Makes the folder and installs it there.
pub(crate) fn install() -> Result<()> {
    shell::run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(folder()?))?;
    let package = format!("duckdb=={VERSION}");
    shell::run(Command::new(python()?).args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        &package,
    ]))
}

/// What `cargo xtask setup` says of it.
pub(crate) fn described() -> Result<String> {
    Ok(format!("DuckDB {VERSION} from PyPI, in {}", folder()?.display()))
}

fn folder() -> Result<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let cache = cache.or_else(home).context("neither XDG_CACHE_HOME nor HOME is set: no place to keep DuckDB")?;
    Ok(cache.join("migcast/duckdb"))
}

fn python() -> Result<PathBuf> {
    Ok(folder()?.join("bin/python"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_lies_outside_of_the_clone() {
        assert!(!folder().unwrap().starts_with(crate::root()));
        assert!(python().unwrap().ends_with("migcast/duckdb/bin/python"));
    }

    #[test]
    fn what_it_is_shown_is_there() {
        for shown in HISTORIES.iter().chain([&DOCUMENT]) {
            assert!(crate::root().join(shown).exists(), "{shown}");
        }
    }
}
