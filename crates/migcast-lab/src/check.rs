//! Holds a recording of the microbenchmark against the microbenchmark's own log.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use migcast_history::reader::History;
use migcast_history::windows::State;

use crate::write_log::WriteLog;

/// Spans over which write sets are compared.
pub const SPANS: [Duration; 6] = [
    Duration::from_millis(100),
    Duration::from_millis(300),
    Duration::from_secs(1),
    Duration::from_secs(3),
    Duration::from_secs(10),
    Duration::from_secs(60),
];

/// Most spans of one length that are looked at; they are spread evenly.
const STARTS_MAX: usize = 200;

/// Write sets of one span, as means over spans of that length in pages.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The mean length of what was compared (windows have lengths of their own).
    pub span: Duration,
    /// How many spans were compared.
    pub starts: usize,
    /// What the log says.
    pub logged: f64,
    /// What was recorded of the working set.
    pub recorded: f64,
    /// What was recorded beside it: the guest's idle base.
    pub beside: f64,
}

impl Row {
    /// By how much the recording is too large (or too small, below zero), as a share of what the log says.
    pub fn error(&self) -> f64 {
        if self.logged > 0.0 { self.recorded / self.logged - 1.0 } else { 0.0 }
    }
}

/// The result of a comparison.
#[derive(Clone, Debug)]
pub struct Check {
    /// One row per span the recording is long enough for.
    pub rows: Vec<Row>,
    /// Pages of the working set that were logged but never recorded.
    pub missed: usize,
    /// Pages of the working set that were recorded but never logged.
    pub invented: usize,
    /// Pages of the working set that were both.
    pub agreed: usize,
    /// Pages that the kernel moved, which no comparison can follow.
    pub moved: u64,
    /// What the guest's clock gained on ours over the log.
    pub drift_ns: i64,
}

impl Check {
    /// The largest error of any span, as a share.
    pub fn error_max(&self) -> f64 {
        self.rows.iter().map(|row| row.error().abs()).fold(0.0, f64::max)
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:>9} {:>7} {:>10} {:>10} {:>8} {:>10}",
            "span", "starts", "logged", "recorded", "error", "beside"
        )?;
        for row in &self.rows {
            let (seconds, percent) = (row.span.as_secs_f64(), row.error() * 100.0);
            let Row { starts, logged, recorded, beside, .. } = row;
            writeln!(
                f,
                "{seconds:>7.2} s {starts:>7} {logged:>10.1} {recorded:>10.1} {percent:>+7.2}% {beside:>10.1}"
            )?;
        }
        let Check { agreed, missed, invented, moved, drift_ns, .. } = self;
        write!(f, "pages of the working set: {agreed} agreed, {missed} missed, {invented} invented, {moved} moved; ")?;
        write!(f, "clocks drifted {:.1} ms", *drift_ns as f64 / 1e6)
    }
}

/// Compares a history with the log of the guest it was recorded from.
///
/// # Errors
/// The history cannot be read, has gaps, or was recorded when the log was not written.
pub fn check(history: &History, log: &WriteLog) -> Result<Check> {
    let recorded = Recorded::read(history, log)?;
    let (first, last) = (&recorded.windows[0], &recorded.windows[recorded.windows.len() - 1]);
    let (log_start, log_end) = log.span_unix_ns();
    ensure!(first.start < last.end && log_start <= first.start, "the recording began before the log");
    ensure!(last.end <= log_end, "the log ended {:.3} s before the recording", (last.end - log_end) as f64 / 1e9);

    let writes: Vec<_> = log.writes().into_iter().map(|write| (write.unix_ns, write.page)).collect();
    let tracked: Vec<bool> = recorded.tracked.clone();
    let writes: Vec<(i64, u32)> = writes.into_iter().filter(|(_, page)| tracked[*page as usize]).collect();
    let between = |from: i64, to: i64| {
        let (from, to) = (writes.partition_point(|write| write.0 < from), writes.partition_point(|write| write.0 < to));
        &writes[from..to]
    };

    let mut seen = Distinct::new(log.frames.len());
    let mut rows = Vec::new();
    for span in SPANS {
        if let Some(row) = row(&recorded.windows, span, &mut seen, |from, to| between(from, to)) {
            rows.push(row);
        }
    }

    let pages =
        |windows: &[Seen]| windows.iter().flat_map(|window| window.inside.iter().copied()).collect::<BTreeSet<_>>();
    let (inner, all) = (&recorded.windows[1..recorded.windows.len() - 1], &recorded.windows[..]);
    let pages_of = |writes: &[(i64, u32)]| writes.iter().map(|write| write.1).collect::<BTreeSet<_>>();
    // A write near either end may fall on this side of it or on that; so the log's surely recorded pages are those
    // one window inside, and its possibly recorded ones those one window outside.
    let surely = pages_of(between(inner[0].start, inner[inner.len() - 1].end));
    let possibly = pages_of(between(2 * first.start - first.end, 2 * last.end - last.start));
    let found = pages(all);
    Ok(Check {
        rows,
        missed: surely.difference(&found).count(),
        invented: found.difference(&possibly).count(),
        agreed: found.intersection(&possibly).count(),
        moved: log.moved,
        drift_ns: log.drift_ns(),
    })
}

/// One recorded window, its pages sorted into those of the working set and the others.
struct Seen {
    start: i64,
    end: i64,
    inside: Vec<u32>,
    beside: Vec<u64>,
}

struct Recorded {
    windows: Vec<Seen>,
    /// For each page of the working set, whether the recording tracked it.
    tracked: Vec<bool>,
}

impl Recorded {
    fn read(history: &History, log: &WriteLog) -> Result<Recorded> {
        let pages = Frames::of(history, log)?;
        let tracked = pages.pages.iter().map(|page| history.tracked().rank_of_page(*page).is_some()).collect();
        let timeline = history.timeline()?;
        let mut stream = history.stream(timeline.all());
        let mut windows = Vec::new();
        while let Some(view) = stream.next_window()? {
            ensure!(view.window.state == State::Recorded, "window {} is a {}", view.index, view.window.state.word());
            let mut seen = Seen {
                start: view.window.start_unix_ns,
                end: view.window.end_unix_ns,
                inside: Vec::new(),
                beside: Vec::new(),
            };
            for rank in view.written {
                let page = history.tracked().page_of_rank(*rank);
                match pages.working_set_page(page) {
                    Some(inside) => seen.inside.push(inside),
                    None => seen.beside.push(page),
                }
            }
            windows.push(seen);
        }
        ensure!(windows.len() >= 3, "{} windows are too few to compare", windows.len());
        Ok(Recorded { windows, tracked })
    }
}

/// Where the working set lies in the recording.
struct Frames {
    /// The recording's page of each page of the working set.
    pages: Vec<u64>,
    /// The same the other way round, sorted.
    sorted: Vec<(u64, u32)>,
}

impl Frames {
    fn of(history: &History, log: &WriteLog) -> Result<Frames> {
        let manifest = history.manifest();
        let mut first = 0;
        let mut ram = None;
        for block in &manifest.blocks {
            let pages = block.length_bytes / manifest.page_size_bytes;
            if block.name.ends_with("pc.ram") {
                ram = Some((first, pages));
            }
            first += pages;
        }
        let (first, count) = ram.context("the recording has no block pc.ram")?;
        let mut pages = Vec::new();
        for frame in &log.frames {
            ensure!(*frame < count, "frame {frame} lies outside of pc.ram ({count} pages)");
            pages.push(first + frame);
        }
        let mut sorted: Vec<(u64, u32)> = pages.iter().copied().zip(0..).collect();
        sorted.sort_unstable();
        Ok(Frames { pages, sorted })
    }

    fn working_set_page(&self, page: u64) -> Option<u32> {
        let at = self.sorted.binary_search_by_key(&page, |(page, _)| *page).ok()?;
        Some(self.sorted[at].1)
    }
}

/// Counts distinct pages of the working set without clearing a map each time.
struct Distinct {
    marks: Vec<u32>,
    round: u32,
}

impl Distinct {
    fn new(pages: usize) -> Distinct {
        Distinct { marks: vec![0; pages], round: 0 }
    }

    fn count(&mut self, pages: impl Iterator<Item = u32>) -> usize {
        self.round += 1;
        let mut count = 0;
        for page in pages {
            let mark = &mut self.marks[page as usize];
            count += usize::from(*mark != self.round);
            *mark = self.round;
        }
        count
    }
}

fn row<'a>(
    windows: &[Seen],
    span: Duration,
    seen: &mut Distinct,
    between: impl Fn(i64, i64) -> &'a [(i64, u32)],
) -> Option<Row> {
    let length = (windows[windows.len() - 1].end - windows[0].start) as f64 / windows.len() as f64;
    let count = (span.as_nanos() as f64 / length).round() as usize;
    // A recording asked to last as long as the span may end a window short of it.
    let count =
        if count > windows.len() && count <= windows.len() + windows.len() / 50 { windows.len() } else { count };
    if count == 0 || count > windows.len() {
        return None;
    }
    let last = windows.len() - count;
    let starts = (last + 1).min(STARTS_MAX);
    let (mut logged, mut recorded, mut beside, mut nanos) = (0, 0, 0, 0);
    for number in 0..starts {
        let start = if starts > 1 { number * last / (starts - 1) } else { 0 };
        let part = &windows[start..start + count];
        let (from, to) = (part[0].start, part[count - 1].end);
        nanos += u64::try_from(to - from).ok()?;
        logged += seen.count(between(from, to).iter().map(|write| write.1));
        recorded += seen.count(part.iter().flat_map(|window| window.inside.iter().copied()));
        beside += part.iter().flat_map(|window| window.beside.iter()).collect::<BTreeSet<_>>().len();
    }
    let mean = |sum: usize| sum as f64 / starts as f64;
    let span = Duration::from_nanos(nanos / starts as u64);
    Some(Row { span, starts, logged: mean(logged), recorded: mean(recorded), beside: mean(beside) })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten windows of 100 ms; window `k` writes page `k` inside and page 99 beside.
    fn windows() -> Vec<Seen> {
        let window = |k: u32| {
            let start = i64::from(k) * 100_000_000;
            Seen { start, end: start + 100_000_000, inside: vec![k], beside: vec![99] }
        };
        (0..10).map(window).collect()
    }

    fn row_of(windows: &[Seen], writes: &[(i64, u32)], span_ms: u64) -> Option<Row> {
        let between = |from: i64, to: i64| {
            let at = |time: i64| writes.partition_point(|write| write.0 < time);
            &writes[at(from)..at(to)]
        };
        row(windows, Duration::from_millis(span_ms), &mut Distinct::new(10), between)
    }

    #[test]
    fn a_faithful_recording_has_no_error_over_any_span() {
        let writes: Vec<_> = (0..10).map(|k| (i64::from(k) * 100_000_000 + 1, k)).collect();
        for (span_ms, pages, starts) in [(100, 1.0, 10), (300, 3.0, 8), (1000, 10.0, 1)] {
            let row = row_of(&windows(), &writes, span_ms).unwrap();
            assert_eq!((row.logged, row.recorded, row.beside, row.starts), (pages, pages, 1.0, starts));
            assert_eq!(row.error(), 0.0);
        }
        assert!(row_of(&windows(), &writes, 3000).is_none());
    }

    #[test]
    fn a_lost_page_is_an_error() {
        let writes: Vec<_> = (0..10).map(|k| (i64::from(k) * 100_000_000 + 1, k)).collect();
        let mut windows = windows();
        windows[4].inside.clear();
        let row = row_of(&windows, &writes, 1000).unwrap();
        assert!((row.error() + 0.1).abs() < 1e-9, "{}", row.error());
    }

    #[test]
    fn a_page_written_twice_counts_once_in_a_span() {
        let writes: Vec<_> = (0..10).map(|k| (i64::from(k) * 100_000_000 + 1, 7)).collect();
        assert_eq!(row_of(&windows(), &writes, 1000).unwrap().logged, 1.0);
    }
}
