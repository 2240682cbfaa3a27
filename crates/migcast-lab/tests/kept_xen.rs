//! The real Xen migrations that are kept in testdata/lab/xen, forecast again from their recordings.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where it stopped")]

use std::path::Path;

use migcast_lab::recording;
use migcast_lab::xen::comparison::Case;
use migcast_lab::xen::kept;

/// Microbenchmarks with a rate of their own that nothing was fitted to. What real programs write changes by more from
/// minute to minute than a recording of one tells.
const JUDGED: [&str; 3] = ["busy", "sequential", "hot-cold"];

#[test]
fn rounds_pages_and_times_of_kept_xen_migrations_are_forecast() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/lab/xen");
    let (program, platform) = (recording::program().unwrap(), folder.join("platform.json"));
    let cases = kept::cases(&program, &folder, Some(&platform)).unwrap();
    let of = |guest: &'static str| cases.iter().filter(move |case: &&Case| case.guest() == guest);
    let mut judged = 0;
    for case in JUDGED.into_iter().flat_map(of) {
        let name = format!("{} at {}", case.guest(), case.rate());
        assert_eq!(
            (case.forecast.algorithm.as_str(), case.forecast.reason.as_str()),
            ("xen-4.10", "max-rounds"),
            "{name}"
        );
        assert!(case.runs.len() >= 5, "{name}");
        // Five live rounds and the last one.
        assert_eq!((case.forecast.rounds.len(), case.rounds().len()), (6, 6), "{name}");
        for (told, real) in case.forecast.rounds.iter().zip(case.rounds()) {
            assert!((*told as f64 - real).abs() <= (0.05 * real).max(64.0), "{name}: {told} and {real} pages");
        }
        let within = |what: &str, told: f64, real: f64, goal: f64| {
            assert!((told / real - 1.0).abs() <= goal, "{name}, {what}: {told} and {real}");
        };
        let resume = case.forecast.resume;
        within("time", case.forecast.seconds[1], case.seconds(), 0.1);
        within("bytes", case.forecast.bytes, case.bytes(), 0.01);
        within("downtime", case.forecast.downtime[1] - resume, case.downtime() - resume, 0.15);
        judged += 1;
    }
    assert_eq!(judged, 2 * JUDGED.len());
    // Real programs, which write what the pipe carries and never sleep: three runs each.
    for case in ["cpu", "sort"].into_iter().flat_map(of) {
        let (time, down) = (case.forecast.seconds[1] / case.seconds(), case.forecast.downtime[1] / case.downtime());
        assert!((0.9..1.1).contains(&time) && (0.85..1.15).contains(&down), "{}: {time}, {down}", case.guest());
        assert_eq!((case.runs.len(), case.forecast.rounds.len(), case.rounds().len()), (3, 6, 6));
    }
    // Nothing but a line a second: fewer than 50 pages are written during a round, which ends the migration.
    for case in of("still") {
        assert_eq!(case.forecast.reason.as_str(), "small-set", "{}", case.rate());
        assert!((3..=4).contains(&case.rounds().len()), "{}", case.rate());
    }
}
