//! What platforms do if nobody plans, and what else a search begins with.

use migcast_model::world::Limits;

use super::{Problem, Schedule};

/// A rule that needs no forecast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// What people call it.
    pub name: &'static str,
    /// What it does, and who does so.
    pub about: &'static str,
    limits: Limits,
    order: Order,
}

/// An order that is easily had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// As they were given.
    Given,
    /// The guest with the most memory first.
    Largest,
    /// The guest with the least memory first.
    Smallest,
    /// The move whose busiest link has most to carry first; of those the one that sends most.
    Busiest,
    /// The move first that sends most beside its memory: that suffers most from sharing.
    Dirtiest,
}

/// Two out of and two into each host (vdsm: max_outgoing_migrations, max_incoming_migrations).
const TWO: Limits = Limits { out_of_host: 2, into_host: 2, in_all: usize::MAX };

/// What platforms do by default.
pub const POLICIES: [Policy; 6] = [
    Policy {
        name: "one-after-the-other",
        about: "one migration at a time (Nova's max_concurrent_live_migrations)",
        limits: Limits::ONE,
        order: Order::Given,
    },
    Policy {
        name: "kubevirt",
        about: "two out of a node, five in the cluster (KubeVirt)",
        limits: Limits::KUBEVIRT,
        order: Order::Given,
    },
    Policy {
        name: "two-per-host",
        about: "two out of a host, two into a host (oVirt)",
        limits: TWO,
        order: Order::Given,
    },
    Policy { name: "all-at-once", about: "everything at once", limits: Limits::NONE, order: Order::Given },
    Policy {
        name: "largest-first",
        about: "two out of a host, two into a host, the largest guest first",
        limits: TWO,
        order: Order::Largest,
    },
    Policy {
        name: "smallest-first",
        about: "two out of a host, two into a host, the smallest guest first",
        limits: TWO,
        order: Order::Smallest,
    },
];

impl Policy {
    /// What it decides, with guests going the ways they are given.
    pub fn schedule(&self, problem: &Problem, way: &[usize]) -> Schedule {
        let order = self.order.of(problem, way);
        Schedule { order, way: way.to_vec(), share: vec![0.0; way.len()], limits: self.limits }
    }
}

impl Order {
    fn of(self, problem: &Problem, way: &[usize]) -> Vec<usize> {
        let mut order: Vec<usize> = (0..problem.moves.len()).collect();
        let memory = |of: usize| problem.moves[of].memory;
        let bytes = |of: usize| problem.moves[of].bytes;
        let loads = problem.loads(way);
        let busiest =
            |of: usize| problem.moves[of].ways[way[of]].path.iter().map(|pipe| loads[*pipe]).fold(0.0, f64::max);
        let mut by = |key: &dyn Fn(usize) -> (f64, f64)| {
            order.sort_by(|a, b| {
                let ((a, then_a), (b, then_b)) = (key(*a), key(*b));
                b.total_cmp(&a).then(then_b.total_cmp(&then_a))
            });
        };
        match self {
            Order::Given => {}
            Order::Largest => by(&|of| (memory(of), 0.0)),
            Order::Smallest => by(&|of| (-memory(of), 0.0)),
            Order::Busiest => by(&|of| (busiest(of), bytes(of))),
            Order::Dirtiest => by(&|of| (bytes(of) / memory(of), bytes(of))),
        }
        order
    }
}

/// Everything at once, in the order in which it was given.
pub fn in_given_order(problem: &Problem, way: &[usize]) -> Schedule {
    let (order, limits) = (Order::Given.of(problem, way), Limits::NONE);
    Schedule { order, way: way.to_vec(), share: vec![0.0; way.len()], limits }
}

/// Shares of what it takes alone that are kept for a move: whole, so that moves take turns, down to what lets five share a
/// link.
pub(super) const SHARES: [f64; 6] = [1.0, 0.66, 0.5, 0.33, 0.25, 0.2];

/// What a search begins with: what platforms do, and orders with a reason, with so much kept for each move.
pub fn first_tries(problem: &Problem, way: &[usize]) -> Vec<Schedule> {
    let platforms = POLICIES.iter().map(|policy| policy.schedule(problem, way));
    let orders = [Order::Busiest, Order::Largest, Order::Dirtiest, Order::Smallest];
    let kept = orders.into_iter().flat_map(|order| {
        let order = order.of(problem, way);
        SHARES.map(|share| Schedule {
            order: order.clone(),
            way: way.to_vec(),
            share: vec![share; way.len()],
            limits: Limits::NONE,
        })
    });
    platforms.chain(kept).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{problem, to_any};
    use super::*;

    #[test]
    fn orders_are_by_what_they_say() {
        let mut of = problem(4, vec![to_any(0, &[1], 4.0), to_any(0, &[2], 9.0), to_any(3, &[2], 6.0)]);
        of.moves[2].memory = 1.0;
        let orders = [Order::Given, Order::Largest, Order::Smallest, Order::Busiest, Order::Dirtiest];
        let orders = orders.map(|order| order.of(&of, &[0, 0, 0]));
        assert_eq!(orders[..3], [[0, 1, 2], [1, 0, 2], [2, 0, 1]]);
        assert_eq!(orders[3], [1, 2, 0], "15 into the third host, 13 out of the first");
        assert_eq!(orders[4], [2, 1, 0]);
        let names: std::collections::BTreeSet<&str> = POLICIES.iter().map(|policy| policy.name).collect();
        assert_eq!(names.len(), POLICIES.len());
    }
}
