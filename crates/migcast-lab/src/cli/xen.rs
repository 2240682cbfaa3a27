//! `migcast-lab xen`: real Xen migrations against their forecasts.

use std::fs;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Args, Subcommand};
use migcast_lab::cache::Cache;
use migcast_lab::interrupt::Interrupt;
use migcast_lab::recording;
use migcast_lab::xen::comparison;
use migcast_lab::xen::files::Files;
use migcast_lab::xen::guest::{GUESTS, Guest};
use migcast_lab::xen::trial::{self, Terms};
use migcast_lab::xen::{kept, slowdown};
use migcast_model::quantity::{parse_duration, parse_rate};
use migcast_model::units::BytesPerSec;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the guests
    Guests,
    /// Record, forecast, migrate for real and compare, round by round
    Verify(Verify),
    /// Hold what `verify` saw against the forecasts once more
    Compare(Compare),
    /// Measure what a recording costs the guest
    Slowdown(Slowdown),
}

#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// Guests, each recorded once
    #[arg(long = "guest", value_name = "NAME", default_values = ["steady", "busy", "sequential", "hot-cold"])]
    guests: Vec<String>,
    /// Rates of the pipe
    #[arg(long = "throttle", value_name = "RATE", default_values = ["10MB/s", "20MB/s"], value_parser = parse_rate)]
    rates: Vec<BytesPerSec>,
    /// Migrations of each guest at each rate
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// How long each guest is recorded
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_duration)]
    record: Duration,
    /// Guests that are tried side by side, each in a machine of its own: its time counts instructions, so that none slows
    /// another
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
    jobs: u32,
    /// Begin the first migration while the guest is being recorded: the recorder has to give way
    #[arg(long)]
    record_into_migration: bool,
    #[command(flatten)]
    compare: Compare,
}

#[derive(Debug, Args)]
pub(crate) struct Compare {
    /// Where histories, logs and observed migrations go
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// What this Xen costs: a platform file
    #[arg(long, value_name = "FILE")]
    platform: Option<PathBuf>,
    /// Leave out this guest (it was fitted to)
    #[arg(long = "without", value_name = "NAME")]
    without: Vec<String>,
    /// Print the tables of the documentation
    #[arg(long)]
    tables: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Slowdown {
    /// Pairs of blocks, one with the recorder on, one with it off
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(2..))]
    pairs: u32,
}

pub(crate) fn run(command: &Command, interrupt: &Interrupt) -> Result<()> {
    match command {
        Command::Guests => GUESTS.iter().for_each(|guest| say!("{:12}{}", guest.name, guest.about)),
        Command::Verify(args) => verify(args, interrupt)?,
        Command::Compare(args) => compare(args)?,
        Command::Slowdown(args) => slow(args, interrupt)?,
    }
    Ok(())
}

fn verify(args: &Verify, interrupt: &Interrupt) -> Result<()> {
    let guests: Vec<&Guest> = args.guests.iter().map(|name| Guest::named(name)).collect::<Result<_>>()?;
    let out = &args.compare.out;
    fs::create_dir_all(out).with_context(|| format!("--out {}", out.display()))?;
    for (at, guest) in guests.iter().enumerate() {
        ensure!(!out.join(guest.name).exists(), "{}: there is a history already", out.join(guest.name).display());
        let twice = guests[..at].iter().any(|other| other.name == guest.name);
        ensure!(!twice, "--guest {}: given twice, allowed: each once", guest.name);
    }
    let migcast = recording::program()?;
    let cache = Cache::open()?;
    let files = Files::obtain(&cache)?;
    let terms = Terms {
        record: args.record,
        rates: args.rates.clone(),
        runs: args.runs,
        record_into_migration: args.record_into_migration,
    };
    let waiting = Mutex::new(guests.into_iter());
    let work = || -> Result<()> {
        while let Some(guest) = next(&waiting) {
            eprintln!("{}: {}", guest.name, guest.about);
            let tried = trial::run(&files, &migcast, guest, &terms, out, interrupt);
            // The others end with the one they are at.
            tried.inspect_err(|_| while next(&waiting).is_some() {})?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..args.jobs).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("a trial gives its errors back"))
    })?;
    kept::write_observed(out, &kept::read(out)?)?;
    compare(&args.compare)
}

/// The next of those that wait.
fn next<'a>(waiting: &Mutex<impl Iterator<Item = &'a Guest>>) -> Option<&'a Guest> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner).next()
}

fn compare(args: &Compare) -> Result<()> {
    let migcast = recording::program()?;
    let platform = args.platform.as_deref();
    let mut cases = kept::cases(&migcast, &args.out, platform)?;
    cases.retain(|case| !args.without.iter().any(|name| name == case.guest()));
    ensure!(!cases.is_empty(), "--without: no guest is left");
    if args.tables {
        let classic: Vec<_> = cases
            .iter()
            .map(|case| kept::forecast(&migcast, &args.out, &case.runs[0], Some("xen-classic"), platform))
            .collect::<Result<_>>()?;
        print!("{}\n{}\n", comparison::table(&cases), comparison::rules(&classic, &cases));
    } else {
        print!("{}", comparison::rounds(&cases));
    }
    print!("{}", comparison::summary(&cases));
    Ok(())
}

fn slow(args: &Slowdown, interrupt: &Interrupt) -> Result<()> {
    let cache = Cache::open()?;
    let measured = slowdown::measure(&Files::obtain(&cache)?, &recording::program()?, args.pairs, interrupt)?;
    say!("{measured}");
    Ok(())
}
