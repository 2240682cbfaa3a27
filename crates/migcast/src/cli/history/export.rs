//! `migcast history export`: a table of a history in one file.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use anyhow::{Context, bail, ensure};
use clap::{Args, ValueEnum};
use migcast_history::contents::Contents;
use migcast_history::export::{self, ExportError};
use migcast_history::rates::RateSeries;
use migcast_history::reader::History;

#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// Directory of the history
    dir: PathBuf,
    /// What to export [default: windows, of a rate series rates]
    #[arg(long, value_enum)]
    table: Option<Table>,
    /// How [default: parquet if --out ends in .parquet, else csv]
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// File to write, which must not exist; standard output without it
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Table {
    /// One row per window: window,start,end,state,written_pages,zero_pages,cost_us
    Windows,
    /// One row per page written in a window: window,page
    Pages,
    /// One row per count of the WWS index: window,band,bucket,events
    Wws,
    /// One row per rate of a rate series: start,end,written_pages,span_ns
    Rates,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Csv,
    Parquet,
}

pub(super) fn export(args: &ExportArgs) -> anyhow::Result<()> {
    let by_name = args.out.as_ref().and_then(|out| out.extension()).is_some_and(|end| end == "parquet");
    let format = args.format.unwrap_or(if by_name { Format::Parquet } else { Format::Csv });
    ensure!(
        args.out.is_some() || format == Format::Csv,
        "--format parquet needs --out: it is not for reading on a screen"
    );
    let contents = Contents::open(&args.dir)?;
    let table = match (&contents, args.table) {
        (Contents::Windows(_), None) => Table::Windows,
        (Contents::Rates(_), None | Some(Table::Rates)) => Table::Rates,
        (Contents::Windows(_), Some(Table::Rates)) => {
            bail!("--table: a recorded history has no rates, allowed: windows, pages, wws")
        }
        (Contents::Windows(_), Some(table)) => table,
        (Contents::Rates(_), Some(_)) => bail!("--table: a rate series has no pages, allowed: rates"),
    };
    if let Contents::Windows(history) = &contents {
        super::warn(history);
    }
    let write = |out: &mut (dyn Write + Send)| -> Result<(), ExportError> {
        match &contents {
            Contents::Windows(history) => windows(history, table, format, out)?,
            Contents::Rates(series) => rates(series, format, out)?,
        }
        Ok(out.flush()?)
    };
    match &args.out {
        None => Ok(write(&mut BufWriter::new(io::stdout()))?),
        Some(path) => {
            let file = File::create_new(path).with_context(|| format!("cannot create {}", path.display()))?;
            write(&mut BufWriter::new(file)).with_context(|| path.display().to_string())
        }
    }
}

fn windows(
    history: &History,
    table: Table,
    format: Format,
    mut out: &mut (dyn Write + Send),
) -> Result<(), ExportError> {
    match (table, format) {
        (Table::Pages, Format::Csv) => export::pages_csv(history, &mut out),
        (Table::Pages, Format::Parquet) => export::pages_parquet(history, out),
        (Table::Wws, Format::Csv) => export::wws_csv(history, &mut out),
        (Table::Wws, Format::Parquet) => export::wws_parquet(history, out),
        (_, Format::Csv) => export::windows_csv(history, &mut out),
        (_, Format::Parquet) => export::windows_parquet(history, out),
    }
}

fn rates(series: &RateSeries, format: Format, mut out: &mut (dyn Write + Send)) -> Result<(), ExportError> {
    match format {
        Format::Csv => export::rates_csv(series, &mut out),
        Format::Parquet => export::rates_parquet(series, out),
    }
}
