//! `migcast algorithms`: what is known, and each one's settings with the source of their defaults.

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Context;
use migcast_model::algorithm::{Algorithm, Setting, TABLE};
use migcast_model::manager;

/// Columns of running text.
const WIDTH: usize = 100;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// One algorithm or manager, with its settings
    #[arg(value_name = "NAME")]
    name: Option<String>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let out = &mut io::stdout().lock();
    match &args.name {
        None => write_all(out),
        Some(name) => match manager::TABLE.iter().find(|entry| entry.name == name) {
            Some(entry) => write_manager(out, entry),
            None => write_one(out, &Algorithm::named(name)?),
        },
    }
    .context("standard output")?;
    Ok(ExitCode::SUCCESS)
}

fn write_all(out: &mut impl Write) -> io::Result<()> {
    TABLE.iter().try_for_each(|entry| writeln!(out, "{:22}{}", entry.name, entry.summary))?;
    writeln!(out, "\nManagers of QEMU's migrations, for --manager:")?;
    manager::TABLE.iter().try_for_each(|entry| writeln!(out, "{:22}{}", entry.name, entry.summary))?;
    writeln!(
        out,
        "\n`qemu` and `xen` are the newest of theirs; each version stands until the next.\n`migcast algorithms NAME` explains \
         one and lists its settings."
    )
}

fn write_manager(out: &mut impl Write, entry: &manager::Entry) -> io::Result<()> {
    writeln!(out, "{}: {}\n", entry.name, entry.summary)?;
    let choice = manager::Choice::named(entry.name).expect("it stands in the table");
    writeln!(out, "{}\n", textwrap::fill(&choice.manager().explained(), WIDTH))?;
    write_settings(out, &choice.settings())
}

fn write_one(out: &mut impl Write, algorithm: &Algorithm) -> io::Result<()> {
    let summary = TABLE.iter().find(|entry| entry.name == algorithm.name()).map(|entry| entry.summary);
    writeln!(out, "{}: {}\n", algorithm.name(), summary.unwrap_or_default())?;
    writeln!(out, "{}\n", textwrap::fill(&algorithm.scheme().explained(), WIDTH))?;
    write_settings(out, &algorithm.settings())
}

fn write_settings(out: &mut impl Write, settings: &[Setting]) -> io::Result<()> {
    if settings.is_empty() {
        return writeln!(out, "No settings.");
    }
    let column = |width: fn(&Setting) -> usize| settings.iter().map(width).max().unwrap_or_default() + 2;
    let (keys, values) = (column(|setting| setting.key.len()), column(|setting| setting.value.len()));
    writeln!(out, "Settings, each changed by --set KEY=VALUE:")?;
    settings
        .iter()
        .try_for_each(|setting| writeln!(out, "  {:keys$}{:values$}{}", setting.key, setting.value, setting.about))
}
