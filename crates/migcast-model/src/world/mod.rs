//! Many migrations at once: hosts and switches whose links they share, and limits on how many may run.
//!
//! ```text
//!  jobs in order ─► who may begin ─► running migrations ─► max-min shares of every link they take
//!                   (limits,            ▲                        │
//!                    precedences)       └── granted rates ◄──────┘
//! ```
//! Rates change when a migration begins, ends, stops a guest whose cap ends with that, or when other traffic changes; in
//! between every migration is alone with its rate. A migration cannot be told in advance when it will end, and cannot go
//! back. So a copy of each is run ahead, to its next turning point at the rate that holds, or as far as another's that comes
//! first: the earliest of these is what happens, and all go on from where they are then. No time is stepped through.
//!
//! A migration with a cap of its own leaves the rest of its share to others; it is carried as fast as they leave it, and keeps
//! its cap itself. A running migration counts as one that takes all it is given, from its request to its end: set-up and resume, some tens
//! of milliseconds, keep a share that they do not use.

mod sharing;
mod topology;

use std::time::Duration;

pub use sharing::{Flow, max_min};
pub use topology::{NodeId, Pipe, Topology};

use crate::due::DueSource;
use crate::migration::{Event, Migration};
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
    /// Jobs, by their index, whose guests have to have been moved before it begins.
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

/// What became of a job. One that waited for a guest that was not moved, or for the memory it would have left, is given up
/// without having begun: cancelled, with nothing sent.
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
        let known = next_change.into_iter().chain(world.next_not_before()).min();
        let Some(next) = world.look_ahead(known) else {
            if world.has_failed() {
                // They wait for what will not come.
                world.give_up();
                break;
            }
            return Err(world.stuck());
        };
        debug_assert!(next >= world.now, "time goes on");
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

/// How far is looked ahead for a turn at first, at least.
const LOOK_MIN: Duration = Duration::from_millis(250);

/// What a running migration comes to next if nothing changes; times are its own.
#[derive(Clone, Debug)]
enum Turn {
    /// It stops the guest, and its cap ends.
    Stops(SimTime),
    /// It ends.
    Ends(SimTime, Box<Outcome>),
}

/// A migration that runs; times are its own but where the world's are named.
struct Running<'a> {
    job: usize,
    /// In the world's time.
    began: SimTime,
    /// As it was when it was last granted a rate, and a copy of it that was run ahead.
    now: Machine<'a>,
    ahead: Option<Machine<'a>>,
    /// Rates so far, the first at zero.
    grants: Vec<(SimTime, BytesPerSec)>,
    /// Its guest stands, so that its cap binds no more.
    is_stopped: bool,
    /// `None` as long as nothing is known but that it comes to none before `quiet_until`, in the world's time.
    turn: Option<Turn>,
    quiet_until: SimTime,
    /// It has come to its turn itself, with a page that was under way when its rate changed.
    holds_turn: bool,
}

/// A migration with when it is given up.
#[derive(Clone)]
struct Machine<'a> {
    migration: Box<dyn Migration + 'a>,
    /// Never, once its guest stands.
    horizon: SimTime,
}

impl<'a> Machine<'a> {
    fn of(job: &Job<'a>, waited: Duration) -> Machine<'a> {
        let migration = job.scenario.migration(None, job.source, job.start + waited);
        Machine { migration, horizon: SimTime::ZERO + job.scenario.horizon }
    }

    /// Runs on at `rate` to its next turn, or until `until`. A page that is under way then is finished.
    fn run(&mut self, rate: BytesPerSec, until: SimTime, waits_for_stop: bool) -> Option<Turn> {
        while self.migration.progress().now < until {
            match self.migration.advance(rate, self.horizon.min(until)) {
                Event::Completed(done) => {
                    let at = SimTime::ZERO + done.migration_time;
                    return Some(Turn::Ends(at, Box::new(Outcome::Completed(*done))));
                }
                Event::Cancelled => {
                    let progress = self.migration.progress();
                    return Some(Turn::Ends(progress.now, Box::new(Outcome::Cancelled(progress))));
                }
                Event::Stopped => {
                    self.horizon = SimTime::MAX;
                    if waits_for_stop {
                        return Some(Turn::Stops(self.migration.progress().now));
                    }
                }
                Event::IterationEnded => {}
                Event::Paused => {
                    let progress = self.migration.progress();
                    if progress.now >= self.horizon {
                        return Some(Turn::Ends(progress.now, Box::new(Outcome::NotConverged(progress))));
                    }
                }
            }
        }
        None
    }
}

impl Running<'_> {
    /// When it comes to its next turn, in the world's time.
    fn turns_at(&self) -> Option<SimTime> {
        let (Turn::Stops(at) | Turn::Ends(at, _)) = self.turn.as_ref()?;
        Some(self.began + at.since(SimTime::ZERO))
    }

    /// When it would have sent all of its memory once at its rate: most end soon after.
    fn passes_at(&self, job: &Job<'_>) -> SimTime {
        self.began + job.scenario.guest.memory_bytes().transfer_time_ceil(self.rate())
    }

    /// Whether it comes to a turn when its guest is stopped.
    fn waits_for_stop(&self, jobs: &[Job<'_>]) -> bool {
        !self.is_stopped && jobs[self.job].scenario.algorithm.scheme().cap().is_some()
    }

    /// What it was granted last.
    fn rate(&self) -> BytesPerSec {
        self.grants.last().map_or(TRICKLE, |(_, rate)| *rate)
    }

    /// Grants it a rate from now on, in the world's time: it goes on from where it is.
    fn grant(&mut self, now: SimTime, rate: BytesPerSec, waits_for_stop: bool) {
        let at = SimTime::ZERO + now.since(self.began);
        if !self.holds_turn {
            self.turn = self.now.run(self.rate(), at, waits_for_stop);
            self.holds_turn = self.turn.is_some();
            (self.quiet_until, self.ahead) = (now, None);
        }
        self.grants.push((at, rate));
    }

    /// Looks for its next turn at the rate it has, no further than `limit` in the world's time.
    fn look(&mut self, waits_for_stop: bool, limit: SimTime) {
        let mut ahead = self.ahead.take().unwrap_or_else(|| self.now.clone());
        self.turn = ahead.run(self.rate(), SimTime::ZERO + limit.since(self.began), waits_for_stop);
        self.quiet_until = limit;
        self.ahead = self.turn.is_none().then_some(ahead);
    }
}

struct World<'a> {
    topology: &'a Topology,
    limits: Limits,
    jobs: &'a [Job<'a>],
    paths: Vec<Vec<usize>>,
    done: Vec<Option<Done>>,
    running: Vec<Running<'a>>,
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
                let now = Machine::of(&self.jobs[job], began.since(SimTime::ZERO));
                let (is_stopped, holds_turn) = (false, false);
                let (ahead, turn, quiet_until) = (None, None, began);
                let running = Running { job, began, now, ahead, grants, is_stopped, turn, quiet_until, holds_turn };
                self.running.push(running);
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
            && after.iter().all(|before| self.has_moved(*before))
    }

    fn has_room(&self, job: usize) -> bool {
        self.rooms[self.jobs[job].to.index()].is_none_or(|room| self.jobs[job].memory <= room)
    }

    fn has_moved(&self, job: usize) -> bool {
        self.done.get(job).is_some_and(|done| done.as_ref().is_some_and(|done| done.outcome.completed().is_some()))
    }

    /// Whether a guest is still where it was though its migration has ended.
    fn has_failed(&self) -> bool {
        self.done.iter().flatten().any(|done| done.outcome.completed().is_none())
    }

    /// Ends what waits, not begun.
    fn give_up(&mut self) {
        for job in std::mem::take(&mut self.waiting) {
            let progress = Machine::of(&self.jobs[job], Duration::ZERO).migration.progress();
            let (began, ended, grants) = (self.now, self.now, Vec::new());
            self.done[job] = Some(Done { began, ended, outcome: Outcome::Cancelled(progress), grants });
        }
    }

    /// Why nothing runs and nothing will: memory, if somebody waits for nothing else, or each other.
    fn stuck(&self) -> WorldError {
        let lacks_room =
            |job: &&usize| !self.has_room(**job) && self.jobs[**job].after.iter().all(|before| self.has_moved(*before));
        let job = self.waiting.iter().find(lacks_room);
        job.map_or(WorldError::NeverBegins(self.waiting[0]), |job| WorldError::NoRoom(*job))
    }

    /// When the next waiting job's time comes, of those that wait for nothing but a time.
    fn next_not_before(&self) -> Option<SimTime> {
        self.waiting.iter().map(|job| self.jobs[*job].not_before).filter(|at| *at > self.now).min()
    }

    /// Shares the links.
    fn share(&mut self, taken: &[BytesPerSec]) {
        let capacities: Vec<BytesPerSec> =
            self.topology.rates().zip(taken).map(|(rate, taken)| rate.saturating_sub(*taken)).collect();
        let flow = |one: &Running| {
            let scheme = self.jobs[one.job].scenario.algorithm.scheme();
            Flow { path: &self.paths[one.job], cap: scheme.cap().filter(|_| !one.is_stopped) }
        };
        let flows: Vec<Flow<'_>> = self.running.iter().map(flow).collect();
        let rates = granted(&capacities, &flows);
        let jobs = self.jobs;
        for (one, rate) in self.running.iter_mut().zip(rates) {
            let rate = rate.max(TRICKLE);
            if one.grants.last().is_none_or(|(_, last)| *last != rate) {
                one.grant(self.now, rate, one.waits_for_stop(jobs));
            }
        }
    }

    /// When something happens next: a turn, or what is `known` to come if nothing comes before. Looks no further ahead than it
    /// has to: a guest that would write for hours faster than its share is carried is not followed there.
    fn look_ahead(&mut self, known: Option<SimTime>) -> Option<SimTime> {
        let turns = self.running.iter().filter_map(Running::turns_at);
        let mut next = turns.chain(known).min();
        let jobs = self.jobs;
        let open = self.running.iter().filter(|one| one.turn.is_none());
        let first = open.map(|one| one.passes_at(&jobs[one.job])).min();
        let mut ahead = first.map_or(LOOK_MIN, |first| first.since(self.now) * 3 / 2).max(LOOK_MIN);
        while self.running.iter().any(|one| one.turn.is_none() && next.is_none_or(|next| one.quiet_until < next)) {
            let limit = next.map_or(self.now + ahead, |next| next.min(self.now + ahead));
            for one in self.running.iter_mut().filter(|one| one.turn.is_none() && one.quiet_until < limit) {
                // What was found of the others in the meantime makes it shorter.
                let limit = next.map_or(limit, |next| next.min(limit));
                one.look(one.waits_for_stop(jobs), limit);
                next = next.into_iter().chain(one.turns_at()).min();
            }
            ahead = ahead.saturating_mul(2);
        }
        next
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
                    (one.is_stopped, one.holds_turn) = (true, false);
                    (one.quiet_until, one.ahead) = (now, None);
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

#[cfg(test)]
mod tests;
