//! How a set of guests is moved: as text, as `migcast.plan/1`, as a picture, as a script that does it.

mod export;
mod gantt;
mod json;
mod table;

use std::time::Duration;

use migcast_model::forecast::Distribution;
use migcast_model::units::BytesPerSec;
use migcast_plan::schedule::bound::{Bound, By};
use migcast_plan::schedule::fleet::{Moved, Run, distribution};
use migcast_plan::schedule::{Problem, Schedule};

pub(crate) use export::{Export, exported};
pub(crate) use gantt::draw_plan;
pub(crate) use json::write_plan_json;
pub(crate) use table::write_plan;

use crate::inventory::{Guest, Inventory};

/// What the plan is called among the others.
pub(crate) const PLANNED: &str = "planned";
/// What stated limits are called.
pub(crate) const OWN_LIMITS: &str = "your-limits";

/// A direction of a link, with its name and what it carries of payload.
#[derive(Clone, Debug)]
pub(crate) struct NamedPipe {
    pub(crate) name: String,
    pub(crate) rate: BytesPerSec,
}

/// A schedule, and how it turned out in a number of draws.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) name: &'static str,
    /// What it does, for people.
    pub(crate) about: String,
    pub(crate) schedule: Schedule,
    pub(crate) runs: Vec<Run>,
    /// Guests of all runs that are not moved, or stand for longer than they may.
    pub(crate) broken: usize,
}

/// How the plan was found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Searched {
    /// Schedules that were judged.
    pub(crate) judged: usize,
    /// Whether the time limit ended it.
    pub(crate) ran_out: bool,
    pub(crate) seed: u64,
}

/// An answer, and what it rests on.
#[derive(Debug)]
pub(crate) struct PlanAnswer<'a> {
    pub(crate) inventory: &'a Inventory,
    /// Who is moved, by their places in the inventory; moves are numbered like these.
    pub(crate) guests: Vec<usize>,
    /// Hosts that were to be emptied.
    pub(crate) emptied: &'a [String],
    /// Of each guest.
    pub(crate) algorithms: Vec<&'static str>,
    /// Settings that were stated for each guest's migration.
    pub(crate) settings: Vec<Vec<(String, String)>>,
    pub(crate) platform: &'a str,
    pub(crate) time_scatter: f64,
    pub(crate) pipes: &'a [NamedPipe],
    pub(crate) problem: &'a Problem,
    pub(crate) bound: Bound,
    /// The one that is proposed, or asked about, first.
    pub(crate) plans: &'a [Plan],
    /// What was to be least, and how it was looked for; `None` where nothing was.
    pub(crate) searched: Option<(&'static str, &'a Searched)>,
    pub(crate) within: Option<Duration>,
    pub(crate) quantile: f64,
    pub(crate) warnings: Vec<String>,
}

impl Plan {
    /// Over the draws.
    fn over(&self, of: impl Fn(&Run) -> f64) -> Distribution {
        distribution(&self.runs, of)
    }

    /// Of one move, over the draws.
    fn of_move(&self, place: usize, of: impl Fn(&Moved) -> f64) -> Distribution {
        self.over(|run| of(&run.moves[place]))
    }

    /// Share of the draws in which all are moved within a time.
    fn chance(&self, within: Duration) -> f64 {
        let kept = self.runs.iter().filter(|run| run.makespan() <= within.as_secs_f64()).count();
        kept as f64 / self.runs.len() as f64
    }
}

impl Plan {
    /// Its moves as they begin in the median; of those that begin together in their order.
    fn by_begin(&self) -> Vec<usize> {
        let begins = |place: &usize| self.of_move(*place, |of| of.began).p50.unwrap_or(f64::INFINITY);
        let mut order = self.schedule.order.clone();
        order.sort_by(|a, b| begins(a).total_cmp(&begins(b)));
        order
    }
}

impl<'a> PlanAnswer<'a> {
    /// The plan itself.
    fn plan(&self) -> &'a Plan {
        &self.plans[0]
    }

    fn guest(&self, place: usize) -> &'a Guest {
        &self.inventory.guests[self.guests[place]]
    }

    /// A setting that was stated for a guest's migration.
    fn setting(&self, place: usize, key: &str) -> Option<&str> {
        self.settings[place].iter().find(|(set, _)| set == key).map(|(_, value)| value.as_str())
    }

    fn from(&self, place: usize) -> &'a str {
        &self.inventory.hosts[self.guest(place).host].name
    }

    fn to(&self, plan: &Plan, place: usize) -> &'a str {
        &self.inventory.hosts[self.problem.moves[place].ways[plan.schedule.way[place]].to].name
    }

    /// The links a move takes.
    fn path(&self, plan: &Plan, place: usize) -> impl Iterator<Item = &'a NamedPipe> {
        let path = &self.problem.moves[place].ways[plan.schedule.way[place]].path;
        path.iter().map(|pipe| &self.pipes[*pipe])
    }

    /// What is kept for a move on each of them.
    fn reserved(&self, plan: &Plan, place: usize) -> BytesPerSec {
        BytesPerSec::new(self.problem.reserved(&plan.schedule, place) as u64)
    }

    /// What makes it take as long as it does at least.
    fn bounded_by(&self) -> String {
        match self.bound.by {
            By::Pipe(pipe) => {
                let name = &self.pipes[pipe].name;
                let (place, way) = name.rsplit_once(' ').unwrap_or((name, ""));
                let way = if way == "in" { "into" } else { "out of" };
                format!("what has to go {way} {place} takes as long on its link")
            }
            By::AllTargets => "all that has to arrive takes as long on all the links there are".to_owned(),
            By::Chain(of) => format!("{} takes as long, with those it waits for", self.guest(of).name),
        }
    }

    /// Whether what was stated is kept: the time, at the quantile, and what guests may stand.
    pub(crate) fn is_kept(&self) -> bool {
        let plan = self.plan();
        let is_in_time = self.within.is_none_or(|within| plan.chance(within) >= self.quantile);
        is_in_time && (0..self.guests.len()).all(|place| !self.is_broken(plan, place))
    }

    /// Whether a guest is not moved, or stands for longer than it may, in more draws than the quantile leaves.
    fn is_broken(&self, plan: &Plan, place: usize) -> bool {
        self.stands_too_long(plan, place) > 1.0 - self.quantile + 1e-12
    }

    /// Share of the draws in which a guest is not moved, or stands for longer than it may.
    fn stands_too_long(&self, plan: &Plan, place: usize) -> f64 {
        let max = self.guest(place).moving.downtime_max.map_or(f64::MAX, |max| max.as_secs_f64());
        let long = plan.runs.iter().filter(|run| run.moves[place].downtime > max).count();
        long as f64 / plan.runs.len() as f64
    }
}
