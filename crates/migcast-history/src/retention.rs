//! What a recording keeps, and for how long.
//!
//! ```text
//!  segments   ┆ gone ┆ index, windows ┆ index, windows, pages, zero ┆ open ┆
//!                    └─ keep_index    └─ keep_pages                        └─ now
//! ```
use std::collections::VecDeque;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::committer::Length;
use crate::disk;
use crate::format::Manifest;
use crate::segment::{self, PAGES, SEGMENT_NS_MAX, TABLES, WWS, ZERO};
use crate::table::Table;
use crate::writer::WriteError;

/// A reader leaves out what is to go within so long, in nanoseconds: the next segment is closed within half of that, unless
/// a gap or a single window is longer, and then others go.
const GOING_NS: i64 = 2 * SEGMENT_NS_MAX.cast_signed();

/// Whether a segment that ended then is still to be read, where the last of its history ended at `now`.
pub(crate) fn is_kept(manifest: &Manifest, end_unix_ns: i64, now: i64) -> bool {
    let keep = manifest.keep_index_seconds.map(nanos);
    keep.is_none_or(|keep| now.saturating_sub(end_unix_ns) <= keep.saturating_sub(GOING_NS))
}

fn nanos(seconds: f64) -> i64 {
    (seconds * 1e9) as i64
}

/// Takes away what is older than a history keeps: of its segments first the pages, later all of them.
#[derive(Debug)]
pub(crate) struct Retention {
    dir: PathBuf,
    /// In nanoseconds; `None` for ever.
    keep_pages: Option<i64>,
    keep_index: Option<i64>,
    /// Closed segments, the oldest first: those of which pages will be taken away, and those that will go altogether.
    with_pages: VecDeque<Old>,
    with_index: VecDeque<Old>,
}

/// What will be taken away.
#[derive(Clone, Copy, Debug)]
struct Old {
    segment: u32,
    end_unix_ns: i64,
    bytes: u64,
}

impl Retention {
    /// What the manifest of a history in `dir` says, of which no segment is closed yet.
    pub(crate) fn of(dir: &Path, manifest: &Manifest) -> Retention {
        Retention {
            dir: dir.into(),
            keep_pages: manifest.keep_pages_seconds.map(nanos),
            keep_index: manifest.keep_index_seconds.map(nanos),
            with_pages: VecDeque::new(),
            with_index: VecDeque::new(),
        }
    }

    /// A segment was closed: takes away what ended long enough before its end. Returns how many bytes that were.
    pub(crate) fn closed(&mut self, segment: u32, end_unix_ns: i64, length: Length) -> Result<u64, WriteError> {
        let old = |bytes| Old { segment, end_unix_ns, bytes };
        if self.keep_pages.is_some() {
            self.with_pages.push_back(old(length.pages));
        }
        if self.keep_index.is_some() {
            let pages = if self.keep_pages.is_some() { length.pages } else { 0 };
            self.with_index.push_back(old(length.all - pages));
        }
        let mut bytes = 0;
        while let Some(old) = next(&self.with_pages, self.keep_pages, end_unix_ns) {
            self.remove(&[&PAGES, &ZERO], old.segment)?;
            self.with_pages.pop_front();
            bytes += old.bytes;
        }
        while let Some(old) = next(&self.with_index, self.keep_index, end_unix_ns) {
            // Without its commit mark it is no segment, whatever else of it a crash leaves.
            self.remove(&[&WWS], old.segment)?;
            disk::sync_dir(&self.dir.join(WWS.name))?;
            self.remove(&TABLES, old.segment)?;
            self.with_index.pop_front();
            bytes += old.bytes;
        }
        Ok(bytes)
    }

    fn remove(&self, tables: &[&Table], segment: u32) -> Result<(), WriteError> {
        for table in tables {
            let path = segment::path(&self.dir, table, segment);
            match fs::remove_file(&path) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(WriteError::Io { path, source });
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// The oldest, if it ended longer than `keep` before `now`.
fn next(segments: &VecDeque<Old>, keep: Option<i64>, now: i64) -> Option<Old> {
    segments.front().copied().filter(|old| keep.is_some_and(|keep| now - old.end_unix_ns > keep))
}
