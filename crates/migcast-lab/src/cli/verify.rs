//! `migcast-lab verify`: record, forecast, migrate for real, compare.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use migcast_history::observed;
use migcast_lab::comparison::{self, Case};
use migcast_lab::interrupt::Interrupt;
use migcast_lab::link::{End, ShapedLink};
use migcast_lab::machine::Machine;
use migcast_lab::migration::{self, NO_CAP, Terms};
use migcast_lab::{prediction, process, recording};
use migcast_model::quantity::{parse_duration, parse_rate};
use migcast_model::units::BytesPerSec;

use super::guest::{self, Boot};

/// How forecasts are held against reality.
#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// Guests, each booted and recorded once
    #[arg(long = "guest", value_name = "NAME", required = true)]
    guests: Vec<String>,
    /// Line rates
    #[arg(long = "link", value_name = "RATE", default_value = "400Mbit/s", value_parser = parse_rate)]
    links: Vec<BytesPerSec>,
    /// Downtime limits
    #[arg(long = "limit", value_name = "TIME", default_value = "300ms", value_parser = parse_duration)]
    limits: Vec<Duration>,
    /// Migrations of each guest, link and limit
    #[arg(long, default_value_t = 1)]
    runs: u32,
    /// How long each guest is recorded
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_duration)]
    record: Duration,
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

pub(crate) fn verify(args: &Verify, interrupt: &Interrupt) -> Result<()> {
    fs::create_dir_all(&args.out).with_context(|| args.out.display().to_string())?;
    let link = ShapedLink::make(BytesPerSec::from_bits(1_000_000_000))?;
    for name in &args.guests {
        verify_guest(args, name, &link, interrupt)?;
    }
    println!("{}", comparison::table(&comparison::read(&results(args))?));
    Ok(())
}

fn results(args: &Verify) -> PathBuf {
    args.out.join("cases.jsonl")
}

/// Boots one guest, records it, and migrates it to and fro.
fn verify_guest(args: &Verify, name: &str, link: &ShapedLink, interrupt: &Interrupt) -> Result<()> {
    let spec = args.boot.spec(name)?;
    let images = guest::images(spec.guest)?;
    let program = recording::program()?;
    let mut machine = Machine::start(&images, &spec, interrupt)?;
    machine.wait_ready(interrupt)?;
    let history = record(args, name, &program, &machine)?;
    let mut at = End::Here;
    for terms in terms(args) {
        let predicted = prediction::predict(&program, &history, terms, args.platform.as_deref())?;
        let (mut observed, next, end) = migration::migrate(machine, at, link, &spec, &images, terms, interrupt)?;
        (machine, at) = (next, end);
        observed.history = Some(history.clone());
        eprintln!("{}", migration::describe(&observed));
        observed::append(&args.out.join("observed.jsonl"), &observed)?;
        append(&results(args), &Case { predicted, observed })?;
    }
    Ok(())
}

/// Every link and limit, as often as asked.
fn terms(args: &Verify) -> Vec<Terms> {
    let mut all = Vec::new();
    for _ in 0..args.runs {
        for link in &args.links {
            for limit in &args.limits {
                let max_bandwidth = BytesPerSec::new(NO_CAP);
                all.push(Terms { link: *link, downtime_limit: *limit, max_bandwidth, give_up: args.give_up });
            }
        }
    }
    all
}

fn record(args: &Verify, name: &str, program: &Path, machine: &Machine) -> Result<PathBuf> {
    let number = (1..).find(|number| !args.out.join(format!("{name}-{number}")).exists());
    let history = args.out.join(format!("{name}-{}", number.context("no free number")?));
    let mut command = Command::new(program);
    command.arg("record").arg("--qmp").arg(machine.qmp()).arg("--out").arg(&history).args(["--name", name]);
    command.args(["--duration", &format!("{}ms", args.record.as_millis())]);
    process::run(&mut command)?;
    ensure!(history.is_dir(), "migcast record made no history");
    Ok(history)
}

fn append(path: &Path, case: &Case) -> Result<()> {
    let mut line = serde_json::to_vec(case)?;
    line.push(b'\n');
    let mut file = fs::OpenOptions::new().create(true).append(true).open(path)?;
    file.write_all(&line).with_context(|| path.display().to_string())
}
