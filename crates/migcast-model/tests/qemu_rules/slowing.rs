//! 7 Slowing the guest: auto-converge and dirty-limit (migration_trigger_throttle, cpu-throttle.c, dirtylimit.c).
//!
//! The guest has 4000 pages and writes 600 of them a second, others in each of six seconds. A step is 65 pages, the
//! threshold 100.2 (rule 2.4), so the log is read when 100 pages or fewer are left:
//!
//! ```text
//!  0 ── 60 steps ── 3900 ms: 2340 written, 60 % of 3900 ── 36 steps ── 6240 ms: 1404, 60 % of 2340: slowed
//!    ── 22 steps ── 7670 ms: 858 would have been written
//! ```

use migcast_model::algorithm::qemu::{AutoConverge, DirtyLimit, Version};
use migcast_model::due::DirtyLog;
use migcast_model::units::BytesPerSec;

use crate::{PAGE_PER_MS, Run, Trace, millis, ms};

/// A guest that writes, for so many seconds.
fn guest(seconds: u32) -> Trace {
    let second = |second: u32| (600 * (second % 6)..600 * (second % 6) + 600).collect::<Vec<u32>>();
    let windows: Vec<Vec<u32>> = (0..seconds).map(second).collect();
    Trace { windows, window: ms(1000), ..Trace::idle(4000) }
}

/// When each of the first four iterations began, in ms, and how many pages were due.
fn first_four(run: &Run, trace: &Trace) -> Vec<(u64, u64)> {
    let completed = run.completed(trace);
    let began = completed.iterations[0].start;
    let first = completed.iterations.iter().take(4);
    first.map(|iteration| (millis(iteration.start.since(began)), iteration.due_at_start.get() / trace.each)).collect()
}

fn assert_due(found: (u64, u64), at: u64, due: u64) {
    assert!(found.0.abs_diff(at) <= 1, "at {} ms instead of {at}: sections take some microseconds", found.0);
    assert!(found.1.abs_diff(due) <= 3, "{} due instead of {due}", found.1);
}

#[test]
fn rule_7_1_after_two_bad_periods_the_vcpus_sleep_a_fifth_of_their_time() {
    let mut run = Run::of(Version::V9_0);
    assert_due(first_four(&run, &guest(12))[3], 7670, 74 + 858);
    run.settings.auto_converge = AutoConverge { is_on: true, ..AutoConverge::default() };
    let iterations = first_four(&run, &guest(12));
    assert_due(iterations[1], 3900, 100 + 2340);
    assert_due(iterations[2], 6240, 100 + 1404);
    assert_due(iterations[3], 7670, 74 + 858 * 8 / 10);
    let completed = run.completed(&guest(8));
    assert!(completed.throttled >= ms(1430 / 5));
    run.settings.auto_converge.initial = 50;
    assert_due(first_four(&run, &guest(12))[3], 7670, 74 + 858 / 2);
}

#[test]
fn rule_7_2_a_period_is_bad_when_more_than_half_of_what_was_sent_was_written_anew() {
    let mut run = Run::of(Version::V9_0);
    run.settings.auto_converge = AutoConverge { is_on: true, trigger_threshold: 60, ..AutoConverge::default() };
    // 2340 × 4096 of 3900 × 4104 bytes are 59.9 %.
    assert_due(first_four(&run, &guest(12))[3], 7670, 74 + 858);
}

#[test]
fn rule_7_3_from_9_2_on_the_log_is_read_when_five_seconds_had_no_reading() {
    // 12,000 pages, of which 11,000 are written in the first 11 s: the second pass lasts from 11.9 s to 22.9 s. The timer
    // runs out every 5 s; the first two times there was one reading, the third time there has just been another.
    let windows: Vec<Vec<u32>> = (0..11).map(|second| (1000 * second..1000 * second + 1000).collect()).collect();
    let trace = Trace { windows, window: ms(1000), ..Trace::idle(12_000) };
    let readings = |version: Version, is_on: bool| {
        let mut run = Run::of(version);
        run.settings.auto_converge.is_on = is_on;
        let completed = run.completed(&trace);
        let began = completed.iterations[0].start;
        completed.iterations.iter().map(|iteration| millis(iteration.start.since(began))).collect::<Vec<_>>()
    };
    let (without, with) = (readings(Version::V9_0, true), readings(Version::V9_2, true));
    assert_eq!(readings(Version::V9_2, false), without);
    assert!(!without.iter().any(|at| (12_000..22_000).contains(at)), "{without:?}");
    let forced: Vec<&u64> = with.iter().filter(|at| (12_000..22_000).contains(*at)).collect();
    // Steps end every 65 ms from 11,960 ms or so on: the first one after 20 s.
    assert!(forced.len() == 1 && (20_000..20_065).contains(forced[0]), "{with:?}");
}

#[test]
fn rule_7_5_a_guest_that_is_idle_part_of_its_time_sleeps_in_it_first() {
    let mut run = Run::of(Version::V9_0);
    let converge = AutoConverge { is_on: true, initial: 50, ..AutoConverge::default() };
    run.settings.auto_converge = AutoConverge { busy: Some(50), ..converge };
    assert_due(first_four(&run, &guest(12))[3], 7670, 74 + 858);
    // Half of its time asleep, it does 50 of the 80 % it wants.
    run.settings.auto_converge = AutoConverge { busy: Some(80), ..converge };
    assert_due(first_four(&run, &guest(12))[3], 7670, 74 + 858 * 5 / 8);
}

#[test]
fn rule_7_6_under_tcg_a_reading_ends_when_a_sleeping_vcpu_wakes() {
    let began = |log: DirtyLog| {
        let mut run = Run::of(Version::V9_0);
        run.settings.dirty_log = log;
        run.settings.auto_converge = AutoConverge { is_on: true, initial: 99, ..AutoConverge::default() };
        let trace = guest(12);
        let iterations = run.completed(&trace).iterations;
        let since = iterations[0].start;
        iterations.iter().map(|iteration| millis(iteration.start.since(since))).collect::<Vec<_>>()
    };
    let (ring, tcg) = (began(DirtyLog::Ring), began(DirtyLog::Tcg));
    // Slowed from 6240 ms on, the vCPU wakes each second. The log is read at 7670 ms, and the next page goes out at 8240.
    assert!(tcg[3].abs_diff(7670) <= 1 && ring[3].abs_diff(7670) <= 1, "{tcg:?} {ring:?}");
    assert!((tcg[4] - ring[4]).abs_diff(8240 - 7670) <= 2, "{tcg:?} {ring:?}");
}

#[test]
fn rule_7_4_dirty_limit_slows_the_vcpus_to_their_quota() {
    // The same guest a hundred times as large and fast: 60,000 pages are 234 MiB a second. It is told to write 50. A step is
    // 51 of the tracked pages long here, so the first period ends after twenty of them, and from then on the guest runs
    // 50 / 234 of its time.
    let mut run = Run::of(Version::V9_0);
    run.rate = BytesPerSec::new(PAGE_PER_MS.get() * 100);
    run.settings.dirty_log = DirtyLog::Ring;
    let trace = guest(12).sampled(100);
    let free = first_four(&run, &trace)[3];
    let quota = BytesPerSec::new(50 << 20);
    run.settings.dirty_limit = DirtyLimit { is_on: true, quota, ..DirtyLimit::default() };
    let [_, _, second, slowed] = first_four(&run, &trace)[..] else { panic!("four iterations at least") };
    let seconds = (slowed.0 - second.0 - 20 * 51) as f64 / 1000.0;
    let lost = seconds * (1.0 - 50.0 / 234.4) * 600.0;
    assert!(free.1.abs_diff(slowed.1 + lost as u64) <= 4, "{free:?} {slowed:?} {lost}");
    run.settings.dirty_limit.vcpus = 4;
    assert_eq!(first_four(&run, &trace)[3], free, "four vCPUs write 58.6 each: within 25 of their quota");
}
