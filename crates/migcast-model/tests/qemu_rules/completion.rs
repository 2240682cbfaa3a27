//! 5 Completion, downtimes, totals (migration_completion).

use std::time::Duration;

use migcast_model::algorithm::qemu::Version;
use migcast_model::dirty::ZeroChange;
use migcast_model::units::{ByteCount, BytesPerSec};

use crate::{PAGE_BYTES, Run, Trace, data_pages, millis, ms};

#[test]
fn rule_5_1_the_cap_does_not_hold_while_the_guest_is_stopped() {
    // The cap lets 11 pages out per window; the threshold is 1.1 windows' worth: 12.1 pages. The 12 that remain take 12 ms,
    // not 100.
    let mut run = Run::of(Version::V7_2);
    run.settings.max_bandwidth = BytesPerSec::new(10 * PAGE_BYTES * 10);
    run.settings.downtime_limit = ms(110);
    let completed = run.completed(&Trace::idle(34));
    assert_eq!(data_pages(&completed), [22, 0, 12]);
    assert_eq!(millis(completed.downtime.total()), 12);
}

#[test]
fn rule_5_2_the_last_reading_happens_after_the_stop_and_finds_what_was_written_until_then() {
    let mut run = Run::of(Version::V9_0);
    run.platform.stop = ms(100);
    // Nothing is written before the decision at 130 ms; 50 pages at 201, 203 … 299 ms, 15 of them before the stop at
    // 230 ms.
    let completed = run.completed(&Trace::new(230, &[0..0, 0..0, 0..50]));
    assert_eq!(data_pages(&completed), [130, 0, 100 + 15]);
    assert_eq!(completed.iteration_count, 3, "set-up, at the decision, after the stop");
}

#[test]
fn rule_5_3_reported_downtime_ends_with_the_source_s_last_byte_the_guest_s_on_the_target() {
    // The sender's buffer takes all 40 pages at once, so it decides at 0 ms. Five are delivered while the guest is stopped,
    // 20 while its device state is saved, which ends what QEMU times; 15 later, and 40 ms on the guest runs.
    let mut run = Run::of(Version::V9_0);
    run.sender_buffer = 1000 * PAGE_BYTES;
    run.platform.stop = ms(5);
    run.platform.device_state_cost = ms(20);
    run.platform.resume = ms(40);
    let completed = run.completed(&Trace::idle(40));
    assert_eq!(completed.downtime_reported, ms(5 + 20));
    let parts = completed.downtime;
    assert_eq!([parts.pages, parts.device_state, parts.drain, parts.resume].map(millis), [0, 20, 15, 40]);
    assert_eq!(millis(parts.total()), 75);
}

#[test]
fn rule_5_4_device_state_is_sent_within_the_downtime() {
    let mut run = Run::of(Version::V9_0);
    let without = run.completed(&Trace::idle(90));
    run.platform.device_state = ByteCount::new(50 * PAGE_BYTES);
    let with = run.completed(&Trace::idle(90));
    assert_eq!(millis(with.downtime.total() - without.downtime.total()), 50);
    assert_eq!((with.sent_bytes - without.sent_bytes).get(), 50 * PAGE_BYTES);
}

#[test]
fn rule_5_5_a_slowed_guest_writes_less_in_the_same_time() {
    let mut run = Run::of(Version::V9_0);
    let trace = Trace::new(400, &[0..50, 50..100]);
    assert_eq!(run.completed(&trace).sent.data.get(), 500);
    run.platform.guest_speed = 0.25;
    // It writes a page at 1, 3, 5 … ms of its life. At 325 ms it has lived 81 ms and written 41 pages: 75 + 41 remain,
    // too many, and one more step follows. At 390 ms it has lived 97 ms and written 49 of the first window's 50 pages;
    // then it is stopped.
    assert_eq!(run.completed(&trace).sent.data.get(), 449);
}

#[test]
fn rule_5_6_both_reported_times_end_with_the_source_s_last_byte_on_a_clock_of_whole_milliseconds() {
    // Requested at 0, connected at 0.6 ms, where the sender's buffer takes all 90 pages at once and it decides. The guest is
    // stopped at 1.1 ms, where the source is done: 1 − 0 is one millisecond of downtime, though half a one passed.
    let mut run = Run::of(Version::V9_0);
    run.sender_buffer = 1000 * PAGE_BYTES;
    run.platform.connect = Duration::from_micros(600);
    run.platform.stop = Duration::from_micros(500);
    run.platform.resume = ms(40);
    let completed = run.completed(&Trace::idle(90));
    assert_eq!(completed.downtime_reported, ms(1));
    assert_eq!(completed.migration_time_reported, ms(1));
    // The guest's own ends on the target: all is delivered at 90.6 ms, 40 ms before it runs.
    assert_eq!(millis(completed.migration_time), 131);
    // With 0.3 ms of stopping it is over within one tick of the clock.
    run.platform.stop = Duration::from_micros(300);
    assert_eq!(run.completed(&Trace::idle(90)).downtime_reported, ms(0));
}

#[test]
fn rule_5_7_a_stopped_guest_writes_nothing() {
    // Of 230 pages 100 remain at 130 ms and go out until 230 ms (rule 2.4). Page 229, zero and the last, would be written
    // at 150 ms, and still is zero at its turn.
    let zero_changes = vec![(1, ZeroChange { rank: 229, zero: false })];
    let trace = Trace { zero_changes, ..Trace::idle(230).with_zero(229..230).with_windows(&[&[], &[229]]) };
    let completed = Run::of(Version::V9_0).completed(&trace);
    assert_eq!(data_pages(&completed), [130, 0, 99]);
    assert_eq!(completed.sent.zero.get(), 1);
}
