//! Cuts a piece out of a history.
use std::ops::Range;
use std::path::Path;

use crate::copy::CopyWriter;
use crate::damage::ReadError;
use crate::reader::{History, timestamp};
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
}

/// What was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trimmed {
    /// Windows copied.
    pub windows: u32,
    /// Start of the first, nanoseconds since the Unix epoch.
    pub start_unix_ns: i64,
    /// End of the last, likewise.
    pub end_unix_ns: i64,
}

/// Copies the windows that lie wholly inside `unix_ns` (nanoseconds since the Unix epoch) to a new history at `out`,
/// which must not exist or be empty.
///
/// Windows are numbered from 0 again and cut into segments anew. The zero map at the new start is the one the history
/// had there. How busy the vCPUs were is known by segment: each recorded window takes its share of that with it. The WWS index is built anew: the first write of a page after the cut counts as its first write. Windows of
/// missing segments become one gap each. The manifest is the same but for `created`, which is the new start.
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
    let mut shares = VcpuShares::of_history(history);
    let mut stream = history.stream(first.index..last.index + 1);
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
    Ok(Trimmed { windows, start_unix_ns, end_unix_ns })
}
