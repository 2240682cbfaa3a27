//! A real Xen, in a small form: one guest that checks its own pages, one migration that begins while it is being recorded.
//! The machine's time counts its instructions, so that a busy computer changes nothing but how long the test takes. The full
//! form is `migcast-lab xen verify`; what it found stands in docs/accuracy.md.

#![allow(clippy::unwrap_used, reason = "what cannot go on says where it stopped")]

use std::path::Path;
use std::time::Duration;

use migcast_lab::cache::Cache;
use migcast_lab::interrupt::Interrupt;
use migcast_lab::recording;
use migcast_lab::xen::files::Files;
use migcast_lab::xen::guest::Guest;
use migcast_lab::xen::kept;
use migcast_lab::xen::log;
use migcast_lab::xen::trial::{self, Terms};
use migcast_model::units::BytesPerSec;

#[test]
fn a_guest_of_xen_that_is_moved_while_it_is_recorded_arrives_whole_and_as_forecast() {
    let guest = Guest::named("verify").unwrap();
    let cache = Cache::open().unwrap();
    // Without packages this fails rather than passing without a look; the message names the cure.
    let files = Files::obtain(&cache).unwrap_or_else(|error| panic!("{error:#}"));
    let folder = tempfile::tempdir().unwrap();
    let (out, program) = (folder.path(), recording::program().unwrap());
    let terms = Terms {
        record: Duration::from_secs(6),
        rates: vec![BytesPerSec::new(40_000_000)],
        runs: 1,
        record_into_migration: true,
    };
    // A page that is not as it was is an error here; so is a guest that does not start, or does not arrive, twice.
    let trial = trial::run(&files, &program, guest, &terms, out, &Interrupt::default());
    let trial = trial.unwrap_or_else(|error| panic!("{error:#}"));
    let said = std::fs::read_to_string(&trial.log).unwrap();
    println!("{said}");
    assert!(said.contains("gave-way 5 "), "the recorder stops at once, with exit code 5");
    let [migration] = log::read(&trial.log).unwrap().try_into().unwrap();
    assert!(migration.went_on && migration.observed().is_some_and(|observed| observed.completed));
    // The forecast is that of the full form's platform: the machine is the same.
    let platform = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/lab/xen/platform.json");
    let told = kept::forecast(&program, out, &migration, None, Some(&platform)).unwrap();
    assert_eq!(told.algorithm, "xen-4.10");
    assert!(migration.rounds.len().abs_diff(told.rounds.len()) <= 3, "{told:?}, {migration:?}");
    assert_eq!(told.rounds[0], migration.rounds[0].pages);
    let bytes = told.bytes / migration.bytes as f64;
    assert!((0.9..1.1).contains(&bytes), "{:.0} % of the bytes", bytes * 100.0);
    let time = told.seconds[1] / migration.seconds().unwrap();
    assert!((0.9..1.1).contains(&time), "{:.0} % of the time", time * 100.0);
}
