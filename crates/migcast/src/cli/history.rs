//! `migcast history`: look at, import, export, merge and cut histories.

mod chart;
mod document;
mod import;
mod rates;
mod screen;

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Subcommand, ValueEnum};
use migcast_history::contents::Contents;
use migcast_history::damage::ReadError;
use migcast_history::export::{self, ExportError};
use migcast_history::reader::History;
use migcast_history::summary::Summary;
use migcast_history::timeline::Moment;
use migcast_history::trim;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show what histories hold: guest, length, dirty rate over time, write sets, zero pages, recorder cost
    Info(InfoArgs),
    /// Read dirty rates that other tools measured: CSV, QEMU, virsh, KubeVirt
    Import(Box<import::ImportArgs>),
    /// Write a history as CSV (its segments are Parquet already and need no export)
    Export(ExportArgs),
    /// Copy a piece of a history into a new one
    Trim(TrimArgs),
}

#[derive(Debug, Args)]
pub(crate) struct InfoArgs {
    /// Directories of histories
    #[arg(required = true, value_name = "DIR")]
    dirs: Vec<PathBuf>,
    /// Print JSON, one document per history and line ("migcast.history-info/1")
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// Directory of the history
    dir: PathBuf,
    /// What to export
    #[arg(long, value_enum, default_value_t = Table::Windows)]
    table: Table,
    /// File to write, which must not exist; standard output without it
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Table {
    /// One line per window: window,start,end,state,written_pages,zero_pages,cost_us
    Windows,
    /// One line per page written in a window: window,page
    Pages,
}

#[derive(Debug, Args)]
pub(crate) struct TrimArgs {
    /// Directory of the history
    dir: PathBuf,
    /// Keep windows from here on: an offset from the start (90s, 5m) or a time (2026-01-31T12:00:00Z)
    #[arg(long, value_name = "MOMENT")]
    from: Option<Moment>,
    /// Keep windows up to here; only whole windows are kept
    #[arg(long, value_name = "MOMENT")]
    to: Option<Moment>,
    /// Directory of the new history, which must not exist or be empty
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

pub(crate) fn run(command: &Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Info(args) => info(args)?,
        Command::Import(args) => import::import(args)?,
        Command::Export(args) => export(args)?,
        Command::Trim(args) => trim(args)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Columns of the chart over time, and slices of the JSON document.
const SLICES: u32 = 60;

fn info(args: &InfoArgs) -> anyhow::Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    for (index, dir) in args.dirs.iter().enumerate() {
        if index > 0 && !args.json {
            writeln!(out)?;
        }
        match (Contents::open(dir)?, args.json) {
            (Contents::Windows(history), json) => {
                let history = history.without_damaged();
                let summary = summary(&history)?;
                match json {
                    true => write_json(&mut out, &document::Info::of(&history, summary.as_ref()))?,
                    false => screen::info(&mut out, &history, summary.as_ref())?,
                }
            }
            (Contents::Rates(series), true) => write_json(&mut out, &document::Info::of_rates(&series, SLICES))?,
            (Contents::Rates(series), false) => rates::info(&mut out, &series)?,
        }
    }
    Ok(out.flush()?)
}

fn write_json(out: &mut dyn Write, info: &document::Info<'_>) -> io::Result<()> {
    serde_json::to_writer(&mut *out, info)?;
    writeln!(out)
}

/// `None` where no segment was closed: what is known of such a history is worth showing.
fn summary(history: &History) -> Result<Option<Summary>, ReadError> {
    match history.summary(SLICES) {
        Err(ReadError::Empty { .. }) => Ok(None),
        summary => summary.map(Some),
    }
}

fn export(args: &ExportArgs) -> anyhow::Result<()> {
    let history = History::open(&args.dir)?;
    warn(&history);
    let write = |out: &mut dyn Write| -> Result<(), ExportError> {
        match args.table {
            Table::Windows => export::windows_csv(&history, out)?,
            Table::Pages => export::pages_csv(&history, out)?,
        }
        Ok(out.flush()?)
    };
    match &args.out {
        None => Ok(write(&mut BufWriter::new(io::stdout().lock()))?),
        Some(path) => {
            let file = File::create_new(path).with_context(|| format!("cannot create {}", path.display()))?;
            write(&mut BufWriter::new(file)).with_context(|| path.display().to_string())
        }
    }
}

fn trim(args: &TrimArgs) -> anyhow::Result<()> {
    let history = History::open(&args.dir)?;
    warn(&history);
    let timeline = history.timeline()?;
    let from = args.from.map_or(timeline.start_unix_ns(), |moment| timeline.unix_ns(moment));
    let to = args.to.map_or(timeline.end_unix_ns(), |moment| timeline.unix_ns(moment));
    if from >= to {
        anyhow::bail!("--from must lie before --to, and both are counted from {}", name(&args.dir));
    }
    let trimmed = trim::trim(&history, from..to, &args.out)?;
    let seconds = trimmed.end_unix_ns.abs_diff(trimmed.start_unix_ns) as f64 / 1e9;
    Ok(writeln!(io::stdout(), "{}: {} windows, {seconds:.1} s", args.out.display(), trimmed.windows)?)
}

fn warn(history: &History) {
    for problem in history.problems() {
        eprintln!("migcast: warning: {}: {problem}", name(history.dir()));
    }
}

fn name(dir: &Path) -> std::path::Display<'_> {
    dir.display()
}
