//! `migcast.plan/1` and `migcast.drain-time/1`.

use std::io::{self, Write};

use migcast_plan::schedule::fleet::{Moved, Run};
use serde::Serialize;

use super::super::json::{Distribution, edge};
use super::{Plan, PlanAnswer};

#[derive(Serialize)]
struct Document<'a> {
    format: &'static str,
    /// What was to be least; not there where nothing was looked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    objective: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    searched: Option<SearchedRow>,
    draws: usize,
    quantile: f64,
    within_seconds: Option<f64>,
    /// Whether what was stated is kept.
    kept: bool,
    evacuated: &'a [String],
    link_bits_per_second: u64,
    platform: &'a str,
    bound: BoundRow,
    pipes: Vec<PipeRow<'a>>,
    policies: Vec<PlanRow<'a>>,
    warnings: &'a [String],
}

#[derive(Serialize)]
struct SearchedRow {
    schedules: usize,
    seed: u64,
    ran_out_of_time: bool,
}

#[derive(Serialize)]
struct BoundRow {
    makespan_seconds: f64,
    because: String,
}

#[derive(Serialize)]
struct PipeRow<'a> {
    name: &'a str,
    bits_per_second: u64,
}

#[derive(Serialize)]
struct LimitsRow {
    out_of_host: Option<usize>,
    into_host: Option<usize>,
    in_all: Option<usize>,
}

#[derive(Serialize)]
struct PlanRow<'a> {
    name: &'static str,
    about: &'a str,
    /// In how many of the draws it was carried out.
    draws: usize,
    limits: LimitsRow,
    makespan_seconds: Distribution,
    downtime_sum_seconds: Distribution,
    worst_downtime_seconds: Distribution,
    sent_bytes: Distribution,
    /// The most that run at the same time.
    at_once: Distribution,
    /// Share of the draws in which all are moved within the time.
    chance_within: Option<f64>,
    /// Moves of all draws in which a guest is not moved, or stands for longer than it may.
    broken: usize,
    moves: Vec<MoveRow<'a>>,
}

#[derive(Serialize)]
struct MoveRow<'a> {
    guest: &'a str,
    from: &'a str,
    to: &'a str,
    algorithm: &'static str,
    path: Vec<&'a str>,
    reserve_bits_per_second: u64,
    after: Vec<&'a str>,
    not_with: Vec<&'a str>,
    not_before_seconds: f64,
    begins_seconds: Distribution,
    ends_seconds: Distribution,
    migration_time_seconds: Distribution,
    downtime_seconds: Distribution,
    sent_bytes: Distribution,
}

/// Writes the answer for a script.
pub(crate) fn write_plan_json(out: &mut impl Write, of: &PlanAnswer<'_>) -> io::Result<()> {
    let pipes = of.pipes.iter().filter(|pipe| !pipe.name.is_empty());
    let document = Document {
        format: if of.searched.is_some() { "migcast.plan/1" } else { "migcast.drain-time/1" },
        objective: of.searched.map(|(objective, _)| objective),
        searched: of.searched.map(|(_, searched)| SearchedRow {
            schedules: searched.judged,
            seed: searched.seed,
            ran_out_of_time: searched.ran_out,
        }),
        draws: of.plan().runs.len(),
        quantile: of.quantile,
        within_seconds: of.within.map(|within| within.as_secs_f64()),
        kept: of.is_kept(),
        evacuated: of.emptied,
        link_bits_per_second: of.inventory.link.bits(),
        platform: of.platform,
        bound: BoundRow { makespan_seconds: of.bound.seconds, because: of.bounded_by() },
        pipes: pipes.map(|pipe| PipeRow { name: &pipe.name, bits_per_second: pipe.rate.bits() }).collect(),
        policies: of.plans.iter().map(|plan| row(of, plan)).collect(),
        warnings: &of.warnings,
    };
    serde_json::to_writer_pretty(&mut *out, &document)?;
    writeln!(out)
}

fn row<'a>(of: &PlanAnswer<'a>, plan: &'a Plan) -> PlanRow<'a> {
    let limit = |limit: usize| (limit < usize::MAX).then_some(limit);
    let limits = plan.schedule.limits;
    PlanRow {
        name: plan.name,
        about: &plan.about,
        draws: plan.runs.len(),
        limits: LimitsRow {
            out_of_host: limit(limits.out_of_host),
            into_host: limit(limits.into_host),
            in_all: limit(limits.in_all),
        },
        makespan_seconds: edge(plan.over(Run::makespan)),
        downtime_sum_seconds: edge(plan.over(Run::downtime_sum)),
        worst_downtime_seconds: edge(plan.over(Run::downtime_worst)),
        sent_bytes: edge(plan.over(Run::sent)),
        at_once: edge(plan.over(|run| run.most_at_once(|_| true) as f64)),
        chance_within: of.within.map(|within| plan.chance(within)),
        broken: plan.broken,
        moves: plan.schedule.order.iter().map(|place| moved(of, plan, *place)).collect(),
    }
}

fn moved<'a>(of: &PlanAnswer<'a>, plan: &Plan, place: usize) -> MoveRow<'a> {
    let named = |members: &[usize]| members.iter().map(|place| of.guest(*place).name.as_str()).collect();
    let wanted = &of.problem.moves[place];
    MoveRow {
        guest: &of.guest(place).name,
        from: of.from(place),
        to: of.to(plan, place),
        algorithm: of.algorithms[place],
        path: of.path(plan, place).map(|pipe| pipe.name.as_str()).collect(),
        reserve_bits_per_second: of.reserved(plan, place).bits(),
        after: named(&wanted.after),
        not_with: named(&wanted.not_with),
        not_before_seconds: wanted.not_before,
        begins_seconds: edge(plan.of_move(place, |of| of.began)),
        ends_seconds: edge(plan.of_move(place, Moved::arrived)),
        migration_time_seconds: edge(plan.of_move(place, |of| of.arrived() - of.began)),
        downtime_seconds: edge(plan.of_move(place, |of| of.downtime)),
        sent_bytes: edge(plan.of_move(place, |of| of.sent)),
    }
}
