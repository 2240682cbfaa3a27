//! A recording made the way a user makes one: a guest, and the program `migcast record` on its monitor.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use migcast_history::merge::merge;
use migcast_history::reader::History;
use rustix::process::Signal;

use crate::check::Check;
use crate::interrupt::Interrupt;
use crate::machine::{Images, Machine, Spec};
use crate::packages;
use crate::process::{Running, ending};
use crate::serial::Line;
use crate::write_log;

/// How the recording is made.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The program `migcast`.
    pub program: PathBuf,
    /// Its options besides the guest, the folder and the name, e.g. `--window 100ms`.
    pub options: Vec<String>,
    /// Where the microbenchmark's log goes, if anywhere.
    pub log: Option<PathBuf>,
}

/// How long `migcast record` may take to end in order.
const STOP_MAX: Duration = Duration::from_secs(30);

/// The program `migcast`: the environment's `MIGCAST`, else the one beside this program.
///
/// # Errors
/// There is none; the message says how to build it.
pub fn program() -> Result<PathBuf> {
    if let Some(named) = std::env::var_os("MIGCAST") {
        return Ok(named.into());
    }
    let own = std::env::current_exe().context("finding our own program")?;
    // A test runs from a folder below.
    let beside = own.ancestors().skip(1).take(2).map(|folder| folder.join("migcast")).find(|path| path.is_file());
    beside.with_context(|| format!("no `migcast` beside {}: run `cargo build -p migcast` first", own.display()))
}

/// The first folder NAME-1, NAME-2, … within `out` that is not there yet.
///
/// # Errors
/// There is none, which cannot be.
pub fn free_folder(out: &Path, name: &str) -> Result<PathBuf> {
    let number = (1..).find(|number| !out.join(format!("{name}-{number}")).exists());
    Ok(out.join(format!("{name}-{}", number.context("no free number")?)))
}

/// The recorder as a user would call it, with its defaults, on a guest that runs. `options` as [`Settings::options`].
pub fn command(
    program: &Path,
    machine: &Machine,
    history: &Path,
    (name, span): (&str, Duration),
    options: &[String],
) -> Command {
    let mut command = Command::new(program);
    command.arg("record").arg("--qmp").arg(machine.qmp()).arg("--out").arg(history).args(["--name", name]);
    command.args(["--duration", &format!("{}ms", span.as_millis())]).args(options);
    command
}

/// Lays `more`, recorded of the same guest later, behind `history`.
///
/// # Errors
/// One of them cannot be read, they were not recorded alike, or the disk is full. Until both are together `history` stays as
/// it was.
pub fn lay_behind(history: &Path, more: &Path) -> Result<()> {
    let together = history.with_extension("together");
    if together.exists() {
        fs::remove_dir_all(&together).with_context(|| together.display().to_string())?;
    }
    // On another host the guest runs under another process, which has an id of its own.
    merge(&[History::open(history)?, History::open(more)?], true, &together)?;
    fs::remove_dir_all(history).and_then(|()| fs::rename(&together, history)).context("laying a recording behind")
}

/// Boots a guest, records it into `out` once it is ready, and ends it. An interrupt ends the recording in order;
/// what it has by then is kept.
///
/// # Errors
/// The guest or the program fails.
pub fn record(spec: &Spec, images: &Images, settings: &Settings, out: &Path, interrupt: &Interrupt) -> Result<Made> {
    let mut machine = Machine::start(images, spec, interrupt)?;
    machine.wait_ready(interrupt)?;
    let mut command = Command::new(&settings.program);
    command.arg("record").arg("--qmp").arg(machine.qmp()).arg("--out").arg(out);
    command.args(["--name", spec.guest.name]).args(&settings.options);
    let mut recorder = Running::start("migcast record", &mut command, Signal::TERM)?;
    let status = loop {
        if let Some(status) = recorder.ended()? {
            break status;
        }
        if interrupt.wait(Duration::from_millis(50)) {
            recorder.signal(Signal::INT)?;
            break recorder.wait(STOP_MAX)?.context("migcast record did not end within 30 s of being asked to")?;
        }
    };
    ensure!(status.success() || interrupt.came(), "migcast record {}", ending(status));
    if let Some(status) = machine.qemu().ended()? {
        bail!("QEMU {} during the recording; its console said last: {}", ending(status), machine.console().tail(5));
    }
    let log = machine.log().lines();
    if let Some(path) = &settings.log {
        write_log::save(&log, path)?;
    }
    Ok(Made { qemu: machine.version().to_owned(), log })
}

/// What a recording leaves behind besides the history.
#[derive(Debug)]
pub struct Made {
    /// QEMU's version.
    pub qemu: String,
    /// The microbenchmark's log; empty for a guest that runs a real program.
    pub log: Vec<Line>,
}

/// Writes `MADE.md` into a history: the exact command, versions and date, and what a check of it said, if any.
///
/// # Errors
/// The file cannot be written.
pub fn describe(out: &Path, spec: &Spec, made: &Made, command: &str, check: Option<&Check>) -> Result<()> {
    let Spec { guest, memory_mib, accel, .. } = spec;
    let about = match &spec.pattern {
        Some(pattern) => format!("the microbenchmark with the pattern {pattern}"),
        None => guest.about.to_owned(),
    };
    let date = jiff::Timestamp::now().strftime("%Y-%m-%d");
    let (version, release, qemu) = (env!("CARGO_PKG_VERSION"), packages::RELEASE, &made.qemu);
    let mut text = format!(
        "# {}\n\nA real guest: {about}.\n\n{memory_mib} MiB, one CPU, under QEMU {qemu} ({accel}), made of Debian \
         {release}; recorded on {date} by migcast {version} with\n\n```\n{command}\n```\n",
        guest.name,
    );
    if let Some(check) = check {
        text.push_str(&format!(
            "\nHeld against the guest's own log of its writes (means in pages; beside: what the rest of the guest \
             wrote):\n\n```\n{check}\n```\n"
        ));
    }
    let path = out.join("MADE.md");
    fs::write(&path, text).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use migcast_history::trim::trim;

    use super::*;

    #[test]
    fn what_is_laid_behind_a_history_goes_on_from_it() {
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/histories/steady");
        let whole = History::open(&shipped).unwrap();
        let timeline = whole.timeline().unwrap();
        let (start, end) = (timeline.start_unix_ns(), timeline.end_unix_ns());
        let folder = tempfile::tempdir().unwrap();
        let (history, lead) = (folder.path().join("steady-1"), folder.path().join("lead"));
        trim(&whole, start..start + 20_000_000_000, &history).unwrap();
        trim(&whole, end - 5_000_000_000..end, &lead).unwrap();
        // What somebody left who was ended in between is no hindrance.
        fs::create_dir(history.with_extension("together")).unwrap();
        lay_behind(&history, &lead).unwrap();
        let together = History::open(&history).unwrap().timeline().unwrap();
        assert_eq!((together.start(), together.end()), (timeline.start(), timeline.end()));
        let (gaps, missing) = together.in_state(migcast_history::windows::State::Gap);
        assert!(gaps == 1 && (34.0..36.0).contains(&missing.as_secs_f64()), "{gaps}, {missing:?}");
        assert!(!history.with_extension("together").exists());
    }
}
