//! Walks through one segment, window by window.
use std::collections::VecDeque;

use migcast_model::dirty::ZeroChange;
use parquet::data_type::{BoolType, DataType, Int32Type, Int64Type};

use crate::damage::{Damage, ReadError};
use crate::files::{Files, Opened};
use crate::runs::RankRuns;
use crate::sample::Tracked;
use crate::table::{Cursor, TableError};
use crate::windows::Window;
use crate::zero::ZeroRun;

/// The windows of one segment, in order. Memory in use is the segment's files, its rows of `windows/`, and the pages of
/// one window: at most 12 bytes per tracked page.
pub struct SegmentWindows {
    tracked: Tracked,
    first_window: u32,
    windows: Vec<Window>,
    /// Windows that have been walked over, the current one included.
    passed: usize,
    pages: PageRows,
    zero: ZeroRows,
    zero_at_start: RankRuns,
    /// Zero pages after the current window.
    zero_count: u32,
    written: Vec<u32>,
    zero_changes: Vec<ZeroChange>,
}

impl std::fmt::Debug for SegmentWindows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (first, passed) = (self.first_window, self.passed);
        f.debug_struct("SegmentWindows").field("first_window", &first).field("passed", &passed).finish_non_exhaustive()
    }
}

impl SegmentWindows {
    pub(crate) fn open(files: &Files<'_>, tracked: Tracked) -> Result<SegmentWindows, ReadError> {
        let windows = files.windows()?;
        let pages = files.pages(windows.iter().map(|window| u64::from(window.written)).sum())?;
        let (zero, start_runs) = files.zero(tracked.count())?;
        let mut zero = ZeroRows::new(zero);
        let zero_at_start = zero.start(start_runs, files.first_window(), &tracked)?;
        Ok(SegmentWindows {
            first_window: files.first_window(),
            windows,
            passed: 0,
            pages: PageRows::new(pages),
            zero,
            zero_count: zero_at_start.count(),
            zero_at_start,
            written: Vec::new(),
            zero_changes: Vec::new(),
            tracked,
        })
    }

    /// Goes to the next window; gives its index, counted from the start of the history, and the window itself.
    ///
    /// # Errors
    /// Damage in `pages` or `zero`.
    pub fn advance(&mut self) -> Result<Option<(u32, Window)>, ReadError> {
        let Some(&window) = self.windows.get(self.passed) else {
            self.zero.expect_end()?;
            return Ok(None);
        };
        let index = self.first_window + u32::try_from(self.passed).expect("the commit mark numbers them with 32 bits");
        self.passed += 1;
        self.pages.read(index, window.written, &self.tracked, &mut self.written)?;
        self.zero.read(index, &self.tracked, &mut self.zero_changes)?;
        for change in &self.zero_changes {
            let count = if change.zero { self.zero_count.checked_add(1) } else { self.zero_count.checked_sub(1) };
            self.zero_count = count.ok_or_else(|| self.zero.broken("a page ceased to be zero that was not"))?;
        }
        if self.zero_count != window.zero {
            return Err(self.zero.broken("zero pages must be as many as the window says"));
        }
        Ok(Some((index, window)))
    }

    /// Ranks of the pages written in the current window, ascending.
    pub fn written(&self) -> &[u32] {
        &self.written
    }

    /// Changes of the zero map in the current window, ascending by rank.
    pub fn zero_changes(&self) -> &[ZeroChange] {
        &self.zero_changes
    }

    /// The zero map at the segment's start.
    pub fn zero_at_start(&self) -> &RankRuns {
        &self.zero_at_start
    }

    /// True on the segment's first window.
    pub(crate) fn is_first(&self) -> bool {
        self.passed == 1
    }
}

/// The zero map at the end of a segment, off `zero/` alone.
pub(crate) fn zero_at_end(files: &Files<'_>, tracked: &Tracked) -> Result<RankRuns, ReadError> {
    let (file, start_runs) = files.zero(tracked.count())?;
    let (mut rows, mut changes) = (ZeroRows::new(file), Vec::new());
    let mut map = rows.start(start_runs, files.first_window(), tracked)?;
    for window in files.first_window()..files.end_window() {
        rows.read(window, tracked, &mut changes)?;
        changes.iter().for_each(|change| map.set(change.rank, change.zero));
    }
    rows.expect_end()?;
    Ok(map)
}

/// Rows read from a file at a time.
const BATCH: usize = 1 << 14;

/// A column that is read value by value.
struct Values<T: DataType> {
    cursor: Cursor<T>,
    batch: Vec<T::T>,
    at: usize,
}

impl<T: DataType> Values<T>
where
    T::T: Copy,
{
    fn new(file: &Opened, column: usize) -> Values<T> {
        Values { cursor: file.table.column(column), batch: Vec::new(), at: 0 }
    }

    fn next(&mut self) -> Result<Option<T::T>, TableError> {
        if self.at == self.batch.len() {
            self.cursor.read(BATCH, &mut self.batch)?;
            self.at = 0;
        }
        let value = self.batch.get(self.at).copied();
        self.at += usize::from(value.is_some());
        Ok(value)
    }
}

/// The rows of `pages/`.
struct PageRows {
    file: Opened,
    window: Values<Int32Type>,
    page: Values<Int64Type>,
    row: u64,
}

impl PageRows {
    fn new(file: Opened) -> PageRows {
        PageRows { window: Values::new(&file, 0), page: Values::new(&file, 1), row: 0, file }
    }

    /// Reads the pages of one window as ranks.
    fn read(&mut self, window: u32, written: u32, tracked: &Tracked, ranks: &mut Vec<u32>) -> Result<(), ReadError> {
        ranks.clear();
        for _ in 0..written {
            let broken = |rule| self.file.damaged(Damage::Row { row: self.row, rule });
            let (found, page) = match (self.window.next(), self.page.next()) {
                (Ok(Some(window)), Ok(Some(page))) => (window.cast_unsigned(), page.cast_unsigned()),
                (Err(error), _) | (_, Err(error)) => return Err(self.file.damaged(error)),
                _ => return Err(broken("the file ends before its last row")),
            };
            if found != window {
                return Err(broken("rows must be ordered by window, as many as the window says"));
            }
            let rank = tracked.rank_of_page(page).ok_or_else(|| broken("page must be a tracked page of the guest"))?;
            if ranks.last().is_some_and(|before| *before >= rank) {
                return Err(broken("pages of a window must ascend, each once"));
            }
            ranks.push(rank);
            self.row += 1;
        }
        Ok(())
    }
}

/// The rows of `zero/`.
struct ZeroRows {
    file: Opened,
    window: Values<Int32Type>,
    page: Values<Int64Type>,
    pages: Values<Int32Type>,
    zero: Values<BoolType>,
    row: u64,
    /// A row that has been read and belongs to a later window.
    ahead: VecDeque<ZeroRun>,
}

impl ZeroRows {
    fn new(file: Opened) -> ZeroRows {
        let (window, page) = (Values::new(&file, 0), Values::new(&file, 1));
        let (pages, zero) = (Values::new(&file, 2), Values::new(&file, 3));
        ZeroRows { window, page, pages, zero, row: 0, ahead: VecDeque::new(), file }
    }

    fn broken(&self, rule: &'static str) -> ReadError {
        self.file.damaged(Damage::Row { row: self.row, rule })
    }

    fn next(&mut self) -> Result<Option<ZeroRun>, ReadError> {
        if let Some(run) = self.ahead.pop_front() {
            return Ok(Some(run));
        }
        let row = (|| Ok((self.window.next()?, self.page.next()?, self.pages.next()?, self.zero.next()?)))();
        match row.map_err(|error: TableError| self.file.damaged(error))? {
            (None, None, None, None) => Ok(None),
            (Some(window), Some(page), Some(pages), Some(zero)) => {
                self.row += 1;
                let (window, page, pages) = (window.cast_unsigned(), page.cast_unsigned(), pages.cast_unsigned());
                Ok(Some(ZeroRun { window, page, pages, zero }))
            }
            _ => Err(self.broken("columns must be of one length")),
        }
    }

    /// The ranks of a run, which must begin at or after `from`.
    fn ranks(&self, run: ZeroRun, from: u32, tracked: &Tracked) -> Result<std::ops::Range<u32>, ReadError> {
        let end = run.page.checked_add(u64::from(run.pages)).filter(|end| *end <= tracked.memory());
        let end = end.ok_or_else(|| self.broken("a run must lie inside the guest's memory"))?;
        let ranks = tracked.ranks_in(run.page..end);
        if ranks.is_empty() || ranks.start < from {
            return Err(self.broken("runs of a window must ascend, each with a tracked page of its own"));
        }
        Ok(ranks)
    }

    /// Reads the map at the segment's start: the first `runs` rows.
    fn start(&mut self, runs: u64, first_window: u32, tracked: &Tracked) -> Result<RankRuns, ReadError> {
        let (mut map, mut from) = (RankRuns::default(), 0);
        for _ in 0..runs {
            let run = self.next()?.ok_or_else(|| self.broken("the file ends before its last row"))?;
            if run.window != first_window || !run.zero {
                return Err(
                    self.broken("the map at the start must have the first window's number, and zero pages only")
                );
            }
            let ranks = self.ranks(run, from, tracked)?;
            from = ranks.end;
            map.push(ranks);
        }
        Ok(map)
    }

    /// Reads the changes of one window.
    fn read(&mut self, window: u32, tracked: &Tracked, changes: &mut Vec<ZeroChange>) -> Result<(), ReadError> {
        changes.clear();
        let mut from = 0;
        while let Some(run) = self.next()? {
            if run.window != window {
                if run.window < window {
                    return Err(self.broken("rows must be ordered by window"));
                }
                self.ahead.push_back(run);
                break;
            }
            let ranks = self.ranks(run, from, tracked)?;
            from = ranks.end;
            changes.extend(ranks.map(|rank| ZeroChange { rank, zero: run.zero }));
        }
        Ok(())
    }

    fn expect_end(&mut self) -> Result<(), ReadError> {
        match self.next()? {
            None => Ok(()),
            Some(_) => Err(self.broken("rows must belong to a window of the segment")),
        }
    }
}
