//! The chores of this repository: `cargo xtask setup|ci|tidy|bench|duckdb|fuzz|golden|paper`, one file each.

mod bench;
mod ci;
mod duckdb;
mod fuzz;
mod golden;
mod packages;
mod paper;
mod setup;
mod shell;
mod tidy;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// The chores of this repository
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Install what the tests need from the system, after listing it
    Setup(setup::Args),
    /// Everything that must hold before a change is taken: format, lints, tests, house rules
    Ci(ci::Args),
    /// The house rules that no other tool checks
    Tidy,
    /// How fast things are, each against something else in the same run
    Bench(bench::Args),
    /// Open shipped histories with DuckDB, by the documented schema, and compare with what migcast says of them
    Duckdb,
    /// Look for inputs that break what reads others' files and texts; needs cargo-fuzz
    Fuzz(fuzz::Args),
    /// Rewrite the golden files from what the tests see now; look at the difference before committing it
    Golden(golden::Args),
    /// Make the figures and tables of docs/paper.md anew, under two minutes after building
    Paper(paper::Args),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().task {
        Task::Setup(args) => setup::run(&args),
        Task::Ci(args) => ci::run(&args),
        Task::Tidy => tidy::run(&root()),
        Task::Bench(args) => bench::run(&args),
        Task::Duckdb => duckdb::run(),
        Task::Fuzz(args) => fuzz::run(&args),
        Task::Golden(args) => golden::run(&args),
        Task::Paper(args) => paper::run(&args),
    };
    report(outcome)
}

fn report(outcome: Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The top of the repository that `cargo xtask` was called in. Asked at run time: two clones that share their build
/// output may share this program, too.
fn root() -> PathBuf {
    let own = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    Path::new(&own).parent().expect("xtask lies in the repository").to_owned()
}
