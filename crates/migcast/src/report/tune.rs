//! Settings that keep a promise, as text, as a picture of the trade-off, and as `migcast.tune/1`.

mod commands;

use std::io::{self, Write};
use std::path::Path;

use commands::{Commands, commands};
use migcast_model::quantity::{show_bytes, show_rate};
use migcast_model::units::ByteCount;
use migcast_plan::tune::{Choice, Promise, Score};
use plotters::coord::Shift;
use plotters::prelude::*;
use serde::Serialize;

use super::plot::{self, Drawing, LINE, NEVER, Picture, axes};
use super::sla::percent;
use super::table::write_assumptions;
use super::{Prediction, span};

/// Rows of the trade-off that are shown.
const ROWS_MAX: usize = 12;

/// Settings that were tried.
#[derive(Debug)]
pub(crate) struct Tried {
    /// What was changed of the settings as they stand.
    pub(crate) candidate: Vec<(String, String)>,
    pub(crate) score: Score,
}

/// An answer, and what it rests on.
#[derive(Debug)]
pub(crate) struct TuneAnswer<'a> {
    /// With the chosen settings, from the whole past.
    pub(crate) whole: Prediction,
    pub(crate) promise: Promise,
    /// Without a change, over the whole past.
    pub(crate) stood: Score,
    /// With the chosen settings, over the half of the past that had no part in choosing; `None` where there is none.
    pub(crate) judged: Option<Score>,
    pub(crate) tried: &'a [Tried],
    pub(crate) choice: Choice,
    /// The trade-off, as places in `tried`.
    pub(crate) front: Vec<usize>,
}

impl TuneAnswer<'_> {
    fn chosen(&self) -> &Tried {
        &self.tried[self.choice.index()]
    }

    /// Whether the promise is kept where it was chosen, and where it was judged.
    pub(crate) fn is_kept(&self) -> bool {
        let held = self.judged.is_none_or(|judged| judged.keeps(&self.promise));
        matches!(self.choice, Choice::Kept(_)) && held
    }

    /// What the chosen settings are: what was fixed by the user and what was found.
    fn settings(&self) -> String {
        described(&self.chosen().candidate)
    }
}

fn described(candidate: &[(String, String)]) -> String {
    if candidate.is_empty() {
        return "the settings as they stand".to_owned();
    }
    candidate.iter().map(|(key, value)| format!("{key} {value}")).collect::<Vec<_>>().join(", ")
}

/// Writes the answer for a person.
pub(crate) fn write_tune(out: &mut impl Write, of: &TuneAnswer<'_>) -> io::Result<()> {
    let TuneAnswer { whole, promise, stood, judged, tried, front, .. } = of;
    let scenario = &whole.scenario;
    writeln!(
        out,
        "{} over {}: over within {} and down for {} at most, in {} of migrations\n",
        scenario.guest.name,
        show_rate(scenario.link.line_rate),
        span(promise.time),
        span(promise.downtime),
        percent(promise.probability)
    )?;
    writeln!(out, "{}\n", verdict(of))?;
    let quantile = percent(promise.probability);
    let heads =
        [format!("time, {quantile}"), format!("down, {quantile}"), "sent, mean".to_owned(), "held up".to_owned()];
    writeln!(out, "{:30}{:>9}{:>13}{:>13}{:>13}{:>11}", "", "kept", heads[0], heads[1], heads[2], heads[3])?;
    let mut row = |name: &str, score: &Score| {
        let sent = show_bytes(ByteCount::new(score.sent as u64));
        let (kept, time, down, held) =
            (percent(score.kept), span(score.time), span(score.downtime), span(score.slowed));
        writeln!(out, "{name:30}{kept:>9}{time:>13}{down:>13}{sent:>13}{held:>11}")
    };
    row("as it stands", stood)?;
    match judged {
        Some(judged) => {
            row("chosen, where it was chosen", &of.chosen().score)?;
            row("chosen, in the half after", judged)?;
        }
        None => row("chosen", &of.chosen().score)?,
    }
    writeln!(out, "\nwhat longer takes and what shorter costs, of {} settings tried (* chosen):", tried.len())?;
    let step = front.len().div_ceil(ROWS_MAX).max(1);
    let chosen = of.choice.index();
    let shown = front.iter().enumerate().filter(|(place, index)| place % step == 0 || **index == chosen);
    for (_, index) in shown {
        let Tried { candidate, score } = &tried[*index];
        let mark = if *index == chosen { "*" } else { " " };
        let (time, down) = (span(score.time), span(score.downtime));
        writeln!(out, " {mark} {time:>9} {down:>9}   {}", described(candidate))?;
    }
    for Commands { tool, lines } in told(of) {
        writeln!(out, "\n{tool}")?;
        lines.iter().try_for_each(|line| writeln!(out, "  {line}"))?;
    }
    writeln!(out)?;
    write_assumptions(out, whole)?;
    whole.warnings.iter().try_for_each(|warning| writeln!(out, "note: {warning}"))
}

fn told(of: &TuneAnswer<'_>) -> Vec<Commands> {
    match of.choice {
        Choice::Kept(_) => commands(&of.whole, &of.chosen().candidate),
        Choice::Nearest(_) => Vec::new(),
    }
}

fn verdict(of: &TuneAnswer<'_>) -> String {
    let settings = of.settings();
    match (of.choice, of.judged) {
        (Choice::Nearest(_), _) => {
            let kept = percent(of.chosen().score.kept);
            format!("nothing that was tried keeps it; nearest, kept in {kept}: {settings}")
        }
        (Choice::Kept(_), None) => {
            format!("kept with {settings}; there is no other part of the past to judge it by")
        }
        (Choice::Kept(_), Some(judged)) if judged.keeps(&of.promise) => format!(
            "kept with {settings}: chosen on the first half of the history, kept in {} of starts of the second",
            percent(judged.kept)
        ),
        (Choice::Kept(_), Some(judged)) => format!(
            "kept with {settings} in the first half of the history, but only in {} of starts of the second, which had no part \
             in choosing: do not rely on it",
            percent(judged.kept)
        ),
    }
}

/// Draws time against downtime of all that was tried, and the trade-off.
pub(crate) fn draw_tune(of: &TuneAnswer<'_>, path: &Path) -> anyhow::Result<()> {
    plot::save(of, path)
}

impl Picture for TuneAnswer<'_> {
    fn draw<B: DrawingBackend>(&self, area: &DrawingArea<B, Shift>) -> Drawing<B> {
        area.fill(&WHITE)?;
        let scenario = &self.whole.scenario;
        let title = format!("{} over {}", scenario.guest.name, show_rate(scenario.link.line_rate));
        let body = area.margin(14, 0, 0, 0).titled(&title, (plot::FONT, 22))?;
        let point = |score: &Score| (score.time, score.downtime * 1e3);
        let finite = |point: &(f64, f64)| point.0.is_finite() && point.1.is_finite();
        let points: Vec<(f64, f64)> = self.tried.iter().map(|tried| point(&tried.score)).filter(finite).collect();
        let limit = (self.promise.time, self.promise.downtime * 1e3);
        // What lies far beyond the promise is of no interest.
        let end = |of: fn(&(f64, f64)) -> f64| {
            let largest = points.iter().map(of).fold(0.0, f64::max);
            1.1 * of(&limit).max(largest.min(4.0 * of(&limit)))
        };
        let (right, top) = (end(|point| point.0), end(|point| point.1));
        let quantile = percent(self.promise.probability);
        let under =
            format!("migration time, s, that {quantile} stay below; the promise is the box, the chosen settings red");
        let beside = format!("downtime, ms, that {quantile} stay below");
        let mut chart = axes(&body, (right, &under), (top, &beside))?;
        let seen = |point: &(f64, f64)| point.0 <= right && point.1 <= top;
        let promised = Rectangle::new([(0.0, 0.0), limit], plot::BAND.filled());
        chart.draw_series(std::iter::once(promised))?;
        chart.draw_series(
            points.iter().copied().filter(seen).map(|point| Circle::new(point, 2, LINE.mix(0.4).filled())),
        )?;
        let front = self.front.iter().map(|index| point(&self.tried[*index].score)).filter(seen);
        chart.draw_series(LineSeries::new(front, LINE.stroke_width(2)))?;
        let chosen = Some(point(&self.chosen().score)).filter(|point| finite(point) && seen(point));
        chart.draw_series(chosen.into_iter().map(|point| Circle::new(point, 5, NEVER.filled())))?;
        area.present()
    }
}

#[derive(Serialize)]
struct Document<'a> {
    format: &'static str,
    guest: &'a str,
    algorithm: &'static str,
    manager: Option<&'static str>,
    link_bits_per_second: u64,
    max_migration_time_seconds: f64,
    max_downtime_seconds: f64,
    probability: f64,
    /// "kept", "not-judged" (kept, but there is no second half), "not-kept-later" or "nearest".
    verdict: &'static str,
    settings: Vec<Setting<'a>>,
    as_it_stands: Row,
    chosen: Row,
    /// In the half of the history that had no part in choosing.
    judged: Option<Row>,
    front: Vec<Point<'a>>,
    tried: usize,
    commands: Vec<Commands>,
    warnings: &'a [String],
}

#[derive(Serialize)]
struct Setting<'a> {
    key: &'a str,
    value: &'a str,
}

#[derive(Serialize)]
struct Row {
    kept_share: f64,
    migration_time_seconds: Option<f64>,
    downtime_seconds: Option<f64>,
    sent_bytes_mean: f64,
    held_up_seconds_mean: f64,
}

#[derive(Serialize)]
struct Point<'a> {
    settings: Vec<Setting<'a>>,
    #[serde(flatten)]
    row: Row,
}

impl From<&Score> for Row {
    fn from(score: &Score) -> Row {
        let finite = |value: f64| Some(value).filter(|value| value.is_finite());
        Row {
            kept_share: score.kept,
            migration_time_seconds: finite(score.time),
            downtime_seconds: finite(score.downtime),
            sent_bytes_mean: score.sent,
            held_up_seconds_mean: score.slowed,
        }
    }
}

/// Writes the answer for a script.
pub(crate) fn write_tune_json(out: &mut impl Write, of: &TuneAnswer<'_>) -> io::Result<()> {
    fn settings(candidate: &[(String, String)]) -> Vec<Setting<'_>> {
        candidate.iter().map(|(key, value)| Setting { key, value }).collect()
    }
    let TuneAnswer { whole, promise, stood, judged, tried, choice, front } = of;
    let scenario = &whole.scenario;
    let verdict = match (choice, judged) {
        (Choice::Nearest(_), _) => "nearest",
        (Choice::Kept(_), None) => "not-judged",
        (Choice::Kept(_), Some(judged)) if judged.keeps(promise) => "kept",
        (Choice::Kept(_), Some(_)) => "not-kept-later",
    };
    let on_front = |index: &usize| {
        let Tried { candidate, score } = &tried[*index];
        Point { settings: settings(candidate), row: score.into() }
    };
    let document = Document {
        format: "migcast.tune/1",
        guest: &scenario.guest.name,
        algorithm: scenario.algorithm.name(),
        manager: scenario.algorithm.manager().map(|manager| manager.name()),
        link_bits_per_second: scenario.link.line_rate.bits(),
        max_migration_time_seconds: promise.time,
        max_downtime_seconds: promise.downtime,
        probability: promise.probability,
        verdict,
        settings: settings(&of.chosen().candidate),
        as_it_stands: stood.into(),
        chosen: (&of.chosen().score).into(),
        judged: judged.as_ref().map(Row::from),
        front: front.iter().map(on_front).collect(),
        tried: tried.len(),
        commands: told(of),
        warnings: &whole.warnings,
    };
    serde_json::to_writer_pretty(&mut *out, &document)?;
    writeln!(out)
}
