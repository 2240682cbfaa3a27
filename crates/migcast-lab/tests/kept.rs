//! The real migrations that are kept in testdata/lab, forecast again: a change of the model that makes it worse shows
//! here without migrating anything.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where it stopped")]

use std::collections::BTreeMap;
use std::path::Path;

use migcast_history::observed::{self, Observed};
use migcast_lab::comparison::median;
use migcast_lab::{prediction, recording};

/// Guests the platform was not fitted to, and whose forecasts take seconds.
const GUESTS: [&str; 3] = ["sequential", "hot-cold", "web"];

#[test]
fn forecasts_of_kept_migrations_stay_as_good_as_they_were() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/lab");
    let mut cases: BTreeMap<(String, u64, Vec<String>), Vec<Observed>> = BTreeMap::new();
    for observed in observed::read(&folder.join("observed.jsonl")).unwrap() {
        if GUESTS.contains(&observed.guest.as_str()) {
            let key = (observed.guest.clone(), observed.link_bits_per_second, observed.settings.clone());
            cases.entry(key).or_default().push(observed);
        }
    }
    assert!(cases.len() >= 12, "{} cases", cases.len());
    let (program, platform) = (recording::program().unwrap(), folder.join("platform.json"));
    let mut errors: [Vec<f64>; 3] = Default::default();
    for (case, runs) in &cases {
        let history = folder.join(runs[0].history.as_ref().unwrap());
        let predicted = prediction::predict(&program, &history, &runs[0], Some(&platform)).unwrap();
        assert!(runs.iter().all(|run| run.completed == (2 * predicted.converged >= predicted.starts)), "{case:?}");
        let of = |actual: fn(&Observed) -> Option<f64>, predicted: Option<f64>| {
            let actual = median(runs.iter().filter_map(actual))?;
            Some((predicted? / actual - 1.0).abs() * 100.0)
        };
        errors[0].extend(of(
            |run| run.completed.then_some(run.migration_time_seconds),
            predicted.migration_time_seconds.p50,
        ));
        errors[1].extend(of(|run| run.downtime_seconds, predicted.downtime_seconds.p50));
        errors[2].extend(of(|run| run.completed.then_some(run.sent_bytes as f64), predicted.sent_bytes.p50));
    }
    let [time, downtime, bytes] = errors.map(|errors| median(errors.into_iter()).unwrap());
    println!("median |error|: time {time:.1} %, downtime {downtime:.1} %, bytes {bytes:.1} %");
    assert!(time <= 2.0 && downtime <= 15.0 && bytes <= 2.0, "time {time} %, downtime {downtime} %, bytes {bytes} %");
}
