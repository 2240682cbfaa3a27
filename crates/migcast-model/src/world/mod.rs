//! Many migrations at once: hosts and switches whose links they share, and limits on how many may run.
//!
//! ```text
//!  jobs in order ─► who may begin ─► running migrations ─► max-min shares of every link they take
//!                   (limits,            ▲                        │
//!                    precedences)       └── granted rates ◄──────┘
//! ```
//! Rates change when a migration begins, ends, stops a guest whose cap ends with that, or when other traffic changes; in
//! between every migration is alone with its rate. A migration cannot be told in advance when it will end, and cannot go
//! back: so each is run to its next turning point at the rates that hold, the earliest of these is what happens, and whoever
//! gets another rate then is run again from its beginning with all the rates it has had. No time is stepped through.
//!
//! A migration with a cap of its own leaves the rest of its share to others; it is carried as fast as they leave it, and keeps
//! its cap itself. A running migration counts as one that takes all it is given, from its request to its end: set-up and resume, some tens
//! of milliseconds, keep a share that they do not use.

mod sharing;
mod topology;

use std::time::Duration;

pub use sharing::{Flow, max_min};
pub use topology::{NodeId, Pipe, Topology};

use crate::algorithm::Request;
use crate::due::DueSource;
use crate::migration::Event;
use crate::outcome::Outcome;
use crate::simulate::Scenario;
use crate::units::{ByteCount, BytesPerSec, SimTime};

/// A migration that is wanted.
#[derive(Clone, Copy)]
pub struct Job<'a> {
    /// Guest, platform, algorithm, horizon. Of its link the sender's buffer counts; the rates are the topology's.
    pub scenario: &'a Scenario,
    /// What the guest writes.
    pub source: &'a dyn DueSource,
    /// How far into the source the world begins: the guest goes on writing while it waits for its turn.
    pub start: Duration,
    /// Memory it takes of a host that counts it.
    pub memory: ByteCount,
    /// Host it is on.
    pub from: NodeId,
    /// Host it goes to.
    pub to: NodeId,
    /// It does not begin before.
    pub not_before: SimTime,
    /// Jobs, by their index, that have to have ended before it begins.
    pub after: &'a [usize],
    /// Jobs, by their index, that must not run while it does; each names the other.
    pub not_with: &'a [usize],
    /// Rate that is kept for it while it runs, on each pipe it takes: it does not begin before all that is kept, its own
    /// included, fits into the pipe, unless nothing else is kept there. What a running job gets is its fair share all the same:
    /// this decides who may begin, and zero leaves that to the limits.
    pub reserved: BytesPerSec,
}

impl<'a> Job<'a> {
    /// One that may begin at once, with its source at its beginning.
    pub fn new(scenario: &'a Scenario, source: &'a dyn DueSource, from: NodeId, to: NodeId) -> Job<'a> {
        Job {
            scenario,
            source,
            start: Duration::ZERO,
            memory: scenario.guest.memory_bytes(),
            from,
            to,
            not_before: SimTime::ZERO,
            after: &[],
            not_with: &[],
            reserved: BytesPerSec::ZERO,
        }
    }
}

/// How many migrations may run at once; each at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Out of one host.
    pub out_of_host: usize,
    /// Into one host.
    pub into_host: usize,
    /// In all.
    pub in_all: usize,
}

impl Limits {
    /// As many as there are.
    pub const NONE: Limits = Limits { out_of_host: usize::MAX, into_host: usize::MAX, in_all: usize::MAX };
    /// One after the other.
    pub const ONE: Limits = Limits { out_of_host: 1, into_host: 1, in_all: 1 };
    /// KubeVirt's defaults: two out of a node, five in a cluster (pkg/virt-config/virt-config.go).
    pub const KUBEVIRT: Limits = Limits { out_of_host: 2, into_host: usize::MAX, in_all: 5 };

    /// What these and others allow.
    #[must_use]
    pub fn and(self, others: Limits) -> Limits {
        Limits {
            out_of_host: self.out_of_host.min(others.out_of_host),
            into_host: self.into_host.min(others.into_host),
            in_all: self.in_all.min(others.in_all),
        }
    }
}

/// Traffic of others on one pipe from a point in time on, until the next of the same pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Background {
    /// From when.
    pub at: SimTime,
    /// Where.
    pub pipe: Pipe,
    /// How much.
    pub rate: BytesPerSec,
}

/// What became of a job.
#[derive(Clone, Debug, PartialEq)]
pub struct Done {
    /// When it began.
    pub began: SimTime,
    /// When it ended.
    pub ended: SimTime,
    /// How.
    pub outcome: Outcome,
    /// The rates at which it was carried, each from a point in time on: of one with a cap more than it took on the whole.
    pub grants: Vec<(SimTime, BytesPerSec)>,
}

/// Why a set of jobs cannot be simulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WorldError {
    /// It waits for another that never ends, or is not there: in the end for itself.
    #[error("job {0} can never begin: it waits for itself, directly or through others")]
    NeverBegins(usize),
    /// There is never memory enough for it on its host.
    #[error("job {0} can never begin: its host never has the memory for it")]
    NoRoom(usize),
    /// It has nowhere to go.
    #[error("job {0} goes from a host to the same host")]
    NowhereToGo(usize),
}

/// A rate that ends at last: a link that others have filled lets a trickle through.
const TRICKLE: BytesPerSec = BytesPerSec::new(1_000);

/// Simulates `jobs`, which begin in their order as soon as they may. One that may not yet does not hold up the ones behind
/// it. Returns what became of each, in their order.
///
/// # Errors
/// A job can never begin, or goes nowhere.
pub fn simulate(
    topology: &Topology,
    limits: Limits,
    background: &[Background],
    jobs: &[Job<'_>],
) -> Result<Vec<Done>, WorldError> {
    if let Some(job) = jobs.iter().position(|job| job.from == job.to) {
        return Err(WorldError::NowhereToGo(job));
    }
    let mut background = background.to_vec();
    background.sort_by_key(|change| change.at);
    let paths = jobs.iter().map(|job| topology.path(job.from, job.to)).collect();
    let mut world = World {
        topology,
        limits,
        jobs,
        paths,
        is_running: vec![false; jobs.len()],
        kept: vec![BytesPerSec::ZERO; topology.pipes()],
        rates: topology.rates().collect(),
        rooms: topology.rooms().collect(),
        done: vec![None; jobs.len()],
        running: Vec::new(),
        out_of: vec![0; topology.nodes()],
        into: vec![0; topology.nodes()],
        waiting: (0..jobs.len()).collect(),
        now: SimTime::ZERO,
    };
    let mut changes = background.iter().peekable();
    let mut taken = vec![BytesPerSec::ZERO; topology.pipes()];
    while !world.running.is_empty() || !world.waiting.is_empty() {
        while let Some(change) = changes.next_if(|change| change.at <= world.now) {
            taken[change.pipe.index()] = change.rate;
        }
        world.begin();
        world.share(&taken);
        let next_change = changes.peek().map(|change| change.at).filter(|_| !world.running.is_empty());
        let next_begin = world.next_not_before();
        let next_turn = world.running.iter().filter_map(Running::turns_at).min();
        let Some(next) = [next_change, next_begin, next_turn].into_iter().flatten().min() else {
            return Err(world.stuck());
        };
        world.now = next;
        world.turn();
    }
    Ok(world.done.into_iter().map(|done| done.expect("every job has ended")).collect())
}

/// The rate at which each flow is carried: its fair share, and, of one that its cap keeps below that, what its pipes have left
/// besides. For a cap is kept by the sender, over its windows: within one it sends as fast as it is carried, then waits.
fn granted(capacities: &[BytesPerSec], flows: &[Flow<'_>]) -> Vec<BytesPerSec> {
    let mut rates = max_min(capacities, flows);
    if flows.iter().all(|flow| flow.cap.is_none()) {
        return rates;
    }
    let mut left = capacities.to_vec();
    for (flow, rate) in flows.iter().zip(&rates) {
        flow.path.iter().for_each(|pipe| left[*pipe] = left[*pipe].saturating_sub(*rate));
    }
    for (flow, rate) in flows.iter().zip(&mut rates) {
        if flow.cap == Some(*rate) {
            *rate += flow.path.iter().map(|pipe| left[*pipe]).min().unwrap_or(BytesPerSec::ZERO);
        }
    }
    rates
}

/// What a running migration comes to next if nothing changes; times are its own.
#[derive(Clone, Debug)]
enum Turn {
    /// It stops the guest, and its cap ends.
    Stops(SimTime),
    /// It ends.
    Ends(SimTime, Box<Outcome>),
}

/// A migration that runs.
#[derive(Debug)]
struct Running {
    job: usize,
    began: SimTime,
    /// Rates so far, in its own time, the first at zero.
    grants: Vec<(SimTime, BytesPerSec)>,
    /// Its guest stands, so that its cap binds no more.
    is_stopped: bool,
    /// `None` until its rate is known.
    turn: Option<Turn>,
}

impl Running {
    /// When it comes to its next turn, in the world's time.
    fn turns_at(&self) -> Option<SimTime> {
        let (Turn::Stops(at) | Turn::Ends(at, _)) = self.turn.as_ref()?;
        Some(self.began + at.since(SimTime::ZERO))
    }
}

struct World<'a> {
    topology: &'a Topology,
    limits: Limits,
    jobs: &'a [Job<'a>],
    paths: Vec<Vec<usize>>,
    done: Vec<Option<Done>>,
    running: Vec<Running>,
    is_running: Vec<bool>,
    /// What is kept of each pipe for those that run, and what it carries.
    kept: Vec<BytesPerSec>,
    rates: Vec<BytesPerSec>,
    /// Memory of each host for guests that come.
    rooms: Vec<Option<ByteCount>>,
    /// How many run out of each node, and into each.
    out_of: Vec<usize>,
    into: Vec<usize>,
    /// In order.
    waiting: Vec<usize>,
    now: SimTime,
}

impl World<'_> {
    /// Begins what may begin.
    fn begin(&mut self) {
        let mut waiting = std::mem::take(&mut self.waiting);
        waiting.retain(|&job| {
            let may = self.may_begin(job);
            if may {
                let Job { from, to, reserved, memory, .. } = self.jobs[job];
                self.out_of[from.index()] += 1;
                self.into[to.index()] += 1;
                self.is_running[job] = true;
                self.paths[job].iter().for_each(|pipe| self.kept[*pipe] += reserved);
                if let Some(room) = &mut self.rooms[to.index()] {
                    *room = room.saturating_sub(memory);
                }
                let (began, grants) = (self.now, Vec::new());
                self.running.push(Running { job, began, grants, is_stopped: false, turn: None });
            }
            !may
        });
        self.waiting = waiting;
    }

    fn may_begin(&self, job: usize) -> bool {
        let Job { from, to, not_before, after, not_with, reserved, .. } = self.jobs[job];
        let is_kept_free = |pipe: &usize| {
            let kept = self.kept[*pipe];
            kept == BytesPerSec::ZERO || kept.get() + reserved.get() <= self.rates[*pipe].get()
        };
        not_before <= self.now
            && self.running.len() < self.limits.in_all
            && self.out_of[from.index()] < self.limits.out_of_host
            && self.into[to.index()] < self.limits.into_host
            && (reserved == BytesPerSec::ZERO || self.paths[job].iter().all(is_kept_free))
            && self.has_room(job)
            && !not_with.iter().any(|other| self.is_running[*other])
            && after.iter().all(|before| self.has_ended(*before))
    }

    fn has_room(&self, job: usize) -> bool {
        self.rooms[self.jobs[job].to.index()].is_none_or(|room| self.jobs[job].memory <= room)
    }

    fn has_ended(&self, job: usize) -> bool {
        self.done.get(job).is_some_and(Option::is_some)
    }

    /// Why nothing runs and nothing will: memory, if somebody waits for nothing else, or each other.
    fn stuck(&self) -> WorldError {
        let lacks_room =
            |job: &&usize| !self.has_room(**job) && self.jobs[**job].after.iter().all(|before| self.has_ended(*before));
        let job = self.waiting.iter().find(lacks_room);
        job.map_or(WorldError::NeverBegins(self.waiting[0]), |job| WorldError::NoRoom(*job))
    }

    /// When the next waiting job's time comes, of those that wait for nothing but a time.
    fn next_not_before(&self) -> Option<SimTime> {
        self.waiting.iter().map(|job| self.jobs[*job].not_before).filter(|at| *at > self.now).min()
    }

    /// Shares the links, and finds out what the new rates lead to.
    fn share(&mut self, taken: &[BytesPerSec]) {
        let capacities: Vec<BytesPerSec> =
            self.topology.rates().zip(taken).map(|(rate, taken)| rate.saturating_sub(*taken)).collect();
        let flow = |one: &Running| {
            let scheme = self.jobs[one.job].scenario.algorithm.scheme();
            Flow { path: &self.paths[one.job], cap: scheme.cap().filter(|_| !one.is_stopped) }
        };
        let flows: Vec<Flow<'_>> = self.running.iter().map(flow).collect();
        let rates = granted(&capacities, &flows);
        for (one, rate) in self.running.iter_mut().zip(rates) {
            let rate = rate.max(TRICKLE);
            if one.grants.last().is_none_or(|(_, last)| *last != rate) {
                let at = SimTime::ZERO + self.now.since(one.began);
                one.grants.push((at, rate));
                one.turn = None;
            }
            if one.turn.is_none() {
                one.turn = Some(next_turn(&self.jobs[one.job], one));
            }
        }
    }

    /// Takes every turn that has come.
    fn turn(&mut self) {
        let (now, jobs) = (self.now, self.jobs);
        let mut running = std::mem::take(&mut self.running);
        running.retain_mut(|one| {
            if one.turns_at().is_some_and(|at| at > now) {
                return true;
            }
            match one.turn.take() {
                None => true,
                Some(Turn::Stops(_)) => {
                    one.is_stopped = true;
                    true
                }
                Some(Turn::Ends(_, outcome)) => {
                    let Job { from, to, reserved, memory, .. } = jobs[one.job];
                    self.out_of[from.index()] -= 1;
                    self.into[to.index()] -= 1;
                    self.is_running[one.job] = false;
                    self.paths[one.job].iter().for_each(|pipe| self.kept[*pipe] -= reserved);
                    // Where the guest is not, its memory is free.
                    let left = if outcome.completed().is_some() { from } else { to };
                    if let Some(room) = &mut self.rooms[left.index()] {
                        *room += memory;
                    }
                    let absolute = |(at, rate): &(SimTime, BytesPerSec)| (one.began + at.since(SimTime::ZERO), *rate);
                    self.done[one.job] = Some(Done {
                        began: one.began,
                        ended: now,
                        outcome: *outcome,
                        grants: one.grants.iter().map(absolute).collect(),
                    });
                    false
                }
            }
        });
        self.running = running;
    }
}

/// Runs a job from its beginning with the rates it has had, and on at the last one, to the next turn it has not taken.
fn next_turn(job: &Job<'_>, one: &Running) -> Turn {
    let scenario = job.scenario;
    let scheme = scenario.algorithm.scheme();
    let due = job.source.due_set(job.start + one.began.since(SimTime::ZERO), scheme.tracking());
    let request = Request { guest: &scenario.guest, link: &scenario.link, platform: &scenario.platform };
    let mut migration = scenario.algorithm.migration(&request, due);
    let waits_for_stop = scheme.cap().is_some() && !one.is_stopped;
    let mut horizon = SimTime::ZERO + scenario.horizon;
    let mut grants = one.grants.iter().peekable();
    let mut rate = TRICKLE;
    loop {
        // A page under way when the rate changed was finished at the old one.
        while let Some((_, next)) = grants.next_if(|(at, _)| *at <= migration.progress().now) {
            rate = *next;
        }
        let changes = grants.peek().map_or(SimTime::MAX, |(at, _)| *at);
        match migration.advance(rate, horizon.min(changes)) {
            Event::Completed(done) => {
                let at = SimTime::ZERO + done.migration_time;
                return Turn::Ends(at, Box::new(Outcome::Completed(*done)));
            }
            Event::Cancelled => {
                let progress = migration.progress();
                return Turn::Ends(progress.now, Box::new(Outcome::Cancelled(progress)));
            }
            Event::Stopped if waits_for_stop => return Turn::Stops(migration.progress().now),
            Event::Stopped => horizon = SimTime::MAX,
            Event::IterationEnded => {}
            Event::Paused => {
                let progress = migration.progress();
                if progress.now >= horizon {
                    return Turn::Ends(progress.now, Box::new(Outcome::NotConverged(progress)));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
