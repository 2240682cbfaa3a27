//! What a service level agreement allows, as a few lines of text, and as `migcast.sla/1`.

use std::io::{self, Write};

use migcast_model::quantity::{show_count, show_rate};
use migcast_plan::sla::{Agreement, Answer, Binding, Budget, Count, Events, Remaining};
use serde::Serialize;

use super::{Prediction, Quantity, span};

const DAY: f64 = 86_400.0;

/// An answer, and what it rests on.
#[derive(Debug)]
pub(crate) struct SlaAnswer<'a> {
    pub(crate) prediction: &'a Prediction,
    pub(crate) agreed: Agreement,
    pub(crate) answer: Answer,
    /// With so many migrations in a period.
    pub(crate) remaining: Option<(u64, Remaining)>,
}

/// Writes the answer for a person.
pub(crate) fn write_sla(out: &mut impl Write, of: &SlaAnswer<'_>) -> io::Result<()> {
    let SlaAnswer { prediction, agreed, answer, remaining } = of;
    let scenario = &prediction.scenario;
    let (converged, starts) = prediction.converged();
    writeln!(out, "{} over {}: {}", scenario.guest.name, show_rate(scenario.link.line_rate), verdict(of))?;
    writeln!(out)?;
    let period = show_period(agreed.period);
    let down = prediction.distribution(Quantity::Downtime);
    let time = prediction.distribution(Quantity::MigrationTime);
    let cell = |value: Option<f64>| value.map_or_else(|| "never".to_owned(), span);
    writeln!(
        out,
        "one migration    down {} (5 % {}, 95 % {}), under way {}",
        cell(down.p50),
        cell(down.p5),
        cell(down.p95),
        cell(time.p50)
    )?;
    if let Some(Budget { all, left, cost, count }) = answer.budget {
        let percent = percent(agreed.availability.unwrap_or_default());
        let spent = if agreed.spent > 0.0 { format!(", {} are left", span(left)) } else { String::new() };
        writeln!(out, "availability     {percent} of {period} allows {} of downtime{spent}", span(all))?;
        writeln!(
            out,
            "                 one migration takes {} of what is left, on average",
            self::percent(cost / left)
        )?;
        writeln!(
            out,
            "                 {} fit with {} certainty",
            shown(count, agreed.period),
            self::percent(agreed.confidence)
        )?;
    }
    if let Some(Events { limit, exceeding, count }) = answer.events {
        let share = if exceeding == 0.0 {
            format!("none of the {} starting points exceeds it", show_count(starts as u64))
        } else {
            format!("{} of migrations exceed it", self::percent(exceeding))
        };
        writeln!(out, "one event        at most {}: {share}", span(limit))?;
        if exceeding > 0.0 {
            writeln!(
                out,
                "                 {} without one that does, with {} certainty",
                shown(count, agreed.period),
                self::percent(agreed.confidence)
            )?;
        }
    }
    if let Some((count, Remaining { mean, at_confidence })) = remaining {
        writeln!(
            out,
            "{:17}{} on average, {} or more with {} certainty",
            format!("{count} migrations"),
            percent(*mean),
            percent(*at_confidence),
            percent(agreed.confidence)
        )?;
    }
    writeln!(out, "\nassumed")?;
    writeln!(
        out,
        "  migrations start at random times like those of the past: {starts} starting points, each as likely"
    )?;
    if converged < starts {
        writeln!(
            out,
            "  from {} of them it does not end: such an attempt is given up after {} and costs no downtime",
            starts - converged,
            span(scenario.horizon.as_secs_f64())
        )?;
    }
    let brownout = match agreed.brownout_weight {
        0.0 => "counts nothing (--brownout-weight)".to_owned(),
        weight => format!("counts {} of downtime", percent(weight)),
    };
    writeln!(out, "  time under migration in which the guest runs {brownout}")?;
    let shared = prediction.shared_downtime_error();
    if shared > 0.0 {
        writeln!(out, "  all their downtimes may be off alike, by a standard error of {}", span(shared))?;
    }
    writeln!(out, "  {}, {}", scenario.algorithm.name(), scenario.platform.name)?;
    prediction.warnings.iter().try_for_each(|warning| writeln!(out, "note: {warning}"))
}

fn verdict(of: &SlaAnswer<'_>) -> String {
    let period = show_period(of.agreed.period);
    match (of.answer.count(), of.answer.binding) {
        (Count::Most(0), Binding::Event) => "no migration keeps the limit of one event".to_owned(),
        (Count::Most(0), _) => format!("not even one migration fits into {period}"),
        (Count::Most(count), binding) => {
            let by = match binding {
                Binding::Event => "the limit of one event binds",
                _ => "the availability binds",
            };
            format!("{} migrations in {period}; {by}", show_count(count))
        }
        (Count::Unlimited, _) => "more migrations than anyone wants: neither limit binds".to_owned(),
    }
}

/// So many in a period, and as a rate.
fn shown(count: Count, period: f64) -> String {
    match count {
        Count::Unlimited => "more than a million migrations".to_owned(),
        Count::Most(0) => "no migrations".to_owned(),
        Count::Most(count) => {
            let a_day = count as f64 * DAY / period;
            let rate = if a_day >= 1.0 {
                format!("{} a day", show_count(a_day as u64))
            } else {
                format!("one every {}", every(period / count as f64))
            };
            let noun = if count == 1 { "migration" } else { "migrations" };
            let week = if a_day >= 1.0 && period > 7.0 * DAY {
                format!(", {} a week", show_count((7.0 * a_day) as u64))
            } else {
                String::new()
            };
            format!("{} {noun} ({rate}{week})", show_count(count))
        }
    }
}

/// The time between two: from two days on in days, with a digit after the point where there is one.
fn every(seconds: f64) -> String {
    let days = (10.0 * seconds / DAY).round() / 10.0;
    if days >= 2.0 { format!("{days} days") } else { span(seconds) }
}

fn show_period(seconds: f64) -> String {
    let days = seconds / DAY;
    match days {
        1.0 => "a day".to_owned(),
        7.0 => "a week".to_owned(),
        30.0 => "a month (30 days)".to_owned(),
        91.0 => "a quarter (91 days)".to_owned(),
        365.0 => "a year".to_owned(),
        _ => span(seconds),
    }
}

/// With as many digits as tell it from 0 and from 100 %.
pub(super) fn percent(share: f64) -> String {
    let percent = 100.0 * share;
    let distance = percent.min(100.0 - percent).max(1e-9);
    let digits = (1.0 - distance.log10()).ceil().clamp(0.0, 9.0) as usize;
    let text = format!("{percent:.digits$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text} %")
}

#[derive(Serialize)]
struct Document<'a> {
    format: &'static str,
    guest: &'a str,
    algorithm: &'static str,
    link_bits_per_second: u64,
    starts: usize,
    converged: usize,
    period_seconds: f64,
    confidence: f64,
    brownout_weight: f64,
    spent_seconds: f64,
    /// `null` if there is no bound below a million.
    migrations: Option<u64>,
    binding: &'static str,
    budget: Option<BudgetRow>,
    event: Option<EventRow>,
    with_migrations: Option<RemainingRow>,
    /// Standard error that the downtimes of all migrations share.
    shared_downtime_error_seconds: f64,
    warnings: &'a [String],
}

#[derive(Serialize)]
struct BudgetRow {
    availability: f64,
    budget_seconds: f64,
    left_seconds: f64,
    mean_cost_seconds: f64,
    migrations: Option<u64>,
}

#[derive(Serialize)]
struct EventRow {
    limit_seconds: f64,
    exceeding_share: f64,
    migrations: Option<u64>,
}

#[derive(Serialize)]
struct RemainingRow {
    migrations: u64,
    availability_mean: f64,
    availability_at_confidence: f64,
}

/// Writes the answer for a script.
pub(crate) fn write_sla_json(out: &mut impl Write, of: &SlaAnswer<'_>) -> io::Result<()> {
    let SlaAnswer { prediction, agreed, answer, remaining } = of;
    let number = |count: Count| match count {
        Count::Most(count) => Some(count),
        Count::Unlimited => None,
    };
    let (converged, starts) = prediction.converged();
    let document = Document {
        format: "migcast.sla/1",
        guest: &prediction.scenario.guest.name,
        algorithm: prediction.scenario.algorithm.name(),
        link_bits_per_second: prediction.scenario.link.line_rate.bits(),
        starts,
        converged,
        period_seconds: agreed.period,
        confidence: agreed.confidence,
        brownout_weight: agreed.brownout_weight,
        shared_downtime_error_seconds: of.prediction.shared_downtime_error(),
        spent_seconds: agreed.spent,
        migrations: number(answer.count()),
        binding: match answer.binding {
            Binding::Budget => "availability",
            Binding::Event => "event-limit",
            Binding::None => "none",
        },
        budget: answer.budget.map(|budget| BudgetRow {
            availability: agreed.availability.unwrap_or_default(),
            budget_seconds: budget.all,
            left_seconds: budget.left,
            mean_cost_seconds: budget.cost,
            migrations: number(budget.count),
        }),
        event: answer.events.map(|events| EventRow {
            limit_seconds: events.limit,
            exceeding_share: events.exceeding,
            migrations: number(events.count),
        }),
        with_migrations: remaining.map(|(migrations, remaining)| RemainingRow {
            migrations,
            availability_mean: remaining.mean,
            availability_at_confidence: remaining.at_confidence,
        }),
        warnings: &prediction.warnings,
    };
    serde_json::to_writer_pretty(&mut *out, &document)?;
    writeln!(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_keep_the_digits_that_tell_them_from_all_and_nothing() {
        let shown = [0.9995, 0.95, 0.999_999_6, 0.000_24, 0.5, 1.0].map(percent);
        assert_eq!(shown, ["99.95 %", "95 %", "99.99996 %", "0.024 %", "50 %", "100 %"]);
    }

    #[test]
    fn counts_are_told_as_rates_too() {
        assert_eq!(shown(Count::Most(2_592), 30.0 * DAY), "2,592 migrations (86 a day, 604 a week)");
        assert_eq!(shown(Count::Most(3), 30.0 * DAY), "3 migrations (one every 10 days)");
        assert_eq!(shown(Count::Most(1), DAY), "1 migration (1 a day)");
    }
}
