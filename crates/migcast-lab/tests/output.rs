//! What the laboratory prints, and to whom.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where it stopped")]

use std::process::{Command, Stdio};

fn guest_list() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_migcast-lab"));
    command.args(["guest", "list"]).stderr(Stdio::piped());
    command
}

#[test]
fn who_has_heard_enough_ends_nothing() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = guest_list().stdout(writer).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

#[test]
fn what_could_not_be_written_is_told() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = guest_list().stdout(full).output().unwrap();
    assert!(String::from_utf8(output.stderr).unwrap().contains("migcast-lab: standard output: No space left"));
}

#[test]
fn a_guest_of_xen_named_twice_is_refused_before_anything_is_fetched_or_booted() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let mut command = Command::new(env!("CARGO_BIN_EXE_migcast-lab"));
    command.args(["xen", "verify", "--guest", "still", "--guest", "idle", "--guest", "still", "--out"]).arg(&out);
    // No cache to fetch anything into.
    let output = command.env("XDG_CACHE_HOME", "/dev/null").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said, "migcast-lab: --guest still: given twice, allowed: each once\n");
}
