//! A rate series is read as it was written, and nothing else is taken for one.
#![allow(clippy::unwrap_used, clippy::cast_possible_wrap)] // helpers of tests

mod support;

use std::fs;
use std::path::Path;
use std::time::Duration;

use migcast_history::contents::Contents;
use migcast_history::format::{Manifest, WrittenMeans};
use migcast_history::rates::{Rate, RateSeries};
use migcast_history::reader::History;
use migcast_history::sample::Sample;
use support::line;

fn manifest() -> Manifest {
    Manifest {
        format: Manifest::format_of_rates(),
        written_means: WrittenMeans::Rate,
        ..support::manifest(&[1_000], Sample::full())
    }
}

fn rate(start_s: i64, end_s: i64, written: u64) -> Rate {
    let ns = |seconds: i64| support::START_NS + seconds * 1_000_000_000;
    Rate { start_unix_ns: ns(start_s), end_unix_ns: ns(end_s), written, span: Duration::from_secs(2) }
}

fn written(dir: &Path) -> RateSeries {
    let rates = vec![rate(0, 10, 100), rate(10, 20, 300), rate(50, 60, 1_000)];
    RateSeries::create(&dir.join("h"), manifest(), rates).unwrap()
}

#[test]
fn a_series_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let made = written(dir.path());
    let read = RateSeries::open(made.dir()).unwrap();
    assert_eq!((read.rates(), read.manifest()), (made.rates(), made.manifest()));
    assert!(matches!(Contents::open(made.dir()).unwrap(), Contents::Rates(_)));
    // (50 + 150 + 500) ÷ 3, as each is in force for 10 s.
    assert!((read.mean_pages_per_second() - 700.0 / 3.0).abs() < 1e-9);
    assert_eq!((read.duration().as_secs(), read.known_duration().as_secs()), (60, 30));
}

#[test]
fn the_rate_in_force_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let series = written(dir.path());
    let at = |seconds: f64| series.at(support::START_NS + (seconds * 1e9) as i64).map(|rate| rate.written);
    let found = [-0.1, 0.0, 9.9, 10.0, 30.0, 59.9, 60.0].map(at);
    assert_eq!(found, [None, Some(100), Some(100), Some(300), Some(1_000), Some(1_000), None]);
    let spread = series.spread(6);
    let seconds: Vec<f64> = spread.iter().map(|(before, _)| before.as_secs_f64()).collect();
    assert_eq!(seconds, [2.5, 7.5, 12.5, 17.5, 22.5, 27.5]);
    let pages: Vec<u64> = spread.iter().map(|(_, rate)| rate.written).collect();
    assert_eq!(pages, [100, 100, 300, 300, 1_000, 1_000]);
}

#[test]
fn slices_weigh_rates_by_the_time_in_force() {
    let dir = tempfile::tempdir().unwrap();
    let slices: Vec<Option<f64>> = written(dir.path()).slices(4).iter().map(|slice| slice.pages_per_second).collect();
    // Slices of 15 s: 50/s for 10 s and 150/s for 5 s; 150/s; nothing; 500/s from 50 s on.
    assert_eq!(slices, [Some(1_250.0 / 15.0), Some(150.0), None, Some(500.0)]);
}

#[test]
fn what_asks_for_pages_is_told_that_there_are_none() {
    let dir = tempfile::tempdir().unwrap();
    let series = written(dir.path());
    let error = History::open(series.dir()).unwrap_err().to_string();
    assert!(
        error.ends_with("a rate series knows how much was written, not which pages; this needs a recorded history")
    );
}

#[test]
fn programs_that_know_windows_only_refuse_its_version() {
    let text = serde_json::to_string(&manifest()).unwrap();
    // What they look at before anything else.
    assert!(text.contains("\"format\":\"migcast.history/2\""), "{text}");
}

#[test]
fn damage_is_told_in_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let series = written(dir.path());
    let file = series.dir().join("rates/000000.parquet");
    let whole = fs::read(&file).unwrap();
    for at in [0, whole.len() / 2, whole.len() - 1] {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        fs::write(&file, &bytes).unwrap();
        let error = line(&RateSeries::open(series.dir()).unwrap_err());
        assert!(
            error.ends_with("damaged; import the rates again: its bytes are not those that were committed"),
            "{error}"
        );
    }
    fs::remove_file(&file).unwrap();
    let error = line(&RateSeries::open(series.dir()).unwrap_err());
    assert!(error.ends_with("damaged; import the rates again: the file is missing"), "{error}");
    let other = tempfile::tempdir().unwrap();
    let stranger = Manifest { guest_id: "00000000-0000-4000-8000-000000000001".parse().unwrap(), ..manifest() };
    let stranger = RateSeries::create(&other.path().join("h"), stranger, vec![rate(0, 1, 1)]).unwrap();
    fs::copy(stranger.dir().join("rates/000000.parquet"), &file).unwrap();
    let error = line(&RateSeries::open(series.dir()).unwrap_err());
    assert!(error.contains("belongs to guest 00000000-0000-4000-8000-000000000001, not to 67e55044"), "{error}");
}

#[test]
fn what_breaks_a_rule_is_not_written() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |manifest: Manifest, rates: Vec<Rate>| {
        let error = RateSeries::create(&dir.path().join("h"), manifest, rates).unwrap_err();
        assert!(!dir.path().join("h/manifest.json").exists());
        line(&error)
    };
    assert_eq!(refused(manifest(), vec![rate(1, 1, 1)]), "rate 0: a rate must end later than it starts");
    let two = vec![rate(0, 5, 1), rate(4, 6, 1)];
    assert_eq!(refused(manifest(), two), "rate 1: a rate must not start before the one before it ends");
    assert_eq!(refused(manifest(), vec![rate(0, 1, 1_001)]), "rate 0: written must be at most the guest's pages");
    let endless = Rate { span: Duration::from_secs(86_401), ..rate(0, 1, 1) };
    assert_eq!(refused(manifest(), vec![endless]), "rate 0: span_ns must be 1 to a day");
    let windows = support::manifest(&[1_000], Sample::full());
    assert!(refused(windows, vec![rate(0, 1, 1)]).ends_with("written_means is DirtyLog, allowed: rate"));
    fs::create_dir_all(dir.path().join("h/x")).unwrap();
    assert!(
        refused(manifest(), vec![rate(0, 1, 1)])
            .ends_with("not empty; a history is written to a new or an empty directory")
    );
}
