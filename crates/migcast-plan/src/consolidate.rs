//! Which hosts can be emptied and switched off, by which moves, and whether that is worth it.
//!
//! ```text
//!  hosts, guests ──► a placement: [`exact`] where it is small, else [`heuristic`] ──► what it saves, what it costs
//!               └──► [`bound`]: no placement saves more ─────────────────────────────► gap
//! ```
//! A guest moves only if its host is emptied, and moves once, to a host that stays on. So whatever the order of the moves,
//! no host ever holds more than in the end.
//!
//! Power is taken as idle power plus a share of the rest by the CPU in use (Fan, Weber and Barroso, ISCA 2007). What a move
//! costs is the caller's: a forecast knows its traffic.

use std::time::Duration;

use good_lp::{
    Expression, ProblemVariables, Solution, SolutionStatus, SolverModel, Variable, WithTimeLimit, constraint, microlp,
    variable,
};

use crate::random::Random;

/// A computer that guests run on.
#[derive(Clone, Debug, PartialEq)]
pub struct Host {
    /// Memory that guests may have, in bytes.
    pub memory: f64,
    /// CPU that guests may use, in cores.
    pub cores: f64,
    /// Power without a guest, in watts.
    pub idle_watts: f64,
    /// More power with every core in use, in watts per core.
    pub watts_per_core: f64,
    /// Power when it is off, in watts.
    pub off_watts: f64,
    /// Energy to switch it off and to boot it again, in joules.
    pub switch_joules: f64,
    /// How long of the horizon it is neither on nor off, in seconds.
    pub switch_seconds: f64,
}

/// A guest.
#[derive(Clone, Debug, PartialEq)]
pub struct Guest {
    /// Where it runs, as a place in the list of hosts.
    pub host: usize,
    /// Its memory, in bytes.
    pub memory: f64,
    /// CPU that it uses, in cores.
    pub cores: f64,
    /// Energy of its migration, in joules.
    pub move_joules: f64,
    /// It cannot be moved.
    pub is_pinned: bool,
}

/// What there is, and for how long hosts that are emptied stay off.
#[derive(Clone, Debug, PartialEq)]
pub struct World {
    /// The hosts.
    pub hosts: Vec<Host>,
    /// The guests, each on one of the hosts.
    pub guests: Vec<Guest>,
    /// Seconds.
    pub horizon: f64,
}

/// Where guests are in the end.
#[derive(Clone, Debug, PartialEq)]
pub struct Placement {
    /// Host of each guest.
    pub host_of: Vec<usize>,
    /// Which hosts are off.
    pub is_off: Vec<bool>,
}

/// What a placement comes to, in joules over the horizon.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Balance {
    /// Energy that hosts which are off do not take.
    pub saved: f64,
    /// Energy to switch them off and on.
    pub switching: f64,
    /// Energy of the migrations.
    pub moving: f64,
    /// More energy that moved guests take where they are then; negative if it is less.
    pub running: f64,
}

impl Balance {
    /// What is gained in all.
    pub fn net(&self) -> f64 {
        self.saved - self.switching - self.moving - self.running
    }
}

/// The answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The best placement that was found; where nothing pays that of today.
    pub placement: Placement,
    /// What it comes to.
    pub balance: Balance,
    /// No placement gains more, in joules.
    pub bound: f64,
    /// Whether the placement is known to be the best.
    pub is_best: bool,
}

impl Plan {
    /// How far the plan may be from the best, as a share of the bound.
    pub fn gap(&self) -> f64 {
        let net = self.balance.net();
        if self.is_best || self.bound <= net { 0.0 } else { (self.bound - net) / self.bound }
    }
}

/// Pairs of guest and host up to which the best placement is looked for.
const EXACT_PAIRS_MAX: usize = 1_500;
/// Orders in which hosts are tried, beside those with a reason.
const RANDOM_ORDERS: usize = 24;
const SEED: u64 = 2007;

/// Looks for the placement that gains most; for the best for at most `time_limit`.
pub fn consolidate(world: &World, time_limit: Duration) -> Plan {
    let (mut placement, bound) = (heuristic(world), bound(world));
    let mut is_best = false;
    if world.guests.len() * world.hosts.len() <= EXACT_PAIRS_MAX
        && let Some((found, proven)) = exact(world, time_limit)
    {
        is_best = proven;
        if world.balance(&found).net() > world.balance(&placement).net() {
            placement = found;
        }
    }
    let balance = world.balance(&placement);
    Plan { placement, balance, bound: bound.max(balance.net()), is_best }
}

impl Host {
    /// What guests may have: memory and CPU.
    fn room(&self) -> [f64; 2] {
        [self.memory, self.cores]
    }
}

impl Guest {
    /// What it takes of that.
    fn needs(&self) -> [f64; 2] {
        [self.memory, self.cores]
    }
}

impl World {
    /// As it is: nothing is moved, nothing is off.
    fn today(&self) -> Placement {
        Placement {
            host_of: self.guests.iter().map(|guest| guest.host).collect(),
            is_off: vec![false; self.hosts.len()],
        }
    }

    /// What a host saves that is off, its switching not counted.
    fn saved_by(&self, host: &Host) -> f64 {
        (host.idle_watts - host.off_watts) * (self.horizon - host.switch_seconds).max(0.0)
    }

    /// More energy that a guest takes on another host.
    fn runs_for(&self, guest: &Guest, to: usize) -> f64 {
        let more = self.hosts[to].watts_per_core - self.hosts[guest.host].watts_per_core;
        more * guest.cores * self.horizon
    }

    /// What it costs to have a guest on another host.
    fn move_costs(&self, guest: &Guest, to: usize) -> f64 {
        guest.move_joules + self.runs_for(guest, to)
    }

    /// What a placement comes to.
    pub fn balance(&self, placement: &Placement) -> Balance {
        let mut balance = Balance::default();
        for (host, _) in self.hosts.iter().zip(&placement.is_off).filter(|(_, is_off)| **is_off) {
            balance.saved += self.saved_by(host);
            balance.switching += host.switch_joules;
        }
        for (guest, to) in self.guests.iter().zip(&placement.host_of).filter(|(guest, to)| guest.host != **to) {
            balance.moving += guest.move_joules;
            balance.running += self.runs_for(guest, *to);
        }
        balance
    }

    /// Whether every guest has room on a host that is on, and none moved from a host that stays on.
    pub fn allows(&self, placement: &Placement) -> bool {
        let mut left: Vec<[f64; 2]> = self.hosts.iter().map(Host::room).collect();
        let moved_well = self.guests.iter().zip(&placement.host_of).all(|(guest, to)| {
            left[*to] = less(left[*to], guest.needs());
            let stays = guest.host == *to;
            !placement.is_off[*to] && (stays || (placement.is_off[guest.host] && !guest.is_pinned))
        });
        // A host that is too full today may stay so, if nothing is added.
        let had_room = |host: usize| {
            let slack = self.hosts[host].room().map(|room| -1e-9 * room);
            (0..2).all(|resource| left[host][resource] >= slack[resource])
                || self.guests.iter().zip(&placement.host_of).all(|(guest, to)| *to != host || guest.host == host)
        };
        moved_well && (0..self.hosts.len()).all(had_room)
    }
}

fn less(room: [f64; 2], needs: [f64; 2]) -> [f64; 2] {
    [room[0] - needs[0], room[1] - needs[1]]
}

/// Empties host after host, in a number of orders, as long as something is gained.
pub fn heuristic(world: &World) -> Placement {
    let count = world.hosts.len();
    let load = |host: usize| -> f64 {
        let on = world.guests.iter().filter(|guest| guest.host == host);
        on.map(|guest| guest.memory / world.hosts[host].memory).sum()
    };
    let loads: Vec<f64> = (0..count).map(load).collect();
    let values: Vec<f64> = world.hosts.iter().map(|host| world.saved_by(host) - host.switch_joules).collect();
    let sorted = |key: &dyn Fn(usize) -> f64| -> Vec<usize> {
        let mut order: Vec<usize> = (0..count).collect();
        order.sort_by(|a, b| key(*a).total_cmp(&key(*b)));
        order
    };
    let mut orders = vec![
        sorted(&|host| loads[host]),
        sorted(&|host| -values[host]),
        sorted(&|host| -values[host] / (loads[host] + 0.01)),
        sorted(&|host| -values[host] / world.hosts[host].memory),
    ];
    let mut random = Random::new(SEED);
    for _ in 0..RANDOM_ORDERS {
        // The first order with a few hosts swapped: neighbours of what is likely good.
        let mut order = orders[random.below(4)].clone();
        for _ in 0..count.div_ceil(8) {
            let (a, b) = (random.below(count), random.below(count));
            order.swap(a, b);
        }
        orders.push(order);
    }
    let placements = orders.iter().map(|order| emptied(world, order));
    placements.max_by(|a, b| world.balance(a).net().total_cmp(&world.balance(b).net())).unwrap_or_else(|| world.today())
}

/// Empties hosts in this order, each if its guests find room and something is gained.
fn emptied(world: &World, order: &[usize]) -> Placement {
    let mut placement = world.today();
    let mut left: Vec<[f64; 2]> = world.hosts.iter().map(Host::room).collect();
    for guest in &world.guests {
        left[guest.host] = less(left[guest.host], guest.needs());
    }
    for host in order {
        let mut on_it: Vec<usize> =
            (0..world.guests.len()).filter(|guest| placement.host_of[*guest] == *host).collect();
        if on_it.iter().any(|guest| world.guests[*guest].is_pinned) {
            continue;
        }
        // The largest first: small ones fill what is left.
        let size = |guest: &usize| {
            let (guest, host) = (&world.guests[*guest], &world.hosts[*host]);
            (guest.memory / host.memory).max(guest.cores / host.cores)
        };
        on_it.sort_by(|a, b| size(b).total_cmp(&size(a)));
        let (mut tried, mut room) = (placement.clone(), left.clone());
        tried.is_off[*host] = true;
        let placed = on_it.iter().all(|guest| {
            let of = &world.guests[*guest];
            let fits = |to: &usize| !tried.is_off[*to] && less(room[*to], of.needs()).iter().all(|left| *left >= 0.0);
            // Where it costs least; of equals where it fits tightest.
            let key = |to: &usize| (world.move_costs(of, *to), room[*to][0] - of.memory);
            let best = (0..world.hosts.len()).filter(fits).min_by(|a, b| {
                let (a, b) = (key(a), key(b));
                a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1))
            });
            let Some(to) = best else { return false };
            room[to] = less(room[to], of.needs());
            tried.host_of[*guest] = to;
            true
        });
        if placed && world.balance(&tried).net() > world.balance(&placement).net() {
            (placement, left) = (tried, room);
        }
    }
    placement
}

/// What no placement exceeds: hosts may be off in part, a guest goes where it costs least whether there is room or not, and
/// only all hosts together must hold all guests.
pub fn bound(world: &World) -> f64 {
    let mut problem = ProblemVariables::new();
    let off: Vec<Variable> = world
        .hosts
        .iter()
        .enumerate()
        .map(|(host, _)| {
            let on_it = || world.guests.iter().filter(move |guest| guest.host == host);
            let is_fixed = on_it().any(|guest| guest.is_pinned) || (world.hosts.len() == 1 && on_it().next().is_some());
            problem.add(variable().min(0).max(if is_fixed { 0 } else { 1 }))
        })
        .collect();
    let value = |host: usize| -> f64 {
        let on_it = world.guests.iter().filter(|guest| guest.host == host);
        let cheapest = |guest: &Guest| {
            let others = (0..world.hosts.len()).filter(|to| *to != host);
            others.map(|to| world.move_costs(guest, to)).fold(f64::INFINITY, f64::min)
        };
        let costs: f64 = on_it.map(cheapest).filter(|cost| cost.is_finite()).sum();
        world.saved_by(&world.hosts[host]) - world.hosts[host].switch_joules - costs
    };
    let gained: Expression = off.iter().enumerate().map(|(host, off)| value(host) * *off).sum();
    let mut model = problem.maximise(gained.clone()).using(microlp);
    for resource in [0, 1] {
        let all: f64 = world.hosts.iter().map(|host| host.room()[resource]).sum();
        let used: f64 = world.guests.iter().map(|guest| guest.needs()[resource]).sum();
        // As shares of all there is: bytes and cores differ by ten orders of magnitude.
        let lost: Expression = off.iter().zip(&world.hosts).map(|(off, host)| host.room()[resource] / all * *off).sum();
        let free = (1.0 - used / all).max(0.0);
        model = model.with(constraint!(lost <= free));
    }
    model.solve().map_or(f64::INFINITY, |solution| solution.eval(gained))
}

/// The best placement, found by branch and bound, and whether it is known to be the best: it is not if time ran out. `None`
/// if nothing was found in time.
pub fn exact(world: &World, time_limit: Duration) -> Option<(Placement, bool)> {
    let mut problem = ProblemVariables::new();
    let count = world.hosts.len();
    let off: Vec<Variable> = world.hosts.iter().map(|_| problem.add(variable().binary())).collect();
    // Whether a guest moves to a host; not to its own.
    let to: Vec<Vec<Variable>> =
        world.guests.iter().map(|_| (0..count).map(|_| problem.add(variable().binary())).collect()).collect();
    let mut gained: Expression =
        off.iter().zip(&world.hosts).map(|(off, host)| (world.saved_by(host) - host.switch_joules) * *off).sum();
    for (guest, to) in world.guests.iter().zip(&to) {
        for (host, moves) in to.iter().enumerate() {
            gained -= world.move_costs(guest, host) * *moves;
        }
    }
    let mut model = problem.maximise(gained).using(microlp).with_time_limit(time_limit.as_secs_f64());
    for (guest, to) in world.guests.iter().zip(&to) {
        let moves: Expression = to.iter().copied().map(Expression::from).sum();
        model = model.with(constraint!(moves - off[guest.host] == 0));
        model = model.with(constraint!(to[guest.host] <= 0));
        if guest.is_pinned {
            model = model.with(constraint!(off[guest.host] <= 0));
        }
    }
    for (host, of) in world.hosts.iter().enumerate() {
        for resource in [0, 1] {
            let share = |guest: &Guest| guest.needs()[resource] / of.room()[resource];
            let stays = world.guests.iter().filter(|guest| guest.host == host);
            let left = (1.0 - stays.map(share).sum::<f64>()).max(0.0);
            let arrive = world.guests.iter().zip(&to).filter(|(guest, _)| guest.host != host);
            let arrive: Expression = arrive.map(|(guest, to)| share(guest) * to[host]).sum();
            // Nothing moves to a host that is off; no more than there is room for to one that is on.
            model = model.with(constraint!(arrive + left * off[host] <= left));
        }
    }
    let solution = model.solve().ok()?;
    let is_one = |variable: Variable| solution.value(variable) > 0.5;
    let host_of = world.guests.iter().zip(&to).map(|(guest, to)| {
        let moved = to.iter().position(|variable| is_one(*variable));
        moved.unwrap_or(guest.host)
    });
    let placement =
        Placement { host_of: host_of.collect(), is_off: off.iter().map(|variable| is_one(*variable)).collect() };
    // A solver's rounding must not cost a guest its room.
    world.allows(&placement).then(|| (placement, matches!(solution.status(), SolutionStatus::Optimal)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GIB: f64 = (1_u64 << 30) as f64;
    const HOUR: f64 = 3_600.0;

    fn host(gib: f64) -> Host {
        Host {
            memory: gib * GIB,
            cores: 32.0,
            idle_watts: 120.0,
            watts_per_core: 5.0,
            off_watts: 5.0,
            switch_joules: 60_000.0,
            switch_seconds: 300.0,
        }
    }

    fn guest(host: usize, gib: f64) -> Guest {
        Guest { host, memory: gib * GIB, cores: 1.0, move_joules: 4_000.0, is_pinned: false }
    }

    fn world(hosts: Vec<Host>, guests: Vec<Guest>) -> World {
        World { hosts, guests, horizon: 8.0 * HOUR }
    }

    /// The most that any placement gains, by trying all.
    fn exhaustive(world: &World) -> f64 {
        let (hosts, guests) = (world.hosts.len(), world.guests.len());
        let mut best = 0.0_f64;
        for off in 0..1_usize << hosts {
            let is_off: Vec<bool> = (0..hosts).map(|host| off >> host & 1 == 1).collect();
            for code in 0..hosts.pow(guests as u32) {
                let host_of: Vec<usize> = (0..guests).map(|guest| code / hosts.pow(guest as u32) % hosts).collect();
                let placement = Placement { host_of, is_off: is_off.clone() };
                if world.allows(&placement) {
                    best = best.max(world.balance(&placement).net());
                }
            }
        }
        best
    }

    #[test]
    fn two_half_empty_hosts_become_one() {
        let world = world(vec![host(64.0), host(64.0)], vec![guest(0, 16.0), guest(1, 16.0), guest(1, 8.0)]);
        let plan = consolidate(&world, Duration::from_secs(10));
        assert_eq!(plan.placement.is_off, [true, false], "the one with the single guest");
        assert_eq!(plan.placement.host_of, [1, 1, 1]);
        let expected = 115.0 * (8.0 * HOUR - 300.0) - 60_000.0 - 4_000.0;
        assert!((plan.balance.net() - expected).abs() < 1.0 && plan.is_best && plan.gap() == 0.0, "{plan:?}");
    }

    #[test]
    fn where_it_does_not_pay_nothing_is_done() {
        let mut dear = world(vec![host(64.0), host(64.0)], vec![guest(0, 16.0), guest(1, 16.0)]);
        dear.horizon = 600.0;
        let plan = consolidate(&dear, Duration::from_secs(10));
        assert_eq!((plan.placement.is_off, plan.balance), (vec![false, false], Balance::default()));
        let full = world(vec![host(20.0), host(20.0)], vec![guest(0, 16.0), guest(1, 16.0)]);
        assert_eq!(consolidate(&full, Duration::from_secs(10)).placement.is_off, [false, false]);
        let mut pinned = world(vec![host(64.0), host(64.0)], vec![guest(0, 16.0), guest(1, 16.0)]);
        pinned.guests.iter_mut().for_each(|guest| guest.is_pinned = true);
        assert_eq!(consolidate(&pinned, Duration::from_secs(10)).placement.is_off, [false, false]);
    }

    #[test]
    fn a_thousand_guests_on_a_hundred_hosts_are_near_the_bound() {
        let mut random = Random::new(1);
        let hosts: Vec<Host> = (0..100).map(|_| host([128.0, 256.0, 384.0][random.below(3)])).collect();
        let guests: Vec<Guest> = (0..1_000)
            .map(|index| Guest {
                cores: 0.2 + random.below(8) as f64 / 4.0,
                ..guest(index % 100, [2.0, 4.0, 8.0, 16.0][random.below(4)])
            })
            .collect();
        let world = world(hosts, guests);
        let plan = consolidate(&world, Duration::from_secs(10));
        assert!(world.allows(&plan.placement));
        assert!(plan.gap() < 0.05, "{:.1} % below the bound", 100.0 * plan.gap());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn small_worlds_are_solved_as_by_trying_everything(
            sizes in proptest::collection::vec((0..3_usize, 1.0..30.0_f64, 0.1..14.0_f64), 1..6),
            memories in proptest::collection::vec(20.0..70.0_f64, 3),
            slopes in proptest::collection::vec(1.0..9.0_f64, 3),
            horizon in 0.2..24.0_f64,
        ) {
            let hosts: Vec<Host> =
                memories.iter().zip(&slopes).map(|(gib, slope)| Host { watts_per_core: *slope, ..host(*gib) }).collect();
            let mut guests: Vec<Guest> = Vec::new();
            for (on, gib, cores) in sizes {
                let used: f64 = guests.iter().filter(|guest| guest.host == on).map(|guest| guest.memory).sum();
                let busy: f64 = guests.iter().filter(|guest| guest.host == on).map(|guest| guest.cores).sum();
                if used + gib * GIB <= hosts[on].memory && busy + cores <= hosts[on].cores {
                    guests.push(Guest { cores, move_joules: 300.0 * gib, ..guest(on, gib) });
                }
            }
            let world = World { hosts, guests, horizon: horizon * HOUR };
            let (best, plan) = (exhaustive(&world), consolidate(&world, Duration::from_secs(20)));
            prop_assert!(world.allows(&plan.placement));
            prop_assert!(plan.is_best);
            prop_assert!((plan.balance.net() - best).abs() <= 1e-6 * best.abs() + 1e-3, "{} of {best}", plan.balance.net());
            prop_assert!(plan.bound >= best - 1e-3);
            let found = world.balance(&heuristic(&world)).net();
            prop_assert!(found <= best + 1e-3 && found >= 0.0);
        }
    }
}
