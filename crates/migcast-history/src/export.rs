//! A history's tables, one file each: CSV with a header line or Parquet, the same columns in both.
//!
//! Readers of Parquet can do without: the segments are Parquet already, but in many files, pages and windows without the
//! number of the window beside its times.
mod parquet;

use std::io::{self, Write};

use ::parquet::errors::ParquetError;

pub use self::parquet::{pages_parquet, rates_parquet, windows_parquet, wws_parquet};
use crate::damage::ReadError;
use crate::rates::RateSeries;
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
    /// The output cannot be encoded or written.
    #[error("cannot write the export")]
    Encode(#[from] ParquetError),
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

/// Writes one line per row of the WWS index: `window,band,bucket,events`, ordered by the first three. The columns are
/// those of `wws/` in `docs/history-format.md`.
pub fn wws_csv(history: &History, out: &mut dyn Write) -> Result<(), ExportError> {
    writeln!(out, "window,band,bucket,events")?;
    for segment in history.segments() {
        for row in history.index(segment)? {
            writeln!(out, "{},{},{},{}", row.window, row.band, row.bucket, row.events)?;
        }
    }
    Ok(())
}

/// Writes one line per rate: `start,end,written_pages,span_ns`. Times are RFC 3339 with nanoseconds; pages are distinct
/// pages within the span, which was measured from the start on.
pub fn rates_csv(series: &RateSeries, out: &mut dyn Write) -> Result<(), ExportError> {
    writeln!(out, "start,end,written_pages,span_ns")?;
    for rate in series.rates() {
        let [start, end] = [rate.start_unix_ns, rate.end_unix_ns].map(crate::reader::timestamp);
        writeln!(out, "{start:.9},{end:.9},{},{}", rate.written, rate.span.as_nanos())?;
    }
    Ok(())
}
