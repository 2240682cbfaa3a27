//! Reads a history, segment by segment.
//!
//! Opening reads the manifest and the commit marks only; a segment's other files are read, and checked against the
//! mark, when they are asked for. Memory in use is one segment's files, whatever the history's length.
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use migcast_model::dirty::{PageReplay, PageReplayBuilder, WwsIndex, WwsIndexBuilder, ZeroChange};
use migcast_model::units::PageCount;
use rayon::prelude::*;

use crate::damage::{Damage, Problem, ReadError};
use crate::disk::TEMPORARY;
use crate::files::{self, Committed, Files};
use crate::format::{Manifest, VERSION_FIRST, WrittenMeans};
use crate::index::IndexRow;
use crate::retention;
use crate::runs::RankRuns;
use crate::sample::Tracked;
use crate::segment::{self, Commit, FileMark, PAGES, WWS, ZERO};
use crate::stream::{self, SegmentWindows};
use crate::timeline::{Entry, Timeline};
use crate::vcpu::VcpuTime;
use crate::windows::{State, Window};

/// Segments whose parts of an index are read at once, while as many are counted: some 40 MB each.
const PARTS_AT_ONCE: usize = 64;

/// A history on disk.
#[derive(Debug)]
pub struct History {
    dir: PathBuf,
    manifest: Manifest,
    tracked: Tracked,
    segments: Vec<Segment>,
    problems: Vec<Problem>,
}

/// A closed segment.
#[derive(Clone, Debug)]
pub struct Segment {
    number: u32,
    bytes: u64,
    commit: Commit,
    vcpu_time: Option<VcpuTime>,
    has_pages: bool,
}

impl Segment {
    /// Its number in the file names.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Its windows, counted from the start of the history.
    pub fn windows(&self) -> Range<u32> {
        self.commit.first_window..self.commit.first_window + self.commit.windows
    }

    /// Start of its first window, nanoseconds since the Unix epoch.
    pub fn start_unix_ns(&self) -> i64 {
        self.commit.start_unix_ns
    }

    /// End of its last window, nanoseconds since the Unix epoch.
    pub fn end_unix_ns(&self) -> i64 {
        self.commit.end_unix_ns
    }

    /// Whether it is still kept which pages were written, and which were zero.
    pub fn has_pages(&self) -> bool {
        self.has_pages
    }

    /// By what the files of its pages are known, whether they are there or were taken away.
    pub(crate) fn page_marks(&self) -> [FileMark; 2] {
        [PAGES, ZERO].map(|table| {
            let mark = self.commit.files.iter().find(|mark| mark.name == table.name);
            mark.expect("a commit mark names every table").clone()
        })
    }

    /// Length of its files in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How busy the guest's vCPUs were while it was recorded; `None` where nobody looked.
    pub fn vcpu_time(&self) -> Option<VcpuTime> {
        self.vcpu_time
    }
}

impl History {
    /// Opens a history. Segments that were not closed, or cannot be read, are left out and named in
    /// [`Self::problems`]; damage inside a file shows only when it is read.
    ///
    /// # Errors
    /// A manifest that is missing, foreign, newer or damaged, or one of rates; a directory that cannot be listed. A
    /// history without
    /// a closed segment opens, and has none.
    pub fn open(dir: &Path) -> Result<History, ReadError> {
        Self::open_with(dir, Manifest::read(dir)?)
    }

    /// Opens the history whose manifest was read.
    pub(crate) fn open_with(dir: &Path, manifest: Manifest) -> Result<History, ReadError> {
        if manifest.written_means == WrittenMeans::Rate {
            return Err(ReadError::OnlyRates { dir: dir.into() });
        }
        let tracked = Tracked::of(&manifest).map_err(|source| {
            ReadError::Manifest(crate::format::ManifestError::Sample {
                path: dir.join(crate::format::MANIFEST),
                source,
            })
        })?;
        let mut history = History { dir: dir.into(), manifest, tracked, segments: Vec::new(), problems: Vec::new() };
        let (closed, mut begun) = list(dir, history.manifest.version())?;
        let last_closed = closed.last().copied();
        // Of a long history there are thousands.
        let mark = |number: &u32| (*number, files::commit(dir, &history.manifest, *number));
        let marks: Vec<_> = closed.par_iter().map(mark).collect();
        for (number, mark) in marks {
            history.add(number, mark);
        }
        history.leave_out_old(&mut begun);
        history.find_missing(last_closed);
        let after = history.segments.last().map(|segment| timestamp(segment.end_unix_ns()));
        let lost = begun.into_iter().map(|segment| Problem::Lost { segment, after });
        history.problems.extend(lost);
        Ok(history)
    }

    /// What the history is about.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Where it lies.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The tracked pages and their ranks.
    pub fn tracked(&self) -> &Tracked {
        &self.tracked
    }

    /// The closed segments, ascending.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// What is missing from the history, as far as opening could tell.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// Length of all closed segments in bytes.
    pub fn bytes_on_disk(&self) -> u64 {
        self.segments.iter().map(Segment::bytes).sum()
    }

    /// How busy the guest's vCPUs were in the segments that have windows in `range`; `None` where nobody looked in any of
    /// them.
    pub fn vcpu_time(&self, range: Range<u32>) -> Option<VcpuTime> {
        self.segments_in(&range).iter().filter_map(Segment::vcpu_time).reduce(VcpuTime::and)
    }

    /// All windows that can be read.
    ///
    /// # Errors
    /// Damage in a `windows` file; [`ReadError::Empty`] where there is none.
    pub fn timeline(&self) -> Result<Timeline, ReadError> {
        let windows = self.segments.par_iter().map(|segment| self.windows(segment));
        let windows = windows.collect::<Result<Vec<_>, ReadError>>()?;
        let mut entries = Vec::with_capacity(windows.iter().map(Vec::len).sum());
        for (segment, windows) in self.segments.iter().zip(windows) {
            entries.extend(segment.windows().zip(windows).map(|(index, window)| Entry { index, window }));
        }
        Timeline::new(entries).ok_or_else(|| ReadError::Empty { dir: self.dir.clone() })
    }

    /// The windows of a segment.
    pub fn windows(&self, segment: &Segment) -> Result<Vec<Window>, ReadError> {
        self.files(segment).windows()
    }

    /// The windows of which the pages are kept: all, or those of the last segments.
    pub fn windows_with_pages(&self) -> Range<u32> {
        let without = self.segments.iter().rposition(|segment| !segment.has_pages);
        let with = &self.segments[without.map_or(0, |last| last + 1)..];
        let ends = with.first().zip(with.last());
        ends.map_or(0..0, |(first, last)| first.windows().start..last.windows().end)
    }

    /// Whether there are segments with windows in `range` of which only counts are left. (Version 1 has none to leave.)
    pub(crate) fn has_lost_pages(&self, range: &Range<u32>) -> bool {
        self.manifest.version() != VERSION_FIRST && self.segments_in(range).iter().any(|segment| !segment.has_pages)
    }

    /// Since when it is known which pages were written, where older ones were taken away.
    pub fn pages_kept_from(&self) -> Option<jiff::Timestamp> {
        let last_without = self.segments.iter().rposition(|segment| !segment.has_pages)?;
        let first_with = self.segments.get(last_without + 1);
        Some(timestamp(first_with.map_or_else(|| self.segments[last_without].end_unix_ns(), Segment::start_unix_ns)))
    }

    /// The windows of a segment one by one, with the pages written and the changes of the zero map.
    ///
    /// # Errors
    /// Damage; [`ReadError::NoPages`].
    pub fn read(&self, segment: &Segment) -> Result<SegmentWindows, ReadError> {
        if !segment.has_pages {
            return Err(ReadError::NoPages { dir: self.dir.clone(), segment: segment.number });
        }
        let files = self.files(segment);
        SegmentWindows::open(&files, self.tracked.clone())
    }

    /// The rows of a segment's `wws/`, by window, band and bucket.
    pub fn index(&self, segment: &Segment) -> Result<Vec<IndexRow>, ReadError> {
        self.files(segment).index(self.tracked.count()).map(|(rows, _)| rows)
    }

    /// The windows of `range` (counted from the start of the history) one by one, across segments, with the pages
    /// written and the changes of the zero map.
    pub fn stream(&self, range: Range<u32>) -> HistoryWindows<'_> {
        HistoryWindows::new(self, range)
    }

    /// The recorded windows among `range` (counted from the start of the history) as the model's replay. Windows in
    /// which nothing was recorded are left out, as if the guest had stood still; the zero map carries on over them.
    ///
    /// # Errors
    /// Damage in a file; [`ReadError::NothingRecorded`] where the range has no recorded window; [`ReadError::NoPages`];
    /// [`ReadError::TooManyTracked`].
    pub fn page_replay(&self, range: Range<u32>) -> Result<PageReplay, ReadError> {
        if self.tracked.count() > PageReplay::TRACKED_MAX {
            return Err(ReadError::TooManyTracked { dir: self.dir.clone(), tracked: self.tracked.count() });
        }
        let tracked = PageCount::new(u64::from(self.tracked.count()));
        let mut builder = PageReplayBuilder::new(tracked, PageCount::new(self.tracked.memory()));
        self.replay_into(range.clone(), &mut builder)?;
        let (start, end) = (range.start, range.end);
        builder.build().ok_or_else(|| ReadError::NothingRecorded { dir: self.dir.clone(), start, end })
    }

    /// Walks through the recorded windows of `range`.
    fn replay_into(&self, range: Range<u32>, into: &mut impl Recorded) -> Result<(), ReadError> {
        let mut stream = self.stream(range);
        let mut begun = false;
        // Changes in windows that are left out. They come with the next window; the last of a page counts.
        let mut waiting = BTreeMap::new();
        while let Some(view) = stream.next_window()? {
            if !begun {
                into.zero_at_start(view.zero_at_start);
                begun = true;
            }
            if view.window.state != State::Recorded {
                waiting.extend(view.zero_changes.iter().map(|change| (change.rank, change.zero)));
            } else if waiting.is_empty() {
                into.window(view.window.length(), view.written, view.zero_changes);
            } else {
                waiting.extend(view.zero_changes.iter().map(|change| (change.rank, change.zero)));
                let changes: Vec<_> = waiting.iter().map(|(&rank, &zero)| ZeroChange { rank, zero }).collect();
                waiting.clear();
                into.window(view.window.length(), view.written, &changes);
            }
        }
        Ok(())
    }

    /// The recorded windows of the segments that have windows in `range` as the model's index: from what the segments keep
    /// for it, at once, and where the zero pages of the last one lie from its zero map, where that is kept; of a history of
    /// version 1 from its pages.
    ///
    /// # Errors
    /// Damage in a file that is read; [`ReadError::NothingRecorded`] where no window of these segments was recorded.
    pub fn wws_index(&self, range: Range<u32>) -> Result<WwsIndex, ReadError> {
        let touching = self.segments_in(&range);
        let tracked = PageCount::new(u64::from(self.tracked.count()));
        let mut builder = WwsIndexBuilder::new(tracked, PageCount::new(self.tracked.memory()));
        if self.manifest.version() == VERSION_FIRST {
            let windows = touching.first().zip(touching.last());
            let windows = windows.map_or(range.clone(), |(first, last)| first.windows().start..last.windows().end);
            self.replay_into(windows, &mut builder)?;
        } else {
            let part = |segment: &Segment| self.files(segment).part(self.tracked.count());
            let read = |some: &[Segment]| some.par_iter().map(part).collect::<Result<Vec<_>, ReadError>>();
            let mut segments = touching.chunks(PARTS_AT_ONCE);
            let mut ready = segments.next().map(read).transpose()?;
            while let Some(parts) = ready {
                // The next are read while these are counted, which one core does alone.
                let count = || parts.iter().flatten().for_each(|part| builder.part(part));
                let (next, ()) = rayon::join(|| segments.next().map(read).transpose(), count);
                ready = next?;
            }
            if let Some(last) = touching.last().filter(|segment| segment.has_pages) {
                builder.zero_at_end(stream::zero_at_end(&self.files(last), &self.tracked)?.iter());
            }
        }
        let (start, end) = (range.start, range.end);
        builder.build().ok_or_else(|| ReadError::NothingRecorded { dir: self.dir.clone(), start, end })
    }

    /// The segments that have windows in `range`.
    fn segments_in(&self, range: &Range<u32>) -> &[Segment] {
        let first = self.segments.partition_point(|segment| segment.windows().end <= range.start);
        let end = self.segments.partition_point(|segment| segment.windows().start < range.end);
        &self.segments[first.min(end)..end]
    }

    /// The same history without the segments that [`Self::verify`] finds damaged; they are named in
    /// [`Self::problems`]. Reads everything.
    pub fn without_damaged(mut self) -> History {
        let found = self.verify();
        let damaged =
            |number: u32| found.iter().any(|p| matches!(p, Problem::Damaged { segment, .. } if *segment == number));
        self.segments.retain(|segment| !damaged(segment.number));
        self.problems.extend(found);
        self
    }

    /// Reads every file of every segment and names what is damaged; slow on long histories.
    pub fn verify(&self) -> Vec<Problem> {
        let check = |segment: &Segment| {
            if segment.has_pages {
                let mut stream = self.read(segment)?;
                while stream.advance()?.is_some() {}
            }
            self.files(segment).part(self.tracked.count()).map(drop)
        };
        let damaged =
            |segment: &Segment| check(segment).err().map(|error| Problem::Damaged { segment: segment.number, error });
        self.segments.iter().filter_map(damaged).collect()
    }

    /// The files of a segment.
    pub(crate) fn files<'a>(&'a self, segment: &'a Segment) -> Files<'a> {
        Files::new(&self.dir, &self.manifest, segment.number, &segment.commit)
    }

    /// Takes the segment of a commit mark in, or notes why not.
    fn add(&mut self, number: u32, mark: Result<Committed, ReadError>) {
        let taken = mark.and_then(|committed| {
            let Committed { commit, vcpu_time, bytes, has_pages } = committed;
            let segment = Segment { number, bytes, commit, vcpu_time, has_pages };
            self.follows(&segment)?;
            Ok(segment)
        });
        match taken {
            Ok(segment) => self.segments.push(segment),
            Err(error) => self.problems.push(Problem::Damaged { segment: number, error }),
        }
    }

    /// Leaves out segments that are about to be taken away, or were just then, and what is left of `begun` ones that were.
    fn leave_out_old(&mut self, begun: &mut BTreeSet<u32>) {
        let Some(now) = self.segments.last().map(Segment::end_unix_ns) else { return };
        if self.manifest.keep_index_seconds.is_none() {
            return;
        }
        self.segments.retain(|segment| retention::is_kept(&self.manifest, segment.end_unix_ns(), now));
        let first = self.segments.first().map_or(u32::MAX, Segment::number);
        begun.retain(|number| *number > first);
        self.problems.retain(|problem| match problem {
            Problem::Damaged { segment, .. } => *segment > first || segment::path(&self.dir, &WWS, *segment).exists(),
            _ => true,
        });
    }

    /// Checks a segment against the one before it.
    fn follows(&self, next: &Segment) -> Result<(), ReadError> {
        let Some(last) = self.segments.last() else { return Ok(()) };
        let windows = next.windows().start >= last.windows().end;
        let adjacent = next.number != last.number + 1 || next.windows().start == last.windows().end;
        if windows && adjacent && next.start_unix_ns() >= last.end_unix_ns() {
            return Ok(());
        }
        let value = format!("windows from {} on", next.windows().start);
        let allowed = "to begin where the segment before it ends";
        let damage = Damage::Metadata { key: segment::KEY_COMMIT, value, allowed };
        Err(ReadError::Damaged { path: segment::path(&self.dir, &WWS, next.number), damage })
    }

    fn find_missing(&mut self, last: Option<u32>) {
        let damaged = self.problems.iter().filter_map(|problem| match problem {
            Problem::Damaged { segment, .. } => Some(*segment),
            _ => None,
        });
        let mut known: Vec<u32> = self.segments.iter().map(Segment::number).chain(damaged).collect();
        known.sort_unstable();
        // Those before the first may have been taken away, or are left out.
        let first = self.segments.first().filter(|_| self.manifest.keep_index_seconds.is_some());
        let first = first.map_or(0, Segment::number);
        let mut expected = first;
        for number in known.into_iter().filter(|number| *number >= first && Some(*number) <= last) {
            if number > expected {
                self.problems.push(Problem::Missing { first: expected, last: number - 1 });
            }
            expected = number.saturating_add(1);
        }
    }
}

/// What recorded windows are collected into, page by page.
trait Recorded {
    fn zero_at_start(&mut self, zero: &RankRuns);
    fn window(&mut self, length: Duration, written: &[u32], zero: &[ZeroChange]);
}

impl Recorded for PageReplayBuilder {
    fn zero_at_start(&mut self, zero: &RankRuns) {
        self.zero_at_start(zero.iter());
    }

    fn window(&mut self, length: Duration, written: &[u32], zero: &[ZeroChange]) {
        self.window(length, written, zero);
    }
}

impl Recorded for WwsIndexBuilder {
    fn zero_at_start(&mut self, zero: &RankRuns) {
        self.zero_at_start(zero.iter());
    }

    fn window(&mut self, length: Duration, written: &[u32], zero: &[ZeroChange]) {
        self.window(length, written, zero);
    }
}

/// Walks through the windows of a history. See [`History::stream`].
#[derive(Debug)]
pub struct HistoryWindows<'a> {
    history: &'a History,
    range: Range<u32>,
    /// Index of the next segment to open.
    next: usize,
    segment: Option<SegmentWindows>,
    /// The zero map before the current window.
    before: RankRuns,
    /// Whether any window has been walked over.
    begun: bool,
    /// Changes of the zero map in the current window.
    changes: Vec<ZeroChange>,
}

/// One window of a history.
#[derive(Debug)]
pub struct View<'a> {
    /// Its index, counted from the start of the history.
    pub index: u32,
    /// The window itself.
    pub window: Window,
    /// Ranks of the tracked pages written, ascending.
    pub written: &'a [u32],
    /// Changes of the zero map since the window that was seen before, ascending by rank.
    pub zero_changes: &'a [ZeroChange],
    /// The zero map at the window's start, before the changes. Where segments are missing before this window, it is
    /// the last that was seen.
    pub zero_at_start: &'a RankRuns,
}

impl<'a> HistoryWindows<'a> {
    fn new(history: &'a History, range: Range<u32>) -> Self {
        let next = history.segments.partition_point(|segment| segment.windows().end <= range.start);
        let before = RankRuns::default();
        HistoryWindows { history, range, next, segment: None, before, begun: false, changes: Vec::new() }
    }

    /// The next window, or `None` after the last one in the range.
    pub fn next_window(&mut self) -> Result<Option<View<'_>>, ReadError> {
        loop {
            if self.segment.is_none() && !self.open_next()? {
                return Ok(None);
            }
            let Some(stream) = &mut self.segment else { return Ok(None) };
            let Some((index, window)) = stream.advance()? else {
                self.segment = None;
                continue;
            };
            if index >= self.range.end {
                return Ok(None);
            }
            self.follow_zero();
            if index < self.range.start {
                continue;
            }
            let written = self.segment.as_ref().map_or(&[][..], SegmentWindows::written);
            return Ok(Some(View { index, window, written, zero_changes: &self.changes, zero_at_start: &self.before }));
        }
    }

    fn open_next(&mut self) -> Result<bool, ReadError> {
        let Some(segment) = self.history.segments.get(self.next) else { return Ok(false) };
        if segment.windows().start >= self.range.end {
            return Ok(false);
        }
        self.segment = Some(self.history.read(segment)?);
        self.next += 1;
        Ok(true)
    }

    /// Brings the zero map over the current window.
    fn follow_zero(&mut self) {
        let Some(stream) = &self.segment else { return };
        for change in &self.changes {
            self.before.set(change.rank, change.zero);
        }
        self.changes.clear();
        let first = stream.is_first();
        if first && !self.begun {
            self.before = stream.zero_at_start().clone();
        }
        self.begun = true;
        if first && self.before != *stream.zero_at_start() {
            // Segments are missing in between: what changed meanwhile shows in this window.
            let mut after = stream.zero_at_start().clone();
            stream.zero_changes().iter().for_each(|change| after.set(change.rank, change.zero));
            self.changes = self.before.changes_to(&after);
        } else {
            self.changes.extend_from_slice(stream.zero_changes());
        }
    }
}

/// Segments whose commit mark is there, and segments of which something else is, ascending.
fn list(dir: &Path, version: u32) -> Result<(BTreeSet<u32>, BTreeSet<u32>), ReadError> {
    let (mut closed, mut begun) = (BTreeSet::new(), BTreeSet::new());
    for table in segment::tables(version) {
        let path = dir.join(table.name);
        let io = |source| ReadError::Io { path: path.clone(), source };
        for entry in fs::read_dir(&path).map_err(io)? {
            let name = entry.map_err(io)?.file_name();
            let Some(name) = name.to_str() else { continue };
            match (segment::number(name), table.name == WWS.name) {
                (Some(number), true) => _ = closed.insert(number),
                (Some(number), false) => _ = begun.insert(number),
                (None, _) => begun.extend(name.strip_suffix(TEMPORARY).and_then(segment::number)),
            }
        }
    }
    begun.retain(|number| !closed.contains(number));
    Ok((closed, begun))
}

/// A point in time as read from a file, for people.
pub(crate) fn timestamp(unix_ns: i64) -> jiff::Timestamp {
    jiff::Timestamp::from_nanosecond(i128::from(unix_ns)).expect("every i64 of nanoseconds is a timestamp")
}
