//! Writes a history of a made-up guest with cyclic behaviour, the same bytes every time: for `cargo xtask paper`.
//!
//! 1 GiB; 40 s quiet, then 40 s busy, four times. Quiet: 500 writes per second anywhere. Busy: about
//! 40,000 writes per second over the first 512 MiB, which is more than a link of 1 Gbit/s carries. No two cycles write
//! the same pages, and how much each writes differs by up to a tenth.

use std::error::Error;
use std::path::Path;

use migcast_history::format::Manifest;
use migcast_history::windows::State;
use migcast_history::writer::{NewWindow, Writer};

const MANIFEST: &str = r#"{"format": "migcast.history/5", "created": "2026-01-01T00:00:00Z", "recorder": "migcast cyclic",
    "method": "import", "written_means": "dirty-log", "resource": "ram", "guest_name": "cyclic",
    "guest_id": "2010a5c0-75e1-4b1b-9f5b-6d6173636f74", "hypervisor": "unknown", "hypervisor_version": "",
    "accelerator": "unknown", "page_size_bytes": 4096, "window_seconds": 0.1,
    "blocks": [{"name": "ram", "length_bytes": 1073741824}], "sample": {"one_in": 1, "seed": 0}}"#;

const PAGES: u64 = 262_144;
const WINDOWS_PER_SECOND: u64 = 10;
const QUIET_SECONDS: u64 = 40;
const CYCLE_SECONDS: u64 = 80;
const CYCLES: u64 = 4;
const QUIET_WRITES_PER_SECOND: u64 = 500;
const BUSY_WRITES_PER_SECOND: u64 = 40_000;
const BUSY_PAGES: u64 = 131_072;
const START_UNIX_NS: i64 = 1_767_225_600_000_000_000;

fn main() -> Result<(), Box<dyn Error>> {
    let dir = std::env::args_os().nth(1).ok_or("usage: cyclic DIR")?;
    let dir = Path::new(&dir);
    let manifest = Manifest::parse(MANIFEST.as_bytes(), dir)?;
    let mut writer = Writer::create(dir, manifest, &[])?;
    let window_ns = 1_000_000_000 / WINDOWS_PER_SECOND.cast_signed();
    for window in 0..CYCLES * CYCLE_SECONDS * WINDOWS_PER_SECOND {
        let start_unix_ns = START_UNIX_NS + window.cast_signed() * window_ns;
        writer.push(NewWindow {
            start_unix_ns,
            end_unix_ns: start_unix_ns + window_ns,
            state: State::Recorded,
            written: &written(window),
            zero_changes: &[],
            cost_us: 0,
        })?;
    }
    writer.finish()?;
    Ok(())
}

/// The pages written in a window, ascending, each once.
fn written(window: u64) -> Vec<u64> {
    let second = window / WINDOWS_PER_SECOND;
    let (cycle, is_busy) = (second / CYCLE_SECONDS, second % CYCLE_SECONDS >= QUIET_SECONDS);
    let (per_second, pages) =
        if is_busy { (BUSY_WRITES_PER_SECOND, BUSY_PAGES) } else { (QUIET_WRITES_PER_SECOND, PAGES) };
    // 90 to 110 %.
    let percent = 90 + mixed(cycle) % 21;
    let writes = per_second * percent / 100 / WINDOWS_PER_SECOND;
    let mut written: Vec<u64> = (0..writes).map(|write| mixed((window << 20) + write) % pages).collect();
    written.sort_unstable();
    written.dedup();
    written
}

/// SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).
fn mixed(index: u64) -> u64 {
    let mut z = index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
