//! `migcast-lab slowdown`: what a recording costs the guest, or a migration.

use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use migcast_lab::cores::Reserved;
use migcast_lab::interrupt::Interrupt;
use migcast_lab::link::ShapedLink;
use migcast_lab::machine::Spec;
use migcast_lab::{recording, slowdown};
use migcast_model::quantity::{parse_duration, parse_rate};
use migcast_model::units::BytesPerSec;

use super::guest::{self, Boot};

/// How the slowdown is measured.
#[derive(Debug, Args)]
pub(crate) struct Slowdown {
    /// Pairs of blocks, one with the recorder on, one with it off
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u32).range(2..))]
    pairs: u32,
    /// Length of a block
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = parse_duration)]
    block: Duration,
    /// Handed on to `migcast record`
    #[arg(long, default_value = "auto")]
    sample: String,
    /// Handed on to `migcast record`
    #[arg(long, default_value = "5%")]
    cpu_limit: String,
    /// What a migration over such links costs a guest that computes, instead of a recording
    #[arg(long, value_name = "LINK", value_parser = parse_rate, conflicts_with_all = ["sample", "cpu_limit"])]
    migrate: Vec<BytesPerSec>,
    #[command(flatten)]
    boot: Boot,
}

pub(crate) fn slowdown(args: &Slowdown, interrupt: &Interrupt) -> Result<()> {
    if !args.migrate.is_empty() {
        return by_migrations(args, interrupt);
    }
    let spec = spec(&args.boot, "steady", slowdown::SATURATING)?;
    let images = guest::images(spec.guest)?;
    let mut recorder = Command::new(recording::program()?);
    recorder.args(["record", "--sample", &args.sample, "--cpu-limit", &args.cpu_limit]);
    let measured = slowdown::measure((&spec, &images), recorder, (args.pairs, args.block), interrupt)?;
    say!("{measured}");
    Ok(())
}

/// The guest `name`, with the pattern that is asked for or this one.
fn spec(boot: &Boot, name: &str, pattern: &str) -> Result<Spec> {
    let spec = boot.spec(name)?;
    let pattern = spec.pattern.clone().map_or_else(|| pattern.parse(), Ok)?;
    Ok(Spec { pattern: Some(pattern), ..spec })
}

/// The same beside migrations, over each link in turn.
fn by_migrations(args: &Slowdown, interrupt: &Interrupt) -> Result<()> {
    let reserved = Reserved::take()?;
    let spec = spec(&args.boot, "computing", slowdown::ENDLESS)?;
    let spec = Spec { vcpu_core: reserved.as_ref().map(Reserved::core), ..spec };
    let (images, link) = (guest::images(spec.guest)?, ShapedLink::make(args.migrate[0])?);
    for rate in &args.migrate {
        let blocks = (args.pairs, args.block);
        say!("{}", slowdown::of_migration((&spec, &images), (&link, *rate), blocks, interrupt)?);
    }
    Ok(())
}
