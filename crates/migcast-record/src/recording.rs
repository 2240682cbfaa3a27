//! A recording from its beginning to its end: sample, baseline, history, summary.

use std::num::NonZeroUsize;
use std::path::Path;
use std::time::Duration;

use migcast_history::format::{Manifest, WrittenMeans};
use migcast_history::sample::{Sample, Tracked};
use migcast_history::writer::{WriteError, Writer};

use crate::clock::Clock;
use crate::guest::{Guest, Identity, Sight, Writes};
use crate::memory::{MemoryError, PAGE_SIZE};
use crate::plan::{Means, Plan, PlanError, SampleChoice, choose};
use crate::recorder::{LOOK_INTERVAL, Prepared, Recorder, gone, refresh};
use crate::scan::Scanner;
use crate::summary::{Listener, Stop, Summary};
use crate::write_log::{Contents, WriteLog};

/// How to record.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Nominal length of a window, > 0.
    pub window: Duration,
    /// How long to record; `None` until something ends it.
    pub duration: Option<Duration>,
    /// CPU limit as a share of one core, > 0. Above 1 scans use several threads, one for each core that is begun.
    pub cpu_limit: f64,
    /// Which pages to track.
    pub sample: SampleChoice,
    /// For how long pages are kept, at least a minute; for ever where `None`. Of what is older there is the index.
    pub keep_pages: Option<Duration>,
    /// For how long anything is kept, at least an hour, and no less than pages are; for ever where `None`.
    pub keep_index: Option<Duration>,
    /// Draws the sample.
    pub seed: u64,
    /// The program that records, for the manifest, e.g. "migcast 0.1.0".
    pub program: String,
}

/// How a recording ended.
#[derive(Debug)]
pub enum Recording {
    /// There is a history.
    Kept(Summary),
    /// It was stopped before its first window began; there is nothing.
    Stopped(Stop),
}

/// Why a recording could not begin.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The sample cannot be chosen or read.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The memory cannot be read.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// A log tells of all pages.
    #[error("--sample: a hypervisor's log tells of every page, allowed: all, auto")]
    SampledLog,
    /// The history cannot be created.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Records `guest` into a new history at `out`, until something stops it.
///
/// # Errors
/// [`RecordError`] where it cannot begin. What ends it later is in [`Summary::stop`], and what was recorded until then
/// is kept.
pub fn record(
    mut guest: Guest,
    settings: &Settings,
    out: &Path,
    clock: &mut dyn Clock,
    listener: &mut dyn Listener,
) -> Result<Recording, RecordError> {
    for warning in &guest.warnings {
        listener.warn(warning);
    }
    if let Some(stop) = await_calm(&mut guest, clock, listener) {
        return Ok(Recording::Stopped(stop));
    }
    let (began, spent) = (clock.now(), clock.cpu());
    let Guest { identity, writes, mut watch, .. } = guest;
    let (mut memory, mut compared, mut hypervisors);
    let (log, sample, scan_cost, means): (&mut dyn WriteLog, _, _, _) = match writes {
        Writes::Contents(of) => {
            memory = of;
            let threads = threads(settings.cpu_limit);
            let means = Means { window: settings.window, cpu_limit: settings.cpu_limit, threads, seed: settings.seed };
            let blocks = &identity.blocks;
            let Plan { sample, scan_cost, why } = choose(settings.sample, means, blocks, memory.as_mut(), clock)?;
            why.iter().for_each(|why| listener.note(why));
            let tracked = Tracked::new(blocks, PAGE_SIZE, sample).map_err(PlanError::from)?;
            let scanner = Scanner::new(tracked).with_threads(threads);
            compared = Contents { scanner, memory: memory.as_mut() };
            (&mut compared, sample, scan_cost, WrittenMeans::Content)
        }
        Writes::Log(log) => {
            if let SampleChoice::OneIn(_) = settings.sample {
                return Err(RecordError::SampledLog);
            }
            hypervisors = log;
            (hypervisors.as_mut(), Sample::full(), Duration::ZERO, WrittenMeans::DirtyLog)
        }
    };
    let manifest = manifest(&identity, settings, (sample, means));
    let mut recorder = Recorder::new(log, watch.as_mut(), settings, (began, spent), clock, listener);
    let stop = match means {
        WrittenMeans::DirtyLog => match recorder.prepare()? {
            Prepared::Ready => None,
            // A log that has told nothing yet has nothing to wait for.
            Prepared::Standing => return Err(MemoryError::Standing.into()),
            Prepared::Stopped(stop) => Some(stop),
        },
        WrittenMeans::Content | WrittenMeans::Rate => recorder.save_up(scan_cost),
    };
    if let Some(stop) = stop {
        return Ok(Recording::Stopped(stop));
    }
    recorder.baseline()?;
    let mut writer = Writer::create(out, manifest, &recorder.zero_pages())?;
    let stop = recorder.windows(&mut writer);
    let mut summary = recorder.close(stop, sample, writer);
    summary.bytes_on_disk = directory_bytes(out);
    Ok(Recording::Kept(summary))
}

/// Waits until the guest runs and does not migrate. `Some` where something ends the recording before it began.
fn await_calm(guest: &mut Guest, clock: &mut dyn Clock, listener: &mut dyn Listener) -> Option<Stop> {
    let mut waited_for = None;
    let mut look_due = clock.now();
    loop {
        if let Some(interrupt) = listener.interrupted() {
            return Some(Stop::Interrupt(interrupt));
        }
        if guest.watch.ended() {
            return Some(Stop::GuestEnded);
        }
        if clock.now() < look_due {
            clock.wait(look_due);
            continue;
        }
        let sight = guest.watch.look();
        look_due = clock.now() + LOOK_INTERVAL;
        match (sight.absence(), sight) {
            (Some(absence), _) => {
                if waited_for.replace(absence.state) != Some(absence.state) {
                    listener.warn(&format!("{}: recording begins when that is over", absence.why));
                }
            }
            (None, Sight::MonitorGone(why)) => return Some(gone(guest.watch.as_mut(), clock, why)),
            (None, Sight::Taken) => return Some(Stop::MigrationBegan),
            (None, Sight::LayoutChanged(what)) => return Some(Stop::LayoutChanged(what)),
            // Nobody says that it is over.
            (None, Sight::Busy(_)) if waited_for.is_some() => {}
            (None, _) => return waited_for.and_then(|_| refresh(guest.writes.refresh(), listener)),
        }
    }
}

/// How many threads scan: one up to a whole core, above that one for each core that is begun and that there is.
fn threads(cpu_limit: f64) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    // Casting saturates.
    (cpu_limit.ceil() as usize).clamp(1, cores)
}

/// Bytes of all files under a directory; what cannot be read counts as nothing.
fn directory_bytes(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let meta = entry.metadata().ok()?;
            Some(if meta.is_dir() { directory_bytes(&entry.path()) } else { meta.len() })
        })
        .sum()
}

fn manifest(identity: &Identity, settings: &Settings, (sample, written_means): (Sample, WrittenMeans)) -> Manifest {
    Manifest {
        format: Manifest::format_now(),
        created: jiff::Timestamp::now(),
        recorder: settings.program.clone(),
        method: identity.method.to_owned(),
        written_means,
        resource: "ram".to_owned(),
        guest_name: identity.name.clone(),
        guest_id: identity.id.unwrap_or_else(uuid::Uuid::new_v4),
        hypervisor: identity.hypervisor.clone(),
        hypervisor_version: identity.hypervisor_version.clone(),
        accelerator: identity.accelerator.clone(),
        page_size_bytes: PAGE_SIZE,
        blocks: identity.blocks.clone(),
        window_seconds: settings.window.as_secs_f64(),
        sample,
        keep_pages_seconds: settings.keep_pages.map(|span| span.as_secs_f64()),
        keep_index_seconds: settings.keep_index.map(|span| span.as_secs_f64()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn up_to_a_whole_core_one_thread_scans() {
        let cores = std::thread::available_parallelism().unwrap().get();
        assert_eq!([1e-9, 0.05, 1.0].map(threads), [1; 3]);
        assert_eq!([1.01, 2.0, 1e300].map(threads), [2.min(cores), 2.min(cores), cores]);
    }
}
