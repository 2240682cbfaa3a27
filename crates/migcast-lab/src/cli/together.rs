//! `migcast-lab together`: several guests migrated in one go, in the orders of `migcast plan`, beside its forecasts.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use migcast_dirty::pattern::Pattern;
use migcast_lab::features::{Features, ask_alike};
use migcast_lab::interrupt::Interrupt;
use migcast_lab::link::ShapedLink;
use migcast_lab::machine::Spec;
use migcast_lab::migration::{NO_CAP, Terms};
use migcast_lab::recording;
use migcast_lab::together::comparison::{self, Case};
use migcast_lab::together::fleet::{self, Entry};
use migcast_lab::together::kept::{self, OWN_SHARE_MAX, Trial};
use migcast_lab::together::member::{self, About, Member};
use migcast_lab::together::plan::Plan;
use migcast_lab::together::trial::{self, Tried};
use migcast_model::quantity::{parse_duration, parse_rate};
use migcast_model::units::BytesPerSec;

use super::guest::{self, Boot};

/// How a fleet is migrated.
#[derive(Debug, Args)]
pub(crate) struct Together {
    /// Guests: of the catalogue, or under a name of their own with a pattern of the microbenchmark
    #[arg(long = "guest", value_name = "NAME[=PATTERN]", default_values = DEFAULT_GUESTS, value_parser = parse_guest)]
    guests: Vec<Asked>,
    /// Policies of the plan, each tried as often as `--runs` says
    #[arg(long = "policy", value_name = "NAME", default_values = ["planned", "one-after-the-other", "all-at-once"])]
    policies: Vec<String>,
    /// The link between the two hosts
    #[arg(long, value_name = "RATE", default_value = "200Mbit/s", value_parser = parse_rate)]
    link: BytesPerSec,
    /// QEMU's downtime-limit of every guest
    #[arg(long, value_name = "TIME", default_value = "300ms", value_parser = parse_duration)]
    downtime_limit: Duration,
    /// Capabilities and the cap of each guest, which may be max-bandwidth=none
    #[arg(long = "set", value_name = "KEY=VALUE", default_value = DEFAULT_SETTING)]
    settings: Vec<String>,
    /// Trials of each policy
    #[arg(long, default_value_t = 1)]
    runs: u32,
    /// How long the guests are recorded
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_duration)]
    record: Duration,
    /// A migration that still copies then is cancelled, as not converging
    #[arg(long, value_name = "TIME", default_value = "300s", value_parser = parse_duration)]
    give_up: Duration,
    /// What the hosts cost: a platform file
    #[arg(long, value_name = "FILE")]
    platform: Option<PathBuf>,
    /// Carry out this plan, as `migcast plan --json` wrote it, instead of asking for one
    #[arg(long, value_name = "FILE")]
    plan: Option<PathBuf>,
    /// Where histories, plans and results go; results are appended
    #[arg(long, value_name = "DIR", required_unless_present = "compare")]
    out: Option<PathBuf>,
    /// Only hold what such a folder has against the forecasts made before it; with --platform, against new ones
    #[arg(long, value_name = "DIR", conflicts_with = "out")]
    compare: Option<PathBuf>,
    #[command(flatten)]
    boot: Boot,
}

/// Two guests that cannot keep up with a quarter of the link, and two that take long: all at once, the first two send their
/// pages again and again until the others are through.
const DEFAULT_GUESTS: [&str; 4] = [
    "steady",
    "skewed=hot-cold:rate=2000,pages=40000,hot-pages=0.1,hot-writes=0.9",
    "calm=uniform:rate=300,pages=60000",
    "slow=sequential:rate=200,pages=60000",
];
/// What two guests can have of 200 Mbit/s: one after the other they leave half of it.
const DEFAULT_SETTING: &str = "max-bandwidth=11MB/s";
/// What a guest with a pattern of its own is booted as.
const OWN_PATTERN: &str = "steady";
/// How long the guests' own load is looked at before each trial: as long as a phase of `phases` and its pause.
const OWN_LOAD_SPAN: Duration = Duration::from_secs(15);

/// A guest as it is asked for.
#[derive(Clone, Debug)]
struct Asked {
    name: String,
    pattern: Option<Pattern>,
}

fn parse_guest(text: &str) -> Result<Asked, String> {
    let (name, pattern) = text.split_once('=').map_or((text, None), |(name, pattern)| (name, Some(pattern)));
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || letter == '-' || letter == '_';
    if name.is_empty() || !name.chars().all(is_plain) {
        return Err("a guest's name has letters, digits, - and _".to_owned());
    }
    let pattern = pattern.map(|pattern| pattern.parse::<Pattern>().map_err(|error| error.to_string())).transpose()?;
    Ok(Asked { name: name.to_owned(), pattern })
}

pub(crate) fn together(args: &Together, interrupt: &Interrupt) -> Result<()> {
    if let Some(folder) = &args.compare {
        return compare(folder, args.platform.as_deref());
    }
    ensure!(args.boot.pattern.is_none(), "--pattern: here each guest has its own, --guest NAME=PATTERN");
    let out = args.out.as_deref().context("--out is missing")?;
    fs::create_dir_all(out).with_context(|| out.display().to_string())?;
    let terms = terms(args)?;
    let missing = missing(args, out, terms)?;
    if missing.is_empty() {
        eprintln!("every trial asked for is in the results already");
    } else {
        try_policies(args, out, terms, &missing, interrupt)?;
    }
    compare(out, None)
}

/// Holds what a folder has against its forecasts, or, with hosts, against what is forecast for them now.
fn compare(folder: &Path, platform: Option<&Path>) -> Result<()> {
    let (mut cases, mut lines) = comparison::sound(comparison::read(folder)?);
    if platform.is_some() {
        let program = recording::program()?;
        let ask = |trial: &Trial| {
            let fleet = folder.join(fleet::of_plan(&trial.plan)?);
            Plan::parse(&fleet::ask(&program, &fleet, &trial.settings, platform)?)
        };
        lines.extend(comparison::forecast_again(&mut cases, ask)?);
    }
    lines.iter().for_each(|line| say!("{line}"));
    ensure!(!cases.is_empty(), "{}: no trial that says anything", folder.display());
    say!("{}\n{}", comparison::table(&cases), comparison::summary(&cases));
    Ok(())
}

fn terms(args: &Together) -> Result<Terms> {
    let mut features = Features::default();
    args.settings.iter().try_for_each(|setting| features.set(setting)).context("--set")?;
    Ok(Terms {
        link: args.link,
        downtime_limit: args.downtime_limit,
        max_bandwidth: features.max_bandwidth.unwrap_or(BytesPerSec::new(NO_CAP)),
        give_up: args.give_up,
        features,
    })
}

/// Every policy, as often as asked, less what the results hold already. The policies take turns, so that a drift of the
/// machine falls on all alike.
fn missing(args: &Together, out: &Path, terms: Terms) -> Result<Vec<String>> {
    let mut done = if out.join(kept::FILE).exists() { kept::read(out)? } else { Vec::new() };
    let mut names: Vec<&str> = args.guests.iter().map(|guest| guest.name.as_str()).collect();
    names.sort_unstable();
    ensure!(names.windows(2).all(|pair| pair[0] != pair[1]), "--guest: two guests have the same name");
    done.retain(|trial| {
        let alike = trial.guests() == names && ask_alike(&trial.settings, &terms.settings());
        alike && trial.link_bits_per_second == terms.link.bits() && trial.fault().is_none()
    });
    let mut missing: Vec<String> = (0..args.runs).flat_map(|_| args.policies.iter().cloned()).collect();
    missing.retain(|policy| {
        // Each trial made stands for one that is asked for.
        let place = done.iter().position(|trial| trial.policy == *policy);
        place.map(|place| done.swap_remove(place)).is_none()
    });
    Ok(missing)
}

/// Boots and records the guests, asks for a plan, and tries the policies to and fro.
fn try_policies(args: &Together, out: &Path, terms: Terms, policies: &[String], interrupt: &Interrupt) -> Result<()> {
    let program = recording::program()?;
    let fleet: Vec<About> = (0..).zip(&args.guests).map(|(at, one)| boot(args, at, one)).collect::<Result<_>>()?;
    let link = ShapedLink::make(terms.link)?;
    let mut members = member::boot(fleet, interrupt)?;
    let load = own_load(&mut members, interrupt)?;
    let (cores, share) = (thread::available_parallelism().map_or(1, usize::from) as f64, OWN_SHARE_MAX);
    ensure!(
        load < share * cores,
        "void: the guests alone use {load:.2} of {cores} cores, allowed is less than {:.2}; ask for calmer ones",
        share * cores
    );
    let histories = member::record(&members, &program, out, args.record, interrupt)?;
    let (plan, plan_file) = make_plan(args, out, terms, &members, histories, &program)?;
    for name in policies {
        let policy = plan.policy(name)?;
        let guests_cpu_cores = own_load(&mut members, interrupt)?;
        let (tried, from) = (Tried { plan: &plan, policy }, members[0].at);
        let trial = trial::carry_out(tried, &mut members, &link, terms, interrupt)?;
        let trial = Trial { guests_cpu_cores, plan: plan_file.clone(), ..trial };
        kept::append(out, &trial)?;
        let case = Case { trial, forecast: policy.clone() };
        eprintln!("{}", comparison::describe(&case));
        case.trial.fault().iter().for_each(|fault| eprintln!("  {fault}"));
        trial::fetch(&mut members, from.other(), &link, terms, interrupt)?;
    }
    Ok(())
}

/// How one of the guests is booted, and from what.
fn boot(args: &Together, number: u64, asked: &Asked) -> Result<About> {
    let catalogued = if asked.pattern.is_some() { OWN_PATTERN } else { asked.name.as_str() };
    let spec = Spec { pattern: asked.pattern.clone(), seed: args.boot.seed + number, ..args.boot.spec(catalogued)? };
    let images = guest::images(spec.guest)?;
    Ok(About { name: asked.name.clone(), spec, images })
}

fn own_load(members: &mut [Member], interrupt: &Interrupt) -> Result<f64> {
    let load = member::own_load(members, OWN_LOAD_SPAN, interrupt)?;
    eprintln!("the guests' vCPUs use {load:.2} cores");
    Ok(load)
}

/// Writes the fleet file and asks for the plan, or takes the one that is given; both are kept beside the histories.
fn make_plan(
    args: &Together,
    out: &Path,
    terms: Terms,
    members: &[Member],
    histories: Vec<String>,
    program: &Path,
) -> Result<(Plan, PathBuf)> {
    let entries = members.iter().zip(histories).map(|(member, history)| Entry {
        name: member.about.name.clone(),
        memory_mib: member.about.spec.memory_mib,
        history,
    });
    let taken = |number: &u32| fleet::files(*number).iter().any(|name| out.join(name).exists());
    let number = (1..).find(|number| !taken(number)).context("no free number")?;
    let [fleet_file, plan_file] = fleet::files(number);
    let fleet_file = out.join(fleet_file);
    let text = fleet::text(terms.link, &entries.collect::<Vec<_>>());
    fs::write(&fleet_file, text).with_context(|| fleet_file.display().to_string())?;
    let said = match &args.plan {
        Some(given) => fs::read_to_string(given).with_context(|| given.display().to_string())?,
        None => fleet::ask(program, &fleet_file, &terms.settings(), args.platform.as_deref())?,
    };
    fs::write(out.join(&plan_file), &said).with_context(|| plan_file.clone())?;
    Ok((Plan::parse(&said)?, PathBuf::from(plan_file)))
}
