//! `migcast history info --json`: format "migcast.history-info/1". Base units in the keys; pages are estimates for the
//! whole memory.
use std::path::Path;

use migcast_history::format::{Block, Manifest, WrittenMeans};
use migcast_history::rates::RateSeries;
use migcast_history::reader::History;
use migcast_history::summary::Summary;
use migcast_history::timeline::Timeline;
use migcast_history::windows::State;
use serde::Serialize;

/// A history in numbers.
#[derive(Debug, Serialize)]
pub(super) struct Info<'a> {
    format: &'static str,
    path: String,
    guest: Guest<'a>,
    recorder: &'a str,
    method: &'a str,
    written_means: WrittenMeans,
    resource: &'a str,
    created: jiff::Timestamp,
    memory_bytes: u64,
    page_size_bytes: u64,
    blocks: &'a [Block],
    sample: Sample,
    window_seconds: f64,
    segments: usize,
    size_bytes: u64,
    /// Where older pages were taken away: since when they are kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pages_kept_from: Option<jiff::Timestamp>,
    /// One line each: what is lost, missing or damaged.
    problems: Vec<String>,
    /// `null` where no segment was closed.
    recorded: Option<Recorded>,
    /// Of a rate series, which has nothing else.
    #[serde(skip_serializing_if = "Option::is_none")]
    rates: Option<Rates>,
}

#[derive(Debug, Serialize)]
struct Rates {
    start: jiff::Timestamp,
    end: jiff::Timestamp,
    duration_seconds: f64,
    rates: usize,
    /// Time for which there is a rate.
    known_seconds: f64,
    dirty_rate: DirtyRate,
}

#[derive(Debug, Serialize)]
struct Guest<'a> {
    name: &'a str,
    id: String,
    hypervisor: &'a str,
    hypervisor_version: &'a str,
    accelerator: &'a str,
}

#[derive(Debug, Serialize)]
struct Sample {
    one_in: u32,
    seed: u64,
    tracked_pages: u32,
}

#[derive(Debug, Serialize)]
struct Recorded {
    start: jiff::Timestamp,
    end: jiff::Timestamp,
    duration_seconds: f64,
    recorded: Windows,
    gap: Windows,
    migrating: Windows,
    dirty_rate: DirtyRate,
    wws: Vec<WriteSet>,
    zero_pages_start: f64,
    zero_pages_end: f64,
    /// `null` where nobody watched.
    vcpu_time: Option<VcpuTime>,
    recorder_cost: Cost,
}

#[derive(Debug, Serialize)]
struct VcpuTime {
    vcpus: u32,
    watched_seconds: f64,
    busy_seconds: f64,
    /// How busy the vCPU was on which the work was done.
    busy_share: f64,
    mean_share: f64,
}

#[derive(Debug, Serialize)]
struct Windows {
    windows: usize,
    seconds: f64,
}

#[derive(Debug, Serialize)]
struct DirtyRate {
    mean_pages_per_second: f64,
    slices: Vec<Slice>,
}

#[derive(Debug, Serialize)]
struct Slice {
    offset_seconds: f64,
    length_seconds: f64,
    pages_per_second: Option<f64>,
}

#[derive(Debug, Serialize)]
struct WriteSet {
    span_seconds: f64,
    windows: u32,
    pages: f64,
    pages_standard_error: f64,
    bytes: f64,
}

#[derive(Debug, Serialize)]
struct Cost {
    core_share: f64,
    mean_seconds: f64,
    p95_seconds: f64,
}

impl<'a> Info<'a> {
    pub(super) fn of(history: &'a History, summary: Option<&Summary>) -> Info<'a> {
        let manifest = history.manifest();
        Info {
            segments: history.segments().len(),
            size_bytes: history.bytes_on_disk(),
            pages_kept_from: history.pages_kept_from(),
            problems: history.problems().iter().map(ToString::to_string).collect(),
            recorded: summary.map(|summary| Recorded::of(summary, manifest.page_size_bytes)),
            ..Info::of_manifest(manifest, history.dir(), history.tracked().count())
        }
    }

    /// Of a rate series, with its dirty rate in so many slices.
    pub(super) fn of_rates(series: &'a RateSeries, slices: u32) -> Info<'a> {
        let manifest = series.manifest();
        // No page is tracked.
        let tracked_pages = 0;
        let at = |unix_ns: i64| jiff::Timestamp::from_nanosecond(unix_ns.into()).unwrap_or_default();
        let dirty_rate = DirtyRate {
            mean_pages_per_second: series.mean_pages_per_second(),
            slices: series.slices(slices).iter().map(Slice::of).collect(),
        };
        let rates = Rates {
            start: at(series.start_unix_ns()),
            end: at(series.end_unix_ns()),
            duration_seconds: series.duration().as_secs_f64(),
            rates: series.rates().len(),
            known_seconds: series.known_duration().as_secs_f64(),
            dirty_rate,
        };
        let info = Info::of_manifest(manifest, series.dir(), tracked_pages);
        Info { size_bytes: series.bytes_on_disk(), rates: Some(rates), ..info }
    }

    fn of_manifest(manifest: &'a Manifest, dir: &Path, tracked_pages: u32) -> Info<'a> {
        Info {
            format: "migcast.history-info/1",
            path: dir.display().to_string(),
            guest: Guest {
                name: &manifest.guest_name,
                id: manifest.guest_id.to_string(),
                hypervisor: &manifest.hypervisor,
                hypervisor_version: &manifest.hypervisor_version,
                accelerator: &manifest.accelerator,
            },
            recorder: &manifest.recorder,
            method: &manifest.method,
            written_means: manifest.written_means,
            resource: &manifest.resource,
            created: manifest.created,
            memory_bytes: manifest.memory_bytes(),
            page_size_bytes: manifest.page_size_bytes,
            blocks: &manifest.blocks,
            sample: Sample { one_in: manifest.sample.one_in, seed: manifest.sample.seed, tracked_pages },
            window_seconds: manifest.window_seconds,
            segments: 0,
            size_bytes: 0,
            pages_kept_from: None,
            problems: Vec::new(),
            recorded: None,
            rates: None,
        }
    }
}

impl Recorded {
    fn of(summary: &Summary, page_size_bytes: u64) -> Recorded {
        let timeline = &summary.timeline;
        let set = |set: &migcast_history::summary::WriteSet| WriteSet {
            span_seconds: set.span.as_secs_f64(),
            windows: set.windows,
            pages: set.pages,
            pages_standard_error: set.pages_standard_error,
            bytes: set.pages * page_size_bytes as f64,
        };
        Recorded {
            start: timeline.start(),
            end: timeline.end(),
            duration_seconds: timeline.duration().as_secs_f64(),
            recorded: Windows::of(timeline, State::Recorded),
            gap: Windows::of(timeline, State::Gap),
            migrating: Windows::of(timeline, State::Migrating),
            dirty_rate: DirtyRate {
                mean_pages_per_second: summary.pages_per_second,
                slices: summary.slices.iter().map(Slice::of).collect(),
            },
            wws: summary.wws.iter().map(set).collect(),
            zero_pages_start: summary.zero_pages_start,
            zero_pages_end: summary.zero_pages_end,
            vcpu_time: summary.vcpu_time.map(VcpuTime::of),
            recorder_cost: Cost {
                core_share: summary.cost.core_share,
                mean_seconds: summary.cost.mean.as_secs_f64(),
                p95_seconds: summary.cost.p95.as_secs_f64(),
            },
        }
    }
}

impl VcpuTime {
    fn of(time: migcast_history::vcpu::VcpuTime) -> VcpuTime {
        VcpuTime {
            vcpus: time.vcpus,
            watched_seconds: time.watched_ns as f64 / 1e9,
            busy_seconds: time.busy_ns as f64 / 1e9,
            busy_share: time.busy_share(),
            mean_share: time.mean_share(),
        }
    }
}

impl Slice {
    fn of(slice: &migcast_history::summary::Slice) -> Slice {
        Slice {
            offset_seconds: slice.offset.as_secs_f64(),
            length_seconds: slice.length.as_secs_f64(),
            pages_per_second: slice.pages_per_second,
        }
    }
}

impl Windows {
    fn of(timeline: &Timeline, state: State) -> Windows {
        let (windows, time) = timeline.in_state(state);
        Windows { windows, seconds: time.as_secs_f64() }
    }
}
