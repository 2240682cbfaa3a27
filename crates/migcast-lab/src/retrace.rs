//! A captured migration simulated again from what the guest really wrote, iteration by iteration and page by page.
//!
//! ```text
//!  log of writes ──► windows of 10 ms ──► PageReplay ──► QEMU's rules ──► pages of each iteration
//!                                                                              │ held against
//!                                                         the stream ──► pages of each iteration
//! ```
//! What the log does not hold, the stream tells: which pages were zero when they were first sent, and which pages beside
//! the microbenchmark's were sent again, so that the guest's kernel must have written them in between.

mod background;
mod hosts;
mod witness;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use migcast_model::algorithm::Algorithm;
use migcast_model::dirty::{PageReplay, PageReplayBuilder, ZeroChange};
use migcast_model::guest::Guest;
use migcast_model::link::Link;
use migcast_model::outcome::Outcome;
use migcast_model::simulate::Scenario;
use migcast_model::units::{ByteCount, BytesPerSec, PageCount, SimTime};

use crate::evidence::Evidence;
use crate::write_log::WriteLog;
use background::Written;
pub use hosts::Hosts;
use migcast_record::stream::Page;
use witness::Witness;

/// Length of the replay's windows: the log has a line every 10 ms.
const WINDOW: Duration = Duration::from_millis(10);
/// How much longer than the migration the replay is, so that a simulation that ends later does not start over.
const SPARE: Duration = Duration::from_secs(3);
/// A simulation that still copies after so many times the real migration's length does not end like it.
const HORIZON: u32 = 3;

/// Pages of one iteration, really and as simulated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// When it began, since the request, really and as simulated.
    pub began: [Option<Duration>; 2],
    /// Pages due at its beginning; QEMU tells none of the first and the last.
    pub due: [Option<u64>; 2],
    /// What QEMU sent, in order.
    pub real: Vec<Page>,
    /// Of these, pages beside the microbenchmark's that had been sent before: what the stream had to tell the simulation.
    pub background: usize,
    /// What the simulation sent, in order.
    pub simulated: Vec<Page>,
}

impl Row {
    /// Pages the simulation sent too many (or too few, below zero).
    pub fn difference(&self) -> i64 {
        let count = |pages: &[Page]| i64::try_from(pages.len()).expect("a list in memory is shorter than 2^63");
        count(&self.simulated) - count(&self.real)
    }

    /// Pages both sent, as a share of the pages either sent (Jaccard); 1 where neither sent any.
    pub fn overlap(&self) -> f64 {
        let set = |pages: &[Page]| pages.iter().map(|page| page.index).collect::<std::collections::BTreeSet<u64>>();
        let (real, simulated) = (set(&self.real), set(&self.simulated));
        let (both, either) = (real.intersection(&simulated).count(), real.union(&simulated).count());
        if either == 0 { 1.0 } else { both as f64 / either as f64 }
    }
}

/// A captured migration beside its simulation.
#[derive(Clone, Debug)]
pub struct Retraced {
    /// One per iteration; where one side has more, the other's are empty.
    pub rows: Vec<Row>,
    /// Iterations QEMU made.
    pub real: usize,
    /// Iterations the simulation made.
    pub simulated: usize,
}

/// An iteration of the simulation.
#[derive(Debug)]
struct Simulated {
    began: Duration,
    due: u64,
    pages: Vec<Page>,
}

/// Simulates the captured migration from the guest's log.
///
/// # Errors
/// The evidence does not hang together, or the simulation does not end.
pub fn retrace(evidence: &Evidence, hosts: &Hosts) -> Result<Retraced> {
    let log = WriteLog::parse(&evidence.log)?;
    let frames = frames(evidence, &log)?;
    let background = background::writes(evidence, &frames, memory(evidence).get());
    let replay = replay(evidence, &log, &frames, &background)?;
    let witness = Witness::new(&replay);
    let completed = match scenario(evidence, hosts)?.run(&witness, Duration::ZERO) {
        Outcome::Completed(completed) => completed,
        Outcome::NotConverged(progress) | Outcome::Cancelled(progress) => {
            bail!("the simulation still copies {} pages at its horizon", progress.due)
        }
    };
    let mut sent = witness.sent().into_iter();
    let simulated: Vec<Simulated> = completed
        .iterations
        .iter()
        .map(|iteration| Simulated {
            began: iteration.start.since(SimTime::ZERO),
            due: iteration.due_at_start.get(),
            pages: sent.by_ref().take(iteration.sent.pages().get() as usize).collect(),
        })
        .collect();
    ensure!(sent.next().is_none(), "the simulation asked for more pages than it sent");
    Ok(compare(evidence, simulated, &background))
}

/// The migration as it was asked for.
fn scenario(evidence: &Evidence, hosts: &Hosts) -> Result<Scenario> {
    let about = &evidence.about;
    let version = &about.hypervisor_version;
    let algorithm = Algorithm::of_hypervisor("qemu", version, &about.accelerator);
    let mut algorithm = algorithm.with_context(|| format!("QEMU '{version}' has no rules"))?;
    for setting in &about.settings {
        let (key, value) = setting.split_once('=').with_context(|| format!("setting '{setting}' has no value"))?;
        algorithm.set(key, value)?;
    }
    let link = Link { line_rate: BytesPerSec::from_bits(about.link_bits_per_second), ..hosts.link };
    let sender_buffer = about.sender_buffer_bytes.map_or(link.sender_buffer, ByteCount::new);
    Ok(Scenario {
        guest: Guest { memory: memory(evidence), ..Guest::new("captured", Guest::PAGE_SIZE) },
        link: Link { sender_buffer, ..link },
        platform: hosts.platform.clone(),
        algorithm,
        horizon: HORIZON * Duration::from_millis(about.total_time_ms),
    })
}

fn memory(evidence: &Evidence) -> PageCount {
    evidence.blocks.iter().map(|block| PageCount::new(block.pages)).sum()
}

/// What the guest wrote from the request on, in windows of [`WINDOW`].
fn replay(evidence: &Evidence, log: &WriteLog, frames: &[u64], background: &[Written]) -> Result<PageReplay> {
    let length = Duration::from_millis(evidence.about.total_time_ms) + SPARE;
    let count = length.as_nanos().div_ceil(WINDOW.as_nanos()) as usize;
    let mut windows = vec![BTreeMap::<u32, Option<bool>>::new(); count];
    let mut write = |at: i64, page: u64, zero: Option<bool>| {
        let window = usize::try_from(at).ok().and_then(|at| windows.get_mut(at / WINDOW.as_nanos() as usize));
        if let Some(window) = window {
            let told = window.entry(u32::try_from(page)?).or_default();
            *told = told.or(zero);
        }
        Ok::<_, anyhow::Error>(())
    };
    let requested = evidence.about.requested_unix_ns;
    let end = requested + i64::try_from(length.as_nanos())?;
    for logged in log.writes_until(end) {
        write(logged.unix_ns - requested, frames[logged.page as usize], None)?;
    }
    for written in background {
        write(i64::try_from(written.at.as_nanos())?, written.page, Some(written.zero))?;
    }

    let memory = memory(evidence);
    let mut builder = PageReplayBuilder::new(memory, memory);
    let mut first = background::first_sent(evidence, memory.get())?;
    builder.zero_at_start(first.iter().zip(0..).filter(|(zero, _)| **zero).map(|(_, rank)| rank..rank + 1));
    for window in &windows {
        let written: Vec<u32> = window.keys().copied().collect();
        let mut changes = Vec::new();
        for (rank, zero) in window {
            let now = &mut first[*rank as usize];
            if let Some(zero) = zero.filter(|zero| zero != now) {
                *now = zero;
                changes.push(ZeroChange { rank: *rank, zero });
            }
        }
        builder.window(WINDOW, &written, &changes);
    }
    builder.build().context("a migration of no length")
}

/// The page of each page of the working set.
fn frames(evidence: &Evidence, log: &WriteLog) -> Result<Vec<u64>> {
    ensure!(log.moved == 0, "{} pages of the working set moved", log.moved);
    let ram = evidence.blocks.iter().position(|block| block.name == "pc.ram").context("there is no block pc.ram")?;
    let first: u64 = evidence.blocks[..ram].iter().map(|block| block.pages).sum();
    let count = evidence.blocks[ram].pages;
    let page = |frame: &u64| {
        ensure!(*frame < count, "frame {frame} lies outside of pc.ram ({count} pages)");
        Ok(first + frame)
    };
    log.frames.iter().map(page).collect()
}

fn compare(evidence: &Evidence, simulated: Vec<Simulated>, background: &[Written]) -> Retraced {
    let counts = (evidence.iterations.len(), simulated.len());
    let mut simulated = simulated.into_iter();
    let rows = (0..counts.0.max(counts.1)).map(|number| {
        let (real, simulated) = (evidence.iterations.get(number), simulated.next());
        Row {
            began: [real.map(|real| real.sync.ended), simulated.as_ref().map(|simulated| simulated.began)],
            due: [real.and_then(|real| real.due), simulated.as_ref().map(|simulated| simulated.due)],
            real: real.map(|iteration| iteration.pages().collect()).unwrap_or_default(),
            background: background.iter().filter(|written| written.iteration == number).count(),
            simulated: simulated.map(|simulated| simulated.pages).unwrap_or_default(),
        }
    });
    Retraced { rows: rows.collect(), real: counts.0, simulated: counts.1 }
}

impl fmt::Display for Retraced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:>9} | {:^39} | {:^30} |", "", "QEMU", "simulation")?;
        write!(f, "{:>9} | {:>7} {:>7} {:>7} {:>6} {:>8}", "iteration", "s", "due", "data", "zero", "beside")?;
        write!(f, " | {:>7} {:>7} {:>7} {:>6}", "s", "due", "data", "zero")?;
        write!(f, " | {:>6} {:>8} {:>8}", "diff", "%", "overlap")?;
        for (number, row) in self.rows.iter().enumerate() {
            let side = |side: usize, pages: &[Page]| {
                let zero = pages.iter().filter(|page| page.zero).count();
                let began = row.began[side].map(|began| format!("{:.3}", began.as_secs_f64())).unwrap_or_default();
                let due = row.due[side].map(|due| due.to_string()).unwrap_or_default();
                format!("{began:>7} {due:>7} {:>7} {zero:>6}", pages.len() - zero)
            };
            let percent = 100.0 * row.difference() as f64 / row.real.len().max(1) as f64;
            let (difference, overlap) = (row.difference(), 100.0 * row.overlap());
            write!(f, "\n{:>9} | {} {:>8}", number + 1, side(0, &row.real), row.background)?;
            write!(f, " | {} | {difference:>+6} {percent:>+7.2}% {overlap:>7.2}%", side(1, &row.simulated))?;
        }
        Ok(())
    }
}
