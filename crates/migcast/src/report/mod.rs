//! One result, many forms: a prediction as a table, as JSON, as a picture.

mod backtest;
mod consolidate;
mod json;
mod kept;
mod plan;
mod plot;
mod review;
mod rules;
mod sla;
mod starts;
pub(crate) mod sweep;
mod table;
mod tune;
mod when;

use std::time::Duration;

use migcast_model::backtest::{Choice, Margin, Margins, Score};
use migcast_model::bounds::Bounds;
use migcast_model::forecast::{Distribution, Forecast, Scatter};
use migcast_model::outcome::{Completed, Outcome};
use migcast_model::platform::Platform;
use migcast_model::quantity::show_duration;
use migcast_model::sampling::SamplingError;
use migcast_model::simulate::Scenario;
use migcast_model::speed::SpeedScatter;
use migcast_model::units::{PageCount, PagesPerSec, SimTime};
use migcast_plan::sla::Draws;
use migcast_plan::tune::Way;

pub(crate) use backtest::{write_backtest, write_backtest_json};
pub(crate) use consolidate::{ConsolidateAnswer, Move, write_consolidate, write_consolidate_json};
pub(crate) use json::write_json;
pub(crate) use plan::{
    Export, NamedPipe, OWN_LIMITS, PLANNED, Plan, PlanAnswer, Searched, draw_plan, exported, write_plan,
    write_plan_json,
};
pub(crate) use plot::{PlotFormat, draw};
pub(crate) use review::{Judgement, ReviewAnswer, Reviewed, draw_review, write_review, write_review_json};
pub(crate) use rules::{Ruled, RulesAnswer, write_rules, write_rules_json};
pub(crate) use sla::{SlaAnswer, write_sla, write_sla_json};
pub(crate) use starts::{By, Group, grouped, write_groups, write_starts};
pub(crate) use table::write_table;
pub(crate) use tune::{Tried, TuneAnswer, draw_tune, write_tune, write_tune_json};
pub(crate) use when::{Clock, WhenAnswer, draw_when, write_when, write_when_json};

/// A time for people, in seconds; what has no end is "never".
fn span(seconds: f64) -> String {
    Duration::try_from_secs_f64(seconds.max(0.0)).map_or_else(|_| "never".to_owned(), show_duration)
}

/// A finished prediction: the forecast with everything it rests on.
#[derive(Debug)]
pub(crate) struct Prediction {
    pub(crate) scenario: Scenario,
    /// Where the algorithm's name came from, for people.
    pub(crate) algorithm_origin: String,
    /// Percent of their time the vCPUs are taken to be busy, where the history says so and the algorithm minds.
    pub(crate) vcpu_busy_recorded: Option<u64>,
    /// How its starting points were chosen.
    pub(crate) starting: Starting,
    pub(crate) model: Model,
    pub(crate) forecast: Forecast,
    /// How much more may come than its starting points say, where their past tells.
    pub(crate) margins: Margins,
    /// The same from every start that was simulated, where the forecast is made from some of them.
    pub(crate) simulated: Option<Forecast>,
    /// What tracking only some of the pages costs.
    pub(crate) sampling: SamplingError,
    /// What the platform's scatter of speed does to it.
    pub(crate) speed: SpeedScatter,
    pub(crate) bounds: Bounds,
    /// When each start was, of a recorded history: in recorded time, and on the wall.
    pub(crate) wall: Vec<(Duration, jiff::Timestamp)>,
    /// The starts by time of day or week, where that was asked for.
    pub(crate) groups: Vec<Group>,
    pub(crate) limits: Vec<Limit>,
    /// At which quantile limits are judged.
    pub(crate) quantile: f64,
    /// What the reader should know, each ending with what to do.
    pub(crate) warnings: Vec<String>,
}

/// How starting points were chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Starting {
    /// There was nothing to choose.
    AsAsked,
    /// Everywhere: the history is too short to tell from which starts this guest is forecast best.
    TooShort,
    /// Everywhere: the history ended too long ago to tell what the guest does now.
    TooOld,
    /// Everywhere: this choice forecasts best, but has too few starts now.
    TooFewNow(Choice),
    /// Those that forecast this guest best, and how they did.
    Best(Score),
}

/// How the guest's writes were modelled.
#[derive(Clone, Debug)]
pub(crate) enum Model {
    /// A recorded history, page by page.
    Hist(HistoryUsed),
    /// A constant rate, the one of a series that is in force at the start.
    Rates { used: RatesUsed, pattern: &'static str },
    /// A constant rate.
    Avg {
        rate: PagesPerSec,
        working_set: PageCount,
        pattern: &'static str,
        /// The history the rate was taken from, and the span it was taken over.
        from: Option<(HistoryUsed, Duration)>,
    },
}

/// What was used of a rate series.
#[derive(Clone, Debug)]
pub(crate) struct RatesUsed {
    /// The series; its windows are rates.
    pub(crate) history: HistoryUsed,
    /// Mean over the starting points.
    pub(crate) mean: PagesPerSec,
    /// Least of them.
    pub(crate) min: PagesPerSec,
    /// Most of them.
    pub(crate) max: PagesPerSec,
    /// Pages that are written at all.
    pub(crate) working_set: PageCount,
}

/// What was used of a history.
#[derive(Clone, Debug)]
pub(crate) struct HistoryUsed {
    pub(crate) path: String,
    pub(crate) guest_id: String,
    pub(crate) hypervisor: String,
    pub(crate) start: jiff::Timestamp,
    /// Recorded time that is replayed.
    pub(crate) recorded: Duration,
    pub(crate) windows: usize,
    pub(crate) sampled_one_in: u32,
    /// Whether it was read off the WWS index, not page by page.
    pub(crate) by_index: bool,
}

impl HistoryUsed {
    /// How it was used.
    pub(crate) fn how(&self) -> &'static str {
        if self.by_index { "read off its WWS index" } else { "replayed page by page" }
    }
}

/// A limit the user stated.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limit {
    pub(crate) quantity: Quantity,
    pub(crate) allowed: Duration,
    pub(crate) met: bool,
}

/// A time that platforms scatter. Limits are stated for the first of each kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Quantity {
    MigrationTime,
    MigrationTimeReported,
    Downtime,
    DowntimeReported,
}

impl Quantity {
    pub(crate) fn seconds(self, completed: &Completed) -> f64 {
        match self {
            Quantity::MigrationTime => completed.migration_time.as_secs_f64(),
            Quantity::MigrationTimeReported => completed.migration_time_reported.as_secs_f64(),
            Quantity::Downtime => completed.downtime.total().as_secs_f64(),
            Quantity::DowntimeReported => completed.downtime_reported.as_secs_f64(),
        }
    }

    /// How far it may lie from its forecast from one starting point: the platform's scatter and the sampling error, which
    /// have nothing to do with each other.
    fn scatter(self, platform: &Platform, sampling: &SamplingError, speed: &SpeedScatter) -> Scatter {
        match self {
            Quantity::MigrationTime | Quantity::MigrationTimeReported => {
                let sd = speed.time.hypot(sampling.time);
                if sd > 0.0 { Scatter::Relative(sd) } else { Scatter::None }
            }
            Quantity::Downtime | Quantity::DowntimeReported => {
                let sd = platform.downtime_scatter.as_secs_f64().hypot(sampling.downtime_seconds);
                if sd > 0.0 { Scatter::Absolute(sd) } else { Scatter::None }
            }
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Quantity::MigrationTime => "migration time",
            Quantity::MigrationTimeReported => "reported migration time",
            Quantity::Downtime => "downtime",
            Quantity::DowntimeReported => "reported downtime",
        }
    }
}

impl Prediction {
    /// A limited quantity's distribution, platform's scatter and sampling error included.
    pub(crate) fn distribution(&self, quantity: Quantity) -> Distribution {
        let scattered = self.forecast.scattered(|done| quantity.seconds(done), self.scatter(quantity));
        widened(scattered, self.margin(quantity)).at_least(self.lowest(quantity).as_secs_f64())
    }

    /// The same at one quantile in (0, 1]: what a limit is judged by. `None` where that does not converge.
    pub(crate) fn at_quantile(&self, quantity: Quantity, q: f64) -> Option<f64> {
        let scatter = self.scatter(quantity);
        let reached = self.forecast.scattered_quantile(|done| quantity.seconds(done), scatter, q);
        let reached = self.margin(quantity).widened(reached.unwrap_or(f64::INFINITY), q);
        Some(reached.max(self.lowest(quantity).as_secs_f64())).filter(|reached| reached.is_finite())
    }

    fn margin(&self, quantity: Quantity) -> Margin {
        match quantity {
            Quantity::MigrationTime | Quantity::MigrationTimeReported => self.margins.time,
            Quantity::Downtime | Quantity::DowntimeReported => self.margins.downtime,
        }
    }

    /// What it is at least, however it scatters.
    fn lowest(&self, quantity: Quantity) -> Duration {
        match quantity {
            Quantity::MigrationTime => self.bounds.migration_time.min,
            Quantity::Downtime => self.bounds.downtime.min,
            Quantity::MigrationTimeReported | Quantity::DowntimeReported => Duration::ZERO,
        }
    }

    /// The distribution of the bytes sent, sampling error included.
    pub(crate) fn sent_bytes(&self) -> Distribution {
        let sd = self.speed.sent.hypot(self.sampling.sent);
        let scatter = if sd > 0.0 { Scatter::Relative(sd) } else { Scatter::None };
        widened(self.forecast.scattered(|done| done.sent_bytes.get() as f64, scatter), self.margins.sent)
    }

    fn scatter(&self, quantity: Quantity) -> Scatter {
        quantity.scatter(&self.scenario.platform, &self.sampling, &self.speed)
    }

    /// Whether quantities have a distribution: several starting points, or something that scatters.
    pub(crate) fn is_spread(&self) -> bool {
        let scatters = |quantity: Quantity| self.scatter(quantity) != Scatter::None;
        self.forecast.starts().len() > 1 || scatters(Quantity::MigrationTime) || scatters(Quantity::Downtime)
    }

    /// What one migration may cost the service: from each starting point, spread by what scatters of each migration by
    /// itself. What all of them have in common stands apart: the part of the platform's scatter that alike migrations
    /// share, and the sampling error, which is one history's.
    pub(crate) fn draws(&self) -> Draws {
        let absolute = |sd: f64| if sd > 0.0 { Scatter::Absolute(sd) } else { Scatter::None };
        let platform = &self.scenario.platform;
        let (all, shared) = (platform.downtime_scatter.as_secs_f64(), platform.downtime_scatter_common.as_secs_f64());
        let own = absolute((all.powi(2) - shared.powi(2)).max(0.0).sqrt());
        let common = absolute(self.shared_downtime_error()).off();
        let mut draws = Draws { downtime: Vec::new(), brownout: Vec::new(), common };
        for (_, outcome) in self.forecast.starts() {
            let (downtimes, brownout) = match outcome {
                Outcome::Completed(done) => {
                    let down = done.downtime.total();
                    let under_way = done.migration_time.saturating_sub(down).as_secs_f64();
                    (own.spread(down.as_secs_f64()), under_way)
                }
                Outcome::Cancelled(progress) | Outcome::NotConverged(progress) => {
                    (vec![0.0; own.spread(0.0).len()], progress.now.since(SimTime::ZERO).as_secs_f64())
                }
            };
            draws.brownout.extend(downtimes.iter().map(|_| brownout));
            draws.downtime.extend(downtimes);
        }
        draws
    }

    /// Standard deviation, in seconds, of what all migrations of this guest may be off by alike.
    pub(crate) fn shared_downtime_error(&self) -> f64 {
        self.scenario.platform.downtime_scatter_common.as_secs_f64().hypot(self.sampling.downtime_seconds)
    }

    /// How a migration may go from each starting point, spread by what scatters.
    pub(crate) fn ways(&self) -> Vec<Way> {
        let (of_time, of_downtime) = (self.scatter(Quantity::MigrationTime), self.scatter(Quantity::Downtime));
        let way = |(_, outcome): &(Duration, Outcome)| match outcome {
            Outcome::Completed(done) => Way {
                time: of_time.spread(done.migration_time.as_secs_f64()),
                downtime: of_downtime.spread(done.downtime.total().as_secs_f64()),
                sent: done.sent_bytes.get() as f64,
                slowed: (done.throttled + done.post_copy).as_secs_f64(),
            },
            Outcome::Cancelled(progress) | Outcome::NotConverged(progress) => Way {
                time: vec![f64::INFINITY],
                downtime: vec![f64::INFINITY],
                sent: progress.sent.get() as f64,
                slowed: 0.0,
            },
        };
        self.forecast.starts().iter().map(way).collect()
    }

    /// Every start that was simulated, whether the forecast is made from it or not.
    fn simulated(&self) -> &Forecast {
        self.simulated.as_ref().unwrap_or(&self.forecast)
    }

    /// When each start that was simulated was on the wall, its outcome, and whether the forecast is made from it.
    pub(crate) fn on_the_wall(&self) -> impl Iterator<Item = (jiff::Timestamp, &Outcome, bool)> {
        let is_used = |start| self.forecast.starts().binary_search_by_key(start, |(start, _)| *start).is_ok();
        self.simulated().starts().iter().filter_map(move |(start, outcome)| {
            let index = self.wall.binary_search_by_key(start, |(start, _)| *start).ok()?;
            Some((self.wall[index].1, outcome, is_used(start)))
        })
    }

    /// Starts that completed, of all.
    pub(crate) fn converged(&self) -> (usize, usize) {
        (self.forecast.completed().count(), self.forecast.starts().len())
    }

    /// Starts from which the hypervisor, or its manager, gives up.
    pub(crate) fn cancelled(&self) -> usize {
        self.forecast.starts().iter().filter(|(_, outcome)| matches!(outcome, Outcome::Cancelled(_))).count()
    }

    /// True unless a stated limit is not met.
    pub(crate) fn limits_met(&self) -> bool {
        self.limits.iter().all(|limit| limit.met)
    }
}

/// A distribution whose band has this margin. The mean is left as it is.
fn widened(of: Distribution, margin: Margin) -> Distribution {
    let at =
        |value: Option<f64>, q| Some(margin.widened(value.unwrap_or(f64::INFINITY), q)).filter(|end| end.is_finite());
    let (p5, p95) = (at(of.p5, 0.05), at(of.p95, 0.95));
    let min = of.min.zip(p5).map(|(min, p5)| min.min(p5)).or(p5);
    Distribution { min, p5, p95, max: of.max.zip(p95).map(|(max, p95)| max.max(p95)), ..of }
}
