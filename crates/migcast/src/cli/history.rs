//! STUB
use std::process::ExitCode;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Show what a history holds
    Info,
}

pub(crate) fn run(_command: &Command) -> anyhow::Result<ExitCode> {
    anyhow::bail!("not there yet")
}
