//! `migcast observe`: read logs of real migrations as observed migrations.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::ValueEnum;
use migcast_history::observed::{self, xl};
use migcast_model::quantity;
use migcast_model::units::BytesPerSec;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example: xl -vvv migrate web other-host 2>&1 | ts %.s > web.log; migcast observe web.log --from xl-log \
    --guest web --hypervisor-version 4.17.7 --link 10Gbit/s --history web.history --out observed.jsonl"
)]
pub(crate) struct Args {
    /// Logs, each of one or more migrations of the guest
    #[arg(value_name = "LOG", required = true)]
    logs: Vec<PathBuf>,
    /// What kind of log it is
    #[arg(long, value_enum)]
    from: From,
    /// Name of the guest
    #[arg(long, value_name = "NAME")]
    guest: String,
    /// Version of the hypervisor, e.g. 4.17.7
    #[arg(long, value_name = "VERSION")]
    hypervisor_version: String,
    /// Line rate of the link
    #[arg(long, value_name = "RATE", value_parser = quantity::parse_rate)]
    link: BytesPerSec,
    /// The history that the guest had left before; `migcast calibrate` needs it
    #[arg(long, value_name = "DIR")]
    history: Option<PathBuf>,
    /// Settings that were not the defaults
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
    /// A file to which they are appended; standard output if nothing is said
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum From {
    /// `xl -vvv migrate`, each line with its time, or the statistics of Xen before 4.6
    XlLog,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let known = xl::Known {
        guest: args.guest.clone(),
        history: args.history.clone(),
        version: args.hypervisor_version.clone(),
        link_bits_per_second: args.link.bits(),
        settings: args.settings.clone(),
    };
    // All are read before the first is written.
    let mut all = Vec::new();
    for path in &args.logs {
        let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
        all.extend(match args.from {
            From::XlLog => xl::observed(&String::from_utf8_lossy(&bytes), &known, path)?,
        });
    }
    match &args.out {
        Some(out) => {
            all.iter().try_for_each(|one| observed::append(out, one)).with_context(|| out.display().to_string())?;
        }
        None => {
            let mut out = io::stdout().lock();
            for one in &all {
                writeln!(out, "{}", serde_json::to_string(one)?)?;
            }
        }
    }
    let completed = all.iter().filter(|one| one.completed).count();
    let noun = if all.len() == 1 { "migration" } else { "migrations" };
    writeln!(io::stderr(), "{} {noun} of {}, {completed} completed", all.len(), args.guest)?;
    Ok(ExitCode::SUCCESS)
}
