//! The files of closed segments, written one segment after the other.
use std::fs::File;
use std::path::{Path, PathBuf};

use crate::disk;
use crate::format::VERSION;
use crate::index::{BANDS, BandRow, IndexRow, Kept};
use crate::segment::{self, BANDS_TABLE, Commit, FileMark, PAGES, WINDOWS, WWS, ZERO};
use crate::table::{Table, Values, encode};
use crate::vcpu::VcpuTime;
use crate::windows::Window;
use crate::writer::WriteError;
use crate::zero::ZeroRun;

/// Writes segments into a history directory, the file that commits one last.
#[derive(Debug)]
pub(crate) struct Committer {
    dir: PathBuf,
    guest_id: String,
    next: u32,
}

/// A segment that is complete.
#[derive(Debug)]
pub(crate) struct Closed<'a> {
    /// Its first window, counted from the start of the history.
    pub(crate) first_window: u32,
    /// Its windows, at least one.
    pub(crate) windows: &'a [Window],
    pub(crate) pages: Pages<'a>,
    pub(crate) kept: &'a Kept,
    pub(crate) vcpu_time: Option<VcpuTime>,
}

/// Which pages of a segment were written, and which were zero.
#[derive(Debug)]
pub(crate) enum Pages<'a> {
    /// As the files hold it: the columns of `pages/`, and the rows of `zero/`, of which the first `start_runs` are the map at
    /// the segment's start.
    Known { written: [Values; 2], zero: &'a [ZeroRun], start_runs: usize },
    /// Taken away. By this the files were known.
    Gone([FileMark; 2]),
}

/// Bytes of a segment's files.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Length {
    /// Of all files.
    pub(crate) all: u64,
    /// Of those among them that may be taken away.
    pub(crate) pages: u64,
}

impl Committer {
    /// For the segments of a new history in `dir`, whose directories are there.
    pub(crate) fn new(dir: &Path, guest_id: String) -> Committer {
        Committer { dir: dir.into(), guest_id, next: 0 }
    }

    /// The number of the segment that comes next.
    pub(crate) fn next(&self) -> u32 {
        self.next
    }

    /// Leaves a mark by which a reader sees that a segment was begun.
    pub(crate) fn mark_open(&self) -> Result<(), WriteError> {
        let mark = disk::temporary(&segment::path(&self.dir, &WINDOWS, self.next));
        File::create(&mark).map(drop).map_err(|source| WriteError::Io { path: mark, source })
    }

    /// Writes the next segment and makes it durable. On an error there is no such segment yet.
    pub(crate) fn commit(&mut self, closed: Closed<'_>) -> Result<Length, WriteError> {
        let Closed { first_window, windows, pages, kept, vcpu_time } = closed;
        let (first, last) = (windows.first(), windows.last());
        let (first, last) = first.zip(last).expect("a segment has a window");
        let of_windows = self.write(&WINDOWS, &Window::columns(windows), vec![])?;
        let mut length = Length { all: 0, pages: 0 };
        let mut written = vec![&WINDOWS, &BANDS_TABLE];
        let [of_pages, of_zero] = match pages {
            Pages::Gone(marks) => marks,
            Pages::Known { written: columns, zero, start_runs } => {
                let of_pages = self.write(&PAGES, &columns, vec![])?;
                let start_runs = (segment::KEY_START_RUNS.into(), start_runs.to_string());
                let of_zero = self.write(&ZERO, &ZeroRun::columns(zero), vec![start_runs])?;
                length.pages = of_pages.bytes + of_zero.bytes;
                written.extend([&PAGES, &ZERO]);
                [of_pages, of_zero]
            }
        };
        let of_bands = self.write(&BANDS_TABLE, &BandRow::columns(&kept.bands), vec![])?;
        length.all = of_windows.bytes + length.pages + of_bands.bytes;
        for table in written {
            disk::sync_dir(&self.dir.join(table.name))?;
        }
        let commit = Commit {
            first_window,
            windows: u32::try_from(windows.len()).expect("windows are numbered with 32 bits"),
            start_unix_ns: first.start_unix_ns,
            end_unix_ns: last.end_unix_ns,
            files: vec![of_windows, of_pages, of_zero, of_bands],
        };
        let json = "strings and numbers make JSON";
        let mut metadata = vec![
            (segment::KEY_BANDS.into(), BANDS.to_string()),
            (segment::KEY_EDGES.into(), segment::edges()),
            (segment::KEY_INDEX.into(), serde_json::to_string(&kept.beside).expect(json)),
            (segment::KEY_COMMIT.into(), serde_json::to_string(&commit).expect(json)),
        ];
        if let Some(time) = vcpu_time {
            metadata.push((segment::KEY_VCPU_TIME.into(), serde_json::to_string(&time).expect(json)));
        }
        length.all += self.write(&WWS, &IndexRow::columns(&kept.index), metadata)?.bytes;
        disk::sync_dir(&self.dir.join(WWS.name))?;
        self.next += 1;
        Ok(length)
    }

    /// Writes one file of the segment.
    fn write(
        &self,
        table: &'static Table,
        values: &[Values],
        extra: Vec<(String, String)>,
    ) -> Result<FileMark, WriteError> {
        let segment = self.next;
        let mut metadata = vec![
            (segment::KEY_VERSION.into(), VERSION.to_string()),
            (segment::KEY_GUEST.into(), self.guest_id.clone()),
            (segment::KEY_SEGMENT.into(), segment.to_string()),
        ];
        metadata.extend(extra);
        let bytes = encode(table, values, metadata).map_err(|source| WriteError::Encode {
            table: table.name,
            segment,
            source,
        })?;
        disk::write_file(&segment::path(&self.dir, table, segment), &bytes).map_err(|error| {
            // The failed write took the mark of an open segment with it; without it nobody would know of the loss.
            let _ = self.mark_open();
            WriteError::from(error)
        })?;
        Ok(FileMark::of(table, &bytes))
    }
}
