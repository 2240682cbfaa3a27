//! The index against the replay on the recordings of real guests that ship with the project, under the same algorithms.
//!
//! Over starting points whose migrations end before the recording does. What they differ by is printed:
//! `cargo test -p migcast-history --test shipped -- --nocapture`.
#![allow(clippy::unwrap_used, clippy::cast_possible_wrap)] // helpers of tests

mod support;

use std::path::{Path, PathBuf};

use migcast_history::format::Manifest;
use migcast_history::reader::History;
use migcast_history::windows::Window;
use migcast_history::writer::{NewWindow, Writer, ZeroChange};
use migcast_model::dirty::{DirtySource, WwsIndex};
use migcast_model::due::DueSource;
use migcast_model::outcome::Completed;
use migcast_model::simulate::Scenario;
use rayon::prelude::*;
use support::scenario;

/// An algorithm, its settings, the link in Mbit/s.
type Case = (&'static str, &'static [(&'static str, &'static str)], u64);

/// Starting points, evenly spread.
const STARTS: u32 = 600;
/// Of guests that write nearly what the link carries, or for all of classic Xen's rounds, times lie so far apart that quantiles
/// of 600 are known to some percent only.
const STARTS_MANY: u32 = 3_000;

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

/// The index of the same history as it is written today: by what its segments keep, instead of by its pages.
fn kept(history: &History) -> WwsIndex {
    let dir = tempfile::tempdir().expect("there is room");
    let manifest = Manifest { format: Manifest::format_now(), ..history.manifest().clone() };
    let pages = |ranks: &mut dyn Iterator<Item = u32>| ranks.map(|rank| history.tracked().page_of_rank(rank)).collect();
    let (mut stream, mut writer) = (history.stream(0..u32::MAX), None);
    while let Some(view) = stream.next_window().expect("it is whole") {
        let zero: Vec<u64> = pages(&mut view.zero_at_start.iter().flatten());
        let into =
            writer.get_or_insert_with(|| Writer::create(dir.path(), manifest.clone(), &zero).expect("it is new"));
        let change = |change: &migcast_model::dirty::ZeroChange| ZeroChange {
            page: history.tracked().page_of_rank(change.rank),
            zero: change.zero,
        };
        let Window { start_unix_ns, end_unix_ns, state, cost_us, .. } = view.window;
        let written: Vec<u64> = pages(&mut view.written.iter().copied());
        let zero_changes: Vec<ZeroChange> = view.zero_changes.iter().map(change).collect();
        let (written, zero_changes) = (&written, &zero_changes);
        into.push(NewWindow { start_unix_ns, end_unix_ns, state, written, zero_changes, cost_us })
            .expect("it is as it was");
    }
    writer.expect("there are windows").finish().expect("there is room");
    let history = History::open(dir.path()).expect("it was just written");
    history.wws_index(0..u32::MAX).expect("it is whole").from_last_zero_map()
}

/// Migration time and downtime of a start in seconds: replayed, by the index of the pages, and by what segments keep for it.
type Run = [(f64, f64); 3];

/// Of starts from which all three end within the recording.
fn runs(scenario: &Scenario, sources: [&dyn DueSource; 3], starts: u32) -> Vec<Run> {
    let length = sources[0].length().expect("a recording ends");
    let one = |number: u32| {
        let start = length / starts * number;
        // Each start has a link of its own, so that no threshold is met by a page from everywhere.
        let mut scenario = scenario.clone();
        let turned = f64::from(number * 37 % starts) / f64::from(starts);
        scenario.link.line_rate = scenario.link.line_rate.scale(0.9 + 0.2 * turned);
        let done = sources.map(|source| scenario.run(source, start).completed().cloned());
        let is_within =
            |done: &Option<Completed>| done.as_ref().is_some_and(|done| start + done.migration_time < length);
        let seconds = |done: Completed| (done.migration_time.as_secs_f64(), done.downtime.total().as_secs_f64());
        done.iter().all(is_within).then(|| done.map(|done| seconds(done.expect("it is within"))))
    };
    (0..starts).into_par_iter().filter_map(one).collect()
}

fn quantile(mut values: Vec<f64>, q: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values[((q * values.len() as f64).ceil() as usize).clamp(1, values.len()) - 1]
}

/// Relative differences at the 5, 50 and 95 % quantiles of one of them from the replay.
fn differences(runs: &[Run], which: usize, of: fn(&(f64, f64)) -> f64) -> [f64; 3] {
    let at = |which: usize, q: f64| quantile(runs.iter().map(|run| of(&run[which])).collect(), q);
    [0.05, 0.5, 0.95].map(|q| at(which, q) / at(0, q) - 1.0)
}

/// Those of the replay's own odd starting points from its even ones: what quantiles of half as many are known to.
fn own_differences(runs: &[Run], of: fn(&(f64, f64)) -> f64) -> [f64; 3] {
    let at = |odd: usize, q: f64| quantile(runs.iter().skip(odd).step_by(2).map(|run| of(&run[0])).collect(), q);
    [0.05, 0.5, 0.95].map(|q| at(1, q) / at(0, q) - 1.0)
}

/// How far the quantiles of time, the median downtime, and its 5 and 95 % quantiles may lie apart.
///
/// Times are to be within 1 % and downtimes within 2 %. Where more is allowed it is missed: *sort* writes nearly what the link
/// carries, so that where a scan stands in a burst decides over rounds more or less, and as it lasts for old Xen's 29 rounds,
/// whether its stop falls into a burst; the replay's own odd starts lie 4 and 11 % from its even ones. Few starts make the ends of
/// downtimes.
fn allowed(guest: &str, name: &str) -> (f64, f64, f64) {
    match (guest, name) {
        ("sort", "xen-classic") => (0.02, 0.12, 0.12),
        ("sort", "qemu-10.0") => (0.07, 0.02, 0.025),
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
        let kept = kept(&history);
        let guest = dir.file_name().expect("it has a name").to_string_lossy().into_owned();
        let starts = if matches!(guest.as_str(), "cpu" | "sort") { STARTS_MANY } else { STARTS };
        for (name, settings, mbit) in cases {
            let scenario = scenario(replay.memory(), &history.manifest().accelerator, name, settings, mbit);
            let runs = runs(&scenario, [&replay, &index, &kept], starts);
            if runs.len() < 20 {
                println!("{guest}, {name} at {mbit} Mbit/s: {} starts end within the recording", runs.len());
                continue;
            }
            let percent = |values: [f64; 3]| values.map(|value| format!("{:+.1} %", 100.0 * value)).join(", ");
            println!(
                "{guest}, {name} at {mbit} Mbit/s: {} starts, odd ones from even ones: time {}; downtime {}",
                runs.len(),
                percent(own_differences(&runs, |run| run.0)),
                percent(own_differences(&runs, |run| run.1)),
            );
            for (which, of) in [(1, "of the pages"), (2, "as kept")] {
                let times = differences(&runs, which, |run| run.0);
                let downtimes = differences(&runs, which, |run| run.1);
                let worst = runs.iter().map(|run| (run[which].0 / run[0].0 - 1.0).abs()).fold(0.0, f64::max);
                println!(
                    "    index {of}: time {}; downtime {}; worst start {:.1} %",
                    percent(times),
                    percent(downtimes),
                    100.0 * worst,
                );
                let (time_max, middle_max, end_max) = allowed(&guest, name);
                let are_near = times.iter().all(|error| error.abs() < time_max)
                    && downtimes.iter().zip([end_max, middle_max, end_max]).all(|(error, most)| error.abs() < most);
                if !are_near {
                    too_far.push(format!("{guest}, {name} at {mbit} Mbit/s, index {of}"));
                }
                compared += 1;
            }
        }
    }
    // All but *cpu* under QEMU at 400 Mbit/s, which writes more than that.
    assert_eq!(compared, 2 * 31);
    assert!(too_far.is_empty(), "further apart than is allowed: {too_far:?}");
}
