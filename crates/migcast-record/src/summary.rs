//! What a recording reports: while it runs, and when it is over.

use std::time::Duration;

use migcast_history::sample::Sample;
use migcast_history::writer::WriteError;

use crate::memory::MemoryError;

/// A request to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interrupt {
    /// Ctrl-C (SIGINT).
    Interrupted,
    /// SIGTERM.
    Terminated,
}

/// Whoever runs the recording: hears of its progress and may stop it.
pub trait Listener {
    /// Whether to stop now. Called often.
    fn interrupted(&mut self) -> Option<Interrupt>;
    /// A window is over.
    fn progress(&mut self, progress: &Progress);
    /// Something people should know; one line.
    fn warn(&mut self, warning: &str);
    /// Something people may want to know; one line.
    fn note(&mut self, _note: &str) {}
}

/// How far a recording is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress {
    /// Since the first window began.
    pub elapsed: Duration,
    /// Windows so far.
    pub windows: u64,
    /// Pages written per second in the last window, scaled up from the sample.
    pub written_per_second: f64,
    /// CPU time used per time passed, as a share of one core.
    pub cost: f64,
    /// Bytes in closed segments.
    pub bytes_on_disk: u64,
}

/// Why a recording stopped.
#[derive(Debug)]
pub enum Stop {
    /// It is as long as was asked for.
    Duration,
    /// Somebody asked.
    Interrupt(Interrupt),
    /// The guest ended.
    GuestEnded,
    /// The guest is being migrated, which only one of the two can log.
    MigrationBegan,
    /// The guest's monitor went away while its process lives: why.
    MonitorGone(String),
    /// Memory was added, removed or moved: what.
    LayoutChanged(String),
    /// The history cannot be written, e.g. because the disk is full.
    Write(WriteError),
    /// The memory can no longer be read.
    Memory(MemoryError),
}

/// What came of a recording.
#[derive(Debug)]
pub struct Summary {
    /// Why it stopped.
    pub stop: Stop,
    /// Windows kept on disk.
    pub windows: u64,
    /// Windows that were recorded but could not be written.
    pub windows_lost: u64,
    /// Time recorded. With `migrating` and `gaps` it is the length of all windows.
    pub recorded: Duration,
    /// Time in which nothing was recorded because the guest migrated.
    pub migrating: Duration,
    /// Time in which nothing was recorded because the guest did not run, or may not have run undisturbed: no look
    /// confirmed it between the last one and the recording's end.
    pub gaps: Duration,
    /// Which pages were tracked.
    pub sample: Sample,
    /// Tracked pages, and pages of the guest.
    pub tracked_pages: u64,
    /// See `tracked_pages`.
    pub memory_pages: u64,
    /// Windows that became longer than asked for because a scan took longer than a window.
    pub overruns: u64,
    /// Windows that became longer than asked for to keep the CPU limit.
    pub stretched: u64,
    /// Looks at pages that could not be read.
    pub unreadable: u64,
    /// CPU time used per time passed while recording, as a share of one core.
    pub cost: f64,
    /// Bytes on disk.
    pub bytes_on_disk: u64,
}
