//! `cargo xtask tidy`: the house rules that no other tool checks.
//!
//! Each rule looks at all files and returns what breaks it; its test shows it failing.

mod commands;
mod dependencies;
mod files;
mod links;
mod sources;

use std::path::Path;

use anyhow::{Result, bail};
use files::Files;

/// What breaks a rule: where, and what is allowed.
type Broken = Vec<String>;

/// A rule: its name and its check.
type Rule = (&'static str, fn(&Files) -> Broken);

const RULES: [Rule; 8] = [
    ("a source file has at most 800 lines", sources::length),
    ("no file or module is named utils, common, helpers or types", sources::names),
    ("no test is ignored", sources::ignored_tests),
    ("no path of one machine", sources::host_paths),
    ("a crate depends only on crates above it", dependencies::direction),
    ("the model depends on nothing that does input, output or time", dependencies::pure_model),
    ("every document is linked from README.md or ARCHITECTURE.md, every link leads somewhere", links::documents),
    ("every command named in README.md exists", commands::in_readme),
];

/// Checks all rules on the repository at `root`.
pub(crate) fn run(root: &Path) -> Result<()> {
    let files = Files::read(root)?;
    let mut broken = 0;
    for (name, rule) in RULES {
        for finding in rule(&files) {
            eprintln!("tidy: {finding} ({name})");
            broken += 1;
        }
    }
    if broken > 0 {
        bail!("tidy: {broken} findings");
    }
    println!("tidy: {} files, {} rules, nothing broken", files.len(), RULES.len());
    Ok(())
}
