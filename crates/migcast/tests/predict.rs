//! `migcast predict` from histories made up for the purpose, and what every command does when nobody reads on.
#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

use std::path::Path;
use std::process::{Command, Output, Stdio};

use migcast_history::format::Manifest;
use migcast_history::vcpu::VcpuTime;
use migcast_history::windows::State;
use migcast_history::writer::{NewWindow, Writer};

const START_NS: i64 = 1_767_225_600_000_000_000;
const SECOND_NS: i64 = 1_000_000_000;

/// A guest of 1,000 pages under tcg, written to for ten seconds; then nobody looked for `gap_seconds`.
fn history(dir: &Path, qemu_version: &str, gap_seconds: i64) {
    let manifest = format!(
        r#"{{"format": "migcast.history/1", "created": "2026-01-01T00:00:00Z", "recorder": "test", "method": "import",
        "written_means": "dirty-log", "resource": "ram", "guest_name": "made-up",
        "guest_id": "67e55044-10b1-426f-9247-bb680e5fe0c8", "hypervisor": "qemu",
        "hypervisor_version": "{qemu_version}", "accelerator": "tcg", "page_size_bytes": 4096,
        "blocks": [{{"name": "ram", "length_bytes": 4096000}}], "window_seconds": 1.0,
        "sample": {{"one_in": 1, "seed": 0}}}}"#
    );
    let manifest = Manifest::parse(manifest.as_bytes(), Path::new("manifest.json")).unwrap();
    let mut writer = Writer::create(dir, manifest, &[]).unwrap();
    let recorded = NewWindow {
        start_unix_ns: START_NS,
        end_unix_ns: START_NS,
        state: State::Recorded,
        written: &[1, 2, 3],
        zero_changes: &[],
        cost_us: 0,
    };
    for second in 0..10 {
        let start_unix_ns = START_NS + second * SECOND_NS;
        writer.push(NewWindow { start_unix_ns, end_unix_ns: start_unix_ns + SECOND_NS, ..recorded }).unwrap();
    }
    // Two vCPUs: one works two fifths of its time, the other not at all.
    writer.add_vcpu_time(VcpuTime::of_span(10_000_000_000, &[4_000_000_000, 0]).unwrap());
    if gap_seconds > 0 {
        let start_unix_ns = START_NS + 10 * SECOND_NS;
        let end_unix_ns = start_unix_ns + gap_seconds * SECOND_NS;
        let gap = NewWindow { start_unix_ns, end_unix_ns, state: State::Gap, written: &[], ..recorded };
        writer.push(gap).unwrap();
    }
    writer.finish().unwrap();
}

fn migcast(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_migcast"));
    command.args(args).stdin(Stdio::null());
    command
}

fn predict(qemu_version: &str, gap_seconds: i64, more: &[&str]) -> Output {
    let dir = tempfile::tempdir().unwrap();
    history(dir.path(), qemu_version, gap_seconds);
    let args = ["predict", dir.path().to_str().unwrap(), "--link", "1Gbit/s"];
    migcast(&args).args(more).output().unwrap()
}

fn table(qemu_version: &str, more: &[&str]) -> String {
    let output = predict(qemu_version, 0, more);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_last_minute_without_a_recorded_window_is_refused() {
    let output = predict("10.0.2", 61, &["--start", "now"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        String::from_utf8(output.stderr).unwrap(),
        "migcast: --start now: nothing was recorded in the history's last minute, last at 2026-01-01T00:00:10Z; \
         use --start all or record anew\n"
    );
    assert!(predict("10.0.2", 55, &["--start", "now"]).status.success(), "five seconds of it were recorded");
}

#[test]
fn a_qemu_older_than_all_rules_gets_the_oldest() {
    let shown = table("6.2.0 (Debian 1:6.2)", &[]);
    let algorithm = shown.lines().find(|line| line.starts_with("  algorithm")).unwrap();
    assert_eq!(
        algorithm,
        "  algorithm  qemu-7.2 (the oldest rules known here, not checked against the history's QEMU 6.2.0 (Debian 1:6.2))"
    );
    assert!(shown.contains("dirty-log tcg"), "{shown}");
    assert!(table("7.2.0", &[]).contains("qemu-7.2 (the history's hypervisor)"));
}

#[test]
fn lost_writes_are_those_of_the_algorithm_in_use() {
    let warns = |version, more: &[&str]| table(version, more).contains("QEMU before 9.0 misses writes");
    assert!(warns("8.2.0", &[]));
    assert!(!warns("9.0.0", &[]));
    assert!(!warns("8.2.0", &["--algorithm", "qemu-9.0"]));
    assert!(warns("9.0.0", &["--algorithm", "qemu-8.2"]));
    assert!(!warns("8.2.0", &["--set", "dirty-log=kvm"]));
}

#[test]
fn a_limit_is_judged_by_the_value_that_is_shown() {
    // The target's resume and the saving of device state are 40 ms of every downtime; with 10 s of scatter a twentieth of
    // the downtimes would lie at 0.
    let dir = tempfile::tempdir().unwrap();
    let platform = dir.path().join("hosts.json");
    let costs = r#"{"format": "migcast.platform/1", "resume_seconds": 0.03, "device_state_seconds": 0.01,
        "downtime_scatter_seconds": 10}"#;
    std::fs::write(&platform, costs).unwrap();
    let judged = |limit| {
        let args = ["--platform", platform.to_str().unwrap(), "--json", "--quantile", "0.05", "--max-downtime", limit];
        let output = predict("10.0.2", 0, &args);
        let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        (output.status.code(), document["downtime_seconds"]["p5"].as_f64())
    };
    assert_eq!(judged("39ms"), (Some(3), Some(0.04)));
    assert_eq!(judged("40ms"), (Some(0), Some(0.04)));
}

/// What a script reads of the band: what made it as wide as it is, and where the median migration's iterations began.
#[test]
fn the_document_tells_what_scatters() {
    let lab = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/lab");
    let args =
        ["predict", lab.join("sequential-1").to_str().unwrap(), "--link", "400Mbit/s", "--json"].map(str::to_owned);
    let said = |more: &[&str]| {
        let output = migcast(&args.each_ref().map(String::as_str)).args(more).output().unwrap();
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()
    };
    let platform = lab.join("platform.json");
    let known = said(&["--set", "max-bandwidth=none", "--platform", platform.to_str().unwrap()]);
    // It writes at 0.78 of the link, so the platform's 1 % is several.
    assert!(known["speed_scatter"]["migration_time_relative"].as_f64().unwrap() > 0.02, "{}", known["speed_scatter"]);
    assert!(known["sampling_error"]["migration_time_relative"].as_f64().unwrap() > 0.001);
    let iterations = known["iterations_of_median"].as_array().unwrap();
    assert_eq!(iterations[0]["due_pages"], known["guest"]["memory_pages"]);
    let starts: Vec<f64> = iterations.iter().map(|one| one["start_seconds"].as_f64().unwrap()).collect();
    assert!(starts.is_sorted() && starts.len() > 3, "{starts:?}");
    let unknown = said(&["--set", "max-bandwidth=none"]);
    assert_eq!(unknown["speed_scatter"]["migration_time_relative"], 0.0, "no platform, no scatter known");
}

#[test]
fn a_reader_that_has_seen_enough_ends_every_command_quietly() {
    let dir = tempfile::tempdir().unwrap();
    let (path, trimmed) = (dir.path().join("history"), dir.path().join("trimmed"));
    history(&path, "10.0.2", 0);
    let (path, trimmed) = (path.to_str().unwrap(), trimmed.to_str().unwrap());
    let observed = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/lab/observed.jsonl");
    let commands: [&[&str]; 7] = [
        &["predict", path, "--link", "1Gbit/s"],
        &["predict", path, "--link", "1Gbit/s", "--json"],
        &["history", "info", path],
        &["history", "export", path],
        &["history", "trim", path, "--out", trimmed],
        &["algorithms"],
        &["calibrate", observed, "--guest", "idle"],
    ];
    for args in commands {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = migcast(args).stdout(writer).stderr(Stdio::piped()).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{args:?}: {} {said}", output.status);
        assert!(!said.contains("migcast:") && !said.contains("panicked"), "{args:?}: {said}");
    }
}

#[test]
fn auto_converge_is_forecast_with_how_busy_the_vcpus_were() {
    let recorded = "  vCPUs      busy 40 % of their time, recorded\n";
    let plain = table("10.0.2", &[]);
    assert!(!plain.contains("vCPUs") && !plain.contains("vcpu-busy"), "{plain}");
    for asked in [&["--set", "auto-converge=on"][..], &["--manager", "vdsm"]] {
        let slowed = table("10.0.2", asked);
        assert!(slowed.contains(recorded) && slowed.contains("vcpu-busy 40%"), "{slowed}");
        assert!(!slowed.contains("taken for always busy"), "{slowed}");
    }
    let stated = table("10.0.2", &["--set", "auto-converge=on", "--set", "vcpu-busy=70%"]);
    assert!(stated.contains("vcpu-busy 70%") && !stated.contains("recorded\n"), "{stated}");
    // Xen slows nobody.
    let other = table("10.0.2", &["--algorithm", "xen"]);
    assert!(!other.contains("vCPUs"), "{other}");
}

#[test]
fn history_info_tells_how_busy_the_vcpus_were() {
    let dir = tempfile::tempdir().unwrap();
    history(dir.path(), "10.0.2", 5);
    let said = |more: &[&str]| {
        let info = migcast(&["history", "info", dir.path().to_str().unwrap()]).args(more).output().unwrap();
        String::from_utf8(info.stdout).unwrap()
    };
    let screen = said(&[]);
    assert!(screen.contains("  vCPUs       2, busy 20 % of their time; those that work, 40 %\n"), "{screen}");
    let json: serde_json::Value = serde_json::from_str(&said(&["--json"])).unwrap();
    let time = &json["recorded"]["vcpu_time"];
    assert_eq!((time["busy_seconds"].as_f64(), time["busy_share"].as_f64()), (Some(4.0), Some(0.4)));
}
