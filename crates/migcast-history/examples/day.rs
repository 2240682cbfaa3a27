//! Writes a day of a made-up guest of 64 GiB, the same bytes every time: for `cargo xtask bench`.
//!
//! 20,000 writes per second on average, nine in ten of them on a twentieth of the memory; by day more, by night fewer, as
//! a sine; each hour the busy twentieth moves on. Windows of 100 ms go through the writer that recorders use, page by
//! page. Pages are kept for an hour, the index for ever.

use std::error::Error;
use std::path::Path;

use migcast_history::format::Manifest;
use migcast_history::windows::State;
use migcast_history::writer::{NewWindow, Writer};

const MANIFEST: &str = r#"{"format": "migcast.history/3", "created": "2026-01-01T00:00:00Z", "recorder": "migcast day",
    "method": "import", "written_means": "dirty-log", "resource": "ram", "guest_name": "day",
    "guest_id": "24a5c000-75e1-4b1b-9f5b-6d6173636f74", "hypervisor": "qemu", "hypervisor_version": "10.0.2",
    "accelerator": "kvm", "page_size_bytes": 4096, "window_seconds": 0.1, "keep_pages_seconds": 3600,
    "blocks": [{"name": "pc.ram", "length_bytes": 68719476736}], "sample": {"one_in": 1, "seed": 0}}"#;

const PAGES: u64 = 16 << 20;
const WINDOW_NS: i64 = 100_000_000;
const WINDOWS_PER_HOUR: u64 = 36_000;
const WRITES_PER_WINDOW: f64 = 2_000.0;
const START_UNIX_NS: i64 = 1_767_225_600_000_000_000;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args_os().skip(1);
    let dir = args.next().ok_or("usage: day DIR [HOURS]")?;
    let hours = args.next().map_or(Ok(24), |hours| hours.to_string_lossy().parse::<u64>())?;
    let dir = Path::new(&dir);
    let manifest = Manifest::parse(MANIFEST.as_bytes(), dir)?;
    let mut writer = Writer::create(dir, manifest, &[])?;
    let mut written = Vec::new();
    for window in 0..hours * WINDOWS_PER_HOUR {
        fill(window, &mut written);
        let start_unix_ns = START_UNIX_NS + window.cast_signed() * WINDOW_NS;
        writer.push(NewWindow {
            start_unix_ns,
            end_unix_ns: start_unix_ns + WINDOW_NS,
            state: State::Recorded,
            written: &written,
            zero_changes: &[],
            cost_us: 0,
        })?;
    }
    writer.finish()?;
    Ok(())
}

/// The pages written in a window, ascending, each once.
fn fill(window: u64, written: &mut Vec<u64>) {
    let hour = window / WINDOWS_PER_HOUR;
    let day = std::f64::consts::TAU * window as f64 / (24 * WINDOWS_PER_HOUR) as f64;
    let writes = (WRITES_PER_WINDOW * (1.0 - 0.8 * day.cos())) as u64;
    let (busy, first) = (PAGES / 20, hour * 7 % 20 * (PAGES / 20));
    written.clear();
    written.extend((0..writes).map(|write| {
        let draw = mixed((window << 20) + write);
        let place = draw >> 8;
        if draw & 0xff < 230 { first + place % busy } else { place % PAGES }
    }));
    written.sort_unstable();
    written.dedup();
}

/// The SplitMix64 of a number.
fn mixed(number: u64) -> u64 {
    let mut z = number.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
