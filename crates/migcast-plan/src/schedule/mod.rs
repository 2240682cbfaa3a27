//! How a set of guests is best moved: where to, in which order, how many at once.
//!
//! ```text
//!  guests, hosts, links ──► [`fleet`]: what each would send alone ──► [`Problem`] ──► [`bound`]: nothing is quicker
//!                              ▲                                        │
//!                              │                                  [`place`]: where to
//!                              │ run                                    │
//!                   [`planner`]: └── [`search`] ◄── [`policy`]: what platforms do, and what else is worth a try
//! ```
//! A [`Schedule`] says what is decided, not when: a list of moves in the order in which they are begun, each as soon as it
//! may. So whoever carries it out needs no clock, and a migration that takes longer than foretold delays what waits for it
//! and nothing else. Times, seconds; sizes, bytes; rates, bytes per second.

pub mod bound;
pub mod fleet;
#[doc(hidden)]
pub mod generated;
pub mod objective;
pub mod place;
pub mod planner;
pub mod policy;
pub mod search;

use migcast_model::world::Limits;

/// What is to be moved, in plain numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    /// What each pipe carries.
    pub pipes: Vec<f64>,
    /// Memory of each host for guests that come; infinite where nobody counts it.
    pub rooms: Vec<f64>,
    /// The moves that are wanted.
    pub moves: Vec<Move>,
    /// Groups of moves, by their index, whose guests must not end on the same host.
    pub apart: Vec<Vec<usize>>,
}

/// A guest that is to be moved.
#[derive(Clone, Debug, PartialEq)]
pub struct Move {
    /// The host it leaves.
    pub from: usize,
    /// Its memory.
    pub memory: f64,
    /// Where it may go.
    pub ways: Vec<Way>,
    /// What it sends if nothing else is moved.
    pub bytes: f64,
    /// How long that takes.
    pub seconds: f64,
    /// The most that it takes of a pipe; infinite where only the pipe bounds it.
    pub appetite: f64,
    /// Moves, by their index, that have to have ended before it begins.
    pub after: Vec<usize>,
    /// Moves that must not run while it does.
    pub not_with: Vec<usize>,
    /// It does not begin before.
    pub not_before: f64,
}

/// A host that a guest may go to.
#[derive(Clone, Debug, PartialEq)]
pub struct Way {
    /// That host.
    pub to: usize,
    /// The pipes from here to there.
    pub path: Vec<usize>,
}

/// What is decided of a [`Problem`].
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    /// The moves in the order in which they are begun; one that may not begin yet does not hold up those behind it.
    pub order: Vec<usize>,
    /// The way each move takes, as a place in its ways.
    pub way: Vec<usize>,
    /// The share that is kept for each move of what it would take alone, in [0, 1]: it begins only where so much is not kept
    /// for others. Zero leaves that to the limits.
    pub share: Vec<f64>,
    /// How many may run at once.
    pub limits: Limits,
}

impl Problem {
    /// What a move would take alone on this way.
    pub fn rate_alone(&self, of: usize, way: usize) -> f64 {
        let Move { ways, appetite, .. } = &self.moves[of];
        ways[way].path.iter().map(|pipe| self.pipes[*pipe]).fold(*appetite, f64::min)
    }

    /// What a schedule keeps for a move on each pipe it takes.
    pub fn reserved(&self, schedule: &Schedule, of: usize) -> f64 {
        schedule.share[of] * self.rate_alone(of, schedule.way[of])
    }

    /// How long each pipe is in use if every move sends what it sends alone.
    pub fn loads(&self, way: &[usize]) -> Vec<f64> {
        let mut loads = vec![0.0; self.pipes.len()];
        for (of, way) in self.moves.iter().zip(way) {
            of.ways[*way].path.iter().for_each(|pipe| loads[*pipe] += of.bytes / self.pipes[*pipe]);
        }
        loads
    }

    /// Moves that wait for each other in a circle, each for the next; `None` if there are none.
    pub fn circle(&self) -> Option<Vec<usize>> {
        // Moves whose predecessors have all gone go, until none does; those that are left wait for each other.
        let mut gone = vec![false; self.moves.len()];
        let waits = |of: usize, gone: &[bool]| self.moves[of].after.iter().copied().find(|before| !gone[*before]);
        loop {
            let free: Vec<usize> = (0..gone.len()).filter(|of| !gone[*of] && waits(*of, &gone).is_none()).collect();
            if free.is_empty() {
                break;
            }
            free.iter().for_each(|of| gone[*of] = true);
        }
        let first = gone.iter().position(|gone| !gone)?;
        let mut walked = vec![first];
        loop {
            let next = waits(walked[walked.len() - 1], &gone)?;
            if let Some(begins) = walked.iter().position(|of| *of == next) {
                return Some(walked.split_off(begins));
            }
            walked.push(next);
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// So many hosts with links of 1 byte a second, out of each and into each.
    pub(crate) fn problem(hosts: usize, moves: Vec<Move>) -> Problem {
        Problem { pipes: vec![1.0; 2 * hosts], rooms: vec![f64::INFINITY; hosts], moves, apart: Vec::new() }
    }

    /// A move of so many bytes from a host to any of these.
    pub(crate) fn to_any(from: usize, to: &[usize], bytes: f64) -> Move {
        let ways = to.iter().map(|to| Way { to: *to, path: vec![2 * from, 2 * to + 1] }).collect();
        Move {
            from,
            memory: bytes,
            ways,
            bytes,
            seconds: bytes,
            appetite: f64::INFINITY,
            after: Vec::new(),
            not_with: Vec::new(),
            not_before: 0.0,
        }
    }

    #[test]
    fn a_circle_is_named_without_those_who_wait_for_it() {
        let mut of = problem(2, vec![to_any(0, &[1], 1.0); 5]);
        of.moves[4].after = vec![0];
        of.moves[3].after = vec![4];
        assert_eq!(of.circle(), None);
        of.moves[1].after = vec![3, 2];
        of.moves[2].after = vec![1];
        assert_eq!(of.circle(), Some(vec![1, 2]));
        of.moves[0].after = vec![0];
        assert_eq!(of.circle(), Some(vec![0]));
    }

    #[test]
    fn what_a_move_takes_alone_is_bounded_by_its_way_and_by_itself() {
        let mut of = problem(3, vec![to_any(0, &[1, 2], 8.0)]);
        of.pipes[3] = 0.5;
        assert_eq!([of.rate_alone(0, 0), of.rate_alone(0, 1)], [0.5, 1.0]);
        of.moves[0].appetite = 0.25;
        assert_eq!(of.rate_alone(0, 1), 0.25);
        assert_eq!(of.loads(&[0]), [8.0, 0.0, 0.0, 16.0, 0.0, 0.0]);
    }
}
