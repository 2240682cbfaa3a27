//! 10 Post-copy and pause-before-switchover (postcopy_start, migration_completion).

use migcast_model::algorithm::qemu::{Postcopy, UNLIMITED, Version};
use migcast_model::migration::Command;
use migcast_model::outcome::{Completed, StopReason};
use migcast_model::platform::Platform;
use migcast_model::units::{ByteCount, BytesPerSec};

use crate::{PAGE_BYTES, Run, Trace, data_pages, millis, ms};

/// Device state of ten pages, and a target that takes 30 ms.
fn platform() -> Platform {
    Platform { device_state: ByteCount::new(10 * PAGE_BYTES), resume: ms(30), ..Platform::free() }
}

fn run(version: Version, postcopy: Postcopy) -> Run {
    let mut run = Run::of(version);
    run.platform = platform();
    run.settings.postcopy = postcopy;
    run
}

/// Pages 0 to 299 of 1000 are written in the first 100 ms of each second.
fn guest() -> Trace {
    let mut windows = vec![0..0; 30];
    (0..3).for_each(|second| windows[10 * second] = 0..300);
    Trace::new(1000, &windows)
}

#[test]
fn rule_10_1_the_guest_moves_at_the_first_step_after_it_was_asked_for_and_what_is_due_follows() {
    let half = Postcopy { after: Some(ms(500)), ..Postcopy::default() };
    let completed = run(Version::V9_0, half).completed(&guest());
    // Eight steps are 520 ms; then the log is read: 300 pages are due again.
    assert_eq!(completed.stop_reason, StopReason::PostCopy);
    assert_eq!(data_pages(&completed), [520, 780]);
    assert_eq!(millis(completed.downtime.total()), 40, "device state and resume, no pages");
    assert_eq!(millis(completed.downtime_reported), 10, "until the package was sent");
    assert_eq!(millis(completed.migration_time), 520 + 10 + 780);
    assert_eq!(millis(completed.post_copy), 750, "from its first instruction there to its last page");
}

#[test]
fn rule_10_2_or_after_so_many_passes() {
    let passes = |after_passes| {
        let postcopy = Postcopy { after_passes: Some(after_passes), ..Postcopy::default() };
        run(Version::V9_0, postcopy).completed(&guest())
    };
    assert_eq!(data_pages(&passes(0)), [0, 1000], "at once: nothing was sent, and nothing is sent twice");
    // The first pass ends at 910 ms with 90 pages left; 300 were written.
    assert_eq!(data_pages(&passes(1)), [910, 0, 390]);
}

#[test]
fn rule_10_3_max_postcopy_bandwidth_caps_what_follows() {
    // Ten pages and a little a window; a step's first page passes what is left.
    let max_bandwidth = BytesPerSec::new(100 * PAGE_BYTES);
    let capped = Postcopy { after: Some(ms(0)), max_bandwidth, ..Postcopy::default() };
    let slow = run(Version::V7_2, capped).completed(&guest());
    assert!(millis(slow.migration_time) > 1000 * 100 / 11 - 200, "{:?}", slow.migration_time);
    let free = run(Version::V7_2, Postcopy { max_bandwidth: UNLIMITED, ..capped }).completed(&guest());
    assert_eq!(millis(free.migration_time), 10 + 1000);
    assert_eq!(slow.downtime, free.downtime);
}

#[test]
fn rule_10_4_up_to_10_0_completion_comes_first_from_10_1_on_post_copy() {
    // Asked for after the step that ends at 845 ms; at 910 ms the 90 pages that are left would do for completion, too.
    let late = Postcopy { after: Some(ms(900)), ..Postcopy::default() };
    let reason = |version| run(version, late).completed(&Trace::idle(1000)).stop_reason;
    assert_eq!(reason(Version::V10_0), StopReason::BelowThreshold);
    assert_eq!(reason(Version::V10_1), StopReason::PostCopy);
}

#[test]
fn rule_10_5_from_8_0_to_8_2_the_log_is_read_before_every_step_if_post_copy_is_allowed() {
    let never = Postcopy { after: Some(ms(3_600_000)), ..Postcopy::default() };
    let syncs = |version| run(version, never).completed(&Trace::idle(1000)).iteration_count;
    assert_eq!(syncs(Version::V7_2), syncs(Version::V9_0));
    // Fourteen steps until 90 pages are left, a reading before each and before the decision; the first and the last.
    assert_eq!(syncs(Version::V8_0), 15 + 2);
    // The capability is enough.
    let allowed = Postcopy { is_allowed: true, ..Postcopy::default() };
    assert_eq!(run(Version::V8_2, allowed).completed(&Trace::idle(1000)).iteration_count, 15 + 2);
    assert_eq!(run(Version::V8_2, Postcopy::default()).completed(&Trace::idle(1000)).iteration_count, 3);
}

#[test]
fn rule_10_6_the_stopped_guest_waits_for_migrate_continue_while_the_buffer_drains() {
    let mut run_through = run(Version::V9_0, Postcopy::default());
    let before = run_through.completed(&Trace::idle(1000));
    run_through.settings.pause_before_switchover = Some(ms(50));
    let waiting = run_through.completed(&Trace::idle(1000));
    assert_eq!(waiting.downtime.total(), before.downtime.total() + ms(50));
    assert_eq!(waiting.downtime_reported, before.downtime_reported + ms(50));
    // So does one that moves before its memory.
    let mut moving = run(Version::V9_0, Postcopy { after: Some(ms(500)), ..Postcopy::default() });
    let before = moving.completed(&guest()).downtime.total();
    moving.settings.pause_before_switchover = Some(ms(50));
    assert_eq!(moving.completed(&guest()).downtime.total(), before + ms(50));
    // What stands in the sender's buffer reaches the target meanwhile.
    run_through.sender_buffer = 30 * PAGE_BYTES;
    let waiting = run_through.completed(&Trace::idle(1000)).downtime.total();
    run_through.settings.pause_before_switchover = None;
    assert!(waiting < run_through.completed(&Trace::idle(1000)).downtime.total() + ms(50));
}

/// What is said to a migration of [`guest`], which may be moved first.
fn told(postcopy: Postcopy, says: &[(u64, Command)]) -> Completed {
    run(Version::V9_0, postcopy).told(&guest(), says).completed().unwrap().clone()
}

const ALLOWED: Postcopy = Postcopy { is_allowed: true, after: None, after_passes: None, max_bandwidth: UNLIMITED };

#[test]
fn rule_10_7_post_copy_is_refused_where_it_was_not_allowed_from_the_start() {
    let says = [(450, Command::StartPostcopy)];
    assert_eq!(told(ALLOWED, &says).stop_reason, StopReason::PostCopy);
    let refused = told(Postcopy::default(), &says);
    assert_eq!(refused, run(Version::V9_0, Postcopy::default()).completed(&guest()));
    assert_eq!(refused.stop_reason, StopReason::BelowThreshold);
}

#[test]
fn rule_10_8_a_guest_that_was_paused_moves_too_and_has_stood_since_then() {
    // What is said is heard after the flush under way, of 32 pages: in the step that begins at 195 ms at 227 ms, in the one
    // that begins at 455 ms at 487 ms. That one ends at 520 ms, when 480 pages were not sent and 300 have been written.
    let moved = told(ALLOWED, &[(200, Command::PauseGuest), (460, Command::StartPostcopy)]);
    assert_eq!(moved.stop_reason, StopReason::PostCopy);
    assert_eq!(data_pages(&moved), [520, 780]);
    assert_eq!(millis(moved.downtime.total()), (520 - 227) + 10 + 30, "paused, device state, resume");
    assert_eq!(millis(moved.downtime_reported), 10, "from the move on");
    assert_eq!((millis(moved.migration_time), millis(moved.post_copy)), (520 + 10 + 780, 750));
    // Paused in the step after which it moves, with both said at once.
    let both = told(ALLOWED, &[(460, Command::StartPostcopy), (460, Command::PauseGuest)]);
    assert_eq!((both.stop_reason, millis(both.downtime.total())), (StopReason::PostCopy, 33 + 10 + 30));
    // One that has moved is not at the source to be paused, or cancelled.
    let late = told(ALLOWED, &[(460, Command::StartPostcopy), (700, Command::PauseGuest), (800, Command::Cancel)]);
    assert_eq!(late, told(ALLOWED, &[(460, Command::StartPostcopy)]));
}
