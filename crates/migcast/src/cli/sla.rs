//! `migcast sla`: how many migrations a service level agreement allows.

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, ensure};
use migcast_model::quantity;
use migcast_plan::sla::{self, Agreement};

use super::subject::Subject;
use crate::report::{self, SlaAnswer};

const DAY: u64 = 86_400;
/// The longest period, and the longest limit: ten years are no agreement about migrations.
const PERIOD_MAX: Duration = Duration::from_secs(3_660 * DAY);
/// More migrations than any guest sees.
const MIGRATIONS_MAX: u64 = 1_000_000;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    migcast sla testdata/histories/web --link 1Gbit/s --availability 99.95%\n  \
    migcast sla DIR --link 10Gbit/s --availability 99.99% --event-limit 500ms --spent 90s --migrations 20")]
pub(crate) struct Args {
    #[command(flatten)]
    subject: Subject,
    /// Share of the period in which the service is to be available, e.g. 99.95%
    #[arg(long, value_name = "PERCENT", value_parser = parse_percent)]
    availability: Option<f64>,
    /// What the availability counts over: day, week, month (30 days), quarter, year, or a time
    #[arg(long, value_name = "PERIOD", default_value = "month", value_parser = parse_period)]
    period: Duration,
    /// Longest downtime of a single event
    #[arg(long, value_name = "TIME", value_parser = quantity::parse_duration)]
    event_limit: Option<Duration>,
    /// What a second under migration counts in which the guest runs but may be slower: 0 is nothing, 1 is downtime
    #[arg(long, value_name = "WEIGHT", default_value_t = 0.0, value_parser = parse_weight)]
    brownout_weight: f64,
    /// Downtime that the period has had already
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = quantity::parse_duration)]
    spent: Duration,
    /// How sure it is to be that so many migrations fit
    #[arg(long, value_name = "PERCENT", default_value = "95%", value_parser = parse_percent)]
    confidence: f64,
    /// What remains of the availability with so many migrations in a period
    #[arg(long, value_name = "COUNT", value_parser = parse_migrations)]
    migrations: Option<u64>,
    /// Print JSON (migcast.sla/1) instead of text
    #[arg(long)]
    json: bool,
}

pub(super) fn parse_percent(text: &str) -> Result<f64, String> {
    let wrong = || format!("`{text}` is not a share: more than 0%, less than 100%, such as 99.95%");
    let percent: f64 = text.trim_end_matches('%').trim().parse().map_err(|_| wrong())?;
    // 0.9995 is meant as a share, 99.95 as per cent.
    let share = if text.ends_with('%') || percent > 1.0 { percent / 100.0 } else { percent };
    // 99.9 / 100 is not 0.999 to a computer.
    let share = (share * 1e12).round() / 1e12;
    Some(share).filter(|share| *share > 0.0 && *share < 1.0).ok_or_else(wrong)
}

fn parse_period(text: &str) -> Result<Duration, String> {
    let days = match text {
        "day" => 1,
        "week" => 7,
        "month" => 30,
        "quarter" => 91,
        "year" => 365,
        _ => {
            let span = quantity::parse_duration(text).map_err(|error| error.to_string())?;
            let fits = !span.is_zero() && span <= PERIOD_MAX;
            return fits
                .then_some(span)
                .ok_or_else(|| format!("`{text}` is not a period: more than 0, at most ten years"));
        }
    };
    Ok(Duration::from_secs(days * DAY))
}

fn parse_weight(text: &str) -> Result<f64, String> {
    let weight = text.parse().ok().filter(|weight| (0.0..=1.0).contains(weight));
    weight.ok_or_else(|| format!("`{text}` is not a weight: 0 to 1"))
}

fn parse_migrations(text: &str) -> Result<u64, String> {
    let count = text.parse().ok().filter(|count| (1..=MIGRATIONS_MAX).contains(count));
    count.ok_or_else(|| format!("`{text}` is not a number of migrations: 1 to {MIGRATIONS_MAX}"))
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    ensure!(
        args.availability.is_some() || args.event_limit.is_some(),
        "nothing was agreed: give --availability, --event-limit, or both"
    );
    ensure!(
        args.migrations.is_none() || args.availability.is_some(),
        "--migrations asks for the availability that remains: give the --availability that is wanted, too"
    );
    ensure!(args.spent < args.period, "--spent: more downtime than the period is long");
    if let Some(limit) = args.event_limit {
        ensure!(!limit.is_zero(), "--event-limit: `0` is too short: more than 0");
    }
    let prediction = args.subject.forecast(Duration::ZERO)?;
    let agreed = Agreement {
        availability: args.availability,
        period: args.period.as_secs_f64(),
        event_limit: args.event_limit.map(|limit| limit.as_secs_f64()),
        brownout_weight: args.brownout_weight,
        spent: args.spent.as_secs_f64(),
        confidence: args.confidence,
    };
    let draws = prediction.draws();
    let answer = sla::most(&draws, &agreed)?;
    let remaining = args.migrations.map(|count| (count, sla::remaining(&draws, &agreed, count)));
    let answer = SlaAnswer { prediction: &prediction, agreed, answer, remaining };
    let out = &mut io::stdout().lock();
    if args.json { report::write_sla_json(out, &answer) } else { report::write_sla(out, &answer) }
        .context("standard output")?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_read_as_people_write_them() {
        for text in ["99.95%", "99.95", "0.9995"] {
            assert!((parse_percent(text).unwrap() - 0.9995).abs() < 1e-12, "{text}");
        }
        for text in ["101%", "100%", "0", "-1%", "nan%", "high", "1"] {
            assert!(parse_percent(text).unwrap_err().contains("is not a share"), "{text}");
        }
    }

    #[test]
    fn periods_have_names_and_ends() {
        assert_eq!(parse_period("month").unwrap().as_secs(), 2_592_000);
        assert_eq!(parse_period("90m").unwrap().as_secs(), 5_400);
        assert!(parse_period("0s").is_err() && parse_period("fortnight").is_err() && parse_period("20y").is_err());
    }
}
