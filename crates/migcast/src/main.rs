//! migcast: forecasts the live migration of virtual machines.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run()
}
