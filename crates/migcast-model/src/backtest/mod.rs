//! How well a guest's own past forecasts it, and which part of that past does so best.
//!
//! ```text
//!  history   ──┬────────────┬──────┬──────────────────►
//!  starts      s₀ ──────┤   s₁ ──│───┤
//!              had ended by t:  t  │      what came: the migration that starts at t
//!              may be used         └ had not: may not
//! ```
//! A migration is simulated once from each start. What came from one start on is the truth by which a forecast made
//! there is judged; that forecast may use only starts that are *settled* by then. So nothing is simulated twice, and
//! nothing of the future leaks. Which of those starts are used is a [`Choice`].
//!
//! Short migrations are known sooner than long ones, and that one never ends is known last. So the latest past, taken as
//! it is known, looks better than it was. Settled is therefore what began so long ago that the longest migration known
//! by then would be over; and nothing is tried so close to the history's end that the longest would not be.
//!
//! Forecasts are compared by their pinball loss at the 5, 50 and 95 % quantiles of the logarithm of the migration time
//! (Koenker and Bassett, *Regression Quantiles*, 1978), in which too wide a band costs as well as one that misses.

mod choice;

use std::time::Duration;

pub use choice::Choice;
use choice::Past;

/// A simulated migration as a backtest sees it.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// When it starts, in recorded time.
    pub start: Duration,
    /// The same on the wall: seconds since some instant.
    pub wall_seconds: f64,
    /// When it is known how it went: at its end, or when it was given up.
    pub known: Duration,
    /// Migration time in seconds, infinite where it does not converge.
    pub time: f64,
    /// Downtime in seconds, likewise.
    pub downtime: f64,
    /// Bytes sent, likewise.
    pub sent: f64,
    /// What the guest did just before: the logarithm of pages written per second, over a short and a longer span.
    pub state: [f64; 2],
}

impl Run {
    /// How long it took to know how it went.
    fn length(&self) -> Duration {
        self.known - self.start
    }

    /// The moment at which it starts.
    fn moment(&self) -> Moment {
        Moment { at: self.start, wall_seconds: self.wall_seconds, state: self.state }
    }
}

/// When a forecast is made.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// In recorded time.
    pub at: Duration,
    /// On the wall, see [`Run::wall_seconds`].
    pub wall_seconds: f64,
    /// See [`Run::state`].
    pub state: [f64; 2],
}

/// Fewer runs make no forecast.
const RUNS_MIN: usize = 20;
/// Of the history so much is past before the first forecast is tried.
const FIRST_SHARE: u32 = 4;
/// Forecasts that are tried, at most.
const POINTS_MAX: usize = 400;
/// Fewer migrations, laid end to end, say nothing of which choice is best.
const BLOCKS_MIN: usize = 50;
/// A band of 5 to 95 % that holds less is not to be trusted.
const INSIDE_MIN: f64 = 0.8;
const QUANTILES: [f64; 3] = [0.05, 0.5, 0.95];
/// What is infinite is missed by as much as if it were this many seconds, or bytes.
const INFINITE: f64 = 1e12;

/// How one choice did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Score {
    /// The choice.
    pub choice: Choice,
    /// Forecasts that were tried with it.
    pub points: usize,
    /// Median of |forecast median − actual| ÷ actual, of migration times.
    pub time_error: f64,
    /// The same of downtimes.
    pub downtime_error: f64,
    /// The same of bytes sent.
    pub sent_error: f64,
    /// Share of actual migration times inside the 5 to 95 % band, 0 to 1.
    pub time_inside: f64,
    /// Share of downtimes.
    pub downtime_inside: f64,
    /// Median width of the band of migration times, as a share of its median; infinite where it does not end.
    pub time_width: f64,
    /// Mean pinball loss of log migration time.
    pub loss: f64,
    /// What it loses less than [`Choice::Everything`] on the same points, and the standard error of that.
    pub gain: (f64, f64),
}

impl Score {
    /// Of times and downtimes the smaller share inside the band.
    fn inside(&self) -> f64 {
        self.time_inside.min(self.downtime_inside)
    }
}

/// What a backtest found.
#[derive(Clone, Debug, PartialEq)]
pub struct Backtest {
    /// Each choice for which there was past enough at half the points or more, in the order of [`Choice::ALL`].
    pub scores: Vec<Score>,
    /// Migrations of median length that the tested part of the history holds, laid end to end.
    pub blocks: usize,
    /// The choice to use: everything, unless another gains more than two standard errors, and its bands can be trusted: they
    /// hold 80 % of times and downtimes, or as many as those of everything. `None` where the history is too short to tell.
    pub best: Option<Choice>,
}

/// A forecast at a point, against what came.
struct Tried {
    at: Duration,
    loss: f64,
    time_error: f64,
    downtime_error: f64,
    sent_error: f64,
    time_inside: bool,
    downtime_inside: bool,
    time_width: f64,
}

impl Backtest {
    /// Tries every choice at points spread over a history of this length. `runs` are ordered by start; those that are
    /// known only after the history's end are left out. `None` where nothing can be tried.
    pub fn new(runs: &[Run], length: Duration) -> Option<Backtest> {
        let points = points(runs, length);
        let block = median_length(runs, length)?.max(Duration::from_millis(1));
        let tested = points.last()?.known - points.first()?.start;
        let blocks = (tested.as_nanos() / block.as_nanos()) as usize;
        let choices: Vec<Choice> = Choice::within(length).collect();
        let mut tried: Vec<Vec<Tried>> = choices.iter().map(|_| Vec::new()).collect();
        for point in &points {
            let past = Past::settled(runs, point.start);
            for (choice, tried) in choices.iter().zip(&mut tried) {
                tried.extend(forecast(*choice, &past, &point.moment()).map(|told| told.judged_by(point)));
            }
        }
        let enough = |tried: &[Tried]| !tried.is_empty() && 2 * tried.len() >= points.len();
        let everything = &tried[0];
        let scores: Vec<Score> = choices
            .iter()
            .zip(&tried)
            .filter(|(_, tried)| enough(tried))
            .map(|(choice, tried)| score(*choice, tried, everything, block))
            .collect();
        let trusted = scores.first().map_or(INSIDE_MIN, |everything| everything.inside().min(INSIDE_MIN));
        let gains = |score: &&Score| score.gain.0 > 2.0 * score.gain.1 && score.inside() >= trusted;
        let best = scores.iter().filter(gains).max_by(|one, other| one.gain.0.total_cmp(&other.gain.0));
        let best = best.map_or(Choice::Everything, |score| score.choice);
        let can_tell = blocks >= BLOCKS_MIN && scores.first().is_some_and(|score| score.choice == Choice::Everything);
        (!scores.is_empty()).then_some(Backtest { scores, blocks, best: can_tell.then_some(best) })
    }

    /// The starts that a forecast at `now` uses with this choice, of runs that are settled by then; `None` where they are
    /// too few.
    pub fn starts(choice: Choice, runs: &[Run], now: &Moment) -> Option<Vec<Duration>> {
        let chosen = choice.select(&Past::settled(runs, now.at), now);
        (chosen.len() >= RUNS_MIN).then(|| chosen.iter().map(|run| run.start).collect())
    }
}

/// The runs by which forecasts are judged: spread over the history behind its first part, and none so late that the
/// longest migration would outlast it.
fn points(runs: &[Run], length: Duration) -> Vec<&Run> {
    let all = Past::settled(runs, length);
    let first = all.runs.partition_point(|run| run.start < length / FIRST_SHARE);
    crate::forecast::thinned(&all.runs[first..], POINTS_MAX)
}

fn median_length(runs: &[Run], length: Duration) -> Option<Duration> {
    let mut spans: Vec<Duration> = Past::settled(runs, length).runs.iter().map(|run| run.length()).collect();
    spans.sort_unstable();
    spans.get(spans.len() / 2).copied()
}

/// What a forecast says, at [`QUANTILES`]; infinite where it does not converge.
#[derive(Debug, PartialEq)]
struct Told {
    times: [f64; 3],
    downtimes: [f64; 3],
    sent: [f64; 3],
}

/// The forecast that a choice makes now; `None` where it has too little to make it from.
fn forecast(choice: Choice, past: &Past<'_>, now: &Moment) -> Option<Told> {
    let chosen = choice.select(past, now);
    let quantiles = |of: fn(&Run) -> f64| {
        let mut values: Vec<f64> = chosen.iter().map(|run| of(run)).collect();
        values.sort_by(f64::total_cmp);
        QUANTILES.map(|q| values[((q * values.len() as f64).ceil() as usize).clamp(1, values.len()) - 1])
    };
    (chosen.len() >= RUNS_MIN).then(|| Told {
        times: quantiles(|run| run.time),
        downtimes: quantiles(|run| run.downtime),
        sent: quantiles(|run| run.sent),
    })
}

impl Told {
    fn judged_by(&self, truth: &Run) -> Tried {
        let pinball = |(told, q): (f64, f64)| {
            let miss = libm::log(truth.time.min(INFINITE)) - libm::log(told.min(INFINITE));
            if miss >= 0.0 { q * miss } else { (q - 1.0) * miss }
        };
        let inside = |band: [f64; 3], value: f64| (band[0]..=band[2]).contains(&value);
        let error = |told: [f64; 3], actual: f64| (told[1].min(INFINITE) / actual.clamp(1e-9, INFINITE) - 1.0).abs();
        Tried {
            at: truth.start,
            loss: self.times.into_iter().zip(QUANTILES).map(pinball).sum::<f64>() / 3.0,
            time_error: error(self.times, truth.time),
            downtime_error: error(self.downtimes, truth.downtime),
            sent_error: error(self.sent, truth.sent),
            time_inside: inside(self.times, truth.time),
            downtime_inside: inside(self.downtimes, truth.downtime),
            time_width: if self.times[2].is_finite() {
                (self.times[2] - self.times[0]) / self.times[1]
            } else {
                f64::INFINITY
            },
        }
    }
}

fn score(choice: Choice, tried: &[Tried], everything: &[Tried], block: Duration) -> Score {
    let count = tried.len() as f64;
    let median = |of: fn(&Tried) -> f64| {
        let mut values: Vec<f64> = tried.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values[(values.len() - 1) / 2]
    };
    let share = |of: fn(&Tried) -> bool| tried.iter().filter(|tried| of(tried)).count() as f64 / count;
    Score {
        choice,
        points: tried.len(),
        time_error: median(|tried| tried.time_error),
        downtime_error: median(|tried| tried.downtime_error),
        sent_error: median(|tried| tried.sent_error),
        time_inside: share(|tried| tried.time_inside),
        downtime_inside: share(|tried| tried.downtime_inside),
        time_width: median(|tried| tried.time_width),
        loss: tried.iter().map(|tried| tried.loss).sum::<f64>() / count,
        gain: gain(tried, everything, block),
    }
}

/// Mean of the differences on common points, and its standard error. Points within one migration's length see much of the
/// same, so they count as one.
fn gain(tried: &[Tried], everything: &[Tried], block: Duration) -> (f64, f64) {
    let mut means: Vec<(u128, f64, f64)> = Vec::new();
    for one in tried {
        let Ok(same) = everything.binary_search_by_key(&one.at, |other| other.at) else { continue };
        let (number, difference) = (one.at.as_nanos() / block.as_nanos(), everything[same].loss - one.loss);
        match means.last_mut() {
            Some((last, sum, count)) if *last == number => (*sum, *count) = (*sum + difference, *count + 1.0),
            _ => means.push((number, difference, 1.0)),
        }
    }
    let means: Vec<f64> = means.into_iter().map(|(_, sum, count)| sum / count).collect();
    let count = means.len() as f64;
    let mean = means.iter().sum::<f64>() / count.max(1.0);
    let squares: f64 = means.iter().map(|value| (value - mean).powi(2)).sum();
    (mean, if count > 1.0 { (squares / (count - 1.0) / count).sqrt() } else { f64::INFINITY })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::dirty::splitmix;

    const HOUR: u64 = 3_600;

    /// A start every `step` seconds over so many, with these times.
    fn runs(seconds: u64, step: u64, time: impl Fn(u64) -> f64) -> (Vec<Run>, Duration) {
        let run = |number: u64| {
            let at = number * step;
            let noise = 1.0 + 0.05 * ((splitmix(7, number) >> 40) as f64 / (1u64 << 24) as f64 - 0.5);
            let (state, time) = (libm::log(time(at)), time(at) * noise);
            let start = Duration::from_secs(at);
            let known = start + Duration::from_secs_f64(time);
            let (downtime, sent) = (0.3 * noise, 1e9 * noise);
            Run { start, wall_seconds: at as f64, known, time, downtime, sent, state: [state, state] }
        };
        ((0..seconds / step).map(run).collect(), Duration::from_secs(seconds))
    }

    /// Does not converge within a minute.
    fn never(run: &mut Run) {
        (run.time, run.downtime, run.sent) = (f64::INFINITY, f64::INFINITY, f64::INFINITY);
        run.known = run.start + Duration::from_secs(60);
    }

    fn best(runs: &[Run], length: Duration) -> Option<Choice> {
        Backtest::new(runs, length).unwrap().best
    }

    #[test]
    fn of_a_steady_guest_everything_is_as_good_as_anything() {
        let (runs, length) = runs(2 * HOUR, 10, |_| 20.0);
        let found = Backtest::new(&runs, length).unwrap();
        assert_eq!(found.best, Some(Choice::Everything));
        let everything = &found.scores[0];
        assert!((0.8..=1.0).contains(&everything.time_inside) && everything.time_error < 0.03, "{everything:?}");
    }

    #[test]
    fn after_a_shift_the_last_hour_is_best() {
        // Each six hours another level, which the state does not tell.
        let (mut runs, length) = runs(48 * HOUR, 120, |at| [20.0, 60.0, 30.0, 90.0][(at / (6 * HOUR) % 4) as usize]);
        runs.iter_mut().for_each(|run| run.state = [0.0, 0.0]);
        runs.iter_mut().for_each(|run| run.wall_seconds *= 0.7);
        assert_eq!(best(&runs, length), Some(Choice::Last(Duration::from_secs(3_600))));
    }

    #[test]
    fn phases_of_half_a_minute_are_told_by_what_the_guest_does() {
        let (runs, length) = runs(2 * HOUR, 5, |at| if at / 30 % 2 == 0 { 5.0 } else { 15.0 });
        assert_eq!(best(&runs, length), Some(Choice::SamePhase));
    }

    #[test]
    fn a_daily_cycle_is_told_by_the_hour() {
        let busy = |at: u64| if at / HOUR % 24 == 14 { 200.0 } else { 20.0 };
        let (mut runs, length) = runs(14 * 24 * HOUR, 600, busy);
        runs.iter_mut().for_each(|run| run.state = [0.0, 0.0]);
        assert_eq!(best(&runs, length), Some(Choice::SameHour));
    }

    #[test]
    fn a_short_history_names_none() {
        let (some, length) = runs(120, 1, |_| 20.0);
        let found = Backtest::new(&some, length).unwrap();
        assert_eq!((found.best, found.blocks), (None, 4));
        let (few, length) = runs(30, 1, |_| 25.0);
        assert_eq!(Backtest::new(&few, length), None);
    }

    #[test]
    fn what_does_not_converge_is_missed_by_a_band_that_ends() {
        let (mut runs, length) = runs(2 * HOUR, 10, |_| 20.0);
        runs.iter_mut().skip(500).for_each(never);
        let found = Backtest::new(&runs, length).unwrap();
        assert!(found.scores.iter().all(|score| score.loss.is_finite()));
        assert_eq!(
            found.best,
            Some(Choice::Last(Duration::from_secs(300))),
            "what was before says the wrong thing for long"
        );
    }

    #[test]
    fn a_short_span_holds_its_share_of_what_never_ends() {
        let (mut runs, length) = runs(HOUR, 1, |_| 20.0);
        runs.iter_mut().filter(|run| run.start.as_secs() % 2 == 1).for_each(never);
        let now = Moment { at: length, wall_seconds: length.as_secs_f64(), state: [3.0, 3.0] };
        let starts = Backtest::starts(Choice::Last(Duration::from_secs(60)), &runs, &now).unwrap();
        let odd = starts.iter().filter(|start| start.as_secs() % 2 == 1).count();
        assert_eq!((starts.len(), odd), (61, 30), "of 61 settled starts 30 never end");
        // Neither are those that end tried where the others cannot be.
        let last = points(&runs, length).last().unwrap().start;
        assert!(last <= length - Duration::from_secs(60), "{last:?}");
    }

    #[test]
    fn a_weekly_cycle_is_told_by_the_hour_of_the_week() {
        let busy = |at: u64| if at / HOUR % 168 == 38 { 300.0 } else { 20.0 };
        let (mut runs, _) = runs(8 * 7 * 24 * HOUR, 600, busy);
        runs.iter_mut().for_each(|run| run.state = [0.0, 0.0]);
        let now = runs.iter().rfind(|run| run.start.as_secs() / HOUR % 168 == 38).unwrap().moment();
        let starts = Backtest::starts(Choice::SameHourOfWeek, &runs, &now).unwrap();
        assert!(starts.iter().all(|start| (37..=39).contains(&(start.as_secs() / HOUR % 168))), "{starts:?}");
        assert_eq!(starts.len(), 7 * 7);
    }

    #[test]
    fn a_forecast_now_uses_the_starts_of_its_choice() {
        let (runs, length) = runs(2 * HOUR, 10, |_| 20.0);
        let now = Moment { at: length, wall_seconds: length.as_secs_f64(), state: [3.0, 3.0] };
        let starts = Backtest::starts(Choice::Last(Duration::from_secs(300)), &runs, &now).unwrap();
        let settled = length - Duration::from_secs(20);
        assert!(starts.iter().all(|start| *start >= settled - Duration::from_secs(301) && *start <= settled));
        assert_eq!(starts.len(), 30);
        assert_eq!(Backtest::starts(Choice::SameHour, &runs, &now), None, "there is no day before");
    }

    proptest! {
        /// What comes at a point and after it changes nothing in the forecast made there.
        #[test]
        fn nothing_of_the_future_leaks(point in 60usize..300, seed: u64) {
            let (runs, _) = runs(HOUR, 10, |at| if at / 90 % 2 == 0 { 10.0 } else { 30.0 });
            let mut other = runs.clone();
            let now = Moment { at: runs[point].start, wall_seconds: runs[point].wall_seconds, state: runs[point].state };
            for (number, run) in other.iter_mut().enumerate().filter(|(_, run)| run.known > now.at) {
                let time = 1.0 + (splitmix(seed, number as u64) % 100) as f64;
                *run = Run { time, known: run.start.max(now.at) + Duration::from_secs_f64(time), ..*run };
            }
            let (past, others) = (Past::settled(&runs, now.at), Past::settled(&other, now.at));
            for choice in Choice::ALL {
                prop_assert_eq!(Backtest::starts(choice, &runs, &now), Backtest::starts(choice, &other, &now));
                prop_assert_eq!(forecast(choice, &past, &now), forecast(choice, &others, &now));
            }
        }
    }
}
