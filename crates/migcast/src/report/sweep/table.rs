//! A sweep as a table: a line per point, then what did not vary.

use std::io::{self, Write};
use std::time::Duration;

use migcast_model::algorithm::Setting;
use migcast_model::forecast::Distribution;
use migcast_model::quantity::{show_bytes, show_count, show_duration, show_page_rate, show_rate};
use migcast_model::units::ByteCount;

use super::super::Model;
use super::super::table::{in_a_row, shown_settings};
use super::{Point, Sweep, Varied};

const NEVER: &str = "never";

/// Writes the sweep for a person.
pub(crate) fn write_table(out: &mut impl Write, sweep: &Sweep) -> io::Result<()> {
    let guest = &sweep.first.scenario.guest;
    let memory =
        if sweep.varies("memory") { String::new() } else { format!(" ({})", show_bytes(guest.memory_bytes())) };
    let points = sweep.points.len();
    writeln!(out, "Live migration of {}{memory}, {points} point{}\n", guest.name, if points == 1 { "" } else { "s" })?;
    if sweep.is_spread() {
        write_spread(out, sweep)?
    } else {
        write_single(out, sweep)?
    }
    write_assumptions(out, sweep)?;
    for warning in &sweep.warnings {
        writeln!(out, "note: {warning}")?;
    }
    Ok(())
}

/// The varied quantities' columns: name and width.
fn columns(sweep: &Sweep) -> Vec<(&Varied, usize)> {
    let varied = std::iter::once(&sweep.x).chain(&sweep.curves);
    let width = |varied: &Varied| varied.values.iter().map(|value| varied.show(value).chars().count()).max();
    varied.map(|varied| (varied, width(varied).unwrap_or(0).max(varied.key.len()) + 2)).collect()
}

fn write_names(out: &mut impl Write, sweep: &Sweep) -> io::Result<()> {
    columns(sweep).into_iter().try_for_each(|(varied, width)| write!(out, "{:width$}", varied.key))
}

fn write_values(out: &mut impl Write, sweep: &Sweep, point: &Point) -> io::Result<()> {
    let widths: Vec<usize> = columns(sweep).into_iter().map(|(_, width)| width).collect();
    for ((varied, value), width) in sweep.values_at(point).zip(widths) {
        write!(out, "{:width$}", varied.show(value))?;
    }
    Ok(())
}

/// One start, nothing that scatters.
fn write_single(out: &mut impl Write, sweep: &Sweep) -> io::Result<()> {
    write_names(out, sweep)?;
    let iterations = sweep.first.scenario.algorithm.scheme().terms().iterations;
    let iterations = if sweep.varies("algorithm") { "iterations" } else { iterations };
    writeln!(out, "{:>15}{:>12}{:>12}{iterations:>13}  stopped by", "migration time", "downtime", "sent")?;
    for point in &sweep.points {
        write_values(out, sweep, point)?;
        let cell = |value: Option<f64>, show: fn(f64) -> String| value.map_or_else(|| NEVER.to_owned(), show);
        writeln!(
            out,
            "{:>15}{:>12}{:>12}{:>13}  {}",
            cell(point.migration_time.p50, span),
            cell(point.downtime.p50, span),
            cell(point.sent_bytes.p50, bytes),
            cell(point.iterations.p50, count),
            point.stop_reasons.keys().copied().collect::<Vec<_>>().join(", ")
        )?;
    }
    writeln!(out)
}

/// Medians with their bands.
fn write_spread(out: &mut impl Write, sweep: &Sweep) -> io::Result<()> {
    let names: usize = columns(sweep).into_iter().map(|(_, width)| width).sum();
    writeln!(out, "{:names$}{:>30}{:>36}", "", "migration time", "downtime")?;
    write_names(out, sweep)?;
    let band = format!("{:>12}{:>12}{:>12}", "median", "5 %", "95 %");
    writeln!(out, "{band}{band}{:>14}", "converged")?;
    for point in &sweep.points {
        write_values(out, sweep, point)?;
        for Distribution { p50, p5, p95, .. } in [point.migration_time, point.downtime] {
            for value in [p50, p5, p95] {
                write!(out, "{:>12}", value.map_or_else(|| NEVER.to_owned(), span))?;
            }
        }
        writeln!(out, "{:>14}", format!("{} of {}", point.converged, point.starts))?;
    }
    writeln!(out)
}

/// What all points share, as the first has it.
fn write_assumptions(out: &mut impl Write, sweep: &Sweep) -> io::Result<()> {
    let scenario = &sweep.first.scenario;
    writeln!(out, "assumed at every point")?;
    write_model(out, sweep)?;
    let not_varied = |mut settings: Vec<Setting>| {
        settings.retain(|setting| !sweep.varies(setting.key));
        in_a_row(&settings)
    };
    if !sweep.varies("algorithm") {
        writeln!(out, "  algorithm  {} ({})", scenario.algorithm.name(), sweep.first.algorithm_origin)?;
        let settings = not_varied(shown_settings(&scenario.algorithm));
        // A manager has its own say in them.
        if !settings.is_empty() && !sweep.varies("manager") {
            writeln!(out, "  settings   {settings}")?;
        }
    }
    if let Some(manager) = scenario.algorithm.manager().filter(|_| !sweep.varies("manager")) {
        writeln!(out, "  manager    {}: {}", manager.name(), not_varied(manager.settings()))?;
    }
    let (link, platform) = (&scenario.link, &scenario.platform);
    let buffer = show_bytes(link.sender_buffer);
    if sweep.varies("link") {
        let share = link.payload_share * 100.0;
        writeln!(out, "  link       {share:.1} % of it payload, alone on it; sender's buffer {buffer}")?;
    } else {
        let goodput = show_rate(link.goodput());
        writeln!(out, "  link       {goodput} of payload, alone on it; sender's buffer {buffer}")?;
    }
    let (before, resume) = (show_duration(platform.connect + platform.setup), show_duration(platform.resume));
    writeln!(out, "  platform   {}: set-up {before}, resume {resume}", platform.name)
}

fn write_model(out: &mut impl Write, sweep: &Sweep) -> io::Result<()> {
    if sweep.varies("model") {
        return Ok(());
    }
    match &sweep.first.model {
        Model::Hist(used) => writeln!(
            out,
            "  model      hist: {} of {}, {}, over and over",
            show_duration(used.recorded),
            used.path,
            used.how()
        ),
        Model::Rates { used, pattern } => writeln!(
            out,
            "  model      rate series, AVG-like: a constant rate, {pattern}, the one in force at the start, of {}",
            used.history.path
        ),
        Model::Avg { rate, working_set, pattern, from } => {
            let rate = if sweep.varies("dirty-rate") { "rate".to_owned() } else { show_page_rate(*rate) };
            let all = *working_set == sweep.first.scenario.guest.memory;
            let set = match () {
                () if sweep.varies("wws") => "its working set".to_owned(),
                () if all => "all of the memory".to_owned(),
                () => format!("{} pages", show_count(working_set.get())),
            };
            let from = from.as_ref().map_or_else(String::new, |(used, _)| format!(", taken from {}", used.path));
            writeln!(out, "  model      avg: a constant {rate}, {pattern} over {set}{from}")
        }
    }
}

fn span(seconds: f64) -> String {
    show_duration(Duration::from_secs_f64(seconds))
}

fn bytes(bytes: f64) -> String {
    show_bytes(ByteCount::new(bytes as u64))
}

fn count(count: f64) -> String {
    show_count(count as u64)
}
