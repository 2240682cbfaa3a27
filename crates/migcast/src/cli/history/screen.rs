//! `migcast history info` for people: one screen.
use std::io::{self, Write};
use std::time::Duration;

use migcast_history::format::WrittenMeans;
use migcast_history::reader::History;
use migcast_history::summary::Summary;
use migcast_history::windows::State;

use super::chart;

/// Lines of the chart over time.
const CHART_ROWS: usize = 4;

/// Blocks listed one by one; a default QEMU machine has 9, of which 2 hold nearly all memory.
const BLOCKS_SHOWN: usize = 3;

/// Writes what a history holds; `summary` is `None` where no segment was closed.
pub(super) fn info(out: &mut dyn Write, history: &History, summary: Option<&Summary>) -> io::Result<()> {
    let manifest = history.manifest();
    writeln!(out, "{}", history.dir().display())?;
    let accelerator = &manifest.accelerator;
    let hypervisor = format!("{} {}", manifest.hypervisor, manifest.hypervisor_version);
    writeln!(
        out,
        "  guest       {} ({}), {}, {accelerator}",
        manifest.guest_name,
        manifest.guest_id,
        hypervisor.trim_end()
    )?;
    memory(out, history)?;
    let written = match manifest.written_means {
        WrittenMeans::Content => "written = content changed",
        WrittenMeans::DirtyLog => "written = dirty log",
        WrittenMeans::Rate => "written = a rate",
    };
    writeln!(out, "  recorded    {} by {} ({}), {written}", manifest.resource, manifest.recorder, manifest.method)?;
    match summary {
        None => writeln!(out, "  length      no closed segment")?,
        Some(summary) => recorded(out, history, summary)?,
    }
    for problem in history.problems() {
        writeln!(out, "  ! {problem}")?;
    }
    Ok(())
}

fn memory(out: &mut dyn Write, history: &History) -> io::Result<()> {
    let manifest = history.manifest();
    let page_size = manifest.page_size_bytes;
    let mut blocks: Vec<_> = manifest.blocks.iter().collect();
    blocks.sort_by_key(|block| std::cmp::Reverse(block.length_bytes));
    let largest = blocks.iter().take(BLOCKS_SHOWN).map(|b| format!("{} {}", b.name, bytes(b.length_bytes as f64)));
    let mut list = largest.collect::<Vec<_>>().join(", ");
    if blocks.len() > BLOCKS_SHOWN {
        list += &format!(", {} more", blocks.len() - BLOCKS_SHOWN);
    }
    let total = bytes(manifest.memory_bytes() as f64);
    writeln!(out, "  memory      {total} in pages of {}: {list}", bytes(page_size as f64))?;
    let tracked = history.tracked();
    if manifest.sample.is_full() {
        writeln!(out, "  sampling    every page")
    } else {
        let (count, one_in) = (tracked.count(), manifest.sample.one_in);
        writeln!(
            out,
            "  sampling    1 page in {one_in}: {} tracked; counts below are scaled up",
            pages(f64::from(count))
        )
    }
}

fn recorded(out: &mut dyn Write, history: &History, summary: &Summary) -> io::Result<()> {
    let timeline = &summary.timeline;
    let (windows, time) = timeline.in_state(State::Recorded);
    let mean = seconds(if windows == 0 { Duration::ZERO } else { time / u32::try_from(windows).unwrap_or(u32::MAX) });
    let start = timeline.start();
    writeln!(
        out,
        "  length      {} from {start:.1}: {windows} windows of {mean} on average",
        seconds(timeline.duration())
    )?;
    for (state, word) in [(State::Gap, "gaps"), (State::Migrating, "migrating")] {
        let (windows, time) = timeline.in_state(state);
        if windows > 0 {
            let plural = if windows == 1 { "" } else { "s" };
            writeln!(out, "  {word:<11} {windows} window{plural}, {}", seconds(time))?;
        }
    }
    let segments = history.segments().len();
    writeln!(out, "  on disk     {} in {segments} segments", bytes(history.bytes_on_disk() as f64))?;
    if history.windows_with_pages().is_empty() {
        writeln!(out, "  pages       no longer kept; there is the index")?;
    } else if let Some(from) = history.pages_kept_from() {
        writeln!(out, "  pages       kept from {from:.1} on; of what was before there is the index")?;
    }
    let page_size = history.manifest().page_size_bytes as f64;
    rate(out, summary, page_size)?;
    write_sets(out, summary, page_size)?;
    let (zero_start, zero_end) = (summary.zero_pages_start, summary.zero_pages_end);
    let of_memory = |pages: f64| 100.0 * pages / history.tracked().memory() as f64;
    let (share_start, share_end) = (of_memory(zero_start), of_memory(zero_end));
    let (zero_start, zero_end) = (pages(zero_start), pages(zero_end));
    writeln!(
        out,
        "  zero pages  {zero_start} ({share_start:.0} %) at the start, {zero_end} ({share_end:.0} %) at the end"
    )?;
    if let Some(time) = summary.vcpu_time {
        let (busy, mean) = (100.0 * time.busy_share(), 100.0 * time.mean_share());
        match time.vcpus {
            1 => writeln!(out, "  vCPUs       1, busy {mean:.0} % of its time")?,
            vcpus => {
                writeln!(out, "  vCPUs       {vcpus}, busy {mean:.0} % of their time; those that work, {busy:.0} %")?
            }
        }
    }
    let cost = summary.cost;
    let (mean, p95) = (seconds(cost.mean), seconds(cost.p95));
    writeln!(
        out,
        "  cost        {:.1} % of one core; {mean} per window on average, {p95} at most in 95 %",
        100.0 * cost.core_share
    )
}

fn rate(out: &mut dyn Write, summary: &Summary, page_size: f64) -> io::Result<()> {
    writeln!(out, "{}", rate_line(summary.pages_per_second, page_size))?;
    let values: Vec<Option<f64>> = summary.slices.iter().map(|slice| slice.pages_per_second).collect();
    chart_over_time(out, &values, summary.timeline.duration())
}

/// The mean dirty rate, in pages per second.
pub(super) fn rate_line(mean: f64, page_size: f64) -> String {
    format!("  dirty rate  {}/s on average, {}", pages(mean), bits_per_second(mean * page_size * 8.0))
}

/// Dirty rates in equal slices of a time, as bars over an axis.
pub(super) fn chart_over_time(out: &mut dyn Write, values: &[Option<f64>], length: Duration) -> io::Result<()> {
    let top = values.iter().flatten().copied().fold(0.0, f64::max);
    for (row, line) in chart::bars(values, CHART_ROWS).into_iter().enumerate() {
        let label = if row == 0 { format!("{}/s", pages(top)) } else { String::new() };
        writeln!(out, "    {label:>18} │{}", line.trim_end())?;
    }
    let end = seconds(length);
    let width = values.len().saturating_sub(1);
    writeln!(out, "    {:>18} └{}", "", "─".repeat(values.len()))?;
    writeln!(out, "    {:>18}  0{end:>width$}", "")
}

fn write_sets(out: &mut dyn Write, summary: &Summary, page_size: f64) -> io::Result<()> {
    for (index, set) in summary.wws.iter().enumerate() {
        let heading = if index == 0 { "write set" } else { "" };
        let error = if set.pages_standard_error > 0.0 {
            format!(", give or take {}", pages(set.pages_standard_error))
        } else {
            String::new()
        };
        let (span, memory) = (seconds(set.span), bytes(set.pages * page_size));
        writeln!(out, "  {heading:<11} {span:>6}: {}{error}, {memory}", pages(set.pages))?;
    }
    Ok(())
}

/// A page count with thousands apart: "12,345 pages".
fn pages(count: f64) -> String {
    let digits = format!("{count:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    format!("{text} {}", if digits == "1" { "page" } else { "pages" })
}

/// Bytes with an IEC prefix: "512 MiB", "1.4 GiB".
pub(super) fn bytes(count: f64) -> String {
    scaled(count, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB", "PiB"])
}

/// A rate with a decimal prefix: "320 Mbit/s".
fn bits_per_second(rate: f64) -> String {
    scaled(rate, 1000.0, &["bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s"])
}

/// Three figures and the largest unit of which there is at least one.
fn scaled(value: f64, step: f64, units: &[&str]) -> String {
    let (mut value, mut unit) = (value, 0);
    while value >= step && unit + 1 < units.len() {
        value /= step;
        unit += 1;
    }
    let places = if value >= 100.0 || value.fract() == 0.0 {
        0
    } else if value >= 10.0 {
        1
    } else {
        2
    };
    format!("{value:.places$} {}", units[unit])
}

/// A time: "100 ms", "59.9 s", "5 min 3 s", "2 h 5 min".
pub(super) fn seconds(time: Duration) -> String {
    let (whole, nanos) = (time.as_secs(), time.as_nanos());
    match nanos {
        0..1_000_000 => format!("{} µs", nanos / 1_000),
        1_000_000..10_000_000 => format!("{:.1} ms", time.as_secs_f64() * 1e3),
        10_000_000..999_500_000 => format!("{:.0} ms", time.as_secs_f64() * 1e3),
        _ if time.subsec_millis() == 0 && whole <= 60 => format!("{whole} s"),
        _ if whole < 90 => format!("{:.1} s", time.as_secs_f64()),
        _ if whole < 3_600 => format!("{} min {} s", whole / 60, whole % 60),
        _ => format!("{} h {} min", whole / 3_600, whole / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_for_people() {
        assert_eq!(pages(1_234_567.4), "1,234,567 pages");
        assert_eq!(pages(999.0), "999 pages");
        assert_eq!(bytes(512.0 * 1024.0 * 1024.0), "512 MiB");
        assert_eq!(bytes(1536.0), "1.50 KiB");
        assert_eq!(bits_per_second(327_680_000.0), "328 Mbit/s");
        assert_eq!(seconds(Duration::from_millis(100)), "100 ms");
        assert_eq!(seconds(Duration::from_micros(4_250)), "4.2 ms");
        assert_eq!(seconds(Duration::from_secs(60)), "60 s");
        assert_eq!(seconds(Duration::from_millis(59_940)), "59.9 s");
        assert_eq!(seconds(Duration::from_secs(303)), "5 min 3 s");
        assert_eq!(seconds(Duration::from_secs(7_500)), "2 h 5 min");
    }
}
