//! What holds for every guest, link and setting, on generated ones.

#![allow(clippy::single_range_in_vec_init, reason = "traces list ranges of pages")]
#![allow(clippy::unwrap_used, reason = "a test may")]

use std::time::Duration;

use migcast_model::algorithm::Algorithm;
use migcast_model::algorithm::qemu::{Settings, Version};
use migcast_model::bounds::Bounds;
use migcast_model::dirty::{
    ConstantRate, DirtySource, PageReplay, PageReplayBuilder, PageSource, WritePattern, ZeroChange,
};
use migcast_model::due::DirtyLog;
use migcast_model::forecast::Forecast;
use migcast_model::guest::Guest;
use migcast_model::link::Link;
use migcast_model::outcome::Completed;
use migcast_model::platform::Platform;
use migcast_model::simulate::Scenario;
use migcast_model::units::{ByteCount, BytesPerSec, PageCount, PagesPerSec};
use proptest::prelude::*;

const PAGES: u32 = 3_000;

fn guest(memory: PageCount) -> Guest {
    Guest { name: "generated".into(), memory, page_size: Guest::PAGE_SIZE }
}

fn replay() -> impl Strategy<Value = PageReplay> {
    let window = (prop::collection::btree_set(0..PAGES, 0..150), any::<bool>());
    (0..PAGES, prop::collection::vec(window, 1..30)).prop_map(|(zero, windows)| {
        let mut builder = PageReplayBuilder::new(PageCount::new(PAGES.into()), PageCount::new(PAGES.into()));
        builder.zero_at_start(std::iter::once(0..zero));
        for (written, zeroes) in windows {
            let written: Vec<u32> = written.into_iter().collect();
            let changes: Vec<ZeroChange> =
                written.iter().map(|rank| ZeroChange { rank: *rank, zero: zeroes }).collect();
            builder.window(Duration::from_millis(100), &written, &changes);
        }
        builder.build().unwrap()
    })
}

fn scenario() -> impl Strategy<Value = Scenario> {
    let settings = (0usize..8, 0u64..2_000, prop::option::of(5u64..200), any::<bool>());
    let costs = (0u64..50, 0u64..50, 0u64..4_000, 0u64..5_000_000, 0u64..100);
    (settings, costs, 10u64..2_000, 0u64..5_000_000).prop_map(|(settings, costs, mbit, buffer)| {
        let (version, limit, cap, manual) = settings;
        let (connect, setup, page, state, resume) = costs;
        let settings = Settings {
            downtime_limit: Duration::from_millis(limit),
            max_bandwidth: cap.map_or(Settings::default().max_bandwidth, |mib| BytesPerSec::new(mib << 20)),
            dirty_log: if manual { DirtyLog::KvmManual } else { DirtyLog::Tcg },
            ..Settings::default()
        };
        let rate = BytesPerSec::from_bits(mbit * 1_000_000);
        Scenario {
            guest: guest(PageCount::new(PAGES.into())),
            link: Link { sender_buffer: ByteCount::new(buffer), ..Link::ethernet(rate) },
            platform: Platform {
                connect: Duration::from_millis(connect),
                setup: Duration::from_millis(setup),
                page_cost: Duration::from_nanos(page),
                device_state: ByteCount::new(state),
                resume: Duration::from_millis(resume),
                ..Platform::default()
            },
            algorithm: Algorithm::qemu(Version::ALL[version], settings),
            horizon: Duration::from_secs(20),
        }
    })
}

fn check(scenario: &Scenario, source: &impl PageSource, done: &Completed) -> Result<(), TestCaseError> {
    let state = scenario.platform.device_state.get();
    // Bytes: the parts make the whole, and pages and sections are all there is besides the device state.
    let by_iteration: u64 = done.iterations.iter().map(|iteration| iteration.sent_bytes.get()).sum();
    prop_assert_eq!(by_iteration, done.sent_bytes.get());
    let pages = done.sent.data.get() * 4104 + done.sent.zero.get() * 9;
    prop_assert!(done.sent_bytes.get() >= pages + state);
    prop_assert_eq!((done.sent_bytes.get() - pages - state) % 18, 0);
    // Every page goes out at least once.
    prop_assert!(done.sent.pages() >= source.memory());
    // Nothing is faster than the link, and the target has everything before it runs.
    let link_time = done.sent_bytes.transfer_time_ceil(scenario.link.goodput());
    prop_assert!(done.migration_time + Duration::from_micros(1) >= link_time + scenario.platform.resume);
    prop_assert!(done.migration_time >= done.migration_time_reported);
    // Iterations follow each other without gaps, the last is stop-and-copy.
    prop_assert!(done.iterations.windows(2).all(|pair| pair[0].end == pair[1].start));
    prop_assert_eq!(done.iterations.len() as u64, done.iteration_count);
    let bounds = Bounds::of(scenario, source);
    prop_assert!(done.migration_time + Duration::from_micros(1) >= bounds.migration_time.min);
    prop_assert!(done.downtime.total() >= bounds.downtime.min);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_completed_migration_conserves_bytes_and_time(scenario in scenario(), source in replay(), start in 0u64..5_000) {
        if let Some(done) = scenario.run(&source, Duration::from_millis(start)).completed() {
            check(&scenario, &source, done)?;
        }
    }

    #[test]
    fn an_idle_guest_sends_each_page_once(scenario in scenario()) {
        let source = ConstantRate::new(
            scenario.guest.memory, PageCount::ZERO, PagesPerSec::ZERO, WritePattern::Uniform, 0);
        let outcome = scenario.run(&source, Duration::ZERO);
        if let Some(done) = outcome.completed() {
            check(&scenario, &source, done)?;
            prop_assert_eq!(done.sent.pages(), scenario.guest.memory);
        }
    }

    #[test]
    fn the_same_input_gives_the_same_outcome(scenario in scenario(), source in replay()) {
        let starts: Vec<Duration> = source.window_starts().collect();
        let forecast = || Forecast::new(&scenario, &source, &starts, || {});
        let (once, again) = (forecast(), forecast());
        prop_assert_eq!(once.starts(), again.starts());
    }

    #[test]
    fn a_longer_downtime_limit_never_makes_an_idle_guest_slower(scenario in scenario(), more in 1u64..1_000) {
        let source = ConstantRate::new(
            scenario.guest.memory, PageCount::ZERO, PagesPerSec::ZERO, WritePattern::Uniform, 0);
        let mut longer = scenario.clone();
        let limit = longer.algorithm.scheme().downtime_aim() + Duration::from_millis(more);
        longer.algorithm.set("downtime-limit", &format!("{}ms", limit.as_millis())).unwrap();
        let sent = |scenario: &Scenario| {
            scenario.run(&source, Duration::ZERO).completed().map(|done| (done.migration_time, done.downtime.total()))
        };
        if let (Some(short), Some(long)) = (sent(&scenario), sent(&longer)) {
            // Sections differ by a few bytes; the cap may put a sleep of up to 100 ms before the end.
            prop_assert!(long.0 <= short.0 + Duration::from_millis(100), "{:?} {:?}", short, long);
        }
    }
}

#[test]
fn a_constant_rate_beyond_the_link_does_not_converge_and_one_well_below_does() {
    // 400 Mbit/s carry about 11,500 pages/s.
    let scenario = |rate: f64| {
        let memory = PageCount::new(50_000);
        let source = ConstantRate::new(memory, memory, PagesPerSec::new(rate), WritePattern::Uniform, 1);
        let scenario = Scenario {
            guest: guest(memory),
            link: Link::ethernet(BytesPerSec::from_bits(400_000_000)),
            platform: Platform::default(),
            algorithm: Algorithm::named("qemu").unwrap(),
            horizon: Duration::from_secs(120),
        };
        scenario.run(&source, Duration::ZERO)
    };
    assert!(scenario(5_000.0).completed().is_some());
    assert!(scenario(20_000.0).completed().is_none());
}

#[test]
fn sequential_writes_below_the_link_s_rate_make_a_geometric_series() {
    let memory = PageCount::new(20_000);
    let source = ConstantRate::new(memory, memory, PagesPerSec::new(2_000.0), WritePattern::Sequential, 1);
    let settings =
        Settings { downtime_limit: Duration::from_millis(20), dirty_log: DirtyLog::Tcg, ..Settings::default() };
    let scenario = Scenario {
        guest: guest(memory),
        link: Link { sender_buffer: ByteCount::ZERO, ..Link::ethernet(BytesPerSec::from_bits(400_000_000)) },
        platform: Platform::free(),
        algorithm: Algorithm::qemu(Version::V9_0, settings),
        horizon: Duration::from_secs(60),
    };
    let outcome = scenario.run(&source, Duration::ZERO);
    let done = outcome.completed().unwrap();
    // Pages sent: the geometric series of the rate's share of the link, cut where the rest fits into 20 ms.
    let link_pages = scenario.link.goodput().get() as f64 / 4104.0;
    let share = 2_000.0 / link_pages;
    let endless = 20_000.0 / (1.0 - share);
    let sent = done.sent.data.get() as f64;
    assert!((sent - endless).abs() < 0.03 * endless, "{sent} pages against {endless}");
    assert!(source.write_set(Duration::from_secs(1)).mean == 2_000.0);
}

#[test]
fn a_link_that_carries_nothing_is_an_outcome_not_a_panic() {
    let memory = PageCount::new(1_000);
    let source = ConstantRate::new(memory, memory, PagesPerSec::new(1e15), WritePattern::Uniform, 1);
    let link = Link { payload_share: 1e-9, ..Link::ethernet(BytesPerSec::new(1_000)) };
    let (platform, algorithm) = (Platform::default(), Algorithm::named("qemu").unwrap());
    let horizon = Scenario::default_horizon(&guest(memory), &link, &platform, &algorithm);
    let scenario = Scenario { horizon, guest: guest(memory), link, platform, algorithm };
    assert!(scenario.run(&source, Duration::ZERO).completed().is_none());
    assert_eq!(Bounds::of(&scenario, &source).migration_time.min, Duration::MAX);
}

#[test]
fn an_idle_guest_converges_within_the_default_horizon_however_its_sender_is_capped() {
    // 8 GiB behind QEMU's default cap of 128 MiB/s take 64 s over any faster link.
    let memory = PageCount::new(2 << 20);
    let source = ConstantRate::new(memory, PageCount::ZERO, PagesPerSec::ZERO, WritePattern::Uniform, 0);
    let link = Link::ethernet(BytesPerSec::from_bits(10_000_000_000));
    let (platform, algorithm) = (Platform::default(), Algorithm::named("qemu").unwrap());
    let horizon = Scenario::default_horizon(&guest(memory), &link, &platform, &algorithm);
    let scenario = Scenario { horizon, guest: guest(memory), link, platform, algorithm };
    assert!(scenario.run(&source, Duration::ZERO).completed().is_some());
}
