//! `migcast predict`: one forecast, from a history or from a constant dirty rate.

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, ensure};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use jiff::tz::TimeZone;
use migcast_history::observed::store::Store;
use migcast_model::quantity;

use super::scenario::{self, QUANTILE};
use super::subject::Subject;
use crate::report::{self, By, Limit, PlotFormat, Prediction, Quantity};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    migcast predict testdata/histories/web --link 1Gbit/s\n  \
    migcast predict DIR --link 10Gbit/s --set max-bandwidth=none --set downtime-limit=100ms --max-downtime 200ms\n  \
    migcast predict --memory 4GiB --dirty-rate 2000pages/s --wws 400MiB --algorithm qemu-9.0 --link 1Gbit/s")]
pub(crate) struct Args {
    #[command(flatten)]
    subject: Subject,
    /// Exit with 3 if the guest's downtime exceeds this at the quantile
    #[arg(long, value_name = "TIME", value_parser = quantity::parse_duration)]
    max_downtime: Option<Duration>,
    /// Exit with 3 if the migration time exceeds this at the quantile
    #[arg(long, value_name = "TIME", value_parser = quantity::parse_duration)]
    max_time: Option<Duration>,
    /// Where limits are judged, in (0, 1] [default: 0.95]
    #[arg(long, value_parser = scenario::parse_quantile)]
    quantile: Option<f64>,
    /// Print JSON (migcast.prediction/1) instead of a table
    #[arg(long)]
    json: bool,
    /// Group the starting points of a history by their time of day or week
    #[arg(long, value_enum, requires = "history")]
    by: Option<By>,
    /// Time zone of --by, e.g. Europe/Berlin [default: UTC]
    #[arg(long, value_name = "NAME", requires = "by", value_parser = parse_time_zone)]
    time_zone: Option<TimeZone>,
    /// Write one line per starting point of a history into a CSV file
    #[arg(long, value_name = "FILE.csv", requires = "history")]
    per_start: Option<PathBuf>,
    /// Keep the forecast in a store, to be judged by what happens: `migcast calibrate --review`
    #[arg(long, value_name = "FILE")]
    store: Option<PathBuf>,
    /// Whose forecast is kept [default: the history's guest]
    #[arg(long, value_name = "NAME", requires = "store")]
    guest: Option<String>,
    /// Draw the forecast into a file
    #[arg(long, value_name = "FILE.svg|.png")]
    plot: Option<PathBuf>,
}

pub(super) fn parse_time_zone(text: &str) -> Result<TimeZone, String> {
    TimeZone::get(text)
        .map_err(|_| format!("`{text}` is not a time zone: write its name, such as Europe/Berlin or UTC"))
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if let Some(path) = &args.plot {
        PlotFormat::of(path)?;
    }
    let limited = args.max_downtime.is_some() || args.max_time.is_some();
    ensure!(limited || args.quantile.is_none(), "--quantile belongs to a limit: give --max-downtime or --max-time");
    ensure!(
        args.store.is_none() || args.guest.is_some() || args.subject.history.is_some(),
        "--store: nobody knows whose forecast this is: give --guest NAME"
    );
    let store = args.store.as_deref().map(Store::open).transpose()?;
    let mut prediction = args.subject.forecast(args.max_time.unwrap_or_default().saturating_mul(2))?;
    prediction.quantile = args.quantile.unwrap_or(QUANTILE);
    prediction.limits = limits(args, &prediction);
    if let Some(by) = args.by {
        ensure!(
            !prediction.wall.is_empty(),
            "--by has no meaning here: only starts in a recorded history have a time of day"
        );
        let zone = args.time_zone.clone().unwrap_or(TimeZone::UTC);
        prediction.groups = report::grouped(&prediction, by, &zone);
    }
    let out = &mut io::stdout().lock();
    if args.json {
        report::write_json(out, &prediction)
    } else {
        report::write_table(out, &prediction).and_then(|()| match prediction.groups.is_empty() {
            true => Ok(()),
            false => report::write_groups(out, &prediction.groups),
        })
    }
    .context("standard output")?;
    if let Some(path) = &args.per_start {
        ensure!(
            !prediction.wall.is_empty(),
            "--per-start has no meaning here: only a recorded history has starts of its own"
        );
        report::write_starts(&prediction, path)?;
    }
    if let Some(mut store) = store {
        let guest = args.guest.as_ref().unwrap_or(&prediction.scenario.guest.name);
        store.keep_forecast(&prediction.kept(guest, jiff::Timestamp::now()))?;
    }
    if let Some(path) = &args.plot {
        report::draw(&prediction, path)?;
    }
    Ok(ExitCode::from(if prediction.limits_met() { 0 } else { 3 }))
}

fn limits(args: &Args, prediction: &Prediction) -> Vec<Limit> {
    let stated = [(Quantity::Downtime, args.max_downtime), (Quantity::MigrationTime, args.max_time)];
    let judge = |(quantity, allowed): (Quantity, Option<Duration>)| {
        let allowed = allowed?;
        let reached = prediction.at_quantile(quantity, prediction.quantile);
        Some(Limit { quantity, allowed, met: reached.is_some_and(|seconds| seconds <= allowed.as_secs_f64()) })
    };
    stated.into_iter().filter_map(judge).collect()
}

pub(super) fn progress_bar() -> ProgressBar {
    let target = if io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} starting points, {eta} left")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::with_draw_target(None, target).with_style(style)
}
