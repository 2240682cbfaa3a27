//! `migcast history` on a shipped history: what is cut, merged and exported is what was recorded.
#![allow(clippy::unwrap_used)] // helpers of tests

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use migcast_history::format::Manifest;
use migcast_history::windows::State;
use migcast_history::writer::{NewWindow, Writer};

fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/histories").join(name)
}

/// Runs the program; what it printed.
fn migcast(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_migcast")).args(arguments).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{arguments:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_history_cut_in_two_and_merged_is_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let whole = shipped("cpu").display().to_string();
    let windows = migcast(&["history", "export", &whole]);
    // The cut lies between two windows.
    let cut = windows.lines().nth(301).unwrap().split(',').nth(1).unwrap();
    migcast(&["history", "trim", &whole, "--to", cut, "--out", &path("early")]);
    migcast(&["history", "trim", &whole, "--from", cut, "--out", &path("late")]);
    let said = migcast(&["history", "merge", &path("late"), &path("early"), "--out", &path("again")]);
    assert!(said.contains(&format!(": {} windows of 2 histories, ", windows.lines().count() - 1)), "{said}");
    // The recording is of format 1, whose index has more rows.
    migcast(&["history", "trim", &whole, "--from", "0s", "--out", &path("whole")]);
    for table in ["windows", "pages", "wws"] {
        let export = |dir: &str| migcast(&["history", "export", dir, "--table", table]);
        assert_eq!(export(&path("again")), export(&path("whole")), "{table}");
    }
    assert_eq!(
        migcast(&["history", "export", &path("again"), "--table", "pages"]),
        migcast(&["history", "export", &whole, "--table", "pages"])
    );
}

#[test]
fn rates_that_are_exported_can_be_imported_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    fs::write(path("a.csv"), "time,rate (pages/s)\n1769860800.5,12\n1769860830,4000\n").unwrap();
    let import = |from: &str, to: &str, more: &[&str]| {
        let all = ["history", "import", "--format", "csv", from, "--memory", "1GiB", "--out", to];
        migcast(&[&all[..], more].concat())
    };
    import(&path("a.csv"), &path("a.rates"), &[]);
    migcast(&["history", "export", &path("a.rates"), "--out", &path("b.csv")]);
    let rows = fs::read_to_string(path("b.csv")).unwrap();
    assert_eq!(
        rows,
        "start,end,written_pages,span_ns\n\
         2026-01-31T12:00:00.500000000Z,2026-01-31T12:00:30.000000000Z,12,1000000000\n\
         2026-01-31T12:00:30.000000000Z,2026-01-31T12:00:31.000000000Z,4000,1000000000\n"
    );
    // Each was measured for a second, so pages are pages per second.
    import(&path("b.csv"), &path("b.rates"), &["--rate-column", "written_pages", "--unit", "pages/s"]);
    assert_eq!(migcast(&["history", "export", &path("b.rates")]), rows);
}

#[test]
fn a_series_forecasts_like_the_constant_rate_in_force() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    fs::write(path("a.csv"), "time,rate (pages/s)\n1769860800,9000\n1769860830,2000\n").unwrap();
    migcast(&["history", "import", "--format", "csv", &path("a.csv"), "--memory", "1GiB", "--out", &path("a.rates")]);
    let predict = |source: &[&str]| -> serde_json::Value {
        let all = [&["predict", "--link", "1Gbit/s", "--json"], source].concat();
        serde_json::from_str(&migcast(&all)).unwrap()
    };
    let stated = |rate: &str| predict(&["--memory", "1GiB", "--dirty-rate", rate]);
    let (fast, slow) = (stated("9000pages/s"), stated("2000pages/s"));
    let at = |start: &str| predict(&[&path("a.rates"), "--start", start]);
    for (series, constant) in [(at("now"), &slow), (at("29s"), &fast), (at("2026-01-31T12:00:30Z"), &slow)] {
        for key in ["migration_time_seconds", "downtime_seconds", "sent_pages", "iterations_of_median", "bounds"] {
            assert_eq!(series[key], constant[key], "{key}");
        }
        assert_eq!(series["model"]["name"], "rates");
    }
    let all = predict(&[&path("a.rates")]);
    // In force for 30 s and for the second it was measured.
    let mean = (9_000.0 * 97.0 + 2_000.0 * 3.0) / 100.0;
    assert_eq!((all["starts"].as_u64(), all["converged"].as_u64()), (Some(100), Some(100)));
    assert_eq!(all["model"]["dirty_rate_pages_per_second"]["mean"].as_f64(), Some(mean));
    assert!(all["warnings"][0].as_str().unwrap().contains("says nothing of which pages are written again"));
}

#[test]
fn a_history_whose_pages_were_taken_away_is_cut_by_segments_and_forecast_off_its_index() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    // Four minutes of one write in ten to each of 4,000 pages a second; pages are kept for one.
    let manifest = r#"{"format": "migcast.history/5", "created": "2026-01-01T00:00:00Z", "recorder": "test", "method": "import",
        "written_means": "dirty-log", "resource": "ram", "guest_name": "made-up",
        "guest_id": "67e55044-10b1-426f-9247-bb680e5fe0c8", "hypervisor": "qemu", "hypervisor_version": "10.0.2",
        "accelerator": "tcg", "page_size_bytes": 4096, "blocks": [{"name": "ram", "length_bytes": 16384000}],
        "window_seconds": 1.0, "sample": {"one_in": 1, "seed": 0}, "keep_pages_seconds": 60}"#;
    let manifest = Manifest::parse(manifest.as_bytes(), Path::new("manifest.json")).unwrap();
    let mut writer = Writer::create(&dir.path().join("all"), manifest, &[]).unwrap();
    for second in 0..240i64 {
        let start_unix_ns = 1_767_225_600_000_000_000 + second * 1_000_000_000;
        let written: Vec<u64> = (0..4_000).filter(|page| (page * 7 + second as u64).is_multiple_of(10)).collect();
        let window = NewWindow {
            start_unix_ns,
            end_unix_ns: start_unix_ns + 1_000_000_000,
            state: State::Recorded,
            written: &written,
            zero_changes: &[],
            cost_us: 0,
        };
        writer.push(window).unwrap();
    }
    writer.finish().unwrap();
    let said = migcast(&["history", "trim", &path("all"), "--to", "2m 30s", "--out", &path("early")]);
    assert!(said.ends_with("early: 120 windows, 120.0 s, by whole segments, as pages were taken away\n"), "{said}");
    let info = migcast(&["history", "info", &path("early")]);
    assert!(info.contains("  pages       no longer kept; there is the index\n"), "{info}");
    let predict = |name: &str| -> serde_json::Value {
        let said = migcast(&["predict", &path(name), "--link", "100Mbit/s", "--from", "index", "--json"]);
        serde_json::from_str(&said).unwrap()
    };
    let (early, all) = (predict("early"), predict("all"));
    let time = |forecast: &serde_json::Value| forecast["migration_time_seconds"]["p50"].as_f64().unwrap();
    assert!((time(&early) / time(&all) - 1.0).abs() < 0.01, "{} and {}", time(&early), time(&all));
    migcast(&["history", "trim", &path("all"), "--from", "2m", "--out", &path("late")]);
    let said = migcast(&["history", "merge", &path("late"), &path("early"), "--out", &path("again")]);
    assert!(said.contains(": 240 windows of 2 histories, 240.0 s"), "{said}");
    assert_eq!(predict("again")["migration_time_seconds"], all["migration_time_seconds"]);

    let fails = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_migcast")).args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).unwrap()
    };
    let said = fails(&["predict", &path("early"), "--link", "1Gbit/s", "--from", "pages"]);
    assert!(said.contains("--from pages: which pages were written is no longer kept, allowed: --from index"), "{said}");
    let said = fails(&["history", "trim", &path("early"), "--from", "10s", "--to", "20s", "--out", &path("never")]);
    assert!(
        said.contains("so it is cut by segments, and none lies wholly between") && said.lines().count() == 1,
        "{said}"
    );
}
