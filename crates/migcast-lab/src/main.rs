//! `migcast-lab`: builds, boots and records the laboratory's guests.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run()
}
