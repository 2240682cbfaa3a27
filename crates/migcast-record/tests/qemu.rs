//! A real QEMU under emulation: recorded with private and with shared memory, migrated, killed.
#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use migcast_history::format::WrittenMeans;
use migcast_history::reader::History;
use migcast_history::windows::State;
use migcast_record::{
    Guest, Interrupt, Life, Listener, Monitor, MonitorError, Progress, QmpSocket, Recording, SampleChoice, Settings,
    Sight, Stop, Summary, SystemClock, VcpuClock, Watch, qemu, record,
};
use rustix::fs::FallocateFlags;

/// A guest without an operating system: its firmware finds nothing to boot and idles.
struct Machine {
    child: Child,
    dir: tempfile::TempDir,
}

impl Machine {
    fn start(more: &[&str]) -> Machine {
        Machine::start_on("tcg", more)
    }

    fn start_on(accelerator: &str, more: &[&str]) -> Machine {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("qmp");
        let child = Command::new("qemu-system-x86_64")
            .args(["-accel", accelerator, "-m", "128", "-display", "none", "-nic", "none", "-name", "idle"])
            .arg("-qmp")
            .arg(format!("unix:{},server=on,wait=off", socket.display()))
            .args(more)
            .stdin(Stdio::null())
            .spawn()
            .expect("qemu-system-x86_64 runs: `cargo xtask setup` installs what the tests need");
        let machine = Machine { child, dir };
        machine.wait_until("its monitor answers", |machine| machine.ask(r#"{"execute":"query-status"}"#).is_ok());
        machine
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("qmp")
    }

    fn ask(&self, command: &str) -> Result<serde_json::Value, MonitorError> {
        QmpSocket::new(&self.socket()).exchange(command)
    }

    /// Asks until it is so; fails after a minute.
    fn wait_until(&self, what: &str, so: impl Fn(&Machine) -> bool) {
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
        while !so(self) {
            assert!(std::time::Instant::now() < deadline, "waited in vain until {what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// CPU time of all its threads.
    fn cpu_seconds(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        let ticks: f64 = fields[11..13].iter().map(|ticks| ticks.parse::<f64>().unwrap()).sum();
        ticks / rustix::param::clock_ticks_per_second() as f64
    }

    fn status(&self, field: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with(field)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// Blocks of its memfd, where it has one.
    fn memfd_blocks(&self) -> Option<u64> {
        self.memfd().map(|path| std::fs::metadata(path).unwrap().blocks())
    }

    fn memfd(&self) -> Option<PathBuf> {
        let descriptors = std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap();
        descriptors.flatten().map(|entry| entry.path()).find(|path| {
            let link = std::fs::read_link(path);
            link.is_ok_and(|link| link.to_string_lossy().starts_with("/memfd:memory-backend-memfd"))
        })
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// Does something to the machine after so many windows.
struct After<'a> {
    windows: u64,
    act: Option<Box<dyn FnOnce() + 'a>>,
    warnings: Vec<String>,
    /// Stops the recording this many windows later.
    then: u64,
    seen: u64,
}

impl<'a> After<'a> {
    fn windows(windows: u64, then: u64, act: impl FnOnce() + 'a) -> After<'a> {
        After { windows, act: Some(Box::new(act)), warnings: Vec::new(), then, seen: 0 }
    }
}

impl Listener for After<'_> {
    fn interrupted(&mut self) -> Option<Interrupt> {
        (self.seen >= self.windows + self.then).then_some(Interrupt::Interrupted)
    }

    fn progress(&mut self, progress: &Progress) {
        self.seen = progress.windows;
        if self.seen == self.windows
            && let Some(act) = self.act.take()
        {
            act();
        }
    }

    fn warn(&mut self, warning: &str) {
        self.warnings.push(warning.to_owned());
    }
}

/// Takes a guest that stands still for one that runs.
struct Unheeding(Box<dyn Watch>);

impl Watch for Unheeding {
    fn look(&mut self) -> Sight {
        match self.0.look() {
            Sight::Standing(_) => Sight::Clear,
            sight => sight,
        }
    }

    fn vcpus(&mut self) -> Option<Vec<VcpuClock>> {
        self.0.vcpus()
    }

    fn ended(&mut self) -> bool {
        self.0.ended()
    }
}

fn run(machine: &Machine, out: &Path, listener: &mut dyn Listener) -> Summary {
    run_guest(qemu::open(&machine.socket()).unwrap(), out, listener)
}

/// By the dirty log; nobody restores anything if the recorder is killed.
fn open_log(machine: &Machine) -> Guest {
    let nobody = || {
        let mut command = Command::new("sh");
        command.args(["-c", "cat >/dev/null"]);
        command
    };
    qemu::open_dirty_log(&machine.socket(), Box::new(nobody)).unwrap()
}

fn run_guest(guest: Guest, out: &Path, listener: &mut dyn Listener) -> Summary {
    let settings = Settings {
        window: Duration::from_millis(100),
        duration: Some(Duration::from_secs(120)),
        cpu_limit: 1.0,
        sample: SampleChoice::All,
        keep_pages: None,
        keep_index: None,
        seed: 1,
        program: "test".to_owned(),
    };
    let mut clock = SystemClock::start(guest.watch.descriptor());
    match record(guest, &settings, out, &mut clock, listener).unwrap() {
        Recording::Kept(summary) => summary,
        Recording::Stopped(stop) => panic!("{stop:?}"),
    }
}

fn states(history: &History) -> Vec<State> {
    history.timeline().unwrap().entries().iter().map(|entry| entry.window.state).collect()
}

fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

#[test]
fn private_and_shared_memory_are_recorded_and_left_alone() {
    let shared = ["-object", "memory-backend-memfd,id=ram,size=128M,share=on", "-machine", "pc,memory-backend=ram"];
    for more in [&[][..], &shared[..]] {
        let machine = Machine::start(more);
        // Stopped, it changes nothing by itself: what differs afterwards is the recorder's doing. Such a guest would be
        // waited for.
        machine.ask(r#"{"execute":"stop"}"#).unwrap();
        let mut guest = qemu::open(&machine.socket()).unwrap();
        guest.watch = Box::new(Unheeding(guest.watch));
        let (rss, tables, blocks) = (machine.status("VmRSS"), machine.status("VmPTE"), machine.memfd_blocks());
        let out = machine.dir.path().join("history");
        let summary = run_guest(guest, &out, &mut After::windows(20, 0, || {}));
        assert_eq!((summary.windows_lost, summary.unreadable), (0, 0));
        let history = History::open(&out).unwrap();
        let manifest = history.manifest();
        assert_eq!((manifest.guest_name.as_str(), manifest.accelerator.as_str()), ("idle", "tcg"));
        let lengths: Vec<u64> = manifest.blocks.iter().map(|block| block.length_bytes).collect();
        assert_eq!(lengths[0], 128 << 20, "the largest block comes first: {:?}", manifest.blocks);
        assert!(manifest.blocks.iter().any(|block| block.name.ends_with("vga.vram")));
        assert!(history.timeline().unwrap().entries().iter().all(|entry| entry.window.written == 0));
        assert_eq!(machine.memfd_blocks(), blocks);
        // It stands still: its vCPU uses nothing.
        assert_eq!(history.vcpu_time(0..u32::MAX).unwrap().busy_ns, 0);
        // Its monitor allocates a little for the answers.
        let growth = (machine.status("VmRSS").saturating_sub(rss), machine.status("VmPTE").saturating_sub(tables));
        assert!(growth.0 < 1024 && growth.1 < 64, "RSS and page tables grew by {growth:?} KiB");
        let status = machine.ask(r#"{"execute":"query-status"}"#).unwrap();
        assert_eq!(status["return"]["status"], "paused", "the recorder neither stops nor resumes a guest");
    }
}

/// What a balloon, virtio-mem or free page reporting makes of a guest's memory: holes, while it is recorded.
#[test]
fn memory_that_a_guest_gives_back_stays_given_back() {
    let shared = ["-object", "memory-backend-memfd,id=ram,size=128M,share=on", "-machine", "pc,memory-backend=ram"];
    let machine = Machine::start(&shared);
    machine.ask(r#"{"execute":"stop"}"#).unwrap();
    let memory = File::options().read(true).write(true).open(machine.memfd().unwrap()).unwrap();
    // Where the firmware has nothing: a quarter of the memory, and half of that is given back.
    memory.write_all_at(&vec![7; 32 << 20], 64 << 20).unwrap();
    let full = machine.memfd_blocks().unwrap();
    let punch = || {
        let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(&memory, mode, 72 << 20, 16 << 20).unwrap();
    };
    let mut guest = qemu::open(&machine.socket()).unwrap();
    guest.watch = Box::new(Unheeding(guest.watch));
    let out = machine.dir.path().join("history");
    run_guest(guest, &out, &mut After::windows(5, 10, punch));
    let history = History::open(&out).unwrap();
    let written: u64 = history.timeline().unwrap().entries().iter().map(|entry| u64::from(entry.window.written)).sum();
    assert_eq!(written, (16 << 20) / 4096, "it was read before, and found gone");
    assert_eq!(machine.memfd_blocks(), Some(full - (16 << 20) / 512));
}

/// A disk that boots into these instructions (16 bits), and QEMU's option for it.
fn boot_sector(dir: &tempfile::TempDir, code: &[u8]) -> String {
    let image = dir.path().join("disk");
    let mut sector = vec![0; 512];
    sector[..code.len()].copy_from_slice(code);
    (sector[510], sector[511]) = (0x55, 0xaa);
    std::fs::write(&image, sector).unwrap();
    format!("file={},format=raw,if=ide", image.display())
}

#[test]
fn how_busy_each_vcpu_was_is_kept() {
    // Firmware alone: a boot sector in which the first vCPU spins (jmp $); the second is never started.
    let dir = tempfile::tempdir().unwrap();
    let drive = boot_sector(&dir, &[0xeb, 0xfe]);
    let busy = |accelerator: &str| {
        let machine = Machine::start_on(accelerator, &["-smp", "2", "-drive", &drive]);
        let out = machine.dir.path().join("history");
        // The firmware waits some seconds for nobody before it boots.
        machine.wait_until("it spins", |machine| {
            let seconds = || machine.cpu_seconds();
            let before = seconds();
            std::thread::sleep(Duration::from_millis(500));
            seconds() - before > 0.2
        });
        run(&machine, &out, &mut After::windows(40, 0, || {}));
        History::open(&out).unwrap().vcpu_time(0..u32::MAX)
    };
    let time = busy("tcg,thread=multi").unwrap();
    assert_eq!(time.vcpus, 2);
    assert!(time.watched_ns > 2_000_000_000, "{time:?}");
    assert!((time.busy_share() / time.mean_share() - 2.0).abs() < 0.2, "one does all the work: {time:?}");
    assert_eq!(busy("tcg,thread=single"), None, "they share a thread");
}

/// How often each page was written, of a recording of all pages, and how many were zero in the end.
fn times_written(out: &Path) -> (BTreeMap<u32, usize>, u64) {
    let history = History::open(out).unwrap();
    let mut windows = history.stream(0..u32::MAX);
    let (mut times, mut zero) = (BTreeMap::new(), 0);
    while let Some(window) = windows.next_window().unwrap() {
        window.written.iter().for_each(|page| *times.entry(*page).or_default() += 1);
        zero = window.zero_at_start.count();
    }
    (times, zero.into())
}

/// Whether the guest runs, and what migration settings it has.
fn settings(machine: &Machine) -> serde_json::Value {
    ["query-status", "query-migrate-parameters", "query-migrate-capabilities"]
        .map(|command| machine.ask(&format!(r#"{{"execute":"{command}"}}"#)).unwrap()["return"].take())
        .into()
}

#[test]
fn the_dirty_log_tells_of_what_was_written_with_what_was_there() {
    // For ever: mov byte [es:di], 7 to eight pages from 0x20000 on.
    let code = [
        0xb8, 0x00, 0x20, 0x8e, 0xc0, 0x31, 0xff, 0x26, 0xc6, 0x05, 0x07, 0x81, 0xc7, 0x00, 0x10, 0x81, 0xff, 0x00,
        0x80, 0x75, 0xf2, 0xeb, 0xee,
    ];
    let dir = tempfile::tempdir().unwrap();
    let machine = Machine::start(&["-drive", &boot_sector(&dir, &code)]);
    machine.wait_until("it has written", |machine| {
        let command = r#"{"execute":"human-monitor-command","arguments":{"command-line":"xp /1xb 0x27000"}}"#;
        machine.ask(command).unwrap()["return"].as_str().unwrap().contains("0x07")
    });
    let set = r#"{"execute":"migrate-set-parameters","arguments":{"downtime-limit":123,"max-bandwidth":1000000}}"#;
    let capability = r#"{"capability":"auto-converge","state":true}"#;
    let turn_on = format!(r#"{{"execute":"migrate-set-capabilities","arguments":{{"capabilities":[{capability}]}}}}"#);
    machine.ask(set).unwrap();
    machine.ask(&turn_on).unwrap();
    let before = settings(&machine);
    assert_eq!(before[1]["downtime-limit"], 123);
    assert!(
        before[2].as_array().unwrap().iter().any(|now| now["capability"] == "auto-converge" && now["state"] == true)
    );

    let (compared, logged) = (dir.path().join("compared"), dir.path().join("logged"));
    run(&machine, &compared, &mut After::windows(30, 0, || {}));
    let mut listener = After::windows(30, 0, || {});
    let summary = run_guest(open_log(&machine), &logged, &mut listener);
    assert_eq!(settings(&machine), before, "the guest is left as it was");
    assert_eq!(listener.warnings, Vec::<String>::new());
    assert!(summary.migrating.is_zero() && summary.gaps.is_zero(), "{summary:?}");

    let ((seen, zero_seen), (told, zero_told)) = (times_written(&compared), times_written(&logged));
    for page in 0x20..0x28 {
        assert_eq!(seen.get(&page), None, "page {page:#x} never changes");
        assert!(told[&page] >= 25, "page {page:#x} is written in every window: {told:?}");
    }
    assert!(told.len() < 100, "what nobody writes is not told of: {told:?}");
    assert!(zero_told > 20_000 && zero_told.abs_diff(zero_seen) < 100, "{zero_told} zero pages, {zero_seen} seen");
    assert_eq!(History::open(&logged).unwrap().manifest().written_means, WrittenMeans::DirtyLog);
}

#[test]
fn a_dirty_log_that_somebody_else_ends_is_left_to_them() {
    let machine = Machine::start(&[]);
    let out = machine.dir.path().join("history");
    let mut after = After::windows(15, 1000, || {
        machine.ask(r#"{"execute":"migrate_cancel"}"#).unwrap();
    });
    let before = settings(&machine);
    let summary = run_guest(open_log(&machine), &out, &mut after);
    assert!(matches!(summary.stop, Stop::MigrationBegan), "{:?}", summary.stop);
    assert_eq!(settings(&machine), before);
    let states = states(&History::open(&out).unwrap());
    assert!(states.first() == Some(&State::Recorded) && !states.contains(&State::Gap), "{states:?}");
}

#[test]
fn shared_memory_that_a_log_would_allocate_is_told_of() {
    let shared = ["-object", "memory-backend-memfd,id=ram,size=128M,share=on", "-machine", "pc,memory-backend=ram"];
    let machine = Machine::start(&shared);
    let warnings = open_log(&machine).warnings;
    assert!(
        warnings.len() == 1 && warnings[0].contains("MiB of shared memory that the guest has not touched"),
        "{warnings:?}"
    );
    assert_eq!(open_log(&Machine::start(&[])).warnings, Vec::<String>::new(), "private memory has no holes to fill");
}

#[test]
fn a_qemu_that_dies_ends_its_log_in_order() {
    let machine = Machine::start(&[]);
    let out = machine.dir.path().join("history");
    let pid = machine.child.id();
    let summary = run_guest(open_log(&machine), &out, &mut After::windows(30, 1000, || kill(pid)));
    assert!(matches!(summary.stop, Stop::GuestEnded), "{:?}", summary.stop);
    assert!(states(&History::open(&out).unwrap()).len() >= 30);
}

#[test]
fn a_qemu_that_dies_ends_the_recording_in_order() {
    let machine = Machine::start(&[]);
    let out = machine.dir.path().join("history");
    let pid = machine.child.id();
    // Looks confirm what was recorded before them, and nothing confirms the last windows.
    let summary = run(&machine, &out, &mut After::windows(30, 1000, || kill(pid)));
    assert!(matches!(summary.stop, Stop::GuestEnded), "{:?}", summary.stop);
    let history = History::open(&out).unwrap();
    assert!(history.problems().is_empty());
    let states = states(&history);
    assert!(states.len() >= 30, "{states:?}");
    let confirmed = states.iter().take_while(|&&state| state == State::Recorded).count();
    assert!(states[confirmed..].iter().all(|&state| state == State::Gap), "{states:?}");
    assert!(confirmed >= 1 && confirmed < states.len(), "{states:?}");
}

/// Pauses the machine after fifteen windows, sets it going whenever it is waited for, and stops the recording later.
struct Pausing<'a> {
    machine: &'a Machine,
    paused_at: Option<u64>,
    windows: u64,
    warnings: Vec<String>,
}

impl Listener for Pausing<'_> {
    fn interrupted(&mut self) -> Option<Interrupt> {
        self.paused_at.is_some_and(|at| self.windows > at + 30).then_some(Interrupt::Interrupted)
    }

    fn progress(&mut self, progress: &Progress) {
        self.windows = progress.windows;
        if self.windows == 15 {
            self.machine.ask(r#"{"execute":"stop"}"#).unwrap();
            self.paused_at = Some(self.windows);
        }
    }

    fn warn(&mut self, warning: &str) {
        if warning.starts_with("the guest is") {
            self.machine.ask(r#"{"execute":"cont"}"#).unwrap();
            self.warnings.push(warning.to_owned());
        }
    }
}

#[test]
fn a_paused_guest_is_waited_for_and_its_pause_is_a_gap() {
    let machine = Machine::start(&["-S"]);
    pause(&machine, qemu::open(&machine.socket()).unwrap());
}

#[test]
fn so_is_one_that_is_recorded_by_its_log_and_its_monitor_is_not_held_up() {
    let machine = Machine::start(&["-S"]);
    let before = settings(&machine);
    pause(&machine, open_log(&machine));
    assert_eq!(settings(&machine).as_array().unwrap()[1..], before.as_array().unwrap()[1..]);
}

fn pause(machine: &Machine, guest: Guest) {
    let out = machine.dir.path().join("history");
    let mut pausing = Pausing { machine, paused_at: None, windows: 0, warnings: Vec::new() };
    let summary = run_guest(guest, &out, &mut pausing);
    let expected =
        ["the guest is paused (prelaunch): recording begins when that is over", "the guest is paused: recording waits"];
    assert_eq!(pausing.warnings, expected);
    let states = states(&History::open(&out).unwrap());
    assert!(states.first() == Some(&State::Recorded) && states.last() == Some(&State::Recorded), "{states:?}");
    assert!(states.contains(&State::Gap) && !states.contains(&State::Migrating), "{states:?}");
    assert!(!summary.gaps.is_zero() && summary.migrating.is_zero(), "{summary:?}");
}

#[test]
fn a_migration_is_kept_away_from_and_marked() {
    let machine = Machine::start(&[]);
    let out = machine.dir.path().join("history");
    // Nothing receives it: the guest is sent, stands stopped for a while, and is set going again.
    let (sender, receiver) = std::sync::mpsc::channel();
    let resumer = std::thread::spawn({
        let socket = machine.socket();
        move || {
            let ask = |command: &str| QmpSocket::new(&socket).exchange(command).unwrap();
            receiver.recv().unwrap();
            while ask(r#"{"execute":"query-status"}"#)["return"]["status"] != "postmigrate" {
                std::thread::sleep(Duration::from_millis(100));
            }
            std::thread::sleep(Duration::from_secs(2));
            ask(r#"{"execute":"cont"}"#);
        }
    });
    let mut after = After::windows(15, 30, || {
        machine.ask(r#"{"execute":"migrate","arguments":{"uri":"exec:cat >/dev/null"}}"#).unwrap();
        sender.send(()).unwrap();
    });
    let summary = run(&machine, &out, &mut after);
    resumer.join().unwrap();
    assert!(
        after.warnings.iter().any(|warning| warning.contains("is migrating: recording waits")),
        "{:?}",
        after.warnings
    );
    let states = states(&History::open(&out).unwrap());
    assert!(states.contains(&State::Migrating) && states.last() == Some(&State::Recorded), "{states:?}");
    assert!(summary.migrating >= Duration::from_secs(2), "{summary:?}");
}

#[test]
fn a_held_monitor_is_one_line_that_names_the_cure() {
    let machine = Machine::start(&[]);
    let mut holder = QmpSocket::new(&machine.socket());
    holder.exchange(r#"{"execute":"query-status"}"#).unwrap();
    let error = qemu::open(&machine.socket()).err().unwrap();
    assert!(error.to_string().contains("another client (e.g. libvirt) holds this monitor"), "{error}");
}

#[test]
fn hot_plugged_memory_is_noticed() {
    let machine = Machine::start(&["-m", "128M,slots=2,maxmem=1G"]);
    let mut guest = qemu::open(&machine.socket()).unwrap();
    assert_eq!(guest.watch.look(), Sight::Clear);
    for command in [
        r#"{"execute":"object-add","arguments":{"qom-type":"memory-backend-ram","id":"m1","size":134217728}}"#,
        r#"{"execute":"device_add","arguments":{"driver":"pc-dimm","id":"d1","memdev":"m1"}}"#,
    ] {
        let answer = machine.ask(command).unwrap();
        assert!(answer.get("return").is_some(), "{answer}");
    }
    let sight = guest.watch.look();
    assert!(matches!(&sight, Sight::LayoutChanged(what) if what.contains("m1")), "{sight:?}");
    assert!(!Life::of(machine.child.id()).unwrap().ended());
}
