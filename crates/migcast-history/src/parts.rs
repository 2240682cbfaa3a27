//! The index of a long history, held part by part.
use std::ops::Range;
use std::time::Duration;

use crate::reader::History;
use crate::timeline::Timeline;

/// Windows of which an index is held at once: a day at 100 ms, in half a gigabyte.
pub const INDEX_WINDOWS_MAX: usize = 1 << 20;
/// Writes of which an index can tell.
const INDEX_WRITES_MAX: u64 = (1 << 31) - 1;
/// An index is of whole segments, and a segment has no more writes than this but for a single large window.
const SEGMENT_WRITES_MAX: u64 = 1 << 24;

impl History {
    /// Windows of this history, cut at segments into what an index holds at once, of at most so many recorded windows but for
    /// a longer segment.
    pub fn index_parts(&self, timeline: &Timeline, part: &Range<u32>, windows_max: usize) -> Vec<Range<u32>> {
        let touched = self.segments().iter().map(|segment| segment.windows());
        let touched: Vec<Range<u32>> =
            touched.filter(|windows| windows.start < part.end && part.start < windows.end).collect();
        let mut parts: Vec<(Range<u32>, usize, u64)> = Vec::new();
        let mut entries = timeline.recorded().collect::<Vec<_>>().into_iter().rev().peekable();
        // The last parts are as long as can be: the latest past is of most interest.
        for windows in touched.into_iter().rev() {
            let (mut count, mut written) = (0, 0);
            while let Some(entry) = entries.next_if(|entry| entry.index >= windows.start) {
                if windows.contains(&entry.index) {
                    (count, written) = (count + 1, written + u64::from(entry.window.written));
                }
            }
            match parts.last_mut() {
                Some((part, windows_so_far, written_so_far))
                    if *windows_so_far + count <= windows_max && *written_so_far + written <= INDEX_WRITES_MAX =>
                {
                    part.start = windows.start;
                    (*windows_so_far, *written_so_far) = (*windows_so_far + count, *written_so_far + written);
                }
                _ => parts.push((windows, count, written)),
            }
        }
        parts.into_iter().rev().map(|(part, ..)| part).collect()
    }
}

/// A part with the windows after it that last as long as `horizon`, as far as an index holds them.
pub fn with_what_follows(timeline: &Timeline, part: &Range<u32>, horizon: Duration, windows_max: usize) -> Range<u32> {
    let (mut length, mut count, mut written) = (Duration::ZERO, 0, 0);
    let mut end = part.end;
    for entry in timeline.recorded().filter(|entry| entry.index >= part.start) {
        (count, written) = (count + 1, written + u64::from(entry.window.written));
        if entry.index < part.end {
            continue;
        }
        if length >= horizon || count > windows_max || written + SEGMENT_WRITES_MAX > INDEX_WRITES_MAX {
            break;
        }
        length += entry.window.length();
        end = entry.index + 1;
    }
    part.start..end
}
