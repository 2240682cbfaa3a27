//! `migcast rules`: when hypervisors and managers would have stopped this guest, and how a rule that knows its past does.

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, ensure};
use indicatif::ProgressBar;
use migcast_model::algorithm::Algorithm;
use migcast_model::forecast::thinned;
use migcast_model::outcome::{Completed, Iteration};
use migcast_model::quantity::write_duration;
use migcast_model::units::SimTime;
use migcast_plan::stop::{Reading, Step, thresholds};
use migcast_plan::tune::{Promise, Score};
use rayon::prelude::*;

use super::past::Past;
use super::scenario::{self, Options};
use super::sla::parse_percent;
use super::subject::Subject;
use super::sweep::progress_bar;
use super::tune::knobs::{self, Candidate, Promised};
use crate::report::{self, Prediction, Ruled, RulesAnswer};

/// Starting points of each half.
const STARTS_MAX: usize = 100;
/// Settings tried of each rule.
const CANDIDATES_MAX: usize = 24;
/// Shares of the time allowed, in percent, after which a migration under a schedule is forced: the rest is for what is left.
const DECIDED_AFTER: [u32; 4] = [95, 90, 80, 65];
/// No guest is migrated for longer.
const TIME_MAX: Duration = Duration::from_secs(7 * 86_400);
/// The proposal's name in the model.
const SCHEDULE: &str = "schedule";

/// Who decides: an algorithm, and the manager above it.
const RULES: [(&str, Option<&str>); 9] = [
    ("qemu", None),
    ("qemu", Some("libvirt")),
    ("qemu", Some("nova")),
    ("qemu", Some("kubevirt")),
    ("qemu", Some("proxmox")),
    ("qemu", Some("vdsm")),
    ("xen-classic", None),
    ("xen-4.10", None),
    ("cloud-hypervisor", None),
];

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example: migcast rules testdata/histories/phases --link 1Gbit/s --max-time 30s\n\nEach rule's limits are chosen on the \
    first half of the history, for the least downtime within the time, and judged on the second. See docs/answers.md."
)]
pub(crate) struct Args {
    #[command(flatten)]
    subject: Subject,
    /// The time that is allowed
    #[arg(long, value_name = "TIME", value_parser = scenario::parse_positive)]
    max_time: Duration,
    /// Which share of migrations is to stay within it, and at which quantile downtimes are compared
    #[arg(long, value_name = "PERCENT", default_value = "95%", value_parser = parse_percent)]
    probability: f64,
    /// Largest downtime limit that is tried
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = scenario::parse_positive)]
    max_downtime: Duration,
    /// Print JSON (migcast.rules/1) instead of text
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let options = &args.subject.options;
    let dir = args.subject.history.as_ref().context("rules are judged on a history: give its directory")?;
    ensure!(
        options.start.is_everywhere() && options.as_of.is_none(),
        "--start and --as-of have no meaning here: every starting point of the history is looked at"
    );
    ensure!(
        options.algorithm.is_none() && options.manager.is_none() && options.settings.is_empty(),
        "--algorithm, --manager and --set have no meaning here: each rule is tried with settings of its own"
    );
    ensure!(args.max_time <= TIME_MAX, "--max-time: at most a week");
    let halves = Past::halves(dir, options)?;
    let halves = halves.context("the history cannot be cut in two: record longer, or with pages")?;
    let promise = Promise { time: args.max_time.as_secs_f64(), downtime: f64::INFINITY, probability: args.probability };
    let progress = progress_bar(RULES.len() + 1, "rules");
    let mut rules: Vec<Ruled> = Vec::new();
    for (algorithm, manager) in RULES {
        let candidates = candidates(args, &halves[0], algorithm, manager)?;
        rules.push(ruled(args, &halves, (algorithm, manager), &candidates, &promise)?);
        progress.inc(1);
    }
    let schedules = schedules(args, &halves[0])?;
    rules.push(ruled(args, &halves, ("qemu", Some(SCHEDULE)), &schedules, &promise)?);
    progress.finish_and_clear();
    let answer = RulesAnswer { guest: halves[0].guest().name.clone(), link: args.subject.link, promise, rules };
    let out = &mut io::stdout().lock();
    if args.json { report::write_rules_json(out, &answer) } else { report::write_rules(out, &answer) }
        .context("standard output")?;
    Ok(ExitCode::SUCCESS)
}

/// Chooses a rule's settings on the first half, and judges them on the second.
fn ruled(
    args: &Args,
    [first, second]: &[Past; 2],
    rule: (&'static str, Option<&'static str>),
    candidates: &[Candidate],
    promise: &Promise,
) -> anyhow::Result<Ruled> {
    let score = |past: &Past, candidate: &Candidate| -> anyhow::Result<Score> {
        Ok(Score::of(&forecast(args, past, rule, candidate)?.ways(), promise))
    };
    let scores: Vec<Score> =
        candidates.par_iter().map(|candidate| score(first, candidate)).collect::<anyhow::Result<_>>()?;
    let in_time = |index: &usize| scores[*index].time <= promise.time;
    let all = 0..scores.len();
    let least = |by: &dyn Fn(&Score) -> f64, among: Vec<usize>| {
        among.into_iter().min_by(|a, b| by(&scores[*a]).total_cmp(&by(&scores[*b])))
    };
    let chosen = least(&|score| score.downtime, all.clone().filter(in_time).collect());
    let chosen = chosen.or_else(|| least(&|score| score.time, all.collect())).context("no setting was tried")?;
    let (algorithm, manager) = rule;
    let candidate = candidates[chosen].clone();
    Ok(Ruled { algorithm, manager, chosen_on: scores[chosen], judged: score(second, &candidate)?, candidate })
}

fn forecast(
    args: &Args,
    past: &Past,
    (algorithm, manager): (&str, Option<&str>),
    candidate: &Candidate,
) -> anyhow::Result<Prediction> {
    let mut request = args.subject.request_within(args.max_time, STARTS_MAX);
    let options = &mut request.options;
    options.algorithm = Some(algorithm.to_owned());
    options.manager = manager.map(str::to_owned);
    options.settings.clone_from(candidate);
    // What no rule is about: QEMU's cap is lifted, as every manager does.
    if algorithm == "qemu" && candidate.iter().all(|(key, _)| key != "max-bandwidth") {
        options.settings.push(("max-bandwidth".to_owned(), "none".to_owned()));
    }
    past.forecast(&request, &ProgressBar::hidden())
}

/// Settings of a rule, evenly thinned out.
fn candidates(args: &Args, past: &Past, algorithm: &str, manager: Option<&str>) -> anyhow::Result<Vec<Candidate>> {
    let promised = Promised { time: args.max_time, downtime: args.max_downtime };
    let mut options = args.subject.options.clone();
    options.algorithm = Some(algorithm.to_owned());
    options.manager = manager.map(str::to_owned);
    let made = |settings: &[(String, String)]| -> anyhow::Result<Algorithm> {
        let options = Options { settings: settings.to_vec(), ..options.clone() };
        Ok(options.algorithm(past.guest(), Some(past.manifest()))?.0)
    };
    let cap = ("max-bandwidth".to_owned(), "none".to_owned());
    let [limits, ..] = knobs::stages(&made(&[])?, &[cap], promised);
    let taken: Vec<Candidate> = limits.into_iter().filter(|candidate| made(candidate).is_ok()).collect();
    let places: Vec<usize> = (0..taken.len()).collect();
    Ok(thinned(&places, CANDIDATES_MAX).into_iter().map(|place| taken[place].clone()).collect())
}

/// Schedules of downtime limits that would have been best in this past.
fn schedules(args: &Args, past: &Past) -> anyhow::Result<Vec<Candidate>> {
    let pause = |after: Duration| ("pause-after".to_owned(), write_duration(after));
    let never = vec![pause(args.max_time), ("downtime-limit".to_owned(), "1ms".to_owned())];
    let watched = forecast(args, past, ("qemu", Some(SCHEDULE)), &never)?;
    let scenario = &watched.scenario;
    let per_page = scenario.guest.page_size.get() as f64 / scenario.link.goodput().get() as f64;
    let reading = |iteration: &Iteration| Reading {
        at: iteration.start.since(SimTime::ZERO).as_secs_f64(),
        downtime: iteration.due_at_start.get() as f64 * per_page,
    };
    // The first iteration begins with everything, the last after the guest was stopped.
    let readings = |done: &Completed| -> Vec<Reading> {
        let live = done.iterations.get(1..done.iterations.len().saturating_sub(1)).unwrap_or_default();
        live.iter().map(reading).collect()
    };
    let seen: Vec<Vec<Reading>> = watched.forecast.completed().map(readings).collect();
    let schedule = |percent: u32| {
        let decided = args.max_time.saturating_mul(percent) / 100;
        let steps = thresholds(&seen, decided.as_secs_f64());
        let written = |Step { from, downtime }: &Step| {
            let millis = |seconds: f64| Duration::from_millis((seconds * 1e3).ceil().max(1.0) as u64);
            let from = if *from > 0.0 { write_duration(millis(*from)) } else { "0s".to_owned() };
            format!("{from}={}", write_duration(millis(*downtime)))
        };
        let limits = steps.iter().map(written).collect::<Vec<_>>().join(",");
        let limits = if limits.is_empty() { "none".to_owned() } else { limits };
        // Whole milliseconds, as the setting wants.
        let after = Duration::from_millis(decided.as_millis().max(1) as u64);
        vec![("limits".to_owned(), limits), pause(after), ("downtime-limit".to_owned(), "1ms".to_owned())]
    };
    Ok(DECIDED_AFTER.map(schedule).to_vec())
}
