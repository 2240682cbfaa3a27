//! The index against the replay on the recordings of real guests that ship with the project, under the same algorithms.
//!
//! Over starting points whose migrations end before the recording does. What they differ by is printed:
//! `cargo test -p migcast-history --test shipped -- --nocapture`.
#![allow(clippy::unwrap_used, clippy::cast_possible_wrap)] // helpers of tests

mod support;

use std::path::{Path, PathBuf};

use migcast_history::reader::History;
use migcast_model::dirty::DirtySource;
use migcast_model::due::DueSource;
use migcast_model::outcome::Completed;
use migcast_model::simulate::Scenario;
use rayon::prelude::*;
use support::scenario;

/// An algorithm, its settings, the link in Mbit/s.
type Case = (&'static str, &'static [(&'static str, &'static str)], u64);

/// Starting points, evenly spread.
const STARTS: u32 = 600;

fn histories() -> Vec<PathBuf> {
    let room = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/histories");
    let mut found: Vec<PathBuf> = room
        .read_dir()
        .expect("recordings ship with the project")
        .map(|entry| entry.expect("it is read").path())
        .collect();
    found.sort();
    found
}

/// Migration times and downtimes in seconds, replayed and counted, of starts from which both end within the recording.
fn both(scenario: &Scenario, replay: &dyn DueSource, index: &dyn DueSource) -> Vec<[(f64, f64); 2]> {
    let length = replay.length().expect("a recording ends");
    let one = |number: u32| {
        let start = length / STARTS * number;
        // Each start has a link of its own, so that no threshold is met by a page from everywhere.
        let mut scenario = scenario.clone();
        let turned = f64::from(number * 37 % STARTS) / f64::from(STARTS);
        scenario.link.line_rate = scenario.link.line_rate.scale(0.9 + 0.2 * turned);
        let done = [replay, index].map(|source| scenario.run(source, start).completed().cloned());
        let within = |done: &Completed| start + done.migration_time < length;
        let seconds = |done: Completed| (done.migration_time.as_secs_f64(), done.downtime.total().as_secs_f64());
        let [Some(replayed), Some(counted)] = done else { return None };
        (within(&replayed) && within(&counted)).then(|| [seconds(replayed), seconds(counted)])
    };
    (0..STARTS).into_par_iter().filter_map(one).collect()
}

fn quantile(mut values: Vec<f64>, q: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values[((q * values.len() as f64).ceil() as usize).clamp(1, values.len()) - 1]
}

/// Relative differences at the 5, 50 and 95 % quantiles.
fn differences(runs: &[[(f64, f64); 2]], of: fn(&(f64, f64)) -> f64) -> [f64; 3] {
    let at = |which: usize, q: f64| quantile(runs.iter().map(|run| of(&run[which])).collect(), q);
    [0.05, 0.5, 0.95].map(|q| at(1, q) / at(0, q) - 1.0)
}

/// How far the quantiles of time, the median downtime, and its 5 and 95 % quantiles may lie apart.
///
/// Times are to be within 1 % and downtimes within 2 %. Where more is allowed it is missed: under QEMU *cpu* and *sort* write
/// nearly what the link carries, so that a percent of the counts is many of the time; of *redis* one page in 18 is tracked,
/// which goes out as 18 at its own turn page by page; and of *sort*, which lasts for old Xen's 29 rounds, the stop falls
/// into a burst of writes or between two, as a round more or less has it. Few starts make the ends of downtimes.
fn allowed(guest: &str, name: &str) -> (f64, f64, f64) {
    match (guest, name) {
        ("sort", "xen-classic") => (0.08, 0.6, 0.6),
        ("cpu" | "sort", "qemu-10.0") => (0.03, 0.02, 0.025),
        ("redis", _) => (0.01, 0.04, 0.08),
        _ => (0.01, 0.02, 0.025),
    }
}

#[test]
fn counting_says_what_replaying_says() {
    let (mut compared, mut too_far) = (0, Vec::new());
    let cases: [Case; 4] = [
        ("qemu-10.0", &[], 400),
        ("qemu-10.0", &[("max-bandwidth", "none")], 1_000),
        ("xen-4.10", &[], 400),
        ("xen-classic", &[], 400),
    ];
    for dir in histories() {
        let history = History::open(&dir).expect("it ships with the project");
        let replay = history.page_replay(0..u32::MAX).expect("it is whole").from_last_zero_map();
        let index = history.wws_index(0..u32::MAX).expect("it is whole").from_last_zero_map();
        for (name, settings, mbit) in cases {
            let scenario = scenario(replay.memory(), &history.manifest().accelerator, name, settings, mbit);
            let runs = both(&scenario, &replay, &index);
            let guest = dir.file_name().expect("it has a name").to_string_lossy().into_owned();
            if runs.len() < 20 {
                println!("{guest}, {name} at {mbit} Mbit/s: {} starts end within the recording", runs.len());
                continue;
            }
            let (times, downtimes) = (differences(&runs, |run| run.0), differences(&runs, |run| run.1));
            let worst = runs.iter().map(|[a, b]| (b.0 / a.0 - 1.0).abs()).fold(0.0, f64::max);
            let percent = |values: [f64; 3]| values.map(|value| format!("{:+.1} %", 100.0 * value)).join(", ");
            println!(
                "{guest}, {name} at {mbit} Mbit/s: time {}; downtime {}; worst start {:.1} %; {} starts",
                percent(times),
                percent(downtimes),
                100.0 * worst,
                runs.len()
            );
            let (time_max, middle_max, end_max) = allowed(&guest, name);
            let are_near = times.iter().all(|error| error.abs() < time_max)
                && downtimes.iter().zip([end_max, middle_max, end_max]).all(|(error, most)| error.abs() < most);
            if !are_near {
                too_far.push(format!("{guest}, {name} at {mbit} Mbit/s"));
            }
            compared += 1;
        }
    }
    // All but *cpu* under QEMU at 400 Mbit/s, which writes more than that.
    assert_eq!(compared, 31);
    assert!(too_far.is_empty(), "further apart than is allowed: {too_far:?}");
}
