//! Where a migration can be written down as a formula, the simulation must give the formula's value.

#![allow(clippy::unwrap_used, reason = "a test may")]

use std::time::Duration;

use migcast_model::algorithm::{Algorithm, Ends, TABLE};
use migcast_model::bounds::Bounds;
use migcast_model::dirty::{ConstantRate, DirtySource, WritePattern};
use migcast_model::guest::Guest;
use migcast_model::link::Link;
use migcast_model::outcome::Completed;
use migcast_model::platform::Platform;
use migcast_model::simulate::Scenario;
use migcast_model::units::{ByteCount, BytesPerSec, PageCount, PagesPerSec};

/// 200,000 pages a second in frames of 4104 bytes.
const PAGES_PER_SEC: u64 = 200_000;
const MEMORY: PageCount = PageCount::new(262_144);

fn scenario(algorithm: &str) -> Scenario {
    let rate = BytesPerSec::new(PAGES_PER_SEC * 4104);
    let mut algorithm = Algorithm::named(algorithm).unwrap();
    if algorithm.scheme().cap().is_some() {
        algorithm.set("max-bandwidth", "none").unwrap();
    }
    Scenario {
        guest: Guest { name: "formula".into(), memory: MEMORY, page_size: Guest::PAGE_SIZE },
        link: Link { line_rate: rate, payload_share: 1.0, sender_buffer: ByteCount::ZERO },
        platform: Platform::free(),
        algorithm,
        horizon: Duration::from_secs(20),
    }
}

fn run(algorithm: &str, pattern: WritePattern, writes_per_second: f64, set: u64) -> Completed {
    let source = ConstantRate::new(MEMORY, PageCount::new(set), PagesPerSec::new(writes_per_second), pattern, 7);
    let outcome = scenario(algorithm).run(&source, Duration::ZERO);
    outcome.completed().unwrap_or_else(|| panic!("{algorithm}: {outcome:?}")).clone()
}

fn due(completed: &Completed) -> Vec<f64> {
    completed.iterations.iter().map(|iteration| iteration.due_at_start.get() as f64).collect()
}

fn assert_close(found: f64, expected: f64, tolerance: f64, what: &str) {
    assert!((found - expected).abs() <= tolerance, "{what}: {found} instead of {expected}");
}

#[test]
fn without_writes_every_algorithm_sends_the_memory_once_in_memory_over_rate() {
    for entry in TABLE {
        let completed = run(entry.name, WritePattern::Uniform, 0.0, MEMORY.get());
        assert_eq!(completed.sent.data, MEMORY, "{}", entry.name);
        let seconds = completed.migration_time.as_secs_f64();
        // Cloud Hypervisor and CRIU have no frame number: 8 bytes of 4104 less.
        assert_close(seconds, MEMORY.get() as f64 / PAGES_PER_SEC as f64, 0.003, entry.name);
        let idle_downtime = completed.downtime.total().as_secs_f64();
        match entry.name {
            "stop-and-copy" => assert_close(idle_downtime, seconds, 1e-9, entry.name),
            // QEMU stops as soon as 300 ms of pages are left.
            name if name.starts_with("qemu") => assert_close(idle_downtime, 0.3, 0.06, name),
            name => assert_close(idle_downtime, 0.0, 1e-9, name),
        }
    }
}

#[test]
fn sequential_writes_make_rounds_a_geometric_series() {
    // r/L = 0.3: what is due is V, 0.3 V, 0.09 V … Nothing is written twice in a round, the set being the memory.
    let completed = run("xen-4.10", WritePattern::Sequential, 0.3 * PAGES_PER_SEC as f64, MEMORY.get());
    let mut expected = MEMORY.get() as f64;
    for (round, due) in due(&completed).into_iter().enumerate() {
        assert_close(due, expected, 2.0 + expected * 1e-4, &format!("round {}", round + 1));
        expected *= 0.3;
    }
    assert_eq!(completed.iterations.len(), 6);
    let sum: f64 = (0..6).map(|round| 0.3f64.powi(round)).sum::<f64>() * MEMORY.get() as f64 / PAGES_PER_SEC as f64;
    assert_close(completed.migration_time.as_secs_f64(), sum, sum * 1e-3, "the series' sum");
}

#[test]
fn uniform_writes_leave_n_times_one_minus_e_to_the_minus_rt_over_n() {
    let (set, writes) = (50_000.0, 90_000.0);
    let completed = run("xen-4.10", WritePattern::Uniform, writes, set as u64);
    let due = due(&completed);
    let mut sending = MEMORY.get() as f64;
    for (round, due) in due.iter().enumerate().skip(1) {
        let seconds = sending / PAGES_PER_SEC as f64;
        let share = libm::exp(-writes * seconds / set);
        let expected = set * (1.0 - share);
        // Four standard deviations of so many independent pages.
        assert_close(*due, expected, 4.0 * (set * share * (1.0 - share)).sqrt() + 2.0, &format!("round {}", round + 1));
        sending = *due;
    }
    assert_eq!(due.len(), 6);
}

#[test]
fn classic_xen_skips_what_a_fast_writer_writes_again_and_leaves_it_to_the_stopped_guest() {
    // A working set that is written anew every 5 ms, in batches of 5.12 ms: the live rounds send hardly any of it.
    let set = 20_000u64;
    let completed = run("xen-classic", WritePattern::Sequential, 4e6, set);
    let last = completed.iterations.last().unwrap();
    assert_eq!(last.sent.data.get(), set);
    assert_close(completed.downtime.total().as_secs_f64(), set as f64 / PAGES_PER_SEC as f64, 1e-3, "downtime");
    let skipped: u64 = completed.iterations.iter().map(|iteration| iteration.skipped.get()).sum();
    assert!(skipped > 25 * set, "{skipped}");
    let live: u64 = completed.iterations[1..29].iter().map(|iteration| iteration.sent.data.get()).sum();
    assert!(live <= 28 * 1024, "a round's first batch at most: {live}");
}

#[test]
fn no_outcome_is_outside_of_its_algorithm_s_bounds_whatever_the_rate() {
    // For nothing, with the default costs, and with readings of the log that cost 50 ms each.
    let dear = Platform { sync_cost_per_gib: Duration::from_millis(50), ..Platform::default() };
    let platforms = [Platform::free(), Platform::default(), dear];
    for (entry, platform) in TABLE.iter().flat_map(|entry| platforms.iter().map(move |platform| (entry, platform))) {
        let scenario =
            Scenario { platform: platform.clone(), horizon: Duration::from_secs(200), ..scenario(entry.name) };
        let bounded = matches!(scenario.algorithm.scheme().ends(), Ends::AfterSending { .. });
        for writes in if bounded { [0.0, 1e5, 4e5] } else { [0.0, 1e3, 1e5] } {
            for pattern in [WritePattern::Uniform, WritePattern::Sequential] {
                let source = ConstantRate::new(MEMORY, MEMORY, PagesPerSec::new(writes), pattern, 7);
                let bounds = Bounds::of(&scenario, &source);
                assert_eq!(bounds.migration_time.max.is_some(), bounded, "{}", entry.name);
                let outcome = scenario.run(&source, Duration::ZERO);
                let Some(done) = outcome.completed() else {
                    assert!(!bounded, "{}: {outcome:?}", entry.name);
                    continue;
                };
                let holds = |bound: migcast_model::bounds::Bound, value: Duration| {
                    bound.min <= value && bound.max.is_none_or(|max| value <= max)
                };
                let (time, downtime) = (done.migration_time, done.downtime.total());
                assert!(holds(bounds.migration_time, time), "{} at {writes}: {time:?} of {bounds:?}", entry.name);
                assert!(holds(bounds.downtime, downtime), "{} at {writes}: {downtime:?} of {bounds:?}", entry.name);
            }
        }
    }
}

#[test]
fn classic_xen_s_bounds_are_the_paper_s() {
    // Overheads + V/L to overheads + 5V/L, and V/L of downtime (Akoush et al. 2010), with frames and looks of their own.
    let source = ConstantRate::new(MEMORY, MEMORY, PagesPerSec::new(1e5), WritePattern::Uniform, 7);
    let mut scenario = scenario("xen-classic");
    scenario.platform =
        Platform { connect: Duration::from_secs(3), resume: Duration::from_millis(314), ..Platform::free() };
    assert_eq!(source.never_zero(), MEMORY, "no page of it is zero");
    let bounds = Bounds::of(&scenario, &source);
    let whole = MEMORY.get() as f64 / PAGES_PER_SEC as f64;
    let overheads = 3.314;
    let seconds = |span: Duration| span.as_secs_f64();
    assert_close(seconds(bounds.migration_time.max.unwrap()), overheads + 5.0 * whole, 0.05, "longest time");
    assert_close(seconds(bounds.downtime.max.unwrap()), 0.314 + whole, 0.01, "longest downtime");
    assert_close(seconds(bounds.downtime.min), 0.314, 1e-9, "shortest downtime");
    assert_close(seconds(bounds.migration_time.min), overheads + whole, 0.01, "shortest time");
}
