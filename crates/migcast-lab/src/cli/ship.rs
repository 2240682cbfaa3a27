//! `migcast-lab ship`: the recordings that come with the repository.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use migcast_history::reader::History;
use migcast_lab::accel::Accel;
use migcast_lab::check::{Check, check};
use migcast_lab::guest::Guest;
use migcast_lab::interrupt::Interrupt;
use migcast_lab::machine::Spec;
use migcast_lab::recording::{self, Made, Settings};
use migcast_lab::write_log::WriteLog;

use super::guest;

/// The guests whose recordings come with the repository.
const SHIPPED: [&str; 7] = ["steady", "hot-cold", "phases", "web", "redis", "sort", "cpu"];

/// The microbenchmark keeps its rate beside a look at every page ten times a second, and can be checked page by page.
const MICROBENCHMARK: [&str; 8] = ["--duration", "60s", "--window", "100ms", "--sample", "all", "--cpu-limit", "100%"];
/// A real program does not: it is recorded as a user would, within the recorder's default limit.
const REAL_PROGRAM: [&str; 8] = ["--duration", "60s", "--window", "100ms", "--sample", "auto", "--cpu-limit", "5%"];

/// A recording of the microbenchmark is not shipped if a write set is further off its log than this.
const ERROR_MAX: f64 = 0.03;

/// Which recordings, and where to.
#[derive(Debug, Args)]
pub(crate) struct Ship {
    /// Which ones; all if nothing is said
    names: Vec<String>,
    /// The folder they lie in
    #[arg(long, value_name = "DIR", default_value = "testdata/histories")]
    into: PathBuf,
}

pub(crate) fn ship(args: &Ship, interrupt: &Interrupt) -> Result<()> {
    for name in &args.names {
        ensure!(SHIPPED.contains(&name.as_str()), "'{name}' is not shipped; those are {}", SHIPPED.join(", "));
    }
    let all = args.names.is_empty();
    for name in SHIPPED.iter().filter(|name| all || args.names.iter().any(|wanted| wanted == *name)) {
        eprintln!("recording {name}");
        // Beside the old one, which is replaced only by a whole new one.
        let new = args.into.join(format!("{name}.new"));
        let outcome = ship_one(name, &new, interrupt).with_context(|| format!("recording {name}"));
        if outcome.is_err() || interrupt.came() {
            remove(&new)?;
            outcome?;
            bail!("interrupted; {} is as it was", args.into.join(name).display());
        }
        let old = args.into.join(name);
        remove(&old)?;
        fs::rename(&new, &old).with_context(|| format!("moving {} to its place", new.display()))?;
    }
    Ok(())
}

fn ship_one(name: &str, new: &Path, interrupt: &Interrupt) -> Result<()> {
    let spec = Spec::of(Guest::named(name)?, Accel::from_environment()?);
    let options = if spec.guest.pattern().is_some() { MICROBENCHMARK } else { REAL_PROGRAM };
    let settings = Settings { program: recording::program()?, options: options.map(str::to_owned).to_vec(), log: None };
    let made = recording::record(&spec, &guest::images(spec.guest)?, &settings, new, interrupt)?;
    if interrupt.came() {
        return Ok(());
    }
    let check = checked(&spec, &made, new)?;
    let command = format!("migcast-lab record {name} --out testdata/histories/{name} {}", options.join(" "));
    recording::describe(new, &spec, &made, &command, check.as_ref())
}

fn checked(spec: &Spec, made: &Made, new: &Path) -> Result<Option<Check>> {
    if spec.guest.pattern().is_none() {
        return Ok(None);
    }
    let check = check(&History::open(new)?, &WriteLog::parse(&made.log)?)?;
    say!("{check}");
    let sound = check.error_max() <= ERROR_MAX && check.missed == 0 && check.invented == 0;
    ensure!(sound, "the recording is not what the guest wrote");
    Ok(Some(check))
}

fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", folder.display()))
        }
        _ => Ok(()),
    }
}
