//! The guests of an inventory that are to be moved, as a fleet that can be simulated.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, anyhow, bail, ensure};
use migcast_model::link::Link;
use migcast_model::quantity::show_bytes;
use migcast_model::simulate::Scenario;
use migcast_model::units::{ByteCount, BytesPerSec, SimTime};
use migcast_model::world::{Background, NodeId, Topology, WorldError};
use migcast_plan::schedule::Problem;
use migcast_plan::schedule::fleet::{Fleet, Member};
use migcast_plan::schedule::place::Unplaced;
use migcast_plan::schedule::planner::Infeasible;
use rayon::prelude::*;

use super::past::{Past, Subject, SubjectWrites};
use super::scenario::{self, Known, Options, ReadFrom, Request};
use super::sweep::progress_bar;
use crate::inventory::{Guest, Inventory, Place, Writes};
use crate::report::NamedPipe;

/// Starting points of each guest's history.
const STARTS_MAX: usize = 2_000;
/// Migrations of a link's share are waited for as many times as long as alone, up to so many.
const PATIENCE_MAX: u32 = 20;

/// Who is to be moved.
#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct Who {
    /// Empty this host: move all of its guests, each to where the file says or to any other host with room
    #[arg(long, value_name = "HOST")]
    pub(super) evacuate: Vec<String>,
    /// Move this guest [default: every guest of which the file says where it goes]
    #[arg(long = "guest", value_name = "NAME", conflicts_with = "evacuate")]
    pub(super) guests: Vec<String>,
}

/// A guest that is to be moved, and where it may go; both by their places in the inventory.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) guest: usize,
    pub(super) to: Vec<usize>,
}

impl Who {
    /// Whom this means.
    pub(super) fn wanted(&self, inventory: &Inventory) -> anyhow::Result<Vec<Wanted>> {
        let host = |name: &String| {
            let place = inventory.hosts.iter().position(|host| host.name == *name);
            place.with_context(|| {
                format!("--evacuate: there is no host `{name}`: {}", names(inventory.hosts.iter().map(|of| &of.name)))
            })
        };
        let emptied: Vec<usize> = self.evacuate.iter().map(host).collect::<anyhow::Result<_>>()?;
        let guest = |name: &String| {
            let place = inventory.guests.iter().position(|guest| guest.name == *name);
            place.with_context(|| {
                format!("--guest: there is no guest `{name}`: {}", names(inventory.guests.iter().map(|of| &of.name)))
            })
        };
        let named: Vec<usize> = self.guests.iter().map(guest).collect::<anyhow::Result<_>>()?;
        let has_to = |guest: &Guest| guest.moving.to.is_some_and(|to| to != guest.host);
        let is_wanted = |(place, guest): (usize, &Guest)| match (emptied.is_empty(), named.is_empty()) {
            (false, _) => emptied.contains(&guest.host),
            (true, false) => named.contains(&place),
            (true, true) => has_to(guest),
        };
        let guests: Vec<usize> =
            inventory.guests.iter().enumerate().filter(|one| is_wanted(*one)).map(|(place, _)| place).collect();
        ensure!(
            !guests.is_empty() || emptied.is_empty(),
            "--evacuate: there is no guest on {}",
            self.evacuate.join(", ")
        );
        ensure!(
            !guests.is_empty(),
            "nothing is to be moved: name a host with --evacuate, a guest with --guest, or say in the file where guests go (to)"
        );
        guests.into_iter().map(|guest| wanted(inventory, guest, &emptied)).collect()
    }
}

fn wanted(inventory: &Inventory, place: usize, emptied: &[usize]) -> anyhow::Result<Wanted> {
    let guest = &inventory.guests[place];
    let (name, host) = (&guest.name, &inventory.hosts[guest.host].name);
    ensure!(!guest.is_pinned, "guest {name}: it is pinned to host {host} and cannot be moved");
    let to: Vec<usize> = match guest.moving.to {
        Some(to) => {
            let host = &inventory.hosts[to].name;
            ensure!(to != guest.host, "guest {name}: to: it is on host {host} already");
            ensure!(!emptied.contains(&to), "guest {name}: to: host {host} is to be emptied");
            vec![to]
        }
        None => (0..inventory.hosts.len()).filter(|to| *to != guest.host && !emptied.contains(to)).collect(),
    };
    ensure!(!to.is_empty(), "guest {name}: there is no host left that it could go to");
    // Where another of its group is it may not go, whether that one is moved away or not.
    let is_taken = |to: &usize| {
        let others = inventory.guests.iter().enumerate().filter(|(other, of)| *other != place && of.host == *to);
        guest.moving.apart.is_some() && others.into_iter().any(|(_, other)| other.moving.apart == guest.moving.apart)
    };
    let free: Vec<usize> = to.iter().copied().filter(|to| !is_taken(to)).collect();
    let group = guest.moving.apart.as_deref().unwrap_or_default();
    ensure!(!free.is_empty(), "guest {name}: apart: each host that it could go to has a guest of the group `{group}`");
    Ok(Wanted { guest: place, to: free })
}

fn names<'a>(all: impl Iterator<Item = &'a String>) -> String {
    all.map(String::as_str).collect::<Vec<_>>().join(", ")
}

/// The pasts of those who are to be moved, opened; each history once.
pub(super) struct Pasts {
    dirs: Vec<PathBuf>,
    pasts: Vec<Past>,
}

impl Pasts {
    pub(super) fn open(inventory: &Inventory, wanted: &[Wanted], options: &Options) -> anyhow::Result<Pasts> {
        let mut dirs: Vec<PathBuf> = Vec::new();
        for Wanted { guest, .. } in wanted {
            let guest = &inventory.guests[*guest];
            match &guest.writes {
                Some(Writes::History(dir)) if !dirs.contains(dir) => dirs.push(dir.clone()),
                Some(_) => {}
                None => {
                    bail!("guest {}: history or dirty_rate is missing: what it writes decides how it moves", guest.name)
                }
            }
        }
        // Counts do: many guests are simulated many times.
        let options = Options { from: options.from.or(Some(ReadFrom::Index)), ..options.clone() };
        let progress = progress_bar(dirs.len(), "histories");
        let open = |dir: &PathBuf| {
            let past = Past::open(dir, &options);
            progress.inc(1);
            past
        };
        let pasts = dirs.par_iter().map(open).collect::<anyhow::Result<_>>()?;
        progress.finish_and_clear();
        Ok(Pasts { dirs, pasts })
    }

    fn of(&self, dir: &PathBuf) -> Option<&Past> {
        self.dirs.iter().position(|other| other == dir).map(|place| &self.pasts[place])
    }

    /// What a simulation needs of each of `wanted`, in their order.
    pub(super) fn subjects(
        &self,
        inventory: &Inventory,
        network: &Network,
        wanted: &[Wanted],
        options: &Options,
    ) -> anyhow::Result<Vec<Subject<'_>>> {
        let together = u32::try_from(wanted.len()).unwrap_or(u32::MAX).min(PATIENCE_MAX);
        let subject = |one: &Wanted| {
            let guest = &inventory.guests[one.guest];
            let mut subject =
                self.subject(guest, inventory, options).map_err(|error| anyhow!("guest {}: {error:#}", guest.name))?;
            if options.horizon.is_none() {
                let Scenario { guest: of, platform, algorithm, link, .. } = &subject.scenario;
                let link = Link { line_rate: network.slowest(guest.host, &one.to), payload_share: 1.0, ..*link };
                let alone = Scenario::default_horizon(of, &link, platform, algorithm);
                subject.scenario.horizon = alone.saturating_mul(together);
            }
            Ok(subject)
        };
        wanted.iter().map(subject).collect()
    }

    fn subject(&self, guest: &Guest, inventory: &Inventory, options: &Options) -> anyhow::Result<Subject<'_>> {
        let mut options = options.clone();
        // What the file says of this guest holds against what is said of all.
        let own = &guest.moving.settings;
        options.settings.retain(|(key, _)| own.iter().all(|(other, _)| other != key));
        options.settings.extend(own.iter().cloned());
        let request = |options: Options| Request {
            options,
            link: inventory.nic(&inventory.hosts[guest.host]),
            horizon_min: Duration::ZERO,
            starts_max: STARTS_MAX,
        };
        match guest.writes.as_ref().context("nothing is known of its writes")? {
            Writes::History(dir) => {
                let past = self.of(dir).context("its history was not opened")?;
                options.refuse_idle(past.known())?;
                let mut subject = past.subject(&request(options))?;
                let (says, recorded) = (guest.memory, subject.scenario.guest.memory_bytes());
                // Devices have memory, too: a history's guest is somewhat larger than its RAM.
                if recorded.get().abs_diff(says.get()) * 5 > says.get() {
                    subject.warnings.push(format!(
                        "its history is of a guest of {}, the file says {}",
                        show_bytes(recorded),
                        show_bytes(says)
                    ));
                }
                subject.scenario.guest.name.clone_from(&guest.name);
                Ok(subject)
            }
            Writes::Rate { rate, working_set } => {
                options.wws = working_set.or(options.wws);
                options.from = None;
                options.refuse_idle(Known::Nothing)?;
                let mut of = scenario::guest(guest.memory)?;
                of.name.clone_from(&guest.name);
                let (algorithm, _) = options.algorithm(&of, None)?;
                let writes = SubjectWrites::at_rate(&options.constant_rate(&of, *rate));
                let scenario = request(options).scenario(of, algorithm)?;
                Ok(Subject { scenario, writes, starts: vec![Duration::ZERO], warnings: Vec::new() })
            }
        }
    }
}

/// Hosts and links of an inventory, as the model has them.
pub(super) struct Network {
    pub(super) topology: Topology,
    pub(super) hosts: Vec<NodeId>,
    pub(super) background: Vec<Background>,
    /// By the pipes' numbers.
    pub(super) pipes: Vec<NamedPipe>,
}

/// Of a link that others fill so much is taken to be left, when it is asked how long a migration may take.
const LEFT_MIN: f64 = 0.05;

impl Network {
    /// What the slowest way from a host to one of these carries at the worst time.
    fn slowest(&self, from: usize, to: &[usize]) -> BytesPerSec {
        let carries = |pipe: usize| {
            let rate = self.pipes[pipe].rate;
            let taken =
                self.background.iter().filter(|change| change.pipe.index() == pipe).map(|change| change.rate).max();
            taken.map_or(rate, |taken| rate.saturating_sub(taken).max(rate.scale(LEFT_MIN)))
        };
        let ways = to.iter().flat_map(|to| self.topology.path(self.hosts[from], self.hosts[*to]));
        ways.map(carries).min().unwrap_or(BytesPerSec::ZERO)
    }

    /// What of a line rate is payload is the platform's.
    pub(super) fn of(inventory: &Inventory, options: &Options) -> anyhow::Result<Network> {
        let (_, link) = options.hosts(inventory.link)?;
        let payload = |line_rate: BytesPerSec| Link { line_rate, ..link }.goodput();
        let mut topology = Topology::new();
        let mut switches: Vec<NodeId> = Vec::new();
        for switch in &inventory.switches {
            let (below, rate) = (switch.below.map_or(topology.core(), |of| switches[of]), payload(switch.uplink));
            switches.push(topology.add(below, rate, rate));
        }
        let mut hosts: Vec<NodeId> = Vec::new();
        for (place, host) in inventory.hosts.iter().enumerate() {
            let (below, rate) = (host.switch.map_or(topology.core(), |of| switches[of]), payload(inventory.nic(host)));
            let node = topology.add(below, rate, rate);
            let on_it = inventory.guests.iter().filter(|guest| guest.host == place);
            let used: u64 = on_it.map(|guest| guest.memory.get()).sum();
            let usable = (host.memory.get() as f64 * (1.0 - inventory.keep_free)) as u64;
            topology.set_room(node, ByteCount::new(usable.saturating_sub(used)));
            hosts.push(node);
        }
        let node = |place: Place| match place {
            Place::Host(of) => hosts[of],
            Place::Switch(of) => switches[of],
        };
        let background = inventory.traffic.iter().map(|traffic| {
            let node = node(traffic.place);
            let pipe = if traffic.is_out { topology.up(node) } else { topology.down(node) };
            Background { at: SimTime::ZERO + traffic.from, pipe, rate: payload(traffic.rate) }
        });
        let background = background.collect();
        let mut pipes = vec![NamedPipe { name: String::new(), rate: BytesPerSec::ZERO }; topology.pipes()];
        let rates: Vec<BytesPerSec> = topology.rates().collect();
        let named = inventory.switches.iter().map(|switch| &switch.name).zip(&switches);
        let named: Vec<(&String, &NodeId)> =
            named.chain(inventory.hosts.iter().map(|host| &host.name).zip(&hosts)).collect();
        for (name, node) in named {
            for (pipe, way) in [(topology.up(*node), "out"), (topology.down(*node), "in")] {
                pipes[pipe.index()] = NamedPipe { name: format!("{name} {way}"), rate: rates[pipe.index()] };
            }
        }
        Ok(Network { topology, hosts, background, pipes })
    }
}

/// The fleet of those who are to be moved.
pub(super) fn fleet<'a>(
    inventory: &Inventory,
    network: &Network,
    wanted: &[Wanted],
    subjects: &'a [Subject<'_>],
) -> Fleet<'a> {
    let guests: Vec<&Guest> = wanted.iter().map(|one| &inventory.guests[one.guest]).collect();
    // Who is not moved is not waited for.
    let members = |of: &[usize]| -> Vec<usize> {
        of.iter().filter_map(|guest| wanted.iter().position(|one| one.guest == *guest)).collect()
    };
    let member = |(one, subject): (&Wanted, &'a Subject<'_>)| {
        let guest = &inventory.guests[one.guest];
        let moving = &guest.moving;
        Member {
            scenario: subject.scenario.clone(),
            source: subject.writes.source(),
            starts: subject.starts.clone(),
            from: guest.host,
            to: one.to.clone(),
            after: members(&moving.after),
            not_with: members(&moving.not_with),
            not_before: moving.not_before,
            // What hosts count; a history's guest has its devices beside.
            memory: guest.memory,
            downtime_max: moving.downtime_max.map_or(f64::INFINITY, |max| max.as_secs_f64()),
        }
    };
    let mut groups: Vec<&String> = guests.iter().filter_map(|guest| guest.moving.apart.as_ref()).collect();
    groups.sort_unstable();
    groups.dedup();
    let group = |name: &&String| -> Vec<usize> {
        let is_in = |(_, guest): &(usize, &&Guest)| guest.moving.apart.as_ref() == Some(*name);
        guests.iter().enumerate().filter(is_in).map(|(place, _)| place).collect()
    };
    let Network { topology, hosts, background, .. } = network;
    Fleet {
        topology: topology.clone(),
        hosts: hosts.clone(),
        background: background.clone(),
        members: wanted.iter().zip(subjects).map(member).collect(),
        apart: groups.iter().map(group).collect(),
    }
}

/// One line for what nobody can plan.
pub(super) fn infeasible(
    why: &Infeasible,
    inventory: &Inventory,
    wanted: &[Wanted],
    problem: &Problem,
) -> anyhow::Error {
    match why {
        Infeasible::Circle(circle) => {
            let names = circle.iter().chain(circle.first()).map(|of| &inventory.guests[wanted[*of].guest].name);
            anyhow!("after: each waits for the next, so none can begin: {}", self::names(names))
        }
        Infeasible::Unplaced(why) => unplaced(*why, inventory, wanted, problem),
    }
}

/// One line for what cannot be placed.
fn unplaced(why: Unplaced, inventory: &Inventory, wanted: &[Wanted], problem: &Problem) -> anyhow::Error {
    let (Unplaced::NoWay(of) | Unplaced::NoRoom(of) | Unplaced::Together(of)) = why;
    let guest = &inventory.guests[wanted[of].guest];
    let rooms = || {
        let room = |way: &usize| {
            let bytes = show_bytes(ByteCount::new(problem.rooms[*way] as u64));
            format!("{} {bytes}", inventory.hosts[*way].name)
        };
        wanted[of].to.iter().map(room).collect::<Vec<_>>().join(", ")
    };
    match why {
        Unplaced::NoWay(_) => anyhow!("guest {}: there is no host that it could go to", guest.name),
        Unplaced::NoRoom(_) => anyhow!(
            "guest {}: no host has {} left for it when the others are placed; free before the moves: {}",
            guest.name,
            show_bytes(guest.memory),
            rooms()
        ),
        Unplaced::Together(_) => anyhow!(
            "guest {}: apart: each host with {} for it has or gets a guest of the group `{}`",
            guest.name,
            show_bytes(guest.memory),
            guest.moving.apart.as_deref().unwrap_or_default()
        ),
    }
}

/// One line for what can never begin.
pub(super) fn stuck(why: WorldError, inventory: &Inventory, wanted: &[Wanted]) -> anyhow::Error {
    let name = |of: usize| &inventory.guests[wanted[of].guest].name;
    match why {
        WorldError::NoRoom(of) => anyhow!(
            "guest {}: its host has room for it only when others have left, and those wait for room that it would leave: give one \
             of them another target",
            name(of)
        ),
        WorldError::NeverBegins(of) => anyhow!("guest {}: what it waits for (after) never ends", name(of)),
        WorldError::NowhereToGo(of) => anyhow!("guest {}: it is on the host that it is to go to", name(of)),
    }
}
