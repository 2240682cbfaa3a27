//! `migcast tune`: settings that keep a promise about migration time and downtime, at the least harm.

pub(super) mod knobs;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, anyhow, ensure};
use indicatif::ProgressBar;
use knobs::{Candidate, Promised};
use migcast_plan::tune::{Promise, Score, choose, front};
use rayon::prelude::*;

use super::past::Past;
use super::scenario;
use super::sla::parse_percent;
use super::subject::Subject;
use super::sweep::progress_bar;
use super::sweep::vary::{self, Vary};
use crate::report::{self, PlotFormat, Prediction, Tried, TuneAnswer};

/// Starting points of each half, for each candidate: a hundred tell 95 % from 97 %.
const STARTS_MAX: usize = 100;
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Settings that are tried if --try says nothing: limits of the algorithm first; where none of them keeps the \
    promise auto-converge, too; where that does not either post-copy. What --set says is left alone.\n\nExamples:\n  \
    migcast tune testdata/histories/sort --link 1Gbit/s --max-time 20s --max-downtime 200ms\n  \
    migcast tune DIR --link 10Gbit/s --max-time 60s --max-downtime 500ms --manager nova --probability 99%\n  \
    migcast tune DIR --link 1Gbit/s --max-time 30s --max-downtime 1s --try downtime-limit=50ms:1s:x1.5 --try multifd=off,on"
)]
pub(crate) struct Args {
    #[command(flatten)]
    subject: Subject,
    /// The promise: a migration is over after this time
    #[arg(long, value_name = "TIME", value_parser = scenario::parse_positive)]
    max_time: Duration,
    /// The promise: the guest is down no longer than this
    #[arg(long, value_name = "TIME", value_parser = scenario::parse_positive)]
    max_downtime: Duration,
    /// How often it is to be kept
    #[arg(long, value_name = "PERCENT", default_value = "95%", value_parser = parse_percent)]
    probability: f64,
    /// Try these values of a setting, and of no others but those of other --try
    #[arg(long = "try", value_name = "KEY=VALUES", value_parser = vary::parse)]
    tries: Vec<Vary>,
    /// Print JSON (migcast.tune/1) instead of text
    #[arg(long)]
    json: bool,
    /// Draw time against downtime of all that was tried into a file
    #[arg(long, value_name = "FILE.svg|.png")]
    plot: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if let Some(path) = &args.plot {
        PlotFormat::of(path)?;
    }
    ensure!(
        args.subject.options.start.is_everywhere() && args.subject.options.as_of.is_none(),
        "--start and --as-of have no meaning here: a promise is about every starting point of the history"
    );
    let promise = Promise {
        time: args.max_time.as_secs_f64(),
        downtime: args.max_downtime.as_secs_f64(),
        probability: args.probability,
    };
    let past = args.subject.past()?;
    let halves =
        args.subject.history.as_ref().map(|dir| Past::halves(dir, &args.subject.options)).transpose()?.flatten();
    let (first, second) = match &halves {
        Some([first, second]) => (Some(first), Some(second)),
        None => (past.as_ref(), None),
    };
    let stands = forecast(args, past.as_ref(), &Candidate::new())?;
    let tried = tried(args, &stands, first, &promise)?;
    let scores: Vec<Score> = tried.iter().map(|tried| tried.score).collect();
    let unchanged = tried.iter().position(|tried| tried.candidate.is_empty());
    let choice = choose(&scores, unchanged, &promise).context("nothing was tried")?;
    let chosen = &tried[choice.index()].candidate;
    let score = |prediction: &Prediction| Score::of(&prediction.ways(), &promise);
    let judged = second.map(|second| forecast(args, Some(second), chosen)).transpose()?;
    let stood = score(&stands);
    let answer = TuneAnswer {
        // What stands was forecast already.
        whole: if chosen.is_empty() { stands } else { forecast(args, past.as_ref(), chosen)? },
        stood,
        judged: judged.as_ref().map(score),
        promise,
        front: front(&scores),
        tried: &tried,
        choice,
    };
    let out = &mut io::stdout().lock();
    if args.json { report::write_tune_json(out, &answer) } else { report::write_tune(out, &answer) }
        .context("standard output")?;
    if let Some(path) = &args.plot {
        report::draw_tune(&answer, path)?;
    }
    Ok(ExitCode::from(if answer.is_kept() { 0 } else { 3 }))
}

/// Tries what was asked for or, stage by stage until the promise is kept, what is worth a try.
fn tried(args: &Args, stands: &Prediction, past: Option<&Past>, promise: &Promise) -> anyhow::Result<Vec<Tried>> {
    let fixed = &args.subject.options.settings;
    if !args.tries.is_empty() {
        let candidates = knobs::asked(&args.tries, fixed)?;
        candidates.iter().try_for_each(|candidate| {
            algorithm_with(args, stands, candidate).map_err(|error| {
                let reason = error.root_cause().to_string();
                anyhow!("--try: {}", reason.strip_prefix("--set ").unwrap_or(&reason))
            })
        })?;
        return scored(args, past, &candidates, promise);
    }
    let promised = Promised { time: args.max_time, downtime: args.max_downtime };
    let mut all: Vec<Tried> = Vec::new();
    for stage in knobs::stages(&stands.scenario.algorithm, fixed, promised) {
        // Not every combination is one that the hypervisor or its manager takes.
        let is_taken = |candidate: &&Candidate| algorithm_with(args, stands, candidate).is_ok();
        let candidates: Vec<Candidate> = stage.iter().filter(is_taken).cloned().collect();
        all.extend(scored(args, past, &candidates, promise)?);
        if all.iter().any(|tried| tried.score.keeps(promise)) {
            break;
        }
    }
    Ok(all)
}

/// Whether the algorithm takes these settings beside those that were stated.
fn algorithm_with(args: &Args, stands: &Prediction, candidate: &Candidate) -> anyhow::Result<()> {
    let mut options = args.subject.options.clone();
    options.settings.extend(candidate.iter().cloned());
    options.algorithm.get_or_insert_with(|| stands.scenario.algorithm.name().to_owned());
    options.algorithm(&stands.scenario.guest, None).map(|_| ())
}

fn scored(args: &Args, past: Option<&Past>, candidates: &[Candidate], promise: &Promise) -> anyhow::Result<Vec<Tried>> {
    let progress = progress_bar(candidates.len(), "settings");
    let tried = candidates.par_iter().map(|candidate| -> anyhow::Result<Tried> {
        let prediction = forecast(args, past, candidate)?;
        progress.inc(1);
        Ok(Tried { candidate: candidate.clone(), score: Score::of(&prediction.ways(), promise) })
    });
    let tried = tried.collect();
    progress.finish_and_clear();
    tried
}

fn forecast(args: &Args, past: Option<&Past>, candidate: &Candidate) -> anyhow::Result<Prediction> {
    let mut request = args.subject.request_within(args.max_time, STARTS_MAX);
    request.options.settings.extend(candidate.iter().cloned());
    args.subject.forecast_from(past, &request, &ProgressBar::hidden())
}
