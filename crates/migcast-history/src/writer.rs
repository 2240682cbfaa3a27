//! Writes a history, segment by segment.
use std::path::Path;

use crate::format::Manifest;
use crate::windows::State;

/// Appends windows to a new history directory.
#[derive(Debug)]
pub struct Writer {}

/// A tracked page that became zero, or ceased to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ZeroChange {
    /// Page number (not rank).
    pub page: u64,
    /// What it is from the end of this window on.
    pub zero: bool,
}

/// What the recorder hands over for one window.
#[derive(Clone, Copy, Debug)]
pub struct NewWindow<'a> {
    /// Start, nanoseconds since the Unix epoch.
    pub start_unix_ns: i64,
    /// End, likewise.
    pub end_unix_ns: i64,
    /// What the recorder did.
    pub state: State,
    /// Page numbers (not ranks) written in this window, ascending, each once.
    pub written: &'a [u64],
    /// Changes of the zero map, ascending by page.
    pub zero_changes: &'a [ZeroChange],
    /// CPU time spent, µs.
    pub cost_us: u32,
}

/// Why a history could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {}

impl Writer {
    /// Creates `dir` (which must not exist, or be empty) and writes the manifest. `zero_pages` is the zero map of the
    /// tracked pages at the start of the first window: page numbers, ascending.
    pub fn create(dir: &Path, manifest: Manifest, zero_pages: &[u64]) -> Result<Writer, WriteError> {
        let _ = (dir, manifest, zero_pages);
        todo!()
    }

    /// Appends one window. Closes the open segment first if this window would make it longer than 60 s.
    pub fn push(&mut self, window: NewWindow<'_>) -> Result<(), WriteError> {
        let _ = window;
        todo!()
    }

    /// Bytes in closed segments so far.
    pub fn bytes_on_disk(&self) -> u64 {
        todo!()
    }

    /// Closes the open segment and makes everything durable. On an error (a full disk, say) all earlier segments
    /// remain readable.
    pub fn finish(self) -> Result<(), WriteError> {
        todo!()
    }
}
