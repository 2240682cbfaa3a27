//! Where guests go: to hosts with room for them, apart where they must be, so that no link carries much more than another.

use super::Problem;

/// Why guests cannot be placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unplaced {
    /// This move may go nowhere.
    NoWay(usize),
    /// No host has room for this move, with the others where they are.
    NoRoom(usize),
    /// Each host with room for it has a guest that it must be apart from.
    Together(usize),
}

/// A way for each move, so that the busiest link is busy as short as may be: the moves that send most are placed first, and
/// those with the most memory where that does not work out.
///
/// # Errors
/// They cannot be placed one after the other, whether they could at all or not.
pub fn place(problem: &Problem) -> Result<Vec<usize>, Unplaced> {
    placed(problem, |of| problem.moves[of].bytes).or_else(|_| placed(problem, |of| problem.moves[of].memory))
}

/// Whether every guest has room in the end, where others have left, and those that must be are apart.
pub fn allows(problem: &Problem, way: &[usize]) -> bool {
    let mut room = rooms_in_the_end(problem);
    for (of, way) in problem.moves.iter().zip(way) {
        room[of.ways[*way].to] -= of.memory;
    }
    let to = |of: &usize| problem.moves[*of].ways[way[*of]].to;
    let is_apart = |group: &Vec<usize>| {
        let mut hosts: Vec<usize> = group.iter().map(to).collect();
        hosts.sort_unstable();
        hosts.windows(2).all(|pair| pair[0] != pair[1])
    };
    room.iter().zip(&problem.rooms).all(|(left, room)| *left >= -1e-9 * room) && problem.apart.iter().all(is_apart)
}

/// Memory that hosts have when all who leave have left.
fn rooms_in_the_end(problem: &Problem) -> Vec<f64> {
    let mut room = problem.rooms.clone();
    problem.moves.iter().for_each(|of| room[of.from] += of.memory);
    room
}

/// Places moves one after the other, those with the largest `key` first.
fn placed(problem: &Problem, key: impl Fn(usize) -> f64) -> Result<Vec<usize>, Unplaced> {
    let mut order: Vec<usize> = (0..problem.moves.len()).collect();
    order.sort_by(|a, b| key(*b).total_cmp(&key(*a)));
    let mut room = rooms_in_the_end(problem);
    let mut loads = vec![0.0; problem.pipes.len()];
    let mut way = vec![None; problem.moves.len()];
    for of in order {
        let one = &problem.moves[of];
        let groups = || problem.apart.iter().filter(|group| group.contains(&of));
        let is_alone = |to: usize| {
            let is_there =
                |other: &usize| way[*other].is_some_and(|way: usize| problem.moves[*other].ways[way].to == to);
            !groups().flatten().any(is_there)
        };
        let fits = |place: &usize| one.memory <= room[one.ways[*place].to];
        // The busiest pipe of the way, then all of its pipes, then where most is free.
        let key = |place: &usize| {
            let way = &one.ways[*place];
            let load = |pipe: &usize| loads[*pipe] + one.bytes / problem.pipes[*pipe];
            let (most, all) =
                way.path.iter().map(load).fold((0.0, 0.0), |(most, all), load| (f64::max(most, load), all + load));
            [most, all, -room[way.to]]
        };
        let roomy: Vec<usize> = (0..one.ways.len()).filter(fits).collect();
        let best = roomy.iter().copied().filter(|place| is_alone(one.ways[*place].to)).min_by(|a, b| {
            let pairs = key(a).into_iter().zip(key(b));
            pairs.map(|(a, b)| a.total_cmp(&b)).fold(std::cmp::Ordering::Equal, std::cmp::Ordering::then)
        });
        let best = best.ok_or(match (one.ways.is_empty(), roomy.is_empty()) {
            (true, _) => Unplaced::NoWay(of),
            (false, true) => Unplaced::NoRoom(of),
            (false, false) => Unplaced::Together(of),
        })?;
        room[one.ways[best].to] -= one.memory;
        one.ways[best].path.iter().for_each(|pipe| loads[*pipe] += one.bytes / problem.pipes[*pipe]);
        way[of] = Some(best);
    }
    Ok(way.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{problem, to_any};
    use super::*;

    #[test]
    fn links_are_loaded_alike() {
        let moves: Vec<_> = [1.0, 6.0, 4.0, 3.0, 5.0, 2.0].map(|bytes| to_any(0, &[1, 2, 3], bytes)).into();
        let of = problem(4, moves);
        let way = place(&of).unwrap();
        let loads = of.loads(&way);
        assert_eq!([3, 5, 7].map(|pipe| loads[pipe]), [7.0; 3], "6 + 1, 5 + 2, 4 + 3");
        assert!(allows(&of, &way));
    }

    #[test]
    fn memory_counts_as_it_is_when_all_who_leave_have_left() {
        let mut of = problem(3, vec![to_any(0, &[1], 4.0), to_any(1, &[2], 4.0)]);
        of.rooms = vec![0.0, 0.0, 4.0];
        assert_eq!(place(&of), Ok(vec![0, 0]), "the first goes where the second was");
        of.rooms[2] = 3.0;
        assert_eq!(place(&of), Err(Unplaced::NoRoom(1)));
        of.moves[1].ways.clear();
        assert_eq!(place(&of), Err(Unplaced::NoWay(1)));
    }

    #[test]
    fn what_must_be_apart_is_apart() {
        let mut of = problem(3, vec![to_any(0, &[1, 2], 4.0); 2]);
        of.apart = vec![vec![0, 1]];
        let way = place(&of).unwrap();
        assert!(way[0] != way[1] && allows(&of, &way) && !allows(&of, &[1, 1]));
        of.moves.push(to_any(0, &[1, 2], 1.0));
        of.apart = vec![vec![0, 1, 2]];
        assert_eq!(place(&of), Err(Unplaced::Together(2)));
    }

    #[test]
    fn where_what_sends_most_would_take_the_room_of_what_is_largest_the_largest_goes_first() {
        let mut of = problem(3, vec![to_any(0, &[1, 2], 4.0), to_any(0, &[1], 9.0)]);
        (of.moves[0].bytes, of.rooms) = (90.0, vec![0.0, 10.0, 4.0]);
        of.pipes[5] = 0.5;
        assert_eq!(place(&of), Ok(vec![1, 0]));
    }
}
