//! `migcast-lab xen`: real Xen migrations against their forecasts.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Args, Subcommand};
use migcast_lab::cache::Cache;
use migcast_lab::interrupt::Interrupt;
use migcast_lab::recording;
use migcast_lab::xen::files::Files;
use migcast_lab::xen::kept;
use migcast_lab::xen::trial::{self, GUESTS, Guest, Terms};
use migcast_model::quantity::{parse_duration, parse_rate, show_rate};
use migcast_model::units::BytesPerSec;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the guests
    Guests,
    /// Record, forecast, migrate for real and compare, round by round
    Verify(Verify),
    /// Hold what `verify` saw against the forecasts once more
    Compare(Compare),
}

#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// Guests, each recorded once
    #[arg(long = "guest", value_name = "NAME", required = true)]
    guests: Vec<String>,
    /// Rates of the pipe
    #[arg(long = "throttle", value_name = "RATE", default_value = "10MB/s", value_parser = parse_rate)]
    rates: Vec<BytesPerSec>,
    /// Migrations of each guest at each rate
    #[arg(long, default_value_t = 1)]
    runs: u32,
    /// How long each guest is recorded
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_duration)]
    record: Duration,
    #[command(flatten)]
    compare: Compare,
}

#[derive(Debug, Args)]
pub(crate) struct Compare {
    /// Where histories and results go; results are appended
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// What this Xen costs: a platform file
    #[arg(long, value_name = "FILE")]
    platform: Option<PathBuf>,
}

pub(crate) fn run(command: &Command, interrupt: &Interrupt) -> Result<()> {
    match command {
        Command::Guests => GUESTS.iter().for_each(|guest| println!("{:12}{}", guest.name, guest.about)),
        Command::Verify(args) => verify(args, interrupt)?,
        Command::Compare(args) => compare(args)?,
    }
    Ok(())
}

fn verify(args: &Verify, interrupt: &Interrupt) -> Result<()> {
    let guests: Vec<&Guest> = args.guests.iter().map(|name| Guest::named(name)).collect::<Result<_>>()?;
    ensure!(args.runs > 0 || args.rates.len() == 1, "--runs: at least 1 for each --throttle");
    let out = &args.compare.out;
    fs::create_dir_all(out).with_context(|| format!("--out {}", out.display()))?;
    let migcast = recording::program()?;
    let files = Files::obtain(&Cache::open()?)?;
    let terms = Terms { record: args.record, rates: args.rates.clone(), runs: args.runs };
    for guest in guests {
        ensure!(!out.join(guest.name).exists(), "{}: there is a history already", out.join(guest.name).display());
        eprintln!("{}: {}", guest.name, guest.about);
        let trial = trial::run(&files, &migcast, guest, &terms, out, interrupt)?;
        kept::append(out, &trial.migrations)?;
    }
    compare(&args.compare)
}

fn compare(args: &Compare) -> Result<()> {
    let migcast = recording::program()?;
    println!(
        "{:12}{:>12}{:>10}{:>9}  pages sent, round by round; the last with the guest suspended",
        "guest", "pipe", "", "time"
    );
    let mut told: Option<(String, u64)> = None;
    for migration in &kept::read(&args.out)? {
        let case = (migration.guest.clone(), migration.bytes_per_second);
        if told.as_ref() != Some(&case) {
            let forecast = kept::forecast(&migcast, &args.out, migration, args.platform.as_deref())?;
            // A live round without a page leaves nothing in the stream.
            let rounds = &forecast.rounds;
            let is_seen = |(number, pages): &(usize, &u64)| **pages > 0 || number + 1 == rounds.len();
            let pages = rounds.iter().enumerate().filter(is_seen).map(|(_, pages)| *pages);
            let time = forecast.seconds.unwrap_or(f64::INFINITY);
            let rate = show_rate(BytesPerSec::new(migration.bytes_per_second));
            println!("{:12}{rate:>12}{:>10}{time:>7.1} s  {}", migration.guest, "forecast", in_a_row(pages));
            told = Some(case);
        }
        let pages = migration.rounds.iter().map(|round| round.pages);
        let state = if migration.went_on { "" } else { "  the guest did NOT go on" };
        println!("{:12}{:>12}{:>10}{:>7.1} s  {}{state}", "", "", "actual", migration.seconds, in_a_row(pages));
    }
    Ok(())
}

fn in_a_row(pages: impl Iterator<Item = u64>) -> String {
    pages.map(|pages| format!("{pages:>6}")).collect::<Vec<_>>().join(" ")
}
