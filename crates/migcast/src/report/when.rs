//! Better and worse times for a migration, as text with a bar for each hour, as a heat map, and as `migcast.when/1`.

use std::io::{self, Write};
use std::path::Path;

use jiff::Zoned;
use jiff::tz::TimeZone;
use migcast_model::quantity::show_rate;
use migcast_plan::when::{Answer, BLOCKS_MIN, Gain, Slot, Verdict};
use plotters::coord::Shift;
use plotters::prelude::*;
use serde::Serialize;

use super::plot::{self, Drawing, FONT, Picture};
use super::{Prediction, Quantity, span};

const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
/// Width of a bar, in characters.
const BAR: f64 = 30.0;
const BEST: RGBColor = RGBColor(200, 222, 242);
const WORST: RGBColor = RGBColor(12, 50, 100);
const UNSEEN: RGBColor = RGBColor(238, 238, 238);

/// What comes again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Clock {
    /// Hours of the day, day after day
    Day,
    /// Hours of the week, week after week
    Week,
}

impl Clock {
    /// Which day or week a time is in, and which hour of it.
    pub(crate) fn place(self, at: &Zoned) -> (i64, usize) {
        let date = at.date();
        let day = date.since(jiff::civil::date(1970, 1, 1)).map_or(0, |span| i64::from(span.get_days()));
        let hour = at.hour() as usize;
        match self {
            Clock::Day => (day, hour),
            Clock::Week => {
                // 1 January 1970 was a Thursday: weeks begin on Mondays.
                let weekday = date.weekday().to_monday_zero_offset() as usize;
                ((day + 3).div_euclid(7), 24 * weekday + hour)
            }
        }
    }

    fn block(self) -> &'static str {
        match self {
            Clock::Day => "days",
            Clock::Week => "weeks",
        }
    }

    fn name(self, slot: usize) -> String {
        match self {
            Clock::Day => format!("{slot:02}:00"),
            Clock::Week => format!("{} {:02}:00", DAYS[slot / 24 % 7], slot % 24),
        }
    }
}

/// An answer, and what it rests on.
#[derive(Debug)]
pub(crate) struct WhenAnswer<'a> {
    pub(crate) prediction: &'a Prediction,
    pub(crate) quantity: Quantity,
    pub(crate) clock: Clock,
    pub(crate) zone: TimeZone,
    /// Hours open to maintenance, if not all are.
    pub(crate) window: Option<String>,
    /// The slot that the best is compared with.
    pub(crate) instead: usize,
    pub(crate) answer: Answer,
}

impl WhenAnswer<'_> {
    /// The best hour, where hours differ: by chance one of them always is.
    fn best(&self) -> Option<usize> {
        self.answer.best.filter(|_| matches!(self.answer.verdict, Verdict::Differ(_)))
    }

    /// The worst one, likewise.
    fn worst(&self) -> Option<usize> {
        self.answer.worst.filter(|_| matches!(self.answer.verdict, Verdict::Differ(_)))
    }

    fn blocks(&self) -> usize {
        self.answer.slots.iter().map(|slot| slot.blocks).max().unwrap_or_default()
    }
}

/// Writes the answer for a person.
pub(crate) fn write_when(out: &mut impl Write, of: &WhenAnswer<'_>) -> io::Result<()> {
    let WhenAnswer { prediction, quantity, clock, zone, answer, .. } = of;
    let scenario = &prediction.scenario;
    let (guest, link) = (&scenario.guest.name, show_rate(scenario.link.line_rate));
    let zone = zone.iana_name().unwrap_or("UTC");
    writeln!(out, "{} of {guest} over {link}, by hour ({zone})\n", capital(quantity.name()))?;
    writeln!(out, "{}\n", verdict(of))?;
    if answer.slots.is_empty() {
        return prediction.warnings.iter().try_for_each(|warning| writeln!(out, "note: {warning}"));
    }
    let largest = answer.slots.iter().map(|slot| slot.medians[1]).filter(|value| value.is_finite()).fold(0.0, f64::max);
    writeln!(out, "{:11}{:>6}{:>8}{:>12}{:>12}{:>12}", "", clock.block(), "starts", "median", "least", "most")?;
    for Slot { slot, blocks, starts, medians: [least, median, most] } in &answer.slots {
        let mark = match *slot {
            slot if Some(slot) == of.best() => " best",
            slot if Some(slot) == of.worst() => " worst",
            _ => "",
        };
        let filled = if median.is_finite() { (BAR * median / largest.max(f64::MIN_POSITIVE)).round() } else { BAR };
        let bar = (if median.is_finite() { "▇" } else { "×" }).repeat(filled as usize);
        let (name, [least, median, most]) = (clock.name(*slot), [*least, *median, *most].map(span));
        writeln!(out, "{name:11}{blocks:>6}{starts:>8}{median:>12}{least:>12}{most:>12}  {bar}{mark}")?;
    }
    writeln!(out, "\nmedians of each hour, and their least and most over {}", clock.block())?;
    prediction.warnings.iter().try_for_each(|warning| writeln!(out, "note: {warning}"))
}

fn verdict(of: &WhenAnswer<'_>) -> String {
    let WhenAnswer { clock, answer, window, instead, .. } = of;
    let within = window.as_ref().map_or(String::new(), |window| format!(" within {window}"));
    let (blocks, name) = (of.blocks(), clock.block());
    match answer.verdict {
        Verdict::TooShort if blocks == 0 => {
            format!("the history is too short to tell one hour from another: {BLOCKS_MIN} {name} at least are needed")
        }
        Verdict::TooShort => format!(
            "{blocks} {name} of history do not tell whether an hour is better than another, or only was on that day: \
             {BLOCKS_MIN} {name} at least are needed"
        ),
        Verdict::Alike(chance) => format!(
            "the hour makes no difference that these {blocks} {name} could show: hours drawn by chance differ as much with \
             probability {chance:.2}"
        ),
        Verdict::Differ(chance) => {
            let best = answer.best.map_or_else(
                || format!("no hour{within} was seen often enough"),
                |best| format!("best at {}{within}", clock.name(best)),
            );
            let worst = answer.worst.map_or(String::new(), |worst| format!(", worst at {}", clock.name(worst)));
            let gain =
                answer.gain.map_or(String::new(), |gain| format!("\n{}", shown(gain, &clock.name(*instead), name)));
            format!("{best}{worst}; hours drawn by chance differ as much with probability {chance:.3}{gain}")
        }
    }
}

fn shown(Gain { seconds: [least, median, most], blocks }: Gain, instead: &str, name: &str) -> String {
    let signed = |seconds: f64| match seconds {
        f64::INFINITY => "never against an end".to_owned(),
        f64::NEG_INFINITY => "an end against never".to_owned(),
        seconds if seconds < 0.0 => format!("−{}", span(-seconds)),
        seconds => span(seconds),
    };
    format!(
        "than {instead} it is shorter by {} ({} to {}), judged on {blocks} {name} that had no part in choosing it",
        signed(median),
        signed(least),
        signed(most)
    )
}

fn capital(text: &str) -> String {
    let (first, rest) = text.split_at(1);
    first.to_uppercase() + rest
}

#[derive(Serialize)]
struct Document<'a> {
    format: &'static str,
    guest: &'a str,
    algorithm: &'static str,
    link_bits_per_second: u64,
    quantity: &'static str,
    clock: &'static str,
    time_zone: &'a str,
    window: Option<&'a str>,
    /// "differ", "alike" or "too-short".
    verdict: &'static str,
    /// Probability that chance does as well.
    chance: Option<f64>,
    best: Option<String>,
    worst: Option<String>,
    instead_of: String,
    gain: Option<GainRow>,
    hours: Vec<HourRow>,
    warnings: &'a [String],
}

#[derive(Serialize)]
struct GainRow {
    least_seconds: Option<f64>,
    median_seconds: Option<f64>,
    most_seconds: Option<f64>,
    judged_on: usize,
}

#[derive(Serialize)]
struct HourRow {
    hour: String,
    seen: usize,
    starts: usize,
    least_seconds: Option<f64>,
    median_seconds: Option<f64>,
    most_seconds: Option<f64>,
}

/// Writes the answer for a script.
pub(crate) fn write_when_json(out: &mut impl Write, of: &WhenAnswer<'_>) -> io::Result<()> {
    let WhenAnswer { prediction, quantity, clock, zone, window, instead, answer } = of;
    let finite =
        |[least, median, most]: [f64; 3]| [least, median, most].map(|value| Some(value).filter(|v| v.is_finite()));
    let gain = answer.gain.filter(|_| of.best().is_some()).map(|Gain { seconds, blocks }| {
        let [least_seconds, median_seconds, most_seconds] = finite(seconds);
        GainRow { least_seconds, median_seconds, most_seconds, judged_on: blocks }
    });
    let hour = |slot: &Slot| {
        let [least_seconds, median_seconds, most_seconds] = finite(slot.medians);
        let (seen, starts) = (slot.blocks, slot.starts);
        HourRow { hour: clock.name(slot.slot), seen, starts, least_seconds, median_seconds, most_seconds }
    };
    let (verdict, chance) = match answer.verdict {
        Verdict::Differ(chance) => ("differ", Some(chance)),
        Verdict::Alike(chance) => ("alike", Some(chance)),
        Verdict::TooShort => ("too-short", None),
    };
    let document = Document {
        format: "migcast.when/1",
        guest: &prediction.scenario.guest.name,
        algorithm: prediction.scenario.algorithm.name(),
        link_bits_per_second: prediction.scenario.link.line_rate.bits(),
        quantity: if *quantity == Quantity::Downtime { "downtime" } else { "migration-time" },
        clock: if *clock == Clock::Day { "day" } else { "week" },
        time_zone: zone.iana_name().unwrap_or("UTC"),
        window: window.as_deref(),
        verdict,
        chance,
        best: of.best().map(|slot| clock.name(slot)),
        worst: of.worst().map(|slot| clock.name(slot)),
        instead_of: clock.name(*instead),
        gain,
        hours: answer.slots.iter().map(hour).collect(),
        warnings: &prediction.warnings,
    };
    serde_json::to_writer_pretty(&mut *out, &document)?;
    writeln!(out)
}

/// Draws the hours as a heat map: a row for each day of a week, or one for all days.
pub(crate) fn draw_when(of: &WhenAnswer<'_>, path: &Path) -> anyhow::Result<()> {
    plot::save(of, path)
}

impl Picture for WhenAnswer<'_> {
    fn draw<B: DrawingBackend>(&self, area: &DrawingArea<B, Shift>) -> Drawing<B> {
        let rows: usize = if self.clock == Clock::Day { 1 } else { 7 };
        let slots = &self.answer.slots;
        let finite = || slots.iter().map(|slot| slot.medians[1]).filter(|value| value.is_finite());
        let (low, high) = (finite().fold(f64::INFINITY, f64::min), finite().fold(0.0, f64::max));
        area.fill(&WHITE)?;
        let title = format!("{} of {} by hour", capital(self.quantity.name()), self.prediction.scenario.guest.name);
        let lowest = if low.is_finite() { format!("light {}, dark {}", span(low), span(high)) } else { String::new() };
        let mut chart = ChartBuilder::on(area)
            .caption(format!("{title}: {lowest}"), (FONT, 20))
            .margin(16)
            .x_label_area_size(36)
            .y_label_area_size(48)
            .build_cartesian_2d(0..24_usize, 0..rows)?;
        let day =
            |row: &usize| if rows == 1 { String::new() } else { DAYS[(rows - 1).saturating_sub(*row)].to_owned() };
        chart
            .configure_mesh()
            .disable_mesh()
            .x_labels(24)
            .y_labels(rows)
            .y_label_formatter(&day)
            .x_desc("hour")
            .draw()?;
        let cell = |slot: usize, colour: RGBColor| {
            let (row, hour) = (rows - 1 - slot / 24, slot % 24);
            Rectangle::new([(hour, row), (hour + 1, row + 1)], colour.filled())
        };
        chart.draw_series((0..24 * rows).map(|slot| cell(slot, UNSEEN)))?;
        chart.draw_series(slots.iter().map(|slot| {
            let median = slot.medians[1];
            let share = if median.is_finite() && high > low { (median - low) / (high - low) } else { 0.0 };
            cell(slot.slot, if median.is_finite() { mixed(share) } else { BLACK })
        }))?;
        Ok(())
    }
}

/// Between the lightest and the darkest.
fn mixed(share: f64) -> RGBColor {
    let of = |light: u8, dark: u8| (f64::from(light) + share * (f64::from(dark) - f64::from(light))) as u8;
    RGBColor(of(BEST.0, WORST.0), of(BEST.1, WORST.1), of(BEST.2, WORST.2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_of_the_week_belongs_to_the_week_that_began_on_monday() {
        let at = |text: &str| text.parse::<Zoned>().unwrap();
        let sunday = Clock::Week.place(&at("2026-11-22T23:30:00[UTC]"));
        let monday = Clock::Week.place(&at("2026-11-23T00:30:00[UTC]"));
        assert_eq!((sunday.1, monday.1), (6 * 24 + 23, 0));
        assert_eq!(monday.0, sunday.0 + 1);
        assert_eq!(Clock::Week.name(sunday.1), "Sun 23:00");
        let (day, hour) = Clock::Day.place(&at("2026-11-22T23:30:00[Europe/Berlin]"));
        assert_eq!((hour, Clock::Day.place(&at("2026-11-23T00:10:00[Europe/Berlin]")).0), (23, day + 1));
    }
}
