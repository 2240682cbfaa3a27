//! `migcast when`: which times are better for a migration, and whether the past can tell.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, ensure};
use jiff::tz::TimeZone;
use migcast_plan::when::{Seen, when};

use super::predict::parse_time_zone;
use super::subject::Subject;
use crate::report::{self, Clock, PlotFormat, Quantity, WhenAnswer};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    migcast when DIR --link 10Gbit/s --time-zone Europe/Berlin\n  \
    migcast when DIR --link 10Gbit/s --window 22:00-06:00 --of time --plot when.svg")]
pub(crate) struct Args {
    #[command(flatten)]
    subject: Subject,
    /// What is to be small
    #[arg(long = "of", value_enum, default_value_t = Of::Downtime)]
    of: Of,
    /// Hours of the day, or of the week
    #[arg(long, value_enum, default_value_t = Clock::Day)]
    clock: Clock,
    /// Time zone, e.g. Europe/Berlin [default: UTC]
    #[arg(long, value_name = "NAME", value_parser = parse_time_zone)]
    time_zone: Option<TimeZone>,
    /// Only these hours are open to maintenance, e.g. 22:00-06:00
    #[arg(long, value_name = "FROM-TO", value_parser = parse_window)]
    window: Option<Window>,
    /// The hour the best one is compared with, e.g. 14:00 [default: that of the history's end]
    #[arg(long, value_name = "HOUR", value_parser = parse_hour)]
    instead_of: Option<usize>,
    /// Print JSON (migcast.when/1) instead of text
    #[arg(long)]
    json: bool,
    /// Draw the hours into a file
    #[arg(long, value_name = "FILE.svg|.png")]
    plot: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Of {
    /// The guest's downtime
    Downtime,
    /// The migration time
    Time,
}

/// Hours of the day from one to another, the last excluded; past midnight where it is the smaller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Window {
    from: usize,
    to: usize,
}

impl Window {
    fn holds(self, hour: usize) -> bool {
        if self.from < self.to { (self.from..self.to).contains(&hour) } else { hour >= self.from || hour < self.to }
    }
}

fn parse_hour(text: &str) -> Result<usize, String> {
    let wrong = || format!("`{text}` is not an hour: write 00:00 to 23:00");
    let (hour, minute) = text.split_once(':').ok_or_else(wrong)?;
    let hour = hour.parse().ok().filter(|hour| *hour < 24).ok_or_else(wrong)?;
    if minute == "00" { Ok(hour) } else { Err(format!("`{text}` is not a whole hour: write {hour:02}:00")) }
}

fn parse_window(text: &str) -> Result<Window, String> {
    let (from, to) = text.split_once('-').ok_or_else(|| format!("`{text}` is not a window: write 22:00-06:00"))?;
    let end = if to == "24:00" { 0 } else { parse_hour(to)? };
    let window = Window { from: parse_hour(from)?, to: end };
    if window.from == window.to { Err(format!("`{text}` is a window without an hour in it")) } else { Ok(window) }
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if let Some(path) = &args.plot {
        PlotFormat::of(path)?;
    }
    ensure!(args.subject.history.is_some(), "a constant rate is the same at any hour: give a history");
    ensure!(
        args.subject.options.start.is_everywhere() && args.subject.options.as_of.is_none(),
        "--start and --as-of have no meaning here: every starting point of the history is looked at"
    );
    let prediction = args.subject.forecast(Duration::ZERO)?;
    let zone = args.time_zone.clone().unwrap_or(TimeZone::UTC);
    let quantity = match args.of {
        Of::Downtime => Quantity::Downtime,
        Of::Time => Quantity::MigrationTime,
    };
    let local = |at: jiff::Timestamp| args.clock.place(&at.to_zoned(zone.clone()));
    let seen: Vec<Seen> = prediction
        .on_the_wall()
        .map(|(at, outcome, _)| {
            let (block, slot) = local(at);
            Seen { block, slot, value: outcome.completed().map_or(f64::INFINITY, |done| quantity.seconds(done)) }
        })
        .collect();
    ensure!(!seen.is_empty(), "only starts in a recorded history have a time of day");
    // Compared with: the stated hour of the day or, on a clock of the week, that hour of the history's last day.
    let (_, now) = prediction.on_the_wall().last().map_or((0, 0), |(at, ..)| local(at));
    let instead = args.instead_of.map_or(now, |hour| now / 24 * 24 + hour);
    let allowed = |slot: usize| args.window.is_none_or(|window| window.holds(slot % 24));
    let answer = when(&seen, allowed, Some(instead));
    let window = args.window.map(|Window { from, to }| format!("{from:02}:00-{to:02}:00"));
    let answer = WhenAnswer { prediction: &prediction, quantity, clock: args.clock, zone, window, instead, answer };
    let out = &mut io::stdout().lock();
    if args.json { report::write_when_json(out, &answer) } else { report::write_when(out, &answer) }
        .context("standard output")?;
    if let Some(path) = &args.plot {
        report::draw_when(&answer, path)?;
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_may_pass_midnight() {
        let night = parse_window("22:00-06:00").unwrap();
        let held: Vec<usize> = (0..24).filter(|hour| night.holds(*hour)).collect();
        assert_eq!(held, [0, 1, 2, 3, 4, 5, 22, 23]);
        assert!(parse_window("09:00-17:00").unwrap().holds(16) && !parse_window("09:00-17:00").unwrap().holds(17));
        assert!(parse_window("18:00-24:00").unwrap().holds(23) && !parse_window("18:00-24:00").unwrap().holds(0));
    }

    #[test]
    fn what_is_no_window_is_named() {
        for (text, expected) in [
            ("22:00", "is not a window"),
            ("22:00-22:00", "without an hour in it"),
            ("25:00-03:00", "is not an hour"),
            ("22:30-23:00", "is not a whole hour: write 22:00"),
        ] {
            assert!(parse_window(text).unwrap_err().contains(expected), "{text}");
        }
    }
}
