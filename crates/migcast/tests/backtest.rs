//! `migcast backtest`, and what `migcast predict` makes of it, on a guest with phases made up for the purpose.
#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

use std::path::Path;
use std::process::Command;

use migcast_history::format::Manifest;
use migcast_history::windows::State;
use migcast_history::writer::{NewWindow, Writer};
use serde_json::Value;

const START_NS: i64 = 1_767_225_600_000_000_000;
const WINDOW_NS: i64 = 100_000_000;

/// Ten minutes of a guest of 2,000 pages that is quiet for 17 s and busy for 13, over and over, at last quiet.
fn phases(dir: &Path) {
    let manifest = r#"{"format": "migcast.history/5", "created": "2026-01-01T00:00:00Z", "recorder": "test",
        "method": "import", "written_means": "dirty-log", "resource": "ram", "guest_name": "phases",
        "guest_id": "67e55044-10b1-426f-9247-bb680e5fe0c8", "hypervisor": "qemu", "hypervisor_version": "10.0.2",
        "accelerator": "tcg", "page_size_bytes": 4096, "blocks": [{"name": "ram", "length_bytes": 8192000}],
        "window_seconds": 0.1, "sample": {"one_in": 1, "seed": 0}}"#;
    let manifest = Manifest::parse(manifest.as_bytes(), Path::new("manifest.json")).unwrap();
    let mut writer = Writer::create(dir, manifest, &[]).unwrap();
    for window in 0..6_000 {
        let is_busy = window % 300 >= 170 && window < 5_900;
        let written: Vec<u64> = if is_busy { (0..2_000).collect() } else { vec![window as u64 % 2_000] };
        let start_unix_ns = START_NS + window * WINDOW_NS;
        let end_unix_ns = start_unix_ns + WINDOW_NS;
        let state = State::Recorded;
        writer
            .push(NewWindow { start_unix_ns, end_unix_ns, state, written: &written, zero_changes: &[], cost_us: 0 })
            .unwrap();
    }
    writer.finish().unwrap();
}

fn json(command: &str, dir: &Path, more: &[&str]) -> Value {
    // A link slow enough that the busy guest's memory is sent more than once.
    let fixed = ["--link", "200Mbit/s", "--set", "downtime-limit=20ms", "--horizon", "5s", "--json"];
    let output = Command::new(env!("CARGO_BIN_EXE_migcast")).arg(command).arg(dir).args(fixed).args(more).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn phases_are_forecast_from_the_same_phase_and_predict_says_so() {
    let dir = tempfile::tempdir().unwrap();
    phases(dir.path());
    for from in ["pages", "index"] {
        let found = json("backtest", dir.path(), &["--from", from]);
        assert_eq!(found["best"], "the same phase", "{found}");
        let all = json("predict", dir.path(), &["--from", from, "--start", "all"]);
        let best = json("predict", dir.path(), &["--from", from, "--as-of", "end"]);
        assert!(all["backtest"].is_null() && all["starts_chosen"] == "as asked");
        assert_eq!(best["starts_chosen"], "best");
        // Word for word the choice, and the score, of the backtest: both look at the same starts.
        assert_eq!(best["backtest"]["starts"], "the same phase");
        let choices = found["choices"].as_array().unwrap();
        let score = choices.iter().find(|choice| choice["choice"] == "the same phase").unwrap();
        for key in ["forecasts", "time_inside", "downtime_inside", "time_error"] {
            assert_eq!(best["backtest"][key], score[key], "{key} from {from}");
        }
        assert_eq!(best["widened"], score["widened"]);
        assert!(best["starts"].as_u64() < all["starts"].as_u64());
        // Now it is quiet: what happens when it is busy seldom does.
        let share = |of: &Value| of["converged"].as_f64().unwrap() / of["starts"].as_f64().unwrap();
        assert!(share(&best) > 0.85 && share(&all) < 0.75, "{} and {}", share(&best), share(&all));
        // Who asks today, long after, is told of no phase.
        let today = json("predict", dir.path(), &["--from", from]);
        assert_eq!((&today["starts_chosen"], &today["starts"]), (&Value::from("history too old"), &all["starts"]));
        let median = |of: &Value| of["downtime_seconds"]["p50"].clone();
        assert_eq!(median(&today), median(&all));
    }
}

#[test]
fn what_ended_a_while_ago_is_tried_as_old_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    phases(dir.path());
    // It ended at 00:10:00, quiet for ten seconds; ten later it has mostly been busy.
    let then = |as_of: &str| json("predict", dir.path(), &["--as-of", as_of]);
    let share = |of: &Value| of["converged"].as_f64().unwrap() / of["starts"].as_f64().unwrap();
    let (at_once, later) = (then("2026-01-01T00:10:00Z"), then("2026-01-01T00:10:10Z"));
    assert_eq!((&at_once["starts_chosen"], &later["starts_chosen"]), (&Value::from("best"), &Value::from("best")));
    assert!(share(&at_once) > 0.85 && share(&later) < 0.5, "{} and {}", share(&at_once), share(&later));
    let mut before = Command::new(env!("CARGO_BIN_EXE_migcast"));
    before.arg("predict").arg(dir.path()).args(["--link", "200Mbit/s", "--as-of", "2026-01-01T00:09:00Z"]);
    let output = before.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("--as-of: 2026-01-01T00:09:00Z lies before the end of the history"), "{said}");
}

#[test]
fn starts_are_told_by_their_time_of_day_and_one_by_one() {
    let dir = tempfile::tempdir().unwrap();
    phases(dir.path());
    let file = dir.path().join("starts.csv");
    let all = json("predict", dir.path(), &["--start", "all"]);
    let more = ["--by", "hour-of-week", "--per-start", file.to_str().unwrap()];
    let told = json("predict", dir.path(), &[&more[..], &["--time-zone", "Asia/Tokyo", "--as-of", "end"]].concat());
    assert!(told["starts"].as_u64() < all["starts"].as_u64(), "the forecast is made from some of the starts");
    let [group] = told["profile"].as_array().unwrap().as_slice() else { panic!("{told}") };
    // 2026-01-01 00:00 UTC.
    assert_eq!((&group["when"], &group["days"]), (&Value::from("Thu 09:00"), &Value::from(1)));
    // Profile and table are of all starts that were simulated, whichever the forecast is made from.
    assert_eq!((&group["starts"], &group["converged"]), (&all["starts"], &all["converged"]));
    assert_eq!(group["downtime_seconds"][1], all["downtime_seconds"]["p50"]);
    let table = std::fs::read_to_string(&file).unwrap();
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len() as u64, 1 + all["starts"].as_u64().unwrap());
    let used = lines.iter().filter(|line| line.ends_with(",true")).count() as u64;
    assert_eq!(used, told["starts"].as_u64().unwrap());
    assert!(lines[1].starts_with("2026-01-01T00:00:00Z,"), "{}", lines[1]);
    let never = lines.iter().filter(|line| line.contains(",,,,")).count() as u64;
    assert_eq!(never, all["starts"].as_u64().unwrap() - all["converged"].as_u64().unwrap());
}

#[test]
fn a_backtest_is_one_screen_of_text() {
    let dir = tempfile::tempdir().unwrap();
    phases(dir.path());
    let output = Command::new(env!("CARGO_BIN_EXE_migcast"))
        .args(["backtest", "--link", "200Mbit/s", "--set", "downtime-limit=20ms", "--horizon", "5s"])
        .arg(dir.path())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "Backtest of phases (7.81 MiB) over 200 Mbit/s, qemu-10.0", "{text}");
    let names = ["everything before", "the last 1 min", "the last 5 min", "the same phase", "about the same phase"];
    for (line, name) in lines[3..].iter().zip(names) {
        assert!(line.starts_with(name), "{text}");
    }
    assert_eq!(lines[9], "best: the same phase; `migcast predict` uses it", "{text}");
}
