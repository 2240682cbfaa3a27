//! `migcast-lab verify`: record, forecast, migrate for real, compare.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use migcast_history::observed::{self, Observed};
use migcast_lab::comparison::{self, Case};
use migcast_lab::connection::{PORT, Route};
use migcast_lab::cores::Reserved;
use migcast_lab::features::{Features, ask_alike};
use migcast_lab::interrupt::Interrupt;
use migcast_lab::link::{End, ShapedLink};
use migcast_lab::machine::{Machine, Spec};
use migcast_lab::migration::{self, NO_CAP, Prepared, Terms};
use migcast_lab::runtime::RuntimeDir;
use migcast_lab::{process, recording, throttle};
use migcast_model::quantity::{parse_duration, parse_rate};
use migcast_model::units::BytesPerSec;

use super::guest::{self, Boot};

/// What is recorded just before a migration, in a folder of its own.
const LEAD: &str = "lead";
/// The file of observed migrations within a results folder.
const OBSERVED: &str = "observed.jsonl";

/// How forecasts are held against reality.
#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// Guests, each booted and recorded once
    #[arg(long = "guest", value_name = "NAME", required = true)]
    guests: Vec<String>,
    /// Line rate and downtime limit of a case, with capabilities if any, e.g. 400Mbit/s@300ms or
    /// 400Mbit/s@300ms+auto-converge=on+max-bandwidth=20MB/s
    #[arg(long = "case", value_name = "LINK@LIMIT[+KEY=VALUE]…", default_value = "400Mbit/s@300ms", value_parser = parse_case)]
    cases: Vec<AskedCase>,
    /// Migrations of each guest and case
    #[arg(long, default_value_t = 1)]
    runs: u32,
    /// How long each guest is recorded
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_duration)]
    record: Duration,
    #[command(flatten)]
    recorder: RecorderOptions,
    /// A migration that still copies then is cancelled, as not converging
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_duration)]
    give_up: Duration,
    /// What the hosts cost: a platform file
    #[arg(long, value_name = "FILE")]
    platform: Option<PathBuf>,
    /// Where histories and results go; results are appended
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    #[command(flatten)]
    boot: Boot,
}

/// What the recorder is told beside its defaults.
#[derive(Debug, Args)]
struct RecorderOptions {
    /// Record by QEMU's dirty log
    #[arg(long)]
    dirty_log: bool,
    /// Length of a window; the recorder's own if nothing is said
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    window: Option<Duration>,
    /// Record for so long before each migration, too, until it begins: what the guest is doing then is part of the forecast
    #[arg(long, value_name = "TIME", value_parser = parse_duration, requires = "dirty_log")]
    lead: Option<Duration>,
}

impl RecorderOptions {
    fn options(&self) -> Vec<String> {
        let log = self.dirty_log.then(|| "--dirty-log".to_owned());
        let window = self.window.map(|window| format!("--window={}us", window.as_micros()));
        log.into_iter().chain(window).collect()
    }
}

/// A case as it is asked for.
#[derive(Clone, Copy, Debug)]
struct AskedCase {
    link: BytesPerSec,
    downtime_limit: Duration,
    features: Features,
}

pub(crate) fn verify(args: &Verify, interrupt: &Interrupt) -> Result<()> {
    fs::create_dir_all(&args.out).with_context(|| args.out.display().to_string())?;
    let link = ShapedLink::make(BytesPerSec::from_bits(1_000_000_000))?;
    let reserved = Reserved::take()?;
    for name in &args.guests {
        let spec = Spec { vcpu_core: reserved.as_ref().map(Reserved::core), ..args.boot.spec(name)? };
        verify_guest(args, &spec, &link, interrupt)?;
    }
    drop(reserved);
    let (dirs, platform) = (vec![args.out.clone()], args.platform.clone());
    let compare = Compare { dirs, platform, without: Vec::new(), json: None, kept: Vec::new(), explain: false };
    self::compare(&compare)
}

/// What really happened, held against what each history foretold.
#[derive(Debug, Args)]
pub(crate) struct Compare {
    /// Folders that `verify` has filled
    #[arg(required = true, value_name = "DIR")]
    dirs: Vec<PathBuf>,
    /// What the hosts cost: a platform file
    #[arg(long, value_name = "FILE")]
    platform: Option<PathBuf>,
    /// Leave a guest out, over one link or all: what the platform was fitted to
    #[arg(long = "without", value_name = "NAME[@LINK]", value_parser = parse_without)]
    without: Vec<Without>,
    /// Say of each case outside the goals where it first differs from its forecast
    #[arg(long)]
    explain: bool,
    /// Write every case with its prediction into this file, a JSON object a line
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Take the predictions from such a file instead of making them anew, one for each folder
    #[arg(long, value_name = "FILE", conflicts_with_all = ["platform", "json"])]
    kept: Vec<PathBuf>,
}

/// A guest, over one link or all.
#[derive(Clone, Debug)]
struct Without {
    guest: String,
    link: Option<BytesPerSec>,
}

impl Without {
    fn is(&self, observed: &Observed) -> bool {
        self.guest == observed.guest && self.link.is_none_or(|link| link.bits() == observed.link_bits_per_second)
    }
}

fn parse_without(text: &str) -> Result<Without, String> {
    let (guest, link) = text.split_once('@').map_or((text, None), |(guest, link)| (guest, Some(link)));
    let link = link.map(|link| parse_rate(link).map_err(|error| error.to_string())).transpose()?;
    Ok(Without { guest: guest.to_owned(), link })
}

/// Forecasts each observed migration from what its guest had left in its history *before* it, and prints the table.
pub(crate) fn compare(args: &Compare) -> Result<()> {
    let (folders, kept) = (args.dirs.len(), args.kept.len());
    ensure!(kept == 0 || kept == folders, "--kept: given {kept} times, allowed: once for each of {folders} folders");
    let mut cases = Vec::new();
    for (index, dir) in args.dirs.iter().enumerate() {
        let mut observed = observed::read(&dir.join(OBSERVED))?;
        observed.retain(|observed| !args.without.iter().any(|without| without.is(observed)));
        cases.extend(match args.kept.get(index) {
            Some(kept) => comparison::kept(kept, observed)?,
            None => comparison::forecast(&recording::program()?, dir, observed, args.platform.as_deref())?,
        });
    }
    let disturbed: Vec<Case> = cases.extract_if(.., |case| case.is_disturbed()).collect();
    for case in disturbed {
        let (cores, described) =
            (case.observed.other_cpu_cores.unwrap_or_default(), migration::describe(&case.observed));
        say!("left out, {cores:.2} cores were used by others: {described}");
    }
    if let Some(path) = &args.json {
        let lines: Result<Vec<String>, _> = cases.iter().map(serde_json::to_string).collect();
        fs::write(path, lines?.join("\n") + "\n").with_context(|| path.display().to_string())?;
    }
    say!("{}\n{}", comparison::table(&cases), comparison::summary(&cases));
    if args.explain {
        say!("{}", comparison::explanations(&cases));
        let slowed = cases.iter().filter_map(|case| Some((case, throttle::describe(&case.observed.throttle)?)));
        slowed.for_each(|(case, line)| say!("- {}: {line}", case.title()));
    }
    Ok(())
}

/// Boots one guest, records it, and migrates it to and fro.
fn verify_guest(args: &Verify, spec: &Spec, link: &ShapedLink, interrupt: &Interrupt) -> Result<()> {
    let name = spec.guest.name;
    let missing = missing(args, name)?;
    if missing.is_empty() {
        eprintln!("{name}: every migration asked for is in the results already");
        return Ok(());
    }
    let images = guest::images(spec.guest)?;
    let program = recording::program()?;
    let mut machine = Machine::start(&images, spec, interrupt)?;
    machine.wait_ready(interrupt)?;
    let history = record(&args.out, (name, args.record), &args.recorder.options(), &program, &machine)?;
    let mut at = End::Here;
    for terms in missing {
        link.shape(terms.link)?;
        let route = Route { link, from: at, port: PORT };
        let prepared = Prepared::new(machine, route, spec, &images, terms, interrupt)?;
        let ends = prepared.pids();
        let lead = args.recorder.lead.map(|span| {
            let folder = RuntimeDir::make()?;
            let (lead, options) = (folder.path().join(LEAD), args.recorder.options());
            process::run(&mut recording::command(&program, prepared.source(), &lead, (name, span), &options))?;
            Ok::<_, anyhow::Error>(folder)
        });
        let lead = lead.transpose()?;
        let migrated = prepared.begin(&ends)?.finish(interrupt)?;
        let mut observed = migrated.observed;
        (machine, at) = (migrated.machine, migrated.at);
        observed.history = Some(PathBuf::from(history.file_name().context("a history has a name")?));
        eprintln!("{}", migration::describe(&observed));
        observed::append(&args.out.join(OBSERVED), &observed)?;
        if let Some(folder) = lead {
            recording::lay_behind(&history, &folder.path().join(LEAD))?;
        }
    }
    Ok(())
}

/// Every case, as often as asked, less what the results hold already.
fn missing(args: &Verify, guest: &str) -> Result<Vec<Terms>> {
    let file = args.out.join(OBSERVED);
    let mut done = if file.exists() { observed::read(&file)? } else { Vec::new() };
    done.retain(|observed| observed.guest == guest);
    let terms = |case: &AskedCase| Terms {
        link: case.link,
        downtime_limit: case.downtime_limit,
        max_bandwidth: case.features.max_bandwidth.unwrap_or(BytesPerSec::new(NO_CAP)),
        give_up: args.give_up,
        features: case.features,
    };
    let mut missing: Vec<Terms> = (0..args.runs).flat_map(|_| args.cases.iter().map(terms)).collect();
    missing.retain(|terms| {
        let same =
            |of: &Observed| of.link_bits_per_second == terms.link.bits() && ask_alike(&of.settings, &terms.settings());
        // Each migration seen stands for one that is asked for.
        done.iter().position(same).map(|index| done.swap_remove(index)).is_none()
    });
    Ok(missing)
}

fn parse_case(text: &str) -> Result<AskedCase, String> {
    let (case, features) = text.split_once('+').map_or((text, None), |(case, features)| (case, Some(features)));
    let (link, limit) = case.split_once('@').ok_or("a case is LINK@LIMIT, such as 400Mbit/s@300ms")?;
    let features = features.map(|features| features.parse().map_err(|error: anyhow::Error| error.to_string()));
    Ok(AskedCase {
        link: parse_rate(link).map_err(|error| error.to_string())?,
        downtime_limit: parse_duration(limit).map_err(|error| error.to_string())?,
        features: features.transpose()?.unwrap_or_default(),
    })
}

/// Records a guest as a user would, into a new folder within `out`.
pub(super) fn record(
    out: &Path,
    (name, span): (&str, Duration),
    options: &[String],
    program: &Path,
    machine: &Machine,
) -> Result<PathBuf> {
    let history = recording::free_folder(out, name)?;
    process::run(&mut recording::command(program, machine, &history, (name, span), options))?;
    ensure!(history.is_dir(), "migcast record made no history");
    Ok(history)
}
