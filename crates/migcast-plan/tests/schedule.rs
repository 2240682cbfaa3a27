//! Plans for fleets that are made up: never worse than what platforms do, near the bound, the same each time; and what makes
//! a fleet impossible is named.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where it stopped")]

use std::time::Duration;

use migcast_model::world::{Limits, WorldError};
use migcast_plan::schedule::Schedule;
use migcast_plan::schedule::fleet::{Draw, Fleet, Run};
use migcast_plan::schedule::generated::{Generated, Mix, TASKS, Task};
use migcast_plan::schedule::objective::Objective;
use migcast_plan::schedule::place::Unplaced;
use migcast_plan::schedule::planner::{Infeasible, Planner};
use migcast_plan::schedule::policy::POLICIES;

const SEED: u64 = 2010;

fn planner(fleet: Fleet<'_>) -> Planner<'_> {
    Planner::new(fleet).unwrap_or_else(|(why, _)| panic!("{why:?}"))
}

fn found(planner: &Planner<'_>, objective: Objective, most: usize) -> Schedule {
    planner.search(objective, Limits::NONE, SEED, &|judged, _, _| judged < most).unwrap().found.schedule
}

fn median(runs: &[Run], of: impl Fn(&Run) -> f64) -> f64 {
    let mut values: Vec<f64> = runs.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[test]
fn plans_are_near_the_bound_and_no_worse_than_what_platforms_do() {
    for (task, seed) in TASKS.iter().flat_map(|task| [(*task, 1), (*task, 2)]) {
        let generated = Generated::new(task, Mix::Calm, 10, seed);
        let planner = planner(generated.fleet());
        let draws = planner.draws(20);
        let length = |schedule: &Schedule| median(&planner.runs(schedule, &draws).unwrap(), Run::makespan);
        let planned = length(&found(&planner, Objective::Makespan, 400));
        let others = POLICIES.map(|policy| length(&planner.by_policy(&policy, Limits::NONE)));
        let best = others.iter().copied().fold(f64::INFINITY, f64::min);
        assert!(planned <= 1.005 * best, "{task:?} {seed}: {planned} and {best}");
        assert!(planned <= 1.1 * planner.bound.seconds, "{task:?} {seed}: {planned} of {:?}", planner.bound);
        assert!(planned >= 0.97 * planner.bound.seconds, "{task:?} {seed}: {planned} of {:?}", planner.bound);
    }
}

#[test]
fn each_objective_gets_what_it_asks_for() {
    let generated = Generated::new(Task::Drain, Mix::Calm, 12, 3);
    let planner = planner(generated.fleet());
    let draws = planner.draws(10);
    let of = |objective: Objective| planner.runs(&found(&planner, objective, 300), &draws).unwrap();
    let [quick, calm, little] = [Objective::Makespan, Objective::DowntimeSum, Objective::Traffic].map(of);
    assert!(median(&calm, Run::downtime_sum) <= median(&quick, Run::downtime_sum));
    assert!(median(&little, Run::sent) <= 1.001 * median(&quick, Run::sent));
    assert!(median(&quick, Run::makespan) <= 1.001 * median(&calm, Run::makespan));
}

#[test]
fn the_same_seed_finds_the_same_plan_and_draws_are_the_same() {
    let generated = Generated::new(Task::Racks, Mix::Calm, 16, 4);
    let planner = planner(generated.fleet());
    let schedules = [(); 2].map(|()| found(&planner, Objective::Makespan, 200));
    assert_eq!(schedules[0], schedules[1]);
    let runs = [(); 2].map(|()| planner.runs(&schedules[0], &planner.draws(4)).unwrap());
    assert_eq!(runs[0], runs[1]);
}

#[test]
fn precedences_times_and_what_must_not_run_together_hold_in_every_plan() {
    let generated = Generated::new(Task::Drain, Mix::Calm, 10, 5);
    let mut fleet = generated.fleet();
    fleet.members[0].after = vec![7];
    fleet.members[7].after = vec![4];
    fleet.members[2].not_before = Duration::from_secs(11);
    fleet.members[1].not_with = vec![3];
    fleet.members[3].not_with = vec![1];
    fleet.apart = vec![vec![5, 6, 8]];
    let planner = planner(fleet);
    let draws: Vec<Draw> = planner.draws(5);
    let planned = found(&planner, Objective::Makespan, 300);
    let all = POLICIES.iter().map(|policy| planner.by_policy(policy, Limits::NONE)).chain([planned]);
    for schedule in all {
        let to = |of: usize| planner.problem.moves[of].ways[schedule.way[of]].to;
        assert!(to(5) != to(6) && to(6) != to(8) && to(5) != to(8));
        for Run { moves } in planner.runs(&schedule, &draws).unwrap() {
            assert!(moves[7].began >= moves[4].ended && moves[0].began >= moves[7].ended && moves[2].began >= 11.0);
            assert!(moves[1].began >= moves[3].ended || moves[3].began >= moves[1].ended, "{moves:?}");
        }
    }
}

#[test]
fn what_cannot_be_is_told_by_what_makes_it_so() {
    let generated = Generated::new(Task::Drain, Mix::Calm, 10, 6);
    let why = |change: &dyn Fn(&mut Fleet<'_>)| {
        let mut fleet = generated.fleet();
        change(&mut fleet);
        Planner::new(fleet).err().map(|(why, _)| why)
    };
    assert_eq!(why(&|_| {}), None);
    let circle = why(&|fleet| (fleet.members[2].after, fleet.members[5].after) = (vec![5], vec![2]));
    assert_eq!(circle, Some(Infeasible::Circle(vec![2, 5])));
    let large = why(&|fleet| fleet.members[3].memory = migcast_model::units::ByteCount::new(1 << 50));
    assert_eq!(large, Some(Infeasible::Unplaced(Unplaced::NoRoom(3))));
    let together = why(&|fleet| fleet.apart = vec![vec![0, 1, 2, 3]]);
    assert!(matches!(together, Some(Infeasible::Unplaced(Unplaced::Together(_)))), "{together:?}");
    // Two that change places where there is no room to begin with.
    let generated = Generated::new(Task::Rebalance, Mix::Calm, 8, 7);
    let mut fleet = generated.fleet();
    fleet.members.truncate(2);
    let (one, other) = (fleet.members[0].memory, fleet.members[1].memory);
    (fleet.members[0].from, fleet.members[0].to) = (0, vec![1]);
    (fleet.members[1].from, fleet.members[1].to) = (1, vec![0]);
    (fleet.members[0].memory, fleet.members[1].memory) = (one.max(other), one.max(other));
    fleet.hosts.clone().iter().for_each(|host| fleet.topology.set_room(*host, migcast_model::units::ByteCount::ZERO));
    let planner = planner(fleet);
    let searched = planner.search(Objective::Makespan, Limits::NONE, SEED, &|_, _, _| true);
    assert!(matches!(searched, Err(WorldError::NoRoom(_))), "{searched:?}");
}
