//! A stop rule that knows the guest's past: at each reading of the log the guest is stopped if less is to be expected of
//! waiting, within the time that is left, than of stopping now.
//!
//! What waiting brings is found backwards (Bellman). The time allowed is cut into cells. In the last one every reading is
//! taken. In each cell before a reading is taken if its downtime is at most the cell's threshold, and the threshold is the one
//! that makes the past's migrations end best, given what the later cells do. It never falls: early on it asks for a rare chance,
//! and it rises as chances run out. (A migration may be asked for at any time, so the time since then says nothing of what the
//! guest is about to do; thresholds that fall again would be read out of noise.)
//!
//! "Best" weighs long downtimes: the mean of the fourth powers. A plain mean would pay for many short ones with a few that
//! break an agreement.

/// Cells of the time allowed.
const CELLS: usize = 16;
/// Thresholds that are tried in each cell.
const THRESHOLDS: usize = 64;
const POWER: i32 = 4;

/// A reading of the log while the guest runs: when, since the request, and the downtime if the guest were stopped then.
/// Seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reading {
    /// When.
    pub at: f64,
    /// The downtime.
    pub downtime: f64,
}

/// From when on, since the request, which downtime is accepted. Seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// From when.
    pub from: f64,
    /// At most this.
    pub downtime: f64,
}

/// The thresholds for migrations that are to be decided within `time` seconds (more than 0), from migrations of the past that
/// were never stopped: the readings of each, in order. The last step accepts everything that was seen. Empty if nothing was
/// read in time.
pub fn thresholds(past: &[Vec<Reading>], time: f64) -> Vec<Step> {
    let cell_of = |reading: &Reading| ((reading.at / time * CELLS as f64) as usize).min(CELLS - 1);
    let in_time: Vec<Vec<Reading>> =
        past.iter().map(|run| run.iter().copied().filter(|reading| reading.at <= time).collect()).collect();
    let mut candidates: Vec<f64> = in_time.iter().flatten().map(|reading| reading.downtime).collect();
    if candidates.is_empty() {
        return Vec::new();
    }
    candidates.sort_by(f64::total_cmp);
    let most = candidates[candidates.len() - 1];
    let step = candidates.len().div_ceil(THRESHOLDS);
    let candidates: Vec<f64> = candidates.iter().copied().step_by(step).chain([most]).collect();
    // What each migration comes to if it reaches the cell's end; where no reading follows it is as bad as the worst.
    let mut after: Vec<f64> = in_time.iter().map(|run| run.last().map_or(most, |last| last.downtime)).collect();
    let (mut steps, mut later): (Vec<Step>, f64) = (Vec::new(), most);
    for cell in (0..CELLS).rev() {
        let with = |threshold: f64| -> Vec<f64> {
            let taken = |run: &Vec<Reading>| {
                run.iter().find(|of| cell_of(of) == cell && of.downtime <= threshold).map(|of| of.downtime)
            };
            in_time.iter().zip(&after).map(|(run, after)| taken(run).unwrap_or(*after)).collect()
        };
        let cost = |downtimes: &[f64]| downtimes.iter().map(|downtime| (downtime / most).powi(POWER)).sum::<f64>();
        let is_last = cell == CELLS - 1;
        // Of equals the largest: what ends sooner sends less.
        let allowed = candidates.iter().rev().copied().filter(|threshold| *threshold <= later);
        let best = allowed.map(|threshold| (threshold, cost(&with(threshold)))).min_by(|a, b| a.1.total_cmp(&b.1));
        let threshold = best.filter(|_| !is_last).map_or(later, |(threshold, _)| threshold);
        later = threshold;
        after = with(threshold);
        steps.push(Step { from: cell as f64 / CELLS as f64 * time, downtime: threshold });
    }
    steps.reverse();
    steps.dedup_by(|later, earlier| later.downtime == earlier.downtime);
    steps
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    fn run(downtimes: impl Iterator<Item = f64>) -> Vec<Reading> {
        downtimes.enumerate().map(|(index, downtime)| Reading { at: index as f64 + 0.5, downtime }).collect()
    }

    /// Where a migration with these readings ends under these thresholds.
    fn ends(run: &[Reading], steps: &[Step]) -> f64 {
        let accepted = |at: f64| steps.iter().rev().find(|step| step.from <= at).map_or(0.0, |step| step.downtime);
        let taken = run.iter().find(|reading| reading.downtime <= accepted(reading.at));
        taken.unwrap_or(&run[run.len() - 1]).downtime
    }

    #[test]
    fn where_readings_are_independent_thresholds_rise_as_time_runs_out() {
        let mut random = Random::new(7);
        let mut uniform = || (random.below(1_000) + 1) as f64 / 1_000.0;
        let past: Vec<Vec<Reading>> = (0..400).map(|_| run((0..48).map(|_| uniform()))).collect();
        let steps = thresholds(&past, 48.0);
        let at = |time: f64| steps.iter().rev().find(|step| step.from <= time).unwrap().downtime;
        assert!(at(1.0) < 0.15 && at(40.0) > at(1.0) && at(47.9) > 0.99, "{steps:?}");
        // Better than the best threshold that does not change, on runs that had no part in it.
        let others: Vec<Vec<Reading>> = (0..400).map(|_| run((0..48).map(|_| uniform()))).collect();
        let cost = |steps: &[Step]| others.iter().map(|run| ends(run, steps).powi(POWER)).sum::<f64>();
        let constant = |downtime: f64| vec![Step { from: 0.0, downtime }];
        let best = (1..100).map(|percent| cost(&constant(f64::from(percent) / 100.0))).fold(f64::INFINITY, f64::min);
        assert!(cost(&steps) < 1.1 * best, "{} and {best}", cost(&steps));
    }

    #[test]
    fn a_quiet_time_that_is_known_to_come_is_waited_for() {
        // Ten busy seconds, ten quiet ones, in every run.
        let past: Vec<Vec<Reading>> = (0..50)
            .map(|seed| run((0..20).map(|at| if at < 10 { 1.0 } else { 0.1 } + 0.001 * f64::from(seed))))
            .collect();
        let steps = thresholds(&past, 20.0);
        assert!(past.iter().all(|run| ends(run, &steps) < 0.2), "{steps:?}");
    }

    #[test]
    fn where_waiting_brings_nothing_the_first_is_taken() {
        let past: Vec<Vec<Reading>> = (0..20).map(|_| run((0..10).map(|_| 0.5))).collect();
        let steps = thresholds(&past, 10.0);
        assert_eq!(steps, [Step { from: 0.0, downtime: 0.5 }]);
        assert_eq!(thresholds(&[Vec::new()], 10.0), []);
        assert_eq!(thresholds(&past, 0.1), [], "nothing is read in time");
    }
}
