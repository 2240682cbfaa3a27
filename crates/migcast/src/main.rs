//! migcast: forecasts the live migration of virtual machines.

mod cli;
mod inventory;
mod platform_file;
mod report;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run()
}
