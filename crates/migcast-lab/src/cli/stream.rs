//! `migcast-lab stream` and `compare-stream`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use migcast_lab::capture::{SOURCE, capture};
use migcast_lab::evidence::Evidence;
use migcast_lab::features::Features;
use migcast_lab::interrupt::Interrupt;
use migcast_lab::link::ShapedLink;
use migcast_lab::machine::{Machine, Spec};
use migcast_lab::migration::{NO_CAP, Terms};
use migcast_lab::retrace::{self, Hosts};
use migcast_model::quantity::{parse_bytes, parse_duration, parse_rate};
use migcast_model::units::{ByteCount, BytesPerSec};

use super::guest::{self, Boot};

/// How a stream is captured.
#[derive(Debug, Args)]
pub(crate) struct Stream {
    /// Which guest: one that runs the microbenchmark
    name: String,
    /// The file
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Line rate of the link
    #[arg(long, value_name = "RATE", default_value = "400Mbit/s", value_parser = parse_rate)]
    link: BytesPerSec,
    /// QEMU's downtime-limit
    #[arg(long, value_name = "TIME", default_value = "300ms", value_parser = parse_duration)]
    downtime_limit: Duration,
    /// QEMU's max-bandwidth; none if nothing is said
    #[arg(long, value_name = "RATE", value_parser = parse_rate)]
    max_bandwidth: Option<BytesPerSec>,
    /// The source's send buffer; sized by the kernel as it goes if nothing is said
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    send_buffer: Option<ByteCount>,
    /// How long the guest runs before it is migrated
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = parse_duration)]
    warm_up: Duration,
    /// A migration that still copies then is an error
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_duration)]
    give_up: Duration,
    #[command(flatten)]
    boot: Boot,
}

pub(crate) fn stream(args: &Stream, interrupt: &Interrupt) -> Result<()> {
    let spec = args.boot.spec(&args.name)?;
    let images = guest::images(spec.guest)?;
    let terms = Terms {
        link: args.link,
        downtime_limit: args.downtime_limit,
        max_bandwidth: args.max_bandwidth.unwrap_or(BytesPerSec::new(NO_CAP)),
        give_up: args.give_up,
        features: Features::default(),
    };
    let link = ShapedLink::make(args.link)?;
    if let Some(size) = args.send_buffer {
        link.fix_send_buffer(size)?;
    }
    let spec = Spec { namespace: link.namespace(SOURCE), ..spec };
    let mut machine = Machine::start(&images, &spec, interrupt)?;
    machine.wait_ready(interrupt)?;
    ensure!(!interrupt.wait(args.warm_up), "interrupted");
    capture(&mut machine, &link, &spec, terms, interrupt)?.save(&args.out)
}

/// Captured migrations beside their simulations.
#[derive(Debug, Args)]
pub(crate) struct CompareStream {
    /// Files that `stream` has written
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// What the hosts cost: a platform file
    #[arg(long, value_name = "FILE")]
    platform: PathBuf,
}

pub(crate) fn compare_stream(args: &CompareStream) -> Result<()> {
    let hosts = Hosts::read(&args.platform)?;
    for file in &args.files {
        let evidence = Evidence::load(file)?;
        let retraced = retrace::retrace(&evidence, &hosts).with_context(|| file.display().to_string())?;
        say!("{}: {}\n{retraced}", file.display(), evidence.about);
    }
    Ok(())
}
