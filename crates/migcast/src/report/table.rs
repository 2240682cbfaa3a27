//! A prediction as one screen of text.

use std::io::{self, Write};
use std::time::Duration;

use migcast_model::algorithm::{Algorithm, Setting};
use migcast_model::forecast::Distribution;
use migcast_model::outcome::Completed;
use migcast_model::quantity::{show_bytes, show_count, show_duration, show_page_rate, show_rate};
use migcast_model::sampling::SamplingError;
use migcast_model::units::ByteCount;

use super::{HistoryUsed, Model, Prediction, Quantity, RatesUsed, Starting, backtest};

const NEVER: &str = "never";

/// Writes the prediction for a person: the answer, the stated limits, what was assumed, what to beware of.
pub(crate) fn write_table(out: &mut impl Write, prediction: &Prediction) -> io::Result<()> {
    write_headline(out, prediction)?;
    write_quantities(out, prediction)?;
    write_limits(out, prediction)?;
    write_assumptions(out, prediction)?;
    for warning in &prediction.warnings {
        writeln!(out, "note: {warning}")?;
    }
    Ok(())
}

fn write_headline(out: &mut impl Write, prediction: &Prediction) -> io::Result<()> {
    let guest = &prediction.scenario.guest;
    let memory = show_bytes(guest.memory_bytes());
    writeln!(
        out,
        "Live migration of {} ({memory}) over {}",
        guest.name,
        show_rate(prediction.scenario.link.line_rate)
    )?;
    let (converged, starts) = prediction.converged();
    let horizon = show_duration(prediction.scenario.horizon);
    let share = 100.0 * converged as f64 / starts as f64;
    if prediction.cancelled() > 0 {
        let cancelled = prediction.cancelled();
        return writeln!(
            out,
            "completes from {converged} of {starts} starting points ({share:.1} %); cancelled from {cancelled}\n"
        );
    }
    match (converged, starts) {
        (0, _) => writeln!(out, "does NOT converge: still copying after {horizon}, from {}\n", all_points(starts)),
        _ if converged == starts => writeln!(out, "converges from {}\n", all_points(starts)),
        _ => writeln!(out, "converges from {converged} of {starts} starting points ({share:.1} %) within {horizon}\n"),
    }
}

fn all_points(starts: usize) -> String {
    if starts == 1 { "the one starting point".to_owned() } else { format!("all {starts} starting points") }
}

fn write_quantities(out: &mut impl Write, prediction: &Prediction) -> io::Result<()> {
    let span = |seconds: f64| show_duration(Duration::from_secs_f64(seconds));
    let bytes = |bytes: f64| show_bytes(ByteCount::new(bytes as u64));
    let count = |count: f64| show_count(count as u64);
    let spread = prediction.is_spread();
    if spread {
        writeln!(out, "{:26}{:>12}{:>12}{:>12}{:>12}", "", "median", "5 %", "95 %", "worst")?;
    }
    let mut row = |name: &str, show: &dyn Fn(f64) -> String, distribution: Distribution| {
        let Distribution { p50, p5, p95, max, .. } = distribution;
        let cell = |value: Option<f64>| value.map_or_else(|| NEVER.to_owned(), show);
        write!(out, "{name:26}{:>12}", cell(p50))?;
        if spread {
            write!(out, "{:>12}{:>12}{:>12}", cell(p5), cell(p95), cell(max))?;
        }
        writeln!(out)
    };
    let over = |quantity: fn(&Completed) -> u64| prediction.forecast.distribution(|done| quantity(done) as f64);
    let over_seconds =
        |quantity: fn(&Completed) -> Duration| prediction.forecast.distribution(|done| quantity(done).as_secs_f64());
    row("migration time", &span, prediction.distribution(Quantity::MigrationTime))?;
    row("downtime of the guest", &span, prediction.distribution(Quantity::Downtime))?;
    let terms = prediction.scenario.algorithm.scheme().terms();
    if let Some(reporter) = terms.reporter {
        let name = format!("downtime {reporter} reports");
        row(&name, &span, prediction.distribution(Quantity::DowntimeReported))?;
    }
    if prediction.forecast.completed().any(|done| !done.throttled.is_zero()) {
        row("guest time throttled away", &span, over_seconds(|done| done.throttled))?;
    }
    if prediction.forecast.completed().any(|done| !done.post_copy.is_zero()) {
        row("on the target without all", &span, over_seconds(|done| done.post_copy))?;
    }
    row("sent", &bytes, prediction.sent_bytes())?;
    row("pages sent, with repeats", &count, over(|done| done.sent.pages().get()))?;
    row(terms.iterations, &count, over(|done| done.iteration_count))?;
    writeln!(out)
}

fn write_limits(out: &mut impl Write, prediction: &Prediction) -> io::Result<()> {
    for limit in &prediction.limits {
        let verdict = if limit.met { "met" } else { "NOT met" };
        let (name, allowed) = (limit.quantity.name(), show_duration(limit.allowed));
        writeln!(out, "limit: {name} of at most {allowed}: {verdict} at the {} quantile", prediction.quantile)?;
    }
    if prediction.limits.is_empty() { Ok(()) } else { writeln!(out) }
}

/// What a forecast rests on.
pub(super) fn write_assumptions(out: &mut impl Write, prediction: &Prediction) -> io::Result<()> {
    let scenario = &prediction.scenario;
    let link = &scenario.link;
    let (goodput, buffer) = (show_rate(link.goodput()), show_bytes(link.sender_buffer));
    writeln!(out, "assumed")?;
    write_model(out, &prediction.model, &prediction.sampling)?;
    if let Some(starts) = describe_starting(prediction) {
        writeln!(out, "  starts     {starts}")?;
    }
    writeln!(out, "  algorithm  {} ({})", scenario.algorithm.name(), prediction.algorithm_origin)?;
    let settings = shown_settings(&scenario.algorithm);
    if !settings.is_empty() {
        writeln!(out, "  settings   {}", in_a_row(&settings))?;
    }
    if let Some(busy) = prediction.vcpu_busy_recorded {
        writeln!(out, "  vCPUs      busy {busy} % of their time, recorded")?;
    }
    if let Some(manager) = scenario.algorithm.manager() {
        writeln!(out, "  manager    {}: {}", manager.name(), in_a_row(&manager.settings()))?;
    }
    writeln!(out, "  link       {goodput} of payload, alone on it; sender's buffer {buffer}")?;
    let platform = &scenario.platform;
    let (before, resume) = (show_duration(platform.connect + platform.setup), show_duration(platform.resume));
    writeln!(out, "  platform   {}: set-up {before}, resume {resume}", platform.name)
}

fn describe_starting(prediction: &Prediction) -> Option<String> {
    let starting = match &prediction.starting {
        Starting::AsAsked => return None,
        Starting::TooShort => "everywhere in the history, which is too short for a backtest".to_owned(),
        Starting::TooOld => {
            "everywhere in the history, which ended too long ago to tell what the guest does now".to_owned()
        }
        Starting::TooFewNow(choice) => {
            format!("everywhere in the history: {} would be better, but has too few now", backtest::name(*choice))
        }
        Starting::Best(score) => {
            let (inside, points) = (100.0 * score.time_inside, score.points);
            let (which, error) = (backtest::name(score.choice), 100.0 * score.time_error);
            format!(
                "{which}: of its past what forecasts this guest best; {error:.1} % off in the median, {inside:.0} % inside 5-95 \
                 %, in {points} forecasts"
            )
        }
    };
    let widened = backtest::factors(prediction.margins.time);
    let widened = widened.map_or_else(String::new, |by| format!("; its band of times widened {by} to hold what came"));
    Some(starting + &widened)
}

/// The main settings, and whatever was changed.
pub(super) fn shown_settings(algorithm: &Algorithm) -> Vec<Setting> {
    let defaults = Algorithm::named(algorithm.name()).map(|defaults| defaults.settings()).unwrap_or_default();
    let mut settings = algorithm.settings();
    settings.retain(|setting| !setting.is_minor || !defaults.contains(setting));
    settings
}

/// Settings in a row.
pub(super) fn in_a_row(settings: &[Setting]) -> String {
    let shown: Vec<String> = settings.iter().map(|setting| format!("{} {}", setting.key, setting.value)).collect();
    shown.join(", ")
}

fn write_model(out: &mut impl Write, model: &Model, sampling: &SamplingError) -> io::Result<()> {
    match model {
        Model::Hist(used) => {
            writeln!(out, "  model      hist: what was recorded, {}, over and over", used.how())?;
            writeln!(out, "  history    {}", describe(used, "windows"))?;
            if used.sampled_one_in == 1 {
                return Ok(());
            }
            // An error is known to one digit or two.
            let (time, down) = (sampling.time * 100.0, sampling.downtime_seconds * 1e3);
            writeln!(out, "  sampling   adds a standard error of {time:.1} % to times, {down:.0} ms to downtimes")
        }
        Model::Rates { used, pattern } => {
            let RatesUsed { mean, min, max, .. } = used;
            let [mean, min, max] = [mean, min, max].map(|rate| show_page_rate(*rate));
            let rates = if min == max { mean } else { format!("{mean} on average, {min} to {max}") };
            let pages = show_count(used.working_set.get());
            writeln!(out, "  model      rate series, AVG-like: a constant rate, the one in force at the start")?;
            writeln!(out, "  rates      {rates}, {pattern} over {pages} pages")?;
            writeln!(out, "  history    {}", describe(&used.history, "rates"))
        }
        Model::Avg { rate, working_set, pattern, from } => {
            let rate = show_page_rate(*rate);
            let pages = show_count(working_set.get());
            writeln!(out, "  model      avg: a constant {rate}, {pattern} over {pages} pages")?;
            match from {
                Some((used, span)) => {
                    writeln!(
                        out,
                        "  history    {}; rate taken over {}",
                        describe(used, "windows"),
                        show_duration(*span)
                    )
                }
                None => Ok(()),
            }
        }
    }
}

fn describe(used: &HistoryUsed, entries: &str) -> String {
    let sampled = if used.sampled_one_in == 1 { String::new() } else { format!(", 1 page of {}", used.sampled_one_in) };
    let (windows, recorded) = (show_count(used.windows as u64), show_duration(used.recorded));
    format!("{}: {recorded} from {:.0} in {windows} {entries}{sampled}, {}", used.path, used.start, used.hypervisor)
}
