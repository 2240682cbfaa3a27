//! `migcast record --xen` against Xen's libraries without Xen: slow, failing, losing their domain.
#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use migcast_history::reader::History;

/// The libraries and the helper, compiled once.
static COMPILED: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
    let dir = tempfile::tempdir().unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fake_xen");
    let compile = |kind: &str, from: &str, to: &str, more: &[&str]| {
        let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let mut command = Command::new(rustc);
        command.args(["--edition", "2024", "-O", "--crate-type", kind]).args(more).arg(source.join(from)).arg("-o");
        let output = command.arg(dir.path().join(to)).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    compile("cdylib", "libraries.rs", "libxenctrl.so.4.17", &[]);
    compile("cdylib", "libraries.rs", "libxenctrl.so.4.15", &["--cfg", "before_4_16"]);
    fs::copy(dir.path().join("libxenctrl.so.4.17"), dir.path().join("libxenstore.so.4")).unwrap();
    compile("bin", "helper.rs", "libxl-save-helper", &[]);
    dir
});

/// A dom0 with one domain, "web", of this id. All processes of the machine are dom0's, so each test has its own id.
struct Dom0 {
    dir: tempfile::TempDir,
    domain: u32,
}

impl Dom0 {
    fn new(domain: u32) -> Dom0 {
        let dir = tempfile::tempdir().unwrap();
        let hypervisor = dir.path().join("hypervisor");
        fs::create_dir_all(hypervisor.join("version")).unwrap();
        for (name, value) in [("type", "xen"), ("version/major", "4"), ("version/minor", "17"), ("version/extra", ".7")]
        {
            fs::write(hypervisor.join(name), format!("{value}\n")).unwrap();
        }
        fs::write(dir.path().join("domain"), domain.to_string()).unwrap();
        Dom0 { dir, domain }
    }

    fn set(&self, name: &str, value: &str) {
        fs::write(self.dir.path().join(name), value).unwrap();
    }

    fn out(&self) -> PathBuf {
        self.dir.path().join("history")
    }

    fn is_on(&self) -> bool {
        self.dir.path().join("on").exists()
    }

    fn calls(&self) -> Vec<String> {
        let calls = fs::read_to_string(self.dir.path().join("calls")).unwrap_or_default();
        calls.lines().map(str::to_owned).collect()
    }

    fn record(&self, domain: &str, more: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_migcast"));
        command.args(["record", "--xen", domain, "--out"]).arg(self.out()).args(more);
        self.inside(command)
    }

    fn inside(&self, mut command: Command) -> Command {
        command.arg("--hypervisor").arg(self.dir.path().join("hypervisor"));
        command.env("FAKE_XEN", self.dir.path()).env("LD_LIBRARY_PATH", COMPILED.path());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// A recording that has begun.
    fn begun(&self, more: &[&str]) -> Child {
        let child = self.record("web", more).spawn().unwrap();
        until("a few windows are recorded", || self.calls().len() > 4);
        child
    }

    fn helper(&self) -> Child {
        let mut command = Command::new(COMPILED.path().join("libxl-save-helper"));
        command.args(["--save-domain", "15", "11", &self.domain.to_string(), "1", "136", "0"]).spawn().unwrap()
    }
}

fn until(what: &str, is_so: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < Duration::from_secs(20), "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The only line, and exit code 1.
fn refusal(output: &Output) -> String {
    let said = said(output);
    assert_eq!((output.status.code(), said.lines().count()), (Some(1), 1), "{said}");
    said
}

#[test]
fn windows_are_what_the_log_says_and_holes_cost_nothing() {
    let dom0 = Dom0::new(60_001);
    let output = dom0.record("web", &["--duration", "1s", "--window", "50ms", "--cpu-limit", "100%"]).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("the guest stood for"), "{}", said(&output));
    assert!(said(&output).contains("writes to pages that came after the recording began"), "{}", said(&output));
    let calls = dom0.calls();
    assert_eq!((calls[0].as_str(), calls[calls.len() - 1].as_str(), dom0.is_on()), ("enable", "off", false));
    let history = History::open(&dom0.out()).unwrap();
    let manifest = history.manifest();
    let blocks: Vec<_> =
        manifest.blocks.iter().map(|block| (block.guest_physical_address, block.length_bytes)).collect();
    assert_eq!(blocks, [(Some(0), 2_000 * 4096), (Some(0xfeff8 * 4096), 8 * 4096)]);
    let told = (manifest.hypervisor.as_str(), manifest.hypervisor_version.as_str(), manifest.method.as_str());
    assert_eq!(told, ("xen", "4.17.7", "xen"));
    assert_eq!(manifest.guest_id.to_string(), "d4e4b915-30a6-4834-8b5b-403e6cd8574e");
    let cleans = calls.iter().filter(|call| *call == "clean").count();
    let timeline = history.timeline().unwrap();
    assert!(cleans >= 15 && timeline.entries().len() == cleans, "{cleans} readings");
    assert!(timeline.entries().iter().all(|entry| entry.window.written == 11), "ten pages and a special one");
}

#[test]
fn before_4_16_one_call_does_it_all() {
    let dom0 = Dom0::new(60_013);
    fs::write(dom0.dir.path().join("hypervisor/version/minor"), "15\n").unwrap();
    let output =
        dom0.record("web", &["--duration", "500ms", "--window", "50ms", "--cpu-limit", "100%"]).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let calls = dom0.calls();
    assert_eq!((calls[0].as_str(), calls[calls.len() - 1].as_str(), dom0.is_on()), ("enable", "off", false));
    let history = History::open(&dom0.out()).unwrap();
    assert_eq!(history.manifest().hypervisor_version, "4.15.7");
    let timeline = history.timeline().unwrap();
    assert!(timeline.entries().len() >= 5 && timeline.entries().iter().all(|entry| entry.window.written == 11));
}

#[test]
fn the_log_is_off_after_ctrl_c_and_after_a_kill() {
    for (domain, signal) in [(60_002, "INT"), (60_003, "TERM"), (60_004, "KILL")] {
        let dom0 = Dom0::new(domain);
        let mut child = dom0.begun(&[]);
        assert!(dom0.is_on());
        Command::new("kill").args(["-s", signal, &child.id().to_string()]).status().unwrap();
        child.wait().unwrap();
        until("the log is off", || !dom0.is_on());
        assert_eq!(dom0.calls().iter().filter(|call| *call == "off").count(), 1, "{signal}");
    }
}

#[test]
fn a_log_that_is_on_is_left_alone() {
    let dom0 = Dom0::new(60_005);
    dom0.set("on", "");
    let output = dom0.record("web", &["--duration", "1s"]).output().unwrap();
    let said = refusal(&output);
    assert!(said.contains("its log is on already") && said.contains("passed-through devices"), "{said}");
    assert_eq!((dom0.calls(), dom0.is_on()), (vec!["enable".to_owned()], true));
    let release = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_migcast"));
        command.args(["record", "--release", "web"]);
        dom0.inside(command).output().unwrap()
    };
    let mut helper = dom0.helper();
    assert!(refusal(&release()).contains("is being migrated"));
    helper.kill().unwrap();
    helper.wait().unwrap();
    assert!(dom0.is_on());
    assert!(release().status.success() && !dom0.is_on());
}

#[test]
fn a_migration_has_the_log_for_itself() {
    let dom0 = Dom0::new(60_006);
    let child = dom0.begun(&["--cpu-limit", "100%"]);
    let mut helper = dom0.helper();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(5), "{}", said(&output));
    assert!(said(&output).contains("the guest is being migrated"), "{}", said(&output));
    // Neither read nor turned off any more.
    assert_eq!((dom0.calls().last().unwrap().as_str(), dom0.is_on()), ("clean", true));
    assert!(refusal(&dom0.record("web", &["--name", "again"]).output().unwrap()).contains("not empty"));
    fs::remove_dir_all(dom0.out()).unwrap();
    assert!(refusal(&dom0.record("web", &[]).output().unwrap()).contains("is being migrated"));
    // Killed while it migrates: the child leaves the log alone, too.
    helper.kill().unwrap();
    helper.wait().unwrap();
}

#[test]
fn a_migration_that_is_seen_between_two_readings_ends_the_recording_too() {
    let dom0 = Dom0::new(60_011);
    // The domain is looked at once a second, its log not before half a minute.
    let child = dom0.record("web", &["--window", "30s"]).spawn().unwrap();
    until("the log is on", || dom0.is_on());
    let mut helper = dom0.helper();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(5), "{}", said(&output));
    // Neither read nor turned off.
    assert_eq!((dom0.calls(), dom0.is_on()), (vec!["enable".to_owned()], true));
    helper.kill().unwrap();
    helper.wait().unwrap();
}

#[test]
fn a_log_that_does_not_go_off_at_once_goes_off_after_all() {
    let dom0 = Dom0::new(60_012);
    dom0.set("busy", "");
    let output = dom0.record("web", &["--duration", "500ms"]).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("could not be turned off"), "{}", said(&output));
    until("the log is off", || !dom0.is_on());
}

#[test]
fn a_recorder_that_is_killed_while_the_guest_migrates_leaves_the_log() {
    let dom0 = Dom0::new(60_007);
    // A window so long that the recorder does not look before it is killed.
    let mut child = dom0.record("web", &["--window", "30s"]).spawn().unwrap();
    until("the log is on", || dom0.is_on());
    let mut helper = dom0.helper();
    child.kill().unwrap();
    child.wait().unwrap();
    std::thread::sleep(Duration::from_millis(500));
    assert!(dom0.is_on(), "it is the migration's");
    helper.kill().unwrap();
    helper.wait().unwrap();
}

#[test]
fn a_domain_that_ends_ends_the_recording() {
    let dom0 = Dom0::new(60_008);
    let child = dom0.begun(&[]);
    dom0.set("gone", "");
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(4), "{}", said(&output));
    assert!(History::open(&dom0.out()).is_ok());
}

#[test]
fn slow_readings_make_longer_windows_and_are_told() {
    let dom0 = Dom0::new(60_009);
    dom0.set("slow", "60");
    let output = dom0.record("web", &["--duration", "1s", "--window", "50ms"]).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("a longer --window makes that less"), "{}", said(&output));
    assert!(said(&output).contains("because a scan took too long"), "{}", said(&output));
}

#[test]
fn what_cannot_be_recorded_is_told_in_one_line() {
    let dom0 = Dom0::new(60_010);
    for (domain, expected) in
        [("mail", "no domain has the name or id"), ("0", "cannot log itself"), ("Domain-0", "itself")]
    {
        let output = dom0.record(domain, &[]).output().unwrap();
        assert!(refusal(&output).contains(expected), "{}", said(&output));
    }
    assert!(refusal(&dom0.record("web", &["--sample", "1/4"]).output().unwrap()).contains("tells of every page"));
    dom0.set("refuse", "95");
    assert!(refusal(&dom0.record("60010", &[]).output().unwrap()).contains("shadow paging"));
    dom0.set("closed", "");
    assert!(refusal(&dom0.record("web", &[]).output().unwrap()).contains("run it in dom0, as root"));
    fs::write(dom0.dir.path().join("hypervisor/version/minor"), "99\n").unwrap();
    assert!(refusal(&dom0.record("web", &[]).output().unwrap()).contains("libxenctrl.so.4.99"));
    fs::write(dom0.dir.path().join("hypervisor/type"), "kvm\n").unwrap();
    assert!(refusal(&dom0.record("web", &[]).output().unwrap()).contains("does not run Xen"));
    assert!(!dom0.out().exists() && !dom0.is_on());
}
