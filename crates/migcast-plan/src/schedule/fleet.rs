//! The guests of a schedule in the model's world: what each would send alone, and how it goes if they are moved together.
//!
//! How it goes depends on where in its past each guest is, and on how fast the hosts are that day: a [`Draw`] says both. The
//! same draws are used for every schedule, so that their difference is not chance.

use std::time::Duration;

use migcast_model::due::DueSource;
use migcast_model::forecast::Distribution;
use migcast_model::link::Link;
use migcast_model::outcome::Outcome;
use migcast_model::simulate::Scenario;
use migcast_model::units::{ByteCount, BytesPerSec, SimTime};
use migcast_model::world::{self, Background, Job, NodeId, Topology, WorldError};
use rayon::prelude::*;

use super::{Move, Problem, Schedule, Way};
use crate::random::Random;

/// Guests, the hosts they are on, and the links between those.
#[derive(Clone)]
pub struct Fleet<'a> {
    /// Hosts and links; hosts have room for guests that come.
    pub topology: Topology,
    /// The hosts, by the numbers that moves have.
    pub hosts: Vec<NodeId>,
    /// Traffic of others.
    pub background: Vec<Background>,
    /// The guests that are to be moved.
    pub members: Vec<Member<'a>>,
    /// Groups of them that must not end on the same host.
    pub apart: Vec<Vec<usize>>,
}

/// A guest that is to be moved.
#[derive(Clone)]
pub struct Member<'a> {
    /// Guest, platform, algorithm, horizon. Of its link only the sender's buffer counts.
    pub scenario: Scenario,
    /// What it writes.
    pub source: &'a dyn DueSource,
    /// Where in that it may be when the first migration begins: at least one.
    pub starts: Vec<Duration>,
    /// The host it is on, by its number.
    pub from: usize,
    /// Where it may go.
    pub to: Vec<usize>,
    /// Members that have to have moved before.
    pub after: Vec<usize>,
    /// Members that must not be moved at the same time; each names the other.
    pub not_with: Vec<usize>,
    /// It is not moved before.
    pub not_before: Duration,
    /// Memory it takes of a host.
    pub memory: ByteCount,
    /// The longest downtime it may have; infinite where nobody minds.
    pub downtime_max: f64,
}

/// How a world may turn out: where each guest is in its past, and how fast hosts and links are.
#[derive(Clone, Debug)]
pub struct Draw {
    /// Of hosts and links, 1 on the whole.
    speed: f64,
    topology: Topology,
    starts: Vec<Duration>,
    /// By how much each downtime is off, in seconds.
    downtime_off: Vec<f64>,
}

/// What a schedule came to in one draw.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// Each move.
    pub moves: Vec<Moved>,
}

/// What became of a move, in seconds since the beginning.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Moved {
    /// When it began.
    pub began: f64,
    /// When it ended.
    pub ended: f64,
    /// The guest's downtime; infinite where it was not moved, because it does not converge or was given up.
    pub downtime: f64,
    /// Bytes sent.
    pub sent: f64,
}

/// Starting points from which a guest is migrated alone.
const ALONE: usize = 8;

impl Fleet<'_> {
    /// The same in plain numbers: how long each would take, and what it would send, if it were moved alone.
    pub fn problem(&self) -> Problem {
        let carries = |rate: BytesPerSec| rate.get() as f64;
        let alone: Vec<(f64, f64)> = self.members.par_iter().map(|member| self.alone(member)).collect();
        let moves = self.members.iter().zip(alone).map(|(member, (bytes, seconds))| Move {
            from: member.from,
            memory: member.memory.get() as f64,
            ways: member.to.iter().map(|to| Way { to: *to, path: self.path(member.from, *to) }).collect(),
            bytes,
            seconds,
            appetite: member.scenario.algorithm.scheme().cap().map_or(f64::INFINITY, carries),
            after: member.after.clone(),
            not_with: member.not_with.clone(),
            not_before: member.not_before.as_secs_f64(),
        });
        let rooms = self.hosts.iter().map(|host| self.topology.room(*host));
        Problem {
            pipes: self.topology.rates().map(carries).collect(),
            rooms: rooms.map(|room| room.map_or(f64::INFINITY, |room| room.get() as f64)).collect(),
            moves: moves.collect(),
            apart: self.apart.clone(),
        }
    }

    fn path(&self, from: usize, to: usize) -> Vec<usize> {
        self.topology.path(self.hosts[from], self.hosts[to])
    }

    /// Mean bytes and seconds of a guest's migration if it has the quickest way to itself.
    fn alone(&self, member: &Member<'_>) -> (f64, f64) {
        let rates: Vec<BytesPerSec> = self.topology.rates().collect();
        let narrowest = |to: &usize| self.path(member.from, *to).iter().map(|pipe| rates[*pipe]).min();
        let Some(rate) = member.to.iter().filter_map(narrowest).max() else { return (0.0, 0.0) };
        let link = Link { line_rate: rate, payload_share: 1.0, ..member.scenario.link };
        let scenario = Scenario { link, ..member.scenario.clone() };
        let starts = migcast_model::forecast::thinned(&member.starts, ALONE);
        let (mut bytes, mut seconds) = (0.0, 0.0);
        for start in &starts {
            let (sent, time) = totals(&scenario.run(member.source, *start));
            (bytes, seconds) = (bytes + sent.get() as f64, seconds + time.as_secs_f64());
        }
        (bytes / starts.len() as f64, seconds / starts.len() as f64)
    }

    /// The `number`th way in which the world may turn out.
    pub fn draw(&self, number: u64, seed: u64) -> Draw {
        let mut random = Random::new(Random::new(seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15)).bits());
        // The hosts are as fast as they are that day, all of them: errors of many migrations do not average out.
        let scatter = self.members.iter().map(|member| member.scenario.platform.time_scatter).fold(0.0, f64::max);
        let speed = libm::exp(-scatter * random.normal());
        let starts = self.members.iter().map(|member| random.one_of(&member.starts)).collect();
        let off = |member: &Member<'_>| member.scenario.platform.downtime_scatter.as_secs_f64();
        let downtime_off = self.members.iter().map(|member| off(member) * random.normal()).collect();
        Draw { speed, topology: self.topology.scaled(speed), starts, downtime_off }
    }

    /// Carries out a schedule.
    ///
    /// # Errors
    /// Somebody can never begin.
    pub fn run(&self, problem: &Problem, schedule: &Schedule, draw: &Draw) -> Result<Run, WorldError> {
        let mut place = vec![0; schedule.order.len()];
        schedule.order.iter().enumerate().for_each(|(at, of)| place[*of] = at);
        let placed = |members: &[usize]| -> Vec<usize> { members.iter().map(|of| place[*of]).collect() };
        let others: Vec<(Vec<usize>, Vec<usize>)> = schedule
            .order
            .iter()
            .map(|of| (placed(&self.members[*of].after), placed(&self.members[*of].not_with)))
            .collect();
        let jobs = schedule.order.iter().zip(&others).map(|(of, (after, not_with))| {
            let member = &self.members[*of];
            let way = schedule.way[*of];
            // Links that are slower that day leave room for as many as on others.
            let reserved = problem.reserved(schedule, *of) * draw.speed;
            Job {
                start: draw.starts[*of],
                memory: member.memory,
                not_before: SimTime::ZERO + member.not_before,
                after,
                not_with,
                reserved: BytesPerSec::new(reserved as u64),
                ..Job::new(&member.scenario, member.source, self.hosts[member.from], self.hosts[member.to[way]])
            }
        });
        let jobs: Vec<Job<'_>> = jobs.collect();
        let done =
            world::simulate(&draw.topology, schedule.limits, &self.background, &jobs).map_err(|error| match error {
                WorldError::NeverBegins(at) => WorldError::NeverBegins(schedule.order[at]),
                WorldError::NoRoom(at) => WorldError::NoRoom(schedule.order[at]),
                WorldError::NowhereToGo(at) => WorldError::NowhereToGo(schedule.order[at]),
            })?;
        let seconds = |at: SimTime| at.since(SimTime::ZERO).as_secs_f64();
        let moved = |(of, off): (usize, &f64)| {
            let done = &done[place[of]];
            let downtime = done.outcome.completed().map(|completed| completed.downtime.total().as_secs_f64() + off);
            Moved {
                began: seconds(done.began),
                ended: seconds(done.ended),
                downtime: downtime.map_or(f64::INFINITY, |downtime| downtime.max(0.0)),
                sent: totals(&done.outcome).0.get() as f64,
            }
        };
        Ok(Run { moves: draw.downtime_off.iter().enumerate().map(moved).collect() })
    }
}

/// What a migration sent, and how long it took or was tried.
fn totals(outcome: &Outcome) -> (ByteCount, Duration) {
    match outcome {
        Outcome::Completed(done) => (done.sent_bytes, done.migration_time),
        Outcome::NotConverged(progress) | Outcome::Cancelled(progress) => {
            (progress.sent, progress.now.since(SimTime::ZERO))
        }
    }
}

impl Moved {
    /// When the guest runs at its target; infinite where it is not moved.
    pub fn arrived(&self) -> f64 {
        if self.downtime.is_finite() { self.ended } else { f64::INFINITY }
    }
}

impl Run {
    /// When the last move has ended; infinite where a guest is not moved.
    pub fn makespan(&self) -> f64 {
        if self.unmoved() > 0 { f64::INFINITY } else { self.ended() }
    }

    /// When nothing runs any more, whether all were moved or not.
    pub fn ended(&self) -> f64 {
        self.moves.iter().map(|of| of.ended).fold(0.0, f64::max)
    }

    /// Guests that are still where they were.
    pub fn unmoved(&self) -> usize {
        self.moves.iter().filter(|of| of.downtime.is_infinite()).count()
    }

    /// Sum of all downtimes.
    pub fn downtime_sum(&self) -> f64 {
        self.moves.iter().map(|of| of.downtime).sum()
    }

    /// The longest downtime.
    pub fn downtime_worst(&self) -> f64 {
        self.moves.iter().map(|of| of.downtime).fold(0.0, f64::max)
    }

    /// The most that run at the same time, of the moves that count.
    pub fn most_at_once(&self, counts: impl Fn(usize) -> bool) -> usize {
        let counted = || self.moves.iter().enumerate().filter(|(place, _)| counts(*place)).map(|(_, of)| of);
        let beside = |at: f64| counted().filter(|of| of.began <= at && at < of.ended).count();
        // There are most when one has just begun.
        counted().map(|of| beside(of.began)).max().unwrap_or_default()
    }

    /// Bytes of all moves.
    pub fn sent(&self) -> f64 {
        self.moves.iter().map(|of| of.sent).sum()
    }
}

/// A quantity of many runs.
pub fn distribution(runs: &[Run], of: impl Fn(&Run) -> f64) -> Distribution {
    Distribution::of(runs.iter().map(of).collect())
}
