//! `migcast plan`: in which order guests are moved, how many at once and where to; `migcast drain-time`: how long that takes
//! under the platform's own limits.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use migcast_model::units::BytesPerSec;
use migcast_model::world::Limits;
use migcast_plan::schedule::Schedule;
use migcast_plan::schedule::fleet::Draw;
use migcast_plan::schedule::objective::Objective;
use migcast_plan::schedule::planner::Planner;
use migcast_plan::schedule::policy::POLICIES;

use super::fleet::{self, Network, Pasts, Wanted, Who};
use super::past::Subject;
use super::scenario::{self, Options, QUANTILE};
use super::sweep::progress_bar;
use crate::inventory::{Inventory, Question};
use crate::report::{self, Plan, PlanAnswer, Searched};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example: migcast plan testdata/inventory/three-hosts.toml --evacuate c\n\nThe file, migcast.inventory/1, is \
    described in docs/plan.md."
)]
pub(crate) struct Args {
    #[command(flatten)]
    asked: Asked,
    /// What is to be least: the time until all are moved, the sum of downtimes, the longest downtime, the bytes sent, or the
    /// chance that it takes long
    #[arg(long, value_enum, default_value = "makespan")]
    objective: Least,
    /// How long is looked for a better schedule
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = scenario::parse_positive)]
    time_limit: Duration,
    /// Where the search's chance begins
    #[arg(long, value_name = "NUMBER", default_value_t = 2010)]
    seed: u64,
    /// Draw who is moved when into this file
    #[arg(long, value_name = "FILE.svg|.png")]
    plot: Option<PathBuf>,
    /// Write a script that carries the plan out
    #[arg(long, value_enum, requires = "out")]
    export: Option<report::Export>,
    /// Where that script goes
    #[arg(long, value_name = "FILE", requires = "export")]
    out: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example: migcast drain-time testdata/inventory/three-hosts.toml --evacuate c --policy kubevirt"
)]
pub(crate) struct DrainArgs {
    #[command(flatten)]
    asked: Asked,
    /// The platform's limits: one-after-the-other, kubevirt, two-per-host, all-at-once, largest-first, smallest-first
    #[arg(long, value_name = "NAME", default_value = "kubevirt", conflicts_with = "limits", value_parser = policy_name)]
    policy: &'static str,
}

/// What a plan and a drain are told alike.
#[derive(Clone, Debug, clap::Args)]
struct Asked {
    /// Hosts, links and guests: TOML, or JSON if it is called .json
    #[arg(value_name = "FILE")]
    inventory: PathBuf,
    #[command(flatten)]
    who: Who,
    /// It has to be over within this time
    #[arg(long, value_name = "TIME", value_parser = scenario::parse_positive)]
    within: Option<Duration>,
    /// The share of cases in which it has to be, exit code 3 if it is not
    #[arg(long, value_name = "Q", default_value_t = QUANTILE, value_parser = parse_quantile)]
    quantile: f64,
    /// How many may run at once, whoever decides: out of a host, into a host, in all; `-` for as many as there are
    #[arg(long, value_name = "OUT,IN,ALL", value_parser = parse_limits)]
    limits: Option<Limits>,
    /// In how many ways it may turn out [default: 100, fewer where there are many guests]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    draws: Option<u32>,
    /// Line rate of a host's link that says none of its own, instead of what the file says
    #[arg(long, value_name = "RATE", value_parser = scenario::parse_link)]
    link: Option<BytesPerSec>,
    #[command(flatten)]
    options: Options,
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Least {
    Makespan,
    DowntimeSum,
    WorstDowntime,
    Traffic,
    Chance,
}

impl Least {
    fn objective(self) -> Objective {
        match self {
            Least::Makespan => Objective::Makespan,
            Least::DowntimeSum => Objective::DowntimeSum,
            Least::WorstDowntime => Objective::DowntimeWorst,
            Least::Traffic => Objective::Traffic,
            Least::Chance => Objective::Chance,
        }
    }
}

fn policy_name(text: &str) -> Result<&'static str, String> {
    let known = POLICIES.iter().map(|policy| policy.name);
    let all: Vec<&str> = known.clone().collect();
    known.into_iter().find(|name| *name == text).ok_or_else(|| format!("`{text}` is not known: {}", all.join(", ")))
}

fn parse_quantile(text: &str) -> Result<f64, String> {
    let quantile = text.parse::<f64>().ok().filter(|quantile| *quantile > 0.0 && *quantile <= 1.0);
    quantile.ok_or_else(|| format!("`{text}` is not a quantile: more than 0, at most 1"))
}

fn parse_limits(text: &str) -> Result<Limits, String> {
    let limit = |part: &str| match part.trim() {
        "-" => Some(usize::MAX),
        number => number.parse().ok().filter(|limit| *limit > 0),
    };
    let parts: Option<Vec<usize>> = text.split(',').map(limit).collect();
    match parts.as_deref() {
        Some([out_of_host, into_host, in_all]) => {
            Ok(Limits { out_of_host: *out_of_host, into_host: *into_host, in_all: *in_all })
        }
        _ => Err(format!("`{text}` is not OUT,IN,ALL: three numbers of at least 1, or - for as many as there are")),
    }
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if let Some(path) = &args.plot {
        report::PlotFormat::of(path)?;
    }
    with_fleet(&args.asked, |of| {
        let objective = args.objective.objective();
        let (planned, searched) = planned(of, objective, args)?;
        let mut plans = of.plans_of_platforms()?;
        plans.insert(0, of.plan(report::PLANNED, String::new(), planned)?);
        // A search judges by few draws. What turns out better by many, and be it what platforms do, is the plan.
        let cost = |plan: &Plan| of.planner.cost(objective, &plan.runs);
        let best = (0..plans.len()).min_by(|a, b| cost(&plans[*a]).total_cmp(&cost(&plans[*b]))).unwrap_or_default();
        if best > 0 {
            let about = format!("as {} does", plans[best].name);
            plans[0] = Plan { name: report::PLANNED, about, ..plans[best].clone() };
        }
        let answer = of.answer(&plans, Some((objective.name(), &searched)));
        if let Some(path) = &args.plot {
            report::draw_plan(&answer, path)?;
        }
        if let (Some(export), Some(path)) = (args.export, &args.out) {
            std::fs::write(path, report::exported(export, &answer))
                .with_context(|| format!("--out {}", path.display()))?;
        }
        tell(&args.asked, &answer)
    })
}

pub(crate) fn drain_time(args: &DrainArgs) -> anyhow::Result<ExitCode> {
    with_fleet(&args.asked, |of| {
        let own = args.asked.limits.is_some();
        let mut plans = of.plans_of_platforms()?;
        plans.retain(|plan| plan.name == if own { report::OWN_LIMITS } else { args.policy });
        tell(&args.asked, &of.answer(&plans, None))
    })
}

fn tell(asked: &Asked, answer: &PlanAnswer<'_>) -> anyhow::Result<ExitCode> {
    let out = &mut io::stdout().lock();
    if asked.json { report::write_plan_json(out, answer) } else { report::write_plan(out, answer) }
        .context("standard output")?;
    Ok(if answer.is_kept() { ExitCode::SUCCESS } else { ExitCode::from(3) })
}

/// What is asked about, opened.
struct Opened<'a> {
    asked: &'a Asked,
    inventory: &'a Inventory,
    network: &'a Network,
    wanted: &'a [Wanted],
    subjects: &'a [Subject<'a>],
    planner: Planner<'a>,
    /// In which ways it may turn out.
    draws: Vec<Draw>,
}

/// Opens what the inventory names, checks that it can be carried out at all, and hands it on.
fn with_fleet(asked: &Asked, answer: impl FnOnce(&Opened<'_>) -> anyhow::Result<ExitCode>) -> anyhow::Result<ExitCode> {
    let mut inventory = Inventory::read(&asked.inventory, Question::Move)?;
    if let Some(link) = asked.link {
        let stated = std::mem::replace(&mut inventory.link, link);
        inventory.hosts.iter_mut().filter(|host| host.nic == stated).for_each(|host| host.nic = link);
    }
    let inventory = &inventory;
    let wanted = asked.who.wanted(inventory)?;
    let pasts = Pasts::open(inventory, &wanted, &asked.options)?;
    let subjects = pasts.subjects(inventory, &wanted, &asked.options)?;
    let network = Network::of(inventory, &asked.options)?;
    let planner = Planner::new(fleet::fleet(inventory, &network, &wanted, &subjects))
        .map_err(|(why, problem)| fleet::infeasible(&why, inventory, &wanted, &problem))?;
    let count = asked.draws.map_or(planner.draws_default(), |count| count as usize);
    let draws = planner.draws(count);
    answer(&Opened { asked, inventory, network: &network, wanted: &wanted, subjects: &subjects, planner, draws })
}

/// Looks for the best schedule.
fn planned(of: &Opened<'_>, objective: Objective, args: &Args) -> anyhow::Result<(Schedule, Searched)> {
    let (progress, began) = (progress_bar(0, "schedules"), Instant::now());
    let go_on = |judged: usize, all: usize, _least: f64| {
        progress.set_length(all as u64);
        progress.set_position(judged as u64);
        began.elapsed() < args.time_limit
    };
    let searched = of
        .planner
        .search(objective, of.limits(), args.seed, &go_on)
        .map_err(|why| fleet::stuck(why, of.inventory, of.wanted))?;
    progress.finish_and_clear();
    let told = Searched { judged: searched.found.judged, ran_out: searched.was_ended, seed: args.seed };
    Ok((searched.found.schedule, told))
}

impl Opened<'_> {
    /// What was stated, or none.
    fn limits(&self) -> Limits {
        self.asked.limits.unwrap_or(Limits::NONE)
    }

    /// What platforms do if nobody plans, and what the stated limits come to.
    fn plans_of_platforms(&self) -> anyhow::Result<Vec<Plan>> {
        let policy = |policy| self.planner.by_policy(policy, self.limits());
        let mut plans = POLICIES
            .iter()
            .map(|one| self.plan(one.name, one.about.to_owned(), policy(one)))
            .collect::<anyhow::Result<Vec<Plan>>>()?;
        if let Some(limits) = self.asked.limits {
            let schedule = self.planner.by_limits(limits);
            plans.push(self.plan(report::OWN_LIMITS, "the limits that were stated".to_owned(), schedule)?);
        }
        Ok(plans)
    }

    /// Carries a schedule out in every way it may turn out.
    fn plan(&self, name: &'static str, about: String, schedule: Schedule) -> anyhow::Result<Plan> {
        let runs = self.planner.runs(&schedule, &self.draws);
        let runs = runs.map_err(|why| fleet::stuck(why, self.inventory, self.wanted))?;
        let broken = self.planner.broken(&runs);
        Ok(Plan { name, about, schedule, runs, broken })
    }

    fn answer<'b>(&'b self, plans: &'b [Plan], searched: Option<(&'static str, &'b Searched)>) -> PlanAnswer<'b> {
        let platform = &self.subjects[0].scenario.platform;
        let mut warnings: Vec<String> = self.asked.options.unknown_hosts().into_iter().collect();
        for (one, subject) in self.wanted.iter().zip(self.subjects) {
            let name = &self.inventory.guests[one.guest].name;
            warnings.extend(subject.warnings.iter().map(|warning| format!("{name}: {warning}")));
        }
        PlanAnswer {
            inventory: self.inventory,
            guests: self.wanted.iter().map(|one| one.guest).collect(),
            emptied: &self.asked.who.evacuate,
            algorithms: self.subjects.iter().map(|subject| subject.scenario.algorithm.name()).collect(),
            platform: &platform.name,
            time_scatter: platform.time_scatter,
            pipes: &self.network.pipes,
            problem: &self.planner.problem,
            bound: self.planner.bound,
            plans,
            searched,
            within: self.asked.within,
            quantile: self.asked.quantile,
            warnings,
        }
    }
}
