//! A backtest as one screen of text, and as `migcast.backtest/1`.

use std::io::{self, Write};

use migcast_model::backtest::{Backtest, Choice, Margin, Score};
use migcast_model::quantity::{show_bytes, show_count, show_rate};
use serde::Serialize;

use super::Prediction;
use super::json::Widened;

/// How a choice is called.
pub(super) fn name(choice: Choice) -> String {
    match choice {
        Choice::Everything => "everything before".to_owned(),
        Choice::Last(span) if span.as_secs() >= 3_600 => format!("the last {} h", span.as_secs() / 3_600),
        Choice::Last(span) => format!("the last {} min", span.as_secs() / 60),
        Choice::SamePhase => "the same phase".to_owned(),
        Choice::LikePhase => "about the same phase".to_owned(),
        Choice::SameHour => "the same hour, earlier days".to_owned(),
        Choice::SameHourOfWeek => "the same hour of the week".to_owned(),
    }
}

/// Writes a backtest for a person: the choices side by side, and which is to be used.
pub(crate) fn write_backtest(out: &mut impl Write, of: &Prediction, found: &Backtest) -> io::Result<()> {
    let guest = &of.scenario.guest;
    let (memory, link) = (show_bytes(guest.memory_bytes()), show_rate(of.scenario.link.line_rate));
    writeln!(out, "Backtest of {} ({memory}) over {link}, {}\n", guest.name, of.scenario.algorithm.name())?;
    writeln!(
        out,
        "{:30}{:>10}{:>13}{:>13}{:>13}{:>13}{:>13}{:>18}{:>12}{:>9}",
        "forecast from",
        "forecasts",
        "time, error",
        "down, error",
        "sent, error",
        "time inside",
        "down inside",
        "time widened",
        "time width",
        "loss"
    )?;
    for score in &found.scores {
        writeln!(
            out,
            "{:30}{:>10}{:>13}{:>13}{:>13}{:>13}{:>13}{:>18}{:>12}{:>9.4}",
            name(score.choice),
            score.points,
            percent(score.time_error),
            percent(score.downtime_error),
            percent(score.sent_error),
            percent(score.time_inside),
            percent(score.downtime_inside),
            factors(score.margins.time).unwrap_or_else(|| "-".to_owned()),
            percent(score.time_width),
            score.loss,
        )?;
    }
    writeln!(out)?;
    match found.best {
        Some(best) => writeln!(out, "best: {}; `migcast predict` uses it", name(best))?,
        None => writeln!(
            out,
            "too short to tell which is best: {} migrations, laid end to end, were forecast; `migcast predict` uses everything",
            show_count(found.blocks as u64)
        )?,
    }
    writeln!(
        out,
        "errors and width are medians; inside = within the 5 to 95 % band; widened = by what its ends are moved until a twentieth of what came lies beyond each, width = its own then, as a share of its median; loss = pinball loss of log time; what came is simulated, too, so no platform's scatter is in it"
    )
}

/// Less of a margin is none in two decimals.
const MARGIN_SEEN: f64 = 0.005;

/// By what factors the ends of a band are moved, for people; `None` where they hardly are.
pub(super) fn factors(margin: Margin) -> Option<String> {
    let Margin { below, above } = margin;
    let upper = if above.is_finite() { format!("x{:.2}", above.exp()) } else { "never".to_owned() };
    let is_seen = |by: f64| by >= MARGIN_SEEN;
    (is_seen(below) || is_seen(above)).then(|| format!("x{:.2} to {upper}", (-below).exp()))
}

/// A share in percent; "never" where a migration that does not converge is in it.
fn percent(share: f64) -> String {
    if share < 1e6 { format!("{:.1} %", 100.0 * share) } else { "never".to_owned() }
}

#[derive(Serialize)]
struct Document<'a> {
    format: &'static str,
    guest: &'a str,
    algorithm: &'static str,
    link_bits_per_second: u64,
    migrations_end_to_end: usize,
    best: Option<String>,
    choices: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    choice: String,
    forecasts: usize,
    time_error: f64,
    downtime_error: f64,
    sent_error: f64,
    time_inside: f64,
    downtime_inside: f64,
    widened: Widened,
    /// `null` where it does not end.
    time_width: Option<f64>,
    pinball_loss: f64,
    gain: f64,
    gain_standard_error: Option<f64>,
}

/// The same for a script.
pub(crate) fn write_backtest_json(out: &mut impl Write, of: &Prediction, found: &Backtest) -> io::Result<()> {
    let row = |score: &Score| Row {
        choice: name(score.choice),
        forecasts: score.points,
        time_error: score.time_error,
        downtime_error: score.downtime_error,
        sent_error: score.sent_error,
        time_inside: score.time_inside,
        downtime_inside: score.downtime_inside,
        widened: Widened::by(&score.margins),
        time_width: Some(score.time_width).filter(|width| width.is_finite()),
        pinball_loss: score.loss,
        gain: score.gain.mean,
        gain_standard_error: Some(score.gain.standard_error).filter(|error| error.is_finite()),
    };
    let document = Document {
        format: "migcast.backtest/1",
        guest: &of.scenario.guest.name,
        algorithm: of.scenario.algorithm.name(),
        link_bits_per_second: of.scenario.link.line_rate.bits(),
        migrations_end_to_end: found.blocks,
        best: found.best.map(name),
        choices: found.scores.iter().map(row).collect(),
    };
    serde_json::to_writer_pretty(&mut *out, &document)?;
    writeln!(out)
}
