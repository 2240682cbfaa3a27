//! `migcast sweep`: its pictures, and that its points are what `migcast predict` says.
#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

use std::path::Path;
use std::process::{Command, Stdio};

fn migcast(args: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_migcast"));
    let output = command.args(args).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stderr.is_empty(), "no progress bar but on a terminal");
    String::from_utf8(output.stdout).unwrap()
}

fn json(args: &[&str]) -> serde_json::Value {
    serde_json::from_str(&migcast(args)).unwrap()
}

const RATES: [&str; 8] =
    ["sweep", "--memory", "64MiB", "--link", "1Gbit/s", "--vary", "dirty-rate=8000,64000pages/s", "--vary"];

fn picture(path: &Path, more: &[&str]) -> Vec<u8> {
    let mut args = RATES.to_vec();
    args.extend(["algorithm=qemu,xen-classic", "--plot", path.to_str().unwrap()]);
    args.extend(more);
    migcast(&args);
    std::fs::read(path).unwrap()
}

#[test]
fn a_picture_names_its_axes_its_curves_and_what_does_not_converge() {
    let dir = tempfile::tempdir().unwrap();
    let svg = picture(&dir.path().join("sweep.svg"), &["--log-x", "--log-y"]);
    let again = picture(&dir.path().join("again.svg"), &["--log-x", "--log-y"]);
    assert!(svg == again, "the same sweep gives the same picture");
    let linear = picture(&dir.path().join("linear.svg"), &[]);
    assert!(svg != linear, "a logarithmic axis is another");
    let svg = String::from_utf8(svg).unwrap();
    for text in [
        "a guest (64 MiB) over 1 Gbit/s",
        "algorithm qemu",
        "algorithm xen-classic",
        "× does not complete",
        "dirty-rate, pages/s",
        "migration time, s",
        "downtime, ms",
    ] {
        assert!(svg.contains(text), "`{text}` is missing");
    }
    let png = picture(&dir.path().join("sweep.png"), &["--log-y"]);
    assert!(png.starts_with(b"\x89PNG"));
}

#[test]
fn where_all_converges_nothing_is_said_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sweep.svg");
    let mut args = RATES.to_vec();
    args.extend(["algorithm=xen-classic,xen", "--plot", path.to_str().unwrap()]);
    migcast(&args);
    assert!(!std::fs::read_to_string(path).unwrap().contains("does not complete"));
}

#[test]
fn a_point_of_a_sweep_is_what_predict_says() {
    let fixed = ["--memory", "64MiB", "--writes", "sequential", "--json"];
    let predicted = |rate, link| json(&[&["predict", "--dirty-rate", rate, "--link", link][..], &fixed].concat());
    let swept = json(
        &[&["sweep", "--vary", "dirty-rate=1000pages/s,9000pages/s", "--vary", "link=1Gbit/s,2Gbit/s"][..], &fixed]
            .concat(),
    );
    let points = swept["points"].as_array().unwrap();
    let order = [
        ("1000pages/s", "1Gbit/s"),
        ("9000pages/s", "1Gbit/s"),
        ("1000pages/s", "2Gbit/s"),
        ("9000pages/s", "2Gbit/s"),
    ];
    assert_eq!(points.len(), order.len());
    for (point, (rate, link)) in points.iter().zip(order) {
        let alone = predicted(rate, link);
        for key in ["migration_time_seconds", "downtime_seconds", "sent_bytes", "iterations", "stop_reasons"] {
            assert_eq!(point[key], alone[key], "{rate} over {link}: {key}");
        }
        assert_eq!(point["link_bits_per_second"], alone["link"]["rate_bits_per_second"]);
        assert_eq!(point["dirty_rate_pages_per_second"], alone["model"]["dirty_rate_pages_per_second"]);
    }
}

#[test]
fn what_never_ends_is_null() {
    let swept =
        json(&["sweep", "--memory", "64MiB", "--vary", "dirty-rate=64000pages/s", "--link", "1Gbit/s", "--json"]);
    let point = &swept["points"][0];
    assert!(point["migration_time_seconds"]["p50"].is_null() && point["converged"] == 0, "{point}");
}
