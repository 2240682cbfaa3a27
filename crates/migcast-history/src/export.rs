//! A history as text: CSV with a header line, base units in the names, one line per row.
//!
//! Parquet readers need no export: the segments are Parquet already.
use std::io::{self, Write};

use crate::damage::ReadError;
use crate::reader::History;

/// Why an export stopped.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The history cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The output cannot be written.
    #[error("cannot write the export")]
    Write(#[from] io::Error),
}

/// Writes one line per window: `window,start,end,state,written_pages,zero_pages,cost_us`. Times are RFC 3339 with
/// nanoseconds; pages are tracked pages.
pub fn windows_csv(history: &History, out: &mut dyn Write) -> Result<(), ExportError> {
    writeln!(out, "window,start,end,state,written_pages,zero_pages,cost_us")?;
    for segment in history.segments() {
        for (index, window) in segment.windows().zip(history.windows(segment)?) {
            let [start, end] = [window.start_unix_ns, window.end_unix_ns].map(crate::reader::timestamp);
            let (state, written, zero, cost) = (window.state.word(), window.written, window.zero, window.cost_us);
            writeln!(out, "{index},{start:.9},{end:.9},{state},{written},{zero},{cost}")?;
        }
    }
    Ok(())
}

/// Writes one line per page written in a window: `window,page`, ordered by both.
pub fn pages_csv(history: &History, out: &mut dyn Write) -> Result<(), ExportError> {
    writeln!(out, "window,page")?;
    let mut stream = history.stream(0..u32::MAX);
    while let Some(view) = stream.next_window()? {
        for rank in view.written {
            writeln!(out, "{},{}", view.index, history.tracked().page_of_rank(*rank))?;
        }
    }
    Ok(())
}
