//! Stop rules side by side, as text and as `migcast.rules/1`.

use std::io::{self, Write};

use migcast_model::quantity::{show_bytes, show_rate};
use migcast_model::units::{ByteCount, BytesPerSec};
use migcast_plan::tune::{Promise, Score};
use serde::Serialize;

use super::sla::percent;
use super::span;

/// Longest settings that are shown in a row.
const SHOWN_MAX: usize = 60;

/// One rule with the settings that were chosen for it.
#[derive(Debug)]
pub(crate) struct Ruled {
    pub(crate) algorithm: &'static str,
    pub(crate) manager: Option<&'static str>,
    pub(crate) candidate: Vec<(String, String)>,
    /// Where its settings were chosen.
    pub(crate) chosen_on: Score,
    /// In the half of the past that had no part in that.
    pub(crate) judged: Score,
}

/// An answer, and what it rests on.
#[derive(Debug)]
pub(crate) struct RulesAnswer {
    pub(crate) guest: String,
    pub(crate) link: BytesPerSec,
    pub(crate) promise: Promise,
    pub(crate) rules: Vec<Ruled>,
}

/// Writes the rules for a person, the shortest downtime within the time first.
pub(crate) fn write_rules(out: &mut impl Write, of: &RulesAnswer) -> io::Result<()> {
    let RulesAnswer { guest, link, promise, rules } = of;
    let quantile = percent(promise.probability);
    writeln!(out, "{guest} over {}: stop rules within {}\n", show_rate(*link), span(promise.time))?;
    writeln!(
        out,
        "{:28}{:>9}{:>13}{:>13}{:>13}   settings",
        "rule",
        "in time",
        format!("time, {quantile}"),
        format!("down, {quantile}"),
        "sent, mean"
    )?;
    let mut order: Vec<&Ruled> = rules.iter().collect();
    let late = |rule: &Ruled| !rule.judged.keeps(promise);
    order.sort_by(|a, b| late(a).cmp(&late(b)).then(a.judged.downtime.total_cmp(&b.judged.downtime)));
    for rule in order {
        let Score { kept, time, downtime, sent, .. } = rule.judged;
        let name = rule
            .manager
            .map_or_else(|| rule.algorithm.to_owned(), |manager| format!("{} by {manager}", rule.algorithm));
        let settings: Vec<String> = rule.candidate.iter().map(|(key, value)| format!("{key} {value}")).collect();
        let mut settings = settings.join(", ");
        if settings.chars().count() > SHOWN_MAX {
            settings = settings.chars().take(SHOWN_MAX).chain(['…']).collect();
        }
        let (kept, time, down) = (percent(kept), span(time), span(downtime));
        let sent = show_bytes(ByteCount::new(sent as u64));
        writeln!(out, "{name:28}{kept:>9}{time:>13}{down:>13}{sent:>13}   {settings}")?;
    }
    writeln!(
        out,
        "\neach rule's settings were chosen on the first half of the history: the least downtime in time; figures are of starts \
         in the second"
    )
}

#[derive(Serialize)]
struct Document<'a> {
    format: &'static str,
    guest: &'a str,
    link_bits_per_second: u64,
    max_migration_time_seconds: f64,
    probability: f64,
    rules: Vec<Row<'a>>,
}

#[derive(Serialize)]
struct Row<'a> {
    algorithm: &'a str,
    manager: Option<&'a str>,
    settings: Vec<[&'a str; 2]>,
    chosen_on: Figures,
    judged: Figures,
}

#[derive(Serialize)]
struct Figures {
    in_time_share: f64,
    migration_time_seconds: Option<f64>,
    downtime_seconds: Option<f64>,
    sent_bytes_mean: f64,
}

impl From<&Score> for Figures {
    fn from(score: &Score) -> Figures {
        let finite = |value: f64| Some(value).filter(|value| value.is_finite());
        Figures {
            in_time_share: score.kept,
            migration_time_seconds: finite(score.time),
            downtime_seconds: finite(score.downtime),
            sent_bytes_mean: score.sent,
        }
    }
}

/// Writes the rules for a script.
pub(crate) fn write_rules_json(out: &mut impl Write, of: &RulesAnswer) -> io::Result<()> {
    let rows = of.rules.iter().map(|rule| Row {
        algorithm: rule.algorithm,
        manager: rule.manager,
        settings: rule.candidate.iter().map(|(key, value)| [key.as_str(), value.as_str()]).collect(),
        chosen_on: (&rule.chosen_on).into(),
        judged: (&rule.judged).into(),
    });
    let document = Document {
        format: "migcast.rules/1",
        guest: &of.guest,
        link_bits_per_second: of.link.bits(),
        max_migration_time_seconds: of.promise.time,
        probability: of.promise.probability,
        rules: rows.collect(),
    };
    serde_json::to_writer_pretty(&mut *out, &document)?;
    writeln!(out)
}
