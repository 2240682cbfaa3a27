//! `migcast plan`: in which order guests are moved, how many at once and where to; `migcast drain-time`: how long that takes
//! under the platform's own limits.

use std::cell::Cell;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use indicatif::ProgressBar;
use migcast_model::world::Limits;
use migcast_plan::schedule::bound::bound;
use migcast_plan::schedule::fleet::{Draw, Fleet, Run};
use migcast_plan::schedule::objective::{Objective, broken};
use migcast_plan::schedule::place::place;
use migcast_plan::schedule::policy::{POLICIES, first_tries};
use migcast_plan::schedule::search::{Judged, search};
use migcast_plan::schedule::{Problem, Schedule};
use rayon::prelude::*;

use super::fleet::{self, Network, Pasts, Wanted, Who};
use super::past::Subject;
use super::scenario::{self, Options, QUANTILE};
use super::sweep::progress_bar;
use crate::inventory::{Inventory, Question};
use crate::report::{self, Plan, PlanAnswer, Searched};

/// Draws on which a search judges a schedule are these; what comes of it is told from others.
const SEARCH_SEED: u64 = 1;
const TELL_SEED: u64 = 2;
/// Simulated moves that a search judges a schedule by, about, and draws at most.
const SEARCH_MOVES: usize = 60;
const SEARCH_DRAWS_MAX: usize = 5;
/// Simulated moves of a search, about, and changes of a schedule at most, and for each pair of moves.
const CHANGED_MOVES: usize = 400_000;
const CHANGES_MAX: usize = 4_000;
const CHANGES_PER_PAIR: usize = 40;
/// Simulated moves that an answer is told from, about; and draws at least, and if nothing is said at most.
const TOLD_MOVES: usize = 20_000;
const DRAWS_MIN: usize = 20;
const DRAWS_MAX: usize = 100;

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
    /// How many may run at once: out of a host, into a host, in all; `-` for as many as there are
    #[arg(long, value_name = "OUT,IN,ALL", value_parser = parse_limits)]
    limits: Option<Limits>,
    /// In how many ways it may turn out [default: 100, fewer where there are many guests]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    draws: Option<u32>,
    /// Line rate of a host's link that says none of its own, instead of what the file says
    #[arg(long, value_name = "RATE", value_parser = scenario::parse_link)]
    link: Option<migcast_model::units::BytesPerSec>,
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
    with_fleet(&args.asked, |of| {
        let objective = args.objective.objective();
        let (planned, searched) = planned(of, objective, args)?;
        let mut plans = of.plans_of_platforms()?;
        plans.insert(0, of.plan(report::PLANNED, String::new(), planned)?);
        // A search judges by few draws. What turns out better by many, and be it what platforms do, is the plan.
        let cost = |plan: &Plan| objective.cost(&plan.runs, of.bound_seconds, &of.downtimes_max);
        let best = (0..plans.len()).min_by(|a, b| cost(&plans[*a]).total_cmp(&cost(&plans[*b]))).unwrap_or_default();
        if best > 0 {
            let Plan { schedule, runs, name, .. } = plans[best].clone();
            plans[0] = Plan { schedule, runs, about: format!("as {name} does"), ..plans[0].clone() };
        }
        let answer = of.answer(&plans, Some((objective.name(), &searched)));
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
    fleet: Fleet<'a>,
    problem: Problem,
    /// Where guests go if nothing better is found.
    way: Vec<usize>,
    bound_seconds: f64,
    downtimes_max: Vec<f64>,
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
    let fleet = fleet::fleet(inventory, &network, &wanted, &subjects);
    let problem = fleet.problem();
    if let Some(circle) = problem.circle() {
        return Err(fleet::circle(&circle, inventory, &wanted));
    }
    let way = place(&problem).map_err(|why| fleet::unplaced(why, inventory, &wanted, &problem))?;
    let fewer = (TOLD_MOVES / wanted.len()).clamp(DRAWS_MIN, DRAWS_MAX);
    let count = asked.draws.map_or(fewer as u64, u64::from);
    answer(&Opened {
        asked,
        inventory,
        network: &network,
        wanted: &wanted,
        subjects: &subjects,
        bound_seconds: bound(&problem).seconds.max(1e-3),
        downtimes_max: fleet.members.iter().map(|member| member.downtime_max).collect(),
        draws: (0..count).map(|number| fleet.draw(number, TELL_SEED)).collect(),
        fleet,
        problem,
        way,
    })
}

/// Looks for the best schedule.
fn planned(of: &Opened<'_>, objective: Objective, args: &Args) -> anyhow::Result<(Schedule, Searched)> {
    let moves = of.wanted.len();
    let draws = (SEARCH_MOVES / moves).clamp(1, SEARCH_DRAWS_MAX);
    let draws: Vec<Draw> = (0..draws as u64).map(|number| of.fleet.draw(number, SEARCH_SEED)).collect();
    let limits = of.asked.limits;
    let first: Vec<Schedule> = first_tries(&of.problem, &of.way)
        .into_iter()
        .map(|schedule| Schedule { limits: within(schedule.limits, limits), ..schedule })
        .collect();
    let judge = |schedule: &Schedule| {
        let runs: Result<Vec<Run>, _> = draws.iter().map(|draw| of.fleet.run(&of.problem, schedule, draw)).collect();
        match runs {
            Ok(runs) => Judged {
                cost: objective.cost(&runs, of.bound_seconds, &of.downtimes_max),
                ends: runs[0].moves.iter().map(|moved| moved.ended).collect(),
            },
            Err(_) => Judged { cost: f64::INFINITY, ends: vec![0.0; moves] },
        }
    };
    let changes = (CHANGED_MOVES / (moves * draws.len())).min(CHANGES_MAX).min(CHANGES_PER_PAIR * moves * moves);
    let all = first.len() + changes;
    let (progress, began, late) = (progress_bar(all, "schedules"), Instant::now(), Cell::new(false));
    let go_on = |judged: usize, least: f64| {
        show(&progress, judged, least);
        late.set(began.elapsed() >= args.time_limit);
        !late.get()
    };
    let found = search(&of.problem, first, &judge, (changes, args.seed), &go_on);
    progress.finish_and_clear();
    if found.cost.is_infinite() {
        // Say why of the first one that was tried.
        of.fleet
            .run(&of.problem, &found.schedule, &draws[0])
            .map_err(|why| fleet::stuck(why, of.inventory, of.wanted))?;
    }
    let searched = Searched { judged: found.judged, ran_out: late.get() && found.judged < all, seed: args.seed };
    Ok((found.schedule, searched))
}

/// What both limits allow.
fn within(limits: Limits, stated: Option<Limits>) -> Limits {
    let stated = stated.unwrap_or(Limits::NONE);
    Limits {
        out_of_host: limits.out_of_host.min(stated.out_of_host),
        into_host: limits.into_host.min(stated.into_host),
        in_all: limits.in_all.min(stated.in_all),
    }
}

fn show(progress: &ProgressBar, judged: usize, least: f64) {
    progress.set_position(judged as u64);
    progress.set_message(format!("schedules, best so far {:.3} of the bound", least));
}

impl Opened<'_> {
    /// What platforms do if nobody plans, and what the stated limits come to.
    fn plans_of_platforms(&self) -> anyhow::Result<Vec<Plan>> {
        let mut plans = POLICIES
            .iter()
            .map(|policy| self.plan(policy.name, policy.about.to_owned(), policy.schedule(&self.problem, &self.way)))
            .collect::<anyhow::Result<Vec<Plan>>>()?;
        if let Some(limits) = self.asked.limits {
            let all_at_once = POLICIES[0].schedule(&self.problem, &self.way);
            let schedule = Schedule { limits, ..all_at_once };
            plans.push(self.plan(report::OWN_LIMITS, "the limits that were stated".to_owned(), schedule)?);
        }
        Ok(plans)
    }

    /// Carries a schedule out in every way it may turn out.
    fn plan(&self, name: &'static str, about: String, schedule: Schedule) -> anyhow::Result<Plan> {
        let runs: Result<Vec<Run>, _> =
            self.draws.par_iter().map(|draw| self.fleet.run(&self.problem, &schedule, draw)).collect();
        let runs = runs.map_err(|why| fleet::stuck(why, self.inventory, self.wanted))?;
        let broken = runs.iter().map(|run| broken(run, &self.downtimes_max)).sum::<usize>();
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
            problem: &self.problem,
            bound: bound(&self.problem),
            plans,
            searched,
            within: self.asked.within,
            quantile: self.asked.quantile,
            warnings,
        }
    }
}
