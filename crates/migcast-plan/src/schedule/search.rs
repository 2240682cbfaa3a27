//! Looking for a better schedule: from the best of those that are easily had, by small changes.
//!
//! A change is kept if it is no worse than the schedule of some steps before (late acceptance: Burke and Bykov, EJOR 258,
//! 2017), so that a change that pays only with the next one has a chance. Changes are tried a few at a time, on all cores, and
//! always as many: the same seed finds the same schedule on every machine.

use rayon::prelude::*;

use super::policy::SHARES;
use super::{Problem, Schedule, place};
use crate::random::Random;

/// What a schedule comes to.
#[derive(Clone, Debug, PartialEq)]
pub struct Judged {
    /// Less is better; infinite where it cannot be carried out.
    pub cost: f64,
    /// When each move ends: changes begin with what ends late.
    pub ends: Vec<f64>,
}

/// What was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// The best schedule.
    pub schedule: Schedule,
    /// What it comes to.
    pub cost: f64,
    /// How many schedules were judged.
    pub judged: usize,
}

/// Changes tried at once.
const AT_ONCE: usize = 4;
/// Rounds of changes after which one must be no worse.
const MEMORY: usize = 12;

/// Looks for a schedule that costs least among `first` (at least one) and up to `changes` changes of the best of them.
/// `go_on` is told how many were judged and the least cost so far, and ends the search by saying no.
pub fn search(
    problem: &Problem,
    first: Vec<Schedule>,
    judge: &(dyn Fn(&Schedule) -> Judged + Sync),
    (changes, seed): (usize, u64),
    go_on: &dyn Fn(usize, f64) -> bool,
) -> Found {
    let mut judged = 0;
    let mut tried: Vec<(Schedule, Judged)> = Vec::new();
    let mut goes_on = true;
    for some in first.chunks(AT_ONCE) {
        tried.par_extend(some.par_iter().map(|schedule| (schedule.clone(), judge(schedule))));
        judged += some.len();
        let least = tried.iter().map(|(_, of)| of.cost).fold(f64::INFINITY, f64::min);
        goes_on = go_on(judged, least);
        // Something that can be carried out is waited for.
        if !goes_on && least.is_finite() {
            break;
        }
    }
    let best = tried.into_iter().min_by(|(_, a), (_, b)| a.cost.total_cmp(&b.cost));
    let mut best = best.expect("a search begins with a schedule");
    let mut now = best.clone();
    let mut random = Random::new(seed);
    let mut before = [best.1.cost; MEMORY];
    let mut round = 0;
    while goes_on && problem.moves.len() > 1 && judged < first.len() + changes {
        let changed: Vec<Schedule> = (0..AT_ONCE).map(|_| change(problem, &now, &mut random)).collect();
        let changed: Vec<(Schedule, Judged)> = changed
            .into_par_iter()
            .map(|schedule| {
                let judged = judge(&schedule);
                (schedule, judged)
            })
            .collect();
        judged += changed.len();
        if let Some(one) = changed.into_iter().min_by(|(_, a), (_, b)| a.cost.total_cmp(&b.cost)) {
            let memory = &mut before[round % MEMORY];
            if one.1.cost <= now.1.cost || one.1.cost <= *memory {
                if one.1.cost < best.1.cost {
                    best = one.clone();
                }
                now = one;
            }
            *memory = now.1.cost;
        }
        round += 1;
        goes_on = go_on(judged, best.1.cost);
    }
    Found { schedule: best.0, cost: best.1.cost, judged }
}

/// The schedule with one thing changed.
fn change(problem: &Problem, (schedule, judged): &(Schedule, Judged), random: &mut Random) -> Schedule {
    let mut changed = schedule.clone();
    let count = changed.order.len();
    match random.below(10) {
        0..4 => {
            // Something that ends late comes earlier.
            let place = late(&changed, judged, random);
            let of = changed.order.remove(place);
            changed.order.insert(random.below(place + 1), of);
        }
        4 | 5 => changed.order.swap(random.below(count), random.below(count)),
        6 | 7 => {
            let of =
                changed.order[if random.below(2) == 0 { late(schedule, judged, random) } else { random.below(count) }];
            changed.share[of] = random.one_of(&SHARES);
        }
        8 => {
            let share = random.one_of(&SHARES);
            changed.share = vec![share; count];
        }
        _ => {
            let of = changed.order[late(schedule, judged, random)];
            changed.way[of] = random.below(problem.moves[of].ways.len());
            if !place::allows(problem, &changed.way) {
                // Another may have taken the room: they change places, if they can.
                let to = |of: usize, way: usize| problem.moves[of].ways[way].to;
                let other = random.below(count);
                let back = problem.moves[other].ways.iter().position(|way| way.to == to(of, schedule.way[of]));
                let there = problem.moves[of].ways.iter().position(|way| way.to == to(other, schedule.way[other]));
                changed.way.clone_from(&schedule.way);
                if let (Some(back), Some(there)) = (back, there) {
                    (changed.way[other], changed.way[of]) = (back, there);
                    if !place::allows(problem, &changed.way) {
                        changed.way.clone_from(&schedule.way);
                    }
                }
            }
        }
    }
    changed
}

/// The place in the order of a move that ends late: the last of a few.
fn late(schedule: &Schedule, judged: &Judged, random: &mut Random) -> usize {
    let ends = |place: &usize| judged.ends.get(schedule.order[*place]).copied().unwrap_or_default();
    let some = [(); 3].map(|()| random.below(schedule.order.len()));
    some.into_iter().max_by(|a, b| ends(a).total_cmp(&ends(b))).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::policy::first_tries;
    use super::super::tests::{problem, to_any};
    use super::*;

    /// A world of two links that take turns: a move begins when both of its pipes are free, takes its bytes, and who comes
    /// first is served first.
    fn judged(problem: &Problem, schedule: &Schedule) -> Judged {
        let mut free = vec![0.0_f64; problem.pipes.len()];
        let mut ends = vec![0.0; problem.moves.len()];
        for of in &schedule.order {
            let way = &problem.moves[*of].ways[schedule.way[*of]];
            let begins = way.path.iter().map(|pipe| free[*pipe]).fold(0.0, f64::max);
            ends[*of] = begins + problem.moves[*of].bytes;
            way.path.iter().for_each(|pipe| free[*pipe] = ends[*of]);
        }
        Judged { cost: ends.iter().copied().fold(0.0, f64::max), ends }
    }

    /// Guests between four hosts, as an open shop: the bound can be met.
    fn shop() -> Problem {
        let mut random = Random::new(5);
        let moves = (0..24).map(|of| to_any(of % 4, &[4 + (of / 4) % 4], 1.0 + random.below(9) as f64)).collect();
        problem(8, moves)
    }

    #[test]
    fn changes_come_near_the_bound_where_first_tries_do_not() {
        let of = shop();
        let way = vec![0; of.moves.len()];
        let judge = |schedule: &Schedule| judged(&of, schedule);
        let first = first_tries(&of, &way);
        let bound = super::super::bound::bound(&of).seconds;
        let without = search(&of, first.clone(), &judge, (0, 1), &|_, _| true);
        let with = search(&of, first.clone(), &judge, (4_000, 1), &|_, _| true);
        assert_eq!(without.judged, first.len());
        assert!(with.cost < without.cost && with.cost < 1.05 * bound, "{} of {bound}", with.cost);
        assert_eq!(search(&of, first, &judge, (4_000, 1), &|_, _| true), with, "the same seed finds the same");
    }

    #[test]
    fn guests_that_may_choose_go_where_there_is_room() {
        let mut of = problem(4, vec![to_any(0, &[1, 2], 4.0), to_any(3, &[1, 2], 4.0)]);
        of.rooms = vec![0.0, 4.0, 4.0, 0.0];
        let first = first_tries(&of, &[0, 0]);
        let judge = |schedule: &Schedule| {
            let fits = place::allows(&of, &schedule.way);
            Judged { cost: if fits { judged(&of, schedule).cost } else { f64::INFINITY }, ends: vec![0.0; 2] }
        };
        let without = search(&of, first.clone(), &judge, (0, 1), &|_, _| true);
        let found = search(&of, first, &judge, (400, 1), &|_, _| true);
        assert_eq!((without.cost, found.cost), (f64::INFINITY, 4.0));
    }

    #[test]
    fn a_search_ends_when_it_is_told() {
        let of = shop();
        let first = first_tries(&of, &vec![0; of.moves.len()]);
        let judge = |schedule: &Schedule| judged(&of, schedule);
        assert_eq!(search(&of, first, &judge, (4_000, 1), &|judged, _| judged < 60).judged, 62);
    }
}
