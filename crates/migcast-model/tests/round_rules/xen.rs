//! Xen 4.6 to 4.9 and 4.10 and later.

use std::time::Duration;

use migcast_model::outcome::{Completed, StopReason};
use migcast_model::platform::Platform;
use migcast_model::units::{ByteCount, PageCount};

use crate::support::{Trace, data_pages, millis, ms};
use crate::{Run, skipped, slow_log};

const PAGE: u64 = 8 + 4096;
const BOTH: [&str; 2] = ["xen-4.6", "xen-4.10"];

fn run(version: &str) -> Run {
    Run::of(version, PAGE)
}

/// A batch and a half, so that round 1 lasts 1536 ms; windows of 512 ms.
fn guest(windows: &[&[u32]]) -> Trace {
    Trace { window: ms(512), ..Trace::idle(1536).with_windows(windows) }
}

/// `pages` pages are written in round 1, once, and those of `then` in the third and fourth window.
fn written_in_round_1(version: &str, pages: u32, then: [&[u32]; 2]) -> Completed {
    let written: Vec<u32> = (0..pages).collect();
    run(version).completed(&guest(&[&[], &written, &[], then[0], then[1]]))
}

#[test]
fn rule_v1_nothing_is_skipped_a_page_written_before_its_turn_goes_out_now_and_again() {
    for version in BOTH {
        // Page 1500 is written at 768 ms, before its batch at 1024 ms.
        let completed = run(version).completed(&guest(&[&[], &[1500]]));
        assert_eq!(data_pages(&completed)[..2], [1536, 1], "{version}");
        assert_eq!(skipped(&completed).iter().sum::<u64>(), 0);
    }
}

#[test]
fn rule_v2_at_most_five_live_rounds() {
    for version in BOTH {
        // 512 pages are written in every window of 512 ms.
        let always: Vec<u32> = (0..512).collect();
        let completed = run(version).completed(&guest(&[&always[..]; 12]));
        assert_eq!(data_pages(&completed), [1536, 512, 512, 512, 512, 512], "{version}");
        assert_eq!(completed.stop_reason, StopReason::MaxRounds);
        let completed = run(version).with("max-iterations", "2").completed(&guest(&[&always[..]; 12]));
        assert_eq!(data_pages(&completed), [1536, 512, 512]);
    }
}

#[test]
fn rule_v3_a_small_set_is_still_sent_live_and_is_the_last() {
    for (version, largest) in [("xen-4.6", 50), ("xen-4.10", 49)] {
        // Page 7 is written while the second round is under way.
        let completed = written_in_round_1(version, largest, [&[], &[]]);
        assert_eq!(data_pages(&completed), [1536, u64::from(largest), 0], "{version}");
        assert_eq!(completed.stop_reason, StopReason::SmallSet);
        let more = largest + 1;
        let completed = written_in_round_1(version, more, [&[], &[]]);
        assert_eq!(data_pages(&completed)[..3], [1536, u64::from(more), 0], "{version} reads once more");
    }
}

#[test]
fn rule_v4_4_6_stops_when_a_reading_finds_nothing() {
    let completed = run("xen-4.6").completed(&guest(&[]));
    assert_eq!(completed.stop_reason, StopReason::NothingLeft);
    let completed = run("xen-4.10").completed(&guest(&[]));
    assert_eq!(completed.stop_reason, StopReason::SmallSet);
}

#[test]
fn rule_v5_the_last_live_round_is_followed_by_one_reading_only_with_the_guest_stopped() {
    for version in BOTH {
        let always: Vec<u32> = (0..512).collect();
        let trace = guest(&[&always[..]; 12]);
        let slow = run(version).on(slow_log(&trace, ms(1000))).completed(&trace);
        // The guest stands still at each reading: four between five rounds, and the last.
        assert_eq!(data_pages(&slow), [1536, 512, 512, 512, 512, 512], "{version}");
        assert_eq!(millis(slow.migration_time), 1536 + 5 * 512 + 5 * 1000);
        assert_eq!(millis(slow.downtime.total()), 1512);
    }
}

#[test]
fn rule_v6_a_batch_is_sixteen_bytes_and_a_page_eight_and_itself_even_if_it_is_zero() {
    for version in BOTH {
        let trace = Trace { zero: 0..1000, ..guest(&[]) };
        assert_eq!(run(version).completed(&trace).sent_bytes.get(), 2 * 16 + 1536 * PAGE);
    }
}

#[test]
fn rule_v7_after_the_stop_everything_written_since_the_last_reading_is_sent() {
    for version in BOTH {
        // 400 pages in round 1; pages 3 and 5 while they are sent, from 1536 to 1936 ms.
        let written: Vec<u32> = (1000..1400).collect();
        let trace = guest(&[&[], &written, &[], &[3]]);
        let completed = run(version).with("max-iterations", "2").completed(&trace);
        assert_eq!(data_pages(&completed), [1536, 400, 1], "{version}");
        assert_eq!(millis(completed.downtime.total()), 1);
    }
}

#[test]
fn rule_v8_the_first_round_takes_its_own_time_too_in_which_the_guest_writes() {
    for version in BOTH {
        let first_round = Platform { first_round: ms(1024), ..Platform::free() };
        // Windows of 512 ms: without it round 1 ends with the third, with it with the fifth.
        let trace = guest(&[&[], &[1, 2], &[], &[3, 4, 5], &[6], &[7, 8, 9, 10]]);
        let completed = run(version).on(first_round).completed(&trace);
        assert_eq!(data_pages(&completed)[..2], [1536, 6], "{version}");
        assert_eq!(completed.iterations[0].end.as_millis(), 1536 + 1024);
        // So do bytes that are no pages: those of 1024 pages take as long.
        let named = Platform { first_round_bytes: ByteCount::new(1024 * PAGE), ..Platform::free() };
        let completed = run(version).on(named).completed(&trace);
        assert_eq!(data_pages(&completed)[..2], [1536, 6], "{version}");
        // The link carries them during the walk: whichever takes longer counts.
        for (walk, pages) in [(1024, 300), (300, 1024)] {
            let first_round_bytes = ByteCount::new(pages * PAGE);
            let both = Platform { first_round: ms(walk), first_round_bytes, ..Platform::free() };
            let completed = run(version).on(both).completed(&trace);
            assert_eq!(completed.iterations[0].end.as_millis(), 1536 + 1024, "{version}");
        }
    }
}

#[test]
fn rule_v9_what_the_guest_writes_to_suspend_itself_is_in_the_last_round() {
    for version in BOTH {
        let suspends = Platform { stop_pages: PageCount::new(250), ..Platform::free() };
        let (with, without) = (run(version).on(suspends), run(version));
        let trace = guest(&[&[], &[1, 2], &[]]);
        let (with, without) = (with.completed(&trace), without.completed(&trace));
        let (mut pages, more) = (data_pages(&without), data_pages(&with));
        *pages.last_mut().unwrap() += 250;
        assert_eq!(more, pages, "{version}");
        assert_eq!(millis(with.downtime.total()), millis(without.downtime.total()) + 250);
    }
}

#[test]
fn rule_v10_a_batch_is_put_together_before_it_is_written() {
    for version in BOTH {
        // A page takes 1 ms on the link and half as long to be put together; there is no buffer.
        let work = Platform { page_cost: Duration::from_micros(500), ..Platform::free() };
        let completed = run(version).on(work).completed(&guest(&[]));
        assert_eq!(completed.iterations[0].end.as_millis(), 1536 + 768, "{version}");
    }
}

#[test]
fn rule_v10_while_a_batch_is_put_together_the_link_carries_what_the_buffer_holds() {
    for version in BOTH {
        // It holds 100 pages: they are carried while the second and the third batch are put together, or are left at the end. The writer wakes
        // when a third of it is free, so that a batch may take 33 pages longer.
        let work = Platform { page_cost: Duration::from_micros(500), ..Platform::free() };
        let memory = Trace { window: ms(512), ..Trace::idle(3 * 1024) };
        let run = Run { sender_buffer: 100 * PAGE, ..run(version) };
        let completed = run.on(work).completed(&memory);
        let ended = completed.iterations[0].end.as_millis();
        assert!((3 * (1024 + 512 - 100u128)).abs_diff(ended.into()) <= 67, "{version}: {ended}");
    }
}

#[test]
fn rule_v11_a_later_round_begins_with_a_walk_in_which_the_guest_writes_and_the_last_with_one_in_which_it_stands() {
    for version in BOTH {
        let walks = Platform { round: ms(512), ..Platform::free() };
        // Windows of 512 ms: three for round 1, the fourth for the walk, the fifth for round 2.
        let written: Vec<u32> = (1000..1512).collect();
        let trace = guest(&[&[], &written, &[], &[3], &[4]]);
        let completed = run(version).with("max-iterations", "2").on(walks).completed(&trace);
        assert_eq!(data_pages(&completed), [1536, 512, 2], "{version}");
        assert_eq!(millis(completed.downtime.total()), 512 + 2);
        assert_eq!(millis(completed.migration_time), 1536 + 512 + 512 + 512 + 2);
    }
}
