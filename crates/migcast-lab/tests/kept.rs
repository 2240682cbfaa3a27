//! The real migrations that are kept in testdata/lab, forecast again: a change of the model that makes it worse shows
//! here without migrating anything.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where it stopped")]

use std::path::Path;

use migcast_history::observed::{self, Observed};
use migcast_lab::comparison::{Case, median};
use migcast_lab::prediction::Predicted;
use migcast_lab::{prediction, recording};

/// What the platform was fitted to: these guests over this link.
const FITTED: ([&str; 2], u64) = (["idle", "steady"], 400_000_000);

#[test]
fn forecasts_of_kept_migrations_stay_as_good_as_they_were() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/lab");
    let (program, platform) = (recording::program().unwrap(), folder.join("platform.json"));
    let mut cases: Vec<Case> = Vec::new();
    for observed in observed::read(&folder.join("observed.jsonl")).unwrap() {
        if FITTED.0.contains(&observed.guest.as_str()) && observed.link_bits_per_second == FITTED.1 {
            continue;
        }
        let asked = |of: &Observed| (of.history.clone(), of.link_bits_per_second, of.settings.clone());
        let known = cases.iter().find(|case| asked(&case.observed) == asked(&observed));
        let predicted = match known {
            Some(known) => known.predicted.clone(),
            None => {
                let history = folder.join(observed.history.as_ref().unwrap());
                prediction::predict(&program, &history, &observed, Some(&platform)).unwrap()
            }
        };
        cases.push(Case { predicted, observed });
    }
    assert!(cases.len() >= 100, "{} cases", cases.len());
    for case in cases.iter().filter(|case| case.is_away_from_the_edge()) {
        assert!(case.verdict_is_right(), "{case:?}");
    }
    let error = |predicted: fn(&Predicted) -> Option<f64>, actual: fn(&Observed) -> Option<f64>| {
        let one = |case: &Case| Some((predicted(&case.predicted)? / actual(&case.observed)? - 1.0).abs() * 100.0);
        median(cases.iter().filter(|case| case.observed.completed).filter_map(one)).unwrap()
    };
    let time = error(|p| p.migration_time_seconds.p50, |o| Some(o.migration_time_seconds));
    let downtime = error(|p| p.downtime_seconds.p50, |o| o.downtime_seconds);
    let bytes = error(|p| p.sent_bytes.p50, |o| Some(o.sent_bytes as f64));
    println!("median |error|: time {time:.1} %, downtime {downtime:.1} %, bytes {bytes:.1} %");
    assert!(time <= 3.0 && downtime <= 10.0 && bytes <= 2.0, "time {time} %, downtime {downtime} %, bytes {bytes} %");
}
