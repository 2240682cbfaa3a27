//! A guest that was recorded, opened for forecasts.

use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use indicatif::ProgressBar;
use migcast_history::format::Manifest;
use migcast_history::parts::{INDEX_WINDOWS_MAX, with_what_follows};
use migcast_history::reader::History;
use migcast_history::timeline::{Entry, Timeline};
use migcast_history::vcpu::VcpuTime;
use migcast_model::algorithm::Algorithm;
use migcast_model::forecast::{Forecast, thinned};
use migcast_model::guest::Guest;
use migcast_model::outcome::Outcome;
use migcast_model::quantity::{parse_duration, show_duration};
use migcast_model::simulate::Scenario;
use migcast_model::units::{ByteCount, PageCount};

use super::backtest::Hindsight;
use super::past::{Subject, SubjectWrites};
use super::scenario::{AsOf, Basis, EarlierOf, HindsightOf, ModelName, ReadFrom, Request, SamplingOf, Start};
use super::source::{Opened, Source};
use crate::report::{HistoryUsed, Model, Prediction};

/// Over how long `--model avg` takes a history's rate if nothing is said.
const AVG_SPAN: Duration = Duration::from_secs(1);
/// The setting of algorithms that stop a guest when what is left can be sent in a time.
const DOWNTIME_LIMIT: &str = "downtime-limit";
/// So many times a downtime limit is shorter than windows that are too long for it: at 30 ms windows of 25 ms were forecast
/// well, of 100 ms were not (docs/accuracy.md).
const SHORT_BESIDE: u32 = 2;
/// The setting of algorithms that slow the vCPUs.
const VCPU_BUSY: &str = "vcpu-busy";
/// So many times as many starting points are used where one costs so little.
const INDEX_STARTS: usize = 10;
/// Recorded windows of a history that can be halved, at least.
const HALVED_MIN: usize = 20;
/// What `--start now` replays: the history's last minute.
const NOW_SPAN: Duration = Duration::from_secs(60);

/// A history with the part of it that is used.
#[derive(Debug)]
pub(super) struct Recorded {
    history: History,
    timeline: Timeline,
    guest: Guest,
    /// The windows that are used.
    part: Range<u32>,
    /// Those of the first parts, which are too long to be held beside the last; opened one by one.
    earlier: Vec<Range<u32>>,
    /// The last part, or all of it.
    source: Source,
    /// Windows of which an index is held at once, but for those that a part's migrations go on into.
    windows_max: usize,
    /// When that begins: recorded time since the first window that is used.
    source_begins: Duration,
    used: HistoryUsed,
    /// Percent of their time the vCPUs were busy, where that was watched.
    vcpu_busy: Option<u64>,
    /// What a reader of any forecast from it should know.
    warnings: Vec<String>,
}

impl Recorded {
    /// For migrations that start at `start` of `history`, from what `from` says or what it has.
    pub(super) fn new(history: History, start: Start, from: Option<ReadFrom>) -> anyhow::Result<Recorded> {
        Recorded::holding(history, start, from, INDEX_WINDOWS_MAX)
    }

    /// The same, with an index of so many windows at once.
    fn holding(history: History, start: Start, from: Option<ReadFrom>, windows_max: usize) -> anyhow::Result<Recorded> {
        let timeline = history.timeline()?;
        let part = replayed_part(start, &timeline)?;
        Recorded::of_part(history, timeline, part, (start, from), windows_max)
    }

    /// The first and the second half of a history, each as if the other were not known; `None` where it cannot be cut in
    /// two. It is cut between two segments if that is near the middle: an index is of whole segments.
    pub(super) fn halves(dir: &Path, from: Option<ReadFrom>) -> anyhow::Result<Option<[Recorded; 2]>> {
        let history = History::open(dir)?;
        let timeline = history.timeline()?;
        let Some((middle, is_between_segments)) = middle(&history, &timeline) else { return Ok(None) };
        let all = timeline.all();
        let has_pages = history.windows_with_pages().contains(&all.start);
        let from = match (is_between_segments, from) {
            (true, from) => from,
            (false, None | Some(ReadFrom::Pages)) if has_pages => Some(ReadFrom::Pages),
            (false, _) => return Ok(None),
        };
        let half = |part: Range<u32>| {
            let history = History::open(dir)?;
            let timeline = history.timeline()?;
            Recorded::of_part(history, timeline, part, (Start::All, from), INDEX_WINDOWS_MAX)
        };
        Ok(Some([half(all.start..middle)?, half(middle..all.end)?]))
    }

    fn of_part(
        history: History,
        timeline: Timeline,
        part: Range<u32>,
        (start, from): (Start, Option<ReadFrom>),
        windows_max: usize,
    ) -> anyhow::Result<Recorded> {
        let manifest = history.manifest();
        let mut warnings: Vec<String> =
            history.problems().iter().map(|problem| format!("{problem}; the forecast uses the rest")).collect();
        warnings.extend(missing_windows(&timeline));
        let guest = Guest {
            name: manifest.guest_name.clone(),
            memory: PageCount::new(history.tracked().memory()),
            page_size: ByteCount::new(manifest.page_size_bytes),
        };
        let Opened { source, part: held, earlier } =
            Source::open(&history, &timeline, part, (start, from), windows_max)?;
        let part = earlier.first().map_or(held.start, |first| first.start)..held.end;
        let vcpu_busy = history.vcpu_time(part.clone()).map(whole_percent);
        let used = history_used(history.dir(), manifest, &timeline, source.is_index(), &part);
        let source_begins = recorded_time(&timeline, &(part.start..held.start));
        Ok(Recorded {
            timeline,
            guest,
            part,
            earlier,
            source,
            windows_max,
            source_begins,
            used,
            vcpu_busy,
            warnings,
            history,
        })
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
            let source = source.with_zero_pages(options.constant_rate(&guest, rate));
            let model = options.avg_model(&source, Some((self.used.clone(), span)));
            ensure!(
                options.start.is_everywhere(),
                "--start has no meaning for --model avg: a constant rate has no time of day"
            );
            let basis = Basis::new(guest, algorithm, &source, vec![Duration::ZERO], model);
            return request.forecast(Basis { warnings, ..basis }, progress).map(told);
        }
        let most = if source.is_index() { request.starts_max * INDEX_STARTS } else { request.starts_max };
        let starts = self.starts(options.start, most)?;
        if options.start.is_everywhere() && starts.len() < self.used.windows {
            let (used, all) = (starts.len(), self.used.windows);
            warnings.push(format!("{used} of {all} starting points were simulated, evenly spread"));
        }
        warnings.extend(self.coarse_windows(&algorithm.0));
        let model = Model::Hist(self.used.clone());
        let sampling = |scenario: &Scenario, starts: &[Duration]| source.sampling_error(scenario, starts);
        let earlier = |scenario: &Scenario, starts: &[Duration], done: &(dyn Fn() + Sync)| {
            self.forecast_earlier(scenario, starts, done)
        };
        let age = options.as_of.unwrap_or(AsOf::Now).age(self.end())?;
        let hindsight = |simulated: &Forecast, horizon| self.hindsight(simulated, horizon, age);
        let basis = Basis {
            source_begins: self.source_begins,
            earlier: (!self.earlier.is_empty()).then_some(&earlier as EarlierOf<'_>),
            sampling: Some(&sampling as SamplingOf<'_>),
            hindsight: Some(&hindsight as HindsightOf<'_>),
            warnings,
            ..Basis::new(guest, algorithm, source.due_source(), starts, model)
        };
        request.forecast(basis, progress).map(told)
    }

    /// The guest as one of many that are moved, from starts all over what is held of its history.
    pub(super) fn subject(&self, request: &Request) -> anyhow::Result<Subject<'_>> {
        let options = &request.options;
        let (mut algorithm, _) = options.algorithm(&self.guest, Some(self.manifest()))?;
        self.tell_vcpu_busy(&mut algorithm)?;
        let scenario = request.scenario(self.guest.clone(), algorithm)?;
        let (writes, starts) = if options.model == Some(ModelName::Avg) {
            let span = options.avg_span.unwrap_or(AVG_SPAN);
            let rate = options.average_rate(&self.guest, self.source.counted(), span)?;
            (SubjectWrites::at_rate(&options.constant_rate(&self.guest, rate)), vec![Duration::ZERO])
        } else {
            let starts = self.starts(options.start, request.starts_max)?;
            let held: Vec<Duration> = starts.iter().filter_map(|start| start.checked_sub(self.source_begins)).collect();
            (SubjectWrites::Held(self.source.due_source()), held)
        };
        Ok(Subject { scenario, writes, starts, warnings: self.warnings.clone() })
    }

    /// The starts of a forecast as they look afterwards, to who makes another one so long after the history's end.
    pub(super) fn hindsight(&self, forecast: &Forecast, horizon: Duration, age: Duration) -> Hindsight {
        Hindsight::new(&self.timeline, self.part.start, forecast, horizon, age)
    }

    /// Until when the guest is known.
    pub(super) fn end(&self) -> jiff::Timestamp {
        self.timeline.recorded_end().unwrap_or_else(|| self.timeline.end())
    }

    /// Outcomes of the starts before the last part, of which a part at a time is held.
    fn forecast_earlier(
        &self,
        scenario: &Scenario,
        starts: &[Duration],
        done: &(dyn Fn() + Sync),
    ) -> anyhow::Result<Vec<(Duration, Outcome)>> {
        let (mut outcomes, mut begins) = (Vec::new(), Duration::ZERO);
        for part in &self.earlier {
            let end = begins + recorded_time(&self.timeline, part);
            let in_part = starts.iter().filter(|start| (begins..end).contains(start)).map(|start| *start - begins);
            let in_part: Vec<Duration> = in_part.collect();
            if !in_part.is_empty() {
                let windows = with_what_follows(&self.timeline, part, scenario.horizon, self.windows_max);
                let index = self.history.wws_index(windows)?.from_last_zero_map();
                let forecast = Forecast::new(scenario, &index, &in_part, done);
                outcomes.extend(forecast.starts().iter().map(|(start, outcome)| (begins + *start, outcome.clone())));
            }
            begins = end;
        }
        Ok(outcomes)
    }

    /// Says so where a guest is to stand for a time that is short beside the windows, in which it is not recorded when a page
    /// was written.
    fn coarse_windows(&self, algorithm: &Algorithm) -> Option<String> {
        let settings = algorithm.settings();
        let limit = settings.iter().find(|setting| setting.key == DOWNTIME_LIMIT)?;
        let limit = parse_duration(&limit.value).ok()?;
        let window = self.used.recorded / u32::try_from(self.used.windows).ok()?;
        (!limit.is_zero() && limit * SHORT_BESIDE <= window).then(|| {
            format!(
                "in windows of {} it is inferred when pages were written: whether a guest gets below {} as it writes on is \
                 forecast too seldom; record with --window {}ms",
                show_duration(window),
                show_duration(limit),
                limit.as_millis().max(1)
            )
        })
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
            let before = recorded_time(timeline, &(0..self.part.start));
            ensure!(position.recorded_time >= before, "--start: before the part of the history that is used");
            return Ok(vec![position.recorded_time - before]);
        }
        let mut at = Duration::ZERO;
        let begins = |entry: &Entry| {
            let begins = at;
            at += entry.window.length();
            begins
        };
        let in_part = self.timeline.recorded().filter(|entry| self.part.contains(&entry.index));
        Ok(thinned(&in_part.map(begins).collect::<Vec<_>>(), most))
    }
}

/// Of the vCPUs that did the work, in the range that settings take.
fn whole_percent(time: VcpuTime) -> u64 {
    ((100.0 * time.busy_share()).round() as u64).clamp(1, 100)
}

/// The window with which the second half of a history begins, and whether that is the beginning of a segment; `None` where
/// there are too few windows for two halves.
fn middle(history: &History, timeline: &Timeline) -> Option<(u32, bool)> {
    let recorded: Vec<u32> = timeline.recorded().map(|entry| entry.index).collect();
    let place = |index: u32| recorded.partition_point(|recorded| *recorded < index);
    let distance = |index: &u32| place(*index).abs_diff(recorded.len() / 2);
    let between = history.segments().iter().skip(1).map(|segment| segment.windows().start).min_by_key(distance);
    if let Some(index) = between.filter(|index| 10 * distance(index) <= recorded.len()) {
        return Some((index, true));
    }
    (recorded.len() >= HALVED_MIN).then(|| (recorded[recorded.len() / 2], false))
}

/// How long these windows were recorded.
fn recorded_time(timeline: &Timeline, part: &Range<u32>) -> Duration {
    timeline.recorded().filter(|entry| part.contains(&entry.index)).map(|entry| entry.window.length()).sum()
}

/// What is used of a history, which are these windows.
fn history_used(
    dir: &Path,
    manifest: &Manifest,
    timeline: &Timeline,
    by_index: bool,
    part: &Range<u32>,
) -> HistoryUsed {
    let entry = timeline.recorded().find(|entry| entry.index >= part.start);
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
        recorded: recorded_time(timeline, part),
        windows: timeline.recorded().filter(|entry| part.contains(&entry.index)).count(),
        sampled_one_in: manifest.sample.one_in,
        by_index,
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
        let last = timeline.recorded_end();
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

#[cfg(test)]
mod tests {
    use migcast_history::windows::State;
    use migcast_history::writer::{NewWindow, Writer};
    use migcast_model::units::BytesPerSec;

    use super::super::scenario::{Options, STARTS_MAX};
    use super::*;

    const WINDOW_NS: i64 = 100_000_000;

    /// Twenty minutes of a guest of 20,000 pages that writes more from minute to minute, in segments of a minute.
    fn history(dir: &Path) -> History {
        let manifest = r#"{"format": "migcast.history/5", "created": "2026-01-01T00:00:00Z", "recorder": "test",
            "method": "import", "written_means": "dirty-log", "resource": "ram", "guest_name": "rising",
            "guest_id": "67e55044-10b1-426f-9247-bb680e5fe0c8", "hypervisor": "qemu", "hypervisor_version": "10.0.2",
            "accelerator": "tcg", "page_size_bytes": 4096, "blocks": [{"name": "ram", "length_bytes": 81920000}],
            "window_seconds": 0.1, "sample": {"one_in": 1, "seed": 0}}"#;
        let manifest = Manifest::parse(manifest.as_bytes(), Path::new("manifest.json")).unwrap();
        let mut writer = Writer::create(dir, manifest, &[]).unwrap();
        for window in 0..12_000i64 {
            let writes = 10 + window / 600;
            let mut written: Vec<u64> =
                (0..writes).map(|write| ((window * 31 + write * 17) * 7_919 % 20_000) as u64).collect();
            written.sort_unstable();
            written.dedup();
            let start_unix_ns = window * WINDOW_NS;
            let (end_unix_ns, state) = (start_unix_ns + WINDOW_NS, State::Recorded);
            let window =
                NewWindow { start_unix_ns, end_unix_ns, state, written: &written, zero_changes: &[], cost_us: 0 };
            writer.push(window).unwrap();
        }
        writer.finish().unwrap();
        History::open(dir).unwrap()
    }

    fn predicted(start: Start, windows_max: usize, dir: &Path) -> (Recorded, Prediction) {
        let history = History::open(dir).unwrap();
        let recorded = Recorded::holding(history, start, Some(ReadFrom::Index), windows_max).unwrap();
        #[derive(clap::Parser)]
        struct Told {
            #[command(flatten)]
            options: Options,
        }
        let told = <Told as clap::Parser>::parse_from(["test"]);
        let options = Options { start, ..told.options };
        let link = BytesPerSec::from_bits(200_000_000);
        let request = Request { options, link, horizon_min: Duration::ZERO, starts_max: STARTS_MAX };
        let prediction = recorded.forecast(&request, &ProgressBar::hidden()).unwrap();
        (recorded, prediction)
    }

    #[test]
    fn a_history_too_long_to_be_held_is_forecast_part_by_part() {
        let dir = tempfile::tempdir().unwrap();
        drop(history(dir.path()));
        let (whole, at_once) = predicted(Start::All, 1 << 20, dir.path());
        let (parted, in_parts) = predicted(Start::All, 2_500, dir.path());
        // Four minutes each, but for the first: twenty minutes are five times four.
        assert_eq!((whole.earlier.len(), parted.earlier.len()), (0, 4));
        assert_eq!((parted.source_begins, parted.used.windows), (Duration::from_secs(960), 12_000));
        let (one, other) = (at_once.forecast.starts(), in_parts.forecast.starts());
        assert_eq!((one.len(), other.len()), (10_000, 10_000));
        let time = |outcome: &Outcome| outcome.completed().unwrap().migration_time.as_secs_f64();
        // The last migrations go on at the beginning of what is held.
        for ((start, whole), (same, part)) in one.iter().zip(other).take(9_800) {
            assert_eq!(start, same);
            assert!((time(whole) / time(part) - 1.0).abs() < 0.01, "{start:?}: {whole:?} and {part:?}");
        }
        assert_eq!(in_parts.wall.len(), 10_000);
    }

    #[test]
    fn a_start_in_an_early_part_is_simulated_there() {
        let dir = tempfile::tempdir().unwrap();
        drop(history(dir.path()));
        let start = Start::At("5m".parse().unwrap());
        let ((_, at_once), (parted, early)) =
            (predicted(start, 1 << 20, dir.path()), predicted(start, 2_500, dir.path()));
        assert_eq!(parted.part, 2_400..4_900, "from the start of its part on as long as can be held");
        let time = |of: &Prediction| of.forecast.starts()[0].1.completed().unwrap().migration_time.as_secs_f64();
        assert!((time(&at_once) / time(&early) - 1.0).abs() < 0.01, "{} and {}", time(&at_once), time(&early));
    }
}
