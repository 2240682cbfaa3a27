//! A guest that was recorded, opened for forecasts.

use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use indicatif::ProgressBar;
use migcast_history::format::Manifest;
use migcast_history::reader::History;
use migcast_history::timeline::Timeline;
use migcast_history::vcpu::VcpuTime;
use migcast_model::algorithm::Algorithm;
use migcast_model::forecast::{Forecast, thinned};
use migcast_model::guest::Guest;
use migcast_model::quantity::show_duration;
use migcast_model::simulate::Scenario;
use migcast_model::units::{ByteCount, PageCount};

use super::backtest::Hindsight;
use super::scenario::{Basis, BestOf, ModelName, ReadFrom, Request, SamplingOf, Start};
use super::source::Source;
use crate::report::{HistoryUsed, Model, Prediction};

/// Over how long `--model avg` takes a history's rate if nothing is said.
const AVG_SPAN: Duration = Duration::from_secs(1);
/// The setting of algorithms that slow the vCPUs.
const VCPU_BUSY: &str = "vcpu-busy";
/// So many times as many starting points are used where one costs so little.
const INDEX_STARTS: usize = 10;
/// What `--start now` replays: the history's last minute.
const NOW_SPAN: Duration = Duration::from_secs(60);

/// A history with the part of it that is used.
#[derive(Debug)]
pub(super) struct Recorded {
    history: History,
    timeline: Timeline,
    guest: Guest,
    /// The first window that is used.
    first: u32,
    source: Source,
    used: HistoryUsed,
    /// Percent of their time the vCPUs were busy, where that was watched.
    vcpu_busy: Option<u64>,
    /// What a reader of any forecast from it should know.
    warnings: Vec<String>,
}

impl Recorded {
    /// For migrations that start at `start` of `history`, from what `from` says or what it has.
    pub(super) fn new(history: History, start: Start, from: Option<ReadFrom>) -> anyhow::Result<Recorded> {
        let manifest = history.manifest();
        let timeline = history.timeline()?;
        let mut warnings: Vec<String> =
            history.problems().iter().map(|problem| format!("{problem}; the forecast uses the rest")).collect();
        warnings.extend(missing_windows(&timeline));
        let guest = Guest {
            name: manifest.guest_name.clone(),
            memory: PageCount::new(history.tracked().memory()),
            page_size: ByteCount::new(manifest.page_size_bytes),
        };
        let part = replayed_part(start, &timeline)?;
        let (source, part) = Source::open(&history, &timeline, part, (start, from), &mut warnings)?;
        let vcpu_busy = history.vcpu_time(part.clone()).map(whole_percent);
        let used = history_used(history.dir(), manifest, &timeline, &source, part.start);
        Ok(Recorded { timeline, guest, first: part.start, source, used, vcpu_busy, warnings, history })
    }

    /// Who was recorded.
    pub(super) fn guest(&self) -> &Guest {
        &self.guest
    }

    /// What it says of itself.
    pub(super) fn manifest(&self) -> &Manifest {
        self.history.manifest()
    }

    /// Forecasts from it.
    pub(super) fn forecast(&self, request: &Request, progress: &ProgressBar) -> anyhow::Result<Prediction> {
        let options = &request.options;
        let (guest, source) = (self.guest.clone(), &self.source);
        let (mut algorithm, origin) = options.algorithm(&guest, Some(self.manifest()))?;
        let vcpu_busy_recorded = self.tell_vcpu_busy(&mut algorithm)?;
        let algorithm = (algorithm, origin);
        let told = |prediction| Prediction { vcpu_busy_recorded, ..prediction };
        let mut warnings = self.warnings.clone();
        if options.model == Some(ModelName::Avg) {
            let span = options.avg_span.unwrap_or(AVG_SPAN);
            let rate = options.average_rate(&guest, source.counted(), span)?;
            let source = source.zero_at_start(options.constant_rate(&guest, rate));
            let model = options.avg_model(&source, Some((self.used.clone(), span)));
            ensure!(
                options.start.is_everywhere(),
                "--start has no meaning for --model avg: a constant rate has no time of day"
            );
            let (sampling, best, starts) = (None, None, vec![Duration::ZERO]);
            let basis = Basis { guest, algorithm, source: &source, sampling, starts, best, model, warnings };
            return request.forecast(basis, progress).map(told);
        }
        let most = if source.is_index() { request.starts_max * INDEX_STARTS } else { request.starts_max };
        let starts = self.starts(options.start, most)?;
        if options.start.is_everywhere() && starts.len() < source.windows() {
            let (used, all) = (starts.len(), source.windows());
            warnings.push(format!("{used} of {all} starting points were simulated, evenly spread"));
        }
        let model = Model::Hist(self.used.clone());
        let sampling = |scenario: &Scenario, starts: &[Duration]| source.sampling_error(scenario, starts);
        let best = |simulated: &Forecast, horizon| self.hindsight(simulated, horizon).best();
        let basis = Basis {
            guest,
            algorithm,
            source: source.due_source(),
            sampling: Some(&sampling as SamplingOf<'_>),
            starts,
            best: (options.start == Start::Best).then_some(&best as BestOf<'_>),
            model,
            warnings,
        };
        let prediction = told(request.forecast(basis, progress)?);
        let wall = self.hindsight(prediction.simulated(), prediction.scenario.horizon).wall();
        Ok(Prediction { wall, ..prediction })
    }

    /// The starts of a forecast as they look afterwards.
    pub(super) fn hindsight(&self, forecast: &Forecast, horizon: Duration) -> Hindsight {
        Hindsight::new(&self.timeline, self.first, forecast, horizon)
    }

    /// Tells an algorithm that slows the vCPUs how busy they were, unless the user has. Returns what it was told.
    fn tell_vcpu_busy(&self, algorithm: &mut Algorithm) -> anyhow::Result<Option<u64>> {
        let settings = algorithm.settings();
        let is = |key: &str, value: &str| settings.iter().any(|setting| setting.key == key && setting.value == value);
        let wanted = is("auto-converge", "on") && is(VCPU_BUSY, "none");
        let Some(busy) = self.vcpu_busy.filter(|_| wanted) else { return Ok(None) };
        algorithm.set(VCPU_BUSY, &format!("{busy}%"))?;
        Ok(Some(busy))
    }

    fn starts(&self, start: Start, most: usize) -> anyhow::Result<Vec<Duration>> {
        if let Start::At(moment) = start {
            let timeline = &self.timeline;
            let (span, begin) =
                (timeline.duration(), jiff::Timestamp::from_nanosecond(timeline.start_unix_ns().into())?);
            let position = timeline.find(moment).with_context(|| {
                format!("--start: outside of the history, which is {} from {begin:.0} on", show_duration(span))
            })?;
            let before = timeline.recorded().take_while(|entry| entry.index < self.first);
            let before: Duration = before.map(|entry| entry.window.length()).sum();
            ensure!(position.recorded_time >= before, "--start: before the part of the history that is used");
            return Ok(vec![position.recorded_time - before]);
        }
        Ok(thinned(&self.source.window_starts(), most))
    }
}

/// Of the vCPUs that did the work, in the range that settings take.
fn whole_percent(time: VcpuTime) -> u64 {
    ((100.0 * time.busy_share()).round() as u64).clamp(1, 100)
}

/// What is used of a history from the window of index `first` on.
fn history_used(dir: &Path, manifest: &Manifest, timeline: &Timeline, source: &Source, first: u32) -> HistoryUsed {
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
        recorded: source.counted().length().unwrap_or_default(),
        windows: source.windows(),
        sampled_one_in: manifest.sample.one_in,
        by_index: source.is_index(),
    }
}

/// Windows that are replayed: all, or the last minute for `--start now`.
fn replayed_part(start: Start, timeline: &Timeline) -> anyhow::Result<Range<u32>> {
    let all = timeline.all();
    if start != Start::Now {
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

fn missing_windows(timeline: &Timeline) -> Option<String> {
    let missing = timeline.entries().len() - timeline.recorded().count();
    (missing > 0)
        .then(|| format!("{missing} windows were not recorded and are left out; `migcast history info` says when"))
}
