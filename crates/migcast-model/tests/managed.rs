//! What a manager says while a migration runs changes how it ends.

#![allow(clippy::single_range_in_vec_init, reason = "traces list ranges of pages")]
#![allow(clippy::unwrap_used, reason = "a test may")]

#[path = "support/mod.rs"]
mod support;

use std::time::Duration;

use migcast_model::algorithm::{Algorithm, Request};
use migcast_model::due::{Bitmap, DirtyLog, Tracking};
use migcast_model::guest::Guest;
use migcast_model::link::Link;
use migcast_model::manager::{Choice, Managed};
use migcast_model::migration::Command;
use migcast_model::outcome::{Outcome, StopReason};
use migcast_model::platform::Platform;
use migcast_model::simulate::{Scenario, simulate};
use migcast_model::units::{ByteCount, BytesPerSec, SimTime};

use support::{Script, Trace, data_pages, millis, ms};

/// A page of 4104 bytes a millisecond.
const RATE: BytesPerSec = BytesPerSec::new(4_104_000);

/// A guest that writes 300 of its 1000 pages all the time, for 20 s: with a limit of 100 ms it does not fit.
fn trace() -> Trace {
    Trace::new(1000, &vec![0..300; 200])
}

fn algorithm() -> Algorithm {
    let mut algorithm = Algorithm::named("qemu-9.0").unwrap().on_accelerator("tcg");
    algorithm.set("downtime-limit", "100ms").unwrap();
    algorithm.set("max-bandwidth", "none").unwrap();
    algorithm.set("postcopy-ram", "on").unwrap();
    algorithm
}

fn link() -> Link {
    Link { line_rate: RATE, payload_share: 1.0, sender_buffer: ByteCount::ZERO }
}

/// The migration of [`trace`] to which this is said so many milliseconds after its request.
fn told(at: u64, command: Command) -> Outcome {
    let (trace, link) = (trace(), link());
    let source = trace.source();
    let guest = Guest { name: "g".into(), memory: trace.memory(), page_size: Guest::PAGE_SIZE };
    let tracking = Tracking { log: DirtyLog::Tcg, ..Tracking::default() };
    let due = Bitmap::tracking(&source, Duration::ZERO, tracking);
    let request = Request { guest: &guest, link: &link, platform: &Platform::free(), first_pass: None };
    let migration = algorithm().migration(&request, Box::new(due));
    simulate(Managed::new(migration, Script::new(&[(at, command)])), RATE, SimTime::ZERO + ms(15_000))
}

fn completed(outcome: Outcome) -> migcast_model::outcome::Completed {
    outcome.completed().unwrap_or_else(|| panic!("{outcome:?}")).clone()
}

#[test]
fn nothing_said_it_does_not_converge() {
    let outcome = told(5000, Command::DowntimeLimit(ms(100)));
    assert!(matches!(outcome, Outcome::NotConverged(_)), "{outcome:?}");
}

#[test]
fn another_downtime_limit_holds_from_the_next_window_on() {
    // In the middle of a pass of 300 pages: the window that is open then gives the new threshold of 320 pages.
    let done = completed(told(5000, Command::DowntimeLimit(ms(320))));
    assert_eq!(done.stop_reason, StopReason::BelowThreshold);
    let stopped = millis(done.migration_time) - millis(done.downtime.total());
    assert!((5000..5300).contains(&stopped), "stopped at {stopped} ms");
    let sooner = completed(told(2000, Command::DowntimeLimit(ms(320))));
    assert!(millis(sooner.migration_time) < 2700);
}

#[test]
fn a_paused_guest_is_down_from_then_on_and_writes_no_more() {
    let done = completed(told(5000, Command::PauseGuest));
    let paused_at = millis(done.migration_time) - millis(done.downtime.total());
    assert!((5000..5066).contains(&paused_at), "at the end of the step: {paused_at} ms");
    // What was due then, and what had been written since the last reading: 300 pages each at most.
    assert!(millis(done.downtime.total()) <= 601, "{:?}", done.downtime);
    assert_eq!(*data_pages(&done).last().unwrap(), done.iterations.last().unwrap().due_at_start.get());
}

#[test]
fn post_copy_moves_the_guest_and_cancelling_keeps_it() {
    let done = completed(told(5000, Command::StartPostcopy));
    assert_eq!((done.stop_reason, millis(done.downtime.total())), (StopReason::PostCopy, 0));
    assert!(done.post_copy > ms(200));
    let outcome = told(5000, Command::Cancel);
    let Outcome::Cancelled(progress) = outcome else { panic!("{outcome:?}") };
    assert!((5000..5066).contains(&progress.now.as_millis()));
    assert_eq!(outcome.stop_reason(), "cancelled");
}

/// The same guest under a manager of the table with these settings.
fn managed(manager: &str, settings: &[(&str, &str)]) -> Outcome {
    managed_guest(&trace(), manager, settings)
}

/// Any guest.
fn managed_guest(trace: &Trace, manager: &str, settings: &[(&str, &str)]) -> Outcome {
    let mut manager = Choice::named(manager).unwrap();
    settings.iter().for_each(|(key, value)| manager.set(key, value).unwrap());
    let guest = Guest { name: "g".into(), memory: trace.memory(), page_size: Guest::PAGE_SIZE };
    let algorithm = algorithm().managed_by(manager, &guest).unwrap();
    let horizon = Duration::from_secs(15);
    Scenario { guest, link: link(), platform: Platform::free(), algorithm, horizon }
        .run(&trace.source(), Duration::ZERO)
}

#[test]
fn a_manager_s_timeout_ends_what_would_not_end() {
    assert!(matches!(managed("libvirt", &[]), Outcome::NotConverged(_)));
    let done = completed(managed("libvirt", &[("timeout", "3s")]));
    assert!((3000..4200).contains(&millis(done.migration_time)));
    let moved = completed(managed("libvirt", &[("timeout", "3s"), ("timeout-action", "postcopy")]));
    assert_eq!(moved.stop_reason, StopReason::PostCopy);
    let kubevirt = managed("kubevirt-1.5", &[("completionTimeoutPerGiB", "2s")]);
    assert!(matches!(kubevirt, Outcome::Cancelled(_)), "{kubevirt:?}");
}

#[test]
fn a_manager_that_may_switch_to_post_copy_has_the_capability_on_from_the_start() {
    let allows = |manager: &str, settings: &[(&str, &str)]| {
        let mut manager = Choice::named(manager).unwrap();
        settings.iter().for_each(|(key, value)| manager.set(key, value).unwrap());
        let algorithm = Algorithm::named("qemu-8.2").unwrap().managed_by(manager, &Guest::new("g", ByteCount::GIB));
        let mut algorithm = algorithm.unwrap();
        let may_move = algorithm.scheme().may_move_first();
        // And then older versions refuse multifd beside it.
        algorithm.set("multifd", "on").unwrap();
        assert_eq!(algorithm.scheme().contradiction().is_some(), may_move);
        may_move
    };
    for (manager, key, value) in [
        ("libvirt", "timeout-action", "postcopy"),
        ("nova", "live_migration_permit_post_copy", "on"),
        ("kubevirt-1.0", "allowPostCopy", "on"),
        ("kubevirt-1.5", "allowPostCopy", "on"),
        ("kubevirt", "allowPostCopy", "on"),
        ("vdsm", "policy", "post-copy"),
    ] {
        assert!(allows(manager, &[(key, value)]), "{manager}");
        assert!(!allows(manager, &[]), "{manager}");
    }
}

#[test]
fn proxmox_doubles_the_limit_until_it_ends() {
    // What is written keeps no time with what is sent, so that looks find now more left, now less. 200 pages and more are more
    // than 100 ms, and slowing alone does not make them fit in time.
    let windows: Vec<_> = (0..200).map(|window| [0..300, 0..200, 50..290][window * window % 7 % 3].clone()).collect();
    let done = completed(managed_guest(&Trace::new(1000, &windows), "proxmox", &[]));
    assert_eq!(done.stop_reason, StopReason::BelowThreshold);
    assert!(!done.throttled.is_zero(), "auto-converge is on");
}

#[test]
fn managers_manage_qemu() {
    let guest = Guest::new("g", ByteCount::new(1 << 30));
    let xen = Algorithm::named("xen").unwrap();
    let error = xen.managed_by(Choice::named("nova").unwrap(), &guest).unwrap_err().to_string();
    assert_eq!(error, "manager `nova`: it manages QEMU, not xen-4.10: choose a `qemu-…` algorithm");
    let error = Choice::named("novas").unwrap_err().to_string();
    assert_eq!(error, "manager `novas` is not known; nearest: `nova` (`migcast algorithms` lists all)");
}
