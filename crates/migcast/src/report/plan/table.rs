//! A plan for a person: the one number first, then who moves when, then what others do.

use std::io::{self, Write};

use migcast_model::quantity::{show_bytes, show_duration, show_rate};
use migcast_model::units::ByteCount;
use migcast_model::world::Limits;
use migcast_plan::schedule::fleet::{Moved, Run};

use super::super::sla::percent;
use super::super::span;
use super::{Plan, PlanAnswer};

/// Moves that are listed one by one.
const LISTED_MAX: usize = 40;

/// Writes the answer for a person.
pub(crate) fn write_plan(out: &mut impl Write, of: &PlanAnswer<'_>) -> io::Result<()> {
    let plan = of.plan();
    let (count, hosts) = (of.guests.len(), of.inventory.hosts.len());
    let what = match of.emptied {
        [] => format!("{count} guests moved among {hosts} hosts"),
        [host] => format!("host {host} emptied of {count} guests"),
        hosts => format!("hosts {} emptied of {count} guests", hosts.join(", ")),
    };
    writeln!(out, "{what}: {}\n", verdict(of))?;
    if count <= LISTED_MAX {
        moves(out, of, plan)?;
    } else {
        writeln!(out, "(--json lists the {count} moves)\n")?;
    }
    others(out, of)?;
    let least = span(of.bound.seconds);
    writeln!(out, "in the mean no schedule takes less than {least}: {}{}\n", of.bounded_by(), gap(of))?;
    assumed(out, of)?;
    of.warnings.iter().try_for_each(|warning| writeln!(out, "note: {warning}"))
}

fn or_never(value: Option<f64>) -> String {
    value.map_or_else(|| "never".to_owned(), |seconds| if seconds == 0.0 { "0 s".to_owned() } else { span(seconds) })
}

fn verdict(of: &PlanAnswer<'_>) -> String {
    let plan = of.plan();
    let makespan = plan.over(Run::makespan);
    let time = format!(
        "{} in the median, {} to {} in nine cases of ten",
        or_never(makespan.p50),
        or_never(makespan.p5),
        or_never(makespan.p95)
    );
    let stuck: usize = plan.runs.iter().map(Run::unmoved).sum();
    let stuck = if stuck == 0 {
        String::new()
    } else {
        let each = stuck as f64 / plan.runs.len() as f64;
        format!(
            "; {each:.1} guests are not moved in the mean: they do not converge in time, or wait for one that does not"
        )
    };
    let window = of.within.map_or_else(String::new, |within| {
        let chance = percent(plan.chance(within));
        let short = if of.bound.seconds > within.as_secs_f64() {
            format!(", which is too short for any schedule in the mean: {}", of.bounded_by())
        } else {
            String::new()
        };
        format!("; within {} in {chance} of all cases{short}", show_duration(within))
    });
    format!("{time}{window}{stuck}")
}

/// How far the plan may be from the best.
fn gap(of: &PlanAnswer<'_>) -> String {
    let makespan = of.plan().over(Run::makespan).mean;
    let makespan = makespan.filter(|makespan| *makespan > of.bound.seconds);
    makespan.map_or_else(String::new, |makespan| {
        format!("; this one is {} longer", percent(makespan / of.bound.seconds - 1.0))
    })
}

/// Who is moved where and when, as moves begin.
fn moves(out: &mut impl Write, of: &PlanAnswer<'_>, plan: &Plan) -> io::Result<()> {
    writeln!(
        out,
        "{:18}{:18}{:>14}{:>13}{:>13}{:>26}{:>12}{:>14}{:>12}",
        "move", "from, to", "kept for it", "begins", "ends", "5 to 95 %", "downtime", "95 % of them", "sent"
    )?;
    for place in plan.by_begin() {
        let way = format!("{} → {}", of.from(place), of.to(plan, place));
        let kept = of.reserved(plan, place);
        let kept = if kept.get() == 0 { "-".to_owned() } else { show_rate(kept) };
        let ends = plan.of_move(place, Moved::arrived);
        let downtime = plan.of_move(place, |of| of.downtime);
        let sent = plan
            .of_move(place, |of| of.sent)
            .p50
            .map_or_else(String::new, |sent| show_bytes(ByteCount::new(sent as u64)));
        let band = format!("{} to {}", or_never(ends.p5), or_never(ends.p95));
        let long = of.stands_too_long(plan, place);
        let max = of.guest(place).moving.downtime_max.filter(|_| of.is_broken(plan, place));
        let broken =
            max.map_or_else(String::new, |max| format!("  over its {} in {}", show_duration(max), percent(long)));
        writeln!(
            out,
            "{:18}{way:18}{kept:>14}{:>13}{:>13}{band:>26}{:>12}{:>14}{sent:>12}{broken}",
            of.guest(place).name,
            or_never(plan.of_move(place, |of| of.began).p50),
            or_never(ends.p50),
            or_never(downtime.p50),
            or_never(downtime.p95),
        )?;
    }
    writeln!(out)
}

/// The plan beside what platforms do.
fn others(out: &mut impl Write, of: &PlanAnswer<'_>) -> io::Result<()> {
    let window = of.within.map(|within| format!("in {}", show_duration(within))).unwrap_or_default();
    writeln!(
        out,
        "{:20}{:>12}{:>26}{:>9}{:>16}{:>12}{:>12}{window:>12}",
        "", "all moved", "5 to 95 %", "at once", "downtimes, sum", "worst", "sent"
    )?;
    for plan in of.plans {
        let makespan = plan.over(Run::makespan);
        let sent = plan.over(Run::sent).p50.map_or_else(String::new, |sent| show_bytes(ByteCount::new(sent as u64)));
        let band = format!("{} to {}", or_never(makespan.p5), or_never(makespan.p95));
        let chance = of.within.map(|within| percent(plan.chance(within))).unwrap_or_default();
        let line = format!(
            "{:20}{:>12}{band:>26}{:>9}{:>16}{:>12}{sent:>12}{chance:>12}",
            plan.name,
            or_never(makespan.p50),
            plan.over(|run| run.most_at_once(|_| true) as f64).p50.unwrap_or_default(),
            or_never(plan.over(Run::downtime_sum).p50),
            or_never(plan.over(Run::downtime_worst).p50),
        );
        let (carried_out, all) = (plan.runs.len(), of.plan().runs.len());
        let about = if carried_out < all {
            format!("  in {carried_out} cases")
        } else if plan.name == super::PLANNED && !plan.about.is_empty() {
            format!("  {}", plan.about)
        } else {
            String::new()
        };
        writeln!(out, "{}{about}", line.trim_end())?;
    }
    writeln!(out)
}

/// How many may run at once, as the end of a sentence.
fn at_once(limits: Limits) -> String {
    let Limits { out_of_host, into_host, in_all } = limits;
    let limits = [(out_of_host, "out of a host"), (into_host, "into a host"), (in_all, "in all")];
    let said = limits.iter().filter(|(limit, _)| *limit < usize::MAX);
    let said: Vec<String> = said.map(|(limit, what)| format!("{limit} {what}")).collect();
    if said.is_empty() { String::new() } else { format!("; at most {} at once", said.join(", ")) }
}

fn assumed(out: &mut impl Write, of: &PlanAnswer<'_>) -> io::Result<()> {
    let plan = of.plan();
    writeln!(out, "assumed")?;
    writeln!(
        out,
        "  cases      {}, each guest somewhere in its past and independent of the others; hosts and links scatter together by {}",
        plan.runs.len(),
        percent(of.time_scatter)
    )?;
    writeln!(out, "  links      shared fairly by the migrations that run; what others send as the file says")?;
    let keeps = plan.schedule.share.iter().any(|share| *share > 0.0);
    let kept = if keeps { ": what is kept for those that run, and for it, fits into every link it takes" } else { "" };
    writeln!(out, "  order      a move begins as soon as it may{kept}{}", at_once(plan.schedule.limits))?;
    let mut algorithms = of.algorithms.clone();
    algorithms.sort_unstable();
    algorithms.dedup();
    writeln!(out, "  algorithm  {}", algorithms.join(", "))?;
    writeln!(out, "  platform   {}", of.platform)?;
    if let Some((objective, searched)) = of.searched {
        let ended = if searched.ran_out { "; the time limit ended the search" } else { "" };
        writeln!(
            out,
            "  search     {} schedules for the least {objective}, seed {}{ended}",
            searched.judged, searched.seed
        )?;
    }
    Ok(())
}
