//! 4 One step (ram_save_iterate).

use std::time::Duration;

use migcast_model::algorithm::qemu::Version;
use migcast_model::dirty::ZeroChange;
use migcast_model::units::BytesPerSec;

use crate::{PAGE_BYTES, Run, SECTION, Trace, data_pages, millis, ms};

#[test]
fn rule_4_1_a_step_ends_at_the_first_64th_page_after_50_ms() {
    // Pages of 1 ms: the clock is looked at after 64. Each step costs a section: 18 bytes.
    let mut run = Run::of(Version::V9_0);
    run.settings.downtime_limit = ms(0);
    let completed = run.completed(&Trace::idle(640));
    // Ten full steps, and one that finds nothing is never begun: nothing is pending.
    assert_eq!(completed.sent_bytes.get(), 640 * PAGE_BYTES + 10 * SECTION + SECTION);
    // Pages of 0.5 ms: after 64 pages 32 ms have passed, after 128 64 ms.
    run.rate = BytesPerSec::new(PAGE_BYTES * 2000);
    let completed = run.completed(&Trace::idle(640));
    assert_eq!(completed.sent_bytes.get(), 640 * PAGE_BYTES + 5 * SECTION + SECTION);
    // Pages of 50/64 ms: exactly 50 ms are not over, so the step is 128 pages long. With 51 ms it ends after 64.
    run.rate = BytesPerSec::new(PAGE_BYTES * 64_000 / 50);
    let completed = run.completed(&Trace::idle(640));
    assert_eq!(completed.sent_bytes.get(), 640 * PAGE_BYTES + 5 * SECTION + SECTION);
    run.rate = BytesPerSec::new(PAGE_BYTES * 64_000 / 51);
    let completed = run.completed(&Trace::idle(640));
    assert_eq!(completed.sent_bytes.get(), 640 * PAGE_BYTES + 10 * SECTION + SECTION);
}

#[test]
fn rule_4_1_holds_where_the_stream_is_flushed_between_two_looks() {
    // 32 pages with data fill the stream's buffer, then come 96 zero pages, all of 1 ms: the first look is after 64 pages
    // all the same, and ends the first of two steps.
    let mut run = Run::of(Version::V9_0);
    run.settings.downtime_limit = ms(0);
    run.platform.zero_page_cost = ms(1);
    let completed = run.completed(&Trace::idle(128).with_zero(32..128));
    assert_eq!(completed.sent_bytes.get(), 32 * PAGE_BYTES + 96 * 9 + 2 * SECTION + SECTION);
}

#[test]
fn rule_4_1_holds_where_one_tracked_page_stands_for_several() {
    // One page of 19 is tracked: the count steps over the 64th page, and the clock is looked at all the same.
    let mut run = Run::of(Version::V9_0);
    run.settings.downtime_limit = ms(0);
    let sent = run.completed(&Trace::idle(40).sampled(19)).sent_bytes.get();
    // Four tracked pages (76) pass the 64th: ten steps of 76 pages.
    assert_eq!(sent, 760 * PAGE_BYTES + 10 * SECTION + SECTION);
}

#[test]
fn rule_4_2_a_page_written_before_its_turn_is_sent_and_sent_again() {
    // Page 300 is written at 50 ms, sent at 300 ms, and due once more: QEMU does not skip it.
    let trace = Trace::idle(400).with_windows(&[&[300]]);
    let completed = Run::of(Version::V9_0).completed(&trace);
    assert_eq!(completed.sent.data.get(), 401);
    assert!(completed.iterations.iter().all(|iteration| iteration.skipped.is_zero()));
}

#[test]
fn rule_4_3_the_bytes_of_a_page_are_4104_and_of_a_zero_page_9() {
    let mut run = Run::of(Version::V9_0);
    run.settings.downtime_limit = ms(0);
    run.rate = BytesPerSec::new(1 << 50);
    let completed = run.completed(&Trace::idle(100).with_zero(0..60));
    assert_eq!(completed.sent_bytes.get(), 40 * 4104 + 60 * 9 + 2 * SECTION);
    assert_eq!((completed.sent.data.get(), completed.sent.zero.get()), (40, 60));
}

#[test]
fn rule_4_4_zero_pages_cost_the_sender_time_but_hardly_the_link() {
    let mut run = Run::of(Version::V9_0);
    run.settings.downtime_limit = ms(0);
    run.platform.zero_page_cost = Duration::from_micros(10);
    let completed = run.completed(&Trace::idle(10_000).with_zero(0..10_000));
    assert_eq!(millis(completed.migration_time), 100);
}

#[test]
fn rule_4_5_zero_pages_count_as_whole_pages_in_what_remains() {
    // After two steps 101 pages remain, all zero: 909 bytes on the wire, yet not below a threshold of 100.2 pages.
    let completed = Run::of(Version::V9_0).completed(&Trace::idle(229).with_zero(128..229));
    assert_eq!(completed.iterations[0].sent.zero.get(), 101);
    let completed = Run::of(Version::V9_0).completed(&Trace::idle(228).with_zero(128..228));
    assert_eq!(completed.iterations[0].sent.zero.get(), 0, "100 zero pages are below it, and wait for stop-and-copy");
}

#[test]
fn rule_4_6_a_page_is_sent_as_it_is_at_its_turn() {
    // Pages 300..310 are zero. In the first 100 ms page 300 is written before its turn and is zero no longer; page 0 was
    // sent with data and is zeroed.
    let zero_changes = vec![(0, ZeroChange { rank: 0, zero: true }), (0, ZeroChange { rank: 300, zero: false })];
    let trace = Trace { zero_changes, ..Trace::idle(400).with_zero(300..310).with_windows(&[&[0, 300]]) };
    let completed = Run::of(Version::V9_0).completed(&trace);
    // Once: all but 301..310 with data, those nine as zeros. Again: page 300 with data, page 0 as zeros.
    assert_eq!((completed.sent.data.get(), completed.sent.zero.get()), (391 + 1, 9 + 1));
}

#[test]
fn rule_4_7_a_step_ends_when_a_whole_turn_finds_nothing_due() {
    // Ten pages at 1 ms: the step ends after 10 ms, not 50. Page 0, written at 5 ms after it was sent, is not due before
    // the log is read, so the turn does not find it; the last reading does.
    let mut run = Run::of(Version::V9_0);
    run.settings.downtime_limit = ms(0);
    let completed = run.completed(&Trace::new(10, &[0..10]));
    assert_eq!(data_pages(&completed), [10, 1]);
    assert_eq!(millis(completed.iterations[0].end.since(completed.iterations[0].start)), 10);
}
