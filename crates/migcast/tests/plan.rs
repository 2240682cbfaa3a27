//! `migcast plan`: the script that carries a plan out decides as the simulation does.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where it stopped")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

const FLEET: &str = r#"
link = "1Gbit/s"
[[host]]
name = "a"
memory = "8GiB"
[[host]]
name = "b"
memory = "3GiB"
[[host]]
name = "c"
memory = "2GiB"
[[guest]]
name = "one"
host = "a"
memory = "1GiB"
dirty_rate = "500pages/s"
to = "b"
[[guest]]
name = "two * 2"
host = "a"
memory = "1GiB"
dirty_rate = "500pages/s"
to = "b"
after = ["one"]
[[guest]]
name = "three"
host = "a"
memory = "1GiB"
dirty_rate = "500pages/s"
to = "c"
not_with = ["two * 2"]
set = ["downtime-limit=100ms"]
[[guest]]
name = "leaves"
host = "b"
memory = "2GiB"
dirty_rate = "0pages/s"
to = "a"
not_before = "1s"
"#;

fn migcast(dir: &Path, arguments: &[&str]) -> Output {
    let program = env!("CARGO_BIN_EXE_migcast");
    Command::new(program).current_dir(dir).args(arguments).output().unwrap()
}

/// A virsh that takes a moment, says what it was asked for, and fails for the guest that is called `fails`.
fn virsh(dir: &Path) {
    let script = r#"#!/bin/sh
case "$*" in *migrate-setmaxdowntime*) echo "$*" >> limits; exit 0;; esac
while [ $# -gt 0 ]; do
    [ "$1" != --domain ] || guest=$2
    shift
done
echo "begin $guest" >> log
sleep 0.3
[ "$guest" != "$FAILS" ] || exit 1
echo "end $guest" >> log
"#;
    let path = dir.join("virsh");
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// A kubectl that keeps the guest of each migration it is told to create, and says that it has succeeded when asked the third
/// time.
fn kubectl(dir: &Path) {
    let script = r#"#!/bin/sh
case "$*" in
*create*)
    guest=$(sed -n 's/^  vmiName: "\(.*\)"/\1/p')
    echo "begin $guest" >> log
    echo "virtualmachineinstancemigration.kubevirt.io/of-$guest" ;;
*get*)
    for word do case $word in *of-*) guest=${word##*of-};; esac; done
    echo . >> "asked-$guest"
    if [ "$(wc -l < "asked-$guest")" -lt 3 ]; then echo Running; else echo "end $guest" >> log; echo Succeeded; fi ;;
esac
"#;
    let path = dir.join("kubectl");
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Plans with these options, runs the script beside a false virsh, and returns what that was asked for, and the script's own
/// exit code.
fn carried_out(fails: &str, options: &[&str]) -> (Vec<String>, Option<i32>) {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("fleet.toml"), FLEET).unwrap();
    virsh(dir.path());
    kubectl(dir.path());
    let mut arguments = vec!["plan", "fleet.toml", "--draws", "5", "--out", "plan.sh"];
    arguments.extend(options);
    let planned = migcast(dir.path(), &arguments);
    assert!(planned.status.success(), "{}", String::from_utf8_lossy(&planned.stderr));
    let path = format!("{}:{}", dir.path().display(), std::env::var("PATH").unwrap());
    let script =
        Command::new("bash").arg("plan.sh").current_dir(dir.path()).env("PATH", path).env("FAILS", fails).output();
    let script = script.unwrap();
    let log = fs::read_to_string(dir.path().join("log")).unwrap();
    (log.lines().map(str::to_owned).collect(), script.status.code())
}

fn place(log: &[String], line: &str) -> usize {
    log.iter().position(|other| other == line).unwrap_or_else(|| panic!("no `{line}` in {log:?}"))
}

#[test]
fn the_script_for_virsh_begins_what_may_begin_and_waits_for_what_it_has_to_wait_for() {
    waits_for_what_it_has_to_wait_for("virsh");
}

#[test]
fn so_does_the_script_for_kubevirt() {
    waits_for_what_it_has_to_wait_for("kubevirt");
}

fn waits_for_what_it_has_to_wait_for(platform: &str) {
    let (log, code) = carried_out("", &["--export", platform]);
    assert_eq!((log.len(), code), (8, Some(0)), "{log:?}");
    assert!(place(&log, "end one") < place(&log, "begin two * 2"));
    let apart = place(&log, "end three") < place(&log, "begin two * 2")
        || place(&log, "end two * 2") < place(&log, "begin three");
    assert!(apart, "{log:?}");
    // b has 1 GiB left, so of one and two only the first has room before the other guest has left.
    assert!(place(&log, "end leaves") < place(&log, "begin two * 2"), "{log:?}");
}

#[test]
fn limits_are_kept_and_what_waits_for_a_failed_move_is_not_moved() {
    let (log, code) = carried_out("one", &["--export", "virsh", "--limits", "1,1,1"]);
    assert_eq!(code, Some(1));
    assert!(!log.contains(&"begin two * 2".to_owned()), "{log:?}");
    // One at a time: each begins when the one before has ended, or failed.
    for pair in log.windows(2) {
        assert!(pair[0].starts_with("end") || pair[0] == "begin one" || pair[1].starts_with("end"), "{log:?}");
    }
}
