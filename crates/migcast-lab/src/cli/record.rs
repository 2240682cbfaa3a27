//! `migcast-lab record` and `check-record`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use migcast_history::reader::History;
use migcast_lab::check::check;
use migcast_lab::interrupt::Interrupt;
use migcast_lab::recording::{self, Settings};
use migcast_lab::write_log::WriteLog;

use super::guest::{self, Boot};

/// How the recording is made.
#[derive(Debug, Args)]
pub(crate) struct Record {
    /// Which guest
    pub(crate) name: String,
    /// The folder of the history
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    #[command(flatten)]
    pub(crate) boot: Boot,
    #[command(flatten)]
    pub(crate) recorder: Recorder,
    /// Keep the microbenchmark's own log in this file, for check-record
    #[arg(long, value_name = "FILE")]
    pub(crate) log: Option<PathBuf>,
}

/// Options handed on to `migcast record`.
#[derive(Debug, Args)]
pub(crate) struct Recorder {
    /// How long to record
    #[arg(long, default_value = "60s", value_parser = humantime::parse_duration)]
    pub(crate) duration: Duration,
    /// Length of a window
    #[arg(long, default_value = "100ms", value_parser = humantime::parse_duration)]
    pub(crate) window: Duration,
    /// Pages to track: all, 1/N or auto
    #[arg(long, default_value = "all")]
    pub(crate) sample: String,
    /// Most CPU time of the recorder, of one core
    #[arg(long, default_value = "100%")]
    pub(crate) cpu_limit: String,
    /// By QEMU's dirty log
    #[arg(long)]
    pub(crate) dirty_log: bool,
}

impl Recorder {
    pub(crate) fn options(&self) -> Vec<String> {
        let duration = humantime::format_duration(self.duration).to_string();
        let window = humantime::format_duration(self.window).to_string();
        let pairs = [
            ("--duration", duration),
            ("--window", window),
            ("--sample", self.sample.clone()),
            ("--cpu-limit", self.cpu_limit.clone()),
        ];
        let words = pairs.into_iter().flat_map(|(name, value)| [name.to_owned(), value]);
        words.chain(self.dirty_log.then(|| "--dirty-log".to_owned())).collect()
    }
}

pub(crate) fn record(args: &Record, interrupt: &Interrupt) -> Result<()> {
    let spec = args.boot.spec(&args.name)?;
    let settings = Settings { program: recording::program()?, options: args.recorder.options(), log: args.log.clone() };
    let images = guest::images(spec.guest)?;
    let made = recording::record(&spec, &images, &settings, &args.out, interrupt)?;
    let command = command_line();
    recording::describe(&args.out, &spec, &made, &command, None)
}

/// The command that was typed, without the folder the program lies in.
fn command_line() -> String {
    let words = std::env::args().skip(1);
    std::iter::once("migcast-lab".to_owned()).chain(words).collect::<Vec<_>>().join(" ")
}

/// A recording and the log of its guest.
#[derive(Debug, Args)]
pub(crate) struct CheckRecord {
    /// The history
    history: PathBuf,
    /// The log kept by `record --log`
    #[arg(long, value_name = "FILE")]
    log: PathBuf,
    /// Largest error of any span, in percent
    #[arg(long, default_value_t = 3.0)]
    error_max: f64,
}

pub(crate) fn check_record(args: &CheckRecord) -> Result<()> {
    let history = History::open(&args.history).with_context(|| args.history.display().to_string())?;
    let outcome = check(&history, &WriteLog::load(&args.log)?)?;
    say!("{outcome}");
    let percent = outcome.error_max() * 100.0;
    ensure!(percent <= args.error_max, "a write set is off by {percent:.2} %, allowed are {} %", args.error_max);
    ensure!(
        outcome.missed == 0 && outcome.invented == 0,
        "{} pages missed and {} invented, allowed are none",
        outcome.missed,
        outcome.invented
    );
    Ok(())
}
