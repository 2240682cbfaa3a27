//! `migcast.prediction/1`: base units in the keys, quantities as distributions, `null` for "does not converge".

use std::collections::BTreeMap;
use std::io::{self, Write};

use migcast_model::algorithm::{Algorithm, Setting};
use migcast_model::backtest::{Margin, Margins};
use migcast_model::bounds::Bound;
use migcast_model::forecast::Distribution as ModelDistribution;
use migcast_model::outcome::{Completed, Iteration as ModelIteration};
use migcast_model::units::SimTime;
use migcast_model::{guest as model_guest, link as model_link};
use serde::Serialize;

use super::{HistoryUsed, Model as UsedModel, Prediction, Quantity, Starting};
use crate::platform_file::PlatformFile;

#[derive(Serialize)]
struct Document<'a> {
    format: &'static str,
    model: Model<'a>,
    algorithm: &'static str,
    settings: BTreeMap<&'static str, String>,
    manager: Option<Manager>,
    guest: Guest<'a>,
    link: Link,
    platform: PlatformFile,
    starts: usize,
    converged: usize,
    /// How the starting points were chosen: "as asked", "best", or why not: "history too short", "history too
    /// old", "too few now".
    starts_chosen: &'static str,
    /// Which starts of the history were used because they forecast this guest best; `null` unless the choice was "best".
    backtest: Option<Backtested>,
    /// By what factors the ends of bands were moved out, because the past came out otherwise than its own past says.
    widened: Widened,
    migration_time_seconds: Distribution,
    migration_time_reported_seconds: Distribution,
    downtime_seconds: Distribution,
    downtime_reported_seconds: Distribution,
    downtime_parts_of_median_seconds: Option<Parts>,
    sent_bytes: Distribution,
    sent_pages: Distribution,
    zero_pages: Distribution,
    throttled_seconds: Distribution,
    post_copy_seconds: Distribution,
    iterations: Distribution,
    stop_reasons: BTreeMap<&'static str, usize>,
    sampling_error: SamplingError,
    speed_scatter: SpeedScatter,
    bounds: Bounds,
    horizon_seconds: f64,
    quantile: f64,
    limits: Vec<Limit>,
    iterations_of_median: Vec<Iteration>,
    /// Where it was asked for: the starts by time of day or week.
    #[serde(skip_serializing_if = "<[super::Group]>::is_empty")]
    profile: &'a [super::Group],
    warnings: &'a [String],
}

#[derive(Serialize)]
struct Backtested {
    starts: String,
    forecasts: usize,
    time_inside: f64,
    downtime_inside: f64,
    time_error: f64,
}

/// How bands were widened by what came in the past.
#[derive(Serialize)]
pub(super) struct Widened {
    migration_time: Ends,
    downtime: Ends,
    sent_bytes: Ends,
}

impl Widened {
    pub(super) fn by(margins: &Margins) -> Widened {
        let Margins { time, downtime, sent } = *margins;
        Widened { migration_time: ends(time), downtime: ends(downtime), sent_bytes: ends(sent) }
    }
}

/// Factors by which the ends of a band were moved out; `null` is beyond everything.
#[derive(Serialize)]
struct Ends {
    p5: Option<f64>,
    p95: Option<f64>,
}

fn ends(margin: Margin) -> Ends {
    let factor = |by: f64| Some(by.exp()).filter(|factor| factor.is_finite());
    Ends { p5: factor(margin.below).map(|by| 1.0 / by), p95: factor(margin.above) }
}

#[derive(Serialize)]
#[serde(tag = "name", rename_all = "lowercase")]
pub(super) enum Model<'a> {
    Hist {
        history: History<'a>,
    },
    /// AVG at the rate in force at each start; the history's windows are rates.
    Rates {
        dirty_rate_pages_per_second: RateRange,
        working_set_pages: u64,
        writes: &'static str,
        history: History<'a>,
    },
    Avg {
        dirty_rate_pages_per_second: f64,
        working_set_pages: u64,
        writes: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        history: Option<History<'a>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        rate_span_seconds: Option<f64>,
    },
}

/// Rates over the starting points.
#[derive(Serialize)]
pub(super) struct RateRange {
    mean: f64,
    min: f64,
    max: f64,
}

#[derive(Serialize)]
pub(super) struct History<'a> {
    path: &'a str,
    guest_id: &'a str,
    hypervisor: &'a str,
    start: String,
    recorded_seconds: f64,
    windows: usize,
    sampled_one_in: u32,
    read_from: &'static str,
}

#[derive(Serialize)]
pub(super) struct Guest<'a> {
    name: &'a str,
    memory_bytes: u64,
    memory_pages: u64,
    page_size_bytes: u64,
}

#[derive(Serialize)]
pub(super) struct Link {
    rate_bits_per_second: u64,
    goodput_bits_per_second: u64,
    payload_share: f64,
    sender_buffer_bytes: u64,
}

#[derive(Serialize)]
pub(super) struct Distribution {
    mean: Option<f64>,
    min: Option<f64>,
    p5: Option<f64>,
    p50: Option<f64>,
    p95: Option<f64>,
    max: Option<f64>,
}

#[derive(Serialize)]
struct Parts {
    switchover: f64,
    pages: f64,
    device_state: f64,
    drain: f64,
    resume: f64,
}

/// What manages the migration.
#[derive(Serialize)]
pub(super) struct Manager {
    name: &'static str,
    settings: BTreeMap<&'static str, String>,
}

/// Standard errors, contained in the distributions.
#[derive(Serialize)]
struct SamplingError {
    migration_time_relative: f64,
    downtime_seconds: f64,
    sent_bytes_relative: f64,
}

/// Standard deviations that the platform's scatter of speed gives, contained in the distributions.
#[derive(Serialize)]
struct SpeedScatter {
    migration_time_relative: f64,
    sent_bytes_relative: f64,
}

#[derive(Serialize)]
struct Range {
    min: f64,
    max: Option<f64>,
}

#[derive(Serialize)]
struct Bounds {
    migration_time_seconds: Range,
    downtime_seconds: Range,
}

#[derive(Serialize)]
struct Limit {
    quantity: &'static str,
    allowed_seconds: f64,
    met: bool,
}

#[derive(Serialize)]
struct Iteration {
    start_seconds: f64,
    due_pages: u64,
    sent_pages: u64,
    skipped_pages: u64,
    zero_pages: u64,
    sent_bytes: u64,
    seconds: f64,
}

/// Writes the prediction as one JSON document and a line feed.
pub(crate) fn write_json(out: &mut impl Write, prediction: &Prediction) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, &document(prediction))?;
    writeln!(out)
}

fn document(prediction: &Prediction) -> Document<'_> {
    let Prediction { scenario, forecast, .. } = prediction;
    let (converged, starts) = prediction.converged();
    let scattered = |quantity| edge(prediction.distribution(quantity));
    let median = forecast.median().1.completed();
    Document {
        format: "migcast.prediction/1",
        model: model(&prediction.model),
        algorithm: scenario.algorithm.name(),
        settings: settings(scenario.algorithm.settings()),
        manager: manager(&scenario.algorithm),
        guest: guest(&scenario.guest),
        link: link(&scenario.link),
        platform: PlatformFile::of(&scenario.platform, &scenario.link),
        starts,
        converged,
        starts_chosen: match prediction.starting {
            Starting::AsAsked => "as asked",
            Starting::Best(_) => "best",
            Starting::TooShort => "history too short",
            Starting::TooOld => "history too old",
            Starting::TooFewNow(_) => "too few now",
        },
        backtest: backtested(&prediction.starting),
        widened: Widened::by(&prediction.margins),
        migration_time_seconds: scattered(Quantity::MigrationTime),
        migration_time_reported_seconds: scattered(Quantity::MigrationTimeReported),
        downtime_seconds: scattered(Quantity::Downtime),
        downtime_reported_seconds: scattered(Quantity::DowntimeReported),
        downtime_parts_of_median_seconds: median.map(parts),
        sent_bytes: edge(prediction.sent_bytes()),
        sent_pages: over(prediction, |done| done.sent.pages().get() as f64),
        zero_pages: over(prediction, |done| done.sent.zero.get() as f64),
        throttled_seconds: over(prediction, |done| done.throttled.as_secs_f64()),
        post_copy_seconds: over(prediction, |done| done.post_copy.as_secs_f64()),
        iterations: over(prediction, |done| done.iteration_count as f64),
        stop_reasons: forecast.stop_reasons(),
        sampling_error: SamplingError {
            migration_time_relative: prediction.sampling.time,
            downtime_seconds: prediction.sampling.downtime_seconds,
            sent_bytes_relative: prediction.sampling.sent,
        },
        speed_scatter: SpeedScatter {
            migration_time_relative: prediction.speed.time,
            sent_bytes_relative: prediction.speed.sent,
        },
        bounds: Bounds {
            migration_time_seconds: range(prediction.bounds.migration_time),
            downtime_seconds: range(prediction.bounds.downtime),
        },
        horizon_seconds: scenario.horizon.as_secs_f64(),
        quantile: prediction.quantile,
        limits: prediction.limits.iter().map(limit).collect(),
        iterations_of_median: median.map(|done| done.iterations.iter().map(iteration).collect()).unwrap_or_default(),
        profile: &prediction.groups,
        warnings: &prediction.warnings,
    }
}

fn backtested(starting: &Starting) -> Option<Backtested> {
    let Starting::Best(score) = starting else { return None };
    Some(Backtested {
        starts: super::backtest::name(score.choice),
        forecasts: score.points,
        time_inside: score.time_inside,
        downtime_inside: score.downtime_inside,
        time_error: score.time_error,
    })
}

pub(super) fn guest(guest: &model_guest::Guest) -> Guest<'_> {
    Guest {
        name: &guest.name,
        memory_bytes: guest.memory_bytes().get(),
        memory_pages: guest.memory.get(),
        page_size_bytes: guest.page_size.get(),
    }
}

pub(super) fn link(link: &model_link::Link) -> Link {
    Link {
        rate_bits_per_second: link.line_rate.bits(),
        goodput_bits_per_second: link.goodput().bits(),
        payload_share: link.payload_share,
        sender_buffer_bytes: link.sender_buffer.get(),
    }
}

pub(super) fn model(model: &UsedModel) -> Model<'_> {
    match model {
        UsedModel::Hist(used) => Model::Hist { history: history(used) },
        UsedModel::Rates { used, pattern } => Model::Rates {
            dirty_rate_pages_per_second: RateRange { mean: used.mean.get(), min: used.min.get(), max: used.max.get() },
            working_set_pages: used.working_set.get(),
            writes: pattern,
            history: history(&used.history),
        },
        UsedModel::Avg { rate, working_set, pattern, from } => Model::Avg {
            dirty_rate_pages_per_second: rate.get(),
            working_set_pages: working_set.get(),
            writes: pattern,
            history: from.as_ref().map(|(used, _)| history(used)),
            rate_span_seconds: from.as_ref().map(|(_, span)| span.as_secs_f64()),
        },
    }
}

fn history(used: &HistoryUsed) -> History<'_> {
    History {
        path: &used.path,
        guest_id: &used.guest_id,
        hypervisor: &used.hypervisor,
        start: used.start.to_string(),
        recorded_seconds: used.recorded.as_secs_f64(),
        windows: used.windows,
        sampled_one_in: used.sampled_one_in,
        read_from: if used.by_index { "index" } else { "pages" },
    }
}

fn over(prediction: &Prediction, quantity: impl Fn(&Completed) -> f64) -> Distribution {
    edge(prediction.forecast.distribution(quantity))
}

pub(super) fn edge(distribution: ModelDistribution) -> Distribution {
    let ModelDistribution { mean, min, p5, p50, p95, max } = distribution;
    Distribution { mean, min, p5, p50, p95, max }
}

pub(super) fn manager(algorithm: &Algorithm) -> Option<Manager> {
    let manager = algorithm.manager()?;
    Some(Manager { name: manager.name(), settings: settings(manager.settings()) })
}

pub(super) fn settings(settings: Vec<Setting>) -> BTreeMap<&'static str, String> {
    settings.into_iter().map(|setting| (setting.key, setting.value)).collect()
}

fn parts(done: &Completed) -> Parts {
    let parts = done.downtime;
    Parts {
        switchover: parts.switchover.as_secs_f64(),
        pages: parts.pages.as_secs_f64(),
        device_state: parts.device_state.as_secs_f64(),
        drain: parts.drain.as_secs_f64(),
        resume: parts.resume.as_secs_f64(),
    }
}

fn range(bound: Bound) -> Range {
    Range { min: bound.min.as_secs_f64(), max: bound.max.map(|max| max.as_secs_f64()) }
}

fn limit(limit: &super::Limit) -> Limit {
    Limit { quantity: limit.quantity.name(), allowed_seconds: limit.allowed.as_secs_f64(), met: limit.met }
}

fn iteration(iteration: &ModelIteration) -> Iteration {
    Iteration {
        start_seconds: iteration.start.since(SimTime::ZERO).as_secs_f64(),
        due_pages: iteration.due_at_start.get(),
        sent_pages: iteration.sent.pages().get(),
        skipped_pages: iteration.skipped.get(),
        zero_pages: iteration.sent.zero.get(),
        sent_bytes: iteration.sent_bytes.get(),
        seconds: iteration.end.since(iteration.start).as_secs_f64(),
    }
}
