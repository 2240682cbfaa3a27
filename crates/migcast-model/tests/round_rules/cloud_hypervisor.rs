//! Cloud Hypervisor up to 51, and from 52 on. The guest has 2048 pages, so that round 1 lasts 2048 ms.

use std::time::Duration;

use migcast_model::outcome::{Outcome, StopReason};
use migcast_model::platform::Platform;

use crate::Run;
use crate::support::{Trace, data_pages, millis, ms};

fn until_51() -> Run {
    Run::of("cloud-hypervisor-51", 4096)
}

fn from_52() -> Run {
    Run::of("cloud-hypervisor", 4096)
}

/// In each window of 512 ms these pages are written.
fn guest(windows: &[&[u32]]) -> Trace {
    Trace { window: ms(512), ..Trace::idle(2048).with_windows(windows) }
}

/// So many pages are written in each window, for ever.
fn busy(pages: u32) -> Trace {
    let written: Vec<u32> = (0..pages).collect();
    guest(&[&written[..]; 30])
}

#[test]
fn rule_c1_until_51_five_rounds_of_dirty_pages_follow_the_first() {
    let completed = until_51().completed(&busy(512));
    assert_eq!(data_pages(&completed), [2048, 512, 512, 512, 512, 512, 512]);
    assert_eq!(completed.stop_reason, StopReason::MaxRounds);
    let completed = until_51().with("max-dirty-migrations", "1").completed(&busy(512));
    assert_eq!(data_pages(&completed), [2048, 512, 512]);
}

#[test]
fn rule_c2_until_51_it_stops_early_when_nothing_was_written() {
    let completed = until_51().completed(&guest(&[&[], &[5]]));
    assert_eq!(data_pages(&completed)[..2], [2048, 1]);
    assert_eq!(completed.stop_reason, StopReason::NothingLeft);
}

#[test]
fn rule_c3_from_52_on_it_stops_when_the_rest_is_estimated_to_take_no_longer_than_the_downtime() {
    let rounds = |pages: u32| {
        let written: Vec<u32> = (0..pages).collect();
        let completed = from_52().completed(&guest(&[&[], &written]));
        (data_pages(&completed), completed.stop_reason)
    };
    assert_eq!(rounds(300), (vec![2048, 300, 0], StopReason::BelowThreshold));
    assert_eq!(rounds(301), (vec![2048, 301, 0, 0], StopReason::NothingLeft), "sent live, then nothing is left");
    assert_eq!(rounds(0), (vec![2048, 0, 0], StopReason::NothingLeft));
}

#[test]
fn rule_c4_from_52_on_what_the_last_reading_found_is_sent_after_the_stop_twice_if_written_again() {
    // 200 pages in round 1. Stopping takes 512 ms, in which page 7 and page 1999 are written.
    let written: Vec<u32> = (0..200).collect();
    let trace = guest(&[&[], &written, &[], &[], &[7, 1999]]);
    let platform = Platform { stop: ms(512), ..Platform::free() };
    let completed = from_52().on(platform).completed(&trace);
    assert_eq!(data_pages(&completed), [2048, 200, 2]);
    assert_eq!(millis(completed.downtime.total()), 202);
}

#[test]
fn rule_c5_from_52_on_the_timeout_cancels_or_stops_the_guest() {
    // 512 pages in each round of 512 ms: never small enough. Readings at 2048, 2560, 3072 ms …
    let outcome = from_52().with("timeout", "3s").outcome(&busy(512));
    let Outcome::Cancelled(progress) = outcome else { panic!("{outcome:?}") };
    assert_eq!(progress.now.as_millis(), 3072);
    let completed = from_52().with("timeout", "3s").with("timeout-strategy", "ignore").completed(&busy(512));
    assert_eq!(completed.stop_reason, StopReason::Timeout);
    assert_eq!(data_pages(&completed)[..3], [2048, 512, 512], "two rounds; the third reading is sent after the stop");
    assert_eq!(millis(completed.downtime.total()), 512);
}

#[test]
fn rule_c6_from_52_on_the_timeout_runs_from_the_first_page_and_is_looked_at_last() {
    // 100 pages a window, which fit; the timeout has long passed.
    let late = Platform { connect: Duration::from_secs(9), ..Platform::free() };
    let completed = from_52().with("timeout", "1s").on(late.clone()).completed(&busy(100));
    assert_eq!(completed.stop_reason, StopReason::BelowThreshold);
    // Set-up is not in it: readings at 2048 and 2560 ms are before 2.6 s, that at 3072 ms is not.
    let Outcome::Cancelled(progress) = from_52().with("timeout", "2600ms").on(late).outcome(&busy(512)) else {
        panic!("it never fits")
    };
    assert_eq!(progress.now.as_millis(), 9000 + 3072);
}

#[test]
fn rule_c7_pages_are_sent_whole_even_if_they_are_zero() {
    let trace = Trace { zero: 0..1000, ..guest(&[]) };
    for run in [until_51(), from_52()] {
        assert_eq!(run.completed(&trace).sent_bytes.get(), 2048 * 4096);
    }
}

#[test]
fn rule_c8_from_52_on_the_bandwidth_counts_bytes_the_target_has_acknowledged() {
    // A buffer of 512 pages would make round 1 look 512 ms shorter than it was, and 400 pages fit into 300 ms.
    let mut run = from_52();
    run.sender_buffer = 512 * 4096;
    let written: Vec<u32> = (0..330).collect();
    let completed = run.completed(&guest(&[&[], &written]));
    assert_eq!(completed.stop_reason, StopReason::NothingLeft, "330 ms, not 330 × 1536 / 2048");
}
