//! The real Xen migrations that are kept in testdata/lab/xen, forecast again from their recordings.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where it stopped")]

use std::path::Path;

use migcast_lab::recording;
use migcast_lab::xen::kept;
use migcast_lab::xen::trial::Migration;

/// What the platform was set to, and the one that writes once a second, which a round meets or not.
const LEFT_OUT: [&str; 2] = ["steady", "idle"];
/// Measured while the computer was busy with other work, which makes times longer, and with them later rounds.
const DISTURBED: &str = "quiet";

#[test]
fn rounds_pages_and_times_of_kept_xen_migrations_are_forecast() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/lab/xen");
    let (program, platform) = (recording::program().unwrap(), folder.join("platform.json"));
    let all = kept::read(&folder).unwrap();
    let judged: Vec<&Migration> = all.iter().filter(|of| !LEFT_OUT.contains(&of.guest.as_str())).collect();
    assert_eq!((all.len(), judged.len()), (20, 12));
    for real in judged {
        let told = kept::forecast(&program, &folder, real, Some(&platform)).unwrap();
        let case = format!("{} at {} B/s", real.guest, real.bytes_per_second);
        assert_eq!(told.algorithm, "xen-4.10", "{case}");
        // Five live rounds and the last one.
        assert_eq!((told.rounds.len(), real.rounds.len()), (6, 6), "{case}");
        let near = |at: usize, share: f64| {
            let (told, real) = (told.rounds[at] as f64, real.rounds[at].pages as f64);
            assert!((told - real).abs() <= f64::max(share * real, 64.0), "{case}, round {at}: {told} and {real} pages");
        };
        near(0, 0.0);
        near(1, if real.guest == DISTURBED { 0.1 } else { 0.05 });
        if real.guest != DISTURBED {
            (2..6).for_each(|at| near(at, 0.35));
            let told = told.seconds.unwrap();
            assert!((told / real.seconds - 1.0).abs() < 0.1, "{case}: {told} and {} s", real.seconds);
        }
    }
}
