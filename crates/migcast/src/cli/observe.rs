//! `migcast observe`: read logs of real migrations as observed migrations.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, ensure};
use clap::ValueEnum;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use migcast_history::observed::log::{self, Clock, Form};
use migcast_history::observed::store::Store;
use migcast_history::observed::{self, Known};
use migcast_model::quantity;
use migcast_model::units::BytesPerSec;

use super::predict::parse_time_zone;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    virsh domjobinfo web --completed | migcast observe - --from domjobinfo --guest web --hypervisor-version 10.0.2 --link 10Gbit/s --store hosts.db\n  \
    xl -vvv migrate web other-host 2>&1 | ts %.s > web.log; migcast observe web.log --from xl-log --guest web --hypervisor-version 4.17.7 --link 10Gbit/s --history web.history --out observed.jsonl")]
pub(crate) struct Args {
    /// Logs, each of one or more migrations of the guest; - is standard input
    #[arg(value_name = "LOG", required = true)]
    logs: Vec<PathBuf>,
    /// What kind of log it is
    #[arg(long, value_enum)]
    from: From,
    /// Name of the guest, as it was forecast
    #[arg(long, value_name = "NAME")]
    guest: String,
    /// Version of the hypervisor, e.g. 4.17.7
    #[arg(long, value_name = "VERSION")]
    hypervisor_version: String,
    /// The hypervisor, for forms that do not say: qemu, xen or cloud-hypervisor [default: qemu]
    #[arg(long, value_name = "NAME", value_parser = ["qemu", "xen", "cloud-hypervisor"])]
    hypervisor: Option<String>,
    /// What ran the guest, e.g. kvm or tcg [default: xen for Xen, else kvm]
    #[arg(long, value_name = "NAME")]
    accelerator: Option<String>,
    /// Line rate of the link
    #[arg(long, value_name = "RATE", value_parser = quantity::parse_rate)]
    link: BytesPerSec,
    /// The history that the guest had left before; `migcast calibrate` needs it
    #[arg(long, value_name = "DIR")]
    history: Option<PathBuf>,
    /// Settings that were not the defaults
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
    /// When the last migration of the log ended, for forms that do not say [default: the file's own time]
    #[arg(long, value_name = "TIMESTAMP", value_parser = parse_timestamp)]
    ended: Option<Timestamp>,
    /// Time zone of a Proxmox log, e.g. Europe/Berlin [default: UTC]
    #[arg(long, value_name = "NAME", value_parser = parse_time_zone)]
    time_zone: Option<TimeZone>,
    /// A file to which they are appended; standard output if nothing is said
    #[arg(long, value_name = "FILE", conflicts_with = "store")]
    out: Option<PathBuf>,
    /// A store of migrations and forecasts, which `migcast calibrate --review` looks through
    #[arg(long, value_name = "FILE")]
    store: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum From {
    /// Replies to QMP's `query-migrate`, asked of the source when it is over
    QueryMigrate,
    /// `virsh domjobinfo DOMAIN --completed`
    Domjobinfo,
    /// The sender's log of Cloud Hypervisor 52 and later, with -v -v
    CloudHypervisor,
    /// Task logs of Proxmox VE
    Proxmox,
    /// `xl -vvv migrate`, each line with its time, or the statistics of Xen before 4.6
    XlLog,
    /// A table whose columns have the keys of migcast.observed/1
    Csv,
}

impl From {
    fn form(self) -> Form {
        match self {
            From::QueryMigrate => Form::QueryMigrate,
            From::Domjobinfo => Form::Domjobinfo,
            From::CloudHypervisor => Form::CloudHypervisor,
            From::Proxmox => Form::Proxmox,
            From::XlLog => Form::Xl,
            From::Csv => Form::Csv,
        }
    }
}

pub(super) fn parse_timestamp(text: &str) -> Result<Timestamp, String> {
    text.parse().map_err(|_| format!("`{text}` is not a timestamp: write it like 2026-11-24T08:00:00Z"))
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let form = args.from.form();
    let hypervisor = hypervisor(args, form)?;
    ensure!(args.ended.is_none() || !form.tells_when(), "--ended has no meaning here: the log itself says when it was");
    let has_local_times = matches!(form, Form::Proxmox);
    ensure!(args.time_zone.is_none() || has_local_times, "--time-zone belongs to a Proxmox log");
    let accelerator = args.accelerator.as_deref().unwrap_or(if hypervisor == "xen" { "xen" } else { "kvm" });
    let known = Known {
        guest: args.guest.clone(),
        history: args.history.clone(),
        version: args.hypervisor_version.clone(),
        accelerator: accelerator.to_owned(),
        link_bits_per_second: args.link.bits(),
        settings: args.settings.clone(),
    };
    // All are read before the first is written.
    let mut all = Vec::new();
    for path in &args.logs {
        let (text, written) = text(path).with_context(|| path.display().to_string())?;
        let clock =
            Clock { ended: args.ended.unwrap_or(written), zone: args.time_zone.clone().unwrap_or(TimeZone::UTC) };
        all.extend(log::read(form, hypervisor, &text, &known, &clock, path)?);
    }
    let mut kept = String::new();
    match (&args.out, &args.store) {
        (Some(out), _) => {
            all.iter().try_for_each(|one| observed::append(out, one)).with_context(|| out.display().to_string())?;
        }
        (None, Some(path)) => {
            let new = Store::open(path)?.keep_observed(&all)?;
            kept = format!(", {new} new to {}", path.display());
        }
        (None, None) => {
            let mut out = io::stdout().lock();
            for one in &all {
                writeln!(out, "{}", serde_json::to_string(one)?)?;
            }
        }
    }
    let completed = all.iter().filter(|one| one.completed).count();
    let noun = if all.len() == 1 { "migration" } else { "migrations" };
    writeln!(io::stderr(), "{} {noun} of {}, {completed} completed{kept}", all.len(), args.guest)?;
    if !form.tells_when() && args.ended.is_none() {
        let last = all.iter().map(|one| one.requested).max().unwrap_or_default();
        writeln!(io::stderr(), "requested at {last:.0} by the log's own age; --ended TIMESTAMP says it better")?;
    }
    Ok(ExitCode::SUCCESS)
}

fn hypervisor(args: &Args, form: Form) -> anyhow::Result<&str> {
    let stated = args.hypervisor.as_deref();
    let Some(of_form) = form.hypervisor() else { return Ok(stated.unwrap_or("qemu")) };
    let agrees = stated.is_none_or(|stated| stated == of_form);
    ensure!(agrees, "--hypervisor: such a log is of {of_form}");
    Ok(of_form)
}

/// A log's text, and when it was written.
fn text(path: &Path) -> anyhow::Result<(String, Timestamp)> {
    if path == Path::new("-") {
        let mut bytes = Vec::new();
        io::stdin().lock().read_to_end(&mut bytes)?;
        return Ok((String::from_utf8_lossy(&bytes).into_owned(), Timestamp::now()));
    }
    let written = std::fs::metadata(path)?.modified()?;
    let bytes = std::fs::read(path)?;
    Ok((String::from_utf8_lossy(&bytes).into_owned(), Timestamp::try_from(written)?))
}
