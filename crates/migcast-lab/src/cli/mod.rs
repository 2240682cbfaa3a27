//! The laboratory's command line. Results go to standard output, progress to standard error; exit code 1 with one
//! line on failure, 130 when interrupted.

/// Prints a line, like `println!`, for whoever still reads.
macro_rules! say {
    ($($line:tt)*) => { $crate::cli::print(format_args!($($line)*)) };
}

mod guest;
mod life;
mod record;
mod ship;
mod slowdown;
mod stream;
mod together;
mod verify;
mod xen;

use std::fmt;
use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use migcast_lab::interrupt::Interrupt;

/// Real guests for migcast: build, boot, record
#[derive(Debug, Parser)]
#[command(max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List, build and boot guests
    #[command(subcommand)]
    Guest(guest::Command),
    /// Boot a guest and record it with `migcast record`
    Record(record::Record),
    /// Make the recordings in testdata/histories anew
    Ship(ship::Ship),
    /// Compare a recording of the microbenchmark with its own log
    CheckRecord(record::CheckRecord),
    /// Measure how much a recording slows a guest
    Slowdown(slowdown::Slowdown),
    /// Record, forecast, migrate for real and compare
    Verify(verify::Verify),
    /// Migrate several guests in one go as `migcast plan` says, and hold it against its forecasts
    Together(together::Together),
    /// Forecast, migrate and observe a guest again and again as an administrator would, and review it
    Life(life::Life),
    /// Migrate the microbenchmark into a sink and keep which page was sent when
    Stream(stream::Stream),
    /// Hold captured migrations against simulations of them, iteration by iteration
    CompareStream(stream::CompareStream),
    /// The same on a real Xen, run under emulation
    #[command(subcommand)]
    Xen(xen::Command),
    /// Hold what `verify` saw against the forecasts once more, e.g. with another platform
    Compare(verify::Compare),
}

/// A reader that has heard enough (`| head`) ends nothing: a guest that is being migrated is migrated to its end.
fn print(line: fmt::Arguments<'_>) {
    match writeln!(io::stdout(), "{line}") {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => eprintln!("migcast-lab: standard output: {error}"),
        _ => {}
    }
}

/// Parses the command line, runs the command and turns an error into one line.
pub(crate) fn run() -> ExitCode {
    let cli = Cli::parse();
    let outcome = Interrupt::install().and_then(|interrupt| {
        match &cli.command {
            Command::Guest(command) => guest::run(command, &interrupt)?,
            Command::Record(args) => record::record(args, &interrupt)?,
            Command::Ship(args) => ship::ship(args, &interrupt)?,
            Command::CheckRecord(args) => record::check_record(args)?,
            Command::Slowdown(args) => slowdown::slowdown(args, &interrupt)?,
            Command::Verify(args) => verify::verify(args, &interrupt)?,
            Command::Together(args) => together::together(args, &interrupt)?,
            Command::Life(args) => life::life(args, &interrupt)?,
            Command::Stream(args) => stream::stream(args, &interrupt)?,
            Command::CompareStream(args) => stream::compare_stream(args)?,
            Command::Xen(command) => xen::run(command, &interrupt)?,
            Command::Compare(args) => verify::compare(args)?,
        }
        Ok(interrupt.came())
    });
    match outcome {
        Ok(false) => ExitCode::SUCCESS,
        Ok(true) => ExitCode::from(130),
        Err(error) => {
            eprintln!("migcast-lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}
