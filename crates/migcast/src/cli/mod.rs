//! The command line: one module per command, each `Args` in, exit code out.
//!
//! Results go to standard output, everything else to standard error. Exit codes: 0 done, 1 bad input or failure (one
//! line on standard error), 2 usage, 3 done but a stated limit is not met; `record` adds its own (see [`record`]).

mod algorithms;
mod backtest;
mod calibrate;
mod consolidate;
mod fleet;
mod history;
mod observe;
mod past;
mod plan;
mod predict;
mod rated;
mod record;
mod recorded;
mod rules;
mod scenario;
mod sla;
mod source;
mod subject;
mod sweep;
mod tune;
mod when;

use std::io;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Forecasts the live migration of virtual machines, before anything moves.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Record which pages a running guest writes
    Record(record::Args),
    /// Look at, import, export, merge or cut histories
    #[command(subcommand)]
    History(history::Command),
    /// Forecast a migration from a history or from a constant dirty rate
    Predict(predict::Args),
    /// Forecast it at many points, over one or two varied quantities
    Sweep(sweep::Args),
    /// Read logs of real migrations as observed migrations
    Observe(observe::Args),
    /// Fit a platform file to migrations that were really seen
    Calibrate(calibrate::Args),
    /// How many migrations a service level agreement allows, and what is left of it after so many
    Sla(sla::Args),
    /// Which times of the day or week are better for a migration, and whether the past can tell
    When(when::Args),
    /// Which settings keep a promise about migration time and downtime, at the least harm
    Tune(tune::Args),
    /// When hypervisors and managers would have stopped this guest, and how a rule that knows its past does
    Rules(rules::Args),
    /// Which hosts can be emptied and switched off, by which migrations, and whether that pays
    Consolidate(consolidate::Args),
    /// In which order guests are best moved, how many at once, where to, and how long that takes
    Plan(plan::Args),
    /// How long emptying a host takes under the platform's own limits
    DrainTime(plan::DrainArgs),
    /// Forecast each part of a history from what came before it
    Backtest(backtest::Args),
    /// List the hypervisors' algorithms, or one with its settings
    Algorithms(algorithms::Args),
}

/// Parses the command line, runs the command and turns an error into one line and exit code 1.
pub(crate) fn run() -> ExitCode {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(tracing_subscriber::EnvFilter::from_env("MIGCAST_LOG"))
        .init();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return refuse(&error),
    };
    // A pipe that breaks under a recorder leads to the guest.
    let prints_results = !matches!(cli.command, Command::Record(_));
    let outcome = match cli.command {
        Command::Record(args) => record::run(&args),
        Command::History(command) => history::run(&command),
        Command::Predict(args) => predict::run(&args),
        Command::Sweep(args) => sweep::run(&args),
        Command::Observe(args) => observe::run(&args),
        Command::Calibrate(args) => calibrate::run(&args),
        Command::Backtest(args) => backtest::run(&args),
        Command::Sla(args) => sla::run(&args),
        Command::When(args) => when::run(&args),
        Command::Tune(args) => tune::run(&args),
        Command::Rules(args) => rules::run(&args),
        Command::Consolidate(args) => consolidate::run(&args),
        Command::Plan(args) => plan::run(&args),
        Command::DrainTime(args) => plan::drain_time(&args),
        Command::Algorithms(args) => algorithms::run(&args),
    };
    outcome.unwrap_or_else(|error| {
        if prints_results && is_broken_pipe(&error) {
            // Whoever reads the output has seen enough.
            return ExitCode::SUCCESS;
        }
        eprintln!("migcast: {}", one_line(&error));
        ExitCode::from(1)
    })
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>()).any(|e| e.kind() == io::ErrorKind::BrokenPipe)
}

/// An error with its causes in one line; a cause that the line already ends with is not repeated.
fn one_line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if line.is_empty() {
            line = cause;
        } else if !line.ends_with(&cause) {
            line = format!("{line}: {cause}");
        }
    }
    line
}

/// A value that cannot be read is bad input: one line and exit code 1. Everything else is usage, clap's own way.
fn refuse(error: &clap::Error) -> ExitCode {
    use clap::error::{ContextKind, ContextValue, ErrorKind};
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => text.clone(),
        Some(ContextValue::Strings(texts)) => texts.join(", "),
        _ => String::new(),
    };
    // A value left out altogether is usage, too, and comes with no value.
    let is_value = matches!(error.kind(), ErrorKind::ValueValidation | ErrorKind::InvalidValue);
    if !is_value || text(ContextKind::InvalidValue).is_empty() {
        error.exit()
    }
    let argument = text(ContextKind::InvalidArg);
    let argument = argument.split(' ').next().unwrap_or_default();
    let reason = std::error::Error::source(error).map(ToString::to_string);
    eprintln!(
        "migcast: {argument}: {}",
        reason.unwrap_or_else(|| {
            format!("`{}` is not allowed: {}", text(ContextKind::InvalidValue), text(ContextKind::ValidValue))
        })
    );
    ExitCode::from(1)
}
