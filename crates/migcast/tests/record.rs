//! `migcast record` as its users run it: exit codes, one line each, histories that stay readable.
#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use migcast_history::reader::History;

/// A process to record, and a place for the history. It ends with the test.
struct Lab {
    guest: Child,
    dir: tempfile::TempDir,
}

impl Lab {
    fn new() -> Lab {
        let guest = Command::new("sleep").arg("600").spawn().unwrap();
        Lab { guest, dir: tempfile::tempdir().unwrap() }
    }

    fn out(&self) -> PathBuf {
        self.dir.path().join("history")
    }

    fn recorder(&self, more: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_migcast"));
        command.args(["record", "--pid", &self.guest.id().to_string(), "--window", "20ms", "--out"]).arg(self.out());
        command.args(more).stdin(Stdio::null()).stderr(Stdio::piped());
        command
    }

    /// Starts a recording and waits until its manifest is there.
    fn start(&self) -> Child {
        let child = self.recorder(&[]).spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        while !self.out().join("manifest.json").exists() {
            assert!(Instant::now() < deadline, "no manifest after a minute");
            std::thread::sleep(Duration::from_millis(5));
        }
        child
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // It may have been killed by the test already.
        let _ = self.guest.kill();
        self.guest.wait().unwrap();
    }
}

fn signal(pid: u32, signal: &str) {
    assert!(Command::new("kill").args([signal, &pid.to_string()]).status().unwrap().success());
}

/// Exit code and what was said in the end, which must be one line after the one that tells the sample.
fn end_of(mut child: Child) -> (i32, String) {
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    let code = child.wait().unwrap().code().unwrap();
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 2, "{said}");
    assert!(lines[0].starts_with("migcast: --sample auto: "), "{said}");
    (code, lines[1].to_owned())
}

fn failure(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(said.lines().count(), 1, "{said}");
    said
}

fn windows(out: &Path) -> usize {
    let history = History::open(out).unwrap();
    assert!(history.problems().is_empty(), "{:?}", history.problems());
    history.timeline().unwrap().entries().len()
}

#[test]
fn a_duration_that_is_reached_is_exit_0() {
    let lab = Lab::new();
    let output = lab.recorder(&["--duration", "400ms", "--name", "my guest", "--cpu-limit", "50%"]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("migcast: recorded; kept ") && said.contains("% of one core"), "{said}");
    assert!(said.starts_with("migcast: --sample auto: ") && said.contains(" pages, because a look"), "{said}");
    assert!(output.stdout.is_empty());
    assert!(windows(&lab.out()) >= 1);
    assert_eq!(History::open(&lab.out()).unwrap().manifest().guest_name, "my guest");
}

#[test]
fn ctrl_c_sigterm_and_the_guests_end_have_their_exit_codes() {
    for (how, code, words) in [("-INT", 130, "stopped by Ctrl-C"), ("-TERM", 143, "stopped by SIGTERM")] {
        let lab = Lab::new();
        let child = lab.start();
        signal(child.id(), how);
        let (got, said) = end_of(child);
        assert_eq!(got, code, "{said}");
        assert!(said.contains(words), "{said}");
    }
    let mut lab = Lab::new();
    let child = lab.start();
    lab.guest.kill().unwrap();
    let (got, said) = end_of(child);
    assert_eq!(got, 4, "{said}");
    assert!(said.contains("the guest ended"), "{said}");
}

#[test]
fn a_killed_recorder_leaves_a_history_that_says_what_was_lost() {
    // Moments all over the first second; more of them belong to a trial by hand.
    for moment in [0, 3, 40, 170, 390, 910] {
        let lab = Lab::new();
        let mut child = lab.start();
        std::thread::sleep(Duration::from_millis(moment));
        signal(child.id(), "-KILL");
        child.wait().unwrap();
        match History::open(&lab.out()) {
            // No segment is closed in the first minute: all that can be lost is the open one.
            Ok(history) => assert!(history.segments().is_empty() && history.problems().len() <= 1),
            Err(error) => assert!(!error.to_string().contains('\n'), "{error}"),
        }
    }
}

#[test]
fn bad_input_is_one_line_and_exit_1() {
    let lab = Lab::new();
    std::fs::create_dir(lab.out()).unwrap();
    std::fs::write(lab.out().join("mine"), "x").unwrap();
    let said = failure(&lab.recorder(&[]).output().unwrap());
    assert!(said.contains("not empty; a history is written to a new or an empty directory"), "{said}");

    let record = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_migcast"));
        command.arg("record").args(arguments).arg("--out").arg(lab.dir.path().join("other"));
        command.output().unwrap()
    };
    let said = failure(&record(&["--pid", "4000000"]));
    assert!(said.contains("no process has the id 4000000"), "{said}");
    let said = failure(&record(&["--qmp", "/nowhere/qmp"]));
    assert!(said.contains("no such socket; is the guest running?"), "{said}");
    for (option, value) in [("--window", "100"), ("--duration", "60"), ("--cpu-limit", "5"), ("--sample", "0.5")] {
        let said = failure(&record(&["--pid", "1", option, value]));
        assert!(said.contains(option), "{said}");
    }
    let said = failure(&record(&["--qmp", "/dev/null"]));
    assert!(said.contains("not a socket"), "{said}");
}

#[test]
fn usage_errors_are_exit_2() {
    let wrong = [
        &["--out", "x"][..],
        &["--pid", "1", "--qmp", "s", "--out", "x"],
        &["--pid", "1", "--out", "x", "--uri", "qemu:///system"],
    ];
    for arguments in wrong {
        let output = Command::new(env!("CARGO_BIN_EXE_migcast")).arg("record").args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    }
}
