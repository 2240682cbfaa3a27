//! `migcast backtest`: how well a guest's own past forecasts it.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, ensure};
use migcast_history::timeline::Timeline;
use migcast_history::windows::State;
use migcast_model::backtest::{Backtest, Choice, Moment, Run};
use migcast_model::forecast::Forecast;
use migcast_model::units::BytesPerSec;

use super::past::Past;
use super::predict::progress_bar;
use super::scenario::{self, ModelName, Options, Request, Start};
use crate::report::{self, Starting};

/// Spans over which it is looked what the guest did before a start.
const STATE_SPANS: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(10)];

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    migcast backtest DIR --link 10Gbit/s\n  \
    migcast backtest DIR --link 1Gbit/s --set downtime-limit=100ms --json")]
pub(crate) struct Args {
    /// History whose past is to forecast what came after it
    #[arg(value_name = "DIR")]
    history: PathBuf,
    /// Line rate between source and target: 1Gbit/s, 125MB/s
    #[arg(long, value_name = "RATE", value_parser = scenario::parse_link)]
    link: BytesPerSec,
    #[command(flatten)]
    options: Options,
    /// Print JSON (migcast.backtest/1) instead of a table
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    ensure!(args.options.start == Start::Best, "--start has no meaning for a backtest, which starts everywhere");
    ensure!(
        args.options.model != Some(ModelName::Avg),
        "--model avg has nothing to backtest: a constant rate is always the same"
    );
    let options = Options { start: Start::All, ..args.options.clone() };
    let Past::Recorded(recorded) = Past::open(&args.history, &options)? else {
        anyhow::bail!("{}: a rate series cannot be backtested, allowed: a recorded history", args.history.display());
    };
    let request = Request { options, link: args.link, horizon_min: Duration::ZERO, starts_max: scenario::STARTS_MAX };
    let prediction = recorded.forecast(&request, &progress_bar())?;
    let hindsight = recorded.hindsight(&prediction.forecast, prediction.scenario.horizon);
    let found = Backtest::new(&hindsight.runs, hindsight.now.at).with_context(|| {
        format!(
            "{}: too short to be backtested: after its first quarter no forecast has 20 migrations behind it that had ended",
            args.history.display()
        )
    })?;
    let out = &mut io::stdout().lock();
    if args.json {
        report::write_backtest_json(out, &prediction, &found)
    } else {
        report::write_backtest(out, &prediction, &found)
    }
    .context("standard output")?;
    Ok(ExitCode::SUCCESS)
}

/// The starts of a forecast as they look afterwards, and the history's end.
#[derive(Debug)]
pub(super) struct Hindsight {
    pub(super) runs: Vec<Run>,
    pub(super) now: Moment,
}

impl Hindsight {
    /// Of a forecast over the recorded windows from the one of index `first` on.
    pub(super) fn new(timeline: &Timeline, first: u32, forecast: &Forecast, horizon: Duration) -> Hindsight {
        let mut windows = Vec::new();
        let (mut at, mut written) = (Duration::ZERO, 0.0);
        let used = timeline.entries().iter().filter(|entry| entry.index >= first);
        for entry in used.filter(|entry| entry.window.state == State::Recorded) {
            windows.push(Passed { at, wall_seconds: entry.window.start_unix_ns as f64 / 1e9, written });
            at += entry.window.length();
            written += f64::from(entry.window.written);
        }
        let end = Passed { at, wall_seconds: timeline.end_unix_ns() as f64 / 1e9, written };
        windows.push(end);
        let run = |(start, outcome): &(Duration, migcast_model::outcome::Outcome)| {
            let before = &windows[windows.partition_point(|window| window.at <= *start) - 1];
            let done = outcome.completed();
            Run {
                start: *start,
                wall_seconds: before.wall_seconds + (*start - before.at).as_secs_f64(),
                known: *start + done.map_or(horizon, |done| done.migration_time),
                time: done.map_or(f64::INFINITY, |done| done.migration_time.as_secs_f64()),
                downtime: done.map_or(f64::INFINITY, |done| done.downtime.total().as_secs_f64()),
                sent: done.map_or(f64::INFINITY, |done| done.sent_bytes.get() as f64),
                state: state(&windows, *start),
            }
        };
        let now = Moment { at: end.at, wall_seconds: end.wall_seconds, state: state(&windows, end.at) };
        Hindsight { runs: forecast.starts().iter().map(run).collect(), now }
    }

    /// When each start was, in recorded time and on the wall.
    pub(super) fn wall(&self) -> Vec<(Duration, jiff::Timestamp)> {
        let at = |run: &Run| jiff::Timestamp::from_millisecond((run.wall_seconds * 1e3) as i64).unwrap_or_default();
        self.runs.iter().map(|run| (run.start, at(run))).collect()
    }

    /// The choice that forecasts this guest best, and the starts it uses now, if not all of them.
    pub(super) fn best(&self) -> (Starting, Option<Vec<Duration>>) {
        let found = Backtest::new(&self.runs, self.now.at).and_then(|found| Some((found.best?, found.scores)));
        let score = found.and_then(|(best, scores)| scores.into_iter().find(|score| score.choice == best));
        let Some(score) = score else { return (Starting::TooShort, None) };
        let best = score.choice;
        if best == Choice::Everything {
            return (Starting::Best(score), None);
        }
        match Backtest::starts(best, &self.runs, &self.now) {
            Some(starts) => (Starting::Best(score), Some(starts)),
            None => (Starting::TooFewNow(best), None),
        }
    }
}

/// A window's beginning.
#[derive(Clone, Copy, Debug)]
struct Passed {
    at: Duration,
    wall_seconds: f64,
    /// Pages written up to here, each counted in every window.
    written: f64,
}

/// What the guest did before `at`: logarithms of pages written per second.
fn state(windows: &[Passed], at: Duration) -> [f64; 2] {
    let window = |at: Duration| windows[windows.partition_point(|window| window.at <= at).max(1) - 1];
    STATE_SPANS.map(|span| {
        let (from, to) = (window(at.saturating_sub(span)), window(at));
        let seconds = (to.at - from.at).as_secs_f64();
        if seconds > 0.0 { (1.0 + (to.written - from.written) / seconds).ln() } else { 0.0 }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: f64 = 3_600.0;

    /// Two days of a start every two minutes; every six hours another migration time, which nothing but the last hour tells.
    fn shifting() -> Vec<Run> {
        let run = |number: u64| {
            let at = 120 * number;
            let noise = 1.0 + 0.02 * ((number * 7_919 % 101) as f64 / 101.0);
            let time = [20.0, 60.0, 30.0, 90.0][(at / (6 * 3_600) % 4) as usize] * noise;
            let start = Duration::from_secs(at);
            let known = start + Duration::from_secs_f64(time);
            // A clock that runs slow enough that no hour comes again.
            let wall_seconds = 0.7 * at as f64;
            Run { start, wall_seconds, known, time, downtime: 0.3 * noise, sent: 1e9 * noise, state: [0.0, 0.0] }
        };
        (0..48 * 30).map(run).collect()
    }

    fn chosen(later: f64) -> (Starting, Option<Vec<Duration>>) {
        let at = Duration::from_secs(48 * 3_600);
        let now = Moment { at, wall_seconds: 0.7 * 48.0 * HOUR + later, state: [0.0, 0.0] };
        Hindsight { runs: shifting(), now }.best()
    }

    #[test]
    fn the_best_choice_is_used_where_it_has_starts_now_and_everything_where_it_has_not() {
        let last_hour = Choice::Last(Duration::from_secs(3_600));
        let (starting, starts) = chosen(0.0);
        assert!(matches!(starting, Starting::Best(score) if score.choice == last_hour), "{starting:?}");
        assert!(starts.is_some_and(|starts| starts.len() >= 20));
        // Nothing was recorded in the last hour.
        assert_eq!(chosen(2.0 * HOUR), (Starting::TooFewNow(last_hour), None));
    }

    #[test]
    fn a_short_past_chooses_nothing() {
        let now = Moment { at: Duration::from_secs(600), wall_seconds: 420.0, state: [0.0, 0.0] };
        let runs = shifting().into_iter().take(5).collect();
        assert_eq!(Hindsight { runs, now }.best(), (Starting::TooShort, None));
    }
}
