//! Real migrations against their forecasts, in a small form: the bounds are loose because the machine may be busy. The
//! full form is `migcast-lab verify`; what it found stands in docs/accuracy.md.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where it stopped")]

use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use migcast_lab::accel::Accel;
use migcast_lab::cache::Cache;
use migcast_lab::comparison::Case;
use migcast_lab::features::Features;
use migcast_lab::guest::Guest;
use migcast_lab::interrupt::Interrupt;
use migcast_lab::link::{End, ShapedLink};
use migcast_lab::machine::{Images, Machine, Spec};
use migcast_lab::migration::{self, Migrated, NO_CAP, Terms};
use migcast_lab::past::Past;
use migcast_lab::{prediction, process, recording};
use migcast_model::units::BytesPerSec;

/// Emulating a guest takes a core: one at a time.
fn alone() -> MutexGuard<'static, ()> {
    static GUESTS: Mutex<()> = Mutex::new(());
    GUESTS.lock().unwrap_or_else(PoisonError::into_inner)
}

const TERMS: Terms = Terms {
    link: BytesPerSec::new(200_000_000 / 8),
    downtime_limit: Duration::from_millis(300),
    max_bandwidth: BytesPerSec::new(NO_CAP),
    give_up: Duration::from_secs(60),
    features: Features { auto_converge: false, multifd: false, postcopy_after_passes: None, max_bandwidth: None },
};

/// Boots the microbenchmark with a pattern, records it, migrates it, and forecasts the migration from the recording.
fn verify(pattern: &str) -> Case {
    let guest = Guest::named("steady").unwrap();
    // Without QEMU, network or root this fails rather than passing without a look; the message names the cure.
    let images = Images::obtain(&Cache::open().unwrap(), guest).unwrap_or_else(|error| panic!("{error:#}"));
    let accel = Accel::from_environment().unwrap();
    let spec = Spec { pattern: Some(pattern.parse().unwrap()), memory_mib: 128, ..Spec::of(guest, accel) };
    let interrupt = Interrupt::default();
    let link = ShapedLink::make(TERMS.link).unwrap_or_else(|error| panic!("{error:#}"));
    let machine = Machine::start(&images, &spec, &interrupt).unwrap_or_else(|error| panic!("{error:#}"));
    machine.wait_ready(&interrupt).unwrap();

    let folder = tempfile::tempdir().unwrap();
    let history = folder.path().join("history");
    let program = recording::program().unwrap();
    let mut record = Command::new(&program);
    record.arg("record").arg("--qmp").arg(machine.qmp()).arg("--out").arg(&history).args(["--duration", "6s"]);
    process::run(&mut record).unwrap();

    let migrated = migration::migrate(machine, End::Here, &link, &spec, &images, TERMS, &interrupt);
    let Migrated { observed, machine, at, .. } = migrated.unwrap_or_else(|error| panic!("{error:#}"));
    assert_eq!(at, End::There);
    drop(machine);
    println!("{}", migration::describe(&observed));
    let past = Past::at(&history, observed.requested).unwrap();
    let predicted =
        prediction::predict(&program, &past, &observed, None, None).unwrap_or_else(|error| panic!("{error:#}"));
    Case { predicted, observed }
}

fn assert_close(case: &Case) {
    let (migration_time_seconds, downtime_seconds) = (case.observed.seconds(), case.observed.downtime_seconds);
    let (sent_bytes, iterations) = (case.observed.sent_bytes.unwrap(), case.observed.iterations.unwrap());
    assert!(case.verdict_is_right(), "{case:?}");
    let bytes = case.predicted.sent_bytes.p50.unwrap() / sent_bytes as f64;
    assert!((0.9..1.1).contains(&bytes), "{:.1} % of the bytes: {case:?}", bytes * 100.0);
    let predicted = case.predicted.iterations.p50.unwrap();
    assert!((predicted - iterations as f64).abs() <= 3.0, "{predicted} iterations: {case:?}");
    // What was seen hangs together: QEMU's trace tells every reading of the dirty log but set-up's and the last.
    assert_eq!(case.observed.pending_bytes.len() as u64 + 2, iterations, "{case:?}");
    assert!(case.observed.other_cpu_cores.is_some(), "{case:?}");
    assert!(downtime_seconds.unwrap() < migration_time_seconds, "{case:?}");
}

#[test]
fn a_steady_guest_migrates_as_forecast() {
    let _alone = alone();
    assert_close(&verify("uniform:rate=500,pages=4000"));
}

#[test]
fn a_sequential_writer_migrates_as_forecast() {
    let _alone = alone();
    assert_close(&verify("sequential:rate=1000,pages=3000"));
}
