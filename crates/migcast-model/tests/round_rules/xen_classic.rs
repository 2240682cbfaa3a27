//! Xen 3.0.2 to 4.5. The guest of most tests has three batches, so that round 1 looks into the log at 0, 1024 and 2048 ms:
//!
//! ```text
//!  0 ─ pages 0 … 1023 ─ 1024 ─ 1024 … 2047 ─ 2048 ─ 2048 … 3071 ─ 3072 ms: end of round 1
//! ```

use migcast_model::outcome::{Completed, StopReason};

use crate::support::{Trace, data_pages, millis, ms};
use crate::{Run, skipped, slow_log};

const PAGE: u64 = 8 + 4096;

fn run() -> Run {
    Run::of("xen-classic", PAGE)
}

/// Three batches; in each window of 512 ms these pages are written.
fn three_batches(windows: &[&[u32]]) -> Trace {
    Trace { window: ms(512), ..Trace::idle(3072).with_windows(windows) }
}

/// Page 2000 is written before its batch is put together, page 10 and page 2001 after theirs.
fn before_and_after() -> Trace {
    three_batches(&[&[], &[10, 2000], &[2001]])
}

fn reasons(completed: &Completed) -> (StopReason, usize) {
    (completed.stop_reason, completed.iterations.len())
}

#[test]
fn rule_x1_the_first_round_sends_every_page_and_the_log_starts_empty() {
    let trace = Trace { zero: 0..100, ..three_batches(&[]) };
    let completed = run().completed(&trace);
    assert_eq!(completed.iterations[0].due_at_start.get(), 3072);
    let sent: Vec<u64> = completed.iterations.iter().map(|iteration| iteration.sent.pages().get()).collect();
    assert_eq!((sent, millis(completed.migration_time)), (vec![3072, 0, 0], 3072));
}

#[test]
fn rule_x2_a_page_written_again_before_its_batch_is_left_to_the_next_round() {
    let completed = run().completed(&before_and_after());
    assert_eq!(skipped(&completed), [1, 0, 0]);
    assert_eq!(data_pages(&completed), [3071, 3, 0], "10 and 2001 were sent before they were written again");
}

#[test]
fn rule_x3_the_log_is_looked_into_once_a_batch() {
    // Page 2047 is written at 768 ms, page 2048 at 1280 ms. Page 1500 was skipped, so 2048 is in the second batch, which
    // was put together at 1024 ms: the write is after it.
    let completed = run().completed(&three_batches(&[&[], &[1500], &[2048]]));
    assert_eq!(skipped(&completed), [1, 0, 0]);
    // Without the skipped page it is in the third batch, put together at 2048 ms.
    let completed = run().completed(&three_batches(&[&[], &[], &[2048]]));
    assert_eq!(skipped(&completed), [1, 0, 0]);
    let completed = run().completed(&three_batches(&[&[], &[], &[2047]]));
    assert_eq!(skipped(&completed), [0, 0, 0]);
}

#[test]
fn rule_x3_a_batch_has_1024_pages_where_one_tracked_page_stands_for_several_too() {
    // Eight tracked pages of 300 are three batches, 1024, 1024 and 352, with four bytes and a look of 10 s each. A look
    // more finds round 2 empty, and there are two readings.
    let trace = Trace::idle(8).sampled(300);
    let completed = run().on(slow_log(&trace, ms(10_000))).completed(&trace);
    assert_eq!(completed.sent_bytes.get(), 2400 * PAGE + 3 * 4);
    assert_eq!(millis(completed.migration_time), 2400 + (3 + 1 + 2) * 10_000);
}

#[test]
fn rule_x4_each_look_and_each_reading_pauses_the_guest() {
    let trace = before_and_after();
    let completed = run().on(slow_log(&trace, ms(1000))).completed(&trace);
    assert_eq!(data_pages(&completed), [3071, 3, 0], "the guest has come no further");
    assert_eq!(skipped(&completed), [1, 0, 0]);
    // Looks: three in round 1, one in round 2; readings: after round 1, and after the stop.
    assert_eq!(millis(completed.migration_time), 3071 + 3 + 6 * 1000);
    assert_eq!(millis(completed.downtime.total()), 1000);
}

#[test]
fn rule_x5_a_full_batch_is_followed_by_another_look_unless_it_ends_with_the_memory() {
    // Round 2 has pages 0 to 1023, written while the second batch was under way: a full batch, then an empty one.
    let first: Vec<u32> = (0..1024).collect();
    let trace = Trace { window: ms(512), ..Trace::idle(2048).with_windows(&[&[], &[], &first]) };
    let completed = run().on(slow_log(&trace, ms(1000))).completed(&trace);
    assert_eq!(data_pages(&completed), [2048, 1024, 0, 0]);
    // Looks: two in round 1, two in round 2, one in round 3; readings: three.
    assert_eq!(millis(completed.migration_time), 2048 + 1024 + 8 * 1000);
}

#[test]
fn rule_x6_the_guest_is_stopped_after_29_rounds() {
    // A guest of 16 batches of 100 ms that writes every page every 100 ms: each round sends one batch, skips the rest.
    let all: Vec<u32> = (0..256).collect();
    let windows = vec![&all[..]; 40];
    let mut run = run();
    run.rate = migcast_model::units::BytesPerSec::new(PAGE * 10_240);
    let trace = Trace::idle(256).sampled(64).with_windows(&windows);
    let completed = run.completed(&trace);
    assert_eq!(reasons(&completed), (StopReason::MaxRounds, 30));
    assert_eq!(data_pages(&completed)[..29], [1024; 29]);
    assert_eq!(
        skipped(&completed)[1..29],
        [15 * 1024; 28],
        "skipped pages count for nothing: 3 × 16 batches were not sent"
    );
    assert_eq!(data_pages(&completed)[29], 16 * 1024, "the last round skips nothing");
    let completed = run.with("max-iterations", "7").completed(&trace);
    assert_eq!(reasons(&completed), (StopReason::MaxRounds, 8));
}

#[test]
fn rule_x7_a_round_of_fewer_than_50_pages_sent_or_skipped_is_the_last() {
    let written = |pages: u32| {
        let written: Vec<u32> = (0..pages).collect();
        reasons(&run().completed(&three_batches(&[&[], &[], &written])))
    };
    assert_eq!(written(49), (StopReason::SmallSet, 3), "everything, 49, the stopped guest");
    assert_eq!(written(50), (StopReason::SmallSet, 4), "everything, 50, nothing, the stopped guest");
}

#[test]
fn rule_x8_what_a_round_skipped_counts_as_its_set_too() {
    // 1090 pages are due in round 2, two batches; 50 of the second are written again while the first is under way.
    let (set, again): (Vec<u32>, Vec<u32>) = ((0..1090).collect(), (1035..1085).collect());
    let trace = three_batches(&[&[], &[], &[], &[], &set, &[], &again]);
    let completed = run().with("small-set", "1060").completed(&trace);
    assert_eq!((data_pages(&completed)[1], skipped(&completed)[1]), (1040, 50));
    assert_eq!(completed.iterations.len(), 4, "1040 and 50 are not fewer than 1060: a third round of 50");
}

/// Two batches, and writes that find every page just sent, so that each of `rounds` rounds sends the whole memory.
fn resent(rounds: usize) -> Trace {
    let (low, high): (Vec<u32>, Vec<u32>) = ((0..1024).collect(), (1024..2048).collect());
    let round: [&[u32]; 4] = [&low, &[], &high, &[]];
    Trace { window: ms(512), ..Trace::idle(2048).with_windows(&round.repeat(rounds)) }
}

#[test]
fn rule_x9_no_further_live_round_once_more_than_three_memories_were_sent() {
    let completed = run().completed(&resent(9));
    assert_eq!(data_pages(&completed), [2048; 5], "three memories are not more than three");
    assert_eq!(completed.stop_reason, StopReason::MaxFactor);
    let completed = run().with("max-factor", "1").completed(&resent(9));
    assert_eq!(data_pages(&completed), [2048; 3]);
}

#[test]
fn rule_x10_rounds_are_tested_first_then_the_small_set_then_the_factor() {
    let reason = |settings: &[(&str, &str)]| {
        let run = settings.iter().fold(run(), |run, (key, value)| run.with(key, value));
        reasons(&run.completed(&resent(9)))
    };
    let (small, factor) = (("small-set", "4096"), ("max-factor", "1"));
    assert_eq!(reason(&[("max-iterations", "2"), factor]), (StopReason::MaxRounds, 3));
    assert_eq!(reason(&[("max-iterations", "1"), small]), (StopReason::MaxRounds, 2));
    assert_eq!(reason(&[small, factor]), (StopReason::SmallSet, 2));
}

#[test]
fn rule_x11_after_the_stop_everything_written_since_the_last_reading_is_sent() {
    // After round 1 (3 s) page 7 is written at 3.3 s, while round 2 sends 400 pages; round 2 is small enough by setting.
    let early: Vec<u32> = (1000..1400).collect();
    let completed =
        run().with("small-set", "401").completed(&three_batches(&[&[], &[], &[], &[], &early, &[], &[7, 8]]));
    assert_eq!(data_pages(&completed), [3072, 400, 2]);
    assert_eq!(millis(completed.downtime.total()), 2);
}

#[test]
fn rule_x12_a_batch_is_four_bytes_and_a_page_eight_and_itself_even_if_it_is_zero() {
    let trace = Trace { zero: 0..1000, ..three_batches(&[]) };
    assert_eq!(run().completed(&trace).sent_bytes.get(), 3 * 4 + 3072 * PAGE);
}

#[test]
fn rule_x13_hvm_s_first_round_skips_nothing_but_sends_no_data_of_a_page_written_again() {
    let completed = run().with("guest", "hvm").completed(&before_and_after());
    assert_eq!(skipped(&completed), [0, 0, 0]);
    assert_eq!(data_pages(&completed), [3071, 3, 0]);
    assert_eq!(completed.iterations[0].sent_bytes.get(), 3 * 4 + 3071 * PAGE + 8);
    // From round 2 on pages are skipped as in any other guest.
    let many: Vec<u32> = (0..1100).collect();
    let late = three_batches(&[&[], &[], &[], &[], &many, &[], &[], &[1099]]);
    assert_eq!(skipped(&run().with("guest", "hvm").completed(&late))[1], 1);
}

#[test]
fn rule_x14_an_announced_page_counts_as_sent() {
    // Every page of the second batch is written before it, so round 1 sends half of the memory and announces the rest;
    // counted as one memory, a second round passes a factor of one.
    let high: Vec<u32> = (1024..2048).collect();
    let trace = Trace { window: ms(512), ..Trace::idle(2048).with_windows(&[&high]) };
    let completed = run().with("guest", "hvm").with("max-factor", "1").completed(&trace);
    assert_eq!(data_pages(&completed), [1024, 1024, 0]);
    assert_eq!(completed.stop_reason, StopReason::MaxFactor);
    let completed = run().with("max-factor", "1").completed(&trace);
    assert_eq!(completed.stop_reason, StopReason::SmallSet, "skipped pages do not count");
}

#[test]
fn rule_x15_3_0_2_to_3_2_scan_a_fixed_permutation() {
    // Of 2048 pages the eleven bits rotated left by ten: 0, 1024, 1, 1025, … So page 1100 is in the first batch, and page
    // 600 in the second. Either is written at 768 ms, when the first is under way.
    let skips = |scan: &str, page: u32| {
        let trace = Trace { window: ms(512), ..Trace::idle(2048).with_windows(&[&[], &[page]]) };
        let completed = run().with("scan", scan).completed(&trace);
        assert_eq!(data_pages(&completed).iter().sum::<u64>(), 2049 - skipped(&completed)[0]);
        skipped(&completed)[0]
    };
    assert_eq!([skips("linear", 600), skips("linear", 1100)], [0, 1]);
    assert_eq!([skips("rotated", 600), skips("rotated", 1100)], [1, 0]);
}
