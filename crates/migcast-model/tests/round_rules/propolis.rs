//! Propolis. A chunk that it offers has 32768 pages, one batch of 1024 of them takes 100 ms here: a chunk 3.2 s.

use migcast_model::outcome::StopReason;
use migcast_model::units::BytesPerSec;

use crate::Run;
use crate::support::{Trace, data_pages, millis};

/// 64 tracked pages, each 1024: two chunks.
fn sent(windows: &[(usize, u32)]) -> Vec<u64> {
    let count = windows.iter().map(|(window, _)| window + 1).max().unwrap_or(0);
    let mut written: Vec<Vec<u32>> = vec![Vec::new(); count];
    windows.iter().for_each(|(window, page)| written[*window].push(*page));
    let written: Vec<&[u32]> = written.iter().map(Vec::as_slice).collect();
    let mut run = Run::of("propolis", 4096);
    run.rate = BytesPerSec::new(4096 * 10_240);
    let completed = run.completed(&Trace::idle(64).sampled(1024).with_windows(&written));
    assert_eq!(completed.stop_reason, StopReason::Fixed);
    data_pages(&completed).into_iter().map(|pages| pages / 1024).collect()
}

#[test]
fn rule_p1_one_pass_while_the_guest_runs_and_one_while_it_stands() {
    assert_eq!(sent(&[]), [64, 0]);
    // Page 3 is written at 1.05 s, page 3 again and page 40 at 6.25 s.
    assert_eq!(sent(&[(10, 3), (62, 3), (62, 40)]), [64, 2]);
}

#[test]
fn rule_p2_what_is_written_before_a_chunk_is_offered_is_not_sent_again() {
    // Page 40 is in the second chunk, offered at 3.2 s.
    assert_eq!(sent(&[(31, 40)]), [64, 0]);
    assert_eq!(sent(&[(33, 40)]), [64, 1]);
    assert_eq!(sent(&[(10, 31)]), [64, 1], "in the first chunk, though before its turn");
}

#[test]
fn rule_p3_pages_of_zeros_are_not_offered() {
    let run = Run::of("propolis", 4096);
    let completed = run.completed(&Trace { zero: 0..1000, ..Trace::idle(2048) });
    assert_eq!(completed.sent_bytes.get(), 1048 * 4096);
    assert_eq!(millis(completed.migration_time), 1048);
}
