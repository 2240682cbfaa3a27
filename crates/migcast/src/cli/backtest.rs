//! `migcast backtest`: how well a guest's own past forecasts it.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, ensure};
use migcast_history::timeline::Timeline;
use migcast_history::windows::State;
use migcast_model::backtest::{Backtest, Choice, Margins, Moment, Run};
use migcast_model::forecast::Forecast;
use migcast_model::outcome::Outcome;
use migcast_model::quantity::show_duration;
use migcast_model::units::BytesPerSec;

use super::past::Past;
use super::predict::progress_bar;
use super::scenario::{self, AsOf, ModelName, Options, Request, Start};
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
    let options = Options { start: Start::All, as_of: None, ..args.options.clone() };
    let Past::Recorded(recorded) = Past::open(&args.history, &options)? else {
        anyhow::bail!("{}: a rate series cannot be backtested, allowed: a recorded history", args.history.display());
    };
    let request = Request { options, link: args.link, horizon_min: Duration::ZERO, starts_max: scenario::STARTS_MAX };
    let age = args.options.as_of.unwrap_or(AsOf::End).age(recorded.end())?;
    let prediction = recorded.forecast(&request, &progress_bar())?;
    let hindsight = recorded.hindsight(&prediction.forecast, prediction.scenario.horizon, age);
    let found = hindsight.backtest().with_context(|| {
        format!(
            "{}: too short to be backtested: after its first quarter no forecast has 20 migrations behind it that had ended{}",
            args.history.display(),
            if age.is_zero() { String::new() } else { format!(" {} before", show_duration(age)) }
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

/// Time that passes and is not recorded is a gap from here on; less is a recorder's clock.
const GAP_MIN_SECONDS: f64 = 0.5;

/// The starts of a forecast as they look afterwards, and the moment at which another one is made.
#[derive(Debug)]
pub(super) struct Hindsight {
    pub(super) runs: Vec<Run>,
    pub(super) now: Moment,
}

/// From which starts a forecast is made.
#[derive(Debug, PartialEq)]
pub(super) struct Chosen {
    /// How they were chosen.
    pub(super) starting: Starting,
    /// Those, if not all.
    pub(super) starts: Option<Vec<Duration>>,
    /// How much more may come than they say.
    pub(super) margins: Margins,
}

impl Chosen {
    /// Where there is nothing to choose.
    pub(super) fn as_asked() -> Chosen {
        Chosen { starting: Starting::AsAsked, starts: None, margins: Margins::NONE }
    }
}

impl Hindsight {
    /// Of a forecast over the recorded windows from the one of index `first` on, to who makes another one `age` after the last.
    pub(super) fn new(
        timeline: &Timeline,
        first: u32,
        forecast: &Forecast,
        horizon: Duration,
        age: Duration,
    ) -> Hindsight {
        let mut windows = Vec::new();
        let (mut at, mut written) = (Duration::ZERO, 0.0);
        let used = timeline.entries().iter().filter(|entry| entry.index >= first);
        for entry in used.filter(|entry| entry.window.state == State::Recorded) {
            windows.push(Passed { at, wall_seconds: entry.window.start_unix_ns as f64 / 1e9, written });
            at += entry.window.length();
            written += f64::from(entry.window.written);
        }
        let last = timeline.recorded_end().unwrap_or_else(|| timeline.end());
        let end = Passed { at, wall_seconds: last.as_nanosecond() as f64 / 1e9, written };
        windows.push(end);
        let passed = Windows(windows);
        let length = |outcome: &Outcome| outcome.completed().map_or(horizon, |done| done.migration_time);
        let longest = forecast.starts().iter().map(|(_, outcome)| length(outcome)).max().unwrap_or_default();
        let run = |(start, outcome): &(Duration, Outcome)| {
            let done = outcome.completed();
            Run {
                start: *start,
                wall_seconds: passed.wall_seconds(*start),
                known: if passed.has_gap(*start, longest) { Duration::MAX } else { *start + length(outcome) },
                time: done.map_or(f64::INFINITY, |done| done.migration_time.as_secs_f64()),
                downtime: done.map_or(f64::INFINITY, |done| done.downtime.total().as_secs_f64()),
                sent: done.map_or(f64::INFINITY, |done| done.sent_bytes.get() as f64),
                state: start.checked_sub(age).and_then(|known| passed.state(known, age)),
            }
        };
        let wall_seconds = end.wall_seconds + age.as_secs_f64();
        let now = Moment { known: end.at, age, wall_seconds, state: passed.state(end.at, Duration::ZERO) };
        Hindsight { runs: forecast.starts().iter().map(run).collect(), now }
    }

    /// How well forecasts of such an age were.
    pub(super) fn backtest(&self) -> Option<Backtest> {
        Backtest::new(&self.runs, self.now.known, self.now.age)
    }

    /// When each start was, in recorded time and on the wall.
    pub(super) fn wall(&self) -> Vec<(Duration, jiff::Timestamp)> {
        let at = |run: &Run| jiff::Timestamp::from_millisecond((run.wall_seconds * 1e3) as i64).unwrap_or_default();
        self.runs.iter().map(|run| (run.start, at(run))).collect()
    }

    /// The choice that forecasts this guest best, and the starts it uses now.
    pub(super) fn best(&self) -> Chosen {
        let told = |found: Option<Backtest>| {
            let found = found?;
            let score = |choice: Choice| found.scores.iter().find(|score| score.choice == choice).copied();
            Some((score(found.best?)?, score(Choice::Everything)?.margins))
        };
        let Some((score, of_everything)) = told(self.backtest()) else {
            // A younger one might have told; what more may come than all of it says does not depend on its age.
            let younger = told(Backtest::new(&self.runs, self.now.known, Duration::ZERO));
            let too_old = younger.map(|(_, margins)| self.everywhere(Starting::TooOld, margins));
            return too_old.unwrap_or_else(|| self.everywhere(Starting::TooShort, Margins::NONE));
        };
        if score.choice == Choice::Everything {
            return self.everywhere(Starting::Best(score), score.margins);
        }
        match Backtest::starts(score.choice, &self.runs, &self.now) {
            Some(starts) => Chosen { starting: Starting::Best(score), starts: Some(starts), margins: score.margins },
            None => self.everywhere(Starting::TooFewNow(score.choice), of_everything),
        }
    }

    /// All starts but those that a gap hides, where there are others.
    fn everywhere(&self, starting: Starting, margins: Margins) -> Chosen {
        let seen = self.runs.iter().filter(|run| run.known < Duration::MAX).map(|run| run.start);
        let starts = Some(seen.collect::<Vec<_>>());
        Chosen { starting, starts: starts.filter(|seen| !seen.is_empty() && seen.len() < self.runs.len()), margins }
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

/// The beginnings of all windows in order, and the end of the last.
#[derive(Debug)]
struct Windows(Vec<Passed>);

impl Windows {
    /// The window that holds a moment, or the one before.
    fn at(&self, at: Duration) -> Passed {
        self.0[self.0.partition_point(|window| window.at <= at).max(1) - 1]
    }

    /// Recorded time on the wall.
    fn wall_seconds(&self, at: Duration) -> f64 {
        let before = self.at(at);
        before.wall_seconds + (at - before.at).as_secs_f64()
    }

    /// Whether more time passed from `start` on than was recorded.
    fn has_gap(&self, start: Duration, length: Duration) -> bool {
        let passed = self.wall_seconds(start + length) - self.wall_seconds(start);
        passed - length.as_secs_f64() > GAP_MIN_SECONDS
    }

    /// What the guest did before `at`, which is `age` before it counts: logarithms of pages written per second. `None` where not
    /// all of that time was recorded.
    fn state(&self, at: Duration, age: Duration) -> Option<[f64; 2]> {
        let before = STATE_SPANS[1];
        if self.has_gap(at.checked_sub(before)?, before + age) {
            return None;
        }
        let to = self.at(at);
        Some(STATE_SPANS.map(|span| {
            let from = self.at(at - span);
            let seconds = (to.at - from.at).as_secs_f64();
            if seconds > 0.0 { (1.0 + (to.written - from.written) / seconds).ln() } else { 0.0 }
        }))
    }
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
            let (downtime, sent, state) = (0.3 * noise, 1e9 * noise, None);
            Run { start, wall_seconds, known, time, downtime, sent, state }
        };
        (0..48 * 30).map(run).collect()
    }

    fn chosen(later: f64) -> Chosen {
        let known = Duration::from_secs(48 * 3_600);
        let wall_seconds = 0.7 * 48.0 * HOUR + later;
        let now = Moment { known, age: Duration::ZERO, wall_seconds, state: None };
        Hindsight { runs: shifting(), now }.best()
    }

    #[test]
    fn the_best_choice_is_used_where_it_has_starts_now_and_everything_where_it_has_not() {
        let last_hour = Choice::Last(Duration::from_secs(3_600));
        let Chosen { starting, starts, margins } = chosen(0.0);
        assert!(matches!(starting, Starting::Best(score) if score.choice == last_hour), "{starting:?}");
        assert!(starts.is_some_and(|starts| starts.len() >= 20));
        // Nothing was recorded in the last hour.
        let none = chosen(2.0 * HOUR);
        assert_eq!((none.starting, none.starts), (Starting::TooFewNow(last_hour), None));
        // What forecasts it worse has wider bands.
        assert!(none.margins.time.above > margins.time.above, "{margins:?} and {:?}", none.margins);
    }

    #[test]
    fn a_short_past_chooses_nothing_and_neither_does_an_old_one() {
        let best = |runs: Vec<Run>, hours: u64, age: u64| {
            let (known, age) = (Duration::from_secs(hours * 3_600), Duration::from_secs(age * 3_600));
            let now = Moment { known, age, wall_seconds: 0.0, state: None };
            Hindsight { runs, now }.best()
        };
        let few = || shifting().into_iter().take(5).collect();
        assert_eq!(
            (best(few(), 1, 0).starting, best(few(), 1, 240).starting),
            (Starting::TooShort, Starting::TooShort)
        );
        let old = best(shifting(), 48, 240);
        assert_eq!((old.starting, old.starts), (Starting::TooOld, None));
        assert!(old.margins.time.above > 0.0, "what more may come than all of it says is known of it all the same");
    }

    #[test]
    fn starts_behind_which_something_is_missing_are_left_out() {
        let mut runs = shifting();
        runs.iter_mut().take(100).for_each(|run| run.known = Duration::MAX);
        let now = Moment { known: Duration::from_secs(1), age: Duration::ZERO, wall_seconds: 0.0, state: None };
        let starts = Hindsight { runs: runs.clone(), now }.best().starts.unwrap();
        assert_eq!((starts.len(), starts[0]), (runs.len() - 100, runs[100].start));
        runs.iter_mut().for_each(|run| run.known = Duration::MAX);
        assert_eq!(Hindsight { runs, now }.best().starts, None, "better those than none");
    }

    #[test]
    fn what_the_guest_did_is_known_where_all_of_it_was_recorded() {
        // A minute in windows of a second, three pages in each, and a second one half a minute later.
        let window = |n: u64| {
            let seconds = n as f64 + if n < 60 { 0.0 } else { 30.0 };
            Passed { at: Duration::from_secs(n), wall_seconds: seconds, written: 3.0 * n as f64 }
        };
        let windows = Windows((0..=120).map(window).collect());
        let at = Duration::from_secs;
        let state = |seconds: u64, age: u64| windows.state(at(seconds), at(age));
        assert_eq!(state(30, 0), Some([4f64.ln(); 2]));
        assert_eq!((state(9, 0), state(65, 0), state(55, 10)), (None, None, None));
        assert!(state(70, 0).is_some() && state(10, 5).is_some());
        assert!(
            windows.has_gap(at(55), at(10)) && !windows.has_gap(at(30), at(29)) && !windows.has_gap(at(115), at(60))
        );
    }
}
