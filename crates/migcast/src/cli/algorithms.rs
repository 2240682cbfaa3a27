//! `migcast algorithms`: what is known, and each one's settings with the source of their defaults.

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Context;
use migcast_model::algorithm::{Algorithm, TABLE};

/// Columns of running text.
const WIDTH: usize = 100;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// One algorithm, with its settings
    #[arg(value_name = "NAME")]
    name: Option<String>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let out = &mut io::stdout().lock();
    match &args.name {
        Some(name) => write_one(out, &Algorithm::named(name)?),
        None => write_all(out),
    }
    .context("standard output")?;
    Ok(ExitCode::SUCCESS)
}

fn write_all(out: &mut impl Write) -> io::Result<()> {
    TABLE.iter().try_for_each(|entry| writeln!(out, "{:22}{}", entry.name, entry.summary))?;
    writeln!(
        out,
        "\n`qemu` and `xen` are the newest of theirs; each version stands until the next. `migcast algorithms NAME` explains \
         one and lists its settings."
    )
}

fn write_one(out: &mut impl Write, algorithm: &Algorithm) -> io::Result<()> {
    let summary = TABLE.iter().find(|entry| entry.name == algorithm.name()).map(|entry| entry.summary);
    writeln!(out, "{}: {}\n", algorithm.name(), summary.unwrap_or_default())?;
    writeln!(out, "{}\n", textwrap::fill(&algorithm.scheme().explained(), WIDTH))?;
    let settings = algorithm.settings();
    if settings.is_empty() {
        return writeln!(out, "No settings.");
    }
    writeln!(out, "Settings, each changed by --set KEY=VALUE:")?;
    settings.iter().try_for_each(|setting| writeln!(out, "  {:28}{:12}{}", setting.key, setting.value, setting.about))
}
