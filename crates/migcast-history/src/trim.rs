//! Cuts a piece out of a history.
use std::ops::Range;
use std::path::Path;

use crate::copy::CopyWriter;
use crate::damage::ReadError;
use crate::format::Manifest;
use crate::reader::{History, Segment, timestamp};
use crate::splice::Splice;
use crate::timeline::Timeline;
use crate::vcpu::VcpuShares;
use crate::writer::WriteError;

/// Why a history could not be cut.
#[derive(Debug, thiserror::Error)]
pub enum TrimError {
    /// The history cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The piece cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// No window lies in the range.
    #[error("no window lies wholly between {from:.3} and {to:.3}; the history goes from {start:.3} to {end:.3}")]
    Nothing {
        /// Start of the range.
        from: jiff::Timestamp,
        /// Its end.
        to: jiff::Timestamp,
        /// Start of the history.
        start: jiff::Timestamp,
        /// Its end.
        end: jiff::Timestamp,
    },
    /// Pages were taken away, and the range holds no segment.
    #[error(
        "its pages were taken away, so it is cut by segments, and none lies wholly between {from:.3} and {to:.3}; they are of \
         up to a minute, and the history goes from {start:.3} to {end:.3}"
    )]
    NoSegment {
        /// Start of the range.
        from: jiff::Timestamp,
        /// Its end.
        to: jiff::Timestamp,
        /// Start of the history.
        start: jiff::Timestamp,
        /// Its end.
        end: jiff::Timestamp,
    },
}

/// What was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trimmed {
    /// Windows copied, gaps that were filled in not counted.
    pub windows: u32,
    /// Start of the first, nanoseconds since the Unix epoch.
    pub start_unix_ns: i64,
    /// End of the last, likewise.
    pub end_unix_ns: i64,
    /// Whether only whole segments could be copied.
    pub by_segments: bool,
}

/// Copies the windows that lie wholly inside `unix_ns` (nanoseconds since the Unix epoch) to a new history at `out`,
/// which must not exist or be empty.
///
/// Windows are numbered from 0 again and cut into segments anew. The zero map at the new start is the one the history
/// had there. How busy the vCPUs were is known by segment: each recorded window takes its share of that with it. The WWS index is built anew: the first write of a page after the cut counts as its first write. Windows of
/// missing segments become one gap each. The manifest is the same but for `created`, which is the new start, and
/// `keep_pages_seconds` and `keep_index_seconds`: what was still there stays.
///
/// Where pages of the range were taken away, the segments that lie wholly inside are copied as they are: their index, which
/// was counted before the cut, and of those that have them their pages.
///
/// # Errors
/// No window, or no segment, in the range; damage; a full disk.
pub fn trim(history: &History, unix_ns: Range<i64>, out: &Path) -> Result<Trimmed, TrimError> {
    let timeline = history.timeline()?;
    let inside = |start: i64, end: i64| start >= unix_ns.start && end <= unix_ns.end;
    let mut kept = timeline.entries().iter().filter(|e| inside(e.window.start_unix_ns, e.window.end_unix_ns));
    let Some(first) = kept.next() else {
        let [from, to] = [unix_ns.start, unix_ns.end].map(timestamp);
        let [start, end] = [timeline.start_unix_ns(), timeline.end_unix_ns()].map(timestamp);
        return Err(TrimError::Nothing { from, to, start, end });
    };
    let last = kept.next_back().unwrap_or(first);
    let wanted = first.index..last.index + 1;
    if history.has_lost_pages(&wanted) {
        return by_segments(history, &timeline, unix_ns, out);
    }
    let mut shares = VcpuShares::of_history(history);
    let mut stream = history.stream(wanted);
    let mut copy: Option<CopyWriter> = None;
    let mut before: Option<(u32, i64)> = None;
    while let Some(view) = stream.next_window()? {
        let copy = match &mut copy {
            Some(copy) => copy,
            None => {
                let mut manifest = history.manifest().clone();
                manifest.created = timestamp(view.window.start_unix_ns);
                copy.insert(CopyWriter::create(out, manifest, history.tracked(), &view)?)
            }
        };
        if let Some((index, end)) = before
            && view.index > index + 1
            && view.window.start_unix_ns > end
        {
            copy.gap(end, view.window.start_unix_ns, &[])?;
        }
        copy.window(&view, view.zero_changes, shares.of(view.index, &view.window)?)?;
        before = Some((view.index, view.window.end_unix_ns));
    }
    copy.map_or(Ok(()), CopyWriter::finish)?;
    let (start_unix_ns, end_unix_ns) = (first.window.start_unix_ns, last.window.end_unix_ns);
    let windows = timeline.entries().iter().filter(|entry| (first.index..=last.index).contains(&entry.index)).count();
    let windows = u32::try_from(windows).expect("windows are numbered with 32 bits");
    Ok(Trimmed { windows, start_unix_ns, end_unix_ns, by_segments: false })
}

/// As [`trim`], of a history without all of its pages.
fn by_segments(history: &History, timeline: &Timeline, unix_ns: Range<i64>, out: &Path) -> Result<Trimmed, TrimError> {
    let inside = |segment: &&Segment| segment.start_unix_ns() >= unix_ns.start && segment.end_unix_ns() <= unix_ns.end;
    let kept: Vec<&Segment> = history.segments().iter().filter(inside).collect();
    let Some((first, last)) = kept.first().zip(kept.last()) else {
        let [from, to] = [unix_ns.start, unix_ns.end].map(timestamp);
        return Err(TrimError::NoSegment { from, to, start: timeline.start(), end: timeline.end() });
    };
    let (start_unix_ns, end_unix_ns) = (first.start_unix_ns(), last.end_unix_ns());
    let manifest = Manifest { created: timestamp(start_unix_ns), ..history.manifest().clone() };
    let mut splice = Splice::create(out, manifest)?;
    let windows = kept.iter().map(|segment| segment.windows().len() as u32).sum();
    splice.segments::<TrimError>(history, kept)?;
    Ok(Trimmed { windows, start_unix_ns, end_unix_ns, by_segments: true })
}
