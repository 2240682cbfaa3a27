//! Whole segments, laid after each other in a new history.
//!
//! Of a segment whose pages were taken away only counts are left: they cannot be cut between windows, nor counted anew across
//! a seam. So histories that have such segments are trimmed and merged by segments:
//!
//! ```text
//!  A: │ 0 │ 1 │ 2 │         B: │ 0 │ 1 │        ─►   │ 0 │ 1 │ 2 │ gap │ 4 │ 5 │      windows are numbered anew
//! ```
//! B's counts know nothing of A, so counting begins anew there. Where B was cut from the same recording, just behind A, it goes
//! on.
use std::path::Path;

use migcast_model::dirty::wws::WwsPart;

use crate::committer::{Closed, Committer, Pages};
use crate::damage::ReadError;
use crate::format::Manifest;
use crate::index::Kept;
use crate::reader::{History, Segment};
use crate::table::Values;
use crate::windows::{State, Window};
use crate::writer::{WriteError, begin_history};
use crate::zero::{self, ZeroRun};

/// A new history that is made of segments others have.
#[derive(Debug)]
pub(crate) struct Splice {
    committer: Committer,
    next_window: u32,
    last: Option<Last>,
    /// Recorded windows since counts last began anew.
    since_seam: u32,
}

/// The last segment that was laid down.
#[derive(Clone, Copy, Debug)]
struct Last {
    end_unix_ns: i64,
    /// Windows that gaps behind it may reach back to, as its own history counts them.
    recorded: u32,
    /// Tracked pages that were zero at its end.
    zero: u64,
}

impl Splice {
    /// Creates `out`, which must not exist or be empty. `manifest` is that of a history whose pages are kept for a time only.
    pub(crate) fn create(out: &Path, manifest: Manifest) -> Result<Splice, WriteError> {
        let manifest = Manifest { format: Manifest::format_now(), keep_index_seconds: None, ..manifest };
        begin_history(out, &manifest)?;
        let committer = Committer::new(out, manifest.guest_id.to_string());
        Ok(Splice { committer, next_window: 0, last: None, since_seam: 0 })
    }

    /// Appends segments of a history, ascending, which begin where the last one before them ends, or later. Each is checked;
    /// the history must be of the format's version now. Time between two histories, or where a segment is missing, is a gap.
    pub(crate) fn segments<'a, E>(
        &mut self,
        history: &History,
        segments: impl IntoIterator<Item = &'a Segment>,
    ) -> Result<(), E>
    where
        E: From<ReadError> + From<WriteError>,
    {
        let mut before = None;
        for segment in segments {
            self.committer.mark_open()?;
            let mut taken = Taken::from(history, segment)?;
            if before != Some(segment.windows().start) {
                self.seam(segment, &mut taken)?;
            }
            before = Some(segment.windows().end);
            self.segment(history, segment, taken)?;
        }
        Ok(())
    }

    /// What lies before a segment that does not follow the one before it.
    fn seam(&mut self, segment: &Segment, taken: &mut Taken) -> Result<(), WriteError> {
        let Some(last) = self.last else {
            // Counts remember what was before the first segment, though it is not here.
            self.since_seam = taken.part.before;
            return Ok(());
        };
        if taken.part.before != last.recorded {
            self.since_seam = 0;
        }
        let made_zero = taken.part.zero_at_start.saturating_sub(last.zero);
        if last.end_unix_ns < segment.start_unix_ns() {
            return self.gap((last.end_unix_ns, made_zero), segment, taken);
        }
        taken.part.made_zero += made_zero;
        Ok(())
    }

    /// A segment of one window in which nothing was recorded, up to where `segment` begins, with its zero map: so many pages
    /// became zero meanwhile.
    fn gap(
        &mut self,
        (start_unix_ns, made_zero): (i64, u64),
        segment: &Segment,
        taken: &Taken,
    ) -> Result<(), WriteError> {
        let zero_at_start = taken.part.zero_at_start;
        let window = Window {
            start_unix_ns,
            end_unix_ns: segment.start_unix_ns(),
            state: State::Gap,
            written: 0,
            zero: u32::try_from(zero_at_start).expect("zero pages are tracked pages, which are 32 bits"),
            cost_us: 0,
        };
        let at_start = taken.pages.as_ref().map(|rows| &rows.zero[..rows.start_runs]);
        let zero: Vec<ZeroRun> =
            at_start.unwrap_or_default().iter().map(|run| run.in_window(self.next_window)).collect();
        let pages = match taken.pages {
            None => Pages::Gone(segment.page_marks()),
            Some(_) => Pages::Known {
                written: [Values::U32(Vec::new()), Values::U64(Vec::new())],
                zero: &zero,
                start_runs: zero.len(),
            },
        };
        let (before, cell) = (self.since_seam, taken.part.cell);
        let part = WwsPart { before, cell, zero_at_start, made_zero, ..WwsPart::default() };
        let kept = &Kept::of(&part, &[]);
        let (first_window, windows) = (self.next_window, &[window]);
        self.committer.commit(Closed { first_window, windows, pages, kept, vcpu_time: None })?;
        self.next_window += 1;
        self.committer.mark_open()
    }

    fn segment(&mut self, history: &History, segment: &Segment, taken: Taken) -> Result<(), WriteError> {
        let Taken { windows, mut part, pages } = taken;
        let recorded = part.windows.len() as u32;
        let last = Last {
            end_unix_ns: segment.end_unix_ns(),
            recorded: part.before.saturating_add(recorded),
            zero: windows.last().map_or(0, |window| window.zero.into()),
        };
        part.remember(self.since_seam);
        let first_window = self.next_window;
        let numbers = (first_window..).zip(&windows).filter(|(_, window)| window.state == State::Recorded);
        let kept = &Kept::of(&part, &numbers.map(|(number, _)| number).collect::<Vec<_>>());
        let zero: Vec<ZeroRun>;
        let pages = match pages {
            None => Pages::Gone(segment.page_marks()),
            Some(rows) => {
                let moved = |window: u32| first_window + (window - segment.windows().start);
                zero = rows.zero.iter().map(|run| run.in_window(moved(run.window))).collect();
                let page = |rank: u32| history.tracked().page_of_rank(rank).cast_signed();
                let of_window = |(number, window): (u32, &Window)| {
                    std::iter::repeat_n(number.cast_signed(), window.written as usize)
                };
                let written = [
                    Values::U32((first_window..).zip(&windows).flat_map(of_window).collect()),
                    Values::U64(rows.written.into_iter().map(page).collect()),
                ];
                Pages::Known { written, zero: &zero, start_runs: rows.start_runs }
            }
        };
        let (vcpu_time, windows) = (segment.vcpu_time(), &windows);
        self.committer.commit(Closed { first_window, windows, pages, kept, vcpu_time })?;
        self.next_window += windows.len() as u32;
        self.since_seam = self.since_seam.saturating_add(recorded);
        self.last = Some(last);
        Ok(())
    }
}

/// A segment, read and checked.
struct Taken {
    windows: Vec<Window>,
    part: WwsPart,
    pages: Option<PageRows>,
}

/// What a segment's pages did.
#[derive(Default)]
struct PageRows {
    /// Ranks written, window after window.
    written: Vec<u32>,
    /// The rows of `zero/`.
    zero: Vec<ZeroRun>,
    start_runs: usize,
}

impl Taken {
    fn from(history: &History, segment: &Segment) -> Result<Taken, ReadError> {
        let files = history.files(segment);
        let pages = if segment.has_pages() { Some(PageRows::from(history, segment)?) } else { None };
        let part =
            files.part(history.tracked().count())?.expect("whoever splices knows that none is of the first version");
        Ok(Taken { windows: files.windows()?, part, pages })
    }
}

impl PageRows {
    fn from(history: &History, segment: &Segment) -> Result<PageRows, ReadError> {
        let (tracked, mut rows) = (history.tracked(), PageRows::default());
        let mut stream = history.read(segment)?;
        for run in stream.zero_at_start().iter() {
            zero::push_rows(&mut rows.zero, tracked, segment.windows().start, run, true);
        }
        rows.start_runs = rows.zero.len();
        while let Some((number, _)) = stream.advance()? {
            rows.written.extend_from_slice(stream.written());
            zero::push_changes(&mut rows.zero, tracked, number, stream.zero_changes().iter().copied());
        }
        Ok(rows)
    }
}
