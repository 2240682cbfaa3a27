//! The real Xen migrations that are kept in testdata/lab/xen, forecast again from their recordings.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where it stopped")]

use std::path::Path;

use migcast_lab::recording;
use migcast_lab::xen::comparison::Case;
use migcast_lab::xen::kept;

/// What the platform was fitted to.
const FITTED: &str = "steady";
/// Microbenchmarks with a rate of their own. What real programs write changes by more from minute to minute than a
/// recording of one tells.
const JUDGED: [&str; 3] = ["busy", "sequential", "hot-cold"];

#[test]
fn rounds_pages_and_times_of_kept_xen_migrations_are_forecast() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/lab/xen");
    let (program, platform) = (recording::program().unwrap(), folder.join("platform.json"));
    let cases = kept::cases(&program, &folder, Some(&platform)).unwrap();
    let judged: Vec<&Case> = cases.iter().filter(|case| JUDGED.contains(&case.guest())).collect();
    assert_eq!(judged.len(), 2 * JUDGED.len());
    assert!(cases.iter().any(|case| case.guest() == FITTED));
    for case in judged {
        let name = format!("{} at {}", case.guest(), case.rate());
        assert_eq!(case.forecast.algorithm, "xen-4.10", "{name}");
        assert!(case.runs.len() >= 5, "{name}");
        // Five live rounds and the last one.
        assert_eq!((case.forecast.rounds.len(), case.rounds().len()), (6, 6), "{name}");
        for (told, real) in case.forecast.rounds.iter().zip(case.rounds()) {
            assert!((*told as f64 - real).abs() <= (0.1 * real).max(64.0), "{name}: {told} and {real} pages");
        }
        let time = case.forecast.seconds[1] / case.seconds();
        assert!((0.9..1.1).contains(&time), "{name}: {time}");
    }
}
