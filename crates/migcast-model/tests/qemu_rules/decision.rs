//! 3 Read the log, go on, or complete (migration_iteration_run).

use migcast_model::algorithm::qemu::Version;
use migcast_model::outcome::StopReason;
use migcast_model::units::{ByteCount, BytesPerSec};

use crate::{Run, Trace, data_pages, millis, ms};

#[test]
fn rule_3_1_the_log_is_read_as_soon_as_the_rest_falls_below_the_threshold() {
    // 400 pages: steps leave 270 (130 ms, threshold 100.2), 205, 140, 75: below, so a sync at 325 ms with 75 unsent.
    // Five pages, sent long ago, were written again: 80 remain, less than the threshold, and go out while stopped.
    for version in Version::ALL {
        let completed = Run::of(version).completed(&Trace::new(400, &[0..5]));
        assert_eq!(data_pages(&completed), [325, 0, 80], "{version:?}");
        assert_eq!(completed.iteration_count, 3);
        assert_eq!(millis(completed.downtime.total()), 80);
        assert_eq!(completed.stop_reason, StopReason::BelowThreshold);
    }
}

#[test]
fn rule_3_2_what_is_unsent_stays_due_and_merges_with_what_was_written() {
    // As above, but the 40 pages written are partly still due (380..400): 20 new ones, 95 in all, no duplicate.
    let completed = Run::of(Version::V9_0).completed(&Trace::new(400, &[0..20, 380..400]));
    assert_eq!(completed.iterations[1].due_at_start.get(), 75 + 20);
}

#[test]
fn rule_3_3_if_too_much_remains_after_the_sync_the_scan_goes_on_where_it_was() {
    // 60 pages at the front were written: 135 remain, above 100.2. The next step starts at page 325: 35 pages, then 40
    // zero pages at the end (360..400), then the front. It looks at the clock after 65 pages (35 ms) and, for the last
    // time, after 129 (89 ms), which leaves six.
    let trace = Trace::new(400, &[0..60]).with_zero(360..400);
    let completed = Run::of(Version::V9_0).completed(&trace);
    assert_eq!(completed.iterations[1].due_at_start.get(), 75 + 60);
    let second = completed.iterations[1].sent;
    assert_eq!(second.zero.get(), 40, "the zero pages ahead of the scan position were sent first");
    assert_eq!(second.data.get(), 35 + 54);
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
    assert_eq!(data_pages(&run.completed(&Trace::idle(130 + 50))), [180, 0, 0]);
    run.version = Version::V10_1;
    assert_eq!(data_pages(&run.completed(&Trace::idle(130 + 50))), [130, 50], "stops at once, no sync before");
}

#[test]
fn rules_3_4_and_3_5_whole_runs_with_a_rest_that_equals_a_measured_threshold() {
    // 7 ms of set-up and two steps of 65 pages close the first window after 137 ms with 533,556 bytes: 3894.57 B/ms. With
    // 61 ms that is a threshold of 237,568 whole bytes, 58 pages exactly, and 58 pages remain.
    for version in Version::ALL {
        let mut run = Run::of(version);
        run.platform.setup = ms(7);
        run.settings.downtime_limit = ms(61);
        let equal = run.completed(&Trace::idle(130 + 58));
        let expected: &[u64] = match version {
            // Reads the log, finds 58 still not below 58, sends them, reads again: nothing is left.
            Version::V8_0 | Version::V8_1 | Version::V8_2 => &[130, 58, 0, 0],
            // Stops at once; the log is read only after that.
            Version::V10_1 => &[130, 58],
            // Sends them, then reads the log: nothing is left.
            _ => &[188, 0, 0],
        };
        assert_eq!(data_pages(&equal), expected, "{version:?}");
        assert_eq!(equal.iteration_count, expected.len() as u64, "{version:?}");
        let stopped_early = version == Version::V10_1;
        let reason = if stopped_early { StopReason::BelowThreshold } else { StopReason::NothingLeft };
        assert_eq!(equal.stop_reason, reason, "{version:?}");
        assert_eq!(millis(equal.downtime.total()), if stopped_early { 58 } else { 0 }, "{version:?}");
        // One page less is below for all, one page more for none.
        assert_eq!(data_pages(&run.completed(&Trace::idle(130 + 57))), [130, 0, 57], "{version:?}");
        assert_eq!(data_pages(&run.completed(&Trace::idle(130 + 59))), [189, 0, 0], "{version:?}");
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
