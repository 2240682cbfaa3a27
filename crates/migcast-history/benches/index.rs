//! A day of a made-up guest of 64 GiB: recorded, opened cold, and forecast from every tenth window: `cargo xtask bench index`.
//!
//! 20,000 writes per second on average, nine in ten of them on a twentieth of the memory; by day more, by night fewer, as
//! a sine; each hour the busy twentieth moves on. Windows of 100 ms go through the writer that recorders use, page by
//! page. Pages are kept for an hour, the index for ever.

use std::error::Error;
use std::path::Path;
use std::time::{Duration, Instant};

use migcast_history::format::Manifest;
use migcast_history::reader::History;
use migcast_history::windows::State;
use migcast_history::writer::{NewWindow, Writer};
use migcast_model::algorithm::Algorithm;
use migcast_model::dirty::wws::PartRecorder;
use migcast_model::dirty::wws::part::cell_for;
use migcast_model::dirty::{CountedSource, DirtySource, PageCursor, PageSource, SpanCounts, WwsIndex};
use migcast_model::forecast::Forecast;
use migcast_model::guest::Guest;
use migcast_model::link::Link;
use migcast_model::platform::Platform;
use migcast_model::simulate::Scenario;
use migcast_model::units::PageCount;
use migcast_model::units::{BytesPerSec, GuestTime};

const MANIFEST: &str = r#"{"format": "migcast.history/5", "created": "2026-01-01T00:00:00Z", "recorder": "migcast day",
    "method": "import", "written_means": "dirty-log", "resource": "ram", "guest_name": "day",
    "guest_id": "24a5c000-75e1-4b1b-9f5b-6d6173636f74", "hypervisor": "qemu", "hypervisor_version": "10.0.2",
    "accelerator": "kvm", "page_size_bytes": 4096, "window_seconds": 0.1, "keep_pages_seconds": 3600,
    "blocks": [{"name": "pc.ram", "length_bytes": 68719476736}], "sample": {"one_in": 1, "seed": 0}}"#;

const PAGES: u64 = 16 << 20;
const WINDOW_NS: i64 = 100_000_000;
const WINDOWS_PER_HOUR: u64 = 36_000;
const WRITES_PER_WINDOW: f64 = 2_000.0;
const START_UNIX_NS: i64 = 1_767_225_600_000_000_000;

/// An argument says how many hours instead of 24.
fn main() -> Result<(), Box<dyn Error>> {
    let hours = std::env::args().skip(1).find_map(|arg| arg.parse::<u64>().ok()).unwrap_or(24);
    let dir = std::env::temp_dir().join(format!("migcast-bench-index-{}", std::process::id()));
    println!("| a day of a 64 GiB guest, 20,000 writes/s | |");
    println!("| --- | --- |");
    let result = measure(&dir, hours);
    if dir.exists() {
        std::fs::remove_dir_all(&dir)?;
    }
    result
}

fn measure(dir: &Path, hours: u64) -> Result<(), Box<dyn Error>> {
    count_alone();
    record(dir, hours)?;
    let began = Instant::now();
    let history = History::open(dir)?;
    let windows = history.timeline()?.all();
    let index = history.wws_index(windows)?;
    println!("| opened, {} windows | {:.2} s |", index.windows(), began.elapsed().as_secs_f64());
    ask(&index);
    against_replay(&history)?;
    let starts: Vec<Duration> = index.window_starts().step_by(10).collect();
    for (name, settings) in [("xen-4.10", &[][..]), ("qemu-10.0", &[("max-bandwidth", "none")])] {
        let scenario = scenario(&index, name, settings)?;
        let began = Instant::now();
        let forecast = Forecast::new(&scenario, &index, &starts, || {});
        let (done, took) = (forecast.completed().count(), began.elapsed().as_secs_f64());
        let rate = starts.len() as f64 / took;
        println!("| {name}: {} starts, {done} converge | {took:.2} s, {rate:.0} /s |", starts.len());
    }
    let memory = std::fs::read_to_string("/proc/self/status")?;
    let peak = memory.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    println!("| most memory, recorder included | {} |", peak.trim());
    Ok(())
}

/// What a recorder does for the index alone.
fn count_alone() {
    let memory = PageCount::new(PAGES);
    let cell = cell_for(memory.bytes(Guest::PAGE_SIZE).get(), Duration::from_millis(100));
    let mut recorder = PartRecorder::new(PAGES as u32, memory, cell);
    let windows: Vec<Vec<u32>> = (0..600)
        .map(|window| {
            let mut written = Vec::new();
            fill(WINDOWS_PER_HOUR * 12 + window, &mut written);
            written.into_iter().map(|page| page as u32).collect()
        })
        .collect();
    let events: usize = windows.iter().map(Vec::len).sum();
    let began = Instant::now();
    windows.iter().for_each(|written| recorder.window(Duration::from_millis(100), written));
    let part = recorder.take();
    let rate = events as f64 / began.elapsed().as_secs_f64() / 1e6;
    println!(
        "| counted, a minute, {} rows | {rate:.1} million events/s |",
        part.gaps.len() + part.bands.len() + part.band_gaps.len()
    );
}

fn record(dir: &Path, hours: u64) -> Result<(), Box<dyn Error>> {
    let manifest = Manifest::parse(MANIFEST.as_bytes(), dir)?;
    let mut writer = Writer::create(dir, manifest, &[])?;
    let (mut written, mut events) = (Vec::new(), 0);
    let mut writing = Duration::ZERO;
    for window in 0..hours * WINDOWS_PER_HOUR {
        fill(window, &mut written);
        events += written.len();
        let start_unix_ns = START_UNIX_NS + window.cast_signed() * WINDOW_NS;
        let began = Instant::now();
        writer.push(NewWindow {
            start_unix_ns,
            end_unix_ns: start_unix_ns + WINDOW_NS,
            state: State::Recorded,
            written: &written,
            zero_changes: &[],
            cost_us: 0,
        })?;
        writing += began.elapsed();
    }
    writer.finish()?;
    let rate = events as f64 / writing.as_secs_f64() / 1e6;
    println!("| recorded, {events} events, pages and all | {rate:.1} million events/s |");
    let size = |table: &str| -> std::io::Result<u64> {
        std::fs::read_dir(dir.join(table))?.map(|entry| entry?.metadata().map(|file| file.len())).sum()
    };
    let [windows, bands, wws] = ["windows", "bands", "wws"].map(size);
    let (windows, bands, wws) = (windows? as f64 / 1e6, bands? as f64 / 1e6, wws? as f64 / 1e6);
    let sum = windows + bands + wws;
    println!("| index on disk | {sum:.1} MB: wws {wws:.1}, bands {bands:.1}, windows {windows:.1} |");
    Ok(())
}

/// What one question costs.
fn ask(index: &WwsIndex) {
    let length = index.length().unwrap_or_default();
    let questions = 1_000_000u32;
    let ask = |question: &dyn Fn(Duration, GuestTime) -> f64| {
        let began = Instant::now();
        let mut sum = 0.0;
        for number in 0..questions {
            let draw = mixed(u64::from(number));
            let start = Duration::from_nanos(draw % length.as_nanos() as u64);
            sum += question(start, GuestTime::ZERO + Duration::from_millis(1 + (draw >> 48)));
        }
        assert!(sum > 0.0, "something was written");
        began.elapsed().as_nanos() as f64 / f64::from(questions)
    };
    let all = ask(&|start, until| index.counts(start).written(GuestTime::ZERO, until));
    let bands = ask(&|start, until| index.counts(start).written_per_band(GuestTime::ZERO, until)[7]);
    println!("| a span of up to 65 s, anywhere | {all:.0} ns; by band {bands:.0} ns |");
}

/// The index against the pages of the last minutes: the same span counted both ways.
fn against_replay(history: &History) -> Result<(), Box<dyn Error>> {
    let end = history.windows_with_pages().end;
    let replay = history.page_replay(end - 1_200..end)?;
    let span = GuestTime::ZERO + Duration::from_secs(10);
    let began = Instant::now();
    let mut seen = vec![false; PAGES as usize];
    let mut distinct = 0u64;
    replay.cursor(Duration::from_secs(60)).advance(span, |rank| {
        distinct += u64::from(!std::mem::replace(&mut seen[rank as usize], true));
    });
    let paged = began.elapsed();
    let index = history.wws_index(end - 1_200..end)?;
    // Whole segments: the same ten seconds lie as far from the end.
    let start = index.length().unwrap_or_default() - Duration::from_secs(60);
    let began = Instant::now();
    let told = index.counts(start).written(GuestTime::ZERO, span);
    let counted = began.elapsed();
    let ratio = paged.as_secs_f64() / counted.as_secs_f64();
    println!(
        "| ten seconds counted page by page and off the index | {distinct} and {told:.0} pages; {ratio:.0} times as fast |"
    );
    Ok(())
}

fn scenario(index: &WwsIndex, name: &str, settings: &[(&str, &str)]) -> Result<Scenario, Box<dyn Error>> {
    let mut algorithm = Algorithm::named(name)?.on_accelerator("kvm");
    for (key, value) in settings {
        algorithm.set(key, value)?;
    }
    let guest = Guest::new("day", index.memory().bytes(Guest::PAGE_SIZE));
    let (link, platform) = (Link::ethernet(BytesPerSec::from_bits(10_000_000_000)), Platform::default());
    let horizon = Scenario::default_horizon(&guest, &link, &platform, &algorithm);
    Ok(Scenario { guest, link, platform, algorithm, horizon })
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
