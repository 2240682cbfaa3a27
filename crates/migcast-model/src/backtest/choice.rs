//! Which part of a guest's past a forecast is made from.

use std::time::Duration;

use super::{Moment, RUNS_MIN, Run};

const HOUR: f64 = 3_600.0;
const DAY: f64 = 24.0 * HOUR;
const WEEK: f64 = 7.0 * DAY;
/// One in so many of the past is in the same phase as the present, and one in so many in about the same.
const SAME_PHASE_ONE_IN: usize = 20;
const LIKE_PHASE_ONE_IN: usize = 5;

/// Which starts of the past a forecast uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// All of them.
    Everything,
    /// Those of the last span that is settled.
    Last(Duration),
    /// Those before which the guest wrote as much as it does now.
    SamePhase,
    /// Those before which it wrote about as much: more of them, less alike.
    LikePhase,
    /// Those within half an hour of the same time on earlier days.
    SameHour,
    /// Those within half an hour of the same time and weekday in earlier weeks.
    SameHourOfWeek,
}

impl Choice {
    /// All choices there are.
    pub const ALL: [Choice; 10] = [
        Choice::Everything,
        Choice::Last(Duration::from_secs(60)),
        Choice::Last(Duration::from_secs(300)),
        Choice::Last(Duration::from_secs(900)),
        Choice::Last(Duration::from_secs(3_600)),
        Choice::Last(Duration::from_secs(21_600)),
        Choice::SamePhase,
        Choice::LikePhase,
        Choice::SameHour,
        Choice::SameHourOfWeek,
    ];

    /// Those that a history of this length can tell apart.
    pub(super) fn within(length: Duration) -> impl Iterator<Item = Choice> {
        let differs = move |choice: &Choice| !matches!(choice, Choice::Last(span) if *span * 10 >= length * 9);
        Choice::ALL.into_iter().filter(differs)
    }

    /// The runs that a forecast at `now` uses.
    pub(super) fn select<'a>(self, past: &Past<'a>, now: &Moment) -> Vec<&'a Run> {
        let those = |wanted: &dyn Fn(&Run) -> bool| past.runs.iter().copied().filter(|run| wanted(run)).collect();
        match self {
            Choice::Everything => past.runs.clone(),
            Choice::Last(span) => {
                let since = now.wall_seconds - (now.age + past.lag + span).as_secs_f64();
                those(&|run| run.wall_seconds >= since)
            }
            Choice::SamePhase => nearest(&past.runs, now, SAME_PHASE_ONE_IN),
            Choice::LikePhase => nearest(&past.runs, now, LIKE_PHASE_ONE_IN),
            Choice::SameHour => those(&|run| is_same_time(run, now, DAY)),
            Choice::SameHourOfWeek => those(&|run| is_same_time(run, now, WEEK)),
        }
    }
}

/// What may be used at some moment.
#[derive(Debug)]
pub(super) struct Past<'a> {
    /// Ordered by start.
    pub(super) runs: Vec<&'a Run>,
    /// How long ago they began at the least.
    pub(super) lag: Duration,
}

impl<'a> Past<'a> {
    /// What is settled at `at`: of the runs that are known by then those that began so long ago that the longest of them
    /// would be known, too.
    pub(super) fn settled(runs: &'a [Run], at: Duration) -> Past<'a> {
        let known = || runs.iter().filter(|run| run.known <= at);
        let lag = known().map(Run::length).max().unwrap_or_default();
        Past { runs: known().filter(|run| run.start + lag <= at).collect(), lag }
    }
}

/// One in so many of them, those before which the guest did what is likest what it does now; none where that is not known.
fn nearest<'a>(runs: &[&'a Run], now: &Moment, one_in: usize) -> Vec<&'a Run> {
    let Some(state) = now.state else { return Vec::new() };
    let distance = |of: [f64; 2]| (of[0] - state[0]).powi(2) + (of[1] - state[1]).powi(2);
    let mut near: Vec<(f64, &Run)> = runs.iter().filter_map(|run| Some((distance(run.state?), *run))).collect();
    let most = (near.len() / one_in).max(RUNS_MIN).min(near.len());
    if most < near.len() {
        // Of those that are alike the latest.
        near.select_nth_unstable_by(most, |(one, run), (other, later)| {
            one.total_cmp(other).then(later.start.cmp(&run.start))
        });
    }
    near.into_iter().take(most).map(|(_, run)| run).collect()
}

/// Whether it was at the same time in an earlier cycle, a day or a week.
fn is_same_time(run: &Run, now: &Moment, cycle: f64) -> bool {
    let ago = now.wall_seconds - run.wall_seconds;
    let off = (ago + cycle / 2.0).rem_euclid(cycle) - cycle / 2.0;
    ago > cycle / 2.0 && off.abs() <= HOUR / 2.0
}
