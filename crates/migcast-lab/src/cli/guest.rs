//! `migcast-lab guest list|build|run`.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use migcast_dirty::pattern::Pattern;
use migcast_lab::accel::Accel;
use migcast_lab::cache::Cache;
use migcast_lab::guest::{GUESTS, Guest};
use migcast_lab::interrupt::Interrupt;
use migcast_lab::machine::{Images, Machine, Spec};
use migcast_lab::process::ending;
use migcast_lab::serial::SerialLine;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Say which guests there are
    List,
    /// Build a guest's kernel and images without booting it
    Build {
        /// Which guest; all if nothing is said
        name: Option<String>,
    },
    /// Boot a guest and keep it running until Ctrl-C
    Run {
        /// Which guest
        name: String,
        #[command(flatten)]
        boot: Boot,
        /// Where its free monitor listens
        #[arg(long, value_name = "SOCKET")]
        qmp: Option<PathBuf>,
        /// End after this long, counted from readiness, e.g. 60s
        #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration)]
        span: Option<Duration>,
        /// Print the guest's console and, at the end, its log
        #[arg(long)]
        verbose: bool,
    },
}

/// How a guest is booted, for all commands that boot one.
#[derive(Debug, Args)]
pub(crate) struct Boot {
    /// Memory, e.g. 512MiB or 2GiB; the catalogue's if nothing is said
    #[arg(long, value_parser = memory_mib)]
    pub(crate) memory: Option<u32>,
    /// Memory in a shared memfd instead of private memory
    #[arg(long)]
    pub(crate) shared: bool,
    /// tcg or kvm; MIGCAST_LAB_ACCEL if nothing is said, else tcg
    #[arg(long)]
    pub(crate) accel: Option<Accel>,
    /// Another pattern for the microbenchmark, e.g. uniform:rate=500,pages=4000
    #[arg(long)]
    pub(crate) pattern: Option<Pattern>,
    /// Seed of the pattern's random choices
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
}

impl Boot {
    /// The guest `name`, booted so.
    pub(crate) fn spec(&self, name: &str) -> Result<Spec> {
        let accel = self.accel.map_or_else(Accel::from_environment, Ok)?;
        let spec = Spec::of(Guest::named(name)?, accel);
        Ok(Spec {
            pattern: self.pattern.clone(),
            seed: self.seed,
            memory_mib: self.memory.unwrap_or(spec.memory_mib),
            shared: self.shared,
            ..spec
        })
    }
}

/// Least memory a guest boots with.
const MEMORY_MIN_MIB: u32 = 96;

fn memory_mib(text: &str) -> Result<u32> {
    let number = |digits: &str, mib: u32| digits.parse::<u32>().ok().and_then(|number| number.checked_mul(mib));
    let mib = match (text.strip_suffix("MiB"), text.strip_suffix("GiB")) {
        (Some(digits), _) => number(digits, 1),
        (_, Some(digits)) => number(digits, 1024),
        _ => None,
    };
    match mib {
        // Beyond 3 GiB the pc machine splits memory and a frame is no longer a page of the block.
        Some(mib) if (MEMORY_MIN_MIB..=3072).contains(&mib) => Ok(mib),
        _ => bail!("allowed is a whole number of MiB or GiB from {MEMORY_MIN_MIB}MiB to 3GiB"),
    }
}

pub(crate) fn run(command: &Command, interrupt: &Interrupt) -> Result<()> {
    match command {
        Command::List => {
            for guest in &GUESTS {
                say!("{:<17} {:>4} MiB  {}", guest.name, guest.memory_mib, guest.about);
            }
            Ok(())
        }
        Command::Build { name } => build(name.as_deref()),
        Command::Run { name, boot, qmp, span, verbose } => {
            let spec = Spec { qmp: qmp.clone(), ..boot.spec(name)? };
            keep_running(&spec, *span, *verbose, interrupt)
        }
    }
}

fn build(name: Option<&str>) -> Result<()> {
    let guests: Vec<&Guest> = match name {
        Some(name) => vec![Guest::named(name)?],
        None => GUESTS.iter().collect(),
    };
    let cache = Cache::open()?;
    for guest in guests {
        eprintln!("building {}", guest.name);
        Images::obtain(&cache, guest)?;
    }
    say!("built in {}", cache.root().display());
    Ok(())
}

/// Builds the images with the cache locked, and lets it go before the guest runs.
pub(crate) fn images(guest: &Guest) -> Result<Images> {
    Images::obtain(&Cache::open()?, guest)
}

fn keep_running(spec: &Spec, span: Option<Duration>, verbose: bool, interrupt: &Interrupt) -> Result<()> {
    let images = images(spec.guest)?;
    let begin = Instant::now();
    let mut machine = Machine::start(&images, spec, interrupt)?;
    say!("qmp {}", machine.qmp().display());
    say!("pid {}", machine.qemu().id());
    let ready = machine.wait_ready(interrupt);
    if verbose && ready.is_err() {
        print_lines("console", machine.console());
    }
    ready?;
    say!("ready after {:.1} s", begin.elapsed().as_secs_f64());

    let end = span.map(|span| Instant::now() + span);
    while !interrupt.wait(Duration::from_millis(100)) {
        if let Some(status) = machine.qemu().ended()? {
            bail!("QEMU {} while the guest ran; its console said last: {}", ending(status), machine.console().tail(5));
        }
        if end.is_some_and(|end| Instant::now() >= end) {
            break;
        }
    }
    if verbose {
        print_lines("console", machine.console());
        print_lines("log", machine.log());
    }
    Ok(())
}

fn print_lines(name: &str, line: &SerialLine) {
    for line in line.lines() {
        say!("{name}: {}", line.text);
    }
}
