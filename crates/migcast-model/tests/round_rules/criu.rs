//! CRIU's pre-dumps in the loop of p.haul. The process has 1536 pages: the first pre-dump takes 1536 ms.

use migcast_model::outcome::StopReason;

use crate::support::{Trace, data_pages, millis, ms};
use crate::{Run, slow_log};

fn run() -> Run {
    Run::of("criu", 4096)
}

fn process(windows: &[&[u32]]) -> Trace {
    Trace { window: ms(512), ..Trace::idle(1536).with_windows(windows) }
}

#[test]
fn rule_r1_a_pre_dump_of_64_pages_or_fewer_is_the_last() {
    for (pages, iterations) in [(64, 3), (65, 4)] {
        let written: Vec<u32> = (0..pages).collect();
        let completed = run().completed(&process(&[&[], &written]));
        assert_eq!((completed.stop_reason, completed.iterations.len()), (StopReason::SmallSet, iterations));
    }
}

#[test]
fn rule_r2_a_pre_dump_more_than_a_tenth_larger_than_the_one_before_is_the_last() {
    // 100 pages in the first pre-dump, `second` while those are sent, from 1536 to 1636 ms.
    let stopped = |second: u32| {
        let (first, second): (Vec<u32>, Vec<u32>) = ((0..100).collect(), (0..second).collect());
        let trace = Trace { window: ms(96), ..Trace::idle(1536) };
        let mut windows: Vec<&[u32]> = vec![&[]; 18];
        (windows[0], windows[16]) = (&first, &second);
        let completed = run().completed(&trace.with_windows(&windows));
        (completed.stop_reason, data_pages(&completed))
    };
    assert_eq!(stopped(111), (StopReason::Growing, vec![1536, 100, 111, 0]));
    assert_eq!(stopped(110), (StopReason::SmallSet, vec![1536, 100, 110, 0, 0]));
}

#[test]
fn rule_r3_at_most_eight_pre_dumps_after_the_first() {
    let always: Vec<u32> = (0..512).collect();
    let completed = run().completed(&process(&[&always[..]; 20]));
    assert_eq!((completed.stop_reason, completed.iterations.len()), (StopReason::MaxRounds, 10));
    assert_eq!(millis(completed.downtime.total()), 512);
}

#[test]
fn rule_r4_the_process_is_frozen_while_pages_are_collected() {
    let always: Vec<u32> = (0..512).collect();
    let trace = process(&[&always[..]; 20]);
    let slow = run().on(slow_log(&trace, ms(1000))).completed(&trace);
    assert_eq!(data_pages(&slow), data_pages(&run().completed(&trace)));
    // The first pre-dump, eight more and the dump.
    assert_eq!(millis(slow.migration_time), 1536 + 9 * 512 + 10 * 1000);
}

#[test]
fn rule_r6_the_first_pre_dump_freezes_too_and_only_the_last_freeze_is_downtime() {
    // 512 pages are written by 512 ms of the process's own time, none of it in the freeze of 1 s before the first pre-dump:
    // all of them are in the second. The second is followed by a third of nothing, and the dump.
    let written: Vec<u32> = (0..512).collect();
    let trace = process(&[&written]);
    let slow = run().on(slow_log(&trace, ms(1000))).completed(&trace);
    assert_eq!(data_pages(&slow), [1536, 512, 0, 0]);
    assert_eq!(millis(slow.migration_time), 1536 + 512 + 4 * 1000);
    assert_eq!((millis(slow.downtime.total()), slow.throttled), (1000, ms(0)));
}

#[test]
fn rule_r5_pages_are_sent_whole_even_if_they_are_zero() {
    let trace = Trace { zero: 0..1000, ..process(&[]) };
    assert_eq!(run().completed(&trace).sent_bytes.get(), 1536 * 4096);
}
