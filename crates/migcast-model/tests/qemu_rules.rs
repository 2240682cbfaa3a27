//! QEMU's rules, each with a trace computed by hand. Section numbers are those of docs/model.md ("QEMU's rules").
//!
//! Unless a test says otherwise the platform costs nothing, the link takes exactly one millisecond a page (4104 bytes)
//! and nothing stands in the sender's buffer, so that page counts are milliseconds. A step is then 64 pages long: QEMU
//! looks at the clock every 64 pages and 64 ms are more than 50 ms.

#![allow(clippy::single_range_in_vec_init, reason = "traces list ranges of pages")]
#![allow(clippy::unwrap_used, reason = "a test may")]

use std::ops::Range;
use std::time::Duration;

use migcast_model::algorithm::qemu::{Qemu, Settings, UNLIMITED, Version};
use migcast_model::dirty::{PageReplay, PageReplayBuilder};
use migcast_model::due::{Bitmap, DirtyLog};
use migcast_model::guest::Guest;
use migcast_model::link::Link;
use migcast_model::outcome::{Completed, Outcome, StopReason};
use migcast_model::platform::Platform;
use migcast_model::simulate::simulate;
use migcast_model::units::{ByteCount, BytesPerSec, PageCount, SimTime};

const PAGE_BYTES: u64 = 4104;
const PAGE_PER_MS: BytesPerSec = BytesPerSec::new(PAGE_BYTES * 1000);
const SECTION: u64 = 18;

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A guest of `pages` pages and what it writes in each 100 ms, after which it rests (for a minute).
struct Trace {
    pages: u64,
    zero: Range<u32>,
    windows: Vec<Vec<u32>>,
}

impl Trace {
    fn new(pages: u64, windows: &[Range<u32>]) -> Trace {
        Trace { pages, zero: 0..0, windows: windows.iter().map(|range| range.clone().collect()).collect() }
    }

    fn idle(pages: u64) -> Trace {
        Trace::new(pages, &[])
    }

    fn with_zero(self, zero: Range<u32>) -> Trace {
        Trace { zero, ..self }
    }

    fn source(&self) -> PageReplay {
        let mut builder = PageReplayBuilder::new(PageCount::new(self.pages), PageCount::new(self.pages));
        builder.zero_at_start(std::iter::once(self.zero.clone()));
        self.windows.iter().for_each(|written| builder.window(ms(100), written, &[]));
        (0..600).for_each(|_| builder.window(ms(100), &[], &[]));
        builder.build().unwrap()
    }
}

/// One migration, everything adjustable.
struct Run {
    version: Version,
    settings: Settings,
    platform: Platform,
    rate: BytesPerSec,
    sender_buffer: u64,
}

impl Run {
    fn of(version: Version) -> Run {
        let settings = Settings {
            max_bandwidth: UNLIMITED,
            downtime_limit: ms(100),
            dirty_log: DirtyLog::Tcg,
            ..Settings::default()
        };
        Run { version, settings, platform: Platform::free(), rate: PAGE_PER_MS, sender_buffer: 0 }
    }

    fn outcome(&self, trace: &Trace) -> Outcome {
        let source = trace.source();
        let guest = Guest { name: "trace".into(), memory: PageCount::new(trace.pages), page_size: Guest::PAGE_SIZE };
        let link = Link { line_rate: self.rate, payload_share: 1.0, sender_buffer: ByteCount::new(self.sender_buffer) };
        let due = Bitmap::new(&source, Duration::ZERO, self.settings.dirty_log);
        let qemu = Qemu::new(self.version.rules(), self.settings, guest, &link, self.platform.clone(), due);
        simulate(qemu, link.goodput(), SimTime::from_nanos(60_000_000_000))
    }

    fn completed(&self, trace: &Trace) -> Completed {
        match self.outcome(trace) {
            Outcome::Completed(completed) => completed,
            Outcome::NotConverged(progress) => panic!("did not converge: {progress:?}"),
        }
    }
}

fn data_pages(completed: &Completed) -> Vec<u64> {
    completed.iterations.iter().map(|iteration| iteration.sent.data.get()).collect()
}

fn millis(duration: Duration) -> u64 {
    (duration + Duration::from_micros(500)).as_millis() as u64
}

// ---- 1 Life of a migration ----

#[test]
fn rule_1_1_total_time_counts_from_the_request_so_connecting_is_in_it() {
    let mut run = Run::of(Version::V9_0);
    let without = run.completed(&Trace::idle(10)).migration_time_reported;
    run.platform.connect = ms(70);
    assert_eq!(run.completed(&Trace::idle(10)).migration_time_reported, without + ms(70));
}

#[test]
fn rule_1_2_every_page_is_due_at_the_first_sync_which_counts() {
    let completed = Run::of(Version::V9_0).completed(&Trace::idle(400).with_zero(0..100));
    assert_eq!(completed.iterations[0].due_at_start.get(), 400, "zero pages are due, too");
    assert_eq!(completed.sent.pages().get(), 400);
    // Set-up, one below the threshold, one while stopped.
    assert_eq!(completed.iteration_count, 3);
}

#[test]
fn rule_1_3_the_log_starts_in_set_up_so_what_was_written_while_connecting_is_not_in_it() {
    let trace = Trace::new(10, &[0..5]);
    let mut run = Run::of(Version::V9_0);
    assert!(run.completed(&trace).sent.data.get() > 10, "written from the request on: sent twice");
    run.platform.connect = ms(100);
    assert_eq!(run.completed(&trace).sent.data.get(), 10, "written before the log: sent once");
}

#[test]
fn rule_1_4_the_first_bandwidth_window_opens_before_set_up() {
    // 60 ms of set-up and one step of 64 pages close the first window at 124 ms: half the link's rate, so a threshold of
    // 52 pages. Without set-up the first window has two steps and gives 100 pages.
    let mut run = Run::of(Version::V9_0);
    run.platform.setup = ms(60);
    // After the step 60 pages remain: above 52, so a second step sends them all; below 100 it would stop at once.
    let completed = run.completed(&Trace::idle(124));
    assert_eq!(data_pages(&completed), [124, 0, 0]);
}

// ---- 2 Rate limit and bandwidth estimate ----

#[test]
fn rule_2_1_the_page_that_passes_the_budget_is_the_last_of_its_window() {
    // 64 MiB/s: a budget of 6,710,886 bytes a window. 1635 pages take 6,710,040, so the 1636th passes it. QEMU was seen
    // to send exactly 1636 pages per window. The link is endlessly fast: only the budget and the sleep take time.
    let mut run = Run::of(Version::V7_2);
    run.settings.max_bandwidth = BytesPerSec::new(64 << 20);
    run.settings.downtime_limit = ms(0);
    run.rate = BytesPerSec::new(1 << 50);
    let completed = run.completed(&Trace::idle(1636 * 3));
    assert_eq!(millis(completed.migration_time), 300, "three windows of 1636 pages");
    let completed = run.completed(&Trace::idle(1636 * 3 + 1));
    assert_eq!(millis(completed.migration_time), 300, "one page more goes out at once in the fourth");
    let completed = run.completed(&Trace::idle(1636 * 3 - 1));
    assert_eq!(millis(completed.migration_time), 200, "one page less stays within the third budget");
}

#[test]
fn rule_2_2_from_8_1_on_the_budget_counts_flushed_bytes() {
    // Flushes hold 32 pages, 131,328 bytes; the 52nd passes the budget of 6,710,886: 1664 pages a window.
    let mut run = Run::of(Version::V8_1);
    run.settings.max_bandwidth = BytesPerSec::new(64 << 20);
    run.settings.downtime_limit = ms(0);
    run.rate = BytesPerSec::new(1 << 50);
    assert_eq!(millis(run.completed(&Trace::idle(1664 * 2)).migration_time), 200);
    assert_eq!(millis(run.completed(&Trace::idle(1664 * 2 - 32)).migration_time), 100);
    run.version = Version::V8_0;
    assert_eq!(millis(run.completed(&Trace::idle(1664 * 2)).migration_time), 200, "8.0: two windows of 1636, a third");
    assert_eq!(millis(run.completed(&Trace::idle(1636 * 2)).migration_time), 200);
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
    // Two steps close a window after 128 ms: 4104.28 B/ms × 100 ms = 410,428 bytes, 100.2 pages of 4096. Of 229 pages
    // 101 remain then, so a third step follows; of 228 pages 100 remain, which go out while the guest is stopped.
    assert_eq!(data_pages(&Run::of(Version::V9_0).completed(&Trace::idle(229))), [192, 0, 37]);
    assert_eq!(data_pages(&Run::of(Version::V9_0).completed(&Trace::idle(228))), [128, 0, 100]);
}

#[test]
fn rule_2_5_the_estimate_sees_bytes_accepted_not_bytes_delivered() {
    // The sender's buffer takes 100 pages. Looks at the clock after 64, 128, 192 and 256 pages, at 0, 28, 92 and 156 ms:
    // the first step ends at the third, the second at the fourth, which closes the window. 256 pages in 156 ms make a
    // threshold of 164 pages where the link carries 100 in the limit's 100 ms.
    let mut run = Run::of(Version::V9_0);
    run.sender_buffer = 100 * PAGE_BYTES;
    let completed = run.completed(&Trace::idle(256 + 160));
    assert_eq!(data_pages(&completed), [256, 0, 160]);
    assert_eq!(millis(completed.downtime.total()), 160 + 100, "the pages, then what stood in the buffer");
}

#[test]
fn rule_2_6_avail_switchover_bandwidth_replaces_the_measurement_from_8_2_on() {
    // 2,048,999 B/s are 2048 whole bytes per millisecond: a threshold of 50 pages exactly.
    let mut run = Run::of(Version::V9_0);
    run.settings.avail_switchover_bandwidth = Some(BytesPerSec::new(2_048_999));
    assert_eq!(data_pages(&run.completed(&Trace::idle(128 + 49))), [128, 0, 49]);
    assert_eq!(data_pages(&run.completed(&Trace::idle(128 + 50))), [178, 0, 0], "50 pages are not below 50");
    run.version = Version::V8_0;
    assert_eq!(data_pages(&run.completed(&Trace::idle(128 + 50))), [128, 0, 50], "8.0 has no such setting");
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

// ---- 3 Sync, go on, or complete ----

#[test]
fn rule_3_1_the_log_is_read_as_soon_as_the_rest_falls_below_the_threshold() {
    // 400 pages: steps leave 272 (128 ms, threshold 100.2), 208, 144, 80: below, so a sync at 320 ms with 80 unsent.
    // Five pages, sent long ago, were written again: 85 remain, less than the threshold, and go out while stopped.
    for version in Version::ALL {
        let completed = Run::of(version).completed(&Trace::new(400, &[0..5]));
        assert_eq!(data_pages(&completed), [320, 0, 85], "{version:?}");
        assert_eq!(completed.iteration_count, 3);
        assert_eq!(millis(completed.downtime.total()), 85);
        assert_eq!(completed.stop_reason, StopReason::BelowThreshold);
    }
}

#[test]
fn rule_3_2_what_is_unsent_stays_due_and_merges_with_what_was_written() {
    // As above, but the 40 pages written are partly still due (380..400): 20 new ones, 100 in all, no duplicate.
    let completed = Run::of(Version::V9_0).completed(&Trace::new(400, &[0..20, 380..400]));
    assert_eq!(completed.iterations[1].due_at_start.get(), 100);
}

#[test]
fn rule_3_3_if_too_much_remains_after_the_sync_the_scan_goes_on_where_it_was() {
    // 60 pages at the front were written: 140 remain, above 100.2. The next step starts at page 320, where 40 zero
    // pages lie at the end (360..400): they come before the pages at the front.
    let trace = Trace::new(400, &[0..60]).with_zero(360..400);
    let completed = Run::of(Version::V9_0).completed(&trace);
    assert_eq!(completed.iterations[1].due_at_start.get(), 140);
    let second = completed.iterations[1].sent;
    assert_eq!(second.zero.get(), 40, "the zero pages ahead of the scan position were sent first");
    assert!(second.data.get() < 60 + 40);
}

#[test]
fn rule_3_4_from_8_0_to_8_2_an_equal_rest_is_synced_too() {
    for version in Version::ALL {
        let syncs = version.rules().needs_sync(ByteCount::new(4096), ByteCount::new(4096));
        assert_eq!(syncs, (Version::V8_0..=Version::V8_2).contains(&version), "{version:?}");
        assert!(version.rules().needs_sync(ByteCount::new(4095), ByteCount::new(4096)));
        assert!(!version.rules().needs_sync(ByteCount::new(4097), ByteCount::new(4096)));
    }
}

#[test]
fn rule_3_5_from_10_1_on_an_equal_rest_completes() {
    for version in Version::ALL {
        let stops = version.rules().stops(ByteCount::new(4096), ByteCount::new(4096));
        let expected = (version >= Version::V10_1).then_some(StopReason::BelowThreshold);
        assert_eq!(stops, expected, "{version:?}");
        assert!(version.rules().stops(ByteCount::new(4097), ByteCount::new(4096)).is_none());
        assert!(version.rules().stops(ByteCount::new(4095), ByteCount::new(4096)).is_some());
        assert_eq!(version.rules().stops(ByteCount::ZERO, ByteCount::ZERO), Some(StopReason::NothingLeft));
    }
    // In a whole run: a threshold of exactly 50 pages and 50 pages left.
    let mut run = Run::of(Version::V10_0);
    run.settings.avail_switchover_bandwidth = Some(BytesPerSec::new(2_048_000));
    assert_eq!(data_pages(&run.completed(&Trace::idle(128 + 50))), [178, 0, 0]);
    run.version = Version::V10_1;
    assert_eq!(data_pages(&run.completed(&Trace::idle(128 + 50))), [128, 50], "stops at once, no sync before");
}

#[test]
fn rule_3_6_all_sent_in_the_first_window_completes_without_another_sync() {
    // The guest writes all the while; still only set-up and the final reading, except in 8.0 to 8.2 (0 <= 0).
    let trace = Trace::new(90, &[0..20]);
    for version in Version::ALL {
        let completed = Run::of(version).completed(&trace);
        if (Version::V8_0..=Version::V8_2).contains(&version) {
            assert!(completed.iteration_count > 2, "{version:?}");
        } else {
            assert_eq!(completed.iteration_count, 2, "{version:?}");
            assert_eq!(data_pages(&completed), [90, 18], "18 of 20 were written within 90 ms");
        }
    }
}

#[test]
fn rule_3_7_it_never_gives_up_by_itself() {
    // 150 pages rewritten every 100 ms over a link that carries 100 in that time.
    let trace = Trace::new(400, &vec![0..150; 600]);
    let outcome = Run::of(Version::V9_0).outcome(&trace);
    assert!(outcome.completed().is_none());
    assert_eq!(outcome.stop_reason(), "not-converged");
}

// ---- 4 One step ----

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
}

#[test]
fn rule_4_1_holds_where_one_tracked_page_stands_for_several() {
    // One page of 19 is tracked: the count steps over the 64th page, and the clock is looked at all the same.
    let mut builder = PageReplayBuilder::new(PageCount::new(40), PageCount::new(760));
    builder.window(ms(60_000), &[], &[]);
    let source = builder.build().unwrap();
    let run = Run::of(Version::V9_0);
    let guest = Guest { name: "sample".into(), memory: PageCount::new(760), page_size: Guest::PAGE_SIZE };
    let link = Link { line_rate: PAGE_PER_MS, payload_share: 1.0, sender_buffer: ByteCount::ZERO };
    let settings = Settings { downtime_limit: ms(0), ..run.settings };
    let due = Bitmap::new(&source, Duration::ZERO, DirtyLog::Tcg);
    let qemu = Qemu::new(run.version.rules(), settings, guest, &link, Platform::free(), due);
    let outcome = simulate(qemu, link.goodput(), SimTime::from_nanos(60_000_000_000));
    let sent = outcome.completed().unwrap().sent_bytes.get();
    // Four tracked pages (76) pass the 64th: ten steps of 76 pages.
    assert_eq!(sent, 760 * PAGE_BYTES + 10 * SECTION + SECTION);
}

#[test]
fn rule_4_2_a_page_written_before_its_turn_is_sent_and_sent_again() {
    // Page 300 is written at 50 ms, sent at 300 ms, and due once more: QEMU does not skip it.
    let trace = Trace { windows: vec![vec![300]], ..Trace::idle(400) };
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

// ---- 5 Completion, downtime, totals ----

#[test]
fn rule_5_1_the_cap_does_not_hold_while_the_guest_is_stopped() {
    // The cap lets 11 pages out per window; the threshold is 11 windows' worth: 12 pages. They take 12 ms, not 100.
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
    // Nothing is written before the decision at 128 ms; 50 pages between 200 and 300 ms, 14 of them before the stop.
    let completed = run.completed(&Trace::new(228, &[0..0, 0..0, 0..50]));
    assert_eq!(data_pages(&completed), [128, 0, 100 + 14]);
}

#[test]
fn rule_5_3_reported_downtime_ends_with_the_source_s_last_byte_the_guest_s_on_the_target() {
    let mut run = Run::of(Version::V9_0);
    run.sender_buffer = 10 * PAGE_BYTES;
    run.platform.stop = ms(5);
    run.platform.device_state_cost = ms(20);
    run.platform.resume = ms(40);
    let completed = run.completed(&Trace::idle(400));
    let parts = completed.downtime;
    assert_eq!(completed.downtime_reported.as_millis(), (ms(5) + parts.pages + parts.device_state).as_millis());
    assert_eq!(millis(parts.device_state), 20);
    assert_eq!(millis(parts.resume), 40);
    // While the device state was saved the buffer drained; what is left of it is the state itself.
    assert!(parts.drain < ms(1), "{parts:?}");
    run.platform.device_state_cost = ms(0);
    assert_eq!(millis(run.completed(&Trace::idle(400)).downtime.drain), 10);
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
    // At 320 ms the guest has lived 80 ms and written 40 pages: 120 remain, too many, and one more step follows. At
    // 384 ms it has lived 96 ms and written 48 of the first window's 50 pages; then it is stopped.
    assert_eq!(run.completed(&trace).sent.data.get(), 448);
}
