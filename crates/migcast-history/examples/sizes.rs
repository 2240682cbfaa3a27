//! Prints how large a minute of recording is on disk, per table, for made-up guests of 512 MiB at 100 ms:
//! `cargo run --release -p migcast-history --example sizes`.
use std::collections::BTreeSet;
use std::error::Error;
use std::path::Path;
use std::time::Instant;

use migcast_history::format::{Block, Manifest, WrittenMeans};
use migcast_history::sample::Sample;
use migcast_history::windows::State;
use migcast_history::writer::{NewWindow, Writer};

const PAGES: u64 = 131_072;
const WINDOWS: u64 = 600;

/// splitmix64.
fn chance(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Draws the page of the n-th write from a state of chance.
type Guest = fn(u64, &mut u64) -> u64;

const GUESTS: [(&str, u64, Guest); 6] = [
    ("uniform 2,000/s over 20,000", 2_000, |_, s| 30_000 + chance(s) % 20_000),
    ("uniform 20,000/s over 131,072", 20_000, |_, s| chance(s) % PAGES),
    ("sequential 9,000/s over 12,000", 9_000, |n, _| 30_000 + n % 12_000),
    ("hot-cold 6,000/s, 90 % in 6,000 of 60,000", 6_000, |_, s| {
        if chance(s).is_multiple_of(10) { 30_000 + chance(s) % 60_000 } else { 50_000 + chance(s) % 6_000 }
    }),
    ("hot-cold 20,000/s, 90 % in 4,000 of 131,072", 20_000, |_, s| {
        if chance(s).is_multiple_of(10) { chance(s) % PAGES } else { 50_000 + chance(s) % 4_000 }
    }),
    ("scattered hot 9,000/s over 8,000 of 131,072", 9_000, |_, s| {
        let mut page = chance(s) % 8_000;
        chance(&mut page) % PAGES
    }),
];

fn main() -> Result<(), Box<dyn Error>> {
    println!(
        "{:<46} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>10}",
        "guest", "pages", "wws", "bands", "windows", "zero", "close ms", "events"
    );
    for (name, per_second, guest) in GUESTS {
        let dir = std::env::temp_dir().join(format!("migcast-sizes-{}", std::process::id()));
        let (events, closing_ms) = record(&dir, per_second / 10, guest)?;
        let size = |table: &str| -> std::io::Result<u64> {
            std::fs::read_dir(dir.join(table))?.map(|entry| entry?.metadata().map(|file| file.len())).sum()
        };
        let [pages, wws, bands, windows, zero] = ["pages", "wws", "bands", "windows", "zero"].map(size);
        let (pages, wws, bands, windows, zero) = (pages?, wws?, bands?, windows?, zero?);
        println!("{name:<46} {pages:>9} {wws:>9} {bands:>9} {windows:>9} {zero:>9} {closing_ms:>9} {events:>10}");
        std::fs::remove_dir_all(&dir)?;
    }
    Ok(())
}

fn record(dir: &Path, writes: u64, guest: Guest) -> Result<(usize, u128), Box<dyn Error>> {
    let zero: Vec<u64> = (100_000..PAGES).filter(|page| page / 64 % 5 != 0).collect();
    let mut writer = Writer::create(dir, manifest(), &zero)?;
    let (mut state, mut events) = (1, 0);
    for window in 0..WINDOWS {
        let written: BTreeSet<u64> = (0..writes).map(|n| guest(window * writes + n, &mut state)).collect();
        let written: Vec<u64> = written.into_iter().collect();
        events += written.len();
        let start_unix_ns = i64::try_from(window * 100_000_000 + chance(&mut state) % 50_000)?;
        let end_unix_ns = start_unix_ns + 99_900_000;
        let cost_us = u32::try_from(4_000 + chance(&mut state) % 500)?;
        let state = State::Recorded;
        writer.push(NewWindow { start_unix_ns, end_unix_ns, state, written: &written, zero_changes: &[], cost_us })?;
    }
    let begun = Instant::now();
    writer.finish()?;
    Ok((events, begun.elapsed().as_millis()))
}

fn manifest() -> Manifest {
    Manifest {
        format: Manifest::format_now(),
        created: jiff::Timestamp::UNIX_EPOCH,
        recorder: "sizes".into(),
        method: "import".into(),
        written_means: WrittenMeans::DirtyLog,
        resource: "ram".into(),
        guest_name: "made up".into(),
        guest_id: uuid::Uuid::nil(),
        hypervisor: "unknown".into(),
        hypervisor_version: String::new(),
        accelerator: "unknown".into(),
        page_size_bytes: 4096,
        blocks: vec![Block { name: "ram".into(), length_bytes: PAGES * 4096, guest_physical_address: None }],
        window_seconds: 0.1,
        sample: Sample::full(),
        keep_pages_seconds: None,
        keep_index_seconds: None,
    }
}
