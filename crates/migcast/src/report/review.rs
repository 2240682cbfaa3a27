//! Forecasts beside what happened, platform by platform and over time, as text and as `migcast.review/1`.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use migcast_model::calibrate::review::{self, Judged, Review};
use migcast_model::quantity::show_duration;
use plotters::coord::Shift;
use plotters::prelude::*;
use serde::Serialize;

use super::plot::{self, Drawing, FONT, LINE, NEVER, Picture, axes};

/// Names of the quantities that are judged, in the order of [`Judgement::quantities`].
const NAMES: [&str; 3] = ["migration time", "downtime", "bytes sent"];
const KEYS: [&str; 3] = ["migration_time", "downtime", "sent_bytes"];

/// What was found in stores.
#[derive(Debug, Default)]
pub(crate) struct ReviewAnswer {
    /// The files, as they are written on a command line.
    pub(crate) stores: String,
    /// Migrations in all.
    pub(crate) migrations: usize,
    /// Those that did not complete.
    pub(crate) given_up: usize,
    /// Those that completed, and of which no forecast had been kept.
    pub(crate) unforecast: usize,
    /// How old a forecast may be.
    pub(crate) within: Duration,
    /// The rest.
    pub(crate) platforms: Vec<Reviewed>,
}

/// The migrations that were forecast for one platform.
#[derive(Debug)]
pub(crate) struct Reviewed {
    pub(crate) platform: String,
    pub(crate) hypervisor: String,
    /// The oldest first.
    pub(crate) judged: Vec<Judgement>,
}

/// One migration beside its forecast.
#[derive(Debug)]
pub(crate) struct Judgement {
    pub(crate) requested: Timestamp,
    pub(crate) guest: String,
    /// Of time, downtime and bytes; `None` of what was not measured, or not forecast to end.
    pub(crate) quantities: [Option<Judged>; 3],
    /// Whether it was forecast to converge, as it did.
    pub(crate) told_it_would_end: bool,
}

impl ReviewAnswer {
    /// Whether a platform has left its forecasts.
    pub(crate) fn has_drifted(&self) -> bool {
        let drifted =
            |of: &Reviewed| (0..NAMES.len()).any(|index| of.review(index).is_some_and(|review| review.drift.is_some()));
        self.platforms.iter().any(drifted)
    }
}

/// How one quantity did, of these migrations.
fn reviewed<'a>(judged: impl IntoIterator<Item = &'a Judgement>, quantity: usize) -> Option<Review> {
    let known: Vec<Judged> = judged.into_iter().filter_map(|one| one.quantities[quantity]).collect();
    review::review(&known)
}

/// A drift, and where it began.
struct Drifted<'a> {
    since: &'a Judgement,
    migrations: usize,
    ratio: f64,
}

impl Reviewed {
    /// How one quantity did.
    fn review(&self, quantity: usize) -> Option<Review> {
        reviewed(&self.judged, quantity)
    }

    /// The drift that a review of this quantity tells.
    fn drifted(&self, quantity: usize, review: &Review) -> Option<Drifted<'_>> {
        let drift = review.drift?;
        let mut since = self.judged.iter().filter(|one| one.quantities[quantity].is_some()).skip(drift.since);
        Some(Drifted { since: since.next()?, migrations: review.count - drift.since, ratio: drift.ratio })
    }

    /// How many were forecast not to converge, and did.
    fn missed(&self) -> usize {
        self.judged.iter().filter(|one| !one.told_it_would_end).count()
    }

    /// The migrations by day, week or month, whichever leaves a screen of lines, in UTC.
    fn periods(&self) -> (&'static str, BTreeMap<Date, Vec<&Judgement>>) {
        let day = |at: Timestamp| at.to_zoned(TimeZone::UTC).date();
        let (Some(first), Some(last)) = (self.judged.first(), self.judged.last()) else {
            return ("day", BTreeMap::new());
        };
        let days = last.requested.duration_since(first.requested).as_hours() / 24;
        let (name, begin): (_, fn(Date) -> Date) = match days {
            ..=14 => ("day", |date| date),
            15..=120 => ("week of", |date| {
                let since_monday = date.weekday().to_monday_zero_offset();
                date.checked_sub(jiff::Span::new().days(since_monday)).unwrap_or(date)
            }),
            _ => ("month of", Date::first_of_month),
        };
        let mut periods: BTreeMap<Date, Vec<&Judgement>> = BTreeMap::new();
        for one in &self.judged {
            periods.entry(begin(day(one.requested))).or_default().push(one);
        }
        (name, periods)
    }
}

/// Writes the review for a person.
pub(crate) fn write_review(out: &mut impl Write, of: &ReviewAnswer) -> io::Result<()> {
    let forecast = of.migrations - of.given_up - of.unforecast;
    writeln!(
        out,
        "{} migrations, {} given up; of {forecast} a forecast had been kept, made at most {} before",
        of.migrations,
        of.given_up,
        show_duration(of.within)
    )?;
    if forecast == 0 {
        writeln!(
            out,
            "nothing to compare: keep forecasts with `migcast predict … --store FILE` before guests are moved"
        )?;
    }
    of.platforms.iter().try_for_each(|platform| write_platform(out, platform, &of.stores))
}

fn write_platform(out: &mut impl Write, of: &Reviewed, stores: &str) -> io::Result<()> {
    let noun = if of.judged.len() == 1 { "migration" } else { "migrations" };
    writeln!(out, "\nplatform {}, {}: {} {noun}", of.platform, of.hypervisor, of.judged.len())?;
    if of.missed() > 0 {
        writeln!(out, "forecast not to converge, but did: {}", of.missed())?;
    }
    writeln!(
        out,
        "\n{:16}{:>34}{:>32}{:>18}",
        "", "actual to forecast, median (95 %)", "inside 5 to 95 % (95 %)", "scatter to band"
    )?;
    let reviews: Vec<_> = (0..NAMES.len()).map(|index| of.review(index)).collect();
    for (name, review) in NAMES.iter().zip(&reviews) {
        let Some(review) = review else {
            writeln!(out, "{name:16}{:>34}", "not measured")?;
            continue;
        };
        let interval = review
            .ratio_interval
            .map_or_else(|| "too few".to_owned(), |(low, high)| format!("{} to {}", off(low), off(high)));
        let (low, high) = review.inside_interval;
        let inside = format!("{} of {} ({:.0} to {:.0} %)", review.inside, review.count, 100.0 * low, 100.0 * high);
        let scatter = review.scatter.map_or_else(|| "-".to_owned(), |scatter| format!("{scatter:.1}"));
        writeln!(out, "{name:16}{:>34}{inside:>32}{scatter:>18}", format!("{} ({interval})", off(review.ratio)))?;
    }
    write_periods(out, of)?;
    for (index, review) in reviews.iter().enumerate() {
        let drifted = review.as_ref().and_then(|review| of.drifted(index, review));
        let Some(Drifted { since, migrations, ratio }) = drifted else { continue };
        writeln!(
            out,
            "\ndrifted: {} is off by {} in the median of {migrations} migrations since {:.0} ({})\n  fit the platform anew: migcast \
             calibrate {stores} --since {} --out FILE",
            NAMES[index],
            off(ratio),
            since.requested,
            since.guest,
            since.requested
        )?;
    }
    Ok(())
}

fn write_periods(out: &mut impl Write, of: &Reviewed) -> io::Result<()> {
    let (name, periods) = of.periods();
    writeln!(
        out,
        "\n{name:16}{:>12}{:>10}{:>10}{:>10}{:>14}{:>14}",
        "migrations", "time", "down", "bytes", "time inside", "down inside"
    )?;
    for (begin, judged) in &periods {
        let reviews = [0, 1, 2].map(|index| reviewed(judged.iter().copied(), index));
        let ratio = |index: usize| reviews[index].map_or_else(|| "-".to_owned(), |review| off(review.ratio));
        let inside = |index: usize| {
            reviews[index]
                .map_or_else(|| "-".to_owned(), |review: Review| format!("{} of {}", review.inside, review.count))
        };
        writeln!(
            out,
            "{begin:16}{:>12}{:>10}{:>10}{:>10}{:>14}{:>14}",
            judged.len(),
            ratio(0),
            ratio(1),
            ratio(2),
            inside(0),
            inside(1)
        )?;
    }
    Ok(())
}

/// A ratio as how far it is off.
fn off(ratio: f64) -> String {
    format!("{:+.1} %", 100.0 * (ratio - 1.0))
}

/// Draws every migration beside its band, into a file.
pub(crate) fn draw_review(of: &ReviewAnswer, path: &Path) -> anyhow::Result<()> {
    plot::save(of, path)
}

impl Picture for ReviewAnswer {
    fn draw<B: DrawingBackend>(&self, area: &DrawingArea<B, Shift>) -> Drawing<B> {
        area.fill(&WHITE)?;
        let mut all: Vec<(&str, &Judgement)> = Vec::new();
        for platform in &self.platforms {
            all.extend(platform.judged.iter().map(|one| (platform.platform.as_str(), one)));
        }
        all.sort_by_key(|(_, one)| one.requested);
        let title = match (all.first(), all.last()) {
            (Some((_, first)), Some((_, last))) => {
                let day = |one: &Judgement| one.requested.strftime("%F").to_string();
                format!("{} migrations beside their forecasts, {} to {}", all.len(), day(first), day(last))
            }
            _ => "no migration had been forecast".to_owned(),
        };
        let body = area.margin(14, 0, 0, 0).titled(&title, (FONT, 22))?;
        let panels = body.split_evenly((NAMES.len(), 1));
        for ((quantity, name), panel) in NAMES.iter().enumerate().zip(&panels) {
            draw_quantity(panel, &all, quantity, name)?;
        }
        area.present()
    }
}

/// One quantity of all migrations, in their order: bands as bars, what came as dots, outside of its band red; a line where
/// another platform was forecast for.
fn draw_quantity<B: DrawingBackend>(
    panel: &DrawingArea<B, Shift>,
    all: &[(&str, &Judgement)],
    quantity: usize,
    name: &str,
) -> Drawing<B> {
    let seen: Vec<(f64, Judged)> = all
        .iter()
        .enumerate()
        .filter_map(|(index, (_, one))| Some((index as f64 + 1.0, one.quantities[quantity]?)))
        .collect();
    let largest = seen.iter().map(|(_, one)| one.actual.max(one.band[2]) / one.band[1]).fold(1.0, f64::max);
    let (right, top) = (all.len() as f64 + 1.0, 1.1 * largest);
    let label = format!("{name}, actual to forecast");
    let under = "migration, in the order of their requests; bars are the 5 to 95 % bands, what lies outside is red";
    let mut chart = axes(panel, (right, under), (top, &label))?;
    chart.draw_series(seen.iter().map(|(at, one)| {
        let [low, mid, high] = one.band;
        Rectangle::new([(at - 0.4, low / mid), (at + 0.4, high / mid)], plot::BAND.filled())
    }))?;
    chart.draw_series(std::iter::once(PathElement::new([(0.0, 1.0), (right, 1.0)], LINE.stroke_width(1))))?;
    chart
        .draw_series(seen.iter().map(|(at, one)| {
            Circle::new((*at, one.ratio()), 3, if one.is_inside() { LINE } else { NEVER }.filled())
        }))?;
    let changes =
        all.windows(2).zip(1..).filter(|(pair, _)| pair[0].0 != pair[1].0).map(|(_, index)| f64::from(index) + 0.5);
    chart.draw_series(changes.map(|at| PathElement::new([(at, 0.0), (at, top)], BLACK.mix(0.5).stroke_width(1))))?;
    Ok(())
}

#[derive(Serialize)]
struct Document<'a> {
    format: &'static str,
    migrations: usize,
    given_up: usize,
    without_forecast: usize,
    forecast_age_max_seconds: f64,
    drifted: bool,
    platforms: Vec<Platform<'a>>,
}

#[derive(Serialize)]
struct Platform<'a> {
    platform: &'a str,
    hypervisor: &'a str,
    migrations: usize,
    forecast_not_to_converge: usize,
    /// Quantities that were measured.
    quantities: BTreeMap<&'static str, Row>,
    periods: Vec<Period>,
}

#[derive(Serialize)]
struct Row {
    count: usize,
    ratio: f64,
    ratio_interval: Option<[f64; 2]>,
    inside: usize,
    inside_interval: [f64; 2],
    scatter_to_band: Option<f64>,
    drift: Option<Drift>,
}

#[derive(Serialize)]
struct Drift {
    since: String,
    migrations: usize,
    ratio: f64,
}

#[derive(Serialize)]
struct Period {
    begin: String,
    migrations: usize,
    /// Medians of actual ÷ forecast.
    ratios: BTreeMap<&'static str, f64>,
    inside: BTreeMap<&'static str, usize>,
}

/// The same for a script.
pub(crate) fn write_review_json(out: &mut impl Write, of: &ReviewAnswer) -> io::Result<()> {
    let document = Document {
        format: "migcast.review/1",
        migrations: of.migrations,
        given_up: of.given_up,
        without_forecast: of.unforecast,
        forecast_age_max_seconds: of.within.as_secs_f64(),
        drifted: of.has_drifted(),
        platforms: of.platforms.iter().map(platform).collect(),
    };
    serde_json::to_writer_pretty(&mut *out, &document)?;
    writeln!(out)
}

fn platform(of: &Reviewed) -> Platform<'_> {
    let row = |index: usize| {
        let review = of.review(index)?;
        let drift = of.drifted(index, &review).map(|drifted| Drift {
            since: drifted.since.requested.to_string(),
            migrations: drifted.migrations,
            ratio: drifted.ratio,
        });
        let row = Row {
            count: review.count,
            ratio: review.ratio,
            ratio_interval: review.ratio_interval.map(<[f64; 2]>::from),
            inside: review.inside,
            inside_interval: review.inside_interval.into(),
            scatter_to_band: review.scatter,
            drift,
        };
        Some((KEYS[index], row))
    };
    let period = |(begin, judged): (&Date, &Vec<&Judgement>)| {
        let reviews = KEYS.iter().enumerate();
        let reviews = reviews.filter_map(|(index, key)| Some((*key, reviewed(judged.iter().copied(), index)?)));
        let reviews: BTreeMap<&'static str, Review> = reviews.collect();
        Period {
            begin: begin.to_string(),
            migrations: judged.len(),
            ratios: reviews.iter().map(|(key, review)| (*key, review.ratio)).collect(),
            inside: reviews.iter().map(|(key, review)| (*key, review.inside)).collect(),
        }
    };
    Platform {
        platform: &of.platform,
        hypervisor: &of.hypervisor,
        migrations: of.judged.len(),
        forecast_not_to_converge: of.missed(),
        quantities: (0..KEYS.len()).filter_map(row).collect(),
        periods: of.periods().1.iter().map(period).collect(),
    }
}
