//! Forecasts per second from an index: distinct starting points and links, one core and all. Run by `cargo xtask bench`.

#![expect(clippy::disallowed_methods, reason = "a bench measures real time")]

use std::time::{Duration, Instant};

use migcast_model::algorithm::Algorithm;
use migcast_model::dirty::{PageReplay, PageReplayBuilder, WwsIndex, WwsIndexBuilder};
use migcast_model::due::DueSource;
use migcast_model::forecast::Forecast;
use migcast_model::guest::Guest;
use migcast_model::link::Link;
use migcast_model::platform::Platform;
use migcast_model::simulate::Scenario;
use migcast_model::units::{BytesPerSec, PageCount};
use rayon::prelude::*;

const WINDOW: Duration = Duration::from_millis(100);
const WINDOWS: u64 = 36_000;

fn mixed(number: u64) -> u64 {
    let mut z = number.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// An hour of a guest of so many pages: nine in ten writes on a twentieth of the memory.
fn windows(pages: u64, writes: u64, windows: u64) -> impl Iterator<Item = Vec<u32>> {
    (0..windows).map(move |window| {
        let page = |write: u64| {
            let draw = mixed((window << 20) + write);
            let place = draw >> 8;
            (if draw & 0xff < 230 { place % (pages / 20) } else { place % pages }) as u32
        };
        let mut written: Vec<u32> = (0..writes).map(page).collect();
        written.sort_unstable();
        written.dedup();
        written
    })
}

fn scenario(pages: u64, name: &str, settings: &[(&str, &str)], mbit: u64) -> Scenario {
    let mut algorithm = Algorithm::named(name).expect("a known algorithm");
    settings.iter().for_each(|(key, value)| algorithm.set(key, value).expect("a known setting"));
    let guest = Guest::new("g", PageCount::new(pages).bytes(Guest::PAGE_SIZE));
    let link = Link::ethernet(BytesPerSec::from_bits(mbit * 1_000_000));
    Scenario { guest, link, platform: Platform::default(), algorithm, horizon: Duration::from_secs(600) }
}

/// One forecast of the `number`-th start, over a link of 90 to 110 %. Who asks often keeps a scenario and changes its link.
fn one(scenario: &mut Scenario, line_rate: BytesPerSec, source: &dyn DueSource, number: u64) -> usize {
    let draw = mixed(number);
    let start = Duration::from_nanos(draw % (WINDOW.as_nanos() as u64 * WINDOWS));
    scenario.link.line_rate = line_rate.scale(0.9 + 0.2 * (draw >> 40) as f64 / (1u64 << 24) as f64);
    let outcome = scenario.run(source, start);
    outcome.completed().expect("it converges").iterations.len()
}

/// Forecasts a second, and how many iterations the median one has.
fn per_second(base: &Scenario, source: &dyn DueSource, count: u64, all_cores: bool) -> (f64, usize) {
    let line_rate = base.link.line_rate;
    let began = Instant::now();
    let mut iterations: Vec<usize> = if all_cores {
        let run = |scenario: &mut Scenario, number| one(scenario, line_rate, source, number);
        (0..count).into_par_iter().map_init(|| base.clone(), run).collect()
    } else {
        let mut scenario = base.clone();
        (0..count).map(|number| one(&mut scenario, line_rate, source, number)).collect()
    };
    let rate = count as f64 / began.elapsed().as_secs_f64();
    iterations.sort_unstable();
    (rate, iterations[iterations.len() / 2])
}

fn replay(pages: u64, writes: u64) -> PageReplay {
    let mut builder = PageReplayBuilder::new(PageCount::new(pages), PageCount::new(pages));
    windows(pages, writes, 1_200).for_each(|written| builder.window(WINDOW, &written, &[]));
    builder.build().expect("it has windows")
}

/// Starting points of one forecast of a large guest, each by itself and with a first pass that they share, on all cores.
fn shared_first_pass(log: &str) {
    const PAGES: u64 = 16 << 20;
    const STARTS: u32 = 3_000;
    let mut builder = WwsIndexBuilder::new(PageCount::new(PAGES), PageCount::new(PAGES));
    windows(PAGES, 2_000, STARTS.into()).for_each(|written| builder.window(WINDOW, &written, &[]));
    let index = builder.build().expect("it has windows");
    let scenario = scenario(PAGES, "qemu-10.0", &[("dirty-log", log), ("max-bandwidth", "none")], 10_000);
    let starts: Vec<Duration> = (0..STARTS).map(|start| WINDOW * start).collect();
    let began = Instant::now();
    let alone: Vec<_> = starts.par_iter().map(|start| (*start, scenario.run(&index, *start))).collect();
    let alone_took = began.elapsed();
    let began = Instant::now();
    let shared = Forecast::new(&scenario, &index, &starts, || {});
    let took = began.elapsed();
    assert_eq!(shared.starts(), alone, "they end alike");
    let ratio = alone_took.as_secs_f64() / took.as_secs_f64();
    let [alone, shared] = [alone_took, took].map(|took| took.as_secs_f64() * 1e3);
    println!("| {log} | {STARTS} | {alone:.0} ms | {shared:.0} ms | {ratio:.2} |");
}

/// Arguments name the algorithms that are timed; all of them without any.
fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    println!("| guest | algorithm | iterations | one core, /s | all cores, /s | a replay, one core, /s |");
    println!("| --- | --- | --- | --- | --- | --- |");
    for (name, pages, writes, mbit) in [("256 MiB", 65_536, 700, 400), ("4 GiB", 1 << 20, 2_800, 2_000)] {
        let began = Instant::now();
        let mut builder = WwsIndexBuilder::new(PageCount::new(pages), PageCount::new(pages));
        windows(pages, writes, WINDOWS).for_each(|written| builder.window(WINDOW, &written, &[]));
        let index: WwsIndex = builder.build().expect("it has windows");
        let built = began.elapsed();
        let replay = replay(pages, writes);
        let cases: [(&str, &[(&str, &str)]); 4] = [
            ("xen-4.10", &[]),
            ("xen-classic", &[]),
            ("qemu-10.0", &[("dirty-log", "tcg"), ("max-bandwidth", "none"), ("downtime-limit", "100ms")]),
            ("qemu-10.0", &[("dirty-log", "kvm-manual"), ("max-bandwidth", "none"), ("downtime-limit", "100ms")]),
        ];
        let is_wanted = |algorithm: &str| wanted.is_empty() || wanted.iter().any(|name| name == algorithm);
        for (algorithm, settings) in cases.into_iter().filter(|(algorithm, _)| is_wanted(algorithm)) {
            let scenario = scenario(pages, algorithm, settings, mbit);
            let count = if algorithm == "xen-4.10" { 200_000 } else { 10_000 };
            let (single, iterations) = per_second(&scenario, &index, count, false);
            let (all, _) = per_second(&scenario, &index, 2 * count, true);
            let (paged, _) = per_second(&scenario, &replay, 30, false);
            let log = settings.first().map_or("", |(_, value)| value);
            println!("| {name} | {algorithm} {log} | {iterations} | {single:.0} | {all:.0} | {paged:.0} |");
        }
        eprintln!("{name}: index of an hour built from its pages in {built:.1?}");
    }
    println!("\n| 64 GiB, qemu-10.0 | starts | each alone | sharing the first pass | ratio |");
    println!("| --- | --- | --- | --- | --- |");
    ["tcg", "kvm-manual"].into_iter().for_each(shared_first_pass);
}
