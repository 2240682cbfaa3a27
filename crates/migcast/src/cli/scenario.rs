//! What a migration is asked for on the command line, and how that becomes a forecast: what `predict` does once and
//! `sweep` for every point.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use indicatif::ProgressBar;
use migcast_history::format::Manifest;
use migcast_history::timeline::Moment;
use migcast_model::algorithm::{Algorithm, qemu};
use migcast_model::bounds::Bounds;
use migcast_model::dirty::{ConstantRate, DirtySource, WritePattern};
use migcast_model::due::DueSource;
use migcast_model::forecast::Forecast;
use migcast_model::guest::Guest;
use migcast_model::link::Link;
use migcast_model::manager;
use migcast_model::outcome::Outcome;
use migcast_model::platform::Platform;
use migcast_model::quantity::{self, show_duration, show_rate};
use migcast_model::sampling::SamplingError;
use migcast_model::simulate::Scenario;
use migcast_model::speed::SpeedScatter;
use migcast_model::units::{ByteCount, BytesPerSec, PageCount, PagesPerSec};

use super::backtest::{Chosen, Hindsight};
use crate::platform_file::PlatformFile;
use crate::report::{HistoryUsed, Model, Prediction, RatesUsed};

/// Where limits are judged if nothing is said.
pub(super) const QUANTILE: f64 = 0.95;
/// Starting points of a history beyond which they are thinned out evenly: quantiles are settled long before. A backtest
/// uses the same, or it would not say what a forecast does.
pub(super) const STARTS_MAX: usize = 1_000;
/// Where uniform writes of a constant rate fall.
const SEED: u64 = 2010;

/// What every forecast can be told besides the guest and the link.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Options {
    /// Pages a constant rate writes at all [default: all memory]
    #[arg(long, value_name = "SIZE", value_parser = quantity::parse_bytes)]
    pub(super) wws: Option<ByteCount>,
    /// How a constant rate writes them [default: uniform]
    #[arg(long, value_enum)]
    pub(super) writes: Option<Writes>,
    /// Hypervisor's rules [default: those of the history's hypervisor]
    #[arg(long, value_name = "NAME")]
    pub(super) algorithm: Option<String>,
    /// What manages the migration and changes its settings as it goes: libvirt, nova, kubevirt, proxmox, vdsm
    #[arg(long, value_name = "NAME")]
    pub(super) manager: Option<String>,
    /// Change a setting of the algorithm or of the manager, e.g. downtime-limit=100ms
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = parse_setting)]
    pub(super) settings: Vec<(String, String)>,
    /// What these hosts cost: a file of `migcast.platform/1`
    #[arg(long, value_name = "FILE")]
    pub(super) platform: Option<PathBuf>,
    /// Replay the history, or only its mean dirty rate [default: hist, avg without a history]
    #[arg(long, value_enum)]
    pub(super) model: Option<ModelName>,
    /// Span over which `--model avg` takes a history's rate [default: 1s]
    #[arg(long, value_name = "SPAN", value_parser = parse_positive)]
    pub(super) avg_span: Option<Duration>,
    /// Read the history page by page, which is exact, or off its WWS index, which is quick [default: pages, unless the guest
    /// or the history is too large for that, or they are no longer kept]
    #[arg(long, value_enum)]
    pub(super) from: Option<ReadFrom>,
    /// When the migration starts: where this guest's own past forecasts it best (see `migcast backtest`; everywhere in a
    /// short history), at every window, in the last minute over and over, or at one point
    #[arg(long, value_name = "best|all|now|OFFSET|TIMESTAMP", default_value = "best", value_parser = parse_start)]
    pub(super) start: Start,
    /// The moment at which the migration starts: whether the history tells what the guest does then depends on how long ago it
    /// ended [default: now; of a backtest the history's end]
    #[arg(long, value_name = "now|end|TIMESTAMP", value_parser = parse_as_of)]
    pub(super) as_of: Option<AsOf>,
    /// A migration that still copies after this counts as not converging [default: three times what the whole memory
    /// takes, at least 60s; until it is over where the algorithm ends by itself, or its manager ends it]
    #[arg(long, value_name = "TIME", value_parser = parse_positive)]
    pub(super) horizon: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum ModelName {
    Hist,
    Avg,
}

/// What of a history a forecast is made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum ReadFrom {
    Pages,
    Index,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Writes {
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

/// What is known of a guest's past.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// Nothing: it is stated on the command line.
    Nothing,
    /// How much it wrote, not which pages.
    Rates,
    /// Which pages it wrote.
    Pages,
}

/// What `--start` asks for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Start {
    Best,
    All,
    Now,
    At(Moment),
}

impl Start {
    /// Whether it leaves out nothing that was recorded.
    pub(super) fn is_everywhere(self) -> bool {
        matches!(self, Start::Best | Start::All)
    }
}

/// What `--as-of` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AsOf {
    Now,
    /// As if the history went on until the migration.
    End,
    At(jiff::Timestamp),
}

impl AsOf {
    /// How long ago a history that ends at `end` then ended.
    pub(super) fn age(self, end: jiff::Timestamp) -> anyhow::Result<Duration> {
        let moment = match self {
            AsOf::End => return Ok(Duration::ZERO),
            // A clock that is behind the recorder's.
            AsOf::Now => jiff::Timestamp::now().max(end),
            AsOf::At(moment) => moment,
        };
        Duration::try_from(moment.duration_since(end)).ok().with_context(|| {
            format!("--as-of: {moment} lies before the end of the history, {end}; migcast history trim --to cuts it")
        })
    }
}

fn parse_as_of(text: &str) -> Result<AsOf, String> {
    match text {
        "now" => Ok(AsOf::Now),
        "end" => Ok(AsOf::End),
        _ => text.parse().map(AsOf::At).map_err(|_| {
            format!("`{text}` is not a moment: write now, end (of the history), or a time such as 2026-01-31T12:00:00Z")
        }),
    }
}

pub(super) fn parse_start(text: &str) -> Result<Start, String> {
    match text {
        "best" => Ok(Start::Best),
        "all" => Ok(Start::All),
        "now" => Ok(Start::Now),
        _ => text.parse().map(Start::At).map_err(|_| {
            format!(
                "`{text}` is not a start: write best, all, now, an offset such as 90s, or a time such as 2026-01-31T12:00:00Z"
            )
        }),
    }
}

pub(super) fn parse_dirty_rate(text: &str) -> Result<PagesPerSec, String> {
    quantity::parse_page_rate(text, Guest::PAGE_SIZE).map_err(|error| error.to_string())
}

pub(super) fn parse_link(text: &str) -> Result<BytesPerSec, String> {
    let rate = quantity::parse_rate(text).map_err(|error| error.to_string())?;
    if rate.get() < 1_000 { Err(format!("`{text}` is too slow: at least 8kbit/s")) } else { Ok(rate) }
}

pub(super) fn parse_positive(text: &str) -> Result<Duration, String> {
    let span = quantity::parse_duration(text).map_err(|error| error.to_string())?;
    if span.is_zero() { Err(format!("`{text}` is too short: more than 0")) } else { Ok(span) }
}

pub(super) fn parse_quantile(text: &str) -> Result<f64, String> {
    let quantile = text.parse().ok().filter(|quantile| *quantile > 0.0 && *quantile <= 1.0);
    quantile.ok_or_else(|| format!("`{text}` is not a quantile: more than 0, at most 1, such as 0.95"))
}

fn parse_setting(text: &str) -> Result<(String, String), String> {
    let (key, value) =
        text.split_once('=').ok_or_else(|| format!("`{text}` is not KEY=VALUE, such as downtime-limit=100ms"))?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}

/// A guest that is only known by its memory and a constant rate.
pub(super) fn guest(memory: ByteCount) -> anyhow::Result<Guest> {
    ensure!(!memory.is_zero(), "--memory: `0` is too small: at least one page of 4KiB");
    let guest = Guest::new("a guest", memory);
    ensure!(guest.memory.get() < 1 << 32, "--memory: more than 16TiB is not supported");
    Ok(guest)
}

impl Options {
    /// An option that changes nothing is a misunderstanding.
    pub(super) fn refuse_idle(&self, known: Known) -> anyhow::Result<()> {
        let (has_history, has_pages) = (known != Known::Nothing, known == Known::Pages);
        let constant = !has_pages || self.model == Some(ModelName::Avg);
        ensure!(constant || self.wws.is_none(), "--wws belongs to --model avg: a history knows its own write set");
        ensure!(
            constant || self.writes.is_none(),
            "--writes belongs to --model avg: a history knows which pages are written"
        );
        ensure!(
            (has_pages && constant) || self.avg_span.is_none(),
            "--avg-span belongs to --model avg with a recorded history, whose rate is taken over it"
        );
        ensure!(
            has_pages || !has_history || self.model != Some(ModelName::Hist),
            "--model hist needs a recorded history: a rate series says nothing of which pages are written"
        );
        ensure!(
            has_pages || self.from.is_none(),
            "--from needs a recorded history: there are pages and an index of nothing else"
        );
        ensure!(
            self.as_of.is_none() || (has_pages && self.start == Start::Best && self.model != Some(ModelName::Avg)),
            "--as-of belongs to --start best and --model hist with a recorded history"
        );
        if !has_history {
            ensure!(self.model != Some(ModelName::Hist), "--model hist needs a history: give its directory");
            ensure!(self.start.is_everywhere(), "--start needs a history: give its directory");
        }
        Ok(())
    }

    /// The algorithm with its settings, and where it came from.
    pub(super) fn algorithm(&self, guest: &Guest, manifest: Option<&Manifest>) -> anyhow::Result<(Algorithm, String)> {
        let recorded =
            manifest.and_then(|of| Algorithm::of_hypervisor(&of.hypervisor, &of.hypervisor_version, &of.accelerator));
        let (mut algorithm, origin) = match (&self.algorithm, recorded) {
            (Some(name), _) => {
                // Other rules, but still the accelerator the guest runs on.
                let accelerator = manifest.map_or("", |of| of.accelerator.as_str());
                (Algorithm::named(name)?.on_accelerator(accelerator), "as asked".to_owned())
            }
            (None, Some(algorithm)) => (algorithm, "the history's hypervisor".to_owned()),
            (None, None) => without_rules(manifest)?,
        };
        self.refuse_twice()?;
        let manager = self.manager.as_deref().map(manager::Choice::named).transpose()?;
        let is_managers = |key: &str| manager.as_ref().is_some_and(|manager| manager.knows(key));
        let (managers, algorithms): (Vec<_>, Vec<_>) = self.settings.iter().partition(|(key, _)| is_managers(key));
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

    /// One of two values for the same setting is a mistake, and nobody knows which.
    fn refuse_twice(&self) -> anyhow::Result<()> {
        let mut keys: Vec<&str> = self.settings.iter().map(|(key, _)| key.as_str()).collect();
        keys.sort_unstable();
        match keys.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => bail!("--set: setting `{}` is given more than once: once is allowed", pair[0]),
            None => Ok(()),
        }
    }

    /// The platform, and a link of this line rate as it is there.
    pub(super) fn hosts(&self, line_rate: BytesPerSec) -> anyhow::Result<(Platform, Link)> {
        let link = Link::ethernet(line_rate);
        Ok(match &self.platform {
            Some(path) => PlatformFile::read(path).map(|(platform, file)| (platform, file.shape(link)))?,
            None => (Platform::default(), link),
        })
    }

    /// What a forecast for hosts that nobody measured lacks.
    pub(super) fn unknown_hosts(&self) -> Option<String> {
        self.platform.is_none().then(|| {
            "overheads are defaults nobody measured on these hosts, and what the platform scatters is not in the band; give \
             --platform, a file `migcast calibrate` fits to real migrations"
                .to_owned()
        })
    }

    /// A guest that writes at a constant rate.
    pub(super) fn constant_rate(&self, guest: &Guest, rate: PagesPerSec) -> ConstantRate {
        ConstantRate::new(guest.memory, self.working_set(guest), rate, self.writes().pattern(), SEED)
    }

    /// How a constant rate is described.
    pub(super) fn avg_model(&self, source: &ConstantRate, from: Option<(HistoryUsed, Duration)>) -> Model {
        let (rate, working_set) = (source.rate(), source.working_set());
        Model::Avg { rate, working_set, pattern: self.writes().name(), from }
    }

    /// How rates of a series are described.
    pub(super) fn rates_model(&self, used: RatesUsed) -> Model {
        Model::Rates { used, pattern: self.writes().name() }
    }

    /// The rate AVG takes from a history: distinct pages a span holds, as the paper does; with a working set the writes
    /// it takes to make so many pages of it distinct.
    pub(super) fn average_rate(
        &self,
        guest: &Guest,
        source: &dyn DirtySource,
        span: Duration,
    ) -> anyhow::Result<PagesPerSec> {
        ensure!(guest.memory.get() < 1 << 32, "--model avg: a guest of more than 16TiB is not supported");
        self.rate_of(guest, source.write_set(span).mean, span, "give a larger set or a shorter --avg-span")
    }

    /// The rate of writes that makes `distinct` pages distinct within `span`: without a working set just so many a second,
    /// as the paper does. `remedy` is what to do where the working set has too few.
    pub(super) fn rate_of(
        &self,
        guest: &Guest,
        distinct: f64,
        span: Duration,
        remedy: &str,
    ) -> anyhow::Result<PagesPerSec> {
        if self.wws.is_none() {
            return Ok(PagesPerSec::new(distinct / span.as_secs_f64()));
        }
        let set = self.working_set(guest);
        self.writes().pattern().rate_for(set, distinct, span).with_context(|| {
            let (set, span) = (quantity::show_count(set.get()), show_duration(span));
            format!("--wws: {set} pages are too few: the guest writes {distinct:.0} of them in {span}; {remedy}")
        })
    }

    fn working_set(&self, guest: &Guest) -> PageCount {
        self.wws.map_or(guest.memory, |wws| wws.pages_ceil(guest.page_size)).min(guest.memory)
    }

    fn writes(&self) -> Writes {
        self.writes.unwrap_or(Writes::Uniform)
    }
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

/// Finds the sampling error of a scenario over its starts, if it can.
pub(super) type SamplingOf<'a> = &'a dyn Fn(&Scenario, &[Duration]) -> Option<SamplingError>;
/// The starts of a forecast with this horizon as they look afterwards.
pub(super) type HindsightOf<'a> = &'a dyn Fn(&Forecast, Duration) -> Hindsight;

/// Simulates those of some starts that lie before the source, and calls back after each.
pub(super) type EarlierOf<'a> =
    &'a dyn Fn(&Scenario, &[Duration], &(dyn Fn() + Sync)) -> anyhow::Result<Vec<(Duration, Outcome)>>;

/// What a forecast is made from.
pub(super) struct Basis<'a> {
    pub(super) guest: Guest,
    /// The algorithm, and where it came from.
    pub(super) algorithm: (Algorithm, String),
    pub(super) source: &'a dyn DueSource,
    /// When it begins, in the time in which starts are counted.
    pub(super) source_begins: Duration,
    /// What comes before it.
    pub(super) earlier: Option<EarlierOf<'a>>,
    /// Of a sampled history.
    pub(super) sampling: Option<SamplingOf<'a>>,
    pub(super) starts: Vec<Duration>,
    /// Of starts that lie in a guest's past.
    pub(super) hindsight: Option<HindsightOf<'a>>,
    /// When starts were, where that is known without hindsight.
    pub(super) wall: Vec<(Duration, jiff::Timestamp)>,
    pub(super) model: Model,
    pub(super) warnings: Vec<String>,
}

/// One migration that is asked for.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) options: Options,
    /// Line rate.
    pub(super) link: BytesPerSec,
    /// The horizon is at least this, unless it was given.
    pub(super) horizon_min: Duration,
    /// Starting points beyond which they are thinned out.
    pub(super) starts_max: usize,
}

impl<'a> Basis<'a> {
    /// Starts in a source that nothing else is known of.
    pub(super) fn new(
        guest: Guest,
        algorithm: (Algorithm, String),
        source: &'a dyn DueSource,
        starts: Vec<Duration>,
        model: Model,
    ) -> Basis<'a> {
        let (source_begins, warnings) = (Duration::ZERO, Vec::new());
        let (earlier, sampling, hindsight) = (None, None, None);
        let wall = Vec::new();
        Basis { guest, algorithm, source, source_begins, earlier, sampling, starts, hindsight, wall, model, warnings }
    }
}

impl Request {
    /// Forecasts for a guest that writes at a constant rate.
    pub(super) fn at_rate(
        &self,
        guest: Guest,
        rate: PagesPerSec,
        progress: &ProgressBar,
    ) -> anyhow::Result<Prediction> {
        let algorithm = self.options.algorithm(&guest, None)?;
        let source = self.options.constant_rate(&guest, rate);
        let model = self.options.avg_model(&source, None);
        self.forecast(Basis::new(guest, algorithm, &source, vec![Duration::ZERO], model), progress)
    }

    /// The guest under this algorithm, on the hosts that were asked for.
    pub(super) fn scenario(&self, guest: Guest, algorithm: Algorithm) -> anyhow::Result<Scenario> {
        let (platform, link) = self.options.hosts(self.link)?;
        let horizon = self
            .options
            .horizon
            .unwrap_or_else(|| Scenario::default_horizon(&guest, &link, &platform, &algorithm).max(self.horizon_min));
        Ok(Scenario { guest, link, platform, algorithm, horizon })
    }

    /// Forecasts from what is known. Stated limits are left to the caller.
    pub(super) fn forecast(&self, basis: Basis<'_>, progress: &ProgressBar) -> anyhow::Result<Prediction> {
        let Basis {
            guest,
            algorithm,
            source,
            source_begins,
            earlier,
            sampling,
            starts,
            hindsight,
            wall,
            model,
            mut warnings,
        } = basis;
        let (algorithm, algorithm_origin) = algorithm;
        let scenario = self.scenario(guest, algorithm)?;
        let horizon = scenario.horizon;
        progress.set_length(starts.len() as u64);
        let done = || progress.inc(1);
        let before = earlier.map_or_else(|| Ok(Vec::new()), |earlier| earlier(&scenario, &starts, &done))?;
        let in_source = |starts: &[Duration]| -> Vec<Duration> {
            starts.iter().filter_map(|start| start.checked_sub(source_begins)).collect()
        };
        let all_in_source = in_source(&starts);
        let simulated = Forecast::new(&scenario, source, &all_in_source, done).after(before, source_begins);
        progress.finish_and_clear();
        let hindsight = hindsight.map(|hindsight| hindsight(&simulated, horizon));
        let to_choose = hindsight.as_ref().filter(|_| self.options.start == Start::Best);
        let Chosen { starting, starts: chosen, margins } = to_choose.map_or_else(Chosen::as_asked, Hindsight::best);
        let (forecast, simulated, starts) = match chosen {
            Some(chosen) => (simulated.only(&chosen), Some(simulated), chosen),
            None => (simulated, None, starts),
        };
        // What scatters is looked for in what is at hand.
        let starts = Some(in_source(&starts)).filter(|starts| !starts.is_empty()).unwrap_or(all_in_source);
        warnings.extend(self.forecast_warnings(&scenario, source, &forecast));
        let sampling = match sampling.map(|sampling| sampling(&scenario, &starts)) {
            Some(Some(error)) => error,
            Some(None) => {
                warnings.extend(unknown_sampling_error(&forecast));
                SamplingError::default()
            }
            None => SamplingError::default(),
        };
        let speed = SpeedScatter::of(&scenario, source, &starts);
        let bounds = Bounds::of(&scenario, source);
        let (limits, quantile) = (Vec::new(), QUANTILE);
        Ok(Prediction {
            scenario,
            algorithm_origin,
            vcpu_busy_recorded: None,
            starting,
            model,
            forecast,
            margins,
            simulated,
            sampling,
            speed,
            bounds,
            wall: hindsight.map_or(wall, |hindsight| hindsight.wall()),
            groups: Vec::new(),
            limits,
            quantile,
            warnings,
        })
    }

    fn forecast_warnings(&self, scenario: &Scenario, source: &dyn DueSource, forecast: &Forecast) -> Vec<String> {
        let mut warnings: Vec<String> = self.options.unknown_hosts().into_iter().collect();
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
}

/// Where the halves of a sample do not both converge the error of the whole stays unknown; where nothing converges there
/// is no band it could widen.
fn unknown_sampling_error(forecast: &Forecast) -> Option<String> {
    forecast.completed().next().map(|_| {
        "too few pages were tracked to tell what sampling costs this forecast: its band is too narrow; record with more".to_owned()
    })
}
