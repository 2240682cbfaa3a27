//! `migcast predict`: one forecast, from a history or from a constant dirty rate.

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use migcast_history::format::Manifest;
use migcast_history::reader::History;
use migcast_history::timeline::{Moment, Timeline};
use migcast_model::algorithm::{Algorithm, qemu};
use migcast_model::bounds::Bounds;
use migcast_model::dirty::{ConstantRate, DirtySource, PageReplay, PageSource, WritePattern};
use migcast_model::forecast::{Forecast, thinned};
use migcast_model::guest::Guest;
use migcast_model::link::Link;
use migcast_model::manager;
use migcast_model::platform::Platform;
use migcast_model::quantity::{self, show_duration, show_rate};
use migcast_model::sampling::SamplingError;
use migcast_model::simulate::Scenario;
use migcast_model::speed::SpeedScatter;
use migcast_model::units::{ByteCount, BytesPerSec, PageCount, PagesPerSec};

use crate::platform_file::PlatformFile;
use crate::report::{self, HistoryUsed, Limit, Model, PlotFormat, Prediction, Quantity};

/// Starting points of `--start all` beyond which they are thinned out evenly: quantiles are settled long before.
const STARTS_MAX: usize = 1_000;
/// Where limits are judged if nothing is said.
const QUANTILE: f64 = 0.95;
/// Over how long `--model avg` takes a history's rate if nothing is said.
const AVG_SPAN: Duration = Duration::from_secs(1);
/// What `--start now` replays: the history's last minute.
const NOW_SPAN: Duration = Duration::from_secs(60);
/// Where uniform writes of a constant rate fall.
const SEED: u64 = 2010;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    migcast predict testdata/histories/web --link 1Gbit/s\n  \
    migcast predict DIR --link 10Gbit/s --set max-bandwidth=none --set downtime-limit=100ms --max-downtime 200ms\n  \
    migcast predict --memory 4GiB --dirty-rate 2000pages/s --wws 400MiB --algorithm qemu-9.0 --link 1Gbit/s")]
pub(crate) struct Args {
    /// History to forecast from
    #[arg(value_name = "DIR", required_unless_present = "memory")]
    history: Option<PathBuf>,
    /// Memory of a guest without a history
    #[arg(long, value_name = "SIZE", conflicts_with = "history", requires = "dirty_rate", value_parser = quantity::parse_bytes)]
    memory: Option<ByteCount>,
    /// Its writes per second: 2000pages/s or 80MiB/s. Measure while it is not being migrated: the rate a hypervisor
    /// reports during a migration depends on the link
    #[arg(long, value_name = "RATE", requires = "memory", value_parser = parse_dirty_rate)]
    dirty_rate: Option<PagesPerSec>,
    /// Pages a constant rate writes at all [default: all memory]
    #[arg(long, value_name = "SIZE", value_parser = quantity::parse_bytes)]
    wws: Option<ByteCount>,
    /// How a constant rate writes them [default: uniform]
    #[arg(long, value_enum)]
    writes: Option<Writes>,
    /// Hypervisor's rules [default: those of the history's hypervisor]
    #[arg(long, value_name = "NAME")]
    algorithm: Option<String>,
    /// What manages the migration and changes its settings as it goes: libvirt, nova, kubevirt, proxmox, vdsm
    #[arg(long, value_name = "NAME")]
    manager: Option<String>,
    /// Change a setting of the algorithm or of the manager, e.g. downtime-limit=100ms
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = parse_setting)]
    settings: Vec<(String, String)>,
    /// Line rate between source and target: 1Gbit/s, 125MB/s
    #[arg(long, value_name = "RATE", value_parser = parse_link)]
    link: BytesPerSec,
    /// What these hosts cost: a file of `migcast.platform/1`
    #[arg(long, value_name = "FILE")]
    platform: Option<PathBuf>,
    /// Replay the history, or only its mean dirty rate [default: hist, avg without a history]
    #[arg(long, value_enum)]
    model: Option<ModelName>,
    /// Span over which `--model avg` takes a history's rate [default: 1s]
    #[arg(long, value_name = "SPAN", value_parser = parse_positive)]
    avg_span: Option<Duration>,
    /// When the migration starts: at every window, in the last minute over and over, or at one point
    #[arg(long, value_name = "all|now|OFFSET|TIMESTAMP", default_value = "all", value_parser = parse_start)]
    start: Start,
    /// Exit with 3 if the guest's downtime exceeds this at the quantile
    #[arg(long, value_name = "TIME", value_parser = quantity::parse_duration)]
    max_downtime: Option<Duration>,
    /// Exit with 3 if the migration time exceeds this at the quantile
    #[arg(long, value_name = "TIME", value_parser = quantity::parse_duration)]
    max_time: Option<Duration>,
    /// Where limits are judged, in (0, 1] [default: 0.95]
    #[arg(long, value_parser = parse_quantile)]
    quantile: Option<f64>,
    /// A migration that still copies after this counts as not converging [default: three times what the whole memory
    /// takes, at least 60s]
    #[arg(long, value_name = "TIME", value_parser = parse_positive)]
    horizon: Option<Duration>,
    /// Print JSON (migcast.prediction/1) instead of a table
    #[arg(long)]
    json: bool,
    /// Draw the forecast into a file
    #[arg(long, value_name = "FILE.svg|.png")]
    plot: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum ModelName {
    Hist,
    Avg,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Writes {
    Uniform,
    Sequential,
}

impl Writes {
    fn pattern(self) -> WritePattern {
        match self {
            Writes::Uniform => WritePattern::Uniform,
            Writes::Sequential => WritePattern::Sequential,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Writes::Uniform => "uniform",
            Writes::Sequential => "sequential",
        }
    }
}

/// What `--start` asks for.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Start {
    All,
    Now,
    At(Moment),
}

fn parse_start(text: &str) -> Result<Start, String> {
    match text {
        "all" => Ok(Start::All),
        "now" => Ok(Start::Now),
        _ => text.parse().map(Start::At).map_err(|_| {
            format!(
                "`{text}` is not a start: write all, now, an offset such as 90s, or a time such as 2026-01-31T12:00:00Z"
            )
        }),
    }
}

fn parse_dirty_rate(text: &str) -> Result<PagesPerSec, String> {
    quantity::parse_page_rate(text, Guest::PAGE_SIZE).map_err(|error| error.to_string())
}

fn parse_link(text: &str) -> Result<BytesPerSec, String> {
    let rate = quantity::parse_rate(text).map_err(|error| error.to_string())?;
    if rate.get() < 1_000 { Err(format!("`{text}` is too slow: at least 8kbit/s")) } else { Ok(rate) }
}

fn parse_positive(text: &str) -> Result<Duration, String> {
    let span = quantity::parse_duration(text).map_err(|error| error.to_string())?;
    if span.is_zero() { Err(format!("`{text}` is too short: more than 0")) } else { Ok(span) }
}

fn parse_quantile(text: &str) -> Result<f64, String> {
    let quantile = text.parse().ok().filter(|quantile| *quantile > 0.0 && *quantile <= 1.0);
    quantile.ok_or_else(|| format!("`{text}` is not a quantile: more than 0, at most 1, such as 0.95"))
}

fn parse_setting(text: &str) -> Result<(String, String), String> {
    let (key, value) =
        text.split_once('=').ok_or_else(|| format!("`{text}` is not KEY=VALUE, such as downtime-limit=100ms"))?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if let Some(path) = &args.plot {
        PlotFormat::of(path)?;
    }
    refuse_idle_options(args)?;
    let prediction = match &args.history {
        Some(dir) => from_history(args, dir)?,
        None => from_rate(args)?,
    };
    let out = &mut io::stdout().lock();
    if args.json { report::write_json(out, &prediction) } else { report::write_table(out, &prediction) }
        .context("standard output")?;
    if let Some(path) = &args.plot {
        report::draw(&prediction, path)?;
    }
    Ok(ExitCode::from(if prediction.limits_met() { 0 } else { 3 }))
}

/// An option that changes nothing is a misunderstanding.
fn refuse_idle_options(args: &Args) -> anyhow::Result<()> {
    let constant = args.history.is_none() || args.model == Some(ModelName::Avg);
    ensure!(constant || args.wws.is_none(), "--wws belongs to --model avg: a history knows its own write set");
    ensure!(
        constant || args.writes.is_none(),
        "--writes belongs to --model avg: a history knows which pages are written"
    );
    let from_history = args.history.is_some() && args.model == Some(ModelName::Avg);
    ensure!(
        from_history || args.avg_span.is_none(),
        "--avg-span belongs to --model avg with a history, whose rate is taken over it"
    );
    let limited = args.max_downtime.is_some() || args.max_time.is_some();
    ensure!(limited || args.quantile.is_none(), "--quantile belongs to a limit: give --max-downtime or --max-time");
    Ok(())
}

/// A guest that is only known by its memory and a constant rate.
fn from_rate(args: &Args) -> anyhow::Result<Prediction> {
    ensure!(args.model != Some(ModelName::Hist), "--model hist needs a history: give its directory");
    ensure!(args.start == Start::All, "--start needs a history: give its directory");
    let memory = args.memory.context("--memory is missing")?;
    let rate = args.dirty_rate.context("--dirty-rate is missing")?;
    ensure!(!memory.is_zero(), "--memory: `0` is too small: at least one page of 4KiB");
    let guest = Guest::new("a guest", memory);
    ensure!(guest.memory.get() < 1 << 32, "--memory: more than 16TiB is not supported");
    let algorithm = algorithm(args, &guest, None)?;
    let source = constant_rate(args, &guest, rate);
    let model = avg_model(args, &source, None);
    predict(args, guest, algorithm, (&source, None), vec![Duration::ZERO], model, Vec::new())
}

fn from_history(args: &Args, dir: &Path) -> anyhow::Result<Prediction> {
    let history = History::open(dir)?;
    let manifest = history.manifest();
    let timeline = history.timeline()?;
    let mut warnings: Vec<String> =
        history.problems().iter().map(|problem| format!("{problem}; the forecast uses the rest")).collect();
    warnings.extend(history_warnings(&timeline));
    let guest = Guest {
        name: manifest.guest_name.clone(),
        memory: PageCount::new(history.tracked().memory()),
        page_size: ByteCount::new(manifest.page_size_bytes),
    };
    let algorithm = algorithm(args, &guest, Some(manifest))?;
    let part = replayed_part(args, &timeline)?;
    let replay = history.page_replay(part.clone())?;
    let used = history_used(dir, manifest, &timeline, &replay, part.start);
    if args.model == Some(ModelName::Avg) {
        let span = args.avg_span.unwrap_or(AVG_SPAN);
        let rate = average_rate(args, &guest, &replay, span)?;
        let source = constant_rate(args, &guest, rate).with_zero_of(&replay);
        let model = avg_model(args, &source, Some((used, span)));
        ensure!(args.start == Start::All, "--start has no meaning for --model avg: a constant rate has no time of day");
        return predict(args, guest, algorithm, (&source, None), vec![Duration::ZERO], model, warnings);
    }
    let starts = starts(args, &timeline, &replay)?;
    if args.start == Start::All && starts.len() < replay.windows() {
        warnings.push(format!("{} of {} starting points were used, evenly spread", starts.len(), replay.windows()));
    }
    predict(args, guest, algorithm, (&replay, Some(&replay)), starts, Model::Hist(used), warnings)
}

/// What a replay from the window of index `first` on has used of its history.
fn history_used(dir: &Path, manifest: &Manifest, timeline: &Timeline, replay: &PageReplay, first: u32) -> HistoryUsed {
    let entry = timeline.recorded().find(|entry| entry.index >= first);
    let start = entry.map_or(timeline.start_unix_ns(), |entry| entry.window.start_unix_ns);
    let start = jiff::Timestamp::from_nanosecond(i128::from(start));
    HistoryUsed {
        path: dir.display().to_string(),
        guest_id: manifest.guest_id.to_string(),
        hypervisor: match manifest.hypervisor.as_str() {
            "unknown" => "not recorded from a hypervisor".to_owned(),
            name => format!("{name} {}, {}", manifest.hypervisor_version, manifest.accelerator),
        },
        start: start.unwrap_or(jiff::Timestamp::UNIX_EPOCH),
        recorded: replay.length().unwrap_or_default(),
        windows: replay.windows(),
        sampled_one_in: manifest.sample.one_in,
    }
}

/// Windows that are replayed: all, or the last minute for `--start now`.
fn replayed_part(args: &Args, timeline: &Timeline) -> anyhow::Result<std::ops::Range<u32>> {
    let all = timeline.all();
    if args.start != Start::Now {
        return Ok(all);
    }
    let from = timeline.end_unix_ns().saturating_sub(NOW_SPAN.as_nanos() as i64);
    let first = timeline.recorded().find(|entry| entry.window.start_unix_ns >= from);
    let first = first.with_context(|| {
        let last = timeline.recorded().last().map(|entry| i128::from(entry.window.end_unix_ns));
        let last = last.and_then(|last| jiff::Timestamp::from_nanosecond(last).ok());
        let last = last.map_or_else(|| "nowhere in it either".to_owned(), |last| format!("last at {last:.0}"));
        format!(
            "--start now: nothing was recorded in the history's last minute, {last}; use --start all or record anew"
        )
    })?;
    Ok(first.index..all.end)
}

fn starts(args: &Args, timeline: &Timeline, replay: &PageReplay) -> anyhow::Result<Vec<Duration>> {
    if let Start::At(moment) = args.start {
        let position = timeline.find(moment);
        let (span, start) = (timeline.duration(), jiff::Timestamp::from_nanosecond(timeline.start_unix_ns().into())?);
        let position = position.with_context(|| {
            format!("--start: outside of the history, which is {} from {start:.0} on", show_duration(span))
        })?;
        return Ok(vec![position.recorded_time]);
    }
    Ok(thinned(&replay.window_starts().collect::<Vec<_>>(), STARTS_MAX))
}

/// The rate AVG takes from a history: distinct pages a span holds, as the paper does; with a working set the writes it
/// takes to make so many pages of it distinct.
fn average_rate(args: &Args, guest: &Guest, replay: &PageReplay, span: Duration) -> anyhow::Result<PagesPerSec> {
    ensure!(guest.memory.get() < 1 << 32, "--model avg: a guest of more than 16TiB is not supported");
    if args.wws.is_none() {
        return Ok(replay.average_rate(span));
    }
    let (set, distinct) = (working_set(args, guest), replay.write_set(span).mean);
    writes(args).pattern().rate_for(set, distinct, span).with_context(|| {
        let (set, span) = (quantity::show_count(set.get()), show_duration(span));
        format!(
            "--wws: {set} pages are too few: the guest writes {distinct:.0} of them in {span}; give a larger set or a \
             shorter --avg-span"
        )
    })
}

fn working_set(args: &Args, guest: &Guest) -> PageCount {
    args.wws.map_or(guest.memory, |wws| wws.pages_ceil(guest.page_size)).min(guest.memory)
}

fn writes(args: &Args) -> Writes {
    args.writes.unwrap_or(Writes::Uniform)
}

fn constant_rate(args: &Args, guest: &Guest, rate: PagesPerSec) -> ConstantRate {
    ConstantRate::new(guest.memory, working_set(args, guest), rate, writes(args).pattern(), SEED)
}

fn avg_model(args: &Args, source: &ConstantRate, from: Option<(HistoryUsed, Duration)>) -> Model {
    let (rate, working_set) = (source.rate(), source.working_set());
    Model::Avg { rate, working_set, pattern: writes(args).name(), from }
}

/// The algorithm with its settings, and where it came from.
fn algorithm(args: &Args, guest: &Guest, manifest: Option<&Manifest>) -> anyhow::Result<(Algorithm, String)> {
    let recorded =
        manifest.and_then(|of| Algorithm::of_hypervisor(&of.hypervisor, &of.hypervisor_version, &of.accelerator));
    let (mut algorithm, origin) = match (&args.algorithm, recorded) {
        (Some(name), _) => {
            // Other rules, but still the accelerator the guest runs on.
            let accelerator = manifest.map_or("", |of| of.accelerator.as_str());
            (Algorithm::named(name)?.on_accelerator(accelerator), "as asked".to_owned())
        }
        (None, Some(algorithm)) => (algorithm, "the history's hypervisor".to_owned()),
        (None, None) => without_rules(manifest)?,
    };
    let manager = args.manager.as_deref().map(manager::Choice::named).transpose()?;
    let is_managers = |key: &str| manager.as_ref().is_some_and(|manager| manager.knows(key));
    let (managers, algorithms): (Vec<_>, Vec<_>) = args.settings.iter().partition(|(key, _)| is_managers(key));
    if let Some(mut manager) = manager {
        for (key, value) in managers {
            manager.set(key, value).context("--set")?;
        }
        algorithm = algorithm.managed_by(manager, guest)?;
    }
    for (key, value) in algorithms {
        algorithm.set(key, value).context("--set")?;
    }
    if let Some(contradiction) = algorithm.scheme().contradiction() {
        bail!("--set {contradiction}");
    }
    Ok((algorithm, origin))
}

/// What stands in for a hypervisor whose rules are not known here, or that nobody named.
fn without_rules(manifest: Option<&Manifest>) -> anyhow::Result<(Algorithm, String)> {
    let newest = Algorithm::named("qemu")?;
    Ok(match manifest {
        None => (newest, "the newest QEMU, as none was named".to_owned()),
        Some(of) if of.hypervisor == "qemu" && qemu::Version::is_older_than_all(&of.hypervisor_version) => {
            let (oldest, version) = (qemu::Version::ALL[0], &of.hypervisor_version);
            let algorithm = Algorithm::qemu(oldest, qemu::Settings::default()).on_accelerator(&of.accelerator);
            (algorithm, format!("the oldest rules known here, not checked against the history's QEMU {version}"))
        }
        Some(of) if of.hypervisor == "unknown" => {
            (newest, "the newest QEMU, as the history names no hypervisor".to_owned())
        }
        Some(of) => {
            let (hypervisor, version) = (&of.hypervisor, &of.hypervisor_version);
            (newest, format!("the newest QEMU, as the rules of {hypervisor} {version} are not known here"))
        }
    })
}

/// Forecasts from `source`; `sample` is the history it replays, if it does.
fn predict<S: PageSource>(
    args: &Args,
    guest: Guest,
    (algorithm, algorithm_origin): (Algorithm, String),
    (source, sample): (&S, Option<&PageReplay>),
    starts: Vec<Duration>,
    model: Model,
    mut warnings: Vec<String>,
) -> anyhow::Result<Prediction> {
    let link = Link::ethernet(args.link);
    let (platform, link) = match &args.platform {
        Some(path) => PlatformFile::read(path).map(|(platform, file)| (platform, file.shape(link)))?,
        None => (Platform::default(), link),
    };
    let horizon = args.horizon.unwrap_or_else(|| {
        let horizon = Scenario::default_horizon(&guest, &link, &platform, &algorithm);
        horizon.max(args.max_time.unwrap_or_default().saturating_mul(2))
    });
    let scenario = Scenario { guest, link, platform, algorithm, horizon };
    let progress = progress_bar(starts.len());
    let forecast = Forecast::new(&scenario, source, &starts, || progress.inc(1));
    progress.finish_and_clear();
    warnings.extend(forecast_warnings(args, &scenario, source, &forecast));
    let sampling = match sample.map(|replay| SamplingError::of(&scenario, replay, &starts)) {
        Some(Some(error)) => error,
        Some(None) => {
            warnings.extend(unknown_sampling_error(&forecast));
            SamplingError::default()
        }
        None => SamplingError::default(),
    };
    let speed = SpeedScatter::of(&scenario, source, &starts);
    let bounds = Bounds::of(&scenario, source);
    let limits = limits(args, &scenario.platform, (&sampling, &speed), &forecast);
    let quantile = args.quantile.unwrap_or(QUANTILE);
    Ok(Prediction { scenario, algorithm_origin, model, forecast, sampling, speed, bounds, limits, quantile, warnings })
}

/// Where the halves of a sample do not both converge the error of the whole stays unknown; where nothing converges there
/// is no band it could widen.
fn unknown_sampling_error(forecast: &Forecast) -> Option<String> {
    forecast.completed().next().map(|_| {
        "too few pages were tracked to tell what sampling costs this forecast: its band is too narrow; record with more".to_owned()
    })
}

fn limits(
    args: &Args,
    platform: &Platform,
    (sampling, speed): (&SamplingError, &SpeedScatter),
    forecast: &Forecast,
) -> Vec<Limit> {
    let stated = [(Quantity::Downtime, args.max_downtime), (Quantity::MigrationTime, args.max_time)];
    let judge = |(quantity, allowed): (Quantity, Option<Duration>)| {
        let allowed = allowed?;
        let scatter = quantity.scatter(platform, sampling, speed);
        let quantile = args.quantile.unwrap_or(QUANTILE);
        let reached = forecast.scattered_quantile(|done| quantity.seconds(done), scatter, quantile);
        Some(Limit { quantity, allowed, met: reached.is_some_and(|seconds| seconds <= allowed.as_secs_f64()) })
    };
    stated.into_iter().filter_map(judge).collect()
}

fn progress_bar(starts: usize) -> ProgressBar {
    let target = if io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} starting points, {eta} left")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::with_draw_target(Some(starts as u64), target).with_style(style)
}

/// What a reader of a forecast from this history should know.
fn history_warnings(timeline: &Timeline) -> Vec<String> {
    let mut warnings = Vec::new();
    let missing = timeline.entries().len() - timeline.recorded().count();
    if missing > 0 {
        warnings
            .push(format!("{missing} windows were not recorded and are left out; `migcast history info` says when"));
    }
    warnings
}

fn forecast_warnings<S: PageSource>(args: &Args, scenario: &Scenario, source: &S, forecast: &Forecast) -> Vec<String> {
    let mut warnings = Vec::new();
    if args.platform.is_none() {
        warnings.push(
            "overheads are defaults nobody measured on these hosts, and what the platform scatters is not in the band; \
             give --platform, a file `migcast calibrate` fits to real migrations"
                .to_owned(),
        );
    }
    warnings.extend(scenario.algorithm.scheme().cautions());
    let goodput = scenario.link.goodput();
    if let Some(cap) = scenario.algorithm.scheme().cap().filter(|cap| *cap < goodput) {
        warnings.push(format!(
            "max-bandwidth caps the {} link at {} while the guest runs; libvirt lifts the cap: --set max-bandwidth=none",
            show_rate(goodput),
            show_rate(cap)
        ));
    }
    let longest = forecast.completed().map(|done| done.migration_time).max();
    if let (Some(length), Some(longest)) = (source.length(), longest)
        && longest > length
    {
        warnings.push(format!(
            "migrations of up to {} outlast the history of {}, which is repeated; record longer",
            show_duration(longest),
            show_duration(length)
        ));
    }
    warnings
}
