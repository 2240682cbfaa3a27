//! 2 Rate limit and bandwidth estimate (migration_rate_limit, migration_update_counters).

use std::time::Duration;

use migcast_model::algorithm::qemu::Version;
use migcast_model::outcome::StopReason;
use migcast_model::units::BytesPerSec;

use crate::{PAGE_BYTES, Run, Trace, data_pages, millis, ms};

const ENDLESS: BytesPerSec = BytesPerSec::new(1 << 50);

/// Only the budget and the sleep take time: an endlessly fast link, and no rest but nothing stops the guest.
fn capped(version: Version, max_bandwidth: u64) -> Run {
    let mut run = Run::of(version);
    run.settings.max_bandwidth = BytesPerSec::new(max_bandwidth);
    run.settings.downtime_limit = ms(0);
    run.rate = ENDLESS;
    run
}

#[test]
fn rule_2_1_the_page_that_passes_the_budget_is_the_last_of_its_window() {
    // 64 MiB/s: a budget of 6,710,886 bytes a window. 1635 pages take 6,710,040, so the 1636th passes it. QEMU was seen
    // to send exactly 1636 pages per window.
    let run = capped(Version::V7_2, 64 << 20);
    let completed = run.completed(&Trace::idle(1636 * 3));
    assert_eq!(millis(completed.migration_time), 300, "three windows of 1636 pages");
    let completed = run.completed(&Trace::idle(1636 * 3 + 1));
    assert_eq!(millis(completed.migration_time), 300, "one page more goes out at once in the fourth");
    let completed = run.completed(&Trace::idle(1636 * 3 - 1));
    assert_eq!(millis(completed.migration_time), 200, "one page less stays within the third budget");
}

#[test]
fn rule_2_1_what_surrounds_the_pages_counts_against_the_budget_too() {
    // Ten pages are 41,040 bytes, the section around them 18: together they pass 41,057 and just fill 41,058.
    let took = |version, budget: u64| millis(capped(version, budget * 10).completed(&Trace::idle(10)).migration_time);
    for version in Version::ALL {
        assert_eq!(took(version, 41_057), 100, "{version:?}: over the budget, asleep to the window's end");
        assert_eq!(took(version, 41_058), 0, "{version:?}");
    }
}

#[test]
fn rule_2_2_from_8_2_on_the_budget_counts_flushed_bytes() {
    // Flushes hold 32 pages, 131,328 bytes; the 52nd passes the budget of 6,710,886: 1664 pages a window.
    let mut run = capped(Version::V8_2, 64 << 20);
    assert_eq!(millis(run.completed(&Trace::idle(1664 * 2)).migration_time), 200);
    assert_eq!(millis(run.completed(&Trace::idle(1664 * 2 - 32)).migration_time), 100);
    // A budget that the first flush passes: 32 pages a window.
    let single = capped(Version::V8_2, 10_000 * 10);
    assert_eq!(millis(single.completed(&Trace::idle(32)).migration_time), 100);
    assert_eq!(millis(single.completed(&Trace::idle(64)).migration_time), 200);
    // Zero pages between do not hasten it: 40 of them and 32 with data in the first window, the other 32 in the second.
    let mixed = single.completed(&Trace::idle(40 + 64).with_zero(0..40));
    assert_eq!(millis(mixed.migration_time), 200);
    // Up to 8.0 each byte counts, and 8.1 flushes before it counts: the 1636th page is a window's last.
    for version in [Version::V8_0, Version::V8_1] {
        run.version = version;
        assert_eq!(millis(run.completed(&Trace::idle(1636 + 1)).migration_time), 100, "{version:?}");
        assert_eq!(millis(run.completed(&Trace::idle(1636 * 2)).migration_time), 200, "{version:?}");
    }
    run.version = Version::V8_2;
    assert_eq!(millis(run.completed(&Trace::idle(1636 * 2)).migration_time), 100, "8.2: 1664, and 1608 at once");
}

#[test]
fn rule_2_2_from_8_2_on_headers_of_zero_pages_are_flushed_at_32_kib() {
    // Zero pages of 9 bytes: the 3641st fills the buffer of 32,768 bytes, which passes a budget of 10,000. So 3600 pages
    // go out in one window and 7200 in two.
    let mut run = capped(Version::V8_2, 10_000 * 10);
    let took = |run: &Run, pages: u32| {
        let completed = run.completed(&Trace::idle(pages.into()).with_zero(0..pages));
        assert_eq!(completed.sent.zero.get(), u64::from(pages));
        millis(completed.migration_time)
    };
    assert_eq!(took(&run, 3_600), 100);
    assert_eq!(took(&run, 7_200), 200);
    // Up to 8.1 the 1112th page, with 10,008 bytes, is the last of a window: three full ones, and 264 at once.
    for version in [Version::V8_0, Version::V8_1] {
        run.version = version;
        assert_eq!(took(&run, 3_600), 300, "{version:?}");
    }
}

#[test]
fn rule_2_2_from_8_2_on_the_end_of_a_step_flushes_the_rest() {
    // Zero pages of 0.9 ms: a step is 65 of them, 58.5 ms, and holds 585 bytes, far from a buffer. Flushed at its end, with
    // 18 bytes of its section, they pass a budget of 602: 130 pages take two windows. Unflushed, 18 bytes would not, and
    // the second step would follow at once and end at 117 ms.
    let took = |budget: u64| {
        let mut run = capped(Version::V8_2, budget * 10);
        run.platform.zero_page_cost = Duration::from_micros(900);
        millis(run.completed(&Trace::idle(130).with_zero(0..130)).migration_time)
    };
    assert_eq!(took(602), 200);
    assert_eq!(took(603), 117);
}

#[test]
fn rule_2_3_the_threshold_is_zero_until_the_first_window_closes() {
    // 90 pages would fit into the limit of 100 ms at once, but no bandwidth is known before 100 ms: all are sent live.
    let completed = Run::of(Version::V9_0).completed(&Trace::idle(90));
    assert_eq!(data_pages(&completed), [90, 0]);
    assert_eq!(completed.stop_reason, StopReason::NothingLeft);
}

#[test]
fn rule_2_4_a_window_of_100_ms_gives_the_threshold() {
    // Two steps, 533,556 bytes, close a window after 130 ms: 4104.28 B/ms × 100 ms = 410,427 bytes, 100.2 pages of 4096.
    // Of 231 pages 101 remain then, so a third step follows; of 230 pages 100 remain, which go out while the guest is
    // stopped.
    assert_eq!(data_pages(&Run::of(Version::V9_0).completed(&Trace::idle(231))), [195, 0, 36]);
    assert_eq!(data_pages(&Run::of(Version::V9_0).completed(&Trace::idle(230))), [130, 0, 100]);
}

#[test]
fn rule_2_4_a_faster_window_raises_the_threshold() {
    // The first window closes after 60 ms of set-up and a step of 65 pages with a threshold of 52.1 pages (rule 1.4). The
    // second has two steps, 533,556 bytes in 130 ms, and raises it to 100.2 pages; both windows' bytes in the second's
    // time would make it 150.
    let mut run = Run::of(Version::V9_0);
    run.platform.setup = ms(60);
    assert_eq!(data_pages(&run.completed(&Trace::idle(65 + 130 + 100))), [195, 0, 100]);
    assert_eq!(data_pages(&run.completed(&Trace::idle(65 + 130 + 101))), [260, 0, 36]);
}

#[test]
fn rule_2_4_a_slower_window_lowers_the_threshold() {
    // 130 pages with data close the first window with a threshold of 100.2 pages, then come 260 zero pages of 1 ms: two
    // steps with 1206 bytes in 130 ms close the second window with 927 bytes, less than one page. So the 130 zero pages
    // that remain then, and 65 a step later, are all sent; with the first threshold 65 would be left.
    let mut run = Run::of(Version::V9_0);
    run.platform.zero_page_cost = ms(1);
    let completed = run.completed(&Trace::idle(390).with_zero(130..390));
    let zero: Vec<u64> = completed.iterations.iter().map(|iteration| iteration.sent.zero.get()).collect();
    assert_eq!(zero, [260, 0, 0]);
}

#[test]
fn rule_2_5_the_estimate_sees_bytes_accepted_not_bytes_delivered() {
    // The sender makes two pages in a millisecond, the link carries one, and the buffer takes the rest. Steps are 129 pages
    // long, 64.5 ms; two close the window with 1,058,868 bytes in 129 ms, a threshold of 200.4 pages, where the link
    // carries 100 in the limit's 100 ms.
    let mut run = Run::of(Version::V9_0);
    run.platform.page_cost = Duration::from_micros(500);
    run.sender_buffer = 1000 * PAGE_BYTES;
    let completed = run.completed(&Trace::idle(258 + 200));
    assert_eq!(data_pages(&completed), [258, 0, 200]);
    assert_eq!(data_pages(&run.completed(&Trace::idle(258 + 201))), [387, 0, 72]);
    // Stopped at 129 ms, the guest waits until the link has carried all 458 pages.
    assert_eq!(millis(completed.downtime.pages), 100);
    assert_eq!(millis(completed.downtime.total()), 458 - 129);
}

#[test]
fn rule_2_6_avail_switchover_bandwidth_replaces_the_measurement_from_8_2_on() {
    // 2,048,999 B/s are 2048 whole bytes per millisecond: a threshold of 50 pages exactly.
    let mut run = Run::of(Version::V9_0);
    run.settings.avail_switchover_bandwidth = Some(BytesPerSec::new(2_048_999));
    assert_eq!(data_pages(&run.completed(&Trace::idle(130 + 49))), [130, 0, 49]);
    assert_eq!(data_pages(&run.completed(&Trace::idle(130 + 50))), [180, 0, 0], "50 pages are not below 50");
    // 60 pages lie between the 50 stated and the 100.2 measured.
    for version in Version::ALL {
        run.version = version;
        let expected = if version >= Version::V8_2 { [190, 0, 0] } else { [130, 0, 60] };
        assert_eq!(data_pages(&run.completed(&Trace::idle(130 + 60))), expected, "{version:?}");
    }
}

#[test]
fn rule_2_7_a_thread_over_its_budget_sleeps_to_the_window_s_end() {
    let mut run = Run::of(Version::V7_2);
    run.settings.max_bandwidth = BytesPerSec::new(10 * PAGE_BYTES * 10); // ten pages a window
    run.settings.downtime_limit = ms(0);
    let completed = run.completed(&Trace::idle(33));
    // The 11th page passes the budget: 11 pages and 89 ms of sleep, three times.
    assert_eq!(millis(completed.migration_time), 300);
}

#[test]
fn rule_2_8_a_window_lasts_100_ms_by_a_clock_of_whole_milliseconds() {
    // Pages of 0.775 ms: 65 take 50.4 ms, not over 50 (rule 4.1), so the first step is 129 long and ends at 99.98 ms, when
    // 99 whole ones have passed: the window stays open, no threshold is known, and the second step sends the 100 pages
    // that remain.
    let mut run = Run::of(Version::V9_0);
    run.rate = BytesPerSec::new(PAGE_BYTES * 1_000_000 / 775);
    assert_eq!(data_pages(&run.completed(&Trace::idle(229))), [229, 0, 0]);
    // After 0.9 ms of connecting the window opens at millisecond 0 still, and the step ends at 100.88 ms: 529,434 bytes
    // in 100 ms are a threshold of 129.3 pages.
    run.platform.connect = Duration::from_micros(900);
    assert_eq!(data_pages(&run.completed(&Trace::idle(229))), [129, 0, 100]);
}
