//! How much a recording slows a guest, or a migration while it copies: its own work with it and without it, in alternating
//! blocks.

use std::fmt::{self, Display};
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use migcast_model::units::BytesPerSec;
use rustix::process::Signal;

use crate::connection::{PORT, Route};
use crate::features::Features;
use crate::interrupt::Interrupt;
use crate::link::{End, ShapedLink};
use crate::machine::{Images, Machine, Spec};
use crate::migration::{NO_CAP, Prepared, Terms};
use crate::process::Running;
use crate::serial::Line;

/// A guest that computes, and writes more than any link here carries: no migration of it ends.
pub const ENDLESS: &str = "computing:steps=8000,pages=60000";
/// More writes than an emulated guest can do: its work is what it gets done.
pub const SATURATING: &str = "uniform:rate=5000000,pages=20000";
/// Part of a block that is left out after each switch.
const SETTLE: Duration = Duration::from_millis(300);
/// From the recorder's start to the first block: its trials and its baseline.
const BEGIN: Duration = Duration::from_secs(5);

/// The least downtime limit, in milliseconds: one that writes enough never gets below it, and copies until it is given up.
const LIMIT_NEVER_MS: u64 = 1;

/// Relative slowdowns of neighbouring blocks: 0.01 means 1 % less work beside what slows the guest.
#[derive(Clone, Debug)]
pub struct Slowdown {
    /// Beside what, as one says it.
    pub beside: String,
    /// One per pair of blocks.
    pub pairs: Vec<f64>,
}

impl Display for Slowdown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mean, half) = self.interval();
        let percent = |share: f64| format!("{:+.2} %", share * 100.0);
        write!(
            f,
            "the guest did {} less work {} (95 % interval {} to {}, {} pairs of blocks)",
            percent(mean),
            self.beside,
            percent(mean - half),
            percent(mean + half),
            self.pairs.len()
        )
    }
}

impl Slowdown {
    /// Of work per second in neighbouring blocks with a recorder on and off, on first or off first.
    pub(crate) fn of_recorder(blocks: &[(bool, f64)]) -> Slowdown {
        let slowdown = |pair: &[(bool, f64)]| {
            let (on, off) = if pair[0].0 { (pair[0].1, pair[1].1) } else { (pair[1].1, pair[0].1) };
            1.0 - on / off
        };
        Slowdown { beside: "with the recorder on".to_owned(), pairs: blocks.chunks_exact(2).map(slowdown).collect() }
    }

    /// Mean and half the width of its 95 % interval (normal; for 20 pairs or more).
    pub fn interval(&self) -> (f64, f64) {
        let n = self.pairs.len() as f64;
        let mean = self.pairs.iter().sum::<f64>() / n;
        let variance = self.pairs.iter().map(|pair| (pair - mean).powi(2)).sum::<f64>() / (n - 1.0);
        (mean, 1.96 * (variance / n).sqrt())
    }
}

/// Boots the guest, starts `recorder` on it (its `--qmp` and `--out` are added) and measures `pairs` pairs of blocks.
///
/// # Errors
/// The guest or the recorder fails, or we are interrupted.
pub fn measure(
    (spec, images): (&Spec, &Images),
    mut recorder: Command,
    (pairs, block): (u32, Duration),
    interrupt: &Interrupt,
) -> Result<Slowdown> {
    let machine = Machine::start(images, spec, interrupt)?;
    machine.wait_ready(interrupt)?;
    let out = machine.folder().join("history");
    recorder.arg("--qmp").arg(machine.qmp()).arg("--out").arg(&out);
    let mut recorder = Running::start("migcast record", &mut recorder, Signal::TERM)?;
    ensure!(!interrupt.wait(BEGIN), "interrupted");
    let mut blocks = Vec::new();
    // On first, then off first, and so on: a drift of the machine's speed falls on both alike.
    for index in 0..2 * pairs {
        let on = (index / 2 + index) % 2 == 0;
        recorder.signal(if on { Signal::CONT } else { Signal::STOP })?;
        ensure!(recorder.ended()?.is_none(), "migcast record ended before its time");
        ensure!(!interrupt.wait(SETTLE), "interrupted");
        let start = SystemTime::now();
        ensure!(!interrupt.wait(block), "interrupted");
        blocks.push((on, start, SystemTime::now()));
    }
    recorder.signal(Signal::CONT)?;
    recorder.signal(Signal::INT)?;
    recorder.wait(Duration::from_secs(30))?.context("migcast record did not end within 30 s")?;
    let lines = machine.log().lines();
    let rates: Result<Vec<_>> = blocks.iter().map(|(on, from, to)| Ok((*on, rate(&lines, *from, *to)?))).collect();
    Ok(Slowdown::of_recorder(&rates?))
}

/// Boots the guest and measures what it does while a migration over `rate` copies that is given up after a `block`, against
/// the mean of the blocks before and after it, in which a target awaits it, as often as `pairs` says.
///
/// # Errors
/// A machine fails, a migration ends before it is given up, or we are interrupted.
pub fn of_migration(
    (spec, images): (&Spec, &Images),
    (link, rate): (&ShapedLink, BytesPerSec),
    (pairs, block): (u32, Duration),
    interrupt: &Interrupt,
) -> Result<Slowdown> {
    let mut machine = Machine::start(images, spec, interrupt)?;
    machine.wait_ready(interrupt)?;
    link.shape(rate)?;
    let terms = Terms {
        link: rate,
        downtime_limit: Duration::from_millis(LIMIT_NEVER_MS),
        max_bandwidth: BytesPerSec::new(NO_CAP),
        give_up: block + SETTLE,
        features: Features::default(),
    };
    let (mut alone, mut migrated) = (Vec::new(), Vec::new());
    for _ in 0..pairs {
        let route = Route { link, from: End::Here, port: PORT };
        let prepared = Prepared::new(machine, route, spec, images, terms, interrupt)?;
        alone.push(block_of(prepared.source(), block, interrupt)?);
        let ends = prepared.pids();
        let done = prepared.begin(&ends)?.finish(interrupt)?;
        ensure!(
            !done.observed.completed,
            "a migration that was to copy for {block:?} ended: take a guest that writes more"
        );
        let requested = SystemTime::from(done.observed.requested);
        machine = done.machine;
        migrated.push(rate_between(&machine, requested + SETTLE, requested + SETTLE + block)?);
    }
    alone.push(block_of(&machine, block, interrupt)?);
    let before_and_after = alone.windows(2).map(|pair| (pair[0] + pair[1]) / 2.0);
    let pairs = before_and_after.zip(migrated).map(|(alone, migrated)| 1.0 - migrated / alone).collect();
    let beside = format!("while it was migrated over {} Mbit/s", rate.bits() / 1_000_000);
    Ok(Slowdown { beside, pairs })
}

/// What the guest does in a block from now on.
fn block_of(machine: &Machine, block: Duration, interrupt: &Interrupt) -> Result<f64> {
    ensure!(!interrupt.wait(SETTLE), "interrupted");
    let start = SystemTime::now();
    ensure!(!interrupt.wait(block), "interrupted");
    rate_between(machine, start, SystemTime::now())
}

fn rate_between(machine: &Machine, from: SystemTime, to: SystemTime) -> Result<f64> {
    rate(&machine.log().lines(), from, to)
}

/// Writes per second the guest reports between two moments.
fn rate(lines: &[Line], from: SystemTime, to: SystemTime) -> Result<f64> {
    let wrote = |line: &Line| -> Option<(SystemTime, f64)> {
        let count = line.text.strip_prefix("wrote ")?.split_once(' ')?.1.parse().ok()?;
        (line.at >= from && line.at <= to).then_some((line.at, count))
    };
    let mut reports = lines.iter().filter_map(wrote);
    let first = reports.next().context("the guest reported nothing in a block")?;
    let last = reports.next_back().context("the guest reported only once in a block")?;
    Ok((last.1 - first.1) / last.0.duration_since(first.0)?.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_taken_between_the_first_and_last_report_of_a_block() {
        let at = |millis| SystemTime::UNIX_EPOCH + Duration::from_millis(millis);
        let line = |millis, text: &str| Line { at: at(millis), text: text.to_owned() };
        let lines = [
            line(10, "wrote 1 100"),
            line(20, "wrote 2 200"),
            line(25, "moved 3"),
            line(40, "wrote 4 600"),
            line(50, "wrote 5 9"),
        ];
        assert_eq!(rate(&lines, at(15), at(45)).unwrap(), 20_000.0);
        assert!(rate(&lines, at(60), at(90)).is_err());
    }

    #[test]
    fn the_interval_of_equal_pairs_has_no_width() {
        let slowdown = Slowdown { beside: "beside it".to_owned(), pairs: vec![0.5; 30] };
        assert_eq!(slowdown.interval(), (0.5, 0.0));
        let line =
            "the guest did +50.00 % less work beside it (95 % interval +50.00 % to +50.00 %, 30 pairs of blocks)";
        assert_eq!(slowdown.to_string(), line);
    }
}
