//! `migcast record`: from a running guest to a history.
//!
//! Exit codes beside the common ones: 0 the duration is reached, 130 Ctrl-C, 143 SIGTERM, 4 the guest ended, 5 its
//! monitor went away, its memory was laid out anew, or (Xen) it is being migrated, 1 a failure. In every case one line says what was kept.

use std::ffi::OsString;
use std::hash::BuildHasher;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use migcast_history::format::{KEEP_INDEX_SECONDS_MIN, KEEP_SECONDS_MIN};
use migcast_model::quantity::{QuantityError, parse_duration, write_duration};
use migcast_record::{
    Guest, Interrupt, Listener, Progress, Recording, SampleChoice, Settings, Stop, Summary, SystemClock, is_orphaned,
    libvirt, process, qemu, record, stand_back, xen,
};
use signal_hook::consts::{SIGINT, SIGTERM};

#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("guest").required(true)))]
pub(crate) struct Args {
    /// The guest's QEMU monitor: the UNIX socket of its -qmp option
    #[arg(long, value_name = "SOCKET", group = "guest")]
    qmp: Option<PathBuf>,
    /// A guest of libvirt, by name, id or UUID
    #[arg(long, value_name = "DOMAIN", group = "guest")]
    libvirt: Option<String>,
    /// libvirt connection, e.g. qemu:///system [default: virsh's own]
    #[arg(long, requires = "libvirt", conflicts_with_all = ["qmp", "pid"])]
    uri: Option<String>,
    /// A domain of Xen, by name or id; in dom0, as root
    #[arg(long, value_name = "DOMAIN", group = "guest")]
    xen: Option<String>,
    /// Turn off Xen's log of a domain whose recorder was killed, and record nothing
    #[arg(long, value_name = "DOMAIN", group = "guest", conflicts_with_all = ["out", "duration", "keep", "keep_index", "name"])]
    release: Option<String>,
    /// Restore the migration settings of the guest with this monitor, and record nothing
    #[arg(long, value_names = ["SOCKET", "SETTINGS"], num_args = 2, allow_hyphen_values = true, group = "guest", hide = true)]
    restore: Option<Vec<OsString>>,
    /// Any process, by its id
    #[arg(long, group = "guest", value_parser = pid)]
    pid: Option<u32>,
    /// Where the history goes: a directory that is empty or not there yet
    #[arg(long, value_name = "DIR", required_unless_present_any = ["release", "restore"])]
    out: Option<PathBuf>,
    /// Take what the guest writes from QEMU's own dirty log, by a migration to nowhere: it tells of every page and every
    /// write, one of what was there included. The guest cannot be migrated meanwhile; QEMU 8.2 and later
    #[arg(long, requires = "qmp", conflicts_with = "restore")]
    dirty_log: bool,
    /// Length of a window, e.g. 100ms
    #[arg(long, default_value = "100ms", value_parser = window)]
    window: Duration,
    /// How long to record, e.g. 60s or 1h [default: until Ctrl-C]
    #[arg(long, value_parser = duration)]
    duration: Option<Duration>,
    /// Keep which pages were written for so long only, e.g. 24h, at least 60s; of what is older, keep the index that
    /// forecasts need, a small part of that [default: keep all]
    #[arg(long, value_name = "TIME", value_parser = keep)]
    keep: Option<Duration>,
    /// Keep that for so long only, e.g. 90d, at least 1h and no less than --keep; what is older goes altogether [default:
    /// keep all]
    #[arg(long, value_name = "TIME", value_parser = keep_index)]
    keep_index: Option<Duration>,
    /// Which pages to track: all, one in N (1/N), or as many as the CPU limit pays for (auto: measured on the guest, and
    /// told)
    #[arg(long, value_name = "all|1/N|auto", default_value = "auto", value_parser = sample)]
    sample: SampleChoice,
    /// Most CPU time the recorder may use, of one core; above 100% scans use several threads
    #[arg(long, value_name = "PERCENT", default_value = "5%", value_parser = cpu_limit)]
    cpu_limit: f64,
    /// Name of the guest in the history [default: its own]
    #[arg(long)]
    name: Option<String>,
    /// Release or restore when standard input ends without a word
    #[arg(long, conflicts_with = "out", hide = true)]
    when_orphaned: bool,
    /// Where the kernel says which hypervisor runs
    #[arg(long, value_name = "DIR", default_value = xen::HYPERVISOR, hide = true)]
    hypervisor: PathBuf,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if let Some(domain) = &args.release {
        return release(args, domain);
    }
    if let Some([socket, settings]) = args.restore.as_deref() {
        return restore(args, Path::new(socket), &settings.to_string_lossy());
    }
    let out = args.out.as_deref().context("--out is missing")?;
    refuse_used(out)?;
    if let (Some(pages), Some(index)) = (args.keep, args.keep_index)
        && index < pages
    {
        let [pages, index] = [pages, index].map(write_duration);
        bail!("--keep-index {index} with --keep {pages}: allowed: an index for no less long than its pages");
    }
    let stop = Arc::new(AtomicUsize::new(0));
    for signal in [SIGINT, SIGTERM] {
        let number = usize::try_from(signal).expect("signal numbers are small and positive");
        signal_hook::flag::register_usize(signal, Arc::clone(&stop), number).context("cannot watch for signals")?;
    }
    if let Err(error) = stand_back() {
        tracing::debug!("cannot become a batch job: {error}");
    }
    let mut guest = open(args)?;
    if let Some(name) = &args.name {
        guest.identity.name.clone_from(name);
    }
    let settings = Settings {
        window: args.window,
        duration: args.duration,
        cpu_limit: args.cpu_limit,
        sample: args.sample,
        keep_pages: args.keep,
        keep_index: args.keep_index,
        seed: seed(),
        program: concat!("migcast ", env!("CARGO_PKG_VERSION")).to_owned(),
    };
    let mut clock = SystemClock::start(guest.watch.descriptor());
    let mut terminal = Terminal::new(stop, args.duration);
    let recording = record(guest, &settings, out, &mut clock, &mut terminal);
    terminal.bar.finish_and_clear();
    Ok(match recording? {
        Recording::Kept(summary) => report(&summary, args.keep_index, out),
        Recording::Stopped(stop) => {
            eprintln!("migcast: {}; nothing was recorded", why(&stop));
            code(&stop)
        }
    })
}

/// Says so before the guest is touched.
fn refuse_used(out: &Path) -> anyhow::Result<()> {
    let used = match std::fs::read_dir(out) {
        Ok(mut entries) => entries.next().is_some(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => false,
        Err(error) => return Err(error).context(format!("--out {}", out.display())),
    };
    anyhow::ensure!(!used, "--out {}: not empty; a history is written to a new or an empty directory", out.display());
    Ok(())
}

/// Which pages a sample takes must not depend on anything about the guest; the standard library's hash keys are random.
fn seed() -> u64 {
    std::collections::hash_map::RandomState::new().hash_one(())
}

fn open(args: &Args) -> anyhow::Result<Guest> {
    Ok(match (&args.qmp, &args.libvirt, &args.xen, args.pid) {
        (Some(socket), ..) if args.dirty_log => qemu::open_dirty_log(socket, Box::new(restorer()?))?,
        (Some(socket), ..) => qemu::open(socket)?,
        (_, Some(domain), ..) => libvirt::open(domain, args.uri.as_deref())?,
        (_, _, Some(domain), _) => xen::open(domain, &args.hypervisor, watchdog(args)?)?,
        (.., Some(pid)) => process::open(pid)?,
        _ => unreachable!("clap requires one of them"),
    })
}

/// What releases a domain if this process is killed: this program; the domain's id follows.
fn watchdog(args: &Args) -> anyhow::Result<Command> {
    let mut command = Command::new(std::env::current_exe().context("cannot find this program's own file")?);
    command.arg("record").arg("--when-orphaned").arg("--hypervisor").arg(&args.hypervisor).arg("--release");
    Ok(command)
}

/// Likewise, what restores a guest's migration settings; the monitor's socket and the settings follow.
fn restorer() -> anyhow::Result<impl Fn() -> Command> {
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    Ok(move || {
        let mut command = Command::new(&program);
        command.arg("record").arg("--when-orphaned").arg("--restore");
        command
    })
}

fn restore(args: &Args, socket: &Path, settings: &str) -> anyhow::Result<ExitCode> {
    if !args.when_orphaned || is_orphaned() {
        qemu::restore(socket, settings)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn release(args: &Args, domain: &str) -> anyhow::Result<ExitCode> {
    if !args.when_orphaned || is_orphaned() {
        xen::release(domain, &args.hypervisor)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// One line for people, and the exit code.
fn report(summary: &Summary, keep_index: Option<Duration>, out: &Path) -> ExitCode {
    let length = summary.recorded + summary.migrating + summary.gaps;
    let kept = if summary.windows == 0 {
        "nothing was recorded".to_owned()
    } else {
        let last = keep_index.filter(|keep| *keep < length);
        let last = last.map_or(String::new(), |keep| format!("the last {} of ", write_duration(keep)));
        let (windows, seconds, bytes) = (summary.windows, length.as_secs_f64(), HumanBytes(summary.bytes_on_disk));
        format!("kept {last}{windows} windows ({seconds:.1} s) in {}, {bytes}", out.display())
    };
    let tracked = match summary.sample.one_in {
        1 => format!("all {} pages tracked", summary.memory_pages),
        one_in => format!("{} of {} pages tracked (1/{one_in})", summary.tracked_pages, summary.memory_pages),
    };
    let mut line = format!("{}; {kept}; {tracked}; CPU {:.1} % of one core", why(&summary.stop), summary.cost * 100.0);
    let notes = [
        (summary.windows_lost, "windows lost"),
        (summary.overruns, "windows longer than asked for because a scan took too long"),
        (summary.stretched, "windows longer than asked for to keep --cpu-limit"),
        (summary.unreadable, "looks at pages that could not be read"),
    ];
    for (count, what) in notes {
        if count > 0 {
            line.push_str(&format!("; {count} {what}"));
        }
    }
    let blanks = [
        (summary.migrating, "while the guest migrated"),
        (summary.gaps, "while the guest was paused, or because nobody could tell what became of it"),
    ];
    for (span, why) in blanks {
        if !span.is_zero() {
            line.push_str(&format!("; {:.1} s not recorded {why}", span.as_secs_f64()));
        }
    }
    eprintln!("migcast: {line}");
    code(&summary.stop)
}

fn why(stop: &Stop) -> String {
    match stop {
        Stop::Duration => "recorded".to_owned(),
        Stop::Interrupt(Interrupt::Interrupted) => "stopped by Ctrl-C".to_owned(),
        Stop::Interrupt(Interrupt::Terminated) => "stopped by SIGTERM".to_owned(),
        Stop::GuestEnded => "the guest ended".to_owned(),
        Stop::MigrationBegan => "the guest is being migrated, or somebody else has its dirty log".to_owned(),
        Stop::MonitorGone(why) => format!("the guest's monitor went away ({why})"),
        Stop::LayoutChanged(what) => format!("{what}: start a new recording, pages are numbered anew"),
        Stop::Write(error) => chain(error),
        Stop::Memory(error) => chain(error),
    }
}

/// An error with its causes on one line.
fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn code(stop: &Stop) -> ExitCode {
    ExitCode::from(match stop {
        Stop::Duration => 0,
        Stop::Interrupt(Interrupt::Interrupted) => 130,
        Stop::Interrupt(Interrupt::Terminated) => 143,
        Stop::GuestEnded => 4,
        Stop::MigrationBegan | Stop::MonitorGone(_) | Stop::LayoutChanged(_) => 5,
        Stop::Write(_) | Stop::Memory(_) => 1,
    })
}

/// The person at the terminal: a progress bar there, warnings, Ctrl-C.
struct Terminal {
    stop: Arc<AtomicUsize>,
    bar: ProgressBar,
}

impl Terminal {
    fn new(stop: Arc<AtomicUsize>, duration: Option<Duration>) -> Terminal {
        let bar = if !std::io::stderr().is_terminal() {
            ProgressBar::hidden()
        } else if let Some(duration) = duration {
            ProgressBar::new(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)).with_style(
                ProgressStyle::with_template("{wide_bar} {percent} % · {msg}").expect("the template is well formed"),
            )
        } else {
            ProgressBar::no_length().with_style(
                ProgressStyle::with_template("{spinner} {elapsed} · {msg}").expect("the template is well formed"),
            )
        };
        Terminal { stop, bar }
    }
}

impl Listener for Terminal {
    fn interrupted(&mut self) -> Option<Interrupt> {
        match i32::try_from(self.stop.load(Ordering::Relaxed)) {
            Ok(SIGINT) => Some(Interrupt::Interrupted),
            Ok(SIGTERM) => Some(Interrupt::Terminated),
            _ => None,
        }
    }

    fn progress(&mut self, progress: &Progress) {
        if self.bar.is_hidden() {
            return;
        }
        self.bar.set_message(format!(
            "{:.0} pages/s written · CPU {:.1} % · {}",
            progress.written_per_second,
            progress.cost * 100.0,
            HumanBytes(progress.bytes_on_disk)
        ));
        self.bar.set_position(u64::try_from(progress.elapsed.as_millis()).unwrap_or(u64::MAX));
    }

    fn warn(&mut self, warning: &str) {
        self.bar.suspend(|| eprintln!("migcast: warning: {warning}"));
    }

    fn note(&mut self, note: &str) {
        self.bar.suspend(|| eprintln!("migcast: {note}"));
    }
}

fn pid(text: &str) -> Result<u32, QuantityError> {
    let pid = text.parse().ok().filter(|&pid| pid > 0);
    pid.ok_or_else(|| refusal(text, "the id of a process", "a whole number of 1 or more, such as 4711"))
}

fn duration(text: &str) -> Result<Duration, QuantityError> {
    match parse_duration(text)? {
        Duration::ZERO => Err(refusal(text, "a duration", "a span of more than 0, such as 60s or 1h30m")),
        span => Ok(span),
    }
}

fn window(text: &str) -> Result<Duration, QuantityError> {
    let allowed = Duration::from_millis(1)..=Duration::from_secs(60);
    let span = parse_duration(text).ok().filter(|span| allowed.contains(span));
    span.ok_or_else(|| refusal(text, "the length of a window", "1ms to 60s, with the unit, such as 100ms"))
}

fn keep(text: &str) -> Result<Duration, QuantityError> {
    let span = parse_duration(text).ok().filter(|span| span.as_secs_f64() >= KEEP_SECONDS_MIN);
    span.ok_or_else(|| refusal(text, "how long to keep pages", "a span of 60s or more, such as 24h"))
}

fn keep_index(text: &str) -> Result<Duration, QuantityError> {
    let span = parse_duration(text).ok().filter(|span| span.as_secs_f64() >= KEEP_INDEX_SECONDS_MIN);
    span.ok_or_else(|| refusal(text, "how long to keep the index", "a span of 1h or more, such as 90d"))
}

fn sample(text: &str) -> Result<SampleChoice, QuantityError> {
    let one_in = || text.strip_prefix("1/")?.parse().ok().filter(|&n| n > 0).map(SampleChoice::OneIn);
    let choice = match text {
        "all" => Some(SampleChoice::All),
        "auto" => Some(SampleChoice::Auto),
        _ => one_in(),
    };
    choice.ok_or_else(|| refusal(text, "a sample", "all, auto, or 1/N with N of 1 or more, such as 1/16"))
}

/// A share of one core, as "5%". Far more than scans can use is a slip of the pen.
fn cpu_limit(text: &str) -> Result<f64, QuantityError> {
    let percent = text.strip_suffix('%').and_then(|number| number.trim().parse().ok());
    let percent = percent.filter(|&percent: &f64| percent > 0.0 && percent <= 6400.0);
    let allowed = "a percentage, more than 0% and at most 6400%, such as 5%";
    percent.map(|percent| percent / 100.0).ok_or_else(|| refusal(text, "a share of one core", allowed))
}

fn refusal(text: &str, kind: &'static str, allowed: &'static str) -> QuantityError {
    QuantityError { text: text.to_owned(), kind, allowed }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(number: u64) -> Duration {
        Duration::from_millis(number)
    }

    #[test]
    fn quantities_need_their_units() {
        assert_eq!((pid("1"), duration("1m 30s")), (Ok(1), Ok(Duration::from_secs(90))));
        assert_eq!(window("100ms"), Ok(Duration::from_millis(100)));
        for bad in ["60", "", "0s", "-1s", "soon"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
        assert!(window("999us").is_err() && window("61s").is_err());
        assert_eq!(cpu_limit("5%"), Ok(0.05));
        assert_eq!((cpu_limit("200%"), cpu_limit("6400%")), (Ok(2.0), Ok(64.0)));
        assert_eq!((cpu_limit("100 %"), window("1ms"), window("60s")), (Ok(1.0), Ok(ms(1)), Ok(ms(60_000))));
        for bad in ["5", "0%", "-1%", "6401%", "inf%", "NaN%", "%"] {
            assert!(cpu_limit(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_sample_is_all_auto_or_one_in_n() {
        assert_eq!(sample("1/16"), Ok(SampleChoice::OneIn(16)));
        assert_eq!((sample("all"), sample("auto")), (Ok(SampleChoice::All), Ok(SampleChoice::Auto)));
        for bad in ["", "1/0", "2/3", "0.1", "1/x"] {
            assert!(sample(bad).is_err(), "{bad}");
        }
    }
}
