//! `migcast calibrate`: fit a platform file to migrations that were really seen, or see how forecasts for it did.

mod review;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use jiff::Timestamp;
use migcast_history::observed::store::{self, Store};
use migcast_history::observed::{self, Observed};
use migcast_history::reader::History;
use migcast_model::algorithm::Algorithm;
use migcast_model::algorithm::qemu::page_bytes;
use migcast_model::calibrate::{Calibration, Measured, Sighting, calibrate, rounds};
use migcast_model::dirty::PageReplay;
use migcast_model::due::Sent;
use migcast_model::guest::Guest;
use migcast_model::link::Link;
use migcast_model::platform::Platform;
use migcast_model::quantity;
use migcast_model::units::{ByteCount, BytesPerSec, PageCount};

use super::observe::parse_timestamp;
use crate::platform_file::PlatformFile;
use crate::report::{self, PlotFormat};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Each line of an OBSERVED file is one migration (migcast.observed/1) that names the history its guest \
    had left before. Use an idle guest and one that writes at a steady rate, a few migrations of each."
)]
pub(crate) struct Args {
    /// Files of observed migrations, or stores of `migcast observe --store`
    #[arg(value_name = "OBSERVED", required = true)]
    observed: Vec<PathBuf>,
    /// Use only migrations of these guests
    #[arg(long = "guest", value_name = "NAME")]
    guests: Vec<String>,
    /// Use only migrations over links of this line rate
    #[arg(long, value_name = "RATE", value_parser = quantity::parse_rate)]
    link: Option<BytesPerSec>,
    /// Use only migrations requested at this time or later
    #[arg(long, value_name = "TIMESTAMP", value_parser = parse_timestamp)]
    since: Option<Timestamp>,
    /// Name of the platform, for people
    #[arg(long, default_value = "calibrated")]
    name: String,
    /// A platform file: what the migrations do not tell is taken from it rather than from the defaults
    #[arg(long, value_name = "FILE")]
    base: Option<PathBuf>,
    /// Where the platform file goes; standard output if nothing is said
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Fit nothing: show what the stores' migrations came to beside the forecasts made before them; exit with 3 if a
    /// platform has drifted
    #[arg(long, conflicts_with_all = ["out", "base"])]
    review: bool,
    /// How old a forecast may be that is held against a migration [default: 1d]
    #[arg(long, value_name = "TIME", requires = "review", value_parser = quantity::parse_duration)]
    within: Option<Duration>,
    /// Print the review as JSON (migcast.review/1)
    #[arg(long, requires = "review")]
    json: bool,
    /// Draw every migration beside its band into a file
    #[arg(long, value_name = "FILE.svg|.png", requires = "review")]
    plot: Option<PathBuf>,
}

impl Args {
    fn wants(&self, observed: &Observed) -> bool {
        let guest = self.guests.is_empty() || self.guests.contains(&observed.guest);
        let link = self.link.is_none_or(|link| link.bits() == observed.link_bits_per_second);
        guest && link && self.since.is_none_or(|since| observed.requested >= since)
    }
}

/// How old a forecast may be, unless it is said.
const FORECAST_AGE: Duration = Duration::from_secs(86_400);

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if args.review {
        if let Some(path) = &args.plot {
            PlotFormat::of(path)?;
        }
        let answer = review::review(&args.observed, args.within.unwrap_or(FORECAST_AGE), |one| args.wants(one))?;
        let out = &mut io::stdout().lock();
        if args.json { report::write_review_json(out, &answer) } else { report::write_review(out, &answer) }
            .context("standard output")?;
        if let Some(path) = &args.plot {
            report::draw_review(&answer, path)?;
        }
        return Ok(ExitCode::from(if answer.has_drifted() { 3 } else { 0 }));
    }
    let seen = read(args)?;
    let standard = Link::ethernet(seen[0].line_rate);
    let (base, link) = match &args.base {
        Some(path) => {
            let (platform, file) = PlatformFile::read(path)?;
            (platform, file.shape(standard))
        }
        None => (Platform::default(), standard),
    };
    let fitted = fit(&args.name, (&base, link), &seen)?;
    let fitted = fitted.context("one of these migrations does not converge in the simulation: give others")?;
    let link = Link { payload_share: fitted.payload_share, sender_buffer: fitted.sender_buffer, ..link };
    let file = serde_json::to_string_pretty(&PlatformFile::of(&fitted.platform, &link))?;
    report(&seen, &fitted).context("standard error")?;
    match &args.out {
        Some(path) => std::fs::write(path, file + "\n").with_context(|| path.display().to_string())?,
        None => writeln!(io::stdout(), "{file}")?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Xen's migrations by their rounds, QEMU's by their times and bytes.
fn fit(name: &str, base: (&Platform, Link), seen: &[Seen]) -> anyhow::Result<Option<Calibration>> {
    let in_rounds = seen.iter().filter(|one| one.observed.hypervisor == "xen").count();
    ensure!(
        in_rounds == 0 || in_rounds == seen.len(),
        "migrations of Xen and of another hypervisor have no platform in common: choose with --guest, or give other files"
    );
    Ok(if in_rounds > 0 {
        let sightings: Vec<_> =
            seen.iter().map(|one| Ok(one.sighting(one.rounds()?))).collect::<anyhow::Result<_>>()?;
        rounds::calibrate(name, base, &sightings)
    } else {
        let sightings: Vec<_> =
            seen.iter().map(|one| Ok(one.sighting(one.measured()?))).collect::<anyhow::Result<_>>()?;
        calibrate(name, base, &sightings)
    })
}

/// What a guest had written.
#[derive(Debug)]
struct Past {
    path: PathBuf,
    replay: PageReplay,
    memory: PageCount,
    page_size: ByteCount,
}

impl Past {
    fn open(path: &Path) -> anyhow::Result<Past> {
        let history = History::open(path)?;
        Ok(Past {
            path: path.to_owned(),
            replay: history.page_replay(history.timeline()?.all())?.from_last_zero_map(),
            memory: PageCount::new(history.tracked().memory()),
            page_size: ByteCount::new(history.manifest().page_size_bytes),
        })
    }
}

/// An observed migration with everything it is compared with.
#[derive(Debug)]
struct Seen {
    /// Where it was read, for people.
    place: String,
    observed: Observed,
    past: Rc<Past>,
    guest: Guest,
    algorithm: Algorithm,
    line_rate: BytesPerSec,
}

impl Seen {
    fn sighting<M>(&self, measured: M) -> Sighting<'_, PageReplay, M> {
        Sighting {
            source: &self.past.replay,
            guest: self.guest.clone(),
            algorithm: self.algorithm.clone(),
            line_rate: self.line_rate,
            measured,
        }
    }

    fn span(&self, name: &str, value: Option<f64>) -> anyhow::Result<Duration> {
        let seconds = value.with_context(|| format!("{}: `{name}` is missing", self.place))?;
        Duration::try_from_secs_f64(seconds)
            .with_context(|| format!("{}: `{name}` is {seconds}: allowed is 0 or more", self.place))
    }

    fn count(&self, name: &str, value: Option<u64>) -> anyhow::Result<u64> {
        value.with_context(|| format!("{}: `{name}` is missing", self.place))
    }

    fn known(&self, name: &str, value: Option<f64>) -> anyhow::Result<Option<Duration>> {
        value.map(|value| self.span(name, Some(value))).transpose()
    }

    /// What a fit by times and bytes has to go by.
    fn measured(&self) -> anyhow::Result<Measured> {
        let observed = &self.observed;
        let pages = observed.data_pages.zip(observed.zero_pages).map(|(data, zero)| Sent {
            data: PageCount::new(data),
            zero: PageCount::new(zero),
            ..Sent::default()
        });
        let sent = observed.sent_bytes.map(ByteCount::new);
        let page = page_bytes(self.guest.page_size);
        let stopped = self.known("stopped_seconds", observed.stopped_seconds)?;
        let downtime = self.known("downtime_seconds", observed.downtime_seconds)?;
        let reported = observed.migration_time_reported_seconds;
        let source_done = observed.source_done_seconds.or(reported);
        let resumed = self.known("migration_time_seconds", observed.migration_time_seconds)?;
        Ok(Measured {
            took: self.span("migration_time_seconds", Some(observed.seconds()))?,
            setup: self.known("setup_seconds", observed.setup_seconds)?,
            active: self.known("active_seconds", observed.active_seconds)?,
            stopped,
            source_done: self.known("source_done_seconds", source_done)?,
            resumed: stopped.zip(downtime).map(|(stopped, downtime)| stopped + downtime).or(resumed),
            downtime,
            downtime_reported: self.known("downtime_reported_seconds", observed.downtime_reported_seconds)?,
            sent,
            // Of QEMU a page's bytes are known to the last one; of no other are they reported so.
            overhead: sent
                .zip(pages)
                .filter(|_| observed.hypervisor == "qemu")
                .map(|(sent, pages)| sent.saturating_sub(pages.bytes(page))),
            send_queue: observed.send_queue_at_stop_bytes.map(ByteCount::new),
        })
    }

    /// What a fit by rounds needs: the first one sends every page, later live ones what was due, the last one the rest.
    fn rounds(&self) -> anyhow::Result<rounds::Measured> {
        let observed = &self.observed;
        let active = self.span("active_seconds", observed.active_seconds)?;
        let mut live = vec![(active, self.guest.memory)];
        for (start, bytes) in observed.iteration_starts_seconds.iter().zip(&observed.pending_bytes) {
            let pages = PageCount::new(bytes / self.guest.page_size.get());
            live.push((self.span("iteration_starts_seconds", Some(*start))?, pages));
        }
        let all = PageCount::new(live.iter().map(|(_, pages)| pages.get()).sum());
        let stopped = self.span("stopped_seconds", observed.stopped_seconds)?;
        let resumed = stopped + self.span("downtime_seconds", observed.downtime_seconds)?;
        let reported = self.span("downtime_reported_seconds", observed.downtime_reported_seconds)?;
        Ok(rounds::Measured {
            active,
            live,
            last: PageCount::new(self.count("data_pages", observed.data_pages)?).saturating_sub(all),
            decided: resumed.saturating_sub(reported),
            stopped,
            resumed,
            sent: ByteCount::new(self.count("sent_bytes", observed.sent_bytes)?),
        })
    }
}

/// Reads the completed migrations of the wanted guests. In a store may be some without a history, which tell nothing here.
fn read(args: &Args) -> anyhow::Result<Vec<Seen>> {
    let (mut seen, mut pasts, mut without) = (Vec::new(), Vec::new(), 0);
    for path in &args.observed {
        let is_store = store::is_one(path);
        let all = if is_store { Store::open(path)?.observed()? } else { observed::read(path)? };
        for observed in all.into_iter().filter(|observed| observed.completed && args.wants(observed)) {
            if is_store && observed.history.is_none() {
                without += 1;
                continue;
            }
            let at = observed.requested;
            seen.push(
                prepare(path, observed, &mut pasts)
                    .with_context(|| format!("{}: migration at {at}", path.display()))?,
            );
        }
    }
    if without > 0 {
        writeln!(
            io::stderr(),
            "{without} migrations without a history are left out; `migcast observe --history DIR` names it"
        )?;
    }
    ensure!(!seen.is_empty(), "no completed migration of a wanted guest, link and time in {}", show(&args.observed));
    Ok(seen)
}

fn show(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// `pasts` are those that were opened before: a guest is migrated many times.
fn prepare(file: &Path, observed: Observed, pasts: &mut Vec<Rc<Past>>) -> anyhow::Result<Seen> {
    let Some(named) = &observed.history else { bail!("`history` is missing: what the guest wrote is not known") };
    // A relative path is meant from where the file lies, unless it leads somewhere from here.
    let beside = file.parent().unwrap_or(Path::new(".")).join(named);
    let path = if named.is_dir() { named } else { &beside };
    let past = match pasts.iter().find(|past| past.path == *path) {
        Some(past) => Rc::clone(past),
        None => {
            pasts.push(Rc::new(Past::open(path)?));
            Rc::clone(&pasts[pasts.len() - 1])
        }
    };
    let algorithm = Algorithm::of_hypervisor(&observed.hypervisor, &observed.hypervisor_version, &observed.accelerator);
    let mut algorithm = algorithm.with_context(|| {
        format!("hypervisor `{}` {} is not known", observed.hypervisor, observed.hypervisor_version)
    })?;
    for setting in &observed.settings {
        let (key, value) = setting.split_once('=').with_context(|| format!("setting `{setting}` is not KEY=VALUE"))?;
        algorithm.set(key, value)?;
    }
    Ok(Seen {
        place: format!("{}: migration at {}", file.display(), observed.requested),
        guest: Guest { name: observed.guest.clone(), memory: past.memory, page_size: past.page_size },
        past,
        algorithm,
        line_rate: BytesPerSec::from_bits(observed.link_bits_per_second),
        observed,
    })
}

/// How well the fitted platform tells what it was fitted to, and what of it rests on nothing.
fn report(seen: &[Seen], fitted: &Calibration) -> io::Result<()> {
    let err = &mut io::stderr().lock();
    writeln!(err, "predicted against actual, with the platform fitted to just these {} migrations:", seen.len())?;
    let percent = |ratio: Option<f64>| {
        ratio.map_or_else(|| "not measured".to_owned(), |ratio| format!("{:+.1} %", (ratio - 1.0) * 100.0))
    };
    for (one, residual) in seen.iter().zip(&fitted.residuals) {
        let (guest, mbit) = (&one.observed.guest, one.observed.link_bits_per_second / 1_000_000);
        let (time, down) = (percent(residual.migration_time), percent(residual.downtime));
        writeln!(err, "  {guest} over {mbit} Mbit/s: time {time}, downtime {down}, bytes {}", percent(residual.sent))?;
    }
    fitted.unsettled.iter().try_for_each(|line| writeln!(err, "not settled: {line}"))
}
