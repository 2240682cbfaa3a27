//! `migcast history info` of a rate series, for people.
use std::io::{self, Write};

use migcast_history::rates::RateSeries;

use super::SLICES;
use super::screen::{bytes, chart_over_time, rate_line, seconds};

/// Writes what a series holds.
pub(super) fn info(out: &mut dyn Write, series: &RateSeries) -> io::Result<()> {
    let manifest = series.manifest();
    let page_size = manifest.page_size_bytes as f64;
    writeln!(out, "{}", series.dir().display())?;
    writeln!(out, "  guest       {} ({})", manifest.guest_name, manifest.guest_id)?;
    let memory = bytes(manifest.memory_bytes() as f64);
    writeln!(out, "  memory      {memory} in pages of {}", bytes(page_size))?;
    writeln!(
        out,
        "  recorded    {} by {} ({}), written = a rate: how many pages, not which",
        manifest.resource, manifest.recorder, manifest.method
    )?;
    let (length, start) = (seconds(series.duration()), jiff::Timestamp::from_nanosecond(series.start_unix_ns().into()));
    let start = start.unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    let rates = series.rates();
    let (shortest, longest) = (rates.iter().map(|rate| rate.span).min(), rates.iter().map(|rate| rate.span).max());
    let [shortest, longest] = [shortest, longest].map(|span| seconds(span.unwrap_or_default()));
    let spans = if shortest == longest { shortest } else { format!("{shortest} to {longest}") };
    writeln!(out, "  length      {length} from {start:.1}: {} rates, measured over {spans}", rates.len())?;
    let missing = series.duration().saturating_sub(series.known_duration());
    if !missing.is_zero() {
        writeln!(out, "  gaps        {} without a rate", seconds(missing))?;
    }
    writeln!(out, "  on disk     {}", bytes(series.bytes_on_disk() as f64))?;
    writeln!(out, "{}", rate_line(series.mean_pages_per_second(), page_size))?;
    let values: Vec<Option<f64>> = series.slices(SLICES).iter().map(|slice| slice.pages_per_second).collect();
    chart_over_time(out, &values, series.duration())
}
