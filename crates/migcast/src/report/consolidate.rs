//! Which hosts to empty, as text and as `migcast.consolidate/1`.

use std::io::{self, Write};

use migcast_model::forecast::Distribution;
use migcast_model::quantity::{show_bytes, show_duration, show_rate};
use migcast_model::units::ByteCount;
use migcast_plan::consolidate::Plan;
use serde::Serialize;

use super::sla::percent;
use super::span;
use crate::inventory::{Guest, Host, Inventory};

const JOULES_PER_KWH: f64 = 3.6e6;
/// Over which availabilities of guests count, in seconds.
const MONTH: f64 = 30.0 * 86_400.0;

/// What the migration of a guest would be like.
#[derive(Clone, Debug)]
pub(crate) struct Move {
    pub(crate) time: Distribution,
    pub(crate) downtime: Distribution,
    /// Mean downtime, in seconds.
    pub(crate) downtime_mean: f64,
    pub(crate) sent: Distribution,
    /// Whether most starting points converge.
    pub(crate) converges: bool,
    pub(crate) algorithm: &'static str,
    pub(crate) warnings: Vec<String>,
}

impl Move {
    /// Energy of the migration, in joules: by its traffic.
    pub(crate) fn joules(&self, inventory: &Inventory) -> f64 {
        let megabytes = self.sent.p50.unwrap_or_default() / 1e6;
        inventory.joules_per_migration + inventory.joules_per_megabyte * megabytes
    }

    /// Mean downtime as a share of what the guest's availability allows in a month, if one was agreed.
    fn budget_share(&self, guest: &Guest) -> Option<f64> {
        guest.availability.map(|share| self.downtime_mean / ((1.0 - share) * MONTH))
    }
}

/// An answer, and what it rests on.
#[derive(Debug)]
pub(crate) struct ConsolidateAnswer<'a> {
    pub(crate) inventory: &'a Inventory,
    /// Of each guest; `None` of those that stay.
    pub(crate) moves: &'a [Option<Move>],
    pub(crate) plan: &'a Plan,
}

impl<'a> ConsolidateAnswer<'a> {
    /// The moves of the plan: guest, its forecast, and where it goes, host by host.
    fn planned(&self) -> Vec<(&'a Guest, &'a Move, &'a Host)> {
        let guests = self.inventory.guests.iter().zip(self.moves).zip(&self.plan.placement.host_of);
        let moved = guests.filter(|((guest, _), to)| guest.host != **to);
        let mut moved: Vec<_> =
            moved.filter_map(|((guest, of), to)| Some((guest, of.as_ref()?, &self.inventory.hosts[*to]))).collect();
        moved.sort_by_key(|(guest, ..)| guest.host);
        moved
    }

    fn emptied(&self) -> Vec<&'a Host> {
        let hosts = self.inventory.hosts.iter().zip(&self.plan.placement.is_off);
        hosts.filter(|(_, is_off)| **is_off).map(|(host, _)| host).collect()
    }

    fn emptied_names(&self) -> Vec<&'a str> {
        self.emptied().into_iter().map(|host| host.name.as_str()).collect()
    }

    /// After how long what it costs is saved, in seconds; `None` if nothing is done.
    fn pays_after(&self) -> Option<f64> {
        let emptied = self.emptied();
        let watts: f64 = emptied.iter().map(|host| host.idle_watts - host.off_watts).sum();
        let balance = &self.plan.balance;
        // What guests take more elsewhere comes off what is saved each second.
        let watts = watts - balance.running / self.inventory.horizon.as_secs_f64();
        (!emptied.is_empty() && watts > 0.0).then(|| (balance.switching + balance.moving) / watts)
    }

    /// What to beware of: what concerns all moves once, the rest with the guest's name.
    fn warnings(&self) -> Vec<String> {
        let forecast: Vec<(&Guest, &Move)> = self
            .inventory
            .guests
            .iter()
            .zip(self.moves)
            .filter_map(|(guest, of)| Some((guest, of.as_ref()?)))
            .collect();
        let mut all: Vec<String> = Vec::new();
        for (guest, of) in &forecast {
            for warning in &of.warnings {
                let concerns_all = forecast.iter().all(|(_, of)| of.warnings.contains(warning));
                let text = if concerns_all { warning.clone() } else { format!("{}: {warning}", guest.name) };
                if !all.contains(&text) {
                    all.push(text);
                }
            }
        }
        all
    }
}

fn energy(joules: f64) -> String {
    let (joules, sign) = (joules.abs(), if joules < 0.0 { "−" } else { "" });
    match joules {
        joules if joules >= 0.01 * JOULES_PER_KWH => format!("{sign}{:.2} kWh", joules / JOULES_PER_KWH),
        joules => format!("{sign}{:.2} Wh", joules / 3_600.0),
    }
}

fn or_never(value: Option<f64>, show: impl Fn(f64) -> String) -> String {
    value.map_or_else(|| "never".to_owned(), show)
}

/// Writes the answer for a person.
pub(crate) fn write_consolidate(out: &mut impl Write, of: &ConsolidateAnswer<'_>) -> io::Result<()> {
    let ConsolidateAnswer { inventory, moves, plan } = of;
    let (hosts, guests) = (inventory.hosts.len(), inventory.guests.len());
    let horizon = show_duration(inventory.horizon);
    writeln!(out, "{hosts} hosts with {guests} guests, for {horizon}: {}\n", verdict(of))?;
    let balance = &plan.balance;
    let planned = of.planned();
    if !of.emptied().is_empty() {
        for (what, joules) in [
            ("hosts that are off save", balance.saved),
            ("switching them off and on takes", balance.switching),
            ("migrations take", balance.moving),
            ("moved guests take more where they are", balance.running),
            ("left", balance.net()),
        ] {
            writeln!(out, "{what:40}{:>12}", energy(joules))?;
        }
    }
    let gap = if plan.is_best || plan.gap() == 0.0 {
        "no other placement gains more".to_owned()
    } else {
        format!("no other placement gains more than {}: at most {} is missed", energy(plan.bound), percent(plan.gap()))
    };
    writeln!(out, "{gap}\n")?;
    if !planned.is_empty() {
        writeln!(
            out,
            "{:16}{:20}{:>10}{:>12}{:>14}{:>12}{:>18}",
            "move", "from, to", "time", "downtime", "95 % of them", "sent", "of month's budget"
        )?;
    }
    for (guest, of, to) in &planned {
        let way = format!("{} → {}", inventory.hosts[guest.host].name, to.name);
        let sent = or_never(of.sent.p50, |sent| show_bytes(ByteCount::new(sent as u64)));
        let budget = of.budget_share(guest).map_or_else(|| "-".to_owned(), percent);
        writeln!(
            out,
            "{:16}{way:20}{:>10}{:>12}{:>14}{sent:>12}{budget:>18}",
            guest.name,
            or_never(of.time.p50, span),
            or_never(of.downtime.p50, span),
            or_never(of.downtime.p95, span)
        )?;
    }
    if !planned.is_empty() {
        let sum = |value: &dyn Fn(&Move) -> Option<f64>| planned.iter().filter_map(|(_, of, _)| value(of)).sum::<f64>();
        let (time, sent) = (sum(&|of| of.time.p50), sum(&|of| of.sent.p50));
        writeln!(out, "one after another {}, {} over the link\n", span(time), show_bytes(ByteCount::new(sent as u64)))?;
    }
    writeln!(out, "assumed")?;
    let link = show_rate(inventory.link);
    writeln!(out, "  moves      one at a time, alone on a link of {link}; nothing moves back")?;
    writeln!(
        out,
        "  energy     {} J a migration and {} J for each MB sent; idle power, and the rest by the CPU in use",
        inventory.joules_per_migration, inventory.joules_per_megabyte
    )?;
    writeln!(
        out,
        "  room       guests keep their memory and take the CPU that the file says; {} stay free",
        percent(inventory.keep_free)
    )?;
    if let Some(of) = moves.iter().flatten().next() {
        writeln!(out, "  algorithm  {}", of.algorithm)?;
    }
    let stuck = inventory.guests.iter().zip(*moves).filter(|(_, of)| of.as_ref().is_some_and(|of| !of.converges));
    for (guest, _) in stuck {
        writeln!(out, "note: {} is not moved: its migration does not converge from most starting points", guest.name)?;
    }
    of.warnings().iter().try_for_each(|warning| writeln!(out, "note: {warning}"))
}

fn verdict(of: &ConsolidateAnswer<'_>) -> String {
    match of.pays_after() {
        Some(seconds) => {
            let moves = match of.planned().len() {
                0 => "without a move".to_owned(),
                1 => "by one move".to_owned(),
                count => format!("by {count} moves"),
            };
            let saved = energy(of.plan.balance.net());
            format!("switch off {} {moves}; saves {saved}, pays after {}", of.emptied_names().join(", "), span(seconds))
        }
        None => "do not: nothing that can be emptied saves more than it costs".to_owned(),
    }
}

#[derive(Serialize)]
struct Document<'a> {
    format: &'static str,
    /// "switch-off" or "do-not".
    verdict: &'static str,
    horizon_seconds: f64,
    link_bits_per_second: u64,
    switch_off: Vec<&'a str>,
    moves: Vec<MoveRow<'a>>,
    saved_joules: f64,
    switching_joules: f64,
    moving_joules: f64,
    running_joules: f64,
    net_joules: f64,
    pays_after_seconds: Option<f64>,
    /// No placement gains more.
    bound_joules: f64,
    /// How far the plan may be from the best, as a share of the bound.
    gap: f64,
    warnings: Vec<String>,
}

#[derive(Serialize)]
struct MoveRow<'a> {
    guest: &'a str,
    from: &'a str,
    to: &'a str,
    migration_time_seconds: Option<f64>,
    downtime_seconds: Option<f64>,
    downtime_p95_seconds: Option<f64>,
    sent_bytes: Option<f64>,
    joules: f64,
    /// Mean downtime as a share of what the guest's availability allows in a month.
    budget_share: Option<f64>,
}

/// Writes the answer for a script.
pub(crate) fn write_consolidate_json(out: &mut impl Write, of: &ConsolidateAnswer<'_>) -> io::Result<()> {
    let ConsolidateAnswer { inventory, plan, .. } = of;
    let rows = of.planned().into_iter().map(|(guest, of, to)| MoveRow {
        guest: &guest.name,
        from: &inventory.hosts[guest.host].name,
        to: &to.name,
        migration_time_seconds: of.time.p50,
        downtime_seconds: of.downtime.p50,
        downtime_p95_seconds: of.downtime.p95,
        sent_bytes: of.sent.p50,
        joules: of.joules(inventory),
        budget_share: of.budget_share(guest),
    });
    let balance = &plan.balance;
    let document = Document {
        format: "migcast.consolidate/1",
        verdict: if of.pays_after().is_some() { "switch-off" } else { "do-not" },
        horizon_seconds: inventory.horizon.as_secs_f64(),
        link_bits_per_second: inventory.link.bits(),
        switch_off: of.emptied_names(),
        moves: rows.collect(),
        saved_joules: balance.saved,
        switching_joules: balance.switching,
        moving_joules: balance.moving,
        running_joules: balance.running,
        net_joules: balance.net(),
        pays_after_seconds: of.pays_after(),
        bound_joules: plan.bound,
        gap: plan.gap(),
        warnings: of.warnings(),
    };
    serde_json::to_writer_pretty(&mut *out, &document)?;
    writeln!(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn energies_are_told_in_units_of_the_bill() {
        assert_eq!([energy(7.2e6), energy(3_600.0), energy(-9e6)], ["2.00 kWh", "1.00 Wh", "−2.50 kWh"]);
    }
}
