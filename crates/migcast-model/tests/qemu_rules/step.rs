//! 4 One step (ram_save_iterate).

use std::time::Duration;

use migcast_model::algorithm::qemu::Version;
use migcast_model::dirty::ZeroChange;
use migcast_model::units::BytesPerSec;

use crate::{PAGE_BYTES, Run, SECTION, Trace, data_pages, millis, ms};

/// Steps in which `pages` pages go out that cost the sender `page_cost` each, over an endlessly fast link. Each is a
/// section of 18 bytes, and so is what follows the pages; a step that would find nothing is never begun.
fn steps(pages: u64, page_cost: Duration) -> u64 {
    let mut run = Run::of(Version::V9_0);
    run.settings.downtime_limit = ms(0);
    run.rate = BytesPerSec::new(1 << 50);
    run.platform.page_cost = page_cost;
    let around = run.completed(&Trace::idle(pages)).sent_bytes.get() - pages * PAGE_BYTES - SECTION;
    assert_eq!(around % SECTION, 0, "whole sections");
    around / SECTION
}

#[test]
fn rule_4_1_the_clock_is_looked_at_after_a_step_s_1st_page_and_every_64th_from_there_on() {
    // Pages of 1 ms: 1 ms at the 1st, 65 ms at the 65th, which is the step's last. So ten steps hold 650 pages.
    assert_eq!([650, 651].map(|pages| steps(pages, ms(1))), [10, 11]);
    // Pages of 0.5 ms: 32.5 ms at the 65th, 64.5 ms at the 129th. Five steps hold 645 pages.
    assert_eq!([645, 646].map(|pages| steps(pages, Duration::from_micros(500))), [5, 6]);
    // Pages of 60 ms: the look at the 1st ends each step.
    assert_eq!(steps(3, ms(60)), 3);
}

#[test]
fn rule_4_1_a_step_ends_when_more_than_50_whole_milliseconds_have_passed() {
    // At the 1st page: 50.999 ms count as 50 and let the second page follow, after which none is due; 51 ms do not.
    assert_eq!(steps(2, Duration::from_micros(50_999)), 1);
    assert_eq!(steps(2, ms(51)), 2);
    // At the 65th: 65 × 0.784 ms = 50.96 ms are not over, so a step is 129 pages long; 65 × 0.785 ms = 51.025 ms are.
    assert_eq!([258, 259].map(|pages| steps(pages, Duration::from_micros(784))), [2, 3]);
    assert_eq!([260, 261].map(|pages| steps(pages, Duration::from_micros(785))), [4, 5]);
}

#[test]
fn rule_4_1_holds_where_the_stream_is_flushed_between_two_looks() {
    // 32 pages with data fill the stream's buffer, then come zero pages, all of 1 ms: the second look is after 65 pages all
    // the same, so 130 pages are two steps and one more is a third.
    let mut run = Run::of(Version::V9_0);
    run.settings.downtime_limit = ms(0);
    run.platform.zero_page_cost = ms(1);
    for (pages, steps) in [(130, 2), (131, 3)] {
        let completed = run.completed(&Trace::idle(u64::from(pages)).with_zero(32..pages));
        let sent = 32 * PAGE_BYTES + u64::from(pages - 32) * 9;
        assert_eq!(completed.sent_bytes.get(), sent + steps * SECTION + SECTION);
    }
}

#[test]
fn rule_4_1_holds_where_one_tracked_page_stands_for_several() {
    // One page of 19 is tracked: the 65th page is within the fourth of them, and a step ends there all the same.
    let mut run = Run::of(Version::V9_0);
    run.settings.downtime_limit = ms(0);
    let sent = run.completed(&Trace::idle(40).sampled(19)).sent_bytes.get();
    // Eleven steps of 65 pages and one of 45.
    assert_eq!(sent, 760 * PAGE_BYTES + 12 * SECTION + SECTION);
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
    // After two steps, 130 pages, 101 remain, all zero: 909 bytes on the wire, yet not below a threshold of 100.2 pages.
    let completed = Run::of(Version::V9_0).completed(&Trace::idle(231).with_zero(130..231));
    assert_eq!(completed.iterations[0].sent.zero.get(), 101);
    let completed = Run::of(Version::V9_0).completed(&Trace::idle(230).with_zero(130..230));
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
