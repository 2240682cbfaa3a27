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
//! Nor is a forecast made from yesterday's recording told what the guest does today. How old the history is when it is
//! made, its *age*, is kept from every forecast that is tried: none may use what came later than that before its start.
//!
//! A band over starting points says what those would have seen. How much more may come is seen by what did come: the ends
//! are moved out until of all that was tried a twentieth lies beyond each ([`Margin`]; conformalized quantile regression:
//! Romano, Patterson and Candès, 2019).
//!
//! Forecasts are compared by their pinball loss at the 5, 50 and 95 % quantiles of the logarithm of the migration time
//! (Koenker and Bassett, *Regression Quantiles*, 1978), in which too wide a band costs as well as one that misses; as they
//! are, since a margin is fitted to what it would be judged by.

mod choice;
mod margin;

use std::time::Duration;

pub use choice::Choice;
use choice::Past;
pub use margin::{Margin, Margins};

/// A simulated migration as a backtest sees it.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// When it starts, in recorded time.
    pub start: Duration,
    /// The same on the wall: seconds since some instant.
    pub wall_seconds: f64,
    /// When it is known how it went: at its end, or when it was given up; never ([`Duration::MAX`]) where the history has a
    /// gap before the longest would be over (to leave out those alone that reach it would leave the short ones).
    pub known: Duration,
    /// Migration time in seconds, infinite where it does not converge.
    pub time: f64,
    /// Downtime in seconds, likewise.
    pub downtime: f64,
    /// Bytes sent, likewise.
    pub sent: f64,
    /// What the guest did before, up to the age of the history before the start: the logarithm of pages written per second,
    /// over a short and a longer span. `None` where nothing was recorded then.
    pub state: Option<[f64; 2]>,
}

impl Run {
    /// How long it took to know how it went.
    fn length(&self) -> Duration {
        self.known - self.start
    }

    /// The moment at which it starts.
    fn moment(&self, age: Duration) -> Moment {
        let Run { start, wall_seconds, state, .. } = *self;
        Moment { known: start.saturating_sub(age), age, wall_seconds, state }
    }
}

/// When a forecast is made, of a migration that starts there and then.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// Up to when the guest is known, in recorded time.
    pub known: Duration,
    /// How long ago that is.
    pub age: Duration,
    /// The moment on the wall, see [`Run::wall_seconds`].
    pub wall_seconds: f64,
    /// See [`Run::state`].
    pub state: Option<[f64; 2]>,
}

/// Fewer runs make no forecast.
const RUNS_MIN: usize = 20;
/// Of the history so much is past before the first forecast is tried.
const FIRST_SHARE: u32 = 4;
/// Forecasts that are tried, at most.
const POINTS_MAX: usize = 400;
/// Fewer migrations, laid end to end, say nothing of which choice is best.
const BLOCKS_MIN: usize = 10;
/// The standard normal distribution at 99.5 %. That one of nine choices gains so much by chance is 4.4 % likely.
const SURE: f64 = 2.575_829;
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
    /// Share of actual migration times inside the 5 to 95 % band over the starting points, 0 to 1.
    pub time_inside: f64,
    /// Share of downtimes.
    pub downtime_inside: f64,
    /// How much wider the bands have to be.
    pub margins: Margins,
    /// Median width of the band of migration times with its margin, as a share of its median; infinite where it does not
    /// end.
    pub time_width: f64,
    /// Mean pinball loss of log migration time, over the starting points.
    pub loss: f64,
    /// What it loses less than [`Choice::Everything`].
    pub gain: Gain,
}

/// What one choice loses less than another on the same points.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gain {
    /// On average.
    pub mean: f64,
    /// Of that; infinite where there is one block only.
    pub standard_error: f64,
    /// Migrations of median length, end to end, in which there are such points.
    pub blocks: usize,
}

/// What a backtest found.
#[derive(Clone, Debug, PartialEq)]
pub struct Backtest {
    /// Each choice for which there was past enough at half the points or more, in the order of [`Choice::ALL`].
    pub scores: Vec<Score>,
    /// Migrations of median length, laid end to end, in which a forecast from everything was tried.
    pub blocks: usize,
    /// The choice to use: everything, unless another surely loses less. `None` where the history is too short to tell.
    pub best: Option<Choice>,
}

/// A forecast at a point, and what came.
struct Tried {
    at: Duration,
    told: Told,
    came: Run,
}

impl Backtest {
    /// Tries every choice at points spread over a history of this length, with forecasts that know the guest up to `age` before.
    /// `runs` are ordered by start; those that are known only after the history's end are left out. `None` where nothing can be
    /// tried.
    pub fn new(runs: &[Run], length: Duration, age: Duration) -> Option<Backtest> {
        let points = points(runs, length);
        let block = median_length(runs, length)?.max(Duration::from_millis(1));
        let choices: Vec<Choice> = Choice::within(length).collect();
        let mut tried: Vec<Vec<Tried>> = choices.iter().map(|_| Vec::new()).collect();
        for point in &points {
            let now = point.moment(age);
            let past = Past::settled(runs, now.known);
            for (choice, tried) in choices.iter().zip(&mut tried) {
                let told = forecast(*choice, &past, &now);
                tried.extend(told.map(|told| Tried { at: point.start, told, came: **point }));
            }
        }
        let enough = |tried: &[Tried]| !tried.is_empty() && 2 * tried.len() >= points.len();
        let tried: Vec<(Choice, Vec<Tried>)> =
            choices.into_iter().zip(tried).filter(|(_, tried)| enough(tried)).collect();
        let losses = |tried: &[Tried]| tried.iter().map(|one| (one.at, one.loss())).collect::<Vec<_>>();
        let everything = losses(&tried.first()?.1);
        let score = |(choice, tried): &(Choice, Vec<Tried>)| {
            score(*choice, tried, Gain::of(&losses(tried), &everything, block))
        };
        let scores: Vec<Score> = tried.iter().map(score).collect();
        let blocks = scores[0].gain.blocks;
        let gains = |score: &&Score| score.gain.is_sure();
        let best = scores.iter().filter(gains).max_by(|one, other| one.gain.mean.total_cmp(&other.gain.mean));
        let best = best.map_or(Choice::Everything, |score| score.choice);
        let can_tell = blocks >= BLOCKS_MIN && scores[0].choice == Choice::Everything;
        Some(Backtest { scores, blocks, best: can_tell.then_some(best) })
    }

    /// The starts that a forecast at `now` uses with this choice, of runs that are settled by then; `None` where they are
    /// too few.
    pub fn starts(choice: Choice, runs: &[Run], now: &Moment) -> Option<Vec<Duration>> {
        let chosen = choice.select(&Past::settled(runs, now.known), now);
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
#[derive(Clone, Copy, Debug, PartialEq)]
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

impl Tried {
    /// Mean pinball loss of the logarithm of the migration time.
    fn loss(&self) -> f64 {
        let log = |value: f64| libm::log(value.clamp(1e-9, INFINITE));
        let pinball = |(told, q): (f64, f64)| {
            let miss = log(self.came.time) - log(told);
            if miss >= 0.0 { q * miss } else { (q - 1.0) * miss }
        };
        self.told.times.into_iter().zip(QUANTILES).map(pinball).sum::<f64>() / 3.0
    }

    /// Width of the band of migration times, as a share of its median.
    fn width(&self, margin: Margin) -> f64 {
        let [low, median, high] = self.told.times;
        let (low, high) = (margin.widened(low, QUANTILES[0]), margin.widened(high, QUANTILES[2]));
        if high.is_finite() { (high - low) / median } else { f64::INFINITY }
    }
}

/// Of forecasts that count as so many independent ones.
fn margins(tried: &[Tried], independent: usize) -> Margins {
    let of = |quantity: fn(&Tried) -> ([f64; 3], f64)| {
        let ends = |one: &Tried| {
            let ([low, _, high], came) = quantity(one);
            (low, high, came)
        };
        Margin::holding(&tried.iter().map(ends).collect::<Vec<_>>(), independent)
    };
    Margins {
        time: of(|one| (one.told.times, one.came.time)),
        downtime: of(|one| (one.told.downtimes, one.came.downtime)),
        sent: of(|one| (one.told.sent, one.came.sent)),
    }
}

fn score(choice: Choice, tried: &[Tried], gain: Gain) -> Score {
    let (count, margins) = (tried.len() as f64, margins(tried, gain.blocks));
    let median = |of: &dyn Fn(&Tried) -> f64| {
        let mut values: Vec<f64> = tried.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values[(values.len() - 1) / 2]
    };
    let error = |told: [f64; 3], came: f64| (told[1].min(INFINITE) / came.clamp(1e-9, INFINITE) - 1.0).abs();
    let inside = |of: fn(&Tried) -> ([f64; 3], f64)| {
        let holds = |one: &&Tried| {
            let ([low, _, high], came) = of(one);
            (low..=high).contains(&came)
        };
        tried.iter().filter(holds).count() as f64 / count
    };
    Score {
        choice,
        points: tried.len(),
        time_error: median(&|one| error(one.told.times, one.came.time)),
        downtime_error: median(&|one| error(one.told.downtimes, one.came.downtime)),
        sent_error: median(&|one| error(one.told.sent, one.came.sent)),
        time_inside: inside(|one| (one.told.times, one.came.time)),
        downtime_inside: inside(|one| (one.told.downtimes, one.came.downtime)),
        margins,
        time_width: median(&|one| one.width(margins.time)),
        loss: tried.iter().map(Tried::loss).sum::<f64>() / count,
        gain,
    }
}

impl Gain {
    /// Of losses at some points against those at others, on the points they have in common. Points within one migration's
    /// length see much of the same, so they count as one; such blocks may still be alike for a while, so what they have in
    /// common with the next few counts in (Newey and West, 1987; for forecasts: Diebold and Mariano, 1995).
    fn of(losses: &[(Duration, f64)], others: &[(Duration, f64)], block: Duration) -> Gain {
        let mut sums: Vec<(u128, f64, f64)> = Vec::new();
        for (at, loss) in losses {
            let Ok(same) = others.binary_search_by_key(at, |(at, _)| *at) else { continue };
            let (number, difference) = (at.as_nanos() / block.as_nanos(), others[same].1 - loss);
            match sums.last_mut() {
                Some((last, sum, count)) if *last == number => (*sum, *count) = (*sum + difference, *count + 1.0),
                _ => sums.push((number, difference, 1.0)),
            }
        }
        let blocks = sums.len();
        let count = blocks as f64;
        let mean = sums.iter().map(|(_, sum, points)| sum / points).sum::<f64>() / count.max(1.0);
        let off: Vec<f64> = sums.iter().map(|(_, sum, points)| sum / points - mean).collect();
        let together =
            |lag: usize| off.iter().zip(&off[lag.min(blocks)..]).map(|(one, later)| one * later).sum::<f64>();
        let lags = libm::ceil(libm::cbrt(count)) as usize;
        let weighed = |lag: usize| 2.0 * (1.0 - lag as f64 / (lags + 1) as f64) * together(lag);
        let alone = together(0);
        let variance = alone.max(alone + (1..=lags).map(weighed).sum::<f64>()) / count;
        let standard_error = if blocks > 1 { (variance / (count - 1.0)).sqrt() } else { f64::INFINITY };
        Gain { mean, standard_error, blocks }
    }

    /// Whether it is no chance.
    fn is_sure(&self) -> bool {
        self.blocks >= BLOCKS_MIN && self.mean > student(self.blocks - 1) * self.standard_error
    }
}

/// Student's t at 99.5 % for so many degrees of freedom, 9 or more to two digits (Cornish and Fisher's expansion).
fn student(freedom: usize) -> f64 {
    let (z, v) = (SURE, freedom as f64);
    let odd = |a: f64, b: f64, c: f64, d: f64| ((a * z * z + b) * z * z + c) * z * z * z + d * z;
    z + odd(0.0, 0.0, 1.0, 1.0) / (4.0 * v)
        + odd(0.0, 5.0, 16.0, 3.0) / (96.0 * v * v)
        + odd(3.0, 19.0, 17.0, -15.0) / (384.0 * v * v * v)
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
            let (level, time) = (libm::log(time(at)), time(at) * noise);
            let start = Duration::from_secs(at);
            let known = start + Duration::from_secs_f64(time);
            let (downtime, sent) = (0.3 * noise, 1e9 * noise);
            let state = Some([level, level]);
            Run { start, wall_seconds: at as f64, known, time, downtime, sent, state }
        };
        ((0..seconds / step).map(run).collect(), Duration::from_secs(seconds))
    }

    /// Does not converge within a minute.
    fn never(run: &mut Run) {
        (run.time, run.downtime, run.sent) = (f64::INFINITY, f64::INFINITY, f64::INFINITY);
        run.known = run.start + Duration::from_secs(60);
    }

    fn at_the_end(length: Duration) -> Moment {
        Moment { known: length, age: Duration::ZERO, wall_seconds: length.as_secs_f64(), state: Some([3.0, 3.0]) }
    }

    fn best(runs: &[Run], length: Duration) -> Option<Choice> {
        Backtest::new(runs, length, Duration::ZERO).unwrap().best
    }

    #[test]
    fn of_a_steady_guest_everything_is_as_good_as_anything() {
        let (runs, length) = runs(2 * HOUR, 10, |_| 20.0);
        let found = Backtest::new(&runs, length, Duration::ZERO).unwrap();
        assert_eq!(found.best, Some(Choice::Everything));
        let everything = &found.scores[0];
        assert!((0.8..=1.0).contains(&everything.time_inside) && everything.time_error < 0.03, "{everything:?}");
    }

    #[test]
    fn after_a_shift_the_last_hour_is_best() {
        // Each six hours another level, which the state does not tell.
        let (mut runs, length) = runs(48 * HOUR, 120, |at| [20.0, 60.0, 30.0, 90.0][(at / (6 * HOUR) % 4) as usize]);
        runs.iter_mut().for_each(|run| (run.state, run.wall_seconds) = (None, 0.7 * run.wall_seconds));
        assert_eq!(best(&runs, length), Some(Choice::Last(Duration::from_secs(3_600))));
    }

    #[test]
    fn phases_of_half_a_minute_are_told_by_what_the_guest_does() {
        let (runs, length) = runs(2 * HOUR, 5, |at| if at / 30 % 8 == 0 { 15.0 } else { 5.0 });
        assert_eq!(best(&runs, length), Some(Choice::SamePhase));
    }

    #[test]
    fn what_the_guest_did_a_while_ago_tells_less() {
        let (runs, length) = runs(2 * HOUR, 5, |at| if at / 30 % 8 == 0 { 15.0 } else { 5.0 });
        // Thirty seconds before any moment of a busy phase the guest was quiet.
        let known_before = |age: u64| {
            let state =
                |run: &Run| runs.iter().rfind(|before| before.start + Duration::from_secs(age) <= run.start)?.state;
            let aged: Vec<Run> = runs.iter().map(|run| Run { state: state(run), ..*run }).collect();
            Backtest::new(&aged, length, Duration::from_secs(age)).unwrap()
        };
        let loss = |of: &Backtest| of.scores.iter().find(|score| score.choice == Choice::SamePhase).unwrap().loss;
        let (young, old) = (known_before(0), known_before(30));
        assert_eq!(young.best, Some(Choice::SamePhase));
        assert!(loss(&young) < 0.5 * loss(&old), "{} and {}", loss(&young), loss(&old));
        assert_eq!(Backtest::new(&runs, length, length), None, "nothing is as old as all of it");
    }

    #[test]
    fn what_a_gap_hides_is_neither_used_nor_judged_by() {
        let (mut runs, length) = runs(HOUR, 10, |_| 20.0);
        let hidden = |run: &Run| run.start.as_secs() % 600 < 100;
        for run in runs.iter_mut().filter(|run| hidden(run)) {
            (run.known, run.time) = (Duration::MAX, 500.0);
        }
        let found = Backtest::new(&runs, length, Duration::ZERO).unwrap();
        assert!(found.scores[0].time_error < 0.03 && found.scores[0].margins.time.above < 0.05, "{found:?}");
        assert!(points(&runs, length).iter().all(|run| !hidden(run)));
    }

    #[test]
    fn the_margin_is_what_the_past_was_not_ready_for() {
        // Every twenty minutes it takes a tenth longer.
        let (runs, length) = runs(2 * HOUR, 10, |at| 20.0 * (1.0 + (at / 1_200) as f64 / 10.0));
        let found = Backtest::new(&runs, length, Duration::ZERO).unwrap();
        let Score { time_inside, margins, .. } = found.scores[0];
        assert!(time_inside < 0.7 && margins.time.above > 0.05 && margins.time.below < 0.01, "{:?}", found.scores[0]);
    }

    #[test]
    fn student_is_as_in_the_tables() {
        for (freedom, table) in [(9, 3.2498), (20, 2.8453), (60, 2.6603), (1_000, 2.5808)] {
            assert!((student(freedom) - table).abs() < 0.005, "{freedom}: {}", student(freedom));
        }
    }

    #[test]
    fn blocks_that_are_alike_for_long_say_less() {
        let at = |number: u64| Duration::from_secs(number);
        let none: Vec<(Duration, f64)> = (0..60).map(|number| (at(number), 0.0)).collect();
        let gain = |of: fn(u64) -> f64| {
            let losses: Vec<(Duration, f64)> = (0..60).map(|number| (at(number), of(number))).collect();
            Gain::of(&losses, &none, at(1))
        };
        let (apart, alike) =
            (gain(|n| if n % 2 == 0 { -1.0 } else { 0.5 }), gain(|n| if n / 10 % 2 == 0 { -1.0 } else { 0.5 }));
        assert!((apart.mean - 0.25).abs() < 1e-9 && (alike.mean - 0.25).abs() < 1e-9 && apart.blocks == 60);
        assert!(alike.standard_error > 1.5 * apart.standard_error, "{apart:?} {alike:?}");
        assert!(!alike.is_sure() && gain(|_| -1.0).is_sure());
    }

    #[test]
    fn a_daily_cycle_is_told_by_the_hour() {
        let busy = |at: u64| if at / HOUR % 24 == 14 { 200.0 } else { 20.0 };
        let (mut runs, length) = runs(14 * 24 * HOUR, 600, busy);
        runs.iter_mut().for_each(|run| run.state = Some([0.0, 0.0]));
        assert_eq!(best(&runs, length), Some(Choice::SameHour));
    }

    #[test]
    fn a_short_history_names_none() {
        let (some, length) = runs(120, 1, |_| 20.0);
        let found = Backtest::new(&some, length, Duration::ZERO).unwrap();
        assert!(found.best.is_none() && (1..BLOCKS_MIN).contains(&found.blocks), "{found:?}");
        let (few, length) = runs(30, 1, |_| 25.0);
        assert_eq!(Backtest::new(&few, length, Duration::ZERO), None);
    }

    #[test]
    fn what_does_not_converge_is_missed_by_a_band_that_ends() {
        let (mut runs, length) = runs(2 * HOUR, 10, |_| 20.0);
        runs.iter_mut().for_each(|run| run.state = None);
        runs.iter_mut().skip(500).for_each(never);
        let found = Backtest::new(&runs, length, Duration::ZERO).unwrap();
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
        let now = at_the_end(length);
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
        runs.iter_mut().for_each(|run| run.state = Some([0.0, 0.0]));
        let now = runs.iter().rfind(|run| run.start.as_secs() / HOUR % 168 == 38).unwrap().moment(Duration::ZERO);
        let starts = Backtest::starts(Choice::SameHourOfWeek, &runs, &now).unwrap();
        assert!(starts.iter().all(|start| (37..=39).contains(&(start.as_secs() / HOUR % 168))), "{starts:?}");
        assert_eq!(starts.len(), 7 * 7);
    }

    #[test]
    fn a_forecast_now_uses_the_starts_of_its_choice() {
        let (runs, length) = runs(2 * HOUR, 10, |_| 20.0);
        let now = at_the_end(length);
        let starts = Backtest::starts(Choice::Last(Duration::from_secs(300)), &runs, &now).unwrap();
        let settled = length - Duration::from_secs(20);
        assert!(starts.iter().all(|start| *start >= settled - Duration::from_secs(301) && *start <= settled));
        assert_eq!(starts.len(), 30);
        assert_eq!(Backtest::starts(Choice::SameHour, &runs, &now), None, "there is no day before");
    }

    proptest! {
        /// What comes at a point and after it changes nothing in the forecast made there.
        #[test]
        fn nothing_of_the_future_leaks(point in 60usize..300, age in 0u64..120, seed: u64) {
            let (runs, _) = runs(HOUR, 10, |at| if at / 90 % 2 == 0 { 10.0 } else { 30.0 });
            let mut other = runs.clone();
            let now = runs[point].moment(Duration::from_secs(age));
            for (number, run) in other.iter_mut().enumerate().filter(|(_, run)| run.known > now.known) {
                let time = 1.0 + (splitmix(seed, number as u64) % 100) as f64;
                *run = Run { time, known: run.start.max(now.known) + Duration::from_secs_f64(time), ..*run };
            }
            let (past, others) = (Past::settled(&runs, now.known), Past::settled(&other, now.known));
            for choice in Choice::ALL {
                prop_assert_eq!(Backtest::starts(choice, &runs, &now), Backtest::starts(choice, &other, &now));
                prop_assert_eq!(forecast(choice, &past, &now), forecast(choice, &others, &now));
            }
        }
    }
}
