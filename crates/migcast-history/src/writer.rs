//! Writes a history, segment by segment.
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use migcast_model::dirty as model;
use migcast_model::dirty::wws::PartRecorder;
use migcast_model::dirty::wws::part::cell_for;
use migcast_model::units::PageCount;
use parquet::errors::ParquetError;

use crate::committer::{Closed, Committer, Pages};
use crate::disk::{self, DiskError};
use crate::format::{MANIFEST, Manifest, ManifestError};
use crate::index::Kept;
use crate::retention::Retention;
use crate::sample::Tracked;
use crate::segment::{self, TABLES};
use crate::table::Values;
use crate::vcpu::VcpuTime;
use crate::windows::{State, Window};
use crate::zero::{self, ZeroMap, ZeroRun};

/// Appends windows to a new history directory.
///
/// The open segment is held in memory (at most some 50 MB) and written when it is closed. Dropping a writer without
/// [`Writer::finish`] loses the open segment and nothing else.
#[derive(Debug)]
pub struct Writer {
    committer: Committer,
    tracked: Tracked,
    index: PartRecorder,
    zero: ZeroMap,
    open: OpenSegment,
    bytes_on_disk: u64,
    retention: Retention,
}

/// The segment that is being filled.
#[derive(Debug, Default)]
struct OpenSegment {
    first_window: u32,
    /// End of the last window of the segment before.
    end_before: Option<i64>,
    windows: Vec<Window>,
    /// Ranks written, window after window.
    ranks: Vec<u32>,
    /// The zero map at its start and the changes since.
    zero: Vec<ZeroRun>,
    start_runs: usize,
    vcpu_time: Option<VcpuTime>,
}

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
    /// Start, nanoseconds since the Unix epoch. Not before the end of the window before.
    pub start_unix_ns: i64,
    /// End, likewise; later than the start.
    pub end_unix_ns: i64,
    /// What the recorder did.
    pub state: State,
    /// Page numbers (not ranks) written in this window, ascending, each once; none unless [`State::Recorded`].
    pub written: &'a [u64],
    /// Changes of the zero map, ascending by page.
    pub zero_changes: &'a [ZeroChange],
    /// CPU time spent, µs.
    pub cost_us: u32,
}

/// Why a history could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The directory holds something already.
    #[error("{}: not empty; a history is written to a new or an empty directory", dir.display())]
    NotEmpty {
        /// The directory.
        dir: PathBuf,
    },
    /// The manifest is not one a reader would accept.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The system refused, e.g. because the disk is full.
    #[error("cannot write {}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A segment could not be encoded.
    #[error("cannot encode {table} of segment {segment}")]
    Encode {
        /// The table.
        table: &'static str,
        /// The segment's number.
        segment: u32,
        /// What the encoder said.
        source: ParquetError,
    },
    /// A window contradicts the rules of [`NewWindow`].
    #[error("window {window}: {rule}")]
    Window {
        /// The window, counted from the start of the history.
        window: u32,
        /// What it breaks.
        rule: WindowRule,
    },
    /// A rate contradicts the rules of [`crate::rates::Rate`].
    #[error("rate {rate}: {rule}")]
    Rate {
        /// The rate, counted from 0.
        rate: usize,
        /// What it breaks.
        rule: &'static str,
    },
}

/// A rule of [`NewWindow`] that was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WindowRule {
    /// It ends before it has begun.
    #[error("its end must be later than its start")]
    Empty,
    /// It overlaps the window before.
    #[error("it must not start before the window before it has ended")]
    Overlap,
    /// Pages out of order or twice.
    #[error("pages must ascend, each once; page {page} does not")]
    Order {
        /// The page that is out of order.
        page: u64,
    },
    /// A page that this history does not track.
    #[error("page {page} is not tracked")]
    Untracked {
        /// The page.
        page: u64,
    },
    /// Pages written in a window that was not recorded.
    #[error("only a recorded window has written pages")]
    NotRecorded,
    /// No number is left for a window.
    #[error("a history has at most 4294967295 windows")]
    TooMany,
}

impl From<DiskError> for WriteError {
    fn from(error: DiskError) -> Self {
        WriteError::Io { path: error.path, source: error.source }
    }
}

impl Writer {
    /// Creates `dir` (which must not exist, or be empty) and writes the manifest, of this version whatever it was before.
    /// `zero_pages` is the zero map of the tracked pages at the start of the first window: page numbers, ascending.
    pub fn create(dir: &Path, manifest: Manifest, zero_pages: &[u64]) -> Result<Writer, WriteError> {
        let manifest = Manifest { format: Manifest::format_now(), ..manifest };
        let path = dir.join(MANIFEST);
        manifest.validate(&path)?;
        let tracked = Tracked::of(&manifest).map_err(|source| ManifestError::Sample { path: path.clone(), source })?;
        let mut zero = ZeroMap::new(tracked.count());
        let broken = |rule| WriteError::Window { window: 0, rule };
        check_order(zero_pages.iter().copied()).map_err(broken)?;
        for &page in zero_pages {
            zero.set(tracked.rank_of_page(page).ok_or(broken(WindowRule::Untracked { page }))?, true);
        }
        let cell = cell_for(manifest.memory_bytes(), Duration::from_secs_f64(manifest.window_seconds));
        let mut index = PartRecorder::new(tracked.count(), PageCount::new(tracked.memory()), cell);
        index.zero_at_start(zero.runs());
        let guest_id = manifest.guest_id.to_string();
        begin_history(dir, &manifest)?;
        Ok(Writer {
            committer: Committer::new(dir, guest_id),
            index,
            tracked,
            zero,
            open: OpenSegment::default(),
            bytes_on_disk: 0,
            retention: Retention::of(dir, &manifest),
        })
    }

    /// Appends one window. Closes the open segment first if this window would make it longer than 60 s.
    pub fn push(&mut self, window: NewWindow<'_>) -> Result<(), WriteError> {
        let number = self.open.next_window();
        let ranks = self.check(&window).map_err(|rule| WriteError::Window { window: number, rule })?;
        if self.open.is_full(&window) {
            self.close()?;
        }
        if self.open.windows.is_empty() {
            self.begin()?;
        }
        let written = u32::try_from(ranks.len()).expect("ranks are 32 bits and each comes once");
        self.index.change_zero(window.zero_changes.iter().map(|change| model::ZeroChange {
            rank: self.tracked.rank_of_page(change.page).expect("its pages were checked"),
            zero: change.zero,
        }));
        if window.state == State::Recorded {
            let length = window.end_unix_ns.abs_diff(window.start_unix_ns);
            self.index.window(Duration::from_nanos(length), &ranks);
        }
        self.open.ranks.extend_from_slice(&ranks);
        self.change_zero(number, window.zero_changes);
        self.open.windows.push(Window {
            start_unix_ns: window.start_unix_ns,
            end_unix_ns: window.end_unix_ns,
            state: window.state,
            written,
            zero: self.zero.count(),
            cost_us: window.cost_us,
        });
        Ok(())
    }

    /// Notes how busy the vCPUs were over some time just before the end of the last window. It belongs to the segment of
    /// that window.
    pub fn add_vcpu_time(&mut self, time: VcpuTime) {
        self.open.vcpu_time = Some(self.open.vcpu_time.map_or(time, |before| before.and(time)));
    }

    /// Windows of the segments closed so far, those taken away since included.
    pub fn closed_windows(&self) -> u64 {
        u64::from(self.open.first_window)
    }

    /// Bytes in closed segments that are kept so far.
    pub fn bytes_on_disk(&self) -> u64 {
        self.bytes_on_disk
    }

    /// The tracked pages and their ranks.
    pub fn tracked(&self) -> &Tracked {
        &self.tracked
    }

    /// Closes the open segment and makes everything durable. On an error (a full disk, say) all earlier segments
    /// remain readable.
    pub fn finish(mut self) -> Result<(), WriteError> {
        self.close()
    }

    /// The ranks of a window's pages, if it keeps the rules.
    fn check(&self, window: &NewWindow<'_>) -> Result<Vec<u32>, WindowRule> {
        if self.open.next_window() == u32::MAX {
            return Err(WindowRule::TooMany);
        }
        if window.end_unix_ns <= window.start_unix_ns {
            return Err(WindowRule::Empty);
        }
        if self.open.end_unix_ns().is_some_and(|end| window.start_unix_ns < end) {
            return Err(WindowRule::Overlap);
        }
        if window.state != State::Recorded && !window.written.is_empty() {
            return Err(WindowRule::NotRecorded);
        }
        check_order(window.written.iter().copied())?;
        check_order(window.zero_changes.iter().map(|change| change.page))?;
        let rank = |page| self.tracked.rank_of_page(page).ok_or(WindowRule::Untracked { page });
        window.zero_changes.iter().try_for_each(|change| rank(change.page).map(|_| ()))?;
        window.written.iter().map(|page| rank(*page)).collect()
    }

    /// Begins a segment: notes the zero map, and leaves a mark on disk by which a reader sees that one was open.
    fn begin(&mut self) -> Result<(), WriteError> {
        self.committer.mark_open()?;
        let window = self.open.first_window;
        for run in self.zero.runs() {
            zero::push_rows(&mut self.open.zero, &self.tracked, window, run, true);
        }
        self.open.start_runs = self.open.zero.len();
        Ok(())
    }

    fn change_zero(&mut self, window: u32, changes: &[ZeroChange]) {
        let (zero, tracked) = (&mut self.zero, &self.tracked);
        let changed = changes.iter().filter_map(|change| {
            let rank = tracked.rank_of_page(change.page).expect("its pages were checked");
            zero.set(rank, change.zero).then_some(model::ZeroChange { rank, zero: change.zero })
        });
        zero::push_changes(&mut self.open.zero, tracked, window, changed);
    }

    /// Writes the open segment and begins an empty one. On an error the segment stays open.
    fn close(&mut self) -> Result<(), WriteError> {
        let Some(end_unix_ns) = self.open.windows.last().map(|window| window.end_unix_ns) else { return Ok(()) };
        let number = self.committer.next();
        let length = self.committer.commit(Closed {
            first_window: self.open.first_window,
            windows: &self.open.windows,
            pages: Pages::Known {
                written: self.open.page_columns(&self.tracked),
                zero: &self.open.zero,
                start_runs: self.open.start_runs,
            },
            kept: &self.kept(),
            vcpu_time: self.open.vcpu_time,
        })?;
        self.bytes_on_disk += length.all;
        self.index.next_part();
        self.open = OpenSegment {
            first_window: self.open.next_window(),
            end_before: Some(end_unix_ns),
            ..OpenSegment::default()
        };
        self.bytes_on_disk -= self.retention.closed(number, end_unix_ns, length)?;
        Ok(())
    }

    /// What is kept of the open segment for an index.
    fn kept(&self) -> Kept {
        let windows = (self.open.first_window..).zip(&self.open.windows);
        let recorded = windows.filter(|(_, window)| window.state == State::Recorded);
        Kept::of(&self.index.part(), &recorded.map(|(number, _)| number).collect::<Vec<_>>())
    }
}

impl OpenSegment {
    fn next_window(&self) -> u32 {
        self.first_window + u32::try_from(self.windows.len()).expect("windows are numbered with 32 bits")
    }

    fn end_unix_ns(&self) -> Option<i64> {
        self.windows.last().map(|window| window.end_unix_ns).or(self.end_before)
    }

    /// True if the segment must be closed before this window comes.
    fn is_full(&self, next: &NewWindow<'_>) -> bool {
        let Some(first) = self.windows.first() else { return false };
        next.end_unix_ns.abs_diff(first.start_unix_ns) > segment::SEGMENT_NS_MAX
            || self.ranks.len() + next.written.len() > segment::SEGMENT_EVENTS_MAX
            || self.windows.len() >= segment::SEGMENT_WINDOWS_MAX
    }

    fn page_columns(&self, tracked: &Tracked) -> [Values; 2] {
        let mut windows = Vec::with_capacity(self.ranks.len());
        for (window, row) in (self.first_window..).zip(&self.windows) {
            windows.extend(std::iter::repeat_n(window.cast_signed(), row.written as usize));
        }
        let pages = self.ranks.iter().map(|rank| tracked.page_of_rank(*rank).cast_signed()).collect();
        [Values::U32(windows), Values::U64(pages)]
    }
}

fn check_order(pages: impl Iterator<Item = u64>) -> Result<(), WindowRule> {
    let mut before = None;
    for page in pages {
        if before.is_some_and(|before| before >= page) {
            return Err(WindowRule::Order { page });
        }
        before = Some(page);
    }
    Ok(())
}

/// Makes a new history without a segment: its directories, which must not hold anything, and its manifest.
pub(crate) fn begin_history(dir: &Path, manifest: &Manifest) -> Result<(), WriteError> {
    lay_out(dir)?;
    let path = dir.join(MANIFEST);
    let text = serde_json::to_vec_pretty(manifest)
        .map_err(|source| ManifestError::Json { path: path.clone(), source: source.into() })?;
    disk::write_file(&path, &text)?;
    Ok(disk::sync_dir(dir)?)
}

/// Makes the empty directories of a history.
fn lay_out(dir: &Path) -> Result<(), WriteError> {
    let io = |path: &Path| {
        let path = path.to_path_buf();
        move |source| WriteError::Io { path, source }
    };
    fs::create_dir_all(dir).map_err(io(dir))?;
    if fs::read_dir(dir).map_err(io(dir))?.next().is_some() {
        return Err(WriteError::NotEmpty { dir: dir.into() });
    }
    for table in TABLES {
        let path = dir.join(table.name);
        fs::create_dir(&path).map_err(io(&path))?;
    }
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    disk::sync_dir(parent)?;
    Ok(())
}
