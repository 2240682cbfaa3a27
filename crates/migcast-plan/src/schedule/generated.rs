//! Fleets that are made up, the same every time: for tests and benches.

use std::time::Duration;

use migcast_model::algorithm::Algorithm;
use migcast_model::dirty::{ConstantRate, CountedRates, RateSteps, WritePattern, WwsIndex, WwsIndexBuilder};
use migcast_model::due::DueSource;
use migcast_model::guest::Guest;
use migcast_model::link::Link;
use migcast_model::platform::Platform;
use migcast_model::simulate::Scenario;
use migcast_model::units::{ByteCount, BytesPerSec, PageCount, PagesPerSec};
use migcast_model::world::{NodeId, Topology};

use super::fleet::{Fleet, Member};
use crate::random::Random;

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// A quarter of the hosts are emptied; their guests go to any of the others.
    Drain,
    /// Guests go from anywhere to a certain host anywhere else.
    Rebalance,
    /// As to drain, in racks of eight hosts whose link to the others is as fast as those of three hosts.
    Racks,
}

/// All of them.
pub const TASKS: [Task; 3] = [Task::Drain, Task::Rebalance, Task::Racks];

/// How much guests write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mix {
    /// Half of them hardly, one in eight 40 % of what a link of 10 Gbit/s carries: most are moved in little more than a pass,
    /// on half a link, too.
    Calm,
    /// From nothing to 60 % of what a link of 1 Gbit/s carries, evenly, over more than fits into a downtime: half of them
    /// converge slowly, or not at all, on half a link.
    Busy,
}

/// A fleet, with what its guests write.
#[derive(Debug)]
pub struct Generated {
    topology: Topology,
    hosts: Vec<NodeId>,
    guests: Vec<GeneratedGuest>,
    phases: WwsIndex,
    task: Task,
    drained: usize,
}

#[derive(Debug)]
struct GeneratedGuest {
    scenario: Scenario,
    /// `None` of those that write in phases.
    rates: Option<CountedRates>,
    from: usize,
    to: usize,
}

/// Memory of guests in GiB, the last of which write in phases.
const MEMORIES: [u64; 8] = [1, 1, 2, 2, 4, 4, 8, 16];
/// What guests write each second, as a share of what the link carries, and over how much of their memory.
const CALM: [(f64, f64); 8] =
    [(0.0, 0.1), (0.005, 0.02), (0.01, 0.1), (0.02, 0.3), (0.05, 0.1), (0.1, 0.2), (0.2, 0.3), (0.4, 0.2)];
const BUSY: [(f64, f64); 8] =
    [(0.0, 0.1), (0.01, 0.1), (0.05, 0.1), (0.15, 0.2), (0.25, 0.2), (0.35, 0.3), (0.45, 0.2), (0.6, 0.1)];
/// Of the guests that write in phases: 1 GiB; half a minute calm, half a minute busy.
const PHASED_PAGES: u64 = 1 << 18;
const WINDOW: Duration = Duration::from_millis(100);
const WINDOWS: u32 = 600;

impl Generated {
    /// So many guests, at least 8, on about a tenth as many hosts, at least four.
    pub fn new(task: Task, mix: Mix, guests: usize, seed: u64) -> Generated {
        let mut random = Random::new(seed);
        let line = if mix == Mix::Calm { 10_000_000_000 } else { 1_000_000_000 };
        let link = Link::ethernet(BytesPerSec::from_bits(line));
        let rate = link.goodput();
        let count = (guests / 10).max(4);
        let mut topology = Topology::new();
        let racks = if task == Task::Racks { count.div_ceil(8).max(2) } else { 1 };
        let below: Vec<NodeId> = match task {
            Task::Racks => {
                (0..racks).map(|_| topology.add(topology.core(), rate.scale(3.0), rate.scale(3.0))).collect()
            }
            Task::Drain | Task::Rebalance => vec![topology.core()],
        };
        let hosts = (0..count).map(|host| topology.add(below[host % racks], rate, rate)).collect();
        let drained = (count / 4).max(1);
        let guest = |_| {
            let from = random.below(if task == Task::Rebalance { count } else { drained });
            let to = (from + 1 + random.below(count - 1)) % count;
            let is_phased = random.below(8) == 0;
            let pages = if is_phased { PHASED_PAGES } else { random.one_of(&MEMORIES) << 18 };
            let memory = PageCount::new(pages);
            let (share, set) = random.one_of(if mix == Mix::Calm { &CALM } else { &BUSY });
            let set = PageCount::new((set * pages as f64) as u64);
            let written = PagesPerSec::new(share * rate.get() as f64 / 4096.0);
            let constant = ConstantRate::new(memory, set, written, WritePattern::Uniform, 0);
            let rates = CountedRates::new(RateSteps::new(&constant, &[(Duration::ZERO, written)]));
            let mut algorithm = Algorithm::named("qemu").expect("QEMU is known");
            algorithm.set("max-bandwidth", "none").expect("it has a cap");
            let scenario = Scenario {
                guest: Guest::new("g", memory.bytes(Guest::PAGE_SIZE)),
                link,
                platform: Platform::default(),
                algorithm,
                horizon: Duration::from_secs(3_600),
            };
            GeneratedGuest { scenario, rates: (!is_phased).then_some(rates), from, to }
        };
        let guests = (0..guests).map(guest).collect();
        Generated { topology, hosts, guests, phases: phases(seed), task, drained }
    }

    /// As a fleet.
    pub fn fleet(&self) -> Fleet<'_> {
        let calm: Vec<Duration> = vec![Duration::ZERO];
        let phased: Vec<Duration> = (0..WINDOWS).map(|window| WINDOW * window).collect();
        let others: Vec<usize> = (self.drained..self.hosts.len()).collect();
        let members = self.guests.iter().map(|guest| Member {
            scenario: guest.scenario.clone(),
            source: guest.rates.as_ref().map_or(&self.phases as &dyn DueSource, |rates| rates),
            starts: if guest.rates.is_some() { calm.clone() } else { phased.clone() },
            from: guest.from,
            to: if self.task == Task::Rebalance { vec![guest.to] } else { others.clone() },
            after: Vec::new(),
            not_with: Vec::new(),
            not_before: Duration::ZERO,
            memory: guest.scenario.guest.memory_bytes(),
            downtime_max: f64::INFINITY,
        });
        let mut topology = self.topology.clone();
        // Enough in the mean, and not much more.
        let all: u64 = self.guests.iter().map(|guest| guest.scenario.guest.memory_bytes().get()).sum();
        let room = ByteCount::new(3 * all / self.hosts.len() as u64 + 32 * ByteCount::GIB.get());
        self.hosts.iter().for_each(|host| topology.set_room(*host, room));
        let (hosts, background, apart) = (self.hosts.clone(), Vec::new(), Vec::new());
        Fleet { topology, hosts, background, members: members.collect(), apart }
    }
}

/// A minute of a guest that writes 200 pages a second for half of it and 20,000 for the other.
fn phases(seed: u64) -> WwsIndex {
    let mut random = Random::new(seed);
    let mut builder = WwsIndexBuilder::new(PageCount::new(PHASED_PAGES), PageCount::new(PHASED_PAGES));
    for window in 0..WINDOWS {
        let writes = if window < WINDOWS / 2 { 20 } else { 2_000 };
        let mut written: Vec<u32> = (0..writes).map(|_| random.below(PHASED_PAGES as usize / 8) as u32).collect();
        written.sort_unstable();
        written.dedup();
        builder.window(WINDOW, &written, &[]);
    }
    builder.build().expect("it has windows")
}
