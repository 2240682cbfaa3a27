//! Stop-and-copy, and pure post-copy.

use std::time::Duration;

use migcast_model::outcome::StopReason;
use migcast_model::platform::Platform;
use migcast_model::units::ByteCount;

use crate::Run;
use crate::support::{Trace, data_pages, millis, ms};

const PAGE: u64 = 8 + 4096;

/// A guest of 1000 pages, 100 of them zero, that writes all of them all the time.
fn busy() -> Trace {
    let all: Vec<u32> = (200..1000).collect();
    Trace { zero: 0..100, ..Trace::idle(1000).with_windows(&[&all[..]; 20]) }
}

/// Everything that is not pages takes time: 40 ms of it while the guest stands still, 10 of them for 10 pages' worth of
/// device state.
fn platform() -> Platform {
    Platform {
        connect: ms(5),
        setup: ms(20),
        stop: ms(3),
        device_state: ByteCount::new(10 * PAGE),
        resume: ms(30),
        ..Platform::free()
    }
}

#[test]
fn rule_s1_the_stopped_guest_s_memory_is_sent_once() {
    let completed = Run::of("stop-and-copy", PAGE).on(platform()).completed(&busy());
    assert_eq!((completed.sent.data.get(), completed.sent.zero.get()), (900, 100));
    assert_eq!(completed.sent_bytes.get(), 910 * PAGE + 100 * 9);
    assert_eq!(millis(completed.downtime.total()), 940);
    assert_eq!(millis(completed.migration_time), 968);
    assert_eq!((completed.stop_reason, data_pages(&completed).len()), (StopReason::Fixed, 1));
}

#[test]
fn rule_f1_the_downtime_of_post_copy_is_the_device_state_s_alone() {
    let run = Run::of("post-copy", PAGE).on(platform());
    for pages in [1000, 9000] {
        let completed = run.completed(&Trace { pages, ..busy() });
        assert_eq!(completed.downtime.total(), ms(40), "{pages}");
        assert_eq!(completed.stop_reason, StopReason::PostCopy);
    }
}

#[test]
fn rule_f2_post_copy_sends_each_page_once_after_the_guest_has_moved() {
    let completed = Run::of("post-copy", PAGE).on(platform()).completed(&busy());
    assert_eq!((completed.sent.data.get(), completed.sent.zero.get()), (900, 100));
    assert_eq!(completed.sent_bytes.get(), 910 * PAGE + 100 * 9);
    // From 28 ms on 10 ms of device state, then 900 ms of pages; the guest runs again at 68 ms.
    assert_eq!(millis(completed.migration_time), 938);
    assert_eq!(millis(completed.post_copy), 870);
    assert_eq!(completed.throttled, Duration::ZERO);
}
