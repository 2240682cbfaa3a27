//! What no schedule undercuts.
//!
//! A link cannot carry more than its rate, so the moves that must take it last at least as long as their bytes do; and every
//! guest has to arrive somewhere, so all of them last as long as they take on all the links into hosts they may go to,
//! together. A chain of moves that wait for each other takes what they take alone. A guest sends least where it is alone with
//! its link, so these are the bytes that count. What is sent alone differs from start to start: bounds are of its mean.

use super::Problem;

/// A lower bound of how long a set of moves takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bound {
    /// Seconds.
    pub seconds: f64,
    /// What makes it so long.
    pub by: By,
}

/// What bounds a set of moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// What has to go through this pipe.
    Pipe(usize),
    /// What has to go into all the hosts that guests may go to.
    AllTargets,
    /// This move, with those it has to wait for.
    Chain(usize),
}

/// The largest lower bound; `problem` has a move, and no circle.
pub fn bound(problem: &Problem) -> Bound {
    let pipes = forced(problem).into_iter().enumerate().map(|(pipe, seconds)| Bound { seconds, by: By::Pipe(pipe) });
    let chains = chains(problem).into_iter().enumerate().map(|(of, seconds)| Bound { seconds, by: By::Chain(of) });
    let all = Bound { seconds: into_all(problem), by: By::AllTargets };
    // Of equals the first: a link says more than all of them.
    pipes.chain(chains).reduce(larger).map_or(all, |most| larger(most, all))
}

fn larger(one: Bound, other: Bound) -> Bound {
    if other.seconds > one.seconds { other } else { one }
}

/// How long each pipe is in use by what cannot avoid it.
fn forced(problem: &Problem) -> Vec<f64> {
    let mut seconds = vec![0.0; problem.pipes.len()];
    for of in &problem.moves {
        let Some((first, others)) = of.ways.split_first() else { continue };
        for pipe in first.path.iter().filter(|pipe| others.iter().all(|way| way.path.contains(pipe))) {
            seconds[*pipe] += of.bytes / problem.pipes[*pipe];
        }
    }
    seconds
}

/// How long all last pipes of all ways are in use together.
fn into_all(problem: &Problem) -> f64 {
    let ways = problem.moves.iter().flat_map(|of| &of.ways);
    let mut last: Vec<usize> = ways.filter_map(|way| way.path.last().copied()).collect();
    last.sort_unstable();
    last.dedup();
    let carried: f64 = last.iter().map(|pipe| problem.pipes[*pipe]).sum();
    let bytes: f64 = problem.moves.iter().map(|of| of.bytes).sum();
    if carried > 0.0 { bytes / carried } else { 0.0 }
}

/// When each move has ended at the earliest, were it and those it waits for alone.
fn chains(problem: &Problem) -> Vec<f64> {
    let mut ends: Vec<Option<f64>> = vec![None; problem.moves.len()];
    for first in 0..problem.moves.len() {
        let mut asked = vec![first];
        while let Some(of) = asked.last().copied() {
            let one = &problem.moves[of];
            let open: Vec<usize> = one.after.iter().copied().filter(|before| ends[*before].is_none()).collect();
            if open.is_empty() {
                let after = one.after.iter().filter_map(|before| ends[*before]).fold(one.not_before, f64::max);
                ends[of] = Some(after + one.seconds);
                asked.pop();
            } else {
                asked.extend(open);
            }
        }
    }
    ends.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{problem, to_any};
    use super::*;

    #[test]
    fn a_host_that_is_emptied_is_bounded_by_its_link() {
        let of = problem(4, vec![to_any(0, &[1, 2, 3], 10.0); 5]);
        assert_eq!(bound(&of), Bound { seconds: 50.0, by: By::Pipe(0) });
    }

    #[test]
    fn guests_from_everywhere_are_bounded_by_all_the_hosts_they_may_go_to() {
        let moves = (0..4).map(|from| to_any(from, &[4, 5], 10.0)).collect();
        assert_eq!(bound(&problem(6, moves)), Bound { seconds: 20.0, by: By::AllTargets });
        let moves = (0..4).map(|from| to_any(from, &[4], 10.0)).collect();
        assert_eq!(bound(&problem(6, moves)).seconds, 40.0, "one host takes it all");
    }

    #[test]
    fn a_chain_takes_what_its_moves_take() {
        let mut of = problem(8, (0..4).map(|from| to_any(from, &[from + 4], 10.0)).collect());
        of.moves[0].after = vec![1];
        of.moves[1].after = vec![2];
        of.moves[2].not_before = 5.0;
        assert_eq!(bound(&of), Bound { seconds: 35.0, by: By::Chain(0) });
    }
}
