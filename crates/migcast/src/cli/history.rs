//! `migcast history`: look at, import, export, merge and cut histories.

mod chart;
mod document;
mod export;
mod import;
mod rates;
mod screen;

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use migcast_history::contents::Contents;
use migcast_history::damage::ReadError;
use migcast_history::merge;
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
    /// Write a table of a history into one file, as CSV or Parquet
    Export(export::ExportArgs),
    /// Lay histories of one guest after each other, as a new one
    Merge(MergeArgs),
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
pub(crate) struct MergeArgs {
    /// Directories of histories, in any order
    #[arg(required = true, num_args = 2.., value_name = "DIR")]
    dirs: Vec<PathBuf>,
    /// Directory of the new history, which must not exist or be empty
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// They are of one guest though their guest ids differ; the new one has the first's
    #[arg(long)]
    same_guest: bool,
}

#[derive(Debug, Args)]
pub(crate) struct TrimArgs {
    /// Directory of the history
    dir: PathBuf,
    /// Keep windows from here on: an offset from the start (90s, 5m) or a time (2026-01-31T12:00:00Z)
    #[arg(long, value_name = "MOMENT")]
    from: Option<Moment>,
    /// Keep windows up to here; only whole windows are kept, and only whole segments (a minute or less) where pages were
    /// taken away
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
        Command::Export(args) => export::export(args)?,
        Command::Merge(args) => merge(args)?,
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

fn merge(args: &MergeArgs) -> anyhow::Result<()> {
    let histories: Vec<History> = args.dirs.iter().map(|dir| History::open(dir)).collect::<Result<_, _>>()?;
    histories.iter().for_each(warn);
    let merged = merge::merge(&histories, args.same_guest, &args.out)?;
    let seconds = merged.end_unix_ns.abs_diff(merged.start_unix_ns) as f64 / 1e9;
    let (out, windows, gaps) = (args.out.display(), merged.windows, merged.gaps);
    let between = if gaps == 1 { "a gap".to_owned() } else { format!("{gaps} gaps") };
    let apart = if gaps == 0 { String::new() } else { format!(", with {between} between them") };
    Ok(writeln!(io::stdout(), "{out}: {windows} windows of {} histories, {seconds:.1} s{apart}", histories.len())?)
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
    let by_segments = if trimmed.by_segments { ", by whole segments, as pages were taken away" } else { "" };
    Ok(writeln!(io::stdout(), "{}: {} windows, {seconds:.1} s{by_segments}", args.out.display(), trimmed.windows)?)
}

fn warn(history: &History) {
    for problem in history.problems() {
        eprintln!("migcast: warning: {}: {problem}", name(history.dir()));
    }
}

fn name(dir: &Path) -> std::path::Display<'_> {
    dir.display()
}
