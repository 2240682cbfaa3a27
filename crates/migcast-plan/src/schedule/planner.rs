//! From a fleet to a plan: checks that it can be carried out, searches, and tells how it turns out.

use migcast_model::world::{Limits, WorldError};
use rayon::prelude::*;

use super::bound::{Bound, bound};
use super::fleet::{Draw, Fleet, Run};
use super::objective::{Objective, broken};
use super::place::{Unplaced, place};
use super::policy::{Policy, first_tries, in_given_order};
use super::search::{Found, Judged, search};
use super::{Problem, Schedule};

/// Draws on which a search judges a schedule; what comes of it is told from others.
const SEARCH_SEED: u64 = 1;
const TELL_SEED: u64 = 2;
/// Simulated moves that a search judges a schedule by, about, and draws at least and at most.
const SEARCH_MOVES: usize = 300;
const SEARCH_DRAWS_MIN: usize = 2;
const SEARCH_DRAWS_MAX: usize = 5;
/// Simulated moves of a search, about, and changes of a schedule at most, and for each pair of moves.
const CHANGED_MOVES: usize = 400_000;
const CHANGES_MAX: usize = 4_000;
const CHANGES_PER_PAIR: usize = 40;
/// Simulated moves that an answer is told from, about; and draws at least, and at most.
const TOLD_MOVES: usize = 20_000;
const DRAWS_MIN: usize = 20;
const DRAWS_MAX: usize = 100;

/// A fleet that can be moved.
pub struct Planner<'a> {
    /// The fleet.
    pub fleet: Fleet<'a>,
    /// The same in plain numbers.
    pub problem: Problem,
    /// Where guests go if nothing better is found.
    pub way: Vec<usize>,
    /// How long it takes at least.
    pub bound: Bound,
    downtimes_max: Vec<f64>,
}

/// Why a fleet cannot be moved, whoever plans it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Infeasible {
    /// These wait for each other, each for the next.
    Circle(Vec<usize>),
    /// Somebody has nowhere to go.
    Unplaced(Unplaced),
}

/// How a search ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Searched {
    /// What it found.
    pub found: Found,
    /// Whether it was ended before it had tried all it would.
    pub was_ended: bool,
}

impl<'a> Planner<'a> {
    /// For a fleet of at least one guest.
    ///
    /// # Errors
    /// It cannot be moved.
    pub fn new(fleet: Fleet<'a>) -> Result<Planner<'a>, (Infeasible, Problem)> {
        let problem = fleet.problem();
        if let Some(circle) = problem.circle() {
            return Err((Infeasible::Circle(circle), problem));
        }
        let way = match place(&problem) {
            Ok(way) => way,
            Err(why) => return Err((Infeasible::Unplaced(why), problem)),
        };
        let Bound { seconds, by } = bound(&problem);
        let bound = Bound { seconds: seconds.max(1e-3), by };
        let downtimes_max = fleet.members.iter().map(|member| member.downtime_max).collect();
        Ok(Planner { fleet, problem, way, bound, downtimes_max })
    }

    /// How many draws an answer is told from if nobody says.
    pub fn draws_default(&self) -> usize {
        (TOLD_MOVES / self.problem.moves.len()).clamp(DRAWS_MIN, DRAWS_MAX)
    }

    /// So many ways in which it may turn out: others than a search sees.
    pub fn draws(&self, count: usize) -> Vec<Draw> {
        (0..count as u64).map(|number| self.fleet.draw(number, TELL_SEED)).collect()
    }

    /// Looks for the schedule that is best by `objective`, within `limits`. `go_on` is told how many schedules were judged, of
    /// how many, and the least cost so far, and ends the search by saying no.
    ///
    /// # Errors
    /// No schedule that was tried can be carried out: why the first one cannot.
    pub fn search(
        &self,
        objective: Objective,
        limits: Limits,
        seed: u64,
        go_on: &dyn Fn(usize, usize, f64) -> bool,
    ) -> Result<Searched, WorldError> {
        let moves = self.problem.moves.len();
        let draws = (SEARCH_MOVES / moves).clamp(SEARCH_DRAWS_MIN, SEARCH_DRAWS_MAX);
        let draws: Vec<Draw> = (0..draws as u64).map(|number| self.fleet.draw(number, SEARCH_SEED)).collect();
        let limited = |schedule: Schedule| Schedule { limits: schedule.limits.and(limits), ..schedule };
        let first: Vec<Schedule> = first_tries(&self.problem, &self.way).into_iter().map(limited).collect();
        let judge = |schedule: &Schedule| {
            let runs: Result<Vec<Run>, _> =
                draws.iter().map(|draw| self.fleet.run(&self.problem, schedule, draw)).collect();
            runs.map_or(Judged { cost: f64::INFINITY, ends: vec![0.0; moves] }, |runs| Judged {
                cost: self.cost(objective, &runs),
                ends: runs[0].moves.iter().map(|moved| moved.ended).collect(),
            })
        };
        let most = CHANGES_MAX.min(CHANGES_PER_PAIR * moves * moves);
        let changes = if moves > 1 { (CHANGED_MOVES / (moves * draws.len())).min(most) } else { 0 };
        let all = first.len() + changes;
        let found = search(&self.problem, first, &judge, (changes, seed), &|judged, least| go_on(judged, all, least));
        if found.cost.is_infinite() {
            self.fleet.run(&self.problem, &found.schedule, &draws[0])?;
        }
        Ok(Searched { was_ended: found.judged < all, found })
    }

    /// What a platform does by this policy, within `limits`.
    pub fn by_policy(&self, policy: &Policy, limits: Limits) -> Schedule {
        let schedule = policy.schedule(&self.problem, &self.way);
        Schedule { limits: schedule.limits.and(limits), ..schedule }
    }

    /// What `limits` alone decide.
    pub fn by_limits(&self, limits: Limits) -> Schedule {
        Schedule { limits, ..in_given_order(&self.problem, &self.way) }
    }

    /// Carries a schedule out in each of `draws`.
    ///
    /// # Errors
    /// It cannot be carried out.
    pub fn runs(&self, schedule: &Schedule, draws: &[Draw]) -> Result<Vec<Run>, WorldError> {
        draws.par_iter().map(|draw| self.fleet.run(&self.problem, schedule, draw)).collect()
    }

    /// What runs of a schedule come to by an objective; less is better.
    pub fn cost(&self, objective: Objective, runs: &[Run]) -> f64 {
        objective.cost(runs, self.bound.seconds, &self.downtimes_max)
    }

    /// Whether these runs of a schedule come to less than those of another, in the draws that both were carried out in.
    pub fn is_better(&self, objective: Objective, one: &[Run], other: &[Run]) -> bool {
        let common = one.len().min(other.len());
        self.cost(objective, &one[..common]) < self.cost(objective, &other[..common])
    }

    /// Guests of all runs that are not moved, or stand for longer than they may.
    pub fn broken(&self, runs: &[Run]) -> usize {
        runs.iter().map(|run| broken(run, &self.downtimes_max)).sum()
    }
}
