//! `migcast consolidate`: which hosts can be emptied and switched off, by which migrations, and whether that pays.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, anyhow};
use indicatif::ProgressBar;
use migcast_model::quantity;
use migcast_model::units::BytesPerSec;
use migcast_plan::consolidate::{self, World};
use migcast_plan::sla::Draws;
use rayon::prelude::*;

use super::past::Past;
use super::scenario::{self, Known, Options, Request};
use super::sweep::progress_bar;
use crate::inventory::{self, Inventory, Question, Writes};
use crate::report::{self, ConsolidateAnswer, Move, Quantity};

/// Starting points of each guest's history.
const STARTS_MAX: usize = 200;
/// Longest search for the best placement.
const TIME_LIMIT_MAX: Duration = Duration::from_secs(86_400);

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example: migcast consolidate testdata/inventory/three-hosts.toml\n\nThe file, migcast.inventory/1, is described in \
    docs/answers.md."
)]
pub(crate) struct Args {
    /// Hosts and guests: TOML, or JSON if it is called .json
    #[arg(value_name = "FILE")]
    inventory: PathBuf,
    /// How long emptied hosts stay off, instead of what the file says
    #[arg(long, value_name = "TIME", value_parser = scenario::parse_positive)]
    off_for: Option<Duration>,
    /// Line rate between hosts, instead of what the file says
    #[arg(long, value_name = "RATE", value_parser = scenario::parse_link)]
    link: Option<BytesPerSec>,
    /// How long the best placement is looked for, where there are few hosts and guests
    #[arg(long, value_name = "TIME", default_value = "20s", value_parser = parse_time_limit)]
    time_limit: Duration,
    #[command(flatten)]
    options: Options,
    /// Print JSON (migcast.consolidate/1) instead of text
    #[arg(long)]
    json: bool,
}

fn parse_time_limit(text: &str) -> Result<Duration, String> {
    let span = quantity::parse_duration(text).map_err(|error| error.to_string())?;
    let fits = !span.is_zero() && span <= TIME_LIMIT_MAX;
    fits.then_some(span).ok_or_else(|| format!("`{text}` is not a time limit: more than 0, at most a day"))
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let mut inventory = Inventory::read(&args.inventory, Question::Consolidate)?;
    inventory.horizon = args.off_for.unwrap_or(inventory.horizon);
    inventory.link = args.link.unwrap_or(inventory.link);
    let moves = moves(args, &inventory)?;
    let plan = consolidate::consolidate(&world(&inventory, &moves), args.time_limit);
    let answer = ConsolidateAnswer { inventory: &inventory, moves: &moves, plan: &plan };
    let out = &mut io::stdout().lock();
    if args.json { report::write_consolidate_json(out, &answer) } else { report::write_consolidate(out, &answer) }
        .context("standard output")?;
    Ok(ExitCode::SUCCESS)
}

/// What the migration of each guest would be like; `None` of those that stay.
fn moves(args: &Args, inventory: &Inventory) -> anyhow::Result<Vec<Option<Move>>> {
    let progress = progress_bar(inventory.guests.len(), "guests");
    // Guests that write alike and are as large migrate alike.
    let mut asked: Vec<&inventory::Guest> = Vec::new();
    let is_alike = |a: &inventory::Guest, b: &inventory::Guest| (&a.writes, a.memory) == (&b.writes, b.memory);
    for guest in inventory.guests.iter().filter(|guest| !guest.is_pinned) {
        if !asked.iter().any(|other| is_alike(other, guest)) {
            asked.push(guest);
        }
    }
    let told: Vec<Move> = asked
        .par_iter()
        .map(|guest| {
            let told = forecast(args, inventory, guest).map_err(|error| anyhow!("guest {}: {error:#}", guest.name))?;
            progress.inc(1);
            Ok(told)
        })
        .collect::<anyhow::Result<_>>()?;
    progress.finish_and_clear();
    let of = |guest: &inventory::Guest| {
        let place = asked.iter().position(|other| is_alike(other, guest)).filter(|_| !guest.is_pinned);
        place.map(|place| told[place].clone())
    };
    Ok(inventory.guests.iter().map(of).collect())
}

fn forecast(args: &Args, inventory: &Inventory, guest: &inventory::Guest) -> anyhow::Result<Move> {
    let mut request = Request {
        options: args.options.clone(),
        link: inventory.link,
        horizon_min: Duration::ZERO,
        starts_max: STARTS_MAX,
    };
    let hidden = ProgressBar::hidden();
    let prediction = match guest.writes.as_ref().context("nothing is known of its writes")? {
        Writes::History(dir) => {
            let past = Past::open(dir, &request.options)?;
            request.options.refuse_idle(past.known())?;
            past.forecast(&request, &hidden)?
        }
        Writes::Rate { rate, working_set } => {
            request.options.wws = working_set.or(request.options.wws);
            request.options.refuse_idle(Known::Nothing)?;
            let mut of = scenario::guest(guest.memory)?;
            of.name.clone_from(&guest.name);
            request.at_rate(of, *rate, &hidden)?
        }
    };
    let (time, downtime) = (Quantity::MigrationTime, Quantity::Downtime);
    let Draws { downtime: draws, .. } = prediction.draws();
    let (converged, starts) = prediction.converged();
    Ok(Move {
        time: prediction.distribution(time),
        downtime: prediction.distribution(downtime),
        downtime_mean: draws.iter().sum::<f64>() / draws.len() as f64,
        sent: prediction.sent_bytes(),
        converges: 2 * converged > starts,
        algorithm: prediction.scenario.algorithm.name(),
        warnings: prediction.warnings,
    })
}

/// As the planner sees it: what is to stay free is not there, and what does not converge stays.
fn world(inventory: &Inventory, moves: &[Option<Move>]) -> World {
    let usable = 1.0 - inventory.keep_free;
    let host = |host: &inventory::Host| consolidate::Host {
        memory: host.memory.get() as f64 * usable,
        cores: host.cores * usable,
        idle_watts: host.idle_watts,
        watts_per_core: (host.full_watts - host.idle_watts) / host.cores,
        off_watts: host.off_watts,
        switch_joules: host.switch_joules(),
        switch_seconds: (host.switch_off + host.boot).as_secs_f64(),
    };
    let guest = |(guest, move_): (&inventory::Guest, &Option<Move>)| consolidate::Guest {
        host: guest.host,
        memory: guest.memory.get() as f64,
        cores: guest.cores,
        move_joules: move_.as_ref().map_or(0.0, |of| of.joules(inventory)),
        is_pinned: move_.as_ref().is_none_or(|of| !of.converges),
    };
    World {
        hosts: inventory.hosts.iter().map(host).collect(),
        guests: inventory.guests.iter().zip(moves).map(guest).collect(),
        horizon: inventory.horizon.as_secs_f64(),
    }
}
