//! Forecasts that are kept, migrations that are observed, and what `calibrate --review` makes of both.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where it stopped")]

use std::path::Path;
use std::process::{Command, Output};

fn migcast(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_migcast")).args(args).output().unwrap()
}

fn done(args: &[&str]) -> String {
    let output = migcast(args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Keeps what a migration of 2 s came to, requested so long from now on.
fn observe(store: &str, in_seconds: i64, link: &str, settings: &[&str]) {
    let folder = Path::new(store).parent().unwrap();
    let requested = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(in_seconds);
    let table = folder.join(format!("{in_seconds}.csv"));
    std::fs::write(&table, format!("requested,migration_time_seconds,downtime_seconds\n{requested},2.0,0.3\n"))
        .unwrap();
    let mut args = vec!["observe", table.to_str().unwrap(), "--from", "csv", "--guest", "guest", "--link", link];
    args.extend(["--hypervisor-version", "10.0.2", "--store", store]);
    settings.iter().for_each(|setting| args.extend(["--set", setting]));
    done(&args);
}

fn without_forecast(store: &str) -> u64 {
    let review: serde_json::Value = serde_json::from_str(&done(&["calibrate", store, "--review", "--json"])).unwrap();
    review["without_forecast"].as_u64().unwrap()
}

#[test]
fn only_what_was_forecast_before_and_of_the_same_migration_counts() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("hosts.db");
    let store = store.to_str().unwrap();
    // Before the forecast, after it but over another link, with other settings, and two days later.
    observe(store, -60, "1Gbit/s", &[]);
    let predict = [
        "predict",
        "--memory",
        "256MiB",
        "--dirty-rate",
        "100pages/s",
        "--algorithm",
        "qemu-10.0",
        "--link",
        "1Gbit/s",
    ];
    done(&[&predict[..], &["--set", "downtime-limit=200ms", "--guest", "guest", "--store", store]].concat());
    observe(store, 30, "2Gbit/s", &[]);
    observe(store, 40, "1Gbit/s", &["downtime-limit=300ms"]);
    observe(store, 2 * 86_400, "1Gbit/s", &[]);
    assert_eq!(without_forecast(store), 4);
    observe(store, 50, "1Gbit/s", &[]);
    observe(store, 70, "1Gbit/s", &["downtime-limit=0.2s"]);
    assert_eq!(without_forecast(store), 4, "settings that nobody states, or the same in another unit, are its own");
    let output = migcast(&["calibrate", store, "--review", "--within", "3d"]);
    let shown = String::from_utf8(output.stdout).unwrap();
    // Three in a row far outside of bands that nobody widened.
    assert!(output.status.code() == Some(3) && shown.contains("drifted: migration time is off by "), "{shown}");
    assert!(shown.starts_with("6 migrations, 0 given up; of 3 a forecast had been kept"), "{shown}");
    let picture = folder.path().join("review.svg");
    done(&["calibrate", store, "--review", "--plot", picture.to_str().unwrap()]);
    assert!(std::fs::read_to_string(picture).unwrap().contains("2 migrations beside their forecasts"));
}
