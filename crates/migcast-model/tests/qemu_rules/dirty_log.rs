//! 6 Dirty log: when it is read, and when it forgets (migration_bitmap_sync, migration_clear_memory_region_dirty_bitmap).
//!
//! The guest has 512 tracked pages of 1024 each, so that 256 of them are one of the 1 GiB chunks that KVM's manual
//! protection clears, and the link takes one millisecond for each. A step is then 51 tracked pages and one page long (the
//! first look at the clock after 51 ms, which are more than 50), the threshold 100.2 tracked pages (rule 2.4). Without writes:
//!
//! ```text
//!  chunk 0            chunk 1                    53 left: the log is read
//!  0 ms ───────────── 256 ms ─────────────────── 459 ms ─► stop
//! ```
//! With 100 pages of chunk 0 written once they had been sent, 153 are due then, too many:
//!
//! ```text
//!  459 ms read ── the last 53, chunk 1 ── 512 ms ── 0, 1, … of chunk 0 ── 561 ms, 51 left: read, stop
//! ```

use migcast_model::algorithm::qemu::Version;
use migcast_model::due::DirtyLog;
use migcast_model::outcome::Completed;
use migcast_model::units::BytesPerSec;

use crate::{PAGE_PER_MS, Run, Trace, data_pages, millis, ms};

/// Pages a tracked page stands for.
const EACH: u64 = 1024;
const MANUAL: DirtyLog = DirtyLog::KvmManual;
const CLEARED_WHEN_READ: [DirtyLog; 3] = [DirtyLog::Kvm, DirtyLog::Ring, DirtyLog::Tcg];

fn run(log: DirtyLog) -> Run {
    let mut run = Run::of(Version::V9_0);
    run.settings.dirty_log = log;
    run.rate = BytesPerSec::new(PAGE_PER_MS.get() * EACH);
    run
}

/// Two chunks of 256 tracked pages; `windows` lists what is written in each 100 ms.
fn two_chunks(windows: &[&[u32]]) -> Trace {
    Trace::idle(512).sampled(EACH).with_windows(windows)
}

/// Tracked pages sent in each iteration, to the nearest: the one page of each step aside.
fn tracked_pages(completed: &Completed) -> Vec<u64> {
    data_pages(completed).into_iter().map(nearest).collect()
}

fn nearest(pages: u64) -> u64 {
    (pages + EACH / 2) / EACH
}

/// Tracked pages sent in each iteration if the first hundred are written between 200 and 300 ms, and then `later` pages
/// in the windows from 300, 400 and 500 ms on.
fn sent_with_a_second_pass(log: DirtyLog, later: [&[u32]; 3]) -> Vec<u64> {
    let hundred: Vec<u32> = (0..100).collect();
    let completed = run(log).completed(&two_chunks(&[&[], &[], &hundred, later[0], later[1], later[2]]));
    assert_eq!(nearest(completed.iterations[1].due_at_start.get()), 153);
    assert_eq!(millis(completed.iterations[1].start.since(completed.iterations[0].start)), 459);
    assert_eq!(millis(completed.iterations[2].start.since(completed.iterations[0].start)), 561);
    tracked_pages(&completed)
}

#[test]
fn rule_6_1_kvm_ring_and_tcg_forget_what_they_told_as_they_are_read() {
    // Page 5 was told at 459 ms. It is written again at 475 ms, sent at 517 ms with both writes in it, and told again at
    // 561 ms all the same: 51 + 1 pages are left for the stopped guest.
    for log in CLEARED_WHEN_READ {
        assert_eq!(sent_with_a_second_pass(log, [&[], &[0, 5], &[]]), [459, 102, 0, 51 + 1], "{log:?}");
        // What was told once and not written again is not told again.
        assert_eq!(sent_with_a_second_pass(log, [&[], &[], &[]]), [459, 102, 0, 51], "{log:?}");
    }
}

#[test]
fn rule_6_2_manual_protection_forgets_a_chunk_as_its_first_page_is_sent() {
    // As in rule 6.1, but chunk 0 forgets at 512 ms, so the write at 475 ms is forgotten, too.
    assert_eq!(sent_with_a_second_pass(MANUAL, [&[], &[0, 5], &[]]), [459, 102, 0, 51]);
    // A page of chunk 1 is forgotten at 459 ms at once; page 500, written at 475 ms and sent at 500 ms, is told again.
    assert_eq!(sent_with_a_second_pass(MANUAL, [&[], &[0, 500], &[]]), [459, 102, 0, 51 + 1]);
}

#[test]
fn rule_6_3_manual_protection_starts_full_so_the_first_pass_forgets_chunk_by_chunk() {
    // Chunk 0 forgets at 0 ms, chunk 1 at 256 ms. Written before their turns at 125 ms (page 201), 175 ms (page 300) and
    // 275 ms (page 400), and after its turn at 225 ms (page 209): all but page 300 are sent again.
    let trace = two_chunks(&[&[], &[201, 300], &[209, 400]]);
    assert_eq!(tracked_pages(&run(MANUAL).completed(&trace)), [459, 0, 53 + 3]);
    for log in CLEARED_WHEN_READ {
        assert_eq!(tracked_pages(&run(log).completed(&trace)), [459, 0, 53 + 4], "{log:?}: empty at the start");
    }
}

#[test]
fn rule_6_4_manual_protection_forgets_only_what_the_reading_told() {
    // Page 150 was sent at 150 ms and not told at 459 ms. It is written at 475 ms, before chunk 0 forgets at 512 ms, and
    // told at 561 ms.
    assert_eq!(sent_with_a_second_pass(MANUAL, [&[], &[0, 150], &[]]), [459, 102, 0, 51 + 1]);
}

#[test]
fn rule_6_5_manual_protection_forgets_a_chunk_once_per_reading() {
    // Page 45 was told at 459 ms. It is written at 550 ms, after chunk 0 forgot at 512 ms and before its own turn at
    // 557 ms, and told again at 561 ms.
    assert_eq!(sent_with_a_second_pass(MANUAL, [&[], &[], &[45]]), [459, 102, 0, 51 + 1]);
}

#[test]
fn rule_6_6_the_guest_runs_on_while_the_log_is_read_and_stands_when_it_is_read_last() {
    // 2 GiB at 20 ms/GiB: the reading that begins at 459 ms ends at 499 ms and tells of page 5, written at 475 ms, too.
    let mut run = run(DirtyLog::Tcg);
    run.platform.sync_cost_per_gib = ms(20);
    let completed = run.completed(&two_chunks(&[&[], &[], &[], &[], &[0, 5], &[9, 10]]));
    let live = &completed.iterations[1];
    assert_eq!(millis(live.start.since(completed.iterations[0].start)), 499);
    assert_eq!(nearest(live.due_at_start.get()), 53 + 2);
    // The last reading takes 40 ms of the downtime, from 499 to 539 ms. Page 9 would be written at 525 ms.
    assert_eq!(tracked_pages(&completed), [459, 0, 55]);
    assert_eq!(millis(completed.downtime.total()), 40 + 55);
    // Not the set-up's: that is in the platform's set-up time.
    assert_eq!(millis(completed.migration_time), 499 + 40 + 55);
}
