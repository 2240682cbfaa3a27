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
use migcast_plan::schedule::fleet::{Draw, Run};
use migcast_plan::schedule::objective::Objective;
use migcast_plan::schedule::planner::Planner;
use migcast_plan::schedule::policy::{POLICIES, Policy};

use super::fleet::{self, Network, Pasts, Wanted, Who};
use super::past::Subject;
use super::scenario::{self, Options, QUANTILE};
use super::sweep::progress_bar;
use crate::inventory::{Inventory, Question};
use crate::report::{self, Plan, PlanAnswer, Searched};

/// Draws in which a schedule is carried out before anybody looks at the clock.
const DRAWS_AT_ONCE: usize = 2;

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
    #[arg(long, value_name = "TIME", default_value = "20s", value_parser = scenario::parse_positive)]
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
    #[arg(long, value_name = "Q", default_value_t = QUANTILE, value_parser = scenario::parse_quantile)]
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
        let patience = args.time_limit / (POLICIES.len() as u32 + 2);
        let (mut plans, mut stuck) = of.plans_of_platforms(patience);
        plans.insert(0, of.plan(report::PLANNED, String::new(), planned, Duration::MAX)?);
        // A search judges by few draws. What turns out better by more, and be it what platforms do, is the plan.
        let is_better =
            |one: usize, other: usize| of.planner.is_better(objective, &plans[one].runs, &plans[other].runs);
        let best = (1..plans.len()).fold(0, |best, one| if is_better(one, best) { one } else { best });
        if best > 0 {
            let (name, schedule) = (plans[best].name, plans[best].schedule.clone());
            plans[0] = of.plan(report::PLANNED, format!("as {name} does"), schedule, Duration::MAX)?;
        }
        stuck.extend(of.warnings());
        let answer = of.answer(&plans, Some((objective.name(), &searched)), stuck);
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
        let plan = match (args.asked.limits, POLICIES.iter().find(|policy| policy.name == args.policy)) {
            (None, Some(policy)) => of.by_policy(policy, Duration::MAX)?,
            (limits, _) => of.by_limits(limits.unwrap_or(Limits::NONE), Duration::MAX)?,
        };
        tell(&args.asked, &of.answer(&[plan], None, of.warnings()))
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
    inventory.link = asked.link.unwrap_or(inventory.link);
    let inventory = &inventory;
    let wanted = asked.who.wanted(inventory)?;
    let pasts = Pasts::open(inventory, &wanted, &asked.options)?;
    let network = Network::of(inventory, &asked.options)?;
    let subjects = pasts.subjects(inventory, &network, &wanted, &asked.options)?;
    let planner = Planner::new(fleet::fleet(inventory, &network, &wanted, &subjects))
        .map_err(|(why, problem)| fleet::infeasible(&why, inventory, &wanted, &problem))?;
    let count = asked.draws.map_or(planner.draws_default(), |count| count as usize);
    let draws = planner.draws(count);
    answer(&Opened { asked, inventory, network: &network, wanted: &wanted, subjects: &subjects, planner, draws })
}

/// Looks for the best schedule.
fn planned(of: &Opened<'_>, objective: Objective, args: &Args) -> anyhow::Result<(Schedule, Searched)> {
    let (progress, began) = (progress_bar(0, "schedules"), Instant::now());
    let go_on = |judged: usize, all: usize, least: f64| {
        progress.set_length(all as u64);
        progress.set_position(judged as u64);
        progress.set_message(format!(", best {:.4}", least));
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

    /// What platforms do if nobody plans, and what the stated limits come to, each carried out for no longer than `patience`.
    /// What cannot be carried out is told.
    fn plans_of_platforms(&self, patience: Duration) -> (Vec<Plan>, Vec<String>) {
        let (mut plans, mut stuck) = (Vec::new(), Vec::new());
        let policies = POLICIES.iter().map(|one| (one.name, self.by_policy(one, patience)));
        let own = self.asked.limits.map(|limits| (report::OWN_LIMITS, self.by_limits(limits, patience)));
        for (name, plan) in policies.chain(own) {
            match plan {
                Ok(plan) => plans.push(plan),
                Err(why) => stuck.push(format!("{name} cannot be carried out: {why:#}")),
            }
        }
        (plans, stuck)
    }

    fn by_policy(&self, policy: &Policy, patience: Duration) -> anyhow::Result<Plan> {
        let schedule = self.planner.by_policy(policy, self.limits());
        self.plan(policy.name, policy.about.to_owned(), schedule, patience)
    }

    fn by_limits(&self, limits: Limits, patience: Duration) -> anyhow::Result<Plan> {
        let schedule = self.planner.by_limits(limits);
        self.plan(report::OWN_LIMITS, "the limits that were stated".to_owned(), schedule, patience)
    }

    /// Carries a schedule out in every way it may turn out, or in fewer, a few at a time, if that takes longer than `patience`.
    fn plan(&self, name: &'static str, about: String, schedule: Schedule, patience: Duration) -> anyhow::Result<Plan> {
        let began = Instant::now();
        let mut runs: Vec<Run> = Vec::new();
        for draws in self.draws.chunks(DRAWS_AT_ONCE) {
            let some = self.planner.runs(&schedule, draws);
            runs.extend(some.map_err(|why| fleet::stuck(why, self.inventory, self.wanted))?);
            if began.elapsed() > patience {
                break;
            }
        }
        let broken = self.planner.broken(&runs);
        Ok(Plan { name, about, schedule, runs, broken })
    }

    /// What a reader should know of the guests and of what is not moved.
    fn warnings(&self) -> Vec<String> {
        let mut warnings: Vec<String> = self.asked.options.unknown_hosts().into_iter().collect();
        let name = |guest: usize| &self.inventory.guests[guest].name;
        for (one, subject) in self.wanted.iter().zip(self.subjects) {
            warnings.extend(subject.warnings.iter().map(|warning| format!("{}: {warning}", name(one.guest))));
            let stay = self.inventory.guests[one.guest].moving.after.iter();
            for other in stay.filter(|other| self.wanted.iter().all(|one| one.guest != **other)) {
                warnings.push(format!(
                    "{}: {} is not moved, so it is not waited for (after)",
                    name(one.guest),
                    name(*other)
                ));
            }
        }
        warnings
    }

    /// Settings of each guest's migration, as they were stated.
    fn settings(&self) -> Vec<Vec<(String, String)>> {
        let of = |one: &Wanted| {
            let own = &self.inventory.guests[one.guest].moving.settings;
            let stated =
                self.asked.options.settings.iter().filter(|(key, _)| own.iter().all(|(other, _)| other != key));
            stated.chain(own).cloned().collect()
        };
        self.wanted.iter().map(of).collect()
    }

    fn answer<'b>(
        &'b self,
        plans: &'b [Plan],
        searched: Option<(&'static str, &'b Searched)>,
        warnings: Vec<String>,
    ) -> PlanAnswer<'b> {
        let platform = &self.subjects[0].scenario.platform;
        PlanAnswer {
            inventory: self.inventory,
            guests: self.wanted.iter().map(|one| one.guest).collect(),
            emptied: &self.asked.who.evacuate,
            algorithms: self.subjects.iter().map(|subject| subject.scenario.algorithm.name()).collect(),
            settings: self.settings(),
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
