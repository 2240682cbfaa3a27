//! What a schedule is to be good at.

use super::fleet::Run;

/// What is to be least.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Objective {
    /// How long it takes until the last guest has been moved.
    Makespan,
    /// All downtimes together.
    DowntimeSum,
    /// The longest downtime.
    DowntimeWorst,
    /// Bytes sent.
    Traffic,
    /// The chance of missing a window: how long it takes when it goes badly.
    Chance,
}

/// What time counts beside an objective that is not time: between schedules that are as good the shorter one is better.
const TIME_WEIGHT: f64 = 0.01;
const TERABYTE: f64 = 1e12;

impl Objective {
    /// What people call it.
    pub fn name(self) -> &'static str {
        match self {
            Objective::Makespan => "makespan",
            Objective::DowntimeSum => "downtime-sum",
            Objective::DowntimeWorst => "worst-downtime",
            Objective::Traffic => "traffic",
            Objective::Chance => "chance",
        }
    }

    /// What `runs` (at least one) of a schedule come to; less is better. `bound` is a lower bound of the time, more than 0,
    /// and `downtimes_max` the longest downtime that each guest may have. A guest that is not moved, or stands for longer than it
    /// may, outweighs whatever else a schedule is good at: the whole part is how many they are in the mean.
    pub fn cost(self, runs: &[Run], bound: f64, downtimes_max: &[f64]) -> f64 {
        let mean = |of: &dyn Fn(&Run) -> f64| runs.iter().map(of).sum::<f64>() / runs.len() as f64;
        let finite = |run: &Run| -> Vec<f64> {
            run.moves.iter().map(|of| of.downtime).filter(|downtime| downtime.is_finite()).collect()
        };
        let time = mean(&Run::ended) / bound;
        let beside = 1.0 + TIME_WEIGHT * time;
        let cost = match self {
            // What is done earlier is done: of two that end alike the one whose moves end earlier on the whole.
            Objective::Makespan => time + TIME_WEIGHT * mean(&mean_end) / bound,
            Objective::Chance => runs.iter().map(Run::ended).fold(0.0, f64::max) / bound + TIME_WEIGHT * time,
            Objective::DowntimeSum => mean(&|run| finite(run).iter().sum()) * beside,
            Objective::DowntimeWorst => mean(&|run| finite(run).into_iter().fold(0.0, f64::max)) * beside,
            Objective::Traffic => mean(&Run::sent) / TERABYTE * beside,
        };
        mean(&|run| broken(run, downtimes_max) as f64) + cost / (1.0 + cost)
    }
}

/// Guests that are not moved, or stand for longer than they may.
pub fn broken(run: &Run, downtimes_max: &[f64]) -> usize {
    let is_broken = |(of, max): (&super::fleet::Moved, &f64)| of.downtime.is_infinite() || of.downtime > *max;
    run.moves.iter().zip(downtimes_max).filter(|pair| is_broken(*pair)).count()
}

fn mean_end(run: &Run) -> f64 {
    run.moves.iter().map(|of| of.ended).sum::<f64>() / run.moves.len() as f64
}

#[cfg(test)]
mod tests {
    use super::super::fleet::Moved;
    use super::*;

    fn run(moves: &[(f64, f64)]) -> Run {
        let moved =
            |(ended, downtime): &(f64, f64)| Moved { began: 0.0, ended: *ended, downtime: *downtime, sent: 10.0 };
        Run { moves: moves.iter().map(moved).collect() }
    }

    #[test]
    fn each_objective_prefers_what_it_says() {
        let quick = run(&[(9.0, 0.5), (10.0, 0.5)]);
        let calm = run(&[(11.0, 0.4), (12.0, 0.1)]);
        let cost = |objective: Objective, of: &Run| objective.cost(std::slice::from_ref(of), 8.0, &[1.0, 1.0]);
        for objective in [Objective::Makespan, Objective::Chance, Objective::Traffic] {
            assert!(cost(objective, &quick) < cost(objective, &calm), "{objective:?}");
        }
        for objective in [Objective::DowntimeSum, Objective::DowntimeWorst] {
            assert!(cost(objective, &calm) < cost(objective, &quick), "{objective:?}");
        }
        let earlier = run(&[(3.0, 0.5), (10.0, 0.5)]);
        assert!(cost(Objective::Makespan, &earlier) < cost(Objective::Makespan, &quick));
        let shaky = [run(&[(2.0, 0.5), (5.0, 0.5)]), run(&[(2.0, 0.5), (14.0, 0.5)])];
        let sure = [quick.clone(), quick];
        let of = |objective: Objective, runs: &[Run]| objective.cost(runs, 8.0, &[1.0, 1.0]);
        assert!(of(Objective::Makespan, &shaky) < of(Objective::Makespan, &sure));
        assert!(of(Objective::Chance, &shaky) > of(Objective::Chance, &sure));
    }

    #[test]
    fn a_guest_that_is_not_moved_or_stands_too_long_outweighs_everything() {
        let well = run(&[(10.0, 0.5), (10.0, 0.5)]);
        let stuck = run(&[(10.0, f64::INFINITY), (10.0, f64::INFINITY)]);
        let slow = run(&[(9_000.0, 40.0), (9_000.0, 40.0)]);
        for objective in [
            Objective::Makespan,
            Objective::Chance,
            Objective::DowntimeSum,
            Objective::DowntimeWorst,
            Objective::Traffic,
        ] {
            let cost = |of: &Run, max: f64| objective.cost(std::slice::from_ref(of), 10.0, &[max, f64::INFINITY]);
            assert!(cost(&slow, f64::INFINITY) < cost(&stuck, f64::INFINITY), "{objective:?}");
            assert!((cost(&well, 0.4) - cost(&well, 0.6) - 1.0).abs() < 1e-9, "{objective:?}");
        }
        assert_eq!((broken(&stuck, &[1.0, 0.1]), stuck.makespan()), (2, f64::INFINITY));
    }
}
