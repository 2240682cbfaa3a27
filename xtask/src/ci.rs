//! `cargo xtask ci`: what must hold before a change is taken.

use anyhow::Result;

use crate::{duckdb, paper, setup, shell, tidy};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// First list and install what is missing from the system (`cargo xtask setup`)
    #[arg(long)]
    setup: bool,
}

/// Cheap checks first, so that a slip is told early.
pub(crate) fn run(args: &Args) -> Result<()> {
    if args.setup {
        setup::run(&setup::Args::default())?;
    }
    tidy::run(&crate::root())?;
    shell::run(shell::cargo().args(["fmt", "--all", "--check"]))?;
    shell::run(shell::cargo().args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))?;
    // Includes the documentation's examples. Every suite runs even if an early one fails; the exit code tells.
    shell::run(shell::cargo().args(["test", "--workspace", "--no-fail-fast"]))?;
    duckdb::run()?;
    paper::run(&paper::Args { check: true })?;
    println!("ci: all passed");
    Ok(())
}
