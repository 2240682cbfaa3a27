//! What migcast, asked as a user would ask it, and simpler rules predict of a migration.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use migcast_history::observed::Observed;
use migcast_history::reader::History;
use migcast_model::dirty::{DirtySource, PageReplay};
use migcast_model::quantity::{parse_duration, parse_rate, write_rate};
use migcast_model::units::{ByteCount, BytesPerSec};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::link::PAYLOAD_SHARE;
use crate::past::Past;
use crate::process;

/// A quantity as forecast: median and 5 to 95 % band; `None` is "does not converge".
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Band {
    /// Median.
    pub p50: Option<f64>,
    /// 5 % quantile.
    pub p5: Option<f64>,
    /// 95 % quantile.
    pub p95: Option<f64>,
}

impl Band {
    /// Whether a value lies inside; an endless band holds everything above its lower end.
    pub fn holds(&self, value: f64) -> bool {
        self.p5.is_some_and(|low| value >= low) && self.p95.is_none_or(|high| value <= high)
    }
}

/// What was predicted of one migration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Predicted {
    /// Starting points simulated.
    pub starts: u64,
    /// Those that converge.
    pub converged: u64,
    /// Whether most of all starts converge over a link (and under a cap) slower by a quarter, and faster by a quarter: where
    /// both agree with `converged` the case lies away from the edge.
    pub converges_beside: [bool; 2],
    /// All pages of the guest.
    pub memory_pages: u64,
    /// From the request until the guest runs on the target, seconds.
    pub migration_time_seconds: Band,
    /// The guest's downtime, seconds.
    pub downtime_seconds: Band,
    /// QEMU's own figure, seconds.
    pub downtime_reported_seconds: Band,
    /// Bytes.
    pub sent_bytes: Band,
    /// Dirty syncs.
    pub iterations: Band,
    /// Of the median start: each reading of the dirty log while the guest runs, the first left out.
    pub readings: Vec<Reading>,
    /// Rules simpler than ours, fed with the whole history.
    pub baselines: Baselines,
    /// The same, fed with its last seconds, where it went on until just before the migration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baselines_lately: Option<Baselines>,
}

/// A reading of the dirty log.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    /// When, seconds since the request.
    pub at_seconds: f64,
    /// Bytes due then: pages times their size.
    pub pending_bytes: f64,
}

/// Migration times by simpler rules, in seconds; `None` is "does not converge".
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Baselines {
    /// All memory over the link.
    pub memory_over_link: Option<f64>,
    /// The AVG model of the same program.
    pub avg: Option<f64>,
    /// The rule of the predictor proposed for QEMU in 2023: a piecewise-linear dirty curve, whole iterations, until what
    /// is dirty fits into the downtime limit. It is given the pages that are not zero, which it did not know.
    pub piecewise: Option<f64>,
}

/// Horizon for a migration of which nobody noted when it would have been given up.
const HORIZON_SECONDS: f64 = 60.0;

/// How much of a past's end the simpler rules are fed with beside all of it: what they would measure themselves.
const LATELY: Duration = Duration::from_secs(10);

/// Asks `migcast predict`, then the simpler rules.
///
/// From a past that goes on until the migration it forecasts as `migcast predict` does, from the starting points that are
/// most like the present where the guest's past shows those to be better; from an older one everywhere in it.
/// `converges_beside` is what [`Predicted`] says, where that is known already.
///
/// # Errors
/// The program fails or the history cannot be read.
pub fn predict(
    program: &Path,
    past: &Past,
    of: &Observed,
    platform: Option<&Path>,
    converges_beside: Option<[bool; 2]>,
) -> Result<Predicted> {
    const EVERYWHERE: [&str; 2] = ["--start", "all"];
    let ask = |how: &[&str], link: u64| ask(program, past.dir(), of, platform, how, link);
    let (link, requested) = (of.link_bits_per_second, of.requested.to_string());
    let how = if past.is_fresh() { ["--as-of", requested.as_str()] } else { EVERYWHERE };
    let ours = ask(&how, link)?;
    let converges = |link: u64| {
        let said = ask(&EVERYWHERE, link)?;
        Ok::<_, anyhow::Error>(2 * number(&said, "converged")? >= number(&said, "starts")?)
    };
    let converges_beside = match converges_beside {
        Some(known) => known,
        None => [converges(link / 5 * 4)?, converges(link / 4 * 5)?],
    };
    let band = |key: &str| {
        let value = |name: &str| ours[key][name].as_f64();
        Band { p50: value("p50"), p5: value("p5"), p95: value("p95") }
    };
    let baselines = |past: &Past| Baselines::of(program, past, of, platform);
    let lately = past.is_fresh().then(|| baselines(&past.last(LATELY)?)).transpose()?;
    Ok(Predicted {
        starts: number(&ours, "starts")?,
        converged: number(&ours, "converged")?,
        converges_beside,
        memory_pages: number(&ours["guest"], "memory_pages")?,
        migration_time_seconds: band("migration_time_seconds"),
        downtime_seconds: band("downtime_seconds"),
        downtime_reported_seconds: band("downtime_reported_seconds"),
        sent_bytes: band("sent_bytes"),
        iterations: band("iterations"),
        readings: readings(&ours["iterations_of_median"]),
        baselines: baselines(past)?,
        baselines_lately: lately,
    })
}

impl Baselines {
    fn of(program: &Path, past: &Past, of: &Observed, platform: Option<&Path>) -> Result<Baselines> {
        let avg = ask(program, past.dir(), of, platform, &["--model", "avg"], of.link_bits_per_second)?;
        let opened = History::open(past.dir())?;
        let replay = opened.page_replay(opened.timeline()?.all())?.from_last_zero_map();
        let goodput = BytesPerSec::from_bits(of.link_bits_per_second).scale(PAYLOAD_SHARE);
        let limit = of.settings.iter().find_map(|setting| setting.strip_prefix("downtime-limit="));
        let limit = parse_duration(limit.context("an observed migration has no downtime-limit")?)?;
        let memory = replay.memory().bytes(ByteCount::new(opened.manifest().page_size_bytes));
        Ok(Baselines {
            memory_over_link: Some(memory.transfer_time_ceil(goodput).as_secs_f64()),
            avg: avg["migration_time_seconds"]["p50"].as_f64(),
            piecewise: piecewise(&replay, goodput, limit),
        })
    }
}

/// The iterations between the first, which begins with everything, and the last, for which the guest is stopped.
fn readings(iterations: &Value) -> Vec<Reading> {
    let iterations = iterations.as_array().map(Vec::as_slice).unwrap_or_default();
    let live = iterations.get(1..iterations.len().saturating_sub(1)).unwrap_or_default();
    let number = |iteration: &Value, key: &str| iteration[key].as_f64().unwrap_or_default();
    live.iter()
        .map(|iteration| Reading {
            at_seconds: number(iteration, "start_seconds"),
            pending_bytes: number(iteration, "due_pages") * 4096.0,
        })
        .collect()
}

fn number(said: &Value, key: &str) -> Result<u64> {
    said[key].as_u64().with_context(|| format!("migcast predict says no {key}"))
}

fn ask(
    program: &Path,
    history: &Path,
    of: &Observed,
    platform: Option<&Path>,
    how: &[&str],
    link: u64,
) -> Result<Value> {
    let mut command = Command::new(program);
    command.arg("predict").arg(history).arg("--json").args(how);
    command.args(["--link", &format!("{link}bit/s"), "--horizon"]);
    command.arg(format!("{}s", of.give_up_seconds.unwrap_or(HORIZON_SECONDS)));
    for setting in &of.settings {
        // Where QEMU's cap is what binds it is slower or faster by as much.
        let scaled = scaled_cap(setting, link as f64 / of.link_bits_per_second as f64);
        command.args(["--set", scaled.as_ref().unwrap_or(setting)]);
    }
    answer(&mut command, platform)
}

/// Runs `migcast predict --json` on these hosts.
pub(crate) fn answer(command: &mut Command, platform: Option<&Path>) -> Result<Value> {
    if let Some(platform) = platform {
        command.arg("--platform").arg(platform);
    }
    serde_json::from_str(&process::output(command)?).context("migcast predict --json")
}

/// A bandwidth cap times a factor, as a setting; `None` for any other setting.
fn scaled_cap(setting: &str, factor: f64) -> Option<String> {
    let cap = parse_rate(setting.strip_prefix("max-bandwidth=")?).ok()?;
    Some(format!("max-bandwidth={}", write_rate(cap.scale(factor))))
}

/// Spans at which the 2023 predictor samples the dirty curve (literature: QEMU list, 2023), in milliseconds.
const CURVE_MS: [u64; 8] = [125, 250, 500, 750, 1_000, 1_500, 2_000, 3_000];
/// Iterations after which it says that a migration does not converge.
const ITERATIONS_MAX: usize = 100;

fn piecewise(replay: &PageReplay, goodput: BytesPerSec, limit: Duration) -> Option<f64> {
    let rate = goodput.get() as f64;
    let curve: Vec<(f64, f64)> = std::iter::once((0.0, 0.0))
        .chain(CURVE_MS.map(|millis| {
            let span = Duration::from_millis(millis);
            (span.as_secs_f64(), replay.write_set(span).mean * 4096.0)
        }))
        .collect();
    let dirty = |seconds: f64| {
        let next = curve.partition_point(|(at, _)| *at < seconds).clamp(1, curve.len() - 1);
        let ((from, low), (to, high)) = (curve[next - 1], curve[next]);
        low + (high - low) * (seconds - from) / (to - from)
    };
    let mut bytes = (replay.memory().get() as f64 - replay.zero().mean) * 4096.0;
    let mut total = 0.0;
    for _ in 0..ITERATIONS_MAX {
        let seconds = bytes / rate;
        total += seconds;
        if seconds <= limit.as_secs_f64() {
            return Some(total);
        }
        bytes = dirty(seconds);
    }
    None
}
