//! `migcast-lab life`: what an administrator does who keeps forecasts and what came of them.
//!
//! ```text
//!  record ─► ( predict --store ─► migrate ─► query-migrate ─► observe --store ) × runs ─► calibrate --review
//! ```
//! From some migration on the link may be another one than everybody believes: a platform that drifts.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use migcast_lab::features::Features;
use migcast_lab::interrupt::Interrupt;
use migcast_lab::link::{End, ShapedLink};
use migcast_lab::machine::Machine;
use migcast_lab::migration::{self, NO_CAP, Terms};
use migcast_lab::{process, recording};
use migcast_model::quantity::{parse_duration, parse_rate};
use migcast_model::units::BytesPerSec;

use super::guest::{self, Boot};
use super::verify;

/// How a platform's life is made.
#[derive(Debug, Args)]
pub(crate) struct Life {
    /// The guest, booted and recorded once
    #[arg(long, value_name = "NAME", default_value = "steady")]
    guest: String,
    /// Migrations over the link that everybody believes in
    #[arg(long, default_value_t = 12)]
    runs: u32,
    /// That link
    #[arg(long, value_name = "RATE", default_value = "400Mbit/s", value_parser = parse_rate)]
    link: BytesPerSec,
    /// Migrations after the link has become another one unnoticed
    #[arg(long, default_value_t = 0)]
    drifted_runs: u32,
    /// What the link then is
    #[arg(long, value_name = "RATE", default_value = "350Mbit/s", value_parser = parse_rate)]
    drifted_link: BytesPerSec,
    /// How long the guest is recorded
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_duration)]
    record: Duration,
    /// What the hosts cost: a platform file
    #[arg(long, value_name = "FILE")]
    platform: PathBuf,
    /// Where history, replies and the store go
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    #[command(flatten)]
    boot: Boot,
}

const DOWNTIME_LIMIT: Duration = Duration::from_millis(300);

pub(crate) fn life(args: &Life, interrupt: &Interrupt) -> Result<()> {
    fs::create_dir_all(&args.out).with_context(|| args.out.display().to_string())?;
    let (program, store) = (recording::program()?, args.out.join("hosts.db"));
    let spec = args.boot.spec(&args.guest)?;
    let images = guest::images(spec.guest)?;
    let link = ShapedLink::make(args.link)?;
    let mut machine = Machine::start(&images, &spec, interrupt)?;
    machine.wait_ready(interrupt)?;
    let history = verify::record(&args.out, (&args.guest, args.record), &[], &program, &machine)?;
    let stated = format!("{}bit/s", args.link.bits());
    let mut at = End::Here;
    for run in 0..args.runs + args.drifted_runs {
        let terms = Terms {
            link: if run < args.runs { args.link } else { args.drifted_link },
            downtime_limit: DOWNTIME_LIMIT,
            max_bandwidth: BytesPerSec::new(NO_CAP),
            give_up: Duration::from_secs(60),
            features: Features::default(),
        };
        let settings: Vec<String> = terms.settings().into_iter().flat_map(|set| ["--set".to_owned(), set]).collect();
        let mut predict = Command::new(&program);
        predict.arg("predict").arg(&history).args(["--link", &stated, "--start", "all", "--json"]);
        predict.args(&settings).arg("--platform").arg(&args.platform).arg("--store").arg(&store);
        process::output(&mut predict)?;
        let migrated = migration::migrate(machine, at, &link, &spec, &images, terms, interrupt)?;
        let ended = jiff::Timestamp::now();
        eprintln!("{}", migration::describe(&migrated.observed));
        let reply = args.out.join(format!("query-migrate-{run:02}.json"));
        fs::write(&reply, serde_json::to_string_pretty(&migrated.reply)? + "\n")?;
        let mut observe = Command::new(&program);
        observe.arg("observe").arg(&reply).args(["--from", "query-migrate", "--guest", &args.guest, "--link", &stated]);
        observe.args(["--hypervisor-version", &migrated.observed.hypervisor_version]);
        observe.args(["--accelerator", &migrated.observed.accelerator, "--ended", &ended.to_string()]);
        // Beside the store, wherever both go together.
        observe.args(&settings).arg("--history").arg(history.file_name().context("a history has a name")?);
        observe.arg("--store").arg(&store);
        process::run(&mut observe)?;
        (machine, at) = (migrated.machine, migrated.at);
    }
    drop(machine);
    let mut review = Command::new(&program);
    review.arg("calibrate").arg(&store).arg("--review");
    // A platform that has drifted is an answer, not a failure.
    review.status().context("migcast calibrate --review")?;
    Ok(())
}
