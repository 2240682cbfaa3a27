//! 3 Read the log, go on, or complete (migration_iteration_run).

use migcast_model::algorithm::qemu::Version;
use migcast_model::outcome::StopReason;
use migcast_model::units::{ByteCount, BytesPerSec};

use crate::{Run, Trace, data_pages, millis, ms};

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
    // In a whole run: a stated threshold of exactly 50 pages and 50 pages left.
    let mut run = Run::of(Version::V10_0);
    run.settings.avail_switchover_bandwidth = Some(BytesPerSec::new(2_048_000));
    assert_eq!(data_pages(&run.completed(&Trace::idle(128 + 50))), [178, 0, 0]);
    run.version = Version::V10_1;
    assert_eq!(data_pages(&run.completed(&Trace::idle(128 + 50))), [128, 50], "stops at once, no sync before");
}

#[test]
fn rules_3_4_and_3_5_whole_runs_with_a_rest_that_equals_a_measured_threshold() {
    // 14 ms of set-up and two steps of 64 pages close the first window after 142 ms with 525,348 bytes: 3699.6 B/ms. With
    // 31 ms that is a threshold of 114,688 whole bytes, 28 pages exactly, and 28 pages remain.
    for version in Version::ALL {
        let mut run = Run::of(version);
        run.platform.setup = ms(14);
        run.settings.downtime_limit = ms(31);
        let equal = run.completed(&Trace::idle(128 + 28));
        let expected: &[u64] = match version {
            // Reads the log, finds 28 still not below 28, sends them, reads again: nothing is left.
            Version::V8_0 | Version::V8_1 | Version::V8_2 => &[128, 28, 0, 0],
            // Stops at once; the log is read only after that.
            Version::V10_1 => &[128, 28],
            // Sends them, then reads the log: nothing is left.
            _ => &[156, 0, 0],
        };
        assert_eq!(data_pages(&equal), expected, "{version:?}");
        assert_eq!(equal.iteration_count, expected.len() as u64, "{version:?}");
        let stopped_early = version == Version::V10_1;
        let reason = if stopped_early { StopReason::BelowThreshold } else { StopReason::NothingLeft };
        assert_eq!(equal.stop_reason, reason, "{version:?}");
        assert_eq!(millis(equal.downtime.total()), if stopped_early { 28 } else { 0 }, "{version:?}");
        // One page less is below for all, one page more for none.
        assert_eq!(data_pages(&run.completed(&Trace::idle(128 + 27))), [128, 0, 27], "{version:?}");
        assert_eq!(data_pages(&run.completed(&Trace::idle(128 + 29))), [157, 0, 0], "{version:?}");
    }
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
