//! `migcast sweep`: the same forecast at many points, over one or two varied quantities.

pub(super) mod vary;

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, anyhow, bail, ensure};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use migcast_model::algorithm::TABLE;
use migcast_model::guest::Guest;
use migcast_model::units::{ByteCount, BytesPerSec, PagesPerSec};
use migcast_model::{manager, quantity};
use rayon::prelude::*;
use vary::Vary;

use super::past::Past;
use super::scenario::{self, Known, ModelName, Options, Request, Start};
use crate::report::sweep::{self, Dimension, Point, Scales, Sweep, Value, Varied};
use crate::report::{PlotFormat, Prediction};

/// Points of a sweep at most.
const POINTS_MAX: usize = 10_000;
/// Starting points of a history at each point of a sweep: a 5 to 95 % band needs no more.
const STARTS_MAX: usize = 200;

/// What can be varied besides an algorithm's settings.
const KEYS: [(&str, Dimension); 8] = [
    ("dirty-rate", Dimension::PageRate),
    ("link", Dimension::Rate),
    ("memory", Dimension::Bytes),
    ("wws", Dimension::Bytes),
    ("start", Dimension::Time),
    ("algorithm", Dimension::Name),
    ("manager", Dimension::Name),
    ("model", Dimension::Name),
];

#[derive(Debug, clap::Args)]
#[command(
    after_help = "KEY is dirty-rate, link, memory, wws, algorithm, manager, with a history start (an offset) and model, or \
    any setting of the algorithm or the manager.\nVALUES are FROM:TO:STEP, FROM:TO:xFACTOR (each is the one before times FACTOR), or \
    VALUE,VALUE,…; a unit at one of them is the unit of all without one.\n\nExamples:\n  \
    migcast sweep --memory 1GiB --link 1Gbit/s --vary dirty-rate=0:60000pages/s:500 --plot rates.svg\n  \
    migcast sweep --memory 1GiB --vary dirty-rate=10:100000pages/s:x1.5 --vary link=1,10Gbit/s --plot links.svg --log-x\n  \
    migcast sweep DIR --link 1Gbit/s --vary downtime-limit=50ms:2s:x1.5 --csv"
)]
pub(crate) struct Args {
    /// History to forecast from
    #[arg(value_name = "DIR")]
    history: Option<PathBuf>,
    /// What varies: the first makes the x axis, a second one curve for each of its values
    #[arg(long, value_name = "KEY=VALUES", required = true, value_parser = vary::parse)]
    vary: Vec<Vary>,
    /// Memory of a guest without a history
    #[arg(long, value_name = "SIZE", conflicts_with = "history", value_parser = quantity::parse_bytes)]
    memory: Option<ByteCount>,
    /// Its writes per second: 2000pages/s or 80MiB/s
    #[arg(long, value_name = "RATE", conflicts_with = "history", value_parser = scenario::parse_dirty_rate)]
    dirty_rate: Option<PagesPerSec>,
    /// Line rate between source and target: 1Gbit/s, 125MB/s
    #[arg(long, value_name = "RATE", value_parser = scenario::parse_link)]
    link: Option<BytesPerSec>,
    #[command(flatten)]
    options: Options,
    /// Print JSON (migcast.sweep/1) instead of a table
    #[arg(long)]
    json: bool,
    /// Print CSV instead of a table
    #[arg(long, conflicts_with = "json")]
    csv: bool,
    /// Draw migration time and downtime into a file
    #[arg(long, value_name = "FILE.svg|.png")]
    plot: Option<PathBuf>,
    /// Draw with a logarithmic x axis
    #[arg(long, requires = "plot")]
    log_x: bool,
    /// Draw with logarithmic times
    #[arg(long, requires = "plot")]
    log_y: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let (x, curves) = varied(args)?;
    let scales = Scales { log_x: args.log_x, log_y: args.log_y };
    if let Some(path) = &args.plot {
        PlotFormat::of(path)?;
        sweep::refuse_undrawable(&x, curves.as_ref(), scales)?;
    }
    let sweep = simulate(args, x, curves)?;
    let out = &mut io::stdout().lock();
    match (args.json, args.csv) {
        (true, _) => sweep::write_json(out, &sweep),
        (_, true) => sweep::write_csv(out, &sweep),
        _ => sweep::write_table(out, &sweep),
    }
    .context("standard output")?;
    if let Some(path) = &args.plot {
        sweep::draw(&sweep, scales, path)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The quantity of the x axis, and that of the curves.
fn varied(args: &Args) -> anyhow::Result<(Varied, Option<Varied>)> {
    let [x, curves @ ..] = &args.vary[..] else { bail!("--vary is missing") };
    ensure!(curves.len() <= 1, "--vary: {} are too many: one for the x axis, one for the curves", args.vary.len());
    ensure!(curves.iter().all(|vary| vary.key != x.key), "--vary {}: it is varied twice", x.key);
    let values = |vary: &Vary| {
        refuse_unknown_key(&vary.key)?;
        refuse_fixed(args, &vary.key)?;
        let known = KEYS.iter().find(|(key, _)| *key == vary.key);
        vary.values(known.map(|(_, dimension)| *dimension)).map_err(|error| anyhow!("--vary {error}"))
    };
    let (x, curves) = (values(x)?, curves.first().map(values).transpose()?);
    let points = x.values.len() * curves.as_ref().map_or(1, |varied| varied.values.len());
    ensure!(points <= POINTS_MAX, "--vary: {points} points are too many: at most {POINTS_MAX}");
    Ok((x, curves))
}

/// What varies cannot be fixed as well, and some of it means nothing to some guests.
fn refuse_fixed(args: &Args, key: &str) -> anyhow::Result<()> {
    let options = &args.options;
    let has_history = args.history.is_some();
    let fixed = match key {
        "dirty-rate" => args.dirty_rate.is_some(),
        "link" => args.link.is_some(),
        "memory" => args.memory.is_some(),
        "wws" => options.wws.is_some(),
        "start" => !options.start.is_everywhere(),
        "algorithm" => options.algorithm.is_some(),
        "manager" => options.manager.is_some(),
        "model" => options.model.is_some(),
        _ => false,
    };
    ensure!(!fixed, "--vary {key}: --{key} is given, too; leave one of them out");
    ensure!(
        options.settings.iter().all(|(set, _)| set != key),
        "--vary {key}: --set {key} is given, too; leave one of them out"
    );
    ensure!(
        !(has_history && matches!(key, "dirty-rate" | "memory")),
        "--vary {key}: a history knows its own; vary it for a guest without one"
    );
    ensure!(has_history || !matches!(key, "start" | "model"), "--vary {key} needs a history: give its directory");
    Ok(())
}

/// One point as it is asked for.
#[derive(Clone, Debug)]
struct Asked {
    memory: Option<ByteCount>,
    dirty_rate: Option<PagesPerSec>,
    link: Option<BytesPerSec>,
    options: Options,
}

impl Asked {
    /// The same with this value.
    fn with(mut self, key: &str, value: &Value) -> anyhow::Result<Asked> {
        let text = value.text.as_str();
        let wrong = |error: String| anyhow!("--vary {key}: {error}");
        let bytes = || quantity::parse_bytes(text).map_err(|error| wrong(error.to_string()));
        match key {
            "dirty-rate" => self.dirty_rate = Some(scenario::parse_dirty_rate(text).map_err(wrong)?),
            "link" => self.link = Some(scenario::parse_link(text).map_err(wrong)?),
            "memory" => self.memory = Some(bytes()?),
            "wws" => self.options.wws = Some(bytes()?),
            "start" => self.options.start = scenario::parse_start(text).map_err(wrong)?,
            "algorithm" => self.options.algorithm = Some(text.to_owned()),
            "manager" => self.options.manager = Some(text.to_owned()),
            "model" => {
                let model = <ModelName as clap::ValueEnum>::from_str(text, false);
                self.options.model = Some(model.map_err(|_| wrong(format!("`{text}` is not allowed: hist, avg")))?);
            }
            setting => self.options.settings.push((setting.to_owned(), text.to_owned())),
        }
        Ok(self)
    }

    fn request(&self) -> anyhow::Result<Request> {
        let link = self.link.context("--link is missing: give it, or --vary link=…")?;
        let mut options = self.options.clone();
        // A constant rate has no time of day: it is the same at every start. And points can be compared only if they start
        // at the same times.
        if options.model == Some(ModelName::Avg) || options.start == Start::Best {
            options.start = Start::All;
        }
        Ok(Request { options, link, horizon_min: Duration::ZERO, starts_max: STARTS_MAX })
    }

    fn guest(&self, recorded: Option<&Past>) -> anyhow::Result<Guest> {
        match recorded {
            Some(recorded) => Ok(recorded.guest().clone()),
            None => {
                scenario::guest(self.memory.context("--memory is missing: give it, --vary memory=…, or a history")?)
            }
        }
    }

    fn forecast(&self, recorded: Option<&Past>) -> anyhow::Result<Prediction> {
        let (request, hidden) = (self.request()?, ProgressBar::hidden());
        match recorded {
            Some(recorded) => recorded.forecast(&request, &hidden),
            None => {
                let guest = self.guest(None)?;
                let rate = self.dirty_rate.context("--dirty-rate is missing: give it, or --vary dirty-rate=…")?;
                request.at_rate(guest, rate, &hidden)
            }
        }
    }
}

fn simulate(args: &Args, x: Varied, curves: Option<Varied>) -> anyhow::Result<Sweep> {
    let Args { memory, dirty_rate, link, .. } = *args;
    let asked = Asked { memory, dirty_rate, link, options: args.options.clone() };
    let recorded = args.history.as_ref().map(|dir| Past::open(dir, &args.options)).transpose()?;
    let mut points = Vec::new();
    for curve in 0..curves.as_ref().map_or(1, |varied| varied.values.len()) {
        for index in 0..x.values.len() {
            let mut asked = asked.clone().with(&x.key, &x.values[index])?;
            if let Some(varied) = &curves {
                asked = asked.with(&varied.key, &varied.values[curve])?;
            }
            asked.options.refuse_idle(recorded.as_ref().map_or(Known::Nothing, Past::known))?;
            points.push((index, curve, asked));
        }
    }
    for varied in std::iter::once(&x).chain(&curves) {
        refuse_unknown_setting(varied, &points, recorded.as_ref())?;
    }
    let (_, _, asked) = &points[0];
    let first = asked.forecast(recorded.as_ref())?;
    let progress = progress_bar(points.len(), "points");
    let simulated: anyhow::Result<Vec<(Point, Vec<String>)>> = points
        .par_iter()
        .map(|(x, curve, asked)| {
            let prediction = asked.forecast(recorded.as_ref())?;
            progress.inc(1);
            Ok((Point::of(*x, *curve, &prediction), prediction.warnings))
        })
        .collect();
    progress.finish_and_clear();
    let (points, warnings): (Vec<Point>, Vec<Vec<String>>) = simulated?.into_iter().unzip();
    Ok(Sweep { x, curves, points, first, warnings: grouped(&warnings) })
}

/// A setting must be known at every point, and take every value.
fn refuse_unknown_setting(
    varied: &Varied,
    points: &[(usize, usize, Asked)],
    recorded: Option<&Past>,
) -> anyhow::Result<()> {
    for (_, _, asked) in points {
        let guest = asked.guest(recorded)?;
        let manifest = recorded.map(Past::manifest);
        let algorithm = |options: &Options| options.algorithm(&guest, manifest);
        let mut without = asked.options.clone();
        let Some(at) = without.settings.iter().position(|(set, _)| *set == varied.key) else { return Ok(()) };
        without.settings.truncate(at);
        // First without any that vary, so that what is wrong with them is told from what is wrong with `--set`.
        algorithm(&without)?;
        algorithm(&asked.options).map_err(|error| {
            let reason = error.root_cause().to_string();
            anyhow!("--vary: {}", reason.strip_prefix("--set ").unwrap_or(&reason))
        })?;
    }
    Ok(())
}

/// A key that neither a sweep nor any algorithm or manager knows.
fn refuse_unknown_key(key: &str) -> anyhow::Result<()> {
    let algorithms = TABLE.iter().flat_map(|entry| entry.algorithm().settings());
    let managers = manager::TABLE.iter().filter_map(|entry| manager::Choice::named(entry.name).ok());
    let settings = algorithms.chain(managers.flat_map(|manager| manager.settings())).map(|setting| setting.key);
    let known: Vec<&str> = KEYS.iter().map(|(known, _)| *known).chain(settings).collect();
    let similar = known.iter().max_by(|a, b| strsim::jaro_winkler(key, a).total_cmp(&strsim::jaro_winkler(key, b)));
    let nearest = similar.copied().unwrap_or_default();
    ensure!(known.contains(&key), "--vary: `{key}` is not known; nearest: `{nearest}`");
    Ok(())
}

/// Each warning once. Those that differ in figures only count as one.
fn grouped(points: &[Vec<String>]) -> Vec<String> {
    let mut groups: Vec<(&str, Vec<&str>)> = Vec::new();
    for warning in points.iter().flatten() {
        let kind = warning.split(|c: char| c.is_ascii_digit()).next().unwrap_or_default();
        match groups.iter_mut().find(|(known, _)| *known == kind) {
            Some((_, alike)) => alike.push(warning),
            None => groups.push((kind, vec![warning])),
        }
    }
    let shown = |(_, alike): (&str, Vec<&str>)| {
        let (first, count) = (alike[0], alike.len());
        match alike.iter().all(|warning| *warning == first) {
            true if count == points.len() => first.to_owned(),
            true => format!("at {count} of {} points: {first}", points.len()),
            false => format!("at {count} of {} points, with figures of the first: {first}", points.len()),
        }
    };
    groups.into_iter().map(shown).collect()
}

/// A bar for so many of what is counted.
pub(super) fn progress_bar(count: usize, what: &str) -> ProgressBar {
    let target = if io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let style = ProgressStyle::with_template(&format!("{{bar:40}} {{pos}}/{{len}} {what}{{msg}}, {{eta}} left"))
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::with_draw_target(Some(count as u64), target).with_style(style)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_that_differ_in_figures_are_said_once() {
        let points = [&["all", "up to 3 s"][..], &["all", "up to 4 s"], &["all", "some"]];
        let points = points.map(|texts| texts.iter().map(|text| (*text).to_owned()).collect());
        let expected = ["all", "at 2 of 3 points, with figures of the first: up to 3 s", "at 1 of 3 points: some"];
        assert_eq!(grouped(&points), expected);
    }
}
